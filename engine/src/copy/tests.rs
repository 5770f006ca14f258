//! Copies, and what they must hold.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{Backend, MemoryBackend};
use crate::backup;
use crate::browse;
use crate::check::{self, CheckOptions, ReadData};
use crate::copy::{self, Choice, CopyError, CopyOptions, CopyReport, Fate};
use crate::format::commit::Change;
use crate::format::snapshot::Snapshot;
use crate::ids::SnapshotId;
use crate::monitor::{Monitor, Problem, Progress, Silent};
use crate::prune::test_support::{World, assert_restores, at_once, forget, noise, open, prune};
use crate::repair::test_support::{all_packs, flip, packs_of};
use crate::repo::Repository;
use crate::testing;

fn options() -> CopyOptions {
    CopyOptions { threads: 1, ..CopyOptions::default() }
}

fn copy_all(source: &Repository, target: &Repository) -> CopyReport {
    copy::run(source, target, &options(), &Silent).expect("copied")
}

/// An empty repository to copy to.
fn empty() -> MemoryBackend {
    static SEEDS: AtomicU64 = AtomicU64::new(900_000);
    let storage = MemoryBackend::new().called("target");
    testing::init(Arc::new(storage.clone()), SEEDS.fetch_add(1, Ordering::Relaxed));
    storage
}

/// Three backups: a large file whose chunks need lists, small ones in folders, and changes.
fn world() -> World {
    let mut world = World::new();
    world.write("large", &noise(1, 9 << 20));
    for n in 0..40 {
        world.write(&format!("dir{}/deeper/small{n}", n % 4), &noise(100 + n, 3000));
    }
    world.write("empty", b"");
    let repository = world.open();
    world.back_up(&repository);
    for night in 0..2 {
        world.write("dir0/deeper/small0", &noise(200 + night, 4000));
        world.write(&format!("new{night}"), &noise(300 + night, 100_000));
        world.remove("dir1/deeper/small1");
        world.back_up(&repository);
    }
    world
}

fn root(world: &World) -> Vec<u8> {
    world.source.path().as_os_str().as_bytes().to_vec()
}

/// Makes sure that all copies give back what their originals have to, and that a check of everything is content.
#[track_caller]
fn verify(world: &World, target: &MemoryBackend, expected: usize) {
    let (source, target) = (world.open(), open(target.clone()));
    let copies = target.snapshots().expect("readable");
    assert_eq!(copies.len(), expected);
    for (id, copy) in copies {
        let origin = copy.origin.expect("it is a copy");
        assert_eq!(origin.repository, source.id());
        assert_restores(&target, id, &world.expected[&origin.snapshot], &root(world));
        let (_, original) = source.find_snapshot(&origin.snapshot.to_string()).expect("it is there");
        assert_eq!(listed(&target, &copy), listed(&source, &original), "metadata is the same");
    }
    sound(&target);
}

#[track_caller]
fn sound(target: &Repository) {
    let options = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    let report = check::run(target, &options, &Silent).expect("checked");
    assert!(!report.is_damaged(), "{:#?}", report.findings);
}

/// Everything in a snapshot but the ids of its content.
fn listed(repository: &Repository, snapshot: &Snapshot) -> Vec<String> {
    let mut entries = Vec::new();
    browse::list(repository.reader(), &snapshot.tree, b"", true, &mut |path, node| {
        let kind = match &node.kind {
            crate::format::tree::NodeKind::File(content) => {
                format!("{} {:?} {:?} {}", content.size, content.grain, content.holes, content.unstable)
            }
            crate::format::tree::NodeKind::Directory { .. } => "directory".into(),
            other => format!("{other:?}"),
        };
        entries.push(format!("{} {kind} {:?}", String::from_utf8_lossy(path), node.metadata));
        std::ops::ControlFlow::Continue(())
    })
    .expect("readable");
    entries
}

#[test]
fn all_snapshots_are_copied_in_their_order_and_a_second_copy_moves_nothing() {
    let world = world();
    let (source, storage) = (world.open(), empty());
    let target = open(storage.clone());
    let report = copy_all(&source, &target);
    assert!(report.is_complete() && report.count(|fate| *fate == Fate::Copied) == 3, "{report:#?}");
    verify(&world, &storage, 3);
    let originals = source.snapshots().unwrap();
    for ((id, original), (_, copy)) in originals.iter().zip(target.snapshots().unwrap()) {
        let origin = copy.origin.unwrap();
        assert_eq!(origin.snapshot, *id);
        let same = Snapshot { tree: copy.tree, parent: copy.parent, origin: copy.origin, ..original.clone() };
        assert_eq!(copy, same);
        assert_eq!(copy.parent.is_some(), original.parent.is_some(), "the parent was copied, too");
    }
    let before = storage.objects();
    let again = copy_all(&world.open(), &open(storage.clone()));
    assert_eq!(again.count(|fate| *fate == Fate::Present), 3);
    assert_eq!((again.chunks_read, again.bytes_added, again.bytes_stored), (0, 0, 0));
    assert_eq!(storage.objects().len(), before.len(), "nothing was written");
}

