//! What a domain is read from, into the first repository that takes it.

use std::path::{Path, PathBuf};

use serde_bytes::ByteBuf;
use strongroom::backup::{Accept, SourceRoot};
use strongroom::format::provenance::{Consistency as Recorded, Fact, Provenance};
use strongroom::ids::PlanHash;

use crate::plan::effective::SNAPSHOT_TIMEOUT;
use crate::plan::types::{Consistency, Domain, OnChange};
use crate::plan::values::Name;
use crate::recover::{Disk, SystemDisk};
use crate::run::cleanup::SNAPSHOT_PATH;
use crate::run::process::Order;
use crate::run::report::{DomainReport, RepoReport, incomplete};
use crate::run::sqlite::Asking;
use crate::run::state::{Journal, Outcome};
use crate::run::stream::timeout;
use crate::run::vault::{Job, VaultError};
use crate::run::{Runner, facts, stage, stream};
use crate::words::{count, verb};

impl Runner<'_> {
    /// Reads everything, into the first of the repositories that takes it: nothing is said of those after it.
    pub(super) fn read_into(
        &self,
        domain: &Domain,
        targets: &[&Name],
        stage: &Path,
        journal: &mut Journal,
        report: &mut DomainReport,
    ) -> Result<(), String> {
        let provenance = self.provenance(domain, report);
        let asking = Asking { free: &|folder| SystemDisk.free(folder), is_cancelled: self.is_cancelled };
        let copies = stage::databases(domain, stage, &asking).map_err(|error| error.to_string())?;
        // What lies in one of the paths is read with that.
        let (instead, mut copies): (Vec<_>, Vec<_>) =
            copies.into_iter().partition(|copy| domain.reaches(&copy.path));
        let plan_files = stage::plan_files(domain, &self.plan.sources, stage);
        copies.extend(plan_files.map_err(|error| format!("cannot copy the plan: {error}"))?);
        let snapshot = self.begin_snapshot(domain, journal)?;
        let roots: Vec<_> = stage::paths(domain, snapshot.as_deref()).into_iter().chain(copies).collect();
        for repo in targets {
            if (self.is_cancelled)() {
                report.take(RepoReport::failed(repo, "the run was cancelled"));
                break;
            }
            let (done, may_go_on) = match self.back_up(domain, repo, (&roots, &instead), &provenance) {
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
        let mut facts = Vec::new();
        for (name, found) in facts::facts(domain, &self.env(domain), &*self.processes) {
            match found {
                Ok(value) => facts.push(Fact { name: name.to_string(), value }),
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
            facts,
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
        (roots, instead): (&[SourceRoot], &[SourceRoot]),
        provenance: &Provenance,
    ) -> Result<RepoReport, VaultError> {
        let env = self.env(domain);
        let filter = match stage::filter(domain, &self.plan.sources) {
            Ok(filter) => filter,
            Err(error) => return Ok(RepoReport::failed(repo, &error.to_string())),
        };
        let on_change = self.plan.objectives(domain).on_change;
        let job = Job {
            host: Some(self.host.clone()),
            tags: domain.tags.clone(),
            roots: roots.to_vec(),
            filter,
            instead: instead.to_vec(),
            streams: domain.stream.iter().map(|one| stream::source(one, &env, &self.processes)).collect(),
            growing: on_change == OnChange::Prefix,
            accept: accept(on_change),
            provenance: provenance.clone(),
        };
        let report = self.vault.back_up(repo, job)?;
        if report.cancelled || report.snapshot.is_none() {
            // What is there of it is no snapshot to compare, to copy or to count.
            let partial =
                report.snapshot.map_or(String::new(), |id| format!(", but a partial one, {}", id.short()));
            let message = format!("the run was cancelled: there is no complete snapshot{partial}");
            return Ok(RepoReport::failed(repo, &message));
        }
        let lost = report.lost_commits.iter().map(ToString::to_string);
        let messages: Vec<_> = incomplete(&report.summary).into_iter().chain(lost).collect();
        let message = (!messages.is_empty()).then(|| messages.join("; "));
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
}

/// The last word on a snapshot.
fn accept(on_change: OnChange) -> Accept {
    Box::new(move |summary| match on_change {
        OnChange::Fail if summary.unstable > 0 => Err(format!(
            "{} changed each time {} read, and on_change is \"fail\"",
            count(summary.unstable, "file"),
            verb(summary.unstable, "it was", "they were")
        )),
        _ => Ok(()),
    })
}
