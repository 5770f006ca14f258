//! Check: is everything there, and is it what it should be?

mod options;

pub use options::{CheckOptions, CheckReport, Damage, HitFile, ReadData};

use crate::monitor::Monitor;
use crate::repo::{Repository, RepositoryError};

/// Checks a repository.
///
/// # Errors
/// [`RepositoryError`] where the check could not be made; what it finds is in the report.
pub fn run(
    repository: &Repository,
    options: &CheckOptions,
    monitor: &dyn Monitor,
) -> Result<CheckReport, RepositoryError> {
    let _ = (repository, options, monitor);
    Ok(CheckReport::default())
}
