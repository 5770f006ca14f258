//! `drill`: restores rehearsed on a machine of its own, with applications that are started and asked.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::{Bench, CHEAP, Run, noise, overwrite};

/// A plan with two repositories, a domain of files and a dump, and drills of it; `DIR` is the folder of it all.
fn planned(drills: &str) -> Bench {
    let bench = Bench::new();
    let mut init = bench.command();
    Run::of(init.arg("-r").arg(bench.path("second")).arg("init").args(CHEAP)).expect(0);
    let text = format!(
        "version = 1\nhost_id = 'box'\n[repo.first]\nurl = 'DIR/repo'\n[repo.second]\nurl = 'DIR/second'\n\
         [class.c]\nrto = '1h'\n[[domain]]\nname = 'shop'\nclass = 'c'\npaths = ['DIR/src']\nto = ['first', 'second']\n\
         stream = [{{ name = 'rows', command = ['cat', 'DIR/rows'], restore = ['sh', '-c', 'cat > DIR/${{target}}'] }}]\n{drills}"
    );
    let folder = bench.path("");
    let folder = folder.to_str().expect("text").trim_end_matches('/').to_owned();
    bench.write("strongroom.toml", text.replace("DIR", &folder));
    bench.write("rows", "1\n2\n3\n");
    bench.source();
    bench.write("src/large", noise(1, 500_000));
    bench.run(["run"]).expect(0);
    bench
}

/// An application: it serves what was restored over HTTP. Without the interpreter the test cannot be made.
const FULL: &str = "
[[drill]]
name = 'full'
domains = ['shop']
tier = 'full'
from = 'rotate'
scratch = 'DIR/scratch'
[[drill.step]]
restore = 'shop'
target = 'loaded'
[[drill.step]]
start = ['python3', '-m', 'http.server', '${port}', '--bind', '127.0.0.1', '--directory', '${scratch}/shop']
ready = { http = 'http://127.0.0.1:${port}/rows', timeout = '30s' }
[[drill.step]]
run = ['sh', '-c', 'wc -l < DIR/loaded']
expect = '> 2'
";

fn drill(run: &Run) -> Value {
    run.lines().into_iter().find(|line| line["type"] == "drill").expect("a drill")
}

#[test]
fn an_application_is_started_from_restored_data_and_the_record_is_in_the_log() {
    let bench = planned(FULL);
    let run = bench.run(["drill", "--json"]).expect(0);
    let first = drill(&run);
    assert_eq!((&first["outcome"], &first["repository"]), (&"pass".into(), &"first".into()), "{first}");
    let phases: Vec<_> =
        first["phases"].as_array().expect("phases").iter().map(|one| &one["phase"]).collect();
    assert_eq!(phases, ["locate", "fetch", "verify", "load", "start", "ready", "check", "cleanup"]);
    assert!(first["seconds"].as_f64() > Some(0.0) && first["rto"] == 3600, "{first}");
    assert_eq!(run.last("summary")["drills_passed"], 1);
    assert!(!bench.path("scratch/full").exists());
    assert_eq!(fs::read_to_string(bench.path("loaded")).expect("loaded"), "1\n2\n3\n");
    let second = bench.run(["drill", "full"]).expect(0);
    assert!(second.stdout.contains("full (full from second): passed"), "{second:?}");
    let log = bench.run(["log"]).expect(0).stdout;
    assert!(log.contains("drill full (full): pass"), "{log}");
    let mut other = bench.command();
    let log = Run::of(other.arg("-r").arg(bench.path("second")).arg("log")).expect(0).stdout;
    assert!(log.contains("drill full (full): pass"), "{log}");
    let explained =
        bench.run(["forget", "--keep-last", "1", "--keep-drilled", "--explain", "-n"]).expect(0).stdout;
    assert!(
        explained.contains("keep-last 1 (snapshot 1); keep-drilled: the last one that a drill"),
        "{explained}"
    );
    let runbook = bench.run(["runbook"]).expect(0).stdout;
    assert!(runbook.contains("A drill on "), "{runbook}");
    let status = bench.run(["status", "--json"]).expect(0);
    assert_eq!(status.lines()[0]["drill"]["outcome"], "pass", "{status:?}");
}

