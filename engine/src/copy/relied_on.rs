//! Chunks of the target that a copy is going to rely on, because earlier copies did.
//!
//! They are gathered, sorted and joined with the target's index in one pass: one lookup for each of what may be a hundred million would
//! take hours, also where nothing has changed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::backup::BackupError;
use crate::ids::{BlobId, PackId};
use crate::index;
use crate::repo::{Repository, RepositoryError};
use crate::spill::SpillError;
use crate::spill::keys::KeySorter;

/// Bytes of ids that are in memory at once.
const GATHERED: u64 = 4 << 20;

/// Chunks that have to be there.
pub(super) struct ReliedOn<'t> {
    target: &'t Repository,
    /// Packs that a check found damaged.
    in_doubt: BTreeSet<PackId>,
    chunks: KeySorter<{ BlobId::LEN }>,
    /// How many were added, one that was added several times as often.
    len: u64,
}

impl<'t> ReliedOn<'t> {
    /// None yet. Those that there is no memory for wait in a file in the directory `spill`.
    pub fn new(target: &'t Repository, spill: Option<PathBuf>) -> Self {
        Self { target, in_doubt: target.packs_in_doubt(), chunks: KeySorter::new(spill, GATHERED), len: 0 }
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`BackupError`] where there is no room to keep it.
    pub fn add(&mut self, chunk: &BlobId) -> Result<(), BackupError> {
        self.len += 1;
        self.chunks.push(*chunk.as_bytes()).map_err(failed)
    }

    /// Whether the index lists all of them, in packs that are not in doubt.
    ///
    /// # Errors
    /// [`BackupError`] where the index or what was gathered cannot be read.
    pub fn are_there(mut self) -> Result<bool, BackupError> {
        let chunks = self.chunks.finish().map_err(failed)?;
        let chunks = chunks.map(|id| Ok(BlobId::from_bytes(id.map_err(failed)?)));
        let is_home = |pack: &PackId| !self.in_doubt.contains(pack);
        let index = self.target.index();
        let mut are_there = true;
        index::sift(&index.segments(), &is_home, (chunks, self.len), &mut |id| {
            are_there &= index.known_where(id, &|at| is_home(&at.pack.id))?.is_some();
            Ok::<_, BackupError>(())
        })?;
        Ok(are_there)
    }
}

fn failed(error: SpillError) -> BackupError {
    RepositoryError::from(error).into()
}
