//! A plan on a machine of its own: `run`, `status`, `config recover`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::{Bench, CHEAP, Run, cannot};

/// A folder with two repositories and a plan; `DIR` in its text is the folder.
pub fn planned(domains: &str) -> Bench {
    let bench = Bench::new();
    let mut init = bench.command();
    Run::of(init.arg("-r").arg(bench.path("second")).arg("init").args(CHEAP)).expect(0);
    write_plan(&bench, domains);
    bench
}

pub fn write_plan(bench: &Bench, domains: &str) {
    let text = format!(
        "version = 1\nhost_id = 'box'\n[repo.first]\nurl = 'DIR/repo'\nsite = 'here'\n\
         key_copies = 'the safe'\n[repo.second]\nurl = 'DIR/second'\nsite = 'there'\nkey_copies = 'the safe'\n\
         password_file = 'DIR/password'\n{domains}"
    );
    bench.write("password", crate::support::PASSWORD);
    bench.write(
        "strongroom.toml",
        text.replace("DIR", bench.path("").to_str().expect("text").trim_end_matches('/')),
    );
}

fn snapshots(bench: &Bench, repository: &str) -> Vec<Value> {
    let mut command = bench.command();
    let run = Run::of(command.arg("-r").arg(bench.path(repository)).args(["snapshots", "--json"])).expect(0);
    serde_json::from_str(&run.stdout).expect("a JSON array")
}

const DOMAINS: &str = "
[class.c]
rpo = '24h'
copies = 2
sites = 2
retain = { last = 2 }
[[domain]]
name = 'files'
class = 'c'
schedule = 'daily'
after = ['db']
paths = ['DIR/src']
exclude = ['*.o']
tags = ['nightly']
facts = { revision = ['echo', 'abc123'] }
hooks = { before = [['sh', '-c', 'env > DIR/before']], finally = [['touch', 'DIR/finally']] }
[[domain]]
name = 'db'
class = 'c'
schedule = 'daily'
[[domain.stream]]
name = 'all.dump'
command = ['cat', 'DIR/dump']
tee_check = ['grep', '-q', 'complete']
min_bytes = '10'
";

/// A file in the place of the folder: no parity can be stored.
#[test]
fn a_run_tells_of_parity_that_could_not_be_stored() {
    let bench = planned(DOMAINS);
    bench.source();
    bench.write("dump", "a dump that is complete\n");
    bench.run(["parity", "add"]).expect(0);
    fs::remove_dir_all(bench.repository().join("parity")).expect("removed");
    bench.write("repo/parity", "no folder");
    let run = bench.run(["run"]).expect(0);
    assert!(run.stderr.contains("has no parity yet"), "{run:?}");
}

