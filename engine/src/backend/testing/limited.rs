//! A backend with so much room and no more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::object::Buffered;
use super::super::{Backend, BackendError, Created, MemoryBackend, ObjectKey, Staged, forward_backend};

/// Objects in memory, of which all together can have so many bytes. Clones share both.
#[derive(Debug, Clone)]
pub struct LimitedBackend {
    inner: MemoryBackend,
    room: Arc<AtomicU64>,
    left_behind: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl LimitedBackend {
    /// `inner`, as full as it is: nothing more can be stored.
    pub fn full(inner: &MemoryBackend) -> Self {
        let (room, left_behind, refused) = Default::default();
        let full = Self { inner: inner.clone(), room, left_behind, refused };
        full.set_room(full.used());
        full
    }

    /// Bytes of all objects, and of what was left behind.
    pub fn used(&self) -> u64 {
        let stored: u64 = self.inner.objects().iter().map(|(_, bytes)| bytes.len() as u64).sum();
        stored + self.left_behind.load(Ordering::Relaxed)
    }

    /// A writer dies over an object of which so many bytes were written: they take room until somebody cleans up.
    pub fn leave_behind(&self, bytes: u64) {
        self.left_behind.store(bytes, Ordering::Relaxed);
    }

    /// How many objects did not fit.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Bytes that can be stored in all, those that are stored included.
    pub fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    fn fits(&self, more: u64) -> bool {
        self.used().saturating_add(more) <= self.room.load(Ordering::Relaxed)
    }

    /// Fails where so many more bytes do not fit.
    fn check(&self, action: &'static str, key: &ObjectKey, len: usize) -> Result<(), BackendError> {
        if self.fits(len as u64) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(BackendError::io(action, key, io::Error::from(io::ErrorKind::StorageFull)))
    }
}

impl Backend for LimitedBackend {
    forward_backend!(this => this.inner; location list stat read read_range delete open);

    fn clean(&self) -> Result<u64, BackendError> {
        Ok(u64::from(self.left_behind.swap(0, Ordering::Relaxed) > 0))
    }

    fn has_room(&self, bytes: u64) -> Option<bool> {
        Some(self.fits(bytes))
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        self.check("create", key, bytes.len())?;
        self.inner.create(key, bytes)
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError> {
        self.check("replace", key, bytes.len())?;
        self.inner.replace(key, bytes)
    }

    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        Ok(Box::new(Buffered::new(self)))
    }
}
