//! Directories as tree blobs: one for most, a few levels of them for very large ones, split by content.

use serde::Serialize;

use crate::chunk::split::{PIECE_WEIGHT_MAX, Splitter, TREE_RULE};
use crate::format::record;
use crate::format::tree::{Node, PART_WEIGHT, TreePart};
use crate::ids::BlobId;

/// A tree as it is encoded, without copying nodes.
#[derive(Serialize)]
enum TreeRef<'a> {
    #[serde(rename = "nodes")]
    Nodes(&'a [&'a Node]),
    #[serde(rename = "parts")]
    Parts(&'a [TreePart]),
}

/// An entry on its way into a tree.
pub trait TreeEntry: Sized {
    /// Its node.
    fn node(&self) -> &Node;

    /// The tree blob that holds just these entries, if one is known to be stored.
    fn stored(entries: &[Self]) -> Option<BlobId> {
        let _ = entries;
        None
    }
}

impl TreeEntry for &Node {
    fn node(&self) -> &Node {
        self
    }
}

/// A directory that is being stored: its entries come in name order, and each piece is stored when it is complete, so that
/// no more than some thousand entries are in memory.
#[derive(Debug, Clone)]
pub struct TreeBuilder<E> {
    /// Entries that are in no piece yet.
    pending: Vec<E>,
    /// What they weigh.
    weight: u64,
    /// Whether the directory has outgrown a single blob.
    is_split: bool,
    parts: Vec<TreePart>,
}

impl<E> Default for TreeBuilder<E> {
    fn default() -> Self {
        Self { pending: Vec::new(), weight: 0, is_split: false, parts: Vec::new() }
    }
}

impl<E: TreeEntry> TreeBuilder<E> {
    /// Adds the next entry. Complete pieces are handed to `put`, which returns their ids.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn push<F>(
        &mut self,
        entry: E,
        splitter: &Splitter<'_>,
        put: &mut dyn FnMut(&[u8]) -> Result<BlobId, F>,
    ) -> Result<(), F> {
        let node = entry.node();
        self.weight += node.weight();
        let len = self.pending.len() + 1;
        if self.is_split {
            let ends = splitter.ends_after(&TREE_RULE, len, self.weight, &node.name);
            self.pending.push(entry);
            return if ends { self.end_piece(put) } else { Ok(()) };
        }
        self.pending.push(entry);
        if len > TREE_RULE.whole_max || self.weight > PIECE_WEIGHT_MAX {
            self.is_split = true;
            self.weight = 0;
            let entries = std::mem::take(&mut self.pending);
            return entries.into_iter().try_for_each(|entry| self.push(entry, splitter, put));
        }
        Ok(())
    }

    fn end_piece<F>(&mut self, put: &mut dyn FnMut(&[u8]) -> Result<BlobId, F>) -> Result<(), F> {
        let tree = match E::stored(&self.pending) {
            Some(tree) => tree,
            None => {
                let nodes: Vec<&Node> = self.pending.iter().map(TreeEntry::node).collect();
                put(&record::encode(&TreeRef::Nodes(&nodes)))?
            }
        };
        let first = self.pending.first().map(|entry| entry.node().name.clone()).unwrap_or_default();
        self.parts.push(TreePart { first, entries: self.pending.len() as u64, tree });
        self.pending.clear();
        self.weight = 0;
        Ok(())
    }

    /// Stores what is left, and what joins the pieces; returns the directory's tree.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn finish<F>(
        mut self,
        splitter: &Splitter<'_>,
        put: &mut dyn FnMut(&[u8]) -> Result<BlobId, F>,
    ) -> Result<BlobId, F> {
        if !self.pending.is_empty() || self.parts.is_empty() {
            self.end_piece(put)?;
        }
        let mut parts = self.parts;
        while parts.len() > 1 {
            parts = put_parts(splitter, &parts, put)?;
        }
        Ok(parts.pop().expect("a directory has at least one piece, if an empty one").tree)
    }
}

/// Stores a directory of these nodes, which ascend by name, and returns its tree. Each blob is handed to `put`, which
/// returns its id.
///
/// # Errors
/// Those of `put`.
pub fn put_tree<E>(
    splitter: &Splitter<'_>,
    nodes: &[&Node],
    put: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
) -> Result<BlobId, E> {
    let mut builder = TreeBuilder::default();
    nodes.iter().try_for_each(|node| builder.push(*node, splitter, put))?;
    builder.finish(splitter, put)
}

