//! What a plan says, and what is told of that: `config check`, `config show`, schedules, runbooks, coverage.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::plan::{planned, write_plan};
use crate::support::{Bench, Run, assert_same, cannot, strongroom};

#[test]
fn mistakes_in_a_plan_are_told_with_their_place() {
    let bench = planned("[[domain]]\nname = 'a'\npaths = ['/a']\nshedule = 'daily'\n");
    let run = bench.run(["config", "check"]).expect(2);
    let place = bench.path("strongroom.toml");
    let expected = format!("{}:15: there is no key `shedule` here", place.display());
    assert_eq!(run.message(), expected);
    assert!(run.stderr.contains("hint: did you mean `schedule`?"), "{run:?}");
    let json = bench.run(["run", "--json"]).expect(2).last("error");
    assert_eq!((&json["code"], &json["exit_code"]), (&"plan".into(), &2.into()));

    write_plan(
        &bench,
        "[[domain]]\nname = 'a'\npaths = ['/a']\nafter = ['b']\n[[domain]]\nname = 'b'\npaths = ['/b']\nafter = ['a']\n",
    );
    let run = bench.run(["config", "check"]).expect(2);
    assert!(run.stdout.contains(":15: error: domains wait for each other: a after b after a"), "{run:?}");
    assert!(bench.run(["run"]).expect(2).message().contains("domains wait for each other"));
    write_plan(&bench, "[class.c]\ncopies = 3\n[[domain]]\nname = 'a'\nclass = 'c'\npaths = ['/a']\n");
    let run = bench.run(["config", "check", "--json"]).expect(4);
    assert_eq!(run.lines()[0]["code"], "too-few-copies");
    assert_eq!(run.last("summary")["num_violations"], 1);
    let unknown = bench.run(["run", "x"]).expect(2);
    assert!(
        unknown.message().contains("the plan has no domain \"x\"") && unknown.stderr.contains("it has: a")
    );

    let elsewhere = Bench::empty();
    let none = Run::of(strongroom().current_dir(elsewhere.path("")).args(["config", "check"]));
    if !Path::new("/etc/strongroom/strongroom.toml").exists() {
        assert!(none.expect(2).message().contains("there is no plan"));
    }
}

#[test]
fn what_is_in_force_is_shown_with_its_origin() {
    let bench = planned("[class.c]\nrpo = '24h'\n[[domain]]\nname = 'a'\nclass = 'c'\npaths = ['/a']\n");
    let place = bench.path("strongroom.toml");
    let text = bench.run(["config", "show", "--effective"]).expect(0).stdout;
    let inherited = format!("domain.a.objectives.rpo = \"24h\"  # class c, {}:13", place.display());
    assert!(text.lines().any(|line| line == inherited), "{inherited}\n{text}");
    assert!(text.lines().any(|line| line == "domain.a.objectives.copies = 1  # default"), "{text}");
    let given = bench.run(["config", "show", "--json"]).expect(0);
    assert!(given.lines().iter().all(|line| line["origin"] == "given" && line["line"].is_u64()), "{given:?}");
    let schema: Value =
        serde_json::from_str(&bench.run(["config", "schema"]).expect(0).stdout).expect("JSON");
    assert_eq!(schema["title"], "Strongroom plan");
}

