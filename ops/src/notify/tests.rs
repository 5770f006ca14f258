//! Who is told of what, with addresses and commands that are played.

use std::cell::RefCell;

use super::*;
use crate::drill::DrillOutcome;
use crate::plan::load::tests_support::plan;
use crate::plan::types::Tier;
use crate::recover::{RecoveryOutcome, RecoveryRecord};
use crate::run::anomaly::Guard;
use crate::run::process::{Ended, ProcessError, Sink, Source};
use serde_json::Value;
use strongroom::ids::{BlobId, SnapshotId};

const PLAN: &str = "[[domain]]\nname = 'x'\npaths = ['/x']\nobjectives = { verify = { every = '7d', read = '1%' } }\n[[notify]]\non = ['failure', 'recovered', 'rpo', 'exception-expiring']\n\
                    webhook_env = 'HOOK'\n[[notify]]\non = ['start', 'success', 'failure']\nheartbeat_env = 'BEAT'\n[[notify]]\n\
                    on = ['drill', 'recovery']\nwebhook_env = 'DRILLS'\n[[notify]]\n\
                    on = ['success']\ncommand = ['tell', 'people']\n[[exception]]\nid = 'EX-7'\ncontrol = 'copies'\ndomain = 'x'\n\
                    reason = 'r'\napproved_by = 'a'\nexpires = 2026-12-05\n";

#[derive(Default)]
struct Played {
    calls: RefCell<Vec<String>>,
    is_down: RefCell<bool>,
}

impl Http for Played {
    fn post(&self, address: &str, json: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(json).expect("JSON");
        let text = value["text"].as_str().expect("text");
        self.calls.borrow_mut().push(format!("{address} {} {text}", value["event"].as_str().expect("text")));
        if *self.is_down.borrow() { Err("it is down".into()) } else { Ok(()) }
    }

    fn get(&self, address: &str) -> Result<(), String> {
        self.calls.borrow_mut().push(address.to_owned());
        if *self.is_down.borrow() { Err("it is down".into()) } else { Ok(()) }
    }
}

/// Commands that fail.
struct NoCommands;

impl Processes for NoCommands {
    fn run(&self, _: &Order<'_>) -> Result<Ended, ProcessError> {
        unreachable!("nobody is asked")
    }

    fn source(&self, _: &Order<'_>) -> Result<Box<dyn Source>, ProcessError> {
        unreachable!("nobody is asked")
    }

    fn sink(&self, order: &Order<'_>) -> Result<Box<dyn Sink>, ProcessError> {
        let program = order.argv.program().to_owned();
        Err(ProcessError::Start { program, reason: order.env[0].1.clone() })
    }
}

fn told(
    played: &Played,
    state: &State,
    hours: i64,
    act: &dyn Fn(&Notifier<'_>) -> Vec<String>,
) -> (Vec<String>, Vec<String>) {
    let warnings = warned(played, state, hours, act);
    (std::mem::take(&mut *played.calls.borrow_mut()), warnings)
}

fn warned(
    http: &dyn Http,
    state: &State,
    hours: i64,
    act: &dyn Fn(&Notifier<'_>) -> Vec<String>,
) -> Vec<String> {
    let plan = plan(PLAN);
    let variable = |name: &str| (name != "UNSET").then(|| format!("http://h/{name}"));
    let now = move || Timestamp::from_second(1_795_867_200 + hours * 3600).expect("a time");
    let notifier = Notifier {
        plan: &plan,
        host: "box".into(),
        http,
        processes: Arc::new(NoCommands),
        variable: &variable,
        state,
        now: &now,
    };
    act(&notifier)
}

#[test]
fn everybody_is_told_what_they_want_to_know_and_not_again_and_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let item = |message: &str| vec![Item::new("x", message)];
    let fails = |notifier: &Notifier<'_>| notifier.changed(&item("no space; it said: hunter2"), &[]);
    let is_well = |notifier: &Notifier<'_>| {
        let warnings = notifier.changed(&[], &item("ok"));
        [warnings, notifier.tell(Event::Success, &item("ok"))].concat()
    };
    let failure = "http://h/HOOK failure Strongroom on box: failure: x: no space";
    let not_told = "notify: tell people was not told of success: cannot run tell: success";
    assert_eq!(told(&played, &state, 0, &fails), (vec![failure.into(), "http://h/BEAT/fail".into()], vec![]));
    assert_eq!(told(&played, &state, 1, &fails).0, ["http://h/BEAT/fail"], "heartbeats are called each time");
    assert_eq!(told(&played, &state, 24, &fails).0, [failure, "http://h/BEAT/fail"]);
    let recovered = "http://h/HOOK recovered Strongroom on box: recovered: x: is well again";
    assert_eq!(
        told(&played, &state, 25, &is_well),
        (vec![recovered.into(), "http://h/BEAT".into()], vec![not_told.into()])
    );
    assert_eq!(told(&played, &state, 26, &is_well).0, ["http://h/BEAT"]);
    assert_eq!(told(&played, &state, 27, &|notifier| notifier.run_begins(&[])).0, ["http://h/BEAT/start"]);
    // Nothing was due: nobody but the heartbeat wants to know.
    assert_eq!(
        told(&played, &state, 28, &|notifier| notifier.run_ended(&[])),
        (vec!["http://h/BEAT".into()], vec![])
    );
}

