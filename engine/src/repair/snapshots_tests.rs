//! Snapshots of which something is lost, written anew without it and with its name.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use super::snapshots::run;
use super::test_support::*;
use super::*;
use crate::backend::testing::{Fault, FaultBackend};
use crate::backend::{Backend, MemoryBackend, ObjectKey};
use crate::backup;
use crate::forget;
use crate::format::commit::Change;
use crate::format::note::{REPAIR_NOTE, RepairNote};
use crate::format::record;
use crate::format::snapshot::Snapshot;
use crate::ids::SnapshotId;
use crate::log;
use crate::monitor::Silent;
use crate::prune::test_support::{
    Hooked, World, a_commit, a_segment, assert_restores, at_once, noise, open, options, prune, verify,
};
use crate::repo::Repository;

fn with_forget() -> SnapshotsOptions {
    SnapshotsOptions { forget: true, ..all_snapshots() }
}

fn names(snapshot: &RepairedSnapshot, world: &World) -> BTreeSet<String> {
    let root = world.source.path().as_os_str().as_bytes();
    let relative = |entry: &LostEntry| {
        let path = entry.path.strip_prefix(root).expect("below the source");
        String::from_utf8_lossy(path).trim_start_matches('/').to_owned()
    };
    snapshot.lost.iter().map(relative).collect()
}

/// Makes sure that a snapshot restores all that it should but for what is named.
#[track_caller]
fn assert_restores_without(repository: &Repository, world: &World, hit: &RepairedSnapshot) {
    let lost = names(hit, world);
    let mut files = world.expected[&hit.original].clone();
    files.retain(|name, _| !lost.iter().any(|lost| name == lost || name.starts_with(&format!("{lost}/"))));
    let root = world.source.path().as_os_str().as_bytes();
    assert_restores(repository, hit.repaired.expect("a repaired one"), &files, root);
}

/// All damaged data packs are gone, and the index goes on without them.
fn lose_large(world: &World) -> Repository {
    let large = packs_of(&world.storage, true)
        .into_iter()
        .max_by_key(|key| world.storage.stat(key).expect("there").size)
        .expect("data packs");
    flip(&world.storage, &large);
    let repository = world.open();
    assert!(repair(&repository, &thorough()).lost_count > 0);
    repository
}

#[test]
fn sound_snapshots_stay_as_they_are() {
    let world = world();
    let before = world.storage.objects();
    let report = run(&world.open(), &with_forget(), &Silent).expect("looked at");
    assert_eq!((report.checked, report.snapshots.len(), report.commit), (2, 0, None));
    assert_eq!(world.storage.objects(), before);
}

#[test]
fn what_is_lost_is_left_out_and_named_everywhere() {
    let world = world();
    let repository = lose_large(&world);
    let before = world.storage.objects();
    let dry = SnapshotsOptions { dry_run: true, ..with_forget() };
    let planned = run(&repository, &dry, &Silent).expect("looked at");
    assert_eq!(world.storage.objects(), before);
    assert_eq!((planned.snapshots.len(), planned.left(), planned.commit), (2, 2, None));

    let report = run(&repository, &all_snapshots(), &Silent).expect("repaired");
    assert_eq!((report.checked, report.snapshots.len(), report.left()), (2, 2, 2));
    let latest = repository.find_snapshot("latest").expect("a snapshot").0;
    for (hit, planned) in report.snapshots.iter().zip(&planned.snapshots) {
        assert_eq!((&hit.lost, hit.lost_count), (&planned.lost, 1));
        assert_eq!(names(hit, &world), ["large".to_owned()].into());
        assert!(!hit.is_lost && !hit.forgotten);
        assert_restores_without(&repository, &world, hit);
        let record = record_of(&repository, hit.repaired.expect("repaired"));
        let repaired = record.repaired.expect("it says so");
        assert_eq!((repaired.original, repaired.lost), (hit.original, 1));
        assert!(record.tags.iter().any(|tag| tag == Snapshot::REPAIRED_TAG));
        let files = world.expected[&hit.original].len() as u64;
        assert_eq!((record.summary.files, record.summary.errors), (files - 1, 1));
    }
    // The second of the repaired ones stands where the second of the originals stood.
    assert_eq!(report.snapshots[1].repaired, Some(latest));
    // Nothing is in order as long as the originals are there.
    assert!(check_all(&repository).is_damaged());
    assert_eq!(notes(&repository).len(), 2);
    for (hit, note) in report.snapshots.iter().zip(notes(&repository)) {
        assert_eq!((note.snapshot, note.original), (hit.repaired.expect("repaired"), hit.original));
        assert_eq!((note.lost.len(), note.more), (1, 0));
        assert_eq!(note.lost[0].as_slice(), hit.lost[0].path);
    }

    let again = run(&repository, &with_forget(), &Silent).expect("repaired");
    assert_eq!(again.left(), 0);
    let repaired =
        |report: &SnapshotsReport| report.snapshots.iter().map(|hit| hit.repaired).collect::<Vec<_>>();
    assert_eq!(repaired(&again), repaired(&report), "the same again is the same");
    assert!(!check_all(&repository).is_damaged());
    assert_eq!(repository.snapshots().expect("readable").len(), 2);
    let last = run(&repository, &with_forget(), &Silent).expect("looked at");
    assert!(last.snapshots.is_empty() && last.commit.is_none());
    prune(&repository, &at_once());
    assert!(!check_all(&repository).is_damaged());
}

