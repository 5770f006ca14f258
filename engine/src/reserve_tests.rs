//! The reserve: full storage is a way out of, and nothing else is harmed.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::*;
use crate::backend::testing::{Fault, FaultBackend, LimitedBackend, Operation};
use crate::backend::{Backend, Folder, LocalBackend};
use crate::backup;
use crate::check::{self, CheckOptions};
use crate::forget::policy::GroupBy;
use crate::forget::{self, ForgetError, ForgetOptions, ForgetReport, Guards, Selection, Wish};
use crate::format::parity::Overhead;
use crate::ids::SnapshotId;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{self, Hooked, World, a_segment, at_once, noise, open, options};
use crate::prune::{self, Limit, PruneOptions};
use crate::testing::{self, NoCalendar};

const MIB: u64 = 1 << 20;

fn forget_it(repository: &Repository, id: SnapshotId) -> Result<ForgetReport, ForgetError> {
    let options = ForgetOptions {
        wish: Wish::Named(vec![id]),
        selection: Selection::default(),
        group_by: GroupBy { host: true, paths: true, tags: false },
        guards: Guards { allow_empty: true, ..Guards::default() },
        dry_run: false,
        reason: String::new(),
    };
    forget::run(repository, &options, &NoCalendar)
}

/// Three snapshots, the second of 3 MiB that the others have not: its id.
fn sample() -> (World, SnapshotId) {
    let mut world = World::new();
    world.write("kept", &noise(1, 300_000));
    world.back_up(&world.open());
    for n in 0..3 {
        world.write(&format!("old{n}"), &noise(10 + n, 1 << 20));
    }
    let large = world.back_up(&world.open());
    for n in 0..3 {
        world.remove(&format!("old{n}"));
    }
    world.write("new", &noise(2, 100_000));
    world.back_up(&world.open());
    (world, large)
}

fn notes(repository: &Repository) -> Vec<&'static str> {
    let options = CheckOptions { threads: 1, ..CheckOptions::default() };
    let report = check::run(repository, &options, &Silent).expect("checked");
    assert!(report.findings.iter().all(|finding| !finding.is_damage), "{:?}", report.findings);
    report.findings.iter().map(|finding| finding.code).filter(|code| code.starts_with("reserve")).collect()
}

fn no_repack() -> PruneOptions {
    PruneOptions { max_unused: Limit::Unlimited, ..at_once() }
}

#[test]
fn full_storage_is_got_out_of_in_the_room_that_was_kept_free() {
    let (mut world, first) = sample();
    set(&world.open(), 4 * MIB).expect("there is room");
    let full = LimitedBackend::full(&world.storage);
    world.write("more", &noise(3, 200_000));
    let refused = backup::run(&open(full.clone()), world.paths(), &options(), &Silent);
    assert!(backend::is_out_of_room(&refused.expect_err("it is full")));
    assert_eq!(status(&open(full.clone())).expect("there").stored, Some(4 * MIB), "no backup takes it");

    let repository = open(full.clone());
    let report = forget_it(&repository, first).expect("the reserve makes room");
    world.expected.remove(&first);
    assert!(report.commit.is_some());
    // Nothing was freed by that: the half is what fits beside the commit.
    assert_eq!(report.reserve, Spent { given_back: 4 * MIB, lacking: 2 * MIB });
    assert_eq!(notes(&repository), ["reserve-short"]);

    // Somebody else takes what is left.
    full.set_room(full.used());
    let report = prune::run(&repository, &no_repack(), &Silent).expect("the rest of it makes room");
    assert_eq!(report.reserve.given_back, 2 * MIB);
    assert!(report.packs_removed > 0 && report.packs_removed_bytes >= 3 * MIB, "{report:?}");
    assert_eq!(report.reserve.lacking, 0, "{report:?}");
    assert_eq!(status(&repository).expect("there"), Status { wanted: Some(4 * MIB), stored: Some(4 * MIB) });
    assert!(notes(&repository).is_empty());
    full.set_room(full.used() + MIB);
    world.back_up(&open(full));
    world.verify();
}

