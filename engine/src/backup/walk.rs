//! The walk: directory by directory in name order, taking over what the parent snapshot has and reading the rest.
//! Directories come scanned, mostly ahead of time; small files go to the workers, large ones are read here.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;

use crate::backup::assemble::{FrameId, Place, file_node};
use crate::backup::files::{FileError, FileReader};
use crate::backup::grains::GrainRules;
use crate::backup::known::{self, Known, ParentDir};
use crate::backup::links::Link;
use crate::backup::options::BackupError;
use crate::backup::pipeline::Pipeline;
use crate::backup::roots::{self, RootTree};
use crate::backup::scan::{self, Dir, Entries, Finding, Refusal, Scanned, Scanner, Scratch, Verdict, Window};
use crate::backup::small::{FileJob, SMALL_LEN_MAX};
use crate::backup::streams::{self, KeptStream};
use crate::format::tree::{FileContent, Grain, Metadata, Node, NodeKind, Timestamp};
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
    /// Streams, by number. Each is read when its name comes up.
    pub streams: &'w mut [KeptStream],
    /// The time that streams are from.
    pub time: Timestamp,
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
    /// Files that were read from elsewhere.
    pub instead_read: HashSet<PathBuf>,
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
    Way {
        path: PathBuf,
        children: std::collections::btree_map::Iter<'t, Vec<u8>, RootTree>,
        parents: Vec<ParentDir>,
    },
    /// Part of a root.
    Real(Inside),
}

/// Where the walk is in a directory.
struct Inside {
    dir: Arc<Dir>,
    names: Names,
    verdicts: std::vec::IntoIter<Verdict>,
    /// Number of the next verdict's name.
    next: usize,
    /// What comes after these.
    entries: Entries,
}

/// What to go on with.
enum Step {
    /// The directory is done.
    Leave,
    /// Entries were taken over, or scanned.
    Go,
    /// An entry of a real directory.
    Entry(Arc<Dir>, Vec<u8>, Verdict),
}

