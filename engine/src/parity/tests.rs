//! Adding, keeping and dropping parity, by what a repository holds afterwards.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::backend::MemoryBackend;
use crate::backend::testing::{Fault, FaultBackend, Operation};
use crate::format::parity::Overhead;
use crate::monitor::Silent;
use crate::prune::test_support::{World, noise};
use crate::prune::{self, Limit, PruneOptions};
use crate::sidecar;

fn overhead(tenths: u32) -> Overhead {
    Overhead::from_tenths(tenths).expect("in range")
}

fn options(tenths: u32) -> AddOptions {
    AddOptions { overhead: Some(overhead(tenths)), threads: 2 }
}

/// A world with two backups.
fn world() -> (World, Repository) {
    let mut world = World::new();
    world.write("large", &noise(1, 3 << 20));
    world.write("small", b"small");
    let repository = world.open();
    world.back_up(&repository);
    world.write("small", b"other");
    world.back_up(&repository);
    (world, repository)
}

fn sidecars(storage: &MemoryBackend) -> usize {
    storage.objects().iter().filter(|(key, _)| key.folder() == Some(Folder::Parity)).count()
}

/// Makes sure that all that can be covered is, and nothing else.
fn all_covered(repository: &Repository, storage: &MemoryBackend) {
    let status = status(repository).expect("counted");
    assert!(status.coverage.iter().all(|one| one.uncovered == 0), "{status:?}");
    assert_eq!(status.others, 0, "{status:?}");
    let covered: u64 = status.coverage.iter().map(|one| one.covered).sum();
    assert_eq!(sidecars(storage) as u64, covered);
    for object in coverable(repository).expect("listed") {
        let head = sidecar::head_of(storage, &object.key).expect("read").expect("a sidecar");
        assert_eq!(head.object, object.hash, "{}", object.key);
    }
}

#[test]
fn what_is_there_is_covered_and_what_comes_is_covered_by_its_writer() {
    let (mut world, repository) = world();
    assert_eq!(sidecars(&world.storage), 0);
    let report = add(&repository, &options(30), &Silent).expect("added");
    assert!(report.added > 4 && report.damaged.is_empty(), "{report:?}");
    all_covered(&repository, &world.storage);
    let again = add(&repository, &AddOptions { threads: 1, ..options(30) }, &Silent).expect("added");
    assert_eq!((again.added, again.present), (0, report.added + report.present));

    // Another handle reads the policy from the log.
    let other = world.open();
    world.write("more", &noise(2, 300_000));
    world.back_up(&other);
    repository.refresh().expect("read on");
    all_covered(&other, &world.storage);

    let more = add(&other, &options(100), &Silent).expect("added");
    assert!(more.added >= 1 && more.added_bytes > report.added_bytes, "{more:?}");
    all_covered(&other, &world.storage);
    assert_eq!(other.fold().parity(), Some(overhead(100)));

    let dropped = drop_all(&other, &Silent).expect("dropped");
    assert!(dropped.sidecars > 0 && sidecars(&world.storage) == 0);
    assert_eq!(other.fold().parity(), None);
    world.write("last", b"last");
    world.back_up(&other);
    assert_eq!(sidecars(&world.storage), 0, "no longer wanted");
}

#[test]
fn damaged_objects_are_named_and_not_covered() {
    let (world, repository) = world();
    let pack = coverable(&repository)
        .expect("listed")
        .into_iter()
        .rfind(|object| object.key.folder() == Some(Folder::Packs));
    let key = pack.expect("packs").key;
    world.storage.corrupt(&key, |bytes| bytes[90] ^= 1);
    let report = add(&repository, &options(30), &Silent).expect("the others are covered");
    assert_eq!(report.damaged.len(), 1);
    assert!(report.damaged[0].contains(key.as_str()), "{report:?}");
    assert_eq!(sidecar::head_of(&world.storage, &key).expect("read"), None);
    world.storage.delete(&key).expect("deleted");
    let report = add(&repository, &options(30), &Silent).expect("the others are covered");
    assert!(report.damaged[0].contains("not there"), "{report:?}");
}

#[test]
fn prunes_leave_no_sidecar_behind() {
    let (mut world, repository) = world();
    add(&repository, &options(30), &Silent).expect("added");
    for n in 0..6 {
        world.write("large", &noise(10 + n, 400_000));
        world.back_up(&repository);
    }
    // One whose object is gone, as a writer leaves that was killed.
    let stray = ObjectKey::parity(&crate::ids::ParityId::from_bytes([9; 32]));
    world.storage.create(&stray, b"stray").expect("stored");
    let oldest: Vec<_> = world.expected.keys().copied().take(5).collect();
    for snapshot in oldest {
        world.forget(&repository, snapshot);
    }
    let prune = PruneOptions {
        grace: Duration::ZERO,
        max_unused: Limit::Bytes(0),
        threads: 1,
        ..PruneOptions::default()
    };
    let report = prune::run(&repository, &prune, &Silent).expect("pruned");
    assert!(report.packs_removed > 0 && report.sidecars_removed >= 1, "{report:?}");
    all_covered(&repository, &world.storage);
    drop_all(&repository, &Silent).expect("dropped");
    world.storage.create(&stray, b"left by a drop that was interrupted").expect("stored");
    prune::run(&repository, &prune, &Silent).expect("pruned");
    assert_eq!(sidecars(&world.storage), 0);
}

/// A disk that is full for parity alone.
#[test]
fn a_backup_does_not_fail_for_parity_that_cannot_be_stored() {
    let (mut world, repository) = world();
    add(&repository, &options(30), &Silent).expect("added");
    drop(repository);
    let backend = FaultBackend::new(world.storage.clone());
    let faults = backend.faults();
    let repository = prune::test_support::open(backend);
    faults.inject(
        Fault::nth_of(Operation::Create, 1, ErrorKind::StorageFull).in_folder(Folder::Parity).lasting(),
    );
    world.write("more", &noise(3, 100_000));
    world.back_up(&repository);
    assert!(!repository.parity_troubles().is_empty());
    let status = status(&repository).expect("counted");
    assert!(status.coverage.iter().any(|one| one.uncovered > 0));
    faults.clear();
    add(&repository, &AddOptions::default(), &Silent).expect("made good");
    all_covered(&repository, &world.storage);
}
