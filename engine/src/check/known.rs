//! What the verification ledger knows of the packs there are, without looking at any.

use crate::format::ledger::{Ledger, LedgerError, Method};
use crate::format::tree::Timestamp;
use crate::ids::PackId;
use crate::index::IndexError;
use crate::repo::{LedgerReadError, Repository, RepositoryError};

/// When packs were last read in whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readings {
    /// Packs that the index lists.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the largest.
    pub largest: u64,
    /// Packs that were never read.
    pub packs_never_read: u64,
    /// Packs that were found damaged, and not intact since.
    pub packs_in_doubt: u64,
    /// The pack whose last reading is the longest ago, and when that was.
    pub oldest_read: Option<(PackId, Timestamp)>,
    /// When any pack was last read.
    pub last_read: Option<Timestamp>,
    /// When each pack was last read that ever was, and its bytes.
    pub read: Vec<(Timestamp, u64)>,
}

/// What is known cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ReadingsError {
    /// The ledger is damaged.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Tells what is known of the readings of packs. Times to come, of a wrong clock, count for nothing.
///
/// # Errors
/// [`ReadingsError`].
pub fn readings(repository: &Repository) -> Result<Readings, ReadingsError> {
    let ledger = match repository.fold().ledger() {
        None => Ledger::default(),
        Some(id) => repository.read_ledger(&id).map_err(|error| match error {
            LedgerReadError::Backend(error) => ReadingsError::Repository(error.into()),
            LedgerReadError::Ledger(error) => error.into(),
        })?,
    };
    let now = (repository.environment().now)();
    let mut found = Readings::default();
    for segment in repository.index().segments().iter() {
        for pack in segment.packs() {
            let pack = pack?;
            found.packs += 1;
            found.bytes = found.bytes.saturating_add(pack.size);
            found.largest = found.largest.max(pack.size);
            found.packs_in_doubt += u64::from(ledger.is_in_doubt(&pack.id));
            match ledger.last(&pack.id, Method::Read).map(|entry| entry.time).filter(|time| *time <= now) {
                None => found.packs_never_read += 1,
                Some(time) => {
                    if found.oldest_read.is_none_or(|(_, oldest)| time < oldest) {
                        found.oldest_read = Some((pack.id, time));
                    }
                    found.last_read = found.last_read.max(Some(time));
                    found.read.push((time, pack.size));
                }
            }
        }
    }
    Ok(found)
}
