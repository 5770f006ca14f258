//! The plan of a restore: a dry run into nowhere, which walks the snapshot, looks all chunks up and puts them into pack
//! order, but reads no data. 10,000 small files, and one of 128 MiB in fine grain: 8000 chunks. Bytes are those to be restored.

use std::fs;
use std::path::Path;

use divan::Bencher;
use divan::counter::BytesCount;
use strongroom::backup::{BackupOptions, GrainRule};
use strongroom::format::tree::Grain;
use strongroom::monitor::Silent;
use strongroom::restore::{self, RestoreOptions};

use crate::support::data::Kind;
use crate::support::repository::{back_up, in_memory};
use crate::support::tree;

#[divan::bench(args = [1, 2])]
fn dry_run(bencher: Bencher<'_, '_>, threads: usize) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    tree::small_files(directory.path(), 200, 50);
    fs::write(directory.path().join("large"), Kind::Random.bytes(128 << 20, 1)).expect("room for a file");
    let repository = in_memory();
    let grains = vec![GrainRule { pattern: "large".into(), grain: Grain::Fine }];
    back_up(&repository, directory.path(), &BackupOptions { grains, ..BackupOptions::default() });
    let (_, snapshot) = repository.find_snapshot("latest").expect("the snapshot just made");
    let options = RestoreOptions { dry_run: true, threads, ..RestoreOptions::default() };
    let target = Path::new("/nowhere-to-restore-to");
    bencher.counter(BytesCount::new(snapshot.summary.bytes)).bench_local(|| {
        let report = restore::run(&repository, &snapshot, b"", target, &options, &Silent).expect("a plan");
        assert_eq!((report.errors, report.bytes_written), (0, snapshot.summary.bytes));
    });
}
