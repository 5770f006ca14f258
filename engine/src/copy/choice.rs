//! Which snapshots are to be copied, and which of them are in the target already: those that are of the same origin.

use std::collections::{BTreeMap, BTreeSet};

use crate::copy::{Choice, CopiedSnapshot, CopyError, CopyOptions, Fate};
use crate::format::snapshot::Snapshot;
use crate::ids::{BlobId, RepositoryId, SnapshotId, WriterId};
use crate::monitor::{Monitor, Problem};
use crate::repo::{Repository, RepositoryError};

/// The repository that a snapshot was first in, and its id there.
type Identity = (RepositoryId, SnapshotId);

/// A snapshot to be copied.
pub(super) struct Chosen {
    pub id: SnapshotId,
    pub snapshot: Snapshot,
    pub identity: Identity,
    /// What it is ordered by among those of its origin.
    pub added: u64,
    /// The appender that it is from, if it is from one.
    pub appender: Option<WriterId>,
}

fn identity(repository: &Repository, id: SnapshotId, snapshot: &Snapshot) -> Identity {
    snapshot.origin.map_or((repository.id(), id), |origin| (origin.repository, origin.snapshot))
}

/// The snapshots that are meant, in the source's order. Of several that are named, those that were forgotten meanwhile are told of
/// and left out.
pub(super) fn choose(
    source: &Repository,
    options: &CopyOptions,
    monitor: &dyn Monitor,
) -> Result<Vec<Chosen>, CopyError> {
    let (snapshots, unread) = source.readable_snapshots();
    let wanted: Vec<(SnapshotId, Snapshot)> = match &options.choice {
        Choice::Named(ids) => {
            if let Some((_, error)) = unread.into_iter().find(|(id, _)| ids.contains(id)) {
                return Err(RepositoryError::from(error).into());
            }
            let is_there = |id: &&SnapshotId| snapshots.iter().any(|(other, _)| other == *id);
            let (there, missing): (Vec<&SnapshotId>, Vec<&SnapshotId>) = ids.iter().partition(is_there);
            if let Some(id) = missing.first().filter(|_| there.is_empty()) {
                return Err(RepositoryError::NoSnapshot(id.to_string()).into());
            }
            for id in missing {
                let message = format!("snapshot {} was forgotten before it was copied", id.short());
                monitor.problem(&Problem {
                    code: "snapshot-forgotten",
                    path: None,
                    message,
                    is_error: false,
                });
            }
            snapshots.into_iter().filter(|(id, _)| ids.contains(id)).collect()
        }
        choice => {
            let mut selected: Vec<_> = snapshots
                .into_iter()
                .filter(|(_, snapshot)| !snapshot.partial && options.selection.chooses(snapshot))
                .collect();
            if *choice == Choice::Latest {
                let last = selected.pop();
                source.require_latest(last.as_ref().map(|(id, _)| id))?;
                let last = last.ok_or_else(|| RepositoryError::NoSnapshot("latest".into()))?;
                selected = vec![last];
            }
            selected
        }
    };
    let fold = source.fold();
    let chosen = wanted.into_iter().map(|(id, snapshot)| {
        let entry = fold.snapshot(&id);
        let committed = entry.map_or(0, |entry| entry.added);
        let appender = snapshot.appender(entry.and_then(|entry| entry.appender));
        let added = snapshot.origin.map_or(snapshot.position(committed).0, |origin| origin.added);
        Chosen { id, identity: identity(source, id, &snapshot), snapshot, added, appender }
    });
    Ok(chosen.collect())
}

/// What is in the target.
pub(super) struct Known {
    source: RepositoryId,
    target: RepositoryId,
    copies: BTreeMap<Identity, SnapshotId>,
    /// Of snapshots of the source that are copies themselves, where they are from.
    origins: BTreeMap<SnapshotId, Identity>,
}

impl Known {
    pub fn of(source: &Repository, target: &Repository) -> Result<Self, CopyError> {
        let (in_target, _) = target.readable_snapshots();
        let copies = in_target.iter().map(|(id, snapshot)| (identity(target, *id, snapshot), *id)).collect();
        let origins = source
            .readable_snapshots()
            .0
            .iter()
            .map(|(id, snapshot)| (*id, identity(source, *id, snapshot)))
            .collect();
        Ok(Self { source: source.id(), target: target.id(), copies, origins })
    }

    pub fn target(&self) -> RepositoryId {
        self.target
    }

    pub fn copy_of(&self, chosen: &Chosen) -> Option<SnapshotId> {
        self.copies.get(&chosen.identity).copied()
    }

    /// The copy of a snapshot that the source knows by this id, there or not.
    pub fn copy_of_id(&self, id: &SnapshotId) -> Option<SnapshotId> {
        let identity = self.origins.get(id).copied().unwrap_or((self.source, *id));
        self.copies.get(&identity).copied()
    }

    pub fn add(&mut self, chosen: &Chosen, copy: SnapshotId) {
        self.copies.insert(chosen.identity, copy);
    }

    /// What became of a snapshot: `fate`, unless it is there.
    pub fn verdict(&self, chosen: &Chosen, fate: Fate) -> CopiedSnapshot {
        let target = self.copy_of(chosen);
        let fate = if target.is_some() && fate == Fate::Planned { Fate::Present } else { fate };
        CopiedSnapshot {
            source: chosen.id,
            target,
            time: chosen.snapshot.time,
            hostname: chosen.snapshot.hostname.clone(),
            fate,
        }
    }
}

/// Trees of the last snapshot of each series that is in both repositories, where one of the series is to be copied.
pub(super) fn pairs(
    source: &Repository,
    target: &Repository,
    chosen: &[Chosen],
    known: &Known,
) -> Result<Vec<(BlobId, BlobId)>, CopyError> {
    let series = |snapshot: &Snapshot| {
        let domain = snapshot.provenance.as_ref().map(|from| from.domain.clone());
        let paths: Vec<Vec<u8>> = snapshot.paths.iter().map(|path| path.to_vec()).collect();
        (snapshot.hostname.clone(), paths, domain)
    };
    let wanted: BTreeSet<_> = chosen
        .iter()
        .filter(|snapshot| known.copy_of(snapshot).is_none())
        .map(|chosen| series(&chosen.snapshot))
        .collect();
    let in_target: BTreeMap<SnapshotId, Snapshot> = target.readable_snapshots().0.into_iter().collect();
    let mut last = BTreeMap::new();
    for (id, snapshot) in source.readable_snapshots().0 {
        let series = series(&snapshot);
        let copy = known.copy_of_id(&id).and_then(|copy| in_target.get(&copy));
        if let Some(copy) = copy.filter(|_| wanted.contains(&series)) {
            last.insert(series, (snapshot.tree, copy.tree));
        }
    }
    Ok(last.into_values().collect())
}
