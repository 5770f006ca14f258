//! Numbers that no honest writer stores: whoever adds them up must not end by it.

use serde_bytes::ByteBuf;

use super::append_only_lies_tests::{append, is_appended, listed};
use super::append_only_tests::{append_to, publish, shared};
use super::*;
use crate::backup::{BackupOptions, Session};
use crate::check::{self, CheckOptions};
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{Chunk, push_chunk};
use crate::format::commit::{Change, SegmentInfo};
use crate::format::header::ObjectKind;
use crate::format::pack::{BlockSpan, Directory, DirectoryBlob, DirectoryBlock};
use crate::format::record;
use crate::format::segment::PackEntry;
use crate::format::tree::{FileContent, Hole, Metadata, Node, NodeKind, Tree};
use crate::ids::BlobId;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{World, at_once, noise};
use crate::prune::{self, PruneError, PruneOptions};
use crate::repair::{self, SnapshotsOptions};
use crate::{stats, usage};

fn node(name: &str, kind: NodeKind) -> Node {
    Node { name: ByteBuf::from(name), kind, metadata: Metadata::default() }
}

/// Commits a snapshot of what `build` makes with a function that stores trees; `build` gives the root.
fn commit_snapshot(
    repository: &Repository,
    build: impl FnOnce(&mut dyn FnMut(&Tree) -> BlobId) -> BlobId,
) -> SnapshotId {
    let session = Session::new(repository, &BackupOptions { threads: 1, ..BackupOptions::default() })
        .expect("a session");
    let mut writer = session.tree_writer();
    let tree = build(&mut |tree: &Tree| {
        session.put(&mut writer, BlobKind::Tree, &record::encode(tree)).expect("stored")
    });
    let (_, latest) = repository.find_snapshot("latest").expect("there is one");
    session.commit(&mut writer, &Snapshot { tree, parent: None, ..latest }, &[]).expect("committed")
}

#[test]
fn lengths_of_packs_and_segments_beyond_all_numbers_end_nothing() {
    let mut world = shared();
    world.write("d/own", &noise(900, 9_000));
    world.back_up(&append_to(&world));
    let is_data = |entry: &PackEntry| is_appended(entry) && entry.header.kind == ObjectKind::DataPack;
    let (entry, directory) = listed(&world, is_data).remove(0);
    for n in 0..3 {
        let made_up = PackEntry { id: PackId::from_bytes([n; 32]), size: u64::MAX, ..entry };
        append(&world, &[(made_up, directory.clone())]);
    }
    let appender = append_to(&world);
    let segment = appender.store_segment(&[(entry, directory)]).expect("stored").info;
    let long = SegmentInfo { bytes: u64::MAX, blobs: u64::MAX, packs: u32::MAX, ..segment };
    publish(&appender, vec![Change::SegmentsReplaced { added: vec![long], removed: Vec::new() }]);

    let dry = PruneOptions { dry_run: true, ..at_once() };
    prune::run(&world.open(), &dry, &Silent).expect("planned");
    let counted = stats::run(&world.open(), &[], &Silent).expect("counted");
    assert_eq!((counted.stored_bytes(), counted.segment_bytes), (u64::MAX, u64::MAX));
    usage::of_snapshots(&world.open(), 1, &Silent).expect("counted");
    parity::status(&world.open()).expect("counted");
    parity::add(&world.open(), &AddOptions { threads: 1, ..AddOptions::default() }, &Silent)
        .expect("covered");
    check::run(&world.open(), &CheckOptions { threads: 1, ..CheckOptions::default() }, &Silent)
        .expect("checked");
    prune::run(&world.open(), &at_once(), &Silent).expect("pruned");
    world.back_up(&world.open());
}

#[test]
fn entries_of_impossible_lengths_are_no_place_of_what_is_needed() {
    let mut world = World::new();
    world.write("f", &noise(1, 9_000));
    let repository = world.open();
    world.back_up(&repository);
    let (entry, _) = listed(&world, |entry| entry.header.kind == ObjectKind::DataPack).remove(0);
    let ids = [7, 8, 9].map(|n| BlobId::from_bytes([n; 32]));
    let blob = |id: &BlobId| DirectoryBlob { id: *id, kind: BlobKind::Data, offset: 0, len: u32::MAX };
    let span = BlockSpan { position: 80, sealed_len: u32::MAX, raw_len: 0 };
    let blocks = vec![DirectoryBlock { span, blobs: ids.iter().map(blob).collect() }];
    let segment = repository.store_segment(&[(entry, Directory { blocks })]).expect("stored").info;
    publish(&repository, vec![Change::SegmentsReplaced { added: vec![segment], removed: Vec::new() }]);
    commit_snapshot(&world.open(), |put| {
        let mut table = Vec::new();
        ids.iter().for_each(|id| push_chunk(&mut table, Chunk { id: *id, len: 100 }));
        let content = FileContent { size: 300, chunks: ByteBuf::from(table), ..FileContent::default() };
        put(&Tree::Nodes(vec![node("file", NodeKind::File(content))]))
    });
    let refused = prune::run(&world.open(), &at_once(), &Silent).expect_err("they are nowhere");
    assert!(matches!(refused, PruneError::Missing { count: 3, .. }), "{refused}");
}

