//! What repairs, and runs of the same key, make of what an append-only keyslot's holder says that was never so.

use std::collections::BTreeSet;

use serde_bytes::ByteBuf;

use super::append_only_lies_tests::{Listed, append, in_part, is_appended, listed, restore_all, rot};
use super::append_only_tests::{append_to, publish, shared};
use super::*;
use crate::backend::testing::LimitedBackend;
use crate::backend::{Backend, ObjectKey};
use crate::backup::{self, BackupError, RestsOn, Session};
use crate::crypto::Password;
use crate::crypto::keys::BlobKind;
use crate::format::commit::{Change, SegmentInfo};
use crate::format::header::ObjectKind;
use crate::format::record;
use crate::ids::{BlobId, PackId};
use crate::monitor::Silent;
use crate::prune::test_support::{Hooked, World, a_commit, at_once, forget, noise, open, options, prune};
use crate::prune::{self, PruneError};
use crate::rebuild::{self, RebuildOptions};
use crate::repair::test_support::{check_all, plain, repair, thorough};
use crate::repair::{self, Fate, RepairError, Sources};
use crate::reserve::{self, ReserveError};
use crate::testing;

fn data_packs(world: &World) -> Vec<Listed> {
    listed(world, |entry| entry.header.kind == ObjectKind::DataPack)
}

/// The same packs under ids that no pack has.
fn made_up(world: &World, count: u8) -> Vec<Listed> {
    let some = data_packs(world).remove(0);
    let other = |n| {
        let mut pack = some.clone();
        pack.0.id = PackId::from_bytes([n; 32]);
        pack
    };
    (0..count).map(other).collect()
}

/// This and something untrue: a segment that has nothing to say but of packs of others is dropped before anything else is done.
fn with_a_stain(world: &World, listed: Listed) -> Vec<Listed> {
    [vec![listed], made_up(world, 1)].concat()
}

/// A way to go wrong with a segment that is to be added.
type Wrong = fn(&World, &mut SegmentInfo);

#[test]
fn a_segment_that_is_not_as_its_appender_says_stops_no_repair_of_packs() {
    let ways: [(&str, Wrong); 4] = [
        ("gone", |world, info| world.storage.delete(&ObjectKey::segment(&info.segment)).expect("deleted")),
        ("of another length", |_, info| info.bytes += 1),
        ("of other counts", |_, info| (info.blobs, info.packs) = (7, 7)),
        ("rotten", |world, info| {
            world.storage.corrupt(&ObjectKey::segment(&info.segment), |bytes| {
                // All but the header and the page that says what there is.
                let end = bytes.len() - 4096;
                bytes[4096..end].iter_mut().for_each(|byte| *byte ^= 1);
            });
        }),
    ];
    for (name, wrong) in ways {
        let mut world = shared();
        let theirs = data_packs(&world);
        let appender = append_to(&world);
        let mut info = appender.store_segment(&made_up(&world, 1)).expect("stored").info;
        wrong(&world, &mut info);
        let added = Change::SegmentsReplaced { added: vec![info], removed: Vec::new() };
        publish(&appender, vec![added]);
        rot(&world.storage, &theirs[..1]);
        let codes: BTreeSet<_> =
            check_all(&world.open()).findings.iter().map(|finding| finding.code).collect();
        assert!(codes.contains("appended-untrue"), "{name}: {codes:?}");
        assert!(codes.iter().all(|code| !code.starts_with("segment-")), "{name}: {codes:?}");
        let sources = Sources { repository: None, paths: vec![world.source.path().to_owned()] };
        let report = repair::packs::run(&world.open(), &thorough(), &sources, &Silent);
        let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(report.lost_count, 0, "{name}: {report:?}");
        restore_all(&world);
        // What cannot be read may have listed anything: an index made anew is the end of it.
        if !world.open().fold().appended().eq([]) {
            let refused = prune::run(&world.open(), &at_once(), &Silent);
            if name == "gone" {
                assert!(matches!(refused, Err(PruneError::AppendedSegment { .. })), "{name}: {refused:?}");
            }
            rebuild::run(&world.open(), &RebuildOptions::default(), &Silent).expect("rebuilt");
        }
        assert_eq!(world.open().fold().appended().count(), 0, "{name}");
        prune(&world.open(), &at_once());
        world.back_up(&world.open());
        world.verify();
    }
}

