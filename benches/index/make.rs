//! Synthetic repositories: real objects of every kind but for the packs' blocks, which are holes.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use serde_bytes::ByteBuf;
use strongroom::backend::{Backend, LocalBackend, ObjectKey};
use strongroom::crypto::keys::BlobKind;
use strongroom::crypto::{MessageContext, Password, SystemEntropy};
use strongroom::format::chunk_list::{Chunk, ChunkList, ListRef, push_chunk, push_list};
use strongroom::format::commit::Change;
use strongroom::format::header::ObjectKind;
use strongroom::format::pack::{self, Directory, TRAILER_LEN};
use strongroom::format::padme::padme;
use strongroom::format::record;
use strongroom::format::segment::PackEntry;
use strongroom::format::snapshot::{Snapshot, SnapshotSummary};
use strongroom::format::tree::{FileContent, Metadata, Node, NodeKind, Timestamp, Tree};
use strongroom::ids::{BlobId, SnapshotId};
use strongroom::repo::{Environment, InitOptions, Repository};
use strongroom::store::{BlobWriter, StoreOptions};

use crate::phases::{self, Stopwatch};
use crate::support::blobs::{BLOB_LEN, PACK_BLOBS, blob, directory, pack_id};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Blobs of a segment as backups make them.
const SEGMENT_BLOBS: u64 = 256 << 10;
/// Files of the directory that is really backed up.
const FILES: usize = 1000;
/// Blobs that a chunk list names, about as many as backups put into one.
const LIST_BLOBS: u64 = 512;
/// Blobs of a synthetic file: 10 GiB.
const FILE_BLOBS: u64 = 512 * LIST_BLOBS;

pub fn password() -> Password {
    Password::new(b"benchmark".to_vec())
}

pub fn environment() -> Environment {
    Environment {
        entropy: Arc::new(SystemEntropy),
        now: Arc::new(|| Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        uptime: Arc::new(std::time::Duration::default),
        host: "host".into(),
        user: "user".into(),
        program: "benchmark".into(),
    }
}

/// A repository in `dir/repo` with `count` synthetic blobs and a snapshot of `dir/source`. If they are to be `live`, another
/// snapshot needs all of them.
pub fn blobs(dir: &Path, count: u64, with_packs: bool, live: bool) -> Outcome {
    let watch = Stopwatch::start();
    let unfinished = dir.with_extension("unfinished");
    fs::create_dir_all(&unfinished)?;
    let backend = Arc::new(LocalBackend::create_repository(&unfinished.join("repo"))?);
    let repository = Repository::init(backend, &password(), &InitOptions::default(), environment())?;
    source(&unfinished.join("source"))?;
    let (mut next, mut merging) = (0, 0.0);
    while next < count {
        let end = count.min(next + SEGMENT_BLOBS);
        let mut packs = Vec::new();
        while next < end {
            let pack_end = end.min(next + PACK_BLOBS);
            let folder = with_packs.then_some(unfinished.as_path());
            packs.push(pack(&repository, folder, next, pack_end)?);
            next = pack_end;
        }
        let segment = repository.store_segment(&packs)?;
        drop(packs);
        let added = vec![segment.info];
        repository.commit(&mut |_| {
            Ok(vec![Change::SegmentsReplaced { added: added.clone(), removed: Vec::new() }])
        })?;
        let begun = Stopwatch::start();
        repository.merge_segments()?;
        merging += begun.processor();
    }
    if live {
        need(&repository, count)?;
    }
    drop(repository);
    fs::rename(&unfinished, dir)?;
    phases::back_up(dir)?;
    let written = fs::read_dir(dir.join("repo/index"))?.map(|entry| Ok(entry?.metadata()?.len()));
    let written = written.collect::<std::io::Result<Vec<u64>>>()?;
    println!(
        "made {count} blobs in {:.1} s, {:.1} s of processor, {merging:.1} s of those merging; {} segments, {:.2} bytes a blob",
        watch.wall(),
        watch.processor(),
        written.len(),
        written.iter().sum::<u64>() as f64 / count as f64,
    );
    phases::memory("make");
    Ok(())
}

/// Adds a snapshot of directories with one large file each, that need blobs up to `count`.
fn need(repository: &Repository, count: u64) -> Outcome {
    let store = repository.pack_store(ObjectKind::MetadataPack, &StoreOptions::new(3, 1, 160 << 20));
    let mut writer = store.writer();
    let put = |writer: &mut BlobWriter, bytes: &[u8]| -> Outcome<BlobId> {
        let id = repository.keys().blob_id(BlobKind::Tree, bytes);
        writer.put(BlobKind::Tree, id, bytes, true)?;
        Ok(id)
    };
    let mut root = Vec::new();
    for (number, first) in (0..count).step_by(FILE_BLOBS as usize).enumerate() {
        let blobs = first..count.min(first + FILE_BLOBS);
        let file = node("file", NodeKind::File(file(blobs, &mut |list| put(&mut writer, list))?));
        let tree = put(&mut writer, &record::encode(&Tree::Nodes(vec![file])))?;
        root.push(node(&format!("{number:06}"), NodeKind::Directory { tree }));
    }
    let tree = put(&mut writer, &record::encode(&Tree::Nodes(root)))?;
    writer.flush()?;
    let segment = repository.store_segment(&store.finish()?)?;
    let added = vec![
        Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() },
        added(repository, &snapshot(tree, 0)),
    ];
    repository.commit(&mut |_| Ok(added.clone()))?;
    Ok(())
}

