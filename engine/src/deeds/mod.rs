//! Everything that changes a repository, each deed on a repository with a past, and what has to be true of it whatever came in between:
//! what the tests of power cuts and of faults go through.

mod disk;
mod history;
mod repairs;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use disk::{backend, in_memory, scratch};
pub use history::history;

use crate::backend::{Backend, MemoryBackend};
use crate::backup::{self, BackupOptions, BackupSource};
use crate::check::{self, CheckOptions, ReadData};
use crate::crypto::Password;
use crate::format::snapshot::Snapshot;
use crate::ids::SnapshotId;
use crate::monitor::Silent;
use crate::prune;
use crate::prune::test_support::{Files, at_once, files_of, options};
use crate::repo::{Repository, RepositoryError};
use crate::reserve;
use crate::restore::{self, RestoreOptions};
use crate::source::FilterOptions;
use crate::testing::{self, PASSWORD};

pub type Snapshots = BTreeMap<SnapshotId, Files>;

/// A password that is added, removed, and changed to.
pub const SECOND: &[u8] = b"second";
/// An append-only password.
pub const APPENDER: &[u8] = b"appender";

/// Does something to the repository behind a backend, from opening it to the end. An error is what the command would say.
type Act = Box<dyn Fn(Arc<dyn Backend>) -> Result<(), String> + Send + Sync>;
/// Whether a repository is as the deed is to leave it.
type IsDone = Box<dyn Fn(&Deed, &Repository) -> bool + Send + Sync>;

/// Those that open a repository, before and after.
pub struct Passwords {
    pub before: Vec<&'static [u8]>,
    pub after: Vec<&'static [u8]>,
}

/// Something that is done to a repository, and what it may and may not change.
pub struct Deed {
    pub name: &'static str,
    /// The repository that it is done to.
    pub storage: MemoryBackend,
    /// Its snapshots, with what they give back.
    pub before: Snapshots,
    /// Those that go.
    pub leaving: BTreeSet<SnapshotId>,
    /// What new ones give back, if not what others do that they were made of.
    pub files: Files,
    /// What those give back.
    pub originals: Snapshots,
    /// What they lack in spite of that.
    pub lost: BTreeSet<String>,
    /// The folder that is backed up.
    pub root: Vec<u8>,
    pub passwords: Passwords,
    /// There is no repository before.
    pub is_init: bool,
    /// Something is damaged before, and in order afterwards.
    pub is_damaged: bool,
    /// What was done already is refused.
    pub is_once: bool,
    hand: Arc<Repository>,
    act: Act,
    is_done: IsDone,
}

impl Deed {
    /// Does it.
    pub fn act(&self, backend: Arc<dyn Backend>) -> Result<(), String> {
        (self.act)(backend)
    }

    /// Opens the repository, before or after.
    pub fn open(&self, backend: &Arc<dyn Backend>) -> Result<Repository, RepositoryError> {
        let by_password = |password| open_with(Arc::clone(backend), password);
        if self.is_init {
            return by_password(PASSWORD);
        }
        match open_by(&self.hand, Arc::clone(backend)) {
            Err(RepositoryError::RemovedKeyslot(_)) => by_password(SECOND),
            opened => opened,
        }
    }

    pub fn is_done(&self, repository: &Repository) -> bool {
        (self.is_done)(self, repository)
    }

    /// Makes sure that a check that reads everything finds nothing, that no snapshot is gone that was not to go, and that all give back
    /// what they have to.
    #[track_caller]
    pub fn assert_whole(&self, repository: &Repository) {
        assert_clean(repository);
        let live = repository.snapshots().expect("readable");
        for id in self.before.keys().filter(|id| !self.leaving.contains(id)) {
            assert!(live.iter().any(|(live, _)| live == id), "snapshot {id} is gone");
        }
        for (id, snapshot) in live {
            let files = self.files_of(id, &snapshot);
            let restored = restored(repository, &snapshot, &self.root);
            let is_right = match snapshot.partial {
                true => restored.iter().all(|(name, bytes)| files.get(name) == Some(bytes)),
                false => restored == files,
            };
            assert!(is_right, "snapshot {id} gives back something else");
        }
    }

    /// What a snapshot has to give back.
    fn files_of(&self, id: SnapshotId, snapshot: &Snapshot) -> Files {
        let original = snapshot.origin.as_ref().map(|origin| origin.snapshot);
        let original = original.or(snapshot.repaired.as_ref().map(|repaired| repaired.original));
        let mut files = match (self.before.get(&id), original) {
            (Some(files), _) => files.clone(),
            (None, Some(original)) => self.originals[&original].clone(),
            (None, None) => self.files.clone(),
        };
        if snapshot.repaired.is_some() {
            files.retain(|name, _| !self.lost.contains(name));
        }
        files
    }

    /// Backs up to it and prunes it: nobody is in the way of those who come next.
    #[track_caller]
    pub fn assert_goes_on(&self, repository: &Repository) {
        let root = as_path(&self.root);
        let id = back_up(repository, root, &options()).expect("it goes on");
        let (_, snapshot) = repository.find_snapshot(&id.to_string()).expect("it is there");
        assert!(restored(repository, &snapshot, &self.root) == files_of(root), "what was just backed up");
        for _ in 0..2 {
            prune::run(repository, &at_once(), &Silent).expect("it can be pruned");
        }
        self.assert_whole(repository);
        let reserve = reserve::status(repository).expect("read");
        assert_eq!(reserve.stored, reserve.wanted);
    }
}

fn as_path(root: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(root))
}

pub(crate) fn next_seed() -> u64 {
    static SEEDS: AtomicU64 = AtomicU64::new(1 << 40);
    SEEDS.fetch_add(1, Ordering::Relaxed)
}

/// Opens a repository by one that is open already.
pub fn open_by(hand: &Repository, backend: Arc<dyn Backend>) -> Result<Repository, RepositoryError> {
    hand.open_again(backend, testing::environment(next_seed()))
}

pub fn open_with(backend: Arc<dyn Backend>, password: &[u8]) -> Result<Repository, RepositoryError> {
    Repository::open(backend, &Password::new(password.to_vec()), testing::environment(next_seed()))
}

/// Backs a folder up; a snapshot that is not complete is none.
fn back_up(repository: &Repository, root: &Path, options: &BackupOptions) -> Result<SnapshotId, String> {
    let source = BackupSource::Paths { paths: vec![root.to_owned()], filter: FilterOptions::default() };
    let report = backup::run(repository, source, options, &Silent).map_err(|error| error.to_string())?;
    match report.snapshot {
        Some(id) if report.is_complete() => Ok(id),
        _ => Err(format!("incomplete: {report:?}")),
    }
}

#[track_caller]
fn restored(repository: &Repository, snapshot: &Snapshot, root: &[u8]) -> Files {
    let target = tempfile::tempdir().expect("a folder");
    let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
    let report =
        restore::run(repository, snapshot, root, target.path(), &options, &Silent).expect("restored");
    assert_eq!(report.errors, 0);
    files_of(target.path())
}

#[track_caller]
pub fn assert_clean(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    let report = check::run(repository, &options, &Silent).expect("checked");
    assert!(!report.is_damaged(), "{:#?}", report.findings);
}
