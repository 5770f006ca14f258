//! The walk: directory by directory in name order, taking over what the parent snapshot has and reading the rest.
//! Directories come scanned, mostly ahead of time; small files go to the workers, large ones are read here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;

use crate::backup::assemble::{FrameId, ParentDir, Place, file_node};
use crate::backup::files::{FileError, FileReader};
use crate::backup::grains::GrainRules;
use crate::backup::links::Link;
use crate::backup::options::BackupError;
use crate::backup::pipeline::Pipeline;
use crate::backup::roots::{self, RootTree};
use crate::backup::scan::{self, Child, Dir, Refusal, Scanned, Scanner, Scratch, Verdict};
use crate::backup::session::BLOBS_PER_SEGMENT;
use crate::backup::small::{FileJob, SMALL_LEN_MAX};
use crate::format::tree::{FileContent, Metadata, Node, NodeKind};
use crate::ids::BlobId;
use crate::monitor::EntryAction;
use crate::source::{Names, SourceDir, SourceKind, SourceStat};
use crate::store::BlobReader;

/// Makes a partial snapshot of a tree.
pub(super) type SavePartial<'a> = dyn FnMut(&mut Pipeline<'_, '_>, BlobId) -> Result<(), BackupError> + 'a;

/// Everything the walk needs that does not change.
pub(super) struct Walker<'w, 'p, 's> {
    pub pipeline: Pipeline<'p, 's>,
    pub reader: &'w BlobReader,
    pub grains: &'w GrainRules,
    pub scanner: &'w Scanner<'w>,
    pub files: FileReader,
    pub scratch: Scratch,
    pub partial_every: Duration,
    pub last_partial: Instant,
    /// Files begun when the last partial snapshot was made.
    pub files_at_partial: u64,
    /// Makes a partial snapshot of this tree.
    pub save_partial: &'w mut SavePartial<'w>,
    pub cancelled: bool,
    /// Roots that could be begun.
    pub roots_begun: u64,
    /// The first root that could not.
    pub root_error: Option<(PathBuf, io::Error)>,
}

/// Why a root was not begun.
enum RootError {
    /// It cannot be read.
    Root(io::Error),
    /// The backup cannot go on.
    Run(BackupError),
}

impl From<io::Error> for RootError {
    fn from(error: io::Error) -> Self {
        Self::Root(error)
    }
}

impl From<BackupError> for RootError {
    fn from(error: BackupError) -> Self {
        Self::Run(error)
    }
}

/// A directory that the walk is in.
struct Level<'t> {
    frame: FrameId,
    kind: LevelKind<'t>,
}

enum LevelKind<'t> {
    /// On the way to roots: only they are looked at.
    Way { path: PathBuf, children: std::collections::btree_map::Iter<'t, Vec<u8>, RootTree> },
    /// Part of a root.
    Real { dir: Arc<Dir>, names: Names, verdicts: std::vec::IntoIter<Verdict>, next: usize },
}

/// What to go on with.
enum Step {
    /// The directory is done.
    Leave,
    /// Entries were taken over.
    Go,
    /// An entry of a real directory.
    Entry(Arc<Dir>, Vec<u8>, Verdict),
}

impl<'t> Walker<'_, '_, '_> {
    /// Walks all roots, unless it is cancelled on the way.
    pub fn run(&mut self, tree: &'t RootTree, parents: &[BlobId]) -> Result<(), BackupError> {
        let mut stack = Vec::new();
        let root = Path::new("/");
        if tree.is_root {
            let failed = |source| BackupError::Source { path: root.to_owned(), source };
            let dir = SourceDir::open_root(root).map_err(failed)?;
            let stat = dir.stat_self().map_err(failed)?;
            let scanned = self.scanner.system_root(dir, &stat, parents, &mut self.scratch);
            stack.push(self.enter(None, scanned));
        } else {
            let parents = parents.iter().map(|parent| self.load_parent(Some(*parent), root)).collect();
            let frame = self.pipeline.assembler.begin_dir(None, None, parents);
            self.pipeline.assembler.mark_way(frame);
            let kind = LevelKind::Way { path: root.to_owned(), children: tree.children.iter() };
            stack.push(Level { frame, kind });
        }
        self.walk(&mut stack)?;
        if self.cancelled {
            return Ok(());
        }
        self.settle()?;
        // A snapshot in which nothing of what was asked for is would be none.
        match self.root_error.take() {
            Some((path, source)) if self.roots_begun == 0 => Err(BackupError::Source { path, source }),
            _ => Ok(()),
        }
    }