#[test]
fn timers_are_written_that_systemd_takes() {
    let bench = planned("[[domain]]\nname = 'a'\npaths = ['/a']\n");
    let none = bench.run(["schedule", "print", "--cron"]).expect(2);
    assert!(none.message().contains("no domain and no drill of the plan has a schedule"), "{none:?}");
    write_plan(&bench, "[[domain]]\nname = 'a'\npaths = ['/a']\nschedule = 'Mon..Fri *-*-* 02:15'\n");
    let cron =
        bench.run(["schedule", "print", "--cron", "--program", "/usr/bin/strongroom"]).expect(0).stdout;
    assert!(cron.contains("\n15 2 * * 1,2,3,4,5 /usr/bin/strongroom run --due --quiet --config "), "{cron}");
    bench.run(["schedule", "print"]).expect(2);
    let state = format!(" --state-dir {}", bench.path("elsewhere").display());
    let line = bench.run(["schedule", "print", "--cron", "--state-dir", "elsewhere"]).expect(0).stdout;
    assert!(line.trim_end().ends_with(&state), "{line}");
    fs::create_dir(bench.path("units")).expect("a folder");
    bench.run(["schedule", "print", "--systemd", "--output", "units"]).expect(0);
    write_plan(
        &bench,
        "[class.c]\nverify = { every = '7d', read = '5%' }\n[[domain]]\nname = 'a'\nclass = 'c'\npaths = ['/a']\nschedule = 'daily'\n\
         [[drill]]\nname = 'd'\ndomains = ['a']\ntier = 'sample'\nschedule = 'Sun 04:00'\n",
    );
    bench.run(["schedule", "print", "--systemd", "--output", "units"]).expect(0);
    let units =
        ["run.service", "run.timer", "verify.service", "verify.timer", "drill.service", "drill.timer"]
            .map(|unit| bench.path("units").join(format!("strongroom-{unit}")));
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output();
    match verify {
        Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{output:?}"),
        Err(error) => cannot("run systemd-analyze", &error),
    }
    let json = bench.run(["schedule", "print", "--systemd", "--json"]).expect(0).lines();
    assert_eq!(json.len(), units.len());
    for (unit, path) in json.iter().zip(&units) {
        let text = fs::read_to_string(path).expect("written");
        let name = path.file_name().and_then(|name| name.to_str()).expect("text");
        assert_eq!(
            (&unit["type"], &unit["name"], &unit["text"]),
            (&"unit".into(), &name.into(), &text.into())
        );
        assert!(unit["path"].is_null(), "it was written nowhere: {unit}");
    }
    let text = bench.run(["schedule", "print", "--cron"]).expect(0).stdout;
    let json = bench.run(["schedule", "print", "--cron", "--json"]).expect(0).last("crontab");
    assert_eq!(json["text"].as_str().map(str::trim_end), Some(text.trim_end()));
}

/// A plan with everything that there is, as the specification of plans has it.
#[test]
fn a_plan_of_all_parts_is_checked_and_makes_a_runbook() {
    let bench = Bench::new();
    // The exception may not expire while this test lives.
    let text = include_str!("data/example.toml").replace("2027-01-31", "2999-01-31");
    bench.write("strongroom.toml", text);
    bench.write("conf.d/none.txt", "no part of it");
    let check = bench.run(["config", "check", "--json"]).expect(0);
    let found = check.lines();
    let codes: std::collections::BTreeSet<_> =
        found.iter().filter_map(|line| line["code"].as_str()).filter(|code| *code != "no-program").collect();
    let expected = [
        "idle-include",
        "no-key-copies",
        "no-schedule",
        "no-source",
        "unchecked-stream",
        "unknown-scheme",
        "unloaded-stream",
    ];
    assert!(
        codes.iter().all(|code| expected.contains(code)) && codes.contains("unknown-scheme"),
        "{codes:?}"
    );
    let shown = bench.run(["config", "show", "--effective"]).expect(0).stdout;
    assert!(shown.contains("domain.media.schedule"), "it comes after orders-db: {shown}");
    let runbook = bench.run(["runbook"]).expect(0).stdout;
    let mut rest = runbook.as_str();
    for part in [
        "# Recovery of shop-prod-1\n",
        "| offsite | `s3:https://s3.example.org/backup-shop` | eu-west | printed by `systemd-creds cat backup-key` |",
        "| 1 | orders-db | data-team |",
        "| 2 | media |",
        "| orders-db |\n",
        "| 3 | state |",
        "export STRONGROOM_CONFIG=",
        "## 1. orders-db",
        "strongroom recover orders-db --config ",
        "**1. Restore it**",
        "strongroom -r /srv/backup/shop --password-command 'systemd-creds cat backup-key' restore SNAPSHOT ",
        "pg_restore --exit-on-error -d service=TARGET < /var/tmp/recovery/orders-db/shop.dump\n",
        "**2. Stop** what uses it. The plan does not say how.",
        "**4. Start** it again. The plan does not say how.",
        "(app, migrations, server)",
        "## 2. media",
        "Only when these are back: orders-db.",
        "# /srv/shop/media is then in /var/tmp/recovery/media/srv/shop/media\n",
        "**3. Put it in its place**",
        "## 3. state",
        "# /var/lib/shop/sessions.db is then in ",
        "redis-cli --rdb -",
        "What the drill shop-full asks of orders-db, media.",
        "# has to print < 93600",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not in its place in\n{runbook}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!runbook.contains("${target}"), "{runbook}");
    let json = bench.run(["runbook", "--json"]).expect(0).last("runbook");
    assert_eq!(json["text"].as_str().map(str::trim_end), Some(runbook.trim_end()));
}

