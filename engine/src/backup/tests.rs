//! Backups of real directories into memory, looked at through the snapshot.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::assemble::file_node;
use super::files::{FileError, ReadContent, Stream};
use super::*;
use crate::backend::testing::{Call, Fault, FaultBackend, Operation, RecordingBackend};
use crate::backend::{Backend, Folder, LocalBackend, MemoryBackend};
use crate::browse;
use crate::format::chunk_list;
use crate::format::tree::{FileContent, Hole, Metadata, Node, NodeKind};
use crate::ids::SnapshotId;
use crate::monitor::{Problem, Silent};
use crate::source::Spill;
use crate::testing;

fn repository() -> Repository {
    testing::init(Arc::new(MemoryBackend::new()), 1)
}

fn options() -> BackupOptions {
    BackupOptions { threads: 2, ..BackupOptions::default() }
}

fn paths(path: &Path) -> BackupSource {
    BackupSource::Paths { paths: vec![path.to_owned()], filter: FilterOptions::default() }
}

fn back_up(repository: &Repository, path: &Path) -> BackupReport {
    run(repository, paths(path), &options(), &Silent).unwrap()
}

/// Does `act` until nothing above `path` changed meanwhile: the directories on the way to a root are part of a snapshot, and other
/// tests make their folders in one of them.
fn undisturbed<T>(path: &Path, mut act: impl FnMut() -> T) -> T {
    use std::os::unix::fs::MetadataExt;
    let above = || -> Vec<_> {
        let state =
            |path: &Path| fs::metadata(path).map(|state| (state.ctime(), state.ctime_nsec())).unwrap();
        path.ancestors().skip(1).map(state).collect()
    };
    (0..100)
        .find_map(|_| {
            let before = above();
            let done = act();
            (above() == before).then_some(done)
        })
        .expect("the folders above are not always changed")
}

/// A folder in a place where hardly anybody else makes any.
fn aside() -> tempfile::TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

/// The folders of the objects that were created.
fn created(calls: &[Call]) -> Vec<Folder> {
    calls.iter().filter(|call| call.operation == Operation::Create).filter_map(|call| call.folder).collect()
}

