//! What a recovery replaces, and where what takes its place is put meanwhile: beside it, in the same file system.
//!
//! A target is renamed as a whole. What cannot be renamed is dealt with so: a directory on which a file system is mounted is taken apart,
//! and its entries are the targets; a link to a directory, or to a database, stands for what it leads to, as it does in a backup; a
//! directory in which something is mounted is refused.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::recover::machine::Held;
use crate::recover::{BESIDE, stored};

/// Most entries of a mounted file system that are swapped one by one.
pub const ENTRIES_MAX: usize = 10_000;
/// Files that may lie beside a SQLite database, and belong to it alone.
pub const SQLITE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];
/// What the file system keeps for itself in its uppermost directory.
const LOST_AND_FOUND: &str = "lost+found";

/// Something that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its path in the snapshot; none where nothing takes its place.
    #[serde(with = "stored::option")]
    pub held: Option<PathBuf>,
    /// Whether what takes its place is a directory.
    pub is_directory: bool,
    /// Where the plan says that it is.
    #[serde(with = "stored")]
    pub named: PathBuf,
    /// Where it is.
    #[serde(with = "stored")]
    pub place: PathBuf,
    /// The directory beside it that everything is put into.
    #[serde(with = "stored")]
    pub beside: PathBuf,
    /// What takes its place, before it does and after it did.
    #[serde(with = "stored")]
    pub staged: PathBuf,
    /// Where it is put.
    #[serde(with = "stored")]
    pub aside: PathBuf,
    /// The database that it belongs to, if it lies beside one.
    #[serde(default)]
    pub beside_database: Option<Database>,
    /// What was there and what takes its place, once that is known.
    pub identity: Option<Identity>,
    /// What is left out of backups and is moved along.
    pub carried: Vec<crate::recover::carry::Below>,
}

/// A SQLite database, seen from the files beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Where it is.
    #[serde(with = "stored")]
    pub place: PathBuf,
    /// The inode of the one that was there, once that is known; none if none was.
    pub old: Option<u64>,
}

/// Inodes of what was there, and of what takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What was there; none if nothing was.
    pub old: Option<u64>,
    /// What takes its place; none if nothing does.
    pub new: Option<u64>,
    /// When that was made, in nanoseconds since 1970, where the file system knows: the number of a file that was removed may be
    /// given to the one that took its place.
    #[serde(default)]
    pub born: Option<u64>,
}

impl Target {
    /// Something at `place` that the plan calls `named`.
    pub fn new(id: &str, named: &Path, place: &Path, held: Option<(&Path, &Held)>) -> Self {
        // What is missing above it is made when it is swapped, in the same file system.
        let beside = existing_above(place).join(format!("{BESIDE}{id}"));
        // What is restored has its name in the snapshot, which is another one where a link was followed.
        let name = place.file_name().unwrap_or_default();
        let staged_name = held.map_or(name, |(path, held)| match held.is_directory {
            true => name,
            false => path.file_name().unwrap_or_default(),
        });
        Self {
            held: held.map(|(path, _)| path.to_owned()),
            is_directory: held.is_some_and(|(_, held)| held.is_directory),
            named: named.to_owned(),
            place: place.to_owned(),
            staged: beside.join("new").join(staged_name),
            aside: beside.join("old").join(name),
            beside,
            beside_database: None,
            identity: None,
            carried: Vec::new(),
        }
    }

    /// The same with a place of its own beside it: names of several targets may be equal.
    #[must_use]
    pub fn numbered(mut self, number: usize) -> Self {
        let own = |folder: &str, path: &Path| {
            self.beside.join(folder).join(number.to_string()).join(path.file_name().unwrap_or_default())
        };
        (self.staged, self.aside) = (own("new", &self.staged), own("old", &self.aside));
        self
    }

    /// Whether it is a file beside a database, for which nothing is restored.
    pub(super) fn belongs_to(&self, database: &Self) -> bool {
        let behind = self.place.as_os_str().as_bytes().strip_prefix(database.place.as_os_str().as_bytes());
        self.held.is_none()
            && behind.is_some_and(|behind| SQLITE_FILES.iter().any(|one| one.as_bytes() == behind))
    }

    /// The directory that a restore is given.
    pub fn restored_into(&self) -> &Path {
        match self.is_directory {
            true => &self.staged,
            false => self.staged.parent().unwrap_or(&self.beside),
        }
    }
}

/// A target as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The target.
    pub target: Target,
    /// Whether something is there now.
    pub is_there: bool,
    /// What takes its place.
    pub held: Held,
}

/// Whether an entry of a mounted directory is a recovery's own, or the file system's.
pub(super) fn is_left_alone(name: &OsStr) -> bool {
    name.as_bytes().starts_with(BESIDE.as_bytes()) || name == LOST_AND_FOUND
}

/// Why something cannot be a target.
pub type Refused = String;

/// Whether something is at a path, and what; a link is a link.
fn kind(path: &Path) -> Result<Option<fs::FileType>, Refused> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.file_type())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be looked at: {error}", path.display())),
    }
}

