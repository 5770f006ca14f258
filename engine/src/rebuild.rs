//! Rebuilding the index: new segments from the directories of all packs, in place of those that the log lists.
//!
//! Memory does not grow with what is stored: directories are gathered up to so many blobs, stored as a sorted
//! segment, and segments of similar size are merged on the way. It does grow with what was: the ids of all packs that were ever
//! removed are held, for which a set takes 40 to 80 bytes each. Nothing counts before one commit at the end puts the new
//! segments in place of the old ones, whose objects are deleted after it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use crate::backend::{self, BackendError, Folder, ObjectInfo, ObjectKey};
use crate::format::commit::Change;
use crate::format::note::REBUILD_NOTE;
use crate::format::pack::Directory;
use crate::format::segment::{IndexEntry, PackEntry};
use crate::ids::{PackId, SegmentId};
use crate::index::{self, IndexError, MergeError, Segment, SegmentWriter, tiers};
use crate::log::{Fold, PublishError};
use crate::monitor::{Monitor, Problem, Progress};
use crate::repo::{NewSegment, Repository, RepositoryError};
use crate::store::{ReadError, read_directory};
use crate::vet::{self, Strictness, VerifyScratch, VetError};

/// How a rebuild goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildOptions {
    /// Blobs gathered before they become a segment: about 100 bytes of memory for each.
    pub blobs_per_segment: usize,
    /// Read everything, write nothing.
    pub dry_run: bool,
}

impl Default for RebuildOptions {
    fn default() -> Self {
        Self { blobs_per_segment: 256 << 10, dry_run: false }
    }
}

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebuildReport {
    /// Packs whose directories were read.
    pub packs: u64,
    /// Entries of the new index.
    pub blobs: u64,
    /// Packs whose directories cannot be read. What a segment that was still readable said of them was kept.
    pub damaged: Vec<PackId>,
    /// Entries kept of those.
    pub blobs_kept: u64,
    /// Condemned packs, which belong to no index.
    pub condemned: u64,
    /// Packs that are there although a commit has removed them: they are about to be deleted, and belong to no index either.
    pub removed: u64,
    /// New segments.
    pub segments: u64,
}

/// The index could not be rebuilt; the old one is in force.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A pack cannot be read, although the storage says that it is there.
    #[error("pack {pack}: {source}")]
    Pack {
        /// The pack.
        pack: PackId,
        /// Why.
        source: BackendError,
    },
    /// What appenders added could not be vetted.
    #[error(transparent)]
    Vet(#[from] VetError),
    /// The monitor asked to stop.
    #[error("cancelled before the index was rebuilt; nothing was changed")]
    Cancelled,
}

impl From<MergeError> for RebuildError {
    fn from(error: MergeError) -> Self {
        Self::Repository(error.into())
    }
}

impl From<BackendError> for RebuildError {
    fn from(error: BackendError) -> Self {
        Self::Repository(error.into())
    }
}

/// Rebuilds the index of a repository, which may have been opened by [`Repository::open_for_repair`].
///
/// # Errors
/// [`RebuildError`]. A pack that is damaged is no error but part of the report.
pub fn run(
    repository: &Repository,
    options: &RebuildOptions,
    monitor: &dyn Monitor,
) -> Result<RebuildReport, RebuildError> {
    if !options.dry_run {
        vet::run(repository, Strictness::WholeSegments, monitor)?;
    }
    let base = repository.fold();
    let removed = repository.removed_packs(&base)?;
    let mut rebuild = Rebuild {
        repository,
        options,
        monitor,
        base: &base,
        removed,
        listed: listed(repository),
        gathered: Vec::new(),
        blobs: 0,
        segments: Vec::new(),
        report: RebuildReport::default(),
        buffer: Vec::new(),
        scratch: VerifyScratch::default(),
    };
    match rebuild.all() {
        Ok(()) => Ok(rebuild.report),
        Err(error) => {
            if !may_come_late(&error) {
                rebuild.give_up();
            }
            Err(error)
        }
    }
}

/// Whether a commit of which the log says nothing may come to be there all the same: what it names has to stay then.
fn may_come_late(error: &RebuildError) -> bool {
    matches!(error, RebuildError::Repository(RepositoryError::Publish(PublishError::Backend { .. })))
        && !backend::is_out_of_room(error)
}

/// Packs that the index lists, as far as it can be read.
fn listed(repository: &Repository) -> HashSet<PackId> {
    let segments = repository.index().segments();
    segments.iter().flat_map(|segment| segment.packs().map_while(Result::ok).map(|pack| pack.id)).collect()
}

