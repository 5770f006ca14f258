//! Indexes lost in whole or in part, rebuilt, and compared with what they were.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::backend::testing::{Fault, FaultBackend, Operation};
use crate::backend::{Backend, MemoryBackend};
use crate::backup::{self, BackupOptions, BackupSource};
use crate::check::{self, CheckOptions};
use crate::crypto::Password;
use crate::format::header::ObjectKind;
use crate::format::pack::BlockSpan;
use crate::ids::BlobId;
use crate::monitor::Silent;
use crate::prune;
use crate::prune::test_support::{self, Hooked, World, a_commit, noise};
use crate::source::FilterOptions;
use crate::testing;

/// A place of a blob, whatever segment says so.
type Place = (BlobId, PackId, BlockSpan, u32, u32);

fn open(backend: &MemoryBackend) -> Repository {
    testing::open(Arc::new(backend.clone()), 77).expect("a sound repository")
}

fn open_for_repair(backend: &MemoryBackend) -> Repository {
    let password = Password::new(testing::PASSWORD.to_vec());
    Repository::open_for_repair(Arc::new(backend.clone()), &password, testing::environment(78))
        .expect("only the index is damaged")
}

fn places(repository: &Repository) -> Vec<Place> {
    let mut places = Vec::new();
    for segment in repository.index().segments().iter() {
        let packs: Vec<_> = segment.packs().map(|pack| pack.expect("readable").id).collect();
        for entry in segment.entries().map(|entry| entry.expect("readable")) {
            places.push((entry.id, packs[entry.pack as usize], entry.block, entry.offset, entry.len));
        }
    }
    places.sort_by_key(|(id, pack, block, ..)| (*id, *pack, block.position));
    places
}

fn back_up(repository: &Repository, path: &Path) {
    let source = BackupSource::Paths { paths: vec![path.to_owned()], filter: FilterOptions::default() };
    let options = BackupOptions { threads: 1, ..BackupOptions::default() };
    backup::run(repository, source, &options, &Silent).expect("backed up");
}

/// A repository of three backups, of which each adds packs and a segment.
fn sample() -> MemoryBackend {
    let backend = MemoryBackend::new();
    let repository = testing::init(Arc::new(backend.clone()), 1);
    let folder = tempfile::tempdir().expect("a temporary directory");
    for round in 0..3 {
        for n in 0..40 {
            let content = format!("round {round}, file {n}\n").repeat(50);
            fs::write(folder.path().join(format!("{round}-{n}")), content).expect("written");
        }
        back_up(&repository, folder.path());
    }
    backend
}

fn segments(backend: &MemoryBackend) -> Vec<ObjectKey> {
    let keys = backend.objects().into_iter().map(|(key, _)| key);
    keys.filter(|key| key.folder() == Some(Folder::Index)).collect()
}

fn findings(backend: &MemoryBackend) -> Vec<check::Damage> {
    let report = check::run(&open(backend), &CheckOptions::default(), &Silent).expect("checked");
    report.findings
}

/// Hears problems and cancels when told to.
#[derive(Default)]
struct Listener {
    problems: Mutex<Vec<Problem>>,
    cancel: bool,
}

impl Monitor for Listener {
    fn problem(&self, problem: &Problem) {
        self.problems.lock().expect("no panic").push(problem.clone());
    }

    fn is_cancelled(&self) -> bool {
        self.cancel
    }
}

#[test]
fn a_lost_index_comes_back_as_it_was() {
    let backend = sample();
    let before = places(&open(&backend));
    assert!(segments(&backend).len() == 3 && before.len() > 120);
    for (keep, blobs_per_segment) in [(0, 1 << 20), (1, 1 << 20), (3, 1 << 20), (0, 1), (0, 60)] {
        let backend = backend.snapshot();
        let lost = segments(&backend);
        lost[keep..].iter().for_each(|key| backend.delete(key).expect("deleted"));
        assert_eq!(testing::open(Arc::new(backend.clone()), 5).is_ok(), keep == 3);
        let repository = open_for_repair(&backend);
        assert_eq!(repository.broken_segments().len(), 3 - keep);
        let report =
            run(&repository, &RebuildOptions { blobs_per_segment, ..RebuildOptions::default() }, &Silent)
                .expect("rebuilt");
        assert_eq!(places(&repository), before);
        assert_eq!(places(&open(&backend)), before);
        assert_eq!(report.blobs, before.len() as u64);
        assert_eq!((report.damaged.len(), report.condemned), (0, 0));
        assert_eq!(report.segments, segments(&backend).len() as u64, "no other segment object is left");
        assert!(segments(&backend).iter().all(|key| !lost.contains(key)));
        assert_eq!(findings(&backend), []);
        // With a segment for each pack there is something to merge.
        assert_eq!(report.packs > 4, report.segments < report.packs, "{report:?}");
    }
}

