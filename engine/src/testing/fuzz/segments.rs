//! Index segments: sealed pages of any content, which lookups have to survive, and to search rightly where the
//! segment verifies.

use std::cell::RefCell;
use std::sync::Arc;

use super::input::Input;
use super::setup::{append, entropy, setup};
use crate::backend::{Backend, MemoryBackend, MemoryReader, ObjectKey};
use crate::crypto::{MessageContext, ObjectCipher, TAG_LEN};
use crate::format::header::{HEADER_LEN, Header, ObjectKind};
use crate::format::pack::BlockSpan;
use crate::format::segment::{
    FANOUT_LEAVES, Fanout, IndexEntry, LEAF_ENTRIES, Layout, PACK_ENTRIES, PAGE_LEN, PAGE_PLAIN_LEN,
    PackEntry, ROOT_ENTRIES, SegmentBuilder,
};
use crate::ids::{BlobId, PackId, SegmentId};
use crate::index::{Index, IndexError, MergeError, Segment, merge};

const ID: SegmentId = SegmentId::from_bytes([1; SegmentId::LEN]);

thread_local! {
    /// One index for all runs: its page cache is too large to be made anew for each.
    static INDEX: RefCell<Index> = RefCell::default();
}

fn open(object: Vec<u8>) -> Result<Arc<Segment>, IndexError> {
    let setup = setup();
    let object = MemoryReader::new(ObjectKey::segment(&ID), object);
    Segment::open(ID, Box::new(object), &setup.keys, &setup.repository).map(Arc::new)
}

fn merged(segments: &[Arc<Segment>]) -> Result<Arc<Segment>, MergeError> {
    let (backend, entropy) = (MemoryBackend::new(), entropy());
    let (id, _) = merge(segments, &backend, &setup().sealer(&entropy))?;
    let object = backend.read(&ObjectKey::segment(&id), u64::MAX).expect("just stored");
    Ok(open(object).expect("just merged"))
}

/// Segments of entries that the input describes: honest ones, which have to be searched rightly, and merged; and ones
/// that lie about their order, places, fan-out, packs or counts, which have to be survived.
pub fn segment(data: &[u8]) {
    if let Ok(segment) = open(data.to_vec()) {
        survives(&segment, &[]);
    }
    let mut input = Input::new(data);
    let lies = input.u8();
    let packs = packs(&mut input);
    let mut entries = entries(&mut input);
    if lies == 0 {
        entries.sort_unstable();
        honest(&mut entries, &packs);
        return;
    }
    let mut ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
    ids.dedup();
    if let Ok(segment) = open(written(&entries, &packs, lies, &mut input)) {
        survives(&segment, &ids);
    }
}

/// Segments whose pages are the input, sealed: root and fan-out pages above all, over leaves that are not there.
pub fn segment_pages(data: &[u8]) {
    let setup = setup();
    let mut input = Input::new(data);
    // Some groups, or so many that there are several root pages.
    let leaves = input.below(4 * FANOUT_LEAVES);
    let scale = if input.u8() % 4 == 3 { ROOT_ENTRIES / 2 } else { 1 };
    let leaves = (1 + leaves * scale) as u64;
    let layout = Layout {
        entries: leaves * LEAF_ENTRIES as u64 - input.below(LEAF_ENTRIES) as u64,
        packs: u32::from(input.u8()) % 70,
    };
    let ids: Vec<_> = (0..8).map(|_| BlobId::from_bytes([input.u8(); 32])).collect();
    let (header, cipher) = setup.begin(ObjectKind::Segment);
    let pages = usize::try_from(layout.object_len()).expect("some megabytes") / PAGE_LEN;
    let mut object = vec![0; pages * PAGE_LEN];
    object[..HEADER_LEN].copy_from_slice(&header);
    // Of leaves and fan-out pages, the first and the last are there, so that some lookups get that far.
    let groups = [0, layout.fanout_pages() - 1].map(|group| layout.fanout(group));
    let leaves = [0, layout.leaf_pages() - 1].map(|leaf| layout.leaf(leaf));
    let mut plain = input.rest().chunks(PAGE_PLAIN_LEN);
    for page in (layout.first_root()..layout.summary()).chain(groups).chain(leaves) {
        place(&mut object, &cipher, page, plain.next().unwrap_or_default());
    }
    place(&mut object, &cipher, layout.summary(), &summary(layout));
    let segment = open(object).expect("a segment with a proper summary");
    survives(&segment, &ids);
}

