//! Sidecars that cover nothing: their objects are gone, or no parity is wanted any more.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::backend::{Folder, ObjectKey};
use crate::ids::ParityId;
use crate::repo::{Repository, RepositoryError, tail};
use crate::sidecar;

/// Deletes them, and returns how many there were. Sidecars are listed first: the objects of those that are found are then
/// there to be found, or have been deleted. Those of log entries behind the last one stay: no commit is ever deleted, so they
/// tell that some are lost.
pub(crate) fn run(repository: &Repository) -> Result<u64, RepositoryError> {
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
    let fold = repository.fold();
    let mut kept: HashSet<ParityId> = tail::names_beyond(fold.seq(), sidecars.len() as u64).collect();
    if fold.parity().is_some() {
        kept.extend(sidecar::of_stored(backend)?);
    }
    sidecars.retain(|id| !kept.contains(id));
    for id in &sidecars {
        backend.delete(&ObjectKey::parity(id))?;
    }
    Ok(sidecars.len() as u64)
}
