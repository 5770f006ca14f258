//! Ends of the log that were lost or altered, and parity that tells: nothing takes their place.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::backend::testing::{Fault, FaultBackend, Operation};
use crate::backend::{Folder, ObjectKey};
use crate::crypto::Password;
use crate::log::{Loss, LostCommit};
use crate::monitor::Silent;
use crate::parity;
use crate::prune;
use crate::prune::test_support::{at_once, options};
use crate::repair::objects;
use crate::repair::objects_tests::{covered, cut_log, keys_of, mend_objects, objects_of, set_overhead};
use crate::repair::test_support::{check_all, flip};
use crate::repo::{Repository, RepositoryError};
use crate::testing;

/// What was published and altered since is not passed over by whoever comes next, as long as it can be had again.
#[test]
fn nothing_is_committed_over_an_altered_entry_that_parity_gives_back() {
    let mut world = covered();
    let last = keys_of(&world.storage, Folder::Log).pop().expect("a log");
    let before = objects_of(&world.storage);
    flip(&world.storage, &last);
    let altered = world.storage.objects();
    let repository = world.open();
    assert!(!repository.void_entries().is_empty());
    assert!(matches!(set_overhead(&repository, 40), Err(RepositoryError::AlteredEntry { .. })));
    crate::backup::run(&repository, world.paths(), &options(), &Silent).expect_err("refused");
    prune::run(&repository, &at_once(), &Silent).expect_err("refused");
    parity::drop_all(&repository, &Silent).expect_err("refused");
    let listed = |objects: &[(ObjectKey, Arc<[u8]>)]| -> Vec<_> {
        // What a backup has stored without committing it is used by the next one.
        let stays = |key: &&ObjectKey| matches!(key.folder(), Some(Folder::Log | Folder::State));
        objects.iter().map(|(key, _)| key).filter(stays).cloned().collect()
    };
    assert_eq!(listed(&world.storage.objects()), listed(&altered));
    assert_eq!(mend_objects(&world.storage, false).left(), 0);
    let back = objects_of(&world.storage);
    assert!(before.iter().all(|object| back.contains(object)));
    world.back_up(&world.open());
    world.verify();
    // What parity cannot give back is noise, as it is without any.
    let last = keys_of(&world.storage, Folder::Log).pop().expect("a log");
    let sidecar = crate::sidecar::key_of(&last).expect("entries have parity");
    flip(&world.storage, &last);
    world.storage.corrupt(&sidecar, |bytes| bytes.fill(0));
    set_overhead(&world.open(), 40).expect("committed");
}

/// Junk of somebody without keys blocks nobody, whatever parity there is of it.
#[test]
fn junk_in_the_next_place_blocks_nobody() {
    let world = covered();
    let next = ObjectKey::log(world.open().fold().seq() + 1);
    world.storage.plant(&next, b"first junk");
    let hash = *blake3::hash(b"first junk").as_bytes();
    let overhead = crate::format::parity::Overhead::default();
    crate::sidecar::store(&world.storage, &next, overhead, &hash).expect("stored");
    set_overhead(&world.open(), 40).expect("committed over it");
    let next = ObjectKey::log(world.open().fold().seq() + 1);
    world.storage.plant(&next, b"first junk");
    crate::sidecar::store(&world.storage, &next, overhead, &hash).expect("stored");
    world.storage.corrupt(&next, |bytes| bytes.reverse());
    set_overhead(&world.open(), 41).expect("committed over it");
}

/// Their parity is all that is left of commits that are lost from the end of the log: nothing takes their place, and no prune
/// deletes it.
#[test]
fn lost_ends_of_the_log_are_found_by_their_parity_and_kept_for_repair() {
    let world = covered();
    let repository = world.open();
    set_overhead(&repository, 40).expect("committed");
    set_overhead(&repository, 30).expect("committed");
    drop(repository);
    let whole = world.storage.objects();
    let lost = cut_log(&world.storage, 2);
    let without = world.storage.objects();
    let repository = world.open();
    let first = repository.fold().seq() + 1;
    assert_eq!(ObjectKey::log(first), lost[0]);
    let refused = |result: Result<u64, RepositoryError>| {
        assert!(matches!(result, Err(RepositoryError::LostEntry { seq }) if seq == first), "{result:?}");
    };
    refused(set_overhead(&repository, 50));
    // Nor does an older snapshot pass for the latest.
    let gone = LostCommit { seq: first, how: Loss::Gone };
    assert_eq!(repository.lost_commits(), [gone]);
    let latest = repository.find_snapshot("latest");
    assert!(matches!(latest, Err(RepositoryError::LostCommit { lost, .. }) if lost == gone), "{latest:?}");
    prune::run(&repository, &at_once(), &Silent).expect_err("refused");
    parity::drop_all(&repository, &Silent).expect_err("refused");
    prune::sweep(&repository).expect("swept");
    assert_eq!(world.storage.objects(), without, "nothing was touched");
    let report = check_all(&repository);
    let told = report.findings.iter().filter(|finding| finding.code == "log-rolled-back");
    assert_eq!(told.filter(|finding| finding.is_damage).count(), 2, "{report:#?}");
    assert!(matches!(
        crate::repair::log::accept_loss(&repository, first),
        Err(crate::repair::RepairError::Repository(RepositoryError::LostEntry { .. }))
    ));
    assert_eq!(mend_objects(&world.storage, false).objects.len(), 2);
    assert_eq!(world.storage.objects(), whole);
    set_overhead(&world.open(), 50).expect("committed");
    world.verify();
}

