//! The directory that a restore writes into, and every operation on what is below it.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::cache::DirectoryCache;
use super::error::TargetError;
use super::handle::{Handle, grant_owner, open_for_listing};
use super::name::RelativePath;
use super::resolve::Resolution;
use super::stat::{EntryKind, TargetStat};

/// How often a name is cleared and tried again while somebody else keeps taking it.
const ATTEMPTS: usize = 8;

/// What to do with something that already has the name of an entry to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Fail with [`TargetError::InTheWay`].
    Refuse,
    /// Remove it, unless it is a directory: that takes an explicit [`TargetRoot::remove_tree`].
    Replace,
}

/// What [`TargetRoot::make_dir`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeDir {
    /// The directory is new.
    Created,
    /// A real directory was there; if it is ours and we are not root, we now may read and write it.
    Existing,
}

/// A special file to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialNode {
    /// A named pipe.
    Fifo,
    /// A Unix socket, bound by nobody.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number, at most 4095.
        major: u32,
        /// Minor number, at most 1048575.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number, at most 4095.
        major: u32,
        /// Minor number, at most 1048575.
        minor: u32,
    },
}

/// An open target directory. Paths are relative to it; see [`crate::target`] for what is guaranteed.
///
/// All methods may be called from many threads at once.
pub struct TargetRoot {
    root: Arc<OwnedFd>,
    pub(super) resolution: Resolution,
    cache: DirectoryCache,
}

impl TargetRoot {
    /// Opens the directory `path`, following symbolic links in it because the user named it; with `create`
    /// it is made first, parents included, if it is missing.
    pub fn open(path: &Path, create: bool) -> Result<Self, TargetError> {
        let root = open_root(path, create)
            .map_err(|source| TargetError::Open { path: path.display().to_string(), source })?;
        let resolution = Resolution::probe(root.as_fd());
        Ok(Self { root: Arc::new(root), resolution, cache: DirectoryCache::new(true) })
    }

    /// As [`Self::open`], with the way of resolving chosen and the cache on or off.
    #[cfg(test)]
    pub(super) fn open_as(path: &Path, resolution: Resolution, cached: bool) -> Result<Self, TargetError> {
        Ok(Self { resolution, cache: DirectoryCache::new(cached), ..Self::open(path, false)? })
    }

    /// Waits until all that was written to the file system is on disk.
    ///
    /// # Errors
    /// [`TargetError::Io`] where something failed to get there, this restore's doing or not.
    pub fn sync(&self) -> Result<(), TargetError> {
        const SYNC: &str = "flush to disk what was written below";
        // A handle that only names a directory cannot be flushed.
        open_for_listing(self.root.as_fd())
            .and_then(rustix::fs::syncfs)
            .map_err(|errno| TargetError::io(SYNC, &RelativePath::root(), errno))
    }

