//! Snapshots of which the log says nothing any more: the entry that added them is lost, but their records, which are stored as blobs,
//! too, and all that they need may be there.
//!
//! What the log says of a snapshot holds: one that was forgotten does not come back. All others whose records are found in packs are
//! followed to all that they need, in the index and in packs that no segment lists; whole packs of these are read and verified. One
//! commit lists the packs that are needed, rescues those of them that are condemned, and adds the snapshots. Nothing is done where somebody
//! pruned meanwhile, so nothing that it rests on is about to go.
//!
//! Records that only an append-only keyslot can have written are passed over: its word would become this keyslot's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

use serde_bytes::ByteBuf;

use crate::backend::{Backend, Folder, ObjectKey};
use crate::budget;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::Chunk;
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::format::pack::Directory;
use crate::format::segment::PackEntry;
use crate::format::snapshot::Snapshot;
use crate::format::tree::Timestamp;
use crate::ids::{BlobId, PackId, SnapshotId};
use crate::index::{self, Location};
use crate::log::{self, Fold, snapshot_record};
use crate::monitor::{Monitor, Problem, Progress};
use crate::reach::{self, Needs, ReachError};
use crate::repair::{ATTEMPTS, RepairError, is_lost};
use crate::repo::{Repository, RepositoryError};
use crate::store::{DecodeScratch, ReadError, read_directory};
use crate::vet::{self, VerifyScratch};

/// How lost snapshots are looked for.
#[derive(Debug, Clone)]
pub struct LostOptions {
    /// Ids, or what they begin with: only these. All, if there are none.
    pub snapshots: Vec<String>,
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
        Self { snapshots: Vec::new(), dry_run: false, threads, memory: budget::USUAL }
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
    /// A live snapshot that was added after an entry that is lost: what is added now stands behind it, whatever their times.
    pub behind: Option<SnapshotId>,
    /// Nothing was to be committed.
    pub dry_run: bool,
}

impl LostReport {
    /// Snapshots of which something is missing.
    pub fn incomplete(&self) -> usize {
        self.snapshots.iter().filter(|found| found.lacks.is_some()).count()
    }
}

/// Finds lost snapshots, and adds those again of which everything is there.
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
    let mut stock = Stock::default();
    stock.gather(repository, &base, &told, monitor)?;
    let mut report = LostReport { dry_run: options.dry_run, ..LostReport::default() };
    let mut needed = BTreeSet::new();
    for (id, at) in std::mem::take(&mut stock.records) {
        let snapshot_id = SnapshotId::new(id);
        if base.snapshot(&snapshot_id).is_some() {
            continue;
        }
        if told.forgotten.contains(&snapshot_id) {
            report.forgotten += 1;
            continue;
        }
        let name = id.to_string();
        if !options.snapshots.is_empty() && !options.snapshots.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let Some((record, snapshot)) = stock.record(repository, snapshot_id, &at, monitor)? else { continue };
        let lacks = loop {
            match stock.follow(repository, &snapshot, options, monitor)? {
                Followed::Lacks(why) => break Some(why),
                Followed::Whole(mut packs) => {
                    packs.extend(stock.unlisted.contains_key(&at.pack.id).then_some(at.pack.id));
                    // Nobody has read what lies in them; what does not verify is as good as gone.
                    if stock.verify(repository, &packs, monitor)? {
                        needed.extend(packs);
                        break None;
                    }
                }
            }
        };
        if lacks.is_none() {
            stock.found.insert((snapshot.time, snapshot_id), record);
        }
        report.snapshots.push(LostSnapshot { id: snapshot_id, snapshot, lacks });
    }
    report.snapshots.sort_by_key(|found| (found.snapshot.time, found.id));
    report.packs = needed.len() as u64;
    if !options.dry_run && !stock.found.is_empty() {
        report.commit = Some(stock.commit(repository, &base, last_loss, &needed)?);
        report.behind = behind(&base);
    }
    Ok(report)
}

/// The last snapshot that was added after an entry that is lost.
fn behind(fold: &Fold) -> Option<SnapshotId> {
    let lost = fold.lost_commits().map(|lost| lost.seq).min()?;
    let later = fold.snapshots().filter(|entry| entry.added > lost);
    later.max_by_key(|entry| entry.added).map(|entry| entry.snapshot)
}

