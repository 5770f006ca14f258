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
    last: ByteBuf,
}

struct Level {
    tree: BlobId,
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
        Self { levels: vec![Level { tree, taken: 0, loaded: None, loaded_len: 0 }], last: ByteBuf::new() }
    }

    /// The next entry in name order. After an error, what can be read of the rest follows.
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
                Some(part) => {
                    self.levels.push(Level { tree: part.tree, taken: 0, loaded: None, loaded_len: 0 });
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
    fn load(&mut self, reader: &BlobReader) -> Result<(), BrowseError> {
        let tree = browse::load_unchecked(reader, &self.tree)?;
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
