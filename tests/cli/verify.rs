//! `verify`: what is due, budgets, and how it is told.

use std::fs;

use serde_json::Value;

use crate::plan::{planned, write_plan};
use crate::support::{Bench, Run, overwrite};

pub const VERIFIED: &str = "
[class.c]
verify = { every = '7d', read = '100%' }
[[domain]]
name = 'files'
class = 'c'
to = ['first']
paths = ['DIR/src']
";

fn verifications(run: &Run) -> Vec<Value> {
    run.lines().into_iter().filter(|line| line["type"] == "verification").collect()
}

/// Changes a byte in the middle of a pack.
pub fn rot(bench: &Bench) {
    let pack = bench.objects("packs").pop().expect("a pack");
    let mut bytes = fs::read(&pack).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(&pack, &bytes);
}

#[test]
fn repositories_are_verified_as_the_plan_says() {
    let bench = planned(VERIFIED);
    bench.source();
    bench.run(["run"]).expect(0);
    let before = bench.run(["status"]).expect(0).stdout;
    assert!(
        before.contains("verify first: ok, 100% every 7d, last never; 2 of 2 packs were never read"),
        "{before}"
    );
    let json = bench.run(["verify", "--due", "--json"]).expect(0);
    let line = &verifications(&json)[0];
    let fields = ["repository", "verdict"].map(|key| line[key].as_str().expect("text"));
    assert_eq!((fields, &line["packs_read"]), (["first", "ok"], &2.into()));
    assert_eq!(json.last("summary")["repositories_ok"], 1);
    assert_eq!(bench.run(["verify", "--due"]).expect(0).stdout, "nothing is due\n");
    let status = bench.run(["status", "--json"]).expect(0);
    let line = &status.lines()[1];
    assert_eq!((&line["type"], &line["packs_never_read"]), (&"verification".into(), &0.into()));
    assert!(line["last_read"].is_string() && line["last_verdict"] == "ok", "{line}");

    rot(&bench);
    let damaged = bench.run(["verify"]).expect(4);
    assert!(damaged.stderr.contains("first: damaged, "), "{damaged:?}");
    let status = bench.run(["status"]).expect(4).stdout;
    assert!(status.contains("verify first: 1 pack was found damaged, and not intact since"), "{status}");
    let nagios = bench.run(["status", "--nagios"]).expect(2).stdout;
    assert!(nagios.starts_with("STRONGROOM CRITICAL - verify first critical: 1 pack was"), "{nagios}");
    // What is in doubt is due whatever its age.
    bench.run(["verify", "--due"]).expect(4);
    fs::rename(bench.repository(), bench.path("away")).expect("moved");
    let gone = bench.run(["verify", "--due"]).expect(5);
    assert!(
        gone.stderr.contains("first: unverified, 0 packs of 0 B read: there is no repository"),
        "{gone:?}"
    );
}

#[test]
fn a_budget_of_time_leaves_the_rest_for_the_next_time() {
    let bench = planned(VERIFIED);
    bench.source();
    bench.run(["run"]).expect(0);
    let none = bench.run(["verify", "--due", "--budget", "0s"]).expect(0);
    assert!(none.stderr.contains("first and what comes after it is left for the next time"), "{none:?}");
    assert_eq!(none.stdout, "", "something is due");
    let status = bench.run(["status"]).expect(0).stdout;
    assert!(status.contains("2 of 2 packs were never read"), "{status}");
    let all = bench.run(["verify", "--due", "--budget", "1h", "--json"]).expect(0);
    assert_eq!(verifications(&all)[0]["packs_read"], 2);
    assert_eq!(bench.run(["verify", "--due", "--budget", "1h"]).expect(0).stdout, "nothing is due\n");
    assert!(
        bench
            .run(["verify", "--budget", "soon"])
            .expect(2)
            .stderr
            .contains("a duration is a number with an optional unit")
    );
}

#[test]
fn what_nobody_demands_is_verified_only_when_it_is_said_how() {
    let bench = planned("[[domain]]\nname = 'files'\npaths = ['DIR/src']\n");
    bench.source();
    bench.run(["run"]).expect(0);
    assert!(bench.run(["verify"]).expect(2).message().contains("no class or domain of the plan demands"));
    assert!(bench.run(["verify", "first"]).expect(2).message().contains("that first is verified"));
    let unknown = bench.run(["verify", "frist"]).expect(2);
    assert!(unknown.stderr.contains("it has: first, second"), "{unknown:?}");
    bench.run(["verify", "--read", "0%"]).expect(2);
    let both = bench.run(["verify", "--read", "1%", "--json"]).expect(0);
    assert_eq!(both.last("summary")["repositories_ok"], 2);
    assert!(verifications(&both).iter().all(|line| line["packs_read"] == 1), "a pack at least: {both:?}");
    write_plan(&bench, VERIFIED);
    // A log that is gone is damage, and not only doubt.
    for entry in bench.objects("log") {
        overwrite(&entry, b"");
    }
    bench.run(["verify"]).expect(4);
}

#[test]
fn a_state_directory_that_takes_nothing_ends_no_verification() {
    let bench = planned(
        "[class.c]\nverify = { every = '7d', read = '100%' }\n[[domain]]\nname = 'files'\nclass = 'c'\npaths = ['DIR/src']\n",
    );
    bench.source();
    bench.run(["run"]).expect(0);
    let plans = fs::read_dir(bench.path("state/plans")).expect("a folder").next().expect("one").expect("one");
    // As on a disk that is full, also for root.
    fs::create_dir(plans.path().join("verifications.jsonl")).expect("made");
    let run = bench.run(["verify"]).expect(1);
    for repository in ["first", "second"] {
        assert!(run.stdout.contains(&format!("{repository}: ok, 2 packs")), "{run:?}");
        assert!(
            run.stderr.contains(&format!("warning: {repository}: how it ended cannot be remembered")),
            "{run:?}"
        );
    }
    assert!(run.message().starts_with("cannot write to the state directory"), "{run:?}");
    rot(&bench);
    assert!(bench.run(["verify"]).expect(4).stderr.contains("first: damaged"));
}

/// As the lines for cron have it, which sends what it gets to see: nothing where all is well, and else why it is not.
#[test]
fn what_is_not_well_is_told_also_where_it_is_to_be_quiet() {
    let bench = planned(&format!(
        "{VERIFIED}hooks = {{ after = [['sh', '-c', 'test ! -e DIR/moody']] }}\n[[drill]]\nname = 'd'\ndomains = ['files']\ntier = 'full'\n"
    ));
    bench.source();
    let quiet = |command: &str, code: i32, said: &str| {
        let run = bench.run([command, "--quiet"]).expect(code);
        assert!(run.stdout.is_empty() && run.stderr.contains(said), "{said}: {run:?}");
        assert_eq!(run.stderr.is_empty(), said.is_empty(), "{run:?}");
    };
    ["run", "verify", "drill"].iter().for_each(|command| quiet(command, 0, ""));
    bench.write("moody", "");
    quiet("run", 3, "warning: files: a hook afterwards: sh failed: exit code 1");
    for pack in bench.objects("packs") {
        let mut bytes = fs::read(&pack).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        overwrite(&pack, &bytes);
    }
    quiet("verify", 4, "first: damaged, ");
    quiet("drill", 4, "d (full from first): FAILED");
    fs::rename(bench.repository(), bench.path("away")).expect("moved");
    quiet("verify", 5, "first: unverified, 0 packs of 0 B read: there is no repository");
    quiet("drill", 5, "d (full from first): COULD NOT BE VERIFIED");
    quiet("run", 1, "files: failed: first: there is no repository");
}
