//! What one `statx` tells about an entry of the file system.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp};
use rustix::time::{ClockId, clock_gettime};

use crate::format::tree::{Metadata, Timestamp};

/// The kinds of entries a file system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

impl SourceKind {
    /// The kind that a mode names; `None` where it names none.
    fn from_file_type(file_type: FileType) -> Option<Self> {
        Some(match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Unknown => return None,
        })
    }
}

/// The state of one entry, taken by one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceStat {
    /// What it is.
    pub kind: SourceKind,
    /// Length in bytes; for a symbolic link that of its text.
    pub size: u64,
    /// Bytes that the file system has allocated for it. Less than `size`: sparse, compressed or stored inline.
    pub allocated: u64,
    /// Permission bits with set-id and sticky bits: `st_mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth, where the file system records it.
    pub btime: Option<Timestamp>,
    /// Inode number.
    pub inode: u64,
    /// Number of the device that the entry lies on.
    pub device: u64,
    /// Number of names.
    pub links: u64,
    /// Major number of the device that this entry *is*; 0 for other kinds.
    pub rdev_major: u32,
    /// Minor number of the device that this entry *is*; 0 for other kinds.
    pub rdev_minor: u32,
    /// Attributes that `statx` knows, such as immutable or being the root of a mount.
    pub attributes: StatxAttributes,
}

impl SourceStat {
    /// The state of an open file or directory.
    ///
    /// # Errors
    /// Those of `statx`.
    pub fn of_file(file: impl AsFd) -> io::Result<Self> {
        Self::at(file, b"", AtFlags::EMPTY_PATH)
    }

    /// Waits until the clock that times are taken from has gone past this state's change time, and renews the state
    /// of the open file. What changes the file from then on changes its times, too: without the wait, a change in
    /// the same tick (some milliseconds; seconds on some file systems) as the last one before would look like none.
    ///
    /// False: the file kept changing meanwhile. A change time that lies in the future was taken from another clock,
    /// and is not waited for.
    ///
    /// # Errors
    /// Those of `statx`.
    pub fn settle(&mut self, file: impl AsFd) -> io::Result<bool> {
        let begun = Instant::now();
        loop {
            // Times without a fraction come from a file system that stores none: FAT counts in steps of two seconds.
            let tick = if self.ctime.nanos == 0 { 2 * SECOND } else { 1 };
            let age = now() - nanoseconds(&self.ctime);
            if age >= tick || age < -AHEAD_MAX {
                return Ok(true);
            }
            if begun.elapsed().as_nanos() > (tick + AHEAD_MAX).unsigned_abs() {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
            *self = Self::of_file(&file)?;
        }
    }

    /// The state of `name` in the directory `dir`, of a symbolic link itself.
    ///
    /// The answer is as fresh as that of `stat`: `AT_STATX_DONT_SYNC` would let network file systems answer
    /// from old caches, and a changed file would be taken as unchanged.
    pub(super) fn at(dir: impl AsFd, name: &[u8], flags: AtFlags) -> io::Result<Self> {
        let flags = flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        Self::from_statx(&stat)
    }

    fn from_statx(stat: &Statx) -> io::Result<Self> {
        let mode = u32::from(stat.stx_mode);
        let kind = SourceKind::from_file_type(FileType::from_raw_mode(mode)).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the file system reports an unknown mode {mode:#o}"),
            )
        })?;
        let has_btime = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self {
            kind,
            size: stat.stx_size,
            allocated: stat.stx_blocks.saturating_mul(512),
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mtime: timestamp(&stat.stx_mtime),
            ctime: timestamp(&stat.stx_ctime),
            btime: has_btime.then(|| timestamp(&stat.stx_btime)),
            inode: stat.stx_ino,
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            links: u64::from(stat.stx_nlink),
            rdev_major: stat.stx_rdev_major,
            rdev_minor: stat.stx_rdev_minor,
            attributes: stat.stx_attributes,
        })
    }

    /// Whether nothing tells this entry from the one stored as `metadata`, a regular file with `size` bytes.
    ///
    /// Compared are modification, inode change and inode number, and for regular files the size. The device
    /// is not: its number differs from boot to boot and from one file-system snapshot to the next. The kind is not
    /// either: the caller has it. A change that the clock of the file system cannot tell from the time of the
    /// last backup (some milliseconds on older kernels) is not seen.
    pub fn looks_unchanged(&self, metadata: &Metadata, size: u64) -> bool {
        self.mtime == metadata.mtime
            && self.ctime == metadata.ctime
            && self.inode == metadata.inode
            && (self.kind != SourceKind::File || self.size == size)
    }
}

