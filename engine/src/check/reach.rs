//! The part of the check that follows every live snapshot to its trees and chunks.
//!
//! Trees are taken from a list of what is still to be read, some thousands at a time, sorted by their place: a
//! block with hundreds of trees is then decoded once for all of them. Each tree is read once, however many
//! snapshots share it.
//!
//! Chunks are gathered on the way and looked up all at once afterwards. Only if some of them may have no home, all trees are
//! read once more, to look these up one by one and to tell which files list them.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

use crate::check::context::{Context, lock};
use crate::check::homes::{Chunks, Doubted};
use crate::check::segments::Segments;
use crate::check::trees::{self, Part, RuleError, Table};
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{Chunk, ChunkList};
use crate::format::header::ObjectKind;
use crate::format::record;
use crate::format::tree::{Node, NodeKind, Tree};
use crate::ids::BlobId;
use crate::index::{Index, IndexError, Location, Meeting, Met};
use crate::log::{Fold, FoldError, snapshot_record};
use crate::reach;
use crate::reach::frontier::{Frontier, Next};
use crate::spill::SpillError;
use crate::store::reader::DecodeScratch;
use crate::store::{BlobReader, ReadError};

/// Trees looked up in one go at most.
const BATCH: usize = 8192;

/// A metadata blob that something refers to, and what it says of it.
enum Wanted {
    Tree { id: BlobId, part: Option<Box<Part>> },
    List { id: BlobId, depth: u8, bytes: u64 },
}

impl Wanted {
    fn id(&self) -> &BlobId {
        match self {
            Self::Tree { id, .. } | Self::List { id, .. } => id,
        }
    }

    /// Equal for equal blobs of which equal things are said, which need not be read twice.
    fn key(&self) -> u128 {
        let id = self.id().as_bytes().first_chunk().map_or(0, |first| u128::from_le_bytes(*first));
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let said = match self {
            Self::Tree { part: None, .. } => 0,
            Self::Tree { part: Some(part), .. } => hasher.hash_one(part),
            Self::List { depth, bytes, .. } => hasher.hash_one((depth, bytes)),
        };
        id ^ (u128::from(said) << 64 | u128::from(said))
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, key: u128) {
        // Half of the key is as good as all of it.
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What need not be read any more.
struct Seen {
    /// Directories, but for parts of large ones.
    trees: Met,
    /// Those parts, chunk lists, and what is not in the index.
    others: HashSet<u128, BuildHasherDefault<KeyHasher>>,
}

impl Seen {
    fn is_new(&mut self, wanted: &Wanted) -> bool {
        if let Wanted::Tree { id, part: None } = wanted {
            match self.trees.meet(id) {
                Ok(Meeting::First(_)) => return true,
                Ok(Meeting::Again) => return false,
                // Told when it is looked up to be read.
                Ok(Meeting::Nowhere) | Err(_) => {}
            }
        }
        self.others.insert(wanted.key())
    }
}

struct Located {
    wanted: Wanted,
    location: Location,
}

struct Reach<'a> {
    context: &'a Context<'a>,
    reader: &'a BlobReader,
    index: &'a Arc<Index>,
    /// Chunks met in the first walk.
    chunks: Mutex<Chunks>,
    /// Why there is no room for them.
    failed: OnceLock<SpillError>,
    /// Those to be looked up in the second walk.
    doubted: Option<Doubted>,
    /// What was told of trees, by hashes of the messages: the second walk comes upon it again.
    told: Mutex<HashSet<u64>>,
}

/// Checks that everything live snapshots need is in the index, and all trees.
///
/// # Errors
/// [`SpillError`] where there is no room to gather chunks.
pub(super) fn check(
    context: &Context<'_>,
    fold: &Fold,
    reader: &BlobReader,
    segments: &Segments,
) -> Result<(), SpillError> {
    let options = context.options;
    let mut reach = Reach {
        context,
        reader,
        index: &segments.index,
        chunks: Mutex::new(Chunks::new(options.memory, options.spill.clone())),
        failed: OnceLock::new(),
        doubted: None,
        told: Mutex::default(),
    };
    let roots: Vec<BlobId> = fold.snapshots().filter_map(|entry| reach.snapshot(entry)).collect();
    reach.walk(&roots);
    if let Some(error) = reach.failed.take() {
        return Err(error);
    }
    reach.doubted = lock(&reach.chunks).doubted(segments, &|| context.is_over())?;
    if reach.doubted.is_some() {
        reach.walk(&roots);
    }
    Ok(())
}

impl Reach<'_> {
    /// Reads these trees and everything below them.
    fn walk(&self, roots: &[BlobId]) {
        let mut seen = Seen { trees: Met::new(Arc::clone(self.index)), others: HashSet::default() };
        let mut pending: Vec<_> = roots.iter().map(|id| Wanted::Tree { id: *id, part: None }).collect();
        pending.retain(|wanted| seen.is_new(wanted));
        let mut frontier = Frontier::new(pending);
        while let Some(next) = frontier.next(BATCH) {
            let mut left = match next {
                Next::Batch(batch) => self.locate_all(batch),
                Next::Rest(rest) => rest,
            };
            while !left.is_empty() && !frontier.is_full() {
                if self.context.is_over() || self.failed.get().is_some() {
                    return;
                }
                let later = left.split_off(reach::round_len(&left, &|located| &located.location));
                let below = self.read(&left);
                frontier.extend(below.into_iter().filter(|wanted| seen.is_new(wanted)));
                left = later;
            }
            frontier.put_by(left);
        }
    }

