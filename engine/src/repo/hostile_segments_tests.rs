//! Index segments that a holder of the keys sealed as they should be, and that say what is not so: what each operation makes of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::Command;

use serde_bytes::ByteBuf;

use super::append_only_tests::{append_to, publish, shared};
use super::*;
use crate::backend::{Folder, MemoryBackend, ObjectInfo, ObjectReader, forward_backend};
use crate::backup::{self, Session};
use crate::check;
use crate::crypto::keys::BlobKind;
use crate::crypto::{MessageContext, Password};
use crate::format::chunk_list::{Chunk, push_chunk};
use crate::format::commit::{Change, SegmentInfo};
use crate::format::header::{HEADER_LEN, Header, ObjectKind};
use crate::format::record;
use crate::format::segment::{self, Layout, PAGE_LEN, SEGMENT_LEN_MAX};
use crate::format::tree::{FileContent, Metadata, Node, NodeKind, Tree};
use crate::index::test_support::{reseal, summary};
use crate::index::{Segment, open_segment};
use crate::monitor::Silent;
use crate::prune::test_support::{Files, World, at_once, files_of, noise, open, options};
use crate::prune::{self, PruneOptions};
use crate::rebuild::{self, RebuildOptions};
use crate::repair::test_support::check_all;
use crate::restore::{self, RestoreOptions};
use crate::{testing, usage};

/// Commits a snapshot of one file that consists of these chunks.
pub(super) fn commit_file(repository: &Repository, chunks: &[Chunk]) -> SnapshotId {
    let session = Session::new(repository, &options()).expect("a session");
    let mut writer = session.tree_writer();
    let mut table = Vec::new();
    chunks.iter().for_each(|chunk| push_chunk(&mut table, *chunk));
    let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    let content = FileContent { size, chunks: ByteBuf::from(table), ..FileContent::default() };
    let metadata = Metadata { mode: 0o644, ..Metadata::default() };
    let node = Node { name: ByteBuf::from("file"), kind: NodeKind::File(content), metadata };
    let tree = record::encode(&Tree::Nodes(vec![node]));
    let tree = session.put(&mut writer, BlobKind::Tree, &tree).expect("stored");
    let (_, latest) = repository.find_snapshot("latest").expect("there is one");
    session.commit(&mut writer, &Snapshot { tree, parent: None, ..latest }, &[]).expect("committed")
}

/// What a snapshot gives back: all of it, or what went wrong.
pub(super) fn restored(repository: &Repository, id: SnapshotId, path: &[u8]) -> Result<Files, String> {
    let (_, snapshot) = repository.find_snapshot(&id.to_string()).map_err(|error| error.to_string())?;
    let target = tempfile::tempdir().expect("a folder");
    let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
    let report = restore::run(repository, &snapshot, path, target.path(), &options, &Silent);
    match report.map_err(|error| error.to_string())?.errors {
        0 => Ok(files_of(target.path())),
        errors => Err(format!("{errors} errors")),
    }
}

/// Snapshots of some files, of which one is forgotten, and of a file of so many small chunks that the index has several groups of
/// leaves. All in one segment.
struct Many {
    world: World,
    of_chunks: (SnapshotId, Files),
    segment: SegmentId,
}

fn many() -> Many {
    let mut world = World::new();
    for n in 0..4 {
        world.write(&format!("d/f{n}"), &noise(n, 9_000));
    }
    world.write("d/gone", &noise(99, 30_000));
    let repository = world.open();
    let first = world.back_up(&repository);
    world.remove("d/gone");
    world.back_up(&repository);
    world.forget(&repository, first);
    let of_chunks = commit_chunks(&repository, 2_500);
    let parts = repository.index().segments();
    let merged = repository.store_merged(&parts).expect("stored").info;
    let removed = parts.iter().map(|part| part.id()).collect();
    publish(&repository, vec![Change::SegmentsReplaced { added: vec![merged], removed }]);
    world.write("d/new", &noise(100, 9_000));
    Many { world, of_chunks, segment: merged.segment }
}

