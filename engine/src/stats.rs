//! Statistics: how much is protected, how much of it is unique, and what it takes to keep.
//!
//! * *Logical*: the files of all snapshots, each as often as it occurs, holes included.
//! * *Unique*: distinct blobs, each counted once and before compression. For the whole repository these are the
//!   blobs that live segments list, merged segment by segment in constant memory; blobs that only forgotten
//!   snapshots used are among them until a prune, packs that no segment lists (left by interrupted backups) are
//!   not. For chosen snapshots they are the blobs reachable from those.
//! * *Stored*: the lengths of the packs that live segments list, with directories and padding.
//!
//! Every distinct tree is read once, whatever number of snapshots share it.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::browse::{self, BrowseError, Pieces};
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{self, ChunkList, TableError};
use crate::format::header::ObjectKind;
use crate::format::record;
use crate::format::tree::{FileContent, NodeKind, Tree};
use crate::ids::{BlobId, PackId, SnapshotId};
use crate::index::{self, IndexError, Segment};
use crate::monitor::{Monitor, Progress};
use crate::repo::{Repository, RepositoryError};

/// Statistics could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// A snapshot cannot be looked into.
    #[error(transparent)]
    Browse(#[from] BrowseError),
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A table of chunks is damaged.
    #[error("chunk list {list} is damaged: {problem}")]
    ChunkList {
        /// The chunk-list blob, or the tree in which the table stands.
        list: BlobId,
        /// How.
        problem: String,
    },
    /// The monitor asked to stop.
    #[error("cancelled before everything was counted")]
    Cancelled,
}

/// Blobs of one kind and the packs they lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindStats {
    /// Distinct blobs.
    pub blobs: u64,
    /// Their bytes before compression.
    pub unique_bytes: u64,
    /// Packs; those of the whole repository, whichever snapshots were chosen.
    pub packs: u64,
    /// Bytes of these packs.
    pub stored_bytes: u64,
}

/// What is kept and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Files in them, each as often as it occurs.
    pub files: u64,
    /// Directories in them, the root included.
    pub directories: u64,
    /// Bytes of these files, holes included.
    pub logical_bytes: u64,
    /// Content of files.
    pub data: KindStats,
    /// Trees, chunk lists and snapshot records.
    pub metadata: KindStats,
    /// Live segments.
    pub segments: u64,
    /// Bytes of these segments.
    pub segment_bytes: u64,
    /// Commits in the log.
    pub commits: u64,
}

impl Stats {
    /// Distinct bytes before compression.
    pub fn unique_bytes(&self) -> u64 {
        self.data.unique_bytes.saturating_add(self.metadata.unique_bytes)
    }

    /// Bytes of all packs.
    pub fn stored_bytes(&self) -> u64 {
        self.data.stored_bytes.saturating_add(self.metadata.stored_bytes)
    }

    /// Logical bytes to unique bytes of data; `None` where there are none.
    pub fn deduplication_ratio(&self) -> Option<f64> {
        ratio(self.logical_bytes, self.data.unique_bytes)
    }

    /// Unique bytes to stored bytes; of use for the whole repository only.
    pub fn compression_ratio(&self) -> Option<f64> {
        ratio(self.unique_bytes(), self.stored_bytes())
    }
}

fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

/// Counts the whole repository or, where `chosen` is not empty, what these snapshots reach. The latter remembers
/// the id of every blob met.
///
/// # Errors
/// [`StatsError`] for what cannot be read: a statistic with gaps would be wrong.
pub fn run(
    repository: &Repository,
    chosen: &[SnapshotId],
    monitor: &dyn Monitor,
) -> Result<Stats, StatsError> {
    let fold = repository.fold();
    let mut stats = Stats { commits: fold.seq(), ..Stats::default() };
    for info in fold.segments() {
        stats.segments += 1;
        stats.segment_bytes = stats.segment_bytes.saturating_add(info.bytes);
    }
    let mut walk = Walk::new(repository, monitor, !chosen.is_empty());
    let mut totals = Totals::default();
    for (id, snapshot) in repository.snapshots()? {
        if chosen.is_empty() || chosen.contains(&id) {
            stats.snapshots += 1;
            totals.add(walk.tree(snapshot.tree)?);
            walk.reach(*id.blob());
        }
    }
    (stats.files, stats.directories, stats.logical_bytes) = (totals.files, totals.directories, totals.bytes);
    let segments = repository.index().everything();
    count_packs(&segments, &mut stats)?;
    count_blobs(&segments, walk.reached.as_ref(), monitor, &mut stats)?;
    Ok(stats)
}

/// What is in a tree and everything below it.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    files: u64,
    directories: u64,
    bytes: u64,
}

impl Totals {
    /// One tree can be met more often than can be counted.
    fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.directories = self.directories.saturating_add(other.directories);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// A walk over trees that reads each once.
struct Walk<'a> {
    repository: &'a Repository,
    monitor: &'a dyn Monitor,
    totals: HashMap<BlobId, Totals>,
    reached: Option<HashSet<BlobId>>,
    progress: Progress,
}

/// A directory on the way down: its own totals so far and the trees below it that are still to be added.
struct Level {
    tree: BlobId,
    totals: Totals,
    below: Vec<BlobId>,
}

impl<'a> Walk<'a> {
    fn new(repository: &'a Repository, monitor: &'a dyn Monitor, remember: bool) -> Self {
        let reached = remember.then(HashSet::new);
        Self { repository, monitor, totals: HashMap::new(), reached, progress: Progress::default() }
    }

