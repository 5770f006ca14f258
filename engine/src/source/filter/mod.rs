//! What of the source is left out, and why.
//!
//! A [`Filter`] is made of the options once and asked about every entry. What holds for a directory and all below
//! it (ignore files, a cache tag, the file system it lies on) travels with the walk in a [`DirFilter`], which is made
//! from the parent's when a directory is entered.
//!
//! | rule | hits | effect |
//! |---|---|---|
//! | exclude patterns (see [`Rule`]) | any entry | left out, a directory with all below |
//! | ignore files, as git reads them | entries beside and below | the same |
//! | cache tag, marker file | a directory | kept, but of its contents only the tag |
//! | another file system | a directory | kept, but empty: what is mounted there is not entered |
//! | size limit | regular files | left out |
//!
//! The rules are independent: an entry is left out if any of them says so, and a `!` overrides rules of its own
//! list (or of the ignore files above) only. What is below an excluded directory is never looked at, so no `!` can
//! bring it back. In an ignore file, a pattern that is not valid is reported and the others are used, as git does:
//! too much is stored rather than nothing.

mod layers;
mod markers;
mod patterns;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use layers::Layer;
use markers::{Marker, Tagged};
use patterns::Patterns;
pub use patterns::{Origin, PathPatterns, Rule};

use super::dir::SourceDir;
use super::listing::Listing;
use super::stat::{SourceKind, SourceStat};

/// What to leave out. The default leaves out nothing.
#[derive(Debug, Clone, Default)]
pub struct FilterOptions {
    /// Patterns as [`Rule`] describes them; later ones have precedence.
    pub exclude: Vec<String>,
    /// As `exclude`, upper and lower case being the same.
    pub iexclude: Vec<String>,
    /// Files with further `exclude` patterns, one a line; blank lines and those starting with `#` are skipped.
    pub exclude_files: Vec<PathBuf>,
    /// Names of files such as `.gitignore` that rule over their directory and all below; of several in one
    /// directory, those named later here have precedence.
    pub ignore_file_names: Vec<String>,
    /// Leave out the contents of directories with a valid `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Leave out the contents of directories that hold a file `NAME`, or, given as `NAME:HEADER`, one that
    /// begins with `HEADER`.
    pub exclude_if_present: Vec<String>,
    /// Leave out regular files of more bytes.
    pub exclude_larger_than: Option<u64>,
    /// Leave out the contents of directories on another device than the root they were reached from.
    pub one_file_system: bool,
}

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A pattern is not valid.
    #[error("{origin}: the pattern {pattern:?} is not valid: {reason}")]
    Pattern {
        /// The pattern as it was written.
        pattern: String,
        /// Where it was written.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry of [`FilterOptions::exclude_if_present`] or
    /// [`ignore_file_names`](FilterOptions::ignore_file_names) names no file of a directory.
    #[error(
        "{name:?} cannot be the name of a marker or ignore file: it is empty, or holds a slash or a NUL byte"
    )]
    FileName {
        /// The name.
        name: String,
    },
    /// A file that holds rules, or could, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why an entry is left out.
#[derive(Debug, Clone, Copy)]
pub enum Reason<'a> {
    /// A pattern of the options.
    Pattern(&'a Rule),
    /// A pattern in an ignore file.
    IgnoreFile {
        /// The ignore file.
        file: &'a Path,
        /// The line.
        pattern: &'a str,
    },
    /// The directory holds a valid `CACHEDIR.TAG`.
    CacheTag,
    /// The directory holds a file of this name.
    Marker(&'a str),
    /// The file is too large.
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The largest size that is kept.
        limit: u64,
    },
    /// The directory lies on another file system than the root.
    OtherFileSystem,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(rule) => write!(f, "the pattern {:?} ({})", rule.pattern(), rule.origin()),
            Self::IgnoreFile { file, pattern } => write!(f, "the pattern {pattern:?} ({})", file.display()),
            Self::CacheTag => write!(f, "its directory is tagged as a cache"),
            Self::Marker(name) => write!(f, "its directory holds a file {name:?}"),
            Self::TooLarge { size, limit } => write!(f, "{size} bytes are more than {limit}"),
            Self::OtherFileSystem => write!(f, "another file system"),
        }
    }
}

/// All rules of a run.
#[derive(Debug)]
pub struct Filter {
    exclude: Option<Patterns>,
    iexclude: Option<Patterns>,
    ignore_file_names: Vec<String>,
    exclude_caches: bool,
    markers: Vec<Marker>,
    size_max: Option<u64>,
    one_file_system: bool,
}

