//! Snapshots that no honest writer makes: each costs its own entry, and nothing outside the target is touched.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use serde_bytes::ByteBuf;

use super::test_support::{Builder, Fixture, metadata, names, node, noise};
use super::{Overwrite, RestoreError, RestoreOptions};
use crate::format::chunk_list::{self, Chunk, ListRef};
use crate::format::record;
use crate::format::tree::{FileContent, Hole, Metadata, Node, NodeKind, Timestamp, Tree, TreePart, Xattr};
use crate::ids::BlobId;
use crate::target::test_support::fingerprint;

/// A snapshot's middle; two honest files are put around it.
struct Case {
    name: &'static str,
    build: fn(&mut Builder) -> Vec<Node>,
    /// Entries that fail, where that does not depend on the file system.
    errors: Option<u64>,
    /// Part of a problem that is reported; empty where none need be.
    text: &'static str,
}

const fn case(
    name: &'static str,
    errors: u64,
    text: &'static str,
    build: fn(&mut Builder) -> Vec<Node>,
) -> Case {
    Case { name, build, errors: Some(errors), text }
}

const fn depends(name: &'static str, build: fn(&mut Builder) -> Vec<Node>) -> Case {
    Case { name, build, errors: None, text: "" }
}

fn named(name: &[u8]) -> Vec<Node> {
    vec![Node { name: ByteBuf::from(name), ..node("", NodeKind::File(FileContent::default())) }]
}

fn link(name: &str, text: &[u8]) -> Node {
    node(name, NodeKind::Symlink { target: ByteBuf::from(text) })
}

fn file(content: FileContent) -> Vec<Node> {
    vec![node("file", NodeKind::File(content))]
}

/// A file of `size` with `holes` and one chunk of ten bytes.
fn holed(b: &mut Builder, size: u64, holes: &[(u64, u64)]) -> Vec<Node> {
    let holes = holes.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect();
    file(FileContent { size, holes, ..b.content(b"ten bytes!", 10) })
}

fn table(chunks: &[Chunk]) -> Vec<u8> {
    let mut table = Vec::new();
    chunks.iter().for_each(|chunk| chunk_list::push_chunk(&mut table, *chunk));
    table
}

/// A file with a table of `depth` that holds `lists`.
fn listed(size: u64, depth: u8, lists: &[ListRef]) -> Vec<Node> {
    let mut table = Vec::new();
    lists.iter().for_each(|list| chunk_list::push_list(&mut table, *list));
    file(FileContent { size, depth, chunks: ByteBuf::from(table), ..FileContent::default() })
}

fn id(n: u8) -> BlobId {
    BlobId::from_bytes([n; 32])
}

fn directory_of(tree: BlobId) -> Vec<Node> {
    vec![node("dir", NodeKind::Directory { tree })]
}

/// A directory split into these parts: the first name of each, its number of entries, and its tree.
fn split(b: &mut Builder, parts: &[(&str, u64, BlobId)]) -> BlobId {
    let part = |(first, entries, tree): &(&str, u64, BlobId)| TreePart {
        first: ByteBuf::from(first.as_bytes()),
        entries: *entries,
        tree: *tree,
    };
    b.tree_blob(&record::encode(&Tree::Parts(parts.iter().map(part).collect())))
}

/// Three parts that all lead to a fourth. Nothing below any of them is there.
fn lost_in_several_ways(b: &mut Builder) -> BlobId {
    let last = split(b, &[("z", 1, id(9))]);
    let ways = ["a", "b", "c"].map(|name| (name, 2, split(b, &[(name, 1, id(8)), ("z", 1, last)])));
    split(b, &ways)
}

#[test]
fn no_piece_is_looked_for_twice() {
    let mut b = Builder::new();
    let tree = lost_in_several_ways(&mut b);
    let fixture = b.finish(Vec::new());
    let mut pieces = crate::browse::Pieces::new(tree);
    let mut told = Vec::new();
    while let Some(piece) = pieces.next(fixture.repository.reader()) {
        told.push(piece.expect_err("nothing is there").to_string());
    }
    assert_eq!(told.len(), 3, "two that are missing, and the other ways at once: {told:?}");
    assert!(told[2].contains(ORDER), "{told:?}");
}

fn told(b: &mut Builder, change: fn(&mut Metadata)) -> Vec<Node> {
    let mut node = b.file("file", b"x", 10);
    change(&mut node.metadata);
    vec![node]
}

