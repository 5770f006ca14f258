//! Packs of one kind in the making, shared by all who write blobs: who seals a block gets a place in the open pack.
//!
//! A place is a position in the pack, which the seal binds, and a ticket, which says when the block is written. Getting
//! one takes a lock for a few instructions; sealing happens outside. Sealed blocks travel in pooled buffers: when all
//! are on their way, workers wait, so memory is bounded by construction. Packs themselves are never in memory.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::backend::{Backend, BackendError};
use crate::budget::Pipeline;
use crate::crypto::{Entropy, KeySet, ObjectCipher};
use crate::format::block::{BLOB_LEN_MAX, METADATA_BLOCK_LEN};
use crate::format::header::{HEADER_LEN, Header, ObjectKind, Sealer};
use crate::format::pack::{self, BlockSpan, DIRECTORY_LEN_MAX, Directory, DirectoryBlob, DirectoryBlock};
use crate::format::segment::PackEntry;
use crate::ids::{PackId, RepositoryId};
use crate::sidecar::Cover;
use crate::store::upload::{self, Closed, Event, Ticket};
use crate::store::writer::BlobWriter;

/// Bytes after which a pack of file content is closed: one in hundreds of gigabytes is a file among many, and an upload
/// that is cut off loses little.
const PACK_LEN: usize = 32 << 20;

/// A blob cannot be stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The backend failed. The first failure ends all later writes of this store.
    #[error("cannot store a pack: {0}")]
    Backend(#[source] Arc<BackendError>),
    /// Longer than a blob can be.
    #[error("a blob of {0} bytes cannot be stored: blobs have at most {BLOB_LEN_MAX}")]
    TooLong(usize),
    /// What was sealed does not read back as what was to be stored.
    #[error("a block did not decode to what was compressed: this machine's memory or processor is at fault")]
    Verification,
    /// A panic while packs were written, which was reported where it happened.
    #[error(
        "the program failed while it stored a pack: this is a defect of the program, not of the repository"
    )]
    Panicked,
}

/// How packs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// zstd level of blocks.
    pub level: i32,
    /// Whether each block is decoded and compared before it is written.
    pub verify: bool,
    /// Bytes after which a block of file content is closed, at most. Others, and those that are not compressed, gain
    /// nothing from being long and are closed after [`METADATA_BLOCK_LEN`] bytes.
    pub block_len: usize,
    /// Longest pack of file content, unless a single block is longer. One of metadata is a quarter of it.
    pub pack_len: usize,
    /// Sealed blocks on their way to the backend at one time.
    pub buffers: usize,
    /// Do everything but write: packs are counted and dropped.
    pub dry_run: bool,
}

impl StoreOptions {
    /// Options for so many threads that live in `memory` bytes, with verification.
    pub fn new(level: i32, threads: usize, memory: u64) -> Self {
        let Pipeline { workers, block_len, .. } = Pipeline::new(threads, memory);
        Self { level, verify: true, block_len, pack_len: PACK_LEN, buffers: 2 * workers, dry_run: false }
    }

    /// Bytes after which a block in packs of this kind is closed.
    fn block_len_of(&self, kind: ObjectKind) -> usize {
        if kind == ObjectKind::DataPack { self.block_len } else { self.block_len.min(METADATA_BLOCK_LEN) }
    }

    pub(crate) fn pack_len_of(&self, kind: ObjectKind) -> usize {
        if kind == ObjectKind::DataPack { self.pack_len } else { self.pack_len / 4 }
    }
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

/// Packs of one kind in the making. Dropped without [`PackStore::finish`], what is not published is lost.
pub struct PackStore {
    shared: Arc<Shared>,
    uploader: Option<JoinHandle<()>>,
}

/// What the writers and the uploading threads of a store share.
pub(super) struct Shared {
    kind: ObjectKind,
    pub options: StoreOptions,
    keys: Arc<KeySet>,
    repository: RepositoryId,
    entropy: Arc<dyn Entropy>,
    open: Mutex<Open>,
    free: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    pub finished: Mutex<Vec<(PackEntry, Directory)>>,
    failure: Mutex<Option<StoreError>>,
    pub counters: StoreCounters,
    /// Makes parity of packs, if that is wanted.
    pub cover: Option<Cover>,
}

/// The pack that gets the next block.
struct Open {
    pack: Option<OpenPack>,
    next_ticket: u64,
    /// `None` when the store is dropped.
    events: Option<Sender<(Ticket, Event)>>,
}

struct OpenPack {
    header: Header,
    cipher: Arc<ObjectCipher>,
    /// Where the next block begins.
    end: usize,
    directory: Directory,
    /// Blobs in the directory.
    blobs: usize,
}

/// A place in a pack. Who has it must fill it: everything behind it waits.
pub(super) struct Place {
    pub cipher: Arc<ObjectCipher>,
    pub position: u32,
    ticket: Ticket,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panicked ends the operation anyway: nothing here is published without a commit.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for PackStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackStore({:?})", self.shared.kind)
    }
}

