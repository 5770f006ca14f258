//! A repository: backend, keys, log and index wired together. Operations are built on this and nothing below.

#[cfg(test)]
mod append_only_lies_tests;
#[cfg(test)]
mod append_only_race_tests;
#[cfg(test)]
mod append_only_repair_tests;
#[cfg(test)]
mod append_only_tests;
#[cfg(test)]
mod durability_tests;
#[cfg(test)]
mod hostile_blocks_tests;
#[cfg(test)]
mod hostile_numbers_tests;
#[cfg(test)]
mod hostile_segments_tests;
#[cfg(test)]
mod junk_tests;
mod keyslots;
mod ledger;
#[cfg(test)]
mod lost_commits_tests;
#[cfg(test)]
mod never_stored_tests;
mod open;
#[cfg(test)]
mod open_tests;
#[cfg(test)]
mod refresh_tests;
#[cfg(test)]
mod removed_writer_tests;
#[cfg(test)]
mod snapshots_tests;
pub(crate) mod tail;
mod unlock;
mod view;
mod write;

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, BackendError, ObjectKey};
use crate::budget;
use crate::crypto::{Entropy, KdfError, KeySet};
use crate::format::commit::WriterKey;
use crate::format::config::ConfigError;
use crate::format::header::Sealer;
use crate::format::keyslot::Secrets;
use crate::format::snapshot::Snapshot;
use crate::format::tree::Timestamp;
use crate::ids::{KeyslotId, PackId, RepositoryId, SegmentId, SnapshotId, WriterId};
use crate::index::{Index, IndexError, MergeError};
use crate::log::{
    self, Fold, FoldError, Head, HeadError, LogError, LostCommit, PublishError, SnapshotRecords,
};
use crate::repo::view::View;
use crate::sidecar::{Cover, Troubles};
use crate::spill::SpillError;
use crate::store::BlobReader;

pub use keyslots::KeyInfo;
pub use ledger::LedgerReadError;
pub use open::InitOptions;
pub use write::NewSegment;

/// Where the engine gets the time and the names it puts into commits.
#[derive(Clone)]
pub struct Environment {
    /// Salts and secrets.
    pub entropy: Arc<dyn Entropy>,
    /// The time of day: for people and retention, never for safety.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Time since some moment, which never runs backwards: how long things take.
    pub uptime: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// This host.
    pub host: String,
    /// This user.
    pub user: String,
    /// Program and version.
    pub program: String,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Environment({}@{}, {})", self.user, self.host, self.program)
    }
}

