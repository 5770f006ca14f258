//! Commits that were altered after they were published: nothing is taken away that they may need, nothing passes for what they added,
//! and backups go on. What never was a commit is in nobody's way.

use super::*;
use crate::backend::{Folder, MemoryBackend, ObjectKey};
use crate::backup;
use crate::check::fixture::store_state;
use crate::copy::{self, CopyOptions};
use crate::crypto::Password;
use crate::forget::policy::GroupBy;
use crate::forget::{self, ForgetOptions, Guards, Selection, Wish};
use crate::format::header::HEADER_LEN;
use crate::log::Loss;
use crate::monitor::Silent;
use crate::prune::test_support::{World, assert_restores, at_once, later, noise, options, prune};
use crate::prune::{self, PruneError};
use crate::repair;
use crate::testing::{self, NoCalendar};

/// A repository with three snapshots, of which the first is forgotten, so that a prune finds something to do. The last commit is that of
/// the last one: so few segments are not merged.
fn world() -> (World, Vec<SnapshotId>) {
    let mut world = World::new();
    let repository = world.open();
    let mut ids = Vec::new();
    for night in 0..2 {
        world.write("kept", &noise(1, 5_000));
        world.write("changing", &noise(10 + night, 50_000));
        ids.push(world.back_up(&repository));
    }
    world.forget(&repository, ids[0]);
    world.write("changing", &noise(20, 50_000));
    ids.push(world.back_up(&repository));
    (world, ids)
}

fn last_entry(storage: &MemoryBackend) -> ObjectKey {
    let is_entry = |key: &ObjectKey| key.folder() == Some(Folder::Log);
    storage.objects().into_iter().map(|(key, _)| key).rfind(is_entry).expect("a log")
}

fn forget_one(repository: &Repository, id: SnapshotId) -> Result<(), forget::ForgetError> {
    let options = ForgetOptions {
        wish: Wish::Named(vec![id]),
        selection: Selection::default(),
        group_by: GroupBy::default(),
        guards: Guards::default(),
        dry_run: false,
        reason: String::new(),
    };
    forget::run(repository, &options, &NoCalendar).map(drop)
}

/// Nothing that would make the loss final, or hide it, is done; all else is.
#[track_caller]
fn assert_guarded(world: &World, older: SnapshotId, is_latest_known: bool, expected: LostCommit) {
    let before = world.storage.objects();
    let repository = world.open();
    assert_eq!(repository.lost_commits(), [expected]);
    let is_refusal = |error: &RepositoryError| {
        assert!(error.is_damage() && error.to_string().contains(&format!("log entry {} ", expected.seq)));
        matches!(error, RepositoryError::LostCommit { lost, .. } if *lost == expected)
    };
    for options in [at_once(), later(), prune::PruneOptions { dry_run: true, ..at_once() }] {
        let refused = prune::run(&repository, &options, &Silent).expect_err("what is lost may need packs");
        assert!(matches!(&refused, PruneError::Repository(error) if is_refusal(error)), "{refused}");
    }
    let refused = forget_one(&repository, older).expect_err("what is lost is not counted");
    assert!(matches!(&refused, forget::ForgetError::Repository(error) if is_refusal(error)), "{refused}");
    let latest = repository.find_snapshot("latest");
    assert_eq!(latest.is_ok(), is_latest_known, "{latest:?}");
    let only_latest = CopyOptions { choice: copy::Choice::Latest, dry_run: true, ..CopyOptions::default() };
    let copied = copy::run(&repository, &World::new().open(), &only_latest, &Silent);
    assert_eq!(copied.is_ok(), is_latest_known, "{copied:?}");
    if !is_latest_known {
        assert!(is_refusal(&latest.expect_err("an older one must not pass for it")));
    }
    repository.find_snapshot(&older.to_string()).expect("named by its id");
    assert!(world.storage.objects() == before, "something was changed");
}

#[test]
fn a_lost_commit_is_not_made_final_but_by_who_says_so() {
    // The beginning that all objects share, the kind, the salt, the commitment, the message, its end.
    for at in [0, 8, 20, 60, 100, usize::MAX] {
        let (mut world, ids) = world();
        let key = last_entry(&world.storage);
        world.storage.corrupt(&key, |bytes| {
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 4;
        });
        let lost = LostCommit { seq: key.sequence().expect("an entry"), how: Loss::Altered };
        let older = ids[1];
        world.expected.retain(|id, _| *id == older);
        assert_guarded(&world, older, false, lost);
        // Backups go on, and say so.
        world.write("changing", &noise(30, 50_000));
        let repository = world.open();
        let report = backup::run(&repository, world.paths(), &options(), &Silent).expect("backups go on");
        assert_eq!(report.lost_commits, [lost], "byte {at}");
        assert_eq!(
            repository.find_snapshot("latest").expect("a later one").0,
            report.snapshot.expect("made")
        );
        assert_guarded(&world, older, true, lost);
        // Whoever begins behind the entry knows of it as well.
        store_state(&repository);
        assert_eq!(world.open().void_entries(), [] as [String; 0], "it begins with the state");
        assert_guarded(&world, older, true, lost);
        repair::log::accept_loss(&world.open(), lost.seq).expect("accepted");
        let repository = world.open();
        assert_eq!(repository.lost_commits(), []);
        forget_one(&repository, older).expect("forgotten");
        world.expected.remove(&older);
        prune(&repository, &at_once());
        prune(&repository, &at_once());
        world.verify();
    }
}

