//! What is in the way and no snapshot has, because the plan leaves it out: it is moved into what was restored, and back.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strongroom::source::{Filter, FilterError, FilterOptions, SourceKind};

use crate::plan::types::{Domain, Excluded};
use crate::recover::BESIDE;
use crate::recover::disk::Disk;
use crate::recover::swap::inode;
use crate::recover::targets::Target;

/// Most entries of a target that are moved one by one.
pub(super) const CARRIED_MAX: usize = 10_000;

/// A path below a target, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Below(Vec<u8>);

impl Below {
    /// As a path.
    pub fn path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }
}

impl From<&Path> for Below {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

/// What is below a directory and is left out of backups: the topmost entries of it. `named` is where the plan says that the
/// directory is. At most [`CARRIED_MAX`] and one.
pub(super) fn left_out(filter: &Filter, named: &Path, place: &Path) -> io::Result<Vec<Below>> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    let all = filter.above_root(0);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(place.join(&folder))? {
            let entry = entry?;
            let (kind, below) = (entry.file_type()?, folder.join(entry.file_name()));
            let sort = if kind.is_dir() {
                SourceKind::Directory
            } else if kind.is_symlink() {
                SourceKind::Symlink
            } else {
                SourceKind::File
            };
            if filter.excluded(&all, &named.join(&below), sort, 0).is_some() {
                found.push(Below::from(&*below));
                if found.len() > CARRIED_MAX {
                    return Ok(found);
                }
            } else if kind.is_dir() {
                open.push(below);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is moved along: what the plan leaves out, unless it is to be left, and in any case what other recoveries keep.
pub(super) fn filter(domain: &Domain) -> Result<Filter, FilterError> {
    let mut options = match domain.recover.as_ref().and_then(|recover| recover.excluded).unwrap_or_default() {
        Excluded::Carry => domain.filter(),
        Excluded::Leave => FilterOptions::default(),
    };
    options.exclude.push(format!("{BESIDE}*"));
    Filter::new(options)
}

/// What becomes of what is left out.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// What is moved: at most [`CARRIED_MAX`] and one.
    pub carried: Vec<Below>,
    /// How many entries stay where they are, because something else is in their place.
    pub staying: usize,
    /// One of them.
    pub example: PathBuf,
}

/// Sorts what is left out by what is in its place in what was restored. Two directories become one: what the restored one lacks is moved.
/// What backups have all the same, as `is_backed_up` says, is not counted where it stays.
pub(super) fn split(
    left_out: &[Below],
    from: &Path,
    to: &Path,
    is_backed_up: &dyn Fn(&Path) -> bool,
) -> io::Result<Split> {
    let (mut split, mut open) = (Split::default(), Vec::new());
    let mut sort = |below: &Path, open: &mut Vec<PathBuf>| -> io::Result<usize> {
        let (source, wanted) = (from.join(below), to.join(below));
        if is_way_free(to, below)? && !is_there(&wanted)? {
            split.carried.push(Below::from(below));
        } else if is_way_free(to, below)? && is_directory(&source) && is_directory(&wanted) {
            open.push(below.to_owned());
        } else if !is_backed_up(below) {
            split.staying += 1;
            below.clone_into(&mut split.example);
        }
        Ok(split.carried.len())
    };
    for below in left_out {
        sort(below.path(), &mut open)?;
    }
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(from.join(&folder))? {
            let below = folder.join(entry?.file_name());
            if sort(&below, &mut open)? > CARRIED_MAX {
                return Ok(split);
            }
        }
    }
    split.carried.sort();
    Ok(split)
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Whether there are directories, or nothing, above an entry: not links, that could lead anywhere.
fn is_way_free(to: &Path, below: &Path) -> io::Result<bool> {
    let above: Vec<_> = below.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    for folder in above.into_iter().rev() {
        match fs::symlink_metadata(to.join(folder)) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the directories above an entry as they are in `from`; false where something else is in their place, a link above all: it could lead
/// anywhere.
fn make_way(from: &Path, to: &Path, below: &Path) -> io::Result<bool> {
    let above: Vec<_> = below.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    for folder in above.into_iter().rev() {
        let wanted = to.join(folder);
        match fs::symlink_metadata(&wanted) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let model = fs::symlink_metadata(from.join(folder))?;
                DirBuilder::new().mode(0o700).create(&wanted)?;
                // Only root may give it to somebody else; whoever else made it, it is theirs.
                let _ = chown(&wanted, Some(model.uid()), Some(model.gid()));
                fs::set_permissions(&wanted, fs::Permissions::from_mode(model.mode() & 0o7777))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Moves everything from `from` to `to` that is not there; what is done is not done again. Returns how many entries stay where they
/// are, because something else is in their place.
fn move_all(disk: &dyn Disk, carried: &[Below], from: &Path, to: &Path) -> io::Result<usize> {
    let mut staying = 0;
    for below in carried {
        let (source, wanted) = (from.join(below.path()), to.join(below.path()));
        if !is_there(&source)? {
            continue;
        }
        if is_there(&wanted)? || !make_way(from, to, below.path())? {
            staying += 1;
            continue;
        }
        disk.rename(&source, &wanted)?;
        for folder in [source.parent(), wanted.parent()].into_iter().flatten() {
            disk.sync(folder)?;
        }
    }
    Ok(staying)
}

/// Moves what is left out from what was there into what was restored; returns how many entries stay.
pub(super) fn forward(disk: &dyn Disk, target: &Target) -> io::Result<usize> {
    move_all(disk, &target.carried, &target.aside, &target.place)
}

/// The way back.
pub(super) fn backward(disk: &dyn Disk, target: &Target) -> io::Result<()> {
    // Where what was there is in its place, or was not set aside, nothing was moved out of it.
    let is_back = target.identity.is_none_or(|identity| identity.old.is_none())
        || inode(&target.place)? == target.identity.and_then(|identity| identity.old);
    if target.carried.is_empty() || is_back || !is_there(&target.aside)? {
        return Ok(());
    }
    move_all(disk, &target.carried, &target.place, &target.aside)?;
    for below in &target.carried {
        let (here, back) = (target.place.join(below.path()), target.aside.join(below.path()));
        // What is removed with what was restored has to be somewhere else.
        if is_there(&here)? && !is_there(&back)? {
            return Err(io::Error::other(format!(
                "{} cannot be moved back to {}",
                here.display(),
                back.display()
            )));
        }
    }
    Ok(())
}
