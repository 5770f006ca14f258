//! Whether the targets of a plan are met: by what is in the repositories and their logs, and by the records of this host.
//!
//! A target that an exception allows to be missed is excused as long as that holds; an exception that has expired is itself a
//! violation, until it is approved anew or taken out of the plan.

mod copies;
mod rehearsed;
#[cfg(test)]
mod tests;

use jiff::{Timestamp, Zoned};
use strongroom::format::provenance::Consistency as Recorded;

use self::copies::Copy;
use crate::drill::{DrillOutcome, DrillRecord};
use crate::plan::types::{Consistency, Control, Domain, Exception, Verify};
use crate::plan::values::{Lapse, Name};
use crate::plan::{Objectives, Plan};
use crate::recover::RecoveryRecord;
use crate::run::state::{Attempt, RepoAttempt};
use crate::status::{Facts, is_to_come, rough};
use crate::verify::{self, Known, Verdict, Verification, too_little};
use crate::words;

/// How a target stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is met.
    Met,
    /// It is missed, and an exception allows that.
    Excused,
    /// It cannot be told.
    Unknown,
    /// It is missed.
    Violated,
}

impl Standing {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Excused => "excused",
            Self::Unknown => "unknown",
            Self::Violated => "violated",
        }
    }
}

/// One target of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The domain.
    pub domain: Name,
    /// The target.
    pub control: Control,
    /// How it stands.
    pub standing: Standing,
    /// What is wanted.
    pub wanted: String,
    /// What there is.
    pub found: String,
    /// The exception that excuses it.
    pub exception: Option<String>,
    /// Whether damage was found: no exception excuses that.
    pub is_damage: bool,
}

/// All targets of a plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Compliance {
    /// The targets of domains, in the order of the plan.
    pub findings: Vec<Finding>,
    /// Exceptions that do not hold any more.
    pub expired: Vec<Exception>,
}

impl Compliance {
    /// How many targets stand so; an expired exception is violated.
    pub fn count(&self, standing: Standing) -> usize {
        let expired = if standing == Standing::Violated { self.expired.len() } else { 0 };
        self.findings.iter().filter(|finding| finding.standing == standing).count() + expired
    }
}

/// What is known.
pub struct Evidence<'e, 'f> {
    /// The host that snapshots say they are from.
    pub host: &'e str,
    /// The snapshots of repositories.
    pub snapshots: &'e Facts<'f>,
    /// What is known of their packs.
    pub known: &'e dyn Fn(&Name) -> Result<Known, String>,
    /// Verifications on this host.
    pub verifications: &'e [Verification],
    /// Attempts on this host.
    pub attempts: &'e [Attempt],
    /// Drills.
    pub drills: &'e [DrillRecord],
    /// Recoveries.
    pub recoveries: &'e [RecoveryRecord],
    /// Repositories whose logs may tell of more of both.
    pub unasked: &'e [Name],
    /// The time.
    pub now: &'e Zoned,
}

/// Judges all targets.
pub fn compliance(plan: &Plan, evidence: &Evidence<'_, '_>) -> Compliance {
    let today = evidence.now.date();
    // A pass that is to come is a wrong clock's, and says nothing of today.
    let is_known =
        |drill: &&DrillRecord| drill.outcome != DrillOutcome::Pass || !is_to_come(drill.began, evidence.now);
    let drills: Vec<_> = evidence.drills.iter().filter(is_known).cloned().collect();
    let evidence = &Evidence { drills: &drills, ..*evidence };
    let mut findings = Vec::new();
    for domain in &plan.domains {
        let judge = Judge::new(plan, evidence, domain);
        findings.extend(judge.all());
    }
    let may_be_excused = |finding: &&mut Finding| match finding.standing {
        Standing::Violated => !finding.is_damage,
        // Whoever allows that it takes longer need not have it measured.
        Standing::Unknown => finding.control == Control::Rto,
        Standing::Met | Standing::Excused => false,
    };
    for finding in findings.iter_mut().filter(may_be_excused) {
        if let Some(exception) = plan.exception(finding.control, &finding.domain, today) {
            finding.standing = Standing::Excused;
            finding.exception = Some(exception.id.clone());
        }
    }
    let expired = plan.exceptions.iter().filter(|exception| exception.expires < today).cloned().collect();
    Compliance { findings, expired }
}

struct Judge<'j, 'e, 'f> {
    plan: &'j Plan,
    evidence: &'j Evidence<'e, 'f>,
    domain: &'j Domain,
    objectives: Objectives,
    copies: Vec<(&'j Name, Copy<'f>)>,
    /// Why some of it counts for less than it seems to.
    flaws: Vec<String>,
}

