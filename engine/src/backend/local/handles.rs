//! Open files of objects that were read lately, so that reading many ranges of a pack opens it once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{BackendError, ObjectKey, check_range};

/// How many files stay open.
const CAPACITY: usize = 64;

/// A stored object's file, open for reading.
#[derive(Debug)]
pub(super) struct OpenObject {
    /// The file.
    pub(super) file: File,
    /// Its length in bytes when it was opened; objects do not change.
    pub(super) size: u64,
}

impl OpenObject {
    /// Fills `buffer` from byte `offset` of the object; `failed` tells of an error of the system.
    pub(super) fn read_at(
        &self,
        key: &ObjectKey,
        offset: u64,
        buffer: &mut [u8],
        failed: impl FnOnce(io::Error) -> BackendError,
    ) -> Result<(), BackendError> {
        check_range(key, self.size, offset, buffer.len())?;
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            // Shorter than when it was opened: say the same as if it had always been.
            let now = self.file.metadata().map_or(self.size, |metadata| metadata.len());
            check_range(key, now, offset, buffer.len()).err().unwrap_or_else(|| failed(error))
        })
    }
}

/// The files, least recently used first. An object that another process deletes meanwhile stays readable
/// here: it is the right content still.
#[derive(Debug, Default)]
pub(super) struct Handles {
    recent: Mutex<Vec<(ObjectKey, Arc<OpenObject>)>>,
}

impl Handles {
    /// The open file of `key`, if it is kept.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<OpenObject>> {
        let mut recent = self.lock();
        let at = recent.iter().rposition(|(other, _)| other == key)?;
        recent[at..].rotate_left(1);
        recent.last().map(|(_, object)| object.clone())
    }

    /// Keeps the open file of `key`.
    pub(super) fn put(&self, key: &ObjectKey, object: Arc<OpenObject>) {
        let mut recent = self.lock();
        recent.retain(|(other, _)| other != key);
        if recent.len() == CAPACITY {
            recent.remove(0);
        }
        recent.push((key.clone(), object));
    }

    /// Closes the file of `key`, once nobody reads it any more.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.lock().retain(|(other, _)| other != key);
    }

    // A poisoned lock is taken all the same: the worst that a half-done change leaves is a file less.
    fn lock(&self) -> MutexGuard<'_, Vec<(ObjectKey, Arc<OpenObject>)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_file_goes_first() {
        let file = tempfile::tempfile().expect("a temporary file");
        let open = || Arc::new(OpenObject { file: file.try_clone().expect("cloned"), size: 0 });
        let key = |n: usize| ObjectKey::log(n as u64);
        let handles = Handles::default();
        for n in 0..CAPACITY {
            handles.put(&key(n), open());
        }
        assert!(handles.get(&key(0)).is_some(), "used again");
        handles.put(&key(CAPACITY), open());
        handles.put(&key(CAPACITY), open());
        assert!(handles.get(&key(0)).is_some());
        assert!(handles.get(&key(1)).is_none(), "the oldest unused one was closed");
        assert!((2..=CAPACITY).all(|n| handles.get(&key(n)).is_some()));
        handles.forget(&key(5));
        assert!(handles.get(&key(5)).is_none());
    }
}
