//! How two trees differ: entry by entry in the order of paths, without entering directories that are the same.
//!
//! Both trees are read side by side, piece by piece. In memory is one piece of each directory on the way to where the
//! comparison is, so no number of entries or differences makes it grow.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::browse::{BrowseError, Found, Pieces};
use crate::format::tree::{Metadata, Node, NodeKind};
use crate::ids::BlobId;
use crate::store::BlobReader;

/// How an entry of the second tree differs from that of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Its content: of a file its bytes, of a link its target, of a device its number.
    Content,
    /// Nothing but what is known of it: owner, mode, time, attributes, flags.
    Metadata,
    /// It is of another kind: a file became a directory, say.
    Type,
}

/// An entry that is not the same in both trees.
#[derive(Debug, Clone, Copy)]
pub struct Difference<'a> {
    /// The path, from the root.
    pub path: &'a [u8],
    /// How it differs.
    pub change: Change,
    /// The entry in the first tree; none if it was added.
    pub before: Option<&'a Node>,
    /// The entry in the second tree; none if it was removed.
    pub after: Option<&'a Node>,
}

/// Entries on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, devices, pipes and sockets.
    pub others: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, node: &Node) {
        match &node.kind {
            NodeKind::File(content) => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(content.size);
            }
            NodeKind::Directory { .. } => self.directories += 1,
            _ => self.others += 1,
        }
    }
}

/// What two trees differ in, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// What only the second has.
    pub added: Count,
    /// What only the first has.
    pub removed: Count,
    /// Entries with other content, as the first has them.
    pub changed_before: Count,
    /// The same entries, as the second has them.
    pub changed_after: Count,
    /// Entries of which nothing but metadata changed.
    pub metadata: u64,
    /// Entries of another kind.
    pub types: u64,
}

impl Totals {
    fn add(&mut self, difference: &Difference<'_>) {
        let side = |count: &mut Count, node: Option<&Node>| node.into_iter().for_each(|node| count.add(node));
        match difference.change {
            Change::Added => side(&mut self.added, difference.after),
            Change::Removed => side(&mut self.removed, difference.before),
            Change::Content => {
                side(&mut self.changed_before, difference.before);
                side(&mut self.changed_after, difference.after);
            }
            Change::Metadata => self.metadata += 1,
            Change::Type => self.types += 1,
        }
    }
}

/// Compares what two snapshots have at `path`, with one slash before each name and none at the end;
/// `None` stands for nothing. Calls `visit` with every difference, a directory before what is in it. The counts are
/// complete unless `visit` ended the comparison.
///
/// Content is the same where it consists of the same chunks: nothing is read but trees.
///
/// # Errors
/// [`BrowseError`] where a tree cannot be read: what it hides could be anything.
pub fn run(
    reader: &BlobReader,
    path: &[u8],
    before: Option<&Found>,
    after: Option<&Found>,
    visit: &mut dyn FnMut(Difference<'_>) -> ControlFlow<()>,
) -> Result<Totals, BrowseError> {
    let mut diff = Diff { reader, visit, path: path.to_vec(), levels: Vec::new(), totals: Totals::default() };
    // A root has no node of its own to be told of.
    let node = |found: Option<&Found>| match found {
        Some(Found::Node(node)) => Some(node.clone()),
        _ => None,
    };
    let flow = diff.told(node(before).as_ref(), node(after).as_ref());
    diff.enter(before.and_then(Found::tree), after.and_then(Found::tree));
    if flow.is_continue() {
        diff.walk()?;
    }
    Ok(diff.totals)
}

struct Diff<'a> {
    reader: &'a BlobReader,
    visit: &'a mut dyn FnMut(Difference<'_>) -> ControlFlow<()>,
    /// Of the directory compared, or of the entry just looked at.
    path: Vec<u8>,
    levels: Vec<Level>,
    totals: Totals,
}

/// A directory that is being compared.
struct Level {
    before: Side,
    after: Side,
    /// How much of the path leads to it.
    path_len: usize,
}

