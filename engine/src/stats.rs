//! Statistics: how much is protected, how much of it is unique, and what it takes to keep.
//!
//! * *Logical*: the files of all snapshots, each as often as it occurs, holes included.
//! * *Unique*: distinct blobs, each counted once and before compression. For the whole repository these are the
//!   blobs that live segments list, merged segment by segment in constant memory; blobs that only forgotten
//!   snapshots used are among them until a prune, packs that no segment lists (left by interrupted backups) are
//!   not. For chosen snapshots they are the blobs reachable from those.
//! * *Stored*: the lengths of the packs that live segments list, with directories and padding.
//!
//! Every distinct tree is read once, whatever number of snapshots share it. What chosen snapshots reach takes a few bits for each
//! entry of the index.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::browse::{self, BrowseError, Pieces};
use crate::budget;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{self, ChunkList, TableError};
use crate::format::header::ObjectKind;
use crate::format::record;
use crate::format::tree::{FileContent, NodeKind, Tree};
use crate::ids::{BlobId, HalfId, PackId, SnapshotId};
use crate::index::{self, Bits, IndexError, Join, Met, Segment};
use crate::monitor::{Monitor, Progress};
use crate::repo::{Repository, RepositoryError};

/// Blobs that are looked up before it is asked whether to stop.
const ASKED_EVERY: usize = 1 << 16;

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

impl KindStats {
    fn add_blob(&mut self, len: u32) {
        self.blobs += 1;
        self.unique_bytes = self.unique_bytes.saturating_add(u64::from(len));
    }
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

/// Counts the whole repository or, where `chosen` is not empty, what these snapshots reach.
///
/// # Errors
/// [`StatsError`] for what cannot be read: a statistic with gaps would be wrong.
pub fn run(
    repository: &Repository,
    chosen: &[SnapshotId],
    monitor: &dyn Monitor,
) -> Result<Stats, StatsError> {
    let gathered = budget::gathered(budget::USUAL) / size_of::<HalfId>() as u64;
    run_within(repository, chosen, monitor, gathered)
}

/// The same, with room for so many gathered ids at least.
fn run_within(
    repository: &Repository,
    chosen: &[SnapshotId],
    monitor: &dyn Monitor,
    gathered_min: u64,
) -> Result<Stats, StatsError> {
    let fold = repository.fold();
    let mut stats = Stats { commits: fold.seq(), ..Stats::default() };
    for info in fold.segments() {
        stats.segments += 1;
        stats.segment_bytes = stats.segment_bytes.saturating_add(info.bytes);
    }
    let segments = repository.index().everything();
    let reached = match chosen.is_empty() {
        true => None,
        false => Some(Reached::new(repository, segments.clone(), gathered_min)?),
    };
    let mut walk =
        Walk { repository, monitor, totals: HashMap::new(), reached, progress: Progress::default() };
    let mut totals = Totals::default();
    for (id, snapshot) in repository.snapshots()? {
        if chosen.is_empty() || chosen.contains(&id) {
            stats.snapshots += 1;
            totals.add(walk.tree(snapshot.tree)?);
            walk.reach(id.blob())?;
        }
    }
    (stats.files, stats.directories, stats.logical_bytes) = (totals.files, totals.directories, totals.bytes);
    count_packs(&segments, &mut stats)?;
    match walk.reached {
        Some(reached) => reached.finish(monitor, &mut stats)?,
        None => count_blobs(&segments, monitor, &mut stats)?,
    }
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
    /// What chosen snapshots reach.
    reached: Option<Reached>,
    progress: Progress,
}

/// A directory on the way down: its own totals so far and the trees below it that are still to be added.
struct Level {
    tree: BlobId,
    totals: Totals,
    below: Vec<BlobId>,
}

impl Walk<'_> {
    /// Remembers a metadata blob. Whether it is to be followed: not again, and not where nothing is remembered.
    fn reach(&mut self, id: &BlobId) -> Result<bool, StatsError> {
        let Some(reached) = &mut self.reached else { return Ok(false) };
        let is_new = reached.met.is_new(id)?;
        if is_new {
            reached.gather(id, self.monitor)?;
        }
        Ok(is_new)
    }