/// What the log says of what is gone.
#[derive(Default)]
struct Told {
    forgotten: HashSet<SnapshotId>,
    removed: HashSet<PackId>,
}

impl Told {
    fn read(repository: &Repository, base: &Fold) -> Result<Self, RepairError> {
        let mut told = Self::default();
        let mut fold = Fold::empty(base.config());
        let (backend, keys) = (&**repository.backend(), repository.keys());
        log::read_until(backend, keys, &repository.id(), &mut fold, base.seq(), &mut |entry| {
            let Ok(entry) = entry else { return };
            for change in &entry.commit.changes {
                match change {
                    Change::SnapshotForgotten { snapshot, .. } => _ = told.forgotten.insert(*snapshot),
                    Change::PacksRemoved { packs } => told.removed.extend(packs),
                    _ => {}
                }
            }
        })
        .map_err(RepositoryError::from)?;
        Ok(told)
    }
}

/// What is stored, as far as the index does not say it.
#[derive(Default)]
struct Stock {
    /// All packs and their lengths.
    stored: HashMap<PackId, u64>,
    /// Packs that no live segment lists.
    unlisted: HashMap<PackId, (PackEntry, Directory)>,
    /// Blobs in them: those of condemned packs last.
    blobs: HashMap<BlobId, Vec<Location>>,
    verified: HashSet<PackId>,
    /// Records of snapshots in all packs of metadata.
    records: HashMap<BlobId, Location>,
    /// Records of snapshots to be added, in the order of their times.
    found: BTreeMap<(Timestamp, SnapshotId), Vec<u8>>,
}

/// Where a snapshot leads.
enum Followed {
    /// To something that is not there.
    Lacks(String),
    /// To what is there, of which this much lies in packs that no segment lists.
    Whole(BTreeSet<PackId>),
}

impl Stock {
    /// Reads the directories of all packs of metadata, and of all packs that no segment lists.
    fn gather(
        &mut self,
        repository: &Repository,
        base: &Fold,
        told: &Told,
        monitor: &dyn Monitor,
    ) -> Result<(), RepairError> {
        let backend = &**repository.backend();
        backend.list(Folder::Packs, None, &mut |info| {
            let id = info.key.pack_id().filter(|id| !told.removed.contains(id));
            self.stored.extend(id.map(|id| (id, info.size)));
            ControlFlow::Continue(())
        })?;
        let mut listed = HashMap::new();
        for segment in repository.index().segments().iter() {
            listed.extend(segment.packs().map_while(Result::ok).map(|pack| (pack.id, pack.header.kind)));
        }
        let mut packs: Vec<_> = self.stored.iter().map(|(id, size)| (*id, *size)).collect();
        packs.retain(|(id, _)| listed.get(id).is_none_or(|kind| *kind == ObjectKind::MetadataPack));
        // Condemned ones last, so that what lies elsewhere, too, needs no rescue.
        packs.sort_by_key(|(id, _)| (base.condemned_since(id).is_some(), *id));
        let mut buffer = Vec::new();
        for (done, pack) in (0..).zip(packs) {
            if monitor.is_cancelled() {
                return Err(RepairError::Cancelled);
            }
            monitor.progress(&Progress { items: done, ..Progress::default() });
            match read_directory(backend, repository.keys(), &repository.id(), pack, &mut buffer) {
                Ok((entry, _)) if entry.header.is_for_recipient() => {}
                Ok((entry, directory)) => self.take(entry, directory, listed.contains_key(&pack.0)),
                Err(error) if is_lost(&error) => tell(monitor, pack.0, &error),
                Err(error) => return Err(RepairError::Read(error)),
            }
        }
        Ok(())
    }

    fn take(&mut self, pack: PackEntry, directory: Directory, is_listed: bool) {
        let blobs = directory.blocks.iter().flat_map(|block| &block.blobs);
        for (blob, entry) in blobs.zip(index::directory_entries(0, &directory)) {
            let at = Location { pack, entry };
            if blob.kind == BlobKind::Snapshot {
                self.records.entry(blob.id).or_insert(at);
            }
            if !is_listed {
                self.blobs.entry(blob.id).or_default().push(at);
            }
        }
        if !is_listed {
            self.unlisted.insert(pack.id, (pack, directory));
        }
    }