#[test]
fn a_password_that_is_nowhere_is_told_of_before_it_is_needed() {
    let bench = planned("[[domain]]\nname = 'files'\npaths = ['DIR/src']\n");
    bench.source();
    let codes = || {
        let found = bench.run(["config", "check", "--json"]).expect(0).lines();
        found.iter().filter_map(|line| line["code"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert!(!codes().contains(&"no-password-file".to_owned()), "{:?}", codes());
    fs::remove_file(bench.path("password")).expect("removed");
    assert!(codes().contains(&"no-password-file".to_owned()), "{:?}", codes());
}

/// The lines of code blocks of a page, but for comments.
fn commands(page: &str) -> Vec<&str> {
    let mut is_inside = false;
    let is_command = |line: &&str| {
        let is_fence = line.starts_with("```");
        is_inside ^= is_fence;
        is_inside && !is_fence && !line.starts_with('#')
    };
    page.lines().map(str::trim).filter(is_command).collect()
}

/// A stranger has a new host, one repository with its password, and the page.
#[test]
fn what_the_runbook_says_brings_everything_back_on_a_new_host() {
    let domains = "[[domain]]\nname = 'shop'\npaths = ['DIR/src']\nafter = ['base']\n\
                   [[domain]]\nname = 'base'\npaths = ['DIR/base']\n";
    let bench = planned(domains);
    bench.source();
    bench.write("base/settings", "color = blue");
    bench.run(["run"]).expect(0);
    let runbook = bench.run(["runbook"]).expect(0).stdout;
    let before = bench.path("before");
    fs::create_dir(&before).expect("made");
    for lost in ["src", "base", "strongroom.toml"] {
        fs::rename(bench.path(lost), before.join(lost)).expect("renamed");
    }
    for lost in ["state", "second"] {
        fs::remove_dir_all(bench.path(lost)).expect("removed");
    }
    fs::create_dir(bench.path("new")).expect("made");
    let all = commands(&runbook);
    // One of the repositories is enough, and `recover` can be used.
    let second = bench.path("second").display().to_string();
    let needed =
        |line: &&&str| !line.contains(&second) && !line.contains("SNAPSHOT") && !line.contains(" snapshots");
    let script = all.iter().filter(needed).copied().collect::<Vec<_>>().join("\n");
    assert_eq!(script.matches("strongroom recover ").count(), 4, "each is looked at and done: {script}");
    assert!(script.find("strongroom recover base") < script.find("strongroom recover shop"), "{script}");
    let binary = Path::new(env!("CARGO_BIN_EXE_strongroom")).parent().expect("a folder").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).current_dir(bench.path("new"));
    shell.envs(bench.command().get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env_remove("STRONGROOM_REPOSITORY").env("PATH", format!("{}:{path}", binary.display()));
    Run::of(&mut shell).expect(0);
    for lost in ["src", "base"] {
        assert_same(&before.join(lost), &bench.path(lost));
    }
    assert_eq!(
        fs::read(bench.path("strongroom.toml")).expect("the plan"),
        fs::read(before.join("strongroom.toml")).expect("the plan")
    );
}

#[test]
fn the_runbook_and_the_coverage_are_those_of_the_plan() {
    let bench = planned(
        "[[domain]]\nname = 'a'\npaths = ['DIR/src/sub']\nexclude = ['*.o']\ncontacts = ['role: on call']\n[inventory]\nroots = ['DIR/src']\n",
    );
    bench.source();
    let runbook = bench.run(["runbook"]).expect(0).stdout;
    assert!(
        runbook.starts_with("# Recovery of box\n") && runbook.contains("Call: role: on call."),
        "{runbook}"
    );
    // What it says is done as it stands, with the id that the status shows.
    bench.run(["run"]).expect(0);
    let status = bench.run(["status", "--json"]).expect(0);
    let id = status.lines()[0]["repositories"][0]["snapshot_id"].as_str().expect("an id").to_owned();
    let command = runbook.lines().find(|line| line.contains(" restore SNAPSHOT ")).expect("a command");
    let there = bench.path("recovery");
    let command =
        command.replace("SNAPSHOT", &id).replace("/var/tmp/recovery", there.to_str().expect("text"));
    let words = command.split(' ').skip(1);
    bench.run(words).expect(0);
    let back = there.join("a").join(bench.path("src/sub/b.txt").strip_prefix("/").expect("absolute"));
    assert_eq!(fs::read_to_string(back).expect("restored"), "beta".repeat(1000));
    let found = bench.run(["coverage"]).expect(4).stdout;
    let lines: Vec<_> =
        found.lines().map(|line| line.split_whitespace().next().unwrap_or_default()).collect();
    assert_eq!(lines, ["UNPROTECTED", "protected", "excluded"], "{found}");
    fs::remove_file(bench.path("src/a.txt")).expect("removed");
    let found = bench.run(["coverage", "--json"]).expect(0);
    assert_eq!(found.last("summary")["complete"], true);
    bench.write("src/new/z", "1");
    bench.run(["coverage"]).expect(4);
    let domain = "[[domain]]\nname = 'a'\npaths = ['DIR/src/sub']\nexclude = ['*.o']\n[inventory]\nroots = ['DIR/src']\n\
                  ignore = [{ path = 'DIR/src/new', reason = 'made anew' }]\n";
    write_plan(&bench, domain);
    let lines = bench.run(["coverage", "--json"]).expect(0).lines();
    assert!(
        lines.iter().any(|line| line["cover"] == "ignored" && line["reason"] == "made anew"),
        "{lines:?}"
    );
    fs::remove_dir_all(bench.path("src/new")).expect("removed");
    // What the program itself has put below a root is no data that somebody would miss.
    let domain = "[[domain]]\nname = 'a'\npaths = ['DIR/src']\n[inventory]\nroots = ['DIR/src', 'DIR/repo', 'DIR/state']\n";
    write_plan(&bench, domain);
    let lines = bench.run(["coverage", "--json"]).expect(0).lines();
    let own: Vec<_> = lines.iter().filter(|line| line["reason"].is_string()).collect();
    assert!(own.len() >= 2 && own.iter().all(|line| line["cover"] == "excluded"), "{lines:?}");
    let told = format!("excluded     {}: ", bench.path("repo").display());
    let text = bench.run(["coverage"]).expect(0).stdout;
    let line = text.lines().find(|line| line.starts_with(&told)).unwrap_or_else(|| panic!("{text}"));
    assert!(line.ends_with(" (repository of the plan: first)"), "{line}");
    write_plan(&bench, "[[domain]]\nname = 'a'\npaths = ['/a']\n");
    assert!(bench.run(["coverage"]).expect(2).message().contains("does not say where data may lie"));
}
