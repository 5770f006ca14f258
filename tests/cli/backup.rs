//! `backup`, and what `snapshots`, `ls`, `cat` and `stats` say of its result.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Bench, Run, cannot};

fn snapshots(bench: &Bench) -> Vec<Value> {
    let run = bench.run(["snapshots", "--json"]).expect(0);
    serde_json::from_str(&run.stdout).expect("a JSON array")
}

fn listed(bench: &Bench, what: &str) -> Vec<String> {
    bench.run(["ls", "-R", what]).expect(0).stdout.lines().map(str::to_owned).collect()
}

/// Other metadata takes space, too, although nothing of a file's content is stored.
#[test]
fn what_is_stored_is_counted_with_metadata() {
    let bench = Bench::new();
    let source = bench.source();
    let back_up = || {
        let before = bench.packs_bytes();
        let summary = bench.run(["backup", "src", "--json"]).expect(0).last("summary");
        let number = |name: &str| summary[name].as_u64().expect("a number");
        let (data, metadata) = (number("data_stored"), number("metadata_stored"));
        assert_eq!(data + metadata, bench.packs_bytes() - before, "{summary}");
        (data, metadata)
    };
    let (data, metadata) = back_up();
    assert!(data > 0 && metadata > 0);
    fs::set_permissions(source.join("a.txt"), PermissionsExt::from_mode(0o600)).expect("changed");
    let (data, metadata) = back_up();
    assert!(data == 0 && metadata > 0, "{data} {metadata}");
    fs::write(source.join("a.txt"), "more").expect("written");
    let text = bench.run(["backup", "src"]).expect(0).stdout;
    assert!(text.contains("\nIn packs:  ") && text.contains(" of metadata\n"), "{text}");
}

#[test]
fn a_backup_is_a_snapshot_that_can_be_listed() {
    let bench = Bench::new();
    let source = bench.source();
    let run = bench.run(["backup", "--json", "--tag", "a,b", "--host", "box", "src"]).expect(0);
    let summary = run.last("summary");
    assert_eq!((&summary["files_new"], &summary["total_files_processed"]), (&3.into(), &3.into()));
    assert_eq!(summary["total_bytes_processed"], 5 + 4000 + 6);
    assert!(summary["total_duration"].is_f64());
    let [snapshot] = &snapshots(&bench)[..] else { panic!("one snapshot") };
    assert_eq!(snapshot["id"], summary["snapshot_id"]);
    assert_eq!(snapshot["short_id"], snapshot["id"].as_str().expect("an id")[..8]);
    assert_eq!(snapshot["hostname"], "box");
    assert_eq!(snapshot["tags"], serde_json::json!(["a", "b"]));
    let canonical = source.canonicalize().expect("there");
    assert_eq!(snapshot["paths"], serde_json::json!([canonical]));
    assert_eq!(snapshot["partial"], false);
    assert_eq!(snapshot["time"].as_str().map(str::len), Some("2026-01-01T00:00:00.000000000Z".len()));
    let below = |name: &str| canonical.join(name).to_str().expect("UTF-8").to_owned();
    let inside = listed(&bench, &format!("latest:{}", canonical.display()));
    assert_eq!(inside, [below("a.txt"), below("sub"), below("sub/b.txt"), below("sub/c.o")]);
    let table = bench.run(["snapshots"]).expect(0).stdout;
    assert!(table.contains("box") && table.contains("a,b"), "{table}");
}

#[test]
fn an_unchanged_source_is_taken_over() {
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    let second = bench.run(["backup", "--json", "src"]).expect(0).last("summary");
    assert_eq!(second["files_unmodified"], 3);
    // The tree above, where other tests make folders meanwhile, may be new; the contents are 4010 bytes.
    assert!(second["data_added"].as_u64().expect("a number") < 1000, "{second}");
    assert_eq!(second["parent"], snapshots(&bench)[0]["id"]);
    // What is above the source does not count.
    bench.write("beside", "the source");
    let third = bench.run(["backup", "--json", "--skip-if-unchanged", "src"]).expect(0).last("summary");
    assert_eq!(third["snapshot_id"], Value::Null);
    let forced = bench.run(["backup", "--json", "--force", "src"]).expect(0).last("summary");
    assert_eq!((&forced["files_new"], &forced["parent"]), (&3.into(), &Value::Null));
    assert_eq!(snapshots(&bench).len(), 3);
    for change in ["src/new", "src/sub/b.txt"] {
        bench.write(change, "new content");
        let run = bench.run(["backup", "--json", "--skip-if-unchanged", "src"]).expect(0);
        assert!(run.last("summary")["snapshot_id"].is_string(), "{change}");
    }
    fs::remove_file(bench.path("src/new")).expect("removed");
    let run = bench.run(["backup", "--json", "--skip-if-unchanged", "src"]).expect(0);
    assert!(run.last("summary")["snapshot_id"].is_string());
    let run = bench.run(["backup", "--json", "--skip-if-unchanged", "src"]).expect(0);
    assert_eq!(run.last("summary")["snapshot_id"], Value::Null);
}

