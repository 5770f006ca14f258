//! States: the log folded up to some commit, so that opening a repository does not read the whole log.
//! A state is derived: it may be deleted at any time and is checked against the log.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::format::commit::SegmentInfo;
use crate::format::parity::Overhead;
use crate::ids::{CommitHash, KeyslotId, LedgerId, PackId, SegmentId, SnapshotId, WriterId};

/// What all commits up to `seq` amount to. Lists are ascending by id, so equal states have equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The last commit folded in; 0 before the first.
    pub seq: u64,
    /// Hash of that commit's object; of `config` before the first.
    pub head: CommitHash,
    /// Hash of `config`.
    pub config: CommitHash,
    /// Keyslots that count.
    pub keyslots: Vec<KeyslotEntry>,
    /// Snapshots, not forgotten.
    pub snapshots: Vec<SnapshotEntry>,
    /// Segments that make up the index.
    pub segments: Vec<SegmentInfo>,
    /// Those of them that appenders added and nobody has vetted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub appended: Vec<AppendedSegment>,
    /// Condemned packs, neither rescued nor removed.
    pub condemned: Vec<CondemnedPack>,
    /// The verification ledger, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerId>,
    /// How much parity is wanted, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parity: Option<Overhead>,
    /// How many bytes are to be kept free, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<u64>,
    /// Void entries that were commits once, and of whose loss no note says that it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostEntry>,
}

/// A keyslot that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyslotEntry {
    /// The keyslot object.
    pub keyslot: KeyslotId,
    /// Its writer.
    pub writer: WriterId,
    /// What it is called.
    pub label: String,
    /// The commit that added it.
    pub added: u64,
    /// Whether its writer is an appender.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub append_only: bool,
}

/// A segment that an appender added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendedSegment {
    /// The segment object.
    pub segment: SegmentId,
    /// The appender.
    pub writer: WriterId,
}

/// A live snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotEntry {
    /// Its id.
    pub snapshot: SnapshotId,
    /// The commit that added it.
    pub added: u64,
    /// Its record.
    pub record: ByteBuf,
    /// Why it must not be forgotten, if it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// The appender that added it, if one did: what it says of its host is that writer's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appender: Option<WriterId>,
}

/// A pack that may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CondemnedPack {
    /// The pack.
    pub pack: PackId,
    /// The commit that condemned it.
    pub condemned: u64,
}

/// A log entry that was a commit once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostEntry {
    /// Its number.
    pub seq: u64,
    /// Hash of what stands there.
    pub hash: CommitHash,
}
