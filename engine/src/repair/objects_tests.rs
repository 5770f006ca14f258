//! Damage within the capacity of parity, and what has to come of it: the same bytes again.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::backend::testing::crash::Outcome;
use crate::backend::testing::{CrashBackend, Fault, FaultBackend, Operation};
use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::crypto::Password;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune;
use crate::prune::test_support::{Hooked, World, a_commit, at_once};
use crate::repair::test_support::{all_packs, check_all, flip, packs_of, plain, repair, thorough, world};
use crate::repair::{Fate, ObjectsReport, Sources, objects, packs};
use crate::repo::{Repository, RepositoryError};
use crate::testing;

/// A world with two backups and parity of all of it.
pub(super) fn covered() -> World {
    let world = world();
    let report = parity::add(&world.open(), &AddOptions { threads: 1, ..AddOptions::default() }, &Silent);
    assert!(report.expect("added").damaged.is_empty());
    world
}

/// A handle on a repository whose log and index may be damaged.
fn open_damaged(storage: &MemoryBackend) -> Repository {
    let password = Password::new(testing::PASSWORD.to_vec());
    Repository::open_for_check(Arc::new(storage.clone()), &password, testing::environment(4712))
        .expect("it opens as far as it can be read")
}

pub(super) fn mend_objects(storage: &MemoryBackend, dry_run: bool) -> ObjectsReport {
    objects::run(&open_damaged(storage), dry_run, &Silent).expect("done")
}

pub(super) fn keys_of(storage: &MemoryBackend, folder: Folder) -> Vec<ObjectKey> {
    storage.objects().into_iter().map(|(key, _)| key).filter(|key| key.folder() == Some(folder)).collect()
}

/// All objects but parity.
pub(super) fn objects_of(storage: &MemoryBackend) -> Vec<(ObjectKey, Arc<[u8]>)> {
    storage.objects().into_iter().filter(|(key, _)| key.folder() != Some(Folder::Parity)).collect()
}

/// Makes a commit.
pub(super) fn set_overhead(repository: &Repository, overhead: u32) -> Result<u64, RepositoryError> {
    let change = crate::format::commit::Change::ParitySet { overhead };
    repository.commit(&mut |_| Ok(vec![change.clone()]))
}

/// Deletes the last entries of the log.
pub(super) fn cut_log(storage: &MemoryBackend, entries: usize) -> Vec<ObjectKey> {
    let mut log = keys_of(storage, Folder::Log);
    let lost = log.split_off(log.len() - entries);
    lost.iter().for_each(|key| storage.delete(key).expect("deleted"));
    lost
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
    let as_damaged = world.storage.objects();
    let dry = repair(&repository, &crate::repair::PacksOptions { dry_run: true, ..thorough() });
    let mended = dry.packs.iter().filter(|pack| pack.fate == Fate::Mended).count();
    assert_eq!((mended, dry.packs.len()), (repairable, repairable), "{dry:#?}");
    assert!(dry.is_whole() && dry.damaged() > 0 && dry.lost_count == 0, "{dry:#?}");
    assert_eq!(world.storage.objects(), as_damaged, "a dry run writes nothing");
    let report = repair(&repository, &thorough());
    assert!(report.is_whole() && report.packs.iter().all(|pack| pack.fate == Fate::Mended), "{report:#?}");
    assert_eq!(objects_of(&world.storage), before);
    assert!(check_all(&world.open()).findings.is_empty());
    world.verify();
}

