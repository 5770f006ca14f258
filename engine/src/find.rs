//! Finding entries by name in many snapshots at once.
//!
//! All snapshots are walked side by side: of each path, every tree that any of them has there is read once, however many
//! share it. Entries come in the order of paths, and every version of one with the snapshots that have it.
//!
//! Of each directory on the way a window of entries is in memory, for all of its trees together: one tree after the other is read
//! into it, and what they have in common takes room once. So it reaches far where trees differ in few entries, as
//! those of successive snapshots do, and each is read once or little more. Where very many snapshots differ in large directories,
//! windows are short, or are given up and read again, so that memory is bounded whatever there is.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use serde_bytes::ByteBuf;

use crate::browse::{BrowseError, Pieces};
use crate::format::tree::{Node, NodeKind, Timestamp};
use crate::ids::BlobId;
use crate::source::{FilterError, PathPatterns};
use crate::store::BlobReader;

/// Entries in all windows together, about. What trees with consecutive numbers have in common is one.
const ENTRIES_MAX: usize = 64 << 10;

/// What is looked for.
#[derive(Debug)]
pub struct Wanted {
    patterns: PathPatterns,
    kinds: Vec<EntryKind>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

impl EntryKind {
    fn of(kind: &NodeKind) -> Self {
        match kind {
            NodeKind::File(_) => Self::File,
            NodeKind::Directory { .. } => Self::Directory,
            NodeKind::Symlink { .. } => Self::Symlink,
            _ => Self::Other,
        }
    }
}

impl Wanted {
    /// Entries that match any of `patterns`, which mean what exclude patterns mean, and are of one of `kinds`; of any, if
    /// there are none.
    ///
    /// # Errors
    /// [`FilterError::Pattern`] for a pattern that cannot be used.
    pub fn new(patterns: &[String], ignores_case: bool, kinds: Vec<EntryKind>) -> Result<Self, FilterError> {
        let patterns = match ignores_case {
            true => PathPatterns::ignoring_case(patterns)?,
            false => PathPatterns::new(patterns)?,
        };
        Ok(Self { patterns, kinds })
    }

    fn is(&self, path: &[u8], kind: EntryKind) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.patterns.last_match(Path::new(OsStr::from_bytes(path))).is_some()
    }
}

/// One version of an entry that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match<'a> {
    /// The path, from the root.
    pub path: &'a [u8],
    /// What it is.
    pub kind: EntryKind,
    /// Bytes, of a file.
    pub size: u64,
    /// When it was last modified.
    pub mtime: Timestamp,
    /// The first snapshot that has it, by its place in the list.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// How many have it.
    pub snapshots: usize,
}

/// Calls `visit` with every version of every entry that is wanted, of snapshots with these root trees.
///
/// # Errors
/// [`BrowseError`] where a tree cannot be read: what is looked for may be in it.
pub fn run(
    reader: &BlobReader,
    roots: &[BlobId],
    wanted: &Wanted,
    visit: &mut dyn FnMut(Match<'_>) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    run_within(reader, roots, wanted, ENTRIES_MAX, visit)
}

fn run_within(
    reader: &BlobReader,
    roots: &[BlobId],
    wanted: &Wanted,
    entries_max: usize,
    visit: &mut dyn FnMut(Match<'_>) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    let mut trees: HashMap<BlobId, Vec<usize>> = HashMap::new();
    for (snapshot, tree) in roots.iter().enumerate() {
        trees.entry(*tree).or_default().push(snapshot);
    }
    let roots = trees.into_iter().map(|(tree, snapshots)| Cursor::new(tree, snapshots.into()));
    let search = Search { reader, wanted, room: entries_max / 4 };
    let mut path = Vec::new();
    let mut levels = vec![Level::new(roots.collect(), 0)];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path_len);
        let Some((name, runs)) = level.next(&search, &path)? else {
            levels.pop();
            continue;
        };
        path.push(b'/');
        path.extend_from_slice(&name);
        if tell(&path, level.versions(&runs, wanted, &path), visit).is_break() {
            return Ok(());
        }
        let below = level.below(&runs);
        if !below.is_empty() {
            let held: usize = levels.iter().map(|level| level.held).sum();
            if held > entries_max {
                levels.iter_mut().for_each(Level::give_up);
            }
            levels.push(Level::new(below, path.len()));
        }
    }
    Ok(())
}

