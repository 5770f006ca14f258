//! What it costs to open a repository: as many calls of the storage however much is stored, and however long the log is. The names
//! of the log's entries are listed in one of them.

use serde_bytes::ByteBuf;

use super::write::COMMITS_PER_STATE;
use super::*;
use crate::backend::testing::{Operation, RecordingBackend};
use crate::backend::{Folder, MemoryBackend};
use crate::crypto::keys::BlobKind;
use crate::format::commit::Change;
use crate::format::header::{Header, ObjectKind};
use crate::format::pack::{BlockSpan, Directory, DirectoryBlob, DirectoryBlock};
use crate::format::record;
use crate::format::segment::PackEntry;
use crate::ids::BlobId;
use crate::prune::test_support::{World, noise};
use crate::testing;

/// The calls it takes, one after the other.
fn calls(storage: &MemoryBackend) -> Vec<(Operation, Option<Folder>)> {
    let backend = RecordingBackend::new(storage.clone());
    let recording = backend.recording();
    testing::open(Arc::new(backend), 9).expect("it opens");
    recording.take().iter().map(|call| (call.operation, call.folder)).collect()
}

/// A repository whose index lists so many packs, of which each holds one blob.
fn with_packs(count: u32) -> MemoryBackend {
    let storage = MemoryBackend::new();
    let repository = testing::init(Arc::new(storage.clone()), 1);
    let pack = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        let blob = DirectoryBlob {
            id: repository.keys().blob_id(BlobKind::Data, &bytes),
            kind: BlobKind::Data,
            offset: 0,
            len: 100,
        };
        let span = BlockSpan { position: 80, sealed_len: 116, raw_len: 100 };
        let directory = Directory { blocks: vec![DirectoryBlock { span, blobs: vec![blob] }] };
        let (header, _) = Header::create(ObjectKind::DataPack, &repository.sealer());
        (PackEntry { id: PackId::from_bytes(bytes), header, size: 1 << 20, blobs: 1 }, directory)
    };
    let packs: Vec<_> = (0..count).map(pack).collect();
    let segment = repository.store_segment(&packs).expect("stored").info;
    let change = Change::SegmentsReplaced { added: vec![segment], removed: Vec::new() };
    repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
    storage
}

#[test]
fn opening_makes_as_many_calls_with_four_thousand_packs_as_with_forty() {
    let few = calls(&with_packs(40));
    assert!(few.iter().any(|(_, folder)| *folder == Some(Folder::Index)), "the segment is opened: {few:?}");
    assert_eq!(calls(&with_packs(4000)), few);
}

#[test]
fn opening_makes_as_many_calls_with_four_thousand_commits_as_with_forty() {
    let mut world = World::new();
    world.write("f", &noise(1, 1000));
    let repository = world.open();
    world.back_up(&repository);
    let (_, snapshot) = repository.find_snapshot("latest").expect("there is one");
    // How long ago the log was last folded decides how many entries are read.
    let places: Vec<u64> = (0..COMMITS_PER_STATE).step_by(7).collect();
    let mut few = Vec::new();
    for seq in repository.fold().seq() + 1..40 + COMMITS_PER_STATE * 125 {
        let time = Timestamp { seconds: i64::try_from(seq).expect("small"), nanos: 0 };
        let record =
            record::encode(&Snapshot { time, tree: BlobId::from_bytes([0; 32]), ..snapshot.clone() });
        let id = SnapshotId::new(repository.keys().blob_id(BlobKind::Snapshot, &record));
        let change = Change::SnapshotAdded { snapshot: id, record: ByteBuf::from(record) };
        let committed = repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
        assert_eq!(committed, seq);
        let (fold, place) =
            (seq.saturating_sub(40) / COMMITS_PER_STATE, seq.saturating_sub(40) % COMMITS_PER_STATE);
        if seq < 40 || !places.contains(&place) {
            continue;
        }
        match fold {
            0 => few.push(calls(&world.storage)),
            124 => assert_eq!(calls(&world.storage), few.remove(0), "{seq} commits"),
            _ => {}
        }
    }
    assert!(few.is_empty(), "each was compared");
}
