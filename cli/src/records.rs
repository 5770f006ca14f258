//! Records of the repository as JSON, with restic's field names where it has one.

use serde_json::{Value, json};
use strongroom::crypto::keys::{BlobKind, KeySet};
use strongroom::format::chunk_list::{self, TableError};
use strongroom::format::commit::{Change, Commit};
use strongroom::format::ledger::Ledger;
use strongroom::format::note::{EXCEPTIONS_NOTE, ExceptionsNote};
use strongroom::format::pack::{Directory, DirectoryBlock};
use strongroom::format::provenance::Provenance;
use strongroom::format::record;
use strongroom::format::snapshot::{Snapshot, SnapshotSummary};
use strongroom::format::tree::{FileContent, Grain, Metadata, Node, NodeKind, Tree, TreePart};
use strongroom::ids::{LedgerId, SnapshotId};
use strongroom::log::{LogEntry, snapshot_record};

use crate::output::{Object, insert_bytes, object};
use crate::units::rfc3339;

/// A snapshot with its id.
pub fn snapshot(id: &SnapshotId, snapshot: &Snapshot) -> Object {
    let paths: Vec<_> = snapshot.paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
    let mut record = object(json!({
        "id": id,
        "short_id": id.short(),
        "time": rfc3339(snapshot.time),
        "hostname": snapshot.hostname,
        "username": snapshot.username,
        "paths": paths,
        "tags": snapshot.tags,
        "parent": snapshot.parent,
        "tree": snapshot.tree,
        "program_version": snapshot.program,
        "partial": snapshot.partial,
        "repaired": snapshot.repaired.map(|repaired| {
            json!({"original": repaired.original, "entries_lost": repaired.lost})
        }),
        "origin": snapshot.origin.map(|origin| {
            json!({"repository": origin.repository, "snapshot_id": origin.snapshot})
        }),
        "provenance": snapshot.provenance.as_ref().map(provenance),
        "excludes": snapshot.excludes,
        "summary": summary(&snapshot.summary),
    }));
    if snapshot.paths.iter().any(|path| std::str::from_utf8(path).is_err()) {
        let exact: Vec<_> = snapshot.paths.iter().map(|path| bytes("path", path)).collect();
        record.insert("paths_exact".into(), json!(exact));
    }
    record
}

/// What the plan says of a snapshot.
fn provenance(provenance: &Provenance) -> Value {
    let facts: Object = provenance.facts.iter().map(|fact| (fact.name.clone(), json!(fact.value))).collect();
    let files: Vec<_> = provenance.plan_files.iter().map(|path| String::from_utf8_lossy(path)).collect();
    json!({
        "domain": provenance.domain,
        "consistency": provenance.consistency,
        "plan": provenance.plan,
        "plan_files": files,
        "facts": facts,
    })
}

/// Counts of a backup.
pub fn summary(summary: &SnapshotSummary) -> Object {
    object(json!({
        "files_new": summary.files_new,
        "files_changed": summary.files_changed,
        "files_unmodified": summary.files_unmodified,
        "data_added": summary.bytes_added,
        "data_added_packed": summary.bytes_stored,
        "total_files_processed": summary.files,
        "total_dirs_processed": summary.directories,
        "total_bytes_processed": summary.bytes,
        "total_duration": summary.duration_ns as f64 / 1e9,
        "files_unstable": summary.unstable,
        "error_count": summary.errors,
    }))
}

fn bytes(key: &str, bytes: &[u8]) -> Object {
    let mut object = Object::new();
    insert_bytes(&mut object, key, bytes);
    object
}

/// The kind of a node in restic's words.
pub fn kind_name(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::File(_) => "file",
        NodeKind::Directory { .. } => "dir",
        NodeKind::Symlink { .. } => "symlink",
        NodeKind::CharDevice { .. } => "chardev",
        NodeKind::BlockDevice { .. } => "dev",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
    }
}

