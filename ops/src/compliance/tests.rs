//! Every target, met and missed, excused and not.

use std::collections::BTreeMap;

use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use super::*;
use crate::drill::DrillOutcome;
use crate::plan::load::tests_support::plan;
use crate::plan::types::Tier;
use crate::recover::journal::Timed;
use crate::recover::{RecoveryOutcome, Step};
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
    /// Within which time everything has to be back, if somebody says so.
    rto: &'static str,
    /// How long the steps of drills and of a recovery took, in seconds, and how many days ago that was.
    took: f64,
    recovered: Option<(f64, i64)>,
    /// What there is to say of a drill that failed.
    reason: Option<&'static str>,
    no_site: bool,
}

fn days_ago(days: i64) -> Timestamp {
    let now: Zoned = NOW.parse().expect("a time");
    Timestamp::from_second(now.timestamp().as_second() - days * 86_400).expect("a time")
}

/// One that took so long.
fn recovery(seconds: f64, began: Timestamp) -> RecoveryRecord {
    RecoveryRecord {
        recovery: "r".into(),
        domain: name("x"),
        repository: name("a"),
        snapshot: id(1),
        began,
        outcome: RecoveryOutcome::Recovered,
        cause: None,
        reason: None,
        steps: vec![Timed { step: Step::Stage, seconds }],
        files: 1,
        bytes: 1,
        rto: None,
        left: Vec::new(),
        kept: Vec::new(),
        warnings: Vec::new(),
    }
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
            rto: "",
            took: 1.0,
            recovered: None,
            reason: None,
            no_site: false,
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
        let text = PLAN.replace("drill_every", &format!("{}\ndrill_every", self.rto));
        let text = if self.no_site { text.replace("site = 'elsewhere'\n", "") } else { text };
        let mut plan = plan(&format!("{text}{}", self.exceptions));
        plan.repos.values_mut().take(1).for_each(|repo| repo.site = Some("here".into()));
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
            at_work_since: None,
            repositories: ["a", "b"].map(|name| (name.parse().expect("a name"), of_repo.clone())).into(),
        };
        let attempts = vec![attempt; self.attempts];
        let drill = |drill, outcome, days| DrillRecord {
            drill: name(drill),
            tier: if drill == "names" { Tier::Metadata } else { Tier::Full },
            repository: None,
            began: days_ago(days),
            outcome,
            reason: self.reason.map(str::to_owned).filter(|_| outcome == DrillOutcome::Fail),
            self_test: false,
            restored: Vec::new(),
            phases: vec![crate::drill::Timed { phase: crate::drill::Phase::Fetch, seconds: self.took }],
            rto: None,
        };
        let first = self.drilled_days_ago.map(|days| drill("d", DrillOutcome::Pass, days));
        let since = self.drills_since.iter().map(|(name, outcome, days)| drill(name, *outcome, *days));
        let drills: Vec<_> = first.into_iter().chain(since).collect();
        let recoveries: Vec<_> =
            self.recovered.into_iter().map(|(seconds, days)| recovery(seconds, days_ago(days))).collect();
        let unasked: Vec<_> =
            ["a", "b"].into_iter().filter(|repo| !self.snapshots.contains_key(repo)).map(name).collect();
        compliance(
            &plan,
            &Evidence {
                host: "box",
                snapshots: &snapshots,
                known: &|_| Ok(self.known.clone()),
                verifications: &self.verifications(),
                attempts: &attempts,
                drills: &drills,
                recoveries: &recoveries,
                unasked: &unasked,
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
    let both = format!("the newest in a lacks 1 entry that could not be read; {lacks}");
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

#[test]
fn a_recovery_time_is_met_missed_or_was_never_measured() {
    let case = || Case { rto: "rto = '1m'", ..Case::good() };
    let with = |change: &dyn Fn(&mut Case)| {
        let mut case = case();
        change(&mut case);
        case.missed()
    };
    assert_eq!((case().missed().as_str(), case().judged().count(Standing::Met)), ("", 8));
    let found = |case: &Case| {
        let rto = case.judged().findings.into_iter().find(|finding| finding.control == Control::Rto);
        rto.map(|finding| format!("{} of {}", finding.found, finding.wanted))
    };
    assert_eq!(found(&case()).as_deref(), Some("1.0 s in the drill d, 3d 0h ago of back within 1m"));
    assert_eq!(found(&Case::good()), None, "nobody wants it");
    let never = "rto unknown: never measured; drill violated: never";
    assert_eq!(with(&|case| case.drilled_days_ago = None), never);
    assert_eq!(with(&|case| case.took = 61.0), "rto violated: 61.0 s in the drill d, 3d 0h ago");
    // What was measured later counts, better or worse.
    let slow = "rto violated: 70.0 s in a recovery, 2d 0h ago";
    assert_eq!(with(&|case| case.recovered = Some((70.0, 2))), slow);
    assert_eq!(with(&|case| case.recovered = Some((70.0, 4))), "");
    let late = |case: &mut Case| {
        case.took = 61.0;
        case.reason = Some("a recovery takes 61 s, and has to be done in 60 s");
        case.drills_since = vec![("d", DrillOutcome::Fail, 1)];
    };
    let both = "rto violated: 61.0 s in the drill d, 1d 0h ago; drill violated: d failed 1d 0h ago";
    assert_eq!(with(&late), both);
    let excuse = |expires: &str| {
        format!(
            "[[exception]]\nid = 'E'\ncontrol = 'rto'\ndomain = 'x'\nreason = 'r'\napproved_by = 'a'\nexpires = {expires}\n"
        )
    };
    let mut excused = Case { exceptions: excuse("2026-11-28"), ..case() };
    late(&mut excused);
    assert_eq!(excused.missed(), both.replace("violated", "excused"));
    assert!(
        excused.judged().findings.iter().filter(|one| one.exception.as_deref() == Some("E")).count() == 2
    );
    excused.exceptions = excuse("2026-11-27");
    assert_eq!((excused.missed(), excused.judged().count(Standing::Violated)), (both.to_owned(), 3));
    // It excuses the time, and nothing else that is wrong.
    let mut wrong = Case { exceptions: excuse("2026-11-28"), ..case() };
    late(&mut wrong);
    wrong.reason = Some("step 2: echo: it printed 5, expected < 5");
    assert_eq!(
        wrong.missed(),
        "rto excused: 61.0 s in the drill d, 3d 0h ago; drill violated: d failed 1d 0h ago"
    );
    let never = Case { drilled_days_ago: None, exceptions: excuse("2026-11-28"), ..case() };
    assert_eq!(never.missed(), "rto excused: never measured; drill violated: never");
}

#[test]
fn a_log_that_cannot_be_read_leaves_open_what_it_might_say() {
    let mut case = Case { rto: "rto = '1m'", ..Case::good() };
    case.snapshots.remove("b");
    assert!(!case.missed().contains("drill") && !case.missed().contains("rto"), "what is known stays known");
    case.drilled_days_ago = Some(31);
    assert!(case.missed().contains("drill unknown: 31d 0h ago; b cannot be asked"), "{}", case.missed());
    case.drilled_days_ago = None;
    let missed = case.missed();
    for said in ["rto unknown: never measured; b cannot be asked", "drill unknown: never; b cannot be asked"]
    {
        assert!(missed.contains(said), "{missed}");
    }
    case.drills_since = vec![("d", DrillOutcome::Fail, 1)];
    assert!(case.missed().contains("drill violated: d failed"), "{}", case.missed());
}

#[test]
fn what_restores_nothing_is_no_rehearsal_and_what_has_no_site_is_at_none() {
    let names = vec![("names", DrillOutcome::Pass, 0)];
    let metadata = Case { drilled_days_ago: None, drills_since: names, ..Case::good() };
    assert_eq!(metadata.missed(), "drill violated: never");
    let nowhere = Case { no_site: true, ..Case::good() };
    assert_eq!(nowhere.missed(), "sites violated: 1 with a fresh snapshot");
}
