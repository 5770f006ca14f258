//! One open segment: lookups and scans in place.

use std::ops::{ControlFlow, Range};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::backend::ObjectReader;
use crate::crypto::{KeySet, ObjectCipher};
use crate::format::commit::SegmentInfo;
use crate::format::header::{HEADER_LEN, Header, HeaderError, ObjectKind};
use crate::format::segment::{
    self, ENTRY_LEN, FANOUT_LEAVES, Fanout, IndexEntry, LEAF_ENTRIES, Layout, PACK_ENTRIES, PACK_ENTRY_LEN,
    PAGE_LEN, PAGE_PLAIN_LEN, PackEntry, ROOT_ENTRIES, SegmentError,
};
use crate::ids::{BlobId, RepositoryId, SegmentId};
use crate::index::IndexError;
use crate::index::cache::{PageCache, PageName, PageSort};
use crate::index::pages::PageReader;

/// An immutable segment, read page by page.
#[derive(Debug)]
pub struct Segment {
    id: SegmentId,
    object: Box<dyn ObjectReader>,
    cipher: ObjectCipher,
    layout: Layout,
    number: u64,
    seen: Seen,
}

/// Of each pack of a segment, whether it was looked for, and found. How many there are only the summary says, and that may be a
/// lie: memory is taken for packs near one that was looked for, and a MiB at most for all the rest.
#[derive(Debug, Default)]
pub(super) struct Seen(OnceLock<Box<[OnceLock<SeenChunk>]>>);

/// Neighbouring packs, a byte each.
type SeenChunk = Box<[AtomicU8]>;

/// Packs of a chunk.
const SEEN_CHUNK: u32 = 1 << 16;
/// A pack that was found.
const THERE: u8 = 1;
/// One that was looked for in vain.
const ABSENT: u8 = 2;

impl Seen {
    /// What is known of pack `pack`, if anything was ever said of one near it.
    pub fn get(&self, pack: u32) -> Option<u8> {
        let chunk = self.0.get()?.get((pack / SEEN_CHUNK) as usize)?.get()?;
        Some(chunk.get((pack % SEEN_CHUNK) as usize)?.load(Ordering::Relaxed))
    }

    /// Says it of pack `pack` of `packs`.
    pub fn set(&self, pack: u32, packs: u32, what: u8) {
        if pack >= packs {
            return;
        }
        let number = pack / SEEN_CHUNK;
        let chunks = || (0..packs.div_ceil(SEEN_CHUNK)).map(|_| OnceLock::new()).collect();
        let chunk = self.0.get_or_init(chunks)[number as usize].get_or_init(|| {
            let len = (packs - number * SEEN_CHUNK).min(SEEN_CHUNK);
            (0..len).map(|_| AtomicU8::new(0)).collect()
        });
        chunk[(pack % SEEN_CHUNK) as usize].store(what, Ordering::Relaxed);
    }
}

/// Pages of packs that may be unreadable beyond those that are readable before the rest is given up: 64 MiB of them, of half a
/// million packs. Damage is not as large, and a summary that counts what was never written does not keep anybody busy for long.
const UNREADABLE_PAGES: u64 = 16 << 10;

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// What a lookup makes of the tags on fan-out pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tags {
    /// A leaf in which no tag fits is not opened: the answer "not here" is as good as the tags.
    Trusted,
    /// Leaves alone decide.
    Ignored,
}

/// Leaves of a group in which an id can be.
struct Candidates {
    /// One bit for each leaf.
    leaves: u32,
    /// Whether it can be in the next group too.
    runs_on: bool,
}

