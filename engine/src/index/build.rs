//! New segments: of freshly written packs, and of old segments merged. They are stored as they are made.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::backend::{Backend, BackendError, ObjectKey, Staged};
use crate::format::header::Sealer;
use crate::format::pack::Directory;
use crate::format::segment::{IndexEntry, Layout, PackEntry, SegmentBuilder};
use crate::ids::{PackId, SegmentId};
use crate::index::segment::UNORDERED;
use crate::index::{IndexError, Segment, SegmentError};

/// Bytes that are handed over to the storage at a time.
const WRITE_LEN: usize = 256 << 10;

/// A segment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A segment that was to be merged cannot be read or is damaged.
    #[error(transparent)]
    Source(#[from] IndexError),
    /// The new one cannot be stored.
    #[error("cannot store an index segment: {0}")]
    Store(#[from] BackendError),
}

/// A segment in the making. Memory does not grow with it, but for eight bytes for every 1872 entries.
pub struct SegmentWriter<'b> {
    builder: SegmentBuilder,
    staged: Box<dyn Staged + 'b>,
    hasher: blake3::Hasher,
}

impl std::fmt::Debug for SegmentWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentWriter({:?})", self.builder)
    }
}

impl<'b> SegmentWriter<'b> {
    /// Begins a segment.
    ///
    /// # Errors
    /// [`BackendError`] where the storage fails.
    pub fn new(backend: &'b dyn Backend, sealer: &Sealer<'_>) -> Result<Self, BackendError> {
        let (builder, staged) = (SegmentBuilder::new(sealer), backend.begin()?);
        Ok(Self { builder, staged, hasher: blake3::Hasher::new() })
    }

    /// Adds an entry, as [`SegmentBuilder::push`].
    ///
    /// # Errors
    /// [`BackendError`] where the storage fails.
    pub fn push(&mut self, entry: &IndexEntry) -> Result<(), BackendError> {
        self.builder.push(entry);
        self.write_long()
    }

    /// Adds a pack, as [`SegmentBuilder::push_pack`].
    ///
    /// # Errors
    /// [`BackendError`] where the storage fails.
    pub fn push_pack(&mut self, pack: &PackEntry) -> Result<(), BackendError> {
        self.builder.push_pack(pack);
        self.write_long()
    }

    fn write_long(&mut self) -> Result<(), BackendError> {
        let output = self.builder.output();
        if output.len() < WRITE_LEN {
            return Ok(());
        }
        self.hasher.update(output);
        let result = self.staged.write(output);
        output.clear();
        result
    }

    /// Ends the segment and stores it under its id, which is returned with the layout.
    ///
    /// # Errors
    /// [`BackendError`] where the storage fails. If it was stored all the same, it is an orphan: no commit names it.
    pub fn finish(self) -> Result<(SegmentId, Layout), BackendError> {
        let Self { builder, mut staged, mut hasher } = self;
        let (output, layout) = builder.end();
        staged.write(&output)?;
        let id = SegmentId::from_bytes(hasher.update(&output).finalize().into());
        // Its salt is random: if it is there already, these are its bytes.
        staged.publish(&ObjectKey::segment(&id))?;
        Ok((id, layout))
    }
}

/// Builds and stores the segment of packs just written.
///
/// # Errors
/// [`BackendError`] where the storage fails.
pub fn build(
    packs: &[(PackEntry, Directory)],
    backend: &dyn Backend,
    sealer: &Sealer<'_>,
) -> Result<(SegmentId, Layout), BackendError> {
    let mut entries = Vec::with_capacity(packs.iter().map(|(_, directory)| directory.blob_count()).sum());
    for (number, (_, directory)) in (0u32..).zip(packs) {
        entries.extend(directory_entries(number, directory));
    }
    entries.sort_unstable();
    let mut writer = SegmentWriter::new(backend, sealer)?;
    for entry in &entries {
        writer.push(entry)?;
    }
    for (pack, _) in packs {
        writer.push_pack(pack)?;
    }
    writer.finish()
}

/// The entries of a pack, in the order of its directory, for a segment in which it has number `pack`.
pub fn directory_entries(pack: u32, directory: &Directory) -> impl Iterator<Item = IndexEntry> + '_ {
    directory.blocks.iter().flat_map(move |block| {
        block.blobs.iter().map(move |blob| IndexEntry {
            id: blob.id,
            pack,
            block: block.span,
            offset: blob.offset,
            len: blob.len,
        })
    })
}

