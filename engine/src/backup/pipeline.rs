//! The pipeline between the reading thread and the workers: bounded by a fixed set of buffers.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Barrier};

use crossbeam_channel::{Receiver, Sender};

use crate::backup::assemble::{Assembler, FrameId};
use crate::backup::links::{LinkKey, Links};
use crate::backup::measure::Measured;
use crate::backup::options::BackupError;
use crate::backup::session::Session;
use crate::backup::small::{FileBatch, FileJob, FileOutcome};
use crate::backup::workers::{Answer, Batch, Job};
use crate::backup::{roots, scan};
use crate::budget::{self, BUFFER_LEN};
use crate::chunk::grain::CHUNK_LEN_MAX;
use crate::format::snapshot::SnapshotSummary;
use crate::format::tree::{Node, NodeKind};
use crate::monitor::{EntryAction, Monitor, Problem, Progress};
use crate::repo::RepositoryError;

/// A buffer has room for the longest chunk twice over.
const _: () = assert!(BUFFER_LEN >= 2 * CHUNK_LEN_MAX);
/// Small files go to a worker when they have this many bytes, or are this many: so that all workers get some.
const FILES_LEN: u64 = 1 << 20;
const FILES_MAX: usize = 256;
/// Entries of a directory that may wait for one before them, in such batches for each worker: more than are read at a time.
const WAITING_BATCHES: usize = 4;
/// Directories that small files on their way may hold open, in all.
const FILES_DIRS_MAX: usize = 256;

/// The reading thread's end of the pipeline.
pub(super) struct Pipeline<'p, 's> {
    pub session: &'p Session<'s>,
    pub assembler: &'p mut Assembler,
    pub monitor: &'p dyn Monitor,
    pub summary: &'p mut SnapshotSummary,
    /// Files and bytes expected, from the parent snapshot.
    pub expected: Option<(u64, u64)>,
    /// The same, counted meanwhile where there is no parent.
    pub measured: Arc<Measured>,
    jobs: &'p Sender<Job>,
    answers: &'p Receiver<Answer>,
    workers: usize,
    free: Vec<Batch>,
    batch: Batch,
    free_files: Vec<FileBatch>,
    files: FileBatch,
    /// Bytes read of a large file or stream that is not complete: what becomes of it is not known yet.
    reading: u64,
    /// Files whose reading was begun.
    pub begun: u64,
    pub links: Links,
    /// Files that turned out to be nothing for a worker, or waited for another of their names.
    pub deferred: Vec<FileJob>,
    outstanding: usize,
}

impl<'p, 's> Pipeline<'p, 's> {
    pub fn new(
        session: &'p Session<'s>,
        assembler: &'p mut Assembler,
        monitor: &'p dyn Monitor,
        summary: &'p mut SnapshotSummary,
        jobs: &'p Sender<Job>,
        answers: &'p Receiver<Answer>,
        shares: &budget::Pipeline,
    ) -> Self {
        let workers = shares.workers;
        Self {
            session,
            assembler,
            monitor,
            summary,
            expected: None,
            measured: Arc::default(),
            jobs,
            answers,
            workers,
            free: (0..shares.buffers).map(|_| Batch::default()).collect(),
            batch: Batch::default(),
            free_files: (0..2 * workers + 1).map(|_| FileBatch::default()).collect(),
            files: FileBatch::default(),
            reading: 0,
            begun: 0,
            links: Links::default(),
            deferred: Vec::new(),
            outstanding: 0,
        }
    }

    /// Counts bytes of complete files.
    pub fn progress(&mut self, bytes: u64) {
        self.summary.bytes = self.summary.bytes.saturating_add(bytes);
        self.report();
    }

    /// Shows bytes read of a large file or stream, which count when it is complete.
    pub fn read_on(&mut self, bytes: u64) {
        self.reading += bytes;
        self.report();
    }

    /// Ends or gives up what was being read, of which so many bytes count.
    pub fn end_reading(&mut self, bytes: u64) {
        self.reading = 0;
        self.summary.bytes = self.summary.bytes.saturating_add(bytes);
    }

    /// Tells the monitor how far we are.
    pub fn report(&self) {
        let totals = self.expected.or_else(|| self.measured.totals());
        self.monitor.progress(&Progress {
            items: self.summary.files,
            items_total: totals.map(|(files, _)| files),
            bytes: self.summary.bytes.saturating_add(self.reading),
            bytes_total: totals.map(|(_, bytes)| bytes),
            problems: self.summary.errors + self.summary.unstable,
        });
    }

    /// Reports a problem and counts it if it makes the snapshot worse.
    pub fn problem(&mut self, code: &'static str, path: &[u8], message: String, is_error: bool) {
        if is_error {
            self.summary.errors += 1;
        }
        self.monitor.problem(&Problem { code, path: Some(path.to_vec()), message, is_error });
    }

