//! Prunes among random backups and forgets, what they free, what they refuse, and power cuts at every operation.

use std::ops::ControlFlow;

use super::test_support::*;
use super::*;
use crate::backend::testing::CrashBackend;
use crate::backend::testing::crash::Outcome as Crash;
use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::backup::{self, BackupOptions, SnapshotLabels};
use crate::browse;
use crate::format::chunk_list;
use crate::format::tree::{NodeKind, Timestamp};
use crate::ids::PackId;
use crate::monitor::Silent;

/// A source of eight files in which some chunks stay and some go from snapshot to snapshot.
pub(super) fn three_snapshots() -> (World, Vec<crate::ids::SnapshotId>) {
    let mut world = World::new();
    let repository = world.open();
    let mut ids = Vec::new();
    for night in 0..3u64 {
        for file in 0..8u64 {
            // Half of the files never change, half do every night; text compresses, noise does not.
            let seed = if file % 2 == 0 { file } else { 100 * (night + 1) + file };
            let mut content = noise(seed, 30_000);
            content.extend(format!("{seed} ").repeat(500).into_bytes());
            world.write(&format!("d{}/f{file}", file / 4), &content);
        }
        ids.push(world.back_up(&repository));
    }
    (world, ids)
}

/// Clocks say nothing of what came last.
#[test]
fn the_latest_snapshot_is_the_one_committed_last_whatever_its_time() {
    let mut world = World::new();
    world.write("f", b"first");
    let now = world.back_up(&world.open());
    assert_eq!(world.open().find_snapshot("latest").expect("one").0, now);
    world.write("f", b"second");
    let labels =
        SnapshotLabels { time: Some(Timestamp { seconds: 5, nanos: 0 }), ..SnapshotLabels::default() };
    let report = backup::run(&world.open(), world.paths(), &BackupOptions { labels, ..options() }, &Silent);
    let old = report.expect("a backup").snapshot.expect("a snapshot");
    let (latest, record) = world.open().find_snapshot("latest").expect("two");
    assert_eq!((latest, record.time.seconds, record.parent), (old, 5, Some(now)));
}

#[test]
fn what_only_forgotten_snapshots_needed_is_freed() {
    let (mut world, ids) = three_snapshots();
    let repository = world.open();
    let report = prune(&repository, &at_once());
    assert_eq!((report.packs_dead, report.packs_repacked, report.packs_removed), (0, 0, 0), "all is needed");
    world.forget(&repository, ids[1]);
    let dry = prune(&repository, &PruneOptions { dry_run: true, ..at_once() });
    assert!(dry.packs_dead + dry.packs_repacked > 0 && dry.packs_removed > 0, "{dry:?}");
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed, "a dry run changes nothing");
    let before: u64 = world.storage.objects().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let report = prune(&repository, &at_once());
    let after: u64 = world.storage.objects().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert!(before - after > 100_000, "four files of the second night are gone: {before} {after}");
    assert_eq!((report.packs_condemned, report.packs_waiting), (report.packs_removed, 0));
    assert_eq!(report.packs_dead, dry.packs_dead);
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed);
    world.verify();
    let report = prune(&repository, &at_once());
    assert_eq!((report.packs_condemned, report.unused_bytes), (0, 0), "nothing is left to do: {report:?}");
}

#[test]
fn partly_needed_packs_stay_within_the_limit_and_are_rewritten_beyond() {
    let (mut world, ids) = three_snapshots();
    let repository = world.open();
    world.forget(&repository, ids[0]);
    world.forget(&repository, ids[1]);
    let keep_all = PruneOptions { max_unused: Limit::Unlimited, ..at_once() };
    let report = prune(&repository, &keep_all);
    assert_eq!((report.packs_repacked, report.bytes_rewritten), (0, 0));
    assert!(report.packs_dead > 0 && report.unused_bytes > 100_000, "{report:?}");
    world.verify();
    let no_room = PruneOptions { max_repack_size: Some(0), ..at_once() };
    assert_eq!(prune(&repository, &no_room).packs_repacked, 0);
    let report = prune(&repository, &at_once());
    assert!(report.packs_repacked > 0 && report.bytes_rewritten < report.packs_repacked_bytes, "{report:?}");
    world.verify();
    // One chunk in two places is none too many, but not needed twice.
    let all = PruneOptions { max_unused: Limit::Percent(0.0), ..at_once() };
    assert_eq!(prune(&repository, &all).packs_repacked, 0);
}

