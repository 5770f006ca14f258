//! Changing a repository: commits, new segments, states.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::backend::{BackendError, Created, Folder, ObjectKey};
use crate::format::commit::{Change, Commit, SegmentInfo};
use crate::format::header::ObjectKind;
use crate::format::pack::Directory;
use crate::format::record;
use crate::format::segment::{Layout, PackEntry};
use crate::ids::{CommitHash, KeyslotId, PackId, SegmentId};
use crate::index::{self, IndexError, Segment};
use crate::log::{self, Fold, FoldError, PublishError};
use crate::repo::{Repository, RepositoryError};
use crate::sidecar;
use crate::store::{PackStore, StoreOptions};

/// A state is written by the commit that has this many entries, itself included, behind the newest one.
pub(super) const COMMITS_PER_STATE: u64 = 32;

/// How often a segment is stored that prunes delete before it can be opened.
const STORE_TRIES: u32 = 5;

/// A segment object just stored and not yet committed.
#[derive(Debug)]
pub struct NewSegment {
    /// What the commit will say of it.
    pub info: SegmentInfo,
    segment: Arc<Segment>,
}

impl NewSegment {
    /// The segment, open.
    pub fn segment(&self) -> Arc<Segment> {
        Arc::clone(&self.segment)
    }
}

impl Repository {
    /// Makes one commit of the changes that `decide` wants, given the log as it is at that moment. When another
    /// writer comes first, the log is read on and `decide` is asked again. No changes, no commit.
    ///
    /// # Errors
    /// [`RepositoryError`] where `decide` refuses or the storage fails.
    pub fn commit(
        &self,
        decide: &mut dyn FnMut(&Fold) -> Result<Vec<Change>, RepositoryError>,
    ) -> Result<u64, RepositoryError> {
        self.commit_or(decide)
    }

    /// As [`Repository::commit`], for operations that refuse for reasons of their own.
    ///
    /// # Errors
    /// What `decide` refuses with, or a [`RepositoryError`] where the storage fails.
    pub fn commit_or<E: From<RepositoryError>>(
        &self,
        decide: &mut dyn FnMut(&Fold) -> Result<Vec<Change>, E>,
    ) -> Result<u64, E> {
        self.require_sound_log()?;
        loop {
            let fold = self.fold();
            let changes = decide(&fold)?;
            if changes.is_empty() {
                return Ok(fold.seq());
            }
            if self.is_append_only() && !changes.iter().all(log::may_append) {
                return Err(RepositoryError::AppendOnly("change or take away what is there").into());
            }
            let commit = Commit {
                seq: fold.seq() + 1,
                previous: fold.head(),
                time: (self.environment.now)(),
                host: self.environment.host.clone(),
                user: self.environment.user.clone(),
                program: self.environment.program.clone(),
                changes,
            };
            // Filling a gap in a damaged log would break its chain for good.
            self.view.check_end(&fold).map_err(RepositoryError::from)?;
            // So would taking the place of lost entries, or going over an altered one.
            self.check_tail()?;
            // What no reader would accept must not be published: it would be void.
            fold.check(&commit, self.writer.id()).map_err(|error| match error {
                // It opened the repository, and was removed since.
                FoldError::Writer { .. } => RepositoryError::RemovedKeyslot(self.keyslot),
                error => error.into(),
            })?;
            match log::publish(&*self.backend, &commit, &self.writer, &self.sealer()) {
                Ok(hash) => {
                    // It is made, whether its consequences can be read now or not.
                    if self.refresh().is_ok() {
                        self.write_state();
                        self.cover_commit(&commit, hash);
                    }
                    return Ok(commit.seq);
                }
                Err(PublishError::Lost(_)) => self.refresh()?,
                Err(error) => return Err(RepositoryError::from(error).into()),
            }
        }
    }

    /// Makes parity of a commit just published, and of the one before if its writer did not come to it.
    fn cover_commit(&self, commit: &Commit, hash: CommitHash) {
        let (backend, Some(cover)) = (&*self.backend, self.cover()) else { return };
        let before = (commit.seq > 1).then(|| (ObjectKey::log(commit.seq - 1), commit.previous));
        if let Some((key, hash)) = before
            && sidecar::head_of(backend, &key).is_ok_and(|head| head.is_none())
        {
            cover.object_of(backend, &key, hash.as_bytes());
        }
        cover.object_of(backend, &ObjectKey::log(commit.seq), hash.as_bytes());
    }

    /// Makes parity of the config and of a keyslot: who stores them does not know yet what is wanted.
    pub(super) fn cover_keys(&self, keyslot: &KeyslotId) {
        let (backend, Some(cover)) = (&*self.backend, self.cover()) else { return };
        cover.object_of(backend, &ObjectKey::config(), self.fold().config().as_bytes());
        let key = ObjectKey::keyslot(keyslot);
        cover.object(backend, &key);
        if let Err(error) = self.uncover_removed(keyslot, true) {
            self.troubles.note(format!("whether {key} is to have parity is not known: {error}"));
        }
    }

