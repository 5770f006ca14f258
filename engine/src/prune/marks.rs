//! Which blobs are needed: one bit for each entry of the index, by its position in the sorted segments.
//!
//! Needed ids are gathered, sorted, and joined with all segments in one pass. So memory is a bit a blob and a buffer of fixed
//! size, beyond which ids wait in a temporary file, and each page of the index is opened once.

use std::path::PathBuf;
use std::sync::Arc;

use crate::budget;
use crate::ids::{BlobId, HalfId};
use crate::index::{Bits, IndexError, Join, Segment};
use crate::monitor::Monitor;
use crate::prune::PruneError;
use crate::reach::ReachError;
use crate::spill::SpillError;
use crate::spill::keys::KeySorter;

/// Blobs that are looked up before it is asked whether to stop.
const ASKED_EVERY: u64 = 1 << 16;

/// What a pack is worth as the home of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// Nothing: it is not there.
    Absent,
    /// A check found it damaged, and none has found it intact since.
    InDoubt,
    /// It is there.
    Stored,
}

/// Which entries of some segments are needed.
pub(super) struct Marks {
    segments: Vec<Arc<Segment>>,
    /// How many of them, the first ones, are others than those that appenders added.
    known: usize,
    bits: Bits,
    /// For each segment, what its packs are worth, by number.
    homes: Vec<Vec<Home>>,
    needed: KeySorter<{ size_of::<HalfId>() }>,
}

impl Marks {
    /// No marks yet. `homes` says of each segment's packs, by number, what they are worth. Ids are gathered in a share of
    /// `memory`, and what has no room there in `spill`; without that, in memory. From number `known` on, appenders added the segments.
    pub fn new(
        (segments, known): (Vec<Arc<Segment>>, usize),
        homes: Vec<Vec<Home>>,
        memory: u64,
        spill: Option<PathBuf>,
    ) -> Self {
        let bits = Bits::new(&segments);
        Self { segments, known, bits, homes, needed: KeySorter::new(spill, budget::gathered(memory)) }
    }

    /// Says that a blob is needed.
    ///
    /// # Errors
    /// [`SpillError`] where there is no room to keep that.
    pub fn need(&mut self, id: &BlobId) -> Result<(), SpillError> {
        self.needed.push(id.half())
    }

