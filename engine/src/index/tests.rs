//! Segments built, searched, merged and lied about.

use std::sync::Arc;

use super::test_support::{Fixture, entry, fixture, id, reseal};
use super::*;
use crate::backend::{MemoryBackend, MemoryReader, ObjectReader};
use crate::format::pack::BlockSpan;
use crate::format::segment::{PACK_ENTRIES, PAGE_LEN, SegmentBuilder};

/// An index of one segment.
fn index_of(segment: impl Into<Arc<Segment>>) -> Index {
    let index = Index::default();
    index.replace(vec![segment.into()], &[]);
    index
}

fn entries(range: std::ops::Range<u32>, packs: u32) -> Vec<IndexEntry> {
    let mut entries: Vec<_> = range.map(|n| entry(n, n % packs)).collect();
    entries.sort_unstable();
    entries
}

#[test]
fn every_entry_is_found_and_nothing_else() {
    let fixture = fixture();
    let packs = fixture.packs(40);
    // 26 leaves of 72 make a group.
    for count in [0, 1, 71, 72, 73, 1871, 1872, 1873, 3744, 5000, 80_000] {
        let segment = fixture.segment(&entries(0..count, 40), &packs);
        assert_eq!(segment.verify_with(&mut |_| ()).expect("as built"), segment.id());
        let index = index_of(segment);
        for n in (0..count).step_by(1 + count as usize / 997) {
            let location = index.get(&id(n)).expect("readable").expect("present");
            assert_eq!((location.entry.block.position, location.pack), (80 + n, packs[n as usize % 40]));
            assert!(index.contains(&id(n)).expect("readable"));
        }
        for n in 1_000_000..1_000_200 {
            assert!(!index.contains(&id(n)).expect("readable"));
            assert_eq!(index.get(&id(n)).expect("readable"), None);
        }
    }
}

#[test]
fn ids_at_the_ends_of_the_range_are_found() {
    let fixture = fixture();
    let mut all = entries(0..1000, 1);
    for id in [[0; 32], [255; 32]] {
        all.push(IndexEntry { id: BlobId::from_bytes(id), ..all[0] });
    }
    all.sort_unstable();
    let index = index_of(fixture.segment(&all, &fixture.packs(1)));
    assert!(all.iter().all(|entry| index.contains(&entry.id).expect("readable")));
    assert!(all.iter().all(|entry| index.get(&entry.id).expect("readable").is_some()));
}

#[test]
fn a_search_over_several_root_pages_finds_its_way() {
    let fixture = fixture();
    // 510 groups of 1872 entries make a root page. The first half of the ids is crowded into a sixteenth of the
    // range, so that guesses are wrong.
    let count: u64 = 1_100_000;
    let position = BlockSpan { position: 80, sealed_len: 50, raw_len: 100 };
    let nth = |n: u64| {
        let step = u64::MAX / count;
        let number = if n < count / 2 { n * step / 8 } else { n * step };
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id[8..10].copy_from_slice(&(n as u16).to_le_bytes());
        IndexEntry { id: BlobId::from_bytes(id), pack: 0, block: position, offset: 0, len: 9 }
    };
    let mut builder = SegmentBuilder::new(&fixture.sealer());
    (0..count).for_each(|n| builder.push(&nth(n)));
    let index = index_of(fixture.open(builder.finish(&fixture.packs(1)).0).expect("just built"));
    assert_eq!(index.segments()[0].layout().root_pages(), 2);
    let boundaries = (1..588).flat_map(|group| [group * 1872 - 1, group * 1872]);
    for n in (0..count).step_by(1009).chain([count - 1]).chain(boundaries) {
        let mut id = nth(n).id;
        assert!(index.contains(&id).expect("readable"), "{n}");
        assert!(index.get(&id).expect("readable").is_some(), "{n}");
        let mut bytes = *id.as_bytes();
        bytes[7] ^= 1;
        id = BlobId::from_bytes(bytes);
        assert!(!index.contains(&id).expect("readable"), "beside {n}");
    }
}

#[test]
fn a_blob_in_many_packs_has_many_places_even_across_pages() {
    let fixture = fixture();
    let mut all = entries(0..500, 3);
    let twin = all[250];
    all.extend(
        (1000..1199).map(|n| IndexEntry { block: BlockSpan { position: 80 + n, ..twin.block }, ..twin }),
    );
    all.sort_unstable();
    let index = index_of(fixture.segment(&all, &fixture.packs(3)));
    assert_eq!(index.get_all(&twin.id).expect("readable").len(), 200);
}

