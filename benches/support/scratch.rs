//! One temporary directory for a benchmark, removed at its end: statics are never dropped.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

static SCRATCH: Mutex<Option<TempDir>> = Mutex::new(None);

/// The directory, the same at each call.
pub fn path() -> PathBuf {
    let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let made = scratch.get_or_insert_with(|| tempfile::tempdir().expect("a temporary directory"));
    made.path().to_owned()
}

/// Runs all benchmarks of this program and clears up.
pub fn run_benchmarks() {
    divan::main();
    SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).take();
}
