//! Files below a root that are read from elsewhere: copies of what cannot be read where it is, such as a database in use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup::options::{BackupError, SourceRoot};
use crate::backup::roots;
use crate::backup::scan::Dir;
use crate::source::{Filter, SourceDir};

/// By path, the directory in which the file is that takes its place: it has the same name, and the path of the one that it stands for.
#[derive(Debug, Default)]
pub(super) struct Instead(HashMap<PathBuf, Arc<Dir>>);

impl Instead {
    /// Opens the directories of some files with absolute paths.
    ///
    /// # Errors
    /// [`BackupError::Source`] where one cannot be opened.
    pub fn of(files: &[SourceRoot], filter: &Filter) -> Result<Self, BackupError> {
        let above = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        let open = |file: &SourceRoot| {
            let handle = SourceDir::open_way(&above(file.place()))?;
            let filter = filter.above_root(handle.stat_self()?.device);
            Ok(Arc::new(Dir { handle, path: above(&file.path), filter }))
        };
        let opened = files.iter().map(|file| {
            let dir = open(file).map_err(|source| BackupError::Source { path: file.path.clone(), source })?;
            Ok((file.path.clone(), dir))
        });
        opened.collect::<Result<_, BackupError>>().map(Self)
    }

    /// The directory that an entry is read from, if not from its own.
    pub fn of_entry(&self, dir: &Dir, name: &[u8]) -> Option<&Arc<Dir>> {
        if self.0.is_empty() { None } else { self.0.get(&roots::join(&dir.path, name)) }
    }

    /// All paths.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }
}
