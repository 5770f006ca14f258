//! Reading blobs: range read → open → decompress → verify id.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{Backend, BackendError, ObjectKey};
use crate::crypto::keys::BlobKind;
use crate::crypto::{KeySet, ObjectCipher};
use crate::format::block::BlockCodec;
use crate::format::header::{Header, HeaderError};
use crate::format::pack::{self, BlockSpan, PackError};
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId, RepositoryId};
use crate::index::{Index, IndexError};

/// A blob cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No live segment lists it.
    #[error("{kind:?} blob {id} is not in the index: the repository is damaged")]
    Missing {
        /// The blob.
        id: BlobId,
        /// Its kind.
        kind: BlobKind,
    },
    /// The index cannot be searched.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The pack cannot be read.
    #[error("pack {pack}: {source}")]
    Backend {
        /// The pack.
        pack: PackId,
        /// Why.
        source: BackendError,
    },
    /// The pack is damaged.
    #[error("pack {pack} is damaged: {source}")]
    Pack {
        /// The pack.
        pack: PackId,
        /// How.
        source: PackError,
    },
}

impl ReadError {
    /// Whether what was to be read is lost, as far as the storage can tell: anything else may go well the next time.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Pack { .. } => true,
            Self::Index(error) => error.is_loss(),
            Self::Backend { source, .. } => source.is_loss(),
        }
    }
}

/// Decoded blocks kept for trees, whose neighbours are usually wanted next.
const CACHED_BLOCKS: usize = 8;

/// What a thread that decodes blocks keeps: contexts and buffers.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    codec: BlockCodec,
    sealed: Vec<u8>,
    /// By header: two segments may say different things of one pack.
    cipher: Option<(Header, Arc<ObjectCipher>)>,
}

impl DecodeScratch {
    /// Makes room for sealed blocks of this length.
    pub fn reserve(&mut self, sealed_len: usize) {
        self.sealed.clear();
        self.sealed.reserve_exact(sealed_len);
    }
}

/// A decoded block and where it is from.
#[derive(Debug)]
struct CachedBlock {
    pack: PackEntry,
    span: BlockSpan,
    raw: Arc<Vec<u8>>,
}

/// Tells a reader which packs hold a blob.
pub trait Catalog: std::fmt::Debug + Send + Sync {
    /// What is known so far.
    fn index(&self) -> &Index;

    /// Learns what was committed since, and says whether that went well. Where it fails, what was known stays.
    fn read_on(&self) -> bool;
}

/// An index that stays as it is.
impl Catalog for Index {
    fn index(&self) -> &Index {
        self
    }

    fn read_on(&self) -> bool {
        true
    }
}

/// Reads blobs of a repository. Shared by threads.
#[derive(Debug)]
pub struct BlobReader {
    backend: Arc<dyn Backend>,
    keys: Arc<KeySet>,
    repository: RepositoryId,
    catalog: Arc<dyn Catalog>,
    /// Packs found gone, for each of which the catalog was read on.
    gone: Mutex<HashSet<PackId>>,
    recent: Mutex<Vec<CachedBlock>>,
    scratch: Mutex<Vec<DecodeScratch>>,
}

impl BlobReader {
    /// A reader over the repository's live segments.
    pub fn new(
        backend: Arc<dyn Backend>,
        keys: Arc<KeySet>,
        repository: RepositoryId,
        catalog: Arc<dyn Catalog>,
    ) -> Self {
        Self {
            backend,
            keys,
            repository,
            catalog,
            gone: Mutex::default(),
            recent: Mutex::default(),
            scratch: Mutex::default(),
        }
    }

    /// The index it searches.
    pub fn index(&self) -> &Index {
        self.catalog.index()
    }

