//! Plans as people write them, and as they get them wrong.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::date;

use super::effective::{Origin, effective};
use super::lint::{Finding, Host, Severity, lint};
use super::load::tests_support::plan;
use super::types::Consistency;
use super::{Mistake, Plan, PlanFiles, SystemFiles, load, schema};

/// Files in memory.
struct Memory(BTreeMap<PathBuf, String>);

impl PlanFiles for Memory {
    fn read(&self, path: &Path, _len_max: u64) -> io::Result<Vec<u8>> {
        self.0.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let here = self.0.keys().filter(|path| path.parent() == Some(directory));
        Ok(here.filter_map(|path| path.file_name().map(OsString::from)).collect())
    }

    fn canonical(&self, directory: &Path) -> io::Result<PathBuf> {
        Ok(directory.to_owned())
    }
}

fn loaded(files: &[(&str, &str)]) -> Result<Plan, Mistake> {
    let memory = Memory(files.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect());
    load(Path::new(files[0].0), &memory)
}

fn mistake(text: &str) -> (String, String) {
    let mistake = loaded(&[("p.toml", text)]).expect_err(text);
    (mistake.to_string(), mistake.hint.unwrap_or_default())
}

fn findings(more: &str) -> Vec<Finding> {
    lint(&plan(more), date(2026, 11, 28), &Host::COMPLETE)
}

/// Codes of what is found, but for warnings.
fn codes(more: &str) -> Vec<&'static str> {
    findings(more)
        .iter()
        .filter(|found| found.severity != Severity::Warning)
        .map(|found| found.code)
        .collect()
}

fn example() -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example-plan/strongroom.toml");
    load(&path, &SystemFiles).unwrap_or_else(|mistake| panic!("{mistake}"))
}

#[test]
fn the_example_plan_is_right() {
    let plan = example();
    let found = lint(&plan, date(2026, 11, 28), &Host::COMPLETE);
    assert_eq!(found, [], "{found:#?}");
    assert_eq!((plan.domains.len(), plan.drills.len(), plan.sources.len()), (3, 1, 2));
    assert_eq!(plan.domains[0].consistency(), Consistency::Application);
    assert_eq!(plan.domains[1].consistency(), Consistency::Crash);
    assert_eq!(plan.domains[2].consistency(), Consistency::Fuzzy);
    // Without the programs that it names there are warnings, and after its exception has expired more than that.
    let bare = Host { has_program: &|_| false, has_path: &|path| path != Path::new("/srv/shop/media") };
    let found = lint(&plan, date(2027, 2, 1), &bare);
    assert!(
        found.iter().any(|found| found.code == "exception-expired" && found.severity == Severity::Violation)
    );
    assert!(found.iter().any(|found| found.code == "no-program" && found.message.contains("pg_dump")));
    let missing: Vec<_> = found.iter().filter(|found| found.code == "no-source").collect();
    let [missing] = missing[..] else { panic!("one path is missing: {missing:?}") };
    assert_eq!(
        (missing.severity, missing.message.as_str()),
        (Severity::Warning, "the domain media has the path \"/srv/shop/media\", where nothing is")
    );
    assert!(missing.place.is_some());
}

#[test]
fn unknown_keys_are_refused_with_line_and_suggestion() {
    let (message, hint) = mistake("version = 1\n\n[[domain]]\nname = 'a'\nshedule = 'daily'\n");
    assert_eq!(
        (message.as_str(), hint.as_str()),
        ("p.toml:5: there is no key `shedule` here", "did you mean `schedule`?")
    );
    let (message, hint) = mistake("version = 1\n[class.x]\nretain = { dayly = 3 }\n");
    assert_eq!(
        (message.as_str(), hint.as_str()),
        ("p.toml:3: there is no key `dayly` here", "did you mean `daily`?")
    );
    let (message, hint) = mistake("version = 1\nzzzzzzzzz = 1\n");
    assert!(
        message.contains("p.toml:2") && hint.contains("known here: version, host_id"),
        "{message} {hint}"
    );
}

