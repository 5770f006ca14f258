//! `find`: where and when something was in snapshots.

use std::fs;

use serde_json::Value;

use crate::support::{Bench, Run};

/// Three snapshots; `sub/b.txt` changes in the second, `old.txt` is only in the first; the last is of another host.
fn nights() -> (Bench, Vec<String>, String) {
    let bench = Bench::new();
    let source = bench.source().canonicalize().expect("there");
    bench.write("src/old.TXT", "was");
    let back_up = |host: &str| {
        let run = bench.run(["backup", "src", "--json", "--host", host]).expect(0);
        run.last("summary")["snapshot_id"].as_str().expect("an id").to_owned()
    };
    let first = back_up("a");
    bench.write("src/sub/b.txt", "other");
    fs::remove_file(bench.path("src/old.TXT")).expect("removed");
    let second = back_up("a");
    let ids = vec![first, second, back_up("b")];
    (bench, ids, source.display().to_string())
}

/// Path, size, first and last snapshot, and how many there are.
fn found(run: &Run, ids: &[String], source: &str) -> Vec<(String, u64, usize, usize, u64)> {
    let place = |id: &Value| ids.iter().position(|one| *id == *one).expect("one of them");
    let matches = run.lines().into_iter().filter(|line| line["type"] == "match");
    matches
        .map(|line| {
            let path = line["path"].as_str().expect("a path").strip_prefix(source).expect("below").to_owned();
            let number = |name: &str| line[name].as_u64().expect("a number");
            let (first, last) = (place(&line["first_snapshot"]), place(&line["last_snapshot"]));
            (path, number("size"), first, last, number("snapshots_count"))
        })
        .collect()
}

#[test]
fn every_version_is_told_with_the_snapshots_that_have_it() {
    let (bench, ids, source) = nights();
    let find = |args: &[&str]| {
        let run = bench.run([&["find", "--json"], args].concat()).expect(0);
        found(&run, &ids, &source)
    };
    let a = ("/a.txt".to_owned(), 5, 0, 2, 3);
    let b = [("/sub/b.txt".to_owned(), 4000, 0, 0, 1), ("/sub/b.txt".to_owned(), 5, 1, 2, 2)];
    let old = ("/old.TXT".to_owned(), 3, 0, 0, 1);
    assert_eq!(find(&["*.txt"]), [a.clone(), b[0].clone(), b[1].clone()]);
    assert_eq!(find(&["*.txt", "--ignore-case"]), [a.clone(), old.clone(), b[0].clone(), b[1].clone()]);
    assert_eq!(find(&["b.txt", "old.TXT"]), [old.clone(), b[0].clone(), b[1].clone()]);
    assert_eq!(find(&["sub/*.txt"]), b);
    assert_eq!(find(&[&format!("{source}/*.txt")]), std::slice::from_ref(&a));
    assert_eq!(find(&["/*.txt"]), []);
    assert_eq!(find(&["sub", "--type", "f"]), []);
    let sub = ("/sub".to_owned(), 0, 0, 2, 3);
    assert_eq!(find(&["sub", "--type", "d", "--type", "l"]), [sub]);
    assert_eq!(find(&["b.txt", "--snapshot", &ids[0]]), b[..1]);
    assert_eq!(find(&["b.txt", "--host", "a"]), [b[0].clone(), ("/sub/b.txt".to_owned(), 5, 1, 1, 1)]);
}

#[test]
fn text_summaries_and_what_cannot_be_meant() {
    let (bench, ids, source) = nights();
    let run = bench.run(["find", "old*"]).expect(0);
    let expected = format!("  {0}  {0}     1  {source}/old.TXT\n", &ids[0][..8]);
    assert!(run.stdout.starts_with("           3  ") && run.stdout.ends_with(&expected), "{run:?}");
    let none = bench.run(["find", "nothing"]).expect(0);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "nothing that matches in 3 snapshots\n"));
    let summary = bench.run(["find", "nothing", "--json"]).expect(0).last("summary");
    assert_eq!((&summary["matches"], &summary["snapshots_searched"]), (&0.into(), &3.into()));
    let host = bench.run(["find", "a.txt", "--host", "c"]).expect(0);
    assert!(host.stderr.contains("no snapshot has what"), "{host:?}");
    bench.run(["find"]).expect(2);
    bench.run(["find", "a["]).expect(2);
    bench.run(["find", "x", "--type", "q"]).expect(2);
    bench.run(["find", "x", "--snapshot", "latest", "--host", "a"]).expect(2);
    bench.run(["find", "x", "--snapshot", "ffffffff"]).expect(1);
}
