//! What comes after a backup by plan: `compliance`, `report`, exceptions and metrics.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::plan::{planned, write_plan};
use crate::support::{Bench, Run, cannot, noise};
use crate::verify::{VERIFIED, rot};

#[test]
fn with_json_nothing_is_on_standard_error() {
    let bench = planned(
        "[metrics]\ntextfile = 'DIR/none/out.prom'\n[class.c]\nverify = { every = '7d', read = '5%' }\n\
         [[domain]]\nname = 'files'\nclass = 'c'\nto = ['first']\npaths = ['DIR/src']\n\
         [[drill]]\nname = 'names'\ndomains = ['files']\ntier = 'metadata'\n",
    );
    bench.source();
    for args in [&["run"][..], &["verify"], &["drill"], &["recover", "files"]] {
        let run = bench.run([args, &["--json"]].concat()).expect(0);
        assert_eq!(run.stderr, "", "{args:?}");
        run.last("summary");
        let warnings: Vec<_> = run.lines().into_iter().filter(|line| line["type"] == "warning").collect();
        let is_of_metrics =
            |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("metrics"));
        assert!(warnings.iter().any(is_of_metrics), "{args:?}: {run:?}");
        assert!(warnings.iter().all(|line| line["code"] == "general"), "{args:?}: {run:?}");
    }
}

#[test]
fn targets_are_met_missed_or_excused() {
    let domain = "[[domain]]\nname = 'files'\nclass = 'c'\npaths = ['DIR/src']\n";
    let class = "[class.c]\nrpo = '24h'\ncopies = 2\nsites = 2\n";
    let bench = planned(&format!("{class}{domain}"));
    bench.source();
    let before = bench.run(["compliance"]).expect(4).stdout;
    assert!(
        before.contains("no complete snapshot")
            && before.ends_with("0 met, 0 excused, 0 unknown, 3 violated\n"),
        "{before}"
    );
    bench.run(["run"]).expect(0);
    let met = bench.run(["compliance", "--json"]).expect(0);
    let controls: Vec<_> =
        met.lines().iter().filter_map(|line| line["control"].as_str().map(str::to_owned)).collect();
    assert_eq!(
        (controls, &met.last("summary")["met"]),
        (["rpo", "copies", "sites"].map(str::to_owned).to_vec(), &3.into())
    );
    let exception = |expires: &str| {
        let drill = "[class.d]\ndrill_every = '30d'\n";
        let text = format!(
            "{class}{drill}{domain}[[exception]]\nid = 'EX-7'\ncontrol = 'drill'\ndomain = 'files'\nreason = 'no drills yet'\n\
             approved_by = 'role: lead'\nexpires = {expires}\n"
        );
        write_plan(&bench, &text.replace("class = 'c'", "class = 'd'"));
    };
    exception("2999-01-01");
    let excused = bench.run(["compliance"]).expect(0).stdout;
    assert!(excused.contains("excused (EX-7)"), "{excused}");
    exception("2001-01-01");
    let expired = bench.run(["compliance"]).expect(4).stdout;
    assert!(
        expired.contains("exception EX-7 expired on 2001-01-01: drill of files, approved by role: lead"),
        "{expired}"
    );
    assert!(expired.ends_with("1 met, 0 excused, 0 unknown, 2 violated\n"), "{expired}");
    fs::rename(bench.path("second"), bench.path("away")).expect("moved");
    write_plan(&bench, &format!("{class}{domain}"));
    let unknown = bench.run(["compliance"]).expect(5).stdout;
    assert!(unknown.ends_with("1 met, 0 excused, 2 unknown, 0 violated\n"), "{unknown}");
}

