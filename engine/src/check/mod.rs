//! Check: is everything there, and is it what it should be?
//!
//! - [`log`]: config, commit log, states and keyslots
//! - [`segments`]: index segments, and what they say of each pack
//! - [`packs`]: packs against segments, by their directories
//! - [`reach`]: everything that live snapshots need is in the index
//! - [`read`]: packs read in whole, every byte and every blob
//! - [`doubt`]: packs with something wrong, for whoever repairs them
//! - [`hits`]: which files of which snapshots damage hits
//!
//! Nothing is taken from what the repository has open: every object is read again from the storage. Memory is
//! proportional to the packs and distinct trees, not to the blobs.

mod context;
#[cfg(test)]
mod damage_tests;
mod doubt;
#[cfg(test)]
mod fixture;
mod hits;
mod log;
mod options;
mod packs;
mod reach;
mod read;
mod segments;
#[cfg(test)]
mod tests;
pub(crate) mod trees;

pub(crate) use doubt::{Doubt, packs_in_doubt};
pub use options::{CheckOptions, CheckReport, Damage, HitFile, ReadData};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::monitor::Monitor;
use crate::repo::{Repository, RepositoryError};
use crate::store::BlobReader;

use context::Context;

/// Checks a repository. Findings are in the report and counted in the monitor's progress; items are packs: each
/// one whose directory is compared, and once more each one that is read.
///
/// Packs whose directory or length is wrong are read in whole whatever the options say, to name what they lost.
///
/// # Errors
/// [`RepositoryError`] where the check could not be made: the storage cannot list its objects, or no memory for
/// the work is allowed. What it finds is in the report.
pub fn run(
    repository: &Repository,
    options: &CheckOptions,
    monitor: &dyn Monitor,
) -> Result<CheckReport, RepositoryError> {
    let context = Context::new(repository, options, monitor);
    let fold = log::check(&context)?;
    let mut segments = segments::check(&context, &fold)?;
    // With a part of the index, everything else would seem to be missing.
    let orphans = if context.is_cancelled() { 0 } else { packs::check(&context, &fold, &mut segments)? };
    let reader = BlobReader::new(
        Arc::clone(repository.backend()),
        Arc::clone(repository.keys()),
        repository.id(),
        Arc::clone(&segments.index),
    );
    if !context.is_cancelled() {
        reach::check(&context, &fold, &reader);
        read::check(&context, &segments);
    }
    let (hit_files, more_hit_files) = hits::find(&context, &fold, &reader);
    let report = CheckReport {
        hit_files,
        more_hit_files,
        commits: fold.seq(),
        snapshots: fold.snapshots().count() as u64,
        segments: fold.segments().count() as u64,
        packs: segments.packs.len() as u64,
        packs_read: context.packs_read.load(Ordering::Relaxed),
        bytes_read: context.bytes_read.load(Ordering::Relaxed),
        blobs_verified: context.blobs_verified.load(Ordering::Relaxed),
        orphan_packs: orphans,
        cancelled: context.was_cancelled(),
        ..CheckReport::default()
    };
    Ok(context.finish(report))
}
