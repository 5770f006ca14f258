//! Which snapshots a backup is compared with.

use crate::backup::losses;
use crate::backup::options::{BackupError, ParentChoice};
use crate::browse;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Grain, NodeKind};
use crate::ids::{BlobId, SnapshotId};
use crate::monitor::{Monitor, Problem, SNAPSHOT_UNREAD};
use crate::repo::{Repository, RepositoryError};

/// The snapshots to compare with.
#[derive(Debug, Default)]
pub(super) struct Parents {
    snapshots: Vec<SnapshotId>,
    /// Their root trees, the most recent first.
    pub trees: Vec<BlobId>,
    /// Partial snapshots that a complete one makes superfluous.
    pub partials: Vec<SnapshotId>,
    /// The last complete one, with its tree.
    pub complete: Option<(SnapshotId, BlobId)>,
    /// Whether something they rest on may have been lost since.
    pub doubted: bool,
    /// Files and bytes of the last complete one.
    pub expected: Option<(u64, u64)>,
}

impl Parents {
    /// Chooses by host and paths: the last complete snapshot, and before it partial ones that are newer, so that an
    /// interrupted backup goes on where it was.
    ///
    /// Tells of records that cannot be read, which have nothing to be compared with.
    pub fn choose(
        repository: &Repository,
        new: &Snapshot,
        choice: ParentChoice,
        monitor: &dyn Monitor,
    ) -> Result<Self, BackupError> {
        let (mut snapshots, unread) = repository.readable_snapshots();
        for (_, error) in unread {
            let message = format!("{error}; everything else goes on without it");
            monitor.problem(&Problem { code: SNAPSHOT_UNREAD, path: None, message, is_error: false });
        }
        let mut parents = Self::default();
        // An appender cannot read any trees.
        if repository.is_append_only() {
            return Self::of_appender(repository, new, choice, snapshots);
        }
        let fold = repository.fold();
        // What an appender says of files is no reason not to read them.
        let is_appended = |(id, snapshot): &(SnapshotId, Snapshot)| {
            snapshot.appender(fold.snapshot(id).and_then(|entry| entry.appender)).is_some()
        };
        if let ParentChoice::Snapshot(wanted) = choice
            && snapshots.iter().any(|one| one.0 == wanted && is_appended(one))
        {
            return Err(BackupError::AppendedParent(wanted));
        }
        snapshots.retain(|one| !is_appended(one));
        let alike = |snapshot: &Snapshot| snapshot.hostname == new.hostname && snapshot.paths == new.paths;
        parents.partials = snapshots
            .iter()
            .filter(|(_, snapshot)| snapshot.partial && alike(snapshot))
            .map(|(id, _)| *id)
            .collect();
        match choice {
            ParentChoice::None => {}
            ParentChoice::Snapshot(wanted) => {
                let found = snapshots.into_iter().find(|(id, _)| *id == wanted);
                let (id, snapshot) = found.ok_or_else(|| RepositoryError::NoSnapshot(wanted.to_string()))?;
                parents.add(id, &snapshot);
            }
            ParentChoice::Automatic => {
                let (mut files, mut bytes) = (0, 0);
                for (id, snapshot) in snapshots.into_iter().rev().filter(|(_, snapshot)| alike(snapshot)) {
                    // A run walks in the order of names: if it got further than an earlier one, it has what that had.
                    let summary = &snapshot.summary;
                    if !snapshot.partial || summary.files > files || summary.bytes > bytes {
                        parents.add(id, &snapshot);
                        (files, bytes) = (files.max(summary.files), bytes.max(summary.bytes));
                    }
                    if !snapshot.partial {
                        break;
                    }
                }
            }
        }
        let added = |id| fold.snapshot(id).map_or(0, |entry| entry.added);
        parents.doubted =
            parents.snapshots.iter().map(added).min().is_some_and(|first| losses::since(repository, first));
        Ok(parents)
    }

    /// An appender reads no trees, so it has no parent. Of its own last snapshot the log says what it took.
    fn of_appender(
        repository: &Repository,
        new: &Snapshot,
        choice: ParentChoice,
        snapshots: Vec<(SnapshotId, Snapshot)>,
    ) -> Result<Self, BackupError> {
        let mut parents = Self::default();
        match choice {
            ParentChoice::None => return Ok(parents),
            ParentChoice::Automatic => {}
            ParentChoice::Snapshot(_) => {
                return Err(RepositoryError::AppendOnly("read a parent snapshot").into());
            }
        }
        let (fold, own) = (repository.fold(), repository.writer_id());
        let last = snapshots.into_iter().rev().find(|(id, snapshot)| {
            let is_own = fold.snapshot(id).is_some_and(|entry| entry.appender == Some(own));
            is_own && snapshot.hostname == new.hostname && snapshot.paths == new.paths
        });
        if let Some((id, snapshot)) = last {
            parents.complete = Some((id, snapshot.tree));
            parents.expected = Some((snapshot.summary.files, snapshot.summary.bytes));
        }
        Ok(parents)
    }

    fn add(&mut self, id: SnapshotId, snapshot: &Snapshot) {
        self.snapshots.push(id);
        self.trees.push(snapshot.tree);
        if !snapshot.partial {
            self.complete = Some((id, snapshot.tree));
            self.expected = Some((snapshot.summary.files, snapshot.summary.bytes));
        }
    }

    /// The snapshot to name as parent: the last complete one if there is one.
    pub fn main(&self) -> Option<SnapshotId> {
        self.snapshots.last().copied()
    }

    /// The grain that the stream of this name had.
    pub fn stream_grain(&self, repository: &Repository, name: &[u8]) -> Option<Grain> {
        let node = browse::lookup(repository.reader(), self.trees.first()?, name).ok()??;
        match node.kind {
            NodeKind::File(content) => content.grain,
            _ => None,
        }
    }
}
