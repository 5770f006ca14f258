//! Restores over what is there already.

use super::*;
use crate::monitor::EntryAction;
use crate::restore::test_support::Listener;

#[test]
fn only_differing_ranges_are_rewritten_in_place() {
    let mut b = Builder::new();
    let bytes = noise(1, 100_000);
    let file = b.file("file", &bytes, 1000);
    let sparse = b.sparse("sparse", 50_000, &[(8192, 20_480)], &noise(2, 50_000 - 20_480));
    let fixture = b.finish(vec![file, sparse]);
    fixture.restore_well(&options());
    let (path, sparse) = (fixture.target().join("file"), fixture.target().join("sparse"));
    let (inode, right) = (fs::metadata(&path).unwrap().ino(), fs::read(&sparse).unwrap());
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"damage", 4998).unwrap();
    file.write_all_at(b"longer", 100_000).unwrap();
    fs::OpenOptions::new().write(true).open(&sparse).unwrap().write_all_at(b"in the hole", 10_000).unwrap();
    let report = fixture.restore_well(&RestoreOptions { verify: true, ..options() });
    assert_eq!((report.bytes_written, report.files_written, report.verified), (2000, 1, 2));
    assert!(fs::read(&path).unwrap() == bytes && fs::read(&sparse).unwrap() == right);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    // Shorter, and with a second name outside: that one is not touched.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(70_000).unwrap();
    fs::hard_link(&path, fixture.at("outside")).unwrap();
    let report = fixture.restore_well(&options());
    assert_eq!(report.bytes_written, 100_000);
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(fs::metadata(fixture.at("outside")).unwrap().len(), 70_000);
}

#[test]
fn linked_files_that_match_are_left_alone_and_others_replaced_as_a_group() {
    let mut b = Builder::new();
    let names = ["a", "b", "c"];
    let mut nodes: Vec<Node> = names.iter().map(|name| linked(b.file(name, b"one file", 3), 9, 3)).collect();
    let sparse = b.sparse("s", 30_000, &[(8192, 8192)], &noise(1, 30_000 - 8192));
    nodes.extend(["s", "t"].map(|name| {
        let node = Node { name: ByteBuf::from(name.as_bytes()), ..sparse.clone() };
        linked(node, 10, 2)
    }));
    let fixture = b.finish(nodes);
    let at = |name: &str| fixture.target().join(name);
    let inode = |name: &str| fs::metadata(at(name)).unwrap().ino();
    let report = fixture.restore_well(&options());
    assert_eq!((report.files_written, report.files_unchanged), (5, 0));
    let (first, second) = (inode("a"), inode("s"));
    for overwrite in [Overwrite::Always, Overwrite::IfChanged] {
        let dry = RestoreOptions { overwrite, dry_run: true, ..options() };
        let report = fixture.restore_well(&dry);
        assert_eq!((report.files_written, report.files_unchanged, report.bytes_written), (0, 5, 0));
        let report = fixture.restore_well(&RestoreOptions { verify: true, overwrite, ..options() });
        assert_eq!((report.files_written, report.files_unchanged, report.bytes_written), (0, 5, 0));
        assert_eq!((inode("a"), inode("s")), (first, second));
    }
    // A byte in a hole, a byte of content, a name that is gone.
    fs::File::options().write(true).open(at("s")).unwrap().write_all_at(b"x", 9000).unwrap();
    fs::File::options().write(true).open(at("b")).unwrap().write_all_at(b"x", 3).unwrap();
    let kept = fixture.at("kept");
    fs::hard_link(at("t"), &kept).unwrap();
    fs::remove_file(at("t")).unwrap();
    let report = fixture.restore_well(&RestoreOptions { verify: true, ..options() });
    assert_eq!((report.files_written, report.files_unchanged), (5, 0));
    assert!(names.iter().all(|name| fs::read(at(name)).unwrap() == b"one file" && inode(name) == inode("a")));
    assert_eq!(inode("s"), inode("t"));
    assert_eq!(fs::read(at("s")).unwrap()[9000], 0);
    assert_eq!(fs::read(&kept).unwrap()[9000], b'x', "a name outside the target is not written to");
    fs::remove_file(at("c")).unwrap();
    let report = fixture.restore_well(&options());
    assert_eq!((report.files_written, report.files_unchanged), (1, 4));
    assert_eq!(inode("c"), inode("a"));
}

