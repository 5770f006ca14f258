//! What a run needs of repositories: the caller opens them, knows their passwords and shows progress.

use strongroom::backup::{Accept, BackupReport, SourceRoot, StreamSource};
use strongroom::copy::CopyReport;
use strongroom::forget::ForgetOptions;
use strongroom::format::note::DrillNote;
use strongroom::format::provenance::Provenance;
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;
use strongroom::source::FilterOptions;

use crate::plan::values::Name;

/// A repository cannot do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VaultError {
    /// A stable name for programs.
    pub code: String,
    /// What happened.
    pub message: String,
}

impl VaultError {
    /// Codes that say that what is stored is damaged or lost, wherever a repository is asked for something.
    pub const DAMAGE: [&str; 21] = [
        "blob-damaged",
        "blob-missing",
        "config-damaged",
        "config-foreign",
        "config-missing",
        "index-damaged",
        "ledger-damaged",
        "log-damaged",
        "log-other-history",
        "log-rolled-back",
        "mass-missing",
        "no-keyslot",
        "no-log",
        "no-path",
        "object-missing",
        "object-too-large",
        "object-truncated",
        "pack-damaged",
        "snapshot-damaged",
        "state-damaged",
        "tree-damaged",
    ];

    /// Whether what is stored is damaged or lost.
    pub fn is_damage(&self) -> bool {
        Self::DAMAGE.contains(&self.code.as_str())
    }

    /// Whether what was to be backed up is at fault: another repository would not get it either.
    pub fn is_of_source(&self) -> bool {
        matches!(self.code.as_str(), "stream" | "refused" | "source" | "usage" | "limit" | "cancelled")
    }
}

/// Nothing was copied, or not everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct CopyFailure {
    /// Whether the repository that was to get something is at fault: it would not get it any other way.
    pub is_of_target: bool,
    /// What happened.
    pub error: VaultError,
}

/// What was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// So many snapshots.
    pub snapshots: usize,
    /// Why all snapshots of a group stay, of each such group: what an append-only host added under the domain's name is one by itself.
    pub refused: Vec<VaultError>,
}

/// What is to become a snapshot.
pub struct Job {
    /// The host that it says it is from; the system's own name if absent.
    pub host: Option<String>,
    /// Labels.
    pub tags: Vec<String>,
    /// Files and directories.
    pub roots: Vec<SourceRoot>,
    /// What to leave out of them.
    pub filter: FilterOptions,
    /// Files below them that are read from elsewhere.
    pub instead: Vec<SourceRoot>,
    /// Whether files that do nothing but grow while they are read are stored as they were.
    pub growing: bool,
    /// Outputs of commands.
    pub streams: Vec<StreamSource>,
    /// The last word.
    pub accept: Accept,
    /// What the plan says of it.
    pub provenance: Provenance,
}

/// The repositories of a plan.
pub trait Vault {
    /// All snapshots of a repository, in their order.
    ///
    /// # Errors
    /// [`VaultError`].
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError>;

    /// What the log of a repository says of drills, in its order.
    ///
    /// # Errors
    /// [`VaultError`].
    fn drills(&self, repo: &Name) -> Result<Vec<DrillNote>, VaultError>;

    /// Snapshots of a repository that nobody may forget, and why.
    ///
    /// # Errors
    /// [`VaultError`].
    fn held(&self, repo: &Name) -> Result<Vec<(SnapshotId, String)>, VaultError>;

    /// Lets nobody forget these snapshots any more; those that are held already are left as they are.
    ///
    /// # Errors
    /// [`VaultError`]: none is held that was not.
    fn hold(&self, repo: &Name, snapshots: &[SnapshotId], reason: &str) -> Result<(), VaultError>;

    /// Ends that, where they are held for the reason beside them.
    ///
    /// # Errors
    /// [`VaultError`]: all are held still.
    fn release(&self, repo: &Name, held: &[(SnapshotId, String)], reason: &str) -> Result<(), VaultError>;

    /// Makes a snapshot.
    ///
    /// # Errors
    /// [`VaultError`]: there is none.
    fn back_up(&self, repo: &Name, job: Job) -> Result<BackupReport, VaultError>;

    /// The snapshots that forgetting by these options would keep. Nothing is changed.
    ///
    /// # Errors
    /// [`VaultError`].
    fn kept(&self, repo: &Name, options: &ForgetOptions) -> Result<Vec<SnapshotId>, VaultError>;

    /// Copies snapshots of `from` to `to`, as far as they are not there.
    ///
    /// # Errors
    /// [`CopyFailure`]: some may be there by then.
    fn copy(&self, from: &Name, to: &Name, snapshots: &[SnapshotId]) -> Result<CopyReport, CopyFailure>;

    /// Forgets snapshots.
    ///
    /// # Errors
    /// [`VaultError`]: none was forgotten.
    fn forget(&self, repo: &Name, options: &ForgetOptions) -> Result<Forgotten, VaultError>;
}
