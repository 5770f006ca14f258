//! Making and opening repositories.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::backend::{self, Backend, Created, Folder, ObjectKey};
use crate::crypto::keys::SecretKey;
use crate::crypto::{KdfParams, Password, RootSecret, random};
use crate::format::commit::{Change, WriterKey};
use crate::format::config::Config;
use crate::format::keyslot::{KEYSLOT_LEN, Keyslot, Secrets};
use crate::format::parity::Overhead;
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::ids::{KeyslotId, PackId, RepositoryId, SegmentId, WriterId};
use crate::index;
use crate::log::{self, Fold, LogError};
use crate::repo::unlock::{absent, first_of, open_config_and_keyslot};
use crate::repo::view::{Leniency, View};
use crate::repo::{Environment, Repository, RepositoryError};
use crate::sidecar;
use crate::store::{BlobReader, Catalog};

/// Where there is nothing before the first commit.
const COMMITTED: [Folder; 5] = [Folder::Index, Folder::State, Folder::Packs, Folder::Ledger, Folder::Parity];

/// How a repository is made.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// Cost of a password guess.
    pub kdf: KdfParams,
    /// What to call the first keyslot.
    pub label: String,
    /// How much parity is wanted, if any.
    pub parity: Option<Overhead>,
    /// How many bytes are to be kept free, if any: a policy, for [`reserve::set`](crate::reserve::set) to make the reserve of, which also
    /// bounds it.
    pub reserve: Option<u64>,
}

impl InitOptions {
    /// The first commit of a repository: all that was asked for, or there is no repository.
    fn changes(&self, keyslot: KeyslotId, writer: WriterId) -> Vec<Change> {
        let added = Change::KeyslotAdded { keyslot, writer, label: self.label.clone() };
        let parity = self.parity.map(|overhead| Change::ParitySet { overhead: overhead.tenths() });
        let reserve = self.reserve.map(|bytes| Change::ReserveSet { bytes });
        [added].into_iter().chain(parity).chain(reserve).collect()
    }
}

impl Repository {
    /// Makes a repository on an empty backend and opens it. One that was broken off before its first commit is gone on with, with the
    /// options given now.
    ///
    /// Of two that try at once, one makes it and the other gets [`RepositoryError::Exists`].
    ///
    /// # Errors
    /// [`RepositoryError::Exists`], [`RepositoryError::EmptyPassword`], or a failure of the storage. Where an earlier one was broken off,
    /// also [`RepositoryError::WrongPassword`], or [`RepositoryError::Unfinished`] if its keyslot has another cost than asked for.
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
        match Self::find(&*backend) {
            Ok(()) if Self::is_unfinished(&*backend)? => {
                return Self::go_on(backend, password, options, environment);
            }
            Ok(()) => return Err(exists()),
            Err(RepositoryError::Absent { .. }) => {}
            // Another init may just have made all of it.
            Err(error @ RepositoryError::NoConfig { .. }) => {
                return Err(if Self::find(&*backend).is_ok() { exists() } else { error });
            }
            Err(error) => return Err(error),
        }
        let config = Config {
            repository: RepositoryId::from_bytes(random(&*environment.entropy)),
            must_understand: 0,
            created_by: environment.program.clone(),
        };
        let slot = Keyslot {
            secrets: Secrets::Root(RootSecret::generate(&*environment.entropy)),
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
        let config = (config.repository, config_bytes);
        let repository = Self::assemble(backend, environment, config, (keyslot, slot), fold, Leniency::None);
        repository.begin(options)
    }

    /// Goes on where an `init` ended between the config and the first commit: nothing can have been stored yet.
    fn go_on(
        backend: Arc<dyn Backend>,
        password: &Password,
        options: &InitOptions,
        environment: Environment,
    ) -> Result<Self, RepositoryError> {
        let repository = Self::unlock(backend, password, environment, Leniency::None, &HashSet::new())?;
        let key = ObjectKey::keyslot(&repository.keyslot);
        let found = Keyslot::params(&repository.backend.read(&key, KEYSLOT_LEN as u64)?);
        if found.as_ref().ok() != Some(&options.kdf) {
            let cost = |params: &KdfParams| format!("{} KiB and {} passes", params.memory_kib, params.passes);
            let found = found.map_or_else(|error| error.to_string(), |params| cost(&params));
            let asked = cost(&options.kdf);
            let problem = format!(": its password was to cost {found}, and now {asked} are asked for");
            return Err(RepositoryError::Unfinished { location: repository.location(), problem });
        }
        repository.begin(options)
    }

