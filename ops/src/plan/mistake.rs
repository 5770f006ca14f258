//! A mistake in a plan file: where it is, what it is, and what was probably meant.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What makes a plan unreadable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; none where it concerns the file as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// The line of a byte position, counted from 1.
pub fn line_of(text: &str, position: usize) -> usize {
    let before = &text.as_bytes()[..position.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

impl Mistake {
    /// A mistake of a file as a whole.
    pub fn of_file(file: &Path, message: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), line: None, message: message.to_string(), hint: None }
    }

    /// A mistake at a place in the text.
    pub fn at(file: &Path, text: &str, span: &Range<usize>, message: impl fmt::Display) -> Self {
        Self { line: Some(line_of(text, span.start)), ..Self::of_file(file, message) }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// What the TOML reader found.
    pub fn from_toml(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim().replace('\n', "; ");
        let mistake = match error.span() {
            Some(span) => Self::at(file, text, &span, &message),
            None => Self::of_file(file, &message),
        };
        match unknown_key(&message) {
            Some((key, known)) => {
                let message = format!("there is no key `{key}` here");
                let hint = match nearest(key, &known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                Self { message, ..mistake }.hint(hint)
            }
            None => mistake,
        }
    }
}

/// The key and the known ones, if the message is of an unknown key. Serde fixes these words.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((key, known))
}

/// The known word that differs least, if it differs little.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let scored = known.iter().map(|other| (distance(word, other), *other));
    let (distance, other) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= word.len().max(other.len()) / 3 + 1).then_some(other)
}

/// Letters to insert, remove or replace.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_if_it_is_near() {
        let known = ["schedule", "stream", "paths", "to"];
        assert_eq!(nearest("shedule", &known), Some("schedule"));
        assert_eq!(nearest("path", &known), Some("paths"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("x", &[]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!((line_of("a\nb", 0), line_of("a\nb", 2), line_of("a\nb", 99)), (1, 2, 2));
    }
}
