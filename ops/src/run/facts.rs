//! What a domain's commands say of the world around its data.

use std::time::Duration;

use strongroom::format::provenance::Provenance;

use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::process::{OUTPUT_LEN_MAX, Order, Processes, beginning};

/// Time that a command may take which finds a fact out.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Finds out all facts of a domain, each or why not.
pub(crate) fn facts<'d>(
    domain: &'d Domain,
    env: &[(String, String)],
    processes: &dyn Processes,
) -> Vec<(&'d Name, Result<String, String>)> {
    let find = |(name, argv)| {
        let order = Order { argv, env, timeout: TIMEOUT, heeds_cancel: true };
        let ended = processes.run(&order).map_err(|error| error.to_string());
        (name, ended.and_then(|ended| value(&ended.stdout)))
    };
    domain.facts.iter().map(find).collect()
}

/// What is kept of an output, and compared: of what is long or no text a beginning and a hash of its bytes, as what is newest often stands
/// last, and as two outputs can look the same as text.
fn value(stdout: &[u8]) -> Result<String, String> {
    if stdout.len() >= OUTPUT_LEN_MAX {
        return Err(format!(
            "it has {OUTPUT_LEN_MAX} bytes or more, and a difference may be in any of them: print less, or a hash of it"
        ));
    }
    let exact = std::str::from_utf8(stdout).map(str::trim_end);
    if let Ok(text) = exact
        && text.len() <= Provenance::FACT_LEN_MAX
    {
        return Ok(text.to_owned());
    }
    let bytes = exact.map_or(stdout, str::as_bytes);
    let rest = format!("… ({} bytes, BLAKE3 {})", bytes.len(), blake3::hash(bytes).to_hex());
    let text = String::from_utf8_lossy(bytes);
    Ok(format!("{}{rest}", beginning(&text, Provenance::FACT_LEN_MAX - rest.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_that_differ_in_any_byte_are_different_facts() {
        let of = |bytes: &[u8]| value(bytes).expect("not too long");
        assert_eq!(of(b"15.4\n"), "15.4");
        // As text these are the same.
        for filling in [0, Provenance::FACT_LEN_MAX] {
            let (mut one, mut other) = (vec![b'x'; filling], vec![b'x'; filling]);
            one.push(0xfe);
            other.push(0xff);
            assert_ne!(of(&one), of(&other), "{filling}");
            assert!(of(&one).len() <= Provenance::FACT_LEN_MAX);
            assert!(of(&one).contains(&*blake3::hash(&one).to_hex()), "{}", of(&one));
        }
        // What is text has the hash that earlier versions gave it: without the end of the line.
        let long = "é".repeat(Provenance::FACT_LEN_MAX);
        let hash = blake3::hash(long.as_bytes()).to_hex();
        assert!(
            of(format!("{long}\n").as_bytes()).ends_with(&format!("… ({} bytes, BLAKE3 {hash})", long.len()))
        );
    }
}