/// Tells of the versions of one entry, those that came first before others.
fn tell(
    path: &[u8],
    versions: HashMap<Version, Seen>,
    visit: &mut dyn FnMut(Match<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let told = versions.into_iter().map(|(version, seen)| {
        let Version { kind, size, mtime, .. } = version;
        Match { path, kind, size, mtime, first: seen.first, last: seen.last, snapshots: seen.count }
    });
    let mut told: Vec<Match<'_>> = told.collect();
    // What is in the same first snapshot differs in the rest: a snapshot has one version of a path.
    told.sort_unstable_by_key(|version| version.first);
    told.into_iter().try_for_each(visit)
}

/// What is looked for where, and how many entries one window has room for.
struct Search<'a> {
    reader: &'a BlobReader,
    wanted: &'a Wanted,
    room: usize,
}

/// Which snapshots have something, as far as that is told.
#[derive(Debug, Clone, Copy)]
struct Seen {
    first: usize,
    last: usize,
    count: usize,
}

impl Seen {
    /// In these snapshots as well, which are others.
    fn and(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            count: self.count + other.count,
        }
    }
}

/// What makes one entry another version than the entry of the same path in another snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    kind: EntryKind,
    size: u64,
    mtime: Timestamp,
    /// Hash of what a file consists of, or a link points to.
    content: [u8; 32],
}

/// An entry as far as it matters here.
#[derive(Debug)]
struct Entry {
    name: ByteBuf,
    version: Version,
    tree: Option<BlobId>,
}

impl Entry {
    fn of(node: Node) -> Self {
        let mut hasher = blake3::Hasher::new();
        let (mut size, mut tree) = (0, None);
        match &node.kind {
            NodeKind::File(content) => {
                size = content.size;
                hasher.update(&content.chunks);
                for hole in &content.holes {
                    hasher.update(&hole.offset.to_le_bytes()).update(&hole.length.to_le_bytes());
                }
            }
            NodeKind::Symlink { target } => {
                hasher.update(target);
            }
            NodeKind::Directory { tree: own } => tree = Some(*own),
            NodeKind::CharDevice { .. }
            | NodeKind::BlockDevice { .. }
            | NodeKind::Fifo
            | NodeKind::Socket => {}
        }
        let (kind, mtime) = (EntryKind::of(&node.kind), node.metadata.mtime);
        Self {
            name: node.name,
            version: Version { kind, size, mtime, content: hasher.finalize().into() },
            tree,
        }
    }
}

/// A directory in all snapshots that have it.
struct Level {
    /// Its trees, by the first snapshots that have them: those with consecutive numbers differ little, as a rule.
    cursors: Vec<Cursor>,
    /// How much of the path leads to it.
    path_len: usize,
    /// The entries that come next, by name, each as all trees have it.
    window: BTreeMap<ByteBuf, Vec<Run>>,
    /// Runs in the window.
    held: usize,
    /// The last name that was given out.
    passed: ByteBuf,
    /// Nothing follows the window.
    is_at_end: bool,
    #[cfg(test)]
    pieces_read: usize,
}

/// One tree of a directory.
struct Cursor {
    tree: BlobId,
    /// Those that have it, ascending. No other tree of the directory is theirs.
    snapshots: Rc<[usize]>,
    /// The last name in it that matters, once that is known: when it has passed, the tree need not be read again.
    end: Option<ByteBuf>,
}

/// An entry as consecutive trees of a directory have it.
struct Run {
    version: Version,
    tree: Option<BlobId>,
    /// Their numbers.
    cursors: Range<usize>,
}

impl Cursor {
    fn new(tree: BlobId, snapshots: Rc<[usize]>) -> Self {
        Self { tree, snapshots, end: None }
    }

    fn seen(&self) -> Option<Seen> {
        let (first, last) = (*self.snapshots.first()?, *self.snapshots.last()?);
        Some(Seen { first, last, count: self.snapshots.len() })
    }
}

impl Level {
    fn new(mut cursors: Vec<Cursor>, path_len: usize) -> Self {
        cursors.sort_unstable_by_key(|cursor| cursor.snapshots.first().copied());
        Self {
            cursors,
            path_len,
            window: BTreeMap::new(),
            held: 0,
            passed: ByteBuf::new(),
            is_at_end: false,
            #[cfg(test)]
            pieces_read: 0,
        }
    }