    /// Deletes the parity of a keyslot that was removed meanwhile: it would open what that opened. Whoever removes
    /// one deletes its parity once the log says so: that is still to come, or the log says so now.
    ///
    /// # Errors
    /// [`RepositoryError`] where the log cannot be read on. Parity that was just made (`is_new`), of a keyslot that is whole, is deleted then,
    /// too; any other may be all that is left of one. Or where the storage fails.
    pub fn uncover_removed(&self, keyslot: &KeyslotId, is_new: bool) -> Result<(), RepositoryError> {
        let read = self.refresh();
        let is_unwanted = match &read {
            Ok(_) => self.fold().keyslot(keyslot).is_none(),
            Err(_) => is_new,
        };
        if is_unwanted {
            self.delete_parity_of(keyslot)?;
        }
        read
    }

    /// Deletes an object that the log calls dead, or that it never named, with its sidecar.
    ///
    /// # Errors
    /// [`BackendError`] where the storage fails.
    pub fn delete_object(&self, key: &ObjectKey) -> Result<(), BackendError> {
        match self.fold().parity() {
            Some(_) => sidecar::delete_both(&*self.backend, key),
            None => self.backend.delete(key),
        }
    }

    /// Writes a fold of the log now and then. Only a help for opening: a failure is no failure.
    fn write_state(&self) {
        let (fold, before) = (self.fold(), self.view.newest_state());
        // An appender has no key for states: it could forge what others begin with. So the next full writer makes up for it.
        if self.is_append_only() || fold.seq().saturating_sub(before) < COMMITS_PER_STATE {
            return;
        }
        // Nor is there one of what others have put behind it, if nobody can tell what that is: who begins with it would not know.
        if fold.doubtful().next().is_some() {
            return;
        }
        // A fold too large for one object is read from the log.
        let Ok(object) = record::seal_object(ObjectKind::State, &fold.to_state(), &self.sealer()) else {
            return;
        };
        let key = ObjectKey::state(fold.seq());
        let Ok(created) = self.backend.create(&key, &object) else { return };
        self.view.set_newest_state(fold.seq());
        if created == Created::New {
            if let Some(cover) = self.cover() {
                cover.object_of(&*self.backend, &key, blake3::hash(&object).as_bytes());
            }
            self.delete_states_below(before);
        }
    }

    /// Deletes states that nobody needs: the one before the newest is kept, should that one turn out unreadable.
    fn delete_states_below(&self, kept: u64) {
        // They harm nobody.
        let _ = self.delete_states_where(&|key| key.sequence().is_some_and(|seq| seq < kept));
    }

    /// Deletes all states, and returns how many bytes they took. Whoever opens the repository reads the whole log until the next one is
    /// written: that is slower, and nothing else.
    ///
    /// # Errors
    /// [`RepositoryError`] where one cannot be deleted, or where the log lacks an entry: then a state is all that knows what it said.
    pub fn delete_states(&self) -> Result<u64, RepositoryError> {
        let opened = self.fold();
        let mut fold = Fold::empty(opened.config());
        log::read_to(&*self.backend, &self.keys, &self.id, &mut fold, opened.seq(), &mut |_| {})?;
        Ok(self.delete_states_where(&|_| true)?)
    }

    fn delete_states_where(&self, is_meant: &dyn Fn(&ObjectKey) -> bool) -> Result<u64, BackendError> {
        let mut states = Vec::new();
        self.backend.list(Folder::State, None, &mut |info| {
            states.extend(is_meant(&info.key).then_some(info));
            ControlFlow::Continue(())
        })?;
        let mut bytes = 0;
        for state in states {
            self.delete_object(&state.key)?;
            bytes += state.size;
        }
        Ok(bytes)
    }

    /// A store for new packs of `kind`.
    pub fn pack_store(&self, kind: ObjectKind, options: &StoreOptions) -> PackStore {
        PackStore::new(
            kind,
            *options,
            Arc::clone(&self.backend),
            Arc::clone(&self.keys),
            self.id(),
            Arc::clone(&self.environment.entropy),
            self.cover(),
        )
    }

    /// Stores the segment of packs just written; the caller commits it.
    ///
    /// # Errors
    /// [`RepositoryError`] where it cannot be stored.
    pub fn store_segment(&self, packs: &[(PackEntry, Directory)]) -> Result<NewSegment, RepositoryError> {
        self.store_new(|| Ok(index::build(packs, &*self.backend, &self.sealer())?))
    }

    /// Stores the merger of several segments; the caller commits it.
    ///
    /// # Errors
    /// [`RepositoryError`] where one of them is damaged or the new one cannot be stored.
    pub fn store_merged(&self, parts: &[Arc<Segment>]) -> Result<NewSegment, RepositoryError> {
        self.store_new(|| Ok(index::merge(parts, &*self.backend, &self.sealer())?))
    }

