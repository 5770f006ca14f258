//! Packs damaged in every way, salvaged, healed from everywhere, or lost with a name; and everybody else at work meanwhile.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::test_support::*;
use super::*;
use crate::backend::testing::{Fault, FaultBackend, Operation};
use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::backup::{self, BackupOptions, ParentChoice};
use crate::format::parity::Overhead;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{
    Hooked, World, a_commit, a_pack, at_once, noise, open, options, prune, verify,
};
use crate::rebuild::{self, RebuildOptions};
use crate::repo::Repository;
use crate::testing;

#[test]
fn where_nothing_is_wrong_nothing_is_done() {
    let world = world();
    let before = world.storage.objects();
    let named = world.open().index().segments()[0].packs().next().expect("a pack").expect("readable").id;
    let report = repair(&world.open(), &PacksOptions { packs: vec![named], ..thorough() });
    assert!(report.is_whole() && report.damaged() == 0, "{report:?}");
    assert_eq!(report.packs.len(), 1);
    assert_eq!((report.packs[0].pack, report.packs[0].fate), (named, Fate::Sound));
    assert_eq!(world.storage.objects(), before);
}

#[test]
fn a_copy_heals_every_damage_of_every_pack() {
    let world = world();
    let copy = copy_of(&world.storage);
    for key in all_packs(&world.storage) {
        for (how, damage) in DAMAGES {
            let storage = world.storage.snapshot();
            damage(&storage, &key);
            let repository = open(storage.clone());
            assert!(check_all(&repository).is_damaged(), "{key}, {how}");
            let report = repair_from(&repository, &copy, &thorough()).expect("repaired");
            assert!(report.is_whole(), "{key}, {how}: {report:?}");
            let fate = if how == "gone" { Fate::Copied } else { Fate::Dropped };
            assert_eq!((report.packs.len(), report.packs[0].fate), (1, fate), "{how}");
            verify_all(&world, &storage);
        }
    }
}

#[test]
fn a_dry_run_says_what_would_come_of_it_and_writes_nothing() {
    let world = world();
    let copy = copy_of(&world.storage);
    let keys = all_packs(&world.storage);
    DAMAGES[0].1(&world.storage, &keys[0]);
    flip(&world.storage, &keys[1]);
    let before = world.storage.objects();
    let dry = PacksOptions { dry_run: true, ..thorough() };
    let planned = repair_from(&world.open(), &copy, &dry).expect("looked at");
    assert_eq!(world.storage.objects(), before);
    assert!(planned.lost_count == 0 && planned.damaged() == 2 && planned.after.is_none(), "{planned:?}");
    let report = repair_from(&world.open(), &copy, &thorough()).expect("repaired");
    assert_eq!(report.salvaged, planned.salvaged);
    assert_eq!(report.packs, planned.packs);
}

/// Makes sure that everything restores and that a check of every byte is content.
#[track_caller]
fn verify_all(world: &World, storage: &MemoryBackend) {
    use std::os::unix::ffi::OsStrExt;
    verify(storage, &world.expected, world.source.path().as_os_str().as_bytes());
}

#[test]
fn damaged_trees_are_found_and_healed_without_reading_all() {
    let world = world();
    let copy = copy_of(&world.storage);
    for key in packs_of(&world.storage, false) {
        let storage = world.storage.snapshot();
        flip(&storage, &key);
        let report = repair_from(&open(storage.clone()), &copy, &plain()).expect("repaired");
        assert!(report.is_whole() && report.damaged() == 1, "{report:?}");
        verify_all(&world, &storage);
    }
}

