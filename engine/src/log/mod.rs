//! The commit log: reading it, folding it, publishing to it.

mod ahead;
mod capability;
mod fold;
mod head;
mod headers;
mod publish;
mod read;
mod salvage;
#[cfg(test)]
mod tests;
mod void;

pub use ahead::{Ahead, Junk, ahead};
pub use capability::may_append;
pub use fold::{Fold, FoldError, SnapshotRecords, snapshot_record};
pub use head::{Head, HeadError, ParseHeadError, verify_head};
pub use publish::{PublishError, publish};
pub use read::{
    LogEntry, LogError, check_end, commit_time, no_gap, read_all, read_from, read_shared, read_since,
    read_to, read_until,
};
pub use salvage::salvage;
pub use void::{Loss, LostCommit, Origin, VoidEntry};
