//! Many blobs looked up at once: ascending ids beside the entries of several segments, each of which is read once.

use std::path::PathBuf;
use std::sync::Arc;

use crate::format::segment::IndexEntry;
use crate::ids::{BlobId, HalfId, PackId};
use crate::index::{IndexError, Segment};
use crate::spill::SpillError;
use crate::spill::keys::KeySorter;

/// The entries of several segments, gone through side by side.
pub struct Join<'s> {
    cursors: Vec<Cursor<'s>>,
}

/// Where a segment was gone through to.
struct Cursor<'s> {
    entries: Box<dyn Iterator<Item = Result<IndexEntry, IndexError>> + 's>,
    /// Entries that were taken.
    taken: u64,
    /// The last one of them, unless it could not be read.
    last: Option<(HalfId, IndexEntry)>,
}

impl<'s> Join<'s> {
    /// Begins at the first entries of these segments.
    pub fn new(segments: &'s [Arc<Segment>]) -> Self {
        let cursor =
            |segment: &'s Arc<Segment>| Cursor { entries: Box::new(segment.entries()), taken: 0, last: None };
        Self { cursors: segments.iter().map(cursor).collect() }
    }

    /// Calls `found` with entries of a blob, the number of their segment and their position in it, until it says that it has what it
    /// wants. Blobs have to be asked for in ascending order, each once. Of segments whose entries are in no order, some are not found.
    ///
    /// # Errors
    /// [`IndexError`] where a page does not open. Asked for the next blob, the page is tried again for the next of its entries.
    pub fn seek(
        &mut self,
        id: &HalfId,
        found: &mut dyn FnMut(usize, u64, &IndexEntry) -> bool,
    ) -> Result<bool, IndexError> {
        for (number, cursor) in self.cursors.iter_mut().enumerate() {
            cursor.step_to(id)?;
            while let Some((half, entry)) = &cursor.last
                && half == id
            {
                if found(number, cursor.taken - 1, entry) {
                    return Ok(true);
                }
                cursor.step()?;
            }
        }
        Ok(false)
    }
}

/// To look one blob up takes as long as to read so many entries of a segment one after the other.
const ENTRIES_PER_LOOKUP: u64 = 128;

/// Bytes of gathered ids that are in memory at once.
const GATHERED: u64 = 4 << 20;

/// Blobs that are gathered, to be looked for all at once.
#[derive(Debug)]
pub(crate) struct Gathered {
    ids: KeySorter<{ BlobId::LEN }>,
    /// How many were added, one that was added several times as often.
    len: u64,
}

impl Gathered {
    /// None yet. Those that there is no memory for wait in a file in the directory `spill`.
    pub fn new(spill: Option<PathBuf>) -> Self {
        Self { ids: KeySorter::new(spill, GATHERED), len: 0 }
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`SpillError`] where there is no room to keep it.
    pub fn add(&mut self, id: &BlobId) -> Result<(), SpillError> {
        self.len += 1;
        self.ids.push(*id.as_bytes())
    }

    /// Goes through them beside segments of which `is_home` says by pack whether what lies in it is at home, and hands those to `rest` for
    /// which no home was found. Where they are few beside a large index, to look each up is quicker: then nothing is looked for, and all of them
    /// are handed on.
    ///
    /// # Errors
    /// What `rest` fails with, [`SpillError`], and [`IndexError`] where a page does not open.
    pub fn sift<E: From<IndexError> + From<SpillError>>(
        mut self,
        segments: &[Arc<Segment>],
        is_home: &dyn Fn(&PackId) -> bool,
        rest: &mut dyn FnMut(&BlobId) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut ids = self.ids.finish()?.map(|id| id.map(BlobId::from_bytes));
        let entries: u64 = segments.iter().map(|segment| segment.layout().entries).sum();
        if self.len.saturating_mul(ENTRIES_PER_LOOKUP) < entries {
            return ids.try_for_each(|id| rest(&id?));
        }
        let table = |segment: &Arc<Segment>| segment.packs().map(|pack| Ok(is_home(&pack?.id))).collect();
        let homes: Vec<Vec<bool>> = segments.iter().map(table).collect::<Result<_, IndexError>>()?;
        let mut join = Join::new(segments);
        for id in ids {
            let id = id?;
            let is_found = join.seek(&id.half(), &mut |segment, _, entry| {
                homes[segment].get(entry.pack as usize) == Some(&true)
                    && entry.is_sane(&segments[segment].layout())
            })?;
            if !is_found {
                rest(&id)?;
            }
        }
        Ok(())
    }
}