/// A repository could not be opened, made or changed.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is no repository.
    #[error("there is no repository at {location}: it holds no config")]
    Absent {
        /// Where.
        location: String,
    },
    /// What is in the folder is no repository, nor the beginning of one.
    #[error(
        "cannot make a repository in {location}: it is not empty and is no repository, there is {found:?} in it; expected an empty folder, or none yet"
    )]
    NotEmpty {
        /// Where.
        location: String,
        /// The name of an entry that no repository has.
        found: String,
    },
    /// The config is gone, while what only a repository can have is there.
    #[error(
        "the config of the repository at {location} is missing, but there is {found}: the config was lost"
    )]
    NoConfig {
        /// Where.
        location: String,
        /// An object of the repository.
        found: ObjectKey,
    },
    /// There is one already.
    #[error("there is a repository at {location} already; nothing was changed")]
    Exists {
        /// Where.
        location: String,
    },
    /// Nothing was committed to it yet.
    #[error(
        "the repository at {location} has no first commit: `init` was broken off, or is still at work{problem}"
    )]
    Unfinished {
        /// Where.
        location: String,
        /// Why it cannot be gone on with, to go on with the sentence; empty where nobody tried.
        problem: String,
    },
    /// The storage failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The config cannot be used.
    #[error("{location}: {source}")]
    Config {
        /// Where.
        location: String,
        /// Why.
        source: ConfigError,
    },
    /// No keyslot opens with the password.
    #[error("the password {} of {location}{problems}", none_of(*keyslots))]
    WrongPassword {
        /// Where.
        location: String,
        /// How many were tried.
        keyslots: usize,
        /// What is wrong with others that could not be tried, to go on with the sentence; empty where all were.
        problems: String,
    },
    /// No keyslot can be tried: all are missing or damaged.
    #[error("{location} has no usable keyslot: {problems}")]
    NoKeyslot {
        /// Where.
        location: String,
        /// What is wrong with each.
        problems: String,
    },
    /// No keyslot that could be tried opens, and this one takes more memory than it may.
    #[error(
        "trying the password on keyslot {keyslot} of {location} takes {needed} KiB of memory, more than the {allowed} KiB that it may take\
         {others}"
    )]
    KeyslotMemory {
        /// Where.
        location: String,
        /// Which one.
        keyslot: KeyslotId,
        /// KiB that it takes.
        needed: u32,
        /// KiB that it may take.
        allowed: u64,
        /// What became of the password on all others, to go on with the sentence; empty where there are none.
        others: String,
    },
    /// The keyslot opened, but the log says it was removed.
    #[error("keyslot {0} was removed from the repository: use another password")]
    RemovedKeyslot(KeyslotId),
    /// A password was refused.
    #[error("the password is empty: an empty password protects nothing")]
    EmptyPassword,
    /// Key derivation failed.
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log says something impossible.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The log is gone while what it speaks of is there.
    #[error(
        "no entry of the commit log of {location} counts, but there is {found}: the log was lost or altered"
    )]
    NoLog {
        /// Where.
        location: String,
        /// An object that only a commit can have brought about, or an entry that does not count.
        found: ObjectKey,
    },
    /// The config has another id than the repository: with that of its parity a keyslot opens, with its own none does.
    #[error(
        "the config of {location} is damaged: it has another repository's id, with which no password opens. The password is right"
    )]
    DamagedConfig {
        /// Where.
        location: String,
    },
    /// The config is not the one the log began with.
    #[error("the config is not the one this repository was made with: it was exchanged or altered")]
    ForeignConfig,
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Segments cannot be merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// What does not fit into memory has no room elsewhere.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// The commit could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The log is damaged, and the repository was opened as far as it can be read.
    #[error("the commit log of {location} is damaged: nothing can be written, only read")]
    OnlyReadable {
        /// Where.
        location: String,
    },
    /// The keyslot in use is append-only, and this takes more.
    #[error("the password in use is append-only: it can back up, but not {0}")]
    AppendOnly(&'static str),
    /// Parity is there of a commit that is not.
    #[error(
        "commit {seq} is gone from the end of the commit log, but its parity is there: it was published and got lost. Nothing was \
         committed; repair objects first"
    )]
    LostEntry {
        /// The first of those that are gone.
        seq: u64,
    },
    /// An entry at the end of the log was altered, and its parity tells what it was.
    #[error(
        "commit {seq} at the end of the commit log was altered, and its parity gives it back. Nothing was committed; repair \
         objects first"
    )]
    AlteredEntry {
        /// The entry.
        seq: u64,
    },
    /// A commit is lost, or may be, and nobody has put on record that this is known: what it said may matter to what was asked for.
    #[error("{lost}. {consequence}")]
    LostCommit {
        /// The commit.
        lost: LostCommit,
        /// What was not done for that.
        consequence: &'static str,
    },
    /// Another writer removed what this commit rests on.
    #[error(
        "another writer condemned or removed packs meanwhile; nothing was committed. Run the command again"
    )]
    Conflict,
    /// The last keyslot that opens everything cannot go.
    #[error("keyslot {0} is the only one that opens everything: without it nobody could read the repository")]
    LastKeyslot(KeyslotId),
    /// No keyslot has this id.
    #[error("no keyslot has the id {0:?}: see `key list`")]
    UnknownKeyslot(String),
    /// A name for a snapshot matches none.
    #[error("no snapshot matches {0:?}")]
    NoSnapshot(String),
    /// A name for a snapshot matches several.
    #[error("{prefix:?} matches {count} snapshots: give more digits")]
    AmbiguousSnapshot {
        /// The prefix.
        prefix: String,
        /// How many it matches.
        count: usize,
    },
}

/// That a password opens no keyslot of so many, as a verb and its object.
fn none_of(keyslots: usize) -> String {
    match keyslots {
        1 => "does not open the keyslot".into(),
        _ => format!("opens none of the {keyslots} keyslots"),
    }
}

impl RepositoryError {
    /// Whether the repository itself is damaged: altered, truncated or missing objects. Everything else is the
    /// caller's mistake, a failure of the storage, or another writer's doing.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Backend(error) | Self::Log(LogError::Backend(error)) => error.is_damage(),
            Self::Config { source: ConfigError::Record(_), .. }
            | Self::NoKeyslot { .. }
            | Self::NoLog { .. }
            | Self::NoConfig { .. }
            | Self::Log(LogError::Chain { .. } | LogError::Gap { .. })
            | Self::Fold(FoldError::OtherSnapshot(_))
            | Self::DamagedConfig { .. }
            | Self::ForeignConfig
            | Self::OnlyReadable { .. }
            | Self::LostEntry { .. }
            | Self::AlteredEntry { .. }
            | Self::LostCommit { .. }
            | Self::Merge(MergeError::Source(IndexError::Segment { .. }))
            | Self::Index(IndexError::Segment { .. }) => true,
            // The log says that the segment is there.
            Self::Index(IndexError::Backend { source, .. })
            | Self::Merge(MergeError::Source(IndexError::Backend { source, .. })) => {
                source.is_not_found() || source.is_damage()
            }
            _ => false,
        }
    }
}

