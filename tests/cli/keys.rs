//! `key`: passwords come, change and go.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{Bench, CHEAP, PASSWORD, Run, noise, overwrite};

fn with(bench: &Bench, password: &str) -> Command {
    let mut command = bench.command();
    command.env("STRONGROOM_PASSWORD", password);
    command
}

fn list(bench: &Bench, password: &str) -> Vec<Value> {
    let run = Run::of(with(bench, password).args(["key", "list", "--json"])).expect(0);
    serde_json::from_str(&run.stdout).expect("a JSON array")
}

fn new_password(bench: &Bench, verb: &str, password: &str) -> Run {
    let file = bench.write("new-password", format!("{password}\n"));
    let mut command = bench.command();
    Run::of(command.args(["key", verb]).arg("--new-password-file").arg(file).args(CHEAP))
}

#[test]
fn a_second_password_opens_too_until_it_is_removed() {
    let bench = Bench::new();
    let file = bench.write("escrow", "battery staple");
    let mut add = bench.command();
    add.args(["key", "add", "--label", "escrow", "--json"]).arg("--new-password-file").arg(file).args(CHEAP);
    let id = Run::of(&mut add).expect(0).last("summary")["id"].as_str().expect("an id").to_owned();
    let keyslots = list(&bench, "battery staple");
    assert_eq!(keyslots.len(), 2);
    assert_eq!(keyslots[1]["id"], *id);
    assert_eq!(keyslots[1]["label"], "escrow");
    assert_eq!((&keyslots[0]["current"], &keyslots[1]["current"]), (&false.into(), &true.into()));
    bench.run(["key", "remove", &id[..8]]).expect(0);
    Run::of(with(&bench, "battery staple").arg("snapshots")).expect(12);
    assert_eq!(list(&bench, PASSWORD).len(), 1);
}

#[test]
fn a_keyslot_that_takes_more_memory_than_may_be_taken_is_refused_by_name() {
    let bench = Bench::empty();
    let costly = ["--kdf-memory", "100MiB", "--kdf-passes", "2"];
    let run = bench.run(["init", "--memory", "80MiB"].iter().chain(&costly)).expect(2);
    assert!(run.message().contains("102400 KiB") && run.message().contains("65536 KiB"), "{run:?}");
    assert!(!bench.repository().exists(), "nothing was made");
    bench.run(["init"].iter().chain(&costly)).expect(0);
    let id = list(&bench, PASSWORD)[0]["id"].as_str().expect("an id").to_owned();

    let run = bench.run(["snapshots", "--memory", "115MiB"]).expect(2);
    assert!(run.message().contains(&id) && run.message().contains("102400 KiB"), "{run:?}");
    assert!(run.stderr.contains("`--memory 116MiB`"), "{run:?}");
    assert_eq!(
        bench.run(["snapshots", "--json", "--memory", "115MiB"]).expect(2).last("error")["code"],
        "kdf-memory"
    );
    bench.run(["snapshots", "--memory", "116MiB"]).expect(0);
    bench.run(["snapshots"]).expect(0);

    // The password of a keyslot that can be tried opens all the same; another may be that of the one that cannot.
    new_password(&bench, "add", "battery staple").expect(0);
    let within = |password: &str| Run::of(with(&bench, password).args(["snapshots", "--memory", "80MiB"]));
    within("battery staple").expect(0);
    let wrong = within("no such password").expect(2);
    let both = ["102400 KiB", "; it does not open the other one that was tried"];
    assert!(both.iter().all(|part| wrong.message().contains(part)), "{wrong:?}");
    // Another one may be the password's and be damaged.
    let other = bench.objects("keys").into_iter().find(|path| !path.ends_with(&id)).expect("another");
    let whole = fs::read(&other).expect("a keyslot");
    let mut bytes = whole.clone();
    bytes[40] ^= 1;
    overwrite(&other, &bytes);
    let damaged = within("battery staple").expect(2);
    let name = other.file_name().expect("a name").to_str().expect("text");
    let both =
        ["102400 KiB".to_owned(), format!("keys/{name} is damaged: its bytes are not those of its id")];
    assert!(both.iter().all(|part| damaged.message().contains(part)), "{damaged:?}");
    overwrite(&other, &whole);
    let file = bench.write("new-password", "another");
    let mut add = with(&bench, "battery staple");
    add.args(["key", "add", "--memory", "80MiB"]).args(costly).arg("--new-password-file").arg(file);
    assert!(Run::of(&mut add).expect(2).message().contains("102400 KiB"));
}

#[test]
fn a_changed_password_takes_the_place_of_the_old_one() {
    let bench = Bench::new();
    new_password(&bench, "passwd", "battery staple").expect(0);
    Run::of(with(&bench, PASSWORD).arg("snapshots")).expect(12);
    assert_eq!(list(&bench, "battery staple").len(), 1);
}

