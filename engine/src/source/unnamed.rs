//! Temporary files that nobody else can open and that are gone when they are closed.

use std::fs::File;
use std::io;
use std::path::Path;
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
        let name = place.join(format!(".strongroom-names-{}-{number}", std::process::id()));
        let fd = rustix::fs::openat(CWD, &name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
        rustix::fs::unlink(&name)?;
        Ok::<_, rustix::io::Errno>(fd)
    })?;
    Ok(File::from(fd))
}
