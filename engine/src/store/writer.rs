//! Writing blobs: each worker fills solid blocks, compresses and seals them.
//!
//! A worker owns a [`BlobWriter`] with its open block. A full block is compressed into a pooled buffer, gets a place in
//! the open pack, is sealed for that place where it lies, decoded and compared, and sent on its way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::crypto::TAG_LEN;
use crate::crypto::keys::BlobKind;
use crate::format::block::{BLOB_LEN_MAX, BlockCodec};
use crate::format::pack::{self, BlockSpan, DirectoryBlob};
use crate::ids::BlobId;
use crate::store::packs::{Place, Shared, StoreError};

/// Blobs in a block, at most: each takes memory here and in the directory of the pack, however short it is.
const BLOCK_BLOBS_MAX: usize = 16 << 10;

/// One worker's way into a [`super::PackStore`].
pub struct BlobWriter {
    shared: Arc<Shared>,
    codec: BlockCodec,
    raw: Vec<u8>,
    blobs: Vec<DirectoryBlob>,
    check: Vec<u8>,
    check_raw: Vec<u8>,
    compress: bool,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobWriter({} bytes open)", self.raw.len())
    }
}

impl BlobWriter {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            codec: BlockCodec::new(),
            raw: Vec::new(),
            blobs: Vec::new(),
            check: Vec::new(),
            check_raw: Vec::new(),
            compress: true,
        }
    }

    /// Stores a blob that nobody else stores; the caller has claimed it. `compress` says whether trying to
    /// compress is worth while: blobs of both sorts do not share a block.
    ///
    /// # Errors
    /// [`StoreError`], also one of an earlier pack.
    pub fn put(
        &mut self,
        kind: BlobKind,
        id: BlobId,
        bytes: &[u8],
        compress: bool,
    ) -> Result<(), StoreError> {
        if bytes.len() > BLOB_LEN_MAX {
            return Err(StoreError::TooLong(bytes.len()));
        }
        let block_len = self.shared.block_len(compress);
        let is_full = self.raw.len() + bytes.len() > block_len || self.blobs.len() >= BLOCK_BLOBS_MAX;
        if is_full || compress != self.compress {
            self.flush()?;
        }
        self.compress = compress;
        let len = u32::try_from(bytes.len()).expect("checked against 16 MiB");
        let offset = u32::try_from(self.raw.len()).expect("blocks are at most 16 MiB");
        if self.raw.is_empty() && bytes.len() >= block_len {
            // A block of its own, without a copy.
            return self.store_block(bytes, vec![DirectoryBlob { id, kind, offset: 0, len }]);
        }
        self.raw.extend_from_slice(bytes);
        self.blobs.push(DirectoryBlob { id, kind, offset, len });
        Ok(())
    }

    /// Stores a block as another pack holds it: `payload` is what its seal hid, and is used up. The caller answers
    /// for `blobs` filling the block. The open block stays open.
    ///
    /// # Errors
    /// [`StoreError`], also one of an earlier pack.
    pub fn put_block(
        &mut self,
        payload: &mut Vec<u8>,
        raw_len: u32,
        blobs: Vec<DirectoryBlob>,
    ) -> Result<(), StoreError> {
        self.shared.check_failure()?;
        let mut own = self.shared.buffer();
        std::mem::swap(&mut own, payload);
        let place = self.place(own.len(), raw_len, blobs);
        pack::seal_block(&place.cipher, place.position, raw_len, &mut own);
        self.shared.send(place, own);
        Ok(())
    }

    /// Whether no blob is in the open block.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Closes the open block.
    ///
    /// # Errors
    /// [`StoreError`], also one of an earlier pack.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if self.blobs.is_empty() {
            return self.shared.check_failure();
        }
        let raw = std::mem::take(&mut self.raw);
        let blobs = std::mem::take(&mut self.blobs);
        self.blobs.reserve(blobs.len());
        let result = self.store_block(&raw, blobs);
        self.raw = raw;
        self.raw.clear();
        result
    }

    fn store_block(&mut self, raw: &[u8], blobs: Vec<DirectoryBlob>) -> Result<(), StoreError> {
        self.shared.check_failure()?;
        let mut payload = self.shared.buffer();
        if self.compress {
            self.codec.compress(raw, self.shared.options.level, &mut payload);
        } else {
            payload.extend_from_slice(raw);
        }
        let raw_len = u32::try_from(raw.len()).expect("blocks are at most 16 MiB");
        let place = self.place(payload.len(), raw_len, blobs);
        pack::seal_block(&place.cipher, place.position, raw_len, &mut payload);
        let intact = !self.shared.options.verify || self.reads_back(&place, raw_len, &payload, raw);
        if !intact {
            // Noted before the block is sent: its pack is never published.
            self.shared.fail(StoreError::Verification);
        }
        self.shared.send(place, payload);
        if intact { Ok(()) } else { Err(StoreError::Verification) }
    }

    /// A place for a block with a payload of so many bytes, which is counted.
    fn place(&self, payload_len: usize, raw_len: u32, blobs: Vec<DirectoryBlob>) -> Place {
        let (counters, sealed_len) = (&self.shared.counters, payload_len + TAG_LEN);
        counters.raw_bytes.fetch_add(u64::from(raw_len), Ordering::Relaxed);
        counters.blobs.fetch_add(blobs.len() as u64, Ordering::Relaxed);
        counters.sealed_bytes.fetch_add(sealed_len as u64, Ordering::Relaxed);
        self.shared.reserve(sealed_len, raw_len, blobs)
    }

    /// Whether the sealed payload opens and decompresses to `raw`.
    fn reads_back(&mut self, place: &Place, raw_len: u32, sealed: &[u8], raw: &[u8]) -> bool {
        self.check.clear();
        self.check.extend_from_slice(sealed);
        let sealed_len = u32::try_from(sealed.len()).expect("blocks are at most 16 MiB");
        let span = BlockSpan { position: place.position, sealed_len, raw_len };
        pack::open_block(&place.cipher, &span, &mut self.check, &mut self.codec, &mut self.check_raw).is_ok()
            && self.check_raw == raw
    }
}