/// What the reserve is for.
#[test]
fn without_a_reserve_full_storage_stays_full() {
    let (world, first) = sample();
    let full = LimitedBackend::full(&world.storage);
    let refused = forget_it(&open(full.clone()), first).expect_err("no room for a commit");
    assert!(backend::is_out_of_room(&refused), "{refused}");
    test_support::forget(&world.open(), first);
    full.set_room(full.used());
    let refused = prune::run(&open(full), &no_repack(), &Silent).expect_err("no room for a commit");
    assert!(backend::is_out_of_room(&refused), "{refused}");
}

/// Nothing else can go: states of the log are made again.
#[test]
fn without_a_reserve_states_of_the_log_give_some_room() {
    let (mut world, first) = sample();
    let commit_notes = |repository: &Repository| {
        for _ in 0..40 {
            let note = Change::Note { kind: "test".into(), record: Default::default() };
            repository.commit(&mut |_| Ok(vec![note.clone()])).expect("a note");
        }
    };
    commit_notes(&world.open());
    let states = |world: &World| {
        world.storage.objects().iter().filter(|(key, _)| key.folder() == Some(Folder::State)).count()
    };
    assert!(states(&world) > 0);
    let full = LimitedBackend::full(&world.storage);
    forget_it(&open(full.clone()), first).expect("there is room for a commit");
    world.expected.remove(&first);
    assert_eq!(states(&world), 0);
    world.verify();
    commit_notes(&world.open());
    assert!(states(&world) > 0, "they are made again");
}

/// Where it is asked for, and there is no reserve, the parity of packs makes way for the index.
#[test]
fn parity_of_packs_makes_way_where_that_is_asked_for() {
    let (mut world, first) = sample();
    let overhead = Overhead::from_tenths(100);
    let add = AddOptions { overhead, threads: 1, ..AddOptions::default() };
    parity::add(&world.open(), &add, &Silent).expect("added");
    world.forget(&world.open(), first);
    let full = LimitedBackend::full(&world.storage);
    let refused = prune::run(&open(full.clone()), &no_repack(), &Silent).expect_err("no room for a commit");
    assert!(backend::is_out_of_room(&refused), "{refused}");
    let options = PruneOptions { delete_first: true, ..no_repack() };
    let report = prune::run(&open(full.clone()), &options, &Silent).expect("pruned");
    assert!(report.packs_removed > 0 && report.sidecars_given_up > 0, "{report:?}");
    world.verify();
    // Where there is room it is not touched.
    let again = prune::run(&world.open(), &options, &Silent).expect("pruned");
    assert_eq!(again.sidecars_given_up, 0);
}

#[test]
fn what_is_written_anew_in_its_room_leaves_some_for_the_commits() {
    let mut world = World::new();
    for n in 0..8 {
        world.write(&format!("f{n}"), &noise(n, 200_000));
    }
    let first = world.back_up(&world.open());
    for n in 0..6 {
        world.remove(&format!("f{n}"));
    }
    world.back_up(&world.open());
    world.forget(&world.open(), first);
    set(&world.open(), 8 * MIB).expect("there is room");
    let full = LimitedBackend::full(&world.storage);
    let prune_now = PruneOptions { max_unused: Limit::Bytes(0), ..at_once() };
    let report = prune::run(&open(full.clone()), &prune_now, &Silent).expect("pruned");
    assert!(report.packs_repacked > 0 && report.packs_removed > 0, "{report:?}");
    assert_eq!(report.reserve, Spent { given_back: 8 * MIB, lacking: 0 });
    world.verify();
    // One that the packs do not fit into is not filled with them.
    let mut world = World::new();
    world.write("half", &noise(1, 700_000));
    world.write("other", &noise(2, 700_000));
    let first = world.back_up(&world.open());
    world.remove("other");
    world.back_up(&world.open());
    world.forget(&world.open(), first);
    set(&world.open(), MIB).expect("there is room");
    let full = LimitedBackend::full(&world.storage);
    let report = prune::run(&open(full), &prune_now, &Silent).expect("pruned");
    assert_eq!(report.packs_repacked_bytes / (700 << 10), 0, "{report:?}");
    world.verify();
}

