//! What repairs are asked to do and what they tell afterwards.

use std::path::PathBuf;

use crate::backup::{BackupError, BackupOptions};
use crate::check::CheckReport;
use crate::crypto::keys::BlobKind;
use crate::ids::{BlobId, PackId, SnapshotId};
use crate::index::IndexError;
use crate::reach::ReachError;
use crate::repo::{Repository, RepositoryError};
use crate::store::{ReadError, StoreError};
use crate::vet::VetError;

/// How packs are repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacksOptions {
    /// Packs to be read in whole, whatever else is done.
    pub packs: Vec<PackId>,
    /// Read all packs in whole: finds flipped bits, too.
    pub read_data: bool,
    /// Go on although most packs are missing.
    pub allow_mass: bool,
    /// Look at everything, write nothing.
    pub dry_run: bool,
    /// zstd level of what is written.
    pub level: i32,
    /// Threads that read and decode.
    pub threads: usize,
    /// Memory to live in, in bytes.
    pub memory: u64,
    /// A directory for a temporary file, as in [`CheckOptions`](crate::check::CheckOptions): a check follows the repair.
    pub spill: Option<PathBuf>,
}

impl Default for PacksOptions {
    fn default() -> Self {
        let BackupOptions { level, threads, memory, .. } = BackupOptions::default();
        Self {
            packs: Vec::new(),
            read_data: false,
            allow_mass: false,
            dry_run: false,
            level,
            threads,
            memory,
            spill: None,
        }
    }
}

/// Where what is lost may be had from.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// A copy of the repository, or another one with the same secrets.
    pub repository: Option<&'a Repository>,
    /// Files and directories that were backed up.
    pub paths: Vec<PathBuf>,
}

/// What became of a damaged pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing is wrong with it.
    Sound,
    /// It was damaged or missing, and has its bytes again: by its parity.
    Mended,
    /// It was missing, and is there again: copied from the other repository.
    Copied,
    /// The index goes on without it.
    Dropped,
}

/// A pack that was looked at closely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedPack {
    /// The pack.
    pub pack: PackId,
    /// What is wrong with it.
    pub problem: String,
    /// Blobs that it should hold.
    pub blobs: u64,
    /// Blobs that it does not give.
    pub unreadable: u64,
    /// What became of it.
    pub fate: Fate,
}

/// Blobs that were had from elsewhere, by where that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Healed {
    /// Packs of this repository that no segment lists.
    pub from_unlisted_packs: u64,
    /// The commit log, which holds the records of snapshots.
    pub from_log: u64,
    /// The other repository.
    pub from_repository: u64,
    /// Files that were backed up.
    pub from_paths: u64,
}

impl Healed {
    /// All of them.
    pub fn blobs(&self) -> u64 {
        self.from_unlisted_packs + self.from_log + self.from_repository + self.from_paths
    }
}

/// A blob that a live snapshot needs and that nobody gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LostBlob {
    /// The blob.
    pub id: BlobId,
    /// Whether it is content; otherwise it is a tree, a chunk list or the record of a snapshot.
    pub is_data: bool,
}

impl LostBlob {
    pub(super) fn new(id: BlobId, kind: BlobKind) -> Self {
        Self { id, is_data: kind == BlobKind::Data }
    }
}

/// What the repair of packs did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PacksReport {
    /// Nothing was written: what is said was or would be done.
    pub dry_run: bool,
    /// Packs that were found damaged, and those that were named.
    pub packs: Vec<DamagedPack>,
    /// Blobs of damaged packs that were written anew.
    pub salvaged: u64,
    /// Blobs that were had from elsewhere.
    pub healed: Healed,
    /// Bytes of new packs, copied ones among them.
    pub bytes_written: u64,
    /// What is still lost, at most [`PacksReport::LOST_MAX`].
    pub lost: Vec<LostBlob>,
    /// How much is still lost.
    pub lost_count: u64,
    /// A check after the repair, of structure without content; none after a dry run.
    pub after: Option<CheckReport>,
}

impl PacksReport {
    /// Lost blobs listed at most.
    pub const LOST_MAX: usize = 10_000;

    /// Packs that are not sound.
    pub fn damaged(&self) -> usize {
        self.packs.iter().filter(|pack| pack.fate != Fate::Sound).count()
    }

    /// Whether all is well by now, or would be: nothing that snapshots need is lost, and the check found nothing else.
    pub fn is_whole(&self) -> bool {
        match &self.after {
            Some(after) => !after.is_damaged() && self.lost_count == 0,
            None => self.lost_count == 0,
        }
    }
}

/// What became of a damaged object that is no pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedObject {
    /// Its key.
    pub object: String,
    /// Why it could not be given its bytes back; none where it has them again.
    pub problem: Option<String>,
}

/// What the repair of objects did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectsReport {
    /// Nothing was written: what is said was done would be.
    pub dry_run: bool,
    /// Objects that were looked at.
    pub checked: u64,
    /// Those that are damaged or missing.
    pub objects: Vec<DamagedObject>,
}

