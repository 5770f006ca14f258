//! Reading on what others have committed: whatever fails, the log as it was read and the index are of one moment.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use crate::backend::testing::{Fault, FaultBackend};
use crate::prune::test_support::{World, later, noise, open, prune};

/// Simulation, seed 40005: the log was read on beyond a prune and then could not be read any further, so the index still listed what that
/// had condemned. A backup began there, relied on it, and saw no later prune that would have told.
#[test]
fn a_backup_after_any_failure_relies_on_nothing_that_was_condemned() {
    for n in 1.. {
        let mut world = World::new();
        let back_up_alone = |world: &mut World, name: &str, seed| {
            ["f", "g"].iter().for_each(|other| world.remove(other));
            world.write(name, &noise(seed, 5000));
            let repository = world.open();
            world.back_up(&repository)
        };
        let first = back_up_alone(&mut world, "f", 1);
        let backend = FaultBackend::new(world.storage.clone());
        let faults = backend.faults();
        let behind = open(backend);
        let other = world.open();
        world.forget(&other, first);
        assert!(prune(&world.open(), &later()).packs_condemned > 0);
        back_up_alone(&mut world, "g", 2);
        faults.inject(Fault::nth(n, ErrorKind::TimedOut));
        let has_failed = behind.refresh().is_err();
        faults.clear();
        let of_log: BTreeSet<_> = behind.fold().segments().map(|info| info.segment).collect();
        let of_index: BTreeSet<_> = behind.index().segments().iter().map(|segment| segment.id()).collect();
        assert_eq!(of_log, of_index, "operation {n} fails");
        world.write("f", &noise(1, 5000));
        world.back_up(&behind);
        world.verify();
        if !has_failed {
            assert!(n > 5, "it takes more operations than {n}");
            break;
        }
    }
}
