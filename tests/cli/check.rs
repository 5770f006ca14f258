//! `check`: no damage is 0, damage is 4 and named, no answer is 5.

use std::fs;

use crate::support::{Bench, overwrite};

fn backed_up() -> Bench {
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    bench
}

#[test]
fn a_new_repository_is_in_order() {
    let bench = Bench::new();
    bench.run(["check"]).expect(0);
    let summary = bench.run(["check", "--json"]).expect(0).last("summary");
    assert_eq!((&summary["num_errors"], &summary["cancelled"]), (&0.into(), &false.into()));
}

#[test]
fn a_broken_log_is_damage_though_the_repository_does_not_open() {
    let bench = Bench::new();
    let file = bench.write("new-password", "two");
    let mut add = bench.command();
    add.args(["key", "add", "--new-password-file"]).arg(file).args(crate::support::CHEAP);
    crate::support::Run::of(&mut add).expect(0);
    let first = bench.objects("log").remove(0);
    let mut bytes = fs::read(&first).expect("an entry");
    bytes[100] ^= 1;
    overwrite(&first, &bytes);
    // Looked at all the same, but nothing is written.
    let run = bench.run(["check", "--json"]).expect(4);
    assert!(run.lines().iter().any(|line| line["code"] == "log-damaged"), "{run:#?}");
    let run = bench.run(["snapshots"]).expect(4);
    assert!(run.stderr.contains("--ignore-log-damage"), "{run:#?}");
    let run = bench.run(["snapshots", "--ignore-log-damage"]).expect(0);
    assert!(run.stderr.contains("log entry 1"), "{run:#?}");
    bench.source();
    bench.run(["backup", "--ignore-log-damage", "src"]).expect(4);
}

#[test]
fn what_is_in_a_repository_with_a_broken_log_can_be_restored() {
    let bench = backed_up();
    bench.write("src/more", "more");
    bench.run(["backup", "src"]).expect(0);
    let second = &bench.objects("log")[1];
    fs::write(second, b"overwritten")
        .or_else(|_| {
            overwrite(second, b"overwritten");
            std::io::Result::Ok(())
        })
        .expect("damaged");
    bench.run(["restore", "latest", "-t", "out"]).expect(4);
    let what = format!("latest:{}", bench.path("src").canonicalize().expect("there").display());
    bench.run(["restore", "--ignore-log-damage", &what, "-t", "out", "--verify"]).expect(0);
    assert_eq!(fs::read(bench.path("out/more")).expect("restored"), b"more");
    assert_eq!(fs::read(bench.path("out/sub/c.o")).expect("restored"), b"object");
}

#[test]
fn a_commit_that_was_altered_is_told_by_every_command() {
    let bench = backed_up();
    bench.write("src/more", "more");
    bench.run(["backup", "src"]).expect(0);
    let last = bench.objects("log").pop().expect("a commit");
    let mut bytes = fs::read(&last).expect("readable");
    bytes[200] ^= 1;
    overwrite(&last, &bytes);
    for command in ["snapshots", "ls latest", "backup src", "restore latest -t out"] {
        let run = bench.run(command.split(' '));
        assert!(run.stderr.contains("log entry 3 does not count"), "{command}: {run:#?}");
    }
    // Also behind the backup just made: a snapshot is lost, until somebody says that they know.
    bench.run(["check"]).expect(4);
    bench.run(["repair", "log", "--accept-loss", "2"]).expect(1);
    bench.run(["repair", "log", "--accept-loss", "3"]).expect(0);
    bench.run(["check"]).expect(0);
    assert!(bench.run(["log"]).expect(0).stdout.contains("what log entry 3 said is lost"));
}

/// The machine that prunes, or a new one for a recovery, has not seen the commit as it was.
#[test]
fn what_would_make_the_loss_of_a_commit_final_is_refused_by_who_has_not_seen_it() {
    let bench = backed_up();
    bench.run(["-r", "other", "init"].into_iter().chain(crate::support::CHEAP)).expect(0);
    bench.write("src/more", "more");
    bench.run(["backup", "src"]).expect(0);
    let older = bench.run(["snapshots", "--json"]).expect(0).stdout;
    let older: serde_json::Value = serde_json::from_str(&older).expect("a list");
    let older = older[0]["id"].as_str().expect("an id").to_owned();
    let last = bench.objects("log").pop().expect("a commit");
    let mut bytes = fs::read(&last).expect("readable");
    bytes[200] ^= 1;
    overwrite(&last, &bytes);
    let packs = bench.objects("packs");
    let run = |line: &str, code: i32| {
        let run = bench.run(line.split(' ').chain(["--no-state", "-q"])).expect(code);
        assert!(run.stderr.contains("log entry 3 was a commit"), "{line}: {run:#?}");
        assert!(run.stderr.contains("repair log --accept-loss 3"), "{line}: {run:#?}");
        run
    };
    run("prune --grace 0s", 4);
    run("prune --dry-run", 4);
    run(&format!("forget {older}"), 4);
    run("restore latest -t out", 4);
    run("ls latest", 4);
    run("log --verify", 4);
    assert!(!bench.path("out").exists());
    run("snapshots", 3);
    run("copy --to other", 3);
    run(&format!("copy --to other {older}"), 0);
    run(&format!("restore {older} -t out"), 0);
    assert!(fs::read(bench.path("out/more")).is_err());
    run("backup src", 3);
    // The new one is the latest, and what the lost one needs still is not taken for unneeded.
    run("ls latest", 0);
    run("prune --grace 0s", 4);
    assert!(packs.iter().all(|pack| pack.exists()), "a pack is gone");
    bench.run(["repair", "log", "--accept-loss", "3", "--no-state"]).expect(0);
    for line in ["backup src", "prune --grace 0s", "ls latest", "log --verify", "check"] {
        let run = bench.run(line.split(' ').chain(["--no-state", "-q"])).expect(0);
        assert_eq!(run.stderr, "", "{line}");
    }
}

