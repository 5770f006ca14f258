//! Whether the targets of a plan are met: by what is in the repositories and their logs, and by the records of this host.
//!
//! A target that an exception allows to be missed is excused as long as that holds; an exception that has expired is itself a
//! violation, until it is approved anew or taken out of the plan.

mod rehearsed;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::{Timestamp, Zoned};
use strongroom::format::provenance::Consistency as Recorded;
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::DrillRecord;
use crate::plan::types::{Consistency, Control, Domain, Exception, Verify};
use crate::plan::values::{Lapse, Name};
use crate::plan::{Objectives, Plan};
use crate::recover::RecoveryRecord;
use crate::run::state::Attempt;
use crate::status::{Facts, newest, rough, timestamp};
use crate::verify::{Known, too_little};

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
    let mut findings = Vec::new();
    for domain in &plan.domains {
        let judge = Judge::new(plan, evidence, domain);
        findings.extend(judge.all());
    }
    let is_missed = |finding: &&mut Finding| match finding.standing {
        Standing::Violated => true,
        // Whoever allows that it takes longer need not have it measured.
        Standing::Unknown => finding.control == Control::Rto,
        Standing::Met | Standing::Excused => false,
    };
    for finding in findings.iter_mut().filter(is_missed) {
        if let Some(exception) = plan.exception(finding.control, &finding.domain, today) {
            finding.standing = Standing::Excused;
            finding.exception = Some(exception.id.clone());
        }
    }
    let expired = plan.exceptions.iter().filter(|exception| exception.expires < today).cloned().collect();
    Compliance { findings, expired }
}

/// What a repository has of a domain.
enum Copy<'e> {
    Some { newest: &'e Snapshot, time: Timestamp, count: usize },
    None,
    Unknown,
}

struct Judge<'j, 'e, 'f> {
    plan: &'j Plan,
    evidence: &'j Evidence<'e, 'f>,
    domain: &'j Domain,
    objectives: Objectives,
    copies: Vec<(&'j Name, Copy<'f>)>,
}

impl<'j, 'e, 'f> Judge<'j, 'e, 'f> {
    fn new(plan: &'j Plan, evidence: &'j Evidence<'e, 'f>, domain: &'j Domain) -> Self {
        let copy = |repo| {
            let Ok(snapshots) = (evidence.snapshots)(repo) else { return Copy::Unknown };
            match newest(snapshots, evidence.host, &domain.name)
                .and_then(|(_, newest)| Some((newest, timestamp(newest)?)))
            {
                Some((newest, time)) => {
                    Copy::Some { newest, time, count: count(snapshots, evidence.host, &domain.name) }
                }
                None => Copy::None,
            }
        };
        let repos: BTreeSet<_> = plan.repositories(domain).into_iter().collect();
        let copies = repos.into_iter().map(|repo| (repo, copy(repo))).collect();
        Self { plan, evidence, domain, objectives: plan.objectives(domain), copies }
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
        Finding { domain: self.domain.name.clone(), control, standing, wanted, found, exception: None }
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
        let wanted = match self.objectives.rpo_grace.as_secs() {
            0 => format!("at most {rpo} old"),
            _ => format!("at most {rpo} old (and {} more)", self.objectives.rpo_grace),
        };
        Some(self.finding(Control::Rpo, standing, wanted, found))
    }

    /// Repositories with a complete snapshot that is not too old.
    fn fresh(&self) -> Vec<&'j Name> {
        let is_fresh = |copy: &Copy<'_>| match copy {
            Copy::Some { time, .. } => self.limit().is_none_or(|limit| self.age(*time).as_secs() <= limit),
            _ => false,
        };
        self.copies.iter().filter(|(_, copy)| is_fresh(copy)).map(|(repo, _)| *repo).collect()
    }

    fn at_least(&self, control: Control, wanted: u32, found: usize, what: &str) -> Finding {
        let standing = if found >= wanted as usize { Standing::Met } else { self.missed() };
        self.finding(control, standing, format!("at least {wanted}"), format!("{found} {what}"))
    }

    fn copies(&self) -> Finding {
        self.at_least(Control::Copies, self.objectives.copies, self.fresh().len(), "with a fresh snapshot")
    }

    /// One that does not say where it is may be where another one is.
    fn sites(&self) -> Option<Finding> {
        let site = |repo: &Name| self.plan.repos.get(repo)?.site.as_deref();
        let sites: BTreeSet<_> = self.fresh().into_iter().filter_map(site).collect();
        let wanted = self.objectives.sites;
        (wanted > 1).then(|| self.at_least(Control::Sites, wanted, sites.len(), "with a fresh snapshot"))
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
            let (standing, found) = match (self.evidence.known)(repo) {
                Err(_) => (Standing::Unknown, "cannot be asked".to_owned()),
                Ok(known) if known.packs_in_doubt > 0 => {
                    (Standing::Violated, format!("{} packs were found damaged", known.packs_in_doubt))
                }
                Ok(known) => self.verified(&known, verify),
            };
            (standing, format!("{repo}: {found}"))
        });
        let (standing, found) = of_repos.max_by_key(|(standing, _)| *standing)?;
        Some(self.finding(
            Control::Verify,
            standing,
            format!("{} every {}", verify.read, verify.every),
            found,
        ))
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
                Copy::Some { count, .. } => *count as u64,
                Copy::None => 0,
                Copy::Unknown => return (Standing::Unknown, format!("{repo}: cannot be asked")),
            };
            let made = self.evidence.attempts.iter().filter(|attempt| {
                let of_repo = attempt.repositories.get(*repo);
                attempt.domain == self.domain.name
                    && of_repo.is_some_and(|of_repo| of_repo.snapshot.is_some())
            });
            let is_missed = count < floor && made.count() as u64 >= floor;
            let standing = if is_missed { Standing::Violated } else { Standing::Met };
            (standing, format!("{repo}: {count}"))
        });
        let (standing, found) = of_repos.max_by_key(|(standing, _)| *standing)?;
        Some(self.finding(Control::Retention, standing, format!("at least {floor} snapshots"), found))
    }
}

/// Complete snapshots of a domain.
fn count(snapshots: &[(SnapshotId, Snapshot)], host: &str, domain: &Name) -> usize {
    let is_of_domain = |snapshot: &Snapshot| {
        let from = snapshot.provenance.as_ref();
        !snapshot.partial
            && snapshot.hostname == host
            && from.is_some_and(|from| from.domain == domain.as_str())
    };
    snapshots.iter().filter(|(_, snapshot)| is_of_domain(snapshot)).count()
}
