//! Log entries that were altered: what they said cannot be had again, and that it is lost is put on record.

use crate::backend::ObjectKey;
use crate::format::commit::{self, Change, Commit};
use crate::format::note::{LOG_LOSS_NOTE, LogLossNote};
use crate::format::record::{self, RECORD_OBJECT_LEN_MAX};
use crate::ids::CommitHash;
use crate::log;
use crate::repair::RepairError;
use crate::repo::{Repository, RepositoryError, tail};
use crate::sidecar;
use serde_bytes::ByteBuf;

/// Puts on record that what log entry `seq` said is lost, so that a check does not report it as damage any more. Returns the commit
/// that says so. It may be the first of entries that are lost from the end of the log, of which parity is all that is left.
///
/// # Errors
/// [`RepositoryError::LostEntry`] where parity gives the entry back;
/// [`RepairError::SoundEntry`] where nothing is lost; [`LogError::Chain`](crate::log::LogError::Chain) where later commits follow
/// what the entry was before it was altered, so that no reader goes beyond it; or a failure of the repository.
pub fn accept_loss(repository: &Repository, seq: u64) -> Result<u64, RepairError> {
    let last = repository.fold().seq();
    match repository.lost_end() {
        Ok(Some((lost, false))) if lost == seq => return accept_lost_end(repository, seq),
        Ok(Some((lost, true))) if lost == seq => return Err(RepositoryError::LostEntry { seq }.into()),
        Ok(_) => {}
        // Whether parity gives the entry back has to be known before it is given up.
        Err(error) => return Err(error.into()),
    }
    if seq == 0 || seq > last {
        return Err(RepairError::NoEntry { seq, last });
    }
    let config = repository.fold().config();
    log::read_all(&**repository.backend(), repository.keys(), &repository.id(), config, &mut |_| {})
        .map_err(RepositoryError::from)?;
    let key = ObjectKey::log(seq);
    let object = repository.backend().read(&key, RECORD_OBJECT_LEN_MAX).map_err(RepositoryError::from)?;
    let hash = commit::hash(&object);
    if Commit::open(object, seq, repository.keys(), &repository.id()).is_ok() {
        return Err(RepairError::SoundEntry(seq));
    }
    let record = ByteBuf::from(record::encode(&LogLossNote { seq, hash }));
    let note = Change::Note { kind: LOG_LOSS_NOTE.to_owned(), record };
    Ok(repository.commit(&mut |_| Ok(vec![note.clone()]))?)
}

/// Goes on without entries that are lost from the end of the log: their parity goes, which tells of them.
fn accept_lost_end(repository: &Repository, first: u64) -> Result<u64, RepairError> {
    let backend = &**repository.backend();
    let hash =
        sidecar::head_of(backend, &ObjectKey::log(first)).ok().flatten().map_or([0; 32], |head| head.object);
    for sidecar in tail::sidecars_beyond(backend, first - 1)?.into_iter().rev() {
        backend.delete(&ObjectKey::parity(&sidecar))?;
    }
    let record =
        ByteBuf::from(record::encode(&LogLossNote { seq: first, hash: CommitHash::from_bytes(hash) }));
    let note = Change::Note { kind: LOG_LOSS_NOTE.to_owned(), record };
    Ok(repository.commit(&mut |_| Ok(vec![note.clone()]))?)
}
