//! Which domains have their turn, and what each of them goes through.

use super::*;
use crate::run::Patience;
use crate::run::anomaly::{Acknowledged, Guard, Guards, of_hold};
use crate::run::lock::Holder;
use crate::run::system::SystemProcesses;

#[test]
fn everything_has_its_turn() {
    let stage = Stage::new(&format!(
        "[[domain]]\nname = 'x'\n{HOOKS}paths = ['DIR']\nsnapshot = {{ begin = ['print', 'STRONGROOM_SNAPSHOT_PATH=/'], \
         end = ['unsnap'] }}\nobjectives = {{ retain = {{ daily = 3 }} }}\nfacts = {{ v = ['print', '15.9 '] }}\n\
         stream = [{{ name = 's', command = ['print', 'dump'], tee_check = ['tee'], min_bytes = '5', expect_tail = 'ump' }}]\n"
    ));
    let reports = stage.run();
    assert_eq!((reports[0].outcome, &reports[0].message), (Outcome::Ok, &None), "{reports:?}");
    assert_eq!(reports[0].repositories[0].forgotten, 3);
    let expected = [
        ["before", "print 15.9 ", "print STRONGROOM_SNAPSHOT_PATH=/", "back up into a", "tee", "print dump"]
            .as_slice(),
        &["unsnap </>", "copy 1 from a to b", "forget in a: x", "forget in b: x", "after", "finally", "last"],
    ];
    assert_eq!(stage.log(), expected.concat());
    let jobs = stage.vault.jobs.borrow();
    assert_eq!(jobs[0].facts, [("v".to_owned(), "15.9".to_owned())]);
    let below_root = PathBuf::from("/").join(stage.folder.path().strip_prefix("/").expect("absolute"));
    assert_eq!(jobs[0].read_from[0].1, Some(below_root));
    let text = stage.plan.sources[0].text.as_bytes();
    assert!(jobs[0].contents.values().any(|content| content == text), "the plan is in the snapshot");
    let attempts = stage.state().attempts().expect("readable");
    assert_eq!((attempts.len(), attempts[0].outcome), (1, Outcome::Ok));
}

#[test]
fn a_group_that_retention_refuses_is_told_and_the_rest_forgotten() {
    let mut stage =
        Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = { retain = { daily = 3 } }\n");
    let message = "snapshot 1 says that it was made in the future".to_owned();
    stage.vault.refused = vec![VaultError { code: "times-future".into(), message: message.clone() }];
    let report = &stage.run()[0];
    assert_eq!((report.outcome, report.repositories[0].forgotten), (Outcome::Partial, 3));
    assert!(report.warnings.iter().any(|warning| warning.contains(&message)), "{report:?}");
}

#[test]
fn hooks_at_the_end_are_run_whatever_fails() {
    let hooks = |before: &str| HOOKS.replace("'before'", before);
    let path = "paths = ['DIR']\n";
    for (domain, done, message) in [
        (hooks("'fail'") + path, &["fail"][..], "a hook before it: fail failed: exit code 1"),
        (
            hooks("'ok'") + "sqlite = ['/no/such.db']\n",
            &["ok"],
            "the SQLite database /no/such.db cannot be read",
        ),
        (
            hooks("'ok'") + path + "snapshot = { begin = ['fail'], end = ['unsnap'] }\n",
            &["ok", "fail", "unsnap"],
            "there is no file system snapshot: fail failed",
        ),
        (
            hooks("'ok'") + path + "snapshot = { begin = ['print', 'nothing'], end = ['unsnap'] }\n",
            &["ok", "print nothing", "unsnap"],
            "there is no file system snapshot: print did not print",
        ),
        (
            hooks("'ok'") + "to = ['a']\nstream = [{ name = 's', command = ['fail'] }]\n",
            &["ok", "back up into a", "fail"],
            "a: fail failed: exit code 1",
        ),
    ] {
        let stage = Stage::new(&format!("[[domain]]\nname = 'x'\n{domain}"));
        let reports = stage.run();
        assert_eq!(reports[0].outcome, Outcome::Failed, "{domain}");
        let found = reports[0].message.clone().unwrap_or_default();
        assert!(found.starts_with(message), "{domain}\n{found}");
        let log = stage.log();
        assert_eq!(log[..done.len()], *done, "{domain}");
        let failed = format!("failed <{found}>");
        assert_eq!(log[done.len()..], [failed.as_str(), "finally", "last"], "{domain}");
        assert_eq!(stage.state().attempts().expect("readable")[0].message, Some(found));
    }
}

