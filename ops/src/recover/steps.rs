//! What a recovery does with files: restored beside their places, compared, put in them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use strongroom::source::Filter;

use crate::drill::Compared;
use crate::drill::Problem;
use crate::plan::types::Domain;
use crate::recover::back::remove_tree;
use crate::recover::carry::{self, Below, CARRIED_MAX, Split};
use crate::recover::disk::Disk;
use crate::recover::guard;
use crate::recover::journal::{Journal, Progress};
use crate::recover::machine::{Recoverer, Stop};
use crate::recover::newcomers;
use crate::recover::record::RecoveryRecord;
use crate::recover::swap;
use crate::recover::targets::Target;
use crate::run::stage;
use crate::run::vault::VaultError;
use crate::words::{count, verb};

impl Recoverer<'_> {
    /// Restores everything beside its place.
    pub(super) fn stage(&self, journal: &mut Journal) -> Result<(), Stop> {
        (journal.files, journal.bytes) = (0, 0);
        let unmade = |path: &Path, error: io::Error| {
            Stop::failed(format!("{} cannot be made: {error}", path.display()))
        };
        for target in journal.targets.clone() {
            make_beside(&target).map_err(|error| unmade(&target.beside, error))?;
            // From the innermost up: what is renamed into them has to be found after a power cut.
            let ways = [&target.staged, &target.aside].map(|path| path.ancestors().skip(2).take(1));
            let mut folders = ways.into_iter().flatten().chain(target.beside.ancestors().take(2));
            folders
                .try_for_each(|folder| self.disk.sync(folder))
                .map_err(|error| unmade(&target.beside, error))?;
            if let Some(held) = &target.held {
                // A part of an earlier attempt would keep the directory from getting its own owner and mode.
                if target.identity.is_none() {
                    clear(self.disk, &target.staged).map_err(|error| {
                        Stop::failed(format!("{} cannot be removed: {error}", target.staged.display()))
                    })?;
                }
                self.restore(journal, held, target.restored_into())?;
            }
        }
        if !journal.loads.is_empty() {
            let scratch = journal.scratch.clone();
            private(&scratch).map_err(|error| unmade(&scratch, error))?;
        }
        for load in journal.loads.clone() {
            let scratch = journal.scratch.clone();
            self.restore(journal, &Path::new("/").join(&load.stream), &scratch)?;
        }
        Ok(())
    }

    fn restore(&self, journal: &mut Journal, path: &Path, into: &Path) -> Result<(), Stop> {
        let restored = self.source.stage(&journal.repository, &journal.snapshot, path, into);
        let restored = restored.map_err(|error| of_vault(path, &error))?;
        journal.files += restored.files;
        journal.bytes = journal.bytes.saturating_add(restored.bytes);
        match restored.problem {
            None => Ok(()),
            Some(Problem { is_damage: true, message }) => Err(Stop::damage(message)),
            Some(Problem { message, .. }) => Err(Stop::failed(message)),
        }
    }

    /// Compares what was restored with the repository.
    pub(super) fn verify(&self, journal: &Journal) -> Result<(), Stop> {
        let streams =
            journal.loads.iter().map(|load| (Path::new("/").join(&load.stream), journal.scratch.as_path()));
        let targets = journal.targets.iter();
        let targets = targets.filter_map(|target| Some((target.held.clone()?, target.restored_into())));
        for (path, into) in targets.chain(streams) {
            let compared = self.source.compare(&journal.repository, &journal.snapshot, &path, into);
            match compared.map_err(|error| of_vault(&path, &error))? {
                Compared { different: 0, .. } => {}
                Compared { different, .. } => {
                    let (entries, are) = (count(different, "entry"), verb(different, "is", "are"));
                    let message = format!("{entries} of {} {are} not what the snapshot has", path.display());
                    return Err(Stop::damage(message));
                }
            }
        }
        Ok(())
    }

    /// Puts everything in its place.
    pub(super) fn swap(
        &self,
        domain: &Domain,
        journal: &mut Journal,
        record: &mut RecoveryRecord,
    ) -> Result<(), Stop> {
        guard::mounted_in(self.disk, journal).map_err(Stop::failed)?;
        if journal.targets.iter().any(|target| target.identity.is_none()) {
            let appeared = newcomers::find(domain, journal).map_err(Stop::failed)?;
            for target in &appeared {
                make_beside(target).map_err(Stop::failed)?;
                record.warn(format!(
                    "{} has appeared since the recovery was planned: it is moved to {}",
                    target.place.display(),
                    target.aside.display()
                ));
            }
            journal.targets.extend(appeared);
            for target in &mut journal.targets {
                swap::identify(target).map_err(Stop::failed)?;
                let staying = self.find_carried(domain, target)?;
                journal.left.extend(staying);
            }
            let restored = journal.targets.iter().filter(|target| target.held.is_some());
            journal.made = restored.flat_map(|target| missing_above(&target.place)).collect();
            journal.made.sort();
            journal.made.dedup();
            self.save(journal)?;
        } else {
            let mut has_changed = false;
            for target in &mut journal.targets {
                has_changed |= swap::look_again(target).map_err(Stop::failed)?;
            }
            if has_changed {
                self.save(journal)?;
            }
        }
        for folder in &journal.made {
            let made = match fs::create_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                result => result,
            };
            let synced = made.and_then(|()| folder.parent().map_or(Ok(()), |above| self.disk.sync(above)));
            synced.map_err(|error| Stop::failed(format!("{} cannot be made: {error}", folder.display())))?;
        }
        for target in &journal.targets {
            swap::forward(self.disk, target).map_err(Stop::failed)?;
        }
        for target in &journal.targets {
            let staying = carry::forward(self.disk, target).map_err(Stop::failed)?;
            if staying > 0 {
                record.warn(format!(
                    "{} that {} left out of backups {} in {}: something else is in {} place",
                    count(staying, "entry"),
                    verb(staying, "is", "are"),
                    verb(staying, "stays", "stay"),
                    target.aside.display(),
                    verb(staying, "its", "their")
                ));
            }
        }
        self.swap_streams(domain, journal)
    }

    /// Finds what is moved along with a target; says what is not, if there is any.
    fn find_carried(&self, domain: &Domain, target: &mut Target) -> Result<Option<String>, Stop> {
        if fs::symlink_metadata(&target.place).is_err() {
            return Ok(None);
        }
        let unreadable = |error: io::Error| {
            Stop::failed(format!("{} cannot be looked through: {error}", target.place.display()))
        };
        let filter = carry::filter(domain).map_err(Stop::failed)?;
        let all = stage::filter(domain, &self.plan.sources).and_then(Filter::new).map_err(Stop::failed)?;
        let is_backed_up = |below: &Path| !domain.leaves_out(&all, &target.named.join(below));
        // Where a mounted file system is taken apart: it is left out itself, and the snapshot has one from before.
        let is_left_out = target.held.is_some()
            && !domain.paths.iter().chain(&domain.sqlite).any(|path| target.named == Path::new(path))
            && domain.leaves_out(&filter, &target.named);
        let found = match (is_left_out, is_directory(&target.place)) {
            (true, _) => vec![Below::from(Path::new(""))],
            (false, true) => carry::left_out(&filter, &target.named, &target.place).map_err(unreadable)?,
            (false, false) => Vec::new(),
        };
        let split = match target.is_directory {
            true => carry::split(&found, &target.place, &target.staged, &is_backed_up).map_err(unreadable)?,
            false => {
                let example = found.first().map(|below| below.path().to_owned()).unwrap_or_default();
                Split { carried: Vec::new(), staying: found.len(), example }
            }
        };
        if split.carried.len() > CARRIED_MAX {
            return Err(Stop::failed(format!(
                "more than {CARRIED_MAX} entries of {} are left out of backups, and would have to be moved one by one: exclude \
                 directories instead of single files, or say excluded = \"leave\" in [domain.recover]",
                target.place.display()
            )));
        }
        target.carried = split.carried;
        Ok((split.staying > 0).then(|| {
            format!(
                "{} that {} left out of backups {} in {}, because what was restored has something else in {} place ({}): \
                 take what you need of that before --commit removes it",
                count(split.staying, "entry"),
                verb(split.staying, "is", "are"),
                verb(split.staying, "stays", "stay"),
                target.aside.display(),
                verb(split.staying, "its", "their"),
                target.named.join(&split.example).display()
            )
        }))
    }
}

