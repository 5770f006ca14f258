//! Temporary files that nobody else can open and that are gone when they are closed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags};

/// Files that had a name for a moment.
static NAMED: AtomicU64 = AtomicU64::new(0);

/// A new one on the file system of the directory `place`.
///
/// # Errors
/// Where that takes no file.
pub(crate) fn file(place: &Path) -> io::Result<File> {
    let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let fd = rustix::fs::openat(CWD, place, flags | OFlags::TMPFILE, mode).or_else(|_| {
        // Not every file system makes files without a name.
        let number = NAMED.fetch_add(1, Ordering::Relaxed);
        let name = place.join(format!(".strongroom-spill-{}-{number}", std::process::id()));
        let fd = rustix::fs::openat(CWD, &name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
        rustix::fs::unlink(&name)?;
        Ok::<_, rustix::io::Errno>(fd)
    })?;
    Ok(File::from(fd))
}

/// Runs of bytes in a temporary file.
#[derive(Debug)]
pub(crate) struct RunFile {
    file: Arc<File>,
    len: u64,
}

impl RunFile {
    /// An empty one.
    ///
    /// # Errors
    /// As [`file`].
    pub fn new(place: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(file(place)?), len: 0 })
    }

    /// Writes a run behind the others.
    ///
    /// # Errors
    /// Where there is no room for it.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Section> {
        self.file.write_all_at(bytes, self.len)?;
        let (at, end) = (self.len, self.len + bytes.len() as u64);
        self.len = end;
        Ok(Section { file: Arc::clone(&self.file), at, end })
    }
}

/// What is still to be read of a run. Several are read beside each other.
#[derive(Debug)]
pub(crate) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..len], self.at)?;
        if read == 0 && len > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}
