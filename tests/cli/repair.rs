//! `repair`: from damage to a clean check, as a user would do it.

use std::fs;
use std::path::PathBuf;

use crate::support::{Bench, CHEAP, assert_same, noise, overwrite};

/// A repository with two snapshots of a source: a large file, and small ones that changed.
fn backed_up() -> Bench {
    let bench = Bench::new();
    bench.source();
    bench.write("src/large", noise(7, 3 << 20));
    bench.run(["backup", "src"]).expect(0);
    bench.write("src/a.txt", "alpha, later");
    bench.run(["backup", "src"]).expect(0);
    bench
}

fn largest_pack(bench: &Bench) -> PathBuf {
    let packs = bench.objects("packs").into_iter();
    packs.max_by_key(|pack| fs::metadata(pack).expect("a pack").len()).expect("packs")
}

fn flip(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("a pack");
    bytes[100] ^= 1;
    overwrite(path, &bytes);
}

fn copy(bench: &Bench, to: &str) -> PathBuf {
    let target = bench.path(to);
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(bench.repository())
        .arg(&target)
        .status()
        .expect("cp is there");
    assert!(status.success());
    target
}

fn restores(bench: &Bench, target: &str) {
    bench.run(["restore", "latest", "--target", target]).expect(0);
    let restored = bench.path(target).join(bench.path("src").strip_prefix("/").expect("absolute"));
    assert_same(&restored, &bench.path("src"));
}

#[test]
fn a_lost_index_is_rebuilt() {
    let bench = backed_up();
    for segment in bench.objects("index") {
        fs::remove_file(segment).expect("removed");
    }
    let run = bench.run(["check"]);
    assert_eq!(run.code, 4, "{run:?}");
    let dry = bench.run(["repair", "index", "--dry-run", "--json"]).expect(0).last("summary");
    assert_eq!((&dry["segments"], &dry["dry_run"]), (&0.into(), &true.into()));
    bench.run(["check"]).expect(4);
    let run = bench.run(["repair", "index"]).expect(0);
    assert!(run.stdout.contains("Rebuilt"), "{run:?}");
    bench.run(["check", "--read-data"]).expect(0);
    restores(&bench, "out");
}

#[test]
fn a_copy_heals_missing_and_damaged_packs() {
    let bench = backed_up();
    let copy = copy(&bench, "copy");
    flip(&largest_pack(&bench));
    let missing = bench.objects("packs").into_iter().find(|pack| *pack != largest_pack(&bench));
    fs::remove_file(missing.expect("several")).expect("removed");
    let run = bench.run(["check", "--read-data"]).expect(4);
    assert!(run.stdout.contains("repair --help"), "{run:?}");
    let from = ["--from", copy.to_str().expect("text")];
    let dry = bench.run(["repair", "packs", "--read-data", "--dry-run", "--json"].into_iter().chain(from));
    let dry = dry.expect(0).last("summary");
    assert_eq!((&dry["blobs_lost"], &dry["packs_damaged"]), (&0.into(), &2.into()), "{dry}");
    let run = bench.run(["repair", "packs", "--read-data", "--json"].into_iter().chain(from)).expect(0);
    let summary = run.last("summary");
    assert_eq!((&summary["packs_copied"], &summary["packs_dropped"]), (&1.into(), &1.into()), "{summary}");
    assert_eq!((&summary["blobs_lost"], &summary["num_errors"]), (&0.into(), &0.into()), "{summary}");
    assert!(summary["blobs_from_repository"].as_u64() > Some(0), "{summary}");
    assert_eq!(run.lines().iter().filter(|line| line["type"] == "pack").count(), 2);
    bench.run(["check", "--read-data"]).expect(0);
    restores(&bench, "out");
    bench.run(["prune", "--grace", "0s"]).expect(0);
    bench.run(["check", "--read-data"]).expect(0);
}

