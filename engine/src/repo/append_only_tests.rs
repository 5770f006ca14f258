//! What the holder of an append-only keyslot can do, and what they cannot whatever they publish.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_bytes::ByteBuf;

use super::*;
use crate::backend::{Folder, MemoryBackend, ObjectKey};
use crate::backup::{self, BackupError, BackupOptions, ParentChoice};
use crate::crypto::keys::BlobKind;
use crate::crypto::{Password, SealError};
use crate::format::commit::{Change, Commit, SegmentInfo};
use crate::format::header::{HeaderError, ObjectKind};
use crate::format::pack::{Directory, DirectoryBlob, DirectoryBlock, PackError};
use crate::format::record;
use crate::format::snapshot;
use crate::ids::BlobId;
use crate::monitor::{Monitor, Problem, Silent};
use crate::prune::forecast_tests::stored;
use crate::prune::test_support::{
    Hooked, World, a_commit, assert_restores, at_once, files_of, forget, later, noise, open, options, prune,
};
use crate::prune::{self, PruneError, PruneOptions};
use crate::repair::{self, SnapshotsOptions};
use crate::restore::{self, RestoreOptions};
use crate::store::ReadError;
use crate::testing;

static SEEDS: AtomicU64 = AtomicU64::new(9_000_000);

fn appender_password() -> Password {
    Password::new(b"may only add".to_vec())
}

/// Makes an append-only keyslot.
pub(super) fn admit(world: &World) -> KeyslotId {
    world.open().add_append_only_keyslot(&appender_password(), "web", testing::CHEAP).expect("added")
}

pub(super) fn try_append(backend: impl Backend + 'static) -> Result<Repository, RepositoryError> {
    open_with(backend, &appender_password())
}

/// Opens the repository with a password.
pub(super) fn open_with(
    backend: impl Backend + 'static,
    password: &Password,
) -> Result<Repository, RepositoryError> {
    let environment = testing::environment(SEEDS.fetch_add(1, Ordering::Relaxed));
    Repository::open(Arc::new(backend), password, environment)
}

/// Opens the repository with it.
pub(super) fn append_to(world: &World) -> Repository {
    try_append(world.storage.clone()).expect("it opens")
}

/// A repository with a full writer's snapshot of some files, and an append-only keyslot.
pub(super) fn shared() -> World {
    let mut world = World::new();
    for n in 0..6u64 {
        world.write(&format!("d/f{n}"), &noise(n, 20_000));
    }
    let repository = world.open();
    world.back_up(&repository);
    admit(&world);
    world
}

/// Publishes an entry that the engine would not, signed with the key of `repository`.
pub(super) fn publish(repository: &Repository, changes: Vec<Change>) -> u64 {
    repository.refresh().expect("readable");
    let fold = repository.fold();
    let commit = Commit {
        seq: fold.seq() + 1,
        previous: fold.head(),
        time: Timestamp::default(),
        host: "evil".into(),
        user: "evil".into(),
        program: "evil".into(),
        changes,
    };
    log::publish(&*repository.backend, &commit, &repository.writer, &repository.sealer()).expect("stored");
    commit.seq
}

/// Keeps all problems.
#[derive(Default)]
pub(super) struct Collect(pub std::sync::Mutex<Vec<Problem>>);

impl Monitor for Collect {
    fn problem(&self, problem: &Problem) {
        self.0.lock().expect("whole").push(problem.clone());
    }
}

#[test]
fn it_backs_up_with_deduplication_and_whoever_has_the_root_secret_restores() {
    let mut world = shared();
    let appender = append_to(&world);
    world.write("d/new", &noise(77, 30_000));
    let before = world.storage.objects().len();
    let snapshot = world.back_up(&appender);
    let entry = appender.fold().snapshot(&snapshot).cloned().expect("it is there");
    assert_eq!(entry.appender, Some(appender.writer_id()));
    let storage = world.storage.clone();
    let packs = |kind: ObjectKind| {
        let objects = storage.objects();
        let of_kind = |bytes: &[u8]| bytes[8] == kind as u8 && bytes[9] == 2;
        objects
            .iter()
            .map(|(_, bytes)| bytes)
            .filter(|bytes| of_kind(bytes))
            .map(|bytes| bytes.len())
            .sum::<usize>()
    };
    let data = packs(ObjectKind::DataPack);
    assert!((30_000..60_000).contains(&data), "only what is new is stored: {data}");
    assert!(packs(ObjectKind::MetadataPack) > 0 && world.storage.objects().len() > before);
    world.verify();

    // The next one finds its own packs, too.
    world.back_up(&append_to(&world));
    assert_eq!(packs(ObjectKind::DataPack), data);
    world.verify();
}

