//! Writing blobs: solid blocks are filled, compressed and sealed by each worker, collected in shared packs and
//! uploaded in the background.
//!
//! A worker owns a [`BlobWriter`] with its open block. For a full block it reserves a place in the open pack
//! (a lock for a few instructions), seals outside the lock for that place, decodes and compares what it sealed,
//! and copies it in. The last copy into a closed pack sends it to the upload thread. Pack buffers are pooled:
//! when all are in flight, workers wait, so memory is bounded by construction.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::backend::{Backend, BackendError, Created, ObjectKey};
use crate::crypto::keys::BlobKind;
use crate::crypto::{Entropy, KeySet, ObjectCipher, TAG_LEN};
use crate::format::block::{BLOB_LEN_MAX, BLOCK_LEN_TARGET, BlockCodec};
use crate::format::header::{HEADER_LEN, Header, ObjectKind, Sealer};
use crate::format::pack::{self, BlockSpan, Directory, DirectoryBlob, DirectoryBlock};
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, RepositoryId};

/// A blob cannot be stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The backend failed. The first failure ends all later writes of this store.
    #[error("cannot store a pack: {0}")]
    Backend(Arc<BackendError>),
    /// Longer than a blob can be.
    #[error("a blob of {0} bytes cannot be stored: blobs have at most {BLOB_LEN_MAX}")]
    TooLong(usize),
    /// What was sealed does not read back as what was to be stored.
    #[error("a block did not decode to what was compressed: this machine's memory or processor is at fault")]
    Verification,
}

/// How packs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// zstd level of blocks.
    pub level: i32,
    /// Whether each block is decoded and compared before it is written.
    pub verify: bool,
    /// Longest pack, unless a single block is longer.
    pub pack_len_target: usize,
    /// Pack buffers in all: how many packs are filled or uploaded at one time.
    pub buffers: usize,
    /// Do everything but write: packs are counted and dropped.
    pub dry_run: bool,
}

/// Counters of a store.
#[derive(Debug, Default)]
pub struct StoreCounters {
    /// Bytes of blobs, before compression.
    pub raw_bytes: AtomicU64,
    /// Bytes of sealed blocks.
    pub sealed_bytes: AtomicU64,
    /// Bytes of finished packs.
    pub stored_bytes: AtomicU64,
    /// Blobs.
    pub blobs: AtomicU64,
}

/// Packs of one kind in the making. Dropped without [`PackStore::finish`], what is not uploaded is lost.
pub struct PackStore {
    shared: Arc<Shared>,
    uploader: Option<JoinHandle<()>>,
}

struct Shared {
    kind: ObjectKind,
    options: StoreOptions,
    keys: Arc<KeySet>,
    repository: RepositoryId,
    entropy: Arc<dyn Entropy>,
    open: Mutex<Option<Arc<PackInProgress>>>,
    free: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    uploads: Mutex<Option<Sender<Upload>>>,
    finished: Mutex<Vec<(PackEntry, Directory)>>,
    failure: Mutex<Option<StoreError>>,
    counters: StoreCounters,
}

struct PackInProgress {
    header: Header,
    cipher: ObjectCipher,
    parts: Mutex<PackParts>,
}

#[derive(Default)]
struct PackParts {
    bytes: Vec<u8>,
    directory: Directory,
    /// Blobs in the directory.
    blobs: usize,
    copying: usize,
    closed: bool,
}

enum Upload {
    Pack(Arc<PackInProgress>),
    /// Answered when everything before it is done.
    Barrier(Sender<()>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panicked ends the operation anyway: nothing here is published without a commit.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for PackStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackStore({:?})", self.shared.kind)
    }
}

impl PackStore {
    /// A store for packs of `kind`, with its upload thread.
    pub fn new(
        kind: ObjectKind,
        options: StoreOptions,
        backend: Arc<dyn Backend>,
        keys: Arc<KeySet>,
        repository: RepositoryId,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let free = bounded(options.buffers.max(1));
        for _ in 0..options.buffers.max(1) {
            free.0.send(Vec::new()).expect("the channel has room for all buffers");
        }
        let (sender, receiver) = unbounded();
        let shared = Arc::new(Shared {
            kind,
            options,
            keys,
            repository,
            entropy,
            open: Mutex::default(),
            free,
            uploads: Mutex::new(Some(sender)),
            finished: Mutex::default(),
            failure: Mutex::default(),
            counters: StoreCounters::default(),
        });
        let for_thread = Arc::clone(&shared);
        let uploader = std::thread::Builder::new()
            .name("upload".into())
            .spawn(move || for_thread.upload_all(&receiver, &*backend))
            .expect("a thread can be started");
        Self { shared, uploader: Some(uploader) }
    }