    /// Checks a snapshot's record; its root tree is what it leads to.
    fn snapshot(&self, entry: &crate::format::state::SnapshotEntry) -> Option<BlobId> {
        let (id, context) = (entry.snapshot, self.context);
        let wrong = |message: String| {
            context.unreachable("snapshot-damaged", &"", format!("snapshot {id}: {message}"));
        };
        // The same id would be the same bytes: reading it verifies that.
        match self.reader.read(BlobKind::Snapshot, id.blob()) {
            Ok(record) if record == **entry.record => {}
            // A backup that stored nothing else has no pack for it.
            Err(ReadError::Missing { .. }) => {}
            Ok(_) => wrong("the record in its pack is not the one in its commit".into()),
            Err(error) => wrong(format!("its record cannot be read from its pack: {error}")),
        }
        match snapshot_record(self.reader.keys(), id, &entry.record) {
            Ok(snapshot) => return Some(snapshot.tree),
            Err(error @ FoldError::NewerSnapshot { .. }) => {
                context.note("snapshot-not-understood", &"", error.to_string());
                context.unread_snapshots.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => wrong(error.to_string()),
        }
        None
    }

    /// Where these are, in the order of their places.
    fn locate_all(&self, batch: Vec<Wanted>) -> Vec<Located> {
        let slots: Vec<_> = batch.into_iter().map(|wanted| Mutex::new(Some(wanted))).collect();
        let mut located: Vec<Located> = self.context.spread(
            &slots,
            || (),
            |(), slot, out| {
                let wanted = slot.lock().ok().and_then(|mut slot| slot.take());
                out.extend(wanted.and_then(|wanted| self.locate(wanted)));
            },
        );
        located.sort_unstable_by_key(|at| (at.location.pack.id, at.location.entry.block.position));
        located
    }

    /// Reads these, and returns what they lead to.
    fn read(&self, located: &[Located]) -> Vec<Wanted> {
        let is_same_block = |a: &Located, b: &Located| reach::is_same_block(&a.location, &b.location);
        let groups: Vec<&[Located]> = located.chunk_by(is_same_block).collect();
        self.context.spread(&groups, Scratch::default, |scratch, group, out| {
            self.read_group(scratch, group, out);
        })
    }

    fn locate(&self, wanted: Wanted) -> Option<Located> {
        let id = *wanted.id();
        let problem = match self.find(&id, |location| location.pack.header.kind == ObjectKind::MetadataPack) {
            Ok(Some(location)) => return Some(Located { wanted, location }),
            Ok(None) => "it is not in the index of metadata packs".to_owned(),
            Err(error) => error.to_string(),
        };
        self.tell("blob-missing", &"", format!("tree {id}: {problem}"));
        None
    }

    /// Notes that something is wrong with a tree, unless the first walk did so.
    fn tell(&self, code: &'static str, object: &dyn std::fmt::Display, message: String) {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&message);
        if lock(&self.told).insert(hash) || self.doubted.is_none() {
            self.context.unreachable(code, object, message);
        }
    }

    /// A place of the blob that fits.
    fn find(&self, id: &BlobId, fits: impl Fn(&Location) -> bool) -> Result<Option<Location>, IndexError> {
        match self.index.get(id)? {
            Some(location) if fits(&location) => Ok(Some(location)),
            Some(_) => Ok(self.index.get_all(id)?.into_iter().find(fits)),
            None => Ok(None),
        }
    }

    fn read_group(&self, scratch: &mut Scratch, group: &[Located], out: &mut Vec<Wanted>) {
        let Some(Located { location: first, .. }) = group.first() else { return };
        let block =
            self.reader.read_block(&first.pack, &first.entry.block, &mut scratch.decode, &mut scratch.raw);
        for Located { wanted, location } in group {
            let (id, entry) = (wanted.id(), &location.entry);
            let bytes = match &block {
                Ok(()) => self.reader.verified(
                    first.pack.id,
                    BlobKind::Tree,
                    id,
                    &scratch.raw,
                    entry.offset,
                    entry.len,
                ),
                Err(_) => Err(ReadError::Missing { id: *id, kind: BlobKind::Tree }),
            };
            match bytes {
                Ok(bytes) => self.blob(wanted, bytes, out),
                // There may be another copy.
                Err(_) => match self.reader.read(BlobKind::Tree, id) {
                    Ok(bytes) => self.blob(wanted, &bytes, out),
                    Err(error) => {
                        let pack = crate::backend::ObjectKey::pack(&first.pack.id);
                        self.tell("tree-damaged", &pack, format!("tree {id}: {error}"));
                    }
                },
            }
        }
    }

    fn blob(&self, wanted: &Wanted, bytes: &[u8], out: &mut Vec<Wanted>) {
        let problem = match wanted {
            Wanted::Tree { id, part } => match record::decode(bytes) {
                Ok(tree) => self.tree(id, &tree, part.as_deref(), out).err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            },
            Wanted::List { id, depth, bytes: expected } => match record::decode::<ChunkList>(bytes) {
                Ok(list) if list.depth != *depth => Some(format!("its depth is {}, not {depth}", list.depth)),
                Ok(list) if list.chunks.is_empty() => Some("it is a chunk list of nothing".into()),
                Ok(list) => trees::table(list.depth, &list.chunks, *expected)
                    .map(|table| self.table(id, b"", list.depth, table, out))
                    .err()
                    .map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            },
        };
        if let Some(problem) = problem {
            self.tell("tree-damaged", &"", format!("tree {}: {problem}", wanted.id()));
        }
    }

    fn tree(
        &self,
        id: &BlobId,
        tree: &Tree,
        part: Option<&Part>,
        out: &mut Vec<Wanted>,
    ) -> Result<(), RuleError> {
        trees::check_tree(tree, part)?;
        match tree {
            Tree::Nodes(nodes) => nodes.iter().for_each(|node| self.node(id, node, out)),
            Tree::Parts(below) => out.extend(
                trees::parts(below, part)
                    .map(|(child, part)| Wanted::Tree { id: child.tree, part: Some(Box::new(part)) }),
            ),
        }
        Ok(())
    }

    fn node(&self, tree: &BlobId, node: &Node, out: &mut Vec<Wanted>) {
        match &node.kind {
            NodeKind::Directory { tree } => out.push(Wanted::Tree { id: *tree, part: None }),
            NodeKind::File(content) => match trees::file_table(content) {
                Ok(table) => self.table(tree, &node.name, content.depth, table, out),
                Err(error) => {
                    let name = String::from_utf8_lossy(&node.name);
                    let message = format!("tree {tree}, file {name:?}: {error}");
                    self.tell("tree-damaged", &"", message);
                }
            },
            _ => {}
        }
    }

    fn table(&self, tree: &BlobId, name: &[u8], depth: u8, table: Table, out: &mut Vec<Wanted>) {
        match table {
            Table::Chunks(chunks) => self.chunks(tree, name, &chunks),
            Table::Lists(lists) => out.extend(lists.into_iter().map(|list| Wanted::List {
                id: list.id,
                depth: depth - 1,
                bytes: list.bytes,
            })),
        }
    }

    fn chunks(&self, tree: &BlobId, name: &[u8], chunks: &[Chunk]) {
        if let Some(doubted) = &self.doubted {
            for chunk in chunks.iter().filter(|chunk| doubted.may_have(&chunk.id)) {
                self.look_up(tree, name, chunk);
            }
            return;
        }
        let mut gathered = lock(&self.chunks);
        if self.failed.get().is_none()
            && let Err(error) = chunks.iter().try_for_each(|chunk| gathered.push(chunk))
        {
            // The first one is as good as any.
            let _ = self.failed.set(error);
        }
    }

    fn look_up(&self, tree: &BlobId, name: &[u8], chunk: &Chunk) {
        let problem = match self.find(&chunk.id, |location| is_home(location, chunk)) {
            Ok(Some(_)) => return,
            Ok(None) => format!("no data pack in the index holds it with {} bytes", chunk.len),
            Err(error) => error.to_string(),
        };
        let name = String::from_utf8_lossy(name);
        let message = format!("chunk {} of {name:?} in tree {tree}: {problem}", chunk.id);
        self.context.unreachable("blob-missing", &"", message);
    }
}

/// Whether the place is one that a file's chunk can be in.
pub(super) fn is_home(location: &Location, chunk: &Chunk) -> bool {
    location.entry.len == chunk.len && location.pack.header.kind == ObjectKind::DataPack
}

/// What a thread that reads trees keeps.
#[derive(Default)]
struct Scratch {
    decode: DecodeScratch,
    raw: Vec<u8>,
}
