//! Who uses the space: what would become free without a snapshot, a host or a path.
//!
//! Snapshots are taken in groups. Each blob is needed by none, one or several of them, and three bits of each entry of the
//! index are enough to tell: *seen* by some group, needed by *several*, met in the *current* one. A tree that several
//! groups are known to need is not entered again, since all below it is needed by them, too; so every tree is read
//! three times at most, whatever number of snapshots share it.
//!
//! Space is that of sealed blocks: a blob takes the part of its block that it makes up before compression. Blobs that are
//! stored twice count once; directories and padding of packs, and what only forgotten snapshots needed, do not count.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use crate::browse::{self, BrowseError};
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{self, Chunk};
use crate::format::snapshot::Snapshot;
use crate::format::tree::{FileContent, NodeKind, Tree, TreePart};
use crate::format::tree_rules::{PART_DEPTH_MAX, TreeRuleError};
use crate::ids::{BlobId, SnapshotId};
use crate::index::{Index, IndexError, Location};
use crate::monitor::{Monitor, Progress};
use crate::reach::{self, Needs, ReachError, Wanted};
use crate::repo::{Repository, RepositoryError};
use crate::store::ReadError;

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
    let fold = repository.fold();
    let held: HashSet<SnapshotId> =
        fold.snapshots().filter(|entry| entry.hold.is_some()).map(|entry| entry.snapshot).collect();
    let mut all: Vec<_> = repository
        .snapshots()?
        .into_iter()
        .map(|(id, snapshot)| {
            let is_held = held.contains(&id);
            SnapshotUsage { id, snapshot, is_held, usage: Usage::default() }
        })
        .collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|at| (all[*at].is_held, *at));
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
            count.current.clear();
            count.bytes = 0;
            for (kind, blob) in &group.blobs {
                // The record of a snapshot may be in the log only.
                if *kind != BlobKind::Snapshot || count.position(blob)?.is_some() {
                    count.meet(*kind, blob)?;
                }
            }
            reach::follow(repository.reader(), group.trees.iter().copied(), &mut count, threads).map_err(
                |error| {
                    if matches!(error, ReachError::Cancelled) { UsageError::Cancelled } else { error.into() }
                },
            )?;
            match pass {
                Pass::Mark => usage.last = count.bytes,
                Pass::Unique => usage.unique = count.bytes,
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

/// One bit for each entry of the index.
struct Bits(Vec<Vec<u64>>);

impl Bits {
    fn new(index: &Index) -> Self {
        let words = |entries: u64| usize::try_from(entries.div_ceil(64)).expect("a bit for each fits memory");
        Self(index.segments().iter().map(|segment| vec![0; words(segment.layout().entries)]).collect())
    }

    fn has(&self, (segment, bit): (usize, usize)) -> bool {
        self.0[segment][bit / 64] >> (bit % 64) & 1 == 1
    }

    /// Sets a bit; true where it was not set.
    fn set(&mut self, (segment, bit): (usize, usize)) -> bool {
        let word = &mut self.0[segment][bit / 64];
        let before = *word;
        *word |= 1 << (bit % 64);
        *word != before
    }

    fn clear(&mut self) {
        self.0.iter_mut().for_each(|bits| bits.fill(0));
    }
}

struct Count<'a> {
    /// The segments at the beginning: others that come and go meanwhile would shift the bits.
    index: Index,
    seen: Bits,
    several: Bits,
    current: Bits,
    pass: Pass,
    /// Bytes of this group that count in this pass.
    bytes: u64,
    monitor: &'a dyn Monitor,
    blobs: u64,
}

type Place = (Location, (usize, usize));

impl<'a> Count<'a> {
    fn new(repository: &Repository, monitor: &'a dyn Monitor) -> Self {
        let index = Index::default();
        index.replace(repository.index().everything(), &[]);
        let bits = || Bits::new(&index);
        let (seen, several, current) = (bits(), bits(), bits());
        Self { index, seen, several, current, pass: Pass::Mark, bytes: 0, monitor, blobs: 0 }
    }

