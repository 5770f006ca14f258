//! Files that are not whole: they stand under a name that says so, and carry a mark by which a later restore knows its own.
//!
//! The mark says of which file they are, as their names alone do not where that file's is long: they are cut.
//!
//! Nothing that is there is replaced by one: if the name is taken, a number is added. Where a file system has no extended
//! attributes there is no mark, and what was left there counts as somebody else's.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use super::error::TargetError;
use super::handle::Handle;
use super::name::{LONGEST_NAME, RelativePath};
use super::root::{Obstacle, TargetRoot};
use super::stat::{EntryKind, TargetStat};
use crate::format::tree::{INCOMPLETE_MARK, Xattr};

/// What the name of a file that is not whole ends with, but for a number.
pub const SUFFIX: &str = ".strongroom-incomplete";

/// Names that are tried.
const NUMBER_MAX: u32 = 1000;

/// Names without a file after which no more are looked for: numbers have gaps where something was removed, or is the snapshot's own.
const ABSENT_MAX: u32 = 3;

/// The name for what there is of the file `path`; with numbers above 1 those for when it is taken. None for the root.
fn incomplete(path: &RelativePath, number: u32) -> Option<RelativePath> {
    let (parent, name) = (path.parent()?, path.name()?);
    let suffix = if number > 1 { format!("{SUFFIX}-{number}") } else { SUFFIX.to_owned() };
    let kept = name.len().min(LONGEST_NAME - suffix.len());
    parent.join(&[&name[..kept], suffix.as_bytes()].concat()).ok()
}

/// The names for what there is of the file `path`, but for those that are `taken`.
fn free_names<'a>(
    path: &'a RelativePath,
    taken: &'a dyn Fn(&RelativePath) -> bool,
) -> impl Iterator<Item = RelativePath> + 'a {
    (1..=NUMBER_MAX).map_while(|number| incomplete(path, number)).filter(|name| !taken(name))
}

/// Whether a name is one for a file that is not whole, and then the name of that file; an empty one where the name does
/// not tell, because that file's was too long.
pub fn whole_name(name: &[u8]) -> Option<&[u8]> {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let numbered = name[..name.len() - digits].strip_suffix(b"-").filter(|_| digits > 0);
    let whole = numbered.unwrap_or(name).strip_suffix(SUFFIX.as_bytes())?;
    Some(if name.len() == LONGEST_NAME { b"" } else { whole })
}

/// The mark of what there is of the file `path`.
pub(crate) fn mark(path: &RelativePath) -> Xattr {
    // Names in one directory only are to be told apart, and a mark has to fit into an inode.
    let hash = blake3::hash(last_name(path)).to_hex();
    let value = hash.as_bytes()[..32].to_vec().into();
    Xattr { name: INCOMPLETE_MARK.to_vec().into(), value }
}

/// Marks a file as what there is of `path`, and takes it from whoever it is of: a later restore goes on with its own only. Where that is not
/// possible it is not known again.
pub(super) fn set_mark(file: Handle<'_>, path: &RelativePath) {
    let _ = file.set_owner(Some(rustix::process::geteuid()), None);
    let mark = mark(path);
    let _ = file.set_xattr(&mark.name, &mark.value);
}

/// Whether a file is this user's: what is written to somebody else's can be read by them.
fn is_own(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw()
}

/// What there is of a file, from an earlier restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOver {
    /// Its name.
    pub name: RelativePath,
    /// Its length.
    pub size: u64,
    /// Whether it can be gone on with: it is this user's.
    pub is_own: bool,
}

impl TargetRoot {
    /// What an earlier restore left of the file `path`, under the first name that is not `taken`.
    pub fn left_over(
        &self,
        path: &RelativePath,
        taken: &dyn Fn(&RelativePath) -> bool,
    ) -> Result<Option<LeftOver>, TargetError> {
        let mut found = None;
        self.each_rest(path, taken, &mut |name, stat| {
            found = Some(LeftOver { name: name.clone(), size: stat.size, is_own: is_own(stat.uid) });
            Ok(false)
        })?;
        Ok(found)
    }

