//! Chunks on their way: gathered while trees are followed, some ten thousand at a time, and read in the order of packs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::backup::{BackupError, Session};
use crate::budget;
use crate::copy::renames::Renames;
use crate::copy::trees::unreadable;
use crate::copy::{CopyError, CopyOptions, CopyReport, Stop, is_cancelled};
use crate::crypto::keys::BlobKind;
use crate::crypto::{KeySet, TAG_LEN};
use crate::format::chunk_list::Chunk;
use crate::format::snapshot::Snapshot;
use crate::ids::{BlobId, SnapshotId};
use crate::index::{IndexError, Location};
use crate::monitor::{Monitor, Progress};
use crate::reach::{Needs, ReachError};
use crate::repair::is_lost;
use crate::repo::Repository;
use crate::store::{BlobReader, BlobWriter, DecodeScratch, ReadError};

/// Chunks that are gathered before they are read: some 250 bytes each.
const WINDOW_LEN: usize = 32 << 10;

/// What is copied, and by whom.
pub(super) struct Copier<'a, 'r> {
    source: &'a Repository,
    session: &'a Session<'r>,
    pub renames: Renames,
    monitor: &'a dyn Monitor,
    workers: Vec<Worker>,
    tree_writer: BlobWriter,
    window: Vec<Chunk>,
    commit_every: Duration,
    last_commit: Duration,
    chunks_read: u64,
    bytes_read: u64,
    /// Why the walk was ended, where that is no error of its own.
    failure: Option<CopyError>,
    /// The first thing that the present snapshot lacks.
    lost: Option<String>,
}

/// What a thread keeps.
struct Worker {
    writer: BlobWriter,
    scratch: DecodeScratch,
    raw: Vec<u8>,
}

/// What a thread did with its share of a window.
#[derive(Default)]
struct Done {
    /// Old and new names, and lengths.
    named: Vec<(BlobId, BlobId)>,
    bytes: u64,
    lost: Option<String>,
}

impl<'a, 'r> Copier<'a, 'r> {
    pub fn new(
        source: &'a Repository,
        session: &'a Session<'r>,
        renames: Renames,
        options: &CopyOptions,
        monitor: &'a dyn Monitor,
    ) -> Self {
        let worker =
            |_| Worker { writer: session.data_writer(), scratch: DecodeScratch::default(), raw: Vec::new() };
        Self {
            source,
            session,
            renames,
            monitor,
            workers: (0..budget::copiers(options.threads, options.memory)).map(worker).collect(),
            tree_writer: session.tree_writer(),
            window: Vec::new(),
            commit_every: options.commit_every,
            last_commit: (session.repository.environment().uptime)(),
            chunks_read: 0,
            bytes_read: 0,
            failure: None,
            lost: None,
        }
    }

    pub fn threads(&self) -> usize {
        self.workers.len()
    }

    pub fn target_keys(&self) -> Arc<KeySet> {
        Arc::clone(self.session.repository.keys())
    }

    /// Copies what is left of a walk; says what is wrong if something is.
    pub fn settle(&mut self, followed: Result<(), ReachError>) -> Result<(), Stop> {
        if let Some(failure) = self.failure.take() {
            return Err(failure.into());
        }
        match followed {
            Ok(()) => {}
            Err(error) if is_cancelled(&error) => return Err(CopyError::Cancelled.into()),
            Err(ReachError::Read(error)) => return Err(unreadable(error)),
            Err(error) => return Err(Stop::Lost(error.to_string())),
        }
        self.flush()?;
        self.lost.take().map_or(Ok(()), |lost| Err(Stop::Lost(lost)))
    }

    /// Stores a tree or chunk list of the target.
    pub fn put_tree(&mut self, bytes: &[u8]) -> Result<BlobId, Stop> {
        Ok(self.session.put(&mut self.tree_writer, BlobKind::Tree, bytes)?)
    }

    /// Takes note of whether to stop, and makes a commit if one is due.
    pub fn pause(&mut self) -> Result<(), CopyError> {
        if self.monitor.is_cancelled() {
            return Err(CopyError::Cancelled);
        }
        let now = (self.session.repository.environment().uptime)();
        if self.session.is_commit_due() || now.saturating_sub(self.last_commit) >= self.commit_every {
            self.commit_blobs()?;
            self.last_commit = now;
        }
        Ok(())
    }

    /// Makes what was stored part of the index.
    pub fn commit_blobs(&mut self) -> Result<(), CopyError> {
        self.flush_writers()?;
        Ok(self.session.commit_blobs(&mut self.tree_writer)?)
    }

    /// Commits a snapshot.
    pub fn commit(&mut self, snapshot: &Snapshot) -> Result<SnapshotId, CopyError> {
        self.flush_writers()?;
        Ok(self.session.commit(&mut self.tree_writer, snapshot, &[])?)
    }

    fn flush_writers(&mut self) -> Result<(), CopyError> {
        self.workers
            .iter_mut()
            .try_for_each(|worker| worker.writer.flush().map_err(|error| BackupError::from(error).into()))
    }

    /// Adds what was done to the counts of a report.
    pub fn count(&self, report: &mut CopyReport) {
        report.chunks_read += self.chunks_read;
        report.bytes_read += self.bytes_read;
        report.bytes_added += self.session.bytes_added();
        report.bytes_stored += self.session.bytes_stored();
    }

