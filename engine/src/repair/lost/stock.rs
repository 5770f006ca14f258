//! What is stored, as far as the index does not say it: packs that no segment lists, and records of snapshots.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

use serde_bytes::ByteBuf;

use crate::backend::{Folder, ObjectKey};
use crate::budget;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::Chunk;
use crate::format::header::ObjectKind;
use crate::format::pack::Directory;
use crate::format::segment::PackEntry;
use crate::format::snapshot::Snapshot;
use crate::ids::{BlobId, PackId, SnapshotId};
use crate::index::{self, Location};
use crate::log::{Fold, snapshot_record};
use crate::monitor::{Monitor, Problem, Progress};
use crate::reach::{self, Needs, ReachError};
use crate::repair::lost::LostOptions;
use crate::repair::lost::told::Told;
use crate::repair::{RepairError, is_lost};
use crate::repo::Repository;
use crate::store::{DecodeScratch, ReadError, read_directory};
use crate::vet::{self, VerifyScratch};

/// What is stored.
#[derive(Default)]
pub(super) struct Stock {
    /// All packs and their lengths.
    stored: HashMap<PackId, u64>,
    /// Packs that no live segment lists, or only one that an appender added.
    pub unlisted: HashMap<PackId, (PackEntry, Directory)>,
    /// Blobs in them: those of condemned packs last.
    blobs: HashMap<BlobId, Vec<Location>>,
    verified: HashSet<PackId>,
    /// Where records of snapshots lie, in all packs of metadata.
    pub records: BTreeMap<BlobId, Vec<Location>>,
}

/// Where a snapshot leads.
pub(super) enum Followed {
    /// To something that is not there.
    Lacks(String),
    /// To what is there, of which this much lies in packs that no segment lists.
    Whole(BTreeSet<PackId>),
}

impl Stock {
    /// Reads the directories of all packs of metadata, and of all packs that no segment lists.
    pub fn gather(
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
                self.records.entry(blob.id).or_default().push(at);
            }
            if !is_listed {
                self.blobs.entry(blob.id).or_default().push(at);
            }
        }
        if !is_listed {
            self.unlisted.insert(pack.id, (pack, directory));
        }
    }

    /// A snapshot's record, verified by its id, from the first of its places that gives it; none if no one does, which is told.
    pub fn record(
        &self,
        repository: &Repository,
        id: SnapshotId,
        places: &[Location],
        monitor: &dyn Monitor,
    ) -> Result<Option<(Vec<u8>, Snapshot)>, RepairError> {
        for at in places {
            let record = match read(repository, at, BlobKind::Snapshot, id.blob()) {
                Ok(record) => ByteBuf::from(record),
                Err(error) if is_lost(&error) => {
                    tell(monitor, at.pack.id, &error);
                    continue;
                }
                Err(error) => return Err(RepairError::Read(error)),
            };
            return Ok(match snapshot_record(repository.keys(), id, &record) {
                Ok(snapshot) => Some((record.into_vec(), snapshot)),
                Err(error) => {
                    let (path, message) = (None, error.to_string());
                    monitor.problem(&Problem { code: "snapshot-damaged", path, message, is_error: true });
                    None
                }
            });
        }
        Ok(None)
    }

    /// A place of a blob that `is_good` chooses, in a pack that is there in its length: one that the index has by somebody who
    /// answers for it, else one in a pack that no segment lists.
    pub fn home(
        &self,
        repository: &Repository,
        id: &BlobId,
        kind: BlobKind,
        is_good: &dyn Fn(&Location) -> bool,
    ) -> Result<Option<Location>, ReadError> {
        let is_fit = |at: &Location| {
            (at.pack.header.kind == ObjectKind::DataPack) == (kind == BlobKind::Data)
                && self.stored.get(&at.pack.id) == Some(&at.pack.size)
                && is_good(at)
        };
        let listed = repository.index().known_where(id, &is_fit)?;
        Ok(listed.or_else(|| self.blobs.get(id).into_iter().flatten().copied().find(is_fit)))
    }

    pub fn follow(
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
    pub fn verify(
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
}

/// Reads a blob from one place, verified by its id.
fn read(repository: &Repository, at: &Location, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>, ReadError> {
    let (reader, mut raw) = (repository.reader(), Vec::new());
    reader.read_block(&at.pack, &at.entry.block, &mut DecodeScratch::default(), &mut raw)?;
    Ok(reader.verified(at.pack.id, kind, id, &raw, at.entry.offset, at.entry.len)?.to_vec())
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
    fn home(
        &mut self,
        id: &BlobId,
        kind: BlobKind,
        is_good: &dyn Fn(&Location) -> bool,
    ) -> Result<Location, ReadError> {
        let at = self.stock.home(self.repository, id, kind, is_good)?;
        let at = at.ok_or(ReadError::Missing { id: *id, kind })?;
        self.packs.extend(self.stock.unlisted.contains_key(&at.pack.id).then_some(at.pack.id));
        Ok(at)
    }
}

impl Needs for Walk<'_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        if !self.met.insert(*id) {
            return Ok(None);
        }
        Ok(self.home(id, BlobKind::Tree, &|_| true).map(Some)?)
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        Ok(self.home(&chunk.id, BlobKind::Data, &|at| at.entry.len == chunk.len).map(drop)?)
    }

    /// Where one pack does not give a tree another one may.
    fn unreadable(&mut self, id: &BlobId, error: ReachError) -> Result<Option<Vec<u8>>, ReachError> {
        if !matches!(&error, ReachError::Read(error) if is_lost(error)) {
            return Err(error);
        }
        let mut tried = HashSet::new();
        loop {
            let at = match self.home(id, BlobKind::Tree, &|at| !tried.contains(&at.pack.id)) {
                Err(ReadError::Missing { .. }) => return Err(error),
                at => at?,
            };
            match read(self.repository, &at, BlobKind::Tree, id) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) if is_lost(&error) => _ = tried.insert(at.pack.id),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.monitor.is_cancelled()
    }
}
