//! What an appender's run relies on: it cannot read trees to find out later.
//!
//! One bit is kept for each entry of each segment in which something was found. Where a pack is gone, the entries that were relied on in it
//! are looked up again: what a prune has written anew has another place, and only what has none has to be stored again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::backend::ObjectKey;
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId, SegmentId};
use crate::index::{IndexError, Location, Segment};
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
    bits: Vec<u64>,
}

impl Taken {
    fn none_of(segment: &Arc<Segment>) -> Self {
        let words = usize::try_from(segment.layout().entries.div_ceil(64)).expect("a bit for each fits memory");
        Self { segment: Arc::clone(segment), bits: vec![0; words] }
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
        taken.bits[position / 64] |= 1 << (position % 64);
    }

    /// Relies on all of a segment that the run has committed itself.
    pub fn take_all(&mut self, segment: &Arc<Segment>, packs: impl Iterator<Item = PackId>) {
        let taken = self.taken.entry(segment.id()).or_insert_with(|| Taken::none_of(segment));
        taken.bits.fill(u64::MAX);
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
        let Some(ids) = self.relied_on_in(&gone)? else { return Ok(false) };
        for id in ids {
            let is_part =
                |at: &Location| repository.is_pack_in_force(fold, &at.pack.id) && !gone.contains(&at.pack.id);
            let found = repository.index().known_entry(&id, &|at| is_part(at) && is_stored(repository, &at.pack))?;
            let Some((segment, position, at)) = found else { return Ok(false) };
            self.packs.insert(at.pack.id);
            self.take(&segment, position);
        }
        self.packs.retain(|pack| !gone.contains(pack));
        Ok(true)
    }

    /// What was relied on in some packs; none where that cannot be told any more.
    fn relied_on_in(&self, packs: &HashSet<PackId>) -> Result<Option<HashSet<BlobId>>, RepositoryError> {
        let (mut ids, mut found) = (HashSet::new(), HashSet::new());
        for Taken { segment, bits } in self.taken.values() {
            let table: Result<Vec<PackId>, IndexError> =
                segment.packs().map(|pack| Ok(pack?.id)).collect();
            let table = table?;
            if !table.iter().any(|pack| packs.contains(pack)) {
                continue;
            }
            found.extend(table.iter().filter(|pack| packs.contains(*pack)).copied());
            for (position, entry) in segment.entries().enumerate() {
                let entry = entry?;
                let is_in_one = table.get(entry.pack as usize).is_some_and(|pack| packs.contains(pack));
                if is_in_one && bits[position / 64] >> (position % 64) & 1 == 1 {
                    ids.insert(entry.id);
                }
            }
        }
        Ok((found.len() == packs.len()).then_some(ids))
    }
}

/// Whether a pack is there with the length that the index has. One that cannot be looked up is not relied on.
pub(super) fn is_stored(repository: &Repository, pack: &PackEntry) -> bool {
    let found = repository.backend().stat(&ObjectKey::pack(&pack.id));
    found.is_ok_and(|info| info.size == pack.size)
}