/// Why no snapshot is called the latest.
const UNKNOWN_LATEST: &str = "Which snapshot is the latest cannot be told: name one by its id";

/// Snapshots whose records cannot be read, and why.
pub type Unread = Vec<(SnapshotId, FoldError)>;

/// An opened repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    environment: Environment,
    id: RepositoryId,
    config_bytes: Vec<u8>,
    keys: Arc<KeySet>,
    secrets: Secrets,
    keyslot: KeyslotId,
    writer: WriterKey,
    reader: Arc<BlobReader>,
    view: Arc<View>,
    troubles: Arc<Troubles>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({:?} at {})", self.id, self.backend.location())
    }
}

impl Repository {
    /// Its id.
    pub fn id(&self) -> RepositoryId {
        self.id
    }

    /// Where it is.
    pub fn location(&self) -> String {
        self.backend.location()
    }

    /// Its backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The stored config.
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// Its keys.
    pub fn keys(&self) -> &Arc<KeySet> {
        &self.keys
    }

    /// Its index.
    pub fn index(&self) -> &Arc<Index> {
        self.view.index()
    }

    /// Takes no more memory for opened pages of its index than is right for somebody who lives in so many bytes.
    pub fn live_in(&self, memory: u64) {
        self.index().keep_pages(budget::cached_pages(memory));
    }

    /// Reads its blobs.
    pub fn reader(&self) -> &Arc<BlobReader> {
        &self.reader
    }

    /// The names and sources it was opened with.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The log as folded so far. Shared, not copied: one that is held on to is copied when the log is read on.
    pub fn fold(&self) -> Arc<Fold> {
        self.view.fold()
    }

    /// What makes parity of stored objects, if the log says that it is wanted.
    pub fn cover(&self) -> Option<Cover> {
        self.fold().parity().map(|overhead| Cover::new(overhead, Arc::clone(&self.troubles)))
    }

    /// What went wrong with parity in this process, such as sidecars that it could not store. Nothing fails for that.
    pub fn parity_troubles(&self) -> Vec<String> {
        self.troubles.list()
    }

    /// Whether it was opened with an append-only keyslot: backups can be made, and the log read.
    pub fn is_append_only(&self) -> bool {
        self.keys.is_append_only()
    }

    /// Whose signatures its commits get.
    pub fn writer_id(&self) -> WriterId {
        self.writer.id()
    }

    /// Whether it was opened with a keyslot that allows everything.
    ///
    /// # Errors
    /// [`RepositoryError::AppendOnly`], with what was meant to be done, where it was not.
    pub fn require_full(&self, deed: &'static str) -> Result<(), RepositoryError> {
        if self.is_append_only() { Err(RepositoryError::AppendOnly(deed)) } else { Ok(()) }
    }

    /// Takes note of something that went wrong with parity.
    pub(crate) fn note_parity_trouble(&self, trouble: String) {
        self.troubles.note(trouble);
    }

    /// Whether it was opened by [`Repository::open_salvaged`].
    pub fn is_salvaged(&self) -> bool {
        self.view.is_salvaged()
    }

    /// The last entry of the log, as read so far, that counts; none before the first one.
    pub fn head(&self) -> Option<Head> {
        self.view.head()
    }

    /// The same, made durable first, whoever committed it. Whoever remembers a head elsewhere, or stores something that proves that it was
    /// there, would otherwise tell of a loss after a power cut that took what nobody had been told was committed.
    ///
    /// # Errors
    /// [`BackendError`] where the storage fails.
    pub fn durable_head(&self) -> Result<Option<Head>, BackendError> {
        let head = self.head();
        head.map_or(Ok(()), |head| self.backend.flush(&ObjectKey::log(head.seq)))?;
        Ok(head)
    }

    /// Makes sure that the log, as read so far, passes through a head that was seen before.
    ///
    /// # Errors
    /// [`HeadError`] where it is another log, or one that lost its end.
    pub fn verify_head(&self, expected: &Head) -> Result<(), HeadError> {
        let fold = self.fold();
        let end = Head { seq: fold.seq(), hash: fold.head() };
        log::verify_head(&*self.backend, &self.keys, &self.id, expected, &end)
    }