#[test]
fn the_loss_of_an_end_that_parity_does_not_give_back_can_be_accepted() {
    let world = covered();
    let lost = cut_log(&world.storage, 2);
    for key in &lost {
        let sidecar = crate::sidecar::key_of(key).expect("entries have parity");
        world.storage.corrupt(&sidecar, |bytes| bytes[100..].fill(0));
    }
    let first = world.open().fold().seq() + 1;
    let report = mend_objects(&world.storage, false);
    assert_eq!((report.objects.len(), report.left()), (2, 2), "{report:#?}");
    assert!(matches!(set_overhead(&world.open(), 50), Err(RepositoryError::LostEntry { .. })));
    assert_eq!(crate::repair::log::accept_loss(&world.open(), first).expect("accepted"), first);
    set_overhead(&world.open(), 50).expect("committed");
    assert_eq!(mend_objects(&world.storage, false).left(), 0);
    assert!(check_all(&world.open()).findings.iter().all(|finding| finding.code != "log-rolled-back"));
}

/// What parity gives back is not given up because that cannot be read for a moment.
#[test]
fn an_end_that_parity_gives_back_is_not_accepted_as_lost() {
    let world = covered();
    let lost = cut_log(&world.storage, 1).remove(0);
    let seq = lost.sequence().expect("an entry");
    for n in 1.. {
        let storage = world.storage.snapshot();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = prune::test_support::open(backend);
        // One fails, and the next one, too: what is read in another way then fails as well.
        for _ in 0..2 {
            faults.inject(Fault::nth(n, ErrorKind::TimedOut).in_folder(Folder::Parity));
        }
        crate::repair::log::accept_loss(&repository, seq).expect_err("it is not lost");
        let mending = crate::sidecar::mend(&storage, &lost).unwrap_or_else(|error| panic!("{n}: {error}"));
        mending.test().expect("the entry");
        if faults.fired() == 0 {
            assert!(n > 2, "{n}");
            break;
        }
    }
}

/// A log whose end is lost looks whole: who cannot look whether it is must not say so.
#[test]
fn a_lost_end_that_cannot_be_looked_up_does_not_pass_for_none() {
    let world = covered();
    let lost = cut_log(&world.storage, 1).remove(0);
    for lasts in [false, true] {
        for n in 1.. {
            let backend = FaultBackend::new(world.storage.snapshot());
            let faults = backend.faults();
            let password = Password::new(testing::PASSWORD.to_vec());
            let environment = testing::environment(4713);
            let repository =
                Repository::open_for_check(Arc::new(backend), &password, environment).expect("it opens");
            let inject = || {
                faults.clear();
                let fault = Fault::nth_of(Operation::Stat, n, ErrorKind::TimedOut).in_folder(Folder::Parity);
                faults.inject(if lasts { fault.lasting() } else { fault });
            };
            inject();
            let report = check_all(&repository);
            // Nothing fails for parity that cannot be had at all.
            let is_told = report
                .findings
                .iter()
                .any(|found| found.object == lost.as_str() && (found.is_damage || lasts));
            assert!(is_told, "{lasts}, {n}: {:#?}", report.findings);
            let fired = faults.fired();
            inject();
            let report = objects::run(&repository, true, &Silent).expect("looked at");
            assert!(
                report.objects.iter().any(|found| found.object == lost.as_str()),
                "{lasts}, {n}: {report:?}"
            );
            if fired + faults.fired() == 0 {
                assert!(n > 1, "{n}");
                break;
            }
        }
    }
}