#[test]
fn the_last_keyslot_and_unknown_ones_stay() {
    let bench = Bench::new();
    let id = list(&bench, PASSWORD)[0]["id"].as_str().expect("an id").to_owned();
    let run = bench.run(["key", "remove", &id]).expect(1);
    assert!(run.message().contains("only one"), "{run:?}");
    assert!(run.stderr.contains("key add"), "{run:?}");
    let run = bench.run(["key", "remove", "ffff"]).expect(1);
    assert!(run.message().contains("ffff"), "{run:?}");
    assert_eq!(list(&bench, PASSWORD).len(), 1);
}

#[test]
fn new_passwords_that_cannot_be_change_nothing() {
    let bench = Bench::new();
    for verb in ["add", "passwd"] {
        let run = new_password(&bench, verb, "").expect(1);
        assert!(run.message().contains("empty"), "{run:?}");
        // Nobody to ask.
        bench.run(["key", verb]).expect(2);
        bench.run(["key", verb, "--new-password-file", "missing"]).expect(1);
    }
    assert_eq!(list(&bench, PASSWORD).len(), 1);
}

#[test]
fn the_list_for_people_marks_the_keyslot_in_use() {
    let bench = Bench::new();
    let run = bench.run(["key", "list"]).expect(0);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("Label") && lines[1].starts_with('*'), "{run:?}");
}

#[test]
fn a_removed_keyslot_that_came_back_locks_nobody_out() {
    let bench = Bench::new();
    let old = bench.objects("keys").remove(0);
    let bytes = fs::read(&old).expect("readable");
    // The same password: whichever keyslot is tried first opens.
    let file = bench.write("same", PASSWORD);
    for _ in 0..4 {
        let mut passwd = bench.command();
        passwd.args(["key", "passwd", "--new-password-file"]).arg(&file).args(CHEAP);
        Run::of(&mut passwd).expect(0);
        fs::write(&old, &bytes).expect("put back");
        bench.run(["snapshots"]).expect(0);
    }
}

/// A repository with a backup by the ordinary password, and the append-only password "may only add".
fn with_appender() -> Bench {
    let bench = Bench::new();
    bench.write("source/theirs", "what the others have");
    bench.run(["backup", "source"]).expect(0);
    let file = bench.write("append", "may only add");
    let mut add = bench.command();
    add.args(["key", "add", "--append-only", "--label", "web", "--new-password-file"]).arg(file).args(CHEAP);
    let run = Run::of(&mut add).expect(0);
    assert!(run.stdout.contains("append-only") || run.stderr.contains("append-only"), "{run:?}");
    bench
}

fn append(bench: &Bench) -> Command {
    with(bench, "may only add")
}

#[test]
fn an_append_only_password_backs_up_and_the_ordinary_one_restores() {
    let bench = with_appender();
    bench.write("source/own", "what the host has");
    let run = Run::of(append(&bench).args(["backup", "source", "--json"])).expect(0);
    let snapshot = run.last("summary")["snapshot_id"].as_str().expect("an id").to_owned();
    assert_eq!(run.last("summary")["parent"], Value::Null);
    bench.run(["check", "--read-data"]).expect(0);
    bench
        .run(["restore", &format!("{snapshot}:{}", bench.path("source").display()), "--target", "out"])
        .expect(0);
    for file in ["theirs", "own"] {
        let restored = fs::read(bench.path("out").join(file)).expect("restored");
        assert_eq!(restored, fs::read(bench.path("source").join(file)).expect("there"));
    }
    // What it may look at.
    let listed = Run::of(append(&bench).args(["snapshots", "--json"])).expect(0);
    let listed: Vec<Value> = serde_json::from_str(&listed.stdout).expect("an array");
    assert_eq!((listed.len(), &listed[1]["id"]), (2, &snapshot.into()));
    assert!(listed[0].get("appender").is_none() && listed[1]["appender"].is_string());
    Run::of(append(&bench).args(["log", "--verify"])).expect(0);
    let log = Run::of(append(&bench).arg("log")).expect(0);
    assert!(log.stdout.contains("append-only keyslot"), "{log:?}");
    let keyslots = list(&bench, "may only add");
    let may: Vec<_> = keyslots.iter().map(|slot| slot["append_only"].clone()).collect();
    assert_eq!(may, [false, true]);
    let table = bench.run(["key", "list"]).expect(0);
    assert!(table.stdout.contains("append") && table.stdout.contains("everything"), "{table:?}");
    // A prune makes what it added part of the index.
    let run = bench.run(["prune", "--json"]).expect(0);
    assert!(run.last("summary")["segments_vetted"].as_u64() >= Some(1), "{run:?}");
    bench.run(["check", "--read-data"]).expect(0);
}

