//! `init`, and what can be said of a repository without snapshots.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use strongroom::backend::LocalBackend;
use strongroom::crypto::keys::BlobKind;
use strongroom::crypto::{Password, SystemEntropy};
use strongroom::format::commit::Change;
use strongroom::format::tree::Timestamp;
use strongroom::ids::SnapshotId;
use strongroom::repo::{Environment, Repository};

use crate::support::{Bench, CHEAP, PASSWORD, Run, cannot, strongroom};

#[test]
fn init_makes_missing_folders_and_says_where() {
    let bench = Bench::empty();
    let place = bench.path("deep/er/repo");
    let run = Run::of(bench.command().arg("-r").arg(&place).arg("init").args(CHEAP)).expect(0);
    assert!(run.stdout.contains(place.to_str().expect("UTF-8")), "{run:?}");
    assert!(place.join("config").is_file() && place.join("packs").is_dir());
    let second = Run::of(bench.command().arg("-r").arg(&place).arg("init").args(CHEAP)).expect(1);
    assert!(second.message().contains("already"), "{second:?}");
    assert!(second.stderr.contains("\nhint: "), "{second:?}");
}

#[test]
fn init_wants_a_folder_of_its_own() {
    let bench = Bench::empty();
    let init = |place: &str| {
        let mut command = bench.command();
        Run::of(command.arg("-r").arg(bench.path(place)).arg("init").args(CHEAP))
    };
    bench.write("used/photo.jpg", "mine");
    let run = init("used").expect(1);
    let place = bench.path("used").display().to_string();
    assert!(run.message().contains(&place) && run.message().contains("\"photo.jpg\""), "{run:?}");
    assert!(
        run.stderr.contains(&format!("hint: name a folder of its own, such as {place}/strongroom")),
        "{run:?}"
    );
    assert_eq!(fs::read_dir(bench.path("used")).expect("there").count(), 1, "nothing was made");
    init("used/strongroom").expect(0);
    fs::create_dir_all(bench.path("disk/lost+found")).expect("made");
    init("disk").expect(0);
    // Somebody was interrupted while making it.
    fs::create_dir_all(bench.path("begun/packs")).expect("made");
    init("begun").expect(0);
    bench.write("repo/notes", "mine");
    assert_eq!(bench.run(["init", "--json"]).expect(1).last("error")["code"], "folder-not-empty");
}

#[test]
fn an_init_that_was_broken_off_is_gone_on_with_as_asked() {
    let bench = Bench::empty();
    Run::of(bench.command().env("STRONGROOM_NO_STATE", "1").arg("init").args(CHEAP)).expect(0);
    // As a kill leaves it before the first commit.
    let [commit] = &bench.objects("log")[..] else { panic!("one commit") };
    fs::remove_file(commit).expect("removed");
    let run = bench.run(["backup", "."]).expect(10);
    assert!(run.message().contains("has no first commit: `init` was broken off"), "{run:?}");
    assert!(run.stderr.contains("hint: `strongroom init` with the same password and all options"), "{run:?}");
    assert_eq!(bench.run(["check", "--json"]).expect(10).last("error")["code"], "init-unfinished");
    assert_eq!(bench.objects("log").len(), 0, "no other command makes it with less than was asked for");
    let run = bench.run(["init"]).expect(10);
    let cost =
        "its password was to cost 19456 KiB and 2 passes, and now 65536 KiB and 3 passes are asked for";
    assert!(run.message().contains(cost), "{run:?}");
    let run =
        Run::of(bench.command().env("STRONGROOM_PASSWORD", "another").arg("init").args(CHEAP)).expect(12);
    assert!(run.stderr.contains("hint: an `init` was broken off here"), "{run:?}");
    let wanted = ["--parity", "10%", "--reserve", "1MiB", "--label", "mine"];
    bench.run(["init"].into_iter().chain(CHEAP).chain(wanted)).expect(0);
    let keys = bench.run(["key", "list"]).expect(0).stdout;
    assert!(keys.contains("mine"), "{keys}");
    let status = bench.run(["parity", "status", "--json"]).expect(0).last("summary");
    assert_eq!(status["tenths_of_percent"], 100);
    let status = bench.run(["reserve", "status", "--json"]).expect(0).last("summary");
    assert_eq!((&status["wanted"], &status["kept_free"]), (&(1 << 20).into(), &(1 << 20).into()));
    assert_eq!(bench.objects("keys").len(), 1);
    bench.run(["init"].into_iter().chain(CHEAP)).expect(1);
}

