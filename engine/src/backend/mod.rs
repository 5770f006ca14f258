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
//! 6. `delete` of an absent object is not an error. A deleted object may come back after a loss of power.
//! 7. A key that is no object's name ([`ObjectKey::is_well_formed`]) is never stored and never found.
//! 8. What is handed over to a [`Staged`] object is part of nothing until `publish`, which is a `create` of all of
//!    it: 1 to 3 hold for it, also between the two ways of creating. Memory for it does not grow with its length where
//!    the storage can hold parts.
//! 9. What was opened does not change and stays readable after a delete, where the storage can do that.
//! 10. `replace` is for an object whose bytes are not what they were: it never shows a part either, and whatever ends it,
//!     one of the two is there, where the storage can do that.

pub mod key;
pub mod local;
pub mod memory;
mod object;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

pub use key::{Folder, ObjectKey};
pub use local::LocalBackend;
pub use memory::MemoryBackend;
pub(crate) use object::Buffered;
pub use object::{MemoryReader, ObjectReader, Staged};

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

/// The error number of a disk that cannot read a sector.
const EIO: i32 = 5;

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
        source: io::Error,
    },
    /// The object is there, but the storage did not make sure that it stays: it may be gone after a power cut, and to ask
    /// again would tell nothing.
    #[error("{key} is stored, but {what} could not be flushed to disk, so it may be lost again: {source}")]
    NotDurable {
        /// The object.
        key: ObjectKey,
        /// What failed to be flushed.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// Whether an operation failed, by whatever way, because the storage has no more room.
pub fn is_out_of_room(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_full =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.filter_map(|error| error.downcast_ref::<io::Error>()).any(is_full)
}

impl BackendError {
    /// Whether the object that was to be created is there, for all that can be seen now.
    pub fn is_not_durable(&self) -> bool {
        matches!(self, Self::NotDurable { .. })
    }

    /// Whether the object is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the object has a length that it cannot have: the storage works, the object is damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::OutOfRange { .. } | Self::TooLarge { .. })
    }

    /// Whether what was to be read is lost, as far as the storage can tell: anything else may go well the next time.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.raw_os_error() == Some(EIO),
            error => error.is_not_found() || error.is_damage(),
        }
    }

    fn io(action: &'static str, what: impl fmt::Display, source: impl Into<io::Error>) -> Self {
        Self::Io { action, what: what.to_string(), source: source.into() }
    }

    fn not_found(backend: &dyn Backend, key: &ObjectKey) -> Self {
        Self::NotFound { location: backend.location(), key: key.clone() }
    }

    /// Refuses to store under a name that is no object's.
    fn malformed(key: &ObjectKey) -> Self {
        let why = io::Error::new(io::ErrorKind::InvalidInput, "no object can have this name");
        Self::io("create", key, why)
    }
}

/// Checks that an object of `size` bytes may be read into memory.
fn check_limit(key: &ObjectKey, size: u64, limit: u64) -> Result<(), BackendError> {
    if size > limit {
        return Err(BackendError::TooLarge { key: key.clone(), size, limit });
    }
    Ok(())
}

/// Checks that `length` bytes from `start` lie inside an object of `size` bytes.
fn check_range(key: &ObjectKey, size: u64, start: u64, length: usize) -> Result<(), BackendError> {
    let end = u64::try_from(length).ok().and_then(|length| start.checked_add(length));
    if end.is_none_or(|end| end > size) {
        let end = end.unwrap_or(u64::MAX);
        return Err(BackendError::OutOfRange { key: key.clone(), size, start, end });
    }
    Ok(())
}

/// Length of an object; none where there is none.
///
/// # Errors
/// [`BackendError`] where nobody can tell.
pub fn size_of(backend: &dyn Backend, key: &ObjectKey) -> Result<Option<u64>, BackendError> {
    match backend.stat(key) {
        Ok(info) => Ok(Some(info.size)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`size_of`], and none where the disk cannot give it either: for what is given up then.
///
/// # Errors
/// [`BackendError`] where it may be there the next time.
pub fn size_if_readable(backend: &dyn Backend, key: &ObjectKey) -> Result<Option<u64>, BackendError> {
    size_of(backend, key).or_else(|error| if error.is_loss() { Ok(None) } else { Err(error) })
}

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
    /// [`BackendError::Io`]; the object may then be stored or not, but never in part. [`BackendError::NotDurable`]; it is
    /// then there, and nothing may be built on it.
    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError>;

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`BackendError::Io`] where the storage fails.
    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError>;

    /// Durably puts these bytes in the place of an object, or where none is. Only for giving an object back the bytes it had: nothing
    /// else is ever overwritten.
    ///
    /// # Errors
    /// As [`Backend::create`]; the object is then either as it was or as it is to be.
    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError>;

    /// Opens an object of at most `limit` bytes for reading parts of it, however many.
    ///
    /// # Errors
    /// As [`Backend::read`].
    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError>;

    /// Begins an object that is handed over in pieces and named at the end.
    ///
    /// # Errors
    /// [`BackendError::Io`] where the storage fails.
    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError>;

    /// Leaves a sign that a writer is at work, which outlives a writer that dies: [`Backend::clean`] finds it then. Storage
    /// that has no such thing leaves none.
    ///
    /// # Errors
    /// [`BackendError::Io`] where the storage fails.
    fn sign(&self) -> Result<Box<dyn Sign>, BackendError> {
        Ok(Box::new(NoSign))
    }

    /// Makes sure that an object that is there, whoever stored it, is durable.
    ///
    /// # Errors
    /// [`BackendError::NotFound`], or [`BackendError::Io`] where the storage fails.
    fn flush(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.stat(key).map(drop)
    }

    /// Removes signs and parts of objects that were left by writers that are gone, and returns how many. What
    /// belongs to a writer at work stays.
    ///
    /// # Errors
    /// [`BackendError::Io`] where the storage fails.
    fn clean(&self) -> Result<u64, BackendError> {
        Ok(0)
    }

    /// Whether so many more bytes can be stored, as far as can be told without storing any; none where it cannot. A hint: others store
    /// meanwhile, and a quota may leave less.
    fn has_room(&self, _bytes: u64) -> Option<bool> {
        None
    }
}

