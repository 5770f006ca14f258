//! The source: how a user's file system is read. Knows nothing of chunks, trees of a repository or snapshots, and
//! starts no thread.
//!
//! - [`dir`]: open directories; all below a root is reached by name from a handle, never by a path
//! - [`names`], [`listing`]: the names of one directory, sorted
//! - [`stat`]: what one `statx` tells, and whether an entry looks unchanged
//! - [`metadata`]: the full metadata of a new or changed entry
//! - [`sparse`]: the holes of a file
//! - [`filter`]: what is left out
//! - [`files_from`]: lists of paths
//!
//! An unchanged entry costs one `statx` and its share of `getdents64`; it is not opened.
//!
//! # Limits
//! - Names are bytes; paths are of any length, since they are only built for messages and patterns. A root is
//!   opened by path, so the path of a root itself is limited to the system's 4096 bytes.
//! - Each level of the walk holds one open directory: the limit of open files limits the depth.
//! - A directory's names are in memory while it is walked, 8 bytes an entry and the names themselves, up to some ten
//!   thousand; those of a larger one wait in a temporary file.
//! - Not every file system reports access-time exemptions, birth times, holes, attributes or flags: what is
//!   not reported is stored as absent.
//! - Entries may change between any two calls. Each call alone is safe against that; consistency of what is read
//!   is for the caller to check, by comparing stats before and after.

pub mod dir;
pub mod files_from;
pub mod filter;
pub mod listing;
pub mod metadata;
pub mod names;
pub mod sparse;
pub mod stat;
#[cfg(test)]
mod tests;

pub use dir::{ListBuffer, SourceDir};
pub use files_from::{FilesFromError, Separator};
pub use filter::{DirFilter, Filter, FilterError, FilterOptions, PathPatterns, Reason};
pub use listing::{Listing, Spill};
pub use metadata::{MetadataError, MetadataReader};
pub use names::Names;
pub use stat::{SourceKind, SourceStat};
