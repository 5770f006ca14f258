//! Recoveries that were killed and whose data was used before they were gone on with, and ways back on which something fails.

use std::cell::Cell;
use std::fs;

use super::Outcome;
use super::played::SECRET;
use super::world::{PLAN, World};
use crate::recover::journal::{Journal, Step};

/// Recoveries that were killed, one at each moment of a step, as they are on disk.
fn killed_in(steps: &[Step], plan: &str, prepare: impl Fn(&World)) -> Vec<(World, Journal)> {
    let mut found = Vec::new();
    for moment in 1.. {
        let world = World::new(plan);
        prepare(&world);
        if !world.killed_at(moment, |world| drop(world.recover(&["shop"]))) {
            break;
        }
        let journal = world.state().recoveries(&world.plan).expect("readable").pop();
        found.extend(journal.filter(|journal| steps.contains(&journal.step)).map(|journal| (world, journal)));
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn a_way_back_that_cannot_be_noted_is_not_begun() {
    let mut seen = 0;
    for step in [Step::Swap, Step::Health] {
        for (world, mut journal) in killed_in(&[step], PLAN, |_| {}) {
            let (tree, databases) = (world.tree(), world.databases());
            // A directory of that name keeps the journal from being written.
            let [file, away] = ["state/shop.recover", "state/away"].map(|path| world.path(path));
            fs::rename(&file, &away).expect("moved");
            fs::create_dir(&file).expect("made");
            journal.back = Some("it fails".into());
            let has_swapped = journal.has_swapped();
            let record = world.recoverer().advance(journal);
            fs::remove_dir(&file).expect("removed");
            if !has_swapped {
                assert_eq!(world.tree(), tree);
                continue;
            }
            seen += 1;
            fs::rename(&away, &file).expect("moved");
            assert_eq!(record.outcome, Outcome::Unfinished, "{record:?}");
            let reason = record.reason.expect("a reason");
            assert!(
                reason.contains("the journal cannot be written") && reason.contains("--rollback shop"),
                "{reason}"
            );
            assert_eq!((world.tree(), world.databases()), (tree, databases));
            let record = world.recoverer().resume(&[]).expect("begun").remove(0);
            assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
            world.assert_restored();
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn what_was_swapped_back_before_a_kill_is_swapped_again() {
    for (world, journal) in killed_in(&[Step::Start, Step::Health], PLAN, |_| {}) {
        // As an earlier way back left it that could not be noted.
        let load = &journal.loads[0];
        world.undo(&load.target, &load.old);
        world.write("data/base.db-wal", "of the restored one");
        let record = world.recoverer().resume(&[]).expect("begun").remove(0);
        assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
        assert_eq!(world.tree()["data/base.db-wal"].1, "of the restored one");
        fs::remove_file(world.path("data/base.db-wal")).expect("removed");
        world.assert_restored();
        assert!(world.is_running());
    }
}

#[test]
fn what_the_database_that_was_not_swapped_has_beside_it_is_its_own() {
    let without_log = |world: &World| fs::remove_file(world.path("data/base.db-wal")).expect("removed");
    let mut seen = [0, 0];
    for (has_log, prepare) in [(false, &without_log as &dyn Fn(&World)), (true, &|_: &World| {})] {
        for (world, _) in killed_in(&[Step::Swap], PLAN, prepare) {
            let (tree, log) = (world.tree(), "data/base.db-wal");
            if tree.get("data/base.db").is_none_or(|(_, found)| found != "old base") || tree.contains_key(log)
            {
                continue;
            }
            // A service that starts at boot commits into it.
            world.write(log, "committed since");
            let record = world.recoverer().rollback(&[]).expect("begun").remove(0);
            let expected = if has_log { Outcome::Unfinished } else { Outcome::RolledBack };
            assert_eq!(record.outcome, expected, "{record:?}");
            assert_eq!(world.tree()[log].1, "committed since");
            seen[usize::from(has_log)] += 1;
            if has_log {
                let reason = record.reason.expect("a reason");
                assert!(reason.contains("each has changes that the other lacks"), "{reason}");
                fs::remove_file(world.path(log)).expect("removed");
                let record = world.recoverer().resume(&[]).expect("begun").remove(0);
                assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
                assert_eq!(world.tree()[log].1, "old changes");
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
}

#[test]
fn what_a_database_got_or_lost_beside_it_since_a_kill_goes_with_it() {
    let (log, without_log) = ("data/base.db-wal", |world: &World| {
        fs::remove_file(world.path("data/base.db-wal")).expect("removed");
    });
    let mut seen = [0, 0];
    for (had_log, prepare) in [(false, &without_log as &dyn Fn(&World)), (true, &|_: &World| {})] {
        for (world, _) in killed_in(&[Step::Swap], PLAN, prepare) {
            let tree = world.tree();
            if tree.get("data/base.db").is_none_or(|(_, found)| found != "old base")
                || tree.contains_key(log) != had_log
            {
                continue;
            }
            seen[usize::from(had_log)] += 1;
            // A service that starts at boot opens it, and one that ends puts its log into it.
            match had_log {
                true => without_log(&world),
                false => world.write(log, "committed since"),
            }
            let record = world.recoverer().resume(&[]).expect("begun").remove(0);
            assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
            world.assert_restored();
            let record = world.recoverer().rollback(&[]).expect("begun").remove(0);
            assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
            let after = world.tree();
            assert_eq!(after["data/base.db"].1, "old base");
            let found = after.get(log).map(|(_, found)| found.as_str());
            assert_eq!(found, (!had_log).then_some("committed since"));
        }
    }
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
}

#[test]
fn what_was_written_since_a_kill_is_kept_on_every_way_back() {
    for is_by_hand in [true, false] {
        for (world, _) in killed_in(&[Step::Start, Step::Health], PLAN, |_| {}) {
            world.write("data/dir/since", "written since");
            let record = if is_by_hand {
                world.recoverer().rollback(&[]).expect("begun").remove(0)
            } else {
                world.fail(Some("healthy"));
                world.recoverer().resume(&[]).expect("begun").remove(0)
            };
            let expected = if is_by_hand { Outcome::RolledBack } else { Outcome::Failed };
            assert_eq!(record.outcome, expected, "{record:?}");
            assert!(!world.tree().contains_key("data/dir/since"));
            assert!(world.has_beside("written since"), "{record:?}");
            world.recoverer().commit(&[]).expect("removed");
            world.assert_nothing_beside();
        }
    }
}

#[test]
fn what_took_the_place_of_something_restored_is_kept_after_a_failure() {
    let plan = PLAN.replace("health = [['healthy']]", "health = [['replace', 'DIR/data/single'], ['fail']]");
    let world = World::new(&plan);
    let record = world.recover(&["shop"]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Failed, "{record:?}");
    assert_eq!(world.tree()["data/single"].1, "old single");
    assert!(world.has_beside("replaced"), "{record:?}");
    assert!(record.warnings.iter().any(|warning| warning.contains("was not restored by this")), "{record:?}");
}

#[test]
fn nothing_is_put_back_while_what_uses_it_cannot_be_stopped() {
    let world = World::new(PLAN);
    let before = world.tree();
    world.recover(&["shop"]).expect("begun");
    let restored = world.tree();
    world.fail(Some("stop"));
    let record = world.recoverer().rollback(&[]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Unfinished, "{record:?}");
    let reason = record.reason.expect("a reason");
    assert!(reason.contains("`stop` failed") && reason.contains("--rollback shop"), "{reason}");
    assert_eq!(world.tree(), restored);
    world.fail(None);
    assert_eq!(world.recoverer().rollback(&[]).expect("begun")[0].outcome, Outcome::RolledBack);
    assert_eq!(world.tree(), before);
}

#[test]
fn how_far_a_recovery_is_is_read_again_when_nobody_else_has_it() {
    for names in [vec![], vec!["shop".to_owned()]] {
        let world = World::new(PLAN);
        world.recover(&["shop"]).expect("begun");
        let calls = Cell::new(0);
        // Another process commits between the first look and the lock.
        let is_meant = |journal: &Journal| {
            if calls.replace(calls.get() + 1) == 0 {
                let mut other = journal.clone();
                other.step = Step::Removing;
                world.state().note_recovery(&other).expect("noted");
                return true;
            }
            !journal.is_leftover()
        };
        let Err(refused) = world.recoverer().taken(&names, "roll back", &is_meant) else {
            panic!("a recovery of which nothing is kept is taken");
        };
        assert_eq!((refused.code.as_str(), calls.get()), ("no-recovery", 2), "{refused:?}");
    }
}

#[test]
fn what_cannot_be_started_again_is_left_to_do_and_status_tells_of_it() {
    for is_by_hand in [true, false] {
        let world = World::new(PLAN);
        let before = world.tree();
        let record = if is_by_hand {
            world.recover(&["shop"]).expect("begun");
            world.fail(Some("start"));
            world.recoverer().rollback(&[]).expect("begun").remove(0)
        } else {
            world.fail(Some("start"));
            world.recover(&["shop"]).expect("begun").remove(0)
        };
        let expected = if is_by_hand { Outcome::RolledBack } else { Outcome::Failed };
        assert_eq!(record.outcome, expected, "{record:?}");
        assert!(record.left.len() == 1 && record.left[0].contains("`start` failed"), "{record:?}");
        // Whoever is there may read it.
        assert!(record.warnings.iter().any(|warning| warning.contains(SECRET)), "{record:?}");
        assert_eq!(world.tree(), before);
        let journal = world.state().recoveries(&world.plan).expect("readable").remove(0);
        assert!(journal.is_leftover());
        assert_eq!(journal.left, record.left);
        world.fail(None);
        assert_eq!(world.recover(&["shop"]).expect("begun")[0].outcome, Outcome::Recovered);
        world.assert_restored();
        world.recoverer().commit(&[]).expect("removed");
        world.assert_nothing_beside();
    }
}

#[test]
fn a_snapshot_that_lacks_something_is_left_to_do() {
    let mut world = World::new(PLAN);
    for (_, snapshot) in world.source.snapshots.values_mut().flatten() {
        (snapshot.summary.errors, snapshot.summary.unstable) = (1, 2);
    }
    let record = world.recover(&["shop"]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Partial, "{record:?}");
    assert!(record.left[0].contains("of 3 entries the snapshot has nothing"), "{record:?}");
}
