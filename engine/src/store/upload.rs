//! The way of sealed blocks into the backend: put in order, hashed, written to the pack in the making, and published.
//!
//! Workers seal side by side and finish in any order, while a pack is written from front to back. So every event of
//! a store has a ticket, and the writing thread takes them by number. A second thread makes packs durable and names
//! them: waiting for a disk holds up nobody who seals.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::backend::{Backend, BackendError, Created, ObjectKey, Staged};
use crate::crypto::ObjectCipher;
use crate::format::header::Header;
use crate::format::pack::{self, Directory};
use crate::format::segment::PackEntry;
use crate::ids::PackId;
use crate::store::packs::{Shared, StoreError, lock};

/// Packs that are written and wait to be made durable.
const UNPUBLISHED_MAX: usize = 2;

/// Number of an event of a store: events count in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub u64);

/// What happens to the packs of a store.
pub(super) enum Event {
    /// A pack begins.
    Start(Header),
    /// The next sealed block of the pack.
    Block(Vec<u8>),
    /// The pack holds all it is to hold.
    End(Closed),
    /// Answered when everything before it is published.
    Barrier(Sender<()>),
}

/// A pack that gets no more blocks.
pub(super) struct Closed {
    pub header: Header,
    pub cipher: Arc<ObjectCipher>,
    pub directory: Directory,
}

/// A pack with all its bytes written.
struct Written<'b> {
    /// `None` in a dry run.
    staged: Option<Box<dyn Staged + 'b>>,
    entry: PackEntry,
    directory: Directory,
}

enum Publication<'b> {
    Pack(Box<Written<'b>>),
    Barrier(Sender<()>),
}

/// Takes events until nobody can send any. A failure is noted in `shared`; later events then only give buffers back.
pub(super) fn run(shared: &Shared, events: &Receiver<(Ticket, Event)>, backend: &dyn Backend) {
    std::thread::scope(|scope| {
        let (publish, unpublished) = bounded(UNPUBLISHED_MAX);
        scope.spawn(move || publish_all(shared, &unpublished, backend));
        let mut writing = Writing { shared, backend, publish, pack: None };
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (ticket, event) in events {
            early.insert(ticket, event);
            while let Some(event) = early.remove(&Ticket(next)) {
                writing.take(event);
                next += 1;
            }
        }
    });
}

/// Does a part of the work and notes how it failed. Also after a panic: those who wait for an answer have to get one.
fn guarded(shared: &Shared, work: impl FnOnce() -> Result<(), BackendError>) {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => shared.fail(StoreError::Backend(Arc::new(error))),
        Err(_) => shared.fail(StoreError::Panicked),
    }
}

/// The pack that is being written.
struct Unfinished<'b> {
    staged: Option<Box<dyn Staged + 'b>>,
    hasher: blake3::Hasher,
    len: u64,
}

impl Unfinished<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.staged.as_mut().map_or(Ok(()), |staged| staged.write(bytes))
    }
}

/// The writing thread.
struct Writing<'s, 'b> {
    shared: &'s Shared,
    backend: &'b dyn Backend,
    publish: Sender<Publication<'b>>,
    /// `None` between packs and after a failure.
    pack: Option<Unfinished<'b>>,
}

impl Writing<'_, '_> {
    fn take(&mut self, event: Event) {
        let has_failed = self.shared.check_failure().is_err();
        if has_failed {
            self.pack = None;
        }
        match event {
            Event::Start(_) if has_failed => {}
            Event::Start(header) => guarded(self.shared, || self.start(&header)),
            Event::Block(bytes) => {
                guarded(self.shared, || self.pack.as_mut().map_or(Ok(()), |pack| pack.write(&bytes)));
                self.shared.give_back(bytes);
            }
            Event::End(closed) => guarded(self.shared, || self.end(closed)),
            Event::Barrier(done) => {
                // The other thread lives as long as this sender.
                let _ = self.publish.send(Publication::Barrier(done));
            }
        }
    }

    fn start(&mut self, header: &Header) -> Result<(), BackendError> {
        let staged = if self.shared.options.dry_run { None } else { Some(self.backend.begin()?) };
        let mut pack = Unfinished { staged, hasher: blake3::Hasher::new(), len: 0 };
        pack.write(&header.encode())?;
        self.pack = Some(pack);
        Ok(())
    }

    fn end(&mut self, closed: Closed) -> Result<(), BackendError> {
        let Some(mut pack) = self.pack.take() else { return Ok(()) };
        let Closed { header, cipher, directory } = closed;
        pack.write(&pack::closing(pack.len, &directory, &cipher))?;
        let id = PackId::from_bytes(pack.hasher.finalize().into());
        let blobs = u32::try_from(directory.blob_count()).expect("a pack has fewer than 2^32 blobs");
        let entry = PackEntry { id, header, size: pack.len, blobs };
        let written = Written { staged: pack.staged, entry, directory };
        let _ = self.publish.send(Publication::Pack(Box::new(written)));
        Ok(())
    }
}

/// The publishing thread.
fn publish_all(shared: &Shared, publications: &Receiver<Publication<'_>>, backend: &dyn Backend) {
    for publication in publications {
        match publication {
            Publication::Pack(written) if shared.check_failure().is_ok() => {
                guarded(shared, || publish(shared, *written, backend));
            }
            Publication::Pack(_) => {}
            Publication::Barrier(done) => {
                let _ = done.send(());
            }
        }
    }
}

fn publish(shared: &Shared, written: Written<'_>, backend: &dyn Backend) -> Result<(), BackendError> {
    let Written { staged, entry, directory } = written;
    if let Some(staged) = staged {
        let key = ObjectKey::pack(&entry.id);
        match staged.publish(&key) {
            // Its salt is random: only an earlier try of ours can have stored exactly these bytes.
            Ok(Created::New | Created::Exists) => {}
            Err(error) if error.is_not_durable() => return Err(error),
            Err(error) => settle(backend, &key, &entry, error)?,
        }
        if let Some(cover) = &shared.cover {
            cover.object(backend, &key);
        }
    }
    shared.counters.stored_bytes.fetch_add(entry.size, Ordering::Relaxed);
    lock(&shared.finished).push((entry, directory));
    Ok(())
}

/// A failed publication may have taken effect: it has if the object is there with these bytes. Its name is made durable then, which may
/// not have been come to.
fn settle(
    backend: &dyn Backend,
    key: &ObjectKey,
    entry: &PackEntry,
    error: BackendError,
) -> Result<(), BackendError> {
    match backend.read(key, entry.size) {
        Ok(stored) if pack::id(&stored) == entry.id => backend.flush(key),
        _ => Err(error),
    }
}
