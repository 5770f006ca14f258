//! Streams, alone and beside files.

use super::*;

fn stream(data: Vec<u8>, outcome: Result<(), String>) -> BackupSource {
    BackupSource::Stream {
        name: b"dump".to_vec(),
        reader: Box::new(io::Cursor::new(data)),
        finish: Box::new(|| outcome),
    }
}

fn parts(roots: Vec<SourceRoot>, streams: Vec<StreamSource>) -> BackupSource {
    let (filter, accept) = (FilterOptions::default(), Box::new(|_: &_| Ok(())));
    BackupSource::Parts { roots, filter, instead: Vec::new(), streams, accept }
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
        instead: Vec::new(),
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

/// As databases that are in use: a copy stands for them, and nobody reads what they are made of.
#[test]
fn a_file_below_a_root_is_read_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let all = ["root/a", "root/sub/x.db", "root/sub/x.db-wal", "root/sub/y", "copies/x.db"];
    for name in all {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let database = folder.path().join("root/sub/x.db");
    let root = folder.path().join("root");
    let source = |exclude: &[&str]| BackupSource::Parts {
        roots: vec![SourceRoot::at(root.clone())],
        filter: FilterOptions {
            exclude: exclude.iter().map(|one| (*one).to_owned()).collect(),
            ..FilterOptions::default()
        },
        instead: vec![SourceRoot {
            path: database.clone(),
            read_from: Some(folder.path().join("copies/x.db")),
        }],
        streams: Vec::new(),
        accept: Box::new(|_| Ok(())),
    };
    let repository = repository();
    let mut texts = Vec::new();
    for _ in 0..2 {
        let report = run(&repository, source(&["*.db-wal", "*.db"]), &options(), &Silent).unwrap();
        assert!(report.is_complete(), "{report:?}");
        let stored = entries(&repository, report.snapshot.unwrap(), &root);
        let names: Vec<_> = stored.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "sub", "sub/x.db", "sub/y"]);
        texts.push(String::from_utf8(content(&repository, &stored["sub/x.db"])).unwrap());
        fs::write(folder.path().join("copies/x.db"), "another").unwrap();
    }
    assert_eq!(texts, ["copies/x.db", "another"]);
    // One that the walk does not come to is told of: where a directory above it is left out, and where it is gone.
    let told = |exclude: &[&str]| {
        let problems = Collect::default();
        let report = run(&repository, source(exclude), &options(), &problems).unwrap();
        let problems = problems.0.lock().unwrap();
        let paths: Vec<_> = problems.iter().filter_map(|problem| problem.path.clone()).collect();
        (report.summary.errors, paths)
    };
    let path = database.clone().into_os_string().into_encoded_bytes();
    assert_eq!(told(&["sub"]), (1, vec![path.clone()]));
    fs::remove_file(&database).unwrap();
    assert_eq!(told(&[]), (1, vec![path]));
}
