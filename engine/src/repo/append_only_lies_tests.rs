//! What the holder of an append-only keyslot says of packs, true in part or not at all, and what becomes of it.

use std::collections::BTreeSet;

use super::append_only_tests::{admit, append_to, nothing, shared};
use super::*;
use crate::backend::{MemoryBackend, ObjectKey};
use crate::check;
use crate::format::commit::{Change, SegmentInfo};
use crate::format::header::ObjectKind;
use crate::format::pack::Directory;
use crate::format::segment::PackEntry;
use crate::ids::BlobId;
use crate::monitor::Silent;
use crate::prune::test_support::{World, assert_restores, at_once, later, noise, prune};
use crate::prune::{self, PruneError};
use crate::repair::test_support::{check_all, repair, thorough};
use crate::repair::{self, Sources};
use crate::store::read_directory;

pub(super) type Listed = (PackEntry, Directory);

/// All packs that are there and that `keep` chooses, as their directories describe them.
pub(super) fn listed(world: &World, keep: impl Fn(&PackEntry) -> bool) -> Vec<Listed> {
    let repository = world.open();
    let objects = world.storage.objects();
    let packs = objects.iter().filter(|(key, _)| key.folder() == Some(crate::backend::Folder::Packs));
    packs
        .map(|(key, bytes)| {
            let pack = (key.pack_id().expect("a pack"), bytes.len() as u64);
            let (backend, keys) = (&*repository.backend, repository.keys());
            read_directory(backend, keys, &repository.id(), pack, &mut Vec::new()).expect("readable")
        })
        .filter(|(entry, _)| keep(entry))
        .collect()
}

/// The same with the first blob alone.
pub(super) fn in_part((entry, mut directory): Listed) -> Listed {
    directory.blocks.truncate(1);
    directory.blocks[0].blobs.truncate(1);
    (entry, directory)
}

/// Lists packs as told, signed with an append-only keyslot.
pub(super) fn append(world: &World, packs: &[Listed]) -> SegmentInfo {
    let appender = append_to(world);
    let segment = appender.store_segment(packs).expect("stored");
    let change = Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() };
    appender.commit(&mut |_| Ok(vec![change.clone()])).expect("it may add segments");
    segment.info
}

fn known_entries(repository: &Repository) -> BTreeSet<(BlobId, PackId, u32, u32)> {
    let mut entries = BTreeSet::new();
    for segment in repository.index().segments().iter() {
        let packs: Vec<_> = segment.packs().map(|pack| pack.expect("readable").id).collect();
        entries.extend(segment.entries().map(|entry| {
            let entry = entry.expect("readable");
            (entry.id, packs[entry.pack as usize], entry.block.position, entry.offset)
        }));
    }
    entries
}

pub(super) fn restore_all(world: &World) {
    let root = std::os::unix::ffi::OsStrExt::as_bytes(world.source.path().as_os_str());
    let repository = world.open();
    for (id, files) in &world.expected {
        assert_restores(&repository, *id, files, root);
    }
}

/// Flips a bit in the first block of each of these packs.
pub(super) fn rot(storage: &MemoryBackend, packs: &[Listed]) {
    for (entry, directory) in packs {
        let at = directory.blocks[0].span.position as usize + 3;
        storage.corrupt(&ObjectKey::pack(&entry.id), |bytes| bytes[at] ^= 4);
    }
}

pub(super) fn is_appended(entry: &PackEntry) -> bool {
    entry.header.is_for_recipient()
}

/// One true entry of each pack of somebody else: it must not come to stand for the whole pack.
#[test]
fn a_part_of_the_truth_about_packs_of_others_takes_nothing_out_of_the_index() {
    let mut world = shared();
    let parts: Vec<_> = listed(&world, |_| true).into_iter().map(in_part).collect();
    assert!(parts.len() >= 2);
    let before = known_entries(&world.open());
    append(&world, &parts);
    let report = prune(&world.open(), &at_once());
    assert_eq!((report.segments_untrue, report.packs_condemned), (0, 0), "{report:?}");
    assert_eq!(world.open().index().appended().len(), 0, "nothing needs it");
    assert_eq!(known_entries(&world.open()), before);
    // And again, with something that a prune takes out of the same segments.
    append(&world, &parts);
    let first = *world.expected.keys().next().expect("one");
    world.write("d/f0", b"changed");
    world.back_up(&world.open());
    world.forget(&world.open(), first);
    prune(&world.open(), &at_once());
    prune(&world.open(), &at_once());
    world.verify();
}

