//! Every target, met and missed, excused and not.

use std::collections::BTreeMap;

use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use super::*;
use crate::drill::DrillOutcome;
use crate::plan::load::tests_support::plan;
use crate::plan::types::Tier;
use crate::run::state::{Outcome, RepoAttempt};
use crate::testing::{NOW, id, name, record};

const PLAN: &str = "site = 'here'\n[repo.b]\nurl = '/b'\nsite = 'elsewhere'\n[class.c]\nrpo = '24h'\nrpo_grace = '4h'\ncopies = 2\nsites = 2\n\
                    min_consistency = 'crash'\nverify = { every = '7d', read = '10%' }\ndrill_every = '30d'\n\
                    retain = { daily = 9, min_keep = 2 }\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\n\
                    [[drill]]\nname = 'names'\ndomains = ['x']\ntier = 'metadata'\n";

struct Case {
    snapshots: BTreeMap<&'static str, Vec<(SnapshotId, Snapshot)>>,
    known: Known,
    verdict: Option<Verdict>,
    drilled_days_ago: Option<i64>,
    /// Drills after that one: how they ended, and how many days ago they began.
    drills_since: Vec<(&'static str, DrillOutcome, i64)>,
    attempts: usize,
    exceptions: String,
}

fn days_ago(days: i64) -> Timestamp {
    let now: Zoned = NOW.parse().expect("a time");
    Timestamp::from_second(now.timestamp().as_second() - days * 86_400).expect("a time")
}

impl Case {
    /// Everything is as it has to be.
    fn good() -> Self {
        let one = |number, hours| {
            let mut one = record("x", hours);
            one.provenance.as_mut().expect("of a plan").consistency = Recorded::Application;
            (id(number), one)
        };
        let both = |number| vec![one(number, 30), one(number + 1, 5)];
        Self {
            snapshots: [("a", both(1)), ("b", both(3))].into(),
            verdict: None,
            known: Known { packs: 1, last_read: Some(days_ago(3)), ..Known::default() },
            drilled_days_ago: Some(3),
            drills_since: Vec::new(),
            attempts: 5,
            exceptions: String::new(),
        }
    }

    /// One of the repository `b`, after one that was well.
    fn verifications(&self) -> Vec<Verification> {
        let ended = |verdict| Verification {
            repository: name("b"),
            began: days_ago(0),
            ended: days_ago(0),
            verdict,
            message: None,
            packs_read: 0,
            bytes_read: 0,
        };
        [Some(Verdict::Ok), self.verdict].into_iter().flatten().map(ended).collect()
    }

    fn judged(&self) -> Compliance {
        let plan = plan(&format!("{PLAN}{}", self.exceptions));
        let snapshots = |name: &Name| {
            self.snapshots.get(name.as_str()).map(Vec::as_slice).ok_or_else(|| "down".to_owned())
        };
        let of_repo = RepoAttempt { outcome: Outcome::Ok, snapshot: Some("s".into()), message: None };
        let attempt = Attempt {
            domain: "x".parse().expect("a name"),
            began: days_ago(1),
            ended: None,
            outcome: Outcome::Ok,
            message: None,
            repositories: ["a", "b"].map(|name| (name.parse().expect("a name"), of_repo.clone())).into(),
        };
        let attempts = vec![attempt; self.attempts];
        let drill = |drill, outcome, days| DrillRecord {
            drill: name(drill),
            tier: Tier::Full,
            repository: None,
            began: days_ago(days),
            outcome,
            reason: None,
            self_test: false,
            restored: Vec::new(),
            phases: Vec::new(),
            rto: None,
        };
        let first = self.drilled_days_ago.map(|days| drill("d", DrillOutcome::Pass, days));
        let since = self.drills_since.iter().map(|(name, outcome, days)| drill(name, *outcome, *days));
        let drills: Vec<_> = first.into_iter().chain(since).collect();
        compliance(
            &plan,
            &Evidence {
                host: "box",
                snapshots: &snapshots,
                known: &|_| Ok(self.known.clone()),
                verifications: &self.verifications(),
                attempts: &attempts,
                drills: &drills,
                now: &NOW.parse().expect("a time"),
            },
        )
    }

