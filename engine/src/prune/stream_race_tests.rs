//! Backups of streams beside prunes that take what they rest on: a stream cannot be read again.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use super::test_support::*;
use super::*;
use crate::backend::{Backend, MemoryBackend, ObjectKey};
use crate::backup::{self, BackupError, BackupOptions, BackupReport, BackupSource, StreamSource};
use crate::browse;
use crate::crypto::Password;
use crate::format::tree::Timestamp;
use crate::ids::SnapshotId;
use crate::monitor::Silent;
use crate::restore;
use crate::source::FilterOptions;
use crate::testing;

/// More than is kept of a stream.
const LONG: usize = 6 << 20;
/// Less.
const SHORT: usize = 500 << 10;

fn stream(bytes: &[u8], outcome: Result<(), String>) -> BackupSource {
    BackupSource::Stream {
        name: b"dump".to_vec(),
        reader: Box::new(Cursor::new(bytes.to_vec())),
        finish: Box::new(|| outcome),
    }
}

fn back_up(repository: &Repository, source: BackupSource) -> Result<BackupReport, BackupError> {
    backup::run(repository, source, &BackupOptions { stream_kept: 1 << 20, ..options() }, &Silent)
}

/// A repository in which a stream of so many bytes was stored, whose snapshot is forgotten: what it stored is in nobody's need.
fn forgotten(len: usize) -> (MemoryBackend, Vec<u8>) {
    let world = World::new();
    let bytes = noise(1, len);
    let repository = world.open();
    let report = back_up(&repository, stream(&bytes, Ok(()))).expect("a backup");
    forget(&repository, report.snapshot.expect("a snapshot"));
    (world.storage, bytes)
}

/// The stream's content as a restore gives it.
#[track_caller]
fn assert_holds(storage: &MemoryBackend, id: SnapshotId, expected: &[u8]) {
    let repository = open(storage.clone());
    let (_, snapshot) = repository.find_snapshot(&id.to_string()).expect("it is there");
    assert!(browse::lookup(repository.reader(), &snapshot.tree, b"dump").expect("readable").is_some());
    let target = tempfile::tempdir().expect("a folder");
    restore::run(&repository, &snapshot, b"", target.path(), &Default::default(), &Silent).expect("restored");
    assert!(std::fs::read(target.path().join("dump")).expect("readable") == expected);
    verify(storage, &Default::default(), b"");
}

/// Prunes at each commit of the run: nothing is lost, however long the stream and whenever that is.
#[test]
fn a_stream_beside_prunes_without_grace_is_stored() {
    for len in [SHORT, LONG] {
        for moments in [&[0][..], &[1], &[0, 1], &[2], &[0, 1, 2, 3]] {
            let (storage, bytes) = forgotten(len);
            let hooked = Hooked::new(&storage);
            for moment in 0..4 {
                let (storage, is_one) = (storage.clone(), moments.contains(&moment));
                hooked.before_create(a_commit, move || {
                    for _ in 0..if is_one { 2 } else { 0 } {
                        prune(&open(storage.clone()), &at_once());
                    }
                });
            }
            let report = back_up(&open(hooked), stream(&bytes, Ok(()))).expect("a backup");
            assert_holds(&storage, report.snapshot.expect("a snapshot"), &bytes);
            // It has ended, so nobody is waited for.
            let repository = open(storage.clone());
            prune(&repository, &at_once());
            prune(&repository, &at_once());
            assert_eq!(repository.fold().condemned().count(), 0, "{len} bytes, at {moments:?}");
            let (stored, listed) = packs(&storage);
            assert_eq!(stored, listed);
        }
    }
}

/// The same of a stream beside files.
#[test]
fn files_and_streams_beside_a_prune_are_stored() {
    for len in [SHORT, LONG] {
        let (storage, bytes) = forgotten(len);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("f"), b"beside it").expect("a file");
        let hooked = Hooked::new(&storage);
        for _ in 0..3 {
            let storage = storage.clone();
            hooked.before_create(a_commit, move || {
                prune(&open(storage), &at_once());
            });
        }
        let root = backup::SourceRoot::at(folder.path().to_owned());
        let (reader, finish) = (Box::new(Cursor::new(bytes.clone())), Box::new(|| Ok(())));
        let streams = vec![StreamSource { name: b"dump".to_vec(), reader, finish }];
        let (filter, accept) = (FilterOptions::default(), Box::new(|_: &_| Ok(())));
        let source = BackupSource::Parts { roots: vec![root], filter, instead: Vec::new(), streams, accept };
        let report = back_up(&open(hooked), source).expect("a backup");
        assert_holds_beside(&storage, report.snapshot.expect("a snapshot"), &bytes);
    }
}