/// A channel that takes its time, in which another run of this host ends.
struct Slow<'s>(&'s State);

impl Http for Slow<'_> {
    fn post(&self, _: &str, _: &str) -> Result<(), String> {
        let now = Timestamp::from_second(1_795_867_200).expect("a time");
        Memory::change(self.0, now, |memory| memory.fails("y", now)).map_err(|error| error.to_string())
    }

    fn get(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn what_another_run_finds_while_somebody_is_told_is_not_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let fails = |notifier: &Notifier<'_>| notifier.changed(&[Item::new("x", "no space")], &[]);
    assert_eq!(warned(&Slow(&state), &state, 0, &fails), Vec::<String>::new());
    assert_eq!(Memory::load(&state).failing().collect::<Vec<_>>(), ["x", "y"]);
    let played = Played::default();
    assert_eq!(told(&played, &state, 1, &fails).0, ["http://h/BEAT/fail"], "that was remembered, too");
}

#[test]
fn nothing_is_well_again_before_somebody_has_looked() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let report = |is_guarded: bool, anomalies: &[&str]| DomainReport {
        outcome: if is_guarded { Outcome::Partial } else { Outcome::Ok },
        warnings: vec!["look at it".into()],
        anomalies: anomalies.iter().map(|reason| (*reason).to_owned()).collect(),
        is_guarded,
        ..DomainReport::new(&"x".parse().expect("a name"))
    };
    let ended = |hours, report: DomainReport| {
        let calls =
            told(&played, &state, hours, &|notifier| notifier.run_ended(std::slice::from_ref(&report))).0;
        let said = |call: &String| call.split(' ').take(2).collect::<Vec<_>>().join(" ");
        calls.iter().map(said).collect::<Vec<_>>()
    };
    assert_eq!(ended(0, report(true, &["encrypted"])), ["http://h/HOOK failure", "http://h/BEAT/fail"]);
    assert_eq!(ended(1, report(true, &[])), ["http://h/BEAT/fail"], "nobody has looked");
    assert_eq!(ended(2, report(false, &[])), ["http://h/HOOK recovered", "http://h/BEAT"]);
}

/// Neither what another run has, nor what waits for that; and nothing that failed before is well for it.
#[test]
fn what_is_passed_over_is_no_failure_and_no_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let report = |outcome| DomainReport { outcome, ..DomainReport::new(&"x".parse().expect("a name")) };
    let ended = |outcome| {
        let calls = told(&played, &state, 0, &|notifier| notifier.run_ended(&[report(outcome)])).0;
        let said = |call: &String| call.split(' ').take(2).collect::<Vec<_>>().join(" ");
        calls.iter().map(said).collect::<Vec<_>>()
    };
    assert_eq!(ended(Outcome::Deferred), [] as [&str; 0]);
    assert_eq!(ended(Outcome::Ok), ["http://h/BEAT"]);
    assert_eq!(ended(Outcome::Failed), ["http://h/HOOK failure", "http://h/BEAT/fail"]);
    assert_eq!(ended(Outcome::Deferred), ["http://h/BEAT/fail"], "it is not over");
}