    /// Targets that are not met, as text.
    fn missed(&self) -> String {
        let judged = self.judged();
        let missed = judged.findings.iter().filter(|finding| finding.standing != Standing::Met);
        let missed: Vec<_> = missed
            .map(|finding| {
                format!("{} {}: {}", finding.control.name(), finding.standing.name(), finding.found)
            })
            .collect();
        missed.join("; ")
    }
}

#[test]
fn every_target_is_judged_by_what_there_is() {
    let good = Case::good();
    assert_eq!(good.missed(), "");
    assert_eq!(good.judged().count(Standing::Met), 7);
    let wrong = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::good();
        change(&mut case);
        case.missed()
    };
    let old = |case: &mut Case, repo: &'static str| {
        let mut all = case.snapshots.remove(repo).expect("some");
        all.pop();
        case.snapshots.insert(repo, all);
    };
    assert_eq!(
        wrong(&|case| old(case, "b")),
        "copies violated: 1 with a fresh snapshot; sites violated: 1 with a fresh snapshot; retention violated: b: 1"
    );
    assert!(
        wrong(&|case| ["a", "b"].map(|repo| old(case, repo)).into_iter().collect())
            .starts_with("rpo violated: 1d 6h old; copies violated: 0 with")
    );
    assert_eq!(
        wrong(&|case| drop(case.snapshots.remove("b"))),
        "copies unknown: 1 with a fresh snapshot; sites unknown: 1 with a fresh snapshot; retention unknown: b: cannot be asked"
    );
    assert!(wrong(&|case| drop(case.snapshots.insert("a", Vec::new()))).contains("retention violated: a: 0"));
    // It is new: there never were two.
    assert!(
        !wrong(&|case| {
            old(case, "a");
            case.attempts = 1;
        })
        .contains("retention")
    );
    let fuzzy = |case: &mut Case| {
        let newest = &mut case.snapshots.get_mut("a").expect("some")[1].1;
        newest.provenance.as_mut().expect("of a plan").consistency = Recorded::Fuzzy;
    };
    assert_eq!(wrong(&fuzzy), "consistency violated: fuzzy");
    assert_eq!(
        wrong(&|case| case.known.last_read = Some(days_ago(8))),
        "verify violated: b: last read 8d 0h ago"
    );
    let some = |case: &mut Case| {
        case.known = Known { bytes: 1000, read: vec![(days_ago(3), 99)], ..case.known.clone() };
    };
    assert_eq!(wrong(&some), "verify violated: b: less than 10% of it was read within 7d");
    assert_eq!(
        wrong(&|case| case.known.packs_in_doubt = 2),
        "verify violated: b: 2 packs were found damaged"
    );
    let unread = |days| {
        wrong(&|case| case.known = Known { packs: 1, since: Some(days_ago(days)), ..Known::default() })
    };
    assert_eq!((unread(6), unread(8)), (String::new(), "verify violated: b: nothing was read yet".into()));
    assert_eq!(wrong(&|case| case.drilled_days_ago = None), "drill violated: never");
    assert_eq!(wrong(&|case| case.drilled_days_ago = Some(31)), "drill violated: 31d 0h ago");
}

#[test]
fn exceptions_excuse_while_they_hold_and_then_are_violations() {
    let mut case = Case::good();
    case.drilled_days_ago = None;
    let exception = |control: &str, expires: &str| {
        format!(
            "[[exception]]\nid = 'E-{control}'\ncontrol = '{control}'\ndomain = 'x'\nreason = 'r'\napproved_by = 'a'\nexpires = {expires}\n"
        )
    };
    case.exceptions = exception("drill", "2026-11-28");
    assert_eq!(case.missed(), "drill excused: never");
    assert_eq!(case.judged().count(Standing::Violated), 0);
    case.exceptions = exception("drill", "2026-11-27");
    assert_eq!(
        (case.missed().as_str(), case.judged().count(Standing::Violated)),
        ("drill violated: never", 2)
    );
    case.drilled_days_ago = Some(1);
    assert_eq!((case.missed().as_str(), case.judged().count(Standing::Violated)), ("", 1));
    assert_eq!(case.judged().expired[0].id, "E-drill");
    // One that failed is a violation also where the one before it is not old.
    case.drills_since = vec![("d", DrillOutcome::Fail, 0)];
    case.exceptions = exception("drill", "2026-11-28");
    assert_eq!(case.missed(), "drill excused: d failed 0m ago");
    case.exceptions = exception("drill", "2026-11-27");
    assert_eq!(case.missed(), "drill violated: d failed 0m ago");
    case.drills_since.clear();
    case.exceptions = exception("retention", "2026-12-01");
    assert_eq!(case.judged().count(Standing::Excused), 0);
}

