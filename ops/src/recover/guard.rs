//! What must not be moved or removed with a target: repositories, what the program itself needs, mounts, other targets.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use strongroom::source::Filter;

use crate::plan::types::Domain;
use crate::recover::disk::Disk;
use crate::recover::journal::Journal;
use crate::recover::machine::Recoverer;
use crate::recover::preview::{Preview, Refusal};
use crate::recover::record::advice;
use crate::recover::targets::Found;

/// A path without links above its name, also where only a part of it is there: what it leads to is what is moved along.
pub(super) fn real(path: &Path) -> PathBuf {
    let name = path.file_name();
    match (path.parent(), name) {
        (Some(above), Some(name)) => whole(above).join(name),
        _ => path.to_owned(),
    }
}

/// The same with its name followed, too.
fn whole(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let Ok(found) = fs::canonicalize(above) {
            return path.strip_prefix(above).map_or_else(|_| found.clone(), |below| join(&found, below));
        }
    }
    path.to_owned()
}

/// Without the slash that an empty path would leave at the end.
fn join(above: &Path, below: &Path) -> PathBuf {
    match below.as_os_str().is_empty() {
        true => above.to_owned(),
        false => above.join(below),
    }
}

/// Makes sure that no file system is mounted in a directory, or on it, that is to be moved or removed: it would go along. They are
/// asked for each time, as what a recovery starts may mount some.
///
/// # Errors
/// Where there is one, or it cannot be told.
pub(super) fn mounted<'p>(disk: &dyn Disk, paths: impl Iterator<Item = &'p Path>) -> Result<(), String> {
    let mounts = disk.mounts().map_err(|error| format!("the list of mounts cannot be read: {error}"))?;
    for path in paths {
        let place = real(path);
        if let Some(mount) = mounts.iter().find(|mount| mount.starts_with(&place)) {
            return Err(format!(
                "a file system is mounted at {}, and would go along with {}: unmount it, and try again",
                mount.display(),
                path.display()
            ));
        }
    }
    Ok(())
}

/// The same of all places of a recovery.
pub(super) fn mounted_in(disk: &dyn Disk, journal: &Journal) -> Result<(), String> {
    let targets = journal.targets.iter().flat_map(|target| [&*target.place, &*target.beside]);
    mounted(disk, targets.chain([&*journal.scratch]))
}

/// Two targets of which one lies in the other, or is the other, whatever links there are.
pub(super) fn nested(targets: &[Found]) -> Option<(String, String)> {
    let named = |found: &Found| found.target.named.display().to_string();
    let mut places: Vec<_> = targets.iter().map(|found| (real(&found.target.place), named(found))).collect();
    // What lies in a directory comes right behind it.
    places.sort();
    let mut pairs = places.windows(2);
    let (above, below) = pairs.find_map(|pair| match pair {
        [above, below] if below.0.starts_with(&above.0) => Some((above, below)),
        _ => None,
    })?;
    Some((above.1.clone(), below.1.clone()))
}

/// A target of one that lies in one of the other, or is one.
fn inside<'j>(inner: &'j Journal, outer: &HashSet<PathBuf>) -> Option<&'j Path> {
    let mut places = inner.targets.iter().map(|target| &*target.place);
    places.find(|place| real(place).ancestors().any(|above| outer.contains(above)))
}

fn places(journal: &Journal) -> HashSet<PathBuf> {
    journal.targets.iter().map(|target| real(&target.place)).collect()
}

