//! What processes have been told, and so may rely on.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::ids::SnapshotId;

use super::passwords::Passwords;

/// What processes have been told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Entries of the log when the simulation began.
    pub begun_at: u64,
    /// Commands of upkeep were given, and are to be given in the end.
    pub with_upkeep: bool,
    /// Snapshots that were made, copied, or added again.
    pub made: BTreeSet<SnapshotId>,
    /// How often somebody was told so, and the number of the last time for each.
    pub makings: u64,
    pub last_made: BTreeMap<SnapshotId, u64>,
    /// Snapshots that somebody has begun to forget by name.
    pub forgotten: BTreeSet<SnapshotId>,
    /// Those of which somebody was told that they are forgotten.
    pub gone: BTreeSet<SnapshotId>,
    /// Somebody has begun to forget by a policy.
    pub policies: bool,
    pub holds: Holds,
    pub passwords: Passwords,
}

impl Told {
    /// Somebody is told that there is a snapshot.
    pub fn is_made(&mut self, snapshot: SnapshotId) {
        self.made.insert(snapshot);
        self.makings += 1;
        self.last_made.insert(snapshot, self.makings);
        // Who had begun before it was forgotten may come to its end after that. The commit of a snapshot says that it is wanted.
        self.gone.remove(&snapshot);
    }

    /// Somebody begins to forget; what is returned is wanted again in the end.
    pub fn begin_to_forget(&self) -> u64 {
        self.makings
    }

    /// Somebody is told that the snapshot is forgotten. Of one that was made since this had begun nobody knows which came first: of two
    /// backups with the same clock the second one adds what the first one has added.
    pub fn is_forgotten(&mut self, snapshot: SnapshotId, begun: u64) {
        if self.last_made.get(&snapshot).is_none_or(|made| *made <= begun) {
            self.gone.insert(snapshot);
        }
    }
}

/// Who holds what.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// Snapshots that somebody has begun to hold, or that were held in the beginning.
    begun: BTreeSet<SnapshotId>,
    /// Those that are held for certain: somebody was told so, and nobody has begun to release them since that one began.
    certain: BTreeSet<SnapshotId>,
    releases: BTreeMap<SnapshotId, Releases>,
}

#[derive(Debug, Clone, Default)]
struct Releases {
    begun: u64,
    /// Those of which nobody was told what became of them count for ever.
    under_way: u64,
}

impl Holds {
    /// The snapshot is held in the beginning.
    pub fn add(&mut self, snapshot: SnapshotId) {
        self.begun.insert(snapshot);
        self.certain.insert(snapshot);
    }

    /// Somebody begins to hold a snapshot; what is returned is wanted again in the end.
    pub fn begin(&mut self, snapshot: SnapshotId) -> u64 {
        self.begun.insert(snapshot);
        self.releases.get(&snapshot).map_or(0, |releases| releases.begun)
    }

    /// Somebody is told that the snapshot is held.
    pub fn end(&mut self, snapshot: SnapshotId, begun: u64) {
        let is_alone = |releases: &Releases| releases.begun == begun && releases.under_way == 0;
        if self.releases.get(&snapshot).is_none_or(is_alone) {
            self.certain.insert(snapshot);
        }
    }

    /// Somebody begins to release a snapshot.
    pub fn begin_release(&mut self, snapshot: SnapshotId) {
        self.certain.remove(&snapshot);
        let releases = self.releases.entry(snapshot).or_default();
        releases.begun += 1;
        releases.under_way += 1;
    }

    /// Somebody is told that the snapshot is released.
    pub fn end_release(&mut self, snapshot: SnapshotId) {
        self.releases.entry(snapshot).or_default().under_way -= 1;
    }

    /// Whether anybody can have held it.
    pub fn may_hold(&self, snapshot: &SnapshotId) -> bool {
        self.begun.contains(snapshot)
    }

    /// Snapshots that are held for certain.
    pub fn certain(&self) -> &BTreeSet<SnapshotId> {
        &self.certain
    }

    /// Whether the snapshot is held for certain, and how many releases were begun: as long as both stay the same it was held throughout.
    pub fn state(&self, snapshot: &SnapshotId) -> (bool, u64) {
        let releases = self.releases.get(snapshot).map_or(0, |releases| releases.begun);
        (self.certain.contains(snapshot), releases)
    }
}