/// It was in compliance alone, which nobody watches.
#[test]
fn a_drill_that_is_never_run_turns_the_status_red() {
    let bench = planned("[[drill]]\nname = 'd'\ndomains = ['shop']\ntier = 'sample'\n");
    let plan = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    let every = |every: &str| {
        bench.write("strongroom.toml", plan.replace("rto", &format!("drill_every = '{every}'\nrto")))
    };
    every("1s");
    std::thread::sleep(Duration::from_millis(3100));
    let status = bench.run(["status"]).expect(4).stdout;
    let said = "shop: a drill is overdue: none has passed, and the first snapshot was made 0m ago, and there is to be one every 1s";
    assert!(status.contains(said), "{status}");
    let line = bench.run(["status", "--nagios"]).expect(2).stdout;
    assert!(line.starts_with("STRONGROOM CRITICAL - shop critical: a drill is overdue: "), "{line}");
    every("1h");
    bench.run(["status"]).expect(0);
}

#[test]
fn a_drill_that_would_load_over_what_is_in_use_is_refused() {
    let bench = planned(FULL);
    let plan = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    bench.write("strongroom.toml", plan.replace("/${target}'", "/production'"));
    bench.write("production", "rows of today");
    let check = bench.run(["config", "check"]).expect(4);
    let reason = "`restore` of the stream rows does not name ${target}";
    assert!(check.stdout.contains(&format!("step 1 of the drill full: {reason}")), "{check:?}");
    let refused = bench.run(["drill", "--json"]).expect(5);
    let message = drill(&refused)["message"].to_string();
    assert!(message.contains(&format!("nothing was begun: step 1: {reason}")), "{message}");
    assert!(!bench.path("scratch/full").exists());
    // It keeps nobody from backing up, nor from getting back what a drill does not load.
    bench.run(["run"]).expect(0);
    bench.run(["status"]).expect(3);
    assert_eq!(fs::read(bench.path("production")).expect("there"), b"rows of today");
}

#[test]
fn a_mistyped_expectation_stops_its_drill_and_no_backup() {
    let bench = planned(FULL);
    let plan = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    assert!(plan.contains("expect = '"), "{plan}");
    let (before, rest) = plan.split_once("expect = '").expect("one");
    let (_, after) = rest.split_once('\'').expect("its end");
    bench.write("strongroom.toml", format!("{before}expect = '>= x'{after}"));
    let check = bench.run(["config", "check"]).expect(4);
    assert!(check.stdout.contains("of the drill full expects \">= x\", which is no comparison"), "{check:?}");
    let refused = bench.run(["drill", "--json"]).expect(5);
    let message = drill(&refused)["message"].to_string();
    assert!(message.contains("nothing was begun: step "), "{message}");
    bench.run(["run"]).expect(0);
    bench.run(["status"]).expect(3);
}

#[test]
fn a_snapshot_that_a_drill_restored_outlives_retention() {
    let bench = planned(FULL);
    let plan = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    let retain = "rto = '1h'\nretain = { last = 1, keep_last_drilled = true }";
    bench.write("strongroom.toml", plan.replace("rto = '1h'", retain));
    bench.run(["drill", "--from", "first"]).expect(0);
    let ids = |repository: &str| {
        let mut command = bench.command();
        let listed =
            Run::of(command.arg("-r").arg(bench.path(repository)).args(["snapshots", "--json"])).expect(0);
        let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
        listed.as_array().expect("a list").iter().map(|one| one["id"].to_string()).collect::<Vec<_>>()
    };
    let drilled = ["repo", "second"].map(|repository| ids(repository).remove(0));
    for number in 0..3 {
        bench.write("src/a.txt", format!("{number}"));
        bench.run(["run"]).expect(0);
    }
    for (repository, drilled) in ["repo", "second"].into_iter().zip(&drilled) {
        let left = ids(repository);
        assert_eq!((left.len(), &left[0]), (2, drilled), "{repository}");
    }
    bench.run(["drill"]).expect(0);
    bench.run(["run"]).expect(0);
    for (repository, drilled) in ["repo", "second"].into_iter().zip(&drilled) {
        assert!(!ids(repository).contains(drilled), "a newer one was restored: {repository}");
    }
}

