//! The room that objects take together with their parity: what a prune gives back, and what it takes for that.

use std::collections::BTreeMap;

use crate::backend::{Backend, BackendError, ObjectKey};
use crate::format::parity::Shape;
use crate::ids::SegmentId;
use crate::repo::Repository;
use crate::sidecar;

/// Length of an object; none where it is gone: that frees nothing.
fn len(backend: &dyn Backend, key: &ObjectKey) -> u64 {
    backend.stat(key).map_or(0, |info| info.size)
}

/// Bytes of an object and of the sidecar that goes with it. Where no parity is wanted, none does: a [sweep](crate::prune) deletes
/// those that are left.
pub(crate) fn of(repository: &Repository, key: &ObjectKey) -> u64 {
    let backend = &**repository.backend();
    let sidecar = repository.fold().parity().and_then(|_| sidecar::key_of(key));
    len(backend, key) + sidecar.map_or(0, |sidecar| len(backend, &sidecar))
}

/// Bytes of an object of this length and of the sidecar that it would get.
pub(crate) fn of_new(repository: &Repository, len: u64) -> u64 {
    let shape = repository.fold().parity().and_then(|overhead| Shape::choose(len, overhead));
    len + shape.map_or(0, |shape| shape.sidecar_len() as u64)
}

/// Bytes of each index segment.
pub(crate) fn of_segments(repository: &Repository) -> BTreeMap<SegmentId, u64> {
    let fold = repository.fold();
    let ids = fold.segments().map(|info| info.segment);
    ids.map(|id| (id, of(repository, &ObjectKey::segment(&id)))).collect()
}

/// Deletes an object with its sidecar, and returns the bytes that they took.
///
/// # Errors
/// [`BackendError`] where the storage fails.
pub(crate) fn delete(repository: &Repository, key: &ObjectKey) -> Result<u64, BackendError> {
    let bytes = of(repository, key);
    repository.delete_object(key)?;
    Ok(bytes)
}