    /// Makes the directory `path` with the permission bits `mode` (of which the process's umask is taken
    /// away); its parent must exist. Use 0o700 until its metadata is applied.
    ///
    /// A real directory in its place is fine. A symbolic link or a file is never used as one.
    pub fn make_dir(
        &self,
        path: &RelativePath,
        mode: u32,
        obstacle: Obstacle,
    ) -> Result<MadeDir, TargetError> {
        const MAKE: &str = "make the directory";
        for _ in 0..ATTEMPTS {
            match self
                .in_parent(MAKE, path, |parent, name| rustix::fs::mkdirat(parent, name, permission(mode)))
            {
                Ok(()) => {
                    self.forget(path);
                    return Ok(MadeDir::Created);
                }
                Err(error) if !error.is(Errno::EXIST) => return Err(error),
                Err(_) => {}
            }
            let Some(found) = self.stat(path)? else { continue };
            if found.kind != EntryKind::Directory {
                self.clear_name(MAKE, path, obstacle, found.kind)?;
                continue;
            }
            match self.accept_existing_dir(path) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                other => {
                    return other
                        .map(|()| MadeDir::Existing)
                        .map_err(|errno| TargetError::io(MAKE, path, errno));
                }
            }
        }
        Err(TargetError::io(MAKE, path, Errno::EXIST))
    }

    /// Opens what is a directory now, so that it is the very one that the next operations use.
    fn accept_existing_dir(&self, path: &RelativePath) -> Result<(), Errno> {
        self.forget(path);
        let directory = self.directory(path.as_bytes())?;
        grant_owner(Handle::Named(directory.as_fd()), &rustix::fs::fstat(&directory)?, 0o700)
    }

    /// Creates the regular file `path`, open for reading and writing. It never opens one that is there.
    ///
    /// `mode` are its permission bits from the start (less the process's umask): take
    /// [`creation_mode`](super::metadata::creation_mode), so that nobody reads it who may not later.
    pub fn create_file(
        &self,
        path: &RelativePath,
        mode: u32,
        obstacle: Obstacle,
    ) -> Result<File, TargetError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.create("create the file", path, obstacle, |parent, name| {
            openat(parent, name, flags, permission(mode))
        })?;
        Ok(file.into())
    }

    /// Opens the regular file `path` for reading and writing in place; `None` if there is none.
    ///
    /// Anything else in its place is [`TargetError::InTheWay`], and neither followed nor waited for. A file with
    /// more than one name is [`TargetError::Shared`]: another name may lie outside the target. A file of ours
    /// that we may not write is given the owner's permission to.
    pub fn open_existing(&self, path: &RelativePath) -> Result<Option<File>, TargetError> {
        const OPEN: &str = "open the file";
        let Some(entry) = self.open_entry(OPEN, path)? else { return Ok(None) };
        entry.expect_kind(OPEN, path, EntryKind::File)?;
        entry.expect_links(OPEN, path, 1)?;
        let open = || self.in_parent(OPEN, path, open_for_writing);
        let opened = match open() {
            Err(error) if error.is(Errno::ACCESS) => {
                grant_owner(entry.handle(), &entry.raw, 0o600)
                    .map_err(|errno| TargetError::io(OPEN, path, errno))?;
                open()
            }
            other => other,
        };
        let opened = match opened {
            Err(error) if error.is(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let raw = rustix::fs::fstat(&opened).map_err(|errno| TargetError::io(OPEN, path, errno))?;
        let opened = Entry { stat: TargetStat::new(&raw), raw, fd: opened };
        opened.expect_kind(OPEN, path, EntryKind::File)?;
        opened.expect_links(OPEN, path, 1)?;
        Ok(Some(opened.fd.into()))
    }

    /// Fails if `path` is a directory.
    pub fn expect_no_directory(&self, path: &RelativePath) -> Result<(), TargetError> {
        let found = EntryKind::Directory;
        if self.stat(path)?.is_some_and(|stat| stat.kind == found) {
            return Err(TargetError::InTheWay { operation: "create the file", path: path.clone(), found });
        }
        Ok(())
    }

    /// Makes the symbolic link `path` with the text `text`, whatever that points to.
    pub fn symlink(&self, path: &RelativePath, text: &[u8], obstacle: Obstacle) -> Result<(), TargetError> {
        self.create("make the symbolic link", path, obstacle, |parent, name| {
            rustix::fs::symlinkat(text, parent, name)
        })
    }

    /// Gives the entry `existing` the second name `new`. A symbolic link is linked itself, never what it
    /// points to. If `existing` and `new` already are one inode, nothing is done. Whether the name was made.
    pub fn hard_link(
        &self,
        existing: &RelativePath,
        new: &RelativePath,
        obstacle: Obstacle,
    ) -> Result<bool, TargetError> {
        const LINK: &str = "make the hard link";
        // Where nothing may be replaced there is nothing to be found either.
        if obstacle == Obstacle::Replace && self.is_same_inode(existing, new)? {
            return Ok(false);
        }
        let (from_path, from_name) = existing.split().ok_or(TargetError::IsRoot { operation: LINK })?;
        let from = self.parent(LINK, existing, from_path)?;
        self.create(LINK, new, obstacle, |parent, name| {
            rustix::fs::linkat(&from, from_name, parent, name, AtFlags::empty())
        })?;
        Ok(true)
    }

    /// Whether both are there and names of one inode.
    pub fn is_same_inode(&self, one: &RelativePath, other: &RelativePath) -> Result<bool, TargetError> {
        let (one, other) = (self.stat(one)?, self.stat(other)?);
        Ok(one.is_some_and(|one| other.is_some_and(|other| one.is_same_inode(&other))))
    }

    /// Makes a special file with the permission bits `mode`, less the process's umask.
    ///
    /// Devices take privilege: see [`TargetError::is_not_permitted`].
    pub fn make_node(
        &self,
        path: &RelativePath,
        node: SpecialNode,
        mode: u32,
        obstacle: Obstacle,
    ) -> Result<(), TargetError> {
        let (file_type, (major, minor)) = match node {
            SpecialNode::Fifo => (FileType::Fifo, (0, 0)),
            SpecialNode::Socket => (FileType::Socket, (0, 0)),
            SpecialNode::CharDevice { major, minor } => (FileType::CharacterDevice, (major, minor)),
            SpecialNode::BlockDevice { major, minor } => (FileType::BlockDevice, (major, minor)),
        };
        if major > 0xfff || minor > 0xf_ffff {
            return Err(TargetError::DeviceNumber { path: path.clone(), major, minor });
        }
        let device = rustix::fs::makedev(major, minor);
        self.create("make the special file", path, obstacle, |parent, name| {
            rustix::fs::mknodat(parent, name, file_type, permission(mode), device)
        })
    }

    /// Removes the entry `path`, which must not be a directory; one that is not there is fine.
    pub fn remove(&self, path: &RelativePath) -> Result<(), TargetError> {
        const REMOVE: &str = "remove";
        match self
            .in_parent(REMOVE, path, |parent, name| rustix::fs::unlinkat(parent, name, AtFlags::empty()))
        {
            Ok(()) => self.cache.forget(path.as_bytes()),
            Err(error) if error.is(Errno::NOENT) => {}
            Err(error @ TargetError::Io { .. }) => return Err(self.blame_directory(REMOVE, path, error)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    // Unlinking a directory fails with one of two errors that do not say why.
    fn blame_directory(
        &self,
        operation: &'static str,
        path: &RelativePath,
        error: TargetError,
    ) -> TargetError {
        let found = EntryKind::Directory;
        match self.stat(path) {
            Ok(Some(stat)) if stat.kind == found => {
                TargetError::InTheWay { operation, path: path.clone(), found }
            }
            _ => error,
        }
    }

    /// What `path` is, not following it; `None` if there is nothing.
    pub fn stat(&self, path: &RelativePath) -> Result<Option<TargetStat>, TargetError> {
        const LOOK: &str = "look at";
        let stat = if path.is_root() {
            rustix::fs::fstat(&self.root).map_err(|errno| TargetError::io(LOOK, path, errno))
        } else {
            self.in_parent(LOOK, path, |parent, name| statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))
        };
        absent_is_none(stat.map(|stat| TargetStat::new(&stat)))
    }

    /// The text of the symbolic link `path`; `None` if there is nothing.
    pub fn read_link(&self, path: &RelativePath) -> Result<Option<Vec<u8>>, TargetError> {
        let text = self.in_parent("read the symbolic link", path, |parent, name| {
            rustix::fs::readlinkat(parent, name, Vec::new())
        });
        absent_is_none(text.map(std::ffi::CString::into_bytes))
    }

    /// Tells `each` the names of all entries of the directory `path`, in no order, until it has heard enough.
    pub fn for_each_name(
        &self,
        path: &RelativePath,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), TargetError> {
        const LIST: &str = "list the directory";
        let directory = self.parent(LIST, path, path.as_bytes())?;
        list(directory.as_fd(), each).map_err(|errno| TargetError::io(LIST, path, errno))
    }

    /// Whether the directory `path` has no entries.
    pub fn is_empty(&self, path: &RelativePath) -> Result<bool, TargetError> {
        let mut is_empty = true;
        self.for_each_name(path, &mut |_| {
            is_empty = false;
            ControlFlow::Break(())
        })?;
        Ok(is_empty)
    }

    /// Drops what is cached for `path` and below.
    pub(super) fn forget(&self, path: &RelativePath) {
        self.cache.forget(path.as_bytes());
    }

    /// A handle on the entry itself, whatever it is; `None` if there is nothing.
    pub(super) fn open_entry(
        &self,
        operation: &'static str,
        path: &RelativePath,
    ) -> Result<Option<Entry>, TargetError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = if path.is_root() {
            openat(&self.root, ".", flags, Mode::empty())
                .map_err(|errno| TargetError::io(operation, path, errno))
        } else {
            self.in_parent(operation, path, |parent, name| openat(parent, name, flags, Mode::empty()))
        };
        let Some(fd) = absent_is_none(opened)? else { return Ok(None) };
        let raw = rustix::fs::fstat(&fd).map_err(|errno| TargetError::io(operation, path, errno))?;
        Ok(Some(Entry { stat: TargetStat::new(&raw), raw, fd }))
    }

    /// Creates something whose call fails if the name is taken, clearing the name first if that is wished.
    fn create<T>(
        &self,
        operation: &'static str,
        path: &RelativePath,
        obstacle: Obstacle,
        mut act: impl FnMut(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, TargetError> {
        for _ in 0..ATTEMPTS {
            match self.in_parent(operation, path, &mut act) {
                Err(error) if error.is(Errno::EXIST) => {}
                other => return other,
            }
            if let Some(found) = self.stat(path)? {
                self.clear_name(operation, path, obstacle, found.kind)?;
            }
        }
        Err(TargetError::io(operation, path, Errno::EXIST))
    }

    fn clear_name(
        &self,
        operation: &'static str,
        path: &RelativePath,
        obstacle: Obstacle,
        found: EntryKind,
    ) -> Result<(), TargetError> {
        if obstacle == Obstacle::Refuse || found == EntryKind::Directory {
            return Err(TargetError::InTheWay { operation, path: path.clone(), found });
        }
        self.remove(path)
    }

    /// Runs `act` on the parent directory of `path` and the last name.
    pub(super) fn in_parent<T>(
        &self,
        operation: &'static str,
        path: &RelativePath,
        mut act: impl FnMut(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, TargetError> {
        let (parent_path, name) = path.split().ok_or(TargetError::IsRoot { operation })?;
        let parent = self.parent(operation, path, parent_path)?;
        let result = match act(parent.as_fd(), name) {
            // The directory that the cache holds was removed, perhaps to be made anew.
            Err(Errno::NOENT | Errno::STALE) if is_removed(&parent) => {
                self.cache.forget(parent_path);
                let parent = self.parent(operation, path, parent_path)?;
                act(parent.as_fd(), name)
            }
            other => other,
        };
        result.map_err(|errno| TargetError::io(operation, path, errno))
    }

    fn parent(
        &self,
        operation: &'static str,
        path: &RelativePath,
        directory: &[u8],
    ) -> Result<Arc<OwnedFd>, TargetError> {
        self.directory(directory).map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
                TargetError::ParentNotDirectory { operation, path: path.clone(), source: errno.into() }
            }
            errno => TargetError::io(operation, path, errno),
        })
    }

    /// A handle on the directory `path`, from the cache or walked to from its nearest cached ancestor.
    fn directory(&self, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(known) = self.cache.get(path) {
            return Ok(known);
        }
        let (base, rest) = self.nearest_cached(path);
        let opened = Arc::new(self.resolution.open_directory(base.as_fd(), rest)?);
        self.cache.put(path, &opened);
        Ok(opened)
    }

    /// The nearest of a few ancestors that is cached, else the root, and the way on from there.
    fn nearest_cached<'path>(&self, path: &'path [u8]) -> (Arc<OwnedFd>, &'path [u8]) {
        let mut ancestor = path;
        for _ in 0..ATTEMPTS {
            (ancestor, _) = super::name::split_last(ancestor);
            if ancestor.is_empty() {
                break;
            }
            if let Some(known) = self.cache.get(ancestor)
                && !is_removed(&known)
            {
                return (known, &path[ancestor.len() + 1..]);
            }
        }
        (Arc::clone(&self.root), path)
    }
}

/// An entry held open without following it.
pub(super) struct Entry {
    /// `O_PATH` handle, except in [`TargetRoot::open_existing`].
    pub(super) fd: OwnedFd,
    pub(super) stat: TargetStat,
    raw: rustix::fs::Stat,
}

impl Entry {
    pub(super) fn handle(&self) -> Handle<'_> {
        Handle::Named(self.fd.as_fd())
    }

    pub(super) fn expect_kind(
        &self,
        operation: &'static str,
        path: &RelativePath,
        kind: EntryKind,
    ) -> Result<(), TargetError> {
        if self.stat.kind == kind {
            return Ok(());
        }
        Err(TargetError::InTheWay { operation, path: path.clone(), found: self.stat.kind })
    }

    /// Fails if the inode has more than `expected` names; directories have theirs by their children.
    pub(super) fn expect_links(
        &self,
        operation: &'static str,
        path: &RelativePath,
        expected: u64,
    ) -> Result<(), TargetError> {
        if self.stat.kind == EntryKind::Directory || self.stat.links <= expected {
            return Ok(());
        }
        Err(TargetError::Shared { operation, path: path.clone(), links: self.stat.links, expected })
    }
}

fn open_root(path: &Path, create: bool) -> std::io::Result<OwnedFd> {
    if create {
        std::fs::create_dir_all(path)?;
    }
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

// `O_NONBLOCK` for the case that a pipe or device has come into the file's place since we looked.
fn open_for_writing(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat(parent, name, flags, Mode::empty())
}

fn list(directory: BorrowedFd<'_>, each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), Errno> {
    for entry in Dir::new(open_for_listing(directory)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && each(name).is_break() {
            break;
        }
    }
    Ok(())
}

fn is_removed(directory: &OwnedFd) -> bool {
    rustix::fs::fstat(directory).map_or(true, |stat| stat.st_nlink == 0)
}

fn permission(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}

fn absent_is_none<T>(result: Result<T, TargetError>) -> Result<Option<T>, TargetError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
