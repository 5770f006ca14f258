//! The most recently used directories of a target, kept open.
//!
//! Files arrive directory by directory, from several threads, so a small cache saves almost every walk from the
//! root. A cached handle is as safe as the walk that opened it: see the threat notes in [`crate::target`].

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

const SHARDS: usize = 16;
const PER_SHARD: usize = 16;

/// Open directories by their path; at most 256.
pub(super) struct DirectoryCache {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    enabled: bool,
}

#[derive(Default)]
struct Shard {
    clock: u64,
    slots: Vec<Slot>,
}

struct Slot {
    hash: u64,
    path: Box<[u8]>,
    last_used: u64,
    directory: Arc<OwnedFd>,
}

impl DirectoryCache {
    /// With `enabled` false it stays empty, so that a test can make every operation walk from the root.
    pub(super) fn new(enabled: bool) -> Self {
        Self { hasher: RandomState::new(), shards: Default::default(), enabled }
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<Arc<OwnedFd>> {
        let hash = self.hasher.hash_one(path);
        let mut shard = lock(&self.shards[index(hash)]);
        shard.clock += 1;
        let now = shard.clock;
        let slot = shard.slots.iter_mut().find(|slot| slot.hash == hash && *slot.path == *path)?;
        slot.last_used = now;
        Some(Arc::clone(&slot.directory))
    }

    /// Keeps `directory` for `path`, in place of the slot of its shard that was used longest ago.
    pub(super) fn put(&self, path: &[u8], directory: &Arc<OwnedFd>) {
        if !self.enabled {
            return;
        }
        let hash = self.hasher.hash_one(path);
        let mut shard = lock(&self.shards[index(hash)]);
        shard.clock += 1;
        let slot = Slot { hash, path: path.into(), last_used: shard.clock, directory: Arc::clone(directory) };
        let known = shard.slots.iter().position(|old| old.hash == hash && *old.path == *path);
        let oldest = || (0..shard.slots.len()).min_by_key(|at| shard.slots[*at].last_used);
        let full = shard.slots.len() >= PER_SHARD;
        match known.or_else(|| if full { oldest() } else { None }) {
            Some(at) => shard.slots[at] = slot,
            None => shard.slots.push(slot),
        }
    }

    /// Drops `path` and everything below it.
    pub(super) fn forget(&self, path: &[u8]) {
        for shard in &self.shards {
            lock(shard).slots.retain(|slot| match slot.path.strip_prefix(path) {
                Some(rest) => !(rest.is_empty() || rest[0] == b'/'),
                None => true,
            });
        }
    }
}

fn index(hash: u64) -> usize {
    (hash % SHARDS as u64) as usize
}

// A shard is whole after every statement, so one whose user panicked can still be used.
fn lock(shard: &Mutex<Shard>) -> std::sync::MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/").unwrap().into())
    }

    #[test]
    fn keeps_no_more_than_its_capacity_and_the_recently_used() {
        let (cache, directory) = (DirectoryCache::new(true), directory());
        for number in 0..5_000_u32 {
            cache.put(&number.to_be_bytes(), &directory);
            cache.put(b"kept", &directory);
        }
        let held: usize = cache.shards.iter().map(|shard| lock(shard).slots.len()).sum();
        assert_eq!(held, SHARDS * PER_SHARD);
        assert!(cache.get(b"kept").is_some());
        assert!(cache.get(&4_999_u32.to_be_bytes()).is_some());
        assert!(cache.get(&0_u32.to_be_bytes()).is_none());
    }

    #[test]
    fn forgets_a_directory_with_all_below_it_but_not_its_neighbours() {
        let (cache, directory) = (DirectoryCache::new(true), directory());
        for path in ["a", "a/b", "a/b/c", "ab", "a.b"] {
            cache.put(path.as_bytes(), &directory);
        }
        cache.forget(b"a");
        let left: Vec<_> = ["a", "a/b", "a/b/c", "ab", "a.b"]
            .into_iter()
            .filter(|path| cache.get(path.as_bytes()).is_some())
            .collect();
        assert_eq!(left, ["ab", "a.b"]);
    }
}
