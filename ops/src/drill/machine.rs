//! A drill from its first phase to its last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Zoned;
use strongroom::ids::SnapshotId;

use crate::drill::choose;
use crate::drill::place::{Journal, Place, end_processes};
use crate::drill::probe::NoAnswer;
use crate::drill::record::{DrillOutcome, DrillRecord, Phase, Restoration, Timed};
use crate::drill::source::{Compared, Part, Problem, Source};
use crate::drill::steps::Services;
use crate::plan::Plan;
use crate::plan::effective::CLEANUP_TIMEOUT;
use crate::plan::types::{Drill, Tier};
use crate::plan::values::Name;
use crate::run::process::{Order, Processes, without_output};
use crate::run::stream::timeout;
use crate::run::vault::VaultError;
use crate::words::{count, verb};

/// Files that a sample has of each domain, at most.
const SAMPLE_FILES: usize = 32;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Damage a restored byte: the drill has to fail.
    pub self_test: bool,
    /// From this repository, whatever the plan says.
    pub from: Option<String>,
}

/// Rehearses restores of a plan.
pub struct Driller<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The host that snapshots say they are from.
    pub host: String,
    /// Starts commands.
    pub processes: Arc<dyn Processes>,
    /// Starts commands that are ended when the flag is set.
    pub services: &'a dyn Fn(Arc<AtomicBool>) -> Arc<dyn Processes>,
    /// The repositories.
    pub source: &'a dyn Source,
    /// What this host remembers.
    pub place: &'a Place,
    /// All drills that are known of by now, wherever they were run.
    pub records: &'a dyn Fn() -> std::io::Result<Vec<DrillRecord>>,
    /// Asks an address for its status code.
    pub get: &'a dyn Fn(&str) -> Result<u16, NoAnswer>,
    /// A port that nobody listens on.
    pub free_port: &'a dyn Fn() -> std::io::Result<u16>,
    /// Waits.
    pub pause: &'a dyn Fn(Duration),
    /// The time.
    pub now: &'a dyn Fn() -> Zoned,
    /// Time that never runs backwards.
    pub uptime: &'a dyn Fn() -> Duration,
    /// A number below another, which is not 0.
    pub random: &'a dyn Fn(u64) -> u64,
    /// Whether to end.
    pub is_cancelled: &'a dyn Fn() -> bool,
}

/// Why a drill ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// What was looked at is not as it has to be.
    Fail(String),
    /// It could not be looked at.
    Unverified(String),
}

impl From<VaultError> for Stop {
    fn from(error: VaultError) -> Self {
        match error.is_damage() {
            true => Self::Fail(error.message),
            false => Self::Unverified(error.message),
        }
    }
}

/// What a drill at work knows.
pub(super) struct Work<'d> {
    pub drill: &'d Drill,
    pub repo: &'d Name,
    pub scratch: PathBuf,
    pub journal: Journal,
    pub services: Services,
    phases: Vec<(Phase, Duration)>,
    pub restored: Vec<Restoration>,
}

impl Work<'_> {
    /// Where a domain is restored.
    pub fn folder(&self, domain: &Name) -> PathBuf {
        self.scratch.join(domain.as_str())
    }

    /// The snapshot that was restored of a domain.
    fn snapshot(&self, domain: &Name) -> Option<SnapshotId> {
        self.restored.iter().find(|one| one.domain == *domain).map(|one| one.snapshot)
    }
}

