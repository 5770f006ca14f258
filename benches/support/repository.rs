//! Repositories to measure in.

use std::path::Path;
use std::sync::Arc;

use strongroom::backend::{Backend, LocalBackend, MemoryBackend};
use strongroom::backup::{self, BackupOptions, BackupReport, BackupSource};
use strongroom::crypto::{KeySet, RootSecret};
use strongroom::monitor::Silent;
use strongroom::repo::Repository;
use strongroom::source::FilterOptions;
use strongroom::testing;

/// Some keys.
pub fn keys() -> KeySet {
    KeySet::derive(&RootSecret::from_bytes([7; 32]))
}

/// A new repository that no disk slows down.
pub fn in_memory() -> Repository {
    made(Arc::new(MemoryBackend::new()))
}

/// A new repository in a directory that does not exist.
pub fn on_disk(path: &Path) -> Repository {
    made(Arc::new(LocalBackend::create_repository(path).expect("a place for the repository")))
}

/// With a key derivation that takes no time: what is measured begins after it.
fn made(backend: Arc<dyn Backend>) -> Repository {
    testing::init(backend, 1)
}

/// Backs a directory up.
///
/// # Panics
/// Where that does not succeed in whole.
pub fn back_up(repository: &Repository, directory: &Path, options: &BackupOptions) -> BackupReport {
    let source = BackupSource::Paths { paths: vec![directory.to_owned()], filter: FilterOptions::default() };
    let report = backup::run(repository, source, options, &Silent).expect("a backup");
    assert!(report.is_complete(), "{report:?}");
    report
}