#[test]
fn every_mistake_names_its_line() {
    for (text, expected) in [
        ("version = 2", "p.toml:1: this is version 2"),
        ("[repo.a]\nurl = 'x'", "p.toml: the plan does not say its version"),
        ("version = 1\n[repo.A]\nurl = 'x'", "p.toml:2: \"A\" is no name"),
        ("version = 1\n[class.a]\nrpo = '24 hours'", "p.toml:3: \"24 hours\" is no length of time"),
        ("version = 1\n[class.a]\nrpo = 24", "p.toml:3: invalid type: integer `24`, expected a string"),
        ("version = 1\n[[domain]]\nname = 'a'\nschedule = 'noon'", "p.toml:4: \"noon\" is no schedule"),
        ("version = 1\n[[domain]]\nname = 'a'\nfacts = { a = [] }", "p.toml:4: a command is a list"),
        ("version = 1\n[[domain]]\nname = 'a'\nfacts = { a = 'git' }", "p.toml:4: invalid type: string"),
        (
            "version = 1\n[[domain]]\nname = 'a'\n[[domain]]\nname = 'a'",
            "p.toml:4: `domain.a` is given twice: it stands at p.toml:2",
        ),
        (
            "version = 1\n[repo.a]\nurl = 'x'\npassword = 'hunter2'",
            "p.toml:4: a secret must not stand in a plan (`password`)",
        ),
        (
            "version = 1\n[class.a]\non_change = 'again'",
            "p.toml:3: unknown variant `again`, expected one of `warn`, `fail`, `retry`, `prefix`",
        ),
        ("version = 1\n[class.a]\nrpo = '1h'\nrpo = '2h'", "p.toml:4: duplicate key"),
        ("version = 1\n[[exception]]\nid = 'x'", "p.toml:2: missing field `control`"),
        (
            "version = 1\n[[notify]]\non = ['failure']\nwebhook_env = 'https://example.org/hunter2'",
            "p.toml:4: this is no name of an environment variable",
        ),
        (
            "version = 1\n[[notify]]\non = ['failure']\nheartbeat_env = '4hunter2'",
            "p.toml:4: this is no name of an environment variable",
        ),
        (
            "version = 1\n[repo.a]\nurl = '/a'\npassword_command = ['/bin/echo', '-n', 'hunter2']",
            "p.toml:4: a secret must not stand in a plan: this command holds the password",
        ),
        ("version = 1\nhost_id = \"a\\nb\"", "p.toml:2: host_id"),
        ("version = 1\n[", "p.toml:2: "),
    ] {
        let (message, _) = mistake(text);
        assert!(message.starts_with(expected), "{text}\n{message}\n{expected}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let mistake = load(Path::new("/no/such/plan.toml"), &SystemFiles).expect_err("no file");
    assert!(mistake.to_string().starts_with("/no/such/plan.toml: cannot read the plan"), "{mistake}");
}

#[test]
fn included_files_are_joined_in_the_order_of_their_names() {
    let main = "version = 1\ninclude = ['conf.d/*.toml', 'more.toml']\n[repo.a]\nurl = '/a'\n";
    let domain = |name: &str| format!("[[domain]]\nname = '{name}'\npaths = ['/{name}']\n");
    let (b, c, d) = (domain("b"), domain("c"), domain("d"));
    let files = [
        ("/etc/p.toml", main),
        ("/etc/conf.d/20.toml", &c),
        ("/etc/conf.d/10.toml", &b),
        ("/etc/conf.d/.swp.toml", "not read"),
        ("/etc/conf.d/note.txt", "not read"),
        ("/etc/more.toml", &d),
    ];
    let plan = loaded(&files).expect("a plan");
    let names: Vec<_> = plan.domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d"]);
    assert_eq!(plan.places["domain.c.paths"].to_string(), "/etc/conf.d/20.toml:3");
    assert_ne!(plan.hash(), loaded(&files[..1]).map(|plan| plan.hash()).unwrap_or_default());

    for (included, expected) in [
        ("host_id = 'x'", "/etc/more.toml:1: `host_id` may stand in the main file only"),
        ("# a\ninclude = ['x']", "/etc/more.toml:2: `include` may stand in the main file only"),
        ("version = 2", "/etc/more.toml:1: `version`"),
        ("[repo.a]\nurl = '/b'", "/etc/more.toml:1: `repo.a` is given twice: it stands at /etc/p.toml:3"),
        ("[[domain]]\nname = 'x'\npath = []", "/etc/more.toml:3: there is no key `path`"),
    ] {
        let main = "version = 1\ninclude = ['more.toml']\n[repo.a]\nurl = '/a'\n";
        let mistake = loaded(&[("/etc/p.toml", main), ("/etc/more.toml", included)]).expect_err(included);
        assert!(mistake.to_string().starts_with(expected), "{mistake}\n{expected}");
    }
    let missing = loaded(&[("/etc/p.toml", "version = 1\ninclude = ['none.toml']")]).expect_err("missing");
    assert!(missing.to_string().starts_with("/etc/none.toml: cannot read"), "{missing}");
    let wild = loaded(&[("/etc/p.toml", "version = 1\ninclude = ['*/x.toml']")]).expect_err("wild");
    assert!(wild.to_string().starts_with("/etc/p.toml:2: the pattern"), "{wild}");
}

#[test]
fn every_value_in_force_has_its_origin() {
    let plan = plan(
        "[class.c]\nrpo = '1d'\nretain = { daily = 3 }\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n\
         objectives = { retain = { weekly = 1 } }\n",
    );
    let entries = effective(&plan, "box");
    let find = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key);
        entry.map(|entry| format!("{} # {}", entry.value, entry.origin))
    };
    assert_eq!(find("domain.x.objectives.rpo").as_deref(), Some("\"1d\" # class c, p.toml:5"));
    assert_eq!(find("domain.x.objectives.copies").as_deref(), Some("1 # default"));
    assert_eq!(find("domain.x.objectives.retain.weekly").as_deref(), Some("1 # p.toml:11"));
    assert_eq!(find("domain.x.objectives.retain.daily"), None, "a target is taken as a whole");
    assert_eq!(find("domain.x.to").as_deref(), Some("[\"a\"] # default"));
    assert_eq!(find("domain.x.paths").as_deref(), Some("[\"/x\"] # p.toml:10"));
    let defaults = entries.iter().filter(|entry| entry.origin == Origin::Default).count();
    assert_eq!(defaults, 10);
    assert_eq!(find("host_id").as_deref(), Some("\"box\" # default"));
    assert_eq!(find("domain.x.consistency").as_deref(), Some("\"fuzzy\" # default"));
    let objectives = plan.objectives(&plan.domains[0]);
    let retain = objectives.retain.expect("given");
    assert_eq!((retain.weekly, retain.daily), (Some(1), None));
}

