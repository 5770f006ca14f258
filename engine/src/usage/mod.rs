//! Who uses the space: what would become free without a snapshot, a host or a path.
//!
//! Snapshots are taken in groups. Each blob is needed by none, one or several of them, and three bits of each entry of the
//! index are enough to tell: *seen* by some group, needed by *several*, met in the *current* one. A tree that several
//! groups are known to need is not entered again, since all below it is needed by them, too; so every tree is read
//! three times at most, whatever number of snapshots share it.
//!
//! What files list is gathered and looked up in the order of ids, where neighbours share the pages of the index that are opened
//! for them. Within a group it makes no difference when a blob is met.
//!
//! Space is that of sealed blocks: a blob takes the part of its block that it makes up before compression. Blobs that are
//! stored twice count once; directories and padding of packs, and what only forgotten snapshots needed, do not count.

mod flags;
mod free;
#[cfg(test)]
mod tests;

pub use free::{Proposal, to_free};

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use crate::browse::{self, BrowseError};
use crate::crypto::keys::BlobKind;
use crate::forget::{self, Candidate};
use crate::format::chunk_list::{self, Chunk};
use crate::format::snapshot::Snapshot;
use crate::format::tree::{FileContent, NodeKind, Tree, TreePart};
use crate::format::tree_rules::{PART_DEPTH_MAX, TreeRuleError};
use crate::ids::{BlobId, SnapshotId};
use crate::index::{Bits, Index, IndexError, Location};
use crate::monitor::{Monitor, Progress};
use crate::reach::{self, Needs, ReachError, Wanted};
use crate::repo::{Repository, RepositoryError};
use crate::store::ReadError;

use flags::ShortFlags;

/// Chunks of a group that are looked up in one go: 8 MiB of ids.
const GATHERED: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };

/// What uses how much could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A snapshot cannot be followed to what it needs: figures with gaps would be wrong.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// A directory cannot be read.
    #[error(transparent)]
    Browse(#[from] BrowseError),
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The monitor asked to stop.
    #[error("cancelled before everything was counted")]
    Cancelled,
}

/// The space of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes that nothing but this group needs: free without it.
    pub unique: u64,
    /// Bytes that no later group needs: free without this one and all before it, but for what those free.
    pub last: u64,
}

/// A snapshot and its space.
#[derive(Debug, Clone)]
pub struct SnapshotUsage {
    /// Its id.
    pub id: SnapshotId,
    /// Its record.
    pub snapshot: Snapshot,
    /// Whether it is held, and so stays.
    pub is_held: bool,
    /// Its space. For [`Usage::last`], held snapshots count as the latest ones: they stay whatever is forgotten.
    pub usage: Usage,
}

