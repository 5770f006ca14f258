//! A recovery from its first step to its last. Each step can be done again: after a kill it goes on with the step it was at.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Zoned;
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::probe::NoAnswer;
use crate::drill::{Compared, Restored};
use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::recover::commands::wanted;
use crate::recover::disk::Disk;
use crate::recover::journal::{Journal, Step};
use crate::recover::preview::{Preview, Refusal};
use crate::recover::record::{Cause, RecoveryOutcome, RecoveryRecord, advice};
use crate::recover::steps::{kept, tidy};
use crate::run::lock::{Lock, Taken};
use crate::run::process::{Processes, without_output};
use crate::run::state::State;
use crate::run::vault::VaultError;

/// Why a recovery is on its way back that somebody wants back.
pub(super) const BY_HAND: &str = "it was rolled back";

/// What a path is in a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Files of it, and below it.
    pub files: u64,
    /// Their bytes that are not in holes.
    pub bytes: u64,
}

/// The repositories that recoveries restore from.
pub trait Source {
    /// All snapshots of a repository, in their order.
    ///
    /// # Errors
    /// [`VaultError`].
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError>;

    /// Makes sure that no later snapshot than this one may be lost from the repository, so that it can pass for the latest.
    ///
    /// # Errors
    /// [`VaultError`] where one may be.
    fn require_latest(&self, repo: &Name, snapshot: &SnapshotId) -> Result<(), VaultError>;

    /// What a path is in a snapshot; none if it is not in it.
    ///
    /// # Errors
    /// [`VaultError`] where a tree cannot be read.
    fn look(&self, repo: &Name, snapshot: &SnapshotId, path: &Path) -> Result<Option<Held>, VaultError>;

    /// The entries of a directory in a snapshot.
    ///
    /// # Errors
    /// [`VaultError`] where a tree cannot be read.
    fn entries(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        path: &Path,
    ) -> Result<Vec<(std::ffi::OsString, Held)>, VaultError>;

    /// Restores what is in a directory of a snapshot into another, with its metadata, or what is no directory under its name. It
    /// is on disk when this returns.
    ///
    /// # Errors
    /// [`VaultError`] where it cannot begin.
    fn stage(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        path: &Path,
        into: &Path,
    ) -> Result<Restored, VaultError>;

    /// Compares what was restored so with the snapshot, byte by byte.
    ///
    /// # Errors
    /// [`VaultError`] where it cannot begin.
    fn compare(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        path: &Path,
        into: &Path,
    ) -> Result<Compared, VaultError>;

    /// Puts the record of a recovery into the repository's log.
    ///
    /// # Errors
    /// [`VaultError`].
    fn note(&self, repo: &Name, record: &RecoveryRecord) -> Result<(), VaultError>;
}

/// Recovers domains of a plan.
pub struct Recoverer<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The host that snapshots say they are from.
    pub host: String,
    /// Starts commands.
    pub processes: Arc<dyn Processes>,
    /// The repositories.
    pub source: &'a dyn Source,
    /// What this host remembers.
    pub state: &'a State,
    /// The file system.
    pub disk: &'a dyn Disk,
    /// Asks an address for its status code.
    pub get: &'a dyn Fn(&str) -> Result<u16, NoAnswer>,
    /// Waits.
    pub pause: &'a dyn Fn(Duration),
    /// The time.
    pub now: &'a dyn Fn() -> Zoned,
    /// Time that never runs backwards.
    pub uptime: &'a dyn Fn() -> Duration,
    /// Whether to end.
    pub is_cancelled: &'a dyn Fn() -> bool,
    /// Is told which step of which domain begins.
    pub tell: &'a dyn Fn(&Name, Step),
}

/// Why a recovery does not go on.
#[derive(Debug)]
pub(super) struct Stop {
    pub cause: Cause,
    pub message: String,
}

#[expect(clippy::needless_pass_by_value, reason = "callers hand on what they have just made")]
impl Stop {
    pub fn failed(message: impl ToString) -> Self {
        Self { cause: Cause::Failed, message: message.to_string() }
    }

    pub fn damage(message: impl ToString) -> Self {
        Self { cause: Cause::Damage, message: message.to_string() }
    }

    pub fn cancelled() -> Self {
        Self::failed("it was cancelled")
    }
}