fn xattr(name: &[u8], len: usize) -> Xattr {
    Xattr { name: ByteBuf::from(name), value: ByteBuf::from(vec![b'v'; len]) }
}

fn linked(node: Node, links: u64) -> Node {
    let metadata = Metadata { inode: 7, device: Some(7), links: Some(links), ..metadata(0o644) };
    Node { metadata, ..node }
}

const IMPOSSIBLE: &str = "its name is impossible";
const ORDER: &str = "does not come after the one before it";

fn cases_of_names() -> Vec<Case> {
    vec![
        case("parent", 1, IMPOSSIBLE, |_| named(b"..")),
        case("self", 1, IMPOSSIBLE, |_| named(b".")),
        case("empty name", 1, IMPOSSIBLE, |_| named(b"")),
        case("slash", 1, IMPOSSIBLE, |_| named(b"a/b")),
        case("absolute", 1, IMPOSSIBLE, |_| named(b"/tmp/victim")),
        case("up and away", 1, IMPOSSIBLE, |_| named(b"../outside/victim")),
        case("NUL", 1, IMPOSSIBLE, |_| named(b"a\0b")),
        case("256 bytes", 1, IMPOSSIBLE, |_| named(&[b'x'; 256])),
        case("two files of one name", 1, ORDER, |b| vec![b.file("x", b"1", 9), b.file("x", b"2", 9)]),
        case("a link, then a directory", 1, ORDER, |b| {
            let victim = b.file("victim", b"evil", 9);
            vec![link("x", b"../outside"), b.directory("x", vec![victim])]
        }),
        case("a directory, then a link", 1, ORDER, |b| {
            let victim = b.file("victim", b"fine", 9);
            vec![b.directory("x", vec![victim]), link("x", b"../outside")]
        }),
        case("descending", 1, ORDER, |b| vec![b.file("y", b"1", 9), b.file("x", b"2", 9)]),
        case("one name in two parts", 1, ORDER, |b| {
            let (first, second) = (vec![link("x", b"../../outside")], vec![b.file("x", b"evil", 9)]);
            let parts = [("x", 1, b.tree(first)), ("x", 1, b.tree(second))];
            directory_of(split(b, &parts))
        }),
        case("a part that begins before the end of another", 1, ORDER, |b| {
            let first = vec![link("a", b"x"), link("x", b"../../outside")];
            let second = vec![link("b", b"x"), b.file("x", b"evil", 9)];
            let parts = [("a", 2, b.tree(first)), ("b", 2, b.tree(second))];
            directory_of(split(b, &parts))
        }),
        case("a path longer than is restored", 1, "a path of", |b| {
            let mut deep = b.file("leaf", b"x", 9);
            for _ in 0..300 {
                deep = b.directory(&"d".repeat(255), vec![deep]);
            }
            vec![deep]
        }),
    ]
}

