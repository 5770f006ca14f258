//! The rules that trees and chunk tables keep, checked without reading anything else.

use serde_bytes::ByteBuf;

use crate::format::chunk_list::{self, Chunk, DEPTH_MAX, ListRef, TableError};
use crate::format::tree::{FileContent, Tree, TreePart};
use crate::format::tree_rules::TreeRuleError;

/// Trees are split at most this deep, as browsing has it.
const SPLIT_LEVELS_MAX: u8 = 8;

/// A tree or chunk table breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RuleError {
    /// A rule for whole trees.
    #[error("{0}")]
    Tree(&'static str),
    /// A rule that every reader checks.
    #[error(transparent)]
    Reader(#[from] TreeRuleError),
    /// A chunk table that is none.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A chunk table of another number of bytes.
    #[error("the chunks add up to {found} bytes, expected {expected}")]
    Sum {
        /// Bytes in the table.
        found: u64,
        /// Bytes that the file or the list above says.
        expected: u64,
    },
}

/// What the tree above says of a part of a split tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    /// It may be split this many times more.
    levels: u8,
    /// Its first name.
    first: ByteBuf,
    /// Its entries.
    entries: u64,
    /// All its names are below this one.
    below: Option<ByteBuf>,
}

/// Checks a tree by itself and against what the tree above says of it.
pub(crate) fn check_tree(tree: &Tree, part: Option<&Part>) -> Result<(), RuleError> {
    tree.validate()?;
    let last = match tree {
        Tree::Nodes(nodes) => nodes.last().map(|node| &node.name),
        Tree::Parts(_) if part.is_some_and(|part| part.levels == 0) => {
            return Err(RuleError::Tree("it is split too deep"));
        }
        Tree::Parts(parts) => parts.last().map(|part| &part.first),
    };
    let Some(part) = part else { return Ok(()) };
    if tree.first() != Some(&part.first) || tree.entries() != part.entries {
        return Err(RuleError::Tree(
            "its first name or its number of entries is not what the tree above says",
        ));
    }
    if part.below.as_ref().is_some_and(|below| last >= Some(below)) {
        return Err(RuleError::Tree("its names run into the next part"));
    }
    Ok(())
}

/// What a split tree, itself expected as `above`, says of each of its parts.
pub(crate) fn parts<'a>(
    parts: &'a [TreePart],
    above: Option<&'a Part>,
) -> impl Iterator<Item = (&'a TreePart, Part)> {
    let levels = above.map_or(SPLIT_LEVELS_MAX, |part| part.levels).saturating_sub(1);
    parts.iter().enumerate().map(move |(at, part)| {
        let next = parts.get(at + 1).map(|next| &next.first);
        let below = next.or(above.and_then(|above| above.below.as_ref())).cloned();
        (part, Part { levels, first: part.first.clone(), entries: part.entries, below })
    })
}

/// The entries of a chunk table.
#[derive(Debug)]
pub(crate) enum Table {
    /// Of depth 0.
    Chunks(Vec<Chunk>),
    /// Of a greater depth.
    Lists(Vec<ListRef>),
}

/// Reads a chunk table that has to stand for `bytes` bytes.
pub(crate) fn table(depth: u8, table: &[u8], bytes: u64) -> Result<Table, RuleError> {
    if depth > DEPTH_MAX {
        return Err(TableError::Depth { found: depth, expected: DEPTH_MAX }.into());
    }
    let (result, found) = if depth == 0 {
        let chunks = chunk_list::chunks(table)?.collect::<Result<Vec<_>, _>>()?;
        let sum = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        (Table::Chunks(chunks), Some(sum))
    } else {
        let lists = chunk_list::lists(table)?.collect::<Result<Vec<_>, _>>()?;
        if lists.is_empty() {
            return Err(TableError::EmptyList.into());
        }
        let sum = lists.iter().try_fold(0u64, |sum, list| sum.checked_add(list.bytes));
        (Table::Lists(lists), sum)
    };
    match found {
        Some(found) if found == bytes => Ok(result),
        found => Err(RuleError::Sum { found: found.unwrap_or(u64::MAX), expected: bytes }),
    }
}

