//! `log`: the audit trail, and that it cannot be bent unnoticed.

use std::fs;

use crate::support::{Bench, CHEAP, Run, noise, overwrite};

/// A repository with three commits.
fn three_commits() -> Bench {
    let bench = Bench::new();
    for password in ["two", "three"] {
        let file = bench.write("new-password", password);
        let mut add = bench.command();
        add.args(["key", "add", "--label", password]).arg("--new-password-file").arg(file).args(CHEAP);
        Run::of(&mut add).expect(0);
    }
    bench
}

#[test]
fn every_commit_is_told_with_who_when_and_what() {
    let bench = three_commits();
    let lines = bench.run(["log", "--json"]).expect(0).lines();
    assert_eq!(lines.len(), 3);
    for (seq, line) in (1..).zip(&lines) {
        assert_eq!(line["type"], "commit");
        assert_eq!(line["seq"], seq);
        assert_eq!(line["changes"][0]["change"], "keyslot_added");
        let time = line["time"].as_str().expect("a time");
        assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
        for name in ["hostname", "username", "program_version", "writer", "hash"] {
            assert!(line[name].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        }
    }
    assert_eq!(lines[1]["hash"], lines[2]["previous"]);
    let run = bench.run(["log"]).expect(0);
    assert!(run.stdout.contains("(three)"), "{run:?}");
}

#[test]
fn a_log_in_order_ends_in_its_head() {
    let bench = three_commits();
    let summary = bench.run(["log", "--verify", "--json"]).expect(0).last("summary");
    assert_eq!((&summary["commits"], &summary["void_entries"]), (&3.into(), &0.into()));
    let last = bench.run(["log", "--json"]).expect(0).lines().pop().expect("commits");
    assert_eq!(summary["head"], last["hash"]);
    let run = bench.run(["log", "--verify"]).expect(0);
    assert!(run.stdout.contains(summary["head"].as_str().expect("a hash")), "{run:?}");
}

#[test]
fn a_missing_entry_is_damage() {
    let bench = three_commits();
    let entry = bench.objects("log").remove(1);
    fs::remove_file(entry).expect("removed");
    // Commits 1 and 3 are there: what opens the repository may stop at 1, the verification may not.
    let run = bench.run(["log", "--verify"]).expect(4);
    assert!(run.message().contains("commit 2"), "{run:?}");
}

#[test]
fn an_altered_entry_in_the_middle_is_damage() {
    let bench = three_commits();
    let entry = bench.objects("log").remove(1);
    let mut bytes = fs::read(&entry).expect("an entry");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(&entry, &bytes);
    let run = bench.run(["log", "--verify", "--json"]).expect(4);
    assert_eq!(run.last("error")["code"], "log-damaged");
}

#[test]
fn a_void_entry_at_the_end_is_reported() {
    let bench = three_commits();
    let entry = bench.repository().join("log").join(format!("{:020}", 4));
    fs::write(entry, b"no commit at all").expect("written");
    let run = bench.run(["log", "--verify", "--json"]).expect(0);
    let lines = run.lines();
    let warning = lines.iter().find(|line| line["code"] == "log-void").expect("it is told");
    assert_eq!((&warning["type"], &warning["seq"]), (&"warning".into(), &4.into()));
    let summary = run.last("summary");
    assert_eq!((&summary["commits"], &summary["void_entries"]), (&3.into(), &1.into()));
    for args in [&["log", "--json"][..], &["log", "--verify", "--json"]] {
        let told = bench.run(args.iter().copied()).expect(0).stdout;
        assert_eq!(told.matches("log entry 4 does not count").count(), 1, "{told}");
    }
    let text = bench.run(["log"]).expect(0);
    assert!(text.stdout.contains("     4  void: ") && !text.stderr.contains("does not count"), "{text:?}");
    let head = bench.run(["log", "head"]).expect(0);
    assert!(head.stderr.contains("log entry 4 does not count"), "it shows no entries: {head:?}");
    // Where the log is not what was seen before, none of its entries are shown.
    let (rest, last) = head.stdout.trim().split_at(head.stdout.trim().len() - 1);
    let other = format!("{rest}{}", if last == "0" { "1" } else { "0" });
    let unexpected = bench.run(["log", "--expect-head", &other]).expect(4);
    assert_eq!(unexpected.stderr.matches("log entry 4 does not count").count(), 1, "{unexpected:?}");
}

/// A stream of more than 8 MiB cannot be read again: its backup says when it is at work and when it has ended.
#[test]
fn a_backup_at_work_is_told_in_words() {
    let bench = Bench::new();
    let dump = bench.write("dump", noise(7, 10 << 20));
    let mut backup = bench.command();
    backup.args(["backup", "--stdin-filename", "dump"]).stdin(fs::File::open(dump).expect("there"));
    Run::of(&mut backup).expect(0);
    let run = bench.run(["log"]).expect(0);
    for words in ["a backup is at work", "the backup of entry 2 has ended"] {
        assert!(run.stdout.contains(words), "{words}: {run:?}");
    }
    assert!(!run.stdout.contains("note of kind"), "{run:?}");
}
