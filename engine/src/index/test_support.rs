//! Segments made of entries, without a repository.

use std::sync::Arc;

use super::*;
use crate::backend::{MemoryBackend, MemoryReader};
use crate::crypto::{MessageContext, RootSecret, SeededEntropy};
use crate::format::header::{Header, ObjectKind, Sealer};
use crate::format::pack::BlockSpan;
use crate::format::segment::{Layout, PAGE_LEN, PAGE_PLAIN_LEN, SegmentBuilder, open_page};
use crate::ids::PackId;

/// The secrets of a repository without objects.
pub struct Fixture {
    pub keys: KeySet,
    pub repository: RepositoryId,
    pub entropy: SeededEntropy,
}

pub fn fixture() -> Fixture {
    Fixture {
        keys: KeySet::derive(&RootSecret::from_bytes([7; 32])),
        repository: RepositoryId::from_bytes([9; 16]),
        entropy: SeededEntropy::new(1),
    }
}

impl Fixture {
    pub fn sealer(&self) -> Sealer<'_> {
        Sealer { keys: &self.keys, repository: &self.repository, entropy: &self.entropy }
    }

    pub fn packs(&self, count: u32) -> Vec<PackEntry> {
        (0..count)
            .map(|i| PackEntry {
                id: PackId::from_bytes([i as u8; 32]),
                header: Header::create(ObjectKind::DataPack, &self.sealer()).0,
                size: u64::from(i) + (1 << 20),
                blobs: i,
            })
            .collect()
    }

    pub fn object(&self, entries: &[IndexEntry], packs: &[PackEntry]) -> Vec<u8> {
        let mut builder = SegmentBuilder::new(&self.sealer());
        entries.iter().for_each(|entry| builder.push(entry));
        let (object, layout) = builder.finish(packs);
        assert_eq!(layout.object_len(), object.len() as u64);
        object
    }

    pub fn segment(&self, entries: &[IndexEntry], packs: &[PackEntry]) -> Arc<Segment> {
        self.open(self.object(entries, packs)).expect("just built").into()
    }

    pub fn open(&self, object: Vec<u8>) -> Result<Segment, IndexError> {
        let id = crate::format::segment::id(&object);
        let object = MemoryReader::new(ObjectKey::segment(&id), object);
        Segment::open(id, Box::new(object), &self.keys, &self.repository)
    }

    pub fn merge(&self, parts: &[Arc<Segment>]) -> Result<Segment, MergeError> {
        let backend = MemoryBackend::new();
        let (id, layout) = merge(parts, &backend, &self.sealer())?;
        let merged = open_segment(&backend, id, &self.keys, &self.repository)?;
        assert_eq!(merged.layout(), layout);
        Ok(merged)
    }
}

/// Opens page `page` of a segment object, changes it and seals it anew, as a holder of the keys can.
pub fn reseal(
    object: &mut [u8],
    page: u64,
    (keys, repository): (&KeySet, &RepositoryId),
    change: &dyn Fn(&mut [u8]),
) {
    let header = Header::decode(object, ObjectKind::Segment).expect("a segment");
    let cipher = header.cipher(keys, repository).expect("of this repository");
    let mut message =
        open_page(object, &cipher, page, &mut [0; PAGE_LEN]).expect("it is in order as yet").to_vec();
    change(&mut message);
    let position = page * PAGE_LEN as u64;
    cipher.seal(MessageContext { position, raw_len: PAGE_PLAIN_LEN as u64 }, &mut message);
    let at = usize::try_from(position).expect("it is in memory");
    object[at..at + PAGE_LEN].copy_from_slice(&message);
}

/// The sealed summary of a segment with this header that is said to have so much, and where it lies.
pub fn summary(
    header: &Header,
    layout: Layout,
    (keys, repository): (&KeySet, &RepositoryId),
) -> (u64, Vec<u8>) {
    let mut message = b"SEGMENT1".to_vec();
    message.extend_from_slice(&layout.entries.to_le_bytes());
    message.extend_from_slice(&layout.packs.to_le_bytes());
    message.resize(PAGE_PLAIN_LEN, 0);
    let position = layout.summary() * PAGE_LEN as u64;
    let cipher = header.cipher(keys, repository).expect("of this repository");
    cipher.seal(MessageContext { position, raw_len: PAGE_PLAIN_LEN as u64 }, &mut message);
    (position, message)
}

pub fn id(n: u32) -> BlobId {
    BlobId::from_bytes(blake3::hash(&n.to_le_bytes()).into())
}

/// A place of blob number `n` in a pack.
pub fn entry(n: u32, pack: u32) -> IndexEntry {
    let block = BlockSpan { position: 80 + n, sealed_len: 50, raw_len: 100 };
    IndexEntry { id: id(n), pack, block, offset: 3, len: 7 }
}
