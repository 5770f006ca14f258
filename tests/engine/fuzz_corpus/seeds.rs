//! Seeds of the corpora: objects and records of the test vectors, and short descriptions for the oracles that build
//! what they test from one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::Value;
use strongroom::format::block::BlockCodec;
use strongroom::format::commit::{Change, Commit};
use strongroom::format::config::Config;
use strongroom::format::header::ObjectKind;
use strongroom::format::record;
use strongroom::format::segment::PAGE_PLAIN_LEN;
use strongroom::format::tree::Timestamp;
use strongroom::ids::{BlobId, CommitHash, RepositoryId, SnapshotId, WriterId};

use crate::vectors::support::{Context, unhex};

/// Seeds of one target, by name.
type Seeds = BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>;

/// Seeds of a target: the rest of its corpus is for what fuzzing finds.
const COUNT_MAX: usize = 24;
/// Longest seed in bytes.
const LEN_MAX: usize = 20_000;

/// Replaces the seeds in the corpora below `corpus`; inputs that fuzzing found stay.
pub fn write(corpus: &Path) {
    for (target, seeds) in all() {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).expect("a new folder");
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-")) {
                fs::remove_file(path).expect("a stale seed goes");
            }
        }
        let (made, of_vectors): (Vec<_>, Vec<_>) =
            seeds.iter().partition(|(name, _)| name.starts_with("made-"));
        // With too many, every n-th of the vectors, so that each kind of them stays.
        let room = COUNT_MAX.checked_sub(made.len()).expect("few seeds are made");
        let step = of_vectors.len().div_ceil(room.max(1)).max(1);
        for (name, bytes) in made.into_iter().chain(of_vectors.into_iter().step_by(step)) {
            fs::write(folder.join(format!("seed-{name}")), bytes).expect("a new file");
        }
    }
}

fn all() -> Seeds {
    let mut seeds = Seeds::new();
    for vector in crate::vectors::all() {
        of_vector(&vector.name, &vector.value, &mut seeds);
    }
    let described = [
        commits(),
        sealed_record(),
        chunker(),
        split(),
        pack_blocks(),
        segment(),
        segment_pages(),
        texts(),
        parity(),
    ];
    for (target, name, bytes) in described.into_iter().flatten() {
        seeds.entry(target).or_default().insert(format!("made-{name}"), bytes);
    }
    for seeds in seeds.values_mut() {
        seeds.retain(|_, bytes| bytes.len() <= LEN_MAX);
    }
    seeds
}

/// What a vector has for the targets.
fn of_vector(name: &str, vector: &Value, seeds: &mut Seeds) {
    let inputs = &vector["inputs"];
    let mut add = |target, part: &str, bytes: Vec<u8>| {
        seeds.entry(target).or_default().insert(format!("{name}{part}"), bytes);
    };
    let number = |field: &str| inputs[field].as_u64().expect("a number");
    let raw_len = || u32::try_from(number("raw_length")).expect("short").to_le_bytes();
    match vector["kind"].as_str().expect("a kind") {
        "config" => add("config", "", unhex(&inputs["object"])),
        "header" => add("header", "", unhex(&inputs["object"])),
        "keyslot" => {
            let object = unhex(&inputs["object"]);
            add("keyslot", "-params", object[80..96].to_vec());
            add("keyslot", "", object);
        }
        "record" => add("sealed_record", "", unhex(&inputs["object"])),
        "ledger" => {
            add("ledger", "", unhex(&inputs["object"]));
            let group = |method, pack: u8| {
                let time = serde_json::json!({"seconds": 1, "nanos": 0});
                serde_json::json!({"time": time, "method": method, "intact": true, "packs": vec![pack; 32]})
            };
            let record = serde_json::json!({"verified": [group("listed", 1), group("read", 1)]});
            add("ledger", "-record", record::encode(&record));
        }
        "state" => {
            add("sealed_record", "", unhex(&inputs["record"]));
            add("state", "", unhex(&inputs["record"]));
        }
        "payload" => {
            let payload = unhex(&inputs["payload"]);
            add("sealed_record", "", [&raw_len()[..], &payload].concat());
            add("block", "", [&raw_len()[..], &[8], &payload].concat());
        }
        "snapshot" => add("snapshot", "", unhex(&inputs["record"])),
        "tree" | "tree-rules" => add("tree", "", unhex(&inputs["record"])),
        "chunk-list" => add("chunk_list", "", unhex(&inputs["record"])),
        "chunk-table" => add("chunk_list", "", unhex(&inputs["table"])),
        "directory" => {
            let mut directory = unhex(&inputs["directory"]);
            add("pack", "", directory.clone());
            if let Some(reserved) = directory.last_mut() {
                *reserved ^= 1;
            }
            add("pack", "-reserved", directory);
        }
        "parity" => add("parity", "", unhex(&inputs["sidecar"])),
        "pack" => add("pack", "", unhex(&inputs["object"])),
        "segment" => add("segment", "", unhex(&inputs["object"])),
        "padme" => add("padme", "", number("length").to_le_bytes().to_vec()),
        "commit" => {
            let object = unhex(&inputs["object"]);
            for (part, bytes) in inside(&object, number("seq")) {
                add("commit", part, bytes);
            }
            add("commit", "", object);
        }
        _ => {}
    }
}

