//! What has to be done at the end of a run, and at the start of the next if it was not.
//!
//! A journal on disk says what is to be cleaned up. It is forgotten only when that is done: what fails is tried again by the
//! next run of the domain.

use crate::plan::effective::SNAPSHOT_TIMEOUT;
use crate::plan::types::Domain;
use crate::run::Runner;
use crate::run::process::{Order, ProcessError};
use crate::run::report::DomainReport;
use crate::run::state::{Attempt, Chore, Journal, Outcome, Task};
use crate::run::stream::timeout;

/// What a snapshot hook prints before the path, and is given in its environment at the end.
pub(super) const SNAPSHOT_PATH: &str = "STRONGROOM_SNAPSHOT_PATH";

impl Runner<'_> {
    /// Does what earlier runs have left to do: one that was killed, or could not clean up. Returns what failed again.
    pub(super) fn sweep(&self, domain: &Domain, report: &mut DomainReport) -> Vec<Chore> {
        let journal = match self.state.journal(&domain.name) {
            Ok(None) => return Vec::new(),
            Ok(Some(journal)) => journal,
            Err(error) => {
                report.warn(format!("what an earlier run has left to do cannot be read: {error}"));
                return Vec::new();
            }
        };
        // Before anything is cleaned up: they may be at work on it.
        let ended = self.processes.end_marked(&journal.mark);
        let left = self.do_chores(domain, journal.chores(), "what an earlier run had left to do", report);
        let is_noted = self.state.attempts().is_ok_and(|attempts| {
            attempts.iter().any(|attempt| attempt.domain == domain.name && attempt.began == journal.began)
        });
        if !is_noted {
            self.watch_killed(domain, journal.began, report);
            let message = match ended {
                0 => "the run was killed".to_owned(),
                count => format!("the run was killed, and {count} of its processes were at work still"),
            };
            let attempt = Attempt {
                domain: domain.name.clone(),
                began: journal.began,
                ended: None,
                outcome: Outcome::Interrupted,
                message: Some(message),
                at_work_since: None,
                repositories: std::collections::BTreeMap::new(),
            };
            if let Err(error) = self.state.record(&attempt) {
                report.warn(format!("the killed run cannot be recorded: {error}"));
            }
        }
        let mut swept = Journal::new(journal.began, "");
        swept.leave(left.clone());
        if let Err(error) = self.state.note(&domain.name, &swept) {
            report.warn(format!("cannot write to the state directory: {error}"));
        }
        left
    }

    /// Removes the file system snapshot, if there is one.
    pub(super) fn end_snapshot(&self, domain: &Domain, journal: &mut Journal, report: &mut DomainReport) {
        let end = Journal {
            snapshot_end: journal.snapshot_end.take(),
            snapshot_path: journal.snapshot_path.take(),
            ..Journal::new(journal.began, &journal.mark)
        };
        journal.leave(self.do_chores(domain, end.chores(), "at the end", report));
        // Copies may take hours: a kill meanwhile must not have done again what is done.
        if let Err(error) = self.state.note(&domain.name, journal) {
            report.warn(format!("cannot write to the state directory: {error}"));
        }
    }

    /// Does all of it, also after failures; returns what failed.
    pub(super) fn do_chores(
        &self,
        domain: &Domain,
        chores: Vec<Chore>,
        when: &str,
        report: &mut DomainReport,
    ) -> Vec<Chore> {
        let failed = |chore: &Chore| match self.do_chore(domain, chore) {
            Ok(()) => false,
            Err(error) => {
                let what = match chore.task {
                    Task::SnapshotEnd => "the file system snapshot may be there still",
                    Task::Finally => "a hook failed",
                };
                report.warn(format!("{when}: {what}: {error}"));
                true
            }
        };
        chores.into_iter().filter(failed).collect()
    }

    fn do_chore(&self, domain: &Domain, chore: &Chore) -> Result<(), ProcessError> {
        match chore.task {
            Task::Finally => self.hook(domain, &chore.argv, &[], false),
            Task::SnapshotEnd => {
                let path = chore.path.iter().map(|path| (SNAPSHOT_PATH.to_owned(), path.clone()));
                let env: Vec<_> = self.env(domain).into_iter().chain(path).collect();
                let limit = domain.snapshot.as_ref().and_then(|hooks| hooks.timeout);
                let limit = timeout(limit, SNAPSHOT_TIMEOUT);
                let order = Order { argv: &chore.argv, env: &env, timeout: limit, heeds_cancel: false };
                self.processes.run(&order).map(|_| ())
            }
        }
    }

    /// Forgets what is done, and keeps what is not for the next run.
    pub(super) fn settle(&self, domain: &Domain, journal: &Journal, report: &mut DomainReport) {
        let settled = match journal.left.is_empty() {
            true => self.state.clear(&domain.name),
            false => {
                // This run has ended by itself: what its commands have left running was to stay.
                let left = Journal { mark: String::new(), ..journal.clone() };
                self.state.clear_stage(&domain.name).and_then(|()| self.state.note(&domain.name, &left))
            }
        };
        if let Err(error) = settled {
            report.warn(format!("cannot clean up the state directory: {error}"));
        }
    }
}