/// No environment holds a NUL: with one in the reason, whoever is to be called would not be.
#[test]
fn a_hook_after_a_failure_is_run_whatever_the_command_said() {
    let mut stage = Stage::new(
        "[[domain]]\nname = 'x'\nto = ['a']\npaths = ['DIR']\nhooks = { before = [['sh', '-c', 'printf \"a\\\\0b\"; exit 1']], \
         failed = [['sh', '-c', 'echo \"$STRONGROOM_ERROR\" > DIR/told']] }\n",
    );
    stage.real = Some(Arc::new(SystemProcesses::default()));
    let report = stage.run().remove(0);
    assert_eq!((report.outcome, &report.warnings[..]), (Outcome::Failed, &[][..]), "{report:?}");
    let told = std::fs::read_to_string(stage.folder.path().join("told")).expect("the hook was run");
    assert_eq!(told, "a hook before it: sh failed: exit code 1; it said: a\u{fffd}b\n");
}

/// Whoever is to be called has to know of that most of all.
#[test]
fn a_hook_after_a_failure_is_run_where_nothing_could_be_begun() {
    for (in_the_way, reason) in [
        ("x.recover", "whether a recovery is unfinished cannot be read: "),
        ("x.stage", "cannot write to the state directory: "),
        ("x.lock", "cannot lock the domain: "),
    ] {
        let stage = Stage::new(
            "[[domain]]\nname = 'x'\nto = ['a']\npaths = ['DIR']\nhooks = { before = [['before']], failed = [['call']] }\n",
        );
        let path = stage.state().folder().join(in_the_way);
        match in_the_way {
            "x.stage" => std::fs::write(path, "no folder").expect("written"),
            _ => std::fs::create_dir(path).expect("made"),
        }
        let report = stage.run_once().remove(0);
        let message = report.message.unwrap_or_default();
        assert!(report.outcome == Outcome::Failed && message.starts_with(reason), "{in_the_way}: {message}");
        assert_eq!(stage.log(), [format!("call <{message}>")], "{in_the_way}");
        assert_eq!(stage.state().attempts().expect("readable").len(), 1, "{in_the_way}");
    }
}

#[test]
fn a_stream_that_is_not_what_it_should_be_is_no_stream() {
    for (stream, reason) in [
        ("command = ['print', 'abc'], min_bytes = '1KiB'", "it has 4 bytes, and min_bytes is 1KiB"),
        ("command = ['print', 'abc'], expect_tail = 'complete'", "it does not end with \"complete\""),
        ("command = ['print', 'abc'], tee_check = ['fail']", "tee_check: fail failed"),
        ("command = ['fail']", "fail failed"),
        ("command = ['nothing']", "it is empty: if it may be, say min_bytes = \"0\""),
        ("command = ['nothing'], tee_check = ['good']", "it is empty"),
    ] {
        let stage = Stage::new(&format!(
            "[[domain]]\nname = 'x'\nto = ['a']\nstream = [{{ name = 's', {stream} }}]\n"
        ));
        let report = stage.run().remove(0);
        let message = report.message.unwrap_or_default();
        assert!(
            report.outcome == Outcome::Failed && message.starts_with(&format!("a: {reason}")),
            "{message}"
        );
        assert!(stage.vault.jobs.borrow().is_empty());
    }
}

#[test]
fn files_that_only_grow_are_wanted_where_the_plan_says_so() {
    for (on_change, growing) in [("warn", false), ("retry", false), ("fail", false), ("prefix", true)] {
        let plan = format!(
            "[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = {{ on_change = '{on_change}' }}\n"
        );
        let mut stage = Stage::new(&plan);
        assert_eq!(stage.run()[0].outcome, Outcome::Ok);
        assert_eq!(stage.vault.jobs.borrow()[0].growing, growing, "{on_change}");
        // What is unstable all the same is dealt with as before.
        stage.vault.summary.unstable = 1;
        let outcome = if on_change == "fail" { Outcome::Failed } else { Outcome::Partial };
        assert_eq!(stage.run()[0].outcome, outcome, "{on_change}");
    }
}

#[test]
fn what_comes_after_a_failure_is_skipped_and_the_rest_is_not() {
    let stage = Stage::new(
        "[[domain]]\nname = 'c'\nafter = ['b']\npaths = ['DIR']\n[[domain]]\nname = 'b'\nafter = ['a']\npaths = ['DIR']\n\
         [[domain]]\nname = 'a'\npaths = ['DIR']\nhooks = { before = [['fail']] }\n[[domain]]\nname = 'd'\npaths = ['DIR']\n",
    );
    let reports = stage.run();
    let found: Vec<_> = reports.iter().map(|report| (report.domain.as_str(), report.outcome)).collect();
    let expected =
        [("a", Outcome::Failed), ("b", Outcome::Skipped), ("c", Outcome::Skipped), ("d", Outcome::Ok)];
    assert_eq!(found, expected);
    assert_eq!(reports[1].message.as_deref(), Some("it comes after a, which failed"));
    assert_eq!(stage.state().attempts().expect("readable").len(), 4);
}

