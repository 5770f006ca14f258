//! One inode, held open, and the calls that change its metadata.
//!
//! A handle is either open for reading or writing, or only names the inode (`O_PATH`), which is possible for
//! symbolic links, devices and pipes without following or waking them. The latter refuses the `f…` calls; there
//! the way round is the path `/proc/self/fd/N`, which leads to exactly that inode and no further, even if it is
//! a symbolic link.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, IFlags, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// Longest list of attribute names and largest value, by the kernel's limits.
const XATTR_LIST_MAX: usize = 65_536;

/// An inode that is open, in one of two ways.
#[derive(Clone, Copy)]
pub(super) enum Handle<'fd> {
    /// Opened for reading or writing.
    Open(BorrowedFd<'fd>),
    /// Opened with `O_PATH`.
    Named(BorrowedFd<'fd>),
}

/// Path that leads to the inode behind `fd`.
fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Handle<'_> {
    pub(super) fn stat(self) -> Result<Stat, Errno> {
        match self {
            Self::Open(fd) | Self::Named(fd) => rustix::fs::fstat(fd),
        }
    }

    pub(super) fn set_owner(self, uid: Option<Uid>, gid: Option<Gid>) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Self::Named(fd) => rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    pub(super) fn set_mode(self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Named(fd) => rustix::fs::chmod(proc_path(fd), mode),
        }
    }

    pub(super) fn set_times(self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, times),
            Self::Named(fd) => match rustix::fs::utimensat(fd, "", times, AtFlags::EMPTY_PATH) {
                // Before Linux 5.8.
                Err(Errno::INVAL | Errno::NOENT) => {
                    rustix::fs::utimensat(CWD, proc_path(fd), times, AtFlags::empty())
                }
                other => other,
            },
        }
    }

    /// Names of the extended attributes; none where the file system has no such thing.
    pub(super) fn xattr_names(self) -> Result<Vec<Vec<u8>>, Errno> {
        let mut small = [0_u8; 512];
        let mut large = Vec::new();
        let list = match self.list_xattrs(&mut small) {
            Err(Errno::RANGE) => {
                large.resize(XATTR_LIST_MAX, 0);
                self.list_xattrs(&mut large).map(|length| &large[..length])
            }
            other => other.map(|length| &small[..length]),
        };
        match list {
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(errno) => Err(errno),
            Ok(list) => Ok(list
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
                .map(<[u8]>::to_vec)
                .collect()),
        }
    }

    fn list_xattrs(self, list: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, list),
            Self::Named(fd) => rustix::fs::listxattr(proc_path(fd), list),
        }
    }

    /// Whether the extended attribute has this value.
    pub(super) fn has_xattr(self, name: &[u8], value: &[u8]) -> bool {
        // One byte more, so that a longer value shows.
        let mut buffer = vec![0_u8; value.len() + 1];
        let read = match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut buffer),
            Self::Named(fd) => rustix::fs::getxattr(proc_path(fd), name, &mut buffer),
        };
        read.is_ok_and(|len| buffer.get(..len) == Some(value))
    }

    pub(super) fn set_xattr(self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named(fd) => rustix::fs::setxattr(proc_path(fd), name, value, XattrFlags::empty()),
        }
    }

    pub(super) fn remove_xattr(self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Named(fd) => rustix::fs::removexattr(proc_path(fd), name),
        }
    }

    /// Sets the inode flags within `mask` to those of `wanted` and leaves the others.
    pub(super) fn set_flags(self, wanted: u32, mask: u32) -> Result<(), Errno> {
        let reopened;
        let fd = match self {
            Self::Open(fd) => fd,
            Self::Named(fd) => {
                reopened = reopen(fd, OFlags::RDONLY)?;
                reopened.as_fd()
            }
        };
        let before = rustix::fs::ioctl_getflags(fd)?.bits();
        let after = (before & !mask) | (wanted & mask);
        if after == before {
            return Ok(());
        }
        rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(after))
    }
}

/// Opens once more, in another way, the regular file or directory that the `O_PATH` handle `fd` names.
pub(super) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::open(proc_path(fd), flags, Mode::empty())
}

/// Opens for reading the directory behind `fd`, itself perhaps an `O_PATH` handle.
pub(super) fn open_for_listing(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Gives the owner the rights in `bits`, if we are the owner, lack them and need them (root does not).
pub(super) fn grant_owner(handle: Handle<'_>, stat: &Stat, bits: u32) -> Result<(), Errno> {
    let me = rustix::process::geteuid();
    let mode = stat.st_mode & 0o7777;
    if mode & bits == bits || me.is_root() || stat.st_uid != me.as_raw() {
        return Ok(());
    }
    handle.set_mode(mode | bits)
}
