//! Segments made of entries, without a repository.

use std::sync::Arc;

use super::*;
use crate::backend::{MemoryBackend, MemoryReader};
use crate::crypto::{RootSecret, SeededEntropy};
use crate::format::header::{Header, ObjectKind, Sealer};
use crate::format::pack::BlockSpan;
use crate::format::segment::SegmentBuilder;
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

pub fn id(n: u32) -> BlobId {
    BlobId::from_bytes(blake3::hash(&n.to_le_bytes()).into())
}

/// A place of blob number `n` in a pack.
pub fn entry(n: u32, pack: u32) -> IndexEntry {
    let block = BlockSpan { position: 80 + n, sealed_len: 50, raw_len: 100 };
    IndexEntry { id: id(n), pack, block, offset: 3, len: 7 }
}