#[test]
fn the_next_copy_reads_only_what_is_new() {
    let mut world = world();
    let (source, storage) = (world.open(), empty());
    let first = copy_all(&source, &open(storage.clone()));
    assert!(first.bytes_read > 9 << 20, "{first:?}");
    world.write("newer", &noise(400, 50_000));
    world.back_up(&source);
    let second = copy_all(&world.open(), &open(storage.clone()));
    assert_eq!(second.count(|fate| *fate == Fate::Copied), 1);
    assert_eq!(second.bytes_read, 50_000, "{second:?}");
    verify(&world, &storage, 4);
}

#[test]
fn one_snapshot_or_the_latest() {
    let world = world();
    let (source, storage) = (world.open(), empty());
    let ids: Vec<SnapshotId> = source.snapshots().unwrap().into_iter().map(|(id, _)| id).collect();
    let target = open(storage.clone());
    let latest = CopyOptions { choice: Choice::Latest, ..options() };
    let report = copy::run(&source, &target, &latest, &Silent).unwrap();
    assert_eq!(report.snapshots.iter().map(|copy| copy.source).collect::<Vec<_>>(), [ids[2]]);
    let named = CopyOptions { choice: Choice::Named(vec![ids[0]]), ..options() };
    copy::run(&source, &target, &named, &Silent).unwrap();
    verify(&world, &storage, 2);
    // What was copied late is not the latest.
    let origin = |(_, copy): (SnapshotId, Snapshot)| copy.origin.unwrap().snapshot;
    assert_eq!(origin(target.find_snapshot("latest").unwrap()), ids[2]);
    copy_all(&source, &target);
    let order: Vec<_> = target.snapshots().unwrap().into_iter().map(origin).collect();
    assert_eq!(order, ids);
}

#[test]
fn a_dry_run_says_what_would_be_copied() {
    let world = world();
    let (source, storage) = (world.open(), empty());
    let before = storage.objects().len();
    let dry = CopyOptions { dry_run: true, ..options() };
    let report = copy::run(&source, &open(storage.clone()), &dry, &Silent).unwrap();
    assert_eq!((report.count(|fate| *fate == Fate::Planned), storage.objects().len()), (3, before));
}

#[test]
fn the_same_repository_is_refused() {
    let world = world();
    let refused = copy::run(&world.open(), &world.open(), &options(), &Silent);
    assert!(matches!(refused, Err(CopyError::SameRepository { .. })), "{refused:?}");
}

#[test]
fn a_copy_that_comes_back_is_the_original() {
    let world = world();
    let (source, storage) = (world.open(), empty());
    copy_all(&source, &open(storage.clone()));
    let ids: Vec<SnapshotId> = source.snapshots().unwrap().into_iter().map(|(id, _)| id).collect();
    let back = copy_all(&open(storage.clone()), &source);
    assert_eq!(back.count(|fate| *fate == Fate::Present), 3, "{back:#?}");
    for id in &ids[1..] {
        forget(&source, *id);
    }
    prune(&source, &at_once());
    let back = copy_all(&open(storage.clone()), &world.open());
    assert_eq!(back.count(|fate| *fate == Fate::Copied), 2, "{back:#?}");
    let again = world.open();
    let found: Vec<SnapshotId> = again.snapshots().unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, ids, "the same ids");
    world.verify();
}

#[test]
fn a_copy_of_a_copy_has_the_first_origin() {
    let world = world();
    let (source, second, third) = (world.open(), empty(), empty());
    copy_all(&source, &open(second.clone()));
    copy_all(&open(second.clone()), &open(third.clone()));
    verify(&world, &third, 3);
    let direct = copy_all(&source, &open(third));
    assert_eq!(direct.count(|fate| *fate == Fate::Present), 3);
}