/// As where the second disk is not mounted, and a link leads to the first.
#[test]
fn one_repository_under_two_names_is_no_second_copy() {
    let bench = planned(
        "[class.c]\ncopies = 2\nsites = 2\n[[domain]]\nname = 'files'\nclass = 'c'\npaths = ['DIR/src']\n",
    );
    bench.source();
    fs::remove_dir_all(bench.path("second")).expect("removed");
    symlink(bench.repository(), bench.path("second")).expect("linked");
    let run = bench.run(["run"]).expect(1);
    assert!(
        run.stderr.contains("second: cannot be copied from first: ")
            && run.stderr.contains("are the same repository"),
        "{run:?}"
    );
    let mut command = bench.command();
    let listed = Run::of(command.arg("-r").arg(bench.repository()).args(["snapshots", "--json"])).expect(0);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed.as_array().expect("a list").len(), 1, "nothing is read once more for it");
    let missed = bench.run(["compliance"]).expect(4).stdout;
    assert_eq!(
        missed.matches("1 with a fresh snapshot; first and second are one repository").count(),
        2,
        "{missed}"
    );
    let status = bench.run(["status"]).expect(3).stdout;
    assert!(status.contains("files in second: it is the repository first under another name"), "{status}");
}

/// The ledger knows packs that are there, and nothing of one that is gone.
#[test]
fn damage_that_was_found_is_no_target_that_is_met() {
    let bench = planned(VERIFIED);
    bench.source();
    bench.write("src/large", noise(1, 500_000));
    bench.run(["run"]).expect(0);
    bench.run(["verify"]).expect(0);
    assert!(bench.run(["compliance"]).expect(0).stdout.contains("verify"));
    let len = |pack: &PathBuf| fs::metadata(pack).expect("a pack").len();
    let largest = bench.objects("packs").into_iter().max_by_key(len).expect("a pack");
    fs::remove_file(largest).expect("removed");
    bench.run(["verify"]).expect(4);
    let missed = bench.run(["compliance"]).expect(4).stdout;
    assert!(missed.contains("first: the last verification found damage"), "{missed}");
    bench.run(["verify", "--due"]).expect(4);
}

