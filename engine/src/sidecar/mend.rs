//! What a sidecar makes good: an object with some of its shards made again, compared before anything is believed.

use crate::backend::{Backend, BackendError, Created, ObjectKey, ObjectReader};
use crate::format::parity::{ParityError, Sidecar};
use crate::sidecar::code::{self, DecodeError, Decoded};
use crate::sidecar::{can_cover, key_of, named_hash, read};

/// Bytes of a damaged object that are compared at a time.
const COMPARED_LEN: usize = 64 << 10;

/// How often a sector, or an object, is asked for.
const READS: u32 = 3;

/// An object cannot be made whole.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// It has no parity.
    #[error("it has no parity")]
    None,
    /// Its sidecar cannot be used.
    #[error("its parity is damaged: {0}")]
    Sidecar(#[from] ParityError),
    /// Its sidecar speaks of other bytes than the object's name.
    #[error("its parity is that of another object")]
    Other,
    /// Too much of it is damaged.
    #[error("parity cannot make it good: {0}")]
    Decode(#[from] DecodeError),
    /// Its sidecar cannot be read.
    #[error("its parity cannot be read: {0}")]
    Unreadable(#[source] BackendError),
    /// It is not what was found damaged any more: somebody has stored something in its place, or deleted it.
    #[error("what is stored there has changed meanwhile: run the command again")]
    Changed,
    /// The storage failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// An object of which what was lost is known again. Whether that is the object, the hash of the whole has to say.
#[derive(Debug)]
pub struct Mending {
    /// What is stored of it; none if nothing of that can be read.
    reader: Option<Box<dyn ObjectReader>>,
    /// Nothing is stored.
    is_absent: bool,
    decoded: Decoded,
    hash: [u8; 32],
    len: u64,
}

/// Reads an object and its sidecar, and makes again what was lost.
///
/// # Errors
/// [`MendError`]
pub fn mend(backend: &dyn Backend, object: &ObjectKey) -> Result<Mending, MendError> {
    let bytes = match key_of(object).map(|key| read(backend, object, &key)) {
        None => return Err(MendError::None),
        Some(Err(error)) if error.is_not_found() => return Err(MendError::None),
        Some(bytes) => bytes.map_err(MendError::Unreadable)?,
    };
    let sidecar = Sidecar::parse(&bytes)?;
    let (hash, len) = (sidecar.head().object, sidecar.head().shape.covered());
    if named_hash(object).is_some_and(|named| named != hash) || !can_cover(object, len) {
        return Err(MendError::Other);
    }
    let (reader, is_absent) = match open(backend, object) {
        Ok(reader) => (Some(reader), false),
        Err(error) if error.is_loss() => (None, error.is_not_found()),
        Err(error) => return Err(error.into()),
    };
    let decoded = code::decode(&sidecar, &mut |at, buffer| fill(reader.as_deref(), at, buffer))?;
    Ok(Mending { reader, is_absent, decoded, hash, len })
}

/// As [`mend`], for what is given up where parity cannot do anything: none then.
///
/// # Errors
/// [`BackendError`] where it may go well the next time.
pub fn mend_if_possible(backend: &dyn Backend, object: &ObjectKey) -> Result<Option<Mending>, BackendError> {
    match mend(backend, object) {
        Ok(mending) => Ok(Some(mending)),
        Err(MendError::Unreadable(error) | MendError::Backend(error)) if !error.is_loss() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Opens an object, some times if need be.
fn open(backend: &dyn Backend, object: &ObjectKey) -> Result<Box<dyn ObjectReader>, BackendError> {
    let is_answered = |opened: &Result<_, BackendError>| match opened {
        Ok(_) => true,
        Err(error) => error.is_not_found(),
    };
    let mut attempts = (0..READS).map(|_| backend.open(object, u64::MAX));
    attempts.find(is_answered).unwrap_or_else(|| backend.open(object, u64::MAX))
}

/// Sectors that a disk does not give are as lost as those that are not there. Each is asked for some times: one that it gives now and then
/// would be missing in one pass over the object, and there in another.
fn fill(reader: Option<&dyn ObjectReader>, at: u64, buffer: &mut [u8]) -> bool {
    reader.is_some_and(|reader| (0..READS).any(|_| reader.read_at(at, buffer).is_ok()))
}

impl Mending {
    /// Hash of the object, as its sidecar says.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Shards that were lost.
    pub fn damaged(&self) -> usize {
        self.decoded.damaged()
    }

    /// Whether nothing is wrong with what is stored.
    pub fn is_intact(&self) -> bool {
        self.damaged() == 0 && self.reader.as_ref().is_some_and(|reader| reader.size() == self.len)
    }

    fn write(&self, write: &mut dyn FnMut(&[u8]) -> Result<(), MendError>) -> Result<(), MendError> {
        let hash = self.decoded.write(&mut |at, buffer| fill(self.reader.as_deref(), at, buffer), write)?;
        if hash == self.hash { Ok(()) } else { Err(DecodeError::Wrong.into()) }
    }

    /// Makes sure that the object is had again, as its sidecar says, and drops it.
    ///
    /// # Errors
    /// [`MendError`]
    pub fn test(&self) -> Result<(), MendError> {
        self.write(&mut |_| Ok(()))
    }

    /// The whole object, of at most `limit` bytes.
    ///
    /// # Errors
    /// [`MendError`]
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>, MendError> {
        if self.len > limit {
            return Err(MendError::Other);
        }
        let mut bytes = Vec::new();
        self.write(&mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Puts the object in place of what is left of it, once all of it is written and is what it should be. Where nothing was
    /// left, nothing is replaced, whatever has come there since; nor is what has changed since it was found damaged.
    ///
    /// # Errors
    /// [`MendError`]
    pub fn replace(&self, backend: &dyn Backend, object: &ObjectKey) -> Result<(), MendError> {
        let mut staged = backend.begin()?;
        self.write(&mut |part| Ok(staged.write(part)?))?;
        if !self.is_absent {
            // As late as can be. What was deleted meanwhile, as a keyslot is, does not come back.
            if !self.is_as_found(backend, object)? {
                return Err(MendError::Changed);
            }
            return Ok(staged.replace(object)?);
        }
        match staged.publish(object)? {
            Created::New => Ok(()),
            Created::Exists => Err(MendError::Changed),
        }
    }

    /// Whether what is stored is what was found damaged, as far as either can be read.
    fn is_as_found(&self, backend: &dyn Backend, object: &ObjectKey) -> Result<bool, MendError> {
        let now = match open(backend, object) {
            Ok(reader) => reader,
            Err(error) if error.is_not_found() => return Ok(false),
            // Nothing of it can be read: that was so.
            Err(error) if error.is_loss() => return Ok(self.reader.is_none()),
            Err(error) => return Err(error.into()),
        };
        let Some(before) = &self.reader else { return Ok(false) };
        if now.size() != before.size() {
            return Ok(false);
        }
        let (mut old, mut new) = (vec![0; COMPARED_LEN], vec![0; COMPARED_LEN]);
        let mut at = 0;
        while at < now.size() {
            let len = usize::try_from(now.size() - at).map_or(COMPARED_LEN, |left| left.min(COMPARED_LEN));
            let had = [(before, &mut old), (&now, &mut new)]
                .map(|(reader, bytes)| reader.read_at(at, &mut bytes[..len]).is_ok());
            // What the disk does not give tells nothing.
            if had == [true, true] && old[..len] != new[..len] {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }
}
