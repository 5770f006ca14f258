//! Looking ahead: directories are listed, their entries asked for their state and compared with the parent snapshots by
//! helper threads, before the walk comes to them.
//!
//! The walk itself is one thread that goes through directories in name order. Whoever has scanned a directory adds its
//! subdirectories to those that are known and not yet scanned, and helpers take the first of them in the walk's own order: so they stay
//! just ahead of it. What the walk needs and nobody has begun, it scans itself; while a helper is at it, the walk does a helper's work. How
//! far they run ahead is bounded in directories (open handles), entries, and the memory that these take ([`Ahead`]).
//!
//! Of a large directory, only a window of its entries is looked at in one go; the walk has the next one scanned when it is done
//! with them.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::backup::ahead::{Ahead, DIRS_AHEAD, DIRS_RESUMED, Held};
use crate::backup::instead::Instead;
use crate::backup::known::{self, Known, ParentDir};
use crate::backup::losses::Holdings;
use crate::backup::roots;
use crate::format::tree::{FileContent, Grain, Metadata, Node, NodeKind};
use crate::source::{
    DirFilter, Filter, ListBuffer, Listing, MetadataReader, Names, SourceDir, SourceKind, SourceStat, Spill,
};
use crate::store::BlobReader;
use crate::target::check_name;

/// Entries of one directory that are looked at in one go.
const WINDOW_LEN: usize = 1024;
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
    /// Unchanged: the node of a parent snapshot.
    Reused(Known),
    /// The same, but its device has this number by now.
    Renumbered(Known, u64),
    /// A file to be read, with its size a moment ago and whether it has other names.
    File { size: u64, linked: bool, before: Before },
    /// A directory.
    Directory(Arc<Child>),
    /// A link, device, pipe or socket, perhaps as a parent snapshot has it.
    Special(Option<Known>),
    /// Left out by a rule.
    Excluded,
    /// Not to be had.
    Failed(io::Error),
}

/// How the parent snapshots have a file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Before {
    /// Not at all.
    Absent,
    /// With this grain.
    File(Option<Grain>),
}

impl Before {
    fn of(known: &[Known]) -> Self {
        let content = |known: &Known| match &known.node().kind {
            NodeKind::File(FileContent { grain, .. }) => Some(*grain),
            _ => None,
        };
        known.iter().find_map(content).map_or(Self::Absent, Self::File)
    }

    pub fn is_file(self) -> bool {
        matches!(self, Self::File(_))
    }

    pub fn grain(self) -> Option<Grain> {
        match self {
            Self::Absent => None,
            Self::File(grain) => grain,
        }
    }
}

/// Entries of a directory, and what is to be done with each.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub names: Names,
    pub verdicts: Vec<Verdict>,
}

/// The entries of a directory that no window had yet.
#[derive(Debug, Default)]
pub(super) struct Entries {
    listing: Option<Listing>,
    parents: Vec<ParentDir>,
}

impl Entries {
    /// Bytes of memory that they take, with what was read of the parent snapshots.
    fn weight(&self) -> u64 {
        let names = self.listing.as_ref().map_or(0, Listing::weight);
        names as u64 + self.parents.iter().map(ParentDir::weight).sum::<u64>()
    }
}

/// Something to report when the walk comes to the directory.
#[derive(Debug)]
pub(super) struct Finding {
    pub code: &'static str,
    pub message: String,
    pub is_error: bool,
}

/// A directory and what is to be done with its first entries.
#[derive(Debug)]
pub(super) struct Scanned {
    pub dir: Arc<Dir>,
    pub metadata: Metadata,
    /// The first entries.
    pub window: Window,
    /// The others.
    pub entries: Entries,
    pub findings: Vec<Finding>,
    /// Whether a rule forbade to look inside.
    pub not_entered: bool,
    /// Number of entries listed.
    len: usize,
    /// Bytes of memory that its names take, and what parent snapshots have of it.
    weight: u64,
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
    /// The entry in the parent snapshots.
    known: Vec<Known>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
enum Progress {
    Waiting,
    Running,
    Done { outcome: Box<Outcome>, _held: Held },
    Taken,
}

impl Child {
    fn path(&self) -> PathBuf {
        roots::join(&self.parent.path, &self.name)
    }

