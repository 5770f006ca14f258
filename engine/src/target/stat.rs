//! What a name in the target stands for.

use std::fmt;

use rustix::fs::{FileType, Stat};

use crate::format::tree::{NodeKind, Timestamp};

/// Kind of a directory entry, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
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
    /// Something the kernel has no name for.
    Unknown,
}

impl EntryKind {
    pub(super) const fn from_file_type(file_type: FileType) -> Self {
        match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Unknown => Self::Unknown,
        }
    }
}

impl From<&NodeKind> for EntryKind {
    fn from(kind: &NodeKind) -> Self {
        match kind {
            NodeKind::File(_) => Self::File,
            NodeKind::Directory { .. } => Self::Directory,
            NodeKind::Symlink { .. } => Self::Symlink,
            NodeKind::CharDevice { .. } => Self::CharDevice,
            NodeKind::BlockDevice { .. } => Self::BlockDevice,
            NodeKind::Fifo => Self::Fifo,
            NodeKind::Socket => Self::Socket,
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
            Self::Unknown => "thing of unknown kind",
        })
    }
}

/// An entry as `lstat` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStat {
    /// What it is.
    pub kind: EntryKind,
    /// Length in bytes; for a symbolic link that of its text.
    pub size: u64,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Inode number.
    pub inode: u64,
    /// Number of the device that holds it.
    pub device: u64,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub links: u64,
    /// Major and minor number that a device node stands for; zeros for anything else.
    pub special: (u32, u32),
}

// The fields of `Stat` have other widths on other platforms.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
impl TargetStat {
    pub(super) fn new(stat: &Stat) -> Self {
        Self {
            kind: EntryKind::from_file_type(FileType::from_raw_mode(stat.st_mode)),
            size: stat.st_size as u64,
            mtime: Timestamp { seconds: stat.st_mtime as i64, nanos: stat.st_mtime_nsec as u32 },
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: u64::from(stat.st_nlink),
            special: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        }
    }

    /// Whether both are the same inode.
    pub fn is_same_inode(&self, other: &Self) -> bool {
        (self.inode, self.device) == (other.inode, other.device)
    }
}
