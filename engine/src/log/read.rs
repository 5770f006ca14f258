//! Reading the log: entry by entry, verifying the chain, the signatures and that writers were entitled.
//!
//! An entry that does not verify is void: it keeps its number, is reported, and the chain goes over its bytes.
//! It becomes damage when the next entry names the hash of something else. An entry that a newer version wrote is
//! neither: to pass over it would fold another history than its writer, so reading stops there.

use std::ops::Deref;
use std::sync::Arc;

use crate::backend::{Backend, BackendError, ObjectKey};
use crate::crypto::KeySet;
use crate::crypto::keys::BlobKind;
use crate::format::commit::{self, Change, Commit, CommitError};
use crate::format::header::HeaderError;
use crate::format::note::AT_WORK_NOTE;
use crate::format::record::{RECORD_OBJECT_LEN_MAX, RecordError};
use crate::ids::{CommitHash, RepositoryId, WriterId};
use crate::log::ahead::{Ahead, Junk, ahead};
use crate::log::capability;
use crate::log::fold::{Fold, FoldError};
use crate::log::headers::Headers;
use crate::log::void::{Origin, VoidEntry};

/// The log cannot be read, or is not the log that was written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An entry cannot be read.
    #[error("cannot read the commit log: {0}")]
    Backend(#[from] BackendError),
    /// An entry names another predecessor than the one that is there.
    #[error(
        "commit {seq} follows {expected}, but the entry before it is {found}: the commit log was altered"
    )]
    Chain {
        /// The commit.
        seq: u64,
        /// The predecessor it names.
        expected: CommitHash,
        /// The hash of what is there.
        found: CommitHash,
    },
    /// A newer version wrote an entry: what the log amounts to from here on is not known to this one.
    #[error("commit {seq} was written by a newer version: {reason}. Use a newer strongroom")]
    NotUnderstood {
        /// The commit.
        seq: u64,
        /// What is not known.
        reason: String,
    },
    /// Entries are missing in the middle.
    #[error("commit {missing} is missing from the log, but {last} exists: the commit log was altered")]
    Gap {
        /// The first missing entry.
        missing: u64,
        /// The last entry there.
        last: u64,
    },
}

/// A valid entry of the log.
#[derive(Debug)]
pub struct LogEntry {
    /// The commit.
    pub commit: Commit,
    /// Who signed it.
    pub writer: WriterId,
    /// Hash of its object.
    pub hash: CommitHash,
    /// Length of its object.
    pub size: u64,
}

/// Reads on from `fold` to the end of the log, applying each entry and handing it to `visit`.
///
/// # Errors
/// [`LogError`] where the log cannot be read, the chain is broken or an entry is not understood; `fold` then stands
/// at the last entry that was in order.
pub fn read_from(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &mut Fold,
    visit: &mut dyn FnMut(Result<LogEntry, VoidEntry>),
) -> Result<(), LogError> {
    read_until(backend, keys, repository, fold, u64::MAX, visit)
}

/// Reads on from `fold` as [`read_from`] does, but not beyond entry `last`: what a state of that entry has to
/// be compared with. The log may end before.
///
/// # Errors
/// As [`read_from`].
pub fn read_until(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &mut Fold,
    last: u64,
    visit: &mut dyn FnMut(Result<LogEntry, VoidEntry>),
) -> Result<(), LogError> {
    read(backend, keys, repository, &mut { fold }, |fold| fold, last, visit)
}

/// Reads on from `fold` to entry `last`, which was there before: a log that ends earlier has lost entries.
///
/// # Errors
/// As [`read_from`], and [`LogError::Gap`] where the log does not go so far.
pub fn read_to(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &mut Fold,
    last: u64,
    visit: &mut dyn FnMut(Result<LogEntry, VoidEntry>),
) -> Result<(), LogError> {
    read_until(backend, keys, repository, fold, last, visit)?;
    if fold.seq() < last { Err(LogError::Gap { missing: fold.seq() + 1, last }) } else { Ok(()) }
}