#[test]
fn live_files_heal_what_they_hold() {
    let bench = backed_up();
    flip(&largest_pack(&bench));
    let id = largest_pack(&bench);
    let id = id.file_name().and_then(|name| name.to_str()).expect("hex");
    let run = bench.run(["repair", "packs", id, "--from-source", "src"]).expect(0);
    assert!(run.stdout.contains("files that were backed up"), "{run:?}");
    bench.run(["check", "--read-data"]).expect(0);
    restores(&bench, "out");
    let run = bench.run(["repair", "packs", id]).expect(1);
    assert!(run.message().contains("not part of the index"), "{run:?}");
}

#[test]
fn what_is_lost_for_good_is_named_and_left_out() {
    let bench = backed_up();
    flip(&largest_pack(&bench));
    let run = bench.run(["repair", "packs", "--read-data"]).expect(4);
    assert!(run.stdout.contains("Lost:") && run.stdout.contains("--from-source"), "{run:?}");
    assert!(run.stdout.lines().any(|line| line.starts_with("hit: ") && line.ends_with("/src/large")));
    bench.run(["check", "--read-data"]).expect(4);

    let dry = bench.run(["repair", "snapshots", "--dry-run"]).expect(4);
    assert!(dry.stdout.contains("/src/large"), "{dry:?}");
    let run = bench.run(["repair", "snapshots", "--json"]).expect(4);
    assert_eq!(run.last("summary")["snapshots_left"], 2);
    let lost: Vec<_> = run.lines().into_iter().filter(|line| line["code"] == "entry-lost").collect();
    assert!(lost.len() == 2 && lost.iter().all(|line| line["kind"] == "file"), "{lost:?}");
    let summary = bench.run(["repair", "snapshots", "--forget", "--json"]).expect(3).last("summary");
    assert_eq!((&summary["snapshots_left"], &summary["snapshots_repaired"]), (&0.into(), &2.into()));
    bench.run(["check", "--read-data"]).expect(0);
    bench.run(["repair", "snapshots"]).expect(0);

    let list = bench.run(["snapshots", "--json"]).expect(0);
    let list: serde_json::Value = serde_json::from_str(&list.stdout).expect("an array");
    for snapshot in list.as_array().expect("an array") {
        assert_eq!(snapshot["repaired"]["entries_lost"], 1, "{snapshot}");
        assert_eq!(snapshot["tags"], serde_json::json!(["repaired"]));
    }
    let log = bench.run(["log"]).expect(0).stdout;
    assert!(log.contains("repaired as snapshot") && log.contains("/src/large"), "{log}");
    bench.run(["restore", "latest", "--target", "out"]).expect(0);
    let restored = bench.path("out").join(bench.path("src").strip_prefix("/").expect("absolute"));
    assert!(!restored.join("large").exists());
    assert_eq!(fs::read(restored.join("a.txt")).expect("a file"), b"alpha, later");
    // The next backup reads again what was left out.
    bench.run(["backup", "src"]).expect(0);
    restores(&bench, "again");
}

#[test]
fn bad_input_is_refused_by_name() {
    let bench = backed_up();
    let other = Bench::new();
    let foreign = other.repository();
    fs::remove_file(largest_pack(&bench)).expect("removed");
    let from = |place: &str| bench.run(["repair", "packs", "--from", place]);
    let run = from(foreign.to_str().expect("text")).expect(1);
    assert!(run.message().contains("other secrets"), "{run:?}");
    let run = from(bench.repository().to_str().expect("text")).expect(2);
    assert!(run.message().contains("is to be repaired"), "{run:?}");
    let run = from(bench.path("nowhere").to_str().expect("text")).expect(10);
    assert!(run.message().starts_with("--from "), "{run:?}");
    bench.write("other-password", "quite another\n");
    let init = ["-r", "other", "--password-file", "other-password", "init"];
    bench.run(init.into_iter().chain(CHEAP)).expect(0);
    let run = from("other").expect(12);
    assert!(run.stderr.contains("--from-password-file gives"), "{run:?}");
    bench.run(["repair", "packs", "3f"]).expect(2);
    bench.run(["repair", "packs", "--from-password-file", "x"]).expect(2);
    bench.run(["repair", "packs", "--from-source", "nowhere"]).expect(1);
    bench.run(["repair", "snapshots", "ffffffff"]).expect(1);
    bench.run(["repair"]).expect(2);
}

