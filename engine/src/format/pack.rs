//! Packs: immutable objects of sealed blocks, readable without any index.
//!
//! `header ‖ block … ‖ directory ‖ padding ‖ trailer`. Every block and the directory is one sealed message;
//! the trailer, 32 sealed bytes at the very end, says where the directory is. See `format-spec`, Packs.

use crate::crypto::keys::BlobKind;
use crate::crypto::{KeySet, MessageContext, ObjectCipher, SealError, TAG_LEN};
use crate::format::block::{BLOB_LEN_MAX, BLOCK_LEN_MAX, BlockCodec, CodecError};
use crate::format::header::{HEADER_LEN, Header, HeaderError, ObjectKind, Sealer};
use crate::format::padme::padme;
use crate::ids::{BlobId, PackId, RepositoryId};

/// Longest pack that is read: 256 MiB. Writers aim far lower.
pub const PACK_LEN_MAX: u64 = 256 << 20;
/// Longest plaintext of a directory: 32 MiB, some 800,000 blobs.
pub const DIRECTORY_LEN_MAX: u64 = 32 << 20;

/// Length of the trailer: 16 bytes and a tag.
pub const TRAILER_LEN: usize = 16 + TAG_LEN;

const BLOCK_ENTRY_LEN: usize = 16;
/// Length of what a directory has of a blob.
pub const BLOB_ENTRY_LEN: usize = 40;

/// Where a block lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSpan {
    /// Offset of the sealed block in the pack.
    pub position: u32,
    /// Length of the sealed block, tag included.
    pub sealed_len: u32,
    /// Length of the block's plaintext.
    pub raw_len: u32,
}

impl BlockSpan {
    fn context(&self) -> MessageContext {
        MessageContext { position: u64::from(self.position), raw_len: u64::from(self.raw_len) }
    }

    /// Offset just behind the sealed block.
    pub fn end(&self) -> u64 {
        u64::from(self.position) + u64::from(self.sealed_len)
    }

    /// Whether the lengths are possible at all.
    pub fn is_sane(&self) -> bool {
        self.position as usize >= HEADER_LEN
            && self.raw_len as usize <= BLOCK_LEN_MAX
            && (TAG_LEN..=self.raw_len as usize + TAG_LEN).contains(&(self.sealed_len as usize))
            && self.end() <= PACK_LEN_MAX
    }
}

/// One blob of a pack's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryBlob {
    /// The blob.
    pub id: BlobId,
    /// Which blob it is: data packs hold data, metadata packs the other kinds.
    pub kind: BlobKind,
    /// Offset of the blob in its block's plaintext.
    pub offset: u32,
    /// Length of the blob.
    pub len: u32,
}

/// A block and the blobs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryBlock {
    /// Where it lies.
    pub span: BlockSpan,
    /// The blobs, which fill it from the first byte to the last.
    pub blobs: Vec<DirectoryBlob>,
}

/// What a pack holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// Blocks in the order of their positions.
    pub blocks: Vec<DirectoryBlock>,
}

/// A pack or a part of one cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The header was refused.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A part does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A block does not decompress.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The pack is shorter or longer than packs are.
    #[error("the pack has {0} bytes: packs have {min} to {max}", min = HEADER_LEN + TRAILER_LEN, max = PACK_LEN_MAX)]
    Length(u64),
    /// The directory contradicts itself or the pack.
    #[error("the pack's directory is wrong: {0}")]
    Directory(&'static str),
    /// A block's place or lengths are impossible.
    #[error("a block at {0:?} is impossible")]
    Span(BlockSpan),
    /// The pack is not what its id says.
    #[error("its bytes are not those of its id")]
    Bytes,
    /// A blob is not what its id says.
    #[error("blob {expected} reads as {found}")]
    BlobId {
        /// The id in the directory or index.
        expected: BlobId,
        /// The id of the bytes found.
        found: BlobId,
    },
}

impl Directory {
    /// Number of blobs in all blocks.
    pub fn blob_count(&self) -> usize {
        self.blocks.iter().map(|block| block.blobs.len()).sum()
    }