/// All entries below `path` in a snapshot, by path relative to it.
fn entries(repository: &Repository, snapshot: SnapshotId, path: &Path) -> BTreeMap<String, Node> {
    let (_, snapshot) = repository.find_snapshot(&snapshot.to_string()).unwrap();
    let found = browse::find(repository.reader(), &snapshot.tree, path.as_os_str().as_bytes()).unwrap();
    let mut entries = BTreeMap::new();
    browse::list(repository.reader(), &found.tree().unwrap(), b"", true, &mut |path, node| {
        entries.insert(String::from_utf8_lossy(&path[1..]).into_owned(), node.clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    entries
}

/// The content of a file as its chunks and holes give it.
fn content(repository: &Repository, node: &Node) -> Vec<u8> {
    use crate::crypto::keys::BlobKind;
    let NodeKind::File(file) = &node.kind else { panic!("not a file: {node:?}") };
    let mut tables = vec![(file.depth, file.chunks.to_vec())];
    let mut data = Vec::new();
    while let Some((depth, table)) = tables.pop() {
        if depth == 0 {
            for chunk in chunk_list::chunks(&table).unwrap() {
                let chunk = chunk.unwrap();
                let bytes = repository.reader().read(BlobKind::Data, &chunk.id).unwrap();
                assert_eq!(bytes.len(), chunk.len as usize);
                data.extend(bytes);
            }
            continue;
        }
        let lists: Vec<_> = chunk_list::lists(&table).unwrap().map(Result::unwrap).collect();
        for list in lists.into_iter().rev() {
            let bytes = repository.reader().read(BlobKind::Tree, &list.id).unwrap();
            let list: chunk_list::ChunkList = crate::format::record::decode(&bytes).unwrap();
            tables.push((list.depth, list.chunks.to_vec()));
        }
    }
    for hole in &file.holes {
        let at = hole.offset as usize;
        data.splice(at..at, std::iter::repeat_n(0, hole.length as usize));
    }
    assert_eq!(data.len() as u64, file.size);
    data
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

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

#[test]
fn packs_that_are_taken_over_get_parity() {
    let folder = tempfile::tempdir().unwrap();
    let (source, place) = (folder.path().join("source"), folder.path().join("repository"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), noise(1, 1 << 20)).unwrap();
    let backend = repository_after_a_failed_backup(&place, &source);
    let repository = testing::open(backend, 2).unwrap();
    // It is wanted by now, and was not when they were stored.
    let add = crate::parity::AddOptions { threads: 1, ..crate::parity::AddOptions::default() };
    crate::parity::add(&repository, &add, &Silent).unwrap();
    assert!(adopt::adopt(&repository).unwrap() > 0);
    let status = crate::parity::status(&repository).unwrap();
    assert!(status.coverage.iter().all(|one| one.uncovered == 0), "{status:?}");
}

#[test]
fn packs_that_a_prune_has_condemned_are_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let (source, place) = (folder.path().join("source"), folder.path().join("repository"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), noise(1, 1 << 20)).unwrap();
    let backend = repository_after_a_failed_backup(&place, &source);
    let repository = testing::open(backend, 2).unwrap();
    crate::prune::run(&repository, &crate::prune::PruneOptions::default(), &Silent).unwrap();
    assert!(repository.fold().condemned().count() > 0, "the orphans");
    assert_eq!(adopt::adopt(&repository).unwrap(), 0);
}

#[test]
fn every_kind_of_entry_and_size_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    let sizes = [0, 1, 100, 16 << 10, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 5 << 20, 9_000_001];
    for (seed, size) in (0..).zip(sizes) {
        fs::write(root.join(format!("a/{size}")), noise(seed, size)).unwrap();
    }
    symlink("nowhere", root.join("a/b/link")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"middle", 1 << 30).unwrap();
    let repository = repository();
    let report = back_up(&repository, root);
    assert!(report.is_complete());
    let entries = entries(&repository, report.snapshot.unwrap(), root);
    for (seed, size) in (0..).zip(sizes) {
        assert!(content(&repository, &entries[&format!("a/{size}")]) == noise(seed, size), "{size}");
    }
    assert!(matches!(&entries["a/b/link"].kind, NodeKind::Symlink { target } if target == "nowhere"));
    assert!(matches!(entries["empty"].kind, NodeKind::Directory { .. }));
    let NodeKind::File(sparse) = &entries["sparse"].kind else { panic!("not a file") };
    assert_eq!(sparse.size, 1 << 40);
    assert_eq!(sparse.holes[0], Hole { offset: 0, length: 1 << 30 });
    assert_eq!(report.summary.files, sizes.len() as u64 + 1);
}

#[test]
fn an_unchanged_backup_opens_no_file_reads_no_data_and_writes_only_a_commit() {
    let folder = aside();
    for n in 0..50 {
        fs::create_dir(folder.path().join(format!("d{n}"))).unwrap();
        fs::write(folder.path().join(format!("d{n}/f")), noise(n, 5000)).unwrap();
    }
    let backend = RecordingBackend::new(MemoryBackend::new());
    let recording = backend.recording();
    let repository = testing::init(Arc::new(backend), 1);
    let skipping = BackupOptions { skip_if_unchanged: true, ..options() };
    let (first, second, calls, third) = undisturbed(folder.path(), || {
        let first = back_up(&repository, folder.path());
        recording.take();
        let second = back_up(&repository, folder.path());
        let calls = recording.take();
        (first, second, calls, run(&repository, paths(folder.path()), &skipping, &Silent).unwrap())
    });
    assert_eq!(second.summary.files_unmodified, 50);
    assert_eq!(second.parent, first.snapshot);
    assert_eq!(created(&calls), [Folder::Log], "the commit, and nothing else");
    let first_entries = entries(&repository, first.snapshot.unwrap(), folder.path());
    assert_eq!(entries(&repository, second.snapshot.unwrap(), folder.path()), first_entries);
    assert_eq!(third.snapshot, None);
    assert_eq!(created(&recording.calls()), [], "nothing at all is written");
}

#[test]
fn changes_are_found_and_the_rest_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("d")).unwrap();
    for name in ["same", "changed", "removed", "d/deep"] {
        fs::write(root.join(name), name).unwrap();
    }
    let big = noise(9, 8 << 20);
    fs::write(root.join("big"), &big).unwrap();
    let repository = repository();
    back_up(&repository, root);
    fs::write(root.join("changed"), "other").unwrap();
    fs::remove_file(root.join("removed")).unwrap();
    fs::write(root.join("new"), "new").unwrap();
    let mut edited = big.clone();
    edited[4 << 20] ^= 1;
    fs::write(root.join("big"), &edited).unwrap();
    let report = back_up(&repository, root);
    let summary = &report.summary;
    assert_eq!((summary.files_new, summary.files_changed, summary.files_unmodified), (1, 2, 2));
    assert!(summary.bytes_added < 3 << 20, "{}", summary.bytes_added);
    let entries = entries(&repository, report.snapshot.unwrap(), root);
    assert!(!entries.contains_key("removed"));
    assert_eq!(content(&repository, &entries["changed"]), b"other");
    assert!(content(&repository, &entries["big"]) == edited);
    assert_eq!(content(&repository, &entries["d/deep"]), b"d/deep");
}

#[test]
fn a_huge_directory_is_split_and_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..10_000 {
        fs::write(folder.path().join(format!("file-{n:05}")), n.to_string()).unwrap();
    }
    let repository = repository();
    let report = back_up(&repository, folder.path());
    let entries_before = entries(&repository, report.snapshot.unwrap(), folder.path());
    assert_eq!(entries_before.len(), 10_000);
    fs::write(folder.path().join("file-05000"), "changed").unwrap();
    let report = back_up(&repository, folder.path());
    assert_eq!(report.summary.files_unmodified, 9_999);
    assert!(report.summary.bytes_added < 1 << 20, "{}", report.summary.bytes_added);
    assert_eq!(entries(&repository, report.snapshot.unwrap(), folder.path()).len(), 10_000);
}

/// Cancels after a number of entries.
struct CancelAfter {
    entries: AtomicU64,
    cancelled: AtomicBool,
}

