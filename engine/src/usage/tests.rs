//! Figures against a plain count of blobs.

use super::*;
use crate::backup::{self, BackupOptions, SnapshotLabels};
use crate::forget::policy::GroupBy;
use crate::forget::{ForgetOptions, Guards, Selection, Wish};
use crate::monitor::Silent;
use crate::prune::test_support::{World, noise, options};
use crate::testing::NoCalendar;

/// All blobs that a snapshot needs, found the simple way.
struct All<'a> {
    index: &'a Index,
    met: BTreeMap<BlobId, u64>,
}

impl Needs for All<'_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        let location = self.index.get(id).expect("readable").expect("it is there");
        let is_new = self.met.insert(*id, location.entry.stored_len()).is_none();
        Ok(is_new.then_some(location))
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.tree(&chunk.id).map(drop)
    }
}

fn all(repository: &Repository, id: &SnapshotId, snapshot: &Snapshot) -> BTreeMap<BlobId, u64> {
    let mut all = All { index: repository.index(), met: BTreeMap::new() };
    reach::follow(repository.reader(), [snapshot.tree], &mut all, 1).expect("whole");
    if let Some(at) = repository.index().get(id.blob()).expect("readable") {
        all.met.insert(*id.blob(), at.entry.stored_len());
    }
    all.met
}

/// Snapshots that share some, and the directories `kept`, which never changes, and `d`, which does.
fn world() -> World {
    let mut world = World::new();
    for file in 0..20u64 {
        world.write(&format!("kept/deep/f{file}"), &noise(file, 3000));
    }
    for night in 0..5u64 {
        let repository = world.open();
        world.write(&format!("d/f{}", night % 3), &noise(100 + night, 50_000));
        world.write("d/back", &noise(200 + night % 2, 20_000));
        world.back_up(&repository);
    }
    world
}

fn needed_by_none_of(blobs: &BTreeMap<BlobId, u64>, others: &[&BTreeMap<BlobId, u64>]) -> u64 {
    let is_alone = |id: &BlobId| !others.iter().any(|other| other.contains_key(id));
    blobs.iter().filter(|(id, _)| is_alone(id)).map(|(_, bytes)| bytes).sum()
}

#[test]
fn snapshots_are_told_what_only_they_need_and_what_no_later_one_does() {
    let world = world();
    let repository = world.open();
    let usages = of_snapshots(&repository, 2, &Silent).expect("counted");
    let sets: Vec<_> = usages.iter().map(|usage| all(&repository, &usage.id, &usage.snapshot)).collect();
    assert_eq!(sets.len(), 5);
    for (at, usage) in usages.iter().enumerate() {
        let later: Vec<_> = sets[at + 1..].iter().collect();
        let others: Vec<_> = sets[..at].iter().chain(later.iter().copied()).collect();
        assert_eq!(usage.usage.unique, needed_by_none_of(&sets[at], &others), "snapshot {at}");
        assert_eq!(usage.usage.last, needed_by_none_of(&sets[at], &later), "snapshot {at}");
    }
    assert!(usages[0].usage.unique > 0 && usages[4].usage.last > usages[4].usage.unique);
}

#[test]
fn held_snapshots_count_as_the_latest() {
    let world = world();
    let repository = world.open();
    let held = of_snapshots(&repository, 1, &Silent).expect("counted")[1].id;
    let hold = crate::format::commit::Change::SnapshotHeld { snapshot: held, reason: "court".into() };
    repository.commit(&mut |_| Ok(vec![hold.clone()])).expect("held");
    let usages = of_snapshots(&repository, 1, &Silent).expect("counted");
    let sets: Vec<_> = usages.iter().map(|usage| all(&repository, &usage.id, &usage.snapshot)).collect();
    assert!(usages[1].is_held && !usages[0].is_held);
    assert_eq!(usages[0].usage.last, needed_by_none_of(&sets[0], &sets[1..].iter().collect::<Vec<_>>()));
    assert_eq!(usages[2].usage.last, needed_by_none_of(&sets[2], &[&sets[1], &sets[3], &sets[4]]));
    assert_eq!(usages[1].usage.last, sets[1].values().sum::<u64>());
}

