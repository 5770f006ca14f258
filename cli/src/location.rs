//! Where a repository is, as `-r` says it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::failure::Failure;

/// A place for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder.
    Local(PathBuf),
}

impl Location {
    /// Reads `PATH`, `file:PATH` or `local:PATH`. What looks like another scheme is refused: it would silently make
    /// a folder called `s3:…`. A path whose first part holds a colon is written as `./a:b`.
    pub fn parse(text: &OsStr) -> Result<Self, Failure> {
        let bytes = text.as_bytes();
        let scheme = bytes.split(|byte| *byte == b'/').next().and_then(|first| {
            let end = first.iter().position(|byte| *byte == b':')?;
            Some((&first[..end], &bytes[end + 1..]))
        });
        let path = match scheme {
            None => bytes,
            Some((b"file" | b"local", path)) => path,
            Some((scheme, _)) => {
                let message = format!(
                    "this version knows no repositories of the kind {:?}: it knows PATH, file:PATH and local:PATH",
                    String::from_utf8_lossy(scheme)
                );
                return Err(Failure::usage("unknown-scheme", message)
                    .hint("a folder whose name holds a colon is written as ./NAME"));
            }
        };
        if path.is_empty() {
            return Err(Failure::usage("usage", "the location of the repository is empty"));
        }
        Ok(Self::Local(PathBuf::from(OsStr::from_bytes(path))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, String> {
        Location::parse(OsStr::new(text)).map_err(|failure| failure.message)
    }

    #[test]
    fn paths_and_schemes() {
        for (text, path) in [
            ("/backup", "/backup"),
            ("file:/backup", "/backup"),
            ("local:rel", "rel"),
            ("./a:b", "./a:b"),
            ("x/a:b", "x/a:b"),
        ] {
            assert_eq!(parse(text), Ok(Location::Local(path.into())), "{text}");
        }
        for text in ["s3:bucket", "sftp:host:/path", "rest:http://host/", "c:", "", "file:"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(
            parse("s3:bucket")
                .is_err_and(|message| message.contains("\"s3\"") && message.contains("file:PATH"))
        );
    }
}
