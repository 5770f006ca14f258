//! How recoveries ended, how long they took, and what status says of those that have not.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom::format::note::{DrillPhase, RecoveryNote};
use strongroom::format::tree::Timestamp as Stamp;
use strongroom::ids::SnapshotId;

use crate::plan::values::Name;
use crate::recover::journal::{Journal, Step, Timed};
use crate::run::process::without_output;
use crate::run::state::State;
use crate::status::{DomainStatus, Health};

const RECORDS: &str = "recoveries.jsonl";

/// How the recovery of a domain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryOutcome {
    /// All is in its place.
    Recovered,
    /// What could be put in its place is; something is left to do.
    Partial,
    /// It failed, and what was there before is in its place.
    Failed,
    /// It was not begun, because one that it comes after failed.
    Skipped,
    /// It can go neither on nor back by itself.
    Unfinished,
    /// What was there before was put back.
    RolledBack,
    /// What was kept was removed.
    Committed,
}

impl RecoveryOutcome {
    const ALL: [Self; 7] = [
        Self::Recovered,
        Self::Partial,
        Self::Failed,
        Self::Skipped,
        Self::Unfinished,
        Self::RolledBack,
        Self::Committed,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Unfinished => "unfinished",
            Self::RolledBack => "rolled-back",
            Self::Committed => "committed",
        }
    }
}

/// What a failure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing of the backup.
    Failed,
    /// What was restored is not what it should be.
    Damage,
}

/// How the recovery of a domain ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryRecord {
    /// The recovery.
    pub recovery: String,
    /// The domain.
    pub domain: Name,
    /// From where.
    pub repository: Name,
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// When the recovery began.
    pub began: Timestamp,
    /// How it ended.
    pub outcome: RecoveryOutcome,
    /// What a failure says.
    pub cause: Option<Cause>,
    /// Why, if it did not end well.
    pub reason: Option<String>,
    /// How long its steps took.
    pub steps: Vec<Timed>,
    /// Files that were restored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Within how many seconds the domain has to be back.
    pub rto: Option<u64>,
    /// What is left to do, also after it was put back. Nothing that a command said.
    pub left: Vec<String>,
    /// Where what was there before is kept.
    pub kept: Vec<String>,
    /// What went wrong beside.
    pub warnings: Vec<String>,
}

