//! Vectors of trees, chunk tables, chunk lists, snapshots, the gear table, cut points and splitting.

use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use strongroom::chunk::grain::sizes;
use strongroom::chunk::split::{CHUNK_RULE, SplitRule, Splitter, TREE_RULE};
use strongroom::chunk::{Cutter, GearTable};
use strongroom::crypto::{KeySet, Purpose, RootSecret};
use strongroom::format::chunk_list::{self, Chunk, ChunkList, ListRef};
use strongroom::format::provenance::{Consistency, Fact, Provenance};
use strongroom::format::record;
use strongroom::format::snapshot::{Origin, Repaired, Snapshot, SnapshotSummary};
use strongroom::format::tree::{
    FileContent, Grain, Hole, Metadata, Node, NodeKind, Timestamp, Tree, TreePart, Xattr,
};
use strongroom::ids::{BlobId, PlanHash, RepositoryId, SnapshotId};

use super::make_keys::purpose_key;
use super::support::{ROOT, Vector, bad, data, good, hex, record_json};

pub const GRAINS: [(&str, Grain); 4] =
    [("page", Grain::Page), ("fine", Grain::Fine), ("medium", Grain::Medium), ("coarse", Grain::Coarse)];

pub const RULES: [(&str, SplitRule); 2] = [("tree", TREE_RULE), ("chunks", CHUNK_RULE)];

pub fn all() -> Vec<Vector> {
    [trees(), tree_rules(), tables(), snapshots(), gear_and_cuts(), splits()].into_iter().flatten().collect()
}

pub fn buf(bytes: &[u8]) -> ByteBuf {
    ByteBuf::from(bytes.to_vec())
}

pub fn blob(n: u8) -> BlobId {
    BlobId::from_bytes([n; 32])
}

pub fn node(name: &[u8], kind: NodeKind, mode: u32) -> Node {
    let time = Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 };
    let metadata =
        Metadata { mode, uid: 1000, gid: 1000, mtime: time, ctime: time, inode: 77, ..Metadata::default() };
    Node { name: buf(name), kind, metadata }
}

fn full_node() -> Node {
    let mut table = Vec::new();
    chunk_list::push_chunk(&mut table, Chunk { id: blob(1), len: 70_000 });
    let content = FileContent {
        size: 1_070_000,
        grain: Some(Grain::Coarse),
        depth: 0,
        chunks: table.into(),
        holes: vec![Hole { offset: 4096, length: 1_000_000 }],
        unstable: true,
    };
    let mut node = node(b"full", NodeKind::File(content), 0o4755);
    node.metadata = Metadata {
        user: "anna".into(),
        group: "staff".into(),
        mtime: Timestamp { seconds: -5_000_000_000, nanos: 999_999_999 },
        btime: Some(Timestamp { seconds: 0, nanos: 0 }),
        inode: u64::MAX,
        links: Some(2),
        device: Some(0x1_0000_0001),
        flags: 0x80,
        xattrs: vec![
            Xattr { name: buf(b"user.a"), value: buf(b"") },
            Xattr { name: buf(b"user.b"), value: buf(&[0xff; 300]) },
        ],
        ..node.metadata
    };
    node
}

