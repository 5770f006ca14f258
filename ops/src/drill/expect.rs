//! What the output of a step has to be: compared as a number, or as a text.

use crate::run::process::said;

/// What there is to compare with.
const SIGNS: [&str; 6] = ["<", "<=", ">", ">=", "==", "!="];

/// What an output has to be.
#[derive(Debug, PartialEq)]
enum Expectation<'e> {
    /// On this side of a number.
    Number(&'e str, f64),
    /// This text.
    Text(&'e str),
}

/// Why what is expected is neither a comparison nor a text, if it is not.
pub fn mistake(expect: &str) -> Option<String> {
    parse(expect).err()
}

fn parse(expect: &str) -> Result<Expectation<'_>, String> {
    let expect = expect.trim();
    let rest = expect.trim_start_matches(['<', '>', '=', '!', '~']);
    let sign = &expect[..expect.len() - rest.len()];
    match number(rest) {
        Some(number) if SIGNS.contains(&sign) => Ok(Expectation::Number(sign, number)),
        None if matches!(sign, "" | "<" | ">") || rest.is_empty() => Ok(Expectation::Text(expect)),
        Some(_) if sign.is_empty() => Ok(Expectation::Text(expect)),
        _ => Err(format!(
            "expects {expect:?}, which is no comparison: one is {} and a number, and a text has no sign before it",
            SIGNS.join(", ")
        )),
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether an output is what was expected: `< N` and the like, or a text. What it was instead stands behind what a command said, as it
/// may be anything; of numbers that is known.
pub fn expected(expect: &str, output: &str) -> Result<(), String> {
    let output = output.trim();
    let (sign, limit) = match parse(expect)? {
        Expectation::Text(text) if output == text => return Ok(()),
        Expectation::Text(text) => {
            return Err(format!("it did not print {text:?}, as expected{}", said(output)));
        }
        Expectation::Number(sign, limit) => (sign, limit),
    };
    let found = number(output)
        .ok_or_else(|| format!("it did not print a number {expect}, as expected{}", said(output)))?;
    let is_right = found.partial_cmp(&limit).is_some_and(|order| match sign {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "==" => order.is_eq(),
        _ => order.is_ne(),
    });
    if is_right { Ok(()) } else { Err(format!("it printed {found}, expected {expect}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_compared_as_numbers_or_texts() {
        for (expect, output, is_right) in [
            ("< 5", "4\n", true),
            ("<5", "4.9", true),
            ("< 5", "5", false),
            ("> -1", "0", true),
            ("> 3", "many", false),
            ("< 5", "NaN", false),
            ("ok", " ok\n", true),
            ("ok", "not ok", false),
            ("< five", "< five", true),
            ("20000", "20000", true),
            ("20000", "2e4", false),
            (">= 5", "5", true),
            (">= 5", "4.9", false),
            ("<= 5", "5.0", true),
            ("<= 5", "6", false),
            ("== 5", "5.0", true),
            ("== 5", "6", false),
            ("!= 0", "1", true),
            ("!=0", "0", false),
            ("== 0", "none", false),
            ("<html>", "<html>", true),
            ("===", "===", true),
        ] {
            assert_eq!(expected(expect, output).is_ok(), is_right, "{expect} {output}");
        }
    }

    #[test]
    fn what_looks_like_a_comparison_and_is_none_is_told() {
        for expect in ["=> 5", "=< 5", "= 5", "<> 5", "!= none", "== five", ">= many", "~ 5", "!5"] {
            let wrong = mistake(expect).unwrap_or_else(|| panic!("not seen: {expect}"));
            assert!(wrong.contains(expect) && expected(expect, expect).is_err(), "{wrong}");
        }
    }
}