#[test]
fn a_damaged_segment_is_rebuilt_too() {
    let backend = sample();
    let before = places(&open(&backend));
    for at in [10, 5000] {
        let backend = backend.snapshot();
        segments(&backend).iter().for_each(|key| backend.corrupt(key, |bytes| bytes[at] ^= 1));
        run(&open_for_repair(&backend), &RebuildOptions::default(), &Silent).expect("rebuilt");
        assert_eq!(places(&open(&backend)), before);
        assert_eq!(findings(&backend), []);
    }
}

#[test]
fn what_the_old_index_says_of_a_damaged_pack_is_kept() {
    let backend = sample();
    let before = places(&open(&backend));
    let pack = before[0].1;
    // Its trailer: the directory is not to be found, blocks are sound.
    backend.corrupt(&ObjectKey::pack(&pack), |bytes| *bytes.last_mut().expect("a pack") ^= 1);
    let of_pack = before.iter().filter(|place| place.1 == pack).count();
    let listener = Listener::default();
    let report = run(&open(&backend), &RebuildOptions::default(), &listener).expect("rebuilt");
    assert_eq!((report.damaged, report.blobs_kept), (vec![pack], of_pack as u64));
    assert_eq!(places(&open(&backend)), before);
    let problems = listener.problems.into_inner().expect("no panic");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].is_error && problems[0].path == Some(ObjectKey::pack(&pack).as_str().into()));

    // Without an old index nothing is known of it, and the check names what is missing.
    segments(&backend).iter().for_each(|key| backend.delete(key).expect("deleted"));
    let report = run(&open_for_repair(&backend), &RebuildOptions::default(), &Silent).expect("rebuilt");
    assert_eq!((report.damaged, report.blobs_kept), (vec![pack], 0));
    assert_eq!(places(&open(&backend)).len(), before.len() - of_pack);
    assert!(findings(&backend).iter().any(|finding| finding.is_damage));
}

#[test]
fn condemned_packs_are_left_out() {
    let backend = sample();
    let repository = open(&backend);
    let before = places(&repository);
    let pack = before[0].1;
    repository.commit(&mut |_| Ok(vec![Change::PacksCondemned { packs: vec![pack] }])).expect("committed");
    let report = run(&repository, &RebuildOptions::default(), &Silent).expect("rebuilt");
    assert_eq!(report.condemned, 1);
    assert!(places(&repository).iter().all(|place| place.1 != pack));
}

#[test]
fn a_failure_changes_nothing_and_leaves_nothing() {
    let storage = sample();
    let before = storage.objects();
    let options = RebuildOptions { blobs_per_segment: 1, ..RebuildOptions::default() };
    for n in 1.. {
        let storage = storage.snapshot();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = testing::open(Arc::new(backend), 9).expect("sound");
        faults.inject(Fault::nth_mutation(n, std::io::ErrorKind::StorageFull));
        let result = run(&repository, &options, &Silent);
        if faults.fired() == 0 {
            assert!(result.is_ok() && n > 6, "{n}");
            break;
        }
        let commits = open(&storage).fold().seq();
        if commits as usize == before.iter().filter(|(key, _)| key.folder() == Some(Folder::Log)).count() {
            result.expect_err("something failed before the commit");
            let after = storage.objects();
            // A merged-away part whose deletion failed may stay behind.
            let left = after.iter().filter(|object| !before.contains(object)).count();
            assert!(before.iter().all(|object| after.contains(object)) && left <= 1, "{n}: {left}");
        }
        let damage: Vec<_> = findings(&storage).into_iter().filter(|finding| finding.is_damage).collect();
        assert_eq!(damage, [], "{n}");
    }
    // A read that fails is no damaged pack: it must not cost entries.
    let backend = FaultBackend::new(storage.clone());
    let faults = backend.faults();
    let repository = testing::open(Arc::new(backend), 9).expect("sound");
    let fault = Fault::nth_of(Operation::ReadRange, 3, std::io::ErrorKind::TimedOut);
    faults.inject(fault.in_folder(Folder::Packs));
    let error = run(&repository, &options, &Silent).expect_err("a pack could not be read");
    assert!(matches!(error, RebuildError::Pack { .. }), "{error}");
    let cancelled = Listener { cancel: true, ..Listener::default() };
    assert!(matches!(run(&repository, &options, &cancelled), Err(RebuildError::Cancelled)));
    assert_eq!(storage.objects(), before);
}