#[test]
fn what_a_damaged_pack_still_gives_is_kept() {
    let world = world();
    let large = packs_of(&world.storage, true)
        .into_iter()
        .max_by_key(|key| world.storage.stat(key).expect("there").size)
        .expect("data packs");
    flip(&world.storage, &large);
    let report = repair(&world.open(), &thorough());
    let pack = &report.packs[0];
    assert!(pack.unreadable > 0 && pack.unreadable < pack.blobs, "{pack:?}");
    assert_eq!(report.salvaged, pack.blobs - pack.unreadable);
    assert_eq!(report.lost_count, pack.unreadable);
    assert!(report.lost.iter().all(|blob| blob.is_data));
    let after = report.after.as_ref().expect("a check");
    assert!(after.is_damaged() && !report.is_whole());
    // The files that lie in the other blocks are not among those hit.
    assert!(!after.hit_files.is_empty());
    assert!(after.hit_files.iter().all(|hit| hit.path.ends_with(b"large")), "{:?}", after.hit_files);
    assert!(after.findings.iter().all(|finding| finding.code == "blob-missing"), "{:?}", after.findings);
    let again = repair(&world.open(), &thorough());
    assert_eq!((again.damaged(), again.lost_count), (0, report.lost_count), "nothing new is found");
}

/// A way in which the index goes on without what is lost.
type Losing = fn(&Repository);

#[test]
fn a_backup_of_unchanged_files_stores_again_what_was_lost() {
    let ways: [(&str, Losing); 2] = [
        ("repaired", |repository| assert!(!repair(repository, &plain()).is_whole())),
        ("rebuilt", |repository| {
            rebuild::run(repository, &RebuildOptions::default(), &Silent).expect("rebuilt");
        }),
    ];
    for (how, lose) in ways {
        let mut world = world();
        let repository = world.open();
        for key in packs_of(&world.storage, true) {
            world.storage.delete(&key).expect("deleted");
        }
        lose(&repository);
        let again = backup::run(&repository, world.paths(), &options(), &Silent).expect("a backup");
        assert_eq!(again.summary.files_unmodified, 0, "{how}");
        // The earlier content of the one file that changed is nowhere any more.
        let last = again.snapshot.expect("a snapshot");
        let hit = check_all(&repository).hit_files;
        assert!(
            !hit.is_empty() && hit.iter().all(|hit| hit.path.ends_with(b"dir0/small0")),
            "{how}: {hit:?}"
        );
        assert!(hit.iter().all(|hit| hit.snapshot != last), "{how}: {hit:?}");
        world.forget(&repository, hit[0].snapshot);
        world.verify();
        // From now on nothing is lost, and nothing is looked up or read.
        let unchanged = backup::run(&repository, world.paths(), &options(), &Silent).expect("a backup");
        assert_eq!(unchanged.summary.files_unmodified, unchanged.summary.files, "{how}");
    }
}

#[test]
fn live_files_heal_what_they_still_hold() {
    let world = world();
    for (how, damage) in [DAMAGES[0], DAMAGES[1]] {
        let storage = world.storage.snapshot();
        for key in packs_of(&storage, true) {
            damage(&storage, &key);
        }
        let sources = Sources { repository: None, paths: vec![world.source.path().to_owned()] };
        let repository = open(storage.clone());
        let report = packs::run(&repository, &thorough(), &sources, &Silent).expect("repaired");
        assert!(report.healed.from_paths > 0, "{report:?}");
        let after = report.after.expect("a check");
        // What was changed since the first backup is gone.
        let latest = repository.find_snapshot("latest").expect("a snapshot").0;
        assert!(after.hit_files.iter().all(|hit| hit.snapshot != latest), "{how}: {:?}", after.hit_files);
    }
}

