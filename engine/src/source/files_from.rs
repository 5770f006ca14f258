//! Lists of paths to back up, as `--files-from` takes them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What ends a path in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// A line feed. Lines that begin with `#` are comments.
    Line,
    /// A NUL byte: for names that hold line feeds or begin with `#`.
    Nul,
}

/// A list that cannot be used. Fields named `list` say where it came from.
#[derive(Debug, thiserror::Error)]
pub enum FilesFromError {
    /// A path holds a NUL byte, which no path can: likely the list is separated by them.
    #[error("{list}, line {line}: a path cannot hold a NUL byte; is this list NUL-separated?")]
    Nul {
        /// The list.
        list: String,
        /// The line, from 1.
        line: usize,
    },
    /// Nothing but blank lines and comments: a backup of nothing is never what was meant.
    #[error("{list} names no path")]
    Empty {
        /// The list.
        list: String,
    },
}

/// The paths in `bytes`, in their order and as they are: nothing is trimmed or expanded, names need not be UTF-8.
/// Blank entries are skipped. `list` names the list in errors.
///
/// # Errors
/// [`FilesFromError`]: a NUL byte in a line, or no path at all.
pub fn parse(bytes: &[u8], separator: Separator, list: &str) -> Result<Vec<PathBuf>, FilesFromError> {
    let (end, is_line) = match separator {
        Separator::Line => (b'\n', true),
        Separator::Nul => (0, false),
    };
    let mut paths = Vec::new();
    for (index, path) in bytes.split(|&byte| byte == end).enumerate() {
        if path.is_empty() || (is_line && path[0] == b'#') {
            continue;
        }
        if path.contains(&0) {
            return Err(FilesFromError::Nul { list: list.to_owned(), line: index + 1 });
        }
        paths.push(PathBuf::from(OsStr::from_bytes(path)));
    }
    if paths.is_empty() {
        return Err(FilesFromError::Empty { list: list.to_owned() });
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        parsed(bytes, Separator::Line)
    }

    fn parsed(bytes: &[u8], separator: Separator) -> Result<Vec<Vec<u8>>, String> {
        match parse(bytes, separator, "list") {
            Ok(paths) => {
                Ok(paths.into_iter().map(|path| path.into_os_string().as_bytes().to_vec()).collect())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn lines_without_blank_ones_and_comments() {
        let list = b"/a\n\n# comment\n b c \n#x\nd#e\nlast";
        assert_eq!(lines(list).unwrap(), [b"/a".as_slice(), b" b c ", b"d#e", b"last"]);
    }

    #[test]
    fn bytes_stay_as_they_are() {
        assert_eq!(lines(b"\xff\xfe\r\n").unwrap(), [b"\xff\xfe\r"]);
    }

    #[test]
    fn nul_separated_names_hold_anything_else() {
        let list = b"#a\0b\nc\0\0d";
        assert_eq!(parsed(list, Separator::Nul).unwrap(), [b"#a".as_slice(), b"b\nc", b"d"]);
    }

    #[test]
    fn a_nul_in_a_line_is_named() {
        let error = lines(b"# c\n\na\nb\0c\n").unwrap_err();
        assert_eq!(error, "list, line 4: a path cannot hold a NUL byte; is this list NUL-separated?");
    }

    #[test]
    fn an_empty_list_is_an_error() {
        assert_eq!(lines(b"").unwrap_err(), "list names no path");
        assert_eq!(lines(b"\n# only a comment\n\n").unwrap_err(), "list names no path");
        assert_eq!(parsed(b"\0\0", Separator::Nul).unwrap_err(), "list names no path");
    }
}
