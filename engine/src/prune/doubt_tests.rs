//! Packs that a check found damaged: a prune keeps the other copy, and a backup does not rely on them. And other things that a prune must not
//! take for lost, or for whole.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use super::test_support::*;
use crate::backend::testing::{Fault, FaultBackend, Operation};
use crate::backend::{Backend, Folder, ObjectKey};
use crate::backup::{self, BackupOptions, SnapshotLabels};
use crate::check::{self, CheckOptions, CheckReport, ReadData};
use crate::crypto::Password;
use crate::format::commit::Change;
use crate::ids::ParityId;
use crate::monitor::{Monitor, Problem, Silent};
use crate::parity::{self, AddOptions};
use crate::prune;
use crate::repo::Repository;
use crate::testing;

/// Two backups of the same files of this length at once, none of which knew of the other's packs; the packs of data.
fn stored_twice(len: usize) -> (World, Vec<ObjectKey>) {
    let mut world = World::new();
    for file in 0..4 {
        world.write(&format!("f{file}"), &noise(file, len));
    }
    let hooked = Hooked::new(&world.storage);
    let (first, second) = (open(hooked.clone()), world.open());
    let paths = world.paths();
    hooked.before_create(
        |key| key.pack_id().is_some(),
        move || {
            // Two snapshots with the same record would be one.
            let labels = SnapshotLabels { tags: vec!["second".into()], ..SnapshotLabels::default() };
            backup::run(&second, paths, &BackupOptions { labels, ..options() }, &Silent).expect("a backup");
        },
    );
    world.back_up(&first);
    assert!(hooked.is_done());
    let packs = data_packs(&world);
    assert_eq!(packs.len(), 2, "each has stored all of it");
    let repository = world.open();
    for (id, _) in repository.snapshots().expect("readable") {
        world.expected.entry(id).or_insert_with(|| files_of(world.source.path()));
    }
    assert_eq!(world.expected.len(), 2);
    (world, packs)
}

fn data_packs(world: &World) -> Vec<ObjectKey> {
    let objects = world.storage.objects().into_iter();
    objects
        .filter(|(key, bytes)| key.pack_id().is_some() && bytes.len() > 100_000)
        .map(|(key, _)| key)
        .collect()
}

/// A check that reads everything and keeps in mind what it found.
fn recorded(world: &World) -> CheckReport {
    let options =
        CheckOptions { read_data: ReadData::All, record: true, threads: 1, ..CheckOptions::default() };
    check::run(&world.open(), &options, &Silent).expect("checked")
}

/// What a run tells.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Monitor for Told {
    fn problem(&self, problem: &Problem) {
        self.0.lock().expect("whole").push(format!("{}: {}", problem.code, problem.message));
    }
}

#[test]
fn of_two_copies_the_one_that_was_found_damaged_goes() {
    for damaged in 0..2 {
        let (mut world, packs) = stored_twice(60_000);
        world.storage.corrupt(&packs[damaged], |bytes| bytes[50_000] ^= 1);
        let report = recorded(&world);
        assert!(report.is_damaged() && report.hit_files.is_empty(), "{:#?}", report.findings);
        // Something is to be pruned, so that it is not a prune of nothing.
        let id = *world.expected.keys().next().expect("two");
        world.forget(&world.open(), id);
        prune(&world.open(), &at_once());
        assert_eq!(data_packs(&world), [packs[1 - damaged].clone()]);
        world.verify();
    }
}

#[test]
fn of_two_copies_that_were_found_damaged_both_stay() {
    // More than one block.
    let (mut world, packs) = stored_twice(2 << 20);
    for (pack, at) in packs.iter().zip([1 << 20, 7 << 20]) {
        world.storage.corrupt(pack, |bytes| bytes[at] ^= 1);
    }
    assert!(recorded(&world).hit_files.is_empty(), "what is damaged in one is whole in the other");
    let id = *world.expected.keys().next().expect("two");
    world.forget(&world.open(), id);
    prune(&world.open(), &at_once());
    assert_eq!(data_packs(&world), packs);
    let (id, files) = world.expected.first_key_value().expect("one is left");
    assert_restores(&world.open(), *id, files, world.source.path().as_os_str().as_encoded_bytes());
}

#[test]
fn of_two_copies_neither_goes_where_one_was_found_damaged_and_the_other_is_cut_off() {
    for damaged in 0..2 {
        let (mut world, packs) = stored_twice(60_000);
        world.storage.corrupt(&packs[damaged], |bytes| bytes[50_000] ^= 1);
        assert!(recorded(&world).hit_files.is_empty());
        world.storage.corrupt(&packs[1 - damaged], |bytes| bytes.truncate(bytes.len() - 30));
        let id = *world.expected.keys().next().expect("two");
        world.forget(&world.open(), id);
        prune(&world.open(), &at_once());
        // Parity may give either back.
        assert_eq!(data_packs(&world), packs, "{damaged}");
    }
}

