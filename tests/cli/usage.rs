//! `stats --by` and `stats --free`.

use crate::support::{Bench, noise};

/// Three snapshots: of 200 kB that stay, and of 300 kB that change each time.
fn three_snapshots() -> Bench {
    let bench = Bench::new();
    bench.write("src/kept/file", noise(9, 200_000));
    for seed in 1..=3 {
        bench.write("src/changing/file", noise(seed, 300_000));
        bench.run(["backup", "src"]).expect(0);
    }
    bench
}

fn sizes(lines: &[serde_json::Value], name: &str) -> Vec<u64> {
    let usages = lines.iter().filter(|line| line["type"] == "usage");
    usages.map(|line| line[name].as_u64().expect("a number")).collect()
}

fn about(bytes: u64) -> std::ops::Range<u64> {
    bytes..bytes + bytes / 20
}

#[test]
fn each_snapshot_is_told_its_own_space_and_that_with_all_older() {
    let bench = three_snapshots();
    let run = bench.run(["stats", "--by", "snapshot", "--json"]).expect(0);
    let unique = sizes(&run.lines(), "unique_size");
    assert_eq!(unique.len(), 3);
    assert!(unique.iter().all(|bytes| about(300_000).contains(bytes)), "{unique:?}");
    let last = sizes(&run.lines(), "last_size");
    assert!(about(300_000).contains(&last[0]) && about(500_000).contains(&last[2]), "{last:?}");
    let text = bench.run(["stats", "--by", "snapshot"]).expect(0).stdout;
    assert_eq!(text.lines().count(), 4, "{text}");
    bench.run(["snapshot", "hold", "latest", "--reason", "audit"]).expect(0);
    let text = bench.run(["stats", "--by", "snapshot"]).expect(0).stdout;
    assert!(text.contains("held"), "{text}");
}

#[test]
fn hosts_and_directories_have_theirs() {
    let bench = three_snapshots();
    bench.run(["backup", "src/kept", "--host", "other"]).expect(0);
    let hosts = bench.run(["stats", "--by", "host", "--json"]).expect(0);
    let unique = sizes(&hosts.lines(), "unique_size");
    assert!(unique.iter().any(|bytes| about(900_000).contains(bytes)), "{unique:?}");
    assert!(unique.iter().any(|bytes| *bytes < 10_000), "the other host shares all it has: {unique:?}");
    let snapshots = bench.run(["snapshots", "--json"]).expect(0).stdout;
    let snapshots: serde_json::Value = serde_json::from_str(&snapshots).expect("an array");
    let snapshot = snapshots[2]["id"].as_str().expect("an id");
    let place = format!("{snapshot}:{}", bench.path("src").display());
    let paths = bench.run(["stats", "--by", "path", "--snapshot", &place, "--json"]).expect(0);
    let lines = paths.lines();
    let names: Vec<_> = lines.iter().filter_map(|line| line["path"].as_str()).collect();
    assert!(
        names[0].ends_with("/src/changing") && names[1].ends_with("/src/kept"),
        "the largest first: {names:?}"
    );
    let unique = sizes(&lines, "unique_size");
    assert!(about(300_000).contains(&unique[0]) && about(200_000).contains(&unique[1]), "{unique:?}");
    let text = bench.run(["stats", "--by", "path", "--depth", "2"]).expect(0).stdout;
    assert!(text.contains("(files in it)"), "{text}");
    bench.run(["stats", "--by", "path", "--snapshot", &format!("{place}/kept/file")]).expect(1);
    bench.run(["stats", "--by", "host", "--snapshot", "latest"]).expect(2);
    bench.run(["stats", "--depth", "2"]).expect(2);
    bench.run(["stats", "--snapshot", &place]).expect(2);
}

#[test]
fn what_is_named_for_a_size_gives_it_back() {
    let bench = three_snapshots();
    let plan = bench.run(["stats", "--free", "500K", "--json"]).expect(0).last("summary");
    assert_eq!(plan["is_enough"], true, "{plan}");
    let ids: Vec<_> =
        plan["snapshots"].as_array().expect("ids").iter().map(|id| id.as_str().expect("one")).collect();
    assert_eq!(ids.len(), 2);
    let before = bench.packs_bytes();
    bench.run([&["forget"], ids.as_slice()].concat()).expect(0);
    bench.run(["prune", "--grace", "0s", "--max-unused", "0"]).expect(0);
    let freed = before - bench.packs_bytes();
    let told = plan["freed_size"].as_u64().expect("a number");
    assert!(freed.abs_diff(told) < told / 10, "freed {freed}, told {told}");
    let none = bench.run(["stats", "--free", "1T", "--json"]).expect(0).last("summary");
    assert_eq!(none["is_enough"], false, "{none}");
    let text = bench.run(["stats", "--free", "1T"]).expect(0).stdout;
    assert!(text.contains("less than"), "{text}");
    bench.run(["stats", "--free", "much"]).expect(2);
}

#[test]
fn the_only_snapshot_of_a_host_is_not_proposed() {
    let bench = Bench::new();
    bench.write("src/file", noise(1, 200_000));
    bench.run(["backup", "src", "--host", "alone"]).expect(0);
    for seed in 2..=4 {
        bench.write("src/file", noise(seed, 200_000));
        bench.run(["backup", "src", "--host", "nightly"]).expect(0);
    }
    let list = bench.run(["snapshots", "--json"]).expect(0).stdout;
    let list: Vec<serde_json::Value> = serde_json::from_str(&list).expect("an array");
    let plan = bench.run(["stats", "--free", "1K", "--json"]).expect(0).last("summary");
    assert_eq!(plan["snapshots"], serde_json::json!([list[1]["id"]]), "{plan}");
    assert_eq!(plan["needs_allow_mass"], false);
    let all = bench.run(["stats", "--free", "1T", "--json"]).expect(0).last("summary");
    assert_eq!(all["snapshots"], serde_json::json!([list[1]["id"], list[2]["id"]]), "{all}");
    assert_eq!(all["is_enough"], false);
    let ids: Vec<_> =
        all["snapshots"].as_array().expect("ids").iter().map(|id| id.as_str().expect("one")).collect();
    bench.run([&["forget"], ids.as_slice()].concat()).expect(0);
}