#[test]
fn of_a_damaged_snapshot_nothing_is_committed_and_others_are_copied() {
    let mut world = World::new();
    world.write("a", &noise(1, 300_000));
    let repository = world.open();
    let sound_one = world.back_up(&repository);
    let before: Vec<_> = all_packs(&world.storage);
    world.write("b", &noise(2, 300_000));
    let damaged = world.back_up(&repository);
    world.remove("b");
    world.write("c", &noise(3, 1000));
    let after = world.back_up(&repository);
    // The pack that only the second one and the third one's trees came with: its data.
    let hit = packs_of(&world.storage, true)
        .into_iter()
        .find(|pack| !before.contains(pack) && world.storage.read(pack, u64::MAX).unwrap().len() > 200_000);
    flip(&world.storage, &hit.expect("the pack of b"));
    let storage = empty();
    let report = copy_all(&world.open(), &open(storage.clone()));
    let fate = |id| &report.snapshots.iter().find(|copy| copy.source == id).unwrap().fate;
    assert_eq!((fate(sound_one), fate(after)), (&Fate::Copied, &Fate::Copied));
    assert!(matches!(fate(damaged), Fate::Damaged { .. }), "{report:#?}");
    assert!(!report.is_complete() && report.damaged() == 1);
    verify(&world, &storage, 2);
}

#[test]
fn every_lost_tree_or_pack_is_noticed() {
    let world = world();
    for pack in all_packs(&world.storage) {
        let broken = world.storage.snapshot();
        broken.delete(&pack).unwrap();
        let storage = empty();
        let report = copy_all(&open(broken), &open(storage.clone()));
        assert!(report.damaged() > 0, "{pack}");
        verify(&world, &storage, 3 - report.damaged());
    }
}

/// Stops after so many reports of progress.
struct StopAfter(AtomicU64);

impl Monitor for StopAfter {
    fn progress(&self, _: &Progress) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn a_copy_that_was_stopped_goes_on_where_it_was() {
    let world = world();
    let (source, storage) = (world.open(), empty());
    let stopped = copy::run(&source, &open(storage.clone()), &options(), &StopAfter(AtomicU64::new(1)));
    assert!(matches!(stopped, Err(CopyError::Cancelled)), "{stopped:?}");
    let target = open(storage.clone());
    assert_eq!(target.snapshots().unwrap().len(), 0);
    let report = copy_all(&source, &target);
    assert!(report.bytes_read > 9 << 20, "{report:?}");
    assert!(report.bytes_added < 1 << 20, "found there: {report:?}");
    verify(&world, &storage, 3);
}

/// Does something to a repository when the first chunks were copied.
struct Meanwhile<F: Fn() + Send + Sync>(AtomicU64, F);

impl<F: Fn() + Send + Sync> Monitor for Meanwhile<F> {
    fn progress(&self, _: &Progress) {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            (self.1)();
        }
    }
}

#[test]
fn a_prune_of_the_target_meanwhile_takes_nothing_away() {
    let world = world();
    let storage = empty();
    let other = storage.clone();
    let at_work = Meanwhile(AtomicU64::new(0), move || {
        let other = open(other.clone());
        // What is not committed yet is condemned, and what was condemned is removed.
        for _ in 0..3 {
            prune(&other, &at_once());
        }
    });
    // Commits after each window leave blobs that no snapshot needs yet.
    let options = CopyOptions { blobs_per_commit: 1, ..options() };
    let report = copy::run(&world.open(), &open(storage.clone()), &options, &at_work).unwrap();
    assert!(report.is_complete(), "{report:#?}");
    verify(&world, &storage, 3);
}

#[test]
fn a_prune_of_the_source_meanwhile_is_followed() {
    let mut world = world();
    let source = world.open();
    let first = source.snapshots().unwrap()[0].0;
    let handle = world.open();
    world.forget(&handle, first);
    let reader = world.open();
    let other = world.storage.clone();
    let at_work = Meanwhile(AtomicU64::new(0), move || {
        let other = open(other.clone());
        for _ in 0..3 {
            prune(&other, &at_once());
        }
    });
    let storage = empty();
    let report = copy::run(&reader, &open(storage.clone()), &options(), &at_work).unwrap();
    assert!(report.is_complete(), "{report:#?}");
    verify(&world, &storage, 2);
}

