//! Worker threads: they hash, deduplicate, compress and seal what the reader has read and cut.

use std::sync::{Arc, Barrier};

use crossbeam_channel::{Receiver, Sender};

use serde_bytes::ByteBuf;

use crate::backup::sample;
use crate::backup::session::{Session, WorkerError};
use crate::backup::small::{FileBatch, FileJob, FileOutcome, SmallReader};
use crate::chunk::{Cutter, GearTable, grain};
use crate::crypto::keys::BlobKind;
use crate::format::block::BlockCodec;
use crate::format::chunk_list::{self, CHUNK_ENTRY_LEN, Chunk};
use crate::format::tree::{FileContent, Grain, Node, NodeKind};
use crate::store::BlobWriter;

/// Names a file while its chunks are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileToken(pub u64);

/// Consecutive chunks of one file in a job's buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub file: FileToken,
    /// Number of this part among those of the file.
    pub number: u32,
    /// How many of the job's chunks belong to it.
    pub chunks: u32,
}

/// Bytes that were read and cut.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    /// Lengths of the chunks that fill `bytes`.
    pub chunk_lens: Vec<u32>,
    pub parts: Vec<Part>,
    /// The chunk tables of all parts, one after the other: filled in by the worker.
    pub table: Vec<u8>,
}

impl Batch {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.chunk_lens.clear();
        self.parts.clear();
        self.table.clear();
    }
}

/// What workers are told.
pub(super) enum Job {
    Batch(Batch),
    Files(FileBatch),
    /// Close the open block; wait until all workers have.
    Flush(Arc<Barrier>),
}

/// What workers answer.
pub(super) enum Answer {
    Batch(Batch),
    Files(FileBatch),
    Flushed,
    Failed(WorkerError),
}

/// The life of a worker thread.
pub(super) fn work(session: &Session<'_>, growing: bool, jobs: &Receiver<Job>, answers: &Sender<Answer>) {
    let mut worker = Worker {
        session,
        writer: session.data_writer(),
        codec: BlockCodec::new(),
        probe: Vec::new(),
        gear: GearTable::derive(session.repository.keys()),
        files: SmallReader::new(growing),
        chunk_lens: Vec::new(),
    };
    for job in jobs {
        let answer = match job {
            Job::Batch(mut batch) => {
                guarded(|| worker.store(&mut batch)).map_or_else(Answer::Failed, |()| Answer::Batch(batch))
            }
            Job::Files(mut batch) => guarded(|| worker.store_files(&mut batch))
                .map_or_else(Answer::Failed, |()| Answer::Files(batch)),
            Job::Flush(barrier) => {
                let result = guarded(|| worker.writer.flush().map_err(WorkerError::Store));
                barrier.wait();
                result.map_or_else(Answer::Failed, |()| Answer::Flushed)
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// A panic has to reach the reading thread, which would otherwise wait for an answer for ever.
fn guarded(work: impl FnOnce() -> Result<(), WorkerError>) -> Result<(), WorkerError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(Err(WorkerError::Panicked))
}

struct Worker<'s, 'r> {
    session: &'s Session<'r>,
    writer: BlobWriter,
    codec: BlockCodec,
    probe: Vec<u8>,
    gear: GearTable,
    files: SmallReader,
    chunk_lens: Vec<u32>,
}

impl Worker<'_, '_> {
    fn store(&mut self, batch: &mut Batch) -> Result<(), WorkerError> {
        let (mut at, mut next_chunk) = (0, 0);
        for part in &batch.parts {
            let lens = &batch.chunk_lens[next_chunk..next_chunk + part.chunks as usize];
            next_chunk += lens.len();
            let total: usize = lens.iter().map(|len| *len as usize).sum();
            self.store_chunks(&batch.bytes[at..at + total], lens, &mut batch.table)?;
            at += total;
        }
        Ok(())
    }

    /// Stores consecutive chunks of one file and appends them to its table.
    fn store_chunks(&mut self, bytes: &[u8], lens: &[u32], table: &mut Vec<u8>) -> Result<(), WorkerError> {
        // Asked at the first new chunk only: most parts of a nightly backup have none.
        let mut compress = None;
        let mut offset = 0;
        for len in lens {
            let chunk = &bytes[offset..offset + *len as usize];
            offset += chunk.len();
            let id = self.session.repository.keys().blob_id(BlobKind::Data, chunk);
            chunk_list::push_chunk(table, Chunk { id, len: *len });
            if self.session.claim(&id).map_err(|error| WorkerError::Index(Arc::new(error)))? {
                let compress = *compress.get_or_insert_with(|| {
                    !sample::is_incompressible(bytes, &mut self.codec, &mut self.probe)
                });
                self.writer.put(BlobKind::Data, id, chunk, compress).map_err(WorkerError::Store)?;
            }
        }
        Ok(())
    }

    fn store_files(&mut self, batch: &mut FileBatch) -> Result<(), WorkerError> {
        for job in &mut batch.jobs {
            let outcome = self.store_file(job)?;
            batch.outcomes.push(outcome);
        }
        Ok(())
    }

    /// Reads and stores a small file.
    fn store_file(&mut self, job: &mut FileJob) -> Result<FileOutcome, WorkerError> {
        let file = match self.files.read(&job.dir, &job.name) {
            Ok(file) => file,
            Err(outcome) => return Ok(outcome),
        };
        let bytes = std::mem::take(&mut self.files.bytes);
        let mut lens = std::mem::take(&mut self.chunk_lens);
        lens.clear();
        Cutter::new(&self.gear, grain::sizes(Grain::Medium)).cut_all(&bytes, true, &mut lens);
        let mut table = Vec::with_capacity(lens.len() * CHUNK_ENTRY_LEN);
        let result = self.store_chunks(&bytes, &lens, &mut table);
        let size = bytes.len() as u64;
        (self.files.bytes, self.chunk_lens) = (bytes, lens);
        result?;
        // So few chunks that the table is never split.
        let content = FileContent {
            size,
            chunks: ByteBuf::from(table),
            unstable: file.unstable,
            ..FileContent::default()
        };
        let name = std::mem::take(&mut job.name);
        let node = Box::new(Node { name, kind: NodeKind::File(content), metadata: file.metadata });
        Ok(FileOutcome::Stored { node, size, unstable: file.unstable, problems: file.problems })
    }
}
