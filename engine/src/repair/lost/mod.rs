//! Snapshots of which the log says nothing any more: the entry that added them is lost, but their records, which are stored as blobs,
//! too, and all that they need may be there.
//!
//! What the log says of a snapshot holds: one that was forgotten does not come back. All others whose records are found in packs are
//! followed to all that they need, in the index and in packs that no segment lists; whole packs of these are read and verified. One
//! commit lists the packs that are needed, rescues those of them that are condemned, and adds the snapshots. Nothing is done where somebody
//! pruned meanwhile, so nothing that it rests on is about to go.
//!
//! A record proves neither that its snapshot was ever added nor who made it: runs that were killed or that began anew leave such behind, and
//! no record is signed. So only what must have been lost and is the newest is added without being named; the rest is shown ([`Withheld`]).
//!
//! Records that only an append-only keyslot can have written are passed over: its word would become this keyslot's. For the same reason
//! nothing rests on what appenders added to the index.
//!
//! In here:
//!
//! - `told`: what the log says of what is gone
//! - `stock`: what is stored, as far as the index does not say it
//! - `choice`: what is added without being named

mod choice;
mod stock;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_bytes::ByteBuf;

use crate::backend::ObjectKey;
use crate::budget;
use crate::crypto::keys::BlobKind;
use crate::format::commit::Change;
use crate::format::pack::Directory;
use crate::format::segment::PackEntry;
use crate::format::snapshot::Snapshot;
use crate::format::tree::Timestamp;
use crate::ids::{PackId, SnapshotId};
use crate::log::{Fold, Head};
use crate::monitor::Monitor;
use crate::repair::{ATTEMPTS, RepairError};
use crate::repo::{Repository, RepositoryError};

use choice::Choice;
use stock::{Followed, Stock};
use told::Told;

/// How lost snapshots are looked for.
#[derive(Debug, Clone)]
pub struct LostOptions {
    /// Ids, or what they begin with: only these are looked for, and added whatever their times. If there are none, all are looked for.
    pub snapshots: Vec<String>,
    /// Entries of the log that were seen before: where it does not pass through one of them, something is lost.
    pub seen: Vec<Head>,
    /// Say what is found, commit nothing.
    pub dry_run: bool,
    /// Threads that follow trees.
    pub threads: usize,
    /// Memory to live in, in bytes; what packs hold that no segment lists comes on top, some 200 bytes for each blob.
    pub memory: u64,
}

impl Default for LostOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { snapshots: Vec::new(), seen: Vec::new(), dry_run: false, threads, memory: budget::USUAL }
    }
}

/// Why a snapshot is not added unless it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// Nothing shows that the log has lost something: more likely it never was in there.
    NoLoss,
    /// A keyslot that was not append-only was removed. Whoever held it knows all keys, and can have made the record since.
    RemovedKeyslot,
    /// A live snapshot of the same host and paths that is not older.
    NotNewest(SnapshotId),
    /// A live snapshot whose record cannot be read: it may be newer.
    Unread(SnapshotId),
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLoss => write!(
                f,
                "the log shows no loss that is not on record: a run that was killed or began anew leaves such a record, too"
            ),
            Self::RemovedKeyslot => write!(
                f,
                "a password was removed or changed that could do everything: whoever knows it can have made this record since"
            ),
            Self::NotNewest(id) => {
                write!(f, "snapshot {} of the same host and paths is there and not older", id.short())
            }
            Self::Unread(id) => {
                write!(f, "the record of snapshot {} cannot be read, which may be newer", id.short())
            }
        }
    }
}

/// A snapshot that the log does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its record.
    pub snapshot: Snapshot,
    /// Why it cannot be had again; none where all that it needs is stored.
    pub lacks: Option<String>,
    /// Why it is shown and no more; none where it was named, or must have been lost and is the newest.
    pub withheld: Option<Withheld>,
}

impl LostSnapshot {
    /// Whether it is among those that are added.
    pub fn is_added(&self) -> bool {
        self.lacks.is_none() && self.withheld.is_none()
    }
}

/// What came of the search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LostReport {
    /// Snapshots found, in the order of their times.
    pub snapshots: Vec<LostSnapshot>,
    /// Records of snapshots that were forgotten: these stay so.
    pub forgotten: u64,
    /// Packs that are part of the index again.
    pub packs: u64,
    /// The commit that added the snapshots; none if nothing was committed.
    pub commit: Option<u64>,
    /// A live snapshot that is newer by its time than what is added, which stands behind it all the same.
    pub behind: Option<SnapshotId>,
    /// Nothing was to be committed.
    pub dry_run: bool,
}

impl LostReport {
    /// Snapshots that were to be added and of which something is missing.
    pub fn incomplete(&self) -> usize {
        self.snapshots.iter().filter(|found| found.lacks.is_some() && found.withheld.is_none()).count()
    }

    /// Snapshots that are not added unless they are named.
    pub fn withheld(&self) -> usize {
        self.snapshots.iter().filter(|found| found.withheld.is_some()).count()
    }
}

/// Finds lost snapshots, and adds those again of which everything is there and that are named, or must have been lost and are the newest.
///
/// # Errors
/// [`RepairError`]: nothing was changed.
pub fn run(
    repository: &Repository,
    options: &LostOptions,
    monitor: &dyn Monitor,
) -> Result<LostReport, RepairError> {
    repository.require_full("add snapshots again")?;
    for _ in 0..ATTEMPTS {
        repository.refresh()?;
        match attempt(repository, options, monitor) {
            Err(RepairError::Repository(RepositoryError::Conflict)) => {}
            result => return result,
        }
    }
    Err(RepairError::Overtaken)
}

