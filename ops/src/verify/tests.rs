//! What is due, how well repositories are verified, and what is remembered of it.

use std::cell::RefCell;

use super::*;
use crate::plan::load::tests_support::plan;
use crate::testing::name;

fn now() -> Timestamp {
    crate::testing::now().timestamp()
}

fn days_ago(days: i64) -> Option<Timestamp> {
    Timestamp::from_second(now().as_second() - days * 86_400).ok()
}

const PLAN: &str = "[repo.b]\nurl = '/b'\n[class.c]\nverify = { every = '7d', read = '10%' }\n[class.d]\n\
                    verify = { every = '30d', read = '50%' }\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n\
                    to = ['a']\n[[domain]]\nname = 'y'\nclass = 'd'\npaths = ['/y']\n[[domain]]\nname = 'z'\npaths = ['/z']\n";

struct Played(Result<Checked, VaultError>, RefCell<Vec<Option<u64>>>);

impl Verifier for Played {
    fn known(&self, _: &Name) -> Result<Known, VaultError> {
        Ok(Known { packs: 3, bytes: 1001, largest: 400, ..Known::default() })
    }

    fn check(&self, _: &Name, budget: Option<u64>) -> Result<Checked, VaultError> {
        self.1.borrow_mut().push(budget);
        self.0.clone()
    }
}

#[test]
fn the_strictest_demand_holds_and_says_how_much_is_read() {
    let found = demands(&plan(PLAN));
    let found: Vec<_> =
        found.iter().map(|(repo, demand)| format!("{repo} {} {}", demand.every, demand.read)).collect();
    assert_eq!(found, ["a 7d 50%", "b 30d 50%"]);
    let played = Played(Ok(Checked::default()), RefCell::default());
    for share in ["1%", "50%", "100%"] {
        verify(&played, &name("a"), share.parse().expect("a share"), &now);
    }
    assert_eq!(played.1.into_inner(), [Some(11 + 399), Some(501 + 399), None]);
}

#[test]
fn damage_doubt_and_failures_are_told_apart_and_remembered() {
    let some = |text: &str| Some(text.to_owned());
    let failed = VaultError { code: "x".into(), message: "it is down; it said: hunter2".into() };
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    for (checked, verdict, message) in [
        (Ok(Checked { packs_read: 2, ..Checked::default() }), Verdict::Ok, None),
        (Ok(Checked { doubt: some("cut off"), ..Checked::default() }), Verdict::Unverified, some("cut off")),
        (
            Ok(Checked { damage: some("rot"), doubt: some("cut off"), ..Checked::default() }),
            Verdict::Damaged,
            some("rot"),
        ),
        (Err(failed), Verdict::Unverified, some("it is down")),
    ] {
        let done =
            verify(&Played(checked, RefCell::default()), &name("a"), "5%".parse().expect("a share"), &now);
        assert_eq!(done.verdict, verdict);
        state.record_verification(&done).expect("recorded");
        let kept = state.verifications().expect("readable").pop().expect("one");
        assert_eq!((kept.verdict, kept.message), (verdict, message));
    }
}