    /// Lets go of what is held. It is read again when its turn comes.
    fn give_up(&mut self) {
        if !self.window.is_empty() {
            self.window = BTreeMap::new();
            self.held = 0;
            self.is_at_end = false;
        }
    }

    /// The next name that matters, with what trees have by it.
    fn next(&mut self, search: &Search<'_>, path: &[u8]) -> Result<Option<(ByteBuf, Vec<Run>)>, BrowseError> {
        if self.window.is_empty() && !self.is_at_end {
            self.fill(search, path)?;
        }
        let Some((name, runs)) = self.window.pop_first() else { return Ok(None) };
        self.held -= runs.len();
        self.passed.clone_from(&name);
        Ok(Some((name, runs)))
    }

    /// Reads as many of the next entries as have room, one at least. It ends with the same name in all trees: what one of them has
    /// beyond would be in the way of what others have before.
    fn fill(&mut self, search: &Search<'_>, path: &[u8]) -> Result<(), BrowseError> {
        // There is no room for this name and what comes after it.
        let mut bound: Option<ByteBuf> = None;
        for number in 0..self.cursors.len() {
            let end = self.cursors[number].end.as_ref();
            if end.is_none_or(|end| *end > self.passed) {
                self.read(number, search, path, &mut bound)?;
            }
        }
        self.is_at_end = bound.is_none();
        Ok(())
    }

    /// Reads what one tree has before `bound`, which comes to be earlier when there is no room.
    fn read(
        &mut self,
        number: usize,
        search: &Search<'_>,
        path: &[u8],
        bound: &mut Option<ByteBuf>,
    ) -> Result<(), BrowseError> {
        let mut path = [path, b"/"].concat();
        let base = path.len();
        let mut end = self.passed.clone();
        let mut pieces = Pieces::from(self.cursors[number].tree, &self.passed);
        while let Some(piece) = pieces.next(search.reader) {
            #[cfg(test)]
            {
                self.pieces_read += 1;
            }
            for node in piece?.nodes {
                // No name is empty.
                if node.name <= self.passed {
                    continue;
                }
                if bound.as_ref().is_some_and(|bound| node.name >= *bound) {
                    return Ok(());
                }
                path.truncate(base);
                path.extend_from_slice(&node.name);
                let is_directory = matches!(node.kind, NodeKind::Directory { .. });
                if is_directory || search.wanted.is(&path, EntryKind::of(&node.kind)) {
                    end.clone_from(&node.name);
                    self.hold(number, Entry::of(node));
                    self.make_room(search.room, bound);
                }
            }
        }
        self.cursors[number].end = Some(end);
        Ok(())
    }

    /// Adds what tree `number` has to the window. Of a name, trees come in the order of their numbers.
    fn hold(&mut self, number: usize, Entry { name, version, tree }: Entry) {
        // One version is the usual case, and a list begins with room for four.
        let runs = self.window.entry(name).or_insert_with(|| Vec::with_capacity(1));
        match runs.last_mut() {
            Some(run) if run.cursors.end == number && (run.version, run.tree) == (version, tree) => {
                run.cursors.end += 1;
            }
            _ => {
                runs.push(Run { version, tree, cursors: number..number + 1 });
                self.held += 1;
            }
        }
    }

    /// Lets go of the last names while there is more than there is room for, but not of the only one.
    fn make_room(&mut self, room: usize, bound: &mut Option<ByteBuf>) {
        while self.held > room
            && self.window.len() > 1
            && let Some((name, runs)) = self.window.pop_last()
        {
            self.held -= runs.len();
            *bound = Some(name);
        }
    }

    /// The wanted ones of an entry's versions, with the snapshots that have them.
    fn versions(&self, runs: &[Run], wanted: &Wanted, path: &[u8]) -> HashMap<Version, Seen> {
        let mut versions: HashMap<Version, Seen> = HashMap::new();
        for run in runs.iter().filter(|run| wanted.is(path, run.version.kind)) {
            for seen in self.cursors[run.cursors.clone()].iter().filter_map(Cursor::seen) {
                versions.entry(run.version).and_modify(|all| *all = all.and(seen)).or_insert(seen);
            }
        }
        versions
    }