impl Segment {
    /// Opens a segment object: reads its header and summary, nothing else.
    ///
    /// # Errors
    /// [`IndexError`] where it cannot be read or is not a whole segment of this repository.
    pub fn open(
        id: SegmentId,
        object: Box<dyn ObjectReader>,
        keys: &KeySet,
        repository: &RepositoryId,
    ) -> Result<Self, IndexError> {
        let damaged = |source| IndexError::Segment { segment: id, source };
        let unreadable = |source| IndexError::Backend { segment: id, source };
        let size = object.size();
        let mut header = vec![0; HEADER_LEN.min(usize::try_from(size).unwrap_or(HEADER_LEN))];
        object.read_at(0, &mut header).map_err(unreadable)?;
        let header = Header::decode(&header, ObjectKind::Segment).map_err(|e| damaged(e.into()))?;
        let cipher = header.cipher(keys, repository).map_err(|e| damaged(HeaderError::from(e).into()))?;
        let summary = segment::summary_page(size).map_err(damaged)?;
        let mut page = [0; PAGE_LEN];
        object.read_at(summary * PAGE_LEN as u64, &mut page).map_err(unreadable)?;
        let layout = segment::open_stored_page(&cipher, summary, &mut page)
            .and_then(|page| segment::layout(page, size))
            .map_err(damaged)?;
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, object, cipher, layout, number, seen: Seen::default() })
    }

    /// Whether pack number `pack` is stored, if that was looked up: it takes a byte a pack to keep that in mind.
    pub(super) fn seen(&self, pack: u32) -> Option<bool> {
        match self.seen.get(pack)? {
            THERE => Some(true),
            ABSENT => Some(false),
            _ => None,
        }
    }

    /// Keeps in mind whether it is.
    pub(super) fn set_seen(&self, pack: u32, is_there: bool) {
        self.seen.set(pack, self.layout.packs, if is_there { THERE } else { ABSENT });
    }

    /// What a commit says of it.
    pub fn info(&self) -> SegmentInfo {
        let Layout { entries, packs, .. } = self.layout;
        SegmentInfo { segment: self.id, blobs: entries, packs, bytes: self.size() }
    }

    /// Its id.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Its counts.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Length of the object.
    pub fn size(&self) -> u64 {
        self.object.size()
    }

    /// Pages of the object.
    pub(super) fn pages(&self) -> u64 {
        self.layout.summary() + 1
    }

    pub(super) fn cipher(&self) -> &ObjectCipher {
        &self.cipher
    }

    /// The error that this segment is damaged in this way.
    pub(super) fn damaged(&self, source: SegmentError) -> IndexError {
        IndexError::Segment { segment: self.id, source }
    }

    fn wrong(&self, what: &'static str) -> IndexError {
        self.damaged(SegmentError::Structure(what))
    }

    /// Reads stored pages from page `page` on.
    pub(super) fn read_at(&self, page: u64, buffer: &mut [u8]) -> Result<(), IndexError> {
        self.object
            .read_at(page * PAGE_LEN as u64, buffer)
            .map_err(|source| IndexError::Backend { segment: self.id, source })
    }

    fn page<T>(
        &self,
        cache: &PageCache,
        sort: PageSort,
        page: u64,
        read: impl FnOnce(&[u8; PAGE_PLAIN_LEN]) -> T,
    ) -> Result<T, IndexError> {
        let open = |buffer: &mut [u8; PAGE_LEN]| {
            self.read_at(page, buffer)?;
            segment::open_stored_page(&self.cipher, page, buffer).map_err(|e| self.damaged(e))?;
            Ok(())
        };
        cache.with(PageName { segment: self.number, page }, sort, open, read)
    }

    /// The group in which entries of an id with this prefix begin, and whether the next group can hold such too. They
    /// begin in the last group that starts below it, since equal prefixes may run over a boundary.
    fn group_of(&self, cache: &PageCache, prefix: u64) -> Result<(u64, bool), IndexError> {
        let groups = self.layout.fanout_pages();
        let (mut low, mut high) = (0, self.layout.root_pages());
        // Ids are uniform, so the first guess is nearly always right or off by one; the bounds close in with
        // every page read, so the search ends whatever the pages say.
        let guess = (u128::from(prefix) * u128::from(groups)) >> 64;
        let mut middle = u64::try_from(guess).unwrap_or(0) / ROOT_ENTRIES as u64;
        for step in 0u32.. {
            if low >= high {
                break;
            }
            middle = middle.clamp(low, high - 1);
            let len = self.layout.root_len(middle);
            let page = self.layout.first_root() + middle;
            let (first, last, before, next) = self.page(cache, PageSort::Inner, page, |page| {
                let at = |slot| segment::first_prefix(page, slot);
                let before = partition_point(0..len, |slot| at(slot) < prefix);
                (at(0), at(len - 1), before, at(before.min(len - 1)))
            })?;
            if last < prefix {
                low = middle + 1;
            } else if first >= prefix {
                high = middle;
            } else {
                return Ok((middle * ROOT_ENTRIES as u64 + before as u64 - 1, next == prefix));
            }
            middle = match (step, last < prefix) {
                (0..3, true) => low,
                (0..3, false) => middle.saturating_sub(1),
                _ => low + (high - low) / 2,
            };
        }
        // The boundary falls between two root pages.
        let before = (low * ROOT_ENTRIES as u64).min(groups);
        Ok((before.saturating_sub(1), true))
    }

    /// Leaves of group `group` that can hold the id. In the group where its entries begin, that is the last leaf that
    /// starts below it, and those after it that do not start above it; in a later group only the latter.
    fn candidates(
        &self,
        cache: &PageCache,
        group: u64,
        is_first: bool,
        id: &BlobId,
        tags: Tags,
    ) -> Result<Candidates, IndexError> {
        let (prefix, tag) = (segment::prefix(id), segment::tag(id));
        let len = self.layout.fanout_len(group);
        let first_leaf = group * FANOUT_LEAVES as u64;
        self.page(cache, PageSort::Inner, self.layout.fanout(group), |page| {
            let at = |leaf| segment::first_prefix(page, leaf);
            let start = match is_first {
                true => partition_point(0..len, |leaf| at(leaf) < prefix).saturating_sub(1),
                false => 0,
            };
            let mut leaves = 0;
            for leaf in start..len {
                if (leaf > start || !is_first) && at(leaf) > prefix {
                    return Candidates { leaves, runs_on: false };
                }
                let entries = self.layout.leaf_len(first_leaf + leaf as u64);
                let may_hold = |tags: &[[u8; 2]]| tags.iter().fold(false, |any, other| any | (*other == tag));
                if tags == Tags::Ignored || may_hold(segment::tags(page, leaf, entries)) {
                    leaves |= 1 << leaf;
                }
            }
            Candidates { leaves, runs_on: true }
        })
    }

    /// Calls `found` with every entry of `id` and its number until it says that it has what it wants.
    ///
    /// # Errors
    /// [`IndexError`] where a page does not open or an entry of `id` points nowhere.
    pub(super) fn find(
        &self,
        cache: &PageCache,
        id: &BlobId,
        tags: Tags,
        found: &mut dyn FnMut(u64, &IndexEntry) -> bool,
    ) -> Result<bool, IndexError> {
        let groups = self.layout.fanout_pages();
        if groups == 0 {
            return Ok(false);
        }
        let (first, next_may_hold) = self.group_of(cache, segment::prefix(id))?;
        for group in first..groups {
            let is_first = group == first;
            let mut candidates = self.candidates(cache, group, is_first, id, tags)?;
            while candidates.leaves != 0 {
                let leaf = group * FANOUT_LEAVES as u64 + u64::from(candidates.leaves.trailing_zeros());
                candidates.leaves &= candidates.leaves - 1;
                match self.find_in_leaf(cache, leaf, id, found)? {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(done) => return Ok(done),
                }
            }
            if !candidates.runs_on || is_first && !next_may_hold {
                break;
            }
        }
        Ok(false)
    }

    /// Searches one leaf. Breaks where no other leaf can matter, with whether `found` has what it wants.
    fn find_in_leaf(
        &self,
        cache: &PageCache,
        leaf: u64,
        id: &BlobId,
        found: &mut dyn FnMut(u64, &IndexEntry) -> bool,
    ) -> Result<ControlFlow<bool>, IndexError> {
        let len = self.layout.leaf_len(leaf);
        let search = |page: &[u8; PAGE_PLAIN_LEN]| {
            let start = partition_point(0..len, |slot| segment::leaf_id(page, slot) < *id);
            for slot in start..len {
                if segment::leaf_id(page, slot) != *id {
                    return Ok(ControlFlow::Break(false));
                }
                let entry = segment::leaf_entry(page, slot);
                if !entry.is_sane(&self.layout) {
                    return Err(self.damaged(NOWHERE));
                }
                if found(leaf * LEAF_ENTRIES as u64 + slot as u64, &entry) {
                    return Ok(ControlFlow::Break(true));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        self.page(cache, PageSort::Leaf, self.layout.leaf(leaf), search)?
    }

    /// Pack number `pack` of the segment.
    ///
    /// # Errors
    /// [`IndexError`] where there is no such pack or its page does not open.
    pub(super) fn pack(&self, cache: &PageCache, pack: u32) -> Result<PackEntry, IndexError> {
        if pack >= self.layout.packs {
            return Err(self.wrong("an entry names a pack that the segment does not list"));
        }
        let page = self.layout.first_pack() + u64::from(pack) / PACK_ENTRIES as u64;
        let slot = pack as usize % PACK_ENTRIES;
        self.page(cache, PageSort::Inner, page, |page| segment::pack_entry(page, slot))?
            .map_err(|source| self.damaged(source))
    }

    /// The same, of no cache.
    ///
    /// # Errors
    /// As [`Segment::packs`].
    pub fn pack_at(&self, pack: u32) -> Result<PackEntry, IndexError> {
        if pack >= self.layout.packs {
            return Err(self.wrong("there is no pack of this number"));
        }
        let mut reader = PageReader::new(self);
        let page = reader.page(self.layout.first_pack() + u64::from(pack) / PACK_ENTRIES as u64)?;
        segment::pack_entry(page, pack as usize % PACK_ENTRIES).map_err(|source| self.damaged(source))
    }

    /// All packs, in table order, opening each page once.
    ///
    /// # Errors
    /// [`IndexError`] at the first page or entry that is wrong.
    pub fn packs(&self) -> impl Iterator<Item = Result<PackEntry, IndexError>> + '_ {
        let mut reader = PageReader::new(self);
        (0..self.layout.packs).map(move |pack| {
            let page = self.layout.first_pack() + u64::from(pack) / PACK_ENTRIES as u64;
            let entry = segment::pack_entry(reader.page(page)?, pack as usize % PACK_ENTRIES);
            entry.map_err(|source| self.damaged(source))
        })
    }

    /// The packs of which the row can be read, with their numbers. A page that does not open is tried once, and its packs are left
    /// out; where far more of them do not open than do, so is all the rest.
    pub fn readable_packs(&self) -> impl Iterator<Item = (u32, PackEntry)> + '_ {
        let mut reader = PageReader::new(self);
        let (mut read, mut failed) = (0, 0);
        let pages = (0..self.layout.pack_pages()).map_while(move |number| {
            let rows = match reader.page(self.layout.first_pack() + number) {
                Ok(page) => {
                    read += 1;
                    self.readable_rows(number, page)
                }
                Err(_) => {
                    failed += 1;
                    Vec::new()
                }
            };
            (failed <= read + UNREADABLE_PAGES).then_some(rows)
        });
        pages.flatten()
    }

    /// Those of page `number` of the pack table.
    fn readable_rows(&self, number: u64, page: &[u8; PAGE_PLAIN_LEN]) -> Vec<(u32, PackEntry)> {
        let first = u32::try_from(number * PACK_ENTRIES as u64).expect("pages are of fewer than 2^32 packs");
        let rows = (0..self.layout.pack_len(number)).zip(first..);
        rows.filter_map(|(slot, pack)| Some((pack, segment::pack_entry(page, slot).ok()?))).collect()
    }

    /// All entries in order, opening each page once.
    ///
    /// # Errors
    /// [`IndexError`] at the first page that does not open.
    pub fn entries(&self) -> impl Iterator<Item = Result<IndexEntry, IndexError>> + '_ {
        let mut reader = PageReader::new(self);
        (0..self.layout.entries).map(move |entry| {
            let page = self.layout.leaf(entry / LEAF_ENTRIES as u64);
            let slot = usize::try_from(entry % LEAF_ENTRIES as u64).expect("below 72");
            Ok(segment::leaf_entry(reader.page(page)?, slot))
        })
    }

    /// Whether entries ascend and point to possible places in packs of the table, fan-out and roots are those of the
    /// leaves, tags those of the ids, and unused bytes are zero.
    ///
    /// # Errors
    /// [`IndexError`] saying what is wrong.
    pub fn verify(&self) -> Result<(), IndexError> {
        self.verify_with(&mut |_| ()).map(drop)
    }

    /// Verifies the segment, calls `visit` with every entry, and returns the hash of the object, which ought to be its
    /// id. Reads each page once in order, and the pack table before that; takes eight bytes of memory for each pack
    /// and for every 1872 entries.
    ///
    /// # Errors
    /// [`IndexError`] saying what is wrong.
    pub fn verify_with(&self, visit: &mut dyn FnMut(&IndexEntry)) -> Result<SegmentId, IndexError> {
        let sizes = self.verify_packs()?;
        let mut reader = PageReader::hashing(self);
        self.check_zero(&reader.stored(0)?[HEADER_LEN..])?;
        let roots = self.verify_entries(&mut reader, &sizes, visit)?;
        for (page, firsts) in (self.layout.first_root()..).zip(roots.chunks(ROOT_ENTRIES)) {
            let stored = reader.page(page)?;
            let (listed, rest) = stored.split_at(firsts.len() * 8);
            if !listed.chunks_exact(8).eq(firsts.iter().map(|first| first.to_le_bytes())) {
                return Err(self.wrong("its root pages are not those of its fan-out"));
            }
            self.check_zero(rest)?;
        }
        for page in self.layout.first_pack()..self.pages() {
            reader.stored(page)?;
        }
        let hash = reader.hash().expect("the reader hashes");
        Ok(SegmentId::from_bytes(hash.into()))
    }

    /// Verifies leaves and fan-out pages; returns the first number of each of the latter.
    fn verify_entries(
        &self,
        reader: &mut PageReader<'_>,
        pack_sizes: &[u64],
        visit: &mut dyn FnMut(&IndexEntry),
    ) -> Result<Vec<u64>, IndexError> {
        let (mut fanout, mut roots) = (Fanout::default(), Vec::new());
        let mut last: Option<BlobId> = None;
        for leaf in 0..self.layout.leaf_pages() {
            let page = reader.page(self.layout.leaf(leaf))?;
            let len = self.layout.leaf_len(leaf);
            self.check_zero(&page[len * ENTRY_LEN..])?;
            for entry in (0..len).map(|slot| segment::leaf_entry(page, slot)) {
                if last.is_some_and(|last| last > entry.id) {
                    return Err(self.wrong(UNORDERED));
                }
                last = Some(entry.id);
                if !entry.is_sane(&self.layout) || entry.block.end() > pack_sizes[entry.pack as usize] {
                    return Err(self.damaged(NOWHERE));
                }
                fanout.push(&entry.id);
                visit(&entry);
            }
            if fanout.is_full() || leaf + 1 == self.layout.leaf_pages() {
                if reader.page(self.layout.fanout(leaf / FANOUT_LEAVES as u64))? != fanout.page() {
                    return Err(self.wrong("a fan-out page is not that of its leaves"));
                }
                roots.push(fanout.clear());
            }
        }
        Ok(roots)
    }

    /// Lengths of all packs, each row and the rest of each page verified.
    fn verify_packs(&self) -> Result<Vec<u64>, IndexError> {
        let mut reader = PageReader::new(self);
        let mut sizes = Vec::new();
        for number in 0..self.layout.pack_pages() {
            let page = reader.page(self.layout.first_pack() + number)?;
            let len = self.layout.pack_len(number);
            for slot in 0..len {
                sizes.push(segment::pack_entry(page, slot).map_err(|source| self.damaged(source))?.size);
            }
            self.check_zero(&page[len * PACK_ENTRY_LEN..])?;
        }
        Ok(sizes)
    }

    fn check_zero(&self, unused: &[u8]) -> Result<(), IndexError> {
        match unused.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(self.wrong("unused bytes of a page are not zero")),
        }
    }
}

/// An entry that no writer makes.
pub(super) const NOWHERE: SegmentError = SegmentError::Structure("an entry points nowhere");

/// Entries that no writer puts in this order.
pub(super) const UNORDERED: &str = "its entries are not in order";

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
