//! Taking over what writers that died have stored: their packs become part of the index, so that nothing in them is
//! stored again.
//!
//! Packs that no segment lists may as well belong to a writer at work. To list them does it no harm: it lists them
//! once more.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::backend::{Folder, ObjectKey};
use crate::format::commit::Change;
use crate::format::pack::Directory;
use crate::format::segment::PackEntry;
use crate::ids::PackId;
use crate::repo::{Repository, RepositoryError};
use crate::store::read_directory;

/// Blobs gathered before they become a segment.
const BLOBS_PER_SEGMENT: usize = 256 << 10;

/// Adds packs that are there and that nothing knows to the index; returns how many. Those that a commit condemned or
/// removed, or whose directory cannot be read, stay out of it; and if a prune is at work meanwhile, all do.
///
/// # Errors
/// [`RepositoryError`] where the repository fails; nothing counts then that did not count before.
pub(crate) fn adopt(repository: &Repository) -> Result<u64, RepositoryError> {
    let base = repository.fold();
    let last_prune = repository.last_prune();
    let mut known = HashSet::new();
    for segment in repository.index().everything() {
        for pack in segment.packs() {
            known.insert(pack?.id);
        }
    }
    let mut unknown: Vec<(PackId, u64)> = Vec::new();
    repository.backend().list(Folder::Packs, None, &mut |info| {
        let id = info.key.pack_id().filter(|id| !known.contains(id) && base.condemned_since(id).is_none());
        unknown.extend(id.map(|id| (id, info.size)));
        ControlFlow::Continue(())
    })?;
    drop(known);
    if unknown.is_empty() {
        return Ok(0);
    }
    let removed = repository.removed_packs(&base)?;
    unknown.retain(|(id, _)| !removed.contains(id));
    let (mut packs, mut blobs, mut adopted) = (Vec::new(), 0, 0);
    let mut buffer = Vec::new();
    for pack in unknown {
        let (backend, keys) = (&**repository.backend(), repository.keys());
        let Ok((entry, directory)) = read_directory(backend, keys, &repository.id(), pack, &mut buffer)
        else {
            continue;
        };
        // Whoever holds an append-only keyslot answers for what such a pack says, and nobody has looked.
        if entry.header.is_for_recipient() {
            continue;
        }
        // Its writer may have died before it did so.
        let key = ObjectKey::pack(&entry.id);
        backend.flush(&key)?;
        if let Some(cover) = repository.cover() {
            cover.complete(backend, &key);
        }
        blobs += directory.blob_count();
        packs.push((entry, directory));
        if blobs >= BLOBS_PER_SEGMENT {
            adopted += add(repository, &std::mem::take(&mut packs), last_prune)?;
            blobs = 0;
        }
    }
    Ok(adopted + add(repository, &packs, last_prune)?)
}

/// Adds packs to the index, unless a prune came since; returns how many were added.
fn add(
    repository: &Repository,
    packs: &[(PackEntry, Directory)],
    last_prune: u64,
) -> Result<u64, RepositoryError> {
    if packs.is_empty() {
        return Ok(0);
    }
    let segment = repository.store_segment(packs)?;
    let mut is_added = false;
    repository.commit(&mut |_| {
        is_added = repository.last_prune() == last_prune;
        let change = Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() };
        Ok(if is_added { vec![change] } else { Vec::new() })
    })?;
    Ok(if is_added { packs.len() as u64 } else { 0 })
}
