//! The part of the check that compares packs with segments, by their headers and directories alone.

use std::collections::{BTreeSet, HashMap};

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::check::context::{Context, name_blobs};
use crate::check::segments::{Contents, KnownPack, Listing, Segments, tell_untrue};
use crate::crypto::TAG_LEN;
use crate::format::header::{HEADER_LEN, Header};
use crate::format::pack::{self, BlockSpan, Directory, PackError, TRAILER_LEN};
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId};
use crate::log::Fold;
use crate::store::{self, ReadError, read_directory};

/// The end of a pack that is read first: it holds the directory of packs up to some megabytes, whose padding
/// is short.
const TAIL_LEN: u64 = 64 << 10;

/// Compares all packs with what segments say of them. Returns the number of packs that no segment lists.
pub(super) fn check(
    context: &Context<'_>,
    fold: &Fold,
    segments: &mut Segments,
) -> Result<u64, BackendError> {
    let orphans = find(context, fold, segments)?;
    let present: Vec<usize> =
        (0..segments.packs.len()).filter(|at| segments.packs[*at].stored.is_some()).collect();
    context.expect(present.len(), 0);
    let looked_at = context.spread(&present, Vec::new, |buffer, at, out| {
        let pack = &segments.packs[*at];
        let entry = own_entry(context, segments, pack, buffer).unwrap_or(pack.entry);
        let is_good = check_one(context, segments, pack, &entry, buffer);
        out.push((*at, entry, is_good));
        context.item_done();
    });
    for (at, entry, is_good) in looked_at {
        let pack = &mut segments.packs[at];
        (pack.entry, pack.is_suspect) = (entry, !is_good);
    }
    Ok(orphans)
}

/// What a pack says of itself, if only appenders list it and say something else.
fn own_entry(
    context: &Context<'_>,
    segments: &Segments,
    pack: &KnownPack,
    buffer: &mut Vec<u8>,
) -> Option<PackEntry> {
    let size = pack.stored.filter(|_| pack.is_appended())?;
    let (repository, id) = (context.repository, pack.entry.id);
    let read = read_directory(&**context.backend(), repository.keys(), &repository.id(), (id, size), buffer);
    let own = match read {
        Ok((entry, _)) => entry,
        // It does not say any more what it holds. One of those who list it may be right about the rest.
        Err(_) => segments
            .entries_of_pack(pack)
            .into_iter()
            .find(|entry| store::is_described_by(&**context.backend(), entry))?,
    };
    if own == pack.entry {
        return None;
    }
    tell_untrue(context, &segments.open[pack.listings[0].segment], &id, "is not as it says");
    Some(own)
}

/// Joins the list of stored packs with the packs known, both ascending. Returns the number of unknown ones.
fn find(context: &Context<'_>, fold: &Fold, segments: &mut Segments) -> Result<u64, BackendError> {
    let Segments { packs, open, .. } = segments;
    let condemned: BTreeSet<PackId> = fold.condemned().map(|(pack, _)| *pack).collect();
    let mut orphans = 0;
    context.list(Folder::Packs, &mut |key, size| {
        let Some(id) = key.pack_id() else { return };
        match packs.binary_search_by_key(&id, |pack| pack.entry.id) {
            Ok(at) => {
                packs[at].stored = Some(size);
                if packs[at].is_appended() {
                    context.unsettled(id);
                }
            }
            Err(_) => orphans += u64::from(!condemned.contains(&id)),
        }
    })?;
    for pack in packs.iter().filter(|pack| pack.stored.is_none()) {
        context.absent(&ObjectKey::pack(&pack.entry.id));
        match pack.listings.first().filter(|_| pack.is_appended()) {
            // Whoever may only add can list any number of packs that never were.
            Some(listing) => tell_untrue(context, &open[listing.segment], &pack.entry.id, "is not there"),
            None => {
                let blobs = pack.entry.blobs;
                let message = format!("it is not there; the index says that it holds {blobs} blobs");
                context.damage("pack-missing", &ObjectKey::pack(&pack.entry.id), message);
            }
        }
        context.bad().packs.insert(pack.entry.id);
    }
    Ok(orphans)
}

