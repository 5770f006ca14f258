//! Appenders beside prunes: they can rescue nothing, so what is taken has to be stored again, and no more than that.

use std::collections::BTreeSet;
use std::io::Cursor;

use super::append_only_tests::{admit, append_to, lie, nothing, shared, try_append};
use super::*;
use crate::backend::ObjectKey;
use crate::backup::{self, BackupOptions, BackupSource};
use crate::check::{self, CheckOptions, ReadData};
use crate::monitor::Silent;
use crate::prune::test_support::{
    Hooked, World, a_commit, a_pack, a_segment, assert_restores, at_once, files_of, forget, later, noise,
    open, options, prune,
};

fn stream(bytes: &[u8]) -> BackupSource {
    BackupSource::Stream {
        name: b"dump".to_vec(),
        reader: Box::new(Cursor::new(bytes.to_vec())),
        finish: Box::new(|| Ok(())),
    }
}

/// Has a prune come before each of so many commits.
fn prune_before_commits(world: &World, hooked: &Hooked, options: &crate::prune::PruneOptions, count: usize) {
    for _ in 0..count {
        let (storage, options) = (world.storage.clone(), options.clone());
        hooked.before_create(a_commit, move || {
            prune(&open(storage), &options);
        });
    }
}

/// What was written anew is where the index says now: a stream that cannot be read again needs no second reading.
#[test]
fn what_a_prune_has_written_anew_is_relied_on_in_its_new_place() {
    let world = World::new();
    let whole = noise(1, 12 << 20);
    let part = &whole[..6 << 20];
    let repository = world.open();
    let first = backup::run(&repository, stream(&whole), &options(), &Silent).expect("a backup");
    backup::run(&repository, stream(part), &options(), &Silent).expect("a backup");
    forget(&repository, first.snapshot.expect("one"));
    admit(&world);
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    // The run's word comes first.
    hooked.before_create(a_commit, || {});
    hooked.before_create(a_commit, move || {
        let report = prune(&open(storage), &at_once());
        assert!(report.packs_repacked > 0 && report.packs_removed > 0, "{report:?}");
    });
    let appender = try_append(hooked.clone()).expect("it opens");
    let little = BackupOptions { stream_kept: 1 << 20, ..options() };
    let report = backup::run(&appender, stream(part), &little, &Silent).expect("a backup");
    assert!(hooked.is_done());
    let reader = world.open();
    let (_, snapshot) = reader.find_snapshot(&report.snapshot.expect("one").to_string()).expect("there");
    let target = tempfile::tempdir().expect("a folder");
    crate::restore::run(&reader, &snapshot, b"", target.path(), &Default::default(), &Silent)
        .expect("restored");
    assert!(std::fs::read(target.path().join("dump")).expect("readable") == part);
    world.verify();
}

#[test]
fn an_appender_beside_a_prune_at_each_of_its_commits_gets_its_backup() {
    for options in [later(), at_once()] {
        let mut world = shared();
        let theirs = *world.expected.keys().next().expect("one");
        forget(&world.open(), theirs);
        world.expected.remove(&theirs);
        world.write("d/new", &noise(70, 90_000));
        let hooked = Hooked::new(&world.storage);
        prune_before_commits(&world, &hooked, &options, 40);
        let appender = try_append(hooked).expect("it opens");
        world.back_up(&appender);
        world.verify();
        prune(&world.open(), &at_once());
        prune(&world.open(), &at_once());
        world.verify();
        let (stored, listed) = world.packs();
        assert_eq!(stored, listed, "nobody is at work any more");
    }
}

/// In each attempt something else is taken: in the end it relies on nothing but what it has stored itself.
#[test]
fn an_appender_that_is_robbed_of_something_else_each_time_gets_its_backup() {
    let mut world = World::new();
    let repository = world.open();
    let mut snapshots = Vec::new();
    for n in 0..16u64 {
        world.write("f", &noise(n, 30_000));
        snapshots.push(world.back_up(&repository));
    }
    admit(&world);
    world.remove("f");
    for n in 0..16u64 {
        world.write(&format!("d/f{n}"), &noise(n, 30_000));
    }
    world.expected.clear();
    let hooked = Hooked::new(&world.storage);
    for snapshot in snapshots {
        let storage = world.storage.clone();
        hooked.before_create(a_segment, move || {
            let repository = open(storage);
            forget(&repository, snapshot);
            prune(&repository, &at_once());
        });
    }
    let appender = try_append(hooked.clone()).expect("it opens");
    let id = world.back_up(&appender);
    assert!(!hooked.is_done(), "it came to its end before there was nothing more to take");
    let root = std::os::unix::ffi::OsStrExt::as_bytes(world.source.path().as_os_str());
    assert_restores(&world.open(), id, &files_of(world.source.path()), root);
}

/// What it committed on its way and needs in the end is there in the end, whoever prunes; and is vetted once it is done, or dead.
#[test]
fn what_an_appender_at_work_has_committed_is_left_alone_for_a_day() {
    let mut world = shared();
    for n in 0..30u64 {
        world.write(&format!("many/f{n}"), &noise(1000 + n, 4_000));
    }
    let often = BackupOptions { blobs_per_commit: 4, partial_every: Duration::ZERO, ..options() };
    let hooked = Hooked::new(&world.storage);
    for n in 0..6 {
        let storage = world.storage.clone();
        hooked.before_create(a_commit, move || {
            if n > 0 {
                let report = prune(&open(storage), &at_once());
                assert_eq!((report.segments_vetted, report.packs_condemned), (0, 0), "{report:?}");
            }
        });
    }
    let appender = try_append(hooked.clone()).expect("it opens");
    // As it does when it begins anew.
    appender.commit(&mut |_| Ok(vec![nothing()])).expect("it says that it is at work");
    let report = backup::run(&appender, world.paths(), &often, &Silent).expect("a backup");
    assert!(hooked.is_done());
    world.expected.insert(report.snapshot.expect("one"), files_of(world.source.path()));
    assert!(prune(&world.open(), &at_once()).segments_vetted > 0);
    world.verify();
    world.back_up(&append_to(&world));
    world.verify();
}

/// Simulation, seed 20619: a pack that was removed, that a segment lists which nobody believes, and that is deleted while a check is
/// at work.
#[test]
fn a_pack_that_only_a_liar_lists_may_go_while_a_check_is_at_work() {
    for moment in 0.. {
        let world = shared();
        let stored = || packs_of(&world);
        let before = stored();
        lie(&world);
        let pack = *stored().difference(&before).next().expect("a pack of the liar");
        let hooked = Hooked::new(&world.storage);
        for _ in 0..moment {
            hooked.before_read(a_pack, || {});
        }
        let storage = world.storage.clone();
        hooked.before_read(a_pack, move || storage.delete(&ObjectKey::pack(&pack)).expect("deleted"));
        let options = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
        let report = check::run(&open(hooked.clone()), &options, &Silent).expect("checked");
        let codes: BTreeSet<_> = report.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, BTreeSet::from(["appended-untrue"]), "at read {moment}: {report:#?}");
        assert!(!report.overtaken);
        if !hooked.is_done() {
            assert!(moment > 4, "a check reads packs more often than {moment} times");
            break;
        }
    }
}

fn packs_of(world: &World) -> BTreeSet<PackId> {
    world.storage.objects().iter().filter_map(|(key, _)| key.pack_id()).collect()
}