#[test]
fn what_holds_for_drills_and_recoveries_by_default_is_shown() {
    let text = "[repo.b]\nurl = '/b'\n[[domain]]\nname = 'x'\npaths = ['/x']\nto = ['b', 'a']\nrecover = { ready = { command = ['r'] } }\n\
                stream = [{ name = 's', command = ['c'], restore = ['r', '${target}'] }]\n\
                [[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\nsnapshot = 'random'\n\
                step = [{ run = ['x'] }, { start = ['x'], ready = { command = ['r'] } }, { run = ['x'], timeout = '1m' }]\n";
    let entries = effective(&plan(text), "box");
    let by_default = entries.iter().filter(|entry| entry.origin == Origin::Default);
    let by_default: Vec<_> = by_default.map(|entry| format!("{} = {}", entry.key, entry.value)).collect();
    for expected in [
        "drill.d.from = \"b\"",
        "drill.d.scratch = \"scratch in the state directory\"",
        "drill.d.step.1.timeout = \"6h\"",
        "drill.d.step.2.timeout = \"24h\"",
        "drill.d.step.2.ready.timeout = \"60s\"",
        "domain.x.stream.s.restore_timeout = \"none; 6h in a drill\"",
        "domain.x.recover.ready.timeout = \"60s\"",
        "domain.x.recover.scratch = \"the state directory\"",
        "domain.x.recover.excluded = \"carry\"",
    ] {
        assert!(by_default.iter().any(|found| found == expected), "{expected}: {by_default:#?}");
    }
    assert!(!by_default.iter().any(|found| found.starts_with("drill.d.step.3.timeout")), "{by_default:#?}");
    let given = entries.iter().find(|entry| entry.key == "drill.d.snapshot").expect("given");
    assert_eq!((given.value.as_str(), given.origin == Origin::Default), ("\"random\"", false));
}