fn commit_chunks(repository: &Repository, count: u64) -> (SnapshotId, Files) {
    let session = Session::new(repository, &options()).expect("a session");
    let mut writer = session.data_writer();
    let (mut chunks, mut content) = (Vec::new(), Vec::new());
    for n in 0..count {
        let bytes = noise(10_000 + n, 40);
        let id = session.put(&mut writer, BlobKind::Data, &bytes).expect("stored");
        chunks.push(Chunk { id, len: 40 });
        content.extend(bytes);
    }
    writer.flush().expect("stored");
    session.commit_blobs(&mut session.tree_writer()).expect("committed");
    let files = BTreeMap::from([("file".to_owned(), content)]);
    (commit_file(repository, &chunks), files)
}

/// Puts a segment that lies in the place of the only one there is; returns its id.
fn tell(many: &Many, lie: &Lie) -> SegmentId {
    let world = &many.world;
    let repository = world.open();
    let key = ObjectKey::segment(&many.segment);
    let mut object = world.storage.read(&key, u64::MAX).expect("there");
    let layout = repository.index().segments()[0].layout();
    assert!(layout.fanout_pages() > 1 && layout.entries > 1 && layout.packs > 1);
    for page in (lie.pages)(&layout) {
        reseal(&mut object, page, (repository.keys(), &repository.id()), &lie.change);
    }
    let id = segment::id(&object);
    world.storage.plant(&ObjectKey::segment(&id), &object);
    let info = open_segment(&world.storage, id, repository.keys(), &repository.id());
    let info = info.expect("its summary is in order").info();
    publish(&repository, vec![Change::SegmentsReplaced { added: vec![info], removed: vec![many.segment] }]);
    world.storage.delete(&key).expect("deleted");
    id
}

/// What is changed on which pages of a segment.
struct Lie {
    what: &'static str,
    pages: fn(&Layout) -> Vec<u64>,
    change: fn(&mut [u8]),
    /// Whether whoever has to find a blob still finds it.
    is_found: bool,
}

fn first_leaf(_: &Layout) -> Vec<u64> {
    vec![1]
}

fn fanouts(layout: &Layout) -> Vec<u64> {
    (0..layout.fanout_pages()).map(|group| layout.fanout(group)).collect()
}

fn roots(layout: &Layout) -> Vec<u64> {
    vec![layout.first_root()]
}

fn summaries(layout: &Layout) -> Vec<u64> {
    vec![layout.summary()]
}

/// Adds to a number of the summary.
fn add(page: &mut [u8], at: usize, what: i32) {
    let number = u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    page[at..at + 4].copy_from_slice(&number.wrapping_add_signed(what).to_le_bytes());
}

/// 26 numbers of eight bytes, then a tag of two for each of 72 entries of each leaf.
const TAGS: usize = 26 * 8;

const LIES: [Lie; 12] = [
    Lie {
        what: "a leaf in reverse order",
        pages: first_leaf,
        change: |page| {
            let entries: Vec<_> = page[..72 * 56].chunks(56).rev().map(<[u8]>::to_vec).collect();
            page[..72 * 56].copy_from_slice(&entries.concat());
        },
        is_found: false,
    },
    Lie { what: "an empty leaf", pages: first_leaf, change: |page| page.fill(0), is_found: false },
    Lie { what: "no tags", pages: fanouts, change: |page| page[TAGS..].fill(0), is_found: true },
    Lie {
        what: "tags of others",
        pages: fanouts,
        change: |page| page[TAGS..].rotate_left(144),
        is_found: true,
    },
    Lie {
        what: "leaves that begin too high",
        pages: fanouts,
        change: |page| page[..TAGS].fill(0xff),
        is_found: false,
    },
    Lie {
        what: "leaves that begin too low",
        pages: fanouts,
        change: |page| page[..TAGS].fill(0),
        is_found: false,
    },
    Lie { what: "an empty root page", pages: roots, change: |page| page.fill(0), is_found: false },
    Lie { what: "groups that begin too high", pages: roots, change: |page| page.fill(0xff), is_found: false },
    Lie { what: "an entry too many", pages: summaries, change: |page| add(page, 8, 1), is_found: true },
    Lie { what: "an entry too few", pages: summaries, change: |page| add(page, 8, -1), is_found: false },
    Lie { what: "a pack too many", pages: summaries, change: |page| add(page, 16, 1), is_found: true },
    Lie { what: "a pack too few", pages: summaries, change: |page| add(page, 16, -1), is_found: false },
];

