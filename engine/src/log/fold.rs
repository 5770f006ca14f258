//! Folding: what all commits so far amount to.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;

use crate::crypto::KeySet;
use crate::crypto::keys::BlobKind;
use crate::format::commit::{Change, Commit, RESERVE_LEN_MAX, SegmentInfo};
use crate::format::note::{LOG_LOSS_NOTE, LogLossNote};
use crate::format::parity::Overhead;
use crate::format::record::{self, RecordError};
use crate::format::snapshot::{self, Snapshot};
use crate::format::state::{AppendedSegment, CondemnedPack, KeyslotEntry, LostEntry, SnapshotEntry, State};
use crate::ids::{CommitHash, KeyslotId, LedgerId, PackId, SegmentId, SnapshotId, WriterId};
use crate::log::capability;
use crate::log::void::{Loss, LostCommit, Origin, VoidEntry};

/// A verified commit does not fit what came before it.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// Signed by a key that no keyslot in force holds.
    #[error("commit {seq} is signed by writer {writer}, which no keyslot in force holds")]
    Writer {
        /// The commit.
        seq: u64,
        /// Its signer.
        writer: WriterId,
    },
    /// Signed by an appender, and more than an addition.
    #[error("commit {seq} is signed by writer {writer}, who may only add, but it {deed}")]
    Capability {
        /// The commit.
        seq: u64,
        /// Its signer.
        writer: WriterId,
        /// What it would do.
        deed: &'static str,
    },
    /// A change that names something that is not there, or is there already.
    #[error("commit {seq} {problem}")]
    Change {
        /// The commit.
        seq: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A snapshot's record is what its writer stored, and says something that this version does not know.
    #[error("snapshot {snapshot} was made by a newer version: its record is not understood ({source})")]
    NewerSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is not understood.
        source: RecordError,
    },
    /// A snapshot's record is not the one that its id stands for.
    #[error("snapshot {0} is damaged or exchanged: its record is not the one that its id stands for")]
    OtherSnapshot(SnapshotId),
}

/// The log folded up to a commit, in a form that is quick to look things up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    seq: u64,
    head: CommitHash,
    config: CommitHash,
    keyslots: BTreeMap<KeyslotId, KeyslotEntry>,
    snapshots: BTreeMap<SnapshotId, SnapshotEntry>,
    segments: BTreeMap<SegmentId, SegmentInfo>,
    /// Those of the segments that appenders added, with who did.
    appended: BTreeMap<SegmentId, WriterId>,
    condemned: BTreeMap<PackId, u64>,
    ledger: Option<LedgerId>,
    parity: Option<Overhead>,
    reserve: Option<u64>,
    /// Entries that were commits once and whose loss nobody has put on record, with the hash of what stands there.
    lost: BTreeMap<u64, CommitHash>,
    /// Entries behind the last commit of which nobody can tell what they were.
    doubtful: BTreeSet<u64>,
}

impl Fold {
    /// The fold of no commits.
    pub fn empty(config: CommitHash) -> Self {
        Self {
            seq: 0,
            head: config,
            config,
            keyslots: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            segments: BTreeMap::new(),
            appended: BTreeMap::new(),
            condemned: BTreeMap::new(),
            ledger: None,
            parity: None,
            reserve: None,
            lost: BTreeMap::new(),
            doubtful: BTreeSet::new(),
        }
    }

    /// The fold that a state holds.
    pub fn from_state(state: State) -> Self {
        Self {
            seq: state.seq,
            head: state.head,
            config: state.config,
            keyslots: state.keyslots.into_iter().map(|entry| (entry.keyslot, entry)).collect(),
            snapshots: state.snapshots.into_iter().map(|entry| (entry.snapshot, entry)).collect(),
            segments: state.segments.into_iter().map(|info| (info.segment, info)).collect(),
            appended: state.appended.into_iter().map(|entry| (entry.segment, entry.writer)).collect(),
            condemned: state.condemned.into_iter().map(|entry| (entry.pack, entry.condemned)).collect(),
            ledger: state.ledger,
            parity: state.parity,
            reserve: state.reserve,
            lost: state.lost.into_iter().map(|entry| (entry.seq, entry.hash)).collect(),
            doubtful: BTreeSet::new(),
        }
    }

