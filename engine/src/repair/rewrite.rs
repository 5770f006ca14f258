//! A tree without what is lost: files whose content is not all there, directories whose trees cannot be read. Everything
//! else stays as it is, in the same blobs where nothing below was lost.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::backend::{self, ObjectKey};
use crate::backup::Session;
use crate::browse::{self, BrowseError};
use crate::check::trees::{self, Table};
use crate::chunk::split::Splitter;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{Chunk, ChunkList, ListRef};
use crate::format::header::ObjectKind;
use crate::format::record;
use crate::format::tree::{FileContent, Node, NodeKind, Tree, TreePart};
use crate::format::tree_rules::PART_DEPTH_MAX;
use crate::ids::{BlobId, PackId};
use crate::index::Location;
use crate::monitor::{Monitor, Progress};
use crate::repair::{LostEntry, LostKind, RepairError, RepairedSnapshot, is_lost};
use crate::repo::{Repository, RepositoryError};
use crate::store::{BlobWriter, put_tree};

/// Counts of what is in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        // What trees say of sizes is not checked here, and one tree can be met more often than can be counted: sums are for
        // people.
        self.files = self.files.saturating_add(other.files);
        self.directories = self.directories.saturating_add(other.directories);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What became of a snapshot's tree.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// The tree without what is lost; none where the root itself is.
    pub tree: Option<BlobId>,
    /// What is in it.
    pub totals: Totals,
    /// What is not, at most [`RepairedSnapshot::LOST_MAX`].
    pub lost: Vec<LostEntry>,
    /// How much is not.
    pub lost_count: u64,
}

impl Rewritten {
    fn lose(&mut self, path: Vec<u8>, kind: LostKind) {
        self.lost_count = self.lost_count.saturating_add(1);
        if self.lost.len() < RepairedSnapshot::LOST_MAX {
            self.lost.push(LostEntry { path, kind });
        }
    }
}

/// A directory on the way: its files were judged, its directories are being walked.
struct Frame {
    tree: BlobId,
    path: Vec<u8>,
    /// Place of its node in the directory above.
    slot: usize,
    nodes: Vec<Option<Node>>,
    /// Places of directories that are still to be walked, last first.
    below: Vec<usize>,
    totals: Totals,
    /// How much was lost when it was entered.
    lost_before: u64,
    is_changed: bool,
}

/// How much of a directory's entries could be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collected {
    Whole,
    InPart,
    Nothing,
}

/// A tree that was walked.
#[derive(Clone, Copy)]
struct Known {
    /// The tree without what is lost: the same where nothing is.
    tree: BlobId,
    totals: Totals,
    lost_count: u64,
}

/// Why something was given up.
#[derive(Default)]
pub(super) struct Losses {
    /// Packs that are not there, with the lengths that they are to have.
    absent: BTreeMap<PackId, u64>,
    /// Trees and lists of chunks that cannot be read.
    unread: HashSet<BlobId>,
}

impl Losses {
    /// Whether something of that is there by now: whoever puts a pack back, or mends one, commits nothing.
    ///
    /// # Errors
    /// [`RepositoryError`] where that cannot be looked up.
    pub fn is_any_back(&self, repository: &Repository) -> Result<bool, RepositoryError> {
        for (pack, size) in &self.absent {
            let found = backend::size_if_readable(&**repository.backend(), &ObjectKey::pack(pack))?;
            if found == Some(*size) {
                return Ok(true);
            }
        }
        Ok(self.unread.iter().any(|blob| repository.reader().read(BlobKind::Tree, blob).is_ok()))
    }
}

/// Rewrites trees.
pub(super) struct Rewriter<'a, 'r> {
    pub session: &'a Session<'r>,
    pub writer: BlobWriter,
    /// Packs that are there, with their lengths.
    pub stored: BTreeMap<PackId, u64>,
    pub monitor: &'a dyn Monitor,
    known: HashMap<BlobId, Known>,
    /// What was found lost.
    pub losses: Losses,
    walked: u64,
}

impl<'a, 'r> Rewriter<'a, 'r> {
    pub fn new(session: &'a Session<'r>, stored: BTreeMap<PackId, u64>, monitor: &'a dyn Monitor) -> Self {
        let (writer, known, losses) = (session.tree_writer(), HashMap::new(), Losses::default());
        Self { session, writer, stored, monitor, known, losses, walked: 0 }
    }

