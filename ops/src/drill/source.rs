//! What drills need of repositories: the caller opens them, and restores from them.

use std::path::Path;

use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::record::DrillRecord;
use crate::plan::values::Name;
use crate::run::vault::VaultError;

/// How much of a snapshot is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// These files, by their paths in it. Each is restored into a directory named after its number.
    Files(Vec<Vec<u8>>),
}

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What went wrong first, if something did.
    pub problem: Option<Problem>,
}

/// Something that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the repository is at fault, not the scratch directory.
    pub is_damage: bool,
    /// What happened.
    pub message: String,
}

/// How a directory compares with a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Files that are as they should be.
    pub same: u64,
    /// Files that are not.
    pub different: u64,
}

/// The repositories that drills restore from.
pub trait Source {
    /// All snapshots of a repository, in their order.
    ///
    /// # Errors
    /// [`VaultError`].
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError>;

    /// Reads all trees of a snapshot, and counts the files in them.
    ///
    /// # Errors
    /// [`VaultError`] where one cannot be read.
    fn walk(&self, repo: &Name, snapshot: &SnapshotId) -> Result<Restored, VaultError>;

    /// Paths of files in a snapshot, chosen at random, at most `count`.
    ///
    /// # Errors
    /// [`VaultError`] where a tree cannot be read.
    fn sample(&self, repo: &Name, snapshot: &SnapshotId, count: usize) -> Result<Vec<Vec<u8>>, VaultError>;

    /// Restores into a directory.
    ///
    /// # Errors
    /// [`VaultError`] where it cannot begin.
    fn restore(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        part: &Part,
        target: &Path,
    ) -> Result<Restored, VaultError>;

    /// Compares content in a directory with the snapshot, byte by byte.
    ///
    /// # Errors
    /// [`VaultError`] where it cannot begin.
    fn compare(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        part: &Part,
        target: &Path,
    ) -> Result<Compared, VaultError>;

    /// Puts the record of a drill into the repository's log.
    ///
    /// # Errors
    /// [`VaultError`].
    fn note(&self, repo: &Name, record: &DrillRecord) -> Result<(), VaultError>;
}
