//! Scratch directories of drills. A file in each says which run of which drill made it: no other is ever removed, also if another plan
//! means the same place, and none in which something is mounted.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::recover::disk::{Disk, SystemDisk};
use crate::run::state::absent_is_well;

/// The file that makes a directory a scratch directory, with the token of the run that made it.
const MARK: &str = ".strongroom-drill";
/// How much of it is read.
const MARK_LEN_MAX: u64 = 4096;

/// Makes an empty scratch directory for the run of a drill with this token.
///
/// # Errors
/// Where that cannot be, or something is there that is not empty.
pub(super) fn make(scratch: &Path, token: &str) -> io::Result<()> {
    let is_anothers = || {
        refused(format!(
            "{} is the scratch directory of another drill, or was left by one: give each plan a `scratch` of its own, or remove \
             it if nothing is at work there",
            scratch.display()
        ))
    };
    match fs::symlink_metadata(scratch) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(_) if owner(scratch)?.is_some() => return Err(is_anothers()),
        Ok(found) if !found.is_dir() || !is_empty(scratch)? => return Err(somebody_elses(scratch)),
        Ok(_) => fs::remove_dir(scratch)?,
    }
    DirBuilder::new().recursive(true).mode(0o700).create(scratch)?;
    let mark = File::options().write(true).create_new(true).mode(0o600).open(scratch.join(MARK));
    mark.and_then(|mut mark| mark.write_all(token.as_bytes())).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_anothers(),
        _ => error,
    })
}

/// Removes the scratch directory that the run of a drill with this token has made; leaves that of another one alone.
///
/// # Errors
/// Where something of it cannot be removed, something is mounted in it, or it is no scratch directory.
pub(super) fn remove(scratch: &Path, token: &str) -> io::Result<()> {
    remove_where(scratch, token, &|| SystemDisk.mounts())
}

fn remove_where(
    scratch: &Path,
    token: &str,
    mounts: &dyn Fn() -> io::Result<Vec<PathBuf>>,
) -> io::Result<()> {
    match fs::symlink_metadata(scratch) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.is_dir() => return Err(somebody_elses(scratch)),
        Ok(_) => {}
    }
    match owner(scratch)? {
        None if is_empty(scratch)? => {}
        None => return Err(somebody_elses(scratch)),
        // It has no content where the run was killed just then, or was one of an earlier version.
        Some(owner) if owner == token || owner.is_empty() => {}
        Some(_) => return Ok(()),
    }
    let place = fs::canonicalize(scratch)?;
    if let Some(mount) = mounts()?.iter().find(|mount| mount.starts_with(&place)) {
        let message = format!(
            "a file system is mounted at {}, and what is in it would be removed, too: unmount it",
            mount.display()
        );
        return Err(io::Error::new(ErrorKind::ResourceBusy, message));
    }
    // The mark goes last: what is left of a removal that was interrupted is known again.
    for entry in fs::read_dir(scratch)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove_tree(&entry.path())?,
            false if entry.file_name() == MARK => {}
            false => fs::remove_file(entry.path())?,
        }
    }
    absent_is_well(fs::remove_file(scratch.join(MARK)))?;
    fs::remove_dir(scratch)
}

/// Whether the run of a drill has made a directory.
pub(crate) fn is_marked(scratch: &Path) -> bool {
    scratch.join(MARK).is_file()
}

/// The token in the mark of a directory; none where it has no mark.
fn owner(scratch: &Path) -> io::Result<Option<String>> {
    let mut token = Vec::new();
    match File::open(scratch.join(MARK)) {
        Ok(mark) => mark.take(MARK_LEN_MAX).read_to_end(&mut token)?,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(Some(String::from_utf8_lossy(&token).into_owned()))
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

fn refused(message: String) -> io::Error {
    io::Error::new(ErrorKind::AlreadyExists, message)
}

fn somebody_elses(scratch: &Path) -> io::Error {
    refused(format!("{} is there already, and was not made by a drill: it was left alone", scratch.display()))
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        result => result,
    }
}

/// Lets what is in directories be removed: some are restored as such that forbid it even to their owner.
fn open_up(folder: &Path) -> io::Result<()> {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let mode = fs::symlink_metadata(&folder)?.permissions().mode();
        fs::set_permissions(&folder, Permissions::from_mode(mode | 0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_nobody_may_write_to_are_removed_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("x/closed/deeper");
        fs::create_dir_all(&deep).expect("made");
        fs::write(deep.join("file"), "x").expect("written");
        let close = |mode: u32| {
            for folder in [&deep, deep.parent().expect("above")] {
                fs::set_permissions(folder, Permissions::from_mode(mode)).expect("closed");
            }
        };
        close(0o555);
        open_up(&folder.path().join("x")).expect("opened");
        let mode = fs::metadata(&deep).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "also where this is run by root, whom nothing stops");
        close(0o555);
        remove_tree(&folder.path().join("x")).expect("removed");
        assert!(!folder.path().join("x").exists());
    }

    #[test]
    fn a_drill_of_another_plan_at_the_same_place_costs_none_its_data() {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = folder.path().join("drill/full");
        make(&scratch, "of-a").expect("made");
        fs::write(scratch.join("rows"), "restored by a").expect("written");
        let refused = make(&scratch, "of-b").expect_err("refused").to_string();
        assert!(refused.contains("is the scratch directory of another drill"), "{refused}");
        remove(&scratch, "of-b").expect("it has nothing there");
        assert_eq!(fs::read(scratch.join("rows")).expect("there"), b"restored by a");
        remove(&scratch, "of-a").expect("removed");
        assert!(!scratch.exists());
        // One that was killed before it had written its token, or was an earlier version's.
        fs::create_dir(&scratch).expect("made");
        fs::write(scratch.join(MARK), "").expect("written");
        make(&scratch, "of-b").expect_err("whose it is is not known");
        remove(&scratch, "of-a").expect("removed: its journal says so");
        fs::create_dir(&scratch).expect("made");
        make(&scratch, "of-b").expect("an empty one is free");
    }

    #[test]
    fn what_is_mounted_in_it_is_not_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = folder.path().join("full");
        make(&scratch, "t").expect("made");
        let precious = scratch.join("x/mnt/precious");
        fs::create_dir_all(precious.parent().expect("above")).expect("made");
        fs::write(&precious, "data").expect("written");
        let place = fs::canonicalize(folder.path()).expect("there");
        let mounted = |paths: &[&str]| -> io::Result<Vec<PathBuf>> {
            Ok(paths.iter().map(|path| place.join(path)).collect())
        };
        let refused = remove_where(&scratch, "t", &|| mounted(&["full/x/mnt"])).expect_err("refused");
        assert!(refused.to_string().contains("full/x/mnt"), "{refused}");
        remove_where(&scratch, "t", &|| Err(ErrorKind::NotFound.into())).expect_err("nobody knows");
        assert!(precious.exists());
        remove_where(&scratch, "t", &|| mounted(&["", "full-of-another"])).expect("removed");
        assert!(!scratch.exists());
    }
}