    /// The directory's plaintext: `le32 blocks ‖ le32 blobs ‖ block entries ‖ blob entries`.
    pub fn encode(&self) -> Vec<u8> {
        let len32 = |len: usize| u32::try_from(len).expect("a pack has fewer than 2^32 parts").to_le_bytes();
        let mut bytes =
            Vec::with_capacity(8 + self.blocks.len() * BLOCK_ENTRY_LEN + self.blob_count() * BLOB_ENTRY_LEN);
        bytes.extend_from_slice(&len32(self.blocks.len()));
        bytes.extend_from_slice(&len32(self.blob_count()));
        for block in &self.blocks {
            bytes.extend_from_slice(&block.span.position.to_le_bytes());
            bytes.extend_from_slice(&block.span.sealed_len.to_le_bytes());
            bytes.extend_from_slice(&block.span.raw_len.to_le_bytes());
            bytes.extend_from_slice(&len32(block.blobs.len()));
        }
        for blob in self.blocks.iter().flat_map(|block| &block.blobs) {
            bytes.extend_from_slice(blob.id.as_bytes());
            bytes.extend_from_slice(&blob.len.to_le_bytes());
            bytes.extend_from_slice(&[blob.kind as u8, 0, 0, 0]);
        }
        bytes
    }

    /// Reads a directory of a pack of `kind` whose blocks end at `blocks_end`.
    ///
    /// # Errors
    /// [`PackError::Directory`] or [`PackError::Span`]: blocks have to follow each other without gap from the
    /// header to the directory, and blobs have to fill their blocks.
    pub fn decode(bytes: &[u8], kind: ObjectKind, blocks_end: u64) -> Result<Self, PackError> {
        let (counts, rest) = bytes.split_first_chunk::<8>().ok_or(PackError::Directory("no counts"))?;
        let (block_count, blob_count) = (le32(counts, 0) as usize, le32(counts, 4) as usize);
        let blocks_len =
            block_count.checked_mul(BLOCK_ENTRY_LEN).ok_or(PackError::Directory("block count"))?;
        let blobs_len = blob_count.checked_mul(BLOB_ENTRY_LEN).ok_or(PackError::Directory("blob count"))?;
        if blocks_len.checked_add(blobs_len) != Some(rest.len()) {
            return Err(PackError::Directory("counts do not match its length"));
        }
        let (block_bytes, blob_bytes) = rest.split_at(blocks_len);
        let mut blob_entries = blob_bytes.chunks_exact(BLOB_ENTRY_LEN);
        let mut next_position = HEADER_LEN as u64;
        let mut blocks = Vec::with_capacity(block_count);
        for entry in block_bytes.chunks_exact(BLOCK_ENTRY_LEN) {
            let span =
                BlockSpan { position: le32(entry, 0), sealed_len: le32(entry, 4), raw_len: le32(entry, 8) };
            if !span.is_sane() || u64::from(span.position) != next_position {
                return Err(PackError::Span(span));
            }
            next_position = span.end();
            let count = le32(entry, 12) as usize;
            if count == 0 || count > blob_entries.len() {
                return Err(PackError::Directory("a block's blob count"));
            }
            blocks.push(decode_block(span, blob_entries.by_ref().take(count), kind)?);
        }
        if blob_entries.len() != 0 {
            return Err(PackError::Directory("blobs that no block holds"));
        }
        if next_position != blocks_end {
            return Err(PackError::Directory("blocks do not reach the directory"));
        }
        Ok(Self { blocks })
    }
}

