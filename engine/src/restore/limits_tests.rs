//! Files at the limits, and targets that refuse: full, read-only, not empty.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_bytes::ByteBuf;

use super::test_support::{Builder, Fixture, Listener, node, noise};
use super::window::Window;
use super::{RestoreError, RestoreOptions};
use crate::format::chunk_list;
use crate::format::tree::{FileContent, HOLES_MAX, Hole, NodeKind};
use crate::target::test_support::is_root;
use crate::testing::cannot;

fn options() -> RestoreOptions {
    RestoreOptions { threads: 2, ..RestoreOptions::default() }
}

/// A file of as many extents as there can be, each of one byte in a page of its own.
fn fragmented(b: &mut Builder, extents: u64) -> FileContent {
    let chunk = b.chunk(b"x");
    let mut content = FileContent { size: 4096 * extents, ..FileContent::default() };
    let mut table = Vec::new();
    for extent in 0..extents {
        chunk_list::push_chunk(&mut table, chunk);
        content.holes.push(Hole { offset: 4096 * extent + 1, length: 4095 });
    }
    content.chunks = ByteBuf::from(table);
    content
}

#[test]
fn a_file_of_the_most_extents_comes_back_and_is_only_compared_again() {
    let mut b = Builder::new();
    let content = fragmented(&mut b, HOLES_MAX as u64);
    let fixture = b.finish(vec![node("file", NodeKind::File(content))]);
    let report = fixture.restore_well(&RestoreOptions { verify: true, ..options() });
    assert_eq!((report.files_written, report.bytes_written, report.verified), (1, HOLES_MAX as u64, 1));
    let file = fs::File::open(fixture.target().join("file")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4096 * HOLES_MAX as u64);
    let mut page = [1; 4096];
    file.read_exact_at(&mut page, 4096 * (HOLES_MAX as u64 - 1)).unwrap();
    assert!(page[0] == b'x' && page[1..].iter().all(|byte| *byte == 0));
    assert_eq!(fixture.restore_well(&options()).bytes_written, 0);
}

#[test]
fn a_sparse_tebibyte_and_the_smallest_files_come_back() {
    let mut b = Builder::new();
    let end = (1 << 40) - 1000;
    let nodes = vec![
        b.file("empty", b"", 10),
        b.sparse("huge", 1 << 40, &[(1000, end - 1000)], &noise(1, 2000)),
        b.sparse("nothing", 1 << 40, &[(0, 1 << 40)], b""),
        b.file("one", b"1", 10),
    ];
    let fixture = b.finish(nodes);
    for expected in [4, 0] {
        let report = fixture.restore_well(&RestoreOptions { verify: true, ..options() });
        assert_eq!((report.files_written, report.verified), (expected, 4));
    }
    let at = |name: &str| fs::metadata(fixture.target().join(name)).unwrap();
    assert_eq!((at("empty").len(), at("one").len()), (0, 1));
    assert_eq!((at("huge").len(), at("nothing").len(), at("nothing").blocks()), (1 << 40, 1 << 40, 0));
    assert!(at("huge").blocks() < 100);
    let mut tail = [0; 1000];
    fs::File::open(fixture.target().join("huge")).unwrap().read_exact_at(&mut tail, end).unwrap();
    assert!(tail == noise(1, 2000)[1000..]);
}

#[test]
fn holes_count_in_the_memory_of_a_window() {
    let mut window = Window::default();
    let limits = super::window::Limits { chunks: 1000, entries: 1000, bytes: 10 << 20 };
    let holes = vec![Hole { offset: 0, length: 1 }; HOLES_MAX];
    let files = (1..).find(|_| {
        window.weigh_holes(&holes);
        window.is_full(&limits)
    });
    assert_eq!(files, Some(10), "a megabyte each");
}