#[test]
fn a_disk_that_fails_once_costs_no_snapshot() {
    let world = world();
    for n in 1.. {
        let storage = world.storage.snapshot();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = open(backend);
        faults.inject(Fault::broken(n));
        let result = run(&repository, &with_forget(), &Silent);
        if faults.fired() == 0 {
            assert!(n > 5, "{n}");
            break;
        }
        assert!(result.is_err() || result.is_ok_and(|report| report.snapshots.is_empty()), "{n}");
        assert_eq!(open(storage).snapshots().expect("readable").len(), 2, "{n}");
    }
}

fn record_of(repository: &Repository, id: SnapshotId) -> Snapshot {
    repository.find_snapshot(&id.to_string()).expect("it is there").1
}

fn notes(repository: &Repository) -> Vec<RepairNote> {
    let mut notes = Vec::new();
    let (backend, keys) = (&**repository.backend(), repository.keys());
    log::read_all(backend, keys, &repository.id(), repository.fold().config(), &mut |entry| {
        for change in entry.expect("valid").commit.changes {
            if let Change::Note { kind, record } = change {
                assert_eq!(kind, REPAIR_NOTE);
                notes.push(record::decode(&record).expect("a note"));
            }
        }
    })
    .expect("a whole log");
    notes
}

#[test]
fn the_next_backup_reads_again_what_was_left_out() {
    let mut world = world();
    let repository = lose_large(&world);
    run(&repository, &with_forget(), &Silent).expect("repaired");
    world.expected.clear();
    world.back_up(&repository);
    world.verify();
}

#[test]
fn lost_directories_are_named_and_all_others_stay() {
    let world = world();
    let metadata = packs_of(&world.storage, false);
    for key in &metadata {
        let storage = world.storage.snapshot();
        storage.delete(key).expect("deleted");
        let repository = open(storage.clone());
        assert!(repair(&repository, &plain()).lost_count > 0);
        let report = run(&repository, &with_forget(), &Silent).expect("repaired");
        assert!(!report.snapshots.is_empty() && report.left() == 0);
        for hit in report.snapshots.iter().filter(|hit| !hit.is_lost) {
            assert!(hit.lost.iter().all(|entry| entry.kind == LostKind::Directory), "{hit:?}");
            assert_restores_without(&repository, &world, hit);
        }
        assert!(!check_all(&repository).is_damaged());
    }
    let storage: MemoryBackend = world.storage.snapshot();
    metadata.iter().for_each(|key| storage.delete(key).expect("deleted"));
    let repository = open(storage);
    repair(&repository, &plain());
    let report = run(&repository, &all_snapshots(), &Silent).expect("looked at");
    assert!(report.snapshots.iter().all(|hit| hit.is_lost && hit.repaired.is_none() && !hit.forgotten));
    let report = run(&repository, &with_forget(), &Silent).expect("forgotten");
    assert!(report.left() == 0 && repository.snapshots().expect("readable").is_empty());
    assert!(!check_all(&repository).is_damaged());
}

#[test]
fn a_part_of_a_very_large_directory_is_lost_alone() {
    let mut world = World::new();
    for n in 0..2500 {
        world.write(&format!("many/f{n:05}"), b"");
    }
    world.write("many/g", b"x");
    let repository = world.open();
    let id = world.back_up(&repository);
    // One more file changes one part of the directory: its new tree is in a pack of its own.
    world.write("many/f02400x", b"");
    let second = world.back_up(&repository);
    let key = packs_of(&world.storage, false)
        .into_iter()
        .min_by_key(|key| world.storage.stat(key).expect("there").size)
        .expect("packs");
    let _ = (id, second);
    world.storage.delete(&key).expect("deleted");
    let repository = world.open();
    let copy = repair(&repository, &plain());
    assert!(copy.lost_count > 0);
    let report = run(&repository, &with_forget(), &Silent).expect("repaired");
    assert_eq!(report.left(), 0);
    assert!(!check_all(&repository).is_damaged());
}

#[test]
fn held_snapshots_are_not_forgotten() {
    let world = world();
    let repository = lose_large(&world);
    let held = *world.expected.keys().next().expect("two");
    forget::hold(&repository, held, "audit").expect("held");
    let report = run(&repository, &with_forget(), &Silent).expect("repaired");
    assert_eq!(report.left(), 1);
    let hit = report.snapshots.iter().find(|hit| hit.original == held).expect("it is hit");
    assert_eq!((hit.forgotten, hit.hold.as_deref()), (false, Some("audit")));
    assert!(hit.repaired.is_some() && check_all(&repository).is_damaged());
}