#[test]
fn what_comes_after_goes_where_the_other_has_got_to() {
    let domain = |name: &str, more: &str| format!("[[domain]]\nname = '{name}'\npaths = ['DIR']\n{more}\n");
    let all = [
        domain("x", "hooks = { before = [['x']] }"),
        domain("y", "after = ['x']\nhooks = { before = [['y']], after = [['everywhere']] }"),
        domain("z", "after = ['y']\nto = ['a']"),
        domain("elsewhere", "to = ['b']"),
        domain("last", "after = ['elsewhere']"),
    ];
    let mut stage = Stage::new(&all.concat());
    stage.vault.down = vec!["a"];
    let reports = stage.run();
    let found: Vec<_> = reports
        .iter()
        .map(|report| {
            let repos = report.repositories.iter();
            let repos: Vec<_> = repos.map(|repo| format!("{} {}", repo.repo, repo.outcome.name())).collect();
            format!("{} {}: {}", report.domain, report.outcome.name(), repos.join(", "))
        })
        .collect();
    let expected = [
        "x failed: a failed, b ok",
        "y partial: a skipped, b ok",
        "z skipped: a skipped",
        "elsewhere ok: b ok",
        "last failed: a failed, b ok",
    ];
    assert_eq!(found, expected);
    assert_eq!(reports[1].warnings, ["a: it comes after x, which did not get there"]);
    let done = stage.log();
    assert_eq!(done[..5], ["x", "back up into a", "back up into b", "y", "back up into b"]);
    assert!(!done.contains(&"everywhere".to_owned()));
    let attempts = stage.state().attempts().expect("readable");
    assert_eq!(attempts[1].repositories[&name("a")].outcome, Outcome::Skipped);
    // What is fresh in another repository is not what has been left out.
    stage.vault.down.clear();
    let report = stage.run().remove(1);
    assert_eq!((report.outcome, report.is_everywhere()), (Outcome::Ok, true));
}

#[test]
fn a_run_that_is_cancelled_begins_nothing_more() {
    let domain = |name: &str, before: &str| {
        let hooks = HOOKS.replace("'before'", before);
        format!("[[domain]]\nname = '{name}'\npaths = ['DIR']\n{hooks}")
    };
    let stage = Stage::new(&[domain("x", "'cancel'"), domain("y", "'y'")].concat());
    let reports = stage.run();
    assert_eq!(stage.log(), ["cancel", "failed <a: the run was cancelled>", "finally", "last"]);
    let message = reports[1].message.as_deref();
    assert_eq!(
        (reports[1].outcome, message),
        (Outcome::Failed, Some("the run was cancelled before it began"))
    );
    assert_eq!(stage.state().attempts().expect("readable").len(), 2);
}

/// The engine keeps what it has by then as a partial snapshot: it is far from those before, and nobody has to look at it.
#[test]
fn a_backup_that_is_cancelled_is_no_snapshot_unlike_those_before() {
    let mut stage = Stage::new(
        "[[domain]]\nname = 'x'\nto = ['a']\npaths = ['DIR']\nobjectives = { retain = { last = 2 } }\n",
    );
    let usual = SnapshotSummary { files: 1000, bytes: 100 << 20, ..SnapshotSummary::default() };
    stage.vault.summaries = [1, 2, 3, 4].map(|number| (id(number), usual.clone())).into();
    stage.vault.made.borrow_mut().extend([1, 2, 3, 4].map(|number| (name("a"), id(number), "x".to_owned())));
    stage.vault.summary = SnapshotSummary { files: 400, bytes: 40 << 20, ..SnapshotSummary::default() };
    stage.vault.cut_short = true;
    let report = stage.run().remove(0);
    let message = format!(
        "a: the run was cancelled: there is no complete snapshot, but a partial one, {}",
        id(7).short()
    );
    assert_eq!((report.outcome, report.message.as_deref()), (Outcome::Failed, Some(message.as_str())));
    assert!(report.anomalies.is_empty() && !report.is_guarded, "{report:?}");
    assert_eq!(report.repositories[0].snapshot(), None);
    let attempt = stage.state().attempts().expect("readable").remove(0);
    assert_eq!(attempt.repositories[&name("a")].snapshot, None, "no recovery point either");
    assert_eq!(stage.state().guard(&name("x")).expect("readable").reasons, [] as [&str; 0]);
    // The same as a whole is what the guard is for.
    stage.vault.cut_short = false;
    assert!(stage.run()[0].is_guarded);
}