/// What each live snapshot takes, in the order of commits.
///
/// # Errors
/// [`UsageError`] for what cannot be read.
pub fn of_snapshots(
    repository: &Repository,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<SnapshotUsage>, UsageError> {
    let candidates = forget::candidates(repository)?;
    let held: BTreeSet<SnapshotId> = held(&candidates).collect();
    of_candidates(repository, candidates, &held, threads, monitor)
}

fn held(candidates: &[Candidate]) -> impl Iterator<Item = SnapshotId> {
    candidates.iter().filter(|candidate| candidate.hold.is_some()).map(|candidate| candidate.id)
}

/// What each takes, those that stay whatever is forgotten being counted as the latest.
fn of_candidates(
    repository: &Repository,
    candidates: Vec<Candidate>,
    staying: &BTreeSet<SnapshotId>,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<SnapshotUsage>, UsageError> {
    let usage = |Candidate { id, snapshot, hold, .. }: Candidate| SnapshotUsage {
        id,
        snapshot,
        is_held: hold.is_some(),
        usage: Usage::default(),
    };
    let mut all: Vec<_> = candidates.into_iter().map(usage).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|at| (staying.contains(&all[*at].id), *at));
    let groups: Vec<Group> =
        order.iter().map(|at| Group::of_snapshots([(&all[*at].id, &all[*at].snapshot)])).collect();
    let usages = measure(repository, &groups, threads, monitor)?;
    for (at, usage) in order.into_iter().zip(usages) {
        all[at].usage = usage;
    }
    Ok(all)
}

/// What the snapshots of each host take together, by the host's name.
///
/// # Errors
/// As [`of_snapshots`].
pub fn of_hosts(
    repository: &Repository,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<(String, u64, Usage)>, UsageError> {
    let snapshots = repository.snapshots()?;
    let mut hosts: BTreeMap<&str, Vec<(&SnapshotId, &Snapshot)>> = BTreeMap::new();
    for (id, snapshot) in &snapshots {
        hosts.entry(&snapshot.hostname).or_default().push((id, snapshot));
    }
    let groups: Vec<Group> = hosts.values().map(|all| Group::of_snapshots(all.iter().copied())).collect();
    let usages = measure(repository, &groups, threads, monitor)?;
    let named = hosts.iter().zip(usages);
    Ok(named.map(|((host, all), usage)| ((*host).to_owned(), all.len() as u64, usage)).collect())
}

/// A directory of a snapshot and its space there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathUsage {
    /// Its path in the snapshot. With [`PathUsage::is_rest`], only what lies in it but in no directory below.
    pub path: Vec<u8>,
    /// Whether its directories stand for themselves.
    pub is_rest: bool,
    /// Its space among the paths of this snapshot.
    pub usage: Usage,
}

/// What the directories `depth` levels below `root`, the tree at `path` of a snapshot, take of it. What lies higher is told
/// directory by directory.
///
/// # Errors
/// As [`of_snapshots`].
pub fn of_paths(
    repository: &Repository,
    root: BlobId,
    path: &[u8],
    depth: u32,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<PathUsage>, UsageError> {
    let mut paths = Vec::new();
    let mut groups = Vec::new();
    let mut pending = vec![(root, path.to_vec(), depth)];
    while let Some((tree, path, depth)) = pending.pop() {
        if monitor.is_cancelled() {
            return Err(UsageError::Cancelled);
        }
        let mut group = Group::default();
        if depth == 0 {
            group.trees.push(tree.into());
        } else {
            let below = pending.len();
            group.blobs = pieces(repository, tree)?.into_iter().map(|id| (BlobKind::Tree, id)).collect();
            browse::nodes(repository.reader(), &tree, &mut |node| {
                match &node.kind {
                    NodeKind::Directory { tree } => {
                        let path = [&path, b"/".as_slice(), &node.name].concat();
                        pending.push((*tree, path, depth - 1));
                    }
                    NodeKind::File(content) => group.add(content),
                    _ => {}
                }
                ControlFlow::Continue(())
            })?;
            // What is taken next comes first.
            pending[below..].reverse();
        }
        paths.push((path, depth > 0));
        groups.push(group);
    }
    let usages = measure(repository, &groups, threads, monitor)?;
    let named = paths.into_iter().zip(usages);
    Ok(named.map(|((path, is_rest), usage)| PathUsage { path, is_rest, usage }).collect())
}

/// The blobs that a directory itself consists of. No more are held than there are, and the parts on the way to one of them.
fn pieces(repository: &Repository, tree: BlobId) -> Result<Vec<BlobId>, UsageError> {
    let mut met = HashSet::from([tree]);
    let mut pending: Vec<(TreePart, usize)> = Vec::new();
    let mut read = (browse::load(repository.reader(), &tree)?, 0);
    loop {
        if let (Tree::Parts(parts), depth) = read {
            if depth == PART_DEPTH_MAX {
                return Err(BrowseError::Rules { tree, source: TreeRuleError::Depth }.into());
            }
            pending.extend(parts.into_iter().map(|part| (part, depth + 1)));
        }
        let Some((part, depth)) = pending.pop() else { return Ok(met.into_iter().collect()) };
        // One that was met before leads to nothing new.
        read = match met.insert(part.tree) {
            true => (browse::load_part(repository.reader(), &part)?, depth),
            false => (Tree::Nodes(Vec::new()), depth),
        };
    }
}

/// What belongs together.
#[derive(Default)]
struct Group {
    /// Trees and chunk lists, with all that is below them.
    trees: Vec<Wanted>,
    /// Blobs that stand for themselves.
    blobs: Vec<(BlobKind, BlobId)>,
}

impl Group {
    fn of_snapshots<'s>(snapshots: impl IntoIterator<Item = (&'s SnapshotId, &'s Snapshot)>) -> Self {
        let mut group = Self::default();
        for (id, snapshot) in snapshots {
            group.trees.push(snapshot.tree.into());
            group.blobs.push((BlobKind::Snapshot, *id.blob()));
        }
        group
    }

    /// Adds a file. Its tree was read without complaint, so its table is one.
    fn add(&mut self, content: &FileContent) {
        if content.depth == 0 {
            let chunks = chunk_list::chunks(&content.chunks).into_iter().flatten().flatten();
            self.blobs.extend(chunks.map(|chunk| (BlobKind::Data, chunk.id)));
        } else {
            let lists = chunk_list::lists(&content.chunks).into_iter().flatten().flatten();
            let wanted = |id| Wanted { id, depth: Some(content.depth - 1) };
            self.trees.extend(lists.map(|list| wanted(list.id)));
        }
    }
}

/// Measures groups, of which the last one is the latest.
fn measure(
    repository: &Repository,
    groups: &[Group],
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<Usage>, UsageError> {
    let mut usages = vec![Usage::default(); groups.len()];
    let mut count = Count::new(repository, monitor);
    for pass in [Pass::Mark, Pass::Unique] {
        count.pass = pass;
        for (group, usage) in groups.iter().zip(&mut usages).rev() {
            let bytes = count.group(repository, group, threads)?;
            match pass {
                Pass::Mark => usage.last = bytes,
                Pass::Unique => usage.unique = bytes,
            }
        }
    }
    Ok(usages)
}

/// What a walk over all groups is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// To find out what several groups need; counts what no later one does.
    Mark,
    /// To count what no other group needs.
    Unique,
}

struct Count<'a> {
    /// The segments at the beginning: others that come and go meanwhile would shift the bits.
    index: Index,
    seen: Bits,
    several: Bits,
    current: ShortFlags,
    pass: Pass,
    /// Chunks of this group that are still to be met.
    chunks: Vec<BlobId>,
    /// Bytes of this group that count in this pass.
    bytes: u64,
    monitor: &'a dyn Monitor,
    blobs: u64,
}

