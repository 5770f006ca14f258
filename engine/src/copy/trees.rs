//! Trees with the target's names in place of the source's, stored from the leaves up.

use std::vec;

use crate::backup::ChunkTable;
use crate::browse::{BrowseError, Pieces};
use crate::check::trees::{self, RuleError, Table};
use crate::chunk::split::Splitter;
use crate::copy::Stop;
use crate::copy::content::Copier;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{Chunk, ChunkList, ListRef, push_chunk};
use crate::format::record;
use crate::format::tree::{FileContent, Node, NodeKind};
use crate::ids::BlobId;
use crate::repair::is_lost;
use crate::store::{BlobReader, ReadError, TreeBuilder, TreeEntry};

/// Subdirectories of one directory that wait at a time: it is read again for more.
const WAITING_MAX: usize = 64 << 10;
/// Bytes of a chunk table that are handed over at once.
const TABLE_PART_LEN: usize = 36 << 10;

/// What cannot be read is lost, or the storage fails.
pub(super) fn unreadable(error: ReadError) -> Stop {
    if is_lost(&error) { Stop::Lost(error.to_string()) } else { Stop::Failed(super::CopyError::Read(error)) }
}

pub(super) fn unbrowsable(error: BrowseError) -> Stop {
    match error {
        BrowseError::Read(error) => unreadable(error),
        error => Stop::Lost(error.to_string()),
    }
}

/// The nodes of a directory, one after the other.
pub(super) struct Nodes {
    pieces: Pieces,
    nodes: vec::IntoIter<Node>,
}

impl Nodes {
    pub fn new(tree: BlobId) -> Self {
        Self { pieces: Pieces::new(tree), nodes: Vec::new().into_iter() }
    }

    pub fn next(&mut self, reader: &BlobReader) -> Result<Option<Node>, Stop> {
        loop {
            if let Some(node) = self.nodes.next() {
                return Ok(Some(node));
            }
            let Some(piece) = self.pieces.next(reader) else { return Ok(None) };
            self.nodes = piece.map_err(unbrowsable)?.nodes.into_iter();
        }
    }
}

/// The chunks of a file, one after the other, however long its table is.
pub(super) struct Chunks {
    chunks: vec::IntoIter<Chunk>,
    /// Lists that are still to be read, of each depth.
    lists: Vec<(u8, vec::IntoIter<ListRef>)>,
}

impl Chunks {
    pub fn of(content: &FileContent) -> Result<Self, Stop> {
        let mut chunks = Self { chunks: Vec::new().into_iter(), lists: Vec::new() };
        chunks.take(content.depth, trees::file_table(content))?;
        Ok(chunks)
    }

    fn take(&mut self, depth: u8, table: Result<Table, RuleError>) -> Result<(), Stop> {
        match table.map_err(|error| Stop::Lost(format!("a chunk table is damaged: {error}")))? {
            Table::Chunks(chunks) => self.chunks = chunks.into_iter(),
            Table::Lists(lists) => self.lists.push((depth, lists.into_iter())),
        }
        Ok(())
    }

    pub fn next(&mut self, reader: &BlobReader) -> Result<Option<Chunk>, Stop> {
        loop {
            if let Some(chunk) = self.chunks.next() {
                return Ok(Some(chunk));
            }
            let Some((depth, lists)) = self.lists.last_mut() else { return Ok(None) };
            let depth = *depth - 1;
            let Some(list) = lists.next() else {
                self.lists.pop();
                continue;
            };
            let bytes = reader.read(BlobKind::Tree, &list.id).map_err(unreadable)?;
            let damaged = |what: String| Stop::Lost(format!("chunk list {} is damaged: {what}", list.id));
            let content: ChunkList = record::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
            if content.depth != depth {
                return Err(damaged(format!("depth {}, expected {depth}", content.depth)));
            }
            self.take(depth, trees::table(depth, &content.chunks, list.bytes))?;
        }
    }
}

/// A node that belongs to the tree being made.
struct Own(Node);

impl TreeEntry for Own {
    fn node(&self) -> &Node {
        &self.0
    }
}

/// Stores everything below a tree of the source under the names it has in the target; returns that of the tree.
pub(super) fn rewrite(
    reader: &BlobReader,
    copier: &mut Copier<'_, '_>,
    root: BlobId,
) -> Result<BlobId, Stop> {
    // Waiting trees instead of recursion: a path may be deeper than a stack.
    let mut waiting = vec![root];
    while let Some(tree) = waiting.last().copied() {
        if copier.renames.get(&tree)?.is_none() {
            copier.pause()?;
            let before = waiting.len();
            await_below(reader, copier, tree, &mut waiting)?;
            if waiting.len() > before {
                continue;
            }
            let new = rewrite_one(reader, copier, tree)?;
            copier.renames.insert(&tree, &new)?;
        }
        waiting.pop();
    }
    copier.renames.get(&root)?.ok_or_else(|| Stop::Lost(format!("tree {root} cannot be named anew")))
}

/// Adds the subdirectories that are not stored yet.
fn await_below(
    reader: &BlobReader,
    copier: &Copier<'_, '_>,
    tree: BlobId,
    waiting: &mut Vec<BlobId>,
) -> Result<(), Stop> {
    let mut nodes = Nodes::new(tree);
    let full = waiting.len() + WAITING_MAX;
    while let Some(node) = nodes.next(reader)? {
        if let NodeKind::Directory { tree } = node.kind
            && copier.renames.get(&tree)?.is_none()
        {
            waiting.push(tree);
            if waiting.len() == full {
                break;
            }
        }
    }
    Ok(())
}

/// Stores a directory of which all subdirectories and chunks are stored.
fn rewrite_one(reader: &BlobReader, copier: &mut Copier<'_, '_>, tree: BlobId) -> Result<BlobId, Stop> {
    let keys = copier.target_keys();
    let splitter = Splitter::new(&keys);
    let mut nodes = Nodes::new(tree);
    let mut builder = TreeBuilder::default();
    while let Some(mut node) = nodes.next(reader)? {
        match &mut node.kind {
            NodeKind::File(content) => {
                (content.depth, content.chunks) = {
                    let (depth, table) = rewrite_table(reader, copier, &splitter, content)?;
                    (depth, table.into())
                };
            }
            NodeKind::Directory { tree } => {
                let new = copier.renames.get(tree)?;
                *tree = new.ok_or_else(|| Stop::Lost(format!("tree {tree} is not stored")))?;
            }
            _ => {}
        }
        builder.push(Own(node), &splitter, &mut |bytes| copier.put_tree(bytes))?;
    }
    builder.finish(&splitter, &mut |bytes| copier.put_tree(bytes))
}

fn rewrite_table(
    reader: &BlobReader,
    copier: &mut Copier<'_, '_>,
    splitter: &Splitter<'_>,
    content: &FileContent,
) -> Result<(u8, Vec<u8>), Stop> {
    let mut chunks = Chunks::of(content)?;
    let mut table = ChunkTable::default();
    let mut part = Vec::new();
    while let Some(chunk) = chunks.next(reader)? {
        let new = copier.renames.get(&chunk.id)?;
        let id = new.ok_or_else(|| Stop::Lost(format!("chunk {} cannot be had", chunk.id)))?;
        push_chunk(&mut part, Chunk { id, len: chunk.len });
        if part.len() >= TABLE_PART_LEN {
            table.append(&part, splitter, &mut |bytes| copier.put_tree(bytes))?;
            part.clear();
        }
    }
    table.append(&part, splitter, &mut |bytes| copier.put_tree(bytes))?;
    table.finish(splitter, &mut |bytes| copier.put_tree(bytes))
}
