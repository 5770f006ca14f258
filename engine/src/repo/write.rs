//! Changing a repository: commits, new segments, states.

use std::sync::Arc;

use crate::backend::{Created, ObjectKey};
use crate::format::commit::{Change, Commit, SegmentInfo};
use crate::format::header::ObjectKind;
use crate::format::pack::Directory;
use crate::format::record;
use crate::format::segment::{self, PackEntry};
use crate::index::{self, Segment};
use crate::log::{self, Fold, PublishError};
use crate::repo::{Repository, RepositoryError};

/// A state is written when this many commits have come since the last one.
const COMMITS_PER_STATE: u64 = 32;

/// Live segments beyond which the smaller ones are merged.
const SEGMENTS_MAX: usize = 8;

/// A segment object just stored and not yet committed.
#[derive(Debug)]
pub struct NewSegment {
    /// What the commit will say of it.
    pub info: SegmentInfo,
    segment: Arc<Segment>,
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
        loop {
            let fold = self.fold();
            let changes = decide(&fold)?;
            if changes.is_empty() {
                return Ok(fold.seq());
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
            log::check_end(&*self.backend, &fold)?;
            // What no reader would accept must not be published: it would be void.
            fold.clone().apply(&commit, self.writer.id(), fold.head())?;
            match log::publish(&*self.backend, &commit, &self.writer, &self.sealer()) {
                Ok(_) => {
                    self.refresh()?;
                    self.write_state();
                    return Ok(commit.seq);
                }
                Err(PublishError::Lost(_)) => self.refresh()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes a fold of the log now and then. Only a help for opening: a failure is no failure.
    fn write_state(&self) {
        let fold = self.fold();
        if fold.seq() == 0 || !fold.seq().is_multiple_of(COMMITS_PER_STATE) {
            return;
        }
        // A fold too large for one object is read from the log.
        let Ok(object) = record::seal_object(ObjectKind::State, &fold.to_state(), &self.sealer()) else {
            return;
        };
        if let Ok(Created::New) = self.backend.create(&ObjectKey::state(fold.seq()), &object)
            && let Some(old) = fold.seq().checked_sub(2 * COMMITS_PER_STATE).filter(|seq| *seq > 0)
        {
            // The one before is kept, should the new one turn out unreadable.
            let _ = self.backend.delete(&ObjectKey::state(old));
        }
    }

    /// Stores the segment of packs just written; the caller commits it.
    ///
    /// # Errors
    /// [`RepositoryError`] where it cannot be stored.
    pub fn store_segment(&self, packs: &[(PackEntry, Directory)]) -> Result<NewSegment, RepositoryError> {
        self.store_segment_object(index::build(packs, &self.sealer()))
    }

    fn store_segment_object(&self, object: Vec<u8>) -> Result<NewSegment, RepositoryError> {
        let id = segment::id(&object);
        // A failed creation that took effect leaves an orphan segment: no commit names it, nothing reads it.
        self.backend.create(&ObjectKey::segment(&id), &object)?;
        let bytes = object.len() as u64;
        drop(object);
        let segment = index::open_segment(&*self.backend, id, &self.keys, &self.id)?;
        let layout = segment.layout();
        let info = SegmentInfo { segment: id, blobs: layout.entries, packs: layout.packs, bytes };
        Ok(NewSegment { info, segment: Arc::new(segment) })
    }

    /// Lets lookups find a segment before it is committed: only for the process that stores it.
    pub fn use_segment(&self, new: &NewSegment) {
        if !self.index.segments().iter().any(|open| open.id() == new.info.segment) {
            self.index.replace(vec![Arc::clone(&new.segment)], &[]);
        }
    }

    /// Merges small segments where there are many, so that lookups touch few. Segments of at most four times
    /// the smaller half's blobs go into one: each blob is rewritten a number of times logarithmic in the index.
    ///
    /// # Errors
    /// [`RepositoryError`] where a segment is damaged or the storage fails.
    pub fn merge_segments(&self) -> Result<(), RepositoryError> {
        let fold = self.fold();
        let mut infos: Vec<SegmentInfo> = fold.segments().copied().collect();
        if infos.len() <= SEGMENTS_MAX {
            return Ok(());
        }
        infos.sort_by_key(|info| (info.blobs, info.segment));
        let (mut chosen, mut blobs) = (0, 0);
        while chosen < infos.len() && (chosen < SEGMENTS_MAX / 2 || infos[chosen].blobs <= blobs) {
            blobs += infos[chosen].blobs;
            chosen += 1;
        }
        infos.truncate(chosen);
        let open = self.index.segments();
        let parts: Vec<_> = open
            .iter()
            .filter(|segment| infos.iter().any(|info| info.segment == segment.id()))
            .cloned()
            .collect();
        if parts.len() != infos.len() {
            return Ok(());
        }
        let merged = self.store_segment_object(index::merge(&parts, &self.sealer())?)?;
        let removed: Vec<_> = infos.iter().map(|info| info.segment).collect();
        let mut done = false;
        self.commit(&mut |fold| {
            // Somebody else may have merged them meanwhile: then ours is an orphan.
            let all_live = removed.iter().all(|id| fold.segments().any(|info| info.segment == *id));
            done = all_live;
            Ok(if all_live {
                vec![Change::SegmentsReplaced { added: vec![merged.info], removed: removed.clone() }]
            } else {
                Vec::new()
            })
        })?;
        let gone = if done { removed } else { vec![merged.info.segment] };
        for id in gone {
            self.backend.delete(&ObjectKey::segment(&id))?;
        }
        Ok(())
    }
}