impl ObjectsReport {
    /// Objects that are still damaged.
    pub fn left(&self) -> usize {
        self.objects.iter().filter(|object| object.problem.is_some()).count()
    }
}

/// How snapshots are repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotsOptions {
    /// Which; all live ones if empty.
    pub snapshots: Vec<SnapshotId>,
    /// Forget the originals in the same commit.
    pub forget: bool,
    /// Say what is lost, write nothing.
    pub dry_run: bool,
    /// Threads.
    pub threads: usize,
    /// Memory to live in, in bytes.
    pub memory: u64,
}

impl Default for SnapshotsOptions {
    fn default() -> Self {
        let BackupOptions { threads, memory, .. } = BackupOptions::default();
        Self { snapshots: Vec::new(), forget: false, dry_run: false, threads, memory }
    }
}

/// What is left out of a repaired snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostKind {
    /// A file: some of its content is lost.
    File,
    /// A directory with all that was in it.
    Directory,
    /// So many entries of a very large directory, beginning with the one named.
    Entries(u64),
}

/// Something that a repaired snapshot lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostEntry {
    /// Its path in the snapshot.
    pub path: Vec<u8>,
    /// What it was.
    pub kind: LostKind,
}

/// What became of a damaged snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairedSnapshot {
    /// The snapshot that something is lost of.
    pub original: SnapshotId,
    /// The one without it; none where nothing is left at all, and in a dry run.
    pub repaired: Option<SnapshotId>,
    /// What it lacks, at most [`RepairedSnapshot::LOST_MAX`].
    pub lost: Vec<LostEntry>,
    /// How much it lacks.
    pub lost_count: u64,
    /// Nothing of it is left.
    pub is_lost: bool,
    /// The original was forgotten.
    pub forgotten: bool,
    /// The original is held, for this reason: it was not forgotten.
    pub hold: Option<String>,
}

impl RepairedSnapshot {
    /// Lost entries listed at most.
    pub const LOST_MAX: usize = 10_000;
}

/// What the repair of snapshots did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotsReport {
    /// Nothing was written.
    pub dry_run: bool,
    /// Snapshots that were looked at.
    pub checked: u64,
    /// Those that something is lost of.
    pub snapshots: Vec<RepairedSnapshot>,
    /// The commit; none where nothing was to be committed.
    pub commit: Option<u64>,
}

impl SnapshotsReport {
    /// Snapshots that lead to something lost and are still there.
    pub fn left(&self) -> usize {
        self.snapshots.iter().filter(|snapshot| !snapshot.forgotten).count()
    }
}

/// A repair came to no end. What it says was changed or not.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// What appenders added could not be vetted.
    #[error(transparent)]
    Vet(#[from] VetError),
    /// There is no such log entry.
    #[error("the log has no entry {seq}: it ends with {last}")]
    NoEntry {
        /// What was asked for.
        seq: u64,
        /// The last one.
        last: u64,
    },
    /// Nothing is wrong with the log entry.
    #[error("log entry {0} is sound: nothing it said is lost")]
    SoundEntry(u64),
    /// The index itself is not in order.
    #[error("the index is damaged ({object}: {problem}); packs cannot be judged by it, nothing was changed")]
    IndexDamaged {
        /// The object concerned.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// A named pack is not part of the index.
    #[error("pack {0} is not part of the index; nothing was changed")]
    UnknownPack(PackId),
    /// So much is missing that something else must be wrong.
    #[error("{missing} of {total} packs are missing: is all of the repository there? Nothing was changed")]
    Mass {
        /// Packs missing.
        missing: usize,
        /// Packs in the index.
        total: usize,
    },
    /// The other repository has other secrets: none of its blobs can be one of this one's.
    #[error(
        "{location} was made with other secrets than this repository: no blob of it can be one of this repository's. Nothing was changed"
    )]
    Foreign {
        /// Where it is.
        location: String,
    },
    /// The other repository is this one.
    #[error("{location} is the repository that is to be repaired; nothing was changed")]
    Itself {
        /// Where it is.
        location: String,
    },
    /// A source is not there.
    #[error("cannot read {}: {source}; nothing was changed", path.display())]
    Path {
        /// The source.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The storage fails in a way that may pass.
    #[error("cannot go on: {0}. What was committed before is kept; run the command again")]
    Read(ReadError),
    /// A snapshot cannot be followed.
    #[error("cannot go on: {0}. What was committed before is kept; run the command again")]
    Reach(#[from] ReachError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Nothing can be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source cannot be read, or its blobs not be stored.
    #[error(transparent)]
    Source(#[from] BackupError),
    /// Somebody pruned each time.
    #[error("the repository was pruned again and again meanwhile; run the command once no prune is at work")]
    Overtaken,
    /// The monitor asked to stop.
    #[error("cancelled; what was committed before is kept")]
    Cancelled,
}

impl From<IndexError> for RepairError {
    fn from(error: IndexError) -> Self {
        Self::Repository(error.into())
    }
}

impl From<crate::backend::BackendError> for RepairError {
    fn from(error: crate::backend::BackendError) -> Self {
        Self::Repository(error.into())
    }
}
