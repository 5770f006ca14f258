//! A whole small repository, made by the format code alone: `tests/golden/v1-handmade`, for independent readers.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use strongroom::backend::ObjectKey;
use strongroom::crypto::keys::{BlobKind, SecretKey};
use strongroom::crypto::{AppendKeys, KdfParams, Password, RootSecret};
use strongroom::format::chunk_list::{self, Chunk, ChunkList, ListRef};
use strongroom::format::commit::{Change, Commit, SegmentInfo, WriterKey, hash};
use strongroom::format::config::Config;
use strongroom::format::header::ObjectKind;
use strongroom::format::keyslot::{Keyslot, Secrets};
use strongroom::format::pack;
use strongroom::format::record;
use strongroom::format::segment::{self, IndexEntry, PackEntry, SegmentBuilder};
use strongroom::format::tree::{FileContent, Grain, Hole, Node, NodeKind, Timestamp, Tree, TreePart, Xattr};
use strongroom::ids::{BlobId, CommitHash, PackId, RepositoryId, SnapshotId};

use super::make_packs::PackMaker;
use super::make_trees::{buf, node, snapshot};
use super::support::{Context, REPOSITORY, ROOT};

const PASSWORD: &str = "golden";
const APPEND_PASSWORD: &str = "may only add";
const TIME_NS: i64 = 1_700_000_000_123_456_789;

/// Files of the sample: `repo/…`, `password`, `manifest.json`.
pub fn sample() -> BTreeMap<String, Vec<u8>> {
    let context = Context::new(90);
    let mut objects = BTreeMap::new();
    let mut store = |key: &ObjectKey, bytes: &[u8]| {
        objects.insert(format!("repo/{key}"), bytes.to_vec());
    };
    let config = Config {
        repository: RepositoryId::from_bytes(REPOSITORY),
        must_understand: 0,
        created_by: "strongroom vectors".into(),
    }
    .encode();
    store(&ObjectKey::config(), &config);

    let slot = Keyslot {
        secrets: Secrets::Root(RootSecret::from_bytes(ROOT)),
        writer_seed: SecretKey::from_bytes([0x55; 32]),
        label: "golden".into(),
    };
    let cheap = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };
    let password = Password::new(PASSWORD.into());
    let keyslot = slot.wrap(&password, cheap, &context.repository, &context.entropy).expect("in bounds");
    let keyslot_id = Keyslot::id(&keyslot);
    store(&ObjectKey::keyslot(&keyslot_id), &keyslot);

    let writer = WriterKey::new(&slot.writer_seed);
    let stored = Stored::make(&context);
    for object in &stored.packs {
        store(&ObjectKey::pack(&pack::id(object)), object);
    }
    store(&ObjectKey::segment(&segment::id(&stored.segment)), &stored.segment);

    let added = Change::KeyslotAdded { keyslot: keyslot_id, writer: writer.id(), label: "golden".into() };
    let info = SegmentInfo {
        segment: segment::id(&stored.segment),
        blobs: stored.blobs,
        packs: 3,
        bytes: stored.segment.len() as u64,
    };
    let backup = vec![
        Change::SegmentsReplaced { added: vec![info], removed: vec![] },
        Change::SnapshotAdded { snapshot: stored.snapshot, record: buf(&stored.record) },
    ];
    let condemned = Change::PacksCondemned { packs: vec![PackId::from_bytes([1; 32])] };
    let note = Change::Note { kind: "of a later version".into(), record: buf(b"not for readers") };
    let mut previous = Config::hash(&config);
    for (seq, changes) in (1..).zip([vec![added], vec![], backup, vec![condemned, note]]) {
        // Number 2 is junk that was planted there: void, and the chain goes over it.
        let object = if seq == 2 {
            b"junk that somebody put into the next free slot".to_vec()
        } else {
            commit(seq, previous, changes).seal(&writer, &context.sealer()).expect("short")
        };
        previous = hash(&object);
        store(&ObjectKey::log(seq), &object);
    }
    finished(objects, &stored.manifest)
}

