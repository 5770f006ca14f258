//! Entries of the log that do not count, and which of them were commits once: what those said is lost.

use std::fmt;

use crate::backend::{Backend, BackendError, ObjectKey};
use crate::crypto::KeySet;
use crate::format::commit;
use crate::format::header::ObjectKind;
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::format::remains::was_sealed;
use crate::ids::{CommitHash, RepositoryId};
use crate::log::headers::Headers;

/// An entry that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoidEntry {
    /// Its number.
    pub seq: u64,
    /// Hash of what stands there.
    pub hash: CommitHash,
    /// Why it does not count.
    pub reason: String,
    /// What it was.
    pub origin: Origin,
}

impl fmt::Display for VoidEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log entry {} does not count: {}", self.seq, self.reason)
    }
}

/// What an entry that does not count was when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// What it is now: whoever made it was not entitled to it.
    Same,
    /// Nothing: it is too short for the beginning of a commit. A publication shows a commit in whole or not at all, so this is nobody's.
    Nothing,
    /// A commit: it was sealed with the repository's keys, and altered since.
    Commit,
    /// Nobody can tell.
    Unknown,
}

impl Origin {
    /// What an entry was that does not open and has this hash. It is read again for that: there are not many. Of a copy of an entry before it
    /// nobody can tell: it takes no key to make one.
    pub(super) fn of_unopened(
        backend: &dyn Backend,
        keys: &KeySet,
        repository: &RepositoryId,
        headers: &mut Headers,
        (seq, hash): (u64, CommitHash),
    ) -> Result<Self, BackendError> {
        let object = backend.read(&ObjectKey::log(seq), RECORD_OBJECT_LEN_MAX)?;
        let is_same = commit::hash(&object) == hash;
        let header = object.first_chunk();
        let Some(header) =
            header.filter(|_| is_same && was_sealed(ObjectKind::Log, &object, keys, repository))
        else {
            return Ok(Self::Unknown);
        };
        Ok(match headers.have_copied(backend, seq, header)? {
            true => Self::Unknown,
            false => Self::Commit,
        })
    }
}

/// A commit that is lost, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostCommit {
    /// Its number.
    pub seq: u64,
    /// How it was lost.
    pub how: Loss,
}

/// How a commit was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Its entry was altered.
    Altered,
    /// Its entry is gone from the end of the log, where parity of it is left.
    Gone,
    /// Its entry does not count, and none behind it has passed over it: nobody knows whether it was one.
    Doubtful,
}

impl fmt::Display for LostCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.how {
            Loss::Altered => "was a commit and was altered: what it said is lost, maybe a snapshot",
            Loss::Gone => {
                "was a commit and is gone from the end of the log: what it said is lost, maybe a snapshot"
            }
            Loss::Doubtful => {
                "is none now, and may have been a commit: then what it said is lost, maybe a snapshot"
            }
        };
        write!(f, "log entry {} {what}", self.seq)
    }
}
