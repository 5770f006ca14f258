//! Recoveries in a world that is played: which state everything is in after each end, and after a kill at each moment.

mod choices;
mod guards;
mod kills;
mod played;
mod used;
mod world;

use super::journal::Step;
use super::{Recoverer, RecoveryOutcome as Outcome, elsewhere};
use crate::run::plans::Other;
use crate::run::state::State;
use crate::status::{Health, status};
use crate::testing::now;
use played::SECRET;
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
    let kept = records[0].without_output().reason;
    assert_eq!(kept.as_deref(), Some("health: the health check: fail failed: exit code 1"));
    assert!(records[0].reason.as_ref().is_some_and(|reason| reason.ends_with(SECRET)), "{records:?}");
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
        let outcome = if is_carried { Outcome::Partial } else { Outcome::Recovered };
        assert_eq!((record.outcome, record.left.len()), (outcome, usize::from(is_carried)), "{record:?}");
        assert_eq!(world.tree().contains_key("data/dir/cache/c"), is_carried);
        assert_eq!(world.tree()["data/dir/sub/own.tmp"].1, "restored own");
        assert!(record.left.iter().all(|left| left.contains("data/dir/sub/own.tmp")), "{record:?}");
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

#[test]
fn what_the_rest_of_a_killed_recovery_waits_for_is_not_removed_before_it_is_done() {
    let plan = "[[domain]]\nname = 'first'\npaths = ['DIR/data/dir']\n\
                [[domain]]\nname = 'then'\nafter = ['first']\npaths = ['DIR/data/single']\n";
    let mut seen = 0;
    for moment in 1.. {
        let world = World::new(plan);
        if !world.killed_at(moment, |world| drop(world.recover(&["first", "then"]))) {
            break;
        }
        let journals = world.state().recoveries(&world.plan).expect("readable");
        let [first, then] = &journals[..] else { continue };
        if first.step != Step::Done || !then.is_unfinished() {
            continue;
        }
        seen += 1;
        let refused = world.recoverer().commit(&["first".into()]).expect_err("the other waits for it");
        assert_eq!(refused.code, "unfinished", "{refused:?}");
        let records = world.recoverer().resume(&[]).expect("resumed");
        assert_eq!((records.len(), records[0].outcome), (1, Outcome::Recovered), "{records:?}");
        world.recoverer().commit(&["first".into()]).expect("nothing waits for it any more");
    }
    assert!(seen > 0);
}

#[test]
fn a_recovery_of_a_domain_that_the_plan_has_not_any_more_is_told_of() {
    let mut world = World::new(PLAN);
    assert!(world.killed_at(12, |world| drop(world.recover(&["shop"]))));
    assert!(world.state().unplanned_recoveries(&world.plan).expect("readable").is_empty());
    world.plan.domains[0].name = "store".parse().expect("a name");
    let journals = world.state().unplanned_recoveries(&world.plan).expect("readable");
    let found = super::record::unplanned(&journals, &|_| false);
    assert_eq!((found.len(), found[0].domain.as_str(), found[0].health), (1, "shop", Health::Critical));
    assert!(found[0].reasons[1].contains("the plan does not have this domain"), "{found:?}");
    assert_eq!(super::record::unplanned(&journals, &|_| true)[0].health, Health::Warning, "it is at work");
}

#[test]
fn a_recovery_that_was_begun_with_a_copy_of_the_plan_is_seen() {
    let world = World::new(PLAN);
    assert!(world.killed_at(12, |world| drop(world.recover(&["shop"]))));
    let mut copy = State::new(&world.path("copy")).expect("made");
    copy.others = vec![Other { folder: world.path("state"), plan: Some(world.path("old.toml")) }];
    let domain = &world.plan.domains[0];
    let with =
        format!("each with --config {} (put a copy of the plan there)", world.path("old.toml").display());
    {
        let recoverer = Recoverer { state: &copy, ..world.recoverer() };
        let refused = recoverer.standing(&domain.name).expect_err("unfinished");
        assert!(refused.code == "unfinished" && refused.message.contains(&with), "{refused:?}");
        let nothing = recoverer.resume(&[]).expect_err("it is not begun here");
        assert!(nothing.code == "no-recovery" && nothing.hint.expect("a hint").contains(&with));
        let nothing = recoverer.rollback(&["shop".into()]).expect_err("it is not begun here");
        assert!(nothing.hint.expect("a hint").contains(&with));
    }
    let judged = || {
        let mut found = status(&world.plan, "box", &|_| Ok(&[]), &[], &now());
        found.iter_mut().for_each(|domain| domain.health = Health::Ok);
        elsewhere::judge(&world.plan, &mut found, &copy).expect("readable");
        found.remove(0)
    };
    assert!(judged().health == Health::Critical && judged().reasons[0].contains(&with), "{:?}", judged());
    assert_eq!(copy.recoveries_elsewhere(domain).expect("readable").len(), 1);
    // A domain of the same name with other data is another application's.
    let mut other = domain.clone();
    (other.paths, other.sqlite, other.stream) = (vec!["/elsewhere".into()], Vec::new(), Vec::new());
    assert_eq!(copy.recoveries_elsewhere(&other).expect("readable"), []);
    // At its end it stands in the way of another recovery only.
    assert_eq!(world.recoverer().resume(&[]).expect("resumed")[0].outcome, Outcome::Recovered);
    assert_eq!(judged().health, Health::Ok);
    let recoverer = Recoverer { state: &copy, ..world.recoverer() };
    assert_eq!(recoverer.standing(&domain.name).expect_err("kept").code, "kept");
    world.recoverer().commit(&[]).expect("removed");
    recoverer.standing(&domain.name).expect("nothing is left");
    assert_eq!(judged().reasons, [] as [&str; 0]);
}