    /// Remembers a chunk.
    fn reach_chunk(&mut self, id: &BlobId) -> Result<(), StatsError> {
        match &mut self.reached {
            Some(reached) => reached.gather(id, self.monitor),
            None => Ok(()),
        }
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
            if self.reach(&tree)?
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
                    self.reach_chunk(&chunk.map_err(damaged(list))?.id)?;
                }
                continue;
            }
            for child in chunk_list::lists(&table).map_err(damaged(list))? {
                let child = child.map_err(damaged(list))?.id;
                if self.reach(&child)? {
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

/// The blobs that are reached, counted in memory that takes six bits of each entry of the index, or little.
///
/// Ids are gathered, sorted, and joined with all segments in one pass, which takes far less than a lookup of each would. When there is no
/// room for more of them, there is a pass before the end; bits say what was counted in earlier ones.
struct Reached {
    /// Trees and chunk lists: they are not followed twice.
    met: Met,
    segments: Vec<Arc<Segment>>,
    /// What the packs of each segment hold.
    kinds: Vec<Vec<ObjectKind>>,
    /// Entries of blobs that were counted.
    counted: Bits,
    counts: Stats,
    gathered: Vec<HalfId>,
    /// How many are gathered at most: at 16 bytes each, four bits of each entry.
    room: usize,
}

impl Reached {
    fn new(
        repository: &Repository,
        segments: Vec<Arc<Segment>>,
        gathered_min: u64,
    ) -> Result<Self, StatsError> {
        let entries: u64 = segments.iter().map(|segment| segment.layout().entries).sum();
        let kinds = |segment: &Arc<Segment>| segment.packs().map(|pack| Ok(pack?.header.kind)).collect();
        Ok(Self {
            met: Met::of(repository.index(), segments.clone()),
            kinds: segments.iter().map(kinds).collect::<Result<_, IndexError>>()?,
            counted: Bits::new(&segments),
            segments,
            counts: Stats::default(),
            gathered: Vec::new(),
            room: usize::try_from(gathered_min.max(entries / 32)).unwrap_or(usize::MAX),
        })
    }

    /// Adds a blob, which may have been added before.
    fn gather(&mut self, id: &BlobId, monitor: &dyn Monitor) -> Result<(), StatsError> {
        if self.gathered.len() >= self.room {
            self.sort();
            // Where they are the same again and again, there is room now.
            if self.gathered.len() > self.room / 2 {
                self.count(monitor)?;
            }
        }
        self.gathered.push(id.half());
        Ok(())
    }

    fn sort(&mut self) {
        self.gathered.sort_unstable();
        self.gathered.dedup();
    }

    /// Counts what is gathered and was not counted before. What no segment lists does not count, as in the whole repository.
    fn count(&mut self, monitor: &dyn Monitor) -> Result<(), StatsError> {
        self.sort();
        let Self { segments, kinds, counted, counts, gathered, .. } = self;
        let mut join = Join::new(segments);
        for (number, id) in gathered.drain(..).enumerate() {
            if number.is_multiple_of(ASKED_EVERY) && monitor.is_cancelled() {
                return Err(StatsError::Cancelled);
            }
            join.seek(&id, &mut |segment, position, entry| {
                let Some(kind) = kinds[segment].get(entry.pack as usize) else { return false };
                let position = usize::try_from(position).expect("there are bits for all of them");
                if counted.set((segment, position)) {
                    kind_stats(counts, *kind).add_blob(entry.len);
                }
                true
            })?;
        }
        Ok(())
    }

    fn finish(mut self, monitor: &dyn Monitor, stats: &mut Stats) -> Result<(), StatsError> {
        self.count(monitor)?;
        for (kind, counted) in
            [(&mut stats.data, self.counts.data), (&mut stats.metadata, self.counts.metadata)]
        {
            (kind.blobs, kind.unique_bytes) = (counted.blobs, counted.unique_bytes);
        }
        Ok(())
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
    monitor: &dyn Monitor,
    stats: &mut Stats,
) -> Result<(), StatsError> {
    let mut kinds = Vec::new();
    for pack in segments.iter().flat_map(|segment| segment.packs()) {
        kinds.push(pack?.header.kind);
    }
    let (mut last, mut is_cancelled) = (None, false);
    let merged = index::merge_entries(segments, &mut |entry| {
        if last != Some(entry.id) {
            kind_stats(stats, kinds[entry.pack as usize]).add_blob(entry.len);
        }
        last = Some(entry.id);
        is_cancelled = monitor.is_cancelled();
        if is_cancelled { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    merged?;
    if is_cancelled { Err(StatsError::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::chunk_list::Chunk;
    use crate::index::Location;
    use crate::monitor::Silent;
    use crate::prune::test_support::{World, noise};
    use crate::reach::{self, Needs, ReachError};

    /// All ids that are met.
    struct All<'a>(&'a Repository, HashSet<BlobId>);

    impl Needs for All<'_> {
        fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
            let is_new = self.1.insert(*id);
            Ok(self.0.index().get(id).expect("readable").filter(|_| is_new))
        }

        fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
            self.1.insert(chunk.id);
            Ok(())
        }
    }

    /// The same, from a table of all ids.
    fn expected(repository: &Repository, chosen: &[SnapshotId]) -> [KindStats; 2] {
        let mut all = All(repository, HashSet::new());
        for (id, snapshot) in repository.snapshots().expect("readable") {
            if chosen.contains(&id) {
                all.1.insert(*id.blob());
                reach::follow(repository.reader(), [snapshot.tree], &mut all, 1).expect("readable");
            }
        }
        let mut stats = Stats::default();
        for id in all.1 {
            if let Some(location) = repository.index().get(&id).expect("readable") {
                kind_stats(&mut stats, location.pack.header.kind).add_blob(location.entry.len);
            }
        }
        [stats.data, stats.metadata]
    }

    #[test]
    fn what_snapshots_reach_is_counted_once_however_few_ids_are_gathered() {
        let mut world = World::new();
        let repository = world.open();
        let mut snapshots = Vec::new();
        for night in 0..4_u64 {
            for n in 0..5 {
                world.write(&format!("d{n}/f{}", night % 3), &noise(10 * night + n % 4, 3_000));
            }
            world.write("large", &[noise(night, 10_000), noise(99, 4 << 20)].concat());
            world.write("small", b"");
            snapshots.push(world.back_up(&repository));
        }
        let several =
            snapshots.iter().map(|id| vec![*id]).chain([snapshots.clone(), snapshots[1..3].to_vec()]);
        for chosen in several {
            let expected = expected(&repository, &chosen);
            assert!(expected.iter().all(|kind| kind.blobs > 5 && kind.unique_bytes > 1_000), "{expected:?}");
            for gathered in [0, 1, 3, 50, 1 << 20] {
                let stats = run_within(&repository, &chosen, &Silent, gathered).expect("counted");
                let counted =
                    [stats.data, stats.metadata].map(|kind| KindStats { packs: 0, stored_bytes: 0, ..kind });
                assert_eq!(counted, expected, "{gathered}");
                assert_eq!(stats.snapshots, chosen.len() as u64);
            }
        }
        let (all, chosen) = (run(&repository, &[], &Silent), run(&repository, &snapshots, &Silent));
        assert_eq!(all.expect("counted"), chosen.expect("counted"), "nothing else was ever stored");
    }

    #[test]
    fn no_more_is_gathered_than_there_is_room_for() {
        let mut world = World::new();
        world.write("f", &noise(1, 9_000));
        let repository = world.open();
        world.back_up(&repository);
        let mut reached = Reached::new(&repository, repository.index().everything(), 10).expect("readable");
        for n in 0..=255_u8 {
            reached.gather(&BlobId::from_bytes([n; 32]), &Silent).expect("gathered");
            reached.gather(&BlobId::from_bytes([n / 2; 32]), &Silent).expect("gathered");
            assert!(reached.gathered.len() <= 10 && reached.gathered.capacity() < 20);
        }
        assert_eq!(reached.counts, Stats::default(), "nothing lists these");
    }
}
