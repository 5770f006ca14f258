//! Heads: points of the log that were seen before, and whether the log still passes through them.
//!
//! The log has no way to show that its end was cut off: what is left is a log, too. Whoever remembers an entry's number and
//! hash can tell.

use std::fmt;
use std::str::FromStr;

use crate::backend::{Backend, ObjectKey};
use crate::crypto::KeySet;
use crate::format::commit::{self, Commit};
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::ids::{CommitHash, ParseIdError, RepositoryId};
use crate::log::LogError;

/// An entry of the log as it was seen: as text, number and hash with a colon between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of the entry.
    pub seq: u64,
    /// Hash of its object.
    pub hash: CommitHash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

/// A text is no head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseHeadError {
    /// There is no number of a commit before a colon.
    #[error("{0:?} is not a head: expected the number of a commit, a colon and its hash")]
    Form(String),
    /// What follows is no hash.
    #[error(transparent)]
    Hash(#[from] ParseIdError),
}

impl FromStr for Head {
    type Err = ParseHeadError;

    fn from_str(text: &str) -> Result<Self, ParseHeadError> {
        let form = || ParseHeadError::Form(text.chars().take(80).collect());
        let (seq, hash) = text.split_once(':').ok_or_else(form)?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0).ok_or_else(form)?;
        Ok(Self { seq, hash: hash.parse()? })
    }
}

/// The log does not pass through a head.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// It ends before it.
    #[error("the commit log ends at commit {found}, but commit {} was seen before ({expected}): commits are gone", expected.seq)]
    Older {
        /// What was seen.
        expected: Head,
        /// The last commit there is.
        found: u64,
    },
    /// Another entry is in its place.
    #[error("commit {} is {found}, but was {} before: this is another history", expected.seq, expected.hash)]
    Other {
        /// What was seen.
        expected: Head,
        /// Hash of what is there.
        found: CommitHash,
    },
    /// The log cannot be read, or is not one chain from there on.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Makes sure that the chain which ends at `end` passes through `expected`: only the entries from there on are read.
///
/// # Errors
/// [`HeadError`].
pub fn verify_head(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    expected: &Head,
    end: &Head,
) -> Result<(), HeadError> {
    if end.seq < expected.seq {
        return Err(HeadError::Older { expected: *expected, found: end.seq });
    }
    let mut found = *expected;
    for seq in expected.seq..=end.seq {
        let object = match backend.read(&ObjectKey::log(seq), RECORD_OBJECT_LEN_MAX) {
            Ok(object) => object,
            Err(error) if error.is_not_found() => {
                return Err(LogError::Gap { missing: seq, last: end.seq }.into());
            }
            Err(error) => return Err(LogError::from(error).into()),
        };
        let hash = commit::hash(&object);
        if seq == expected.seq && hash != expected.hash {
            return Err(HeadError::Other { expected: *expected, found: hash });
        }
        // What is no commit names nobody: the chain goes over its bytes.
        if seq > expected.seq
            && let Ok((commit, _)) = Commit::open(object, seq, keys, repository)
            && commit.previous != found.hash
        {
            return Err(LogError::Chain { seq, expected: commit.previous, found: found.hash }.into());
        }
        found = Head { seq, hash };
    }
    // What was read just now has to be what the log was folded from.
    if found == *end { Ok(()) } else { Err(HeadError::Other { expected: *end, found: found.hash }) }
}