/// The chunk table of a file, after checking its holes and that both add up to its size.
pub(crate) fn file_table(content: &FileContent) -> Result<Table, RuleError> {
    let (mut end, mut holes) = (None, 0);
    for hole in &content.holes {
        let hole_end = hole.offset.checked_add(hole.length);
        let in_order = end.is_none_or(|end| end < hole.offset);
        match hole_end {
            Some(hole_end) if in_order && hole.length > 0 && hole_end <= content.size => end = Some(hole_end),
            _ => return Err(RuleError::Tree("its holes are not in order or not inside the file")),
        }
        holes += hole.length;
    }
    table(content.depth, &content.chunks, content.size - holes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::{Hole, Metadata, Node, NodeKind};
    use crate::ids::BlobId;

    fn node(name: &str) -> Node {
        let kind = NodeKind::Fifo;
        Node { name: ByteBuf::from(name), kind, metadata: Metadata::default() }
    }

    fn part(first: &str, entries: u64) -> TreePart {
        TreePart { first: ByteBuf::from(first), entries, tree: BlobId::from_bytes([1; 32]) }
    }

    #[test]
    fn trees_that_break_a_rule_are_refused() {
        let nodes = |names: &[&str]| Tree::Nodes(names.iter().map(|name| node(name)).collect());
        assert_eq!(check_tree(&nodes(&["a", "b"]), None), Ok(()));
        assert_eq!(check_tree(&nodes(&[]), None), Ok(()), "an empty directory");
        for names in [&["b", "a"][..], &["a", "a"], &["."], &["a/b"], &[""]] {
            check_tree(&nodes(names), None).expect_err("wrong names");
        }
        let with = |change: &dyn Fn(&mut Node)| {
            let mut node = node("a");
            change(&mut node);
            check_tree(&Tree::Nodes(vec![node]), None)
        };
        with(&|node| node.metadata.mode = 0o100_644).expect_err("a file type in the mode");
        with(&|node| node.metadata.mtime.nanos = 1_000_000_000).expect_err("too many nanoseconds");
        with(&|node| node.metadata.device = Some(2)).expect_err("a device without links");
        with(&|node| node.kind = NodeKind::Symlink { target: ByteBuf::new() }).expect_err("an empty link");
    }

    #[test]
    fn parts_have_to_be_what_the_tree_above_says() {
        let above = vec![part("a", 2), part("c", 1)];
        check_tree(&Tree::Parts(above.clone()), None).expect("as writers make it");
        let expected: Vec<Part> = parts(&above, None).map(|(_, part)| part).collect();
        let check = |names: &[&str], at: usize| {
            check_tree(&Tree::Nodes(names.iter().map(|name| node(name)).collect()), Some(&expected[at]))
        };
        check(&["a", "b"], 0).expect("as said");
        check(&["c"], 1).expect("as said");
        check(&["a", "c"], 0).expect_err("runs into the next");
        check(&["a"], 0).expect_err("too few");
        check(&["b", "bb"], 0).expect_err("another first name");
        for wrong in [vec![], vec![part("b", 1), part("a", 1)], vec![part("a", 0)]] {
            check_tree(&Tree::Parts(wrong), None).expect_err("wrong parts");
        }
        let mut last = expected[0].clone();
        let nested = vec![part("a", 1), part("b", 1)];
        check_tree(&Tree::Parts(nested.clone()), Some(&last)).expect("split again");
        assert_eq!(
            parts(&nested, Some(&last)).last().map(|(_, part)| part.below),
            Some(Some(ByteBuf::from("c")))
        );
        last.levels = 0;
        check_tree(&Tree::Parts(nested), Some(&last)).expect_err("too deep");
    }

    #[test]
    fn content_has_to_add_up() {
        let mut chunks = Vec::new();
        chunk_list::push_chunk(&mut chunks, Chunk { id: BlobId::from_bytes([1; 32]), len: 10 });
        let content = |size, holes: &[(u64, u64)]| FileContent {
            size,
            chunks: ByteBuf::from(chunks.clone()),
            holes: holes.iter().map(|&(offset, length)| Hole { offset, length }).collect(),
            ..FileContent::default()
        };
        for good in [content(10, &[]), content(14, &[(2, 4)]), content(20, &[(0, 4), (5, 6)])] {
            file_table(&good).expect("adds up");
        }
        let wrong = [
            content(11, &[]),
            content(14, &[(11, 4)]),
            content(20, &[(0, 4), (4, 6)]),
            content(20, &[(5, 6), (0, 4)]),
            content(10, &[(3, 0)]),
            content(10, &[(u64::MAX, 2)]),
            FileContent { depth: 1, ..content(10, &[]) },
            FileContent { depth: 9, ..content(10, &[]) },
        ];
        for content in wrong {
            file_table(&content).expect_err("does not add up");
        }
        let nothing = FileContent { depth: 1, ..FileContent::default() };
        file_table(&nothing).expect_err("a list of nothing");
    }
}
