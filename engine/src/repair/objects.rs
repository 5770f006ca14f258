//! Log entries, states, segments, ledgers, keyslots and the config get their bytes back by their parity.
//!
//! A repository need not open for that: [`Repository::open_for_check`] is enough. What parity gives is compared with all that is
//! known of the object before it takes its place: it has the hash of its name; or it is a commit, signed, between its neighbours;
//! or it is a state that opens, or the config that the first commit names. An object that cannot be dealt with ends nothing: it is
//! told, and the next one comes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::backend::{self, Backend, BackendError, Folder, ObjectKey};
use crate::format::commit::{self, Commit};
use crate::format::header::ObjectKind;
use crate::format::record::{self, RECORD_OBJECT_LEN_MAX};
use crate::format::state::State;
use crate::ids::CommitHash;
use crate::log::{self, Fold};
use crate::monitor::{Monitor, Progress};
use crate::repair::{DamagedObject, ObjectsReport, RepairError};
use crate::repo::Repository;
use crate::sidecar::{self, MendError, named_hash};

/// Entries that may be missing side by side, for those behind them to be looked at.
const ABSENT_MAX: u32 = 100;
/// Bytes that are hashed at a time.
const PIECE_LEN: usize = 1 << 20;

/// Repairs what parity can repair. With `dry_run` it only says so.
///
/// # Errors
/// [`RepairError`] where the log cannot be listed, or the monitor asked to stop. An object that cannot be repaired is no error
/// but part of the report.
pub fn run(
    repository: &Repository,
    dry_run: bool,
    monitor: &dyn Monitor,
) -> Result<ObjectsReport, RepairError> {
    let backend = &**repository.backend();
    let report = ObjectsReport { dry_run, ..ObjectsReport::default() };
    let mut repair = Repair { repository, backend, monitor, report };
    repair.log()?;
    let fold = repair.fold();
    let mut keys = BTreeSet::from([ObjectKey::config()]);
    keys.extend(fold.keyslots().map(|entry| ObjectKey::keyslot(&entry.keyslot)));
    for folder in [Folder::State, Folder::Index, Folder::Ledger] {
        let listed = backend.list(folder, None, &mut |info| {
            keys.extend(info.key.is_well_formed().then_some(info.key));
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            repair.tell(folder.name(), Some(error.to_string()));
        }
    }
    keys.extend(fold.segments().map(|info| ObjectKey::segment(&info.segment)));
    keys.extend(fold.ledger().map(|id| ObjectKey::ledger(&id)));
    for key in keys {
        repair.next()?;
        match repair.object(&key) {
            Ok(true) => repair.tell(key.as_str(), None),
            Ok(false) => {}
            Err(error) => repair.tell(key.as_str(), Some(error.to_string())),
        }
    }
    Ok(repair.report)
}

/// A log entry that was looked at.
struct Entry {
    /// Hash of what stands there; none where that may not be what later entries go over.
    hash: Option<CommitHash>,
    /// It has its bytes again.
    is_mended: bool,
}

/// Why an object is not mended.
#[derive(Debug, thiserror::Error)]
enum NotMended {
    #[error(transparent)]
    Mend(#[from] MendError),
    /// It cannot be read, for reasons that may pass.
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("what its parity gives does not follow the entry before it")]
    Elsewhere,
    #[error("the next entry goes over what stands there now: it was committed without it")]
    GoneOver,
    /// To guess wrong would leave an entry that nothing can follow.
    #[error("the next entry is damaged, too: whether it goes over this one nobody can tell")]
    UnknownFollower,
}

/// What comes after a log entry.
enum Follower {
    /// Nothing.
    None,
    /// A commit that follows this one.
    Of(CommitHash),
    /// Something that tells nothing.
    Unknown,
}

struct Repair<'a> {
    repository: &'a Repository,
    backend: &'a dyn Backend,
    monitor: &'a dyn Monitor,
    report: ObjectsReport,
}

