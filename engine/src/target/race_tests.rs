//! Another process that swaps entries for links while we work: it may make us fail, but never touch what is
//! outside.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};

use super::hostile_tests::{OPERATIONS, hostile_metadata, scribble};
use super::root::{Obstacle::Refuse, TargetRoot};
use super::stat::EntryKind;
use super::test_support::{RESOLUTIONS, Sandbox, path};

const SWAPS: usize = 10_000;

/// Runs `work` again and again while another thread swaps `one` and `other` 10,000 times; what is outside must
/// stay as it is.
fn race(sandbox: &Sandbox, one: &str, other: &str, mut work: impl FnMut()) {
    let before = sandbox.outside_fingerprint();
    let (one, other) = (sandbox.at(one), sandbox.at(other));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..SWAPS {
                // Fails while `work` has one of them removed.
                let _ = rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            work();
        }
    });
    assert_eq!(before, sandbox.outside_fingerprint());
}

#[test]
fn a_directory_swapped_for_a_link_never_leads_outside() {
    for resolution in RESOLUTIONS {
        for cached in [false, true] {
            let sandbox = Sandbox::new();
            fs::create_dir_all(sandbox.at("d/sub")).unwrap();
            fs::write(sandbox.at("own"), "own").unwrap();
            symlink(sandbox.outside(), sandbox.at("swap")).unwrap();
            let root = TargetRoot::open_as(&sandbox.target(), resolution, cached).unwrap();
            let entries = ["d/victim", "d/sub/deep", "d/new", "d/link", "d/sub", "d"].map(path);
            let mut round = 0;
            race(&sandbox, "d", "swap", || {
                for (_, operation) in OPERATIONS.iter().filter(|(name, _)| !name.starts_with("metadata")) {
                    let _ = operation(&root, &entries[round % entries.len()]);
                }
                for kind in [EntryKind::File, EntryKind::Directory] {
                    let _ = hostile_metadata(&root, &entries[round % entries.len()], kind);
                }
                let _ = root.make_dir(&path("d"), 0o700, Refuse);
                let _ = root.make_dir(&path("d/sub"), 0o700, Refuse);
                let _ = symlink(sandbox.outside(), sandbox.at("swap"));
                round += 1;
            });
        }
    }
}

#[test]
fn a_file_swapped_for_a_link_is_never_written_through_it() {
    let plants: [fn(&Sandbox); 2] = [
        |sandbox| symlink(sandbox.outside().join("victim"), sandbox.at("swap")).unwrap(),
        |sandbox| fs::hard_link(sandbox.outside().join("victim"), sandbox.at("swap")).unwrap(),
    ];
    for resolution in RESOLUTIONS {
        for plant in plants {
            let sandbox = Sandbox::new();
            fs::write(sandbox.at("x"), "").unwrap();
            plant(&sandbox);
            let root = sandbox.open(resolution);
            race(&sandbox, "x", "swap", || {
                let _ = root.open_existing(&path("x")).map(|file| file.map_or((), scribble));
                let _ = hostile_metadata(&root, &path("x"), EntryKind::File);
            });
        }
    }
}

#[test]
fn a_tree_that_changes_while_it_is_removed_takes_nothing_outside_along() {
    for resolution in RESOLUTIONS {
        let sandbox = Sandbox::new();
        symlink(sandbox.outside(), sandbox.at("swap")).unwrap();
        let root = sandbox.open(resolution);
        race(&sandbox, "x/a/b", "swap", || {
            for directory in ["x", "x/a", "x/a/b", "x/a/b/sub"] {
                let _ = root.make_dir(&path(directory), 0o700, Refuse);
            }
            let _ = root.create_file(&path("x/a/b/sub/deep"), 0o600, Refuse).map(scribble);
            let _ = root.remove_tree(&path("x/a"));
            if root.stat(&path("swap")).unwrap().is_some_and(|stat| stat.kind == EntryKind::Directory) {
                let _ = root.remove_tree(&path("swap"));
            }
            let _ = symlink(sandbox.outside(), sandbox.at("swap"));
        });
    }
}
