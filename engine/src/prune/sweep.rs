//! Sidecars that cover nothing: their objects are gone, or no parity is wanted any more.

use std::ops::ControlFlow;

use crate::backend::{Folder, ObjectKey};
use crate::ids::ParityId;
use crate::prune::PruneError;
use crate::repo::Repository;
use crate::sidecar;

/// Deletes them, and returns how many there were. Sidecars are listed first: the objects of those that are found are then
/// there to be found, or have been deleted.
pub(super) fn run(repository: &Repository) -> Result<u64, PruneError> {
    let backend = &**repository.backend();
    let mut sidecars: Vec<ParityId> = Vec::new();
    backend.list(Folder::Parity, None, &mut |info| {
        sidecars.extend(info.key.parity_id().filter(|_| info.key.is_well_formed()));
        ControlFlow::Continue(())
    })?;
    if sidecars.is_empty() {
        return Ok(0);
    }
    repository.refresh()?;
    if repository.fold().parity().is_some() {
        let covered = sidecar::of_stored(backend)?;
        sidecars.retain(|id| !covered.contains(id));
    }
    for id in &sidecars {
        backend.delete(&ObjectKey::parity(id))?;
    }
    Ok(sidecars.len() as u64)
}
