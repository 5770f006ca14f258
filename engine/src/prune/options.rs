//! What a prune is asked to do and what it tells afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::ObjectKey;
use crate::footprint;
use crate::ids::{BlobId, PackId, SegmentId};
use crate::prune::plan::Plan;
use crate::reach::ReachError;
use crate::repo::{Repository, RepositoryError};
use crate::reserve::Spent;
use crate::store::{ReadError, StoreError};
use crate::vet::VetError;

/// How much unneeded data may stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// A share of the bytes of all packs that stay, in percent.
    Percent(f64),
    /// So many bytes.
    Bytes(u64),
    /// Any amount: only packs without any needed blob go.
    Unlimited,
}

/// How a prune goes about it.
#[derive(Debug, Clone, PartialEq)]
pub struct PruneOptions {
    /// How much unneeded data may stay in packs that are needed in part.
    pub max_unused: Limit,
    /// Bytes of packs that are written anew at most.
    pub max_repack_size: Option<u64>,
    /// Time between condemning and removing packs: politeness to slow readers.
    pub grace: Duration,
    /// Whether condemned packs stay as long as a backup that says that it is at work may need them. Where not, nothing that is stored
    /// is lost, but such a backup may begin anew, or fail if its source cannot be read again.
    pub waits: bool,
    /// Where the storage is full and there is no other room, deletes the parity of packs to make some.
    pub delete_first: bool,
    /// Plan, but change nothing.
    pub dry_run: bool,
    /// zstd level of blocks that are written anew.
    pub level: i32,
    /// Threads that decode and encode.
    pub threads: usize,
    /// Memory to live in, in bytes.
    pub memory: u64,
    /// A directory for a temporary file, which gets no name there: 16 bytes for each time that a tree lists a blob, of more
    /// blobs than fit into memory. Without one they are in memory all the same.
    pub spill: Option<PathBuf>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            max_unused: Limit::Percent(5.0),
            max_repack_size: None,
            grace: Duration::from_secs(24 * 3600),
            waits: true,
            delete_first: false,
            dry_run: false,
            level: 3,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: crate::budget::USUAL,
            spill: None,
        }
    }
}

/// What a prune did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// Nothing was changed: the counts are those of the plan.
    pub dry_run: bool,
    /// Segments that appenders had added, found to tell the truth and made part of the index.
    pub segments_vetted: u64,
    /// Segments of appenders that do not tell the truth: they stay apart, and the packs that only they list are left alone.
    pub segments_untrue: u64,
    /// Snapshots whose needs were marked.
    pub snapshots: u64,
    /// Packs in the index before, and their bytes.
    pub packs: u64,
    /// See `packs`.
    pub packs_bytes: u64,
    /// Packs without any needed blob.
    pub packs_dead: u64,
    /// Their bytes.
    pub packs_dead_bytes: u64,
    /// Packs whose needed blobs are written anew.
    pub packs_repacked: u64,
    /// Their bytes.
    pub packs_repacked_bytes: u64,
    /// Bytes of the packs that were written; in a dry run about as many as they would have.
    pub bytes_rewritten: u64,
    /// Stored packs that no commit names.
    pub packs_stray: u64,
    /// Their bytes.
    pub packs_stray_bytes: u64,
    /// Stored segments that no commit names: deleted.
    pub segments_stray: u64,
    /// Packs condemned by this run.
    pub packs_condemned: u64,
    /// Their bytes.
    pub packs_condemned_bytes: u64,
    /// Packs deleted by this run. In a dry run, those that it would delete, with packs that it would condemn where there is no grace.
    pub packs_removed: u64,
    /// Their bytes.
    pub packs_removed_bytes: u64,
    /// Parity sidecars deleted because their objects are gone, or no parity is wanted any more.
    pub sidecars_removed: u64,
    /// Parity sidecars of packs deleted because there was no other room.
    pub sidecars_given_up: u64,
    /// Bytes of all packs, index segments and sidecars of these that were deleted; exact in a dry run, too.
    pub bytes_deleted: u64,
    /// Bytes of all packs, index segments and sidecars of these that were written. The log is not counted.
    pub bytes_written: u64,
    /// `bytes_written` is about right only: the dry run would write packs anew, or there is something to vet first.
    pub is_estimate: bool,
    /// In a dry run, segments of appenders that were to be vetted first. What comes of that is in no figure.
    pub segments_unvetted: u64,
    /// Packs that wait, condemned, to be removed by a later run.
    pub packs_waiting: u64,
    /// Bytes of these and of their sidecars.
    pub packs_waiting_bytes: u64,
    /// About how many bytes of the packs that stay are not needed.
    pub unused_bytes: u64,
    /// What became of the reserve.
    pub reserve: Spent,
}

