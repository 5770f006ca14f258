//! Entries as the walk comes to them: files become jobs of the window, everything else is made at once.

use std::sync::Arc;

use serde::Serialize;

use super::content::{self, Chunks, Placer};
use super::existing::{Fate, decide};
use super::links::Name;
use super::tally::{self, add, explain};
use super::walk::{Stopped, Walk};
use super::window::{FileState, Job, Link, Missing, Wanted};
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{Chunk, ChunkList};
use crate::format::record;
use crate::format::tree::{FileContent, Hole, Metadata, NodeKind};
use crate::ids::BlobId;
use crate::monitor::EntryAction;
use crate::store::BlobReader;
use crate::target::{
    EntryKind, LeftOver, Obstacle, RelativePath, SpecialNode, TargetError, TargetStat, creation_mode,
};

impl Walk<'_> {
    /// What has the name `path` in the target; asked only if the directory's listing had it.
    fn look(&self, path: &RelativePath, present: bool) -> Result<Option<TargetStat>, TargetError> {
        match self.context.readable().filter(|_| present) {
            Some(root) => root.stat(path),
            None => Ok(None),
        }
    }

    /// Decides about an entry, and clears a directory out of its way if that is wished.
    fn fate(
        &self,
        path: &RelativePath,
        size: Option<u64>,
        metadata: &Metadata,
        present: bool,
    ) -> Result<Fate, TargetError> {
        let found = self.look(path, present)?;
        let fate = decide(self.context.options.overwrite, size, metadata, found.as_ref());
        if fate == Fate::Replace && found.is_some_and(|found| found.kind == EntryKind::Directory) {
            self.context.clear_directory(path)?;
        }
        Ok(fate)
    }

    /// What an earlier restore left of the file `path`, unless the snapshot itself has something of that name.
    fn left_over(&self, path: &RelativePath) -> Result<Option<LeftOver>, TargetError> {
        match self.context.readable().filter(|_| self.may_have_left_overs()) {
            Some(root) => root.left_over(path, &|name| self.context.snapshot_may_have(name)),
            None => Ok(None),
        }
    }

    /// Plans a regular file.
    pub(super) fn file(
        &mut self,
        path: RelativePath,
        metadata: Metadata,
        content: FileContent,
        present: bool,
    ) -> Result<(), Stopped> {
        let tally = &self.context.tally;
        add(&tally.counts.files, 1);
        let in_chunks = match content::check(&content) {
            Ok(in_chunks) => in_chunks,
            Err(error) => {
                tally.advance(1, 0);
                tally.fail(error.code(), path.as_bytes(), explain(&error));
                return Ok(());
            }
        };
        add(&tally.counts.bytes, content.size);
        let fate = match self.fate(&path, Some(content.size), &metadata, present) {
            Ok(fate) => fate,
            Err(error) => {
                self.context.fail(&path, &error);
                return Ok(());
            }
        };
        if fate == Fate::Leave {
            add(&tally.counts.files_skipped, 1);
            tally.advance(1, content.size);
            tally.entry(path.as_bytes(), EntryAction::Skipped);
            return Ok(());
        }
        let state = Arc::<FileState>::default();
        if self.is_further_name(&content, Some(content.size), &path, &metadata, present, &state) {
            return Ok(());
        }
        let left_over = match self.left_over(&path) {
            Ok(left_over) => left_over,
            Err(error) => {
                // Its other names are not to be linked to what stands there.
                state.kill();
                self.context.fail(&path, &error);
                return Ok(());
            }
        };
        let fate = match &left_over {
            Some(LeftOver { name, size, is_own: true }) if fate == Fate::Create => {
                state.set_aside(name.clone());
                Fate::Resume { size: *size }
            }
            _ => fate,
        };
        self.window.weigh(&path, &metadata);
        self.window.weigh_holes(&content.holes);
        let holes: Arc<[Hole]> = content.holes.into();
        let job = Job {
            path,
            metadata: Arc::new(metadata),
            size: content.size,
            holes,
            fate,
            wanted: self.window.next_wanted()..self.window.next_wanted(),
            first: true,
            last: true,
            left_over: left_over.is_some(),
            state,
        };
        if fate == Fate::Keep && !self.context.options.verify {
            self.window.jobs.push(job);
            return Ok(());
        }
        self.chunks(job, Chunks::new(content.chunks, content.depth, in_chunks))
    }

    /// Puts a file's chunks into the window, and into further ones if there are too many.
    fn chunks(&mut self, mut job: Job, mut chunks: Chunks) -> Result<(), Stopped> {
        let reader = self.context.reader();
        let mut load = |id: &BlobId| load_list(reader, id);
        let mut placer = Placer::new(Arc::clone(&job.holes));
        while let Some(chunk) = chunks.next(&mut load) {
            let placed = chunk.and_then(|chunk| Ok((chunk, placer.place(chunk.len)?)));
            let (Chunk { id, len }, at) = match placed {
                Ok(placed) => placed,
                Err(error) => {
                    let at = placer.position();
                    let why = explain(&error).into();
                    job.state.miss(Missing { at, len: job.size - at, code: error.code(), why });
                    break;
                }
            };
            if self.is_full_of_chunks() {
                job = self.continue_in_next(job)?;
                if job.state.is_dead() {
                    break;
                }
            }
            self.window.wanted.push(Wanted { id, len, job: self.window.next_job(), at });
        }
        job.wanted.end = self.window.next_wanted();
        self.window.jobs.push(job);
        Ok(())
    }

    /// Ends the window with the first part of a file; gives the job for the next part.
    fn continue_in_next(&mut self, mut job: Job) -> Result<Job, Stopped> {
        if job.fate == Fate::Shared {
            // Whether all of it is as it should be would only be known too late.
            job.fate = Fate::Replace;
        }
        let rest = Job {
            path: job.path.clone(),
            metadata: Arc::clone(&job.metadata),
            size: job.size,
            holes: Arc::clone(&job.holes),
            fate: job.fate,
            wanted: 0..0,
            first: false,
            last: true,
            left_over: job.left_over,
            state: Arc::<FileState>::clone(&job.state),
        };
        job.last = false;
        job.wanted.end = self.window.next_wanted();
        self.window.jobs.push(job);
        self.flush()?;
        Ok(rest)
    }

    /// Whether the entry is linked to one that was restored before; then the link is planned. `size` is that of a file.
    fn is_further_name(
        &mut self,
        content: &impl Serialize,
        size: Option<u64>,
        path: &RelativePath,
        metadata: &Metadata,
        present: bool,
        state: &Arc<FileState>,
    ) -> bool {
        match self.links.name(content, metadata, path, state) {
            Name::Only | Name::First => false,
            Name::Forgotten => {
                let why = "too many files with several names (hard links) for the memory given: \
                           restored as a file of its own";
                self.context.tally.fail(tally::METADATA, path.as_bytes(), why.to_owned());
                false
            }
            Name::Further(first, state) => {
                self.window.weigh(path, metadata);
                self.window.links.push(Link { first, path: path.clone(), replaces: present, size, state });
                true
            }
        }
    }

    /// Makes a symbolic link, device, pipe or socket.
    pub(super) fn other(&mut self, path: &RelativePath, kind: &NodeKind, metadata: &Metadata, present: bool) {
        let tally = &self.context.tally;
        add(&tally.counts.others, 1);
        let fate = match self.fate(path, None, metadata, present) {
            Ok(Fate::Leave) => return tally.entry(path.as_bytes(), EntryAction::Skipped),
            Ok(fate) => fate,
            Err(error) => return self.context.fail(path, &error),
        };
        let state = Arc::<FileState>::default();
        if self.is_further_name(kind, None, path, metadata, present, &state) {
            return;
        }
        if fate == Fate::Replace && self.is_there(path, kind, metadata) {
            if let Some(root) = self.context.writable() {
                let errors = self.context.metadata.apply_to_path(root, path, EntryKind::from(kind), metadata);
                self.context.metadata_applied(path, &errors);
            }
            return;
        }
        let Some(root) = self.context.writable() else { return };
        let obstacle = if fate == Fate::Create { Obstacle::Refuse } else { Obstacle::Replace };
        let mode = creation_mode(metadata);
        let node = |node| root.make_node(path, node, mode, obstacle);
        let made = match kind {
            NodeKind::Symlink { target } => root.symlink(path, target, obstacle),
            NodeKind::CharDevice { major, minor } => {
                node(SpecialNode::CharDevice { major: *major, minor: *minor })
            }
            NodeKind::BlockDevice { major, minor } => {
                node(SpecialNode::BlockDevice { major: *major, minor: *minor })
            }
            NodeKind::Fifo => node(SpecialNode::Fifo),
            NodeKind::Socket => node(SpecialNode::Socket),
            NodeKind::File(_) | NodeKind::Directory { .. } => Ok(()),
        };
        if let Err(error) = made {
            state.kill();
            return self.context.fail(path, &error);
        }
        // Its other names are linked later: it has one now, however many were recorded.
        let errors = self.context.metadata.apply_to_path(root, path, EntryKind::from(kind), metadata);
        if self.context.metadata_applied(path, &errors) {
            self.context.tally.entry(path.as_bytes(), EntryAction::Restored);
        }
    }

    /// Whether a link, device, pipe or socket is in place already, but for its metadata.
    fn is_there(&self, path: &RelativePath, kind: &NodeKind, metadata: &Metadata) -> bool {
        let Some(root) = self.context.readable() else { return false };
        let Ok(Some(found)) = root.stat(path) else { return false };
        let is_same = match kind {
            NodeKind::Symlink { target } => {
                root.read_link(path).is_ok_and(|text| text.as_deref() == Some(target.as_slice()))
            }
            NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
                found.special == (*major, *minor)
            }
            NodeKind::Fifo | NodeKind::Socket => true,
            NodeKind::File(_) | NodeKind::Directory { .. } => false,
        };
        // Others of its names may lie outside the target.
        is_same && found.kind == EntryKind::from(kind) && found.links <= metadata.links.unwrap_or(1)
    }
}

fn load_list(reader: &BlobReader, id: &BlobId) -> Result<ChunkList, (&'static str, String)> {
    let bytes = reader.read(BlobKind::Tree, id).map_err(|error| (tally::code_of(&error), explain(&error)))?;
    record::decode(&bytes).map_err(|error| (tally::DAMAGED, explain(&error)))
}