/// Adds what goes with a repository.
fn finished(mut objects: BTreeMap<String, Vec<u8>>, manifest: &Value) -> BTreeMap<String, Vec<u8>> {
    objects.insert("password".into(), format!("{PASSWORD}\n").into());
    let mut manifest = manifest.clone();
    manifest.sort_all_objects();
    let mut manifest = serde_json::to_string_pretty(&manifest).expect("plain values");
    manifest.push('\n');
    objects.insert("manifest.json".into(), manifest.into());
    objects
}

/// A keyslot of the samples, with its object.
fn keyslot(context: &Context, secrets: Secrets, (password, seed): (&str, u8)) -> (Keyslot, Vec<u8>) {
    let slot = Keyslot { secrets, writer_seed: SecretKey::from_bytes([seed; 32]), label: "golden".into() };
    let cheap = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };
    let password = Password::new(password.into());
    let object = slot.wrap(&password, cheap, &context.repository, &context.entropy).expect("in bounds");
    (slot, object)
}

/// The same files in a repository that an appender backed up into: `tests/golden/v1-appended`.
pub fn appended() -> BTreeMap<String, Vec<u8>> {
    let (context, appender) = (Context::new(92), Context::append_only(93));
    let mut objects = BTreeMap::new();
    let mut store = |key: &ObjectKey, bytes: &[u8]| {
        objects.insert(format!("repo/{key}"), bytes.to_vec());
    };
    let config = Config {
        repository: RepositoryId::from_bytes(REPOSITORY),
        must_understand: 0,
        created_by: "strongroom vectors".into(),
    }
    .encode();
    store(&ObjectKey::config(), &config);
    let root = || RootSecret::from_bytes(ROOT);
    let (full, full_object) = keyslot(&context, Secrets::Root(root()), (PASSWORD, 0x55));
    let few = Secrets::Append(Box::new(AppendKeys::derive(&root())));
    let (few, few_object) = keyslot(&context, few, (APPEND_PASSWORD, 0x66));
    let (writer, append_writer) = (WriterKey::new(&full.writer_seed), WriterKey::new(&few.writer_seed));
    for object in [&full_object, &few_object] {
        store(&ObjectKey::keyslot(&Keyslot::id(object)), object);
    }
    let stored = Stored::make(&appender);
    for object in &stored.packs {
        store(&ObjectKey::pack(&pack::id(object)), object);
    }
    store(&ObjectKey::segment(&segment::id(&stored.segment)), &stored.segment);
    let label = || "golden".to_owned();
    let admitted = vec![
        Change::KeyslotAdded { keyslot: Keyslot::id(&full_object), writer: writer.id(), label: label() },
        Change::AppenderAdded {
            keyslot: Keyslot::id(&few_object),
            writer: append_writer.id(),
            label: label(),
        },
    ];
    let info = SegmentInfo {
        segment: segment::id(&stored.segment),
        blobs: stored.blobs,
        packs: 3,
        bytes: stored.segment.len() as u64,
    };
    let backup = vec![
        Change::SegmentsReplaced { added: vec![info], removed: vec![] },
        Change::SnapshotAdded { snapshot: stored.snapshot, record: buf(&stored.record) },
    ];
    // More than it may do: void.
    let forget = vec![Change::SnapshotForgotten { snapshot: stored.snapshot, reason: "evil".into() }];
    let mut previous = Config::hash(&config);
    let commits = [
        (&context, &writer, admitted),
        (&appender, &append_writer, backup),
        (&appender, &append_writer, forget),
    ];
    for (seq, (context, writer, changes)) in (1..).zip(commits) {
        let object = commit(seq, previous, changes).seal(writer, &context.sealer()).expect("short");
        previous = hash(&object);
        store(&ObjectKey::log(seq), &object);
    }
    objects.insert("append-only-secret".into(), format!("{APPEND_PASSWORD}\n").into());
    finished(objects, &stored.manifest)
}

