//! What tests of several modules have in common: a time, names, ids and snapshots.

use jiff::Zoned;
use strongroom::format::provenance::{Consistency, Provenance};
use strongroom::format::snapshot::{Snapshot, SnapshotSummary};
use strongroom::format::tree::Timestamp;
use strongroom::ids::{BlobId, PlanHash, SnapshotId};

use crate::plan::values::Name;

/// The time at which tests play.
pub const NOW: &str = "2026-11-28T12:00:00[UTC]";

/// [`NOW`].
pub fn now() -> Zoned {
    NOW.parse().expect("a time")
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// An id of a snapshot: equal numbers, equal ids.
pub fn id(number: u8) -> SnapshotId {
    SnapshotId::new(BlobId::from_bytes([number; 32]))
}

/// A complete snapshot of a domain of the host `box` that says that it was made so many hours before [`NOW`].
pub fn record(domain: &str, hours_ago: i64) -> Snapshot {
    let provenance = Provenance {
        domain: domain.into(),
        consistency: Consistency::Fuzzy,
        plan: PlanHash::from_bytes([0; 32]),
        plan_files: Vec::new(),
        facts: Vec::new(),
    };
    Snapshot {
        time: Timestamp { seconds: now().timestamp().as_second() - hours_ago * 3600, nanos: 0 },
        hostname: "box".into(),
        username: "root".into(),
        paths: Vec::new(),
        tree: BlobId::from_bytes([1; 32]),
        tags: Vec::new(),
        parent: None,
        partial: false,
        repaired: None,
        origin: None,
        provenance: Some(provenance),
        excludes: Vec::new(),
        program: "test".into(),
        summary: SnapshotSummary::default(),
    }
}

/// The same with an id, where only one is needed.
pub fn snapshot(domain: &str, hours_ago: i64) -> (SnapshotId, Snapshot) {
    (id(2), record(domain, hours_ago))
}