fn decode_block<'a>(
    span: BlockSpan,
    entries: impl Iterator<Item = &'a [u8]>,
    pack_kind: ObjectKind,
) -> Result<DirectoryBlock, PackError> {
    let mut offset = 0u32;
    let mut blobs = Vec::with_capacity(entries.size_hint().0);
    for entry in entries {
        let mut id = [0; 32];
        id.copy_from_slice(&entry[..32]);
        let kind = match (pack_kind, entry[36], &entry[37..]) {
            (ObjectKind::DataPack, 0, [0, 0, 0]) => BlobKind::Data,
            (ObjectKind::MetadataPack, 1, [0, 0, 0]) => BlobKind::Tree,
            (ObjectKind::MetadataPack, 2, [0, 0, 0]) => BlobKind::Snapshot,
            _ => return Err(PackError::Directory("a blob kind that does not belong in such a pack")),
        };
        let len = le32(entry, 32);
        blobs.push(DirectoryBlob { id: BlobId::from_bytes(id), kind, offset, len });
        offset = offset.checked_add(len).ok_or(PackError::Directory("blob lengths"))?;
    }
    if offset != span.raw_len || blobs.iter().any(|blob| blob.len as usize > BLOB_LEN_MAX) {
        return Err(PackError::Directory("blobs do not fill their block"));
    }
    Ok(DirectoryBlock { span, blobs })
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Seals a block payload in place for its position; appends the tag.
pub fn seal_block(cipher: &ObjectCipher, position: u32, raw_len: u32, payload: &mut Vec<u8>) {
    let context = MessageContext { position: u64::from(position), raw_len: u64::from(raw_len) };
    cipher.seal(context, payload);
}

/// Opens a sealed block in place and decompresses it into `raw`.
///
/// # Errors
/// [`PackError`] where the span is impossible or the bytes are not that block.
pub fn open_block(
    cipher: &ObjectCipher,
    span: &BlockSpan,
    sealed: &mut [u8],
    codec: &mut BlockCodec,
    raw: &mut Vec<u8>,
) -> Result<(), PackError> {
    if !span.is_sane() || sealed.len() != span.sealed_len as usize {
        return Err(PackError::Span(*span));
    }
    let payload = cipher.open(span.context(), sealed)?;
    codec.decompress(payload, span.raw_len as usize, raw)?;
    Ok(())
}

/// Opens a sealed block in place, without decompressing it: what another pack can take over as it is.
///
/// # Errors
/// [`PackError`] where the span is impossible or the bytes are not that block.
pub fn open_payload<'s>(
    cipher: &ObjectCipher,
    span: &BlockSpan,
    sealed: &'s mut [u8],
) -> Result<&'s [u8], PackError> {
    if !span.is_sane() || sealed.len() != span.sealed_len as usize {
        return Err(PackError::Span(*span));
    }
    Ok(cipher.open(span.context(), sealed)?)
}

/// Bytes that [`closing`] has, before padding, to a pack of so many blocks and blobs.
pub const fn closing_len(blocks: usize, blobs: usize) -> usize {
    8 + blocks * BLOCK_ENTRY_LEN + blobs * BLOB_ENTRY_LEN + TAG_LEN + TRAILER_LEN
}

/// What ends a pack whose header and blocks have `blocks_end` bytes: the sealed directory, padding and the trailer.
pub fn closing(blocks_end: u64, directory: &Directory, cipher: &ObjectCipher) -> Vec<u8> {
    let mut bytes = directory.encode();
    let directory_len = bytes.len() as u64;
    cipher.seal(MessageContext { position: blocks_end, raw_len: directory_len }, &mut bytes);
    let unpadded = blocks_end + (bytes.len() + TRAILER_LEN) as u64;
    let padding = usize::try_from(padme(unpadded) - unpadded).expect("padding is a small part of a pack");
    let padding_at = bytes.len();
    bytes.resize(padding_at + padding, 0);
    cipher.fill_padding(&mut bytes[padding_at..]);
    let mut trailer = blocks_end.to_le_bytes().to_vec();
    trailer.extend_from_slice(&directory_len.to_le_bytes());
    let position = blocks_end + bytes.len() as u64;
    cipher.seal(MessageContext { position, raw_len: trailer.len() as u64 }, &mut trailer);
    bytes.extend_from_slice(&trailer);
    bytes
}

/// Id of a pack: BLAKE3 of all its bytes.
pub fn id(pack: &[u8]) -> PackId {
    PackId::from_bytes(blake3::hash(pack).into())
}

/// Starts a pack: its header bytes and cipher.
pub fn start(kind: ObjectKind, sealer: &Sealer<'_>) -> (Header, ObjectCipher) {
    Header::create(kind, sealer)
}

