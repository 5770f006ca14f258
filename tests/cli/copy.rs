//! `copy`: what gets to the other repository, and what is said of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Bench, CHEAP, Run, assert_same, noise, overwrite};

/// A repository with so many snapshots of a source that changes, and an empty one with another password.
fn two_repositories(snapshots: u64) -> Bench {
    let bench = Bench::new();
    let source = bench.source();
    std::os::unix::fs::symlink("a.txt", source.join("link")).expect("a link");
    fs::set_permissions(source.join("sub/c.o"), fs::Permissions::from_mode(0o4711)).expect("a mode");
    for night in 0..snapshots {
        bench.write("src/sub/changes", noise(night, 400_000));
        bench.write(&format!("src/night{night}"), noise(100 + night, 50_000));
        bench.run([OsStr::new("backup"), source.as_os_str()]).expect(0);
    }
    bench.write("other-password", "quite another\n");
    let init = ["-r", "other", "--password-file", "other-password", "init"];
    bench.run(init.into_iter().chain(CHEAP)).expect(0);
    bench
}

const TO: [&str; 5] = ["copy", "--to", "other", "--to-password-file", "other-password"];

fn copy(bench: &Bench, more: &[&str]) -> Run {
    bench.run(TO.iter().chain(more))
}

fn in_other(bench: &Bench, args: &[&str]) -> Run {
    bench.run(["-r", "other", "--password-file", "other-password"].iter().chain(args))
}

/// Ids of the snapshots, and of each the snapshot that it is a copy of.
fn snapshots(run: Run) -> Vec<(String, Value)> {
    let list: Value = serde_json::from_str(&run.expect(0).stdout).expect("an array");
    let of = |snapshot: &Value| {
        (snapshot["id"].as_str().expect("an id").to_owned(), snapshot["origin"]["snapshot_id"].clone())
    };
    list.as_array().expect("an array").iter().map(of).collect()
}

/// Everything that a restore brings back of metadata, by path. The target itself is nobody's copy.
fn metadata(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("there");
        let name = path.strip_prefix(folder).expect("below").display().to_string();
        let times = (meta.mtime(), meta.mtime_nsec());
        let is_target = name.is_empty();
        found.extend((!is_target).then(|| {
            format!("{name} {:o} {} {} {times:?} {}", meta.mode(), meta.uid(), meta.gid(), meta.len())
        }));
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        }
    }
    found.sort();
    found
}

/// Makes sure that each copy restores to what its original restores to.
#[track_caller]
fn assert_restores_alike(bench: &Bench, expected: usize) {
    let copies = snapshots(in_other(bench, &["snapshots", "--json"]));
    assert_eq!(copies.len(), expected);
    for (number, (copy, origin)) in copies.iter().enumerate() {
        let (one, two) = (format!("one{number}"), format!("two{number}"));
        let origin = origin.as_str().expect("an origin");
        bench.run(["restore", origin, "--target", &one]).expect(0);
        in_other(bench, &["restore", copy, "--target", &two]).expect(0);
        assert_same(&bench.path(&one), &bench.path(&two));
        assert_eq!(metadata(&bench.path(&one)), metadata(&bench.path(&two)));
        fs::remove_dir_all(bench.path(&one)).expect("removed");
        fs::remove_dir_all(bench.path(&two)).expect("removed");
    }
    in_other(bench, &["check", "--read-data"]).expect(0);
}

#[test]
fn all_snapshots_are_copied_and_a_second_copy_moves_nothing() {
    let bench = two_repositories(3);
    let dry = copy(&bench, &["--dry-run", "--json"]).expect(0).last("summary");
    assert_eq!((&dry["snapshots_planned"], &dry["data_added"]), (&3.into(), &0.into()));
    let summary = copy(&bench, &["--json"]).expect(0).last("summary");
    assert_eq!((&summary["snapshots_copied"], &summary["snapshots_present"]), (&3.into(), &0.into()));
    assert!(summary["bytes_read"].as_u64() > Some(1_200_000), "{summary}");
    let originals = snapshots(bench.run(["snapshots", "--json"]));
    let copies = snapshots(in_other(&bench, &["snapshots", "--json"]));
    for ((id, origin), (copy, of)) in originals.iter().zip(&copies) {
        assert_eq!((origin, of.as_str()), (&Value::Null, Some(id.as_str())), "in the same order");
        assert_ne!(id, copy);
    }
    assert_restores_alike(&bench, 3);
    let again = copy(&bench, &["all", "--json"]).expect(0);
    let outcomes: Vec<Value> = again.lines().into_iter().filter(|line| line["type"] == "copy").collect();
    assert!(outcomes.len() == 3 && outcomes.iter().all(|line| line["outcome"] == "present"), "{again:?}");
    let summary = again.last("summary");
    for nothing in ["snapshots_copied", "chunks_read", "bytes_read", "data_added", "data_added_packed"] {
        assert_eq!(summary[nothing], 0, "{nothing}");
    }
    assert!(copy(&bench, &[]).expect(0).stdout.contains("Copied 0 snapshots, 3 there already"));
    // What comes later is all that the next copy reads.
    bench.write("src/later", noise(77, 60_000));
    bench.run(["backup", "src"]).expect(0);
    let summary = copy(&bench, &["--json"]).expect(0).last("summary");
    assert_eq!((&summary["snapshots_copied"], &summary["bytes_read"]), (&1.into(), &60_000.into()));
}