/// Stores one level of a split directory above `parts`.
fn put_parts<E>(
    splitter: &Splitter<'_>,
    parts: &[TreePart],
    put: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
) -> Result<Vec<TreePart>, E> {
    let items = parts.iter().map(|part| (part.first.as_slice(), PART_WEIGHT));
    let pieces = splitter.pieces(&TREE_RULE, items);
    let mut above = Vec::with_capacity(pieces.len());
    let mut rest = parts;
    for piece in pieces {
        let (parts, after) = rest.split_at(piece);
        rest = after;
        let tree = put(&record::encode(&TreeRef::Parts(parts)))?;
        let entries = parts.iter().map(|part| part.entries).sum();
        above.push(TreePart { first: parts[0].first.clone(), entries, tree });
    }
    Ok(above)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::crypto::keys::BlobKind;
    use crate::crypto::{KeySet, RootSecret};
    use crate::format::tree::{Metadata, NodeKind, Tree, Xattr};

    /// A node that weighs about `weight` more than others.
    fn node(number: u32, weight: usize) -> Node {
        let xattr = Xattr { name: ByteBuf::from("user.x"), value: ByteBuf::from(vec![1; weight]) };
        let xattrs = if weight == 0 { vec![] } else { vec![xattr] };
        Node {
            name: ByteBuf::from(format!("name-{number:06}")),
            kind: NodeKind::Fifo,
            metadata: Metadata { xattrs, ..Metadata::default() },
        }
    }

    /// The pieces as the rule for whole lists has them, and the level above them.
    fn by_the_rule(splitter: &Splitter<'_>, nodes: &[Node]) -> Vec<Tree> {
        let items = nodes.iter().map(|node| (node.name.as_slice(), node.weight()));
        let mut rest = nodes;
        let mut trees = Vec::new();
        for piece in splitter.pieces(&TREE_RULE, items) {
            let (nodes, after) = rest.split_at(piece);
            rest = after;
            trees.push(Tree::Nodes(nodes.to_vec()));
        }
        trees
    }

    fn check(nodes: &[Node]) {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let splitter = Splitter::new(&keys);
        let mut put = Vec::new();
        let refs: Vec<&Node> = nodes.iter().collect();
        let root = put_tree(&splitter, &refs, &mut |bytes| {
            put.push(bytes.to_vec());
            Ok::<_, Infallible>(keys.blob_id(BlobKind::Tree, bytes))
        })
        .unwrap();
        let expected = by_the_rule(&splitter, nodes);
        let trees: Vec<Tree> = put.iter().map(|bytes| record::decode(bytes).unwrap()).collect();
        assert!(trees[..expected.len()] == expected);
        let by_id: BTreeMap<_, _> =
            put.iter().zip(&trees).map(|(bytes, tree)| (keys.blob_id(BlobKind::Tree, bytes), tree)).collect();
        assert!(by_id.contains_key(&root));
        assert_eq!(by_id[&root].entries(), nodes.len() as u64);
        if expected.len() > 1 {
            let Tree::Parts(parts) = &trees[expected.len()] else { panic!("something joins the pieces") };
            for (part, piece) in parts.iter().zip(&expected) {
                assert!(by_id[&part.tree] == piece);
                part.check(piece).unwrap();
            }
        }
    }

    #[test]
    fn few_entries_are_one_blob_and_one_more_is_split() {
        for len in [0, 1, 2, TREE_RULE.whole_max, TREE_RULE.whole_max + 1, 3 * TREE_RULE.whole_max] {
            check(&(0..len as u32).map(|number| node(number, 0)).collect::<Vec<_>>());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Entry by entry, a directory is split as the rule says for the whole list.
        #[test]
        fn pieces_are_those_of_the_whole_list(
            len in 0..6000_u32,
            heavy in prop::collection::vec((0..6000_u32, 0..5_usize << 20), 0..6),
        ) {
            let heavy: BTreeMap<u32, usize> = heavy.into_iter().collect();
            let weight = |number| heavy.get(&number).copied().unwrap_or(0);
            check(&(0..len).map(|number| node(number, weight(number))).collect::<Vec<_>>());
        }
    }
}