    /// The state to store for this fold.
    pub fn to_state(&self) -> State {
        State {
            seq: self.seq,
            head: self.head,
            config: self.config,
            keyslots: self.keyslots.values().cloned().collect(),
            snapshots: self.snapshots.values().cloned().collect(),
            segments: self.segments.values().copied().collect(),
            appended: self
                .appended
                .iter()
                .map(|(segment, writer)| AppendedSegment { segment: *segment, writer: *writer })
                .collect(),
            condemned: self
                .condemned
                .iter()
                .map(|(pack, condemned)| CondemnedPack { pack: *pack, condemned: *condemned })
                .collect(),
            ledger: self.ledger,
            parity: self.parity,
            reserve: self.reserve,
            lost: self.lost.iter().map(|(seq, hash)| LostEntry { seq: *seq, hash: *hash }).collect(),
        }
    }

    /// The last commit folded in; 0 for none.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What the next commit has to name as its predecessor.
    pub fn head(&self) -> CommitHash {
        self.head
    }

    /// Hash of the config that the log begins with.
    pub fn config(&self) -> CommitHash {
        self.config
    }

    /// Keyslots in force, by id.
    pub fn keyslots(&self) -> impl Iterator<Item = &KeyslotEntry> {
        self.keyslots.values()
    }

    /// A keyslot in force.
    pub fn keyslot(&self, id: &KeyslotId) -> Option<&KeyslotEntry> {
        self.keyslots.get(id)
    }

    /// Live snapshots, by id.
    pub fn snapshots(&self) -> impl Iterator<Item = &SnapshotEntry> {
        self.snapshots.values()
    }

    /// A live snapshot.
    pub fn snapshot(&self, id: &SnapshotId) -> Option<&SnapshotEntry> {
        self.snapshots.get(id)
    }

