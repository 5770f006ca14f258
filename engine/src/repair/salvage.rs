//! What damaged packs still give: every block is read on its own, every blob verified by its id, and what is good is
//! written to new packs.

use std::collections::{BTreeMap, HashSet};

use crate::backend::ObjectKey;
use crate::backup::Session;
use crate::crypto::TAG_LEN;
use crate::crypto::keys::BlobKind;
use crate::format::header::ObjectKind;
use crate::format::pack::{BlockSpan, Directory};
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId};
use crate::index::{IndexError, Segment};
use crate::monitor::Monitor;
use crate::repair::damage::{Damage, Suspect, forgive};
use crate::repair::packs::Writers;
use crate::repair::{RepairError, is_lost};
use crate::repo::Repository;
use crate::store::{self, BlobReader, DecodeScratch, ReadError, read_directory};

/// Blobs that are gathered from the index at a time: some 60 bytes each.
const BLOBS_PER_PASS: u64 = 256 << 10;

/// A blob that a pack should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Expected {
    block: BlockSpan,
    offset: u32,
    len: u32,
    id: BlobId,
}

/// What was had of one pack.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Nothing is wrong with it: what cast doubt on it has passed.
    pub is_sound: bool,
    /// Blobs that it should hold.
    pub blobs: u64,
    /// Blobs that it does not give.
    pub unreadable: u64,
    /// Blobs that were written anew: not those that another pack gives as well.
    pub written: u64,
}

/// Salvages `suspects` and notes in `damage` what they do not give.
pub(super) fn run(
    repository: &Repository,
    session: &Session<'_>,
    writers: &mut Writers,
    suspects: &[Suspect],
    damage: &mut Damage,
    monitor: &dyn Monitor,
) -> Result<BTreeMap<PackId, Counts>, RepairError> {
    let mut all = BTreeMap::new();
    let mut rest = suspects;
    while !rest.is_empty() {
        let mut blobs = 0;
        let fits = |suspect: &&Suspect| {
            blobs += u64::from(suspect.entry.blobs);
            blobs <= BLOBS_PER_PASS
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (pass, after) = rest.split_at(count);
        rest = after;
        let mut listed = gather(repository, pass)?;
        for suspect in pass {
            if monitor.is_cancelled() {
                return Err(RepairError::Cancelled);
            }
            let expected = listed.remove(&suspect.entry.id).unwrap_or_default();
            let mut salvager = Salvager {
                repository,
                session,
                writers: &mut *writers,
                damage: &mut *damage,
                scratch: DecodeScratch::default(),
                raw: Vec::new(),
                is_writing: false,
                counts: Counts::default(),
            };
            let pack = suspect.entry.id;
            let is_intact = store::is_intact(&**repository.backend(), &suspect.entry, &mut Vec::new())
                .map_err(|source| RepairError::Read(ReadError::Backend { pack, source }))?;
            if is_intact {
                salvager.pack(&suspect.entry, expected.clone(), true)?;
                salvager.counts.is_sound = salvager.counts.unreadable == 0;
            }
            if !salvager.counts.is_sound {
                (salvager.is_writing, salvager.counts) = (true, Counts::default());
                salvager.pack(&suspect.entry, expected, false)?;
            }
            all.insert(suspect.entry.id, salvager.counts);
        }
    }
    Ok(all)
}

/// What segments list of some packs, in pack order.
fn gather(
    repository: &Repository,
    suspects: &[Suspect],
) -> Result<BTreeMap<PackId, Vec<Expected>>, RepairError> {
    let mut packs: BTreeMap<PackId, Vec<Expected>> =
        suspects.iter().map(|suspect| (suspect.entry.id, Vec::new())).collect();
    let (index, mut known) = (repository.index(), HashSet::new());
    for segment in index.segments().iter() {
        known.extend(list(segment, &mut packs, &|_| true)?);
    }
    // Of packs that others list, appenders have nothing to say.
    for segment in index.appended().iter() {
        forgive(list(segment, &mut packs, &|pack| !known.contains(pack)))?;
    }
    for expected in packs.values_mut() {
        expected.sort_unstable();
        expected.dedup();
    }
    Ok(packs)
}

/// Adds what a segment lists of those of the packs that `is_wanted` chooses, and returns which it has.
fn list(
    segment: &Segment,
    packs: &mut BTreeMap<PackId, Vec<Expected>>,
    is_wanted: &dyn Fn(&PackId) -> bool,
) -> Result<HashSet<PackId>, IndexError> {
    let mut table = Vec::new();
    for pack in segment.packs() {
        let id = pack?.id;
        table.push((packs.contains_key(&id) && is_wanted(&id)).then_some(id));
    }
    let listed: HashSet<PackId> = table.iter().flatten().copied().collect();
    if listed.is_empty() {
        return Ok(listed);
    }
    for entry in segment.entries() {
        let entry = entry?;
        let Some(Some(pack)) = table.get(entry.pack as usize) else { continue };
        let Some(expected) = packs.get_mut(pack) else { continue };
        expected.push(Expected { block: entry.block, offset: entry.offset, len: entry.len, id: entry.id });
    }
    Ok(listed)
}

fn of_directory(directory: &Directory) -> impl Iterator<Item = Expected> + '_ {
    directory.blocks.iter().flat_map(|block| {
        let of = |blob: &crate::format::pack::DirectoryBlob| Expected {
            block: block.span,
            offset: blob.offset,
            len: blob.len,
            id: blob.id,
        };
        block.blobs.iter().map(of)
    })
}

