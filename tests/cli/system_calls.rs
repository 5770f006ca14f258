//! How many calls of the system it takes to go through many small files: counted, as time would tell it on a quiet machine only.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use crate::support::{Bench, Run, assert_same, cannot};

const FILES: u64 = 2000;
const FOLDERS: u64 = 40;

/// Calls that say what an entry is, and that open one.
const STATS: [&str; 6] = ["statx", "newfstatat", "fstatat64", "stat", "lstat", "fstat"];
const OPENS: [&str; 4] = ["open", "openat", "openat2", "open_by_handle_at"];

/// A repository, and small files in some folders.
fn small_files() -> Bench {
    let bench = Bench::new();
    for n in 0..FILES {
        bench.write(&format!("src/{:02}/{n}", n % FOLDERS), format!("content {n}"));
    }
    bench
}

/// The calls of a run by their names.
struct Calls(BTreeMap<String, u64>);

impl Calls {
    /// Runs a command that goes well. None, said loudly, where there is no `strace`, or it may not trace.
    fn of(bench: &Bench, args: &[&str]) -> Option<(Run, Self)> {
        let told = |reason: &dyn std::fmt::Display| cannot("count calls of the system with strace", reason);
        match Command::new("strace").args(["-qq", "-o", "/dev/null", "--", "true"]).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                told(&String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            Err(error) => {
                told(&error);
                return None;
            }
        }
        let table = bench.path("calls");
        let options = [OsStr::new("-c"), OsStr::new("-o"), table.as_os_str()];
        let run = bench.traced(&options, args).expect(0);
        let table = fs::read_to_string(table).expect("strace writes a table");
        // `% time  seconds  usecs/call  calls  [errors]  syscall`
        let row = |line: &str| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let calls = columns.get(3)?.parse().ok()?;
            Some(((*columns.last()?).to_owned(), calls))
        };
        let mut calls: BTreeMap<String, u64> = table.lines().filter_map(row).collect();
        calls.remove("total");
        Some((run, Self(calls)))
    }

    fn sum(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.0.get(*name)).sum()
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[test]
fn what_is_unchanged_is_asked_for_once_and_not_opened() {
    let bench = small_files();
    bench.run(["backup", "src"]).expect(0);
    let Some((run, calls)) = Calls::of(&bench, &["backup", "--threads", "2", "--json", "src"]) else {
        return;
    };
    assert_eq!(run.last("summary")["files_unmodified"], FILES);
    let entries = FILES + FOLDERS;
    let stats = calls.sum(&STATS);
    assert!(
        (entries..=entries + entries / 20 + 200).contains(&stats),
        "{entries} entries: {stats} in {calls:?}"
    );
    let opens = calls.sum(&OPENS);
    assert!((FOLDERS..=2 * FOLDERS + 200).contains(&opens), "{FOLDERS} folders: {opens} in {calls:?}");
}

#[test]
fn a_small_file_is_restored_in_few_calls() {
    let bench = small_files();
    bench.run(["backup", "src"]).expect(0);
    let what = format!("latest:{}", bench.path("src").canonicalize().expect("there").display());
    let restore = ["restore", "--threads", "2", &what, "--target", "restored"];
    let Some((_, calls)) = Calls::of(&bench, &restore) else { return };
    assert_same(&bench.path("src"), &bench.path("restored"));
    // Threads that wait for each other do so as it comes, and builds with debug assertions look at each descriptor before they close it.
    let aside = calls.sum(&["futex", "sched_yield", "fcntl"]);
    let sum = calls.0.values().sum::<u64>() - aside;
    // Opened, asked what it is and for attributes, written, given its times, closed: six for each, and some for all.
    assert!((6 * FILES..=7 * FILES).contains(&sum), "{FILES} files: {sum} calls, {calls:?}");
}