impl Monitor for CancelAfter {
    fn entry(&self, _: &[u8], _: crate::monitor::EntryAction) {
        if self.entries.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
    fn wants_entries(&self) -> bool {
        true
    }
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
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
fn several_roots_share_their_way_and_single_files_can_be_roots() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["x/one", "x/two", "y/three", "z/four"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), name).unwrap();
    }
    let repository = repository();
    let source = BackupSource::Paths {
        paths: vec![root.join("x"), root.join("y/three"), root.join("x/one")],
        filter: FilterOptions::default(),
    };
    let report = run(&repository, source, &options(), &Silent).unwrap();
    let names: Vec<_> = entries(&repository, report.snapshot.unwrap(), root).into_keys().collect();
    assert_eq!(names, ["x", "x/one", "x/two", "y", "y/three"]);
}

#[test]
fn a_missing_root_is_an_error_and_nothing_is_stored() {
    let repository = repository();
    let result = run(&repository, paths(Path::new("/no/such/place")), &options(), &Silent);
    assert!(matches!(result, Err(BackupError::Source { .. })));
    assert!(matches!(
        run(
            &repository,
            BackupSource::Paths { paths: vec![], filter: FilterOptions::default() },
            &options(),
            &Silent
        ),
        Err(BackupError::NoPaths)
    ));
    assert_eq!(repository.fold().seq(), 1);
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), noise(1, 100_000)).unwrap();
    let backend = MemoryBackend::new();
    let repository = testing::init(Arc::new(backend.clone()), 1);
    let before = backend.objects();
    let dry = BackupOptions { dry_run: true, ..options() };
    let report = run(&repository, paths(folder.path()), &dry, &Silent).unwrap();
    assert_eq!((report.snapshot, report.summary.files_new), (None, 1));
    assert!(report.summary.bytes_added >= 100_000);
    assert_eq!(backend.objects(), before);
}

fn stream(data: Vec<u8>, outcome: Result<(), String>) -> BackupSource {
    BackupSource::Stream {
        name: b"dump".to_vec(),
        reader: Box::new(io::Cursor::new(data)),
        finish: Box::new(|| outcome),
    }
}

fn parts(roots: Vec<SourceRoot>, streams: Vec<StreamSource>) -> BackupSource {
    let (filter, accept) = (FilterOptions::default(), Box::new(|_: &_| Ok(())));
    BackupSource::Parts { roots, filter, streams, accept }
}

fn stream_source(name: &str, data: Vec<u8>, outcome: Result<(), String>) -> StreamSource {
    let (reader, finish) = (Box::new(io::Cursor::new(data)), Box::new(|| outcome));
    StreamSource { name: name.into(), reader, finish }
}

#[test]
fn files_and_streams_become_one_snapshot_or_none() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("live/a", "live"), ("frozen/a", "frozen"), ("copies/state.db", "a copy")] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let root = |path: &str, from: &str| SourceRoot {
        path: folder.path().join(path),
        read_from: Some(folder.path().join(from)),
    };
    let roots = || vec![root("live", "frozen"), root("var/state.db", "copies/state.db")];
    fs::create_dir(folder.path().join("var")).unwrap();
    let repository = repository();
    let data = noise(5, 3 << 20);
    let good = || stream_source("a.dump", data.clone(), Ok(()));
    for bad in [
        vec![good(), stream_source("b.dump", data.clone(), Err("exit code 1".into()))],
        vec![stream_source("0.dump", Vec::new(), Err("exit code 1".into())), good()],
    ] {
        let failed = run(&repository, parts(roots(), bad), &options(), &Silent);
        assert!(matches!(failed, Err(BackupError::Stream { .. })), "{failed:?}");
        assert!(repository.snapshots().unwrap().is_empty());
    }
    let accept: Accept = Box::new(|summary| Err(format!("{} files are too few", summary.files)));
    let refused = BackupSource::Parts {
        roots: roots(),
        filter: FilterOptions::default(),
        streams: vec![good()],
        accept,
    };
    let refused = run(&repository, refused, &options(), &Silent);
    assert!(matches!(refused, Err(BackupError::Refused { reason }) if reason == "3 files are too few"));
    assert!(repository.snapshots().unwrap().is_empty());

    let report = run(&repository, parts(roots(), vec![good()]), &options(), &Silent).unwrap();
    assert_eq!((report.summary.files, report.is_complete()), (3, true));
    let (_, snapshot) = repository.snapshots().unwrap().remove(0);
    let at = |path: &str| folder.path().join(path).to_str().unwrap().as_bytes().to_vec();
    let paths: Vec<_> = snapshot.paths.iter().map(|path| path.to_vec()).collect();
    assert_eq!(paths, [at("live"), at("var/state.db"), b"/a.dump".to_vec()]);
    let target = folder.path().join("restored");
    crate::restore::run(&repository, &snapshot, b"", &target, &Default::default(), &Silent).unwrap();
    let restored = |path: &Path| fs::read(target.join(path.strip_prefix("/").unwrap())).unwrap();
    assert_eq!(restored(&folder.path().join("live/a")), b"frozen");
    assert_eq!(restored(&folder.path().join("var/state.db")), b"a copy");
    assert_eq!(restored(Path::new("/a.dump")), data);

    let again = run(&repository, parts(roots(), vec![good()]), &options(), &Silent).unwrap();
    assert_eq!((again.parent, again.summary.files_unmodified), (report.snapshot, 2));
    assert_eq!(again.summary.files_changed, 1, "a stream is read each time");
    assert!(again.summary.bytes_added < 100_000, "and stored once");
}

