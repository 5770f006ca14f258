//! Backups at work, as the log tells of them.
//!
//! Packs condemned since one said so stay until it is done. An appender can rescue nothing. Once it has said so, and until it adds a snapshot,
//! what it stored since its last one is left alone: its segments are not vetted, so that nothing that only they list is condemned, and packs for
//! recipients that nobody lists are none that died with their writer.
//!
//! Such a run may be unable to read its source again, and rescues in the end what it relied on. Whoever says so and does not come to an end
//! is waited for a day. As with grace, clocks decide how polite a prune is, and not what is safe.

use std::collections::{BTreeMap, HashSet};

use crate::format::commit::{Change, Commit};
use crate::format::note::{AT_WORK_NOTE, AtWorkNote};
use crate::format::record;
use crate::format::tree::Timestamp;
use crate::ids::{SegmentId, WriterId};
use crate::log::{self, Fold};
use crate::prune::PruneError;
use crate::repo::Repository;

/// For how many seconds a run is believed that says that it is at work.
const BELIEVED_SECONDS: i64 = 24 * 3600;

/// The log from its beginning, verified, and the runs that are at work by it.
pub(super) struct AtWork {
    fold: Fold,
    /// When each said so last, by the commit that said so first.
    runs: BTreeMap<u64, Timestamp>,
    /// What a writer has added since its last snapshot.
    added: BTreeMap<WriterId, Added>,
}

/// What one writer has added.
#[derive(Debug, Default)]
struct Added {
    segments: Vec<SegmentId>,
    /// When it said last that it is at work: an addition of nothing.
    last: Option<Timestamp>,
}

impl AtWork {
    /// Reads the whole log, as far as the repository has read it. Deleting rests on signed commits alone: states are not signed, and
    /// whoever once had a password could forge one.
    ///
    /// # Errors
    /// [`PruneError::ForgedState`] where the repository began with one; otherwise a failure of the storage.
    pub fn verify(repository: &Repository) -> Result<Self, PruneError> {
        let opened = repository.fold();
        let mut this =
            Self { fold: Fold::empty(opened.config()), runs: BTreeMap::new(), added: BTreeMap::new() };
        this.read_on(repository, opened.seq())?;
        if this.fold == *opened { Ok(this) } else { Err(PruneError::ForgedState) }
    }

    /// Reads on to an entry.
    pub fn read_on(&mut self, repository: &Repository, last: u64) -> Result<(), PruneError> {
        let (backend, keys) = (&**repository.backend(), repository.keys());
        let (runs, added) = (&mut self.runs, &mut self.added);
        log::read_to(backend, keys, &repository.id(), &mut self.fold, last, &mut |entry| {
            if let Ok(entry) = entry {
                take_signs(runs, &entry.commit);
                take_added(added, entry.writer, &entry.commit);
            }
        })
        .map_err(|error| PruneError::Repository(error.into()))
    }

    /// Runs that began before commit `seq` and may be at work at the time `now`.
    pub fn since_before(&self, seq: u64, now: Timestamp) -> usize {
        self.runs.range(..seq).filter(|(_, last)| is_believed(**last, now)).count()
    }

    /// Appenders that may be at work at the time `now`, with what they have added.
    fn appenders(&self, now: Timestamp) -> impl Iterator<Item = &Added> {
        let is_recent = move |added: &Added| added.last.is_some_and(|last| is_believed(last, now));
        let is_appender = |writer: &WriterId| self.fold.may_write(writer) && !self.fold.may_change(writer);
        let recent = self.added.iter().filter(move |(writer, added)| is_appender(writer) && is_recent(added));
        recent.map(|(_, added)| added)
    }

    /// Whether there is one.
    pub fn has_appender(&self, now: Timestamp) -> bool {
        self.appenders(now).next().is_some()
    }

    /// Segments that they have added.
    pub fn unfinished(&self, now: Timestamp) -> HashSet<SegmentId> {
        self.appenders(now).flat_map(|added| added.segments.iter().copied()).collect()
    }
}

fn is_believed(time: Timestamp, now: Timestamp) -> bool {
    now.seconds.saturating_sub(time.seconds).saturating_abs() < BELIEVED_SECONDS
}

fn take_added(added: &mut BTreeMap<WriterId, Added>, writer: WriterId, commit: &Commit) {
    if commit.changes.iter().any(|change| matches!(change, Change::SnapshotAdded { .. })) {
        added.remove(&writer);
        return;
    }
    for change in &commit.changes {
        if let Change::SegmentsReplaced { added: segments, removed } = change
            && removed.is_empty()
        {
            let of_writer = added.entry(writer).or_default();
            of_writer.segments.extend(segments.iter().map(|info| info.segment));
            if segments.is_empty() {
                of_writer.last = Some(commit.time);
            }
        }
    }
}

fn take_signs(runs: &mut BTreeMap<u64, Timestamp>, commit: &Commit) {
    for change in &commit.changes {
        let Change::Note { kind, record } = change else { continue };
        if kind != AT_WORK_NOTE {
            continue;
        }
        match record::decode(record) {
            Ok(AtWorkNote { began: 0, ended: false }) => _ = runs.insert(commit.seq, commit.time),
            Ok(AtWorkNote { began, ended: true }) => _ = runs.remove(&began),
            Ok(AtWorkNote { began, ended: false }) => {
                _ = runs.entry(began).and_modify(|last| *last = commit.time);
            }
            // A hint that is not understood is none.
            Err(_) => {}
        }
    }
}