/// One second in nanoseconds.
const SECOND: i128 = 1_000_000_000;
/// How far the times of this machine's file systems can be ahead of [`now`], with much to spare: kernels tick a hundred
/// times a second at least.
const AHEAD_MAX: i128 = SECOND / 10;

/// The clock that the kernel takes the times of files from, in nanoseconds since 1970.
fn now() -> i128 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * SECOND + i128::from(now.tv_nsec)
}

fn nanoseconds(time: &Timestamp) -> i128 {
    i128::from(time.seconds) * SECOND + i128::from(time.nanos)
}

fn timestamp(time: &StatxTimestamp) -> Timestamp {
    // No file system should say more; a tree that did would be refused when it is read.
    Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec.min(999_999_999) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn metadata_of(stat: &SourceStat) -> Metadata {
        Metadata { mtime: stat.mtime, ctime: stat.ctime, inode: stat.inode, ..Metadata::default() }
    }

    #[test]
    fn agrees_with_the_standard_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![7; 70_000]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
        let stat = SourceStat::of_file(File::open(&path).unwrap()).unwrap();
        let expected = fs::metadata(&path).unwrap();
        assert_eq!(stat.kind, SourceKind::File);
        assert_eq!(stat.size, 70_000);
        assert_eq!(stat.allocated, expected.blocks() * 512);
        assert_eq!(stat.mode, 0o4751);
        assert_eq!((stat.uid, stat.gid), (expected.uid(), expected.gid()));
        assert_eq!((stat.inode, stat.device, stat.links), (expected.ino(), expected.dev(), 1));
        assert_eq!(stat.mtime.seconds, expected.mtime());
        assert_eq!(i64::from(stat.mtime.nanos), expected.mtime_nsec());
        assert_eq!(stat.ctime.seconds, expected.ctime());
        assert_eq!(stat.btime.is_some(), expected.created().is_ok());
    }

    #[test]
    fn times_before_1970_keep_their_sign() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("old")).unwrap();
        let old = std::time::UNIX_EPOCH - Duration::new(10, 250_000_000);
        file.set_modified(old).unwrap();
        let stat = SourceStat::of_file(&file).unwrap();
        assert_eq!(stat.mtime, Timestamp { seconds: -11, nanos: 750_000_000 });
    }

    #[test]
    fn a_change_right_after_settling_shows_in_the_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for round in 0..30_u8 {
            fs::write(&path, [round]).unwrap();
            let file = File::open(&path).unwrap();
            let mut before = SourceStat::of_file(&file).unwrap();
            assert!(before.settle(&file).unwrap());
            fs::write(&path, [round + 1]).unwrap();
            let after = SourceStat::of_file(&file).unwrap();
            assert!(!after.looks_unchanged(&metadata_of(&before), 1), "{before:?}");
        }
    }

    #[test]
    fn every_compared_field_tells_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join("file")).unwrap();
        file.write_all(b"12345").unwrap();
        let stat = SourceStat::of_file(&file).unwrap();
        let stored = metadata_of(&stat);
        assert!(stat.looks_unchanged(&stored, 5));
        assert!(!stat.looks_unchanged(&stored, 6), "size");
        let later = Timestamp { nanos: (stat.mtime.nanos + 1) % 1_000_000_000, ..stat.mtime };
        assert!(!stat.looks_unchanged(&Metadata { mtime: later, ..stored.clone() }, 5), "mtime");
        assert!(!stat.looks_unchanged(&Metadata { ctime: later, ..stored.clone() }, 5), "ctime");
        assert!(!stat.looks_unchanged(&Metadata { inode: stat.inode + 1, ..stored.clone() }, 5), "inode");
        assert!(stat.looks_unchanged(&Metadata { device: Some(99), ..stored }, 5), "the device is ignored");
    }

    #[test]
    fn size_of_a_directory_is_not_compared() {
        let folder = tempfile::tempdir().unwrap();
        let stat = SourceStat::of_file(File::open(folder.path()).unwrap()).unwrap();
        assert_eq!(stat.kind, SourceKind::Directory);
        assert!(stat.looks_unchanged(&metadata_of(&stat), stat.size + 1));
    }
}
