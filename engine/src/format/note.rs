//! Notes: what the log keeps for people, and hints to programs. Whether data is safe does not rest on them.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::{CommitHash, SnapshotId};

/// Kind of the note that comes with a repaired snapshot; its record is a [`RepairNote`].
pub const REPAIR_NOTE: &str = "repair";

/// Kind of the note that comes with a rebuilt index; its record is empty.
pub const REBUILD_NOTE: &str = "rebuild";

/// What a repaired snapshot lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairNote {
    /// The repaired snapshot.
    pub snapshot: SnapshotId,
    /// The one that something was lost of.
    pub original: SnapshotId,
    /// Paths of files and directories that were left out.
    pub lost: Vec<ByteBuf>,
    /// How many more there are.
    pub more: u64,
}

/// Kind of the note that says that a log entry was altered and its loss is known; its record is a [`LogLossNote`].
pub const LOG_LOSS_NOTE: &str = "log-loss";

/// An entry whose loss is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLossNote {
    /// Its number.
    pub seq: u64,
    /// Hash of what stands there now.
    pub hash: CommitHash,
}
