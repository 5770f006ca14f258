//! Looking into snapshots: finding a path, listing what is below it.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use serde_bytes::ByteBuf;

use crate::crypto::keys::BlobKind;
use crate::format::record::{self, RecordError};
use crate::format::tree::{Node, NodeKind, Tree, TreePart};
use crate::format::tree_rules::{EntryRule, PART_DEPTH_MAX, TreeRuleError};
use crate::ids::BlobId;
use crate::store::{BlobReader, ReadError};

/// Subdirectories of one directory that [`list`] has in mind at once.
const SUBDIRECTORIES_MAX: usize = 4096;

/// A snapshot cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// A tree cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A tree is not one.
    #[error("tree {tree} is damaged: {source}")]
    Tree {
        /// The tree blob.
        tree: BlobId,
        /// How.
        source: RecordError,
    },
    /// A tree breaks the rules of its kind.
    #[error("tree {tree} is damaged: {source}")]
    Rules {
        /// The tree blob.
        tree: BlobId,
        /// Which rule, and which entry breaks it.
        source: TreeRuleError,
    },
    /// The path does not exist in the snapshot.
    #[error("{} is not in the snapshot", String::from_utf8_lossy(path))]
    NoPath {
        /// The part of the path that is missing, from the root.
        path: Vec<u8>,
    },
    /// The path leads through something that is no directory.
    #[error("{} is not a directory in the snapshot", String::from_utf8_lossy(path))]
    NotDirectory {
        /// The path of the entry.
        path: Vec<u8>,
    },
}

