//! The pipeline between the reading thread and the workers: bounded by a fixed set of buffers.

use std::sync::{Arc, Barrier};

use crossbeam_channel::{Receiver, Sender};

use crate::backup::assemble::Assembler;
use crate::backup::measure::Measured;
use crate::backup::options::BackupError;
use crate::backup::session::{BLOBS_PER_SEGMENT, Session};
use crate::backup::workers::{Answer, Batch, Job};
use crate::format::snapshot::SnapshotSummary;
use crate::monitor::{Monitor, Problem, Progress};

/// Capacity of a buffer: room for the longest chunk twice over.
const BUFFER_LEN: usize = 4 << 20;
/// Small files are collected up to this many bytes, so that all workers get some.
const SMALL_BATCH_LEN: usize = 1 << 20;

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
    outstanding: usize,
}

impl<'p, 's> Pipeline<'p, 's> {
    #[allow(clippy::too_many_arguments, reason = "wiring, called once")]
    pub fn new(
        session: &'p Session<'s>,
        assembler: &'p mut Assembler,
        monitor: &'p dyn Monitor,
        summary: &'p mut SnapshotSummary,
        jobs: &'p Sender<Job>,
        answers: &'p Receiver<Answer>,
        workers: usize,
        free: Vec<Batch>,
    ) -> Self {
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
            free,
            batch: Batch::default(),
            outstanding: 0,
        }
    }

    /// Buffers for a pipeline with so many workers: one each to work on and one to wait, and two to read into.
    pub fn buffers(workers: usize) -> Vec<Batch> {
        (0..2 * workers + 2).map(|_| Batch::default()).collect()
    }

    /// Counts bytes read.
    pub fn progress(&mut self, bytes: u64) {
        self.summary.bytes += bytes;
        self.report();
    }

    /// Tells the monitor how far we are.
    pub fn report(&self) {
        let totals = self.expected.or_else(|| self.measured.totals());
        self.monitor.progress(&Progress {
            items: self.summary.files,
            items_total: totals.map(|(files, _)| files),
            bytes: self.summary.bytes,
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

    /// The open batch with room for `len` more bytes of small files.
    pub fn batch_with_room(&mut self, len: usize) -> Result<&mut Batch, BackupError> {
        if !self.batch.bytes.is_empty() && self.batch.bytes.len() + len > SMALL_BATCH_LEN {
            self.send_batch()?;
        }
        self.open_batch()?;
        Ok(&mut self.batch)
    }

    /// An open batch that holds nothing but what the last one of a stream could not decide.
    pub fn empty_batch(&mut self) -> Result<&mut Batch, BackupError> {
        if !self.batch.parts.is_empty() {
            self.send_batch()?;
        }
        self.open_batch()?;
        Ok(&mut self.batch)
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

    fn wait(&mut self) -> Result<(), BackupError> {
        let answer = self.answers.recv().map_err(|_| BackupError::Worker)?;
        self.take(answer)
    }

    fn take(&mut self, answer: Answer) -> Result<(), BackupError> {
        self.outstanding -= 1;
        match answer {
            Answer::Batch(batch) => {
                self.assembler.accept(self.session, &batch)?;
                self.free.push(batch);
                Ok(())
            }
            Answer::Flushed => Ok(()),
            Answer::Failed(error) => Err(error.into()),
        }
    }

    /// Waits until all that was read is hashed, and all blocks are closed.
    pub fn drain(&mut self) -> Result<(), BackupError> {
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
        Ok(())
    }

    /// Commits what is stored if much has gathered: within one huge file there is no other occasion.
    pub fn relieve(&mut self) -> Result<(), BackupError> {
        if self.session.blobs_uncommitted() < BLOBS_PER_SEGMENT {
            return Ok(());
        }
        self.drain()?;
        self.session.commit_blobs(self.assembler.writer())
    }
}