fn of_vault(path: &Path, error: &VaultError) -> Stop {
    let message = format!("{}: {}", path.display(), error.message);
    if error.is_damage() { Stop::damage(message) } else { Stop::failed(message) }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Directories above a path that are not there.
fn missing_above(path: &Path) -> Vec<PathBuf> {
    let missing = path.ancestors().skip(1).take_while(|above| fs::symlink_metadata(above).is_err());
    missing.map(Path::to_owned).collect()
}

/// A directory that nobody else can look into.
fn private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_directory(path) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(path)
        }
        result => result,
    }
}

pub(super) fn make_beside(target: &Target) -> io::Result<()> {
    private(&target.beside)?;
    for path in [&target.staged, &target.aside] {
        if let Some(folder) = path.parent() {
            folder.parent().map_or(Ok(()), private)?;
            private(folder)?;
        }
    }
    Ok(())
}

/// Removes what was staged.
fn clear(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_tree(disk, path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where what was there before is kept.
pub(super) fn kept(journal: &Journal) -> Vec<String> {
    let targets = journal.targets.iter().filter(|target| fs::symlink_metadata(&target.aside).is_ok());
    let swapped = journal.loads.iter().filter(|load| load.swapped == Progress::Done);
    targets
        .map(|target| target.aside.display().to_string())
        .chain(swapped.map(|load| load.old.clone()))
        .collect()
}

/// Removes streams that are loaded.
pub(super) fn tidy(disk: &dyn Disk, journal: &Journal) -> Result<(), String> {
    remove_tree(disk, &journal.scratch)
        .map_err(|error| format!("{} cannot be removed: {error}", journal.scratch.display()))
}
