//! Publishing a commit: `log/<next>`, created only if absent.

use crate::backend::{Backend, BackendError, Created, ObjectKey};
use crate::format::commit::{self, Commit, WriterKey};
use crate::format::header::Sealer;
use crate::format::record::RecordError;
use crate::ids::CommitHash;

/// A commit could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else's commit has this number: read it, validate anew, try the next one.
    #[error("commit {0} was published by another writer first")]
    Lost(u64),
    /// It says more than one commit can.
    #[error("cannot make commit {seq}: {source}")]
    TooLarge {
        /// The commit's number.
        seq: u64,
        /// By how much.
        source: RecordError,
    },
    /// The storage failed. Whether the commit is there, or will be after a power cut, is not known.
    #[error("cannot publish commit {seq}: {source}")]
    Backend {
        /// The commit's number.
        seq: u64,
        /// Why.
        source: BackendError,
    },
}

/// Publishes a commit under its number and returns the hash of its object.
///
/// A failed creation may have taken effect: that is settled by reading the slot back and comparing bytes, which
/// no other writer can have made, since every object has a random salt. Then it has to be made durable, too: the failure may have come
/// before that.
///
/// # Errors
/// [`PublishError`]; nothing may be built on the commit then.
pub fn publish(
    backend: &dyn Backend,
    commit: &Commit,
    writer: &WriterKey,
    sealer: &Sealer<'_>,
) -> Result<CommitHash, PublishError> {
    let object =
        commit.seal(writer, sealer).map_err(|source| PublishError::TooLarge { seq: commit.seq, source })?;
    let key = ObjectKey::log(commit.seq);
    match backend.create(&key, &object) {
        Ok(Created::New) => Ok(commit::hash(&object)),
        Ok(Created::Exists) => Err(PublishError::Lost(commit.seq)),
        Err(source) if source.is_not_durable() => Err(PublishError::Backend { seq: commit.seq, source }),
        Err(source) => match backend.read(&key, object.len() as u64) {
            Ok(stored) if stored == object => match backend.flush(&key) {
                Ok(()) => Ok(commit::hash(&object)),
                Err(source) => Err(PublishError::Backend { seq: commit.seq, source }),
            },
            Ok(_) | Err(BackendError::TooLarge { .. }) => Err(PublishError::Lost(commit.seq)),
            Err(_) => Err(PublishError::Backend { seq: commit.seq, source }),
        },
    }
}
