//! A failure, and a kill, at each moment at which something is done.

use super::Outcome;
use super::world::{PLAN, World};

/// Moments of a recovery, more than there are.
const MOMENTS_MAX: usize = 1000;

#[test]
fn a_failure_at_each_moment_leaves_everything_as_it_was() {
    for has_exchange in [true, false] {
        let mut failures = 0;
        for moment in 1..MOMENTS_MAX {
            let mut world = World::new(PLAN);
            world.disk.has_exchange = has_exchange;
            let (before, databases) = (world.tree(), world.databases());
            world.ticks.fail_at(moment);
            let record = world.recover(&["shop"]).expect("begun").remove(0);
            if !world.ticks.has_come() {
                assert!(failures > 20, "{failures}");
                break;
            }
            match record.outcome {
                // What fails when it is in its place already is a warning at most.
                Outcome::Recovered => world.assert_restored(),
                Outcome::Failed => {
                    failures += 1;
                    assert_eq!(world.tree(), before, "moment {moment}: {record:?}");
                    assert_eq!(world.databases().get("live"), databases.get("live"), "moment {moment}");
                    world.assert_nothing_beside();
                }
                other => panic!("moment {moment}: {other:?} {record:?}"),
            }
            assert!(world.is_running(), "moment {moment}: {:?}", world.log());
            assert!(moment + 1 < MOMENTS_MAX);
        }
    }
}

/// Does something, killed at each moment; then `afterwards`.
fn at_each_moment(
    has_exchange: bool,
    prepare: impl Fn(&World),
    act: impl Fn(&World),
    afterwards: impl Fn(&World, usize),
) {
    let mut kills = 0;
    for moment in 1..MOMENTS_MAX {
        let mut world = World::new(PLAN);
        world.disk.has_exchange = has_exchange;
        prepare(&world);
        if !world.killed_at(moment, &act) {
            break;
        }
        kills += 1;
        world.assert_old_or_new(has_exchange, moment);
        afterwards(&world, moment);
    }
    assert!((10..MOMENTS_MAX - 2).contains(&kills), "{kills} kills");
}

#[test]
fn a_kill_at_each_moment_is_undone() {
    for has_exchange in [true, false] {
        let fresh = World::new(PLAN);
        let (before, live) = (fresh.tree(), fresh.databases()["live"].clone());
        let undo = |world: &World, moment| {
            match world.recoverer().rollback(&[]) {
                Ok(records) => {
                    assert_eq!(records[0].outcome, Outcome::RolledBack, "moment {moment}: {records:?}");
                }
                // Before the journal was there nothing was done.
                Err(refused) => assert_eq!(refused.code, "no-recovery", "moment {moment}"),
            }
            assert_eq!(world.tree(), before, "moment {moment}");
            assert_eq!(world.databases()["live"], live, "moment {moment}");
            assert!(world.is_running(), "moment {moment}");
        };
        at_each_moment(has_exchange, |_| {}, |world| drop(world.recover(&["shop"])), undo);
    }
}

#[test]
fn a_kill_at_each_moment_is_gone_on_from() {
    for has_exchange in [true, false] {
        let resume = |world: &World, moment| {
            match world.recoverer().resume(&[]) {
                Ok(records) => {
                    assert_eq!(records[0].outcome, Outcome::Recovered, "moment {moment}: {records:?}");
                }
                Err(refused) => assert_eq!(refused.code, "no-recovery", "moment {moment}"),
            }
            world.assert_restored();
            assert!(world.is_running(), "moment {moment}");
        };
        at_each_moment(has_exchange, |_| {}, |world| drop(world.recover(&["shop"])), resume);
    }
}

#[test]
fn a_kill_at_each_moment_of_the_way_back_is_gone_on_from() {
    let fresh = World::new(PLAN);
    let (before, live) = (fresh.tree(), fresh.databases()["live"].clone());
    for has_exchange in [true, false] {
        for goes_on in ["rollback", "resume"] {
            let finish = |world: &World, moment| {
                let finished = match goes_on {
                    "rollback" => world.recoverer().rollback(&[]),
                    _ => world.recoverer().resume(&[]),
                };
                match finished {
                    Ok(records) => {
                        assert_eq!(records[0].outcome, Outcome::RolledBack, "moment {moment}: {records:?}");
                    }
                    // Its end was on disk, or, for who would resume, its beginning was not.
                    Err(refused) => assert_eq!(refused.code, "no-recovery", "moment {moment}"),
                }
                assert_eq!(world.tree(), before, "moment {moment}");
                assert_eq!(world.databases()["live"], live, "moment {moment}");
                assert!(world.is_running(), "moment {moment}");
                let again = world.recover(&["shop"]).expect("begun").remove(0);
                assert_eq!(again.outcome, Outcome::Recovered, "moment {moment}: {again:?}");
                world.assert_restored();
            };
            let recovered = |world: &World| drop(world.recover(&["shop"]).expect("begun"));
            at_each_moment(has_exchange, recovered, |world| drop(world.recoverer().rollback(&[])), finish);
        }
    }
}