#[test]
fn a_file_that_was_cut_otherwise_is_found_all_the_same() {
    let world = World::new();
    world.write("image", &noise(5, 2 << 20));
    let repository = world.open();
    let grain = backup::GrainRule { pattern: "*".into(), grain: crate::format::tree::Grain::Fine };
    let fine = BackupOptions { grains: vec![grain], ..options() };
    backup::run(&repository, world.paths(), &fine, &Silent).expect("a backup");
    packs_of(&world.storage, true).iter().for_each(|key| world.storage.delete(key).expect("deleted"));
    let sources = Sources { repository: None, paths: vec![world.source.path().to_owned()] };
    let dry = PacksOptions { dry_run: true, ..plain() };
    let planned = packs::run(&repository, &dry, &sources, &Silent).expect("looked at");
    let report = packs::run(&repository, &plain(), &sources, &Silent).expect("repaired");
    assert!(report.is_whole() && report.healed.from_paths > 20, "{report:?}");
    assert_eq!((planned.healed, planned.lost_count), (report.healed, 0));
    assert!(!check_all(&repository).is_damaged());
}

#[test]
fn packs_that_turn_up_again_are_a_source() {
    let world = world();
    let keys = all_packs(&world.storage);
    let whole: Vec<_> =
        keys.iter().map(|key| (key, world.storage.read(key, u64::MAX).expect("there"))).collect();
    keys.iter().for_each(|key| world.storage.delete(key).expect("deleted"));
    let report = repair(&world.open(), &plain());
    assert!(report.lost_count > 0 && report.healed.from_log == 2, "{report:?}");
    for (key, bytes) in whole {
        world.storage.plant(key, &bytes);
    }
    let report = repair(&world.open(), &plain());
    assert!(report.is_whole() && report.healed.from_unlisted_packs > 40, "{report:?}");
    verify_all(&world, &world.storage);
    // They count as strays: a prune deletes them, and nothing is missed.
    prune(&world.open(), &at_once());
    prune(&world.open(), &at_once());
    verify_all(&world, &world.storage);
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed);
}

#[test]
fn records_of_snapshots_come_from_the_log() {
    let world = World::new();
    let repository = world.open();
    world.write("file", b"content");
    backup::run(&repository, world.paths(), &options(), &Silent).expect("a backup");
    let copy = copy_of(&world.storage);
    let metadata = packs_of(&world.storage, false);
    metadata.iter().for_each(|key| flip(&world.storage, key));
    let report = repair_from(&repository, &copy, &plain()).expect("repaired");
    assert!(report.is_whole() && report.healed.from_log == 1, "{report:?}");
}

#[test]
fn a_foreign_repository_and_itself_are_refused() {
    let world = world();
    let key = &packs_of(&world.storage, true)[0];
    world.storage.delete(key).expect("deleted");
    let before = world.storage.objects();
    let foreign = testing::init(Arc::new(MemoryBackend::new().called("elsewhere")), 5);
    let error = repair_from(&world.open(), &foreign, &plain()).expect_err("other secrets");
    assert!(matches!(error, RepairError::Foreign { .. }), "{error}");
    let error = repair_from(&world.open(), &world.open(), &plain()).expect_err("the same place");
    assert!(matches!(error, RepairError::Itself { .. }), "{error}");
    let unknown = crate::ids::PackId::from_bytes([7; 32]);
    let options = PacksOptions { packs: vec![unknown], ..plain() };
    let error = packs::run(&world.open(), &options, &Sources::default(), &Silent).expect_err("no such pack");
    assert!(matches!(error, RepairError::UnknownPack(pack) if pack == unknown), "{error}");
    assert_eq!(world.storage.objects(), before);
}

#[test]
fn a_repository_that_is_mostly_away_is_not_written_off() {
    let mut world = World::new();
    let repository = world.open();
    for n in 0..8 {
        world.write("file", &noise(n, 1000));
        world.back_up(&repository);
    }
    let keys = all_packs(&world.storage);
    keys[..12].iter().for_each(|key| world.storage.delete(key).expect("deleted"));
    let before = world.storage.objects();
    let error = packs::run(&repository, &plain(), &Sources::default(), &Silent).expect_err("too much");
    assert!(matches!(error, RepairError::Mass { missing: 12, total: 16 }), "{error}");
    assert_eq!(world.storage.objects(), before);
    let report = repair(&repository, &PacksOptions { allow_mass: true, ..plain() });
    assert_eq!(report.damaged(), 12);
}