impl Recoverer<'_> {
    /// Takes domains for this process.
    ///
    /// # Errors
    /// [`Refusal`] where another one has one of them.
    pub(super) fn lock<'n>(&self, domains: impl Iterator<Item = &'n Name>) -> Result<Vec<Lock>, Refusal> {
        let since = (self.now)().timestamp();
        let lock = |domain: &Name| match self.state.take_soon(domain, since) {
            Ok(Taken::Mine(lock)) => Ok(lock),
            Ok(Taken::Held(holder)) => Err(Refusal::failed(
                "busy",
                format!("a run or recovery of the domain {domain} is at work{holder}"),
                "wait for its end, or end it".to_owned(),
            )),
            Err(error) => Err(self.unwritable(&error)),
        };
        domains.map(lock).collect()
    }

    pub(super) fn unwritable(&self, error: &io::Error) -> Refusal {
        let message =
            format!("the state directory {} cannot be used: {error}", self.state.folder().display());
        Refusal::failed("io", message, "without it, nothing could be put back".to_owned())
    }

    /// Makes sure that nothing of an earlier recovery of a domain is in the way.
    ///
    /// # Errors
    /// [`Refusal`] where it is.
    pub fn standing(&self, domain: &Name) -> Result<(), Refusal> {
        let journal = self.state.recovery(domain).map_err(|error| self.unwritable(&error))?;
        let own = journal.and_then(|journal| Some((advice(&journal)?, journal)));
        let Some((advice, journal)) = own.map_or_else(|| self.elsewhere(domain), |own| Ok(Some(own)))? else {
            return Ok(());
        };
        let code = if journal.is_unfinished() { "unfinished" } else { "kept" };
        Err(Refusal { code: code.into(), message: advice, hint: None })
    }

    /// Recovers domains as it was told that it would be done.
    ///
    /// # Errors
    /// [`Refusal`] where nothing was begun.
    pub fn recover(&self, id: &str, previews: &[Preview]) -> Result<Vec<RecoveryRecord>, Refusal> {
        if let Some(first) = previews.iter().flat_map(|preview| &preview.blockers).next() {
            return Err(first.clone());
        }
        let _locks = self.lock(previews.iter().map(|preview| &preview.domain))?;
        previews.iter().try_for_each(|preview| self.standing(&preview.domain))?;
        previews.iter().try_for_each(|preview| self.others(preview))?;
        let began = (self.now)().timestamp();
        let with: Vec<_> = previews.iter().map(|preview| preview.domain.clone()).collect();
        let mut journals = Vec::new();
        for (number, preview) in previews.iter().enumerate() {
            self.sweep(&preview.domain)?;
            journals.push(Journal::new(id, number, preview, self.processes.mark(), began, &with));
        }
        let noted = journals.iter().try_for_each(|journal| self.state.note_recovery(journal));
        if let Err(error) = noted {
            // Nothing was begun of any.
            journals.iter().try_for_each(|journal| self.state.forget_recovery(&journal.domain)).ok();
            return Err(self.unwritable(&error));
        }
        Ok(journals.into_iter().map(|journal| self.advance(journal)).collect())
    }

    /// Goes on with a recovery, or back where it cannot; records how it ended.
    pub(super) fn advance(&self, mut journal: Journal) -> RecoveryRecord {
        let rto = self.plan.domain(journal.domain.as_str());
        let rto = rto.and_then(|domain| self.plan.objectives(domain).rto).map(|rto| rto.as_secs());
        let mut record = RecoveryRecord::of(&journal, rto);
        match self.plan.domain(journal.domain.as_str()) {
            None => {
                record.outcome = RecoveryOutcome::Unfinished;
                record.reason = Some("the plan does not have the domain any more".into());
            }
            Some(domain) => self.go(domain, &mut journal, &mut record),
        }
        record.steps.clone_from(&journal.timed);
        (record.files, record.bytes) = (journal.files, journal.bytes);
        self.conclude(&mut record);
        record
    }

    fn go(&self, domain: &Domain, journal: &mut Journal, record: &mut RecoveryRecord) {
        if let Some(why) = journal.back.clone() {
            return self.go_back(domain, journal, record, &why);
        }
        if journal.step == Step::Waiting
            && let Some(before) = self.missing_before(domain, journal)
        {
            record.outcome = RecoveryOutcome::Skipped;
            record.reason = Some(format!("{before}, which it comes after, was not recovered"));
            if let Err(error) = self.state.forget_recovery(&domain.name) {
                record.warn(error);
            }
            return;
        }
        match self.forward(domain, journal, record) {
            Ok(()) => {
                record.left.clone_from(&journal.left);
                if !record.left.is_empty() {
                    record.outcome = RecoveryOutcome::Partial;
                }
                record.kept = kept(journal);
                let seconds: f64 = journal.timed.iter().map(|timed| timed.seconds).sum();
                if let Some(rto) = record.rto.filter(|rto| seconds > *rto as f64) {
                    record.warn(format!("it took {seconds:.1} s, and has to be done in {rto} s"));
                }
            }
            Err(stop) => {
                record.cause = Some(stop.cause);
                journal.back = Some(without_output(&stop.message));
                self.go_back(domain, journal, record, &stop.message);
            }
        }
    }

    fn go_back(&self, domain: &Domain, journal: &mut Journal, record: &mut RecoveryRecord, reason: &str) {
        let step = journal.step.name();
        (record.outcome, record.reason) = match self.back(domain, journal, record) {
            Ok(()) if reason == BY_HAND => (RecoveryOutcome::RolledBack, None),
            Ok(()) => (RecoveryOutcome::Failed, Some(format!("{step}: {reason}"))),
            Err(error) => (
                RecoveryOutcome::Unfinished,
                Some(format!(
                    "{step}: {}; and it cannot be put back as it was: {error}",
                    without_output(reason)
                )),
            ),
        };
    }

    /// A domain of the same recovery that comes before this one, and was not recovered.
    fn missing_before(&self, domain: &Domain, journal: &Journal) -> Option<Name> {
        let is_back = |before: &Name| {
            let found = self.state.recovery(before).ok().flatten();
            found.is_some_and(|found| {
                found.id == journal.id && found.step == Step::Done && found.back.is_none()
            })
        };
        domain.after.iter().find(|before| journal.with.contains(before) && !is_back(before)).cloned()
    }

    pub(super) fn conclude(&self, record: &mut RecoveryRecord) {
        // Nobody could take a secret out of them again.
        let kept = record.without_output();
        if let Err(error) = self.state.record_recovery(&kept) {
            record.warn(format!("the record cannot be written: {error}"));
        }
        if record.outcome != RecoveryOutcome::Skipped
            && let Err(error) = self.source.note(&record.repository, &kept)
        {
            record.warn(format!("the record cannot be written to the repository: {error}"));
        }
    }

    pub(super) fn note(&self, journal: &Journal) -> Result<(), String> {
        self.state.note_recovery(journal).map_err(|error| format!("the journal cannot be written: {error}"))
    }

    pub(super) fn save(&self, journal: &Journal) -> Result<(), Stop> {
        self.note(journal).map_err(Stop::failed)
    }

    fn forward(
        &self,
        domain: &Domain,
        journal: &mut Journal,
        record: &mut RecoveryRecord,
    ) -> Result<(), Stop> {
        const STEPS: [Step; 7] =
            [Step::Stage, Step::Verify, Step::Load, Step::Stop, Step::Swap, Step::Start, Step::Health];
        let from = journal.step;
        for step in STEPS.into_iter().filter(|step| *step >= from) {
            if (self.is_cancelled)() {
                return Err(Stop::cancelled());
            }
            journal.step = step;
            self.save(journal)?;
            (self.tell)(&domain.name, step);
            let began = (self.uptime)();
            let result = self.step(domain, journal, record, step);
            journal.took(step, (self.uptime)().saturating_sub(began).as_secs_f64());
            result?;
        }
        journal.step = Step::Done;
        journal.keeps = false;
        self.save(journal)?;
        if let Err(error) = tidy(self.disk, journal) {
            record.warn(error);
        }
        Ok(())
    }

    fn step(
        &self,
        domain: &Domain,
        journal: &mut Journal,
        record: &mut RecoveryRecord,
        step: Step,
    ) -> Result<(), Stop> {
        let id = journal.id.clone();
        let recover = wanted(domain);
        let failed = |what: &'static str| move |error: String| Stop::failed(format!("{what}: {error}"));
        match step {
            Step::Stage => self.stage(journal),
            Step::Verify => self.verify(journal),
            Step::Load => self.load(domain, journal),
            Step::Stop => self.commands(domain, &id, &recover.stop, true).map_err(failed("stopping")),
            Step::Swap => self.swap(domain, journal, record),
            Step::Start => self.commands(domain, &id, &recover.start, true).map_err(failed("starting")),
            Step::Health => self.health(domain, &id),
            Step::Waiting | Step::Done | Step::Undone | Step::Removing => Ok(()),
        }
    }
}
