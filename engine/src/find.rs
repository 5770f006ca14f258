//! Finding entries by name in many snapshots at once.
//!
//! All snapshots are walked side by side: of each path, every tree that any of them has there is read once, however many
//! share it. Entries come in the order of paths, and every version of one with the snapshots that have it. Of each
//! directory on the way a window of entries is in memory; where very many snapshots differ in large directories, windows
//! are given up and read again, so that memory is bounded whatever there is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_bytes::ByteBuf;

use crate::browse::{BrowseError, Pieces};
use crate::format::tree::{Node, NodeKind, Timestamp};
use crate::ids::BlobId;
use crate::source::{FilterError, PathPatterns};
use crate::store::BlobReader;

/// Entries in all windows together, about.
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
    let mut trees: BTreeMap<BlobId, Vec<usize>> = BTreeMap::new();
    for (snapshot, tree) in roots.iter().enumerate() {
        trees.entry(*tree).or_default().push(snapshot);
    }
    let mut path = Vec::new();
    let mut levels = vec![Level::new(trees, 0)];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path_len);
        let Some((name, entries)) = level.next(reader, wanted, &path, entries_max)? else {
            levels.pop();
            continue;
        };
        path.push(b'/');
        path.extend_from_slice(&name);
        let mut versions: HashMap<Version, Vec<usize>> = HashMap::new();
        let mut below: BTreeMap<BlobId, Vec<usize>> = BTreeMap::new();
        for (entry, snapshots) in entries {
            if let Some(tree) = entry.tree {
                below.entry(tree).or_default().extend(&snapshots);
            }
            if wanted.is(&path, entry.version.kind) {
                versions.entry(entry.version).or_default().extend(&snapshots);
            }
        }
        if tell(&path, versions, visit).is_break() {
            return Ok(());
        }
        if !below.is_empty() {
            let held: usize = levels.iter().map(Level::held).sum();
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
    versions: HashMap<Version, Vec<usize>>,
    visit: &mut dyn FnMut(Match<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let told = versions.into_iter().filter_map(|(version, snapshots)| {
        let (first, last) = (*snapshots.iter().min()?, *snapshots.iter().max()?);
        let Version { kind, size, mtime, .. } = version;
        Some(Match { path, kind, size, mtime, first, last, snapshots: snapshots.len() })
    });
    let mut told: Vec<Match<'_>> = told.collect();
    // What is in the same first snapshot differs in the rest: a snapshot has one version of a path.
    told.sort_unstable_by_key(|version| version.first);
    told.into_iter().try_for_each(visit)
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
    cursors: Vec<Cursor>,
    /// How much of the path leads to it.
    path_len: usize,
}

impl Level {
    fn new(trees: BTreeMap<BlobId, Vec<usize>>, path_len: usize) -> Self {
        let cursors = trees.into_iter().map(|(tree, snapshots)| Cursor::new(tree, snapshots)).collect();
        Self { cursors, path_len }
    }

    fn held(&self) -> usize {
        self.cursors.iter().map(|cursor| cursor.window.len()).sum()
    }

    /// Lets go of what is held. It is read again when its turn comes.
    fn give_up(&mut self) {
        for cursor in &mut self.cursors {
            if !cursor.window.is_empty() {
                cursor.window = VecDeque::new();
                cursor.is_at_end = false;
            }
        }
    }

    /// The next name that matters, with what each tree has by it and the snapshots that have the tree.
    #[allow(clippy::type_complexity, reason = "it is taken apart at once")]
    fn next(
        &mut self,
        reader: &BlobReader,
        wanted: &Wanted,
        path: &[u8],
        entries_max: usize,
    ) -> Result<Option<(ByteBuf, Vec<(Entry, Vec<usize>)>)>, BrowseError> {
        let room = (entries_max / 4 / self.cursors.len().max(1)).max(1);
        for cursor in &mut self.cursors {
            cursor.fill(reader, wanted, path, room)?;
        }
        let names = self.cursors.iter().filter_map(|cursor| cursor.window.front());
        let Some(name) = names.map(|entry| &entry.name).min().cloned() else { return Ok(None) };
        let mut found = Vec::new();
        for cursor in &mut self.cursors {
            if cursor.window.front().is_some_and(|entry| entry.name == name)
                && let Some(entry) = cursor.window.pop_front()
            {
                cursor.passed.clone_from(&entry.name);
                found.push((entry, cursor.snapshots.clone()));
            }
        }
        Ok(Some((name, found)))
    }
}

/// One tree of a directory, of which some entries are held.
struct Cursor {
    tree: BlobId,
    /// Those that have it.
    snapshots: Vec<usize>,
    window: VecDeque<Entry>,
    /// The last name that was given out.
    passed: ByteBuf,
    /// Nothing follows the window.
    is_at_end: bool,
}

impl Cursor {
    fn new(tree: BlobId, snapshots: Vec<usize>) -> Self {
        Self { tree, snapshots, window: VecDeque::new(), passed: ByteBuf::new(), is_at_end: false }
    }

    /// Makes sure that the next entry is held, if there is one.
    fn fill(
        &mut self,
        reader: &BlobReader,
        wanted: &Wanted,
        path: &[u8],
        room: usize,
    ) -> Result<(), BrowseError> {
        if self.is_at_end || !self.window.is_empty() {
            return Ok(());
        }
        let mut path = [path, b"/"].concat();
        let base = path.len();
        let mut pieces = Pieces::from(self.tree, &self.passed);
        while let Some(piece) = pieces.next(reader) {
            for node in piece?.nodes {
                // No name is empty.
                if node.name <= self.passed {
                    continue;
                }
                path.truncate(base);
                path.extend_from_slice(&node.name);
                let is_directory = matches!(node.kind, NodeKind::Directory { .. });
                if !is_directory && !wanted.is(&path, EntryKind::of(&node.kind)) {
                    continue;
                }
                if self.window.len() == room {
                    return Ok(());
                }
                self.window.push_back(Entry::of(node));
            }
        }
        self.is_at_end = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::browse;
    use crate::prune::test_support::World;

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
}