    /// Live segments, by id.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentInfo> {
        self.segments.values()
    }

    /// The appender that added a live segment, if one did and nobody has vetted it since.
    pub fn appended_by(&self, segment: &SegmentId) -> Option<WriterId> {
        self.appended.get(segment).copied()
    }

    /// Live segments that appenders added and nobody has vetted, by id.
    pub fn appended(&self) -> impl Iterator<Item = (&SegmentId, &WriterId)> {
        self.appended.iter()
    }

    /// Condemned packs with the commit that condemned each.
    pub fn condemned(&self) -> impl Iterator<Item = (&PackId, u64)> {
        self.condemned.iter().map(|(pack, seq)| (pack, *seq))
    }

    /// Since which commit a pack is condemned, if it is.
    pub fn condemned_since(&self, pack: &PackId) -> Option<u64> {
        self.condemned.get(pack).copied()
    }

    /// The verification ledger, if there is one.
    pub fn ledger(&self) -> Option<LedgerId> {
        self.ledger
    }

    /// How much parity is wanted, if any.
    pub fn parity(&self) -> Option<Overhead> {
        self.parity
    }

    /// How many bytes are to be kept free on the storage, if any.
    pub fn reserve(&self) -> Option<u64> {
        self.reserve
    }

    /// Commits that are lost, or may be, and of which nobody has put on record that this is known, by number.
    pub fn lost_commits(&self) -> impl Iterator<Item = LostCommit> {
        let lost = self.lost.keys().map(|seq| LostCommit { seq: *seq, how: Loss::Altered });
        let doubtful = self.doubtful.iter().map(|seq| LostCommit { seq: *seq, how: Loss::Doubtful });
        let mut all: Vec<_> = lost.chain(doubtful).collect();
        all.sort_unstable_by_key(|entry| entry.seq);
        all.into_iter()
    }

    /// Numbers of entries behind the last commit of which nobody can tell what they were. A state has no place for them.
    pub(crate) fn doubtful(&self) -> impl Iterator<Item = u64> {
        self.doubtful.iter().copied()
    }

    /// Whether a segment is part of the index.
    pub fn has_segment(&self, segment: &SegmentId) -> bool {
        self.segments.contains_key(segment)
    }

    /// Folds the next commit in, which was read as `object_hash` and signed by `writer`.
    ///
    /// # Errors
    /// [`FoldError`] where the commit does not fit; the fold is then unchanged.
    pub fn apply(
        &mut self,
        commit: &Commit,
        writer: WriterId,
        object_hash: CommitHash,
    ) -> Result<(), FoldError> {
        self.check(commit, writer)?;
        let appender = self.appender(&writer);
        for change in &commit.changes {
            self.change(commit.seq, appender, change).expect("what fits all that it touches fits");
        }
        self.seq = commit.seq;
        self.head = object_hash;
        // Its writer has passed over them.
        self.doubtful.clear();
        Ok(())
    }

    /// Whether a commit signed by `writer` fits: what [`Fold::apply`] would say.
    ///
    /// # Errors
    /// [`FoldError`] where it does not.
    pub fn check(&self, commit: &Commit, writer: WriterId) -> Result<(), FoldError> {
        self.check_writer(commit, writer)?;
        let appender = self.appender(&writer);
        if appender.is_some() {
            capability::check(&commit.changes).map_err(|deed| FoldError::Capability {
                seq: commit.seq,
                writer,
                deed,
            })?;
        }
        let mut touched = self.touched_by(&commit.changes);
        commit.changes.iter().try_for_each(|change| touched.change(commit.seq, appender, change))
    }

    /// The part of the fold that decides whether changes fit: what they name, and the keyslots, of which there are
    /// few. Trying them on a copy of everything would take time proportional to the repository for every commit.
    fn touched_by(&self, changes: &[Change]) -> Self {
        let mut part = Self::empty(self.config);
        part.keyslots = self.keyslots.clone();
        for change in changes {
            match change {
                Change::KeyslotAdded { .. }
                | Change::AppenderAdded { .. }
                | Change::KeyslotRemoved { .. }
                | Change::ParitySet { .. }
                | Change::ReserveSet { .. }
                | Change::Note { .. } => {}
                Change::SnapshotAdded { snapshot, .. }
                | Change::SnapshotForgotten { snapshot, .. }
                | Change::SnapshotHeld { snapshot, .. }
                | Change::SnapshotReleased { snapshot, .. } => {
                    copy(&self.snapshots, std::slice::from_ref(snapshot), &mut part.snapshots);
                }
                Change::SegmentsReplaced { added, removed } => {
                    let added: Vec<_> = added.iter().map(|info| info.segment).collect();
                    copy(&self.segments, &added, &mut part.segments);
                    copy(&self.segments, removed, &mut part.segments);
                }
                Change::LedgerReplaced { .. } => part.ledger = self.ledger,
                Change::SegmentsDropped { segments } => copy(&self.segments, segments, &mut part.segments),
                Change::PacksCondemned { packs }
                | Change::PacksRescued { packs }
                | Change::PacksRemoved { packs } => copy(&self.condemned, packs, &mut part.condemned),
            }
        }
        part
    }

    /// Folds in those changes of a commit that fit and that its writer may make. Who is not known to be a full writer may only
    /// add: what admitted them may be lost, but may as well have been for an append-only keyslot. See
    /// [`salvage`](crate::log::salvage()).
    pub(super) fn apply_what_fits(&mut self, commit: &Commit, writer: WriterId, object_hash: CommitHash) {
        let appender = (!self.is_full(commit, writer)).then_some(writer);
        for change in &commit.changes {
            let alone = std::slice::from_ref(change);
            let mut touched = self.touched_by(alone);
            let is_allowed = appender.is_none() || capability::check(alone).is_ok();
            if is_allowed && touched.change(commit.seq, appender, change).is_ok() {
                self.change(commit.seq, appender, change).expect("what fits all that it touches fits");
            }
        }
        self.skip(commit.seq, object_hash);
    }

    /// Takes segments for live that no commit which can be read has added: see [`salvage`](crate::log::salvage()).
    pub(crate) fn add_segments(&mut self, infos: impl IntoIterator<Item = SegmentInfo>) {
        self.segments.extend(infos.into_iter().map(|info| (info.segment, info)));
    }

    /// Passes over an entry that does not verify: it keeps its number and changes nothing. That a commit is lost by it is kept in mind.
    pub fn pass_over(&mut self, void: &VoidEntry) {
        match void.origin {
            Origin::Commit => _ = self.lost.insert(void.seq, void.hash),
            Origin::Unknown => _ = self.doubtful.insert(void.seq),
            Origin::Same | Origin::Nothing => {}
        }
        self.skip(void.seq, void.hash);
    }

    /// Goes on behind an entry, whatever it said.
    pub(super) fn skip(&mut self, seq: u64, object_hash: CommitHash) {
        self.seq = seq;
        self.head = object_hash;
    }

    /// Whether a keyslot in force holds this writer.
    pub fn may_write(&self, writer: &WriterId) -> bool {
        self.keyslots.values().any(|slot| slot.writer == *writer)
    }

    /// Whether a keyslot in force that is not append-only holds this writer.
    pub fn may_change(&self, writer: &WriterId) -> bool {
        self.keyslots.values().any(|slot| slot.writer == *writer && !slot.append_only)
    }

    /// The writer, if all it may do is add.
    fn appender(&self, writer: &WriterId) -> Option<WriterId> {
        (self.may_write(writer) && !self.may_change(writer)).then_some(*writer)
    }

    /// Only writers of keyslots in force count. The first commit is signed by a writer it adds; no later one is a
    /// first, whatever became of the others.
    fn check_writer(&self, commit: &Commit, writer: WriterId) -> Result<(), FoldError> {
        if Self::is_first(commit, writer) || self.may_write(&writer) {
            return Ok(());
        }
        Err(FoldError::Writer { seq: commit.seq, writer })
    }

    /// Whether the signer of a commit is known to be a full writer.
    pub(super) fn is_full(&self, commit: &Commit, writer: WriterId) -> bool {
        self.may_change(&writer) || Self::is_first(commit, writer)
    }

    fn is_first(commit: &Commit, writer: WriterId) -> bool {
        let adds_writer = |change: &Change| matches!(change, Change::KeyslotAdded { writer: added, .. } if *added == writer);
        commit.seq == 1 && commit.changes.iter().any(adds_writer)
    }

    /// `appender` is whoever made the change, if all it may do is add.
    fn change(&mut self, seq: u64, appender: Option<WriterId>, change: &Change) -> Result<(), FoldError> {
        let wrong = |problem: String| Err(FoldError::Change { seq, problem });
        match change {
            Change::KeyslotAdded { keyslot, writer, label }
            | Change::AppenderAdded { keyslot, writer, label } => {
                let append_only = matches!(change, Change::AppenderAdded { .. });
                // One writer cannot be both: what it may do would depend on which keyslot was removed last.
                if self
                    .keyslots
                    .values()
                    .any(|slot| slot.writer == *writer && slot.append_only != append_only)
                {
                    return wrong(format!("adds writer {writer} in another capacity than it has"));
                }
                let (keyslot, writer, label) = (*keyslot, *writer, label.clone());
                let entry = KeyslotEntry { keyslot, writer, label, added: seq, append_only };
                if self.keyslots.insert(keyslot, entry).is_some() {
                    return wrong(format!("adds keyslot {keyslot}, which is there already"));
                }
            }
            Change::KeyslotRemoved { keyslot, .. } => {
                if self.keyslots.remove(keyslot).is_none() {
                    return wrong(format!("removes keyslot {keyslot}, which is not there"));
                }
                if self.keyslots.values().all(|slot| slot.append_only) {
                    return wrong("removes the last keyslot that is not append-only".into());
                }
            }
            Change::SnapshotAdded { snapshot, record } => {
                let (snapshot, record) = (*snapshot, record.clone());
                let entry = SnapshotEntry { snapshot, added: seq, record, hold: None, appender };
                // The same record may be added again: a commit that was retried after it had got through.
                let there = self.snapshots.entry(snapshot).or_insert(entry);
                if appender.is_none() {
                    there.appender = None;
                }
            }
            Change::SnapshotForgotten { snapshot, .. } => match self.snapshots.remove(snapshot) {
                None => return wrong(format!("forgets snapshot {snapshot}, which is not there")),
                Some(entry) if entry.hold.is_some() => {
                    return wrong(format!("forgets snapshot {snapshot}, which is held"));
                }
                Some(_) => {}
            },
            Change::SnapshotHeld { snapshot, reason } => match self.snapshots.get_mut(snapshot) {
                None => return wrong(format!("holds snapshot {snapshot}, which is not there")),
                Some(entry) => entry.hold = Some(reason.clone()),
            },
            Change::SnapshotReleased { snapshot, .. } => match self.snapshots.get_mut(snapshot) {
                Some(entry) if entry.hold.is_some() => entry.hold = None,
                _ => return wrong(format!("releases snapshot {snapshot}, which is not held")),
            },
            Change::SegmentsReplaced { added, removed } => {
                for segment in removed {
                    if self.segments.remove(segment).is_none() {
                        return wrong(format!("removes segment {segment}, which is not there"));
                    }
                    self.appended.remove(segment);
                }
                for info in added {
                    let is_new = !self.segments.contains_key(&info.segment);
                    match appender {
                        Some(writer) if is_new => _ = self.appended.insert(info.segment, writer),
                        Some(_) => continue,
                        // Whoever may change everything answers for it from now on, and for what it says of it.
                        None if self.appended.remove(&info.segment).is_some() => {
                            self.segments.insert(info.segment, *info);
                        }
                        None => {}
                    }
                    self.segments.entry(info.segment).or_insert(*info);
                }
            }
            Change::SegmentsDropped { segments } => {
                if let Some(segment) = segments.iter().find(|id| self.segments.contains_key(id)) {
                    return wrong(format!("drops segment {segment}, which is part of the index"));
                }
            }
            Change::PacksCondemned { packs } => {
                for pack in packs {
                    self.condemned.entry(*pack).or_insert(seq);
                }
            }
            Change::PacksRescued { packs } => packs.iter().for_each(|pack| {
                self.condemned.remove(pack);
            }),
            Change::PacksRemoved { packs } => {
                for pack in packs {
                    if self.condemned.remove(pack).is_none() {
                        return wrong(format!("removes pack {pack}, which was not condemned"));
                    }
                }
            }
            Change::LedgerReplaced { ledger, previous } => {
                if self.ledger != *previous {
                    return wrong("replaces another verification ledger than there is".into());
                }
                self.ledger = Some(*ledger);
            }
            Change::ParitySet { overhead: 0 } => self.parity = None,
            Change::ParitySet { overhead } => match Overhead::from_tenths(*overhead) {
                Some(overhead) => self.parity = Some(overhead),
                None => return wrong(format!("wants parity of {overhead} tenths of a percent")),
            },
            Change::ReserveSet { bytes } if *bytes > RESERVE_LEN_MAX => {
                return wrong(format!("wants {bytes} bytes kept free"));
            }
            Change::ReserveSet { bytes } => self.reserve = (*bytes > 0).then_some(*bytes),
            Change::Note { kind, record } if kind == LOG_LOSS_NOTE => {
                if let Ok(known) = record::decode::<LogLossNote>(record)
                    && self.lost.get(&known.seq) == Some(&known.hash)
                {
                    self.lost.remove(&known.seq);
                }
            }
            Change::Note { .. } => {}
        }
        Ok(())
    }
}

