//! From the chunks of a window to what has to be read: places looked up, sorted in pack order, neighbouring blocks
//! joined. Knows no file system.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::parallel::in_parallel;
use super::tally::{self, explain};
use super::window::Wanted;
use crate::format::pack::BlockSpan;
use crate::format::segment::PackEntry;
use crate::ids::BlobId;
use crate::index::{Index, IndexError, Location};

/// Most bytes of sealed blocks that one read takes, unless a block alone has more.
const READ_LEN_MAX: u64 = 4 << 20;

/// Most bytes of blocks' plaintext that one read brings: work is handed to threads in reads.
const RAW_LEN_MAX: u64 = 8 << 20;

/// Bytes between two blocks that are rather read than jumped over.
const GAP_LEN_MAX: u64 = 64 << 10;

/// A chunk that is wanted, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    /// Index of the pack in [`ReadPlan::packs`].
    pack: u32,
    span: BlockSpan,
    /// Offset of the blob in the block's plaintext.
    pub(super) offset: u32,
    /// Index of the chunk in the window.
    pub(super) wanted: u32,
}

/// A block with what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) pack: u32,
    pub(super) span: BlockSpan,
    /// Its items, ascending by offset.
    pub(super) items: Range<usize>,
}

/// Neighbouring blocks of one pack that are read at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) blocks: Range<usize>,
    /// Offset of the first byte in the pack.
    pub(super) start: u64,
    /// Number of bytes.
    pub(super) len: usize,
}

/// Why a chunk has no item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unplaced {
    /// Index of the chunk in the window.
    pub(super) wanted: u32,
    pub(super) code: &'static str,
    pub(super) why: Arc<str>,
}

/// What to read, and for which chunks.
#[derive(Debug, Default)]
pub(super) struct ReadPlan {
    pub(super) packs: Vec<PackEntry>,
    pub(super) items: Vec<Item>,
    pub(super) blocks: Vec<Block>,
    pub(super) reads: Vec<Read>,
    pub(super) unplaced: Vec<Unplaced>,
}

/// Finds a blob of a length, or says where it is in another.
pub(super) type Lookup<'a> = &'a (dyn Fn(&BlobId, u32) -> Result<Option<Location>, IndexError> + Sync);

/// A place of the blob with that length; where there is none, any.
///
/// # Errors
/// [`IndexError`] where a page does not open.
pub(super) fn place(index: &Index, id: &BlobId, len: u32) -> Result<Option<Location>, IndexError> {
    match index.get(id)? {
        // Of several that appenders list, the first may be a lie.
        Some(first) if first.entry.len != len || !first.entry.block.is_sane() => {
            let fits = |at: &Location| at.entry.len == len && at.entry.block.is_sane();
            Ok(index.get_all(id)?.into_iter().find(fits).or(Some(first)))
        }
        found => Ok(found),
    }
}

/// Plans the reading of all `wanted` but those that `skip` names by index.
pub(super) fn plan(
    wanted: &[Wanted],
    skip: &dyn Fn(usize) -> bool,
    lookup: Lookup<'_>,
    threads: usize,
) -> ReadPlan {
    let mut order: Vec<(u64, u32)> = (0_u32..)
        .zip(wanted)
        .filter(|(index, _)| !skip(*index as usize))
        .map(|(index, chunk)| (crate::format::segment::prefix(&chunk.id), index))
        .collect();
    // In the order of ids, each page of the index is opened once.
    order.sort_unstable();
    let part_len = order.len().div_ceil(threads.max(1)).max(1);
    let mut parts: Vec<Part> = order.chunks(part_len).map(|_| Part::default()).collect();
    let count = parts.len();
    in_parallel(&mut parts, count, &|part, index| {
        part.locate(wanted, &order[index * part_len..order.len().min((index + 1) * part_len)], lookup);
    });
    let mut plan = ReadPlan::default();
    let mut packs = HashMap::new();
    for part in parts {
        plan.take(part, &mut packs);
    }
    plan.items.sort_unstable();
    plan.blocks = blocks(&plan.items);
    plan.reads = reads(&plan.blocks);
    plan
}