    /// A writer for one worker thread.
    pub fn writer(&self) -> BlobWriter {
        BlobWriter {
            shared: Arc::clone(&self.shared),
            codec: BlockCodec::new(),
            raw: Vec::new(),
            blobs: Vec::new(),
            payload: Vec::new(),
            check: Vec::new(),
            check_raw: Vec::new(),
            compress: true,
        }
    }

    /// Counters so far.
    pub fn counters(&self) -> &StoreCounters {
        &self.shared.counters
    }

    /// Closes the open pack, waits until all packs are stored, and hands over what they hold. Blobs in
    /// writers' open blocks are not part of it: flush those first.
    ///
    /// # Errors
    /// The first failure of this store.
    pub fn finish(&self) -> Result<Vec<(PackEntry, Directory)>, StoreError> {
        self.shared.close_open_pack();
        let (done, wait) = bounded(1);
        if let Some(uploads) = &*lock(&self.shared.uploads) {
            // The uploader lives as long as this sender.
            let _ = uploads.send(Upload::Barrier(done));
        }
        let _ = wait.recv();
        self.shared.check_failure()?;
        Ok(std::mem::take(&mut lock(&self.shared.finished)))
    }
}

impl Drop for PackStore {
    fn drop(&mut self) {
        lock(&self.shared.uploads).take();
        if let Some(uploader) = self.uploader.take() {
            // Its panic, if any, was reported when it happened.
            let _ = uploader.join();
        }
    }
}

/// A place in a pack, to be filled by the one who reserved it.
struct Reservation {
    pack: Arc<PackInProgress>,
    position: u32,
}