#[test]
fn a_dry_run_writes_nothing() {
    let bench = Bench::new();
    bench.source();
    let before = bench.objects("");
    let summary = bench.run(["backup", "--json", "--dry-run", "src"]).expect(0).last("summary");
    assert_eq!((&summary["dry_run"], &summary["files_new"]), (&true.into(), &3.into()));
    assert_eq!(summary["snapshot_id"], Value::Null);
    assert_eq!(bench.objects(""), before);
}

#[test]
fn what_is_excluded_is_left_out() {
    let bench = Bench::new();
    bench.source();
    bench.write("patterns", "# objects\n*.o\n");
    bench.write("src/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");
    bench.write("src/cache/x", "x");
    bench.write("src/big", vec![0; 5000]);
    let mut command = bench.command();
    command.args(["backup", "--exclude-file", "patterns", "--exclude-caches"]);
    Run::of(command.args(["--exclude-larger-than", "4500", "--iexclude", "A.TXT", "src"])).expect(0);
    let all = listed(&bench, "latest").join("\n");
    assert!(all.contains("b.txt") && all.contains("CACHEDIR.TAG"), "{all}");
    for left_out in ["c.o", "a.txt", "big", "cache/x"] {
        assert!(!all.contains(left_out), "{left_out} in {all}");
    }
    let run = bench.run(["backup", "--exclude", "[", "src"]).expect(2);
    assert!(run.message().contains("\"[\""), "{run:?}");
}

#[test]
fn lists_of_paths_are_read() {
    let bench = Bench::new();
    bench.source();
    bench.write("lines", "src/a.txt\n");
    bench.write("nul", "src/sub/b.txt\0");
    bench.run(["backup", "--files-from", "lines", "--files-from0", "nul"]).expect(0);
    let all = listed(&bench, "latest").join("\n");
    assert!(all.contains("a.txt") && all.contains("b.txt") && !all.contains("c.o"), "{all}");
    bench.write("empty", "# nothing\n");
    bench.run(["backup", "--files-from", "empty"]).expect(2);
}