/// Merges segments into one that lists all their packs and entries, and stores it.
///
/// # Errors
/// [`MergeError`] where a page of a segment does not open, or its entries are out of order or name packs that it does
/// not list: they would name another segment's. Or where the storage fails. Nothing is stored then.
pub fn merge(
    segments: &[Arc<Segment>],
    backend: &dyn Backend,
    sealer: &Sealer<'_>,
) -> Result<(SegmentId, Layout), MergeError> {
    let mut writer = SegmentWriter::new(backend, sealer)?;
    let mut stored = Ok(());
    merge_entries(segments, &mut |entry| {
        stored = writer.push(entry);
        if stored.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    stored?;
    for segment in segments {
        for pack in segment.packs() {
            writer.push_pack(&pack?)?;
        }
    }
    Ok(writer.finish()?)
}

/// Merges segments into one that lists only the packs that `keep` chooses and all that any of the segments lists of them,
/// each once, and stores it. None where no pack is left.
///
/// # Errors
/// As [`merge`].
pub fn merge_filtered(
    segments: &[Arc<Segment>],
    keep: &dyn Fn(&PackId) -> bool,
    backend: &dyn Backend,
    sealer: &Sealer<'_>,
) -> Result<Option<(SegmentId, Layout)>, MergeError> {
    let chosen = Chosen::of(segments, keep)?;
    if chosen.table.is_empty() {
        return Ok(None);
    }
    let mut writer = SegmentWriter::new(backend, sealer)?;
    let mut stored = Ok(());
    chosen.entries(segments, &mut |entry| {
        stored = writer.push(entry);
        if stored.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    stored?;
    for pack in &chosen.table {
        writer.push_pack(pack)?;
    }
    Ok(Some(writer.finish()?))
}

/// The counts of the segment that [`merge_filtered`] would store.
///
/// # Errors
/// [`IndexError`] where it would find a segment damaged.
pub fn filtered_layout(
    segments: &[Arc<Segment>],
    keep: &dyn Fn(&PackId) -> bool,
) -> Result<Option<Layout>, IndexError> {
    let chosen = Chosen::of(segments, keep)?;
    if chosen.table.is_empty() {
        return Ok(None);
    }
    let mut entries = 0;
    chosen.entries(segments, &mut |_| {
        entries += 1;
        ControlFlow::Continue(())
    })?;
    let packs = u32::try_from(chosen.table.len()).expect("fewer than 2^32 packs");
    Ok(Some(Layout { entries, packs }))
}

/// Packs that are chosen from several segments.
struct Chosen {
    /// Each once, by its number in the new segment.
    table: Vec<PackEntry>,
    /// For packs numbered on from segment to segment, the number in the table of each that is chosen.
    numbers: Vec<Option<u32>>,
}

impl Chosen {
    fn of(segments: &[Arc<Segment>], keep: &dyn Fn(&PackId) -> bool) -> Result<Self, IndexError> {
        let (mut table, mut numbers) = (Vec::new(), Vec::new());
        let mut known = HashMap::new();
        for segment in segments {
            for pack in segment.packs() {
                let pack = pack?;
                numbers.push(keep(&pack.id).then(|| {
                    *known.entry(pack).or_insert_with(|| {
                        table.push(pack);
                        u32::try_from(table.len() - 1).expect("fewer than 2^32 packs")
                    })
                }));
            }
        }
        Ok(Self { table, numbers })
    }

    /// Calls `visit` with all entries of these packs in ascending order, each once, until it breaks.
    fn entries(
        &self,
        segments: &[Arc<Segment>],
        visit: &mut dyn FnMut(&IndexEntry) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        // Of one blob. A pack that two segments list has most entries in both, but neither has to have all.
        let mut same: BTreeSet<IndexEntry> = BTreeSet::new();
        let mut flow = ControlFlow::Continue(());
        merge_entries(segments, &mut |entry| {
            let Some(Some(pack)) = self.numbers.get(entry.pack as usize) else {
                return ControlFlow::Continue(());
            };
            if same.first().is_some_and(|other| other.id != entry.id) {
                flow = same.iter().try_for_each(&mut *visit);
                same.clear();
            }
            same.insert(IndexEntry { pack: *pack, ..*entry });
            flow
        })?;
        if flow.is_continue() {
            let _end = same.iter().try_for_each(visit);
        }
        Ok(())
    }
}

/// Calls `visit` with all entries of several segments in ascending order, until it breaks. Packs are numbered on from
/// one segment to the next.
///
/// # Errors
/// [`IndexError`] where a page of a segment does not open, or its entries are out of order or name packs that it does
/// not list.
pub fn merge_entries(
    segments: &[Arc<Segment>],
    visit: &mut dyn FnMut(&IndexEntry) -> ControlFlow<()>,
) -> Result<(), IndexError> {
    let mut sources = Vec::with_capacity(segments.len());
    let mut first_pack = 0u32;
    for segment in segments {
        sources.push(Source { segment, entries: segment.entries(), first_pack, last: None });
        // Packs have 120 bytes each in a segment, so that no storage holds as many.
        first_pack = first_pack.checked_add(segment.layout().packs).expect("fewer than 2^32 packs");
    }
    let mut heap = BinaryHeap::with_capacity(sources.len());
    for (number, source) in sources.iter_mut().enumerate() {
        heap.extend(source.next()?.map(|entry| Reverse((entry, number))));
    }
    while let Some(mut top) = heap.peek_mut() {
        let Reverse((entry, number)) = *top;
        if visit(&entry).is_break() {
            break;
        }
        // In place: the next entry sinks to where it belongs.
        match sources[number].next()? {
            Some(entry) => *top = Reverse((entry, number)),
            None => drop(PeekMut::pop(top)),
        }
    }
    Ok(())
}

/// The entries of one segment, checked, with packs numbered for the merged one.
struct Source<'s, I> {
    segment: &'s Segment,
    entries: I,
    first_pack: u32,
    last: Option<crate::ids::BlobId>,
}

impl<I: Iterator<Item = Result<IndexEntry, IndexError>>> Source<'_, I> {
    fn next(&mut self) -> Result<Option<IndexEntry>, IndexError> {
        let Some(mut entry) = self.entries.next().transpose()? else { return Ok(None) };
        let wrong = |what| Err(self.segment.damaged(SegmentError::Structure(what)));
        if self.last.replace(entry.id).is_some_and(|last| last > entry.id) {
            return wrong(UNORDERED);
        }
        if entry.pack >= self.segment.layout().packs {
            return wrong("an entry names a pack that the segment does not list");
        }
        entry.pack += self.first_pack;
        Ok(Some(entry))
    }
}
