//! What a process has read of the commit log, and the index that goes with it: both grow as others commit.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{Backend, Folder, ObjectKey};
use crate::crypto::KeySet;
use crate::format::commit::{self, Change};
use crate::format::header::ObjectKind;
use crate::format::note::{LOG_LOSS_NOTE, REBUILD_NOTE};
use crate::format::record;
use crate::format::state::State;
use crate::ids::{PackId, RepositoryId, SegmentId, WriterId};
use crate::index::{self, Index, IndexError, Segment};
use crate::log::{self, Fold, Head, Junk, LogError, Loss, LostCommit, VoidEntry};
use crate::repo::RepositoryError;
use crate::store::Catalog;

/// What may be damaged for a repository to be opened all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leniency {
    /// Nothing.
    None,
    /// Segments: those that cannot be opened are left out.
    Index,
    /// The log, too: what was made of it is not to be gone on from.
    Log,
}

/// What commits read by this process took away for good: these ids never come back.
#[derive(Debug, Default)]
struct Gone {
    packs: HashSet<PackId>,
    segments: HashSet<SegmentId>,
}

/// What entries say that were read on.
#[derive(Debug, Default)]
struct News {
    head: Option<Head>,
    voids: Vec<(u64, String)>,
    gone: Gone,
    last_prune: u64,
    last_loss: u64,
}

/// The log as this process has read it.
#[derive(Debug)]
pub(super) struct View {
    backend: Arc<dyn Backend>,
    keys: Arc<KeySet>,
    id: RepositoryId,
    index: Arc<Index>,
    /// Whose appended segments count like all others: an appender's own.
    own: WriterId,
    leniency: Leniency,
    fold: Mutex<Arc<Fold>>,
    head: Mutex<Option<Head>>,
    /// Entries that do not count, by number, and why.
    voids: Mutex<Vec<(u64, String)>>,
    /// Those that stood at the end, and nobody could tell what they were. A commit that comes behind makes noise of one for all others.
    doubtful: Mutex<BTreeSet<u64>>,
    /// What stands behind the log's end and is nothing.
    junk: Mutex<Junk>,
    /// Segments that cannot be opened, where that is to be lived with, as always with those that appenders added; otherwise it
    /// ends what was tried.
    broken: Mutex<Vec<IndexError>>,
    last_prune: AtomicU64,
    last_loss: AtomicU64,
    newest_state: AtomicU64,
    gone: Mutex<Gone>,
}