#[test]
fn what_a_killed_run_left_is_swept_first() {
    let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\nto = ['a']\n");
    let state = stage.state();
    let name = name("x");
    let argv =
        |words: &[&str]| Argv::try_from(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let journal = Journal {
        began: now().timestamp(),
        snapshot_end: argv(&["unsnap"]).ok(),
        snapshot_path: Some("/snap/7".into()),
        finally: vec![argv(&["clean"]).expect("a command")],
        mark: String::new(),
        left: Vec::new(),
    };
    state.note(&name, &journal).expect("noted");
    std::fs::write(state.stage(&name).expect("made").join("copy"), "x").expect("written");
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
    assert_eq!(stage.log(), ["unsnap </snap/7>", "clean", "back up into a"]);
    let outcomes: Vec<_> =
        state.attempts().expect("readable").into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Interrupted, Outcome::Ok]);
}

/// The next snapshot is like the one of the killed run, and nothing is far from anything any more.
#[test]
fn what_a_killed_run_has_made_is_compared_with_what_was_before() {
    let mut stage = Stage::new(
        "[[domain]]\nname = 'x'\nto = ['a']\npaths = ['DIR']\nobjectives = { retain = { last = 2 } }\n",
    );
    let usual = SnapshotSummary { files: 1000, bytes: 100 << 20, ..SnapshotSummary::default() };
    let less = SnapshotSummary { files: 600, ..usual.clone() };
    let all = [(1, 96, &usual), (2, 72, &usual), (3, 48, &usual), (4, 1, &less)];
    stage.vault.made.borrow_mut().extend(all.map(|(number, ..)| (name("a"), id(number), "x".to_owned())));
    stage.vault.summaries = all.map(|(number, _, summary)| (id(number), summary.clone())).into();
    stage.vault.hours_ago = all.map(|(number, hours, _)| (id(number), hours)).into();
    stage.vault.summary = less.clone();
    let state = stage.state();
    let began = now().timestamp() - jiff::SignedDuration::from_hours(2);
    state.note(&name("x"), &Journal::new(began, "")).expect("noted");
    let report = stage.run().remove(0);
    let reason = "a: 400 of 1000 files are gone, and never more than 0 before";
    assert_eq!((report.is_guarded, &report.anomalies[..]), (true, &[reason.to_owned()][..]), "{report:?}");
    assert_eq!(stage.log(), ["back up into a"], "nothing is forgotten");
    assert_eq!(state.guard(&name("x")).expect("readable").reasons, [reason]);
    // One that got to its end has looked at it itself, and somebody has by now.
    state.acknowledge(&name("x")).expect("written");
    state.note(&name("x"), &Journal::new(now().timestamp(), "")).expect("noted");
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
}

/// What one host remembers is nothing that another one knows of, or this one after it was built anew.
#[test]
fn snapshots_before_one_unlike_them_are_held_wherever_they_are_until_somebody_has_looked() {
    let mut stage =
        Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = { retain = { last = 2 } }\n");
    let usual = SnapshotSummary { files: 1000, bytes: 100 << 20, ..SnapshotSummary::default() };
    let less = SnapshotSummary { files: 100, ..usual.clone() };
    for repo in ["a", "b"] {
        let made = [1, 2, 3].map(|number| (name(repo), id(number), "x".to_owned()));
        stage.vault.made.borrow_mut().extend(made);
    }
    stage.vault.made.borrow_mut().push((name("a"), id(9), "another".to_owned()));
    stage.vault.held.borrow_mut().insert((name("a"), id(1)), "somebody's".into());
    stage.vault.summaries = [1, 2, 3].map(|number| (id(number), usual.clone())).into();
    stage.vault.hours_ago = [1, 2, 3].map(|number| (id(number), 100 - i64::from(number))).into();
    stage.vault.hours_ago.insert(id(9), 50);
    let elsewhere = Snapshot { hostname: "other".into(), summary: usual.clone(), ..record("x", 50) };
    stage.vault.history.push(("a", id(8), elsewhere));
    stage.vault.summary = less;
    stage.vault.down = vec!["b"];
    assert!(stage.run_once()[0].is_guarded);
    let held = |stage: &Stage, repo: &str| {
        let held = stage.vault.held.borrow();
        held.keys().filter(|(at, _)| *at == name(repo)).map(|(_, id)| *id).collect::<Vec<_>>()
    };
    assert_eq!(
        (held(&stage, "a"), held(&stage, "b")),
        (vec![id(1), id(2), id(3)], vec![]),
        "and nothing of another domain or host"
    );
    let reason = stage.vault.held.borrow()[&(name("a"), id(2))].clone();
    let known = of_hold(&name("x"), "box", &reason).expect("told");
    let own = stage.state().guard(&name("x")).expect("readable");
    assert_eq!((known.reasons.join("; "), known.since), (own.reasons.join("; "), own.since));
    for (domain, host) in [("y", "box"), ("x", "other")] {
        assert_eq!(of_hold(&name(domain), host, &reason), None);
    }
    // A host that was built anew, and one of the repositories that is there again.
    std::fs::remove_dir_all(stage.folder.path().join("state")).expect("removed");
    stage.vault.summary = usual;
    stage.vault.down = Vec::new();
    let report = stage.run_once().remove(0);
    assert!(report.is_guarded && report.anomalies.is_empty(), "{report:?}");
    assert_eq!(stage.state().guard(&name("x")).expect("readable").since, known.since);
    assert_eq!(held(&stage, "b"), [id(1), id(2), id(3)]);
    assert!(!stage.log().iter().any(|line| line.contains("forget")), "{:?}", stage.log());
    // Somebody has looked; a repository that was not there then is told by the next run.
    stage.state().acknowledge(&name("x")).expect("written");
    let vault = &stage.vault;
    let domain = stage.plan.domain("x").expect("there");
    let mut only_a = stage.plan.clone();
    only_a.repos.remove(&name("b"));
    assert_eq!(Guards { plan: &only_a, host: "box", vault }.release(domain, None), [] as [&str; 0]);
    assert_eq!((held(&stage, "a"), held(&stage, "b").len()), (vec![id(1)], 3));
    let report = stage.run_once().remove(0);
    assert!(!report.is_guarded, "{report:?}");
    assert_eq!((held(&stage, "a"), held(&stage, "b")), (vec![id(1)], vec![]));
}