#[test]
fn it_reads_neither_contents_of_others_nor_its_own() {
    let mut world = shared();
    let theirs = world.expected.keys().next().copied().expect("one");
    let appender = append_to(&world);
    let own = world.back_up(&appender);
    for id in [theirs, own] {
        let (_, snapshot) = appender.find_snapshot(&id.to_string()).expect("the log is readable");
        let refused = appender.reader().read(BlobKind::Tree, &snapshot.tree).expect_err("no key");
        let no_key = PackError::Header(HeaderError::Seal(SealError::NoKey));
        assert!(matches!(&refused, ReadError::Pack { source, .. } if *source == no_key), "{refused}");
        let target = tempfile::tempdir().expect("a folder");
        let restored =
            restore::run(&appender, &snapshot, b"/", target.path(), &RestoreOptions::default(), &Silent);
        assert!(restored.is_err() && files_of(target.path()).is_empty());
    }
    let parent = BackupOptions { parent: ParentChoice::Snapshot(own), ..options() };
    let refused = backup::run(&appender, world.paths(), &parent, &Silent).expect_err("it cannot be read");
    assert!(matches!(refused, BackupError::Repository(RepositoryError::AppendOnly(_))), "{refused}");
}

#[test]
fn the_engine_refuses_what_takes_more() {
    let mut world = shared();
    let theirs = world.expected.keys().next().copied().expect("one");
    let appender = append_to(&world);
    let objects = world.storage.objects();
    let other = Password::new(b"other".to_vec());
    let id = appender.keyslots()[0].entry.keyslot.to_string();
    let refusals = [
        appender.add_keyslot(&other, "", testing::CHEAP).map(|_| ()),
        appender.add_append_only_keyslot(&other, "", testing::CHEAP).map(|_| ()),
        appender.change_password(&other, testing::CHEAP).map(|_| ()),
        appender.remove_keyslot(&id).map(|_| ()),
        appender
            .commit(&mut |_| Ok(vec![Change::SnapshotForgotten { snapshot: theirs, reason: String::new() }]))
            .map(|_| ()),
    ];
    for refused in refusals {
        assert!(matches!(refused, Err(RepositoryError::AppendOnly(_))), "{refused:?}");
    }
    let refused = prune::run(&appender, &at_once(), &Silent).expect_err("it takes more");
    assert!(!matches!(refused, PruneError::ForgedState), "{refused}");
    assert_eq!(world.storage.objects(), objects, "nothing was stored and nothing deleted");
    world.back_up(&appender);
    world.verify();
}

