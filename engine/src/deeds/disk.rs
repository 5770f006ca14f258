//! Repositories of deeds as folders on disk.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::Deed;
use crate::backend::local::disk::record::{Entry, Tree};
use crate::backend::{Backend, LocalBackend, MemoryBackend, ObjectKey};
use crate::repo::{Repository, RepositoryError};

/// A folder that goes again soon, in memory where the system has a file system there. On ext4, thousands of files that come and go take most of the time: it
/// looks for inodes that were not freed just now. All are in one, so that what is above it stays as it is: other tests look at that.
pub fn scratch() -> TempDir {
    let all = "/dev/shm/strongroom-tests";
    let in_memory = fs::create_dir_all(all).and_then(|()| tempfile::tempdir_in(all));
    in_memory.or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// The objects of a repository as files.
pub fn on_disk(storage: &MemoryBackend) -> TempDir {
    let folder = scratch();
    LocalBackend::create_repository(folder.path()).expect("made");
    for (key, bytes) in storage.objects() {
        let path = folder.path().join(key.as_str());
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    folder
}

/// The objects among the files of a folder.
pub fn in_memory(tree: &Tree) -> MemoryBackend {
    let storage = MemoryBackend::new();
    for (path, entry) in tree {
        let key = ObjectKey::parse(path.to_str().expect("text"));
        if let (Some(key), Entry::File(bytes)) = (key, entry) {
            storage.plant(&key, bytes);
        }
    }
    storage
}

impl Deed {
    /// The folder of the repository that it is done to.
    pub fn folder(&self) -> TempDir {
        if self.is_init { scratch() } else { on_disk(&self.storage) }
    }

    /// Does it to a repository in a folder: with links, as where files cannot be renamed without replacing others, or with renames.
    pub fn act_in(&self, folder: &Path, with_links: bool) -> Result<(), String> {
        if self.is_init {
            LocalBackend::create_repository(folder).map_err(|error| error.to_string())?;
        }
        let backend = LocalBackend::open(folder).expect("a folder");
        if with_links {
            backend.publish_with_links();
        }
        self.act(Arc::new(backend))
    }

    /// Opens the one in a folder.
    pub fn open_in(&self, folder: &Path) -> Result<Repository, RepositoryError> {
        self.open(&backend(folder))
    }
}

/// The repository in a folder, whatever there is of it.
pub fn backend(folder: &Path) -> Arc<dyn Backend> {
    Arc::new(LocalBackend::open(folder).expect("a folder"))
}