/// A prune changed nothing, or not all that it was to change.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Something that a snapshot needs is missing already.
    #[error(
        "snapshots need {count} blobs that no stored pack holds, such as {first}{packs}: nothing was pruned, for what is left of a \
         damaged repository may be wanted for its repair"
    )]
    Missing {
        /// One of them.
        first: BlobId,
        /// How many.
        count: u64,
        /// Which packs are not there, to go on with the sentence; empty where all are.
        packs: String,
    },
    /// A snapshot's trees cannot be read.
    #[error("nothing was pruned, since what snapshots need cannot be told: {0}")]
    Reach(#[from] ReachError),
    /// A pack that was to be written anew cannot be read.
    #[error(
        "nothing was condemned, for what is left of a damaged repository may be wanted for its repair: {0}"
    )]
    Read(#[from] ReadError),
    /// What an appender has stored cannot be told from what nobody needs.
    #[error(
        "an index segment that an append-only keyslot added cannot be read, and its packs would pass for strays: nothing was \
         pruned: {problem}"
    )]
    AppendedSegment {
        /// Which, and why.
        problem: String,
    },
    /// A snapshot needs what only appenders say is there.
    #[error(
        "{snapshot} needs blob {blob}, and only an index segment that an append-only keyslot added, and that is not as it \
         says, has a place of it: nothing was pruned"
    )]
    OnlyAppended {
        /// The snapshot, in words.
        snapshot: String,
        /// The blob.
        blob: BlobId,
    },
    /// A state does not follow from the log.
    #[error(
        "a state in the repository is not what the signed log amounts to: nothing was pruned. Unless this was a dry run, all states were \
         deleted, so that nobody goes by them any more: run the command again"
    )]
    ForgedState,
    /// Other prunes were always faster.
    #[error("other prunes changed the repository all the time; nothing was condemned. Run the command again")]
    Overtaken,
    /// The operation was cancelled.
    #[error("cancelled; nothing was condemned")]
    Cancelled,
    /// What appenders added could not be vetted.
    #[error(transparent)]
    Vet(#[from] VetError),
    /// The repository cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl From<crate::backend::BackendError> for PruneError {
    fn from(error: crate::backend::BackendError) -> Self {
        Self::Repository(error.into())
    }
}

impl From<crate::index::IndexError> for PruneError {
    fn from(error: crate::index::IndexError) -> Self {
        Self::Repository(error.into())
    }
}

impl PruneReport {
    /// By how many bytes packs, index segments and their sidecars became fewer; below 0 where they became more, since what is written
    /// anew comes before what is condemned for it goes.
    pub fn bytes_freed(&self) -> i64 {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        signed(self.bytes_deleted) - signed(self.bytes_written)
    }

    pub(super) fn take_plan(&mut self, plan: &Plan) {
        let sum = |packs: &[(PackId, u64)]| packs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        self.snapshots = plan.snapshots;
        (self.packs, self.packs_bytes) = (plan.packs, plan.packs_bytes);
        (self.packs_dead, self.packs_dead_bytes) = (plan.dead.len() as u64, sum(&plan.dead));
        (self.packs_repacked, self.packs_repacked_bytes) = (plan.repack.len() as u64, sum(&plan.repack));
        (self.packs_stray, self.packs_stray_bytes) = (plan.stray.len() as u64, sum(&plan.stray));
        self.segments_stray = plan.stray_segments.len() as u64;
        self.unused_bytes = plan.unused_bytes;
    }

    /// Takes note of segments that came and went, given the bytes of those before and after.
    pub(super) fn take_segments(
        &mut self,
        before: &BTreeMap<SegmentId, u64>,
        after: &BTreeMap<SegmentId, u64>,
    ) {
        let only = |one: &BTreeMap<SegmentId, u64>, other: &BTreeMap<SegmentId, u64>| -> u64 {
            one.iter().filter(|(id, _)| !other.contains_key(id)).map(|(_, bytes)| bytes).sum()
        };
        self.bytes_deleted += only(before, after);
        self.bytes_written += only(after, before);
    }

    /// Takes note of packs that are condemned in the end and still there.
    pub(super) fn take_waiting(&mut self, repository: &Repository, packs: impl Iterator<Item = PackId>) {
        (self.packs_waiting, self.packs_waiting_bytes) = (0, 0);
        for pack in packs {
            self.packs_waiting += 1;
            self.packs_waiting_bytes += footprint::of(repository, &ObjectKey::pack(&pack));
        }
    }

    pub(super) fn take_condemned(&mut self, condemned: &super::condemn::Condemned) {
        self.packs_condemned = condemned.packs.len() as u64;
        self.packs_condemned_bytes = condemned.packs.values().map(|pack| pack.bytes).sum();
    }
}