#[test]
fn a_plan_is_run_and_its_status_is_told() {
    let bench = planned(DOMAINS);
    bench.source();
    bench.write("dump", "a dump that is complete\n");
    let check = bench.run(["config", "check"]).expect(0);
    assert!(check.stdout.contains("2 domains in 1 file: 0 errors, 0 violations, 0 warnings"), "{check:?}");
    let before = bench.run(["status", "--json"]).expect(4);
    assert_eq!(before.last("summary")["health"], "critical");
    let dry = bench.run(["run", "--due", "--dry-run"]).expect(0);
    let into = "into first, second: there is no snapshot yet";
    assert_eq!(dry.stdout, format!("would back up db {into}\nwould back up files {into}\n"));
    assert!(!bench.path("before").exists() && snapshots(&bench, "repo").is_empty());

    let run = bench.run(["run", "--due", "--json"]).expect(0);
    let summary = run.last("summary");
    assert_eq!((&summary["domains_ok"], &summary["domains_failed"]), (&2.into(), &0.into()));
    assert!(bench.path("finally").exists());
    let environment = fs::read_to_string(bench.path("before")).expect("text");
    assert!(environment.contains("STRONGROOM_DOMAIN=files\n"), "{environment}");
    assert!(!environment.contains("STRONGROOM_PASSWORD"), "a hook learns the password: {environment}");
    for repository in ["repo", "second"] {
        let found = snapshots(&bench, repository);
        let domains: Vec<_> = found.iter().map(|snapshot| snapshot["provenance"]["domain"].clone()).collect();
        assert_eq!(domains, ["db", "files"]);
        let files = &found[1];
        assert_eq!((&files["hostname"], &files["tags"][0]), (&"box".into(), &"nightly".into()));
        assert_eq!(files["provenance"]["facts"]["revision"], "abc123");
        assert_eq!(files["provenance"]["consistency"], "fuzzy");
        assert_eq!(found[0]["provenance"]["consistency"], "application");
    }
    let all = bench.run(["ls", "-R", "latest"]).expect(0).stdout;
    assert!(all.contains("/src/a.txt") && !all.contains("c.o") && all.contains("strongroom.toml"), "{all}");

    assert_eq!(bench.run(["run", "--due"]).expect(0).stdout, "nothing is due\n");
    let neither = bench.run(["run", "db", "--tag", "nightly"]).expect(2);
    assert!(
        neither.message().contains("none of the domains that were named has one of the tags nightly"),
        "{neither:?}"
    );
    let status = bench.run(["status"]).expect(0).stdout;
    assert_eq!(status.lines().count(), 5, "{status}");
    assert!(status.lines().skip(1).all(|line| line.contains("  ok  ")), "{status}");
    let nagios = bench.run(["status", "--nagios"]).expect(0).stdout;
    assert!(
        nagios.starts_with("STRONGROOM OK - 2 domains are as they have to be|'files@first'="),
        "{nagios}"
    );
    let metrics = bench.run(["status", "--openmetrics"]).expect(0).stdout;
    assert!(metrics.contains("strongroom_copy_health{domain=\"db\",repository=\"second\"} 0\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));

    // Retention keeps two of each domain.
    for _ in 0..2 {
        bench.run(["run"]).expect(0);
    }
    assert_eq!(snapshots(&bench, "second").len(), 4);
    bench.run(["forget", "--domain", "db", "--keep-last", "1"]).expect(0);
    assert_eq!(snapshots(&bench, "repo").len(), 3);
    bench.run(["check", "--read-data"]).expect(0);
}

/// Nothing has failed: no run was ever begun since.
#[test]
fn the_status_turns_red_by_the_time_that_goes_by() {
    let domain = |rpo: &str| {
        format!("[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\nobjectives = {{ {rpo} }}\n")
    };
    let bench = planned(&domain("rpo = '1h'"));
    bench.source();
    bench.run(["run"]).expect(0);
    bench.run(["status"]).expect(0);
    std::thread::sleep(Duration::from_millis(2100));
    // It is two seconds old by now, at least.
    write_plan(&bench, &domain("rpo = '1s', rpo_grace = '1h'"));
    let status = bench.run(["status", "--json"]).expect(3);
    assert_eq!(status.lines()[0]["health"], "warning", "{status:?}");
    write_plan(&bench, &domain("rpo = '1s'"));
    let status = bench.run(["status", "--json"]).expect(4);
    let domain = &status.lines()[0];
    assert_eq!(domain["health"], "critical", "{status:?}");
    assert!(domain["repositories"][0]["reasons"].to_string().contains("RPO"), "{domain}");
    assert_eq!(bench.run(["status", "--nagios"]).code, 2);
    bench.run(["run"]).expect(0);
}

#[test]
fn a_bad_dump_leaves_no_snapshot_and_the_rest_goes_on() {
    let bench = planned(&format!(
        "{DOMAINS}[metrics]\ntextfile = 'DIR/out.prom'\n[[domain]]\nname = 'etc'\npaths = ['DIR/src']\n"
    ));
    bench.source();
    for (dump, reason) in [
        (Some("a dump that is cut short"), "tee_check: grep failed: exit code 1"),
        (Some("complete"), "it has 8 bytes, and min_bytes is 10"),
        (None, "cat failed: exit code 1; it said: cat: "),
    ] {
        match dump {
            Some(dump) => bench.write("dump", dump),
            None => bench.path("dump"),
        };
        if dump.is_none() {
            fs::remove_file(bench.path("dump")).expect("removed");
        }
        let run = bench.run(["run"]).expect(1);
        assert!(run.stderr.contains(&format!("db: failed: first: all.dump: {reason}")), "{run:?}");
        assert!(run.stderr.contains("files: skipped: it comes after db, which failed"), "{run:?}");
        assert!(run.stdout.contains("etc: ok"), "{run:?}");
        assert!(run.message().contains("not backed up as the plan says: db, files"), "{run:?}");
    }
    let domains: Vec<_> =
        snapshots(&bench, "repo").iter().map(|snapshot| snapshot["provenance"]["domain"].clone()).collect();
    assert_eq!(domains, ["etc", "etc", "etc"]);
    let metrics = fs::read_to_string(bench.path("out.prom")).expect("written");
    assert!(metrics.contains("strongroom_attempt_success{domain=\"db\"} 0\n"), "{metrics}");
    let nagios = bench.run(["status", "--nagios"]).expect(2).stdout;
    assert!(
        nagios.starts_with("STRONGROOM CRITICAL - files critical: the last attempt is skipped"),
        "{nagios}"
    );
    let json = bench.run(["run", "db", "--json"]).expect(1);
    let lines = json.lines();
    assert_eq!(
        (&lines[lines.len() - 1]["code"], &lines[lines.len() - 2]["domains_failed"]),
        (&"run".into(), &1.into())
    );
}

#[test]
fn a_service_that_a_hook_leaves_running_does_not_hold_whoever_reads_the_output() {
    let bench = planned(
        "[[domain]]\nname = 'files'\npaths = ['DIR/src']\n\
         hooks = { after = [['sh', '-c', 'setsid sleep 30 </dev/null >/dev/null 2>&1 &']] }\n",
    );
    bench.source();
    let began = Instant::now();
    bench.run(["run"]).expect(0);
    assert!(began.elapsed() < Duration::from_secs(25), "it was held for {:?}", began.elapsed());
}

#[test]
fn a_repository_that_is_gone_holds_up_no_other() {
    let bench = planned(DOMAINS);
    bench.source();
    bench.write("dump", "a dump that is complete\n");
    fs::rename(bench.path("second"), bench.path("away")).expect("moved");
    let run = bench.run(["run", "--due"]).expect(1);
    assert!(run.stderr.contains("db: failed: second: cannot be copied from first: "), "{run:?}");
    let left_out = "warning: files: second: it comes after db, which did not get there";
    assert!(run.stderr.contains(left_out) && run.message().ends_with(": db, files"), "{run:?}");
    assert_eq!(snapshots(&bench, "repo").len(), 2, "what has got to the first is followed there");
    let status = bench.run(["status"]).expect(5);
    assert!(status.stdout.contains("db in second: the repository cannot be asked"), "{status:?}");
    fs::rename(bench.path("away"), bench.path("second")).expect("moved");
    let run = bench.run(["run", "--due"]).expect(0);
    assert_eq!((snapshots(&bench, "repo").len(), snapshots(&bench, "second").len()), (2, 2), "{run:?}");
    bench.run(["status"]).expect(0);
}

/// The schedule says nothing: the last attempt does.
#[test]
fn what_failed_when_it_was_called_by_its_name_is_due_again() {
    let bench = planned(
        "[[domain]]\nname = 'files'\nschedule = 'daily'\npaths = ['DIR/src']\n[[domain]]\nname = 'event'\nto = ['first']\npaths = ['DIR/none']\n",
    );
    bench.source();
    bench.run(["run", "files"]).expect(0);
    fs::rename(bench.path("second"), bench.path("away")).expect("moved");
    let run = bench.run(["run", "files"]).expect(1);
    assert!(
        run.stderr.contains("what is missing is due again at the next `strongroom run --due`"),
        "{run:?}"
    );
    fs::rename(bench.path("away"), bench.path("second")).expect("moved");
    let dry = bench.run(["run", "--due", "--dry-run"]).expect(0).stdout;
    let expected = "would back up files into second: the last attempt failed: cannot be copied from first: ";
    assert!(dry.starts_with(expected) && dry.lines().count() == 1, "{dry}");
    bench.run(["run", "--due"]).expect(0);
    assert_eq!((snapshots(&bench, "repo").len(), snapshots(&bench, "second").len()), (2, 2));
    assert_eq!(bench.run(["run", "--due"]).expect(0).stdout, "nothing is due\n");
    // What has no schedule is called for by whoever knows when.
    let run = bench.run(["run", "event"]).expect(1);
    assert!(run.stderr.contains("nothing is due by itself: `strongroom run event` tries again"), "{run:?}");
    assert_eq!(bench.run(["run", "--due"]).expect(0).stdout, "nothing is due\n");
}

/// Reads each thing once: what a command was run for is in `ran`.
const READ_ONCE: &str = "
[[domain]]
name = 'db'
schedule = 'daily'
to = ['first', 'second']
hooks = { before = [['sh', '-c', 'echo hook >> DIR/ran']] }
[[domain.stream]]
name = 'all.dump'
command = ['sh', '-c', 'echo dump >> DIR/ran; date +%N; cat DIR/dump']
";

#[test]
fn a_domain_is_read_once_and_copied_to_its_other_repositories() {
    let bench = planned(READ_ONCE);
    bench.write("dump", crate::support::noise(1, 300_000));
    let other = |args: &[&str]| {
        let mut command = bench.command();
        Run::of(command.arg("-r").arg(bench.path("second")).args(args)).expect(0)
    };
    let ran = || fs::read_to_string(bench.path("ran")).expect("commands ran");
    let run = bench.run(["run", "--due", "--json"]).expect(0);
    let domain = run.lines().into_iter().find(|line| line["type"] == "domain").expect("a domain");
    let copied = &domain["repositories"][1];
    assert_eq!(
        (&copied["copied_from"], &copied["snapshots_copied"]),
        (&"first".into(), &1.into()),
        "{domain}"
    );
    assert_eq!(ran(), "hook\ndump\n");
    let dumped = bench.run(["restore", "latest", "--target", "one"]).expect(0);
    other(&["restore", "latest", "--target", "two"]);
    let read = |place: &str| fs::read(bench.path(place).join("all.dump")).expect("restored");
    assert!(read("one") == read("two"), "a date to the nanosecond is in it: {dumped:?}");

    // A copy that fails is told, and made up by the next run, without the command being run again.
    fs::rename(bench.path("second"), bench.path("away")).expect("moved");
    let failed = bench.run(["run", "db"]).expect(1);
    assert!(failed.stderr.contains("db: failed: second: cannot be copied from first"), "{failed:?}");
    let status = bench.run(["status", "--json"]).expect(5);
    assert_eq!(status.lines()[0]["attempt"]["outcome"], "failed");
    fs::rename(bench.path("away"), bench.path("second")).expect("moved");
    bench.run(["run", "db"]).expect(0);
    assert_eq!(ran(), "hook\ndump\n".repeat(3));
    assert_eq!((snapshots(&bench, "repo").len(), snapshots(&bench, "second").len()), (3, 3));

    // Where the first cannot be reached, the next takes its place.
    fs::rename(bench.path("repo"), bench.path("away")).expect("moved");
    let run = bench.run(["run", "db"]).expect(1);
    assert!(run.stderr.contains("db: failed: first: there is no repository at"), "{run:?}");
    assert_eq!(snapshots(&bench, "second").len(), 4);
    fs::rename(bench.path("away"), bench.path("repo")).expect("moved");
    // A snapshot that is only there is not the first one's to copy; the next run makes one for both.
    bench.run(["run", "db"]).expect(0);
    assert_eq!((snapshots(&bench, "repo").len(), snapshots(&bench, "second").len()), (4, 5));
    other(&["check", "--read-data"]);
}

#[test]
fn a_sqlite_database_is_copied_through_sqlite_and_put_where_it_was() {
    let bench = planned("[[domain]]\nname = 'state'\nsqlite = ['DIR/var/state.db']\nto = ['first']\n");
    fs::create_dir(bench.path("var")).expect("a folder");
    let missing = bench.run(["run"]).expect(1);
    assert!(missing.stderr.contains("state.db cannot be read"), "{missing:?}");
    assert!(!bench.path("var/state.db").exists() && snapshots(&bench, "repo").is_empty());
    bench.write("var/state.db", []);
    bench.run(["run"]).expect(0);
    let place = bench.path("var/state.db").canonicalize().expect("there");
    let listed =
        bench.run(["ls", &format!("latest:{}", place.parent().expect("a folder").display())]).expect(0);
    assert!(listed.stdout.contains("state.db"), "{listed:?}");
}

/// As an application has it that keeps its files and its database in one directory.
#[test]
fn a_sqlite_database_in_a_path_is_taken_through_sqlite_and_comes_back_with_the_rest() {
    let bench = planned(
        "[[domain]]\nname = 'app'\nto = ['first']\npaths = ['DIR/src']\nsqlite = ['DIR/src/sub/state.db']\n",
    );
    bench.source();
    let path = bench.path("src/sub/state.db");
    // It ends as one that is killed: what was written stays in the log.
    let sqlite = |script: &str| {
        let python = "import os, sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.executescript(sys.argv[2])\nos._exit(0)";
        Run::of(Command::new("python3").args(["-c", python]).arg(&path).arg(script)).expect(0);
    };
    sqlite("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (7)");
    assert!(bench.path("src/sub/state.db-wal").exists(), "what was written is in the log yet");
    bench.run(["config", "check"]).expect(0);
    bench.run(["run"]).expect(0);
    let listed = bench.run(["ls", "latest", "--recursive", "--json"]).expect(0);
    let names: Vec<_> =
        listed.lines().iter().filter_map(|line| line["name"].as_str().map(str::to_owned)).collect();
    assert!(names.contains(&"state.db".into()) && names.contains(&"b.txt".into()), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("state.db-")), "{names:?}");
    sqlite("DELETE FROM t");
    bench.run(["recover", "app"]).expect(0);
    let python = "import sqlite3, sys\nprint(sqlite3.connect(sys.argv[1]).execute('select sum(n) from t').fetchone()[0])";
    let sum = Run::of(Command::new("python3").args(["-c", python]).arg(&path)).expect(0);
    assert_eq!(sum.stdout, "7\n");
}

/// A run that is in a hook which takes its time after it has made the file `begun`.
fn begun(bench: &Bench, option: &str) -> Child {
    let options = Some(option).filter(|option| !option.is_empty());
    let child = bench.command().arg("run").args(options).spawn().expect("started");
    let until = Instant::now() + Duration::from_secs(30);
    while !bench.path("begun").exists() {
        assert!(Instant::now() < until, "the hook was not begun");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn a_run_that_is_asked_to_end_cleans_up_first() {
    let bench = planned(
        "[[domain]]\nname = 'slow'\nto = ['first']\npaths = ['DIR/src']\nhooks = { before = [['sh', '-c', \
         'touch DIR/begun; sleep 60']], failed = [['sh', '-c', 'echo $STRONGROOM_ERROR > DIR/failed']], \
         finally = [['touch', 'DIR/finally']] }\n[[domain]]\nname = 'later'\nto = ['first']\npaths = ['DIR/src']\nhooks = { \
         before = [['touch', 'DIR/later']], failed = [['touch', 'DIR/later']], finally = [['touch', 'DIR/later']] }\n",
    );
    bench.source();
    let mut child = begun(&bench, "");
    let before = Instant::now();
    let pid = Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("asked");
    assert_eq!(child.wait().expect("ended").code(), Some(1));
    assert!(before.elapsed() < Duration::from_secs(30), "the hook was not ended");
    assert!(bench.path("finally").exists());
    let reason = fs::read_to_string(bench.path("failed")).expect("text");
    assert_eq!(reason, "a hook before it: sh was ended: the run was cancelled\n");
    assert!(snapshots(&bench, "repo").is_empty());
    let status = bench.run(["status", "--json"]).expect(4);
    assert_eq!(status.lines()[0]["attempt"]["outcome"], "failed");
    assert!(!bench.path("later").exists(), "nothing more is begun");
    assert_eq!(status.lines()[1]["attempt"]["message"], "the run was cancelled before it began");
}

/// In a container, the leader of the session may be a process outside of it: the session has the number 0 there.
#[test]
fn a_plan_is_run_in_a_session_that_was_begun_outside() {
    let bench = planned(
        "[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\nhooks = { before = [['touch', 'DIR/begun']] }\n",
    );
    bench.source();
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]).stdin(Stdio::null());
        command
    };
    let reason = match unshare().arg("true").output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(reason) = reason {
        return cannot("make a name space of processes", &reason);
    }
    let program = bench.command();
    let mut inside = unshare();
    inside.arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    Run::of(inside.args(["run", "files"]).current_dir(bench.path(""))).expect(0);
    assert!(bench.path("begun").exists());
    assert_eq!(snapshots(&bench, "repo").len(), 1);
}