    /// The entry in the first parent snapshot that has it.
    pub fn known(&self) -> Option<&Known> {
        self.known.first()
    }
}

/// What a thread that scans keeps.
#[derive(Debug)]
pub(super) struct Scratch {
    pub metadata: MetadataReader,
    list: ListBuffer,
}

impl Scratch {
    pub fn new(spill: Spill) -> Self {
        Self { metadata: MetadataReader::default(), list: ListBuffer::new(spill) }
    }
}

/// How much of a directory is in memory at once.
#[derive(Debug, Clone)]
pub(super) struct ScanLimits {
    /// Entries that are looked at in one go.
    pub window_len: usize,
    pub spill: Spill,
}

impl ScanLimits {
    /// The limits of a run that may put names into temporary files at `place`.
    pub fn new(place: Option<PathBuf>) -> Self {
        Self { window_len: WINDOW_LEN, spill: Spill { place, ..Spill::default() } }
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// Nobody has begun with these. Paths compare by components, as the walk goes. Weak: a scan that was given up takes its
    /// subdirectories with it.
    pending: BTreeMap<PathBuf, Weak<Child>>,
    closed: bool,
}

/// Scans directories, for the walk and ahead of it.
pub(super) struct Scanner<'e> {
    reader: &'e BlobReader,
    filter: &'e Filter,
    limits: &'e ScanLimits,
    /// Directories never entered: the repository itself, by device and inode.
    forbidden: HashSet<(u64, u64)>,
    /// Where files are looked up before they are taken over, if there is need.
    doubted: Option<Holdings<'e>>,
    /// Files that are read from elsewhere.
    pub instead: Instead,
    queue: Mutex<Queue>,
    ahead: Arc<Ahead>,
    /// There may be something to scan.
    work: Condvar,
    /// A scan is done.
    done: Condvar,
}

impl Queue {
    /// The first directory that nobody has begun with, marked as being scanned.
    fn begin_next(&mut self) -> Option<Arc<Child>> {
        while let Some((_, child)) = self.pending.pop_first() {
            let Some(child) = child.upgrade() else { continue };
            let mut progress = lock(&child.progress);
            if matches!(*progress, Progress::Waiting) {
                *progress = Progress::Running;
                drop(progress);
                return Some(child);
            }
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half changed: scans happen outside of locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'e> Scanner<'e> {
    pub fn new(
        reader: &'e BlobReader,
        filter: &'e Filter,
        limits: &'e ScanLimits,
        forbidden: HashSet<(u64, u64)>,
        doubted: Option<Holdings<'e>>,
    ) -> Self {
        Self {
            reader,
            filter,
            limits,
            forbidden,
            doubted,
            instead: Instead::default(),
            queue: Mutex::default(),
            ahead: Arc::default(),
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
        let mut scratch = Scratch::new(self.limits.spill.clone());
        while let Some(child) = self.next() {
            self.scan_ahead(&child, &mut scratch);
        }
    }

    /// Scans a subdirectory that is marked as being scanned.
    fn scan_ahead(&self, child: &Child, scratch: &mut Scratch) {
        let scan = std::panic::AssertUnwindSafe(|| self.scan_child(child, scratch));
        // The walk waits for an answer, whatever happens here.
        let outcome = std::panic::catch_unwind(scan).unwrap_or_else(|_| {
            let error = io::Error::other("looking at it failed: this is a bug");
            Err(Refusal::Failed(error))
        });
        let (entries, weight) = outcome.as_ref().map_or((0, 0), |scanned| (scanned.len, scanned.weight));
        let held = self.ahead.end(entries, weight);
        if let Ok(scanned) = &outcome {
            self.plan(&scanned.window);
        }
        *lock(&child.progress) = Progress::Done { outcome: Box::new(outcome), _held: held };
        // Whoever waits holds this lock while looking.
        drop(lock(&self.queue));
        self.done.notify_all();
    }

    /// The first directory that nobody has begun with, if there is room for as many.
    fn begin_next(&self, queue: &mut Queue, dirs: usize) -> Option<Arc<Child>> {
        let child = if self.ahead.has_room(dirs) { queue.begin_next() } else { None };
        child.inspect(|_| self.ahead.begin())
    }

    /// The next directory to scan ahead; `None` once the walk is over.
    fn next(&self) -> Option<Arc<Child>> {
        let mut dirs = DIRS_AHEAD;
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(child) = self.begin_next(&mut queue, dirs) {
                return Some(child);
            }
            if !self.ahead.has_room(dirs) {
                dirs = DIRS_RESUMED;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds the subdirectories to what is to be scanned.
    fn plan(&self, window: &Window) {
        let children = window.verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Directory(child) => Some((child.path(), Arc::downgrade(child))),
            _ => None,
        });
        let children: Vec<_> = children.collect();
        if !children.is_empty() {
            lock(&self.queue).pending.extend(children);
            if self.ahead.has_room(DIRS_RESUMED) {
                self.work.notify_all();
            }
        }
    }

    /// The scan of a subdirectory that the walk has come to.
    pub fn take(&self, child: &Arc<Child>, scratch: &mut Scratch) -> Outcome {
        let ready = self.ready(child, scratch);
        if self.ahead.has_room(DIRS_RESUMED) {
            self.work.notify_all();
        }
        match ready {
            Some(Ok(scanned)) if scanned.at.elapsed() > FRESH => {}
            Some(outcome) => return outcome,
            None => {}
        }
        let outcome = self.scan_child(child, scratch);
        if let Ok(scanned) = &outcome {
            self.plan(&scanned.window);
        }
        outcome
    }

    /// What a helper found. While one is at it, this scans something else, or waits.
    fn ready(&self, child: &Child, scratch: &mut Scratch) -> Option<Outcome> {
        let mut queue = lock(&self.queue);
        loop {
            let mut progress = lock(&child.progress);
            match std::mem::replace(&mut *progress, Progress::Taken) {
                Progress::Waiting => {
                    queue.pending.remove(&child.path());
                    return None;
                }
                Progress::Taken => return None,
                Progress::Done { outcome, .. } => return Some(*outcome),
                Progress::Running => *progress = Progress::Running,
            }
            drop(progress);
            queue = match self.begin_next(&mut queue, DIRS_AHEAD) {
                Some(other) => {
                    drop(queue);
                    self.scan_ahead(&other, scratch);
                    lock(&self.queue)
                }
                None => self.done.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn scan_child(&self, child: &Child, scratch: &mut Scratch) -> Outcome {
        let handle = child.parent.handle.open_dir(&child.name).map_err(Refusal::Failed)?;
        self.scan(handle, child.path(), &child.stat, &child.parent.filter, &child.known, scratch)
    }

    /// Scans a root, which is open and known to parent snapshots as this.
    pub fn root(
        &self,
        handle: SourceDir,
        path: &Path,
        stat: &SourceStat,
        known: &[Known],
        scratch: &mut Scratch,
    ) -> Outcome {
        let above = self.filter.above_root(stat.device);
        let scanned = self.scan(handle, path.to_owned(), stat, &above, known, scratch)?;
        self.plan(&scanned.window);
        Ok(scanned)
    }

    /// Scans the root directory of the system, which has no entry in the parent snapshots.
    pub fn system_root(
        &self,
        handle: SourceDir,
        stat: &SourceStat,
        parents: Vec<ParentDir>,
        scratch: &mut Scratch,
    ) -> Scanned {
        let above = self.filter.above_root(stat.device);
        let scanned = self.scan_with(handle, PathBuf::from("/"), stat, &above, (None, parents), scratch);
        self.plan(&scanned.window);
        scanned
    }

    fn scan(
        &self,
        handle: SourceDir,
        path: PathBuf,
        stat: &SourceStat,
        above: &DirFilter,
        known: &[Known],
        scratch: &mut Scratch,
    ) -> Outcome {
        if self.forbidden.contains(&(stat.device, stat.inode)) {
            return Err(Refusal::Repository);
        }
        let metadata = known.iter().find_map(|known| known.unchanged_dir(stat));
        let parents = known.iter().filter_map(|known| Some(ParentDir::new(known.parent, known.tree()?)));
        Ok(self.scan_with(handle, path, stat, above, (metadata, parents.collect()), scratch))
    }

    fn scan_with(
        &self,
        mut handle: SourceDir,
        path: PathBuf,
        stat: &SourceStat,
        above: &DirFilter,
        (known, parents): (Option<&Metadata>, Vec<ParentDir>),
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
        let not_entered = self.filter.not_entered(above, stat).is_some();
        let mut entries = Entries { listing: None, parents };
        let mut filter = above.clone();
        if !not_entered {
            match handle.list(&mut scratch.list) {
                Ok(listing) => {
                    let mut warn =
                        |error: crate::source::FilterError| find("ignore-rule", error.to_string(), true);
                    filter = self.filter.enter(above, &path, &handle, &listing, &mut warn);
                    entries.listing = Some(listing);
                }
                Err(error) => find(failure_code(&error), failure(&error), true),
            }
        }
        let dir = Arc::new(Dir { handle, path, filter });
        let len = entries.listing.as_ref().map_or(0, Listing::len);
        let window = self.window(&dir, &mut entries, &mut findings);
        let weight = window.names.weight() as u64 + entries.weight();
        Scanned { dir, metadata, window, entries, findings, not_entered, len, weight, at: Instant::now() }
    }

    /// Looks at the next entries of a directory that the walk is in; there are none at the end.
    pub fn next_window(&self, dir: &Arc<Dir>, entries: &mut Entries, findings: &mut Vec<Finding>) -> Window {
        let window = self.window(dir, entries, findings);
        self.plan(&window);
        window
    }

    fn window(&self, dir: &Arc<Dir>, entries: &mut Entries, findings: &mut Vec<Finding>) -> Window {
        let Entries { listing, parents } = entries;
        let Some(names) = listing.as_mut().map(|listing| listing.next_window(self.limits.window_len)) else {
            return Window::default();
        };
        let names = names.unwrap_or_else(|error| {
            let message = format!("not all of its entries are backed up: {error}");
            findings.push(Finding { code: failure_code(&error), message, is_error: true });
            *listing = None;
            Names::default()
        });
        let keeps_all = self.filter.keeps_all(&dir.filter);
        let mut fail = |message| findings.push(parent_unreadable(message));
        let mut known = Vec::with_capacity(parents.len());
        let mut verdicts = Vec::with_capacity(names.len());
        for name in names.iter() {
            known.clear();
            known.extend(known::find_all(parents, self.reader, name, &mut fail));
            verdicts.push(self.verdict(dir, keeps_all, name, &mut known));
        }
        Window { names, verdicts }
    }

    /// What to do with one entry, which parent snapshots have like this: `known` is used up.
    fn verdict(&self, dir: &Arc<Dir>, keeps_all: bool, name: &[u8], known: &mut Vec<Known>) -> Verdict {
        // Some file systems have names that others, and so trees, do not take.
        let checked = check_name(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidFilename, error));
        // It was made just now: that it is as a parent has it nobody can tell by its times.
        if let Some(elsewhere) = self.instead.of_entry(dir, name) {
            return match elsewhere.handle.stat(name) {
                Ok(stat) => Verdict::File { size: stat.size, linked: false, before: Before::of(known) },
                Err(error) => Verdict::Failed(error),
            };
        }
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
            let (parent, progress) = (Arc::clone(dir), Mutex::new(Progress::Waiting));
            let (name, known) = (name.into(), std::mem::take(known));
            return Verdict::Directory(Arc::new(Child { parent, name, stat, known, progress }));
        }
        let is_same = |known: &Known| {
            is_unchanged(known.node(), &stat)
                && self.doubted.is_none_or(|holdings| holdings.have(known.node()))
        };
        if let Some(same) = known.iter().position(is_same) {
            let known = known.swap_remove(same);
            return match renumbered(known.node(), &stat) {
                Some(device) => Verdict::Renumbered(known, device),
                None => Verdict::Reused(known),
            };
        }
        match stat.kind {
            SourceKind::File => {
                Verdict::File { size: stat.size, linked: stat.links > 1, before: Before::of(known) }
            }
            _ => Verdict::Special(known.first().cloned()),
        }
    }

    /// What to do with one entry outside of any scan.
    pub fn single(&self, dir: &Arc<Dir>, name: &[u8], mut known: Vec<Known>) -> Verdict {
        self.verdict(dir, self.filter.keeps_all(&dir.filter), name, &mut known)
    }

    /// What holds above a root on this device.
    pub fn above_root(&self, device: u64) -> DirFilter {
        self.filter.above_root(device)
    }
}

/// A part of a parent snapshot cannot be read: no harm is done, only more work.
pub(super) fn parent_unreadable(message: String) -> Finding {
    Finding { code: "parent-unreadable", message, is_error: false }
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

/// The number of an unchanged entry's device, where it matters and is another than in the parent snapshot. Device numbers
/// change from boot to boot; those of one snapshot tell which names are one file only if all are of the same time.
fn renumbered(node: &Node, stat: &SourceStat) -> Option<u64> {
    let is_other = |device| device != stat.device;
    node.metadata.device.is_some_and(is_other).then_some(stat.device)
}

/// The problem code of an entry that cannot be had.
pub(super) fn failure_code(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotFound { "vanished" } else { "unreadable" }
}

/// What is said of it.
pub(super) fn failure(error: &io::Error) -> String {
    format!("not backed up: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::{FileContent, Metadata};

    #[test]
    fn what_was_not_of_one_moment_is_read_again_although_it_looks_unchanged() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "content").unwrap();
        let stat = SourceStat::of_file(file.as_file()).unwrap();
        let metadata =
            Metadata { mtime: stat.mtime, ctime: stat.ctime, inode: stat.inode, ..Metadata::default() };
        for unstable in [false, true] {
            let content = FileContent { size: stat.size, unstable, ..FileContent::default() };
            let (name, kind) = (b"file".to_vec().into(), NodeKind::File(content));
            let node = Node { name, kind, metadata: metadata.clone() };
            assert_eq!(is_unchanged(&node, &stat), !unstable);
        }
    }
}