/// A sign that a writer is at work. Dropped, it stays as that of one that died.
pub trait Sign: Send {
    /// Takes the sign away: the writer has left nothing behind.
    fn remove(self: Box<Self>);
}

/// The sign of storage that has none.
struct NoSign;

impl Sign for NoSign {
    fn remove(self: Box<Self>) {}
}

/// Methods of a [`Backend`] that do what those of another one do, `forward_backend!(this => this.inner; location list stat)`: for backends that
/// are another one but for some methods.
macro_rules! forward_backend {
    ($this:ident => $to:expr; $($method:ident)+) => {
        $($crate::backend::forward_method!($this => $to; $method);)+
    };
}
pub(crate) use forward_backend;

macro_rules! forward_method {
    ($this:ident => $to:expr; location) => {
        fn location(&self) -> String {
            let $this = self;
            $to.location()
        }
    };
    ($this:ident => $to:expr; list) => {
        fn list(
            &self,
            folder: $crate::backend::Folder,
            from: Option<&$crate::backend::ObjectKey>,
            visit: &mut dyn FnMut($crate::backend::ObjectInfo) -> std::ops::ControlFlow<()>,
        ) -> Result<(), $crate::backend::BackendError> {
            let $this = self;
            $to.list(folder, from, visit)
        }
    };
    ($this:ident => $to:expr; stat) => {
        fn stat(
            &self,
            key: &$crate::backend::ObjectKey,
        ) -> Result<$crate::backend::ObjectInfo, $crate::backend::BackendError> {
            let $this = self;
            $to.stat(key)
        }
    };
    ($this:ident => $to:expr; read) => {
        fn read(
            &self,
            key: &$crate::backend::ObjectKey,
            limit: u64,
        ) -> Result<Vec<u8>, $crate::backend::BackendError> {
            let $this = self;
            $to.read(key, limit)
        }
    };
    ($this:ident => $to:expr; read_range) => {
        fn read_range(
            &self,
            key: &$crate::backend::ObjectKey,
            offset: u64,
            buffer: &mut [u8],
        ) -> Result<(), $crate::backend::BackendError> {
            let $this = self;
            $to.read_range(key, offset, buffer)
        }
    };
    ($this:ident => $to:expr; create) => {
        fn create(
            &self,
            key: &$crate::backend::ObjectKey,
            bytes: &[u8],
        ) -> Result<$crate::backend::Created, $crate::backend::BackendError> {
            let $this = self;
            $to.create(key, bytes)
        }
    };
    ($this:ident => $to:expr; replace) => {
        fn replace(
            &self,
            key: &$crate::backend::ObjectKey,
            bytes: &[u8],
        ) -> Result<(), $crate::backend::BackendError> {
            let $this = self;
            $to.replace(key, bytes)
        }
    };
    ($this:ident => $to:expr; delete) => {
        fn delete(&self, key: &$crate::backend::ObjectKey) -> Result<(), $crate::backend::BackendError> {
            let $this = self;
            $to.delete(key)
        }
    };
    ($this:ident => $to:expr; open) => {
        fn open(
            &self,
            key: &$crate::backend::ObjectKey,
            limit: u64,
        ) -> Result<Box<dyn $crate::backend::ObjectReader>, $crate::backend::BackendError> {
            let $this = self;
            $to.open(key, limit)
        }
    };
    ($this:ident => $to:expr; begin) => {
        fn begin(&self) -> Result<Box<dyn $crate::backend::Staged + '_>, $crate::backend::BackendError> {
            let $this = self;
            $to.begin()
        }
    };
    ($this:ident => $to:expr; sign) => {
        fn sign(&self) -> Result<Box<dyn $crate::backend::Sign>, $crate::backend::BackendError> {
            let $this = self;
            $to.sign()
        }
    };
    ($this:ident => $to:expr; flush) => {
        fn flush(&self, key: &$crate::backend::ObjectKey) -> Result<(), $crate::backend::BackendError> {
            let $this = self;
            $to.flush(key)
        }
    };
    ($this:ident => $to:expr; clean) => {
        fn clean(&self) -> Result<u64, $crate::backend::BackendError> {
            let $this = self;
            $to.clean()
        }
    };
    ($this:ident => $to:expr; has_room) => {
        fn has_room(&self, bytes: u64) -> Option<bool> {
            let $this = self;
            $to.has_room(bytes)
        }
    };
}
pub(crate) use forward_method;

impl<B: Backend + ?Sized> Backend for Arc<B> {
    forward_backend!(this => **this;
        location list stat read read_range create replace delete open begin sign flush clean has_room);
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    forward_backend!(this => **this;
        location list stat read read_range create replace delete open begin sign flush clean has_room);
}
