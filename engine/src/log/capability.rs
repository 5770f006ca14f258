//! What an appender's commit may say: additions, of segments and snapshots, and nothing else. See `format-spec`, Append-only
//! keyslots.
//!
//! The set is closed: whatever is not in it makes the entry void, in this version and in every later one, so that all
//! readers fold the same history. A writer that is to be allowed more needs another kind of grant, which older versions stop
//! at.

use crate::format::commit::Change;
use crate::format::record;
use crate::format::snapshot::Snapshot;

/// Whether an appender may make all of these changes.
///
/// # Errors
/// What the first one that it may not make does, to go on with "the commit …".
pub(super) fn check(changes: &[Change]) -> Result<(), &'static str> {
    changes.iter().try_for_each(check_one)
}

/// Whether an appender may make this change.
pub fn may_append(change: &Change) -> bool {
    check_one(change).is_ok()
}

fn check_one(change: &Change) -> Result<(), &'static str> {
    match change {
        Change::SnapshotAdded { record, .. } => match record::decode::<Snapshot>(record) {
            Ok(snapshot) if snapshot.repaired.is_some() => Err("adds a repaired snapshot"),
            Ok(snapshot) if snapshot.origin.is_some() => Err("adds a copy of another repository's snapshot"),
            Ok(_) => Ok(()),
            Err(_) => Err("adds a snapshot whose record cannot be read"),
        },
        Change::SegmentsReplaced { removed, .. } if removed.is_empty() => Ok(()),
        Change::SegmentsReplaced { .. } => Err("removes segments"),
        Change::KeyslotAdded { .. } | Change::AppenderAdded { .. } => Err("adds a keyslot"),
        Change::KeyslotRemoved { .. } => Err("removes a keyslot"),
        Change::SnapshotForgotten { .. } => Err("forgets a snapshot"),
        Change::SnapshotHeld { .. } => Err("holds a snapshot"),
        Change::SnapshotReleased { .. } => Err("releases a snapshot"),
        Change::SegmentsDropped { .. } => Err("drops segments"),
        Change::PacksCondemned { .. } => Err("condemns packs"),
        Change::PacksRescued { .. } => Err("rescues packs"),
        Change::PacksRemoved { .. } => Err("removes packs"),
        Change::LedgerReplaced { .. } => Err("replaces the verification ledger"),
        Change::ParitySet { .. } => Err("changes what parity is wanted"),
        Change::ReserveSet { .. } => Err("changes what room is kept free"),
        Change::Note { .. } => Err("leaves a note"),
    }
}