#[test]
fn a_damaged_byte_or_pack_fails_a_drill_and_a_lost_repository_says_nothing() {
    let bench = planned(
        "[[drill]]\nname = 'data'\ndomains = ['shop']\ntier = 'full'\nscratch = 'DIR/scratch'\nstep = [{ restore = 'shop' }]\n\
         [[drill]]\nname = 'some'\ndomains = ['shop']\ntier = 'sample'\nscratch = 'DIR/scratch'\n\
         [[drill]]\nname = 'names'\ndomains = ['shop']\ntier = 'metadata'\nscratch = 'DIR/scratch'\n",
    );
    let all = bench.run(["drill"]).expect(0).stdout;
    for said in ["data (full from first): passed", "some (sample from first): passed", "3 passed"] {
        assert!(all.contains(said), "{all}");
    }
    for tier in ["data", "some"] {
        let tested = drill(&bench.run(["drill", tier, "--self-test", "--json"]).expect(4));
        let log = bench.run(["log"]).expect(0).stdout;
        assert!(log.contains(&format!("drill {tier} (")) && log.contains(", self-test): fail"), "{log}");
        let message = tested["message"].as_str().expect("a reason");
        assert!(message.contains("1 file of shop is not what the snapshot has"), "{tested}");
    }
    bench.run(["drill", "names", "--self-test"]).expect(5);
    fs::rename(bench.path("second"), bench.path("away")).expect("moved");
    let lost = bench.run(["drill", "data", "--from", "second"]).expect(5);
    assert!(lost.stderr.contains("COULD NOT BE VERIFIED: there is no repository"), "{lost:?}");
    let largest =
        bench.objects("packs").into_iter().max_by_key(|path| fs::metadata(path).expect("a pack").len());
    let largest = largest.expect("a pack");
    let mut bytes = fs::read(&largest).expect("a pack");
    bytes[2000] ^= 1;
    overwrite(&largest, &bytes);
    let failed = drill(&bench.run(["drill", "data", "--json"]).expect(4));
    assert!(failed["message"].as_str().is_some_and(|text| text.contains("cannot be restored")), "{failed}");
    assert!(!bench.path("scratch/data").exists());
    let compliance = |expires: &str| {
        let plan = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
        let plan = plan.split("[[exception]]").next().expect("the rest");
        let exception = format!(
            "[[exception]]\nid = 'EX-9'\ncontrol = 'drill'\ndomain = 'shop'\nreason = 'the disk is on its way'\n\
             approved_by = 'role: lead'\nexpires = {expires}\n"
        );
        bench.write("strongroom.toml", format!("{plan}{exception}"));
        bench.run(["compliance"])
    };
    let missed = bench.run(["compliance"]).expect(4).stdout;
    assert!(
        missed.contains("that it passes") && missed.contains("data from first failed 0m ago"),
        "{missed}"
    );
    assert!(compliance("2999-01-01").expect(0).stdout.contains("excused (EX-9)"));
    assert!(compliance("2001-01-01").expect(4).stdout.contains("exception EX-9 expired on 2001-01-01"));
    bench.run(["drill", "nothing"]).expect(2);
    bench.run(["drill", "data", "--from", "third"]).expect(2);
    // No schedule, so none is ever due.
    assert_eq!(bench.run(["drill", "--due"]).expect(0).stdout, "nothing is due\n");
}

#[test]
fn an_application_that_is_up_already_is_not_taken_for_the_one_that_is_rehearsed() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("an address").port();
    let answers = std::thread::spawn(move || {
        let (mut caller, _) = other.accept().expect("a caller");
        let _ = caller.read(&mut [0; 1000]).expect("a question");
        caller.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("answered");
    });
    let bench = planned(&FULL.replace("${port}", &port.to_string()));
    let record = drill(&bench.run(["drill", "--json"]).expect(5));
    answers.join().expect("somebody called");
    let message = record["message"].as_str().expect("a reason");
    assert!(message.contains("/rows answers already, with 200"), "{message}");
    assert!(!bench.path("scratch/full").exists());
}

