//! What becomes of the other repositories of a domain.

use super::*;

#[test]
fn a_warning_skips_no_copy_and_no_repository_holds_up_another() {
    let domain = "[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = { retain = { last = 1 } }\n";
    let mut stage = Stage::new(domain);
    stage.vault.summary = SnapshotSummary { unstable: 2, ..SnapshotSummary::default() };
    let report = stage.run().remove(0);
    assert_eq!((report.outcome, report.repositories.len()), (Outcome::Partial, 2));
    assert_eq!(stage.log(), ["back up into a", "copy 1 from a to b"], "nothing is forgotten");

    let mut stage = Stage::new(domain);
    stage.vault.down = vec!["a"];
    let report = stage.run().remove(0);
    let outcomes: Vec<_> = report.repositories.iter().map(|repo| repo.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Ok]);
    assert_eq!((report.outcome, report.message.as_deref()), (Outcome::Failed, Some("a: it is down")));
    assert_eq!(stage.log(), ["back up into a", "back up into b"]);

    let mut stage = Stage::new(
        &(String::from("[class.c]\non_change = 'fail'\n") + &domain.replace("paths", "class = 'c'\npaths")),
    );
    stage.vault.summary = SnapshotSummary { unstable: 2, ..SnapshotSummary::default() };
    let report = stage.run().remove(0);
    assert!(report.message.is_some_and(|message| message.contains("2 files changed")));

    let stage = Stage::new(domain);
    stage.cancelled.store(true, Ordering::Relaxed);
    assert_eq!(stage.run()[0].outcome, Outcome::Failed);
    assert_eq!(stage.log(), [] as [&str; 0]);
}

#[test]
fn a_lost_commit_of_a_repository_is_told_by_every_run_into_it() {
    let mut stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
    stage.vault.lost_commits = vec![LostCommit { seq: 7, how: Loss::Altered }];
    let report = stage.run().remove(0);
    assert_eq!(report.outcome, Outcome::Partial);
    assert!(report.why().is_some_and(|why| why.contains("log entry 7 was a commit")), "{report:?}");
}

#[test]
fn a_copy_that_failed_is_made_up_without_reading_anything_again() {
    let domain = format!("[[domain]]\nname = 'x'\nschedule = '*-*-* 02:00'\npaths = ['DIR']\n{HOOKS}");
    let mut stage = Stage::new(&domain);
    stage.vault.down = vec!["b"];
    let report = stage.run().remove(0);
    assert_eq!(report.message.as_deref(), Some("b: cannot be copied from a: it is down"));
    let outcomes: Vec<_> = report.repositories.iter().map(|repo| repo.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Failed]);
    let failed = "failed <b: cannot be copied from a: it is down>";
    assert_eq!(stage.log(), ["before", "back up into a", "copy 1 from a to b", failed, "finally", "last"]);
    let attempt = stage.state().attempts().expect("readable").remove(0);
    assert_eq!(attempt.repositories.values().map(|repo| repo.outcome).collect::<Vec<_>>(), outcomes);

    stage.vault.down.clear();
    let b = name("b");
    let run = |stage: &Stage| stage.run_into(&|repo, _| if *repo == b { Newest::None } else { fresh() });
    let report = run(&stage).remove(0);
    assert_eq!((report.outcome, report.repositories.len()), (Outcome::Ok, 1), "{report:?}");
    assert_eq!(report.repositories[0].snapshot(), Some(id(7)));
    assert_eq!(stage.log(), ["copy 1 from a to b"]);

    // What cannot be copied is read from its source.
    let expected = ["copy 1 from a to b", "before", "back up into b", "after", "finally", "last"];
    stage.vault.damaged = vec![id(7)];
    let report = run(&stage).remove(0);
    assert_eq!((report.outcome, report.repositories.len()), (Outcome::Partial, 1), "{report:?}");
    assert_eq!(report.warnings, ["b: cannot be copied from a: a pack is gone"]);
    assert_eq!(stage.log(), expected);
    stage.vault.unreadable = vec!["a"];
    assert_eq!(run(&stage)[0].outcome, Outcome::Partial);
    assert_eq!(stage.log(), expected);
}

#[test]
fn older_snapshots_are_copied_as_retention_keeps_them() {
    let mut stage =
        Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = { retain = { last = 2 } }\n");
    let a = name("a");
    stage.vault.made.borrow_mut().extend([1, 2, 3].map(|number| (a.clone(), id(number), "x".to_owned())));
    stage.vault.damaged = vec![id(2)];
    let report = stage.run().remove(0);
    assert_eq!(stage.log(), ["back up into a", "copy 2 from a to b"]);
    let copied = &report.repositories[1];
    assert_eq!((report.outcome, copied.outcome), (Outcome::Partial, Outcome::Partial));
    assert_eq!(copied.message.as_deref(), Some("an older snapshot cannot be copied from a: a pack is gone"));
    assert_eq!(copied.snapshot(), Some(id(7)));
}

#[test]
fn what_a_drill_has_restored_stays() {
    let domain = "[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = { retain = { last = 1, keep_last_drilled = true } }\n";
    let mut stage = Stage::new(domain);
    let a = name("a");
    stage.vault.made.borrow_mut().extend([1, 3].map(|number| (a.clone(), id(number), "x".to_owned())));
    let note = DrillNote {
        drill: "d".into(),
        tier: "full".into(),
        outcome: "pass".into(),
        reason: String::new(),
        self_test: false,
        began: strongroom::format::tree::Timestamp::default(),
        snapshots: vec![id(1)],
        phases: Vec::new(),
    };
    stage.vault.drills = vec![(a, note)];
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
    let forgotten = format!("forget in a: x but {}", id(1).short());
    assert_eq!(stage.log(), ["back up into a", "copy 1 from a to b", &forgotten, "forget in b: x"]);
    // As long as that is not known, nothing goes.
    let mut stage = Stage::new(&domain.replace("paths", "to = ['a']\npaths"));
    stage.vault.logs_down = true;
    let report = stage.run().remove(0);
    assert_eq!(report.outcome, Outcome::Partial);
    assert_eq!(report.warnings, ["a: nothing was forgotten: its log cannot be read"]);
    assert_eq!(stage.log(), ["back up into a"]);
}

