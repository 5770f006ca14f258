//! `forget`, `snapshot hold` and `snapshot release`, and which snapshots `snapshots` lists.

use serde_json::Value;

use crate::support::{Bench, Run};

/// A repository with so many snapshots of one source, a day apart.
fn days(count: u32) -> Bench {
    let bench = Bench::new();
    let source = bench.source();
    for day in 1..=count {
        bench.write("src/a.txt", format!("day {day}"));
        let time = format!("2026-01-{day:02}T12:00:00Z");
        let mut backup = bench.command();
        Run::of(backup.arg("backup").arg(&source).args(["--time", &time])).expect(0);
    }
    bench
}

fn ids(bench: &Bench) -> Vec<String> {
    let list: Value =
        serde_json::from_str(&bench.run(["snapshots", "--json"]).expect(0).stdout).expect("JSON");
    let list = list.as_array().expect("an array");
    list.iter().map(|snapshot| snapshot["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_policy_says_why_and_forgets() {
    let bench = days(5);
    let before = ids(&bench);
    let run = bench.run(["forget", "--keep-daily", "2", "--dry-run", "--explain"]).expect(0);
    assert_eq!(run.stdout.matches("  keep ").count(), 2, "{run:?}");
    assert!(run.stdout.contains("keep-daily 2 (day 2)") && run.stdout.contains("Would forget 3"), "{run:?}");
    assert_eq!(ids(&bench), before);

    let run = bench.run(["forget", "--keep-daily", "2", "--json"]).expect(0);
    let lines = run.lines();
    let verdicts: Vec<_> = lines.iter().filter(|line| line["type"] == "verdict").collect();
    assert_eq!(verdicts.len(), 5);
    assert_eq!(verdicts[0]["reasons"][0], "no rule keeps it");
    let summary = run.last("summary");
    assert_eq!((&summary["snapshots_kept"], &summary["snapshots_forgotten"]), (&2.into(), &3.into()));
    assert_eq!(ids(&bench), before[3..]);
    let log = bench.run(["log"]).expect(0).stdout;
    assert!(log.contains("no rule keeps it (keep-daily 2; grouped by host,paths)"), "{log}");
    bench.run(["check", "--read-data"]).expect(0);
}

#[test]
fn holds_are_listed_and_respected() {
    let bench = days(2);
    let id = ids(&bench).remove(0);
    bench.run(["snapshot", "hold", id.as_str(), "--reason", "audit"]).expect(0);
    assert!(bench.run(["snapshots"]).expect(0).stdout.contains("(held)"));
    let run = bench.run(["forget", id.as_str(), "--json"]).expect(1);
    assert_eq!(run.last("error")["code"], "snapshot-held");
    bench.run(["forget", "--keep-last", "1"]).expect(0);
    assert_eq!(ids(&bench).len(), 2);
    let released = bench.run(["snapshot", "release", id.as_str(), "--reason", "done", "--json"]).expect(0);
    assert!(released.last("summary")["commit"].is_u64());
    bench.run(["snapshot", "release", id.as_str(), "--reason", ""]).expect(2);
    bench.run(["forget", id.as_str()]).expect(0);
    assert_eq!(ids(&bench).len(), 1);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let bench = days(3);
    let before = ids(&bench);
    bench.run(["forget"]).expect(2);
    bench.run(["forget", "--keep-last", "0"]).expect(2);
    bench.run(["forget", "--keep-last", "1", before[0].as_str()]).expect(2);
    bench.run(["forget", "--keep-within", "5 days"]).expect(2);
    bench.run(["forget", "ffffffff"]).expect(1);
    let run = bench.run(["forget", "--keep-tag", "none"]).expect(1);
    assert!(run.stderr.contains("--allow-empty"), "{run:?}");
    assert_eq!(ids(&bench), before);
    let run = bench.run(["forget", "--keep-id", before[0].as_str(), "--json"]).expect(1);
    assert_eq!(run.last("error")["code"], "forgets-newest");
    assert_eq!(ids(&bench), before);
    let dry = ["forget", "--keep-id", before[0].as_str(), "--allow-newest", "-n"];
    assert!(bench.run(dry).expect(0).stdout.contains("Would forget 2 snapshots"));

    // A snapshot committed last that says it is the oldest.
    let source = bench.path("src");
    let mut backup = bench.command();
    Run::of(backup.arg("backup").arg(&source).args(["--time", "2025-06-01"])).expect(0);
    let run = bench.run(["forget", "--keep-daily", "2"]).expect(1);
    assert!(run.message().contains(&before[2]) && run.stderr.contains("--trust-times"), "{run:?}");
    bench.run(["forget", "--keep-last", "2", "-n"]).expect(0);
    bench.run(["forget", "--keep-daily", "2", "--trust-times"]).expect(0);
    assert_eq!(ids(&bench), before[1..]);
    bench.run(["forget", before[1].as_str(), before[2].as_str()]).expect(1);
    bench.run(["forget", before[1].as_str(), before[2].as_str(), "--allow-empty"]).expect(0);
}

#[test]
fn a_clock_that_leaps_ahead_takes_nothing_that_was_before() {
    let bench = Bench::new();
    bench.source();
    let back_up = |time: &[&str]| {
        bench.write("src/a.txt", format!("{time:?}"));
        bench.run([&["backup", "src"], time].concat()).expect(0);
    };
    for day in ["2015-01-01", "2015-01-02", "2015-01-03"] {
        back_up(&["--time", day]);
    }
    back_up(&[]);
    let all = ids(&bench);
    let policy = ["forget", "--keep-within", "1m", "--keep-within-weekly", "1y"];
    let run = bench.run([&policy[..], &["--json"]].concat()).expect(1);
    let error = run.last("error");
    assert_eq!((&error["code"], &error["snapshot_id"]), (&"times-jump".into(), &all[3].as_str().into()));
    assert!(error["hint"].as_str().expect("a hint").contains("2015-01-03"), "{error}");
    assert_eq!(ids(&bench), all);
    bench.run([&policy[..], &["--trust-times"]].concat()).expect(0);
    assert_eq!(ids(&bench), all[3..]);
    bench.run(policy).expect(0);
}

#[test]
fn a_host_with_a_wrong_clock_stops_nobody_else() {
    let bench = days(4);
    let before = ids(&bench);
    let back_up = |host: &str, time: &str| {
        bench.write("src/a.txt", format!("{host} {time}"));
        let mut backup = bench.command();
        Run::of(backup.args(["backup", "src", "--host", host, "--time", time])).expect(0);
    };
    back_up("ahead", "2099-01-01");
    back_up("behind", "2025-02-02");
    back_up("behind", "2025-02-01");
    let all = ids(&bench);
    let policy = ["forget", "--keep-daily", "2"];
    let dry = bench.run([&policy[..], &["-n", "--explain"]].concat()).expect(3);
    let untrusted = "the times of its group cannot be trusted";
    assert_eq!(dry.stdout.matches(untrusted).count(), 3, "{dry:?}");
    assert!(dry.stdout.contains("Would forget 2 snapshots, keeping 5"), "{dry:?}");
    assert_eq!(ids(&bench), all);

    let run = bench.run([&policy[..], &["--json"]].concat()).expect(3);
    let lines = run.lines();
    let told = |code: &str| {
        let mut errors = lines.iter().filter(|line| line["type"] == "error" && line["code"] == code);
        let error = errors.next().unwrap_or_else(|| panic!("{code}: {lines:#?}"));
        assert!(errors.next().is_none() && error["hint"].is_string() && error.get("exit_code").is_none());
        (error["group"].as_str().expect("text").to_owned(), error["snapshot_id"].clone())
    };
    let (group, snapshot) = told("times-future");
    assert!(group.starts_with("host ahead; ") && snapshot == all[4].as_str(), "{group} {snapshot}");
    let (group, snapshot) = told("times-backwards");
    assert!(group.starts_with("host behind; ") && snapshot == all[6].as_str(), "{group} {snapshot}");
    let kept = lines.iter().filter(|line| line["type"] == "verdict" && line["reasons"][0] == untrusted);
    assert!(kept.clone().count() == 3 && kept.clone().all(|verdict| verdict["keep"] == true), "{lines:#?}");
    let summary = run.last("summary");
    let counts =
        ["groups", "groups_refused", "snapshots_kept", "snapshots_forgotten"].map(|name| &summary[name]);
    assert_eq!(counts, [3, 2, 5, 2]);
    let left = [&before[2..], &all[4..]].concat();
    assert_eq!(ids(&bench), left);

    // Where nothing else is looked at, nothing is decided.
    let run = bench.run([&policy[..], &["--host", "ahead", "--host", "behind"]].concat()).expect(1);
    assert!(run.stderr.contains("host ahead") && run.stderr.contains("host behind"), "{run:?}");
    assert!(!run.stdout.contains("Forgot"), "{run:?}");
    let run = bench.run([&policy[..], &["--host", "ahead", "--json"]].concat()).expect(1);
    let error = run.last("error");
    assert_eq!((&error["exit_code"], &error["snapshot_id"]), (&1.into(), &all[4].as_str().into()));
    assert_eq!(ids(&bench), left);
    // What the errors say helps.
    bench.run([&policy[..], &["--host", "behind", "--trust-times"]].concat()).expect(0);
    bench.run(["forget", all[4].as_str(), "--allow-empty"]).expect(0);
    bench.run([&policy[..], &["--host", "ahead"]].concat()).expect(0);
}

#[test]
fn a_snapshot_that_is_named_but_not_chosen_is_an_error() {
    let bench = days(2);
    let before = ids(&bench);
    let run = bench.run(["forget", before[0].as_str(), "--host", "another"]).expect(1);
    assert!(run.message().contains(&before[0]) && run.stderr.contains("--host"), "{run:?}");
    let run = bench.run(["forget", before[0].as_str(), "--tag", "t", "-n", "--json"]).expect(1);
    assert_eq!(run.last("error")["code"], "snapshot-not-chosen");
    assert_eq!(ids(&bench), before);
}

#[test]
fn snapshots_are_listed_by_host_tag_and_path() {
    let bench = Bench::new();
    let source = bench.source().canonicalize().expect("there");
    let other = bench.write("other/x", "x").canonicalize().expect("there");
    for (host, tags, path) in [("a", "day,all", &source), ("b", "day", &source), ("a", "all", &other)] {
        let mut backup = bench.command();
        Run::of(backup.arg("backup").arg(path).args(["--host", host, "--tag", tags])).expect(0);
    }
    let all = ids(&bench);
    let listed = |args: &[&str]| -> Vec<usize> {
        let run = bench.run([&["snapshots", "--json"], args].concat()).expect(0);
        assert_eq!(run.stderr, "");
        let list: Vec<Value> = serde_json::from_str(&run.stdout).expect("JSON");
        let place = |one: &Value| all.iter().position(|id| *id == one["id"]).expect("one of them");
        list.iter().map(place).collect()
    };
    assert_eq!(listed(&["--host", "a"]), [0, 2]);
    assert_eq!(listed(&["--host", "a", "--host", "b"]), [0, 1, 2]);
    assert_eq!(listed(&["--tag", "day,all"]), [0]);
    assert_eq!(listed(&["--tag", "day", "--tag", "all"]), [0, 1, 2]);
    assert_eq!(listed(&["--path", source.to_str().expect("text")]), [0, 1]);
    assert_eq!(listed(&["--path", source.to_str().expect("text"), "--host", "b"]), [1]);
    assert_eq!(listed(&["--last", "2"]), [1, 2]);
    assert_eq!(listed(&["--tag", "day", "--last", "1"]), [1]);
    assert_eq!(listed(&["--last", "9"]), [0, 1, 2]);
    assert_eq!(bench.run(["snapshots", "--json", "--host", "c"]).expect(0).stdout, "[]\n");
    let none = bench.run(["snapshots", "--host", "c", "--last", "1"]).expect(0);
    assert_eq!(none.stdout, "");
    assert!(none.stderr.contains("no snapshot has what --host"), "{none:?}");
    let zero = bench.run(["snapshots", "--last", "0"]).expect(2);
    assert!(zero.stderr.contains("--last"), "{zero:?}");
}