#[test]
fn what_cannot_be_cleaned_up_is_tried_again_by_the_next_run() {
    let stage = Stage::new(
        "[[domain]]\nname = 'x'\nto = ['a']\npaths = ['DIR']\nhooks = { finally = [['moody', 'DIR/good'], ['last']] }\n\
         snapshot = { begin = ['print', 'STRONGROOM_SNAPSHOT_PATH=/'], end = ['moody', 'DIR/good'] }\n",
    );
    let state = stage.state();
    let good = stage.folder.path().join("good");
    let moody = format!("moody {}", good.display());
    let unsnap = format!("{moody} </>");
    let begin = "print STRONGROOM_SNAPSHOT_PATH=/";
    let work = [begin, "back up into a", &unsnap, &moody, "last"];
    let report = stage.run_once().remove(0);
    assert_eq!(report.outcome, Outcome::Partial);
    assert!(
        report.warnings[0].contains("the file system snapshot may be there still: moody failed"),
        "{report:?}"
    );
    assert!(report.warnings[1].starts_with("at the end: a hook failed: moody failed"), "{report:?}");
    assert_eq!(stage.log(), work);
    let name = name("x");
    let kept = state.journal(&name).expect("readable").expect("kept");
    assert_eq!((kept.left.len(), kept.mark.as_str()), (2, ""), "what it left running was to stay");
    // It fails once more, and is not there twice.
    stage.run_once();
    assert_eq!(stage.log(), [&[unsnap.as_str(), &moody][..], &work].concat());
    assert_eq!(state.journal(&name).expect("readable").expect("kept").left.len(), 2);
    std::fs::write(&good, "").expect("written");
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
    assert_eq!(stage.log(), [&[unsnap.as_str(), &moody][..], &work].concat());
    // All three got to their ends, and what a command said is in none of the records.
    let outcomes: Vec<_> =
        state.attempts().expect("readable").iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Partial, Outcome::Partial, Outcome::Ok]);
    let kept = std::fs::read_to_string(stage.folder.path().join("state/attempts.jsonl")).expect("text");
    assert!(kept.contains("moody failed: exit code 1") && !kept.contains("hunter2"), "{kept}");
}