#[test]
fn a_prune_that_runs_out_of_room_anywhere_ends_well() {
    let (mut world, first) = sample();
    for n in 0..4 {
        world.write(&format!("more{n}"), &noise(20 + n, 30_000));
    }
    let second = world.back_up(&world.open());
    world.remove("more0");
    world.back_up(&world.open());
    world.forget(&world.open(), first);
    world.forget(&world.open(), second);
    set(&world.open(), MIB).expect("there is room");
    let prune_now = PruneOptions { max_unused: Limit::Bytes(0), ..at_once() };
    let mut spent = 0;
    for n in 1.. {
        let backend = FaultBackend::new(world.storage.snapshot());
        let faults = backend.faults();
        let backend = Arc::new(backend);
        let repository = open(Arc::clone(&backend));
        faults.inject(Fault::nth_of(Operation::Create, n, std::io::ErrorKind::StorageFull));
        let report = prune::run(&repository, &prune_now, &Silent);
        if faults.fired() == 0 {
            assert!(n > 4 && spent > 4, "{n}: {spent}");
            break;
        }
        let report = report.unwrap_or_else(|error| panic!("{n}: {error}"));
        assert!(report.packs_removed > 0, "{n}: {report:?}");
        assert_eq!(report.reserve.lacking, 0, "{n}");
        spent += u32::from(report.reserve.given_back == MIB);
        assert!(notes(&repository).is_empty(), "{n}");
    }
}

#[test]
fn a_check_tells_of_a_reserve_that_is_not_whole_and_a_prune_makes_it_so() {
    let (world, _) = sample();
    let repository = world.open();
    assert_eq!(status(&repository).expect("read"), Status::default());
    assert!(notes(&repository).is_empty(), "nobody asked for one");
    set(&repository, MIB).expect("there is room");
    assert!(notes(&repository).is_empty());
    let key = ObjectKey::reserve();
    world.storage.delete(&key).expect("deleted");
    assert_eq!(notes(&repository), ["reserve-missing"]);
    world.storage.plant(&key, b"less");
    assert_eq!(notes(&world.open()), ["reserve-short"]);
    let report = prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
    assert_eq!(report.reserve, Spent::default());
    assert!(notes(&world.open()).is_empty());
    // Shorter, longer, none.
    for bytes in [2 * MIB, MIB] {
        assert_eq!(
            set(&repository, bytes).expect("set"),
            Status { wanted: Some(bytes), stored: Some(bytes) }
        );
        assert_eq!(world.open().fold().reserve(), Some(bytes));
    }
    let seq = repository.fold().seq();
    set(&repository, MIB).expect("as before");
    assert_eq!(repository.fold().seq(), seq, "no news, no commit");
    drop_it(&repository).expect("dropped");
    assert_eq!(status(&world.open()).expect("read"), Status::default());
    for bytes in [0, MIB - 1, RESERVE_LEN_MAX + 1] {
        assert!(matches!(set(&repository, bytes), Err(ReserveError::Length { .. })), "{bytes}");
    }
    world.verify();
}

#[test]
fn one_that_finds_no_room_is_as_long_as_there_is_room_for() {
    let (world, _) = sample();
    let full = LimitedBackend::full(&world.storage);
    full.set_room(full.used() + 3 * MIB);
    let repository = open(full.clone());
    let refused = set(&repository, 8 * MIB).expect_err("there is less");
    assert!(
        matches!(refused, ReserveError::NoRoom { wanted, stored } if (wanted, stored) == (8 * MIB, 2 * MIB))
    );
    // It is dropped also where there is no room for the commit that says so.
    full.set_room(full.used());
    drop_it(&repository).expect("in its own room");
    assert_eq!(status(&repository).expect("read"), Status::default());
    world.verify();
}

/// A prune was killed while it made its reserve again, on a disk that had just become full.
#[test]
fn what_a_killed_refill_left_behind_is_removed_where_there_is_no_room() {
    type Deed = fn(&Repository, SnapshotId);
    let deeds: [(&str, Deed); 4] = [
        ("forget", |repository, first| drop(forget_it(repository, first).expect("forgotten"))),
        ("prune", |repository, _| {
            prune::run(repository, &no_repack(), &Silent).expect("pruned");
        }),
        ("set", |repository, _| {
            set(repository, 2 * MIB).expect("set");
        }),
        ("drop", |repository, _| {
            drop_it(repository).expect("dropped");
        }),
    ];
    for (name, deed) in deeds {
        let (world, first) = sample();
        set(&world.open(), 4 * MIB).expect("there is room");
        if name == "prune" {
            test_support::forget(&world.open(), first);
        }
        world.storage.delete(&ObjectKey::reserve()).expect("deleted");
        let full = LimitedBackend::full(&world.storage);
        let before = full.used();
        full.leave_behind(5 * MIB);
        full.set_room(full.used());
        deed(&open(full.clone()), first);
        let wanted = world.open().fold().reserve();
        assert_eq!(
            status(&world.open()).expect("there").stored,
            wanted.filter(|_| name != "forget"),
            "{name}"
        );
        assert!(full.used() <= before + wanted.unwrap_or(0) + 100_000, "{name}: it takes room still");
    }
}