#[test]
fn hosts_and_paths_share_nothing_that_counts_for_one() {
    let world = world();
    let repository = world.open();
    let (id, snapshot) = repository.find_snapshot("latest").expect("there is one");
    let hosts = of_hosts(&repository, 1, &Silent).expect("counted");
    assert_eq!((hosts.len(), hosts[0].1), (1, 5), "{hosts:?}");
    let source = world.source.path().as_os_str().as_encoded_bytes();
    let root = browse::find(repository.reader(), &snapshot.tree, source).expect("it is there");
    let root = root.tree().expect("a directory");
    let paths = of_paths(&repository, root, source, 1, 1, &Silent).expect("counted");
    let names: Vec<_> = paths.iter().map(|path| (path.path.clone(), path.is_rest)).collect();
    let below = |name: &str| [source, name.as_bytes()].concat();
    assert_eq!(names, [(below(""), true), (below("/d"), false), (below("/kept"), false)]);
    // Nothing lies in two of them: together they are all but the way down and the record.
    let met = all(&repository, &id, &snapshot);
    let all_bytes: u64 = met.values().sum();
    let told: u64 = paths.iter().map(|path| path.usage.unique).sum();
    assert!(told < all_bytes && told > all_bytes * 9 / 10, "{told} of {all_bytes}");
    // The same content in two directories frees nothing with either.
    let before = paths[2].usage.unique;
    world.write("copy/f", &noise(1, 3000));
    let mut world = world;
    world.back_up(&repository);
    let (_, snapshot) = repository.find_snapshot("latest").expect("there is one");
    let root = browse::find(repository.reader(), &snapshot.tree, source_of(&world)).expect("it is there");
    let paths = of_paths(&repository, root.tree().expect("a directory"), source_of(&world), 1, 1, &Silent)
        .expect("counted");
    assert_eq!(paths.len(), 4);
    assert!(paths[3].usage.unique < before - 2900, "{paths:?}");
}

fn source_of(world: &World) -> &[u8] {
    world.source.path().as_os_str().as_encoded_bytes()
}

/// Backs up as another host.
fn back_up_as(world: &World, host: &str) -> SnapshotId {
    let labels = SnapshotLabels { host: host.into(), ..SnapshotLabels::default() };
    let options = BackupOptions { labels, ..options() };
    let report = backup::run(&world.open(), world.paths(), &options, &Silent).expect("a backup");
    report.snapshot.expect("a snapshot")
}

#[test]
fn what_is_proposed_is_forgotten_without_being_asked_twice() {
    let mut world = World::new();
    let mut ids = Vec::new();
    // One host has an old snapshot only, one is backed up every night.
    for night in 0..6u64 {
        world.write("same", &noise(7, 40_000));
        world.write("changing", &noise(100 + night, 50_000 + 1000 * usize::try_from(night).expect("small")));
        ids.push(if night == 0 { back_up_as(&world, "alone") } else { world.back_up(&world.open()) });
    }
    let repository = world.open();
    forget::hold(&repository, ids[2], "audit").expect("held");
    let proposed = |wanted| {
        let proposal = to_free(&repository, wanted, 1, &Silent).expect("counted");
        (proposal.snapshots.iter().map(|one| one.id).collect::<Vec<_>>(), proposal.freed)
    };
    let (every, freed) = proposed(u64::MAX);
    assert_eq!(every, [ids[1], ids[3], ids[4]], "neither the only one of a host, nor one held, nor the last");
    let sets: Vec<_> = of_snapshots(&repository, 1, &Silent).expect("counted");
    let sets: Vec<_> = sets.iter().map(|one| all(&repository, &one.id, &one.snapshot)).collect();
    let (mut gone, stays) = (BTreeMap::new(), [&sets[0], &sets[2], &sets[5]]);
    for at in [1, 3, 4] {
        gone.extend(sets[at].clone());
    }
    assert_eq!(freed, needed_by_none_of(&gone, &stays));
    assert_eq!(proposed(0).0, []);
    assert_eq!(proposed(1).0, [ids[1]], "the oldest that can go");
    assert_eq!(proposed(55_000).0, [ids[1], ids[3]]);
    let forget = ForgetOptions {
        wish: Wish::Named(every),
        selection: Selection::default(),
        group_by: GroupBy::default(),
        guards: Guards::default(),
        dry_run: false,
        reason: "space".into(),
    };
    forget::run(&repository, &forget, &NoCalendar).expect("nothing has to be allowed");
    assert_eq!(proposed(u64::MAX), (Vec::new(), 0));
}

#[test]
fn a_split_directory_whose_parts_lead_to_each_other_is_given_up_at_once() {
    use crate::backup::{BackupOptions, Session};
    use crate::format::record;
    let world = World::new();
    let repository = world.open();
    let session = Session::new(&repository, &BackupOptions { threads: 1, ..BackupOptions::default() })
        .expect("a session");
    let mut writer = session.tree_writer();
    let mut put =
        |tree: &Tree| session.put(&mut writer, BlobKind::Tree, &record::encode(tree)).expect("stored");
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let mut tree = put(&Tree::Nodes(Vec::new()));
    for level in 0..6 {
        let part = |name: &String| TreePart {
            first: name.as_bytes().to_vec().into(),
            entries: 10_u64.pow(level),
            tree,
        };
        tree = put(&Tree::Parts(names.iter().map(part).collect()));
    }
    session.commit_blobs(&mut writer).expect("committed");
    let refused = pieces(&repository, tree).expect_err("a million pieces are said to be there");
    assert!(refused.to_string().contains("begins with"), "{refused}");
}