#[test]
fn what_cannot_be_is_an_error() {
    for (more, expected) in [
        ("", "no-domain"),
        ("[[domain]]\nname = 'x'", "empty-domain"),
        ("[[domain]]\nname = 'x'\npaths = ['srv']", "relative-path"),
        ("[[domain]]\nname = 'x'\npaths = ['/srv/../etc']", "relative-path"),
        ("[[domain]]\nname = 'x'\npaths = ['/x']\nexclude = ['[']", "bad-pattern"),
        ("[[domain]]\nname = 'x'\npaths = ['/x']\nclass = 'none'", "unknown-name"),
        ("[[domain]]\nname = 'x'\npaths = ['/x']\nto = ['b']", "unknown-name"),
        ("[[domain]]\nname = 'x'\npaths = ['/x']\nto = []", "goes-nowhere"),
        ("[[domain]]\nname = 'x'\npaths = ['/x']\nafter = ['y']", "unknown-name"),
        ("[[domain]]\nname = 'x'\npaths = ['/x']\nafter = ['x']", "cycle"),
        ("[[domain]]\nname = 'x'\nstream = [{ name = 'a/b', command = ['c'] }]", "bad-stream-name"),
        (
            "[[domain]]\nname = 'x'\npaths = ['/s/t']\nstream = [{ name = 's', command = ['c'] }]",
            "name-taken",
        ),
        ("[[domain]]\nname = 'x'\npaths = ['/']\nstream = [{ name = 's', command = ['c'] }]", "name-taken"),
        (
            "[[domain]]\nname = 'x'\npaths = ['/s']\nexclude = ['/s/b']\nsqlite = ['/s/b/c/a.db']",
            "sqlite-in-path",
        ),
        (
            "[[domain]]\nname = 'x'\npaths = ['/s']\nsnapshot = { begin = ['b'], end = ['e'], root = '/t' }",
            "snapshot-root",
        ),
        ("[[domain]]\nname = 'x'\npaths = ['/s']\n[[notify]]\non = ['failure']", "bad-notify"),
        ("[[domain]]\nname = 'x'\npaths = ['/s']\n[repo.b]\nurl = 'rel'", "relative-path"),
        (
            "[[domain]]\nname = 'x'\npaths = ['/s']\n[repo.b]\nurl = '/b'\npassword_file = 'key'",
            "relative-path",
        ),
        ("[[domain]]\nname = 'x'\npaths = ['/s']\n[metrics]\ntextfile = 'out.prom'", "relative-path"),
    ] {
        assert_eq!(codes(more), [expected], "{more}");
        assert_eq!(findings(more)[0].severity, Severity::Error, "{more}");
    }
    let inside = "[[domain]]\nname = 'x'\npaths = ['/s']\nexclude = ['*.db']\nsqlite = ['/s/a.db']";
    assert_eq!(codes(inside), [] as [&str; 0], "it is taken from there");
    let facts = |count: usize| {
        let facts: String = (0..count).map(|number| format!("f{number} = ['x']\n")).collect();
        codes(&format!("[[domain]]\nname = 'x'\npaths = ['/x']\n[domain.facts]\n{facts}"))
    };
    assert_eq!((facts(64), facts(65)), (vec![], vec!["too-many-facts"]), "one would be lost");
    let hint =
        findings("[class.critical]\n[[domain]]\nname = 'x'\npaths = ['/x']\nclass = 'critcal'").remove(0);
    assert_eq!(hint.hint.as_deref(), Some("did you mean \"critical\"?"));
    assert_eq!(hint.place.map(|place| place.line), Some(8));
}

/// It keeps nobody from backing up.
#[test]
fn a_drill_that_cannot_be_done_is_a_violation_and_no_error() {
    for (more, code, message) in [
        (
            "snapshot = 'old'",
            "bad-choice",
            "the drill d chooses the snapshot \"old\", which is no choice of one",
        ),
        (
            "step = [{ expect = '1' }]",
            "bad-step",
            "step 1 of the drill d needs one of prepare, restore, run and start",
        ),
        (
            "step = [{ run = ['x'] }, { run = ['x'], expect = '>= x' }]",
            "bad-step",
            "step 2 of the drill d expects \">= x\"",
        ),
        ("step = [{ run = ['x'], expect = '=> 1' }]", "bad-step", "step 1 of the drill d expects \"=> 1\""),
        (
            "step = [{ restore = 'y' }]",
            "bad-step",
            "step 1 of the drill d restores y, which is not among its domains",
        ),
        (
            "step = [{ start = ['x'] }]",
            "bad-step",
            "step 1 of the drill d needs `start` and `ready` together",
        ),
        (
            "scratch = 'tmp'",
            "relative-path",
            "the drill d has the relative path \"tmp\" for its scratch directory",
        ),
        ("from = 'z'", "unknown-name", "the drill d names the repository \"z\", which is not in the plan"),
    ] {
        let found = findings(&format!(
            "[[domain]]\nname = 'x'\npaths = ['/s']\n[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\n{more}"
        ));
        let told: Vec<_> = found.iter().map(|found| (found.severity, found.code)).collect();
        assert_eq!(told, [(Severity::Violation, code)], "{more}");
        assert!(found[0].message.starts_with(message), "{}", found[0].message);
    }
    for (domains, expected) in [("", "empty-drill"), ("'x', 'z'", "unknown-name")] {
        let found = findings(&format!(
            "[[domain]]\nname = 'x'\npaths = ['/s']\n[[drill]]\nname = 'd'\ndomains = [{domains}]\ntier = 'full'\n"
        ));
        let told: Vec<_> = found.iter().map(|found| (found.severity, found.code)).collect();
        assert_eq!(told, [(Severity::Violation, expected)], "{domains}");
    }
}