/// Seals `plain`, filled up with zeros, as page `page` of `object`.
fn place(object: &mut [u8], cipher: &ObjectCipher, page: u64, plain: &[u8]) {
    let position = page * PAGE_LEN as u64;
    let start = usize::try_from(position).expect("some megabytes");
    let (message, rest) = object[start..].split_at_mut(PAGE_PLAIN_LEN);
    message.fill(0);
    message[..plain.len()].copy_from_slice(plain);
    let context = MessageContext { position, raw_len: PAGE_PLAIN_LEN as u64 };
    rest[..TAG_LEN].copy_from_slice(&cipher.seal_detached(context, message));
}

fn summary(layout: Layout) -> [u8; PAGE_PLAIN_LEN] {
    let mut page = [0; PAGE_PLAIN_LEN];
    page[..8].copy_from_slice(b"SEGMENT1");
    page[8..16].copy_from_slice(&layout.entries.to_le_bytes());
    page[16..20].copy_from_slice(&layout.packs.to_le_bytes());
    page
}

fn packs(input: &mut Input<'_>) -> Vec<PackEntry> {
    let setup = setup();
    let entropy = entropy();
    (0..input.u8() % (2 * PACK_ENTRIES as u8 + 2))
        .map(|n| PackEntry {
            id: PackId::from_bytes([n; 32]),
            header: Header::create(ObjectKind::DataPack, &setup.sealer(&entropy)).0,
            size: 256 << 20,
            blobs: u32::from(n),
        })
        .collect()
}

/// Entries of ten bytes each. Ids differ in their first and last byte only, so that equal ones and equal prefixes are common.
fn entries(input: &mut Input<'_>) -> Vec<IndexEntry> {
    let mut entries = Vec::new();
    while !input.is_empty() && entries.len() < 4 * LEAF_ENTRIES {
        let mut id = [0; 32];
        [id[0], id[31]] = input.array();
        // Now and then a run of entries with one id, long enough to fill leaves.
        let (pack, run) = (u32::from(input.u8()), input.u8());
        let raw_len = u32::from(input.u16());
        let block =
            BlockSpan { position: HEADER_LEN as u32 + u32::from(input.u8()), sealed_len: raw_len, raw_len };
        let entry = IndexEntry {
            id: BlobId::from_bytes(id),
            pack,
            block,
            offset: u32::from(input.u8()),
            len: u32::from(input.u16()),
        };
        entries.extend((0..=run / 2).map(|_| entry));
    }
    entries
}

/// The engine's own builder makes a segment in which everything is found, alone and merged with itself.
fn honest(entries: &mut Vec<IndexEntry>, packs: &[PackEntry]) {
    let Some(pack_max) = u32::try_from(packs.len()).expect("few").checked_sub(1) else {
        return;
    };
    for entry in &mut *entries {
        entry.pack = entry.pack.min(pack_max);
        entry.block.raw_len = entry.block.raw_len.max(16);
        entry.block.sealed_len = entry.block.raw_len;
        entry.offset = entry.offset.min(entry.block.raw_len);
        entry.len = entry.len.min(entry.block.raw_len - entry.offset);
    }
    let setup = setup();
    let entropy = entropy();
    let mut builder = SegmentBuilder::new(&setup.sealer(&entropy));
    entries.iter().for_each(|entry| builder.push(entry));
    let segment = open(builder.finish(packs).0).expect("just built");
    segment.verify().expect("just built of good entries");
    assert!(segment.entries().map(|entry| entry.expect("just built")).eq(entries.iter().copied()));
    assert!(segment.packs().map(|pack| pack.expect("just built")).eq(packs.iter().copied()));
    finds_all(&segment);
    let merged = merged(&[Arc::clone(&segment), segment]).expect("good segments");
    merged.verify().expect("good segments make a good one");
    assert_eq!(merged.layout().entries, 2 * entries.len() as u64);
}

