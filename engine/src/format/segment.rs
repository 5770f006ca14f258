//! Index segments: immutable, sorted by blob id, searched in place in small sealed pages.
//!
//! The object is a sequence of 4096-byte pages. Page 0 begins with the header. Then come leaf pages (72 entries
//! each, ascending by id), fan-out pages (the first eight bytes of each leaf's first id, 510 to a page), pack
//! pages (34 packs each), and last the summary page with the counts. All but page 0 are sealed messages of 4080
//! plaintext bytes. Ids are uniform, so a lookup guesses its fan-out page and opens two pages. See
//! `format-spec`, Segments.

use crate::crypto::{MessageContext, ObjectCipher, SealError, TAG_LEN};
use crate::format::header::{Header, HeaderError, ObjectKind, Sealer};
use crate::format::pack::BlockSpan;
use crate::ids::{BlobId, PackId, SegmentId};

/// Length of a stored page.
pub const PAGE_LEN: usize = 4096;
/// Length of a page's plaintext.
pub const PAGE_PLAIN_LEN: usize = PAGE_LEN - TAG_LEN;
/// Length of an index entry.
pub const ENTRY_LEN: usize = 56;
/// Entries in a leaf page.
pub const LEAF_ENTRIES: usize = 72;
/// Leaves whose first ids one fan-out page holds.
pub const FANOUT_ENTRIES: usize = 510;
/// Length of a pack entry.
pub const PACK_ENTRY_LEN: usize = 120;
/// Packs in a pack page.
pub const PACK_ENTRIES: usize = 34;
/// Longest segment that is opened: 1 TiB, some 19 billion entries.
pub const SEGMENT_LEN_MAX: u64 = 1 << 40;

const SUMMARY_MAGIC: [u8; 8] = *b"SEGMENT1";

/// Where a blob lies: in which pack of its segment, which block of it, and where in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// The blob.
    pub id: BlobId,
    /// Number of the pack in this segment's pack table.
    pub pack: u32,
    /// The block.
    pub block: BlockSpan,
    /// Offset of the blob in the block's plaintext.
    pub offset: u32,
    /// Length of the blob.
    pub len: u32,
}

impl IndexEntry {
    /// Whether the entry names a pack of a segment with this layout, a possible block, and a place inside it. What
    /// the pack's length allows is for the reader of its row to say.
    pub fn is_sane(&self, layout: &Layout) -> bool {
        let end = u64::from(self.offset) + u64::from(self.len);
        self.pack < layout.packs && self.block.is_sane() && end <= u64::from(self.block.raw_len)
    }
}

/// A pack as its segment lists it: enough to read blocks without touching the pack's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackEntry {
    /// The pack.
    pub id: PackId,
    /// Its header.
    pub header: Header,
    /// Length of its object.
    pub size: u64,
    /// Blobs in it.
    pub blobs: u32,
}

/// A segment cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The header was refused.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A page does not open.
    #[error("page {page} of the segment: {source}")]
    Page {
        /// Number of the page.
        page: u64,
        /// Why.
        source: SealError,
    },
    /// Counts, lengths or entries contradict each other.
    #[error("the segment is wrong: {0}")]
    Structure(&'static str),
}

/// Counts of a segment and, following from them, where its pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Index entries.
    pub entries: u64,
    /// Packs.
    pub packs: u32,
}

impl Layout {
    /// Number of leaf pages.
    pub const fn leaf_pages(&self) -> u64 {
        self.entries.div_ceil(LEAF_ENTRIES as u64)
    }

    /// Number of fan-out pages.
    pub const fn fanout_pages(&self) -> u64 {
        self.leaf_pages().div_ceil(FANOUT_ENTRIES as u64)
    }

    /// Number of pack pages.
    pub const fn pack_pages(&self) -> u64 {
        (self.packs as u64).div_ceil(PACK_ENTRIES as u64)
    }

    /// First leaf page.
    pub const fn first_leaf(&self) -> u64 {
        1
    }

    /// First fan-out page.
    pub const fn first_fanout(&self) -> u64 {
        self.first_leaf() + self.leaf_pages()
    }

    /// First pack page.
    pub const fn first_pack(&self) -> u64 {
        self.first_fanout() + self.fanout_pages()
    }

    /// The summary page, the last one.
    pub const fn summary(&self) -> u64 {
        self.first_pack() + self.pack_pages()
    }

    /// Length of the object.
    pub const fn object_len(&self) -> u64 {
        (self.summary() + 1) * PAGE_LEN as u64
    }
}

