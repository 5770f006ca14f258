//! When others pruned while a backup ran: does everything that its commit rests on still have a home?
//!
//! A blob is at home in a pack that a live segment lists; condemned packs are in none. A condemned pack that is needed is
//! rescued by the same commit, with its entries back in a live segment. What lay in a removed pack is lost: its id never
//! comes back, so the backup has to begin anew and read it from the source again.
//!
//! Chunks are gathered, sorted and joined with the index in one pass: one lookup for each would take hours where there are a hundred
//! million, and others would publish commits meanwhile. What was found stands as long as nobody takes anything again ([`Settled`]).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::format::chunk_list::Chunk;
use crate::format::commit::{Change, SegmentInfo};
use crate::format::pack::Directory;
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId};
use crate::index::{Gathered, Index, Location, Met, Segment};
use crate::log::Fold;
use crate::reach::{self, Needs, ReachError};
use crate::repo::{NewSegment, Repository, RepositoryError};
use crate::store::ReadError;

/// What a commit adds so that all it rests on has a home.
#[derive(Debug, Clone, Default)]
pub(super) struct Homes {
    /// Segments: that of the packs just stored, and that of rescued ones.
    added: Vec<SegmentInfo>,
    rescued: BTreeSet<PackId>,
}

impl Homes {
    /// Where nobody pruned: the new segment is all it takes.
    pub fn of(segment: Option<&NewSegment>) -> Self {
        Self { added: segment.iter().map(|segment| segment.info).collect(), rescued: BTreeSet::new() }
    }

    /// The changes.
    pub fn changes(self) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.rescued.is_empty() {
            changes.push(Change::PacksRescued { packs: self.rescued.into_iter().collect() });
        }
        if !self.added.is_empty() {
            changes.push(Change::SegmentsReplaced { added: self.added, removed: Vec::new() });
        }
        changes
    }
}

/// The homes found, and up to which commit everything was looked at that was taken: whoever loses the race for a commit need not search
/// again, or others could keep it from ever coming to an end.
#[derive(Debug, Default)]
pub(super) struct Settled(Option<(u64, Homes)>);

impl Settled {
    /// The homes that `claim` has for all below `roots`.
    ///
    /// # Errors
    /// As [`Claim::validate`].
    pub fn homes(
        &mut self,
        claim: &Claim<'_>,
        fold: &Fold,
        roots: &[BlobId],
        records: &[BlobId],
    ) -> Result<Homes, RepositoryError> {
        let loss = claim.repository.last_loss();
        // If the log was read on meanwhile, that may be of a later time than `fold` is.
        let is_of_fold = claim.repository.fold().seq() == fold.seq();
        // What somebody else has rescued meanwhile is not to be rescued again.
        let holds = |(seq, homes): &&(u64, Homes)| {
            is_of_fold
                && *seq == loss
                && homes.rescued.iter().all(|pack| fold.condemned_since(pack).is_some())
        };
        if let Some((_, homes)) = self.0.as_ref().filter(holds) {
            return Ok(homes.clone());
        }
        let homes = claim.validate(fold, roots, records)?;
        self.0 = is_of_fold.then(|| (loss, homes.clone()));
        Ok(homes)
    }
}

/// What a backup has to show.
pub(super) struct Claim<'a> {
    pub repository: &'a Repository,
    /// Packs stored and not committed.
    pub packs: &'a [(PackEntry, Directory)],
    /// Their segment, as stored before anybody pruned.
    pub segment: Option<&'a NewSegment>,
    /// All segments that the backup may have deduplicated against.
    pub known: &'a [Arc<Segment>],
    pub threads: usize,
    /// Where ids of chunks wait that memory has no room for.
    pub spill: Option<&'a Path>,
}

