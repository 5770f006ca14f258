//! Files being written: opened once, kept open while chunks come in, finished by whoever brings the last chunk.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::broken;
use super::context::Context;
use super::existing::Fate;
use super::tally::{self, add, explain};
use super::window::Job;
use crate::format::tree::Hole;
use crate::monitor::EntryAction;
use crate::target::{Obstacle, Output, RelativePath, TargetError, TargetRoot, creation_mode, holes};

/// Files of a window that are open at once.
const OPEN_MAX: usize = 256;

/// A file cannot be opened or written to.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("cannot write the file: {0}")]
    Write(io::Error),
    #[error("cannot set the length of the file to {size} bytes: {source}")]
    Length { size: u64, source: io::Error },
    #[error("cannot make a hole in the file: {0}")]
    Hole(io::Error),
    #[error("the file vanished or was replaced while it was being restored")]
    Vanished,
    #[error("it was given up before")]
    Dead,
}

/// The files of a window.
pub(super) struct Files<'a> {
    context: &'a Context<'a>,
    root: &'a TargetRoot,
    jobs: &'a [Job],
    slots: Vec<Slot>,
    /// Those with an open file, in the order they were opened.
    open: Mutex<VecDeque<u32>>,
}

struct Slot {
    /// Chunks that have not been dealt with.
    left: AtomicU32,
    /// Chunks of this window to be written.
    total: u32,
    file: Mutex<Handle>,
}

#[derive(Default)]
struct Handle {
    file: Option<Arc<Output>>,
    /// It has been opened before: now it exists and has its length.
    begun: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A handle is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Files<'a> {
    /// `counts` has the number of chunks to be written to each of `jobs`.
    pub(super) fn new(
        context: &'a Context<'a>,
        root: &'a TargetRoot,
        jobs: &'a [Job],
        counts: &[u32],
    ) -> Self {
        let slot = |total: &u32| Slot { left: AtomicU32::new(*total), total: *total, file: Mutex::default() };
        Self { context, root, jobs, slots: counts.iter().map(slot).collect(), open: Mutex::default() }
    }