/// Runs an operation. What goes wrong is told, and what does not is right.
type Operation = fn(&mut Many) -> Result<(), String>;

const OPERATIONS: [(&str, Operation); 5] = [
    ("two backups", |many| {
        let mut result = Ok(());
        for _ in 0..2 {
            match backup::run(&many.world.open(), many.world.paths(), &options(), &Silent) {
                Ok(report) => {
                    let files = files_of(many.world.source.path());
                    many.world.expected.insert(report.snapshot.expect("a snapshot"), files);
                }
                Err(error) => result = Err(error.to_string()),
            }
        }
        result
    }),
    ("a restore", |many| {
        let repository = many.world.open();
        let root = many.world.source.path().as_os_str().as_encoded_bytes();
        for (id, files) in &many.world.expected {
            assert!(restored(&repository, *id, root)? == *files, "something else is restored");
        }
        let (id, files) = &many.of_chunks;
        assert!(restored(&repository, *id, b"")? == *files, "something else is restored");
        Ok(())
    }),
    ("a prune", |many| {
        let report = prune::run(&many.world.open(), &at_once(), &Silent);
        report.map(drop).map_err(|error| error.to_string())
    }),
    ("counting", |many| {
        let usages =
            usage::of_snapshots(&many.world.open(), 1, &Silent).map_err(|error| error.to_string())?;
        assert!(usages.iter().all(|one| one.usage.last > 0));
        Ok(())
    }),
    ("nothing", |_| Ok(())),
];

fn for_repair(world: &World) -> Repository {
    let password = Password::new(testing::PASSWORD.to_vec());
    let storage = Arc::new(world.storage.clone());
    Repository::open_for_repair(storage, &password, testing::environment(5_000_000)).expect("it opens")
}

#[test]
fn a_segment_that_lies_is_named_and_loses_nothing_whatever_is_done_with_it() {
    let mut many = many();
    let (honest, expected) = (many.world.storage.snapshot(), many.world.expected.clone());
    for lie in &LIES {
        for (operation, run) in &OPERATIONS {
            many.world.storage = honest.snapshot();
            many.world.expected.clone_from(&expected);
            let what = format!("{} and {operation}", lie.what);
            let id = tell(&many, lie);
            let report = check_all(&many.world.open());
            let key = ObjectKey::segment(&id).to_string();
            let is_it = |code, object: &String| code == "segment-damaged" && *object == key;
            assert!(report.findings.iter().any(|found| is_it(found.code, &found.object)), "{what}");
            match run(&mut many) {
                Ok(()) => {}
                Err(error) if lie.is_found && !operation.contains("prune") => panic!("{what}: {error}"),
                Err(error) => assert!(!error.is_empty(), "{what}"),
            }
            let report = rebuild::run(&for_repair(&many.world), &RebuildOptions::default(), &Silent);
            assert_eq!(report.expect(&what).damaged, [], "{what}");
            many.world.verify();
            let (chunks, files) = &many.of_chunks;
            assert!(restored(&many.world.open(), *chunks, b"").as_ref() == Ok(files), "{what}");
        }
    }
}

/// Storage on which one segment is said to be as long as anything can be, and is zeros but for some pages.
#[derive(Debug, Clone)]
struct Hollow {
    inner: MemoryBackend,
    segment: HollowObject,
}

#[derive(Debug, Clone)]
struct HollowObject {
    key: ObjectKey,
    size: u64,
    /// Pages by their positions.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl ObjectReader for HollowObject {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        assert!(offset + buffer.len() as u64 <= self.size, "nobody reads beyond the end");
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        for (position, page) in self.pages.range(offset.saturating_sub(PAGE_LEN as u64 - 1)..end) {
            for (at, byte) in (*position..).zip(page).filter(|(at, _)| (offset..end).contains(at)) {
                buffer[usize::try_from(at - offset).expect("in the buffer")] = *byte;
            }
        }
        Ok(())
    }
}

