//! A source that changes, a repository in memory, and what each snapshot has to give back.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use crate::backend::{
    Backend, BackendError, Buffered, Created, Folder, MemoryBackend, ObjectKey, ObjectReader, Staged,
    forward_backend,
};
use crate::backup::{self, BackupOptions, BackupSource};
use crate::check::{self, CheckOptions, ReadData};
use crate::format::commit::Change;
use crate::ids::SnapshotId;
use crate::monitor::Silent;
use crate::prune::{self, Limit, PruneOptions, PruneReport};
use crate::repo::Repository;
use crate::restore::{self, RestoreOptions};
use crate::source::FilterOptions;
use crate::testing;

pub type Files = BTreeMap<String, Vec<u8>>;

/// Numbers that follow from a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
    bytes
}

/// Entropy differs from handle to handle: equal salts would make equal ids of what must differ.
static SEEDS: AtomicU64 = AtomicU64::new(1000);

pub fn open(backend: impl Backend + 'static) -> Repository {
    testing::open(Arc::new(backend), SEEDS.fetch_add(1, Ordering::Relaxed)).expect("it opens")
}

/// A repository and its source.
pub struct World {
    pub storage: MemoryBackend,
    pub source: TempDir,
    pub expected: BTreeMap<SnapshotId, Files>,
}

impl World {
    pub fn new() -> Self {
        let storage = MemoryBackend::new();
        testing::init(Arc::new(storage.clone()), SEEDS.fetch_add(1, Ordering::Relaxed));
        let source = tempfile::tempdir().expect("a folder");
        Self { storage, source, expected: BTreeMap::new() }
    }

    pub fn open(&self) -> Repository {
        open(self.storage.clone())
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.source.path().join(name);
        fs::create_dir_all(path.parent().expect("below the source")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.source.path().join(name));
    }

    /// Backs the source up by this handle; the snapshot is then expected to give back what is there now.
    pub fn back_up(&mut self, repository: &Repository) -> SnapshotId {
        let report = backup::run(repository, self.paths(), &options(), &Silent).expect("a backup");
        let id = report.snapshot.expect("a snapshot");
        let files = files_of(self.source.path());
        self.expected.insert(id, files);
        id
    }

    pub fn paths(&self) -> BackupSource {
        BackupSource::Paths { paths: vec![self.source.path().to_owned()], filter: FilterOptions::default() }
    }

    pub fn forget(&mut self, repository: &Repository, snapshot: SnapshotId) {
        forget(repository, snapshot);
        self.expected.remove(&snapshot);
    }

    /// Makes sure that all snapshots give back what they have to, and that a check that reads everything is content.
    #[track_caller]
    pub fn verify(&self) {
        verify(&self.storage, &self.expected, self.source.path().as_os_str().as_bytes());
    }

    /// Packs that are stored, and packs that segments list.
    pub fn packs(&self) -> (usize, usize) {
        packs(&self.storage)
    }
}

pub fn forget(repository: &Repository, snapshot: SnapshotId) {
    let change = Change::SnapshotForgotten { snapshot, reason: "test".into() };
    repository.commit(&mut |_| Ok(vec![change.clone()])).expect("forgotten");
}

pub fn packs(storage: &MemoryBackend) -> (usize, usize) {
    let stored = storage
        .objects()
        .iter()
        .filter(|(key, _)| key.pack_id().is_some() && key.folder() == Some(Folder::Packs))
        .count();
    let repository = open(storage.clone());
    let mut listed = std::collections::BTreeSet::new();
    for segment in repository.index().segments().iter() {
        listed.extend(segment.packs().map(|pack| pack.expect("readable").id));
    }
    (stored, listed.len())
}

