//! Values of a plan: names, commands, lengths of time, sizes, shares.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::calendar::Schedule;

/// Makes a type that is read from a string by its [`FromStr`], with a schema of its own.
macro_rules! from_text {
    ($type:ident, $name:literal, $schema:tt) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// Name of a repository, class, domain or drill: it becomes part of file names, units and metrics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Longest name.
    pub const LEN_MAX: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        match begins_well && text.len() <= Self::LEN_MAX && text.chars().all(good) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "{text:?} is no name: a name has up to {} small letters, digits, `-` and `_`, and begins with a \
                 letter or digit",
                Self::LEN_MAX
            )),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

from_text!(Name, "Name", {
    "type": "string",
    "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"
});

/// Name of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Variable(String);

impl Variable {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        match begins_well && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            true => Ok(Self(text.to_owned())),
            // What stands in its place often is what the variable is to hold.
            false => Err("this is no name of an environment variable, which has letters, digits and `_` only: a value does not \
                          belong here, as it may be a secret"
                .into()),
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

from_text!(Variable, "Variable", {
    "type": "string",
    "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"
});

/// A command: a program and its arguments, never a shell's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
#[schemars(inline, with = "Vec<String>", extend("minItems" = 1))]
pub struct Argv(Vec<String>);

impl Argv {
    /// The program.
    pub fn program(&self) -> &str {
        &self.0[0]
    }

    /// Program and arguments.
    pub fn words(&self) -> &[String] {
        &self.0
    }

    /// The same with `${name}` replaced by a value.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        Self(self.0.iter().map(|word| word.replace(&format!("${{{name}}}"), value)).collect())
    }

    /// Whether `${name}` stands in it.
    pub fn names(&self, name: &str) -> bool {
        self.0.iter().any(|word| word.contains(&format!("${{{name}}}")))
    }

    /// The command as a shell would have to be given it.
    pub fn quoted(&self) -> String {
        self.0.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

impl TryFrom<Vec<String>> for Argv {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        match words.first() {
            None => Err("a command is a list that begins with a program, and this one is empty".into()),
            Some(program) if program.is_empty() => Err("the program of a command has no name".into()),
            Some(_) if words.iter().any(|word| word.contains('\0')) => {
                Err("an argument of a command holds a NUL byte".into())
            }
            Some(_) => Ok(Self(words)),
        }
    }
}

impl From<Argv> for Vec<String> {
    fn from(argv: Argv) -> Self {
        argv.0
    }
}

/// A word as a shell would have to be given it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A length of time: `90s`, `45m`, `24h`, `7d`, `2w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lapse(u64);

impl Lapse {
    const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    /// A hundred years: sums of some never overflow.
    const SECONDS_MAX: u64 = 100 * 366 * 86_400;

    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(if seconds > Self::SECONDS_MAX { Self::SECONDS_MAX } else { seconds })
    }

    /// In seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// As the library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Lapse {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no length of time: write it as 90s, 45m, 24h, 7d or 2w");
        let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(end);
        let (_, factor) = Self::UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        seconds.filter(|seconds| *seconds <= Self::SECONDS_MAX).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Weeks and days only where people count in them: 24h stays 24h.
        let fits = |(name, factor): &&(&str, u64)| {
            self.0.is_multiple_of(*factor) && (self.0 > *factor || matches!(*name, "h" | "m" | "s"))
        };
        let (name, factor) = Self::UNITS.iter().find(fits).unwrap_or(&("s", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

from_text!(Lapse, "Lapse", {
    "type": "string",
    "pattern": "^[0-9]+[smhdw]$"
});

/// How many bytes a unit of size stands for, in upper or lower case: `K`, `M`, `G`, `T` and `KiB` … `TiB` are powers of 1024, `KB` … `TB`
/// powers of 1000; no unit and `B` are bytes.
pub fn size_factor(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    })
}

/// A number of bytes: `10MiB`, `5G`, `20MB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size: write it as 4096, 10MiB, 5G (powers of 1024) or 20MB");
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let factor = size_factor(text[end..].trim()).ok_or_else(wrong)?;
        let bytes = text[..end].parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

from_text!(ByteSize, "ByteSize", {
    "type": "string",
    "pattern": "^[0-9]+ *([kKmMgGtT]([iI]?[bB])?|[bB])?$"
});

/// A share of something: `10%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u8);

impl Share {
    /// The share in hundredths.
    pub const fn percent(self) -> u8 {
        self.0
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
        let found = number.filter(|percent| (1..=100).contains(percent)).map(Self);
        found.ok_or_else(|| format!("{text:?} is no share: write it as 1% to 100%"))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

from_text!(Share, "Share", {
    "type": "string",
    "pattern": "^[0-9]{1,3}%$"
});

from_text!(Schedule, "Schedule", {
    "type": "string",
    "description": "a calendar event as systemd writes it: `daily`, `Mon..Fri 02:15`, `*-*-01 04:00`"
});
