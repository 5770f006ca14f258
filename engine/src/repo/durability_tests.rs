//! What others have stored and not made durable: it may be gone after a power cut, and nothing that stays may rest on it.

use std::io::ErrorKind;

use serde_bytes::ByteBuf;

use super::append_only_tests::publish;
use super::*;
use crate::backend::testing::{Fault, FaultBackend, Operation, UnflushedBackend};
use crate::backend::{Folder, MemoryBackend};
use crate::backup;
use crate::check::{self, CheckOptions};
use crate::crypto::keys::BlobKind;
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{World, noise, open, options};
use crate::rebuild::{self, RebuildOptions};
use crate::store::StoreOptions;
use crate::testing;

fn world() -> (World, UnflushedBackend) {
    let mut world = World::new();
    world.write("file", &noise(1, 9_000));
    world.back_up(&world.open());
    let backend = UnflushedBackend::new(&world.storage);
    (world, backend)
}

/// A commit whose writer dies when all can see it.
fn commit_of_the_dying(backend: &UnflushedBackend) -> u64 {
    let dying = open(backend.dying());
    publish(&dying, vec![Change::SegmentsReplaced { added: Vec::new(), removed: Vec::new() }])
}

/// Backs up and checks after a power cut.
#[track_caller]
fn goes_on(world: &World, storage: &MemoryBackend) {
    let mut after = World { storage: storage.clone(), ..World::new() };
    after.write("other", &noise(2, 3_000));
    after.back_up(&after.open());
    let report = check::run(&after.open(), &CheckOptions::default(), &Silent).expect("checked");
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert!(world.expected.keys().all(|id| after.open().find_snapshot(&id.to_string()).is_ok()));
}

#[test]
fn a_head_is_made_durable_before_it_is_remembered_elsewhere() {
    let (world, backend) = world();
    let seq = commit_of_the_dying(&backend);
    let repository = open(backend.clone());
    let remembered = repository.durable_head().expect("flushed").expect("there is one");
    assert_eq!(remembered.seq, seq);
    let storage = backend.crash();
    open(storage.clone()).verify_head(&remembered).expect("what is remembered is there");
    goes_on(&world, &storage);
}

#[test]
fn an_entry_is_made_durable_before_its_parity() {
    let (world, backend) = world();
    let options = AddOptions { threads: 1, ..AddOptions::default() };
    parity::add(&open(backend.clone()), &options, &Silent).expect("wanted from now on");
    commit_of_the_dying(&backend);
    let report = parity::add(&open(backend.clone()), &options, &Silent).expect("added");
    assert_eq!(report.added, 1, "of the entry: {report:?}");
    goes_on(&world, &backend.crash());
}

#[test]
fn packs_are_made_durable_before_a_rebuilt_index_lists_them() {
    let (world, backend) = world();
    let dying = open(backend.dying());
    let store = dying.pack_store(ObjectKind::DataPack, &StoreOptions::new(3, 1, 64 << 20));
    let mut writer = store.writer();
    let content = noise(3, 5_000);
    writer.put(BlobKind::Data, dying.keys().blob_id(BlobKind::Data, &content), &content, true).expect("put");
    writer.flush().expect("stored");
    let pack = store.finish().expect("named").remove(0).0.id;
    let repository = open(backend.clone());
    rebuild::run(&repository, &RebuildOptions::default(), &Silent).expect("rebuilt");
    let is_listed = |segment: &Arc<crate::index::Segment>| {
        segment.packs().any(|listed| listed.expect("readable").id == pack)
    };
    assert!(repository.index().segments().iter().any(is_listed));
    goes_on(&world, &backend.crash());
}

/// The failure may have come before it was durable: on a network file system, say, that tells of one after the effect.
#[test]
fn a_commit_that_is_there_although_its_creation_failed_is_made_durable() {
    for is_flushed in [true, false] {
        let storage = MemoryBackend::new();
        testing::init(Arc::new(storage.clone()), 1);
        let backend = FaultBackend::new(storage);
        let faults = backend.faults();
        let repository = testing::open(Arc::new(backend), 2).expect("it opens");
        let lost = Fault::nth_of(Operation::Create, 1, ErrorKind::TimedOut).in_folder(Folder::Log);
        faults.inject(lost.after_effect());
        if !is_flushed {
            faults.inject(Fault::nth_of(Operation::Flush, 1, ErrorKind::Other).in_folder(Folder::Log));
        }
        let note = Change::Note { kind: "test".into(), record: ByteBuf::new() };
        let result = repository.commit(&mut |_| Ok(vec![note.clone()]));
        assert_eq!(result.is_ok(), is_flushed, "{result:?}");
        assert_eq!(faults.fired(), if is_flushed { 1 } else { 2 });
    }
}

/// As of a commit, so of a pack.
#[test]
fn a_pack_that_is_there_although_its_creation_failed_is_made_durable() {
    for is_flushed in [true, false] {
        let (world, _) = world();
        let backend = FaultBackend::new(world.storage.clone());
        let faults = backend.faults();
        let repository = open(backend);
        world.write("other", &noise(2, 9_000));
        let lost = Fault::nth_of(Operation::Create, 1, ErrorKind::TimedOut).in_folder(Folder::Packs);
        faults.inject(lost.after_effect());
        if !is_flushed {
            faults.inject(Fault::nth_of(Operation::Flush, 1, ErrorKind::Other).in_folder(Folder::Packs));
        }
        let result = backup::run(&repository, world.paths(), &options(), &Silent);
        assert_eq!(result.is_ok(), is_flushed, "{result:?}");
        assert_eq!(faults.fired(), if is_flushed { 1 } else { 2 });
        world.verify();
    }
}
