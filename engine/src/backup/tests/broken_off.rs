//! Backups that are cancelled, fail or die, and what the next one finds.

use super::*;
use crate::backend::ObjectInfo;
use crate::crypto::keys::BlobKind;
use crate::store::StoreOptions;

/// A repository in a folder, in which a backup of `source` stored its packs and failed at the commit.
fn repository_after_a_failed_backup(folder: &Path, source: &Path) -> Arc<dyn Backend> {
    let local = LocalBackend::create_repository(folder).unwrap();
    let backend = FaultBackend::new(local);
    let faults = backend.faults();
    let repository = testing::init(Arc::new(backend), 1);
    faults.inject(
        Fault::nth_of(Operation::Create, 1, io::ErrorKind::StorageFull).in_folder(Folder::Log).lasting(),
    );
    run(&repository, paths(source), &options(), &Silent).expect_err("the commit fails");
    Arc::new(LocalBackend::open(folder).unwrap())
}

#[test]
fn what_a_run_that_died_has_stored_is_not_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, place) = (folder.path().join("source"), folder.path().join("repository"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), noise(1, 3 << 20)).unwrap();
    fs::write(source.join("b"), noise(2, 100)).unwrap();
    let backend = repository_after_a_failed_backup(&place, &source);
    let packs = |backend: &dyn Backend| {
        let mut packs = Vec::new();
        backend
            .list(Folder::Packs, None, &mut |info| {
                packs.push((info.key.clone(), info.size));
                ControlFlow::Continue(())
            })
            .unwrap();
        packs
    };
    let before = packs(&*backend);
    assert!(before.iter().map(|(_, size)| size).sum::<u64>() > 3 << 20, "{before:?}");
    let repository = testing::open(Arc::clone(&backend), 2).unwrap();
    let report = back_up(&repository, &source);
    assert!(report.summary.bytes_stored < 100 << 10, "{:?}", report.summary);
    let new: Vec<_> = packs(&*backend).into_iter().filter(|pack| !before.contains(pack)).collect();
    assert!(new.iter().map(|(_, size)| size).sum::<u64>() < 100 << 10, "{new:?}");
    let found = entries(&repository, report.snapshot.unwrap(), &source);
    assert_eq!(content(&repository, &found["a"]), noise(1, 3 << 20));
    assert_eq!(fs::read_dir(place.join("tmp")).unwrap().count(), 0, "no sign stays");
    let checked = crate::check::run(&repository, &crate::check::CheckOptions::default(), &Silent).unwrap();
    assert_eq!((checked.is_damaged(), checked.orphan_packs), (false, 0));
}

/// A repository with packs of a backup that failed, in a folder that lasts as long as it is held.
fn orphaned() -> (tempfile::TempDir, Repository) {
    let folder = tempfile::tempdir().unwrap();
    let (source, place) = (folder.path().join("source"), folder.path().join("repository"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), noise(1, 1 << 20)).unwrap();
    let backend = repository_after_a_failed_backup(&place, &source);
    let repository = testing::open(backend, 2).unwrap();
    (folder, repository)
}

#[test]
fn packs_that_are_taken_over_get_parity() {
    let (_folder, repository) = orphaned();
    // It is wanted by now, and was not when they were stored.
    let add = crate::parity::AddOptions { threads: 1, ..crate::parity::AddOptions::default() };
    crate::parity::add(&repository, &add, &Silent).unwrap();
    assert!(adopt(&repository, &options(), &Silent).unwrap() > 0);
    let status = crate::parity::status(&repository).unwrap();
    assert!(status.coverage.iter().all(|one| one.uncovered == 0), "{status:?}");
}

#[test]
fn packs_that_a_prune_has_condemned_are_not_taken_over() {
    let (_folder, repository) = orphaned();
    crate::prune::run(&repository, &crate::prune::PruneOptions::default(), &Silent).unwrap();
    assert!(repository.fold().condemned().count() > 0, "the orphans");
    assert_eq!(adopt(&repository, &options(), &Silent).unwrap(), 0);
}