#[track_caller]
fn assert_holds_beside(storage: &MemoryBackend, id: SnapshotId, expected: &[u8]) {
    let repository = open(storage.clone());
    let (_, snapshot) = repository.find_snapshot(&id.to_string()).expect("it is there");
    let target = tempfile::tempdir().expect("a folder");
    restore::run(&repository, &snapshot, b"", target.path(), &Default::default(), &Silent).expect("restored");
    assert!(std::fs::read(target.path().join("dump")).expect("readable") == expected);
    verify(storage, &Default::default(), b"");
}

/// The repository as somebody sees it whose clock is so much ahead.
fn open_later(storage: &MemoryBackend, seconds: i64) -> Repository {
    let environment = testing::environment(77_000);
    let clock = Arc::clone(&environment.now);
    let now = move || Timestamp { seconds: clock().seconds + seconds, nanos: 0 };
    let environment = crate::repo::Environment { now: Arc::new(now), ..environment };
    let password = Password::new(testing::PASSWORD.to_vec());
    Repository::open(Arc::new(storage.clone()), &password, environment).expect("it opens")
}

/// One that is killed is waited for a day, and one that fails is not.
#[test]
fn a_stream_that_never_comes_to_its_end_is_waited_for_a_day() {
    let (storage, bytes) = forgotten(LONG);
    let failed = back_up(&open(storage.clone()), stream(&bytes, Err("exit status 1".into())));
    assert!(matches!(failed, Err(BackupError::Stream { .. })), "{failed:?}");
    let copy = storage.clone();
    let hooked = Hooked::new(&storage);
    // From its second commit on nothing of it gets through.
    hooked.before_create(a_commit, || {});
    hooked.before_create(a_commit, || panic!("killed"));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        back_up(&open(hooked), stream(&bytes, Ok(())))
    }));
    assert!(result.is_err(), "{result:?}");
    let report = prune(&open(copy.clone()), &at_once());
    assert!(report.packs_condemned > 0 && report.packs_removed == 0, "{report:?}");
    let dry = prune(&open(copy.clone()), &PruneOptions { dry_run: true, ..at_once() });
    assert_eq!(dry.packs_removed, 0, "{dry:?}");
    // Unless nobody wants to wait.
    let now = PruneOptions { waits: false, ..at_once() };
    let dry = prune(&open(copy.clone()), &PruneOptions { dry_run: true, ..now.clone() });
    assert!(dry.packs_removed > 0, "{dry:?}");
    let report = prune(&open(copy.snapshot()), &now);
    assert_eq!(
        (report.packs_removed, report.bytes_deleted),
        (dry.packs_removed, dry.bytes_deleted),
        "{report:?}"
    );
    let report = prune(&open_later(&copy, 2 * 24 * 3600), &at_once());
    assert!(report.packs_removed > 0, "{report:?}");
}

/// One that is alive all the same finds out, and commits nothing that lacks something.
#[test]
fn a_stream_that_nobody_waits_for_fails_or_is_stored() {
    let mut failures = 0;
    for moment in 0..4 {
        let (storage, bytes) = forgotten(LONG);
        let hooked = Hooked::new(&storage);
        for now in 0..=moment {
            let storage = storage.clone();
            hooked.before_create(a_commit, move || {
                if now == moment {
                    prune(&open(storage), &PruneOptions { waits: false, ..at_once() });
                }
            });
        }
        match back_up(&open(hooked), stream(&bytes, Ok(()))) {
            Ok(report) => assert_holds(&storage, report.snapshot.expect("a snapshot"), &bytes),
            Err(error) => {
                failures += 1;
                assert!(matches!(error, BackupError::Repository(_)), "{error:?}");
                verify(&storage, &Default::default(), b"");
            }
        }
    }
    assert!(failures > 0, "it was robbed at some moment");
}

/// A prune whose grace is longer than a stream takes has nothing to wait for.
#[test]
fn a_stream_beside_a_prune_with_grace_rescues_what_it_needs() {
    let (storage, bytes) = forgotten(LONG);
    let hooked = Hooked::new(&storage);
    for _ in 0..3 {
        let storage = storage.clone();
        hooked.before_create(a_commit, move || {
            prune(&open(storage), &later());
        });
    }
    let report = back_up(&open(hooked), stream(&bytes, Ok(()))).expect("a backup");
    assert_holds(&storage, report.snapshot.expect("a snapshot"), &bytes);
    let options = PruneOptions { grace: Duration::ZERO, ..at_once() };
    prune(&open(storage.clone()), &options);
    assert_holds(&storage, report.snapshot.expect("a snapshot"), &bytes);
}

/// What nobody needed of a stream that is short enough costs no word in the log.
#[test]
fn a_short_stream_takes_one_commit() {
    let world = World::new();
    let before = world.open().fold().seq();
    back_up(&world.open(), stream(&noise(3, SHORT), Ok(()))).expect("a backup");
    assert_eq!(world.open().fold().seq(), before + 1);
    back_up(&world.open(), stream(&noise(4, LONG), Ok(()))).expect("a backup");
    assert_eq!(world.open().fold().seq(), before + 3);
    assert!(world.storage.stat(&ObjectKey::log(before + 3)).is_ok());
}
