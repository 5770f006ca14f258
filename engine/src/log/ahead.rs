//! What stands behind the end of the log, with a number left out before it: an entry there proves that one is missing, and junk
//! proves nothing.
//!
//! Whoever can create files in the storage can put anything there. Only what was sealed with the log's key is an entry, or was one: nobody
//! without the key can make it, but they can copy one to another number, and alter the copy.

use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::crypto::KeySet;
use crate::format::commit::{Commit, CommitError};
use crate::format::header::{HEADER_LEN, Header, ObjectKind};
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::format::remains::was_sealed;
use crate::ids::RepositoryId;
use crate::log::Fold;

/// Objects that are looked at. No accident leaves so many behind a gap.
const LOOKED_AT_MAX: usize = 1000;

/// Bytes of a header before its salt: the same in all commits.
const PREFIX_LEN: usize = 16;

/// An object behind the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Its number.
    pub seq: u64,
    /// Whether it is an entry for sure, or was one.
    pub is_entry: bool,
}

/// What stands behind the entry after the last one, ascending, where that one is missing; up to the first that is an entry.
///
/// # Errors
/// [`BackendError`] where the storage fails.
pub fn ahead(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &Fold,
) -> Result<Vec<Ahead>, BackendError> {
    let Some(next) = fold.seq().checked_add(1) else { return Ok(Vec::new()) };
    let mut beyond = Vec::new();
    backend.list(Folder::Log, Some(&ObjectKey::log(next)), &mut |info| {
        beyond.extend(info.key.sequence().filter(|seq| *seq > next));
        if beyond.len() < LOOKED_AT_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if beyond.is_empty() {
        return Ok(Vec::new());
    }
    match backend.stat(&ObjectKey::log(next)) {
        // Just written by somebody else.
        Ok(_) => return Ok(Vec::new()),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let mut found = Vec::new();
    for seq in beyond {
        let is_entry = is_entry(backend, keys, repository, fold.seq(), seq);
        found.push(Ahead { seq, is_entry });
        if is_entry {
            break;
        }
    }
    Ok(found)
}

/// Whether an object is entry `seq`, or was it before it was altered. One that cannot be read proves nothing.
fn is_entry(backend: &dyn Backend, keys: &KeySet, repository: &RepositoryId, last: u64, seq: u64) -> bool {
    let key = ObjectKey::log(seq);
    // Junk of any length costs no more than this.
    let Some(header) = header_of(backend, &key) else { return false };
    if header[..PREFIX_LEN] != prefix() {
        return false;
    }
    let Ok(object) = backend.read(&key, RECORD_OBJECT_LEN_MAX) else { return false };
    match Commit::open(object.clone(), seq, keys, repository) {
        Ok(_) | Err(CommitError::Body { .. }) => true,
        // It opens, and is what somebody with the key made of it, or that of another number.
        Err(CommitError::Sequence { .. } | CommitError::Signature(_)) => false,
        Err(CommitError::Record(_)) => {
            was_sealed(ObjectKind::Log, &object, keys, repository)
                && !(1..=last).any(|other| is_copy(backend, other, &header))
        }
    }
}

/// What every commit begins with.
fn prefix() -> [u8; PREFIX_LEN] {
    let (salt, commitment) = ([0; 32], [0; 32]);
    let header = Header { kind: ObjectKind::Log, mode: 0, flags: 0, epoch: 0, salt, commitment };
    *header.encode().first_chunk().expect("a header is longer")
}

fn header_of(backend: &dyn Backend, key: &ObjectKey) -> Option<[u8; HEADER_LEN]> {
    let mut header = [0; HEADER_LEN];
    backend.read_range(key, 0, &mut header).ok().map(|()| header)
}

/// Whether a header was made from that of entry `other`: it has its commitment, or its salt but for a bit.
fn is_copy(backend: &dyn Backend, other: u64, header: &[u8; HEADER_LEN]) -> bool {
    let Some(other) = header_of(backend, &ObjectKey::log(other)) else { return false };
    let (salts, commitments) = (PREFIX_LEN..PREFIX_LEN + 32, PREFIX_LEN + 32..HEADER_LEN);
    let bits = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
    let altered: u32 = header[salts.clone()].iter().zip(&other[salts]).map(bits).sum();
    header[commitments.clone()] == other[commitments] || altered <= 1
}