#[test]
fn a_blob_in_very_many_packs_runs_over_whole_groups() {
    let fixture = fixture();
    let (some, twin) = (entries(0..4000, 3), entries(0..4000, 3)[1871]);
    for more in [1, 72, 1872, 5000] {
        let mut all = some.clone();
        let twins = (10_000..10_000 + more)
            .map(|n| IndexEntry { block: BlockSpan { position: 80 + n, ..twin.block }, ..twin });
        all.extend(twins);
        all.sort_unstable();
        let segment = fixture.segment(&all, &fixture.packs(3));
        segment.verify().expect("as built");
        let index = index_of(segment);
        assert_eq!(index.get_all(&twin.id).expect("readable").len(), 1 + more as usize);
        assert!(some.iter().all(|entry| index.contains(&entry.id).expect("readable")));
        assert!(some.iter().all(|entry| index.get(&entry.id).expect("readable").is_some()));
    }
}

#[test]
fn merging_keeps_everything() {
    let fixture = fixture();
    let parts =
        [0..700, 700..701, 500..900].map(|range| fixture.segment(&entries(range, 4), &fixture.packs(4)));
    let merged = fixture.merge(&parts).expect("intact");
    assert_eq!(merged.verify_with(&mut |_| ()).expect("as built"), merged.id());
    assert_eq!((merged.layout().entries, merged.layout().packs), (700 + 1 + 400, 12));
    let index = index_of(merged);
    assert_eq!(index.get_all(&id(600)).expect("readable").len(), 2);
    assert_eq!(index.get_all(&id(100)).expect("readable").len(), 1);
}

#[test]
fn every_altered_byte_is_noticed_by_verification() {
    let fixture = fixture();
    let mut builder = SegmentBuilder::new(&fixture.sealer());
    entries(0..200, 2).iter().for_each(|entry| builder.push(entry));
    let (object, _) = builder.finish(&fixture.packs(2));
    for at in 0..object.len() {
        let mut altered = object.clone();
        altered[at] ^= 1;
        let verified = fixture.open(altered).and_then(|segment| segment.verify());
        assert!(verified.is_err(), "byte {at}");
    }
    for pages in 0..object.len() / 4096 {
        assert!(fixture.open(object[..pages * 4096].to_vec()).is_err(), "cut to {pages} pages");
    }
}

/// What is done to a page's plaintext.
type Lie<'a> = &'a dyn Fn(&mut [u8]);

/// A segment whose page `page` was opened, changed and sealed anew by a holder of the keys.
fn lying(fixture: &Fixture, entries: &[IndexEntry], page: u64, change: impl Fn(&mut [u8])) -> Segment {
    let mut builder = SegmentBuilder::new(&fixture.sealer());
    entries.iter().for_each(|entry| builder.push(entry));
    let mut object = builder.finish(&fixture.packs(1)).0;
    reseal(&mut object, page, (&fixture.keys, &fixture.repository), &change);
    fixture.open(object).expect("the summary is in order")
}

/// Entries that get lost to lookups that trust tags, and to those that do not.
fn lost(segment: Segment, entries: &[IndexEntry]) -> (usize, usize) {
    let index = index_of(segment);
    let count = |found: &dyn Fn(&BlobId) -> bool| entries.iter().filter(|entry| !found(&entry.id)).count();
    (
        count(&|id| index.contains(id).expect("readable")),
        count(&|id| index.get(id).expect("readable").is_some()),
    )
}