fn trees() -> Vec<Vector> {
    let kinds = Tree::Nodes(vec![
        node(b"\xff not UTF-8", NodeKind::Fifo, 0o600),
        node(b"block", NodeKind::BlockDevice { major: 8, minor: 1 }, 0o660),
    ]);
    let Tree::Nodes(mut nodes) = kinds else { unreachable!("just made") };
    nodes.extend([
        node(b"char", NodeKind::CharDevice { major: 1, minor: 300 }, 0o666),
        node(b"dir", NodeKind::Directory { tree: blob(2) }, 0o755),
        node(b"empty", NodeKind::File(FileContent::default()), 0o644),
        node(b"link", NodeKind::Symlink { target: buf(b"../target") }, 0o777),
        node(b"socket", NodeKind::Socket, 0o755),
    ]);
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let samples = [
        ("empty", "an empty directory", Tree::Nodes(vec![])),
        ("kinds", "one node of every kind", Tree::Nodes(nodes)),
        ("full", "a node with every field", Tree::Nodes(vec![full_node()])),
        (
            "parts",
            "a split directory",
            Tree::Parts(vec![
                TreePart { first: buf(b"a"), entries: 1500, tree: blob(3) },
                TreePart { first: buf(b"m"), entries: 700, tree: blob(4) },
            ]),
        ),
    ];
    let mut vectors: Vec<_> = samples
        .iter()
        .map(|(name, what, tree)| {
            let inputs = json!({"record": hex(record::encode(tree))});
            good(&format!("tree-{name}"), "tree", what, inputs, json!({"value": record_json(tree)}))
        })
        .collect();
    let raw = record::encode(&samples[1].2);
    let refused = |name: &str, what: &str, bytes: &[u8]| {
        bad(name, "tree", what, json!({"record": hex(bytes)}), "record")
    };
    vectors.extend([
        refused("tree-trailing", "a byte after the record", &[&raw[..], &[0]].concat()),
        refused("tree-cut", "cut short", &raw[..raw.len() - 1]),
        refused("tree-unknown-variant", "neither nodes nor parts", b"\x81\xa5other\x90"),
        refused("tree-two-variants", "nodes and parts", b"\x82\xa5nodes\x90\xa5parts\x90"),
        refused("tree-not-a-map", "a string", b"\xa5nodes"),
        refused(
            "tree-deep",
            "arrays nested 200 deep",
            &[&b"\x81\xa5nodes"[..], &[0x91; 200], &[0x90]].concat(),
        ),
        refused(
            "tree-huge-array",
            "an array of 2^32 − 1 nodes in 12 bytes",
            b"\x81\xa5nodes\xdd\xff\xff\xff\xff",
        ),
    ]);
    vectors
}

