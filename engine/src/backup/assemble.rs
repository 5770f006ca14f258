//! From nodes to trees: directories are collected while their files are still on the way, and stored from the
//! bottom up as each becomes complete; very large ones piece by piece.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use serde_bytes::ByteBuf;

use crate::backup::chunk_table::ChunkTable;
use crate::backup::known::Known;
use crate::backup::links::LinkKey;
use crate::backup::options::BackupError;
use crate::backup::roots;
use crate::backup::session::Session;
use crate::backup::workers::{Batch, FileToken};
use crate::chunk::split::Splitter;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::CHUNK_ENTRY_LEN;
use crate::format::tree::{FileContent, Metadata, Node, NodeKind};
use crate::format::tree_rules::TreeRuleError;
use crate::ids::BlobId;
use crate::store::{BlobWriter, TreeBuilder, TreeEntry};

/// Names a directory that is being collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FrameId(u64);

/// Where a directory's node goes when its tree is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub parent: FrameId,
    pub slot: usize,
}

/// An entry that is complete.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// As in a parent snapshot.
    Known(Known),
    New(Box<Node>),
}

impl TreeEntry for Entry {
    fn node(&self) -> &Node {
        match self {
            Self::Known(known) => known.node(),
            Self::New(node) => node,
        }
    }

    fn stored(entries: &[Self]) -> Option<BlobId> {
        Known::whole_piece(entries.iter().map(|entry| match entry {
            Self::Known(known) => Some(known),
            Self::New(_) => None,
        }))
    }
}

/// The place of an entry in name order.
#[derive(Debug)]
struct Slot {
    /// How many have still to say what becomes of it. With the last one gone, it is as it is.
    holds: u32,
    content: Content,
    /// Of a directory on the way to what was asked for: the entry is another one.
    is_way: bool,
}

#[derive(Debug)]
enum Content {
    /// Nothing; it may be known how the entry is in a parent snapshot.
    Absent(Option<Known>),
    Complete(Entry),
}

/// A directory that is being collected.
#[derive(Debug)]
struct Frame {
    /// Name and metadata of the directory's own node; none for the root.
    own: Option<(ByteBuf, Metadata)>,
    place: Option<Place>,
    /// Entries from the first one on that is not complete.
    slots: VecDeque<Slot>,
    /// Number of the first of them.
    first: usize,
    /// The complete ones before them.
    tree: TreeBuilder<Entry>,
    listed: bool,
    /// Whether the directory is only on the way to what was asked for.
    is_way: bool,
}

