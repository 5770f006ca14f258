//! The documents' examples: every block marked `sh` in the README and the guides is run as it stands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Bench, CHEAP, PASSWORD, Run, strongroom};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents in a folder of the project.
fn documents_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(project().join(folder)).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "md")).collect()
}

/// The guides and the README. Recipes are run with real servers, by `tests/components`.
fn documents() -> Vec<PathBuf> {
    let mut found = documents_in("docs");
    found.push(project().join("README.md"));
    found.sort();
    found
}

/// All `sh` blocks of a document, one after the other.
fn script(document: &str) -> String {
    let (mut script, mut inside) = (String::new(), false);
    for line in document.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, line) => script.extend([line, "\n"]),
            (false, _) => {}
        }
    }
    assert!(!inside, "a block without end");
    script
}

fn executable(bench: &Bench, name: &str, script: &str) {
    let path = bench.write(&format!("bin/{name}"), script);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("changed");
}

/// A machine as the documents take it to be: below a folder of its own, to which their absolute paths lead.
fn machine() -> Bench {
    let bench = Bench::empty();
    fs::create_dir(bench.path("bin")).expect("a folder");
    let binary = strongroom().get_program().to_owned();
    std::os::unix::fs::symlink(binary, bench.path("bin/strongroom")).expect("a link");
    executable(&bench, "pg_dump", "#!/bin/sh\necho \"dump of $4\"\n");
    bench.write("etc/strongroom/password", PASSWORD);
    bench.write("etc/strongroom/offsite-password", "another one");
    for (name, content) in [
        ("orders.csv", "1;2;3\n"),
        ("keep.tmp", "k"),
        ("schema.sql", "create table orders (id int);\n"),
        ("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55"),
        ("cache/x", "x"),
        ("logs/app.log", "line\n"),
    ] {
        bench.write(&format!("srv/shop/{name}"), content);
    }
    bench.write("home/clone/README.md", "# Strongroom\n");
    fs::create_dir_all(bench.path("var/lib/node_exporter")).expect("a folder");
    bench
}

/// Runs a document's examples on a machine with a repository, unless they make it themselves.
fn run(path: &Path) {
    let script = script(&fs::read_to_string(path).expect("text"));
    if script.is_empty() {
        return;
    }
    let bench = machine();
    let root = bench.path("").canonicalize().expect("there");
    let root = root.to_str().expect("text").trim_end_matches('/');
    let mut here = script.clone();
    for place in ["/srv/", "/mnt/", "/var/", "/etc/strongroom"] {
        here = here.replace(place, &format!("{root}{place}"));
    }
    let shell = || {
        let mut shell = Command::new("sh");
        let search = format!("{root}/bin:{}", std::env::var("PATH").expect("a search path"));
        shell.env_clear().env("PATH", search).env("HOME", format!("{root}/home")).env("TZ", "UTC");
        shell.env("STRONGROOM_REPOSITORY", format!("{root}/srv/backup/shop"));
        shell.env("STRONGROOM_PASSWORD_FILE", format!("{root}/etc/strongroom/password"));
        shell.current_dir(format!("{root}/home/clone")).stdin(Stdio::null());
        shell
    };
    if !script.contains("strongroom init") {
        let prepare = format!("strongroom init {} && strongroom backup {root}/srv/shop", CHEAP.join(" "));
        Run::of(shell().arg("-ec").arg(prepare)).expect(0);
    }
    let run = Run::of(shell().arg("-eux").arg("-c").arg(here));
    assert_eq!(run.code, 0, "{}: {}\n{}", path.display(), run.stdout, run.stderr);
}

#[test]
fn all_examples_work_as_they_stand() {
    let documents = documents();
    std::thread::scope(|scope| {
        let (left, right) = documents.split_at(documents.len() / 2);
        let other = scope.spawn(|| left.iter().for_each(|path| run(path)));
        right.iter().for_each(|path| run(path));
        other.join().expect("all worked");
    });
    let commands: usize = documents
        .iter()
        .map(|path| script(&fs::read_to_string(path).expect("text")).matches("strongroom ").count())
        .sum();
    assert!(commands > 40, "{commands}");
}

