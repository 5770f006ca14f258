//! What comes back, whole or in part, and what is said of the rest.

use super::*;

fn check_every_kind(fixture: &Fixture) {
    let at = |name: &str| fixture.target().join(name);
    let big = noise(1, 700_000);
    assert!(fs::read(at("big")).unwrap() == big && fs::read(at("duplicate")).unwrap() == big);
    assert_eq!(fs::metadata(at("duplicate")).unwrap().mode() & 0o7777, 0o400);
    assert_eq!(fs::read(at("empty-file")).unwrap(), b"");
    assert_eq!(fs::read(at("one")).unwrap(), b"1");
    assert!(fs::symlink_metadata(at("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(at("socket")).unwrap().file_type().is_socket());
    assert_eq!(fs::read_link(at("symlink")).unwrap().to_str(), Some("../anywhere"));
    let links: Vec<_> =
        ["link-a", "link-b", "outer/inner/link-c"].map(|name| fs::metadata(at(name)).unwrap()).into();
    assert!(links.iter().all(|link| link.ino() == links[0].ino() && link.nlink() == 3));
    assert_eq!(fs::read(at("link-b")).unwrap(), b"one file");
    assert!(fs::read(at("outer/inner/deep")).unwrap() == noise(2, 30_000));
    let sparse = fs::File::open(at("sparse")).unwrap();
    let found = sparse.metadata().unwrap();
    assert_eq!(found.len(), 1 << 40);
    assert!(found.blocks() < 200, "{} blocks", found.blocks());
    let mut bytes = vec![1; 10_000];
    sparse.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == [vec![0; 5000], noise(3, 2000), vec![0; 3000]].concat());
    assert!(fs::read(at("sparse-two")).unwrap() == two_holes());
    for name in ["big", "empty", "fifo", "link-c", "outer", "symlink", "sparse"] {
        let path = if name == "link-c" { at("outer/inner/link-c") } else { at(name) };
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (TIME.seconds, i64::from(TIME.nanos)), "{name}");
    }
    let inner = fs::metadata(at("outer/inner")).unwrap();
    assert_eq!((inner.mode() & 0o7777, inner.mtime()), (0o500, TIME.seconds));
}

#[test]
fn every_kind_of_entry_comes_back() {
    for (threads, memory) in [(1, 160 << 20), (3, 160 << 20), (2, 0)] {
        let fixture = every_kind();
        let listener = Listener::default();
        let options = RestoreOptions { threads, memory, verify: true, ..options() };
        let report = fixture.try_restore("", &options, &listener).unwrap();
        assert_eq!(listener.told(), [""; 0]);
        check_every_kind(&fixture);
        assert_eq!((report.files, report.directories, report.others), (11, 3, 3));
        assert_eq!((report.files_written, report.files_unchanged, report.errors), (11, 0, 0));
        assert_eq!(report.verified, 9, "names of one file are one file");
        assert_eq!(report.bytes, 1_400_000 + 3 * 8 + 1 + 30_000 + (1 << 40) + 3000 + 4);
        let entries = listener.entries.lock().unwrap();
        assert!(entries.contains(&("/outer/inner/deep".to_owned(), EntryAction::Restored)), "{entries:?}");
        // Again, nothing is written, and names of one file stay names of one file.
        let again = fixture.restore_well(&options);
        assert_eq!((again.files_unchanged, again.bytes_written), (11, 0));
        check_every_kind(&fixture);
    }
}

#[test]
fn unprivileged_restores_finish_directories_that_shut_them_out() {
    const NAME: &str = "unprivileged_restores_finish_directories_that_shut_them_out";
    if !as_nobody(&format!("{}::{NAME}", module_path!().split_once("::").unwrap().1)) {
        return;
    }
    let mut b = Builder::new();
    let file = with(b.file("file", &noise(1, 50_000), 1000), |m| m.mode = 0);
    let dark = with(b.directory("dark", vec![file]), |m| m.mode = 0);
    let outer = with(b.directory("outer", vec![dark]), |m| m.mode = 0o100);
    let fixture = b.finish(vec![outer]);
    for _ in 0..2 {
        let report = fixture.restore_well(&options());
        assert_eq!(report.files, 1);
        let outer = fixture.target().join("outer");
        assert_eq!(fs::metadata(&outer).unwrap().mode() & 0o777, 0o100);
        assert_eq!(fs::metadata(outer.join("dark")).unwrap().mode() & 0o777, 0);
    }
    for name in ["outer", "outer/dark"] {
        fs::set_permissions(fixture.target().join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_path_gives_its_contents_and_a_file_itself() {
    let mut b = Builder::new();
    let file = b.file("file", b"content", 10);
    let inner = with(b.directory("inner", vec![file]), |m| m.mode = 0o711);
    let outer = b.directory("outer", vec![inner]);
    let fixture = b.finish(vec![outer]);
    let listener = Listener::default();
    fixture.try_restore("/outer//inner/", &options(), &listener).unwrap();
    assert_eq!(names(&fixture.target()), ["file"]);
    let target = fs::metadata(fixture.target()).unwrap();
    assert_eq!((target.mode() & 0o777, target.mtime()), (0o711, TIME.seconds), "it was new");
    let entries = listener.entries.lock().unwrap();
    assert_eq!(*entries, [("/outer/inner/file".to_owned(), EntryAction::Restored)]);
    fs::remove_file(fixture.target().join("file")).unwrap();
    fs::write(fixture.target().join("other"), "").unwrap();
    fs::set_permissions(fixture.target(), fs::Permissions::from_mode(0o750)).unwrap();
    fixture.try_restore("outer/inner/file", &options(), &Listener::default()).unwrap();
    assert_eq!(names(&fixture.target()), ["file", "other"]);
    fixture.try_restore("outer/inner", &options(), &Listener::default()).unwrap();
    assert_eq!(fs::metadata(fixture.target()).unwrap().mode() & 0o777, 0o750, "it was somebody's");
    let missing = fixture.try_restore("outer/nothing/file", &options(), &Listener::default());
    let missing = missing.unwrap_err().to_string();
    assert_eq!(missing, "outer/nothing/file is not in the snapshot: /outer/nothing does not exist there");
    let through = fixture.try_restore("outer/inner/file/x", &options(), &Listener::default());
    assert!(matches!(through, Err(RestoreError::Browse(_))), "{through:?}");
}

#[test]
fn names_of_different_content_are_never_linked_whatever_their_numbers_say() {
    let mut b = Builder::new();
    let nodes = [("a", b"one file"), ("b", b"two file")];
    let nodes = nodes.map(|(name, content)| linked(b.file(name, content, 3), 9, 2));
    let fixture = b.finish(nodes.into());
    fixture.restore_well(&options());
    assert_eq!(fs::read(fixture.target().join("a")).unwrap(), b"one file");
    assert_eq!(fs::read(fixture.target().join("b")).unwrap(), b"two file");
}

#[test]
fn patterns_choose_and_make_only_the_directories_needed() {
    let mut b = Builder::new();
    let texts = ["a.txt", "b.bin"].map(|name| b.file(name, name.as_bytes(), 10));
    let inner = b.directory("inner", texts.to_vec());
    let outer = with(b.directory("outer", vec![inner.clone()]), |m| m.mode = 0o711);
    let other = b.directory("other", vec![]);
    let fixture = b.finish(vec![other, outer]);
    let include = RestoreOptions { include: vec!["*.txt".to_owned()], ..options() };
    let report = fixture.restore_well(&include);
    assert_eq!(names(&fixture.target()), ["outer/", "outer/inner/", "outer/inner/a.txt"]);
    assert_eq!((report.files, report.directories), (1, 2));
    let outer = fs::metadata(fixture.target().join("outer")).unwrap();
    assert_eq!((outer.mode() & 0o777, outer.mtime()), (0o711, TIME.seconds));
    let exclude = RestoreOptions { exclude: vec!["/outer/inner/*.txt".to_owned()], ..options() };
    fs::remove_dir_all(fixture.target()).unwrap();
    fixture.restore_well(&exclude);
    assert_eq!(names(&fixture.target()), ["other/", "outer/", "outer/inner/", "outer/inner/b.bin"]);
}

#[test]
fn a_dry_run_counts_and_touches_nothing() {
    let fixture = every_kind();
    let dry = RestoreOptions { dry_run: true, ..options() };
    let report = fixture.restore_well(&dry);
    assert!(!fixture.target().exists());
    let real = fixture.restore_well(&options());
    assert_eq!(report, real);
    fs::OpenOptions::new()
        .write(true)
        .open(fixture.target().join("big"))
        .unwrap()
        .write_all_at(b"!", 5)
        .unwrap();
    let state = || {
        let stat = |name: String| {
            let found = fs::symlink_metadata(fixture.target().join(&name)).unwrap();
            (name, found.mode(), found.ino(), found.ctime(), found.ctime_nsec())
        };
        names(&fixture.target()).into_iter().map(stat).collect::<Vec<_>>()
    };
    let before = state();
    let report = fixture.restore_well(&dry);
    assert_eq!((report.bytes_written, report.files_written), (10_000, 1));
    assert_eq!(state(), before);
}

/// A file of six parts, each a block in a pack of its own, of which one is damaged; and which.
fn with_a_flipped_bit() -> (Fixture, Vec<u8>, crate::backend::ObjectKey) {
    let mut b = Builder::with_packs_of(1 << 20);
    let parts: Vec<_> = (0..6).map(|seed| noise(seed, 1_000_000)).collect();
    let bytes = parts.concat();
    let big = b.file("big", &bytes, 1_000_000);
    let small = b.file("small", b"fine", 10);
    let again = b.file("third", &parts[2], 1_000_000);
    let fixture = b.finish(vec![big, small, again]);
    let is_long = |key: &crate::backend::ObjectKey| fixture.backend.stat(key).unwrap().size > 900_000;
    let wrong = fixture.data_packs().into_iter().find(is_long).unwrap();
    fixture.backend.corrupt(&wrong, |pack| pack[5000] ^= 1);
    (fixture, bytes, wrong)
}

const ASIDE: &str = "big.strongroom-incomplete";

#[test]
fn a_flipped_bit_costs_its_blocks_and_what_is_left_does_not_pass_for_the_file() {
    let (fixture, bytes, wrong) = with_a_flipped_bit();
    for existing in [false, true] {
        if existing {
            fs::remove_file(fixture.target().join(ASIDE)).unwrap();
            fs::write(fixture.target().join("big"), vec![9; 6_500_000]).unwrap();
        }
        let (report, problems) = fixture.restore(&RestoreOptions { verify: true, ..options() });
        // What was found out before anything was written leaves the older file as it was.
        let untouched = fs::read(fixture.target().join("big")).is_ok_and(|found| found == [9; 6_500_000]);
        assert!(!fixture.target().join("big").exists() || existing && untouched);
        let is_third = !fixture.target().join("third").exists();
        assert_eq!(report.errors, if is_third { 2 } else { 1 });
        assert_eq!(report.files_incomplete, report.errors);
        assert_eq!(report.verified, 3 - report.errors);
        assert!(problems.iter().any(|told| told.starts_with("blob-damaged /big: bytes ")), "{problems:?}");
        assert!(problems.iter().any(|told| told.starts_with("restore-incomplete /big: ")), "{problems:?}");
        assert!(!fixture.target().join("third.strongroom-incomplete").exists(), "nothing of it could be had");
        assert_eq!(fs::read(fixture.target().join("small")).unwrap(), b"fine");
        if untouched {
            continue;
        }
        let found = fs::read(fixture.target().join(ASIDE)).unwrap();
        assert_eq!(found.len(), bytes.len());
        let part = |at: usize| at * 1_000_000..(at + 1) * 1_000_000;
        let damaged: Vec<_> = (0..6).filter(|at| found[part(*at)] != bytes[part(*at)]).collect();
        assert_eq!(damaged.len(), 1, "one pack holds one part");
        let before = if existing { 9 } else { 0 };
        assert!(found[part(damaged[0])].iter().all(|byte| *byte == before));
        let mtime = fs::metadata(fixture.target().join(ASIDE)).unwrap().mtime();
        assert_ne!(mtime, TIME.seconds, "it must not pass for unchanged");
    }
    // Once it can be had, the same command finishes what there is, and nothing is left over.
    fixture.backend.corrupt(&wrong, |pack| pack[5000] ^= 1);
    let had = fixture.target().join(ASIDE).exists();
    let report = fixture.restore_well(&RestoreOptions { verify: true, delete: true, ..options() });
    assert_eq!(names(&fixture.target()), ["big", "small", "third"]);
    assert!(fs::read(fixture.target().join("big")).unwrap() == bytes);
    assert_eq!(fs::metadata(fixture.target().join("big")).unwrap().mtime(), TIME.seconds);
    assert!(!had || report.bytes_written <= 2_000_000, "what was had is not written again: {report:?}");
    assert!(!has_mark(&fixture.target().join("big")));
}

fn has_mark(path: &Path) -> bool {
    rustix::fs::getxattr(path, "user.strongroom.incomplete", &mut [0_u8; 64]).is_ok()
}

#[test]
fn what_takes_the_place_of_something_does_so_only_when_it_is_whole() {
    let (fixture, bytes, wrong) = with_a_flipped_bit();
    let big = fixture.target().join("big");
    fs::create_dir_all(fixture.target()).unwrap();
    fs::write(fixture.target().join(ASIDE), "a user's").unwrap();
    symlink("elsewhere", &big).unwrap();
    let (report, problems) = fixture.restore(&options());
    assert!(report.errors > 0);
    assert_eq!(fs::read_link(&big).unwrap(), Path::new("elsewhere"), "{problems:?}");
    assert!(fixture.target().join("big.strongroom-incomplete-2").exists(), "{problems:?}");
    fixture.backend.corrupt(&wrong, |pack| pack[5000] ^= 1);
    fixture.restore_well(&options());
    assert!(fs::symlink_metadata(&big).unwrap().is_file() && fs::read(&big).unwrap() == bytes);
    assert_eq!(fs::read(fixture.target().join(ASIDE)).unwrap(), b"a user's");
}

#[test]
fn a_file_that_is_not_whole_gets_no_further_names() {
    let mut b = Builder::with_packs_of(1 << 20);
    let bytes = noise(1, 3_000_000);
    let files: Vec<_> = ["a", "b"].map(|name| linked(b.file(name, &bytes, 1_000_000), 9, 2)).into();
    let fixture = b.finish(files);
    let wrong = fixture.data_packs().remove(0);
    fixture.backend.corrupt(&wrong, |pack| pack[5000] ^= 1);
    fs::create_dir_all(fixture.target()).unwrap();
    for name in ["a", "b"] {
        fs::write(fixture.target().join(name), "older").unwrap();
    }
    let (report, problems) = fixture.restore(&options());
    assert_eq!((report.errors, report.files_incomplete), (2, 2), "{problems:?}");
    assert_eq!(fs::read(fixture.target().join("b")).unwrap(), b"older", "{problems:?}");
    let first = fs::read(fixture.target().join("a"));
    assert!(first.is_err() || first.is_ok_and(|text| text == b"older"), "{problems:?}");
    fixture.backend.corrupt(&wrong, |pack| pack[5000] ^= 1);
    fixture.restore_well(&RestoreOptions { delete: true, ..options() });
    assert_eq!(names(&fixture.target()), ["a", "b"]);
    let inode = |name: &str| fs::metadata(fixture.target().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
}

#[test]
fn what_a_snapshot_has_under_such_a_name_is_a_file_like_any_other() {
    let mut b = Builder::new();
    let whole = b.file("a", &noise(1, 5000), 1000);
    let other = b.file("a.strongroom-incomplete", &noise(2, 5000), 1000);
    let fixture = b.finish(vec![whole, other]);
    fs::create_dir_all(fixture.target()).unwrap();
    let root = crate::target::TargetRoot::open(&fixture.target(), false).unwrap();
    let path = crate::target::RelativePath::parse(b"a").unwrap();
    let _ = root.create_incomplete(&path, false, 0o600, &|_| false).unwrap();
    fixture.restore_well(&RestoreOptions { verify: true, ..options() });
    assert!(fs::read(fixture.target().join("a")).unwrap() == noise(1, 5000));
    assert!(fs::read(fixture.target().join("a.strongroom-incomplete")).unwrap() == noise(2, 5000));
}

/// The names for what is not whole are cut, and then those of both files are one.
#[test]
fn what_there_is_of_a_file_with_a_long_name_is_not_gone_on_with_for_another() {
    for plants in ["longer", "shorter", "neither"] {
        let long = |last: &str| format!("{}{last}", "n".repeat(243));
        let (one, other) = (noise(1, 3_000_000), noise(2, 1_000_000));
        let mut b = Builder::with_packs_of(1 << 20);
        let nodes = vec![b.file(&long("a"), &one, 500_000), b.file(&long("b"), &other, 500_000)];
        let fixture = b.finish(nodes);
        fs::create_dir_all(fixture.target()).unwrap();
        let root = crate::target::TargetRoot::open(&fixture.target(), false).unwrap();
        for (name, bytes) in [(long("a"), &one), (long("b"), &other)] {
            if plants == if name.ends_with('a') { "longer" } else { "shorter" } {
                let path = crate::target::RelativePath::parse(name.as_bytes()).unwrap();
                let (aside, file) = root.create_incomplete(&path, false, 0o600, &|_| false).unwrap();
                if !root.is_rest(&aside).unwrap() {
                    return cannot("mark files", &"no extended attributes here");
                }
                file.write_all_at(&bytes[..bytes.len() - 400_000], 0).unwrap();
            } else if plants == "neither" {
                // They are replaced, each by a file that stands beside it first.
                symlink("elsewhere", fixture.target().join(&name)).unwrap();
            }
        }
        fixture.restore_well(&RestoreOptions { verify: plants == "shorter", ..options() });
        assert!(fs::read(fixture.target().join(long("a"))).unwrap() == one, "{plants}");
        assert!(fs::read(fixture.target().join(long("b"))).unwrap() == other, "{plants}");
        assert_eq!(names(&fixture.target()).len(), 2, "nothing is left over");
    }
}

#[test]
fn what_is_not_whole_yet_takes_no_name_that_the_snapshot_has() {
    let mut b = Builder::with_packs_of(1 << 20);
    let whole = b.file("a", &noise(1, 3_000_000), 500_000);
    let other = b.file("a.strongroom-incomplete", &noise(2, 5000), 1000);
    let fixture = b.finish(vec![whole, other]);
    fs::create_dir_all(fixture.target()).unwrap();
    fs::write(fixture.target().join("older"), "older").unwrap();
    fs::hard_link(fixture.target().join("older"), fixture.target().join("a")).unwrap();
    fixture.restore_well(&options());
    assert_eq!(names(&fixture.target()), ["a", "a.strongroom-incomplete", "older"]);
    assert!(fs::read(fixture.target().join("a.strongroom-incomplete")).unwrap() == noise(2, 5000));
}

/// As a backup by an older version of a directory in which something was not whole has it.
#[test]
fn a_mark_in_a_snapshot_is_not_restored_and_what_has_it_not_removed() {
    const NUMBERED: &str = "a.strongroom-incomplete-2";
    let mut b = Builder::new();
    let path = crate::target::RelativePath::parse(b"a").unwrap();
    let mark = crate::target::mark_of_incomplete(&path);
    let whole = b.file("a", &noise(1, 5000), 1000);
    let marked = with(b.file(NUMBERED, &noise(2, 5000), 1000), |metadata| metadata.xattrs = vec![mark]);
    let fixture = b.finish(vec![whole, marked]);
    fs::create_dir_all(fixture.target()).unwrap();
    let root = crate::target::TargetRoot::open(&fixture.target(), false).unwrap();
    for _ in 0..2 {
        let (aside, _) = root.create_incomplete(&path, false, 0o600, &|_| false).unwrap();
        if !root.is_rest(&aside).unwrap() {
            return cannot("mark files", &"no extended attributes here");
        }
    }
    fixture.restore_well(&RestoreOptions { verify: true, ..options() });
    assert_eq!(names(&fixture.target()), ["a", NUMBERED]);
    assert!(fs::read(fixture.target().join(NUMBERED)).unwrap() == noise(2, 5000));
    assert!(!has_mark(&fixture.target().join(NUMBERED)));
}

#[test]
fn what_takes_the_place_of_something_has_the_rights_of_what_is_new() {
    let mut b = Builder::new();
    let nodes = vec![b.file("new", &noise(1, 5000), 1000), b.file("replaced", &noise(2, 5000), 1000)];
    let fixture = b.finish(nodes);
    fs::create_dir_all(fixture.target()).unwrap();
    symlink("elsewhere", fixture.target().join("replaced")).unwrap();
    let mut options = options();
    options.metadata.mode = false;
    fixture.restore_well(&options);
    let mode = |name: &str| fs::symlink_metadata(fixture.target().join(name)).unwrap().mode();
    assert_eq!(mode("replaced"), mode("new"));
}

#[test]
fn missing_packs_are_named_and_the_rest_is_restored() {
    let mut b = Builder::with_packs_of(1 << 20);
    let files: Vec<_> = (0..4).map(|n| b.file(&format!("{n}"), &noise(n, 900_000), 300_000)).collect();
    let fixture = b.finish(files);
    let packs = fixture.data_packs();
    fixture.backend.delete(&packs[0]).unwrap();
    let (report, problems) = fixture.restore(&options());
    assert!((1..4).contains(&report.errors), "{problems:?}");
    let is_told = |problem: &&String| {
        problem.starts_with("blob-missing /") || problem.starts_with("restore-incomplete /")
    };
    assert!(problems.iter().all(|problem| is_told(&problem)), "{problems:?}");
    let found = (0..4).filter_map(|n| Some((n, fs::read(fixture.target().join(format!("{n}"))).ok()?)));
    let found: Vec<_> = found.collect();
    assert!(
        found.iter().all(|(n, bytes)| *bytes == noise(*n, 900_000)),
        "what is not whole has another name"
    );
    assert_eq!(found.len() as u64, 4 - report.files_incomplete);
}

#[test]
fn long_files_stretch_over_windows() {
    let mut b = Builder::new();
    // More chunks than the smallest window holds, with lists of lists.
    let bytes = noise(1, 60_000);
    let (mut lists, mut table) = (Vec::new(), Vec::new());
    for (n, part) in (1_u64..).zip(bytes.chunks(6)) {
        chunk_list::push_chunk(&mut table, b.chunk(part));
        if n % 1000 == 0 {
            chunk_list::push_list(&mut lists, b.list(0, std::mem::take(&mut table), 6000));
        }
    }
    let content =
        FileContent { size: 60_000, depth: 1, chunks: ByteBuf::from(lists), ..FileContent::default() };
    let long = node("long", NodeKind::File(content));
    let fixture = b.finish(vec![long]);
    let small = RestoreOptions { memory: 0, verify: true, ..options() };
    let report = fixture.restore_well(&small);
    assert_eq!((report.verified, report.files_written), (1, 1));
    assert!(fs::read(fixture.target().join("long")).unwrap() == bytes);
    fs::OpenOptions::new()
        .write(true)
        .open(fixture.target().join("long"))
        .unwrap()
        .write_all_at(b"!", 59_999)
        .unwrap();
    let report = fixture.restore_well(&small);
    assert_eq!((report.bytes_written, report.files_written, report.verified), (6, 1, 1));
    assert_eq!(fixture.restore_well(&small).files_unchanged, 1);
}

#[test]
fn many_files_share_few_handles_and_deep_paths_work() {
    let mut b = Builder::with_packs_of(1 << 20);
    let common = noise(0, 400_000);
    let files: Vec<_> = (0..600)
        .map(|n| {
            // Two chunks in different packs, so that every file is open for a while.
            let own = noise(n + 1, 2000);
            let bytes = [&common[..1000], &own[..]].concat();
            b.chunk(&common);
            b.file(&format!("{n:04}"), &bytes, 1000)
        })
        .collect();
    let mut deep = b.file("leaf", b"deep", 10);
    for _ in 0..30 {
        deep = b.directory(&"d".repeat(200), vec![deep]);
    }
    let fixture = b.finish([files, vec![deep]].concat());
    let report = fixture.restore_well(&RestoreOptions { verify: true, ..options() });
    assert_eq!((report.files, report.verified, report.directories), (601, 601, 30));
    let last = fs::read(fixture.target().join("0599")).unwrap();
    assert!(last == [&common[..1000], &noise(600, 2000)[..]].concat());
}

#[test]
fn cancelling_ends_it_early_and_says_so() {
    let fixture = every_kind();
    let listener = Listener { cancels_after: Some(0), ..Listener::default() };
    let report = fixture.try_restore("", &options(), &listener).unwrap();
    assert!(report.cancelled);
    assert!(report.files_written < 11);
}

#[test]
fn what_was_cancelled_anywhere_does_not_pass_for_whole() {
    let whole = {
        let fixture = every_kind();
        let listener = Listener::default();
        fixture.try_restore("", &options(), &listener).unwrap();
        listener.asked.load(Ordering::Relaxed)
    };
    let mut finished = 0;
    for after in 0..whole + 50 {
        let fixture = every_kind();
        let listener = Listener { cancels_after: Some(after), ..Listener::default() };
        let report = fixture.try_restore("", &options(), &listener).unwrap();
        if report.cancelled {
            // The same again goes on and completes it.
            fixture.restore_well(&RestoreOptions { verify: true, ..options() });
        } else {
            finished += 1;
            assert_eq!((report.files_written, report.errors), (11, 0), "after {after} questions");
            let again = fixture.restore_well(&options());
            assert_eq!((again.files_unchanged, again.bytes_written), (11, 0), "after {after} questions");
        }
    }
    assert!(finished > 0, "nobody asks more than {} times", whole + 50);
}

#[test]
fn metadata_is_a_problem_only_where_it_was_asked_for() {
    let mut b = Builder::new();
    let odd = with(b.file("file", b"x", 10), |m| {
        (m.uid, m.gid) = (u32::MAX, u32::MAX);
        m.mtime = Timestamp { seconds: 1, nanos: 2_000_000_000 };
    });
    let fixture = b.finish(vec![odd]);
    let mut wanted = options();
    (wanted.metadata.owner, wanted.metadata.times) = (true, true);
    let (report, problems) = fixture.restore(&wanted);
    assert_eq!((report.errors, problems.len()), (1, 2), "{problems:?}");
    assert!(problems.iter().all(|problem| problem.starts_with("metadata-failed /file: ")), "{problems:?}");
    (wanted.metadata.owner, wanted.metadata.times) = (false, false);
    fixture.restore_well(&wanted);
}

#[test]
fn owners_and_devices_come_back_for_root() {
    if !is_root() {
        return cannot("restore owners and devices", &"not root");
    }
    let mut b = Builder::new();
    let owned = with(b.file("file", b"x", 10), |m| (m.uid, m.gid, m.mode) = (1234, 5678, 0o4755));
    let device = with(node("null", NodeKind::CharDevice { major: 1, minor: 3 }), |m| *m = metadata(0o666));
    let fixture = b.finish(vec![owned, device]);
    let (report, problems) = fixture.restore(&options());
    if problems.iter().any(|problem| problem.contains("Operation not permitted")) {
        return cannot("restore owners and devices", &"this root may not make devices");
    }
    assert_eq!(report.errors, 0, "{problems:?}");
    let found = fs::metadata(fixture.target().join("file")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1234, 5678, 0o4755));
    let found = fs::metadata(fixture.target().join("null")).unwrap();
    assert!(found.file_type().is_char_device() && found.mode() & 0o777 == 0o666);
}
