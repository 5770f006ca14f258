//! Drills that are overdue: a restore that nobody has rehearsed for longer than the plan allows, or ever.

use jiff::{Timestamp, Zoned};

use crate::drill::history;
use crate::drill::record::{DrillOutcome, DrillRecord};
use crate::plan::Plan;
use crate::plan::types::{Control, Domain};
use crate::plan::values::{Lapse, Name};
use crate::run::state::{Attempt, Outcome};
use crate::status::{DomainStatus, Facts, Health, is_to_come, rough, timestamp};

/// What is known.
pub struct Known<'k, 'f> {
    /// The host that snapshots say they are from.
    pub host: &'k str,
    /// The snapshots of repositories.
    pub snapshots: &'k Facts<'f>,
    /// Attempts on this host.
    pub attempts: &'k [Attempt],
    /// Drills.
    pub drills: &'k [DrillRecord],
    /// Repositories whose logs may tell of more.
    pub unasked: &'k [Name],
    /// The time.
    pub now: &'k Zoned,
}

/// Adds to the status of domains that a drill of them is overdue: a warning, and a missed target where it is overdue twice as long as
/// may lie between two, unless an exception allows that today.
pub fn judge(plan: &Plan, found: &mut [DomainStatus], known: &Known<'_, '_>) {
    for status in found {
        let Some(domain) = plan.domain(status.domain.as_str()) else { continue };
        let Some(every) = plan.objectives(domain).drill_every else { continue };
        // Of one that failed, and of repositories that may tell of a later one, it is said already.
        let is_told = !history::failed(plan, &domain.name, known.drills).is_empty()
            || status.copies.iter().any(|copy| known.unasked.contains(&copy.repo));
        let Some(since) = (if is_told { None } else { known.since(plan, domain) }) else { continue };
        let (time, what) = match since {
            Since::Passed(time) => (time, "the last one that passed was"),
            Since::First(time) => (time, "none has passed, and the first snapshot was made"),
        };
        let age = age(time, known.now);
        if age <= every {
            continue;
        }
        let is_excused = plan.exception(Control::Drill, &domain.name, known.now.date()).is_some();
        let is_critical = age.as_secs() > every.as_secs().saturating_mul(2) && !is_excused;
        status.health = status.health.max(if is_critical { Health::Critical } else { Health::Warning });
        status.reasons.push(format!(
            "a drill is overdue: {what} {} ago, and there is to be one every {every}",
            rough(age)
        ));
    }
}

/// Since when a domain waits for a drill.
enum Since {
    /// The last one that passed and restored something.
    Passed(Timestamp),
    /// None has, and this is when there was something to restore for the first time.
    First(Timestamp),
}

impl Known<'_, '_> {
    fn since(&self, plan: &Plan, domain: &Domain) -> Option<Since> {
        // A pass that is to come is a wrong clock's.
        let is_known =
            |drill: &&DrillRecord| drill.outcome != DrillOutcome::Pass || !is_to_come(drill.began, self.now);
        let drills: Vec<_> = self.drills.iter().filter(is_known).cloned().collect();
        match history::passed(plan, &domain.name, &drills) {
            Some(drill) => Some(Since::Passed(drill.began)),
            None => self.first(plan, domain).map(Since::First),
        }
    }

    /// The first snapshot that is known of. Old ones are forgotten, so the record of attempts on this host may reach further back.
    fn first(&self, plan: &Plan, domain: &Domain) -> Option<Timestamp> {
        let kept =
            plan.repositories(domain).into_iter().filter_map(|repo| (self.snapshots)(repo).ok()).flatten();
        let own = kept.filter(|(_, snapshot)| {
            let of = snapshot.provenance.as_ref().map(|from| from.domain.as_str());
            !snapshot.partial && snapshot.hostname == self.host && of == Some(domain.name.as_str())
        });
        let made = self.attempts.iter().filter(|attempt| {
            attempt.domain == domain.name && matches!(attempt.outcome, Outcome::Ok | Outcome::Partial)
        });
        own.filter_map(|(_, snapshot)| timestamp(snapshot)).chain(made.map(|attempt| attempt.began)).min()
    }
}