impl Diff<'_> {
    /// Compares the directories entered, and all below them. Levels are kept in a list: paths have any depth.
    fn walk(&mut self) -> Result<(), BrowseError> {
        while let Some(level) = self.levels.last_mut() {
            let (before, after) = (level.before.peek(self.reader)?, level.after.peek(self.reader)?);
            let order = match (before, after) {
                (Some(before), Some(after)) => before.name.cmp(&after.name),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => {
                    self.levels.pop();
                    continue;
                }
            };
            let before = if order.is_le() { level.before.take() } else { None };
            let after = if order.is_ge() { level.after.take() } else { None };
            let Some(node) = before.as_ref().or(after.as_ref()) else { continue };
            self.path.truncate(level.path_len);
            self.path.push(b'/');
            self.path.extend_from_slice(&node.name);
            if self.pair(before.as_ref(), after.as_ref()).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells how two entries with one path differ, and enters what differs below them.
    fn pair(&mut self, before: Option<&Node>, after: Option<&Node>) -> ControlFlow<()> {
        let flow = self.told(before, after);
        let tree = |node: Option<&Node>| match node {
            Some(Node { kind: NodeKind::Directory { tree }, .. }) => Some(*tree),
            _ => None,
        };
        self.enter(tree(before), tree(after));
        flow
    }

    fn told(&mut self, before: Option<&Node>, after: Option<&Node>) -> ControlFlow<()> {
        let Some(change) = compare(before, after) else { return ControlFlow::Continue(()) };
        let difference = Difference { path: &self.path, change, before, after };
        self.totals.add(&difference);
        (self.visit)(difference)
    }

    fn enter(&mut self, before: Option<BlobId>, after: Option<BlobId>) {
        if before != after {
            let path_len = self.path.len();
            self.levels.push(Level { before: Side::new(before), after: Side::new(after), path_len });
        }
    }
}

/// The entries of one directory, one at a time.
struct Side {
    pieces: Option<Pieces>,
    nodes: std::iter::Peekable<std::vec::IntoIter<Node>>,
}

impl Side {
    fn new(tree: Option<BlobId>) -> Self {
        Self { pieces: tree.map(Pieces::new), nodes: Vec::new().into_iter().peekable() }
    }

    fn peek(&mut self, reader: &BlobReader) -> Result<Option<&Node>, BrowseError> {
        while self.nodes.peek().is_none()
            && let Some(piece) = self.pieces.as_mut().and_then(|pieces| pieces.next(reader))
        {
            self.nodes = piece?.nodes.into_iter().peekable();
        }
        Ok(self.nodes.peek())
    }

    fn take(&mut self) -> Option<Node> {
        self.nodes.next()
    }
}

/// How the entry differs; none if it does not.
fn compare(before: Option<&Node>, after: Option<&Node>) -> Option<Change> {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (None, Some(_)) => return Some(Change::Added),
        (Some(_), None) => return Some(Change::Removed),
        (None, None) => return None,
    };
    let is_same_content = match (&before.kind, &after.kind) {
        (NodeKind::File(before), NodeKind::File(after)) => {
            (before.size, before.depth) == (after.size, after.depth)
                && before.chunks == after.chunks
                && before.holes == after.holes
        }
        // What is in them is told of by itself.
        (NodeKind::Directory { .. }, NodeKind::Directory { .. }) => true,
        (before, after) if std::mem::discriminant(before) != std::mem::discriminant(after) => {
            return Some(Change::Type);
        }
        (before, after) => before == after,
    };
    match is_same_content {
        false => Some(Change::Content),
        true => (restored(&before.metadata) != restored(&after.metadata)).then_some(Change::Metadata),
    }
}

/// The metadata that a restore brings back: inodes and the like differ between two copies of the same thing.
fn restored(metadata: &Metadata) -> Metadata {
    Metadata {
        ctime: Metadata::default().ctime,
        btime: None,
        inode: 0,
        links: None,
        device: None,
        ..metadata.clone()
    }
}

#[cfg(test)]
mod tests {
    use crate::format::tree::{FileContent, Timestamp};

    use super::*;

    fn file(size: u64, inode: u64, mtime: i64) -> Node {
        let kind = NodeKind::File(FileContent { size, ..FileContent::default() });
        let mtime = Timestamp { seconds: mtime, nanos: 0 };
        Node { name: b"n".to_vec().into(), kind, metadata: Metadata { inode, mtime, ..Metadata::default() } }
    }

    #[test]
    fn changes_are_told_apart() {
        let link = |target: &str| Node {
            kind: NodeKind::Symlink { target: target.as_bytes().to_vec().into() },
            ..file(0, 1, 1)
        };
        let dir =
            |n| Node { kind: NodeKind::Directory { tree: BlobId::from_bytes([n; 32]) }, ..file(0, 1, 1) };
        let told = |before: Node, after: Node| compare(Some(&before), Some(&after));
        assert_eq!(told(file(1, 1, 1), file(1, 1, 1)), None);
        assert_eq!(told(file(1, 1, 1), file(1, 2, 1)), None, "another inode is the same file");
        assert_eq!(told(file(1, 1, 1), file(1, 1, 2)), Some(Change::Metadata));
        assert_eq!(told(file(1, 1, 1), file(2, 1, 2)), Some(Change::Content));
        assert_eq!(told(link("a"), link("b")), Some(Change::Content));
        assert_eq!(told(link("a"), file(1, 1, 1)), Some(Change::Type));
        assert_eq!(told(dir(1), dir(2)), None, "what is in it is told of by itself");
        assert_eq!(told(dir(1), Node { kind: NodeKind::Fifo, ..dir(1) }), Some(Change::Type));
        assert_eq!(compare(None, Some(&dir(1))), Some(Change::Added));
        assert_eq!(compare(Some(&dir(1)), None), Some(Change::Removed));
    }
}