fn attempt(
    repository: &Repository,
    options: &LostOptions,
    monitor: &dyn Monitor,
) -> Result<LostReport, RepairError> {
    let base = repository.fold();
    let last_loss = repository.last_loss();
    let told = Told::read(repository, &base)?;
    let choice = Choice::new(repository, &base, &told, options)?;
    let mut stock = Stock::default();
    stock.gather(repository, &base, &told, monitor)?;
    let mut report = LostReport { dry_run: options.dry_run, ..LostReport::default() };
    let mut added = Added::default();
    let records = std::mem::take(&mut stock.records);
    let unnamed = records.into_iter().map(|(id, places)| (SnapshotId::new(id), places));
    let mut unnamed: Vec<_> = unnamed.filter(|(id, _)| base.snapshot(id).is_none()).collect();
    unnamed.retain(|(id, _)| {
        let is_forgotten = told.forgotten.contains(id);
        report.forgotten += u64::from(is_forgotten);
        !is_forgotten
    });
    choice.keep_named(&mut unnamed)?;
    for (id, places) in unnamed {
        let Some((record, snapshot)) = stock.record(repository, id, &places, monitor)? else { continue };
        let withheld = choice.withheld(&snapshot);
        let lacks = loop {
            match stock.follow(repository, &snapshot, options, monitor)? {
                Followed::Lacks(why) => break Some(why),
                Followed::Whole(mut packs) => {
                    let at = stock.home(repository, id.blob(), BlobKind::Snapshot, &|_| true);
                    let at = at.map_err(RepairError::Read)?;
                    packs.extend(at.map(|at| at.pack.id).filter(|pack| stock.unlisted.contains_key(pack)));
                    // Nobody has read what lies in them; what does not verify is as good as gone.
                    if stock.verify(repository, &packs, monitor)? {
                        if withheld.is_none() {
                            added.records.insert((snapshot.time, id), record);
                            added.packs.extend(packs);
                        }
                        break None;
                    }
                }
            }
        };
        report.snapshots.push(LostSnapshot { id, snapshot, lacks, withheld });
    }
    report.snapshots.sort_by_key(|found| (found.snapshot.time, found.id));
    report.packs = added.packs.len() as u64;
    report.behind = choice.behind(&report.snapshots);
    if !options.dry_run && !added.records.is_empty() {
        let packs: Vec<_> = added.packs.iter().filter_map(|id| stock.unlisted.remove(id)).collect();
        let holds = |fold: &Fold| choice.holds(repository, &base, fold, &report.snapshots);
        report.commit = Some(added.commit(repository, &base, last_loss, &packs, &holds)?);
    }
    Ok(report)
}

/// What becomes part of the repository again.
#[derive(Default)]
struct Added {
    /// Records of snapshots, in the order of their times.
    records: BTreeMap<(Timestamp, SnapshotId), Vec<u8>>,
    /// What these need of packs that no segment lists.
    packs: BTreeSet<PackId>,
}

impl Added {
    /// Lists the packs, and adds the snapshots, if the choice of them `holds` by then.
    fn commit(
        &self,
        repository: &Repository,
        base: &Fold,
        last_loss: u64,
        packs: &[(PackEntry, Directory)],
        holds: &dyn Fn(&Fold) -> bool,
    ) -> Result<u64, RepairError> {
        // Their writer may have died before it did so.
        for id in &self.packs {
            match repository.backend().flush(&ObjectKey::pack(id)) {
                // A prune has removed it since it was read.
                Err(error) if error.is_not_found() => return Err(RepositoryError::Conflict.into()),
                flushed => flushed?,
            }
        }
        let segment = if packs.is_empty() { None } else { Some(repository.store_segment(packs)?) };
        let rescued: Vec<PackId> =
            self.packs.iter().copied().filter(|id| base.condemned_since(id).is_some()).collect();
        let committed = repository.commit(&mut |fold| {
            // What was followed may be about to go, or gone; and what was the newest may not be so any more.
            let is_as_followed = repository.last_loss() == last_loss && fold.condemned().eq(base.condemned());
            if !is_as_followed || !holds(fold) {
                return Err(RepositoryError::Conflict);
            }
            // The writer of one that was found may have committed it since, and somebody have forgotten it then.
            if fold.seq() != base.seq() {
                let forgotten = Told::read(repository, fold)?.forgotten;
                if self.records.keys().any(|(_, id)| forgotten.contains(id)) {
                    return Err(RepositoryError::Conflict);
                }
            }
            let mut changes = Vec::new();
            if let Some(segment) = &segment {
                changes.push(Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() });
            }
            if !rescued.is_empty() {
                changes.push(Change::PacksRescued { packs: rescued.clone() });
            }
            changes.extend(self.records.iter().map(|((_, id), record)| Change::SnapshotAdded {
                snapshot: *id,
                record: ByteBuf::from(record.clone()),
            }));
            Ok(changes)
        });
        if matches!(committed, Err(RepositoryError::Conflict))
            && let Some(segment) = &segment
        {
            // No commit names it: it is this process's own. One that stays behind is an orphan, no more.
            let _ = repository.delete_object(&ObjectKey::segment(&segment.info.segment));
        }
        Ok(committed?)
    }
}
