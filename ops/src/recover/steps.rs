//! What a recovery does with files: restored beside their places, compared, put in them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use strongroom::source::Filter;

use crate::drill::Compared;
use crate::drill::Problem;
use crate::plan::types::{Domain, Excluded};
use crate::recover::back::remove_tree;
use crate::recover::carry::{self, CARRIED_MAX};
use crate::recover::commands::wanted;
use crate::recover::journal::{Journal, Progress};
use crate::recover::machine::{Recoverer, Stop};
use crate::recover::record::RecoveryRecord;
use crate::recover::swap;
use crate::recover::targets::Target;
use crate::run::vault::VaultError;

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
                    let message =
                        format!("{different} files of {} are not what the snapshot has", path.display());
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
        if journal.targets.iter().any(|target| target.identity.is_none()) {
            let filter = Filter::new(domain.filter()).map_err(Stop::failed)?;
            let carries = wanted(domain).excluded.unwrap_or_default() == Excluded::Carry;
            for target in &mut journal.targets {
                swap::identify(target).map_err(Stop::failed)?;
                if carries && !domain.exclude.is_empty() && target.is_directory && is_directory(&target.place)
                {
                    let unreadable = |error| {
                        Stop::failed(format!("{} cannot be looked through: {error}", target.place.display()))
                    };
                    target.carried =
                        carry::left_out(&filter, &target.named, &target.place).map_err(unreadable)?;
                    if target.carried.len() > CARRIED_MAX {
                        return Err(Stop::failed(format!(
                            "more than {CARRIED_MAX} entries of {} are left out of backups",
                            target.place.display()
                        )));
                    }
                }
            }
            let restored = journal.targets.iter().filter(|target| target.held.is_some());
            journal.made = restored.flat_map(|target| missing_above(&target.place)).collect();
            journal.made.sort();
            journal.made.dedup();
            self.save(journal)?;
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
                    "{staying} entries that are left out of backups stay in {}: something else is in their place",
                    target.aside.display()
                ));
            }
        }
        self.swap_streams(domain, journal)
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

fn make_beside(target: &Target) -> io::Result<()> {
    private(&target.beside)?;
    for path in [&target.staged, &target.aside] {
        if let Some(folder) = path.parent() {
            folder.parent().map_or(Ok(()), private)?;
            private(folder)?;
        }
    }
    Ok(())
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
pub(super) fn tidy(journal: &Journal) -> Result<(), String> {
    remove_tree(&journal.scratch)
        .map_err(|error| format!("{} cannot be removed: {error}", journal.scratch.display()))
}