#[test]
fn parts_that_cannot_be_together_are_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), "x").unwrap();
    let backend = MemoryBackend::new();
    let repository = testing::init(Arc::new(backend.clone()), 1);
    let before = backend.objects();
    let here = || SourceRoot::at(folder.path().to_owned());
    let first = here().path.components().nth(1).unwrap().as_os_str().to_str().unwrap().to_owned();
    let good = |name: &str| stream_source(name, vec![1], Ok(()));
    let other_name = SourceRoot { path: folder.path().join("g"), read_from: Some(folder.path().join("f")) };
    let run = |roots, streams| run(&repository, parts(roots, streams), &options(), &Silent);
    assert!(matches!(run(vec![], vec![]), Err(BackupError::NoPaths)));
    assert!(matches!(run(vec![here()], vec![good(&first)]), Err(BackupError::NameTaken { .. })));
    assert!(matches!(run(vec![], vec![good("a"), good("a")]), Err(BackupError::NameTaken { .. })));
    assert!(matches!(run(vec![], vec![good("a/b")]), Err(BackupError::Stream { .. })));
    assert!(matches!(run(vec![other_name], vec![]), Err(BackupError::Source { .. })));
    let inner = SourceRoot { path: folder.path().join("f"), read_from: Some("/etc/hostname/f".into()) };
    assert!(run(vec![here(), inner], vec![]).is_err());
    assert!(repository.snapshots().unwrap().is_empty());
    assert_eq!(backend.objects(), before);
}

#[test]
fn a_stream_becomes_a_file_only_if_its_end_is_good() {
    let repository = repository();
    let data = noise(3, 20 << 20);
    let failed = run(&repository, stream(data.clone(), Err("exit status 1".into())), &options(), &Silent);
    assert!(matches!(failed, Err(BackupError::Stream { .. })));
    assert!(repository.snapshots().unwrap().is_empty());
    let report = run(&repository, stream(data.clone(), Ok(())), &options(), &Silent).unwrap();
    let (_, snapshot) = repository.find_snapshot(&report.snapshot.unwrap().to_string()).unwrap();
    let node = browse::lookup(repository.reader(), &snapshot.tree, b"dump").unwrap().unwrap();
    assert!(content(&repository, &node) == data);
    assert_eq!(report.summary.bytes, 20 << 20);
}

#[derive(Default)]
struct Collect(std::sync::Mutex<Vec<Problem>>);

impl Monitor for Collect {
    fn problem(&self, problem: &Problem) {
        self.0.lock().unwrap().push(problem.clone());
    }
}

#[test]
fn the_repository_inside_the_source_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("repo");
    let backend = LocalBackend::create_repository(&place).unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let repository = testing::init(Arc::new(backend), 1);
    let monitor = Collect::default();
    let report = run(&repository, paths(folder.path()), &options(), &monitor).unwrap();
    let names: Vec<_> = entries(&repository, report.snapshot.unwrap(), folder.path()).into_keys().collect();
    assert_eq!(names, ["file"]);
    assert!(report.is_complete());
    assert_eq!(monitor.0.lock().unwrap()[0].code, "repository-in-source");
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

/// A tree of many directories with files of all sorts of lengths, some equal.
fn varied(root: &Path) {
    for n in 0..400u32 {
        let place = root.join(format!("a{}/b{}/c{}", n % 3, n % 7, n % 11));
        fs::create_dir_all(&place).unwrap();
        let len = [0, 1, 900, 20_000, 90_000, 300_000][n as usize % 6];
        fs::write(place.join(format!("f{n}")), noise((n % 100) as u8, len)).unwrap();
    }
    fs::write(root.join("large"), noise(200, 11 << 20)).unwrap();
    symlink("large", root.join("link")).unwrap();
}

/// The tree of a folder. Those above it change with whatever else happens there.
fn tree_of(repository: &Repository, snapshot: SnapshotId, folder: &Path) -> BlobId {
    let root = repository.find_snapshot(&snapshot.to_string()).unwrap().1.tree;
    browse::find(repository.reader(), &root, folder.as_os_str().as_bytes()).unwrap().tree().unwrap()
}

#[test]
fn the_tree_depends_on_the_source_and_on_no_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    varied(folder.path());
    let trees: Vec<_> = [1, 2, 3, 8, 8, 8]
        .into_iter()
        .map(|threads| {
            let repository = repository();
            let options = BackupOptions { threads, ..BackupOptions::default() };
            let first = run(&repository, paths(folder.path()), &options, &Silent).unwrap();
            assert!(first.is_complete());
            let again = run(&repository, paths(folder.path()), &options, &Silent).unwrap();
            assert_eq!((again.summary.files_unmodified, again.summary.files), (401, 401));
            let tree = tree_of(&repository, first.snapshot.unwrap(), folder.path());
            assert_eq!(tree_of(&repository, again.snapshot.unwrap(), folder.path()), tree, "{threads}");
            // Without parent all is read again, and found to be there.
            let forced = BackupOptions { parent: ParentChoice::None, ..options };
            let read = run(&repository, paths(folder.path()), &forced, &Silent).unwrap();
            assert_eq!(read.summary.files_new, 401);
            assert_eq!(tree_of(&repository, read.snapshot.unwrap(), folder.path()), tree, "{threads}");
            tree
        })
        .collect();
    assert!(trees.windows(2).all(|pair| pair[0] == pair[1]), "{trees:?}");
}

