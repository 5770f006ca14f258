//! Synthetic blobs: ids and places that are as good as real ones for an index. There is no content behind them.

use std::ops::Range;

use strongroom::crypto::keys::BlobKind;
use strongroom::format::commit::Change;
use strongroom::format::header::{HEADER_LEN, ObjectKind};
use strongroom::format::pack::{self, BlockSpan, Directory, DirectoryBlob, DirectoryBlock};
use strongroom::format::segment::PackEntry;
use strongroom::ids::{BlobId, PackId};
use strongroom::repo::Repository;

/// Blocks of a pack, blobs of a block: 1 MiB of 40 KiB chunks, compressed to two thirds.
const PACK_BLOCKS: u64 = 48;
const BLOCK_BLOBS: u64 = 26;
/// Length of a blob.
pub const BLOB_LEN: u32 = 40 << 10;
const SEALED_LEN: u32 = 680 << 10;

/// Blobs of a pack.
pub const PACK_BLOBS: u64 = PACK_BLOCKS * BLOCK_BLOBS;

/// Two rounds of a well-known mixing function: as good as random for what this is for.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    x
}

fn bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (word, at) in (seed..).zip(0..4) {
        bytes[at * 8..at * 8 + 8].copy_from_slice(&mix(word).to_le_bytes());
    }
    bytes
}

/// The id of synthetic blob `number`.
pub fn blob(number: u64) -> BlobId {
    BlobId::from_bytes(bytes(4 * number))
}

/// The id of the pack whose first blob is this one.
pub fn pack_id(first: u64) -> PackId {
    PackId::from_bytes(bytes(mix(first) | 1))
}

/// The directory of a pack of these blobs, and where its blocks end.
pub fn directory(blobs: Range<u64>) -> (Directory, u32) {
    let mut directory = Directory::default();
    let mut position = HEADER_LEN as u32;
    let numbers: Vec<u64> = blobs.collect();
    for numbers in numbers.chunks(BLOCK_BLOBS as usize) {
        let raw_len = numbers.len() as u32 * BLOB_LEN;
        let span = BlockSpan { position, sealed_len: SEALED_LEN.min(raw_len), raw_len };
        let blobs = (0..).zip(numbers).map(|(at, number)| DirectoryBlob {
            id: blob(*number),
            kind: BlobKind::Data,
            offset: at * BLOB_LEN,
            len: BLOB_LEN,
        });
        directory.blocks.push(DirectoryBlock { span, blobs: blobs.collect() });
        position += span.sealed_len;
    }
    (directory, position)
}

/// Commits a segment that lists these blobs in packs that do not exist.
pub fn list(repository: &Repository, blobs: Range<u64>) {
    let (mut packs, mut next) = (Vec::new(), blobs.start);
    while next < blobs.end {
        let end = blobs.end.min(next + PACK_BLOBS);
        let (header, _) = pack::start(ObjectKind::DataPack, &repository.sealer());
        let (directory, size) = directory(next..end);
        let entry = PackEntry { id: pack_id(next), header, size: size.into(), blobs: (end - next) as u32 };
        packs.push((entry, directory));
        next = end;
    }
    let segment = repository.store_segment(&packs).expect("a segment");
    let added = vec![segment.info];
    repository
        .commit(&mut |_| Ok(vec![Change::SegmentsReplaced { added: added.clone(), removed: Vec::new() }]))
        .expect("a commit");
}