    /// Makes the first commit.
    fn begin(self, options: &InitOptions) -> Result<Self, RepositoryError> {
        let changes = options.changes(self.keyslot, self.writer.id());
        self.commit(&mut |fold| match fold.seq() {
            0 => Ok(changes.clone()),
            // Who went on with this has come first, or who had begun it.
            _ => Err(RepositoryError::Exists { location: self.location() }),
        })?;
        self.cover_keys(&self.keyslot);
        Ok(self)
    }

    /// Whether a repository that [`Repository::find`] finds is the beginning of one: nothing has been committed, and nothing
    /// says that something was.
    ///
    /// # Errors
    /// [`RepositoryError::Backend`].
    pub fn is_unfinished(backend: &dyn Backend) -> Result<bool, RepositoryError> {
        Ok(first_of(backend, &[Folder::Log])?.is_none() && first_of(backend, &COMMITTED)?.is_none())
    }

    /// Whether there is a repository: it has a config, or parity of one.
    ///
    /// # Errors
    /// [`RepositoryError::Absent`], or [`RepositoryError::NoConfig`] where only that is missing.
    pub fn find(backend: &dyn Backend) -> Result<(), RepositoryError> {
        let config = ObjectKey::config();
        if backend::size_of(backend, &config)?.is_some() {
            return Ok(());
        }
        match absent(backend)? {
            RepositoryError::NoConfig { .. } if sidecar::is_there(backend, &config)? => Ok(()),
            error => Err(error),
        }
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
        Self::open_but(backend, password, environment, Leniency::None, &mut HashSet::new())
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
        Self::open_but(backend, password, environment, Leniency::Index, &mut HashSet::new())
    }

    /// Opens a repository of which anything may be damaged that a check reports: the index, and the log, which is then read as far as it
    /// goes, as by [`Repository::open_salvaged`].
    ///
    /// # Errors
    /// As [`Repository::open_salvaged`], and where an entry of the log was written by a newer version.
    pub fn open_for_check(
        backend: Arc<dyn Backend>,
        password: &Password,
        environment: Environment,
    ) -> Result<Self, RepositoryError> {
        match Self::open_for_repair(Arc::clone(&backend), password, environment.clone()) {
            Err(error) if is_log_damage(&*backend, &error) => {
                Self::open_salvaged(backend, password, environment)
            }
            opened => opened,
        }
    }

    /// Opens a repository whatever is wrong with its log: where something is, or something of it is lost, as by
    /// [`Repository::open_salvaged`]. A keyslot that was removed opens it where none in force is left: then it is all that gives the
    /// data back.
    ///
    /// # Errors
    /// As [`Repository::open_salvaged`]; [`RepositoryError::RemovedKeyslot`].
    pub fn open_ignoring_damage(
        backend: Arc<dyn Backend>,
        password: &Password,
        environment: Environment,
    ) -> Result<Self, RepositoryError> {
        match Self::open(Arc::clone(&backend), password, environment.clone()) {
            Ok(repository) if repository.lost_commits().is_empty() => Ok(repository),
            Err(removed @ RepositoryError::RemovedKeyslot(_)) => {
                let repository = Self::open_salvaged(backend, password, environment)?;
                for slot in repository.fold().keyslots() {
                    let key = ObjectKey::keyslot(&slot.keyslot);
                    if !matches!(backend::size_if_readable(&*repository.backend, &key), Ok(None)) {
                        return Err(removed);
                    }
                }
                Ok(repository)
            }
            _ => Self::open_salvaged(backend, password, environment),
        }
    }