/// Where the directory lies, as the trailer says: position and plaintext length.
///
/// # Errors
/// [`PackError`] where the trailer does not open, points outside the pack, or to more than a directory is.
pub fn open_trailer(
    cipher: &ObjectCipher,
    pack_len: u64,
    trailer: &mut [u8; TRAILER_LEN],
) -> Result<(u64, usize), PackError> {
    let position = check_len(pack_len)? - TRAILER_LEN as u64;
    let plain = cipher.open(MessageContext { position, raw_len: 16 }, trailer)?;
    let number = |at: usize| u64::from(le32(plain, at)) | u64::from(le32(plain, at + 4)) << 32;
    let (directory_at, directory_len) = (number(0), number(8));
    let end = directory_len.checked_add(TAG_LEN as u64).and_then(|len| len.checked_add(directory_at));
    if directory_at < HEADER_LEN as u64 || end.is_none_or(|end| end > position) {
        return Err(PackError::Directory("the trailer points outside the pack"));
    }
    if directory_len > DIRECTORY_LEN_MAX {
        return Err(PackError::Directory("it is longer than directories are"));
    }
    Ok((directory_at, usize::try_from(directory_len).map_err(|_| PackError::Length(pack_len))?))
}

fn check_len(len: u64) -> Result<u64, PackError> {
    let shortest = (HEADER_LEN + TRAILER_LEN) as u64;
    if (shortest..=PACK_LEN_MAX).contains(&len) { Ok(len) } else { Err(PackError::Length(len)) }
}

/// Opens the sealed directory found at `position`.
///
/// # Errors
/// [`PackError`] where it does not open or contradicts itself.
pub fn open_directory(
    cipher: &ObjectCipher,
    kind: ObjectKind,
    position: u64,
    sealed: &mut [u8],
) -> Result<Directory, PackError> {
    let raw_len = sealed.len().checked_sub(TAG_LEN).ok_or(SealError::Authentication)? as u64;
    let plain = cipher.open(MessageContext { position, raw_len }, sealed)?;
    Directory::decode(plain, kind, position)
}

