//! Adding, keeping and dropping parity, by what a repository holds afterwards.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::backend::MemoryBackend;
use crate::backend::testing::crash::Outcome;
use crate::backend::testing::{CrashBackend, Fault, FaultBackend, Operation};
use crate::check::{self, CheckOptions, ReadData};
use crate::format::parity::Overhead;
use crate::monitor::Silent;
use crate::prune::test_support::{Hooked, World, noise, open};
use crate::prune::{self, Limit, PruneOptions};
use crate::sidecar;

fn overhead(tenths: u32) -> Overhead {
    Overhead::from_tenths(tenths).expect("in range")
}

fn options(tenths: u32) -> AddOptions {
    AddOptions { overhead: Some(overhead(tenths)), threads: 2, ..AddOptions::default() }
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
    for object in coverable(repository, &mut Vec::new()).expect("listed") {
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
    let pack = coverable(&repository, &mut Vec::new())
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
    let repository = open(backend);
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

/// A disk that cannot read one object any more, and one that cannot read a sidecar.
#[test]
fn an_object_that_cannot_be_read_is_named_and_all_others_are_covered() {
    let (world, repository) = world();
    let objects = coverable(&repository, &mut Vec::new()).expect("listed");
    drop(repository);
    let pack = objects.iter().rfind(|object| object.key.folder() == Some(Folder::Packs)).expect("packs");
    let backend = FaultBackend::new(world.storage.clone());
    let faults = backend.faults();
    let repository = open(backend);
    faults.inject(Fault::unreadable(&pack.key));
    let report = add(&repository, &options(30), &Silent).expect("it goes on");
    // The commit that says so is one more.
    let covered = report.added + report.present;
    assert_eq!((report.damaged.len(), covered), (1, objects.len() as u64), "{report:?}");
    assert!(report.damaged[0].contains(pack.key.as_str()), "{report:?}");
    faults.clear();
    let segment = objects.iter().find(|object| object.key.folder() == Some(Folder::Index)).expect("segments");
    faults.inject(Fault::unreadable(&sidecar::key_of(&segment.key).expect("it has one")));
    let report = add(&repository, &options(30), &Silent).expect("it goes on");
    assert_eq!((report.damaged.len(), report.added), (0, 2), "both are made: {report:?}");
    faults.clear();
    all_covered(&repository, &world.storage);
}

/// A state that a disk does not give just now may open later: without parity it is not all that was asked for.
#[test]
fn a_state_that_cannot_be_read_is_named() {
    let (world, repository) = world();
    for overhead in 1..=40 {
        let change = Change::ParitySet { overhead };
        repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
    }
    let keys: Vec<_> = world.storage.objects().into_iter().map(|(key, _)| key).collect();
    let state = keys.iter().rfind(|key| key.folder() == Some(Folder::State)).expect("a state");
    drop(repository);
    let backend = FaultBackend::new(world.storage.clone());
    let faults = backend.faults();
    let repository = open(backend);
    faults.inject(Fault::unreadable(state));
    let report = add(&repository, &options(30), &Silent).expect("it goes on");
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert!(report.damaged[0].contains(state.as_str()), "{report:?}");
    faults.clear();
    let report = add(&repository, &options(30), &Silent).expect("added");
    assert!(report.damaged.is_empty(), "{report:?}");
}

/// The commit that says what is wanted is made, and then cannot be read back: that must not be the one without parity.
#[test]
fn whichever_commit_cannot_be_read_is_covered_or_said_not_to_be() {
    let (world, repository) = world();
    drop(repository);
    let (mut covered, mut named) = (0, 0);
    for n in 1.. {
        let storage = world.storage.snapshot();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = open(backend);
        faults.inject(Fault::nth_of(Operation::Read, n, ErrorKind::Other).in_folder(Folder::Log));
        let result = add(&repository, &options(30), &Silent);
        if faults.fired() == 0 {
            assert!(n > 4, "the log was read {n} times");
            break;
        }
        match result {
            Ok(report) if report.damaged.is_empty() => {
                all_covered(&open(storage.clone()), &storage);
                covered += 1;
            }
            Ok(report) => {
                assert!(report.damaged.iter().all(|text| text.contains("log/")), "{n}: {report:?}");
                named += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("log/"), "{n}: {error}");
                named += 1;
            }
        }
    }
    assert!(covered > 0 && named > 0, "{covered} covered, {named} named");
}

#[test]
fn parity_that_cannot_be_listed_ends_neither_checks_nor_prunes() {
    let (world, repository) = world();
    add(&repository, &options(30), &Silent).expect("added");
    drop(repository);
    let backend = FaultBackend::new(world.storage.clone());
    let faults = backend.faults();
    let repository = open(backend);
    faults.inject(Fault::nth_of(Operation::List, 1, ErrorKind::Other).in_folder(Folder::Parity).lasting());
    let report = check::run(&repository, &CheckOptions::default(), &Silent).expect("checked");
    assert!(!report.is_damaged(), "{report:#?}");
    let told = report.findings.iter().filter(|finding| finding.code == "parity-damaged");
    assert_eq!(told.map(|finding| &*finding.object).collect::<Vec<_>>(), ["parity"]);
    assert!(repository.parity_troubles().is_empty());
    prune::run(&repository, &PruneOptions::default(), &Silent).expect("pruned");
    assert_eq!(repository.parity_troubles().len(), 1, "{:?}", repository.parity_troubles());
    // What cannot be looked up blocks nobody.
    faults.inject(Fault::nth_of(Operation::Stat, 1, ErrorKind::Other).in_folder(Folder::Parity).lasting());
    repository
        .commit(&mut |_| Ok(vec![Change::ParitySet { overhead: 40 }]))
        .expect("nobody knows of lost commits");
    assert_eq!(repository.parity_troubles().len(), 2, "{:?}", repository.parity_troubles());
}

/// All kinds of sidecars are looked at, not those of packs alone.
#[test]
fn damaged_parity_of_anything_is_noted_by_a_check_that_reads_data() {
    let (world, repository) = world();
    add(&repository, &options(30), &Silent).expect("added");
    while repository.fold().seq() < 33 {
        for overhead in [31, 30] {
            repository.commit(&mut |_| Ok(vec![Change::ParitySet { overhead }])).expect("committed");
        }
    }
    let record = CheckOptions { record: true, threads: 1, ..CheckOptions::default() };
    check::run(&repository, &record, &Silent).expect("checked");
    let deep = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    let check = || check::run(&repository, &deep, &Silent).expect("checked");
    assert!(check().findings.is_empty(), "{:#?}", check().findings);
    let objects = coverable(&repository, &mut Vec::new()).expect("listed");
    for folder in Folder::ALL.into_iter().filter(|folder| *folder != Folder::Parity).map(Some).chain([None]) {
        let object = objects.iter().find(|object| object.key.folder() == folder);
        let object = object.unwrap_or_else(|| panic!("nothing in {folder:?}"));
        let sidecar = sidecar::key_of(&object.key).expect("it has one");
        let sound = world.storage.read(&sidecar, u64::MAX).expect("there");
        world.storage.corrupt(&sidecar, |bytes| bytes[97] ^= 1);
        let report = check();
        let told: Vec<_> = report.findings.iter().map(|one| (one.code, &*one.object)).collect();
        assert_eq!(told, [("parity-damaged", sidecar.as_str())], "{}", object.key);
        world.storage.delete(&sidecar).expect("deleted");
        let report = check();
        assert_eq!(report.findings.len(), 1, "{}: {:#?}", object.key, report.findings);
        assert_eq!(report.findings[0].code, "parity-missing");
        world.storage.plant(&sidecar, &sound);
    }
}

/// Packs get their parity from whoever lists them, if the writer who stored them did not come to that.
#[test]
fn a_rebuilt_index_has_parity_and_so_has_what_it_lists() {
    let (world, repository) = world();
    add(&repository, &options(30), &Silent).expect("added");
    for object in coverable(&repository, &mut Vec::new()).expect("listed") {
        if matches!(object.key.folder(), Some(Folder::Packs)) {
            world.storage.delete(&sidecar::key_of(&object.key).expect("it has one")).expect("deleted");
        }
    }
    crate::rebuild::run(&repository, &crate::rebuild::RebuildOptions::default(), &Silent).expect("rebuilt");
    all_covered(&repository, &world.storage);
}

/// The parity of a keyslot is as good as a copy of it: a password that was removed would still open that.
#[test]
fn keyslots_have_parity_as_long_as_they_are_in_force() {
    let (world, repository) = world();
    add(&repository, &options(30), &Silent).expect("added");
    let password = crate::crypto::Password::new(b"another".to_vec());
    let slots = |storage: &MemoryBackend| {
        repository.refresh().expect("read");
        let there: Vec<_> = repository
            .keyslots()
            .iter()
            .map(|info| sidecar::key_of(&ObjectKey::keyslot(&info.entry.keyslot)).expect("it has one"))
            .collect();
        assert!(there.iter().all(|key| storage.stat(key).is_ok()), "{there:?}");
        sidecars(storage)
    };
    slots(&world.storage);
    let id = repository.add_keyslot(&password, "another", crate::testing::CHEAP).expect("added");
    let both = slots(&world.storage);
    repository.remove_keyslot(&id.to_string()).expect("removed");
    // One commit more.
    assert_eq!(slots(&world.storage), both);
    let parity = sidecar::key_of(&ObjectKey::keyslot(&id)).expect("it has one");
    assert!(world.storage.stat(&parity).expect_err("gone").is_not_found());
    let old = repository.keyslots().remove(0).entry.keyslot;
    repository.change_password(&password, crate::testing::CHEAP).expect("changed");
    slots(&world.storage);
    let parity = sidecar::key_of(&ObjectKey::keyslot(&old)).expect("it has one");
    assert!(world.storage.stat(&parity).expect_err("gone").is_not_found());
}

fn a_keyslot(key: &ObjectKey) -> bool {
    key.folder() == Some(Folder::Keys)
}

fn a_sidecar(key: &ObjectKey) -> bool {
    key.folder() == Some(Folder::Parity)
}

/// Simulation, seed 30457.
#[test]
fn a_keyslot_that_is_removed_meanwhile_needs_no_parity_and_keeps_none() {
    let password = crate::crypto::Password::new(b"another".to_vec());
    // It goes before it is read, or between that and its parity.
    for is_read in [false, true] {
        let (world, repository) = world();
        let id = repository.add_keyslot(&password, "another", crate::testing::CHEAP).expect("added");
        let parity = sidecar::key_of(&ObjectKey::keyslot(&id)).expect("it has one");
        add(&repository, &options(30), &Silent).expect("added");
        world.storage.delete(&parity).expect("deleted");
        let hooked = Hooked::new(&world.storage);
        let storage = world.storage.clone();
        let remove = move || {
            open(storage).remove_keyslot(&id.to_string()).expect("removed");
        };
        match is_read {
            // Of all others there is parity.
            true => hooked.before_create(a_sidecar, remove),
            false => hooked.before_open(a_keyslot, remove),
        }
        let report = add(&open(hooked.clone()), &options(30), &Silent).expect("added");
        assert!(hooked.is_done() && report.damaged.is_empty(), "{report:?}");
        assert!(world.storage.stat(&parity).expect_err("gone").is_not_found(), "read: {is_read}");
    }
}

/// Whoever adds a password makes parity when others may have removed that already.
#[test]
fn a_keyslot_that_is_removed_before_its_parity_is_made_keeps_none() {
    let password = crate::crypto::Password::new(b"another".to_vec());
    for moment in 0.. {
        let (world, repository) = world();
        add(&repository, &options(30), &Silent).expect("added");
        let hooked = Hooked::new(&world.storage);
        for _ in 0..moment {
            hooked.before_create(a_sidecar, || {});
        }
        let (storage, old) = (world.storage.clone(), repository.keyslots().remove(0).entry.keyslot);
        hooked.before_create(a_sidecar, move || {
            let repository = open(storage);
            let added = repository.keyslots().iter().map(|slot| slot.entry.keyslot).find(|id| *id != old);
            repository.remove_keyslot(&added.expect("one").to_string()).expect("removed");
        });
        let id =
            open(hooked.clone()).add_keyslot(&password, "another", crate::testing::CHEAP).expect("added");
        if !hooked.is_done() {
            assert!(moment > 1, "of the commit and of the keyslot");
            break;
        }
        let parity = sidecar::key_of(&ObjectKey::keyslot(&id)).expect("it has one");
        assert!(world.storage.stat(&parity).expect_err("gone").is_not_found(), "before sidecar {moment}");
    }
}

/// Of a keyslot that is damaged its parity may be all that is left. That does not go because nobody can tell just then whether it is wanted.
#[test]
fn parity_of_a_damaged_keyslot_stays_where_the_log_cannot_be_read_on() {
    let password = crate::crypto::Password::new(b"another".to_vec());
    let (world, repository) = world();
    let id = repository.add_keyslot(&password, "another", crate::testing::CHEAP).expect("added");
    add(&repository, &options(30), &Silent).expect("added");
    let key = ObjectKey::keyslot(&id);
    world.storage.corrupt(&key, |bytes| bytes[100] ^= 1);
    let mut failed = 0;
    for n in 1.. {
        let storage = world.storage.snapshot();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = open(backend);
        faults.inject(Fault::nth_of(Operation::Read, n, ErrorKind::TimedOut).in_folder(Folder::Log));
        failed += u32::from(add(&repository, &options(30), &Silent).is_err());
        sidecar::mend(&storage, &key)
            .and_then(|mending| mending.test())
            .unwrap_or_else(|error| panic!("{n}: {error}"));
        if faults.fired() == 0 {
            break;
        }
    }
    assert!(failed > 0, "the log is read on for keyslots");
}

#[test]
fn a_new_repository_with_parity_has_it_of_everything() {
    let storage = MemoryBackend::new();
    let options = crate::repo::InitOptions {
        kdf: crate::testing::CHEAP,
        label: String::new(),
        parity: Some(overhead(30)),
        reserve: None,
    };
    let password = crate::crypto::Password::new(crate::testing::PASSWORD.to_vec());
    let backend = std::sync::Arc::new(storage.clone());
    let repository = Repository::init(backend, &password, &options, crate::testing::environment(1));
    all_covered(&repository.expect("made"), &storage);
}

/// Power is cut at every operation of adding parity, in all ways that can end.
#[test]
fn adding_parity_that_is_cut_off_anywhere_can_be_run_again() {
    let (world, repository) = world();
    drop(repository);
    let one = AddOptions { threads: 1, ..options(30) };
    let run = |stop_at: Option<u64>| {
        let crash = std::sync::Arc::new(CrashBackend::new(world.storage.snapshot()));
        let repository = open(std::sync::Arc::clone(&crash));
        if let Some(n) = stop_at {
            crash.stop_at(n);
        }
        let result = add(&repository, &one, &Silent);
        (crash, result)
    };
    let (crash, result) = run(None);
    result.expect("added");
    let count = crash.mutations();
    assert!(count > 8, "{count} operations");
    for stop in 1..=count {
        let (crash, result) = run(Some(stop));
        // The last ones are for the commit's own sake.
        assert!(crash.is_stopped() && (result.is_err() || stop < 4), "{stop}: {result:?}");
        for outcome in Outcome::ALL {
            let storage = crash.crash(outcome);
            let repository = open(storage.clone());
            let report = add(&repository, &one, &Silent).expect("added");
            assert!(report.damaged.is_empty(), "{stop} {outcome:?}: {report:?}");
            all_covered(&repository, &storage);
        }
    }
}
