//! Removing a directory with everything in it, by handles alone.
//!
//! Every directory is opened as a child of the one that was opened before it, never by a path, so a symbolic
//! link that takes a directory's place is unlinked and not entered. Mount points are not entered either. The
//! number of open handles is bounded: what lies deeper is first moved up, next to the other children of the
//! directory that is being removed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use super::error::TargetError;
use super::handle::{Handle, grant_owner, open_for_listing};
use super::name::RelativePath;
use super::resolve::Resolution;
use super::root::TargetRoot;

/// Directories open at once.
const DEEPEST: usize = 64;

/// How often a directory is listed again because somebody adds to it while it is being emptied.
const RESCANS: usize = 16;

impl TargetRoot {
    /// Removes the entry `path`, a directory with everything below it; one that is not there is fine.
    ///
    /// Stops at the first entry that cannot be removed, and at mount points (`EXDEV`), which it does not enter.
    pub fn remove_tree(&self, path: &RelativePath) -> Result<(), TargetError> {
        const REMOVE: &str = "remove the directory";
        match self.remove(path) {
            Err(TargetError::InTheWay { .. }) => {}
            other => return other,
        }
        let result = self.in_parent(REMOVE, path, |parent, name| {
            let emptied = Removal {
                resolution: self.resolution,
                parent,
                levels: Vec::new(),
                moved: Vec::new(),
                moves: 0,
            };
            Ok(emptied.run(name))
        })?;
        self.forget(path);
        result.map_err(|(below, errno)| {
            let at = below.iter().try_fold(path.clone(), |at, name| at.join(name));
            TargetError::io(REMOVE, &at.unwrap_or_else(|_| path.clone()), errno)
        })
    }
}

/// An error and the names that lead from the removed directory to the entry it belongs to.
type Failure = (Vec<Vec<u8>>, Errno);

struct Removal<'fd> {
    resolution: Resolution,
    parent: BorrowedFd<'fd>,
    /// The directories being emptied, each a child of the one before it.
    levels: Vec<Level>,
    /// Names of directories moved up into the first level.
    moved: Vec<Vec<u8>>,
    moves: u64,
}

struct Level {
    name: Vec<u8>,
    fd: OwnedFd,
    listing: Dir,
    rescans: usize,
}

impl Removal<'_> {
    fn run(mut self, name: &[u8]) -> Result<(), Failure> {
        let first = open_level(self.resolution, self.parent, name).map_err(|errno| (Vec::new(), errno))?;
        self.levels.push(first);
        while !self.levels.is_empty() {
            let mut current = None;
            self.step(&mut current).map_err(|errno| {
                let levels = self.levels.iter().skip(1).map(|level| level.name.clone());
                (levels.chain(current).collect(), errno)
            })?;
        }
        Ok(())
    }

    /// Removes one entry of the deepest level, or the level itself when it is empty.
    fn step(&mut self, current: &mut Option<Vec<u8>>) -> Result<(), Errno> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        match next_entry(&mut level.listing)? {
            Some((name, is_dir)) => {
                *current = Some(name.clone());
                self.remove_entry(&name, is_dir)
            }
            None if self.levels.len() == 1 && !self.moved.is_empty() => {
                let name = self.moved.pop().unwrap_or_default();
                self.enter(&name)
            }
            None => self.leave(),
        }
    }

    fn remove_entry(&mut self, name: &[u8], is_dir: bool) -> Result<(), Errno> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        if is_dir {
            return self.enter(name);
        }
        match unlinkat(&level.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // It may be a directory: some file systems do not tell when listing.
            Err(errno @ (Errno::ISDIR | Errno::PERM)) => match self.enter(name) {
                Err(Errno::NOTDIR | Errno::LOOP) => Err(errno),
                other => other,
            },
            Err(errno) => Err(errno),
        }
    }

    /// Goes on with the directory `name` in the deepest level, or moves it up to be entered later.
    fn enter(&mut self, name: &[u8]) -> Result<(), Errno> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        if self.levels.len() >= DEEPEST {
            return self.move_up(name);
        }
        match open_level(self.resolution, level.fd.as_fd(), name) {
            Ok(level) => self.levels.push(level),
            Err(Errno::NOENT) => {}
            // No directory any more: it goes as what it is now.
            Err(Errno::NOTDIR | Errno::LOOP) => match unlinkat(&level.fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            },
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    fn move_up(&mut self, name: &[u8]) -> Result<(), Errno> {
        let (Some(first), Some(deepest)) = (self.levels.first(), self.levels.last()) else { return Ok(()) };
        loop {
            self.moves += 1;
            let new_name = format!(".removing-{}", self.moves).into_bytes();
            match renameat_with(&deepest.fd, name, &first.fd, &*new_name, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.moved.push(new_name);
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Removes the deepest level, whose listing has come to its end.
    fn leave(&mut self) -> Result<(), Errno> {
        let Some(mut level) = self.levels.pop() else { return Ok(()) };
        let parent = self.levels.last().map_or(self.parent, |level| level.fd.as_fd());
        match unlinkat(parent, &*level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.rescans < RESCANS => {
                level.rescans += 1;
                level.listing.rewind();
                self.levels.push(level);
                Ok(())
            }
            Err(errno) => {
                self.levels.push(level);
                Err(errno)
            }
        }
    }
}

fn open_level(resolution: Resolution, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Level, Errno> {
    let named = resolution.open_same_mount(parent, name)?;
    grant_owner(Handle::Named(named.as_fd()), &rustix::fs::fstat(&named)?, 0o700)?;
    let fd = open_for_listing(named.as_fd())?;
    Ok(Level { name: name.to_vec(), listing: Dir::read_from(&fd)?, fd, rescans: 0 })
}

/// The next name of a listing, and whether it is known to be a directory.
fn next_entry(listing: &mut Dir) -> Result<Option<(Vec<u8>, bool)>, Errno> {
    for entry in listing {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => return Ok(Some((name.to_vec(), entry.file_type() == FileType::Directory))),
        }
    }
    Ok(None)
}