/// What a listing says of an entry. It holds no chunks: see [`tree`].
pub fn node(node: &Node) -> Object {
    let mut record = object(json!({"type": kind_name(&node.kind)}));
    insert_bytes(&mut record, "name", &node.name);
    match &node.kind {
        NodeKind::File(content) => {
            record.insert("size".into(), json!(content.size));
            if content.unstable {
                record.insert("unstable".into(), json!(true));
            }
        }
        NodeKind::Directory { tree } => {
            record.insert("subtree".into(), json!(tree));
        }
        NodeKind::Symlink { target } => insert_bytes(&mut record, "linktarget", target),
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            record.extend(object(json!({"device_major": major, "device_minor": minor})));
        }
        NodeKind::Fifo | NodeKind::Socket => {}
    }
    record.extend(metadata(&node.metadata));
    record.insert("permissions".into(), json!(crate::commands::ls::mode_string(node)));
    record
}

fn metadata(metadata: &Metadata) -> Object {
    let mut record = object(json!({
        "mode": metadata.mode,
        "uid": metadata.uid,
        "gid": metadata.gid,
        "user": metadata.user,
        "group": metadata.group,
        "mtime": rfc3339(metadata.mtime),
        "ctime": rfc3339(metadata.ctime),
        "inode": metadata.inode,
        "links": metadata.links.unwrap_or(1),
    }));
    if let Some(btime) = metadata.btime {
        record.insert("btime".into(), json!(rfc3339(btime)));
    }
    if let Some(device) = metadata.device {
        record.insert("device_id".into(), json!(device));
    }
    if metadata.flags != 0 {
        record.insert("flags".into(), json!(metadata.flags));
    }
    if !metadata.xattrs.is_empty() {
        let xattr = |xattr: &strongroom::format::tree::Xattr| {
            let mut record = bytes("name", &xattr.name);
            insert_bytes(&mut record, "value", &xattr.value);
            record
        };
        record.insert("extended_attributes".into(), metadata.xattrs.iter().map(xattr).collect());
    }
    record
}

/// A tree blob with all its entries and their chunks.
///
/// # Errors
/// [`TableError`] where a chunk table is damaged.
pub fn tree(tree: &Tree) -> Result<Object, TableError> {
    Ok(match tree {
        Tree::Nodes(nodes) => {
            let nodes: Result<Vec<_>, _> = nodes.iter().map(full_node).collect();
            object(json!({"nodes": nodes?}))
        }
        Tree::Parts(parts) => object(json!({"parts": parts.iter().map(tree_part).collect::<Vec<_>>()})),
    })
}

fn tree_part(part: &TreePart) -> Object {
    let mut record = bytes("first", &part.first);
    record.extend(object(json!({"entries": part.entries, "tree": part.tree})));
    record
}

fn full_node(entry: &Node) -> Result<Object, TableError> {
    let mut record = node(entry);
    if let NodeKind::File(content) = &entry.kind {
        let grain = content.grain.map(|grain| match grain {
            Grain::Page => "page",
            Grain::Fine => "fine",
            Grain::Medium => "medium",
            Grain::Coarse => "coarse",
        });
        let holes: Vec<_> =
            content.holes.iter().map(|hole| json!({"offset": hole.offset, "length": hole.length})).collect();
        record.extend(object(json!({
            "grain": grain,
            "chunk_depth": content.depth,
            "content": chunks(content)?,
            "holes": holes,
        })));
    }
    Ok(record)
}

fn chunks(content: &FileContent) -> Result<Vec<Value>, TableError> {
    if content.depth == 0 {
        let chunks = chunk_list::chunks(&content.chunks)?;
        return chunks.map(|chunk| chunk.map(|chunk| json!({"id": chunk.id, "length": chunk.len}))).collect();
    }
    let lists = chunk_list::lists(&content.chunks)?;
    lists.map(|list| list.map(|list| json!({"id": list.id, "bytes": list.bytes}))).collect()
}

/// The directory of a pack.
pub fn directory(directory: &Directory) -> Object {
    object(json!({"blocks": directory.blocks.iter().map(block).collect::<Vec<_>>()}))
}