#[test]
fn tags_that_lie_cost_deduplication_and_nothing_else() {
    let fixture = fixture();
    let all = entries(0..1000, 1);
    // Pages 1 to 14 are leaves, 15 is their fan-out page: 26 numbers, then tags.
    let segment = lying(&fixture, &all, 15, |page| page[26 * 8..].fill(0));
    let error = segment.verify().expect_err("its tags are wrong").to_string();
    assert!(error.contains("a fan-out page is not that of its leaves"), "{error}");
    assert!(error.contains(&segment.id().to_string()), "{error}");
    let (by_tags, by_leaves) = lost(segment, &all);
    assert!(by_tags > 990, "{by_tags}");
    assert_eq!(by_leaves, 0, "whoever has to find a blob finds it");
    // Tags that promise too much are found out by the leaf.
    let absent = entries(5000..6000, 1);
    let tags: Vec<u8> =
        absent[..72].iter().flat_map(|entry| crate::format::segment::tag(&entry.id)).collect();
    let segment = lying(&fixture, &all, 15, |page| {
        page[26 * 8..].chunks_mut(144).take(14).for_each(|leaf| leaf.copy_from_slice(&tags));
    });
    assert!(segment.verify().is_err());
    assert_eq!(lost(segment, &absent), (1000, 1000));
}