#[test]
fn a_damaged_index_is_to_be_rebuilt_first() {
    let world = world();
    let segments = || {
        let keys = world.storage.objects().into_iter().map(|(key, _)| key);
        keys.filter(|key| key.folder() == Some(Folder::Index)).collect::<Vec<_>>()
    };
    let repository = world.open();
    world.storage.corrupt(&segments()[0], |bytes| bytes[5000] ^= 1);
    let error = packs::run(&repository, &plain(), &Sources::default(), &Silent).expect_err("no index");
    assert!(matches!(error, RepairError::IndexDamaged { .. }), "{error}");
    world.storage.delete(&segments()[1]).expect("deleted");
    let password = crate::crypto::Password::new(testing::PASSWORD.to_vec());
    let open_for_repair = || {
        let backend = Arc::new(world.storage.clone());
        Repository::open_for_repair(backend, &password, testing::environment(9)).expect("opens")
    };
    let dry = RebuildOptions { dry_run: true, ..RebuildOptions::default() };
    let before = world.storage.objects();
    let planned = rebuild::run(&open_for_repair(), &dry, &Silent).expect("looked at");
    assert_eq!(world.storage.objects(), before);
    let report = rebuild::run(&open_for_repair(), &RebuildOptions::default(), &Silent).expect("rebuilt");
    assert_eq!((planned.packs, planned.blobs), (report.packs, report.blobs));
    assert!(repair(&world.open(), &thorough()).is_whole());
    verify_all(&world, &world.storage);
}

#[test]
fn a_removed_pack_that_is_still_there_does_not_come_back_into_the_index() {
    let mut world = world();
    let repository = world.open();
    let first = *world.expected.keys().next().expect("two");
    let kept = all_packs(&world.storage);
    world.forget(&repository, first);
    let bytes: Vec<_> = kept.iter().map(|key| world.storage.read(key, u64::MAX).expect("there")).collect();
    prune(&repository, &at_once());
    let gone: Vec<_> = kept.iter().zip(&bytes).filter(|(key, _)| world.storage.stat(key).is_err()).collect();
    assert!(!gone.is_empty());
    // As if the one who pruned had not come to deleting it yet.
    gone.iter().for_each(|(key, bytes)| world.storage.plant(key, bytes));
    let report = rebuild::run(&world.open(), &RebuildOptions::default(), &Silent).expect("rebuilt");
    assert_eq!(report.removed, gone.len() as u64);
    gone.iter().for_each(|(key, _)| world.storage.delete(key).expect("deleted"));
    world.verify();
}

#[test]
fn a_backup_that_commits_meanwhile_is_kept() {
    let mut world = world();
    let copy = copy_of(&world.storage);
    let key = packs_of(&world.storage, true)[0].clone();
    flip(&world.storage, &key);
    let hooked = Hooked::new(&world.storage);
    let other = world.open();
    world.write("meanwhile", &noise(300, 50_000));
    let paths = world.paths();
    let (sender, receiver) = std::sync::mpsc::channel();
    hooked.before_create(a_commit, move || {
        let report = backup::run(&other, paths, &options(), &Silent).expect("a backup");
        sender.send(report.snapshot.expect("a snapshot")).expect("heard");
    });
    let report = repair_from(&open(hooked.clone()), &copy, &thorough()).expect("repaired");
    assert!(hooked.is_done() && report.is_whole(), "{report:?}");
    let snapshot = receiver.recv().expect("a snapshot");
    let files = crate::prune::test_support::files_of(world.source.path());
    world.expected.insert(snapshot, files);
    world.verify();
}

