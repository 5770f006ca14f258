//! Execution of a window: compare, locate, read and scatter, verify, link, and finish directories.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::broken;
use super::compare;
use super::context::Context;
use super::existing::Fate;
use super::files::{self, Files};
use super::finish;
use super::locate::{self, ReadPlan};
use super::parallel::in_parallel;
use super::scatter::{Scatter, Worker};
use super::tally::add;
use super::window::{Job, Missing, Window};
use crate::target::TargetRoot;

/// Files without chunks that a thread takes at a time.
const BATCH: usize = 64;

/// Executes windows one after the other, with the same threads' buffers.
pub(super) struct Executor<'a> {
    context: &'a Context<'a>,
    /// Twice as many as there are threads: see [`Executor::write`].
    workers: Vec<Worker>,
}

impl<'a> Executor<'a> {
    pub(super) fn new(context: &'a Context<'a>, threads: usize) -> Self {
        let workers = (0..threads.max(1) * 2).map(|_| Worker::default()).collect();
        Self { context, workers }
    }

    /// Executes one window. When cancelled, files in the making stay without their metadata.
    pub(super) fn window(&mut self, window: &Window) {
        let present = self.find_present(window);
        let plan = self.locate(window, &present);
        for unplaced in &plan.unplaced {
            let wanted = &window.wanted[unplaced.wanted as usize];
            let job = &window.jobs[wanted.job as usize];
            let (at, len) = (wanted.at, wanted.len.into());
            job.state.miss(Missing { at, len, code: unplaced.code, why: Arc::clone(&unplaced.why) });
        }
        match self.context.writable() {
            Some(root) => self.write(root, window, &plan),
            None => self.count_only(window, &plan),
        }
        self.context.tally.show_progress();
    }

    /// As many workers as there are threads.
    fn busy(&mut self) -> &mut [Worker] {
        let threads = self.workers.len() / 2;
        &mut self.workers[..threads]
    }

    /// Which chunks are in place in files that exist; empty if there are no such files.
    fn find_present(&mut self, window: &Window) -> Vec<AtomicBool> {
        let units = compare::units(window, |job| match job.fate {
            Fate::InPlace { size } | Fate::Resume { size } => size > 0 && !job.wanted.is_empty(),
            Fate::Shared => true,
            _ => false,
        });
        if units.is_empty() {
            return Vec::new();
        }
        let present: Vec<_> = window.wanted.iter().map(|_| AtomicBool::new(false)).collect();
        let context = self.context;
        in_parallel(self.busy(), units.len(), &|worker, unit| {
            if !context.tally.is_cancelled() {
                compare::find_present(context, window, &units[unit], &mut worker.buffer, &present);
            }
        });
        let shared: Vec<&Job> = window.jobs.iter().filter(|job| job.fate == Fate::Shared).collect();
        in_parallel(self.busy(), shared.len(), &|worker, at| {
            let job = shared[at];
            let is_present = present[job.wanted.start as usize..job.wanted.end as usize]
                .iter()
                .all(|chunk| chunk.load(Relaxed));
            let same = is_present && compare::holes_are_empty(context, job, &mut worker.buffer);
            job.state.same.store(same, Relaxed);
        });
        present
    }

    fn locate(&self, window: &Window, present: &[AtomicBool]) -> ReadPlan {
        let skip = |at: usize| {
            let job = &window.jobs[window.wanted[at].job as usize];
            match job.fate {
                Fate::Keep => true,
                Fate::Shared => job.state.same.load(Relaxed),
                _ => present.get(at).is_some_and(|present| present.load(Relaxed)),
            }
        };
        let index = self.context.reader().index();
        locate::plan(&window.wanted, &skip, &|id, len| locate::place(index, id, len), self.workers.len() / 2)
    }

    fn write(&mut self, root: &'a TargetRoot, window: &Window, plan: &ReadPlan) {
        let context = self.context;
        let files = Files::new(context, root, &window.jobs, &chunk_counts(window, plan));
        let scatter = Scatter { context, wanted: &window.wanted, plan, files: &files };
        let batches = window.jobs.len().div_ceil(BATCH);
        // Direct writes wait for the disk: others decode meanwhile.
        let waits = window.jobs.iter().any(files::is_large);
        let workers = self.workers.len() / if waits { 1 } else { 2 };
        in_parallel(&mut self.workers[..workers], plan.reads.len() + batches, &|worker, index| {
            if context.tally.is_cancelled() {
                return;
            }
            match plan.reads.get(index) {
                Some(read) => scatter.read(worker, read),
                None => {
                    let first = (index - plan.reads.len()) * BATCH;
                    for job in first..window.jobs.len().min(first + BATCH) {
                        files.without_chunks(u32::try_from(job).expect("windows have at most 65,536 files"));
                    }
                }
            }
        });
        drop(files);
        if context.tally.is_cancelled() {
            return;
        }
        if context.options.verify {
            self.verify(root, window);
        }
        finish::links(context, root, &window.links);
        finish::directories(context, root, self.busy(), &window.directories);
    }

    fn verify(&mut self, root: &TargetRoot, window: &Window) {
        let context = self.context;
        let units = compare::units(window, compare::is_verifiable);
        in_parallel(self.busy(), units.len(), &|worker, unit| {
            if !context.tally.is_cancelled() {
                compare::verify(context, window, &units[unit], &mut worker.buffer);
            }
        });
        for job in window.jobs.iter().filter(|job| job.last && job.state.differs.load(Relaxed)) {
            broken::set_aside(context, root, job, None);
        }
        let is_verified =
            |job: &&Job| job.last && compare::is_verifiable(job) && !job.state.differs.load(Relaxed);
        if !context.tally.is_cancelled() {
            add(&context.tally.counts.verified, window.jobs.iter().filter(is_verified).count() as u64);
        }
    }

    /// Counts what would be written, and reports what is known to be missing.
    fn count_only(&self, window: &Window, plan: &ReadPlan) {
        let tally = &self.context.tally;
        let counts = chunk_counts(window, plan);
        let bytes = plan.items.iter().map(|item| u64::from(window.wanted[item.wanted as usize].len));
        add(&tally.counts.bytes_written, bytes.sum());
        for (job, chunks) in window.jobs.iter().zip(counts) {
            let is_equal = match job.fate {
                Fate::Keep | Fate::Leave => true,
                Fate::InPlace { size } => size == job.size,
                Fate::Shared => job.state.same.load(Relaxed),
                Fate::Create | Fate::Replace | Fate::Resume { .. } => false,
            };
            if chunks > 0 || !is_equal {
                job.state.changed.store(true, Relaxed);
            }
            for missing in job.state.take_missing() {
                job.state.fail(tally);
                let why = format!(
                    "bytes {} to {} are missing: {}",
                    missing.at,
                    missing.at + missing.len,
                    missing.why
                );
                tally.problem(missing.code, job.path.as_bytes(), why);
            }
            if job.last {
                let counter = match job.state.changed.load(Relaxed) {
                    _ if job.state.is_broken() => &tally.counts.files_incomplete,
                    true => &tally.counts.files_written,
                    false => &tally.counts.files_unchanged,
                };
                add(counter, 1);
                tally.advance(1, job.size);
            }
        }
        finish::count_links(self.context, &window.links);
    }
}

/// Chunks to be written to each job.
fn chunk_counts(window: &Window, plan: &ReadPlan) -> Vec<u32> {
    let mut counts = vec![0; window.jobs.len()];
    for item in &plan.items {
        counts[window.wanted[item.wanted as usize].job as usize] += 1;
    }
    counts
}
