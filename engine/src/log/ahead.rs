//! What stands behind the end of the log, with a number left out before it: an entry there proves that one is missing, and junk
//! proves nothing.
//!
//! Whoever can create files in the storage can put anything there. Only what was sealed with the log's key is an entry, or was one: nobody
//! without the key can make it, but they can copy one to another number, and alter the copy.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::backend::{self, Backend, BackendError, Folder, ObjectKey};
use crate::crypto::KeySet;
use crate::format::commit::{Commit, CommitError};
use crate::format::header::ObjectKind;
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::format::remains::was_sealed;
use crate::ids::RepositoryId;
use crate::log::Fold;
use crate::log::headers::{Headers, RawHeader, header_of, is_commits};

/// Objects that are looked at. No accident leaves so many behind a gap.
const LOOKED_AT_MAX: usize = 1000;

/// Bytes that are read in one look, beside headers: as many as one entry can have, so that what stands first behind a gap is read whatever
/// it is. Of junk there may be any number.
const READ_MAX: u64 = if cfg!(test) { 1 << 20 } else { RECORD_OBJECT_LEN_MAX };

/// An object behind the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Its number.
    pub seq: u64,
    /// Whether it is an entry for sure, or was one.
    pub is_entry: bool,
}

/// What was looked at and found to be junk, by number, length and header: a process looks at it once.
#[derive(Debug, Default)]
pub struct Junk(HashSet<(u64, u64, RawHeader)>);

/// What stands behind the entry after the last one, ascending, where that one is missing; up to the first that is an entry. What is `known`
/// for junk is not looked at again.
///
/// # Errors
/// [`BackendError`] where the storage fails.
pub fn ahead(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &Fold,
    known: &mut Junk,
) -> Result<Vec<Ahead>, BackendError> {
    let Some(next) = fold.seq().checked_add(1) else { return Ok(Vec::new()) };
    let mut beyond = Vec::new();
    backend.list(Folder::Log, Some(&ObjectKey::log(next)), &mut |info| {
        beyond.extend(info.key.sequence().filter(|seq| *seq > next).map(|seq| (seq, info.size)));
        if beyond.len() < LOOKED_AT_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if beyond.is_empty() {
        return Ok(Vec::new());
    }
    if backend::size_of(backend, &ObjectKey::log(next))?.is_some() {
        // Just written by somebody else.
        return Ok(Vec::new());
    }
    let mut look = Look { backend, keys, repository, next, headers: Headers::default(), read: 0 };
    let mut found = Vec::new();
    for (seq, size) in beyond {
        let is_entry = look.is_entry(seq, size, known)?;
        found.push(Ahead { seq, is_entry });
        if is_entry {
            break;
        }
    }
    Ok(found)
}

/// One look at what stands there.
struct Look<'a> {
    backend: &'a dyn Backend,
    keys: &'a KeySet,
    repository: &'a RepositoryId,
    /// The number that is missing.
    next: u64,
    headers: Headers,
    /// Bytes read so far.
    read: u64,
}

impl Look<'_> {
    /// Whether an object is entry `seq`, or was it before it was altered. One that cannot be read proves nothing.
    fn is_entry(&mut self, seq: u64, size: u64, known: &mut Junk) -> Result<bool, BackendError> {
        let key = ObjectKey::log(seq);
        // Most junk costs no more than this, however long it is.
        let Some(header) = header_of(self.backend, &key).ok().filter(is_commits) else { return Ok(false) };
        if size > RECORD_OBJECT_LEN_MAX || known.0.contains(&(seq, size, header)) {
            return Ok(false);
        }
        let is_entry = match self.headers.have_copied(self.backend, self.next, &header)? {
            true => false,
            false if self.read + size > READ_MAX => return Ok(false),
            false => {
                self.read += size;
                match self.backend.read(&key, RECORD_OBJECT_LEN_MAX) {
                    Ok(object) => self.was_entry(&object, seq),
                    Err(_) => return Ok(false),
                }
            }
        };
        if !is_entry {
            known.0.insert((seq, size, header));
        }
        Ok(is_entry)
    }

    fn was_entry(&self, object: &[u8], seq: u64) -> bool {
        match Commit::open(object.to_vec(), seq, self.keys, self.repository) {
            Ok(_) | Err(CommitError::Body { .. }) => true,
            // It opens, and is what somebody with the key made of it, or that of another number.
            Err(CommitError::Sequence { .. } | CommitError::Signature(_)) => false,
            Err(CommitError::Record(_)) => was_sealed(ObjectKind::Log, object, self.keys, self.repository),
        }
    }
}