/// The rules that hold in one directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DirFilter {
    /// The device of the root.
    device: u64,
    ignored: Option<Arc<Layer>>,
    tagged: Option<Tagged>,
}

impl Filter {
    /// Reads and compiles all rules.
    ///
    /// # Errors
    /// [`FilterError`] for the first rule that cannot be used.
    pub fn new(options: FilterOptions) -> Result<Self, FilterError> {
        let mut rules = patterns::given(&options.exclude)?;
        for path in &options.exclude_files {
            rules.extend(patterns::of_file(path)?);
        }
        if let Some(name) = options.ignore_file_names.iter().find(|name| !markers::is_file_name(name)) {
            return Err(FilterError::FileName { name: name.clone() });
        }
        let markers = options.exclude_if_present.iter().map(|marker| Marker::parse(marker));
        Ok(Self {
            exclude: Patterns::new(rules, false)?,
            iexclude: Patterns::new(patterns::given(&options.iexclude)?, true)?,
            markers: markers.collect::<Result<_, _>>()?,
            ignore_file_names: options.ignore_file_names,
            exclude_caches: options.exclude_caches,
            size_max: options.exclude_larger_than,
            one_file_system: options.one_file_system,
        })
    }

    /// What holds above a root that lies on `device`. What is above it in the file system has no say: a root is
    /// asked about like any other entry, its parents are not.
    pub fn above_root(&self, device: u64) -> DirFilter {
        DirFilter { device, ignored: None, tagged: None }
    }

    /// Why nothing below the directory with the state `stat`, found in a directory where `parent` holds, is to be
    /// looked at; it is then stored as empty.
    pub fn not_entered(&self, parent: &DirFilter, stat: &SourceStat) -> Option<Reason<'static>> {
        (self.one_file_system && stat.device != parent.device).then_some(Reason::OtherFileSystem)
    }

    /// What holds in the directory `dir`, which has the full path `path` and holds `names`. Rules found there that
    /// cannot be read or used are told to `warn` and have no effect.
    pub fn enter(
        &self,
        parent: &DirFilter,
        path: &Path,
        dir: &SourceDir,
        names: &Listing,
        warn: &mut dyn FnMut(FilterError),
    ) -> DirFilter {
        let mut entered = DirFilter { tagged: None, ..parent.clone() };
        if self.exclude_caches && markers::is_cache(path, dir, names, warn) {
            entered.tagged = Some(Tagged::Cache);
            return entered;
        }
        let marker = self.markers.iter().position(|marker| marker.is_in(path, dir, names, warn));
        if let Some(index) = marker {
            entered.tagged = Some(Tagged::Marker(index));
            return entered;
        }
        for name in &self.ignore_file_names {
            if markers::is_listed(dir, names, name) {
                entered.ignored = layers::read(entered.ignored.take(), path, dir, name, warn);
            }
        }
        entered
    }

    /// Why the entry with the full path `path`, in a directory where `parent` holds, is left out; `None` where it
    /// is kept. `size` matters for regular files only.
    pub fn excluded<'a>(
        &'a self,
        parent: &'a DirFilter,
        path: &Path,
        kind: SourceKind,
        size: u64,
    ) -> Option<Reason<'a>> {
        if let Some(tagged) = parent.tagged {
            return self.outside_tag(tagged, path);
        }
        if let Some(limit) = self.size_max.filter(|&limit| kind == SourceKind::File && size > limit) {
            return Some(Reason::TooLarge { size, limit });
        }
        let mut lists = [&self.exclude, &self.iexclude].into_iter().flatten();
        if let Some(rule) = lists.find_map(|patterns| patterns.excluding(path)) {
            return Some(Reason::Pattern(rule));
        }
        parent.ignored.as_ref().and_then(|layer| layer.ignoring(path, kind == SourceKind::Directory))
    }

    /// Whether [`Filter::excluded`] keeps everything where `parent` holds, whatever it is: there is then no need to
    /// ask it.
    pub fn keeps_all(&self, parent: &DirFilter) -> bool {
        let asks_nothing = self.exclude.is_none() && self.iexclude.is_none() && self.size_max.is_none();
        asks_nothing && parent.ignored.is_none() && parent.tagged.is_none()
    }

    /// In a tagged directory, all but the tag is left out.
    fn outside_tag(&self, tagged: Tagged, path: &Path) -> Option<Reason<'_>> {
        let (name, reason) = match tagged {
            Tagged::Cache => (markers::CACHE_TAG, Reason::CacheTag),
            Tagged::Marker(index) => {
                let name = self.markers[index].name();
                (name, Reason::Marker(name))
            }
        };
        (path.file_name() != Some(name.as_ref())).then_some(reason)
    }
}
