//! The part of the check that names the files and directories that damage hits. It walks the snapshots once
//! more, and only if something is lost at all.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::browse;
use crate::check::context::{Bad, Context};
use crate::check::reach::is_home;
use crate::check::trees::{self, Table};
use crate::check::{CheckReport, HitFile};
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{Chunk, ChunkList, ListRef};
use crate::format::record;
use crate::format::tree::{FileContent, Node, NodeKind};
use crate::ids::{BlobId, SnapshotId};
use crate::log::{Fold, FoldError, snapshot_record};
use crate::store::BlobReader;

/// A directory whose files were judged and whose subdirectories are being walked.
struct Frame {
    tree: BlobId,
    below: Vec<(Vec<u8>, BlobId)>,
    is_clean: bool,
}

struct Hits<'a> {
    context: &'a Context<'a>,
    reader: &'a BlobReader,
    bad: &'a Bad,
    /// Trees with nothing hit anywhere below.
    clean: HashSet<BlobId>,
    files: Vec<HitFile>,
    more: bool,
}

/// Files and directories that cannot be restored in whole, and whether there are more than are listed.
pub(super) fn find(context: &Context<'_>, fold: &Fold, reader: &BlobReader) -> (Vec<HitFile>, bool) {
    let bad = std::mem::take(&mut *context.bad());
    if bad.is_empty() || context.was_overtaken() {
        return (Vec::new(), false);
    }
    let mut hits = Hits { context, reader, bad: &bad, clean: HashSet::new(), files: Vec::new(), more: false };
    let mut entries: Vec<_> = fold.snapshots().collect();
    entries.sort_by_key(|entry| (entry.added, entry.snapshot));
    for entry in entries {
        match snapshot_record(reader.keys(), entry.snapshot, &entry.record) {
            Ok(snapshot) => hits.walk(entry.snapshot, snapshot.tree),
            // What it needs is not known.
            Err(FoldError::NewerSnapshot { .. }) => {}
            Err(_) => hits.hit(entry.snapshot, b"/"),
        }
    }
    (hits.files, hits.more)
}

impl Hits<'_> {
    fn hit(&mut self, snapshot: SnapshotId, path: &[u8]) {
        if self.files.len() < CheckReport::HIT_FILES_MAX {
            let path = if path.is_empty() { b"/" } else { path };
            self.files.push(HitFile { snapshot, path: path.to_vec() });
        } else {
            self.more = true;
        }
    }

    fn walk(&mut self, snapshot: SnapshotId, root: BlobId) {
        // Frames instead of recursion: a path may be deeper than a stack.
        let mut frames = Vec::new();
        frames.extend(self.enter(snapshot, root, b""));
        while let Some(frame) = frames.last_mut() {
            if self.more || self.context.is_over() {
                return;
            }
            if let Some((path, tree)) = frame.below.pop() {
                if !self.clean.contains(&tree) {
                    let entered = self.enter(snapshot, tree, &path);
                    match entered {
                        Some(entered) => frames.push(entered),
                        None => frame.is_clean = false,
                    }
                }
            } else if let Some(done) = frames.pop() {
                if done.is_clean {
                    self.clean.insert(done.tree);
                } else if let Some(above) = frames.last_mut() {
                    above.is_clean = false;
                }
            }
        }
    }

    /// Judges the files of a directory; `None` where the directory itself is hit.
    fn enter(&mut self, snapshot: SnapshotId, tree: BlobId, path: &[u8]) -> Option<Frame> {
        let (mut below, mut hit) = (Vec::new(), Vec::new());
        let of = |node: &Node| [path, b"/", &node.name].concat();
        let read = browse::nodes(self.reader, &tree, &mut |node| {
            match &node.kind {
                NodeKind::Directory { tree } => below.push((of(&node), *tree)),
                NodeKind::File(content) if self.is_hit(content) => hit.push(of(&node)),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        if read.is_err() {
            self.hit(snapshot, path);
            return None;
        }
        below.reverse();
        let is_clean = hit.is_empty();
        hit.iter().for_each(|path| self.hit(snapshot, path));
        Some(Frame { tree, below, is_clean })
    }

    fn is_hit(&self, content: &FileContent) -> bool {
        trees::file_table(content).map_or(true, |table| self.is_table_hit(content.depth, &table))
    }

    /// Lists nest a few levels at most.
    fn is_table_hit(&self, depth: u8, table: &Table) -> bool {
        match table {
            Table::Chunks(chunks) => chunks.iter().any(|chunk| self.is_lost(chunk)),
            Table::Lists(lists) => lists.iter().any(|list| self.is_list_hit(depth - 1, list)),
        }
    }

    fn is_list_hit(&self, depth: u8, list: &ListRef) -> bool {
        let Ok(bytes) = self.reader.read(BlobKind::Tree, &list.id) else { return true };
        let Ok(content) = record::decode::<ChunkList>(&bytes) else { return true };
        content.depth != depth
            || trees::table(depth, &content.chunks, list.bytes)
                .map_or(true, |table| self.is_table_hit(depth, &table))
    }

    fn is_lost(&self, chunk: &Chunk) -> bool {
        self.reader.index().get_all(&chunk.id).map_or(true, |locations| {
            !locations
                .iter()
                .any(|location| is_home(location, chunk) && !self.bad.is_bad(&location.pack.id, &chunk.id))
        })
    }
}