#[test]
fn init_in_json_is_one_summary() {
    let bench = Bench::empty();
    let run = bench.run(["init", "--json"].into_iter().chain(CHEAP)).expect(0);
    let [line] = &run.lines()[..] else { panic!("{run:?}") };
    assert_eq!(line["type"], "summary");
    assert_eq!(line["id"].as_str().expect("an id").len(), 32);
    assert_eq!(run.stderr, "");
}

#[test]
fn schemes_for_local_folders_are_understood() {
    let bench = Bench::new();
    for scheme in ["file:", "local:"] {
        let mut place = std::ffi::OsString::from(scheme);
        place.push(bench.repository());
        Run::of(bench.command().arg("-r").arg(place).arg("snapshots")).expect(0);
    }
}

#[test]
fn passwords_come_from_everywhere() {
    let bench = Bench::new();
    let file = bench.write("password", format!("{PASSWORD}\n"));
    let print = format!("cat '{}'", file.display());
    let base = || {
        let mut command = strongroom();
        command.arg("snapshots").arg("-r").arg(bench.repository());
        command
    };
    Run::of(base().arg("--password-file").arg(&file)).expect(0);
    Run::of(base().arg("--password-command").arg(&print)).expect(0);
    Run::of(base().env("STRONGROOM_PASSWORD", PASSWORD)).expect(0);
    Run::of(base().env("STRONGROOM_PASSWORD_FILE", &file)).expect(0);
    Run::of(base().env("STRONGROOM_PASSWORD_COMMAND", &print)).expect(0);
    // An option counts more than the environment.
    Run::of(base().env("STRONGROOM_PASSWORD", "wrong").arg("--password-file").arg(&file)).expect(0);
    // Two sources of one rank are a question, not an answer.
    Run::of(base().env("STRONGROOM_PASSWORD", PASSWORD).env("STRONGROOM_PASSWORD_FILE", &file)).expect(2);
    // Nobody to ask.
    let run = Run::of(&mut base()).expect(2);
    assert!(run.stderr.contains("--password-file"), "{run:?}");
    Run::of(base().arg("--password-command").arg("exit 3")).expect(1);
}

#[test]
fn an_empty_repository_has_an_empty_list_of_snapshots() {
    let bench = Bench::new();
    let run = bench.run(["snapshots", "--json"]).expect(0);
    assert_eq!(run.stdout, "[]\n");
    let run = bench.run(["snapshots"]).expect(0);
    assert_eq!(run.stdout, "");
    for name in ["latest", "abcdef", "not hex"] {
        let run = bench.run(["ls", name]).expect(1);
        assert!(run.message().contains(name), "{run:?}");
    }
}

#[test]
fn the_config_is_shown_as_json_either_way() {
    let bench = Bench::new();
    let people: Value = serde_json::from_str(&bench.run(["cat", "config"]).expect(0).stdout).expect("JSON");
    let lines = bench.run(["cat", "config", "--json"]).expect(0).lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(people["id"], lines[0]["id"]);
    assert_eq!(people["must_understand"], 0);
    assert!(people["created_by"].as_str().expect("text").starts_with("strongroom "));
}

#[test]
fn statistics_of_nothing_are_zero() {
    let bench = Bench::new();
    let summary = bench.run(["stats", "--json"]).expect(0).last("summary");
    for name in ["snapshots_count", "total_restore_size", "total_size", "total_blob_count"] {
        assert_eq!(summary[name], 0, "{name}");
    }
    assert_eq!(summary["deduplication_ratio"], Value::Null);
    assert_eq!(summary["commits"], 1);
}

