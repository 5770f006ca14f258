//! Sources nobody thinks of: empty, deep, wide, huge, oddly named, out of all time, and the repository itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags};
use serde_json::Value;

use crate::support::{Bench, Run, cannot};

fn snapshots(bench: &Bench) -> Vec<Value> {
    let run = bench.run(["snapshots", "--json"]).expect(0);
    serde_json::from_str(&run.stdout).expect("a JSON array")
}

/// Restores what was `src` when it was backed up into `out`.
fn restore(bench: &Bench) -> Run {
    let source = bench.path("").canonicalize().expect("there").join("src");
    let mut what = OsString::from("latest:");
    what.push(source);
    Run::of(bench.command().args(["restore", "--json", "--verify", "--target", "out"]).arg(what))
}

#[test]
fn an_empty_source_is_a_snapshot_of_an_empty_directory() {
    let bench = Bench::new();
    fs::create_dir(bench.path("src")).expect("a folder");
    let summary = bench.run(["backup", "--json", "src"]).expect(0).last("summary");
    assert_eq!((&summary["total_files_processed"], &summary["data_added"]), (&0.into(), &0.into()));
    restore(&bench).expect(0);
    assert_eq!(fs::read_dir(bench.path("out")).expect("restored").count(), 0);
    bench.run(["check", "--read-data"]).expect(0);
}

#[test]
fn one_missing_source_of_several_is_an_error_before_anything_is_stored() {
    let bench = Bench::new();
    bench.source();
    let before = bench.objects("");
    let run = bench.run(["backup", "src", "missing"]).expect(1);
    assert!(run.message().contains("missing") && run.message().contains("No such file"), "{run:?}");
    assert_eq!(bench.objects(""), before);
}

#[test]
fn a_dangling_link_given_as_a_source_is_stored_as_a_link() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("nowhere", bench.path("src")).expect("a link");
    bench.run(["backup", "src"]).expect(0);
    let run = bench.run(["ls", "-l", "-R", "latest"]).expect(0);
    assert!(run.stdout.lines().any(|line| line.ends_with("src -> nowhere")), "{run:?}");
}

#[test]
fn files_of_no_byte_one_byte_and_a_tebibyte_come_back() {
    let bench = Bench::new();
    bench.write("src/empty", "");
    bench.write("src/one", "1");
    let length = 1_u64 << 40;
    let ends: [(u64, &[u8]); 3] = [(0, b"begin"), (length / 2 - 3, b"across"), (length - 3, b"end")];
    let sparse = File::create_new(bench.path("src/sparse")).expect("a file");
    if let Err(error) = sparse.set_len(length) {
        return cannot("make a sparse file of 1 TiB", &error);
    }
    for (at, bytes) in ends {
        sparse.write_all_at(bytes, at).expect("written");
    }
    let summary = bench.run(["backup", "--json", "src"]).expect(0).last("summary");
    assert_eq!(summary["total_bytes_processed"], length + 1);
    assert!(summary["data_added"].as_u64().expect("a number") < 1 << 20, "{summary}");
    restore(&bench).expect(0);
    assert_eq!(fs::read(bench.path("out/empty")).expect("restored"), b"");
    assert_eq!(fs::read(bench.path("out/one")).expect("restored"), b"1");
    let restored = File::open(bench.path("out/sparse")).expect("restored");
    let meta = restored.metadata().expect("there");
    assert_eq!(meta.len(), length);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks: the holes were filled", meta.blocks());
    for (at, bytes) in ends {
        let mut found = vec![0; bytes.len()];
        restored.read_exact_at(&mut found, at).expect("read");
        assert_eq!(found, bytes);
    }
    // Unchanged, so not read again.
    let again = bench.run(["backup", "--json", "src"]).expect(0).last("summary");
    assert_eq!((&again["files_unmodified"], &again["data_added"]), (&3.into(), &0.into()));
}