fn cases_of_trees() -> Vec<Case> {
    vec![
        case("a missing tree", 1, "is not in the index", |_| directory_of(id(9))),
        case("no tree at all", 1, "not well-formed", |b| directory_of(b.tree_blob(b"\xc1garbage"))),
        case("an empty blob", 1, "not well-formed", |b| directory_of(b.tree_blob(b""))),
        case("bytes behind the tree", 1, "bytes follow the record", |b| {
            let mut bytes = record::encode(&Tree::Nodes(Vec::new()));
            bytes.push(0);
            directory_of(b.tree_blob(&bytes))
        }),
        case("a tree cut short", 1, "not well-formed", |b| {
            let mut bytes = record::encode(&Tree::Nodes(vec![b.file("x", b"1", 9)]));
            bytes.truncate(bytes.len() - 3);
            directory_of(b.tree_blob(&bytes))
        }),
        case("a million entries that are not there", 1, "not well-formed", |b| {
            // A map of one field "nodes" with an array that claims 2^32 - 1 items.
            directory_of(b.tree_blob(b"\x81\xa5nodes\xdd\xff\xff\xff\xff"))
        }),
        case("nesting without end", 1, "not well-formed", |b| directory_of(b.tree_blob(&[0x91; 100_000]))),
        case("a data blob for a tree", 1, "reads as", |b| {
            let bytes = record::encode(&Tree::Nodes(Vec::new()));
            let chunk = b.chunk(&bytes);
            directory_of(chunk.id)
        }),
        case("parts without end", 1, "nest deeper than", |b| {
            let mut tree = b.tree(Vec::new());
            for _ in 0..20 {
                tree = split(b, &[("x", 1, tree)]);
            }
            directory_of(tree)
        }),
        case("parts of which one is missing", 1, "is not in the index", |b| {
            let (first, last) = (b.tree(vec![link("a", b"x")]), b.tree(vec![link("c", b"x")]));
            directory_of(split(b, &[("a", 1, first), ("b", 1, id(9)), ("c", 1, last)]))
        }),
        case("no parts", 1, "is split into no parts", |b| directory_of(split(b, &[]))),
        case("a part that lacks entries", 1, "has 1 entries, expected 2", |b| {
            let (first, last) = (b.tree(vec![link("a", b"x")]), b.tree(vec![link("c", b"x")]));
            directory_of(split(b, &[("a", 2, first), ("c", 1, last)]))
        }),
        case("a part that begins with another name", 1, "begins with “b”", |b| {
            let tree = b.tree(vec![link("b", b"x")]);
            directory_of(split(b, &[("a", 1, tree)]))
        }),
        case("a part without entries", 1, "has 0 entries, expected 1", |b| {
            let tree = b.tree(Vec::new());
            directory_of(split(b, &[("a", 1, tree)]))
        }),
        case("a hundred parts eight times over that all lead to nothing", 100 + 7, "expected", |b| {
            let names: Vec<String> = (0..100).map(|n| format!("{n:02}")).collect();
            let (mut tree, mut entries) = (b.tree(Vec::new()), 1);
            for _ in 0..8 {
                let parts: Vec<_> = names.iter().map(|name| (name.as_str(), entries, tree)).collect();
                tree = split(b, &parts);
                entries *= 100;
            }
            directory_of(tree)
        }),
        case("parts that lead to one tree in several ways", 1, ORDER, |b| {
            let last = b.tree(vec![link("z", b"x")]);
            let first = ["a", "b", "c"].map(|name| (name, b.tree(vec![link(name, b"x")])));
            let ways = first.map(|(name, tree)| (name, 2, split(b, &[(name, 1, tree), ("z", 1, last)])));
            directory_of(split(b, &ways))
        }),
        case("parts that lead to one tree, of which nothing can be read", 3, ORDER, |b| {
            directory_of(lost_in_several_ways(b))
        }),
    ]
}

fn cases_of_content() -> Vec<Case> {
    vec![
        case("the longest size", 1, "no file has more", |b| holed(b, u64::MAX, &[(0, u64::MAX - 10)])),
        case("8 EiB", 1, "no file has more", |b| holed(b, 1 << 63, &[(0, (1 << 63) - 10)])),
        depends("just below 8 EiB", |b| holed(b, (1 << 63) - 1, &[(10, (1 << 63) - 11)])),
        case("larger than its chunks", 1, "have 10 bytes in all", |b| holed(b, 11, &[])),
        case("smaller than its chunks", 1, "have 10 bytes in all", |b| holed(b, 9, &[])),
        case("a hole beyond the end", 1, "beyond the file", |b| holed(b, 30, &[(11, 20)])),
        case("a hole beyond all numbers", 1, "beyond the file", |b| holed(b, 30, &[(20, u64::MAX)])),
        case("overlapping holes", 1, "at the end of the one", |b| holed(b, 30, &[(0, 12), (10, 10)])),
        case("touching holes", 1, "at the end of the one", |b| holed(b, 30, &[(0, 10), (10, 10)])),
        case("descending holes", 1, "at the end of the one", |b| holed(b, 30, &[(20, 10), (0, 10)])),
        case("an empty hole", 1, "is empty", |b| holed(b, 30, &[(5, 0), (10, 20)])),
        case(
            "a chunk that crosses a hole",
            1,
            "blob-damaged /file: the file's chunk at 0 has 10 bytes",
            |b| holed(b, 20, &[(5, 10)]),
        ),
        case("65,537 holes", 1, "65537 holes, at most 65536", |b| {
            let holes: Vec<_> = (0..65_537).map(|n| (10 + 2 * n, 1)).collect();
            holed(b, 10 + 2 * 65_537, &holes)
        }),
        case("a chunk of no bytes", 1, "a chunk of 0 bytes", |b| {
            let chunk = Chunk { len: 0, ..b.chunk(b"x") };
            file(FileContent { size: 0, chunks: ByteBuf::from(table(&[chunk])), ..FileContent::default() })
        }),
        case("a chunk of 4 GiB", 1, "a chunk of 4294967295 bytes", |b| {
            let chunk = Chunk { len: u32::MAX, ..b.chunk(b"x") };
            let size = u32::MAX.into();
            file(FileContent { size, chunks: ByteBuf::from(table(&[chunk])), ..FileContent::default() })
        }),
        case("half an entry", 1, "whole entries", |b| {
            let mut content = b.content(b"x", 9);
            content.chunks.truncate(20);
            file(content)
        }),
        case("a chunk that is nowhere", 1, "is not in the repository", |_| {
            let chunks = ByteBuf::from(table(&[Chunk { id: id(9), len: 10 }]));
            file(FileContent { size: 10, chunks, ..FileContent::default() })
        }),
        case("a chunk of another length", 1, "has 10 bytes, but the file's chunk 5", |b| {
            let chunk = Chunk { len: 5, ..b.chunk(b"ten bytes!") };
            file(FileContent { size: 5, chunks: ByteBuf::from(table(&[chunk])), ..FileContent::default() })
        }),
        case("a tree for a chunk", 1, "reads as", |b| {
            let bytes = record::encode(&Tree::Nodes(Vec::new()));
            let chunk = Chunk { id: b.tree_blob(&bytes), len: u32::try_from(bytes.len()).unwrap() };
            let size = bytes.len() as u64;
            file(FileContent { size, chunks: ByteBuf::from(table(&[chunk])), ..FileContent::default() })
        }),
    ]
}