/// A sound copy that came after the packs were listed is looked up. Where that fails, the damaged one is not all there is.
#[test]
fn a_pack_that_cannot_be_looked_up_just_now_does_not_pass_for_one_that_is_gone() {
    let mut world = World::new();
    for file in 0..4 {
        world.write(&format!("f{file}"), &noise(file, 60_000));
    }
    world.back_up(&world.open());
    world.storage.corrupt(&data_packs(&world)[0], |bytes| bytes[50_000] ^= 1);
    assert!(recorded(&world).is_damaged());
    let (files, root) = (files_of(world.source.path()), world.source.path().as_os_str().as_encoded_bytes());
    let mut fired = 0;
    for moment in 0.. {
        let mut is_done = false;
        for n in 1..4 {
            let storage = world.storage.snapshot();
            let hooked = Hooked::new(&storage);
            let backend = FaultBackend::new(hooked.clone());
            let faults = backend.faults();
            let repository = open(backend);
            for _ in 0..moment {
                hooked.before_read(a_commit, || {});
            }
            let (inner, paths) = (storage.clone(), world.paths());
            hooked.before_read(a_commit, move || {
                backup::run(&open(inner), paths, &options(), &Silent).expect("a backup");
            });
            faults.inject(Fault::nth_of(Operation::Stat, n, ErrorKind::TimedOut).in_folder(Folder::Packs));
            // It may fail.
            let _ = prune::run(&repository, &at_once(), &Silent);
            is_done = hooked.is_done();
            if !is_done {
                break;
            }
            fired += faults.fired();
            let repository = open(storage);
            for (id, _) in repository.snapshots().expect("readable") {
                assert_restores(&repository, id, &files, root);
            }
        }
        if !is_done {
            break;
        }
    }
    assert!(fired > 0, "what is not in the list is looked up");
}

#[test]
fn nothing_is_written_anew_of_what_is_in_doubt() {
    let mut world = World::new();
    for file in 0..4 {
        world.write(&format!("f{file}"), &noise(file, 60_000));
    }
    let first = world.back_up(&world.open());
    world.remove("f3");
    let second = world.back_up(&world.open());
    let packs = data_packs(&world);
    assert_eq!(packs.len(), 1);
    world.storage.corrupt(&packs[0], |bytes| bytes[50_000] ^= 1);
    recorded(&world);
    world.forget(&world.open(), first);
    let report = prune(&world.open(), &at_once());
    assert_eq!(report.packs_repacked, 0, "{report:?}");
    assert_eq!(data_packs(&world), packs, "what is left of {second} is for a repair");
}

#[test]
fn a_backup_stores_again_what_lies_in_no_sound_pack() {
    let mut world = World::new();
    for file in 0..4 {
        world.write(&format!("d/f{file}"), &noise(file, 60_000));
    }
    let first = world.back_up(&world.open());
    let packs = data_packs(&world);
    world.storage.corrupt(&packs[0], |bytes| bytes[50_000] ^= 1);
    assert!(!recorded(&world).hit_files.is_empty());
    // Nothing has changed, and one file is known by another name, too.
    world.write("d/again", &noise(0, 60_000));
    for skip_if_unchanged in [false, true] {
        let told = Told::default();
        let options = BackupOptions { skip_if_unchanged, ..options() };
        let report = backup::run(&world.open(), world.paths(), &options, &told).expect("a backup");
        let told = told.0.into_inner().expect("whole");
        if skip_if_unchanged {
            assert_eq!((report.snapshot, report.summary.bytes_added, &told[..]), (None, 0, &[][..]));
        } else {
            assert!(matches!(&told[..], [one] if one.starts_with("pack-in-doubt: ")), "{told:?}");
            let id = report.snapshot.expect("a snapshot");
            world.expected.insert(id, files_of(world.source.path()));
        }
    }
    // The first snapshot is healed as well.
    let report = check::run(
        &world.open(),
        &CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() },
        &Silent,
    );
    assert!(report.expect("checked").hit_files.is_empty());
    let repository = world.open();
    for (id, files) in &world.expected {
        assert_restores(&repository, *id, files, world.source.path().as_os_str().as_encoded_bytes());
    }
    assert!(world.expected.contains_key(&first));
    // And the damaged pack goes.
    prune(&world.open(), &at_once());
    assert!(!data_packs(&world).contains(&packs[0]));
    world.verify();
}

#[test]
fn what_is_unchanged_is_stored_again_without_a_snapshot() {
    let mut world = World::new();
    world.write("f", &noise(1, 60_000));
    world.back_up(&world.open());
    world.write("g", &noise(2, 120_000));
    let last = world.back_up(&world.open());
    let packs = data_packs(&world);
    world.storage.corrupt(&packs[0], |bytes| bytes[50_000] ^= 1);
    recorded(&world);
    let options = BackupOptions { skip_if_unchanged: true, ..options() };
    let report = backup::run(&world.open(), world.paths(), &options, &Silent).expect("a backup");
    assert!(report.snapshot.is_none() && report.summary.bytes_added > 0, "{report:?}");
    let repository = world.open();
    let place = world.source.path().as_os_str().as_encoded_bytes();
    assert_restores(&repository, last, &world.expected[&last], place);
}