#[test]
fn condemned_packs_wait_for_their_grace() {
    let (mut world, ids) = three_snapshots();
    world.forget(&world.open(), ids[0]);
    let report = prune(&world.open(), &later());
    assert!(report.packs_condemned > 0 && report.packs_removed == 0, "{report:?}");
    assert_eq!(report.packs_waiting, report.packs_condemned);
    let (stored, listed) = world.packs();
    assert_eq!(stored as u64, listed as u64 + report.packs_condemned);
    world.verify();
    let second = prune(&world.open(), &later());
    assert_eq!((second.packs_condemned, second.packs_removed), (0, 0), "an hour is not over");
    let third = prune(&world.open(), &at_once());
    assert_eq!(third.packs_removed, report.packs_condemned);
    world.verify();
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed);
}

#[test]
fn pruning_an_empty_repository_does_nothing() {
    let world = World::new();
    assert_eq!(prune(&world.open(), &at_once()), PruneReport::default());
    assert_eq!(world.open().fold().seq(), 1);
}

#[test]
fn strays_go_in_two_runs() {
    let (world, _) = three_snapshots();
    let (stray, segment) = (PackId::from_bytes([7; 32]), crate::ids::SegmentId::from_bytes([8; 32]));
    world.storage.create(&ObjectKey::pack(&stray), b"left by a backup that was killed").expect("stored");
    world.storage.create(&ObjectKey::segment(&segment), b"the same").expect("stored");
    let report = prune(&world.open(), &at_once());
    assert_eq!((report.packs_stray, report.segments_stray, report.packs_removed), (1, 1, 0));
    assert!(world.storage.stat(&ObjectKey::pack(&stray)).is_ok(), "it may be that of a writer at work");
    assert!(world.storage.stat(&ObjectKey::segment(&segment)).is_err());
    let report = prune(&world.open(), &at_once());
    assert_eq!((report.packs_stray, report.packs_removed), (0, 1));
    assert!(world.storage.stat(&ObjectKey::pack(&stray)).is_err());
    world.verify();
}

/// What is planned does not depend on how much memory ids are gathered in, nor on where the others wait.
#[test]
fn a_prune_that_gathers_in_a_file_plans_the_same() {
    let (mut world, ids) = three_snapshots();
    world.forget(&world.open(), ids[0]);
    let planned = |memory, spill: Option<&str>| {
        let options = PruneOptions { dry_run: true, memory, spill: spill.map(Into::into), ..at_once() };
        run(&world.open(), &options, &Silent)
    };
    let expected = planned(crate::budget::USUAL, None).expect("planned");
    assert!(expected.packs_dead + expected.packs_repacked > 0, "{expected:?}");
    let folder = tempfile::tempdir().expect("a folder");
    for memory in [1, 300, 2000] {
        assert_eq!(planned(memory, folder.path().to_str()).expect("planned"), expected, "{memory}");
        assert_eq!(planned(memory, None).expect("planned"), expected, "{memory}");
        let error =
            planned(memory, Some("/no/such/place")).expect_err("nothing can be kept there").to_string();
        assert!(error.contains("nothing was pruned") && error.contains("/no/such/place"), "{error}");
    }
    assert_eq!(planned(crate::budget::USUAL, Some("/no/such/place")).expect("it is not needed"), expected);
}

#[test]
fn a_missing_pack_stops_a_prune_before_it_changes_anything() {
    let (mut world, ids) = three_snapshots();
    world.forget(&world.open(), ids[0]);
    // A data pack that the last snapshot needs.
    let repository = world.open();
    let (_, snapshot) = repository.find_snapshot("latest").expect("there");
    let mut first = None;
    browse::list(repository.reader(), &snapshot.tree, b"", true, &mut |path, node| {
        if let (true, NodeKind::File(file)) = (path.ends_with(b"d0/f0"), &node.kind) {
            first = chunk_list::chunks(&file.chunks).expect("whole").next();
        }
        ControlFlow::Continue(())
    })
    .expect("listed");
    let chunk = first.expect("the file has content").expect("a chunk").id;
    let pack = repository.index().get(&chunk).expect("readable").expect("stored").pack.id;
    world.storage.delete(&ObjectKey::pack(&pack)).expect("deleted");
    let before = world.storage.objects();
    let result = run(&world.open(), &at_once(), &Silent);
    assert!(matches!(result, Err(PruneError::Missing { .. })), "{result:?}");
    assert!(world.storage.objects() == before);
}

