//! `check`: no damage is 0, damage is 4 and named, no answer is 5.

use std::fs;

use crate::support::{Bench, overwrite};

fn backed_up() -> Bench {
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    bench
}

#[test]
fn a_new_repository_is_in_order() {
    let bench = Bench::new();
    bench.run(["check"]).expect(0);
    let summary = bench.run(["check", "--json"]).expect(0).last("summary");
    assert_eq!((&summary["num_errors"], &summary["cancelled"]), (&0.into(), &false.into()));
}

#[test]
fn a_broken_log_is_damage_though_the_repository_does_not_open() {
    let bench = Bench::new();
    let file = bench.write("new-password", "two");
    let mut add = bench.command();
    add.args(["key", "add", "--new-password-file"]).arg(file).args(crate::support::CHEAP);
    crate::support::Run::of(&mut add).expect(0);
    let first = bench.objects("log").remove(0);
    let mut bytes = fs::read(&first).expect("an entry");
    bytes[100] ^= 1;
    overwrite(&first, &bytes);
    let run = bench.run(["check", "--json"]).expect(4);
    assert_eq!(run.last("error")["exit_code"], 4);
}

#[test]
fn reading_all_data_counts_it() {
    let bench = backed_up();
    let summary = bench.run(["check", "--json", "--read-data"]).expect(0).last("summary");
    assert_eq!(summary["packs_read"], bench.objects("packs").len());
    assert!(summary["blobs_verified"].as_u64().expect("a number") >= 5);
    for subset in ["100%", "1/1", "5GiB"] {
        bench.run(["check", "--read-data-subset", subset]).expect(0);
    }
}

#[test]
fn what_was_verified_is_remembered() {
    let bench = backed_up();
    let packs = bench.objects("packs").len();
    let run = bench.run(["cat", "ledger"]).expect(1);
    assert!(run.stderr.contains("no ledger"), "{run:#?}");
    bench.run(["check", "--no-record"]).expect(0);
    bench.run(["cat", "ledger"]).expect(1);
    for left in (0..packs).rev() {
        let summary = bench.run(["check", "--json", "--budget", "1"]).expect(0).last("summary");
        assert_eq!((&summary["packs_read"], &summary["packs_never_read"]), (&1.into(), &left.into()));
        assert!(summary["oldest_read"]["time"].is_string(), "{summary}");
    }
    let summary = bench.run(["check", "--json", "--max-age", "30d"]).expect(0).last("summary");
    assert_eq!(summary["packs_read"], 0, "all were read just now");
    let summary =
        bench.run(["check", "--json", "--max-age", "30d", "--hashes-only"]).expect(0).last("summary");
    assert_eq!(summary["packs_read"], 0, "reading is more than hashing");
    let ledger = bench.run(["cat", "ledger", "--json"]).expect(0).lines().pop().expect("a line");
    let read =
        ledger["verified"].as_array().expect("a list").iter().filter(|entry| entry["method"] == "read");
    assert_eq!(read.count(), packs);
    assert!(bench.run(["log"]).expect(0).stdout.contains("verification ledger"));
    assert_eq!(bench.objects("ledger").len(), 1);
}

#[test]
fn a_repository_from_before_ledgers_gets_one() {
    let bench = backed_up();
    fs::remove_dir(bench.repository().join("ledger")).expect("an empty folder");
    bench.run(["check"]).expect(0);
    assert_eq!(bench.objects("ledger").len(), 1);
}

#[test]
fn a_flipped_bit_is_found_and_the_files_are_named() {
    let bench = backed_up();
    for pack in bench.objects("packs") {
        let good = fs::read(&pack).expect("a pack");
        let mut bad = good.clone();
        bad[90] ^= 1;
        overwrite(&pack, &bad);
        let run = bench.run(["check", "--json", "--read-data"]).expect(4);
        let name = pack.file_name().and_then(|name| name.to_str()).expect("hex");
        assert!(
            run.lines().iter().any(|line| line["type"] == "error"
                && line["object"].as_str().is_some_and(|object| object.contains(name))),
            "{run:#?}"
        );
        assert!(run.lines().iter().any(|line| line["code"] == "file-hit"), "{run:#?}");
        assert!(run.last("summary")["num_errors"].as_u64().expect("a number") >= 1);
        overwrite(&pack, &good);
    }
    bench.run(["check", "--read-data"]).expect(0);
}

#[test]
fn missing_objects_are_found_without_reading_data() {
    for folder in ["packs", "index"] {
        let bench = backed_up();
        fs::remove_file(bench.objects(folder).remove(0)).expect("removed");
        let run = bench.run(["check"]).expect(4);
        assert!(!run.stdout.is_empty() || !run.stderr.is_empty(), "{folder}");
    }
}
