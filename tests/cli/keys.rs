//! `key`: passwords come, change and go.

use std::process::Command;

use serde_json::Value;

use crate::support::{Bench, CHEAP, PASSWORD, Run};

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
    let bytes = std::fs::read(&old).expect("readable");
    // The same password: whichever keyslot is tried first opens.
    let file = bench.write("same", PASSWORD);
    for _ in 0..4 {
        let mut passwd = bench.command();
        passwd.args(["key", "passwd", "--new-password-file"]).arg(&file).args(CHEAP);
        Run::of(&mut passwd).expect(0);
        std::fs::write(&old, &bytes).expect("put back");
        bench.run(["snapshots"]).expect(0);
    }
}