/// A file of these blobs, whose chunk lists are handed to `put`.
fn file(blobs: Range<u64>, put: &mut dyn FnMut(&[u8]) -> Outcome<BlobId>) -> Outcome<FileContent> {
    let (mut lists, size) = (Vec::new(), (blobs.end - blobs.start) * u64::from(BLOB_LEN));
    for first in blobs.clone().step_by(LIST_BLOBS as usize) {
        let listed = first..blobs.end.min(first + LIST_BLOBS);
        let bytes = (listed.end - listed.start) * u64::from(BLOB_LEN);
        let mut chunks = Vec::new();
        listed.for_each(|number| push_chunk(&mut chunks, Chunk { id: blob(number), len: BLOB_LEN }));
        let id = put(&record::encode(&ChunkList { depth: 0, chunks: ByteBuf::from(chunks) }))?;
        push_list(&mut lists, ListRef { id, bytes });
    }
    Ok(FileContent { size, depth: 1, chunks: ByteBuf::from(lists), ..FileContent::default() })
}

fn node(name: &str, kind: NodeKind) -> Node {
    Node { name: ByteBuf::from(name), kind, metadata: Metadata { mode: 0o644, ..Metadata::default() } }
}

/// A directory of small files.
fn source(dir: &Path) -> Outcome {
    for n in 0..FILES {
        let parent = dir.join((n % 10).to_string());
        fs::create_dir_all(&parent)?;
        fs::write(parent.join(n.to_string()), format!("file {n}\n").repeat(100))?;
    }
    Ok(())
}

/// A pack of blobs `from..to`: header, directory and trailer around a hole where blocks would be. Stored if there is a
/// directory for it.
fn pack(repository: &Repository, dir: Option<&Path>, from: u64, to: u64) -> Outcome<(PackEntry, Directory)> {
    let (header, cipher) = pack::start(ObjectKind::DataPack, &repository.sealer());
    let (directory, blocks_end) = directory(from..to);
    let at = u64::from(blocks_end);
    let mut message = directory.encode();
    let len = message.len() as u64;
    cipher.seal(MessageContext { position: at, raw_len: len }, &mut message);
    let size = padme(at + message.len() as u64 + TRAILER_LEN as u64);
    let mut trailer = [at.to_le_bytes(), len.to_le_bytes()].concat();
    let trailer_at = size - TRAILER_LEN as u64;
    cipher.seal(MessageContext { position: trailer_at, raw_len: 16 }, &mut trailer);

    let id = pack_id(from);
    if let Some(dir) = dir {
        let path = dir.join("repo").join(ObjectKey::pack(&id).as_str());
        fs::create_dir_all(path.parent().expect("a pack lies in a folder"))?;
        let mut file = File::create(path)?;
        file.write_all(&header.encode())?;
        file.write_all_at(&message, at)?;
        file.write_all_at(&trailer, trailer_at)?;
    }
    Ok((PackEntry { id, header, size, blobs: (to - from) as u32 }, directory))
}

/// A repository in `dir/repo` whose log adds `count` snapshots, one by one.
pub fn log(dir: &Path, count: u64) -> Outcome {
    let watch = Stopwatch::start();
    let unfinished = dir.with_extension("unfinished");
    fs::create_dir_all(&unfinished)?;
    let backend = Arc::new(LocalBackend::create_repository(&unfinished.join("repo"))?);
    let repository = Repository::init(
        Arc::clone(&backend) as Arc<dyn Backend>,
        &password(),
        &InitOptions::default(),
        environment(),
    )?;
    for n in 0..count {
        let added = added(&repository, &snapshot(blob(n), n));
        repository.commit(&mut |_| Ok(vec![added.clone()]))?;
    }
    println!("made {count} snapshots in {:.1} s, {:.1} s of processor", watch.wall(), watch.processor());
    phases::memory("make");
    fs::rename(unfinished, dir)?;
    Ok(())
}

/// What a commit says that adds this snapshot.
fn added(repository: &Repository, snapshot: &Snapshot) -> Change {
    let record = record::encode(snapshot);
    Change::SnapshotAdded {
        snapshot: SnapshotId::new(repository.keys().blob_id(BlobKind::Snapshot, &record)),
        record: ByteBuf::from(record),
    }
}

/// The record of snapshot `n`, of this tree.
fn snapshot(tree: BlobId, n: u64) -> Snapshot {
    Snapshot {
        time: Timestamp { seconds: 1_700_000_000 + n as i64, nanos: 0 },
        hostname: "host".into(),
        username: "user".into(),
        paths: vec![ByteBuf::from("/home"), ByteBuf::from("/var/lib")],
        tree,
        tags: Vec::new(),
        parent: None,
        partial: false,
        repaired: None,
        origin: None,
        provenance: None,
        excludes: vec!["*.tmp".into()],
        program: "benchmark".into(),
        summary: SnapshotSummary { files: 150_000 + n, ..SnapshotSummary::default() },
    }
}
