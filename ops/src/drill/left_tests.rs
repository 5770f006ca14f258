//! What drills leave behind: those that were killed, steps that made something elsewhere, and directories of others.

use std::fs;

use super::place::Journal;
use super::tests::{FULL, Stage};
use super::{DrillOutcome, DrillRecord};
use crate::testing::{name, now};

#[test]
fn what_a_killed_drill_left_is_swept_and_reads_could_not_verify() {
    let stage = Stage::new(FULL);
    let place = stage.place();
    let loaded = stage.folder.path().join("killed-loaded");
    fs::write(&loaded, "a database").expect("written");
    let journal = Journal {
        began: now().timestamp(),
        tier: crate::plan::types::Tier::Full,
        repository: name("b"),
        scratch: place.scratch(&stage.plan.drills[0]),
        token: format!("of-a-killed-one-{}", std::process::id()),
        cleanup: vec![vec!["rm".to_owned(), loaded.display().to_string()].try_into().expect("a command")],
        env: Vec::new(),
    };
    place.begin(&name("d"), &journal).expect("begun");
    fs::create_dir_all(journal.scratch.join("x/deep")).expect("made");
    fs::write(journal.scratch.join("x/deep/file"), "left").expect("written");
    let mut left = std::process::Command::new("sleep")
        .arg("600")
        .env(super::place::TOKEN, &journal.token)
        .spawn()
        .expect("started");
    assert_eq!(stage.run().outcome, DrillOutcome::Pass);
    assert!(!left.wait().expect("ended").success(), "the application of the killed drill is ended");
    assert!(!loaded.exists(), "what it has loaded is removed");
    let records = place.records().expect("readable");
    let found: Vec<_> = records.iter().map(|record| (record.outcome, record.reason.as_deref())).collect();
    let killed = (DrillOutcome::Unverified, Some("it was killed"));
    assert_eq!(found, [killed, (DrillOutcome::Pass, None)]);
    assert_eq!(stage.source.notes.borrow()[0], (name("b"), DrillOutcome::Unverified));
}

#[test]
fn a_directory_that_is_somebody_elses_is_left_alone() {
    let stage = Stage::new(FULL);
    let theirs = stage.folder.path().join("scratch/d/precious");
    fs::create_dir_all(theirs.parent().expect("above")).expect("made");
    fs::write(&theirs, "x").expect("written");
    let place = stage.place();
    let journal = Journal {
        began: now().timestamp(),
        tier: crate::plan::types::Tier::Full,
        repository: name("a"),
        scratch: place.scratch(&stage.plan.drills[0]),
        token: "t".into(),
        cleanup: Vec::new(),
        env: Vec::new(),
    };
    let refused = place.begin(&name("d"), &journal).expect_err("refused").to_string();
    assert!(refused.contains("was not made by a drill"), "{refused}");
    place.clear(&name("d"), &journal).expect_err("refused, too");
    assert!(theirs.exists());
}

/// A database that a drill has loaded is a copy of what is in use, and nobody else would ever remove it.
#[test]
fn what_steps_have_left_elsewhere_is_removed_whatever_happened() {
    let drill = |step: &str, cleanup: &str| {
        let step = FULL.replace(" }]", &format!(" }}, {step}]"));
        Stage::new(&format!("cleanup = [{cleanup}]\n{step}"))
    };
    let remove = "['rm', 'DIR/loaded'], ['sh', '-c', 'echo $STRONGROOM_DRILL ${port} > DIR/cleaned']";
    for (step, outcome) in [
        ("{ run = ['test', '-e', 'DIR/loaded'] }", DrillOutcome::Pass),
        ("{ run = ['false'] }", DrillOutcome::Fail),
        ("{ prepare = ['false'] }", DrillOutcome::Unverified),
        ("{ run = ['no-such-program'] }", DrillOutcome::Unverified),
    ] {
        let stage = drill(step, remove);
        let record = stage.run();
        assert_eq!(record.outcome, outcome, "{record:?}");
        assert!(!stage.folder.path().join("loaded").exists(), "{step}: it is there still");
        assert_eq!(fs::read_to_string(stage.folder.path().join("cleaned")).expect("all are run"), "d 4711\n");
    }
    // Nothing was made: what is in the way of the first step is somebody else's.
    let stage = drill("{ run = ['true'] }", remove);
    let mut others = stage;
    others.plan.drills[0].step[0] = crate::plan::types::DrillStep {
        prepare: Some(vec!["false".to_owned()].try_into().expect("a command")),
        restore: None,
        target: None,
        ..others.plan.drills[0].step[0].clone()
    };
    fs::write(others.folder.path().join("loaded"), "somebody else's").expect("written");
    assert_eq!(others.run().outcome, DrillOutcome::Unverified);
    assert!(others.folder.path().join("loaded").exists());
    // Without steps nothing is left.
    let stage = Stage::new(&format!("cleanup = [{remove}]\n{}", FULL.replace("'full'", "'sample'")));
    assert_eq!(stage.run().outcome, DrillOutcome::Pass);
    assert!(!stage.folder.path().join("cleaned").exists());
}

#[test]
fn what_cannot_be_removed_is_on_record_and_tried_again() {
    let failing = "cleanup = [['sh', '-c', 'test -e DIR/may && rm DIR/loaded']]\n";
    let said = "what its steps have left cannot be removed, and is tried again by the next run: sh failed: exit code 1";
    let mut stage = Stage::new(&format!("{failing}{FULL}"));
    stage.leaves = true;
    let record = stage.run();
    assert_eq!((record.outcome, record.reason.as_deref()), (DrillOutcome::Unverified, Some(said)));
    let again = stage.run();
    assert!(again.reason.as_ref().is_some_and(|reason| reason.contains(said)), "{again:?}");
    assert!(stage.folder.path().join("loaded").exists());
    fs::write(stage.folder.path().join("may"), "").expect("written");
    stage.leaves = false;
    let record = stage.run();
    assert_eq!(record.outcome, DrillOutcome::Pass, "{record:?}");
    assert!(!stage.folder.path().join("loaded").exists());
    let killed = |record: &DrillRecord| record.reason.as_deref() == Some("it was killed");
    assert!(!stage.place().records().expect("readable").iter().any(killed), "it came to its end");
    // That the data is bad is worth more than that it is there still.
    let fails = FULL.replace(" }]", " }, { run = ['false'] }]");
    let mut stage = Stage::new(&format!("{failing}{fails}"));
    stage.leaves = true;
    let record = stage.run();
    let reason = record.reason.unwrap_or_default();
    assert!(reason.starts_with(said) && reason.contains("step 2: a command: false failed"), "{reason}");
    assert_eq!(record.outcome, DrillOutcome::Fail);
}
