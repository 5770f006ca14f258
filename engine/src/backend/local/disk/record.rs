//! A journal of the steps by which a repository changed on disk, and everything that a loss of power in between can leave of it.
//!
//! What POSIX promises is taken at its word and no more: bytes are there for certain once their file was flushed, a name
//! once its folder was. Until then each step may have reached the disk or not, whatever became of those before and after it, and of
//! bytes that were being written any number of sectors.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType};
use rustix::path::Arg;

/// What a disk writes at once, or not at all.
const SECTOR_LEN: usize = 512;
/// Cuts within one write that are tried, at most.
const TEARS_MAX: usize = 8;

/// A file whatever its name: its inode.
type FileId = u64;

/// One change, with paths relative to the repository.
#[derive(Debug, Clone)]
pub enum Step {
    Create { file: FileId, path: PathBuf },
    Append { file: FileId, bytes: Arc<[u8]> },
    SyncFile { file: FileId },
    SyncFolder { path: PathBuf },
    MakeFolder { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Link { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

impl Step {
    pub fn create(folder: &impl AsFd, name: &str) -> Self {
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).expect("it was just made");
        Self::Create { file: stat.st_ino, path: below(folder, name) }
    }

    pub fn append(file: &impl AsFd, bytes: &[u8]) -> Self {
        Self::Append { file: rustix::fs::fstat(file).expect("an open file").st_ino, bytes: bytes.into() }
    }

    pub fn sync(what: &impl AsFd) -> Self {
        let stat = rustix::fs::fstat(what).expect("an open file");
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::SyncFolder { path: below(what, "") },
            _ => Self::SyncFile { file: stat.st_ino },
        }
    }

    pub fn make_folder(parent: &impl AsFd, name: &impl Arg) -> Self {
        let name = name.as_str().expect("folders of a repository have names in ASCII").to_owned();
        Self::MakeFolder { path: below(parent, &name) }
    }

    pub fn rename(from: &impl AsFd, old: &str, to: &impl AsFd, new: &str) -> Self {
        Self::Rename { from: below(from, old), to: below(to, new) }
    }

    pub fn link(from: &impl AsFd, old: &str, to: &impl AsFd, new: &str) -> Self {
        Self::Link { from: below(from, old), to: below(to, new) }
    }

    pub fn remove(folder: &impl AsFd, name: &str) -> Self {
        Self::Remove { path: below(folder, name) }
    }
}

type Steps = Mutex<Vec<Step>>;

/// Repositories that are recorded, by the absolute path of their folder.
static JOURNALS: Mutex<Vec<(PathBuf, &'static Steps)>> = Mutex::new(Vec::new());

/// Records what happens below `root` until it is asked for the steps.
#[derive(Debug)]
pub struct Journal {
    root: PathBuf,
    steps: &'static Steps,
}

impl Journal {
    pub fn begin(root: &Path) -> Self {
        let root = root.canonicalize().expect("a folder");
        let steps: &'static Steps = Box::leak(Box::default());
        lock(&JOURNALS).push((root.clone(), steps));
        Self { root, steps }
    }

    pub fn end(self) -> Vec<Step> {
        lock(&JOURNALS).retain(|(root, _)| *root != self.root);
        std::mem::take(&mut *lock(self.steps))
    }
}

/// The journal in which a change at `at` is to be written down; nobody else writes into it meanwhile, so that its order is that in
/// which things happened.
pub fn journal_of(at: &impl AsFd) -> Option<MutexGuard<'static, Vec<Step>>> {
    let steps = root_of(&path_of(at)?)?.1;
    Some(lock(steps))
}

fn root_of(path: &Path) -> Option<(PathBuf, &'static Steps)> {
    lock(&JOURNALS).iter().find(|(root, _)| path.starts_with(root)).cloned()
}

fn path_of(at: &impl AsFd) -> Option<PathBuf> {
    if lock(&JOURNALS).is_empty() {
        return None;
    }
    std::fs::read_link(format!("/proc/self/fd/{}", at.as_fd().as_raw_fd())).ok()
}

/// The path of `name` in an open folder, relative to the repository.
fn below(folder: &impl AsFd, name: &str) -> PathBuf {
    let path = path_of(folder).expect("an open folder");
    let (root, _) = root_of(&path).expect("a journal was found by it");
    path.strip_prefix(root).expect("below it").join(OsStr::from_bytes(name.as_bytes()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Folders and files by path.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Folder,
    File(Arc<[u8]>),
}

/// Reads a folder in whole.
pub fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            let relative = path.strip_prefix(root).expect("below").to_owned();
            if path.is_dir() {
                tree.insert(relative, Entry::Folder);
                folders.push(path);
            } else {
                tree.insert(relative, Entry::File(std::fs::read(&path).expect("readable").into()));
            }
        }
    }
    tree
}