    /// The trees that an entry is where it is a directory.
    fn below(&self, runs: &[Run]) -> Vec<Cursor> {
        let mut trees: HashMap<BlobId, Vec<&Rc<[usize]>>> = HashMap::new();
        for run in runs {
            if let Some(tree) = run.tree {
                let snapshots = self.cursors[run.cursors.clone()].iter().map(|cursor| &cursor.snapshots);
                trees.entry(tree).or_default().extend(snapshots);
            }
        }
        trees.into_iter().map(|(tree, lists)| Cursor::new(tree, merged(&lists))).collect()
    }
}

/// One ascending list of several, which have nothing in common. A single one is shared: all that is below a tree of many snapshots has
/// theirs.
fn merged(lists: &[&Rc<[usize]>]) -> Rc<[usize]> {
    if let [only] = lists {
        return Rc::clone(only);
    }
    let mut all: Vec<usize> = lists.iter().flat_map(|list| list.iter().copied()).collect();
    all.sort_unstable();
    all.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::browse;
    use crate::prune::test_support::{Random, World};
    use crate::repo::Repository;

    type Told = (Vec<u8>, u64, Timestamp, usize, usize, usize);

    fn told(reader: &BlobReader, roots: &[BlobId], wanted: &Wanted, entries_max: usize) -> Vec<Told> {
        let mut told = Vec::new();
        run_within(reader, roots, wanted, entries_max, &mut |one| {
            told.push((one.path.to_vec(), one.size, one.mtime, one.first, one.last, one.snapshots));
            ControlFlow::Continue(())
        })
        .expect("readable");
        told
    }

    /// The same, by listing one snapshot after the other.
    fn listed(reader: &BlobReader, roots: &[BlobId], wanted: &Wanted) -> BTreeSet<Told> {
        let mut found: HashMap<(Vec<u8>, Version), Vec<usize>> = HashMap::new();
        for (number, root) in roots.iter().enumerate() {
            browse::list(reader, root, b"", true, &mut |path, node| {
                let version = Entry::of(node.clone()).version;
                if wanted.is(path, version.kind) {
                    found.entry((path.to_vec(), version)).or_default().push(number);
                }
                ControlFlow::Continue(())
            })
            .expect("readable");
        }
        let told = found.into_iter().map(|((path, version), snapshots)| {
            let (first, last) = (snapshots[0], snapshots[snapshots.len() - 1]);
            (path, version.size, version.mtime, first, last, snapshots.len())
        });
        told.collect()
    }

    #[test]
    fn however_little_is_held_all_is_found_as_by_listing() {
        let mut world = World::new();
        let repository = world.open();
        for night in 0..4_usize {
            for file in 0..12_usize {
                world.write(&format!("d{}/deep/f{file}", file % 3), &vec![7; 10 + file]);
            }
            world.write(&format!("d{night}/changes"), &vec![1; night]);
            world.write("d1/deep/f1", &vec![2; 100 + night / 2]);
            world.remove(&format!("d0/deep/f{}", 3 * night));
            world.back_up(&repository);
        }
        let snapshots = repository.snapshots().expect("readable");
        let roots: Vec<BlobId> = snapshots.iter().map(|(_, snapshot)| snapshot.tree).collect();
        for (patterns, kinds) in [
            (["*", "x"], vec![]),
            (["f1", "changes"], vec![EntryKind::File]),
            (["deep/f*", "x"], vec![EntryKind::File]),
            (["d*", "nothing"], vec![EntryKind::Directory]),
        ] {
            let wanted = Wanted::new(&patterns.map(str::to_owned), false, kinds).expect("patterns");
            let expected = listed(repository.reader(), &roots, &wanted);
            assert!(!expected.is_empty());
            let all = told(repository.reader(), &roots, &wanted, ENTRIES_MAX);
            assert_eq!(all.iter().cloned().collect::<BTreeSet<_>>(), expected);
            assert_eq!(all.len(), expected.len(), "nothing is told twice");
            for entries_max in [0, 1, 5, 20, 50] {
                assert_eq!(told(repository.reader(), &roots, &wanted, entries_max), all, "{entries_max}");
            }
        }
    }

    /// Nights on which one of the directories is changed, and the tree that holds them all on each night.
    fn nights(world: &mut World, repository: &Repository, nights: usize, directories: usize) -> Vec<BlobId> {
        let mut trees = Vec::new();
        for night in 0..nights {
            for directory in 0..directories {
                if night == 0 || directory == 7 * night % directories {
                    world.write(&format!("d{directory:03}/f"), &vec![1; 10 + night]);
                }
            }
            let id = world.back_up(repository);
            let (_, snapshot) = repository.find_snapshot(&id.to_string()).expect("it was just made");
            let source = world.source.path().as_os_str().as_bytes();
            let found = browse::find(repository.reader(), &snapshot.tree, source).expect("readable");
            trees.push(found.tree().expect("a directory"));
        }
        trees
    }

    #[test]
    fn snapshots_that_share_trees_in_any_order_are_counted_and_named_rightly() {
        let mut world = World::new();
        let repository = world.open();
        let trees = nights(&mut world, &repository, 6, 9);
        let mut random = Random::new(5);
        for snapshots in [1, 2, 7, 40] {
            let any = |_| trees[usize::try_from(random.below(6)).expect("a small number")];
            let roots: Vec<BlobId> = (0..snapshots).map(any).collect();
            for patterns in ["*", "f", "d00[37]"] {
                let wanted = Wanted::new(&[patterns.to_owned()], false, vec![]).expect("a pattern");
                let expected = listed(repository.reader(), &roots, &wanted);
                for entries_max in [0, 9, 60, ENTRIES_MAX] {
                    let all = told(repository.reader(), &roots, &wanted, entries_max);
                    assert_eq!(all.len(), expected.len(), "nothing is told twice");
                    assert_eq!(all.iter().cloned().collect::<BTreeSet<_>>(), expected);
                    // Here, in which no name begins with another one.
                    assert!(all.is_sorted_by_key(|(path, .., first, _, _)| (path.clone(), *first)));
                }
            }
        }
    }

    #[test]
    fn what_trees_have_in_common_takes_room_once_and_each_is_read_once() {
        const TREES: usize = 24;
        const DIRECTORIES: usize = 100;
        let mut world = World::new();
        let repository = world.open();
        let trees = nights(&mut world, &repository, TREES, DIRECTORIES);
        let wanted = Wanted::new(&["nothing".to_owned()], false, vec![]).expect("a pattern");
        let read = |room: usize| {
            let search = Search { reader: repository.reader(), wanted: &wanted, room };
            let cursor = |(number, tree): (usize, &BlobId)| Cursor::new(*tree, [number].into());
            let mut level = Level::new(trees.iter().enumerate().map(cursor).collect(), 0);
            let mut names = Vec::new();
            while let Some((name, runs)) = level.next(&search, b"").expect("readable") {
                let trees = runs.iter().map(|run| run.cursors.len()).sum::<usize>();
                assert_eq!(trees, TREES, "all of them have each directory");
                // What is given out was held as well.
                let held = level.window.values().map(Vec::len).sum::<usize>();
                assert_eq!(held, level.held);
                assert!(held + runs.len() <= room.max(runs.len()), "{held} and {} of {room}", runs.len());
                names.push(name);
            }
            assert!(names.is_sorted() && names.len() == DIRECTORIES);
            level.pieces_read
        };
        // Each night another directory is changed, which makes one run two.
        assert_eq!(read(DIRECTORIES + 2 * TREES), TREES);
        assert!(read(DIRECTORIES) <= 2 * TREES);
        assert!(read(1) <= TREES * DIRECTORIES);
    }

    #[test]
    fn a_tree_that_is_at_its_end_is_not_read_again_for_each_window() {
        let mut world = World::new();
        let repository = world.open();
        let short = nights(&mut world, &repository, 1, 2).remove(0);
        let long = nights(&mut world, &repository, 1, 200).remove(0);
        let wanted = Wanted::new(&["nothing".to_owned()], false, vec![]).expect("a pattern");
        let search = Search { reader: repository.reader(), wanted: &wanted, room: 10 };
        let cursors = vec![Cursor::new(short, [0].into()), Cursor::new(long, [1].into())];
        let mut level = Level::new(cursors, 0);
        let mut names = 0;
        while level.next(&search, b"").expect("readable").is_some() {
            names += 1;
        }
        assert_eq!(names, 200);
        assert!(level.pieces_read <= 1 + 21, "{}", level.pieces_read);
    }
}