/// Every change that an appender must not make, published with its own signature all the same.
#[test]
fn entries_out_of_its_capability_are_void_for_everybody() {
    let world = shared();
    let appender = append_to(&world);
    let fold = appender.fold();
    let snapshot = *world.expected.keys().next().expect("one");
    let record = fold.snapshot(&snapshot).expect("there").record.clone();
    let segment = fold.segments().next().expect("one").segment;
    let full = fold.keyslots().find(|slot| !slot.append_only).cloned().expect("the first one");
    let pack = appender.index().segments()[0].packs().next().expect("one").expect("readable").id;
    let stranger = WriterKey::new(&crate::crypto::keys::SecretKey::from_bytes([9; 32])).id();
    let keyslot = KeyslotId::from_bytes([9; 32]);
    let reason = || "evil".to_owned();
    let mut repaired: Snapshot = record::decode(&record).expect("a record");
    repaired.repaired = Some(snapshot::Repaired { original: snapshot, added: 1, lost: 1, appender: None });
    let mut copied: Snapshot = record::decode(&record).expect("a record");
    let repository = RepositoryId::from_bytes([9; 16]);
    copied.origin = Some(snapshot::Origin { repository, snapshot, added: 1, appender: None });
    let added = |record: Vec<u8>| Change::SnapshotAdded {
        snapshot: SnapshotId::new(appender.keys().blob_id(BlobKind::Snapshot, &record)),
        record: ByteBuf::from(record),
    };
    let forbidden = vec![
        Change::SnapshotForgotten { snapshot, reason: reason() },
        Change::SnapshotHeld { snapshot, reason: reason() },
        Change::SnapshotReleased { snapshot, reason: reason() },
        Change::SegmentsReplaced { added: Vec::new(), removed: vec![segment] },
        Change::SegmentsDropped { segments: vec![SegmentId::from_bytes([9; 32])] },
        Change::PacksCondemned { packs: vec![pack] },
        Change::PacksRescued { packs: vec![pack] },
        Change::PacksRemoved { packs: vec![pack] },
        Change::KeyslotAdded { keyslot, writer: stranger, label: reason() },
        Change::KeyslotAdded { keyslot, writer: appender.writer_id(), label: reason() },
        Change::AppenderAdded { keyslot, writer: stranger, label: reason() },
        Change::KeyslotRemoved { keyslot: full.keyslot, writer: full.writer },
        Change::LedgerReplaced { ledger: crate::ids::LedgerId::from_bytes([9; 32]), previous: None },
        Change::ParitySet { overhead: 30 },
        Change::ReserveSet { bytes: 0 },
        Change::Note { kind: crate::format::note::REBUILD_NOTE.into(), record: ByteBuf::new() },
        added(record::encode(&repaired)),
        added(record::encode(&copied)),
        added(b"no record at all".to_vec()),
        Change::SnapshotAdded { snapshot: SnapshotId::new(BlobId::from_bytes([9; 32])), record },
    ];
    let before = world.open().fold().to_state();
    for change in &forbidden {
        // What it may do does not carry in what it may not.
        let allowed = Change::SegmentsReplaced { added: Vec::new(), removed: Vec::new() };
        let seq = publish(&appender, vec![allowed, change.clone()]);
        let reader = world.open();
        let told = reader.void_entries();
        assert!(told.last().is_some_and(|told| told.contains(&format!("entry {seq} "))), "{change:?}");
        let after = reader.fold().to_state();
        let same = crate::format::state::State { seq: before.seq, head: before.head, ..after };
        assert_eq!(same, before, "{change:?}");
    }
    let told = world.open().void_entries();
    let named = |what: &str| told.iter().any(|told| told.contains("who may only add") && told.contains(what));
    for what in
        ["forgets a snapshot", "condemns packs", "removes packs", "adds a keyslot", "removes a keyslot"]
    {
        assert!(named(what), "{what}: {told:?}");
    }
    assert_eq!(told.len(), forbidden.len());
    world.verify_but_void(forbidden.len());
}

impl World {
    /// Everything restores, though the log has entries that do not count.
    pub(super) fn verify_but_void(&self, count: usize) {
        let repository = self.open();
        assert_eq!(repository.void_entries().len(), count);
        let root = std::os::unix::ffi::OsStrExt::as_bytes(self.source.path().as_os_str());
        for (id, files) in &self.expected {
            assert_restores(&repository, *id, files, root);
        }
    }
}

/// What an appender said is believed no more for having been repaired.
#[test]
fn a_repaired_snapshot_of_an_appender_is_still_its_own() {
    let mut world = shared();
    let appender = append_to(&world);
    let data_packs = |world: &World| {
        let objects = world.storage.objects().into_iter();
        let is_data = |(key, bytes): &(ObjectKey, Arc<[u8]>)| {
            key.folder() == Some(Folder::Packs) && bytes[8] == ObjectKind::DataPack as u8
        };
        objects.filter(is_data).map(|(key, _)| key).collect::<Vec<_>>()
    };
    let before = data_packs(&world);
    world.write("d/new", &noise(77, 30_000));
    let own = world.back_up(&appender);
    for pack in data_packs(&world).into_iter().filter(|pack| !before.contains(pack)) {
        world.storage.delete(&pack).expect("deleted");
    }
    let options = SnapshotsOptions { forget: true, threads: 1, ..SnapshotsOptions::default() };
    let report = repair::snapshots::run(&world.open(), &options, &Silent).expect("repaired");
    assert_eq!(report.snapshots.iter().map(|hit| hit.original).collect::<Vec<_>>(), [own], "{report:#?}");
    let repository = world.open();
    let id = report.snapshots[0].repaired.expect("something is left");
    let (_, record) = repository.find_snapshot(&id.to_string()).expect("there");
    let added_by = repository.fold().snapshot(&id).expect("there").appender;
    assert_eq!((added_by, record.appender(added_by)), (None, Some(appender.writer_id())));
}

