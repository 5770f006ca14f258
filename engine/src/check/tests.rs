//! What a check finds in repositories that are well, and in those that writers made wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_bytes::ByteBuf;

use super::fixture::{
    Builder, Sample, bytes, check_all, directory, file, init, node, open, sample, store_state,
};
use super::*;
use crate::backend::testing::{Operation, RecordingBackend};
use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::Chunk;
use crate::format::header::ObjectKind;
use crate::format::record;
use crate::format::segment::PAGE_LEN;
use crate::format::tree::{NodeKind, Tree};
use crate::ids::BlobId;
use crate::index::{Index, open_segment};
use crate::monitor::{Progress, Silent};

fn codes(report: &CheckReport) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.code).collect()
}

fn hit_paths(report: &CheckReport, sample: &Sample, snapshot: usize) -> Vec<String> {
    let of = report.hit_files.iter().filter(|hit| hit.snapshot == sample.snapshots[snapshot]);
    of.map(|hit| String::from_utf8_lossy(&hit.path).into_owned()).collect()
}

fn with(repository: &Repository, read_data: ReadData, threads: usize) -> CheckReport {
    run(repository, &CheckOptions { read_data, threads, memory: 1 << 20, ..CheckOptions::default() }, &Silent)
        .expect("checked")
}

/// Findings of a repository that a writer made.
fn findings_of(build: impl FnOnce(Builder<'_>)) -> CheckReport {
    let repository = init(Arc::new(MemoryBackend::new()), 5);
    build(Builder::new(&repository));
    check_all(&repository)
}

#[test]
fn a_whole_repository_is_whole() {
    let sample = sample();
    let blobs: u64 = sample.packs.iter().map(|(pack, _)| u64::from(pack.blobs)).sum();
    let bytes: u64 = sample.packs.iter().map(|(pack, _)| pack.size).sum();
    for threads in [1, 3] {
        let report = with(&sample.repository, ReadData::All, threads);
        let expected = CheckReport {
            commits: 4,
            snapshots: 2,
            segments: 2,
            packs: 4,
            packs_read: 4,
            bytes_read: bytes,
            blobs_verified: blobs,
            oldest_read: report.oldest_read,
            ..CheckReport::default()
        };
        assert_eq!(report, expected);
        let oldest = report.oldest_read.expect("all were read just now");
        assert!(sample.packs.iter().any(|(pack, _)| pack.id == oldest.0));
    }
    let report = with(&sample.repository, ReadData::No, 1);
    assert_eq!((report.packs_read, report.findings.len(), report.packs), (0, 0, 4));
}

#[test]
fn an_empty_repository_is_whole() {
    let report = check_all(&init(Arc::new(MemoryBackend::new()), 5));
    assert_eq!(report, CheckReport { commits: 1, ..CheckReport::default() });
}

#[test]
fn parts_cover_all_packs_and_shares_are_kept() {
    let sample = sample();
    let read = |read_data| with(&sample.repository, read_data, 1);
    let packs: u64 = (1..=3).map(|n| read(ReadData::Part { n, m: 3 }).packs_read).sum();
    assert_eq!(packs, 4);
    assert_eq!(read(ReadData::Percent(0.0)).packs_read, 0);
    assert_eq!(read(ReadData::Percent(26.0)).packs_read, 2);
    assert_eq!(read(ReadData::Percent(100.0)).packs_read, 4);
    let some = read(ReadData::Bytes(1500));
    assert!(some.packs_read >= 1 && some.bytes_read <= 1500, "{some:?}");
}

#[test]
fn structure_is_checked_without_reading_data() {
    let backend = RecordingBackend::new(MemoryBackend::new());
    let recording = backend.recording();
    let repository = init(Arc::new(backend), 5);
    let mut builder = Builder::new(&repository);
    let chunk = builder.chunk(&bytes(1, 1 << 20));
    let root = builder.directory(vec![file("a", &[chunk])]);
    builder.snapshot(root);
    builder.commit();
    recording.take();
    let report = with(&repository, ReadData::No, 1);
    assert_eq!(report.findings, []);
    let calls = recording.take();
    let read: u64 = calls
        .iter()
        .filter(|call| call.is_read() && call.folder == Some(Folder::Packs))
        .map(|call| call.length)
        .sum();
    assert!(read < 150 << 10, "{read} bytes of packs of more than a megabyte");
    assert_eq!(calls.iter().filter(|call| call.operation == Operation::Create).count(), 0);
}

#[test]
fn a_lost_pack_names_the_files_it_hits() {
    let sample = sample();
    sample.backend.delete(&sample.pack(2)).expect("deleted");
    let report = with(&sample.repository, ReadData::No, 2);
    assert_eq!(codes(&report), ["pack-missing"]);
    assert_eq!(report.findings[0].object, sample.pack(2).as_str());
    assert_eq!(hit_paths(&report, &sample, 0), Vec::<String>::new());
    assert_eq!(hit_paths(&report, &sample, 1), ["/new"]);

    sample.backend.delete(&sample.pack(0)).expect("deleted");
    let report = with(&sample.repository, ReadData::No, 2);
    let all = ["/large", "/docs/a", "/docs/b", "/many/m1", "/many/m2", "/many/m3", "/many/m4"];
    assert_eq!(hit_paths(&report, &sample, 0), all);
    assert_eq!(hit_paths(&report, &sample, 1).len(), all.len() + 1);
}

#[test]
fn a_damaged_block_hits_only_its_files() {
    let sample = sample();
    let block = sample.packs[0].1.blocks[1].span;
    sample.backend.corrupt(&sample.pack(0), |bytes| bytes[block.position as usize] ^= 1);
    assert_eq!(codes(&with(&sample.repository, ReadData::No, 1)), Vec::<&str>::new());
    let report = check_all(&sample.repository);
    assert_eq!(codes(&report), ["pack-damaged"]);
    let chunk = sample.packs[0].1.blocks[1].blobs[0].id.to_string();
    assert!(report.findings[0].message.contains(&chunk), "{}", report.findings[0].message);
    let hit = ["/docs/b", "/many/m1", "/many/m2", "/many/m3", "/many/m4"];
    assert_eq!(hit_paths(&report, &sample, 0), hit);
    assert_eq!(hit_paths(&report, &sample, 1), hit);
}

#[test]
fn a_truncated_pack_is_read_to_name_what_it_lost() {
    let sample = sample();
    let end = sample.packs[0].1.blocks[0].span.end() as usize;
    sample.backend.corrupt(&sample.pack(0), |bytes| bytes.truncate(end));
    let report = with(&sample.repository, ReadData::No, 1);
    assert_eq!(codes(&report), ["pack-damaged", "pack-damaged"]);
    assert_eq!(hit_paths(&report, &sample, 0).len(), 5, "what the first block holds is whole");
}

#[test]
fn a_lost_tree_hits_its_directory() {
    let sample = sample();
    sample.backend.delete(&sample.pack(3)).expect("deleted");
    let report = check_all(&sample.repository);
    let mut found = codes(&report);
    found.sort_unstable();
    assert_eq!(found, ["pack-missing", "snapshot-damaged", "tree-damaged"]);
    assert_eq!(hit_paths(&report, &sample, 0), Vec::<String>::new());
    assert_eq!(hit_paths(&report, &sample, 1), ["/"]);
    sample.backend.delete(&sample.pack(1)).expect("deleted");
    assert_eq!(hit_paths(&check_all(&sample.repository), &sample, 0), ["/"]);
}

#[test]
fn a_second_copy_makes_up_for_a_lost_one() {
    let sample = sample();
    let mut again = Builder::new(&sample.repository);
    for (seed, len) in [(1, 300), (2, 200), (3, 100)] {
        again.chunk(&bytes(seed, len));
    }
    again.commit();
    sample.backend.delete(&sample.pack(0)).expect("deleted");
    let report = check_all(&sample.repository);
    assert_eq!((codes(&report), report.hit_files), (vec!["pack-missing"], Vec::new()));
}

#[test]
fn what_a_snapshot_lacks_is_named() {
    let missing = Chunk { id: BlobId::from_bytes([7; 32]), len: 5 };
    let report = findings_of(|mut builder| {
        let root = builder.directory(vec![file("f", &[missing])]);
        builder.snapshot(root);
        builder.commit();
    });
    assert_eq!(codes(&report), ["blob-missing"]);
    assert!(report.findings[0].message.contains(&missing.id.to_string()));
    assert_eq!(report.hit_files[0].path, b"/f");

    let report = findings_of(|mut builder| {
        let root = builder.directory(vec![directory("d", missing.id)]);
        builder.snapshot(root);
        builder.commit();
    });
    assert_eq!(codes(&report), ["blob-missing"]);
    assert_eq!(report.hit_files[0].path, b"/d");

    let report = findings_of(|mut builder| {
        let root = builder.directory(Vec::new());
        builder.snapshot_without_blob(root);
        builder.commit();
    });
    assert_eq!(codes(&report), [] as [&str; 0], "its record is in the log");
}

#[test]
fn chunks_of_another_length_or_kind_are_no_chunks() {
    let report = findings_of(|mut builder| {
        let chunk = builder.chunk(b"12345");
        let wrong = Chunk { len: 6, ..chunk };
        let root = builder.directory(vec![file("f", &[wrong]), file("g", &[chunk])]);
        builder.snapshot(root);
        builder.commit();
    });
    assert_eq!((codes(&report), report.hit_files.len()), (vec!["blob-missing"], 1));
    let report = findings_of(|mut builder| {
        let empty = builder.directory(Vec::new());
        let len = record::encode(&Tree::Nodes(Vec::new())).len() as u32;
        let root = builder.directory(vec![file("f", &[Chunk { id: empty, len }])]);
        builder.snapshot(root);
        builder.commit();
    });
    assert_eq!(codes(&report), ["blob-missing"]);
}

/// Whatever of them fits into memory: each is told with every file that lists it.
#[test]
fn missing_chunks_are_the_same_however_much_is_gathered_in_a_file() {
    let backend = MemoryBackend::new();
    let repository = init(Arc::new(backend), 1);
    let mut builder = Builder::new(&repository);
    let mut missing = Vec::new();
    let directories = (0..20u8).map(|number| {
        let lost = Chunk { id: BlobId::from_bytes([number / 6; 32]), len: 9 };
        let mut chunks: Vec<_> =
            (0..10).map(|seed| builder.chunk(&bytes(seed, 50 + usize::from(number)))).collect();
        if number % 3 == 0 {
            chunks.insert(usize::from(number) / 3, lost);
            missing.push(format!("chunk {} of \"f{number}\"", lost.id));
        }
        let tree = builder.directory(vec![file(&format!("f{number}"), &chunks)]);
        directory(&format!("d{number:02}"), tree)
    });
    let directories: Vec<_> = directories.collect();
    let root = builder.directory(directories);
    builder.snapshot(root);
    builder.commit();
    let checked = |memory, spill: Option<&str>| {
        let options =
            CheckOptions { threads: 2, memory, spill: spill.map(Into::into), ..CheckOptions::default() };
        run(&repository, &options, &Silent)
    };
    let folder = tempfile::tempdir().expect("a folder");
    for memory in [1, 20 * 8, 1000, 1 << 20] {
        let mut report = checked(memory, folder.path().to_str()).expect("checked");
        report.findings.sort_by(|a, b| a.message.cmp(&b.message));
        missing.sort();
        let is_told = |(finding, missing): (&Damage, &String)| finding.message.starts_with(missing.as_str());
        assert_eq!(
            (report.findings.len(), report.hit_files.len()),
            (missing.len(), missing.len()),
            "{memory}"
        );
        assert!(report.findings.iter().zip(&missing).all(is_told), "{:?}", report.findings);
    }
    for memory in [1, 1000] {
        let error =
            checked(memory, Some("/no/such/place")).expect_err("nothing can be kept there").to_string();
        assert!(error.contains("/no/such/place"), "{error}");
    }
    checked(1 << 20, Some("/no/such/place")).expect("it is not needed");
}

/// A page of the index that does not open hides chunks: those, and no others, are told.
#[test]
fn a_page_of_the_index_hides_what_cannot_be_looked_up_without_it() {
    let backend = MemoryBackend::new();
    let repository = init(Arc::new(backend.clone()), 1);
    let mut data = Builder::new(&repository);
    let chunks: Vec<_> = (0..250u32).map(|n| data.chunk(&n.to_le_bytes())).collect();
    data.commit();
    let (key, object) =
        backend.objects().into_iter().find(|(key, _)| key.segment_id().is_some()).expect("a segment");
    let mut trees = Builder::new(&repository);
    let root = trees.directory(vec![file("f", &chunks)]);
    trees.snapshot(root);
    trees.commit();
    assert_eq!(codes(&check_all(&repository)), [] as [&str; 0]);
    for page in 1..object.len() / PAGE_LEN {
        let mut damaged = object.to_vec();
        damaged[page * PAGE_LEN + 100] ^= 1;
        backend.delete(&key).expect("deleted");
        backend.create(&key, &damaged).expect("stored");
        let report = check_all(&repository);
        assert!(report.findings.iter().any(|finding| finding.code == "segment-damaged"), "page {page}");
        let index = Index::default();
        for info in repository.fold().segments() {
            let segment = open_segment(&backend, info.segment, repository.keys(), &repository.id());
            index.replace(segment.ok().map(Arc::new).into_iter().collect(), &[]);
        }
        for chunk in &chunks {
            let is_found = index.get(&chunk.id).is_ok_and(|found| found.is_some());
            let id = chunk.id.to_string();
            let is_told = |finding: &Damage| finding.code == "blob-missing" && finding.message.contains(&id);
            assert_eq!(report.findings.iter().any(is_told), !is_found, "page {page}, chunk {id}");
        }
    }
}

#[test]
fn trees_that_break_rules_are_damage() {
    let fifo = |name| node(name, NodeKind::Fifo);
    for nodes in [vec![fifo("b"), fifo("a")], vec![fifo("..")], vec![fifo("a"), fifo("a")]] {
        let report = findings_of(|mut builder| {
            let bad = builder.directory(nodes);
            let root = builder.directory(vec![directory("bad", bad), fifo("good")]);
            builder.snapshot(root);
            builder.commit();
        });
        assert_eq!(codes(&report), ["tree-damaged"]);
        if !report.hit_files.is_empty() {
            assert_eq!(report.hit_files[0].path, b"/bad");
        }
    }
    let report = findings_of(|mut builder| {
        let tree = builder.put(BlobKind::Tree, b"no tree");
        builder.snapshot(tree);
        builder.commit();
    });
    assert_eq!((codes(&report), &report.hit_files[0].path[..]), (vec!["tree-damaged"], &b"/"[..]));
    let report = findings_of(|mut builder| {
        let chunk = builder.chunk(b"12345");
        let mut short = file("short", &[chunk]);
        if let NodeKind::File(content) = &mut short.kind {
            content.size = 6;
        }
        let root = builder.directory(vec![short]);
        builder.snapshot(root);
        builder.commit();
    });
    assert_eq!((codes(&report), &report.hit_files[0].path[..]), (vec!["tree-damaged"], &b"/"[..]));
}

#[test]
fn a_chunk_list_is_what_the_file_says_of_it() {
    let report = findings_of(|mut builder| {
        let chunk = builder.chunk(b"12345");
        let mut table = Vec::new();
        crate::format::chunk_list::push_chunk(&mut table, chunk);
        let list = builder.list(0, table, 7);
        let mut lists = Vec::new();
        crate::format::chunk_list::push_list(&mut lists, list);
        let mut wrong = file("f", &[]);
        if let NodeKind::File(content) = &mut wrong.kind {
            (content.size, content.depth, content.chunks) = (7, 1, ByteBuf::from(lists));
        }
        let root = builder.directory(vec![wrong]);
        builder.snapshot(root);
        builder.commit();
    });
    assert_eq!((codes(&report), &report.hit_files[0].path[..]), (vec!["tree-damaged"], &b"/f"[..]));
}

#[test]
fn segments_that_lie_about_packs_are_found() {
    type Change = fn(&mut Vec<(crate::format::segment::PackEntry, crate::format::pack::Directory)>);
    let changes: [(Change, &str); 6] = [
        (|packs| packs[0].1.blocks[0].blobs[0].id = BlobId::from_bytes([9; 32]), "index-wrong"),
        (|packs| packs[0].1.blocks[0].blobs[1].offset -= 1, "index-wrong"),
        (|packs| packs[0].1.blocks[0].blobs.truncate(1), "index-wrong"),
        (|packs| packs[0].0.blobs += 1, "index-wrong"),
        (|packs| packs[0].0.size += 1, "pack-damaged"),
        (|packs| packs[0].0.header.salt[0] ^= 1, "pack-damaged"),
    ];
    for (number, (change, code)) in changes.into_iter().enumerate() {
        let report = findings_of(|mut builder| {
            builder.chunk(b"12345");
            builder.chunk(b"123");
            let root = builder.directory(Vec::new());
            builder.snapshot(root);
            builder.commit_as(change);
        });
        assert!(report.is_damaged() && codes(&report).contains(&code), "{number}: {:?}", report.findings);
    }
}

#[test]
fn bytes_under_another_blobs_id_are_found_when_read() {
    let repository = init(Arc::new(MemoryBackend::new()), 5);
    let mut builder = Builder::new(&repository);
    let id = BlobId::from_bytes([9; 32]);
    builder.put_as(BlobKind::Data, id, b"12345");
    let root = builder.directory(vec![file("f", &[Chunk { id, len: 5 }])]);
    builder.snapshot(root);
    builder.commit();
    assert_eq!(codes(&with(&repository, ReadData::No, 1)), Vec::<&str>::new());
    let report = check_all(&repository);
    assert_eq!((codes(&report), &report.hit_files[0].path[..]), (vec!["pack-damaged"], &b"/f"[..]));
}

#[test]
fn leftovers_are_noted_and_no_damage() {
    let sample = sample();
    let orphan = ObjectKey::pack(&crate::ids::PackId::from_bytes([1; 32]));
    sample.backend.plant(&orphan, b"anything");
    let segment = ObjectKey::segment(&crate::ids::SegmentId::from_bytes([1; 32]));
    let keyslot = ObjectKey::keyslot(&crate::ids::KeyslotId::from_bytes([1; 32]));
    let foreign = ObjectKey::in_folder(Folder::Log, "README");
    let zero = ObjectKey::log(0);
    for key in [&segment, &keyslot, &foreign, &zero] {
        sample.backend.plant(key, b"anything");
    }
    let report = check_all(&sample.repository);
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let mut named: Vec<_> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
    named.sort_unstable();
    named.dedup();
    let mut expected = [&segment, &keyslot, &foreign, &zero].map(ObjectKey::as_str);
    expected.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!(report.orphan_packs, 1);
}

#[test]
fn a_log_that_was_rolled_back_is_noticed_by_who_saw_more() {
    let sample = sample();
    sample.backend.delete(&ObjectKey::log(4)).expect("deleted");
    sample.backend.delete(&ObjectKey::state(4)).expect("deleted");
    let report = check_all(&sample.repository);
    assert!(report.findings.iter().any(|finding| {
        finding.code == "log-rolled-back" && finding.object == ObjectKey::log(4).as_str() && finding.is_damage
    }));
    let report = check_all(&open(&sample.backend).expect("an older repository, for all that can be seen"));
    assert_eq!(codes(&report), ["segment-unlisted"], "who did not see the end finds what it left behind");
    assert_eq!(report.orphan_packs, 2);
}

#[test]
fn a_state_beyond_the_log_says_that_commits_are_gone() {
    let sample = sample();
    sample.backend.delete(&ObjectKey::log(4)).expect("deleted");
    let report = check_all(&open(&sample.backend).expect("opens without the state"));
    assert!(report.is_damaged() && codes(&report).contains(&"log-rolled-back"), "{:?}", report.findings);
}

#[test]
fn void_entries_are_noise_once_the_log_went_on() {
    let sample = sample();
    sample.backend.plant(&ObjectKey::log(5), b"rubbish");
    let report = check_all(&sample.repository);
    assert_eq!(codes(&report), ["log-damaged"], "nobody can say what it was");
    assert_eq!(report.findings[0].object, ObjectKey::log(5).as_str());
    sample.repository.refresh().expect("passed over");
    let mut later = Builder::new(&sample.repository);
    later.chunk(b"later");
    later.commit();
    store_state(&sample.repository);
    let report = check_all(&sample.repository);
    assert_eq!((codes(&report), report.is_damaged(), report.commits), (vec!["log-void"], false, 6));
}

#[test]
fn a_wrong_state_is_found_even_if_the_repository_was_opened_from_it() {
    let sample = sample();
    let mut state = sample.repository.fold().to_state();
    state.snapshots.remove(0);
    let object = record::seal_object(ObjectKind::State, &state, &sample.repository.sealer()).unwrap();
    sample.backend.plant(&ObjectKey::state(4), &object);
    let opened = open(&sample.backend).expect("it fits the head");
    assert_eq!(opened.snapshots().expect("readable").len(), 1, "it was opened from the state");
    let report = check_all(&opened);
    assert_eq!((report.snapshots, report.is_damaged()), (2, true));
    assert!(report.findings.iter().any(|finding| finding.object == ObjectKey::state(4).as_str()));
}

#[test]
fn a_cancelled_check_says_so() {
    struct After(AtomicU64);
    impl Monitor for After {
        fn is_cancelled(&self) -> bool {
            self.0.fetch_sub(1, Ordering::Relaxed) <= 1
        }
    }
    let sample = sample();
    let options =
        CheckOptions { read_data: ReadData::All, threads: 1, memory: 1 << 20, ..CheckOptions::default() };
    for calls in 1..12 {
        let report = run(&sample.repository, &options, &After(AtomicU64::new(calls))).expect("ends");
        assert_eq!((report.cancelled, report.is_damaged()), (true, false), "after {calls}: {report:?}");
    }
}

/// Whoever gives it half an hour each night wants all to be read once in a week.
#[test]
fn what_a_check_has_read_that_was_cut_short_is_remembered() {
    struct After(AtomicU64);
    impl Monitor for After {
        fn is_cancelled(&self) -> bool {
            self.0.fetch_sub(1, Ordering::Relaxed) <= 1
        }
    }
    let mut cut_short = 0;
    for calls in 1..60 {
        let sample = sample();
        let options = CheckOptions {
            read_data: ReadData::Oldest { budget: None, max_age: None },
            record: true,
            threads: 1,
            memory: 1 << 20,
            ..CheckOptions::default()
        };
        let report = run(&sample.repository, &options, &After(AtomicU64::new(calls))).expect("ends");
        let known = readings(&sample.repository).expect("known");
        assert_eq!(known.packs_never_read, known.packs - report.packs_read, "after {calls}: {report:?}");
        cut_short += u64::from(report.cancelled && report.packs_read > 0 && report.packs_read < report.packs);
    }
    assert!(cut_short > 0, "none ended in the middle of reading");
}

#[test]
fn progress_reaches_its_totals() {
    #[derive(Default)]
    struct Last(std::sync::Mutex<Progress>);
    impl Monitor for Last {
        fn progress(&self, progress: &Progress) {
            *self.0.lock().expect("no panic") = *progress;
        }
    }
    let sample = sample();
    let monitor = Last::default();
    let options =
        CheckOptions { read_data: ReadData::All, threads: 1, memory: 1 << 20, ..CheckOptions::default() };
    let report = run(&sample.repository, &options, &monitor).expect("checked");
    let last = *monitor.0.lock().expect("no panic");
    assert_eq!((last.items, last.items_total), (8, Some(8)));
    assert_eq!((last.bytes, last.bytes_total), (report.bytes_read, Some(report.bytes_read)));
}