#[test]
fn a_snapshot_whose_log_entry_is_lost_is_found_again() {
    let bench = backed_up();
    let ids = |code: i32| -> Vec<String> {
        let list = bench.run(["snapshots", "--json", "--no-state"]).expect(code).stdout;
        let list: serde_json::Value = serde_json::from_str(&list).expect("an array");
        let list = list.as_array().expect("an array").iter();
        list.map(|snapshot| snapshot["id"].as_str().expect("an id").to_owned()).collect()
    };
    bench.write("src/large", noise(8, 3 << 20));
    bench.run(["backup", "src"]).expect(0);
    let before = ids(0);
    let entries = bench.objects("log");
    let last = entries.last().expect("an entry");
    flip(last);
    assert_eq!(ids(3), before[..2], "it is gone");
    let dry = bench.run(["repair", "lost-snapshots", "--dry-run", "--json"]).expect(0);
    assert_eq!(dry.last("summary")["snapshots_found"], 1);
    let lines = dry.lines();
    let found = lines.iter().find(|line| line["type"] == "found").expect("it is found");
    assert_eq!((&found["snapshot_id"], found["lacks"].is_null()), (&before[2].clone().into(), true));
    assert_eq!(ids(3), before[..2], "nothing was written");
    let none = bench.run(["repair", "lost-snapshots", "ffffffffffffffffffff", "--json"]).expect(0);
    assert_eq!(none.last("summary")["snapshots_found"], 0);
    let run = bench.run(["repair", "lost-snapshots"]).expect(0);
    assert!(run.stdout.contains("added again"), "{run:?}");
    assert_eq!(ids(3), before, "the loss itself is still to be dealt with");
    let number = entries.len().to_string();
    bench.run(["repair", "log", "--accept-loss", &number]).expect(0);
    assert_eq!(ids(0), before);
    bench.run(["check", "--read-data"]).expect(0);
    bench.run(["prune", "--grace", "0s"]).expect(0);
    restores(&bench, "out");
    // What is forgotten is not brought back.
    bench.run(["forget", &before[2]]).expect(0);
    let again = bench.run(["repair", "lost-snapshots", "--json"]).expect(0).last("summary");
    assert_eq!((&again["snapshots_found"], &again["snapshots_forgotten"]), (&0.into(), &1.into()));
}

/// A log that has lost its end looks whole: only who remembers it knows of the loss.
#[test]
fn what_no_loss_accounts_for_is_only_shown() {
    let bench = backed_up();
    let ids = || -> Vec<String> {
        let list = bench.run(["snapshots", "--json", "--no-state"]).expect(0).stdout;
        let list: serde_json::Value = serde_json::from_str(&list).expect("an array");
        let list = list.as_array().expect("an array").iter();
        list.map(|snapshot| snapshot["id"].as_str().expect("an id").to_owned()).collect()
    };
    let before = ids();
    fs::remove_file(bench.objects("log").last().expect("an entry")).expect("removed");
    let run = bench.run(["repair", "lost-snapshots", "--no-state", "--json"]).expect(0);
    let lines = run.lines();
    let found = lines.iter().find(|line| line["type"] == "found").expect("it is found");
    assert_eq!((&found["snapshot_id"], &found["added"]), (&before[1].clone().into(), &false.into()));
    assert!(found["withheld"].as_str().is_some_and(|why| why.contains("shows no loss")), "{found}");
    let summary = run.last("summary");
    assert_eq!((&summary["snapshots_withheld"], summary["commit"].is_null()), (&1.into(), true));
    let run = bench.run(["repair", "lost-snapshots", "--no-state"]).expect(0);
    assert!(run.stdout.contains("only added if its id is given"), "{run:?}");
    assert_eq!(ids(), before[..1]);
    // By its name it is, whoever asks; by a client that remembers the entry without that.
    let dry = ["repair", "lost-snapshots", "--no-state", "--dry-run", &before[1][..12]];
    assert!(bench.run(dry).expect(0).stdout.contains("can be added again"));
    let run = bench.run(["repair", "lost-snapshots"]).expect(0);
    assert!(run.stdout.contains("adds 1 snapshot"), "{run:?}");
    assert_eq!(ids(), before);
}