#[test]
fn what_nobody_understands_stops_readers_only_from_a_full_writer() {
    let world = shared();
    let appender = append_to(&world);
    let unknown = |repository: &Repository| {
        let fold = repository.fold();
        let commit = Commit {
            seq: fold.seq() + 1,
            previous: fold.head(),
            time: Timestamp::default(),
            host: String::new(),
            user: String::new(),
            program: String::new(),
            changes: vec![Change::PacksCondemned { packs: Vec::new() }],
        };
        let mut body = record::encode(&commit);
        let at = body.windows(14).position(|bytes| bytes == b"packs_condemne").expect("a change");
        body[at] = b'q';
        let object = Commit::seal_body(body, &repository.writer, &repository.sealer()).expect("short");
        repository.backend.create(&ObjectKey::log(commit.seq), &object).expect("stored");
    };
    unknown(&appender);
    let repository = world.open();
    assert_eq!(repository.void_entries().len(), 1);
    unknown(&repository);
    let refused = testing::open(Arc::new(world.storage.clone()), 1);
    assert!(matches!(refused, Err(RepositoryError::Log(LogError::NotUnderstood { .. }))));
}

#[test]
fn the_last_keyslot_that_opens_everything_stays() {
    let world = shared();
    let repository = world.open();
    let full = repository.keyslot;
    let refused = repository.remove_keyslot(&full.to_string());
    assert!(matches!(refused, Err(RepositoryError::LastKeyslot(id)) if id == full));
    let writer = repository.writer_id();
    publish(&repository, vec![Change::KeyslotRemoved { keyslot: full, writer }]);
    assert_eq!(world.open().void_entries().len(), 1);
}

#[test]
fn it_makes_no_states_and_those_sealed_with_its_keys_are_not_believed() {
    let mut world = shared();
    let appender = append_to(&world);
    while appender.fold().seq() < 31 {
        appender.commit(&mut |_| Ok(vec![nothing()])).expect("an addition");
    }
    appender.commit(&mut |_| Ok(vec![nothing()])).expect("an addition");
    let states = |world: &World| {
        world.storage.objects().iter().filter(|(key, _)| key.folder() == Some(Folder::State)).count()
    };
    assert_eq!((appender.fold().seq(), states(&world)), (32, 0));
    // A fold without any snapshot, sealed with the key of the log.
    let mut state = appender.fold().to_state();
    state.snapshots.clear();
    let forged = record::seal_object(ObjectKind::Log, &state, &appender.sealer()).expect("short");
    let mut as_state = forged.clone();
    as_state[8] = ObjectKind::State as u8;
    for (n, object) in [forged, as_state].iter().enumerate() {
        world.storage.plant(&ObjectKey::state(32), object);
        assert_eq!(world.open().snapshots().expect("readable").len(), 1, "{n}");
    }
    world.storage.delete(&ObjectKey::state(32)).expect("it is there");
    world.open().commit(&mut |_| Ok(vec![nothing()])).expect("a commit");
    assert_eq!(states(&world), 1, "the next one who can make it does");
    world.back_up(&append_to(&world));
    world.verify();
}

#[test]
fn a_full_writer_makes_up_for_the_states_that_appenders_cannot_make() {
    let world = shared();
    let (appender, full) = (append_to(&world), world.open());
    let commit = |repository: &Repository| {
        repository.commit(&mut |_| Ok(vec![nothing()])).expect("a commit");
        repository.fold().seq()
    };
    let states = || -> Vec<u64> {
        let objects = world.storage.objects().into_iter().map(|(key, _)| key);
        let states = objects.filter(|key| key.folder() == Some(Folder::State));
        states.filter_map(|key| key.sequence()).collect()
    };
    let mut made = Vec::new();
    for appended in [50, 31, 100] {
        for _ in 0..appended {
            commit(&appender);
        }
        made.push(commit(&full));
        assert_eq!(states(), made[made.len().saturating_sub(2)..], "the newest and the one before");
    }
    for _ in 0..31 {
        commit(&full);
    }
    assert_eq!(states(), made[1..], "31 behind the newest are few enough");
    let last = commit(&world.open());
    assert_eq!(states(), [made[2], last], "and 32 are not, whoever made them");
}