#[test]
fn a_drill_that_failed_is_missed_until_it_passes_itself() {
    let (fail, pass, unverified) = (DrillOutcome::Fail, DrillOutcome::Pass, DrillOutcome::Unverified);
    let missed = |drills_since: &[_]| Case { drills_since: drills_since.to_vec(), ..Case::good() }.missed();
    assert_eq!(missed(&[("d", fail, 2), ("names", pass, 1)]), "drill violated: d failed 2d 0h ago");
    assert_eq!(missed(&[("d", fail, 2), ("d", unverified, 1)]), "drill violated: d failed 2d 0h ago");
    let both = "drill violated: d failed 2d 0h ago, names failed 1d 0h ago";
    assert_eq!(missed(&[("names", fail, 1), ("d", fail, 2)]), both);
    assert_eq!(missed(&[("d", fail, 2), ("names", pass, 1), ("d", pass, 0)]), "");
    assert_eq!(missed(&[("d", unverified, 1)]), "", "what could not be verified failed at nothing");
}

#[test]
fn what_verification_has_found_is_excused_by_nothing() {
    let exception = "[[exception]]\nid = 'E'\ncontrol = 'verify'\ndomain = 'x'\nreason = 'r'\napproved_by = 'a'\nexpires = 2026-12-01\n";
    let missed = |change: &dyn Fn(&mut Case)| {
        let mut case = Case { exceptions: exception.into(), ..Case::good() };
        change(&mut case);
        case.missed()
    };
    // A pack that is gone, a tree, the log: the ledger knows packs that are there.
    let damaged = "verify violated: b: the last verification found damage";
    assert_eq!(missed(&|case| case.verdict = Some(Verdict::Damaged)), damaged);
    assert_eq!(
        missed(&|case| case.known.packs_in_doubt = 2),
        "verify violated: b: 2 packs were found damaged"
    );
    let unverified = "verify unknown: b: the last verification could not be done";
    assert_eq!(missed(&|case| case.verdict = Some(Verdict::Unverified)), unverified);
    assert_eq!(missed(&|case| case.verdict = Some(Verdict::Ok)), "");
    let late = |case: &mut Case| case.known.last_read = Some(days_ago(8));
    assert_eq!(missed(&late), "verify excused: b: last read 8d 0h ago");
}

#[test]
fn a_snapshot_that_lacks_something_or_is_to_come_counts_for_none() {
    let newest = |case: &mut Case, repo: &str, change: &dyn Fn(&mut Snapshot)| {
        change(&mut case.snapshots.get_mut(repo).expect("some")[1].1);
    };
    let mut case = Case::good();
    newest(&mut case, "b", &|one| one.summary.errors = 3);
    let lacks = "the newest in b lacks 3 entries that could not be read";
    let one = |flaw: &str| {
        format!(
            "copies violated: 1 with a fresh snapshot; {flaw}; sites violated: 1 with a fresh snapshot; {flaw}"
        )
    };
    assert_eq!(case.missed(), one(lacks), "the one before it is too old");
    newest(&mut case, "a", &|one| one.summary.errors = 1);
    let both = format!("the newest in a lacks 1 entries that could not be read; {lacks}");
    assert!(case.missed().starts_with(&format!("rpo violated: 1d 6h old; {both}; copies violated: 0 with")));
    let mut case = Case::good();
    newest(&mut case, "b", &|one| one.summary.unstable = 3);
    assert_eq!(case.missed(), "");
    // A clock that was ahead for one boot makes nothing fresh for years.
    newest(&mut case, "b", &|one| one.time.seconds += 10 * 366 * 86_400);
    assert_eq!(case.missed(), one("the newest in b says that it was made in the future"));
    let mut case = Case::good();
    newest(&mut case, "b", &|one| one.time.seconds += 5 * 3600 + 200);
    assert_eq!(case.missed(), "", "clocks differ");
    let mut case = Case::good();
    case.drilled_days_ago = Some(-3000);
    assert_eq!(case.missed(), "drill violated: never");
    case.drills_since = vec![("d", DrillOutcome::Fail, -3000)];
    assert!(case.missed().contains("d failed"), "a failure counts all the same");
}

#[test]
fn one_repository_under_two_names_is_one_copy() {
    let mut case = Case::good();
    let same = case.snapshots["a"].clone();
    case.snapshots.insert("b", same);
    let once = "1 with a fresh snapshot; a and b are one repository";
    assert_eq!(case.missed(), format!("copies violated: {once}; sites violated: {once}"));
}