/// More bytes together than a number of 64 bits can say.
#[test]
fn files_that_are_holes_of_8_eib_are_backed_up_again_and_again() {
    // Few file systems have such files: one in memory does.
    let place = match tempfile::tempdir_in("/dev/shm") {
        Ok(place) => place,
        Err(error) => return cannot("make files in memory", &error),
    };
    let length = i64::MAX as u64;
    for name in ["a", "b", "c"] {
        let made = File::create_new(place.path().join(name)).and_then(|file| file.set_len(length));
        if let Err(error) = made {
            return cannot("make a sparse file of 8 EiB", &error);
        }
    }
    let bench = Bench::new();
    let source = place.path().to_str().expect("a name");
    for taken_over in [0, 3] {
        let summary = bench.run(["backup", "--json", source]).expect(0).last("summary");
        assert_eq!(summary["files_unmodified"], taken_over);
        assert_eq!(summary["total_bytes_processed"], u64::MAX, "no less than there are");
    }
    for words in [&["snapshots"][..], &["ls", "latest"], &["stats", "--json"], &["check", "--read-data"]] {
        bench.run(words).expect(0);
    }
    let dry = bench.run(["restore", "latest", "--json", "--dry-run", "--target", "out"]).expect(0);
    assert_eq!(dry.last("summary")["total_bytes"], u64::MAX);
}

/// All of a snapshot's paths together are longer than 65,535 characters.
#[test]
fn a_snapshot_of_very_many_paths_is_listed() {
    let bench = Bench::new();
    let list: Vec<String> = (0..400)
        .map(|n| format!("src/{}/{n}-{}", "d".repeat(200), "f".repeat(200)))
        .inspect(|name| drop(bench.write(name, "content")))
        .collect();
    bench.write("list", list.join("\n"));
    bench.run(["backup", "--files-from", "list"]).expect(0);
    let run = bench.run(["snapshots"]).expect(0);
    let line = run.stdout.lines().find(|line| line.contains("0-fff")).expect("the snapshot");
    assert!(line.ends_with(" and 392 more"), "{line}");
    bench.run(["stats", "--by", "snapshot"]).expect(0);
    let all = snapshots(&bench)[0]["paths"].as_array().map(Vec::len);
    assert_eq!(all, Some(400));
}

#[test]
fn a_hundred_thousand_entries_of_one_directory_come_back() {
    const COUNT: usize = 100_000;
    let bench = Bench::new();
    fs::create_dir(bench.path("src")).expect("a folder");
    let name = |number: usize| format!("entry-{number:06}");
    for number in 0..COUNT {
        File::create_new(bench.path("src").join(name(number))).expect("a file");
    }
    let summary = bench.run(["backup", "--json", "src"]).expect(0).last("summary");
    assert_eq!((&summary["files_new"], &summary["error_count"]), (&COUNT.into(), &0.into()));
    // One of them changes: the others are taken over, and little of the directory is stored anew.
    bench.write(&format!("src/{}", name(COUNT / 2)), "changed");
    let second = bench.run(["backup", "--json", "src"]).expect(0).last("summary");
    assert_eq!((&second["files_unmodified"], &second["files_changed"]), (&(COUNT - 1).into(), &1.into()));
    let added = |summary: &Value| summary["data_added"].as_u64().expect("a number");
    assert!(added(&second) * 10 < added(&summary), "{second} after {summary}");
    restore(&bench).expect(0);
    let mut restored: Vec<_> = fs::read_dir(bench.path("out"))
        .expect("restored")
        .map(|entry| entry.expect("one").file_name())
        .collect();
    restored.sort();
    assert!(restored.iter().map(|name| name.to_str().expect("digits")).eq((0..COUNT).map(name)));
    assert_eq!(fs::read(bench.path("out").join(name(COUNT / 2))).expect("restored"), b"changed");
}

/// A directory that is opened from its parent's handle: no path is long.
fn below(parent: &OwnedFd, name: &str) -> OwnedFd {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).expect("a directory")
}

#[test]
fn paths_longer_than_the_system_takes_come_back() {
    const LEVELS: usize = 64;
    let (bench, name) = (Bench::new(), "n".repeat(100));
    fs::create_dir(bench.path("src")).expect("a folder");
    let open = |path: &Path| {
        rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .expect("a directory")
    };
    let mut at = open(&bench.path("src"));
    for _ in 0..LEVELS {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).expect("a directory");
        at = below(&at, &name);
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&at, "bottom", flags, Mode::RUSR | Mode::WUSR).expect("a file");
    rustix::io::write(&file, b"reached").expect("written");
    bench.run(["backup", "src"]).expect(0);
    let listing = bench.run(["ls", "-R", "latest"]).expect(0).stdout;
    let longest = listing.lines().map(str::len).max().expect("lines");
    assert!(longest > 4096 && listing.trim_end().ends_with("/bottom"), "{longest}");
    restore(&bench).expect(0);
    let mut at = open(&bench.path("out"));
    for _ in 0..LEVELS {
        at = below(&at, &name);
    }
    let file = rustix::fs::openat(&at, "bottom", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut found = [0; 16];
    let read = rustix::io::read(file.expect("restored"), &mut found).expect("read");
    assert_eq!(&found[..read], b"reached");
    // The path of a single entry can be named even so.
    let path = listing.lines().last().expect("lines");
    let run = bench.run(["restore", &format!("latest:{path}"), "--target", "single"]).expect(0);
    assert_eq!(fs::read(bench.path("single/bottom")).expect("restored"), b"reached", "{run:?}");
}

