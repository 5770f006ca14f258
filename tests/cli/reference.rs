//! Help, manual pages and completions: what is checked in is what the program says.

use std::fs;
use std::path::Path;

use crate::support::{Bench, Run, strongroom};

/// Every command, as it is typed.
const COMMANDS: [&str; 65] = [
    "",
    "init",
    "backup",
    "snapshots",
    "snapshot",
    "snapshot hold",
    "snapshot release",
    "copy",
    "forget",
    "prune",
    "parity",
    "parity add",
    "parity drop",
    "parity status",
    "reserve",
    "reserve set",
    "reserve drop",
    "reserve status",
    "repair",
    "repair index",
    "repair lost-snapshots",
    "repair log",
    "repair objects",
    "repair packs",
    "repair snapshots",
    "ls",
    "diff",
    "find",
    "restore",
    "check",
    "cat",
    "cat config",
    "cat ledger",
    "cat log",
    "cat snapshot",
    "cat tree",
    "cat pack",
    "key",
    "key list",
    "key add",
    "key passwd",
    "key remove",
    "stats",
    "log",
    "log head",
    "run",
    "drill",
    "recover",
    "status",
    "verify",
    "compliance",
    "report",
    "notify",
    "schedule",
    "schedule print",
    "runbook",
    "coverage",
    "config",
    "config check",
    "config show",
    "config schema",
    "config recover",
    "version",
    "completions",
    "man",
];

fn help(command: &str) -> String {
    Run::of(strongroom().args(command.split_whitespace()).arg("--help")).expect(0).stdout
}

/// `docs/cli-reference.md` holds the help of every command. `STRONGROOM_BLESS=1` rewrites it.
#[test]
fn the_reference_is_what_the_program_says() {
    let mut reference = String::from(
        "# Command line reference\n\nWhat `--help` says of each command. Written by the tests.\n",
    );
    for command in COMMANDS {
        let title = format!("strongroom {command}");
        reference.push_str(&format!(
            "\n## `{}`\n\n```text\n{}\n```\n",
            title.trim_end(),
            help(command).trim_end()
        ));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli-reference.md");
    if std::env::var_os("STRONGROOM_BLESS").is_some() {
        fs::write(&path, &reference).expect("written");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == reference,
        "docs/cli-reference.md is out of date: run the tests with STRONGROOM_BLESS=1 and look at the difference"
    );
}

/// No command is missing above, and each has an example.
#[test]
fn every_command_is_in_the_reference_and_has_an_example() {
    for command in COMMANDS {
        let help = help(command);
        let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
        let listed = listed.lines().take_while(|line| line.starts_with("  "));
        // What goes on with a description is indented further.
        let listed = listed.filter(|line| !line.starts_with("   "));
        for name in listed.filter_map(|line| line.split_whitespace().next()) {
            let full = format!("{command} {name}");
            assert!(COMMANDS.contains(&full.trim()), "{full} is not in the reference");
        }
        let is_leaf_of_cat = command.starts_with("cat ");
        assert!(is_leaf_of_cat || help.contains("Example"), "{command} has no example");
    }
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let bench = Bench::empty();
    let folder = bench.path("share/man1");
    Run::of(strongroom().arg("man").arg(&folder)).expect(0);
    for command in COMMANDS {
        let page = format!("strongroom {command}").trim_end().replace(' ', "-");
        let text = fs::read_to_string(folder.join(format!("{page}.1"))).expect("a page");
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Run::of(strongroom().args(["completions", shell])).expect(0).stdout;
        assert!(script.contains("read-data-subset"), "{shell}");
    }
    Run::of(strongroom().args(["completions", "tcsh"])).expect(2);
}
