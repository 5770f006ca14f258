//! Folders of a local repository: opened without following links, made durably, listed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::disk;

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the folder at a path that the user gave: links in it are followed.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, FOLDER_FLAGS, Mode::empty())
}

/// Opens a folder of the repository, `relative` to its `root` and empty for the root itself, without
/// following a link anywhere.
pub(super) fn open_beneath(root: impl AsFd, relative: &str) -> Result<OwnedFd, Errno> {
    let open = |at: &OwnedFd, name| {
        rustix::fs::openat(at, name, FOLDER_FLAGS.union(OFlags::NOFOLLOW), Mode::empty())
    };
    let mut folder = rustix::fs::openat(root, ".", FOLDER_FLAGS, Mode::empty())?;
    for name in relative.split('/').filter(|name| !name.is_empty()) {
        folder = open(&folder, name)?;
    }
    Ok(folder)
}

/// Makes the folder `name` in `parent`; not an error if it is there.
pub(super) fn make(parent: impl AsFd, name: impl Arg + Copy) -> Result<(), Errno> {
    match disk::make_folder(parent, name) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Makes the folder at `path` and all above it that are missing, and flushes each entry made.
///
/// What exists already is flushed too, one level up: another process may have made it a moment ago, and
/// goes on only after flushing, so nothing above that can be unflushed.
pub(super) fn make_all(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let existed = match disk::make_folder(CWD, path) {
        Ok(()) => false,
        Err(Errno::EXIST) => true,
        Err(Errno::NOENT) if parent != path => {
            make_all(parent)?;
            make(CWD, path)?;
            false
        }
        // Such as a read-only file system, which may report this before it looks whether the folder exists.
        Err(_) if path.is_dir() => true,
        Err(error) => return Err(error.into()),
    };
    match open_root(parent) {
        Ok(parent) => Ok(disk::sync(parent)?),
        // A folder that others made, in one that we may pass through but not read.
        Err(_) if existed => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The first name in `folder`, in byte order, that `wanted` accepts.
pub(super) fn first_name(
    folder: impl AsFd,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Option<Vec<u8>>, Errno> {
    let mut first: Option<Vec<u8>> = None;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if wanted(name) && first.as_deref().is_none_or(|first| name < first) {
            first = Some(name.to_vec());
        }
    }
    Ok(first)
}

/// Names in `folder` that `wanted` accepts, sorted.
pub(super) fn names(folder: impl AsFd, wanted: impl Fn(&str) -> bool) -> Result<Vec<Box<str>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && wanted(name)
        {
            names.push(name.into());
        }
    }
    names.sort_unstable();
    Ok(names)
}
