//! What is read from elsewhere than it lies: copies of databases and of the plan, and file system snapshots.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use strongroom::backup::SourceRoot;
use strongroom::source::{FilterError, FilterOptions};

use crate::plan::SourceFile;
use crate::plan::types::Domain;
use crate::recover::BESIDE;
use crate::run::sqlite::{self, Asking, SqliteError};

/// A file of its own name, in a folder of its own.
fn place(stage: &Path, kind: &str, number: usize, path: &Path) -> io::Result<PathBuf> {
    let folder = stage.join(format!("{kind}-{number}"));
    fs::create_dir(&folder)?;
    Ok(folder.join(path.file_name().unwrap_or_default()))
}

/// Copies the SQLite databases of a domain.
///
/// # Errors
/// [`SqliteError`]: the first that cannot be copied.
pub fn databases(domain: &Domain, stage: &Path, asking: &Asking<'_>) -> Result<Vec<SourceRoot>, SqliteError> {
    let copies = domain.sqlite.iter().enumerate().map(|(number, path)| {
        let path = PathBuf::from(path);
        let target = place(stage, "sqlite", number, &path)
            .map_err(|source| SqliteError::File { path: path.clone(), source })?;
        sqlite::copy(&path, &target, asking)?;
        Ok(SourceRoot { path, read_from: Some(target) })
    });
    copies.collect()
}

/// The files of the plan as they were read, unless the domain has them among its paths anyway.
///
/// # Errors
/// Where they cannot be written.
pub fn plan_files(domain: &Domain, sources: &[SourceFile], stage: &Path) -> io::Result<Vec<SourceRoot>> {
    let wanted = sources.iter().enumerate().filter(|(_, source)| !domain.reaches(&source.path));
    let copies = wanted.map(|(number, source)| {
        let target = place(stage, "plan", number, &source.path)?;
        fs::write(&target, &source.text)?;
        if let Ok(meta) = fs::metadata(&source.path) {
            fs::set_permissions(&target, meta.permissions())?;
        }
        Ok(SourceRoot { path: source.path.clone(), read_from: Some(target) })
    });
    copies.collect()
}

/// What is left out of a domain's paths: but for the files of the plan, by which it is known later what was meant.
///
/// # Errors
/// [`FilterError`] where its patterns cannot be used.
pub fn filter(domain: &Domain, sources: &[SourceFile]) -> Result<FilterOptions, FilterError> {
    let mut filter = domain.filter();
    // What a recovery keeps beside its targets was backed up when it was in use.
    filter.exclude.push(format!("{BESIDE}*"));
    filter.exclude.extend(domain.beside_databases());
    filter.exclude.extend(domain.keeping(sources.iter().map(|source| source.path.as_path()))?);
    Ok(filter)
}

/// The paths of a domain, read from a file system snapshot if there is one.
pub fn paths(domain: &Domain, snapshot: Option<&Path>) -> Vec<SourceRoot> {
    let root = domain.snapshot.as_ref().and_then(|hooks| hooks.root.as_deref()).unwrap_or("/");
    let read_from = |path: &Path| {
        let inside = path.strip_prefix(root).ok()?;
        let snapshot = snapshot?;
        Some(if inside.as_os_str().is_empty() { snapshot.to_owned() } else { snapshot.join(inside) })
    };
    domain
        .paths
        .iter()
        .map(|path| SourceRoot { path: path.into(), read_from: read_from(Path::new(path)) })
        .collect()
}