#[test]
fn what_cannot_have_been_a_commit_is_in_nobodys_way() {
    let (mut world, ids) = world();
    let junk = || {
        for len in [0, 7, HEADER_LEN - 1] {
            let next = world.open().fold().seq() + 1;
            world.storage.plant(&ObjectKey::log(next), &noise(next, len));
        }
    };
    junk();
    let repository = world.open();
    assert_eq!((repository.void_entries().len(), repository.lost_commits()), (3, vec![]));
    assert_eq!(repository.find_snapshot("latest").expect("known").0, ids[2]);
    forget_one(&repository, ids[1]).expect("forgotten");
    junk();
    prune(&world.open(), &at_once());
    junk();
    let report = backup::run(&world.open(), world.paths(), &options(), &Silent).expect("a backup");
    assert_eq!(report.lost_commits, []);
    world.expected.remove(&ids[1]);
    world.expected.remove(&ids[0]);
    for (id, files) in &world.expected {
        let root = std::os::unix::ffi::OsStrExt::as_bytes(world.source.path().as_os_str());
        assert_restores(&world.open(), *id, files, root);
    }
}

#[test]
fn what_may_have_been_a_commit_stands_in_the_way_until_a_commit_goes_over_it() {
    let (world, ids) = world();
    let seq = world.open().fold().seq() + 1;
    world.storage.plant(&ObjectKey::log(seq), &noise(5, 700));
    assert_guarded(&world, ids[1], false, LostCommit { seq, how: Loss::Doubtful });
    let repository = world.open();
    // Also where another one has gone over it while the backup was at work.
    forget::hold(&world.open(), ids[1], "kept").expect("held");
    world.write("changing", &noise(40, 50_000));
    let report = backup::run(&repository, world.paths(), &options(), &Silent).expect("backups go on");
    assert_eq!(report.lost_commits, [LostCommit { seq, how: Loss::Doubtful }]);
    let repository = world.open();
    assert_eq!(repository.lost_commits(), []);
    prune(&repository, &at_once());
    repository.find_snapshot("latest").expect("known");
}

/// Who reads a log as far as it goes changes nothing, be it damaged or not: neither packs that no snapshot would name, nor states, which
/// then would not fit.
#[test]
fn who_ignores_damage_writes_nothing_unless_there_is_none() {
    let (world, _) = world();
    store_state(&world.open());
    let password = Password::new(testing::PASSWORD.to_vec());
    let whole = world.storage.objects();
    let backend = || Arc::new(world.storage.clone());
    let salvaged =
        Repository::open_salvaged(backend(), &password, testing::environment(8100)).expect("it opens");
    let is_refusal = |error: &RepositoryError| matches!(error, RepositoryError::OnlyReadable { .. });
    world.write("changing", &noise(30, 50_000));
    let refused = backup::run(&salvaged, world.paths(), &options(), &Silent).expect_err("refused");
    assert!(matches!(&refused, backup::BackupError::Repository(error) if is_refusal(error)), "{refused}");
    let refused = prune::run(&salvaged, &at_once(), &Silent).expect_err("refused");
    assert!(matches!(&refused, PruneError::Repository(error) if is_refusal(error)), "{refused}");
    assert!(world.storage.objects() == whole, "something was changed");
    let sound = Repository::open_ignoring_damage(backend(), &password, testing::environment(8101));
    backup::run(&sound.expect("it opens"), world.paths(), &options(), &Silent).expect("nothing is damaged");
    let key = last_entry(&world.storage);
    world.storage.corrupt(&key, |bytes| bytes[100] ^= 4);
    let damaged = Repository::open_ignoring_damage(backend(), &password, testing::environment(8102));
    let damaged = damaged.expect("it opens");
    assert!(damaged.is_salvaged());
    damaged.find_snapshot("latest").expect("as far as it goes");
}

/// An old copy of the folder `keys` may be all that is left of it.
#[test]
fn a_removed_keyslot_gives_the_data_back_only_where_none_in_force_is_left() {
    let (world, _) = world();
    let password = Password::new(b"second".to_vec());
    let id = world.open().add_keyslot(&password, "second", testing::CHEAP).expect("added");
    let key = ObjectKey::keyslot(&id);
    let object = world.storage.read(&key, u64::MAX).expect("there");
    world.open().remove_keyslot(&id.to_string()).expect("removed");
    world.storage.plant(&key, &object);
    let open = |seed| {
        let environment = testing::environment(seed);
        Repository::open_ignoring_damage(Arc::new(world.storage.clone()), &password, environment)
    };
    assert!(matches!(open(8200), Err(RepositoryError::RemovedKeyslot(removed)) if removed == id));
    for slot in world.open().keyslots() {
        world.storage.delete(&ObjectKey::keyslot(&slot.entry.keyslot)).expect("deleted");
    }
    let repository = open(8201).expect("it opens");
    assert!(repository.is_salvaged());
    repository.find_snapshot("latest").expect("one");
}