type Place = (Location, (usize, usize));

impl<'a> Count<'a> {
    fn new(repository: &Repository, monitor: &'a dyn Monitor) -> Self {
        let index = repository.index().beside();
        index.replace(repository.index().everything(), &[]);
        let bits = || Bits::new(&index.segments());
        let (seen, several, current) = (bits(), bits(), ShortFlags::new(bits()));
        let (pass, chunks) = (Pass::Mark, Vec::new());
        Self { index, seen, several, current, pass, chunks, bytes: 0, monitor, blobs: 0 }
    }

    /// Meets all that a group needs; returns how many bytes of it count in this pass.
    fn group(&mut self, repository: &Repository, group: &Group, threads: usize) -> Result<u64, UsageError> {
        self.current.clear();
        self.bytes = 0;
        for (kind, blob) in &group.blobs {
            match kind {
                BlobKind::Data => self.gather(blob)?,
                // The record of a snapshot may be in the log only.
                BlobKind::Snapshot if self.position(blob)?.is_none() => {}
                kind => drop(self.meet(*kind, blob)?),
            }
        }
        let followed = reach::follow(repository.reader(), group.trees.iter().copied(), self, threads);
        followed.map_err(|error| match error {
            ReachError::Cancelled => UsageError::Cancelled,
            error => error.into(),
        })?;
        self.meet_gathered()?;
        Ok(self.bytes)
    }

    /// Counts a blob that something refers to.
    fn tell(&mut self) {
        self.blobs += 1;
        if self.blobs.is_multiple_of(1 << 16) {
            self.monitor.progress(&Progress { items: self.blobs, ..Progress::default() });
        }
    }

    /// Meets a chunk, now or later.
    fn gather(&mut self, id: &BlobId) -> Result<(), ReachError> {
        self.tell();
        self.chunks.push(*id);
        if self.chunks.len() < GATHERED { Ok(()) } else { self.meet_gathered() }
    }

    fn meet_gathered(&mut self) -> Result<(), ReachError> {
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks.sort_unstable();
        chunks.dedup();
        for id in chunks.drain(..) {
            self.meet(BlobKind::Data, &id)?;
        }
        self.chunks = chunks;
        Ok(())
    }

    fn position(&self, id: &BlobId) -> Result<Option<Place>, IndexError> {
        let found = self.index.position(id)?;
        let bit = |position| usize::try_from(position).expect("there are bits for all of them");
        Ok(found.map(|(location, segment, position)| (location, (segment, bit(position)))))
    }

    /// Meets a blob in the current group. Returns its place if what is below it can still tell something.
    fn meet(&mut self, kind: BlobKind, id: &BlobId) -> Result<Option<Location>, ReachError> {
        let missing = ReadError::Missing { id: *id, kind };
        let (location, place) = self.position(id).map_err(ReadError::Index)?.ok_or(missing)?;
        if !self.current.set(place) || self.several.has(place) {
            return Ok(None);
        }
        let counts = match self.pass {
            Pass::Mark => self.seen.set(place),
            Pass::Unique => true,
        };
        if counts {
            self.bytes += location.entry.stored_len();
        } else {
            self.several.set(place);
        }
        Ok(Some(location))
    }
}

impl Needs for Count<'_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        self.tell();
        self.meet(BlobKind::Tree, id)
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.gather(&chunk.id)
    }

    fn is_cancelled(&self) -> bool {
        self.monitor.is_cancelled()
    }
}
