//! The part of the check that looks at index segments and gathers what they say of each pack.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::backend::{BackendError, Folder, ObjectKey};
use crate::check::context::Context;
use crate::format::commit::SegmentInfo;
use crate::format::pack::BlockSpan;
use crate::format::segment::{self, IndexEntry, PackEntry};
use crate::ids::{BlobId, PackId, SegmentId};
use crate::index::{self, Index, IndexError, Segment};
use crate::log::Fold;

/// Share of the memory that opened index pages may take: one in this many bytes.
pub(super) const CACHE_SHARE: u64 = 8;

/// The index as it is stored now.
pub(super) struct Segments {
    /// All segments that could be opened.
    pub index: Arc<Index>,
    /// The same, by number.
    pub open: Vec<Arc<Segment>>,
    /// Those of them whose pages are all in order: what they list is found, and what is found is listed.
    pub sound: HashSet<SegmentId>,
    /// All packs that they list, ascending by id.
    pub packs: Vec<KnownPack>,
}

/// A pack as segments and the storage know it.
#[derive(Debug)]
pub(super) struct KnownPack {
    /// What a segment says of it.
    pub entry: PackEntry,
    /// Length of the stored object; `None` where there is none.
    pub stored: Option<u64>,
    /// Something is wrong with it, so it is to be read in whole.
    pub is_suspect: bool,
    /// Who lists it, usually one segment; those that no appender added first.
    pub listings: Vec<Listing>,
}

impl KnownPack {
    /// Whether nobody lists it but appenders.
    pub fn is_appended(&self) -> bool {
        self.listings.iter().all(|listing| listing.is_appended)
    }

    /// About what it costs to read the pack in whole: each byte of it is read, hashed and opened, each of its
    /// plaintext decompressed and hashed.
    pub fn weight(&self) -> u64 {
        let raw =
            self.listings.iter().filter_map(|listing| listing.contents).map(|contents| contents.len).max();
        self.stored.unwrap_or(0).saturating_add(raw.unwrap_or(0))
    }
}

/// One segment's list of what a pack holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing {
    /// Number of the segment in [`Segments::open`].
    pub segment: usize,
    /// Number of the pack in the segment.
    pub number: u32,
    /// An appender added the segment and nobody has vetted it: it may say what it likes.
    pub is_appended: bool,
    /// Sum over its entries; `None` where not all of them can be read.
    pub contents: Option<Contents>,
}

/// A set of blobs with their places, so that two sets can be compared without keeping either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Contents {
    count: u64,
    /// Bytes of all blobs.
    pub len: u64,
    sum: u128,
}

impl Contents {
    /// Adds a blob to the set. What two sets differ in changes the sum, whatever the order: fingerprints of ids,
    /// which are keyed hashes, are as good as random.
    pub fn add(&mut self, id: &BlobId, block: &BlockSpan, offset: u32, len: u32) {
        self.count += 1;
        self.len = self.len.wrapping_add(len.into());
        self.sum = self.sum.wrapping_add(fingerprint(id, block, offset, len));
    }
}