#[test]
fn segments_that_differ_about_a_pack_are_merged_to_all_that_either_says() {
    let world = shared();
    let repository = world.open();
    let whole = listed(&world, |entry| entry.header.kind == ObjectKind::DataPack);
    assert!(whole[0].1.blob_count() > 1);
    let parts: Vec<_> = whole.iter().cloned().map(in_part).collect();
    let both = [&parts, &whole].map(|packs| repository.store_segment(packs).expect("stored").segment());
    let merged = repository.store_filtered(&both, &|_| true).expect("stored").expect("something is left");
    let expected: u64 = whole.iter().map(|(_, directory)| directory.blob_count() as u64).sum();
    assert_eq!((merged.info.blobs, merged.info.packs), (expected, whole.len() as u32), "each once");
}

/// A pack of three blobs, stored and not listed.
fn pack(repository: &Repository, seed: u64) -> Listed {
    let options = crate::store::StoreOptions::new(3, 1, 64 << 20);
    let store = repository.pack_store(ObjectKind::DataPack, &options);
    let mut writer = store.writer();
    for n in 0..3 {
        let bytes = noise(seed + n, 5_000);
        let kind = crate::crypto::keys::BlobKind::Data;
        writer.put(kind, repository.keys().blob_id(kind, &bytes), &bytes, true).expect("stored");
    }
    writer.flush().expect("stored");
    store.finish().expect("stored").remove(0)
}

/// Of a segment so many packs at a time are vetted as fit into memory.
#[test]
fn what_is_vetted_piece_by_piece_is_taken_over_at_once_or_not_at_all() {
    let world = shared();
    let appender = append_to(&world);
    let packs: Vec<_> = (0..6).map(|n| pack(&appender, 100 * n)).collect();
    let vet = |packs: &[Listed]| {
        append(&world, packs);
        let repository = world.open();
        let strictness = crate::vet::Strictness::WholeSegments;
        let vetted = crate::vet::run(&repository, strictness, &Silent).expect("looked at");
        (vetted.segments, vetted.untrue)
    };
    let known = || world.open().index().segments().iter().map(|segment| segment.id()).collect::<Vec<_>>();
    let stored = || {
        let objects = world.storage.objects();
        objects.iter().filter(|(key, _)| key.folder() == Some(crate::backend::Folder::Index)).count()
    };
    let (before, lie) = (known(), in_part(packs[5].clone()));
    let objects = stored();
    assert_eq!(vet(&[&packs[..5], &[lie]].concat()), (0, 1));
    assert_eq!((known(), stored()), (before.clone(), objects + 1), "but for what was appended");
    // The other one, of which all is known now, may come before it or after it.
    assert!(vet(&packs).0 >= 1);
    assert_eq!(known().len(), before.len() + 6, "one for each pack");
    let entries = known_entries(&world.open());
    for (entry, directory) in &packs {
        let of_pack = entries.iter().filter(|(_, pack, ..)| *pack == entry.id);
        assert_eq!(of_pack.count(), directory.blob_count());
    }
}

#[test]
fn what_is_not_an_appenders_pack_or_not_all_of_one_stays_apart() {
    let mut world = shared();
    for n in 0..4 {
        world.write(&format!("d/own{n}"), &noise(900 + n, 9_000));
    }
    let appender = append_to(&world);
    // In part; one of somebody at work, in whole; with another number of blobs; as it is.
    let own = pack(&appender, 100);
    let mut miscounted = pack(&appender, 200);
    miscounted.0.blobs += 1;
    let honest = pack(&appender, 300);
    for lie in [in_part(own), pack(&world.open(), 400), miscounted] {
        append(&world, &[honest.clone(), lie]);
        let report = prune(&world.open(), &at_once());
        let counts = (report.segments_vetted, report.segments_untrue, report.packs_condemned);
        assert_eq!(counts.0, 0, "{report:?}");
        assert!(counts.1 >= 1, "{report:?}");
    }
    append(&world, &[honest]);
    let report = prune(&world.open(), &at_once());
    assert_eq!((report.segments_vetted, report.segments_untrue), (1, 3), "{report:?}");
    world.back_up(&world.open());
    restore_all(&world);
    // The advice that the prune gives ends it.
    repair(&world.open(), &thorough());
    let repository = world.open();
    assert_eq!(repository.index().appended().len(), 0);
    assert_eq!(prune(&repository, &at_once()).segments_untrue, 0);
    world.verify();
}