#[test]
fn a_repair_that_meets_a_prune_begins_anew() {
    for at in [a_pack, a_commit] {
        let mut world = world();
        let copy = copy_of(&world.storage);
        let forgotten = *world.expected.keys().next().expect("two");
        let key = packs_of(&world.storage, true)[0].clone();
        flip(&world.storage, &key);
        let hooked = Hooked::new(&world.storage);
        let other = world.open();
        world.forget(&other, forgotten);
        // Nothing that is needed is read of the damaged pack, or the prune would fail and change nothing.
        hooked.before_create(at, move || {
            let options =
                crate::prune::PruneOptions { max_unused: crate::prune::Limit::Unlimited, ..at_once() };
            prune(&other, &options);
        });
        let report = repair_from(&open(hooked.clone()), &copy, &thorough()).expect("repaired");
        assert!(hooked.is_done() && report.is_whole(), "{report:?}");
        world.verify();
        prune(&world.open(), &at_once());
        prune(&world.open(), &at_once());
        world.verify();
    }
}

#[test]
fn a_backup_at_work_stores_again_what_a_repair_gave_up() {
    let mut world = world();
    for key in packs_of(&world.storage, true) {
        flip(&world.storage, &key);
    }
    let hooked = Hooked::new(&world.storage);
    let at_work = open(hooked.clone());
    let repairing = world.open();
    // It has read everything and found it stored already; now it is about to commit.
    hooked.before_create(a_commit, move || {
        assert!(repair(&repairing, &thorough()).lost_count > 0);
    });
    let force = BackupOptions { parent: ParentChoice::None, ..options() };
    let report = backup::run(&at_work, world.paths(), &force, &Silent).expect("a backup");
    assert!(hooked.is_done());
    let files = crate::prune::test_support::files_of(world.source.path());
    let expected = [(report.snapshot.expect("a snapshot"), files)].into();
    let lost: Vec<_> = check_all(&world.open()).hit_files;
    for snapshot in lost.iter().map(|hit| hit.snapshot).collect::<std::collections::BTreeSet<_>>() {
        assert!(report.snapshot != Some(snapshot), "{lost:?}");
        world.forget(&world.open(), snapshot);
    }
    use std::os::unix::ffi::OsStrExt;
    verify(&world.storage, &expected, world.source.path().as_os_str().as_bytes());
}

#[test]
fn a_repair_that_fails_half_way_loses_nothing_and_can_be_made_again() {
    let world = world();
    let copy = copy_of(&world.storage);
    for (number, key) in all_packs(&world.storage).iter().enumerate() {
        if number % 2 == 0 {
            DAMAGES[number / 2 % 2].1(&world.storage, key);
        }
    }
    for n in 1.. {
        let storage = world.storage.snapshot();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = open(backend);
        faults.inject(Fault::nth_mutation(n, ErrorKind::StorageFull));
        let result = repair_from(&repository, &copy, &thorough());
        if faults.fired() == 0 {
            assert!(result.expect("nothing failed").is_whole() && n > 5, "{n}");
            break;
        }
        let report = repair_from(&open(storage.clone()), &copy, &thorough()).expect("repaired");
        assert!(report.is_whole(), "{n}: {report:?}");
        verify_all(&world, &storage);
    }
}

#[test]
fn a_storage_that_does_not_answer_costs_nothing() {
    let world = world();
    let key = packs_of(&world.storage, true)[0].clone();
    flip(&world.storage, &key);
    let expected = repair(&open(world.storage.snapshot()), &thorough());
    let before = world.storage.objects();
    for n in (1..).step_by(5) {
        let storage = world.storage.snapshot();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = open(backend);
        let fault = Fault::nth_of(Operation::ReadRange, n, ErrorKind::TimedOut);
        faults.inject(fault.in_folder(Folder::Packs));
        let result = packs::run(&repository, &thorough(), &Sources::default(), &Silent);
        let Ok(report) = result else {
            assert_eq!(storage.objects(), before, "{n}");
            continue;
        };
        let dropped = |report: &PacksReport| {
            let packs = report.packs.iter().filter(|pack| pack.fate == Fate::Dropped);
            packs.map(|pack| (pack.pack, pack.unreadable)).collect::<Vec<_>>()
        };
        assert_eq!((dropped(&report), report.lost_count), (dropped(&expected), expected.lost_count), "{n}");
        if faults.fired() == 0 {
            assert!(n > 20, "{n}");
            break;
        }
    }
}