/// All that is kept here changes in single steps, so that a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    /// The view of a log of which nothing but `fold` is known.
    pub fn new(
        backend: Arc<dyn Backend>,
        keys: Arc<KeySet>,
        (id, own): (RepositoryId, WriterId),
        fold: Fold,
        leniency: Leniency,
    ) -> Self {
        Self {
            backend,
            keys,
            id,
            index: Arc::default(),
            own,
            leniency,
            fold: Mutex::new(Arc::new(fold)),
            head: Mutex::default(),
            voids: Mutex::default(),
            doubtful: Mutex::default(),
            junk: Mutex::default(),
            broken: Mutex::default(),
            last_prune: AtomicU64::new(0),
            last_loss: AtomicU64::new(0),
            newest_state: AtomicU64::new(0),
            gone: Mutex::default(),
        }
    }

    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The log as folded so far. Shared, not copied: one that is held on to is copied when the log is read on.
    pub fn fold(&self) -> Arc<Fold> {
        Arc::clone(&lock(&self.fold))
    }

    pub fn is_salvaged(&self) -> bool {
        self.leniency == Leniency::Log
    }

    /// The last entry that counts.
    pub fn head(&self) -> Option<Head> {
        *lock(&self.head)
    }

    fn set_head(&self, head: Head) {
        *lock(&self.head) = Some(head);
    }

    /// The last commit that condemned or removed packs or dropped segments; 0 for none.
    pub fn last_prune(&self) -> u64 {
        self.last_prune.load(Ordering::Relaxed)
    }

    /// The last commit that did so, or that says that something may have been lost otherwise; 0 for none.
    pub fn last_loss(&self) -> u64 {
        self.last_loss.load(Ordering::Relaxed).max(self.last_prune())
    }

    /// Up to which commit the newest state goes that this process began with or wrote; 0 for none.
    pub fn newest_state(&self) -> u64 {
        self.newest_state.load(Ordering::Relaxed)
    }

    pub fn set_newest_state(&self, seq: u64) {
        self.newest_state.fetch_max(seq, Ordering::Relaxed);
    }

    pub fn is_pack_gone(&self, pack: &PackId) -> bool {
        lock(&self.gone).packs.contains(pack)
    }

    pub fn is_segment_gone(&self, segment: &SegmentId) -> bool {
        lock(&self.gone).segments.contains(segment)
    }

    /// Segments that could not be opened.
    pub fn broken_segments(&self) -> Vec<String> {
        lock(&self.broken).iter().map(ToString::to_string).collect()
    }

    /// Those of them that `is_wanted` chooses.
    pub fn broken_segments_if(&self, is_wanted: &dyn Fn(&SegmentId) -> bool) -> Vec<String> {
        let id = |error: &IndexError| match error {
            IndexError::Backend { segment, .. } | IndexError::Segment { segment, .. } => *segment,
        };
        lock(&self.broken).iter().filter(|error| is_wanted(&id(error))).map(ToString::to_string).collect()
    }

    /// Entries that do not count.
    pub fn void_entries(&self) -> Vec<String> {
        let told = |(seq, reason): &(u64, String)| format!("log entry {seq} does not count: {reason}");
        lock(&self.voids).iter().map(told).collect()
    }

    /// Commits that are lost, or may have been when this process came by.
    pub fn lost_commits(&self) -> Vec<LostCommit> {
        // In the order in which a refresh takes both.
        let fold = lock(&self.fold);
        let doubtful = lock(&self.doubtful);
        let doubtful = doubtful.iter().map(|seq| LostCommit { seq: *seq, how: Loss::Doubtful });
        let mut lost: Vec<_> = fold.lost_commits().chain(doubtful).collect();
        lost.sort_unstable_by_key(|lost| (lost.seq, lost.how));
        lost.dedup_by_key(|lost| lost.seq);
        lost
    }

    /// As [`log::check_end`]: what was found to be junk before is not read again.
    pub fn check_end(&self, fold: &Fold) -> Result<(), LogError> {
        let (backend, mut junk) = (&*self.backend, lock(&self.junk));
        log::no_gap(fold, &log::ahead(backend, &self.keys, &self.id, fold, &mut junk)?)
    }

    /// Takes over what was made of a damaged log.
    pub fn salvaged(&self, fold: Fold, voids: Vec<(u64, String)>) -> Result<(), RepositoryError> {
        self.follow_segments(&fold)?;
        *lock(&self.fold) = Arc::new(fold);
        *lock(&self.voids) = voids;
        Ok(())
    }

    /// Begins with the newest usable state. States are derived: one that does not fit is passed over, and
    /// `check` compares them with the log.
    pub fn start_from_state(&self, is_usable: &dyn Fn(&State) -> bool) -> Result<(), RepositoryError> {
        if self.keys.is_append_only() {
            return Ok(());
        }
        let mut sequences = Vec::new();
        self.backend.list(Folder::State, None, &mut |info| {
            sequences.extend(info.key.sequence());
            ControlFlow::Continue(())
        })?;
        let config = lock(&self.fold).config();
        for seq in sequences.into_iter().rev() {
            let Ok(object) = self.backend.read(&ObjectKey::state(seq), record::RECORD_OBJECT_LEN_MAX) else {
                continue;
            };
            let state: Result<State, _> =
                record::open_object(ObjectKind::State, object, &self.keys, &self.id);
            if let Ok(state) = state
                && state.seq == seq
                && state.config == config
                && is_usable(&state)
            {
                self.set_head(Head { seq, hash: state.head });
                self.set_newest_state(seq);
                *lock(&self.fold) = Arc::new(Fold::from_state(state));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the log entry that the state ends with is there and is the one it names.
    pub fn state_fits(&self, state: &State) -> bool {
        self.backend
            .read(&ObjectKey::log(state.seq), record::RECORD_OBJECT_LEN_MAX)
            .is_ok_and(|object| commit::hash(&object) == state.head)
    }

    /// Reads what others committed since, and opens and closes segments accordingly.
    ///
    /// # Errors
    /// [`RepositoryError`] where the log or a new segment cannot be read.
    pub fn refresh(&self) -> Result<(), RepositoryError> {
        if self.is_salvaged() {
            return Ok(());
        }
        let mut guard = lock(&self.fold);
        // The fold and the index are of one moment: whoever knew of a prune by the one, and not by the other, would rely on what that
        // condemned. So what is read takes the place of both or of none.
        let (mut fold, mut news) = (Arc::clone(&guard), News::default());
        let mut missing_at = None;
        loop {
            self.read_log_on(&mut fold, &mut news)?;
            let followed = self.follow_segments(&fold);
            let is_missing = match &followed {
                Ok(()) => {
                    self.take_note(std::mem::take(&mut news), &fold);
                    *guard = Arc::clone(&fold);
                    self.lacks_a_segment()
                }
                Err(RepositoryError::Index(IndexError::Backend { source, .. })) => source.is_not_found(),
                Err(_) => false,
            };
            // Whoever merges segments deletes the old ones once the log says so: it has gone on meanwhile, then.
            if !is_missing || missing_at.replace(fold.seq()) == Some(fold.seq()) {
                return followed;
            }
        }
    }

    /// Reads the log on.
    fn read_log_on(&self, fold: &mut Arc<Fold>, news: &mut News) -> Result<(), LogError> {
        log::read_shared(&*self.backend, &self.keys, &self.id, fold, &mut |entry| match entry {
            Ok(entry) => {
                let seq = entry.commit.seq;
                news.head = Some(Head { seq, hash: entry.hash });
                for change in entry.commit.changes {
                    match change {
                        Change::PacksCondemned { .. } => {}
                        Change::PacksRemoved { packs } => news.gone.packs.extend(packs),
                        Change::SegmentsDropped { segments } => news.gone.segments.extend(segments),
                        Change::Note { kind, .. } if kind == REBUILD_NOTE || kind == LOG_LOSS_NOTE => {
                            news.last_loss = seq;
                            continue;
                        }
                        _ => continue,
                    }
                    news.last_prune = seq;
                }
            }
            Err(VoidEntry { seq, reason, .. }) => news.voids.push((seq, reason)),
        })
    }

    /// Keeps in mind what a running operation may rely on and has to do without. Not before the fold tells of it, too: what was found then
    /// would pass for what holds behind the loss.
    fn take_note(&self, news: News, fold: &Fold) {
        let News { head, mut voids, gone, last_prune, last_loss } = news;
        if let Some(head) = head {
            self.set_head(head);
        }
        let mut known = lock(&self.gone);
        known.packs.extend(gone.packs);
        known.segments.extend(gone.segments);
        self.last_prune.fetch_max(last_prune, Ordering::Relaxed);
        self.last_loss.fetch_max(last_loss, Ordering::Relaxed);
        lock(&self.voids).append(&mut voids);
        lock(&self.doubtful).extend(fold.doubtful());
    }

    /// Whether a segment could not be opened because its object is not there.
    fn lacks_a_segment(&self) -> bool {
        let is_absent =
            |error: &IndexError| matches!(error, IndexError::Backend { source, .. } if source.is_not_found());
        lock(&self.broken).iter().any(is_absent)
    }

    /// Makes the open segments those of the fold.
    fn follow_segments(&self, fold: &Fold) -> Result<(), RepositoryError> {
        let (open, everything) = (self.index.segments(), self.index.everything());
        let (mut added, mut appended) = (Vec::new(), Vec::new());
        let (mut unopened, mut distrusted) = (Vec::new(), Vec::new());
        // Also one that was removed: if an appender has added it again, it is what the appender says by now.
        let is_anothers = |id: &SegmentId| fold.appended_by(id).is_some_and(|writer| writer != self.own);
        for info in fold.segments() {
            let is_appended = is_anothers(&info.segment);
            if !is_appended && open.iter().any(|segment| segment.id() == info.segment) {
                continue;
            }
            let held = everything.iter().find(|segment| segment.id() == info.segment).cloned();
            match (held.map_or_else(|| self.open_segment(info.segment), Ok), is_appended) {
                (Ok(segment), false) => added.push(segment),
                (Ok(segment), true) => appended.push(segment),
                (Err(error), false) => unopened.push(error),
                (Err(error), true) => distrusted.push(error),
            }
        }
        let is_tolerated = |error: &IndexError| match self.leniency {
            Leniency::None => false,
            // What may be read the next time is not to be replaced by less.
            Leniency::Index => error.is_loss(),
            Leniency::Log => true,
        };
        if let Some(at) = unopened.iter().position(|error| !is_tolerated(error)) {
            return Err(unopened.swap_remove(at).into());
        }
        unopened.append(&mut distrusted);
        *lock(&self.broken) = unopened;
        let removed: Vec<_> = open
            .iter()
            .map(|segment| segment.id())
            .filter(|id| !fold.has_segment(id) || is_anothers(id))
            .collect();
        if !added.is_empty() || !removed.is_empty() {
            self.index.replace(added, &removed);
        }
        self.index.set_appended(appended);
        Ok(())
    }

    fn open_segment(&self, id: SegmentId) -> Result<Arc<Segment>, IndexError> {
        index::open_segment(&*self.backend, id, &self.keys, &self.id).map(Arc::new)
    }
}

impl Catalog for View {
    fn index(&self) -> &Index {
        &self.index
    }

    fn read_on(&self) -> bool {
        // If it fails, what is asked for counts as missing, which is reported.
        self.refresh().is_ok()
    }
}
