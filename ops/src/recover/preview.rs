//! What a recovery would do, how long it would take, and what stands in its way.

use std::path::PathBuf;

use jiff::Timestamp;
use strongroom::ids::SnapshotId;

use crate::drill::{DrillRecord, history};
use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::plan::values::{Argv, Lapse, Name};
use crate::recover::facts::Fact;
use crate::recover::journal::Load;
use crate::recover::record::{self, RecoveryRecord};
use crate::recover::targets::Found;
use crate::run::vault::VaultError;
use crate::status::DomainStatus;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Domains.
    pub names: Vec<String>,
    /// From this repository.
    pub from: Option<String>,
    /// `latest`, `before:7d`, or the beginning of an id.
    pub snapshot: String,
    /// Facts that may be different.
    pub allow_drift: Vec<String>,
}

impl Wish {
    pub(super) fn is_id(&self) -> bool {
        self.snapshot != "latest" && !self.snapshot.starts_with("before:")
    }
}

/// Why nothing is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable name for programs.
    pub code: String,
    /// What stands in the way.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Refusal {
    /// A request that cannot be meant.
    pub(super) fn usage(message: String, hint: String) -> Self {
        Self { code: "usage".into(), message, hint: Some(hint) }
    }

    pub(super) fn failed(code: &str, message: String, hint: String) -> Self {
        Self { code: code.into(), message, hint: Some(hint) }
    }

    pub(super) fn of_vault(domain: &Domain, repo: &Name, error: &VaultError) -> Self {
        let message = format!("{} from {repo}: {}", domain.name, error.message);
        let hint = "--from takes another repository of the plan".to_owned();
        Self { code: error.code.clone(), message, hint: Some(hint) }
    }
}

/// How long a recovery took before.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// In seconds.
    pub seconds: f64,
    /// The drill that measured it; none if it was a recovery.
    pub drill: Option<Name>,
    /// When.
    pub began: Timestamp,
    /// The bytes that were restored then.
    pub bytes: u64,
}

/// What becomes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPreview {
    /// The stream.
    pub name: String,
    /// The command that is given it.
    pub command: Option<Argv>,
    /// Under which name, and what is then done with it; none where nothing loads it.
    pub load: Option<Load>,
    /// Whether it is put in the place of what is in use.
    pub is_swapped: bool,
    /// Its bytes.
    pub bytes: u64,
}

/// What is needed of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// A directory in it.
    pub folder: PathBuf,
    /// Bytes that are needed beside what is there.
    pub needed: u64,
    /// Bytes that can be written.
    pub free: u64,
}

/// What would be done with a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The domain.
    pub domain: Name,
    /// From where.
    pub repository: Name,
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// When that was begun.
    pub time: Timestamp,
    /// How old it is.
    pub age: Lapse,
    /// How old it may be.
    pub rpo: Option<Lapse>,
    /// Within which time the domain has to be back.
    pub rto: Option<Lapse>,
    /// How long it took before.
    pub measured: Option<Measured>,
    /// Files and directories.
    pub targets: Vec<Found>,
    /// Streams.
    pub streams: Vec<StreamPreview>,
    /// Where these are put before they are loaded.
    pub scratch: PathBuf,
    /// What is needed of file systems.
    pub space: Vec<Space>,
    /// Facts.
    pub facts: Vec<Fact>,
    /// Entries that no snapshot has and that are in a target.
    pub left_out: usize,
    /// Whether they are moved along.
    pub carries: bool,
    /// What there is to know.
    pub notes: Vec<String>,
    /// What will be left to do.
    pub left: Vec<String>,
    /// What stands in the way.
    pub blockers: Vec<Refusal>,
}

impl Preview {
    /// Streams to load.
    pub(super) fn loads(&self) -> Vec<Load> {
        self.streams.iter().filter_map(|stream| stream.load.clone()).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers hand on what they have just made")]
    pub(super) fn block(&mut self, code: &str, message: String, hint: &str) {
        self.blockers.push(Refusal::failed(code, format!("{}: {message}", self.domain), hint.to_owned()));
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Measurements<'a> {
    /// By drills.
    pub drills: &'a [DrillRecord],
    /// By recoveries.
    pub recoveries: &'a [RecoveryRecord],
}

impl Measurements<'_> {
    /// What says best how long a domain takes: its last recovery, else the last drill that restored all of it.
    pub fn of(&self, plan: &Plan, domain: &Name) -> Option<Measured> {
        self.by_recovery(domain).or_else(|| self.by_drill(plan, domain))
    }

    /// What was measured last, which is what a target is held against.
    pub fn newest(&self, plan: &Plan, domain: &Name) -> Option<Measured> {
        let both = [self.by_recovery(domain), self.by_drill(plan, domain)];
        both.into_iter().flatten().max_by_key(|measured| measured.began)
    }

    /// Adds to the status of domains how long a recovery takes.
    pub fn tell(&self, plan: &Plan, found: &mut [DomainStatus]) {
        for status in found {
            status.recovery_seconds = self.newest(plan, &status.domain).map(|measured| measured.seconds);
        }
    }

    fn by_recovery(&self, domain: &Name) -> Option<Measured> {
        let last = record::measured(self.recoveries, domain)?;
        Some(Measured { seconds: last.seconds(), drill: None, began: last.began, bytes: last.bytes })
    }

    fn by_drill(&self, plan: &Plan, domain: &Name) -> Option<Measured> {
        let drill = history::measured(plan, domain, self.drills)?;
        let bytes = drill.restored.iter().find(|one| one.domain == *domain).map_or(0, |one| one.bytes);
        Some(Measured {
            seconds: drill.seconds(),
            drill: Some(drill.drill.clone()),
            began: drill.began,
            bytes,
        })
    }
}
