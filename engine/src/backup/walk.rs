//! The walk: directory by directory in name order, taking over what the parent snapshot has and reading the rest.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;

use crate::backup::assemble::{FrameId, ParentDir, Place, file_node};
use crate::backup::files::{FileError, FileReader};
use crate::backup::grains::GrainRules;
use crate::backup::options::BackupError;
use crate::backup::pipeline::Pipeline;
use crate::backup::roots::{self, RootTree};
use crate::backup::session::BLOBS_PER_SEGMENT;
use crate::browse;
use crate::format::tree::{FileContent, Metadata, Node, NodeKind};
use crate::ids::BlobId;
use crate::monitor::EntryAction;
use crate::source::{
    DirFilter, Filter, ListBuffer, MetadataReader, Names, SourceDir, SourceKind, SourceStat,
};
use crate::store::BlobReader;
use crate::target::check_name;

/// Everything the walk needs that does not change.
pub(super) struct Walker<'w, 'p, 's> {
    pub pipeline: Pipeline<'p, 's>,
    pub reader: &'w BlobReader,
    pub filter: &'w Filter,
    pub grains: &'w GrainRules,
    pub files: FileReader,
    pub metadata: MetadataReader,
    pub list: ListBuffer,
    /// Directories never entered: the repository itself, by device and inode.
    pub forbidden: HashSet<(u64, u64)>,
    pub partial_every: Duration,
    pub last_partial: Instant,
    /// Files read when the last partial snapshot was made.
    pub files_at_partial: u64,
    /// Makes a partial snapshot of this tree.
    #[allow(clippy::type_complexity, reason = "said once, here")]
    pub save_partial: &'w mut dyn FnMut(&mut Pipeline<'p, 's>, BlobId) -> Result<(), BackupError>,
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

/// A directory that is being listed.
struct Level<'t> {
    frame: FrameId,
    path: PathBuf,
    kind: LevelKind<'t>,
}

enum LevelKind<'t> {
    /// On the way to roots: only they are looked at.
    Way { children: std::collections::btree_map::Iter<'t, Vec<u8>, RootTree> },
    /// Part of a root.
    Real { dir: SourceDir, names: Names, next: usize, filter: DirFilter },
}

impl<'t> Walker<'_, '_, '_> {
    /// Walks all roots; returns whether it came to the end.
    pub fn run(&mut self, tree: &'t RootTree, parents: &[BlobId]) -> Result<(), BackupError> {
        let mut parent_dirs = Vec::new();
        for parent in parents {
            parent_dirs.push(self.load_parent(Some(*parent), Path::new("/")));
        }
        let mut stack = Vec::new();
        let root = Path::new("/");
        if tree.is_root {
            let dir = SourceDir::open_root(root)
                .map_err(|source| BackupError::Source { path: root.to_owned(), source })?;
            let stat =
                dir.stat_self().map_err(|source| BackupError::Source { path: root.to_owned(), source })?;
            let above = self.filter.above_root(stat.device);
            let frame = self.pipeline.assembler.begin_dir(None, None, parent_dirs);
            stack.push(self.enter(frame, dir, root.to_owned(), &above));
        } else {
            let frame = self.pipeline.assembler.begin_dir(None, None, parent_dirs);
            self.pipeline.assembler.mark_way(frame);
            let kind = LevelKind::Way { children: tree.children.iter() };
            stack.push(Level { frame, path: root.to_owned(), kind });
        }
        self.walk(&mut stack)?;
        // A snapshot in which nothing of what was asked for is would be none.
        match self.root_error.take() {
            Some((path, source)) if self.roots_begun == 0 && !self.cancelled => {
                Err(BackupError::Source { path, source })
            }
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
            let below = match &mut level.kind {
                LevelKind::Way { children } => match children.next() {
                    Some((name, child)) => self.way_child(level.frame, &level.path, name, child)?,
                    None => {
                        self.leave(stack)?;
                        continue;
                    }
                },
                LevelKind::Real { dir, names, next, filter } => match names.get(*next) {
                    Some(entry) => {
                        *next += 1;
                        self.entry(level.frame, dir, &level.path, entry.name, filter)?
                    }
                    None => {
                        self.leave(stack)?;
                        continue;
                    }
                },
            };
            stack.extend(below);
        }
        Ok(())
    }

    fn leave(&mut self, stack: &mut Vec<Level<'t>>) -> Result<(), BackupError> {
        match stack.pop() {
            Some(level) => self.pipeline.assembler.end_dir(self.pipeline.session, level.frame),
            None => Ok(()),
        }
    }

    fn partial_is_due(&self) -> bool {
        let is_time =
            self.last_partial.elapsed() >= self.partial_every && self.files_read() > self.files_at_partial;
        is_time || self.pipeline.session.blobs_uncommitted() >= BLOBS_PER_SEGMENT
    }

