//! Files in the log's way that nobody with the key has made: they stop nobody, and a check names them. What was an entry stops everybody.

use std::collections::BTreeSet;

use super::*;
use crate::backend::testing::{Call, RecordingBackend};
use crate::backend::{Folder, MemoryBackend, ObjectKey};
use crate::check::{self, CheckOptions, CheckReport};
use crate::format::commit::Change;
use crate::format::parity::{Overhead, SIDECAR_LEN_MAX};
use crate::log::Loss;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{World, at_once, noise, prune};
use crate::sidecar;
use crate::testing;

/// A repository with three snapshots.
fn world() -> World {
    let mut world = World::new();
    for night in 0..3u64 {
        world.write("f", &noise(night, 9_000));
        world.back_up(&world.open());
    }
    world
}

fn checked(world: &World) -> CheckReport {
    let options = CheckOptions { threads: 1, ..CheckOptions::default() };
    check::run(&world.open(), &options, &Silent).expect("checked")
}

/// Objects that a check calls foreign.
fn foreign(report: &CheckReport) -> BTreeSet<String> {
    let is_foreign = |finding: &&check::Damage| finding.code == "foreign-object" && !finding.is_damage;
    report.findings.iter().filter(is_foreign).map(|finding| finding.object.clone()).collect()
}

/// What somebody without keys can leave: anything of their own, and copies of what is there, altered or not.
fn junk(storage: &MemoryBackend, last: u64) -> Vec<Vec<u8>> {
    let mut junk = vec![Vec::new(), b"x".to_vec(), noise(1, 500), noise(2, 3 << 20)];
    for seq in [1, last] {
        let entry = storage.read(&ObjectKey::log(seq), 1 << 20).expect("an entry");
        // In the salt, in the commitment, and behind the header; cut off; and with a salt of another.
        for at in [20, 50, 100] {
            let mut altered = entry.clone();
            altered[at] ^= 4;
            junk.push(altered);
        }
        junk.push(entry[..90].to_vec());
        let mut version = entry.clone();
        version[6] = b'9';
        junk.extend([version, entry]);
    }
    junk
}

#[test]
fn junk_behind_the_end_of_the_log_stops_nobody_and_is_told() {
    let count = junk(&world().storage, 4).len();
    for n in 0..count {
        let mut world = world();
        let last = world.open().fold().seq();
        let junk = &junk(&world.storage, last)[n];
        for seq in [last + 2, last + 3, last + 1000, u64::MAX] {
            world.storage.plant(&ObjectKey::log(seq), junk);
        }
        let report = checked(&world);
        assert!(!report.is_damaged(), "junk {n}: {:#?}", report.findings);
        let named: BTreeSet<String> = [last + 2, last + 3, last + 1000, u64::MAX]
            .map(|seq| ObjectKey::log(seq).as_str().to_owned())
            .into();
        assert_eq!(foreign(&report), named, "junk {n}");
        let repository = world.open();
        prune(&repository, &at_once());
        world.write("f", b"after it");
        world.back_up(&repository);
        // It stands at the end of the log by now, where one that claims a later version stops readers as it always did.
        if junk.get(6) == Some(&b'9') {
            continue;
        }
        world.write("f", b"and behind it");
        world.back_up(&world.open());
        let repository = world.open();
        assert!(repository.fold().seq() > last + 3 && repository.void_entries().len() == 2, "junk {n}");
        assert_eq!(repository.lost_commits(), [], "junk {n}");
        prune(&repository, &at_once());
    }
}

/// Where the next commits would stand, it is in the way until one of these comes behind it, and not for ever.
#[test]
fn junk_at_the_end_of_the_log_passes_for_no_lost_commit() {
    let count = junk(&world().storage, 4).len();
    for n in 0..count {
        let mut world = world();
        let last = world.open().fold().seq();
        let junk = &junk(&world.storage, last)[n];
        // That stops readers as it always did.
        if junk.get(6) == Some(&b'9') {
            continue;
        }
        for seq in [last + 1, last + 2] {
            world.storage.plant(&ObjectKey::log(seq), junk);
        }
        let repository = world.open();
        assert!(repository.lost_commits().iter().all(|lost| lost.how == Loss::Doubtful), "junk {n}");
        world.write("f", b"behind it");
        let latest = world.back_up(&repository);
        let repository = world.open();
        assert_eq!((repository.void_entries().len(), repository.lost_commits()), (2, vec![]), "junk {n}");
        assert_eq!(repository.find_snapshot("latest").expect("known").0, latest);
        let (first, _) = repository.snapshots().expect("read").swap_remove(0);
        world.forget(&repository, first);
        prune(&repository, &at_once());
        world.verify();
    }
}

