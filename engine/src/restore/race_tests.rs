//! Somebody who may write into the target changes it all the time while it is restored to: nothing outside of it is touched, and
//! the restore comes to its end.
//!
//! `STRONGROOM_RACE_SECONDS=10` gives each case so long.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, RenameFlags};

use super::test_support::{Builder, Fixture, Listener, noise};
use super::{Overwrite, RestoreOptions};
use crate::target::test_support::fingerprint;

/// Makes something at a path, given the directory outside.
type Impostor = fn(&Path, &Path);

/// What is put in the place of an entry.
const IMPOSTORS: [(&str, Impostor); 4] = [
    ("a link to a directory outside", |at, outside| symlink(outside, at).unwrap()),
    ("a link to a file outside", |at, outside| symlink(outside.join("victim"), at).unwrap()),
    ("another name of a file outside", |at, outside| fs::hard_link(outside.join("victim"), at).unwrap()),
    ("a pipe", |at, _| rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap()),
];

/// How long a race goes on at most until an entry and an impostor have changed places once.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of the target changes.
const PLACES: [&str; 4] = ["sub", "sub/deep", "sub/deep/victim", "file"];

fn options() -> [RestoreOptions; 4] {
    let plain = RestoreOptions { threads: 2, ..RestoreOptions::default() };
    [
        RestoreOptions { overwrite: Overwrite::IfChanged, ..plain.clone() },
        RestoreOptions { delete: true, ..plain.clone() },
        RestoreOptions { verify: true, ..plain.clone() },
        plain,
    ]
}

/// `sub/deep/victim`, and files around it, one of them with two names.
fn fixture() -> Fixture {
    let mut b = Builder::new();
    let victim = b.file("victim", &noise(1, 5000), 1000);
    let other = b.file("other", &noise(2, 3000), 1000);
    let deep = b.directory("deep", vec![other, victim]);
    let beside = b.file("beside", b"beside", 9);
    let sub = b.directory("sub", vec![beside, deep]);
    let file = b.file("file", b"at the top", 3);
    let fixture = b.finish(vec![file, sub]);
    fs::create_dir(fixture.at("outside")).unwrap();
    for name in ["victim", "other", "beside", "file"] {
        fs::write(fixture.at("outside").join(name), "precious").unwrap();
    }
    fixture
}

/// Type and inode of what is there.
fn identity(at: &Path) -> Option<(fs::FileType, u64)> {
    fs::symlink_metadata(at).ok().map(|found| (found.file_type(), found.ino()))
}

/// Puts an impostor where one was that the restore has put something else in the place of.
fn put_anew(make: Impostor, at: &Path, outside: &Path) {
    // A folder that is being restored to may fill meanwhile: the next turn comes.
    if fs::remove_file(at).is_ok() || fs::remove_dir_all(at).is_ok() {
        make(at, outside);
    }
}

/// Restores again and again while an entry and an impostor change places; returns how often that came to an end, and how often they did.
fn race(
    fixture: &Fixture,
    place: &str,
    make: Impostor,
    options: &RestoreOptions,
    time: Duration,
) -> (u64, u64) {
    let (end, exchanges, mut restores, mut ended) = (AtomicBool::new(false), AtomicU64::new(0), 0, 0);
    let (entry, parked) = (fixture.target().join(place), fixture.at("parked"));
    let outside = fixture.at("outside");
    make(&parked, &outside);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut impostor, mut absent) = (identity(&parked), 0);
            while !end.load(Ordering::Relaxed) {
                // It is here every other time, as long as it is.
                absent = if identity(&parked) == impostor { 0 } else { absent + 1 };
                if absent > 1 {
                    put_anew(make, &parked, &outside);
                    impostor = identity(&parked);
                }
                let done = rustix::fs::renameat_with(CWD, &entry, CWD, &parked, RenameFlags::EXCHANGE);
                exchanges.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
            }
        });
        let begun = Instant::now();
        let goes_on = |restores| match begun.elapsed() {
            taken if taken < time || restores == 0 => true,
            taken => exchanges.load(Ordering::Relaxed) == 0 && taken < PATIENCE,
        };
        while goes_on(restores) {
            // Entries may fail, and the target may be no directory for a moment.
            ended += u64::from(fixture.try_restore("", options, &Listener::default()).is_ok());
            restores += 1;
        }
        end.store(true, Ordering::Relaxed);
    });
    (ended, exchanges.into_inner())
}

#[test]
fn nothing_outside_is_touched_while_somebody_changes_the_target() {
    let seconds =
        std::env::var("STRONGROOM_RACE_SECONDS").map_or(0.05, |text| text.parse().expect("a number"));
    let (mut cases, mut restores, mut exchanges) = (0, 0, 0);
    for place in PLACES {
        for (name, make) in IMPOSTORS {
            for options in options() {
                let fixture = fixture();
                fixture.restore_well(&RestoreOptions::default());
                let before = fingerprint(&fixture.at("outside"));
                let done = race(&fixture, place, make, &options, Duration::from_secs_f64(seconds));
                let after = fingerprint(&fixture.at("outside"));
                assert_eq!(after, before, "{name} in the place of {place}, {options:?}");
                assert!(done.1 > 0, "{name} was never in the place of {place}, {options:?}");
                (cases, restores, exchanges) = (cases + 1, restores + done.0, exchanges + done.1);
            }
        }
    }
    println!("{cases} cases, {restores} restores, {exchanges} exchanges");
    assert!(restores >= cases, "restores have to come to an end");
}