#[test]
fn overwrite_modes_do_what_they_say() {
    let mut b = Builder::new();
    let files = ["newer", "older", "same"].map(|name| b.file(name, b"snapshot", 10));
    let link = node("zlink", NodeKind::Symlink { target: ByteBuf::from(&b"new"[..]) });
    let fixture = b.finish([files.to_vec(), vec![link]].concat());
    let set = |name: &str, seconds: u64| {
        let path = fixture.target().join(name);
        fs::write(&path, b"existing").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, TIME.nanos);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    let seconds = u64::try_from(TIME.seconds).unwrap();
    let rows: [(Overwrite, [&str; 3], &str, u64); 4] = [
        (Overwrite::Always, ["snapshot", "snapshot", "snapshot"], "new", 3),
        (Overwrite::IfChanged, ["snapshot", "snapshot", "existing"], "new", 2),
        (Overwrite::IfNewer, ["existing", "snapshot", "existing"], "old", 1),
        (Overwrite::Never, ["existing", "existing", "existing"], "old", 0),
    ];
    for (overwrite, expected, link, written) in rows {
        fs::create_dir_all(fixture.target()).unwrap();
        set("newer", seconds + 1);
        set("older", seconds - 1);
        set("same", seconds);
        let _ = fs::remove_file(fixture.target().join("zlink"));
        symlink("old", fixture.target().join("zlink")).unwrap();
        let report = fixture.restore_well(&RestoreOptions { overwrite, ..options() });
        let found = ["newer", "older", "same"]
            .map(|name| String::from_utf8(fs::read(fixture.target().join(name)).unwrap()).unwrap());
        assert_eq!(found, expected, "{overwrite:?}");
        assert_eq!(
            fs::read_link(fixture.target().join("zlink")).unwrap().to_str(),
            Some(link),
            "{overwrite:?}"
        );
        let left = report.files_unchanged + report.files_skipped;
        assert_eq!((report.files_written, left), (written, 3 - written), "{overwrite:?}");
        assert_eq!(report.files_skipped > 0, matches!(overwrite, Overwrite::IfNewer | Overwrite::Never));
    }
}

#[test]
fn files_taken_as_equal_get_metadata_and_are_verified_if_asked() {
    let mut b = Builder::new();
    let file = with(b.file("file", b"snapshot", 10), |m| m.mode = 0o640);
    let fixture = b.finish(vec![file]);
    fixture.restore_well(&options());
    let path = fixture.target().join("file");
    let when = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"existing").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(when).unwrap();
    let if_changed = RestoreOptions { overwrite: Overwrite::IfChanged, ..options() };
    assert_eq!(fixture.restore_well(&if_changed).files_unchanged, 1);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    let (report, problems) = fixture.restore(&RestoreOptions { verify: true, ..if_changed });
    assert_eq!((report.errors, report.verified), (1, 0));
    let expected = "verify-failed /file: bytes 0 to 8 read back from the target differ from the snapshot";
    let left = "restore-incomplete /file: not restored: what is there was left as it was";
    assert_eq!(problems, [expected, left]);
}

