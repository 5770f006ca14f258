//! Lost blobs from elsewhere: from packs of this repository that no segment lists, and from another repository. Nothing is
//! believed: every blob is verified by its id under this repository's keys.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use crate::backend::{Backend, Folder, ObjectKey};
use crate::crypto::keys::BlobKind;
use crate::format::pack::{self, BlockSpan, PACK_LEN_MAX};
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId};
use crate::index::Location;
use crate::monitor::{Monitor, Problem};
use crate::repair::RepairError;
use crate::repair::damage::forgive;
use crate::repair::salvage::kinds;
use crate::repo::Repository;
use crate::store::{DecodeScratch, read_directory};

/// Lost blobs, and what each of them is.
pub(super) type Wanted = HashMap<BlobId, BlobKind>;

/// Takes a verified blob.
pub(super) type Put<'p> = dyn FnMut(BlobKind, BlobId, &[u8]) -> Result<(), RepairError> + 'p;

/// Where blobs are looked for.
pub(super) struct Finder<'a> {
    repository: &'a Repository,
    other: Option<&'a Repository>,
    monitor: &'a dyn Monitor,
    /// Packs that no segment lists, with their lengths; none before they were asked for.
    unlisted: Option<Vec<(PackId, u64)>>,
    /// Places of trees in them.
    trees: HashMap<BlobId, (PackEntry, BlockSpan, u32, u32)>,
    scratch: DecodeScratch,
    raw: Vec<u8>,
    /// Blobs that unlisted packs gave.
    pub from_unlisted: u64,
    /// Blobs that the other repository gave.
    pub from_other: u64,
}

impl<'a> Finder<'a> {
    pub fn new(repository: &'a Repository, other: Option<&'a Repository>, monitor: &'a dyn Monitor) -> Self {
        Self {
            repository,
            other,
            monitor,
            unlisted: None,
            trees: HashMap::new(),
            scratch: DecodeScratch::default(),
            raw: Vec::new(),
            from_unlisted: 0,
            from_other: 0,
        }
    }

    /// A tree or chunk list, from wherever it can be had.
    pub fn tree(&mut self, id: &BlobId) -> Result<Option<Vec<u8>>, RepairError> {
        self.list_unlisted()?;
        if let Some((entry, span, offset, len)) = self.trees.get(id).copied() {
            let reader = self.repository.reader();
            let read = reader.read_block(&entry, &span, &mut self.scratch, &mut self.raw).and_then(|()| {
                reader.verified(entry.id, BlobKind::Tree, id, &self.raw, offset, len).map(<[u8]>::to_vec)
            });
            if let Ok(bytes) = read {
                self.from_unlisted += 1;
                return Ok(Some(bytes));
            }
        }
        let bytes = self.other.and_then(|other| other.reader().read(BlobKind::Tree, id).ok());
        let bytes = bytes.filter(|bytes| self.repository.keys().blob_id(BlobKind::Tree, bytes) == *id);
        self.from_other += u64::from(bytes.is_some());
        Ok(bytes)
    }

    /// Looks for all wanted blobs, hands those found to `put` and takes them off the list.
    pub fn find(&mut self, wanted: &mut Wanted, put: &mut Put<'_>) -> Result<(), RepairError> {
        if wanted.is_empty() {
            return Ok(());
        }
        self.list_unlisted()?;
        let before = wanted.len();
        self.find_unlisted(wanted, put)?;
        self.from_unlisted += (before - wanted.len()) as u64;
        let before = wanted.len();
        if let Some(other) = self.other {
            self.find_in(other, wanted, put)?;
        }
        self.from_other += (before - wanted.len()) as u64;
        Ok(())
    }

    /// Lists packs that no segment lists, and the trees in them.
    fn list_unlisted(&mut self) -> Result<(), RepairError> {
        if self.unlisted.is_some() {
            return Ok(());
        }
        let mut listed = BTreeSet::new();
        let index = self.repository.index();
        for segment in index.segments().iter() {
            for pack in segment.packs() {
                listed.insert(pack?.id);
            }
        }
        for segment in index.appended().iter() {
            for pack in segment.packs() {
                let Some(pack) = forgive(pack)? else { break };
                listed.insert(pack.id);
            }
        }
        let mut unlisted = Vec::new();
        self.repository.backend().list(Folder::Packs, None, &mut |info| {
            let id = info.key.pack_id().filter(|id| info.key.is_well_formed() && !listed.contains(id));
            unlisted.extend(id.map(|id| (id, info.size)));
            ControlFlow::Continue(())
        })?;
        let mut buffer = Vec::new();
        for pack in &unlisted {
            let Some((entry, directory)) = self.directory(*pack, &mut buffer) else { continue };
            for block in &directory.blocks {
                for blob in block.blobs.iter().filter(|blob| blob.kind == BlobKind::Tree) {
                    self.trees.insert(blob.id, (entry, block.span, blob.offset, blob.len));
                }
            }
        }
        self.unlisted = Some(unlisted);
        Ok(())
    }