/// What becomes of one step that was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Lost,
    /// So many bytes were written; of the rest nothing, or, if `sized`, only that it is there: zeros.
    Torn {
        len: usize,
        sized: bool,
    },
}

/// One way in which the power can go: after so many steps, with everything not flushed meeting `rest`, but for one step.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub after: usize,
    pub rest: Fate,
    pub but: Option<(usize, Fate)>,
}

impl Cut {
    /// None: everything has arrived after so many steps.
    pub fn none(after: usize) -> Self {
        Self { after, rest: Fate::Kept, but: None }
    }
}

/// The steps of one command on a repository that lay safely on disk before it.
#[derive(Debug)]
pub struct Story {
    before: Tree,
    steps: Vec<Step>,
    /// For each step the number of steps after which it is safe on disk.
    safe_after: Vec<usize>,
}

impl Story {
    pub fn new(before: Tree, mut steps: Vec<Step>) -> Self {
        number_files(&mut steps);
        let safe_after = (0..steps.len()).map(|at| safe_after(&steps, at)).collect();
        Self { before, steps, safe_after }
    }

    pub fn len(&self) -> usize {
        self.steps.len()
    }

    pub fn step(&self, at: usize) -> &Step {
        &self.steps[at]
    }

    /// All cuts that are tried: after each step, with nothing unflushed kept, with all of it, with each single step lost, with each
    /// single one kept, and with each write torn.
    pub fn cuts(&self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for after in 0..=self.steps.len() {
            let open: Vec<usize> = (0..after).filter(|at| self.safe_after[*at] > after).collect();
            cuts.push(Cut::none(after));
            if open.is_empty() {
                continue;
            }
            cuts.push(Cut { after, rest: Fate::Lost, but: None });
            for at in open.iter().copied() {
                if open.len() > 1 {
                    cuts.push(Cut { after, rest: Fate::Kept, but: Some((at, Fate::Lost)) });
                    cuts.push(Cut { after, rest: Fate::Lost, but: Some((at, Fate::Kept)) });
                }
                let torn = tears(&self.steps[at]);
                cuts.extend(torn.map(|fate| Cut { after, rest: Fate::Kept, but: Some((at, fate)) }));
            }
        }
        cuts
    }

    /// How many files got a name that was free by a rename, and how many by a link.
    pub fn published(&self) -> (usize, usize) {
        let (mut renames, mut links) = (0, 0);
        let mut names: HashSet<&Path> = self.before.keys().map(PathBuf::as_path).collect();
        for step in &self.steps {
            match step {
                Step::Rename { from, to } => {
                    names.remove(from.as_path());
                    renames += usize::from(names.insert(to));
                }
                Step::Link { to, .. } => links += usize::from(names.insert(to)),
                Step::Create { path, .. } | Step::MakeFolder { path } => {
                    names.insert(path);
                }
                Step::Remove { path } => {
                    names.remove(path.as_path());
                }
                Step::Append { .. } | Step::SyncFile { .. } | Step::SyncFolder { .. } => {}
            }
        }
        (renames, links)
    }

    /// What is on disk when power returns.
    pub fn tree_after(&self, cut: Cut) -> Tree {
        let mut disk = Disk::new(&self.before);
        for (at, step) in self.steps[..cut.after].iter().enumerate() {
            let fate = match cut.but {
                _ if self.safe_after[at] <= cut.after => Fate::Kept,
                Some((other, fate)) if other == at => fate,
                _ => cut.rest,
            };
            disk.take(step, fate);
        }
        disk.tree()
    }
}

/// Gives every file a number of its own: inodes of files that are gone are used again.
fn number_files(steps: &mut [Step]) {
    let mut numbers = HashMap::new();
    for (at, step) in steps.iter_mut().enumerate() {
        match step {
            Step::Create { file, .. } => {
                numbers.insert(*file, at as FileId);
                *file = at as FileId;
            }
            Step::Append { file, .. } | Step::SyncFile { file } => {
                *file = numbers.get(file).copied().unwrap_or(FileId::MAX);
            }
            _ => {}
        }
    }
}

/// Where a write may be torn: at each sector of a short one, at some of a long one.
fn tears(step: &Step) -> impl Iterator<Item = Fate> + use<> {
    let sectors = match step {
        Step::Append { bytes, .. } => bytes.len().div_ceil(SECTOR_LEN),
        _ => 0,
    };
    let every = sectors.div_ceil(TEARS_MAX).max(1);
    (1..sectors)
        .step_by(every)
        .flat_map(|sector| [false, true].map(|sized| Fate::Torn { len: sector * SECTOR_LEN, sized }))
}