pub fn files_of(root: &std::path::Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![PathBuf::from(root)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    files
}

#[track_caller]
pub fn verify(storage: &MemoryBackend, expected: &BTreeMap<SnapshotId, Files>, root: &[u8]) {
    let repository = open(storage.clone());
    let live: Vec<_> = repository.snapshots().expect("readable").into_iter().map(|(id, _)| id).collect();
    for id in expected.keys() {
        assert!(live.contains(id), "snapshot {id} is gone");
    }
    for (id, files) in expected {
        assert_restores(&repository, *id, files, root);
    }
    let options = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    let report = check::run(&repository, &options, &Silent).expect("checked");
    assert!(!report.is_damaged(), "{:#?}", report.findings);
}

#[track_caller]
pub fn assert_restores(repository: &Repository, id: SnapshotId, files: &Files, root: &[u8]) {
    let (_, snapshot) = repository.find_snapshot(&id.to_string()).expect("it is there");
    let target = tempfile::tempdir().expect("a folder");
    let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
    let report =
        restore::run(repository, &snapshot, root, target.path(), &options, &Silent).expect("restored");
    assert_eq!(report.errors, 0, "snapshot {id}");
    assert!(files_of(target.path()) == *files, "snapshot {id} restores something else");
}

pub fn options() -> BackupOptions {
    BackupOptions { threads: 1, ..BackupOptions::default() }
}

/// Condemn and remove in one run; nothing unneeded stays.
pub fn at_once() -> PruneOptions {
    PruneOptions { grace: Duration::ZERO, max_unused: Limit::Bytes(0), threads: 1, ..PruneOptions::default() }
}

/// Condemn only.
pub fn later() -> PruneOptions {
    PruneOptions { grace: Duration::from_secs(3600), ..at_once() }
}

pub fn prune(repository: &Repository, options: &PruneOptions) -> PruneReport {
    prune::run(repository, options, &Silent).expect("pruned")
}

type Action = Box<dyn FnOnce() + Send>;
type Trigger = fn(&ObjectKey) -> bool;

/// A backend on which others act at chosen moments: just before a matching object is created, read or opened.
#[derive(Clone)]
pub struct Hooked {
    inner: MemoryBackend,
    creates: Arc<Mutex<VecDeque<(Trigger, Action)>>>,
    reads: Arc<Mutex<VecDeque<(Trigger, Action)>>>,
    opens: Arc<Mutex<VecDeque<(Trigger, Action)>>>,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    pub fn new(inner: &MemoryBackend) -> Self {
        Self { inner: inner.clone(), creates: Arc::default(), reads: Arc::default(), opens: Arc::default() }
    }

    /// Does `action` before the next create that `trigger` matches, after earlier actions.
    pub fn before_create(&self, trigger: Trigger, action: impl FnOnce() + Send + 'static) {
        self.creates.lock().expect("whole").push_back((trigger, Box::new(action)));
    }

    /// The same with reads of whole objects and of ranges.
    pub fn before_read(&self, trigger: Trigger, action: impl FnOnce() + Send + 'static) {
        self.reads.lock().expect("whole").push_back((trigger, Box::new(action)));
    }

    /// The same with objects that are opened.
    pub fn before_open(&self, trigger: Trigger, action: impl FnOnce() + Send + 'static) {
        self.opens.lock().expect("whole").push_back((trigger, Box::new(action)));
    }

    /// Whether all actions were done.
    pub fn is_done(&self) -> bool {
        [&self.creates, &self.reads, &self.opens].iter().all(|queue| queue.lock().expect("whole").is_empty())
    }

    fn act(queue: &Mutex<VecDeque<(Trigger, Action)>>, key: &ObjectKey) {
        let action = {
            let mut queue = queue.lock().expect("whole");
            match queue.front() {
                Some((trigger, _)) if trigger(key) => queue.pop_front(),
                _ => None,
            }
        };
        // Without the lock: the action may use another handle on this backend.
        if let Some((_, action)) = action {
            action();
        }
    }
}

/// Matches log entries.
pub fn a_commit(key: &ObjectKey) -> bool {
    key.folder() == Some(Folder::Log)
}

/// Matches segments.
pub fn a_segment(key: &ObjectKey) -> bool {
    key.folder() == Some(Folder::Index)
}

/// Matches packs.
pub fn a_pack(key: &ObjectKey) -> bool {
    key.folder() == Some(Folder::Packs)
}

impl Backend for Hooked {
    forward_backend!(this => this.inner; location list stat replace delete);

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        Self::act(&self.reads, key);
        self.inner.read(key, limit)
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        Self::act(&self.reads, key);
        self.inner.read_range(key, offset, buffer)
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        Self::act(&self.creates, key);
        self.inner.create(key, bytes)
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        Self::act(&self.opens, key);
        self.inner.open(key, limit)
    }

    // Publishing is a create of this backend.
    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        Ok(Box::new(Buffered::new(self)))
    }
}