impl PackStore {
    /// A store for packs of `kind`, with its uploading threads; it makes parity of them if there is a `cover`.
    pub fn new(
        kind: ObjectKind,
        options: StoreOptions,
        backend: Arc<dyn Backend>,
        keys: Arc<KeySet>,
        repository: RepositoryId,
        entropy: Arc<dyn Entropy>,
        cover: Option<Cover>,
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
            open: Mutex::new(Open { pack: None, next_ticket: 0, events: Some(sender) }),
            free,
            finished: Mutex::default(),
            failure: Mutex::default(),
            counters: StoreCounters::default(),
            cover,
        });
        let for_thread = Arc::clone(&shared);
        let uploader = std::thread::Builder::new()
            .name("upload".into())
            .spawn(move || upload::run(&for_thread, &receiver, &*backend))
            .expect("a thread can be started");
        Self { shared, uploader: Some(uploader) }
    }

    /// A writer for one worker thread.
    pub fn writer(&self) -> BlobWriter {
        BlobWriter::new(Arc::clone(&self.shared))
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
        let (done, wait) = bounded(1);
        let mut open = lock(&self.shared.open);
        open.close();
        open.send(Event::Barrier(done));
        drop(open);
        if wait.recv().is_err() {
            self.shared.fail(StoreError::Panicked);
        }
        self.shared.check_failure()?;
        Ok(std::mem::take(&mut lock(&self.shared.finished)))
    }

    /// Stores nothing more, and returns the packs that are stored and were not handed over. The one that is open is lost.
    pub fn abandon(mut self) -> Vec<PackId> {
        self.stop();
        lock(&self.shared.finished).iter().map(|(entry, _)| entry.id).collect()
    }

    /// Waits until nothing is being stored any more.
    fn stop(&mut self) {
        lock(&self.shared.open).events.take();
        if let Some(uploader) = self.uploader.take() {
            // Its panic, if any, was reported when it happened.
            let _ = uploader.join();
        }
    }
}

impl Drop for PackStore {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Open {
    /// Sends what follows everything that has a ticket.
    fn send(&mut self, event: Event) {
        let ticket = self.ticket();
        if let Some(events) = &self.events {
            // The receiver lives as long as this sender.
            let _ = events.send((ticket, event));
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket - 1)
    }

    fn close(&mut self) {
        if let Some(OpenPack { header, cipher, directory, .. }) = self.pack.take() {
            self.send(Event::End(Closed { header, cipher, directory }));
        }
    }
}

impl OpenPack {
    /// Whether the pack would be longer than `len_max`, or its directory than directories are, with one more such block. With
    /// directory and trailer: a pack that just exceeded a round length would be padded to the next one.
    fn is_full(&self, len_max: usize, sealed_len: usize, blobs: usize) -> bool {
        let closing = pack::closing_len(self.directory.blocks.len() + 1, self.blobs + blobs);
        let is_too_long = self.end + sealed_len + closing > len_max || closing as u64 > DIRECTORY_LEN_MAX;
        self.end > HEADER_LEN && is_too_long
    }
}

impl Shared {
    pub fn check_failure(&self) -> Result<(), StoreError> {
        lock(&self.failure).as_ref().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    pub fn fail(&self, error: StoreError) {
        lock(&self.failure).get_or_insert(error);
    }

    /// Bytes after which a block is closed.
    pub fn block_len(&self, compress: bool) -> usize {
        let len = self.options.block_len_of(self.kind);
        if compress { len } else { len.min(METADATA_BLOCK_LEN) }
    }

    /// An empty buffer for a block's payload; waits until there is one. It has to come back through
    /// [`Shared::send`].
    pub fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.free.1.recv().expect("the sender is held beside the receiver");
        buffer.clear();
        buffer
    }

    /// Takes back the buffer of a block that is written.
    pub fn give_back(&self, buffer: Vec<u8>) {
        // There is room: no more buffers are about than there were at the beginning.
        let _ = self.free.0.send(buffer);
    }

    /// Reserves room for a sealed block in the open pack, opening a new one if it is full.
    pub fn reserve(&self, sealed_len: usize, raw_len: u32, blobs: Vec<DirectoryBlob>) -> Place {
        let mut open = lock(&self.open);
        if open
            .pack
            .as_ref()
            .is_some_and(|pack| pack.is_full(self.options.pack_len_of(self.kind), sealed_len, blobs.len()))
        {
            open.close();
        }
        if open.pack.is_none() {
            let sealer = Sealer { keys: &self.keys, repository: &self.repository, entropy: &*self.entropy };
            let (header, cipher) = pack::start(self.kind, &sealer);
            open.send(Event::Start(header));
            let (cipher, directory) = (Arc::new(cipher), Directory::default());
            open.pack = Some(OpenPack { header, cipher, end: HEADER_LEN, directory, blobs: 0 });
        }
        let ticket = open.ticket();
        let pack = open.pack.as_mut().expect("opened just now");
        let len32 = |len: usize| u32::try_from(len).expect("packs are far shorter than 4 GiB");
        let position = len32(pack.end);
        pack.end += sealed_len;
        pack.blobs += blobs.len();
        let span = BlockSpan { position, sealed_len: len32(sealed_len), raw_len };
        pack.directory.blocks.push(DirectoryBlock { span, blobs });
        Place { cipher: Arc::clone(&pack.cipher), position, ticket }
    }

    /// Sends a sealed block on its way.
    #[allow(clippy::needless_pass_by_value, reason = "a place is filled once")]
    pub fn send(&self, place: Place, sealed: Vec<u8>) {
        if let Some(events) = &lock(&self.open).events {
            let _ = events.send((place.ticket, Event::Block(sealed)));
        }
    }
}
