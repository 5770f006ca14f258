//! Writers whose keyslot was removed: what they said before stays, and nothing that they say later counts.

use super::append_only_tests::{append_to, open_with, publish, shared, try_append};
use super::*;
use crate::backend::{Created, ObjectKey};
use crate::backup::{self, BackupError};
use crate::crypto::Password;
use crate::format::commit::Change;
use crate::monitor::Silent;
use crate::prune::test_support::{at_once, options};
use crate::prune::{self, PruneError};
use crate::testing;

/// Whether a backup failed because its keyslot was removed.
fn is_shut_out(error: &BackupError) -> bool {
    matches!(error, BackupError::Repository(RepositoryError::RemovedKeyslot(_)))
}

#[test]
fn replayed_entries_and_those_of_a_removed_keyslot_are_void_and_earlier_ones_stay() {
    let mut world = shared();
    let appender = append_to(&world);
    let own = world.back_up(&appender);
    let seq = appender.fold().seq();
    let replayed = world.storage.read(&ObjectKey::log(seq), 1 << 20).expect("an entry");
    assert!(matches!(world.storage.create(&ObjectKey::log(seq + 1), &replayed), Ok(Created::New)));
    let keyslot = appender.keyslot;
    let repository = world.open();
    repository.remove_keyslot(&keyslot.to_string()).expect("removed");
    assert!(matches!(try_append(world.storage.clone()), Err(RepositoryError::WrongPassword { .. })));
    // It was open all the time, and goes on.
    world.write("d/later", b"later");
    let refused = backup::run(&appender, world.paths(), &options(), &Silent).expect_err("shut out");
    assert!(is_shut_out(&refused), "{refused}");
    let late = publish(&appender, vec![Change::SegmentsReplaced { added: Vec::new(), removed: Vec::new() }]);
    let repository = world.open();
    let told = repository.void_entries();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains(&format!("entry {} ", seq + 1)) && told[1].contains(&format!("entry {late} ")));
    let entry = repository.fold().snapshot(&own).cloned().expect("what it added before stays");
    assert_eq!(entry.appender, Some(appender.writer_id()));
    world.verify_but_void(2);
}

/// Having been able to do everything is no right to do anything.
#[test]
fn a_full_writer_whose_keyslot_was_removed_is_shut_out() {
    let mut world = shared();
    let password = Password::new(b"second".to_vec());
    let keyslot = world.open().add_keyslot(&password, "second", testing::CHEAP).expect("added");
    let second = open_with(world.storage.clone(), &password).expect("it opens");
    let own = world.back_up(&second);
    world.open().remove_keyslot(&keyslot.to_string()).expect("removed");
    world.write("d/later", b"later");
    let refused = backup::run(&second, world.paths(), &options(), &Silent).expect_err("shut out");
    assert!(is_shut_out(&refused), "{refused}");
    let refused = prune::run(&second, &at_once(), &Silent).expect_err("shut out");
    assert!(
        matches!(refused, PruneError::Repository(RepositoryError::RemovedKeyslot(id)) if id == keyslot),
        "{refused}"
    );
    let before = world.open().fold();
    let packs: Vec<PackId> = world.storage.objects().iter().filter_map(|(key, _)| key.pack_id()).collect();
    let late = publish(
        &second,
        vec![
            Change::SnapshotForgotten { snapshot: own, reason: "spite".into() },
            Change::PacksCondemned { packs },
        ],
    );
    let repository = world.open();
    let told = repository.void_entries();
    assert!(told.len() == 1 && told[0].contains(&format!("entry {late} ")), "{told:?}");
    let after = repository.fold();
    assert!(after.snapshots().eq(before.snapshots()) && after.condemned().count() == 0);
    world.verify_but_void(1);
}
