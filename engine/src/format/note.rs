//! Notes: what the log keeps for people, and hints to programs. Whether data is safe does not rest on them.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::format::tree::Timestamp;
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

/// Kind of the note by which a backup says that it is at work, or not any more; its record is an [`AtWorkNote`].
pub const AT_WORK_NOTE: &str = "at-work";

/// A backup at work that may be unable to read its source again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtWorkNote {
    /// Number of the commit with its first such note; 0 in that one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub began: u64,
    /// Whether it has come to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Kind of the note of a rehearsed restore; its record is a [`DrillNote`].
pub const DRILL_NOTE: &str = "drill";

/// How a rehearsed restore went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillNote {
    /// Its name in the plan.
    pub drill: String,
    /// How much was restored: `metadata`, `sample` or `full`.
    pub tier: String,
    /// `pass`, `fail` or `unverified`.
    pub outcome: String,
    /// Why, if it did not pass.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether something was damaged on purpose, to see that it is noticed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub self_test: bool,
    /// When it began.
    pub began: Timestamp,
    /// What was restored.
    pub snapshots: Vec<SnapshotId>,
    /// How long each phase took, in their order.
    pub phases: Vec<DrillPhase>,
}

/// A part of a rehearsed restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillPhase {
    /// Its name.
    pub phase: String,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
}

/// Kind of the note of a recovery; its record is a [`RecoveryNote`].
pub const RECOVERY_NOTE: &str = "recovery";

/// How the recovery of something went, or what became of it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryNote {
    /// What the recovery is known by; one of several domains has a note for each.
    pub recovery: String,
    /// The domain in the plan.
    pub domain: String,
    /// `recovered`, `partial`, `failed`, `unfinished`, `rolled-back` or `committed`.
    pub outcome: String,
    /// Why, if it did not end well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it began.
    pub began: Timestamp,
    /// What was restored.
    pub snapshot: SnapshotId,
    /// How long each step took, in their order.
    pub phases: Vec<DrillPhase>,
}

/// Kind of the note of targets that a host may miss; its record is an [`ExceptionsNote`].
pub const EXCEPTIONS_NOTE: &str = "exceptions";

/// All exceptions from the targets of a host that are in force from now on, in the place of those that were noted before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExceptionsNote {
    /// The host, as its snapshots name it.
    pub host: String,
    /// None where there were some, and are no more.
    pub exceptions: Vec<NotedException>,
}

/// A target that may be missed for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotedException {
    /// How it is referred to.
    pub id: String,
    /// Which target.
    pub control: String,
    /// The domain in the plan.
    pub domain: String,
    /// Why.
    pub reason: String,
    /// Who agreed.
    pub approved_by: String,
    /// The last day on which it holds, as `2027-01-31`.
    pub expires: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record;
    use crate::ids::BlobId;

    #[test]
    fn a_recovery_note_is_what_the_specification_says() {
        let note = RecoveryNote {
            recovery: "1f".into(),
            domain: "shop".into(),
            outcome: "failed".into(),
            reason: "no".into(),
            began: Timestamp { seconds: 1, nanos: 2 },
            snapshot: SnapshotId::new(BlobId::from_bytes([7; 32])),
            phases: vec![DrillPhase { phase: "stage".into(), duration_ns: 5 }],
        };
        let bytes = record::encode(&note);
        assert_eq!(record::decode::<RecoveryNote>(&bytes).expect("just encoded"), note);
        let expected = [
            &b"\x87\xa8recovery\xa21f\xa6domain\xa4shop\xa7outcome\xa6failed\xa6reason\xa2no"[..],
            b"\xa5began\x82\xa7seconds\x01\xa5nanos\x02\xa8snapshot\xc4\x20",
            &[7; 32],
            b"\xa6phases\x91\x82\xa5phase\xa5stage\xabduration_ns\x05",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_note_of_exceptions_is_what_the_specification_says() {
        let one = NotedException {
            id: "EX-7".into(),
            control: "copies".into(),
            domain: "shop".into(),
            reason: "no".into(),
            approved_by: "me".into(),
            expires: "2027-01-31".into(),
        };
        let note = ExceptionsNote { host: "box".into(), exceptions: vec![one] };
        let bytes = record::encode(&note);
        assert_eq!(record::decode::<ExceptionsNote>(&bytes).expect("just encoded"), note);
        let expected = [
            &b"\x82\xa4host\xa3box\xaaexceptions\x91\x86\xa2id\xa4EX-7\xa7control\xa6copies\xa6domain\xa4shop"[..],
            b"\xa6reason\xa2no\xabapproved_by\xa2me\xa7expires\xaa2027-01-31",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_note_of_being_at_work_is_what_the_specification_says() {
        let notes = [(0, false, &b"\x80"[..]), (7, false, b"\x81\xa5began\x07")];
        let last = (7, true, &b"\x82\xa5began\x07\xa5ended\xc3"[..]);
        for (began, ended, expected) in notes.into_iter().chain([last]) {
            let note = AtWorkNote { began, ended };
            assert_eq!(record::encode(&note), expected);
            assert_eq!(record::decode::<AtWorkNote>(expected).expect("just encoded"), note);
        }
    }

    /// The bytes of `format-spec`, The commit log.
    #[test]
    fn a_drill_note_is_what_the_specification_says() {
        let note = DrillNote {
            drill: "shop".into(),
            tier: "full".into(),
            outcome: "pass".into(),
            reason: String::new(),
            self_test: false,
            began: Timestamp { seconds: 1, nanos: 2 },
            snapshots: vec![SnapshotId::new(BlobId::from_bytes([7; 32]))],
            phases: vec![DrillPhase { phase: "fetch".into(), duration_ns: 5 }],
        };
        let bytes = record::encode(&note);
        assert_eq!(record::decode::<DrillNote>(&bytes).expect("just encoded"), note);
        let id = [&b"\xc4\x20"[..], &[7; 32]].concat();
        let expected = [
            &b"\x86\xa5drill\xa4shop\xa4tier\xa4full\xa7outcome\xa4pass\xa5began\x82\xa7seconds\x01\xa5nanos\x02"[..],
            b"\xa9snapshots\x91",
            &id,
            b"\xa6phases\x91\x82\xa5phase\xa5fetch\xabduration_ns\x05",
        ];
        assert_eq!(bytes, expected.concat());
    }
}
