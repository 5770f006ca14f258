//! Objects of a local repository that are read in parts, and those that are written in parts.

use std::path::PathBuf;

use super::super::{BackendError, Created, ObjectKey, ObjectReader, Staged};
use super::handles::OpenObject;
use super::publish::TemporaryFile;
use super::{LocalBackend, TEMPORARY};

/// An open file: deleting its name leaves its bytes to whoever has it open.
#[derive(Debug)]
pub(super) struct LocalReader {
    pub(super) object: OpenObject,
    pub(super) key: ObjectKey,
    /// Where it is, for messages.
    pub(super) path: PathBuf,
}

impl ObjectReader for LocalReader {
    fn size(&self) -> u64 {
        self.object.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let failed = |error| BackendError::io("read", self.path.display(), error);
        self.object.read_at(&self.key, offset, buffer, failed)
    }
}

/// A file under a temporary name, which is removed when this is dropped unpublished.
pub(super) struct LocalStaged<'b> {
    pub(super) backend: &'b LocalBackend,
    pub(super) temporary: TemporaryFile,
}

impl Staged for LocalStaged<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.temporary.append(bytes).map_err(|e| self.backend.failed("write", TEMPORARY, e))
    }

    fn publish(self: Box<Self>, key: &ObjectKey) -> Result<Created, BackendError> {
        let Self { backend, temporary } = *self;
        backend.publish(key, || {
            temporary.flush().map_err(|e| backend.failed("write", key.as_str(), e))?;
            Ok(temporary)
        })
    }

    fn replace(self: Box<Self>, key: &ObjectKey) -> Result<(), BackendError> {
        self.backend.put_in_place(&self.temporary, key)
    }
}
