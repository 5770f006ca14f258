//! Recoveries in a world that is played: which state everything is in after each end, and after a kill at each moment.

mod choices;
mod kills;
mod played;
mod world;

use super::RecoveryOutcome as Outcome;
use super::journal::Step;
use world::{PLAN, World};

#[test]
fn a_recovery_puts_everything_in_its_place_and_is_undone_and_done_again() {
    let world = World::new(PLAN);
    let (before, databases) = (world.tree(), world.databases());
    let records = world.recover(&["shop"]).expect("begun");
    assert_eq!((records[0].outcome, &records[0].reason), (Outcome::Recovered, &None), "{records:?}");
    world.assert_restored();
    assert!(world.is_running());
    assert_eq!(
        records[0].kept.len(),
        5,
        "a directory, a file, a database with its log, a stream: {:?}",
        records[0].kept
    );
    let steps: Vec<_> = records[0].steps.iter().map(|timed| timed.step).collect();
    let all = [Step::Stage, Step::Verify, Step::Load, Step::Stop, Step::Swap, Step::Start, Step::Health];
    assert_eq!(steps, all);
    let order = ["create strongroom_1_1_1", "stop", "swap", "swapped", "start", "healthy"];
    let log = world.log();
    let at: Vec<_> =
        order.map(|word| log.iter().rposition(|line| line.starts_with(word)).expect(word)).to_vec();
    assert!(at.is_sorted(), "{log:?}");
    let refused = world.recover(&["shop"]).expect_err("something is kept");
    assert_eq!(refused.code, "kept");
    assert!(refused.message.contains("recover --commit shop"), "{refused:?}");

    // Whoever uses it writes to it meanwhile, and replaces files.
    world.write("data/dir/new", "n");
    world.write("data/single", "changed");
    world.write("data/base.db-wal", "of the restored one");
    let undone = world.recoverer().rollback(&[]).expect("undone");
    assert_eq!(undone[0].outcome, Outcome::RolledBack, "{undone:?}");
    assert_eq!((world.tree(), world.databases().get("live")), (before.clone(), databases.get("live")));
    assert!(world.is_running());
    assert_eq!(world.recoverer().rollback(&[]).expect_err("done").code, "no-recovery");

    let again = world.recover(&["shop"]).expect("begun");
    assert_eq!(again[0].outcome, Outcome::Recovered, "{again:?}");
    world.assert_restored();
    let committed = world.recoverer().commit(&[]).expect("removed");
    assert_eq!((committed[0].outcome, &committed[0].warnings[..]), (Outcome::Committed, &[][..]));
    world.assert_restored();
    world.assert_nothing_beside();
    assert_eq!(world.databases().len(), 1, "{:?}", world.databases());
    assert_eq!(world.recoverer().commit(&[]).expect_err("nothing is kept").code, "no-recovery");
    let noted: Vec<_> = world.source.notes.borrow().iter().map(|record| record.outcome).collect();
    assert_eq!(noted, [Outcome::Recovered, Outcome::RolledBack, Outcome::Recovered, Outcome::Committed]);
    assert_eq!(world.state().recovery_records().expect("readable").len(), 4);
}

#[test]
fn what_comes_after_a_failure_is_not_begun_and_everything_else_is() {
    let plan = "[[domain]]\nname = 'first'\npaths = ['DIR/data/dir']\nrecover = { health = [['fail']] }\n\
        [[domain]]\nname = 'then'\nafter = ['first']\npaths = ['DIR/data/single']\n\
        [[domain]]\nname = 'last'\nafter = ['then']\npaths = ['DIR/data/absent']\n\
        [[domain]]\nname = 'other'\nsqlite = ['DIR/data/base.db']\n";
    let world = World::new(plan);
    let before = world.tree();
    let records = world.recover(&["last", "then", "first", "other"]).expect("begun");
    let outcomes: Vec<_> = records.iter().map(|record| (record.domain.as_str(), record.outcome)).collect();
    let expected = [
        ("first", Outcome::Failed),
        ("then", Outcome::Skipped),
        ("last", Outcome::Skipped),
        ("other", Outcome::Recovered),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(records[0].reason.as_deref(), Some("health: the health check: fail failed: exit code 1"));
    let after = world.tree();
    for path in ["data/dir/a", "data/dir/cache/c", "data/single"] {
        assert_eq!(after.get(path), before.get(path), "{path}");
    }
    assert_eq!(after["data/base.db"].1, "restored base");
    // By itself, it does not depend on what is not recovered with it.
    let records = world.recover(&["then"]).expect("begun");
    assert_eq!(records[0].outcome, Outcome::Recovered);
}

#[test]
fn damage_of_the_backup_is_told_apart_and_touches_nothing() {
    let mut world = World::new(PLAN);
    let before = world.tree();
    world.source.is_damaged = true;
    let record = world.recover(&["shop"]).expect("begun").remove(0);
    assert_eq!((record.outcome, record.cause), (Outcome::Failed, Some(super::Cause::Damage)), "{record:?}");
    assert_eq!(world.tree(), before);
    world.assert_nothing_beside();
    assert!(!world.log().iter().any(|line| line == "stop"), "{:?}", world.log());
    assert_eq!(world.databases().len(), 1);
}

#[test]
fn what_is_left_out_of_backups_is_moved_along_or_stays() {
    for (excluded, is_carried) in [("carry", true), ("leave", false)] {
        let plan = format!(
            "[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\nexclude = ['cache', '*.tmp']\n\
             recover = {{ excluded = '{excluded}' }}\n"
        );
        let world = World::new(&plan);
        // The snapshot has one of its own there: that stays, and the old one with the old ones.
        world.write("data/dir/sub/own.tmp", "mine");
        let before = world.tree();
        let preview = world.preview(&["shop"]).expect("told").remove(0);
        assert_eq!((preview.left_out, preview.carries), (2, is_carried));
        let record = world.recover(&["shop"]).expect("begun").remove(0);
        assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
        assert_eq!(world.tree().contains_key("data/dir/cache/c"), is_carried);
        assert_eq!(world.tree()["data/dir/sub/own.tmp"].1, "restored own");
        assert_eq!(record.warnings.len(), usize::from(is_carried), "{record:?}");
        world.recoverer().rollback(&[]).expect("undone");
        assert_eq!(world.tree(), before);
    }
}

#[test]
fn a_run_waits_for_the_end_of_an_unfinished_recovery_and_status_tells_of_it() {
    let world = World::new(PLAN);
    let killed = world.killed_at(12, |world| drop(world.recover(&["shop"])));
    assert!(killed);
    let journals = world.state().recoveries(&world.plan).expect("readable");
    assert!(journals[0].is_unfinished());
    let advice = super::record::advice(&journals[0]).expect("advice");
    assert!(advice.contains("`strongroom recover --resume` goes on"), "{advice}");
    let refused = world.recover(&["shop"]).expect_err("unfinished");
    assert_eq!((refused.code.as_str(), &refused.message), ("unfinished", &advice));
    assert_eq!(world.recoverer().commit(&[]).expect_err("unfinished").code, "unfinished");
    assert_eq!(world.recoverer().commit(&["shop".into()]).expect_err("unfinished").code, "no-recovery");
    let lock = world.state().lock(&journals[0].domain).expect("a lock");
    assert_eq!(world.recoverer().resume(&[]).expect_err("at work").code, "busy");
    drop(lock);
    assert_eq!(world.recoverer().resume(&[]).expect("resumed")[0].outcome, Outcome::Recovered);
}