#[test]
fn a_killed_drill_is_swept_and_reads_could_not_verify() {
    let bench = planned(
        "[[drill]]\nname = 'slow'\ndomains = ['shop']\ntier = 'full'\nscratch = 'DIR/scratch'\n\
         [[drill.step]]\nrestore = 'shop'\n[[drill.step]]\nrun = ['sh', '-c', 'touch DIR/begun; [ -e DIR/quick ] || sleep 600']\n",
    );
    let mut child = bench
        .command()
        .arg("drill")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was built");
    let began = Instant::now();
    while !bench.path("begun").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(bench.path("scratch/slow/shop/rows").exists());
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(bench.path("scratch/slow/shop/rows").exists(), "nobody could clean up");
    let status = bench.run(["status"]).expect(3).stdout;
    for said in
        ["the drill slow from first that began", "was killed, so it could not be verified", "scratch/slow"]
    {
        assert!(status.contains(said), "{status}");
    }
    bench.write("quick", "");
    bench.run(["drill"]).expect(0);
    assert!(!bench.path("scratch/slow").exists());
    let log = bench.run(["log"]).expect(0).stdout;
    assert!(log.contains("drill slow (full): unverified: it was killed"), "{log}");
    assert!(!bench.run(["status"]).expect(0).stdout.contains("killed"));
    // One that is asked to end cleans up by itself.
    fs::remove_file(bench.path("quick")).expect("removed");
    fs::remove_file(bench.path("begun")).expect("removed");
    let mut child =
        bench.command().arg("drill").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    while !bench.path("begun").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).expect("told");
    assert_eq!(child.wait().expect("ended").code(), Some(5));
    assert!(!bench.path("scratch/slow").exists());
}

/// A drill that needs nothing but this program.
const ROTATING: &str = "
[[drill]]
name = 'data'
domains = ['shop']
tier = 'full'
from = 'rotate'
schedule = 'yearly'
scratch = 'DIR/scratch'
step = [{ restore = 'shop', target = 'loaded' }]
";

/// Changes a byte of the largest pack.
fn rot(bench: &Bench) {
    let largest =
        bench.objects("packs").into_iter().max_by_key(|path| fs::metadata(path).expect("a pack").len());
    let largest = largest.expect("a pack");
    let mut bytes = fs::read(&largest).expect("a pack");
    bytes[2000] ^= 1;
    overwrite(&largest, &bytes);
}

#[test]
fn a_host_that_was_built_anew_knows_of_its_drills() {
    let bench = planned(ROTATING);
    let plan = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    bench.write("strongroom.toml", plan.replace("rto = '1h'", "rto = '1h'\ndrill_every = '30d'"));
    let missed = bench.run(["compliance"]).expect(4).stdout;
    assert!(missed.contains("never measured") && missed.contains("every 30d"), "{missed}");
    let first = drill(&bench.run(["drill", "--due", "--json"]).expect(0));
    assert_eq!(first["repository"], "first");
    let forget = || fs::remove_dir_all(bench.path("state")).expect("there");
    forget();
    assert_eq!(bench.run(["drill", "--due"]).expect(0).stdout, "nothing is due\n");
    let status = bench.run(["status", "--json"]).expect(0).lines().remove(0);
    assert_eq!(
        (&status["drill"]["outcome"], &status["drill"]["repository"]),
        (&"pass".into(), &"first".into())
    );
    assert_eq!(status["recovery_seconds"], first["seconds"]);
    bench.run(["compliance"]).expect(0);
    assert!(bench.run(["runbook"]).expect(0).stdout.contains("A drill on "));
    let looked = bench.run(["recover", "shop", "--plan", "--json"]);
    let measured = looked.lines().into_iter().find(|line| line["type"] == "recovery-plan").expect("a plan");
    assert_eq!(measured["measured"]["drill"], "data", "{measured}");
    bench.run(["report", "--html", "report.html"]).expect(0);
    let page = fs::read_to_string(bench.path("report.html")).expect("a page");
    assert!(page.contains("data (full)") && !page.contains("No restore was rehearsed"), "{page}");
    // The repositories take turns all the same.
    assert_eq!(drill(&bench.run(["drill", "--json"]).expect(0))["repository"], "second");
    forget();
    // Nor does one that cannot be asked take away what others say.
    fs::rename(bench.path("second"), bench.path("away")).expect("moved");
    let alone = bench.run(["compliance"]);
    assert!(alone.stdout.contains("s in the drill data"), "{alone:?}");
    let said =
        "warning: what the log of second says of drills and recoveries is not known: there is no repository";
    for asked in [alone, bench.run(["drill", "--due"]).expect(0), bench.run(["runbook"]).expect(0)] {
        assert!(asked.stderr.contains(said), "{asked:?}");
    }
}