#[test]
fn a_damaged_pack_is_never_given_up_for_a_copy_of_it() {
    let (mut world, ids) = three_snapshots();
    world.forget(&world.open(), ids[0]);
    world.forget(&world.open(), ids[1]);
    let packs: Vec<_> = world
        .storage
        .objects()
        .into_iter()
        .filter(|(key, bytes)| a_pack(key) && bytes.len() > 100_000)
        .collect();
    for (key, _) in &packs {
        world.storage.corrupt(key, |bytes| bytes[200] ^= 1);
    }
    let result = run(&world.open(), &at_once(), &Silent);
    assert!(matches!(result, Err(PruneError::Read(_))), "{result:?}");
    for (key, _) in &packs {
        assert!(world.storage.stat(key).is_ok());
    }
    assert_eq!(world.open().fold().condemned().count(), 0);
}

#[test]
fn a_forged_state_is_no_reason_to_delete() {
    let (world, ids) = three_snapshots();
    let repository = world.open();
    // What a holder of a removed keyslot can do: a state that leaves a snapshot out.
    let mut state = repository.fold().to_state();
    state.snapshots.retain(|entry| entry.snapshot != ids[0]);
    let object = crate::format::record::seal_object(
        crate::format::header::ObjectKind::State,
        &state,
        &repository.sealer(),
    )
    .expect("short");
    world.storage.create(&ObjectKey::state(state.seq), &object).expect("planted");
    let deceived = world.open();
    assert_eq!(deceived.snapshots().expect("readable").len(), 2, "it was deceived");
    let dry = PruneOptions { dry_run: true, ..at_once() };
    for options in [dry, at_once()] {
        assert!(matches!(run(&deceived, &options, &Silent), Err(PruneError::ForgedState)));
    }
    // Nobody is deceived any more.
    assert_eq!(world.open().snapshots().expect("readable").len(), 3);
    assert!(world.storage.stat(&ObjectKey::state(state.seq)).is_err());
    prune(&world.open(), &at_once());
    world.verify();
}

/// Random nights: after each step every snapshot gives back what it has to, and a full check is clean.
fn random_nights(seed: u64, steps: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new();
    let mut repository = world.open();
    for step in 0..steps {
        match random.below(10) {
            0..5 => {
                for _ in 0..1 + random.below(5) {
                    let name = format!("d{}/f{}", random.below(3), random.below(4));
                    let seed = random.below(40);
                    let len = usize::try_from(random.below(60_000)).expect("small");
                    match random.below(5) {
                        0 => world.remove(&name),
                        1 => world.write(&name, format!("{seed} ").repeat(len / 4).as_bytes()),
                        _ => world.write(&name, &noise(seed, len)),
                    }
                }
                world.write("always", &step.to_le_bytes());
                world.back_up(&repository);
            }
            5..7 if !world.expected.is_empty() => {
                let at = usize::try_from(random.below(world.expected.len() as u64)).expect("small");
                let id = *world.expected.keys().nth(at).expect("below their number");
                world.forget(&repository, id);
            }
            7..9 => {
                let limits = [Limit::Bytes(0), Limit::Percent(5.0), Limit::Percent(30.0), Limit::Unlimited];
                let max_unused = limits[usize::try_from(random.below(4)).expect("small")];
                let max_repack_size = [None, Some(100_000)][usize::from(random.below(3) == 0)];
                let options = if random.below(2) == 0 { at_once() } else { later() };
                prune(&repository, &PruneOptions { max_unused, max_repack_size, ..options });
            }
            _ => repository = world.open(),
        }
        world.verify();
    }
    prune(&repository, &at_once());
    prune(&repository, &at_once());
    world.verify();
    let (stored, listed) = world.packs();
    assert_eq!(stored, listed, "seed {seed}");
}

#[test]
fn random_nights_lose_nothing() {
    for seed in 0..6 {
        random_nights(seed, 14);
    }
}

/// Many seeds: `cargo test --release -p strongroom --lib prune::tests -- --ignored`, `SEEDS=n` for their number.
#[test]
#[ignore = "takes minutes"]
fn many_random_nights_lose_nothing() {
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    for seed in 1000..1000 + seeds {
        random_nights(seed, 25);
    }
}

/// borg #9748 and #9904: a compaction that was interrupted left an index that named what was gone; a later backup took that for stored,
/// and ended with code 0 and wrong data. Here power is cut at every create and delete of a prune, in all ways it can end, and
/// what the prune was to take is backed up again: by who opens the repository then, and by who had opened it before.
#[test]
fn borg_9748_and_9904_power_cuts_at_every_operation_leave_no_stale_index() {
    power_cuts(None, &Crash::ALL);
}

/// The same with parity, which has to be gone in the end with what it was made of.
#[test]
fn power_cuts_at_every_operation_leave_no_stale_parity() {
    let outcomes = [Crash::ALL[0], Crash::ALL[3]];
    power_cuts(Some(crate::format::parity::Overhead::default()), &outcomes);
}

