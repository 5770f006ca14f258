//! A backend on which another process has stored objects and not come to make them durable.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::object::Buffered;
use super::super::{Backend, BackendError, Created, MemoryBackend, ObjectKey, Staged, forward_backend};

/// Objects in memory, as one process has them. Clones are the same process.
#[derive(Debug, Clone)]
pub struct UnflushedBackend {
    live: MemoryBackend,
    /// What nobody has made durable.
    pending: Arc<Mutex<BTreeSet<ObjectKey>>>,
    /// Whether what this process stores is durable when it is told so.
    flushes: bool,
}

impl UnflushedBackend {
    /// A process that works on `storage`, all of which is durable.
    pub fn new(storage: &MemoryBackend) -> Self {
        Self { live: storage.clone(), pending: Arc::default(), flushes: true }
    }

    /// Another process on the same storage, which dies each time between giving an object its name and making that durable: all see what it
    /// stores, and a power cut takes it.
    #[must_use]
    pub fn dying(&self) -> Self {
        Self { flushes: false, ..self.clone() }
    }

    /// What is there after a power cut. It shares nothing with this backend.
    pub fn crash(&self) -> MemoryBackend {
        let survivors = self.live.snapshot();
        self.pending().iter().for_each(|key| survivors.delete(key).expect("memory does not fail"));
        survivors
    }

    fn pending(&self) -> MutexGuard<'_, BTreeSet<ObjectKey>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for UnflushedBackend {
    forward_backend!(this => this.live; location list stat read read_range replace open);

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        let created = self.live.create(key, bytes)?;
        if created == Created::New && !self.flushes {
            self.pending().insert(key.clone());
        }
        Ok(created)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.pending().remove(key);
        self.live.delete(key)
    }

    // Publishing is a create of this backend.
    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        Ok(Box::new(Buffered::new(self)))
    }

    fn flush(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.live.stat(key)?;
        self.pending().remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    #[test]
    fn conforms_while_there_is_power() {
        conformance::check(|| Box::new(UnflushedBackend::new(&MemoryBackend::new())));
    }

    #[test]
    fn a_power_cut_takes_what_nobody_flushed() {
        let backend = UnflushedBackend::new(&MemoryBackend::new());
        let key = ObjectKey::log;
        backend.create(&key(1), b"1").expect("created");
        let dying = backend.dying();
        (2..=3).for_each(|n| assert_eq!(dying.create(&key(n), b"x").expect("created"), Created::New));
        backend.flush(&key(2)).expect("it is there");
        backend.read(&key(3), 9).expect("all see it");
        let left: Vec<_> = backend.crash().objects().into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, [key(1), key(2)]);
    }
}
