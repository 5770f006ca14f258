//! How far scans may run ahead of the walk: bounded in directories, which hold open handles, in entries, and in the memory that
//! these take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::budget::SCANNED_AHEAD;

/// Directories that may be scanned before the walk asks for them: each holds an open handle.
pub(super) const DIRS_AHEAD: usize = 64;
/// Helpers that had no room go on when there are no more than these: waking one for each directory would cost more than scanning it.
pub(super) const DIRS_RESUMED: usize = DIRS_AHEAD / 2;
/// Entries in them.
const ENTRIES_AHEAD: usize = 16 << 10;
/// What a scan is taken to come to as long as none has shown it.
const WEIGHT_EXPECTED: u64 = SCANNED_AHEAD / 5;
/// How slowly a great weight is forgotten: one that is this part lighter is expected after each scan.
const WEIGHT_DECAY: u64 = 8;

/// What is scanned ahead, and what is about to be.
#[derive(Debug)]
pub(super) struct Ahead {
    dirs: AtomicUsize,
    entries: AtomicUsize,
    /// Bytes of memory that they take.
    weight: AtomicU64,
    /// Scans under way.
    running: AtomicUsize,
    /// What each of them is taken to come to: as much as the heaviest of late, for neighbours are alike.
    expected: AtomicU64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            dirs: AtomicUsize::default(),
            entries: AtomicUsize::default(),
            weight: AtomicU64::default(),
            running: AtomicUsize::default(),
            expected: AtomicU64::new(WEIGHT_EXPECTED),
        }
    }
}

impl Ahead {
    /// Whether more may be scanned, with room for as many directories.
    pub fn has_room(&self, dirs: usize) -> bool {
        let running = self.running.load(Ordering::Relaxed) as u64;
        let coming = running.saturating_mul(self.expected.load(Ordering::Relaxed));
        self.dirs.load(Ordering::Relaxed) < dirs
            && self.entries.load(Ordering::Relaxed) < ENTRIES_AHEAD
            && self.weight.load(Ordering::Relaxed).saturating_add(coming) < SCANNED_AHEAD
    }

    /// A scan is begun.
    pub fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// A scan that was begun is done, and took so much; it counts until what is returned goes.
    pub fn end(self: &Arc<Self>, entries: usize, weight: u64) -> Held {
        self.dirs.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.weight.fetch_add(weight, Ordering::Relaxed);
        let expected = self.expected.load(Ordering::Relaxed);
        // Two at once may forget what the other saw: it is an estimate.
        self.expected.store(weight.max(expected - expected / WEIGHT_DECAY), Ordering::Relaxed);
        self.running.fetch_sub(1, Ordering::Relaxed);
        Held { ahead: Arc::clone(self), entries, weight }
    }
}

/// Counts what one directory that is scanned ahead takes, for as long as it lives.
#[derive(Debug)]
pub(super) struct Held {
    ahead: Arc<Ahead>,
    entries: usize,
    weight: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ahead.dirs.fetch_sub(1, Ordering::Relaxed);
        self.ahead.entries.fetch_sub(self.entries, Ordering::Relaxed);
        self.ahead.weight.fetch_sub(self.weight, Ordering::Relaxed);
    }
}