#[test]
fn age_decides_what_is_due_and_how_well_it_is() {
    let known = |last_read, in_doubt| {
        let counts = Known { packs: 3, bytes: 1000, packs_in_doubt: in_doubt, ..Known::default() };
        Ok(Known { last_read, read: last_read.into_iter().map(|time| (time, 1000)).collect(), ..counts })
    };
    let since = |days| Ok(Known { packs: 3, bytes: 1000, since: days_ago(days), ..Known::default() });
    let judged = |more: &str, known: &Result<Known, String>, last: &[Verification]| {
        let plan = plan(&format!("{PLAN}{more}"));
        status(&plan, &|_| known.clone(), last, &now().to_zoned(jiff::tz::TimeZone::UTC)).remove(0)
    };
    let demand = Demand { every: "7d".parse().expect("a lapse"), read: "10%".parse().expect("a share") };
    let empty = Ok(Known::default());
    let down = Err("down".to_owned());
    for (known, is_due, health) in [
        (&known(days_ago(6), 0), false, Health::Ok),
        (&known(days_ago(7), 0), true, Health::Ok),
        (&known(days_ago(8), 0), true, Health::Warning),
        (&known(days_ago(15), 0), true, Health::Critical),
        (&known(days_ago(1), 1), true, Health::Critical),
        (&known(None, 0), true, Health::Ok),
        (&since(6), true, Health::Ok),
        (&since(8), true, Health::Warning),
        (&since(15), true, Health::Critical),
        (&empty, false, Health::Ok),
        (&down, true, Health::Unknown),
    ] {
        assert_eq!(due(&demand, known, None, now()).is_some(), is_due, "{known:?}");
        // What was found may be no pack.
        for last in [Verdict::Unverified, Verdict::Damaged] {
            assert!(due(&demand, known, Some(last), now()).is_some(), "{known:?}");
        }
        assert_eq!(due(&demand, known, Some(Verdict::Ok), now()).is_some(), is_due, "{known:?}");
        assert_eq!(judged("", known, &[]).health, health, "{known:?}");
    }
    let exception = "[[exception]]\nid = 'E'\ncontrol = 'verify'\ndomain = 'D'\nreason = 'r'\napproved_by = 'a'\nexpires = 2026-12-01\n";
    let late = known(days_ago(15), 0);
    let one = exception.replace('D', "x");
    assert_eq!(judged(&one, &late, &[]).health, Health::Critical, "y wants it, too");
    let both = format!("{one}{}", exception.replace("'D'", "'y'").replace("'E'", "'F'"));
    assert_eq!(judged(&both, &late, &[]).health, Health::Warning);
    let last = |verdict| Verification {
        repository: name("a"),
        began: now(),
        ended: now(),
        verdict,
        message: None,
        packs_read: 0,
        bytes_read: 0,
    };
    let fresh = known(days_ago(1), 0);
    let all = [last(Verdict::Ok), last(Verdict::Damaged)];
    assert_eq!(judged("", &fresh, &all).health, Health::Critical);
    assert_eq!(judged("", &fresh, &[last(Verdict::Damaged), last(Verdict::Ok)]).health, Health::Ok);
}

#[test]
fn a_share_is_one_of_bytes_and_not_of_readings() {
    let demand = Demand { every: "7d".parse().expect("a lapse"), read: "10%".parse().expect("a share") };
    let known = |read: &[(i64, u64)], stored: &[(i64, u64)]| {
        let dated = |list: &[(i64, u64)]| -> Vec<_> {
            list.iter().map(|(days, bytes)| (days_ago(*days).expect("a time"), *bytes)).collect()
        };
        let read = dated(read);
        let counts = Known { packs: 9, bytes: 1000, since: days_ago(60), ..Known::default() };
        let last_read = read.iter().map(|(time, _)| *time).max();
        Known { last_read, read, stored: dated(stored), ..counts }
    };
    let judged = |known: &Known| {
        let plan = plan(&PLAN.replace("'50%'", "'10%'"));
        let now = now().to_zoned(jiff::tz::TimeZone::UTC);
        status(&plan, &|_| Ok(known.clone()), &[], &now).remove(0)
    };
    for (known, is_due, health) in [
        (known(&[(1, 100)], &[]), false, Health::Ok),
        (known(&[(1, 50), (3, 50)], &[]), false, Health::Ok),
        // A budget of time that was enough for one pack.
        (known(&[(1, 99)], &[]), true, Health::Critical),
        (known(&[(1, 40), (8, 60)], &[]), true, Health::Warning),
        // What is new need not have been read yet.
        (known(&[(1, 60)], &[(2, 400), (30, 600)]), false, Health::Ok),
        (known(&[(1, 50)], &[(2, 400), (30, 600)]), true, Health::Critical),
    ] {
        assert_eq!(due(&demand, &Ok(known.clone()), None, now()).is_some(), is_due, "{known:?}");
        assert_eq!(judged(&known).health, health, "{known:?}");
    }
    let reasons = judged(&known(&[(1, 99)], &[])).reasons;
    assert_eq!(reasons, ["less than 10% of it was read within 7d"]);
}