/// A change that an appender may make and that changes nothing.
pub(super) fn nothing() -> Change {
    Change::SegmentsReplaced { added: Vec::new(), removed: Vec::new() }
}

#[test]
fn a_prune_vets_what_it_added_and_frees_what_nobody_needs() {
    let mut world = shared();
    world.write("d/of-the-web", &noise(500, 50_000));
    let first = world.back_up(&append_to(&world));
    world.remove("d/of-the-web");
    world.back_up(&append_to(&world));
    assert!(world.open().index().appended().len() >= 2);
    let report = prune(&world.open(), &at_once());
    assert!(report.segments_vetted >= 2 && report.packs_removed == 0, "{report:?}");
    assert_eq!((world.open().index().appended().len(), world.open().fold().appended().count()), (0, 0));
    world.verify();
    world.forget(&world.open(), first);
    let report = prune(&world.open(), &at_once());
    assert!(report.segments_vetted == 0 && report.packs_removed_bytes > 50_000, "{report:?}");
    world.verify();
    // What was vetted is there for everybody.
    world.write("d/more", b"more");
    world.back_up(&append_to(&world));
    world.back_up(&world.open());
    world.verify();
}

/// The appender lists all blobs of the others as being in a pack of its own, where there is something else.
pub(super) fn lie(world: &World) -> SegmentInfo {
    let appender = append_to(world);
    let mut ids: Vec<(BlobId, ObjectKind)> = Vec::new();
    for segment in appender.index().segments().iter() {
        let packs: Vec<_> = segment.packs().map(|pack| pack.expect("readable")).collect();
        ids.extend(segment.entries().map(|entry| {
            let entry = entry.expect("readable");
            (entry.id, packs[entry.pack as usize].header.kind)
        }));
    }
    // And what somebody is going to back up.
    ids.push((appender.keys().blob_id(BlobKind::Data, b"to be guessed"), ObjectKind::DataPack));
    let store = |kind: ObjectKind, blob_kind: BlobKind| {
        let store = appender.pack_store(kind, &crate::store::StoreOptions::new(3, 1, 64 << 20));
        let mut writer = store.writer();
        let junk = noise(4711, 5_000);
        writer.put(blob_kind, appender.keys().blob_id(blob_kind, &junk), &junk, true).expect("stored");
        writer.flush().expect("stored");
        let (pack, directory) = store.finish().expect("stored").remove(0);
        let span = directory.blocks[0].span;
        let blobs = ids
            .iter()
            .filter(|(_, of)| *of == kind)
            .map(|(id, _)| DirectoryBlob { id: *id, kind: blob_kind, offset: 0, len: 100 })
            .collect();
        (pack, Directory { blocks: vec![DirectoryBlock { span, blobs }] })
    };
    let packs =
        [store(ObjectKind::DataPack, BlobKind::Data), store(ObjectKind::MetadataPack, BlobKind::Tree)];
    let segment = appender.store_segment(&packs).expect("stored");
    let change = Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() };
    appender.commit(&mut |_| Ok(vec![change.clone()])).expect("it may add segments");
    segment.info
}

/// Somebody with an append-only keyslot says that everything is elsewhere: nobody stores less for that, and nothing is deleted.
#[test]
fn an_index_that_lies_costs_nothing_that_others_stored() {
    let mut world = shared();
    let info = lie(&world);
    // Content that the liar has guessed is stored all the same.
    world.write("d/guessed", b"to be guessed");
    world.back_up(&world.open());
    let listener = Collect::default();
    for _ in 0..2 {
        let report = prune::run(&world.open(), &at_once(), &listener).expect("pruned");
        let counts = (report.segments_vetted, report.segments_untrue, report.packs_removed);
        assert_eq!(counts, (0, 1, 0), "{report:?}");
    }
    let told = listener.0.lock().expect("whole").clone();
    assert_eq!(told.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["appended-untrue"; 2]);
    assert!(
        told[0]
            .path
            .as_deref()
            .is_some_and(|path| { String::from_utf8_lossy(path).contains(&info.segment.to_string()) })
    );
    let root = std::os::unix::ffi::OsStrExt::as_bytes(world.source.path().as_os_str()).to_vec();
    let restore_all = |world: &World| {
        let repository = world.open();
        for (id, files) in &world.expected {
            assert_restores(&repository, *id, files, &root);
        }
    };
    restore_all(&world);
    // A forget in between, so that the prune has something to write anew.
    let first = *world.expected.keys().next().expect("one");
    for n in 0..3 {
        world.write(&format!("d/f{n}"), b"changed");
    }
    world.back_up(&world.open());
    let named: Vec<SnapshotId> = world.expected.keys().copied().collect();
    for id in named.iter().filter(|id| **id == first) {
        forget(&world.open(), *id);
        world.expected.remove(id);
    }
    prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
    restore_all(&world);
    // A rebuilt index does not take its word either: no directory says what the segment says.
    crate::rebuild::run(&world.open(), &crate::rebuild::RebuildOptions::default(), &Silent).expect("rebuilt");
    assert_eq!(world.open().index().appended().len(), 0);
    prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
    world.verify();
}