#[test]
fn only_named_snapshots_are_repaired() {
    let world = world();
    let repository = lose_large(&world);
    let named = *world.expected.keys().last().expect("two");
    let options = SnapshotsOptions { snapshots: vec![named], ..with_forget() };
    let report = run(&repository, &options, &Silent).expect("repaired");
    assert_eq!((report.checked, report.snapshots[0].original), (1, named));
}

#[test]
fn what_others_commit_meanwhile_is_kept_and_what_they_forget_is_gone() {
    for with_backup in [false, true] {
        others_commit_meanwhile(with_backup);
    }
}

fn others_commit_meanwhile(with_backup: bool) {
    let world = world();
    let repository = lose_large(&world);
    drop(repository);
    let hooked = Hooked::new(&world.storage);
    let other = world.open();
    let gone = *world.expected.keys().next().expect("two");
    world.write("meanwhile", &noise(400, 10_000));
    let paths = world.paths();
    hooked.before_create(a_commit, move || {
        crate::prune::test_support::forget(&other, gone);
        if with_backup {
            backup::run(&other, paths, &options(), &Silent).expect("a backup");
        }
    });
    let report = run(&open(hooked.clone()), &with_forget(), &Silent).expect("repaired");
    assert!(hooked.is_done());
    let repository = world.open();
    let live: Vec<_> = repository.snapshots().expect("readable").into_iter().map(|(id, _)| id).collect();
    let hit = report.snapshots.iter().find(|hit| hit.original == gone);
    // Where there is another index, everything is looked at anew.
    assert_eq!(hit.is_some(), !with_backup);
    let repaired = hit.and_then(|hit| hit.repaired);
    assert!(!repaired.is_some_and(|id| live.contains(&id)), "nobody wanted it any more");
    // The new one took the lost file over from its parent, which was still there: another repair finds it.
    let report = run(&repository, &with_forget(), &Silent).expect("repaired");
    assert!(report.snapshots.len() <= 1);
    assert!(!check_all(&repository).is_damaged());
}

#[test]
fn a_repair_of_snapshots_that_meets_a_prune_rests_on_nothing_that_is_gone() {
    let mut world = world();
    let repository = lose_large(&world);
    drop(repository);
    let hooked = Hooked::new(&world.storage);
    let other = world.open();
    // A prune needs sound snapshots: it comes once the damaged ones were forgotten.
    let gone: Vec<_> = world.expected.keys().copied().collect();
    world.expected.clear();
    hooked.before_create(a_commit, move || {
        gone.iter().for_each(|id| crate::prune::test_support::forget(&other, *id));
        prune(&other, &at_once());
    });
    let report = run(&open(hooked.clone()), &with_forget(), &Silent).expect("repaired");
    assert!(hooked.is_done() && report.snapshots.is_empty(), "{report:?}");
    assert!(!check_all(&world.open()).is_damaged());
    assert!(world.open().snapshots().expect("readable").is_empty());
}

/// What was lost when it was looked for may have been found again before that is said.
#[test]
fn a_repair_of_snapshots_that_meets_a_repair_of_packs_forgets_nothing_that_is_whole() {
    let world = world();
    let copy = world.storage.snapshot();
    drop(lose_large(&world));
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    hooked.before_create(a_commit, move || {
        let report = repair_from(&open(storage), &copy_of(&copy), &thorough()).expect("repaired");
        assert!(report.is_whole(), "{report:#?}");
    });
    let report = run(&open(hooked.clone()), &with_forget(), &Silent).expect("repaired");
    assert!(hooked.is_done() && report.snapshots.is_empty(), "{report:#?}");
    world.verify();
}

/// Whoever puts a pack back, or mends one, commits nothing.
#[test]
fn a_repair_of_snapshots_forgets_nothing_of_which_all_is_there_by_now() {
    let world = world();
    let root = world.source.path().as_os_str().as_bytes();
    let damages: [fn(&MemoryBackend, &ObjectKey); 2] =
        [flip, |storage, key| storage.delete(key).expect("deleted")];
    let mut met = 0;
    for key in all_packs(&world.storage) {
        for damage in damages {
            let storage = world.storage.snapshot();
            let whole = storage.read(&key, u64::MAX).expect("there");
            damage(&storage, &key);
            let hooked = Hooked::new(&storage);
            let (inner, key) = (storage.clone(), key.clone());
            // The last thing that is stored before the commit.
            hooked.before_create(a_segment, move || inner.plant(&key, &whole));
            let report = run(&open(hooked.clone()), &with_forget(), &Silent).expect("repaired");
            // Where nothing of a snapshot is left, nothing is stored; and content that is damaged, but there, is not read here.
            if hooked.is_done() {
                met += 1;
                assert!(report.snapshots.is_empty(), "{report:#?}");
                verify(&storage, &world.expected, root);
            }
        }
    }
    assert!(met > 3, "{met}");
}
