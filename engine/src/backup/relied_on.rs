//! What an appender's run relies on: it cannot read trees to find out later.
//!
//! One bit is kept for each entry of each segment in which something was found. Where a pack is gone, the entries that were relied on in it
//! are looked up again: what a prune has written anew has another place, and only what has none has to be stored again.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::backend::ObjectKey;
use crate::format::segment::PackEntry;
use crate::ids::{PackId, SegmentId};
use crate::index::{Bits, IndexError, Location, Segment};
use crate::log::Fold;
use crate::repo::{Repository, RepositoryError};

/// What an appender's run rests on, besides what it has not committed yet.
#[derive(Debug, Default)]
pub(super) struct ReliedOn {
    packs: HashSet<PackId>,
    /// Packs that are not as they are listed: its own key may have listed what never was.
    absent: HashSet<PackId>,
    taken: HashMap<SegmentId, Taken>,
}

/// The entries of a segment that were relied on.
#[derive(Debug)]
struct Taken {
    segment: Arc<Segment>,
    bits: Bits,
}

impl Taken {
    fn none_of(segment: &Arc<Segment>) -> Self {
        Self { segment: Arc::clone(segment), bits: Bits::new(std::slice::from_ref(segment)) }
    }
}

impl ReliedOn {
    /// Whether a run can rely on a pack: it is stored, with the length that it should have. Looked for once.
    pub fn is_there(&mut self, repository: &Repository, pack: &PackEntry) -> bool {
        if self.packs.contains(&pack.id) || self.absent.contains(&pack.id) {
            return self.packs.contains(&pack.id);
        }
        let is_there = is_stored(repository, pack);
        let kept = if is_there { &mut self.packs } else { &mut self.absent };
        kept.insert(pack.id);
        is_there
    }

    /// Relies on an entry of a segment.
    pub fn take(&mut self, segment: &Arc<Segment>, position: u64) {
        let taken = self.taken.entry(segment.id()).or_insert_with(|| Taken::none_of(segment));
        let position = usize::try_from(position).expect("there are bits for all of them");
        taken.bits.set((0, position));
    }

    /// Relies on all of a segment that the run has committed itself.
    pub fn take_all(&mut self, segment: &Arc<Segment>, packs: impl Iterator<Item = PackId>) {
        let taken = self.taken.entry(segment.id()).or_insert_with(|| Taken::none_of(segment));
        taken.bits.set_all();
        self.packs.extend(packs);
    }

    /// Whether all that was relied on has a place still. What has another one by now is relied on there.
    ///
    /// # Errors
    /// [`RepositoryError`] where the index cannot be read.
    pub fn is_left(&mut self, repository: &Repository, fold: &Fold) -> Result<bool, RepositoryError> {
        let mut gone = self.packs.clone();
        let segments = repository.index().segments();
        for segment in segments.iter().filter(|segment| fold.has_segment(&segment.id())) {
            for pack in segment.packs() {
                let pack = pack?.id;
                if gone.contains(&pack) && repository.is_pack_in_force(fold, &pack) {
                    gone.remove(&pack);
                }
            }
        }
        if gone.is_empty() {
            return Ok(true);
        }
        let mut known = HashSet::new();
        for id in self.taken.keys().copied().collect::<Vec<_>>() {
            let Some(taken) = self.taken.remove(&id) else { continue };
            let is_left = self.move_on(repository, fold, &taken, &gone, &mut known)?;
            self.put_back(taken);
            if !is_left {
                return Ok(false);
            }
        }
        // What was relied on in others cannot be told any more.
        if known.len() < gone.len() {
            return Ok(false);
        }
        self.packs.retain(|pack| !gone.contains(pack));
        Ok(true)
    }

    /// Relies, instead of on entries of a segment that are in packs that are gone, on other places of the same blobs; false where there
    /// are none. Which of the packs the segment knows is added to `known`.
    fn move_on(
        &mut self,
        repository: &Repository,
        fold: &Fold,
        taken: &Taken,
        gone: &HashSet<PackId>,
        known: &mut HashSet<PackId>,
    ) -> Result<bool, RepositoryError> {
        let table: Result<Vec<PackId>, IndexError> = taken.segment.packs().map(|pack| Ok(pack?.id)).collect();
        let table = table?;
        known.extend(table.iter().filter(|pack| gone.contains(*pack)).copied());
        if !table.iter().any(|pack| gone.contains(pack)) {
            return Ok(true);
        }
        // Looked for once.
        let stored: RefCell<HashMap<PackId, bool>> = RefCell::default();
        let is_good = |at: &Location| {
            let pack = &at.pack;
            repository.is_pack_in_force(fold, &pack.id)
                && !gone.contains(&pack.id)
                && *stored.borrow_mut().entry(pack.id).or_insert_with(|| is_stored(repository, pack))
        };
        for (position, entry) in taken.segment.entries().enumerate() {
            let entry = entry?;
            let is_gone = table.get(entry.pack as usize).is_some_and(|pack| gone.contains(pack));
            if !is_gone || !taken.bits.has((0, position)) {
                continue;
            }
            let found = repository.index().known_entry(&entry.id, &is_good)?;
            let Some((segment, position, at)) = found else { return Ok(false) };
            self.packs.insert(at.pack.id);
            self.take(&segment, position);
        }
        Ok(true)
    }

    fn put_back(&mut self, mut taken: Taken) {
        if let Some(since) = self.taken.remove(&taken.segment.id()) {
            taken.bits.set_those_of(&since.bits);
        }
        self.taken.insert(taken.segment.id(), taken);
    }
}

/// Whether a pack is there with the length that the index has. One that cannot be looked up is not relied on.
pub(super) fn is_stored(repository: &Repository, pack: &PackEntry) -> bool {
    let found = repository.backend().stat(&ObjectKey::pack(&pack.id));
    found.is_ok_and(|info| info.size == pack.size)
}
