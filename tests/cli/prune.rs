//! `prune`: what it frees, and what it says.

use crate::support::{Bench, Run, noise};

/// A repository with two snapshots of one file that changed wholly.
fn two_snapshots() -> Bench {
    let bench = Bench::new();
    for seed in 1..=2 {
        let file = bench.write("src/file", noise(seed, 300_000));
        bench.run([std::ffi::OsStr::new("backup"), file.as_os_str()]).expect(0);
    }
    bench
}

#[test]
fn forget_and_prune_give_space_back() {
    let bench = two_snapshots();
    bench.run(["forget", "--keep-last", "1"]).expect(0);
    let dry = bench.run(["prune", "--dry-run", "--json"]).expect(0).last("summary");
    assert_eq!((&dry["packs_removed"], &dry["dry_run"]), (&0.into(), &true.into()));
    let dead = dry["packs_unneeded_bytes"].as_u64().expect("a number");
    assert!(dead > 300_000, "{dry}");
    let before = bench.objects("packs").len();
    assert_eq!(dry["packs_waiting"], dry["packs_condemned"], "{dry}");
    let run = bench.run(["prune"]).expect(0);
    assert!(run.stdout.contains("to be deleted by a later run"), "{run:?}");
    assert_eq!(bench.objects("packs").len(), before, "24 hours are not over");
    let summary = bench.run(["prune", "--grace", "0s", "--json"]).expect(0).last("summary");
    assert!(summary["packs_removed_bytes"].as_u64() >= Some(dead), "{summary}");
    assert!(bench.objects("packs").len() < before);
    bench.run(["check", "--read-data"]).expect(0);
    bench.run(["restore", "latest", "--target", "restored"]).expect(0);
    let log = bench.run(["log"]).expect(0).stdout;
    assert!(log.contains("packs condemned") && log.contains("packs removed"), "{log}");
}

#[test]
fn both_steps_fit_into_one_run() {
    let bench = two_snapshots();
    bench.run(["forget", "--keep-last", "1"]).expect(0);
    let summary = bench.run(["prune", "--grace", "0s", "--json"]).expect(0).last("summary");
    assert_eq!(summary["packs_condemned"], summary["packs_removed"]);
    assert_eq!(summary["packs_waiting"], 0);
    bench.run(["check", "--read-data"]).expect(0);
}

/// Bytes of packs, index and their parity.
fn stored(bench: &Bench) -> i64 {
    let files = ["packs", "index", "parity"].into_iter().flat_map(|folder| bench.objects(folder));
    let bytes: u64 = files.map(|file| std::fs::metadata(file).expect("a file").len()).sum();
    i64::try_from(bytes).expect("small")
}

#[test]
fn a_dry_run_says_to_the_byte_what_a_run_frees() {
    for grace in ["0s", "1d"] {
        let bench = two_snapshots();
        bench.run(["forget", "--keep-last", "1"]).expect(0);
        let prune = ["prune", "--grace", grace, "--max-unused", "unlimited"];
        let text = bench.run([&prune[..], &["-n"]].concat()).expect(0).stdout;
        let told = text.lines().find(|line| line.starts_with("To be "));
        assert!(told.is_some_and(|told| !told.contains("about")), "nothing is rewritten: {text}");
        let dry = bench.run([&prune[..], &["-n", "--json"]].concat()).expect(0).last("summary");
        let before = stored(&bench);
        let real = bench.run([&prune[..], &["--json"]].concat()).expect(0).last("summary");
        assert_eq!(real["bytes_freed"], before - stored(&bench), "{real}");
        let same = |name: &&String| !["dry_run", "total_duration"].contains(&name.as_str());
        let names: Vec<_> = real.as_object().expect("fields").keys().filter(same).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            assert_eq!(dry[name], real[name], "{name} with --grace {grace}");
        }
        assert_eq!(real["is_estimate"], false);
        assert_eq!(real["bytes_freed"].as_i64() > Some(300_000), grace == "0s", "{real}");
    }
}

#[test]
fn a_damaged_repository_is_not_pruned() {
    let bench = two_snapshots();
    bench.run(["forget", "--keep-last", "1"]).expect(0);
    for pack in bench.objects("packs") {
        std::fs::remove_file(pack).expect("removed");
    }
    let run = bench.run(["prune", "--json"]).expect(4);
    assert!(run.last("error")["hint"].is_string(), "{run:?}");
    let mut wrong = bench.command();
    Run::of(wrong.args(["prune", "--max-unused", "101%"])).expect(2);
}
