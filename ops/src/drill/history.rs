//! What drills say of a domain: how each of them ended in each repository, and how long a recovery takes.

use jiff::civil::Date;

use crate::drill::choose;
use crate::drill::record::{DrillOutcome, DrillRecord};
use crate::plan::Plan;
use crate::plan::types::{Control, Drill, Exception, Tier};
use crate::plan::values::Name;
use crate::status::{DomainStatus, Health};

/// The last drill of a domain; self-tests do not count.
pub fn last<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Option<&'r DrillRecord> {
    of_domain(plan, domain, records).next_back()
}

/// The drills of a domain that have failed and not passed since, in each repository by itself: that another drill passed, which may
/// look at less, or the same one in another repository, says nothing of it; nor does one that was killed or cancelled.
pub fn failed<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Vec<&'r DrillRecord> {
    let found = each(plan, domain, records, |outcome| outcome != DrillOutcome::Unverified);
    found.into_iter().filter(|record| outcome(plan, domain, record) == DrillOutcome::Fail).collect()
}

/// The drills of a domain that could not be verified when they were tried last, in each repository by itself.
fn unverified<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Vec<&'r DrillRecord> {
    let found = each(plan, domain, records, |_| true);
    found.into_iter().filter(|record| record.outcome == DrillOutcome::Unverified).collect()
}

/// The last drill of a domain that passed and restored something: trees alone are no data.
pub fn passed<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Option<&'r DrillRecord> {
    of_domain(plan, domain, records)
        .rev()
        .find(|record| record.tier != Tier::Metadata && outcome(plan, domain, record) == DrillOutcome::Pass)
}

/// The last drill of a domain that says how long a recovery takes.
pub fn measured<'r>(plan: &Plan, domain: &Name, records: &'r [DrillRecord]) -> Option<&'r DrillRecord> {
    of_domain(plan, domain, records).rev().find(|record| record.is_measured())
}

/// The last try of each drill of a plan in each repository that all of its domains go to.
pub fn latest<'r>(plan: &Plan, records: &'r [DrillRecord]) -> Vec<&'r DrillRecord> {
    let mut found = Vec::new();
    for drill in &plan.drills {
        let last =
            |repo| of_drill(drill, records).rev().find(|record| record.repository.as_ref() == Some(repo));
        found.extend(choose::common(plan, drill).into_iter().filter_map(last));
    }
    found
}

/// How a drill ended for one of its domains. It fails by time where the one with the shortest time is late; the others may be well.
fn outcome(plan: &Plan, domain: &Name, record: &DrillRecord) -> DrillOutcome {
    let rto = plan.domain(domain.as_str()).and_then(|domain| plan.objectives(domain).rto);
    let is_in_time = rto.is_none_or(|rto| record.seconds() <= rto.as_secs() as f64);
    if record.is_late() && is_in_time { DrillOutcome::Pass } else { record.outcome }
}

fn of_domain<'r>(
    plan: &Plan,
    domain: &Name,
    records: &'r [DrillRecord],
) -> impl DoubleEndedIterator<Item = &'r DrillRecord> {
    let of = |drill: &Name| plan.drills.iter().any(|one| one.name == *drill && one.domains.contains(domain));
    records.iter().filter(move |record| !record.self_test && of(&record.drill))
}

fn of_drill<'r>(
    drill: &Drill,
    records: &'r [DrillRecord],
) -> impl DoubleEndedIterator<Item = &'r DrillRecord> {
    records.iter().filter(move |record| !record.self_test && record.drill == drill.name)
}

/// The last record with such an outcome of each drill of a domain in each repository. One that got to no repository counts until there
/// is another.
fn each<'r>(
    plan: &Plan,
    domain: &Name,
    records: &'r [DrillRecord],
    counts: impl Fn(DrillOutcome) -> bool,
) -> Vec<&'r DrillRecord> {
    let mut found = Vec::new();
    for drill in plan.drills.iter().filter(|drill| drill.domains.contains(domain)) {
        let those = || of_drill(drill, records).rev().filter(|record| counts(record.outcome));
        let in_repo = |repo| those().find(|record| record.repository.as_ref() == Some(repo));
        found.extend(choose::common(plan, drill).into_iter().filter_map(in_repo));
        found.extend(those().next().filter(|record| record.repository.is_none()));
    }
    found
}

/// Adds to the status of domains what drills say of them: one that failed is a restore that would fail. Where an exception
/// allows that today, it is a warning.
pub fn judge(plan: &Plan, found: &mut [DomainStatus], records: &[DrillRecord], today: Date) {
    for status in found {
        status.drill = last(plan, &status.domain, records).cloned();
        let of_failed = |drill: &DrillRecord| match excuse(plan, &status.domain, drill, today) {
            Some(_) => Health::Warning,
            None => Health::Critical,
        };
        let failed = failed(plan, &status.domain, records).into_iter();
        let failed = failed.map(|drill| (drill, of_failed(drill), "failed"));
        let unverified = unverified(plan, &status.domain, records).into_iter();
        let unverified = unverified.map(|drill| (drill, Health::Warning, "could not be verified"));
        let all: Vec<_> = failed.chain(unverified).collect();
        for (drill, health, how) in all {
            let why = drill.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            status.health = status.health.max(health);
            status.reasons.push(format!("the drill {} {how}{why}", drill.told()));
        }
    }
}

