//! All domains of a run, one after the other. What comes after another domain goes only where that has got to, and what comes
//! after one that another run is at work on is left for later.

use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::Runner;
use crate::run::report::DomainReport;
use crate::run::select::Chosen;

impl Runner<'_> {
    /// Backs domains up, and tells of each when it is done. What comes after a domain that failed is not begun in the
    /// repositories in which it failed; everything else is. When the run is cancelled, nothing more is begun.
    pub fn run_all(&self, chosen: &[Chosen<'_>], tell: &mut dyn FnMut(&DomainReport)) -> Vec<DomainReport> {
        let mut reports: Vec<DomainReport> = Vec::new();
        for Chosen { domain, targets, .. } in chosen {
            let report = match (self.is_cancelled)() {
                true => {
                    let mut report = DomainReport::new(&domain.name);
                    report.fail_before(targets, "the run was cancelled before it began");
                    self.not_begun(report)
                }
                false => self.run_after(domain, targets, &reports),
            };
            tell(&report);
            reports.push(report);
        }
        reports
    }

    fn not_begun(&self, mut report: DomainReport) -> DomainReport {
        self.record(&(self.now)(), &mut report);
        report
    }

    /// Backs a domain up where those before it have got to.
    fn run_after(&self, domain: &Domain, targets: &[&Name], earlier: &[DomainReport]) -> DomainReport {
        let mut before = domain.after.iter().filter_map(|before| find(before, earlier));
        if let Some(deferral) = before.find_map(|before| before.deferral.clone()) {
            let mut report = DomainReport::new(&domain.name);
            report.defer(targets, deferral);
            return self.not_begun(report);
        }
        let missing = |repo: &Name| domain.after.iter().find(|before| self.is_missing(before, repo, earlier));
        let (mut report, mut left) = (DomainReport::new(&domain.name), Vec::new());
        let mut because = None;
        for repo in targets {
            match missing(repo) {
                Some(before) => {
                    report.leave_out(repo, before);
                    because = Some(before);
                }
                None => left.push(*repo),
            }
        }
        match because {
            Some(before) if left.is_empty() => {
                report.skip(before);
                self.not_begun(report)
            }
            _ => self.run_on(domain, &left, report),
        }
    }

    /// Whether a domain was to be backed up before another one, and has not got into a repository.
    fn is_missing(&self, domain: &Name, repo: &Name, earlier: &[DomainReport]) -> bool {
        let Some(report) = find(domain, earlier) else { return false };
        if let Some(known) = report.repositories.iter().find(|known| known.repo == *repo) {
            return known.is_missing();
        }
        // It does not go there at all, or had nothing to do there.
        let had_to = self.plan.domain(domain.as_str()).is_some_and(|domain| {
            !report.repositories.is_empty() && self.plan.repositories(domain).contains(&repo)
        });
        report.is_bad() && !had_to && report.repositories.iter().all(|known| known.is_missing())
    }
}

fn find<'r>(domain: &Name, earlier: &'r [DomainReport]) -> Option<&'r DomainReport> {
    earlier.iter().find(|report| report.domain == *domain)
}
