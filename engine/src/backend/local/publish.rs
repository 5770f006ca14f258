//! Publication: an object is written to a temporary file, flushed, and only then given its name, in one
//! step that fails if the name is taken.
//!
//! A writer holds a `flock` on its temporary file, so that whoever cleans up can tell one in use from one
//! whose writer died. Where locks are not shared between machines (some network file systems) a cleaner may
//! take a file that is in use; its writer then fails to publish it and says so: nothing is lost silently.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, fallocate};
use rustix::io::Errno;

use super::super::{Created, Sign};
use super::{disk, folders};

/// What storage lacks on which neither way of publishing works.
pub(super) const NEITHER_WAY: &str = "it supports neither renaming without replacing \
    (renameat2 with RENAME_NOREPLACE) nor hard links, so one writer could overwrite what another stored";

/// Names for temporary files that no other process and no other call uses.
pub(super) struct TemporaryNames {
    prefix: String,
    counter: AtomicU64,
}

impl TemporaryNames {
    pub(super) fn new() -> io::Result<Self> {
        // The process id is for people; across machines and containers only the random part differs.
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { prefix: format!("{}-{random:016x}", std::process::id()), counter: AtomicU64::new(0) })
    }

    fn next(&self) -> String {
        format!("{}-{}", self.prefix, self.counter.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for TemporaryNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

/// How a file gets its final name. Starts with renaming and falls back to links for good.
#[derive(Debug, Default)]
pub(super) struct Publication {
    links_only: AtomicBool,
    #[cfg(test)]
    no_links: AtomicBool,
}

impl Publication {
    #[cfg(test)]
    pub(super) fn force_links(&self) {
        self.links_only.store(true, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn forbid_all(&self) {
        self.force_links();
        self.no_links.store(true, Ordering::Relaxed);
    }
}

/// Why a file did not get its name.
pub(super) enum NotPublished {
    /// The storage can publish in neither way.
    Unsupported,
    /// It failed this time.
    Failed(Errno),
}

/// A file under a temporary name, locked by its writer; removed when dropped unpublished.
pub(super) struct TemporaryFile {
    folder: OwnedFd,
    name: String,
    file: File,
    stays: bool,
}

/// An empty temporary file that says, by its lock, whether its writer is at work.
pub(super) struct LocalSign(TemporaryFile);

impl LocalSign {
    pub(super) fn leave(folder: &OwnedFd, names: &TemporaryNames) -> io::Result<Self> {
        let mut file = TemporaryFile::make(folder, names)?;
        file.stays = true;
        Ok(Self(file))
    }
}

impl Sign for LocalSign {
    fn remove(mut self: Box<Self>) {
        self.0.stays = false;
    }
}

impl TemporaryFile {
    /// Writes `bytes` to a new read-only file in `folder` and flushes it. If flushing fails, what reached
    /// the disk is unknown and flushing again would tell nothing, so the file is given up.
    pub(super) fn write(folder: &OwnedFd, names: &TemporaryNames, bytes: &[u8]) -> io::Result<Self> {
        let mut temporary = Self::make(folder, names)?;
        temporary.append(bytes)?;
        temporary.flush()?;
        Ok(temporary)
    }

    /// Writes `bytes` at the end of the file.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        disk::append(&mut self.file, bytes)
    }

    /// Whether there is room for so many bytes in the file. They are set aside as long as it is there.
    pub(super) fn can_grow(&self, bytes: u64) -> bool {
        fallocate(&self.file, FallocateFlags::empty(), 0, bytes).is_ok()
    }

    /// Makes the file's content durable.
    pub(super) fn flush(&self) -> io::Result<()> {
        Ok(disk::sync(&self.file)?)
    }

    /// An empty read-only file with a name of its own in `folder`.
    pub(super) fn make(folder: &OwnedFd, names: &TemporaryNames) -> io::Result<Self> {
        // Each round fails only if a cleaner takes the file between its creation and the lock.
        for _ in 0..16 {
            let name = names.next();
            let file = disk::create(folder, &name)?;
            let temporary = Self { folder: folder.try_clone()?, name, file, stays: false };
            let locked = rustix::fs::flock(&temporary.file, FlockOperation::NonBlockingLockExclusive);
            // Storage without locks is fine: no cleaner can take a lock there either.
            let taken = locked == Err(Errno::WOULDBLOCK);
            if !taken && rustix::fs::fstat(&temporary.file)?.st_nlink > 0 {
                return Ok(temporary);
            }
        }
        Err(io::Error::other("something keeps removing temporary files"))
    }

    /// Gives the file its name in `folder`, unless that is taken. The entry is not flushed yet.
    pub(super) fn publish(
        &self,
        folder: impl AsFd,
        name: &str,
        how: &Publication,
    ) -> Result<Created, NotPublished> {
        if !how.links_only.load(Ordering::Relaxed) {
            match self.rename(&folder, name) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    how.links_only.store(true, Ordering::Relaxed);
                }
                result => return result.map_err(NotPublished::Failed),
            }
        }
        #[cfg(test)]
        if how.no_links.load(Ordering::Relaxed) {
            return Err(NotPublished::Unsupported);
        }
        self.link(&folder, name).map_err(|error| match error {
            Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP => NotPublished::Unsupported,
            error => NotPublished::Failed(error),
        })
    }

    /// Gives the file its name in `folder`; what had it is gone. The entry is not flushed yet.
    pub(super) fn take_over(&self, folder: impl AsFd, name: &str) -> Result<(), Errno> {
        disk::replace(&self.folder, &self.name, folder, name)
    }

    fn rename(&self, folder: impl AsFd, name: &str) -> Result<Created, Errno> {
        match disk::rename(&self.folder, &self.name, folder, name) {
            Ok(()) => Ok(Created::New),
            Err(Errno::EXIST) => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }

    fn link(&self, folder: impl AsFd, name: &str) -> Result<Created, Errno> {
        match disk::link(&self.folder, &self.name, folder, name) {
            Ok(()) => Ok(Created::New),
            // A network file system that lost the first answer and asked again finds our own link.
            Err(Errno::EXIST) if rustix::fs::fstat(&self.file)?.st_nlink > 1 => Ok(Created::New),
            Err(Errno::EXIST) => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // After a rename the name is gone; if it cannot be removed, cleaning up later will.
        let _ = disk::remove(&self.folder, &self.name);
    }
}

/// Tries out in `folder` that a second publication under one name fails and changes nothing. The inner
/// result is what is missing, in words.
pub(super) fn probe(
    folder: &OwnedFd,
    names: &TemporaryNames,
    how: &Publication,
) -> io::Result<Result<(), String>> {
    let target = names.next();
    let result = probe_as(folder, names, how, &target);
    let removed = disk::remove(folder, &target);
    if matches!(result, Ok(Ok(()))) {
        removed?;
    }
    result
}

fn probe_as(
    folder: &OwnedFd,
    names: &TemporaryNames,
    how: &Publication,
    target: &str,
) -> io::Result<Result<(), String>> {
    // Both stay open, and so locked, until the end: no cleaner takes the target meanwhile.
    let first = TemporaryFile::write(folder, names, b"first")?;
    let second = TemporaryFile::write(folder, names, b"second")?;
    for (file, expected) in [(&first, Created::New), (&second, Created::Exists)] {
        match file.publish(folder, target, how) {
            Ok(created) if created == expected => {}
            Ok(_) => return Ok(Err("publishing twice under one name is not refused there".to_owned())),
            Err(NotPublished::Unsupported) => return Ok(Err(NEITHER_WAY.to_owned())),
            Err(NotPublished::Failed(error)) => return Err(error.into()),
        }
    }
    if let Err(error) = disk::sync(folder) {
        return Ok(Err(format!("a folder cannot be flushed to disk there ({error})")));
    }
    let size = rustix::fs::statat(folder, target, AtFlags::SYMLINK_NOFOLLOW)?.st_size;
    if size != b"first".len() as i64 {
        return Ok(Err("a second publication under one name replaced the first".to_owned()));
    }
    Ok(Ok(()))
}

/// Removes the temporary files in `folder` whose writers are gone; returns how many.
pub(super) fn clean(folder: &OwnedFd) -> Result<u64, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut removed = 0;
    for name in folders::names(folder, |name| name != "." && name != "..")? {
        let Ok(file) = rustix::fs::openat(folder, &*name, flags, Mode::empty()) else {
            continue; // Published or removed since, or nothing of ours.
        };
        // A shared lock is enough to exclude the writer, and network file systems grant it to a reader.
        // Names are never used twice, so the name still means the file that was locked, or nothing.
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            continue;
        }
        match disk::remove(folder, &name) {
            Ok(()) => removed += 1,
            Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}