fn fingerprint(id: &BlobId, block: &BlockSpan, offset: u32, len: u32) -> u128 {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(id.as_bytes().as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let numbers = [pair(block.position, block.sealed_len), pair(block.raw_len, offset), u64::from(len)];
    let half = |keys: [u64; 4]| {
        let [a, b, c, d] = words;
        let mut state = fold_product(a ^ keys[0], numbers[0] ^ keys[1]);
        state = fold_product(state ^ b, numbers[1] ^ keys[2]);
        state = fold_product(state ^ c, numbers[2] ^ keys[3]);
        fold_product(state ^ keys[0], d ^ keys[1])
    };
    // Digits of pi.
    let low =
        half([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89]);
    let high =
        half([0x4528_21e6_38d0_1377, 0xbe54_66cf_34e9_0c6c, 0xc0ac_29b7_c97c_50dd, 0x3f84_d5b5_b547_0917]);
    u128::from(low) | u128::from(high) << 64
}

/// Both halves of the product, folded into one: mixes every bit of either into all of the result.
fn fold_product(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // The cast keeps the low half on purpose.
    (product >> 64) as u64 ^ product as u64
}

/// Opens and checks all live segments.
pub(super) fn check(context: &Context<'_>, fold: &Fold) -> Result<Segments, BackendError> {
    let infos: Vec<SegmentInfo> = fold.segments().copied().collect();
    let mut checked = context.spread(
        &infos,
        || (),
        |(), info, out| {
            out.extend(check_one(context, info, fold.appended_by(&info.segment).is_some()));
        },
    );
    checked.sort_by_key(|checked| checked.segment.id());
    let pages = usize::try_from(context.options.memory / CACHE_SHARE / segment::PAGE_LEN as u64);
    let index = Index::with_cached_pages(pages.unwrap_or(usize::MAX).clamp(16, 1 << 16));
    let (mut open, mut packs, mut sound) = (Vec::new(), Vec::new(), HashSet::new());
    for (number, Checked { segment, is_sound, listed }) in checked.into_iter().enumerate() {
        sound.extend(is_sound.then_some(segment.id()));
        packs.extend(listed.into_iter().map(|(entry, mut listing)| {
            listing.segment = number;
            KnownPack { entry, stored: None, is_suspect: false, listings: vec![listing] }
        }));
        open.push(segment);
    }
    let (appended, known) =
        open.iter().cloned().partition(|segment| fold.appended_by(&segment.id()).is_some());
    index.replace(known, &[]);
    index.set_appended(appended);
    find_unlisted(context, fold)?;
    Ok(Segments { index: Arc::new(index), packs: join(context, packs, &open), open, sound })
}

/// A segment that could be opened.
struct Checked {
    segment: Arc<Segment>,
    /// Whether all of its pages are in order.
    is_sound: bool,
    listed: Vec<(PackEntry, Listing)>,
}

fn check_one(context: &Context<'_>, info: &SegmentInfo, is_appended: bool) -> Option<Checked> {
    let repository = context.repository;
    let key = ObjectKey::segment(&info.segment);
    // Nobody goes by one that an appender added, so it contradicts nothing: by the rest of the index packs can be judged.
    let report = |code, problem: String| match is_appended {
        true => {
            let message =
                format!("an append-only keyslot added it, and it is not as the log says: {problem}");
            context.unreachable("appended-untrue", &key, message);
        }
        false => context.unreachable(code, &key, problem),
    };
    let segment =
        match index::open_segment(&**context.backend(), info.segment, repository.keys(), &repository.id()) {
            Ok(segment) => segment,
            Err(IndexError::Backend { source, .. }) if source.is_not_found() => {
                report("segment-missing", "the log lists it, but it is not there".into());
                return None;
            }
            Err(error) => {
                report("segment-damaged", error.to_string());
                return None;
            }
        };
    let wrong = |problem: String| report("segment-damaged", problem);
    let contents = match contents(&segment) {
        Ok((contents, hash)) => {
            if hash != info.segment {
                wrong("its bytes are not those of its id".into());
            }
            Some(contents)
        }
        Err(error) => {
            wrong(error.to_string());
            None
        }
    };
    let layout = segment.layout();
    let found = SegmentInfo {
        segment: info.segment,
        blobs: layout.entries,
        packs: layout.packs,
        bytes: segment.size(),
    };
    if found != *info {
        wrong(format!("the log says {info:?}, but it is {found:?}"));
    }
    let listed = listings(&segment, is_appended, contents.as_deref());
    Some(Checked { segment: Arc::new(segment), is_sound: contents.is_some(), listed })
}

/// Verifies a segment; returns the sum over the entries of each pack, and the hash of the object.
fn contents(segment: &Segment) -> Result<(Vec<Contents>, SegmentId), IndexError> {
    // The number of packs may be a lie of the summary until all their pages were read: they were when an entry is visited.
    let mut contents = Vec::new();
    let hash = segment.verify_with(&mut |entry| {
        let number = entry.pack as usize;
        if number >= contents.len() {
            contents.resize(number + 1, Contents::default());
        }
        contents[number].add(&entry.id, &entry.block, entry.offset, entry.len);
    })?;
    contents.resize(segment.layout().packs as usize, Contents::default());
    Ok((contents, hash))
}

/// All packs that a segment lists, as far as its pages can be read, with the sum over the entries of each where those
/// are known.
fn listings(
    segment: &Segment,
    is_appended: bool,
    contents: Option<&[Contents]>,
) -> Vec<(PackEntry, Listing)> {
    let listing = |(number, entry)| {
        let contents = contents.map(|contents| contents[number as usize]);
        (entry, Listing { segment: 0, number, is_appended, contents })
    };
    segment.readable_packs().map(listing).collect()
}

/// Joins what several segments say of one pack. What appenders say counts where nobody else says anything.
fn join(context: &Context<'_>, mut packs: Vec<KnownPack>, open: &[Arc<Segment>]) -> Vec<KnownPack> {
    packs.sort_by_key(|pack| (pack.entry.id, pack.is_appended()));
    packs.dedup_by(|later, first| {
        let is_same = later.entry.id == first.entry.id;
        if is_same && later.entry != first.entry && later.is_appended() {
            tell_untrue(context, &open[later.listings[0].segment], &first.entry.id, "is not as it says");
        } else if is_same && later.entry != first.entry {
            let message = "two segments describe its header, length or number of blobs differently";
            context.damage("index-wrong", &ObjectKey::pack(&first.entry.id), message);
            first.is_suspect = true;
        }
        if is_same {
            first.listings.append(&mut later.listings);
        }
        is_same
    });
    packs
}

/// Notes that a pack is not as a segment of an appender says. That says nothing against the pack.
pub(super) fn tell_untrue(context: &Context<'_>, segment: &Segment, pack: &PackId, how: &str) {
    let message = format!("an append-only keyslot added it, and pack {pack} {how}");
    context.damage("appended-untrue", &ObjectKey::segment(&segment.id()), message);
}

/// Notes segment objects that are not part of the index.
fn find_unlisted(context: &Context<'_>, fold: &Fold) -> Result<(), BackendError> {
    let live: BTreeSet<_> = fold.segments().map(|info| info.segment).collect();
    context.list(Folder::Index, &mut |key, _| {
        if key.segment_id().is_none_or(|id| !live.contains(&id)) {
            let message = "no commit in force lists it: left by an interrupted or running backup, or foreign";
            context.note("segment-unlisted", &key, message);
        }
    })
}

impl Segments {
    /// What each of those who list a pack says of it, as far as that can be read.
    pub fn entries_of_pack(&self, pack: &KnownPack) -> Vec<PackEntry> {
        let of = |listing: &Listing| {
            let listed = self.open[listing.segment].pack_at(listing.number);
            listed.ok().filter(|entry| entry.id == pack.entry.id)
        };
        pack.listings.iter().filter_map(of).collect()
    }

    /// Entries of the given packs of segment `segment`, by the pack's number in it, as far as they can be read.
    pub fn entries_of(&self, segment: usize, is_wanted: impl Fn(u32) -> bool) -> Vec<IndexEntry> {
        let entries = self.open[segment].entries().map_while(Result::ok);
        entries.filter(|entry| is_wanted(entry.pack)).collect()
    }
}