/// Where something is that the plan calls `path`: what a link leads to, where a backup would have followed it.
pub fn resolve(path: &Path, is_directory: bool, is_database: bool) -> Result<PathBuf, Refused> {
    match kind(path)? {
        Some(kind) if kind.is_symlink() && (is_directory || is_database) => {}
        _ => return Ok(path.to_owned()),
    }
    let resolved = path.canonicalize().map_err(|error| {
        format!(
            "{} is a link to something that is not there ({error}): make what it leads to, or remove the link",
            path.display()
        )
    })?;
    // A link to a file is stored as a link, and so is replaced itself.
    Ok(if is_database || resolved.is_dir() { resolved } else { path.to_owned() })
}

/// Entries of a directory in the snapshot.
pub type List<'a> = dyn Fn(&Path) -> Result<Vec<(OsString, Held)>, Refused> + 'a;

/// What is asked while targets are looked for.
pub struct Look<'a> {
    /// Part of the names of directories beside targets.
    pub id: &'a str,
    /// Where file systems are mounted.
    pub mounts: &'a [PathBuf],
    /// Entries of a directory in the snapshot.
    pub list: &'a List<'a>,
    /// Whether a path is left out of backups.
    pub is_left_out: &'a dyn Fn(&Path) -> bool,
}

impl Look<'_> {
    /// The targets that a path of the plan stands for.
    pub fn path(&self, path: &Path, held: Held) -> Result<Vec<Found>, Refused> {
        let place = resolve(path, held.is_directory, false)?;
        // A mount is known by its path without links.
        let real = match place.canonicalize() {
            Ok(real) if kind(&place)?.is_some_and(|kind| !kind.is_symlink()) => real,
            _ => place.clone(),
        };
        if let Some(mount) = self.mounts.iter().find(|mount| **mount != real && mount.starts_with(&real)) {
            return Err(format!(
                "{} cannot be swapped: {} is mounted in it. Unmount that meanwhile, or give what is beside it as paths of its own",
                path.display(),
                mount.display()
            ));
        }
        if !self.mounts.contains(&real) {
            return Ok(vec![self.found(path, &place, Some((path, held)))?]);
        }
        if !held.is_directory {
            return Err(format!(
                "{} cannot be swapped: it is mounted, and no directory. Unmount it, and recover what lies beneath",
                path.display()
            ));
        }
        self.mounted(path, &place)
    }

    /// The entries of a directory on which a file system is mounted.
    fn mounted(&self, path: &Path, place: &Path) -> Result<Vec<Found>, Refused> {
        let unreadable = |error| format!("{} cannot be listed: {error}", place.display());
        let held = (self.list)(path)?;
        let mut names: BTreeSet<OsString> = held.iter().map(|(name, _)| name.clone()).collect();
        for entry in fs::read_dir(place).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            if !is_left_alone(&name) && !(self.is_left_out)(&path.join(&name)) {
                names.insert(name);
            }
            if names.len() > ENTRIES_MAX {
                return Err(format!(
                    "{} is a mount point with more than {ENTRIES_MAX} entries, which would have to be swapped one by one: recover a \
                     directory in it instead",
                    path.display()
                ));
            }
        }
        let names = names.into_iter().map(|name| {
            let (named, place) = (path.join(&name), place.join(&name));
            let held =
                held.iter().find(|(other, _)| *other == name).map(|(_, held)| (named.as_path(), *held));
            self.found(&named, &place, held)
        });
        names.collect()
    }

    /// The targets that a SQLite database stands for: itself, behind the files that belong to it.
    pub fn database(&self, path: &Path, held: Held) -> Result<Vec<Found>, Refused> {
        let place = resolve(path, false, true)?;
        if self.mounts.contains(&place) {
            return Err(format!("{} cannot be swapped: it is mounted", path.display()));
        }
        let mut found = Vec::new();
        for behind in SQLITE_FILES {
            let with = |path: &Path| {
                let mut name = path.as_os_str().to_owned();
                name.push(behind);
                PathBuf::from(name)
            };
            let mut one = self.found(&with(path), &with(&place), None)?;
            one.target.beside_database = Some(Database { place: place.clone(), old: None });
            found.push(one);
        }
        found.push(self.found(path, &place, Some((path, held)))?);
        Ok(found)
    }

    fn found(&self, named: &Path, place: &Path, held: Option<(&Path, Held)>) -> Result<Found, Refused> {
        let target = Target::new(self.id, named, place, held.as_ref().map(|(path, held)| (*path, held)));
        let is_there = kind(place)?.is_some();
        Ok(Found { target, is_there, held: held.map(|(_, held)| held).unwrap_or_default() })
    }
}

/// Paths that are not below others of them.
pub fn topmost(paths: &[String]) -> Vec<&Path> {
    let all: Vec<&Path> = paths.iter().map(Path::new).collect();
    let is_topmost = |number: usize, path: &Path| {
        let is_above = |(other, above): (usize, &&Path)| {
            other != number && path.starts_with(above) && (path != *above || other < number)
        };
        !all.iter().enumerate().any(is_above)
    };
    let found = all.iter().enumerate().filter(|(number, path)| is_topmost(*number, path));
    found.map(|(_, path)| *path).collect()
}

/// The directory above a path that is there.
pub fn existing_above(path: &Path) -> &Path {
    path.ancestors().skip(1).find(|above| above.is_dir()).unwrap_or(Path::new("/"))
}
