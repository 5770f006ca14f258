//! What is stored of each kind of entry, and of entries that change or break while they are read.

use super::*;

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
    let session = Session::new(repository, &options).expect("a session");
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

impl Content for Broken {
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
        let mut files = FileReader::new(GearTable::derive(repository.keys()), false);
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
    let session = Session::new(&repository, &options).expect("a session");
    let mut writer = session.data_writer();
    for n in 0..=16u32 << 10 {
        let id = BlobId::from_bytes(blake3::hash(&n.to_le_bytes()).into());
        writer.put(crate::crypto::keys::BlobKind::Data, id, &n.to_le_bytes(), true).unwrap();
    }
    assert!(session.is_commit_due());
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
