//! Parity sidecars of stored objects: making, finding and deleting them.
//!
//! - [`code`]: recovery shards of an object, and lost shards of it again
//! - `mend`: a damaged object made whole
//!
//! Nothing rests on a sidecar, so nothing fails for one: what cannot be stored is noted and told at the end.

pub mod code;
mod mend;

pub use mend::{MendError, Mending, mend, mend_if_possible};

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{self, Backend, BackendError, Created, Folder, ObjectKey};
use crate::format::parity::{
    self, COVERED_LEN_MAX, HEAD_LEN, Head, Overhead, SIDECAR_LEN_MAX, Shape, Sidecar,
};
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::ids::ParityId;

/// The sidecar of an object; none for those that have none.
pub fn key_of(object: &ObjectKey) -> Option<ObjectKey> {
    if *object == ObjectKey::config() {
        return Some(ObjectKey::parity(&parity::id_of_named(object.as_str())));
    }
    let id = match object.folder()? {
        Folder::Packs | Folder::Index | Folder::Ledger | Folder::Keys => object.parity_id()?,
        Folder::Log | Folder::State => {
            object.sequence()?;
            parity::id_of_named(object.as_str())
        }
        Folder::Parity => return None,
    };
    Some(ObjectKey::parity(&id))
}

/// The hash that an object's name says its bytes have.
pub fn named_hash(object: &ObjectKey) -> Option<[u8; 32]> {
    match object.folder()? {
        Folder::Packs | Folder::Index | Folder::Ledger | Folder::Keys => {
            object.parity_id().map(|id| *id.as_bytes())
        }
        _ => None,
    }
}

/// Longest object of a kind that can be covered.
fn covered_max(object: &ObjectKey) -> u64 {
    match object.folder() {
        Some(Folder::Packs | Folder::Index) => COVERED_LEN_MAX,
        _ => RECORD_OBJECT_LEN_MAX,
    }
}

/// Whether an object of this length can have a sidecar.
pub fn can_cover(object: &ObjectKey, size: u64) -> bool {
    key_of(object).is_some() && size > 0 && size <= covered_max(object)
}

