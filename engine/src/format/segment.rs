//! Index segments: immutable, sorted by blob id, searched in place in small sealed pages.
//!
//! The object is a sequence of 4096-byte pages. Page 0 begins with the header. Then come groups of leaf pages (72
//! entries each, ascending by id), each group followed by its fan-out page, which has the first eight bytes of each
//! leaf's first id and a tag of two bytes for each entry; root pages with the first number of each fan-out page; pack
//! pages (34 packs each); and last the summary page with the counts. All but page 0 are sealed messages of 4080
//! plaintext bytes. Everything is written in one pass. Ids are uniform, so a lookup guesses its root page and opens
//! three pages, of which the upper two are few and soon in memory; where no tag fits, the blob is not in the segment
//! and its leaf is not opened. See `format-spec`, Segments.

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
/// Leaves of a group: those that one fan-out page describes.
pub const FANOUT_LEAVES: usize = 26;
/// Fan-out pages whose first numbers one root page holds.
pub const ROOT_ENTRIES: usize = 510;
/// Length of a pack entry.
pub const PACK_ENTRY_LEN: usize = 120;
/// Packs in a pack page.
pub const PACK_ENTRIES: usize = 34;
/// Where tags begin on a fan-out page.
const TAGS_AT: usize = FANOUT_LEAVES * 8;
/// Length of a tag.
const TAG_OF_ID_LEN: usize = 2;
/// Longest segment that is opened: 1 TiB, some 18 billion entries.
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
    /// About how many bytes of its sealed block the blob takes.
    pub fn stored_len(&self) -> u64 {
        u64::from(self.len) * u64::from(self.block.sealed_len) / u64::from(self.block.raw_len).max(1)
    }

    /// Whether the entry names a pack of a segment with this layout, a possible block, and a place inside it. What
    /// the pack's length allows is for the reader of its row to say.
    pub fn is_sane(&self, layout: &Layout) -> bool {
        let end = u64::from(self.offset) + u64::from(self.len);
        self.pack < layout.packs && self.block.is_sane() && end <= u64::from(self.block.raw_len)
    }
}

