//! What a restore is asked to do and what it tells afterwards.

use crate::browse::BrowseError;
use crate::repo::RepositoryError;
use crate::source::{FilterError, Spill};
use crate::target::MetadataOptions;

/// What to do with files that exist in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Compare content and rewrite what differs.
    #[default]
    Always,
    /// As `Always`, but files of equal size and modification time are taken as equal.
    IfChanged,
    /// Only what is newer in the snapshot than in the target.
    IfNewer,
    /// Leave alone what exists, the metadata of directories included.
    Never,
}

/// How a restore goes about it.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Only entries that match one of these, if there are any. Patterns as in excludes.
    pub include: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    /// What to do with existing files.
    pub overwrite: Overwrite,
    /// Remove what the snapshot does not have.
    pub delete: bool,
    /// Plan and count only.
    pub dry_run: bool,
    /// Read everything back from the target and compare.
    pub verify: bool,
    /// Wait until everything is on disk, and report what failed to get there.
    pub sync: bool,
    /// Which metadata to restore.
    pub metadata: MetadataOptions,
    /// Threads that decode and write; fewer where there is no memory for so many.
    pub threads: usize,
    /// Memory to live in, in bytes.
    pub memory: u64,
    /// Where the names in a huge directory of the target wait, and how many of them are sorted at once.
    pub spill: Spill,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            overwrite: Overwrite::Always,
            delete: false,
            dry_run: false,
            verify: false,
            sync: false,
            metadata: MetadataOptions::default(),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: crate::budget::USUAL,
            spill: Spill::default(),
        }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreReport {
    /// Files in the part of the snapshot that was restored.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Other entries: links, devices, pipes, sockets.
    pub others: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// Files written in whole or in part.
    pub files_written: u64,
    /// Files that were as they should be.
    pub files_unchanged: u64,
    /// Files that were there and, as asked for, were not compared.
    pub files_skipped: u64,
    /// Files that could not be restored whole: what was had of them stands under another name.
    pub files_incomplete: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Entries removed by `delete`; a directory that goes in one piece is one.
    pub deleted: u64,
    /// Files read back and found equal.
    pub verified: u64,
    /// Entries that could not be restored wholly; each was reported.
    pub errors: u64,
    /// The operation was cancelled.
    pub cancelled: bool,
}

/// A restore could not begin, or the repository failed it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target directory cannot be used.
    #[error("cannot restore into {target}: {source}")]
    Target {
        /// The directory.
        target: String,
        /// Why.
        source: std::io::Error,
    },
    /// The target directory is part of the repository.
    #[error("cannot restore into {target}: it lies in the repository itself")]
    TargetInRepository {
        /// The directory.
        target: String,
    },
    /// The path is not in the snapshot.
    #[error("{path} is not in the snapshot: {missing} does not exist there")]
    NoPath {
        /// The path asked for.
        path: String,
        /// The first component that is missing.
        missing: String,
    },
    /// A pattern cannot be used.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A tree that is needed to begin cannot be read.
    #[error(transparent)]
    Browse(#[from] BrowseError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}
