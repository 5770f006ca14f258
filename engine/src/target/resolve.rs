//! From a directory handle and a path below it to the handle of another directory, without ever following a
//! symbolic link or leaving the first directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, fstat, openat, openat2, statx};
use rustix::io::Errno;

/// Longest path handed to one system call, in bytes; the kernel takes 4095.
const LONGEST_PIECE: usize = 4000;

/// How often the kernel may ask to try again (`EAGAIN`, a rename elsewhere) before the slow way is taken.
const ATTEMPTS: usize = 8;

/// A handle that names a directory and can neither read nor change it.
pub(super) const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Stay below, follow nothing.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Who walks the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The kernel, with `openat2` (Linux 5.6 and later, if no sandbox forbids it).
    Kernel,
    /// We, name by name.
    Components,
}

impl Resolution {
    /// What works here, tried on the directory `base`.
    pub(super) fn probe(base: BorrowedFd<'_>) -> Self {
        match openat2(base, ".", DIRECTORY, Mode::empty(), BENEATH) {
            Ok(_) => Self::Kernel,
            Err(_) => Self::Components,
        }
    }

    /// Opens the directory `path`, one or more checked names joined by `/`, below `base`.
    ///
    /// Fails with `ELOOP` or `ENOTDIR` if any name on the way is a symbolic link or not a directory.
    pub(super) fn open_directory(self, base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        while !rest.is_empty() {
            let (piece, after) = self.cut(rest);
            let from = at.as_ref().map_or(base, |fd| fd.as_fd());
            at = Some(self.open_piece(from, piece)?);
            rest = after;
        }
        at.ok_or(Errno::INVAL)
    }

    /// Opens the directory `name` in `parent`, unless something is mounted there.
    pub(super) fn open_same_mount(self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
        match self {
            Self::Kernel => {
                retry(|| openat2(parent, name, DIRECTORY, Mode::empty(), BENEATH | ResolveFlags::NO_XDEV))
            }
            Self::Components => {
                let opened = openat(parent, name, DIRECTORY, Mode::empty())?;
                if is_same_mount(parent, opened.as_fd())? { Ok(opened) } else { Err(Errno::XDEV) }
            }
        }
    }

    /// The part of `path` that one system call can take, and what is left after it.
    fn cut(self, path: &[u8]) -> (&[u8], &[u8]) {
        let end = match self {
            Self::Components => path.iter().position(|byte| *byte == b'/'),
            Self::Kernel if path.len() <= LONGEST_PIECE => None,
            // A name has at most 255 bytes, so there is a slash.
            Self::Kernel => path[..LONGEST_PIECE].iter().rposition(|byte| *byte == b'/'),
        };
        end.map_or((path, &[]), |slash| (&path[..slash], &path[slash + 1..]))
    }

    fn open_piece(self, base: BorrowedFd<'_>, piece: &[u8]) -> Result<OwnedFd, Errno> {
        match self {
            Self::Components => openat(base, piece, DIRECTORY, Mode::empty()),
            Self::Kernel => match retry(|| openat2(base, piece, DIRECTORY, Mode::empty(), BENEATH)) {
                Err(Errno::AGAIN) => Self::Components.open_directory(base, piece),
                other => other,
            },
        }
    }
}

// Before Linux 5.8 only the device can be compared, which does not tell bind mounts of one file system apart.
fn is_same_mount(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mount_of = |fd| match statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) => {
            Some(stat.stx_mnt_id)
        }
        _ => None,
    };
    let same_device = fstat(one)?.st_dev == fstat(other)?.st_dev;
    Ok(match (mount_of(one), mount_of(other)) {
        (Some(one), Some(other)) => one == other,
        _ => same_device,
    })
}

fn retry<T>(mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..ATTEMPTS {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    open()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_told_from_directories() {
        let top = std::fs::File::open("/").unwrap();
        for resolution in [Resolution::Kernel, Resolution::Components] {
            let mounted = resolution.open_same_mount(top.as_fd(), b"proc");
            assert_eq!(mounted.unwrap_err(), Errno::XDEV, "{resolution:?}");
            let sandbox = tempfile::tempdir().unwrap();
            std::fs::create_dir(sandbox.path().join("d")).unwrap();
            let parent = std::fs::File::open(sandbox.path()).unwrap();
            resolution.open_same_mount(parent.as_fd(), b"d").unwrap();
        }
    }

    #[test]
    fn long_paths_are_cut_at_slashes_and_nothing_is_lost() {
        let path = [&[b'x'; 200][..]; 100].join(&b'/');
        for resolution in [Resolution::Kernel, Resolution::Components] {
            let (mut pieces, mut rest) = (Vec::new(), &path[..]);
            while !rest.is_empty() {
                let (piece, after) = resolution.cut(rest);
                assert!(piece.len() <= LONGEST_PIECE);
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(pieces.join(&b'/'), path);
        }
    }
}
