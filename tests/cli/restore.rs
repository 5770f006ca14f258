//! `restore`: what lands where, and what the exit code says of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Bench, assert_same, noise, overwrite};

/// A repository with a snapshot of the small source, and the source's path in it.
fn backed_up() -> (Bench, String) {
    let bench = Bench::new();
    let source = bench.source().canonicalize().expect("there");
    bench.run(["backup", "src"]).expect(0);
    (bench, format!("latest:{}", source.display()))
}

#[test]
fn the_contents_of_a_path_land_in_the_target() {
    let (bench, what) = backed_up();
    let summary = bench.run(["restore", "--json", &what, "--target", "out"]).expect(0).last("summary");
    assert_eq!((&summary["total_files"], &summary["files_restored"]), (&3.into(), &3.into()));
    assert_eq!(summary["bytes_restored"], 5 + 4000 + 6);
    assert_eq!(fs::read(bench.path("out/a.txt")).expect("restored"), b"alpha");
    assert_eq!(fs::read(bench.path("out/sub/b.txt")).expect("restored"), "beta".repeat(1000).as_bytes());
}

#[test]
fn a_target_that_is_not_empty_keeps_its_own_mode_and_one_that_is_gets_the_paths() {
    let (bench, what) = backed_up();
    fs::set_permissions(bench.path("src"), fs::Permissions::from_mode(0o711)).expect("changed");
    bench.run(["backup", "src"]).expect(0);
    let mode_of = |target: &str| {
        bench.run(["restore", &what, "-t", target]).expect(0);
        fs::metadata(bench.path(target)).expect("there").permissions().mode() & 0o7777
    };
    bench.write("used/own", "x");
    fs::set_permissions(bench.path("used"), fs::Permissions::from_mode(0o750)).expect("changed");
    assert_eq!(mode_of("used"), 0o750);
    fs::create_dir(bench.path("empty")).expect("made");
    assert_eq!((mode_of("empty"), mode_of("missing")), (0o711, 0o711));
}

#[test]
fn without_a_path_all_of_the_snapshot_is_restored() {
    let (bench, what) = backed_up();
    bench.run(["restore", "latest", "-t", "out"]).expect(0);
    let (_, path) = what.split_once(":/").expect("a path");
    assert!(bench.path("out").join(path).join("a.txt").is_file());
}

#[test]
fn a_dry_run_touches_nothing() {
    let (bench, what) = backed_up();
    let summary = bench.run(["restore", "--json", "-n", &what, "-t", "out"]).expect(0).last("summary");
    assert_eq!((&summary["dry_run"], &summary["total_files"]), (&true.into(), &3.into()));
    assert!(!bench.path("out/a.txt").exists());
}

#[test]
fn a_repository_in_the_target_stays_whole() {
    let bench = Bench::empty();
    fs::create_dir_all(bench.path("home/deep")).expect("made");
    bench.write("home/file", "kept");
    let repository = bench.path("home/deep/backup").display().to_string();
    let run = |line: &[&str]| bench.run([&["-r", &repository][..], line].concat());
    let init: Vec<&str> = ["init"].into_iter().chain(crate::support::CHEAP.iter().copied()).collect();
    run(&init).expect(0);
    run(&["backup", "home/file"]).expect(0);
    let parent = bench.path("home").canonicalize().expect("there");
    let what = format!("latest:{}", parent.display());
    bench.write("home/extra", "goes");
    bench.write("home/deep/extra", "goes");
    let done = run(&["restore", "--json", &what, "-t", "home", "--delete"]).expect(0);
    assert!(done.lines().iter().any(|line| line["code"] == "repository-in-target"), "{done:#?}");
    assert!(!bench.path("home/extra").exists() && !bench.path("home/deep/extra").exists());
    run(&["check", "--read-data"]).expect(0);
    let refused = run(&["restore", &what, "-t", "home/deep/backup/packs"]).expect(1);
    assert!(refused.message().contains("lies in the repository"), "{refused:#?}");
}

#[test]
fn a_pattern_that_nothing_matches_restores_nothing_and_says_so() {
    let (bench, what) = backed_up();
    let run = bench.run(["restore", &what, "-t", "out", "--include", "/nomatch/**"]).expect(1);
    assert!(run.message().contains("--include"), "{run:#?}");
}