#[test]
fn names_of_any_bytes_come_back() {
    let bench = Bench::new();
    fs::create_dir(bench.path("src")).expect("a folder");
    let mut names: Vec<Vec<u8>> = (1..=255u8)
        .filter(|byte| ![b'/', b'.'].contains(byte))
        .flat_map(|byte| [vec![byte], vec![b'x', byte, b'y']])
        .collect();
    names.extend([b"...".to_vec(), b"-rf".to_vec(), vec![b'l'; 255], vec![0xff; 255], b" ".repeat(255)]);
    names.sort();
    names.dedup();
    for name in &names {
        if let Err(error) = fs::write(bench.path("src").join(OsStr::from_bytes(name)), name) {
            return cannot("make files whose names are no text", &error);
        }
    }
    bench.run(["backup", "src"]).expect(0);
    restore(&bench).expect(0);
    let restored: BTreeMap<Vec<u8>, Vec<u8>> = fs::read_dir(bench.path("out"))
        .expect("restored")
        .map(|entry| {
            let entry = entry.expect("one");
            (entry.file_name().into_vec(), fs::read(entry.path()).expect("restored"))
        })
        .collect();
    assert_eq!(restored.len(), names.len());
    assert!(names.iter().all(|name| restored.get(name) == Some(name)));
    // Neither listings nor messages break on them.
    bench.run(["ls", "-l", "-R", "latest"]).expect(0);
    bench.run(["ls", "-R", "--json", "latest"]).expect(0).lines();
    let bad = bench.path("src").join(OsStr::from_bytes(b"x\xffy"));
    let mut what = OsString::from("latest:");
    what.push(bad.canonicalize().expect("there"));
    Run::of(bench.command().arg("restore").arg(what).args(["--target", "single"])).expect(0);
    assert_eq!(fs::read_dir(bench.path("single")).expect("restored").count(), 1);
}

#[test]
fn times_before_1970_and_far_ahead_come_back() {
    let bench = Bench::new();
    let epoch = SystemTime::UNIX_EPOCH;
    let times = [
        epoch,
        epoch - Duration::new(1, 1),
        epoch - Duration::from_secs(86_400 * 365),
        epoch + Duration::new(4_102_444_800, 999_999_999),
    ];
    let set = |number: usize, time: SystemTime| {
        let path = bench.write(&format!("src/{number}"), "x");
        let file = File::options().write(true).open(&path).expect("a file");
        file.set_modified(time).expect("a time");
        fs::metadata(path).expect("there").modified().expect("a time")
    };
    // As the file system keeps them.
    let kept: Vec<_> = times.into_iter().enumerate().map(|(number, time)| set(number, time)).collect();
    bench.run(["backup", "src"]).expect(0);
    restore(&bench).expect(0);
    for (number, time) in kept.into_iter().enumerate() {
        let restored = fs::metadata(bench.path(&format!("out/{number}"))).expect("restored");
        assert_eq!(restored.modified().expect("a time"), time, "{number}");
    }
}

/// A backup of data from 1970, made after one of data from today: the latest is the one made last.
#[test]
fn a_clock_set_to_1970_hides_no_snapshot() {
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    bench.write("src/a.txt", "later");
    let old =
        bench.run(["backup", "--json", "--time", "1970-01-01T00:00:00Z", "src"]).expect(0).last("summary");
    assert_eq!((&old["files_changed"], &old["files_unmodified"]), (&1.into(), &2.into()));
    let list = snapshots(&bench);
    assert_eq!(list.len(), 2);
    assert_eq!(list[1]["id"], old["snapshot_id"]);
    assert_eq!(list[1]["time"], "1970-01-01T00:00:00.000000000Z");
    restore(&bench).expect(0);
    assert_eq!(fs::read(bench.path("out/a.txt")).expect("restored"), b"later");
    let next = bench.run(["backup", "--json", "src"]).expect(0).last("summary");
    assert_eq!((&next["files_unmodified"], &next["parent"]), (&3.into(), &old["snapshot_id"]));
    bench.run(["check"]).expect(0);
}