impl Repair<'_> {
    fn next(&mut self) -> Result<(), RepairError> {
        if self.monitor.is_cancelled() {
            return Err(RepairError::Cancelled);
        }
        self.report.checked += 1;
        self.monitor.progress(&Progress { items: self.report.checked, ..Progress::default() });
        Ok(())
    }

    /// What the log says by now: an entry that has its bytes again may take away what the others still knew.
    fn fold(&self) -> Arc<Fold> {
        let (repository, known) = (self.repository, self.repository.fold());
        if self.report.dry_run || self.report.objects.is_empty() {
            return known;
        }
        let mut fold = Fold::empty(known.config());
        let (keys, id) = (repository.keys(), repository.id());
        // Where it breaks off all the same, or ends at a gap, more is known already.
        match log::read_from(self.backend, keys, &id, &mut fold, &mut |_| {}) {
            Ok(()) if fold.seq() >= known.seq() => Arc::new(fold),
            _ => known,
        }
    }

    fn tell(&mut self, object: &str, problem: Option<String>) {
        self.report.objects.push(DamagedObject { object: object.to_owned(), problem });
    }

    /// What is stored under a key, as far as it can be read.
    fn read(&self, key: &ObjectKey) -> Result<Option<Vec<u8>>, BackendError> {
        match self.backend.read(key, RECORD_OBJECT_LEN_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_loss() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All entries in order, and beyond the last one those that have parity: the end of the log may have been cut off.
    fn log(&mut self) -> Result<(), RepairError> {
        let mut last = 0;
        self.backend.list(Folder::Log, None, &mut |info| {
            last = info.key.sequence().unwrap_or(0).max(last);
            ControlFlow::Continue(())
        })?;
        let mut before = Some(self.repository.fold().config());
        let mut absent = 0;
        for seq in 1.. {
            let key = ObjectKey::log(seq);
            let is_known = match self.is_known(&key).or_else(|_| self.is_known(&key)) {
                Ok(is_known) => is_known,
                // A storage that fails altogether has no entries without end.
                Err(error) if seq > last => {
                    let problem = format!("whether there was such an entry cannot be looked up: {error}");
                    self.tell(key.as_str(), Some(problem));
                    break;
                }
                Err(_) => true,
            };
            absent = if is_known { 0 } else { absent + 1 };
            // A stray name may have any number.
            if absent > 0 && (seq > last || absent > ABSENT_MAX) {
                break;
            }
            self.next()?;
            before = match self.entry(seq, before) {
                Ok(entry) => {
                    if entry.is_mended {
                        self.tell(key.as_str(), None);
                    }
                    entry.hash
                }
                Err(error) => {
                    self.tell(key.as_str(), Some(error.to_string()));
                    None
                }
            };
        }
        Ok(())
    }

    /// Whether an entry is there, or parity of it.
    fn is_known(&self, key: &ObjectKey) -> Result<bool, BackendError> {
        Ok(backend::size_of(self.backend, key)?.is_some() || sidecar::is_there(self.backend, key)?)
    }

    /// Whether these bytes are a commit of this number behind `before`; behind anything, where that is not known.
    fn follows(&self, seq: u64, before: Option<CommitHash>, object: Vec<u8>) -> bool {
        let opened = Commit::open(object, seq, self.repository.keys(), &self.repository.id());
        opened.is_ok_and(|(commit, _)| before.is_none_or(|before| commit.previous == before))
    }

    /// Looks at one entry, and mends it if it has to be.
    fn entry(&self, seq: u64, before: Option<CommitHash>) -> Result<Entry, NotMended> {
        let key = ObjectKey::log(seq);
        let stored = self.read(&key)?;
        let stored_hash = stored.as_deref().map(commit::hash);
        if stored.is_some_and(|object| self.follows(seq, before, object)) {
            return Ok(Entry { hash: stored_hash, is_mended: false });
        }
        let mending = match sidecar::mend(self.backend, &key) {
            // Nothing says that it ever was anything else: noise, maybe, and the check knows that.
            Err(MendError::None) if stored_hash.is_some() => {
                return Ok(Entry { hash: None, is_mended: false });
            }
            mending => mending?,
        };
        let object = mending.bytes(RECORD_OBJECT_LEN_MAX)?;
        let hash = commit::hash(&object);
        if stored_hash == Some(hash) {
            // What stands there is what was written: it never counted.
            return Ok(Entry { hash: stored_hash, is_mended: false });
        }
        if !self.follows(seq, before, object) {
            return Err(NotMended::Elsewhere);
        }
        // As late as can be: somebody may have written meanwhile.
        if self.read(&key)?.as_deref().map(commit::hash) != stored_hash {
            return Err(MendError::Changed.into());
        }
        match self.follower(seq + 1) {
            Follower::None => {}
            Follower::Of(named) if named == hash => {}
            Follower::Of(_) => return Err(NotMended::GoneOver),
            Follower::Unknown => return Err(NotMended::UnknownFollower),
        }
        if !self.report.dry_run {
            mending.replace(self.backend, &key)?;
        }
        Ok(Entry { hash: Some(hash), is_mended: true })
    }

    /// What an entry names as the one before it, by itself or by what its parity gives.
    fn follower(&self, seq: u64) -> Follower {
        let key = ObjectKey::log(seq);
        let named = |object: Vec<u8>| {
            let opened = Commit::open(object, seq, self.repository.keys(), &self.repository.id());
            opened.ok().map(|(commit, _)| commit.previous)
        };
        if let Ok(Some(object)) = self.read(&key)
            && let Some(previous) = named(object)
        {
            return Follower::Of(previous);
        }
        match sidecar::mend(self.backend, &key).and_then(|mending| mending.bytes(RECORD_OBJECT_LEN_MAX)) {
            Ok(object) => named(object).map_or(Follower::Unknown, Follower::Of),
            Err(MendError::None) if matches!(backend::size_of(self.backend, &key), Ok(None)) => {
                Follower::None
            }
            Err(_) => Follower::Unknown,
        }
    }

    /// Looks at any other object, and mends it if it has to be. True if it was.
    fn object(&self, key: &ObjectKey) -> Result<bool, NotMended> {
        let hash = if *key == ObjectKey::config() { Some(self.config_hash()) } else { named_hash(key) };
        let is_sound = match hash {
            Some(hash) => self.hash_of(key)? == Some(hash),
            None => self.read(key)?.is_some_and(|object| self.is_state(key, object)),
        };
        if is_sound {
            return Ok(false);
        }
        let mending = sidecar::mend(self.backend, key)?;
        let is_right = match hash {
            Some(hash) => *mending.hash() == hash,
            None => self.is_state(key, mending.bytes(RECORD_OBJECT_LEN_MAX)?),
        };
        if !is_right {
            return Err(MendError::Other.into());
        }
        if self.report.dry_run {
            mending.test()?;
        } else {
            mending.replace(self.backend, key)?;
        }
        Ok(true)
    }

    /// Hash of the config, as the first commit names it.
    fn config_hash(&self) -> [u8; 32] {
        let first = self.read(&ObjectKey::log(1)).ok().flatten();
        let open = |object| Commit::open(object, 1, self.repository.keys(), &self.repository.id()).ok();
        let named = first.and_then(open).map(|(commit, _)| commit.previous);
        *named.unwrap_or_else(|| self.repository.fold().config()).as_bytes()
    }

    fn is_state(&self, key: &ObjectKey, object: Vec<u8>) -> bool {
        let (keys, id) = (self.repository.keys(), self.repository.id());
        let state: Result<State, _> = record::open_object(ObjectKind::State, object, keys, &id);
        state.is_ok_and(|state| Some(state.seq) == key.sequence())
    }

    /// The hash of an object; none where it cannot be read to its end.
    fn hash_of(&self, key: &ObjectKey) -> Result<Option<[u8; 32]>, BackendError> {
        let lost = |error: BackendError| if error.is_loss() { Ok(None) } else { Err(error) };
        let reader = match self.backend.open(key, u64::MAX) {
            Ok(reader) => reader,
            Err(error) => return lost(error),
        };
        let mut hasher = blake3::Hasher::new();
        let (mut piece, mut at) = (vec![0; PIECE_LEN], 0);
        while at < reader.size() {
            let len = usize::try_from(reader.size() - at).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
            if let Err(error) = reader.read_at(at, &mut piece[..len]) {
                return lost(error);
            }
            hasher.update(&piece[..len]);
            at += len as u64;
        }
        Ok(Some(hasher.finalize().into()))
    }
}
