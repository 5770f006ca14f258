//! How a run went: for each domain, and for each repository of it.

use strongroom::backup::BackupReport;
use strongroom::copy::{CopyReport, Fate};
use strongroom::format::snapshot::SnapshotSummary;
use strongroom::ids::SnapshotId;

use crate::plan::values::Name;
use crate::run::lock::Holder;
use crate::run::state::Outcome;
use crate::words::{count, verb};

/// How a domain's run went.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainReport {
    /// The domain.
    pub domain: Name,
    /// How it ended.
    pub outcome: Outcome,
    /// What failed first.
    pub message: Option<String>,
    /// What is worse than it should be, besides.
    pub warnings: Vec<String>,
    /// What is unlike the snapshots before.
    pub anomalies: Vec<String>,
    /// Whether nothing is forgotten until somebody has looked at a snapshot that is unlike those before, this one or an earlier.
    pub is_guarded: bool,
    /// What became of each repository.
    pub repositories: Vec<RepoReport>,
    /// If it was not begun because another run is at work on it, or on a domain that it comes after: on which, and since when.
    pub deferral: Option<Deferral>,
}

/// What keeps a domain from being begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// The domain that another run is at work on.
    pub at_work: Name,
    /// By whom, as far as it is known.
    pub holder: Holder,
}

/// What became of one repository.
#[derive(Debug, Clone, PartialEq)]
pub struct RepoReport {
    /// The repository.
    pub repo: Name,
    /// How it ended.
    pub outcome: Outcome,
    /// The snapshot, with what it counted.
    pub report: Option<BackupReport>,
    /// What was copied to it instead.
    pub copied: Option<Copied>,
    /// Why, if it is not well.
    pub message: Option<String>,
    /// Snapshots that retention forgot.
    pub forgotten: usize,
}

/// What a repository got from another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Copied {
    /// The repository that it was copied from.
    pub from: Name,
    /// The newest snapshot, as it is called here.
    pub snapshot: Option<SnapshotId>,
    /// What was copied.
    pub report: CopyReport,
}

impl RepoReport {
    /// One without a snapshot.
    pub(super) fn failed(repo: &Name, message: &str) -> Self {
        let message = Some(message.to_owned());
        let outcome = Outcome::Failed;
        Self { repo: repo.clone(), outcome, report: None, copied: None, message, forgotten: 0 }
    }

    /// One that got copies of snapshots, of which `newest` is the one that matters.
    ///
    /// # Errors
    /// Why that one is not there.
    pub(super) fn copied(
        from: &Name,
        to: &Name,
        (newest, summary): &(SnapshotId, SnapshotSummary),
        report: CopyReport,
    ) -> Result<Self, String> {
        let of_newest = report.snapshots.iter().find(|copy| copy.source == *newest);
        let snapshot = of_newest.and_then(|copy| copy.target);
        let missing = report.damaged();
        let reason = report.snapshots.iter().find_map(|copy| match &copy.fate {
            Fate::Damaged { reason } => Some(reason.as_str()),
            _ => None,
        });
        if snapshot.is_none() {
            return Err(reason.unwrap_or("the newest snapshot was forgotten").to_owned());
        }
        let older = match missing {
            0 => None,
            1 => Some("an older snapshot".to_owned()),
            count => Some(format!("{count} older snapshots")),
        };
        let older = older.map(|older| {
            format!("{older} cannot be copied from {from}: {}", reason.unwrap_or("something is damaged"))
        });
        let messages: Vec<_> = incomplete(summary).into_iter().chain(older).collect();
        let outcome = if messages.is_empty() { Outcome::Ok } else { Outcome::Partial };
        let message = (!messages.is_empty()).then(|| messages.join("; "));
        let copied = Some(Copied { from: from.clone(), snapshot, report });
        Ok(Self { repo: to.clone(), outcome, report: None, copied, message, forgotten: 0 })
    }

    /// Whether it did not get what the plan says.
    pub fn is_missing(&self) -> bool {
        self.outcome.is_missing()
    }

    /// The snapshot.
    pub fn snapshot(&self) -> Option<SnapshotId> {
        let copied = self.copied.as_ref().and_then(|copied| copied.snapshot);
        self.report.as_ref().and_then(|report| report.snapshot).or(copied)
    }
}

impl DomainReport {
    pub(crate) fn new(domain: &Name) -> Self {
        Self {
            domain: domain.clone(),
            outcome: Outcome::Ok,
            message: None,
            warnings: Vec::new(),
            anomalies: Vec::new(),
            is_guarded: false,
            repositories: Vec::new(),
            deferral: None,
        }
    }

