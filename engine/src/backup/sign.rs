//! A run's word in the log that it is at work: prunes do not remove, as long as it is, what they condemn after that word.
//!
//! So a run that cannot begin anew finds in the end what it relied on, and rescues what was condemned. It is politeness: a prune that knows
//! nothing of it, or for which the word is too old, removes all the same, and then the run fails. No data rests on it.
//!
//! An appender may neither leave notes nor rescue. Its word is an addition of no segments: until it adds a snapshot, prunes leave alone what
//! it has stored itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_bytes::ByteBuf;

use crate::format::commit::Change;
use crate::format::note::{AT_WORK_NOTE, AtWorkNote};
use crate::format::record;
use crate::repo::{Repository, RepositoryError};

/// The word is given again after so long, which is well before prunes cease to believe it.
const RENEWED_AFTER: Duration = Duration::from_secs(3600);

/// What a run has said of itself.
#[derive(Debug, Default)]
pub(crate) struct Sign(Mutex<Option<Given>>);

#[derive(Debug, Clone, Copy)]
struct Given {
    /// The commit that says so first.
    began: u64,
    /// When it was said last, by the clock that does not jump.
    last: Duration,
}

impl Sign {
    fn lock(&self) -> MutexGuard<'_, Option<Given>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that has to be said, or to be said again.
    pub fn is_due(&self, repository: &Repository) -> bool {
        let now = (repository.environment().uptime)();
        let is_fresh = |given: Given| now.saturating_sub(given.last) < RENEWED_AFTER;
        !self.lock().is_some_and(is_fresh)
    }

    /// Whether it was said, and has to be said again.
    pub fn is_renewal_due(&self, repository: &Repository) -> bool {
        self.lock().is_some() && self.is_due(repository)
    }

    /// Says in the log that the run is at work, where that is due. What it relied on before has to be there still: nothing
    /// may have been taken since commit `base`.
    ///
    /// # Errors
    /// [`RepositoryError::Conflict`] where something was; otherwise what the storage fails with.
    pub fn give(&self, repository: &Repository, base: u64) -> Result<(), RepositoryError> {
        if !self.is_due(repository) {
            return Ok(());
        }
        let last = (repository.environment().uptime)();
        let given = *self.lock();
        let began = given.map_or(0, |given| given.began);
        let seq = repository.commit(&mut |_| {
            // Once it is said, prunes keep what they condemn.
            if given.is_none() && repository.last_loss() > base {
                return Err(RepositoryError::Conflict);
            }
            Ok(vec![match repository.is_append_only() {
                true => Change::SegmentsReplaced { added: Vec::new(), removed: Vec::new() },
                false => note(began, false),
            }])
        })?;
        *self.lock() = Some(Given { began: given.map_or(seq, |given| given.began), last });
        Ok(())
    }

    /// What the last commit of the run says besides, if it has ever said anything. An appender's snapshot says it all.
    pub fn farewell(&self, repository: &Repository) -> Option<Change> {
        let given = self.lock().filter(|_| !repository.is_append_only());
        given.map(|given| note(given.began, true))
    }

    /// Takes note that the farewell was committed.
    pub fn ended(&self) {
        *self.lock() = None;
    }

    /// Says that the run is over, if the log has it as being at work. If that fails, prunes wait for a while in vain.
    pub fn end(&self, repository: &Repository) {
        if let Some(farewell) = self.farewell(repository) {
            let _unsaid = repository.commit(&mut |_| Ok(vec![farewell.clone()]));
            self.ended();
        }
    }
}

fn note(began: u64, ended: bool) -> Change {
    let record = record::encode(&AtWorkNote { began, ended });
    Change::Note { kind: AT_WORK_NOTE.into(), record: ByteBuf::from(record) }
}