#[test]
fn a_copy_of_a_plan_does_not_run_a_domain_that_is_at_work() {
    let bench = planned(
        "[[domain]]\nname = 'slow'\nto = ['first']\npaths = ['DIR/src']\nhooks = { before = [['sh', '-c', \
         'echo >> DIR/hooks; test -e DIR/first && exit; touch DIR/first DIR/begun; while ! test -e DIR/quick; do sleep 0.1; done']] }\n",
    );
    bench.source();
    fs::copy(bench.path("strongroom.toml"), bench.path("copy.toml")).expect("copied");
    let mut child = begun(&bench, "");
    let busy = bench.run(["run", "--config", "copy.toml"]).expect(3);
    assert!(busy.stderr.contains("slow: deferred: another run is at work on it since 20"), "{busy:?}");
    bench.write("quick", "");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(fs::read_to_string(bench.path("hooks")).expect("hooks"), "\n", "hooks were run twice at once");
    bench.run(["run", "--config", "copy.toml"]).expect(0);
}

/// What is passed over, and what comes after it, is told of and on record, and made up for by the next `run --due`.
#[test]
fn what_waits_for_another_run_is_told_of_and_due_again() {
    let bench = planned(
        "[[notify]]\non = ['failure']\ncommand = ['sh', '-c', 'cat >> DIR/told']\n\
         [class.c]\nrpo = '1h'\n[[domain]]\nname = 'slow'\nclass = 'c'\nto = ['first']\nschedule = 'daily'\npaths = ['DIR/src']\n\
         hooks = { before = [['sh', '-c', 'touch DIR/begun; while ! test -e DIR/quick; do sleep 0.1; done']] }\n\
         [[domain]]\nname = 'then'\nclass = 'c'\nto = ['first']\nafter = ['slow']\npaths = ['DIR/src']\n\
         [[domain]]\nname = 'free'\nclass = 'c'\nto = ['first']\nschedule = 'daily'\npaths = ['DIR/src']\n",
    );
    bench.source();
    bench.write("quick", "");
    bench.run(["run"]).expect(0);
    fs::remove_file(bench.path("quick")).expect("removed");
    fs::remove_file(bench.path("begun")).expect("removed");
    // By a copy of the plan, which records it elsewhere.
    fs::copy(bench.path("strongroom.toml"), bench.path("copy.toml")).expect("copied");
    let mut child = bench.command().args(["run", "slow", "--config", "copy.toml"]).spawn().expect("started");
    let until = Instant::now() + Duration::from_secs(60);
    while !bench.path("begun").exists() {
        assert!(Instant::now() < until, "the run was not begun");
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = bench.run(["run"]).expect(3);
    for said in [
        "slow: deferred: another run is at work on it since ",
        "then: deferred: not run: waits for slow, which another run is at work on since ",
        "strongroom: not run, since another run is at work: slow, then",
        "what is missing is due again at the next `strongroom run --due`",
    ] {
        assert!(run.stderr.contains(said), "{said}\n{run:?}");
    }
    assert!(run.stdout.contains("1 ok, 0 partial, 0 failed, 0 skipped, 2 deferred\n"), "{run:?}");
    let json = bench.run(["run", "then", "slow", "--json"]).expect(3);
    let lines = json.lines();
    let line = |name: &str| lines.iter().find(|line| line["domain"] == name).expect("a line");
    assert_eq!((&line("slow")["outcome"], &line("slow")["waits_for"]), (&"deferred".into(), &Value::Null));
    assert_eq!((&line("then")["outcome"], &line("then")["waits_for"]), (&"deferred".into(), &"slow".into()));
    assert_eq!(json.last("error")["code"], "deferred");
    assert!(!bench.path("told").exists(), "nothing has failed");
    let status = bench.run(["status"]).expect(3).stdout;
    assert!(
        status.contains("then: the last attempt is deferred: not run: waits for slow, which "),
        "{status}"
    );
    // The schedule says nothing of either; what is due waits, and says for whom.
    let dry = bench.run(["run", "--due", "--dry-run"]).expect(0).stdout;
    assert!(
        dry.lines().count() == 2 && dry.contains("would back up then into first: the last attempt was"),
        "{dry}"
    );
    let (due, said) = waiting(&bench);
    assert!(said.starts_with("slow: another run is at work on it since "), "{said}");
    assert!(said.ends_with(&format!(" (process {}): waiting for its end\n", child.id())), "{said}");
    bench.write("quick", "");
    assert!(child.wait().expect("ended").success());
    let due = Run::from(&due.wait_with_output().expect("ended")).expect(0);
    assert!(due.stdout.contains("slow: ok: another run has done it meanwhile\nthen: ok\n"), "{due:?}");
    assert_eq!(bench.run(["run", "--due"]).expect(0).stdout, "nothing is due\n");
    bench.run(["status"]).expect(0);
}

/// A `run --due` that has to wait, and what it says of that.
fn waiting(bench: &Bench) -> (Child, String) {
    let mut run = bench
        .command()
        .args(["run", "--due"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut said = String::new();
    BufReader::new(run.stderr.as_mut().expect("a pipe")).read_line(&mut said).expect("a line");
    (run, said)
}

#[test]
fn timers_that_meet_do_not_fail_each_other() {
    let bench = planned(
        "[[domain]]\nname = 'slow'\nto = ['first']\nschedule = 'daily'\npaths = ['DIR/src']\nhooks = { before = [['sh', '-c', \
         'touch DIR/begun; while ! test -e DIR/quick; do sleep 0.1; done']] }\n",
    );
    bench.source();
    let mut first = begun(&bench, "--due");
    let (mut second, said) = waiting(&bench);
    assert!(said.starts_with("another run is at work on what is due since 20"), "{said}");
    assert!(said.ends_with(&format!(" (process {}): waiting for its end\n", first.id())), "{said}");
    let third = bench.run(["run", "--due", "--json"]).expect(0);
    assert_eq!(third.last("summary")["another_waits"], true);
    let plans = fs::read_dir(bench.path("state/plans")).expect("a folder").next().expect("one").expect("one");
    let guard = plans.path().join("slow.guard");
    fs::write(&guard, "{\"reasons\":[\"encrypted\"]}").expect("written");
    let third = bench.run(["run", "--due"]).expect(4);
    assert!(
        third.stdout.contains("there is nothing to add")
            && third.stderr.contains("slow: nothing is forgotten"),
        "{third:?}"
    );
    fs::remove_file(&guard).expect("removed");
    assert!(second.try_wait().expect("a child").is_none());
    bench.write("quick", "");
    assert_eq!(first.wait().expect("ended").code(), Some(0));
    let second = Run::from(&second.wait_with_output().expect("ended")).expect(0);
    assert_eq!(second.stdout, "nothing is due\n", "{second:?}");
    assert_eq!(snapshots(&bench, "repo").len(), 1);
}

#[test]
fn a_plan_that_is_left_out_is_recovered_all_the_same() {
    let bench = planned(
        "[[domain]]\nname = 'all'\nto = ['first']\npaths = ['DIR']\nexclude = ['*.toml', 'DIR/repo', 'DIR/second', 'DIR/state']\n",
    );
    bench.write("other.toml", "x");
    bench.run(["run"]).expect(0);
    let listed = bench.run(["ls", "-R", "latest"]).expect(0).stdout;
    assert!(!listed.contains("other.toml"), "{listed}");
    bench.run(["config", "recover", "--output", "back"]).expect(0);
    assert_eq!(
        fs::read_to_string(bench.path("back/strongroom.toml")).expect("recovered"),
        fs::read_to_string(bench.path("strongroom.toml")).expect("the plan")
    );
}

#[test]
fn what_a_killed_run_left_behind_is_cleaned_up_by_the_next() {
    let bench = planned(
        "[[domain]]\nname = 'slow'\nto = ['first']\npaths = ['DIR/src']\nhooks = { before = [['sh', '-c', \
         'test -e DIR/quick || { echo $$ > DIR/pid; touch DIR/begun; sleep 1000; }']], finally = [['sh', '-c', 'echo done >> DIR/finally']] }\n",
    );
    bench.source();
    let mut child = begun(&bench, "");
    let busy = bench.run(["run"]).expect(3);
    let by = format!("(process {})", child.id());
    assert!(busy.stderr.contains("slow: deferred: another run is at work on it since 20"), "{busy:?}");
    assert!(busy.stderr.contains(&by), "{busy:?}");
    child.kill().and_then(|()| child.wait()).expect("killed");
    assert!(!bench.path("finally").exists());
    let status = bench.run(["status"]).expect(4).stdout;
    assert!(status.contains("was killed: the next one (`strongroom run slow`)"), "{status}");
    bench.write("quick", "");
    let pid = fs::read_to_string(bench.path("pid")).expect("a pid");
    let is_at_work = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    assert!(is_at_work(), "the hook outlives its run");
    bench.run(["run"]).expect(0);
    assert!(!is_at_work(), "the hook is ended before the next run cleans up");
    assert_eq!(fs::read_to_string(bench.path("finally")).expect("text"), "done\ndone\n");
    let status = bench.run(["status", "--json"]).expect(0);
    assert_eq!(status.lines()[0]["attempt"]["outcome"], "ok");
}

#[test]
fn a_plan_comes_back_from_a_snapshot() {
    let bench = planned("[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\n");
    bench.source();
    let main = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    let main = main.replacen("version = 1", "version = 1\ninclude = ['conf.d/*.toml']", 1);
    bench.write("strongroom.toml", &main);
    let more = "# nothing yet\n";
    bench.write("conf.d/more.toml", more);
    bench.run(["backup", "src"]).expect(0);
    let none = bench.run(["config", "recover", "--output", "back"]).expect(1);
    assert!(none.message().contains("no complete snapshot in the repository was made by a plan"), "{none:?}");
    bench.run(["run"]).expect(0);
    fs::remove_file(bench.path("strongroom.toml")).expect("removed");
    bench.run(["run"]).expect(2);
    let run = bench.run(["config", "recover", "--output", "back", "--json"]).expect(0);
    assert_eq!(run.last("summary")["domain"], "files");
    assert_eq!(fs::read_to_string(bench.path("back/strongroom.toml")).expect("text"), main);
    assert_eq!(fs::read_to_string(bench.path("back/conf.d/more.toml")).expect("text"), more);
    let again = bench.run(["config", "recover", "--output", "back"]).expect(1);
    assert!(again.message().contains("exists already; nothing was written"), "{again:?}");
}

/// The place of the plan is named from elsewhere, a file of it lies beside, and a folder for more has none yet.
#[test]
fn a_plan_that_is_named_by_way_of_other_folders_comes_back_and_can_be_used() {
    let bench = planned("[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\n");
    bench.source();
    let main = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    let include =
        "version = 1\ninclude = ['conf.d/*.toml', '../gone/*.toml', './near.toml', '../shared/more.toml']";
    let main = main.replacen("version = 1", include, 1);
    bench.write("etc/strongroom.toml", &main);
    let (near, more) = ("# near\n", "# more\n");
    bench.write("etc/near.toml", near);
    bench.write("shared/more.toml", more);
    fs::create_dir(bench.path("etc/conf.d")).expect("a folder");
    let check = |config: &str| {
        let check = bench.run(["config", "check", "--config", config]).expect(0);
        assert!(
            check.stdout.contains("1 domain in 3 files: 0 errors, 0 violations, 2 warnings"),
            "{check:?}"
        );
    };
    check("src/../etc/strongroom.toml");
    bench.run(["run", "--config", "src/../etc/../etc/strongroom.toml"]).expect(0);
    bench.run(["config", "recover", "--output", "back"]).expect(0);
    for (file, text) in
        [("etc/strongroom.toml", main.as_str()), ("etc/near.toml", near), ("shared/more.toml", more)]
    {
        assert_eq!(fs::read_to_string(bench.path("back").join(file)).expect("text"), text);
    }
    check("back/etc/strongroom.toml");
}