/// Limits of a run that looks at so many entries at once and sorts so many names at once.
fn limits(window_len: usize, run_len: usize) -> ScanLimits {
    ScanLimits { window_len, spill: Spill { place: Some(std::env::temp_dir()), run_len } }
}

/// One directory with so many files, and other entries between them.
fn large(root: &Path, files: usize) {
    for n in 0..files {
        fs::write(root.join(format!("f{n:05}")), if n % 7 == 0 { n.to_string() } else { String::new() })
            .unwrap();
    }
    for n in 0..40 {
        fs::create_dir(root.join(format!("f{n:03}50-dir"))).unwrap();
        fs::write(root.join(format!("f{n:03}50-dir/file")), n.to_string()).unwrap();
        symlink("nowhere", root.join(format!("f{n:03}70-link"))).unwrap();
    }
    fs::write(root.join("f00333-large"), noise(1, 5 << 20)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("f00444-pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    for n in 0..10 {
        fs::hard_link(root.join("f00007"), root.join(format!("f0{n}111-name"))).unwrap();
    }
}

#[test]
fn a_tree_does_not_depend_on_how_much_of_a_directory_is_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let ways = [limits(1024, 32 << 10), limits(1, 100), limits(7, 999)];
    let repositories: Vec<_> = ways.iter().map(|_| repository()).collect();
    let none = BackupOptions { parent: ParentChoice::None, ..options() };
    let everywhere = || {
        let fresh = repository();
        let report = run(&fresh, paths(root), &none, &Silent).unwrap();
        let expected = tree_of(&fresh, report.snapshot.unwrap(), root);
        let all = entries(&fresh, report.snapshot.unwrap(), root);
        // As one list in memory: the pieces are what the rule says.
        let nodes: Vec<&Node> =
            all.iter().filter(|(path, _)| !path.contains('/')).map(|(_, node)| node).collect();
        let splitter = crate::chunk::split::Splitter::new(fresh.keys());
        let put =
            &mut |bytes: &[u8]| Ok::<_, ()>(fresh.keys().blob_id(crate::crypto::keys::BlobKind::Tree, bytes));
        assert_eq!(crate::store::put_tree(&splitter, &nodes, put), Ok(expected));
        let mut summaries: Vec<SnapshotSummary> = Vec::new();
        for (limits, repository) in ways.iter().zip(&repositories) {
            let report = run_within(repository, paths(root), &options(), limits, &Silent).unwrap();
            assert!(report.is_complete());
            assert_eq!(tree_of(repository, report.snapshot.unwrap(), root), expected, "{limits:?}");
            let SnapshotSummary { files, files_new, files_changed, files_unmodified, bytes, .. } =
                report.summary;
            summaries.push(SnapshotSummary {
                files,
                files_new,
                files_changed,
                files_unmodified,
                bytes,
                ..SnapshotSummary::default()
            });
        }
        assert!(summaries.windows(2).all(|pair| pair[0] == pair[1]), "{summaries:?}");
        summaries.swap_remove(0)
    };
    large(root, 4000);
    assert_eq!(everywhere().files_new, 4051);
    assert_eq!(everywhere().files_unmodified, 4051);
    fs::write(root.join("f02500"), "changed").unwrap();
    let one = everywhere();
    assert_eq!((one.files_changed, one.files_unmodified), (1, 4050));
    for n in 0..1500 {
        fs::remove_file(root.join(format!("f{:05}", 1000 + n))).unwrap();
    }
    fs::write(root.join("f01950-dir/file"), "changed").unwrap();
    fs::write(root.join("e"), "the first").unwrap();
    fs::write(root.join("g"), "the last").unwrap();
    let several = everywhere();
    assert_eq!((several.files_new, several.files_changed, several.files_unmodified), (2, 1, 2550));
    for n in 3000..4000 {
        fs::remove_file(root.join(format!("f{n:05}"))).unwrap();
    }
    assert_eq!(everywhere().files_unmodified, 1553, "one blob is enough again");
}

#[test]
fn an_unchanged_directory_in_many_pieces_costs_a_commit_and_one_change_a_piece() {
    let folder = aside();
    large(folder.path(), 4000);
    let backend = RecordingBackend::new(MemoryBackend::new());
    let recording = backend.recording();
    let repository = testing::init(Arc::new(backend), 1);
    let small = limits(100, 1000);
    let back_up = || run_within(&repository, paths(folder.path()), &options(), &small, &Silent).unwrap();
    let skipping = BackupOptions { skip_if_unchanged: true, ..options() };
    let (report, calls, skipped) = undisturbed(folder.path(), || {
        back_up();
        recording.take();
        let report = back_up();
        let calls = recording.take();
        (report, calls, run(&repository, paths(folder.path()), &skipping, &Silent).unwrap())
    });
    assert_eq!(report.summary.files_unmodified, report.summary.files);
    assert_eq!(created(&calls), [Folder::Log], "the commit, and nothing else");
    assert_eq!(skipped.snapshot, None);
    fs::write(folder.path().join("f03000"), "x").unwrap();
    let report = back_up();
    assert!(report.summary.bytes_added < 500_000, "{}", report.summary.bytes_added);
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
fn a_directory_with_more_subdirectories_than_are_scanned_ahead_is_stored_whole() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..1500 {
        fs::create_dir(folder.path().join(format!("d{n:04}"))).unwrap();
        fs::write(folder.path().join(format!("d{n:04}/f")), n.to_string()).unwrap();
    }
    let repository = repository();
    let report = back_up(&repository, folder.path());
    let stored = entries(&repository, report.snapshot.unwrap(), folder.path());
    assert_eq!(stored.len(), 3000);
    assert_eq!(content(&repository, &stored["d1499/f"]), b"1499");
    fs::remove_dir_all(folder.path().join("d0700")).unwrap();
    fs::write(folder.path().join("d1300/f"), "other").unwrap();
    let report = back_up(&repository, folder.path());
    let summary = &report.summary;
    assert_eq!((summary.files_unmodified, summary.files_changed, summary.files_new), (1498, 1, 0));
    let stored = entries(&repository, report.snapshot.unwrap(), folder.path());
    assert_eq!(stored.len(), 2998);
    assert_eq!(content(&repository, &stored["d1300/f"]), b"other");
}

