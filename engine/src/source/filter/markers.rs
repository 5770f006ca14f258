//! Files whose presence says that the contents of their directory are not worth storing.

use std::io::{self, Read};
use std::path::Path;

use super::FilterError;
use crate::source::dir::SourceDir;
use crate::source::listing::Listing;
use crate::source::stat::{SourceKind, SourceStat};

/// Name of the tag of the Cache Directory Tagging Specification.
pub(super) const CACHE_TAG: &str = "CACHEDIR.TAG";

/// The 43 bytes that a valid tag begins with.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// How a directory is tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tagged {
    /// As a cache.
    Cache,
    /// By the marker with this index.
    Marker(usize),
}

/// A file that tags its directory, with what it has to begin with.
#[derive(Debug)]
pub(super) struct Marker {
    name: String,
    header: Vec<u8>,
}

impl Marker {
    /// Reads `NAME` or `NAME:HEADER`.
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        let (name, header) = text.split_once(':').unwrap_or((text, ""));
        if !is_file_name(name) {
            return Err(FilterError::FileName { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), header: header.as_bytes().to_vec() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the directory is tagged by this marker. One that cannot be read tags nothing.
    pub(super) fn is_in(
        &self,
        path: &Path,
        dir: &SourceDir,
        names: &Listing,
        warn: &mut dyn FnMut(FilterError),
    ) -> bool {
        is_tagged(path, dir, names, (&self.name, &self.header), warn)
    }
}

/// Whether `name` can be that of a directory's entry.
pub(super) fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// Whether the directory holds a valid `CACHEDIR.TAG`.
pub(super) fn is_cache(
    path: &Path,
    dir: &SourceDir,
    names: &Listing,
    warn: &mut dyn FnMut(FilterError),
) -> bool {
    is_tagged(path, dir, names, (CACHE_TAG, CACHE_SIGNATURE), warn)
}

/// Whether the directory `dir` with these names has `name`.
pub(super) fn is_listed(dir: &SourceDir, names: &Listing, name: &str) -> bool {
    names.contains(name.as_bytes()).unwrap_or_else(|| dir.stat(name.as_bytes()).is_ok())
}

fn is_tagged(
    path: &Path,
    dir: &SourceDir,
    names: &Listing,
    (name, header): (&str, &[u8]),
    warn: &mut dyn FnMut(FilterError),
) -> bool {
    if !is_listed(dir, names, name) {
        return false;
    }
    if header.is_empty() {
        return true;
    }
    read_start(dir, name, header.len()).map(|start| start == header).unwrap_or_else(|source| {
        warn(FilterError::File { path: path.join(name), source });
        false
    })
}

/// The first bytes of a regular file, at most `length` of them; nothing for other kinds, which are not opened.
pub(super) fn read_start(dir: &SourceDir, name: &str, length: usize) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    if dir.stat(name.as_bytes())?.kind == SourceKind::File {
        let file = dir.open_file(name.as_bytes())?;
        if SourceStat::of_file(&file)?.kind == SourceKind::File {
            file.take(length as u64).read_to_end(&mut start)?;
        }
    }
    Ok(start)
}