impl RecoveryRecord {
    pub(super) fn of(journal: &Journal, rto: Option<u64>) -> Self {
        Self {
            recovery: journal.id.clone(),
            domain: journal.domain.clone(),
            repository: journal.repository.clone(),
            snapshot: journal.snapshot,
            began: journal.began,
            outcome: RecoveryOutcome::Recovered,
            cause: None,
            reason: None,
            steps: journal.timed.clone(),
            files: journal.files,
            bytes: journal.bytes,
            rto,
            left: Vec::new(),
            kept: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// As it is kept and sent elsewhere: see [`without_output`].
    #[must_use]
    pub fn without_output(&self) -> Self {
        Self {
            reason: self.reason.as_deref().map(without_output),
            warnings: self.warnings.iter().map(|warning| without_output(warning)).collect(),
            ..self.clone()
        }
    }

    /// Seconds that it took.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|timed| timed.seconds).sum()
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers hand on what they have just made")]
    pub(super) fn warn(&mut self, message: impl ToString) {
        self.warnings.push(message.to_string());
    }

    /// What a note says, in the log of this repository, of a snapshot of so many files and bytes; nothing if it cannot be understood.
    pub(crate) fn of_note(note: &RecoveryNote, repository: &Name, files: u64, bytes: u64) -> Option<Self> {
        let timed = |part: &DrillPhase| {
            let step = Step::ALL.into_iter().find(|step| step.name() == part.phase)?;
            Some(Timed { step, seconds: Duration::from_nanos(part.duration_ns).as_secs_f64() })
        };
        Some(Self {
            recovery: note.recovery.clone(),
            domain: note.domain.parse().ok()?,
            repository: repository.clone(),
            snapshot: note.snapshot,
            began: Timestamp::new(note.began.seconds, i32::try_from(note.began.nanos).ok()?).ok()?,
            outcome: RecoveryOutcome::ALL.into_iter().find(|outcome| outcome.name() == note.outcome)?,
            cause: None,
            reason: Some(note.reason.clone()).filter(|reason| !reason.is_empty()),
            steps: note.phases.iter().map(timed).collect::<Option<_>>()?,
            files,
            bytes,
            rto: None,
            left: Vec::new(),
            kept: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// What the repository's log keeps of it.
    pub fn note(&self) -> RecoveryNote {
        let nanos = |seconds: f64| {
            u64::try_from(Duration::from_secs_f64(seconds.max(0.0)).as_nanos()).unwrap_or(u64::MAX)
        };
        let phase =
            |timed: &Timed| DrillPhase { phase: timed.step.name().into(), duration_ns: nanos(timed.seconds) };
        RecoveryNote {
            recovery: self.recovery.clone(),
            domain: self.domain.to_string(),
            outcome: self.outcome.name().into(),
            reason: self.reason.clone().unwrap_or_default(),
            began: Stamp {
                seconds: self.began.as_second(),
                nanos: u32::try_from(self.began.subsec_nanosecond()).unwrap_or(0),
            },
            snapshot: self.snapshot,
            phases: self.steps.iter().map(phase).collect(),
        }
    }
}

impl State {
    pub(super) fn record_recovery(&self, record: &RecoveryRecord) -> io::Result<()> {
        self.append(RECORDS, record)
    }

    /// All recoveries that are remembered, in the order they ended.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn recovery_records(&self) -> io::Result<Vec<RecoveryRecord>> {
        self.records(RECORDS)
    }
}

/// The last recovery of a domain that says how long one takes.
pub fn measured<'r>(records: &'r [RecoveryRecord], domain: &Name) -> Option<&'r RecoveryRecord> {
    let is_whole = |record: &&RecoveryRecord| {
        record.domain == *domain
            && matches!(record.outcome, RecoveryOutcome::Recovered | RecoveryOutcome::Partial)
    };
    records.iter().rev().find(is_whole)
}

/// What to do about a recovery that has not come to its end, or of which something is kept.
pub fn advice(journal: &Journal) -> Option<String> {
    let name = &journal.domain;
    let began = journal.began.strftime("%Y-%m-%d %H:%M UTC");
    if journal.is_unfinished() {
        let (step, way) =
            (journal.step.name(), if journal.back.is_some() { ", on its way back" } else { "" });
        return Some(format!(
            "the recovery of {name} that was begun {began} is unfinished (step {step}{way}): `strongroom recover --resume` goes on, \
             `strongroom recover --rollback {name}` puts back what was there"
        ));
    }
    (journal.step == Step::Done).then(|| {
        format!(
            "what was there before the recovery of {name} on {began} is kept: `strongroom recover --commit {name}` removes it, \
             `strongroom recover --rollback {name}` puts it back"
        )
    })
}

/// What recoveries say of domains that the plan does not have any more: services may be stopped, and nobody else tells of it.
pub fn unplanned(journals: &[Journal], is_at_work: &dyn Fn(&Name) -> bool) -> Vec<DomainStatus> {
    let bare = |journal: &Journal| DomainStatus::of(journal.domain.clone(), Health::Warning);
    let mut found: Vec<_> = journals.iter().map(bare).collect();
    judge(&mut found, journals, is_at_work);
    found.retain(|status| !status.reasons.is_empty());
    for status in &mut found {
        status.reasons.push(
            "the plan does not have this domain any more: what is to be done needs it there, as it was"
                .into(),
        );
    }
    found
}

/// Adds to the status of domains what recoveries say of them: one that was killed may have left services stopped.
pub fn judge(found: &mut [DomainStatus], journals: &[Journal], is_at_work: &dyn Fn(&Name) -> bool) {
    for status in found {
        let Some(journal) = journals.iter().find(|journal| journal.domain == status.domain) else { continue };
        if journal.is_unfinished() && is_at_work(&journal.domain) {
            status.health = status.health.max(Health::Warning);
            status.reasons.push(format!("a recovery is at work (step {})", journal.step.name()));
            continue;
        }
        if journal.is_unfinished() {
            status.health = status.health.max(Health::Critical);
        }
        if journal.is_leftover() && journal.step == Step::Undone && !journal.left.is_empty() {
            status.health = status.health.max(Health::Warning);
            status.reasons.extend(journal.left.iter().cloned());
        }
        status.reasons.extend(advice(journal));
    }
}
