//! What has been committed since the check read the log: an object that is gone because a later commit let it be deleted is no
//! damage.
//!
//! All reading of a check goes through [`Watch`]. Where something is absent, the log is read on, and if it says that the
//! object has gone since, what is being looked at is the repository of a moment ago: the attempt is over, and the check
//! starts over. What really is missing is still listed by the newer log, and stays damage.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{Backend, BackendError, Folder, ObjectInfo, ObjectKey, ObjectReader, forward_backend};
use crate::crypto::KeySet;
use crate::format::commit::Change;
use crate::ids::{PackId, RepositoryId};
use crate::log::{self, Fold};
use crate::repo::Repository;

/// The log beyond the fold that an attempt goes by.
#[derive(Debug)]
pub(super) struct Newer {
    backend: Arc<dyn Backend>,
    keys: Arc<KeySet>,
    repository: RepositoryId,
    /// `None` until the attempt has read the log.
    known: Mutex<Option<Known>>,
    overtaken: AtomicBool,
}

#[derive(Debug)]
struct Known {
    /// Shared with the attempt until there is something to read.
    fold: Arc<Fold>,
    removed: HashSet<PackId>,
    /// Those that may go although no later commit removes them.
    unsettled: HashSet<PackId>,
}

impl Newer {
    pub fn new(repository: &Repository) -> Self {
        Self {
            backend: Arc::clone(repository.backend()),
            keys: Arc::clone(repository.keys()),
            repository: repository.id(),
            known: Mutex::default(),
            overtaken: AtomicBool::default(),
        }
    }

    /// An attempt goes by this fold, or begins and has none yet.
    pub fn begin(&self, fold: Option<Arc<Fold>>) {
        let known = fold.map(|fold| Known { fold, removed: HashSet::new(), unsettled: HashSet::new() });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        self.overtaken.store(false, Ordering::Relaxed);
    }

    /// A pack is there that only appenders list. It may have been removed before the attempt began, if what they say is untrue, and be
    /// deleted only now.
    pub fn unsettled(&self, pack: PackId) {
        if let Some(known) = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner) {
            known.unsettled.insert(pack);
        }
    }

    /// Whether later commits let something be deleted that the attempt came to.
    pub fn is_overtaken(&self) -> bool {
        self.overtaken.load(Ordering::Relaxed)
    }

    /// Takes note of an object that is not there although the attempt knows of it.
    pub fn absent(&self, key: &ObjectKey) {
        if self.is_superseded(key) {
            self.overtaken.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the log, read on, says that the object may have gone, or nothing says that it has to stay.
    fn is_superseded(&self, key: &ObjectKey) -> bool {
        // A panic while the log is read leaves a fold at some commit: as good as one that was read so far.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Known { fold, removed, unsettled }) = &mut *known else { return false };
        // A log that cannot be read on excuses nothing beyond what it said so far.
        let _ =
            log::read_from(&*self.backend, &self.keys, &self.repository, Arc::make_mut(fold), &mut |entry| {
                for change in entry.iter().flat_map(|entry| &entry.commit.changes) {
                    if let Change::PacksRemoved { packs } = change {
                        removed.extend(packs);
                    }
                }
            });
        match key.folder() {
            Some(Folder::Packs) => {
                key.pack_id().is_some_and(|pack| removed.contains(&pack) || unsettled.contains(&pack))
            }
            Some(Folder::Index) => key.segment_id().is_some_and(|segment| !fold.has_segment(&segment)),
            Some(Folder::Keys) => key.keyslot_id().is_some_and(|keyslot| fold.keyslot(&keyslot).is_none()),
            _ => false,
        }
    }
}

/// The repository's backend, with an eye on what is absent.
#[derive(Debug)]
pub(super) struct Watch {
    pub inner: Arc<dyn Backend>,
    pub newer: Arc<Newer>,
}

impl Watch {
    fn noting<T>(&self, key: &ObjectKey, result: Result<T, BackendError>) -> Result<T, BackendError> {
        noting(&self.newer, key, result)
    }
}

fn noting<T>(newer: &Newer, key: &ObjectKey, result: Result<T, BackendError>) -> Result<T, BackendError> {
    if result.as_ref().is_err_and(BackendError::is_not_found) {
        newer.absent(key);
    }
    result
}

impl Backend for Watch {
    forward_backend!(this => this.inner; location list create replace delete begin sign clean has_room);

    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError> {
        self.noting(key, self.inner.stat(key))
    }

    fn flush(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.noting(key, self.inner.flush(key))
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        self.noting(key, self.inner.read(key, limit))
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        self.noting(key, self.inner.read_range(key, offset, buffer))
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        let inner = self.noting(key, self.inner.open(key, limit))?;
        Ok(Box::new(WatchedReader { inner, key: key.clone(), newer: Arc::clone(&self.newer) }))
    }
}

/// An open object, which some storages lose when it is deleted.
#[derive(Debug)]
struct WatchedReader {
    inner: Box<dyn ObjectReader>,
    key: ObjectKey,
    newer: Arc<Newer>,
}

impl ObjectReader for WatchedReader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        noting(&self.newer, &self.key, self.inner.read_at(offset, buffer))
    }
}
