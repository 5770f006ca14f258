//! How a run went: for each domain, and for each repository of it.

use strongroom::backup::BackupReport;
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
    /// Why, if it is not well.
    pub message: Option<String>,
    /// Snapshots that retention forgot.
    pub forgotten: usize,
}

impl RepoReport {
    /// One without a snapshot.
    pub(super) fn failed(repo: &Name, message: &str) -> Self {
        let message = Some(message.to_owned());
        Self { repo: repo.clone(), outcome: Outcome::Failed, report: None, message, forgotten: 0 }
    }

    /// The snapshot.
    pub fn snapshot(&self) -> Option<SnapshotId> {
        self.report.as_ref().and_then(|report| report.snapshot)
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

    pub(super) fn fail(&mut self, message: impl Into<String>) {
        self.outcome = Outcome::Failed;
        self.message.get_or_insert_with(|| message.into());
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.outcome = self.outcome.max(Outcome::Partial);
        self.warnings.push(warning.into());
    }
}