#[test]
fn a_segment_that_lies_about_its_order_ends_lookups_and_fails_verification() {
    let fixture = fixture();
    let all = entries(0..4000, 1);
    let reversed = |page: &mut [u8]| {
        let entries: Vec<_> = page[..72 * 56].chunks(56).rev().map(<[u8]>::to_vec).collect();
        page[..72 * 56].copy_from_slice(&entries.concat());
    };
    let zero = |page: &mut [u8]| page.fill(0);
    let high = |page: &mut [u8]| page[..26 * 8].fill(0xff);
    let unused = |page: &mut [u8]| page[4079] = 1;
    // 1 is the first leaf, 27 its group's fan-out page; 56 leaves and 3 fan-out pages make 60 the root page.
    let lies: [(u64, &str, Lie<'_>); 9] = [
        (1, "a leaf in descending order", &reversed),
        (1, "an empty leaf", &zero),
        (1, "bytes after the entries", &unused),
        (27, "an empty fan-out page", &zero),
        (27, "a fan-out page of the highest numbers", &high),
        (27, "bytes after the tags", &unused),
        (60, "an empty root page", &zero),
        (60, "a root page of the highest numbers", &high),
        (60, "bytes after the numbers", &unused),
    ];
    for (page, what, lie) in lies {
        let segment = Arc::new(lying(&fixture, &all, page, lie));
        assert!(segment.verify().is_err(), "{what}");
        let index = index_of(Arc::clone(&segment));
        for entry in &all {
            // Found or not, or an error: never another blob, and never without end.
            for place in index.get_all(&entry.id).unwrap_or_default() {
                assert_eq!(place.entry.id, entry.id, "{what}");
            }
            let _ = index.contains(&entry.id);
        }
    }
    let descending = Arc::new(lying(&fixture, &all, 1, reversed));
    let error = fixture.merge(&[descending]).expect_err("not to be merged").to_string();
    assert!(error.contains("not in order"), "{error}");
}

#[test]
fn counts_that_lie_are_refused_before_anything_is_read() {
    let fixture = fixture();
    let all = entries(0..100, 1);
    let mut builder = SegmentBuilder::new(&fixture.sealer());
    all.iter().for_each(|entry| builder.push(entry));
    let (object, layout) = builder.finish(&fixture.packs(1));
    for (count, packs) in
        [(1, 1), (145, 1), (u64::MAX, 1), (u64::MAX / 72, 1), (100, 35), (100, u32::MAX), (0, 0)]
    {
        let mut lying = object.clone();
        reseal(&mut lying, layout.summary(), (&fixture.keys, &fixture.repository), &|page| {
            page[8..16].copy_from_slice(&count.to_le_bytes());
            page[16..20].copy_from_slice(&packs.to_le_bytes());
        });
        let error = fixture.open(lying).expect_err("it says it has others").to_string();
        assert!(error.contains("the summary"), "{error}");
    }
}

#[test]
fn packs_are_read_round_a_page_that_does_not_open() {
    let fixture = fixture();
    let packs = fixture.packs(100);
    let mut object = fixture.object(&entries(0..10, 1), &packs);
    let whole = fixture.open(object.clone()).expect("just built");
    let all: Vec<_> = (0..).zip(packs).collect();
    assert!(whole.readable_packs().eq(all.iter().copied()));
    // A row of the first of three pages is no pack, and the second page does not open.
    let first = whole.layout().first_pack();
    let keys = (&fixture.keys, &fixture.repository);
    reseal(&mut object, first, keys, &|page| page[5 * 120 + 116] = 1);
    let second = usize::try_from(first + 1).expect("few pages") * PAGE_LEN;
    object[second] ^= 1;
    let damaged = fixture.open(object).expect("its header and summary are whole");
    let is_readable = |number: usize| number != 5 && number / PACK_ENTRIES != 1;
    let left = all.iter().filter(|(number, _)| is_readable(*number as usize)).copied();
    assert!(damaged.readable_packs().eq(left));
}

/// A segment object on a disk with a bad sector.
#[derive(Debug)]
struct BadSector(MemoryReader<Vec<u8>>, std::ops::Range<u64>);

impl ObjectReader for BadSector {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        if offset < self.1.end && self.1.start < offset + buffer.len() as u64 {
            let (action, what) = ("read", "a bad sector".into());
            return Err(BackendError::Io { action, what, source: std::io::ErrorKind::Other.into() });
        }
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn one_bad_sector_hides_one_page() {
    let fixture = fixture();
    let (all, packs) = (entries(0..72 * 50, 1), fixture.packs(100));
    let object = fixture.object(&all, &packs);
    let id = crate::format::segment::id(&object);
    let layout = fixture.open(object.clone()).expect("just built").layout();
    let open = |page: u64| {
        let at = page * PAGE_LEN as u64 + 512;
        let object = MemoryReader::new(ObjectKey::segment(&id), object.clone());
        let object = Box::new(BadSector(object, at..at + 512));
        Segment::open(id, object, &fixture.keys, &fixture.repository)
            .expect("its header and summary are whole")
    };
    let read: Vec<_> = open(layout.leaf(20)).entries().collect();
    assert_eq!(read.len(), all.len());
    for (number, (read, entry)) in read.iter().zip(&all).enumerate() {
        match number / 72 {
            20 => assert!(read.is_err(), "{number}"),
            _ => assert_eq!(read.as_ref().ok(), Some(entry), "{number}"),
        }
    }
    let read: Vec<u32> = open(layout.first_pack() + 1).readable_packs().map(|(number, _)| number).collect();
    assert!(read.into_iter().eq((0..100).filter(|number| *number as usize / PACK_ENTRIES != 1)));
}

#[test]
fn what_is_kept_of_packs_takes_memory_for_those_that_were_looked_for() {
    let seen = segment::Seen::default();
    // Four GiB, if each had a place.
    let packs = u32::MAX;
    assert_eq!(seen.get(7), None);
    for pack in [0, 65_535, 65_536, packs - 1] {
        seen.set(pack, packs, 1);
        assert_eq!((seen.get(pack), seen.get(pack ^ 1)), (Some(1), Some(0).filter(|_| pack ^ 1 < packs)));
    }
    assert_eq!(seen.get(1 << 20), None, "nothing near it was looked for");
    seen.set(packs, packs, 1);
    assert_eq!(seen.get(packs), None, "there is no such pack");
    let few = segment::Seen::default();
    few.set(2, 3, 2);
    assert_eq!((few.get(2), few.get(3)), (Some(2), None));
}

#[test]
fn entries_of_packs_that_are_not_listed_are_errors() {
    let fixture = fixture();
    let all = entries(0..72 * 600, 1);
    let mut lying = all.clone();
    lying.iter_mut().skip(72).step_by(5).for_each(|entry| entry.pack = 9);
    let segment = fixture.segment(&lying, &fixture.packs(1));
    assert!(segment.verify().is_err(), "packs that are not listed");
    assert!(fixture.merge(&[Arc::clone(&segment)]).is_err(), "they would be another segment's");
    let index = index_of(segment);
    assert!(all.iter().step_by(37).any(|entry| index.get(&entry.id).is_err()), "lookups say so too");
}

#[test]
fn a_lookup_opens_few_pages_and_an_absent_blob_no_leaf() {
    let fixture = fixture();
    let backend = crate::backend::testing::RecordingBackend::new(MemoryBackend::new());
    let mut writer = SegmentWriter::new(&backend, &fixture.sealer()).expect("memory does not fail");
    let all = entries(0..50_000, 1);
    all.iter().for_each(|entry| writer.push(entry).expect("memory does not fail"));
    writer.push_pack(&fixture.packs(1)[0]).expect("memory does not fail");
    let (id, layout) = writer.finish().expect("memory does not fail");
    let recording = backend.recording();
    let calls = recording.take();
    assert_eq!(calls.len(), 1, "one object was created: {calls:?}");
    let segment = open_segment(&backend, id, &fixture.keys, &fixture.repository).expect("just stored");
    assert_eq!(recording.take().len(), 3, "opened, header and summary read");
    let index = index_of(segment);
    for entry in &all {
        assert!(index.contains(&entry.id).expect("readable"));
    }
    let inner = layout.root_pages() + layout.fanout_pages();
    let leaves = layout.leaf_pages();
    assert_eq!(recording.take().len() as u64, inner + leaves, "in order, each page is opened once");
    for n in 100_000..110_000 {
        assert!(!index.contains(&self::id(n)).expect("readable"));
    }
    let opened = recording.take().len();
    assert!(opened < 10_000 / 400, "one tag in 900 fits by chance, yet {opened} pages were opened");
}

#[test]
fn an_entry_that_points_nowhere_is_an_error_of_the_lookup() {
    let fixture = fixture();
    let good = entries(0..1, 1)[0];
    let span = |position, sealed_len, raw_len| IndexEntry {
        block: BlockSpan { position, sealed_len, raw_len },
        ..good
    };
    let bad = [
        IndexEntry { pack: 1, ..good },
        IndexEntry { offset: 94, ..good },
        IndexEntry { offset: u32::MAX, len: u32::MAX, ..good },
        span(79, 50, 100),
        span(80, 15, 100),
        span(80, 117, 100),
        span(80, 50, (16 << 20) + 1),
    ];
    for entry in bad {
        let segment = fixture.segment(&[entry], &fixture.packs(1));
        assert!(segment.verify().is_err(), "{entry:?}");
        let index = Index::default();
        index.replace(vec![segment], &[]);
        assert!(index.contains(&good.id).is_err(), "{entry:?}");
        assert!(index.get(&good.id).is_err(), "{entry:?}");
    }
    // A block beyond its pack's end takes the pack's row to tell.
    let segment = fixture.segment(&[span((1 << 20) - 49, 50, 100)], &fixture.packs(1));
    assert!(segment.verify().is_err());
    let index = Index::default();
    index.replace(vec![segment], &[]);
    assert!(index.get(&good.id).is_err());
}

#[test]
fn a_damaged_page_of_one_segment_hides_nothing_that_another_one_lists() {
    let fixture = fixture();
    let packs = fixture.packs(4);
    let large = fixture.segment(&entries(0..3000, 4), &packs);
    let mut builder = SegmentBuilder::new(&fixture.sealer());
    entries(2900..3010, 4).iter().for_each(|entry| builder.push(entry));
    let (object, layout) = builder.finish(&packs);
    // A leaf, the fan-out page, the root page and the page of packs.
    assert_eq!((layout.leaf_pages(), layout.first_root(), layout.first_pack()), (2, 4, 5));
    for page in [1, 3, 4, 5] {
        let mut damaged = object.clone();
        damaged[page * PAGE_LEN + 100] ^= 1;
        let small = Arc::new(fixture.open(damaged).expect("its header and summary are whole"));
        let index = index_of(Arc::clone(&small));
        index.replace(vec![Arc::clone(&large)], &[]);
        assert_eq!(index.segments()[0].id(), small.id(), "it is searched first");
        for n in 0..3000 {
            let position = 80 + n;
            let is_it = |found: Option<Location>| found.is_some_and(|at| at.entry.block.position == position);
            assert!(is_it(index.get(&id(n)).expect("found")), "page {page}");
            assert!(is_it(index.known(&id(n)).expect("found")));
            assert!(is_it(index.known_where(&id(n), &|at| at.pack == packs[n as usize % 4]).expect("found")));
            assert!(is_it(index.get_all(&id(n)).expect("found").first().copied()));
            assert!(index.contains(&id(n)).expect("found"));
            let (location, segment, _) = index.position(&id(n)).expect("found").expect("listed");
            assert_eq!((location.entry.block.position, segment <= 1), (position, true));
        }
        // What it alone has may be lost: that is not the same as not to be there.
        let unknown = (3000..3010).filter(|n| index.get(&id(*n)).is_err()).count();
        assert!(unknown > 0, "page {page}");
        assert!((3000..3010).all(|n| !matches!(index.get(&id(n)), Ok(None))));
    }
}
