//! How a run went: for each domain, and for each repository of it.

use strongroom::backup::BackupReport;
use strongroom::copy::{CopyReport, Fate};
use strongroom::ids::SnapshotId;

use crate::plan::values::Name;
use crate::run::state::Outcome;

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
    /// What became of each repository.
    pub repositories: Vec<RepoReport>,
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
    pub(super) fn copied(from: &Name, to: &Name, newest: SnapshotId, report: CopyReport) -> Self {
        let of_newest = report.snapshots.iter().find(|copy| copy.source == newest);
        let snapshot = of_newest.and_then(|copy| copy.target);
        let missing = report.snapshots.iter().filter(|copy| copy.target.is_none()).count();
        let reason = report.snapshots.iter().find_map(|copy| match &copy.fate {
            Fate::Damaged { reason } => Some(reason.as_str()),
            _ => None,
        });
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        let (outcome, message) = match (snapshot, missing) {
            (None, _) => (Outcome::Failed, Some(format!("cannot be copied from {from}{reason}"))),
            (Some(_), 0) => (Outcome::Ok, None),
            (Some(_), 1) => {
                (Outcome::Partial, Some(format!("an older snapshot cannot be copied from {from}{reason}")))
            }
            (Some(_), count) => (
                Outcome::Partial,
                Some(format!("{count} older snapshots cannot be copied from {from}{reason}")),
            ),
        };
        let copied = Some(Copied { from: from.clone(), snapshot, report });
        Self { repo: to.clone(), outcome, report: None, copied, message, forgotten: 0 }
    }

    /// The snapshot.
    pub fn snapshot(&self) -> Option<SnapshotId> {
        let copied = self.copied.as_ref().and_then(|copied| copied.snapshot);
        self.report.as_ref().and_then(|report| report.snapshot).or(copied)
    }
}

impl DomainReport {
    pub(super) fn new(domain: &Name) -> Self {
        Self {
            domain: domain.clone(),
            outcome: Outcome::Ok,
            message: None,
            warnings: Vec::new(),
            anomalies: Vec::new(),
            repositories: Vec::new(),
        }
    }

    /// One that was not begun.
    pub fn skipped(domain: &Name, because: &Name) -> Self {
        let message = Some(format!("it comes after {because}, which failed"));
        Self { outcome: Outcome::Skipped, message, ..Self::new(domain) }
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