    fn files_read(&self) -> u64 {
        self.pipeline.summary.files_new + self.pipeline.summary.files_changed
    }

    /// Saves a snapshot of what is complete.
    fn partial(&mut self, stack: &[Level<'_>]) -> Result<(), BackupError> {
        self.pipeline.drain()?;
        let frames: Vec<_> = stack.iter().map(|level| level.frame).collect();
        if let Some(tree) = self.pipeline.assembler.partial_root(self.pipeline.session, &frames)? {
            (self.save_partial)(&mut self.pipeline, tree)?;
        }
        self.last_partial = Instant::now();
        self.files_at_partial = self.files_read();
        Ok(())
    }

    /// The nodes of a parent's directory. Unreadable parents are a warning: everything is then read again.
    fn load_parent(&mut self, tree: Option<BlobId>, path: &Path) -> ParentDir {
        let Some(tree) = tree else { return ParentDir::default() };
        let mut nodes = Vec::new();
        let result = browse::nodes(self.reader, &tree, &mut |node| {
            nodes.push(node);
            std::ops::ControlFlow::Continue(())
        });
        match result {
            Ok(()) => ParentDir { tree: Some(tree), nodes },
            Err(error) => {
                let message =
                    format!("cannot read the parent snapshot here, everything is read again: {error}");
                self.pipeline.problem("parent-unreadable", bytes(path), message, false);
                ParentDir::default()
            }
        }
    }

    /// The same subdirectory in all parents that have it.
    fn parents_of(&mut self, frame: FrameId, name: &[u8], path: &Path) -> Vec<ParentDir> {
        let trees: Vec<Option<BlobId>> = self
            .pipeline
            .assembler
            .frame(frame)
            .parents
            .iter()
            .map(|parent| match &parent.nodes[parent.find(name)?].kind {
                NodeKind::Directory { tree } => Some(*tree),
                _ => None,
            })
            .collect();
        // The first parent stays the first, even if it has nothing here: its tree may be taken over as a whole.
        trees.into_iter().map(|tree| self.load_parent(tree, path)).collect()
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
            false => self.metadata.of_stat(&stat),
        };
        let own = (ByteBuf::from(name), metadata);
        let slot = self.pipeline.assembler.reserve(frame);
        let parents = self.parents_of(frame, name, &path);
        let place = Place { parent: frame, slot };
        let frame = self.pipeline.assembler.begin_dir(Some(own), Some(place), parents);
        self.pipeline.assembler.mark_way(frame);
        self.pipeline.summary.directories += 1;
        Ok(Some(Level { frame, path, kind: LevelKind::Way { children: child.children.iter() } }))
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
                let above = self.filter.above_root(stat.device);
                self.directory(frame, name, path.to_owned(), dir, &stat, &above)
            }
            // A file, or a link to one or to nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => {
                let dir = SourceDir::open_way(parent)?;
                let stat = dir.stat(name)?;
                let above = self.filter.above_root(stat.device);
                self.entry(frame, &dir, parent, name, &above)
            }
            Err(error) => return Err(error.into()),
        };
        let below = below?;
        self.roots_begun += 1;
        Ok(below)
    }

    /// A root cannot be read, or no longer: the others are worth storing all the same.
    fn root_failed(&mut self, path: &Path, error: io::Error) -> Result<Option<Level<'t>>, BackupError> {
        self.failed(path, &error);
        self.root_error.get_or_insert((path.to_owned(), error));
        Ok(None)
    }

    /// Deals with one entry of a directory; returns the level below it if it is a directory.
    fn entry(
        &mut self,
        frame: FrameId,
        dir: &SourceDir,
        parent: &Path,
        name: &[u8],
        filter: &DirFilter,
    ) -> Result<Option<Level<'t>>, BackupError> {
        // Some file systems have names that others, and so trees, do not take.
        let checked = check_name(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidFilename, error));
        let stat = match checked.and_then(|()| dir.stat(name)) {
            Ok(stat) => stat,
            Err(error) => {
                self.failed(&roots::join(parent, name), &error);
                return Ok(None);
            }
        };
        if !self.filter.keeps_all(filter) {
            let path = roots::join(parent, name);
            if self.filter.excluded(filter, &path, stat.kind, stat.size).is_some() {
                self.note(&path, EntryAction::Excluded);
                return Ok(None);
            }
        }
        match stat.kind {
            SourceKind::Directory => {
                let path = roots::join(parent, name);
                match dir.open_dir(name) {
                    Ok(below) => self.directory(frame, name, path, below, &stat, filter),
                    Err(error) => {
                        self.failed(&path, &error);
                        Ok(None)
                    }
                }
            }
            _ if self.reuse(frame, parent, name, &stat) => Ok(None),
            SourceKind::File => self.file(frame, dir, parent, name).map(|()| None),
            _ => {
                self.special(frame, dir, parent, name, &stat);
                Ok(None)
            }
        }
    }

    /// Takes an entry over from a parent snapshot if its `stat` says that nothing changed.
    fn reuse(&mut self, frame: FrameId, parent_path: &Path, name: &[u8], stat: &SourceStat) -> bool {
        let found =
            self.pipeline.assembler.frame(frame).parents.iter().enumerate().find_map(|(number, parent)| {
                let index = parent.find(name)?;
                let node = &parent.nodes[index];
                let same = match (&node.kind, stat.kind) {
                    (NodeKind::File(content), SourceKind::File) => {
                        !content.unstable && stat.looks_unchanged(&node.metadata, content.size)
                    }
                    (NodeKind::Symlink { .. }, SourceKind::Symlink)
                    | (NodeKind::Fifo, SourceKind::Fifo)
                    | (NodeKind::Socket, SourceKind::Socket) => {
                        stat.looks_unchanged(&node.metadata, stat.size)
                    }
                    _ => false,
                };
                same.then_some((number, index, matches!(node.kind, NodeKind::File(_))))
            });
        let Some((number, index, is_file)) = found else { return false };
        self.pipeline.assembler.reuse(frame, number, index);
        if is_file {
            self.pipeline.summary.files += 1;
            self.pipeline.summary.files_unmodified += 1;
            self.pipeline.progress(stat.size);
        }
        if self.pipeline.monitor.wants_entries() {
            self.note(&roots::join(parent_path, name), EntryAction::Unmodified);
        }
        true
    }

    /// Begins a directory that is open.
    fn directory(
        &mut self,
        frame: FrameId,
        name: &[u8],
        path: PathBuf,
        dir: SourceDir,
        stat: &SourceStat,
        filter: &DirFilter,
    ) -> Result<Option<Level<'t>>, BackupError> {
        if self.forbidden.contains(&(stat.device, stat.inode)) {
            let message = "this is the repository itself: left out".to_owned();
            self.pipeline.problem("repository-in-source", bytes(&path), message, false);
            return Ok(None);
        }
        let metadata = match self.known_dir_metadata(frame, name, stat) {
            Some(metadata) => metadata,
            None => self.capture_dir(&dir, stat, &path),
        };
        let slot = self.pipeline.assembler.reserve(frame);
        let parents = self.parents_of(frame, name, &path);
        let own = (ByteBuf::from(name), metadata);
        let place = Place { parent: frame, slot };
        let below = self.pipeline.assembler.begin_dir(Some(own), Some(place), parents);
        self.pipeline.summary.directories += 1;
        if self.filter.not_entered(filter, stat).is_some() {
            self.note(&path, EntryAction::Excluded);
            self.pipeline.assembler.end_dir(self.pipeline.session, below)?;
            return Ok(None);
        }
        Ok(Some(self.enter(below, dir, path, filter)))
    }

    fn known_dir_metadata(&mut self, frame: FrameId, name: &[u8], stat: &SourceStat) -> Option<Metadata> {
        self.pipeline.assembler.frame(frame).parents.iter().find_map(|parent| {
            let node = &parent.nodes[parent.find(name)?];
            let is_dir = matches!(node.kind, NodeKind::Directory { .. });
            (is_dir && stat.looks_unchanged(&node.metadata, 0)).then(|| node.metadata.clone())
        })
    }

    fn capture_dir(&mut self, dir: &SourceDir, stat: &SourceStat, path: &Path) -> Metadata {
        let mut problems = Vec::new();
        let metadata = self.metadata.of_open(dir, stat, &mut |error| problems.push(error.to_string()));
        self.metadata_problems(path, problems);
        metadata
    }

    fn metadata_problems(&mut self, path: &Path, problems: Vec<String>) {
        for message in problems {
            self.pipeline.problem("metadata-unreadable", bytes(path), message, true);
        }
    }

    /// Lists a directory. One that cannot be listed is stored as empty and reported.
    fn enter(&mut self, frame: FrameId, mut dir: SourceDir, path: PathBuf, filter: &DirFilter) -> Level<'t> {
        let names = match dir.names(&mut self.list) {
            Ok(names) => names,
            Err(error) => {
                self.failed(&path, &error);
                Names::default()
            }
        };
        let mut warnings = Vec::new();
        let filter =
            self.filter.enter(filter, &path, &dir, &names, &mut |error| warnings.push(error.to_string()));
        for message in warnings {
            self.pipeline.problem("ignore-rule", bytes(&path), message, true);
        }
        Level { frame, path, kind: LevelKind::Real { dir, names, next: 0, filter } }
    }

    /// Reads a file that is new or changed.
    fn file(
        &mut self,
        frame: FrameId,
        dir: &SourceDir,
        parent: &Path,
        name: &[u8],
    ) -> Result<(), BackupError> {
        let path = roots::join(parent, name);
        let mut file = match dir.open_file(name) {
            Ok(file) => file,
            Err(error) => {
                self.failed(&path, &error);
                return Ok(());
            }
        };
        match SourceStat::of_file(&file) {
            Ok(stat) if stat.kind == SourceKind::File => {}
            Ok(_) => {
                let message = "it was a file a moment ago and is something else now".to_owned();
                self.pipeline.problem("vanished", bytes(&path), message, true);
                return Ok(());
            }
            Err(error) => {
                self.failed(&path, &error);
                return Ok(());
            }
        }
        let known = self.pipeline.assembler.frame(frame).parents.iter().find_map(|parent| {
            match &parent.nodes[parent.find(name)?].kind {
                NodeKind::File(content) => Some(content.grain),
                _ => None,
            }
        });
        let grain = self.grains.of(&path).or(known.flatten());
        let slot = self.pipeline.assembler.reserve(frame);
        let mut tokens = Vec::new();
        let bytes_before = self.pipeline.summary.bytes;
        let result = self.files.read(&mut self.pipeline, &mut file, grain, &mut |pipeline| {
            // An attempt that is given up ends without a node.
            if let Some(token) = tokens.last() {
                pipeline.assembler.abandon(*token);
            }
            let token = pipeline.assembler.begin_file(frame, slot);
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
                self.pipeline.summary.bytes = bytes_before;
                self.failed(&path, &error);
                return Ok(());
            }
        };
        self.pipeline.summary.bytes = bytes_before + read.size;
        let mut problems = Vec::new();
        let metadata =
            self.metadata.of_open(&file, &read.stat, &mut |error| problems.push(error.to_string()));
        drop(file);
        self.metadata_problems(&path, problems);
        self.pipeline.summary.files += 1;
        let action = if known.is_some() {
            self.pipeline.summary.files_changed += 1;
            EntryAction::Changed
        } else {
            self.pipeline.summary.files_new += 1;
            EntryAction::New
        };
        self.note(&path, action);
        if read.unstable {
            self.pipeline.summary.unstable += 1;
            let message = "changed while it was read: the copy may mix old and new content".to_owned();
            self.pipeline.problem("unstable", bytes(&path), message, false);
        }
        let content = FileContent {
            size: read.size,
            grain: read.grain,
            holes: read.holes,
            unstable: read.unstable,
            ..FileContent::default()
        };
        let node = file_node(name, content, metadata);
        let Some(token) = tokens.pop() else { return Ok(()) };
        self.pipeline.assembler.end_file(self.pipeline.session, token, read.parts, node)
    }

    /// Stores a link, device, pipe or socket.
    fn special(&mut self, frame: FrameId, dir: &SourceDir, parent: &Path, name: &[u8], stat: &SourceStat) {
        let path = roots::join(parent, name);
        let (major, minor) = (stat.rdev_major, stat.rdev_minor);
        let kind = match stat.kind {
            SourceKind::Symlink => match dir.read_link(name) {
                Ok(target) if target.is_empty() => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "the symbolic link is empty");
                    return self.failed(&path, &error);
                }
                Ok(target) => NodeKind::Symlink { target: ByteBuf::from(target) },
                Err(error) => return self.failed(&path, &error),
            },
            SourceKind::CharDevice => NodeKind::CharDevice { major, minor },
            SourceKind::BlockDevice => NodeKind::BlockDevice { major, minor },
            SourceKind::Fifo => NodeKind::Fifo,
            SourceKind::Socket => NodeKind::Socket,
            SourceKind::File | SourceKind::Directory => return,
        };
        let mut problems = Vec::new();
        let metadata = self.metadata.of_name(dir, name, stat, &mut |error| problems.push(error.to_string()));
        self.metadata_problems(&path, problems);
        let slot = self.pipeline.assembler.reserve(frame);
        self.pipeline.assembler.put(frame, slot, Node { name: ByteBuf::from(name), kind, metadata });
        self.note(&path, EntryAction::New);
    }

    fn failed(&mut self, path: &Path, error: &io::Error) {
        let code = if error.kind() == io::ErrorKind::NotFound { "vanished" } else { "unreadable" };
        self.pipeline.problem(code, bytes(path), format!("not backed up: {error}"), true);
    }

    fn note(&self, path: &Path, action: EntryAction) {
        if self.pipeline.monitor.wants_entries() {
            self.pipeline.monitor.entry(bytes(path), action);
        }
    }
}

fn bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}
