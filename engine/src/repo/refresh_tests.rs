//! Reading on what others have committed: whatever fails, the log as it was read and the index are of one moment.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use crate::backend::testing::{Fault, FaultBackend, Operation};
use crate::backend::{Backend, Folder, ObjectKey};
use crate::crypto::keys::BlobKind;
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::format::segment::PackEntry;
use crate::ids::BlobId;
use crate::index::Segment;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{World, at_once, later, noise, open, prune};

/// Simulation, seed 40005: the log was read on beyond a prune and then could not be read any further, so the index still listed what that
/// had condemned. A backup began there, relied on it, and saw no later prune that would have told.
#[test]
fn a_backup_after_any_failure_relies_on_nothing_that_was_condemned() {
    for n in 1.. {
        let mut world = World::new();
        let back_up_alone = |world: &mut World, name: &str, seed| {
            ["f", "g"].iter().for_each(|other| world.remove(other));
            world.write(name, &noise(seed, 5000));
            let repository = world.open();
            world.back_up(&repository)
        };
        let first = back_up_alone(&mut world, "f", 1);
        let backend = FaultBackend::new(world.storage.clone());
        let faults = backend.faults();
        let behind = open(backend);
        let other = world.open();
        world.forget(&other, first);
        assert!(prune(&world.open(), &later()).packs_condemned > 0);
        back_up_alone(&mut world, "g", 2);
        faults.inject(Fault::nth(n, ErrorKind::TimedOut));
        let has_failed = behind.refresh().is_err();
        faults.clear();
        let of_log: BTreeSet<_> = behind.fold().segments().map(|info| info.segment).collect();
        let of_index: BTreeSet<_> = behind.index().segments().iter().map(|segment| segment.id()).collect();
        assert_eq!(of_log, of_index, "operation {n} fails");
        world.write("f", &noise(1, 5000));
        world.back_up(&behind);
        world.verify();
        if !has_failed {
            assert!(n > 5, "it takes more operations than {n}");
            break;
        }
    }
}

/// The last commit is lost, its parity tells so, and cannot be read just now: nobody takes its place.
#[test]
fn a_commit_waits_until_it_is_known_that_none_was_lost() {
    let mut world = World::new();
    world.write("f", b"content");
    let repository = world.open();
    parity::add(&repository, &AddOptions { threads: 1, ..AddOptions::default() }, &Silent).expect("added");
    let id = world.back_up(&repository);
    let last = ObjectKey::log(repository.fold().seq());
    world.storage.delete(&last).expect("deleted");
    let backend = FaultBackend::new(world.storage.clone());
    let faults = backend.faults();
    let behind = open(backend);
    let nothing = Change::SegmentsReplaced { added: Vec::new(), removed: Vec::new() };
    for n in 1..=2 {
        for kind in [ErrorKind::TimedOut, ErrorKind::PermissionDenied] {
            faults.inject(Fault::nth(n, kind).in_folder(Folder::Parity));
            behind.commit(&mut |_| Ok(vec![nothing.clone()])).expect_err("nothing is known");
            faults.clear();
            assert!(world.storage.stat(&last).is_err(), "operation {n} on parity fails");
        }
    }
    let report = crate::repair::objects::run(&world.open(), false, &Silent).expect("repaired");
    assert_eq!(report.objects.len(), 1, "{report:?}");
    assert!(world.open().fold().snapshot(&id).is_some());
}

/// A pack that moved is looked for again where the log could not be read on the first time.
#[test]
fn a_reader_asks_again_where_a_pack_went_if_it_was_not_told() {
    let mut world = World::new();
    for file in 0..4 {
        world.write(&format!("f{file}"), &noise(file, 5000));
    }
    let repository = world.open();
    let first = world.back_up(&repository);
    world.remove("f0");
    world.write("f4", b"more");
    let second = world.back_up(&repository);
    let backend = FaultBackend::new(world.storage.clone());
    let faults = backend.faults();
    let behind = open(backend);
    world.forget(&repository, first);
    assert!(prune(&world.open(), &at_once()).packs_repacked > 0);
    assert!(world.open().fold().snapshot(&second).is_some());
    let now = world.open();
    let moved = |segment: &Arc<Segment>| {
        let packs: Vec<_> = segment.packs().map(|pack| pack.expect("readable")).collect();
        let entries = segment.entries().map(|entry| entry.expect("readable"));
        let mut left = entries.map(|entry| (entry.id, &packs[entry.pack as usize]));
        let is_moved = |(id, pack): &(BlobId, &PackEntry)| {
            world.storage.stat(&ObjectKey::pack(&pack.id)).is_err()
                && now.index().contains(id).expect("readable")
        };
        left.find(is_moved).map(|(id, pack)| (id, pack.header.kind))
    };
    let (id, kind) = behind.index().segments().iter().find_map(moved).expect("something was moved");
    let kind = if kind == ObjectKind::DataPack { BlobKind::Data } else { BlobKind::Tree };
    faults.inject(Fault::nth_of(Operation::Read, 1, ErrorKind::TimedOut).in_folder(Folder::Log));
    behind.reader().read(kind, &id).expect_err("where it went is not known");
    behind.reader().read(kind, &id).expect("now it is");
}
