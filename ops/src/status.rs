//! How well everything is protected now: by what is in the repositories, and by how attempts ended on this host.
//!
//! What counts is what is there. A job that never ran has no snapshot, so its domain is red without any record of it.

use jiff::{Timestamp, Zoned};
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::DrillRecord;
use crate::plan::Plan;
use crate::plan::types::{Control, Domain};
use crate::plan::values::{Lapse, Name};
use crate::run::state::{Attempt, Outcome};
use crate::words::{count, verb};

/// How much clocks of two hosts may differ.
const CLOCK_SLACK_SECS: i64 = 300;

/// How well something is, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// As it has to be.
    Ok,
    /// Somebody should look at it.
    Warning,
    /// It cannot be told.
    Unknown,
    /// A target is missed.
    Critical,
}

impl Health {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Critical => "critical",
        }
    }

    /// The code that monitoring plugins end with.
    pub const fn nagios(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// What one repository has of a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyStatus {
    /// The repository.
    pub repo: Name,
    /// How well it is.
    pub health: Health,
    /// Why, if it is not well.
    pub reasons: Vec<String>,
    /// The newest complete snapshot.
    pub newest: Option<NewestCopy>,
}

/// The newest complete snapshot of a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct NewestCopy {
    /// Its id.
    pub id: SnapshotId,
    /// When it was begun.
    pub time: Timestamp,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How well a domain is protected.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainStatus {
    /// The domain.
    pub domain: Name,
    /// Its class.
    pub class: Option<Name>,
    /// Who is responsible.
    pub owner: Option<String>,
    /// How well it is: as its worst copy, or worse.
    pub health: Health,
    /// Why, beyond what its copies say.
    pub reasons: Vec<String>,
    /// Oldest that a snapshot may be.
    pub rpo: Option<Lapse>,
    /// What is in the repositories.
    pub copies: Vec<CopyStatus>,
    /// The last attempt on this host.
    pub attempt: Option<Attempt>,
    /// When it runs next.
    pub next: Option<Timestamp>,
    /// The last drill of it.
    pub drill: Option<DrillRecord>,
    /// Seconds that a recovery took in the last one, or the last drill that says so, whichever is newer.
    pub recovery_seconds: Option<f64>,
}

impl DomainStatus {
    /// That of a domain of which nothing is known yet.
    pub fn of(domain: Name, health: Health) -> Self {
        Self {
            domain,
            class: None,
            owner: None,
            health,
            reasons: Vec::new(),
            rpo: None,
            copies: Vec::new(),
            attempt: None,
            next: None,
            drill: None,
            recovery_seconds: None,
        }
    }
}

/// What is known of a repository: its snapshots, or why they are not known.
pub type Facts<'f> = dyn Fn(&Name) -> Result<&'f [(SnapshotId, Snapshot)], String> + 'f;

/// The newest complete snapshot of a domain among some, which are in their order.
pub fn newest<'s>(
    snapshots: &'s [(SnapshotId, Snapshot)],
    host: &str,
    domain: &Name,
) -> Option<&'s (SnapshotId, Snapshot)> {
    snapshots.iter().rev().find(|(_, snapshot)| {
        let is_of_domain = snapshot.provenance.as_ref().is_some_and(|from| from.domain == domain.as_str());
        is_of_domain && !snapshot.partial && snapshot.hostname == host
    })
}

/// The status of all domains, in the order of the plan.
pub fn status(
    plan: &Plan,
    host: &str,
    facts: &Facts<'_>,
    attempts: &[Attempt],
    now: &Zoned,
) -> Vec<DomainStatus> {
    let judge = Judge { plan, host, facts, now };
    plan.domains.iter().map(|domain| judge.domain(domain, attempts)).collect()
}

struct Judge<'a, 'f> {
    plan: &'a Plan,
    host: &'a str,
    facts: &'a Facts<'f>,
    now: &'a Zoned,
}