    fn walk(&mut self, stack: &mut Vec<Level<'t>>) -> Result<(), BackupError> {
        while let Some(level) = stack.last_mut() {
            if self.pipeline.monitor.is_cancelled() {
                self.cancelled = true;
                return self.partial(stack);
            }
            if self.partial_is_due() {
                self.partial(stack)?;
                continue;
            }
            self.read_deferred()?;
            let frame = level.frame;
            let below = match &mut level.kind {
                LevelKind::Way { path, children } => match children.next() {
                    Some((name, child)) => {
                        let path = path.clone();
                        self.way_child(frame, &path, name, child)?
                    }
                    None => {
                        self.leave(stack)?;
                        continue;
                    }
                },
                LevelKind::Real { dir, names, verdicts, next } => {
                    match self.step(frame, dir, names, verdicts, next) {
                        Step::Entry(dir, name, verdict) => self.entry(frame, &dir, &name, verdict)?,
                        Step::Go => None,
                        Step::Leave => {
                            self.leave(stack)?;
                            continue;
                        }
                    }
                }
            };
            stack.extend(below);
        }
        Ok(())
    }

    /// Takes a run of unchanged entries over, or finds the next one with something to do.
    fn step(
        &mut self,
        frame: FrameId,
        dir: &Arc<Dir>,
        names: &Names,
        verdicts: &mut std::vec::IntoIter<Verdict>,
        next: &mut usize,
    ) -> Step {
        let wants_entries = self.pipeline.monitor.wants_entries();
        let (mut files, mut bytes, mut taken) = (0, 0, 0);
        while let Some(Verdict::Reused { parent, index }) = verdicts.as_slice().first() {
            let node = self.pipeline.assembler.frame(frame).reuse(*parent as usize, *index as usize);
            if let NodeKind::File(content) = &node.kind {
                files += 1;
                bytes += content.size;
            }
            if wants_entries {
                let path = roots::join(&dir.path, &node.name);
                self.pipeline.note(&path, EntryAction::Unmodified);
            }
            verdicts.next();
            *next += 1;
            taken += 1;
            if taken == REUSED_AT_ONCE {
                break;
            }
        }
        if taken > 0 {
            self.pipeline.summary.files += files;
            self.pipeline.summary.files_unmodified += files;
            self.pipeline.progress(bytes);
            return Step::Go;
        }
        match (verdicts.next(), names.get(*next)) {
            (Some(verdict), Some(entry)) => {
                *next += 1;
                Step::Entry(Arc::clone(dir), entry.name.to_vec(), verdict)
            }
            _ => Step::Leave,
        }
    }

    /// Waits until all files are stored, whoever reads them.
    pub fn settle(&mut self) -> Result<(), BackupError> {
        loop {
            self.pipeline.drain()?;
            if self.pipeline.deferred.is_empty() {
                return Ok(());
            }
            self.read_deferred()?;
        }
    }

    /// Reads the files that were nothing for a worker, and deals with the names that waited for another.
    fn read_deferred(&mut self) -> Result<(), BackupError> {
        while let Some(job) = self.pipeline.deferred.pop() {
            let frame = job.frame;
            // One that a worker gave back is still being waited for under its key.
            let unknown = if job.link.is_some() || self.cancelled { Some(job) } else { self.linked(job)? };
            match unknown {
                Some(job) if !self.cancelled => self.file(&job)?,
                Some(job) => self.pipeline.settle_link(job.link, None),
                None => {}
            }
            self.pipeline.assembler.release(self.pipeline.session, frame)?;
        }
        Ok(())
    }

