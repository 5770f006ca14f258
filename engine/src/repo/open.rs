//! Making and opening repositories.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{Backend, Created, Folder, ObjectKey};
use crate::crypto::keys::SecretKey;
use crate::crypto::{KdfParams, KeySet, Password, RootSecret, random};
use crate::format::commit::{Change, WriterKey};
use crate::format::config::{CONFIG_LEN_MAX, Config};
use crate::format::header::ObjectKind;
use crate::format::keyslot::{KEYSLOT_LEN, Keyslot, KeyslotError};
use crate::format::record;
use crate::format::state::State;
use crate::ids::{KeyslotId, RepositoryId};
use crate::index::{self, Index, IndexError};
use crate::log::{self, Fold};
use crate::repo::{Environment, Repository, RepositoryError};
use crate::store::BlobReader;

/// How a repository is made.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// Cost of a password guess.
    pub kdf: KdfParams,
    /// What to call the first keyslot.
    pub label: String,
}

impl Repository {
    /// Makes a repository on an empty backend and opens it.
    ///
    /// Of two that try at once, one makes it and the other gets [`RepositoryError::Exists`].
    ///
    /// # Errors
    /// [`RepositoryError::Exists`], [`RepositoryError::EmptyPassword`], or a failure of the storage.
    pub fn init(
        backend: Arc<dyn Backend>,
        password: &Password,
        options: &InitOptions,
        environment: Environment,
    ) -> Result<Self, RepositoryError> {
        if password.is_empty() {
            return Err(RepositoryError::EmptyPassword);
        }
        let exists = || RepositoryError::Exists { location: backend.location() };
        match backend.stat(&ObjectKey::config()) {
            Ok(_) => return Err(exists()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let config = Config {
            repository: RepositoryId::from_bytes(random(&*environment.entropy)),
            must_understand: 0,
            created_by: environment.program.clone(),
        };
        let slot = Keyslot {
            root: RootSecret::generate(&*environment.entropy),
            writer_seed: SecretKey::from_bytes(random(&*environment.entropy)),
            label: options.label.clone(),
        };
        let keyslot_bytes = slot.wrap(password, options.kdf, &config.repository, &*environment.entropy)?;
        let keyslot = Keyslot::id(&keyslot_bytes);
        // The keyslot first: a config without one would be a repository that nobody can open.
        backend.create(&ObjectKey::keyslot(&keyslot), &keyslot_bytes)?;
        let config_bytes = config.encode();
        match backend.create(&ObjectKey::config(), &config_bytes) {
            Ok(Created::New) => {}
            Ok(Created::Exists) => {
                backend.delete(&ObjectKey::keyslot(&keyslot))?;
                return Err(exists());
            }
            Err(error) => return Err(error.into()),
        }
        let fold = Fold::empty(Config::hash(&config_bytes));
        let repository =
            Self::assemble(backend, environment, config.repository, config_bytes, slot, keyslot, fold);
        let change =
            Change::KeyslotAdded { keyslot, writer: repository.writer.id(), label: options.label.clone() };
        repository.commit(&mut |_| Ok(vec![change.clone()]))?;
        Ok(repository)
    }

    /// Opens a repository with a password.
    ///
    /// # Errors
    /// [`RepositoryError`] saying what is missing, damaged, or not known to this version.
    pub fn open(
        backend: Arc<dyn Backend>,
        password: &Password,
        environment: Environment,
    ) -> Result<Self, RepositoryError> {
        Self::open_with(backend, password, environment, None)
    }

    /// Opens a repository of whose index any part may be missing or damaged: what is left out is to be had from
    /// [`Repository::broken_segments`]. Only for rebuilding the index: everything else would take blobs for missing.
    ///
    /// # Errors
    /// As [`Repository::open`], but for segments.
    pub fn open_for_repair(
        backend: Arc<dyn Backend>,
        password: &Password,
        environment: Environment,
    ) -> Result<Self, RepositoryError> {
        Self::open_with(backend, password, environment, Some(Mutex::default()))
    }

    fn open_with(
        backend: Arc<dyn Backend>,
        password: &Password,
        environment: Environment,
        broken: Option<Mutex<Vec<IndexError>>>,
    ) -> Result<Self, RepositoryError> {
        let location = backend.location();
        let config_bytes = match backend.read(&ObjectKey::config(), CONFIG_LEN_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Err(RepositoryError::Absent { location }),
            Err(error) => return Err(error.into()),
        };
        let config =
            Config::decode(&config_bytes).map_err(|source| RepositoryError::Config { location, source })?;
        let (keyslot, slot) = open_keyslot(&*backend, password, &config.repository)?;
        let fold = Fold::empty(Config::hash(&config_bytes));
        let mut repository =
            Self::assemble(backend, environment, config.repository, config_bytes, slot, keyslot, fold);
        repository.broken = broken;
        repository.start_from_state()?;
        repository.refresh()?;
        let fold = repository.lock_fold();
        if fold.seq() > 0 && fold.keyslots().next().is_none() {
            let found = ObjectKey::log(fold.seq());
            return Err(RepositoryError::NoLog { location: repository.location(), found });
        }
        // A keyslot whose first commit never got through has no repository to open: init did not finish.
        if fold.seq() > 0 && fold.keyslot(&keyslot).is_none() {
            return Err(RepositoryError::RemovedKeyslot(keyslot));
        }
        drop(fold);
        if repository.lock_fold().seq() == 0 {
            repository.finish_init()?;
        }
        Ok(repository)
    }

    /// An `init` that was interrupted between the config and the first commit is completed by the next open:
    /// nothing can have been stored yet. Where something is, the log was lost: a new first commit would hide that.
    fn finish_init(&self) -> Result<(), RepositoryError> {
        log::check_end(&*self.backend, &self.fold())?;
        for folder in [Folder::Index, Folder::State, Folder::Packs] {
            let mut first = None;
            self.backend.list(folder, None, &mut |info| {
                first = Some(info.key);
                ControlFlow::Break(())
            })?;
            if let Some(found) = first {
                return Err(RepositoryError::NoLog { location: self.location(), found });
            }
        }
        let (keyslot, writer) = (self.keyslot, self.writer.id());
        self.commit(&mut |fold| {
            if fold.seq() > 0 {
                return Ok(Vec::new());
            }
            Ok(vec![Change::KeyslotAdded { keyslot, writer, label: String::new() }])
        })?;
        Ok(())
    }

    fn assemble(
        backend: Arc<dyn Backend>,
        environment: Environment,
        id: RepositoryId,
        config_bytes: Vec<u8>,
        slot: Keyslot,
        keyslot: KeyslotId,
        fold: Fold,
    ) -> Self {
        let keys = Arc::new(KeySet::derive(&slot.root));
        let index = Arc::new(Index::default());
        let reader = BlobReader::new(Arc::clone(&backend), Arc::clone(&keys), id, Arc::clone(&index));
        Self {
            backend,
            environment,
            id,
            config_bytes,
            writer: WriterKey::new(&slot.writer_seed),
            root: slot.root,
            keys,
            keyslot,
            index,
            reader: Arc::new(reader),
            fold: Mutex::new(Arc::new(fold)),
            voids: Mutex::default(),
            broken: None,
            last_prune: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Begins with the newest usable state. States are derived: one that does not fit is passed over, and
    /// `check` compares them with the log.
    fn start_from_state(&self) -> Result<(), RepositoryError> {
        let mut sequences = Vec::new();
        self.backend.list(Folder::State, None, &mut |info| {
            sequences.extend(info.key.sequence());
            ControlFlow::Continue(())
        })?;
        let config = self.lock_fold().config();
        for seq in sequences.into_iter().rev() {
            let Ok(object) = self.backend.read(&ObjectKey::state(seq), record::RECORD_OBJECT_LEN_MAX) else {
                continue;
            };
            let state: Result<State, _> =
                record::open_object(ObjectKind::State, object, &self.keys, &self.id);
            if let Ok(state) = state
                && state.seq == seq
                && state.config == config
                && self.state_fits(&state)
            {
                *self.lock_fold() = Arc::new(Fold::from_state(state));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the log entry that the state ends with is there and is the one it names.
    fn state_fits(&self, state: &State) -> bool {
        self.backend
            .read(&ObjectKey::log(state.seq), record::RECORD_OBJECT_LEN_MAX)
            .is_ok_and(|object| crate::format::commit::hash(&object) == state.head)
    }

    /// Reads what others committed since, and opens and closes segments accordingly.
    ///
    /// # Errors
    /// [`RepositoryError`] where the log or a new segment cannot be read.
    pub fn refresh(&self) -> Result<(), RepositoryError> {
        let mut guard = self.lock_fold();
        let mut missing_at = None;
        loop {
            self.read_on(Arc::make_mut(&mut guard))?;
            match self.follow_segments(&guard) {
                // Whoever merges segments deletes the old ones once the log says so: it has gone on meanwhile, then.
                Err(RepositoryError::Index(IndexError::Backend { source, .. }))
                    if source.is_not_found() && missing_at.replace(guard.seq()) != Some(guard.seq()) => {}
                result => return result,
            }
        }
    }

    fn read_on(&self, fold: &mut Fold) -> Result<(), RepositoryError> {
        let mut voids = Vec::new();
        log::read_from(&*self.backend, &self.keys, &self.id, fold, &mut |entry| match entry {
            Ok(entry) => {
                let is_prune = |change: &Change| {
                    matches!(change, Change::PacksCondemned { .. } | Change::PacksRemoved { .. })
                };
                if entry.commit.changes.iter().any(is_prune) {
                    self.last_prune.fetch_max(entry.commit.seq, Ordering::Relaxed);
                }
            }
            Err(void) => voids.push(void),
        })?;
        self.voids.lock().unwrap_or_else(PoisonError::into_inner).append(&mut voids);
        Ok(())
    }

    /// Makes the open segments those of the fold.
    pub(super) fn follow_segments(&self, fold: &Fold) -> Result<(), RepositoryError> {
        let open = self.index.segments();
        let (mut added, mut unopened) = (Vec::new(), Vec::new());
        for info in fold.segments() {
            if !open.iter().any(|segment| segment.id() == info.segment) {
                match index::open_segment(&*self.backend, info.segment, &self.keys, &self.id) {
                    Ok(segment) => added.push(Arc::new(segment)),
                    Err(error) => unopened.push(error),
                }
            }
        }
        match (&self.broken, unopened.into_iter()) {
            (None, mut unopened) => unopened.next().map_or(Ok(()), Err)?,
            (Some(broken), unopened) => {
                *broken.lock().unwrap_or_else(PoisonError::into_inner) = unopened.collect();
            }
        }
        let removed: Vec<_> = open
            .iter()
            .map(|segment| segment.id())
            .filter(|id| !fold.segments().any(|info| info.segment == *id))
            .collect();
        if !added.is_empty() || !removed.is_empty() {
            self.index.replace(added, &removed);
        }
        Ok(())
    }
}

/// Tries the password on every keyslot.
fn open_keyslot(
    backend: &dyn Backend,
    password: &Password,
    repository: &RepositoryId,
) -> Result<(KeyslotId, Keyslot), RepositoryError> {
    let mut keys = Vec::new();
    backend.list(Folder::Keys, None, &mut |info| {
        keys.push(info.key);
        ControlFlow::Continue(())
    })?;
    let (mut tried, mut problems) = (0, Vec::new());
    for key in keys {
        let Some(id) = key.keyslot_id() else { continue };
        let object = match backend.read(&key, KEYSLOT_LEN as u64) {
            Ok(object) => object,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        if Keyslot::id(&object) != id {
            problems.push(format!("{key} is damaged: its bytes are not those of its id"));
            continue;
        }
        match Keyslot::unwrap(&object, password, repository) {
            Ok(slot) => return Ok((id, slot)),
            Err(KeyslotError::WrongPassword) => tried += 1,
            Err(error) => problems.push(format!("{key}: {error}")),
        }
    }
    let location = backend.location();
    if tried > 0 {
        let problems = match problems.as_slice() {
            [] => String::new(),
            problems => format!(", but it may be that of another: {}", problems.join("; ")),
        };
        return Err(RepositoryError::WrongPassword { location, keyslots: tried, problems });
    }
    if problems.is_empty() {
        problems.push("the folder keys is empty".into());
    }
    Err(RepositoryError::NoKeyslot { location, problems: problems.join("; ") })
}