/// The reserve does not fit before what dead writers left is gone.
#[test]
fn a_reserve_takes_the_room_of_what_dead_writers_left() {
    let (world, _) = sample();
    let full = LimitedBackend::full(&world.storage);
    full.leave_behind(4 * MIB);
    full.set_room(full.used() + 2 * MIB);
    assert_eq!(set(&open(full), 4 * MIB).expect("there is room").stored, Some(4 * MIB));
}

/// Each prune would make the disk full for a while otherwise, and leave it without a reserve meanwhile.
#[test]
fn no_reserve_is_begun_that_cannot_fit() {
    let (world, _) = sample();
    let full = LimitedBackend::full(&world.storage);
    full.set_room(full.used() + 5 * MIB);
    set(&open(full.clone()), 8 * MIB).expect_err("there is room for a half");
    let kept = || world.storage.read(&ObjectKey::reserve(), u64::MAX).expect("there");
    let before = kept();
    assert_eq!(before.len() as u64, 4 * MIB);
    let report = prune::run(&open(full.clone()), &at_once(), &Silent).expect("pruned");
    assert_eq!(report.reserve, Spent { given_back: 0, lacking: 4 * MIB });
    assert!(kept() == before, "a sound half of it was made anew");
    // Room for all of it and not a byte more is room that others would miss.
    full.set_room(full.used() + 4 * MIB + MIB / 2);
    prune::run(&open(full.clone()), &at_once(), &Silent).expect("pruned");
    assert!(kept() == before);
    full.set_room(full.used() + 5 * MIB + MIB / 2);
    let report = prune::run(&open(full.clone()), &at_once(), &Silent).expect("pruned");
    assert_eq!((report.reserve, kept().len() as u64), (Spent::default(), 8 * MIB));
    assert_eq!(full.refused(), 0, "nothing was tried that did not fit");
    set(&open(full.clone()), 7 * MIB).expect("a shorter one fits wherever there was a longer one");
    assert_eq!((kept().len() as u64, full.refused()), (7 * MIB, 0));
}

/// Where nobody knows of a limit, such as a quota, a longer one is written beside the one that is there.
#[test]
fn a_reserve_stays_where_a_longer_one_unexpectedly_does_not_fit() {
    let (world, _) = sample();
    set(&world.open(), 2 * MIB).expect("there is room");
    let full = LimitedBackend::full(&world.storage);
    full.set_room(1 << 40);
    let backend = Arc::new(FaultBackend::new(full));
    backend.faults().inject(Fault::nth_of(Operation::Stage, 3, std::io::ErrorKind::QuotaExceeded).lasting());
    let before = world.storage.read(&ObjectKey::reserve(), u64::MAX).expect("there");
    set(&open(Arc::clone(&backend)), 3 * MIB).expect_err("a quota");
    assert!(backend.faults().fired() > 0);
    assert!(world.storage.read(&ObjectKey::reserve(), u64::MAX).expect("there") == before);
}

/// Another prune has given it back, and has it all to itself no longer.
#[test]
fn room_that_another_prune_makes_is_used() {
    let (world, first) = sample();
    set(&world.open(), 4 * MIB).expect("there is room");
    world.storage.delete(&ObjectKey::reserve()).expect("deleted");
    let backend = Arc::new(FaultBackend::new(world.storage.clone()));
    backend.faults().inject(Fault::nth_of(Operation::Create, 1, std::io::ErrorKind::StorageFull));
    let report = forget_it(&open(Arc::clone(&backend)), first).expect("there is room by now");
    assert_eq!(report.reserve, Spent { given_back: 0, lacking: 4 * MIB });
    backend.faults().inject(Fault::nth_of(Operation::Create, 1, std::io::ErrorKind::StorageFull));
    let report = prune::run(&open(Arc::clone(&backend)), &at_once(), &Silent).expect("there is room by now");
    assert_eq!((backend.faults().fired(), report.reserve), (2, Spent::default()));
    // Once, not for ever.
    world.storage.delete(&ObjectKey::reserve()).expect("deleted");
    let fault = Fault::nth_of(Operation::Create, 1, std::io::ErrorKind::StorageFull).lasting();
    backend.faults().inject(fault);
    drop_it(&open(backend)).expect_err("it stays full");
}

