//! Runs that cannot do what they are to, and what is on record of them; plans that are found at several paths.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::plan::{planned, write_plan};
use crate::support::{Bench, Run, assert_same, noise};

fn snapshots(bench: &Bench) -> usize {
    bench.objects("log").len()
}

/// One domain with a stream of this command and more keys.
fn stream(keys: &str) -> String {
    format!("[[domain]]\nname = 'db'\nto = ['first']\nstream = [{{ name = 'dump', {keys} }}]\n")
}

/// Runs the plan while something is added to a file all the time.
fn run_beside_a_writer(bench: &Bench, path: &Path) -> Run {
    let (stop, stopped) = mpsc::channel::<()>();
    let mut file = fs::File::options().append(true).open(path).expect("there");
    let writer = thread::spawn(move || {
        while stopped.try_recv().is_err() {
            file.write_all(b"x").expect("written");
            thread::sleep(Duration::from_millis(1));
        }
    });
    let run = bench.run(["run"]);
    stop.send(()).expect("heard");
    writer.join().expect("no panic");
    run
}

#[test]
fn files_that_change_all_the_time_are_told_of_and_read_again_by_the_next_run() {
    let plan =
        |more: &str| format!("[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\n{more}");
    let bench = planned(&plan("objectives = { on_change = 'fail' }\n"));
    let name = "<img src=x onerror=alert(1)>.log";
    let path = bench.write(&format!("src/{name}"), noise(1, 24 << 20));
    let before = snapshots(&bench);
    let said = run_beside_a_writer(&bench, &path).expect(1).stderr;
    assert!(said.contains("changed while"), "{said}");
    assert_eq!(snapshots(&bench), before, "no snapshot was made");
    write_plan(&bench, &plan(""));
    run_beside_a_writer(&bench, &path).expect(3);
    bench.run(["report", "--html", "report.html"]).expect(0);
    let page = fs::read_to_string(bench.path("report.html")).expect("a page");
    assert!(
        page.contains("src/&lt;img src=x onerror=alert(1)&gt;.log</td>") && !page.contains("<img"),
        "{page}"
    );
    // It is read again, and of one moment now.
    bench.run(["run"]).expect(0);
    bench.run(["restore", "latest", "--target", "restored"]).expect(0);
    let own = bench.path("src").canonicalize().expect("there");
    assert_same(&own, &bench.path("restored").join(own.strip_prefix("/").expect("absolute")));
}

#[test]
fn a_stream_that_hangs_is_missing_or_is_empty_leaves_no_snapshot_and_a_record() {
    for (keys, reason) in [
        (
            "command = ['sh', '-c', 'echo half; sleep 1000'], timeout = '1s'",
            "sh took longer than 1 s and was ended",
        ),
        ("command = ['no-such-program-here']", "cannot run no-such-program-here: "),
        (
            "command = ['echo', 'x'], tee_check = ['no-such-program-here']",
            "cannot run no-such-program-here: ",
        ),
        ("command = ['true']", "it is empty: if it may be, say min_bytes = \"0\""),
    ] {
        let bench = planned(&stream(keys));
        let before = snapshots(&bench);
        let began = Instant::now();
        let run = bench.run(["run"]).expect(1);
        assert!(began.elapsed() < Duration::from_secs(60), "{keys}: it was waited for");
        let failed = format!("db: failed: first: dump: {reason}");
        assert!(run.stderr.contains(&failed), "{failed}\n{run:?}");
        assert_eq!(snapshots(&bench), before, "{keys}: something was committed");
        let status = bench.run(["status", "--json"]).expect(4);
        let attempt = &status.lines()[0]["attempt"];
        assert_eq!(attempt["outcome"], "failed", "{status:?}");
        assert!(attempt["message"].as_str().expect("text").contains(reason), "{attempt}");
    }
    let bench = planned(&stream("command = ['true'], min_bytes = '0'"));
    bench.run(["run"]).expect(0);
}

#[test]
fn a_hook_that_does_not_exist_leaves_no_snapshot_and_a_record() {
    let bench = planned(
        "[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\nhooks = { before = [['no-such-program-here']] }\n",
    );
    bench.source();
    let before = snapshots(&bench);
    let run = bench.run(["run"]).expect(1);
    let failed = "files: failed: a hook before it: cannot run no-such-program-here: ";
    assert!(run.stderr.contains(failed), "{run:?}");
    assert_eq!(snapshots(&bench), before);
    let status = bench.run(["status", "--json"]).expect(4);
    assert_eq!(status.lines()[0]["attempt"]["outcome"], "failed");
}

