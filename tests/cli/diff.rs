//! `diff`: what two snapshots differ in.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::Bench;

/// Two snapshots of a source in which everything happened once; ids and the source's path.
fn changed() -> (Bench, [String; 2], String) {
    let bench = Bench::new();
    let source = bench.source().canonicalize().expect("there");
    bench.write("src/gone/deep/x", "x");
    bench.write("src/same/y", "y");
    bench.write("src/kind", "a file");
    bench.write("src/mode", "m");
    let id = |bench: &Bench| {
        let summary = bench.run(["backup", "src", "--json"]).expect(0).last("summary");
        summary["snapshot_id"].as_str().expect("an id").to_owned()
    };
    let first = id(&bench);
    fs::remove_dir_all(bench.path("src/gone")).expect("removed");
    fs::remove_file(bench.path("src/kind")).expect("removed");
    bench.write("src/kind/inside", "in");
    bench.write("src/new", "12345");
    bench.write("src/a.txt", "alpha and more");
    fs::set_permissions(bench.path("src/mode"), fs::Permissions::from_mode(0o600)).expect("changed");
    let second = id(&bench);
    (bench, [first, second], source.display().to_string())
}

fn changes(lines: &[Value], source: &str) -> Vec<String> {
    let line = |line: &Value| {
        let path = line["path"].as_str().expect("a path");
        let below = path.strip_prefix(source).unwrap_or("(above)");
        format!("{} {below}", line["modifier"].as_str().expect("a letter"))
    };
    lines.iter().filter(|line| line["type"] == "change").map(line).collect()
}

#[test]
fn differences_are_told_in_the_order_of_paths() {
    let (bench, [first, second], source) = changed();
    let run = bench.run(["diff", &first, &second, "--json"]).expect(0);
    let expected =
        ["M /a.txt", "- /gone", "- /gone/deep", "- /gone/deep/x", "T /kind", "+ /kind/inside", "+ /new"];
    assert_eq!(changes(&run.lines(), &source), expected);
    let lines = run.lines();
    assert_eq!((&lines[0]["before"]["size"], &lines[0]["after"]["size"]), (&5.into(), &14.into()));
    assert_eq!((&lines[1]["after"], &lines[6]["before"]), (&Value::Null, &Value::Null));
    let summary = run.last("summary");
    assert_eq!((&summary["added"]["files"], &summary["added"]["bytes"]), (&2.into(), &7.into()));
    assert_eq!((&summary["removed"]["files"], &summary["removed"]["dirs"]), (&1.into(), &2.into()));
    assert_eq!(summary["changed_before"]["bytes"], 5);
    assert_eq!(summary["changed_after"]["bytes"], 14);
    assert_eq!(summary["types_changed"], 1);

    let run = bench.run(["diff", &first, &second, &source, "--metadata", "--json"]).expect(0);
    let told = changes(&run.lines(), &source);
    assert!(told.contains(&"U /mode".to_owned()) && told.contains(&"U ".to_owned()), "{told:?}");
    assert_eq!(run.last("summary")["metadata_changed"], 2);

    let back = bench.run(["diff", &second, &first, &source, "--json"]).expect(0);
    let expected =
        ["M /a.txt", "+ /gone", "+ /gone/deep", "+ /gone/deep/x", "T /kind", "- /kind/inside", "- /new"];
    assert_eq!(changes(&back.lines(), &source), expected);
}

#[test]
fn parts_counts_and_text() {
    let (bench, [first, second], source) = changed();
    let run = bench.run(["diff", &first, &second, &format!("{source}/gone")]).expect(0);
    assert!(run.stdout.starts_with(&format!("-  {source}/gone/\n-  {source}/gone/deep/\n")), "{run:?}");
    let run = bench.run(["diff", &first, &second, "--stat"]).expect(0);
    assert!(run.stdout.contains("Added:     2 files, 0 directories, 0 others, 7 B"), "{run:?}");
    assert!(!run.stdout.contains("a.txt"), "{run:?}");
    let stat = bench.run(["diff", &first, &second, "--stat", "--json"]).expect(0);
    assert_eq!(stat.lines().len(), 1);
    let same = bench.run(["diff", "latest", "latest", "--metadata", "--json"]).expect(0);
    assert_eq!((same.lines().len(), &same.last("summary")["metadata_changed"]), (1, &0.into()));
    let none = bench.run(["diff", &first, &second, "/no/such"]).expect(1);
    assert!(none.message().contains("/no"), "{none:?}");
    bench.run(["diff", &first, "ffffffff"]).expect(1);
    bench.run(["diff", &first]).expect(2);
}

/// A tree that is the same in both snapshots is not read: that it is gone does no harm. One that differs is missed.
#[test]
fn what_is_the_same_is_not_read() {
    let bench = Bench::new();
    bench.write("src/same/deep/y", "y");
    let back_up = |content: &str| {
        bench.write("src/z", content);
        let summary = bench.run(["backup", "src", "--json"]).expect(0).last("summary");
        summary["snapshot_id"].as_str().expect("an id").to_owned()
    };
    let first = back_up("1");
    let packs = bench.objects("packs");
    let (second, third) = (back_up("22"), back_up("333"));
    packs.iter().for_each(|pack| fs::remove_file(pack).expect("removed"));
    let run = bench.run(["diff", &second, &third, "--json"]).expect(0);
    assert_eq!(run.last("summary")["changed_after"]["files"], 1);
    assert_eq!(run.last("summary")["changed_after"]["bytes"], 3);
    bench.run(["diff", &first, &third, "--json"]).expect(4);
}
