//! Writing anew what is needed of packs that are mostly dead.
//!
//! A block of which everything is needed is taken over as it is: opened and sealed again under the new pack's key, not
//! decompressed. Of other blocks the needed blobs are verified by their ids and put into new blocks. What was written is
//! named by no commit until [`super::condemn`] publishes one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::budget::Pipeline;
use crate::crypto::TAG_LEN;
use crate::crypto::keys::BlobKind;
use crate::format::header::ObjectKind;
use crate::format::pack::{BlockSpan, DirectoryBlob};
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId};
use crate::monitor::{Monitor, Progress};
use crate::prune::plan::Plan;
use crate::prune::survey::Survey;
use crate::prune::{PruneError, PruneOptions, PruneReport};
use crate::repo::{NewSegment, Repository};
use crate::store::{BlobReader, BlobWriter, DecodeScratch, PackStore, ReadError, StoreOptions};

/// Blobs of packs that are written anew between two passes over the index: they take some 60 bytes each.
const BLOBS_PER_PASS: u64 = 256 << 10;

/// What was written, and of which packs.
#[derive(Default)]
pub(super) struct Copies {
    /// Packs whose needed blobs are all in the new segments.
    pub done: BTreeSet<PackId>,
    /// Segments of the new packs.
    pub segments: Vec<NewSegment>,
    /// The new packs, also where it failed: if no commit comes to name them, they are nobody's.
    pub written: BTreeSet<PackId>,
}

/// A blob of a pack that is written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OldBlob {
    block: BlockSpan,
    offset: u32,
    len: u32,
    id: BlobId,
    needed: bool,
}

/// A pack to be written anew, with all its blobs.
struct OldPack {
    entry: PackEntry,
    blobs: Vec<OldBlob>,
}

impl Copies {
    /// Writes what the plan says.
    pub fn write(
        &mut self,
        repository: &Repository,
        survey: &Survey,
        plan: &Plan,
        options: &PruneOptions,
        monitor: &dyn Monitor,
        report: &mut PruneReport,
    ) -> Result<(), PruneError> {
        report.bytes_rewritten = 0;
        let chosen: BTreeSet<PackId> = plan.repack.iter().map(|(pack, _)| *pack).collect();
        let mut rest: Vec<usize> =
            (0..survey.packs.len()).filter(|at| chosen.contains(&survey.packs[*at].entry.id)).collect();
        let done = AtomicU64::new(0);
        let total = plan.repack.iter().map(|(_, bytes)| bytes).sum();
        while !rest.is_empty() {
            let mut blobs = 0;
            let fits = |at: &&usize| {
                blobs += u64::from(survey.packs[**at].entry.blobs);
                blobs <= BLOBS_PER_PASS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let pass: Vec<usize> = rest.drain(..count).collect();
            let packs = gather(survey, &pass)?;
            let tell = |bytes: u64| {
                let bytes = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                monitor.progress(&Progress { bytes, bytes_total: Some(total), ..Progress::default() });
            };
            self.pass(repository, &packs, options, monitor, &tell, report)?;
        }
        Ok(())
    }

    fn pass(
        &mut self,
        repository: &Repository,
        packs: &[OldPack],
        options: &PruneOptions,
        monitor: &dyn Monitor,
        tell: &(dyn Fn(u64) + Sync),
        report: &mut PruneReport,
    ) -> Result<(), PruneError> {
        let store_options = StoreOptions::new(options.level, options.threads, options.memory);
        let data = repository.pack_store(ObjectKind::DataPack, &store_options);
        let trees = repository.pack_store(ObjectKind::MetadataPack, &store_options);
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), PruneError> {
            let mut copier = Copier {
                reader: repository.reader(),
                data: data.writer(),
                trees: trees.writer(),
                scratch: DecodeScratch::default(),
                buffer: Vec::new(),
            };
            while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if monitor.is_cancelled() {
                    return Err(PruneError::Cancelled);
                }
                copier.pack(pack)?;
                tell(pack.entry.size);
            }
            copier.data.flush()?;
            copier.trees.flush()?;
            Ok(())
        };
        let copied = std::thread::scope(|scope| {
            let workers = Pipeline::new(options.threads, options.memory).workers;
            let others: Vec<_> = (1..workers.min(packs.len())).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                match other.join() {
                    Ok(other) => result = result.and(other),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        });
        let mut written = Vec::new();
        let finished = copied.and_then(|()| {
            for store in [&data, &trees] {
                written.append(&mut store.finish()?);
            }
            Ok(())
        });
        self.written.extend(written.iter().map(|(entry, _)| entry.id));
        self.written.extend([data, trees].into_iter().flat_map(PackStore::abandon));
        finished?;
        report.bytes_rewritten += written.iter().map(|(entry, _)| entry.size).sum::<u64>();
        if !written.is_empty() {
            self.segments.push(repository.store_segment(&written)?);
        }
        self.done.extend(packs.iter().map(|pack| pack.entry.id));
        Ok(())
    }
}

