//! What the log says of what is gone, from its first entry on: the fold does not know it any more.

use std::collections::HashSet;

use crate::format::commit::Change;
use crate::ids::{KeyslotId, PackId, SnapshotId};
use crate::log::{self, Fold};
use crate::repo::{Repository, RepositoryError};

/// What was forgotten and removed.
#[derive(Default)]
pub(super) struct Told {
    pub forgotten: HashSet<SnapshotId>,
    pub removed: HashSet<PackId>,
    /// Whether a keyslot was removed that was not append-only: its holder has all keys, and goes on having them.
    pub full_keyslot_removed: bool,
}

impl Told {
    /// What it says up to `base`.
    pub fn read(repository: &Repository, base: &Fold) -> Result<Self, RepositoryError> {
        let mut told = Self::default();
        let mut fold = Fold::empty(base.config());
        let (backend, keys) = (&**repository.backend(), repository.keys());
        let mut appenders: HashSet<KeyslotId> = HashSet::new();
        log::read_to(backend, keys, &repository.id(), &mut fold, base.seq(), &mut |entry| {
            let Ok(entry) = entry else { return };
            for change in &entry.commit.changes {
                match change {
                    Change::SnapshotForgotten { snapshot, .. } => _ = told.forgotten.insert(*snapshot),
                    Change::PacksRemoved { packs } => told.removed.extend(packs),
                    Change::AppenderAdded { keyslot, .. } => _ = appenders.insert(*keyslot),
                    Change::KeyslotRemoved { keyslot, .. } => {
                        told.full_keyslot_removed |= !appenders.contains(keyslot);
                    }
                    _ => {}
                }
            }
        })?;
        Ok(told)
    }
}