#[test]
fn existing_files_are_treated_as_asked() {
    let (bench, what) = backed_up();
    bench.write("out/a.txt", "mine!");
    bench.write("out/extra", "x");
    bench.run(["restore", &what, "-t", "out", "--overwrite", "never"]).expect(0);
    assert_eq!(fs::read(bench.path("out/a.txt")).expect("there"), b"mine!");
    let summary = bench
        .run(["restore", "--json", &what, "-t", "out", "--delete", "--verify"])
        .expect(0)
        .last("summary");
    assert_eq!((&summary["files_restored"], &summary["files_deleted"]), (&1.into(), &1.into()));
    assert_eq!(summary["files_verified"], 3);
    assert_eq!(fs::read(bench.path("out/a.txt")).expect("there"), b"alpha");
    assert!(!bench.path("out/extra").exists());
}

#[test]
fn patterns_choose() {
    let (bench, what) = backed_up();
    bench.run(["restore", &what, "-t", "in", "--include", "*.txt"]).expect(0);
    assert!(bench.path("in/sub/b.txt").is_file() && !bench.path("in/sub/c.o").exists());
    bench.run(["restore", &what, "-t", "ex", "--exclude", "*.txt"]).expect(0);
    assert!(!bench.path("ex/a.txt").exists() && bench.path("ex/sub/c.o").is_file());
}

#[test]
fn paths_that_are_not_there_are_named() {
    let (bench, what) = backed_up();
    let run = bench.run(["restore", &format!("{what}/none"), "-t", "out"]).expect(1);
    assert!(run.message().contains("none"), "{run:?}");
    assert!(run.stderr.contains("strongroom ls"), "{run:?}");
    bench.run(["restore", "0", "-t", "out", "--overwrite", "never"]);
    let run = bench.run(["ls", &format!("{what}/a.txt/deeper")]).expect(1);
    assert!(run.message().contains("not a directory"), "{run:?}");
}

#[test]
fn one_failing_file_does_not_stop_the_rest() {
    let (bench, what) = backed_up();
    // A directory with something in it stands where a file has to be.
    bench.write("out/a.txt/keep", "k");
    let run = bench.run(["restore", "--json", &what, "-t", "out"]).expect(3);
    assert_eq!(run.last("summary")["error_count"], 1);
    assert!(run.lines().iter().any(|line| line["type"] == "error" && line["path"].is_string()), "{run:?}");
    assert!(bench.path("out/sub/b.txt").is_file());
}

#[test]
fn a_file_that_cannot_be_had_whole_does_not_stand_under_its_name() {
    let bench = Bench::new();
    bench.write("src/good", "good");
    // Two blocks at least.
    let large = noise(1, 9 << 20);
    bench.write("src/large", &large);
    bench.run(["backup", "src"]).expect(0);
    let source = bench.path("src").canonicalize().expect("there");
    let what = format!("latest:{}", source.display());
    let pack = bench.objects("packs").into_iter().max_by_key(|pack| fs::metadata(pack).expect("there").len());
    let pack = pack.expect("a pack");
    let sound = fs::read(&pack).expect("readable");
    let mut bytes = sound.clone();
    bytes[5 << 20] ^= 1;
    overwrite(&pack, &bytes);
    let run = bench.run(["restore", "--json", &what, "-t", "out"]).expect(3);
    assert_eq!(run.last("summary")["files_incomplete"], 1);
    let aside = bench.path("out/large.strongroom-incomplete");
    assert!(!bench.path("out/large").exists());
    assert_eq!(fs::read(&aside).expect("what could be had").len(), large.len());
    assert_eq!(fs::read(bench.path("out/good")).expect("restored"), b"good");
    let told = run.lines().into_iter().find(|line| line["code"] == "restore-incomplete").expect("it is told");
    assert!(told["message"].as_str().expect("text").contains("large.strongroom-incomplete"), "{told}");
    let text = bench.run(["restore", &what, "-t", "out"]).expect(3);
    assert!(text.stdout.contains("Not whole: 1 file"), "{text:?}");
    assert!(!bench.path("out/large.strongroom-incomplete-2").exists(), "it goes on with what there is");
    // An older file that is to be brought up to date is either as it was or under the other name.
    bench.write("older/large", noise(2, 9 << 20));
    bench.run(["restore", &what, "-t", "older"]).expect(3);
    let stays = fs::read(bench.path("older/large")).is_ok_and(|found| found == noise(2, 9 << 20));
    assert_ne!(stays, bench.path("older/large.strongroom-incomplete").exists());
    overwrite(&pack, &sound);
    for target in ["out", "older"] {
        bench.run(["restore", "--verify", &what, "-t", target]).expect(0);
        assert_same(&source, &bench.path(target));
    }
}
