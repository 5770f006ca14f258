//! The index: which pack holds which blob. Immutable segments searched in place.

mod build;
mod cache;
mod join;
mod met;
mod pages;
mod pending;
mod segment;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
pub mod tiers;

use std::sync::{Arc, PoisonError, RwLock};

use crate::backend::{Backend, BackendError, ObjectKey};
use crate::budget;
use crate::crypto::KeySet;
use crate::format::segment::{IndexEntry, PackEntry, SEGMENT_LEN_MAX, SegmentError};
use crate::ids::{BlobId, RepositoryId, SegmentId};

pub use build::{
    MergeError, SegmentWriter, build, directory_entries, filtered_layout, merge, merge_entries,
    merge_filtered,
};
pub(crate) use join::Gathered;
pub use join::Join;
pub use met::{Bits, Meeting, Met};
pub use pending::Pending;
pub use segment::Segment;

use cache::PageCache;
use segment::Tags;

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackEntry,
    /// The entry: block, offset and length.
    pub entry: IndexEntry,
}

/// The index cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A segment object cannot be read.
    #[error("index segment {segment}: {source}")]
    Backend {
        /// The segment.
        segment: SegmentId,
        /// Why.
        source: BackendError,
    },
    /// A segment is damaged.
    #[error("index segment {segment} is damaged: {source}")]
    Segment {
        /// The segment.
        segment: SegmentId,
        /// How.
        source: SegmentError,
    },
}

impl IndexError {
    /// Whether the segment is not there or not what it should be: anything else may go well the next time.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Backend { source, .. } => source.is_loss(),
            Self::Segment { .. } => true,
        }
    }
}

/// All live segments of a repository. Shared by threads; segments can be added and taken away meanwhile.
///
/// Those that appenders added stand apart: what they say was verified by nobody, and may be a lie. They are searched only for
/// what no other segment lists, and only by those who verify what they find there: [`Index::get`] and [`Index::get_all`].
#[derive(Debug)]
pub struct Index {
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    appended: RwLock<Arc<Vec<Arc<Segment>>>>,
    cache: Arc<PageCache>,
}

impl Default for Index {
    fn default() -> Self {
        Self::with_cached_pages(budget::cached_pages(budget::USUAL))
    }
}

/// Opens the segment object `id`.
///
/// # Errors
/// [`IndexError`] where it cannot be read or is not a segment of this repository.
pub fn open_segment(
    backend: &dyn Backend,
    id: SegmentId,
    keys: &KeySet,
    repository: &RepositoryId,
) -> Result<Segment, IndexError> {
    let object = backend
        .open(&ObjectKey::segment(&id), SEGMENT_LEN_MAX)
        .map_err(|source| IndexError::Backend { segment: id, source })?;
    Segment::open(id, object, keys, repository)
}

impl Index {
    /// An index without segments that keeps `pages` opened pages of 4 KiB in memory.
    pub fn with_cached_pages(pages: usize) -> Self {
        let cache = Arc::new(PageCache::new(pages));
        Self { segments: RwLock::default(), appended: RwLock::default(), cache }
    }

    /// An index without segments that keeps its opened pages where this one keeps them: another choice of segments takes no more
    /// memory.
    pub fn beside(&self) -> Self {
        let cache = Arc::clone(&self.cache);
        Self { segments: RwLock::default(), appended: RwLock::default(), cache }
    }

    /// Keeps so many opened pages from now on, or as many as it was made with if those are fewer.
    pub fn keep_pages(&self, pages: usize) {
        self.cache.keep(pages);
    }

