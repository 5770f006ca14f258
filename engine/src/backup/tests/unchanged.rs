//! What is taken over from the snapshot before, and that the tree depends on the source only.

use super::*;
use crate::check::{self, CheckOptions, ReadData};
use crate::prune::test_support::{Hooked, a_pack, forget};
use crate::repair::{self, PacksOptions, Sources};

#[test]
fn an_unchanged_backup_opens_no_file_reads_no_data_and_writes_only_a_commit() {
    let folder = aside();
    let opened = Opened::new();
    for n in 0..50 {
        let place = folder.path().join(format!("d{n}"));
        fs::create_dir(&place).unwrap();
        fs::write(place.join("f"), noise(n, 5000)).unwrap();
        opened.watch(&place);
    }
    let skipping = BackupOptions { skip_if_unchanged: true, ..options() };
    let (storage, repository, recording, [first, second, third], calls) = undisturbed(folder.path(), || {
        let storage = MemoryBackend::new();
        let backend = RecordingBackend::new(storage.clone());
        let recording = backend.recording();
        let repository = testing::init(Arc::new(backend), 1);
        let first = back_up(&repository, folder.path());
        assert!(opened.files().len() >= 50, "whoever opens a file is seen");
        recording.take();
        let second = back_up(&repository, folder.path());
        let calls = recording.take();
        let third = run(&repository, paths(folder.path()), &skipping, &Silent).unwrap();
        (storage, repository, recording, [first, second, third], calls)
    });
    assert_eq!(opened.files(), [""; 0], "no file is opened again");
    assert_eq!(second.summary.files_unmodified, 50);
    assert_eq!(second.parent, first.snapshot);
    assert_eq!(created(&calls), [Folder::Log], "the commit, and nothing else");
    let data = data_packs(&storage);
    assert!(!data.is_empty());
    for call in calls.iter().filter(|call| call.folder == Some(Folder::Packs)) {
        assert!(call.key.as_ref().is_some_and(|key| !data.contains(key)), "no data is read: {call:?}");
        // A tree that is encoded again is looked up by its id, and then its pack is looked for.
        assert!(call.is_read(), "trees are taken over by their ids: {call:?}");
    }
    let first_entries = entries(&repository, first.snapshot.unwrap(), folder.path());
    assert_eq!(entries(&repository, second.snapshot.unwrap(), folder.path()), first_entries);
    assert_eq!(third.snapshot, None);
    assert_eq!(created(&recording.calls()), [], "nothing at all is written");
}

/// A database whose first page is overwritten is cut as before: other cuts would find nothing of it in the repository.
#[test]
fn the_grain_of_a_file_stays_whatever_its_head_becomes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut content = noise(1, 400 << 10);
    content[..16].copy_from_slice(b"SQLite format 3\0");
    fs::write(&path, &content).unwrap();
    let grain_after = |repository: &Repository| {
        let report = back_up(repository, folder.path());
        let node = entries(repository, report.snapshot.unwrap(), folder.path()).remove("file").unwrap();
        match node.kind {
            NodeKind::File(content) => (content.grain, report.summary.files_changed),
            kind => panic!("not a file: {kind:?}"),
        }
    };
    let repository = repository();
    assert_eq!(grain_after(&repository), (Some(Grain::Page), 0));
    content[..16].copy_from_slice(b"no longer SQLite");
    fs::write(&path, &content).unwrap();
    assert_eq!(grain_after(&super::repository()), (Some(Grain::Medium), 0), "as nobody knows it");
    assert_eq!(grain_after(&repository), (Some(Grain::Page), 1));
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
fn a_snapshot_that_was_forgotten_meanwhile_is_not_as_good_as_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), noise(1, 5000)).unwrap();
    let storage = MemoryBackend::new();
    let other = testing::init(Arc::new(storage.clone()), 1);
    let first = back_up(&other, folder.path()).snapshot.unwrap();
    let hooked = Hooked::new(&storage);
    hooked.before_read(a_pack, move || forget(&other, first));
    let repository = testing::open(Arc::new(hooked.clone()), 2).unwrap();
    let skipping = BackupOptions { skip_if_unchanged: true, ..options() };
    let report = run(&repository, paths(folder.path()), &skipping, &Silent).unwrap();
    assert!(hooked.is_done());
    assert!(repository.fold().snapshot(&report.snapshot.expect("a new one")).is_some());
    let report = run(&repository, paths(folder.path()), &skipping, &Silent).unwrap();
    assert_eq!(report.snapshot, None);
}

/// What was taken over unread is looked up where something was given up for lost meanwhile.
#[test]
fn a_snapshot_that_lost_something_meanwhile_is_not_as_good_as_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), noise(1, 200_000)).unwrap();
    let storage = MemoryBackend::new();
    let other = testing::init(Arc::new(storage.clone()), 1);
    back_up(&other, folder.path());
    let packs = storage.objects().into_iter().filter(|(key, bytes)| a_pack(key) && bytes.len() > 100_000);
    let pack = packs.map(|(key, _)| key).next().unwrap();
    storage.corrupt(&pack, |bytes| bytes[1000] ^= 1);
    let hooked = Hooked::new(&storage);
    hooked.before_read(a_pack, move || {
        let thorough = PacksOptions { read_data: true, threads: 1, ..PacksOptions::default() };
        let report = repair::packs::run(&other, &thorough, &Sources::default(), &Silent).unwrap();
        assert!(report.lost_count > 0);
    });
    let repository = testing::open(Arc::new(hooked.clone()), 2).unwrap();
    let skipping = BackupOptions { skip_if_unchanged: true, ..options() };
    run(&repository, paths(folder.path()), &skipping, &Silent).unwrap();
    assert!(hooked.is_done());
    let check = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    let report = check::run(&repository, &check, &Silent).unwrap();
    assert!(!report.is_damaged(), "{:#?}", report.findings);
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
    let session = Session::new(repository, &options).expect("a session");
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