#[test]
fn what_is_due_waits_for_another_run_and_asks_again() {
    for (still, expected, done) in
        [(&[][..], Some("another run has done it meanwhile"), &[][..]), (&["b"], None, &["back up into b"])]
    {
        let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
        let state = stage.state();
        let lock = state.take(&name("x"), now().timestamp()).expect("a lock").mine();
        let told = RefCell::new(Vec::new());
        let tell = |domain: &Name, holder: &Holder| told.borrow_mut().push(format!("{domain}{holder}"));
        let processes = Played { log: Arc::clone(&stage.vault.log), cancelled: Arc::default() };
        let asked = RefCell::new(0);
        let due_still = |_: &_| {
            *asked.borrow_mut() += 1;
            still.iter().map(|name| name.parse().expect("a name")).collect()
        };
        let runner = Runner {
            plan: &stage.plan,
            host: "box".into(),
            processes: Arc::new(processes),
            vault: &stage.vault,
            state: &state,
            now: &now,
            is_cancelled: &|| false,
            patience: Some(Patience { tell: &tell, due_still: &due_still }),
        };
        let other = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            drop(lock);
        });
        let domain = &stage.plan.domains[0];
        let report = runner.run(domain, &stage.plan.repositories(domain));
        other.join().expect("no panic");
        assert_eq!((report.outcome, report.message.as_deref()), (Outcome::Ok, expected));
        assert_eq!((stage.log(), *asked.borrow()), (done.iter().map(|line| (*line).to_owned()).collect(), 1));
        assert_eq!(state.attempts().expect("readable").len(), done.len());
        let holder = format!("x since 2026-11-28 12:00 UTC (process {})", std::process::id());
        assert_eq!(told.into_inner(), [holder], "it is told whom it waits for");
    }
}

#[test]
fn a_run_that_is_cancelled_while_it_waits_is_on_record() {
    let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
    let state = stage.state();
    let _lock = state.take(&name("x"), now().timestamp()).expect("a lock").mine();
    let runner = Runner {
        plan: &stage.plan,
        host: "box".into(),
        processes: Arc::new(Played::default()),
        vault: &stage.vault,
        state: &state,
        now: &now,
        is_cancelled: &|| true,
        patience: Some(Patience { tell: &|_, _| {}, due_still: &|_| panic!("it has not got its turn") }),
    };
    let domain = &stage.plan.domains[0];
    let report = runner.run(domain, &stage.plan.repositories(domain));
    let attempt = state.attempts().expect("readable").remove(0);
    for (outcome, message) in [(report.outcome, report.message), (attempt.outcome, attempt.message)] {
        let why = "the run was cancelled while another one was at work on it";
        assert_eq!((outcome, message.as_deref()), (Outcome::Failed, Some(why)));
    }
    assert_eq!(attempt.repositories.len(), 2, "it is due again in both");
}

#[test]
fn a_plan_is_in_the_snapshot_also_where_its_place_is_left_out() {
    let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
    let mut plan = stage.plan.clone();
    let folder = stage.folder.path().join("conf");
    plan.sources[0].path = folder.join("plan.toml");
    plan.domains[0].exclude = vec!["conf".into()];
    let filter = crate::run::stage::filter(&plan.domains[0], &plan.sources).expect("patterns");
    let place = folder.display();
    let kept = ".strongroom-recover-*".to_owned();
    let expected =
        ["conf".into(), kept, format!("!{place}"), format!("{place}/*"), format!("!{place}/plan.toml")];
    assert_eq!(filter.exclude, expected);
}

#[test]
fn what_a_run_at_work_may_still_find_is_not_acknowledged() {
    let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
    let (state, x) = (stage.state(), name("x"));
    let guard = Guard { reasons: vec!["encrypted".into()], ..Guard::default() };
    state.keep_guard(&x, &guard).expect("written");
    let lock = state.lock(&x).expect("a lock").expect("free");
    assert_eq!(state.acknowledge(&x).expect("asked"), None);
    assert_eq!(state.guard(&x).expect("readable"), guard);
    drop(lock);
    let acknowledged = Acknowledged { reasons: guard.reasons, lost: None };
    assert_eq!(state.acknowledge(&x).expect("written"), Some(acknowledged));
    assert_eq!(state.guard(&x).expect("readable").reasons, [] as [&str; 0]);
}

/// It may be one of a snapshot that is unlike those before: it is until somebody has looked.
#[test]
fn a_guard_that_cannot_be_read_is_acknowledged_and_what_is_lost_is_told() {
    let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
    let (state, x) = (stage.state(), name("x"));
    std::fs::write(state.path("x.guard"), "{").expect("written");
    let report = stage.run().remove(0);
    assert_eq!((report.outcome, report.is_guarded), (Outcome::Partial, true), "{report:?}");
    assert!(report.warnings[0].contains("`strongroom run --acknowledge x`"), "{report:?}");
    let acknowledged = state.acknowledge(&x).expect("written").expect("nobody is at work");
    assert!(acknowledged.is_something() && acknowledged.reasons.is_empty());
    let lost = acknowledged.lost.expect("something is lost");
    assert!(lost.contains("new ones are compared with all that are there"), "{lost}");
    assert_eq!(state.guard(&x).expect("readable"), Guard::default());
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
}