    pub(super) fn job(&self, index: u32) -> &'a Job {
        &self.jobs[index as usize]
    }

    /// Whether `chunks` of them are all that the whole file needs.
    pub(super) fn is_all(&self, index: u32, chunks: usize) -> bool {
        let job = self.job(index);
        job.first && job.last && self.slots[index as usize].total as usize == chunks
    }

    /// The open file of a job that several reads write to.
    pub(super) fn shared(&self, index: u32) -> Result<Arc<Output>, FileError> {
        let job = self.job(index);
        let mut handle = lock(&self.slots[index as usize].file);
        if let Some(file) = &handle.file {
            return Ok(Arc::clone(file));
        }
        if job.state.is_dead() {
            return Err(FileError::Dead);
        }
        let begins = job.first && !handle.begun;
        // One that fails to begin is given up: nobody tries again.
        handle.begun = true;
        let file = Arc::new(if begins {
            self.begin(job, false)?
        } else {
            let file = self.again(job)?;
            if is_large(job) { Output::large(file) } else { Output::cached(file) }
        });
        handle.file = Some(Arc::clone(&file));
        drop(handle);
        self.keep(index);
        Ok(file)
    }

    /// Notes that a file is open, and closes the one opened longest ago if there are too many.
    fn keep(&self, index: u32) {
        let mut open = lock(&self.open);
        open.push_back(index);
        if open.len() <= OPEN_MAX {
            return;
        }
        if let Some(oldest) = open.pop_front() {
            drop(open);
            lock(&self.slots[oldest as usize].file).file = None;
        }
    }

    /// Opens or creates the file of a job for the first time and gives it its length and holes. One that is
    /// `whole` is never opened again and grows by writing.
    pub(super) fn begin(&self, job: &Job, whole: bool) -> Result<Output, FileError> {
        let file = match job.fate {
            Fate::InPlace { .. } => {
                let file = self.root.open_existing(job.place())?.ok_or(FileError::Vanished)?;
                return self.fit(job, file).map(Output::cached);
            }
            Fate::Resume { .. } => {
                let file = self
                    .root
                    .open_rest(job.place(), self.mode_of_incomplete())?
                    .ok_or(FileError::Vanished)?;
                return self.fit(job, file).map(Output::cached);
            }
            Fate::Create => {
                let mode = match (self.context.options.metadata.mode, whole) {
                    (false, _) => 0o666,
                    (true, true) => creation_mode(&job.metadata),
                    // It has to be opened again before its metadata is applied.
                    (true, false) => 0o600,
                };
                self.root.create_file(&job.path, mode, Obstacle::Refuse)?
            }
            Fate::Replace | Fate::Shared | Fate::Keep | Fate::Leave => {
                self.root.expect_no_directory(&job.path)?;
                let mode = self.mode_of_incomplete();
                let taken = |name: &RelativePath| self.context.snapshot_has(name);
                let (aside, file) = self.root.create_incomplete(&job.path, job.left_over, mode, &taken)?;
                job.state.set_aside(aside);
                file
            }
        };
        job.state.changed.store(true, Ordering::Relaxed);
        let is_large = is_large(job);
        if whole && job.holes.is_empty() && !is_large || job.size == 0 {
            return Ok(Output::cached(file));
        }
        let output = if is_large { Output::large(file) } else { Output::cached(file) };
        output.reserve(job.size).map_err(|source| FileError::Length { size: job.size, source })?;
        Ok(output)
    }

    /// Who may do what with a file that has no name of its own yet: nobody else, unless that is how it stays.
    fn mode_of_incomplete(&self) -> u32 {
        if self.context.options.metadata.mode { 0o600 } else { 0o666 }
    }

    /// Gives an existing file its length and holes.
    fn fit(&self, job: &Job, file: File) -> Result<File, FileError> {
        let length = file.metadata().map_err(FileError::Write)?.len();
        if length != job.size {
            set_len(&file, job.size)?;
            job.state.changed.store(true, Ordering::Relaxed);
        }
        for hole in job.holes.iter().filter(|hole| hole.offset < length) {
            // Beyond what was there are no blocks: zeros written to a new end might be very many.
            let hole = Hole { length: hole.length.min(length - hole.offset), ..*hole };
            holes::punch(&file, hole).map_err(FileError::Hole)?;
        }
        Ok(file)
    }

    /// Gives a job up and says why, once.
    pub(super) fn give_up(&self, job: &Job, error: &FileError) {
        if job.state.kill() {
            job.state.fail(&self.context.tally);
            self.context.tally.problem(tally::FAILED, job.path.as_bytes(), explain(error));
            broken::set_aside(self.context, self.root, job, None);
        }
    }

    /// Whether a file that is there is left as it is, because not all that it should become can be had.
    pub(super) fn is_left(&self, job: &Job) -> bool {
        matches!(job.fate, Fate::InPlace { .. })
            && job.state.incomplete.load(Ordering::Relaxed)
            && !job.state.changed.load(Ordering::Relaxed)
    }

    /// Counts `chunks` of a job as dealt with. With the last of them the job is finished, on `file` if the caller
    /// has it.
    pub(super) fn done(&self, index: u32, chunks: u32, file: Option<&File>) {
        let slot = &self.slots[index as usize];
        if slot.left.fetch_sub(chunks, Ordering::AcqRel) == chunks {
            self.finish(self.job(index), file);
            lock(&slot.file).file = None;
        }
    }

    /// Does what a job without chunks to write needs.
    pub(super) fn without_chunks(&self, index: u32) {
        let job = self.job(index);
        if self.slots[index as usize].total > 0 || job.state.is_dead() {
            return;
        }
        if job.fate == Fate::Keep || job.fate == Fate::Shared && job.state.same.load(Ordering::Relaxed) {
            return self.keep_content(job);
        }
        if self.is_left(job) {
            return self.finish(job, None);
        }
        if !job.first && !job.last && !job.state.incomplete.load(Ordering::Relaxed) {
            return;
        }
        match if job.first { self.begin(job, job.last) } else { self.again(job).map(Output::cached) } {
            Ok(output) => self.finish(job, Some(output.file())),
            Err(error) => self.give_up(job, &error),
        }
    }

    fn again(&self, job: &Job) -> Result<File, FileError> {
        self.root.open_existing(job.place())?.ok_or(FileError::Vanished)
    }

    /// Applies metadata to a file whose content is taken as equal.
    fn keep_content(&self, job: &Job) {
        if !job.last {
            return;
        }
        let kind = crate::target::EntryKind::File;
        let errors = self.context.metadata.apply_to_path(self.root, &job.path, kind, &job.metadata);
        if !errors.is_empty() {
            job.state.fail(&self.context.tally);
            self.context.tell_metadata(&job.path, &errors);
        }
        self.remove_left_over(job);
        add(&self.context.tally.counts.files_unchanged, 1);
        self.context.tally.advance(1, job.size);
        self.context.tally.entry(job.path.as_bytes(), EntryAction::Skipped);
    }

    /// Ends a job: tells what is missing, and with the end of the file applies its metadata.
    fn finish(&self, job: &Job, file: Option<&File>) {
        if job.state.is_dead() {
            return;
        }
        if self.is_left(job) {
            self.tell_missing(job);
            if job.last {
                broken::set_aside(self.context, self.root, job, None);
            }
            return;
        }
        let reopened;
        let file = match file {
            Some(file) => file,
            None => match self.again(job) {
                Ok(file) => {
                    reopened = file;
                    &reopened
                }
                Err(error) => return self.give_up(job, &error),
            },
        };
        if job.state.incomplete.load(Ordering::Relaxed) {
            self.tell_missing(job);
            if let Err(error) = set_len(file, job.size) {
                return self.give_up(job, &error);
            }
        }
        match job.last {
            false => {}
            true if job.state.is_broken() => broken::set_aside(self.context, self.root, job, Some(file)),
            true => self.complete(job, file),
        }
    }

    /// Tells of each range that is missing.
    fn tell_missing(&self, job: &Job) {
        for missing in job.state.take_missing() {
            job.state.fail(&self.context.tally);
            let end = missing.at + missing.len;
            let why = format!("bytes {} to {end} of {} are missing: {}", missing.at, job.size, missing.why);
            self.context.tally.problem(missing.code, job.path.as_bytes(), why);
        }
    }

    /// Ends a file that is whole: it gets its name, if it does not have it, and its metadata.
    fn complete(&self, job: &Job, file: &File) {
        let context = self.context;
        if let Some(aside) = job.state.aside() {
            let resumes = matches!(job.fate, Fate::Resume { .. });
            let obstacle = if resumes { Obstacle::Refuse } else { Obstacle::Replace };
            if let Err(error) = self.root.put_in_place(aside, file, &job.path, obstacle) {
                return self.give_up(job, &error.into());
            }
            job.state.put_in_place();
            job.state.changed.store(true, Ordering::Relaxed);
        }
        let errors = context.metadata.apply_to_file(file, &job.metadata);
        if !errors.is_empty() {
            job.state.fail(&context.tally);
            context.tell_metadata(&job.path, &errors);
        }
        self.remove_left_over(job);
        let changed = job.state.changed.load(Ordering::Relaxed);
        let counts = &context.tally.counts;
        add(if changed { &counts.files_written } else { &counts.files_unchanged }, 1);
        context.tally.advance(1, job.holes.iter().map(|hole| hole.length).sum());
        let action = if changed { EntryAction::Restored } else { EntryAction::Skipped };
        context.tally.entry(job.path.as_bytes(), action);
    }

    /// Removes what earlier restores left of a file that is whole now.
    fn remove_left_over(&self, job: &Job) {
        if job.left_over
            && let Err(error) =
                self.root.remove_left_over(&job.path, &|name| self.context.snapshot_may_have(name))
        {
            job.state.fail(&self.context.tally);
            self.context.tally.problem(tally::DELETE, job.path.as_bytes(), explain(&error));
        }
    }
}

/// Whether the file is new, long, and takes all of its space.
pub(super) fn is_large(job: &Job) -> bool {
    job.size >= Output::LARGE
        && job.holes.is_empty()
        && !matches!(job.fate, Fate::InPlace { .. } | Fate::Resume { .. })
}

fn set_len(file: &File, size: u64) -> Result<(), FileError> {
    holes::prepare(file, size).map_err(|source| FileError::Length { size, source })
}