#[test]
fn a_plan_that_cannot_be_run_leaves_a_record_metrics_and_a_notice() {
    let domain = |to: &str| {
        format!(
            "[metrics]\ntextfile = 'DIR/out.prom'\n[[notify]]\non = ['failure']\ncommand = ['sh', '-c', 'cat >> DIR/told']\n\
             [[domain]]\nname = 'files'\nto = ['{to}']\nschedule = 'daily'\npaths = ['DIR/src']\n"
        )
    };
    let bench = planned(&domain("first"));
    bench.source();
    bench.run(["run", "--due"]).expect(0);
    let metrics = || fs::read_to_string(bench.path("out.prom")).expect("written");
    assert!(metrics().contains("strongroom_attempt_success{domain=\"files\"} 1\n"), "{}", metrics());
    write_plan(&bench, &domain("frist"));
    bench.run(["run", "--due", "--dry-run"]).expect(2);
    assert!(!bench.path("told").exists(), "nothing was to be done");
    let run = bench.run(["run", "--due"]).expect(2);
    assert!(run.message().contains("names the repository \"frist\", which is not in the plan"), "{run:?}");
    assert!(metrics().contains("strongroom_attempt_success{domain=\"files\"} 0\n"), "{}", metrics());
    let told = fs::read_to_string(bench.path("told")).expect("somebody was told");
    assert!(told.contains("files: the plan cannot be run: "), "{told}");
    // The plan is right again, and what happened is still known.
    write_plan(&bench, &domain("first"));
    let status = bench.run(["status", "--json"]).expect(3);
    let attempt = &status.lines()[0]["attempt"];
    assert!(attempt["message"].as_str().expect("text").contains("frist"), "{attempt}");
    bench.run(["run"]).expect(0);
    bench.run(["status"]).expect(0);
}

/// Whoever watches the metrics or waits for messages would go on seeing what was yesterday.
#[test]
fn a_plan_that_cannot_be_read_any_more_leaves_them_too() {
    let domain = "[metrics]\ntextfile = 'DIR/out.prom'\n[[notify]]\non = ['failure']\ncommand = ['sh', '-c', 'cat >> DIR/told']\n\
                  [[domain]]\nname = 'files'\nto = ['first']\nschedule = 'daily'\npaths = ['DIR/src']\n";
    for (broken, reason) in [
        (Some(format!("{domain}pahts = ['DIR/src']\n")), "there is no key `pahts` here"),
        (Some(domain.replace("'daily'", "7")), "strongroom.toml:20: "),
        (Some(format!("{domain}[[[\n")), "strongroom.toml:22: "),
        (None, "strongroom.toml: cannot read the plan: "),
    ] {
        let bench = planned(domain);
        bench.source();
        let path = bench.path("strongroom.toml");
        let due = [OsStr::new("run"), OsStr::new("--due"), OsStr::new("--config"), path.as_os_str()];
        let spoil = || match &broken {
            Some(text) => write_plan(&bench, text),
            None => fs::remove_file(&path).expect("removed"),
        };
        spoil();
        bench.run(due).expect(2);
        assert!(!bench.path("told").exists(), "nothing is known of it");
        write_plan(&bench, domain);
        bench.run(due).expect(0);
        let metrics = || fs::read_to_string(bench.path("out.prom")).expect("written");
        assert!(metrics().contains("strongroom_attempt_success{domain=\"files\"} 1\n"), "{}", metrics());
        spoil();
        bench.run(due.into_iter().chain([OsStr::new("--dry-run")])).expect(2);
        assert!(!bench.path("told").exists(), "nothing was to be done");
        let run = bench.run(due).expect(2);
        assert!(run.message().contains(reason), "{reason}: {run:?}");
        assert!(metrics().contains("strongroom_attempt_success{domain=\"files\"} 0\n"), "{}", metrics());
        let told = fs::read_to_string(bench.path("told")).expect("somebody was told");
        assert!(told.contains("files: the plan cannot be run: ") && told.contains(reason), "{told}");
        write_plan(&bench, domain);
        let status = bench.run(["status", "--json"]).expect(3);
        let attempt = &status.lines()[0]["attempt"];
        assert_eq!(attempt["outcome"], "failed", "{attempt}");
        assert!(attempt["message"].as_str().expect("text").contains(reason), "{attempt}");
    }
}

