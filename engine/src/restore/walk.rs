//! The walk through the snapshot: makes directories, links and special files, removes what should go, and hands
//! files over to execution window by window.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Overwrite;
use super::context::Context;
use super::cursor::Cursor;
use super::delete;
use super::existing;
use super::inside::Relation;
use super::links::LinkTable;
use super::present::{self, Present};
use super::select::{Selector, Verdict};
use super::tally::{self, add, explain};
use super::window::{DoneDirectory, FileState, Limits, Window};
use crate::browse::BrowseError;
use crate::format::tree::{Metadata, Node, NodeKind};
use crate::ids::BlobId;
use crate::monitor::EntryAction;
use crate::target::{EntryKind, MadeDir, Obstacle, RelativePath, TargetError, TargetRoot};

/// Longest path that is restored, in bytes: the walk's memory and time grow with its square.
const PATH_LEN_MAX: usize = 64 << 10;

/// Directories of the current path whose entries stay in memory.
const LOADED_DIRECTORIES: usize = 8;

/// Bytes that the entries of those among them may take that are not the last two.
const LOADED_LEN_MAX: u64 = 16 << 20;

/// Whether a directory of the walk exists in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Not yet: nothing in it was wanted so far.
    Not,
    /// It is empty but for what this restore puts into it.
    New,
    /// It was there.
    Existing,
    /// It cannot be made; this was reported.
    Failed,
}

/// A directory on the way to where the walk is.
struct Frame<'a> {
    tree: BlobId,
    cursor: Cursor,
    /// Length of its path in [`Walk::path`].
    path_len: usize,
    metadata: Option<Metadata>,
    /// It or a directory above it is wanted.
    inside: bool,
    made: Made,
    /// What is in the target, if it was there and could be listed.
    present: Option<Present<'a>>,
    /// A part of the directory cannot be read: what it has is not known.
    damaged: bool,
}

/// The walk. Its windows go to `out`.
pub(super) struct Walk<'a> {
    pub(super) context: &'a Context<'a>,
    selector: &'a Selector,
    limits: Limits,
    windows: u32,
    out: Sender<Window>,
    pub(super) window: Window,
    frames: Vec<Frame<'a>>,
    /// Path in the snapshot of the entry at hand.
    path: Vec<u8>,
    pub(super) links: LinkTable<Arc<FileState>>,
}

/// The other side takes no more windows.
#[derive(Debug)]
pub(super) struct Stopped;