impl<'j, 'e, 'f> Judge<'j, 'e, 'f> {
    fn new(plan: &'j Plan, evidence: &'j Evidence<'e, 'f>, domain: &'j Domain) -> Self {
        let (copies, flaws) = copies::of(plan, evidence, domain);
        Self { plan, evidence, domain, objectives: plan.objectives(domain), copies, flaws }
    }

    fn all(&self) -> Vec<Finding> {
        let found = [
            self.rpo(),
            self.rto(),
            Some(self.copies()),
            self.sites(),
            self.consistency(),
            self.verify(),
            self.drill(),
            self.retention(),
        ];
        found.into_iter().flatten().collect()
    }

    fn finding(&self, control: Control, standing: Standing, wanted: String, found: String) -> Finding {
        let (domain, exception) = (self.domain.name.clone(), None);
        Finding { domain, control, standing, wanted, found, exception, is_damage: false }
    }

    fn age(&self, time: Timestamp) -> Lapse {
        let secs = self.evidence.now.timestamp().duration_since(time).as_secs();
        Lapse::seconds(u64::try_from(secs).unwrap_or(0))
    }

    fn is_some_unknown(&self) -> bool {
        self.copies.iter().any(|(_, copy)| matches!(copy, Copy::Unknown))
    }

    /// What is missed for sure, or may be met by what is not known.
    fn missed(&self) -> Standing {
        if self.is_some_unknown() { Standing::Unknown } else { Standing::Violated }
    }

    fn limit(&self) -> Option<u64> {
        self.objectives.rpo.map(|rpo| rpo.as_secs() + self.objectives.rpo_grace.as_secs())
    }

    /// The newest copy decides: it is what would be lost.
    fn rpo(&self) -> Option<Finding> {
        let (rpo, limit) = (self.objectives.rpo?, self.limit()?);
        let times = self.copies.iter().filter_map(|(_, copy)| match copy {
            Copy::Some { time, .. } => Some(*time),
            _ => None,
        });
        let (standing, found) = match times.max().map(|time| self.age(time)) {
            None => (self.missed(), "no complete snapshot".to_owned()),
            Some(age) if age.as_secs() <= limit => (Standing::Met, format!("{} old", rough(age))),
            Some(age) => (self.missed(), format!("{} old", rough(age))),
        };
        let found = self.with_flaws(standing, found);
        let wanted = match self.objectives.rpo_grace.as_secs() {
            0 => format!("at most {rpo} old"),
            _ => format!("at most {rpo} old (and {} more)", self.objectives.rpo_grace),
        };
        Some(self.finding(Control::Rpo, standing, wanted, found))
    }