/// All blobs of some packs, in pack order, by one pass over the segments that list them.
fn gather(survey: &Survey, pass: &[usize]) -> Result<Vec<OldPack>, PruneError> {
    let mut packs: Vec<OldPack> =
        pass.iter().map(|at| OldPack { entry: survey.packs[*at].entry, blobs: Vec::new() }).collect();
    let places: BTreeMap<usize, usize> = pass.iter().enumerate().map(|(place, at)| (*at, place)).collect();
    // A block that is needed in whole is not decoded, so nothing is taken from segments that nobody vetted.
    for (number, segment) in survey.marks.segments().iter().enumerate().take(survey.known_segments) {
        let table: Vec<Option<usize>> =
            survey.tables[number].iter().map(|at| places.get(at).copied()).collect();
        if table.iter().all(Option::is_none) {
            continue;
        }
        for (position, entry) in segment.entries().enumerate() {
            let entry = entry?;
            let Some(Some(place)) = table.get(entry.pack as usize) else { continue };
            packs[*place].blobs.push(OldBlob {
                block: entry.block,
                offset: entry.offset,
                len: entry.len,
                id: entry.id,
                needed: survey.marks.is_needed(number, position),
            });
        }
    }
    for pack in &mut packs {
        // Needed ones last among equals: a pack that two segments list has each blob twice.
        pack.blobs.sort_unstable();
        pack.blobs.dedup_by(|later, first| {
            let is_same = (later.block, later.offset, later.id) == (first.block, first.offset, first.id);
            first.needed |= is_same && later.needed;
            is_same
        });
    }
    Ok(packs)
}

/// What a thread that copies keeps.
struct Copier<'r> {
    reader: &'r BlobReader,
    data: BlobWriter,
    trees: BlobWriter,
    scratch: DecodeScratch,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    fn pack(&mut self, pack: &OldPack) -> Result<(), PruneError> {
        for block in pack.blobs.chunk_by(|a, b| a.block == b.block) {
            if block.iter().any(|blob| blob.needed) {
                self.block(&pack.entry, block)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, pack: &PackEntry, blobs: &[OldBlob]) -> Result<(), PruneError> {
        let span = blobs[0].block;
        let is_data = pack.header.kind == ObjectKind::DataPack;
        // The index does not say which metadata blob is a tree and which a snapshot: those are looked at.
        if is_data
            && blobs.iter().all(|blob| blob.needed)
            && fill(blobs)
            && self.reader.read_payload(pack, &span, &mut self.scratch, &mut self.buffer).is_ok()
        {
            let blob = |old: &OldBlob| DirectoryBlob {
                id: old.id,
                kind: BlobKind::Data,
                offset: old.offset,
                len: old.len,
            };
            let blobs = blobs.iter().map(blob).collect();
            return Ok(self.data.put_block(&mut self.buffer, span.raw_len, blobs)?);
        }
        let block = self.reader.read_block(pack, &span, &mut self.scratch, &mut self.buffer);
        let compress = (span.sealed_len as usize) < span.raw_len as usize + TAG_LEN;
        let kinds = if is_data { &[BlobKind::Data][..] } else { &[BlobKind::Tree, BlobKind::Snapshot] };
        let writer = if is_data { &mut self.data } else { &mut self.trees };
        for old in blobs.iter().filter(|blob| blob.needed) {
            let raw = if block.is_ok() { self.buffer.as_slice() } else { &[] };
            let verified = |kind: &BlobKind| {
                let bytes = self.reader.verified(pack.id, *kind, &old.id, raw, old.offset, old.len).ok()?;
                Some((*kind, bytes))
            };
            if let Some((kind, bytes)) = kinds.iter().find_map(verified) {
                writer.put(kind, old.id, bytes, compress)?;
                continue;
            }
            // Another pack may have it. If not, the pack is to stay as it is, and everything else, too.
            let (kind, bytes) = elsewhere(self.reader, kinds, &old.id)?;
            writer.put(kind, old.id, &bytes, compress)?;
        }
        Ok(())
    }
}

/// A blob from any place that gives it.
fn elsewhere(reader: &BlobReader, kinds: &[BlobKind], id: &BlobId) -> Result<(BlobKind, Vec<u8>), ReadError> {
    let mut result = Err(ReadError::Missing { id: *id, kind: kinds[0] });
    for kind in kinds.iter().rev() {
        result = reader.read(*kind, id).map(|bytes| (*kind, bytes));
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Whether blobs fill their block from the first byte to the last.
fn fill(blobs: &[OldBlob]) -> bool {
    let mut end = 0u64;
    let follows = |blob: &OldBlob| {
        let starts = u64::from(blob.offset) == end;
        end += u64::from(blob.len);
        starts
    };
    blobs.iter().all(follows) && end == u64::from(blobs[0].block.raw_len)
}