fn age(time: Timestamp, now: &Zoned) -> Lapse {
    Lapse::seconds(u64::try_from(now.timestamp().duration_since(time).as_secs()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::load::tests_support::plan;
    use crate::plan::types::Tier;
    use crate::status;
    use crate::testing::{name, now, snapshot};

    const PLAN: &str = "[class.c]\ndrill_every = '30d'\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n\
                        [[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\n";
    const DAY: i64 = 24;

    fn drill(outcome: DrillOutcome, tier: Tier, days_ago: i64) -> DrillRecord {
        DrillRecord {
            drill: name("d"),
            tier,
            repository: Some(name("a")),
            began: now().timestamp() - jiff::SignedDuration::from_hours(days_ago * DAY),
            outcome,
            reason: None,
            self_test: false,
            restored: Vec::new(),
            phases: Vec::new(),
            rto: None,
        }
    }

    fn attempt(outcome: Outcome, days_ago: i64) -> Attempt {
        let line = format!(
            r#"{{"domain":"x","began":"{}","ended":null,"outcome":"{}","message":null}}"#,
            now().timestamp() - jiff::SignedDuration::from_hours(days_ago * DAY),
            outcome.name()
        );
        serde_json::from_str(&line).expect("an attempt")
    }

    /// The health of `x` by drills, the age of its oldest snapshot in days, and attempts; and what is said of drills.
    fn judged(
        more: &str,
        drills: &[DrillRecord],
        oldest: i64,
        attempts: &[Attempt],
        unasked: &[Name],
    ) -> (Health, String) {
        let plan = plan(&format!("{PLAN}{more}"));
        let snapshots = [snapshot("x", oldest * DAY), snapshot("x", 0), snapshot("y", 1000 * DAY)];
        let facts = |_: &Name| Ok(&snapshots[..]);
        let mut found = status::status(&plan, "box", &facts, &[], &now());
        let known = Known { host: "box", snapshots: &facts, attempts, drills, unasked, now: &now() };
        judge(&plan, &mut found, &known);
        (found[0].health, found[0].reasons.join("; "))
    }

    #[test]
    fn a_drill_that_is_overdue_is_a_warning_and_then_a_missed_target() {
        let (pass, fail) = (DrillOutcome::Pass, DrillOutcome::Fail);
        let of = |records: &[DrillRecord]| judged("", records, 1, &[], &[]);
        let well = (Health::Ok, String::new());
        assert_eq!(of(&[drill(pass, Tier::Full, 30)]), well);
        let (health, why) = of(&[drill(pass, Tier::Full, 31)]);
        assert_eq!(health, Health::Warning);
        assert_eq!(
            why,
            "a drill is overdue: the last one that passed was 31d 0h ago, and there is to be one every 30d"
        );
        assert_eq!(of(&[drill(pass, Tier::Full, 60)]).0, Health::Warning);
        assert_eq!(of(&[drill(pass, Tier::Full, 61)]).0, Health::Critical);
        let names_only = [drill(pass, Tier::Full, 61), drill(pass, Tier::Metadata, 1)];
        assert_eq!(of(&names_only).0, Health::Critical, "trees are no data");
        assert_eq!(of(&[drill(pass, Tier::Full, 31), drill(pass, Tier::Sample, 1)]), well);
        assert_eq!(
            of(&[drill(pass, Tier::Full, 31), drill(pass, Tier::Full, -99)]).0,
            Health::Warning,
            "a clock was wrong"
        );
        assert_eq!(of(&[drill(fail, Tier::Full, 99)]), well, "that it failed is said elsewhere");
    }

    #[test]
    fn what_was_never_rehearsed_waits_since_its_first_snapshot() {
        let never = |oldest, attempts: &[Attempt]| judged("", &[], oldest, attempts, &[]);
        assert_eq!(never(30, &[]), (Health::Ok, String::new()));
        let (health, why) = never(31, &[]);
        assert_eq!(health, Health::Warning);
        let said = "a drill is overdue: none has passed, and the first snapshot was made 31d 0h ago, and there is to be one every 30d";
        assert_eq!(why, said);
        assert_eq!(never(61, &[]).0, Health::Critical);
        // Retention has taken the first ones away.
        let made = [attempt(Outcome::Failed, 400), attempt(Outcome::Ok, 61), attempt(Outcome::Ok, 1)];
        assert_eq!(never(1, &made).0, Health::Critical);
        assert_eq!(never(1, &made[..1]).0, Health::Ok, "there was nothing to restore");
        let tried = [drill(DrillOutcome::Unverified, Tier::Full, 1)];
        assert_eq!(judged("", &tried, 61, &[], &[]).0, Health::Critical, "that says nothing of the data");
    }

    #[test]
    fn exceptions_and_what_is_not_known_hold_it_up() {
        let exception = "[[exception]]\nid = 'E'\ncontrol = 'drill'\ndomain = 'x'\nreason = 'r'\napproved_by = 'a'\nexpires = ";
        let until = |day: &str| judged(&format!("{exception}{day}\n"), &[], 61, &[], &[]).0;
        assert_eq!(until("2026-11-28"), Health::Warning);
        assert_eq!(until("2026-11-27"), Health::Critical, "it has expired");
        let unasked = judged("", &[], 61, &[], &[name("a")]);
        assert_eq!(unasked, (Health::Ok, String::new()), "that its log cannot be read is said of the copy");
        let elsewhere = judged("", &[], 61, &[], &[name("other")]);
        assert_eq!(elsewhere.0, Health::Critical, "the domain does not go there");
    }
}
