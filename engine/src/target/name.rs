//! Names that a tree may put into a target, and the paths made of them.
//!
//! A [`RelativePath`] can only be built from names that passed [`check_name`], so nothing that later handles
//! one has to think of `..`, of absolute paths or of NUL.

use std::fmt;

/// Longest name of one entry, in bytes: what Linux file systems allow.
pub(super) const LONGEST_NAME: usize = 255;

/// Why a name cannot be the name of a directory entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("an entry has an empty name")]
    Empty,
    /// `.` or `..`, which name a directory and not an entry of it.
    #[error("an entry is named “.” or “..”")]
    Dots,
    /// A byte that cannot be part of a name.
    #[error("the name “{name}” has a {} at byte {at}", if *.byte == 0 { "NUL" } else { "slash" })]
    Byte {
        /// The name, made printable.
        name: String,
        /// `/` or NUL.
        byte: u8,
        /// Its offset in the name.
        at: usize,
    },
    /// More bytes than a file system takes.
    #[error("a name has {found} bytes, at most {LONGEST_NAME} are possible")]
    TooLong {
        /// Length of the name in bytes.
        found: usize,
    },
}

/// Whether `name` can name a directory entry: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
pub fn check_name(name: &[u8]) -> Result<(), NameError> {
    match name {
        b"" => return Err(NameError::Empty),
        b"." | b".." => return Err(NameError::Dots),
        _ => {}
    }
    if name.len() > LONGEST_NAME {
        return Err(NameError::TooLong { found: name.len() });
    }
    match name.iter().position(|byte| matches!(byte, b'/' | 0)) {
        None => Ok(()),
        Some(at) => Err(NameError::Byte { name: printable(name), byte: name[at], at }),
    }
}

/// The path of an entry below a target, as checked names joined by `/`; without names it is the target itself.
///
/// It may be longer than the 4096 bytes that one system call takes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelativePath(Vec<u8>);

impl RelativePath {
    /// The target directory itself.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Splits `bytes` at every `/` and checks each name; no bytes give the root.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        if !bytes.is_empty() {
            bytes.split(|byte| *byte == b'/').try_for_each(check_name)?;
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The entry `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Result<Self, NameError> {
        check_name(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !self.is_root() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Ok(Self(bytes))
    }

    /// Whether this is the target directory itself.
    pub const fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names joined by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last name; none for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.split().map(|(_, name)| name)
    }

    /// The directory that holds this entry; none for the root.
    pub fn parent(&self) -> Option<Self> {
        self.split().map(|(parent, _)| Self(parent.to_vec()))
    }

    /// Parent path and last name; none for the root.
    pub(super) fn split(&self) -> Option<(&[u8], &[u8])> {
        (!self.is_root()).then(|| split_last(&self.0))
    }
}

/// Cuts a path at its last `/`: what lies before it (nothing if there is none) and the last name.
pub(super) fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { "" })?;
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelativePath({self})")
    }
}

/// Bytes of a stranger as text that cannot move a terminal's cursor: control characters are escaped.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_and_splits() {
        let path = RelativePath::root().join(b"a").unwrap().join(b"b\xff").unwrap();
        assert_eq!(path.as_bytes(), b"a/b\xff");
        assert_eq!(path.name(), Some(&b"b\xff"[..]));
        assert_eq!(path.parent(), Some(RelativePath::parse(b"a").unwrap()));
        assert_eq!(path.parent().unwrap().parent(), Some(RelativePath::root()));
        assert_eq!(RelativePath::root().split(), None);
        assert_eq!(RelativePath::parse(b"a/b\xff"), Ok(path));
    }

    #[test]
    fn the_longest_name_passes_and_one_more_byte_does_not() {
        assert_eq!(check_name(&[b'x'; 255]), Ok(()));
        assert_eq!(check_name(&[b'x'; 256]), Err(NameError::TooLong { found: 256 }));
    }

    #[test]
    fn control_characters_are_not_shown_raw() {
        let path = RelativePath::parse(b"a\x1b[2J/\n").unwrap();
        assert_eq!(path.to_string(), r"a\u{1b}[2J/\n");
        assert_eq!(RelativePath::root().to_string(), ".");
    }
}
