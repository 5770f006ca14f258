//! A repository in memory: for tests, and the reference of what a backend does.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Backend, BackendError, Created, Folder, MemoryReader, ObjectInfo, ObjectKey, ObjectReader, Staged,
};
use super::{Buffered, check_limit, check_range};

type Objects = BTreeMap<ObjectKey, Arc<[u8]>>;

/// Objects in memory. Clones share them; [`MemoryBackend::snapshot`] gives an independent copy.
#[derive(Clone, Default)]
pub struct MemoryBackend {
    objects: Arc<Mutex<Objects>>,
    /// What it is called, if not by its kind.
    name: Option<&'static str>,
}

impl MemoryBackend {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy that later changes of this one do not reach, nor the other way round.
    pub fn snapshot(&self) -> Self {
        Self { objects: Arc::new(Mutex::new(self.lock().clone())), name: self.name }
    }

    /// The same objects under another location.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn called(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// All objects in ascending key order.
    pub fn objects(&self) -> Vec<(ObjectKey, Arc<[u8]>)> {
        self.lock().iter().map(|(key, bytes)| (key.clone(), bytes.clone())).collect()
    }

    /// Changes the bytes of a stored object, as bad storage or an attacker would.
    ///
    /// # Panics
    /// If there is no such object: the test would test nothing.
    #[cfg(any(test, feature = "testing"))]
    pub fn corrupt(&self, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.lock();
        let bytes = objects.get_mut(key).unwrap_or_else(|| panic!("there is no {key} to corrupt"));
        let mut changed = bytes.to_vec();
        change(&mut changed);
        *bytes = changed.into();
    }

    /// Puts an object in place without asking whether one is there, as an attacker would.
    #[cfg(any(test, feature = "testing"))]
    pub fn plant(&self, key: &ObjectKey, bytes: &[u8]) {
        self.lock().insert(key.clone(), bytes.into());
    }

    // A poisoned lock is taken all the same: every change is a single call on the map.
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &ObjectKey) -> Result<Arc<[u8]>, BackendError> {
        self.lock().get(key).cloned().ok_or_else(|| BackendError::not_found(self, key))
    }

    /// The first object of `folder` that is after (or at) `from`.
    fn next(&self, folder: Folder, from: Bound<&ObjectKey>) -> Option<ObjectInfo> {
        let objects = self.lock();
        let (key, bytes) = objects.range::<ObjectKey, _>((from, Bound::Unbounded)).next()?;
        (key.folder() == Some(folder)).then(|| ObjectInfo { key: key.clone(), size: bytes.len() as u64 })
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBackend({} objects)", self.lock().len())
    }
}

impl Backend for MemoryBackend {
    fn location(&self) -> String {
        self.name.unwrap_or("memory").to_owned()
    }

    // The lock is not held while `visit` runs, so that it may use the backend.
    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        let first = ObjectKey::in_folder(folder, "");
        let from = from.map_or(&first, |from| from.max(&first));
        let mut next = self.next(folder, Bound::Included(from));
        while let Some(info) = next {
            let key = info.key.clone();
            if visit(info).is_break() {
                break;
            }
            next = self.next(folder, Bound::Excluded(&key));
        }
        Ok(())
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError> {
        Ok(ObjectInfo { key: key.clone(), size: self.get(key)?.len() as u64 })
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        let bytes = self.get(key)?;
        check_limit(key, bytes.len() as u64, limit)?;
        Ok(bytes.to_vec())
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let bytes = self.get(key)?;
        check_range(key, bytes.len() as u64, offset, buffer.len())?;
        let start = usize::try_from(offset).expect("the range was found inside an object in memory");
        buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        Ok(())
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        if !key.is_well_formed() {
            return Err(BackendError::malformed(key));
        }
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(Created::Exists);
        }
        objects.insert(key.clone(), bytes.into());
        Ok(Created::New)
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError> {
        if !key.is_well_formed() {
            return Err(BackendError::malformed(key));
        }
        self.lock().insert(key.clone(), bytes.into());
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.lock().remove(key);
        Ok(())
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        let bytes = self.get(key)?;
        check_limit(key, bytes.len() as u64, limit)?;
        Ok(Box::new(MemoryReader::new(key.clone(), bytes)))
    }

    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        Ok(Box::new(Buffered::new(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::conformance;
    use super::*;

    #[test]
    fn conforms() {
        conformance::check(|| Box::new(MemoryBackend::new()));
    }

    #[test]
    fn clones_share_and_snapshots_do_not() {
        let backend = MemoryBackend::new();
        let (clone, before) = (backend.clone(), backend.snapshot());
        backend.create(&ObjectKey::log(1), b"one").expect("created");
        assert_eq!(clone.read(&ObjectKey::log(1), 9).expect("shared"), b"one");
        assert!(before.objects().is_empty());

        let copy = backend.snapshot();
        copy.corrupt(&ObjectKey::log(1), |bytes| bytes.push(b'!'));
        copy.plant(&ObjectKey::log(2), b"two");
        assert_eq!(copy.read(&ObjectKey::log(1), 9).expect("corrupted"), b"one!");
        assert_eq!(copy.objects().len(), 2);
        assert_eq!(backend.objects().len(), 1, "the original is untouched");
        assert_eq!(backend.read(&ObjectKey::log(1), 9).expect("untouched"), b"one");
    }
}
