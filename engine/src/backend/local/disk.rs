//! The calls by which a local repository changes what is on disk: nothing else in this backend writes.
//!
//! Being few and in one place, they can be recorded by tests, which then go through all that a loss of power can leave behind
//! ([`record`]), and each of them can fail ([`inject`]).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;

#[cfg(test)]
pub(crate) mod inject;
#[cfg(test)]
pub(crate) mod record;

/// Owner only.
const FOLDER_MODE: Mode = Mode::RWXU;

/// Does what changes something `at` a file or in a folder; tests write it down if it succeeded.
macro_rules! recorded {
    ($at:expr, $step:expr, $act:expr) => {{
        #[cfg(test)]
        let journal = record::journal_of(&$at);
        let done = $act;
        #[cfg(test)]
        if let (Some(mut journal), true) = (journal, done.is_ok()) {
            journal.push($step);
        }
        done
    }};
}

/// The same, but tests can let it fail without having done anything.
macro_rules! step {
    ($call:ident, $at:expr, $step:expr, $act:expr) => {{
        #[cfg(test)]
        if let Some(error) = inject::strike(&$at, inject::Call::$call) {
            return Err(error);
        }
        recorded!($at, $step, $act)
    }};
}

/// A new read-only file in `folder`.
pub(super) fn create(folder: impl AsFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    step!(
        Create,
        folder,
        record::Step::create(&folder, name),
        rustix::fs::openat(&folder, name, flags, Mode::RUSR).map(File::from)
    )
}

/// Writes `bytes` at the end of a file.
pub(super) fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    if let Some(error) = inject::strike(&file, inject::Call::Append) {
        file.write_all(&bytes[..bytes.len() / 2])?;
        return Err(error.into());
    }
    recorded!(file, record::Step::append(&file, bytes), file.write_all(bytes))
}

/// Makes the content of a file, or the entries of a folder, durable.
pub(super) fn sync(what: impl AsFd) -> Result<(), Errno> {
    step!(Sync, what, record::Step::sync(&what), rustix::fs::fsync(&what))
}

/// Makes a folder.
pub(super) fn make_folder(parent: impl AsFd, name: impl Arg + Copy) -> Result<(), Errno> {
    step!(
        MakeFolder,
        parent,
        record::Step::make_folder(&parent, &name),
        rustix::fs::mkdirat(&parent, name, FOLDER_MODE)
    )
}

/// Gives a file another name, in another folder; fails if that is taken.
pub(super) fn rename(from: impl AsFd, old: &str, to: impl AsFd, new: &str) -> Result<(), Errno> {
    step!(
        Name,
        to,
        record::Step::rename(&from, old, &to, new),
        rustix::fs::renameat_with(&from, old, &to, new, RenameFlags::NOREPLACE)
    )
}

/// Gives a file another name, in another folder; what had that name is gone.
pub(super) fn replace(from: impl AsFd, old: &str, to: impl AsFd, new: &str) -> Result<(), Errno> {
    step!(Name, to, record::Step::rename(&from, old, &to, new), rustix::fs::renameat(&from, old, &to, new))
}

/// Gives a file a second name, in another folder; fails if that is taken.
pub(super) fn link(from: impl AsFd, old: &str, to: impl AsFd, new: &str) -> Result<(), Errno> {
    step!(
        Name,
        to,
        record::Step::link(&from, old, &to, new),
        rustix::fs::linkat(&from, old, &to, new, AtFlags::empty())
    )
}

/// Removes the name of a file.
pub(super) fn remove(folder: impl AsFd, name: &str) -> Result<(), Errno> {
    step!(
        Remove,
        folder,
        record::Step::remove(&folder, name),
        rustix::fs::unlinkat(&folder, name, AtFlags::empty())
    )
}
