//! A repository in a local folder: every object is one read-only file under its key.
//!
//! `tmp/` beside the objects' folders holds what is being written. All access goes through a handle of the
//! repository's folder and follows no links below it, so a folder that is moved or replaced while the
//! repository is in use is never mixed with another.

pub(crate) mod disk;
mod folders;
mod handles;
mod publish;
mod room;
mod staged;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use self::handles::{Handles, OpenObject};
use self::publish::{LocalSign, NEITHER_WAY, NotPublished, Publication, TemporaryFile, TemporaryNames};
use self::staged::{LocalReader, LocalStaged};
use super::check_limit;
use super::key::is_fan_name;
use super::{Backend, BackendError, Created, Folder, ObjectInfo, ObjectKey, ObjectReader, Sign, Staged};

/// Folder of files that are being written.
const TEMPORARY: &str = "tmp";

/// Objects as files below one folder.
#[derive(Debug)]
pub struct LocalBackend {
    path: PathBuf,
    root: OwnedFd,
    names: TemporaryNames,
    publication: Publication,
    /// Fan-out folders, as `packs/ab`, whose own entry is known to be on disk.
    durable_fans: Mutex<BTreeSet<String>>,
    handles: Handles,
}

impl LocalBackend {
    /// Makes the folders of a repository at `path`, those above it included, and tries out that the storage
    /// can hold one. What is there already stays; whether that is a repository is for the caller to see.
    ///
    /// # Errors
    /// [`BackendError::Unsuitable`] if the storage cannot create without replacing or cannot flush folders,
    /// and [`BackendError::Io`] if a folder or the files of the trial cannot be made.
    pub fn create_repository(path: &Path) -> Result<Self, BackendError> {
        folders::make_all(path).map_err(|e| BackendError::io("create", path.display(), e))?;
        let backend = Self::open(path)?;
        for name in Folder::ALL.map(Folder::name).into_iter().chain([TEMPORARY]) {
            folders::make(&backend.root, name).map_err(|e| backend.failed("create", name, e))?;
        }
        disk::sync(&backend.root).map_err(|e| backend.failed("flush", "", e))?;
        backend.probe()?;
        Ok(backend)
    }

