//! Prunes, backups and forgets that get in each other's way, one fixed order of events at a time.

use std::sync::{Arc, Mutex};

use super::test_support::*;
use super::*;
use crate::backend::{Backend, Folder, MemoryBackend};
use crate::backup::{self, BackupOptions, SnapshotLabels};
use crate::browse;
use crate::check::{self, CheckOptions, CheckReport, ReadData};
use crate::diff;
use crate::forget;
use crate::format::commit::Change;
use crate::format::tree::NodeKind;
use crate::ids::{PackId, SnapshotId};
use crate::log::{self, Fold};
use crate::monitor::Silent;
use crate::repo::Repository;

/// A repository with one snapshot of the source as it is now, forgotten already: its packs are dead, but still in the
/// index, so that a backup deduplicates against them.
fn forgotten() -> World {
    let mut world = World::new();
    for file in 0..4u64 {
        world.write(&format!("d/f{file}"), &noise(file, 40_000));
    }
    let repository = world.open();
    let id = world.back_up(&repository);
    world.forget(&repository, id);
    world
}

/// Backs up by way of `hooked`; everything it was to do must have been done.
fn back_up_hooked(world: &mut World, hooked: &Hooked) -> SnapshotId {
    let id = world.back_up(&open(hooked.clone()));
    assert!(hooked.is_done(), "others were to come in between");
    id
}

/// How often packs were rescued.
fn rescued(repository: &Repository) -> usize {
    let mut rescued = 0;
    let mut fold = Fold::empty(repository.fold().config());
    let visit = &mut |entry: Result<log::LogEntry, _>| {
        for change in entry.expect("none is void").commit.changes {
            if let Change::PacksRescued { packs } = change {
                rescued += packs.len();
            }
        }
    };
    log::read_from(&**repository.backend(), repository.keys(), &repository.id(), &mut fold, visit)
        .expect("read");
    rescued
}

#[test]
fn a_pack_condemned_while_a_backup_relied_on_it_is_rescued() {
    let mut world = forgotten();
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    hooked.before_create(a_commit, move || {
        assert!(prune(&open(storage), &later()).packs_condemned > 0);
    });
    world.write("d/new", b"new");
    back_up_hooked(&mut world, &hooked);
    world.verify();
    let repository = world.open();
    assert!(rescued(&repository) > 0);
    prune(&repository, &at_once());
    prune(&repository, &at_once());
    world.verify();
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed);
}

#[test]
fn a_panic_while_a_pack_is_stored_fails_the_backup() {
    let mut world = World::new();
    let before = world.back_up(&world.open());
    world.write("d/new", &noise(7, 40_000));
    let hooked = Hooked::new(&world.storage);
    hooked.before_create(a_pack, || panic!("on purpose"));
    let failed = backup::run(&open(hooked.clone()), world.paths(), &options(), &Silent);
    assert!(failed.is_err() && hooked.is_done(), "{failed:?}");
    let repository = world.open();
    assert_eq!(repository.find_snapshot("latest").expect("one").0, before);
    world.verify();
}

#[test]
fn what_was_removed_while_a_backup_relied_on_it_is_stored_again() {
    let mut world = forgotten();
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    hooked.before_create(a_commit, move || {
        assert!(prune(&open(storage), &at_once()).packs_removed > 0);
    });
    world.write("d/new", b"new");
    back_up_hooked(&mut world, &hooked);
    world.verify();
}

/// Packs of a writer at work are strays to a prune. Condemned, they are rescued; removed, they are stored again.
#[test]
fn strays_of_a_backup_at_work_are_rescued_or_stored_again() {
    for prunes in 1..=2 {
        let mut world = forgotten();
        let hooked = Hooked::new(&world.storage);
        let storage = world.storage.clone();
        hooked.before_create(a_commit, move || {
            for _ in 0..prunes {
                prune(&open(storage.clone()), &at_once());
            }
        });
        for file in 0..4u64 {
            world.write(&format!("d/f{file}"), &noise(50 + file, 40_000));
        }
        back_up_hooked(&mut world, &hooked);
        world.verify();
        let repository = world.open();
        prune(&repository, &at_once());
        prune(&repository, &at_once());
        world.verify();
        let (stored, listed) = world.packs();
        assert_eq!(stored, listed, "{prunes} prunes");
    }
}

