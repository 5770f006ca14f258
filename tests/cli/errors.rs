//! Bad input gets a clear error, the right exit code, and advice.

use std::fs;
use std::process::Stdio;

use crate::support::{Bench, CHEAP, Run, overwrite, strongroom};

#[test]
fn no_repository_is_10() {
    let bench = Bench::empty();
    fs::create_dir(bench.path("folder")).expect("a folder");
    let file = bench.write("file", "not a repository");
    for place in [bench.path("missing"), bench.path("folder"), file] {
        // Without a password: nobody is asked for one in vain.
        let run = Run::of(strongroom().arg("-r").arg(&place).arg("snapshots")).expect(10);
        assert!(run.message().contains("no repository"), "{run:?}");
        assert!(run.stderr.contains("hint: ") && run.stderr.contains("init"), "{run:?}");
        assert!(!place.join("config").exists(), "looking must not make anything");
    }
}

#[test]
fn a_config_that_is_not_ours_is_10_and_a_newer_one_is_said_to_be() {
    let bench = Bench::new();
    let config = bench.repository().join("config");
    let good = fs::read(&config).expect("a config");
    overwrite(&config, b"[core]\n\tbare = true\n");
    bench.run(["snapshots"]).expect(10);
    let mut newer = good.clone();
    newer[6] = b'9';
    overwrite(&config, &newer);
    let run = bench.run(["snapshots"]).expect(1);
    assert!(run.message().contains("newer"), "{run:?}");
    overwrite(&config, &good[..20]);
    bench.run(["snapshots"]).expect(4);
}

#[test]
fn a_wrong_password_is_12() {
    let bench = Bench::new();
    let run = Run::of(bench.command().env("STRONGROOM_PASSWORD", "wrong").arg("snapshots")).expect(12);
    assert!(run.message().contains("password"), "{run:?}");
    let run = Run::of(bench.command().env("STRONGROOM_PASSWORD", "wrong").args(["snapshots", "--json"]));
    let error = run.expect(12).last("error");
    assert_eq!(error["code"], "wrong-password");
    assert_eq!(error["exit_code"], 12);
    assert!(error["hint"].is_string());
}

#[test]
fn an_empty_password_is_refused_before_anything_is_made() {
    let bench = Bench::empty();
    let run = Run::of(bench.command().env("STRONGROOM_PASSWORD", "").arg("init").args(CHEAP)).expect(1);
    assert!(run.message().contains("empty"), "{run:?}");
    assert!(!bench.repository().exists());
}

#[test]
fn wrong_usage_is_2() {
    let bench = Bench::empty();
    for line in [
        "",
        "frobnicate",
        "snapshots --no-such-option",
        "snapshots --memory 1M",
        "snapshots --memory lots",
        "snapshots --threads 0",
        "snapshots -r s3:bucket",
        "snapshots -q -v",
        "snapshots --password-file a --password-command b",
        "backup",
        "backup --command name",
        "backup --stdin-filename name path",
        "backup --exclude-larger-than big /etc",
        "backup --parent abc --force /etc",
        "backup --compression 99 /etc",
        "backup --time yesterday /etc",
        "restore latest",
        "restore --target t :/path",
        "restore latest --target t --overwrite sometimes",
        "check --read-data-subset 8/7",
        "check --read-data --read-data-subset 10%",
        "check --read-data --budget 1GiB",
        "check --budget 0",
        "check --max-age soon",
        "check --hashes-only",
        "init --kdf-memory 1M",
        "init --kdf-passes 1",
        "cat log x",
        "key",
    ] {
        let run = bench.run(line.split_whitespace());
        assert_eq!(run.code, 2, "{line}: {run:#?}");
        assert!(!run.stderr.is_empty() && run.stdout.is_empty(), "{line}: {run:#?}");
        assert!(!bench.repository().exists(), "{line}");
    }
    Run::of(strongroom().arg("snapshots")).expect(2);
}

#[test]
fn limits_are_told_with_their_number() {
    let bench = Bench::empty();
    let run = bench.run(["snapshots", "--memory", "1M"]).expect(2);
    assert!(run.stderr.contains("83886080") && run.stderr.contains("a password takes 64 MiB"), "{run:?}");
    let run = bench.run(["snapshots", "-r", "s3:bucket"]).expect(2);
    assert!(run.message().contains("\"s3\"") && run.message().contains("file:PATH"), "{run:?}");
}

#[test]
fn errors_in_json_are_lines_of_output() {
    let bench = Bench::empty();
    for (line, code, name) in [
        ("snapshots --json", 10, "no-repository"),
        ("--json snapshots -r s3:x", 2, "unknown-scheme"),
        ("--json snapshots --threads 0", 2, "usage"),
        ("--json frobnicate", 2, "usage"),
    ] {
        let run = bench.run(line.split_whitespace()).expect(code);
        let error = run.last("error");
        assert_eq!((&error["code"], &error["exit_code"]), (&name.into(), &code.into()), "{line}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{line}");
        assert_eq!(run.stderr, "", "{line}");
    }
}

#[test]
fn damaged_keyslots_are_damage_and_named() {
    let bench = Bench::new();
    let keyslot = bench.objects("keys").remove(0);
    let mut bytes = fs::read(&keyslot).expect("a keyslot");
    bytes[100] ^= 1;
    overwrite(&keyslot, &bytes);
    let run = bench.run(["snapshots"]).expect(4);
    let name = keyslot.file_name().and_then(|name| name.to_str()).expect("hex");
    assert!(run.message().contains(name), "{run:?}");
    fs::remove_file(&keyslot).expect("removed");
    bench.run(["check"]).expect(4);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let bench = Bench::new();
    // A pipe whose reading end is closed before the command starts.
    let mut reader = bench.command().arg("version").stdout(Stdio::piped()).spawn().expect("built");
    drop(reader.stdout.take());
    let status = reader.wait().expect("ended");
    assert!(status.code().is_some(), "{status}");
    for arguments in [&["log"][..], &["cat", "config"], &["completions", "bash"], &["stats", "--json"]] {
        let mut child = bench
            .command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("built");
        drop(child.stdout.take());
        let run = Run::from(&child.wait_with_output().expect("ended"));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else { return };
    let bench = Bench::new();
    let run = Run::from(&bench.command().arg("log").stdout(full).output().expect("built")).expect(1);
    assert!(run.message().contains("output"), "{run:?}");
}