impl Claim<'_> {
    /// Finds homes for the packs just stored and for all below `roots`, which is what the commit rests on.
    ///
    /// # Errors
    /// [`RepositoryError::Conflict`] where something was removed; otherwise a failure of the storage.
    pub fn validate(
        &self,
        fold: &Fold,
        roots: &[BlobId],
        records: &[BlobId],
    ) -> Result<Homes, RepositoryError> {
        let mut homes = Homes::default();
        let own = self.own_segment(fold, &mut homes)?;
        let live = Arc::new(self.repository.index().beside());
        let mut segments = self.repository.index().segments().to_vec();
        segments.retain(|segment| fold.has_segment(&segment.id()));
        segments.extend(own);
        live.replace(segments, &[]);
        let known = self.repository.index().beside();
        known.replace(self.known.to_vec(), &[]);
        let (own, rescued) = (homes.rescued.clone(), BTreeSet::new());
        let met = Met::new(Arc::clone(&live));
        let chunks = Gathered::new(self.spill.map(Path::to_owned));
        let mut search = Search { repository: self.repository, fold, live, known, own, rescued, met, chunks };
        for record in records {
            search.place(record).map_err(conflict)?;
        }
        reach::follow(self.repository.reader(), roots.iter().copied(), &mut search, self.threads)
            .map_err(conflict)?;
        search.place_chunks().map_err(conflict)?;
        let rescued = search.rescued;
        if !rescued.is_empty() {
            let segment = self.repository.store_filtered(self.known, &|pack| rescued.contains(pack))?;
            homes.added.extend(segment.map(|segment| segment.info));
            homes.rescued.extend(rescued);
        }
        Ok(homes)
    }

    /// Whether the packs just stored are as they were stored: no prune took them for strays.
    pub fn are_own_in_force(&self, fold: &Fold) -> bool {
        self.packs.iter().all(|(pack, _)| self.repository.is_pack_in_force(fold, &pack.id))
    }

    /// The segment of those packs just stored that no prune took for strays, without any rescue. One that was dropped is stored again.
    pub fn left(&self, fold: &Fold) -> Result<Homes, RepositoryError> {
        let is_dropped =
            self.segment.is_some_and(|segment| self.repository.is_segment_gone(&segment.info.segment));
        if !is_dropped && self.are_own_in_force(fold) {
            return Ok(Homes::of(self.segment));
        }
        let is_left = |id: &PackId| self.repository.is_pack_in_force(fold, id);
        let left: Vec<_> = self.packs.iter().filter(|(pack, _)| is_left(&pack.id)).cloned().collect();
        if left.is_empty() {
            return Ok(Homes::default());
        }
        Ok(Homes::of(Some(&self.repository.store_segment(&left)?)))
    }

    /// The segment of what is left of the packs just stored; strays that were condemned are rescued.
    fn own_segment(&self, fold: &Fold, homes: &mut Homes) -> Result<Option<Arc<Segment>>, RepositoryError> {
        let left: Vec<_> =
            self.packs.iter().filter(|(pack, _)| !self.repository.is_pack_gone(&pack.id)).cloned().collect();
        let condemned = left.iter().map(|(pack, _)| pack.id).filter(|id| fold.condemned_since(id).is_some());
        homes.rescued.extend(condemned);
        if left.is_empty() {
            return Ok(None);
        }
        let is_whole = |new: &&NewSegment| {
            left.len() == self.packs.len() && !self.repository.is_segment_gone(&new.info.segment)
        };
        let (info, segment) = match self.segment.filter(is_whole) {
            Some(segment) => (segment.info, segment.segment()),
            None => {
                let segment = self.repository.store_segment(&left)?;
                (segment.info, segment.segment())
            }
        };
        homes.added.push(info);
        Ok(Some(segment))
    }
}

/// What cannot be found or read is taken for lost: the backup begins anew, and fails there if it was damage.
fn conflict(error: ReachError) -> RepositoryError {
    match error {
        ReachError::Read(ReadError::Index(error)) => error.into(),
        ReachError::Spill(error) => error.into(),
        _ => RepositoryError::Conflict,
    }
}

struct Search<'a> {
    repository: &'a Repository,
    fold: &'a Fold,
    live: Arc<Index>,
    known: Index,
    /// Condemned packs of this run that are rescued whatever else is.
    own: BTreeSet<PackId>,
    rescued: BTreeSet<PackId>,
    met: Met,
    chunks: Gathered,
}

/// Whether a pack is a home: in force, or among those that are rescued. No live segment should list a condemned pack; were one to do so all
/// the same, it would be none.
fn is_home(repository: &Repository, fold: &Fold, rescued: [&BTreeSet<PackId>; 2], pack: &PackId) -> bool {
    repository.is_pack_in_force(fold, pack) || rescued.iter().any(|packs| packs.contains(pack))
}

impl Search<'_> {
    /// Finds homes for all chunks gathered.
    fn place_chunks(&mut self) -> Result<(), ReachError> {
        let chunks = std::mem::replace(&mut self.chunks, Gathered::new(None));
        let (repository, fold) = (self.repository, self.fold);
        let (own, rescued) = (self.own.clone(), self.rescued.clone());
        let is_home = |pack: &PackId| is_home(repository, fold, [&own, &rescued], pack);
        let segments = self.live.segments();
        chunks.sift(&segments, &is_home, &mut |id| self.place(id).map(drop))
    }

    /// A home of the blob, or a condemned pack that is then to be rescued.
    fn place(&mut self, id: &BlobId) -> Result<Location, ReachError> {
        let is_home =
            |at: &Location| is_home(self.repository, self.fold, [&self.own, &self.rescued], &at.pack.id);
        if let Some(home) = self.live.known_where(id, &is_home).map_err(ReadError::Index)? {
            return Ok(home);
        }
        let locations = self.known.get_all(id).map_err(ReadError::Index)?;
        let is_left = |at: &&Location| {
            !self.repository.is_pack_gone(&at.pack.id) && self.fold.condemned_since(&at.pack.id).is_some()
        };
        let left: Vec<&Location> = locations.iter().filter(is_left).collect();
        let chosen = left.iter().find(|at| self.rescued.contains(&at.pack.id)).or(left.first());
        let kind = crate::crypto::keys::BlobKind::Tree;
        let chosen = **chosen.ok_or(ReadError::Missing { id: *id, kind })?;
        self.rescued.insert(chosen.pack.id);
        Ok(chosen)
    }
}

impl Needs for Search<'_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        if self.met.is_new(id).map_err(ReadError::Index)? { self.place(id).map(Some) } else { Ok(None) }
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        Ok(self.chunks.add(&chunk.id)?)
    }
}
