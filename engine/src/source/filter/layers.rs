//! Ignore files: those of a directory lie as a layer over those of the directories above.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{FilterError, Origin, Reason, markers};
use crate::source::dir::SourceDir;

/// A larger ignore file is not one.
const IGNORE_FILE_BYTES_MAX: usize = 1 << 20;

/// One ignore file and all that hold beside it with lower precedence.
#[derive(Debug)]
pub(super) struct Layer {
    file: PathBuf,
    globs: Gitignore,
    below: Option<Arc<Layer>>,
}

impl Layer {
    /// The pattern that has `path` ignored: of the topmost layer with a match the last line that matches, if it is
    /// none with a `!`.
    pub(super) fn ignoring(&self, path: &Path, is_directory: bool) -> Option<Reason<'_>> {
        let mut layer = Some(self);
        while let Some(Layer { file, globs, below }) = layer {
            match globs.matched(path, is_directory) {
                Match::Ignore(glob) => return Some(Reason::IgnoreFile { file, pattern: glob.original() }),
                Match::Whitelist(_) => return None,
                Match::None => layer = below.as_deref(),
            }
        }
        None
    }
}

impl Drop for Layer {
    /// Without recursion: a tree may be deeper than the stack.
    fn drop(&mut self) {
        let mut next = self.below.take();
        while let Some(mut layer) = next.and_then(Arc::into_inner) {
            next = layer.below.take();
        }
    }
}

/// Lays the ignore file `name` of the directory `dir`, which has the full path `path`, over `below`.
pub(super) fn read(
    below: Option<Arc<Layer>>,
    path: &Path,
    dir: &SourceDir,
    name: &str,
    warn: &mut dyn FnMut(FilterError),
) -> Option<Arc<Layer>> {
    let file = path.join(name);
    let text = match markers::read_start(dir, name, IGNORE_FILE_BYTES_MAX + 1) {
        Ok(text) if text.len() <= IGNORE_FILE_BYTES_MAX => text,
        outcome => {
            let too_large =
                || io::Error::new(io::ErrorKind::FileTooLarge, "more than 1 MiB of ignore patterns");
            let source = outcome.err().unwrap_or_else(too_large);
            warn(FilterError::File { path: file, source });
            return below;
        }
    };
    match parse(&text, path, &file, warn) {
        Some(globs) => Some(Arc::new(Layer { file, globs, below })),
        None => below,
    }
}

/// The patterns in `text`, to be matched below `root`; `None` where there are none.
fn parse(text: &[u8], root: &Path, file: &Path, warn: &mut dyn FnMut(FilterError)) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new(root);
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let mut invalid = |reason: String| {
            let origin = Origin::File { path: file.to_owned(), line: index + 1 };
            warn(FilterError::Pattern {
                pattern: String::from_utf8_lossy(line).into_owned(),
                origin,
                reason,
            });
        };
        match str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) {
            Ok(line) => {
                if let Err(error) = builder.add_line(None, line) {
                    invalid(error.to_string());
                }
            }
            Err(_) => invalid("it is not UTF-8; use ? or * for other bytes".to_owned()),
        }
    }
    match builder.build() {
        Ok(globs) => (!globs.is_empty()).then_some(globs),
        Err(error) => {
            warn(FilterError::File { path: file.to_owned(), source: io::Error::other(error) });
            None
        }
    }
}