/// What a sealed commit holds.
#[derive(Serialize, Deserialize)]
struct SignedCommit {
    body: ByteBuf,
    writer: WriterId,
    signature: ByteBuf,
}

/// The signed record and the body of a commit object, as far as it opens.
fn inside(object: &[u8], seq: u64) -> Vec<(&'static str, Vec<u8>)> {
    let Context { keys, repository, .. } = Context::new(1);
    let signed: Option<SignedCommit> =
        record::open_object(ObjectKind::Log, object.to_vec(), &keys, &repository).ok();
    let signed = signed.map(|signed| ("-signed", record::encode(&signed)));
    let body = Commit::open(object.to_vec(), seq, &keys, &repository).ok();
    let body = body.map(|(commit, _)| ("-body", record::encode(&commit)));
    signed.into_iter().chain(body).collect()
}

/// A target, a seed's name and its bytes.
type Described = Vec<(&'static str, String, Vec<u8>)>;

/// An overhead, a length, a seed, and places to change.
fn parity() -> Described {
    let described = |name: &str, places: &[[u8; 4]]| {
        let bytes = [&[30, 0, 0x10, 0x27, 1, 2, 3, 4][..], places.as_flattened()].concat();
        ("parity", name.to_owned(), bytes)
    };
    vec![
        described("whole", &[]),
        described("two-shards", &[[9, 0, 0, 1], [9, 8, 1, 3]]),
        described("recovery-shard", &[[9, 0, 0, 1], [0, 4, 0, 2]]),
    ]
}

/// A config of a later version, and commits that fit the log of the oracle and that do not.
fn commits() -> Described {
    let config = Config {
        repository: RepositoryId::from_bytes([3; 16]),
        must_understand: 0x10,
        created_by: "later".into(),
    };
    let snapshot = |n| SnapshotId::new(BlobId::from_bytes([n; 32]));
    let forgotten = |n| Change::SnapshotForgotten { snapshot: snapshot(n), reason: "x".into() };
    let bodies = [("fits", vec![forgotten(5)]), ("does-not-fit", vec![forgotten(5), forgotten(6)])];
    let commits = bodies.into_iter().map(|(name, changes)| {
        let commit = Commit {
            seq: 9,
            previous: CommitHash::from_bytes([9; 32]),
            time: Timestamp { seconds: 1, nanos: 2 },
            host: "h".into(),
            user: "u".into(),
            program: "p".into(),
            changes,
        };
        ("commit", name.to_owned(), record::encode(&commit))
    });
    commits.chain([("config", "feature".to_owned(), config.encode())]).collect()
}

/// Byte strings in messages: stored as they are, compressed, padded, and framed wrongly.
fn sealed_record() -> Described {
    let raw = record::encode(&ByteBuf::from(vec![7; 300]));
    let mut frame = Vec::new();
    BlockCodec::new().compress(&raw, 3, &mut frame);
    let le32 = |len: usize| u32::try_from(len).expect("short").to_le_bytes();
    let message = |raw_len: usize, stored: &[u8], padding: &[u8]| {
        [&le32(raw_len)[..], &le32(stored.len()), stored, padding].concat()
    };
    let seeds = [
        ("bytes", raw.clone()),
        ("payload", [&le32(raw.len())[..], &frame].concat()),
        ("stored", message(raw.len(), &raw, &[])),
        ("compressed", message(raw.len(), &frame, &[0; 9])),
        ("padding", message(raw.len(), &frame, &[0, 1])),
        ("raw-length", message(raw.len() + 1, &frame, &[])),
        ("short", message(raw.len(), &frame, &[])[..20].to_vec()),
        ("64-mib", message((64 << 20) + 1, &frame, &[])),
    ];
    seeds.into_iter().map(|(name, bytes)| ("sealed_record", name.to_owned(), bytes)).collect()
}

/// Of each set of sizes: nothing, noise, zeros, a pattern, and a mixture with an odd end.
fn chunker() -> Described {
    let mixture = [3, 0xff, 0x3f, 1, 0xff, 0x0f, 8, 5, 5, b'x', 4, 0xff, 0xff, 0, 3, 0, 1, 2, 3];
    let contents: [(&str, &[u8]); 4] = [
        ("noise", &[3, 0xff, 0xff]),
        ("zeros", &[1, 0xff, 0xff]),
        ("pattern", &[12, 0xff, 0xff, b'a', b'b', b'c']),
        ("mixture", &mixture),
    ];
    (0..8u8)
        .flat_map(|sizes| contents.map(|(name, content)| (sizes, name, content)))
        .filter(|(sizes, name, _)| *sizes % 2 == 1 || matches!(*name, "noise" | "mixture"))
        .map(|(sizes, name, content)| {
            ("chunker", format!("{name}-{sizes}"), [&[sizes, 100 * (sizes & 1), sizes], content].concat())
        })
        .collect()
}

fn split() -> Described {
    let lists: [(&str, &[u8]); 3] = [
        ("empty", &[0, 0, 0]),
        ("numbers", &[0x87, 0x13, 1]),
        ("names", &[3, 0, 1, 1, b'a', 2, b'b', b'c', 0]),
    ];
    (0..5u8)
        .flat_map(|rule| lists.map(|(name, list)| (rule, name, list)))
        .map(|(rule, name, list)| ("split", format!("{name}-{rule}"), [&[rule], list].concat()))
        .collect()
}

/// Packs of both kinds with one block of five blobs, and with several.
fn pack_blocks() -> Described {
    let block = |shape: u8, len: u8| [&[shape, len, 0][..], &vec![shape; usize::from(len)]].concat();
    [0, 1]
        .into_iter()
        .flat_map(|kind: u8| {
            let several = [block(8, 40), block(24, 200), block(0x90, 7), block(0, 0)].concat();
            let one = [4 + 8, 1, 0, b'a', 1, 0, b'b', 1, 0, b'c', 0, 0, 1, 0, b'd'];
            [("one", one.to_vec()), ("several", several)].map(|(name, blocks)| {
                ("pack_blocks", format!("{name}-{kind}"), [vec![kind, 0], blocks].concat())
            })
        })
        .collect()
}

/// Segments that are honest and ones with each lie, of few entries and of some leaves.
fn segment() -> Described {
    let entries = |count: u8, run: u8| -> Vec<u8> {
        (0..count).flat_map(|n| [n.wrapping_mul(37), n, n % 3, run, 100, 0, n, 1, 5, 0]).collect()
    };
    let mut seeds = Vec::new();
    for lies in [0, 1, 2, 4, 8, 16, 32, 63] {
        let tail = [5, 0, 1, 77, 1, 0xff, 200, 3, 4, 16, 0, 255];
        for (name, entries) in [("few", entries(5, 0)), ("leaves", entries(60, 4)), ("runs", entries(3, 200))]
        {
            let seed = [&[lies, 40][..], &entries, &tail].concat();
            seeds.push(("segment", format!("{name}-{lies}"), seed));
        }
    }
    seeds
}

/// Root and fan-out pages in order, in descending order and all equal.
fn segment_pages() -> Described {
    let ids = [0, 1, 0x40, 0x7f, 0x80, 0xc0, 0xfe, 0xff];
    let page = |number: &dyn Fn(u64) -> u64| {
        let mut page: Vec<u8> = (0..510).flat_map(|slot| number(slot).to_le_bytes()).collect();
        page.resize(PAGE_PLAIN_LEN, 0);
        page
    };
    let step = u64::MAX / 1030;
    let ascending = [page(&|slot| slot * step), page(&|slot| (510 + slot) * step)].concat();
    let descending = [page(&|slot| u64::MAX - slot * step), page(&|slot| (510 - slot) * step)].concat();
    let equal = [page(&|_| 0x4040_4040_4040_4040), page(&|_| 0x4040_4040_4040_4040)].concat();
    let head = |leaves: u16, scale: u8| [&leaves.to_le_bytes()[..], &[scale, 3, 0, 2], &ids].concat();
    [("ascending", ascending), ("descending", descending), ("equal", equal)]
        .into_iter()
        .flat_map(|(name, pages)| {
            // One root page over one to four groups, and two or three root pages.
            [(0, 0, 0), (25, 0, 1), (103, 0, 2), (52, 3, 2), (103, 3, 2)].map(|(leaves, scale, count)| {
                let seed = [&head(leaves, scale)[..], &pages[..count * PAGE_PLAIN_LEN]].concat();
                ("segment_pages", format!("{name}-{leaves}-{scale}"), seed)
            })
        })
        .collect()
}

fn texts() -> Described {
    let id = "0123456789abcdef".repeat(4);
    let texts: [(&str, &str, &str); 16] = [
        ("object_key", "id", &id),
        ("object_key", "sequence", "00000000000000000042"),
        ("object_key", "too-large", "99999999999999999999"),
        ("object_key", "upper-case", &id.to_uppercase()),
        ("object_key", "above", "../config"),
        ("object_key", "not-ascii", "é0"),
        ("files_from", "lines", "/home\n# comment\n\n/srv/a b\n"),
        ("files_from", "nul", "#a\0b\nc\0\0d"),
        ("files_from", "nothing", "\n\n"),
        ("exclude", "names", "*.o\ncache\n\n/home/a/cache/b.o"),
        ("exclude", "kept", "*.o\n!x.o\n!/home/*\n\n/home/a/x.o"),
        ("exclude", "depth", "a/**/b\n/**\n**/c\n\n/a/x/y/b"),
        ("exclude", "classes", "[a-z]?.{o,obj}\n[!x]\\*\n\n/ab.obj"),
        ("exclude", "case", "*.JPG\n\n/IMG.jpg"),
        ("exclude", "broken", "[a\n{b\n\\\n\n/a"),
        ("exclude", "odd", "//./a//\n!\n..\n\n/a"),
    ];
    let bytes = |(target, name, text): (_, &str, &str)| (target, name.to_owned(), text.as_bytes().to_vec());
    texts.into_iter().map(bytes).collect()
}
