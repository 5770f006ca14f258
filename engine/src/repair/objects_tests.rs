//! Damage within the capacity of parity, and what has to come of it: the same bytes again.

use std::sync::Arc;

use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::crypto::Password;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::World;
use crate::repair::test_support::{all_packs, check_all, flip, plain, repair, thorough, world};
use crate::repair::{Fate, ObjectsReport, objects};
use crate::repo::Repository;
use crate::testing;

/// A world with two backups and parity of all of it.
fn covered() -> World {
    let world = world();
    let report = parity::add(&world.open(), &AddOptions { threads: 1, ..AddOptions::default() }, &Silent);
    assert!(report.expect("added").damaged.is_empty());
    world
}

/// A handle on a repository whose log and index may be damaged.
fn open_damaged(storage: &MemoryBackend) -> Repository {
    let password = Password::new(testing::PASSWORD.to_vec());
    let backend = Arc::new(storage.clone());
    Repository::open_for_repair(backend.clone(), &password, testing::environment(4712))
        .or_else(|_| Repository::open_salvaged(backend, &password, testing::environment(4713)))
        .expect("it opens as far as it can be read")
}

fn mend_objects(storage: &MemoryBackend, dry_run: bool) -> ObjectsReport {
    objects::run(&open_damaged(storage), dry_run, &Silent).expect("done")
}

fn keys_of(storage: &MemoryBackend, folder: Folder) -> Vec<ObjectKey> {
    storage.objects().into_iter().map(|(key, _)| key).filter(|key| key.folder() == Some(folder)).collect()
}

/// All objects but parity.
fn objects_of(storage: &MemoryBackend) -> Vec<(ObjectKey, Arc<[u8]>)> {
    storage.objects().into_iter().filter(|(key, _)| key.folder() != Some(Folder::Parity)).collect()
}

#[test]
fn packs_get_their_bytes_back() {
    let world = covered();
    let before = objects_of(&world.storage);
    for (number, key) in all_packs(&world.storage).iter().enumerate() {
        match number % 2 {
            0 => flip(&world.storage, key),
            _ => world.storage.corrupt(key, |bytes| bytes.truncate(bytes.len() - 30)),
        }
    }
    let damaged = check_all(&open_damaged(&world.storage));
    assert!(damaged.is_damaged());
    let repairable = damaged.findings.iter().filter(|finding| finding.code == "repairable").count();
    assert_eq!(repairable, all_packs(&world.storage).len(), "{damaged:#?}");

    let repository = world.open();
    let dry = repair(&repository, &crate::repair::PacksOptions { dry_run: true, ..thorough() });
    assert!(dry.is_whole() || dry.packs.iter().all(|pack| pack.fate == Fate::Mended), "{dry:#?}");
    assert_eq!(dry.lost_count, 0);
    assert_ne!(objects_of(&world.storage), before, "nothing was written");
    let report = repair(&repository, &thorough());
    assert!(report.is_whole() && report.packs.iter().all(|pack| pack.fate == Fate::Mended), "{report:#?}");
    assert_eq!(objects_of(&world.storage), before);
    assert!(check_all(&world.open()).findings.is_empty());
    world.verify();
}

#[test]
fn more_damage_than_parity_can_do_is_for_the_other_ways() {
    let world = covered();
    let key = crate::repair::test_support::packs_of(&world.storage, true).remove(0);
    let len = world.storage.stat(&key).expect("there").size;
    world.storage.corrupt(&key, |bytes| bytes[200..len as usize / 2].fill(0));
    let report = check_all(&open_damaged(&world.storage));
    assert!(report.findings.iter().any(|finding| finding.code == "not-repairable"), "{report:#?}");
    let report = repair(&world.open(), &thorough());
    assert!(report.packs.iter().any(|pack| pack.fate == Fate::Dropped), "{report:#?}");
}

/// Whether an entry goes over its neighbour as it was is told by what the neighbour's parity gives.
#[test]
fn entries_side_by_side_get_their_bytes_back_and_stray_numbers_end_nothing() {
    let world = covered();
    let before = objects_of(&world.storage);
    let log = keys_of(&world.storage, Folder::Log);
    for key in &log[log.len() - 2..] {
        world.storage.corrupt(key, |bytes| bytes[90] ^= 1);
    }
    let stray = ObjectKey::log(u64::MAX);
    world.storage.plant(&stray, b"no commit");
    let report = mend_objects(&world.storage, false);
    let mended: Vec<_> = report.objects.iter().filter(|object| object.problem.is_none()).collect();
    assert_eq!(mended.len(), 2, "{report:#?}");
    world.storage.delete(&stray).expect("deleted");
    assert_eq!(objects_of(&world.storage), before);
}

/// An entry was committed over a damaged one, and then damaged beyond its parity: what it went over must stay.
#[test]
fn what_a_lost_entry_may_have_gone_over_stays() {
    let world = covered();
    let log = keys_of(&world.storage, Folder::Log);
    let (over, next) = (&log[log.len() - 2], &log[log.len() - 1]);
    world.storage.corrupt(over, |bytes| bytes[90] ^= 1);
    world.storage.corrupt(next, |bytes| bytes.fill(7));
    let sidecar = crate::sidecar::key_of(next).expect("entries have parity");
    world.storage.delete(&sidecar).expect("deleted");
    let before = world.storage.read(over, u64::MAX).expect("there");
    let report = mend_objects(&world.storage, false);
    assert!(report.left() > 0, "{report:#?}");
    assert_eq!(world.storage.read(over, u64::MAX).expect("there"), before);
}