/// To a prune the segment of a backup at work is a stray one, too. Found by simulation.
#[test]
fn a_segment_that_is_dropped_before_it_is_opened_is_stored_again() {
    let mut world = forgotten();
    let hooked = Hooked::new(&world.storage);
    let (inner, storage) = (hooked.clone(), world.storage.clone());
    hooked.before_create(a_segment, move || {
        inner.before_open(a_segment, move || {
            assert!(prune(&open(storage), &at_once()).segments_stray > 0);
        });
    });
    world.write("d/new", &noise(8, 40_000));
    back_up_hooked(&mut world, &hooked);
    world.verify();
}

/// The same at every commit of a backup that is repeated: once it says that it is at work, it keeps what it relies on.
#[test]
fn a_backup_that_is_robbed_again_and_again_is_robbed_once() {
    let mut world = forgotten();
    let hooked = Hooked::new(&world.storage);
    for _ in 0..20 {
        let storage = world.storage.clone();
        hooked.before_create(a_commit, move || {
            let repository = open(storage);
            prune(&repository, &at_once());
            prune(&repository, &at_once());
        });
    }
    world.write("d/new", &noise(9, 50_000));
    world.back_up(&open(hooked.clone()));
    world.verify();
    let repository = world.open();
    prune(&repository, &at_once());
    prune(&repository, &at_once());
    world.verify();
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed, "nobody is waited for any more");
}