/// What one thread found.
#[derive(Default)]
struct Part {
    packs: Vec<PackEntry>,
    numbers: HashMap<PackEntry, u32>,
    items: Vec<Item>,
    unplaced: Vec<Unplaced>,
}

impl Part {
    fn locate(&mut self, wanted: &[Wanted], order: &[(u64, u32)], lookup: Lookup<'_>) {
        let mut last: Option<(BlobId, u32, Result<Location, Absence>)> = None;
        for (_, index) in order {
            let chunk = &wanted[*index as usize];
            let found = match &last {
                Some((id, len, found)) if (*id, *len) == (chunk.id, chunk.len) => found,
                _ => &last.insert((chunk.id, chunk.len, find(&chunk.id, chunk.len, lookup))).2,
            };
            match found {
                Err((code, why)) => {
                    self.unplaced.push(Unplaced { wanted: *index, code, why: Arc::clone(why) });
                }
                Ok(location) if location.entry.len != chunk.len => {
                    let found = location.entry.len;
                    let why =
                        format!("blob {} has {found} bytes, but the file's chunk {}", chunk.id, chunk.len);
                    self.unplaced.push(Unplaced { wanted: *index, code: tally::DAMAGED, why: why.into() });
                }
                Ok(location) => {
                    let next = self.packs.len();
                    let number = *self.numbers.entry(location.pack).or_insert_with(|| number_of(next));
                    if number as usize == next {
                        self.packs.push(location.pack);
                    }
                    let (span, offset) = (location.entry.block, location.entry.offset);
                    self.items.push(Item { pack: number, span, offset, wanted: *index });
                }
            }
        }
    }
}

fn number_of(pack: usize) -> u32 {
    u32::try_from(pack).expect("a window has at most 300,000 chunks")
}

/// Code and reason of a blob's absence.
type Absence = (&'static str, Arc<str>);

fn find(id: &BlobId, len: u32, lookup: Lookup<'_>) -> Result<Location, Absence> {
    match lookup(id, len) {
        Ok(Some(location)) if location.entry.block.is_sane() => Ok(location),
        Ok(Some(location)) => {
            let why = format!("the index has blob {id} in an impossible place: {:?}", location.entry.block);
            Err((tally::DAMAGED, why.into()))
        }
        Ok(None) => Err((tally::MISSING, format!("blob {id} is not in the repository").into())),
        Err(error) => Err((tally::code_of_index(&error), explain(&error).into())),
    }
}

impl ReadPlan {
    fn take(&mut self, part: Part, packs: &mut HashMap<PackEntry, u32>) {
        let numbers: Vec<u32> = part
            .packs
            .into_iter()
            .map(|pack| {
                let next = self.packs.len();
                let number = *packs.entry(pack).or_insert_with(|| number_of(next));
                if number as usize == next {
                    self.packs.push(pack);
                }
                number
            })
            .collect();
        self.items.extend(part.items.iter().map(|item| Item { pack: numbers[item.pack as usize], ..*item }));
        self.unplaced.extend(part.unplaced);
    }
}

fn blocks(items: &[Item]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        match blocks.last_mut() {
            Some(block) if block.pack == item.pack && block.span == item.span => block.items.end = at + 1,
            _ => blocks.push(Block { pack: item.pack, span: item.span, items: at..at + 1 }),
        }
    }
    blocks
}

