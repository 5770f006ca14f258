//! One target swapped, and swapped back. Where an earlier attempt was killed is told by the file system itself: renames keep inode numbers, and
//! those of what was there and of what takes its place were noted before.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::recover::disk::{Disk, is_unsupported};
use crate::recover::targets::{Database, Identity, Target};

/// The inode that a name leads to, links not followed; none if nothing has the name.
pub(super) fn inode(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.ino())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// When what has the name was made; none where that is not known.
fn born(path: &Path) -> Option<u64> {
    let time = fs::symlink_metadata(path).ok()?.created().ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// Notes what is there, and what takes its place.
pub(super) fn identify(target: &mut Target) -> io::Result<()> {
    let new = match &target.held {
        None => None,
        Some(_) => Some(inode(&target.staged)?.ok_or_else(|| {
            io::Error::new(ErrorKind::NotFound, format!("{} is not there", target.staged.display()))
        })?),
    };
    let born = new.and_then(|_| born(&target.staged));
    target.identity = Some(Identity { old: inode(&target.place)?, new, born });
    if let Some(database) = &mut target.beside_database {
        database.old = inode(&database.place)?;
    }
    Ok(())
}

/// Notes anew what lies beside a database that is not swapped yet, and of which nothing was moved: what has opened the database
/// since the last look, or has closed it, has made it or removed it. Says whether there was something to note.
pub(super) fn look_again(target: &mut Target) -> io::Result<bool> {
    let Some(Identity { old, .. }) = target.identity else { return Ok(false) };
    let at_place = inode(&target.place)?;
    if at_place == old || !is_beside_old(target)? || inode(&target.aside)?.is_some() {
        return Ok(false);
    }
    target.identity = target.identity.map(|known| Identity { old: at_place, ..known });
    Ok(true)
}

fn move_to(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot rename {} to {}: {error}", from.display(), to.display()))
    };
    disk.rename(from, to).map_err(named)?;
    sync_around(disk, from, to)
}

fn sync_around(disk: &dyn Disk, one: &Path, other: &Path) -> io::Result<()> {
    for path in [one, other] {
        if let Some(folder) = path.parent() {
            disk.sync(folder)?;
        }
    }
    Ok(())
}

/// Exchanges two names; false where the file system cannot.
fn exchange(disk: &dyn Disk, one: &Path, other: &Path) -> io::Result<bool> {
    match disk.exchange(one, other) {
        Ok(()) => sync_around(disk, one, other).map(|()| true),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => {
            let message = format!("cannot exchange {} and {}: {error}", one.display(), other.display());
            Err(io::Error::new(error.kind(), message))
        }
    }
}

fn changed(target: &Target) -> io::Error {
    let message = format!(
        "{} is neither what was there nor what was restored: it was left alone",
        target.place.display()
    );
    io::Error::other(message)
}

/// Whether what was restored was put in the place, and what was there set aside, whatever is in the place now: what uses it may have
/// replaced it since.
fn was_swapped(target: &Target, old: Option<u64>) -> io::Result<bool> {
    Ok(inode(&target.staged)?.is_none() && (old.is_none() || inode(&target.aside)? == old))
}

/// Puts what was restored in its place; what was there is set aside. Does nothing where that is done.
pub(super) fn forward(disk: &dyn Disk, target: &Target) -> io::Result<()> {
    let Some(Identity { old, new, .. }) = target.identity else { return Err(changed(target)) };
    let at_place = inode(&target.place)?;
    if let Some(database) = &target.beside_database
        && inode(&database.place)?.is_some_and(|found| Some(found) != database.old)
    {
        // The restored database is in its place, so this was done: what is beside it now is its own.
        return Ok(());
    }
    let Some(new) = new else {
        return match (old, at_place) {
            (None, None) => Ok(()),
            (Some(old), Some(found)) if old == found => move_to(disk, &target.place, &target.aside),
            (Some(old), None) if inode(&target.aside)? == Some(old) => Ok(()),
            _ => Err(changed(target)),
        };
    };
    if at_place == Some(new) {
        return set_aside(disk, target, old);
    }
    match (old, at_place) {
        (Some(old), Some(found)) if old == found => {
            if exchange(disk, &target.staged, &target.place)? {
                return set_aside(disk, target, Some(old));
            }
            move_to(disk, &target.place, &target.aside)?;
        }
        (Some(old), None) if inode(&target.aside)? == Some(old) => {}
        (None, None) => {}
        (_, Some(_)) if was_swapped(target, old)? => return Ok(()),
        _ => return Err(changed(target)),
    }
    move_to(disk, &target.staged, &target.place)
}