/// What the ledger doubts is not relied on because it could not be read just now.
#[test]
fn a_ledger_that_cannot_be_read_just_now_ends_what_rests_on_it() {
    let (mut world, packs) = stored_twice(60_000);
    world.storage.corrupt(&packs[0], |bytes| bytes[50_000] ^= 1);
    recorded(&world);
    let id = *world.expected.keys().next().expect("two");
    world.forget(&world.open(), id);
    let backend = FaultBackend::new(world.storage.clone());
    let faults = backend.faults();
    let repository = open(backend);
    let fault = || Fault::nth_of(Operation::Read, 1, ErrorKind::TimedOut).in_folder(Folder::Ledger);
    let ledger = repository.fold().ledger();
    faults.inject(fault());
    super::run(&repository, &at_once(), &Silent).expect_err("it is not known what is in doubt");
    faults.inject(fault());
    backup::run(&repository, world.paths(), &options(), &Silent).expect_err("nor here");
    // A check says so, and writes no other one in its place that knows less.
    let recording =
        CheckOptions { read_data: ReadData::No, record: true, threads: 1, ..CheckOptions::default() };
    faults.inject(fault().lasting());
    let report = check::run(&repository, &recording, &Silent).expect("checked");
    assert!(report.is_damaged() && report.ledger_error.is_some(), "{report:#?}");
    faults.clear();
    repository.refresh().expect("read on");
    assert_eq!(repository.fold().ledger(), ledger);
    assert_eq!(repository.packs_in_doubt().expect("readable").len(), 1);
    prune(&repository, &at_once());
    assert_eq!(data_packs(&world), [packs[1].clone()]);
    world.verify();
}

/// Where an entry of the log is lost that a state goes beyond, only that state knows what it said.
#[test]
fn a_log_that_lacks_an_entry_costs_no_state() {
    let mut world = World::new();
    world.write("f", b"content");
    world.back_up(&world.open());
    let repository = world.open();
    while repository.fold().seq() < 40 {
        let overhead = u32::from(repository.fold().seq().is_multiple_of(2)) * 10;
        let change = Change::ParitySet { overhead };
        repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
    }
    let states = || -> Vec<_> {
        let objects = world.storage.objects().into_iter().map(|(key, _)| key);
        objects.filter(|key| key.folder() == Some(Folder::State)).collect()
    };
    let before = states();
    assert!(!before.is_empty());
    world.storage.delete(&ObjectKey::log(2)).expect("deleted");
    let repository = world.open();
    assert_eq!(repository.snapshots().expect("readable").len(), 1);
    let refused = super::run(&repository, &at_once(), &Silent).expect_err("the log is not whole");
    assert!(refused.to_string().contains("commit 2 is missing"), "{refused}");
    assert!(repository.delete_states().is_err());
    assert_eq!(states(), before);
    assert_eq!(world.open().snapshots().expect("readable").len(), 1);
}

/// What is lost may have nothing left but its parity.
#[test]
fn parity_of_what_is_lost_is_not_swept() {
    let mut world = World::new();
    world.write("f", b"content");
    let repository = world.open();
    let first = world.back_up(&repository);
    let other = Password::new(b"another".to_vec());
    let keyslot = repository.add_keyslot(&other, "another", testing::CHEAP).expect("added");
    recorded(&world);
    let report = parity::add(&repository, &AddOptions { threads: 1, ..AddOptions::default() }, &Silent);
    assert!(report.expect("added").damaged.is_empty());
    let ledger = repository.fold().ledger().expect("a check wrote one");
    let lost = [ObjectKey::keyslot(&keyslot), ObjectKey::ledger(&ledger)];
    lost.iter().for_each(|key| world.storage.delete(key).expect("deleted"));
    world.write("f", b"other");
    world.back_up(&world.open());
    world.forget(&world.open(), first);
    let of_nothing = ObjectKey::parity(&ParityId::from_bytes([7; 32]));
    world.storage.create(&of_nothing, b"of something that is gone").expect("stored");
    assert_eq!(prune(&world.open(), &at_once()).sidecars_removed, 1);
    assert!(world.storage.stat(&of_nothing).is_err());
    let report = crate::repair::objects::run(&world.open(), false, &Silent).expect("repaired");
    assert!(report.left() == 0 && report.objects.len() == 2, "{report:#?}");
    assert!(lost.iter().all(|key| world.storage.stat(key).is_ok()));
    assert!(Repository::open(Arc::new(world.storage.clone()), &other, testing::environment(4713)).is_ok());
}
