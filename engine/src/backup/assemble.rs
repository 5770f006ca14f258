//! From nodes to trees: directories are collected while their files are still on the way, and stored from the
//! bottom up as each becomes complete.

use std::collections::HashMap;

use serde_bytes::ByteBuf;

use crate::backup::chunk_table::ChunkTable;
use crate::backup::links::LinkKey;
use crate::backup::options::BackupError;
use crate::backup::session::Session;
use crate::backup::workers::{Batch, FileToken};
use crate::chunk::split::Splitter;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::CHUNK_ENTRY_LEN;
use crate::format::tree::{FileContent, Metadata, Node, NodeKind};
use crate::ids::BlobId;
use crate::store::{BlobWriter, put_tree};

/// Names a directory that is being collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FrameId(u64);

/// Where a directory's node goes when its tree is stored.
#[derive(Debug)]
pub(super) struct Place {
    pub parent: FrameId,
    pub slot: usize,
}

/// One entry of a directory that is being collected.
#[derive(Debug)]
enum Slot {
    /// As in parent snapshot number 0, 1, …: the node at this index.
    Reused {
        parent: usize,
        index: usize,
    },
    Ready(Box<Node>),
    /// A file or directory that is not complete yet, or an entry that turned out not to be stored.
    Empty,
}

/// A directory that is being collected.
#[derive(Debug)]
pub(super) struct Frame {
    /// Name and metadata of the directory's own node; none for the root.
    own: Option<(ByteBuf, Metadata)>,
    place: Option<Place>,
    slots: Vec<Slot>,
    waiting: usize,
    listed: bool,
    /// Of a directory on the way to what was asked for: the slots of others that are.
    ways: Option<Vec<usize>>,
    /// The same directory in the parent snapshots.
    pub parents: Vec<ParentDir>,
}

impl Frame {
    /// Takes an entry over from a parent snapshot; the node is what it is taken over as.
    pub fn reuse(&mut self, parent: usize, index: usize) -> &Node {
        self.slots.push(Slot::Reused { parent, index });
        &self.parents[parent].nodes[index]
    }
}

/// A directory of a parent snapshot.
#[derive(Debug, Default)]
pub(super) struct ParentDir {
    pub tree: Option<BlobId>,
    pub nodes: Vec<Node>,
}

impl ParentDir {
    /// Index of the node with this name.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.name.as_slice().cmp(name)).ok()
    }
}

/// A file whose chunks are on their way.
struct OpenFile {
    frame: FrameId,
    slot: usize,
    /// The node with everything but the chunks.
    node: Option<Box<Node>>,
    table: ChunkTable,
    next_part: u32,
    early: HashMap<u32, Vec<u8>>,
    parts_total: Option<u32>,
    /// Whether the file has other names that want to know its node.
    link: Option<LinkKey>,
}

/// Collects directories and files and stores their trees.
pub(super) struct Assembler {
    frames: HashMap<FrameId, Frame>,
    files: HashMap<FileToken, OpenFile>,
    next_id: u64,
    writer: BlobWriter,
    root: Option<BlobId>,
    /// Whether what was asked for is as in the first parent snapshot; none before it is known of any.
    roots_same: Option<bool>,
    /// Files with other names that were completed.
    pub linked: Vec<(LinkKey, Node)>,
}

impl Assembler {
    pub fn new(writer: BlobWriter) -> Self {
        Self {
            frames: HashMap::new(),
            files: HashMap::new(),
            next_id: 0,
            writer,
            root: None,
            roots_same: None,
            linked: Vec::new(),
        }
    }

    /// Whether what was asked for is as in the first parent snapshot, whatever became of the directories above it.
    pub fn is_unchanged(&self) -> bool {
        self.roots_same == Some(true)
    }

    /// Says that a directory is only on the way to what was asked for.
    pub fn mark_way(&mut self, frame: FrameId) {
        self.frame(frame).ways = Some(Vec::new());
    }