#[test]
fn a_parked_directory_takes_no_memory_and_goes_on_where_it_was() {
    let mut b = Builder::new();
    let nodes: Vec<_> = ["a", "b", "c"].map(|name| b.file(name, b"x", 10)).into();
    let weight: u64 = nodes.iter().map(|node| node.weight()).sum();
    let fixture = b.finish(nodes);
    let reader = fixture.repository.reader();
    let mut cursor = super::cursor::Cursor::new(fixture.snapshot.tree);
    let mut found = Vec::new();
    while let Some(node) = cursor.next(reader) {
        found.push(node.unwrap().name.into_vec());
        assert!(cursor.loaded_len() >= weight);
        cursor.park();
        assert_eq!(cursor.loaded_len(), 0);
    }
    assert_eq!(found, [b"a", b"b", b"c"]);
}

/// A mount that is gone when this is.
struct Mount(PathBuf);

impl Mount {
    /// A file system of `options` in memory at `path`; `None` where that is not allowed, which is said.
    fn new(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        if !is_root() {
            cannot("mount", &"not root");
            return None;
        }
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path.to_owned())),
            other => {
                cannot("mount", &format_args!("{other:?}"));
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// Small files around large ones: 3 MiB in all.
fn more_than_fits() -> Fixture {
    let mut b = Builder::new();
    let mut nodes = Vec::new();
    for number in 0..10 {
        nodes.push(b.file(&format!("{number} small"), format!("small {number}").as_bytes(), 100));
        nodes.push(b.file(&format!("{number} large"), &noise(number, 300_000), 40_000));
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    b.finish(nodes)
}

#[test]
fn a_full_target_costs_the_files_that_do_not_fit() {
    let fixture = more_than_fits();
    let Some(_mount) = Mount::new(&fixture.target(), "size=1m") else { return };
    let (report, told) = fixture.restore(&RestoreOptions { threads: 1, ..options() });
    // Each of them is told where it is now, besides.
    let (_, problems): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|problem| problem.starts_with("restore-incomplete /"));
    assert_eq!(report.errors as usize, problems.len(), "each file once: {problems:?}");
    assert_eq!(report.files_incomplete, report.errors);
    assert!(report.errors >= 7, "{problems:?}");
    assert!(
        problems.iter().all(|p| p.starts_with("restore-failed /") && p.contains("No space")),
        "{problems:?}"
    );
    for number in 0..10 {
        for (name, expected) in [
            (format!("{number} small"), format!("small {number}").into_bytes()),
            (format!("{number} large"), noise(number, 300_000)),
        ] {
            let failed = problems.iter().any(|p| p.contains(&name));
            let found = fs::read(fixture.target().join(&name));
            assert_eq!(found.is_err(), failed, "what is not whole has another name: {name}");
            assert!(found.is_err() || found.unwrap() == expected, "{name}");
        }
    }
}

#[test]
fn a_read_only_target_is_refused_or_told_file_by_file() {
    let fixture = more_than_fits();
    let Some(_mount) = Mount::new(&fixture.at("mount"), "size=1m,ro") else { return };
    let missing = fixture.at("mount").join("missing");
    let run = |target: &Path| {
        let listener = Listener::default();
        let result = super::run(&fixture.repository, &fixture.snapshot, b"", target, &options(), &listener);
        (result, listener.told())
    };
    let (refused, _) = run(&missing);
    assert!(matches!(refused, Err(RestoreError::Target { .. })), "{refused:?}");
    let (report, problems) = run(&fixture.at("mount"));
    assert_eq!((report.unwrap().errors, problems.len()), (20, 20));
    assert!(problems.iter().all(|p| p.contains("Read-only")), "{problems:?}");
}

#[test]
fn what_else_is_in_the_target_stays_as_it_is() {
    let fixture = more_than_fits();
    fs::create_dir_all(fixture.target().join("dir/below")).unwrap();
    fs::write(fixture.target().join("dir/below/file"), "mine").unwrap();
    fs::write(fixture.target().join("5 small"), "small 5").unwrap();
    let report = fixture.restore_well(&RestoreOptions { verify: true, ..options() });
    assert_eq!((report.files_written, report.files_unchanged, report.deleted), (19, 1, 0));
    assert_eq!(fs::read(fixture.target().join("dir/below/file")).unwrap(), b"mine");
}