/// Storage that gives an operation up and does it later all the same is what the log's rules allow for. With the segments gone that such a
/// commit names, nobody could open the repository.
#[test]
fn what_a_commit_names_stays_while_nobody_knows_whether_it_is_there() {
    let storage = sample();
    let before = segments(&storage);
    let backend = FaultBackend::new(storage.clone());
    let faults = backend.faults();
    let repository = testing::open(Arc::new(backend), 9).expect("sound");
    let fault = Fault::nth_of(Operation::Create, 1, std::io::ErrorKind::TimedOut);
    faults.inject(fault.in_folder(Folder::Log));
    let error = run(&repository, &RebuildOptions::default(), &Silent).expect_err("not committed");
    assert!(may_come_late(&error), "{error}");
    let after = segments(&storage);
    assert!(before.iter().all(|segment| after.contains(segment)) && after.len() == before.len() + 1);
    // Nobody needs it in the end.
    prune::run(&open(&storage), &test_support::at_once(), &Silent).expect("pruned");
    let fold = open(&storage).fold();
    assert_eq!(segments(&storage).len(), fold.segments().count());
}

/// What a rebuild finds lost beside a backup that takes it over from its parent is read again: the note of the rebuild lies below the new
/// snapshot, where no later backup would look for it.
#[test]
fn a_backup_beside_a_rebuild_stores_what_that_found_lost() {
    let mut world = World::new();
    world.write("unchanged", &noise(1, 40_000));
    world.write("changed", &noise(2, 40_000));
    world.back_up(&world.open());
    world.write("changed", &noise(3, 40_000));
    let is_data = |object: &(ObjectKey, Arc<[u8]>)| {
        object.0.folder() == Some(Folder::Packs) && object.1[8] == ObjectKind::DataPack as u8
    };
    let lost: Vec<_> = world.storage.objects().into_iter().filter(is_data).map(|(key, _)| key).collect();
    assert_eq!(lost.len(), 1);
    let hooked = Hooked::new(&world.storage);
    let storage = world.storage.clone();
    hooked.before_create(a_commit, move || {
        lost.iter().for_each(|pack| storage.delete(pack).expect("deleted"));
        let report = run(&open_for_repair(&storage), &RebuildOptions::default(), &Silent).expect("rebuilt");
        assert!(report.blobs > 0);
    });
    let repository = test_support::open(hooked.clone());
    let id = world.back_up(&repository);
    assert!(hooked.is_done());
    let root = world.source.path().as_os_str().as_encoded_bytes();
    test_support::assert_restores(&world.open(), id, &world.expected[&id], root);
}

/// A segment is left out of the new index only where it is lost: it may be all that knows what a damaged pack held.
#[test]
fn a_segment_that_cannot_be_read_just_now_is_not_left_out() {
    let sample = sample();
    let keys = sample.objects().into_iter().map(|(key, _)| key);
    let key = keys.into_iter().find(|key| key.folder() == Some(Folder::Packs)).expect("a pack");
    let pack = key.pack_id().expect("its id");
    sample.corrupt(&key, |bytes| *bytes.last_mut().expect("a pack") ^= 1);
    let password = Password::new(testing::PASSWORD.to_vec());
    let (mut fired, mut rebuilt) = (0, 0);
    for operation in [Operation::Open, Operation::ReadRange] {
        for n in 1.. {
            let storage = sample.snapshot();
            let backend = FaultBackend::new(storage.clone());
            let faults = backend.faults();
            faults.inject(Fault::nth_of(operation, n, std::io::ErrorKind::TimedOut).in_folder(Folder::Index));
            let opened = Repository::open_for_repair(Arc::new(backend), &password, testing::environment(79));
            let result = opened.map(|repository| run(&repository, &RebuildOptions::default(), &Silent));
            if faults.fired() == 0 {
                break;
            }
            fired += 1;
            if let Ok(Ok(report)) = result {
                assert_eq!(report.damaged, [pack], "{operation:?} {n}");
                rebuilt += 1;
            }
            let repository = open_for_repair(&storage);
            let is_listed = places(&repository).iter().any(|(_, listed, ..)| *listed == pack);
            assert!(is_listed, "{operation:?} {n}: nobody knows what the pack held");
        }
    }
    assert!(fired > 2 && rebuilt > 0, "{fired}, {rebuilt}");
}