#[test]
fn it_is_told_that_nothing_is_forgotten_as_long_as_something_is_missing() {
    let bench = planned(
        "[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\nfacts = { version = ['false'] }\n\
         objectives = { retain = { last = 1 } }\n",
    );
    bench.source();
    for _ in 0..2 {
        let run = bench.run(["run"]).expect(3);
        let warning =
            "warning: files: no old snapshot is forgotten: that is done only by runs that lack nothing";
        assert!(run.stderr.contains(warning), "{run:?}");
    }
    let status = bench.run(["status"]).expect(3).stdout;
    assert!(
        status.contains("files: the last attempt is partial: the fact version was not found out"),
        "{status}"
    );
    let kept = "files: no old snapshot is forgotten as long as something is missing from each run, as the last 2 did";
    assert!(status.contains(kept), "{status}");
}

#[test]
fn a_plugin_that_cannot_find_out_says_so() {
    let bench = planned("[[domain]]\nname = 'files'\npaths = ['DIR/src']\n");
    bench.source();
    bench.run(["run"]).expect(0);
    bench.run(["status", "--nagios"]).expect(0);
    let unknown = |run: Run, why: &str| {
        let run = run.expect(3);
        assert!(run.stdout.starts_with("STRONGROOM UNKNOWN - "), "{run:?}");
        assert!(run.stdout.contains(why) && run.stdout.lines().count() == 1, "{run:?}");
    };
    let head = bench.run(["log", "head"]).expect(0).stdout;
    let one_of_two = bench.run(["status", "--nagios", "--expect-head", head.trim()]);
    unknown(one_of_two, "--expect-head is of one repository, and the plan has 2");
    let folder = fs::read_dir(bench.path("state/plans")).expect("listed").next().expect("one").expect("one");
    let folder = folder.path();
    for (file, why) in [
        ("attempts.jsonl", "cannot read the record of attempts"),
        ("drills.jsonl", "cannot read how drills ended"),
        ("files.recover", "cannot read how far recoveries are"),
    ] {
        let path = folder.join(file);
        let before = fs::read(&path).ok();
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).expect("made");
        unknown(bench.run(["status", "--nagios"]), why);
        fs::remove_dir(&path).expect("removed");
        if let Some(bytes) = before {
            fs::write(&path, bytes).expect("written");
        }
    }
    bench.run(["status", "--nagios"]).expect(0);
    fs::write(bench.path("strongroom.toml"), "version = 1\nshedule = 1\n").expect("written");
    unknown(bench.run(["status", "--nagios"]), "there is no key `shedule` here");
}

#[test]
fn formats_for_monitors_have_standard_output_for_themselves() {
    let bench = planned("[[domain]]\nname = 'files'\npaths = ['DIR/src']\n");
    bench.source();
    let plan = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    let idle = plan.replace("version = 1\n", "version = 1\ninclude = ['conf.d/*.toml']\n");
    fs::write(bench.path("strongroom.toml"), idle).expect("written");
    bench.run(["run"]).expect(0);
    let warning = "the pattern \"conf.d/*.toml\" of include names no file";
    let line = bench.run(["status", "--nagios"]).expect(0);
    assert!(line.stdout.starts_with("STRONGROOM OK - ") && line.stdout.lines().count() == 1, "{line:?}");
    assert!(line.stderr.contains(warning), "{line:?}");
    let numbers = bench.run(["status", "--openmetrics"]).expect(0);
    assert!(numbers.stdout.starts_with("# ") && numbers.stdout.ends_with("# EOF\n"), "{numbers:?}");
    assert!(!numbers.stdout.contains(warning) && numbers.stderr.contains(warning), "{numbers:?}");
    // Two formats in one place would be none. `--json` may stand before the command.
    for args in [["status", "--nagios", "--json"], ["--json", "status", "--nagios"]] {
        let line = bench.run(args).expect(3);
        assert!(
            line.stdout.starts_with("STRONGROOM UNKNOWN - --json cannot be used with --nagios"),
            "{line:?}"
        );
        assert_eq!(line.stdout.lines().count(), 1, "{line:?}");
    }
    for args in [["status", "--openmetrics", "--json"], ["--json", "status", "--openmetrics"]] {
        let refused = bench.run(args).expect(2);
        let error = refused.last("error");
        assert_eq!((&error["code"], refused.lines().len()), (&"usage".into(), 1), "{refused:?}");
    }
}