    /// A snapshot's record, verified by its id; none where it is damaged, which is told.
    fn record(
        &self,
        repository: &Repository,
        id: SnapshotId,
        at: &Location,
        monitor: &dyn Monitor,
    ) -> Result<Option<(Vec<u8>, Snapshot)>, RepairError> {
        let (reader, mut raw) = (repository.reader(), Vec::new());
        let (offset, len) = (at.entry.offset, at.entry.len);
        let read = reader
            .read_block(&at.pack, &at.entry.block, &mut DecodeScratch::default(), &mut raw)
            .and_then(|()| reader.verified(at.pack.id, BlobKind::Snapshot, id.blob(), &raw, offset, len));
        let record = match read {
            Ok(record) => ByteBuf::from(record.to_vec()),
            Err(error) if is_lost(&error) => {
                tell(monitor, at.pack.id, &error);
                return Ok(None);
            }
            Err(error) => return Err(RepairError::Read(error)),
        };
        match snapshot_record(repository.keys(), id, &record) {
            Ok(snapshot) => Ok(Some((record.into_vec(), snapshot))),
            Err(error) => {
                let (path, message) = (None, error.to_string());
                monitor.problem(&Problem { code: "snapshot-damaged", path, message, is_error: true });
                Ok(None)
            }
        }
    }

    fn follow(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
        options: &LostOptions,
        monitor: &dyn Monitor,
    ) -> Result<Followed, RepairError> {
        let mut walk = Walk { stock: self, repository, monitor, met: HashSet::new(), packs: BTreeSet::new() };
        let threads = budget::followers(options.threads, options.memory);
        match reach::follow(repository.reader(), [snapshot.tree], &mut walk, threads) {
            Ok(()) => Ok(Followed::Whole(walk.packs)),
            Err(ReachError::Cancelled) => Err(RepairError::Cancelled),
            Err(ReachError::Read(error)) if !is_lost(&error) => Err(RepairError::Read(error)),
            Err(error @ ReachError::Spill(_)) => Err(error.into()),
            Err(error) => Ok(Followed::Lacks(error.to_string())),
        }
    }

    /// Reads all of these packs that were not read yet. Those that are not what their directories say are none of the stock any more;
    /// whether there are none such.
    fn verify(
        &mut self,
        repository: &Repository,
        packs: &BTreeSet<PackId>,
        monitor: &dyn Monitor,
    ) -> Result<bool, RepairError> {
        let mut scratch = VerifyScratch::default();
        let mut all = true;
        for id in packs {
            if self.verified.contains(id) {
                continue;
            }
            let Some((entry, directory)) = self.unlisted.get(id) else { continue };
            match vet::verify_pack(repository, (entry, directory), &mut scratch) {
                Ok(()) => _ = self.verified.insert(*id),
                Err(error) if is_lost(&error) => {
                    tell(monitor, *id, &error);
                    self.unlisted.remove(id);
                    self.blobs.values_mut().for_each(|places| places.retain(|at| at.pack.id != *id));
                    all = false;
                }
                Err(error) => return Err(RepairError::Read(error)),
            }
        }
        Ok(all)
    }