#[test]
fn a_stream_is_a_file_of_the_name_given() {
    let bench = Bench::new();
    let mut child = bench
        .command()
        .args(["backup", "--stdin-filename", "dump.sql"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("built");
    child.stdin.take().expect("piped").write_all(b"select 1;").expect("written");
    Run::from(&child.wait_with_output().expect("ended")).expect(0);
    assert_eq!(listed(&bench, "latest"), ["/dump.sql"]);
}

#[test]
fn the_output_of_a_command_counts_only_if_it_succeeds() {
    let bench = Bench::new();
    bench.run(["backup", "--command", "out", "--", "sh", "-c", "echo hello"]).expect(0);
    assert_eq!(snapshots(&bench).len(), 1);
    let run = bench.run(["backup", "--command", "out", "--", "sh", "-c", "echo hello; exit 3"]).expect(1);
    assert!(run.message().contains("no snapshot"), "{run:?}");
    bench.run(["backup", "--command", "out", "--", "/no/such/program"]).expect(1);
    assert_eq!(snapshots(&bench).len(), 1);
}

#[test]
fn a_signal_ends_a_backup_that_waits_for_its_stream() {
    let bench = Bench::new();
    let mut child = bench
        .command()
        .args(["backup", "--command", "out", "--", "sh", "-c", "echo hello; : > started; exec sleep 1000"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("built");
    while !bench.path("started").exists() {
        assert_eq!(child.try_wait().expect("a child"), None, "ended before it was told to");
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
    let stderr = child.stderr.take();
    // Hangs here if the signal is not heeded, or if the command lives on with standard error in its hands.
    let said = std::io::read_to_string(stderr.expect("piped")).expect("text");
    assert_eq!(child.wait().expect("ended").code(), Some(1), "{said}");
    assert!(said.contains("cancelled"), "{said}");
    assert!(snapshots(&bench).iter().all(|snapshot| snapshot["partial"] == true));
}

#[test]
fn a_source_that_does_not_exist_is_an_error() {
    let bench = Bench::new();
    let run = bench.run(["backup", "missing"]).expect(1);
    assert!(run.message().contains("missing"), "{run:?}");
    assert!(snapshots(&bench).is_empty());
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_is_kept() {
    let bench = Bench::new();
    bench.source();
    let secret = bench.write("src/secret", "s");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("changed");
    if fs::read(&secret).is_ok() {
        return cannot("make a file that cannot be read", &"root reads everything");
    }
    let run = bench.run(["backup", "--json", "src"]).expect(3);
    let error = run.lines().into_iter().find(|line| line["type"] == "error").expect("reported");
    assert!(error["path"].as_str().expect("a path").ends_with("secret"), "{error}");
    assert_eq!(run.last("summary")["error_count"], 1);
    assert_eq!(snapshots(&bench).len(), 1);
}

#[test]
fn names_that_are_not_text_are_kept_exactly() {
    let bench = Bench::new();
    let folder = bench.path("src");
    fs::create_dir(&folder).expect("a folder");
    if let Err(error) = fs::write(folder.join(OsStr::from_bytes(b"bad\xff")), "x") {
        return cannot("make a file with a name that is no text", &error);
    }
    bench.run(["backup", "src"]).expect(0);
    let run = bench.run(["ls", "-R", "--json", "latest"]).expect(0);
    let node = run.lines().into_iter().find(|line| line["name_b64"].is_string()).expect("the file");
    assert_eq!((&node["name"], &node["name_b64"]), (&"bad\u{fffd}".into(), &"YmFk/w==".into()));
    assert_eq!((&node["struct_type"], &node["type"]), (&"node".into(), &"file".into()));
    assert!(node["path_b64"].is_string());
}

#[test]
fn long_listings_look_like_those_of_ls() {
    let bench = Bench::new();
    let file = bench.write("src/run.sh", "#!");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o750)).expect("changed");
    std::os::unix::fs::symlink("run.sh", bench.path("src/link")).expect("a link");
    bench.run(["backup", "src"]).expect(0);
    let run = bench.run(["ls", "-l", "-R", "latest"]).expect(0);
    let line =
        |end: &str| run.stdout.lines().find(|line| line.ends_with(end)).unwrap_or_else(|| panic!("{run:?}"));
    assert!(line("/run.sh").starts_with("-rwxr-x---"), "{run:?}");
    assert!(line("link -> run.sh").starts_with('l'), "{run:?}");
}

#[test]
fn entries_are_shown_to_those_who_ask() {
    let bench = Bench::new();
    bench.source();
    let run = bench.run(["backup", "-v", "src"]).expect(0);
    assert!(run.stdout.lines().any(|line| line.starts_with("new ") && line.ends_with("a.txt")), "{run:?}");
    let run = bench.run(["backup", "-v", "src"]).expect(0);
    assert!(!run.stdout.contains("a.txt"), "{run:?}");
    let run = bench.run(["backup", "-vv", "--json", "src"]).expect(0);
    let entry = run.lines().into_iter().find(|line| line["type"] == "verbose_status").expect("entries");
    assert_eq!(entry["action"], "unmodified");
    let run = bench.run(["backup", "-q", "src"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

#[test]
fn objects_lead_from_the_snapshot_to_the_pack() {
    let bench = Bench::new();
    bench.source();
    bench.run(["backup", "src"]).expect(0);
    let show = |what: &[&str]| -> Value {
        let run = bench.run(["cat"].iter().chain(what)).expect(0);
        serde_json::from_str(&run.stdout).expect("JSON")
    };
    let snapshot = show(&["snapshot", "latest"]);
    let tree = show(&["tree", snapshot["tree"].as_str().expect("a tree")]);
    assert_eq!(tree["nodes"].as_array().expect("entries").len(), 1);
    for pack in bench.objects("packs") {
        let pack = show(&["pack", pack.file_name().and_then(|name| name.to_str()).expect("hex")]);
        assert!(!pack["blocks"].as_array().expect("blocks").is_empty());
    }
}

#[test]
fn statistics_count_shared_content_once() {
    let bench = Bench::new();
    let content: Vec<u8> =
        (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    bench.write("src/one", &content);
    bench.write("src/two", &content);
    bench.run(["backup", "src"]).expect(0);
    bench.run(["backup", "src"]).expect(0);
    let all = bench.run(["stats", "--json"]).expect(0).last("summary");
    assert_eq!((&all["snapshots_count"], &all["total_file_count"]), (&2.into(), &4.into()));
    assert_eq!(all["total_restore_size"], 4 * content.len());
    assert_eq!(all["data"]["uncompressed_size"], content.len());
    assert_eq!(all["deduplication_ratio"], 4.0);
    let stored: u64 = bench.objects("packs").iter().map(|pack| pack.metadata().expect("a pack").len()).sum();
    assert_eq!(all["total_size"], stored);
    let one = bench.run(["stats", "--json", "--snapshot", "latest"]).expect(0).last("summary");
    assert_eq!(one["total_restore_size"], 2 * content.len());
    assert_eq!(one["data"]["uncompressed_size"], content.len());
    assert_eq!(one["data"]["blobs"], all["data"]["blobs"]);
}

#[test]
fn prefixes_that_name_several_snapshots_are_refused() {
    let bench = Bench::new();
    bench.source();
    // Of 17 ids two begin with the same digit.
    for _ in 0..17 {
        bench.run(["backup", "src"]).expect(0);
    }
    let ids: Vec<String> =
        snapshots(&bench).iter().map(|s| s["id"].as_str().expect("an id").to_owned()).collect();
    let twice = |c: char| ids.iter().filter(|id| id.starts_with(c)).count() > 1;
    let digit = "0123456789abcdef".chars().find(|c| twice(*c)).expect("more ids than digits");
    let run = bench.run(["ls", &digit.to_string()]).expect(1);
    assert!(run.message().contains("more digits"), "{run:?}");
    bench.run(["ls", &ids[0]]).expect(0);
}

/// The grain and the first chunk's length of a file in the latest snapshot.
fn cut_of(bench: &Bench, path: &Path) -> (Value, Value) {
    let last = snapshots(bench).pop().expect("a snapshot");
    let mut node = serde_json::json!({ "subtree": last["tree"] });
    for name in path.strip_prefix("/").expect("an absolute path") {
        let tree = node["subtree"].as_str().expect("a directory").to_owned();
        let lines = bench.run(["cat", "tree", &tree, "--json"]).expect(0).lines();
        let nodes = lines[0]["nodes"].as_array().expect("nodes");
        node =
            nodes.iter().find(|node| node["name"] == name.to_str().expect("UTF-8")).expect("there").clone();
    }
    (node["grain"].clone(), node["content"][0]["length"].clone())
}

#[test]
fn the_grain_follows_content_unless_it_is_ordered() {
    let bench = Bench::new();
    let mut database = b"SQLite format 3\0".to_vec();
    database.resize(400 << 10, 7);
    bench.write("src/app.db", &database);
    bench.write("src/plain.txt", vec![b'x'; 400 << 10]);
    bench.run(["backup", "src"]).expect(0);
    let directory = bench.path("src").canonicalize().expect("there");
    assert_eq!(cut_of(&bench, &directory.join("app.db")), ("page".into(), (16 << 10).into()));
    assert_eq!(cut_of(&bench, &directory.join("plain.txt")).0, "medium");

    let orders = ["--grain", "*.txt=page", "--grain", "app.db=1MiB"];
    bench.run(["backup", "--force", "src"].iter().chain(&orders)).expect(0);
    assert_eq!(cut_of(&bench, &directory.join("plain.txt")), ("page".into(), (16 << 10).into()));
    assert_eq!(cut_of(&bench, &directory.join("app.db")).0, "coarse");
}

#[test]
fn absurd_grains_are_refused() {
    let bench = Bench::new();
    bench.source();
    for (grain, why) in [("*.txt", "'*.vmdk=16KiB'"), ("*.txt=7", "\"7\""), ("*.txt=0", "page (16 KiB")] {
        let run = bench.run(["backup", "src", "--grain", grain]).expect(2);
        assert!(run.stderr.contains(why), "{}", run.stderr);
    }
    let run = bench.run(["backup", "src", "--grain", "[=fine"]).expect(2);
    assert!(run.message().contains('['), "{}", run.message());
}
