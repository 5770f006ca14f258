//! One domain, from its first hook to its last.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Zoned;
use serde_bytes::ByteBuf;
use strongroom::backup::{Accept, SourceRoot};
use strongroom::format::provenance::{Consistency as Recorded, Fact, Provenance};
use strongroom::ids::PlanHash;

use crate::plan::Plan;
use crate::plan::effective::{HOOK_TIMEOUT, SNAPSHOT_TIMEOUT};
use crate::plan::types::{Consistency, Domain, OnChange};
use crate::plan::values::{Argv, Name};
use crate::recover;
use crate::run::cleanup::SNAPSHOT_PATH;
use crate::run::facts::facts;
use crate::run::process::{Order, ProcessError, Processes, without_output};
use crate::run::report::{DomainReport, RepoReport};
use crate::run::select::Chosen;
use crate::run::state::{Attempt, Chore, Journal, Outcome, RepoAttempt, State};
use crate::run::stream::timeout;
use crate::run::vault::{Job, Vault, VaultError};
use crate::run::{retention, stage, stream, turn};

/// Runs domains of a plan.
pub struct Runner<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The host that snapshots say they are from.
    pub host: String,
    /// Starts commands.
    pub processes: Arc<dyn Processes>,
    /// The repositories.
    pub vault: &'a dyn Vault,
    /// What this host remembers.
    pub state: &'a State,
    /// The time.
    pub now: &'a dyn Fn() -> Zoned,
    /// Whether the run is to end.
    pub is_cancelled: &'a dyn Fn() -> bool,
    /// Asked where another run had the domain meanwhile: into which repositories it is to go still. Without it, that another run
    /// has it is a failure.
    pub due_still: Option<&'a DueStill<'a>>,
}

/// Into which repositories a domain is to go now.
pub type DueStill<'a> = dyn Fn(&Domain) -> Vec<Name> + 'a;