#[test]
fn every_kind_of_object_gets_its_bytes_back() {
    let world = covered();
    // So many commits that there is a state.
    let repository = world.open();
    for overhead in (31..70).chain([30]) {
        let change = crate::format::commit::Change::ParitySet { overhead };
        repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
    }
    let record = crate::check::CheckOptions { record: true, threads: 1, ..Default::default() };
    crate::check::run(&repository, &record, &Silent).expect("checked");
    drop(repository);
    let before = objects_of(&world.storage);
    for folder in [Folder::Log, Folder::State, Folder::Index, Folder::Ledger] {
        let keys = keys_of(&world.storage, folder);
        assert!(!keys.is_empty(), "{folder:?}");
        // Each takes opening the repository twice.
        for key in keys.iter().take(5) {
            world.storage.corrupt(key, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
            });
            let dry = mend_objects(&world.storage, true);
            assert_eq!((dry.objects.len(), dry.left()), (1, 0), "{key}: {dry:#?}");
            let report = mend_objects(&world.storage, false);
            assert_eq!((report.objects.len(), report.left()), (1, 0), "{key}: {report:#?}");
            assert_eq!(report.objects[0].object, key.as_str());
            assert_eq!(objects_of(&world.storage), before, "{key}");
        }
        for key in &keys {
            flip(&world.storage, key);
        }
        assert_eq!(mend_objects(&world.storage, false).left(), 0);
        assert_eq!(objects_of(&world.storage), before, "all of {folder:?}");
    }
    assert!(check_all(&world.open()).findings.is_empty());
}

#[test]
fn missing_entries_of_the_log_are_had_again() {
    let world = covered();
    let before = objects_of(&world.storage);
    let log = keys_of(&world.storage, Folder::Log);
    for key in [&log[0], &log[1], &log[log.len() - 1]] {
        world.storage.delete(key).expect("deleted");
        let report = mend_objects(&world.storage, false);
        assert_eq!((report.objects.len(), report.left()), (1, 0), "{key}: {report:#?}");
    }
    // The last two: the log ends early, and looks whole.
    for key in &log[log.len() - 2..] {
        world.storage.delete(key).expect("deleted");
    }
    assert_eq!(mend_objects(&world.storage, false).objects.len(), 2);
    assert_eq!(objects_of(&world.storage), before);
}

#[test]
fn an_entry_that_a_later_commit_goes_over_stays_as_it_is() {
    let world = covered();
    let last = keys_of(&world.storage, Folder::Log).pop().expect("a log");
    flip(&world.storage, &last);
    let repository = world.open();
    let change = crate::format::commit::Change::ParitySet { overhead: 40 };
    repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed over it");
    let before = objects_of(&world.storage);
    let report = mend_objects(&world.storage, false);
    assert_eq!((report.objects.len(), report.left()), (1, 1), "{report:#?}");
    assert!(report.objects[0].problem.as_ref().is_some_and(|problem| problem.contains("goes over")));
    assert_eq!(objects_of(&world.storage), before);
}

#[test]
fn parity_of_another_object_is_not_believed() {
    let world = covered();
    let keys = keys_of(&world.storage, Folder::Index);
    let sidecar = |key: &ObjectKey| crate::sidecar::key_of(key).expect("it has one");
    let log = keys_of(&world.storage, Folder::Log);
    let (one, other) = (sidecar(&keys[0]), sidecar(&log[1]));
    let bytes = world.storage.read(&other, u64::MAX).expect("there");
    world.storage.plant(&one, &bytes);
    flip(&world.storage, &keys[0]);
    // A log entry with the parity of another one.
    let bytes = world.storage.read(&sidecar(&log[0]), u64::MAX).expect("there");
    world.storage.plant(&other, &bytes);
    flip(&world.storage, &log[1]);
    let before = objects_of(&world.storage);
    let report = mend_objects(&world.storage, false);
    assert_eq!((report.objects.len(), report.left()), (2, 2), "{report:#?}");
    assert_eq!(objects_of(&world.storage), before);
}

#[test]
fn damaged_parity_is_a_note_and_made_again() {
    let world = covered();
    for key in keys_of(&world.storage, Folder::Parity) {
        world.storage.corrupt(&key, |bytes| bytes[10] ^= 1);
    }
    let report = check_all(&world.open());
    assert!(!report.is_damaged() && report.findings.iter().any(|finding| finding.code == "parity-damaged"));
    // One head is enough.
    let pack = all_packs(&world.storage).remove(0);
    flip(&world.storage, &pack);
    assert!(repair(&world.open(), &thorough()).is_whole());
    let added = parity::add(&world.open(), &AddOptions { threads: 1, ..AddOptions::default() }, &Silent)
        .expect("added");
    assert!(added.added > 0, "{added:?}");
    assert!(check_all(&world.open()).findings.is_empty());
    assert!(repair(&world.open(), &plain()).is_whole());
    for key in keys_of(&world.storage, Folder::Parity) {
        world.storage.delete(&key).expect("deleted");
    }
    let report = check_all(&world.open());
    assert!(report.findings.iter().all(|finding| finding.code == "parity-missing"), "{report:#?}");
    assert_eq!(report.findings.len(), 1);
}
