//! The whole job on generated data, 256 MiB in a local repository: small sources, programs, a database, media, a
//! quarter each. Bytes are those of the source, whatever is stored.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::LazyLock;

use divan::Bencher;
use divan::counter::BytesCount;
use strongroom::backup::BackupOptions;
use strongroom::check::{self, CheckOptions, ReadData};
use strongroom::monitor::Silent;
use strongroom::repo::Repository;
use strongroom::restore::{self, RestoreOptions};

use crate::support::repository::{back_up, on_disk};
use crate::support::{scratch, tree};

/// A quarter of the source.
const UNIT: usize = 64 << 20;

/// The source.
static SOURCE: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = scratch::path().join("tree");
    tree::mixed(&source, UNIT);
    source
});

/// A new repository.
fn repository() -> Repository {
    thread_local!(static NUMBER: Cell<u32> = const { Cell::new(0) });
    NUMBER.set(NUMBER.get() + 1);
    on_disk(&scratch::path().join(format!("repository-{}", NUMBER.get())))
}

/// Backs the source up, once.
fn backed_up() -> Repository {
    let repository = repository();
    back_up(&repository, &SOURCE, &BackupOptions::default());
    repository
}

fn bytes() -> BytesCount {
    BytesCount::new(tree::mixed_len(UNIT))
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn initial(bencher: Bencher<'_, '_>) {
    let options = BackupOptions::default();
    bencher.counter(bytes()).with_inputs(repository).bench_local_refs(|repository| {
        let report = back_up(repository, &SOURCE, &options);
        assert_eq!(report.summary.bytes, tree::mixed_len(UNIT));
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn unchanged(bencher: Bencher<'_, '_>) {
    let repository = backed_up();
    bencher.counter(bytes()).bench_local(|| back_up(&repository, &SOURCE, &BackupOptions::default()));
}

/// A night changes one page in twenty of the database and one small file in fifty.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn nightly(bencher: Bencher<'_, '_>) {
    let repository = backed_up();
    let nights = Cell::new(0);
    let night = || {
        nights.set(nights.get() + 1);
        tree::night(&SOURCE, UNIT, nights.get());
    };
    bencher.counter(bytes()).with_inputs(night).bench_local_values(|()| {
        let report = back_up(&repository, &SOURCE, &BackupOptions::default());
        assert!(report.summary.files_changed > 1, "{report:?}");
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn check_read_data(bencher: Bencher<'_, '_>) {
    let repository = backed_up();
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    bencher.counter(bytes()).bench_local(|| {
        let report = check::run(&repository, &options, &Silent).expect("a check");
        assert!(report.findings.is_empty() && report.packs_read > 0, "{report:?}");
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn restore(bencher: Bencher<'_, '_>) {
    let repository = backed_up();
    let (_, snapshot) = repository.find_snapshot("latest").expect("the snapshot just made");
    let target = || {
        let made = tempfile::tempdir_in(scratch::path()).expect("a place to restore to");
        // File systems make files slowly for a while after many were deleted.
        made.keep()
    };
    bencher.counter(bytes()).with_inputs(target).bench_local_refs(|target| {
        let options = RestoreOptions::default();
        let report = restore::run(&repository, &snapshot, b"", target, &options, &Silent);
        let report = report.expect("a restore");
        assert_eq!((report.errors, report.bytes_written), (0, tree::mixed_len(UNIT)));
    });
}