#[test]
fn packs_that_an_appender_made_up_are_no_sign_of_a_repository_that_is_not_there() {
    let world = shared();
    append(&world, &made_up(&world, 40));
    let report = repair(&world.open(), &thorough());
    assert_eq!(report.lost_count, 0, "{report:?}");
    let repository = world.open();
    assert_eq!(repository.fold().appended().count(), 0);
    let removed = repository.removed_packs(&repository.fold()).expect("readable");
    assert!(removed.is_empty(), "the log does not name what never was: {removed:?}");
    world.verify();
    // With those of others it is one as before.
    for (entry, _) in listed(&world, |_| true) {
        world.storage.delete(&ObjectKey::pack(&entry.id)).expect("deleted");
    }
    let mass = repair::packs::run(&world.open(), &thorough(), &Sources::default(), &Silent);
    assert!(!matches!(mass, Err(RepairError::Mass { .. })), "there are fewer than ten: {mass:?}");
}

#[test]
fn an_appender_stores_again_what_its_own_segments_list_in_packs_that_are_not_there() {
    let mut world = shared();
    let mut theirs = listed(&world, |_| true);
    let first = *world.expected.keys().next().expect("one");
    world.forget(&world.open(), first);
    prune(&world.open(), &at_once());
    for (n, (entry, _)) in (0..).zip(&mut theirs) {
        entry.id = PackId::from_bytes([n; 32]);
    }
    append(&world, &theirs);
    world.back_up(&append_to(&world));
    restore_all(&world);
    repair(&world.open(), &thorough());
    prune(&world.open(), &at_once());
    world.verify();
}

#[test]
fn an_appender_commits_nothing_that_rests_on_a_segment_of_its_own_that_was_dropped_meanwhile() {
    let mut world = shared();
    for n in 0..4 {
        world.write(&format!("d/own{n}"), &noise(900 + n, 9_000));
    }
    world.back_up(&append_to(&world));
    let appender = append_to(&world);
    let session = Session::new(&appender, &options()).expect("a session");
    let own = listed(&world, |entry| is_appended(entry) && entry.header.kind == ObjectKind::DataPack);
    let blob = own[0].1.blocks[0].blobs[0].id;
    assert!(!session.claim(&blob).expect("readable"), "it is there");
    // Nothing is condemned or removed by that.
    let repository = world.open();
    let removed = repository.fold().appended().map(|(segment, _)| *segment).collect();
    let change = Change::SegmentsReplaced { added: Vec::new(), removed };
    repository.commit(&mut |_| Ok(vec![change.clone()])).expect("dropped");
    let record = repository.fold().snapshots().next().expect("one").record.clone();
    let mut snapshot: Snapshot = record::decode(&record).expect("a record");
    snapshot.time.seconds += 1;
    let record = record::encode(&snapshot);
    let id = SnapshotId::new(appender.keys().blob_id(BlobKind::Snapshot, &record));
    let added = Change::SnapshotAdded { snapshot: id, record: ByteBuf::from(record) };
    let mut writer = session.tree_writer();
    let refused = session.commit_with(&mut writer, RestsOn::default(), &mut |_| Ok(vec![added.clone()]));
    assert!(
        matches!(refused, Err(BackupError::Repository(RepositoryError::Conflict))),
        "it rests on what nobody lists: {refused:?}"
    );
    assert!(world.open().fold().snapshot(&id).is_none());
}

/// A snapshot whose tree only a lie has a place for, in a pack of somebody else.
#[test]
fn a_repair_leaves_a_sound_pack_alone_whatever_an_appender_lists_in_it() {
    let world = shared();
    let mut lie = in_part(listed(&world, |entry| entry.header.kind == ObjectKind::MetadataPack).remove(0));
    let (pack, tree) = (lie.0.id, BlobId::from_bytes([7; 32]));
    lie.1.blocks[0].blobs[0].id = tree;
    append(&world, &with_a_stain(&world, lie));
    let appender = append_to(&world);
    let record = appender.fold().snapshots().next().expect("one").record.clone();
    let mut snapshot: Snapshot = record::decode(&record).expect("a record");
    snapshot.tree = tree;
    let record = record::encode(&snapshot);
    let id = SnapshotId::new(appender.keys().blob_id(BlobKind::Snapshot, &record));
    let added = Change::SnapshotAdded { snapshot: id, record: ByteBuf::from(record) };
    appender.commit(&mut |_| Ok(vec![added.clone()])).expect("it may add snapshots");
    let report = repair(&world.open(), &plain());
    assert!(report.packs.iter().all(|of| of.pack != pack), "{:?}", report.packs);
    assert_eq!(report.lost_count, 1, "{report:?}");
    assert!(!world.open().removed_packs(&world.open().fold()).expect("readable").contains(&pack));
    forget(&world.open(), id);
    prune(&world.open(), &at_once());
    world.verify();
}

