//! Parity sidecars of stored objects: making, finding and deleting them.
//!
//! - [`code`]: recovery shards of an object, and lost shards of it again
//! - [`mend`](mod@mend): a damaged object made whole
//!
//! Nothing rests on a sidecar, so nothing fails for one: what cannot be stored is noted and told at the end.

pub mod code;
mod mend;

pub use mend::{MendError, Mending, mend};

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{Backend, BackendError, Created, Folder, ObjectKey};
use crate::format::parity::{
    self, COVERED_LEN_MAX, HEAD_LEN, Head, Overhead, SIDECAR_LEN_MAX, Shape, Sidecar,
};
use crate::ids::ParityId;

/// The sidecar of an object; none for those that have none.
pub fn key_of(object: &ObjectKey) -> Option<ObjectKey> {
    let id = match object.folder()? {
        Folder::Packs | Folder::Index | Folder::Ledger => object.parity_id()?,
        Folder::Log | Folder::State => {
            object.sequence()?;
            parity::id_of_named(object.as_str())
        }
        Folder::Keys | Folder::Parity => return None,
    };
    Some(ObjectKey::parity(&id))
}

/// The hash that an object's name says its bytes have.
pub fn named_hash(object: &ObjectKey) -> Option<[u8; 32]> {
    match object.folder()? {
        Folder::Packs | Folder::Index | Folder::Ledger => object.parity_id().map(|id| *id.as_bytes()),
        _ => None,
    }
}

/// What became of a sidecar that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is stored, with so many bytes.
    New(u64),
    /// It was there.
    Present,
    /// The object cannot have one: it is too long, or empty.
    None,
}

/// A sidecar could not be made or stored.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The storage failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The object is damaged: parity of that would keep the damage.
    #[error("{key} is damaged: its bytes are not what they should be")]
    Damaged {
        /// The object.
        key: ObjectKey,
    },
}

/// Makes the sidecar of an object whose bytes are to have this hash, and stores it. A sidecar of something else in its place is
/// replaced.
///
/// # Errors
/// [`SidecarError::Damaged`] where the bytes have another hash, or what the storage fails with.
pub fn store(
    backend: &dyn Backend,
    object: &ObjectKey,
    overhead: Overhead,
    hash: &[u8; 32],
) -> Result<Stored, SidecarError> {
    let Some(sidecar) = key_of(object) else { return Ok(Stored::None) };
    let reader = match backend.open(object, COVERED_LEN_MAX) {
        Err(BackendError::TooLarge { .. }) => return Ok(Stored::None),
        opened => opened?,
    };
    let Some(shape) = Shape::choose(reader.size(), overhead) else { return Ok(Stored::None) };
    let (head, bytes) = code::encode(shape, &mut |at, buffer| reader.read_at(at, buffer))?;
    if head.object != *hash {
        return Err(SidecarError::Damaged { key: object.clone() });
    }
    let len = bytes.len() as u64;
    if backend.create(&sidecar, &bytes)? == Created::New {
        return Ok(Stored::New(len));
    }
    if backend.read(&sidecar, len).is_ok_and(|stored| stored == bytes) {
        return Ok(Stored::Present);
    }
    backend.replace(&sidecar, &bytes)?;
    Ok(Stored::New(len))
}

/// Reads a sidecar. What a disk does not give of it is zeros, and as good as any other damage.
///
/// # Errors
/// [`BackendError`] where it is not there or cannot be opened.
fn read(backend: &dyn Backend, sidecar: &ObjectKey) -> Result<Vec<u8>, BackendError> {
    match backend.read(sidecar, SIDECAR_LEN_MAX) {
        Err(BackendError::Io { .. }) => {}
        read => return read,
    }
    let reader = backend.open(sidecar, SIDECAR_LEN_MAX)?;
    let mut bytes = vec![0; usize::try_from(reader.size()).expect("within the limit")];
    for (number, sector) in bytes.chunks_mut(4096).enumerate() {
        if reader.read_at(number as u64 * 4096, sector).is_err() {
            sector.fill(0);
        }
    }
    Ok(bytes)
}