#[test]
fn a_snapshot_unlike_those_before_lets_nothing_be_forgotten() {
    let bench = planned(
        "[[domain]]\nname = 'files'\nto = ['first']\npaths = ['DIR/src']\nobjectives = { retain = { last = 3 } }\n[[notify]]\n\
         on = ['failure']\ncommand = ['sh', '-c', 'cat > DIR/told']\n",
    );
    for number in 0..40 {
        bench.write(&format!("src/{number}"), format!("{number} is a number; ").repeat(300));
    }
    let count = || {
        let mut command = bench.command();
        let listed =
            Run::of(command.arg("-r").arg(bench.repository()).args(["snapshots", "--json"])).expect(0);
        serde_json::from_str::<Value>(&listed.stdout).expect("JSON").as_array().expect("a list").len()
    };
    for _ in 0..4 {
        bench.run(["run"]).expect(0);
    }
    assert_eq!(count(), 3);
    // Every file is encrypted under its own name.
    for number in 0..40 {
        bench.write(&format!("src/{number}"), noise(number, 6000));
    }
    let run = bench.run(["run"]).expect(4);
    assert!(run.message().contains("nothing is forgotten until somebody has looked: files"), "{run:?}");
    assert!(run.stderr.contains("cannot be compressed"), "{run:?}");
    assert!(fs::read_to_string(bench.path("told")).expect("told").contains("cannot be compressed"));
    assert_eq!(count(), 4);
    let line = |run: &Run, kind: &str| {
        run.lines()
            .into_iter()
            .find(|line| line["type"] == kind)
            .unwrap_or_else(|| panic!("no {kind}: {run:?}"))
    };
    let frozen = bench.run(["run", "--json"]).expect(4);
    let summary = line(&frozen, "summary");
    assert_eq!((count(), &summary["anomalies"], &summary["anomalies_open"]), (5, &0.into(), &1.into()));
    // Another host, which remembers nothing of it, forgets none of those before it, by whichever command.
    let elsewhere = |args: &[&str]| {
        Run::of(bench.command().env("STRONGROOM_STATE_DIR", bench.path("elsewhere")).args(args))
    };
    elsewhere(&["forget", "--keep-last", "2", "--group-by", "host"]).expect(0);
    assert_eq!(count(), 5, "three before it are held, and two are kept");
    assert!(elsewhere(&["status"]).expect(3).stdout.contains("strongroom run --acknowledge files"));
    let idle = elsewhere(&["run", "--due"]).expect(4);
    assert!(idle.stderr.contains("cannot be compressed"), "{idle:?}");
    let listed = bench.run(["snapshots", "--json"]).expect(0);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let held = listed.as_array().expect("a list").iter().filter_map(|one| one["hold"].as_str());
    assert_eq!(held.filter(|hold| hold.starts_with("anomaly of files of box at ")).count(), 3, "{listed}");
    // Nothing is due, and all is not well.
    let idle = bench.run(["run", "--due", "--quiet"]).expect(4);
    let advice = "files: nothing is forgotten until `strongroom run --acknowledge files`: an earlier snapshot was unlike";
    assert!(idle.stdout.is_empty() && idle.stderr.contains(advice), "{idle:?}");
    let idle = bench.run(["run", "--due", "--json"]).expect(4);
    let (anomaly, error) = (line(&idle, "anomaly"), idle.last("error"));
    assert_eq!((&anomaly["domain"], &error["code"]), (&"files".into(), &"anomaly".into()));
    assert!(anomaly["reasons"].to_string().contains("cannot be compressed") && anomaly["since"].is_string());
    assert_eq!(bench.run(["run", "--due"]).expect(4).stdout, "nothing is due\n");
    let dry = bench.run(["run", "--due", "--dry-run"]).expect(4);
    assert!(dry.stdout == "nothing is due\n" && dry.stderr.contains(advice), "{dry:?}");
    let dry = bench.run(["run", "--dry-run", "--json"]).expect(4);
    assert_eq!(
        (&line(&dry, "summary")["anomalies_open"], &dry.last("error")["code"]),
        (&1.into(), &"anomaly".into())
    );
    assert!(
        bench
            .run(["status"])
            .expect(3)
            .stdout
            .contains("nothing is forgotten until `strongroom run --acknowledge files`")
    );
    bench.run(["run", "--acknowledge"]).expect(2);
    bench.run(["run", "--acknowledge", "fields"]).expect(2);
    let done = bench.run(["run", "--acknowledge", "files", "--json"]).expect(0);
    assert_eq!(done.last("acknowledged")["anomalies"].as_array().expect("a list").len(), 1);
    let listed = bench.run(["snapshots", "--json"]).expect(0).stdout;
    assert!(!listed.contains("anomaly of files"), "they are released at once: {listed}");
    assert_eq!(bench.run(["run", "--due", "--json"]).expect(0).last("summary")["anomalies_open"], 0);
    bench.run(["run"]).expect(0);
    assert_eq!(count(), 3);
    let nothing = bench.run(["run", "--acknowledge", "files"]).expect(0);
    assert_eq!(nothing.stdout, "files: there was nothing to acknowledge\n");
    // What cannot be read may be one.
    let plans = fs::read_dir(bench.path("state/plans")).expect("a folder").next().expect("one").expect("one");
    fs::write(plans.path().join("files.guard"), "{").expect("written");
    let unreadable = bench.run(["run", "--due"]).expect(4);
    assert!(unreadable.stderr.contains("that cannot be read: EOF while parsing"), "{unreadable:?}");
    let done = bench.run(["run", "--acknowledge", "files", "--json"]).expect(0).last("acknowledged");
    assert!(done["lost"].as_str().expect("text").contains("is lost: why nothing was forgotten"), "{done}");
    bench.run(["run", "--due"]).expect(0);
    elsewhere(&["run", "--due"]).expect(0);
}