#[test]
fn every_byte_is_counted_whoever_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut total = 0;
    // Workers finish small files while the walk reads the large ones between them.
    for n in 0..3000u32 {
        let len = if n % 500 == 499 { 6 << 20 } else { 1 + n as usize % 4000 };
        fs::write(folder.path().join(format!("f{n:04}")), noise((n % 100) as u8, len)).unwrap();
        total += len as u64;
    }
    for threads in [1, 2, 3, 8] {
        let options = BackupOptions { threads, ..BackupOptions::default() };
        let repository = repository();
        for unmodified in [0, 3000] {
            let report = run(&repository, paths(folder.path()), &options, &Silent).unwrap();
            assert_eq!(report.summary.files_unmodified, unmodified);
            assert_eq!(report.summary.bytes, total, "{threads} threads");
        }
    }
}

/// Makes files vanish or grow once the first entry is seen.
struct Meddler {
    root: PathBuf,
    done: AtomicBool,
    problems: Collect,
}

impl Monitor for Meddler {
    fn progress(&self, _: &crate::monitor::Progress) {
        if !self.done.swap(true, Ordering::Relaxed) {
            fs::remove_file(self.root.join("z/gone")).unwrap();
            fs::write(self.root.join("z/grown"), noise(7, 3 << 20)).unwrap();
            fs::remove_file(self.root.join("z/turned")).unwrap();
            fs::create_dir(self.root.join("z/turned")).unwrap();
        }
    }
    fn problem(&self, problem: &Problem) {
        self.problems.problem(problem);
    }
}

#[test]
fn files_that_grow_or_vanish_after_they_were_listed_are_stored_as_they_are_or_reported() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("z")).unwrap();
    for name in ["gone", "grown", "turned", "plain"] {
        fs::write(root.join("z").join(name), name).unwrap();
    }
    // Read by the walk itself, long before the small files of a directory are sent to anybody.
    fs::write(root.join("z/a-large"), noise(1, 1 << 20)).unwrap();
    let repository = repository();
    let meddler =
        Meddler { root: root.to_owned(), done: AtomicBool::new(false), problems: Collect::default() };
    let report = run(&repository, paths(root), &options(), &meddler).unwrap();
    assert!(!report.is_complete());
    assert_eq!((report.summary.errors, report.summary.files), (2, 3));
    let stored = entries(&repository, report.snapshot.unwrap(), root);
    let names: Vec<_> = stored.keys().map(String::as_str).collect();
    assert_eq!(names, ["z", "z/a-large", "z/grown", "z/plain"]);
    assert!(content(&repository, &stored["z/grown"]) == noise(7, 3 << 20));
    let problems = meddler.problems.0.lock().unwrap();
    let mut told: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    told.sort_unstable();
    assert_eq!(told, ["vanished", "vanished"], "{problems:?}");
}

/// Stores the entries that `produce` makes in one directory, with workers behind it, and returns them by name.
fn stored(
    repository: &Repository,
    monitor: &dyn Monitor,
    produce: impl FnOnce(&mut Pipeline<'_, '_>, assemble::FrameId),
) -> BTreeMap<Vec<u8>, Node> {
    let options = options();
    let session = Session::new(repository, &options);
    let mut assembler = Assembler::new(session.tree_writer());
    let mut summary = SnapshotSummary::default();
    with_workers(&session, &options, monitor, &mut assembler, &mut summary, |mut pipeline| {
        let root = pipeline.assembler.begin_dir(None, None);
        produce(&mut pipeline, root);
        pipeline.assembler.end_dir(&session, root)?;
        pipeline.drain()
    })
    .unwrap();
    session.commit_blobs(assembler.writer()).unwrap();
    let mut nodes = BTreeMap::new();
    browse::nodes(repository.reader(), &assembler.root().unwrap(), &mut |node| {
        nodes.insert(node.name.to_vec(), node);
        ControlFlow::Continue(())
    })
    .unwrap();
    nodes
}

/// Fails once its first buffer is full, in the midst of the second.
struct Broken {
    is_second: bool,
}

impl files::Content for Broken {
    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let room = buffer.capacity() - buffer.len();
        if std::mem::replace(&mut self.is_second, true) {
            buffer.extend(noise(1, room / 2));
            return Err(io::Error::other("a bad sector"));
        }
        buffer.extend(noise(2, room));
        Ok(false)
    }
}