/// Opens a whole pack that lies in memory: its header, cipher and directory.
///
/// # Errors
/// [`PackError`] where any of them is refused.
pub fn open(
    pack: &[u8],
    kind: ObjectKind,
    keys: &KeySet,
    repository: &RepositoryId,
) -> Result<(ObjectCipher, Directory), PackError> {
    let header = Header::decode(pack, kind)?;
    let cipher = header.cipher(keys, repository)?;
    let pack_len = check_len(pack.len() as u64)?;
    let mut trailer = *pack.last_chunk::<TRAILER_LEN>().ok_or(PackError::Length(pack_len))?;
    let (position, len) = open_trailer(&cipher, pack_len, &mut trailer)?;
    let start = usize::try_from(position).map_err(|_| PackError::Length(pack_len))?;
    let mut sealed = pack[start..start + len + TAG_LEN].to_vec();
    let directory = open_directory(&cipher, kind, position, &mut sealed)?;
    Ok((cipher, directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{RootSecret, SeededEntropy};

    /// Whoever reads a directory needs as much memory as the trailer says.
    #[test]
    fn a_trailer_points_to_no_more_than_a_directory() {
        let (pack, _, keys, repository) = sample();
        let header = Header::decode(pack.first_chunk::<HEADER_LEN>().unwrap(), ObjectKind::DataPack).unwrap();
        let cipher = header.cipher(&keys, &repository).unwrap();
        let opened = |directory_len: u64| {
            let mut trailer = [(HEADER_LEN as u64).to_le_bytes(), directory_len.to_le_bytes()].concat();
            let position = PACK_LEN_MAX - TRAILER_LEN as u64;
            cipher.seal(MessageContext { position, raw_len: 16 }, &mut trailer);
            open_trailer(&cipher, PACK_LEN_MAX, trailer.first_chunk_mut().unwrap())
        };
        assert_eq!(opened(DIRECTORY_LEN_MAX), Ok((HEADER_LEN as u64, DIRECTORY_LEN_MAX as usize)));
        assert_eq!(
            opened(DIRECTORY_LEN_MAX + 1),
            Err(PackError::Directory("it is longer than directories are"))
        );
    }

    fn sample() -> (Vec<u8>, Directory, KeySet, RepositoryId) {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let repository = RepositoryId::from_bytes([9; 16]);
        let entropy = SeededEntropy::new(1);
        let (header, cipher) =
            start(ObjectKind::DataPack, &Sealer { keys: &keys, repository: &repository, entropy: &entropy });
        let mut pack = header.encode().to_vec();
        let mut directory = Directory::default();
        let mut codec = BlockCodec::new();
        for texts in [vec!["alpha ".repeat(50), "beta ".repeat(9)], vec!["gamma".into()], vec![String::new()]]
        {
            let raw = texts.concat();
            let mut payload = Vec::new();
            codec.compress(raw.as_bytes(), 3, &mut payload);
            let position = pack.len() as u32;
            seal_block(&cipher, position, raw.len() as u32, &mut payload);
            let mut offset = 0;
            let blobs = texts
                .iter()
                .map(|text| {
                    let len = text.len() as u32;
                    offset += len;
                    let id = keys.blob_id(BlobKind::Data, text.as_bytes());
                    DirectoryBlob { id, kind: BlobKind::Data, offset: offset - len, len }
                })
                .collect();
            let span = BlockSpan { position, sealed_len: payload.len() as u32, raw_len: raw.len() as u32 };
            directory.blocks.push(DirectoryBlock { span, blobs });
            pack.extend_from_slice(&payload);
        }
        let unpadded = pack.len() + closing_len(directory.blocks.len(), directory.blob_count());
        pack.extend_from_slice(&closing(pack.len() as u64, &directory, &cipher));
        assert_eq!(pack.len() as u64, padme(unpadded as u64));
        (pack, directory, keys, repository)
    }

    /// Everything a full check does with a pack.
    fn read_all(pack: &[u8], keys: &KeySet, repository: &RepositoryId) -> Result<usize, PackError> {
        let (cipher, directory) = open(pack, ObjectKind::DataPack, keys, repository)?;
        let (mut codec, mut raw) = (BlockCodec::new(), Vec::new());
        for block in &directory.blocks {
            let range = block.span.position as usize..block.span.end() as usize;
            open_block(&cipher, &block.span, &mut pack[range].to_vec(), &mut codec, &mut raw)?;
            for blob in &block.blobs {
                let bytes = &raw[blob.offset as usize..(blob.offset + blob.len) as usize];
                let found = keys.blob_id(blob.kind, bytes);
                if found != blob.id {
                    return Err(PackError::BlobId { expected: blob.id, found });
                }
            }
        }
        Ok(directory.blob_count())
    }

    #[test]
    fn a_pack_is_read_without_an_index() {
        let (pack, directory, keys, repository) = sample();
        assert_eq!(pack.len() as u64, padme(pack.len() as u64));
        let (_, found) = open(&pack, ObjectKind::DataPack, &keys, &repository).expect("just made");
        assert_eq!(found, directory);
        assert_eq!(read_all(&pack, &keys, &repository), Ok(4));
    }

    #[test]
    fn every_altered_bit_outside_the_padding_is_noticed_and_all_change_the_id() {
        let (pack, directory, keys, repository) = sample();
        let padding_from =
            directory.blocks.last().expect("blocks").span.end() as usize + directory.encode().len() + TAG_LEN;
        for bit in 0..pack.len() * 8 {
            let mut altered = pack.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(id(&altered), id(&pack));
            let in_padding = (padding_from..pack.len() - TRAILER_LEN).contains(&(bit / 8));
            assert_eq!(read_all(&altered, &keys, &repository).is_ok(), in_padding, "bit {bit}");
        }
        for len in 0..pack.len() {
            assert!(open(&pack[..len], ObjectKind::DataPack, &keys, &repository).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn directories_that_lie_are_refused() {
        let (_, directory, ..) = sample();
        let end = directory.blocks.last().expect("blocks").span.end();
        let good = directory.encode();
        assert_eq!(Directory::decode(&good, ObjectKind::DataPack, end), Ok(directory));
        assert!(Directory::decode(&good, ObjectKind::MetadataPack, end).is_err(), "data in a metadata pack");
        assert!(
            Directory::decode(&good, ObjectKind::DataPack, end + 1).is_err(),
            "a gap before the directory"
        );
        for at in 0..8 + 3 * BLOCK_ENTRY_LEN {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(Directory::decode(&bad, ObjectKind::DataPack, end).is_err(), "byte {at}");
        }
    }
}