/// Links from one document to another lead somewhere, and every guide is in the table of the guides.
#[test]
fn links_between_documents_lead_somewhere() {
    let table = fs::read_to_string(project().join("docs/README.md")).expect("text");
    for path in documents().into_iter().chain(documents_in("docs/recipes")) {
        let below = path.strip_prefix(project().join("docs")).ok().and_then(Path::to_str);
        if let Some(name) = below.filter(|name| *name != "README.md") {
            assert!(table.contains(&format!("({name})")), "{name} is not in docs/README.md");
        }
        let text = fs::read_to_string(&path).expect("text");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                let target = path.parent().expect("a folder").join(file);
                assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            }
        }
    }
}

/// All Rust files below a folder of the project, without their unit tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let (mut open, mut found) = (vec![project().join(folder)], Vec::new());
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
            if path.is_dir() && name != "tests" {
                open.push(path);
            } else if name.ends_with(".rs") && !name.contains("test") {
                let text = fs::read_to_string(&path).expect("text");
                found.push((
                    path,
                    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned(),
                ));
            }
        }
    }
    found
}

/// What stands in quotes behind one of these words, if it looks like a code.
fn codes_behind(text: &str, words: &[&str]) -> Vec<String> {
    let is_code =
        |code: &str| code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let behind = |word: &&str| {
        let parts: Vec<_> = text.split(*word).skip(1).collect();
        parts
            .into_iter()
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split_once('"').map(|(code, _)| code))
    };
    words.iter().flat_map(behind).filter(|code| is_code(code)).map(str::to_owned).collect()
}

/// Programs are told by codes what happened: one that the page does not have is none that they can know.
#[test]
fn every_code_is_on_the_page_of_the_json_output() {
    let page = fs::read_to_string(project().join("docs/json.md")).expect("text");
    let ways: [(&str, &[&str]); 3] = [
        (
            "cli/src",
            &[
                "Failure::new(",
                "Failure::usage(",
                "Failure::damage(",
                "Self::new(",
                "Self::usage(",
                "Self::damage(",
                "\"code\":",
                "code:",
            ],
        ),
        (
            "engine/src",
            &[
                "code:",
                ".damage(",
                ".note(",
                "const MISSING: &str =",
                "const DAMAGED: &str =",
                "const STORAGE: &str =",
            ],
        ),
        (
            "ops/src/plan/lint",
            &[
                "self.error(",
                "Control::Rpo,",
                "Control::Copies,",
                "Control::Sites,",
                "Control::Drill,",
                "Control::Rto,",
                "Control::Consistency,",
                "Control::Retention,",
                "Control::Verify,",
                "Severity::Error,",
                "Severity::Violation,",
                "Severity::Warning,",
            ],
        ),
    ];
    let more = ["ops/src/drill/mistake.rs", "ops/src/recover/mistake.rs", "engine/src/restore/tally.rs"]
        .map(|file| (project().join(file), fs::read_to_string(project().join(file)).expect("text")));
    let mut found = 0;
    for (folder, words) in ways {
        for (path, text) in sources(folder) {
            for code in codes_behind(&text, words) {
                found += 1;
                assert!(
                    page.contains(&format!("`{code}`")),
                    "{code} of {} is not in docs/json.md",
                    path.display()
                );
            }
        }
    }
    for (path, text) in more {
        for code in codes_behind(&text, &["code:", ": &str ="]) {
            found += 1;
            assert!(
                page.contains(&format!("`{code}`")),
                "{code} of {} is not in docs/json.md",
                path.display()
            );
        }
    }
    assert!(found > 150, "only {found} codes were found");
}