#[test]
fn more_damage_than_parity_can_do_is_for_the_other_ways() {
    let world = covered();
    let key = packs_of(&world.storage, true).remove(0);
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

/// One of the entries says that segments and packs are gone.
#[test]
fn what_a_mended_entry_takes_away_is_not_missing() {
    let mut world = covered();
    let first = *world.expected.keys().next().expect("two");
    world.forget(&world.open(), first);
    prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
    set_overhead(&world.open(), 50).expect("committed");
    let log = keys_of(&world.storage, Folder::Log);
    for key in &log[1..] {
        flip(&world.storage, key);
        let report = mend_objects(&world.storage, false);
        assert_eq!((report.objects.len(), report.left()), (1, 0), "{key}: {report:#?}");
    }
    world.verify();
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
        set_overhead(&repository, overhead).expect("committed");
    }
    let record = crate::check::CheckOptions { record: true, threads: 1, ..Default::default() };
    crate::check::run(&repository, &record, &Silent).expect("checked");
    drop(repository);
    let before = objects_of(&world.storage);
    let folders = [Folder::Log, Folder::State, Folder::Index, Folder::Ledger, Folder::Keys].map(Some);
    for folder in folders.into_iter().chain([None]) {
        let keys = match folder {
            Some(folder) => keys_of(&world.storage, folder),
            None => vec![ObjectKey::config()],
        };
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

/// Keyslots are bound to the id in it, so that no password fits.
#[test]
fn a_config_that_says_another_id_is_told_from_a_wrong_password() {
    let world = covered();
    let open = |password: &[u8]| {
        let backend = Arc::new(world.storage.snapshot());
        Repository::open(backend, &Password::new(password.to_vec()), testing::environment(1))
    };
    let is_wrong = |password: &[u8]| {
        let error = open(password).expect_err("no keyslot opens");
        assert!(matches!(error, RepositoryError::WrongPassword { .. }), "{error}");
    };
    is_wrong(b"another");
    let id = *world.open().id().as_bytes();
    let flip_id = || {
        world.storage.corrupt(&ObjectKey::config(), |bytes| {
            let at = bytes.windows(id.len()).position(|part| part == id).expect("the config has the id");
            bytes[at] ^= 1;
        });
    };
    flip_id();
    let damaged = open(testing::PASSWORD).expect_err("it says another id");
    assert!(matches!(damaged, RepositoryError::DamagedConfig { .. }), "{damaged}");
    is_wrong(b"another");
    assert_eq!(mend_objects(&world.storage, false).left(), 0);
    open(testing::PASSWORD).expect("as before");
    // Without parity nobody can tell.
    let sidecar = crate::sidecar::key_of(&ObjectKey::config()).expect("it has parity");
    world.storage.delete(&sidecar).expect("deleted");
    flip_id();
    is_wrong(testing::PASSWORD);
}

/// Whoever may add objects may give the config the parity of another one, where there is no parity yet.
#[test]
fn a_config_stands_against_parity_of_another_one() {
    let world = covered();
    let sidecar = crate::sidecar::key_of(&ObjectKey::config()).expect("it has parity");
    let other = MemoryBackend::new();
    let repository = testing::init(Arc::new(other.clone()), 4719);
    set_overhead(&repository, 30).expect("committed");
    parity::add(&repository, &AddOptions { threads: 1, ..AddOptions::default() }, &Silent).expect("added");
    let planted = other.read(&sidecar, u64::MAX).expect("there");
    world.storage.plant(&sidecar, &planted);
    let before = objects_of(&world.storage);
    assert!(check_all(&world.open()).findings.iter().all(|finding| !finding.is_damage));
    let wrong = Repository::open(
        Arc::new(world.storage.clone()),
        &Password::new(b"another".to_vec()),
        testing::environment(1),
    );
    assert!(matches!(wrong, Err(RepositoryError::WrongPassword { .. })), "{wrong:?}");
    // Whoever repairs goes by parity first.
    mend_objects(&world.storage, false);
    assert_eq!(objects_of(&world.storage), before);
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
    // A writer that did not look at it.
    let sidecar = crate::sidecar::key_of(&last).expect("entries have parity");
    let parity = world.storage.read(&sidecar, u64::MAX).expect("there");
    world.storage.delete(&sidecar).expect("deleted");
    set_overhead(&world.open(), 40).expect("committed over it");
    world.storage.plant(&sidecar, &parity);
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

/// Nor is that of another pack.
#[test]
fn packs_are_not_mended_with_each_others_parity() {
    let world = covered();
    let packs = packs_of(&world.storage, true);
    let sidecars = [&packs[0], &packs[1]].map(|pack| crate::sidecar::key_of(pack).expect("it has one"));
    let bytes = sidecars.clone().map(|key| world.storage.read(&key, u64::MAX).expect("there"));
    world.storage.plant(&sidecars[0], &bytes[1]);
    world.storage.plant(&sidecars[1], &bytes[0]);
    packs[..2].iter().for_each(|pack| flip(&world.storage, pack));
    let report = repair(&world.open(), &thorough());
    let fates: Vec<_> = report.packs.iter().map(|pack| (ObjectKey::pack(&pack.pack), pack.fate)).collect();
    assert_eq!(fates.len(), 2, "{fates:?}");
    assert!(packs[..2].iter().all(|pack| fates.contains(&(pack.clone(), Fate::Dropped))), "{fates:?}");
    assert!(report.lost_count > 0, "{report:#?}");
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

/// What is known of entries behind one that is lost for good counts, too.
#[test]
fn a_keyslot_that_was_added_behind_a_lost_entry_gets_its_bytes_back() {
    let world = covered();
    let repository = world.open();
    let lost = ObjectKey::log(set_overhead(&repository, 40).expect("committed"));
    let password = Password::new(b"another".to_vec());
    let id = repository.add_keyslot(&password, "another", testing::CHEAP).expect("added");
    drop(repository);
    let keyslot = ObjectKey::keyslot(&id);
    let whole = world.storage.read(&keyslot, u64::MAX).expect("there");
    world.storage.corrupt(&keyslot, |bytes| bytes[100] ^= 1);
    let sidecar = crate::sidecar::key_of(&lost).expect("entries have parity");
    [&lost, &sidecar].into_iter().for_each(|key| world.storage.delete(key).expect("deleted"));
    let report = mend_objects(&world.storage, false);
    let told: Vec<_> =
        report.objects.iter().map(|found| (found.object.as_str(), found.problem.is_none())).collect();
    assert_eq!(told, [(lost.as_str(), false), (keyslot.as_str(), true)], "{report:#?}");
    assert_eq!(world.storage.read(&keyslot, u64::MAX).expect("there"), whole);
}

/// Disks that cannot read single entries, and headers that pass for another version's.
#[test]
fn what_the_log_cannot_be_read_for_is_found_by_a_check_and_mended() {
    let world = covered();
    let before = objects_of(&world.storage);
    let entry = keys_of(&world.storage, Folder::Log).remove(1);
    let password = Password::new(testing::PASSWORD.to_vec());
    let open = |backend: Arc<dyn Backend>| {
        Repository::open_for_check(backend, &password, testing::environment(4714)).expect("as far as it goes")
    };
    let faulty = FaultBackend::new(world.storage.clone());
    faulty.faults().inject(Fault::unreadable(&entry));
    let report = check_all(&open(Arc::new(faulty)));
    let codes: Vec<_> = report.findings.iter().map(|finding| (finding.code, &*finding.object)).collect();
    assert!(codes.contains(&("log-damaged", entry.as_str())), "{report:#?}");
    assert!(codes.contains(&("repairable", entry.as_str())), "{report:#?}");

    // The digit of the version.
    world.storage.corrupt(&entry, |bytes| bytes[6] ^= 3);
    assert!(testing::open(Arc::new(world.storage.clone()), 4719).is_err());
    let report = check_all(&open(Arc::new(world.storage.clone())));
    assert!(report.is_damaged() && report.findings.iter().any(|finding| finding.code == "repairable"));
    assert_eq!(mend_objects(&world.storage, false).left(), 0);
    assert_eq!(objects_of(&world.storage), before);

    // Parity says that a newer version wrote it so.
    let last = keys_of(&world.storage, Folder::Log).pop().expect("a log");
    world.storage.corrupt(&last, |bytes| bytes[6] ^= 3);
    let bytes = world.storage.read(&last, u64::MAX).expect("there");
    let (overhead, hash) = (crate::format::parity::Overhead::default(), *blake3::hash(&bytes).as_bytes());
    crate::sidecar::store(&world.storage, &last, overhead, &hash).expect("stored");
    let backend = Arc::new(world.storage.clone());
    let opened = Repository::open_for_check(backend, &password, testing::environment(4715));
    assert!(matches!(opened, Err(RepositoryError::Log(crate::log::LogError::NotUnderstood { .. }))));
}

#[test]
fn an_object_that_cannot_be_dealt_with_ends_no_repair() {
    let world = covered();
    let segments = keys_of(&world.storage, Folder::Index);
    let log = keys_of(&world.storage, Folder::Log);
    let damaged = [&log[1], &segments[0], &segments[1]];
    damaged.iter().for_each(|key| flip(&world.storage, key));
    let backend = FaultBackend::new(world.storage.clone());
    for key in [&log[1], &segments[0]] {
        backend.faults().inject(Fault::unopenable(&crate::sidecar::key_of(key).expect("it has one")));
    }
    let password = Password::new(testing::PASSWORD.to_vec());
    let repository =
        Repository::open_for_check(Arc::new(backend), &password, testing::environment(4716)).expect("opens");
    let report = objects::run(&repository, false, &Silent).expect("it goes on");
    assert_eq!((report.objects.len(), report.left()), (3, 2), "{report:#?}");
    let mended = report.objects.iter().find(|object| object.problem.is_none()).expect("one is");
    assert_eq!(mended.object, segments[1].as_str());
}

/// What the second one follows nobody can tell any more, but what follows it.
#[test]
fn an_entry_behind_one_that_is_lost_for_good_gets_its_bytes_back() {
    let world = covered();
    set_overhead(&world.open(), 40).expect("committed");
    let log = keys_of(&world.storage, Folder::Log);
    let (lost, next) = (&log[log.len() - 3], &log[log.len() - 2]);
    let whole = world.storage.read(next, u64::MAX).expect("there");
    for is_gone in [false, true] {
        flip(&world.storage, lost);
        flip(&world.storage, next);
        let sidecar = crate::sidecar::key_of(lost).expect("entries have parity");
        world.storage.corrupt(&sidecar, |bytes| bytes[96..].fill(7));
        if is_gone {
            world.storage.delete(lost).expect("deleted");
            world.storage.delete(&sidecar).expect("deleted");
        }
        let report = mend_objects(&world.storage, false);
        assert_eq!((report.objects.len(), report.left()), (2, 1), "{report:#?}");
        assert_eq!(world.storage.read(next, u64::MAX).expect("there"), whole, "{is_gone}");
    }
}

/// What comes in place of an entry while it is being made again stays.
#[test]
fn what_others_store_meanwhile_is_not_replaced() {
    let world = covered();
    let lost = cut_log(&world.storage, 1).remove(0);
    let hooked = Hooked::new(&world.storage);
    let password = Password::new(testing::PASSWORD.to_vec());
    let repository =
        Repository::open_for_check(Arc::new(hooked.clone()), &password, testing::environment(4717))
            .expect("opens");
    let (storage, key) = (world.storage.clone(), lost.clone());
    hooked.before_create(a_commit, move || storage.plant(&key, b"of another writer"));
    let report = objects::run(&repository, false, &Silent).expect("done");
    assert!(hooked.is_done());
    assert_eq!((report.objects.len(), report.left()), (1, 1), "{report:#?}");
    assert!(report.objects[0].problem.as_ref().is_some_and(|problem| problem.contains("meanwhile")));
    assert_eq!(world.storage.read(&lost, 100).expect("there"), b"of another writer");
}

#[test]
fn what_has_changed_since_it_was_found_damaged_is_not_replaced() {
    let world = covered();
    let (storage, key) = (&world.storage, keys_of(&world.storage, Folder::Index).remove(0));
    let whole = storage.read(&key, u64::MAX).expect("there");
    flip(storage, &key);
    let damaged = storage.read(&key, u64::MAX).expect("there");
    let mending = crate::sidecar::mend(storage, &key).expect("made again");
    let other = [&damaged[..damaged.len() - 1], b"?"].concat();
    for changed in [whole.clone(), other, damaged[1..].to_vec()] {
        storage.corrupt(&key, |bytes| bytes.clone_from(&changed));
        let result = mending.replace(storage, &key);
        assert!(matches!(result, Err(crate::sidecar::MendError::Changed)), "{result:?}");
        assert_eq!(storage.read(&key, u64::MAX).expect("there"), changed);
    }
    storage.delete(&key).expect("deleted");
    let result = mending.replace(storage, &key);
    assert!(matches!(result, Err(crate::sidecar::MendError::Changed)), "{result:?}");
    storage.read(&key, u64::MAX).expect_err("it stays away");
    storage.plant(&key, &damaged);
    mending.replace(storage, &key).expect("as it was found");
    assert_eq!(storage.read(&key, u64::MAX).expect("there"), whole);
}

/// A sidecar in a record's place that speaks of more than a record can be is not followed.
#[test]
fn parity_of_something_longer_than_a_record_is_refused() {
    let world = covered();
    let last = keys_of(&world.storage, Folder::Log).pop().expect("a log");
    let overhead = crate::format::parity::Overhead::default();
    let shape = crate::format::parity::Shape::choose(80 << 20, overhead).expect("in range");
    let work = crate::sidecar::code::WORK_LEN;
    let made = crate::sidecar::code::encode(shape, work, &mut |_, _| Ok::<(), ()>(())).expect("zeros");
    world.storage.plant(&crate::sidecar::key_of(&last).expect("it has one"), &made.to_vec());
    world.storage.plant(&last, &vec![0; 80 << 20]);
    let result = crate::sidecar::mend(&world.storage, &last);
    assert!(matches!(result, Err(crate::sidecar::MendError::Other)), "{result:?}");
}

/// Power is cut at every create, replace and delete of a repair, in all ways that can end.
#[test]
fn a_repair_of_objects_that_is_cut_off_anywhere_can_be_run_again() {
    let world = covered();
    let before = objects_of(&world.storage);
    let log = keys_of(&world.storage, Folder::Log);
    flip(&world.storage, &log[1]);
    world.storage.delete(&log[log.len() - 1]).expect("deleted");
    for key in keys_of(&world.storage, Folder::Index) {
        flip(&world.storage, &key);
    }
    flip(&world.storage, &ObjectKey::config());
    let damaged = world.storage.snapshot();
    let password = Password::new(testing::PASSWORD.to_vec());
    let run = |crash: &Arc<CrashBackend>, stop_at| {
        let backend = Arc::clone(crash);
        let repository =
            Repository::open_for_check(backend, &password, testing::environment(4718)).expect("opens");
        if let Some(n) = stop_at {
            crash.stop_at(n);
        }
        objects::run(&repository, false, &Silent).map_or(true, |report| report.left() > 0)
    };
    let crash = Arc::new(CrashBackend::new(damaged.snapshot()));
    assert!(!run(&crash, None));
    let count = crash.mutations();
    assert!(count >= 5, "{count} operations");
    for stop in 1..=count {
        let crash = Arc::new(CrashBackend::new(damaged.snapshot()));
        assert!(run(&crash, Some(stop)), "it says that not all is done");
        for outcome in Outcome::ALL {
            let storage = crash.crash(outcome);
            for (key, bytes) in storage.objects() {
                let was = damaged.read(&key, u64::MAX).ok();
                let is_right = before.iter().any(|(other, whole)| *other == key && *whole == bytes);
                assert!(is_right || was.as_deref() == Some(&*bytes), "{key} is neither: {stop} {outcome:?}");
            }
            assert_eq!(mend_objects(&storage, false).left(), 0, "{stop} {outcome:?}");
            assert_eq!(objects_of(&storage), before, "{stop} {outcome:?}");
        }
    }
}

/// A pack is given up only when it is known that its parity cannot make it good.
#[test]
fn a_pack_whose_parity_cannot_be_read_just_now_stays() {
    let world = covered();
    let key = all_packs(&world.storage).remove(0);
    flip(&world.storage, &key);
    let backend = FaultBackend::new(world.storage.clone());
    let faults = backend.faults();
    let repository = prune::test_support::open(backend);
    faults.inject(Fault::nth_of(Operation::Read, 1, ErrorKind::TimedOut).in_folder(Folder::Parity).lasting());
    faults.inject(Fault::nth_of(Operation::Open, 1, ErrorKind::TimedOut).in_folder(Folder::Parity).lasting());
    let refused = packs::run(&repository, &thorough(), &Sources::default(), &Silent);
    assert!(refused.is_err(), "{refused:#?}");
    faults.clear();
    let report = repair(&repository, &thorough());
    assert!(report.is_whole() && report.packs[0].fate == Fate::Mended, "{report:#?}");
    assert!(!check_all(&world.open()).is_damaged());
}
