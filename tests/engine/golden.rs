//! Golden repositories: what some version wrote, this one opens with each password, finds whole, and restores.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use strongroom::backend::LocalBackend;
use strongroom::check::{self, CheckOptions, ReadData};
use strongroom::crypto::{Password, SystemEntropy};
use strongroom::format::tree::Timestamp;
use strongroom::monitor::{Monitor, Problem};
use strongroom::repo::{Environment, Repository};
use strongroom::restore::{self, RestoreOptions};

/// Fails on the first problem, except of what only root may do.
struct Strict;

impl Monitor for Strict {
    fn problem(&self, problem: &Problem) {
        let path = String::from_utf8_lossy(problem.path.as_deref().unwrap_or_default()).into_owned();
        assert!(is_for_root_alone(&path), "{path}: {}", problem.message);
    }
}

/// Whether others than root cannot restore it: the device of `v1-made`.
fn is_for_root_alone(path: &str) -> bool {
    !rustix::process::geteuid().is_root() && path.ends_with("odd/null")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// The golden repositories.
fn golden() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn open(golden: &Path, password: &Path) -> Repository {
    let backend = LocalBackend::open(&golden.join("repo")).expect("a folder");
    let password = fs::read(password).expect("a password");
    let environment = Environment {
        entropy: Arc::new(SystemEntropy),
        now: Arc::new(Timestamp::default),
        uptime: Arc::new(Duration::default),
        host: "host".into(),
        user: "user".into(),
        program: "strongroom test".into(),
    };
    let password = Password::new(password.trim_ascii_end().to_vec());
    Repository::open(Arc::new(backend), &password, environment).expect("it opens")
}

/// What `%XX` and other characters stand for.
fn unquoted(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(&after[..2]).expect("ASCII");
            bytes.push(u8::from_str_radix(digits, 16).expect("hex"));
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

fn text<'v>(entry: &'v Value, field: &str) -> &'v str {
    entry[field].as_str().unwrap_or_else(|| panic!("no {field} in {entry}"))
}

/// Compares a restored entry with its row of the manifest.
fn compare(entry: &Value, path: &Path, inodes: &mut BTreeMap<u64, String>) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{entry}: {error}"));
    let kind = meta.file_type();
    let is_kind = match text(entry, "type") {
        "file" => kind.is_file(),
        "dir" => kind.is_dir(),
        "link" => kind.is_symlink(),
        "fifo" => kind.is_fifo(),
        "socket" => kind.is_socket(),
        "char" => kind.is_char_device(),
        "block" => kind.is_block_device(),
        other => panic!("{other}"),
    };
    assert!(is_kind, "{entry} is {kind:?}");
    if !kind.is_symlink() {
        assert_eq!(format!("{:04o}", meta.mode() & 0o7777), text(entry, "mode"), "{entry}");
    }
    let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    let expected = i128::from(entry["mtime_ns"].as_i64().expect("fits"));
    assert_eq!(mtime, expected, "{entry}");
    if kind.is_file() {
        assert_eq!(json!(meta.len()), entry["size"], "{entry}");
        let content = fs::read(path).expect("readable");
        assert_eq!(blake3::hash(&content).to_string(), text(entry, "blake3"), "{entry}");
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).expect("a link");
        assert_eq!(target.as_os_str().as_bytes(), unquoted(text(entry, "target")), "{entry}");
    }
    if !kind.is_dir() && (meta.nlink() > 1 || entry["links_to"].is_string()) {
        let first = inodes.entry(meta.ino()).or_insert_with(|| text(entry, "path").to_owned());
        assert_eq!(first, text(entry, "links_to"), "{entry}");
    }
    if let Some(xattrs) = entry["xattrs"].as_object() {
        for (name, value) in xattrs {
            let mut buffer = vec![0; 64 << 10];
            let len =
                rustix::fs::lgetxattr(path, name.as_str(), buffer.as_mut_slice()).expect("the attribute");
            let hex: String = buffer[..len].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(json!(hex), *value, "{entry}: {name}");
        }
    }
}

fn count(path: &Path) -> usize {
    let below = |path: PathBuf| if path.is_dir() && !path.is_symlink() { count(&path) } else { 0 };
    fs::read_dir(path).expect("a directory").map(|entry| 1 + below(entry.expect("an entry").path())).sum()
}

#[test]
fn golden_repositories_open_are_whole_and_restore() {
    assert!(golden().len() >= 2, "{:?}", golden());
    for golden in golden() {
        let files: Vec<_> =
            fs::read_dir(&golden).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        let passwords = files.iter().filter(|path| path.to_string_lossy().ends_with("password"));
        for password in passwords {
            let repository = open(&golden, password);
            let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
            let report = check::run(&repository, &options, &Strict).expect("it can be checked");
            assert!(!report.is_damaged(), "{}: {:?}", golden.display(), report.findings);
        }
        let repository = open(&golden, &golden.join("password"));
        let (_, snapshot) = repository.find_snapshot("latest").expect("a snapshot");
        let target = tempfile::tempdir().expect("a folder");
        let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
        let report =
            restore::run(&repository, &snapshot, b"", target.path(), &options, &Strict).expect("restored");
        let manifest = fs::read(golden.join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        let root = target.path().join(OsString::from_vec(unquoted(text(&manifest, "root"))));
        let mut inodes = BTreeMap::new();
        let entries = manifest["entries"].as_array().expect("a list");
        let mut missing = 0;
        for entry in entries {
            let relative = unquoted(text(entry, "path"));
            if is_for_root_alone(&String::from_utf8_lossy(&relative)) {
                missing += 1;
                continue;
            }
            compare(entry, &root.join(OsString::from_vec(relative)), &mut inodes);
        }
        assert_eq!(report.errors, missing, "{}", golden.display());
        assert_eq!(count(&root) as u64 + missing, entries.len() as u64, "{}", golden.display());
    }
}

/// What the folder's README promises of them.
#[test]
fn golden_repositories_are_all_described() {
    let readme = fs::read_to_string(folder().join("README.md")).expect("text");
    for golden in golden() {
        let name = golden.file_name().and_then(|name| name.to_str()).expect("text");
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not in tests/golden/README.md");
    }
}