/// The exception that allows a drill of a domain to fail as it did.
pub fn excuse<'p>(plan: &'p Plan, domain: &Name, drill: &DrillRecord, today: Date) -> Option<&'p Exception> {
    let of_time = || plan.exception(Control::Rto, domain, today).filter(|_| drill.is_late());
    plan.exception(Control::Drill, domain, today).or_else(of_time)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::drill::record::{Phase, Timed};
    use crate::plan::load::tests_support::plan;

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
        DomainStatus::of(domain.parse().expect("a name"), Health::Ok)
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
    fn the_last_drill_decides() {
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
        assert_eq!((x.health, x.drill.is_some(), y.drill), (Health::Ok, true, None));
        let [x, y] = judged(&[pass.clone(), fail.clone()]);
        assert_eq!((x.health, y.health), (Health::Critical, Health::Ok));
        assert_eq!(x.reasons, ["the drill d failed: why"]);
        let [x, _] = judged_on(27, std::slice::from_ref(&fail));
        assert_eq!((x.health, x.reasons.len()), (Health::Warning, 1), "an exception held on that day");
        let [x, _] = judged(&[record("d", DrillOutcome::Unverified, Tier::Full, 1.0)]);
        assert_eq!(x.health, Health::Warning);
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

    #[test]
    fn a_pass_from_one_repository_hides_nothing_of_another() {
        let plan = plan(
            "[repo.b]\nurl = '/b'\n[repo.c]\nurl = '/c'\n[[domain]]\nname = 'x'\npaths = ['/x']\nto = ['a', 'b']\n\
             [[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\nfrom = 'rotate'\n",
        );
        let from = |repo: &str, outcome| DrillRecord {
            repository: Some(repo.parse().expect("a name")),
            ..record("d", outcome, Tier::Full, 1.0)
        };
        let judged = |records: &[DrillRecord]| {
            let mut found = [status("x")];
            judge(&plan, &mut found, records, jiff::civil::date(2026, 11, 28));
            let [status] = found;
            (status.health, status.reasons.join(", "))
        };
        let (pass, fail, unverified) = (DrillOutcome::Pass, DrillOutcome::Fail, DrillOutcome::Unverified);
        let red = (Health::Critical, "the drill d from b failed: why".to_owned());
        assert_eq!(judged(&[from("b", fail), from("a", pass)]), red);
        assert_eq!(judged(&[from("b", pass), from("b", fail), from("a", pass), from("a", pass)]), red);
        let yellow = (Health::Warning, "the drill d from b could not be verified: why".to_owned());
        assert_eq!(judged(&[from("b", unverified), from("a", pass)]), yellow);
        let well = (Health::Ok, String::new());
        assert_eq!(judged(&[from("b", fail), from("a", pass), from("b", pass)]), well);
        assert_eq!(
            judged(&[from("c", fail), from("a", pass)]),
            well,
            "the domain does not go there any more"
        );
        let nowhere = record("d", unverified, Tier::Full, 0.0);
        let yellow = (Health::Warning, "the drill d could not be verified: why".to_owned());
        assert_eq!(judged(&[from("a", pass), nowhere.clone()]), yellow);
        assert_eq!(judged(&[nowhere, from("a", pass)]), well);
        let records = [from("b", fail), from("a", fail), from("a", pass), from("c", pass)];
        assert_eq!(latest(&plan, &records), [&records[2], &records[0]]);
    }

    #[test]
    fn one_that_is_late_fails_whom_it_is_late_for() {
        let plan = plan(
            "[class.c]\nrto = '1m'\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n[[domain]]\nname = 'y'\npaths = ['/y']\n\
             [[drill]]\nname = 'd'\ndomains = ['x', 'y']\ntier = 'full'\n[[exception]]\nid = 'E'\ncontrol = 'rto'\n\
             domain = 'x'\nreason = 'r'\napproved_by = 'a'\nexpires = 2026-11-27\n",
        );
        let late = |seconds| {
            let record = record("d", DrillOutcome::Fail, Tier::Full, seconds);
            DrillRecord { reason: Some(record.too_slow(60)), ..record }
        };
        let judged = |day: i8, record: DrillRecord| {
            let mut found = [status("x"), status("y")];
            judge(&plan, &mut found, &[record], jiff::civil::date(2026, 11, day));
            found.map(|status| status.health)
        };
        assert_eq!(judged(28, late(61.5)), [Health::Critical, Health::Ok]);
        assert_eq!(judged(27, late(61.5)), [Health::Warning, Health::Ok], "an exception held on that day");
        assert_eq!(judged(28, late(59.5)), [Health::Ok, Health::Ok], "the target was another one then");
        let other = DrillRecord { reason: Some("no".into()), ..late(61.5) };
        assert_eq!(
            judged(27, other.clone()),
            [Health::Critical, Health::Critical],
            "more than its time is wrong"
        );
        assert!(late(61.5).is_measured() && !other.is_measured());
        let repo = "a".parse().expect("a name");
        let noted = DrillRecord::of_note(&late(61.5).note(), &repo, Vec::new()).expect("understood");
        assert!(noted.is_late() && noted.repository == Some(repo), "a log says the same: {noted:?}");
    }
}