/// The kinds of blobs that a pack can hold: segments do not tell trees from records.
pub(super) fn kinds(kind: ObjectKind) -> &'static [BlobKind] {
    if kind == ObjectKind::DataPack { &[BlobKind::Data] } else { &[BlobKind::Tree, BlobKind::Snapshot] }
}

struct Salvager<'a, 'r> {
    repository: &'r Repository,
    session: &'a Session<'r>,
    writers: &'a mut Writers,
    damage: &'a mut Damage,
    scratch: DecodeScratch,
    raw: Vec<u8>,
    /// What is good is written anew; otherwise it is only counted.
    is_writing: bool,
    counts: Counts,
}

impl Salvager<'_, '_> {
    fn pack(
        &mut self,
        entry: &PackEntry,
        mut expected: Vec<Expected>,
        is_intact: bool,
    ) -> Result<(), RepairError> {
        let directory = self.directory(entry);
        if is_intact && directory.is_some() {
            // It has the last word on itself: what an appender lists beyond that says nothing against it.
            expected.clear();
        }
        // Segments and directories say the same where both can be read; what only one of them knows counts, too.
        expected.extend(directory.iter().flat_map(of_directory));
        expected.sort_unstable();
        expected.dedup();
        self.counts.blobs = expected.len() as u64;
        for block in expected.chunk_by(|a, b| a.block == b.block) {
            self.block(entry, block)?;
        }
        Ok(())
    }

    fn directory(&self, entry: &PackEntry) -> Option<Directory> {
        let (backend, repository) = (&**self.repository.backend(), self.repository);
        let size = backend.stat(&ObjectKey::pack(&entry.id)).ok()?.size;
        let pack = (entry.id, size);
        let read = read_directory(backend, repository.keys(), &repository.id(), pack, &mut Vec::new());
        // A directory of another pack, put in its place, says nothing of this one.
        read.ok().filter(|(found, _)| found.header == entry.header).map(|(_, directory)| directory)
    }

    fn block(&mut self, entry: &PackEntry, blobs: &[Expected]) -> Result<(), RepairError> {
        let span = blobs[0].block;
        let reader: &BlobReader = self.repository.reader();
        let is_read = match reader.read_block(entry, &span, &mut self.scratch, &mut self.raw) {
            Ok(()) => true,
            Err(error) if is_lost(&error) => false,
            Err(error) => return Err(RepairError::Read(error)),
        };
        let compress = (span.sealed_len as usize) < span.raw_len as usize + TAG_LEN;
        let raw = std::mem::take(&mut self.raw);
        for blob in blobs {
            let verified = |kind: &BlobKind| {
                let bytes = reader.verified(entry.id, *kind, &blob.id, &raw, blob.offset, blob.len).ok()?;
                Some((*kind, bytes))
            };
            let found = kinds(entry.header.kind).iter().find_map(verified).filter(|_| is_read);
            let Some((kind, bytes)) = found else {
                self.counts.unreadable += 1;
                self.damage.bad.insert((entry.id, blob.id));
                continue;
            };
            if self.is_writing && !self.is_elsewhere(kind, &blob.id)? && self.session.claim_anyway(&blob.id) {
                self.writers.put(kind, blob.id, bytes, compress)?;
                self.counts.written += 1;
            }
        }
        self.raw = raw;
        Ok(())
    }

    /// Whether a pack that nothing is wrong with gives the blob as well.
    fn is_elsewhere(&self, kind: BlobKind, id: &BlobId) -> Result<bool, RepairError> {
        let reader = self.repository.reader();
        let (mut scratch, mut raw) = (DecodeScratch::default(), Vec::new());
        for at in reader.index().get_all(id)? {
            let is_in_doubt = self.damage.suspects.contains_key(&at.pack.id);
            if is_in_doubt || !self.damage.is_home(&at) {
                continue;
            }
            let read = reader.read_block(&at.pack, &at.entry.block, &mut scratch, &mut raw).and_then(|()| {
                reader.verified(at.pack.id, kind, id, &raw, at.entry.offset, at.entry.len).map(|_| ())
            });
            match read {
                Ok(()) => return Ok(true),
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(RepairError::Read(error)),
            }
        }
        Ok(false)
    }
}
