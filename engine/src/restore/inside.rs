//! A repository that lies in the directory it is restored to: nothing may be put into it or removed from it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::RestoreError;
use crate::repo::Repository;
use crate::target::RelativePath;

/// Where in the target the repository lies, if it does.
#[derive(Debug, Default)]
pub(super) struct Inside(Option<Vec<u8>>);

/// How an entry of the target and the repository lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// Neither holds the other.
    Apart,
    /// The entry is the repository's folder, or would lie in it.
    Repository,
    /// The repository lies somewhere below the entry.
    Above,
}

impl Inside {
    /// Finds the repository, if it is a local folder below `target`.
    ///
    /// # Errors
    /// [`RestoreError::TargetInRepository`] if it is the other way around.
    pub(super) fn find(repository: &Repository, target: &Path) -> Result<Self, RestoreError> {
        let Ok(folder) = Path::new(&repository.location()).canonicalize() else { return Ok(Self(None)) };
        let target = resolve(target);
        if target.starts_with(&folder) {
            return Err(RestoreError::TargetInRepository { target: target.display().to_string() });
        }
        Ok(Self(folder.strip_prefix(&target).ok().map(|below| below.as_os_str().as_bytes().to_vec())))
    }

    /// Where an entry of the target stands.
    pub(super) fn relation(&self, entry: &RelativePath) -> Relation {
        let Some(repository) = &self.0 else { return Relation::Apart };
        let is_at_or_below = |path: &[u8], above: &[u8]| {
            path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        match entry.as_bytes() {
            entry if is_at_or_below(entry, repository) => Relation::Repository,
            entry if is_at_or_below(repository, entry) => Relation::Above,
            _ => Relation::Apart,
        }
    }
}

/// The path without symbolic links and `..`, as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => resolve(Path::new(".")).join(name),
        (Some(parent), Some(name)) => resolve(parent).join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_apart_from_it_in_it_or_above_it() {
        let inside = Inside(Some(b"srv/backup".to_vec()));
        for (entry, relation) in [
            ("srv", Relation::Above),
            ("srv/backup", Relation::Repository),
            ("srv/backup/packs", Relation::Repository),
            ("srv/backup2", Relation::Apart),
            ("srv/back", Relation::Apart),
            ("backup", Relation::Apart),
        ] {
            let path = RelativePath::parse(entry.as_bytes()).expect("a path");
            assert_eq!(inside.relation(&path), relation, "{entry}");
            assert_eq!(Inside(None).relation(&path), Relation::Apart);
        }
    }

    #[test]
    fn what_does_not_exist_is_resolved_as_far_as_it_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().canonicalize().expect("it exists");
        std::os::unix::fs::symlink(&real, real.join("link")).expect("linked");
        assert_eq!(resolve(&real.join("link/a/b")), real.join("a/b"));
    }
}