/// Calls `visit` with every node of a directory in name order, joining the parts of a split tree. All nodes obey
/// the rules of [`Tree::validate`], and names ascend from part to part.
///
/// # Errors
/// [`BrowseError`] where a tree cannot be read or breaks the rules.
pub fn nodes(
    reader: &BlobReader,
    tree: &BlobId,
    visit: &mut dyn FnMut(Node) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    let mut pieces = Pieces::new(*tree);
    while let Some(piece) = pieces.next(reader) {
        for node in piece?.nodes {
            if visit(node).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Entries of a directory that are stored as one blob: all of them but in very large directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The blob.
    pub tree: BlobId,
    /// The entries, ascending by name.
    pub nodes: Vec<Node>,
}

/// The pieces of a directory in name order. None of them is kept, whatever the directory's size. No piece comes
/// twice, however parts lead to each other: each begins with a name that comes after all before it.
#[derive(Debug)]
pub struct Pieces {
    /// The directory's tree, before it is read.
    root: Option<BlobId>,
    /// The parts still to come of each split tree that leads to the last piece.
    levels: Vec<std::vec::IntoIter<TreePart>>,
    /// The last name so far.
    last: Option<ByteBuf>,
    /// The name that the last part begins with that was entered.
    entered: Option<ByteBuf>,
    /// Pieces in which all names come before this one are passed over from the beginning.
    from: ByteBuf,
}

impl Pieces {
    /// Those of the directory with this tree, which is not read yet.
    pub fn new(tree: BlobId) -> Self {
        Self::from(tree, b"")
    }

    /// The same, without reading pieces in which all names come before `name`.
    pub fn from(tree: BlobId, name: &[u8]) -> Self {
        let from = ByteBuf::from(name);
        Self { root: Some(tree), levels: Vec::new(), last: None, entered: None, from }
    }

    /// The next piece, whose nodes obey the rules of [`Tree::validate`] and come after those of the last one. After an
    /// error, what can be read of the rest follows.
    ///
    /// # Errors
    /// [`BrowseError`] where a tree cannot be read or breaks the rules.
    pub fn next(&mut self, reader: &BlobReader) -> Option<Result<Piece, BrowseError>> {
        let mut is_first = false;
        loop {
            let (id, tree) = match (self.root.take(), self.levels.last_mut()) {
                (Some(id), _) => (id, load(reader, &id)),
                (None, Some(parts)) => match parts.next() {
                    // The first one begins with what the one does that it is a part of.
                    Some(part)
                        if comes_late(&part, &self.last) || !is_first && comes_late(&part, &self.entered) =>
                    {
                        // Told once, whatever the number of those that come too late.
                        let last = (&self.last).max(&self.entered);
                        while parts.as_slice().first().is_some_and(|part| comes_late(part, last)) {
                            parts.next();
                        }
                        return Some(Err(out_of_order(&part)));
                    }
                    Some(part) => {
                        let tree = load_part(reader, &part);
                        self.entered = Some(part.first);
                        (part.tree, tree)
                    }
                    None => {
                        self.levels.pop();
                        continue;
                    }
                },
                (None, None) => return None,
            };
            match tree {
                Ok(Tree::Nodes(nodes)) => {
                    self.last = nodes.last().map(|node| node.name.clone());
                    return Some(Ok(Piece { tree: id, nodes }));
                }
                Ok(Tree::Parts(_)) if self.levels.len() == PART_DEPTH_MAX => {
                    return Some(Err(BrowseError::Rules { tree: id, source: TreeRuleError::Depth }));
                }
                Ok(Tree::Parts(parts)) => {
                    let mut parts = parts.into_iter();
                    pass_over(&mut parts, &self.from);
                    self.levels.push(parts);
                    is_first = true;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Passes over pieces in which all names come before `name`, without reading them.
    pub fn skip_to(&mut self, name: &[u8]) {
        let leads_to = |part: &TreePart| part.first.as_slice() <= name;
        let level = self.levels.iter().position(|parts| parts.as_slice().first().is_some_and(leads_to));
        if let Some(level) = level {
            // What is below belongs to a part that comes before.
            self.levels.truncate(level + 1);
            pass_over(&mut self.levels[level], name);
        }
    }
}

/// Leaves out parts in which all names come before `name`.
fn pass_over(parts: &mut std::vec::IntoIter<TreePart>, name: &[u8]) {
    while parts.as_slice().get(1).is_some_and(|part| part.first.as_slice() <= name) {
        parts.next();
    }
}

/// Whether a part begins with a name that does not come after `last`.
fn comes_late(part: &TreePart, last: &Option<ByteBuf>) -> bool {
    last.as_ref().is_some_and(|last| *last >= part.first)
}

fn out_of_order(part: &TreePart) -> BrowseError {
    let entry = String::from_utf8_lossy(&part.first).into_owned();
    BrowseError::Rules { tree: part.tree, source: TreeRuleError::Entry { entry, rule: EntryRule::Order } }
}

/// Reads one tree blob, which obeys the rules of [`Tree::validate`].
///
/// # Errors
/// [`BrowseError`] where it cannot be read or is no tree.
pub fn load(reader: &BlobReader, id: &BlobId) -> Result<Tree, BrowseError> {
    let tree = load_unchecked(reader, id)?;
    tree.validate().map_err(|source| BrowseError::Rules { tree: *id, source })?;
    Ok(tree)
}

/// Reads one tree blob without asking for the rules: for callers that judge entry by entry, so that one bad entry
/// does not take the others with it.
///
/// # Errors
/// [`BrowseError`] where it cannot be read or is no tree.
pub fn load_unchecked(reader: &BlobReader, id: &BlobId) -> Result<Tree, BrowseError> {
    let bytes = reader.read(BlobKind::Tree, id)?;
    record::decode(&bytes).map_err(|source| BrowseError::Tree { tree: *id, source })
}

/// Reads the tree of one part of a split directory, which is what the tree above says of it.
///
/// # Errors
/// [`BrowseError`] where it cannot be read or is another.
pub fn load_part(reader: &BlobReader, part: &TreePart) -> Result<Tree, BrowseError> {
    let tree = load(reader, &part.tree)?;
    part.check(&tree).map_err(|source| BrowseError::Rules { tree: part.tree, source })?;
    Ok(tree)
}

/// The node of one name in a directory.
///
/// # Errors
/// [`BrowseError`] where a tree cannot be read.
pub fn lookup(reader: &BlobReader, tree: &BlobId, name: &[u8]) -> Result<Option<Node>, BrowseError> {
    let mut id = *tree;
    let mut tree = load(reader, tree)?;
    for _ in 0..=PART_DEPTH_MAX {
        match tree {
            Tree::Nodes(mut nodes) => {
                let found = nodes.binary_search_by(|node| node.name.as_slice().cmp(name));
                return Ok(found.ok().map(|at| nodes.swap_remove(at)));
            }
            Tree::Parts(parts) => match parts.iter().rev().find(|part| part.first.as_slice() <= name) {
                Some(part) => (id, tree) = (part.tree, load_part(reader, part)?),
                None => return Ok(None),
            },
        }
    }
    Err(BrowseError::Rules { tree: id, source: TreeRuleError::Depth })
}

/// What a path in a snapshot names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub enum Found {
    /// The root of the snapshot, which has no node of its own.
    Root(BlobId),
    /// An entry.
    Node(Node),
}

impl Found {
    /// The tree, if it is a directory.
    pub fn tree(&self) -> Option<BlobId> {
        match self {
            Self::Root(tree) => Some(*tree),
            Self::Node(Node { kind: NodeKind::Directory { tree }, .. }) => Some(*tree),
            Self::Node(_) => None,
        }
    }
}

/// Finds a path in the snapshot whose root tree is `root`. Leading, trailing and doubled slashes do not matter.
///
/// # Errors
/// [`BrowseError::NoPath`] naming the first part that is missing, or what cannot be read.
pub fn find(reader: &BlobReader, root: &BlobId, path: &[u8]) -> Result<Found, BrowseError> {
    let mut found = Found::Root(*root);
    let mut walked = Vec::new();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        let tree = found.tree().ok_or_else(|| BrowseError::NotDirectory { path: walked.clone() })?;
        walked.push(b'/');
        walked.extend_from_slice(name);
        let node = lookup(reader, &tree, name)?;
        found = Found::Node(node.ok_or_else(|| BrowseError::NoPath { path: walked.clone() })?);
    }
    Ok(found)
}

/// Calls `visit` with every entry below a tree, each with its path, which begins with `prefix`: all entries of
/// a directory in name order, then, if `recursive`, those of its subdirectories, one after the other.
///
/// A directory with more than some thousand subdirectories is read once more, so that they are not all in memory.
///
/// # Errors
/// [`BrowseError`] where a tree cannot be read.
pub fn list(
    reader: &BlobReader,
    tree: &BlobId,
    prefix: &[u8],
    recursive: bool,
    visit: &mut dyn FnMut(&[u8], &Node) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    list_within(reader, tree, prefix, recursive.then_some(SUBDIRECTORIES_MAX), visit)
}

/// The same, with `most` subdirectories of a directory in mind; with none, they are not gone into.
fn list_within(
    reader: &BlobReader,
    tree: &BlobId,
    prefix: &[u8],
    most: Option<usize>,
    visit: &mut dyn FnMut(&[u8], &Node) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    // A list instead of recursion: a path may be deeper than a stack.
    let mut pending: Vec<Subdirectories> = Vec::new();
    let (mut path, mut next) = (prefix.to_vec(), Some(*tree));
    while let Some(tree) = next.take() {
        let mut below = Subdirectories::of(tree, path.len());
        path.push(b'/');
        let (base, mut stopped) = (path.len(), false);
        nodes(reader, &tree, &mut |node| {
            path.truncate(base);
            path.extend_from_slice(&node.name);
            let flow = visit(&path, &node);
            stopped = flow.is_break();
            if let Some(most) = most {
                below.add(node, most);
            }
            flow
        })?;
        if stopped {
            return Ok(());
        }
        pending.push(below);
        while let Some(below) = pending.last_mut() {
            path.truncate(below.path_len);
            let taken = below.next(reader, most.unwrap_or_default())?;
            if below.is_at_end() {
                // Before the last one is gone into: a chain of directories is no pile of lists.
                pending.pop();
            }
            if let Some((name, tree)) = taken {
                path.push(b'/');
                path.extend_from_slice(&name);
                next = Some(tree);
                break;
            }
        }
    }
    Ok(())
}

/// The subdirectories of a directory that are still to be listed.
struct Subdirectories {
    /// The directory.
    tree: BlobId,
    /// How much of the path leads to it.
    path_len: usize,
    /// The next ones.
    kept: VecDeque<(ByteBuf, BlobId)>,
    /// Whether there are more behind them.
    has_more: bool,
    /// The last one that was taken.
    taken: ByteBuf,
}

impl Subdirectories {
    /// None yet of the directory with this tree.
    fn of(tree: BlobId, path_len: usize) -> Self {
        Self { tree, path_len, kept: VecDeque::new(), has_more: false, taken: ByteBuf::new() }
    }

    /// Keeps a node in mind if it is a directory and there are fewer than `most` of them, one at least.
    fn add(&mut self, node: Node, most: usize) {
        if let NodeKind::Directory { tree } = node.kind {
            self.has_more = self.kept.len() >= most.max(1);
            if !self.has_more {
                self.kept.push_back((node.name, tree));
            }
        }
    }

    fn is_at_end(&self) -> bool {
        self.kept.is_empty() && !self.has_more
    }

    /// Takes the next one, if there is one.
    fn next(&mut self, reader: &BlobReader, most: usize) -> Result<Option<(ByteBuf, BlobId)>, BrowseError> {
        if self.kept.is_empty() && self.has_more {
            self.read_on(reader, most)?;
        }
        let next = self.kept.pop_front();
        if let Some((name, _)) = &next {
            self.taken.clone_from(name);
        }
        Ok(next)
    }

    /// Reads the directory again from behind the last one that was taken.
    fn read_on(&mut self, reader: &BlobReader, most: usize) -> Result<(), BrowseError> {
        self.has_more = false;
        let mut pieces = Pieces::from(self.tree, &self.taken);
        while let Some(piece) = pieces.next(reader) {
            for node in piece?.nodes {
                if node.name > self.taken {
                    self.add(node, most);
                }
                if self.has_more {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::prune::test_support::World;

    type Listed = Vec<(Vec<u8>, Node)>;

    /// What is listed until `stop` entries were, with room for `most` subdirectories.
    fn listed(reader: &BlobReader, tree: &BlobId, most: Option<usize>, stop: usize) -> Listed {
        let mut listed = Vec::new();
        list_within(reader, tree, b"/from", most, &mut |path, node| {
            listed.push((path.to_vec(), node.clone()));
            if listed.len() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .expect("readable");
        listed
    }

    /// The same, as the documentation has it.
    fn expected(reader: &BlobReader, tree: &BlobId, prefix: &[u8], out: &mut Listed) {
        let mut below = Vec::new();
        nodes(reader, tree, &mut |node| {
            let path = [prefix, b"/", &node.name].concat();
            if let NodeKind::Directory { tree } = node.kind {
                below.push((path.clone(), tree));
            }
            out.push((path, node));
            ControlFlow::Continue(())
        })
        .expect("readable");
        below.iter().for_each(|(path, tree)| expected(reader, tree, path, out));
    }

    #[test]
    fn however_few_subdirectories_are_in_mind_all_is_listed_in_the_same_order() {
        let mut world = World::new();
        for n in 0..7 {
            world.write(&format!("{n}"), b"between directories");
            for m in 0..n {
                world.write(&format!("{n}d/{m}/deep/er/f"), &[n, m]);
                world.write(&format!("{n}d/{m}/last"), &[n]);
            }
        }
        let repository = world.open();
        let snapshot = world.back_up(&repository);
        let (_, snapshot) = repository.find_snapshot(&snapshot.to_string()).expect("it was just made");
        let (reader, tree) = (repository.reader(), snapshot.tree);
        let mut all = Vec::new();
        expected(reader, &tree, b"/from", &mut all);
        assert!(all.len() > 100);
        for most in [0, 1, 2, 3, 5, 6, 7, SUBDIRECTORIES_MAX] {
            assert_eq!(listed(reader, &tree, Some(most), usize::MAX), all, "{most}");
            for stop in 1..all.len() {
                assert_eq!(listed(reader, &tree, Some(most), stop), all[..stop], "{most}, {stop}");
            }
        }
        let top = listed(reader, &tree, None, usize::MAX);
        assert_eq!((top.len(), &top[..]), (1, &all[..1]), "no deeper than asked");
    }

    /// Its tree has several parts: those before the place where it is read again are passed over.
    #[test]
    fn a_large_directory_is_read_again_from_where_it_was() {
        let mut world = World::new();
        for n in 0..2500 {
            world.write(&format!("{n:04}/f"), b"");
        }
        let repository = world.open();
        let snapshot = world.back_up(&repository);
        let (_, snapshot) = repository.find_snapshot(&snapshot.to_string()).expect("it was just made");
        let (reader, tree) = (repository.reader(), snapshot.tree);
        let all = listed(reader, &tree, Some(SUBDIRECTORIES_MAX), usize::MAX);
        assert!(all.len() > 5000);
        for most in [400, 1700, 2499, 2500] {
            assert!(listed(reader, &tree, Some(most), usize::MAX) == all, "{most}");
        }
        let source = find(reader, &tree, world.source.path().as_os_str().as_bytes()).expect("readable");
        let mut below = Subdirectories::of(source.tree().expect("a directory"), 0);
        nodes(reader, &below.tree.clone(), &mut |node| {
            below.add(node, 400);
            ControlFlow::Continue(())
        })
        .expect("readable");
        for n in 0..2500 {
            assert!(below.kept.len() <= 400 && !below.is_at_end());
            let (name, _) = below.next(reader, 400).expect("readable").expect("one more");
            assert_eq!(name, format!("{n:04}").as_bytes());
        }
        assert!(below.is_at_end());
    }
}
