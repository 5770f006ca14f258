//! Every target, met and missed, excused and not.

use std::collections::BTreeMap;

use super::*;
use crate::drill::DrillOutcome;
use crate::plan::load::tests_support::plan;
use crate::plan::types::Tier;
use crate::run::state::{Outcome, RepoAttempt};
use crate::testing::{NOW, name, snapshot};

const PLAN: &str = "[repo.b]\nurl = '/b'\nsite = 'elsewhere'\n[class.c]\nrpo = '24h'\nrpo_grace = '4h'\ncopies = 2\nsites = 2\n\
                    min_consistency = 'crash'\nverify = { every = '7d', read = '10%' }\ndrill_every = '30d'\n\
                    retain = { daily = 9, min_keep = 2 }\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\n\
                    [[drill]]\nname = 'names'\ndomains = ['x']\ntier = 'metadata'\n";

struct Case {
    snapshots: BTreeMap<&'static str, Vec<(SnapshotId, Snapshot)>>,
    known: Known,
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
        let one = |hours| {
            let mut one = snapshot("x", hours);
            one.1.provenance.as_mut().expect("of a plan").consistency = Recorded::Application;
            one
        };
        let both = || vec![one(30), one(5)];
        Self {
            snapshots: [("a", both()), ("b", both())].into(),
            known: Known { packs: 1, last_read: Some(days_ago(3)), ..Known::default() },
            drilled_days_ago: Some(3),
            drills_since: Vec::new(),
            attempts: 5,
            exceptions: String::new(),
        }
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