/// Whether there is a sidecar of an object, whatever it is worth.
///
/// # Errors
/// [`BackendError`] where the storage fails.
pub fn is_there(backend: &dyn Backend, object: &ObjectKey) -> Result<bool, BackendError> {
    let Some(sidecar) = key_of(object) else { return Ok(false) };
    Ok(backend::size_of(backend, &sidecar)?.is_some())
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
    /// The object cannot be read.
    #[error("{0}")]
    Object(#[source] BackendError),
    /// The sidecar cannot be stored.
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
    store_within(code::WORK_LEN, backend, object, overhead, hash)
}

/// The same, where [`code::encode`] may take `work` bytes for its columns.
///
/// # Errors
/// As [`store`].
pub fn store_within(
    work: usize,
    backend: &dyn Backend,
    object: &ObjectKey,
    overhead: Overhead,
    hash: &[u8; 32],
) -> Result<Stored, SidecarError> {
    let Some(sidecar) = key_of(object) else { return Ok(Stored::None) };
    let reader = match backend.open(object, covered_max(object)) {
        Err(BackendError::TooLarge { .. }) => return Ok(Stored::None),
        opened => opened.map_err(SidecarError::Object)?,
    };
    let Some(shape) = Shape::choose(reader.size(), overhead) else { return Ok(Stored::None) };
    let made = code::encode(shape, work, &mut |at, buffer| reader.read_at(at, buffer));
    let made = made.map_err(SidecarError::Object)?;
    if made.head().object != *hash {
        return Err(SidecarError::Damaged { key: object.clone() });
    }
    let write = || {
        let mut staged = backend.begin()?;
        made.write(&mut |part| staged.write(part))?;
        Ok::<_, BackendError>(staged)
    };
    if write()?.publish(&sidecar)? == Created::New {
        return Ok(Stored::New(made.stored_len()));
    }
    if is_stored(backend, &sidecar, &made) {
        return Ok(Stored::Present);
    }
    write()?.replace(&sidecar)?;
    Ok(Stored::New(made.stored_len()))
}

/// Whether a sidecar is what is stored under its name.
fn is_stored(backend: &dyn Backend, sidecar: &ObjectKey, made: &code::Made) -> bool {
    const PIECE_LEN: usize = 1 << 20;
    let Ok(reader) = backend.open(sidecar, made.stored_len()) else { return false };
    let (mut at, mut piece) = (0, vec![0; PIECE_LEN]);
    let same = made.write(&mut |part| {
        for part in part.chunks(PIECE_LEN) {
            let stored = &mut piece[..part.len()];
            if reader.read_at(at, stored).is_err() || stored != part {
                return Err(());
            }
            at += part.len() as u64;
        }
        Ok(())
    });
    same.is_ok() && at == reader.size()
}

/// Longest sidecar of an object of this kind.
fn sidecar_max(object: &ObjectKey) -> u64 {
    covered_max(object) + (SIDECAR_LEN_MAX - COVERED_LEN_MAX)
}

/// Reads the sidecar of an object. What a disk has lost of it is zeros, and as good as any other damage.
///
/// # Errors
/// [`BackendError`] where it is not there, cannot be opened, or cannot be read for a reason that may pass.
fn read(backend: &dyn Backend, object: &ObjectKey, sidecar: &ObjectKey) -> Result<Vec<u8>, BackendError> {
    let limit = sidecar_max(object);
    match backend.read(sidecar, limit) {
        Err(error @ BackendError::Io { .. }) if error.is_loss() => {}
        read => return read,
    }
    let reader = backend.open(sidecar, limit)?;
    let mut bytes = vec![0; usize::try_from(reader.size()).expect("within the limit")];
    for (number, sector) in bytes.chunks_mut(4096).enumerate() {
        match reader.read_at(number as u64 * 4096, sector) {
            Ok(()) => {}
            Err(error) if error.is_loss() => sector.fill(0),
            Err(error) => return Err(error),
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
    let bytes = match read(backend, object, &key) {
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
    names.extend(key_of(&ObjectKey::config()).and_then(|key| key.parity_id()));
    for folder in Folder::ALL.into_iter().filter(|folder| *folder != Folder::Parity) {
        backend.list(folder, None, &mut |info| {
            names.extend(key_of(&info.key).and_then(|key| key.parity_id()));
            ControlFlow::Continue(())
        })?;
    }
    Ok(names)
}

/// What went wrong with parity: no failure of whatever stored or deleted its objects.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<Vec<String>>);

/// Troubles that are kept: a full disk has one for every object.
const TROUBLES_MAX: usize = 20;

impl Troubles {
    fn add(&self, object: &ObjectKey, error: &SidecarError) {
        self.note(format!("{object} has no parity yet: {error}; `strongroom parity add` makes it good"));
    }

    /// Takes note of something else.
    pub fn note(&self, trouble: String) {
        // Single steps: a panic elsewhere leaves them whole.
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() < TROUBLES_MAX && !troubles.contains(&trouble) {
            troubles.push(trouble);
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

    /// Stores the sidecar of an object that is named by its hash, unless it has one: for objects that others have stored, who may
    /// not have come to this.
    pub fn complete(&self, backend: &dyn Backend, object: &ObjectKey) {
        if !is_there(backend, object).unwrap_or(false) {
            self.object(backend, object);
        }
    }

    /// Stores the sidecar of an object whose bytes have this hash.
    pub fn object_of(&self, backend: &dyn Backend, object: &ObjectKey, hash: &[u8; 32]) {
        match store(backend, object, self.overhead, hash) {
            Ok(_) => {}
            // Somebody has deleted it since: then it needs none.
            Err(SidecarError::Object(error)) if error.is_not_found() => {}
            Err(error) => self.troubles.add(object, &error),
        }
    }
}