#[test]
fn what_was_read_of_a_broken_file_becomes_part_of_no_other() {
    let repository = repository();
    let good = noise(3, 3 << 20);
    let nodes = stored(&repository, &Silent, |pipeline, root| {
        let mut files = FileReader::new(GearTable::derive(repository.keys()));
        let slot = pipeline.assembler.reserve(root, None);
        let token = pipeline.assembler.begin_file(root, slot, None);
        let mut stream = Stream { token, parts: 0, grain: None };
        let broken = files.read_stream(pipeline, &mut Broken { is_second: false }, &mut stream, 10 << 20);
        assert!(matches!(broken, Err(FileError::File(_))));
        pipeline.assembler.abandon(token);
        pipeline.assembler.release(pipeline.session, root, slot).unwrap();
        let slot = pipeline.assembler.reserve(root, None);
        let token = pipeline.assembler.begin_file(root, slot, None);
        let mut stream = Stream { token, parts: 0, grain: None };
        let mut content = ReadContent(io::Cursor::new(&good));
        let size = files.read_stream(pipeline, &mut content, &mut stream, good.len() as u64).unwrap();
        let node = file_node(b"good", FileContent { size, ..FileContent::default() }, Metadata::default());
        let session = pipeline.session;
        pipeline.assembler.end_file(session, token, stream.parts, node).unwrap();
        pipeline.assembler.release(session, root, slot).unwrap();
    });
    assert_eq!(nodes.len(), 1);
    assert!(content(&repository, &nodes[b"good".as_slice()]) == good);
}

#[test]
fn a_node_that_breaks_a_rule_is_reported_and_its_directory_does_without_it() {
    let monitor = Collect::default();
    let nodes = stored(&repository(), &monitor, |pipeline, root| {
        let own = (ByteBuf::from(b"dir"), Metadata::default());
        let place = assemble::Place { parent: root, slot: pipeline.assembler.reserve(root, None) };
        let dir = pipeline.assembler.begin_dir(Some(own), Some(place));
        let holes = vec![Hole { offset: 0, length: 4096 }, Hole { offset: 4096, length: 4096 }];
        let touching = FileContent { size: 8192, holes, ..FileContent::default() };
        for (name, content) in [(b"bad", touching), (b"ok ", FileContent::default())] {
            let slot = pipeline.assembler.reserve(dir, None);
            let node = Box::new(file_node(name, content, Metadata::default()));
            pipeline.assembler.complete(pipeline.session, dir, slot, Some(node)).unwrap();
        }
        let session = pipeline.session;
        pipeline.assembler.end_dir(session, dir).unwrap();
    });
    assert!(matches!(nodes[b"dir".as_slice()].kind, NodeKind::Directory { .. }));
    let problems = monitor.0.lock().unwrap();
    let told: Vec<_> = problems.iter().map(|problem| (problem.code, problem.path.as_deref())).collect();
    assert_eq!(told, [("inconsistent", Some(b"/dir/bad".as_slice()))], "{problems:?}");
    assert!(problems[0].is_error);
}

#[test]
fn tiny_blobs_count_long_before_they_fill_a_block() {
    let repository = repository();
    let options = BackupOptions { blobs_per_commit: 16 << 10, ..options() };
    let session = Session::new(&repository, &options);
    let mut writer = session.data_writer();
    for n in 0..=16u32 << 10 {
        let id = BlobId::from_bytes(blake3::hash(&n.to_le_bytes()).into());
        writer.put(crate::crypto::keys::BlobKind::Data, id, &n.to_le_bytes(), true).unwrap();
    }
    assert!(session.is_commit_due());
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
fn a_short_run_forgets_nothing_of_a_longer_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..40u8 {
        fs::create_dir(folder.path().join(format!("d{n:02}"))).unwrap();
        fs::write(folder.path().join(format!("d{n:02}/f")), noise(n, 300_000)).unwrap();
    }
    let repository = repository();
    let interrupted = |entries| {
        let monitor =
            CancelAfter { entries: AtomicU64::new(entries), cancelled: AtomicBool::new(entries == 0) };
        run(&repository, paths(folder.path()), &options(), &monitor).unwrap().snapshot
    };
    let long = interrupted(30).expect("a partial snapshot");
    fs::write(folder.path().join("a"), noise(100, 300_000)).unwrap();
    let short = interrupted(1).expect("a partial snapshot");
    assert_eq!(interrupted(0), None, "it holds no file that others do not hold");
    let ids = || repository.snapshots().unwrap().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(), [long, short]);
    let report = back_up(&repository, folder.path());
    assert_eq!(report.summary.files, 41);
    assert!(report.summary.files_unmodified >= 31, "{:?}", report.summary);
    assert_eq!(ids(), [report.snapshot.unwrap()]);
}

