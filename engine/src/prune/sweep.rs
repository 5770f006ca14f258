//! Sidecars that cover nothing: their objects are gone, or no parity is wanted any more.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::backend::{self, Folder, ObjectKey};
use crate::ids::ParityId;
use crate::repo::{Repository, RepositoryError, tail};
use crate::sidecar;

/// How many were deleted, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Swept {
    /// Their number.
    pub sidecars: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Deletes them.
pub(crate) fn run(repository: &Repository) -> Result<Swept, RepositoryError> {
    let mut swept = Swept::default();
    for (id, bytes) in find(repository)? {
        repository.backend().delete(&ObjectKey::parity(&id))?;
        swept.sidecars += 1;
        swept.bytes += bytes;
    }
    Ok(swept)
}

/// Deletes the sidecars of all packs but those that are in doubt: whoever has no other room makes do without. They can be made again.
pub(super) fn of_packs(repository: &Repository) -> Result<Swept, RepositoryError> {
    let backend = &**repository.backend();
    let in_doubt = repository.packs_in_doubt()?;
    let mut sidecars = Vec::new();
    backend.list(Folder::Packs, None, &mut |info| {
        let is_sound = info.key.pack_id().is_some_and(|pack| !in_doubt.contains(&pack));
        sidecars.extend(sidecar::key_of(&info.key).filter(|_| is_sound));
        ControlFlow::Continue(())
    })?;
    let mut swept = Swept::default();
    for key in sidecars {
        if let Some(size) = backend::size_of(backend, &key)? {
            backend.delete(&key)?;
            swept.sidecars += 1;
            swept.bytes += size;
        }
    }
    Ok(swept)
}

/// Finds them, with their lengths. Sidecars are listed first: the objects of those that are found are then there to be found, or have
/// been deleted. Those of what the log has stay whether it is there or not, and those of entries behind the last one, too: no commit is
/// ever deleted, so they tell that some are lost.
pub(super) fn find(repository: &Repository) -> Result<Vec<(ParityId, u64)>, RepositoryError> {
    let backend = &**repository.backend();
    let mut sidecars: Vec<(ParityId, u64)> = Vec::new();
    backend.list(Folder::Parity, None, &mut |info| {
        let id = info.key.parity_id().filter(|_| info.key.is_well_formed());
        sidecars.extend(id.map(|id| (id, info.size)));
        ControlFlow::Continue(())
    })?;
    if sidecars.is_empty() {
        return Ok(sidecars);
    }
    repository.refresh()?;
    let fold = repository.fold();
    let mut kept: HashSet<ParityId> = tail::names_beyond(fold.seq(), sidecars.len() as u64).collect();
    if fold.parity().is_some() {
        kept.extend(sidecar::of_stored(backend)?);
        // Of what is lost it may be all that is left.
        let live = fold.keyslots().map(|entry| ObjectKey::keyslot(&entry.keyslot));
        let live = live.chain(fold.ledger().map(|id| ObjectKey::ledger(&id)));
        let live = live.chain(fold.segments().map(|info| ObjectKey::segment(&info.segment)));
        let live = live.chain((1..=fold.seq()).map(ObjectKey::log));
        kept.extend(live.filter_map(|key| sidecar::key_of(&key)?.parity_id()));
    }
    sidecars.retain(|(id, _)| !kept.contains(id));
    Ok(sidecars)
}