    /// Reads and stores the chunks that were gathered.
    fn flush(&mut self) -> Result<(), CopyError> {
        let mut window = std::mem::take(&mut self.window);
        window.sort_unstable_by_key(|chunk| chunk.id);
        window.dedup();
        let mut located = Vec::with_capacity(window.len());
        for chunk in window.drain(..) {
            if self.renames.get(&chunk.id)?.is_some() {
                continue;
            }
            match self.locate(&chunk.id).map_err(|error| CopyError::Read(error.into()))? {
                Some(at) => located.push((chunk, at)),
                None => {
                    let missing = ReadError::Missing { id: chunk.id, kind: BlobKind::Data };
                    self.lost.get_or_insert_with(|| missing.to_string());
                }
            }
        }
        self.window = window;
        located.sort_unstable_by_key(|(_, at)| (at.pack.id, at.entry.block.position, at.entry.offset));
        let is_same_block = |(_, a): &(Chunk, Location), (_, b): &(Chunk, Location)| {
            a.pack.id == b.pack.id && a.entry.block == b.entry.block
        };
        let groups: Vec<&[(Chunk, Location)]> = located.chunk_by(is_same_block).collect();
        for done in self.run(&groups)? {
            for (old, new) in &done.named {
                self.renames.insert(old, new)?;
            }
            self.chunks_read += done.named.len() as u64;
            self.bytes_read += done.bytes;
            self.lost = self.lost.take().or(done.lost);
        }
        self.monitor.progress(&Progress {
            items: self.chunks_read,
            bytes: self.bytes_read,
            ..Progress::default()
        });
        self.pause()
    }

    /// Where a chunk is in the source, also if a prune has moved it meanwhile.
    fn locate(&self, id: &BlobId) -> Result<Option<Location>, IndexError> {
        if let Some(at) = self.source.index().get(id)? {
            return Ok(Some(at));
        }
        // What cannot be read on is not there either.
        let _ = self.source.refresh();
        self.source.index().get(id)
    }

    /// Deals with groups of one block each on all threads.
    fn run(&mut self, groups: &[&[(Chunk, Location)]]) -> Result<Vec<Done>, CopyError> {
        let next = AtomicUsize::new(0);
        let (reader, session, monitor) = (&**self.source.reader(), self.session, self.monitor);
        let work = |worker: &mut Worker| -> Result<Done, CopyError> {
            let mut done = Done::default();
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                if monitor.is_cancelled() {
                    return Err(CopyError::Cancelled);
                }
                worker.block(reader, session, group, &mut done)?;
            }
            Ok(done)
        };
        let count = self.workers.len().min(groups.len()).max(1);
        let (first, others) = self.workers[..count].split_first_mut().expect("one thread at least");
        std::thread::scope(|scope| {
            let work = &work;
            let handles: Vec<_> = others.iter_mut().map(|worker| scope.spawn(move || work(worker))).collect();
            let mut all = vec![work(first)];
            for handle in handles {
                all.push(handle.join().unwrap_or(Err(CopyError::Worker)));
            }
            all.into_iter().collect()
        })
    }

    fn stop(&mut self, error: impl Into<CopyError>) -> ReachError {
        self.failure.get_or_insert(error.into());
        ReachError::Cancelled
    }
}

impl Worker {
    fn block(
        &mut self,
        reader: &BlobReader,
        session: &Session<'_>,
        group: &[(Chunk, Location)],
        done: &mut Done,
    ) -> Result<(), CopyError> {
        let Some((_, first)) = group.first() else { return Ok(()) };
        let span = first.entry.block;
        let block = reader.read_block(&first.pack, &span, &mut self.scratch, &mut self.raw);
        let compress = (span.sealed_len as usize) < span.raw_len as usize + TAG_LEN;
        for (chunk, at) in group {
            let raw = if block.is_ok() { self.raw.as_slice() } else { &[] };
            let (id, kind) = (&chunk.id, BlobKind::Data);
            let found = reader.verified(first.pack.id, kind, id, raw, at.entry.offset, at.entry.len);
            let elsewhere;
            let bytes = match found {
                Ok(bytes) => bytes,
                // A prune may have moved it, or there may be another copy.
                Err(_) => match reader.read(kind, id) {
                    Ok(bytes) => {
                        elsewhere = bytes;
                        &elsewhere
                    }
                    Err(error) if is_lost(&error) => {
                        done.lost.get_or_insert_with(|| error.to_string());
                        continue;
                    }
                    Err(error) => return Err(CopyError::Read(error)),
                },
            };
            if bytes.len() != chunk.len as usize {
                let (found, expected) = (bytes.len(), chunk.len);
                done.lost.get_or_insert_with(|| format!("chunk {id} has {found} bytes, expected {expected}"));
                continue;
            }
            let new = session.repository.keys().blob_id(kind, bytes);
            if session.claim(&new).map_err(BackupError::from)? {
                self.writer.put(kind, new, bytes, compress).map_err(BackupError::from)?;
            }
            done.named.push((*id, new));
            done.bytes += u64::from(chunk.len);
        }
        Ok(())
    }
}

impl Needs for Copier<'_, '_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        match self.renames.meet(id) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return Err(self.stop(error)),
        }
        let found = self.locate(id).map_err(ReadError::Index)?;
        found.map(Some).ok_or(ReadError::Missing { id: *id, kind: BlobKind::Tree }.into())
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.window.push(*chunk);
        if self.window.len() < WINDOW_LEN {
            return Ok(());
        }
        self.flush().map_err(|error| self.stop(error))
    }

    fn unreadable(&mut self, _: &BlobId, error: ReachError) -> Result<Option<Vec<u8>>, ReachError> {
        if self.failure.is_some() || is_cancelled(&error) {
            return Err(error);
        }
        match error {
            ReachError::Read(read) if !is_lost(&read) => Err(self.stop(CopyError::Read(read))),
            error => {
                self.lost.get_or_insert_with(|| error.to_string());
                Ok(None)
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.monitor.is_cancelled()
    }
}