/// Commits a snapshot anew, as it would be if the device of `folder` had had another number.
fn renumber(repository: &Repository, snapshot: SnapshotId, folder: &Path, device: u64) {
    let (_, record) = repository.find_snapshot(&snapshot.to_string()).unwrap();
    let options = options();
    let session = Session::new(repository, &options);
    let mut assembler = Assembler::new(session.tree_writer());
    let mut frames = vec![assembler.begin_dir(None, None)];
    for name in folder.components().skip(1) {
        let parent = *frames.last().unwrap();
        let place = assemble::Place { parent, slot: assembler.reserve(parent, None) };
        let own = (ByteBuf::from(name.as_os_str().as_bytes()), Metadata::default());
        frames.push(assembler.begin_dir(Some(own), Some(place)));
    }
    let frame = *frames.last().unwrap();
    for mut node in entries(repository, snapshot, folder).into_values() {
        node.metadata.device = node.metadata.device.map(|_| device);
        let slot = assembler.reserve(frame, None);
        assembler.complete(&session, frame, slot, Some(Box::new(node))).unwrap();
    }
    for frame in frames.into_iter().rev() {
        assembler.end_dir(&session, frame).unwrap();
    }
    let renumbered = Snapshot { tree: assembler.root().unwrap(), ..record };
    session.commit(assembler.writer(), &renumbered, &[snapshot]).unwrap();
}

#[test]
fn names_of_one_file_are_taken_over_with_the_present_number_of_their_device() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("one"), noise(1, 1000)).unwrap();
    fs::hard_link(folder.path().join("one"), folder.path().join("two")).unwrap();
    fs::write(folder.path().join("plain"), noise(2, 1000)).unwrap();
    let repository = repository();
    let first = back_up(&repository, folder.path()).snapshot.unwrap();
    let before = entries(&repository, first, folder.path());
    let device = before["one"].metadata.device.expect("it has two names");
    renumber(&repository, first, folder.path(), device + 1);
    let report = back_up(&repository, folder.path());
    assert_ne!(report.parent, Some(first));
    assert_eq!(report.summary.files_unmodified, 3, "nothing is read again");
    assert_eq!(entries(&repository, report.snapshot.unwrap(), folder.path()), before);
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

#[test]
fn every_name_of_a_file_has_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for n in 0..20 {
        fs::create_dir(root.join(format!("d{n:02}"))).unwrap();
    }
    let sizes = [10, 30_000, 300_000, 5 << 20];
    for (seed, size) in (0..).zip(sizes) {
        let first = root.join(format!("d00/{size}"));
        fs::write(&first, noise(seed, size)).unwrap();
        for n in 1..20 {
            fs::hard_link(&first, root.join(format!("d{n:02}/{size}"))).unwrap();
        }
        // A name outside of what is backed up.
        fs::hard_link(&first, root.join(format!("d19/{size}-again"))).unwrap();
    }
    for threads in [1, 4] {
        let repository = repository();
        let options = BackupOptions { threads, ..BackupOptions::default() };
        let source = BackupSource::Paths {
            paths: (0..20).map(|n| root.join(format!("d{n:02}"))).collect(),
            filter: FilterOptions { exclude: vec!["*-again".to_owned()], ..FilterOptions::default() },
        };
        let report = run(&repository, source, &options, &Silent).unwrap();
        assert!(report.is_complete());
        assert_eq!(report.summary.files_new, 80);
        assert_eq!(report.summary.bytes, 20 * sizes.iter().sum::<usize>() as u64);
        let stored = entries(&repository, report.snapshot.unwrap(), root);
        for (seed, size) in (0..).zip(sizes) {
            let first = &stored[&format!("d00/{size}")];
            assert!(content(&repository, first) == noise(seed, size));
            assert_eq!(first.metadata.links, Some(21));
            for n in 1..20 {
                assert_eq!(&stored[&format!("d{n:02}/{size}")], first, "the same in all but the directory");
            }
        }
    }
}

/// rustic_core #571: trees with two nodes of one name, of which each reader takes another. Here neither roots that are
/// given twice or lie in each other, nor entries that become something else, nor going on from a partial snapshot makes one, and
/// whoever meets one refuses it.
#[test]
fn rustic_core_571_no_tree_has_two_nodes_of_one_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let repository = repository();
    let options = BackupOptions { partial_every: Duration::ZERO, ..options() };
    let roots = ["d", "d/e", "d/../d", "d/./e/..", "d", "x"].map(|path| root.join(path));
    for night in 0..4 {
        // Files and directories of the same names by turns, beside names that sort around them.
        for name in ["d/e/x", "d/x", "x"] {
            let path = root.join(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if night % 2 == 0 {
                fs::write(&path, format!("night {night}")).unwrap();
            } else {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("x"), format!("night {night}")).unwrap();
            }
        }
        for name in ["d/x-", "d/x.d", "d/x0"] {
            fs::write(root.join(name), format!("night {night}")).unwrap();
        }
        let source = BackupSource::Paths { paths: roots.to_vec(), filter: FilterOptions::default() };
        let report = run(&repository, source, &options, &Silent).unwrap();
        let (_, snapshot) = repository.find_snapshot(&report.snapshot.unwrap().to_string()).unwrap();
        let mut paths = Vec::new();
        browse::list(repository.reader(), &snapshot.tree, b"", true, &mut |path, _| {
            paths.push(path.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all, "night {night}");
        let found = crate::check::run(&repository, &crate::check::CheckOptions::default(), &Silent).unwrap();
        assert!(!found.is_damaged(), "{:#?}", found.findings);
    }
    let node = Node { name: ByteBuf::from("x"), kind: NodeKind::Fifo, metadata: Metadata::default() };
    let twice = crate::format::tree::Tree::Nodes(vec![node.clone(), node]);
    twice.validate().expect_err("two nodes of one name");
    crate::check::trees::check_tree(&twice, None).expect_err("two nodes of one name");
}