    /// Lists the packs that are needed, and adds the snapshots.
    fn commit(
        &mut self,
        repository: &Repository,
        base: &Fold,
        last_loss: u64,
        needed: &BTreeSet<PackId>,
    ) -> Result<u64, RepairError> {
        // Their writer may have died before it did so.
        for id in needed {
            repository.backend().flush(&ObjectKey::pack(id))?;
        }
        let packs: Vec<_> = needed.iter().filter_map(|id| self.unlisted.remove(id)).collect();
        let segment = if packs.is_empty() { None } else { Some(repository.store_segment(&packs)?) };
        let rescued: Vec<PackId> =
            needed.iter().copied().filter(|id| base.condemned_since(id).is_some()).collect();
        let committed = repository.commit(&mut |fold| {
            // What was followed may be about to go, or gone.
            if repository.last_loss() != last_loss || !fold.condemned().eq(base.condemned()) {
                return Err(RepositoryError::Conflict);
            }
            let mut changes = Vec::new();
            if let Some(segment) = &segment {
                changes.push(Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() });
            }
            if !rescued.is_empty() {
                changes.push(Change::PacksRescued { packs: rescued.clone() });
            }
            let missing = self.found.iter().filter(|((_, id), _)| fold.snapshot(id).is_none());
            changes.extend(missing.map(|((_, id), record)| Change::SnapshotAdded {
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

fn tell(monitor: &dyn Monitor, pack: PackId, error: &ReadError) {
    let path = Some(ObjectKey::pack(&pack).as_str().into());
    monitor.problem(&Problem { code: "pack-damaged", path, message: error.to_string(), is_error: true });
}

/// Follows a snapshot through the index and what it does not list.
struct Walk<'a> {
    stock: &'a Stock,
    repository: &'a Repository,
    monitor: &'a dyn Monitor,
    /// Trees that were come to.
    met: HashSet<BlobId>,
    /// Packs that no segment lists, of those that are needed.
    packs: BTreeSet<PackId>,
}

impl Walk<'_> {
    /// A place of the blob in a pack that is there in its length.
    fn home(&mut self, id: &BlobId, kind: BlobKind) -> Result<Location, ReachError> {
        let is_kind =
            |at: &Location| (at.pack.header.kind == ObjectKind::DataPack) == (kind == BlobKind::Data);
        let is_there = |at: &Location| self.stock.stored.get(&at.pack.id) == Some(&at.pack.size);
        let listed = self.repository.index().get_all(id).map_err(ReadError::Index)?;
        if let Some(at) = listed.into_iter().find(|at| is_kind(at) && is_there(at)) {
            return Ok(at);
        }
        let unlisted = self.stock.blobs.get(id).into_iter().flatten();
        let at = unlisted.copied().find(|at| is_kind(at) && is_there(at));
        let at = at.ok_or(ReadError::Missing { id: *id, kind })?;
        self.packs.insert(at.pack.id);
        Ok(at)
    }
}

impl Needs for Walk<'_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        if !self.met.insert(*id) {
            return Ok(None);
        }
        self.home(id, BlobKind::Tree).map(Some)
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.home(&chunk.id, BlobKind::Data).map(|_| ())
    }

    fn is_cancelled(&self) -> bool {
        self.monitor.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Silent;
    use crate::prune::test_support::{Hooked, World, a_commit, at_once, later, open, prune};
    use crate::repair::test_support::{check_all, flip, packs_of, world};

    fn options() -> LostOptions {
        LostOptions { threads: 1, ..LostOptions::default() }
    }

    fn ids(repository: &Repository) -> Vec<SnapshotId> {
        repository.snapshots().expect("read").into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_snapshot_whose_commit_is_lost_comes_back_whole() {
        let world = world();
        let repository = world.open();
        let before = ids(&repository);
        let last = repository.fold().seq();
        drop(repository);
        world.storage.corrupt(&ObjectKey::log(last), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        let repository = world.open();
        assert_eq!(ids(&repository), before[..1], "it is gone");
        let dry = run(&repository, &LostOptions { dry_run: true, ..options() }, &Silent).expect("found");
        let found = |report: &LostReport| -> Vec<_> {
            report.snapshots.iter().map(|found| (found.id, found.lacks.clone())).collect()
        };
        assert_eq!((found(&dry), dry.commit), (vec![(before[1], None)], None));
        assert_eq!(ids(&repository), before[..1], "nothing was added");
        let report = run(&repository, &options(), &Silent).expect("added");
        assert_eq!(found(&report), [(before[1], None)]);
        assert!(report.packs >= 2, "content and trees: {report:?}");
        assert_eq!(ids(&world.open()), before);
        crate::repair::log::accept_loss(&world.open(), last).expect("the loss can be accepted as ever");
        let report = check_all(&world.open());
        assert!(!report.is_damaged(), "{report:?}");
        let again = run(&world.open(), &options(), &Silent).expect("looked");
        assert_eq!((again.snapshots.len(), again.commit), (0, None));
    }

    #[test]
    fn what_was_forgotten_stays_so_and_what_lacks_something_is_not_added() {
        let world = world();
        let repository = world.open();
        let before = ids(&repository);
        repository
            .commit(&mut |_| {
                let reason = "not wanted".to_owned();
                Ok(vec![Change::SnapshotForgotten { snapshot: before[0], reason }])
            })
            .expect("forgotten");
        let report = run(&repository, &options(), &Silent).expect("looked");
        assert_eq!((report.snapshots.len(), report.forgotten, report.commit), (0, 1, None));
        drop(repository);
        let last =
            1 + (0..).find(|seq| world.storage.stat(&ObjectKey::log(seq + 2)).is_err()).expect("an end");
        // The commit before the last one added the second snapshot: both are lost.
        for seq in [last - 1, last] {
            world.storage.corrupt(&ObjectKey::log(seq), |bytes| *bytes.last_mut().expect("bytes") ^= 1);
        }
        let listed: HashSet<PackId> = {
            let repository = world.open();
            let segments = repository.index().segments();
            segments
                .iter()
                .flat_map(|segment| segment.packs().map_while(Result::ok).map(|pack| pack.id))
                .collect()
        };
        let is_new = |key: &&ObjectKey| !listed.contains(&key.pack_id().expect("a pack"));
        let data = packs_of(&world.storage, true);
        flip(&world.storage, data.iter().find(is_new).expect("a pack of the second backup"));
        let repository = world.open();
        let report = run(&repository, &options(), &Silent).expect("looked");
        assert_eq!((report.incomplete(), report.commit), (1, None), "{report:?}");
        assert!(!ids(&repository).contains(&before[1]));
    }
    /// Two snapshots, of which the log does not name the second one any more: its commit is lost, which was accepted.
    fn with_a_loss() -> (World, Vec<SnapshotId>) {
        let world = world();
        let repository = world.open();
        let (before, last) = (ids(&repository), repository.fold().seq());
        drop(repository);
        world.storage.corrupt(&ObjectKey::log(last), |bytes| *bytes.last_mut().expect("bytes") ^= 1);
        crate::repair::log::accept_loss(&world.open(), last).expect("accepted");
        assert_eq!(ids(&world.open()), before[..1]);
        (world, before)
    }

    #[test]
    fn what_a_prune_has_condemned_is_rescued_whenever_it_did_so() {
        for meanwhile in [false, true] {
            let (world, before) = with_a_loss();
            let storage = world.storage.clone();
            let condemn = move || assert!(prune(&open(storage), &later()).packs_condemned > 0);
            let hooked = Hooked::new(&world.storage);
            if meanwhile {
                hooked.before_create(a_commit, condemn);
            } else {
                condemn();
            }
            let report = run(&open(hooked), &options(), &Silent).expect("added");
            assert!(report.commit.is_some() && report.incomplete() == 0, "{report:?}");
            let repository = world.open();
            assert_eq!(ids(&repository), before);
            assert_eq!(repository.fold().condemned().count(), 0, "a later prune would remove it");
            let report = check_all(&repository);
            assert!(!report.is_damaged(), "{report:?}");
        }
    }

    #[test]
    fn what_was_removed_is_gone_also_where_it_is_stored_still() {
        let (world, before) = with_a_loss();
        let stored = world.storage.objects();
        for _ in 0..2 {
            prune(&world.open(), &at_once());
        }
        let is_gone = |key: &ObjectKey| key.pack_id().is_some() && world.storage.stat(key).is_err();
        let gone: Vec<_> = stored.into_iter().filter(|(key, _)| is_gone(key)).collect();
        assert!(!gone.is_empty(), "strays are removed");
        gone.iter().for_each(|(key, bytes)| world.storage.plant(key, bytes));
        let report = run(&world.open(), &options(), &Silent).expect("looked");
        assert_eq!(report.commit, None, "{report:?}");
        assert_eq!(ids(&world.open()), before[..1]);
    }

    #[test]
    fn a_listed_pack_that_is_not_there_in_its_length_is_lacking() {
        let (world, _) = with_a_loss();
        let len = |key: &ObjectKey| world.storage.stat(key).expect("there").size;
        let largest = packs_of(&world.storage, true).into_iter().max_by_key(len).expect("packs");
        world.storage.corrupt(&largest, |bytes| bytes.truncate(bytes.len() / 2));
        let report = run(&world.open(), &options(), &Silent).expect("looked");
        assert_eq!((report.incomplete(), report.commit), (1, None), "{report:?}");
    }
}
