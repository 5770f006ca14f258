//! The end of the log as parity knows it: entries that were altered or lost, of which the log by itself shows nothing.
//!
//! A log whose last entries are gone looks whole, and an altered last entry looks like noise. Whoever commits then makes the
//! loss final: the new entry takes the number of the lost one, or goes over the altered one. Sidecars tell.
//!
//! The sidecar of an entry is made by reading the entry back after it was published, which means that it is durable: by its writer,
//! by the next one, or by whoever adds parity and makes it so first. So at no moment, whoever is killed or loses power, is there a sidecar of an entry that
//! was not there before. One without its entry proves a loss, and blocks nobody for another reason. Something that is no sidecar, or gives
//! something that is no commit, is junk: whoever can create files could have left it, and it proves nothing.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::backend::{self, Backend, BackendError, Folder, ObjectKey};
use crate::crypto::KeySet;
use crate::format::commit::Commit;
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::ids::{ParityId, RepositoryId, WriterId};
use crate::log::{Loss, LostCommit};
use crate::repo::{Repository, RepositoryError};
use crate::sidecar::{self, MendError, Mending};

/// Lost entries that have no parity, for those behind them to be found.
const GAPS_MAX: u64 = 1000;

impl Repository {
    /// Makes sure that a commit would not take the place of lost entries, nor go over an altered one that parity gives back.
    ///
    /// # Errors
    /// [`RepositoryError::LostEntry`] or [`RepositoryError::AlteredEntry`]: objects are to be repaired first.
    pub fn check_tail(&self) -> Result<(), RepositoryError> {
        // In this order: what is read on in between counts, and nothing is wrong with it.
        let last_valid = self.head().map_or(0, |head| head.seq);
        let last = self.fold().seq();
        if self.is_lost(last + 1) {
            return Err(RepositoryError::LostEntry { seq: last + 1 });
        }
        for seq in last_valid + 1..=last {
            let key = ObjectKey::log(seq);
            // What parity cannot give back is to be lived with. Noise has none, or that of itself.
            let mend = || sidecar::mend_if_possible(&*self.backend, &key);
            let Ok(Some(mending)) = mend().or_else(|_| mend()) else { continue };
            if !mending.is_intact() && self.mended_commit(seq, &mending).is_some() {
                return Err(RepositoryError::AlteredEntry { seq });
            }
        }
        Ok(())
    }

    /// Whether an entry that is not there was.
    fn is_lost(&self, seq: u64) -> bool {
        match parity_beyond(&*self.backend, &self.keys, &self.id, seq) {
            Ok(found) => found == Beyond::Lost,
            // Nothing ever fails for parity that cannot be had.
            Err(error) => {
                self.note_parity_trouble(format!(
                    "whether there is parity of lost commits cannot be looked up: {error}"
                ));
                false
            }
        }
    }

    /// The first commit that is gone from the end of the log.
    pub(super) fn gone_from_end(&self) -> Option<LostCommit> {
        let seq = self.fold().seq() + 1;
        self.is_lost(seq).then_some(LostCommit { seq, how: Loss::Gone })
    }

    /// A commit that parity gives, if somebody made it who may write: others must not be able to stop everybody.
    fn mended_commit(&self, seq: u64, mending: &Mending) -> Option<(Commit, WriterId)> {
        let bytes = mending.bytes(RECORD_OBJECT_LEN_MAX).ok()?;
        let (commit, writer) = Commit::open(bytes, seq, &self.keys, &self.id).ok()?;
        (seq == 1 || self.fold().may_write(&writer)).then_some((commit, writer))
    }

    /// The first lost entry behind the end of the log, if parity of it is there, and whether parity gives it back.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`].
    pub fn lost_end(&self) -> Result<Option<(u64, bool)>, RepositoryError> {
        let fold = self.fold();
        let seq = fold.seq() + 1;
        if parity_beyond(&*self.backend, &self.keys, &self.id, seq)? != Beyond::Lost {
            return Ok(None);
        }
        let mended = sidecar::mend_if_possible(&*self.backend, &ObjectKey::log(seq))?;
        let commit = mended.and_then(|mending| self.mended_commit(seq, &mending));
        Ok(Some((seq, commit.is_some_and(|(commit, _)| commit.previous == fold.head()))))
    }
}

/// What the parity of a log entry says that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// There is none, or the entry is there.
    Nothing,
    /// The entry was there, as far as anybody can tell.
    Lost,
    /// Nothing: it is no parity, or of something that is no commit.
    Junk,
}

/// What the parity of a log entry says of one that is not there. It has no seal: what it gives has. What fails is tried again: it may be
/// had the next time, and what is lost by a commit in its place is lost for good.
pub(crate) fn parity_beyond(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    seq: u64,
) -> Result<Beyond, BackendError> {
    let look = || look_beyond(backend, keys, repository, seq);
    look().or_else(|error| if error.is_loss() { Err(error) } else { look() })
}

fn look_beyond(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    seq: u64,
) -> Result<Beyond, BackendError> {
    let key = ObjectKey::log(seq);
    // In this order: whoever publishes it now stores the entry first.
    if !sidecar::is_there(backend, &key)? {
        return Ok(Beyond::Nothing);
    }
    if backend::size_of(backend, &key)?.is_some() {
        return Ok(Beyond::Nothing);
    }
    match sidecar::mend(backend, &key) {
        Ok(mending) => Ok(match mending.bytes(RECORD_OBJECT_LEN_MAX) {
            Ok(object) => match Commit::open(object, seq, keys, repository) {
                Ok(_) => Beyond::Lost,
                Err(_) => Beyond::Junk,
            },
            Err(_) => Beyond::Lost,
        }),
        Err(MendError::None) => Ok(Beyond::Nothing),
        Err(MendError::Sidecar(_) | MendError::Other) => Ok(Beyond::Junk),
        Err(MendError::Unreadable(BackendError::TooLarge { .. })) => Ok(Beyond::Junk),
        Err(MendError::Unreadable(error) | MendError::Backend(error)) => Err(error),
        Err(MendError::Decode(_) | MendError::Changed) => Ok(Beyond::Lost),
    }
}

/// Sidecars of entries behind entry `last`, in order.
///
/// # Errors
/// [`BackendError`] where the storage cannot list them.
pub(crate) fn sidecars_beyond(backend: &dyn Backend, last: u64) -> Result<Vec<ParityId>, BackendError> {
    let mut there = HashSet::new();
    backend.list(Folder::Parity, None, &mut |info| {
        there.extend(info.key.parity_id());
        ControlFlow::Continue(())
    })?;
    Ok(names_beyond(last, there.len() as u64).filter(|id| there.contains(id)).collect())
}

/// Names of sidecars of entries behind entry `last`: of so many, and some more, since not all need to have one.
pub(crate) fn names_beyond(last: u64, count: u64) -> impl Iterator<Item = ParityId> {
    (last + 1..=last.saturating_add(count).saturating_add(GAPS_MAX))
        .filter_map(|seq| sidecar::key_of(&ObjectKey::log(seq))?.parity_id())
}
