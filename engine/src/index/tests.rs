//! Segments built, searched, merged and lied about.

use std::sync::Arc;

use super::*;
use crate::crypto::{RootSecret, SeededEntropy};
use crate::format::header::{Header, ObjectKind, Sealer};
use crate::format::pack::BlockSpan;
use crate::format::segment::SegmentBuilder;
use crate::ids::PackId;

struct Fixture {
    keys: KeySet,
    repository: RepositoryId,
    entropy: SeededEntropy,
}

fn fixture() -> Fixture {
    Fixture {
        keys: KeySet::derive(&RootSecret::from_bytes([7; 32])),
        repository: RepositoryId::from_bytes([9; 16]),
        entropy: SeededEntropy::new(1),
    }
}

impl Fixture {
    fn sealer(&self) -> Sealer<'_> {
        Sealer { keys: &self.keys, repository: &self.repository, entropy: &self.entropy }
    }

    fn packs(&self, count: u32) -> Vec<PackEntry> {
        (0..count)
            .map(|i| PackEntry {
                id: PackId::from_bytes([i as u8; 32]),
                header: Header::create(ObjectKind::DataPack, &self.sealer()).0,
                size: u64::from(i) + (1 << 20),
                blobs: i,
            })
            .collect()
    }

    fn segment(&self, entries: &[IndexEntry], packs: &[PackEntry]) -> Arc<Segment> {
        let mut builder = SegmentBuilder::new(&self.sealer());
        entries.iter().for_each(|entry| builder.push(entry));
        let (object, layout) = builder.finish(packs);
        assert_eq!(layout.object_len(), object.len() as u64);
        self.open(object).expect("just built").into()
    }

    fn open(&self, object: Vec<u8>) -> Result<Segment, SegmentError> {
        let id = crate::format::segment::id(&object);
        Segment::open(id, Box::new(object), &self.keys, &self.repository)
    }
}

fn id(n: u32) -> BlobId {
    BlobId::from_bytes(blake3::hash(&n.to_le_bytes()).into())
}

fn entries(range: std::ops::Range<u32>, packs: u32) -> Vec<IndexEntry> {
    let mut entries: Vec<_> = range
        .map(|n| IndexEntry {
            id: id(n),
            pack: n % packs,
            block: BlockSpan { position: 80 + n, sealed_len: 50, raw_len: 100 },
            offset: 3,
            len: 7,
        })
        .collect();
    entries.sort_unstable();
    entries
}

#[test]
fn every_entry_is_found_and_nothing_else() {
    let fixture = fixture();
    let packs = fixture.packs(40);
    for count in [0, 1, 71, 72, 73, 5000, 80_000] {
        let index = Index::default();
        let segment = fixture.segment(&entries(0..count, 40), &packs);
        segment.verify().expect("as built");
        index.replace(vec![segment], &[]);
        for n in (0..count).step_by(1 + count as usize / 997) {
            let location = index.get(&id(n)).expect("readable").expect("present");
            assert_eq!((location.entry.block.position, location.pack), (80 + n, packs[n as usize % 40]));
        }
        for n in 1_000_000..1_000_200 {
            assert!(!index.contains(&id(n)).expect("readable"));
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
    let index = Index::default();
    index.replace(vec![fixture.segment(&all, &fixture.packs(1))], &[]);
    assert!(all.iter().all(|entry| index.contains(&entry.id).expect("readable")));
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
    let index = Index::default();
    index.replace(vec![fixture.segment(&all, &fixture.packs(3))], &[]);
    assert_eq!(index.get_all(&twin.id).expect("readable").len(), 200);
}

#[test]
fn merging_keeps_everything() {
    let fixture = fixture();
    let parts =
        [0..700, 700..701, 500..900].map(|range| fixture.segment(&entries(range, 4), &fixture.packs(4)));
    let merged = fixture.open(merge(&parts, &fixture.sealer()).expect("intact")).expect("just built");
    merged.verify().expect("as built");
    assert_eq!((merged.layout().entries, merged.layout().packs), (700 + 1 + 400, 12));
    let index = Index::default();
    index.replace(vec![merged.into()], &[]);
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
        assert!(fixture.open(altered).and_then(|segment| segment.verify()).is_err(), "byte {at}");
    }
    for pages in 0..object.len() / 4096 {
        assert!(fixture.open(object[..pages * 4096].to_vec()).is_err(), "cut to {pages} pages");
    }
}

#[test]
fn a_segment_that_lies_about_its_order_ends_lookups_and_fails_verification() {
    let fixture = fixture();
    // Built by a holder of the keys who breaks the rules: ascending ids whose leaves are then exchanged.
    let all = entries(0..72 * 600, 1);
    let mut builder = SegmentBuilder::new(&fixture.sealer());
    let mut lying = all.clone();
    lying.iter_mut().skip(72).step_by(5).for_each(|entry| entry.pack = 9);
    lying.iter().for_each(|entry| builder.push(entry));
    let segment = fixture.open(builder.finish(&fixture.packs(1)).0).expect("opens");
    assert!(segment.verify().is_err(), "packs that are not listed");
    let index = Index::default();
    index.replace(vec![segment.into()], &[]);
    assert!(all.iter().step_by(37).any(|entry| index.get(&entry.id).is_err()), "lookups say so too");
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
