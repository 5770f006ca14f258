//! Reading large and sparse files and streams: into pooled buffers, cut into chunks, handed to the workers; and
//! noticing when a file changes under our eyes. Small files are the workers' own affair, see [`super::small`].

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use blake3::Hasher;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::backup::growing;
use crate::backup::options::BackupError;
use crate::backup::pipeline::Pipeline;
use crate::backup::sample;
use crate::backup::workers::{FileToken, Part};
use crate::chunk::grain;
use crate::chunk::{Cutter, GearTable};
use crate::format::block::BlockCodec;
use crate::format::tree::{Grain, HOLES_MAX, Hole};
use crate::source::SourceStat;
use crate::source::sparse;

/// Bytes of a file that decide its grain.
const HEAD_LEN: usize = 64 << 10;
/// How often a file that changes is read again.
pub(super) const RETRIES: u32 = 2;
/// A changing file larger than this is read once only.
const RETRY_LEN_MAX: u64 = 1 << 30;

/// What came of reading a file.
#[derive(Debug)]
pub(super) struct ReadFile {
    /// Its state after reading.
    pub stat: SourceStat,
    /// Bytes read and holes.
    pub size: u64,
    pub holes: Vec<Hole>,
    pub grain: Option<Grain>,
    /// Parts handed to the workers.
    pub parts: u32,
    /// Whether it changed while it was read, every time.
    pub unstable: bool,
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum FileError {
    /// The file: the run goes on without it.
    File(io::Error),
    /// The run.
    Run(BackupError),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<BackupError> for FileError {
    fn from(error: BackupError) -> Self {
        Self::Run(error)
    }
}

/// Reads files into batches.
pub(super) struct FileReader {
    gear: GearTable,
    codec: BlockCodec,
    probe: Vec<u8>,
    /// Whether files may have grown while they were read: see [`growing`].
    growing: bool,
    /// Hashes what is read of such a file.
    hasher: Option<Hasher>,
}

impl FileReader {
    pub fn new(gear: GearTable, growing: bool) -> Self {
        Self { gear, codec: BlockCodec::new(), probe: Vec::new(), growing, hasher: None }
    }

    /// Reads an open regular file. `begin` gives a token for each attempt; the last one given counts.
    pub fn read(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        file: &File,
        known: Option<Grain>,
        begin: &mut dyn FnMut(&mut Pipeline<'_, '_>) -> Result<FileToken, BackupError>,
    ) -> Result<ReadFile, FileError> {
        let mut attempt = 0;
        loop {
            let mut before = SourceStat::of_file(file)?;
            let settled = before.settle(file)?;
            let token = begin(pipeline)?;
            self.hasher = self.growing.then(Hasher::new);
            let mut read = self.read_large(pipeline, file, token, &before, known)?;
            let after = SourceStat::of_file(file)?;
            let same = settled && is_same(&before, &after, read.size);
            read.stat = before;
            if same || self.has_only_grown(pipeline, file, (&before, &after), &read)? {
                return Ok(read);
            }
            if attempt == RETRIES || before.size > RETRY_LEN_MAX {
                read.unstable = true;
                return Ok(read);
            }
            attempt += 1;
        }
    }

    /// Whether a file that has changed has done nothing but grow. Of one with holes it is not known.
    fn has_only_grown(
        &mut self,
        pipeline: &Pipeline<'_, '_>,
        file: &File,
        (before, after): (&SourceStat, &SourceStat),
        read: &ReadFile,
    ) -> io::Result<bool> {
        let Some(hasher) = self.hasher.take() else { return Ok(false) };
        if !read.holes.is_empty() || !growing::may_have_grown(before, after, read.size) {
            return Ok(false);
        }
        growing::begins_with(file, read.size, &hasher.finalize(), &|| pipeline.monitor.is_cancelled())
    }

    /// Reads a large or sparse file, buffer by buffer.
    fn read_large(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        file: &File,
        token: FileToken,
        stat: &SourceStat,
        known: Option<Grain>,
    ) -> Result<ReadFile, FileError> {
        let mut holes = sparse::holes(file, stat.size, stat.allocated, HOLES_MAX)?;
        let mut stream = Stream { token, parts: 0, grain: known };
        let mut size = 0;
        let mut cut_short = None;
        for (number, hole) in holes.iter().enumerate() {
            if hole.offset > size {
                let length = hole.offset - size;
                size += self.read_extent(pipeline, file, &mut stream, size, Some(length), stat.size)?;
                if size < hole.offset {
                    cut_short = Some(number);
                    break;
                }
            }
            size += hole.length;
        }
        match cut_short {
            // The file ends here by now: the holes behind it are gone, too.
            Some(number) => holes.truncate(number),
            // To the end, wherever that is by now; of one that may grow, to where it was.
            None if size < stat.size || holes.is_empty() => {
                let length = self.growing.then(|| stat.size.saturating_sub(size));
                size += self.read_extent(pipeline, file, &mut stream, size, length, stat.size)?;
            }
            None => {}
        }
        Ok(ReadFile { stat: *stat, size, holes, grain: stream.grain, parts: stream.parts, unstable: false })
    }

    /// Reads one run of data between holes. Chunks do not cross its ends.
    fn read_extent(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        file: &File,
        stream: &mut Stream,
        offset: u64,
        length: Option<u64>,
        file_size: u64,
    ) -> Result<u64, FileError> {
        let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
        let mut extent = Extent { file, at: offset, end, hasher: self.hasher.take() };
        let read = self.read_stream(pipeline, &mut extent, stream, file_size);
        self.hasher = extent.hasher;
        read
    }

    /// Reads a stream to its end. `size_hint` is its expected length: it decides the grain along with the first bytes.
    pub fn read_stream(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        reader: &mut dyn Content,
        stream: &mut Stream,
        size_hint: u64,
    ) -> Result<u64, FileError> {
        let result = self.cut_stream(pipeline, reader, stream, size_hint);
        if result.is_err() {
            // What was read and not cut yet must not become the beginning of the next stream.
            pipeline.discard_open();
        }
        result
    }

    fn cut_stream(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        reader: &mut dyn Content,
        stream: &mut Stream,
        size_hint: u64,
    ) -> Result<u64, FileError> {
        let mut total = 0;
        let mut at_end = false;
        while !at_end {
            let batch = pipeline.empty_batch()?;
            // What the last buffer could not decide comes first.
            let carried = batch.bytes.len();
            at_end = reader.fill(&mut batch.bytes)?;
            total += (batch.bytes.len() - carried) as u64;
            let read = (batch.bytes.len() - carried) as u64;
            let grain = *stream.grain.get_or_insert_with(|| {
                let head = &batch.bytes[..batch.bytes.len().min(HEAD_LEN)];
                let noisy = size_hint >= grain::COARSE_LEN_MIN
                    && sample::is_incompressible(head, &mut self.codec, &mut self.probe);
                grain::choose(head, size_hint, noisy)
            });
            let cutter = Cutter::new(&self.gear, grain::sizes(grain));
            let chunks_before = batch.chunk_lens.len();
            let used = cutter.cut_all(&batch.bytes, at_end, &mut batch.chunk_lens);
            let chunks = chunk_count(batch.chunk_lens.len() - chunks_before);
            if chunks > 0 {
                batch.parts.push(Part { file: stream.token, number: stream.parts, chunks });
                stream.parts += 1;
            }
            pipeline.read_on(read);
            pipeline.send_keeping(used)?;
            pipeline.relieve()?;
            reader.sent(pipeline)?;
            if pipeline.monitor.is_cancelled() {
                return Err(io::Error::other("the backup was cancelled").into());
            }
        }
        Ok(total)
    }
}

/// Where the chunks of a stream go.
#[derive(Debug)]
pub(super) struct Stream {
    pub token: FileToken,
    pub parts: u32,
    pub grain: Option<Grain>,
}

/// Whether a file of which `read` bytes were read stayed as it was.
pub(super) fn is_same(before: &SourceStat, after: &SourceStat, read: u64) -> bool {
    read == before.size
        && after.size == before.size
        && after.mtime == before.mtime
        && after.ctime == before.ctime
        && after.inode == before.inode
}

/// What is read from its beginning to its end.
pub(super) trait Content {
    /// Reads until the capacity of `buffer` is used up; true at the end.
    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool>;

    /// What it takes to go on when all that was read is on its way.
    fn sent(&mut self, pipeline: &mut Pipeline<'_, '_>) -> Result<(), BackupError> {
        let _ = pipeline;
        Ok(())
    }
}

/// A part of a file, up to `end` or to wherever the file ends before.
struct Extent<'f> {
    file: &'f File,
    at: u64,
    end: u64,
    hasher: Option<Hasher>,
}

impl Content for Extent<'_> {
    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        while buffer.len() < buffer.capacity() {
            let start = buffer.len();
            let read = if self.end == u64::MAX {
                // Straight into memory that nobody has filled with zeros before.
                match rustix::io::pread(self.file, spare_capacity(buffer), self.at) {
                    Ok(read) => read,
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                }
            } else {
                let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
                buffer.resize(start + left.min(buffer.capacity() - start), 0);
                let result = self.file.read_at(&mut buffer[start..], self.at);
                buffer.truncate(start + result.as_ref().map_or(0, |read| *read));
                match result {
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
            };
            self.at += read as u64;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[start..]);
            }
            if read == 0 || self.at == self.end {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads what is no file until the capacity of `buffer` is used up; true at the end.
pub(super) fn fill_from(reader: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let (mut len, capacity) = (buffer.len(), buffer.capacity());
    buffer.resize(capacity, 0);
    let result = loop {
        if len == capacity {
            break Ok(false);
        }
        match reader.read(&mut buffer[len..]) {
            Ok(0) => break Ok(true),
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    buffer.truncate(len);
    result
}

/// The chunks of a part.
fn chunk_count(count: usize) -> u32 {
    u32::try_from(count).expect("a buffer has far fewer chunks than bytes")
}
