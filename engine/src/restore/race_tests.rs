//! Somebody who may write into the target changes it all the time while it is restored to: nothing outside of it is touched, and
//! the restore comes to its end.
//!
//! `STRONGROOM_RACE_SECONDS=10` gives each case so long.

use std::fs;
use std::os::unix::fs::symlink;
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

/// Restores again and again while an entry and an impostor change places; returns how often both happened.
fn race(fixture: &Fixture, place: &str, options: &RestoreOptions, time: Duration) -> (u64, u64) {
    let (end, exchanges, mut restores) = (AtomicBool::new(false), AtomicU64::new(0), 0);
    let (entry, parked) = (fixture.target().join(place), fixture.at("parked"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let done = rustix::fs::renameat_with(CWD, &entry, CWD, &parked, RenameFlags::EXCHANGE);
                exchanges.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
            }
        });
        let until = Instant::now() + time;
        while restores == 0 || Instant::now() < until {
            // Entries may fail, and the target may be no directory for a moment.
            let _ = fixture.try_restore("", options, &Listener::default());
            restores += 1;
        }
        end.store(true, Ordering::Relaxed);
    });
    (restores, exchanges.into_inner())
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
                make(&fixture.at("parked"), &fixture.at("outside"));
                let before = fingerprint(&fixture.at("outside"));
                let done = race(&fixture, place, &options, Duration::from_secs_f64(seconds));
                let after = fingerprint(&fixture.at("outside"));
                assert_eq!(after, before, "{name} in the place of {place}, {options:?}");
                (cases, restores, exchanges) = (cases + 1, restores + done.0, exchanges + done.1);
            }
        }
    }
    assert!(exchanges > 0, "nothing was exchanged");
    println!("{cases} cases, {restores} restores, {exchanges} exchanges");
}