fn cases_of_lists() -> Vec<Case> {
    vec![
        case("nested deeper than any", 1, "depth 9", |_| listed(1, 9, &[ListRef { id: id(1), bytes: 1 }])),
        case("nested 255 deep", 1, "depth 255", |_| listed(1, 255, &[ListRef { id: id(1), bytes: 1 }])),
        case("a missing list", 1, "cannot be read", |_| listed(1, 1, &[ListRef { id: id(1), bytes: 1 }])),
        case("a list of nothing", 1, "without content", |_| listed(0, 1, &[ListRef { id: id(1), bytes: 0 }])),
        case("lists beyond all numbers", 1, "in all", |_| {
            listed(10, 1, &[ListRef { id: id(1), bytes: u64::MAX }, ListRef { id: id(1), bytes: u64::MAX }])
        }),
        case("a list that does not lead down", 1, "depth 1, expected 0", |b| {
            let list = b.list(1, Vec::new(), 10);
            listed(10, 1, &[list])
        }),
        case("a list that holds less", 1, "has 1 bytes of content, expected 10", |b| {
            let chunk = b.chunk(b"x");
            let list = b.list(0, table(&[chunk]), 10);
            listed(10, 1, &[list])
        }),
        case("a list that holds more", 1, "has 30 bytes of content, expected 10", |b| {
            let chunk = b.chunk(b"ten bytes!");
            let list = b.list(0, table(&[chunk; 3]), 10);
            listed(10, 1, &[list])
        }),
        case("a list that is a tree", 1, "not well-formed", |b| {
            let tree = b.tree(Vec::new());
            listed(10, 1, &[ListRef { id: tree, bytes: 10 }])
        }),
        case("a list with half an entry", 1, "whole entries", |b| {
            let list = b.list(0, vec![0; 35], 10);
            listed(10, 1, &[list])
        }),
        case("a chunk in a list that crosses a hole", 1, "bytes 10 to 30 of 30 are missing", |b| {
            let chunk = b.chunk(b"ten bytes!");
            let list = b.list(0, table(&[chunk; 2]), 20);
            let mut nodes = listed(30, 1, &[list]);
            if let NodeKind::File(content) = &mut nodes[0].kind {
                content.holes = vec![Hole { offset: 15, length: 10 }];
            }
            nodes
        }),
        case("a second list that is missing", 1, "bytes 10 to 20 of 20", |b| {
            let chunk = b.chunk(b"ten bytes!");
            let list = b.list(0, table(&[chunk]), 10);
            listed(20, 1, &[list, ListRef { id: id(1), bytes: 10 }])
        }),
        case("one chunk a hundred thousand times", 0, "", |b| {
            let chunk = b.chunk(b"ten bytes!");
            let mut list = b.list(0, table(&[chunk; 10]), 100);
            for depth in 1..5 {
                let mut table = Vec::new();
                (0..10).for_each(|_| chunk_list::push_list(&mut table, list));
                list = b.list(depth, table, list.bytes * 10);
            }
            listed(1_000_000, 5, &[list])
        }),
    ]
}

