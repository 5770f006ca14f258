//! Memory that threads share: each takes what its object needs, and waits while others have it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::format::parity::{Overhead, Shape};
use crate::sidecar::code::{self, WORK_LEN};

/// Columns of shards are not made narrower than this for the sake of memory: each takes another reading of the object.
const WORK_LEN_MIN: usize = 8 << 20;

/// About what the longest packs that are written take.
const PACK_LEN: u64 = 32 << 20;

/// Bytes that threads have not taken.
pub(super) struct Room {
    len: u64,
    left: Mutex<u64>,
    given_back: Condvar,
}

impl Room {
    /// All of it.
    pub fn new(len: u64) -> Self {
        Self { len, left: Mutex::new(len), given_back: Condvar::new() }
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// How many threads have room at once for packs as long as most are. What a thread gives back stays with the process, so that
    /// more of them would take more.
    pub fn threads(&self) -> usize {
        usize::try_from(self.len / PACK_LEN).unwrap_or(usize::MAX).max(1)
    }

    /// Takes so many bytes, at most all, when they are there.
    pub fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.len);
        let left = self.given_back.wait_while(self.left(), |left| *left < bytes);
        *left.unwrap_or_else(PoisonError::into_inner) -= bytes;
        Taken { room: self, bytes }
    }

    fn left(&self) -> MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that a thread has, until it drops this.
pub(super) struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.left() += self.bytes;
        self.room.given_back.notify_all();
    }
}

/// For an object of this length: bytes that columns of its shards may take, and bytes that its parity takes then. As far as there is
/// room, so that it is read once.
pub(super) fn share(size: u64, overhead: Overhead, room: u64) -> (usize, u64) {
    let Some(shape) = Shape::choose(size, overhead) else { return (WORK_LEN, 0) };
    let needed = |work| code::memory(&shape, work) as u64;
    if needed(WORK_LEN) <= room {
        return (WORK_LEN, needed(WORK_LEN));
    }
    let work = usize::try_from(room.saturating_sub(needed(0))).unwrap_or(usize::MAX);
    let work = work.clamp(WORK_LEN_MIN, WORK_LEN);
    (work, needed(work))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;
    use crate::budget;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let room = Room::new(100);
        let (taken, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 0..8_u64 {
                let (room, taken, most) = (&room, &taken, &most);
                scope.spawn(move || {
                    for round in 0..200 {
                        // Some want more than there is: they get all of it.
                        let bytes = (number * 37 + round * 13) % 130;
                        let held = room.take(bytes);
                        let now = taken.fetch_add(bytes.min(100), SeqCst) + bytes.min(100);
                        most.fetch_max(now, SeqCst);
                        std::thread::yield_now();
                        taken.fetch_sub(bytes.min(100), SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert!(most.load(SeqCst) <= 100, "{most:?}");
        assert_eq!(*room.left(), 100, "all is given back");
    }

    /// With parity as it is usual; of more, sidecars of long objects may be longer than there is memory.
    #[test]
    fn any_object_fits_into_the_least_memory() {
        let room = budget::parity(budget::LEAST);
        for size in (0..30).map(|bits| (1_u64 << bits) + 1).chain([1, 4096, 100 << 20, 700 << 20, 1 << 30]) {
            for tenths in [1, 30, 35] {
                let (work, needed) = share(size, Overhead::from_tenths(tenths).expect("in range"), room);
                assert!(needed <= room && work >= WORK_LEN_MIN, "{size}, {tenths}: {needed} of {room}");
            }
            let (work, _) = share(size, Overhead::default(), budget::parity(budget::USUAL));
            assert_eq!(work, WORK_LEN, "{size} is read once");
        }
    }
}