#[test]
fn the_report_is_one_page_in_which_names_are_text() {
    let bench = planned(
        "[class.c]\nrpo = '24h'\nverify = { every = '7d', read = '100%' }\n[[domain]]\nname = 'files'\nclass = 'c'\npaths = ['DIR/src']\n\
         [[exception]]\nid = '<b>EX</b>'\ncontrol = 'copies'\ndomain = 'files'\nreason = '\"><script>alert(1)</script>'\n\
         approved_by = 'a'\nexpires = 2999-01-01\n",
    );
    bench.source();
    bench.run(["run"]).expect(0);
    bench.run(["verify"]).expect(0);
    let written = bench.run(["report", "--html", "report.html", "--json"]).expect(0).last("summary");
    assert_eq!((&written["health"], &written["violated"]), (&"ok".into(), &0.into()));
    let page = fs::read_to_string(bench.path("report.html")).expect("a page");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</body></html>\n"));
    assert!(
        !page.contains("<script") && page.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{page}"
    );
    for said in [
        "Backups of box",
        "&lt;b&gt;EX&lt;/b&gt;",
        "0 of 2",
        "all signed and in one chain",
        "class=\"met\"",
        "<polyline",
    ] {
        assert!(page.contains(said), "{said}\n{page}");
    }
    if let Some(dom) = shown(&bench, "--dump-dom") {
        let count = |tag: &str| dom.matches(tag).count();
        assert_eq!((count("<script"), count("<b>"), count("<h2>")), (0, 0, 10), "{dom}");
        assert!(count("<table>") >= 6 && dom.contains("alert(1)"), "{dom}");
        shown(&bench, &format!("--screenshot={}", bench.path("page.png").display()));
        let picture = fs::read(bench.path("page.png")).expect("a picture");
        let size = [16, 20].map(|at| u32::from_be_bytes(picture[at..at + 4].try_into().expect("four bytes")));
        assert!(picture.starts_with(b"\x89PNG\r\n") && size == WINDOW, "{size:?}");
        // Plain white compresses to a fraction of it.
        assert!(picture.len() > 40_000, "the page is empty: {} bytes", picture.len());
    }
    // It takes the place of the one before, also where things are bad.
    fs::rename(bench.path("second"), bench.path("away")).expect("moved");
    bench.run(["report", "--html", "report.html"]).expect(0);
    let page = fs::read_to_string(bench.path("report.html")).expect("a page");
    assert!(page.contains("there is no repository at"), "{page}");
    bench.run(["report"]).expect(2);
    assert!(
        bench.run(["report", "--html", "no/such/report.html"]).expect(1).message().contains("cannot write")
    );
}

/// Width and height of the window that a page is shown in.
const WINDOW: [u32; 2] = [1100, 1800];