fn cases_of_others() -> Vec<Case> {
    vec![
        case("a link to an absolute path", 0, "", |_| vec![link("link", b"/etc/passwd")]),
        case("a link out of the target", 0, "", |_| vec![link("link", b"../outside/victim")]),
        case("a link to nothing", 1, "cannot make the symbolic link", |_| vec![link("link", b"")]),
        case("a link with a NUL", 1, "cannot make the symbolic link", |_| vec![link("link", b"a\0b")]),
        case("a link of 5000 bytes", 1, "cannot make the symbolic link", |_| {
            vec![link("link", &[b'x'; 5000])]
        }),
        case("a device beyond all numbers", 1, "beyond 4095", |_| {
            vec![node("device", NodeKind::CharDevice { major: u32::MAX, minor: 1 })]
        }),
        case("a device that would wrap", 1, "beyond 4095", |_| {
            vec![node("device", NodeKind::BlockDevice { major: 8, minor: 1 << 20 })]
        }),
        depends("the memory of the machine", |_| {
            vec![node("mem", NodeKind::CharDevice { major: 1, minor: 1 })]
        }),
        case("a link and a file that are one", 0, "", |b| {
            vec![linked(link("a", b"../outside/victim"), 2), linked(b.file("b", b"mine", 9), 2)]
        }),
        case("more names than numbers", 0, "", |b| {
            vec![linked(b.file("a", b"x", 9), u64::MAX), linked(b.file("b", b"x", 9), u64::MAX)]
        }),
        case("no names", 0, "", |b| vec![linked(b.file("a", b"x", 9), 0)]),
        case("a name of a file that failed", 2, "is not in the index", |b| {
            let mut content = listed(10, 1, &[ListRef { id: id(1), bytes: 10 }]);
            let first = content.remove(0);
            let second = Node { name: ByteBuf::from(&b"file2"[..]), ..first.clone() };
            let third = Node { name: ByteBuf::from(&b"file3"[..]), ..b.file("", b"ten bytes!", 10) };
            // Sizes differ, so this one stands alone.
            let third = linked(Node { kind: third.kind, ..third }, 2);
            vec![first, second, third]
        }),
    ]
}

fn cases_of_metadata() -> Vec<Case> {
    vec![
        case("all mode bits", 0, "", |b| told(b, |m| m.mode = u32::MAX)),
        case("a second and a billion", 1, "999999999", |b| told(b, |m| m.mtime.nanos = 1_000_000_000)),
        case("nanoseconds that mean now", 1, "999999999", |b| told(b, |m| m.mtime.nanos = 0x3fff_ffff)),
        depends("before all time", |b| told(b, |m| m.mtime = Timestamp { seconds: i64::MIN, nanos: 0 })),
        case("an attribute without a namespace", 1, "extended attribute", |b| {
            told(b, |m| m.xattrs = vec![xattr(b"plain", 1)])
        }),
        case("an attribute with a NUL", 1, "extended attribute", |b| {
            told(b, |m| m.xattrs = vec![xattr(b"user.a\0b", 1)])
        }),
        case("an attribute without a name", 1, "extended attribute", |b| {
            told(b, |m| m.xattrs = vec![xattr(b"", 1)])
        }),
        case("an attribute of 100,000 bytes", 1, "extended attribute", |b| {
            told(b, |m| m.xattrs = vec![xattr(b"user.long", 100_000)])
        }),
        case("flags nobody asked for", 0, "", |b| told(b, |m| m.flags = u32::MAX)),
        depends("an owner that means nobody", |b| told(b, |m| m.uid = u32::MAX)),
        case("an account with a strange name", 0, "", |b| told(b, |m| m.user = "../\u{0}\n".repeat(100))),
    ]
}