/// The same with a pack whose own directory lies.
#[test]
fn a_rebuilt_index_takes_no_directorys_word() {
    let world = shared();
    let appender = append_to(&world);
    let id = world.open().index().segments()[0].entries().next().expect("one").expect("readable").id;
    let store = appender.pack_store(ObjectKind::DataPack, &crate::store::StoreOptions::new(3, 1, 64 << 20));
    let mut writer = store.writer();
    writer.put(BlobKind::Data, id, b"something else", true).expect("stored");
    writer.flush().expect("stored");
    let (liar, _) = store.finish().expect("stored").remove(0);
    let listener = Collect::default();
    let repository = world.open();
    let report = crate::rebuild::run(&repository, &crate::rebuild::RebuildOptions::default(), &listener);
    assert_eq!(report.expect("rebuilt").damaged, [liar.id]);
    assert!(repository.index().get_all(&id).expect("readable").iter().all(|at| at.pack.id != liar.id));
    world.verify_but_void(0);
}

#[test]
fn a_segment_that_is_not_there_is_in_nobodys_way_but_a_prunes() {
    let mut world = shared();
    let appender = append_to(&world);
    let info = SegmentInfo { segment: SegmentId::from_bytes([7; 32]), blobs: 1, packs: 1, bytes: 8192 };
    let change = Change::SegmentsReplaced { added: vec![info], removed: Vec::new() };
    publish(&appender, vec![change]);
    let repository = world.open();
    assert_eq!(repository.broken_segments().len(), 1);
    world.back_up(&repository);
    world.verify_but_void(0);
    let stored = world.storage.objects().len();
    let refused = prune::run(&world.open(), &at_once(), &Silent).expect_err("packs would pass for strays");
    assert!(matches!(refused, PruneError::AppendedSegment { .. }), "{refused}");
    assert_eq!(world.storage.objects().len(), stored);
    crate::rebuild::run(&world.open(), &crate::rebuild::RebuildOptions::default(), &Silent).expect("rebuilt");
    prune(&world.open(), &at_once());
    world.verify();
}

#[test]
fn nobody_takes_files_over_from_what_it_says_of_them() {
    let mut world = shared();
    let appended = world.back_up(&append_to(&world));
    let report = backup::run(&world.open(), world.paths(), &options(), &Silent).expect("a backup");
    let own = world.expected.keys().find(|id| **id != appended).copied();
    assert_eq!(report.parent, own, "the newest snapshot is no parent");
    let parent = BackupOptions { parent: ParentChoice::Snapshot(appended), ..options() };
    let refused = backup::run(&world.open(), world.paths(), &parent, &Silent);
    assert!(matches!(refused, Err(BackupError::AppendedParent(id)) if id == appended));
}

/// A prune condemns, while the appender is at work, what it relies on: it notices, and stores that again.
#[test]
fn what_a_prune_takes_from_under_it_is_stored_again() {
    for remove in [false, true] {
        let mut world = shared();
        let theirs = *world.expected.keys().next().expect("one");
        let hooked = Hooked::new(&world.storage);
        let other = world.storage.clone();
        hooked.before_create(a_commit, move || {
            let repository = open(other);
            forget(&repository, theirs);
            let grace = if remove { at_once() } else { later() };
            prune(&repository, &grace);
        });
        world.expected.remove(&theirs);
        world.write("d/new", b"new");
        let appender = try_append(hooked.clone()).expect("it opens");
        world.back_up(&appender);
        assert!(hooked.is_done());
        world.verify();
        prune(&world.open(), &at_once());
        world.verify();
    }
}