fn block(block: &DirectoryBlock) -> Value {
    let blob = |blob: &strongroom::format::pack::DirectoryBlob| {
        let kind = match blob.kind {
            BlobKind::Data => "data",
            BlobKind::Tree => "tree",
            BlobKind::Snapshot => "snapshot",
        };
        json!({"id": blob.id, "type": kind, "offset": blob.offset, "length": blob.len})
    };
    json!({
        "offset": block.span.position,
        "length": block.span.sealed_len,
        "uncompressed_length": block.span.raw_len,
        "blobs": block.blobs.iter().map(blob).collect::<Vec<_>>(),
    })
}

/// A commit with its place in the log.
pub fn log_entry(entry: &LogEntry, keys: &KeySet) -> Object {
    let mut record = commit(&entry.commit, keys);
    record.extend(object(json!({"writer": entry.writer, "hash": entry.hash, "size": entry.size})));
    record
}

/// A commit.
pub fn commit(commit: &Commit, keys: &KeySet) -> Object {
    object(json!({
        "type": "commit",
        "seq": commit.seq,
        "previous": commit.previous,
        "time": rfc3339(commit.time),
        "hostname": commit.host,
        "username": commit.user,
        "program_version": commit.program,
        "changes": commit.changes.iter().map(|one| change(one, keys)).collect::<Vec<_>>(),
    }))
}

fn change(change: &Change, keys: &KeySet) -> Value {
    match change {
        Change::KeyslotAdded { keyslot, writer, label } => {
            json!({"change": "keyslot_added", "keyslot": keyslot, "writer": writer, "label": label})
        }
        Change::AppenderAdded { keyslot, writer, label } => {
            json!({"change": "appender_added", "keyslot": keyslot, "writer": writer, "label": label})
        }
        Change::KeyslotRemoved { keyslot, writer } => {
            json!({"change": "keyslot_removed", "keyslot": keyslot, "writer": writer})
        }
        Change::SnapshotAdded { snapshot: id, record } => {
            let record = snapshot_record(keys, *id, record).map(|record| snapshot(id, &record)).ok();
            json!({"change": "snapshot_added", "id": id, "snapshot": record})
        }
        Change::SnapshotForgotten { snapshot, reason } => {
            json!({"change": "snapshot_forgotten", "id": snapshot, "reason": reason})
        }
        Change::SegmentsReplaced { added, removed } => {
            json!({"change": "segments_replaced", "added": added, "removed": removed})
        }
        Change::SnapshotHeld { snapshot, reason } => {
            json!({"change": "snapshot_held", "id": snapshot, "reason": reason})
        }
        Change::SnapshotReleased { snapshot, reason } => {
            json!({"change": "snapshot_released", "id": snapshot, "reason": reason})
        }
        Change::SegmentsDropped { segments } => {
            json!({"change": "segments_dropped", "segments": segments})
        }
        Change::PacksCondemned { packs } => json!({"change": "packs_condemned", "packs": packs}),
        Change::PacksRescued { packs } => json!({"change": "packs_rescued", "packs": packs}),
        Change::PacksRemoved { packs } => json!({"change": "packs_removed", "packs": packs}),
        Change::LedgerReplaced { ledger, previous } => {
            json!({"change": "ledger_replaced", "ledger": ledger, "previous": previous})
        }
        Change::ParitySet { overhead } => json!({"change": "parity_set", "tenths_of_percent": overhead}),
        Change::ReserveSet { bytes } => json!({"change": "reserve_set", "bytes": bytes}),
        Change::Note { kind, record } => {
            let exceptions = (kind == EXCEPTIONS_NOTE).then(|| record::decode::<ExceptionsNote>(record).ok());
            let mut change = json!({"change": "note", "kind": kind, "bytes": record.len()});
            if let Some(ExceptionsNote { host, exceptions }) = exceptions.flatten() {
                change["host"] = json!(host);
                change["exceptions"] = json!(exceptions);
            }
            change
        }
    }
}

/// The verification ledger.
pub fn ledger(id: &LedgerId, size: usize, ledger: &Ledger) -> Object {
    let entries = ledger.entries().iter().map(|entry| {
        json!({
            "pack": entry.pack,
            "method": entry.method,
            "intact": entry.is_intact,
            "time": rfc3339(entry.time),
        })
    });
    object(json!({"id": id, "size": size, "verified": entries.collect::<Vec<_>>()}))
}
