//! What a copy is asked to do and what it tells afterwards.

use std::path::PathBuf;
use std::time::Duration;

use crate::backup::{BackupError, BackupOptions};
use crate::forget::Selection;
use crate::format::tree::Timestamp;
use crate::ids::SnapshotId;
use crate::repo::RepositoryError;
use crate::store::ReadError;

/// Which snapshots to copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// All that are complete.
    #[default]
    All,
    /// The last one that is complete.
    Latest,
    /// These, partial ones included.
    Named(Vec<SnapshotId>),
}

/// Limits and habits of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// Which snapshots.
    pub choice: Choice,
    /// Which of them are looked at at all; of no consequence to those that are named.
    pub selection: Selection,
    /// Say which snapshots would be copied, read and write nothing else.
    pub dry_run: bool,
    /// zstd level.
    pub level: i32,
    /// Threads that read, hash, compress and seal.
    pub threads: usize,
    /// Memory to live in, in bytes.
    pub memory: u64,
    /// A directory for a temporary file, which gets no name there: 64 to 192 bytes for each blob of the snapshots. Without
    /// one they are in memory.
    pub spill: Option<PathBuf>,
    /// Time after which what was stored is made part of the index.
    pub commit_every: Duration,
    /// Blobs stored after which the same is done, whatever the time.
    pub blobs_per_commit: u64,
}

impl Default for CopyOptions {
    fn default() -> Self {
        let backup = BackupOptions::default();
        Self {
            choice: Choice::default(),
            selection: Selection::default(),
            dry_run: false,
            level: backup.level,
            threads: backup.threads,
            memory: backup.memory,
            spill: None,
            commit_every: backup.partial_every,
            blobs_per_commit: backup.blobs_per_commit,
        }
    }
}

impl CopyOptions {
    pub(super) fn check(&self) -> Result<(), CopyError> {
        let limit = |what, found, min| Err(BackupError::Limit { what, found, min }.into());
        if self.memory < BackupOptions::MEMORY_MIN {
            return limit("the memory for a copy", self.memory, BackupOptions::MEMORY_MIN);
        }
        if self.threads == 0 {
            return limit("the number of threads", 0, 1);
        }
        Ok(())
    }
}

/// What became of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was copied.
    Copied,
    /// It was there already: nothing was read or written for it.
    Present,
    /// It would be copied.
    Planned,
    /// Something of it is lost or damaged: nothing was committed.
    Damaged {
        /// What, the first thing that was met.
        reason: String,
    },
    /// It was forgotten, and what it needs removed, before it was copied.
    Forgotten,
}

/// A snapshot that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedSnapshot {
    /// Its id in the source.
    pub source: SnapshotId,
    /// Its id in the target, where it is there.
    pub target: Option<SnapshotId>,
    /// Its time.
    pub time: Timestamp,
    /// Its host.
    pub hostname: String,
    /// What became of it.
    pub fate: Fate,
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyReport {
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// All snapshots that were asked for, in the order of the source.
    pub snapshots: Vec<CopiedSnapshot>,
    /// Snapshots of the source whose records cannot be read: whether they were asked for is not known, and they were not copied.
    pub unread: u64,
    /// Chunks read from the source.
    pub chunks_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Bytes of data and tree blobs that were new to the target, before compression.
    pub bytes_added: u64,
    /// Bytes the target grew by in packs.
    pub bytes_stored: u64,
}

impl CopyReport {
    /// Snapshots of which something is damaged.
    pub fn damaged(&self) -> usize {
        self.count(|fate| matches!(fate, Fate::Damaged { .. }))
    }

    /// Snapshots with a fate.
    pub fn count(&self, is_meant: impl Fn(&Fate) -> bool) -> usize {
        self.snapshots.iter().filter(|snapshot| is_meant(&snapshot.fate)).count()
    }

    /// Whether everything that was asked for is in the target.
    pub fn is_complete(&self) -> bool {
        self.unread == 0 && self.snapshots.iter().all(|snapshot| snapshot.target.is_some())
    }

    /// Takes over what became of snapshots. One that an earlier attempt copied was copied.
    pub(super) fn take(&mut self, mut snapshots: Vec<CopiedSnapshot>) {
        for snapshot in &mut snapshots {
            let was_copied =
                |before: &CopiedSnapshot| before.source == snapshot.source && before.fate == Fate::Copied;
            if snapshot.fate == Fate::Present && self.snapshots.iter().any(was_copied) {
                snapshot.fate = Fate::Copied;
            }
        }
        self.snapshots = snapshots;
    }
}

/// A copy ended early: snapshots copied by then are there.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Source and target are one repository.
    #[error("{from} and {to} are the same repository: there is nothing to copy")]
    SameRepository {
        /// Where the source is.
        from: String,
        /// Where the target is.
        to: String,
    },
    /// The source cannot be read, for a reason other than damage.
    #[error("cannot read the source repository: {0}")]
    Read(ReadError),
    /// The source failed.
    #[error("the source repository: {0}")]
    Source(RepositoryError),
    /// The target failed.
    #[error("the target repository: {0}")]
    Target(#[from] BackupError),
    /// There is no room for the temporary file.
    #[error("cannot write to the temporary file of new names: {0}")]
    Renames(#[from] std::io::Error),
    /// A thread ended unexpectedly: a bug.
    #[error("a worker thread panicked: this is a bug, nothing more was committed")]
    Worker,
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl From<RepositoryError> for CopyError {
    fn from(error: RepositoryError) -> Self {
        Self::Source(error)
    }
}