#[test]
fn the_repository_is_left_out_of_what_surrounds_it() {
    let bench = Bench::new();
    fs::create_dir(bench.path("src")).expect("a folder");
    bench.write("src/file", "x");
    fs::rename(bench.repository(), bench.path("src/repo")).expect("moved");
    let mut command = bench.command();
    command.env("STRONGROOM_REPOSITORY", bench.path("src/repo")).args(["backup", "--json", "src"]);
    let run = Run::of(&mut command).expect(0);
    let warning = run.lines().into_iter().find(|line| line["type"] == "warning").expect("told");
    assert_eq!(warning["code"], "repository-in-source");
    assert_eq!(run.last("summary")["total_files_processed"], 1);
}

#[test]
fn the_repository_is_not_backed_up_into_itself() {
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    std::os::unix::fs::symlink("repo", bench.path("link")).expect("a link");
    let before = bench.objects("");
    for source in ["repo", "repo/packs", "link", "repo/config"] {
        let run = bench.run(["backup", "src", source]).expect(1);
        assert!(run.message().contains("repository"), "{source}: {run:?}");
        assert_eq!(bench.objects(""), before, "{source}");
    }
}

/// The command as a user without privileges; `None` where the tests are run by one, or no other can be had.
fn unprivileged(bench: &Bench) -> Option<std::process::Command> {
    if !rustix::process::geteuid().is_root() {
        return Some(bench.command());
    }
    let options = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let works = std::process::Command::new("setpriv").args(options).arg("true").status();
    if !works.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = bench.command();
    let program = command.get_program().to_owned();
    let mut as_nobody = std::process::Command::new("setpriv");
    as_nobody.args(options).arg(program).stdin(std::process::Stdio::null()).current_dir(bench.path(""));
    for (name, value) in command.env("TMPDIR", "/tmp").get_envs() {
        match value {
            Some(value) => as_nobody.env(name, value),
            None => as_nobody.env_remove(name),
        };
    }
    Some(as_nobody)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

/// What an unprivileged user may pass but not list, such as a `/home` with the mode 0711, is no obstacle; what it
/// may not read is reported, and the rest is kept.
#[test]
fn unprivileged_users_back_up_what_they_may_read() {
    let bench = Bench::empty();
    let Some(mut init) = unprivileged(&bench) else { return cannot("become another user", &"no setpriv") };
    set_mode(&bench.path(""), 0o777);
    bench.write("way/home/me/file", "mine");
    bench.write("way/home/me/secret", "not mine");
    bench.write("way/locked/file", "not mine");
    set_mode(&bench.path("way/home/me/secret"), 0);
    set_mode(&bench.path("way/locked"), 0);
    Run::of(init.arg("init").args(crate::support::CHEAP)).expect(0);
    set_mode(&bench.path("way/home"), 0o711);
    set_mode(&bench.path("way"), 0o711);
    let mut backup = unprivileged(&bench).expect("as before");
    let run = Run::of(backup.args(["backup", "--json", "way/home/me", "way/locked"])).expect(3);
    let errors: Vec<_> = run.lines().into_iter().filter(|line| line["type"] == "error").collect();
    let told = |name: &str| {
        errors.iter().any(|error| {
            error["code"] == "unreadable" && error["path"].as_str().is_some_and(|path| path.ends_with(name))
        })
    };
    assert!(told("me/secret") && told("way/locked") && errors.len() == 2, "{run:#?}");
    let mut ls = unprivileged(&bench).expect("as before");
    let listing = Run::of(ls.args(["ls", "-R", "latest"])).expect(0).stdout;
    assert!(listing.lines().any(|line| line.ends_with("way/home/me/file")), "{listing}");
    // So that the folder can be removed.
    for (path, mode) in [("way", 0o755), ("way/home", 0o755), ("way/locked", 0o755)] {
        set_mode(&bench.path(path), mode);
    }
}
