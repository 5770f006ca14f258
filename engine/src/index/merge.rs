//! New segments: of freshly written packs, and of old segments merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::format::header::Sealer;
use crate::format::pack::Directory;
use crate::format::segment::{IndexEntry, PackEntry, SegmentBuilder, SegmentError};
use crate::ids::SegmentId;
use crate::index::Segment;

/// A segment that was to be merged is damaged.
#[derive(Debug, thiserror::Error)]
#[error("index segment {segment} is damaged: {source}")]
pub struct MergeError {
    /// The segment.
    pub segment: SegmentId,
    /// How.
    pub source: SegmentError,
}

/// Builds the segment object of packs just written.
pub fn build(packs: &[(PackEntry, Directory)], sealer: &Sealer<'_>) -> Vec<u8> {
    let mut entries = Vec::with_capacity(packs.iter().map(|(_, directory)| directory.blob_count()).sum());
    for (number, (_, directory)) in (0u32..).zip(packs) {
        for block in &directory.blocks {
            entries.extend(block.blobs.iter().map(|blob| IndexEntry {
                id: blob.id,
                pack: number,
                block: block.span,
                offset: blob.offset,
                len: blob.len,
            }));
        }
    }
    entries.sort_unstable();
    let mut builder = SegmentBuilder::new(sealer);
    entries.iter().for_each(|entry| builder.push(entry));
    let table: Vec<PackEntry> = packs.iter().map(|(entry, _)| *entry).collect();
    builder.finish(&table).0
}

/// Merges segments into one object that lists all their packs and entries.
///
/// # Errors
/// [`MergeError`] where a page of a segment does not open, or its entries are out of order or name packs that it does
/// not list: they would name another segment's.
pub fn merge(segments: &[Arc<Segment>], sealer: &Sealer<'_>) -> Result<Vec<u8>, MergeError> {
    let failed = |segment: &Segment| {
        let segment = segment.id();
        move |source| MergeError { segment, source }
    };
    let mut table = Vec::new();
    let mut first_pack = Vec::new();
    for segment in segments {
        first_pack.push(u32::try_from(table.len()).expect("fewer than 2^32 packs"));
        for pack in segment.packs() {
            table.push(pack.map_err(failed(segment))?);
        }
    }
    let mut sources: Vec<_> = segments.iter().map(|segment| segment.entries()).collect();
    let mut heap = BinaryHeap::with_capacity(sources.len());
    let mut builder = SegmentBuilder::new(sealer);
    let mut last = vec![None; segments.len()];
    let mut advance = |source: usize, heap: &mut BinaryHeap<_>| -> Result<(), MergeError> {
        if let Some(entry) = sources[source].next() {
            let mut entry = entry.map_err(failed(&segments[source]))?;
            let wrong = |what| failed(&segments[source])(SegmentError::Structure(what));
            if last[source].replace(entry.id).is_some_and(|last| last > entry.id) {
                return Err(wrong("its entries are not in order"));
            }
            if entry.pack >= segments[source].layout().packs {
                return Err(wrong("an entry names a pack that the segment does not list"));
            }
            entry.pack += first_pack[source];
            heap.push(Reverse((entry, source)));
        }
        Ok(())
    };
    for source in 0..segments.len() {
        advance(source, &mut heap)?;
    }
    while let Some(Reverse((entry, source))) = heap.pop() {
        builder.push(&entry);
        advance(source, &mut heap)?;
    }
    Ok(builder.finish(&table).0)
}
