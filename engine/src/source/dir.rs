//! Open directories: everything below a root is reached by name from a directory's handle, one level at a
//! time. No path is resolved by the kernel, so paths may be of any length, and a symbolic link put in the way
//! is seen as what it is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::listing::{Listing, Sorter, Spill};
use super::stat::SourceStat;

/// A directory of the source, open for reading.
///
/// Access times are left alone (`O_NOATIME`) where the system lets us: for the owner of a file and for root.
#[derive(Debug)]
pub struct SourceDir {
    fd: OwnedFd,
    /// Cleared once `O_NOATIME` has been refused for this directory or for a file in it.
    noatime: AtomicBool,
    /// Whether the handle's position may be past the first entry.
    listed: bool,
    readable: bool,
}

/// What listing directories takes, to be used again for one after the other.
#[derive(Debug)]
pub struct ListBuffer {
    records: Vec<u8>,
    spill: Spill,
}

impl ListBuffer {
    /// Some thousand entries a system call. Only what a directory fills is ever touched.
    const CAPACITY: usize = 256 * 1024;

    /// A buffer for listings of any length.
    pub fn new(spill: Spill) -> Self {
        Self { records: Vec::with_capacity(Self::CAPACITY), spill }
    }
}

impl SourceDir {
    /// Opens a directory that the user named: symbolic links in `path` are followed.
    ///
    /// # Errors
    /// Those of `open`, [`io::ErrorKind::NotADirectory`] among them.
    pub fn open_root(path: &Path) -> io::Result<Self> {
        let noatime = AtomicBool::new(true);
        let fd = open(CWD, path, OFlags::DIRECTORY, &noatime)?;
        Ok(Self { fd, noatime, listed: false, readable: true })
    }

    /// Opens a directory on the way to one that the user named. One that may be passed but not read, such as a
    /// `/home` with the mode 0711, is opened all the same; it cannot be [listed](Self::list).
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open_way(path: &Path) -> io::Result<Self> {
        match Self::open_root(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
                Ok(Self { fd, noatime: AtomicBool::new(true), listed: false, readable: false })
            }
            outcome => outcome,
        }
    }

    /// Whether it can be read, not only passed.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Opens the directory `name` in this one.
    ///
    /// # Errors
    /// Those of `openat`; a symbolic link of this name is [`io::ErrorKind::NotADirectory`].
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        // Ownership changes at directories, so each one finds out for itself what it may.
        let noatime = AtomicBool::new(true);
        let fd = open(&self.fd, name, OFlags::DIRECTORY | OFlags::NOFOLLOW, &noatime)?;
        Ok(Self { fd, noatime, listed: false, readable: true })
    }

    /// Opens the regular file `name` for reading.
    ///
    /// What was a regular file a moment ago may have become something else: opening does not wait for the
    /// writer of a named pipe, and the caller looks at [`SourceStat::of_file`] before reading.
    ///
    /// # Errors
    /// Those of `openat`: `ELOOP` for a symbolic link, [`io::ErrorKind::WouldBlock`] where another process holds a
    /// write lease (it has been asked to give it up: try again later).
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(File::from(open(&self.fd, name, flags, &self.noatime)?))
    }

    /// All names in the directory, ascending, read anew at each call.
    ///
    /// Exclusive, since two readers would take entries from each other: the position belongs to the handle.
    ///
    /// # Errors
    /// Those of `getdents64`, and of reading a temporary file.
    pub fn list(&mut self, buffer: &mut ListBuffer) -> io::Result<Listing> {
        if self.listed {
            rustix::fs::seek(&self.fd, SeekFrom::Start(0))?;
        }
        self.listed = true;
        let mut names = Sorter::new(&buffer.spill);
        buffer.records.clear();
        let mut records = RawDir::new(&self.fd, buffer.records.spare_capacity_mut());
        while let Some(record) = records.next() {
            let record = record?;
            let name = record.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.finish()
    }

    /// The state of the entry `name`, of a symbolic link itself.
    ///
    /// # Errors
    /// Those of `statx`; [`io::ErrorKind::InvalidData`] for an entry of no known kind.
    pub fn stat(&self, name: &[u8]) -> io::Result<SourceStat> {
        SourceStat::at(&self.fd, name, AtFlags::empty())
    }

    /// The state of this directory.
    ///
    /// # Errors
    /// Those of `statx`.
    pub fn stat_self(&self) -> io::Result<SourceStat> {
        SourceStat::of_file(&self.fd)
    }

    /// The text of the symbolic link `name`, however long.
    ///
    /// # Errors
    /// Those of `readlinkat`: [`io::ErrorKind::InvalidInput`] where it is no link.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }
}

