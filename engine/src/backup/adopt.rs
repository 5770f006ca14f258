//! Taking over what writers that died have stored: their packs become part of the index, so that nothing in them is
//! stored again.
//!
//! Packs that no segment lists may as well belong to a writer at work. To list them does it no harm: it lists them
//! once more. What such a pack says of itself is the word of whoever could write to the storage, and the disk may have
//! altered it since: all of it is read first, as nobody would store what an index says is there.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::bounded;

use crate::backend::{BackendError, Folder, ObjectKey};
use crate::backup::options::BackupOptions;
use crate::budget;
use crate::format::commit::Change;
use crate::format::pack::Directory;
use crate::format::segment::PackEntry;
use crate::ids::PackId;
use crate::monitor::Monitor;
use crate::repo::{Repository, RepositoryError};
use crate::store::read_directory;
use crate::vet::{self, VerifyScratch};

/// Adds packs that are there and that nothing knows to the index; returns how many. Those that a commit condemned or
/// removed, or that are not in every byte what their id and directory say, stay out of it; and if a prune is at work
/// meanwhile, all do. Lives in the threads and the memory of the backup.
///
/// # Errors
/// [`RepositoryError`] where the repository fails; nothing counts then that did not count before.
pub(crate) fn adopt(
    repository: &Repository,
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> Result<u64, RepositoryError> {
    // Reading costs less than storing anew, and is done by as many as there is room for.
    let threads = budget::adopters(options.threads, options.memory);
    // So many gathered blobs become a segment.
    let blobs_max = budget::uncommitted(options.memory);
    let last_prune = repository.last_prune();
    let unknown = unknown_packs(repository)?;
    let (next, mut adopted) = (AtomicUsize::new(0), 0);
    std::thread::scope(|scope| {
        let (sound_packs, found) = bounded(threads);
        for _ in 0..threads.min(unknown.len()) {
            let (next, unknown, sound_packs) = (&next, &unknown, sound_packs.clone());
            scope.spawn(move || {
                let (mut buffer, mut scratch) = (Vec::new(), VerifyScratch::default());
                while let Some(pack) = unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if monitor.is_cancelled() {
                        break;
                    }
                    let result = sound(repository, *pack, &mut buffer, &mut scratch).transpose();
                    if result.is_some_and(|pack| sound_packs.send(pack).is_err()) {
                        break;
                    }
                }
            });
        }
        drop(sound_packs);
        let (mut packs, mut blobs) = (Vec::new(), 0);
        for pack in found {
            let (entry, directory) = pack?;
            blobs += directory.blob_count() as u64;
            packs.push((entry, directory));
            if blobs >= blobs_max {
                adopted += add(repository, &std::mem::take(&mut packs), last_prune)?;
                blobs = 0;
            }
        }
        Ok(adopted + add(repository, &packs, last_prune)?)
    })
}

/// Packs that are there, that no segment lists, and that no commit has condemned or removed, with their lengths.
fn unknown_packs(repository: &Repository) -> Result<Vec<(PackId, u64)>, RepositoryError> {
    let base = repository.fold();
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
    if !unknown.is_empty() {
        let removed = repository.removed_packs(&base)?;
        unknown.retain(|(id, _)| !removed.contains(id));
    }
    Ok(unknown)
}

/// The pack with its directory, made durable and covered, if all of it is as it says.
fn sound(
    repository: &Repository,
    pack: (PackId, u64),
    buffer: &mut Vec<u8>,
    scratch: &mut VerifyScratch,
) -> Result<Option<(PackEntry, Directory)>, BackendError> {
    let (backend, keys) = (&**repository.backend(), repository.keys());
    let Ok((entry, directory)) = read_directory(backend, keys, &repository.id(), pack, buffer) else {
        return Ok(None);
    };
    // Those of append-only keyslots are for a prune to vet, with what their segments say of them.
    if entry.header.is_for_recipient() || vet::verify_pack(repository, (&entry, &directory), scratch).is_err()
    {
        return Ok(None);
    }
    // Its writer may have died before it did so.
    let key = ObjectKey::pack(&entry.id);
    backend.flush(&key)?;
    if let Some(cover) = repository.cover() {
        cover.complete(backend, &key);
    }
    Ok(Some((entry, directory)))
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