    /// Opens a repository whose log is damaged, as far as it can be read: [`Repository::void_entries`] says what is
    /// wrong with it. Nothing can be written, and what others commit meanwhile is not seen. A state helps where there
    /// is one, whether it fits the log or not; segments that the readable part of the log does not know are used, too.
    ///
    /// # Errors
    /// As [`Repository::open`], but for the log and for segments.
    pub fn open_salvaged(
        backend: Arc<dyn Backend>,
        password: &Password,
        environment: Environment,
    ) -> Result<Self, RepositoryError> {
        let repository = Self::unlock(backend, password, environment, Leniency::Log, &HashSet::new())?;
        repository.view.start_from_state(&|_| true)?;
        let mut removed = HashSet::new();
        let (mut voids, mut fold) = (Vec::new(), Fold::clone(&repository.fold()));
        log::salvage(&*repository.backend, &repository.keys, &repository.id, &mut fold, &mut |entry| {
            match entry {
                Ok(commit) => removed.extend(commit.changes.into_iter().flat_map(|change| match change {
                    Change::SegmentsReplaced { removed, .. } => removed,
                    Change::SegmentsDropped { segments } => segments,
                    _ => Vec::new(),
                })),
                Err(void) => voids.push(void),
            }
        })?;
        let known: HashSet<SegmentId> = fold.segments().map(|info| info.segment).chain(removed).collect();
        let mut strays = Vec::new();
        repository.backend.list(Folder::Index, None, &mut |info| {
            strays.extend(info.key.segment_id().filter(|id| !known.contains(id)));
            ControlFlow::Continue(())
        })?;
        let open = |id| index::open_segment(&*repository.backend, id, &repository.keys, &repository.id).ok();
        fold.add_segments(strays.into_iter().filter_map(open).map(|segment| segment.info()));
        repository.view.salvaged(fold, voids)?;
        Ok(repository)
    }

    /// Opens it with another keyslot than those that were found `removed`.
    fn open_but(
        backend: Arc<dyn Backend>,
        password: &Password,
        environment: Environment,
        leniency: Leniency,
        removed: &mut HashSet<KeyslotId>,
    ) -> Result<Self, RepositoryError> {
        let repository = Self::unlock(backend, password, environment, leniency, removed)?;
        match repository.read_log() {
            Err(RepositoryError::RemovedKeyslot(keyslot)) => {
                removed.insert(keyslot);
                // The password may open another one, too.
                let (backend, environment) =
                    (Arc::clone(&repository.backend), repository.environment.clone());
                match Self::open_but(backend, password, environment, leniency, removed) {
                    Err(RepositoryError::WrongPassword { .. } | RepositoryError::NoKeyslot { .. }) => {
                        Err(RepositoryError::RemovedKeyslot(keyslot))
                    }
                    other => other,
                }
            }
            result => result.map(|()| repository),
        }
    }

    /// Opens the repository anew, as another process with the same password would, but without deriving its key again: that
    /// takes longer than a whole operation on a small repository.
    ///
    /// # Errors
    /// As [`Repository::open`].
    #[cfg(any(test, feature = "testing"))]
    pub fn open_again(
        &self,
        backend: Arc<dyn Backend>,
        environment: Environment,
    ) -> Result<Self, RepositoryError> {
        let slot = Keyslot {
            secrets: self.secrets.duplicate(),
            writer_seed: self.writer.seed(),
            label: String::new(),
        };
        let (config_bytes, fold) = (self.config_bytes.clone(), Fold::empty(self.fold().config()));
        let (config, slot) = ((self.id, config_bytes), (self.keyslot, slot));
        let repository = Self::assemble(backend, environment, config, slot, fold, Leniency::None);
        repository.read_log()?;
        Ok(repository)
    }

    /// Reads the log for the first time, with the keyslot that was opened.
    fn read_log(&self) -> Result<(), RepositoryError> {
        self.view.start_from_state(&|state| self.view.state_fits(state))?;
        self.refresh()?;
        // An entry that is missing in between would pass for the end.
        self.view.check_end(&self.fold())?;
        let fold = self.fold();
        if fold.seq() > 0 && fold.keyslots().next().is_none() {
            let found = ObjectKey::log(fold.seq());
            return Err(RepositoryError::NoLog { location: self.location(), found });
        }
        if fold.seq() == 0 {
            return Err(self.lack_of_commits()?);
        }
        match fold.keyslot(&self.keyslot) {
            Some(_) => Ok(()),
            None => Err(RepositoryError::RemovedKeyslot(self.keyslot)),
        }
    }