#[test]
fn a_repair_counts_no_lie_about_a_damaged_pack_of_others() {
    let world = shared();
    let theirs = data_packs(&world).remove(0);
    let mut lie = in_part(theirs.clone());
    lie.1.blocks[0].blobs[0].offset += 1;
    append(&world, &with_a_stain(&world, lie));
    // All that it holds can be read; only the directory cannot.
    world.storage.corrupt(&ObjectKey::pack(&theirs.0.id), |bytes| *bytes.last_mut().expect("a pack") ^= 1);
    let report = repair(&world.open(), &thorough());
    let found = report.packs.iter().find(|of| of.pack == theirs.0.id).expect("it is damaged");
    assert_eq!((found.blobs, found.unreadable), (theirs.1.blob_count() as u64, 0), "{found:?}");
    assert_eq!(found.fate, Fate::Dropped);
    world.verify();
}

/// Whichever of two segments is looked at first.
#[test]
fn a_lie_about_the_header_of_a_damaged_pack_keeps_nothing_from_being_saved() {
    for n in 1..7u8 {
        let mut world = shared();
        world.write("d/of-the-web", &noise(500, 50_000));
        world.back_up(&append_to(&world));
        let own = listed(&world, |entry| is_appended(entry) && entry.header.kind == ObjectKind::DataPack);
        let lies = own.iter().cloned().map(|(mut entry, directory)| {
            entry.header.commitment[0] ^= n;
            (entry, directory)
        });
        append(&world, &lies.collect::<Vec<_>>());
        for (entry, _) in &own {
            let key = ObjectKey::pack(&entry.id);
            world.storage.corrupt(&key, |bytes| *bytes.last_mut().expect("a pack") ^= 1);
        }
        let report = repair(&world.open(), &thorough());
        assert_eq!(report.lost_count, 0, "{report:?}");
        restore_all(&world);
        assert_eq!(world.open().fold().appended().count(), 0);
        world.verify();
    }
}

#[test]
fn a_rebuilt_index_takes_no_pack_of_an_appender_that_its_id_does_not_fit() {
    let mut world = shared();
    world.write("d/of-the-web", &noise(500, 50_000));
    world.back_up(&append_to(&world));
    let own =
        listed(&world, |entry| is_appended(entry) && entry.header.kind == ObjectKind::DataPack).remove(0);
    let bytes = world.storage.read(&ObjectKey::pack(&own.0.id), u64::MAX).expect("there");
    let other = PackId::from_bytes([9; 32]);
    world.storage.plant(&ObjectKey::pack(&other), &bytes);
    let report = rebuild::run(&world.open(), &RebuildOptions::default(), &Silent).expect("rebuilt");
    assert_eq!(report.damaged, [other]);
    let repository = world.open();
    for segment in repository.index().everything() {
        assert!(segment.packs().all(|pack| pack.expect("readable").id != other));
    }
    restore_all(&world);
}

/// No program leaves a condemned pack in the index. Were one to do so, nothing is to be lost for it.
#[test]
fn a_condemned_pack_that_the_index_lists_is_no_home_and_is_not_deleted() {
    let mut world = shared();
    let packs: Vec<PackId> = listed(&world, |_| true).iter().map(|(entry, _)| entry.id).collect();
    let condemn = {
        let (storage, packs) = (world.storage.clone(), packs.clone());
        move || {
            let change = Change::PacksCondemned { packs: packs.clone() };
            open(storage.clone()).commit(&mut |_| Ok(vec![change.clone()])).expect("condemned");
        }
    };
    condemn();
    let refused = prune::run(&world.open(), &at_once(), &Silent);
    assert!(matches!(refused, Err(PruneError::Missing { .. } | PruneError::Reach(_))), "{refused:?}");
    for pack in &packs {
        world.storage.stat(&ObjectKey::pack(pack)).expect("it is still there");
    }
    let rescue = Change::PacksRescued { packs };
    world.open().commit(&mut |_| Ok(vec![rescue.clone()])).expect("rescued");
    prune(&world.open(), &at_once());
    // A backup rescues them in its own commit.
    let hooked = Hooked::new(&world.storage);
    hooked.before_create(a_commit, condemn);
    world.write("d/new", b"new");
    let id = world.back_up(&open(hooked.clone()));
    assert!(hooked.is_done());
    let fold = world.open().fold();
    assert!(fold.snapshot(&id).is_some());
    for (entry, _) in data_packs(&world) {
        assert_eq!(fold.condemned_since(&entry.id), None, "the new snapshot needs it");
    }
    // Of trees it needs others, and those of the first snapshot were not its business.
    let packs = fold.condemned().map(|(pack, _)| *pack).collect();
    let rescue = Change::PacksRescued { packs };
    world.open().commit(&mut |_| Ok(vec![rescue.clone()])).expect("rescued");
    prune(&world.open(), &at_once());
    world.verify();
}