    /// Marks everything needed so far: of each blob one entry, in the first segment that has it in a possible place of a stored
    /// pack. Where it has none but in packs that are in doubt, all of these: nobody knows which of them is damaged just there; and those
    /// in packs that are not there, which parity or a copy may give back. What appenders say, which nobody has verified, is no
    /// reason to do without them.
    ///
    /// # Errors
    /// [`PruneError::Missing`] where there is none, or where a segment or what was gathered cannot be read.
    pub fn finish(&mut self, monitor: &dyn Monitor) -> Result<(), PruneError> {
        let layouts: Vec<_> = self.segments.iter().map(|segment| segment.layout()).collect();
        let (bits, homes, known) = (&mut self.bits, &self.homes, self.known);
        let (mut doubtful, mut absent) = (Vec::new(), Vec::new());
        let mut join = Join::new(&self.segments);
        let mut missing: Option<(HalfId, u64)> = None;
        for (number, id) in (0u64..).zip(self.needed.finish().map_err(ReachError::from)?) {
            let id = id.map_err(ReachError::from)?;
            if number.is_multiple_of(ASKED_EVERY) && monitor.is_cancelled() {
                return Err(PruneError::Cancelled);
            }
            let is_found = join.seek(&id, &mut |segment, position, entry| {
                let home =
                    homes[segment].get(entry.pack as usize).filter(|_| entry.is_sane(&layouts[segment]));
                let position = usize::try_from(position).expect("there are bits for all of them");
                let Some(home) = home else { return false };
                match home {
                    _ if segment >= known && !doubtful.is_empty() => false,
                    Home::Absent => {
                        absent.push((segment, position));
                        false
                    }
                    Home::InDoubt => {
                        doubtful.push((segment, position));
                        false
                    }
                    Home::Stored => {
                        bits.set((segment, position));
                        true
                    }
                }
            })?;
            if !is_found && doubtful.is_empty() {
                missing.get_or_insert((id, 0)).1 += 1;
            } else if !is_found {
                for place in doubtful.iter().chain(&absent) {
                    bits.set(*place);
                }
            }
            doubtful.clear();
            absent.clear();
        }
        match missing {
            None => Ok(()),
            Some((half, count)) => {
                let mut first = [0; BlobId::LEN];
                first[..half.len()].copy_from_slice(&half);
                let first = BlobId::from_bytes(first);
                Err(PruneError::Missing { first, count, packs: String::new() })
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
        self.bits.has((segment, position))
    }

    /// The segments, by number.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::index::test_support::{entry, fixture, id};
    use crate::monitor::Silent;

    /// Packs that each segment lists. Entries may name one more.
    const PACKS: u32 = 3;

    fn home() -> impl Strategy<Value = Home> {
        prop_oneof![1 => Just(Home::Absent), 2 => Just(Home::InDoubt), 4 => Just(Home::Stored)]
    }

    proptest! {
        /// The same as in a hash table of all entries, however little fits into memory.
        #[test]
        fn each_needed_blob_is_marked_once_in_the_first_segment_that_has_it_in_a_sound_pack_or_wherever_it_may_be(
            parts in prop::collection::vec(
                (prop::collection::vec((0..60u32, 0..=PACKS), 0..120), prop::array::uniform3(home())),
                0..5,
            ),
            needed in prop::collection::vec(0..80u32, 0..200),
            limit in 1..100u64,
            known in 0..6usize,
            is_spilled: bool,
        ) {
            let fixture = fixture();
            let (mut segments, mut homes) = (Vec::new(), Vec::new());
            let (mut sound, mut doubtful) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
            let mut absent = HashMap::<_, Vec<_>>::new();
            for (number, (part, there)) in parts.iter().enumerate() {
                let mut entries: Vec<_> = part.iter().map(|(n, pack)| entry(*n, *pack)).collect();
                entries.sort_unstable();
                for (position, entry) in entries.iter().enumerate() {
                    match there.get(entry.pack as usize) {
                        _ if number >= known && doubtful.contains_key(&entry.id) => {}
                        Some(Home::Stored) => {
                            sound.entry(entry.id).or_insert((number, position));
                        }
                        Some(Home::InDoubt) => doubtful.entry(entry.id).or_default().push((number, position)),
                        Some(Home::Absent) => absent.entry(entry.id).or_default().push((number, position)),
                        None => {}
                    }
                }
                segments.push(fixture.segment(&entries, &fixture.packs(PACKS)));
                homes.push(there.to_vec());
            }
            let ids: BTreeSet<BlobId> = needed.iter().map(|n| id(*n)).collect();
            let places = |id: &BlobId| match sound.get(id) {
                Some(place) => vec![*place],
                None => match doubtful.get(id) {
                    Some(places) => places.iter().chain(absent.get(id).into_iter().flatten()).copied().collect(),
                    None => Vec::new(),
                },
            };
            let missing: Vec<_> = ids.iter().filter(|id| places(id).is_empty()).collect();

            let memory = limit * 16 * 8;
            let place = is_spilled.then(std::env::temp_dir);
            let mut marks = Marks::new((segments.clone(), known), homes, memory, place);
            for n in &needed {
                marks.need(&id(*n)).unwrap();
            }
            match (marks.finish(&Silent), missing.first()) {
                (Ok(()), None) => {}
                (Err(PruneError::Missing { first, count, .. }), Some(expected)) => {
                    prop_assert_eq!((first.half(), count), (expected.half(), missing.len() as u64));
                }
                (result, _) => prop_assert!(false, "{:?}, but {} are missing", result, missing.len()),
            }
            let marked = segments.iter().enumerate().flat_map(|(number, segment)| {
                let len = usize::try_from(segment.layout().entries).unwrap();
                (0..len).map(move |position| (number, position))
            });
            let marked: BTreeSet<_> = marked.filter(|(number, position)| marks.is_needed(*number, *position)).collect();
            prop_assert_eq!(marked, ids.iter().flat_map(places).collect::<BTreeSet<_>>());
        }
    }
}
