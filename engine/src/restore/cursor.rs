//! Going through a directory of a snapshot entry by entry, holding one part of it at a time.

use serde_bytes::ByteBuf;

use crate::browse::{self, BrowseError};
use crate::format::tree::{Node, PART_WEIGHT, Tree, TreePart};
use crate::format::tree_rules::{EntryRule, PART_DEPTH_MAX, TreeRuleError};
use crate::ids::BlobId;
use crate::store::BlobReader;

/// A place in a directory. [`Cursor::park`] gives back most of its memory.
pub(super) struct Cursor {
    levels: Vec<Level>,
    /// The last name that was given.
    last: ByteBuf,
    /// The name that the last part begins with that was entered.
    entered: ByteBuf,
}

struct Level {
    tree: BlobId,
    /// What the tree above says of it, where it is a part of a split directory.
    part: Option<TreePart>,
    /// Entries or parts that were taken.
    taken: usize,
    loaded: Option<Loaded>,
    /// About the memory that was loaded, in bytes.
    loaded_len: u64,
}

enum Loaded {
    Nodes(std::vec::IntoIter<Node>),
    Parts(std::vec::IntoIter<TreePart>),
}

impl Cursor {
    /// Before the first entry of `tree`.
    pub(super) fn new(tree: BlobId) -> Self {
        Self { levels: vec![Level::new(tree, None)], last: ByteBuf::new(), entered: ByteBuf::new() }
    }

    /// The next entry in name order. After an error, what can be read of the rest follows.
    ///
    /// A part of a split directory is entered if it is what the tree above says of it, and begins with a name that comes after
    /// all before it: so none is entered twice, however parts lead to each other, and this ends.
    pub(super) fn next(&mut self, reader: &BlobReader) -> Option<Result<Node, BrowseError>> {
        loop {
            let depth = self.levels.len();
            let level = self.levels.last_mut()?;
            let tree = level.tree;
            let rules = |source| Some(Err(BrowseError::Rules { tree, source }));
            if level.loaded.is_none()
                && let Err(error) = level.load(reader)
            {
                self.levels.pop();
                return Some(Err(error));
            }
            let part = match &mut level.loaded {
                Some(Loaded::Nodes(nodes)) => match nodes.next() {
                    Some(node) => {
                        level.taken += 1;
                        if crate::target::check_name(&node.name).is_err() {
                            return rules(entry_error(&node.name, EntryRule::Name));
                        }
                        if self.last >= node.name {
                            return rules(entry_error(&node.name, EntryRule::Order));
                        }
                        self.last.clone_from(&node.name);
                        return Some(Ok(node));
                    }
                    None => None,
                },
                Some(Loaded::Parts(parts)) => parts.next(),
                None => None,
            };
            level.taken += 1;
            match part {
                None => {
                    self.levels.pop();
                }
                Some(_) if depth > PART_DEPTH_MAX => {
                    self.levels.pop();
                    return rules(TreeRuleError::Depth);
                }
                // The first one begins with what the one does that it is a part of.
                Some(part) if self.last >= part.first || level.taken > 1 && self.entered >= part.first => {
                    // Told once, whatever the number of those that come too late.
                    level.pass_over((&self.last).max(&self.entered));
                    return rules(entry_error(&part.first, EntryRule::Order));
                }
                Some(part) => {
                    self.entered.clone_from(&part.first);
                    self.levels.push(Level::new(part.tree, Some(part)));
                }
            }
        }
    }

    /// Drops what is in memory; [`Cursor::next`] reads it again.
    pub(super) fn park(&mut self) {
        self.levels.iter_mut().for_each(|level| (level.loaded, level.loaded_len) = (None, 0));
    }

    /// About the bytes in memory.
    pub(super) fn loaded_len(&self) -> u64 {
        self.levels.iter().map(|level| level.loaded_len).sum()
    }
}

impl Level {
    fn new(tree: BlobId, part: Option<TreePart>) -> Self {
        Self { tree, part, taken: 0, loaded: None, loaded_len: 0 }
    }

    /// Reads the tree. Entries are judged one by one as they are taken, all else now.
    fn load(&mut self, reader: &BlobReader) -> Result<(), BrowseError> {
        let tree = browse::load_unchecked(reader, &self.tree)?;
        let judged = match &tree {
            Tree::Nodes(_) => Ok(()),
            Tree::Parts(_) => tree.validate(),
        };
        judged
            .and_then(|()| self.part.as_ref().map_or(Ok(()), |part| part.check(&tree)))
            .map_err(|source| BrowseError::Rules { tree: self.tree, source })?;
        self.loaded_len = match &tree {
            Tree::Nodes(nodes) => nodes.iter().map(|node| node.weight() + size_of::<Node>() as u64).sum(),
            Tree::Parts(parts) => parts.len() as u64 * PART_WEIGHT,
        };
        self.loaded = Some(match tree {
            Tree::Nodes(nodes) => Loaded::Nodes(skipped(nodes, self.taken)),
            Tree::Parts(parts) => Loaded::Parts(skipped(parts, self.taken)),
        });
        Ok(())
    }

    /// Takes the parts that begin with no later name than `last`.
    fn pass_over(&mut self, last: &[u8]) {
        if let Some(Loaded::Parts(parts)) = &mut self.loaded {
            while parts.as_slice().first().is_some_and(|part| last >= part.first.as_slice()) {
                parts.next();
                self.taken += 1;
            }
        }
    }
}

fn entry_error(name: &[u8], rule: EntryRule) -> TreeRuleError {
    TreeRuleError::Entry { entry: name.escape_ascii().to_string(), rule }
}

fn skipped<T>(items: Vec<T>, taken: usize) -> std::vec::IntoIter<T> {
    let mut items = items.into_iter();
    if taken > 0 {
        items.nth(taken - 1);
    }
    items
}