/// Trees that decode and break a rule of the specification.
fn tree_rules() -> Vec<Vector> {
    let fifo = |name: &[u8]| node(name, NodeKind::Fifo, 0o600);
    let file = |content: FileContent| vec![node(b"f", NodeKind::File(content), 0o644)];
    let table = |lens: &[u32]| {
        let mut table = Vec::new();
        lens.iter().for_each(|len| chunk_list::push_chunk(&mut table, Chunk { id: blob(1), len: *len }));
        ByteBuf::from(table)
    };
    let lists = |bytes: &[u64]| {
        let mut table = Vec::new();
        bytes.iter().for_each(|n| chunk_list::push_list(&mut table, ListRef { id: blob(1), bytes: *n }));
        ByteBuf::from(table)
    };
    let with = |change: &dyn Fn(&mut Metadata)| {
        let mut node = fifo(b"n");
        change(&mut node.metadata);
        vec![node]
    };
    let xattr = |name: &[u8]| Xattr { name: buf(name), value: buf(b"v") };
    let holes = |ranges: &[(u64, u64)]| {
        ranges.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect()
    };
    let content = |size, chunks, holes| FileContent { size, chunks, holes, ..FileContent::default() };
    let cases: Vec<(&str, &str, Vec<Node>, &str)> = vec![
        ("name-empty", "an empty name", vec![fifo(b"")], "record"),
        ("name-slash", "a name with a slash", vec![fifo(b"../up")], "record"),
        ("name-nul", "a name with a NUL", vec![fifo(b"a\0b")], "record"),
        ("name-dot", "the name .", vec![fifo(b".")], "record"),
        ("name-dot-dot", "the name ..", vec![fifo(b"..")], "record"),
        ("name-long", "a name of 256 bytes", vec![fifo(&[b'x'; 256])], "record"),
        ("names-equal", "two nodes of one name", vec![fifo(b"a"), fifo(b"a")], "record"),
        ("names-descend", "names that descend", vec![fifo(b"b"), fifo(b"a")], "record"),
        ("nanos", "nanoseconds of a second and more", with(&|m| m.mtime.nanos = 1_000_000_000), "record"),
        ("mode", "a mode above 0o7777", with(&|m| m.mode = 0o100_644), "record"),
        ("device-alone", "a device number without links", with(&|m| m.device = Some(1)), "record"),
        (
            "xattrs-equal",
            "two attributes of one name",
            with(&|m| m.xattrs = vec![xattr(b"user.a"), xattr(b"user.a")]),
            "record",
        ),
        ("xattr-empty", "an attribute without a name", with(&|m| m.xattrs = vec![xattr(b"")]), "record"),
        (
            "link-empty",
            "a link to nothing",
            vec![node(b"l", NodeKind::Symlink { target: buf(b"") }, 0o777)],
            "record",
        ),
        (
            "chunk-over-hole",
            "a chunk that crosses a hole",
            file(content(10, table(&[4]), holes(&[(2, 6)]))),
            "record",
        ),
        (
            "size-overflow",
            "lists of 2^64 bytes",
            file(FileContent { depth: 1, ..content(0, lists(&[u64::MAX, 1]), vec![]) }),
            "record",
        ),
        ("size-short", "fewer bytes than the size", file(content(10, table(&[9]), vec![])), "record"),
        ("size-over", "more bytes than the size", file(content(10, table(&[9, 2]), vec![])), "record"),
        (
            "holes-touch",
            "holes that touch",
            file(content(10, table(&[4]), holes(&[(0, 3), (3, 3)]))),
            "record",
        ),
        (
            "holes-descend",
            "holes that descend",
            file(content(10, table(&[4]), holes(&[(5, 3), (0, 3)]))),
            "record",
        ),
        ("hole-outside", "a hole beyond the end", file(content(10, table(&[4]), holes(&[(5, 6)]))), "record"),
        (
            "hole-overflow",
            "a hole that ends beyond 2^64",
            file(content(u64::MAX, table(&[4]), holes(&[(5, u64::MAX)]))),
            "record",
        ),
        ("hole-empty", "a hole of no bytes", file(content(10, table(&[10]), holes(&[(5, 0)]))), "record"),
        (
            "table-length",
            "a table that is no whole number of entries",
            file(content(10, buf(&[1; 35]), vec![])),
            "table",
        ),
        (
            "table-depth",
            "a table of depth 9",
            file(FileContent { depth: 9, ..content(10, buf(&[1; 40]), vec![]) }),
            "table",
        ),
    ];
    let mut vectors: Vec<_> = cases
        .into_iter()
        .map(|(name, what, nodes, class)| {
            let inputs = json!({"record": hex(record::encode(&Tree::Nodes(nodes)))});
            bad(&format!("tree-rules-{name}"), "tree-rules", what, inputs, class)
        })
        .collect();
    let parts = json!({"record": hex(record::encode(&Tree::Parts(vec![])))});
    vectors.push(bad("tree-rules-no-parts", "tree-rules", "a split directory of no parts", parts, "record"));
    vectors
}

fn tables() -> Vec<Vector> {
    let (mut chunks, mut lists) = (Vec::new(), Vec::new());
    for n in 1..4u8 {
        chunk_list::push_chunk(&mut chunks, Chunk { id: blob(n), len: u32::from(n) << 12 });
        chunk_list::push_list(&mut lists, ListRef { id: blob(n), bytes: u64::from(n) << 33 });
    }
    let entries = |unit: &str, shift: u32| -> Value {
        (1..4u8).map(|n| json!({"id": blob(n).to_string(), unit: u64::from(n) << shift})).collect()
    };
    let inputs = |depth: u8, table: &[u8]| json!({"depth": depth, "table": hex(table)});
    let with_len = |len: u32| [&[1u8; 32][..], &len.to_le_bytes()].concat();
    let refused = |name: &str, what: &str, depth, table: &[u8]| {
        bad(name, "chunk-table", what, inputs(depth, table), "table")
    };
    let list = ChunkList { depth: 1, chunks: lists.clone().into() };
    let list_inputs = |bytes: &[u8]| json!({"record": hex(bytes)});
    let raw = record::encode(&list);
    vec![
        good(
            "chunk-table-chunks",
            "chunk-table",
            "a table of depth 0",
            inputs(0, &chunks),
            json!({"entries": entries("length", 12)}),
        ),
        good(
            "chunk-table-lists",
            "chunk-table",
            "a table of depth 2",
            inputs(2, &lists),
            json!({"entries": entries("bytes", 33)}),
        ),
        good("chunk-table-empty", "chunk-table", "an empty table", inputs(0, b""), json!({"entries": []})),
        refused("chunk-table-cut", "a byte short", 0, &chunks[..chunks.len() - 1]),
        refused("chunk-table-other-depth", "chunks read as lists", 1, &chunks[..72]),
        refused("chunk-table-empty-chunk", "a chunk of 0 bytes", 0, &with_len(0)),
        refused("chunk-table-long-chunk", "a chunk above 16 MiB", 0, &with_len((16 << 20) + 1)),
        refused("chunk-table-empty-list", "a list of 0 bytes", 1, &[&[1u8; 32][..], &[0; 8]].concat()),
        good(
            "chunk-list-good",
            "chunk-list",
            "a chunk list",
            list_inputs(&raw),
            json!({"value": record_json(&list)}),
        ),
        bad("chunk-list-cut", "chunk-list", "cut short", list_inputs(&raw[..raw.len() - 1]), "record"),
    ]
}