#[test]
fn versions_are_told_with_the_format() {
    let line = Run::of(strongroom().args(["version", "--json"])).expect(0).last("version");
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(line["format_version"], 1);
    let text = Run::of(strongroom().arg("version")).expect(0).stdout;
    let (cipher, chunker) =
        (line["cipher"].as_str().expect("named"), line["chunker"].as_str().expect("named"));
    assert_eq!(
        text,
        format!(
            "strongroom {} (repository format 1)\non this processor: cipher {cipher}, chunker {chunker}\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    Run::of(strongroom().arg("--version")).expect(0);
}

/// An ordinary build in this folder has the fast code in it; one with RUSTFLAGS of its own need not.
#[test]
#[cfg(target_arch = "x86_64")]
fn an_ordinary_build_has_all_vector_code() {
    let line = Run::of(strongroom().args(["version", "--json"])).expect(0).last("version");
    let flags = fs::read_to_string("/proc/cpuinfo").expect("linux");
    let has = |names: &[&str]| names.iter().all(|name| flags.split_whitespace().any(|flag| flag == *name));
    let fastest = |avx512: &[&str], else_name: &'static str| match (has(avx512), has(&["avx2"])) {
        (true, _) => "avx512",
        (false, true) => "avx2",
        (false, false) => else_name,
    };
    assert_eq!(line["chunker"], fastest(&["avx512f", "avx512bw", "avx512vbmi"], "portable"));
    if option_env!("RUSTFLAGS").is_some() || option_env!("CARGO_ENCODED_RUSTFLAGS").is_some() {
        return cannot(
            "look for the cipher's AVX-512 code",
            &"RUSTFLAGS take the place of .cargo/config.toml",
        );
    }
    assert_eq!(line["cipher"], fastest(&["avx512f", "avx512vl"], "sse2"));
    // What the program says follows from a flag of the build; the code is there under the crate's own name.
    let program = fs::read(env!("CARGO_BIN_EXE_strongroom")).expect("the program");
    let name = b"8chacha208backends6avx512";
    assert!(
        program.windows(name.len()).any(|bytes| bytes == name),
        "no AVX-512 code of chacha20 in the program"
    );
}

#[test]
fn a_copy_of_a_repository_is_one_too() {
    let bench = Bench::new();
    let copy = bench.path("copy");
    for folder in ["index", "keys", "log", "packs", "state"] {
        fs::create_dir_all(copy.join(folder)).expect("a folder");
    }
    fs::copy(bench.repository().join("config"), copy.join("config")).expect("copied");
    for object in bench.objects("keys").into_iter().chain(bench.objects("log")) {
        let relative = object.strip_prefix(bench.repository()).expect("inside");
        fs::copy(&object, copy.join(relative)).expect("copied");
    }
    Run::of(bench.command().arg("-r").arg(&copy).args(["log", "--verify"])).expect(0);
}

#[test]
fn output_of_cat_log_names_the_change() {
    let bench = Bench::new();
    let lines = bench.run(["cat", "log", "1", "--json"]).expect(0).lines();
    assert_eq!(lines[0]["seq"], 1);
    assert_eq!(lines[0]["changes"][0]["change"], json!("keyslot_added"));
    let run = bench.run(["cat", "log", "99"]).expect(1);
    assert!(run.message().contains("99"), "{run:?}");
    bench.run(["cat", "tree", "abc"]).expect(2);
    let run = bench.run(["cat", "pack", &"0".repeat(64)]).expect(1);
    assert!(run.message().contains("no pack"), "{run:?}");
}

#[test]
fn a_repository_whose_config_is_lost_is_not_made_anew() {
    let bench = Bench::new();
    fs::remove_file(bench.repository().join("config")).expect("removed");
    for command in ["init", "snapshots"] {
        let run = bench.run([command]).expect(4);
        assert!(
            run.message().contains("config was lost") && !run.stderr.contains("strongroom init"),
            "{run:#?}"
        );
    }
    assert!(!bench.repository().join("config").exists());
    assert_eq!(bench.objects("keys").len(), 1);
}

#[test]
fn room_is_kept_free_until_it_is_given_back() {
    let bench = Bench::empty();
    let run = bench.run(["init", "--reserve", "1"].into_iter().chain(CHEAP)).expect(2);
    assert!(run.message().contains("a reserve of 1 bytes is out of bounds: expected from"), "{run:?}");
    assert!(!bench.repository().join("config").exists(), "nothing was made");
    let none = Bench::empty();
    none.run(["init", "--reserve", "0"].into_iter().chain(CHEAP)).expect(0);
    assert!(!none.repository().join("reserve").exists());
    let usual = Bench::new();
    assert_eq!(fs::metadata(usual.repository().join("reserve")).expect("a file").len(), 4 << 20);
    bench.run(["init", "--reserve", "1MiB"].into_iter().chain(CHEAP)).expect(0);
    let file = bench.repository().join("reserve");
    assert_eq!(fs::metadata(&file).expect("a file").len(), 1 << 20);
    let run = bench.run(["check"]).expect(0);
    assert!(!run.stdout.contains("reserve"), "no foreign file and nothing missing: {run:?}");
    bench.run(["reserve", "set", "2MiB"]).expect(0);
    let run = bench.run(["reserve", "status"]).expect(0);
    assert_eq!(run.stdout, "Wanted:    2.00 MiB\nKept free: 2.00 MiB\n");
    fs::remove_file(&file).expect("removed");
    let run = bench.run(["check"]).expect(0);
    assert!(run.stdout.contains("2097152 bytes were to be kept free, but it is not there"), "{run:?}");
    bench.run(["prune"]).expect(0);
    assert_eq!(fs::metadata(&file).expect("a file").len(), 2 << 20);
    let run = bench.run(["reserve", "drop"]).expect(0);
    assert_eq!(run.stdout, "Given back: 2.00 MiB\n");
    assert!(!file.exists());
    let status = bench.run(["reserve", "status", "--json"]).expect(0).last("summary");
    assert_eq!((&status["wanted"], &status["kept_free"]), (&Value::Null, &0.into()), "{status}");
    let log = bench.run(["log"]).expect(0).stdout;
    assert!(
        log.contains("2.00 MiB to be kept free") && log.contains("no room kept free any longer"),
        "{log}"
    );
}

/// Adds a snapshot with a field that nobody knows yet.
fn add_one_of_tomorrow(bench: &Bench) -> SnapshotId {
    let environment = Environment {
        entropy: Arc::new(SystemEntropy),
        now: Arc::new(Timestamp::default),
        uptime: Arc::new(|| Duration::ZERO),
        host: "box".into(),
        user: "somebody".into(),
        program: "tomorrow".into(),
    };
    let backend = Arc::new(LocalBackend::open(&bench.repository()).expect("it is there"));
    let repository =
        Repository::open(backend, &Password::new(PASSWORD.into()), environment).expect("it is sound");
    let record = b"\x81\xa8tomorrow\xc3".to_vec();
    let snapshot = SnapshotId::new(repository.keys().blob_id(BlobKind::Snapshot, &record));
    let change = Change::SnapshotAdded { snapshot, record: record.into() };
    repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
    snapshot
}

#[test]
fn who_looks_at_snapshots_is_told_of_those_that_cannot_be_read_and_nobody_else() {
    let bench = Bench::new();
    let source = bench.source();
    let source = source.to_str().expect("UTF-8");
    bench.run(["backup", source]).expect(0);
    let first = bench.run(["snapshots", "--json"]).expect(0).stdout;
    let first: Value = serde_json::from_str(&first).expect("JSON");
    let first = first[0]["id"].as_str().expect("an id");
    let newer = add_one_of_tomorrow(&bench).to_string();
    for (args, code) in [
        (vec!["snapshots"], 0),
        (vec!["ls", first], 0),
        (vec!["find", "a.txt"], 0),
        (vec!["cat", "snapshot", first], 0),
        (vec!["backup", source], 0),
        (vec!["forget", "--keep-last", "9"], 0),
    ] {
        let run = bench.run(&args).expect(code);
        assert_eq!(run.stderr.matches("everything else goes on without it").count(), 1, "{run:?}");
        assert!(run.stderr.contains(&newer), "{run:?}");
    }
    let lines = bench.run(["backup", source, "--json"]).expect(0).lines();
    let told: Vec<_> = lines.iter().filter(|line| line["code"] == "snapshot-unread").collect();
    assert!(told.len() == 1 && told[0]["type"] == "warning", "{lines:#?}");
    for args in [
        &["key", "list"][..],
        &["parity", "status"],
        &["reserve", "status"],
        &["log", "head"],
        &["cat", "config"],
    ] {
        let run = bench.run(args).expect(0);
        assert!(!run.stderr.contains(&newer), "{run:?}");
    }
    for args in [&["repair", "snapshots", "--dry-run"][..], &["repair", "snapshots", "--dry-run", "--json"]] {
        let run = bench.run(args).expect(0);
        let told = run.stdout.matches(&newer).count() + run.stderr.matches(&newer).count();
        assert_eq!(told, 1, "{run:?}");
    }
}