    /// Calls `visit` with every file that has the mark of what there is of `path`, and no other name, until it says no.
    fn each_rest(
        &self,
        path: &RelativePath,
        taken: &dyn Fn(&RelativePath) -> bool,
        visit: &mut dyn FnMut(&RelativePath, &TargetStat) -> Result<bool, TargetError>,
    ) -> Result<(), TargetError> {
        let mark = mark(path);
        let mut absent = 0;
        for name in (1..=NUMBER_MAX).map_while(|number| incomplete(path, number)) {
            let Some(entry) = self.open_entry("look at", &name)? else {
                absent += 1;
                if absent == ABSENT_MAX {
                    break;
                }
                continue;
            };
            let is_rest = entry.stat.kind == EntryKind::File
                && entry.stat.links == 1
                && Handle::Named(entry.fd.as_fd()).has_xattr(&mark.name, &mark.value)
                && !taken(&name);
            if is_rest && !visit(&name, &entry.stat)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether there is a regular file `name` with the mark of what there is of some file.
    pub fn is_rest(&self, name: &RelativePath) -> Result<bool, TargetError> {
        let Some(entry) = self.open_entry("look at", name)? else { return Ok(false) };
        let names = Handle::Named(entry.fd.as_fd()).xattr_names();
        let has_mark = names.is_ok_and(|names| names.iter().any(|name| **name == *INCOMPLETE_MARK));
        Ok(entry.stat.kind == EntryKind::File && has_mark)
    }

    /// Creates a file for what will be `path`, with the mark, under a name that says that it is not whole and that is not `taken`.
    /// With `reuse` what an earlier restore left there is emptied and used. For whoever restores alone, unless another mode is given.
    pub fn create_incomplete(
        &self,
        path: &RelativePath,
        reuse: bool,
        mode: u32,
        taken: &dyn Fn(&RelativePath) -> bool,
    ) -> Result<(RelativePath, File), TargetError> {
        const CREATE: &str = "create the file";
        if reuse
            && let Some(LeftOver { name, is_own: true, .. }) = self.left_over(path, taken)?
            && let Some(file) = self.open_rest(&name, mode)?
        {
            file.set_len(0).map_err(|source| TargetError::Io {
                operation: "cut off",
                path: name.clone(),
                source,
            })?;
            return Ok((name, file));
        }
        for name in free_names(path, taken) {
            match self.create_file(&name, mode, Obstacle::Refuse) {
                Err(TargetError::InTheWay { .. }) => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    set_mark(Handle::Open(file.as_fd()), path);
                    return Ok((name, file));
                }
            }
        }
        Err(TargetError::io(CREATE, path, Errno::EXIST))
    }

    /// Opens what an earlier restore left, and takes off the rights beyond `mode` before anything is written to it. None if it is there no
    /// more, or somebody has put a file of their own there.
    pub fn open_rest(&self, name: &RelativePath, mode: u32) -> Result<Option<File>, TargetError> {
        let Some(file) = self.open_existing(name)? else { return Ok(None) };
        let failed = |errno| TargetError::io("limit the rights to", name, errno);
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if !is_own(stat.st_uid) {
            return Ok(None);
        }
        rustix::fs::fchmod(&file, (stat.st_mode & mode).into()).map_err(failed)?;
        Ok(Some(file))
    }

    /// Gives the file `path` a name that says that it is not whole and that is not `taken`, and the mark.
    pub fn set_aside(
        &self,
        path: &RelativePath,
        taken: &dyn Fn(&RelativePath) -> bool,
    ) -> Result<RelativePath, TargetError> {
        const RENAME: &str = "rename, as it is not whole,";
        if let Some(entry) = self.open_entry(RENAME, path)? {
            entry.expect_kind(RENAME, path, EntryKind::File)?;
            // Another name of it may lie outside of the target: it is somebody else's, who has put it there since.
            if entry.stat.links == 1 {
                set_mark(Handle::Named(entry.fd.as_fd()), path);
            }
        }
        for aside in free_names(path, taken) {
            match self.rename_beside(RENAME, path, &aside) {
                Err(error) if error.is(Errno::EXIST) => {}
                other => return other.map(|()| aside),
            }
        }
        Err(TargetError::io(RENAME, path, Errno::EXIST))
    }

    /// Gives the file `incomplete`, which is whole now, the name `path` in the same directory, and takes off the mark.
    pub fn put_in_place(
        &self,
        incomplete: &RelativePath,
        file: &File,
        path: &RelativePath,
        obstacle: Obstacle,
    ) -> Result<(), TargetError> {
        const RENAME: &str = "give its name to";
        if obstacle == Obstacle::Refuse {
            match self.rename_beside(RENAME, incomplete, path) {
                Err(error) if error.is(Errno::EXIST) => {
                    let found = self.stat(path)?.map_or(EntryKind::Unknown, |stat| stat.kind);
                    Err(TargetError::InTheWay { operation: RENAME, path: path.clone(), found })
                }
                other => other,
            }?;
        } else {
            // After a power cut the one or the other is there, and not a new one without content.
            file.sync_data().map_err(|source| TargetError::Io {
                operation: "flush",
                path: incomplete.clone(),
                source,
            })?;
            let to = last_name(path);
            self.in_parent(RENAME, incomplete, |parent, name| renameat(parent, name, parent, to))?;
        }
        self.forget(path);
        // Without one there is nothing to take off; if that fails, the file has an attribute too many.
        let _ = rustix::fs::fremovexattr(file, INCOMPLETE_MARK);
        Ok(())
    }

    /// Removes what earlier restores left of the file `path`, which is whole now, under names that are not `taken`.
    pub fn remove_left_over(
        &self,
        path: &RelativePath,
        taken: &dyn Fn(&RelativePath) -> bool,
    ) -> Result<(), TargetError> {
        self.each_rest(path, taken, &mut |name, _| self.remove(name).map(|()| true))
    }

    /// Renames a file within its directory; fails if the name is taken.
    fn rename_beside(
        &self,
        operation: &'static str,
        from: &RelativePath,
        to: &RelativePath,
    ) -> Result<(), TargetError> {
        let to_name = last_name(to);
        self.in_parent(operation, from, |parent, name| {
            match renameat_with(parent, name, parent, to_name, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                other => return other,
            }
            // Not every file system can do that at once.
            match linkat(parent, name, parent, to_name, AtFlags::empty()) {
                Ok(()) => return unlinkat(parent, name, AtFlags::empty()),
                Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
            match statat(parent, to_name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => renameat(parent, name, parent, to_name),
                Ok(_) => Err(Errno::EXIST),
                Err(errno) => Err(errno),
            }
        })
    }
}

fn last_name(path: &RelativePath) -> &[u8] {
    path.name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::test_support::{RESOLUTIONS, Sandbox, path};
    use super::*;

    const FREE: &dyn Fn(&RelativePath) -> bool = &|_| false;

    fn names(sandbox: &Sandbox) -> Vec<String> {
        let names = fs::read_dir(sandbox.target()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn names_lead_to_each_other() {
        let of = |name: &str, number| incomplete(&path(name), number).unwrap();
        assert_eq!(of("a/b", 1), path("a/b.strongroom-incomplete"));
        assert_eq!(of("a/b", 12), path("a/b.strongroom-incomplete-12"));
        for number in [1, 2, 12] {
            assert_eq!(whole_name(of("b", number).as_bytes()), Some(&b"b"[..]));
            let long = of(&"x".repeat(250), number);
            assert_eq!((long.as_bytes().len(), whole_name(long.as_bytes())), (255, Some(&b""[..])));
        }
        for other in ["b", "b-2", "b.strongroom-incomplete-", "b.strongroom-incomplete-x", ".strongroom"] {
            assert_eq!(whole_name(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_has_the_name_already_stays() {
        for resolution in RESOLUTIONS {
            let sandbox = Sandbox::new();
            let root = sandbox.open(resolution);
            fs::write(sandbox.at("b.strongroom-incomplete"), "a user's").unwrap();
            fs::write(sandbox.at("b"), "half").unwrap();
            assert_eq!(root.set_aside(&path("b"), FREE).unwrap(), path("b.strongroom-incomplete-2"));
            let (third, mut file) = root.create_incomplete(&path("b"), false, 0o600, FREE).unwrap();
            assert_eq!(third, path("b.strongroom-incomplete-3"));
            file.write_all(b"whole").unwrap();
            root.put_in_place(&third, &file, &path("b"), Obstacle::Refuse).unwrap();
            assert!(
                root.put_in_place(&path("b"), &file, &path("b.strongroom-incomplete"), Obstacle::Refuse)
                    .is_err()
            );
            root.remove_left_over(&path("b"), FREE).unwrap();
            assert_eq!(names(&sandbox), ["b", "b.strongroom-incomplete"]);
            assert_eq!(fs::read(sandbox.at("b")).unwrap(), b"whole");
            assert_eq!(fs::read(sandbox.at("b.strongroom-incomplete")).unwrap(), b"a user's");
        }
    }

    #[test]
    fn a_file_with_a_name_outside_gets_no_mark() {
        let sandbox = Sandbox::new();
        let root = sandbox.open(RESOLUTIONS[0]);
        let outside = tempfile::NamedTempFile::new_in(sandbox.target().parent().unwrap()).unwrap();
        fs::hard_link(outside.path(), sandbox.at("b")).unwrap();
        let aside = root.set_aside(&path("b"), FREE).unwrap();
        assert!(!root.is_rest(&aside).unwrap());
    }

    #[test]
    fn only_what_has_the_mark_is_left_over() {
        let sandbox = Sandbox::new();
        let root = sandbox.open(RESOLUTIONS[0]);
        let (name, file) = root.create_incomplete(&path("b"), false, 0o600, FREE).unwrap();
        if Handle::Open(file.as_fd()).set_xattr(b"user.any", b"").is_err() {
            return crate::testing::cannot("mark files", &"no extended attributes here");
        }
        let left_over = || root.left_over(&path("b"), FREE).unwrap();
        assert_eq!(left_over(), Some(LeftOver { name: name.clone(), size: 0, is_own: true }));
        // What others were let read or write is theirs alone again that restore it.
        fs::set_permissions(sandbox.at("b.strongroom-incomplete"), fs::Permissions::from_mode(0o666))
            .unwrap();
        let (again, file) = root.create_incomplete(&path("b"), true, 0o600, FREE).unwrap();
        assert_eq!((&again, file.metadata().unwrap().mode() & 0o777), (&name, 0o600), "used again");
        // Somebody else's is not written to, and removed in the end all the same.
        if std::os::unix::fs::chown(sandbox.at("b.strongroom-incomplete"), Some(1), None).is_ok() {
            assert!(left_over().is_some_and(|found| !found.is_own));
            assert!(root.open_rest(&name, 0o600).unwrap().is_none());
            assert_eq!(
                root.create_incomplete(&path("b"), true, 0o600, FREE).unwrap().0,
                path("b.strongroom-incomplete-2")
            );
            root.remove_left_over(&path("b"), FREE).unwrap();
            assert_eq!(names(&sandbox), [] as [&str; 0]);
            root.create_incomplete(&path("b"), false, 0o600, FREE).unwrap();
        }
        // Numbers have gaps.
        let (second, _) = root.create_incomplete(&path("b"), false, 0o600, FREE).unwrap();
        let taken = |taken: &RelativePath| *taken == name;
        assert_eq!(root.left_over(&path("b"), &taken).unwrap().map(|found| found.name), Some(second.clone()));
        root.remove_left_over(&path("b"), &taken).unwrap();
        assert_eq!(names(&sandbox), ["b.strongroom-incomplete"]);
        fs::hard_link(sandbox.at("b.strongroom-incomplete"), sandbox.at("other")).unwrap();
        assert!(left_over().is_none(), "another name may be somebody's");
        fs::remove_file(sandbox.at("b.strongroom-incomplete")).unwrap();
        fs::write(sandbox.at("b.strongroom-incomplete"), "").unwrap();
        assert!(left_over().is_none());
    }
}