pub fn snapshot(tree: BlobId) -> Snapshot {
    Snapshot {
        time: Timestamp { seconds: 1_764_000_000, nanos: 1 },
        hostname: "host".into(),
        username: "anna".into(),
        paths: vec![buf(b"/home/anna"), buf(b"/srv/\xe9")],
        tree,
        tags: vec![],
        parent: None,
        partial: false,
        repaired: None,
        origin: None,
        provenance: None,
        excludes: vec![],
        program: "strongroom vectors".into(),
        summary: SnapshotSummary { files: 3, directories: 2, bytes: 1 << 40, ..SnapshotSummary::default() },
    }
}

/// A snapshot that a plan ordered.
fn planned_snapshot() -> Snapshot {
    Snapshot {
        provenance: Some(Provenance {
            domain: "orders-db".into(),
            consistency: Consistency::Application,
            plan: PlanHash::from_bytes([6; 32]),
            plan_files: vec![buf(b"/etc/strongroom/strongroom.toml")],
            facts: vec![Fact { name: "server".into(), value: "15.9".into() }],
        }),
        ..snapshot(blob(9))
    }
}

fn snapshots() -> Vec<Vector> {
    let keys = KeySet::derive(&RootSecret::from_bytes(ROOT));
    let plain = snapshot(blob(9));
    let full = Snapshot {
        tags: vec!["daily".into(), "größe".into()],
        parent: Some(SnapshotId::new(blob(8))),
        partial: true,
        excludes: vec!["*.tmp".into()],
        ..plain.clone()
    };
    let repaired = Snapshot {
        repaired: Some(Repaired { original: SnapshotId::new(blob(7)), added: 12, lost: 3, appender: None }),
        tags: vec![Snapshot::REPAIRED_TAG.into()],
        ..plain.clone()
    };
    let planned = planned_snapshot();
    let origin = Origin {
        repository: RepositoryId::from_bytes([5; 16]),
        snapshot: SnapshotId::new(blob(6)),
        added: 4,
        appender: None,
    };
    let copied = Snapshot { origin: Some(origin), ..plain.clone() };
    let vectors = [
        ("plain", "defaults left out", plain),
        ("full", "every field but those of repaired, copied and planned ones", full),
        ("repaired", "made by a repair", repaired),
        ("copied", "copied from another repository", copied),
        ("planned", "made by a plan", planned),
    ];
    let mut vectors: Vec<_> = vectors
        .iter()
        .map(|(name, what, snapshot)| {
            let raw = record::encode(snapshot);
            let id = keys.blob_id(strongroom::crypto::keys::BlobKind::Snapshot, &raw);
            let inputs = json!({"root": hex(ROOT), "record": hex(&raw)});
            let expected = json!({"id": id.to_string(), "value": record_json(snapshot)});
            good(&format!("snapshot-{name}"), "snapshot", what, inputs, expected)
        })
        .collect();
    let raw = record::encode(&snapshot(blob(9)));
    let inputs = json!({"root": hex(ROOT), "record": hex(&raw[..raw.len() - 1])});
    vectors.push(bad("snapshot-cut", "snapshot", "cut short", inputs, "record"));
    let mut raw = record::encode(&planned_snapshot());
    let word = raw.windows(11).position(|word| word == b"application").expect("it is in there");
    raw[word] = b'A';
    let inputs = json!({"root": hex(ROOT), "record": hex(&raw)});
    vectors.push(bad(
        "snapshot-consistency",
        "snapshot",
        "a consistency that there is not",
        inputs,
        "record",
    ));
    vectors
}