#[test]
fn trees_that_count_more_than_there_are_numbers_end_nothing() {
    let mut world = World::new();
    world.write("f", &noise(1, 9_000));
    world.back_up(&world.open());
    let content = |size| {
        NodeKind::File(FileContent {
            size,
            holes: vec![Hole { offset: 0, length: size }],
            ..FileContent::default()
        })
    };
    for size in [1 << 62, (1 << 62) + 1] {
        commit_snapshot(&world.open(), |put| {
            let mut tree = put(&Tree::Nodes(vec![node("a", content(size)), node("b", content(size))]));
            for _ in 0..65 {
                let directory = |name| node(name, NodeKind::Directory { tree });
                tree = put(&Tree::Nodes(vec![directory("a"), directory("b")]));
            }
            tree
        });
    }
    let counted = stats::run(&world.open(), &[], &Silent).expect("counted");
    assert_eq!((counted.files, counted.directories, counted.logical_bytes), (u64::MAX, u64::MAX, u64::MAX));
    for dry_run in [true, false] {
        let options = SnapshotsOptions { dry_run, threads: 1, ..SnapshotsOptions::default() };
        let report = repair::snapshots::run(&world.open(), &options, &Silent).expect("looked at");
        assert_eq!((report.checked, report.snapshots.len()), (3, 0));
    }
    usage::of_snapshots(&world.open(), 1, &Silent).expect("counted");
    check::run(&world.open(), &CheckOptions { threads: 1, ..CheckOptions::default() }, &Silent)
        .expect("checked");
}

/// A directory of many names for one tree, some levels deep, with one lost file at the bottom.
#[test]
fn a_lost_file_that_many_paths_lead_to_is_looked_at_as_often_as_it_is_named() {
    let mut world = World::new();
    world.write("f", &noise(1, 9_000));
    world.back_up(&world.open());
    let lost = commit_snapshot(&world.open(), |put| {
        let mut table = Vec::new();
        push_chunk(&mut table, Chunk { id: BlobId::from_bytes([9; 32]), len: 10 });
        let content = FileContent { size: 10, chunks: ByteBuf::from(table), ..FileContent::default() };
        let mut tree =
            put(&Tree::Nodes(vec![node("lost", NodeKind::File(content)), node("pipe", NodeKind::Fifo)]));
        for _ in 0..70 {
            let directory = |name| node(name, NodeKind::Directory { tree });
            tree = put(&Tree::Nodes(vec![directory("a"), directory("b")]));
        }
        tree
    });
    let options = SnapshotsOptions { threads: 1, ..SnapshotsOptions::default() };
    let report = repair::snapshots::run(&world.open(), &options, &Silent).expect("repaired");
    let [hit] = &report.snapshots[..] else { panic!("{:?}", report.snapshots.len()) };
    assert_eq!((hit.original, hit.lost_count), (lost, u64::MAX));
    assert_eq!(hit.lost.len(), repair::RepairedSnapshot::LOST_MAX);
    // At the bottom of every path the other entry is left.
    let repository = world.open();
    let (_, repaired) =
        repository.find_snapshot(&hit.repaired.expect("a new one").to_string()).expect("there");
    for name in ["a/", "b/"] {
        let path = name.repeat(70);
        let found = crate::browse::find(repository.reader(), &repaired.tree, path.as_bytes()).expect("there");
        let mut names = Vec::new();
        crate::browse::nodes(repository.reader(), &found.tree().expect("a directory"), &mut |node| {
            names.push(node.name.into_vec());
            std::ops::ControlFlow::Continue(())
        })
        .expect("readable");
        assert_eq!(names, [b"pipe"]);
    }
    let again = repair::snapshots::run(
        &repository,
        &SnapshotsOptions { snapshots: vec![hit.repaired.expect("one")], ..options },
        &Silent,
    );
    assert_eq!(again.expect("looked at").snapshots.len(), 0);
}
