//! What drills say of a domain: how each of them ended, and how long a recovery takes.

use jiff::civil::Date;

use crate::drill::record::{DrillOutcome, DrillRecord};
use crate::plan::Plan;
use crate::plan::types::Control;
use crate::plan::values::Name;
use crate::status::{DomainStatus, Health};

/// The last drill of a domain; self-tests do not count.
pub fn last<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Option<&'r DrillRecord> {
    of_domain(plan, domain, records).next_back()
}

/// The drills of a domain that have failed and not passed since. Each is judged by itself: that another one passed, which may
/// look at less, says nothing of it; nor does one that was killed or cancelled.
pub fn failed<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Vec<&'r DrillRecord> {
    let found = each(plan, domain, records, |outcome| outcome != DrillOutcome::Unverified);
    found.filter(|record| record.outcome == DrillOutcome::Fail).collect()
}

/// The drills of a domain that could not be verified when they were tried last.
fn unverified<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Vec<&'r DrillRecord> {
    let found = each(plan, domain, records, |_| true);
    found.filter(|record| record.outcome == DrillOutcome::Unverified).collect()
}

/// The last drill of a domain that passed.
pub fn passed<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Option<&'r DrillRecord> {
    of_domain(plan, domain, records).rev().find(|record| record.outcome == DrillOutcome::Pass)
}

/// The last drill of a domain that says how long a recovery takes.
pub fn measured<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Option<&'r DrillRecord> {
    of_domain(plan, domain, records).rev().find(|record| record.is_measured())
}

fn of_domain<'r>(
    plan: &Plan,
    domain: &Name,
    records: &'r [DrillRecord],
) -> impl DoubleEndedIterator<Item = &'r DrillRecord> {
    let of = |drill: &Name| plan.drills.iter().any(|one| one.name == *drill && one.domains.contains(domain));
    records.iter().filter(move |record| !record.self_test && of(&record.drill))
}

/// The last record with such an outcome of each drill of a domain.
fn each<'r>(
    plan: &Plan,
    domain: &Name,
    records: &'r [DrillRecord],
    counts: impl Fn(DrillOutcome) -> bool,
) -> impl Iterator<Item = &'r DrillRecord> {
    let drills = plan.drills.iter().filter(|drill| drill.domains.contains(domain));
    drills.filter_map(move |drill| {
        let counts =
            |record: &&DrillRecord| record.drill == drill.name && !record.self_test && counts(record.outcome);
        records.iter().rev().find(counts)
    })
}

