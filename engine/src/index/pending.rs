//! Blobs that this process has stored or is storing, and that no segment lists yet.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

use crate::ids::BlobId;

const SHARDS: usize = 64;

/// Ids are keyed hashes already: their first bytes are the hash.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // Length prefixes of arrays say nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

type IdSet = HashSet<BlobId, BuildHasherDefault<IdHasher>>;

/// A set of blob ids for many threads.
pub struct Pending {
    shards: Box<[Mutex<IdSet>]>,
}

impl Default for Pending {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

impl Pending {
    fn shard(&self, id: &BlobId) -> std::sync::MutexGuard<'_, IdSet> {
        // The last byte, as the first ones are the hash within the shard.
        let shard = usize::from(id.as_bytes()[31]) % SHARDS;
        // A set is never left half changed: a panic elsewhere does not spoil it.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the blob is stored or being stored.
    pub fn contains(&self, id: &BlobId) -> bool {
        self.shard(id).contains(id)
    }

    /// Claims a blob: true for the one caller that has to store it.
    pub fn claim(&self, id: &BlobId) -> bool {
        self.shard(id).insert(*id)
    }

    /// Forgets blobs that a segment lists from now on.
    pub fn release<'a>(&self, ids: impl Iterator<Item = &'a BlobId>) {
        for id in ids {
            self.shard(id).remove(id);
        }
    }
}