/// What Chromium says of the report, in a window of its own; none where there is no Chromium.
fn shown(bench: &Bench, how: &str) -> Option<String> {
    let output = Command::new("timeout")
        .args(["120", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", how])
        .arg(format!("--window-size={},{}", WINDOW[0], WINDOW[1]))
        .arg(format!("--user-data-dir={}", bench.path("browser").display()))
        .arg(format!("file://{}", bench.path("report.html").display()))
        .output()
        .expect("timeout is there");
    match output.status.code() {
        Some(127) => cannot("show the page in Chromium", &"it is not installed"),
        code => assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn exceptions_are_on_record_in_the_logs() {
    let domain = "[[domain]]\nname = 'files'\npaths = ['DIR/src']\n";
    let bench = planned(domain);
    bench.source();
    let notes = |repository: &str| {
        let mut command = bench.command();
        let lines =
            Run::of(command.arg("-r").arg(bench.path(repository)).args(["log", "--json"])).expect(0).lines();
        let changes = lines.iter().flat_map(|line| line["changes"].as_array().expect("changes").clone());
        changes.filter(|change| change["kind"] == "exceptions").collect::<Vec<_>>()
    };
    bench.run(["run"]).expect(0);
    assert_eq!(notes("repo"), [] as [Value; 0], "there are none");
    let with = |expires: &str| {
        let exception = format!(
            "[[exception]]\nid = 'EX-7'\ncontrol = 'copies'\ndomain = 'files'\nreason = 'ticket 114'\n\
             approved_by = 'role: lead'\nexpires = {expires}\n"
        );
        write_plan(&bench, &format!("{domain}{exception}"));
        bench.run(["run"]).expect(0);
    };
    with("2999-01-01");
    with("2999-01-01");
    // A host that was built anew finds in the log what was noted.
    fs::remove_dir_all(bench.path("state")).expect("there");
    with("2999-01-01");
    for repository in ["repo", "second"] {
        let [note] = &notes(repository)[..] else { panic!("one: {:?}", notes(repository)) };
        let expected = serde_json::json!([{
            "id": "EX-7", "control": "copies", "domain": "files", "reason": "ticket 114",
            "approved_by": "role: lead", "expires": "2999-01-01",
        }]);
        assert_eq!((&note["host"], &note["exceptions"]), (&"box".into(), &expected));
    }
    with("2999-02-01");
    write_plan(&bench, domain);
    bench.run(["run"]).expect(0);
    bench.run(["run"]).expect(0);
    assert_eq!(notes("second").len(), 3, "once for each change");
    let log = bench.run(["log"]).expect(0).stdout;
    let told =
        "exceptions of box: EX-7: copies of files until 2999-02-01, approved by role: lead: ticket 114";
    assert!(log.contains(told) && log.contains("no exceptions of box any more"), "{log}");
}

#[test]
fn metrics_are_written_after_everything_that_changes_them() {
    let bench = planned(
        "[metrics]\ntextfile = 'DIR/metrics.prom'\n[class.c]\nrto = '1h'\ncopies = 2\nverify = { every = '7d', read = '100%' }\n\
         [[domain]]\nname = 'files'\nclass = 'c'\npaths = ['DIR/src']\n\
         [[drill]]\nname = 'all'\ndomains = ['files']\ntier = 'full'\nscratch = 'DIR/scratch'\n",
    );
    bench.source();
    let after = |args: &[&str], code| {
        bench.run(args.iter().copied()).expect(code);
        let file = bench.path("metrics.prom");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        fs::remove_file(file).expect("removed");
        text
    };
    let has = |text: &str, line: &str| assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    let run = after(&["run"], 0);
    has(&run, "strongroom_target{domain=\"files\",target=\"copies\"} 0");
    has(&run, "strongroom_target{domain=\"files\",target=\"rto\"} 3");
    has(&run, "strongroom_rto_seconds{domain=\"files\"} 3600");
    assert!(
        !run.contains("strongroom_verify_timestamp_seconds{")
            && !run.contains("strongroom_recovery_seconds{"),
        "{run}"
    );
    assert!(after(&["verify"], 0).contains("strongroom_verify_timestamp_seconds{repository=\"first\"} "));
    let drilled = after(&["drill"], 0);
    has(&drilled, "strongroom_drill_outcome{drill=\"all\",repository=\"first\"} 0");
    has(&drilled, "strongroom_target{domain=\"files\",target=\"rto\"} 0");
    for gauge in ["strongroom_drill_timestamp_seconds", "strongroom_drill_seconds"] {
        assert!(drilled.contains(&format!("{gauge}{{drill=\"all\",repository=\"first\"}} ")), "{drilled}");
    }
    let seconds = |text: &str| {
        let line =
            text.lines().find(|line| line.starts_with("strongroom_recovery_seconds{domain=\"files\"} "));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let by_drill = seconds(&drilled);
    assert_ne!(seconds(&after(&["recover", "files"], 0)), by_drill, "what was measured last");
    rot(&bench);
    has(&after(&["drill"], 4), "strongroom_drill_outcome{drill=\"all\",repository=\"first\"} 2");
    assert!(bench.run(["status", "--openmetrics"]).expect(4).stdout.contains("strongroom_drill_outcome{"));
}
