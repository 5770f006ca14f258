//! What of the snapshots that were found is added: those that were named; unasked only what must have been lost and is the newest of its
//! host and paths. A record by itself proves neither, and what is added stands behind all others, so an older one would pass for the latest.
//!
//! Times decide what is shown and what is asked, never what is safe.

use crate::format::snapshot::Snapshot;
use crate::ids::SnapshotId;
use crate::log::{Fold, HeadError, LogError, SnapshotRecords};
use crate::repair::RepairError;
use crate::repair::lost::told::Told;
use crate::repair::lost::{LostOptions, LostSnapshot, Withheld};
use crate::repo::{Repository, RepositoryError};

/// What is asked for, and what there is.
pub(super) struct Choice<'a> {
    named: &'a [String],
    /// Why nothing at all is added unasked.
    none: Option<Withheld>,
    live: Vec<(SnapshotId, Snapshot)>,
    unread: Option<SnapshotId>,
}

impl<'a> Choice<'a> {
    /// The choice among snapshots that are not in `base`.
    pub fn new(
        repository: &Repository,
        base: &Fold,
        told: &Told,
        options: &'a LostOptions,
    ) -> Result<Self, RepairError> {
        let none = match shows_loss(repository, options)? {
            false => Some(Withheld::NoLoss),
            true => told.full_keyslot_removed.then_some(Withheld::RemovedKeyslot),
        };
        let records = SnapshotRecords::of(base, repository.keys());
        Ok(Self {
            named: &options.snapshots,
            none,
            live: records.read.into_iter().map(|(entry, snapshot)| (entry.snapshot, snapshot)).collect(),
            unread: records.unread.first().map(|(entry, _)| entry.snapshot),
        })
    }

    /// Leaves those that are named, if any are.
    ///
    /// # Errors
    /// [`RepositoryError::AmbiguousSnapshot`] for a name of several.
    pub fn keep_named<T>(&self, found: &mut Vec<(SnapshotId, T)>) -> Result<(), RepositoryError> {
        if self.named.is_empty() {
            return Ok(());
        }
        let is_meant =
            |id: &SnapshotId, name: &String| id.to_string().starts_with(&name.to_ascii_lowercase());
        for name in self.named {
            let count = found.iter().filter(|(id, _)| is_meant(id, name)).count();
            if count > 1 {
                return Err(RepositoryError::AmbiguousSnapshot { prefix: name.clone(), count });
            }
        }
        found.retain(|(id, _)| self.named.iter().any(|name| is_meant(id, name)));
        Ok(())
    }

    /// Why a snapshot is not added; none if it was named, or is the newest and must have been lost.
    pub fn withheld(&self, found: &Snapshot) -> Option<Withheld> {
        if !self.named.is_empty() {
            return None;
        }
        let newest = self.newest(&|live| is_same_series(live, found) && outdates(live, found));
        self.none.or(newest.map(Withheld::NotNewest)).or(self.unread.map(Withheld::Unread))
    }

    /// Whether the same would be chosen of what was found now that the log says more than `base`.
    pub fn holds(&self, repository: &Repository, base: &Fold, fold: &Fold, found: &[LostSnapshot]) -> bool {
        let added: Vec<_> = found.iter().filter(|found| found.is_added()).collect();
        if added.iter().any(|added| fold.snapshot(&added.id).is_some()) {
            return false;
        }
        // Nothing that others do speaks against what is named.
        if !self.named.is_empty() {
            return true;
        }
        let is_new = |id: &SnapshotId| base.snapshot(id).is_none();
        if !fold.keyslots().eq(base.keyslots()) {
            return false;
        }
        if !fold.snapshots().any(|entry| is_new(&entry.snapshot)) {
            return true;
        }
        let records = SnapshotRecords::of(fold, repository.keys());
        let outdates = |live: &Snapshot| {
            added.iter().any(|added| is_same_series(live, &added.snapshot) && outdates(live, &added.snapshot))
        };
        !records.unread.iter().any(|(entry, _)| is_new(&entry.snapshot))
            && !records.read.iter().any(|(entry, live)| is_new(&entry.snapshot) && outdates(live))
    }

    /// A live snapshot that is newer than all that is added, or than one of its host and paths that is.
    pub fn behind(&self, found: &[LostSnapshot]) -> Option<SnapshotId> {
        let added: Vec<_> =
            found.iter().filter(|found| found.is_added()).map(|found| &found.snapshot).collect();
        let last = added.iter().map(|added| added.time).max()?;
        self.newest(&|live| {
            live.time > last || added.iter().any(|added| is_same_series(live, added) && outdates(live, added))
        })
    }

    fn newest(&self, is_wanted: &dyn Fn(&Snapshot) -> bool) -> Option<SnapshotId> {
        let wanted = self.live.iter().filter(|(_, live)| is_wanted(live));
        wanted.max_by_key(|(_, live)| live.time).map(|(id, _)| *id)
    }
}

/// Whether something is lost, by the log itself, by parity of entries behind its end, or by what was seen of it before.
fn shows_loss(repository: &Repository, options: &LostOptions) -> Result<bool, RepairError> {
    if !repository.lost_commits().is_empty() || repository.lost_end()?.is_some() {
        return Ok(true);
    }
    for head in &options.seen {
        match repository.verify_head(head) {
            Ok(()) => {}
            Err(HeadError::Log(error @ LogError::Backend(_))) => {
                return Err(RepositoryError::from(error).into());
            }
            Err(_) => return Ok(true),
        }
    }
    Ok(false)
}

fn is_same_series(a: &Snapshot, b: &Snapshot) -> bool {
    let sorted = |snapshot: &Snapshot| {
        let mut paths = snapshot.paths.clone();
        paths.sort_unstable();
        paths
    };
    a.hostname == b.hostname && sorted(a) == sorted(b)
}

/// Whether a live snapshot is not older than one that was found. Partial ones have the time of the complete one that follows them.
fn outdates(live: &Snapshot, found: &Snapshot) -> bool {
    live.time > found.time || (live.time == found.time && (found.partial || !live.partial))
}