#[test]
fn deletion_stays_in_restored_directories_and_respects_patterns() {
    let mut b = Builder::new();
    let file = b.file("file", b"x", 10);
    let kept = b.directory("kept", vec![file.clone()]);
    let fixture = b.finish(vec![file, kept]);
    let make = || {
        for path in ["old/deep", "kept/old", "keep.me", "old-with/keep.me"] {
            fs::create_dir_all(fixture.target().join(path)).unwrap();
        }
        for path in ["old/deep/file", "old-file", "kept/old-file", "old-with/file"] {
            fs::write(fixture.target().join(path), "x").unwrap();
        }
        symlink(fixture.at(""), fixture.target().join("old-link")).unwrap();
    };
    make();
    fs::write(fixture.at("outside"), "x").unwrap();
    let excluding = RestoreOptions { delete: true, exclude: vec!["keep.me".to_owned()], ..options() };
    let dry = fixture.restore_well(&RestoreOptions { dry_run: true, ..excluding.clone() });
    // Where a pattern may leave something of a directory, each entry of it counts.
    assert_eq!(dry.deleted, 8);
    assert!(names(&fixture.target()).contains(&"old/deep/file".to_owned()));
    let report = fixture.restore_well(&excluding);
    assert_eq!(report.deleted, 8);
    let left = ["file", "keep.me/", "kept/", "kept/file", "old-with/", "old-with/keep.me/"];
    assert_eq!(names(&fixture.target()), left);
    assert!(fixture.at("outside").exists());
    // Only what is included goes; and without the option nothing.
    make_file(&fixture, "kept/a.txt");
    make_file(&fixture, "kept/b.bin");
    let including =
        RestoreOptions { include: vec!["*.txt".to_owned(), "/kept/file".to_owned()], ..excluding };
    assert_eq!(fixture.restore_well(&including).deleted, 1);
    assert!(!fixture.target().join("kept/a.txt").exists() && fixture.target().join("kept/b.bin").exists());
    assert_eq!(fixture.restore_well(&options()).deleted, 0);
}

/// What the snapshot has is no surplus, however deep the first entry lies that is wanted, and whatever comes before it.
#[test]
fn nothing_that_is_included_is_deleted_on_the_way_to_it() {
    let mut b = Builder::new();
    let [file, other] = [b.file("file", b"x", 10), b.file("a.txt", b"y", 10)];
    let bad = NodeKind::Directory { tree: b.tree_blob(b"no tree") };
    let deep = b.directory("deep", vec![other.clone(), file.clone()]);
    let outer = b.directory("outer", vec![node("bad", bad), deep, file]);
    let fixture = b.finish(vec![outer]);
    for path in ["outer/bad", "outer/deep/old", "outer/old"] {
        fs::create_dir_all(fixture.target().join(path)).unwrap();
    }
    for path in ["outer/bad/file", "outer/deep/old/file", "outer/file", "outer/old/file", "outer/old/other"] {
        make_file(&fixture, path);
    }
    let including =
        RestoreOptions { include: vec!["file".to_owned()], delete: true, verify: true, ..options() };
    for first in [true, false] {
        let listener = Listener::default();
        let report = fixture.try_restore("", &including, &listener).unwrap();
        let problems = listener.told();
        assert_eq!((report.errors, problems.len()), (1, 1), "{problems:?}");
        let entries = listener.entries.lock().unwrap();
        let deleted = entries.iter().filter(|(_, action)| *action == EntryAction::Deleted);
        let told: Vec<&str> = deleted.map(|(path, _)| path.as_str()).collect();
        let expected: &[&str] = if first { &["/outer/deep/old/file", "/outer/old/file"] } else { &[] };
        assert_eq!((told.as_slice(), report.deleted), (expected, expected.len() as u64));
        assert!(problems[0].starts_with("blob-damaged /outer/bad: tree"), "{problems:?}");
        let left =
            ["outer/", "outer/bad/", "outer/bad/file", "outer/deep/", "outer/deep/file", "outer/deep/old/"];
        assert_eq!(
            names(&fixture.target()),
            [&left[..], &["outer/file", "outer/old/", "outer/old/other"]].concat()
        );
        assert_eq!(fs::read(fixture.target().join("outer/deep/file")).unwrap(), b"x");
    }
}