/// A pack that says that it holds `content`, and holds something else: whoever has the keys can make it, also with a keyslot that
/// was removed.
fn store_lying_pack(repository: &Repository, content: &[u8]) {
    let store = repository.pack_store(ObjectKind::DataPack, &StoreOptions::new(3, 1, 64 << 20));
    let mut writer = store.writer();
    let id = repository.keys().blob_id(BlobKind::Data, content);
    writer.put(BlobKind::Data, id, &noise(9, content.len()), true).unwrap();
    writer.flush().unwrap();
    assert_eq!(store.finish().unwrap().len(), 1);
}

#[test]
fn packs_that_hold_something_else_than_they_say_are_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = noise(1, 5000);
    fs::write(folder.path().join("wanted"), &wanted).unwrap();
    let repository = repository();
    store_lying_pack(&repository, &wanted);
    assert_eq!(adopt(&repository, &options(), &Silent).unwrap(), 0);
    let report = back_up(&repository, folder.path());
    let found = entries(&repository, report.snapshot.unwrap(), folder.path());
    assert_eq!(content(&repository, &found["wanted"]), wanted);
}

#[test]
fn of_packs_that_rotted_only_those_in_order_are_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), noise(1, 1 << 20)).unwrap();
    let backend = repository_after_a_failed_backup(&folder.path().join("repository"), &source);
    let mut largest = None;
    let mut packs = 0;
    let mut visit = |info: ObjectInfo| {
        packs += 1;
        largest =
            largest.take().max(Some((info.size, folder.path().join("repository").join(info.key.as_str()))));
        ControlFlow::Continue(())
    };
    backend.list(Folder::Packs, None, &mut visit).unwrap();
    let (size, path) = largest.unwrap();
    // In a block: the directory is at the end.
    let mut bytes = fs::read(&path).unwrap();
    bytes[size as usize / 2] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let repository = testing::open(backend, 2).unwrap();
    assert_eq!(adopt(&repository, &options(), &Silent).unwrap(), packs - 1);
    let report = back_up(&repository, &source);
    let found = entries(&repository, report.snapshot.unwrap(), &source);
    assert_eq!(content(&repository, &found["a"]), noise(1, 1 << 20));
}

#[test]
fn a_cancelled_backup_leaves_a_partial_snapshot_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..40u8 {
        fs::create_dir(folder.path().join(format!("d{n:02}"))).unwrap();
        fs::write(folder.path().join(format!("d{n:02}/f")), noise(n, 300_000)).unwrap();
    }
    let repository = repository();
    let monitor = CancelAfter { entries: AtomicU64::new(20), cancelled: AtomicBool::new(false) };
    let report = run(&repository, paths(folder.path()), &options(), &monitor).unwrap();
    assert!(report.cancelled && !report.is_complete());
    let partial = report.snapshot.expect("a partial snapshot");
    let stored = entries(&repository, partial, folder.path());
    assert!(stored.contains_key("d10/f") && !stored.contains_key("d30/f"), "{:?}", stored.keys());
    assert!(content(&repository, &stored["d10/f"]) == noise(10, 300_000));
    let report = back_up(&repository, folder.path());
    assert!(report.summary.files_unmodified >= 19, "{:?}", report.summary);
    assert!(report.summary.bytes_added < 21 * 301_000, "{}", report.summary.bytes_added);
    let snapshots = repository.snapshots().unwrap();
    assert_eq!(snapshots.len(), 1, "the partial snapshot is superseded");
    assert_eq!(entries(&repository, report.snapshot.unwrap(), folder.path()).len(), 80);
}

#[test]
fn partial_snapshots_are_taken_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..30u8 {
        fs::write(folder.path().join(format!("f{n:02}")), noise(n, 1000)).unwrap();
    }
    let repository = repository();
    let often = BackupOptions { partial_every: Duration::ZERO, ..options() };
    let report = run(&repository, paths(folder.path()), &often, &Silent).unwrap();
    assert!(report.is_complete());
    assert!(repository.fold().seq() > 3, "several commits");
    assert_eq!(entries(&repository, report.snapshot.unwrap(), folder.path()).len(), 30);
    assert_eq!(repository.snapshots().unwrap().len(), 1);
}