#[test]
fn what_an_interrupted_run_committed_is_found_by_the_next_one() {
    let mut world = shared();
    for n in 0..30u64 {
        world.write(&format!("many/f{n}"), &noise(1000 + n, 4_000));
    }
    let appender = append_to(&world);
    // A commit after every few blobs, and no partial snapshots: those could never be forgotten again.
    let often = BackupOptions { blobs_per_commit: 4, partial_every: Duration::ZERO, ..options() };
    let report = backup::run(&appender, world.paths(), &often, &Silent).expect("a backup");
    let id = report.snapshot.expect("a snapshot");
    world.expected.insert(id, files_of(world.source.path()));
    assert_eq!(appender.snapshots().expect("readable").len(), 2);
    let report = backup::run(&append_to(&world), world.paths(), &options(), &Silent).expect("a backup");
    assert_eq!(report.summary.bytes_added, 0);
    world.verify();
    let by_id: BTreeMap<_, _> = appender.snapshots().expect("readable").into_iter().collect();
    assert!(by_id.values().all(|snapshot| !snapshot.partial));
}

/// A process that runs on holds open what is deleted meanwhile: it must not go on to rely on it because an appender says that it is there.
#[test]
fn a_removed_segment_that_an_appender_adds_again_is_not_believed_by_those_who_knew_it() {
    let world = shared();
    let (running, full, appender) = (world.open(), world.open(), append_to(&world));
    let info = *full.fold().segments().next().expect("one");
    publish(&full, vec![Change::SegmentsReplaced { added: Vec::new(), removed: vec![info.segment] }]);
    publish(&appender, vec![Change::SegmentsReplaced { added: vec![info], removed: Vec::new() }]);
    running.refresh().expect("readable");
    assert!(running.index().segments().iter().all(|segment| segment.id() != info.segment));
    assert!(running.index().everything().iter().any(|segment| segment.id() == info.segment));
}

#[test]
fn a_copy_of_an_appenders_snapshot_is_still_an_appenders_and_no_appender_takes_copies() {
    use crate::copy::{self, CopyError, CopyOptions};
    let mut world = shared();
    let appender = append_to(&world);
    world.write("d/new", &noise(77, 30_000));
    let appended = world.back_up(&appender);
    let target = testing::init(Arc::new(MemoryBackend::new().called("target")), 424_242);
    let options = CopyOptions { threads: 1, ..CopyOptions::default() };
    copy::run(&world.open(), &target, &options, &Silent).expect("copied");
    let snapshots = target.snapshots().expect("readable");
    let by: Vec<_> = snapshots.iter().map(|(_, copy)| copy.appender(None)).collect();
    assert_eq!(by, [None, Some(appender.writer_id())]);
    let (_, copy) = &snapshots[1];
    assert_eq!(copy.origin.map(|origin| origin.snapshot), Some(appended));
    // It comes home as what it was.
    let home = testing::init(Arc::new(MemoryBackend::new().called("home")), 424_243);
    copy::run(&target, &home, &options, &Silent).expect("copied");
    assert_eq!(home.snapshots().expect("readable")[1].1.appender(None), Some(appender.writer_id()));
    let result = copy::run(&target, &append_to(&world), &options, &Silent);
    let error = result.expect_err("an appender cannot vouch for them");
    assert!(
        matches!(error, CopyError::Target(BackupError::Repository(RepositoryError::AppendOnly(_)))),
        "{error}"
    );
    let result = copy::run(&append_to(&world), &target, &options, &Silent);
    assert!(matches!(result, Err(CopyError::Source(RepositoryError::AppendOnly(_)))), "{result:?}");
}

#[test]
fn a_dry_prune_names_what_is_vetted_first_and_the_run_counts_it() {
    let mut world = shared();
    world.write("d/new", &noise(90, 30_000));
    world.back_up(&append_to(&world));
    let dry = prune(&world.open(), &PruneOptions { dry_run: true, ..at_once() });
    assert!(dry.is_estimate && dry.segments_unvetted > 0, "{dry:?}");
    let before = stored(&world.storage);
    let report = prune(&world.open(), &at_once());
    assert_eq!(report.bytes_freed(), before - stored(&world.storage), "{report:?}");
    assert_eq!((report.segments_vetted, report.is_estimate), (dry.segments_unvetted, false));
    world.verify();
}