    /// Stores a segment that lists what `parts` list of the packs that `keep` chooses; the caller commits it. None
    /// where nothing is left.
    ///
    /// # Errors
    /// [`RepositoryError`] where a part is damaged or the segment cannot be stored.
    pub fn store_filtered(
        &self,
        parts: &[Arc<Segment>],
        keep: &dyn Fn(&PackId) -> bool,
    ) -> Result<Option<NewSegment>, RepositoryError> {
        let store = || index::merge_filtered(parts, keep, &*self.backend, &self.sealer());
        let Some(first) = store()? else { return Ok(None) };
        let mut first = Some(first);
        // What is left of the parts once is left of them again.
        let again = || Ok(store()?.expect("the parts do not change"));
        self.store_new(|| first.take().map_or_else(again, Ok)).map(Some)
    }

    /// Stores a segment and opens it. To a prune that comes in between it is a stray one: then it is gone, and is stored again
    /// under another id.
    fn store_new(
        &self,
        mut store: impl FnMut() -> Result<(SegmentId, Layout), RepositoryError>,
    ) -> Result<NewSegment, RepositoryError> {
        for _ in 1..STORE_TRIES {
            match self.open_new(store()?) {
                Err(RepositoryError::Index(IndexError::Backend { source, .. })) if source.is_not_found() => {}
                result => return result,
            }
        }
        self.open_new(store()?)
    }

    /// Opens a segment that was just stored.
    ///
    /// # Errors
    /// [`RepositoryError`] where it cannot be read.
    pub fn open_new(&self, (id, _): (SegmentId, Layout)) -> Result<NewSegment, RepositoryError> {
        let segment = index::open_segment(&*self.backend, id, &self.keys, &self.id)?;
        if let Some(cover) = self.cover() {
            cover.object(&*self.backend, &ObjectKey::segment(&id));
        }
        Ok(NewSegment { info: segment.info(), segment: Arc::new(segment) })
    }

    /// Lets lookups find a segment before it is committed: only for the process that stores it.
    pub fn use_segment(&self, new: &NewSegment) {
        if !self.index().segments().iter().any(|open| open.id() == new.info.segment) {
            self.index().replace(vec![Arc::clone(&new.segment)], &[]);
        }
    }

    /// Merges segments of similar size where there are several, so that lookups touch few. The module
    /// [`index::tiers`] says which, and what that costs.
    ///
    /// # Errors
    /// [`RepositoryError`] where a segment is damaged or the storage fails.
    pub fn merge_segments(&self) -> Result<(), RepositoryError> {
        // Appenders add segments and take none away.
        if self.is_append_only() {
            return Ok(());
        }
        while self.merge_some()? {}
        Ok(())
    }

    /// Makes one merge, if there is one to make.
    fn merge_some(&self) -> Result<bool, RepositoryError> {
        let fold = self.fold();
        // What an appender says must not come to look like what somebody knows.
        let is_known = |info: &&SegmentInfo| fold.appended_by(&info.segment).is_none();
        let mut infos: Vec<SegmentInfo> = fold.segments().filter(is_known).copied().collect();
        infos.sort_by_key(|info| (info.blobs, info.segment));
        let entries: Vec<u64> = infos.iter().map(|info| info.blobs).collect();
        let chosen = index::tiers::choose(&entries);
        let open = self.index().segments();
        let of_info = |info: &SegmentInfo| open.iter().find(|segment| segment.id() == info.segment).cloned();
        let infos = &infos[chosen];
        let Some(parts) = infos.iter().map(of_info).collect::<Option<Vec<_>>>() else { return Ok(false) };
        if parts.is_empty() {
            return Ok(false);
        }
        drop(fold);
        let merged = self.store_merged(&parts)?.info;
        let removed: Vec<_> = infos.iter().map(|info| info.segment).collect();
        let mut is_ours = false;
        let committed = self.commit(&mut |fold| {
            // Somebody else may have merged them meanwhile: then ours is an orphan.
            is_ours = removed.iter().all(|id| fold.has_segment(id))
                // Or taken for a stray one by a prune.
                && !self.is_segment_gone(&merged.segment);
            Ok(match is_ours {
                true => vec![Change::SegmentsReplaced { added: vec![merged], removed: removed.clone() }],
                false => Vec::new(),
            })
        });
        match committed {
            Ok(_) if is_ours => {
                // Not before the commit says that they are dead.
                for id in removed {
                    self.delete_object(&ObjectKey::segment(&id))?;
                }
                Ok(true)
            }
            Ok(_) => {
                self.delete_object(&ObjectKey::segment(&merged.segment))?;
                Ok(false)
            }
            // Whether the commit got through is not known: the new segment has to stay.
            Err(error) => Err(error),
        }
    }
}
