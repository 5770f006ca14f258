//! Looking ahead: directories are listed, their entries asked for their state and compared with the parent snapshots by
//! helper threads, before the walk comes to them.
//!
//! The walk itself is one thread that goes through directories in name order. A directory that it has entered puts
//! its subdirectories on a stack, the first on top; helpers take from there, and put the subdirectories of what they
//! have scanned on top again: so they run ahead of the walk in the walk's own order. What the walk needs and nobody
//! has begun, it scans itself: it never waits for a helper that waits for it. How far helpers run ahead is bounded
//! in directories (open handles) and entries (memory).

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::backup::assemble::ParentDir;
use crate::backup::roots;
use crate::browse;
use crate::format::tree::{Metadata, Node, NodeKind};
use crate::ids::BlobId;
use crate::source::{
    DirFilter, Filter, ListBuffer, MetadataReader, Names, SourceDir, SourceKind, SourceStat,
};
use crate::store::BlobReader;
use crate::target::check_name;

/// Directories that may be scanned before the walk asks for them: each holds an open handle.
const DIRS_AHEAD: usize = 64;
/// Entries in them: each takes its name and, in the parent snapshot, its node.
const ENTRIES_AHEAD: usize = 16 << 10;
/// Subdirectories of one directory that are scanned ahead; those behind them the walk scans itself.
const SUBDIRS_AHEAD: usize = 1024;
/// A scan older than this is made again: what is there should be what is there when the walk comes by.
const FRESH: Duration = Duration::from_secs(2);

/// An open directory of the source, where it is, and what is left out in it.
#[derive(Debug)]
pub(super) struct Dir {
    pub handle: SourceDir,
    pub path: PathBuf,
    pub filter: DirFilter,
}

/// What the walk has to do with an entry.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Unchanged: the node at this index in this parent snapshot's directory.
    Reused { parent: u32, index: u32 },
    /// A file to be read, with its size a moment ago and whether it has other names.
    File { size: u64, linked: bool },
    /// A directory, scanned ahead or not.
    Directory(Option<Arc<Child>>),
    /// A link, device, pipe or socket.
    Special,
    /// Left out by a rule.
    Excluded,
    /// Not to be had.
    Failed(io::Error),
}

/// Something to report when the walk comes to the directory.
#[derive(Debug)]
pub(super) struct Finding {
    pub code: &'static str,
    pub message: String,
    pub is_error: bool,
}

/// A directory and what is to be done with its entries.
#[derive(Debug)]
pub(super) struct Scanned {
    pub dir: Arc<Dir>,
    pub metadata: Metadata,
    pub names: Names,
    /// One for each name.
    pub verdicts: Vec<Verdict>,
    pub parents: Vec<ParentDir>,
    pub findings: Vec<Finding>,
    /// Whether a rule forbade to look inside.
    pub not_entered: bool,
    at: Instant,
}

/// Why a directory was not scanned.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is the repository.
    Repository,
    /// It cannot be opened.
    Failed(io::Error),
}

type Outcome = Result<Scanned, Refusal>;

