//! Parity of a whole repository: covering what has none, dropping all of it, and telling how much there is.
//!
//! What is wanted is a policy in the log, which all writers follow from then on; see [`crate::sidecar`]. Here is done what they
//! did not come to.

mod add;
mod room;
mod status;
#[cfg(test)]
mod tests;

pub use add::{AddOptions, AddReport, add};
pub use status::{Coverage, Status, status};

use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::format::keyslot::KEYSLOT_LEN;
use crate::format::record::{self, RECORD_OBJECT_LEN_MAX};
use crate::format::state::State;
use crate::log::{self, Fold, LogError};
use crate::monitor::{Monitor, Progress};
use crate::repo::{Repository, RepositoryError};

/// Parity could not be dealt with. What was stored or deleted before stays so.
#[derive(Debug, thiserror::Error)]
pub enum CoverError {
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The operation was cancelled.
    #[error("cancelled; what has parity by now keeps it")]
    Cancelled,
}

impl From<BackendError> for CoverError {
    fn from(error: BackendError) -> Self {
        Self::Repository(error.into())
    }
}

impl From<LogError> for CoverError {
    fn from(error: LogError) -> Self {
        Self::Repository(error.into())
    }
}

/// What dropping parity did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DropReport {
    /// Sidecars that were deleted.
    pub sidecars: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Says that no parity is wanted any more, and deletes all sidecars.
///
/// # Errors
/// [`CoverError`]. To be cancelled is one: run it again to delete the rest.
pub fn drop_all(repository: &Repository, monitor: &dyn Monitor) -> Result<DropReport, CoverError> {
    // The parity of lost commits is all that is left of them.
    repository.check_tail()?;
    repository.commit(&mut |fold| {
        Ok(fold.parity().map(|_| Change::ParitySet { overhead: 0 }).into_iter().collect())
    })?;
    let backend = repository.backend();
    let mut sidecars = Vec::new();
    backend.list(Folder::Parity, None, &mut |info| {
        sidecars.extend(info.key.is_well_formed().then_some(info));
        ControlFlow::Continue(())
    })?;
    let mut report = DropReport::default();
    let total = Some(sidecars.len() as u64);
    for info in sidecars {
        if monitor.is_cancelled() {
            return Err(CoverError::Cancelled);
        }
        backend.delete(&info.key)?;
        report.sidecars += 1;
        report.bytes += info.size;
        monitor.progress(&Progress { items: report.sidecars, items_total: total, ..Progress::default() });
    }
    Ok(report)
}

/// An object that can be covered, and the hash that its bytes are to have.
#[derive(Debug, Clone)]
struct Coverable {
    key: ObjectKey,
    hash: [u8; 32],
    /// Length, as far as it is known.
    size: u64,
}

/// All objects that are part of the repository and can be covered. Log entries that do not count are no part of it. Segments that do
/// not say which packs there are go to `unreadable`, in words.
fn coverable(repository: &Repository, unreadable: &mut Vec<String>) -> Result<Vec<Coverable>, CoverError> {
    let fold = repository.fold();
    let config = *fold.config().as_bytes();
    let mut all = vec![Coverable { key: ObjectKey::config(), hash: config, size: 0 }];
    all.extend(fold.keyslots().map(|entry| Coverable {
        key: ObjectKey::keyslot(&entry.keyslot),
        hash: *entry.keyslot.as_bytes(),
        size: KEYSLOT_LEN as u64,
    }));
    let mut verified = Fold::empty(fold.config());
    let (backend, keys) = (&**repository.backend(), repository.keys());
    log::read_until(backend, keys, &repository.id(), &mut verified, fold.seq(), &mut |entry| {
        all.extend(entry.ok().map(|entry| Coverable {
            key: ObjectKey::log(entry.commit.seq),
            hash: *entry.hash.as_bytes(),
            size: entry.size,
        }));
    })?;
    if verified.seq() < fold.seq() {
        let missing = ObjectKey::log(verified.seq() + 1);
        unreadable.push(format!("{missing} is not there: what comes behind it cannot be verified"));
    }
    all.extend(states(repository, unreadable)?);
    all.extend(fold.ledger().map(|id| Coverable {
        key: ObjectKey::ledger(&id),
        hash: *id.as_bytes(),
        size: 0,
    }));
    all.extend(fold.segments().map(|info| Coverable {
        key: ObjectKey::segment(&info.segment),
        hash: *info.segment.as_bytes(),
        size: info.bytes,
    }));
    let first_pack = all.len();
    for segment in repository.index().everything() {
        for pack in segment.packs() {
            let pack = match pack {
                Ok(pack) => pack,
                Err(error) => {
                    unreadable.push(format!("{error}; its packs are not known"));
                    break;
                }
            };
            let (key, hash) = (ObjectKey::pack(&pack.id), *pack.id.as_bytes());
            all.push(Coverable { key, hash, size: pack.size });
        }
    }
    all[first_pack..].sort_by_key(|object| object.hash);
    all.dedup_by(|a, b| a.key == b.key);
    Ok(all)
}

/// States that open; others are for the check to report. One that cannot be read goes to `unreadable`: it may open later, and would have no
/// parity then.
fn states(repository: &Repository, unreadable: &mut Vec<String>) -> Result<Vec<Coverable>, CoverError> {
    let mut keys = Vec::new();
    repository.backend().list(Folder::State, None, &mut |info| {
        keys.extend(info.key.sequence().map(|seq| (seq, info.key.clone())));
        ControlFlow::Continue(())
    })?;
    let of_state = |(seq, key): (u64, ObjectKey)| {
        let object = match repository.backend().read(&key, RECORD_OBJECT_LEN_MAX) {
            Ok(object) => object,
            Err(error) => {
                unreadable.extend(matches!(error, BackendError::Io { .. }).then(|| error.to_string()));
                return None;
            }
        };
        let (hash, size) = (*blake3::hash(&object).as_bytes(), object.len() as u64);
        let state: State =
            record::open_object(ObjectKind::State, object, repository.keys(), &repository.id()).ok()?;
        (state.seq == seq).then_some(Coverable { key, hash, size })
    };
    Ok(keys.into_iter().filter_map(of_state).collect())
}
