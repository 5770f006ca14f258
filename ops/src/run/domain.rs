//! One domain, from its first hook to its last.

use std::sync::Arc;

use jiff::Zoned;
use strongroom::forget::ForgetOptions;

use crate::plan::Plan;
use crate::plan::effective::HOOK_TIMEOUT;
use crate::plan::types::Domain;
use crate::plan::values::{Argv, Name};
use crate::recover;
use crate::run::lock::{Holder, Taken};
use crate::run::process::{Order, ProcessError, Processes, without_output};
use crate::run::report::{Deferral, DomainReport};
use crate::run::state::{Attempt, Chore, Journal, Outcome, RepoAttempt, State};
use crate::run::stream::timeout;
use crate::run::turn;
use crate::run::vault::{Forgotten, Vault};

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
    /// How to wait for another run that is at work on a domain. Without it the domain is passed over.
    pub patience: Option<Patience<'a>>,
}

/// How another run is waited for.
pub struct Patience<'a> {
    /// Told which domain it is at work on, and what is known of it.
    pub tell: &'a dyn Fn(&Name, &Holder),
    /// Into which repositories a domain is to go still, when the other run has ended.
    pub due_still: &'a dyn Fn(&Domain) -> Vec<Name>,
}

impl Runner<'_> {
    /// Backs a domain up into these repositories, and records the attempt.
    pub fn run(&self, domain: &Domain, targets: &[&Name]) -> DomainReport {
        self.run_on(domain, targets, DomainReport::new(&domain.name))
    }

    /// The same, where something is known of some repositories already: nothing is done with these.
    pub(super) fn run_on(
        &self,
        domain: &Domain,
        targets: &[&Name],
        mut report: DomainReport,
    ) -> DomainReport {
        let began = (self.now)();
        let taken = match self.patience {
            Some(_) => self.state.take(&domain.name, began.timestamp()),
            None => self.state.take_soon(&domain.name, began.timestamp()),
        };
        match taken {
            Ok(Taken::Mine(_lock)) => self.attempt_and_record(domain, targets, &began, &mut report),
            Ok(Taken::Held(holder)) => self.after_another(domain, targets, &holder, &began, &mut report),
            Err(error) => {
                report.fail_before(targets, &format!("cannot lock the domain: {error}"));
                self.conclude(domain, &mut report);
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
            report.fail_before(targets, &advice);
            self.conclude(domain, report);
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
        let asked = self.state.recovery(&domain.name).and_then(|own| {
            let elsewhere = self.state.recoveries_elsewhere(domain)?;
            let mut elsewhere = elsewhere.iter().filter(|other| other.journal.is_unfinished());
            let own = own.filter(recover::Journal::is_unfinished);
            let own = own.as_ref().and_then(recover::record::advice);
            Ok(own.or_else(|| elsewhere.find_map(recover::elsewhere::Elsewhere::advice)))
        });
        asked
            .unwrap_or_else(|error| Some(format!("whether a recovery is unfinished cannot be read: {error}")))
    }

    /// Another run is at work on the domain, and tells itself how it goes: the domain is passed over. What is due waits for the
    /// other run, and may not be due any more then.
    fn after_another(
        &self,
        domain: &Domain,
        targets: &[&Name],
        holder: &Holder,
        began: &Zoned,
        report: &mut DomainReport,
    ) {
        let Some(patience) = &self.patience else {
            report.defer(targets, Deferral { at_work: domain.name.clone(), holder: *holder });
            return self.record(began, report);
        };
        (patience.tell)(&domain.name, holder);
        let taken = loop {
            match self.state.take(&domain.name, (self.now)().timestamp()) {
                Ok(Taken::Mine(lock)) => break Ok(lock),
                Ok(Taken::Held(_)) if (self.is_cancelled)() => {
                    break Err("the run was cancelled while another one was at work on it".to_owned());
                }
                Ok(Taken::Held(_)) => std::thread::sleep(turn::STEP),
                Err(error) => break Err(format!("cannot lock the domain: {error}")),
            }
        };
        let _lock = match taken {
            Ok(lock) => lock,
            Err(message) => {
                report.fail_before(targets, &message);
                return self.record(began, report);
            }
        };
        let mut targets = (patience.due_still)(domain);
        targets.retain(|repo| !report.knows(repo));
        match targets.is_empty() {
            true => report.message = Some("another run has done it meanwhile".into()),
            false => {
                self.attempt_and_record(domain, &targets.iter().collect::<Vec<_>>(), began, report);
            }
        }
    }

    pub(super) fn record(&self, began: &Zoned, report: &mut DomainReport) {
        let repositories = report.repositories.iter().map(|repo| {
            let attempt = RepoAttempt {
                outcome: repo.outcome,
                snapshot: repo.snapshot().map(|id| id.to_string()),
                message: repo.message.as_deref().map(without_output),
            };
            (repo.repo.clone(), attempt)
        });
        let is_own = |deferral: &&Deferral| deferral.at_work == report.domain;
        let at_work = report.deferral.as_ref().filter(is_own);
        let attempt = Attempt {
            domain: report.domain.clone(),
            began: began.timestamp(),
            ended: Some((self.now)().timestamp()),
            outcome: report.outcome,
            message: report.why().map(without_output),
            at_work_since: at_work.and_then(|deferral| deferral.holder.since),
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
                report.fail_before(targets, &format!("cannot write to the state directory: {error}"));
                self.conclude(domain, report);
                return None;
            }
        };
        let read =
            self.before(domain).and_then(|()| self.read_into(domain, targets, &stage, &mut journal, report));
        if let Err(message) = read {
            report.fail(message);
        }
        self.end_snapshot(domain, &mut journal, report);
        // Whatever becomes of the copies: what was read is all there is to be looked at.
        self.watch(domain, began.timestamp(), report);
        self.spread(domain, targets, began, &mut journal, report);
        self.conclude(domain, report);
        if report.is_everywhere() {
            for argv in &hooks.after {
                if let Err(error) = self.hook(domain, argv, &[], true) {
                    report.warn(format!("a hook afterwards: {error}"));
                    break;
                }
            }
        }
        let finally = std::mem::take(&mut journal.finally);
        let finally = Journal { finally, ..Journal::new(journal.began, &journal.mark) };
        journal.leave(self.do_chores(domain, finally.chores(), "at the end", report));
        Some(journal)
    }

    fn before(&self, domain: &Domain) -> Result<(), String> {
        let mut hooks = domain.hooks.iter().flat_map(|hooks| &hooks.before);
        hooks.try_for_each(|argv| {
            self.hook(domain, argv, &[], true).map_err(|error| format!("a hook before it: {error}"))
        })
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

    /// Retention, where all went well.
    fn retain(&self, domain: &Domain, report: &mut DomainReport) {
        if report.outcome != Outcome::Ok {
            if report.outcome == Outcome::Partial
                && !report.is_guarded
                && self.plan.objectives(domain).retain.is_some()
            {
                report.warn("no old snapshot is forgotten: that is done only by runs that lack nothing");
            }
            return;
        }
        let mut warnings = Vec::new();
        for repo in &mut report.repositories {
            let forget = |options: Option<ForgetOptions>| match options {
                Some(options) => self.vault.forget(&repo.repo, &options),
                None => Ok(Forgotten::default()),
            };
            match self.retention(domain, &repo.repo).and_then(forget) {
                Ok(done) => {
                    repo.forgotten = done.snapshots;
                    warnings.extend(done.refused.iter().map(|error| format!("{}: {error}", repo.repo)));
                }
                Err(error) => warnings.push(format!("{}: nothing was forgotten: {error}", repo.repo)),
            }
        }
        warnings.iter().for_each(|warning| report.warn(warning));
    }
}