    /// Reports an entry that cannot be had.
    pub fn failed(&mut self, path: &Path, error: &io::Error) {
        self.problem(scan::failure_code(error), path.as_os_str().as_bytes(), scan::failure(error), true);
    }

    /// Reports a file that became something else.
    pub fn not_a_file(&mut self, path: &Path) {
        let message = "it was a file a moment ago and is something else now".to_owned();
        self.problem("vanished", path.as_os_str().as_bytes(), message, true);
    }

    /// Reports entries that the assembler left out.
    fn report_refused(&mut self) {
        for (path, error) in std::mem::take(&mut self.assembler.refused) {
            let message = format!("not backed up: what was read of it contradicts itself: {error}");
            self.problem("inconsistent", path.as_os_str().as_bytes(), message, true);
        }
    }

    /// Tells what was done with an entry to those who want to know.
    pub fn note(&self, path: &Path, action: EntryAction) {
        if self.monitor.wants_entries() {
            self.monitor.entry(path.as_os_str().as_bytes(), action);
        }
    }

    /// Counts a file that was read.
    pub fn count_file(&mut self, path: &Path, changed: bool, unstable: bool) {
        self.summary.files += 1;
        if changed {
            self.summary.files_changed += 1;
            self.note(path, EntryAction::Changed);
        } else {
            self.summary.files_new += 1;
            self.note(path, EntryAction::New);
        }
        if unstable {
            self.summary.unstable += 1;
            let message = "changed while it was read: the copy may mix old and new content".to_owned();
            self.problem("unstable", path.as_os_str().as_bytes(), message, false);
        }
    }

    /// Hands a small file to the workers, together with others.
    pub fn push_file(&mut self, job: FileJob, size: u64) -> Result<(), BackupError> {
        self.begun += 1;
        self.files.push(job, size);
        let dirs_max = FILES_DIRS_MAX / (2 * self.workers + 2);
        let is_full = self.files.bytes >= FILES_LEN
            || self.files.jobs.len() >= FILES_MAX
            || self.files.dirs >= dirs_max.max(1);
        if is_full { self.send_files() } else { Ok(()) }
    }

    fn send_files(&mut self) -> Result<(), BackupError> {
        if self.files.jobs.is_empty() {
            return Ok(());
        }
        while let Ok(answer) = self.answers.try_recv() {
            self.take(answer)?;
        }
        while self.free_files.is_empty() {
            self.wait()?;
        }
        let next = self.free_files.pop().expect("looked just now");
        let batch = std::mem::replace(&mut self.files, next);
        self.outstanding += 1;
        self.jobs.send(Job::Files(batch)).map_err(|_| BackupError::Worker)
    }

    /// Takes over what became of small files.
    fn take_files(&mut self, mut batch: FileBatch) -> Result<(), BackupError> {
        let FileBatch { jobs, outcomes, .. } = &mut batch;
        for (job, outcome) in jobs.drain(..).zip(outcomes.drain(..)) {
            let (frame, slot, link) = (job.frame, job.slot, job.link);
            let node = match outcome {
                FileOutcome::Stored { node, size, unstable, problems } => {
                    let path = || roots::join(&job.dir.path, &node.name);
                    if unstable || !problems.is_empty() || self.monitor.wants_entries() {
                        self.metadata_problems(&path(), problems);
                        self.count_file(&path(), job.before.is_file(), unstable);
                    } else {
                        self.count_file(Path::new(""), job.before.is_file(), false);
                    }
                    self.summary.bytes = self.summary.bytes.saturating_add(size);
                    Some(node)
                }
                FileOutcome::Failed(error) => {
                    self.failed(&roots::join(&job.dir.path, &job.name), &error);
                    None
                }
                FileOutcome::NotFile => {
                    self.not_a_file(&roots::join(&job.dir.path, &job.name));
                    None
                }
                FileOutcome::Large => {
                    self.deferred.push(job);
                    continue;
                }
            };
            self.settle_link(link, node.as_deref());
            self.assembler.complete(self.session, frame, slot, node)?;
        }
        batch.clear();
        self.free_files.push(batch);
        self.report();
        Ok(())
    }

    /// Says what became of a file with other names. One that changed while it was read is nothing for them.
    pub fn settle_link(&mut self, link: Option<LinkKey>, node: Option<&Node>) {
        let Some(link) = link else { return };
        let is_stable = |node: &&Node| !matches!(&node.kind, NodeKind::File(content) if content.unstable);
        self.deferred.append(&mut self.links.settle(link, node.filter(is_stable)));
    }

    /// Does the same for the files that the assembler has completed.
    pub fn settle_links(&mut self) {
        for (link, node) in std::mem::take(&mut self.assembler.linked) {
            self.settle_link(Some(link), Some(&node));
        }
    }

    /// Reports parts of an entry's metadata that cannot be read.
    pub fn metadata_problems(&mut self, path: &Path, problems: Vec<String>) {
        for message in problems {
            self.problem("metadata-unreadable", path.as_os_str().as_bytes(), message, true);
        }
    }

