//! Following trees to all that they need: what a snapshot rests on.
//!
//! Trees are taken from a list of what is still to be read (`frontier`), some thousands at a time, sorted by their place: a
//! block with hundreds of trees is then decoded once for all of them. Which blobs were met before, and what to make of
//! each, is for the caller's [`Needs`] to say.

pub(crate) mod frontier;

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{self, Chunk, ChunkList, DEPTH_MAX, TableError};
use crate::format::record::{self, RecordError};
use crate::format::tree::{Node, NodeKind, Tree};
use crate::ids::BlobId;
use crate::index::{IndexError, Location};
use crate::spill::SpillError;
use crate::store::reader::DecodeScratch;
use crate::store::{BlobReader, ReadError};

use frontier::{Frontier, Next};

/// Trees looked up in one go at most.
const BATCH: usize = 4096;
/// Bytes of trees read in one go, but for the last one: what trees lead to takes about as much memory as they do.
const ROUND_LEN: u64 = 8 << 20;

/// A snapshot cannot be followed to all that it needs.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// A tree cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A tree or chunk list is not one.
    #[error("tree {id} is damaged: {source}")]
    Record {
        /// The blob.
        id: BlobId,
        /// How.
        source: RecordError,
    },
    /// A chunk table is wrong.
    #[error("tree {id} is damaged: {source}")]
    Table {
        /// The tree or chunk list that holds it.
        id: BlobId,
        /// How.
        source: TableError,
    },
    /// What the caller gathers has no room.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl From<IndexError> for ReachError {
    fn from(error: IndexError) -> Self {
        Self::Read(error.into())
    }
}

/// What is made of the blobs that are met.
pub trait Needs {
    /// A tree or chunk list. Returns where to read it if it is to be followed, none if it was met before.
    ///
    /// # Errors
    /// [`ReachError`] ends the walk.
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError>;

    /// A chunk of a file.
    ///
    /// # Errors
    /// [`ReachError`] ends the walk.
    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError>;

    /// A tree or chunk list that has no place or cannot be read. Returns its bytes from elsewhere, whose id the caller has
    /// verified, or none to go on without it and what is below it.
    ///
    /// # Errors
    /// [`ReachError`] ends the walk: so does every error, unless the caller knows better.
    fn unreadable(&mut self, id: &BlobId, error: ReachError) -> Result<Option<Vec<u8>>, ReachError> {
        let _ = id;
        Err(error)
    }

    /// Whether to stop.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A metadata blob that something refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The blob.
    pub id: BlobId,
    /// Of a chunk list, its depth; none for a tree.
    pub depth: Option<u8>,
}

impl From<BlobId> for Wanted {
    /// A tree.
    fn from(id: BlobId) -> Self {
        Self { id, depth: None }
    }
}

/// What a blob leads to.
#[derive(Default)]
struct Below {
    trees: Vec<Wanted>,
    chunks: Vec<Chunk>,
    /// What cannot be read or is none, with the reason.
    unreadable: Vec<(Wanted, ReachError)>,
}

/// Follows `roots`, trees unless they say otherwise, and everything below them.
///
/// # Errors
/// [`ReachError`] at the first thing that cannot be read.
pub fn follow(
    reader: &BlobReader,
    roots: impl IntoIterator<Item: Into<Wanted>>,
    needs: &mut dyn Needs,
    threads: usize,
) -> Result<(), ReachError> {
    let mut frontier = Frontier::new(roots.into_iter().map(Into::into).collect());
    while let Some(next) = frontier.next(BATCH) {
        if needs.is_cancelled() {
            return Err(ReachError::Cancelled);
        }
        let mut unreadable = Vec::new();
        let located = match next {
            Next::Batch(batch) => locate(batch, needs, &mut unreadable),
            Next::Rest(rest) => rest,
        };
        let mut left = located.as_slice();
        while !left.is_empty() && !frontier.is_full() {
            let (round, later) = left.split_at(round_len(left, &|(_, at)| at));
            left = later;
            let groups: Vec<_> = round.chunk_by(|(_, a), (_, b)| is_same_block(a, b)).collect();
            for mut below in read_groups(reader, &groups, threads) {
                unreadable.append(&mut below.unreadable);
                take(needs, below, &mut frontier)?;
            }
        }
        for (wanted, error) in unreadable {
            if let Some(bytes) = needs.unreadable(&wanted.id, error)? {
                let mut below = Below::default();
                blob(&wanted, &bytes, &mut below)?;
                take(needs, below, &mut frontier)?;
            }
        }
        frontier.put_by(left.to_vec());
    }
    Ok(())
}

/// Where those are that are to be read, in the order of their places.
fn locate(
    mut batch: Vec<Wanted>,
    needs: &mut dyn Needs,
    unreadable: &mut Vec<(Wanted, ReachError)>,
) -> Vec<(Wanted, Location)> {
    // In the order of ids each page of the index is opened once.
    batch.sort_unstable_by_key(|wanted| wanted.id);
    let mut located = Vec::with_capacity(batch.len());
    for wanted in batch {
        match needs.tree(&wanted.id) {
            Ok(location) => located.extend(location.map(|location| (wanted, location))),
            Err(error) => unreadable.push((wanted, error)),
        }
    }
    located.sort_unstable_by_key(|(_, at)| (at.pack.id, at.entry.block.position, at.entry.offset));
    located
}