#[test]
fn one_plan_has_one_state_by_whatever_path() {
    let bench = planned("[[domain]]\nname = 'files'\npaths = ['DIR/src']\n");
    bench.source();
    bench.run(["run"]).expect(0);
    symlink(bench.path("strongroom.toml"), bench.path("link.toml")).expect("a link");
    for path in ["src/../strongroom.toml", "link.toml", "./strongroom.toml"] {
        let status = bench.run(["status", "--json", "--config", path]).expect(0);
        assert_eq!(status.lines()[0]["attempt"]["outcome"], "ok", "{path}");
    }
    assert_eq!(fs::read_dir(bench.path("state/plans")).expect("listed").count(), 1);
}

#[test]
fn the_plan_is_looked_for_where_it_is_named_before_it_is_found() {
    let bench = planned("[[domain]]\nname = 'here'\npaths = ['/a']\n");
    let text = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    for name in ["variable", "option"] {
        bench.write(&format!("{name}.toml"), text.replace("'here'", &format!("'{name}'")));
    }
    let shown = |variable: Option<&str>, option: Option<&str>| {
        let mut command = bench.command();
        if let Some(path) = variable {
            command.env("STRONGROOM_CONFIG", bench.path(path));
        }
        command.args(["config", "show"]).args(option.map(|path| format!("--config={path}")));
        let text = Run::of(&mut command).expect(0).stdout;
        let name = ["here", "variable", "option"]
            .into_iter()
            .find(|name| text.contains(&format!("domain.{name}.paths")));
        name.expect("a domain")
    };
    assert_eq!(shown(None, None), "here");
    assert_eq!(shown(Some("variable.toml"), None), "variable");
    assert_eq!(shown(Some("variable.toml"), Some("option.toml")), "option");
    // What is named and not there is not made up for by what is.
    let missing = bench.run(["config", "show", "--config", "no.toml"]).expect(2);
    assert!(missing.message().contains("no.toml"), "{missing:?}");
}

/// Nobody needs it before the day on which something is recovered, and until then nothing would be backed up.
#[test]
fn a_recovery_that_cannot_be_done_is_refused_and_stops_no_backup() {
    let bench = planned(
        "[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\nrecover = { ready = { timeout = '1m' } }\n\
         [[drill]]\nname = 'names'\ndomains = ['flies']\ntier = 'metadata'\n",
    );
    bench.source();
    let found = bench.run(["config", "check"]).expect(4).stdout;
    assert!(found.contains("the recovery of the domain files needs one of `http` and `command`"), "{found}");
    assert!(
        found.contains("the drill names names the domain \"flies\", which is not in the plan"),
        "{found}"
    );
    bench.run(["run"]).expect(0);
    let refused = bench.run(["recover", "files", "--json"]).expect(2).last("error");
    assert_eq!(refused["code"], "plan");
    let drill = bench.run(["drill"]).expect(5).stderr;
    assert!(
        drill.contains("nothing was begun: the drill names the domain flies, which is not in the plan"),
        "{drill}"
    );
}

/// Whoever comes past a directory would run what others have written there.
#[test]
fn a_plan_of_somebody_else_is_not_used_unless_it_is_named() {
    let bench = planned("[[domain]]\nname = 'files'\npaths = ['DIR/src']\n");
    bench.source();
    let plan = bench.path("strongroom.toml");
    let refused = |why: &str| {
        let run = bench.run(["status"]).expect(2);
        assert!(run.stderr.contains("./strongroom.toml is not used") && run.stderr.contains(why), "{run:?}");
        let named = bench.run(["status", "--config", "strongroom.toml"]);
        assert!(!named.stderr.contains("is not used"), "{named:?}");
    };
    fs::set_permissions(&plan, fs::Permissions::from_mode(0o666)).expect("set");
    refused("everybody may write to it");
    fs::set_permissions(&plan, fs::Permissions::from_mode(0o664)).expect("set");
    bench.run(["run"]).expect(0);
    if rustix::process::geteuid().is_root() {
        chown(&plan, Some(1), None).expect("given away");
        refused("it belongs to somebody else");
    }
}