impl Judge<'_, '_> {
    fn domain(&self, domain: &Domain, attempts: &[Attempt]) -> DomainStatus {
        let repos = self.plan.repositories(domain);
        let mut copies: Vec<_> = repos.into_iter().map(|repo| self.copy(domain, repo)).collect();
        for at in 1..copies.len() {
            // A snapshot that was copied has another id there.
            let id = |copy: &CopyStatus| copy.newest.as_ref().map(|newest| newest.id);
            let (before, [copy, ..]) = copies.split_at_mut(at) else { continue };
            if let Some(twin) = before.iter().find(|other| id(other).is_some() && id(other) == id(copy)) {
                copy.add(Health::Warning, format!("it is the repository {} under another name", twin.repo));
            }
        }
        let newest: Vec<_> = copies.iter().map(|copy| Some(copy.newest.as_ref()?.time)).collect();
        // What another run was at work on says nothing any more when that has made it everywhere.
        let is_made_up = |attempt: &Attempt| {
            let is_since =
                |time: &Option<Timestamp>| time.is_some_and(|time| time >= attempt.made_up_since());
            attempt.outcome == Outcome::Deferred && newest.iter().all(is_since)
        };
        let mut own = attempts.iter().rev().filter(|attempt| attempt.domain == domain.name);
        let attempt = own.find(|attempt| !is_made_up(attempt));
        let mut reasons = Vec::new();
        let mut health = copies.iter().map(|copy| copy.health).max().unwrap_or(Health::Critical);
        if let Some(attempt) = attempt.filter(|attempt| attempt.outcome != Outcome::Ok) {
            let why = attempt.message.as_ref().map_or(String::new(), |message| format!(": {message}"));
            reasons.push(format!("the last attempt is {}{why}", attempt.outcome.name()));
            health = health.max(Health::Warning);
        }
        reasons.extend(self.nothing_forgotten(domain, attempts));
        DomainStatus {
            domain: domain.name.clone(),
            class: domain.class.clone(),
            owner: domain.owner.clone(),
            health,
            reasons,
            rpo: self.plan.objectives(domain).rpo,
            copies,
            attempt: attempt.cloned(),
            next: domain
                .schedule
                .as_ref()
                .and_then(|schedule| schedule.next_after(self.now))
                .map(|next| next.timestamp()),
            drill: None,
            recovery_seconds: None,
        }
    }

    /// That a repository grows for ever, where each run lacks something.
    fn nothing_forgotten(&self, domain: &Domain, attempts: &[Attempt]) -> Option<String> {
        self.plan.objectives(domain).retain?;
        let own = attempts.iter().rev().filter(|attempt| attempt.domain == domain.name);
        let own = own.filter(|attempt| attempt.outcome != Outcome::Deferred);
        let partial = own.take_while(|attempt| attempt.outcome == Outcome::Partial).count();
        let runs = match partial {
            0 => return None,
            1 => "one did".to_owned(),
            count => format!("{count} did"),
        };
        Some(format!(
            "no old snapshot is forgotten as long as something is missing from each run, as the last {runs}"
        ))
    }

    fn copy(&self, domain: &Domain, repo: &Name) -> CopyStatus {
        let mut copy =
            CopyStatus { repo: repo.clone(), health: Health::Ok, reasons: Vec::new(), newest: None };
        let snapshots = match (self.facts)(repo) {
            Ok(snapshots) => snapshots,
            Err(error) => {
                copy.add(Health::Unknown, format!("the repository cannot be asked: {error}"));
                return copy;
            }
        };
        let found = newest(snapshots, self.host, &domain.name);
        let found = found.and_then(|(id, snapshot)| Some((id, snapshot, timestamp(snapshot)?)));
        let Some((id, snapshot, time)) = found else {
            let health = self.excused(domain, Health::Critical);
            copy.add(health, "there is no complete snapshot".into());
            return copy;
        };
        let summary = &snapshot.summary;
        copy.newest = Some(NewestCopy { id: *id, time, files: summary.files, bytes: summary.bytes });
        let age = self.now.timestamp().duration_since(time).as_secs();
        if is_to_come(time, self.now) {
            copy.add(Health::Warning, "the newest snapshot says that it was made in the future".into());
        }
        let objectives = self.plan.objectives(domain);
        if let Some(rpo) = objectives.rpo {
            let age_secs = u64::try_from(age).unwrap_or(0);
            let age = Lapse::seconds(age_secs);
            if age_secs > rpo.as_secs() + objectives.rpo_grace.as_secs() {
                let health = self.excused(domain, Health::Critical);
                copy.add(health, format!("the newest snapshot is {} old, and the RPO is {rpo}", rough(age)));
            } else if age > rpo {
                copy.add(
                    Health::Warning,
                    format!("the newest snapshot is {} old: past the RPO of {rpo}", rough(age)),
                );
            }
        }
        if summary.errors > 0 || summary.unstable > 0 {
            let message = format!(
                "of the newest snapshot {} {} missing and {} changed while {} read",
                count(summary.errors, "entry"),
                verb(summary.errors, "is", "are"),
                count(summary.unstable, "file"),
                verb(summary.unstable, "it was", "they were")
            );
            copy.add(Health::Warning, message);
        }
        copy
    }

