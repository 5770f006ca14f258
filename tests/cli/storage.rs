//! Storage that is full, read-only, broken or shared: nothing is lost, and the message says what to do.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Bench, CHEAP, PASSWORD, Run, assert_same, cannot, noise};

/// A small file system of its own, there as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts one of so many bytes at `path`; `None` where that cannot be done, as without privileges.
    fn new(path: PathBuf, bytes: usize) -> Option<Self> {
        fs::create_dir_all(&path).expect("a folder");
        let options = format!("size={bytes}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "strongroom-test"])
            .arg(&path)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(path)),
            Ok(output) => {
                cannot("mount a small file system", &String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                cannot("mount a small file system", &error);
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(status.expect("as before").success(), "{options}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Restores what was `src` when it was backed up.
fn restore(bench: &Bench, target: &str) -> Run {
    let source = bench.path("src").canonicalize().expect("there");
    bench.run(["restore", "--json", "--verify", &format!("latest:{}", source.display()), "--target", target])
}

/// A source of 8 MiB in 16 files.
fn large_source(bench: &Bench) {
    for number in 0..16 {
        bench.write(&format!("src/d{}/{number}", number % 3), noise(number, 1 << 19));
    }
}

#[test]
fn a_full_repository_file_system_loses_nothing_and_the_next_backup_goes_on() {
    let bench = Bench::empty();
    bench.source();
    let Some(mounted) = Mounted::new(bench.path("repo"), 4 << 20) else { return };
    bench.run(["init", "--reserve", "0"].into_iter().chain(CHEAP)).expect(0);
    let first = bench.run(["backup", "--json", "src"]).expect(0).last("summary");
    large_source(&bench);
    let run = bench.run(["backup", "--json", "src"]).expect(1);
    let error = run.last("error");
    assert!(error["message"].as_str().expect("text").contains("No space left"), "{error}");
    assert!(error["hint"].as_str().expect("text").contains("make room"), "{error}");
    // What was there before is whole, and so is what was stored of the second.
    bench.run(["check", "--read-data"]).expect(0);
    let list: Value =
        serde_json::from_str(&bench.run(["snapshots", "--json"]).expect(0).stdout).expect("JSON");
    let complete: Vec<_> =
        list.as_array().expect("a list").iter().filter(|snapshot| snapshot["partial"] == false).collect();
    assert_eq!(complete.len(), 1, "{list}");
    assert_eq!(complete[0]["id"], first["snapshot_id"]);
    let left: u64 = bench.objects("tmp").iter().map(|path| fs::metadata(path).expect("there").len()).sum();
    assert_eq!(left, 0, "what could not be finished takes up room");
    // Full still: it fails again in the same way, and reading works.
    bench.run(["backup", "src"]).expect(1);
    bench.run(["ls", "-R", "latest"]).expect(0);
    mounted.remount("size=32m");
    bench.run(["backup", "src"]).expect(0);
    bench.run(["check", "--read-data"]).expect(0);
    restore(&bench, "out").expect(0);
    assert_same(&bench.path("src"), &bench.path("out"));
}

/// Fills a folder's file system to its last byte.
fn fill(folder: &Path) {
    let mut filler = fs::File::create(folder.join("filler")).expect("a file");
    for len in [1 << 16, 1 << 12, 1] {
        let piece = vec![7; len];
        while std::io::Write::write_all(&mut filler, &piece).is_ok() {}
    }
}

#[test]
fn a_reserve_makes_room_to_forget_and_prune_when_the_file_system_is_full() {
    let bench = Bench::empty();
    bench.source();
    let Some(_mounted) = Mounted::new(bench.path("repo"), 16 << 20) else { return };
    bench.run(["init"].into_iter().chain(CHEAP)).expect(0);
    bench.run(["backup", "src"]).expect(0);
    bench.write("src/large", noise(7, 5 << 20));
    bench.run(["backup", "src"]).expect(0);
    fs::remove_file(bench.path("src/large")).expect("removed");
    bench.run(["backup", "src"]).expect(0);
    fill(&bench.repository());
    bench.run(["backup", "src"]).expect(1);
    let status = bench.run(["reserve", "status", "--json"]).expect(0).last("summary");
    assert_eq!(status["kept_free"], 4 << 20, "a backup takes none of it: {status}");
    let run = bench.run(["forget", "--keep-last", "1", "--json"]).expect(0);
    let summary = run.last("summary");
    assert_eq!(
        (&summary["snapshots_forgotten"], &summary["reserve_given_back"]),
        (&2.into(), &(4 << 20).into()),
        "{summary}"
    );
    assert_eq!(summary["reserve_lacking"], 2 << 20, "{summary}");
    assert!(run.stdout.contains("the reserve lacks 2.00 MiB"), "{run:?}");
    let run = bench.run(["check", "--json"]).expect(0);
    assert!(run.stdout.contains("reserve-short"), "{run:?}");
    fs::remove_file(bench.repository().join("filler")).expect("removed");
    fill(&bench.repository());
    let run = bench.run(["prune", "--max-unused", "unlimited", "--grace", "0s"]).expect(0);
    assert!(run.stdout.contains("2.00 MiB were given back, since the storage was full"), "{run:?}");
    assert!(!run.stderr.contains("lacks"), "there is room for all of it again: {run:?}");
    let run = bench.run(["check", "--read-data"]).expect(0);
    assert!(!run.stdout.contains("reserve"), "{run:?}");
    bench.run(["backup", "src"]).expect(0);
    restore(&bench, "out").expect(0);
    assert_same(&bench.path("src"), &bench.path("out"));
}

#[test]
fn where_there_is_no_room_for_a_reserve_the_repository_is_made_all_the_same() {
    let bench = Bench::empty();
    bench.source();
    let Some(_mounted) = Mounted::new(bench.path("repo"), 3 << 20) else { return };
    let init = |more: &[&str]| bench.run(["init"].iter().chain(more).copied().chain(CHEAP));
    let no_room = "no room for a reserve of 4194304 bytes, 2097152 are kept free";
    let asked = init(&["--reserve", "4MiB"]).expect(1);
    assert!(asked.message().contains(no_room), "{asked:?}");
    assert!(asked.stderr.contains("hint: make room on the storage, or ask for a smaller one"), "{asked:?}");
    for entry in fs::read_dir(bench.path("repo")).expect("made") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
    }
    let run = init(&[]).expect(0);
    assert!(run.stderr.contains("warning: ") && run.stderr.contains(no_room), "nobody asked: {run:?}");
    bench.run(["backup", "src"]).expect(0);
    let run = bench.run(["check", "--json"]).expect(0);
    assert!(run.stdout.contains("reserve-short"), "{run:?}");
}

#[test]
fn a_full_target_is_reported_file_by_file() {
    let bench = Bench::new();
    bench.source();
    large_source(&bench);
    bench.run(["backup", "src"]).expect(0);
    let Some(mounted) = Mounted::new(bench.path("out"), 4 << 20) else { return };
    let run = restore(&bench, "out").expect(3);
    let summary = run.last("summary");
    let errors = summary["error_count"].as_u64().expect("a number");
    assert!(errors > 0, "{summary}");
    let told = run.lines().into_iter().filter(|line| line["type"] == "error" && line["path"].is_string());
    let told: Vec<_> = told.collect();
    assert!(
        told.iter().any(|line| line["message"].as_str().expect("text").contains("No space left")),
        "{run:#?}"
    );
    // With room, the same command completes it.
    mounted.remount("size=32m");
    restore(&bench, "out").expect(0);
    assert_same(&bench.path("src"), &bench.path("out"));
}

#[test]
fn read_only_storage_can_be_read_and_says_what_it_is() {
    let bench = Bench::empty();
    bench.source();
    let Some(mounted) = Mounted::new(bench.path("repo"), 16 << 20) else { return };
    bench.run(["init"].into_iter().chain(CHEAP)).expect(0);
    bench.run(["backup", "src"]).expect(0);
    mounted.remount("ro");
    for args in
        [&["snapshots"][..], &["ls", "latest"], &["check", "--read-data"], &["log", "--verify"], &["stats"]]
    {
        bench.run(args).expect(0);
    }
    restore(&bench, "out").expect(0);
    assert_same(&bench.path("src"), &bench.path("out"));
    bench.write("src/new", "new");
    let run = bench.run(["backup", "src"]).expect(1);
    assert!(run.message().contains("Read-only"), "{run:?}");
    assert!(run.stderr.contains("hint: the file system is mounted read-only"), "{run:?}");
    // As a target it is no better.
    let Some(target) = Mounted::new(bench.path("target"), 1 << 20) else { return };
    target.remount("ro");
    let source = bench.path("src").canonicalize().expect("there");
    let run = bench
        .run(["restore", &format!("latest:{}", source.display()), "--target", "target/restored"])
        .expect(1);
    assert!(run.message().contains("Read-only"), "{run:?}");
}

#[test]
fn of_several_inits_at_once_one_makes_the_repository() {
    for _ in 0..4 {
        let bench = Bench::empty();
        let start = |number: usize| {
            let mut command = bench.command();
            command.env("STRONGROOM_PASSWORD", format!("{PASSWORD} {number}")).arg("init").args(CHEAP);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("built")
        };
        let running: Vec<_> = (0..3).map(start).collect();
        let ended = running.into_iter().map(|child| Run::from(&child.wait_with_output().expect("ended")));
        let ended: Vec<_> = ended.collect();
        let made: Vec<_> = (0..3).filter(|number| ended[*number].code == 0).collect();
        assert_eq!(made.len(), 1, "{ended:#?}");
        for (number, run) in ended.iter().enumerate() {
            let mut open = bench.command();
            open.env("STRONGROOM_PASSWORD", format!("{PASSWORD} {number}")).arg("snapshots");
            if number == made[0] {
                Run::of(&mut open).expect(0);
            } else {
                assert!(run.code == 1 && run.message().contains("already"), "{run:?}");
                // Nothing of theirs stays: their password opens nothing.
                Run::of(&mut open).expect(12);
            }
        }
        assert_eq!(bench.objects("keys").len(), 1);
    }
}

/// What cannot be looked at may be anything: neither 0 nor 4.
#[test]
fn a_check_that_cannot_be_made_is_5() {
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    for command in ["check", "log --verify"] {
        let words = || command.split(' ').chain(["--json"]);
        let mut no_password = bench.command();
        no_password
            .env_remove("STRONGROOM_PASSWORD")
            .env("STRONGROOM_PASSWORD_COMMAND", "exit 1")
            .args(words());
        let error = Run::of(&mut no_password).expect(5).last("error");
        assert_eq!(
            (&error["code"], &error["exit_code"]),
            (&"password-command".into(), &5.into()),
            "{command}"
        );
        // A folder that cannot be read through: a disk error, a network share that went away.
        let log = bench.repository().join("log");
        fs::rename(&log, bench.path("log")).expect("moved");
        std::os::unix::fs::symlink(bench.path("log"), &log).expect("a link");
        let error = bench.run(words()).expect(5).last("error");
        assert_eq!(error["exit_code"], 5, "{command}");
        fs::remove_file(&log).expect("removed");
        fs::rename(bench.path("log"), &log).expect("moved back");
        bench.run(words()).expect(0);
        // The wrong password, no repository and damage keep their own codes.
        Run::of(bench.command().env("STRONGROOM_PASSWORD", "wrong").args(words())).expect(12);
        bench.run(words().chain(["-r", "nowhere"])).expect(10);
    }
}

/// Runs the command with a system call failing: which ones of each thread `when` tells, as in `2` or `1+`.
fn failing(bench: &Bench, call: &str, error: &str, when: &str, args: &[&str]) -> Run {
    failing_at(None, bench, call, error, when, args)
}

/// The same with calls on one file only.
fn failing_at(path: Option<&Path>, bench: &Bench, call: &str, error: &str, when: &str, args: &[&str]) -> Run {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when={when}"));
    let path = path.map(|path| path.canonicalize().expect("there"));
    let mut options = ["-o", "/dev/null", "-e", &trace, "-e", &inject].map(OsStr::new).to_vec();
    options.extend(path.iter().flat_map(|path| [OsStr::new("-P"), path.as_os_str()]));
    bench.traced(&options, args)
}

fn can_inject() -> bool {
    let probe = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "--", "true"])
        .output();
    match probe {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            cannot("make system calls fail", &String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            cannot("make system calls fail with strace", &error);
            false
        }
    }
}

/// An object whose folder cannot be flushed may be gone after a power cut: nothing rests on it, and nobody is told that
/// all went well.
#[test]
fn a_folder_that_cannot_be_flushed_is_a_failure() {
    if !can_inject() {
        return;
    }
    // The first flushes are of packs and their folders; then those of `log` alone.
    for (in_log, when) in [(false, "1"), (false, "2"), (false, "3"), (false, "4"), (true, "1+")] {
        let bench = Bench::new();
        bench.source();
        bench.run(["backup", "src"]).expect(0);
        bench.write("src/new", "x".repeat(100_000));
        // All of its subfolders are there already: to make one takes flushes as well.
        for fan in 0..=255 {
            let _ = fs::create_dir(bench.repository().join(format!("packs/{fan:02x}")));
        }
        let commits = bench.objects("log").len();
        let log = bench.repository().join("log");
        let run =
            failing_at(in_log.then_some(&*log), &bench, "fsync", "EIO", when, &["backup", "src"]).expect(1);
        assert!(run.message().contains("Input/output error"), "{in_log} {when}: {run:#?}");
        // Each thread counts its calls: the fourth of one can be that of `log`, too.
        let new = bench.objects("log").len() - commits;
        assert!(if in_log { new == 1 } else { new <= 1 }, "{in_log} {when}: {run:#?}");
        bench.run(["check", "--read-data"]).expect(0);
        bench.run(["backup", "src"]).expect(0);
        bench.run(["check", "--read-data"]).expect(0);
    }
}

/// Flushing and publishing fail at any point: the backup says so, the repository stays whole, and the next one
/// goes through. A flush that failed is never tried again and taken as good.
#[test]
fn failing_flushes_and_publications_lose_nothing() {
    if !can_inject() {
        return;
    }
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    let mut failed = 0;
    for (call, error) in [("fsync", "EIO"), ("renameat2", "EIO"), ("renameat2", "ENOSPC")] {
        for nth in 1..=8 {
            bench.write("src/changing", noise(failed, 10_000));
            let run = failing(&bench, call, error, &nth.to_string(), &["backup", "-q", "src"]);
            assert!([0, 1].contains(&run.code), "{call} {nth}: {run:?}");
            if run.code == 1 {
                failed += 1;
                let says = if error == "EIO" { "Input/output error" } else { "No space left" };
                assert!(run.message().contains(says), "{call} {nth}: {run:?}");
            }
            let check = bench.run(["check", "--read-data"]);
            assert_eq!(check.code, 0, "{call} {nth}: {check:#?} after {run:#?}");
        }
    }
    assert!(failed >= 4, "only {failed} backups failed");
    bench.run(["backup", "src"]).expect(0);
    restore(&bench, "out").expect(0);
    assert_same(&bench.path("src"), &bench.path("out"));
}

/// Where renaming without replacing is not to be had, links are used instead; where neither is, the storage is
/// refused before anything is made of it.
#[test]
fn storage_that_cannot_publish_is_refused_by_init() {
    if !can_inject() {
        return;
    }
    let bench = Bench::empty();
    let init = [&["init"][..], &CHEAP].concat();
    failing(&bench, "renameat2", "EINVAL", "1+", &init).expect(0);
    bench.run(["snapshots"]).expect(0);
    let bench = Bench::empty();
    let run = failing(&bench, "renameat2,linkat", "EOPNOTSUPP", "1+", &init).expect(1);
    assert!(run.message().contains("renam") && run.message().contains("links"), "{run:?}");
    assert!(run.stderr.contains("hint: choose a folder on another file system"), "{run:?}");
    assert!(!bench.repository().join("config").exists());
    let bench = Bench::empty();
    let run = failing(&bench, "fsync", "EINVAL", "1+", &init).expect(1);
    assert!(!bench.repository().join("config").exists(), "{run:?}");
}

/// A disk that cannot be read any more: named, exit code 4 from the check and 3 from the restore, never 0.
#[test]
fn objects_that_cannot_be_read_are_named() {
    let bench = Bench::new();
    large_source(&bench);
    bench.run(["backup", "src"]).expect(0);
    let pack = bench.objects("packs").into_iter().max_by_key(|pack| pack.metadata().expect("a pack").len());
    let pack = pack.expect("packs");
    let name = pack.file_name().and_then(|name| name.to_str()).expect("hex").to_owned();
    if can_inject() {
        let run =
            failing_at(Some(&pack), &bench, "pread64", "EIO", "1+", &["check", "--json", "--read-data"])
                .expect(4);
        assert!(run.stdout.contains(&name) && run.stdout.contains("Input/output error"), "{run:#?}");
    }
    // A folder in its place cannot be read as a file, by nobody: what else there is cannot be told from that.
    fs::rename(&pack, bench.path("pack")).expect("moved");
    fs::create_dir(&pack).expect("a folder");
    let run = bench.run(["check", "--json", "--read-data"]).expect(5);
    assert!(run.last("error")["message"].as_str().expect("text").contains(&name), "{run:#?}");
    let run = restore(&bench, "out").expect(3);
    assert!(run.last("summary")["error_count"].as_u64().expect("a number") > 0);
    fs::remove_dir(&pack).expect("removed");
    fs::rename(bench.path("pack"), &pack).expect("moved back");
    restore(&bench, "out").expect(0);
    assert_same(&bench.path("src"), &bench.path("out"));
}

/// Targets that are no directory, or hold something else already.
#[test]
fn targets_that_cannot_be_are_refused_and_others_are_used_as_they_are() {
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    let file = bench.write("file", "mine");
    let run = restore(&bench, "file").expect(1);
    assert_eq!(run.last("error")["code"], "target");
    assert_eq!(fs::read(&file).expect("still there"), b"mine");
    // What else is in the target stays, unless it is to be deleted.
    bench.write("out/mine", "mine");
    restore(&bench, "out").expect(0);
    assert_eq!(fs::read(bench.path("out/mine")).expect("still there"), b"mine");
    fs::remove_file(bench.path("out/mine")).expect("removed");
    assert_same(&bench.path("src"), &bench.path("out"));
    set_mode(&bench.path("out"), 0o555);
    let again = restore(&bench, "out");
    set_mode(&bench.path("out"), 0o755);
    again.expect(0);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}