    /// Repositories with a complete snapshot that lacks nothing and is not too old, each once.
    fn fresh(&self) -> Vec<&'j Name> {
        let is_fresh = |copy: &Copy<'_>| match copy {
            Copy::Some { time, .. } => self.limit().is_none_or(|limit| self.age(*time).as_secs() <= limit),
            _ => false,
        };
        let fresh = self.copies.iter().enumerate().filter(|(_, (_, copy))| is_fresh(copy));
        let is_another =
            |at: usize| !self.copies[..at].iter().any(|(_, other)| self.copies[at].1.is_that_of(other));
        fresh.filter(|(at, _)| is_another(*at)).map(|(_, (repo, _))| *repo).collect()
    }

    fn with_flaws(&self, standing: Standing, found: String) -> String {
        match standing == Standing::Met || self.flaws.is_empty() {
            true => found,
            false => format!("{found}; {}", self.flaws.join("; ")),
        }
    }

    fn at_least(&self, control: Control, wanted: u32, found: usize, what: &str) -> Finding {
        let standing = if found >= wanted as usize { Standing::Met } else { self.missed() };
        let found = self.with_flaws(standing, format!("{found} {what}"));
        self.finding(control, standing, format!("at least {wanted}"), found)
    }

    fn copies(&self) -> Finding {
        self.at_least(Control::Copies, self.objectives.copies, self.fresh().len(), "with a fresh snapshot")
    }

    /// One that does not say where it is may be where another one is.
    fn sites(&self) -> Option<Finding> {
        let (wanted, sites) = (self.objectives.sites, self.plan.sites(self.fresh()));
        (wanted > 1).then(|| self.at_least(Control::Sites, wanted, sites, "with a fresh snapshot"))
    }

    fn consistency(&self) -> Option<Finding> {
        let wanted = self.objectives.min_consistency;
        if wanted == Consistency::Fuzzy {
            return None;
        }
        let recorded = self.copies.iter().filter_map(|(_, copy)| match copy {
            Copy::Some { newest, .. } => newest.provenance.as_ref().map(|from| from.consistency),
            _ => None,
        });
        let least = match wanted {
            Consistency::Fuzzy => Recorded::Fuzzy,
            Consistency::Crash => Recorded::Crash,
            Consistency::Application => Recorded::Application,
        };
        let (standing, found) = match recorded.min() {
            None => (self.missed(), "no complete snapshot".to_owned()),
            Some(found) if found >= least => (Standing::Met, format!("{found:?}").to_lowercase()),
            Some(found) => (Standing::Violated, format!("{found:?}").to_lowercase()),
        };
        Some(self.finding(
            Control::Consistency,
            standing,
            format!("{wanted:?} or more").to_lowercase(),
            found,
        ))
    }

    /// The repository that was verified the longest ago decides.
    fn verify(&self) -> Option<Finding> {
        let verify = self.objectives.verify.as_ref()?;
        let of_repos = self.copies.iter().map(|(repo, _)| {
            let mut done = self.evidence.verifications.iter().rev();
            let last = done.find(|done| done.repository == **repo).map(|done| done.verdict);
            let (standing, is_damage, found) = match (self.evidence.known)(repo) {
                Err(_) => (Standing::Unknown, false, "cannot be asked".to_owned()),
                Ok(known) if known.packs_in_doubt > 0 => {
                    (Standing::Violated, true, verify::in_doubt(known.packs_in_doubt))
                }
                // Not only packs can be damaged.
                Ok(_) if last == Some(Verdict::Damaged) => {
                    (Standing::Violated, true, "the last verification found damage".into())
                }
                Ok(known) => match (self.verified(&known, verify), last) {
                    ((Standing::Met, _), Some(Verdict::Unverified)) => {
                        (Standing::Unknown, false, "the last verification could not be done".into())
                    }
                    ((standing, found), _) => (standing, false, found),
                },
            };
            (standing, is_damage, format!("{repo}: {found}"))
        });
        let (standing, is_damage, found) =
            of_repos.max_by_key(|(standing, is_damage, _)| (*standing, *is_damage))?;
        let wanted = format!("{} every {}", verify.read, verify.every);
        Some(Finding { is_damage, ..self.finding(Control::Verify, standing, wanted, found) })
    }

    fn verified(&self, known: &Known, Verify { every, read }: &Verify) -> (Standing, String) {
        let in_time = |age: Lapse| if age <= *every { Standing::Met } else { Standing::Violated };
        let now = self.evidence.now.timestamp();
        match (known.last_read, known.since) {
            _ if known.packs == 0 => (Standing::Met, "there is nothing to read".into()),
            (Some(last), _) if self.age(last) <= *every && !known.has_read(*read, *every, now) => {
                (Standing::Violated, too_little(*read, *every))
            }
            (Some(last), _) => (in_time(self.age(last)), format!("last read {} ago", rough(self.age(last)))),
            // What is new need not have been read yet.
            (None, Some(since)) => (in_time(self.age(since)), "nothing was read yet".into()),
            (None, None) => (Standing::Met, "nothing was read yet".into()),
        }
    }

    /// Fewer snapshots than are to be kept are too few only where there have been enough.
    fn retention(&self) -> Option<Finding> {
        let floor = self.objectives.retain.as_ref()?.min_keep.filter(|floor| *floor > 0)?;
        let of_repos = self.copies.iter().map(|(repo, copy)| {
            let count = match copy {
                Copy::Some { count, .. } | Copy::None { count } => *count as u64,
                Copy::Unknown => return (Standing::Unknown, format!("{repo}: cannot be asked")),
            };
            let made = self.evidence.attempts.iter().filter(|attempt| {
                let of_repo = attempt.repositories.get(*repo);
                attempt.domain == self.domain.name && of_repo.is_some_and(RepoAttempt::is_made)
            });
            let is_missed = count < floor && made.count() as u64 >= floor;
            let standing = if is_missed { Standing::Violated } else { Standing::Met };
            (standing, format!("{repo}: {count}"))
        });
        let (standing, found) = of_repos.max_by_key(|(standing, _)| *standing)?;
        Some(self.finding(
            Control::Retention,
            standing,
            format!("at least {}", words::count(floor, "snapshot")),
            found,
        ))
    }
}