    /// Whether there is a repository that it was for and failed, or it was not begun.
    pub fn is_bad(&self) -> bool {
        self.outcome.is_missing()
    }

    /// The domain that it waits for, if another run is at work on that, and it was not begun for that.
    pub fn waits_for(&self) -> Option<&Name> {
        let deferral = self.deferral.as_ref().filter(|deferral| deferral.at_work != self.domain);
        deferral.map(|deferral| &deferral.at_work)
    }

    /// Whether all repositories that it was for have a snapshot.
    pub fn is_everywhere(&self) -> bool {
        !self.is_bad() && !self.repositories.iter().any(RepoReport::is_missing)
    }

    /// Why it is not well: what failed first, what a snapshot lacks, or what else is worse than it should be.
    pub fn why(&self) -> Option<&str> {
        let lacking = self.repositories.iter().filter(|repo| repo.outcome == Outcome::Partial);
        let lacking = lacking.filter_map(|repo| repo.message.as_ref());
        self.message.iter().chain(lacking).chain(&self.warnings).next().map(String::as_str)
    }

    /// Whether something is known of a repository.
    pub(super) fn knows(&self, repo: &Name) -> bool {
        self.repositories.iter().any(|known| known.repo == *repo)
    }

    /// Those of which nothing is known yet.
    pub(super) fn unknown<'n>(&self, targets: &[&'n Name]) -> Vec<&'n Name> {
        targets.iter().filter(|target| !self.knows(target)).copied().collect()
    }

    /// Takes note that a repository is left out, because a domain that comes before this one has not got there.
    pub(super) fn leave_out(&mut self, repo: &Name, because: &Name) {
        let message = format!("it comes after {because}, which did not get there");
        self.warn(format!("{repo}: {message}"));
        let skipped = RepoReport { outcome: Outcome::Skipped, ..RepoReport::failed(repo, &message) };
        self.repositories.push(skipped);
    }

    /// Takes note that the domain is not begun, because one that comes before it failed.
    pub(super) fn skip(&mut self, because: &Name) {
        self.outcome = Outcome::Skipped;
        self.message = Some(format!("it comes after {because}, which failed"));
        self.warnings.clear();
    }

    /// Takes note that the domain is not begun, because another run is at work on it, or on one that it comes after.
    pub(super) fn defer(&mut self, targets: &[&Name], deferral: Deferral) {
        let Deferral { at_work, holder } = &deferral;
        let message = match *at_work == self.domain {
            true => format!("another run is at work on it{holder}"),
            false => format!("not run: waits for {at_work}, which another run is at work on{holder}"),
        };
        for repo in self.unknown(targets) {
            let deferred = RepoReport { outcome: Outcome::Deferred, ..RepoReport::failed(repo, &message) };
            self.repositories.push(deferred);
        }
        self.outcome = Outcome::Deferred;
        self.message = Some(message);
        self.deferral = Some(deferral);
    }

    /// Takes note that nothing is begun in those of `targets` of which nothing is known yet: for each of them it is on record.
    pub(super) fn fail_before(&mut self, targets: &[&Name], message: &str) {
        self.fail(message);
        for repo in self.unknown(targets) {
            self.repositories.push(RepoReport::failed(repo, message));
        }
    }

    /// Takes note of what became of a repository.
    pub(super) fn take(&mut self, done: RepoReport) {
        match done.outcome {
            Outcome::Failed => {
                let message = done.message.as_deref().unwrap_or("there is no snapshot");
                self.fail(format!("{}: {message}", done.repo));
            }
            outcome => self.outcome = self.outcome.max(outcome),
        }
        self.repositories.push(done);
    }

    pub(super) fn fail(&mut self, message: impl Into<String>) {
        self.outcome = Outcome::Failed;
        self.message.get_or_insert_with(|| message.into());
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.outcome = self.outcome.max(Outcome::Partial);
        self.warnings.push(warning.into());
    }
}

/// What a snapshot lacks, if it lacks something.
pub(super) fn incomplete(summary: &SnapshotSummary) -> Option<String> {
    let SnapshotSummary { errors, unstable, .. } = summary;
    (*errors > 0 || *unstable > 0).then(|| {
        let (entries, files) = (count(*errors, "entry"), count(*unstable, "file"));
        let they_were = verb(*unstable, "it was", "they were");
        format!("{entries} could not be read, {files} changed while {they_were} read")
    })
}