#[test]
fn a_failing_backend_fails_the_backup_and_never_hangs() {
    use crate::backend::testing::{Fault, FaultBackend};
    let folder = tempfile::tempdir().unwrap();
    for n in 0..8u8 {
        fs::write(folder.path().join(format!("f{n}")), noise(n, 3 << 20)).unwrap();
    }
    for n in 1..7 {
        let backend = FaultBackend::new(MemoryBackend::new());
        let faults = backend.faults();
        let repository = testing::init(Arc::new(backend), 1);
        faults.inject(Fault::nth_mutation(n, io::ErrorKind::StorageFull).lasting());
        let result = run(&repository, paths(folder.path()), &options(), &Silent);
        assert_eq!(result.is_err(), faults.fired() > 0, "{n}: {result:?}");
        if result.is_err() {
            assert!(repository.snapshots().unwrap().is_empty());
        }
    }
}

#[test]
fn a_large_directory_that_is_broken_off_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    large(folder.path(), 4000);
    let repository = repository();
    let monitor = CancelAfter { entries: AtomicU64::new(1500), cancelled: AtomicBool::new(false) };
    let small = limits(50, 1000);
    let report = run_within(&repository, paths(folder.path()), &options(), &small, &monitor).unwrap();
    assert!(report.cancelled);
    let stored = entries(&repository, report.snapshot.unwrap(), folder.path());
    assert!((1400..4000).contains(&stored.len()), "{}", stored.len());
    let done = stored.values().filter(|node| matches!(node.kind, NodeKind::File(_))).count() as u64;
    let report = run_within(&repository, paths(folder.path()), &options(), &small, &Silent).unwrap();
    assert!(report.summary.files_unmodified >= done, "{:?}", report.summary);
    let all = entries(&repository, report.snapshot.unwrap(), folder.path());
    assert_eq!(all.len(), 4051 + 40 + 40 + 1, "files, directories, links and a pipe");
}

#[test]
fn a_dry_run_of_more_than_one_commit_holds_comes_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..40 {
        fs::write(folder.path().join(format!("f{n}")), noise(n, 200_000)).unwrap();
    }
    let backend = MemoryBackend::new();
    let repository = testing::init(Arc::new(backend.clone()), 1);
    let before = backend.objects();
    let dry = BackupOptions { dry_run: true, blobs_per_commit: 10, ..options() };
    let report = run(&repository, paths(folder.path()), &dry, &Silent).unwrap();
    assert_eq!(report.summary.files_new, 40);
    assert!(report.summary.bytes_added >= 40 * 200_000);
    assert_eq!(backend.objects(), before);
}

#[test]
fn more_lost_blobs_than_one_commit_holds_are_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..40 {
        fs::write(folder.path().join(format!("f{n}")), noise(n, 200_000)).unwrap();
    }
    let repository = repository();
    let report = back_up(&repository, folder.path());
    let mut wanted = HashSet::new();
    for node in entries(&repository, report.snapshot.unwrap(), folder.path()).into_values() {
        let NodeKind::File(content) = node.kind else { panic!("only files") };
        wanted.extend(chunk_list::chunks(&content.chunks).unwrap().map(|chunk| chunk.unwrap().id));
    }
    let before = repository.fold().seq();
    let options = BackupOptions { blobs_per_commit: 10, ..options() };
    let found = reinsert(&repository, &[folder.path().to_owned()], &wanted, &options, &Silent).unwrap();
    assert_eq!(found, wanted);
    assert!(repository.fold().seq() > before + 1, "several commits");
}

#[test]
fn cancelled_at_once_nothing_hangs() {
    struct Cancelled;
    impl Monitor for Cancelled {
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let folder = tempfile::tempdir().unwrap();
    varied(folder.path());
    for threads in [1, 4] {
        let options = BackupOptions { threads, ..BackupOptions::default() };
        let report = run(&repository(), paths(folder.path()), &options, &Cancelled).unwrap();
        assert!(report.cancelled);
    }
}
