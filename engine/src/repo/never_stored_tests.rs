//! What the holder of a full keyslot says of packs that were never stored. Whoever would have to rely on it says which pack is not
//! there, and nothing is lost by it.

use std::collections::BTreeSet;

use super::append_only_lies_tests::restore_all;
use super::append_only_tests::{Collect, publish};
use super::*;
use crate::backend::{Folder, ObjectKey};
use crate::backup::{self, BackupOptions, ParentChoice};
use crate::check::{self, CheckOptions, CheckReport};
use crate::crypto::keys::BlobKind;
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::monitor::Silent;
use crate::prune::test_support::{World, at_once, files_of, noise, options, prune};
use crate::prune::{self, PruneError};
use crate::restore::{self, RestoreOptions};
use crate::store::StoreOptions;

/// A repository with a snapshot of some files.
fn world() -> World {
    let mut world = World::new();
    for n in 0..4 {
        world.write(&format!("d/f{n}"), &noise(n, 6_000));
    }
    world.back_up(&world.open());
    world
}

fn packs(world: &World) -> BTreeSet<PackId> {
    let objects = world.storage.objects();
    let packs = objects.iter().filter(|(key, _)| key.folder() == Some(Folder::Packs));
    packs.filter_map(|(key, _)| key.pack_id()).collect()
}

/// Lists a pack of these contents, and no such pack is there.
fn list_what_is_not_there(world: &World, contents: &[Vec<u8>]) -> PackId {
    let repository = world.open();
    let store = repository.pack_store(ObjectKind::DataPack, &StoreOptions::new(3, 1, 64 << 20));
    let mut writer = store.writer();
    for bytes in contents {
        let id = repository.keys().blob_id(BlobKind::Data, bytes);
        writer.put(BlobKind::Data, id, bytes, true).expect("stored");
    }
    writer.flush().expect("stored");
    let made = store.finish().expect("stored");
    let segment = repository.store_segment(&made).expect("stored").info;
    let pack = made[0].0.id;
    world.storage.delete(&ObjectKey::pack(&pack)).expect("it was there");
    publish(&repository, vec![Change::SegmentsReplaced { added: vec![segment], removed: Vec::new() }]);
    assert_eq!(world.open().void_entries(), [] as [String; 0], "the log alone cannot tell");
    pack
}

fn missing_packs(report: &CheckReport) -> Vec<String> {
    let missing = report.findings.iter().filter(|finding| finding.code == "pack-missing");
    missing.map(|finding| finding.object.clone()).collect()
}

fn check(world: &World) -> CheckReport {
    let options = CheckOptions { threads: 1, ..CheckOptions::default() };
    check::run(&world.open(), &options, &Silent).expect("checked")
}

#[test]
fn a_backup_stores_what_a_pack_should_hold_that_was_never_stored() {
    let mut world = world();
    let contents = [noise(70, 5_000), noise(71, 5_000)];
    // Also something that is stored elsewhere: that stays where it is.
    let listed = [contents.to_vec(), vec![noise(1, 6_000)]].concat();
    let pack = list_what_is_not_there(&world, &listed);
    assert_eq!(missing_packs(&check(&world)), [ObjectKey::pack(&pack).to_string()]);
    for (n, bytes) in contents.iter().enumerate() {
        world.write(&format!("d/new{n}"), bytes);
    }
    let monitor = Collect::default();
    let report = backup::run(&world.open(), world.paths(), &options(), &monitor).expect("a backup");
    let told = monitor.0.into_inner().expect("whole");
    let told: Vec<_> = told.iter().map(|problem| (problem.code, problem.message.as_str())).collect();
    assert!(
        matches!(told[..], [("pack-missing", message)] if message.contains(&pack.to_string())),
        "{told:?}"
    );
    world.expected.insert(report.snapshot.expect("a snapshot"), files_of(world.source.path()));
    restore_all(&world);
    assert_eq!(missing_packs(&check(&world)), [ObjectKey::pack(&pack).to_string()]);
    // Nobody needs it, so it goes, and nothing else does.
    let before = packs(&world);
    let report = prune(&world.open(), &at_once());
    assert_eq!((report.packs_dead, report.packs_dead_bytes), (1, 0), "{report:?}");
    assert_eq!(packs(&world), before);
    world.verify();
}

#[test]
fn nothing_is_pruned_while_a_snapshot_needs_a_pack_that_was_never_stored() {
    let mut world = world();
    let first = *world.expected.keys().next().expect("one");
    let before = packs(&world);
    world.write("d/f0", &noise(80, 7_000));
    world.write("e/f9", &noise(81, 7_000));
    let liar = world.back_up(&world.open());
    let files = world.expected.remove(&liar).expect("backed up");
    let never_stored: Vec<PackId> = packs(&world).difference(&before).copied().collect();
    assert!(never_stored.len() >= 2, "contents and trees");
    let of_kind = |kind| {
        let is = |pack: &&PackId| {
            world.storage.read(&ObjectKey::pack(pack), 1 << 30).expect("there")[8] == kind as u8
        };
        never_stored.iter().filter(is).copied().collect::<Vec<_>>()
    };
    let (contents, trees) = (of_kind(ObjectKind::DataPack), of_kind(ObjectKind::MetadataPack));
    for (n, gone) in [contents, trees].into_iter().enumerate() {
        for pack in &gone {
            world.storage.delete(&ObjectKey::pack(pack)).expect("it was there");
        }
        let named = |text: &str| gone.iter().any(|pack| text.contains(&pack.to_string()));
        let report = check(&world);
        assert!(report.is_damaged());
        assert!(gone.iter().all(|pack| missing_packs(&report).contains(&ObjectKey::pack(pack).to_string())));
        let there = packs(&world);
        let refused = prune::run(&world.open(), &at_once(), &Silent).expect_err("something is missing");
        assert!(matches!(refused, PruneError::Missing { .. } | PruneError::Reach(_)), "{refused:?}");
        assert!(named(&refused.to_string()), "{refused}");
        assert_eq!((packs(&world), world.open().fold().condemned().count()), (there, 0));
        let repository = world.open();
        let (_, snapshot) = repository.find_snapshot(&liar.to_string()).expect("listed");
        let (target, monitor) = (tempfile::tempdir().expect("a folder"), Collect::default());
        let root = std::os::unix::ffi::OsStrExt::as_bytes(world.source.path().as_os_str());
        let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
        match restore::run(&repository, &snapshot, root, target.path(), &options, &monitor) {
            Ok(report) => {
                let told = monitor.0.into_inner().expect("whole");
                assert!(
                    report.errors > 0 && told.iter().any(|problem| named(&problem.message)),
                    "{n}: {told:?}"
                );
            }
            Err(error) => assert!(named(&error.to_string()), "{n}: {error}"),
        }
        assert_eq!(world.expected.keys().collect::<Vec<_>>(), [&first]);
        restore_all(&world);
    }
    // A backup that reads everything makes good what it can.
    let monitor = Collect::default();
    let everything = BackupOptions { parent: ParentChoice::None, ..options() };
    let report = backup::run(&world.open(), world.paths(), &everything, &monitor).expect("a backup");
    let told = monitor.0.into_inner().expect("whole");
    assert!(
        never_stored.iter().all(|pack| told.iter().any(|problem| {
            problem.code == "pack-missing" && problem.message.contains(&pack.to_string())
        }))
    );
    world.expected.insert(report.snapshot.expect("a snapshot"), files);
    // Its record was stored nowhere else.
    world.forget(&world.open(), liar);
    let report = prune(&world.open(), &at_once());
    assert_eq!(report.packs_dead_bytes, 0, "{report:?}");
    world.verify();
}
