//! Single objects: one that is open for reading, and one that is being written piece by piece.

use std::fmt;

use super::{Backend, BackendError, Created, ObjectKey, check_range};

/// One stored object, open for reading parts of it. Its bytes and size never change, and it stays readable after it
/// was deleted, as far as the storage can: a remote one may answer [`BackendError::NotFound`] instead.
pub trait ObjectReader: Send + Sync + fmt::Debug {
    /// Length of the object in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from byte `offset` of the object.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`], or [`BackendError::Io`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError>;
}

/// An object whose bytes are in memory, as if it were open.
#[derive(Debug)]
pub struct MemoryReader<T> {
    key: ObjectKey,
    bytes: T,
}

impl<T: AsRef<[u8]>> MemoryReader<T> {
    /// The object `key` with these bytes.
    pub fn new(key: ObjectKey, bytes: T) -> Self {
        Self { key, bytes }
    }
}

impl<T: AsRef<[u8]> + Send + Sync + fmt::Debug> ObjectReader for MemoryReader<T> {
    fn size(&self) -> u64 {
        self.bytes.as_ref().len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        check_range(&self.key, self.size(), offset, buffer.len())?;
        let start = usize::try_from(offset).expect("the range was found inside an object in memory");
        buffer.copy_from_slice(&self.bytes.as_ref()[start..start + buffer.len()]);
        Ok(())
    }
}

/// An object in the making, for those too large to be held in memory or named by what they turn out to contain.
///
/// Until it is published it is no object: it is neither found nor listed, and dropping it leaves nothing behind.
/// Publishing is a [`Backend::create`] of all bytes written, with the same guarantees.
pub trait Staged: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`BackendError::Io`]; the object cannot be published any more.
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError>;

    /// Gives the object its name, unless that is taken, and makes it durable.
    ///
    /// # Errors
    /// As [`Backend::create`]: the object may then be stored or not, but never in part.
    fn publish(self: Box<Self>, key: &ObjectKey) -> Result<Created, BackendError>;

    /// Gives the object the name of another one, which goes with that: a [`Backend::replace`] of all bytes written.
    ///
    /// # Errors
    /// As [`Backend::replace`].
    fn replace(self: Box<Self>, key: &ObjectKey) -> Result<(), BackendError>;
}

/// The way of backends that have nowhere to put parts of an object: collects them and creates it at once.
pub(crate) struct Buffered<'b, B: ?Sized> {
    backend: &'b B,
    bytes: Vec<u8>,
}

impl<'b, B: ?Sized> Buffered<'b, B> {
    /// An empty one.
    pub(crate) fn new(backend: &'b B) -> Self {
        Self { backend, bytes: Vec::new() }
    }
}

impl<B: Backend + ?Sized> Staged for Buffered<'_, B> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn publish(self: Box<Self>, key: &ObjectKey) -> Result<Created, BackendError> {
        self.backend.create(key, &self.bytes)
    }

    fn replace(self: Box<Self>, key: &ObjectKey) -> Result<(), BackendError> {
        self.backend.replace(key, &self.bytes)
    }
}