/// A pack as its segment lists it: enough to read blocks without touching the pack's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
        self.leaf_pages().div_ceil(FANOUT_LEAVES as u64)
    }

    /// Number of root pages.
    pub const fn root_pages(&self) -> u64 {
        self.fanout_pages().div_ceil(ROOT_ENTRIES as u64)
    }

    /// Number of pack pages.
    pub const fn pack_pages(&self) -> u64 {
        (self.packs as u64).div_ceil(PACK_ENTRIES as u64)
    }

    /// The page of leaf `leaf`: before it are the header page, other leaves, and the fan-out pages of whole groups.
    pub const fn leaf(&self, leaf: u64) -> u64 {
        1 + leaf + leaf / FANOUT_LEAVES as u64
    }

    /// The page of fan-out page `group`: it follows its leaves.
    pub const fn fanout(&self, group: u64) -> u64 {
        let leaves = (group + 1) * FANOUT_LEAVES as u64;
        let leaves = if leaves < self.leaf_pages() { leaves } else { self.leaf_pages() };
        1 + leaves + group
    }

    /// First root page.
    pub const fn first_root(&self) -> u64 {
        1 + self.leaf_pages() + self.fanout_pages()
    }

    /// First pack page.
    pub const fn first_pack(&self) -> u64 {
        self.first_root() + self.root_pages()
    }

    /// Entries on leaf `leaf`.
    pub fn leaf_len(&self, leaf: u64) -> usize {
        part(self.entries, leaf, LEAF_ENTRIES)
    }

    /// Leaves that fan-out page `group` describes.
    pub fn fanout_len(&self, group: u64) -> usize {
        part(self.leaf_pages(), group, FANOUT_LEAVES)
    }

    /// Fan-out pages that root page `page` lists.
    pub fn root_len(&self, page: u64) -> usize {
        part(self.fanout_pages(), page, ROOT_ENTRIES)
    }

    /// Packs on pack page `page`.
    pub fn pack_len(&self, page: u64) -> usize {
        part(u64::from(self.packs), page, PACK_ENTRIES)
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

/// How many of `total` things are in part `number`, where each but the last has `size`.
fn part(total: u64, number: u64, size: usize) -> usize {
    let left = total.saturating_sub(number.saturating_mul(size as u64));
    usize::try_from(left).map_or(size, |left| left.min(size))
}

/// The plaintext of a fan-out page, as its group's ids make it.
#[derive(Debug)]
pub struct Fanout {
    page: Box<[u8; PAGE_PLAIN_LEN]>,
    entries: usize,
}

impl Default for Fanout {
    fn default() -> Self {
        Self { page: Box::new([0; PAGE_PLAIN_LEN]), entries: 0 }
    }
}

impl Fanout {
    /// Adds the next entry's id.
    ///
    /// # Panics
    /// Where the group is full.
    pub fn push(&mut self, id: &BlobId) {
        assert!(!self.is_full(), "a group has {FANOUT_LEAVES} leaves");
        let (leaf, slot) = (self.entries / LEAF_ENTRIES, self.entries % LEAF_ENTRIES);
        if slot == 0 {
            self.page[leaf * 8..leaf * 8 + 8].copy_from_slice(&prefix(id).to_le_bytes());
        }
        let at = tag_at(leaf, slot);
        self.page[at..at + TAG_OF_ID_LEN].copy_from_slice(&tag(id));
        self.entries += 1;
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Whether the group has all its leaves.
    pub fn is_full(&self) -> bool {
        self.entries == FANOUT_LEAVES * LEAF_ENTRIES
    }

    /// The page.
    pub fn page(&self) -> &[u8; PAGE_PLAIN_LEN] {
        &self.page
    }

    /// Begins the next group; returns this one's first number.
    pub fn clear(&mut self) -> u64 {
        let first = first_prefix(&self.page, 0);
        self.page.fill(0);
        self.entries = 0;
        first
    }
}

/// Builds a segment in one pass, from entries that come in ascending order of id and then the packs they name.
///
/// Finished pages gather in [`SegmentBuilder::output`], whence the caller takes them; what stays in memory is a page of
/// each sort and eight bytes for every 1872 entries.
pub struct SegmentBuilder {
    output: Vec<u8>,
    position: u64,
    cipher: ObjectCipher,
    leaf: Vec<u8>,
    fanout: Fanout,
    /// First numbers of the fan-out pages so far; `None` once their pages are written.
    roots: Option<Vec<u64>>,
    /// Another page in the making.
    table: Vec<u8>,
    entries: u64,
    packs: u32,
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
        let mut output = header.encode().to_vec();
        output.resize(PAGE_LEN, 0);
        Self {
            output,
            position: PAGE_LEN as u64,
            cipher,
            leaf: Vec::with_capacity(PAGE_LEN),
            fanout: Fanout::default(),
            roots: Some(Vec::new()),
            table: Vec::with_capacity(PAGE_LEN),
            entries: 0,
            packs: 0,
            last: None,
        }
    }

    /// Bytes of the object that are finished and were not taken yet. The caller may take them away at any time.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Adds an entry. Equal ids may follow each other: a blob can lie in several packs.
    ///
    /// # Panics
    /// Where ids descend or packs were added already: that is a mistake of the caller, not of stored data.
    pub fn push(&mut self, entry: &IndexEntry) {
        assert!(
            self.last.is_none_or(|last| last <= entry.id),
            "entries of a segment come in ascending order"
        );
        assert!(self.roots.is_some(), "entries of a segment come before its packs");
        self.last = Some(entry.id);
        self.fanout.push(&entry.id);
        self.entries += 1;
        let numbers = [
            entry.pack,
            entry.block.position,
            entry.block.sealed_len,
            entry.block.raw_len,
            entry.offset,
            entry.len,
        ];
        self.leaf.extend_from_slice(entry.id.as_bytes());
        self.leaf.extend_from_slice(numbers.map(u32::to_le_bytes).as_flattened());
        if self.leaf.len() == LEAF_ENTRIES * ENTRY_LEN {
            self.close(|builder| &mut builder.leaf);
        }
        if self.fanout.is_full() {
            self.close_group();
        }
    }

    fn close_group(&mut self) {
        self.table.extend_from_slice(self.fanout.page());
        self.close(|builder| &mut builder.table);
        let first = self.fanout.clear();
        self.roots.as_mut().expect("entries come before packs").push(first);
    }

    /// Seals a page after all that came before it.
    fn close(&mut self, page: impl Fn(&mut Self) -> &mut Vec<u8>) {
        let mut bytes = std::mem::take(page(self));
        bytes.resize(PAGE_PLAIN_LEN, 0);
        self.cipher.seal(page_context(self.position), &mut bytes);
        self.output.extend_from_slice(&bytes);
        self.position += PAGE_LEN as u64;
        bytes.clear();
        *page(self) = bytes;
    }

    fn end_entries(&mut self) {
        if !self.leaf.is_empty() {
            self.close(|builder| &mut builder.leaf);
        }
        if !self.fanout.is_empty() {
            self.close_group();
        }
        for firsts in self.roots.take().unwrap_or_default().chunks(ROOT_ENTRIES) {
            self.table.extend(firsts.iter().flat_map(|first| first.to_le_bytes()));
            self.close(|builder| &mut builder.table);
        }
    }

    /// Adds a pack; the first one has number 0. No entries come after it.
    pub fn push_pack(&mut self, pack: &PackEntry) {
        self.end_entries();
        self.table.extend_from_slice(pack.id.as_bytes());
        self.table.extend_from_slice(&pack.header.prefix()[8..]);
        self.table.extend_from_slice(&pack.header.commitment);
        self.table.extend_from_slice(&pack.size.to_le_bytes());
        self.table.extend_from_slice(&pack.blobs.to_le_bytes());
        self.table.extend_from_slice(&[0; 4]);
        self.packs = self.packs.checked_add(1).expect("a segment covers fewer than 2^32 packs");
        if self.table.len() == PACK_ENTRIES * PACK_ENTRY_LEN {
            self.close(|builder| &mut builder.table);
        }
    }

    /// Ends the segment; returns its layout and what of the object was not taken yet.
    pub fn end(mut self) -> (Vec<u8>, Layout) {
        self.end_entries();
        if !self.table.is_empty() {
            self.close(|builder| &mut builder.table);
        }
        let layout = Layout { entries: self.entries, packs: self.packs };
        self.table.extend_from_slice(&SUMMARY_MAGIC);
        self.table.extend_from_slice(&layout.entries.to_le_bytes());
        self.table.extend_from_slice(&layout.packs.to_le_bytes());
        self.close(|builder| &mut builder.table);
        debug_assert_eq!(self.position, layout.object_len());
        (self.output, layout)
    }

    /// Ends the segment with its pack table; for one whose output was never taken, returns the whole object.
    pub fn finish(mut self, packs: &[PackEntry]) -> (Vec<u8>, Layout) {
        packs.iter().for_each(|pack| self.push_pack(pack));
        self.end()
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

/// The tag of an id: two of its bytes that say nothing of its order.
pub fn tag(id: &BlobId) -> [u8; TAG_OF_ID_LEN] {
    [id.as_bytes()[8], id.as_bytes()[9]]
}

fn tag_at(leaf: usize, slot: usize) -> usize {
    TAGS_AT + (leaf * LEAF_ENTRIES + slot) * TAG_OF_ID_LEN
}

fn page_context(position: u64) -> MessageContext {
    MessageContext { position, raw_len: PAGE_PLAIN_LEN as u64 }
}

/// Opens the stored page `page` of a segment in place.
///
/// # Errors
/// [`SegmentError::Page`].
pub fn open_stored_page<'a>(
    cipher: &ObjectCipher,
    page: u64,
    stored: &'a mut [u8; PAGE_LEN],
) -> Result<&'a [u8; PAGE_PLAIN_LEN], SegmentError> {
    let context = page_context(page.saturating_mul(PAGE_LEN as u64));
    cipher.open(context, stored).map_err(|source| SegmentError::Page { page, source })?;
    Ok(plain(stored))
}

/// The plaintext of an opened page.
pub fn plain(page: &[u8; PAGE_LEN]) -> &[u8; PAGE_PLAIN_LEN] {
    page.first_chunk().expect("a page is longer than its plaintext")
}

/// Opens page `page` of a segment object that is in memory into `buffer`.
///
/// # Errors
/// [`SegmentError`] where the page is outside the object or does not open.
pub fn open_page<'a>(
    object: &[u8],
    cipher: &ObjectCipher,
    page: u64,
    buffer: &'a mut [u8; PAGE_LEN],
) -> Result<&'a [u8; PAGE_PLAIN_LEN], SegmentError> {
    let start = usize::try_from(page).ok().and_then(|page| page.checked_mul(PAGE_LEN));
    let stored = start
        .and_then(|start| object.get(start..)?.first_chunk())
        .ok_or(SegmentError::Structure("a page lies outside the object"))?;
    *buffer = *stored;
    open_stored_page(cipher, page, buffer)
}