impl<'t> Walker<'_, '_, '_> {
    /// Walks all roots, unless it is cancelled on the way.
    pub fn run(&mut self, tree: &'t RootTree, parents: &[BlobId]) -> Result<(), BackupError> {
        let mut stack = Vec::new();
        let root = Path::new("/");
        let parents: Vec<_> =
            parents.iter().enumerate().map(|(number, tree)| ParentDir::new(number, *tree)).collect();
        if tree.is_root {
            let failed = |source| BackupError::Source { path: root.to_owned(), source };
            let dir = SourceDir::open_root(root).map_err(failed)?;
            let stat = dir.stat_self().map_err(failed)?;
            let scanned = self.scanner.system_root(dir, &stat, parents, &mut self.scratch);
            stack.push(self.enter(None, scanned));
        } else {
            let frame = self.pipeline.assembler.begin_dir(None, None);
            self.pipeline.assembler.mark_way(frame);
            let kind = LevelKind::Way { path: root.to_owned(), children: tree.children.iter(), parents };
            stack.push(Level { frame, kind });
        }
        self.walk(&mut stack)?;
        if self.cancelled {
            return Ok(());
        }
        self.settle()?;
        for path in self.scanner.instead.paths() {
            if !self.instead_read.contains(path) {
                let error = io::Error::new(io::ErrorKind::NotFound, "it is not where it was, or is left out");
                self.pipeline.failed(path, &error);
            }
        }
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
            if self.pipeline.is_far_ahead(frame) && self.pipeline.advance()? {
                continue;
            }
            let below = match &mut level.kind {
                LevelKind::Way { path, children, parents } => match children.next() {
                    Some((name, child)) => {
                        let known = self.known(parents, path, name);
                        let path = path.clone();
                        self.way_child(frame, &path, (name, known), child)?
                    }
                    None => {
                        self.leave(stack)?;
                        continue;
                    }
                },
                LevelKind::Real(inside) => match self.step(frame, inside)? {
                    Step::Entry(dir, name, verdict) => self.entry(frame, &dir, &name, verdict)?,
                    Step::Go => None,
                    Step::Leave => {
                        self.leave(stack)?;
                        continue;
                    }
                },
            };
            stack.extend(below);
        }
        Ok(())
    }

    /// Takes a run of unchanged entries over, or finds the next one with something to do.
    fn step(&mut self, frame: FrameId, inside: &mut Inside) -> Result<Step, BackupError> {
        let wants_entries = self.pipeline.monitor.wants_entries();
        let (mut files, mut bytes, mut taken) = (0, 0u64, 0);
        while let Some(Verdict::Reused(_)) = inside.verdicts.as_slice().first()
            && let Some(Verdict::Reused(known)) = inside.verdicts.next()
        {
            let node = known.node();
            if let NodeKind::File(content) = &node.kind {
                files += 1;
                bytes = bytes.saturating_add(content.size);
            }
            if wants_entries {
                let path = roots::join(&inside.dir.path, &node.name);
                self.pipeline.note(&path, EntryAction::Unmodified);
            }
            self.pipeline.assembler.reuse(self.pipeline.session, frame, known)?;
            taken += 1;
        }
        if taken > 0 {
            inside.next += taken;
            self.pipeline.summary.files += files;
            self.pipeline.summary.files_unmodified += files;
            self.pipeline.progress(bytes);
            return Ok(Step::Go);
        }
        if let (Some(verdict), Some(name)) = (inside.verdicts.next(), inside.names.get(inside.next)) {
            inside.next += 1;
            return Ok(Step::Entry(Arc::clone(&inside.dir), name.to_vec(), verdict));
        }
        let mut findings = Vec::new();
        let window = self.scanner.next_window(&inside.dir, &mut inside.entries, &mut findings);
        self.report(&inside.dir.path, findings);
        if window.names.is_empty() {
            return Ok(Step::Leave);
        }
        inside.names = window.names;
        inside.verdicts = window.verdicts.into_iter();
        inside.next = 0;
        Ok(Step::Go)
    }

    fn report(&mut self, path: &Path, findings: Vec<Finding>) {
        for finding in findings {
            self.pipeline.problem(finding.code, bytes(path), finding.message, finding.is_error);
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
            if self.cancelled {
                self.pipeline.settle_link(job.link, None);
                self.pipeline.assembler.release(self.pipeline.session, job.frame, job.slot)?;
                continue;
            }
            // One that a worker gave back is still being waited for under its key.
            let unknown = if job.link.is_some() { Some(job) } else { self.linked(job)? };
            if let Some(job) = unknown {
                self.file(&job)?;
            }
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
                self.pipeline.links.wait((stat.device, stat.inode), job);
                Ok(None)
            }
            Link::Stored(node) => {
                let path = roots::join(&job.dir.path, &job.name);
                self.pipeline.count_file(&path, job.before.is_file(), false);
                self.pipeline.progress(stat.size);
                let node = Box::new(Node { name: job.name, ..(*node).clone() });
                self.pipeline.assembler.complete(self.pipeline.session, job.frame, job.slot, Some(node))?;
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
        is_time || self.pipeline.session.is_commit_due()
    }

    /// Saves a snapshot of what is complete.
    fn partial(&mut self, stack: &[Level<'_>]) -> Result<(), BackupError> {
        self.settle()?;
        let mut tree = None;
        // If no file was begun, all that is complete is in the parent snapshots.
        if self.pipeline.begun > self.files_at_partial {
            let frames: Vec<_> = stack.iter().map(|level| level.frame).collect();
            tree = self.pipeline.assembler.partial_root(self.pipeline.session, &frames)?;
        }
        match tree {
            Some(tree) => (self.save_partial)(&mut self.pipeline, tree)?,
            None => self.pipeline.relieve()?,
        }
        self.last_partial = Instant::now();
        self.files_at_partial = self.pipeline.begun;
        Ok(())
    }

    /// What the parent snapshots have under a name in a directory on the way to the roots.
    fn known(&mut self, parents: &mut [ParentDir], path: &Path, name: &[u8]) -> Vec<Known> {
        let mut findings = Vec::new();
        let mut fail = |message| findings.push(scan::parent_unreadable(message));
        let known = known::find_all(parents, self.reader, name, &mut fail).collect();
        self.report(path, findings);
        known
    }

    /// Goes on towards the roots.
    fn way_child(
        &mut self,
        frame: FrameId,
        parent: &Path,
        (name, known): (&'t [u8], Vec<Known>),
        child: &'t RootTree,
    ) -> Result<Option<Level<'t>>, BackupError> {
        let path = roots::join(parent, name);
        if let Some(source) = child.stream.and_then(|number| self.streams.get_mut(number)) {
            let grain = known.first().and_then(|known| file_grain(known.node()));
            let grain = self.grains.of(&path).or(grain);
            streams::read(&mut self.pipeline, &mut self.files, frame, source, (grain, self.time))?;
            self.pipeline.count_file(&path, !known.is_empty(), false);
            self.roots_begun += 1;
            return Ok(None);
        }
        if child.is_root {
            let place = child.read_from.as_deref().unwrap_or(&path);
            return match self.root(frame, (parent, place), (name, known), &path) {
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
        let slot = self.pipeline.assembler.reserve(frame, known.first().cloned());
        let place = Place { parent: frame, slot };
        let frame = self.pipeline.assembler.begin_dir(Some(own), Some(place));
        self.pipeline.assembler.mark_way(frame);
        self.pipeline.summary.directories += 1;
        let parents = known.iter().filter_map(|known| Some(ParentDir::new(known.parent, known.tree()?)));
        let (parents, children) = (parents.collect(), child.children.iter());
        Ok(Some(Level { frame, kind: LevelKind::Way { path, children, parents } }))
    }

    /// Begins a root, which is read at `place`. A symbolic link to a directory that was named as a root is followed, once.
    fn root(
        &mut self,
        frame: FrameId,
        (parent, place): (&Path, &Path),
        (name, known): (&'t [u8], Vec<Known>),
        path: &Path,
    ) -> Result<Option<Level<'t>>, RootError> {
        let below = match SourceDir::open_root(place) {
            Ok(dir) => {
                let stat = dir.stat_self()?;
                let scanned = self.scanner.root(dir, path, &stat, &known, &mut self.scratch);
                self.directory(frame, (name, known.into_iter().next()), path, scanned)
            }
            // A file, or a link to one or to nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => {
                let handle = SourceDir::open_way(place.parent().unwrap_or(parent))?;
                let stat = handle.stat(name)?;
                let filter = self.scanner.above_root(stat.device);
                let dir = Arc::new(Dir { handle, path: parent.to_owned(), filter });
                let verdict = self.scanner.single(&dir, name, known);
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
        let scanner = self.scanner;
        let dir = match scanner.instead.of_entry(dir, name) {
            Some(elsewhere) => {
                self.instead_read.insert(roots::join(&dir.path, name));
                elsewhere
            }
            None => dir,
        };
        match verdict {
            Verdict::Directory(child) => {
                let path = roots::join(&dir.path, name);
                let scanned = self.scanner.take(&child, &mut self.scratch);
                return self.directory(frame, (name, child.known().cloned()), &path, scanned);
            }
            Verdict::Reused(known) => {
                self.unmodified(dir, name, file_size(known.node()));
                self.pipeline.assembler.reuse(self.pipeline.session, frame, known)?;
            }
            Verdict::Renumbered(known, device) => {
                let mut node = Box::new(known.node().clone());
                node.metadata.device = Some(device);
                self.unmodified(dir, name, file_size(&node));
                let slot = self.pipeline.assembler.reserve(frame, None);
                self.pipeline.assembler.complete(self.pipeline.session, frame, slot, Some(node))?;
            }
            Verdict::File { size, linked, before } => {
                let slot = self.pipeline.assembler.reserve(frame, None);
                let (dir, name) = (Arc::clone(dir), ByteBuf::from(name));
                let mut job = FileJob { dir, name, frame, slot, before, link: None };
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
            Verdict::Special(known) => self.special(frame, dir, (name, known))?,
            Verdict::Excluded => self.pipeline.note(&roots::join(&dir.path, name), EntryAction::Excluded),
            Verdict::Failed(error) => self.pipeline.failed(&roots::join(&dir.path, name), &error),
        }
        Ok(None)
    }

    /// Counts an entry that was taken over, with the size that it has if it is a file.
    fn unmodified(&mut self, dir: &Dir, name: &[u8], size: Option<u64>) {
        if let Some(size) = size {
            self.pipeline.summary.files += 1;
            self.pipeline.summary.files_unmodified += 1;
            self.pipeline.progress(size);
        }
        self.pipeline.note(&roots::join(&dir.path, name), EntryAction::Unmodified);
    }

    /// Begins a directory that was scanned.
    fn directory(
        &mut self,
        frame: FrameId,
        (name, known): (&[u8], Option<Known>),
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
        let slot = self.pipeline.assembler.reserve(frame, known);
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
        let Scanned { dir, metadata, window, entries, findings, .. } = scanned;
        self.report(&dir.path, findings);
        let (own, place) = own.map(|(name, place)| ((name, metadata), place)).unzip();
        let frame = self.pipeline.assembler.begin_dir(own, place);
        let Window { names, verdicts } = window;
        let verdicts = verdicts.into_iter();
        Level { frame, kind: LevelKind::Real(Inside { dir, names, verdicts, next: 0, entries }) }
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
        self.pipeline.assembler.release(self.pipeline.session, job.frame, job.slot)
    }

    /// Returns whether the file is stored or on its way.
    fn file_of(&mut self, job: &FileJob) -> Result<bool, BackupError> {
        let FileJob { dir, name, frame, slot, before, link } = job;
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
        let grain = self.grains.of(&path).or(before.grain());
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
        self.pipeline.count_file(&path, before.is_file(), read.unstable);
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
    fn special(
        &mut self,
        frame: FrameId,
        dir: &Dir,
        (name, known): (&[u8], Option<Known>),
    ) -> Result<(), BackupError> {
        let path = roots::join(&dir.path, name);
        let (stat, kind) = match special_kind(dir, name) {
            Ok(found) => found,
            Err(error) => {
                self.pipeline.failed(&path, &error);
                return Ok(());
            }
        };
        let mut problems = Vec::new();
        let metadata = self.scratch.metadata.of_name(&dir.handle, name, &stat, &mut |error| {
            problems.push(error.to_string());
        });
        self.pipeline.metadata_problems(&path, problems);
        self.pipeline.note(&path, EntryAction::New);
        let slot = self.pipeline.assembler.reserve(frame, known);
        let node = Box::new(Node { name: ByteBuf::from(name), kind, metadata });
        self.pipeline.assembler.complete(self.pipeline.session, frame, slot, Some(node))
    }
}

/// The size of a file.
fn file_size(node: &Node) -> Option<u64> {
    match &node.kind {
        NodeKind::File(content) => Some(content.size),
        _ => None,
    }
}

/// How a file was cut.
fn file_grain(node: &Node) -> Option<Grain> {
    match &node.kind {
        NodeKind::File(content) => content.grain,
        _ => None,
    }
}

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