    /// A missed target that an exception allows is a warning.
    fn excused(&self, domain: &Domain, health: Health) -> Health {
        let is_excused = self.plan.exception(Control::Rpo, &domain.name, self.now.date()).is_some();
        if is_excused { health.min(Health::Warning) } else { health }
    }
}

impl CopyStatus {
    /// Adds something to say of it.
    pub fn add(&mut self, health: Health, reason: String) {
        self.health = self.health.max(health);
        self.reasons.push(reason);
    }
}

/// Whether a time is further ahead than clocks of two hosts may differ.
pub fn is_to_come(time: Timestamp, now: &Zoned) -> bool {
    time.duration_since(now.timestamp()).as_secs() > CLOCK_SLACK_SECS
}

/// When a snapshot was begun; none if no calendar holds it.
pub fn timestamp(snapshot: &Snapshot) -> Option<Timestamp> {
    Timestamp::new(snapshot.time.seconds, i32::try_from(snapshot.time.nanos).ok()?).ok()
}

/// A length of time for people: `3d 4h`, `5h 10m`, `12m`.
pub fn rough(lapse: Lapse) -> String {
    let (minutes, hours, days) = (lapse.as_secs() / 60, lapse.as_secs() / 3600, lapse.as_secs() / 86_400);
    match (days, hours, minutes) {
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h {}m", minutes % 60),
        (days, hours, _) => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::load::tests_support::plan;
    use crate::testing::{NOW, id, now, record, snapshot};

    const PLAN: &str = "[class.c]\nrpo = '24h'\nrpo_grace = '4h'\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n\
                        schedule = 'daily'\n";

    fn judged(more: &str, snapshots: &[(SnapshotId, Snapshot)], attempts: &[Attempt]) -> DomainStatus {
        let plan = plan(&format!("{PLAN}{more}"));
        let facts = |_: &Name| Ok(snapshots);
        status(&plan, "box", &facts, attempts, &NOW.parse().expect("a time")).remove(0)
    }

    #[test]
    fn age_decides_and_what_never_ran_is_red() {
        for (hours, health) in [
            (1, Health::Ok),
            (24, Health::Ok),
            (25, Health::Warning),
            (28, Health::Warning),
            (29, Health::Critical),
        ] {
            assert_eq!(judged("", &[snapshot("x", hours)], &[]).health, health, "{hours} hours");
        }
        let never = judged("", &[], &[]);
        assert_eq!(never.health, Health::Critical);
        assert_eq!(never.copies[0].reasons, ["there is no complete snapshot"]);
        assert_eq!(never.next.map(|next| next.to_string()).as_deref(), Some("2026-11-29T00:00:00Z"));
        let old = judged("", &[snapshot("x", 100)], &[]);
        assert_eq!(old.copies[0].reasons, ["the newest snapshot is 4d 4h old, and the RPO is 24h"]);
        assert_eq!(judged("", &[snapshot("x", -2)], &[]).health, Health::Warning, "made in the future");
    }

    #[test]
    fn only_complete_snapshots_of_the_domain_and_host_count() {
        let mut partial = snapshot("x", 1);
        partial.1.partial = true;
        let mut elsewhere = snapshot("x", 1);
        elsewhere.1.hostname = "other".into();
        let mut by_hand = snapshot("x", 1);
        by_hand.1.provenance = None;
        let all = [snapshot("x", 40), partial, elsewhere, by_hand, snapshot("y", 1)];
        let status = judged("", &all, &[]);
        assert_eq!(status.health, Health::Critical);
        assert!(status.copies[0].reasons[0].contains("1d 16h"), "{status:?}");
        let mut lossy = snapshot("x", 1);
        lossy.1.summary.errors = 2;
        assert_eq!(judged("", &[lossy], &[]).health, Health::Warning);
    }

    #[test]
    fn one_repository_under_two_names_is_pointed_out() {
        let found = |other: u8| {
            let plan = plan(&format!("[repo.b]\nurl = '/b'\n{PLAN}"));
            let (of_a, of_b) = ([(id(1), record("x", 1))], [(id(other), record("x", 1))]);
            let facts =
                |name: &Name| Ok(if name.as_str() == "a" { of_a.as_slice() } else { of_b.as_slice() });
            let status = status(&plan, "box", &facts, &[], &NOW.parse().expect("a time")).remove(0);
            (status.health, status.copies[1].reasons.clone())
        };
        assert_eq!(found(2), (Health::Ok, vec![]));
        assert_eq!(found(1), (Health::Warning, vec!["it is the repository a under another name".into()]));
    }

    #[test]
    fn exceptions_and_failed_attempts_are_warnings() {
        let exception = |expires: &str| {
            format!(
                "[[exception]]\nid = 'E'\ncontrol = 'rpo'\ndomain = 'x'\nreason = 'r'\napproved_by = 'a'\nexpires = {expires}\n"
            )
        };
        assert_eq!(judged(&exception("2026-11-28"), &[], &[]).health, Health::Warning);
        assert_eq!(judged(&exception("2026-11-27"), &[], &[]).health, Health::Critical);
        let attempt = |outcome| Attempt {
            domain: "x".parse().expect("a name"),
            began: Timestamp::UNIX_EPOCH,
            ended: None,
            outcome,
            message: Some("no space".into()),
            at_work_since: None,
            repositories: BTreeMap::new(),
        };
        let fresh = [snapshot("x", 1)];
        let failed = judged("", &fresh, &[attempt(Outcome::Ok), attempt(Outcome::Failed)]);
        assert_eq!((failed.health, failed.reasons.len()), (Health::Warning, 1));
        assert!(failed.reasons[0].contains("failed: no space"));
        assert_eq!(judged("", &fresh, &[attempt(Outcome::Failed), attempt(Outcome::Ok)]).health, Health::Ok);
    }

    #[test]
    fn what_was_passed_over_is_a_warning_until_it_is_made_up_for_and_its_age_counts() {
        let hours_ago = |hours: i64| now().timestamp() - jiff::SignedDuration::from_hours(hours);
        let deferred = |began: i64, at_work: Option<i64>| Attempt {
            domain: "x".parse().expect("a name"),
            began: hours_ago(began),
            ended: None,
            outcome: Outcome::Deferred,
            message: Some("another run is at work on it".into()),
            at_work_since: at_work.map(hours_ago),
            repositories: BTreeMap::new(),
        };
        let health = |hours: i64, attempt: Attempt| {
            let found = judged("", &[snapshot("x", hours)], &[attempt]);
            (found.health, found.attempt.is_some())
        };
        let (warned, well) = ((Health::Warning, true), (Health::Ok, false));
        assert_eq!(health(5, deferred(2, None)), warned, "what it waited for may be done: it is not");
        assert_eq!(health(1, deferred(2, None)), well);
        // The other run had begun before.
        assert_eq!(health(3, deferred(2, Some(4))), well);
        assert_eq!(health(5, deferred(2, Some(4))), warned);
        assert_eq!(health(29, deferred(2, Some(4))), (Health::Critical, true), "the RPO is missed");
    }

    #[test]
    fn it_is_told_that_partial_runs_forget_nothing() {
        let attempt = |outcome| Attempt {
            domain: "x".parse().expect("a name"),
            began: Timestamp::UNIX_EPOCH,
            ended: None,
            outcome,
            message: None,
            at_work_since: None,
            repositories: BTreeMap::new(),
        };
        let (ok, partial) = (attempt(Outcome::Ok), attempt(Outcome::Partial));
        let fresh = [snapshot("x", 1)];
        let retaining = "objectives = { retain = { daily = 7 } }\n";
        let told = |more: &str, attempts: &[Attempt]| judged(more, &fresh, attempts).reasons[1..].to_vec();
        let forgets =
            "no old snapshot is forgotten as long as something is missing from each run, as the last";
        let all = [ok, partial.clone(), partial.clone()];
        assert_eq!(told(retaining, &all), [format!("{forgets} 2 did")]);
        assert_eq!(told(retaining, &all[..2]), [format!("{forgets} one did")]);
        assert_eq!(told("", &all), [] as [&str; 0], "nothing is ever forgotten, as the plan says");
        assert_eq!(judged(retaining, &fresh, &all[..1]).reasons, [] as [&str; 0]);
    }

    #[test]
    fn a_repository_that_does_not_answer_is_unknown() {
        let plan = plan(PLAN);
        let facts = |_: &Name| Err("no such host".to_owned());
        let status = status(&plan, "box", &facts, &[], &NOW.parse().expect("a time")).remove(0);
        assert_eq!(status.health, Health::Unknown);
    }
}