/// The number of the summary page of an object of `size` bytes.
///
/// # Errors
/// [`SegmentError`] where a segment cannot have this length.
pub fn summary_page(size: u64) -> Result<u64, SegmentError> {
    let pages = size / PAGE_LEN as u64;
    if !size.is_multiple_of(PAGE_LEN as u64) || pages < 2 {
        return Err(SegmentError::Structure("its length is not that of whole pages"));
    }
    Ok(pages - 1)
}

/// The counts on an opened summary page, checked against the object's length.
///
/// # Errors
/// [`SegmentError`] where the object is not a whole segment.
pub fn layout(summary: &[u8; PAGE_PLAIN_LEN], size: u64) -> Result<Layout, SegmentError> {
    if summary[..8] != SUMMARY_MAGIC || summary[20..].iter().any(|byte| *byte != 0) {
        return Err(SegmentError::Structure("the last page is no summary of this version"));
    }
    let entries = u64::from_le_bytes(summary[8..16].try_into().expect("eight bytes"));
    let packs = u32::from_le_bytes(summary[16..20].try_into().expect("four bytes"));
    // Before any arithmetic on the counts: more entries than bytes is a lie.
    if entries > size || u64::from(packs) > size {
        return Err(SegmentError::Structure("the summary counts more than the object can hold"));
    }
    let layout = Layout { entries, packs };
    if layout.object_len() != size {
        return Err(SegmentError::Structure("the summary does not match the object's length"));
    }
    Ok(layout)
}

/// Reads the layout of a segment object that is in memory.
///
/// # Errors
/// [`SegmentError`] where the object is not a whole segment.
pub fn read_layout(object: &[u8], cipher: &ObjectCipher) -> Result<Layout, SegmentError> {
    let size = object.len() as u64;
    layout(open_page(object, cipher, summary_page(size)?, &mut [0; PAGE_LEN])?, size)
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

/// Number `slot` of an opened fan-out page: the prefix of a leaf's first id. Or of a root page: of a fan-out page's.
pub fn first_prefix(page: &[u8; PAGE_PLAIN_LEN], slot: usize) -> u64 {
    let bytes: &[u8; 8] = page[slot * 8..].first_chunk().expect("slots are below ROOT_ENTRIES");
    u64::from_le_bytes(*bytes)
}

/// Tags of the first `len` entries of leaf `leaf` of the group, on its opened fan-out page.
pub fn tags(page: &[u8; PAGE_PLAIN_LEN], leaf: usize, len: usize) -> &[[u8; TAG_OF_ID_LEN]] {
    let (tags, _) = page[tag_at(leaf, 0)..tag_at(leaf, len)].as_chunks();
    tags
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
