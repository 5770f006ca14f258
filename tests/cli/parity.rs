//! `parity`, and what `check` and `repair` make of it: damaged files of a repository get their bytes back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use strongroom::backend::ObjectKey;

use crate::support::{Bench, CHEAP, assert_same, noise, overwrite};

/// A repository with parity and two snapshots.
fn covered() -> Bench {
    let bench = Bench::empty();
    bench.run(["init", "--parity", "3%"].into_iter().chain(CHEAP)).expect(0);
    back_up(&bench);
    bench
}

fn back_up(bench: &Bench) {
    bench.source();
    bench.write("src/large", noise(7, 3 << 20));
    bench.run(["backup", "src"]).expect(0);
    bench.write("src/a.txt", "alpha, later");
    bench.run(["backup", "src"]).expect(0);
}

fn restores(bench: &Bench, target: &str) {
    bench.run(["restore", "latest", "--target", target]).expect(0);
    let restored = bench.path(target).join(bench.path("src").strip_prefix("/").expect("absolute"));
    assert_same(&restored, &bench.path("src"));
}

/// Everything but parity and ledgers, which checks write.
fn stored(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = ["log", "packs", "index", "state", "keys"];
    let paths = folders.iter().flat_map(|folder| bench.objects(folder));
    paths.map(|path| (path.clone(), fs::read(path).expect("an object"))).collect()
}

/// A sector in the middle goes bad.
fn lose_a_sector(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("an object");
    let at = bytes.len() / 2 / 4096 * 4096;
    let end = bytes.len().min(at + 4096);
    bytes[at..end].fill(0xff);
    overwrite(path, &bytes);
}