    /// Rewrites everything below a root.
    pub fn run(&mut self, root: BlobId) -> Result<Rewritten, RepairError> {
        let mut done = Rewritten::default();
        // Frames instead of recursion: a path may be deeper than a stack.
        let mut frames: Vec<Frame> = Vec::new();
        match self.enter(root, Vec::new(), 0, &mut done)? {
            Some(frame) => frames.push(frame),
            None => done.lose(b"/".to_vec(), LostKind::Directory),
        }
        while let Some(frame) = frames.last_mut() {
            let Some(slot) = frame.below.pop() else {
                let Some(frame) = frames.pop() else { break };
                self.leave(&frame, frames.last_mut(), &mut done)?;
                continue;
            };
            let Some(Node { name, kind: NodeKind::Directory { tree }, .. }) = &frame.nodes[slot] else {
                continue;
            };
            if let Some(known) = self.known(tree, &done) {
                frame.totals += known.totals;
                frame.totals += Totals { directories: 1, ..Totals::default() };
                done.lost_count = done.lost_count.saturating_add(known.lost_count);
                if known.tree != *tree {
                    frame.is_changed = true;
                    let tree = known.tree;
                    if let Some(Node { kind, .. }) = &mut frame.nodes[slot] {
                        *kind = NodeKind::Directory { tree };
                    }
                }
                continue;
            }
            let (path, tree) = ([&frame.path, b"/".as_slice(), name].concat(), *tree);
            match self.enter(tree, path.clone(), slot, &mut done)? {
                Some(entered) => frames.push(entered),
                None => {
                    frame.nodes[slot] = None;
                    frame.is_changed = true;
                    done.lose(path, LostKind::Directory);
                }
            }
        }
        Ok(done)
    }

    /// What became of a tree when it was walked, if it need not be walked again: what is lost of it is named at each of its paths, as
    /// long as more is to be named.
    fn known(&self, tree: &BlobId, done: &Rewritten) -> Option<Known> {
        let is_enough =
            |known: &&Known| known.lost_count == 0 || done.lost.len() == RepairedSnapshot::LOST_MAX;
        self.known.get(tree).filter(is_enough).copied()
    }

    /// Ends a directory: stores it anew where something below was lost.
    fn leave(
        &mut self,
        frame: &Frame,
        above: Option<&mut Frame>,
        done: &mut Rewritten,
    ) -> Result<(), RepairError> {
        let tree = if frame.is_changed {
            let nodes: Vec<&Node> = frame.nodes.iter().flatten().collect();
            let session = self.session;
            let writer = &mut self.writer;
            let splitter = Splitter::new(session.repository.keys());
            put_tree(&splitter, &nodes, &mut |bytes| session.put(writer, BlobKind::Tree, bytes))?
        } else {
            frame.tree
        };
        // A count that ran full tells nothing any more.
        let is_other = u64::from(tree != frame.tree);
        let lost_count = done.lost_count.saturating_sub(frame.lost_before).max(is_other);
        self.known.insert(frame.tree, Known { tree, totals: frame.totals, lost_count });
        let Some(above) = above else {
            (done.tree, done.totals) = (Some(tree), frame.totals);
            return Ok(());
        };
        above.totals += frame.totals;
        above.totals += Totals { directories: 1, ..Totals::default() };
        above.is_changed |= frame.is_changed;
        if let Some(node) = &mut above.nodes[frame.slot] {
            node.kind = NodeKind::Directory { tree };
        }
        Ok(())
    }

    /// Reads a directory and judges its files; none where nothing of it can be read.
    fn enter(
        &mut self,
        tree: BlobId,
        path: Vec<u8>,
        slot: usize,
        done: &mut Rewritten,
    ) -> Result<Option<Frame>, RepairError> {
        if self.monitor.is_cancelled() {
            return Err(RepairError::Cancelled);
        }
        self.walked += 1;
        self.monitor.progress(&Progress { items: self.walked, ..Progress::default() });
        let mut read = Vec::new();
        let lost_before = done.lost_count;
        let collected = self.collect(&tree, None, PART_DEPTH_MAX, &path, &mut read, done)?;
        if collected == Collected::Nothing {
            return Ok(None);
        }
        let mut frame = Frame {
            tree,
            path,
            slot,
            nodes: Vec::with_capacity(read.len()),
            below: Vec::new(),
            totals: Totals::default(),
            lost_before,
            is_changed: collected == Collected::InPart,
        };
        for node in read {
            match &node.kind {
                NodeKind::File(content) if self.is_hit(content)? => {
                    done.lose([&frame.path, b"/".as_slice(), &node.name].concat(), LostKind::File);
                    frame.is_changed = true;
                    continue;
                }
                NodeKind::File(content) => {
                    frame.totals += Totals { files: 1, bytes: content.size, directories: 0 };
                }
                NodeKind::Directory { .. } => frame.below.push(frame.nodes.len()),
                _ => {}
            }
            frame.nodes.push(Some(node));
        }
        frame.below.reverse();
        Ok(Some(frame))
    }

