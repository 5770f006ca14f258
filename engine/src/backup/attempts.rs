//! What the attempts of one run have in common: what it says of itself in the log, and what it has stored already.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backup::sign::Sign;
use crate::ids::PackId;

/// A run of a backup, which may begin anew.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    pub sign: Sign,
    /// Packs that an appender's run has committed, in whatever attempt.
    stored: Mutex<HashSet<PackId>>,
    /// Whether it relies on these alone.
    is_alone: AtomicBool,
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, HashSet<PackId>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of packs that were committed.
    pub fn have_stored(&self, packs: impl Iterator<Item = PackId>) {
        self.lock().extend(packs);
    }

    /// How many packs were committed so far.
    pub fn stored(&self) -> usize {
        self.lock().len()
    }

    /// From now on nothing is relied on but what the run has stored itself: others take the rest from under it again and again.
    pub fn rely_on_own(&self) {
        self.is_alone.store(true, Ordering::Relaxed);
    }

    /// Whether something may be relied on because it is in this pack.
    pub fn may_rely_on(&self, pack: &PackId) -> bool {
        !self.is_alone.load(Ordering::Relaxed) || self.lock().contains(pack)
    }
}
