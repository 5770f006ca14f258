//! Log entries, states, segments and ledgers get their bytes back by their parity.
//!
//! A repository need not open for that: [`Repository::open_salvaged`] is enough. What parity gives is compared with all that is
//! known of the object before it takes its place: it has the hash of its name; or it is a commit, signed, between its neighbours;
//! or it is a state that opens.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::format::commit::{self, Commit};
use crate::format::header::ObjectKind;
use crate::format::record::{self, RECORD_OBJECT_LEN_MAX};
use crate::format::state::State;
use crate::ids::CommitHash;
use crate::monitor::{Monitor, Progress};
use crate::repair::{DamagedObject, ObjectsReport, RepairError, is_loss};
use crate::repo::Repository;
use crate::sidecar::{self, MendError, named_hash};

/// Entries that may be missing side by side, for those behind them to be looked at.
const ABSENT_MAX: u32 = 100;
/// Bytes that are hashed at a time.
const PIECE_LEN: usize = 1 << 20;

/// Repairs what parity can repair. With `dry_run` it only says so.
///
/// # Errors
/// [`RepairError`]. An object that cannot be repaired is no error but part of the report.
pub fn run(
    repository: &Repository,
    dry_run: bool,
    monitor: &dyn Monitor,
) -> Result<ObjectsReport, RepairError> {
    let backend = &**repository.backend();
    let report = ObjectsReport { dry_run, ..ObjectsReport::default() };
    let mut repair = Repair { repository, backend, monitor, report };
    repair.log()?;
    let mut keys = BTreeSet::new();
    for folder in [Folder::State, Folder::Index, Folder::Ledger] {
        backend.list(folder, None, &mut |info| {
            keys.extend(info.key.is_well_formed().then_some(info.key));
            ControlFlow::Continue(())
        })?;
    }
    let fold = repository.fold();
    keys.extend(fold.segments().map(|info| ObjectKey::segment(&info.segment)));
    keys.extend(fold.ledger().map(|id| ObjectKey::ledger(&id)));
    for key in keys {
        repair.object(&key)?;
    }
    Ok(repair.report)
}

/// What is stored under a key, as far as it can be read.
enum Found {
    Bytes(Vec<u8>),
    Nothing,
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

    fn tell(&mut self, key: &ObjectKey, problem: Option<String>) {
        self.report.objects.push(DamagedObject { object: key.to_string(), problem });
    }