    /// Learns what was committed since, because a pack is gone: a prune may have moved its blobs to others. Once for
    /// each pack: one that is gone although the log still has it stays gone.
    pub fn read_on(&self, gone: PackId) {
        // Held meanwhile: who asks for the same pack goes on with what is learnt.
        let mut known = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&gone) && self.catalog.read_on() {
            known.insert(gone);
        }
    }

    /// The repository's keys.
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// The backend it reads from.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The cipher of a pack as its segment describes it.
    ///
    /// # Errors
    /// [`ReadError::Pack`] where the pack was sealed under another key.
    pub fn pack_cipher(&self, pack: &PackEntry) -> Result<ObjectCipher, ReadError> {
        pack.header
            .cipher(&self.keys, &self.repository)
            .map_err(|source| ReadError::Pack { pack: pack.id, source: HeaderError::from(source).into() })
    }

    /// Reads and decodes a block into `raw`.
    ///
    /// # Errors
    /// [`ReadError`] where the pack cannot be read or the block is not what the index says.
    pub fn read_block(
        &self,
        pack: &PackEntry,
        span: &BlockSpan,
        scratch: &mut DecodeScratch,
        raw: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let damaged = |source| ReadError::Pack { pack: pack.id, source };
        if !span.is_sane() {
            return Err(damaged(PackError::Span(*span)));
        }
        let mut sealed = std::mem::take(&mut scratch.sealed);
        sealed.resize(span.sealed_len as usize, 0);
        let read = self.backend.read_range(&ObjectKey::pack(&pack.id), u64::from(span.position), &mut sealed);
        let result = read
            .map_err(|source| ReadError::Backend { pack: pack.id, source })
            .and_then(|()| self.open_block(pack, span, &mut sealed, scratch, raw));
        scratch.sealed = sealed;
        result
    }

    /// Reads a block and opens its seal into `payload`, without decompressing it.
    ///
    /// # Errors
    /// As [`BlobReader::read_block`].
    pub fn read_payload(
        &self,
        pack: &PackEntry,
        span: &BlockSpan,
        scratch: &mut DecodeScratch,
        payload: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let damaged = |source| ReadError::Pack { pack: pack.id, source };
        if !span.is_sane() {
            return Err(damaged(PackError::Span(*span)));
        }
        payload.resize(span.sealed_len as usize, 0);
        self.backend
            .read_range(&ObjectKey::pack(&pack.id), u64::from(span.position), payload)
            .map_err(|source| ReadError::Backend { pack: pack.id, source })?;
        let cipher = self.cipher_of(pack, scratch)?;
        let len = pack::open_payload(&cipher, span, payload).map_err(damaged)?.len();
        payload.truncate(len);
        Ok(())
    }

    fn cipher_of(
        &self,
        pack: &PackEntry,
        scratch: &mut DecodeScratch,
    ) -> Result<Arc<ObjectCipher>, ReadError> {
        if let Some((header, cipher)) = &scratch.cipher
            && *header == pack.header
        {
            return Ok(Arc::clone(cipher));
        }
        let cipher = Arc::new(self.pack_cipher(pack)?);
        scratch.cipher = Some((pack.header, Arc::clone(&cipher)));
        Ok(cipher)
    }

    /// Decodes a sealed block that was read already into `raw`; `sealed` is used up.
    ///
    /// # Errors
    /// [`ReadError::Pack`] where it is not what the index says.
    pub fn open_block(
        &self,
        pack: &PackEntry,
        span: &BlockSpan,
        sealed: &mut [u8],
        scratch: &mut DecodeScratch,
        raw: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let cipher = self.cipher_of(pack, scratch)?;
        pack::open_block(&cipher, span, sealed, &mut scratch.codec, raw)
            .map_err(|source| ReadError::Pack { pack: pack.id, source })
    }

    /// The bytes of a blob in its decoded block, after checking that they are that blob.
    ///
    /// # Errors
    /// [`ReadError::Pack`] where they are not.
    pub fn verified<'a>(
        &self,
        pack: PackId,
        kind: BlobKind,
        id: &BlobId,
        raw: &'a [u8],
        offset: u32,
        len: u32,
    ) -> Result<&'a [u8], ReadError> {
        let damaged = |source| ReadError::Pack { pack, source };
        let bytes = raw
            .get(offset as usize..)
            .and_then(|rest| rest.get(..len as usize))
            .ok_or_else(|| damaged(PackError::Directory("a blob lies outside its block")))?;
        let found = self.keys.blob_id(kind, bytes);
        if found != *id {
            return Err(damaged(PackError::BlobId { expected: *id, found }));
        }
        Ok(bytes)
    }

    /// Reads one blob, trying every pack that holds it, also those that a prune has moved it to meanwhile. Meant for
    /// trees and snapshots: recently decoded blocks are kept.
    ///
    /// # Errors
    /// [`ReadError`] of the first place tried, where none gives the blob.
    pub fn read(&self, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>, ReadError> {
        match self.read_known(kind, id) {
            Err(ReadError::Backend { pack, source }) if source.is_not_found() => {
                self.read_on(pack);
                self.read_known(kind, id)
            }
            result => result,
        }
    }

    /// Reads a blob from where it is known to be.
    fn read_known(&self, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>, ReadError> {
        let mut first_error = None;
        for location in self.index().get_all(id)? {
            let block = self.block(&location.pack, &location.entry.block);
            let result = block.and_then(|raw| {
                self.verified(location.pack.id, kind, id, &raw, location.entry.offset, location.entry.len)
                    .map(<[u8]>::to_vec)
            });
            match result {
                Ok(bytes) => return Ok(bytes),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(ReadError::Missing { id: *id, kind }))
    }

    /// A decoded block, from the recent ones or from the backend.
    fn block(&self, pack: &PackEntry, span: &BlockSpan) -> Result<Arc<Vec<u8>>, ReadError> {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = recent.iter().position(|block| block.pack == *pack && block.span == *span) {
                let block = recent.remove(at);
                let raw = Arc::clone(&block.raw);
                recent.push(block);
                return Ok(raw);
            }
        }
        let mut scratch =
            self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let mut raw = Vec::new();
        let result = self.read_block(pack, span, &mut scratch, &mut raw);
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result?;
        let raw = Arc::new(raw);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= CACHED_BLOCKS {
            recent.remove(0);
        }
        recent.push(CachedBlock { pack: *pack, span: *span, raw: Arc::clone(&raw) });
        Ok(raw)
    }
}