/// Neither it nor what comes after it is done, and each says so; the rest is.
#[test]
fn what_another_run_is_at_work_on_is_passed_over_with_what_waits_for_it() {
    let domain = |name: &str, more: &str| {
        format!(
            "[[domain]]\nname = '{name}'\nto = ['a']\npaths = ['DIR']\nschedule = '*-*-* 02:00'\n{more}\n"
        )
    };
    let stage = Stage::new(
        &[
            domain("x", HOOKS),
            domain("bad", "hooks = { before = [['fail']] }"),
            domain("y", "after = ['bad', 'x']"),
            domain("z", "after = ['y']"),
            domain("other", ""),
        ]
        .concat(),
    );
    let lock = stage.state().take(&name("x"), now().timestamp()).expect("a lock").mine();
    let reports = stage.run();
    let by = format!("since 2026-11-28 12:00 UTC (process {})", std::process::id());
    let waits = format!("not run: waits for x, which another run is at work on {by}");
    let at_work = format!("another run is at work on it {by}");
    let expected = [
        ("x", Outcome::Deferred, Some(at_work.as_str())),
        ("bad", Outcome::Failed, Some("a hook before it: fail failed: exit code 1")),
        ("y", Outcome::Deferred, Some(waits.as_str())),
        ("z", Outcome::Deferred, Some(waits.as_str())),
        ("other", Outcome::Ok, None),
    ];
    let found =
        |report: &'_ DomainReport| (report.domain.to_string(), report.outcome, report.message.clone());
    let as_expected = expected.map(|(name, outcome, why)| (name.to_owned(), outcome, why.map(str::to_owned)));
    assert_eq!(reports.iter().map(found).collect::<Vec<_>>(), as_expected);
    assert_eq!(
        reports.iter().map(DomainReport::waits_for).collect::<Vec<_>>(),
        [None, None, Some(&name("x")), Some(&name("x")), None]
    );
    assert_eq!(stage.log(), ["fail", "back up into a"], "no hook of it is run either");
    let attempts = stage.state().attempts().expect("readable").into_iter();
    let attempts: Vec<_> = attempts.map(|one| (one.domain.to_string(), one.outcome, one.message)).collect();
    assert_eq!(attempts, as_expected, "all of it is on record");

    // Due again is what was not run, unless the run that was at work had it, too.
    let due = |hours: &[(&str, i64)]| {
        let newest = |_: &Name, domain: &Domain| {
            let hours =
                hours.iter().find(|(name, _)| *name == domain.name.as_str()).map_or(0, |(_, hours)| *hours);
            Newest::At(now().timestamp() - jiff::SignedDuration::from_hours(hours))
        };
        let attempts = Attempts::of(&stage.plan, &stage.state()).expect("readable");
        let known = Known { newest: &newest, attempts: &attempts };
        let choice = Choice { due: true, ..Choice::default() };
        let chosen = select(&stage.plan, &choice, &known, &now()).expect("no mistake");
        chosen.into_iter().map(|one| format!("{}: {}", one.domain.name, one.why)).collect::<Vec<_>>()
    };
    assert_eq!(due(&[]), [] as [&str; 0]);
    let expected = [
        format!("x: the last attempt was deferred: {at_work}"),
        format!("y: the last attempt was deferred: {waits}"),
    ];
    assert_eq!(due(&[("x", 1), ("y", 1)]), expected);
    drop(lock);
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
}

/// The other run may have begun long before, and its snapshot with it.
#[test]
fn a_snapshot_of_the_run_that_was_at_work_makes_up_for_what_was_passed_over() {
    let stage = Stage::new("[[domain]]\nname = 'x'\nto = ['a']\npaths = ['DIR']\nschedule = '*-*-* 02:00'\n");
    let hours_ago = |hours: i64| now().timestamp() - jiff::SignedDuration::from_hours(hours);
    let _lock = stage.state().take(&name("x"), hours_ago(5)).expect("a lock").mine();
    assert_eq!(stage.run()[0].outcome, Outcome::Deferred);
    let attempts = Attempts::of(&stage.plan, &stage.state()).expect("readable");
    let missed = attempts.missed(&name("x"), &name("a")).expect("it has not got there");
    assert_eq!(missed.since, hours_ago(5));
}