/// Reads on as [`read_from`] does, and copies a fold that others hold, too, if there is anything to read.
///
/// # Errors
/// As [`read_from`].
pub fn read_shared(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &mut Arc<Fold>,
    visit: &mut dyn FnMut(Result<LogEntry, VoidEntry>),
) -> Result<(), LogError> {
    read(backend, keys, repository, fold, Arc::make_mut, u64::MAX, visit)
}

fn read<F: Deref<Target = Fold>>(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &mut F,
    change: impl Fn(&mut F) -> &mut Fold,
    last: u64,
    visit: &mut dyn FnMut(Result<LogEntry, VoidEntry>),
) -> Result<(), LogError> {
    let mut headers = Headers::default();
    while fold.seq() < last {
        let seq = fold.seq() + 1;
        let object = match backend.read(&ObjectKey::log(seq), RECORD_OBJECT_LEN_MAX) {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (hash, size) = (commit::hash(&object), object.len() as u64);
        let void = match verify(object, seq, keys, repository, change(fold), hash) {
            Ok((commit, writer)) => {
                visit(Ok(LogEntry { commit, writer, hash, size }));
                continue;
            }
            Err(Refusal::Stop(error)) => return Err(error),
            Err(Refusal::Unopened(reason)) => {
                let origin = Origin::of_unopened(backend, keys, repository, &mut headers, (seq, hash))?;
                VoidEntry { seq, hash, reason, origin }
            }
            Err(Refusal::Void(reason, origin)) => VoidEntry { seq, hash, reason, origin },
        };
        change(fold).pass_over(&void);
        visit(Err(void));
    }
    Ok(())
}

enum Refusal {
    Stop(LogError),
    /// It is void, for what may be an alteration.
    Unopened(String),
    Void(String, Origin),
}

impl Refusal {
    /// What an entry is that is no commit of this version. One that is not understood counts only if its signer may
    /// change everything: whoever lost a keyslot, or never had more than an append-only one, must not be able to stop all others.
    fn of_commit(error: &CommitError, seq: u64, fold: &Fold) -> Self {
        let is_newer = match error {
            CommitError::Record(RecordError::Header(error)) => {
                matches!(error, HeaderError::Version(_) | HeaderError::Unknown { .. })
            }
            CommitError::Body { writer, .. } => seq == 1 || fold.may_change(writer),
            _ => false,
        };
        let reason = error.to_string();
        match error {
            _ if is_newer => Self::Stop(LogError::NotUnderstood { seq, reason }),
            CommitError::Record(RecordError::Header(HeaderError::Truncated { .. })) => {
                Self::Void(reason, Origin::Nothing)
            }
            CommitError::Record(RecordError::Header(_) | RecordError::Seal(_)) => Self::Unopened(reason),
            CommitError::Body { .. } => Self::Void(reason, Origin::Same),
            CommitError::Record(_) | CommitError::Signature(_) | CommitError::Sequence { .. } => {
                Self::Void(reason, Origin::Unknown)
            }
        }
    }
}

impl From<FoldError> for Refusal {
    fn from(error: FoldError) -> Self {
        Self::Void(error.to_string(), Origin::Same)
    }
}

fn verify(
    object: Vec<u8>,
    seq: u64,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &mut Fold,
    hash: CommitHash,
) -> Result<(Commit, WriterId), Refusal> {
    let (commit, writer) =
        Commit::open(object, seq, keys, repository).map_err(|error| Refusal::of_commit(&error, seq, fold))?;
    if commit.previous != fold.head() {
        let error = LogError::Chain { seq, expected: commit.previous, found: fold.head() };
        return Err(Refusal::Stop(error));
    }
    if fold.may_write(&writer) && !fold.may_change(&writer) {
        check_snapshots(&commit, keys)?;
    }
    fold.apply(&commit, writer, hash)?;
    Ok((commit, writer))
}

/// Whether all snapshots that an appender's commit adds are what their ids say: nobody has to find out later.
fn check_snapshots(commit: &Commit, keys: &KeySet) -> Result<(), Refusal> {
    for change in &commit.changes {
        if let Change::SnapshotAdded { snapshot, record } = change
            && keys.blob_id(BlobKind::Snapshot, record) != *snapshot.blob()
        {
            let reason = format!("commit {} adds snapshot {snapshot} with the record of another", commit.seq);
            return Err(Refusal::Void(reason, Origin::Same));
        }
    }
    Ok(())
}

/// When commit `seq` says that it was made; none where the entry is no commit.
///
/// # Errors
/// [`LogError::Backend`] where it cannot be read.
pub fn commit_time(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    seq: u64,
) -> Result<Option<crate::format::tree::Timestamp>, LogError> {
    let object = backend.read(&ObjectKey::log(seq), RECORD_OBJECT_LEN_MAX)?;
    Ok(Commit::open(object, seq, keys, repository).ok().map(|(commit, _)| commit.time))
}

/// Reads the whole log from its first entry and makes sure that none is missing.
///
/// # Errors
/// As [`read_from`], and [`LogError::Gap`] where a later entry exists beyond the end of the chain.
pub fn read_all(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    config: CommitHash,
    visit: &mut dyn FnMut(Result<LogEntry, VoidEntry>),
) -> Result<Fold, LogError> {
    let mut fold = Fold::empty(config);
    read_from(backend, keys, repository, &mut fold, visit)?;
    check_end(backend, keys, repository, &fold)?;
    Ok(fold)
}

/// Most entries that are read on from one that was read before.
const SINCE_MAX: u64 = 10_000;

/// Commits behind an entry that was read before, of which the number and the hash are remembered, up to the end of the log as `end` has it:
/// for those who remember what was said until then. None where nothing but the whole log tells what counts: where it is not the same log any
/// more, something behind that entry is void or changes who may write, or a note stands beside other changes.
///
/// # Errors
/// [`LogError::Backend`] where the log cannot be read.
pub fn read_since(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    end: &Fold,
    (seq, mut head): (u64, CommitHash),
) -> Result<Option<Vec<Commit>>, LogError> {
    if end.seq().checked_sub(seq).is_none_or(|count| count > SINCE_MAX) {
        return Ok(None);
    }
    let mut commits = Vec::new();
    for seq in seq + 1..=end.seq() {
        let object = match backend.read(&ObjectKey::log(seq), RECORD_OBJECT_LEN_MAX) {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let hash = commit::hash(&object);
        let Ok((commit, writer)) = Commit::open(object, seq, keys, repository) else { return Ok(None) };
        if commit.previous != head || !counts(&commit, &writer, keys, end) {
            return Ok(None);
        }
        head = hash;
        commits.push(commit);
    }
    Ok((head == end.head()).then_some(commits))
}

/// Whether what a commit says counts for sure, if nobody got or lost the right to write since.
fn counts(commit: &Commit, writer: &WriterId, keys: &KeySet, end: &Fold) -> bool {
    let is_of_keys = |change: &Change| {
        matches!(
            change,
            Change::KeyslotAdded { .. } | Change::AppenderAdded { .. } | Change::KeyslotRemoved { .. }
        )
    };
    // That a backup is at work, or has come to its end, is said beside what it stored.
    let is_note = |change: &&Change| matches!(change, Change::Note { kind, .. } if kind != AT_WORK_NOTE);
    let notes = commit.changes.iter().filter(is_note).count();
    let may = match end.may_change(writer) {
        true => true,
        false => {
            end.may_write(writer)
                && capability::check(&commit.changes).is_ok()
                && check_snapshots(commit, keys).is_ok()
        }
    };
    may && !commit.changes.iter().any(is_of_keys) && (notes == 0 || notes == commit.changes.len())
}

/// Makes sure that no entry exists beyond the one after the fold's end. Junk there is in nobody's way.
///
/// # Errors
/// [`LogError::Gap`].
pub fn check_end(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &Fold,
) -> Result<(), LogError> {
    no_gap(fold, &ahead(backend, keys, repository, fold, &mut Junk::default())?)
}

/// Whether nothing of what is [`ahead`] of the fold's end is an entry.
///
/// # Errors
/// [`LogError::Gap`].
pub fn no_gap(fold: &Fold, ahead: &[Ahead]) -> Result<(), LogError> {
    match ahead.last() {
        Some(Ahead { seq, is_entry: true }) => Err(LogError::Gap { missing: fold.seq() + 1, last: *seq }),
        _ => Ok(()),
    }
}