/// Whether two blobs lie in one block.
pub(crate) fn is_same_block(a: &Location, b: &Location) -> bool {
    a.pack.id == b.pack.id && a.entry.block == b.entry.block
}

/// How many of these, of which there is one at least, are read in one go: whole blocks of them.
pub(crate) fn round_len<T>(located: &[T], at: &dyn Fn(&T) -> &Location) -> usize {
    let mut bytes = 0;
    let is_within = |group: &&[T]| {
        let fits = bytes < ROUND_LEN;
        bytes += group.iter().map(|item| u64::from(at(item).entry.len)).sum::<u64>();
        fits
    };
    located.chunk_by(|a, b| is_same_block(at(a), at(b))).take_while(is_within).map(<[T]>::len).sum()
}

/// Hands over what a blob leads to.
fn take(
    needs: &mut dyn Needs,
    below: Below,
    frontier: &mut Frontier<Wanted, (Wanted, Location)>,
) -> Result<(), ReachError> {
    below.chunks.iter().try_for_each(|chunk| needs.chunk(chunk))?;
    frontier.extend(below.trees);
    Ok(())
}

/// Reads groups of one block each, on several threads.
fn read_groups(reader: &BlobReader, groups: &[&[(Wanted, Location)]], threads: usize) -> Vec<Below> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut below = Below::default();
        let (mut scratch, mut raw) = (DecodeScratch::default(), Vec::new());
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            read_group(reader, group, &mut scratch, &mut raw, &mut below);
        }
        below
    };
    let threads = threads.max(1).min(groups.len());
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut all = vec![run()];
        for other in others {
            match other.join() {
                Ok(below) => all.push(below),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

fn read_group(
    reader: &BlobReader,
    group: &[(Wanted, Location)],
    scratch: &mut DecodeScratch,
    raw: &mut Vec<u8>,
    below: &mut Below,
) {
    let Some((_, first)) = group.first() else { return };
    let block = reader.read_block(&first.pack, &first.entry.block, scratch, raw);
    for (wanted, at) in group {
        let bytes = match &block {
            Ok(()) => {
                let (offset, len) = (at.entry.offset, at.entry.len);
                reader.verified(first.pack.id, BlobKind::Tree, &wanted.id, raw, offset, len)
            }
            Err(_) => Err(ReadError::Missing { id: wanted.id, kind: BlobKind::Tree }),
        };
        let result = match bytes {
            Ok(bytes) => blob(wanted, bytes, below),
            // There may be another copy; if not, this says what is wrong.
            Err(_) => match reader.read(BlobKind::Tree, &wanted.id) {
                Ok(bytes) => blob(wanted, &bytes, below),
                Err(error) => Err(error.into()),
            },
        };
        below.unreadable.extend(result.err().map(|error| (*wanted, error)));
    }
}

fn blob(wanted: &Wanted, bytes: &[u8], below: &mut Below) -> Result<(), ReachError> {
    let id = wanted.id;
    let damaged = |source| ReachError::Record { id, source };
    let Some(depth) = wanted.depth else {
        match record::decode(bytes).map_err(damaged)? {
            Tree::Nodes(nodes) => nodes.iter().try_for_each(|node| entry(id, node, below))?,
            Tree::Parts(parts) => {
                below.trees.extend(parts.iter().map(|part| Wanted { id: part.tree, depth: None }));
            }
        }
        return Ok(());
    };
    let list: ChunkList = record::decode(bytes).map_err(damaged)?;
    if list.depth != depth {
        let source = TableError::Depth { found: list.depth, expected: depth };
        return Err(ReachError::Table { id, source });
    }
    table(id, depth, &list.chunks, below)
}

fn entry(id: BlobId, node: &Node, below: &mut Below) -> Result<(), ReachError> {
    match &node.kind {
        NodeKind::Directory { tree } => below.trees.push(Wanted { id: *tree, depth: None }),
        NodeKind::File(content) => table(id, content.depth, &content.chunks, below)?,
        _ => {}
    }
    Ok(())
}

fn table(id: BlobId, depth: u8, table: &[u8], below: &mut Below) -> Result<(), ReachError> {
    let damaged = |source| ReachError::Table { id, source };
    if depth > DEPTH_MAX {
        return Err(damaged(TableError::Depth { found: depth, expected: DEPTH_MAX }));
    }
    if depth == 0 {
        for chunk in chunk_list::chunks(table).map_err(damaged)? {
            below.chunks.push(chunk.map_err(damaged)?);
        }
        return Ok(());
    }
    for list in chunk_list::lists(table).map_err(damaged)? {
        let list = list.map_err(damaged)?;
        below.trees.push(Wanted { id: list.id, depth: Some(depth - 1) });
    }
    Ok(())
}