    /// Gathers the entries of a directory from its parts, as far as they can be read.
    fn collect(
        &mut self,
        tree: &BlobId,
        part: Option<&TreePart>,
        depth: usize,
        path: &[u8],
        nodes: &mut Vec<Node>,
        done: &mut Rewritten,
    ) -> Result<Collected, RepairError> {
        let reader = self.session.repository.reader();
        let loaded = match part {
            None => browse::load(reader, tree),
            Some(part) => browse::load_part(reader, part),
        };
        let tree = match loaded {
            Ok(found) => {
                self.losses.unread.remove(tree);
                found
            }
            Err(BrowseError::Read(error)) if !is_lost(&error) => return Err(RepairError::Read(error)),
            Err(error) => {
                if matches!(error, BrowseError::Read(_)) {
                    self.losses.unread.insert(*tree);
                }
                return Ok(Collected::Nothing);
            }
        };
        match tree {
            Tree::Nodes(read) => {
                let follows =
                    nodes.last().zip(read.first()).is_none_or(|(last, first)| last.name < first.name);
                if !follows {
                    return Ok(Collected::Nothing);
                }
                nodes.extend(read);
                Ok(Collected::Whole)
            }
            Tree::Parts(_) if depth == 0 => Ok(Collected::Nothing),
            Tree::Parts(parts) => {
                let mut collected = Collected::Whole;
                for part in &parts {
                    let of_part = match nodes.last().is_none_or(|last| last.name < part.first) {
                        true => self.collect(&part.tree, Some(part), depth - 1, path, nodes, done)?,
                        // So no tree gives its entries twice, however parts lead to each other.
                        false => Collected::Nothing,
                    };
                    if of_part == Collected::Nothing {
                        let first = [path, b"/", part.first.as_slice()].concat();
                        done.lose(first, LostKind::Entries(part.entries));
                    }
                    if of_part != Collected::Whole {
                        collected = Collected::InPart;
                    }
                }
                Ok(collected)
            }
        }
    }

    fn is_hit(&mut self, content: &FileContent) -> Result<bool, RepairError> {
        match trees::file_table(content) {
            Ok(table) => self.is_table_hit(content.depth, &table),
            Err(_) => Ok(true),
        }
    }

    /// Lists nest a few levels at most.
    fn is_table_hit(&mut self, depth: u8, table: &Table) -> Result<bool, RepairError> {
        match table {
            Table::Chunks(chunks) => {
                for chunk in chunks {
                    if !self.is_there(chunk)? {
                        return Ok(true);
                    }
                }
            }
            Table::Lists(lists) => {
                for list in lists {
                    if self.is_list_hit(depth - 1, list)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    fn is_list_hit(&mut self, depth: u8, list: &ListRef) -> Result<bool, RepairError> {
        let bytes = match self.session.repository.reader().read(BlobKind::Tree, &list.id) {
            Ok(bytes) => {
                self.losses.unread.remove(&list.id);
                bytes
            }
            Err(error) if is_lost(&error) => {
                self.losses.unread.insert(list.id);
                return Ok(true);
            }
            Err(error) => return Err(RepairError::Read(error)),
        };
        let Ok(content) = record::decode::<ChunkList>(&bytes) else { return Ok(true) };
        if content.depth != depth {
            return Ok(true);
        }
        match trees::table(depth, &content.chunks, list.bytes) {
            Ok(table) => self.is_table_hit(depth, &table),
            Err(_) => Ok(true),
        }
    }

    fn is_there(&mut self, chunk: &Chunk) -> Result<bool, RepairError> {
        let index = self.session.repository.index();
        let fits = |at: &Location| at.entry.len == chunk.len && at.pack.header.kind == ObjectKind::DataPack;
        let is_home = |at: &Location| fits(at) && self.stored.get(&at.pack.id) == Some(&at.pack.size);
        let Some(at) = index.get(&chunk.id)? else { return Ok(false) };
        if is_home(&at) {
            return Ok(true);
        }
        let all = index.get_all(&chunk.id)?;
        let is_there = all.iter().any(is_home);
        if !is_there {
            self.losses.absent.extend(all.iter().filter(|at| fits(at)).map(|at| (at.pack.id, at.pack.size)));
        }
        Ok(is_there)
    }
}
