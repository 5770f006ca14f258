//! The walk: a backup of 10,000 unchanged files in 200 directories, beside a bare loop that lists every directory and asks for
//! the state of each entry. Items are entries.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::LazyLock;

use divan::Bencher;
use divan::counter::ItemsCount;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat};
use strongroom::backup::BackupOptions;
use strongroom::repo::Repository;

use crate::support::repository::{back_up, in_memory};
use crate::support::{scratch, tree};

const DIRECTORIES: usize = 200;
const FILES: usize = 50;
/// Those, ten directories between, and nothing else.
const ENTRIES: usize = DIRECTORIES * (FILES + 1) + 10;

static TREE: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = scratch::path().join("walk");
    tree::small_files(&directory, DIRECTORIES, FILES);
    directory
});

static REPOSITORY: LazyLock<Repository> = LazyLock::new(|| {
    let repository = in_memory();
    back_up(&repository, &TREE, &BackupOptions::default());
    repository
});

#[divan::bench(args = [1, 2])]
fn unchanged(bencher: Bencher<'_, '_>, threads: usize) {
    let options = BackupOptions { threads, skip_if_unchanged: true, ..BackupOptions::default() };
    LazyLock::force(&REPOSITORY);
    bencher.counter(ItemsCount::new(ENTRIES)).bench_local(|| {
        let report = back_up(&REPOSITORY, &TREE, &options);
        assert!(report.snapshot.is_none() && report.summary.files_unmodified > 0, "{report:?}");
    });
}

/// The limit, on one core.
#[divan::bench]
fn bare_loop(bencher: Bencher<'_, '_>) {
    let root = CString::new(TREE.as_os_str().as_encoded_bytes()).expect("a path without zeros");
    bencher.counter(ItemsCount::new(ENTRIES)).bench_local(|| {
        let mut entries = 0;
        count(&open(rustix::fs::CWD, &root), &mut entries);
        assert_eq!(entries, ENTRIES);
    });
}

fn open(parent: impl AsFd, name: &CStr) -> OwnedFd {
    openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a generated directory")
}

fn count(directory: &OwnedFd, entries: &mut usize) {
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut below = Vec::new();
    let mut list = RawDir::new(directory, &mut buffer);
    while let Some(entry) = list.next() {
        let entry = entry.expect("a generated entry");
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).expect("a generated entry");
        *entries += 1;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            below.push(open(directory, name));
        }
    }
    below.iter().for_each(|directory| count(directory, entries));
}