#[test]
fn a_prune_stops_at_a_snapshot_of_others_that_needs_what_only_an_untrue_segment_has() {
    let mut world = shared();
    world.write("d/of-the-web", &noise(500, 50_000));
    let id = world.back_up(&append_to(&world));
    rot(
        &world.storage,
        &listed(&world, |entry| is_appended(entry) && entry.header.kind == ObjectKind::DataPack),
    );
    // As long as it is the appender's own, it stays as it is.
    let report = prune(&world.open(), &at_once());
    assert!(report.segments_untrue > 0 && report.packs_condemned == 0, "{report:?}");
    let record = world.open().fold().snapshot(&id).expect("there").record.clone();
    let change = Change::SnapshotAdded { snapshot: id, record };
    world.open().commit(&mut |_| Ok(vec![change.clone()])).expect("added");
    let objects = world.storage.objects().len();
    let refused = prune::run(&world.open(), &at_once(), &Silent).expect_err("somebody relies on it");
    assert!(
        matches!(&refused, PruneError::OnlyAppended { snapshot, .. } if snapshot.contains(&id.to_string())),
        "{refused}"
    );
    assert_eq!(world.storage.objects().len(), objects);
}

#[test]
fn a_segment_of_more_packs_than_anybody_stores_at_once_is_not_vetted() {
    let world = shared();
    let (entry, _) = listed(&world, |_| true).remove(0);
    let made_up = |n: u32| {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        (PackEntry { id: PackId::from_bytes(id), ..entry }, Directory { blocks: Vec::new() })
    };
    append(&world, &(0..(128 << 10) + 1).map(made_up).collect::<Vec<_>>());
    let told = append_only_tests::Collect::default();
    let vetted =
        crate::vet::run(&world.open(), crate::vet::Strictness::WhatIsTrue, &told).expect("looked at");
    assert_eq!((vetted.segments, vetted.untrue), (0, 1), "it is not looked at pack by pack");
    assert!(told.0.lock().expect("whole")[0].message.contains("more than 131072 packs"));
}

#[test]
fn a_repair_of_packs_ends_what_a_prune_found_untrue() {
    let mut world = shared();
    append_only_tests::lie(&world);
    for n in 0..4 {
        world.write(&format!("d/own{n}"), &noise(900 + n, 9_000));
    }
    world.back_up(&append_to(&world));
    rot(
        &world.storage,
        &listed(&world, |entry| {
            is_appended(entry) && entry.header.kind == ObjectKind::DataPack && entry.blobs > 1
        }),
    );
    let report = prune(&world.open(), &at_once());
    assert!(report.segments_untrue >= 2 && report.packs_condemned == 0, "{report:?}");
    let paths = vec![world.source.path().to_owned()];
    let sources = Sources { repository: None, paths };
    let report = repair::packs::run(&world.open(), &thorough(), &sources, &Silent).expect("repaired");
    assert_eq!(report.lost_count, 0, "{report:?}");
    assert_eq!(world.open().index().appended().len(), 0);
    world.verify();
    let report = prune(&world.open(), &at_once());
    assert_eq!(report.segments_untrue, 0, "{report:?}");
    repair(&world.open(), &thorough());
    world.verify();
}

#[test]
fn an_appender_stores_again_what_its_own_segments_list_in_removed_packs() {
    for remove in [true, false] {
        let mut world = shared();
        let theirs = listed(&world, |_| true);
        let first = *world.expected.keys().next().expect("one");
        world.forget(&world.open(), first);
        let grace = if remove { at_once() } else { later() };
        prune(&world.open(), &grace);
        // Whoever has its key lists them after that.
        append(&world, &theirs);
        world.back_up(&append_to(&world));
        restore_all(&world);
        repair(&world.open(), &thorough());
        prune(&world.open(), &at_once());
        world.verify();
    }
}

#[test]
fn a_lie_about_a_pack_that_is_read_first_hides_no_truth() {
    for n in 0..6u8 {
        let mut world = shared();
        world.write("d/of-the-web", &noise(500, 50_000));
        world.write("d/e/small", b"of the web, too");
        world.back_up(&append_to(&world));
        let own = listed(&world, is_appended);
        let header = own.iter().cloned().map(|(mut entry, directory)| {
            entry.header.commitment[0] ^= n + 1;
            (entry, directory)
        });
        append(&world, &header.collect::<Vec<_>>());
        let lengths = own.iter().cloned().map(|(entry, mut directory)| {
            for blob in directory.blocks.iter_mut().flat_map(|block| &mut block.blobs) {
                blob.len -= 1;
            }
            (entry, directory)
        });
        append(&world, &lengths.collect::<Vec<_>>());
        restore_all(&world);
    }
}

