//! Reading the verification ledger that the log names.

use std::collections::BTreeSet;

use crate::backend::{BackendError, ObjectKey};
use crate::format::ledger::{self, Ledger, LedgerError};
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::ids::{LedgerId, PackId};
use crate::repo::{Repository, RepositoryError};

/// Why a ledger was not read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerReadError {
    /// The storage failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// It is none, or another one.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Repository {
    /// Reads the ledger with this id.
    ///
    /// # Errors
    /// [`LedgerReadError`] where it is not there, or not what it should be.
    pub fn read_ledger(&self, id: &LedgerId) -> Result<Ledger, LedgerReadError> {
        let object = self.backend().read(&ObjectKey::ledger(id), RECORD_OBJECT_LEN_MAX)?;
        if ledger::id(&object) != *id {
            return Err(LedgerError::Malformed("its bytes do not hash to its id").into());
        }
        Ok(Ledger::open(object, self.keys(), &self.id())?)
    }

    /// Packs that some check found damaged, and none has found intact since: what lies in another one as well is better relied
    /// on there. A ledger that is lost doubts nothing.
    ///
    /// # Errors
    /// [`RepositoryError`] where it may be read the next time: what it doubts is not to be relied on meanwhile.
    pub fn packs_in_doubt(&self) -> Result<BTreeSet<PackId>, RepositoryError> {
        let mut named = self.fold().ledger();
        while let Some(id) = named {
            match self.read_ledger(&id) {
                Ok(ledger) => return Ok(ledger.in_doubt()),
                // Another check replaced it, perhaps.
                Err(LedgerReadError::Backend(error)) if error.is_not_found() => {
                    self.refresh()?;
                    named = self.fold().ledger().filter(|newer| *newer != id);
                }
                Err(LedgerReadError::Backend(error)) if !error.is_loss() => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(BTreeSet::new())
    }

    /// Reads the ledger with this id to write another one in its place: one that is lost says nothing.
    ///
    /// # Errors
    /// [`RepositoryError`] where it may be read the next time.
    pub fn ledger_to_replace(&self, id: &LedgerId) -> Result<Ledger, RepositoryError> {
        match self.read_ledger(id) {
            Err(LedgerReadError::Backend(error)) if !error.is_loss() => Err(error.into()),
            ledger => Ok(ledger.unwrap_or_default()),
        }
    }
}