fn copy<K: Ord + Copy, V: Clone>(from: &BTreeMap<K, V>, keys: &[K], to: &mut BTreeMap<K, V>) {
    to.extend(keys.iter().filter_map(|key| Some((*key, from.get(key)?.clone()))));
}

/// Reads the record of a snapshot, wherever it was found: it counts only if the id is the record's own.
///
/// # Errors
/// [`FoldError::OtherSnapshot`] where it is not, [`FoldError::NewerSnapshot`] where the record is not understood.
pub fn snapshot_record(keys: &KeySet, snapshot: SnapshotId, record: &ByteBuf) -> Result<Snapshot, FoldError> {
    if keys.blob_id(BlobKind::Snapshot, record) != *snapshot.blob() {
        return Err(FoldError::OtherSnapshot(snapshot));
    }
    record::decode(record).map_err(|source| FoldError::NewerSnapshot { snapshot, source })
}

/// Live snapshots, and what was read of their records.
pub struct SnapshotRecords<'f> {
    /// Those whose records can be read, in the order of [`snapshot::positions`]; of one commit, in the order of their times.
    pub read: Vec<(&'f SnapshotEntry, Snapshot)>,
    /// The others, and why.
    pub unread: Vec<(&'f SnapshotEntry, FoldError)>,
}

impl<'f> SnapshotRecords<'f> {
    /// Reads the records of all live snapshots.
    pub fn of(fold: &'f Fold, keys: &KeySet) -> Self {
        let (mut read, mut unread) = (Vec::new(), Vec::new());
        for entry in fold.snapshots() {
            match snapshot_record(keys, entry.snapshot, &entry.record) {
                Ok(snapshot) => read.push((entry, snapshot)),
                Err(error) => unread.push((entry, error)),
            }
        }
        let added: Vec<_> = read.iter().map(|(entry, snapshot)| (snapshot, entry.added)).collect();
        let mut ordered: Vec<_> = snapshot::positions(&added).into_iter().zip(read).collect();
        // One commit can add several that are lost elsewhere.
        ordered.sort_by_key(|(position, (entry, snapshot))| (*position, snapshot.time, entry.snapshot));
        Self { read: ordered.into_iter().map(|(_, snapshot)| snapshot).collect(), unread }
    }
}