fn run_case(case: &Case, options: &RestoreOptions) {
    let mut b = Builder::new();
    let mut nodes = vec![b.file("!first", b"honest", 10)];
    nodes.extend((case.build)(&mut b));
    nodes.push(b.file("~last", b"honest too", 10));
    let fixture = b.finish(nodes);
    let outside = fixture.at("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "precious").unwrap();
    let before = fingerprint(&outside);
    let (report, problems) = fixture.restore(options);
    let name = case.name;
    assert_eq!(fingerprint(&outside), before, "{name}");
    if let Some(errors) = case.errors {
        assert_eq!(report.errors, errors, "{name}: {problems:?}");
    }
    assert_eq!(report.errors == 0, problems.is_empty(), "{name}: {problems:?}");
    assert!(case.text.is_empty() || problems.iter().any(|p| p.contains(case.text)), "{name}: {problems:?}");
    assert_eq!(fs::read(fixture.target().join("!first")).unwrap(), b"honest", "{name}");
    assert_eq!(fs::read(fixture.target().join("~last")).unwrap(), b"honest too", "{name}");
    let beside: Vec<_> =
        fs::read_dir(fixture.at("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 2, "{name}: {beside:?}");
}

#[test]
fn hostile_snapshots_cost_their_own_entries_and_no_more() {
    let cases = [
        cases_of_names(),
        cases_of_trees(),
        cases_of_content(),
        cases_of_lists(),
        cases_of_others(),
        cases_of_metadata(),
    ];
    let cases: Vec<Case> = cases.into_iter().flatten().collect();
    assert!(cases.len() >= 70, "{}", cases.len());
    let options = RestoreOptions { threads: 2, verify: true, ..RestoreOptions::default() };
    cases.iter().for_each(|case| run_case(case, &options));
}

#[test]
fn a_root_that_is_no_tree_is_refused_at_once() {
    let fixture = Builder::new().finish_tree(id(9));
    let result =
        fixture.try_restore("", &RestoreOptions::default(), &super::test_support::Listener::default());
    assert!(matches!(result, Err(RestoreError::Browse(_))), "{result:?}");
    assert!(!fixture.target().exists());
}

/// A directory `sub` with the file `victim`, the file `file`, and a target full of traps.
fn trapped() -> Fixture {
    let mut b = Builder::new();
    let victim = b.file("victim", &noise(1, 5000), 1000);
    let nodes = vec![b.file("file", b"new", 9), b.file("pipe", b"new", 9), b.directory("sub", vec![victim])];
    let fixture = b.finish(nodes);
    fs::create_dir(fixture.at("outside")).unwrap();
    fs::write(fixture.at("outside/victim"), "precious").unwrap();
    fs::create_dir(fixture.target()).unwrap();
    symlink(fixture.at("outside"), fixture.target().join("sub")).unwrap();
    symlink(fixture.at("outside/victim"), fixture.target().join("file")).unwrap();
    symlink(fixture.at("outside"), fixture.target().join("zap")).unwrap();
    let pipe = fixture.target().join("pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, pipe, kind, rustix::fs::Mode::RWXU, 0).unwrap();
    fixture
}

#[test]
fn traps_in_the_target_are_replaced_and_not_followed() {
    for overwrite in [Overwrite::Always, Overwrite::IfChanged] {
        let fixture = trapped();
        let before = fingerprint(&fixture.at("outside"));
        let options = RestoreOptions { overwrite, delete: true, verify: true, ..RestoreOptions::default() };
        let report = fixture.restore_well(&options);
        assert_eq!((report.deleted, report.verified), (1, 3));
        assert_eq!(fingerprint(&fixture.at("outside")), before);
        assert_eq!(names(&fixture.target()), ["file", "pipe", "sub/", "sub/victim"]);
    }
    let fixture = trapped();
    let before = fingerprint(&fixture.at("outside"));
    let dry = RestoreOptions { dry_run: true, delete: true, ..RestoreOptions::default() };
    assert_eq!(fixture.restore_well(&dry).deleted, 1);
    assert_eq!(fingerprint(&fixture.at("outside")), before);
    assert_eq!(names(&fixture.target()), ["file", "pipe", "sub", "zap"]);
}

#[test]
fn a_file_that_is_also_outside_is_not_written_to() {
    let fixture = trapped();
    let target = fixture.target();
    fs::remove_file(target.join("file")).unwrap();
    fs::hard_link(fixture.at("outside/victim"), target.join("file")).unwrap();
    fixture.restore_well(&RestoreOptions::default());
    assert_eq!(fs::read(fixture.at("outside/victim")).unwrap(), b"precious");
    assert_eq!(fs::read(target.join("file")).unwrap(), b"new");
    assert_eq!(fs::metadata(fixture.at("outside/victim")).unwrap().nlink(), 1);
}