impl Shared {
    fn check_failure(&self) -> Result<(), StoreError> {
        lock(&self.failure).as_ref().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn fail(&self, error: StoreError) {
        lock(&self.failure).get_or_insert(error);
    }

    fn new_pack(&self) -> Arc<PackInProgress> {
        // Blocks until the uploader has given a buffer back.
        let mut bytes = self.free.1.recv().expect("the sender is held beside the receiver");
        bytes.clear();
        let sealer = Sealer { keys: &self.keys, repository: &self.repository, entropy: &*self.entropy };
        let (header, cipher) = pack::start(self.kind, &sealer);
        bytes.extend_from_slice(&header.encode());
        let parts = Mutex::new(PackParts { bytes, ..PackParts::default() });
        Arc::new(PackInProgress { header, cipher, parts })
    }

    /// Reserves room for a sealed block in the open pack, opening a new one if it is full.
    fn reserve(&self, sealed_len: usize, raw_len: u32, blobs: Vec<DirectoryBlob>) -> Reservation {
        let mut open = lock(&self.open);
        if let Some(pack) = &*open {
            // With directory and trailer: a pack that just exceeded a round length would be padded to the next one.
            let parts = lock(&pack.parts);
            let blobs_after = parts.blobs + blobs.len();
            let blocks_after = parts.directory.blocks.len() + 1;
            let used = parts.bytes.len();
            let end = used + sealed_len + pack::closing_len(blocks_after, blobs_after);
            drop(parts);
            if used > HEADER_LEN && end > self.options.pack_len_target {
                let full = Arc::clone(pack);
                *open = None;
                self.close(full);
            }
        }
        let pack = open.get_or_insert_with(|| self.new_pack());
        let mut parts = lock(&pack.parts);
        let len32 = |len: usize| u32::try_from(len).expect("packs are far shorter than 4 GiB");
        let position = len32(parts.bytes.len());
        let end = parts.bytes.len() + sealed_len;
        parts.bytes.resize(end, 0);
        parts.copying += 1;
        parts.blobs += blobs.len();
        let span = BlockSpan { position, sealed_len: len32(sealed_len), raw_len };
        parts.directory.blocks.push(DirectoryBlock { span, blobs });
        drop(parts);
        Reservation { pack: Arc::clone(pack), position }
    }

    fn fill(&self, place: Reservation, sealed: &[u8]) {
        let mut parts = lock(&place.pack.parts);
        let start = place.position as usize;
        parts.bytes[start..start + sealed.len()].copy_from_slice(sealed);
        parts.copying -= 1;
        let complete = parts.closed && parts.copying == 0;
        drop(parts);
        if complete {
            self.send(place.pack);
        }
    }

    fn close_open_pack(&self) {
        let open = lock(&self.open).take();
        if let Some(pack) = open {
            self.close(pack);
        }
    }

    fn close(&self, pack: Arc<PackInProgress>) {
        let mut parts = lock(&pack.parts);
        parts.closed = true;
        let complete = parts.copying == 0;
        drop(parts);
        if complete {
            self.send(pack);
        }
    }

    fn send(&self, pack: Arc<PackInProgress>) {
        if let Some(uploads) = &*lock(&self.uploads) {
            let _ = uploads.send(Upload::Pack(pack));
        }
    }

    fn upload_all(&self, uploads: &Receiver<Upload>, backend: &dyn Backend) {
        for upload in uploads {
            match upload {
                Upload::Pack(pack) => {
                    let mut parts = std::mem::take(&mut *lock(&pack.parts));
                    if self.check_failure().is_ok()
                        && let Err(error) = self.upload(&pack, &mut parts, backend)
                    {
                        self.fail(StoreError::Backend(Arc::new(error)));
                    }
                    // After a failure too: workers waiting for a buffer have to go on and see it.
                    let _ = self.free.0.send(parts.bytes);
                }
                Upload::Barrier(done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    fn upload(
        &self,
        pack: &PackInProgress,
        parts: &mut PackParts,
        backend: &dyn Backend,
    ) -> Result<(), BackendError> {
        pack::finish(&mut parts.bytes, &parts.directory, &pack.cipher);
        let id = pack::id(&parts.bytes);
        let size = parts.bytes.len() as u64;
        if !self.options.dry_run {
            let key = ObjectKey::pack(&id);
            match backend.create(&key, &parts.bytes) {
                // Its salt is random: only an earlier try of ours can have stored exactly these bytes.
                Ok(Created::New | Created::Exists) => {}
                Err(error) => settle(backend, &key, &parts.bytes, error)?,
            }
        }
        self.counters.stored_bytes.fetch_add(size, Ordering::Relaxed);
        let directory = std::mem::take(&mut parts.directory);
        let blobs = u32::try_from(directory.blob_count()).expect("a pack has fewer than 2^32 blobs");
        lock(&self.finished).push((PackEntry { id, header: pack.header, size, blobs }, directory));
        Ok(())
    }
}

/// A failed `create` may have taken effect: it has if the object is there with these bytes.
fn settle(
    backend: &dyn Backend,
    key: &ObjectKey,
    bytes: &[u8],
    error: BackendError,
) -> Result<(), BackendError> {
    match backend.read(key, bytes.len() as u64) {
        Ok(stored) if stored == bytes => Ok(()),
        _ => Err(error),
    }
}

/// One worker's way into a [`PackStore`].
pub struct BlobWriter {
    shared: Arc<Shared>,
    codec: BlockCodec,
    raw: Vec<u8>,
    blobs: Vec<DirectoryBlob>,
    payload: Vec<u8>,
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
        if self.raw.len() + bytes.len() > BLOCK_LEN_TARGET || compress != self.compress {
            self.flush()?;
        }
        self.compress = compress;
        let len = u32::try_from(bytes.len()).expect("checked against 16 MiB");
        let offset = u32::try_from(self.raw.len()).expect("blocks are at most 16 MiB");
        if self.raw.is_empty() && bytes.len() >= BLOCK_LEN_TARGET {
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
        let counters = &self.shared.counters;
        counters.raw_bytes.fetch_add(u64::from(raw_len), Ordering::Relaxed);
        counters.blobs.fetch_add(blobs.len() as u64, Ordering::Relaxed);
        counters.sealed_bytes.fetch_add((payload.len() + TAG_LEN) as u64, Ordering::Relaxed);
        let place = self.shared.reserve(payload.len() + TAG_LEN, raw_len, blobs);
        pack::seal_block(&place.pack.cipher, place.position, raw_len, payload);
        self.shared.fill(place, payload);
        Ok(())
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
        let counters = &self.shared.counters;
        counters.raw_bytes.fetch_add(raw.len() as u64, Ordering::Relaxed);
        counters.blobs.fetch_add(blobs.len() as u64, Ordering::Relaxed);
        if self.compress {
            self.codec.compress(raw, self.shared.options.level, &mut self.payload);
        } else {
            self.payload.clear();
            self.payload.extend_from_slice(raw);
        }
        counters.sealed_bytes.fetch_add((self.payload.len() + TAG_LEN) as u64, Ordering::Relaxed);
        let raw_len = u32::try_from(raw.len()).expect("blocks are at most 16 MiB");
        let place = self.shared.reserve(self.payload.len() + TAG_LEN, raw_len, blobs);
        pack::seal_block(&place.pack.cipher, place.position, raw_len, &mut self.payload);
        let intact = !self.shared.options.verify || self.reads_back(&place, raw_len, raw);
        if !intact {
            self.shared.fail(StoreError::Verification);
        }
        self.shared.fill(place, &self.payload);
        if intact { Ok(()) } else { Err(StoreError::Verification) }
    }

    /// Whether the sealed payload opens and decompresses to `raw`.
    fn reads_back(&mut self, place: &Reservation, raw_len: u32, raw: &[u8]) -> bool {
        self.check.clear();
        self.check.extend_from_slice(&self.payload);
        let sealed_len = u32::try_from(self.payload.len()).expect("blocks are at most 16 MiB");
        let span = BlockSpan { position: place.position, sealed_len, raw_len };
        let cipher = &place.pack.cipher;
        pack::open_block(cipher, &span, &mut self.check, &mut self.codec, &mut self.check_raw).is_ok()
            && self.check_raw == raw
    }
}
