//! Streams: read once, on the walking thread, and good only if their end is.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::backup::assemble::{FrameId, file_node};
use crate::backup::files::{FileError, FileReader, ReadContent, Stream};
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

/// Reads a stream into a file of a directory that is being collected.
///
/// # Errors
/// Where it breaks, or its end is not good: there must be no snapshot then.
pub(super) fn read(
    pipeline: &mut Pipeline<'_, '_>,
    files: &mut FileReader,
    frame: FrameId,
    source: StreamSource,
    (grain, time): (Option<Grain>, Timestamp),
) -> Result<(), BackupError> {
    let StreamSource { name, mut reader, finish } = source;
    let session = pipeline.session;
    let slot = pipeline.assembler.reserve(frame, None);
    let token = pipeline.assembler.begin_file(frame, slot, None);
    let mut stream = Stream { token, parts: 0, grain };
    let mut content = ReadContent(Cancellable { inner: &mut reader, monitor: pipeline.monitor });
    let size = match files.read_stream(pipeline, &mut content, &mut stream, u64::MAX) {
        Ok(size) => size,
        Err(FileError::Run(error)) => return Err(error),
        Err(FileError::File(error)) => return Err(failed(&name, error.to_string())),
    };
    finish().map_err(|reason| failed(&name, reason))?;
    pipeline.end_reading(size);
    let content = FileContent { size, grain: stream.grain, ..FileContent::default() };
    let node = file_node(&name, content, metadata(time));
    pipeline.assembler.end_file(session, token, stream.parts, node)?;
    pipeline.assembler.release(session, frame, slot)
}

/// A stream that breaks off when the operation is cancelled: there is no partial snapshot of a stream.
struct Cancellable<'a> {
    inner: &'a mut (dyn Read + Send),
    monitor: &'a dyn Monitor,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.monitor.is_cancelled() {
            return Err(std::io::Error::other("cancelled"));
        }
        self.inner.read(buffer)
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
