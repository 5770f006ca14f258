//! Recoveries that were killed and whose data was used before they were gone on with, and ways back on which something fails.

use std::fs;

use super::Outcome;
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