    /// Makes sure that the log as it is stored now, whatever was read of it before, is one chain that passes through `expected`, if that
    /// is given: after a repair.
    ///
    /// # Errors
    /// As [`Repository::verify_head`].
    pub fn verify_log_anew(&self, expected: Option<&Head>) -> Result<(), HeadError> {
        let (backend, config) = (&*self.backend, self.fold().config());
        let fold = log::read_all(backend, &self.keys, &self.id, config, &mut |_| {})?;
        let end = Head { seq: fold.seq(), hash: fold.head() };
        expected.map_or(Ok(()), |head| log::verify_head(backend, &self.keys, &self.id, head, &end))
    }

    /// The last commit read by this process that condemned or removed packs or dropped segments; 0 for none.
    pub fn last_prune(&self) -> u64 {
        self.view.last_prune()
    }

    /// The last commit read by this process that did so, or that says that blobs may be lost which the index had listed: by a rebuild,
    /// or with a log entry. Who relies on what the index listed before has to look it up; 0 for none.
    pub fn last_loss(&self) -> u64 {
        self.view.last_loss()
    }

    /// Segments that could not be opened: any by [`Repository::open_for_repair`], or later by the same repository; otherwise those of
    /// appenders only.
    pub fn broken_segments(&self) -> Vec<String> {
        self.view.broken_segments()
    }

    /// Segments that appenders added and that cannot be opened: everything goes on without them.
    pub fn distrusted_segments(&self) -> Vec<String> {
        let fold = self.fold();
        self.view.broken_segments_if(&|segment| fold.appended_by(segment).is_some())
    }

    /// Whether a commit read by this process removed the pack: its id never comes back, even where the fold has
    /// forgotten it or has it condemned again.
    pub fn is_pack_gone(&self, pack: &PackId) -> bool {
        self.view.is_pack_gone(pack)
    }

    /// Whether the pack is neither removed nor, as this fold has it, condemned: what lies in it can be relied on.
    pub fn is_pack_in_force(&self, fold: &Fold, pack: &PackId) -> bool {
        !self.is_pack_gone(pack) && fold.condemned_since(pack).is_none()
    }

    /// Whether a commit read by this process dropped the segment.
    pub fn is_segment_gone(&self, segment: &SegmentId) -> bool {
        self.view.is_segment_gone(segment)
    }

    /// Entries of the log that do not verify and were passed over while opening.
    pub fn void_entries(&self) -> Vec<String> {
        self.view.void_entries()
    }

    /// Commits that are lost, and those that may have been when they were read, whoever has passed over them since; but none of which
    /// somebody has put on record that the loss is known. Of those that are gone from the end of the log, the first one.
    pub fn lost_commits(&self) -> Vec<LostCommit> {
        let mut lost = self.view.lost_commits();
        lost.extend(self.gone_from_end());
        lost
    }

    /// Makes sure that no commit is lost, as far as the log tells, before something is taken away: what it said may be that a snapshot
    /// was added.
    ///
    /// # Errors
    /// [`RepositoryError::LostCommit`] with the `consequence`; [`RepositoryError::AlteredEntry`] where parity gives the entry back, or
    /// [`RepositoryError::LostEntry`] where it is gone from the end of the log.
    pub(crate) fn require_all_commits(
        &self,
        fold: &Fold,
        consequence: &'static str,
    ) -> Result<(), RepositoryError> {
        self.check_tail()?;
        fold.lost_commits()
            .next()
            .map_or(Ok(()), |lost| Err(RepositoryError::LostCommit { lost, consequence }))
    }

    /// Makes sure that something can be written: that the log was not read as far as it goes because it is damaged.
    ///
    /// # Errors
    /// [`RepositoryError::OnlyReadable`].
    pub(crate) fn require_sound_log(&self) -> Result<(), RepositoryError> {
        match self.is_salvaged() {
            true => Err(RepositoryError::OnlyReadable { location: self.location() }),
            false => Ok(()),
        }
    }

    /// Makes sure that a snapshot can pass for the latest: that no commit behind the one that added it is lost.
    ///
    /// # Errors
    /// [`RepositoryError::LostCommit`].
    pub fn require_latest(&self, snapshot: Option<&SnapshotId>) -> Result<(), RepositoryError> {
        // Who reads a damaged log as far as it goes knows that.
        if self.is_salvaged() {
            return Ok(());
        }
        let fold = self.fold();
        let added = snapshot.and_then(|id| fold.snapshot(id)).map_or(0, |entry| entry.added);
        match fold.lost_commits().find(|lost| lost.seq > added).or_else(|| self.gone_from_end()) {
            Some(lost) => Err(RepositoryError::LostCommit { lost, consequence: UNKNOWN_LATEST }),
            None => Ok(()),
        }
    }