/// Builds a segment from entries that come in ascending order of id.
pub struct SegmentBuilder {
    object: Vec<u8>,
    cipher: ObjectCipher,
    page: Vec<u8>,
    firsts: Vec<u64>,
    entries: u64,
    last: Option<BlobId>,
}

impl std::fmt::Debug for SegmentBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentBuilder({} entries)", self.entries)
    }
}

impl SegmentBuilder {
    /// Starts a segment.
    pub fn new(sealer: &Sealer<'_>) -> Self {
        let (header, cipher) = Header::create(ObjectKind::Segment, sealer);
        let mut object = header.encode().to_vec();
        object.resize(PAGE_LEN, 0);
        Self {
            object,
            cipher,
            page: Vec::with_capacity(PAGE_LEN),
            firsts: Vec::new(),
            entries: 0,
            last: None,
        }
    }

    fn close_page(&mut self) {
        self.page.resize(PAGE_PLAIN_LEN, 0);
        let position = self.object.len() as u64;
        self.cipher.seal(page_context(position), &mut self.page);
        self.object.extend_from_slice(&self.page);
        self.page.clear();
    }

    /// Adds an entry. Equal ids may follow each other: a blob can lie in several packs.
    ///
    /// # Panics
    /// Where ids descend: that is a mistake of the caller, not of stored data.
    pub fn push(&mut self, entry: &IndexEntry) {
        assert!(
            self.last.is_none_or(|last| last <= entry.id),
            "entries of a segment come in ascending order"
        );
        self.last = Some(entry.id);
        if self.entries.is_multiple_of(LEAF_ENTRIES as u64) {
            if self.entries > 0 {
                self.close_page();
            }
            self.firsts.push(prefix(&entry.id));
        }
        self.entries += 1;
        self.page.extend_from_slice(entry.id.as_bytes());
        let numbers = [
            entry.pack,
            entry.block.position,
            entry.block.sealed_len,
            entry.block.raw_len,
            entry.offset,
            entry.len,
        ];
        for number in numbers {
            self.page.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Ends the segment with its pack table; returns the object and its layout.
    pub fn finish(mut self, packs: &[PackEntry]) -> (Vec<u8>, Layout) {
        if !self.page.is_empty() {
            self.close_page();
        }
        for firsts in std::mem::take(&mut self.firsts).chunks(FANOUT_ENTRIES) {
            self.page.extend(firsts.iter().flat_map(|first| first.to_le_bytes()));
            self.close_page();
        }
        for group in packs.chunks(PACK_ENTRIES) {
            for pack in group {
                self.page.extend_from_slice(pack.id.as_bytes());
                self.page.extend_from_slice(&pack.header.prefix()[8..]);
                self.page.extend_from_slice(&pack.header.commitment);
                self.page.extend_from_slice(&pack.size.to_le_bytes());
                self.page.extend_from_slice(&pack.blobs.to_le_bytes());
                self.page.extend_from_slice(&[0; 4]);
            }
            self.close_page();
        }
        let count = u32::try_from(packs.len()).expect("a segment covers fewer than 2^32 packs");
        let layout = Layout { entries: self.entries, packs: count };
        self.page.extend_from_slice(&SUMMARY_MAGIC);
        self.page.extend_from_slice(&layout.entries.to_le_bytes());
        self.page.extend_from_slice(&layout.packs.to_le_bytes());
        self.close_page();
        debug_assert_eq!(self.object.len() as u64, layout.object_len());
        (self.object, layout)
    }
}

/// Id of a segment object.
pub fn id(object: &[u8]) -> SegmentId {
    SegmentId::from_bytes(blake3::hash(object).into())
}

/// The first eight bytes of an id as a big-endian number: ordered as ids are.
pub fn prefix(id: &BlobId) -> u64 {
    let first: &[u8; 8] = id.as_bytes().first_chunk().expect("ids are longer than eight bytes");
    u64::from_be_bytes(*first)
}

fn page_context(position: u64) -> MessageContext {
    MessageContext { position, raw_len: PAGE_PLAIN_LEN as u64 }
}

/// Opens page `page` of a segment object into `plain`.
///
/// # Errors
/// [`SegmentError`] where the page is outside the object or does not open.
pub fn open_page<'a>(
    object: &[u8],
    cipher: &ObjectCipher,
    page: u64,
    plain: &'a mut [u8; PAGE_LEN],
) -> Result<&'a [u8; PAGE_PLAIN_LEN], SegmentError> {
    let start = usize::try_from(page).ok().and_then(|page| page.checked_mul(PAGE_LEN));
    let stored = start
        .and_then(|start| object.get(start..start + PAGE_LEN))
        .ok_or(SegmentError::Structure("a page lies outside the object"))?;
    plain.copy_from_slice(stored);
    let context = page_context(page * PAGE_LEN as u64);
    cipher.open(context, plain).map_err(|source| SegmentError::Page { page, source })?;
    Ok(plain.first_chunk().expect("a page is longer than its plaintext"))
}

