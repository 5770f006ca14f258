//! Several repositories of one domain: what is to be protected is read once, into the first one that takes it, and the
//! others get copies of its snapshots.

use jiff::Zoned;
use strongroom::format::snapshot::{Snapshot, SnapshotSummary};
use strongroom::ids::SnapshotId;

use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::domain::Runner;
use crate::run::report::{DomainReport, RepoReport};
use crate::run::state::Journal;
use crate::run::vault::{CopyFailure, VaultError};

/// Snapshots of a domain in one repository that others should have.
struct Worth {
    all: Vec<SnapshotId>,
    newest: (SnapshotId, SnapshotSummary),
}

impl Runner<'_> {
    /// Brings what was backed up into one repository to those of `targets` of which nothing is known yet. Where the repository
    /// that has it fails before it is copied, everything is read once more: no repository holds up another.
    pub(super) fn spread(
        &self,
        domain: &Domain,
        targets: &[&Name],
        began: &Zoned,
        journal: &mut Journal,
        report: &mut DomainReport,
    ) {
        let mut failed: Vec<Name> = Vec::new();
        loop {
            let left = report.unknown(targets);
            if left.is_empty() {
                return;
            }
            let source = |report: &DomainReport, failed: &[Name]| {
                let mut known = report.repositories.iter();
                known
                    .find(|repo| !repo.is_missing() && !failed.contains(&repo.repo))
                    .map(|repo| repo.repo.clone())
            };
            if let Some(from) = source(report, &failed) {
                if self.copy(domain, &from, &left, report) {
                    failed.push(from);
                }
                continue;
            }
            // Hooks or sources have failed: that is told already.
            let mut message = "there is no new snapshot to copy".to_owned();
            if (self.is_cancelled)() {
                message = "the run was cancelled".to_owned();
            } else if !failed.is_empty() {
                let read = self.read_again(domain, &left, journal, report);
                if !report.is_guarded {
                    self.watch(domain, began.timestamp(), report);
                }
                if source(report, &failed).is_some() {
                    continue;
                }
                message = read.err().unwrap_or(message);
            }
            for to in report.unknown(targets) {
                report.fail(format!("{to}: {message}"));
                report.repositories.push(RepoReport::failed(to, &message));
            }
        }
    }

    /// Reads everything anew, at one moment like the first time.
    fn read_again(
        &self,
        domain: &Domain,
        targets: &[&Name],
        journal: &mut Journal,
        report: &mut DomainReport,
    ) -> Result<(), String> {
        let stage = self.state.stage(&domain.name);
        let stage = stage.map_err(|error| format!("cannot write to the state directory: {error}"))?;
        let read = self.read_into(domain, targets, &stage, journal, report);
        self.end_snapshot(domain, journal, report);
        read
    }

    /// Where only some of a domain's repositories lack what another one has, they get it from there: nothing is read anew.
    /// Returns those of `targets` that have to be backed up into all the same.
    pub(super) fn catch_up<'n>(
        &self,
        domain: &Domain,
        targets: &[&'n Name],
        report: &mut DomainReport,
    ) -> Vec<&'n Name> {
        let mut others = self.plan.repositories(domain).into_iter();
        let Some(from) = others.find(|repo| {
            let is_fresh = !targets.contains(repo) && !report.knows(repo);
            is_fresh && matches!(self.worth(domain, repo, report), Ok(Some(_)))
        }) else {
            return targets.to_vec();
        };
        let mut copied = DomainReport::new(&domain.name);
        self.copy(domain, from, targets, &mut copied);
        let is_left = |to: &&&Name| match copied.repositories.iter().find(|repo| repo.repo == ***to) {
            None => true,
            // One that cannot be reached would fail again.
            Some(repo) => repo.is_missing() && !(self.is_cancelled)() && self.vault.snapshots(to).is_ok(),
        };
        let left: Vec<&Name> = targets.iter().filter(is_left).copied().collect();
        for repo in copied.repositories.into_iter().filter(|repo| left.iter().all(|left| repo.repo != **left))
        {
            report.take(repo);
        }
        copied.warnings.into_iter().for_each(|warning| report.warn(warning));
        left
    }

    /// Copies; whether `from` has failed, and nothing is said of some of `targets` for that.
    fn copy(&self, domain: &Domain, from: &Name, targets: &[&Name], report: &mut DomainReport) -> bool {
        let worth = self.worth(domain, from, report).map_err(|error| error.to_string());
        let worth = worth.and_then(|worth| worth.ok_or_else(|| "it has no snapshot to copy".to_owned()));
        let mut has_failed = false;
        for to in targets {
            if (self.is_cancelled)() {
                report.take(RepoReport::failed(to, "the run was cancelled"));
                continue;
            }
            match worth.as_ref().map_err(Clone::clone).and_then(|worth| self.copy_to(from, to, worth)) {
                Ok(done) => report.take(done),
                Err(reason) => {
                    report.warn(format!("{to}: cannot be copied from {from}: {reason}"));
                    has_failed = true;
                }
            }
        }
        has_failed
    }

    /// What became of a copy, or why the repository that has the snapshot does not give it.
    fn copy_to(&self, from: &Name, to: &Name, worth: &Worth) -> Result<RepoReport, String> {
        match self.vault.copy(from, to, &worth.all) {
            Ok(copied) => RepoReport::copied(from, to, &worth.newest, copied),
            Err(CopyFailure { is_of_target: true, error }) => {
                Ok(RepoReport::failed(to, &format!("cannot be copied from {from}: {error}")))
            }
            Err(CopyFailure { error, .. }) => Err(error.to_string()),
        }
    }

    /// The domain's complete snapshots that retention keeps.
    fn worth(
        &self,
        domain: &Domain,
        from: &Name,
        report: &mut DomainReport,
    ) -> Result<Option<Worth>, VaultError> {
        let is_of_domain = |snapshot: &Snapshot| {
            let of = snapshot.provenance.as_ref().map(|provenance| provenance.domain.as_str());
            !snapshot.partial && snapshot.hostname == self.host && of == Some(domain.name.as_str())
        };
        let mut own = self.vault.snapshots(from)?;
        own.retain(|(_, snapshot)| is_of_domain(snapshot));
        let mut all: Vec<_> = own.iter().map(|(id, _)| *id).collect();
        let Some((newest, snapshot)) = own.pop() else { return Ok(None) };
        let options = self.retention(domain, from);
        match options.and_then(|options| options.map(|options| self.vault.kept(from, &options)).transpose()) {
            Ok(None) => {}
            Ok(Some(kept)) => all.retain(|id| *id == newest || kept.contains(id)),
            Err(error) => report.warn(format!("{from}: all snapshots are copied: {error}")),
        }
        Ok(Some(Worth { all, newest: (newest, snapshot.summary) }))
    }
}