fn reads(blocks: &[Block]) -> Vec<Read> {
    let mut reads: Vec<Read> = Vec::new();
    let mut raw_len = 0;
    for (at, block) in blocks.iter().enumerate() {
        let (position, end) = (u64::from(block.span.position), block.span.end());
        raw_len += u64::from(block.span.raw_len);
        if let Some(read) = reads.last_mut()
            && blocks[read.blocks.start].pack == block.pack
            && position <= read.start + read.len as u64 + GAP_LEN_MAX
            && end - read.start <= READ_LEN_MAX
            && raw_len <= RAW_LEN_MAX
        {
            read.blocks.end = at + 1;
            // Of blocks that overlap, as only an enemy's do, the first may reach farthest.
            read.len = read.len.max(usize::try_from(end - read.start).expect("at most 4 MiB"));
            continue;
        }
        raw_len = block.span.raw_len.into();
        reads.push(Read { blocks: at..at + 1, start: position, len: block.span.sealed_len as usize });
    }
    reads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::{Header, ObjectKind};
    use crate::format::segment::IndexEntry;
    use crate::ids::PackId;

    fn id(n: u8) -> BlobId {
        BlobId::from_bytes([n; 32])
    }

    fn pack(n: u8) -> PackEntry {
        let header = Header {
            kind: ObjectKind::DataPack,
            mode: 0,
            flags: 0,
            epoch: 0,
            salt: [0; 32],
            commitment: [0; 32],
        };
        PackEntry { id: PackId::from_bytes([n; 32]), header, size: 1 << 26, blobs: 1 }
    }

    fn at(blob: u8, in_pack: u8, position: u32, sealed_len: u32, offset: u32) -> Location {
        let block = BlockSpan { position, sealed_len, raw_len: sealed_len };
        let entry = IndexEntry { id: id(blob), pack: 0, block, offset, len: 10 };
        Location { pack: pack(in_pack), entry }
    }

    fn wanted(blobs: &[u8]) -> Vec<Wanted> {
        let chunk = |n: &u8| Wanted { id: id(*n), len: 10, job: 0, at: 0 };
        blobs.iter().map(chunk).collect()
    }

    fn planned(blobs: &[u8], places: &[Location], threads: usize) -> ReadPlan {
        let lookup = |id: &BlobId, _| Ok(places.iter().find(|place| place.entry.id == *id).copied());
        plan(&wanted(blobs), &|_| false, &lookup, threads)
    }

    #[test]
    fn chunks_come_in_pack_order_and_each_block_once() {
        let places = [
            at(1, 7, 1_000, 100, 50),
            at(2, 7, 1_000, 100, 0),
            at(3, 9, 500, 100, 0),
            at(4, 7, 1_100, 100, 0),
        ];
        for threads in [1, 2, 5] {
            let plan = planned(&[4, 3, 1, 2, 1], &places, threads);
            assert_eq!(
                (plan.packs.len(), plan.blocks.len(), plan.reads.len()),
                (2, 3, 2),
                "{threads} threads"
            );
            let of_first: Vec<_> = plan
                .blocks
                .iter()
                .find(|block| block.items.len() == 3)
                .map(|block| plan.items[block.items.clone()].iter().map(|item| item.wanted).collect())
                .unwrap();
            assert_eq!(of_first, [3, 2, 4], "by offset in the block, then by chunk");
            assert!(plan.unplaced.is_empty());
        }
    }

    #[test]
    fn neighbours_are_read_at_once_up_to_a_gap_and_a_length() {
        let gap = 64 << 10;
        let near = planned(&[1, 2], &[at(1, 7, 1_000, 100, 0), at(2, 7, 1_100 + gap, 100, 0)], 1);
        assert_eq!(near.reads, [Read { blocks: 0..2, start: 1_000, len: 200 + gap as usize }]);
        let far = planned(&[1, 2], &[at(1, 7, 1_000, 100, 0), at(2, 7, 1_101 + gap, 100, 0)], 1);
        assert_eq!(far.reads.len(), 2);
        let big = [at(1, 7, 1_000, 3 << 20, 0), at(2, 7, 1_000 + (3 << 20), 2 << 20, 0)];
        assert_eq!(planned(&[1, 2], &big, 1).reads.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let odd = Location { entry: IndexEntry { len: 11, ..at(2, 7, 1_000, 100, 0).entry }, pack: pack(7) };
        let plan = planned(&[1, 2, 3], &[odd, at(3, 7, 0, 100, 0)], 1);
        let codes: Vec<_> = plan.unplaced.iter().map(|unplaced| (unplaced.wanted, unplaced.code)).collect();
        assert_eq!(codes, [(0, tally::MISSING), (1, tally::DAMAGED), (2, tally::DAMAGED)]);
        assert!(plan.unplaced[1].why.contains("11 bytes"), "{:?}", plan.unplaced);
    }

    #[test]
    fn overlapping_blocks_stay_within_the_read() {
        let plan = planned(&[1, 2], &[at(1, 7, 1_000, 5_000, 0), at(2, 7, 1_500, 100, 0)], 1);
        assert_eq!(plan.reads, [Read { blocks: 0..2, start: 1_000, len: 5_000 }]);
    }
}