/// The gear table, derived here because the engine does not show it; the cut vectors tie both together.
pub fn gear_bytes() -> [u8; 1024] {
    let mut bytes = [0; 1024];
    blake3::Hasher::new_keyed(&purpose_key(&ROOT, Purpose::Chunker, 0))
        .update(b"gear")
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub fn cut_all(grain: Grain, mut rest: &[u8]) -> Vec<usize> {
    let gear = GearTable::derive(&KeySet::derive(&RootSecret::from_bytes(ROOT)));
    let cutter = Cutter::new(&gear, sizes(grain));
    let mut lens = Vec::new();
    while !rest.is_empty() {
        lens.push(cutter.cut(rest));
        rest = &rest[lens[lens.len() - 1]..];
    }
    lens
}

fn gear_and_cuts() -> Vec<Vector> {
    let mut vectors = vec![good(
        "gear-table",
        "gear",
        "256 numbers of 32 bits, little-endian",
        json!({"root": hex(ROOT)}),
        json!({"gear": hex(gear_bytes())}),
    )];
    for (name, grain) in GRAINS {
        let bounds = sizes(grain);
        let random = |length: usize| json!({"generator": "blake3-xof", "input": "strongroom cut vectors", "length": length});
        let cases = [
            ("random", random(bounds.average * 10 + 1)),
            ("zeros", json!({"generator": "zeros", "length": bounds.max * 2 + 12_345})),
            ("lines", json!({"generator": "lines", "length": bounds.average * 6})),
            ("min", random(bounds.min)),
            ("min-and-1", random(bounds.min + 1)),
            ("below-average", random(bounds.average - 7)),
            ("empty", random(0)),
        ];
        for (case, description) in cases {
            let lens = cut_all(grain, &data(&description));
            let inputs = json!({"root": hex(ROOT), "grain": name, "data": description});
            let what = format!("chunk lengths at grain {name}: {case}");
            vectors.push(good(
                &format!("cut-{name}-{case}"),
                "cuts",
                &what,
                inputs,
                json!({"lengths": lens}),
            ));
        }
    }
    vectors
}

/// Lengths of the pieces of `count` items whose keys are their numbers, 32 bits big-endian, and whose weights are
/// these, over and over.
pub fn pieces(rule: &SplitRule, count: u32, weights: &[u64]) -> Vec<usize> {
    let keys = KeySet::derive(&RootSecret::from_bytes(ROOT));
    let items: Vec<_> = (0..count).map(u32::to_be_bytes).collect();
    let weights: Vec<u64> = weights.iter().copied().cycle().take(items.len()).collect();
    let items = items.iter().zip(weights).map(|(key, weight)| (key.as_slice(), weight));
    Splitter::new(&keys).pieces(rule, items.collect::<Vec<_>>().into_iter())
}

fn splits() -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut add = |(list, rule): (&str, SplitRule), name: &str, count: u32, weights: &[u64]| {
        let inputs = json!({"root": hex(ROOT), "list": list, "items": count, "weights": weights});
        let expected = json!({"pieces": pieces(&rule, count, weights)});
        let what = format!("{count} items with keys 0, 1, 2, … as 32-bit big-endian numbers; weights repeat");
        vectors.push(good(&format!("split-{list}-{name}"), "split", &what, inputs, expected));
    };
    let [tree, chunks] = RULES;
    for count in [0, 2048, 2049, 20_000] {
        add(tree, &count.to_string(), count, &[300]);
    }
    for count in [0, 64, 65, 2049, 20_000] {
        add(chunks, &count.to_string(), count, &[0]);
    }
    add(tree, "weight-limit", 2, &[2 << 20]);
    add(tree, "weight-over", 3, &[2 << 20, (2 << 20) - 1, 2]);
    add(tree, "heavy-item", 5, &[256, 9 << 20, 300]);
    add(tree, "heavy", 3000, &[20_000, 300, 7000]);
    vectors
}