#[test]
fn a_reserve_is_made_as_it_was_last_wanted_by_anybody() {
    let (world, _) = sample();
    set(&world.open(), MIB).expect("there is room");
    let late = world.open();
    set(&world.open(), 2 * MIB).expect("there is room");
    world.storage.delete(&ObjectKey::reserve()).expect("deleted");
    put_right(&late);
    assert_eq!(status(&world.open()).expect("there").stored, Some(2 * MIB));
    let late = world.open();
    drop_it(&world.open()).expect("dropped");
    put_right(&late);
    assert_eq!(status(&world.open()).expect("there"), Status::default());
}

#[test]
fn a_check_tells_of_more_than_is_wanted_and_a_prune_mends_it() {
    let (world, _) = sample();
    let key = ObjectKey::reserve();
    world.storage.plant(&key, &noise(5, 1 << 20));
    assert_eq!(notes(&world.open()), ["reserve-unwanted"]);
    prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
    assert!(world.storage.stat(&key).expect_err("gone").is_not_found());
    set(&world.open(), MIB).expect("there is room");
    world.storage.delete(&key).expect("deleted");
    world.storage.plant(&key, &noise(5, 3 << 20));
    assert_eq!(notes(&world.open()), ["reserve-long"]);
    prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
    assert_eq!(status(&world.open()).expect("there").stored, Some(MIB));
    assert!(notes(&world.open()).is_empty());
}

/// Half of a pack is needed: its copy fits into the room that is free, and what names it does not.
fn half_needed(reserve: Option<u64>) -> World {
    let mut world = World::new();
    world.write("half", &noise(1, 400_000));
    world.write("other", &noise(2, 400_000));
    let first = world.back_up(&world.open());
    world.remove("other");
    world.back_up(&world.open());
    world.forget(&world.open(), first);
    if let Some(bytes) = reserve {
        set(&world.open(), bytes).expect("there is room");
    }
    world
}

#[test]
fn what_a_prune_without_room_wrote_in_vain_does_not_stay() {
    let prune_now = PruneOptions { max_unused: Limit::Bytes(0), ..at_once() };
    let waiting = PruneOptions { grace: std::time::Duration::from_secs(3600), ..prune_now.clone() };
    let (kept, bare) = (half_needed(Some(4 * MIB)), half_needed(None));
    let (mut in_vain, mut alone) = (0, 0);
    for free in (400_000..416_000).step_by(400) {
        for options in [&prune_now, &waiting] {
            let storage = kept.storage.snapshot();
            let full = LimitedBackend::full(&storage);
            full.set_room(full.used() + free);
            let seq = open(storage.clone()).fold().seq();
            let report =
                prune::run(&open(full.clone()), options, &Silent).expect("in the room of the reserve");
            assert!(report.packs_repacked > 0, "{free}: {report:?}");
            let (stored, listed) = test_support::packs(&storage);
            assert_eq!(stored as u64, listed as u64 + report.packs_waiting, "{free}");
            assert_eq!(
                report.packs_waiting,
                if options.grace.is_zero() { 0 } else { report.packs_condemned }
            );
            assert_eq!(report.packs_stray, 0, "{free}: {report:?}");
            let needed = if options.grace.is_zero() { 2 } else { 1 };
            in_vain += u32::from(open(storage.clone()).fold().seq() > seq + needed);
            test_support::verify(&storage, &kept.expected, kept.source.path().as_os_str().as_encoded_bytes());
        }
        // Without a reserve, the storage is not made fuller than it was.
        let storage = bare.storage.snapshot();
        let (before, seq) = (test_support::packs(&storage), open(storage.clone()).fold().seq());
        let full = LimitedBackend::full(&storage);
        full.set_room(full.used() + free);
        if prune::run(&open(full.clone()), &prune_now, &Silent).is_err() {
            let is_told = open(storage.clone()).fold().seq() > seq;
            alone += u32::from(is_told && test_support::packs(&storage) == before);
        }
    }
    assert!(in_vain > 4 && alone > 0, "{in_vain} {alone}: nothing was written in vain");
}

