//! Repair: what can be done once something is lost, with loss as the last resort and never without a word.
//!
//! - [`packs`]: damaged packs are read for what they still give; what they do not give is looked for elsewhere, and the
//!   index goes on without them
//! - [`snapshots`]: snapshots of which something is lost for good are written anew without it, and say so
//!
//! - [`objects`]: log entries, states, segments and ledgers get their bytes back by their parity
//! - [`lost`]: snapshots that no log entry names any more are found by their records
//! - [`log`]: an altered log entry's loss is put on record
//!
//! The index alone is rebuilt by [`crate::rebuild`]. In here:
//!
//! - `damage`: which packs and which blobs in them cannot be had
//! - `search`: what live snapshots need and has no home
//! - `salvage`: what damaged packs still give
//! - `heal`: the same blobs from elsewhere: packs that no segment lists, another repository
//! - `release`: the change that takes packs out of the index for good
//! - `rewrite`: a tree without what is lost
//!
//! Repairs are commits like all others: what was committed meanwhile is looked at before anything is published, and where
//! somebody pruned, the repair begins anew. No object is overwritten but by the bytes that its name or the log calls for, and no pack
//! is deleted: that is for a later prune.

mod damage;
mod heal;
pub mod log;
#[cfg(test)]
mod log_end_tests;
pub mod lost;
pub mod objects;
#[cfg(test)]
mod objects_tests;
mod options;
pub mod packs;
mod release;
mod rewrite;
mod salvage;
mod search;
pub mod snapshots;
#[cfg(test)]
mod snapshots_tests;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

pub use options::{
    DamagedObject, DamagedPack, Fate, Healed, LostBlob, LostEntry, LostKind, ObjectsReport, PacksOptions,
    PacksReport, RepairError, RepairedSnapshot, SnapshotsOptions, SnapshotsReport, Sources,
};

use crate::store::ReadError;

/// How often a repair begins anew because somebody pruned meanwhile.
const ATTEMPTS: u32 = 5;

/// Whether a blob is lost, as far as the storage can tell: anything else may go well the next time.
pub(crate) fn is_lost(error: &ReadError) -> bool {
    match error {
        ReadError::Missing { .. } | ReadError::Pack { .. } => true,
        ReadError::Backend { source, .. } => source.is_loss(),
        ReadError::Index(_) => false,
    }
}
