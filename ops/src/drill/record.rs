//! How a drill ended.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom::format::note::{DrillNote, DrillPhase};
use strongroom::format::tree::Timestamp as Stamp;
use strongroom::ids::SnapshotId;

use crate::plan::types::Tier;
use crate::plan::values::Name;
use crate::run::process::without_output;

/// The three ways to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillOutcome {
    /// Everything that the tier asks for was done, and was right.
    Pass,
    /// The data, the application or the time was not as it has to be.
    Fail,
    /// It could not be found out.
    Unverified,
}

/// The parts of a drill, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Finding the snapshots.
    Locate,
    /// Restoring into the scratch directory.
    Fetch,
    /// Comparing what is there with the snapshot.
    Verify,
    /// Loading streams.
    Load,
    /// Starting an application.
    Start,
    /// Waiting for it.
    Ready,
    /// Commands that have to say the right thing.
    Check,
    /// Ending what was started, removing what was restored.
    Cleanup,
}

/// How long a phase took, all its parts together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// The phase.
    pub phase: Phase,
    /// Seconds.
    pub seconds: f64,
}

/// What was restored of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// The domain.
    pub domain: Name,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Files that were restored, or looked at.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// The drill.
    pub drill: Name,
    /// How much was restored.
    pub tier: Tier,
    /// From which repository; none if it did not get there.
    pub repository: Option<Name>,
    /// When it began.
    pub began: Timestamp,
    /// How it ended.
    pub outcome: DrillOutcome,
    /// Why, if it did not pass.
    pub reason: Option<String>,
    /// Whether something was damaged on purpose.
    pub self_test: bool,
    /// What was restored.
    pub restored: Vec<Restoration>,
    /// How long its phases took.
    pub phases: Vec<Timed>,
    /// The time within which its domains have to be back, in seconds; a log does not say it.
    pub rto: Option<u64>,
}

impl DrillOutcome {
    const ALL: [Self; 3] = [Self::Pass, Self::Fail, Self::Unverified];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unverified => "unverified",
        }
    }
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Locate,
        Self::Fetch,
        Self::Verify,
        Self::Load,
        Self::Start,
        Self::Ready,
        Self::Check,
        Self::Cleanup,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Locate => "locate",
            Self::Fetch => "fetch",
            Self::Verify => "verify",
            Self::Load => "load",
            Self::Start => "start",
            Self::Ready => "ready",
            Self::Check => "check",
            Self::Cleanup => "cleanup",
        }
    }
}

impl Tier {
    const ALL: [Self; 3] = [Self::Metadata, Self::Sample, Self::Full];

    /// As a plan has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Sample => "sample",
            Self::Full => "full",
        }
    }
}

impl DrillRecord {
    /// Seconds that a recovery would have taken: everything but the cleanup.
    pub fn seconds(&self) -> f64 {
        self.phases.iter().filter(|timed| timed.phase != Phase::Cleanup).map(|timed| timed.seconds).sum()
    }

    /// As it is kept and sent elsewhere: see [`without_output`].
    #[must_use]
    pub fn without_output(&self) -> Self {
        Self { reason: self.reason.as_deref().map(without_output), ..self.clone() }
    }

    /// Takes note of why nobody will know of it: a pass is none then, and whatever else it is has that as a reason, too.
    pub(super) fn went_unrecorded(&mut self, why: &str) {
        if self.outcome == DrillOutcome::Pass {
            self.outcome = DrillOutcome::Unverified;
        }
        // What kept it from being verified keeps it from being recorded.
        if self.outcome == DrillOutcome::Unverified
            && self.reason.as_ref().is_some_and(|reason| why.ends_with(reason.as_str()))
        {
            return;
        }
        // In front: what commands said stands at the end.
        let more = self.reason.as_ref().map_or(String::new(), |reason| format!("; {reason}"));
        self.reason = Some(format!("{why}{more}"));
    }

    /// The drill, and from where, for a sentence.
    pub fn told(&self) -> String {
        let from = self.repository.as_ref().map_or(String::new(), |repo| format!(" from {repo}"));
        format!("{}{from}", self.drill)
    }

    /// Whether it says how long a recovery takes: a whole one, of sound data.
    pub fn is_measured(&self) -> bool {
        let is_sound = self.outcome == DrillOutcome::Pass || self.is_late();
        is_sound && self.tier == Tier::Full && !self.self_test
    }

    /// What there is to say of one that did everything, and not in time.
    pub(super) fn too_slow(&self, rto: u64) -> String {
        format!("{}{rto} s", self.took())
    }

    fn took(&self) -> String {
        format!("a recovery takes {} s, and has to be done in ", self.seconds().ceil())
    }

    /// Whether it failed by its time alone. Of what a log keeps nothing else tells.
    pub fn is_late(&self) -> bool {
        let says_so = |reason: &String| reason.starts_with(&self.took());
        self.outcome == DrillOutcome::Fail && self.reason.as_ref().is_some_and(says_so)
    }

    /// What a note says, in the log of this repository, of which `restored` is known; nothing if it cannot be understood.
    pub(crate) fn of_note(note: &DrillNote, repo: &Name, restored: Vec<Restoration>) -> Option<Self> {
        let timed = |part: &DrillPhase| {
            let phase = Phase::ALL.into_iter().find(|phase| phase.name() == part.phase)?;
            Some(Timed { phase, seconds: Duration::from_nanos(part.duration_ns).as_secs_f64() })
        };
        Some(Self {
            drill: note.drill.parse().ok()?,
            tier: Tier::ALL.into_iter().find(|tier| tier.name() == note.tier)?,
            repository: Some(repo.clone()),
            began: Timestamp::new(note.began.seconds, i32::try_from(note.began.nanos).ok()?).ok()?,
            outcome: DrillOutcome::ALL.into_iter().find(|outcome| outcome.name() == note.outcome)?,
            reason: Some(note.reason.clone()).filter(|reason| !reason.is_empty()),
            self_test: note.self_test,
            restored,
            phases: note.phases.iter().map(timed).collect::<Option<_>>()?,
            rto: None,
        })
    }

    /// What the repository's log keeps of it.
    pub fn note(&self) -> DrillNote {
        let nanos = |seconds: f64| {
            u64::try_from(Duration::from_secs_f64(seconds.max(0.0)).as_nanos()).unwrap_or(u64::MAX)
        };
        DrillNote {
            drill: self.drill.to_string(),
            tier: self.tier.name().into(),
            outcome: self.outcome.name().into(),
            reason: self.reason.clone().unwrap_or_default(),
            self_test: self.self_test,
            began: Stamp {
                seconds: self.began.as_second(),
                nanos: u32::try_from(self.began.subsec_nanosecond()).unwrap_or(0),
            },
            snapshots: self.restored.iter().map(|restored| restored.snapshot).collect(),
            phases: self
                .phases
                .iter()
                .map(|timed| DrillPhase {
                    phase: timed.phase.name().into(),
                    duration_ns: nanos(timed.seconds),
                })
                .collect(),
        }
    }
}