/// Makes one storage what another one is, under the hands of who has it open.
fn become_another(storage: &MemoryBackend, other: &MemoryBackend) {
    for (key, _) in storage.objects() {
        storage.delete(&key).expect("deleted");
    }
    other.objects().iter().for_each(|(key, bytes)| storage.plant(key, bytes));
}

fn power_cuts(parity: Option<crate::format::parity::Overhead>, outcomes: &[Crash]) {
    let (mut world, ids) = three_snapshots();
    if let Some(overhead) = parity {
        let add = crate::parity::AddOptions {
            overhead: Some(overhead),
            threads: 1,
            ..crate::parity::AddOptions::default()
        };
        crate::parity::add(&world.open(), &add, &Silent).expect("added");
    }
    let forgotten = world.expected[&ids[0]].clone();
    world.forget(&world.open(), ids[0]);
    world.forget(&world.open(), ids[1]);
    world.storage.create(&ObjectKey::pack(&PackId::from_bytes([7; 32])), b"stray").expect("stored");
    // What the prune is to take is there again.
    for (name, content) in &forgotten {
        world.write(name, content);
    }
    let root = world.source.path().as_os_str().as_encoded_bytes().to_vec();
    let count = {
        let crash = std::sync::Arc::new(CrashBackend::new(world.storage.snapshot()));
        prune(&open(std::sync::Arc::clone(&crash)), &at_once());
        crash.mutations()
    };
    assert!(count > 8, "{count} operations");
    for stop in 1..=count {
        let crash = std::sync::Arc::new(CrashBackend::new(world.storage.snapshot()));
        let repository = open(std::sync::Arc::clone(&crash));
        crash.stop_at(stop);
        let _ = run(&repository, &at_once(), &Silent);
        assert!(crash.is_stopped());
        for &outcome in outcomes {
            let storage = crash.crash(outcome);
            verify(&storage, &world.expected, &root);
            for is_fresh in [true, false] {
                // A handle opened before is that of a process on another machine, which goes on behind an interrupted prune.
                let (storage, repository) = match is_fresh {
                    true => {
                        let storage = storage.snapshot();
                        (storage.clone(), open(storage))
                    }
                    false => {
                        let stale = world.storage.snapshot();
                        let repository = open(stale.clone());
                        become_another(&stale, &storage);
                        (stale, repository)
                    }
                };
                let report = backup::run(&repository, world.paths(), &options(), &Silent);
                let report = report.unwrap_or_else(|error| panic!("cut at {stop}, {outcome:?}: {error}"));
                let mut expected = world.expected.clone();
                expected.insert(report.snapshot.expect("it has changed"), forgotten.clone());
                verify(&storage, &expected, &root);
            }
            let repository = open(storage.clone());
            prune(&repository, &at_once());
            prune(&repository, &at_once());
            if parity.is_some() {
                let add = crate::parity::AddOptions {
                    overhead: None,
                    threads: 1,
                    ..crate::parity::AddOptions::default()
                };
                crate::parity::add(&repository, &add, &Silent).expect("made good");
                let status = crate::parity::status(&repository).expect("counted");
                assert_eq!(status.others, 0, "cut at {stop}, {outcome:?}: {status:?}");
            }
            verify(&storage, &world.expected, &root);
            let (stored, listed) = packs(&storage);
            assert_eq!(stored, listed, "cut at {stop}, {outcome:?}");
            let segments =
                storage.objects().iter().filter(|(key, _)| key.folder() == Some(Folder::Index)).count();
            assert_eq!(segments, open(storage).fold().segments().count(), "cut at {stop}, {outcome:?}");
        }
    }
}

/// kopia #1949: after a clock jump, maintenance took live data for old garbage. Here a clock that is years ahead or
/// behind decides only when condemned packs go.
#[test]
fn kopia_1949_no_clock_makes_prune_take_what_is_needed() {
    for seconds in [0, 4_000_000_000] {
        let (mut world, ids) = three_snapshots();
        world.forget(&world.open(), ids[0]);
        prune(&world.open(), &later());
        let mut environment = crate::testing::environment(5);
        environment.now = std::sync::Arc::new(move || Timestamp { seconds, nanos: 0 });
        let password = crate::crypto::Password::new(crate::testing::PASSWORD.to_vec());
        let storage = std::sync::Arc::new(world.storage.clone());
        let repository = Repository::open(storage, &password, environment).expect("it opens");
        let report = prune(&repository, &later());
        assert_eq!(report.packs_removed > 0, seconds > 0, "{report:?}");
        assert_eq!(report.packs_condemned, 0);
        world.verify();
    }
}