    fn position(&self, id: &BlobId) -> Result<Option<Place>, IndexError> {
        let found = self.index.position(id)?;
        let bit = |position| usize::try_from(position).expect("there are bits for all of them");
        Ok(found.map(|(location, segment, position)| (location, (segment, bit(position)))))
    }

    /// Meets a blob in the current group. Returns its place if what is below it can still tell something.
    fn meet(&mut self, kind: BlobKind, id: &BlobId) -> Result<Option<Location>, ReachError> {
        self.blobs += 1;
        if self.blobs.is_multiple_of(1 << 16) {
            self.monitor.progress(&Progress { items: self.blobs, ..Progress::default() });
        }
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
        self.meet(BlobKind::Tree, id)
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.meet(BlobKind::Data, &chunk.id)?;
        Ok(())
    }

    fn is_cancelled(&self) -> bool {
        self.monitor.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Silent;
    use crate::prune::test_support::{World, noise};

    /// All blobs that a snapshot needs, found the simple way.
    struct All<'a> {
        index: &'a Index,
        met: BTreeMap<BlobId, u64>,
    }

    impl Needs for All<'_> {
        fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
            let location = self.index.get(id).expect("readable").expect("it is there");
            let is_new = self.met.insert(*id, location.entry.stored_len()).is_none();
            Ok(is_new.then_some(location))
        }

        fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
            self.tree(&chunk.id).map(drop)
        }
    }

    fn all(repository: &Repository, id: &SnapshotId, snapshot: &Snapshot) -> BTreeMap<BlobId, u64> {
        let mut all = All { index: repository.index(), met: BTreeMap::new() };
        reach::follow(repository.reader(), [snapshot.tree], &mut all, 1).expect("whole");
        if let Some(at) = repository.index().get(id.blob()).expect("readable") {
            all.met.insert(*id.blob(), at.entry.stored_len());
        }
        all.met
    }

    /// Snapshots that share some, and the directories `kept`, which never changes, and `d`, which does.
    fn world() -> World {
        let mut world = World::new();
        for file in 0..20u64 {
            world.write(&format!("kept/deep/f{file}"), &noise(file, 3000));
        }
        for night in 0..5u64 {
            let repository = world.open();
            world.write(&format!("d/f{}", night % 3), &noise(100 + night, 50_000));
            world.write("d/back", &noise(200 + night % 2, 20_000));
            world.back_up(&repository);
        }
        world
    }

    fn needed_by_none_of(blobs: &BTreeMap<BlobId, u64>, others: &[&BTreeMap<BlobId, u64>]) -> u64 {
        let is_alone = |id: &BlobId| !others.iter().any(|other| other.contains_key(id));
        blobs.iter().filter(|(id, _)| is_alone(id)).map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn snapshots_are_told_what_only_they_need_and_what_no_later_one_does() {
        let world = world();
        let repository = world.open();
        let usages = of_snapshots(&repository, 2, &Silent).expect("counted");
        let sets: Vec<_> = usages.iter().map(|usage| all(&repository, &usage.id, &usage.snapshot)).collect();
        assert_eq!(sets.len(), 5);
        for (at, usage) in usages.iter().enumerate() {
            let later: Vec<_> = sets[at + 1..].iter().collect();
            let others: Vec<_> = sets[..at].iter().chain(later.iter().copied()).collect();
            assert_eq!(usage.usage.unique, needed_by_none_of(&sets[at], &others), "snapshot {at}");
            assert_eq!(usage.usage.last, needed_by_none_of(&sets[at], &later), "snapshot {at}");
        }
        assert!(usages[0].usage.unique > 0 && usages[4].usage.last > usages[4].usage.unique);
    }

    #[test]
    fn held_snapshots_count_as_the_latest() {
        let world = world();
        let repository = world.open();
        let held = of_snapshots(&repository, 1, &Silent).expect("counted")[1].id;
        let hold = crate::format::commit::Change::SnapshotHeld { snapshot: held, reason: "court".into() };
        repository.commit(&mut |_| Ok(vec![hold.clone()])).expect("held");
        let usages = of_snapshots(&repository, 1, &Silent).expect("counted");
        let sets: Vec<_> = usages.iter().map(|usage| all(&repository, &usage.id, &usage.snapshot)).collect();
        assert!(usages[1].is_held && !usages[0].is_held);
        assert_eq!(usages[0].usage.last, needed_by_none_of(&sets[0], &sets[1..].iter().collect::<Vec<_>>()));
        assert_eq!(usages[2].usage.last, needed_by_none_of(&sets[2], &[&sets[1], &sets[3], &sets[4]]));
        assert_eq!(usages[1].usage.last, sets[1].values().sum::<u64>());
    }

    #[test]
    fn hosts_and_paths_share_nothing_that_counts_for_one() {
        let world = world();
        let repository = world.open();
        let (id, snapshot) = repository.find_snapshot("latest").expect("there is one");
        let hosts = of_hosts(&repository, 1, &Silent).expect("counted");
        assert_eq!((hosts.len(), hosts[0].1), (1, 5), "{hosts:?}");
        let source = world.source.path().as_os_str().as_encoded_bytes();
        let root = browse::find(repository.reader(), &snapshot.tree, source).expect("it is there");
        let root = root.tree().expect("a directory");
        let paths = of_paths(&repository, root, source, 1, 1, &Silent).expect("counted");
        let names: Vec<_> = paths.iter().map(|path| (path.path.clone(), path.is_rest)).collect();
        let below = |name: &str| [source, name.as_bytes()].concat();
        assert_eq!(names, [(below(""), true), (below("/d"), false), (below("/kept"), false)]);
        // Nothing lies in two of them: together they are all but the way down and the record.
        let met = all(&repository, &id, &snapshot);
        let all_bytes: u64 = met.values().sum();
        let told: u64 = paths.iter().map(|path| path.usage.unique).sum();
        assert!(told < all_bytes && told > all_bytes * 9 / 10, "{told} of {all_bytes}");
        // The same content in two directories frees nothing with either.
        let before = paths[2].usage.unique;
        world.write("copy/f", &noise(1, 3000));
        let mut world = world;
        world.back_up(&repository);
        let (_, snapshot) = repository.find_snapshot("latest").expect("there is one");
        let root = browse::find(repository.reader(), &snapshot.tree, source_of(&world)).expect("it is there");
        let paths =
            of_paths(&repository, root.tree().expect("a directory"), source_of(&world), 1, 1, &Silent)
                .expect("counted");
        assert_eq!(paths.len(), 4);
        assert!(paths[3].usage.unique < before - 2900, "{paths:?}");
    }

    fn source_of(world: &World) -> &[u8] {
        world.source.path().as_os_str().as_encoded_bytes()
    }

    #[test]
    fn a_split_directory_whose_parts_lead_to_each_other_is_given_up_at_once() {
        use crate::backup::{BackupOptions, Session};
        use crate::format::record;
        let world = World::new();
        let repository = world.open();
        let session = Session::new(&repository, &BackupOptions { threads: 1, ..BackupOptions::default() });
        let mut writer = session.tree_writer();
        let mut put =
            |tree: &Tree| session.put(&mut writer, BlobKind::Tree, &record::encode(tree)).expect("stored");
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let mut tree = put(&Tree::Nodes(Vec::new()));
        for level in 0..6 {
            let part = |name: &String| TreePart {
                first: name.as_bytes().to_vec().into(),
                entries: 10_u64.pow(level),
                tree,
            };
            tree = put(&Tree::Parts(names.iter().map(part).collect()));
        }
        session.commit_blobs(&mut writer).expect("committed");
        let refused = pieces(&repository, tree).expect_err("a million pieces are said to be there");
        assert!(refused.to_string().contains("begins with"), "{refused}");
    }
}