#[test]
fn a_drill_that_no_repository_has_everything_for_is_told_of() {
    let plan = "[repo.b]\nurl = '/b'\n[[domain]]\nname = 'x'\npaths = ['/x']\nto = ['a']\n[[domain]]\nname = 'y'\n\
                paths = ['/y']\nto = ['b']\n[[drill]]\nname = 'd'\ntier = 'metadata'\nschedule = 'daily'\n";
    for (drill, expected) in [
        ("domains = ['x', 'y']", &["drill-nowhere"][..]),
        ("domains = ['x', 'y']\nfrom = 'rotate'", &["drill-nowhere"]),
        ("domains = ['x']\nfrom = 'b'", &["drill-nowhere"]),
        ("domains = ['x']\nfrom = 'a'", &[]),
        ("domains = ['x', 'z']", &["unknown-name"]),
    ] {
        assert_eq!(codes(&format!("{plan}{drill}\n")), expected, "{drill}");
    }
    let roots = "[[domain]]\nname = 'x'\npaths = ['/x']\n[inventory]\nroots = ['/srv', 'srv']\n";
    assert!(findings(roots).iter().any(|found| found.code == "relative-path"));
}

#[test]
fn a_domain_that_is_to_outlive_its_site_wants_a_copy_of_the_password() {
    let found = |sites: u8, more: &str| {
        let found = findings(&format!(
            "site = 's'\n{more}[repo.b]\nurl = '/b'\nsite = 't'\nkey_copies = 'the safe of the office'\n[repo.c]\nurl = '/c'\n\
             [[domain]]\nname = 'x'\npaths = ['/x']\nto = ['a', 'b']\nobjectives = {{ sites = {sites} }}\n"
        ));
        found.iter().map(|found| (found.severity, found.code)).collect::<Vec<_>>()
    };
    assert_eq!(found(2, ""), [(Severity::Warning, "no-key-copies")], "b says where, and nothing goes to c");
    assert_eq!(found(2, "key_copies = 'with the notary'\n"), []);
    assert_eq!(found(1, ""), []);
    assert_eq!(found(2, "key_copies = ' '\n"), [(Severity::Warning, "no-key-copies")]);
}