    /// What sealing an object of this repository takes.
    pub fn sealer(&self) -> Sealer<'_> {
        Sealer { keys: &self.keys, repository: &self.id, entropy: &*self.environment.entropy }
    }

    /// Live snapshots in the order they were committed: a host's wrong clock must not decide which is the latest. Repaired
    /// ones stand where their originals stood, and copies from one repository in the order that they have there.
    ///
    /// # Errors
    /// [`RepositoryError::Fold`] where a record cannot be read: for what would be wrong without one of them.
    pub fn snapshots(&self) -> Result<Vec<(SnapshotId, Snapshot)>, RepositoryError> {
        let (snapshots, unread) = self.readable_snapshots();
        unread.into_iter().next().map_or(Ok(snapshots), |(_, error)| Err(error.into()))
    }

    /// The same as far as their records can be read, and the others with the reason: one that a newer version made, or
    /// that is damaged, keeps nobody from the rest.
    pub fn readable_snapshots(&self) -> (Vec<(SnapshotId, Snapshot)>, Unread) {
        let fold = self.fold();
        let SnapshotRecords { read, unread } = SnapshotRecords::of(&fold, &self.keys);
        let snapshots = read.into_iter().map(|(entry, snapshot)| (entry.snapshot, snapshot));
        (snapshots.collect(), unread.into_iter().map(|(entry, error)| (entry.snapshot, error)).collect())
    }

    /// The snapshot called `name`: `latest` (the last one committed that is not partial, else the last partial one), or a prefix of
    /// its id of at least one digit.
    ///
    /// # Errors
    /// [`RepositoryError::NoSnapshot`] or [`RepositoryError::AmbiguousSnapshot`]; [`RepositoryError::Fold`] where its record cannot
    /// be read, or may be the latest and cannot be read; [`RepositoryError::LostCommit`] where a later one may be lost.
    pub fn find_snapshot(&self, name: &str) -> Result<(SnapshotId, Snapshot), RepositoryError> {
        let (mut snapshots, mut unread) = self.readable_snapshots();
        if name == "latest" {
            let complete = snapshots.iter().rposition(|(_, snapshot)| !snapshot.partial);
            let found = complete.or(snapshots.len().checked_sub(1)).map(|at| snapshots.swap_remove(at));
            let fold = self.fold();
            let added = |id: &SnapshotId| fold.snapshot(id).map(|entry| entry.added);
            let last = found.as_ref().and_then(|(id, _)| added(id));
            // An older one must not pass for it.
            if let Some((_, error)) = unread.into_iter().find(|(id, _)| added(id) > last) {
                return Err(error.into());
            }
            self.require_latest(found.as_ref().map(|(id, _)| id))?;
            return found.ok_or_else(|| RepositoryError::NoSnapshot(name.to_owned()));
        }
        let id = self.find_snapshot_id(name)?;
        match snapshots.iter().position(|(found, _)| *found == id) {
            Some(at) => Ok(snapshots.swap_remove(at)),
            None => {
                let error =
                    unread.iter().position(|(found, _)| *found == id).map(|at| unread.swap_remove(at).1);
                Err(error.map_or_else(|| RepositoryError::NoSnapshot(name.to_owned()), Into::into))
            }
        }
    }

    /// The id of the snapshot called `name`, whether its record can be read or not: for what does not look into it.
    ///
    /// # Errors
    /// As [`Repository::find_snapshot`], but for records that cannot be read and are named by their id.
    pub fn find_snapshot_id(&self, name: &str) -> Result<SnapshotId, RepositoryError> {
        let none = || RepositoryError::NoSnapshot(name.to_owned());
        if name == "latest" {
            return Ok(self.find_snapshot(name)?.0);
        }
        if name.is_empty() || !name.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(none());
        }
        let prefix = name.to_ascii_lowercase();
        let fold = self.fold();
        let mut found = fold.snapshots().filter(|entry| entry.snapshot.to_string().starts_with(&prefix));
        match (found.next(), found.count()) {
            (None, _) => Err(none()),
            (Some(entry), 0) => Ok(entry.snapshot),
            (Some(_), more) => Err(RepositoryError::AmbiguousSnapshot { prefix, count: more + 1 }),
        }
    }
}