/// Ten thousand files that cannot be read are no success each night.
#[test]
fn a_run_that_lacks_something_is_told_of_as_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let report = |outcome| {
        let message = (outcome != Outcome::Ok).then(|| "7 entries are missing".to_owned());
        DomainReport { outcome, message, ..DomainReport::new(&"x".parse().expect("a name")) }
    };
    let ended = |hours, reports: &[DomainReport]| {
        told(&played, &state, hours, &|notifier| notifier.run_ended(reports)).0
    };
    let partial = "http://h/HOOK partial Strongroom on box: partial: x: partial: 7 entries are missing";
    let recovered = "http://h/HOOK recovered Strongroom on box: recovered: x: is well again";
    let (beat, alarm) = ("http://h/BEAT", "http://h/BEAT/fail");
    assert_eq!(ended(0, &[report(Outcome::Partial)]), [partial, alarm]);
    assert_eq!(ended(1, &[]), [alarm], "nothing was due, and nothing is well for that");
    assert_eq!(ended(2, &[report(Outcome::Partial)]), [alarm], "it was told of today");
    assert_eq!(ended(25, &[report(Outcome::Partial)]), [partial, alarm]);
    assert_eq!(ended(26, &[report(Outcome::Ok)]), [recovered, beat]);
    // What failed and lacks something now is not well again.
    assert_eq!(ended(50, &[report(Outcome::Failed)]).len(), 2);
    assert_eq!(ended(51, &[report(Outcome::Partial)]), [partial, alarm]);
    assert_eq!(ended(52, &[report(Outcome::Ok)]), [recovered, beat]);
}

#[test]
fn who_is_told_of_runs_that_lack_something_can_be_said() {
    let channel = |on: &str, variable: &str| format!("[[notify]]\non = [{on}]\nwebhook_env = '{variable}'\n");
    let domain = "[[domain]]\nname = 'x'\npaths = ['/x']\n";
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    for (more, expected) in [("", ["PAGER", "MAIL"].as_slice()), (&channel("'partial'", "DESK"), &["DESK"])] {
        let plan = plan(&format!(
            "{domain}{}{}{more}",
            channel("'failure'", "PAGER"),
            channel("'failure', 'success'", "MAIL")
        ));
        let played = Played::default();
        let notifier = Notifier {
            plan: &plan,
            host: "box".into(),
            http: &played,
            processes: Arc::new(NoCommands),
            variable: &|name| Some(name.to_owned()),
            state: &state,
            now: &|| Timestamp::UNIX_EPOCH,
        };
        let report =
            DomainReport { outcome: Outcome::Partial, ..DomainReport::new(&"x".parse().expect("a name")) };
        assert_eq!(notifier.run_ended(&[report]), [] as [&str; 0]);
        let calls = played.calls.borrow();
        let names: Vec<_> = calls.iter().filter_map(|call| call.split(' ').next()).collect();
        assert_eq!(names, expected, "{calls:?}");
    }
}

/// The timer calls an hour later, and nothing is due: that is no success.
#[test]
fn a_heartbeat_says_that_it_is_over_when_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let idle = |hours| told(&played, &state, hours, &|notifier| notifier.run_ended(&[])).0;
    let changes = |hours, failed: &[Item], good: &[Item]| {
        told(&played, &state, hours, &|notifier| notifier.changed(failed, good))
    };
    let (fail, success) = (["http://h/BEAT/fail"], ["http://h/BEAT"]);
    assert_eq!(idle(0), success);
    for subject in ["x", "verify a"] {
        let item = [Item::new(subject, "damaged")];
        changes(1, &item, &[]);
        assert_eq!(idle(2), fail, "{subject}");
        // Another domain is well, and whoever wants to know of that alone is told.
        let report = DomainReport::new(&"y".parse().expect("a name"));
        let (calls, warnings) =
            told(&played, &state, 3, &|notifier| notifier.run_ended(std::slice::from_ref(&report)));
        assert_eq!(
            (calls.as_slice(), warnings.len()),
            (fail.map(str::to_owned).as_slice(), 1),
            "{warnings:?}"
        );
        changes(4, &[], &item);
        assert_eq!(idle(5), success, "{subject}");
    }
    // What the plan does not have any more is never well again.
    for subject in ["gone", "verify b"] {
        changes(6, &[Item::new(subject, "damaged")], &[]);
    }
    assert_eq!(idle(7), success);
    let x = "x".parse().expect("a name");
    let guard = Guard { reasons: vec!["encrypted".into()], ..Guard::default() };
    state.keep_guard(&x, &guard).expect("written");
    assert_eq!(idle(8), fail);
    state.acknowledge(&x).expect("written");
    assert_eq!(idle(9), success);
}