/// Whether the pack's length, header and directory are those that segments describe.
fn check_one(
    context: &Context<'_>,
    segments: &Segments,
    pack: &KnownPack,
    entry: &PackEntry,
    buffer: &mut Vec<u8>,
) -> bool {
    let key = ObjectKey::pack(&entry.id);
    let stored = pack.stored.unwrap_or(0);
    if stored != entry.size {
        let message = format!("it has {stored} bytes, the index says {}", entry.size);
        context.damaged_pack(&entry.id, message);
        return false;
    }
    let directory = match open_directory(context, entry, buffer) {
        Ok(directory) => directory,
        Err(error) => {
            context.damaged_pack(&entry.id, error.to_string());
            return false;
        }
    };
    let mut contents = Contents::default();
    for block in &directory.blocks {
        for blob in &block.blobs {
            contents.add(&blob.id, &block.span, blob.offset, blob.len);
        }
    }
    let mut is_good = !pack.is_suspect;
    if directory.blob_count() != entry.blobs as usize {
        let message = format!("it holds {} blobs, the index says {}", directory.blob_count(), entry.blobs);
        context.damage("index-wrong", &key, message);
        is_good = false;
    }
    for listing in &pack.listings {
        // Where entries cannot be read, the segment was reported.
        if listing.contents.is_some_and(|listed| listed != contents) {
            compare(context, segments, pack, listing, &directory);
            is_good &= listing.is_appended;
        }
    }
    is_good
}

/// Checks a pack's header and opens its directory, reading nothing else.
pub(super) fn open_directory(
    context: &Context<'_>,
    entry: &PackEntry,
    buffer: &mut Vec<u8>,
) -> Result<Directory, ReadError> {
    let (repository, backend) = (context.repository, &**context.backend());
    let key = ObjectKey::pack(&entry.id);
    let unreadable = |source| ReadError::Backend { pack: entry.id, source };
    let damaged = |source: PackError| ReadError::Pack { pack: entry.id, source };
    let tail_at = entry.size.saturating_sub(TAIL_LEN);
    let tail = read(backend, &key, tail_at, entry.size - tail_at, buffer).map_err(unreadable)?;
    let mut header = [0; HEADER_LEN];
    match tail.first_chunk() {
        Some(first) if tail_at == 0 => header = *first,
        _ => backend.read_range(&key, 0, &mut header).map_err(unreadable)?,
    }
    let header = Header::decode(&header, entry.header.kind).map_err(|error| damaged(error.into()))?;
    if header != entry.header {
        return Err(damaged(PackError::Directory("its header is not the one that the index has")));
    }
    let cipher = header.cipher(repository.keys(), &repository.id()).map_err(|error| damaged(error.into()))?;
    let mut trailer: [u8; TRAILER_LEN] =
        *tail.last_chunk().ok_or_else(|| damaged(PackError::Length(entry.size)))?;
    let (at, len) = pack::open_trailer(&cipher, entry.size, &mut trailer).map_err(damaged)?;
    let sealed_len = len + TAG_LEN;
    let sealed = match at.checked_sub(tail_at).and_then(|start| usize::try_from(start).ok()) {
        Some(start) => &mut tail[start..start + sealed_len],
        None => read(backend, &key, at, sealed_len as u64, buffer).map_err(unreadable)?,
    };
    pack::open_directory(&cipher, entry.header.kind, at, sealed).map_err(damaged)
}

/// Reads a range into the front of `buffer`, which grows as needed.
fn read<'b>(
    backend: &dyn Backend,
    key: &ObjectKey,
    start: u64,
    len: u64,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b mut [u8], BackendError> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    backend.read_range(key, start, &mut buffer[..len])?;
    Ok(&mut buffer[..len])
}

/// Names the blobs in which a segment and a pack's directory differ.
fn compare(
    context: &Context<'_>,
    segments: &Segments,
    pack: &KnownPack,
    listing: &Listing,
    directory: &Directory,
) {
    let mut held: HashMap<(BlobId, BlockSpan, u32, u32), u32> = HashMap::new();
    for block in &directory.blocks {
        for blob in &block.blobs {
            *held.entry((blob.id, block.span, blob.offset, blob.len)).or_default() += 1;
        }
    }
    let mut wrong = Vec::new();
    for entry in segments.entries_of(listing.segment, |number| number == listing.number) {
        match held.get_mut(&(entry.id, entry.block, entry.offset, entry.len)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => wrong.push(entry.id),
        }
    }
    let left: Vec<BlobId> =
        held.into_iter().filter(|(_, count)| *count > 0).map(|((id, ..), _)| id).collect();
    let key = ObjectKey::segment(&segments.open[listing.segment].id());
    let code = if listing.is_appended { "appended-untrue" } else { "index-wrong" };
    // Where others list the pack, nobody looks into an appender's list of it.
    let is_gone_by = !listing.is_appended || pack.is_appended();
    let pack = pack.entry.id;
    if !wrong.is_empty() {
        let blobs = name_blobs(wrong.iter());
        context.damage(code, &key, format!("pack {pack} does not hold what it lists: {blobs}"));
        if is_gone_by {
            context.bad().blobs.extend(wrong.into_iter().map(|id| (pack, id)));
        }
    }
    if !left.is_empty() {
        let blobs = name_blobs(left.iter());
        context.damage(code, &key, format!("it does not list all that pack {pack} holds: {blobs}"));
    }
}