fn make_file(fixture: &Fixture, path: &str) {
    fs::write(fixture.target().join(path), "x").unwrap();
}

#[test]
fn nothing_is_deleted_from_a_directory_that_cannot_be_read() {
    let mut b = Builder::new();
    let file = b.file("a", b"x", 10);
    let part = |tree, first: &str| TreePart { first: ByteBuf::from(first.as_bytes()), entries: 1, tree };
    let good = b.tree(vec![file]);
    let bad = b.tree_blob(b"no tree");
    let tree =
        b.tree_blob(&crate::format::record::encode(&Tree::Parts(vec![part(good, "a"), part(bad, "b")])));
    let sub = node("sub", NodeKind::Directory { tree });
    let fixture = b.finish(vec![sub]);
    fs::create_dir_all(fixture.target().join("sub")).unwrap();
    make_file(&fixture, "sub/b");
    let (report, problems) = fixture.restore(&RestoreOptions { delete: true, ..options() });
    assert_eq!((report.errors, report.deleted), (1, 0));
    assert!(problems[0].starts_with("blob-damaged /sub: tree"), "{problems:?}");
    assert_eq!(names(&fixture.target()), ["sub/", "sub/a", "sub/b"]);
}

#[test]
fn directories_are_in_the_way_unless_deletion_is_asked_for() {
    let mut b = Builder::new();
    let file = b.file("file", b"x", 10);
    let link = node("link", NodeKind::Symlink { target: ByteBuf::from(&b"x"[..]) });
    let under = b.file("under", b"y", 10);
    let sub = b.directory("sub", vec![under]);
    let fixture = b.finish(vec![file, link, sub]);
    for name in ["file/deep", "link"] {
        fs::create_dir_all(fixture.target().join(name)).unwrap();
    }
    make_file(&fixture, "sub");
    let (report, problems) = fixture.restore(&options());
    assert_eq!(report.errors, 2, "{problems:?}");
    assert!(
        problems.iter().all(|problem| problem.contains("there is a directory in its place")),
        "{problems:?}"
    );
    assert_eq!(
        fs::read(fixture.target().join("sub/under")).unwrap(),
        b"y",
        "a file makes way for a directory"
    );
    let report = fixture.restore_well(&RestoreOptions { delete: true, ..options() });
    assert_eq!(report.deleted, 2);
    assert_eq!(names(&fixture.target()), ["file", "link", "sub/", "sub/under"]);
}

/// Whatever was changed would be read again by the next backup.
#[test]
fn what_is_as_it_should_be_is_not_touched() {
    let fixture = every_kind();
    fixture.restore_well(&options());
    let state = || {
        let stat = |name: String| {
            let found = fs::symlink_metadata(fixture.target().join(&name)).unwrap();
            (name, found.ino(), found.ctime(), found.ctime_nsec())
        };
        names(&fixture.target()).into_iter().map(stat).collect::<Vec<_>>()
    };
    let before = state();
    for overwrite in [Overwrite::Always, Overwrite::IfChanged] {
        std::thread::sleep(Duration::from_millis(15));
        fixture.restore_well(&RestoreOptions { overwrite, ..options() });
        let touched: Vec<_> =
            state().into_iter().zip(&before).filter(|(now, before)| now != *before).collect();
        assert!(touched.is_empty(), "{overwrite:?}: {touched:?}");
    }
}