impl Backend for Hollow {
    forward_backend!(this => this.inner; location create replace delete begin);

    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        self.inner.list(folder, from, &mut |info| {
            let size = if info.key == self.segment.key { self.segment.size } else { info.size };
            visit(ObjectInfo { size, ..info })
        })
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError> {
        let size = (*key == self.segment.key).then_some(self.segment.size);
        self.inner.stat(key).map(|info| ObjectInfo { size: size.unwrap_or(info.size), ..info })
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        if *key == self.segment.key {
            return Err(BackendError::TooLarge { key: key.clone(), size: self.segment.size, limit });
        }
        self.inner.read(key, limit)
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        if *key == self.segment.key {
            return self.segment.read_at(offset, buffer);
        }
        self.inner.read_range(key, offset, buffer)
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        if *key == self.segment.key {
            assert!(self.segment.size <= limit, "it is as long as segments are");
            return Ok(Box::new(self.segment.clone()));
        }
        self.inner.open(key, limit)
    }
}

/// A segment that has all pages of another one but the summary, by which it has as many packs as there can be.
fn with_all_packs(repository: &Repository, of: &Segment) -> HollowObject {
    let object = repository.backend.read(&ObjectKey::segment(&of.id()), u64::MAX).expect("there");
    let layout = Layout { packs: u32::MAX, ..of.layout() };
    hollow(repository, &object[..object.len() - PAGE_LEN], layout)
}

/// A segment that has as many entries as there can be, by its summary, in one pack that it lists.
fn with_all_entries(repository: &Repository, of: &Segment) -> HollowObject {
    let object = repository.backend.read(&ObjectKey::segment(&of.id()), u64::MAX).expect("there");
    // A page has 72 entries, and 26 pages make a group.
    let pages = SEGMENT_LEN_MAX / PAGE_LEN as u64;
    let layout = Layout { entries: pages / 28 * 26 * 72, packs: 1 };
    assert!(layout.object_len() <= SEGMENT_LEN_MAX);
    let mut hollow = hollow(repository, &object[..PAGE_LEN], layout);
    let header = Header::decode(&object[..HEADER_LEN], ObjectKind::Segment).expect("a segment");
    let cipher = header.cipher(repository.keys(), &repository.id()).expect("of this repository");
    let mut page = [0; PAGE_LEN];
    let mut table =
        segment::open_page(&object, &cipher, of.layout().first_pack(), &mut page).expect("readable").to_vec();
    table[120..].fill(0);
    let position = layout.first_pack() * PAGE_LEN as u64;
    let raw_len = table.len() as u64;
    cipher.seal(MessageContext { position, raw_len }, &mut table);
    hollow.pages.insert(position, table);
    hollow
}

fn hollow(repository: &Repository, beginning: &[u8], layout: Layout) -> HollowObject {
    let header = Header::decode(&beginning[..HEADER_LEN], ObjectKind::Segment).expect("a segment");
    let pages = (0..).step_by(PAGE_LEN).zip(beginning.chunks(PAGE_LEN).map(<[u8]>::to_vec));
    let mut pages: BTreeMap<u64, Vec<u8>> = pages.collect();
    pages.extend([summary(&header, layout, (repository.keys(), &repository.id()))]);
    let key = ObjectKey::segment(&SegmentId::from_bytes([7; 32]));
    HollowObject { key, size: layout.object_len(), pages }
}

/// Commits that a hollow segment is part of the index, by a full writer in the place of `of` or by an appender beside it.
fn list_hollow(world: &World, segment: HollowObject, of: Option<SegmentId>) -> Hollow {
    world.storage.plant(&segment.key, b"stands for it");
    let storage = Hollow { inner: world.storage.clone(), segment };
    let id = storage.segment.key.segment_id().expect("a segment");
    let repository = world.open();
    let opened = open_segment(&storage, id, repository.keys(), &repository.id()).expect("its ends are whole");
    let added: Vec<SegmentInfo> = vec![opened.info()];
    let by = if of.is_some() { repository } else { append_to(world) };
    publish(&by, vec![Change::SegmentsReplaced { added, removed: of.into_iter().collect() }]);
    storage
}