/// Adds to the status of domains what drills say of them: one that failed is a restore that would fail. Where an exception
/// allows that today, it is a warning.
pub fn judge(plan: &Plan, found: &mut [DomainStatus], records: &[DrillRecord], today: Date) {
    for status in found {
        status.drill = last(plan, &status.domain, records).cloned();
        status.recovery_seconds = measured(plan, &status.domain, records).map(DrillRecord::seconds);
        let excuse = plan.exception(Control::Drill, &status.domain, today);
        let of_failed = if excuse.is_some() { Health::Warning } else { Health::Critical };
        let failed = failed(plan, &status.domain, records).into_iter();
        let failed = failed.map(|drill| (drill, of_failed, "failed"));
        let unverified = unverified(plan, &status.domain, records).into_iter();
        let unverified = unverified.map(|drill| (drill, Health::Warning, "could not be verified"));
        for (drill, health, how) in failed.chain(unverified) {
            let why = drill.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            status.health = status.health.max(health);
            status.reasons.push(format!("the drill {} {how}{why}", drill.drill));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::drill::record::{Phase, Timed};
    use crate::plan::load::tests_support::plan;
    use crate::plan::types::Tier;

    fn record(drill: &str, outcome: DrillOutcome, tier: Tier, seconds: f64) -> DrillRecord {
        DrillRecord {
            drill: drill.parse().expect("a name"),
            tier,
            repository: None,
            began: Timestamp::UNIX_EPOCH,
            outcome,
            reason: Some("why".into()).filter(|_| outcome != DrillOutcome::Pass),
            self_test: false,
            restored: Vec::new(),
            phases: vec![
                Timed { phase: Phase::Fetch, seconds },
                Timed { phase: Phase::Cleanup, seconds: 1000.0 },
            ],
            rto: None,
        }
    }

    fn status(domain: &str) -> DomainStatus {
        DomainStatus {
            domain: domain.parse().expect("a name"),
            class: None,
            owner: None,
            health: Health::Ok,
            reasons: Vec::new(),
            rpo: None,
            copies: Vec::new(),
            attempt: None,
            next: None,
            drill: None,
            recovery_seconds: None,
        }
    }

    #[test]
    fn each_drill_is_judged_by_its_own_last_verdict() {
        let plan = plan(
            "[[domain]]\nname = 'x'\npaths = ['/x']\n[[drill]]\nname = 'weekly'\ndomains = ['x']\ntier = 'full'\n\
             [[drill]]\nname = 'nightly'\ndomains = ['x']\ntier = 'metadata'\n",
        );
        let (x, full, names) = ("x".parse().expect("a name"), Tier::Full, Tier::Metadata);
        let weekly = |outcome| record("weekly", outcome, full, 1.0);
        let nightly = |outcome| record("nightly", outcome, names, 1.0);
        let judged = |records: &[DrillRecord]| {
            let mut found = [status("x")];
            judge(&plan, &mut found, records, jiff::civil::date(2026, 11, 28));
            let of_failed = failed(&plan, &x, records).iter().map(|drill| drill.drill.to_string()).collect();
            let [status] = found;
            (status.health, status.reasons.join(", "), of_failed)
        };
        let red = (Health::Critical, "the drill weekly failed: why".to_owned(), vec!["weekly".to_owned()]);
        let (pass, fail, unverified) = (DrillOutcome::Pass, DrillOutcome::Fail, DrillOutcome::Unverified);
        let records = [weekly(pass), weekly(fail), nightly(pass)];
        assert_eq!(judged(&records), red, "the nightly one hides nothing");
        let (health, reasons, of_failed) = judged(&[weekly(fail), weekly(unverified)]);
        assert_eq!((health, of_failed), (red.0, red.2.clone()), "one that was killed is no verdict");
        assert_eq!(reasons, "the drill weekly failed: why, the drill weekly could not be verified: why");
        let (health, reasons, of_failed) = judged(&[weekly(unverified), nightly(pass)]);
        assert_eq!((health, of_failed), (Health::Warning, vec![]), "nor is it hidden");
        assert_eq!(reasons, "the drill weekly could not be verified: why");
        let (_, _, of_failed) = judged(&[weekly(fail), nightly(fail)]);
        assert_eq!(of_failed, ["weekly", "nightly"]);
        let records = [weekly(fail), nightly(fail), nightly(pass), weekly(unverified), weekly(pass)];
        assert_eq!(judged(&records), (Health::Ok, String::new(), vec![]), "both passed since");
    }

    #[test]
    fn the_last_drill_decides_and_the_last_whole_one_measures() {
        let plan = plan(
            "[[domain]]\nname = 'x'\npaths = ['/x']\n[[domain]]\nname = 'y'\npaths = ['/y']\n\
             [[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\n[[exception]]\nid = 'E'\ncontrol = 'drill'\n\
             domain = 'x'\nreason = 'r'\napproved_by = 'a'\nexpires = 2026-11-27\n",
        );
        let judged_on = |day: i8, records: &[DrillRecord]| {
            let mut found = [status("x"), status("y")];
            judge(&plan, &mut found, records, jiff::civil::date(2026, 11, day));
            found
        };
        let judged = |records: &[DrillRecord]| judged_on(28, records);
        let pass = record("d", DrillOutcome::Pass, Tier::Full, 7.0);
        let sample = record("d", DrillOutcome::Pass, Tier::Sample, 1.0);
        let fail = record("d", DrillOutcome::Fail, Tier::Full, 2.0);
        let [x, y] = judged(&[pass.clone(), sample.clone()]);
        assert_eq!((x.health, x.recovery_seconds, y.drill), (Health::Ok, Some(7.0), None));
        let [x, y] = judged(&[pass.clone(), fail.clone()]);
        assert_eq!((x.health, y.health), (Health::Critical, Health::Ok));
        assert_eq!((x.recovery_seconds, x.reasons[0].as_str()), (Some(7.0), "the drill d failed: why"));
        let [x, _] = judged_on(27, std::slice::from_ref(&fail));
        assert_eq!((x.health, x.reasons.len()), (Health::Warning, 1), "an exception held on that day");
        let [x, _] = judged(&[record("d", DrillOutcome::Unverified, Tier::Full, 1.0)]);
        assert_eq!((x.health, x.recovery_seconds), (Health::Warning, None));
        let at = |seconds, of: &DrillRecord| DrillRecord {
            began: Timestamp::from_second(seconds).expect("a time"),
            ..of.clone()
        };
        let (x, records) = ("x".parse().expect("a name"), [at(1, &pass), at(2, &sample), at(3, &fail)]);
        assert_eq!(passed(&plan, &x, &records), Some(&records[1]));
        assert_eq!(passed(&plan, &"y".parse().expect("a name"), &records), None);
        let tested = DrillRecord { self_test: true, ..fail };
        assert_eq!(judged(&[pass, tested])[0].health, Health::Ok, "it had to fail");
    }
}
