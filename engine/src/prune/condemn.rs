//! The commit that condemns: the index without the packs that go, and these packs' names.
//!
//! If others commit first, their entries are looked at. Of new snapshots it is made sure that all they need has a home
//! outside of what goes; a pack that has something they need is spared. Where another prune condemned or removed packs, the
//! marks say nothing any more, and everything is planned anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::backend::ObjectKey;
use crate::budget;
use crate::footprint;
use crate::format::chunk_list::Chunk;
use crate::format::commit::{Change, SegmentInfo};
use crate::ids::{BlobId, PackId, SegmentId, SnapshotId};
use crate::index::{Index, Location, Met, Segment};
use crate::log::{Fold, snapshot_record};
use crate::prune::copy::Copies;
use crate::prune::plan::Plan;
use crate::prune::survey::{Survey, refuse_broken};
use crate::prune::{PruneError, PruneOptions, PruneReport};
use crate::reach::{self, Needs, ReachError};
use crate::repo::{NewSegment, Repository, RepositoryError};
use crate::store::ReadError;

/// A pack that goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doomed {
    /// Length of its object.
    pub bytes: u64,
    /// Segments listed it: it is not the stray pack of a writer at work.
    pub was_listed: bool,
}

/// What was condemned.
#[derive(Debug, Default)]
pub(super) struct Condemned {
    /// The packs.
    pub packs: BTreeMap<PackId, Doomed>,
}

impl Condemned {
    /// Whether the pack was condemned by this run and had been part of the index.
    pub fn was_listed(&self, pack: &PackId) -> bool {
        self.packs.get(pack).is_none_or(|doomed| doomed.was_listed)
    }
}

/// How it went.
pub(super) enum Outcome {
    /// Done, if there was anything to do.
    Done(Condemned),
    /// Another prune came first: plan anew.
    AnotherPrune,
}

/// Condemns what the plan says and what was copied.
pub(super) fn run(
    repository: &Repository,
    survey: &Survey,
    plan: &Plan,
    copies: &Copies,
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<Outcome, PruneError> {
    let mut work = Work::new(repository, survey, plan, copies, options);
    let mut overtaken = false;
    repository.commit_or(&mut |fold| {
        overtaken = repository.last_prune() > survey.base;
        if overtaken { Ok(Vec::new()) } else { work.changes(fold) }
    })?;
    if overtaken {
        return Ok(Outcome::AnotherPrune);
    }
    report.bytes_written += work.written();
    work.delete_segments(report)?;
    Ok(Outcome::Done(Condemned { packs: work.doomed }))
}

struct Work<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    copies: &'a Copies,
    stray_segments: &'a [(SegmentId, u64)],
    /// Snapshots whose needs are known to have a home.
    seen: BTreeSet<SnapshotId>,
    doomed: BTreeMap<PackId, Doomed>,
    /// Segments to be replaced, and the one that takes their place, if anything is left of them.
    replaced: BTreeSet<SegmentId>,
    replacement: Option<NewSegment>,
    /// Packs that were doomed when it was made.
    replacement_without: BTreeSet<PackId>,
    /// Replacements that others' commits made useless.
    useless: Vec<SegmentId>,
    dropped: Vec<SegmentId>,
}

impl<'a> Work<'a> {
    fn new(
        repository: &'a Repository,
        survey: &Survey,
        plan: &'a Plan,
        copies: &'a Copies,
        options: &'a PruneOptions,
    ) -> Self {
        let listed = |(pack, bytes): &(PackId, u64)| (*pack, Doomed { bytes: *bytes, was_listed: true });
        let stray = |(pack, bytes): &(PackId, u64)| (*pack, Doomed { bytes: *bytes, was_listed: false });
        let mut doomed: BTreeMap<_, _> = plan.dead.iter().map(listed).collect();
        doomed.extend(plan.repack.iter().filter(|(pack, _)| copies.done.contains(pack)).map(listed));
        doomed.extend(plan.stray.iter().map(stray));
        Self {
            repository,
            options,
            copies,
            stray_segments: &plan.stray_segments,
            seen: survey.snapshots.clone(),
            doomed,
            replaced: BTreeSet::new(),
            replacement: None,
            replacement_without: BTreeSet::new(),
            useless: Vec::new(),
            dropped: Vec::new(),
        }
    }

    fn changes(&mut self, fold: &Fold) -> Result<Vec<Change>, PruneError> {
        self.repository.require_all_commits(fold, "No pack was condemned")?;
        self.spare_what_others_listed()?;
        self.spare_what_new_snapshots_need(fold)?;
        self.replace_segments()?;
        self.dropped =
            self.stray_segments.iter().map(|(id, _)| *id).filter(|id| !fold.has_segment(id)).collect();
        let condemned: Vec<PackId> =
            self.doomed.keys().filter(|pack| fold.condemned_since(pack).is_none()).copied().collect();
        let mut changes = Vec::new();
        let mut added: Vec<SegmentInfo> = self.copies.segments.iter().map(|new| new.info).collect();
        added.extend(self.replacement.iter().map(|new| new.info));
        if !added.is_empty() || !self.replaced.is_empty() {
            let removed = self.replaced.iter().copied().collect();
            changes.push(Change::SegmentsReplaced { added, removed });
        }
        if !condemned.is_empty() {
            changes.push(Change::PacksCondemned { packs: condemned });
        }
        if !self.dropped.is_empty() {
            changes.push(Change::SegmentsDropped { segments: self.dropped.clone() });
        }
        Ok(changes)
    }