impl Cursor<'_> {
    /// Takes entries until one is not below `id`. Of none that are left, the last one stays.
    fn step_to(&mut self, id: &HalfId) -> Result<(), IndexError> {
        while self.last.as_ref().is_none_or(|(half, _)| half < id) && self.step()? {}
        Ok(())
    }

    /// Takes the next entry; false at the end.
    fn step(&mut self) -> Result<bool, IndexError> {
        self.last = None;
        let Some(entry) = self.entries.next() else { return Ok(false) };
        self.taken += 1;
        let entry = entry?;
        self.last = Some((entry.id.half(), entry));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::format::segment::PAGE_LEN;
    use crate::index::test_support::{entry, fixture, id};

    proptest! {
        /// All entries of each blob that is asked for are seen, unless one of them is enough.
        #[test]
        fn each_blob_is_found_where_it_is(
            parts in prop::collection::vec(prop::collection::vec((0..200u32, 0..3u32), 0..300), 0..4),
            asked in prop::collection::btree_set(0..300u32, 0..100),
            enough in 1..4usize,
        ) {
            let fixture = fixture();
            let (mut expected, mut segments) = (BTreeMap::<HalfId, Vec<_>>::new(), Vec::new());
            for (number, part) in parts.iter().enumerate() {
                let mut entries: Vec<_> = part.iter().map(|(n, pack)| entry(*n, *pack)).collect();
                entries.sort_unstable();
                for (position, entry) in (0u64..).zip(&entries) {
                    expected.entry(entry.id.half()).or_default().push((number, position, *entry));
                }
                segments.push(fixture.segment(&entries, &fixture.packs(3)));
            }
            let mut asked: Vec<HalfId> = asked.into_iter().map(|n| id(n).half()).collect();
            asked.sort_unstable();
            let mut join = Join::new(&segments);
            for half in asked {
                let mut seen = Vec::new();
                let is_found = join.seek(&half, &mut |segment, position, entry| {
                    seen.push((segment, position, *entry));
                    seen.len() == enough
                });
                let mut wanted = expected.get(&half).cloned().unwrap_or_default();
                prop_assert_eq!(is_found.unwrap(), wanted.len() >= enough);
                wanted.truncate(enough);
                prop_assert_eq!(seen, wanted);
            }
        }
    }

    /// What one of its pages held is told as such, and what comes after it is found.
    #[test]
    fn a_page_that_does_not_open_hides_what_it_holds_and_no_more() {
        let fixture = fixture();
        let mut entries: Vec<_> = (0..1000).map(|n| entry(n, 0)).collect();
        entries.sort_unstable();
        let mut object = fixture.object(&entries, &fixture.packs(1));
        // The fourth page of leaves: 72 entries each, behind the header's page.
        object[4 * PAGE_LEN + 100] ^= 1;
        let segments = [Arc::new(fixture.open(object).unwrap())];
        let mut join = Join::new(&segments);
        for (number, entry) in entries.iter().enumerate() {
            let found = join.seek(&entry.id.half(), &mut |_, position, found| {
                assert_eq!((position, found), (number as u64, entry));
                true
            });
            match number / 72 {
                3 => assert!(found.is_err(), "{number}"),
                _ => assert!(found.unwrap(), "{number}"),
            }
        }
    }
}