    /// Gives a name of a file with several the node it has under another, or lets it wait for that. Returns a job that
    /// has to be done all the same.
    fn linked(&mut self, mut job: FileJob) -> Result<Option<FileJob>, BackupError> {
        let Ok(stat) = job.dir.handle.stat(&job.name) else { return Ok(Some(job)) };
        if stat.kind != SourceKind::File || stat.links < 2 {
            return Ok(Some(job));
        }
        match self.pipeline.links.ask(&stat) {
            Link::Unknown(link) => {
                job.link = link;
                Ok(Some(job))
            }
            Link::OnItsWay => {
                self.pipeline.assembler.expect(job.frame);
                self.pipeline.links.wait((stat.device, stat.inode), job);
                Ok(None)
            }
            Link::Stored(node) => {
                let path = roots::join(&job.dir.path, &job.name);
                self.pipeline.count_file(&path, job.changed, false);
                self.pipeline.progress(stat.size);
                let node = Node { name: job.name, ..(*node).clone() };
                self.pipeline.assembler.put(job.frame, job.slot, node);
                Ok(None)
            }
        }
    }

    fn leave(&mut self, stack: &mut Vec<Level<'t>>) -> Result<(), BackupError> {
        match stack.pop() {
            Some(level) => self.pipeline.assembler.end_dir(self.pipeline.session, level.frame),
            None => Ok(()),
        }
    }

    fn partial_is_due(&self) -> bool {
        let is_time =
            self.last_partial.elapsed() >= self.partial_every && self.pipeline.begun > self.files_at_partial;
        is_time || self.pipeline.session.blobs_uncommitted() >= BLOBS_PER_SEGMENT
    }