/// A backup that takes over what dead writers left comes across packs of a prune that fails, and makes them part of the index.
#[test]
fn what_others_have_taken_over_of_it_stays() {
    let world = half_needed(None);
    let (storage, hooked) = (world.storage.clone(), Hooked::new(&world.storage));
    hooked.before_create(a_segment, move || {
        assert_eq!(
            backup::adopt(&open(storage), &backup::BackupOptions::default(), &Silent).expect("adopted"),
            1,
            "the copy is stored, and nothing names it"
        );
    });
    let backend = Arc::new(FaultBackend::new(hooked.clone()));
    // The first of its commits comes too late, and the second finds no room.
    let full = Fault::nth_of(Operation::Create, 2, std::io::ErrorKind::StorageFull).in_folder(Folder::Log);
    backend.faults().inject(full);
    let before = test_support::packs(&world.storage);
    prune::run(&open(Arc::clone(&backend)), &at_once(), &Silent).expect_err("it is full");
    assert!(hooked.is_done() && backend.faults().fired() == 1);
    assert_eq!(test_support::packs(&world.storage), (before.0 + 1, before.1 + 1));
    world.verify();
    prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
    world.verify();
}

#[test]
fn its_bytes_are_really_on_the_disk_and_compress_to_nothing_less() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("repo");
    let backend = LocalBackend::create_repository(&path).expect("made");
    let repository = testing::init(Arc::new(backend), 77);
    set(&repository, 3 * MIB).expect("there is room");
    let file = path.join("reserve");
    let found = std::fs::metadata(&file).expect("a file");
    assert_eq!(found.len(), 3 * MIB);
    assert!(found.blocks() * 512 >= found.len(), "{} blocks", found.blocks());
    let bytes = std::fs::read(&file).expect("readable");
    let compressed = zstd::bulk::compress(&bytes, 3).expect("compressed");
    assert!(compressed.len() >= bytes.len());
    let left = std::fs::read_dir(path.join("tmp")).expect("a folder").count();
    assert_eq!(left, 0, "nothing else is left behind");
}

/// What is asked for where nobody says anything else is enough for storage that backups have filled to its brim.
#[test]
fn the_usual_reserve_is_a_way_out_of_storage_that_backups_filled() {
    let mut world = World::new();
    set(&world.open(), LEN_USUAL).expect("there is room");
    let storage = LimitedBackend::full(&world.storage);
    storage.set_room(LEN_USUAL + 6 * MIB);
    let (mut round, mut ways_out) = (0, 0);
    while ways_out < 3 {
        for n in 0..600 {
            world.write(&format!("d{}/{n}", n % 7), &noise(1000 * round + n, 700));
        }
        round += 1;
        match backup::run(&open(storage.clone()), world.paths(), &options(), &Silent) {
            Ok(report) => {
                let files = test_support::files_of(world.source.path());
                world.expected.insert(report.snapshot.expect("a snapshot"), files);
                continue;
            }
            Err(error) => assert!(backend::is_out_of_room(&error), "{error}"),
        }
        // Others fill what is left, and once more what is free beside the reserve that was given back.
        let fill = || storage.set_room(storage.used());
        fill();
        let before = storage.used();
        let snapshots = open(storage.clone()).snapshots().expect("readable");
        for (id, _) in &snapshots[..snapshots.len() / 2] {
            forget_it(&open(storage.clone()), *id).expect("forgotten");
            world.expected.remove(id);
        }
        fill();
        let report = prune::run(&open(storage.clone()), &no_repack(), &Silent).expect("pruned");
        assert!(report.packs_removed > 0 && report.reserve.given_back > 0, "{report:?}");
        storage.set_room(before);
        let report = prune::run(&open(storage.clone()), &no_repack(), &Silent).expect("pruned");
        assert_eq!(report.reserve.lacking, 0, "{report:?}");
        assert!(storage.used() + MIB < before, "{report:?}");
        world.back_up(&open(storage.clone()));
        ways_out += 1;
    }
    let blobs: u64 = world.open().fold().segments().map(|segment| segment.blobs).sum();
    assert!(blobs > 3000, "{round} {blobs}");
    world.verify();
}