#[test]
fn a_quiet_prune_says_why_it_ends_with_4_and_what_to_do() {
    let bench = with_appender();
    let theirs = bench.objects("packs");
    bench.write("source/own", noise(7, 300_000));
    let run = Run::of(append(&bench).args(["backup", "source", "--json"])).expect(0);
    let snapshot = run.last("summary")["snapshot_id"].as_str().expect("an id").to_owned();
    let own = bench.objects("packs").into_iter().filter(|pack| !theirs.contains(pack));
    for pack in own {
        let mut bytes = fs::read(&pack).expect("a pack");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        overwrite(&pack, &bytes);
    }
    bench.run(["forget", &snapshot, "--allow-empty"]).expect(0);
    let run = bench.run(["prune", "--quiet"]).expect(4);
    assert!(
        run.stdout.is_empty() && run.stderr.contains("`strongroom repair packs` makes the best of it"),
        "{run:?}"
    );
}

/// Whoever took a host over can say any time, and any host: that must not keep others' snapshots for ever.
#[test]
fn an_append_only_host_of_the_future_keeps_its_own_snapshots_only() {
    let bench = with_appender();
    bench.write("source/theirs", "what the others have the next day");
    bench.run(["backup", "source"]).expect(0);
    Run::of(append(&bench).args(["backup", "source", "--time", "2099-01-01"])).expect(0);
    let run = bench.run(["forget", "--keep-yearly", "1", "--json"]).expect(3);
    let summary = run.last("summary");
    assert_eq!((&summary["snapshots_forgotten"], &summary["groups_refused"]), (&1.into(), &1.into()));
    let errors: Vec<_> = run.lines().into_iter().filter(|line| line["type"] == "error").collect();
    assert_eq!(errors.len(), 1, "{run:?}");
    assert!(errors[0]["group"].as_str().is_some_and(|group| group.contains("append-only writer")), "{run:?}");
    assert_eq!(errors[0]["code"], "times-future");
    bench.run(["prune", "--grace", "0s"]).expect(0);
    bench.run(["check", "--read-data"]).expect(0);
}

#[test]
fn an_append_only_password_is_refused_what_takes_more() {
    let bench = with_appender();
    Run::of(append(&bench).args(["backup", "source"])).expect(0);
    let objects = |bench: &Bench| ["keys", "log", "index", "packs"].map(|folder| bench.objects(folder));
    let before = objects(&bench);
    let file = bench.write("other", "another");
    let other = file.to_str().expect("a plain path");
    let id = list(&bench, PASSWORD)[0]["id"].as_str().expect("an id").to_owned();
    let refused: [&[&str]; 17] = [
        &["restore", "latest", "--target", "out"],
        &["ls", "latest"],
        &["cat", "snapshot", "latest"],
        &["stats"],
        &["forget", "--keep-last", "1"],
        &["forget", "latest"],
        &["prune"],
        &["snapshot", "hold", "latest", "--reason", "r"],
        &["key", "add", "--new-password-file", other],
        &["key", "add", "--append-only", "--new-password-file", other],
        &["key", "passwd", "--new-password-file", other],
        &["key", "remove", &id],
        &["parity", "add"],
        &["reserve", "set", "1MiB"],
        &["reserve", "drop"],
        &["repair", "index"],
        &["repair", "packs"],
    ];
    for arguments in refused {
        let run = Run::of(append(&bench).args(arguments)).expect(1);
        assert!(run.message().contains("append-only"), "{arguments:?}: {run:?}");
        assert!(run.stderr.contains("key list"), "says what to do next: {run:?}");
        let run = Run::of(append(&bench).args(arguments).arg("--json")).expect(1);
        assert_eq!(run.last("error")["code"], "append-only", "{arguments:?}");
    }
    // Nothing was found out, so nothing is said to be in order.
    let run = Run::of(append(&bench).arg("check")).expect(5);
    assert!(run.message().contains("append-only"), "{run:?}");
    assert_eq!(objects(&bench), before, "nothing came or went");
    assert!(!bench.path("out").exists());
    bench.run(["check", "--read-data"]).expect(0);
}

#[test]
fn a_removed_append_only_password_opens_nothing_and_what_it_added_stays() {
    let bench = with_appender();
    Run::of(append(&bench).args(["backup", "source"])).expect(0);
    let id = list(&bench, PASSWORD)[1]["id"].as_str().expect("an id").to_owned();
    bench.run(["key", "remove", &id[..8]]).expect(0);
    Run::of(append(&bench).args(["backup", "source"])).expect(12);
    bench
        .run(["restore", &format!("latest:{}", bench.path("source").display()), "--target", "out"])
        .expect(0);
    // The last password that opens everything stays, whatever others there are.
    let file = bench.write("append", "may only add");
    let mut add = bench.command();
    add.args(["key", "add", "--append-only", "--new-password-file"]).arg(file).args(CHEAP);
    Run::of(&mut add).expect(0);
    let first = list(&bench, PASSWORD)[0]["id"].as_str().expect("an id").to_owned();
    let run = bench.run(["key", "remove", &first]).expect(1);
    assert!(run.message().contains("opens everything"), "{run:?}");
}