/// However much of it there is, and however long: what was looked at once is not read again.
#[test]
fn junk_behind_the_end_of_the_log_is_read_once() {
    let world = world();
    let last = world.open().fold().seq();
    let mut copy = world.storage.read(&ObjectKey::log(last), 1 << 20).expect("an entry");
    copy[100] ^= 4;
    copy.resize(600 << 10, 0);
    let mut noise = noise(5, copy.len());
    noise[..16].copy_from_slice(&copy[..16]);
    for seq in last + 2..last + 50 {
        let junk = if seq < last + 46 { &copy } else { &noise };
        world.storage.plant(&ObjectKey::log(seq), junk);
    }
    let backend = RecordingBackend::new(world.storage.clone());
    let recording = backend.recording();
    let repository = testing::open(Arc::new(backend), 1).expect("it opens");
    let long = noise.len() as u64;
    let read_long = recording.take().iter().filter(|call| call.is_read() && call.length == long).count();
    assert_eq!(read_long, 1, "none of the copies, and no more than a look may take");
    let refused = Change::PacksRemoved { packs: vec![PackId::from_bytes([1; 32])] };
    for expected in [1, 1, 1, 0, 0] {
        let tried = repository.commit(&mut |_| Ok(vec![refused.clone()]));
        assert!(matches!(tried, Err(RepositoryError::Fold(_))), "{tried:?}");
        let calls = recording.take();
        let of_log = |call: &&Call| call.is_read() && call.folder == Some(Folder::Log);
        assert_eq!(calls.iter().filter(of_log).filter(|call| call.length == long).count(), expected);
        // Each header once, and those of entries once more where something has to be compared with them.
        let headers = 48 + if expected > 0 { last as usize } else { 0 };
        assert!(calls.iter().filter(of_log).count() <= headers + expected, "{calls:?}");
    }
}

#[test]
fn an_entry_behind_a_gap_stops_everybody_altered_or_not() {
    for at in [None, Some(20), Some(50), Some(100)] {
        let world = world();
        let opened = world.open();
        let last = opened.fold().seq();
        if let Some(at) = at {
            world.storage.corrupt(&ObjectKey::log(last), |bytes| bytes[at] ^= 4);
        }
        world.storage.delete(&ObjectKey::log(last - 1)).expect("deleted");
        // Junk between does not hide it.
        world.storage.plant(&ObjectKey::log(last + 1), b"junk");
        let refused = testing::open(Arc::new(world.storage.clone()), 1);
        let gap = LogError::Gap { missing: last - 1, last };
        match refused {
            Err(RepositoryError::Log(error)) => assert_eq!(error.to_string(), gap.to_string(), "{at:?}"),
            other => panic!("{at:?}: {other:?}"),
        }
    }
}

fn parity_of(seq: u64) -> ObjectKey {
    sidecar::key_of(&ObjectKey::log(seq)).expect("entries have parity")
}

/// A sidecar of something that is no commit, as anybody can make one.
fn parity_of_junk() -> Vec<u8> {
    let (storage, key) = (MemoryBackend::new(), ObjectKey::log(1));
    let object = noise(5, 300);
    storage.plant(&key, &object);
    let overhead = Overhead::from_tenths(30).expect("sane");
    sidecar::store(&storage, &key, overhead, blake3::hash(&object).as_bytes()).expect("stored");
    storage.read(&parity_of(1), SIDECAR_LEN_MAX).expect("a sidecar")
}

#[test]
fn junk_for_parity_of_what_comes_next_stops_nobody_and_is_told() {
    for is_covered in [false, true] {
        for junk in [Vec::new(), b"x".to_vec(), noise(1, 5_000), parity_of_junk()] {
            let mut world = world();
            if is_covered {
                let options = AddOptions { threads: 1, ..AddOptions::default() };
                parity::add(&world.open(), &options, &Silent).expect("added");
            }
            let next = world.open().fold().seq() + 1;
            world.storage.plant(&parity_of(next), &junk);
            let report = checked(&world);
            assert!(!report.is_damaged(), "{:#?}", report.findings);
            assert_eq!(foreign(&report), [parity_of(next).as_str().to_owned()].into());
            world.write("f", b"after it");
            world.back_up(&world.open());
            assert!(world.open().fold().seq() >= next);
            prune(&world.open(), &at_once());
            let report = checked(&world);
            assert!(report.findings.iter().all(|finding| finding.code != "parity-damaged"), "{report:#?}");
            world.verify();
        }
    }
}

/// What is left of a commit that was published stops everybody still.
#[test]
fn parity_of_a_commit_that_is_gone_is_no_junk() {
    let world = world();
    parity::add(&world.open(), &AddOptions { threads: 1, ..AddOptions::default() }, &Silent).expect("added");
    world.open().commit(&mut |_| Ok(vec![Change::ParitySet { overhead: 40 }])).expect("committed");
    let repository = world.open();
    let last = repository.fold().seq();
    assert!(world.storage.stat(&parity_of(last)).is_ok());
    world.storage.delete(&ObjectKey::log(last)).expect("deleted");
    let refused = world.open().commit(&mut |_| Ok(vec![Change::ReserveSet { bytes: 0 }]));
    assert!(matches!(refused, Err(RepositoryError::LostEntry { seq }) if seq == last), "{refused:?}");
    assert!(checked(&world).is_damaged());
    assert!(
        world
            .storage
            .objects()
            .iter()
            .all(|(key, _)| key.folder() != Some(Folder::Log) || key.sequence() < Some(last))
    );
}