/// Checks and counts; returns the codes that the check finds.
fn look_at(storage: &Hollow) -> Vec<&'static str> {
    let check = check::CheckOptions { threads: 1, ..check::CheckOptions::default() };
    let report = check::run(&open(storage.clone()), &check, &Silent).expect("checked");
    // Whether there is a result is another matter.
    let _ = usage::of_snapshots(&open(storage.clone()), 1, &Silent);
    report.findings.iter().map(|found| found.code).collect()
}

fn plan(storage: &Hollow) -> Result<(), String> {
    let dry = PruneOptions { dry_run: true, ..at_once() };
    prune::run(&open(storage.clone()), &dry, &Silent).map(drop).map_err(|error| error.to_string())
}

#[test]
fn packs_that_only_a_summary_counts_take_no_memory() {
    in_little_memory(module_path!(), "packs_that_only_a_summary_counts_take_no_memory", || {
        let mut world = shared();
        let repository = world.open();
        let segment = Arc::clone(&repository.index().segments()[0]);
        let storage = list_hollow(&world, with_all_packs(&repository, &segment), None);
        let codes = look_at(&storage);
        assert_eq!(codes, ["appended-untrue"], "of the rest nothing is to be said");
        let refused = plan(&storage).expect_err("its packs cannot be told from strays");
        assert!(refused.contains("is damaged"), "{refused}");
        usage::of_snapshots(&open(storage), 1, &Silent).expect("others list what is needed");
        // By somebody who is believed, in the place of the one that it was made of.
        world = shared();
        let repository = world.open();
        let segment = Arc::clone(&repository.index().segments()[0]);
        let storage = list_hollow(&world, with_all_packs(&repository, &segment), Some(segment.id()));
        assert!(look_at(&storage).contains(&"segment-damaged"));
        plan(&storage).expect_err("it is not whole");
        // What it has it has: it is gone by, and what was found of its packs is kept in mind.
        world.write("d/new", &noise(700, 9_000));
        backup::run(&open(storage.clone()), world.paths(), &options(), &Silent).expect("a backup");
        let id = *world.expected.keys().next().expect("one");
        let root = world.source.path().as_os_str().as_encoded_bytes();
        assert!(restored(&open(storage), id, root).as_ref() == Ok(&world.expected[&id]));
    });
}

#[test]
fn entries_that_only_a_summary_counts_take_no_memory() {
    in_little_memory(module_path!(), "entries_that_only_a_summary_counts_take_no_memory", || {
        let world = shared();
        let repository = world.open();
        let segment = Arc::clone(&repository.index().segments()[0]);
        let storage = list_hollow(&world, with_all_entries(&repository, &segment), None);
        assert_eq!(look_at(&storage), ["appended-untrue"]);
        plan(&storage).expect_err("its entries cannot be read");
        usage::of_snapshots(&open(storage), 1, &Silent).expect("others list what is needed");
        let world = shared();
        let repository = world.open();
        let segment = Arc::clone(&repository.index().segments()[0]);
        let storage = list_hollow(&world, with_all_entries(&repository, &segment), Some(segment.id()));
        assert!(look_at(&storage).contains(&"segment-damaged"));
        plan(&storage).expect_err("its entries cannot be read");
        usage::of_snapshots(&open(storage), 1, &Silent).expect_err("nothing lists what is needed");
    });
}

/// Set where a test runs by itself.
const ALONE: &str = "STRONGROOM_TEST_ALONE";

/// Memory of a process that runs by itself, all told, in KiB: threads have their stacks of it.
const LITTLE: u64 = 1 << 20;

/// Runs a test in a process of its own that may map so much memory and no more: one that asks for more is killed.
pub(super) fn in_little_memory(module: &str, name: &str, test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let (_, module) = module.split_once("::").expect("a module of the crate");
    let script = format!("ulimit -v {LITTLE} && exec \"$0\" \"$@\"");
    let run = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", &format!("{module}::{name}"), "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .expect("a shell");
    let told = [&run.stdout[..], &run.stderr].map(String::from_utf8_lossy).concat();
    assert!(run.status.success() && told.contains("1 passed"), "{}: {told}", run.status);
}