#[test]
fn a_repository_that_fails_before_it_is_copied_costs_the_others_nothing() {
    let domain = format!(
        "[repo.c]\nurl = '/c'\n[[domain]]\nname = 'x'\npaths = ['DIR']\n{HOOKS}snapshot = {{ begin = ['print', \
         'STRONGROOM_SNAPSHOT_PATH=/'], end = ['unsnap'] }}\nstream = [{{ name = 's', command = ['dump'] }}]\n"
    );
    let begin = "print STRONGROOM_SNAPSHOT_PATH=/";
    let first = ["before", begin, "back up into a", "dump", "unsnap </>"];
    let again =
        [begin, "back up into b", "dump", "unsnap </>", "copy 1 from b to c", "after", "finally", "last"];
    let lost = |stage: &mut Stage, copies: &[&str], reason: &str| {
        let report = stage.run().remove(0);
        let made: Vec<_> =
            report.repositories.iter().map(|repo| (repo.repo.as_str(), repo.outcome)).collect();
        assert_eq!(made, [("a", Outcome::Ok), ("b", Outcome::Ok), ("c", Outcome::Ok)]);
        let warnings = ["b", "c"].map(|to| format!("{to}: cannot be copied from a: {reason}"));
        assert_eq!((report.outcome, &report.warnings[..]), (Outcome::Partial, &warnings[..]));
        assert_eq!(stage.log(), [&first, copies, &again[..]].concat());
    };
    let mut stage = Stage::new(&domain);
    stage.vault.unreadable = vec!["a"];
    lost(&mut stage, &["copy 1 from a to b", "copy 1 from a to c"], "it is down");

    // Where it cannot be read again either, that is what the others are told.
    let domain = "[[domain]]\nname = 'x'\npaths = ['DIR']\nstream = [{ name = 's', command = ['moody', 'DIR/good'] }]\n\
                  hooks = { finally = [['last']] }\n";
    let mut stage = Stage::new(domain);
    let good = stage.folder.path().join("good");
    std::fs::write(&good, "").expect("written");
    stage.vault.unreadable = vec!["a"];
    stage.vault.removed = Some(good);
    let report = stage.run().remove(0);
    let message = "b: moody failed: exit code 1; it said: hunter2";
    assert_eq!((report.outcome, report.message.as_deref()), (Outcome::Failed, Some(message)), "{report:?}");
}

#[test]
fn a_copy_of_what_lacks_something_is_partial_as_the_snapshot_is() {
    let mut stage = Stage::new("[[domain]]\nname = 'x'\nschedule = '*-*-* 02:00'\npaths = ['DIR']\n");
    stage.vault.summary = SnapshotSummary { errors: 1, unstable: 2, ..SnapshotSummary::default() };
    stage.vault.down = vec!["b"];
    stage.run();
    stage.vault.down.clear();
    let b = name("b");
    let report = stage.run_into(&|repo, _| if *repo == b { Newest::None } else { fresh() }).remove(0);
    let found = report.repositories[0].message.as_deref();
    let message = "1 entry could not be read, 2 files changed while they were read";
    assert_eq!((report.outcome, found), (Outcome::Partial, Some(message)), "{report:?}");
    assert_eq!(stage.log().last().map(String::as_str), Some("copy 1 from a to b"), "nothing is read again");
}

#[test]
fn a_source_that_fails_is_not_read_again_for_another_repository() {
    let stage = Stage::new("[[domain]]\nname = 'x'\nstream = [{ name = 's', command = ['fail'] }]\n");
    let report = stage.run().remove(0);
    assert_eq!(stage.log(), ["back up into a", "fail"]);
    let outcomes: Vec<_> = report.repositories.iter().map(|repo| repo.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Failed]);
    assert_eq!(report.message.as_deref(), Some("a: fail failed: exit code 1"));
}

#[test]
fn a_repository_that_was_made_anew_is_judged_by_what_the_others_have() {
    let plan = "[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = { retain = { daily = 3 } }\n";
    let usual = SnapshotSummary { files: 1000, bytes: 100 << 20, ..SnapshotSummary::default() };
    let before = |days: u8| {
        let snapshot = Snapshot { summary: usual.clone(), ..record("x", i64::from(days) * 24) };
        ("b", id(100 - days), snapshot)
    };
    for (days, files, anomalies) in [(3, 10, 3), (3, 990, 0), (2, 10, 0)] {
        let mut stage = Stage::new(plan);
        stage.vault.history = (1..=days).rev().map(before).collect();
        stage.vault.summary = SnapshotSummary { files, bytes: files << 10, ..SnapshotSummary::default() };
        if files > 900 {
            stage.vault.summary.bytes = usual.bytes;
        }
        let report = stage.run().remove(0);
        assert_eq!(report.anomalies.len(), anomalies, "{days} {files}: {report:?}");
        assert_eq!(report.is_guarded, anomalies > 0);
        let log = stage.log();
        assert_eq!(log.iter().any(|line| line.starts_with("forget")), anomalies == 0, "{log:?}");
        assert!(log.iter().any(|line| line.starts_with("copy")), "a warning skips no copy: {log:?}");
    }
}
