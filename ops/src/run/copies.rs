//! Several repositories of one domain: what is to be protected is read once, into the first one that takes it, and the
//! others get copies of its snapshots.

use strongroom::ids::SnapshotId;

use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::domain::Runner;
use crate::run::report::{DomainReport, RepoReport};
use crate::run::retention;
use crate::run::state::Outcome;
use crate::run::vault::VaultError;

/// Snapshots of a domain in one repository that others should have.
struct Worth {
    all: Vec<SnapshotId>,
    newest: SnapshotId,
}

impl Runner<'_> {
    /// Copies from the repository that was backed up into to those of `targets` of which nothing is known yet.
    pub(super) fn copy_on(&self, domain: &Domain, targets: &[&Name], report: &mut DomainReport) {
        let is_there = |repo: &&RepoReport| repo.outcome != Outcome::Failed;
        let from = report.repositories.iter().find(is_there).map(|repo| repo.repo.clone());
        let left: Vec<&Name> = targets
            .iter()
            .filter(|target| report.repositories.iter().all(|repo| repo.repo != ***target))
            .copied()
            .collect();
        match from {
            Some(from) => self.copy(domain, &from, &left, report),
            // Hooks or sources have failed: that is told already.
            None => left.into_iter().for_each(|to| {
                report.repositories.push(RepoReport::failed(to, "there is no new snapshot to copy"));
            }),
        }
    }

    /// Where only some of a domain's repositories lack what another one has, they get it from there: nothing is read anew.
    /// Returns those of `targets` that have to be backed up into all the same.
    pub(super) fn catch_up<'n>(
        &self,
        domain: &Domain,
        targets: &[&'n Name],
        report: &mut DomainReport,
    ) -> Vec<&'n Name> {
        let others = self.plan.repositories(domain).into_iter().filter(|repo| !targets.contains(repo));
        let Some(from) =
            others.into_iter().find(|repo| matches!(self.worth(domain, repo, report), Ok(Some(_))))
        else {
            return targets.to_vec();
        };
        let mut copied = DomainReport::new(&domain.name);
        self.copy(domain, from, targets, &mut copied);
        let is_left = |to: &&&Name| {
            let failed = copied.repositories.iter().any(|repo| repo.repo == ***to && !is_well(repo));
            // One that cannot be reached would fail again.
            failed && !(self.is_cancelled)() && self.vault.snapshots(to).is_ok()
        };
        let left: Vec<&Name> = targets.iter().filter(is_left).copied().collect();
        for repo in copied.repositories.into_iter().filter(|repo| left.iter().all(|left| repo.repo != **left))
        {
            report.take(repo);
        }
        copied.warnings.into_iter().for_each(|warning| report.warn(warning));
        left
    }

    fn copy(&self, domain: &Domain, from: &Name, targets: &[&Name], report: &mut DomainReport) {
        if targets.is_empty() {
            return;
        }
        let worth = self.worth(domain, from, report);
        for to in targets {
            let done = match &worth {
                _ if (self.is_cancelled)() => RepoReport::failed(to, "the run was cancelled"),
                Err(error) => RepoReport::failed(to, &format!("cannot be copied from {from}: {error}")),
                Ok(None) => RepoReport::failed(to, &format!("{from} has no snapshot to copy")),
                Ok(Some(Worth { all, newest })) => match self.vault.copy(from, to, all) {
                    Ok(copied) => RepoReport::copied(from, to, *newest, copied),
                    Err(error) => RepoReport::failed(to, &format!("cannot be copied from {from}: {error}")),
                },
            };
            report.take(done);
        }
    }

    /// The domain's complete snapshots that retention keeps.
    fn worth(
        &self,
        domain: &Domain,
        from: &Name,
        report: &mut DomainReport,
    ) -> Result<Option<Worth>, VaultError> {
        let is_of_domain = |snapshot: &strongroom::format::snapshot::Snapshot| {
            let of = snapshot.provenance.as_ref().map(|provenance| provenance.domain.as_str());
            !snapshot.partial && snapshot.hostname == self.host && of == Some(domain.name.as_str())
        };
        let snapshots = self.vault.snapshots(from)?;
        let mut all: Vec<_> =
            snapshots.into_iter().filter(|(_, snapshot)| is_of_domain(snapshot)).map(|(id, _)| id).collect();
        let Some(newest) = all.last().copied() else { return Ok(None) };
        let retain = self.plan.objectives(domain).retain;
        if let Some(options) = retain.and_then(|retain| retention::options(&retain, &domain.name, &self.host))
        {
            match self.vault.kept(from, &options) {
                Ok(kept) => all.retain(|id| *id == newest || kept.contains(id)),
                Err(error) => report.warn(format!("{from}: all snapshots are copied: {error}")),
            }
        }
        Ok(Some(Worth { all, newest }))
    }
}

fn is_well(repo: &RepoReport) -> bool {
    repo.outcome != Outcome::Failed
}
