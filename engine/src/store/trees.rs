//! Directories as tree blobs: one for most, a few levels of them for very large ones, split by content.

use serde::Serialize;

use crate::chunk::split::{Splitter, TREE_RULE};
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
    let items = nodes.iter().map(|node| (node.name.as_slice(), node.weight()));
    let pieces = splitter.pieces(&TREE_RULE, items);
    let mut parts = Vec::with_capacity(pieces.len());
    let mut rest = nodes;
    for piece in pieces {
        let (nodes, after) = rest.split_at(piece);
        rest = after;
        let tree = put(&record::encode(&TreeRef::Nodes(nodes)))?;
        let first = nodes.first().map(|node| node.name.clone()).unwrap_or_default();
        parts.push(TreePart { first, entries: nodes.len() as u64, tree });
    }
    while parts.len() > 1 {
        parts = put_parts(splitter, &parts, put)?;
    }
    Ok(parts.pop().expect("a list of any length has at least one piece").tree)
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