    fn read(&self, key: &ObjectKey) -> Result<Found, RepairError> {
        match self.backend.read(key, RECORD_OBJECT_LEN_MAX) {
            Ok(bytes) => Ok(Found::Bytes(bytes)),
            Err(error) if is_loss(&error) => Ok(Found::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// All entries in order, and beyond the last one those that have parity: the end of the log may have been cut off.
    fn log(&mut self) -> Result<(), RepairError> {
        let mut last = 0;
        self.backend.list(Folder::Log, None, &mut |info| {
            last = info.key.sequence().unwrap_or(0).max(last);
            ControlFlow::Continue(())
        })?;
        let mut before = self.repository.fold().config();
        let mut absent = 0;
        for seq in 1.. {
            let key = ObjectKey::log(seq);
            let is_known = sidecar::head_of(self.backend, &key)?.is_some() || self.backend.stat(&key).is_ok();
            absent = if is_known { 0 } else { absent + 1 };
            // A stray name may have any number.
            if absent > 0 && (seq > last || absent > ABSENT_MAX) {
                break;
            }
            self.next()?;
            before = self.entry(seq, before)?;
        }
        Ok(())
    }

    /// Looks at one entry, and returns the hash of what stands there in the end.
    fn entry(&mut self, seq: u64, before: CommitHash) -> Result<CommitHash, RepairError> {
        let key = ObjectKey::log(seq);
        let found = self.read(&key)?;
        let (keys, id) = (self.repository.keys(), self.repository.id());
        let follows = |object: Vec<u8>| match Commit::open(object, seq, keys, &id) {
            Ok((commit, _)) => commit.previous == before,
            Err(_) => false,
        };
        let stored = match found {
            Found::Bytes(bytes) => {
                let hash = commit::hash(&bytes);
                if follows(bytes) {
                    return Ok(hash);
                }
                Some(hash)
            }
            Found::Nothing => None,
        };
        let outcome = sidecar::mend(self.backend, &key).and_then(|mending| {
            let bytes = mending.bytes()?;
            Ok((mending, bytes))
        });
        let (mending, bytes) = match outcome {
            // Nothing says that it ever was anything else: noise, maybe, and the check knows that.
            Err(MendError::None) if stored.is_some() => return Ok(stored.unwrap_or(before)),
            Err(MendError::Backend(error)) => return Err(error.into()),
            Err(error) => {
                self.tell(&key, Some(error.to_string()));
                return Ok(stored.unwrap_or(before));
            }
            Ok(mended) => mended,
        };
        let hash = commit::hash(&bytes);
        if stored == Some(hash) {
            // What stands there is what was written: it never counted.
            return Ok(hash);
        }
        if !follows(bytes) {
            let problem = "what its parity gives does not follow the entry before it";
            self.tell(&key, Some(problem.to_owned()));
            return Ok(stored.unwrap_or(before));
        }
        let problem = match self.follower(seq + 1)? {
            Follower::None => None,
            Follower::Of(named) if named == hash => None,
            Follower::Of(_) => {
                Some("the next entry goes over what stands there now: it was committed without it")
            }
            // To guess wrong would leave an entry that nothing can follow.
            Follower::Unknown => {
                Some("the next entry is damaged, too: whether it goes over this one nobody can tell")
            }
        };
        if let Some(problem) = problem {
            self.tell(&key, Some(problem.to_owned()));
            return Ok(stored.unwrap_or(before));
        }
        let mended = if self.report.dry_run { Ok(()) } else { mending.replace(self.backend, &key) };
        match mended {
            Ok(()) => {
                self.tell(&key, None);
                Ok(hash)
            }
            Err(MendError::Backend(error)) => Err(error.into()),
            Err(error) => {
                self.tell(&key, Some(error.to_string()));
                Ok(stored.unwrap_or(before))
            }
        }
    }

    /// What an entry names as the one before it, by itself or by what its parity gives.
    fn follower(&self, seq: u64) -> Result<Follower, RepairError> {
        let key = ObjectKey::log(seq);
        let named = |bytes: Vec<u8>| {
            let opened = Commit::open(bytes, seq, self.repository.keys(), &self.repository.id());
            opened.ok().map(|(commit, _)| commit.previous)
        };
        let is_stored = match self.read(&key)? {
            Found::Bytes(bytes) => match named(bytes) {
                Some(previous) => return Ok(Follower::Of(previous)),
                None => true,
            },
            Found::Nothing => self.backend.stat(&key).is_ok(),
        };
        match sidecar::mend(self.backend, &key).and_then(|mending| mending.bytes()) {
            Ok(bytes) => Ok(named(bytes).map_or(Follower::Unknown, Follower::Of)),
            Err(MendError::None) if !is_stored => Ok(Follower::None),
            Err(_) => Ok(Follower::Unknown),
        }
    }

    /// Looks at a state, segment or ledger.
    fn object(&mut self, key: &ObjectKey) -> Result<(), RepairError> {
        self.next()?;
        let is_sound = match named_hash(key) {
            Some(hash) => self.hash_of(key)? == Some(hash),
            None => match self.read(key)? {
                Found::Bytes(bytes) => self.is_state(key, bytes),
                Found::Nothing => false,
            },
        };
        if is_sound {
            return Ok(());
        }
        let mended = sidecar::mend(self.backend, key).and_then(|mending| {
            if named_hash(key).is_none() && !self.is_state(key, mending.bytes()?) {
                return Err(MendError::Other);
            }
            if self.report.dry_run { mending.test() } else { mending.replace(self.backend, key) }
        });
        match mended {
            Ok(()) => self.tell(key, None),
            Err(MendError::Backend(error)) => return Err(error.into()),
            Err(error) => self.tell(key, Some(error.to_string())),
        }
        Ok(())
    }

    fn is_state(&self, key: &ObjectKey, bytes: Vec<u8>) -> bool {
        let (keys, id) = (self.repository.keys(), self.repository.id());
        let state: Result<State, _> = record::open_object(ObjectKind::State, bytes, keys, &id);
        state.is_ok_and(|state| Some(state.seq) == key.sequence())
    }

    /// The hash of an object; none where it cannot be read to its end.
    fn hash_of(&self, key: &ObjectKey) -> Result<Option<[u8; 32]>, RepairError> {
        let lost = |error: BackendError| if is_loss(&error) { Ok(None) } else { Err(error.into()) };
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