    /// An open batch that holds nothing but what the last one of a stream could not decide.
    pub fn empty_batch(&mut self) -> Result<&mut Batch, BackupError> {
        if !self.batch.parts.is_empty() {
            self.send_batch()?;
        }
        self.open_batch()?;
        Ok(&mut self.batch)
    }

    /// Empties the open batch: its stream was given up.
    pub fn discard_open(&mut self) {
        self.batch.clear();
    }

    fn open_batch(&mut self) -> Result<(), BackupError> {
        if self.batch.bytes.capacity() == 0 {
            self.batch = self.free_batch()?;
        }
        Ok(())
    }

    /// A buffer nobody uses; waits for the workers if need be.
    fn free_batch(&mut self) -> Result<Batch, BackupError> {
        while let Ok(answer) = self.answers.try_recv() {
            self.take(answer)?;
        }
        while self.free.is_empty() {
            self.wait()?;
        }
        let mut batch = self.free.pop().expect("looked just now");
        batch.clear();
        if batch.bytes.capacity() < BUFFER_LEN {
            batch.bytes = Vec::with_capacity(BUFFER_LEN);
        }
        Ok(batch)
    }

    /// Sends the open batch, all of which is cut.
    pub fn send_batch(&mut self) -> Result<(), BackupError> {
        let len = self.batch.bytes.len();
        self.send_keeping(len)
    }

    /// Sends the first `used` bytes of the open batch and keeps the rest for the next one.
    pub fn send_keeping(&mut self, used: usize) -> Result<(), BackupError> {
        if used == 0 && self.batch.parts.is_empty() {
            return Ok(());
        }
        let mut next = Batch::default();
        if used < self.batch.bytes.len() {
            next = self.free_batch()?;
            next.bytes.extend_from_slice(&self.batch.bytes[used..]);
            self.batch.bytes.truncate(used);
        }
        let batch = std::mem::replace(&mut self.batch, next);
        self.outstanding += 1;
        self.jobs.send(Job::Batch(batch)).map_err(|_| BackupError::Worker)
    }

    /// Whether so many entries of a directory wait for one before them that nothing should be begun.
    pub fn is_far_ahead(&mut self, frame: FrameId) -> bool {
        self.assembler.waiting(frame) > WAITING_BATCHES * FILES_MAX * (self.workers + 1)
    }

    /// Waits for something that is on its way; false if nothing is.
    pub fn advance(&mut self) -> Result<bool, BackupError> {
        self.send_files()?;
        if !self.batch.parts.is_empty() {
            self.send_batch()?;
        }
        if self.outstanding == 0 {
            return Ok(false);
        }
        self.wait()?;
        Ok(true)
    }

    fn wait(&mut self) -> Result<(), BackupError> {
        let answer = self.answers.recv().map_err(|_| BackupError::Worker)?;
        self.take(answer)
    }

    fn take(&mut self, answer: Answer) -> Result<(), BackupError> {
        self.outstanding -= 1;
        match answer {
            Answer::Batch(batch) => {
                self.assembler.accept(self.session, &batch)?;
                self.settle_links();
                self.free.push(batch);
            }
            Answer::Files(batch) => self.take_files(batch)?,
            Answer::Flushed => {}
            Answer::Failed(error) => return Err(error.into()),
        }
        self.report_refused();
        Ok(())
    }

    /// Waits until all that was read is hashed, and all blocks are closed. Files may be deferred meanwhile.
    pub fn drain(&mut self) -> Result<(), BackupError> {
        self.send_files()?;
        if !self.batch.parts.is_empty() {
            self.send_batch()?;
        }
        while self.outstanding > 0 {
            self.wait()?;
        }
        let barrier = Arc::new(Barrier::new(self.workers));
        for _ in 0..self.workers {
            self.outstanding += 1;
            self.jobs.send(Job::Flush(Arc::clone(&barrier))).map_err(|_| BackupError::Worker)?;
        }
        while self.outstanding > 0 {
            self.wait()?;
        }
        self.report_refused();
        Ok(())
    }

    /// Says in the log that the run is at work, if that is due.
    pub fn give_sign(&mut self) -> Result<(), BackupError> {
        if !self.session.is_sign_due() {
            return Ok(());
        }
        self.drain()?;
        let given = self.session.give_sign();
        if matches!(given, Err(RepositoryError::Conflict)) {
            // What was stored is kept: the next try finds it there.
            self.session.commit_blobs(self.assembler.writer())?;
        }
        Ok(given?)
    }

    /// Commits what is stored if much has gathered: within one huge file there is no other occasion.
    pub fn relieve(&mut self) -> Result<(), BackupError> {
        if !self.session.is_commit_due() {
            return Ok(());
        }
        self.drain()?;
        self.session.commit_blobs(self.assembler.writer())
    }
}