impl Frame {
    fn slot(&mut self, number: usize) -> &mut Slot {
        self.slots.get_mut(number - self.first).expect("a slot stays until nobody holds it")
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

/// Why a directory that somebody names is there.
const FRAME_STAYS: &str = "a directory stays until it is complete, and nobody asks after that";

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
    /// Entries left out because their nodes break a rule.
    pub refused: Vec<(PathBuf, TreeRuleError)>,
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
            refused: Vec::new(),
        }
    }

    /// Whether what was asked for is as in the first parent snapshot, whatever became of the directories above it.
    pub fn is_unchanged(&self) -> bool {
        self.roots_same == Some(true)
    }

    /// Says that a directory is only on the way to what was asked for.
    pub fn mark_way(&mut self, id: FrameId) {
        let frame = self.frame(id);
        frame.is_way = true;
        if let Some(Place { parent, slot }) = frame.place {
            self.slot(parent, slot).is_way = true;
        }
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

    /// Begins a directory. `own` and `place` are absent for the root only. Who has reserved the place leaves it to the directory.
    pub fn begin_dir(&mut self, own: Option<(ByteBuf, Metadata)>, place: Option<Place>) -> FrameId {
        let id = FrameId(self.next_id());
        let frame = Frame {
            own,
            place,
            slots: VecDeque::new(),
            first: 0,
            tree: TreeBuilder::default(),
            listed: false,
            is_way: false,
        };
        self.frames.insert(id, frame);
        id
    }

    fn frame(&mut self, id: FrameId) -> &mut Frame {
        self.frames.get_mut(&id).expect(FRAME_STAYS)
    }

    fn slot(&mut self, frame: FrameId, slot: usize) -> &mut Slot {
        self.frame(frame).slot(slot)
    }

    /// Entries of a directory that wait for one before them, and that one.
    pub fn waiting(&mut self, frame: FrameId) -> usize {
        self.frame(frame).slots.len()
    }

    /// Takes the next entry over from a parent snapshot.
    pub fn reuse(&mut self, session: &Session<'_>, id: FrameId, known: Known) -> Result<(), BackupError> {
        let entry = Entry::Known(known);
        let Self { frames, writer, .. } = self;
        let frame = frames.get_mut(&id).expect(FRAME_STAYS);
        if frame.slots.is_empty() && !frame.is_way {
            let splitter = Splitter::new(session.repository.keys());
            let mut put = |bytes: &[u8]| session.put(writer, BlobKind::Tree, bytes);
            return frame.tree.push(entry, &splitter, &mut put);
        }
        frame.slots.push_back(Slot { holds: 0, content: Content::Complete(entry), is_way: false });
        self.settle_dir(session, id)
    }

    /// Reserves the next place in name order for an entry that parent snapshots may have. Who does so holds it.
    pub fn reserve(&mut self, frame: FrameId, known: Option<Known>) -> usize {
        let frame = self.frame(frame);
        frame.slots.push_back(Slot { holds: 1, content: Content::Absent(known), is_way: false });
        frame.first + frame.slots.len() - 1
    }

    /// Fills a place that is held with a complete node. One that breaks a rule is left out: with it nobody could read the
    /// directory.
    pub fn put(&mut self, frame: FrameId, slot: usize, node: Box<Node>) {
        if let Err(error) = node.validate() {
            let path = roots::join(&self.path(frame), &node.name);
            self.refused.push((path, error));
            return;
        }
        let content = &mut self.slot(frame, slot).content;
        let entry = match std::mem::replace(content, Content::Absent(None)) {
            Content::Absent(Some(known)) if *known.node() == *node => Entry::Known(known),
            _ => Entry::New(node),
        };
        *content = Content::Complete(entry);
    }

    /// Lets go of a place, whatever is there now.
    pub fn release(&mut self, session: &Session<'_>, id: FrameId, slot: usize) -> Result<(), BackupError> {
        self.slot(id, slot).holds -= 1;
        self.settle_dir(session, id)
    }

    /// Lets go of a place, for which there is this node, or will never be one.
    pub fn complete(
        &mut self,
        session: &Session<'_>,
        id: FrameId,
        slot: usize,
        node: Option<Box<Node>>,
    ) -> Result<(), BackupError> {
        if let Some(node) = node {
            self.put(id, slot, node);
        }
        self.release(session, id, slot)
    }

    /// Path of a directory that is being collected.
    fn path(&self, id: FrameId) -> PathBuf {
        let mut names = Vec::new();
        let mut next = self.frames.get(&id);
        while let Some(frame) = next {
            names.extend(frame.own.as_ref().map(|(name, _)| name));
            next = frame.place.as_ref().and_then(|place| self.frames.get(&place.parent));
        }
        names.iter().rev().fold(Path::new("/").to_owned(), |path, name| roots::join(&path, name))
    }

    /// Begins a file in a place that is held, and holds it as well.
    pub fn begin_file(&mut self, frame: FrameId, slot: usize, link: Option<LinkKey>) -> FileToken {
        let token = FileToken(self.next_id());
        self.slot(frame, slot).holds += 1;
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

    /// Gives a file up: its chunks, wherever they are, lead nowhere. Its place is still held by who began it.
    pub fn abandon(&mut self, token: FileToken) {
        if let Some(file) = self.files.remove(&token) {
            self.slot(file.frame, file.slot).holds -= 1;
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
            self.put(file.frame, file.slot, node);
        }
        self.release(session, file.frame, file.slot)
    }

    /// Says that all entries of a directory were begun.
    pub fn end_dir(&mut self, session: &Session<'_>, id: FrameId) -> Result<(), BackupError> {
        self.frame(id).listed = true;
        self.settle_dir(session, id)
    }

    /// Takes on what is complete of a directory. If that is all, it stores its tree and goes on with its parent.
    fn settle_dir(&mut self, session: &Session<'_>, mut id: FrameId) -> Result<(), BackupError> {
        while self.take_complete(session, id)? {
            let Some(Frame { own, place, tree, is_way, .. }) = self.frames.remove(&id) else { return Ok(()) };
            let splitter = Splitter::new(session.repository.keys());
            let writer = &mut self.writer;
            let tree = tree.finish(&splitter, &mut |bytes| session.put(writer, BlobKind::Tree, bytes))?;
            if is_way {
                self.roots_same.get_or_insert(true);
            }
            let (Some((name, metadata)), Some(Place { parent, slot })) = (own, place) else {
                self.root = Some(tree);
                return Ok(());
            };
            self.put(parent, slot, Box::new(Node { name, kind: NodeKind::Directory { tree }, metadata }));
            self.slot(parent, slot).holds -= 1;
            id = parent;
        }
        Ok(())
    }

    /// Moves entries up to the first one that is not complete into the tree; whether these were all.
    fn take_complete(&mut self, session: &Session<'_>, id: FrameId) -> Result<bool, BackupError> {
        let Self { frames, writer, roots_same, .. } = self;
        let frame = frames.get_mut(&id).expect(FRAME_STAYS);
        let splitter = Splitter::new(session.repository.keys());
        while frame.slots.front().is_some_and(|slot| slot.holds == 0)
            && let Some(slot) = frame.slots.pop_front()
        {
            frame.first += 1;
            if frame.is_way && !slot.is_way && !slot.is_as_in_first_parent() {
                *roots_same = Some(false);
            }
            if let Content::Complete(entry) = slot.content {
                let mut put = |bytes: &[u8]| session.put(writer, BlobKind::Tree, bytes);
                frame.tree.push(entry, &splitter, &mut put)?;
            }
        }
        Ok(frame.listed && frame.slots.is_empty())
    }

    /// Stores the tree of everything complete so far, for a partial snapshot. `stack` are the directories that are
    /// being listed, outermost first; no file may be on its way.
    pub fn partial_root(
        &mut self,
        session: &Session<'_>,
        stack: &[FrameId],
    ) -> Result<Option<BlobId>, BackupError> {
        debug_assert!(self.files.is_empty(), "a partial snapshot is taken when all jobs are done");
        let Self { frames, writer, .. } = self;
        let splitter = Splitter::new(session.repository.keys());
        let mut put = |bytes: &[u8]| session.put(writer, BlobKind::Tree, bytes);
        let mut child: Option<Entry> = None;
        for frame in stack.iter().rev().filter_map(|id| frames.get(id)) {
            // Of the entries not complete there is one at most: the directory being listed, which is the last.
            let mut tree = frame.tree.clone();
            debug_assert!(frame.slots.len() <= 1, "the walk is deeper, or nothing is on its way");
            if let Some(entry) = child.take() {
                tree.push(entry, &splitter, &mut put)?;
            }
            let tree = tree.finish(&splitter, &mut put)?;
            let Some((name, metadata)) = &frame.own else { return Ok(Some(tree)) };
            let kind = NodeKind::Directory { tree };
            child = Some(Entry::New(Box::new(Node { name: name.clone(), kind, metadata: metadata.clone() })));
        }
        Ok(None)
    }
}

impl Slot {
    fn is_as_in_first_parent(&self) -> bool {
        matches!(&self.content, Content::Complete(Entry::Known(known)) if known.parent == 0)
    }
}

/// A node of a file without its chunks.
pub(super) fn file_node(name: &[u8], content: FileContent, metadata: Metadata) -> Node {
    Node { name: ByteBuf::from(name), kind: NodeKind::File(content), metadata }
}