#[test]
fn a_check_doubts_no_sound_pack_for_what_an_appender_says_of_it() {
    let mut world = shared();
    world.back_up(&append_to(&world));
    let mut lies: Vec<_> = listed(&world, |_| true).into_iter().map(in_part).collect();
    for (n, (entry, directory)) in lies.iter_mut().enumerate() {
        entry.blobs += 1;
        entry.header.salt[0] ^= u8::try_from(n % 2).expect("small");
        directory.blocks[0].blobs[0].offset += 1;
    }
    append(&world, &lies);
    let repository = world.open();
    let report = check_all(&repository);
    let codes: BTreeSet<_> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, BTreeSet::from(["appended-untrue"]), "{:#?}", report.findings);
    let all =
        check::CheckOptions { read_data: check::ReadData::All, threads: 1, ..check::CheckOptions::default() };
    let named = BTreeSet::new();
    let found = check::packs_in_doubt(&repository, &all, &named, &Silent).expect("looked at");
    assert!(found.index_damage.is_none(), "{:?}", found.index_damage);
    assert!(found.packs.values().all(|pack| pack.doubt == check::Doubt::None), "{:?}", found.packs);
    let report = repair(&repository, &thorough());
    assert!(report.packs.is_empty(), "{:?}", report.packs);
    assert_eq!(world.open().index().appended().len(), 0);
    world.verify();
}

#[test]
fn a_log_that_lost_an_entry_lets_unknown_writers_only_add() {
    let world = World::new();
    let mut world = world;
    world.write("d/f", b"something");
    let theirs = world.back_up(&world.open());
    admit(&world);
    let admitted = world.open().fold().seq();
    let appender = append_to(&world);
    let segment = appender.fold().segments().next().expect("one").segment;
    append_only_tests::publish(
        &appender,
        vec![
            Change::SnapshotForgotten { snapshot: theirs, reason: "evil".into() },
            Change::SegmentsReplaced { added: Vec::new(), removed: vec![segment] },
            nothing(),
        ],
    );
    world.storage.delete(&ObjectKey::log(admitted)).expect("there");
    let password = crate::crypto::Password::new(crate::testing::PASSWORD.to_vec());
    let salvaged = Repository::open_salvaged(
        Arc::new(world.storage.clone()),
        &password,
        crate::testing::environment(4712),
    )
    .expect("the rest is readable");
    assert!(salvaged.fold().snapshot(&theirs).is_some(), "nobody who may has forgotten it");
    assert!(salvaged.fold().has_segment(&segment));
}

/// What lies in a pack whose directory is damaged only the segment says that its writer added.
#[test]
fn a_rebuilt_index_keeps_what_is_known_of_an_appenders_damaged_pack() {
    a_rebuilt_index_keeps_what_is_known(true);
    a_rebuilt_index_keeps_what_is_known(false);
}

fn a_rebuilt_index_keeps_what_is_known(in_header: bool) {
    let mut world = shared();
    for n in 0..4 {
        world.write(&format!("d/own{n}"), &noise(900 + n, 9_000));
    }
    world.back_up(&append_to(&world));
    for (entry, _) in listed(&world, |entry| is_appended(entry) && entry.header.kind == ObjectKind::DataPack)
    {
        world.storage.corrupt(&ObjectKey::pack(&entry.id), |bytes| {
            let at = if in_header { 20 } else { bytes.len() - 1 };
            bytes[at] ^= 4;
        });
    }
    let report = crate::rebuild::run(&world.open(), &crate::rebuild::RebuildOptions::default(), &Silent);
    assert!(!report.expect("rebuilt").damaged.is_empty());
    assert_eq!(world.open().index().appended().len(), 1);
    restore_all(&world);
    let sources = Sources { repository: None, paths: Vec::new() };
    let report = repair::packs::run(&world.open(), &thorough(), &sources, &Silent).expect("repaired");
    assert_eq!(report.lost_count, 0, "{report:?}");
    assert_eq!(world.open().index().appended().len(), 0);
    world.verify();
}
