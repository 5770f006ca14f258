//! What the parent snapshots have of a directory: gone through beside the names of the source, piece by piece.

use std::sync::Arc;

use crate::browse::{Piece, Pieces};
use crate::format::tree::{Metadata, Node, NodeKind};
use crate::ids::BlobId;
use crate::source::SourceStat;
use crate::store::BlobReader;

/// An entry of a parent snapshot. The piece it belongs to stays in memory with it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    piece: Arc<Piece>,
    index: usize,
    /// Number of the parent snapshot.
    pub parent: usize,
}

impl Known {
    pub fn node(&self) -> &Node {
        &self.piece.nodes[self.index]
    }

    /// The tree, if it is a directory.
    pub fn tree(&self) -> Option<BlobId> {
        match &self.node().kind {
            NodeKind::Directory { tree } => Some(*tree),
            _ => None,
        }
    }

    /// The metadata, if it is a directory for which they still hold, as `stat` says.
    pub fn unchanged_dir(&self, stat: &SourceStat) -> Option<&Metadata> {
        let Node { kind, metadata, .. } = self.node();
        let is_dir = matches!(kind, NodeKind::Directory { .. });
        (is_dir && stat.looks_unchanged(metadata, 0)).then_some(metadata)
    }

    /// The tree blob that holds all of some entries and no others.
    pub fn whole_piece<'a>(mut entries: impl ExactSizeIterator<Item = Option<&'a Self>>) -> Option<BlobId> {
        let len = entries.len();
        let first = entries.next()??;
        let follows = |(index, known): (usize, Option<&Self>)| {
            known.is_some_and(|known| known.index == index && Arc::ptr_eq(&known.piece, &first.piece))
        };
        let is_whole = first.index == 0 && first.piece.nodes.len() == len;
        (is_whole && (1..).zip(entries).all(follows)).then_some(first.piece.tree)
    }
}

/// A directory of a parent snapshot. Of its pieces one is in memory.
#[derive(Debug)]
pub(super) struct ParentDir {
    parent: usize,
    pieces: Pieces,
    piece: Option<Arc<Piece>>,
    /// The first entry of the piece that was not passed.
    place: usize,
    /// Whether something could not be read, which is told once.
    has_failed: bool,
    /// What the pieces weighed that were read.
    weight: u64,
}

impl ParentDir {
    /// The directory with this tree in the parent snapshot of this number.
    pub fn new(parent: usize, tree: BlobId) -> Self {
        Self { parent, pieces: Pieces::new(tree), piece: None, place: 0, has_failed: false, weight: 0 }
    }

    /// Bytes of memory that all pieces take which were read so far: entries found in them hold them.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The entry called `name`; names are asked for in ascending order. What cannot be read counts as absent; the first time
    /// it is told to `fail`.
    pub fn find(&mut self, reader: &BlobReader, name: &[u8], fail: &mut dyn FnMut(String)) -> Option<Known> {
        loop {
            if let Some(piece) = &self.piece {
                while let Some(node) = piece.nodes.get(self.place) {
                    match node.name.as_slice().cmp(name) {
                        std::cmp::Ordering::Less => self.place += 1,
                        std::cmp::Ordering::Equal => {
                            let piece = Arc::clone(piece);
                            return Some(Known { piece, index: self.place, parent: self.parent });
                        }
                        std::cmp::Ordering::Greater => return None,
                    }
                }
            }
            (self.piece, self.place) = (None, 0);
            self.pieces.skip_to(name);
            match self.pieces.next(reader)? {
                Ok(piece) => {
                    self.weight += piece.nodes.iter().map(Node::weight).sum::<u64>();
                    self.piece = Some(Arc::new(piece));
                }
                Err(_) if self.has_failed => {}
                Err(error) => {
                    self.has_failed = true;
                    fail(format!("cannot read all of the parent snapshot here, more is read again: {error}"));
                }
            }
        }
    }
}

/// The entry called `name` in all parents that have it.
pub(super) fn find_all(
    parents: &mut [ParentDir],
    reader: &BlobReader,
    name: &[u8],
    fail: &mut dyn FnMut(String),
) -> impl Iterator<Item = Known> {
    parents.iter_mut().filter_map(move |parent| parent.find(reader, name, fail))
}