impl AsFd for SourceDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens for reading, without touching the access time where that is allowed.
fn open(
    dir: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    noatime: &AtomicBool,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    if noatime.load(Ordering::Relaxed) {
        match rustix::fs::openat(&dir, path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => {}
            outcome => return outcome,
        }
    }
    let fd = rustix::fs::openat(&dir, path, flags, Mode::empty())?;
    noatime.store(false, Ordering::Relaxed);
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::source::stat::SourceKind;
    use crate::testing::cannot;

    fn root() -> (tempfile::TempDir, SourceDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = SourceDir::open_root(folder.path()).unwrap();
        (folder, dir)
    }

    #[test]
    fn a_root_may_be_reached_by_a_symlink_but_nothing_below() {
        let (folder, dir) = root();
        fs::create_dir(folder.path().join("real")).unwrap();
        fs::write(folder.path().join("real/file"), "x").unwrap();
        symlink("real", folder.path().join("link")).unwrap();
        symlink("real/file", folder.path().join("filelink")).unwrap();
        let through = SourceDir::open_root(&folder.path().join("link")).unwrap();
        assert_eq!(through.stat_self().unwrap(), dir.stat(b"real").unwrap());
        assert_eq!(dir.open_dir(b"link").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        let refused = dir.open_file(b"filelink").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        assert_eq!(dir.stat(b"link").unwrap().kind, SourceKind::Symlink);
    }

    #[test]
    fn opening_a_fifo_without_writer_does_not_wait() {
        let (_folder, dir) = root();
        rustix::fs::mknodat(&dir, "fifo", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let file = dir.open_file(b"fifo").unwrap();
        assert_eq!(SourceStat::of_file(&file).unwrap().kind, SourceKind::Fifo);
    }

    #[test]
    fn names_can_be_read_again_and_see_changes() {
        let (folder, mut dir) = root();
        let mut buffer = ListBuffer::new(Spill::default());
        assert!(dir.list(&mut buffer).unwrap().is_empty(), ". and .. are left out");
        fs::write(folder.path().join("b"), "").unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        for _ in 0..2 {
            let names = dir.list(&mut buffer).unwrap().next_window(10).unwrap();
            assert_eq!(names.iter().collect::<Vec<_>>(), [b"a", b"b"]);
        }
    }

    #[test]
    fn ten_thousand_names_come_sorted_and_whole() {
        let (folder, mut dir) = root();
        for number in 0..10_000u32 {
            // A multiplicative shuffle, so that creation order is not name order.
            let name = format!("{:05}-a-rather-long-name-to-fill-the-buffer", number * 7_919 % 10_000);
            File::create(folder.path().join(name)).unwrap();
        }
        let mut listing = dir.list(&mut ListBuffer::new(Spill::default())).unwrap();
        let names = listing.next_window(10_000).unwrap();
        assert_eq!(names.len(), 10_000);
        for (number, found) in names.iter().enumerate() {
            assert_eq!(found, format!("{number:05}-a-rather-long-name-to-fill-the-buffer").as_bytes());
        }
    }

    #[test]
    fn links_of_any_length_are_read_whole() {
        let (folder, dir) = root();
        for length in [1, 255, 256, 1_000, 4_095] {
            let target = "t".repeat(length);
            symlink(&target, folder.path().join(format!("to-{length}"))).unwrap();
            assert_eq!(dir.read_link(format!("to-{length}").as_bytes()).unwrap(), target.as_bytes());
        }
        fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(dir.read_link(b"file").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_absent_is_not_found() {
        let (folder, dir) = root();
        assert_eq!(dir.stat(b"no").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(dir.open_dir(b"no").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(dir.open_file(b"no").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(folder.path().join("file"), "").unwrap();
        let refused = SourceDir::open_root(&folder.path().join("file")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn reading_own_files_leaves_their_access_time() {
        let (folder, dir) = root();
        let path = folder.path().join("file");
        fs::write(&path, "content").unwrap();
        // Older than the modification: even `relatime` would update it at the next read.
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(fs::FileTimes::new().set_accessed(old))
            .unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut dir.open_file(b"file").unwrap(), &mut text).unwrap();
        assert_eq!(text, "content");
        assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), old);
    }

    /// Whether a handle on a directory of root's may still try `O_NOATIME`, after a file in it was opened.
    fn noatime_is_tried(path: &Path) -> bool {
        let dir = SourceDir::open_root(path).unwrap();
        dir.open_file(b"file").unwrap();
        dir.noatime.load(Ordering::Relaxed)
    }

    #[test]
    fn a_refused_noatime_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(noatime_is_tried(folder.path()), "as the owner");
        let path = folder.path().to_owned();
        let other = std::thread::spawn(move || {
            // Of this thread alone.
            let nobody = rustix::thread::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody)
                .map(|()| assert!(!noatime_is_tried(&path), "as another user"))
        });
        if let Err(error) = other.join().unwrap() {
            cannot("become another user", &error);
        }
    }
}
