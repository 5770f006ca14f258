//! Reading files: into pooled buffers, cut into chunks, handed to the workers; and noticing when a file changes
//! under our eyes.

use std::fs::File;
use std::io::{self, Read};

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

/// A file up to this size is read beside others into one buffer.
const SMALL_LEN_MAX: u64 = 256 << 10;
/// Bytes of a file that decide its grain.
const HEAD_LEN: usize = 64 << 10;
/// How often a file that changes is read again.
const RETRIES: u32 = 2;
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
}

impl FileReader {
    pub fn new(gear: GearTable) -> Self {
        Self { gear, codec: BlockCodec::new(), probe: Vec::new() }
    }

    /// Reads an open regular file. `begin` gives a token for each attempt; the last one given counts.
    pub fn read(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        file: &mut File,
        known: Option<Grain>,
        begin: &mut dyn FnMut(&mut Pipeline<'_, '_>) -> Result<FileToken, BackupError>,
    ) -> Result<ReadFile, FileError> {
        let mut attempt = 0;
        loop {
            let before = SourceStat::of_file(&*file)?;
            let token = begin(pipeline)?;
            let mut read = if before.size <= SMALL_LEN_MAX && before.allocated >= before.size.min(1) {
                self.read_small(pipeline, file, token, &before)?
            } else {
                self.read_large(pipeline, file, token, &before, known)?
            };
            let after = SourceStat::of_file(&*file)?;
            let same = read.size == before.size
                && after.size == before.size
                && after.mtime == before.mtime
                && after.ctime == before.ctime
                && after.inode == before.inode;
            read.stat = before;
            if same {
                return Ok(read);
            }
            if attempt == RETRIES || before.size > RETRY_LEN_MAX {
                read.unstable = true;
                return Ok(read);
            }
            attempt += 1;
            io::Seek::rewind(file)?;
        }
    }

    /// Reads a whole small file into the open batch.
    fn read_small(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        file: &mut File,
        token: FileToken,
        stat: &SourceStat,
    ) -> Result<ReadFile, FileError> {
        // One byte more than expected: that shows at once whether the file has grown.
        let want = usize::try_from(stat.size).expect("small files are small") + 1;
        let batch = pipeline.batch_with_room(want)?;
        let start = batch.bytes.len();
        batch.bytes.resize(start + want, 0);
        let mut len = 0;
        while len < want {
            match file.read(&mut batch.bytes[start + len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    batch.bytes.truncate(start);
                    return Err(error.into());
                }
            }
        }
        batch.bytes.truncate(start + len);
        let cutter = Cutter::new(&self.gear, grain::sizes(Grain::Medium));
        let chunks_before = batch.chunk_lens.len();
        cutter.cut_all(&batch.bytes[start..], true, &mut batch.chunk_lens);
        let chunks = chunk_count(batch.chunk_lens.len() - chunks_before);
        batch.parts.push(Part { file: token, number: 0, chunks });
        pipeline.progress(len as u64);
        Ok(ReadFile {
            stat: *stat,
            size: len as u64,
            holes: Vec::new(),
            grain: None,
            parts: 1,
            unstable: false,
        })
    }

    /// Reads a large or sparse file, buffer by buffer.
    fn read_large(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        file: &mut File,
        token: FileToken,
        stat: &SourceStat,
        known: Option<Grain>,
    ) -> Result<ReadFile, FileError> {
        let mut holes = keep_largest(sparse::holes(file, stat.size, stat.allocated)?, HOLES_MAX);
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
            // To the end, wherever that is by now.
            None if size < stat.size || holes.is_empty() => {
                size += self.read_extent(pipeline, file, &mut stream, size, None, stat.size)?;
            }
            None => {}
        }
        Ok(ReadFile { stat: *stat, size, holes, grain: stream.grain, parts: stream.parts, unstable: false })
    }

    /// Reads one run of data between holes. Chunks do not cross its ends.
    fn read_extent(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        file: &mut File,
        stream: &mut Stream,
        offset: u64,
        length: Option<u64>,
        file_size: u64,
    ) -> Result<u64, FileError> {
        io::Seek::seek(file, io::SeekFrom::Start(offset))?;
        match length {
            Some(length) => self.read_stream(pipeline, &mut file.take(length), stream, file_size),
            None => self.read_stream(pipeline, file, stream, file_size),
        }
    }

    /// Reads a stream to its end. `size_hint` is its expected length: it decides the grain along with the first bytes.
    pub fn read_stream(
        &mut self,
        pipeline: &mut Pipeline<'_, '_>,
        reader: &mut dyn Read,
        stream: &mut Stream,
        size_hint: u64,
    ) -> Result<u64, FileError> {
        let mut total = 0;
        let mut at_end = false;
        while !at_end {
            let batch = pipeline.empty_batch()?;
            // What the last buffer could not decide comes first.
            let carried = batch.bytes.len();
            let capacity = batch.bytes.capacity();
            at_end = fill(reader, &mut batch.bytes, capacity)?;
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
            pipeline.progress(read);
            pipeline.send_keeping(used)?;
            pipeline.relieve()?;
            if pipeline.monitor.is_cancelled() {
                return Err(io::Error::other("the backup was cancelled").into());
            }
        }
        Ok(total)
    }
}

/// The `count` largest of these holes, of equal ones the first, in their order: the others are read as zeros.
fn keep_largest(mut holes: Vec<Hole>, count: usize) -> Vec<Hole> {
    if holes.len() > count {
        holes.sort_unstable_by_key(|hole| (std::cmp::Reverse(hole.length), hole.offset));
        holes.truncate(count);
        holes.sort_unstable_by_key(|hole| hole.offset);
    }
    holes
}

/// Where the chunks of a stream go.
#[derive(Debug)]
pub(super) struct Stream {
    pub token: FileToken,
    pub parts: u32,
    pub grain: Option<Grain>,
}

/// Reads until `buffer` holds `capacity` bytes; true at the end of the stream.
fn fill(reader: &mut dyn Read, buffer: &mut Vec<u8>, capacity: usize) -> io::Result<bool> {
    let mut len = buffer.len();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_holes_the_largest_stay_in_their_order() {
        let holes = |ranges: &[(u64, u64)]| -> Vec<Hole> {
            ranges.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect()
        };
        let all = [(0, 10), (20, 5), (30, 40), (80, 10), (100, 10)];
        assert_eq!(keep_largest(holes(&all), 5), holes(&all));
        assert_eq!(keep_largest(holes(&all), 3), holes(&[(0, 10), (30, 40), (80, 10)]));
        assert_eq!(keep_largest(holes(&all), 1), holes(&[(30, 40)]));
        assert_eq!(keep_largest(holes(&[]), 1), []);
    }
}
