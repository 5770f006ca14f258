//! Streams: read on the walking thread, good only if their end is, and read again only as far as their beginning was kept.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::backup::assemble::{FrameId, file_node};
use crate::backup::files::{Content, FileError, FileReader, Stream, fill_from};
use crate::backup::options::{BackupError, StreamSource};
use crate::backup::pipeline::Pipeline;
use crate::format::tree::{FileContent, Grain, Metadata, Timestamp};
use crate::monitor::Monitor;

/// Where a stream of this name is in a snapshot.
pub(super) fn place(name: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(name))
}

/// Makes sure that a stream can have its name.
///
/// # Errors
/// [`BackupError::Stream`].
pub(super) fn check_name(name: &[u8]) -> Result<(), BackupError> {
    crate::target::check_name(name).map_err(|error| failed(name, error.to_string()))
}

/// What became of a stream.
pub(super) fn failed(name: &[u8], reason: String) -> BackupError {
    BackupError::Stream { name: String::from_utf8_lossy(name).into_owned(), reason }
}

/// A stream, with its beginning as far as that is kept: as long as this is all that was read, it can be read again.
pub(super) struct KeptStream {
    pub name: Vec<u8>,
    reader: Box<dyn Read + Send>,
    end: End,
    kept: Vec<u8>,
    kept_max: usize,
    /// Whether all that was read is kept.
    is_whole: bool,
}

/// The end of a stream, and what is known of it.
enum End {
    /// It was not read so far; who says whether it is good.
    Ahead(Box<dyn FnOnce() -> Result<(), String> + Send>),
    Known(Result<(), String>),
}

impl KeptStream {
    /// The streams of a run, of which nothing was read. Of all together so many bytes are to be kept.
    pub fn all(streams: Vec<StreamSource>, kept: usize) -> Vec<Self> {
        let kept_max = kept / streams.len().max(1);
        let keep = |StreamSource { name, reader, finish }| Self {
            name,
            reader,
            end: End::Ahead(finish),
            kept: Vec::new(),
            kept_max,
            is_whole: true,
        };
        streams.into_iter().map(keep).collect()
    }

    /// Whether it can be read from its beginning.
    pub fn is_at_hand(&self) -> bool {
        self.is_whole
    }

    /// Whether its end is good, once it was read.
    fn finish(&mut self) -> Result<(), String> {
        let outcome = match std::mem::replace(&mut self.end, End::Known(Ok(()))) {
            End::Ahead(finish) => finish(),
            End::Known(outcome) => outcome,
        };
        self.end = End::Known(outcome.clone());
        outcome
    }
}

/// Reads a stream into a file of a directory that is being collected.
///
/// # Errors
/// Where it breaks, or its end is not good: there must be no snapshot then.
pub(super) fn read(
    pipeline: &mut Pipeline<'_, '_>,
    files: &mut FileReader,
    frame: FrameId,
    source: &mut KeptStream,
    (grain, time): (Option<Grain>, Timestamp),
) -> Result<(), BackupError> {
    let name = source.name.clone();
    let session = pipeline.session;
    let slot = pipeline.assembler.reserve(frame, None);
    let token = pipeline.assembler.begin_file(frame, slot, None);
    let mut stream = Stream { token, parts: 0, grain };
    let monitor = pipeline.monitor;
    let mut content = Reading { stream: &mut *source, at: 0, monitor };
    let size = match files.read_stream(pipeline, &mut content, &mut stream, u64::MAX) {
        Ok(size) => size,
        Err(FileError::Run(error)) => return Err(error),
        Err(FileError::File(error)) => return Err(failed(&name, error.to_string())),
    };
    source.finish().map_err(|reason| failed(&name, reason))?;
    pipeline.end_reading(size);
    let content = FileContent { size, grain: stream.grain, ..FileContent::default() };
    let node = file_node(&name, content, metadata(time));
    pipeline.assembler.end_file(session, token, stream.parts, node)?;
    pipeline.assembler.release(session, frame, slot)
}

/// A stream that is being read, from what is kept of it first. It breaks off when the operation is cancelled: there is no partial snapshot
/// of a stream.
struct Reading<'a> {
    stream: &'a mut KeptStream,
    /// How much of what is kept was read this time.
    at: usize,
    monitor: &'a dyn Monitor,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.monitor.is_cancelled() {
            return Err(std::io::Error::other("cancelled"));
        }
        let stream = &mut *self.stream;
        let ahead = &stream.kept[self.at..];
        if !ahead.is_empty() {
            let len = ahead.len().min(buffer.len());
            buffer[..len].copy_from_slice(&ahead[..len]);
            self.at += len;
            return Ok(len);
        }
        if matches!(stream.end, End::Known(_)) {
            return Ok(0);
        }
        let read = stream.reader.read(buffer)?;
        if stream.is_whole {
            stream.kept.extend_from_slice(&buffer[..read]);
            self.at += read;
        }
        Ok(read)
    }
}

impl Content for Reading<'_> {
    fn fill(&mut self, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
        fill_from(self, buffer)
    }

    /// Before more is read than can be kept, the run says that it is at work: from then on prunes let it keep what it relied on.
    fn sent(&mut self, pipeline: &mut Pipeline<'_, '_>) -> Result<(), BackupError> {
        let kept = self.stream.kept.len();
        // What is read again comes first, all of it.
        if self.stream.is_whole && (kept <= self.stream.kept_max || self.at < kept) {
            return Ok(());
        }
        pipeline.give_sign()?;
        self.stream.is_whole = false;
        (self.stream.kept, self.at) = (Vec::new(), 0);
        Ok(())
    }
}

/// A stream has no metadata of its own: it is its reader's file, made now.
fn metadata(time: Timestamp) -> Metadata {
    Metadata {
        mode: 0o600,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: time,
        ctime: time,
        ..Metadata::default()
    }
}
