//! Which blobs are needed: one bit for each entry of the index, by its position in the sorted segments.
//!
//! Needed ids are gathered, sorted, and joined with all segments in one pass each time enough have come together. So
//! memory is a bit a blob and a buffer of fixed size, and each page of the index is opened once a pass.

use std::sync::Arc;

use crate::ids::BlobId;
use crate::index::{IndexError, Segment};
use crate::prune::PruneError;

/// Needed ids that are gathered before a pass, at most: 32 MiB of them.
const GATHERED_MAX: usize = 2 << 20;

/// Share of the memory that they take: one in so many bytes.
const GATHERED_SHARE: u64 = 5;

/// The first half of an id: ordered as ids are, and as good as unique.
fn key(id: &BlobId) -> u128 {
    u128::from_be_bytes(*id.as_bytes().first_chunk().expect("ids have 32 bytes"))
}

/// Bits for all entries of some segments.
pub(super) struct Marks {
    segments: Vec<Arc<Segment>>,
    bits: Vec<Vec<u64>>,
    /// For each segment, which of its packs are really there: only these count as a home.
    stored: Vec<Vec<bool>>,
    gathered: Vec<u128>,
    limit: usize,
    missing: u64,
    first_missing: Option<u128>,
}

impl Marks {
    /// No marks yet. `stored` says of each segment's packs, by number, whether they are there.
    pub fn new(segments: Vec<Arc<Segment>>, stored: Vec<Vec<bool>>) -> Self {
        let words = |segment: &Arc<Segment>| usize::try_from(segment.layout().entries.div_ceil(64));
        let bits = segments
            .iter()
            .map(|segment| {
                vec![0; words(segment).expect("a segment's entries fit its length, and that memory")]
            })
            .collect();
        Self {
            segments,
            bits,
            stored,
            gathered: Vec::new(),
            limit: GATHERED_MAX,
            missing: 0,
            first_missing: None,
        }
    }

    /// The same in so much memory.
    pub fn within(self, memory: u64) -> Self {
        let limit = usize::try_from(memory / GATHERED_SHARE / size_of::<u128>() as u64).unwrap_or(usize::MAX);
        Self { limit: limit.clamp(1 << 10, GATHERED_MAX), ..self }
    }

    /// Says that a blob is needed.
    ///
    /// # Errors
    /// [`IndexError`] where a segment cannot be read.
    pub fn need(&mut self, id: &BlobId) -> Result<(), IndexError> {
        self.gathered.push(key(id));
        if self.gathered.len() < self.limit {
            return Ok(());
        }
        // Files that did not change are met again in every tree that did.
        self.gathered.sort_unstable();
        self.gathered.dedup();
        if self.gathered.len() >= self.limit / 2 { self.join() } else { Ok(()) }
    }

    /// Marks what was gathered: of each blob one entry, in the first segment that has it in a possible place of a stored pack.
    fn join(&mut self) -> Result<(), IndexError> {
        self.gathered.sort_unstable();
        self.gathered.dedup();
        let mut wanted = std::mem::take(&mut self.gathered);
        for (number, segment) in self.segments.iter().enumerate() {
            let (bits, stored, layout) = (&mut self.bits[number], &self.stored[number], segment.layout());
            let mut found = vec![false; wanted.len()];
            let mut at = 0;
            for (position, entry) in segment.entries().enumerate() {
                let entry = entry?;
                let key = key(&entry.id);
                while at < wanted.len() && wanted[at] < key {
                    at += 1;
                }
                let Some(next) = wanted.get(at) else { break };
                let is_home = || stored.get(entry.pack as usize) == Some(&true) && entry.is_sane(&layout);
                if *next == key && !found[at] && is_home() {
                    found[at] = true;
                    bits[position / 64] |= 1 << (position % 64);
                }
            }
            let mut found = found.into_iter();
            wanted.retain(|_| !found.next().unwrap_or(false));
            if wanted.is_empty() {
                break;
            }
        }
        self.missing += wanted.len() as u64;
        self.first_missing = self.first_missing.or(wanted.first().copied());
        wanted.clear();
        self.gathered = wanted;
        Ok(())
    }

    /// Marks what is left and makes sure that everything needed so far was found.
    ///
    /// # Errors
    /// [`PruneError::Missing`], or where a segment cannot be read.
    pub fn finish(&mut self) -> Result<(), PruneError> {
        self.join()?;
        self.gathered = Vec::new();
        match self.first_missing {
            None => Ok(()),
            Some(first) => {
                let mut id = [0; 32];
                id[..16].copy_from_slice(&first.to_be_bytes());
                let first = BlobId::from_bytes(id);
                Err(PruneError::Missing { first, count: self.missing, packs: String::new() })
            }
        }
    }

    /// The first needed blob that has its home in segment `first` or a later one.
    pub fn first_needed_from(&self, first: usize) -> Result<Option<BlobId>, IndexError> {
        for (number, segment) in self.segments.iter().enumerate().skip(first) {
            for (position, entry) in segment.entries().enumerate() {
                let entry = entry?;
                if self.is_needed(number, position) {
                    return Ok(Some(entry.id));
                }
            }
        }
        Ok(None)
    }

    /// Whether entry `position` of segment `segment` is needed.
    pub fn is_needed(&self, segment: usize, position: usize) -> bool {
        self.bits[segment][position / 64] >> (position % 64) & 1 == 1
    }

    /// The segments, by number.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    #[cfg(test)]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}