#[test]
fn a_lost_log_is_damage_for_a_check_as_for_all_others() {
    let bench = backed_up();
    for entry in bench.objects("log") {
        fs::remove_file(entry).expect("removed");
    }
    for command in ["snapshots", "check", "check --read-data", "check --no-state", "backup src"] {
        let run = bench.run(command.split(' ')).expect(4);
        assert!(!run.stdout.contains("No damage"), "{run:?}");
    }
    assert!(bench.run(["check"]).expect(4).stdout.contains("the log was lost"));
}

#[test]
fn a_commit_that_is_missing_in_between_is_no_end_of_the_log() {
    let bench = backed_up();
    bench.write("src/more", "more");
    bench.run(["backup", "src"]).expect(0);
    fs::remove_file(&bench.objects("log")[1]).expect("removed");
    for command in ["snapshots", "restore latest -t out", "backup src"] {
        bench.run(command.split(' ')).expect(4);
    }
}

#[test]
fn nobody_reading_the_output_does_not_change_the_exit_code() {
    let bench = backed_up();
    let pack = bench.objects("packs").remove(0);
    fs::remove_file(pack).expect("removed");
    for json in [false, true] {
        let mut command = bench.command();
        command.arg("check").args(json.then_some("--json")).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("started");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("ended").code(), Some(4));
    }
}

#[test]
fn a_lost_segment_is_named_with_the_files_it_hits() {
    let bench = backed_up();
    fs::remove_file(bench.objects("index").remove(0)).expect("removed");
    let run = bench.run(["check", "--json"]).expect(4);
    let codes: Vec<_> = run.lines().iter().map(|line| line["code"].clone()).collect();
    assert!(codes.contains(&"segment-missing".into()) && codes.contains(&"file-hit".into()), "{codes:?}");
}

#[test]
fn reading_all_data_counts_it() {
    let bench = backed_up();
    let summary = bench.run(["check", "--json", "--read-data"]).expect(0).last("summary");
    assert_eq!(summary["packs_read"], bench.objects("packs").len());
    assert!(summary["blobs_verified"].as_u64().expect("a number") >= 5);
    for subset in ["100%", "1/1", "5GiB"] {
        bench.run(["check", "--read-data-subset", subset]).expect(0);
    }
}

#[test]
fn what_was_verified_is_remembered() {
    let bench = backed_up();
    let packs = bench.objects("packs").len();
    let run = bench.run(["cat", "ledger"]).expect(1);
    assert!(run.stderr.contains("no ledger"), "{run:#?}");
    bench.run(["check", "--no-record"]).expect(0);
    bench.run(["cat", "ledger"]).expect(1);
    for left in (0..packs).rev() {
        let summary = bench.run(["check", "--json", "--budget", "1"]).expect(0).last("summary");
        assert_eq!((&summary["packs_read"], &summary["packs_never_read"]), (&1.into(), &left.into()));
        assert!(summary["oldest_read"]["time"].is_string(), "{summary}");
    }
    let summary = bench.run(["check", "--json", "--max-age", "30d"]).expect(0).last("summary");
    assert_eq!(summary["packs_read"], 0, "all were read just now");
    let summary =
        bench.run(["check", "--json", "--max-age", "30d", "--hashes-only"]).expect(0).last("summary");
    assert_eq!(summary["packs_read"], 0, "reading is more than hashing");
    let ledger = bench.run(["cat", "ledger", "--json"]).expect(0).lines().pop().expect("a line");
    let read =
        ledger["verified"].as_array().expect("a list").iter().filter(|entry| entry["method"] == "read");
    assert_eq!(read.count(), packs);
    assert!(bench.run(["log"]).expect(0).stdout.contains("verification ledger"));
    assert_eq!(bench.objects("ledger").len(), 1);
}

#[test]
fn a_repository_from_before_ledgers_gets_one() {
    let bench = backed_up();
    fs::remove_dir(bench.repository().join("ledger")).expect("an empty folder");
    bench.run(["check"]).expect(0);
    assert_eq!(bench.objects("ledger").len(), 1);
}

#[test]
fn a_flipped_bit_is_found_and_the_files_are_named() {
    let bench = backed_up();
    for pack in bench.objects("packs") {
        let good = fs::read(&pack).expect("a pack");
        let mut bad = good.clone();
        bad[90] ^= 1;
        overwrite(&pack, &bad);
        let run = bench.run(["check", "--json", "--read-data"]).expect(4);
        let name = pack.file_name().and_then(|name| name.to_str()).expect("hex");
        assert!(
            run.lines().iter().any(|line| line["type"] == "error"
                && line["object"].as_str().is_some_and(|object| object.contains(name))),
            "{run:#?}"
        );
        assert!(run.lines().iter().any(|line| line["code"] == "file-hit"), "{run:#?}");
        assert!(run.last("summary")["num_errors"].as_u64().expect("a number") >= 1);
        overwrite(&pack, &good);
    }
    bench.run(["check", "--read-data"]).expect(0);
}

#[test]
fn missing_objects_are_found_without_reading_data() {
    for folder in ["packs", "index"] {
        let bench = backed_up();
        fs::remove_file(bench.objects(folder).remove(0)).expect("removed");
        let run = bench.run(["check"]).expect(4);
        assert!(!run.stdout.is_empty() || !run.stderr.is_empty(), "{folder}");
    }
}