#[test]
fn targets_that_the_plan_misses_are_violations() {
    let domain = "[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n";
    for (class, more, expected) in [
        ("rpo = '24h'", "schedule = 'daily'", &[][..]),
        ("rpo = '23h'", "schedule = 'daily'", &["rpo-cannot-be-met"]),
        ("rpo = '23h'\nrpo_grace = '1h'", "schedule = 'daily'", &[]),
        ("rpo = '1d'", "schedule = 'Mon..Fri 02:00'", &["rpo-cannot-be-met"]),
        ("copies = 2", "", &["too-few-copies"]),
        ("sites = 2", "", &["too-few-sites"]),
        ("copies = 2", "[repo.b]\nurl = '/backup'", &["one-repository"]),
        // Where it is nobody says: it may be beside the other one.
        ("sites = 2", "[repo.b]\nurl = '/b'\nsite = 's'", &["too-few-sites"]),
        ("sites = 2", "[repo.b]\nurl = '/b'\nsite = 's'\n[repo.c]\nurl = '/c'\nsite = 't'", &[]),
        ("min_consistency = 'crash'", "", &["too-little-consistency"]),
        ("min_consistency = 'crash'", "consistency = 'crash'", &[]),
        ("drill_every = '30d'", "", &["drill-missing"]),
        (
            "drill_every = '30d'",
            "[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\nschedule = 'yearly'",
            &["drill-missing"],
        ),
        (
            "drill_every = '30d'",
            "[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\nschedule = 'weekly'",
            &[],
        ),
        // What nobody runs, and what restores nothing, is no rehearsal.
        ("drill_every = '30d'", "[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'", &["drill-missing"]),
        (
            "drill_every = '30d'",
            "[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'metadata'\nschedule = 'weekly'",
            &["drill-missing"],
        ),
        (
            "drill_every = '30d'",
            "[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'sample'\nschedule = 'weekly'",
            &[],
        ),
        // Where that repository is, nobody says.
        ("sites = 2", "[repo.b]\nurl = '/b'\nsite = 'there'", &["too-few-sites"]),
        ("sites = 2", "[repo.b]\nurl = '/b'\nsite = 'there'\n[repo.c]\nurl = '/c'\nsite = 'here'", &[]),
    ] {
        assert_eq!(codes(&format!("[class.c]\n{class}\n{domain}{more}")), expected, "{class} {more}");
    }
    let excused = |day: &str| {
        codes(&format!(
            "[class.c]\ncopies = 2\n{domain}[[exception]]\nid = 'E'\ncontrol = 'copies'\ndomain = 'x'\nreason = 'r'\n\
             approved_by = 'a'\nexpires = {day}"
        ))
    };
    assert_eq!(excused("2026-11-28"), [] as [&str; 0]);
    assert_eq!(excused("2026-11-27"), ["too-few-copies", "exception-expired"]);
    let inside = "[[domain]]\nname = 'x'\npaths = ['/']\nexclude = ";
    let found = |exclude: &str| {
        findings(&format!("{inside}{exclude}")).iter().map(|found| found.code).collect::<Vec<_>>()
    };
    assert_eq!(found("[]"), ["repository-in-path"]);
    assert_eq!(found("['/backup']"), [] as [&str; 0]);
    assert_eq!(found("['/back*']"), [] as [&str; 0]);
    assert_eq!(found("['/back*', '!/backup']"), ["repository-in-path"]);
    let hooks = "snapshot = { begin = ['b'], end = ['e'] }";
    let read_from_snapshot = |exclude: &str| codes(&format!("{inside}{exclude}\n{hooks}"));
    assert_eq!(
        read_from_snapshot("[]"),
        ["repository-in-path"],
        "an error, since the engine does not know it there"
    );
    assert_eq!(read_from_snapshot("['backup']"), [] as [&str; 0]);
    let warned = findings(&format!("[class.c]\nrpo = '1d'\n{domain}"));
    assert_eq!(warned.iter().map(|found| found.code).collect::<Vec<_>>(), ["no-schedule"]);
    let of_sites = |class: &str, sites: [&str; 2]| {
        let [b, c] = sites.map(|site| format!("url = '/{site}'\nsite = '{site}'\n"));
        let repos = format!("[repo.b]\n{b}[repo.c]\n{}", c.replacen("url = '/", "url = '/second/", 1));
        let to = "to = ['b', 'c']\n";
        let found = findings(&format!("[class.c]\n{class}\n{repos}{domain}{to}"));
        found.iter().map(|found| (found.severity, found.code)).collect::<Vec<_>>()
    };
    assert_eq!(of_sites("copies = 2", ["here", "here"]), [(Severity::Warning, "one-site")]);
    assert_eq!(of_sites("copies = 2", ["here", "there"]), []);
    assert_eq!(of_sites("copies = 1", ["here", "here"]), [], "nobody asked for two");
    let (too_few, no_key) = ((Severity::Violation, "too-few-sites"), (Severity::Warning, "no-key-copies"));
    assert_eq!(of_sites("copies = 2\nsites = 2", ["here", "here"]), [too_few, no_key, no_key]);
    let of_time = |more: &str| {
        let found = findings(&format!("[class.c]\nrto = '1h'\n{domain}{more}"));
        found.iter().map(|found| (found.severity, found.code)).collect::<Vec<_>>()
    };
    let unmeasured = [(Severity::Warning, "rto-not-measured")];
    let drill = |tier: &str| format!("[[drill]]\nname = 'd'\ndomains = ['x']\ntier = '{tier}'\n");
    assert_eq!((of_time(""), of_time(&drill("sample"))), (unmeasured.to_vec(), unmeasured.to_vec()));
    assert_eq!(of_time(&drill("full")), []);
}

#[test]
fn a_domain_without_a_schedule_takes_that_of_what_it_comes_after() {
    let domain =
        |name: &str, more: &str| format!("[[domain]]\nname = '{name}'\npaths = ['/{name}']\n{more}\n");
    let text = [
        domain("c", "after = ['b']"),
        domain("b", "after = ['alone', 'a']"),
        domain("a", "schedule = 'daily'"),
        domain("alone", ""),
        domain("own", "schedule = 'weekly'\nafter = ['a']"),
    ];
    let plan = plan(&text.concat());
    let schedule =
        |name: &str| plan.domain(name).and_then(|domain| Some(domain.schedule.as_ref()?.to_string()));
    assert_eq!(schedule("c"), schedule("a"));
    assert_eq!(schedule("b"), schedule("a"));
    assert_eq!(schedule("alone"), None);
    assert_ne!(schedule("own"), schedule("a"));
    let shown =
        effective(&plan, "box").into_iter().find(|entry| entry.key == "domain.c.schedule").expect("shown");
    let Origin::Given(place) = shown.origin else { panic!("{:?}", shown.origin) };
    assert_eq!(Some(place), plan.places.get("domain.a.schedule").cloned());
    let circle = [domain("x", "after = ['y']"), domain("y", "after = ['x']")].concat();
    assert!(codes(&circle).contains(&"cycle"), "it ends all the same: {:?}", codes(&circle));
}