fn safe_after(steps: &[Step], at: usize) -> usize {
    let later = |is: &dyn Fn(&Step) -> bool| {
        steps[at + 1..].iter().position(is).map_or(usize::MAX, |position| at + 2 + position)
    };
    let folder = |path: &Path| {
        let parent = path.parent().expect("below the repository").to_owned();
        later(&|step| matches!(step, Step::SyncFolder { path } if *path == parent))
    };
    match &steps[at] {
        Step::Append { file, .. } => {
            later(&|step| matches!(step, Step::SyncFile { file: synced } if synced == file))
        }
        // Names of temporary files mean nothing to a reader: that one may stay behind is tried just after the step.
        Step::Create { path, .. } | Step::Remove { path } if is_temporary(path) => at + 2,
        Step::Create { path, .. } | Step::MakeFolder { path } | Step::Remove { path } => folder(path),
        Step::Rename { to, .. } | Step::Link { to, .. } => folder(to),
        Step::SyncFile { .. } | Step::SyncFolder { .. } => at + 1,
    }
}

fn is_temporary(path: &Path) -> bool {
    path.starts_with(super::super::TEMPORARY)
}

/// What a name leads to.
#[derive(Debug, Clone)]
enum Named {
    Folder,
    Before(Arc<[u8]>),
    File(FileId),
}

/// A disk on which steps arrive or do not.
struct Disk {
    /// Names that arrived.
    names: BTreeMap<PathBuf, Named>,
    /// Names as the program saw them.
    seen: HashMap<PathBuf, Named>,
    /// The bytes of each file that arrived, and the length that the program saw.
    files: HashMap<FileId, (Vec<u8>, usize)>,
}

impl Disk {
    fn new(before: &Tree) -> Self {
        let named = |entry: &Entry| match entry {
            Entry::Folder => Named::Folder,
            Entry::File(bytes) => Named::Before(Arc::clone(bytes)),
        };
        let names: BTreeMap<_, _> = before.iter().map(|(path, entry)| (path.clone(), named(entry))).collect();
        let seen = names.iter().map(|(path, named)| (path.clone(), named.clone())).collect();
        Self { names, seen, files: HashMap::new() }
    }

    fn take(&mut self, step: &Step, fate: Fate) {
        let arrives = fate == Fate::Kept;
        match step {
            Step::Create { file, path } => {
                self.files.insert(*file, (Vec::new(), 0));
                self.name(path, Named::File(*file), arrives);
            }
            Step::Append { file, bytes } => {
                let (content, len) = self.files.entry(*file).or_default();
                let arrived = match fate {
                    Fate::Kept => bytes.len(),
                    Fate::Lost => 0,
                    Fate::Torn { len, .. } => len,
                };
                if arrived > 0 {
                    content.resize(*len, 0);
                    content.extend_from_slice(&bytes[..arrived]);
                }
                *len += bytes.len();
                if matches!(fate, Fate::Torn { sized: true, .. }) {
                    content.resize(*len, 0);
                }
            }
            Step::SyncFile { .. } | Step::SyncFolder { .. } => {}
            Step::MakeFolder { path } => self.name(path, Named::Folder, arrives),
            Step::Rename { from, to } => {
                let named = self.seen.remove(from).expect("it had a name");
                if arrives {
                    self.names.remove(from);
                }
                self.name(to, named, arrives);
            }
            Step::Link { from, to } => {
                let named = self.seen[from].clone();
                self.name(to, named, arrives);
            }
            Step::Remove { path } => {
                self.seen.remove(path);
                if arrives {
                    self.names.remove(path);
                }
            }
        }
    }

    fn name(&mut self, path: &Path, named: Named, arrives: bool) {
        if arrives {
            self.names.insert(path.to_owned(), named.clone());
        }
        self.seen.insert(path.to_owned(), named);
    }

    /// What can be reached: nothing in a folder whose own name did not arrive.
    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for (path, named) in &self.names {
            let parent = path.parent().expect("below the repository");
            if !parent.as_os_str().is_empty() && !tree.contains_key(parent) {
                continue;
            }
            let entry = match named {
                Named::Folder => Entry::Folder,
                Named::Before(bytes) => Entry::File(Arc::clone(bytes)),
                Named::File(file) => Entry::File(self.files[file].0.as_slice().into()),
            };
            tree.insert(path.clone(), entry);
        }
        tree
    }
}