#[test]
fn damaged_files_get_their_bytes_back() {
    let bench = covered();
    let before = stored(&bench);
    for folder in ["packs", "index", "log"] {
        for path in bench.objects(folder) {
            lose_a_sector(&path);
        }
    }
    let run = bench.run(["check", "--read-data", "--no-record"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout.contains("repair objects"), "{run:?}");
    let run = bench.run(["repair", "objects", "--json"]).expect(0);
    let summary = run.last("summary");
    assert_eq!(summary["objects_left"], 0, "{run:?}");
    assert!(summary["objects_damaged"].as_u64() >= Some(4), "{summary}");

    let run = bench.run(["check", "--read-data", "--no-record"]).expect(4);
    assert!(run.stdout.contains("parity makes it good: `repair packs`"), "{run:?}");
    let dry = bench.run(["repair", "packs", "--read-data", "--dry-run"]).expect(0);
    assert!(dry.stdout.contains("would be mended by its parity"), "{dry:?}");
    let run = bench.run(["repair", "packs", "--read-data", "--json"]).expect(0);
    let summary = run.last("summary");
    assert_eq!(summary["packs_mended"], summary["packs_damaged"], "{summary}");
    assert_eq!(summary["packs_dropped"], 0, "{summary}");
    let after = stored(&bench);
    for (path, bytes) in before {
        assert!(after.get(&path) == Some(&bytes), "{} is as it was", path.display());
    }
    bench.run(["check", "--read-data"]).expect(0);
    restores(&bench, "out");
}

/// Overwrites so many whole sectors of a file, or cuts it off in the last one, at places that follow from `seed`.
fn lose_sectors(path: &Path, sectors: u64, seed: u64) {
    let mut bytes = fs::read(path).expect("an object");
    let all = (bytes.len() as u64).div_ceil(4096);
    // Of an odd number no two are the same within a round.
    let step = (seed * 7919 + 1) % all;
    for lost in 0..sectors.min(all) {
        let at = usize::try_from((step + lost * (all / sectors.max(1)).max(1)) % all * 4096).expect("small");
        let end = bytes.len().min(at + 4096);
        let filler = noise(seed + lost, end - at);
        bytes[at..end].copy_from_slice(&filler);
    }
    overwrite(path, &bytes);
}

#[test]
fn sectors_lost_anywhere_in_real_files_come_back() {
    let bench = covered();
    let is_key = |path: &Path| path.starts_with(bench.repository().join("keys"));
    let before: Vec<_> = stored(&bench).into_iter().filter(|(path, _)| !is_key(path)).collect();
    for seed in 0..6 {
        for (path, bytes) in &before {
            // A pack of 3 MiB has some 24 shards of parity, the smallest objects have one at least.
            let sectors = if bytes.len() > 1 << 20 { 1 + 3 * seed } else { 1 };
            lose_sectors(path, sectors, seed);
        }
        // Parity lies twice where it tells of itself: one end of each sidecar may go, too.
        for (number, sidecar) in (0..).zip(bench.objects("parity")) {
            let mut bytes = fs::read(&sidecar).expect("parity");
            let at = if number % 2 == 0 { 30 } else { bytes.len() - 3 };
            bytes[at] ^= 0x40;
            overwrite(&sidecar, &bytes);
        }
        let run = bench.run(["repair", "objects", "--json"]).expect(0);
        assert_eq!(run.last("summary")["objects_left"], 0, "seed {seed}: {run:?}");
        bench.run(["repair", "packs", "--read-data", "--json"]).expect(0);
        let after = stored(&bench);
        for (path, bytes) in &before {
            assert!(after.get(path) == Some(bytes), "seed {seed}: {} is as it was", path.display());
        }
        // Parity that was hurt itself is made again for the next round.
        bench.run(["parity", "drop"]).expect(0);
        bench.run(["parity", "add"]).expect(0);
    }
    bench.run(["check", "--read-data"]).expect(0);
    restores(&bench, "out");
}

#[test]
fn a_log_that_lost_its_end_is_whole_again() {
    let bench = covered();
    let log = bench.objects("log");
    for path in &log[log.len() - 2..] {
        fs::remove_file(path).expect("removed");
    }
    // It is remembered that there was more.
    bench.run(["snapshots"]).expect(4);
    let run = bench.run(["repair", "objects"]).expect(0);
    assert_eq!(run.stdout.matches("mended: log/").count(), 2, "{run:?}");
    assert_eq!(bench.objects("log"), log);
    bench.run(["check", "--read-data"]).expect(0);
    restores(&bench, "out");
}

#[test]
fn parity_is_added_and_dropped_at_any_time() {
    let bench = Bench::new();
    back_up(&bench);
    let status = bench.run(["parity", "status", "--json"]).expect(0).last("summary");
    assert!(status["tenths_of_percent"].is_null(), "{status}");
    let added = bench.run(["parity", "add", "--overhead", "2.5%", "--json"]).expect(0).last("summary");
    assert_eq!((&added["tenths_of_percent"], &added["objects_damaged"]), (&25.into(), &0.into()), "{added}");
    let again = bench.run(["parity", "add", "--json"]).expect(0).last("summary");
    assert_eq!((&again["tenths_of_percent"], &again["objects_covered"]), (&25.into(), &0.into()), "{again}");
    let run = bench.run(["parity", "status"]).expect(0);
    assert!(run.stdout.contains("2.5%") && run.stdout.contains("packs:"), "{run:?}");
    bench.run(["check", "--read-data"]).expect(0);
    let log = bench.run(["log"]).expect(0).stdout;
    assert!(log.contains("parity of 2.5% wanted"), "{log}");

    // Pruning deletes the parity of what goes.
    bench.write("src/large", noise(8, 3 << 20));
    bench.run(["backup", "src"]).expect(0);
    bench.run(["forget", "--keep-last", "1", "--group-by", "host"]).expect(0);
    bench.run(["prune", "--grace", "0s"]).expect(0);
    bench.run(["prune", "--grace", "0s"]).expect(0);
    let status = bench.run(["parity", "status", "--json"]).expect(0).last("summary");
    assert_eq!(status["other_sidecars"], 0, "{status}");
    for one in status["coverage"].as_array().expect("folders") {
        assert_eq!(one["uncovered"], 0, "{status}");
    }
    let dropped = bench.run(["parity", "drop", "--json"]).expect(0).last("summary");
    assert!(dropped["sidecars_removed"].as_u64() > Some(4), "{dropped}");
    assert!(bench.objects("parity").is_empty());
    bench.run(["backup", "src"]).expect(0);
    assert!(bench.objects("parity").is_empty());
    let run = bench.run(["check", "--read-data"]).expect(0);
    assert!(!run.stdout.contains("parity"), "{run:?}");
}

#[test]
fn parity_is_not_made_of_damaged_objects() {
    let bench = Bench::new();
    back_up(&bench);
    let packs = bench.objects("packs").into_iter();
    let largest = packs.max_by_key(|pack| fs::metadata(pack).expect("a pack").len()).expect("packs");
    lose_a_sector(&largest);
    let run = bench.run(["parity", "add"]).expect(4);
    let name = largest.file_name().and_then(|name| name.to_str()).expect("hex");
    assert!(run.stdout.contains(name) && run.stdout.contains("would keep the damage"), "{run:?}");
}

/// Where the parity of a log entry is.
fn sidecar_of(bench: &Bench, entry: &Path) -> PathBuf {
    let number = entry.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let key = strongroom::sidecar::key_of(&ObjectKey::log(number.expect("a number"))).expect("it has some");
    bench.repository().join(key.as_str())
}

#[test]
fn a_repair_after_which_commits_are_missing_is_no_success() {
    let bench = covered();
    let log = bench.objects("log");
    let (last, one) = (&log[log.len() - 1], &log[log.len() - 2]);
    for path in [one, last, &sidecar_of(&bench, last)] {
        fs::remove_file(path).expect("removed");
    }
    let dry = bench.run(["repair", "objects", "--dry-run"]).expect(4);
    assert!(dry.stdout.contains("can be mended: log/"), "{dry:?}");
    let run = bench.run(["repair", "objects"]).expect(4);
    assert!(run.stdout.contains("mended: log/") && run.message().contains("commits are gone"), "{run:?}");
    // Who has not seen them cannot know.
    bench.run(["repair", "objects", "--no-state"]).expect(0);
    bench.run(["repair", "objects"]).expect(4);
}

#[test]
fn nothing_is_written_over_commits_that_parity_gives_back() {
    let bench = covered();
    let last = bench.objects("log").pop().expect("a commit");
    let whole = fs::read(&last).expect("an entry");
    lose_a_sector(&last);
    for command in ["backup src --no-state", "prune --no-state", "parity drop --no-state"] {
        let run = bench.run(command.split(' ')).expect(4);
        assert!(run.stderr.contains("strongroom repair objects"), "{run:?}");
    }
    bench.run(["repair", "objects"]).expect(0);
    assert_eq!(fs::read(&last).expect("an entry"), whole);
    fs::remove_file(&last).expect("removed");
    let run = bench.run(["backup", "src", "--no-state"]).expect(4);
    assert!(run.message().contains("is gone from the end"), "{run:?}");
    assert!(run.stderr.contains("repair log --accept-loss"), "{run:?}");
    let run = bench.run(["check", "--no-state"]).expect(4);
    assert!(run.stdout.contains("it is lost") && run.stdout.contains("parity makes it good"), "{run:?}");
    bench.run(["repair", "objects", "--no-state"]).expect(0);
    bench.run(["backup", "src"]).expect(0);
    restores(&bench, "out");
}

/// An entry that passes for a newer version's, a keyslot and the config.
#[test]
fn what_keeps_a_repository_from_opening_gets_its_bytes_back() {
    let bench = covered();
    let before = stored(&bench);
    let config = bench.repository().join("config");
    let mut paths = vec![bench.objects("log").remove(1), bench.objects("keys").remove(0), config.clone()];
    let whole = fs::read(&config).expect("a config");
    for path in &paths {
        let mut bytes = fs::read(path).expect("an object");
        bytes[6] ^= 3;
        overwrite(path, &bytes);
        assert_ne!(bench.run(["snapshots"]).code, 0);
        let run = bench.run(["check", "--no-record"]).expect(4);
        assert!(run.stdout.contains("parity makes it good"), "{}: {run:?}", path.display());
        bench.run(["repair", "objects"]).expect(0);
        bench.run(["check", "--no-record"]).expect(0);
    }
    let config = paths.pop().expect("the last");
    fs::remove_file(&config).expect("removed");
    let run = bench.run(["snapshots"]).expect(4);
    assert!(run.stderr.contains("repair objects"), "{run:?}");
    bench.run(["init"].into_iter().chain(CHEAP)).expect(1);
    bench.run(["repair", "objects"]).expect(0);
    assert_eq!(fs::read(&config).expect("a config"), whole);
    assert!(stored(&bench) == before, "all is as it was");
}

/// A file in the place of the folder: nothing can be listed, read or stored there.
#[test]
fn parity_that_cannot_be_reached_is_told_and_fails_nothing() {
    let bench = covered();
    let parity = bench.repository().join("parity");
    fs::remove_dir_all(&parity).expect("removed");
    fs::write(&parity, "no folder").expect("a file");
    bench.write("src/new", "new");
    let run = bench.run(["backup", "src"]).expect(0);
    assert!(run.stderr.contains("has no parity yet") && run.stderr.contains("parity add"), "{run:?}");
    let run = bench.run(["prune"]).expect(0);
    assert!(run.stderr.contains("could not be looked for"), "{run:?}");
    let run = bench.run(["check", "--read-data"]).expect(0);
    assert!(run.stdout.contains("note: parity: "), "{run:?}");
    restores(&bench, "out");
}

#[test]
fn bad_input_is_refused() {
    let bench = Bench::new();
    for bad in ["3", "0%", "101%", "3.25%", "much"] {
        let run = bench.run(["parity", "add", "--overhead", bad]).expect(2);
        assert!(run.stderr.contains("0.1% to 100%"), "{run:?}");
    }
    bench.run(["parity"]).expect(2);
    let other = Bench::empty();
    other.run(["init", "--parity", "none"]).expect(2);
}
