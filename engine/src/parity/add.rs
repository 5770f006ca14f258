//! Covering what has no parity, or another amount of it than is wanted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::backend::Folder;
use crate::budget;
use crate::format::commit::Change;
use crate::format::parity::{Head, Overhead, Shape};
use crate::monitor::{Monitor, Progress};
use crate::parity::room::{self, Room};
use crate::parity::{CoverError, Coverable, coverable};
use crate::repo::Repository;
use crate::sidecar::{self, SidecarError, Stored};

/// How parity is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddOptions {
    /// How much; what the log says if it is left open, and if that says nothing, [`Overhead::default`].
    pub overhead: Option<Overhead>,
    /// Threads that compute it: each takes two to four times the length of a sidecar in memory, and at most 64 MiB more than it.
    pub threads: usize,
    /// Memory to live in, in bytes: while it has no room for another object, the others wait. A sidecar that is longer than that is
    /// made alone.
    pub memory: u64,
}

impl Default for AddOptions {
    fn default() -> Self {
        Self {
            overhead: None,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: budget::USUAL,
        }
    }
}

/// What adding parity did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddReport {
    /// How much is wanted from now on.
    pub overhead: Overhead,
    /// Objects that were covered.
    pub added: u64,
    /// Bytes of their sidecars.
    pub added_bytes: u64,
    /// Objects that had this much parity.
    pub present: u64,
    /// Objects that cannot have any: segments longer than a gibibyte, which can be rebuilt.
    pub uncoverable: u64,
    /// Objects that are missing, damaged or cannot be read, in words: parity of those would keep the damage.
    pub damaged: Vec<String>,
}

/// Says how much parity is wanted, and makes what is missing. Every object is compared with its id, or with the log, before it is
/// covered.
///
/// # Errors
/// [`CoverError`]. Damaged objects are no error but part of the report.
pub fn add(
    repository: &Repository,
    options: &AddOptions,
    monitor: &dyn Monitor,
) -> Result<AddReport, CoverError> {
    repository.refresh()?;
    let wanted = options.overhead;
    let mut overhead = Overhead::default();
    repository.commit(&mut |fold| {
        overhead = wanted.or(fold.parity()).unwrap_or_default();
        let is_said = fold.parity() == Some(overhead);
        let change = Change::ParitySet { overhead: overhead.tenths() };
        Ok(if is_said { Vec::new() } else { vec![change] })
    })?;
    // The commit is made even where it could not be read back: it is to have parity as well, and so is what came beside it.
    repository.refresh()?;
    let mut unreadable = Vec::new();
    let objects = coverable(repository, &mut unreadable)?;
    let work = Work {
        repository,
        monitor,
        overhead,
        room: Room::new(budget::parity(options.memory)),
        objects: &objects,
        bytes_total: objects.iter().fold(0, |sum, object| object.size.saturating_add(sum)),
        next: AtomicUsize::new(0),
        items: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        report: Mutex::new(AddReport {
            overhead,
            added: 0,
            added_bytes: 0,
            present: 0,
            uncoverable: 0,
            damaged: unreadable,
        }),
    };
    std::thread::scope(|scope| {
        let threads = options.threads.min(work.room.threads()).clamp(1, objects.len().max(1));
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work.run())).collect();
        let mut result = work.run();
        for other in others {
            match other.join() {
                Ok(other) => result = result.and(other),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })?;
    let mut report = work.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.damaged.sort_unstable();
    Ok(report)
}

struct Work<'a> {
    repository: &'a Repository,
    monitor: &'a dyn Monitor,
    overhead: Overhead,
    room: Room,
    objects: &'a [Coverable],
    bytes_total: u64,
    next: AtomicUsize,
    items: AtomicU64,
    bytes: AtomicU64,
    report: Mutex<AddReport>,
}

impl Work<'_> {
    fn run(&self) -> Result<(), CoverError> {
        while let Some(object) = self.objects.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.monitor.is_cancelled() {
                return Err(CoverError::Cancelled);
            }
            self.cover(object)?;
            self.monitor.progress(&Progress {
                items: self.items.fetch_add(1, Ordering::Relaxed) + 1,
                items_total: Some(self.objects.len() as u64),
                bytes: self.bytes.fetch_add(object.size, Ordering::Relaxed).saturating_add(object.size),
                bytes_total: Some(self.bytes_total),
                problems: 0,
            });
        }
        Ok(())
    }

    fn cover(&self, object: &Coverable) -> Result<(), CoverError> {
        let backend = &**self.repository.backend();
        let key = &object.key;
        let size = match object.size {
            // Not known.
            0 => backend.stat(key).map_or(0, |info| info.size),
            size => size,
        };
        let (work, needed) = room::share(size, self.overhead, self.room.len());
        let _taken = self.room.take(needed);
        let has_shape = |head: Head| Shape::choose(head.shape.covered(), self.overhead) == Some(head.shape);
        let fits = sidecar::head_of(backend, key).is_ok_and(|head| head.is_some_and(has_shape));
        // Parity that is damaged or cannot be read is made again.
        let is_there =
            fits && sidecar::examine(backend, key, &object.hash).is_ok_and(|state| state == Some(None));
        let stored = match is_there {
            true => Ok(Stored::Present),
            false => {
                // A sidecar proves that its entry was published: it must not outlive one that its writer has not made durable yet.
                let flushed = match key.folder() {
                    Some(Folder::Log) => backend.flush(key).map_err(SidecarError::Object),
                    _ => Ok(()),
                };
                flushed.and_then(|()| sidecar::store_within(work, backend, key, self.overhead, &object.hash))
            }
        };
        let problem = match stored {
            Ok(stored) => {
                if let (Some(Folder::Keys), Some(keyslot)) = (key.folder(), key.keyslot_id()) {
                    self.repository.uncover_removed(&keyslot, matches!(stored, Stored::New(_)))?;
                }
                let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
                match stored {
                    Stored::New(bytes) => {
                        report.added += 1;
                        report.added_bytes += bytes;
                    }
                    Stored::Present => report.present += 1,
                    Stored::None => report.uncoverable += 1,
                }
                return Ok(());
            }
            Err(SidecarError::Object(error)) if error.is_not_found() => {
                if self.has_gone(object)? {
                    return Ok(());
                }
                format!("{key} is not there")
            }
            // There is no room, or nothing can be written: that is the same for all others.
            Err(SidecarError::Backend(error)) => return Err(error.into()),
            Err(error) => error.to_string(),
        };
        self.report.lock().unwrap_or_else(PoisonError::into_inner).damaged.push(problem);
        Ok(())
    }

    /// Whether the log, read on, says that an object may have gone.
    fn has_gone(&self, object: &Coverable) -> Result<bool, CoverError> {
        self.repository.refresh()?;
        let (fold, key) = (self.repository.fold(), &object.key);
        Ok(match key.folder() {
            Some(Folder::State) => true,
            Some(Folder::Packs) => key.pack_id().is_some_and(|id| self.repository.is_pack_gone(&id)),
            Some(Folder::Index) => key.segment_id().is_some_and(|id| !fold.has_segment(&id)),
            Some(Folder::Ledger) => fold.ledger() != key.ledger_id(),
            Some(Folder::Keys) => key.keyslot_id().is_some_and(|id| fold.keyslot(&id).is_none()),
            _ => false,
        })
    }
}