#[test]
fn a_pattern_that_names_no_file_is_pointed_out() {
    let domain = "[[domain]]\nname = 'x'\npaths = ['/x']\n";
    let main = format!("version = 1\ninclude = ['conf.d/*.toml']\n[repo.a]\nurl = '/backup'\n{domain}");
    let found = |files: &[(&str, &str)]| {
        let plan = loaded(files).expect("a plan");
        let found = lint(&plan, date(2026, 11, 28), &Host::COMPLETE);
        found
            .into_iter()
            .map(|found| (found.severity, found.code, found.place.map(|place| place.line)))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&[("p.toml", main.as_str())]), [(Severity::Warning, "idle-include", Some(2))]);
    assert_eq!(found(&[("p.toml", main.as_str()), ("conf.d/more.toml", "")]), []);
}

#[test]
fn tables_without_a_name_are_numbered_through_all_files() {
    let notify = |variable: &str| format!("[[notify]]\non = ['failure']\nwebhook_env = '{variable}'\n");
    let main = format!("version = 1\ninclude = ['more.toml']\n[repo.a]\nurl = '/backup'\n{}", notify("ONE"));
    let more = format!("{}[[notify]]\non = ['failure']\n", notify("TWO"));
    let plan = loaded(&[("p.toml", main.as_str()), ("more.toml", more.as_str())]).expect("a plan");
    let shown: Vec<_> = effective(&plan, "box")
        .into_iter()
        .filter(|entry| entry.key.ends_with("webhook_env"))
        .map(|entry| (entry.key, entry.value))
        .collect();
    let expected = [("notify.1.webhook_env", "\"ONE\""), ("notify.2.webhook_env", "\"TWO\"")];
    assert_eq!(shown, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let wrong =
        lint(&plan, date(2026, 11, 28), &Host::COMPLETE).into_iter().find(|found| found.code == "bad-notify");
    let place = wrong.and_then(|wrong| wrong.place).expect("a place");
    assert_eq!((place.file.as_path(), place.line), (Path::new("more.toml"), 4));
}

#[test]
fn a_repository_of_a_kind_that_is_not_known_is_pointed_out() {
    let found =
        findings("[repo.b]\nurl = 's3:https://s3.example.org/b'\n[[domain]]\nname = 'x'\npaths = ['/x']\n");
    let found: Vec<_> = found.iter().map(|found| (found.severity, found.code)).collect();
    assert_eq!(found, [(Severity::Warning, "unknown-scheme")]);
}

#[test]
fn a_stream_that_no_drill_loads_is_pointed_out() {
    let found = |restore: &str, tier: &str, step: &str| {
        let found = findings(&format!(
            "[[domain]]\nname = 'x'\nstream = [{{ name = 's', command = ['c'], min_bytes = '1'{restore} }}]\n[[drill]]\nname = 'd'\n\
             domains = ['x']\ntier = '{tier}'\nstep = [{step}]\n"
        ));
        found.iter().map(|found| (found.severity, found.code)).collect::<Vec<_>>()
    };
    let restore = ", restore = ['r', '${target}']";
    let unloaded = [(Severity::Warning, "unloaded-stream")];
    assert_eq!(found("", "full", "{ restore = 'x' }"), unloaded);
    assert_eq!(found(restore, "full", ""), unloaded);
    assert_eq!(found(restore, "full", "{ restore = 'x' }"), []);
    assert_eq!(found("", "full", "{ run = ['look', '${scratch}/x/s'] }"), []);
    assert_eq!(found("", "sample", ""), []);
}

#[test]
fn a_drill_that_would_load_over_what_is_in_use_is_pointed_out() {
    let found = |restore: &str, tier: &str, target: &str| {
        let found = findings(&format!(
            "[[domain]]\nname = 'x'\nstream = [{{ name = 's', command = ['dump', 'service=shop'], min_bytes = '1', restore = {restore} }}, \
             {{ name = 'not-loaded', command = ['c'], min_bytes = '1' }}]\n[[drill]]\nname = 'd'\ndomains = ['x']\ntier = '{tier}'\n\
             step = [{{ run = ['look', '${{scratch}}/x/not-loaded'] }}, {{ restore = 'x'{target} }}]\n"
        ));
        found.iter().map(|found| (found.severity, found.code)).collect::<Vec<_>>()
    };
    let (over, named) = ((Severity::Violation, "loads-over"), (Severity::Warning, "drill-target"));
    for tier in ["full", "sample"] {
        assert_eq!(found("['load', '-d', 'service=shop']", tier, ", target = 'rehearsed'"), [over]);
        assert_eq!(found("['load', '-d', 'dbname=${target}']", tier, ", target = 'rehearsed'"), []);
        assert_eq!(found("['load', '${target}']", tier, ""), []);
        assert_eq!(
            found("['load', '${target}']", tier, ", target = ' '"),
            [over],
            "many take that for their own"
        );
    }
    // That it is the name of production cannot be known, but it may show.
    assert_eq!(found("['load', '${target}']", "full", ", target = 'shop'"), [named]);
    assert_eq!(found("['load', '${target}']", "full", ", target = 'shop_drill'"), []);
    let error = findings(
        "[[domain]]\nname = 'x'\nstream = [{ name = 's', command = ['c'], restore = ['load'] }]\n[[drill]]\nname = 'd'\n\
         domains = ['x']\ntier = 'full'\n[[drill.step]]\nrestore = 'x'\n",
    )
    .remove(0);
    let message = "step 1 of the drill d: `restore` of the stream s does not name ${target}: it would load over what is in use";
    assert_eq!((error.message.as_str(), error.place.map(|place| place.line)), (message, Some(12)));
}

#[test]
fn keeping_what_no_drill_restores_is_pointed_out() {
    let found = |drill: &str| {
        let domain = "[[domain]]\nname = 'x'\npaths = ['/x']\nobjectives = { retain = { last = 3, keep_last_drilled = true } }\n";
        let found = findings(&format!("{domain}{drill}"));
        found.iter().map(|found| (found.severity, found.code)).collect::<Vec<_>>()
    };
    let drill = |tier: &str| format!("[[drill]]\nname = 'd'\ndomains = ['x']\ntier = '{tier}'\n");
    assert_eq!(found(""), [(Severity::Warning, "nothing-drilled")]);
    assert_eq!(found(&drill("metadata")), [(Severity::Warning, "nothing-drilled")]);
    assert_eq!(found(&drill("sample")), []);
}

#[test]
fn the_schema_has_every_table_and_refuses_unknown_keys() {
    let schema = schema();
    let properties = schema["properties"].as_object().expect("an object");
    for key in ["version", "repo", "class", "domain", "drill", "exception", "metrics"] {
        assert!(properties.contains_key(key), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        let is_closed = definition["additionalProperties"] == false || definition["type"] != "object";
        assert!(is_closed, "{name} takes keys that the plan does not know: {definition}");
    }
    assert_eq!(schema["$defs"]["Class"]["properties"]["rpo"]["pattern"], "^[0-9]+[smhdw]$");
}

/// They keep nobody from backing up.
#[test]
fn recoveries_that_cannot_be_undone_are_violations_and_no_errors() {
    let restore = "restore = ['r', '${target}']";
    let stream = |more: &str| {
        format!(
            "[[domain]]\nname = 'x'\nstream = [{{ name = 's', min_bytes = '1', command = ['c'], {more} }}]\n"
        )
    };
    let whole = "swap = ['s', '${target}', '${old}'], undo = ['u', '${target} ${old}'], swapped = ['q']";
    for (more, expected) in [
        (format!("{restore}, recover = {{ {whole} }}"), &[][..]),
        (format!("{restore}, recover = {{ drop = ['d', '${{target}}'] }}"), &[]),
        (format!("restore = ['r'], recover = {{ {whole} }}"), &["bad-recover"]),
        (format!("recover = {{ {whole} }}"), &["bad-recover"]),
        (format!("{restore}, recover = {{ swap = ['s', '${{target}}', '${{old}}'] }}"), &["bad-recover"]),
        (format!("{restore}, recover = {{ {} }}", whole.replace(" ${old}", "")), &["bad-recover"]),
        (format!("{restore}, recover = {{ target = 'x_old', {whole} }}"), &["bad-recover"]),
        (format!("{restore}, recover = {{ target = 'x', {whole} }}"), &["bad-recover"]),
        (format!("{restore}, recover = {{ target = 'x', create = ['c'], {whole} }}"), &[]),
        (format!("{restore}, recover = {{ target = 'x_${{id}}', {whole} }}"), &[]),
    ] {
        assert_eq!(codes(&stream(&more)), expected, "{more}");
    }
    let domain =
        |recover: &str| format!("[[domain]]\nname = 'x'\npaths = ['/x']\nrecover = {{ {recover} }}\n");
    for (recover, expected) in [
        ("ready = { http = 'http://x/' }, scratch = '/s'", &[][..]),
        ("ready = { http = 'https://x/' }", &["bad-recover"]),
        ("ready = { timeout = '1m' }", &["bad-recover"]),
        ("scratch = 'tmp'", &["relative-path"]),
    ] {
        assert_eq!(codes(&domain(recover)), expected, "{recover}");
    }
    for wrong in [stream("restore = ['r'], recover = {}"), domain("ready = {}"), domain("scratch = 'tmp'")] {
        let found = findings(&wrong);
        assert!(found.iter().all(|found| found.severity == Severity::Violation), "{found:?}");
    }
    let half = findings(&domain("stop = [['s']]"));
    assert_eq!(half.iter().map(|found| found.code).collect::<Vec<_>>(), ["half-recover"]);
}