struct Rebuild<'r> {
    repository: &'r Repository,
    options: &'r RebuildOptions,
    monitor: &'r dyn Monitor,
    base: &'r Fold,
    removed: HashSet<PackId>,
    /// Packs that the index lists: they are durable.
    listed: HashSet<PackId>,
    gathered: Vec<(PackEntry, Directory)>,
    /// Blobs in `gathered`.
    blobs: usize,
    /// Stored and not committed.
    segments: Vec<NewSegment>,
    report: RebuildReport,
    buffer: Vec<u8>,
    scratch: VerifyScratch,
}

impl Rebuild<'_> {
    fn all(&mut self) -> Result<(), RebuildError> {
        let mut result = Ok(());
        let backend = Arc::clone(self.repository.backend());
        backend.list(Folder::Packs, None, &mut |info| {
            result = self.pack(&info);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        self.store()?;
        self.keep_damaged()?;
        self.commit()
    }

    /// Gathers the directory of one pack.
    fn pack(&mut self, info: &ObjectInfo) -> Result<(), RebuildError> {
        if self.monitor.is_cancelled() {
            return Err(RebuildError::Cancelled);
        }
        // A name that is no pack's is for the check to report.
        let Some(id) = info.key.pack_id() else { return Ok(()) };
        if self.base.condemned_since(&id).is_some() {
            self.report.condemned += 1;
            return Ok(());
        }
        let (repository, backend) = (self.repository, &**self.repository.backend());
        let pack = (id, info.size);
        // Whoever removed it may be deleting it just now.
        if self.removed.contains(&id) {
            self.report.removed += 1;
            return Ok(());
        }
        match read_directory(backend, repository.keys(), &repository.id(), pack, &mut self.buffer) {
            Ok((entry, directory)) => {
                // Its directory is the word of an append-only keyslot's holder: here it becomes part of the index.
                if entry.header.is_for_recipient()
                    && let Err(error) = vet::verify_pack(repository, (&entry, &directory), &mut self.scratch)
                {
                    return self.not_as_it_says(id, error);
                }
                self.report.packs += 1;
                // Its writer may have died before it did so.
                if !self.options.dry_run && !self.listed.contains(&id) {
                    match backend.flush(&info.key) {
                        Err(error) if !error.is_not_found() => return Err(error.into()),
                        _ => {}
                    }
                }
                if let Some(cover) = repository.cover().filter(|_| !self.options.dry_run) {
                    cover.complete(backend, &info.key);
                }
                self.blobs += directory.blob_count();
                self.gathered.push((entry, directory));
            }
            // Removed since it was listed.
            Err(ReadError::Backend { source, .. }) if source.is_not_found() => {}
            Err(ReadError::Backend { source, .. }) if !source.is_damage() => {
                return Err(RebuildError::Pack { pack: id, source });
            }
            Err(error) => self.damaged(id, "its directory cannot be read", &error),
        }
        let progress = Progress { items: self.report.packs, ..Progress::default() };
        self.monitor.progress(&progress);
        if self.blobs >= self.options.blobs_per_segment { self.store() } else { Ok(()) }
    }

    fn not_as_it_says(&mut self, pack: PackId, error: ReadError) -> Result<(), RebuildError> {
        match error {
            ReadError::Backend { source, .. } if source.is_not_found() => {}
            ReadError::Backend { source, .. } if !source.is_damage() => {
                return Err(RebuildError::Pack { pack, source });
            }
            error => self.damaged(pack, "it does not hold what its directory says", &error),
        }
        Ok(())
    }

    fn damaged(&mut self, pack: PackId, what: &str, error: &ReadError) {
        self.report.damaged.push(pack);
        self.monitor.problem(&Problem {
            code: "pack-damaged",
            path: Some(ObjectKey::pack(&pack).as_str().into()),
            message: format!("{what}: {error}"),
            is_error: true,
        });
    }

    /// Stores what was gathered as a segment, and merges segments of similar size.
    fn store(&mut self) -> Result<(), RebuildError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        if self.options.dry_run {
            self.report.blobs += self.blobs as u64;
            self.gathered.clear();
            self.blobs = 0;
            return Ok(());
        }
        self.segments.push(self.repository.store_segment(&self.gathered)?);
        self.gathered.clear();
        self.blobs = 0;
        loop {
            self.segments.sort_by_key(|segment| segment.info.blobs);
            let entries: Vec<u64> = self.segments.iter().map(|segment| segment.info.blobs).collect();
            let chosen = tiers::choose(&entries);
            if chosen.is_empty() {
                return Ok(());
            }
            let parts: Vec<_> = self.segments[chosen.clone()].iter().map(NewSegment::segment).collect();
            let merged = self.repository.store_merged(&parts)?;
            let merged_away: Vec<_> = self.segments.splice(chosen, [merged]).collect();
            // No commit names them: they are this process's own. One that stays behind is an orphan, no more.
            for segment in merged_away {
                let _ = self.repository.delete_object(&ObjectKey::segment(&segment.info.segment));
            }
        }
    }

    /// Keeps what segments say of packs that do not say it themselves any more: their blocks may be sound.
    fn keep_damaged(&mut self) -> Result<(), RebuildError> {
        let damaged: BTreeSet<PackId> = self.report.damaged.iter().copied().collect();
        if damaged.is_empty() {
            return Ok(());
        }
        for old in self.repository.index().segments().iter().filter(|_| !self.options.dry_run) {
            match self.kept_of(old, &damaged) {
                Ok(kept) => self.segments.extend(kept),
                // It could not be merged either: what it alone knew is lost, and the check says which files that hits.
                Err(RebuildError::Repository(RepositoryError::Merge(MergeError::Source(error))))
                    if error.is_loss() =>
                {
                    self.broken_segment(old.id(), &error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Segments of appenders that were not vetted because packs are damaged: nobody else knows what lies in these. They stay apart,
    /// for a repair of packs.
    fn kept_apart(&self) -> HashSet<SegmentId> {
        let is_damaged = |pack: PackId| self.report.damaged.contains(&pack);
        let lists_damaged =
            |segment: &Segment| segment.packs().map_while(Result::ok).any(|pack| is_damaged(pack.id));
        let appended = self.repository.index().appended();
        appended.iter().filter(|segment| lists_damaged(segment)).map(|segment| segment.id()).collect()
    }

    fn broken_segment(&self, segment: SegmentId, error: &IndexError) {
        self.monitor.problem(&Problem {
            code: "segment-damaged",
            path: Some(ObjectKey::segment(&segment).as_str().into()),
            message: error.to_string(),
            is_error: true,
        });
    }

    /// A segment of those entries of `old` that lie in `damaged` packs, if there are any.
    fn kept_of(
        &mut self,
        old: &Arc<Segment>,
        damaged: &BTreeSet<PackId>,
    ) -> Result<Option<NewSegment>, RebuildError> {
        let (mut numbers, mut packs) = (HashMap::new(), Vec::new());
        for (number, pack) in (0u32..).zip(old.packs()) {
            let pack = pack.map_err(MergeError::from)?;
            if damaged.contains(&pack.id) {
                numbers.insert(number, u32::try_from(packs.len()).expect("a part of a table"));
                packs.push(pack);
            }
        }
        if packs.is_empty() {
            return Ok(None);
        }
        let (repository, sealer) = (self.repository, self.repository.sealer());
        let mut writer = SegmentWriter::new(&**repository.backend(), &sealer)?;
        let (mut written, mut kept) = (Ok(()), 0);
        let merged = index::merge_entries(std::slice::from_ref(old), &mut |entry| {
            if let Some(number) = numbers.get(&entry.pack) {
                kept += 1;
                written = writer.push(&IndexEntry { pack: *number, ..*entry });
            }
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        merged.map_err(MergeError::from)?;
        written?;
        for pack in &packs {
            writer.push_pack(pack)?;
        }
        self.report.blobs_kept += kept;
        Ok(Some(repository.open_new(writer.finish()?)?))
    }

    /// Puts the new segments in place of those that were there at the beginning. Segments that came since stay.
    fn commit(&mut self) -> Result<(), RebuildError> {
        if self.options.dry_run {
            return Ok(());
        }
        let added: Vec<_> = self.segments.iter().map(|segment| segment.info).collect();
        let apart = self.kept_apart();
        let old = self.base.segments().map(|info| info.segment).filter(|id| !apart.contains(id));
        let old: Vec<SegmentId> = old.collect();
        let (base, last_prune) = (self.base, self.repository.last_prune());
        let mut removed = Vec::new();
        self.repository.commit(&mut |fold| {
            // Packs that are condemned now may be among those just listed.
            let is_pruned =
                self.repository.last_prune() != last_prune || !fold.condemned().eq(base.condemned());
            if is_pruned {
                return Err(RepositoryError::Conflict);
            }
            removed = old.iter().copied().filter(|segment| fold.has_segment(segment)).collect();
            if added.is_empty() && removed.is_empty() {
                return Ok(Vec::new());
            }
            Ok(vec![
                Change::SegmentsReplaced { added: added.clone(), removed: removed.clone() },
                Change::Note { kind: REBUILD_NOTE.into(), record: ByteBuf::new() },
            ])
        })?;
        self.report.segments = added.len() as u64;
        self.report.blobs = added.iter().map(|info| info.blobs).sum();
        for segment in removed {
            self.repository.delete_object(&ObjectKey::segment(&segment))?;
        }
        Ok(())
    }

    /// Takes back segments that no commit names: some of what failed was done after the commit, so the log is asked.
    fn give_up(&self) {
        if self.repository.refresh().is_err() {
            return;
        }
        let fold = self.repository.fold();
        for segment in self.segments.iter().filter(|segment| !fold.has_segment(&segment.info.segment)) {
            let _ = self.repository.delete_object(&ObjectKey::segment(&segment.info.segment));
        }
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
