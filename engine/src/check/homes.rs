//! Whether chunks have a home in the index: all of them are looked up at once, beside the entries of all segments.

use std::path::PathBuf;
use std::sync::Arc;

use crate::budget;
use crate::check::segments::Segments;
use crate::format::chunk_list::Chunk;
use crate::format::header::ObjectKind;
use crate::ids::{BlobId, HalfId};
use crate::index::{Join, Segment};
use crate::spill::SpillError;
use crate::spill::keys::KeySorter;

/// Half an id and a length.
const KEY_LEN: usize = size_of::<HalfId>() + size_of::<u32>();

/// Bits that say which chunks are in doubt: 8 MiB.
const BITS: u64 = 64 << 20;

/// Chunks that are looked up before it is asked whether to stop.
const ASKED_EVERY: u64 = 1 << 16;

/// Chunks that files list.
pub(super) struct Chunks(KeySorter<KEY_LEN>);

impl Chunks {
    /// None yet. They are kept in a share of `memory`, and those that have no room there in `spill`.
    pub fn new(memory: u64, spill: Option<PathBuf>) -> Self {
        Self(KeySorter::new(spill, budget::gathered(memory)))
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`SpillError`] where there is no room for it.
    pub fn push(&mut self, chunk: &Chunk) -> Result<(), SpillError> {
        let mut key = [0; KEY_LEN];
        let (id, len) = key.split_at_mut(size_of::<HalfId>());
        id.copy_from_slice(&chunk.id.half());
        len.copy_from_slice(&chunk.len.to_be_bytes());
        self.0.push(key)
    }

    /// Those of all chunks that were added that may have no home, if there are any. What segments say counts only where all of
    /// their pages are in order: of the others a lookup has to tell what can be found in them. Ends early when it `is_over`.
    ///
    /// # Errors
    /// [`SpillError`] where chunks cannot be read again.
    pub fn doubted(
        &mut self,
        segments: &Segments,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<Doubted>, SpillError> {
        let (known, appended) = (segments.index.segments(), segments.index.appended());
        let sound = |of: &[Arc<Segment>]| -> Vec<_> {
            of.iter().filter(|segment| segments.sound.contains(&segment.id())).cloned().collect()
        };
        let mut joined = sound(&known);
        let known_len = joined.len();
        // A blob that is known is where that says, whatever those of appenders say: first it has to be sure that it is not.
        if known_len == known.len() {
            joined.extend(sound(&appended));
        }
        let of_data: Vec<_> = joined.iter().map(|segment| packs_of_data(segment)).collect();
        let mut join = Join::new(&joined);
        let mut doubted = None;
        for (number, key) in (0u64..).zip(self.0.finish()?) {
            let key = key?;
            if number.is_multiple_of(ASKED_EVERY) && is_over() {
                break;
            }
            let (id, len) = key.split_first_chunk().expect("it begins with half an id");
            let mut is_known = false;
            let is_found = join.seek(id, &mut |segment, _, entry| {
                is_known |= segment < known_len;
                let counts = segment < known_len || !is_known;
                counts
                    && entry.len.to_be_bytes() == *len
                    && of_data[segment].get(entry.pack as usize) == Some(&true)
            });
            // A page that does not open any more is told by the lookup.
            if !is_found.unwrap_or(false) {
                doubted.get_or_insert_with(Doubted::new).insert(id);
            }
        }
        Ok(doubted)
    }
}

/// Of each pack of a segment, by number, whether it is one of data.
fn packs_of_data(segment: &Segment) -> Vec<bool> {
    let is_data = |pack: crate::format::segment::PackEntry| pack.header.kind == ObjectKind::DataPack;
    segment.packs().map(|pack| pack.is_ok_and(is_data)).collect()
}

/// Chunks that may have no home: all that have none, and a few more, since several share a bit.
pub(super) struct Doubted(Vec<u64>);

impl Doubted {
    fn new() -> Self {
        Self(vec![0; usize::try_from(BITS / 64).expect("it fits memory")])
    }

    fn place(id: &HalfId) -> (usize, u64) {
        // Ids are hashes: any part of one is as good as another.
        let bit = u128::from_be_bytes(*id) % u128::from(BITS);
        (usize::try_from(bit / 64).expect("below the number of words"), 1 << (bit % 64))
    }

    fn insert(&mut self, id: &HalfId) {
        let (word, bit) = Self::place(id);
        self.0[word] |= bit;
    }

    /// Whether the chunk may be one of them.
    pub fn may_have(&self, id: &BlobId) -> bool {
        let (word, bit) = Self::place(&id.half());
        self.0[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::check::reach::is_home;
    use crate::format::header::Header;
    use crate::format::segment::IndexEntry;
    use crate::index::Index;
    use crate::index::test_support::{entry, fixture, id};

    type Parts = Vec<(Vec<(u32, u32, u32)>, bool)>;

    /// Blobs, the numbers of their packs and their lengths, of segments that are sound or not.
    fn parts() -> impl Strategy<Value = Parts> {
        let entries = prop::collection::vec((0..40u32, 0..3u32, 7..9u32), 0..100);
        prop::collection::vec((entries, prop::bool::weighted(0.8)), 0..3)
    }

    proptest! {
        /// Whatever a lookup does not find is in doubt. Nothing else is, if the index is in order.
        #[test]
        fn what_has_no_home_is_doubted(
            known in parts(),
            appended in parts(),
            listed in prop::collection::vec((0..50u32, 7..9u32), 0..150),
            limit in 1..50u64,
        ) {
            let fixture = fixture();
            let mut packs = fixture.packs(3);
            packs[2].header = Header::create(ObjectKind::MetadataPack, &fixture.sealer()).0;
            let mut sound = HashSet::new();
            let mut segments = |parts: &Parts| -> Vec<Arc<Segment>> {
                let segment = |(part, is_sound): &(Vec<_>, bool)| {
                    let entry = |(n, pack, len): &(u32, u32, u32)| IndexEntry { len: *len, ..entry(*n, *pack) };
                    let mut entries: Vec<_> = part.iter().map(entry).collect();
                    entries.sort_unstable();
                    let segment = fixture.segment(&entries, &packs);
                    sound.extend(is_sound.then_some(segment.id()));
                    segment
                };
                parts.iter().map(segment).collect()
            };
            let index = Index::default();
            index.replace(segments(&known), &[]);
            index.set_appended(segments(&appended));
            let is_sound = known.iter().chain(&appended).all(|(_, is_sound)| *is_sound);
            let segments = Segments { index: Arc::new(index), open: Vec::new(), sound, packs: Vec::new() };

            let mut chunks = Chunks::new(limit * 8 * KEY_LEN as u64, Some(std::env::temp_dir()));
            for (n, len) in &listed {
                chunks.push(&Chunk { id: id(*n), len: *len }).unwrap();
            }
            let doubted = chunks.doubted(&segments, &|| false).unwrap();
            let is_doubted = |n| doubted.as_ref().is_some_and(|doubted| doubted.may_have(&id(n)));
            for (n, len) in &listed {
                let chunk = Chunk { id: id(*n), len: *len };
                let found = segments.index.get_all(&chunk.id).unwrap();
                let has_home = found.iter().any(|location| is_home(location, &chunk));
                prop_assert!(has_home || is_doubted(*n), "{} of {} bytes", n, len);
                // One that is listed with two lengths is looked up anyway.
                if is_sound && !listed.contains(&(*n, 15 - len)) {
                    prop_assert_eq!(is_doubted(*n), !has_home, "{} of {} bytes", n, len);
                }
            }
        }
    }
}
