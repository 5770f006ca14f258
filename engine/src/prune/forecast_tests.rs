//! Dry runs against the runs that they are about: the same report, and the bytes that the storage has less in the end.

use std::collections::BTreeSet;

use super::test_support::*;
use super::tests::three_snapshots;
use super::*;
use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::format::commit::Change;
use crate::format::parity::Overhead;
use crate::ids::SegmentId;
use crate::monitor::Silent;
use crate::sidecar;

/// Bytes of packs, segments and their sidecars; of all sidecars where none is wanted, for then they all go.
pub(crate) fn stored(storage: &MemoryBackend) -> i64 {
    let objects = storage.objects();
    let is_counted = |key: &ObjectKey| matches!(key.folder(), Some(Folder::Packs | Folder::Index));
    let others = objects.iter().filter(|(key, _)| !is_counted(key) && key.folder() != Some(Folder::Parity));
    let is_wanted = open(storage.clone()).fold().parity().is_some();
    let of_others: BTreeSet<_> =
        others.filter(|_| is_wanted).filter_map(|(key, _)| sidecar::key_of(key)).collect();
    let counted = objects.iter().filter(|(key, _)| {
        is_counted(key) || key.folder() == Some(Folder::Parity) && !of_others.contains(key)
    });
    counted.map(|(_, bytes)| i64::try_from(bytes.len()).expect("short")).sum()
}

/// Makes a dry run and then the run, and compares what they say with what became of the storage. Returns what the run said.
#[track_caller]
fn compare(storage: &MemoryBackend, options: &PruneOptions, what: &str) -> PruneReport {
    let before = storage.objects();
    let dry = prune(&open(storage.clone()), &PruneOptions { dry_run: true, ..options.clone() });
    assert!(storage.objects() == before, "a dry run changes nothing: {what}");
    let before = stored(storage);
    let real = prune(&open(storage.clone()), options);
    assert_eq!(real.bytes_freed(), before - stored(storage), "{what}: {real:?}");
    let mut expected = PruneReport { dry_run: false, ..dry };
    if dry.packs_repacked > 0 {
        assert!(dry.is_estimate, "{what}: {dry:?}");
        let off = [(dry.bytes_rewritten, real.bytes_rewritten), (dry.bytes_written, real.bytes_written)];
        for (told, was) in off {
            assert!(told.abs_diff(was) <= was / 10 + (16 << 10), "{what}: told {told}, was {was}");
        }
        expected.is_estimate = false;
        (expected.bytes_rewritten, expected.bytes_written) = (real.bytes_rewritten, real.bytes_written);
    }
    assert_eq!(expected, real, "{what}");
    real
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parity {
    None,
    Kept,
    /// Sidecars are there that nobody wants any more.
    GivenUp,
}

/// A repository in which so many of three snapshots are forgotten, with things that dead writers left, and packs that another prune
/// condemned.
fn history(parity: Parity, forgotten: usize, is_untidy: bool) -> MemoryBackend {
    let (mut world, ids) = three_snapshots();
    if parity != Parity::None {
        let add = crate::parity::AddOptions {
            overhead: Some(Overhead::default()),
            threads: 1,
            ..crate::parity::AddOptions::default()
        };
        crate::parity::add(&world.open(), &add, &Silent).expect("added");
    }
    for (at, id) in ids.iter().take(forgotten).enumerate() {
        world.forget(&world.open(), *id);
        if is_untidy && at == 0 {
            prune(&world.open(), &later());
        }
    }
    if is_untidy {
        let (stray, segment) = (PackId::from_bytes([7; 32]), SegmentId::from_bytes([8; 32]));
        world.storage.create(&ObjectKey::pack(&stray), &noise(1, 5000)).expect("stored");
        world.storage.create(&ObjectKey::segment(&segment), &noise(2, 3000)).expect("stored");
    }
    if parity == Parity::GivenUp {
        world.open().commit(&mut |_| Ok(vec![Change::ParitySet { overhead: 0 }])).expect("committed");
    }
    world.storage.clone()
}

#[test]
fn a_dry_run_says_what_the_run_does() {
    let keeping = |options: PruneOptions| PruneOptions { max_unused: Limit::Unlimited, ..options };
    let ways = [at_once(), keeping(at_once()), later(), keeping(later()), PruneOptions::default()];
    let (mut exact, mut rewritten, mut removed, mut waiting) = (0, 0, 0, 0);
    for parity in [Parity::None, Parity::Kept, Parity::GivenUp] {
        for (forgotten, is_untidy) in [(0, false), (1, false), (2, false), (1, true), (2, true), (3, true)] {
            let storage = history(parity, forgotten, is_untidy);
            for (number, options) in ways.iter().enumerate() {
                let what = format!("{parity:?}, {forgotten} forgotten, untidy: {is_untidy}, way {number}");
                let report = compare(&storage.snapshot(), options, &what);
                *(if report.packs_repacked > 0 { &mut rewritten } else { &mut exact }) += 1;
                removed += u64::from(report.packs_removed > 0 && report.bytes_freed() > 100_000);
                waiting += u64::from(report.packs_waiting > 0);
            }
        }
    }
    assert!(
        exact > 20 && rewritten > 10 && removed > 10 && waiting > 10,
        "{exact} {rewritten} {removed} {waiting}"
    );
}

/// One run after the other on one repository, each told before.
#[test]
fn a_dry_run_says_so_again_and_again() {
    let (mut world, ids) = three_snapshots();
    let add = crate::parity::AddOptions {
        overhead: Some(Overhead::default()),
        threads: 1,
        ..crate::parity::AddOptions::default()
    };
    crate::parity::add(&world.open(), &add, &Silent).expect("added");
    for (night, id) in ids.into_iter().enumerate() {
        world.write("more", &noise(500 + night as u64, 40_000));
        world.back_up(&world.open());
        world.forget(&world.open(), id);
        for options in [later(), at_once(), at_once()] {
            compare(&world.storage, &options, &format!("night {night}"));
        }
        world.verify();
    }
    assert_eq!(stored(&world.storage), i64::try_from(total(&world.storage)).expect("short"));
}

/// Bytes of what the log calls part of the index, with parity.
fn total(storage: &MemoryBackend) -> u64 {
    let repository = open(storage.clone());
    let mut packs = BTreeSet::new();
    for segment in repository.index().segments().iter() {
        packs.extend(segment.packs().map(|pack| pack.expect("readable").id));
    }
    let packs = packs.iter().map(|pack| footprint::of(&repository, &ObjectKey::pack(pack)));
    packs.sum::<u64>() + footprint::of_segments(&repository).values().sum::<u64>()
}