#[test]
fn who_could_not_be_told_is_told_the_next_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let many: Vec<_> = (0..60).map(|number| Item::new(format!("d{number}"), "down")).collect();
    let tell = |notifier: &Notifier<'_>| notifier.tell(Event::Rpo, &many);
    played.is_down.replace(true);
    let (calls, warnings) = told(&played, &state, 0, &tell);
    assert_eq!((calls.len(), warnings), (2, vec!["notify: HOOK was not told of rpo: it is down".to_owned()]));
    played.is_down.replace(false);
    let (calls, warnings) = told(&played, &state, 0, &tell);
    assert_eq!((calls.len(), warnings.len()), (1, 0), "one message for all");
    assert!(calls[0].ends_with("; d49: down; and 10 more"), "{calls:?}");
    assert_eq!(told(&played, &state, 1, &tell).0, [] as [&str; 0]);
}

#[test]
fn that_it_is_well_again_is_told_as_soon_as_somebody_can_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let item = |message: &str| vec![Item::new("x", message)];
    let fails = |notifier: &Notifier<'_>| notifier.changed(&item("no space"), &[]);
    let is_well = |notifier: &Notifier<'_>| notifier.changed(&[], &item("ok"));
    told(&played, &state, 0, &fails);
    played.is_down.replace(true);
    let warnings = told(&played, &state, 1, &is_well).1;
    assert_eq!(warnings, ["notify: HOOK was not told of recovered: it is down"]);
    played.is_down.replace(false);
    // Nothing is run any more: `notify` tells it.
    let nothing = |notifier: &Notifier<'_>| notifier.changed(&[], &[]);
    let recovered = "http://h/HOOK recovered Strongroom on box: recovered: x: is well again";
    assert_eq!(told(&played, &state, 2, &nothing).0, [recovered]);
    assert_eq!(told(&played, &state, 3, &nothing).0, [] as [&str; 0]);
    // It fails again before anybody could be told that it was well: it is not told then.
    told(&played, &state, 30, &fails);
    played.is_down.replace(true);
    told(&played, &state, 31, &is_well);
    played.is_down.replace(false);
    let failure = "http://h/HOOK failure Strongroom on box: failure: x: no space";
    assert_eq!(told(&played, &state, 32, &fails).0, [failure, "http://h/BEAT/fail"]);
    assert_eq!(told(&played, &state, 33, &is_well).0, [recovered]);
}

#[test]
fn drills_are_told_of_each_time_and_self_tests_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let record = |outcome, self_test| DrillRecord {
        drill: "shop".parse().expect("a name"),
        tier: Tier::Full,
        repository: None,
        began: Timestamp::UNIX_EPOCH,
        outcome,
        reason: (outcome == DrillOutcome::Fail).then(|| "it does not start".into()),
        self_test,
        restored: Vec::new(),
        phases: Vec::new(),
        rto: None,
    };
    let all = [record(DrillOutcome::Fail, false), record(DrillOutcome::Fail, true)];
    let fails = |notifier: &Notifier<'_>| notifier.drills_ended(&all);
    let failure = "http://h/DRILLS drill Strongroom on box: drill: shop: fail: it does not start";
    for hours in 0..2 {
        assert_eq!(told(&played, &state, hours, &fails).0, [failure]);
    }
    let passes = |notifier: &Notifier<'_>| notifier.drills_ended(&[record(DrillOutcome::Pass, false)]);
    assert_eq!(
        told(&played, &state, 3, &passes).0,
        ["http://h/DRILLS drill Strongroom on box: drill: shop: pass"]
    );
    assert_eq!(told(&played, &state, 4, &|notifier| notifier.drills_ended(&all[1..])).0, [] as [&str; 0]);
}

