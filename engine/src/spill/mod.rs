//! What does not fit into memory: sorted in pieces that go into a temporary file, and merged when it is read again.
//!
//! - `unnamed`: temporary files, and runs of bytes in them
//! - `merge`: ascending runs made one
//! - `keys`: keys of one length, sorted as they come

pub(crate) mod keys;
pub(crate) mod merge;
pub(crate) mod unnamed;

use std::path::PathBuf;

/// What was to be kept in a temporary file cannot be.
#[derive(Debug, thiserror::Error)]
#[error("what does not fit into memory cannot be kept in a temporary file in {place:?}: {problem}")]
pub struct SpillError {
    /// The directory.
    pub place: PathBuf,
    /// Why. No `source`: that this storage is full must not be taken for the repository being full.
    pub problem: std::io::Error,
}
