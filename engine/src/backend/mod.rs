//! Backends: where objects are kept. A backend knows names and bytes, nothing of what they mean.
//!
//! What the rest of the engine relies on (one conformance suite checks every backend for it):
//!
//! 1. An object appears whole or not at all: no reader ever sees a part of a `create` that has not returned.
//! 2. `create` never replaces: of any number of concurrent calls for one key exactly one returns
//!    [`Created::New`]; all others return [`Created::Exists`] and change nothing.
//! 3. When `create` returns, the object survives a loss of power. A failed `create` may or may not have
//!    published (an ambiguous outcome): the caller reads the key back.
//! 4. `list` returns keys in ascending byte order and every object whose `create` had returned before the
//!    call began, unless it was deleted.
//! 5. `read_range` fills the whole buffer or fails.
//! 6. `delete` of an absent object is not an error.

pub mod key;

use std::fmt;
use std::ops::ControlFlow;

pub use key::{Folder, ObjectKey};

/// One stored object as `list` and `stat` see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub size: u64,
}

/// Outcome of [`Backend::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is stored, by this call.
    New,
    /// An object with this key was there already; it was not touched.
    Exists,
}

/// What a backend could not do.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The object does not exist.
    #[error("{location}: no object {key}")]
    NotFound {
        /// The backend's location.
        location: String,
        /// The object.
        key: ObjectKey,
    },
    /// The object is shorter than what was to be read.
    #[error(
        "{key} is {size} bytes long, but bytes {start} to {end} of it were needed: the object is truncated"
    )]
    OutOfRange {
        /// The object.
        key: ObjectKey,
        /// Its length.
        size: u64,
        /// First byte asked for.
        start: u64,
        /// End of the range asked for (exclusive).
        end: u64,
    },
    /// The object is longer than any valid one.
    #[error("{key} is {size} bytes long, more than the {limit} that such an object can have")]
    TooLarge {
        /// The object.
        key: ObjectKey,
        /// Its length.
        size: u64,
        /// The limit in force.
        limit: u64,
    },
    /// The storage cannot do what the repository's safety rests on.
    #[error("{location} cannot hold a repository: {missing}")]
    Unsuitable {
        /// The backend's location.
        location: String,
        /// What it lacks.
        missing: String,
    },
    /// An operation failed in the storage.
    #[error("cannot {action} {what}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what: a key or a path.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl BackendError {
    /// Whether the object is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Bytes of a whole object that stay valid and unchanged while this lives: a memory map or a buffer.
pub trait ObjectBytes: AsRef<[u8]> + Send + Sync + fmt::Debug {}

impl<T: AsRef<[u8]> + Send + Sync + fmt::Debug> ObjectBytes for T {}

/// A place that keeps objects. The module's opening lists its guarantees.
pub trait Backend: Send + Sync + fmt::Debug {
    /// What to call this place in messages: a path or a URL.
    fn location(&self) -> String;

    /// Visits the objects of `folder` in ascending key order, starting at the first key that is not less
    /// than `from`, until `visit` breaks.
    ///
    /// # Errors
    /// [`BackendError::Io`] where the storage fails. A folder that does not exist is empty.
    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError>;

    /// Length of an object.
    ///
    /// # Errors
    /// [`BackendError::NotFound`], or [`BackendError::Io`] where the storage fails.
    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError>;

    /// Reads a whole object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`BackendError::NotFound`], [`BackendError::TooLarge`], or [`BackendError::Io`].
    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError>;

    /// Fills `buffer` from byte `offset` of an object.
    ///
    /// # Errors
    /// [`BackendError::NotFound`], [`BackendError::OutOfRange`], or [`BackendError::Io`].
    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError>;

    /// Stores a new object durably, unless one is there under this key.
    ///
    /// # Errors
    /// [`BackendError::Io`]; the object may then be stored or not, but never in part.
    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError>;

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`BackendError::Io`] where the storage fails.
    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError>;

    /// The bytes of a whole object for random access: mapped where the storage is local, read into memory
    /// elsewhere. `limit` is the largest length accepted.
    ///
    /// # Errors
    /// As [`Backend::read`].
    fn map(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectBytes>, BackendError> {
        Ok(Box::new(self.read(key, limit)?))
    }
}