    fn reach(&mut self, id: BlobId) -> bool {
        self.reached.as_mut().is_some_and(|reached| reached.insert(id))
    }

    /// Totals of a tree. Levels are kept in a list, not on the stack: paths have any depth.
    fn tree(&mut self, root: BlobId) -> Result<Totals, StatsError> {
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(tree) = next.take()
                && !self.totals.contains_key(&tree)
            {
                let level = self.level(tree)?;
                levels.push(level);
            }
            let Some(level) = levels.last_mut() else { break };
            while let Some(below) = level.below.last() {
                let Some(totals) = self.totals.get(below) else {
                    next = Some(*below);
                    break;
                };
                level.totals.add(*totals);
                level.below.pop();
            }
            if next.is_none() {
                let level = levels.pop().expect("the level just looked at");
                self.totals.insert(level.tree, level.totals);
            }
        }
        Ok(self.totals.get(&root).copied().unwrap_or_default())
    }

    /// Reads one directory with all its parts.
    fn level(&mut self, tree: BlobId) -> Result<Level, StatsError> {
        if self.monitor.is_cancelled() {
            return Err(StatsError::Cancelled);
        }
        let reader = Arc::clone(self.repository.reader());
        self.reach_parts(tree)?;
        let mut level =
            Level { tree, totals: Totals { directories: 1, ..Totals::default() }, below: Vec::new() };
        let mut pieces = Pieces::new(tree);
        while let Some(piece) = pieces.next(&reader) {
            for node in piece?.nodes {
                match node.kind {
                    NodeKind::Directory { tree } => level.below.push(tree),
                    NodeKind::File(content) => {
                        level.totals.add(Totals { files: 1, directories: 0, bytes: content.size });
                        if self.reached.is_some() {
                            self.content(tree, &content)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        self.progress.items = self.progress.items.saturating_add(level.totals.files);
        self.monitor.progress(&self.progress);
        Ok(level)
    }

    /// Remembers the blobs that a directory itself consists of.
    fn reach_parts(&mut self, tree: BlobId) -> Result<(), StatsError> {
        let reader = Arc::clone(self.repository.reader());
        let mut pending = vec![tree];
        while let Some(tree) = pending.pop() {
            if self.reach(tree)
                && let Tree::Parts(parts) = browse::load(&reader, &tree)?
            {
                pending.extend(parts.into_iter().map(|part| part.tree));
            }
        }
        Ok(())
    }

    /// Remembers the chunks of a file and the lists that name them.
    fn content(&mut self, tree: BlobId, content: &FileContent) -> Result<(), StatsError> {
        let damaged = |list: BlobId| {
            move |error: TableError| StatsError::ChunkList { list, problem: error.to_string() }
        };
        let mut pending = vec![(tree, content.depth, content.chunks.clone())];
        while let Some((list, depth, table)) = pending.pop() {
            if depth == 0 {
                for chunk in chunk_list::chunks(&table).map_err(damaged(list))? {
                    self.reach(chunk.map_err(damaged(list))?.id);
                }
                continue;
            }
            for child in chunk_list::lists(&table).map_err(damaged(list))? {
                let child = child.map_err(damaged(list))?.id;
                if self.reach(child) {
                    pending.push(self.list(child, depth - 1)?);
                }
            }
        }
        Ok(())
    }

    fn list(&self, id: BlobId, depth: u8) -> Result<(BlobId, u8, serde_bytes::ByteBuf), StatsError> {
        let bytes = self.repository.reader().read(BlobKind::Tree, &id).map_err(BrowseError::from)?;
        let damaged = |problem: String| StatsError::ChunkList { list: id, problem };
        let list: ChunkList = record::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if list.depth != depth {
            return Err(damaged(TableError::Depth { found: list.depth, expected: depth }.to_string()));
        }
        Ok((id, depth, list.chunks))
    }
}

/// Counts packs, each once though several segments may list it.
fn count_packs(segments: &[Arc<Segment>], stats: &mut Stats) -> Result<(), StatsError> {
    let mut seen: HashSet<PackId> = HashSet::new();
    for segment in segments {
        for pack in segment.packs() {
            let pack = pack?;
            if seen.insert(pack.id) {
                let kind = kind_stats(stats, pack.header.kind);
                kind.packs += 1;
                kind.stored_bytes = kind.stored_bytes.saturating_add(pack.size);
            }
        }
    }
    Ok(())
}

fn kind_stats(stats: &mut Stats, kind: ObjectKind) -> &mut KindStats {
    if kind == ObjectKind::DataPack { &mut stats.data } else { &mut stats.metadata }
}

/// Counts distinct blobs by merging the sorted segments.
fn count_blobs(
    segments: &[Arc<Segment>],
    reached: Option<&HashSet<BlobId>>,
    monitor: &dyn Monitor,
    stats: &mut Stats,
) -> Result<(), StatsError> {
    let mut kinds = Vec::new();
    for pack in segments.iter().flat_map(|segment| segment.packs()) {
        kinds.push(pack?.header.kind);
    }
    let (mut last, mut is_cancelled) = (None, false);
    let merged = index::merge_entries(segments, &mut |entry| {
        if last != Some(entry.id) && reached.is_none_or(|reached| reached.contains(&entry.id)) {
            let kind = kind_stats(stats, kinds[entry.pack as usize]);
            kind.blobs += 1;
            kind.unique_bytes += u64::from(entry.len);
        }
        last = Some(entry.id);
        is_cancelled = monitor.is_cancelled();
        if is_cancelled { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    merged?;
    if is_cancelled { Err(StatsError::Cancelled) } else { Ok(()) }
}