impl Runner<'_> {
    /// Backs a domain up into these repositories, and records the attempt.
    pub fn run(&self, domain: &Domain, targets: &[&Name]) -> DomainReport {
        let began = (self.now)();
        let mut report = DomainReport::new(&domain.name);
        match self.state.lock(&domain.name) {
            Ok(Some(_lock)) => self.attempt_and_record(domain, targets, &began, &mut report),
            Ok(None) => self.after_another(domain, &began, &mut report),
            Err(error) => {
                report.fail(format!("cannot lock the domain: {error}"));
                self.record(&began, &mut report);
            }
        }
        report
    }

    fn attempt_and_record(
        &self,
        domain: &Domain,
        targets: &[&Name],
        began: &Zoned,
        report: &mut DomainReport,
    ) {
        // What is there may be of two states, or of one that nobody wants.
        if let Some(advice) = self.unfinished_recovery(domain) {
            report.fail(advice);
            return self.record(began, report);
        }
        let left = self.sweep(domain, report);
        let missing = self.catch_up(domain, targets, report);
        let journal = if missing.is_empty() && !targets.is_empty() {
            self.watch(domain, began.timestamp(), report);
            self.conclude(domain, report);
            let mut journal = Journal::new(began.timestamp(), self.processes.mark());
            journal.leave(left);
            Some(journal)
        } else {
            self.attempt(domain, &missing, began, left, report)
        };
        // In this order: a kill in between is no attempt that nobody knows of.
        self.record(began, report);
        if let Some(journal) = journal {
            self.settle(domain, &journal, report);
        }
    }

    fn unfinished_recovery(&self, domain: &Domain) -> Option<String> {
        match self.state.recovery(&domain.name) {
            Ok(journal) => recover::record::advice(&journal.filter(recover::Journal::is_unfinished)?),
            Err(error) => Some(format!("whether a recovery is unfinished cannot be read: {error}")),
        }
    }

    /// Another run is at work on the domain, and records itself. What is due waits for it, and may not be due any more then.
    fn after_another(&self, domain: &Domain, began: &Zoned, report: &mut DomainReport) {
        let busy = || format!("another run of the domain {} is at work", domain.name);
        let Some(due_still) = self.due_still else { return report.fail(busy()) };
        let _lock = loop {
            match self.state.lock(&domain.name) {
                Ok(Some(lock)) => break lock,
                Ok(None) if (self.is_cancelled)() => return report.fail(busy()),
                Ok(None) => std::thread::sleep(turn::STEP),
                Err(error) => return report.fail(format!("cannot lock the domain: {error}")),
            }
        };
        let targets = due_still(domain);
        match targets.is_empty() {
            true => report.message = Some("another run has done it meanwhile".into()),
            false => {
                self.attempt_and_record(domain, &targets.iter().collect::<Vec<_>>(), began, report);
            }
        }
    }

    /// Backs domains up, one after the other, and tells of each when it is done. What comes after a domain that failed is
    /// not begun; everything else is.
    pub fn run_all(&self, chosen: &[Chosen<'_>], tell: &mut dyn FnMut(&DomainReport)) -> Vec<DomainReport> {
        let mut reports: Vec<DomainReport> = Vec::new();
        for Chosen { domain, targets, .. } in chosen {
            let failed = |name: &&Name| {
                let earlier = reports.iter().find(|report| report.domain == **name);
                earlier.is_some_and(|report| matches!(report.outcome, Outcome::Failed | Outcome::Skipped))
            };
            let report = match domain.after.iter().find(failed) {
                Some(before) => {
                    let mut report = DomainReport::skipped(&domain.name, before);
                    self.record(&(self.now)(), &mut report);
                    report
                }
                None => self.run(domain, targets),
            };
            tell(&report);
            reports.push(report);
        }
        reports
    }

    fn record(&self, began: &Zoned, report: &mut DomainReport) {
        let repositories = report.repositories.iter().map(|repo| {
            let attempt = RepoAttempt {
                outcome: repo.outcome,
                snapshot: repo.snapshot().map(|id| id.to_string()),
                message: repo.message.as_deref().map(without_output),
            };
            (repo.repo.clone(), attempt)
        });
        let attempt = Attempt {
            domain: report.domain.clone(),
            began: began.timestamp(),
            ended: Some((self.now)().timestamp()),
            outcome: report.outcome,
            message: report
                .message
                .as_ref()
                .or(report.warnings.first())
                .map(|message| without_output(message)),
            repositories: repositories.collect(),
        };
        if let Err(error) = self.state.record(&attempt) {
            report.warn(format!("the attempt cannot be recorded: {error}"));
        }
    }

    pub(super) fn env(&self, domain: &Domain) -> Vec<(String, String)> {
        vec![
            ("STRONGROOM_DOMAIN".into(), domain.name.to_string()),
            ("STRONGROOM_HOST".into(), self.host.clone()),
        ]
    }

    pub(super) fn hook(
        &self,
        domain: &Domain,
        argv: &Argv,
        more: &[(&str, &str)],
        heeds_cancel: bool,
    ) -> Result<(), ProcessError> {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env: Vec<_> = self.env(domain).into_iter().chain(more).collect();
        let limit = domain.hooks.as_ref().and_then(|hooks| hooks.timeout);
        let order = Order { argv, env: &env, timeout: timeout(limit, HOOK_TIMEOUT), heeds_cancel };
        self.processes.run(&order).map(|_| ())
    }

    /// Returns what is to be settled, unless nothing could be begun.
    fn attempt(
        &self,
        domain: &Domain,
        targets: &[&Name],
        began: &Zoned,
        left: Vec<Chore>,
        report: &mut DomainReport,
    ) -> Option<Journal> {
        let hooks = domain.hooks.clone().unwrap_or_default();
        let journal = Journal::new(began.timestamp(), self.processes.mark());
        let mut journal = Journal { finally: hooks.finally.clone(), left, ..journal };
        let prepared = self
            .state
            .stage(&domain.name)
            .and_then(|stage| self.state.note(&domain.name, &journal).map(|()| stage));
        let stage = match prepared {
            Ok(stage) => stage,
            Err(error) => {
                report.fail(format!("cannot write to the state directory: {error}"));
                return None;
            }
        };
        if let Err(message) = self.work(domain, targets, &stage, &mut journal, report) {
            report.fail(message);
        }
        let finally = std::mem::take(&mut journal.finally);
        let mut left = std::mem::take(&mut journal.left);
        left.extend(self.do_chores(domain, journal.chores(), "at the end", report));
        journal = Journal { snapshot_end: None, finally, ..journal };
        // Copies may take hours: a kill meanwhile must not have done again what is done.
        let so_far = Journal { left: left.clone(), ..journal.clone() };
        if let Err(error) = self.state.note(&domain.name, &so_far) {
            report.warn(format!("cannot write to the state directory: {error}"));
        }
        // Whatever becomes of the copies: what was read is all there is to be looked at.
        self.watch(domain, began.timestamp(), report);
        self.copy_on(domain, targets, report);
        self.conclude(domain, report);
        if report.outcome != Outcome::Failed {
            for argv in &hooks.after {
                if let Err(error) = self.hook(domain, argv, &[], true) {
                    report.warn(format!("a hook afterwards: {error}"));
                    break;
                }
            }
        }
        left.extend(self.do_chores(domain, journal.chores(), "at the end", report));
        journal.finally.clear();
        journal.leave(left);
        Some(journal)
    }

    /// Retention, or what is to be done after a failure.
    fn conclude(&self, domain: &Domain, report: &mut DomainReport) {
        if report.outcome != Outcome::Failed {
            return self.retain(domain, report);
        }
        let message = report.message.clone().unwrap_or_default();
        for argv in domain.hooks.iter().flat_map(|hooks| &hooks.failed) {
            if let Err(error) = self.hook(domain, argv, &[("STRONGROOM_ERROR", &message)], false) {
                report.warn(format!("a hook after the failure: {error}"));
            }
        }
    }

    /// Everything up to the first snapshot.
    fn work(
        &self,
        domain: &Domain,
        targets: &[&Name],
        stage: &Path,
        journal: &mut Journal,
        report: &mut DomainReport,
    ) -> Result<(), String> {
        for argv in domain.hooks.iter().flat_map(|hooks| &hooks.before) {
            self.hook(domain, argv, &[], true).map_err(|error| format!("a hook before it: {error}"))?;
        }
        let provenance = self.provenance(domain, report);
        let mut copies = stage::databases(domain, stage).map_err(|error| error.to_string())?;
        let plan_files = stage::plan_files(domain, &self.plan.sources, stage);
        copies.extend(plan_files.map_err(|error| format!("cannot copy the plan: {error}"))?);
        let snapshot = self.begin_snapshot(domain, journal)?;
        let roots: Vec<_> = stage::paths(domain, snapshot.as_deref()).into_iter().chain(copies).collect();
        for repo in targets {
            if (self.is_cancelled)() {
                report.take(RepoReport::failed(repo, "the run was cancelled"));
                break;
            }
            let (done, may_go_on) = match self.back_up(domain, repo, &roots, &provenance) {
                Ok(done) => (done, false),
                // The next repository takes its place.
                Err(error) => (RepoReport::failed(repo, &error.message), !error.is_of_source()),
            };
            report.take(done);
            if !may_go_on {
                break;
            }
        }
        Ok(())
    }

    /// What is recorded with the snapshots.
    fn provenance(&self, domain: &Domain, report: &mut DomainReport) -> Provenance {
        let mut facts_found = Vec::new();
        for (name, found) in facts(domain, &self.env(domain), &*self.processes) {
            match found {
                Ok(value) => facts_found.push(Fact { name: name.to_string(), value }),
                Err(error) => report.warn(format!("the fact {name} was not found out: {error}")),
            }
        }
        let files = self.plan.sources.iter();
        Provenance {
            domain: domain.name.to_string(),
            consistency: match domain.consistency() {
                Consistency::Fuzzy => Recorded::Fuzzy,
                Consistency::Crash => Recorded::Crash,
                Consistency::Application => Recorded::Application,
            },
            plan: PlanHash::from_bytes(self.plan.hash()),
            plan_files: files
                .map(|source| ByteBuf::from(source.path.as_os_str().as_encoded_bytes()))
                .collect(),
            facts: facts_found,
        }
    }

    /// Makes the file system snapshot of a domain that wants one.
    fn begin_snapshot(&self, domain: &Domain, journal: &mut Journal) -> Result<Option<PathBuf>, String> {
        let Some(hooks) = &domain.snapshot else { return Ok(None) };
        // Before it is begun: a kill in between leaves one that nobody would know of.
        journal.snapshot_end = Some(hooks.end.clone());
        let noted = |journal: &Journal| {
            self.state
                .note(&domain.name, journal)
                .map_err(|error| format!("cannot write to the state directory: {error}"))
        };
        noted(journal)?;
        let env = self.env(domain);
        let limit = timeout(hooks.timeout, SNAPSHOT_TIMEOUT);
        let order = Order { argv: &hooks.begin, env: &env, timeout: limit, heeds_cancel: true };
        let failed = |reason: String| format!("there is no file system snapshot: {reason}");
        let ended = self.processes.run(&order).map_err(|error| failed(error.to_string()))?;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let path = said.lines().rev().find_map(|line| line.strip_prefix(SNAPSHOT_PATH)?.strip_prefix('='));
        let path = path
            .ok_or_else(|| failed(format!("{} did not print {SNAPSHOT_PATH}=DIR", hooks.begin.program())))?;
        let path = Path::new(path.trim_end());
        if !path.is_absolute() || !path.is_dir() {
            return Err(failed(format!("{} is no directory with a whole path", path.display())));
        }
        journal.snapshot_path = Some(path.to_string_lossy().into_owned());
        noted(journal)?;
        Ok(Some(path.to_owned()))
    }

    fn back_up(
        &self,
        domain: &Domain,
        repo: &Name,
        roots: &[SourceRoot],
        provenance: &Provenance,
    ) -> Result<RepoReport, VaultError> {
        let env = self.env(domain);
        let filter = match stage::filter(domain, &self.plan.sources) {
            Ok(filter) => filter,
            Err(error) => return Ok(RepoReport::failed(repo, &error.to_string())),
        };
        let job = Job {
            host: Some(self.host.clone()),
            tags: domain.tags.clone(),
            roots: roots.to_vec(),
            filter,
            streams: domain.stream.iter().map(|one| stream::source(one, &env, &self.processes)).collect(),
            accept: accept(self.plan.objectives(domain).on_change),
            provenance: provenance.clone(),
        };
        let report = self.vault.back_up(repo, job)?;
        if report.cancelled || report.snapshot.is_none() {
            let failed = RepoReport::failed(repo, "the run was cancelled: there is no complete snapshot");
            return Ok(RepoReport { report: Some(report), ..failed });
        }
        let summary = &report.summary;
        let message = (!report.is_complete()).then(|| {
            format!(
                "{} entries could not be read, {} files changed while they were read",
                summary.errors, summary.unstable
            )
        });
        let outcome = if message.is_none() { Outcome::Ok } else { Outcome::Partial };
        Ok(RepoReport {
            repo: repo.clone(),
            outcome,
            report: Some(report),
            copied: None,
            message,
            forgotten: 0,
        })
    }

    /// Retention, where all went well.
    fn retain(&self, domain: &Domain, report: &mut DomainReport) {
        let Some(retain) = self.plan.objectives(domain).retain else { return };
        let Some(options) = retention::options(&retain, &domain.name, &self.host) else { return };
        if report.outcome != Outcome::Ok {
            return;
        }
        let mut warnings = Vec::new();
        for repo in &mut report.repositories {
            match self.vault.forget(&repo.repo, &options) {
                Ok(forgotten) => repo.forgotten = forgotten,
                Err(error) => warnings.push(format!("{}: nothing was forgotten: {error}", repo.repo)),
            }
        }
        warnings.iter().for_each(|warning| report.warn(warning));
    }
}

/// The last word on a snapshot.
fn accept(on_change: OnChange) -> Accept {
    Box::new(move |summary| match on_change {
        OnChange::Fail if summary.unstable > 0 => Err(format!(
            "{} files changed each time they were read, and on_change is \"fail\"",
            summary.unstable
        )),
        _ => Ok(()),
    })
}