    /// Saves a snapshot of what is complete.
    fn partial(&mut self, stack: &[Level<'_>]) -> Result<(), BackupError> {
        self.settle()?;
        let frames: Vec<_> = stack.iter().map(|level| level.frame).collect();
        if let Some(tree) = self.pipeline.assembler.partial_root(self.pipeline.session, &frames)? {
            (self.save_partial)(&mut self.pipeline, tree)?;
        }
        self.last_partial = Instant::now();
        self.files_at_partial = self.pipeline.begun;
        Ok(())
    }

    /// The nodes of a parent's directory on the way to the roots.
    fn load_parent(&mut self, tree: Option<BlobId>, path: &Path) -> ParentDir {
        let pipeline = &mut self.pipeline;
        scan::load_parent(self.reader, tree, &mut |code, message, is_error| {
            pipeline.problem(code, bytes(path), message, is_error);
        })
    }

    /// The nodes of this name in the parent snapshots.
    fn parent_nodes(&mut self, frame: FrameId, name: &[u8]) -> Vec<Option<Node>> {
        let parents = &self.pipeline.assembler.frame(frame).parents;
        parents.iter().map(|parent| parent.find(name).map(|at| parent.nodes[at].clone())).collect()
    }

    /// Goes on towards the roots.
    fn way_child(
        &mut self,
        frame: FrameId,
        parent: &Path,
        name: &'t [u8],
        child: &'t RootTree,
    ) -> Result<Option<Level<'t>>, BackupError> {
        let path = roots::join(parent, name);
        if child.is_root {
            return match self.root(frame, parent, name, &path) {
                Ok(below) => Ok(below),
                Err(RootError::Run(error)) => Err(error),
                Err(RootError::Root(error)) => self.root_failed(&path, error),
            };
        }
        let opened = SourceDir::open_way(&path).and_then(|dir| Ok((dir.stat_self()?, dir)));
        let (stat, dir) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.root_failed(&path, error),
        };
        let metadata = match dir.is_readable() {
            true => self.capture_dir(&dir, &stat, &path),
            false => self.scratch.metadata.of_stat(&stat),
        };
        let own = (ByteBuf::from(name), metadata);
        let slot = self.pipeline.assembler.reserve(frame);
        let nodes = self.parent_nodes(frame, name);
        // The first parent stays the first, even if it has nothing here: its tree may be taken over as a whole.
        let trees = nodes.iter().map(|node| match node.as_ref().map(|node| &node.kind) {
            Some(NodeKind::Directory { tree }) => Some(*tree),
            _ => None,
        });
        let parents = trees.map(|tree| self.load_parent(tree, &path)).collect();
        let place = Place { parent: frame, slot };
        let frame = self.pipeline.assembler.begin_dir(Some(own), Some(place), parents);
        self.pipeline.assembler.mark_way(frame);
        self.pipeline.summary.directories += 1;
        Ok(Some(Level { frame, kind: LevelKind::Way { path, children: child.children.iter() } }))
    }

    /// Begins a root. A symbolic link to a directory that was named as a root is followed, once.
    fn root(
        &mut self,
        frame: FrameId,
        parent: &Path,
        name: &'t [u8],
        path: &Path,
    ) -> Result<Option<Level<'t>>, RootError> {
        let below = match SourceDir::open_root(path) {
            Ok(dir) => {
                let stat = dir.stat_self()?;
                let nodes = self.parent_nodes(frame, name);
                let nodes: Vec<_> = nodes.iter().map(Option::as_ref).collect();
                let scanned = self.scanner.root(dir, path, &stat, &nodes, &mut self.scratch);
                self.directory(frame, name, path, scanned)
            }
            // A file, or a link to one or to nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => {
                let handle = SourceDir::open_way(parent)?;
                let stat = handle.stat(name)?;
                let filter = self.scanner.above_root(stat.device);
                let dir = Arc::new(Dir { handle, path: parent.to_owned(), filter });
                let parents = &self.pipeline.assembler.frame(frame).parents;
                let verdict = self.scanner.single(&dir, name, parents);
                self.entry(frame, &dir, name, verdict)
            }
            Err(error) => return Err(error.into()),
        };
        let below = below?;
        self.roots_begun += 1;
        Ok(below)
    }

    /// A root cannot be read, or no longer: the others are worth storing all the same.
    fn root_failed(&mut self, path: &Path, error: io::Error) -> Result<Option<Level<'t>>, BackupError> {
        self.pipeline.failed(path, &error);
        self.root_error.get_or_insert((path.to_owned(), error));
        Ok(None)
    }

    /// Deals with one entry of a directory; returns the level below it if it is a directory.
    fn entry(
        &mut self,
        frame: FrameId,
        dir: &Arc<Dir>,
        name: &[u8],
        verdict: Verdict,
    ) -> Result<Option<Level<'t>>, BackupError> {
        match verdict {
            Verdict::Directory(child) => {
                let path = roots::join(&dir.path, name);
                let scanned = match child {
                    Some(child) => self.scanner.take(&child, &mut self.scratch),
                    None => self.scan_late(frame, dir, name),
                };
                return self.directory(frame, name, &path, scanned);
            }
            Verdict::Reused { parent, index } => {
                let node = self.pipeline.assembler.frame(frame).reuse(parent as usize, index as usize);
                if let NodeKind::File(content) = &node.kind {
                    let size = content.size;
                    self.pipeline.summary.files += 1;
                    self.pipeline.summary.files_unmodified += 1;
                    self.pipeline.progress(size);
                }
                self.pipeline.note(&roots::join(&dir.path, name), EntryAction::Unmodified);
            }
            Verdict::File { size, linked } => {
                let slot = self.pipeline.assembler.reserve(frame);
                let changed = self.has_file(frame, name);
                let (dir, name) = (Arc::clone(dir), ByteBuf::from(name));
                let mut job = FileJob { dir, name, frame, slot, changed, link: None };
                if linked {
                    match self.linked(job)? {
                        Some(unknown) => job = unknown,
                        None => return Ok(None),
                    }
                }
                if size > SMALL_LEN_MAX {
                    self.file(&job)?;
                } else {
                    self.pipeline.push_file(job, size)?;
                }
            }
            Verdict::Special => self.special(frame, dir, name),
            Verdict::Excluded => self.pipeline.note(&roots::join(&dir.path, name), EntryAction::Excluded),
            Verdict::Failed(error) => self.pipeline.failed(&roots::join(&dir.path, name), &error),
        }
        Ok(None)
    }

    /// Scans a subdirectory that was not scanned ahead.
    fn scan_late(&mut self, frame: FrameId, dir: &Arc<Dir>, name: &[u8]) -> Result<Scanned, Refusal> {
        let stat = dir.handle.stat(name).map_err(Refusal::Failed)?;
        let parents = &self.pipeline.assembler.frame(frame).parents;
        let child: Arc<Child> = self.scanner.child(dir, parents, name, stat);
        self.scanner.take(&child, &mut self.scratch)
    }

    /// Whether a parent snapshot has a file of this name.
    fn has_file(&mut self, frame: FrameId, name: &[u8]) -> bool {
        let parents = &self.pipeline.assembler.frame(frame).parents;
        parents.iter().any(|parent| {
            parent.find(name).is_some_and(|at| matches!(parent.nodes[at].kind, NodeKind::File(_)))
        })
    }

    /// Begins a directory that was scanned.
    fn directory(
        &mut self,
        frame: FrameId,
        name: &[u8],
        path: &Path,
        scanned: Result<Scanned, Refusal>,
    ) -> Result<Option<Level<'t>>, BackupError> {
        let scanned = match scanned {
            Ok(scanned) => scanned,
            Err(Refusal::Repository) => {
                let message = "this is the repository itself: left out".to_owned();
                self.pipeline.problem("repository-in-source", bytes(path), message, false);
                return Ok(None);
            }
            Err(Refusal::Failed(error)) => {
                self.pipeline.failed(path, &error);
                return Ok(None);
            }
        };
        let slot = self.pipeline.assembler.reserve(frame);
        self.pipeline.summary.directories += 1;
        let not_entered = scanned.not_entered;
        let level = self.enter(Some((ByteBuf::from(name), Place { parent: frame, slot })), scanned);
        if not_entered {
            self.pipeline.note(path, EntryAction::Excluded);
            self.pipeline.assembler.end_dir(self.pipeline.session, level.frame)?;
            return Ok(None);
        }
        Ok(Some(level))
    }

    /// Goes into a directory; the root directory of the system has no name and place.
    fn enter(&mut self, own: Option<(ByteBuf, Place)>, scanned: Scanned) -> Level<'t> {
        let Scanned { dir, metadata, names, verdicts, parents, findings, .. } = scanned;
        for finding in findings {
            self.pipeline.problem(finding.code, bytes(&dir.path), finding.message, finding.is_error);
        }
        let (own, place) = own.map(|(name, place)| ((name, metadata), place)).unzip();
        let frame = self.pipeline.assembler.begin_dir(own, place, parents);
        Level { frame, kind: LevelKind::Real { dir, names, verdicts: verdicts.into_iter(), next: 0 } }
    }

    fn capture_dir(&mut self, dir: &SourceDir, stat: &SourceStat, path: &Path) -> Metadata {
        let mut problems = Vec::new();
        let metadata =
            self.scratch.metadata.of_open(dir, stat, &mut |error| problems.push(error.to_string()));
        self.pipeline.metadata_problems(path, problems);
        metadata
    }

    /// Reads a file that is new or changed.
    fn file(&mut self, job: &FileJob) -> Result<(), BackupError> {
        let stored = self.file_of(job)?;
        if !stored {
            self.pipeline.settle_link(job.link, None);
        }
        self.pipeline.settle_links();
        Ok(())
    }

    /// Returns whether the file is stored or on its way.
    fn file_of(&mut self, job: &FileJob) -> Result<bool, BackupError> {
        let FileJob { dir, name, frame, slot, link, .. } = job;
        let (frame, slot, link) = (*frame, *slot, *link);
        let path = roots::join(&dir.path, name);
        let opened = dir.handle.open_file(name).and_then(|file| Ok((SourceStat::of_file(&file)?, file)));
        let file = match opened {
            Ok((stat, file)) if stat.kind == SourceKind::File => file,
            Ok(_) => {
                self.pipeline.not_a_file(&path);
                return Ok(false);
            }
            Err(error) => {
                self.pipeline.failed(&path, &error);
                return Ok(false);
            }
        };
        let known = self.pipeline.assembler.frame(frame).parents.iter().find_map(|parent| {
            match &parent.nodes[parent.find(name)?].kind {
                NodeKind::File(content) => Some(content.grain),
                _ => None,
            }
        });
        let grain = self.grains.of(&path).or(known.flatten());
        self.pipeline.begun += 1;
        let mut tokens = Vec::new();
        let result = self.files.read(&mut self.pipeline, &file, grain, &mut |pipeline| {
            // An attempt that is given up ends without a node.
            if let Some(token) = tokens.last() {
                pipeline.assembler.abandon(*token);
                pipeline.end_reading(0);
            }
            let token = pipeline.assembler.begin_file(frame, slot, link);
            tokens.push(token);
            Ok(token)
        });
        let read = match result {
            Ok(read) => read,
            Err(FileError::Run(error)) => return Err(error),
            Err(FileError::File(error)) => {
                if let Some(token) = tokens.last() {
                    self.pipeline.assembler.abandon(*token);
                }
                self.pipeline.end_reading(0);
                self.pipeline.failed(&path, &error);
                return Ok(false);
            }
        };
        self.pipeline.end_reading(read.size);
        let mut problems = Vec::new();
        let metadata =
            self.scratch.metadata.of_open(&file, &read.stat, &mut |error| problems.push(error.to_string()));
        drop(file);
        self.pipeline.metadata_problems(&path, problems);
        self.pipeline.count_file(&path, known.is_some(), read.unstable);
        let content = FileContent {
            size: read.size,
            grain: read.grain,
            holes: read.holes,
            unstable: read.unstable,
            ..FileContent::default()
        };
        let node = file_node(name, content, metadata);
        let Some(token) = tokens.pop() else { return Ok(false) };
        self.pipeline.assembler.end_file(self.pipeline.session, token, read.parts, node)?;
        Ok(true)
    }

    /// Stores a link, device, pipe or socket.
    fn special(&mut self, frame: FrameId, dir: &Dir, name: &[u8]) {
        let path = roots::join(&dir.path, name);
        let (stat, kind) = match special_kind(dir, name) {
            Ok(found) => found,
            Err(error) => return self.pipeline.failed(&path, &error),
        };
        let mut problems = Vec::new();
        let metadata = self.scratch.metadata.of_name(&dir.handle, name, &stat, &mut |error| {
            problems.push(error.to_string());
        });
        self.pipeline.metadata_problems(&path, problems);
        let slot = self.pipeline.assembler.reserve(frame);
        self.pipeline.assembler.put(frame, slot, Node { name: ByteBuf::from(name), kind, metadata });
        self.pipeline.note(&path, EntryAction::New);
    }
}

/// Entries taken over before the walk looks whether it is cancelled.
const REUSED_AT_ONCE: usize = 1024;

/// What a link, device, pipe or socket is now: some time may have passed since it was scanned.
fn special_kind(dir: &Dir, name: &[u8]) -> io::Result<(SourceStat, NodeKind)> {
    let stat = dir.handle.stat(name)?;
    let (major, minor) = (stat.rdev_major, stat.rdev_minor);
    let kind = match stat.kind {
        SourceKind::Symlink => {
            let target = dir.handle.read_link(name)?;
            if target.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the symbolic link is empty"));
            }
            NodeKind::Symlink { target: ByteBuf::from(target) }
        }
        SourceKind::CharDevice => NodeKind::CharDevice { major, minor },
        SourceKind::BlockDevice => NodeKind::BlockDevice { major, minor },
        SourceKind::Fifo => NodeKind::Fifo,
        SourceKind::Socket => NodeKind::Socket,
        SourceKind::File | SourceKind::Directory => {
            return Err(io::Error::other("it became something else while the backup ran"));
        }
    };
    Ok((stat, kind))
}

fn bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}
