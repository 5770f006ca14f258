//! A block that a holder of the keys sealed as a short one, and that decompresses to as much as one likes.

use super::append_only_tests::publish;
use super::hostile_segments_tests::{commit_file, in_little_memory, restored};
use super::*;
use crate::backend::MemoryBackend;
use crate::copy::{self, CopyOptions};
use crate::crypto::keys::BlobKind;
use crate::format::block::{BlockCodec, CodecError};
use crate::format::chunk_list::Chunk;
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::format::pack::DirectoryBlob;
use crate::ids::BlobId;
use crate::monitor::Silent;
use crate::prune::test_support::{World, at_once, forget, noise, open};
use crate::prune::{self, PruneError};
use crate::repair::test_support::{check_all, repair, thorough};
use crate::store::StoreOptions;
use crate::testing;

/// What the block is said to hold.
const RAW_LEN: u32 = 512 << 10;

/// A frame of so many pieces of 128 KiB of zeros each, four bytes a piece, which does not say how much it stands for.
fn bomb(pieces: u32) -> Vec<u8> {
    // The magic number, a frame header without anything, and a window of a MiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50];
    for piece in 1..=pieces {
        let is_last = u32::from(piece == pieces);
        // One byte again and again, so many times.
        let header = is_last | 1 << 1 | (128 << 10) << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[test]
fn a_bomb_is_one() {
    let mut out = Vec::new();
    let frame = bomb(4);
    BlockCodec::new().decompress(&frame, RAW_LEN as usize, &mut out).expect("just as long as it says");
    assert_eq!(out, vec![0; RAW_LEN as usize]);
    let refused = BlockCodec::new().decompress(&bomb(5), RAW_LEN as usize, &mut out);
    assert!(matches!(refused, Err(CodecError::Frame(_))), "{refused:?}");
}

/// Lists a pack of one block that is said to hold these blobs, and commits a snapshot of those of them that `is_needed` chooses.
fn plant(world: &World, pieces: u32, needed: &[usize]) -> (PackId, SnapshotId) {
    let repository = world.open();
    let store = repository.pack_store(ObjectKind::DataPack, &StoreOptions::new(3, 1, 64 << 20));
    let mut writer = store.writer();
    let len = RAW_LEN / 2;
    let blob = |n: u32| {
        let id = BlobId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
        DirectoryBlob { id, kind: BlobKind::Data, offset: n * len, len }
    };
    let blobs = vec![blob(0), blob(1)];
    let chunks: Vec<Chunk> = needed.iter().map(|at| Chunk { id: blobs[*at].id, len }).collect();
    writer.put_block(&mut bomb(pieces), RAW_LEN, blobs).expect("stored");
    // A prune takes no pack over as it is of which something is not needed.
    let honest = noise(77, 9_000);
    let id = repository.keys().blob_id(BlobKind::Data, &honest);
    writer.put(BlobKind::Data, id, &honest, true).expect("stored");
    writer.flush().expect("stored");
    let packs = store.finish().expect("stored");
    let [(pack, _)] = &packs[..] else { panic!("{} packs", packs.len()) };
    let segment = repository.store_segment(&packs).expect("stored").info;
    publish(&repository, vec![Change::SegmentsReplaced { added: vec![segment], removed: Vec::new() }]);
    (pack.id, commit_file(&world.open(), &chunks))
}

/// Of as much as nobody here has: 4 GiB in 128 KiB.
const PIECES: u32 = 32 << 10;

fn world() -> World {
    let mut world = World::new();
    world.write("f", &noise(1, 9_000));
    world.back_up(&world.open());
    world
}

#[test]
fn a_bomb_is_an_error_of_whatever_reads_it_and_takes_no_memory() {
    in_little_memory(module_path!(), "a_bomb_is_an_error_of_whatever_reads_it_and_takes_no_memory", || {
        let world = world();
        let (pack, snapshot) = plant(&world, PIECES, &[0]);
        let refused = restored(&world.open(), snapshot, b"").expect_err("it is no file");
        assert_eq!(refused, "1 errors");
        let report = check_all(&world.open());
        let key = ObjectKey::pack(&pack).to_string();
        let is_it = |code, object: &String| code == "pack-damaged" && *object == key;
        assert!(report.findings.iter().any(|found| is_it(found.code, &found.object)), "{report:?}");

        // Half of the block is needed, so it has to be decompressed.
        let before = world.storage.objects().len();
        let refused = prune::run(&world.open(), &at_once(), &Silent).expect_err("it cannot be written anew");
        assert!(matches!(refused, PruneError::Read(_)), "{refused:?}");
        assert!(refused.to_string().contains(&pack.to_string()), "{refused}");
        assert!(world.storage.objects().len() >= before, "nothing is deleted");

        let target = MemoryBackend::new().called("target");
        testing::init(Arc::new(target.clone()), 4_000_001);
        let options = CopyOptions { threads: 1, ..CopyOptions::default() };
        let report = copy::run(&world.open(), &open(target), &options, &Silent).expect("the others go");
        assert_eq!((report.damaged(), report.snapshots.len()), (1, 2), "{report:?}");

        // What is lost is given up, and all else is as it was.
        let report = repair(&world.open(), &thorough());
        assert_eq!(report.lost_count, 1, "{report:?}");
        forget(&world.open(), snapshot);
        prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
        world.verify();
    });
}

/// A prune does not look into blocks that it takes over in whole. It is no worse off than before.
#[test]
fn a_bomb_that_is_needed_in_whole_is_taken_over_and_still_found() {
    in_little_memory(module_path!(), "a_bomb_that_is_needed_in_whole_is_taken_over_and_still_found", || {
        let world = world();
        let (pack, snapshot) = plant(&world, PIECES, &[0, 1]);
        let report = prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
        assert_eq!(report.packs_condemned, 1, "{report:?}");
        world.storage.stat(&ObjectKey::pack(&pack)).expect_err("it was written anew");
        restored(&world.open(), snapshot, b"").expect_err("it is no file");
        let report = check_all(&world.open());
        assert!(report.findings.iter().any(|found| found.code == "pack-damaged"), "{report:?}");
    });
}
