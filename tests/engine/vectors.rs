//! The test vectors of `format-spec/vectors`: the code makes them again byte for byte, and reads each as it says.
//!
//! `STRONGROOM_BLESS=1` writes what the code makes; a changed vector is a changed format and has to be argued for.

mod check;
mod make_keys;
mod make_log;
mod make_packs;
mod make_parity;
mod make_records;
mod make_trees;
mod repository;
pub(crate) mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use support::Vector;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn all() -> Vec<Vector> {
    let of_records = [make_keys::all(), make_records::all(), make_trees::all(), make_log::all()];
    of_records.into_iter().chain([make_packs::all(), make_parity::all()]).flatten().collect()
}

/// All files below `dir` by their relative path.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name =
                    path.strip_prefix(dir).expect("below it").to_str().expect("plain names").to_owned();
                found.insert(name, fs::read(&path).expect("a readable file"));
            }
        }
    }
    found
}

fn blessing() -> bool {
    std::env::var_os("STRONGROOM_BLESS").is_some()
}

/// Compares `made` with what is checked in below `dir`, or writes it there when blessing.
fn compare_or_bless(dir: &Path, made: &BTreeMap<String, Vec<u8>>) {
    if blessing() {
        for name in files(dir).keys().filter(|name| !made.contains_key(*name)) {
            fs::remove_file(dir.join(name)).expect("a stale file goes");
        }
        for (name, bytes) in made {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().expect("below dir")).expect("a new folder");
            fs::write(path, bytes).expect("a new file");
        }
    }
    let stored = files(dir);
    let (have, want): (Vec<_>, Vec<_>) = (stored.keys().collect(), made.keys().collect());
    assert_eq!(have, want, "{}: files that are checked in and files that the code makes", dir.display());
    for (name, bytes) in made {
        assert!(stored[name] == *bytes, "{name} is not what the code makes: the format changed");
    }
}

#[test]
fn the_code_makes_the_checked_in_vectors() {
    let mut made = BTreeMap::new();
    for vector in all() {
        let mut value = vector.value;
        // Another crate of the workspace may have asked serde_json to keep the order of insertion.
        value.sort_all_objects();
        let mut text = serde_json::to_string_pretty(&value).expect("plain values");
        text.push('\n');
        assert!(made.insert(format!("{}.json", vector.name), text.into()).is_none(), "{} twice", vector.name);
    }
    compare_or_bless(&project().join("format-spec/vectors"), &made);
}

#[test]
fn every_vector_reads_as_it_says() {
    if blessing() {
        return; // They are just being written.
    }
    let stored = files(&project().join("format-spec/vectors"));
    assert!(stored.len() > 80, "{} vectors", stored.len());
    let mut wrong = Vec::new();
    for (name, text) in stored {
        let vector: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let expected = match vector.get("error") {
            Some(class) => Err(class.as_str().expect("a class").to_owned()),
            None => Ok(vector["expected"].clone()),
        };
        let found = check::check(&vector);
        if found != expected {
            wrong.push(format!("{name}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_code_makes_the_checked_in_sample_repository() {
    compare_or_bless(&project().join("tests/golden/v1-handmade"), &repository::sample());
    compare_or_bless(&project().join("tests/golden/v1-appended"), &repository::appended());
}