/// Reads the counts on the summary page and checks them against the object's length.
///
/// # Errors
/// [`SegmentError`] where the object is not a whole segment.
pub fn read_layout(object: &[u8], cipher: &ObjectCipher) -> Result<Layout, SegmentError> {
    let pages = object.len() as u64 / PAGE_LEN as u64;
    if !object.len().is_multiple_of(PAGE_LEN) || pages < 2 {
        return Err(SegmentError::Structure("its length is not that of whole pages"));
    }
    let mut buffer = [0; PAGE_LEN];
    let summary = open_page(object, cipher, pages - 1, &mut buffer)?;
    if summary[..8] != SUMMARY_MAGIC || summary[20..].iter().any(|byte| *byte != 0) {
        return Err(SegmentError::Structure("the last page is no summary of this version"));
    }
    let entries = u64::from_le_bytes(summary[8..16].try_into().expect("eight bytes"));
    let packs = u32::from_le_bytes(summary[16..20].try_into().expect("four bytes"));
    // Before any arithmetic on the counts: more entries than bytes is a lie.
    if entries > object.len() as u64 || u64::from(packs) > object.len() as u64 {
        return Err(SegmentError::Structure("the summary counts more than the object can hold"));
    }
    let layout = Layout { entries, packs };
    if layout.object_len() != object.len() as u64 {
        return Err(SegmentError::Structure("the summary does not match the object's length"));
    }
    Ok(layout)
}

/// Entry `slot` of an opened leaf page.
pub fn leaf_entry(leaf: &[u8; PAGE_PLAIN_LEN], slot: usize) -> IndexEntry {
    let entry: &[u8; ENTRY_LEN] =
        leaf[slot * ENTRY_LEN..].first_chunk().expect("slots of a leaf are below LEAF_ENTRIES");
    let number = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    IndexEntry {
        id: leaf_id(leaf, slot),
        pack: number(32),
        block: BlockSpan { position: number(36), sealed_len: number(40), raw_len: number(44) },
        offset: number(48),
        len: number(52),
    }
}

/// Id of entry `slot` of an opened leaf page.
pub fn leaf_id(leaf: &[u8; PAGE_PLAIN_LEN], slot: usize) -> BlobId {
    BlobId::from_bytes(
        *leaf[slot * ENTRY_LEN..].first_chunk().expect("slots of a leaf are below LEAF_ENTRIES"),
    )
}

/// Number `slot` of an opened fan-out page: the prefix of a leaf's first id.
pub fn fanout_prefix(page: &[u8; PAGE_PLAIN_LEN], slot: usize) -> u64 {
    let bytes: &[u8; 8] = page[slot * 8..].first_chunk().expect("slots are below FANOUT_ENTRIES");
    u64::from_le_bytes(*bytes)
}

/// Entry `slot` of an opened pack page.
///
/// # Errors
/// [`SegmentError`] where the entry does not describe a pack of this version.
pub fn pack_entry(page: &[u8; PAGE_PLAIN_LEN], slot: usize) -> Result<PackEntry, SegmentError> {
    let entry: &[u8; PACK_ENTRY_LEN] =
        page[slot * PACK_ENTRY_LEN..].first_chunk().expect("slots are below PACK_ENTRIES");
    let mut header = crate::format::header::MAGIC.to_vec();
    header.extend_from_slice(&entry[32..104]);
    let kind = if header[8] == ObjectKind::MetadataPack as u8 {
        ObjectKind::MetadataPack
    } else {
        ObjectKind::DataPack
    };
    let mut id = [0; 32];
    id.copy_from_slice(&entry[..32]);
    if entry[116..] != [0; 4] {
        return Err(SegmentError::Structure("a pack entry's reserved bytes are not zero"));
    }
    Ok(PackEntry {
        id: PackId::from_bytes(id),
        header: Header::decode(&header, kind)?,
        size: u64::from_le_bytes(entry[104..112].try_into().expect("eight bytes")),
        blobs: u32::from_le_bytes([entry[112], entry[113], entry[114], entry[115]]),
    })
}