    /// Opens the repository folder at `path`. Nothing is written, and nothing but its being a folder is
    /// checked: storage that can be read can be opened.
    ///
    /// # Errors
    /// [`BackendError::Io`] if `path` is no folder or cannot be read.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let failed = |e: io::Error| BackendError::io("open", path.display(), e);
        Ok(Self {
            path: path.to_owned(),
            root: folders::open_root(path).map_err(|e| failed(e.into()))?,
            names: TemporaryNames::new().map_err(failed)?,
            publication: Publication::default(),
            durable_fans: Mutex::default(),
            handles: Handles::default(),
        })
    }

    /// Publishes as on a file system that cannot rename a file without replacing another.
    #[cfg(test)]
    pub(crate) fn publish_with_links(&self) {
        self.publication.force_links();
    }

    /// The first name in the folder, in byte order, that no repository has there; none in a folder that is empty, or in which
    /// somebody began to make a repository. `lost+found`, which a new file system has, does not count.
    ///
    /// # Errors
    /// [`BackendError::Io`] if the folder cannot be listed.
    pub fn foreign_entry(&self) -> Result<Option<Vec<u8>>, BackendError> {
        let own =
            Folder::ALL.map(Folder::name).into_iter().chain([TEMPORARY, "config", ".", "..", "lost+found"]);
        let own: Vec<&[u8]> = own.map(str::as_bytes).collect();
        folders::first_name(&self.root, |name| !own.contains(&name)).map_err(|e| self.failed("list", "", e))
    }

    fn probe(&self) -> Result<(), BackendError> {
        let folder = self.temporary_folder()?;
        publish::probe(&folder, &self.names, &self.publication)
            .map_err(|e| self.failed("try out", TEMPORARY, e))?
            .map_err(|missing| self.unsuitable(missing))
    }

    /// An operation failed on something in the repository; `what` is relative to it.
    fn failed(&self, action: &'static str, what: &str, source: impl Into<io::Error>) -> BackendError {
        // Joining an empty path would end the message's path in a slash.
        let path = if what.is_empty() { self.path.clone() } else { self.path.join(what) };
        BackendError::io(action, path.display(), source)
    }

    fn unsuitable(&self, missing: impl Into<String>) -> BackendError {
        BackendError::Unsuitable { location: self.location(), missing: missing.into() }
    }

    fn open_folder(&self, relative: &str) -> Result<Option<OwnedFd>, BackendError> {
        match folders::open_beneath(&self.root, relative) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("open", relative, error)),
        }
    }

    /// The folder an existing object lies in; `None` if there is no such folder or can be no such object.
    fn folder_of(&self, key: &ObjectKey) -> Result<Option<OwnedFd>, BackendError> {
        if key.is_well_formed() { self.open_folder(key.parent()) } else { Ok(None) }
    }

    /// The folder a new object is to lie in. Fan-out folders are made; that one of the repository's own
    /// folders is missing is damage, and beginning it anew would hide that.
    fn folder_for(&self, key: &ObjectKey) -> Result<OwnedFd, BackendError> {
        let relative = key.parent();
        if let Some(folder) = key.folder().filter(|folder| folder.is_fanned_out()) {
            if folder == Folder::Parity {
                // Nothing rests on it: who cleared it away wanted no sidecars.
                folders::make(&self.root, folder.name()).map_err(|e| self.failed("create", relative, e))?;
            }
            self.make_fan(folder, relative)?;
        }
        match folders::open_beneath(&self.root, relative) {
            // Repositories made before there were ledgers have no folder for them.
            Err(Errno::NOENT) if key.folder() == Some(Folder::Ledger) => {
                folders::make(&self.root, relative).map_err(|e| self.failed("create", relative, e))?;
                disk::sync(&self.root).map_err(|e| self.failed("flush", "", e))?;
                folders::open_beneath(&self.root, relative)
            }
            opened => opened,
        }
        .map_err(|e| self.failed("open", relative, e))
    }

    /// Makes the fan-out folder `relative`, and makes sure that its entry is on disk: whoever made it, maybe
    /// this moment, may not have flushed it yet. One flush vouches for all that were there before it.
    fn make_fan(&self, folder: Folder, relative: &str) -> Result<(), BackendError> {
        let mut durable = self.durable_fans.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.contains(relative) {
            return Ok(());
        }
        let failed = |e: Errno| self.failed("create", relative, e);
        let parent = folders::open_beneath(&self.root, folder.name())
            .map_err(|e| self.failed("open", folder.name(), e))?;
        let name = relative.rsplit('/').next().unwrap_or(relative);
        folders::make(&parent, name).map_err(failed)?;
        let present = folders::names(&parent, is_fan_name).map_err(failed)?;
        disk::sync(&parent).map_err(|e| self.failed("flush", folder.name(), e))?;
        durable.extend(present.iter().map(|fan| format!("{}/{fan}", folder.name())));
        Ok(())
    }

    /// The folder for temporary files, made if it was cleared away.
    fn temporary_folder(&self) -> Result<OwnedFd, BackendError> {
        match folders::open_beneath(&self.root, TEMPORARY) {
            Err(Errno::NOENT) => folders::make(&self.root, TEMPORARY)
                .and_then(|()| folders::open_beneath(&self.root, TEMPORARY))
                .map_err(|e| self.failed("create", TEMPORARY, e)),
            result => result.map_err(|e| self.failed("open", TEMPORARY, e)),
        }
    }

    /// `lstat` of the entry `key` in its `folder`, `None` if there is none.
    fn entry(&self, folder: &OwnedFd, key: &ObjectKey) -> Result<Option<Stat>, BackendError> {
        match rustix::fs::statat(folder, key.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("look up", key.as_str(), error)),
        }
    }

    /// The length of an object's file. Anything but a regular file in an object's place is an error: to
    /// pass over it would hide it, to read it could block for ever.
    fn size(&self, stat: &Stat, key: &ObjectKey) -> Result<u64, BackendError> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.failed("read", key.as_str(), not_a_file()));
        }
        u64::try_from(stat.st_size).map_err(|e| self.failed("read", key.as_str(), io::Error::other(e)))
    }

    fn open_object(&self, key: &ObjectKey) -> Result<OpenObject, BackendError> {
        let folder = self.folder_of(key)?.ok_or_else(|| BackendError::not_found(self, key))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&folder, key.name(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(BackendError::not_found(self, key)),
            Err(Errno::LOOP) => return Err(self.failed("open", key.as_str(), not_a_file())),
            Err(error) => return Err(self.failed("open", key.as_str(), error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|e| self.failed("look up", key.as_str(), e))?;
        Ok(OpenObject { size: self.size(&stat, key)?, file })
    }

    /// Opens an object of at most `limit` bytes, which then fit in memory.
    fn open_limited(&self, key: &ObjectKey, limit: u64) -> Result<(File, usize), BackendError> {
        let OpenObject { file, size } = self.open_object(key)?;
        check_limit(key, size, limit)?;
        let too_large = |_| BackendError::TooLarge { key: key.clone(), size, limit: usize::MAX as u64 };
        Ok((file, usize::try_from(size).map_err(too_large)?))
    }

    fn handle(&self, key: &ObjectKey) -> Result<Arc<OpenObject>, BackendError> {
        if let Some(object) = self.handles.get(key) {
            return Ok(object);
        }
        let object = Arc::new(self.open_object(key)?);
        self.handles.put(key, object.clone());
        Ok(object)
    }

    /// Publishes a file that `make` has written and flushed under `key`, unless that is taken.
    fn publish(
        &self,
        key: &ObjectKey,
        make: impl FnOnce() -> Result<TemporaryFile, BackendError>,
    ) -> Result<Created, BackendError> {
        if !key.is_well_formed() {
            return Err(BackendError::malformed(key));
        }
        let folder = self.folder_for(key)?;
        let created = match self.entry(&folder, key)? {
            Some(_) => Created::Exists,
            None => self.name(&make()?, key, &folder)?,
        };
        // Also for an object that was there: its creator may not have come to this yet.
        disk::sync(&folder).map_err(|error| BackendError::NotDurable {
            key: key.clone(),
            what: self.path.join(key.parent()).display().to_string(),
            source: error.into(),
        })?;
        Ok(created)
    }

    /// Puts a file that is written in the place of the object `key`, in one step.
    fn put_in_place(&self, temporary: &TemporaryFile, key: &ObjectKey) -> Result<(), BackendError> {
        if !key.is_well_formed() {
            return Err(BackendError::malformed(key));
        }
        let folder = self.folder_for(key)?;
        temporary.flush().map_err(|e| self.failed("write", key.as_str(), e))?;
        temporary.take_over(&folder, key.name()).map_err(|e| self.failed("replace", key.as_str(), e))?;
        self.handles.forget(key);
        disk::sync(&folder).map_err(|error| BackendError::NotDurable {
            key: key.clone(),
            what: self.path.join(key.parent()).display().to_string(),
            source: error.into(),
        })
    }

    fn name(
        &self,
        temporary: &TemporaryFile,
        key: &ObjectKey,
        folder: &OwnedFd,
    ) -> Result<Created, BackendError> {
        temporary.publish(folder, key.name(), &self.publication).map_err(|error| match error {
            NotPublished::Unsupported => self.unsuitable(NEITHER_WAY),
            NotPublished::Failed(error) => self.failed("publish", key.as_str(), error),
        })
    }

    fn list_entries(
        &self,
        entries: &OwnedFd,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, BackendError> {
        // Of a log most names are before `from`: they are dropped as they are read.
        let first = from.filter(|from| from.parent() == folder.name()).map(ObjectKey::name);
        let is_before = |name: &str| first.is_some_and(|first| name < first);
        let names = folders::names(entries, |name| folder.is_object_name(name) && !is_before(name))
            .map_err(|e| self.failed("list", folder.name(), e))?;
        for key in names.iter().map(|name| ObjectKey::in_folder(folder, name)) {
            if from.is_some_and(|from| key < *from) {
                continue;
            }
            let Some(stat) = self.entry(entries, &key)? else { continue };
            let size = self.size(&stat, &key)?;
            if visit(ObjectInfo { key, size }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file, so it is no object of a repository")
}

impl Backend for LocalBackend {
    fn sign(&self) -> Result<Box<dyn Sign>, BackendError> {
        let folder = self.temporary_folder()?;
        let sign = LocalSign::leave(&folder, &self.names)
            .map_err(|e| self.failed("create a file in", TEMPORARY, e))?;
        Ok(Box::new(sign))
    }

    fn flush(&self, key: &ObjectKey) -> Result<(), BackendError> {
        let Some(folder) = self.folder_of(key)? else { return Err(BackendError::not_found(self, key)) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&folder, key.name(), flags, Mode::empty()).map_err(|error| match error {
                Errno::NOENT => BackendError::not_found(self, key),
                error => self.failed("open", key.as_str(), error),
            })?;
        disk::sync(&file).map_err(|e| self.failed("flush", key.as_str(), e))?;
        disk::sync(&folder).map_err(|e| self.failed("flush", key.parent(), e))
    }

    fn clean(&self) -> Result<u64, BackendError> {
        // Files in use are known by their locks, not by their age.
        match folders::open_beneath(&self.root, TEMPORARY).and_then(|folder| publish::clean(&folder)) {
            Err(Errno::NOENT) => Ok(0),
            result => result.map_err(|e| self.failed("clean", TEMPORARY, e)),
        }
    }

    fn has_room(&self, bytes: u64) -> Option<bool> {
        room::has_room(&self.root, bytes, || {
            TemporaryFile::make(&self.temporary_folder().ok()?, &self.names).ok()
        })
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        let Some(entries) = self.open_folder(folder.name())? else { return Ok(()) };
        if !folder.is_fanned_out() {
            return self.list_entries(&entries, folder, from, visit).map(drop);
        }
        let fans =
            folders::names(&entries, is_fan_name).map_err(|e| self.failed("list", folder.name(), e))?;
        for fan in fans {
            let relative = format!("{}/{fan}", folder.name());
            // `0` follows `/`: all keys below are less than this.
            if from.is_some_and(|from| format!("{relative}0").as_str() <= from.as_str()) {
                continue;
            }
            let Some(entries) = self.open_folder(&relative)? else { continue };
            // A file whose name belongs in another fan-out folder is never found under its key.
            let mut visit_own = |info: ObjectInfo| {
                if info.key.parent() == relative { visit(info) } else { ControlFlow::Continue(()) }
            };
            if self.list_entries(&entries, folder, from, &mut visit_own)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError> {
        let stat = match self.folder_of(key)? {
            Some(folder) => self.entry(&folder, key)?,
            None => None,
        };
        let stat = stat.ok_or_else(|| BackendError::not_found(self, key))?;
        Ok(ObjectInfo { key: key.clone(), size: self.size(&stat, key)? })
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        let (file, size) = self.open_limited(key, limit)?;
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, 0).map_err(|e| self.failed("read", key.as_str(), e))?;
        Ok(bytes)
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let failed = |error| self.failed("read", key.as_str(), error);
        self.handle(key)?.read_at(key, offset, buffer, failed)
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        self.publish(key, || {
            TemporaryFile::write(&self.temporary_folder()?, &self.names, bytes)
                .map_err(|e| self.failed("write", key.as_str(), e))
        })
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError> {
        let temporary = TemporaryFile::write(&self.temporary_folder()?, &self.names, bytes)
            .map_err(|e| self.failed("write", key.as_str(), e))?;
        self.put_in_place(&temporary, key)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.handles.forget(key);
        let Some(folder) = self.folder_of(key)? else { return Ok(()) };
        match disk::remove(&folder, key.name()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("delete", key.as_str(), error)),
        }
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        let object = self.open_object(key)?;
        check_limit(key, object.size, limit)?;
        Ok(Box::new(LocalReader { object, key: key.clone(), path: self.path.join(key.as_str()) }))
    }

    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        let temporary = TemporaryFile::make(&self.temporary_folder()?, &self.names)
            .map_err(|e| self.failed("write", TEMPORARY, e))?;
        Ok(Box::new(LocalStaged { backend: self, temporary }))
    }
}