/// Commits a snapshot of one file of so many chunks, each of which it has twice.
fn back_up_chunks(repository: &Repository, seeds: std::ops::Range<u64>) {
    use crate::backup::Session;
    use crate::format::chunk_list::push_chunk;
    use crate::format::record;
    use crate::format::tree::{Metadata, Node};
    let session = Session::new(repository, &options()).expect("a session");
    let (mut data, mut trees) = (session.data_writer(), session.tree_writer());
    let mut table = Vec::new();
    for n in seeds.clone().chain(seeds) {
        let id = session.put(&mut data, BlobKind::Data, &noise(n, 40)).expect("stored");
        push_chunk(&mut table, Chunk { id, len: 40 });
    }
    data.flush().expect("stored");
    let size = 40 * (table.len() / chunk_list::CHUNK_ENTRY_LEN) as u64;
    let content = FileContent { size, chunks: table.into(), ..FileContent::default() };
    let (name, metadata) = (b"file".to_vec().into(), Metadata::default());
    let tree = Tree::Nodes(vec![Node { name, kind: NodeKind::File(content), metadata }]);
    let tree = session.put(&mut trees, BlobKind::Tree, &record::encode(&tree)).expect("stored");
    let (_, latest) = repository.find_snapshot("latest").expect("there is one");
    session.commit(&mut trees, &Snapshot { tree, parent: None, ..latest }, &[]).expect("committed");
}

/// Makes one segment of all.
fn merge(repository: &Repository) {
    let parts = repository.index().segments();
    let merged = repository.store_merged(&parts).expect("stored").info;
    let removed = parts.iter().map(|part| part.id()).collect();
    let change = crate::format::commit::Change::SegmentsReplaced { added: vec![merged], removed };
    repository.commit(&mut |_| Ok(vec![change.clone()])).expect("merged");
}

#[test]
fn chunks_are_looked_up_by_the_page_however_many_are_gathered_at_a_time() {
    use crate::backend::Folder;
    use crate::backend::testing::RecordingBackend;
    use crate::backend::testing::recording::Call;
    use crate::format::segment::PAGE_LEN;
    use crate::prune::test_support::open;
    let mut world = World::new();
    world.write("f", b"some");
    world.back_up(&world.open());
    back_up_chunks(&world.open(), 0..3000);
    back_up_chunks(&world.open(), 1000..4000);
    merge(&world.open());
    let backend = RecordingBackend::new(world.storage.clone());
    let recording = backend.recording();
    let repository = open(backend);
    let layout = repository.index().segments()[0].layout();
    let leaves: HashSet<u64> =
        (0..layout.leaf_pages()).map(|leaf| layout.leaf(leaf) * PAGE_LEN as u64).collect();
    repository.index().keep_pages(16);
    recording.take();
    let usages = of_snapshots(&repository, 1, &Silent).expect("counted");
    let is_leaf = |call: &&Call| call.folder == Some(Folder::Index) && leaves.contains(&call.offset);
    let (read, listed) = (recording.take().iter().filter(is_leaf).count(), 2 * 2 * 6000);
    // Each at most once whenever there is no room for more chunks.
    assert!(read < listed / 10, "{read} leaves for {listed} chunks");
    let sets: Vec<_> = usages.iter().map(|usage| all(&repository, &usage.id, &usage.snapshot)).collect();
    for (at, usage) in usages.iter().enumerate() {
        let others: Vec<_> = (0..3).filter(|other| *other != at).map(|other| &sets[other]).collect();
        let later: Vec<_> = sets[at + 1..].iter().collect();
        assert_eq!(usage.usage.unique, needed_by_none_of(&sets[at], &others), "snapshot {at}");
        assert_eq!(usage.usage.last, needed_by_none_of(&sets[at], &later), "snapshot {at}");
    }
}

mod of_flags {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::flags::ShortFlags;
    use crate::index::Bits;
    use crate::index::test_support::{entry, fixture};

    proptest! {
        /// As many as are kept in mind, and more.
        #[test]
        fn flags_are_a_set_that_is_emptied_again_and_again(
            rounds in prop::collection::vec(prop::collection::vec((0..2usize, 0..3000usize), 0..40), 1..6),
        ) {
            let fixture = fixture();
            let mut entries: Vec<_> = (0..3000).map(|n| entry(n, 0)).collect();
            entries.sort_unstable();
            let segments = [fixture.segment(&entries, &fixture.packs(1)), fixture.segment(&entries, &fixture.packs(1))];
            let (mut all, mut short) = (Bits::new(&segments), ShortFlags::new(Bits::new(&segments)));
            let mut met = HashSet::new();
            for round in rounds {
                short.clear();
                let mut current = HashSet::new();
                for place in round {
                    prop_assert_eq!(all.has(place), met.contains(&place));
                    prop_assert_eq!(all.set(place), met.insert(place));
                    prop_assert_eq!(short.set(place), current.insert(place));
                    prop_assert!(all.has(place));
                }
            }
        }
    }
}