    /// A stray pack that a writer has committed meanwhile is none.
    fn spare_what_others_listed(&mut self) -> Result<(), PruneError> {
        refuse_broken(self.repository)?;
        for segment in self.repository.index().everything() {
            for pack in segment.packs() {
                let pack = pack?;
                if self.doomed.get(&pack.id).is_some_and(|doomed| !doomed.was_listed) {
                    self.doomed.remove(&pack.id);
                }
            }
        }
        Ok(())
    }

    fn spare_what_new_snapshots_need(&mut self, fold: &Fold) -> Result<(), PruneError> {
        let mut roots = Vec::new();
        let mut records = Vec::new();
        for entry in fold.snapshots().filter(|entry| !self.seen.contains(&entry.snapshot)) {
            let record = snapshot_record(self.repository.keys(), entry.snapshot, &entry.record);
            roots.push(record.map_err(RepositoryError::from)?.tree);
            records.push(entry.snapshot);
        }
        if records.is_empty() {
            return Ok(());
        }
        let copies = self.repository.index().beside();
        copies.replace(self.copies.segments.iter().map(NewSegment::segment).collect(), &[]);
        let live = Arc::clone(self.repository.index());
        let met = Met::of(self.repository.index(), self.repository.index().everything());
        let (repository, doomed) = (self.repository, &mut self.doomed);
        let mut sparing = Sparing { repository, fold, live: &live, copies, doomed, met };
        for snapshot in &records {
            match sparing.place(snapshot.blob()) {
                // Records that came alone are in the log only.
                Ok(_) | Err(ReachError::Read(ReadError::Missing { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let threads = budget::followers(self.options.threads, self.options.memory);
        reach::follow(self.repository.reader(), roots, &mut sparing, threads)?;
        self.seen.extend(records);
        Ok(())
    }

    /// Makes the segment that takes the place of all live ones that list doomed packs.
    fn replace_segments(&mut self) -> Result<(), PruneError> {
        let doomed: BTreeSet<PackId> = self.doomed.keys().copied().collect();
        let affected = listing(self.repository, &doomed)?;
        let ids: BTreeSet<SegmentId> = affected.iter().map(|segment| segment.id()).collect();
        if ids == self.replaced && doomed == self.replacement_without {
            return Ok(());
        }
        self.useless.extend(self.replacement.take().map(|new| new.info.segment));
        if !ids.is_empty() {
            self.replacement = self.repository.store_filtered(&affected, &|pack| !doomed.contains(pack))?;
        }
        self.replaced = ids;
        self.replacement_without = doomed;
        Ok(())
    }

    /// Bytes of the packs and segments that the commit added.
    fn written(&self) -> u64 {
        let packs = self.copies.written.iter().map(ObjectKey::pack);
        let segments = self.copies.segments.iter().chain(&self.replacement);
        let keys = packs.chain(segments.map(|new| ObjectKey::segment(&new.info.segment)));
        keys.map(|key| footprint::of(self.repository, &key)).sum()
    }

    /// Deletes segments that are not part of the index any more, or never were.
    fn delete_segments(&self, report: &mut PruneReport) -> Result<(), PruneError> {
        for id in self.replaced.iter().chain(&self.dropped) {
            report.bytes_deleted += footprint::delete(self.repository, &ObjectKey::segment(id))?;
        }
        // They came with this run.
        for id in &self.useless {
            self.repository.delete_object(&ObjectKey::segment(id))?;
        }
        Ok(())
    }
}

/// The segments of the index that list any of these packs; those of appenders are left alone.
pub(super) fn listing(
    repository: &Repository,
    packs: &BTreeSet<PackId>,
) -> Result<Vec<Arc<Segment>>, PruneError> {
    let mut listing = Vec::new();
    for segment in repository.index().segments().iter() {
        for pack in segment.packs() {
            if packs.contains(&pack?.id) {
                listing.push(Arc::clone(segment));
                break;
            }
        }
    }
    Ok(listing)
}

/// Finds homes for what new snapshots need, and spares packs that are the only ones.
struct Sparing<'a> {
    repository: &'a Repository,
    fold: &'a Fold,
    live: &'a Index,
    copies: Index,
    doomed: &'a mut BTreeMap<PackId, Doomed>,
    met: Met,
}

impl Sparing<'_> {
    /// A place of the blob that stays.
    fn place(&mut self, id: &BlobId) -> Result<Location, ReachError> {
        let mut locations = self.live.get_all(id).map_err(ReadError::Index)?;
        locations.retain(|at| self.repository.is_pack_in_force(self.fold, &at.pack.id));
        if let Some(stays) = locations.iter().find(|at| !self.doomed.contains_key(&at.pack.id)) {
            return Ok(*stays);
        }
        if let Some(copy) = self.copies.get(id).map_err(ReadError::Index)? {
            return Ok(copy);
        }
        let kind = crate::crypto::keys::BlobKind::Tree;
        let spared = locations.first().ok_or(ReadError::Missing { id: *id, kind })?;
        self.doomed.remove(&spared.pack.id);
        Ok(*spared)
    }
}

impl Needs for Sparing<'_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        if self.met.is_new(id).map_err(ReadError::Index)? { self.place(id).map(Some) } else { Ok(None) }
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.place(&chunk.id).map(|_| ())
    }
}