#[test]
fn what_is_to_be_left_alone_is_not_replaced_by_a_directory() {
    let mut b = Builder::new();
    let file = b.file("file", b"snapshot", 10);
    let directory = with(b.directory("sub", vec![file.clone()]), |m| m.mode = 0o711);
    let fixture = b.finish(vec![file, directory]);
    let seconds = u64::try_from(TIME.seconds).unwrap();
    let set_time = |path: &Path, seconds| {
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, TIME.nanos);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    // Something else than a directory, newer than the snapshot's.
    for (overwrite, link) in [
        (Overwrite::Never, false),
        (Overwrite::IfNewer, false),
        (Overwrite::Never, true),
        (Overwrite::IfNewer, true),
    ] {
        let _ = fs::remove_dir_all(fixture.target());
        fs::create_dir_all(fixture.target()).unwrap();
        let sub = fixture.target().join("sub");
        if link {
            symlink("precious", &sub).unwrap();
        } else {
            fs::write(&sub, b"precious").unwrap();
        }
        let (report, problems) = fixture.restore(&RestoreOptions { overwrite, ..options() });
        assert!(if link { fs::read_link(&sub).is_ok() } else { fs::read(&sub).unwrap() == b"precious" });
        assert_eq!(
            (report.errors, report.files_written),
            (1, 1),
            "the file beside it is restored: {overwrite:?} {link} {problems:?}"
        );
        assert!(problems[0].contains("/sub: something else is there"), "{problems:?}");
    }
    // A directory: what it lacks is added, its metadata stays.
    for (overwrite, age, mode) in
        [(Overwrite::Never, 9, 0o700), (Overwrite::IfNewer, 0, 0o700), (Overwrite::IfNewer, 9, 0o711)]
    {
        let _ = fs::remove_dir_all(fixture.target());
        fs::create_dir_all(fixture.target().join("sub")).unwrap();
        fs::set_permissions(fixture.target().join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
        set_time(&fixture.target().join("sub"), seconds - age);
        let report = fixture.restore_well(&RestoreOptions { overwrite, ..options() });
        assert_eq!((report.files_written, report.files_skipped), (2, 0));
        assert_eq!(
            fs::metadata(fixture.target().join("sub")).unwrap().mode() & 0o777,
            mode,
            "{overwrite:?} {age}"
        );
    }
}

#[test]
fn what_is_there_stays_where_nothing_of_the_file_can_be_had() {
    let mut b = Builder::new();
    let file = b.file("file", &noise(1, 5000), 5000);
    let fixture = b.finish(vec![file]);
    fixture.backend.delete(&fixture.data_packs()[0]).unwrap();
    fs::create_dir_all(fixture.target()).unwrap();
    fs::write(fixture.target().join("file"), "older").unwrap();
    let (report, problems) = fixture.restore(&options());
    assert_eq!((report.errors, report.files_incomplete), (1, 1), "{problems:?}");
    assert_eq!(names(&fixture.target()), ["file"], "{problems:?}");
    assert_eq!(fs::read(fixture.target().join("file")).unwrap(), b"older");
}

/// It is used for the file, or removed where that is there, and what is whole is not marked as left over.
#[test]
fn what_is_left_over_goes_when_the_file_is_whole() {
    for existing in [false, true] {
        let mut b = Builder::new();
        let file = b.file("a", &noise(1, 5000), 1000);
        let fixture = b.finish(vec![file]);
        fs::create_dir_all(fixture.target()).unwrap();
        let root = crate::target::TargetRoot::open(&fixture.target(), false).unwrap();
        let path = crate::target::RelativePath::parse(b"a").unwrap();
        let (left_over, _) = root.create_incomplete(&path, false, 0o600, &|_| false).unwrap();
        if !root.is_rest(&left_over).unwrap() {
            return cannot("mark files", &"no extended attributes here");
        }
        if existing {
            fs::write(fixture.target().join("a"), "older").unwrap();
        }
        // Restored attributes would take the place of the mark.
        let mut options = options();
        options.metadata.xattrs = false;
        fixture.restore_well(&options);
        assert_eq!(names(&fixture.target()), ["a"]);
        assert!(fs::read(fixture.target().join("a")).unwrap() == noise(1, 5000));
        assert!(!root.is_rest(&path).unwrap(), "a later restore would take it for its own");
    }
}
