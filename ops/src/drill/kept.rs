//! Which snapshots stay because a drill has restored them: nothing else shows that there is one to go back to.

use std::collections::BTreeSet;

use strongroom::format::note::DrillNote;
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::DrillOutcome;
use crate::plan::types::Tier;

/// Snapshots that drills have restored, by the names that they had in the repositories where they were made: a copy is what its
/// original is.
#[derive(Debug, Default)]
pub struct Restored {
    whole: BTreeSet<SnapshotId>,
    in_part: BTreeSet<SnapshotId>,
}

fn original(id: SnapshotId, snapshot: &Snapshot) -> SnapshotId {
    snapshot.origin.map_or(id, |origin| origin.snapshot)
}

impl Restored {
    /// Adds what the log of a repository says, whose snapshots these are. Only those count that passed and were restored: names
    /// and metadata are not the data.
    pub fn add(&mut self, notes: &[DrillNote], snapshots: &[(SnapshotId, Snapshot)]) {
        let passed = notes.iter().filter(|note| note.outcome == DrillOutcome::Pass.name() && !note.self_test);
        for note in passed {
            let restored = match note.tier.as_str() {
                tier if tier == Tier::Full.name() => &mut self.whole,
                tier if tier == Tier::Sample.name() => &mut self.in_part,
                _ => continue,
            };
            let known = |id: &SnapshotId| snapshots.iter().find(|(other, _)| other == id);
            let originals = note.snapshots.iter();
            restored
                .extend(originals.map(|id| known(id).map_or(*id, |(id, snapshot)| original(*id, snapshot))));
        }
    }

    /// The last of a series that was restored in whole, and the last of which some was.
    pub fn last(&self, series: &[&(SnapshotId, Snapshot)]) -> Vec<SnapshotId> {
        let last = |restored: &BTreeSet<SnapshotId>| {
            let found =
                series.iter().rev().find(|(id, snapshot)| restored.contains(&original(*id, snapshot)));
            found.map(|(id, _)| *id)
        };
        let mut found: Vec<_> = [&self.whole, &self.in_part].into_iter().filter_map(last).collect();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use strongroom::format::snapshot::Origin;
    use strongroom::format::tree::Timestamp;
    use strongroom::ids::RepositoryId;

    use super::*;
    use crate::testing::{id, record};

    fn note(tier: &str, outcome: &str, self_test: bool, snapshot: u8) -> DrillNote {
        DrillNote {
            drill: "d".into(),
            tier: tier.into(),
            outcome: outcome.into(),
            reason: String::new(),
            self_test,
            began: Timestamp::default(),
            snapshots: vec![id(snapshot)],
            phases: Vec::new(),
        }
    }

    #[test]
    fn the_last_one_of_each_tier_that_was_restored_stays_wherever_it_is() {
        let originals: Vec<_> =
            (1..=6).map(|number| (id(number), record("x", 10 - i64::from(number)))).collect();
        let notes = [
            note("full", "pass", false, 1),
            note("full", "pass", false, 2),
            note("sample", "pass", false, 3),
            note("metadata", "pass", false, 4),
            note("full", "fail", false, 5),
            note("full", "pass", true, 6),
        ];
        let mut restored = Restored::default();
        assert_eq!(restored.last(&originals.iter().collect::<Vec<_>>()), []);
        restored.add(&notes, &originals);
        assert_eq!(restored.last(&originals.iter().collect::<Vec<_>>()), [id(2), id(3)]);
        let copy = |number: u8| {
            let origin = Origin {
                repository: RepositoryId::from_bytes([1; 16]),
                snapshot: id(number),
                added: 1,
                appender: None,
            };
            let (there, snapshot) = (id(number + 100), record("x", 1));
            (there, Snapshot { origin: Some(origin), ..snapshot })
        };
        let copies = [1, 2, 4].map(copy);
        assert_eq!(restored.last(&copies.iter().collect::<Vec<_>>()), [id(102)]);
        // One that was restored from a copy is kept as the original, too.
        let mut elsewhere = Restored::default();
        elsewhere.add(&[note("full", "pass", false, 104)], &copies);
        assert_eq!(elsewhere.last(&originals.iter().collect::<Vec<_>>()), [id(4)]);
    }
}