    /// The segments at this moment, but for those that appenders added.
    pub fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The segments that appenders added.
    pub fn appended(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.appended.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All segments, whoever added them: for counting, not for deciding.
    pub fn everything(&self) -> Vec<Arc<Segment>> {
        self.segments().iter().chain(self.appended().iter()).cloned().collect()
    }

    /// Makes these the segments that appenders added.
    pub fn set_appended(&self, segments: Vec<Arc<Segment>>) {
        *self.appended.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(segments);
    }

    /// Adds and removes segments in one step.
    pub fn replace(&self, added: Vec<Arc<Segment>>, removed: &[SegmentId]) {
        let mut guard = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut segments = added;
        segments.extend(guard.iter().filter(|old| !removed.contains(&old.id())).cloned());
        // Small ones first: their upper pages are in memory, so that they are quick to search in vain.
        segments.sort_by_key(|segment| segment.layout().entries);
        *guard = Arc::new(segments);
    }

    /// Whether some live segment lists the blob, for those who would store it otherwise: a "no" rests on the tags of
    /// fan-out pages and is wrong where those are. A "yes" has seen the entry. Whoever has to find a blob uses
    /// [`Index::get`].
    ///
    /// # Errors
    /// [`IndexError`] where no segment that can be read has it and a page does not open.
    pub fn contains(&self, id: &BlobId) -> Result<bool, IndexError> {
        let found = first_in(&self.segments(), &mut |segment| {
            let found = segment.find(&self.cache, id, Tags::Trusted, &mut |_, _| true)?;
            Ok(found.then_some(()))
        })?;
        Ok(found.is_some())
    }

    /// The same of packs that `is_there` finds. It is asked once for each pack of a segment, as long as that is open.
    ///
    /// # Errors
    /// [`IndexError`] where a page does not open.
    pub fn contains_stored(
        &self,
        id: &BlobId,
        is_there: &dyn Fn(&PackEntry) -> bool,
    ) -> Result<bool, IndexError> {
        let stored = |segment: &Segment| {
            let mut unseen = Vec::new();
            let is_seen = segment.find(&self.cache, id, Tags::Trusted, &mut |_, entry| {
                let seen = segment.seen(entry.pack);
                unseen.extend(seen.is_none().then_some(entry.pack));
                seen == Some(true)
            })?;
            if is_seen {
                return Ok(Some(()));
            }
            for number in unseen {
                let found = is_there(&segment.pack(&self.cache, number)?);
                segment.set_seen(number, found);
                if found {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        };
        Ok(first_in(&self.segments(), &mut { stored })?.is_some())
    }

    /// A place of the blob in a segment that no appender added: for those who rely on it being there.
    ///
    /// # Errors
    /// As [`Index::contains`].
    pub fn known(&self, id: &BlobId) -> Result<Option<Location>, IndexError> {
        self.known_where(id, &|_| true)
    }

    /// The same, of those places that `is_good` chooses.
    ///
    /// # Errors
    /// As [`Index::contains`].
    pub fn known_where(
        &self,
        id: &BlobId,
        is_good: &dyn Fn(&Location) -> bool,
    ) -> Result<Option<Location>, IndexError> {
        let mut locations = Vec::new();
        first_in(&self.segments(), &mut |segment| {
            locations.clear();
            let result = self.locations_in(segment, id, false, &mut locations);
            let good = locations.iter().copied().find(is_good);
            if good.is_some() { Ok(good) } else { result.map(|()| None) }
        })
    }

    /// The same, with the segment that has it, and as which of its entries.
    ///
    /// # Errors
    /// As [`Index::contains`].
    pub fn known_entry(
        &self,
        id: &BlobId,
        is_good: &dyn Fn(&Location) -> bool,
    ) -> Result<Option<(Arc<Segment>, u64, Location)>, IndexError> {
        let segments = self.segments();
        let mut number = 0;
        first_in(&segments, &mut |segment| {
            let (this, mut entries) = (number, Vec::new());
            number += 1;
            segment.find(&self.cache, id, Tags::Ignored, &mut |position, entry| {
                entries.push((position, *entry));
                false
            })?;
            for (position, entry) in entries {
                let at = self.location(segment, entry)?;
                if is_good(&at) {
                    return Ok(Some((Arc::clone(&segments[this]), position, at)));
                }
            }
            Ok(None)
        })
    }

    /// A place of the blob.
    ///
    /// # Errors
    /// As [`Index::contains`], of all segments.
    pub fn get(&self, id: &BlobId) -> Result<Option<Location>, IndexError> {
        Ok(self.locations(id, true)?.pop())
    }

    /// All places of the blob: it may lie in several packs. Those that only a segment lists whose page does not open are not among
    /// them.
    ///
    /// # Errors
    /// As [`Index::get`].
    pub fn get_all(&self, id: &BlobId) -> Result<Vec<Location>, IndexError> {
        self.locations(id, false)
    }

    /// All places of the blob that only segments of appenders have.
    ///
    /// # Errors
    /// [`IndexError`] where there is none and a page does not open.
    pub fn appended_only(&self, id: &BlobId) -> Result<Vec<Location>, IndexError> {
        match self.known(id)? {
            Some(_) => Ok(Vec::new()),
            None => self.locations_of(&self.appended(), id, false),
        }
    }

    /// A place of the blob, which of [`Index::segments`] has it, and as which of its entries.
    ///
    /// # Errors
    /// As [`Index::contains`].
    pub fn position(&self, id: &BlobId) -> Result<Option<(Location, usize, u64)>, IndexError> {
        let mut number = 0;
        first_in(&self.segments(), &mut |segment| {
            let this = number;
            number += 1;
            let mut place = None;
            segment.find(&self.cache, id, Tags::Ignored, &mut |position, entry| {
                place = Some((position, *entry));
                true
            })?;
            let located =
                |(position, entry)| Ok::<_, IndexError>((self.location(segment, entry)?, this, position));
            place.map(located).transpose()
        })
    }

    fn location(&self, segment: &Segment, entry: IndexEntry) -> Result<Location, IndexError> {
        let pack = segment.pack(&self.cache, entry.pack)?;
        if entry.block.end() > pack.size {
            return Err(segment.damaged(segment::NOWHERE));
        }
        Ok(Location { pack, entry })
    }

    fn locations(&self, id: &BlobId, first_only: bool) -> Result<Vec<Location>, IndexError> {
        let known = self.locations_of(&self.segments(), id, first_only);
        match known {
            Ok(locations) if !locations.is_empty() => Ok(locations),
            _ => {
                let appended = self.locations_of(&self.appended(), id, first_only)?;
                if appended.is_empty() { known } else { Ok(appended) }
            }
        }
    }

    /// Those that these segments list.
    ///
    /// # Errors
    /// [`IndexError`] where there is none and a page does not open: one that is damaged may not be in the way of what another segment
    /// has.
    fn locations_of(
        &self,
        segments: &[Arc<Segment>],
        id: &BlobId,
        first_only: bool,
    ) -> Result<Vec<Location>, IndexError> {
        let mut locations = Vec::new();
        let found = first_in(segments, &mut |segment| {
            self.locations_in(segment, id, first_only, &mut locations)?;
            Ok((first_only && !locations.is_empty()).then_some(()))
        });
        if locations.is_empty() { found.map(|_| locations) } else { Ok(locations) }
    }

    fn locations_in(
        &self,
        segment: &Segment,
        id: &BlobId,
        first_only: bool,
        locations: &mut Vec<Location>,
    ) -> Result<(), IndexError> {
        let mut entries = Vec::new();
        segment.find(&self.cache, id, Tags::Ignored, &mut |_, entry| {
            entries.push(*entry);
            first_only
        })?;
        for entry in entries {
            locations.push(self.location(segment, entry)?);
        }
        Ok(())
    }
}

/// What `find` has of the first segment that has it. One that cannot be read does not end the search.
///
/// # Errors
/// [`IndexError`], the first one, where no segment has it.
fn first_in<T>(
    segments: &[Arc<Segment>],
    find: &mut dyn FnMut(&Segment) -> Result<Option<T>, IndexError>,
) -> Result<Option<T>, IndexError> {
    let mut failed = None;
    for segment in segments {
        match find(segment) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), Err)
}