#[test]
fn what_is_due_is_told_by_the_repositories() {
    let plan = plan(
        "[repo.b]\nurl = '/b'\n[[domain]]\nname = 'x'\npaths = ['/x']\nschedule = '*-*-* 02:00'\ntags = ['db']\n\
         [[domain]]\nname = 'event'\npaths = ['/y']\n",
    );
    let at = |text: &str| Newest::At(text.parse().expect("a time"));
    let attempts = Attempts::default();
    let due = |a: Newest, b: Newest| {
        let newest = |repo: &Name, _: &_| if repo.as_str() == "a" { a } else { b };
        let choice = Choice { due: true, ..Choice::default() };
        let known = Known { newest: &newest, attempts: &attempts };
        let chosen = select(&plan, &choice, &known, &now()).expect("no mistake");
        chosen.into_iter().map(|chosen| (chosen.targets.len(), chosen.why)).collect::<Vec<_>>()
    };
    let fresh = at("2026-11-28T02:00:01Z");
    assert_eq!(due(fresh, fresh), []);
    assert_eq!(due(at("2026-11-28T01:59:59Z"), fresh), [(1, "due since 2026-11-28 02:00".to_owned())]);
    assert_eq!(due(Newest::None, Newest::None), [(2, "there is no snapshot yet".to_owned())]);
    assert_eq!(due(fresh, Newest::Unknown), [(1, "the repository cannot be asked".to_owned())]);
    assert!(due(at("2026-11-28T12:00:01Z"), fresh)[0].1.contains("in the future"));

    let chosen = |names: &[&str], tags: &[&str]| {
        let text = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let choice = Choice { names: text(names), tags: text(tags), due: false };
        let known = Known { newest: &|_, _| Newest::None, attempts: &attempts };
        select(&plan, &choice, &known, &now())
            .map(|chosen| chosen.iter().map(|chosen| chosen.domain.name.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(chosen(&[], &[]).expect("all"), ["x", "event"]);
    assert_eq!(chosen(&["event"], &[]).expect("one"), ["event"]);
    assert_eq!(chosen(&[], &["db"]).expect("one"), ["x"]);
    assert_eq!(chosen(&["y"], &[]), Err(SelectError::Unknown("y".into())));
    assert_eq!(chosen(&[], &["x"]), Err(SelectError::UnknownTag("x".into())));
    assert_eq!(chosen(&["event"], &["db"]), Err(SelectError::NoneTagged(vec!["db".into()])));
    assert_eq!(chosen(&["event", "x"], &["db"]).expect("one"), ["x"]);
}

/// Called by its name, at a time at which its schedule says nothing.
#[test]
fn what_failed_is_due_again_where_it_failed_until_a_snapshot_makes_up_for_it() {
    let mut stage = Stage::new(
        "[[domain]]\nname = 'x'\npaths = ['DIR']\nschedule = '*-*-* 02:00'\n[[domain]]\nname = 'y'\npaths = ['DIR']\n\
         schedule = '*-*-* 02:00'\nafter = ['x']\n[[domain]]\nname = 'event'\npaths = ['DIR']\n",
    );
    let hours_ago = |hours: i64| Newest::At(now().timestamp() - jiff::SignedDuration::from_hours(hours));
    let due = |stage: &Stage, newest: Newest| {
        let attempts = Attempts::of(&stage.plan, &stage.state()).expect("readable");
        let known = Known { newest: &|_, _| newest, attempts: &attempts };
        let choice = Choice { due: true, ..Choice::default() };
        let chosen = select(&stage.plan, &choice, &known, &now()).expect("no mistake").into_iter();
        let line = |one: &Chosen<'_>| {
            let targets: Vec<_> = one.targets.iter().map(|repo| repo.as_str()).collect();
            format!("{} into {}: {}", one.domain.name, targets.join(" "), one.why)
        };
        chosen.map(|one| line(&one)).collect::<Vec<_>>()
    };
    assert_eq!(due(&stage, hours_ago(3)), [] as [&str; 0]);
    stage.vault.down = vec!["b"];
    stage.run();
    let expected = [
        "x into b: the last attempt failed: cannot be copied from a: it is down",
        "y into b: the last attempt was skipped: it comes after x, which did not get there",
    ];
    assert_eq!(due(&stage, hours_ago(3)), expected);
    // It fails where it did, and what has got there stays out of it: nothing is read again and again.
    for _ in 0..2 {
        stage.log();
        let reports = stage.run_into(&|repo, _| match repo.as_str() {
            "a" => hours_ago(0),
            _ => Newest::None,
        });
        assert_eq!(reports.len(), 2);
        assert_eq!(stage.log(), ["copy 1 from a to b"]);
        let still = due(&stage, hours_ago(3));
        assert!(still.len() == 2 && still.iter().all(|line| line[1..].starts_with(" into b: ")), "{still:?}");
    }
    assert_eq!(due(&stage, hours_ago(0)), [] as [&str; 0], "whoever has made it");
    stage.vault.down.clear();
    stage.run();
    assert_eq!(due(&stage, hours_ago(3)), [] as [&str; 0]);
}