/// Shorter than anybody can ask for: that is only too short for an index that is quickly made.
const SHORT: u64 = 100 << 10;

/// An index longer than the reserve, most of it in one segment that lists a pack of which nothing is needed any more.
fn large_index() -> World {
    let mut world = World::new();
    for n in 0..2500u64 {
        world.write(&format!("d{}/{n}", n % 17), &n.to_le_bytes());
    }
    world.back_up(&world.open());
    world.write("old", &noise(1, 1 << 19));
    let old = world.back_up(&world.open());
    world.remove("old");
    world.back_up(&world.open());
    let repository = world.open();
    let parts = repository.index().segments().to_vec();
    let merged = repository.store_merged(&parts).expect("stored").info;
    let removed: Vec<_> = parts.iter().map(|part| part.id()).collect();
    let merge = Change::SegmentsReplaced { added: vec![merged], removed: removed.clone() };
    let changes = vec![merge, Change::ReserveSet { bytes: SHORT }];
    repository.commit(&mut |_| Ok(changes.clone())).expect("committed");
    for id in removed {
        repository.delete_object(&ObjectKey::segment(&id)).expect("deleted");
    }
    world.forget(&repository, old);
    world.storage.plant(&ObjectKey::reserve(), &noise(5, usize::try_from(SHORT).expect("short")));
    assert!(needed(&repository).expect("listed") > SHORT);
    world
}

#[test]
fn a_reserve_grows_with_the_index() {
    let mut world = large_index();
    assert_eq!(notes(&world.open()), ["reserve-short"]);
    let storage = LimitedBackend::full(&world.storage);
    // There is no room: it stays as it is, nothing fails for that, and nothing is tried.
    storage.set_room(storage.used() + 2 * SHORT);
    world.write("new", b"new");
    world.back_up(&open(storage.clone()));
    let as_before = Status { wanted: Some(SHORT), stored: Some(SHORT) };
    assert_eq!((status(&world.open()).expect("there"), storage.refused()), (as_before, 0));
    let report = prune::run(&open(storage.clone()), &no_repack(), &Silent).expect("pruned");
    assert!(report.packs_removed > 0 && report.reserve.lacking > 0, "{report:?}");
    assert_eq!(status(&world.open()).expect("there"), as_before);

    storage.set_room(storage.used() + 2 * MIB);
    world.write("newer", b"newer");
    world.back_up(&open(storage.clone()));
    let grown = Status { wanted: Some(MIB), stored: Some(MIB) };
    assert_eq!(status(&world.open()).expect("there"), grown);
    assert!(notes(&world.open()).is_empty());
    let seq = world.open().fold().seq();
    keep_up(&open(storage)).expect("nothing to do");
    assert_eq!(world.open().fold().seq(), seq);
    world.verify();
}

#[test]
fn a_reserve_that_has_grown_is_a_way_out_and_one_that_has_not_is_none() {
    for grows in [true, false] {
        let mut world = large_index();
        let storage = LimitedBackend::full(&world.storage);
        storage.set_room(storage.used() + if grows { 2 * MIB } else { SHORT });
        world.write("new", b"new");
        world.back_up(&open(storage.clone()));
        storage.set_room(storage.used());
        let report = prune::run(&open(storage.clone()), &no_repack(), &Silent);
        assert_eq!(report.is_ok(), grows, "{report:?}");
        if let Ok(report) = report {
            assert!(report.packs_removed > 0 && report.reserve.given_back == MIB, "{report:?}");
        }
        world.verify();
    }
}

#[test]
fn a_reserve_that_the_index_comes_near_to_is_made_twice_as_long_as_that() {
    assert_eq!(outgrown(4 * MIB, 3 * MIB), None);
    assert_eq!(outgrown(5 * MIB, 4 * MIB), None);
    assert_eq!(outgrown(5 * MIB - 1, 4 * MIB), Some(8 * MIB));
    assert_eq!(outgrown(MIB, 100 * MIB), Some(200 * MIB));
    assert_eq!(outgrown(0, 1), Some(LEN_MIN));
    assert_eq!(outgrown(RESERVE_LEN_MAX, u64::MAX), None);
}