fn commit(seq: u64, previous: CommitHash, changes: Vec<Change>) -> Commit {
    Commit {
        seq,
        previous,
        time: Timestamp { seconds: 1_764_000_000 + seq.cast_signed(), nanos: 0 },
        host: "host".into(),
        user: "anna".into(),
        program: "strongroom vectors".into(),
        changes,
    }
}

/// Packs, segment and snapshot of the sample.
struct Stored {
    packs: Vec<Vec<u8>>,
    segment: Vec<u8>,
    blobs: u64,
    snapshot: SnapshotId,
    record: Vec<u8>,
    manifest: Value,
}

/// Collects blobs of one pack.
struct Blobs<'a> {
    context: &'a Context,
    found: Vec<(BlobKind, Vec<u8>)>,
}

impl Blobs<'_> {
    fn add(&mut self, kind: BlobKind, bytes: Vec<u8>) -> BlobId {
        let id = self.context.keys.blob_id(kind, &bytes);
        self.found.push((kind, bytes));
        id
    }

    fn tree(&mut self, tree: &Tree) -> BlobId {
        self.add(BlobKind::Tree, record::encode(tree))
    }

    fn chunks(&mut self, parts: &[&[u8]]) -> Vec<u8> {
        let mut table = Vec::new();
        for part in parts {
            let id = self.add(BlobKind::Data, part.to_vec());
            chunk_list::push_chunk(&mut table, Chunk { id, len: u32::try_from(part.len()).expect("small") });
        }
        table
    }

    /// Packs of the given kind with `per_block` blobs in a block.
    fn pack(&self, kind: ObjectKind, number: u32, per_block: usize) -> (Vec<u8>, PackEntry, Vec<IndexEntry>) {
        let mut maker = PackMaker::new(self.context, kind);
        for blobs in self.found.chunks(per_block) {
            let blobs: Vec<_> = blobs.iter().map(|(kind, bytes)| (*kind, bytes.as_slice())).collect();
            maker.block(&blobs);
        }
        maker.indexed(number)
    }
}

fn file(name: &[u8], size: u64, table: Vec<u8>) -> Node {
    let content =
        FileContent { size, grain: Some(Grain::Medium), chunks: table.into(), ..FileContent::default() };
    node(name, NodeKind::File(content), 0o644)
}

fn row(path: &str, kind: &str, mode: u32) -> Value {
    json!({"path": path, "type": kind, "mode": format!("{mode:04o}"), "mtime_ns": TIME_NS})
}

fn file_row(path: &str, mode: u32, content: &[u8]) -> Value {
    let mut row = row(path, "file", mode);
    row["size"] = content.len().into();
    row["blake3"] = blake3::hash(content).to_string().into();
    row
}

impl Stored {
    fn make(context: &Context) -> Self {
        let mut data = Blobs { context, found: Vec::new() };
        let mut trees = Blobs { context, found: Vec::new() };
        let mut rows = Vec::new();
        let source = source_tree(&mut data, &mut trees, &mut rows);
        let top = node(b"home", NodeKind::Directory { tree: source }, 0o755);
        let root = trees.tree(&Tree::Nodes(vec![top]));
        let record = record::encode(&snapshot(root));
        let snapshot = SnapshotId::new(trees.add(BlobKind::Snapshot, record.clone()));
        // Data in two packs, one of them with a block per blob.
        let rest = Blobs { context, found: data.found.split_off(2) };
        let made = [
            data.pack(ObjectKind::DataPack, 0, 1),
            rest.pack(ObjectKind::DataPack, 1, 100),
            trees.pack(ObjectKind::MetadataPack, 2, 3),
        ];
        let mut entries: Vec<_> = made.iter().flat_map(|(_, _, entries)| entries.clone()).collect();
        entries.sort();
        let mut builder = SegmentBuilder::new(&context.sealer());
        entries.iter().for_each(|entry| builder.push(entry));
        let table: Vec<_> = made.iter().map(|(_, pack, _)| *pack).collect();
        let (segment, layout) = builder.finish(&table);
        Self {
            packs: made.into_iter().map(|(object, ..)| object).collect(),
            segment,
            blobs: layout.entries,
            snapshot,
            record,
            manifest: json!({"root": "home", "entries": rows}),
        }
    }
}