#[test]
fn a_backup_that_loses_the_race_for_its_commit_again_and_again_searches_once() {
    let mut world = forgotten();
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    hooked.before_create(a_commit, move || {
        assert!(prune(&open(storage), &later()).packs_condemned > 0);
    });
    for _ in 0..5 {
        let storage = world.storage.clone();
        hooked.before_create(a_commit, move || {
            let note = Change::Note { kind: "test".into(), record: Default::default() };
            open(storage).commit(&mut |_| Ok(vec![note.clone()])).expect("a note");
        });
    }
    world.write("d/new", b"new");
    back_up_hooked(&mut world, &hooked);
    world.verify();
    // Each search stores a segment of what it rescues, of which one is committed.
    let fold = world.open().fold();
    let objects = world.storage.objects().into_iter();
    let segments = objects.map(|(key, _)| key).filter(|key| key.folder() == Some(Folder::Index));
    let stored = segments.filter_map(|key| key.segment_id());
    let left: Vec<_> = stored.filter(|id| !fold.has_segment(id)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Duplicacy's first fossil schedule: a snapshot made while chunks turn into fossils refers to them; they have to come back.
/// The second: one that began before the fossils were collected and ends after the next collection.
#[test]
fn duplicacy_fossil_schedules_end_without_a_dangling_snapshot() {
    // Condemned and removed by two runs, both between the backup's first look and its commit.
    let mut world = forgotten();
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    hooked.before_create(a_pack, move || {
        assert!(prune(&open(storage), &later()).packs_condemned > 0);
    });
    let storage = world.storage.clone();
    hooked.before_create(a_commit, move || {
        assert!(prune(&open(storage), &at_once()).packs_removed > 0);
    });
    world.write("d/new", b"new");
    back_up_hooked(&mut world, &hooked);
    world.verify();

    // Two backups rely on the same condemned pack: the first rescues it, the second finds it at home.
    let mut world = forgotten();
    world.write("d/new", b"new");
    let hooked = Hooked::new(&world.storage);
    let first: Arc<Mutex<Option<SnapshotId>>> = Arc::default();
    let (storage, paths, id) = (world.storage.clone(), world.paths(), Arc::clone(&first));
    hooked.before_create(a_commit, move || {
        let other = Hooked::new(&storage);
        let inner = storage.clone();
        other.before_create(a_commit, move || {
            assert!(prune(&open(inner), &later()).packs_condemned > 0);
        });
        // Two snapshots with the same record would be one.
        let labels = SnapshotLabels { tags: vec!["first".into()], ..SnapshotLabels::default() };
        let options = BackupOptions { labels, ..options() };
        let report = backup::run(&open(other.clone()), paths, &options, &Silent).expect("a backup");
        assert!(other.is_done());
        *id.lock().expect("whole") = report.snapshot;
    });
    back_up_hooked(&mut world, &hooked);
    let first = first.lock().expect("whole").expect("a snapshot");
    world.expected.insert(first, files_of(world.source.path()));
    assert_eq!(world.expected.len(), 2);
    world.verify();
    assert!(rescued(&world.open()) > 0);
    prune(&world.open(), &at_once());
    world.verify();
}

#[test]
fn a_snapshot_committed_before_the_condemnation_keeps_its_packs() {
    // Dead packs, and packs that are being written anew.
    for is_partly_needed in [false, true] {
        let mut world = forgotten();
        if is_partly_needed {
            for file in 1..4u64 {
                world.remove(&format!("d/f{file}"));
            }
            let repository = world.open();
            world.back_up(&repository);
            for file in 1..4u64 {
                world.write(&format!("d/f{file}"), &noise(file, 40_000));
            }
        }
        let hooked = Hooked::new(&world.storage);
        let done: Arc<Mutex<Option<SnapshotId>>> = Arc::default();
        let (storage, paths, id) = (world.storage.clone(), world.paths(), Arc::clone(&done));
        hooked.before_create(a_commit, move || {
            let report = backup::run(&open(storage), paths, &options(), &Silent).expect("a backup");
            *id.lock().expect("whole") = report.snapshot;
        });
        prune(&open(hooked.clone()), &at_once());
        assert!(hooked.is_done());
        let id = done.lock().expect("whole").expect("a snapshot");
        world.expected.insert(id, files_of(world.source.path()));
        world.verify();
        let repository = world.open();
        prune(&repository, &at_once());
        prune(&repository, &at_once());
        world.verify();
        let (stored, listed) = world.packs();
        assert_eq!(stored, listed, "partly needed: {is_partly_needed}");
    }
}

/// Stored packs that segments list, or those that none does.
fn listed_or_not(storage: &MemoryBackend, is_listed: bool) -> Vec<PackId> {
    let repository = open(storage.clone());
    let segments = repository.index().segments();
    let listed: BTreeSet<PackId> =
        segments.iter().flat_map(|segment| segment.packs().map(|pack| pack.expect("readable").id)).collect();
    let stored =
        storage.objects().into_iter().filter(|(key, _)| a_pack(key)).filter_map(|(key, _)| key.pack_id());
    stored.filter(|pack| listed.contains(pack) == is_listed).collect()
}

/// A backup that had no snapshot yet, only a segment of blobs, commits between: its packs were strays a moment ago.
#[test]
fn strays_that_are_committed_meanwhile_are_none() {
    let mut world = forgotten();
    world.write("d/other", &noise(77, 60_000));
    let hooked = Hooked::new(&world.storage);
    // The backup stops before its commit; the prune begins, sees strays; the backup goes on before the prune commits.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel::<()>();
    hooked.before_create(a_commit, move || {
        ready.send(()).expect("waited for");
        wait.recv().expect("told to go on");
    });
    let (backend, paths) = (hooked.clone(), world.paths());
    let backup = std::thread::spawn(move || {
        backup::run(&open(backend), paths, &options(), &Silent).expect("a backup").snapshot.expect("one")
    });
    is_ready.recv().expect("the backup gets there");
    let strays: Vec<_> = listed_or_not(&world.storage, false);
    assert!(!strays.is_empty(), "the backup has stored packs");
    let pruning = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    let handle: Arc<Mutex<Option<std::thread::JoinHandle<SnapshotId>>>> = Arc::new(Mutex::new(Some(backup)));
    let (inside, id) = (Arc::clone(&handle), Arc::new(Mutex::new(None)));
    let result = Arc::clone(&id);
    pruning.before_create(a_commit, move || {
        go.send(()).expect("the backup waits");
        let backup = inside.lock().expect("whole").take().expect("started");
        *result.lock().expect("whole") = Some(backup.join().expect("no panic"));
        assert_eq!(open(storage).fold().condemned().count(), 0);
    });
    prune(&open(pruning.clone()), &later());
    assert!(pruning.is_done());
    let id = id.lock().expect("whole").expect("a snapshot");
    world.expected.insert(id, files_of(world.source.path()));
    world.verify();
    for (pack, _) in world.open().fold().condemned() {
        assert!(!strays.contains(pack), "a snapshot needs what was a stray a moment ago");
    }
}

#[test]
fn two_prunes_at_once_free_everything_once() {
    for first in [later(), at_once()] {
        let mut world = forgotten();
        let repository = world.open();
        world.write("d/f0", b"something else");
        world.back_up(&repository);
        let hooked = Hooked::new(&world.storage);
        let storage = world.storage.clone();
        hooked.before_create(a_commit, move || {
            prune(&open(storage), &first);
        });
        prune(&open(hooked.clone()), &at_once());
        assert!(hooked.is_done());
        world.verify();
        prune(&world.open(), &at_once());
        prune(&world.open(), &at_once());
        world.verify();
        let (stored, listed) = world.packs();
        assert_eq!(stored, listed);
    }
}

#[test]
fn a_forget_between_does_not_disturb_a_prune() {
    let mut world = forgotten();
    let repository = world.open();
    let mut ids = Vec::new();
    for night in 0..2u64 {
        world.write("d/night", &noise(60 + night, 30_000));
        ids.push(world.back_up(&repository));
    }
    let hooked = Hooked::new(&world.storage);
    let (storage, id) = (world.storage.clone(), ids[0]);
    hooked.before_create(a_commit, move || forget(&open(storage), id));
    prune(&open(hooked.clone()), &at_once());
    assert!(hooked.is_done());
    world.expected.remove(&ids[0]);
    world.verify();
    prune(&world.open(), &at_once());
    world.verify();
}

#[test]
fn segments_merged_between_are_rewritten_in_their_new_form() {
    let mut world = forgotten();
    let repository = world.open();
    // Backups merge by themselves when there are more than eight: one less, by hand.
    for night in 0..7u64 {
        world.write("d/night", &noise(60 + night, 3000));
        world.back_up(&repository);
    }
    let hooked = Hooked::new(&world.storage);
    let (storage, paths) = (world.storage.clone(), world.paths());
    world.write("d/last", b"last");
    let done: Arc<Mutex<Option<SnapshotId>>> = Arc::default();
    let id = Arc::clone(&done);
    hooked.before_create(a_commit, move || {
        let repository = open(storage);
        *id.lock().expect("whole") =
            backup::run(&repository, paths, &options(), &Silent).expect("a backup").snapshot;
        assert!(repository.fold().segments().count() < 8, "they were merged");
    });
    // Forgotten nights make dead packs in many segments.
    let nights: Vec<_> = world.expected.keys().copied().collect();
    let keep = world.open().find_snapshot("latest").expect("there").0;
    for night in nights.into_iter().filter(|night| *night != keep) {
        world.forget(&repository, night);
    }
    prune(&open(hooked.clone()), &at_once());
    assert!(hooked.is_done());
    let id = done.lock().expect("whole").expect("a snapshot");
    world.expected.insert(id, files_of(world.source.path()));
    world.verify();
    prune(&world.open(), &at_once());
    world.verify();
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed);
}

#[test]
fn a_hold_between_stops_a_policy() {
    let mut world = forgotten();
    let repository = world.open();
    let first = world.back_up(&repository);
    world.write("d/f0", b"changed");
    world.back_up(&repository);
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    hooked.before_create(a_commit, move || {
        forget::hold(&open(storage), first, "audit").expect("held");
    });
    let options = forget::ForgetOptions {
        wish: forget::Wish::Named(vec![first]),
        selection: forget::Selection::default(),
        group_by: forget::policy::GroupBy::default(),
        guards: forget::Guards::default(),
        dry_run: false,
        reason: String::new(),
    };
    let result = forget::run(&open(hooked.clone()), &options, &crate::testing::NoCalendar);
    assert!(matches!(result, Err(forget::ForgetError::Held { .. })), "{result:?}");
    assert!(hooked.is_done());
    world.verify();
}

/// A reader that opened before finds its packs gone, and what was in them elsewhere.
#[test]
fn a_reader_at_work_finds_what_was_rewritten() {
    let mut world = forgotten();
    for file in 2..4u64 {
        world.remove(&format!("d/f{file}"));
    }
    let repository = world.open();
    let id = world.back_up(&repository);
    let hooked = Hooked::new(&world.storage);
    let reader = open(hooked.clone());
    let storage = world.storage.clone();
    hooked.before_read(a_pack, move || {
        assert!(prune(&open(storage), &at_once()).packs_removed > 0);
    });
    assert_restores(&reader, id, &world.expected[&id], world.source.path().as_os_str().as_encoded_bytes());
    assert!(hooked.is_done());
}

/// The same with trees, which are read by other means: whoever lists, compares or counts.
#[test]
fn a_lister_at_work_finds_trees_that_were_rewritten() {
    let mut world = World::new();
    for file in 0..50u64 {
        world.write(&format!("kept/f{file}"), &noise(file, 100));
    }
    let repository = world.open();
    let first = world.back_up(&repository);
    world.write("new/f", b"new");
    let id = world.back_up(&repository);
    let reader = world.open();
    let differ = world.open();
    world.forget(&repository, first);
    assert!(prune(&repository, &at_once()).packs_removed > 0);
    let (_, snapshot) = reader.find_snapshot(&id.to_string()).expect("it is there");
    let root = browse::Found::Root(snapshot.tree);
    let told =
        diff::run(differ.reader(), b"", None, Some(&root), &mut |_| std::ops::ControlFlow::Continue(()));
    assert_eq!(told.expect("compared").added.files, 51);
    let mut files = 0;
    browse::list(reader.reader(), &snapshot.tree, b"", true, &mut |_, node| {
        files += u32::from(matches!(node.kind, NodeKind::File(_)));
        std::ops::ControlFlow::Continue(())
    })
    .expect("listed");
    assert_eq!(files, 51);
}

/// A pack that was removed, and whose deletion comes late, is not what a later backup may rely on.
#[test]
fn a_pack_that_is_still_there_after_its_removal_is_a_stray() {
    let mut world = forgotten();
    let before = world.storage.objects();
    prune(&world.open(), &at_once());
    // The deletes did not reach the disk.
    for (key, bytes) in before.iter().filter(|(key, _)| a_pack(key)) {
        if world.storage.stat(key).is_err() {
            world.storage.plant(key, bytes);
        }
    }
    let repository = world.open();
    world.back_up(&repository);
    let listed = listed_or_not(&world.storage, true);
    assert!(!before.iter().any(|(key, _)| key.pack_id().is_some_and(|pack| listed.contains(&pack))));
    prune(&repository, &at_once());
    prune(&repository, &at_once());
    world.verify();
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed);
}

