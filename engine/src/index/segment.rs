//! One open segment: lookups and scans in place.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::ObjectBytes;
use crate::crypto::{KeySet, ObjectCipher};
use crate::format::header::{HEADER_LEN, Header, ObjectKind};
use crate::format::segment::{
    self, ENTRY_LEN, FANOUT_ENTRIES, IndexEntry, LEAF_ENTRIES, Layout, PACK_ENTRIES, PACK_ENTRY_LEN,
    PAGE_LEN, PAGE_PLAIN_LEN, PackEntry, SegmentError,
};
use crate::ids::{BlobId, RepositoryId, SegmentId};
use crate::index::cache::{PageCache, PageName};

/// An immutable segment whose bytes are mapped or in memory.
#[derive(Debug)]
pub struct Segment {
    id: SegmentId,
    bytes: Box<dyn ObjectBytes>,
    cipher: ObjectCipher,
    layout: Layout,
    number: u64,
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

impl Segment {
    /// Opens a segment object: reads its header and summary, nothing else.
    ///
    /// # Errors
    /// [`SegmentError`] where it is not a whole segment of this repository.
    pub fn open(
        id: SegmentId,
        bytes: Box<dyn ObjectBytes>,
        keys: &KeySet,
        repository: &RepositoryId,
    ) -> Result<Self, SegmentError> {
        let object = (*bytes).as_ref();
        let header = Header::decode(object, ObjectKind::Segment)?;
        let cipher = header.cipher(keys, repository).map_err(crate::format::header::HeaderError::from)?;
        let layout = segment::read_layout(object, &cipher)?;
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, bytes, cipher, layout, number })
    }

    /// Its id.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Its counts.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The stored bytes, for checking the id.
    pub fn object(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    fn page<T>(
        &self,
        cache: &PageCache,
        page: u64,
        read: impl FnOnce(&[u8; PAGE_PLAIN_LEN]) -> T,
    ) -> Result<T, SegmentError> {
        let open = |plain: &mut [u8; PAGE_LEN]| {
            segment::open_page(self.object(), &self.cipher, page, plain).map(|_| ())
        };
        cache.with(PageName { segment: self.number, page }, open, read)
    }

    /// Number of entries in leaf `leaf`.
    fn leaf_len(&self, leaf: u64) -> usize {
        let before = leaf * LEAF_ENTRIES as u64;
        usize::try_from((self.layout.entries - before).min(LEAF_ENTRIES as u64)).expect("at most 72")
    }

    /// Number of leaves listed on fan-out page `page`.
    fn fanout_len(&self, page: u64) -> usize {
        let before = page * FANOUT_ENTRIES as u64;
        usize::try_from((self.layout.leaf_pages() - before).min(FANOUT_ENTRIES as u64)).expect("at most 510")
    }

    /// Number of leaves whose first prefix is below `prefix`.
    fn leaves_before(&self, cache: &PageCache, prefix: u64) -> Result<u64, SegmentError> {
        let (mut low, mut high) = (0, self.layout.fanout_pages());
        // Ids are uniform, so the first guess is nearly always right or off by one; the bounds close in with
        // every page read, so the search ends whatever the pages say.
        let guess = (u128::from(prefix) * u128::from(self.layout.leaf_pages())) >> 64;
        let mut middle = u64::try_from(guess).unwrap_or(0) / FANOUT_ENTRIES as u64;
        for step in 0u32.. {
            if low >= high {
                break;
            }
            middle = middle.clamp(low, high - 1);
            let len = self.fanout_len(middle);
            let (first, last, before) = self.page(cache, self.layout.first_fanout() + middle, |page| {
                let at = |slot| segment::fanout_prefix(page, slot);
                (at(0), at(len - 1), partition_point(0..len, |slot| at(slot) < prefix))
            })?;
            if last < prefix {
                low = middle + 1;
            } else if first >= prefix {
                high = middle;
            } else {
                return Ok(middle * FANOUT_ENTRIES as u64 + before as u64);
            }
            middle = match (step, last < prefix) {
                (0..3, true) => low,
                (0..3, false) => middle.saturating_sub(1),
                _ => low + (high - low) / 2,
            };
        }
        // The boundary falls between two fan-out pages.
        Ok((low * FANOUT_ENTRIES as u64).min(self.layout.leaf_pages()))
    }

    /// Calls `found` with every entry of `id` until it says that it has what it wants.
    ///
    /// # Errors
    /// [`SegmentError`] where a page does not open or an entry of `id` points nowhere.
    pub(super) fn find(
        &self,
        cache: &PageCache,
        id: &BlobId,
        found: &mut dyn FnMut(&IndexEntry) -> bool,
    ) -> Result<bool, SegmentError> {
        let leaves = self.layout.leaf_pages();
        if leaves == 0 {
            return Ok(false);
        }
        let prefix = segment::prefix(id);
        // Entries with this id begin in the last leaf that starts below it and may run on.
        let mut leaf = self.leaves_before(cache, prefix)?.saturating_sub(1);
        while leaf < leaves {
            let len = self.leaf_len(leaf);
            let (done, go_on) = self.page(cache, self.layout.first_leaf() + leaf, |page| {
                let start = partition_point(0..len, |slot| segment::leaf_id(page, slot) < *id);
                for slot in start..len {
                    if segment::leaf_id(page, slot) != *id {
                        return Ok((false, false));
                    }
                    let entry = segment::leaf_entry(page, slot);
                    if !entry.is_sane(&self.layout) {
                        return Err(NOWHERE);
                    }
                    if found(&entry) {
                        return Ok((true, false));
                    }
                }
                Ok((false, true))
            })??;
            if done || !go_on {
                return Ok(done);
            }
            leaf += 1;
        }
        Ok(false)
    }

    /// Pack number `pack` of the segment.
    ///
    /// # Errors
    /// [`SegmentError`] where there is no such pack or its page does not open.
    pub(super) fn pack(&self, cache: &PageCache, pack: u32) -> Result<PackEntry, SegmentError> {
        if pack >= self.layout.packs {
            return Err(SegmentError::Structure("an entry names a pack that the segment does not list"));
        }
        let page = u64::from(pack) / PACK_ENTRIES as u64;
        let slot = pack as usize % PACK_ENTRIES;
        self.page(cache, self.layout.first_pack() + page, |page| segment::pack_entry(page, slot))?
    }

    /// All packs, in table order, opening each page once.
    ///
    /// # Errors
    /// [`SegmentError`] at the first page or entry that is wrong.
    pub fn packs(&self) -> impl Iterator<Item = Result<PackEntry, SegmentError>> + '_ {
        let mut reader = PageReader { segment: self, at: None, plain: Box::new([0; PAGE_LEN]) };
        (0..self.layout.packs).map(move |pack| {
            let page = self.layout.first_pack() + u64::from(pack) / PACK_ENTRIES as u64;
            segment::pack_entry(reader.page(page)?, pack as usize % PACK_ENTRIES)
        })
    }

    /// All entries in order, opening each page once.
    ///
    /// # Errors
    /// [`SegmentError`] at the first page that does not open.
    pub fn entries(&self) -> impl Iterator<Item = Result<IndexEntry, SegmentError>> + '_ {
        let mut reader = PageReader { segment: self, at: None, plain: Box::new([0; PAGE_LEN]) };
        (0..self.layout.entries).map(move |entry| {
            let page = self.layout.first_leaf() + entry / LEAF_ENTRIES as u64;
            let slot = usize::try_from(entry % LEAF_ENTRIES as u64).expect("below 72");
            Ok(segment::leaf_entry(reader.page(page)?, slot))
        })
    }

    /// Whether entries ascend and point to possible places in packs of the table, the fan-out is that of the leaves,
    /// and unused bytes are zero. Opens each page once. Takes eight bytes of memory a pack.
    ///
    /// # Errors
    /// [`SegmentError`] saying what is wrong.
    pub fn verify(&self) -> Result<(), SegmentError> {
        check_zero(&self.object()[HEADER_LEN..PAGE_LEN])?;
        let reader = || PageReader { segment: self, at: None, plain: Box::new([0; PAGE_LEN]) };
        let packs = self.verify_packs(&mut reader())?;
        let (mut leaves, mut fanout) = (reader(), reader());
        let mut last: Option<BlobId> = None;
        for leaf in 0..self.layout.leaf_pages() {
            let page = leaves.page(self.layout.first_leaf() + leaf)?;
            let len = self.leaf_len(leaf);
            check_zero(&page[len * ENTRY_LEN..])?;
            for entry in (0..len).map(|slot| segment::leaf_entry(page, slot)) {
                if last.is_some_and(|last| last > entry.id) {
                    return Err(SegmentError::Structure("its entries are not in order"));
                }
                last = Some(entry.id);
                if !entry.is_sane(&self.layout) || entry.block.end() > packs[entry.pack as usize] {
                    return Err(NOWHERE);
                }
            }
            let listing = leaf / FANOUT_ENTRIES as u64;
            let slot = usize::try_from(leaf % FANOUT_ENTRIES as u64).expect("below 510");
            let listed = fanout.page(self.layout.first_fanout() + listing)?;
            if segment::fanout_prefix(listed, slot) != segment::prefix(&segment::leaf_id(page, 0)) {
                return Err(SegmentError::Structure("its fan-out is not that of its leaves"));
            }
            if slot + 1 == self.fanout_len(listing) {
                check_zero(&listed[(slot + 1) * 8..])?;
            }
        }
        Ok(())
    }

    /// Lengths of all packs, each row and the rest of each page verified.
    fn verify_packs(&self, reader: &mut PageReader<'_>) -> Result<Vec<u64>, SegmentError> {
        let packs = self.layout.packs as usize;
        let mut sizes = Vec::with_capacity(packs);
        for group in 0..self.layout.pack_pages() {
            let page = reader.page(self.layout.first_pack() + group)?;
            let len = (packs - sizes.len()).min(PACK_ENTRIES);
            for slot in 0..len {
                sizes.push(segment::pack_entry(page, slot)?.size);
            }
            check_zero(&page[len * PACK_ENTRY_LEN..])?;
        }
        Ok(sizes)
    }
}

/// An entry that no writer makes.
pub(super) const NOWHERE: SegmentError = SegmentError::Structure("an entry points nowhere");

fn check_zero(unused: &[u8]) -> Result<(), SegmentError> {
    if unused.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(SegmentError::Structure("unused bytes of a page are not zero"))
}

/// Reads pages in sequence without the cache.
struct PageReader<'a> {
    segment: &'a Segment,
    at: Option<u64>,
    plain: Box<[u8; PAGE_LEN]>,
}

impl PageReader<'_> {
    fn page(&mut self, page: u64) -> Result<&[u8; PAGE_PLAIN_LEN], SegmentError> {
        if self.at != Some(page) {
            self.at = None;
            segment::open_page(self.segment.object(), &self.segment.cipher, page, &mut self.plain)?;
            self.at = Some(page);
        }
        Ok(self.plain.first_chunk().expect("a page is longer than its plaintext"))
    }
}

/// First of `range` for which `below` is false, which it stays from there on.
fn partition_point(range: Range<usize>, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