/// The directory that is backed up, with its manifest rows.
fn source_tree(data: &mut Blobs<'_>, trees: &mut Blobs<'_>, rows: &mut Vec<Value>) -> BlobId {
    let text = b"some words that repeat, ".repeat(200);
    let (one, two) = text.split_at(3000);
    let mut nodes = vec![file(b"chunks", text.len() as u64, data.chunks(&[one, two]))];
    rows.push(file_row("chunks", 0o644, &text));

    nodes.push(node(b"empty", NodeKind::File(FileContent::default()), 0o600));
    rows.push(file_row("empty", 0o600, b""));

    // A hole between two chunks, and one at the end.
    let mut content = FileContent {
        size: 200_000,
        chunks: data.chunks(&[b"before ", b"and after"]).into(),
        ..FileContent::default()
    };
    content.holes = vec![Hole { offset: 7, length: 99_993 }, Hole { offset: 100_009, length: 99_991 }];
    let mut bytes = b"before ".to_vec();
    bytes.resize(100_000, 0);
    bytes.extend_from_slice(b"and after");
    bytes.resize(200_000, 0);
    nodes.push(node(b"holes", NodeKind::File(content), 0o444));
    rows.push(file_row("holes", 0o444, &bytes));

    nodes.push(node(b"link", NodeKind::Symlink { target: buf(b"no/such\xffplace") }, 0o777));
    let mut link = row("link", "link", 0o777);
    link["target"] = "no/such%FFplace".into();
    rows.push(link);

    // A chunk table of depth 1.
    let lists = [b"left ".as_slice(), b"right"].map(|half| {
        let chunks = data.chunks(&[half]).into();
        let id = trees.add(BlobKind::Tree, record::encode(&ChunkList { depth: 0, chunks }));
        ListRef { id, bytes: 5 }
    });
    let mut table = Vec::new();
    lists.iter().for_each(|list| chunk_list::push_list(&mut table, *list));
    let content = FileContent { size: 10, depth: 1, chunks: table.into(), ..FileContent::default() };
    nodes.push(node(b"lists", NodeKind::File(content), 0o644));
    rows.push(file_row("lists", 0o644, b"left right"));

    for name in ["name1", "name2"] {
        let mut hard = file(name.as_bytes(), 6, data.chunks(&[b"shared"]));
        hard.metadata.links = Some(2);
        hard.metadata.device = Some(3);
        hard.metadata.xattrs = vec![Xattr { name: buf(b"user.strongroom"), value: buf(b"value") }];
        nodes.push(hard);
        let mut hard = file_row(name, 0o644, b"shared");
        hard["links_to"] = "name1".into();
        rows.push(hard);
    }
    nodes.push(node(b"pipe", NodeKind::Fifo, 0o640));
    rows.push(row("pipe", "fifo", 0o640));

    // A directory in two parts.
    let parts = [("a", "b%FF"), ("c", "d")].map(|(first, second)| {
        let nodes = [first, second].map(|name| {
            rows.push(file_row(&format!("split/{name}"), 0o644, name.as_bytes()));
            let table = data.chunks(&[name.as_bytes()]);
            file(
                &name.bytes().take(1).chain((name.len() > 1).then_some(0xff)).collect::<Vec<_>>(),
                name.len() as u64,
                table,
            )
        });
        let tree = trees.tree(&Tree::Nodes(nodes.to_vec()));
        TreePart { first: buf(first.as_bytes()), entries: 2, tree }
    });
    let split = trees.tree(&Tree::Parts(parts.to_vec()));
    nodes.push(node(b"split", NodeKind::Directory { tree: split }, 0o1755));
    rows.push(row("split", "dir", 0o1755));
    trees.tree(&Tree::Nodes(nodes))
}