#[test]
fn a_repository_that_cannot_be_restored_stays_red_whatever_another_one_says() {
    let bench = planned(ROTATING);
    rot(&bench);
    let failed = drill(&bench.run(["drill", "--json"]).expect(4));
    assert_eq!(failed["repository"], "first");
    let passed = drill(&bench.run(["drill", "--json"]).expect(0));
    assert_eq!(passed["repository"], "second");
    for forgotten in [false, true] {
        if forgotten {
            fs::remove_dir_all(bench.path("state")).expect("there");
        }
        let status = bench.run(["status"]).expect(4).stdout;
        assert!(status.contains("the drill data from first failed: shop cannot be restored"), "{status}");
        let missed = bench.run(["compliance"]).expect(4).stdout;
        assert!(missed.contains("data from first failed 0m ago"), "{missed}");
    }
    fs::rename(bench.path("second"), bench.path("away")).expect("moved");
    bench.run(["drill", "--from", "second"]).expect(5);
    fs::rename(bench.path("away"), bench.path("second")).expect("moved back");
    let status = bench.run(["status"]).expect(4).stdout;
    assert!(
        status.contains("the drill data from second could not be verified: there is no repository"),
        "{status}"
    );
    bench.run(["drill", "--from", "second"]).expect(0);
    assert!(!bench.run(["status"]).expect(4).stdout.contains("from second"));
}

#[test]
fn a_drill_that_is_late_is_excused_with_the_time() {
    let bench = planned(
        "[[drill]]\nname = 'slow'\ndomains = ['shop']\ntier = 'full'\nscratch = 'DIR/scratch'\n\
         step = [{ restore = 'shop', target = 'loaded' }, { run = ['sleep', '1.2'] }]\n",
    );
    let plan = fs::read_to_string(bench.path("strongroom.toml")).expect("text").replace("'1h'", "'1s'");
    bench.write("strongroom.toml", &plan);
    let never = bench.run(["compliance"]).expect(5).stdout;
    assert!(never.contains("rto") && never.contains("never measured"), "{never}");
    let late = drill(&bench.run(["drill", "--json"]).expect(4));
    assert!(late["message"].as_str().is_some_and(|text| text.contains("has to be done in 1 s")), "{late}");
    fs::remove_dir_all(bench.path("state")).expect("there");
    let standings = |code| {
        let lines = bench.run(["compliance", "--json"]).expect(code).lines();
        let of = |control: &str| {
            let found = lines.iter().find(|line| line["control"] == control).expect("a target");
            found["standing"].as_str().expect("text").to_owned()
        };
        [of("rto"), of("drill")]
    };
    assert_eq!(standings(4), ["violated", "violated"]);
    bench.run(["status"]).expect(4);
    bench.write(
        "strongroom.toml",
        format!(
            "{plan}[[exception]]\nid = 'EX-9'\ncontrol = 'rto'\ndomain = 'shop'\nreason = 'the disk is on its way'\n\
             approved_by = 'role: lead'\nexpires = 2999-01-01\n"
        ),
    );
    assert_eq!(standings(0), ["excused", "excused"]);
    bench.run(["status"]).expect(3);
}

#[test]
fn a_log_that_is_damaged_long_ago_leaves_open_what_it_says_of_drills() {
    let bench = planned(
        "[[drill]]\nname = 'names'\ndomains = ['shop']\ntier = 'metadata'\nscratch = 'DIR/scratch'\n",
    );
    // By then the repository is opened without the entries at the beginning.
    for _ in 0..32 {
        bench.run(["drill"]).expect(0);
    }
    assert!(!bench.objects("state").is_empty());
    bench.run(["status"]).expect(0);
    overwrite(&bench.objects("log")[4], b"");
    // This host remembers what it says, and reads what came since.
    bench.run(["status"]).expect(0);
    let mut other = bench.command();
    let status =
        Run::of(other.env("STRONGROOM_STATE_DIR", bench.path("other")).arg("status")).expect(5).stdout;
    let said = "shop in first: what its log says of drills and recoveries is not known: ";
    assert!(status.contains(said) && !status.contains("shop in second:"), "{status}");
}