/// What the sidecar of an object says by its first head; none where there is no sidecar or that head is damaged.
///
/// # Errors
/// [`BackendError`] where the storage fails.
pub fn head_of(backend: &dyn Backend, object: &ObjectKey) -> Result<Option<Head>, BackendError> {
    let Some(sidecar) = key_of(object) else { return Ok(None) };
    let mut head = [0; HEAD_LEN];
    match backend.read_range(&sidecar, 0, &mut head) {
        Ok(()) => Ok(Head::decode(&head).ok()),
        Err(error) if error.is_not_found() || error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is wrong with the sidecar of an object whose bytes are to have this hash, in words; none where nothing is, or where there is no
/// sidecar: then the outer option is none.
///
/// # Errors
/// [`BackendError`] where the storage fails.
pub fn examine(
    backend: &dyn Backend,
    object: &ObjectKey,
    hash: &[u8; 32],
) -> Result<Option<Option<String>>, BackendError> {
    let Some(key) = key_of(object) else { return Ok(None) };
    let bytes = match read(backend, &key) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) if error.is_damage() => return Ok(Some(Some(error.to_string()))),
        Err(error) => return Err(error),
    };
    Ok(Some(match Sidecar::parse(&bytes) {
        Err(error) => Some(error.to_string()),
        Ok(sidecar) if sidecar.head().object != *hash => Some("it is that of other bytes".to_owned()),
        Ok(sidecar) if !sidecar.is_sound() => Some("some of its bytes are not what they were".to_owned()),
        Ok(_) => None,
    }))
}

/// Deletes an object that may go, and its sidecar. One that cannot be deleted is left to a later prune.
///
/// # Errors
/// [`BackendError`] where the object cannot be deleted.
pub fn delete_both(backend: &dyn Backend, object: &ObjectKey) -> Result<(), BackendError> {
    backend.delete(object)?;
    if let Some(sidecar) = key_of(object) {
        let _left = backend.delete(&sidecar);
    }
    Ok(())
}

/// Names of the sidecars that all stored objects have or could have.
///
/// # Errors
/// [`BackendError`] where the storage cannot list its objects.
pub fn of_stored(backend: &dyn Backend) -> Result<HashSet<ParityId>, BackendError> {
    let mut names = HashSet::new();
    for folder in [Folder::Packs, Folder::Index, Folder::Log, Folder::State, Folder::Ledger] {
        backend.list(folder, None, &mut |info| {
            names.extend(key_of(&info.key).and_then(|key| key.parity_id()));
            ControlFlow::Continue(())
        })?;
    }
    Ok(names)
}

/// Sidecars that could not be stored: no failure of whatever stored their objects.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<Vec<String>>);

/// Troubles that are kept: a full disk has one for every object.
const TROUBLES_MAX: usize = 20;

impl Troubles {
    fn add(&self, object: &ObjectKey, error: &SidecarError) {
        // Single steps: a panic elsewhere leaves them whole.
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() < TROUBLES_MAX {
            troubles.push(format!("{object} has no parity yet: {error}"));
        }
    }

    /// All of them, in words.
    pub fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Covers what is stored, as the policy of a repository says.
#[derive(Debug, Clone)]
pub struct Cover {
    overhead: Overhead,
    troubles: Arc<Troubles>,
}

impl Cover {
    /// With so much parity.
    pub fn new(overhead: Overhead, troubles: Arc<Troubles>) -> Self {
        Self { overhead, troubles }
    }

    /// Stores the sidecar of an object that is named by its hash.
    pub fn object(&self, backend: &dyn Backend, object: &ObjectKey) {
        if let Some(hash) = named_hash(object) {
            self.object_of(backend, object, &hash);
        }
    }

    /// Stores the sidecar of an object whose bytes have this hash.
    pub fn object_of(&self, backend: &dyn Backend, object: &ObjectKey, hash: &[u8; 32]) {
        match store(backend, object, self.overhead, hash) {
            Ok(_) => {}
            // Somebody has deleted it since: then it needs none.
            Err(SidecarError::Backend(error)) if error.is_not_found() => {}
            Err(error) => self.troubles.add(object, &error),
        }
    }
}