#[test]
fn recoveries_are_told_of_each_time_without_what_commands_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let record = RecoveryRecord {
        recovery: "r".into(),
        domain: "x".parse().expect("a name"),
        repository: "local".parse().expect("a name"),
        snapshot: SnapshotId::new(BlobId::from_bytes([1; 32])),
        began: Timestamp::UNIX_EPOCH,
        outcome: RecoveryOutcome::Failed,
        cause: None,
        reason: Some("start failed: exit code 1; it said: hunter2".into()),
        steps: Vec::new(),
        files: 1,
        bytes: 1,
        rto: None,
        left: Vec::new(),
        kept: Vec::new(),
        warnings: Vec::new(),
    };
    let ended = |notifier: &Notifier<'_>| notifier.recoveries_ended(std::slice::from_ref(&record));
    let expected = "http://h/DRILLS recovery Strongroom on box: recovery: x: failed from local: start failed: exit code 1";
    for hours in 0..2 {
        assert_eq!(told(&played, &state, hours, &ended).0, [expected]);
    }
    assert_eq!(told(&played, &state, 2, &|notifier| notifier.recoveries_ended(&[])).0, [] as [&str; 0]);
}

#[test]
fn exceptions_and_late_domains_are_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let on = |day: &str| format!("{day}T12:00:00[UTC]").parse::<Zoned>().expect("a time");
    for (day, count) in [("2026-11-20", 0), ("2026-11-21", 1), ("2026-12-05", 0), ("2026-12-06", 0)] {
        let standing = |notifier: &Notifier<'_>| notifier.standing(&[], &on(day));
        let (calls, _) = told(&played, &state, 0, &standing);
        assert_eq!(calls.len(), count, "{day}: {calls:?}");
        let expected =
            "exception-expiring: EX-7: the exception of the domain x from copies expires on 2026-12-05";
        assert!(calls.iter().all(|call| call.ends_with(expected)), "{calls:?}");
    }
}

#[test]
fn a_repository_that_cannot_be_asked_is_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let played = Played::default();
    let now: Zoned = crate::testing::now();
    let gone = |_: &crate::plan::values::Name| Err("the mount is gone".to_owned());
    let standing = |notifier: &Notifier<'_>| {
        // Long before any exception expires.
        let found = crate::status::status(notifier.plan, "box", &gone, &[], &now);
        notifier.standing(&found, &"2026-10-01T12:00:00[UTC]".parse().expect("a time"))
    };
    let rpo = "http://h/HOOK rpo Strongroom on box: rpo: x: in a: the repository cannot be asked: the mount is gone";
    assert_eq!(told(&played, &state, 0, &standing).0, [rpo]);
    assert_eq!(told(&played, &state, 1, &standing).0, [] as [&str; 0]);
    assert_eq!(told(&played, &state, 24, &standing).0, [rpo]);
}

#[test]
fn heartbeats_have_addresses_of_their_own() {
    for (address, event, expected) in [
        ("http://h/u", Event::Success, "http://h/u"),
        ("http://h/u/", Event::Start, "http://h/u/start"),
        ("http://h/u?k=1", Event::Failure, "http://h/u/fail?k=1"),
    ] {
        assert_eq!(called(address, event), expected);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let state = State::new(folder.path()).expect("made");
    let test = |notifier: &Notifier<'_>| {
        notifier.test().into_iter().map(|(name, result)| format!("{name} {}", result.is_ok())).collect()
    };
    let (calls, results) = told(&Played::default(), &state, 0, &test);
    assert_eq!(results, ["HOOK true", "BEAT true", "DRILLS true", "tell people false"]);
    assert!(calls[0].contains("this is a test"), "{calls:?}");
}