/// A segment as the specification has it, page by page, with one lie or several: bits of `lies`.
fn written(entries: &[IndexEntry], packs: &[PackEntry], lies: u8, input: &mut Input<'_>) -> Vec<u8> {
    let (mut object, cipher) = setup().begin(ObjectKind::Segment);
    object.resize(PAGE_LEN, 0);
    let mut close = |object: &mut Vec<u8>, mut page: Vec<u8>, is_lie: bool| {
        page.resize(PAGE_PLAIN_LEN, 0);
        if is_lie {
            for _ in 0..4 {
                page[input.below(PAGE_PLAIN_LEN)] = input.u8();
            }
        }
        append(object, &cipher, &page);
    };
    let mut roots = Vec::new();
    for group in entries.chunks(FANOUT_LEAVES * LEAF_ENTRIES) {
        let mut fanout = Fanout::default();
        for leaf in group.chunks(LEAF_ENTRIES) {
            let page = leaf.iter().flat_map(|entry| {
                fanout.push(&entry.id);
                let IndexEntry { id, pack, block: BlockSpan { position, sealed_len, raw_len }, offset, len } =
                    *entry;
                let numbers = [pack, position, sealed_len, raw_len, offset, len].map(u32::to_le_bytes);
                [id.as_bytes().as_slice(), numbers.as_flattened()].concat()
            });
            let page = page.collect();
            close(&mut object, page, lies & 2 != 0);
        }
        close(&mut object, fanout.page().to_vec(), lies & 4 != 0);
        roots.extend(fanout.clear().to_le_bytes());
    }
    if !roots.is_empty() {
        close(&mut object, roots, lies & 32 != 0);
    }
    for group in packs.chunks(PACK_ENTRIES) {
        let page = group.iter().flat_map(|pack| {
            let mut entry = pack.id.as_bytes().to_vec();
            entry.extend_from_slice(&pack.header.encode()[8..]);
            entry.extend_from_slice(&pack.size.to_le_bytes());
            entry.extend_from_slice(&u64::from(pack.blobs).to_le_bytes());
            entry
        });
        close(&mut object, page.collect(), lies & 8 != 0);
    }
    let layout = Layout { entries: entries.len() as u64, packs: u32::try_from(packs.len()).expect("few") };
    close(&mut object, summary(layout).to_vec(), lies & 16 != 0);
    object
}

/// Whatever the pages say, every way of reading the segment ends and none panics.
fn survives(segment: &Arc<Segment>, ids: &[BlobId]) {
    if segment.verify().is_ok() {
        finds_all(segment);
    }
    let _ = segment.packs().try_for_each(|pack| pack.map(|_| ()));
    let entries = segment.entries().take_while(Result::is_ok).count() as u64;
    assert!(entries <= segment.layout().entries);
    with_index(segment, |index| {
        for id in ids {
            let _ = index.get(id);
            let _ = index.get_all(id).map(|found| assert!(found.iter().all(|place| place.entry.id == *id)));
            let _ = index.contains(id);
        }
    });
    if let Ok(merged) = merged(std::slice::from_ref(segment)) {
        assert_eq!(merged.layout(), segment.layout());
        assert!(merged.entries().all(|entry| entry.expect("just merged").pack < merged.layout().packs));
    }
}

fn with_index(segment: &Arc<Segment>, read: impl FnOnce(&Index)) {
    INDEX.with_borrow(|index| {
        index.replace(vec![Arc::clone(segment)], &[ID]);
        read(index);
        index.replace(Vec::new(), &[ID]);
    });
}

/// Lookups in a segment that verifies find what a scan finds, and nothing else.
fn finds_all(segment: &Arc<Segment>) {
    let entries: Vec<_> = segment.entries().map(|entry| entry.expect("the segment verifies")).collect();
    with_index(segment, |index| {
        for same in entries.chunk_by(|a, b| a.id == b.id) {
            let found = index.get_all(&same[0].id).expect("the segment verifies");
            assert!(found.iter().map(|place| place.entry).eq(same.iter().copied()), "{}", same[0].id);
            assert!(index.contains(&same[0].id).expect("the segment verifies"));
            let mut other = *same[0].id.as_bytes();
            other[30] ^= 1;
            let other = BlobId::from_bytes(other);
            let is_there = entries.binary_search_by_key(&other, |entry| entry.id).is_ok();
            assert_eq!(index.contains(&other).expect("the segment verifies"), is_there);
        }
    });
}