    pub fn writer(&mut self) -> &mut BlobWriter {
        &mut self.writer
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The root's tree, once everything is stored.
    pub fn root(&self) -> Option<BlobId> {
        self.root
    }

    /// Begins a directory. `own` and `place` are absent for the root only.
    pub fn begin_dir(
        &mut self,
        own: Option<(ByteBuf, Metadata)>,
        place: Option<Place>,
        parents: Vec<ParentDir>,
    ) -> FrameId {
        let id = FrameId(self.next_id());
        if let Some(place) = &place {
            self.frame(place.parent).waiting += 1;
        }
        let frame = Frame { own, place, slots: Vec::new(), waiting: 0, listed: false, ways: None, parents };
        self.frames.insert(id, frame);
        id
    }

    pub fn frame(&mut self, id: FrameId) -> &mut Frame {
        self.frames.get_mut(&id).expect("a directory stays until it is complete, and nobody asks after that")
    }

    /// Reserves the next place in name order.
    pub fn reserve(&mut self, frame: FrameId) -> usize {
        let slots = &mut self.frame(frame).slots;
        slots.push(Slot::Empty);
        slots.len() - 1
    }

    /// Says that a file will come for a reserved place.
    pub fn expect(&mut self, frame: FrameId) {
        self.frame(frame).waiting += 1;
    }

    /// The file expected for a place is there, or will never be.
    pub fn complete(
        &mut self,
        session: &Session<'_>,
        id: FrameId,
        slot: usize,
        node: Option<Box<Node>>,
    ) -> Result<(), BackupError> {
        let frame = self.frame(id);
        if let Some(node) = node {
            frame.slots[slot] = Slot::Ready(node);
        }
        frame.waiting -= 1;
        self.settle_dir(session, id)
    }

    /// Fills a reserved place with a complete node.
    pub fn put(&mut self, frame: FrameId, slot: usize, node: Node) {
        self.frame(frame).slots[slot] = Slot::Ready(Box::new(node));
    }

    /// What was expected for a place came another way, or will never be.
    pub fn release(&mut self, session: &Session<'_>, id: FrameId) -> Result<(), BackupError> {
        self.frame(id).waiting -= 1;
        self.settle_dir(session, id)
    }

    /// Begins a file in a reserved place.
    pub fn begin_file(&mut self, frame: FrameId, slot: usize, link: Option<LinkKey>) -> FileToken {
        let token = FileToken(self.next_id());
        self.frame(frame).waiting += 1;
        let file = OpenFile {
            frame,
            slot,
            node: None,
            table: ChunkTable::default(),
            next_part: 0,
            early: HashMap::new(),
            parts_total: None,
            link,
        };
        self.files.insert(token, file);
        token
    }

    /// Says that all parts of a file are on their way and what its node is, apart from the chunks.
    pub fn end_file(
        &mut self,
        session: &Session<'_>,
        token: FileToken,
        parts: u32,
        node: Node,
    ) -> Result<(), BackupError> {
        if let Some(file) = self.files.get_mut(&token) {
            file.parts_total = Some(parts);
            file.node = Some(Box::new(node));
        }
        self.settle_file(session, token)
    }

    /// Gives a file up: its chunks, wherever they are, lead nowhere. Its directory is still being listed.
    pub fn abandon(&mut self, token: FileToken) {
        if let Some(file) = self.files.remove(&token) {
            self.frame(file.frame).waiting -= 1;
        }
    }

    /// Takes the chunk tables of a batch over.
    pub fn accept(&mut self, session: &Session<'_>, batch: &Batch) -> Result<(), BackupError> {
        let mut table = batch.table.as_slice();
        for part in &batch.parts {
            let (entries, rest) = table.split_at(part.chunks as usize * CHUNK_ENTRY_LEN);
            table = rest;
            let Some(file) = self.files.get_mut(&part.file) else { continue };
            if part.number != file.next_part {
                file.early.insert(part.number, entries.to_vec());
                continue;
            }
            let splitter = Splitter::new(session.repository.keys());
            let writer = &mut self.writer;
            let mut store = |bytes: &[u8]| session.put(writer, BlobKind::Tree, bytes);
            file.table.append(entries, &splitter, &mut store)?;
            file.next_part += 1;
            while let Some(entries) = file.early.remove(&file.next_part) {
                file.table.append(&entries, &splitter, &mut store)?;
                file.next_part += 1;
            }
            self.settle_file(session, part.file)?;
        }
        Ok(())
    }

    /// Puts a file's node in its place once all its parts are there.
    fn settle_file(&mut self, session: &Session<'_>, token: FileToken) -> Result<(), BackupError> {
        if self.files.get(&token).is_none_or(|file| file.parts_total != Some(file.next_part)) {
            return Ok(());
        }
        let Some(file) = self.files.remove(&token) else { return Ok(()) };
        if let Some(mut node) = file.node {
            let splitter = Splitter::new(session.repository.keys());
            let writer = &mut self.writer;
            let mut store = |bytes: &[u8]| session.put(writer, BlobKind::Tree, bytes);
            let (depth, table) = file.table.finish(&splitter, &mut store)?;
            if let NodeKind::File(content) = &mut node.kind {
                content.depth = depth;
                content.chunks = ByteBuf::from(table);
            }
            if let Some(link) = file.link {
                self.linked.push((link, (*node).clone()));
            }
            self.frame(file.frame).slots[file.slot] = Slot::Ready(node);
        }
        self.frame(file.frame).waiting -= 1;
        self.settle_dir(session, file.frame)
    }

    /// Says that all entries of a directory were begun.
    pub fn end_dir(&mut self, session: &Session<'_>, id: FrameId) -> Result<(), BackupError> {
        self.frame(id).listed = true;
        self.settle_dir(session, id)
    }

    /// Stores a directory's tree once all its entries are there, and goes on with its parent.
    fn settle_dir(&mut self, session: &Session<'_>, mut id: FrameId) -> Result<(), BackupError> {
        loop {
            let frame = self.frame(id);
            if !frame.listed || frame.waiting > 0 {
                return Ok(());
            }
            let Some(mut frame) = self.frames.remove(&id) else { return Ok(()) };
            let tree = self.store_tree(session, &frame)?;
            if let Some(ways) = &frame.ways {
                self.roots_same = Some(self.roots_same != Some(false) && roots_are_same(&frame, ways));
            }
            let (Some((name, metadata)), Some(place)) = (frame.own.take(), frame.place.take()) else {
                self.root = Some(tree);
                return Ok(());
            };
            let kind = NodeKind::Directory { tree };
            let is_way = frame.ways.is_some();
            let parent = self.frame(place.parent);
            if let Some(ways) = parent.ways.as_mut().filter(|_| is_way) {
                ways.push(place.slot);
            }
            parent.slots[place.slot] = Slot::Ready(Box::new(Node { name, kind, metadata }));
            parent.waiting -= 1;
            id = place.parent;
        }
    }

    fn store_tree(&mut self, session: &Session<'_>, frame: &Frame) -> Result<BlobId, BackupError> {
        if let Some(tree) = unchanged_tree(frame) {
            return Ok(tree);
        }
        let nodes: Vec<&Node> = frame.slots.iter().filter_map(|slot| node_of(frame, slot)).collect();
        self.store_nodes(session, &nodes)
    }

    fn store_nodes(&mut self, session: &Session<'_>, nodes: &[&Node]) -> Result<BlobId, BackupError> {
        let splitter = Splitter::new(session.repository.keys());
        let writer = &mut self.writer;
        put_tree(&splitter, nodes, &mut |bytes| session.put(writer, BlobKind::Tree, bytes))
    }

    /// Stores the tree of everything complete so far, for a partial snapshot. `stack` are the directories that are
    /// being listed, outermost first; no file may be on its way.
    pub fn partial_root(
        &mut self,
        session: &Session<'_>,
        stack: &[FrameId],
    ) -> Result<Option<BlobId>, BackupError> {
        debug_assert!(self.files.is_empty(), "a partial snapshot is taken when all jobs are done");
        let mut child: Option<(usize, Node)> = None;
        for id in stack.iter().rev() {
            let Some(frame) = self.frames.remove(id) else { continue };
            let nodes: Vec<&Node> = frame
                .slots
                .iter()
                .enumerate()
                .filter_map(|(number, slot)| match &child {
                    Some((slot, node)) if *slot == number => Some(node),
                    _ => node_of(&frame, slot),
                })
                .collect();
            let stored = self.store_nodes(session, &nodes);
            let tree = match stored {
                Ok(tree) => tree,
                Err(error) => {
                    self.frames.insert(*id, frame);
                    return Err(error);
                }
            };
            child = match (&frame.own, &frame.place) {
                (Some((name, metadata)), Some(place)) => {
                    let kind = NodeKind::Directory { tree };
                    Some((place.slot, Node { name: name.clone(), kind, metadata: metadata.clone() }))
                }
                _ => {
                    self.frames.insert(*id, frame);
                    return Ok(Some(tree));
                }
            };
            self.frames.insert(*id, frame);
        }
        Ok(None)
    }
}

fn node_of<'f>(frame: &'f Frame, slot: &'f Slot) -> Option<&'f Node> {
    match slot {
        Slot::Reused { parent, index } => frame.parents.get(*parent)?.nodes.get(*index),
        Slot::Ready(node) => Some(node),
        Slot::Empty => None,
    }
}

/// Whether all entries of a directory that were asked for are in the first parent snapshot as they are now.
fn roots_are_same(frame: &Frame, ways: &[usize]) -> bool {
    let Some(parent) = frame.parents.first() else { return false };
    frame.slots.iter().enumerate().filter(|(number, _)| !ways.contains(number)).all(|(_, slot)| {
        let Some(node) = node_of(frame, slot) else { return false };
        parent.find(&node.name).is_some_and(|index| parent.nodes[index] == *node)
    })
}

/// The tree in the first parent snapshot, if nothing differs from it.
fn unchanged_tree(frame: &Frame) -> Option<BlobId> {
    let parent = frame.parents.first()?;
    let tree = parent.tree?;
    let mut kept = 0;
    for slot in &frame.slots {
        match slot {
            Slot::Reused { parent: 0, index } if *index == kept => {}
            Slot::Ready(node) if parent.nodes.get(kept) == Some(node) => {}
            Slot::Empty => continue,
            _ => return None,
        }
        kept += 1;
    }
    (kept == parent.nodes.len()).then_some(tree)
}

/// A node of a file without its chunks.
pub(super) fn file_node(name: &[u8], content: FileContent, metadata: Metadata) -> Node {
    Node { name: ByteBuf::from(name), kind: NodeKind::File(content), metadata }
}