/// Whoever puts a pack back commits nothing: it stays in the index all the same.
#[test]
fn a_pack_that_is_put_back_while_packs_are_repaired_is_not_taken_out() {
    let world = world();
    let add = AddOptions { overhead: Overhead::from_tenths(300), threads: 1, ..AddOptions::default() };
    let covered = world.storage.snapshot();
    parity::add(&open(covered.clone()), &add, &Silent).expect("added");
    let root = world.source.path().as_os_str().as_encoded_bytes();
    type Hook = fn(&Hooked, Box<dyn FnOnce() + Send>);
    let hooks: [Hook; 3] = [
        // Once all was looked up, the log is asked for its end, and takes the entry.
        |hooked, action| hooked.before_open(|key| !a_commit(key), action),
        |hooked, action| hooked.before_read(|key| !a_commit(key), action),
        |hooked, action| hooked.before_create(|key| !a_commit(key), action),
    ];
    let mut put_back = 0;
    for whole in [&world.storage, &covered] {
        let pack = packs_of(whole, true).remove(0);
        for hook in hooks {
            for moment in 0.. {
                let storage = whole.snapshot();
                let bytes = storage.read(&pack, u64::MAX).expect("there");
                storage.delete(&pack).expect("deleted");
                let hooked = Hooked::new(&storage);
                let repository = open(hooked.clone());
                let next = ObjectKey::log(repository.fold().seq() + 1);
                (0..moment).for_each(|_| hook(&hooked, Box::new(|| {})));
                let (inner, key, is_late) = (storage.clone(), pack.clone(), Arc::new(AtomicBool::new(false)));
                let told = Arc::clone(&is_late);
                let put = move || {
                    told.store(inner.stat(&next).is_ok(), Ordering::Relaxed);
                    inner.create(&key, &bytes).expect("stored");
                };
                hook(&hooked, Box::new(put));
                let report = packs::run(&repository, &thorough(), &Sources::default(), &Silent);
                let report = report.unwrap_or_else(|error| panic!("{moment}: {error}"));
                if !hooked.is_done() || is_late.load(Ordering::Relaxed) {
                    break;
                }
                put_back += 1;
                assert!(report.is_whole(), "{moment}: {report:#?}");
                verify(&storage, &world.expected, root);
            }
        }
    }
    assert!(put_back > 20, "{put_back}");
}

/// A sector that a disk does not give once is no loss beside what parity makes good.
#[test]
fn one_read_that_fails_does_not_keep_parity_from_mending() {
    let world = world();
    let add = AddOptions { overhead: Overhead::from_tenths(300), threads: 1, ..AddOptions::default() };
    parity::add(&world.open(), &add, &Silent).expect("added");
    flip(&world.storage, &packs_of(&world.storage, true)[0]);
    let mut coped = 0;
    for n in (1..).step_by(11) {
        let storage = world.storage.snapshot();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = open(backend);
        faults.inject(Fault::broken(n).in_folder(Folder::Packs));
        let Ok(report) = packs::run(&repository, &thorough(), &Sources::default(), &Silent) else {
            continue;
        };
        coped += faults.fired();
        let is_mended = report.packs.iter().any(|pack| pack.fate == Fate::Mended);
        // The check at the end may be the one that meets it.
        assert!(report.lost_count == 0 && is_mended, "{n}: {report:?}");
        if faults.fired() == 0 {
            assert!(report.is_whole() && n > 50 && coped > 0, "{n}, {coped}");
            break;
        }
    }
}

#[test]
fn keys_are_as_they_are_said_to_be() {
    let world = world();
    let keys: Vec<ObjectKey> = all_packs(&world.storage);
    assert!(packs_of(&world.storage, true).len() >= 2 && keys.len() >= 4);
}