impl<'a> Walk<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        selector: &'a Selector,
        (limits, for_links): (Limits, u64),
        out: Sender<Window>,
    ) -> Self {
        let for_links = usize::try_from(for_links).unwrap_or(usize::MAX);
        Self {
            context,
            selector,
            limits,
            windows: 0,
            out,
            window: Window::default(),
            frames: Vec::new(),
            path: context.tally.prefix().to_vec(),
            links: LinkTable::new(for_links),
        }
    }

    /// Restores the contents of `tree` into the target directory, which gets `metadata` at the end, if any.
    pub(super) fn directory(mut self, tree: BlobId, metadata: Option<Metadata>) -> Result<(), Stopped> {
        // The filter has a say about the target directory's own path: `--include /home` with `:/home`.
        let own = self.selector.verdict(self.context.tally.prefix(), true, false);
        let inside = self.selector.includes_all() || own == Verdict::Take;
        let mut root = self.frame(tree, metadata, inside);
        root.made = Made::Existing;
        root.present = self.list(&RelativePath::root());
        self.frames.push(root);
        self.walk()
    }

    /// Restores one entry that is no directory into the target directory.
    pub(super) fn single(mut self, node: Node) -> Result<(), Stopped> {
        let path = RelativePath::root().join(&node.name);
        self.path.push(b'/');
        self.path.extend_from_slice(&node.name);
        if let Ok(path) = path
            && self.selector.verdict(&self.path, false, false) == Verdict::Take
        {
            self.take(node, path, true)?;
        }
        self.flush()
    }

    fn frame(&self, tree: BlobId, metadata: Option<Metadata>, inside: bool) -> Frame<'a> {
        Frame {
            tree,
            cursor: Cursor::new(tree),
            path_len: self.path.len(),
            metadata,
            inside,
            made: Made::Not,
            present: None,
            damaged: false,
        }
    }

    /// The path in the target of the first `len` bytes of the path at hand.
    fn relative(&self, len: usize) -> RelativePath {
        let relative = self.path.get(self.context.tally.prefix().len() + 1..len).unwrap_or_default();
        RelativePath::parse(relative).expect("the cursor has checked every name")
    }

    fn walk(&mut self) -> Result<(), Stopped> {
        while let Some(frame) = self.frames.last_mut() {
            if self.context.tally.is_cancelled() {
                return Err(Stopped);
            }
            self.path.truncate(frame.path_len);
            match frame.cursor.next(self.context.reader()) {
                Some(Ok(node)) => self.entry(node)?,
                Some(Err(error)) => {
                    frame.damaged = true;
                    let path = self.relative(self.path.len());
                    self.context.tally.fail(code_of(&error), path.as_bytes(), explain(&error));
                }
                None => self.leave()?,
            }
        }
        self.flush()
    }

    fn entry(&mut self, node: Node) -> Result<(), Stopped> {
        self.path.push(b'/');
        self.path.extend_from_slice(&node.name);
        let present = self.is_present(&node.name);
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        if self.path.len() > PATH_LEN_MAX {
            let shown = self.relative(frame_len(&self.frames));
            let why = format!("a path of {} bytes is not restored: at most {PATH_LEN_MAX}", self.path.len());
            self.context.tally.fail(tally::FAILED, shown.as_bytes(), why);
            return Ok(());
        }
        let is_directory = matches!(node.kind, NodeKind::Directory { .. });
        let inside = frame.inside;
        match self.selector.verdict(&self.path, is_directory, inside) {
            Verdict::Skip => return Ok(()),
            Verdict::Search => {
                if let NodeKind::Directory { tree } = node.kind {
                    self.push(tree, node.metadata, false);
                    self.list_searched();
                }
                return Ok(());
            }
            Verdict::Take => {}
        }
        let path = self.relative(self.path.len());
        if self.context.inside.relation(&path) == Relation::Repository {
            let why = "the repository itself lies here: nothing was put in its place".to_owned();
            self.context.tally.fail(tally::REPOSITORY, path.as_bytes(), why);
            return Ok(());
        }
        if !self.make_path() {
            return Ok(());
        }
        // Making the path may just have listed the directory.
        let present = present || self.is_present(&node.name);
        if let NodeKind::Directory { tree } = node.kind {
            self.push(tree, node.metadata, true);
            self.make_path();
            return Ok(());
        }
        self.take(node, path, present)
    }

    fn take(&mut self, node: Node, path: RelativePath, present: bool) -> Result<(), Stopped> {
        let Node { kind, metadata, .. } = node;
        match kind {
            NodeKind::File(content) => self.file(path, metadata, content, present)?,
            kind => self.other(&path, &kind, &metadata, present),
        }
        if self.window.is_full(&self.limits.part(self.windows)) { self.flush() } else { Ok(()) }
    }

    fn push(&mut self, tree: BlobId, metadata: Metadata, inside: bool) {
        let frame = self.frame(tree, Some(metadata), inside);
        self.frames.push(frame);
        let outer = self.frames.len().checked_sub(LOADED_DIRECTORIES);
        if let Some(frame) = outer.and_then(|at| self.frames.get_mut(at)) {
            frame.cursor.park();
        }
        // The directory above stays: to read it again for each of its subdirectories takes too long.
        let mut loaded = 0;
        for frame in self.frames.iter_mut().rev().skip(2).take(LOADED_DIRECTORIES) {
            loaded += frame.cursor.loaded_len();
            if loaded > LOADED_LEN_MAX {
                frame.cursor.park();
            }
        }
    }

    /// Makes the directories of the current path that do not exist yet. False if one cannot be made.
    fn make_path(&mut self) -> bool {
        for at in 0..self.frames.len() {
            match self.frames[at].made {
                Made::New | Made::Existing => {}
                Made::Failed => return false,
                Made::Not => {
                    let path = self.relative(self.frames[at].path_len);
                    let mut metadata = self.frames[at].metadata.take();
                    let made = self.make(&path, &mut metadata);
                    let frame = &mut self.frames[at];
                    frame.metadata = metadata;
                    frame.made = made.unwrap_or(Made::Failed);
                    match frame.made {
                        // One that is searched was listed before its first entry, if anything is to be deleted.
                        Made::Existing if frame.inside || !self.context.options.delete => {
                            self.frames[at].present = self.list(&path);
                        }
                        Made::Failed => {
                            frame.present = None;
                            return false;
                        }
                        Made::Existing | Made::New | Made::Not => {}
                    }
                }
            }
        }
        true
    }

    /// Makes a directory, or finds it; `None` if that fails, which is reported. What the options leave alone is not
    /// replaced, and a directory that they leave alone keeps its metadata.
    fn make(&self, path: &RelativePath, metadata: &mut Option<Metadata>) -> Option<Made> {
        add(&self.context.tally.counts.directories, 1);
        let made = match self.leaves(path, metadata.as_ref()) {
            Ok(Some(EntryKind::Directory)) => {
                *metadata = None;
                self.context.writable().map_or(Ok(Made::Existing), |root| open_or_make(root, path))
            }
            Ok(Some(_)) => {
                let why = "something else is there, which is left alone as asked for; nothing below it was restored";
                self.context.tally.fail(tally::FAILED, path.as_bytes(), why.to_owned());
                return None;
            }
            Ok(None) => match self.context.writable() {
                Some(root) => open_or_make(root, path),
                None => self.would_make(path),
            },
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => {
                if made == Made::New {
                    self.context.tally.entry(path.as_bytes(), EntryAction::Restored);
                }
                Some(made)
            }
            Err(error) => {
                let why = format!("{}; nothing below it was restored", explain(&error));
                self.context.tally.fail(tally::FAILED, path.as_bytes(), why);
                None
            }
        }
    }

    /// What is in the place of a directory, if the options leave it alone.
    fn leaves(
        &self,
        path: &RelativePath,
        metadata: Option<&Metadata>,
    ) -> Result<Option<EntryKind>, TargetError> {
        let overwrite = self.context.options.overwrite;
        if !matches!(overwrite, Overwrite::Never | Overwrite::IfNewer) {
            return Ok(None);
        }
        let Some(root) = self.context.readable() else { return Ok(None) };
        let found = root.stat(path)?;
        Ok(found.filter(|found| existing::is_left(overwrite, metadata, found)).map(|found| found.kind))
    }

    fn would_make(&self, path: &RelativePath) -> Result<Made, TargetError> {
        let Some(root) = self.context.readable() else { return Ok(Made::New) };
        // A parent that is to be replaced by a directory makes looking fail: then there is nothing below it.
        let found = root.stat(path).ok().flatten();
        let exists = found.is_some_and(|found| found.kind == EntryKind::Directory);
        Ok(if exists { Made::Existing } else { Made::New })
    }

    /// Lists a directory of the target that was there before. Where that fails, which is reported, nothing can be told to be
    /// surplus, and files that are there will be in the way.
    fn list(&self, path: &RelativePath) -> Option<Present<'a>> {
        let root = self.context.readable()?;
        let options = self.context.options;
        match present::list(root, path, &options.spill) {
            Ok(listed) => Some(Present::new(listed, &options.spill, options.delete)),
            Err(error) => {
                self.context.fail(path, &error);
                None
            }
        }
    }

    /// Lists the directory at hand, which is searched for entries that are wanted, if there is one in the target and what the snapshot does
    /// not have is to go. Once the first of them is found it is too late: what the snapshot has before it, and the directory on
    /// the way to it, would count as surplus.
    fn list_searched(&mut self) {
        if !self.context.options.delete {
            return;
        }
        let path = self.relative(self.path.len());
        let found = self.context.readable().and_then(|root| root.stat(&path).ok().flatten());
        if found.is_some_and(|found| found.kind == EntryKind::Directory) {
            let present = self.list(&path);
            if let Some(frame) = self.frames.last_mut() {
                frame.present = present;
            }
        }
    }

    /// Steps to `name` in the directory at hand of the target; whether it is there.
    fn is_present(&mut self, name: &[u8]) -> bool {
        let Some(frame) = self.frames.last_mut() else { return false };
        match frame.present.as_mut().map(|present| present.step_to(name)) {
            None => false,
            Some(Ok(is_present)) => is_present,
            Some(Err(error)) => {
                frame.present = None;
                let path_len = frame.path_len;
                let path = self.relative(path_len);
                self.context.fail(&path, &present::unreadable(&path, error));
                false
            }
        }
    }

    /// Whether the directory at hand of the target may have files that an earlier restore could not restore whole.
    pub(super) fn may_have_left_overs(&self) -> bool {
        // A single entry's directory is not listed.
        let Some(frame) = self.frames.last() else { return true };
        frame.present.as_ref().is_some_and(Present::has_incomplete)
    }

    /// Ends a directory.
    fn leave(&mut self) -> Result<(), Stopped> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let path = self.relative(frame.path_len);
        let is_made = matches!(frame.made, Made::New | Made::Existing);
        if let Some(present) = frame.present
            && !frame.damaged
        {
            match present.into_surplus() {
                Ok(surplus) => surplus.into_iter().flatten().for_each(|names| {
                    delete::remove_surplus(
                        self.context,
                        self.selector,
                        (&path, Some(&frame.tree)),
                        names,
                        frame.inside,
                    );
                }),
                Err(error) => self.context.fail(&path, &present::unreadable(&path, error)),
            }
        }
        if let Some(metadata) =
            frame.metadata.filter(|_| is_made && (frame.inside || frame.made == Made::New))
        {
            self.window.weigh(&path, &metadata);
            self.window.directories.push(DoneDirectory { path, metadata });
        }
        if self.window.is_full(&self.limits.part(self.windows)) { self.flush() } else { Ok(()) }
    }

    /// Whether no more chunks fit into the window.
    pub(super) fn is_full_of_chunks(&self) -> bool {
        self.window.is_full_of_chunks(&self.limits.part(self.windows))
    }

    /// Hands the window over and begins a new one.
    pub(super) fn flush(&mut self) -> Result<(), Stopped> {
        self.windows += 1;
        self.out.send(std::mem::take(&mut self.window)).map_err(|_| Stopped)
    }
}

fn open_or_make(root: &TargetRoot, path: &RelativePath) -> Result<Made, TargetError> {
    Ok(match root.make_dir(path, 0o700, Obstacle::Replace)? {
        MadeDir::Created => Made::New,
        MadeDir::Existing => Made::Existing,
    })
}

fn frame_len(frames: &[Frame<'_>]) -> usize {
    frames.last().map_or(0, |frame| frame.path_len)
}

/// The code of a problem with a tree.
fn code_of(error: &BrowseError) -> &'static str {
    match error {
        BrowseError::Read(error) => tally::code_of(error),
        _ => tally::DAMAGED,
    }
}
