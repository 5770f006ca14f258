//! Which blobs a walk has met: a bit for each entry of some segments, by its position in them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ids::BlobId;
use crate::index::{Index, IndexError, Location, Segment};

/// Ids of blobs met last, so that what many trees share is not looked up for each of them: 8 MiB.
const RECENT: usize = 512 << 10;

/// Words of a chunk: 8 KiB.
const CHUNK_WORDS: usize = 1 << 10;

type Chunk = Option<Box<[u64; CHUNK_WORDS]>>;

/// Bits for all entries of some segments. How many there are only the summaries say, which may lie: memory is taken for bits near one
/// that is set.
#[derive(Debug)]
pub struct Bits(Vec<Vec<Chunk>>);

impl Bits {
    /// None is set. Segments are known by their numbers: others that come and go would shift the bits.
    ///
    /// # Panics
    /// Where the address space has no room for a bit for each entry.
    pub fn new(segments: &[Arc<Segment>]) -> Self {
        let chunks = |entries: u64| usize::try_from(entries.div_ceil(64 * CHUNK_WORDS as u64));
        let none_of = |segment: &Arc<Segment>| {
            let chunks = chunks(segment.layout().entries).expect("a bit for each can be addressed");
            (0..chunks).map(|_| None).collect()
        };
        Self(segments.iter().map(none_of).collect())
    }

    /// Whether the bit of a segment's entry is set, both by number.
    pub fn has(&self, (segment, bit): (usize, usize)) -> bool {
        let chunk = &self.0[segment][bit / 64 / CHUNK_WORDS];
        chunk.as_ref().is_some_and(|chunk| chunk[bit / 64 % CHUNK_WORDS] >> (bit % 64) & 1 == 1)
    }

    /// Sets a bit; true where it was not set.
    pub fn set(&mut self, (segment, bit): (usize, usize)) -> bool {
        let word = self.word((segment, bit / 64));
        let before = *word;
        *word |= 1 << (bit % 64);
        *word != before
    }

    /// The bits of 64 entries that follow each other, by the number of the segment and theirs.
    pub(crate) fn word(&mut self, (segment, word): (usize, usize)) -> &mut u64 {
        let chunk = &mut self.0[segment][word / CHUNK_WORDS];
        &mut chunk.get_or_insert_with(|| Box::new([0; CHUNK_WORDS]))[word % CHUNK_WORDS]
    }

    /// Clears all of them.
    pub fn clear(&mut self) {
        self.0.iter_mut().flatten().for_each(|chunk| *chunk = None);
    }

    /// Sets all of them.
    pub fn set_all(&mut self) {
        self.0.iter_mut().flatten().for_each(|chunk| *chunk = Some(Box::new([u64::MAX; CHUNK_WORDS])));
    }

    /// Sets those that are set in `others`, which are of the same segments.
    pub fn set_those_of(&mut self, others: &Self) {
        let chunks = self.0.iter_mut().flatten().zip(others.0.iter().flatten());
        for (chunk, other) in chunks {
            let Some(other) = other else { continue };
            let words = chunk.get_or_insert_with(|| Box::new([0; CHUNK_WORDS])).iter_mut();
            words.zip(other.iter()).for_each(|(word, other)| *word |= other);
        }
    }
}

/// What became of a blob that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// It was not met before, and is here.
    First(Location),
    /// It was.
    Again,
    /// No segment lists it.
    Nowhere,
}

/// The blobs that a walk has met, in memory that does not grow with their number.
#[derive(Debug)]
pub struct Met {
    /// Keeps its segments.
    index: Arc<Index>,
    bits: Bits,
    recent: Box<[u128]>,
    /// Those that it does not list, by half of their ids.
    others: HashSet<u128>,
}

impl Met {
    /// None yet. The index has to keep its segments.
    pub fn new(index: Arc<Index>) -> Self {
        Self::with_recent(index, RECENT)
    }

    /// None yet, of those that these segments list. Their opened pages are kept where those of `index` are.
    pub fn of(index: &Index, segments: Vec<Arc<Segment>>) -> Self {
        let index = index.beside();
        index.replace(segments, &[]);
        Self::new(Arc::new(index))
    }

    fn with_recent(index: Arc<Index>, recent: usize) -> Self {
        let (bits, recent) = (Bits::new(&index.segments()), vec![0; recent].into());
        Self { index, bits, recent, others: HashSet::new() }
    }

    /// Meets a blob.
    ///
    /// # Errors
    /// [`IndexError`] where a page does not open.
    pub fn meet(&mut self, id: &BlobId) -> Result<Meeting, IndexError> {
        // Ids are hashes: any part of one says where it goes.
        let (half, len) = (half(id), self.recent.len());
        let recent = usize::try_from(half % len as u128).expect("below a length");
        if self.recent[recent] == half && half != 0 {
            return Ok(Meeting::Again);
        }
        let Some((location, segment, position)) = self.index.position(id)? else {
            return Ok(Meeting::Nowhere);
        };
        self.recent[recent] = half;
        let bit = usize::try_from(position).expect("there are bits for all of them");
        Ok(if self.bits.set((segment, bit)) { Meeting::First(location) } else { Meeting::Again })
    }

    /// Whether a blob, in the index or not, is met for the first time.
    ///
    /// # Errors
    /// [`IndexError`] where a page does not open.
    pub fn is_new(&mut self, id: &BlobId) -> Result<bool, IndexError> {
        Ok(match self.meet(id)? {
            Meeting::First(_) => true,
            Meeting::Again => false,
            Meeting::Nowhere => self.others.insert(half(id)),
        })
    }
}

/// As good as all of it.
fn half(id: &BlobId) -> u128 {
    u128::from_le_bytes(*id.as_bytes().first_chunk().expect("ids have 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::test_support::{World, noise};

    #[test]
    fn each_blob_is_met_for_the_first_time_once_however_few_are_kept_in_mind() {
        let mut world = World::new();
        for night in 0..6u64 {
            for n in 0..5 {
                world.write(&format!("d{n}/f{}", night % 3), &noise(10 * night + n, 2_000));
            }
            world.back_up(&world.open());
        }
        let index = Arc::clone(world.open().index());
        let segments = index.segments();
        assert!(segments.len() > 1);
        let mut all: Vec<BlobId> = Vec::new();
        for segment in segments.iter() {
            all.extend(segment.entries().map(|entry| entry.expect("readable").id));
        }
        assert!(all.len() > 50);
        for recent in [1, 3, 1 << 10] {
            let mut met = Met::with_recent(Arc::clone(&index), recent);
            let mut first = HashSet::new();
            // Forwards, and each again at once and later.
            for id in all.iter().flat_map(|id| [id, id]).chain(all.iter().rev()) {
                let found = met.meet(id).expect("readable");
                match first.insert(*id) {
                    true => assert!(matches!(found, Meeting::First(at) if at.entry.id == *id), "{found:?}"),
                    false => assert_eq!(found, Meeting::Again),
                }
            }
            let other = BlobId::from_bytes([7; 32]);
            assert_eq!(met.meet(&other).expect("readable"), Meeting::Nowhere);
            assert!(met.is_new(&other).expect("readable") && !met.is_new(&other).expect("readable"));
            assert!(!met.is_new(&all[0]).expect("readable"));
        }
    }
}
