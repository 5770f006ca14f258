//! What a client remembers of repositories: logs that lost their end, and other repositories in their place.

use std::fs;
use std::path::Path;

use crate::support::{Bench, Run};

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// Puts an older copy of the repository in its place.
fn set_back(bench: &Bench) {
    fs::remove_dir_all(bench.repository()).expect("removed");
    copy(&bench.path("older"), &bench.repository());
}

/// A repository with two snapshots, and a copy of it from when it had one.
fn with_older_copy() -> Bench {
    let bench = Bench::new();
    let source = bench.source();
    bench.run(["backup".as_ref(), source.as_os_str()]).expect(0);
    copy(&bench.repository(), &bench.path("older"));
    bench.write("src/new", "new");
    bench.run(["backup".as_ref(), source.as_os_str()]).expect(0);
    bench
}

#[test]
fn a_repository_that_was_set_back_is_refused_until_that_is_accepted() {
    let bench = with_older_copy();
    let newer = bench.run(["log", "head"]).expect(0).stdout;
    set_back(&bench);
    for command in [["snapshots"].as_slice(), &["log"], &["prune"], &["repair", "index"], &["log", "head"]] {
        let run = bench.run(command).expect(4);
        let seq = newer.split(':').next().expect("a number");
        assert!(run.message().contains(&format!("commit {seq} was seen before")), "{run:?}");
        assert!(run.message().contains(newer.trim()), "{run:?}");
        assert!(run.stderr.contains("log head --accept") && run.stdout.is_empty(), "{run:?}");
    }
    let failure = bench.run(["snapshots", "--json"]).expect(4).last("error");
    assert_eq!(failure["code"], "log-rolled-back");
    // A check looks at what there is, and says that it is too little; it does not write to it.
    let run = bench.run(["check"]).expect(4);
    assert!(
        run.stdout.contains("The repository is damaged") && run.message().contains("commits are gone"),
        "{run:?}"
    );
    let summary = bench.run(["check", "--json"]).expect(4).lines();
    assert!(summary.iter().any(|line| line["type"] == "summary" && line["num_errors"] == 1), "{summary:?}");
    // To look at it is one thing, to go on with it another.
    bench.run(["snapshots", "--no-state"]).expect(0);
    Run::of(bench.command().arg("snapshots").env("STRONGROOM_NO_STATE", "1")).expect(0);
    bench.run(["snapshots"]).expect(4);
    let older = bench.run(["log", "head", "--accept"]).expect(0).stdout;
    assert_ne!(older, newer);
    assert_eq!(bench.run(["log", "head"]).expect(0).stdout, older);
    bench.run(["check"]).expect(0);
}

#[test]
fn another_history_of_the_same_length_is_refused() {
    let bench = with_older_copy();
    set_back(&bench);
    // Somebody who remembers nothing goes on from there.
    let source = bench.write("src/other", "other");
    for _ in 0..3 {
        Run::of(bench.command().arg("backup").arg(&source).env("STRONGROOM_NO_STATE", "1")).expect(0);
    }
    let run = bench.run(["snapshots", "--json"]).expect(4);
    assert_eq!(run.last("error")["code"], "log-other-history", "{run:?}");
    assert!(run.last("error")["message"].as_str().expect("text").contains("another history"), "{run:?}");
}

#[test]
fn a_head_that_is_kept_elsewhere_tells_those_who_have_seen_nothing() {
    let bench = with_older_copy();
    let head = bench.run(["log", "head"]).expect(0).stdout;
    let json = bench.run(["log", "head", "--json"]).expect(0).last("summary");
    assert_eq!(json["line"].as_str().expect("text"), head.trim());
    assert!(bench.run(["log", "--verify"]).expect(0).stdout.contains(json["head"].as_str().expect("a hash")));
    let expecting = |head: &str| {
        let mut command = bench.command();
        Run::of(command.args(["check", "--no-state", "--expect-head", head]))
    };
    expecting(head.trim()).expect(0);
    let source = bench.source();
    bench.run(["backup".as_ref(), source.as_os_str()]).expect(0);
    expecting(head.trim()).expect(0);
    set_back(&bench);
    let run = expecting(head.trim()).expect(4);
    assert!(run.message().contains("commits are gone"), "{run:?}");
    let wrong = format!("1:{}", "0".repeat(64));
    assert!(expecting(&wrong).expect(4).message().contains("another history"));
    for no_head in ["", "1", "x:y", "0:00"] {
        expecting(no_head).expect(2);
    }
}

/// Memory is a help: nothing fails for the lack of it.
#[test]
fn nothing_fails_for_a_state_directory_that_cannot_be_used() {
    let bench = Bench::new();
    let source = bench.source();
    let file = bench.write("a-file", "");
    let with_state = |state: &Path| {
        let mut command = bench.command();
        command.env("STRONGROOM_STATE_DIR", state);
        command
    };
    let run = Run::of(with_state(&file.join("below")).arg("backup").arg(&source)).expect(0);
    assert!(run.stderr.contains("warning: cannot"), "{run:?}");
    // What could not be remembered is known when all else is done, and told before the last line.
    let run = Run::of(with_state(&file.join("below")).args(["backup", "--json"]).arg(&source)).expect(0);
    let warning = run.lines().into_iter().find(|line| line["type"] == "warning").expect("told");
    assert!(warning["message"].as_str().expect("text").starts_with("cannot "), "{warning}");
    assert_eq!((run.last("summary")["dry_run"].clone(), run.stderr.as_str()), (false.into(), ""));
    let run = Run::of(with_state(&file).args(["snapshots", "--json"])).expect(0);
    assert!(run.stderr.contains("warning: cannot") && run.stdout.starts_with('['), "{run:?}");
    // It is asked for by name, then.
    Run::of(with_state(&file).args(["log", "head", "--accept"])).expect(1);
    Run::of(bench.command().args(["log", "head", "--accept", "--no-state"])).expect(2);
}

#[test]
fn state_goes_where_the_specification_of_base_directories_says() {
    let bench = Bench::new();
    let head = bench.run(["log", "head"]).expect(0).stdout;
    let with = |name: &str, value: &Path| {
        let mut command = bench.command();
        command
            .env_remove("STRONGROOM_STATE_DIR")
            .env_remove("XDG_STATE_HOME")
            .env("HOME", bench.path("home"));
        Run::of(command.env(name, value).arg("snapshots")).expect(0);
    };
    let is_noted = |state: &str| {
        let folder = bench.path(state).join("heads");
        let repositories = fs::read_dir(&folder).map(|entries| entries.count()).unwrap_or_default();
        repositories == 1 && head.len() > 64
    };
    with("TZ", Path::new("UTC"));
    assert!(is_noted("home/.local/state/strongroom"));
    with("XDG_STATE_HOME", &bench.path("xdg"));
    assert!(is_noted("xdg/strongroom"));
    with("XDG_STATE_HOME", Path::new("relative"));
    assert!(!bench.path("relative").exists(), "the specification wants such a path ignored");
    with("STRONGROOM_STATE_DIR", &bench.path("chosen"));
    assert!(is_noted("chosen"));
}
