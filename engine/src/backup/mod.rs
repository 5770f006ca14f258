//! Backup: from a source to a snapshot.

mod options;

pub use options::{BackupError, BackupOptions, BackupReport, BackupSource, ParentChoice, SnapshotLabels};

use crate::monitor::Monitor;
use crate::repo::Repository;

/// Backs a source up.
///
/// # Errors
/// [`BackupError`]: no snapshot was made.
pub fn run(
    repository: &Repository,
    source: BackupSource,
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> Result<BackupReport, BackupError> {
    let _ = (repository, source, options, monitor);
    Err(BackupError::NoPaths)
}