fn check_by(hooked: &Hooked) -> CheckReport {
    let options = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    check::run(&open(hooked.clone()), &options, &Silent).expect("checked")
}

/// A repository with packs that are needed in part, and its one snapshot.
fn partly_needed() -> (World, SnapshotId) {
    let mut world = forgotten();
    for file in 2..4u64 {
        world.remove(&format!("d/f{file}"));
    }
    let repository = world.open();
    let id = world.back_up(&repository);
    (world, id)
}

/// Whenever a prune comes in between, what it removes is no damage.
#[test]
fn a_check_at_work_does_not_take_what_is_removed_for_damage() {
    let mut moment = 0;
    loop {
        let (world, _) = partly_needed();
        let hooked = Hooked::new(&world.storage);
        for _ in 0..moment {
            hooked.before_read(a_pack, || {});
        }
        let storage = world.storage.clone();
        hooked.before_read(a_pack, move || {
            assert!(prune(&open(storage), &at_once()).packs_removed > 0);
        });
        let report = check_by(&hooked);
        assert!(!report.is_damaged() && !report.overtaken, "at read {moment}: {report:#?}");
        assert_eq!(report.snapshots, 1);
        if !hooked.is_done() {
            break;
        }
        moment += 1;
    }
    assert!(moment > 4, "a check reads packs more often than {moment} times");
}