#[test]
fn a_snapshot_that_is_forgotten_meanwhile_is_no_damage() {
    let world = world();
    let (storage, other) = (empty(), world.storage.clone());
    let reader = world.open();
    let ids: Vec<SnapshotId> = reader.snapshots().unwrap().into_iter().map(|(id, _)| id).collect();
    let last = ids[2];
    let at_work = Meanwhile(AtomicU64::new(0), move || {
        let other = open(other.clone());
        forget(&other, last);
        for _ in 0..3 {
            prune(&other, &at_once());
        }
    });
    let report = copy::run(&reader, &open(storage.clone()), &options(), &at_work).unwrap();
    let fates: Vec<_> = report.snapshots.iter().map(|copy| copy.fate.clone()).collect();
    assert_eq!(fates, [Fate::Copied, Fate::Copied, Fate::Forgotten]);
    sound(&open(storage));
}

#[test]
fn what_the_target_has_lost_is_copied_again() {
    let mut world = world();
    let (source, storage) = (world.open(), empty());
    copy_all(&source, &open(storage.clone()));
    // The index goes on without a pack of content.
    for pack in packs_of(&storage, true) {
        storage.delete(&pack).unwrap();
    }
    let target = open(storage.clone());
    let lost = crate::repair::test_support::repair(&target, &crate::repair::test_support::plain());
    assert!(!lost.is_whole(), "{lost:?}");
    world.write("newer", &noise(400, 50_000));
    let newest = world.back_up(&source);
    let report = copy_all(&source, &open(storage.clone()));
    assert_eq!(report.count(|fate| *fate == Fate::Copied), 1);
    assert!(report.bytes_read > 9 << 20, "all of it was read again: {report:?}");
    let target = open(storage);
    let (id, _) = target.find_snapshot("latest").unwrap();
    // Copies made before stay as damaged as they are: they are forgotten and copied again.
    assert_restores(&target, id, &world.expected[&newest], &root(&world));
}

#[test]
fn partial_snapshots_are_copied_only_by_name() {
    let world = world();
    let source = world.open();
    let (_, latest) = source.find_snapshot("latest").unwrap();
    let partial = Snapshot { partial: true, ..latest };
    let record = crate::format::record::encode(&partial);
    let blob = source.keys().blob_id(crate::crypto::keys::BlobKind::Snapshot, &record);
    let id = SnapshotId::new(blob);
    let change = Change::SnapshotAdded { snapshot: id, record: record.into() };
    source.commit(&mut |_| Ok(vec![change.clone()])).unwrap();
    let storage = empty();
    assert_eq!(copy_all(&source, &open(storage.clone())).snapshots.len(), 3);
    let named = CopyOptions { choice: Choice::Named(vec![id]), ..options() };
    let report = copy::run(&source, &open(storage.clone()), &named, &Silent).unwrap();
    assert_eq!(report.snapshots[0].fate, Fate::Copied);
    let unknown = SnapshotId::new(crate::ids::BlobId::from_bytes([7; 32]));
    let named = CopyOptions { choice: Choice::Named(vec![unknown]), ..options() };
    assert!(copy::run(&source, &open(storage), &named, &Silent).is_err());
    // One of several that is gone by now holds up no other.
    let storage = empty();
    let named = CopyOptions { choice: Choice::Named(vec![unknown, id]), ..options() };
    let told = Told::default();
    let report = copy::run(&source, &open(storage), &named, &told).unwrap();
    assert_eq!(report.snapshots.iter().map(|copy| copy.source).collect::<Vec<_>>(), [id]);
    assert_eq!(told.0.into_inner().unwrap(), ["snapshot-forgotten"]);
}

/// Codes of problems that were told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<&'static str>>);

impl Monitor for Told {
    fn problem(&self, problem: &Problem) {
        self.0.lock().unwrap().push(problem.code);
    }
}

#[test]
fn very_large_directories_are_split_as_the_target_splits_them() {
    let mut world = World::new();
    for n in 0..2300 {
        world.write(&format!("many/{n:05}"), b"");
    }
    let repository = world.open();
    world.back_up(&repository);
    let storage = empty();
    copy_all(&repository, &open(storage.clone()));
    verify(&world, &storage, 1);
    // A backup of the same directory to the target makes the same trees.
    let target = open(storage);
    let report =
        backup::run(&target, world.paths(), &crate::prune::test_support::options(), &Silent).unwrap();
    let (_, made) = target.find_snapshot(&report.snapshot.unwrap().to_string()).unwrap();
    let copy = target.snapshots().unwrap().remove(0).1;
    let at = |snapshot: &Snapshot| {
        browse::find(target.reader(), &snapshot.tree, &[&root(&world)[..], b"/many"].concat()).unwrap().tree()
    };
    assert_eq!(at(&made), at(&copy));
}
