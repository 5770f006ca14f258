//! Replays the committed corpora of the fuzz targets, and inputs that once failed, through their oracles.
//!
//! `STRONGROOM_BLESS=1` makes the seeds anew from the test vectors and from other valid objects.

mod other_encodings;
mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use strongroom::testing::fuzz::TARGETS;

fn fuzz_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Names of what lies in a folder of `fuzz/`; none where there is no such folder.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz_dir().join(folder)).into_iter().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("plain names");
    entries.map(|entry| name(entry.expect("a readable folder"))).collect()
}

fn targets() -> BTreeSet<String> {
    TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn blessing() -> bool {
    std::env::var_os("STRONGROOM_BLESS").is_some()
}

#[test]
fn every_committed_input_passes_its_oracle() {
    if blessing() {
        seeds::write(&fuzz_dir().join("corpus"));
    }
    let mut failed = Vec::new();
    for (target, oracle) in TARGETS {
        for folder in ["corpus", "regressions"].map(|folder| format!("{folder}/{target}")) {
            for name in names(&folder) {
                let path = fuzz_dir().join(&folder).join(name);
                let data = fs::read(&path).expect("a readable file");
                if std::panic::catch_unwind(|| oracle(&data)).is_err() {
                    failed.push(path);
                }
            }
        }
    }
    assert!(failed.is_empty(), "these inputs fail: {failed:#?}");
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    if blessing() {
        return; // They are just being written.
    }
    assert_eq!(names("corpus"), targets());
    assert!(names("regressions").is_subset(&targets()), "{:?}", names("regressions"));
    for target in targets() {
        let folder = format!("corpus/{target}");
        let files = names(&folder);
        assert!((1..=40).contains(&files.len()), "{target}: {} files", files.len());
        let size = |name: &String| fs::metadata(fuzz_dir().join(&folder).join(name)).expect("a file").len();
        let bytes: u64 = files.iter().map(size).sum();
        assert!(bytes <= 200_000, "{target}: {bytes} bytes");
    }
}

#[test]
fn every_oracle_has_its_glue() {
    let glue: BTreeSet<_> = targets().into_iter().map(|target| format!("{target}.rs")).collect();
    assert_eq!(names("fuzz_targets"), glue);
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).expect("the manifest");
    let readme = fs::read_to_string(fuzz_dir().join("README.md")).expect("the notes");
    for target in targets() {
        let source = fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{target}.rs"))).expect("glue");
        assert!(source.contains(&format!("strongroom::testing::fuzz::{target}(data)")), "{target}");
        assert!(
            manifest.contains(&format!("name = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"")),
            "{target}"
        );
        assert!(readme.contains(&format!("| `{target}` |")), "{target} is not in the README's table");
    }
}