    /// Reads the config and opens a keyslot: a repository of whose log nothing has been read.
    fn unlock(
        backend: Arc<dyn Backend>,
        password: &Password,
        environment: Environment,
        leniency: Leniency,
        but: &HashSet<KeyslotId>,
    ) -> Result<Self, RepositoryError> {
        let is_lenient = leniency != Leniency::None;
        let ((config, config_bytes), opened) = open_config_and_keyslot(&*backend, password, but, is_lenient)?;
        let fold = Fold::empty(Config::hash(&config_bytes));
        let id = config.repository;
        Ok(Self::assemble(backend, environment, (id, config_bytes), opened, fold, leniency))
    }

    /// Why there is no commit. Only an `init` knows what the first one is to say. Where there is more than it leaves behind, the log was
    /// lost: a new first commit would hide that.
    fn lack_of_commits(&self) -> Result<RepositoryError, RepositoryError> {
        self.check_tail()?;
        let location = self.location();
        Ok(match first_of(&*self.backend, &COMMITTED)? {
            Some(found) => RepositoryError::NoLog { location, found },
            None => RepositoryError::Unfinished { location, problem: String::new() },
        })
    }

    fn assemble(
        backend: Arc<dyn Backend>,
        environment: Environment,
        (id, config_bytes): (RepositoryId, Vec<u8>),
        (keyslot, slot): (KeyslotId, Keyslot),
        fold: Fold,
        leniency: Leniency,
    ) -> Self {
        let keys = Arc::new(slot.secrets.keys());
        let writer = WriterKey::new(&slot.writer_seed);
        let view = View::new(Arc::clone(&backend), Arc::clone(&keys), (id, writer.id()), fold, leniency);
        let view = Arc::new(view);
        let catalog: Arc<dyn Catalog> = Arc::<View>::clone(&view);
        let reader = BlobReader::new(Arc::clone(&backend), Arc::clone(&keys), id, catalog);
        Self {
            backend,
            environment,
            id,
            config_bytes,
            writer,
            secrets: slot.secrets,
            keys,
            keyslot,
            reader: Arc::new(reader),
            view,
            troubles: Arc::default(),
        }
    }

    /// Reads what others committed since, and opens and closes segments accordingly.
    ///
    /// # Errors
    /// [`RepositoryError`] where the log or a new segment cannot be read.
    pub fn refresh(&self) -> Result<(), RepositoryError> {
        self.view.refresh()
    }

    /// All packs that commits up to `base` have removed: their ids never come back, whatever is stored under them. The
    /// fold does not know them any more, so the log is read from its beginning.
    ///
    /// # Errors
    /// [`RepositoryError::Log`].
    pub fn removed_packs(&self, base: &Fold) -> Result<HashSet<PackId>, RepositoryError> {
        let mut removed = HashSet::new();
        let mut fold = Fold::empty(base.config());
        log::read_to(&*self.backend, &self.keys, &self.id, &mut fold, base.seq(), &mut |entry| {
            let Ok(entry) = entry else { return };
            for change in &entry.commit.changes {
                if let Change::PacksRemoved { packs } = change {
                    removed.extend(packs);
                }
            }
        })?;
        Ok(removed)
    }
}

/// Whether a repository does not open because of its log, of which the rest may be read.
fn is_log_damage(backend: &dyn Backend, error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Log(LogError::Backend(error)) => error.is_loss(),
        // A flipped bit of a header passes for another version. Parity tells, where there is any.
        RepositoryError::Log(LogError::NotUnderstood { seq, .. }) => !is_as_written(backend, *seq),
        RepositoryError::Log(LogError::Chain { .. } | LogError::Gap { .. })
        | RepositoryError::NoLog { .. }
        | RepositoryError::LostEntry { .. } => true,
        _ => false,
    }
}

/// Whether parity says that a log entry is what was written.
fn is_as_written(backend: &dyn Backend, seq: u64) -> bool {
    let key = ObjectKey::log(seq);
    let stored = backend.read(&key, RECORD_OBJECT_LEN_MAX);
    match (sidecar::head_of(backend, &key), stored) {
        (Ok(Some(head)), Ok(stored)) => *blake3::hash(&stored).as_bytes() == head.object,
        _ => false,
    }
}