#[test]
fn snapshots_can_be_chosen() {
    let bench = two_repositories(3);
    bench.run(["backup", "--host", "web1", "--tag", "daily,db", "src"]).expect(0);
    let ids: Vec<String> =
        snapshots(bench.run(["snapshots", "--json"])).into_iter().map(|(id, _)| id).collect();
    assert!(copy(&bench, &["latest"]).expect(0).stdout.contains("Copied 1 snapshot,"));
    assert!(copy(&bench, &[&ids[1][..12]]).expect(0).stdout.contains(&ids[1][..8]));
    assert!(copy(&bench, &["--host", "web1"]).expect(0).stdout.contains("1 there already"));
    let none = copy(&bench, &["--domain", "shop"]).expect(0);
    assert!(none.stderr.contains("no snapshot has what"), "{none:?}");
    copy(&bench, &["latest", "--domain", "shop", "--json"]).expect(1);
    let unknown = copy(&bench, &["0000000000", "--json"]).expect(1);
    assert_eq!(unknown.last("error")["code"], "no-snapshot");
    copy(&bench, &["all", &ids[0]]).expect(2);
    copy(&bench, &[&ids[0], "--host", "web1"]).expect(2);
    assert_restores_alike(&bench, 2);
    // The one copied last is not the latest.
    let copies = snapshots(in_other(&bench, &["snapshots", "--json"]));
    assert_eq!([&copies[0].1, &copies[1].1], [ids[1].as_str(), ids[3].as_str()]);
    in_other(&bench, &["snapshots"]).expect(0);
}

#[test]
fn what_cannot_be_is_refused() {
    let bench = two_repositories(1);
    let same = bench.run(["copy", "--to", "./repo", "--json"]).expect(2).last("error");
    assert!(same["message"].as_str().is_some_and(|text| text.contains("same repository")), "{same}");
    bench.write("wrong", "not it");
    let wrong = bench.run(["copy", "--to", "other", "--to-password-file", "wrong"]).expect(12);
    assert!(wrong.message().contains("--to other"), "{wrong:?}");
    assert!(wrong.stderr.contains("--to-password-file gives"), "{wrong:?}");
    bench.run(["copy", "--to", "other"]).expect(12);
    bench.run(["copy", "--to", "nowhere"]).expect(10);
    bench.run(["copy"]).expect(2);
    let command = ["copy", "--to", "other", "--to-password-command", "cat other-password"];
    bench.run(command).expect(0);
    assert_restores_alike(&bench, 1);
}

#[test]
fn of_a_damaged_snapshot_nothing_is_committed() {
    let bench = two_repositories(1);
    let before = bench.objects("packs");
    bench.write("src/hit", noise(900, 300_000));
    bench.run(["backup", "src"]).expect(0);
    let packs = bench.objects("packs");
    let is_new = |path: &&std::path::PathBuf| !before.contains(path);
    let hit = packs.iter().filter(is_new).max_by_key(|path| fs::metadata(path).expect("a pack").len());
    let hit = hit.expect("a pack with the new file");
    let mut bytes = fs::read(hit).expect("a pack");
    bytes[1000] ^= 1;
    overwrite(hit, &bytes);
    fs::remove_file(bench.path("src/hit")).expect("removed");
    bench.run(["backup", "src"]).expect(0);
    let run = copy(&bench, &["--json"]).expect(4);
    let lines = run.lines();
    let outcomes: Vec<_> =
        lines.iter().filter(|line| line["type"] == "copy").map(|line| line["outcome"].clone()).collect();
    assert_eq!(outcomes, ["copied", "damaged", "copied"]);
    assert!(lines.iter().any(|line| line["code"] == "snapshot-damaged"), "{run:?}");
    assert_restores_alike(&bench, 2);
    // It stays so as long as it is damaged, and no other is copied again.
    let again = copy(&bench, &["--json"]).expect(4).last("summary");
    assert_eq!((&again["snapshots_present"], &again["snapshots_damaged"]), (&2.into(), &1.into()));
}

#[test]
fn a_copy_that_was_killed_is_completed_by_the_next() {
    let bench = two_repositories(2);
    bench.write("src/large", noise(5000, 40 << 20));
    bench.run(["backup", "src"]).expect(0);
    for tries in 1.. {
        let mut command: Command = bench.command();
        let mut child = command
            .args(TO)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary was built");
        let began = Instant::now();
        std::thread::sleep(Duration::from_millis(40 * tries));
        child.kill().expect("killed");
        let ended = child.wait().expect("ended");
        // Whatever there is holds.
        in_other(&bench, &["check", "--read-data"]).expect(0);
        if ended.success() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it never gets there");
    }
    let summary = copy(&bench, &["--json"]).expect(0).last("summary");
    assert_eq!(summary["snapshots_present"], 3, "{summary}");
    assert_restores_alike(&bench, 3);
}