#[test]
fn an_appender_spends_no_reserve() {
    let mut world = shared();
    reserve::set(&world.open(), reserve::LEN_MIN).expect("there is room");
    for n in 0..4 {
        world.write(&format!("d/own{n}"), &noise(900 + n, 9_000));
    }
    let kept = || world.storage.stat(&ObjectKey::reserve()).expect("it is there").size;
    let password = Password::new(b"may only add".to_vec());
    let full = LimitedBackend::full(&world.storage);
    let appender =
        Repository::open(Arc::new(full.clone()), &password, testing::environment(47)).expect("opened");
    let refusals =
        [reserve::set(&appender, 2 * reserve::LEN_MIN).map(drop), reserve::drop_it(&appender).map(drop)];
    for refused in refusals {
        let refused = refused.expect_err("it takes more");
        assert!(matches!(refused, ReserveError::Repository(RepositoryError::AppendOnly(_))), "{refused}");
    }
    backup::run(&appender, world.paths(), &options(), &Silent).expect_err("it is full");
    prune::run(&appender, &at_once(), &Silent).expect_err("it takes more");
    assert_eq!(kept(), reserve::LEN_MIN);
    // With room, all is as always, and prunes vet what it adds.
    full.set_room(1 << 30);
    world.back_up(&appender);
    let report = prune(&world.open(), &at_once());
    assert_eq!((report.segments_vetted, report.reserve), (1, reserve::Spent::default()), "{report:?}");
    world.verify();
}

/// The reserve grows with the index, and not with what somebody says of it.
#[test]
fn an_appender_makes_no_reserve_longer() {
    let mut world = shared();
    reserve::set(&world.open(), reserve::LEN_MIN).expect("there is room");
    let appender = append_to(&world);
    let info = appender.store_segment(&made_up(&world, 1)).expect("stored").info;
    let info = SegmentInfo { bytes: 1 << 39, ..info };
    publish(&appender, vec![Change::SegmentsReplaced { added: vec![info], removed: Vec::new() }]);
    let storage = LimitedBackend::full(&world.storage);
    storage.set_room(u64::MAX);
    world.write("d/new", b"new");
    world.back_up(&open(storage));
    assert_eq!(world.open().fold().reserve(), Some(reserve::LEN_MIN));
    assert_eq!(reserve::lacking(&world.open()).expect("read"), 0);
}

/// A host that has seen the ids of what is lost lists them as lying in a pack of its own.
#[test]
fn a_snapshot_found_again_rests_on_nothing_that_an_appender_says() {
    let mut world = shared();
    let before: BTreeSet<PackId> = data_packs(&world).iter().map(|(entry, _)| entry.id).collect();
    world.write("d/lost", &noise(500, 3_000));
    let id = world.back_up(&world.open());
    let lost = world.open().fold().seq();
    world.storage.corrupt(&ObjectKey::log(lost), |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    let mut missing = data_packs(&world);
    missing.retain(|(entry, _)| !before.contains(&entry.id));
    let [(_, directory)] = &missing[..] else { panic!("{missing:?}") };
    // One of its own, as it is, that is long enough.
    world.write("d/of-the-web", &noise(501, 100_000));
    let theirs = world.back_up(&append_to(&world));
    world.expected.remove(&theirs);
    world.remove("d/of-the-web");
    let own = listed(&world, |entry| is_appended(entry) && entry.header.kind == ObjectKind::DataPack);
    let mut entry = own.first().expect("a pack").0;
    entry.blobs = u32::try_from(directory.blob_count()).expect("few");
    append(&world, &[(entry, directory.clone())]);
    let chunks: Vec<_> = directory.blocks.iter().flat_map(|block| &block.blobs).map(|blob| blob.id).collect();
    let known = |repository: &Repository| {
        chunks.iter().all(|id| repository.index().known(id).is_ok_and(|at| at.is_some()))
    };
    let repository = world.open();
    assert!(!known(&repository) && repository.index().get(&chunks[0]).expect("readable").is_some());
    let named =
        repair::lost::LostOptions { snapshots: vec![id.to_string()], threads: 1, ..Default::default() };
    let report = repair::lost::run(&repository, &named, &Silent).expect("added");
    assert!(report.packs >= 2 && report.incomplete() == 0, "{report:?}");
    assert!(known(&world.open()), "by somebody who answers for it");
    restore_all(&world);
}
