//! What is found, what of it is added, and what is only shown.

use std::collections::HashSet;

use super::*;
use crate::backend::Backend;
use crate::crypto::Password;
use crate::format::header::ObjectKind;
use crate::ids::BlobId;
use crate::index;
use crate::monitor::Silent;
use crate::prune::test_support::{Hooked, World, a_commit, assert_restores, at_once, later, open, prune};
use crate::repair::test_support::{check_all, flip, packs_of, world};
use crate::store::{DecodeScratch, StoreOptions, read_directory};
use crate::testing;

fn options() -> LostOptions {
    LostOptions { threads: 1, ..LostOptions::default() }
}

fn ids(repository: &Repository) -> Vec<SnapshotId> {
    repository.snapshots().expect("read").into_iter().map(|(id, _)| id).collect()
}

#[test]
fn a_snapshot_whose_commit_is_lost_comes_back_whole() {
    let world = world();
    let repository = world.open();
    let before = ids(&repository);
    let last = repository.fold().seq();
    drop(repository);
    world.storage.corrupt(&ObjectKey::log(last), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let repository = world.open();
    assert_eq!(ids(&repository), before[..1], "it is gone");
    let dry = run(&repository, &LostOptions { dry_run: true, ..options() }, &Silent).expect("found");
    let found = |report: &LostReport| -> Vec<_> {
        report.snapshots.iter().map(|found| (found.id, found.lacks.clone())).collect()
    };
    assert_eq!((found(&dry), dry.commit), (vec![(before[1], None)], None));
    assert_eq!(ids(&repository), before[..1], "nothing was added");
    let report = run(&repository, &options(), &Silent).expect("added");
    assert_eq!(found(&report), [(before[1], None)]);
    assert!(report.packs >= 2, "content and trees: {report:?}");
    assert_eq!(ids(&world.open()), before);
    crate::repair::log::accept_loss(&world.open(), last).expect("the loss can be accepted as ever");
    let report = check_all(&world.open());
    assert!(!report.is_damaged(), "{report:?}");
    let again = run(&world.open(), &options(), &Silent).expect("looked");
    assert_eq!((again.snapshots.len(), again.commit), (0, None));
}

#[test]
fn what_was_forgotten_stays_so_and_what_lacks_something_is_not_added() {
    let world = world();
    let repository = world.open();
    let before = ids(&repository);
    repository
        .commit(&mut |_| {
            let reason = "not wanted".to_owned();
            Ok(vec![Change::SnapshotForgotten { snapshot: before[0], reason }])
        })
        .expect("forgotten");
    let report = run(&repository, &options(), &Silent).expect("looked");
    assert_eq!((report.snapshots.len(), report.forgotten, report.commit), (0, 1, None));
    drop(repository);
    let last = 1 + (0..).find(|seq| world.storage.stat(&ObjectKey::log(seq + 2)).is_err()).expect("an end");
    // The commit before the last one added the second snapshot: both are lost.
    for seq in [last - 1, last] {
        world.storage.corrupt(&ObjectKey::log(seq), |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    }
    let listed: HashSet<PackId> = {
        let repository = world.open();
        let segments = repository.index().segments();
        segments
            .iter()
            .flat_map(|segment| segment.packs().map_while(Result::ok).map(|pack| pack.id))
            .collect()
    };
    let is_new = |key: &&ObjectKey| !listed.contains(&key.pack_id().expect("a pack"));
    let data = packs_of(&world.storage, true);
    flip(&world.storage, data.iter().find(is_new).expect("a pack of the second backup"));
    let repository = world.open();
    let report = run(&repository, &options(), &Silent).expect("looked");
    assert_eq!((report.incomplete(), report.commit), (1, None), "{report:?}");
    assert!(!ids(&repository).contains(&before[1]));
}

/// A blob with its kind and its id.
type Blob = (BlobKind, BlobId, Vec<u8>);

/// Stores blobs in a pack of trees; no segment lists it.
fn store(repository: &Repository, blobs: &[Blob]) -> (PackEntry, Directory) {
    let store = repository.pack_store(ObjectKind::MetadataPack, &StoreOptions::new(3, 1, 64 << 20));
    let mut writer = store.writer();
    for (kind, id, bytes) in blobs {
        writer.put(*kind, *id, bytes, true).expect("stored");
    }
    writer.flush().expect("stored");
    store.finish().expect("stored").remove(0)
}

/// Lists the record of a snapshot in the index, as a run leaves it that began anew.
fn leave(repository: &Repository, snapshot: &Snapshot) -> SnapshotId {
    let record = crate::format::record::encode(snapshot);
    let id = repository.keys().blob_id(BlobKind::Snapshot, &record);
    let packs = [store(repository, &[(BlobKind::Snapshot, id, record)])];
    let segment = repository.store_segment(&packs).expect("stored");
    let change = Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() };
    repository.commit(&mut |_| Ok(vec![change.clone()])).expect("listed");
    SnapshotId::new(id)
}

/// Alters the last entry of the log, which is lost then.
fn lose_last(world: &World) -> u64 {
    let last = world.open().fold().seq();
    world.storage.corrupt(&ObjectKey::log(last), |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    last
}

fn latest(world: &World) -> Option<SnapshotId> {
    world.open().find_snapshot("latest").ok().map(|(id, _)| id)
}

/// What was found, and why it is not added.
fn shown(report: &LostReport) -> Vec<(SnapshotId, Option<Withheld>)> {
    report.snapshots.iter().map(|found| (found.id, found.withheld)).collect()
}

#[test]
fn what_may_never_have_been_in_the_log_is_only_shown() {
    let mut world = World::new();
    let repository = world.open();
    world.write("f", b"at first");
    let first = world.back_up(&repository);
    let (_, snapshot) = repository.find_snapshot("latest").expect("there");
    // One that is older than the live one of its host and paths, one that is newer.
    let mut time = snapshot.time;
    time.seconds -= 1_000_000;
    let older = leave(&repository, &Snapshot { time, ..snapshot.clone() });
    let report = run(&world.open(), &options(), &Silent).expect("looked");
    assert_eq!((shown(&report), report.commit), (vec![(older, Some(Withheld::NoLoss))], None));
    world.write("f", b"then");
    let second = world.back_up(&repository);
    assert_eq!(latest(&world), Some(second));
    let lost = lose_last(&world);
    let dry = run(&world.open(), &LostOptions { dry_run: true, ..options() }, &Silent).expect("looked");
    let report = run(&world.open(), &options(), &Silent).expect("added");
    let expected = vec![(older, Some(Withheld::NotNewest(first))), (second, None)];
    assert_eq!((shown(&dry), dry.commit, dry.behind), (expected.clone(), None, None));
    assert_eq!((shown(&report), report.withheld(), report.behind), (expected, 1, None));
    assert_eq!(ids(&world.open()), [first, second]);
    crate::repair::log::accept_loss(&world.open(), lost).expect("accepted");
    assert_eq!(latest(&world), Some(second));
    let report = run(&world.open(), &options(), &Silent).expect("looked");
    assert_eq!((shown(&report), report.commit), (vec![(older, Some(Withheld::NoLoss))], None));
    // Whoever names it gets it, and is told what stands before it.
    let named = LostOptions { snapshots: vec![older.to_string()], ..options() };
    let report = run(&world.open(), &named, &Silent).expect("added");
    assert_eq!((shown(&report), report.behind), (vec![(older, None)], Some(second)));
    assert_eq!(ids(&world.open()), [first, second, older]);
    world.expected.insert(older, world.expected[&first].clone());
    world.verify();
}

#[test]
fn a_name_of_several_is_refused_and_those_of_one_commit_stand_in_the_order_of_their_times() {
    let world = world();
    let repository = world.open();
    let (_, snapshot) = repository.find_snapshot("latest").expect("there");
    let at = |seconds: i64| Snapshot {
        time: Timestamp { seconds: snapshot.time.seconds + seconds, ..snapshot.time },
        ..snapshot.clone()
    };
    let later: Vec<_> = (1..9).map(|seconds| leave(&repository, &at(seconds))).collect();
    let named = |snapshots: Vec<String>| run(&world.open(), &LostOptions { snapshots, ..options() }, &Silent);
    let refused = named(vec![String::new()]).expect_err("of all");
    assert!(matches!(refused, RepairError::Repository(RepositoryError::AmbiguousSnapshot { count: 8, .. })));
    named(later.iter().map(|id| id.to_string().to_uppercase()).collect()).expect("added");
    assert_eq!(ids(&world.open())[2..], later);
    assert_eq!(latest(&world), later.last().copied());
}

/// Whoever held a keyslot can store what they like under the keys of the repository.
#[test]
fn after_a_full_keyslot_was_removed_nothing_is_added_without_its_name() {
    for is_full in [true, false] {
        let mut world = World::new();
        let repository = world.open();
        let (password, cost) = (Password::new(b"of another".to_vec()), testing::CHEAP);
        let keyslot = match is_full {
            true => repository.add_keyslot(&password, "other", cost),
            false => repository.add_append_only_keyslot(&password, "other", cost),
        };
        repository.remove_keyslot(&keyslot.expect("added").to_string()).expect("removed");
        world.write("f", b"content");
        let id = world.back_up(&repository);
        let lost = lose_last(&world);
        let report = run(&world.open(), &options(), &Silent).expect("looked");
        let withheld = is_full.then_some(Withheld::RemovedKeyslot);
        assert_eq!((shown(&report), report.commit.is_none()), (vec![(id, withheld)], is_full));
        let named = LostOptions { snapshots: vec![id.to_string()], ..options() };
        run(&world.open(), &named, &Silent).expect("added");
        assert_eq!(latest(&world), Some(id));
        crate::repair::log::accept_loss(&world.open(), lost).expect("accepted");
        world.verify();
    }
}

#[test]
fn a_head_that_was_seen_tells_of_a_loss_that_the_log_does_not_show() {
    let world = world();
    let repository = world.open();
    let (before, head) = (ids(&repository), repository.head().expect("a commit"));
    world.storage.delete(&ObjectKey::log(head.seq)).expect("deleted");
    let earlier = world.open().head().expect("a commit");
    for (seen, withheld) in [(vec![earlier], Some(Withheld::NoLoss)), (vec![earlier, head], None)] {
        let report = run(&world.open(), &LostOptions { seen, ..options() }, &Silent).expect("looked");
        assert_eq!(shown(&report), [(before[1], withheld)]);
    }
    assert_eq!(ids(&world.open()), before);
    world.verify();
}

/// Partial snapshots have the time of the complete one that the same run makes in the end.
#[test]
fn a_partial_one_of_the_same_time_is_no_newer_one() {
    for partial in [true, false] {
        let world = world();
        let repository = world.open();
        let (id, snapshot) = repository.find_snapshot("latest").expect("there");
        lose_last(&world);
        let live = Snapshot { partial, username: "same run".into(), ..snapshot };
        let record = crate::format::record::encode(&live);
        let live = SnapshotId::new(repository.keys().blob_id(BlobKind::Snapshot, &record));
        let change = Change::SnapshotAdded { snapshot: live, record: ByteBuf::from(record) };
        world.open().commit(&mut |_| Ok(vec![change.clone()])).expect("added");
        let report = run(&world.open(), &options(), &Silent).expect("looked");
        let withheld = (!partial).then_some(Withheld::NotNewest(live));
        assert_eq!(shown(&report), [(id, withheld)]);
    }
}

/// All that a pack holds, read from it whatever the index says.
fn blobs_of(repository: &Repository, pack: PackId, size: u64) -> Vec<Blob> {
    let (backend, keys, id) = (&**repository.backend(), repository.keys(), repository.id());
    let (entry, directory) =
        read_directory(backend, keys, &id, (pack, size), &mut Vec::new()).expect("readable");
    let blobs = directory.blocks.iter().flat_map(|block| &block.blobs);
    let (mut scratch, mut raw) = (DecodeScratch::default(), Vec::new());
    let mut found = Vec::new();
    for (blob, at) in blobs.zip(index::directory_entries(0, &directory)) {
        repository.reader().read_block(&entry, &at.block, &mut scratch, &mut raw).expect("sound");
        let bytes = &raw[at.offset as usize..][..at.len as usize];
        found.push((blob.kind, blob.id, bytes.to_vec()));
    }
    found
}

/// Of two packs with the same blobs that no segment lists the one is as good as the other.
#[test]
fn where_one_pack_is_damaged_another_one_gives_records_and_trees() {
    for is_record in [true, false] {
        for flipped in 0..2 {
            let world = world();
            let before = ids(&world.open());
            lose_last(&world);
            let repository = world.open();
            let segments = repository.index().segments();
            let listed: HashSet<PackId> = segments
                .iter()
                .flat_map(|segment| segment.packs().map_while(Result::ok).map(|pack| pack.id))
                .collect();
            let unlisted = packs_of(&world.storage, false).into_iter();
            let mut unlisted = unlisted.filter(|key| !listed.contains(&key.pack_id().expect("a pack")));
            let (key, None) = (unlisted.next().expect("of the second backup"), unlisted.next()) else {
                panic!("there is one")
            };
            let size = world.storage.stat(&key).expect("there").size;
            let blobs = blobs_of(&repository, key.pack_id().expect("a pack"), size);
            world.storage.delete(&key).expect("deleted");
            let (records, trees): (Vec<_>, Vec<_>) =
                blobs.into_iter().partition(|(kind, ..)| *kind == BlobKind::Snapshot);
            assert!(records.len() == 1 && trees.len() > 1);
            let twice = |blobs: &[Blob]| [store(&repository, blobs), store(&repository, blobs)];
            let (of_records, of_trees) = (twice(&records), twice(&trees));
            let damaged = if is_record { &of_records } else { &of_trees };
            flip(&world.storage, &ObjectKey::pack(&damaged[flipped].0.id));
            let report = run(&world.open(), &options(), &Silent).expect("added");
            assert_eq!(shown(&report), [(before[1], None)], "{report:?}");
            assert_eq!(ids(&world.open()), before);
            let root = std::os::unix::ffi::OsStrExt::as_bytes(world.source.path().as_os_str());
            for (id, files) in &world.expected {
                assert_restores(&world.open(), *id, files, root);
            }
        }
    }
}

/// What adds this snapshot, whatever speaks against it.
fn named(id: SnapshotId) -> LostOptions {
    LostOptions { snapshots: vec![id.to_string()], ..options() }
}

/// Two snapshots, of which the log does not name the second one any more: its commit is lost, which was accepted.
fn with_a_loss() -> (World, Vec<SnapshotId>) {
    let world = world();
    let repository = world.open();
    let (before, last) = (ids(&repository), repository.fold().seq());
    drop(repository);
    world.storage.corrupt(&ObjectKey::log(last), |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    crate::repair::log::accept_loss(&world.open(), last).expect("accepted");
    assert_eq!(ids(&world.open()), before[..1]);
    (world, before)
}

#[test]
fn what_a_prune_has_condemned_is_rescued_whenever_it_did_so() {
    for meanwhile in [false, true] {
        let (world, before) = with_a_loss();
        let storage = world.storage.clone();
        let condemn = move || assert!(prune(&open(storage), &later()).packs_condemned > 0);
        let hooked = Hooked::new(&world.storage);
        if meanwhile {
            hooked.before_create(a_commit, condemn);
        } else {
            condemn();
        }
        let report = run(&open(hooked), &named(before[1]), &Silent).expect("added");
        assert!(report.commit.is_some() && report.incomplete() == 0, "{report:?}");
        let repository = world.open();
        assert_eq!(ids(&repository), before);
        assert_eq!(repository.fold().condemned().count(), 0, "a later prune would remove it");
        let report = check_all(&repository);
        assert!(!report.is_damaged(), "{report:?}");
    }
}

#[test]
fn what_was_removed_is_gone_also_where_it_is_stored_still() {
    let (world, before) = with_a_loss();
    let stored = world.storage.objects();
    for _ in 0..2 {
        prune(&world.open(), &at_once());
    }
    let is_gone = |key: &ObjectKey| key.pack_id().is_some() && world.storage.stat(key).is_err();
    let gone: Vec<_> = stored.into_iter().filter(|(key, _)| is_gone(key)).collect();
    assert!(!gone.is_empty(), "strays are removed");
    gone.iter().for_each(|(key, bytes)| world.storage.plant(key, bytes));
    let report = run(&world.open(), &named(before[1]), &Silent).expect("looked");
    assert_eq!(report.commit, None, "{report:?}");
    assert_eq!(ids(&world.open()), before[..1]);
}

#[test]
fn a_listed_pack_that_is_not_there_in_its_length_is_lacking() {
    let (world, before) = with_a_loss();
    let len = |key: &ObjectKey| world.storage.stat(key).expect("there").size;
    let largest = packs_of(&world.storage, true).into_iter().max_by_key(len).expect("packs");
    world.storage.corrupt(&largest, |bytes| bytes.truncate(bytes.len() / 2));
    let report = run(&world.open(), &named(before[1]), &Silent).expect("looked");
    assert_eq!((report.incomplete(), report.commit), (1, None), "{report:?}");
}

/// A backup commits what was found, and is forgotten: who was told so must not find it there again.
#[test]
fn what_is_committed_and_forgotten_during_the_search_stays_forgotten() {
    let world = world();
    let before = ids(&world.open());
    let last = world.open().fold().seq();
    let commit = world.storage.read(&ObjectKey::log(last), 1 << 20).expect("it is there");
    world.storage.delete(&ObjectKey::log(last)).expect("not committed yet");
    let (hooked, storage, snapshot) = (Hooked::new(&world.storage), world.storage.clone(), before[1]);
    hooked.before_create(a_commit, move || {
        storage.plant(&ObjectKey::log(last), &commit);
        let forgotten = Change::SnapshotForgotten { snapshot, reason: "not wanted".to_owned() };
        open(Hooked::new(&storage)).commit(&mut |_| Ok(vec![forgotten.clone()])).expect("forgotten");
    });
    let report = run(&open(hooked.clone()), &named(before[1]), &Silent).expect("looked");
    assert!(hooked.is_done());
    assert_eq!((report.snapshots.len(), report.forgotten, report.commit), (0, 1, None));
    assert_eq!(ids(&world.open()), before[..1]);
}

/// Whoever looks for what is lost is not held up by others that back up, unless that is of the same files and newer.
#[test]
fn what_others_commit_meanwhile_counts_if_it_is_newer_and_of_the_same_files() {
    for is_own in [true, false] {
        let world = world();
        let repository = world.open();
        let (before, last) = (ids(&repository), repository.fold().seq());
        let mut other = repository.snapshots().expect("read").remove(1).1;
        other.time.seconds += 60;
        if !is_own {
            other.hostname = "elsewhere".into();
        }
        drop(repository);
        world.storage.corrupt(&ObjectKey::log(last), |bytes| *bytes.last_mut().expect("bytes") ^= 1);
        let (hooked, storage) = (Hooked::new(&world.storage), world.storage.clone());
        hooked.before_create(a_commit, move || {
            let repository = open(Hooked::new(&storage));
            let record = crate::format::record::encode(&other);
            let snapshot = SnapshotId::new(repository.keys().blob_id(BlobKind::Snapshot, &record));
            let added = Change::SnapshotAdded { snapshot, record: ByteBuf::from(record) };
            repository.commit(&mut |_| Ok(vec![added.clone()])).expect("added");
        });
        let report = run(&open(hooked.clone()), &options(), &Silent).expect("looked");
        assert!(hooked.is_done());
        let withheld = report.snapshots[0].withheld;
        assert_eq!(report.commit.is_some(), !is_own, "{report:?}");
        assert_eq!(matches!(withheld, Some(Withheld::NotNewest(_))), is_own, "{report:?}");
        assert_eq!(ids(&world.open()).contains(&before[1]), !is_own);
    }
}

/// A prune removes what no segment lists as soon as it may: also between the look at a pack and the commit.
#[test]
fn a_pack_that_a_prune_has_removed_meanwhile_begins_the_search_anew() {
    let world = world();
    let repository = world.open();
    let pack = world.storage.objects().into_iter().find_map(|(key, _)| key.pack_id()).expect("a pack");
    world.storage.delete(&ObjectKey::pack(&pack)).expect("deleted");
    let added = Added { packs: BTreeSet::from([pack]), ..Added::default() };
    let base = repository.fold();
    let result = added.commit(&repository, &base, repository.last_loss(), &[], &|_| true);
    assert!(matches!(result, Err(RepairError::Repository(RepositoryError::Conflict))), "{result:?}");
}