#[test]
fn a_check_beside_a_prune_finds_what_is_really_missing() {
    let (world, _) = partly_needed();
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    hooked.before_read(a_pack, move || {
        assert!(prune(&open(storage.clone()), &at_once()).packs_removed > 0);
        let lost = listed_or_not(&storage, true);
        storage.delete(&backend::ObjectKey::pack(&lost[0])).expect("deleted");
    });
    let report = check_by(&hooked);
    assert!(hooked.is_done() && report.is_damaged(), "{report:#?}");
    assert!(report.findings.iter().any(|finding| finding.code == "pack-missing"), "{:#?}", report.findings);
}

/// In each attempt everything that there was is replaced: in the end the check says that it could not keep up.
#[test]
fn a_check_that_is_overtaken_again_and_again_says_so() {
    for (times, is_overtaken) in [(9, false), (10, true)] {
        let mut world = World::new();
        world.write("f", b"first");
        world.back_up(&world.open());
        let hooked = Hooked::new(&world.storage);
        for number in 0..times {
            let (storage, paths) = (world.storage.clone(), world.paths());
            let file = world.source.path().join("f");
            hooked.before_read(a_pack, move || {
                let repository = open(storage);
                let before = repository.find_snapshot("latest").expect("one").0;
                std::fs::write(file, noise(number, 1000)).expect("a file");
                backup::run(&repository, paths, &options(), &Silent).expect("a backup");
                forget(&repository, before);
                assert!(prune(&repository, &at_once()).packs_removed > 0);
            });
        }
        let report = check_by(&hooked);
        assert!(hooked.is_done() && !report.is_damaged(), "{report:#?}");
        assert_eq!(report.overtaken, is_overtaken, "after {times}: {report:#?}");
    }
}