    /// The directory of a pack, if it can be read: what nothing relies on may be damaged.
    fn directory(&self, pack: (PackId, u64), buffer: &mut Vec<u8>) -> Option<(PackEntry, pack::Directory)> {
        let (repository, backend) = (self.repository, &**self.repository.backend());
        read_directory(backend, repository.keys(), &repository.id(), pack, buffer).ok()
    }

    fn find_unlisted(&mut self, wanted: &mut Wanted, put: &mut Put<'_>) -> Result<(), RepairError> {
        let mut buffer = Vec::new();
        for at in 0..self.unlisted.as_ref().map_or(0, Vec::len) {
            let Some(pack) = self.unlisted.as_ref().and_then(|packs| packs.get(at).copied()) else { break };
            if wanted.is_empty() || self.monitor.is_cancelled() {
                break;
            }
            let Some((entry, directory)) = self.directory(pack, &mut buffer) else { continue };
            for block in &directory.blocks {
                let places: Vec<_> = block
                    .blobs
                    .iter()
                    .filter(|blob| wanted.get(&blob.id) == Some(&blob.kind))
                    .map(|blob| (blob.id, blob.offset, blob.len))
                    .collect();
                self.take(self.repository, &entry, &block.span, &places, wanted, put)?;
            }
        }
        Ok(())
    }

    fn find_in(
        &mut self,
        other: &Repository,
        wanted: &mut Wanted,
        put: &mut Put<'_>,
    ) -> Result<(), RepairError> {
        let mut ids: Vec<BlobId> = wanted.keys().copied().collect();
        ids.sort_unstable();
        let mut places: Vec<Location> = Vec::new();
        for id in &ids {
            match other.index().get_all(id) {
                Ok(found) => places.extend(found),
                Err(error) => self.problem(other, &error),
            }
        }
        places.sort_unstable_by_key(|at| (at.pack.id, at.entry.block, at.entry.offset));
        for block in places.chunk_by(|a, b| a.pack.id == b.pack.id && a.entry.block == b.entry.block) {
            if self.monitor.is_cancelled() {
                break;
            }
            let blobs: Vec<_> = block
                .iter()
                .filter(|at| wanted.contains_key(&at.entry.id))
                .map(|at| (at.entry.id, at.entry.offset, at.entry.len))
                .collect();
            self.take(other, &block[0].pack, &block[0].entry.block, &blobs, wanted, put)?;
        }
        Ok(())
    }

    /// Reads a block and takes what is wanted of it.
    fn take(
        &mut self,
        from: &Repository,
        pack: &PackEntry,
        span: &BlockSpan,
        blobs: &[(BlobId, u32, u32)],
        wanted: &mut Wanted,
        put: &mut Put<'_>,
    ) -> Result<(), RepairError> {
        if blobs.is_empty() {
            return Ok(());
        }
        if let Err(error) = from.reader().read_block(pack, span, &mut self.scratch, &mut self.raw) {
            self.problem(from, &error);
            return Ok(());
        }
        let reader = self.repository.reader();
        for (id, offset, len) in blobs {
            let Some(kind) = wanted.get(id).copied() else { continue };
            if !kinds(pack.header.kind).contains(&kind) {
                continue;
            }
            if let Ok(bytes) = reader.verified(pack.id, kind, id, &self.raw, *offset, *len) {
                put(kind, *id, bytes)?;
                wanted.remove(id);
            }
        }
        Ok(())
    }

    fn problem(&self, from: &Repository, error: &dyn std::fmt::Display) {
        self.monitor.problem(&Problem {
            code: "source-damaged",
            path: Some(from.location().into_bytes()),
            message: error.to_string(),
            is_error: false,
        });
    }

    /// The bytes of a whole pack of this repository, from a copy of it.
    pub fn whole_pack(&self, entry: &PackEntry) -> Option<Vec<u8>> {
        let other = self.other.filter(|other| other.id() == self.repository.id())?;
        let bytes = other.backend().read(&ObjectKey::pack(&entry.id), PACK_LEN_MAX).ok()?;
        (pack::id(&bytes) == entry.id).then_some(bytes)
    }
}