/// After an exchange, what was there has the name of what was staged.
fn set_aside(disk: &dyn Disk, target: &Target, old: Option<u64>) -> io::Result<()> {
    if old.is_some() && inode(&target.staged)? == old {
        return move_to(disk, &target.staged, &target.aside);
    }
    Ok(())
}

/// Whether a target lies beside a database that was not swapped. What is there then is of that one, and may have what it alone has.
fn is_beside_old(target: &Target) -> io::Result<bool> {
    match &target.beside_database {
        Some(Database { place, old: Some(old) }) => Ok(inode(place)? == Some(*old)),
        _ => Ok(false),
    }
}

/// Whether something was taken from a place that the recovery did not put there.
pub(super) fn has_foreign(target: &Target) -> io::Result<bool> {
    match target.identity {
        // Files beside a restored database are made by what uses that, and go with it.
        Some(Identity { new, born: noted, .. }) if target.beside_database.is_none() => {
            Ok(inode(&target.staged)?
                .is_some_and(|found| Some(found) != new || noted.is_some() && born(&target.staged) != noted))
        }
        _ => Ok(false),
    }
}

/// Puts a file beside a database back that is itself as it was.
fn backward_beside_old(disk: &dyn Disk, target: &Target, old: Option<u64>) -> io::Result<()> {
    let at_place = inode(&target.place)?;
    if old.is_none() || at_place == old || inode(&target.aside)? != old {
        // Nothing of it was moved.
        return Ok(());
    }
    if at_place.is_some() {
        let message = format!(
            "{} was made by what has used the database since its own was moved to {}, and each has changes that the other lacks: \
             move the one that is not needed away, then `strongroom recover --rollback` again",
            target.place.display(),
            target.aside.display()
        );
        return Err(io::Error::new(ErrorKind::AlreadyExists, message));
    }
    move_to(disk, &target.aside, &target.place)
}

/// Makes room for what has no other part but to be away when what was there comes back: files of a database beside it.
pub(super) fn clear(disk: &dyn Disk, target: &Target) -> io::Result<()> {
    let Some(Identity { old, new: None, .. }) = target.identity else { return Ok(()) };
    let at_place = inode(&target.place)?;
    if at_place.is_none() || at_place == old || is_beside_old(target)? {
        return Ok(());
    }
    move_to(disk, &target.place, &target.staged)
}

/// Puts what was there back; whatever is in its place now is kept as what was restored. Does nothing where that is done.
pub(super) fn backward(disk: &dyn Disk, target: &Target) -> io::Result<()> {
    // Without it nothing was moved.
    let Some(Identity { old, new, .. }) = target.identity else { return Ok(()) };
    if is_beside_old(target)? {
        return backward_beside_old(disk, target, old);
    }
    let at_place = inode(&target.place)?;
    let Some(old) = old else {
        // Nothing was there: what is there now was restored, or was made by what used it.
        return match at_place {
            Some(_) if inode(&target.staged)?.is_none() => move_to(disk, &target.place, &target.staged),
            _ => Ok(()),
        };
    };
    if at_place != Some(old) {
        let from = match (inode(&target.aside)? == Some(old), inode(&target.staged)? == Some(old)) {
            (true, _) => &target.aside,
            (_, true) => &target.staged,
            _ => {
                let message = format!(
                    "what was at {} is not in {} any more",
                    target.place.display(),
                    target.aside.display()
                );
                return Err(io::Error::new(ErrorKind::NotFound, message));
            }
        };
        if at_place.is_none() {
            move_to(disk, from, &target.place)?;
        } else if !exchange(disk, from, &target.place)? {
            move_to(disk, &target.place, &target.staged)?;
            move_to(disk, from, &target.place)?;
        }
    }
    // After an exchange, what was restored has the name of what was set aside.
    if inode(&target.aside)?.is_some() && new.is_some() && inode(&target.staged)?.is_none() {
        move_to(disk, &target.aside, &target.staged)?;
    }
    Ok(())
}