impl Recoverer<'_> {
    /// Makes sure that nothing is put aside with a domain that a recovery of another one keeps there, or has not finished.
    ///
    /// # Errors
    /// [`Refusal`] where there is.
    pub(super) fn others(&self, preview: &Preview) -> Result<(), Refusal> {
        let all = self.state.recoveries(self.plan).map_err(|error| self.unwritable(&error))?;
        let new: HashSet<_> = preview.targets.iter().map(|found| real(&found.target.place)).collect();
        for other in all.iter().filter(|other| other.domain != preview.domain) {
            let Some(advice) = advice(other) else { continue };
            let place = inside(other, &new).map(real).or_else(|| {
                let theirs = places(other);
                let is_inside = |place: &&PathBuf| place.ancestors().any(|above| theirs.contains(above));
                new.iter().find(is_inside).filter(|_| other.is_unfinished()).cloned()
            });
            if let Some(place) = place {
                let message = format!("{}: at {}, {advice}", preview.domain, place.display());
                let hint = format!(
                    "do one or the other of {} first: it would be mixed up with this recovery",
                    other.domain
                );
                return Err(Refusal::failed("nested", message, hint));
            }
        }
        Ok(())
    }

    /// What a recovery keeps that was begun earlier, inside of what is to be removed now, could not be put back any more.
    pub(super) fn refuse_removal(&self, journals: &[Journal]) -> Result<(), Refusal> {
        let all = self.state.recoveries(self.plan).map_err(|error| self.unwritable(&error))?;
        for journal in journals.iter().filter(|journal| !journal.is_leftover()) {
            let outer = places(journal);
            let earlier = all.iter().take_while(|other| other.domain != journal.domain);
            let mut earlier = earlier.filter(|other| !journals.iter().any(|one| one.domain == other.domain));
            if let Some(other) = earlier.find(|other| !other.is_leftover() && inside(other, &outer).is_some())
            {
                let (name, other) = (&journal.domain, &other.domain);
                let message = format!(
                    "{name} cannot be committed before {other}, which was recovered earlier inside of it: what was there before may be gone with it"
                );
                let hint =
                    format!("`strongroom recover --commit {other} {name}`, or --rollback {name} {other}");
                return Err(Refusal::failed("nested", message, hint));
            }
        }
        Ok(())
    }

    /// Whether a recovery could be committed by itself where another one, which it touches, is to be put back.
    pub(super) fn is_apart(later: &Journal, earlier: &Journal) -> bool {
        inside(earlier, &places(later)).is_none()
    }

    /// Blocks where a repository, or what the program needs to put things back, would be put aside with a target.
    ///
    /// # Errors
    /// [`Refusal`] where the snapshot cannot be read.
    pub(super) fn find_needed(
        &self,
        domain: &Domain,
        filter: &Filter,
        preview: &mut Preview,
    ) -> Result<(), Refusal> {
        let places: Vec<_> = preview
            .targets
            .iter()
            .map(|found| (found.target.named.clone(), real(&found.target.place)))
            .collect();
        let around = |path: &Path| places.iter().find(|(_, place)| path.starts_with(place));
        let state = whole(self.state.folder());
        if let Some((named, _)) = around(&state) {
            let message = format!(
                "the state directory {} lies in {}: after a kill the journal of the recovery would be put aside with that",
                state.display(),
                named.display()
            );
            preview.block(
                "not-swappable",
                message,
                "name one elsewhere with --state-dir, and the same with --resume, --rollback and --commit",
            );
        }
        let scratch = domain.recover.as_ref().and_then(|recover| recover.scratch.as_ref());
        let scratch = scratch.filter(|_| !domain.stream.is_empty()).map(|path| whole(Path::new(path)));
        if let Some((scratch, (named, _))) = scratch.and_then(|path| Some((path.clone(), around(&path)?))) {
            let message = format!(
                "`scratch` is {}, which lies in {}: it would be put aside with that",
                scratch.display(),
                named.display()
            );
            preview.block("not-swappable", message, "name a directory elsewhere in [domain.recover] scratch");
        }
        for (repo, place) in self.repositories() {
            let Some((named, above)) = around(&place) else { continue };
            let named = place.strip_prefix(above).map_or_else(|_| named.clone(), |below| join(named, below));
            let held = self.source.look(&preview.repository, &preview.snapshot, &named);
            let is_held =
                held.map_err(|error| Refusal::of_vault(domain, &preview.repository, &error))?.is_some();
            let is_left_out = domain.leaves_out(filter, &named);
            if preview.carries && is_left_out && !is_held {
                continue;
            }
            let (why, hint) = if is_held {
                ("the snapshot has something else for its place", "move the repository elsewhere")
            } else if is_left_out {
                (
                    "excluded = \"leave\" would put it aside with that",
                    "say excluded = \"carry\" in [domain.recover], or move the repository elsewhere",
                )
            } else {
                (
                    "no snapshot has it: it would be put aside with that, and --commit would remove it",
                    "add its path to `exclude` of the domain, and it is moved along; or move the repository elsewhere",
                )
            };
            let message =
                format!("the repository {repo} ({}) lies in what is replaced; {why}", place.display());
            preview.block("not-swappable", message, hint);
        }
        Ok(())
    }

    /// Repositories of the plan that are directories of this host, and where.
    fn repositories(&self) -> Vec<(String, PathBuf)> {
        let repos = self.plan.repos.iter().filter_map(|(name, repo)| Some((name.to_string(), repo.local()?)));
        // What is not there cannot be lost.
        repos
            .filter(|(_, path)| !matches!(path.try_exists(), Ok(false)))
            .map(|(name, path)| (name, whole(path)))
            .collect()
    }
}