impl Driller<'_> {
    /// Does part of a phase, and adds the time it takes to the phase's.
    pub(super) fn timed<'d, T>(
        &self,
        work: &mut Work<'d>,
        phase: Phase,
        part: impl FnOnce(&Self, &mut Work<'d>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        if (self.is_cancelled)() && phase != Phase::Cleanup {
            return Err(Stop::Unverified("it was cancelled".into()));
        }
        let began = (self.uptime)();
        let result = part(self, work);
        let took = (self.uptime)().saturating_sub(began);
        match work.phases.iter_mut().find(|(other, _)| *other == phase) {
            Some((_, sum)) => *sum += took,
            None => work.phases.push((phase, took)),
        }
        result
    }

    /// Runs a drill and records how it ended. What a killed one left is cleaned up first, and recorded. None where another run of it
    /// is at work, which records itself.
    pub fn run(&self, drill: &Drill, wish: &Wish) -> Option<DrillRecord> {
        let mut record = DrillRecord {
            drill: drill.name.clone(),
            tier: drill.tier,
            repository: None,
            began: (self.now)().timestamp(),
            outcome: DrillOutcome::Unverified,
            reason: None,
            self_test: wish.self_test,
            restored: Vec::new(),
            phases: Vec::new(),
            rto: self.rto(drill),
        };
        let lock = match self.place.lock(&drill.name) {
            Ok(lock) => lock?,
            Err(error) => {
                record.reason = Some(format!("it cannot be locked: {error}"));
                return Some(record);
            }
        };
        let result = self.sweep(drill).and_then(|()| self.refuse_mistakes(drill));
        let result = result.and_then(|()| self.refuse_to_load_over(drill));
        let result = result.and_then(|()| self.prepare(drill, wish, &mut record));
        let result = result.and_then(|journal| self.work(drill, wish, journal, &mut record));
        (record.outcome, record.reason) = match result {
            Ok(()) => (DrillOutcome::Pass, None),
            Err(Stop::Fail(reason)) => (DrillOutcome::Fail, Some(reason)),
            Err(Stop::Unverified(reason)) => (DrillOutcome::Unverified, Some(reason)),
        };
        self.conclude(&mut record);
        drop(lock);
        Some(record)
    }

    /// Writes down how a drill ended, without what commands said: the log of a repository keeps it for ever.
    fn conclude(&self, record: &mut DrillRecord) {
        let noted = match &record.repository {
            Some(repo) => self.source.note(repo, &record.without_output()).map_err(|error| error.message),
            None => Ok(()),
        };
        if let Err(error) = noted {
            record.went_unrecorded(&format!("the record cannot be written to the repository: {error}"));
        }
        if let Err(error) = self.place.record(&record.without_output()) {
            record.went_unrecorded(&format!("the record cannot be written: {error}"));
        }
    }

    /// The shortest time within which one of its domains has to be back.
    fn rto(&self, drill: &Drill) -> Option<u64> {
        let domains = drill.domains.iter().filter_map(|name| self.plan.domain(name.as_str()));
        domains.filter_map(|domain| self.plan.objectives(domain).rto).map(|rto| rto.as_secs()).min()
    }

    fn sweep(&self, drill: &Drill) -> Result<(), Stop> {
        let unswept =
            |error| Stop::Unverified(format!("what a killed drill left cannot be cleaned up: {error}"));
        let Some(journal) = self.place.journal(&drill.name).map_err(unswept)? else { return Ok(()) };
        self.clean_up(&drill.name, &journal).map_err(|reason| {
            Stop::Unverified(format!("what a killed drill left cannot be cleaned up: {reason}"))
        })?;
        // One that came to its end and could not clean up has recorded itself.
        let has_ended = |record: &DrillRecord| record.drill == drill.name && record.began == journal.began;
        if self.place.records().map_err(unswept)?.iter().any(has_ended) {
            return Ok(());
        }
        let mut killed = DrillRecord {
            drill: drill.name.clone(),
            tier: journal.tier,
            repository: Some(journal.repository),
            began: journal.began,
            outcome: DrillOutcome::Unverified,
            reason: Some("it was killed".into()),
            self_test: false,
            restored: Vec::new(),
            phases: Vec::new(),
            rto: self.rto(drill),
        };
        self.conclude(&mut killed);
        Ok(())
    }

    /// Ends what is left of a drill's processes, runs the commands that remove what its steps have left elsewhere, and removes its scratch
    /// directory. Where any of it fails, the journal stays, and the next run of the drill does it again.
    fn clean_up(&self, name: &Name, journal: &Journal) -> Result<(), String> {
        end_processes(&journal.token);
        let mut failed = Vec::new();
        for argv in &journal.cleanup {
            // Somebody who does not want to wait any more wants it cleaned up all the same.
            let limit = timeout(None, CLEANUP_TIMEOUT);
            let order = Order { argv, env: &journal.env, timeout: limit, heeds_cancel: false };
            if let Err(error) = self.processes.run(&order) {
                failed.push(error.to_string());
            }
        }
        if let Some(error) = failed.first() {
            // What was restored stays nowhere that it need not.
            let _ = self.place.remove_scratch(journal);
            return Err(format!(
                "what its steps have left cannot be removed, and is tried again by the next run: {error}"
            ));
        }
        let cleared = self.place.clear(name, journal);
        cleared.map_err(|error| format!("the scratch directory cannot be removed: {error}"))
    }

    fn prepare(&self, drill: &Drill, wish: &Wish, record: &mut DrillRecord) -> Result<Journal, Stop> {
        let unknown = |error| Stop::Unverified(format!("how drills ended cannot be read: {error}"));
        let records = (self.records)().map_err(unknown)?;
        let repo =
            choose::repository(self.plan, drill, wish.from.as_deref(), &records).map_err(Stop::Unverified)?;
        record.repository = Some(repo.clone());
        let journal = Journal {
            began: record.began,
            tier: drill.tier,
            repository: repo.clone(),
            scratch: self.place.scratch(drill),
            token: format!("{}-{}-{}", drill.name, std::process::id(), (self.random)(u64::MAX)),
            cleanup: Vec::new(),
            env: Vec::new(),
        };
        self.place
            .begin(&drill.name, &journal)
            .map_err(|error| Stop::Unverified(format!("the scratch directory cannot be made: {error}")))?;
        Ok(journal)
    }

    fn work(
        &self,
        drill: &Drill,
        wish: &Wish,
        journal: Journal,
        record: &mut DrillRecord,
    ) -> Result<(), Stop> {
        let repo = journal.repository.clone();
        let mut work = Work {
            drill,
            repo: &repo,
            scratch: journal.scratch.clone(),
            journal,
            services: Services::default(),
            phases: Vec::new(),
            restored: Vec::new(),
        };
        let result = if wish.self_test { self.self_test(&mut work) } else { self.rehearse(&mut work) };
        let cleaned = self.timed(&mut work, Phase::Cleanup, |driller, work| {
            work.services.end();
            driller.clean_up(&drill.name, &work.journal).map_err(Stop::Unverified)
        });
        record.restored = work.restored;
        let timed = |(phase, took): &(Phase, Duration)| Timed { phase: *phase, seconds: took.as_secs_f64() };
        record.phases = work.phases.iter().map(timed).collect();
        record.phases.sort_by_key(|timed| timed.phase);
        match (result, cleaned) {
            // In front: what commands said stands at the end.
            (Err(Stop::Fail(reason)), Err(Stop::Unverified(left))) => {
                return Err(Stop::Fail(format!("{}; {reason}", without_output(&left))));
            }
            (Err(Stop::Unverified(reason)), Err(Stop::Unverified(left))) => {
                return Err(Stop::Unverified(format!("{}; {reason}", without_output(&left))));
            }
            (result, cleaned) => result.and(cleaned)?,
        }
        if let Some(rto) = record.rto.filter(|_| drill.tier == Tier::Full)
            && record.seconds() > rto as f64
        {
            return Err(Stop::Fail(record.too_slow(rto)));
        }
        Ok(())
    }

    fn rehearse(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let drill = work.drill;
        self.timed(work, Phase::Locate, Self::locate)?;
        for domain in &drill.domains {
            let Some(snapshot) = work.snapshot(domain) else { continue };
            let folder = work.folder(domain);
            let part = self
                .timed(work, Phase::Fetch, |driller, work| driller.fetch(work, domain, &snapshot, &folder))?;
            let Some(part) = part else { continue };
            self.timed(work, Phase::Verify, |driller, work| {
                let compared = driller.source.compare(work.repo, &snapshot, &part, &folder)?;
                verdict(compared, domain)
            })?;
        }
        match drill.tier {
            Tier::Full => self.steps(work).and_then(|()| self.has_loaded_all(drill)),
            Tier::Metadata | Tier::Sample => Ok(()),
        }
    }

    /// A dump that nothing has loaded may be good for nothing.
    fn has_loaded_all(&self, drill: &Drill) -> Result<(), Stop> {
        let unloaded = self.plan.unloaded(drill);
        if unloaded.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = unloaded.iter().map(|(domain, stream)| format!("{stream} of {domain}")).collect();
        Err(Stop::Unverified(format!("all is as it has to be, but nothing loads {}", names.join(", "))))
    }

    pub(super) fn locate(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let snapshots = self.source.snapshots(work.repo)?;
        let choice = work.drill.snapshot.as_deref().unwrap_or("latest");
        for domain in &work.drill.domains {
            let now = (self.now)();
            let found = choose::snapshot(&snapshots, &self.host, domain, choice, &now, self.random);
            let (id, _) = found.map_err(|reason| Stop::Fail(format!("{reason} in {}", work.repo)))?;
            let restoration = Restoration { domain: domain.clone(), snapshot: *id, files: 0, bytes: 0 };
            work.restored.push(restoration);
        }
        Ok(())
    }

    /// Restores what the tier asks for; none where there is nothing to compare.
    pub(super) fn fetch(
        &self,
        work: &mut Work<'_>,
        domain: &Name,
        snapshot: &SnapshotId,
        folder: &Path,
    ) -> Result<Option<Part>, Stop> {
        let part = match work.drill.tier {
            Tier::Metadata => None,
            Tier::Sample => Some(Part::Files(self.source.sample(work.repo, snapshot, SAMPLE_FILES)?)),
            Tier::Full => Some(Part::All),
        };
        let restored = match &part {
            None => self.source.walk(work.repo, snapshot)?,
            Some(part) => self.source.restore(work.repo, snapshot, part, folder)?,
        };
        if let Some(one) = work.restored.iter_mut().find(|one| one.domain == *domain) {
            (one.files, one.bytes) = (restored.files, restored.bytes);
        }
        match restored.problem {
            None => Ok(part),
            Some(Problem { is_damage: true, message }) => {
                Err(Stop::Fail(format!("{domain} cannot be restored: {message}")))
            }
            Some(Problem { message, .. }) => {
                Err(Stop::Unverified(format!("{domain} cannot be put into the scratch directory: {message}")))
            }
        }
    }
}

pub(super) fn verdict(compared: Compared, domain: &Name) -> Result<(), Stop> {
    match compared {
        Compared { different: 0, .. } => Ok(()),
        Compared { same, different } => Err(Stop::Fail(format!(
            "{} of {domain} {} not what the snapshot has, {same} {}",
            count(different, "file"),
            verb(different, "is", "are"),
            verb(same, "is", "are")
        ))),
    }
}
