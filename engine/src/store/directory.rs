//! Reading a pack's directory without an index, and whether all of it is what its id says: what rebuilding an index stands on.

use crate::backend::{Backend, BackendError, ObjectKey};
use crate::crypto::{KeySet, TAG_LEN};
use crate::format::header::{HEADER_LEN, Header, HeaderError, ObjectKind};
use crate::format::pack::{self, Directory, PackError, TRAILER_LEN};
use crate::format::segment::PackEntry;
use crate::ids::{PackId, RepositoryId};
use crate::store::ReadError;

/// The end of a pack that is read first: it holds the directory of nearly all packs.
const TAIL_LEN: u64 = 64 << 10;

/// Bytes of a pack that are hashed at a time.
const PIECE_LEN: usize = 2 << 20;

/// Reads header, trailer and directory of the pack `id` of `size` bytes. `buffer` is scratch space.
///
/// # Errors
/// [`ReadError`] where the pack cannot be read or is no pack of this repository.
pub fn read_directory(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    (id, size): (PackId, u64),
    buffer: &mut Vec<u8>,
) -> Result<(PackEntry, Directory), ReadError> {
    let key = ObjectKey::pack(&id);
    let unreadable = |source: BackendError| ReadError::Backend { pack: id, source };
    let damaged = |source: PackError| ReadError::Pack { pack: id, source };
    if size < (HEADER_LEN + TRAILER_LEN) as u64 || size > pack::PACK_LEN_MAX {
        return Err(damaged(PackError::Length(size)));
    }
    let mut start = [0; HEADER_LEN];
    backend.read_range(&key, 0, &mut start).map_err(unreadable)?;
    let kind = match start[8] {
        byte if byte == ObjectKind::MetadataPack as u8 => ObjectKind::MetadataPack,
        _ => ObjectKind::DataPack,
    };
    let header = Header::decode(&start, kind).map_err(|error| damaged(error.into()))?;
    let cipher = header.cipher(keys, repository).map_err(|error| damaged(HeaderError::from(error).into()))?;
    let tail_at = size.saturating_sub(TAIL_LEN);
    let tail = read(backend, &key, tail_at..size, buffer).map_err(unreadable)?;
    let mut trailer: [u8; TRAILER_LEN] = *tail.last_chunk().expect("packs are longer than their trailer");
    // The directory lies inside the pack, then, so that this is no more memory than the pack has bytes.
    let (at, len) = pack::open_trailer(&cipher, size, &mut trailer).map_err(damaged)?;
    let sealed_len = len + TAG_LEN;
    let sealed = match at.checked_sub(tail_at).and_then(|start| usize::try_from(start).ok()) {
        Some(start) => &mut tail[start..start + sealed_len],
        None => read(backend, &key, at..at + sealed_len as u64, buffer).map_err(unreadable)?,
    };
    let directory = pack::open_directory(&cipher, kind, at, sealed).map_err(damaged)?;
    let blobs = u32::try_from(directory.blob_count()).expect("a directory counts its blobs in 32 bits");
    Ok((PackEntry { id, header, size, blobs }, directory))
}

/// Whether a pack's bytes are those of its id, and begin with the header that `entry` has. False where they are lost. `piece` is
/// scratch space.
///
/// # Errors
/// [`BackendError`] where they cannot be read now.
pub fn is_intact(
    backend: &dyn Backend,
    entry: &PackEntry,
    piece: &mut Vec<u8>,
) -> Result<bool, BackendError> {
    let key = ObjectKey::pack(&entry.id);
    let mut hasher = blake3::Hasher::new();
    piece.resize(PIECE_LEN, 0);
    let mut at = 0;
    while at < entry.size {
        let len = usize::try_from(entry.size - at).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
        match backend.read_range(&key, at, &mut piece[..len]) {
            Ok(()) => {}
            Err(source) if source.is_loss() => return Ok(false),
            Err(source) => return Err(source),
        }
        if at == 0 && piece.get(..HEADER_LEN).is_none_or(|header| header != entry.header.encode()) {
            return Ok(false);
        }
        hasher.update(&piece[..len]);
        at += len as u64;
    }
    Ok(PackId::from_bytes(hasher.finalize().into()) == entry.id)
}

/// Whether a pack has the length and begins with the header that `entry` has: of several descriptions, one that it bears out is to be
/// preferred, whatever else is wrong with it.
pub fn is_described_by(backend: &dyn Backend, entry: &PackEntry) -> bool {
    let (key, mut header) = (ObjectKey::pack(&entry.id), [0; HEADER_LEN]);
    backend.stat(&key).is_ok_and(|info| info.size == entry.size)
        && backend.read_range(&key, 0, &mut header).is_ok()
        && header == entry.header.encode()
}

/// Reads a range into the front of `buffer`, which grows as needed.
fn read<'b>(
    backend: &dyn Backend,
    key: &ObjectKey,
    range: std::ops::Range<u64>,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b mut [u8], BackendError> {
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    backend.read_range(key, range.start, &mut buffer[..len])?;
    Ok(&mut buffer[..len])
}