/// A subdirectory as its parent's scan found it.
#[derive(Debug)]
pub(super) struct Child {
    parent: Arc<Dir>,
    name: Box<[u8]>,
    stat: SourceStat,
    /// The same directory in the parent snapshots.
    trees: Vec<Option<BlobId>>,
    /// Its metadata in one of them, unchanged.
    known: Option<Metadata>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
enum Progress {
    Waiting,
    Running,
    Done { outcome: Box<Outcome>, _ahead: Ahead },
    Taken,
}

/// Counts what is scanned ahead for as long as it lives.
#[derive(Debug)]
struct Ahead {
    dirs: Arc<AtomicUsize>,
    entries: Arc<AtomicUsize>,
    count: usize,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.dirs.fetch_sub(1, Ordering::Relaxed);
        self.entries.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// What a thread that scans keeps.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub metadata: MetadataReader,
    list: ListBuffer,
}

#[derive(Debug, Default)]
struct Queue {
    /// The next one last. Weak: a scan that was given up takes its subdirectories with it.
    pending: Vec<Weak<Child>>,
    closed: bool,
}

/// Scans directories, for the walk and ahead of it.
#[derive(Debug)]
pub(super) struct Scanner<'e> {
    reader: &'e BlobReader,
    filter: &'e Filter,
    /// Directories never entered: the repository itself, by device and inode.
    forbidden: HashSet<(u64, u64)>,
    queue: Mutex<Queue>,
    dirs_ahead: Arc<AtomicUsize>,
    entries_ahead: Arc<AtomicUsize>,
    /// There may be something to scan.
    work: Condvar,
    /// A scan is done.
    done: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half changed: scans happen outside of locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'e> Scanner<'e> {
    pub fn new(reader: &'e BlobReader, filter: &'e Filter, forbidden: HashSet<(u64, u64)>) -> Self {
        Self {
            reader,
            filter,
            forbidden,
            queue: Mutex::default(),
            dirs_ahead: Arc::default(),
            entries_ahead: Arc::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Runs `walk` with `helpers` threads that scan ahead of it.
    pub fn with_helpers<T>(&self, helpers: usize, walk: impl FnOnce() -> T) -> T {
        /// Sends helpers home, also when the walk panics.
        struct Close<'a, 'e>(&'a Scanner<'e>);
        impl Drop for Close<'_, '_> {
            fn drop(&mut self) {
                lock(&self.0.queue).closed = true;
                self.0.work.notify_all();
            }
        }
        std::thread::scope(|scope| {
            let close = Close(self);
            for _ in 0..helpers {
                scope.spawn(|| self.help());
            }
            let result = walk();
            drop(close);
            result
        })
    }

    /// The life of a helper.
    fn help(&self) {
        let mut scratch = Scratch::default();
        while let Some(child) = self.next() {
            let scan = std::panic::AssertUnwindSafe(|| self.scan_child(&child, &mut scratch));
            // The walk waits for an answer, whatever happens here.
            let outcome = std::panic::catch_unwind(scan).unwrap_or_else(|_| {
                let error = io::Error::other("looking at it failed: this is a bug");
                Err(Refusal::Failed(error))
            });
            let count = outcome.as_ref().map_or(0, |scanned| scanned.names.len());
            self.dirs_ahead.fetch_add(1, Ordering::Relaxed);
            self.entries_ahead.fetch_add(count, Ordering::Relaxed);
            let (dirs, entries) = (Arc::clone(&self.dirs_ahead), Arc::clone(&self.entries_ahead));
            let ahead = Ahead { dirs, entries, count };
            if let Ok(scanned) = &outcome {
                self.plan(scanned);
            }
            *lock(&child.progress) = Progress::Done { outcome: Box::new(outcome), _ahead: ahead };
            // Whoever waits holds this lock while looking.
            drop(lock(&self.queue));
            self.done.notify_all();
        }
    }

    /// The next directory to scan ahead; `None` once the walk is over.
    fn next(&self) -> Option<Arc<Child>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            let has_room = self.dirs_ahead.load(Ordering::Relaxed) < DIRS_AHEAD
                && self.entries_ahead.load(Ordering::Relaxed) < ENTRIES_AHEAD;
            if has_room && let Some(child) = queue.pending.pop() {
                let Some(child) = child.upgrade() else { continue };
                let mut progress = lock(&child.progress);
                if matches!(*progress, Progress::Waiting) {
                    *progress = Progress::Running;
                    drop(progress);
                    return Some(child);
                }
                continue;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts the subdirectories of a directory on the stack.
    fn plan(&self, scanned: &Scanned) {
        let children = scanned.verdicts.iter().rev().filter_map(|verdict| match verdict {
            Verdict::Directory(Some(child)) => Some(Arc::downgrade(child)),
            _ => None,
        });
        let mut queue = lock(&self.queue);
        let before = queue.pending.len();
        queue.pending.extend(children);
        if queue.pending.len() > before {
            drop(queue);
            self.work.notify_all();
        }
    }

    /// The scan of a subdirectory that the walk has come to.
    pub fn take(&self, child: &Arc<Child>, scratch: &mut Scratch) -> Outcome {
        let ready = self.ready(child);
        // Helpers may go on.
        drop(lock(&self.queue));
        self.work.notify_all();
        match ready {
            Some(Ok(scanned)) if scanned.at.elapsed() > FRESH => {}
            Some(outcome) => return outcome,
            None => {}
        }
        let outcome = self.scan_child(child, scratch);
        if let Ok(scanned) = &outcome {
            self.plan(scanned);
        }
        outcome
    }

    /// What a helper found, waiting for it if it has begun.
    fn ready(&self, child: &Child) -> Option<Outcome> {
        let mut queue = lock(&self.queue);
        loop {
            let mut progress = lock(&child.progress);
            match std::mem::replace(&mut *progress, Progress::Taken) {
                Progress::Waiting | Progress::Taken => return None,
                Progress::Done { outcome, .. } => return Some(*outcome),
                Progress::Running => *progress = Progress::Running,
            }
            drop(progress);
            queue = self.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A subdirectory that was not scanned ahead.
    pub fn child(
        &self,
        parent: &Arc<Dir>,
        parents: &[ParentDir],
        name: &[u8],
        stat: SourceStat,
    ) -> Arc<Child> {
        let nodes = parents.iter().map(|parent| parent.find(name).map(|at| &parent.nodes[at]));
        Arc::new(make_child(parent, name, stat, nodes))
    }

    fn scan_child(&self, child: &Child, scratch: &mut Scratch) -> Outcome {
        if self.forbidden.contains(&(child.stat.device, child.stat.inode)) {
            return Err(Refusal::Repository);
        }
        let handle = child.parent.handle.open_dir(&child.name).map_err(Refusal::Failed)?;
        let path = roots::join(&child.parent.path, &child.name);
        Ok(self.scan(
            handle,
            path,
            &child.stat,
            &child.parent.filter,
            &child.trees,
            child.known.as_ref(),
            scratch,
        ))
    }

    /// Scans a root, which is open.
    pub fn root(
        &self,
        handle: SourceDir,
        path: &Path,
        stat: &SourceStat,
        nodes: &[Option<&Node>],
        scratch: &mut Scratch,
    ) -> Outcome {
        if self.forbidden.contains(&(stat.device, stat.inode)) {
            return Err(Refusal::Repository);
        }
        let above = self.filter.above_root(stat.device);
        let trees: Vec<_> = nodes.iter().map(|node| node.and_then(tree_of)).collect();
        let known = nodes.iter().find_map(|node| unchanged_dir((*node)?, stat));
        let scanned = self.scan(handle, path.to_owned(), stat, &above, &trees, known, scratch);
        self.plan(&scanned);
        Ok(scanned)
    }

    /// Scans the root directory of the system, whose parents are given.
    pub fn system_root(
        &self,
        handle: SourceDir,
        stat: &SourceStat,
        trees: &[BlobId],
        scratch: &mut Scratch,
    ) -> Scanned {
        let above = self.filter.above_root(stat.device);
        let trees: Vec<_> = trees.iter().copied().map(Some).collect();
        let scanned = self.scan(handle, PathBuf::from("/"), stat, &above, &trees, None, scratch);
        self.plan(&scanned);
        scanned
    }

    #[allow(clippy::too_many_arguments, reason = "all that is known of a directory")]
    fn scan(
        &self,
        mut handle: SourceDir,
        path: PathBuf,
        stat: &SourceStat,
        above: &DirFilter,
        trees: &[Option<BlobId>],
        known: Option<&Metadata>,
        scratch: &mut Scratch,
    ) -> Scanned {
        let mut findings = Vec::new();
        let mut find = |code, message, is_error| findings.push(Finding { code, message, is_error });
        let metadata = known.cloned().unwrap_or_else(|| {
            let mut problem = |error: crate::source::MetadataError| {
                find("metadata-unreadable", error.to_string(), true);
            };
            scratch.metadata.of_open(&handle, stat, &mut problem)
        });
        let parents: Vec<_> = trees.iter().map(|tree| load_parent(self.reader, *tree, &mut find)).collect();
        let not_entered = self.filter.not_entered(above, stat).is_some();
        let mut names = Names::default();
        let mut filter = above.clone();
        if !not_entered {
            match handle.names(&mut scratch.list) {
                Ok(listed) => names = listed,
                Err(error) => find(failure_code(&error), failure(&error), true),
            }
            let mut warn = |error: crate::source::FilterError| find("ignore-rule", error.to_string(), true);
            filter = self.filter.enter(above, &path, &handle, &names, &mut warn);
        }
        let dir = Arc::new(Dir { handle, path, filter });
        let verdicts = self.verdicts(&dir, &names, &parents);
        Scanned { dir, metadata, names, verdicts, parents, findings, not_entered, at: Instant::now() }
    }

    fn verdicts(&self, dir: &Arc<Dir>, names: &Names, parents: &[ParentDir]) -> Vec<Verdict> {
        let keeps_all = self.filter.keeps_all(&dir.filter);
        let mut places = vec![0; parents.len()];
        let mut nodes: Vec<Option<(u32, &Node)>> = vec![None; parents.len()];
        let mut subdirs = 0;
        names
            .iter()
            .map(|entry| {
                // Both lists ascend: each is gone through once.
                for ((parent, place), node) in parents.iter().zip(&mut places).zip(&mut nodes) {
                    *node = advance(parent, place, entry.name);
                }
                let verdict = self.verdict(dir, keeps_all, entry.name, &nodes, subdirs < SUBDIRS_AHEAD);
                subdirs += usize::from(matches!(verdict, Verdict::Directory(_)));
                verdict
            })
            .collect()
    }

    /// What to do with one entry, for which the parent snapshots have these nodes.
    fn verdict(
        &self,
        dir: &Arc<Dir>,
        keeps_all: bool,
        name: &[u8],
        nodes: &[Option<(u32, &Node)>],
        ahead: bool,
    ) -> Verdict {
        // Some file systems have names that others, and so trees, do not take.
        let checked = check_name(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidFilename, error));
        let stat = match checked.and_then(|()| dir.handle.stat(name)) {
            Ok(stat) => stat,
            Err(error) => return Verdict::Failed(error),
        };
        if !keeps_all {
            let path = roots::join(&dir.path, name);
            if self.filter.excluded(&dir.filter, &path, stat.kind, stat.size).is_some() {
                return Verdict::Excluded;
            }
        }
        if stat.kind == SourceKind::Directory {
            let nodes = nodes.iter().map(|node| node.map(|(_, node)| node));
            return Verdict::Directory(ahead.then(|| Arc::new(make_child(dir, name, stat, nodes))));
        }
        let same = nodes.iter().zip(0..).find_map(|(node, parent)| {
            let (index, node) = (*node)?;
            is_unchanged(node, &stat).then_some(Verdict::Reused { parent, index })
        });
        match (same, stat.kind) {
            (Some(verdict), _) => verdict,
            (None, SourceKind::File) => Verdict::File { size: stat.size, linked: stat.links > 1 },
            (None, _) => Verdict::Special,
        }
    }

    /// What to do with one entry outside of any scan.
    pub fn single(&self, dir: &Arc<Dir>, name: &[u8], parents: &[ParentDir]) -> Verdict {
        let nodes: Vec<_> = parents
            .iter()
            .map(|parent| {
                let index = parent.find(name)?;
                Some((u32::try_from(index).ok()?, &parent.nodes[index]))
            })
            .collect();
        self.verdict(dir, self.filter.keeps_all(&dir.filter), name, &nodes, false)
    }

    /// What holds above a root on this device.
    pub fn above_root(&self, device: u64) -> DirFilter {
        self.filter.above_root(device)
    }
}

/// The node called `name`, if `parent` has it at or behind `place`, which moves there.
fn advance<'p>(parent: &'p ParentDir, place: &mut usize, name: &[u8]) -> Option<(u32, &'p Node)> {
    while let Some(node) = parent.nodes.get(*place) {
        match node.name.as_slice().cmp(name) {
            std::cmp::Ordering::Less => *place += 1,
            std::cmp::Ordering::Equal => return Some((u32::try_from(*place).ok()?, node)),
            std::cmp::Ordering::Greater => break,
        }
    }
    None
}

fn make_child<'n>(
    parent: &Arc<Dir>,
    name: &[u8],
    stat: SourceStat,
    nodes: impl Iterator<Item = Option<&'n Node>> + Clone,
) -> Child {
    Child {
        parent: Arc::clone(parent),
        name: name.into(),
        known: nodes.clone().find_map(|node| unchanged_dir(node?, &stat)).cloned(),
        // The first parent stays the first, even if it has nothing here: its tree may be taken over as a whole.
        trees: nodes.map(|node| node.and_then(tree_of)).collect(),
        stat,
        progress: Mutex::new(Progress::Waiting),
    }
}

fn tree_of(node: &Node) -> Option<BlobId> {
    match &node.kind {
        NodeKind::Directory { tree } => Some(*tree),
        _ => None,
    }
}

/// The metadata of a directory in a parent snapshot, if its `stat` says that it still holds.
pub(super) fn unchanged_dir<'n>(node: &'n Node, stat: &SourceStat) -> Option<&'n Metadata> {
    let is_dir = matches!(node.kind, NodeKind::Directory { .. });
    (is_dir && stat.looks_unchanged(&node.metadata, 0)).then_some(&node.metadata)
}

/// Whether an entry's `stat` says that it is what a parent snapshot has.
fn is_unchanged(node: &Node, stat: &SourceStat) -> bool {
    match (&node.kind, stat.kind) {
        (NodeKind::File(content), SourceKind::File) => {
            !content.unstable && stat.looks_unchanged(&node.metadata, content.size)
        }
        (NodeKind::Symlink { .. }, SourceKind::Symlink)
        | (NodeKind::Fifo, SourceKind::Fifo)
        | (NodeKind::Socket, SourceKind::Socket) => stat.looks_unchanged(&node.metadata, stat.size),
        _ => false,
    }
}

/// The nodes of a parent's directory. Unreadable parents are a warning: everything is then read again.
pub(super) fn load_parent(
    reader: &BlobReader,
    tree: Option<BlobId>,
    find: &mut dyn FnMut(&'static str, String, bool),
) -> ParentDir {
    let Some(tree) = tree else { return ParentDir::default() };
    let mut nodes = Vec::new();
    let result = browse::nodes(reader, &tree, &mut |node| {
        nodes.push(node);
        std::ops::ControlFlow::Continue(())
    });
    match result {
        Ok(()) => ParentDir { tree: Some(tree), nodes },
        Err(error) => {
            let message = format!("cannot read the parent snapshot here, everything is read again: {error}");
            find("parent-unreadable", message, false);
            ParentDir::default()
        }
    }
}

/// The problem code of an entry that cannot be had.
pub(super) fn failure_code(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotFound { "vanished" } else { "unreadable" }
}

/// What is said of it.
pub(super) fn failure(error: &io::Error) -> String {
    format!("not backed up: {error}")
}
