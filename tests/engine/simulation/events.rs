//! What came about in all seeds together: where nothing ever goes wrong, and nobody is in another's way, nothing is shown.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use strongroom::format::commit::Change;

/// What has to come about at least once in an ordinary run.
const EXPECTED: [&str; 18] = [
    "Failed",
    "AnswerLost",
    "Late",
    "CrashedBefore",
    "CrashedAfter",
    "late and in effect",
    "keyslot added",
    "keyslot removed",
    "snapshot added",
    "snapshot forgotten",
    "snapshot held",
    "snapshot released",
    "segments merged",
    "segments dropped",
    "packs condemned",
    "packs rescued",
    "packs removed",
    "ledger replaced",
];

static SEEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Something came about.
pub fn saw(what: &str) {
    // Single steps: a panic elsewhere leaves them whole.
    *SEEN.lock().unwrap_or_else(PoisonError::into_inner).entry(what.to_owned()).or_default() += 1;
}

/// Somebody committed a change.
pub fn saw_change(change: &Change) {
    saw(match change {
        Change::KeyslotAdded { .. } => "keyslot added",
        Change::KeyslotRemoved { .. } => "keyslot removed",
        Change::SnapshotAdded { .. } => "snapshot added",
        Change::SnapshotForgotten { .. } => "snapshot forgotten",
        Change::SnapshotHeld { .. } => "snapshot held",
        Change::SnapshotReleased { .. } => "snapshot released",
        Change::SegmentsReplaced { added, removed } if !added.is_empty() && !removed.is_empty() => {
            "segments merged"
        }
        Change::SegmentsDropped { .. } => "segments dropped",
        Change::PacksCondemned { .. } => "packs condemned",
        Change::PacksRescued { .. } => "packs rescued",
        Change::PacksRemoved { .. } => "packs removed",
        Change::LedgerReplaced { .. } => "ledger replaced",
        _ => return,
    });
}

/// How often what came about.
pub fn all() -> BTreeMap<String, u64> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What of all that has to come about did not.
pub fn missing() -> Vec<&'static str> {
    let seen = all();
    EXPECTED.into_iter().filter(|what| !seen.contains_key(*what)).collect()
}
