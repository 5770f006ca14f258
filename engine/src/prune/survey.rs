//! What there is: live segments and their packs, how much of each is needed, and what no commit names.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::backend::{self, Folder, ObjectKey};
use crate::budget;
use crate::format::chunk_list::Chunk;
use crate::format::header::{HEADER_LEN, Header, ObjectKind};
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId, SegmentId, SnapshotId};
use crate::index::{Location, Meeting, Met, Segment};
use crate::log::snapshot_record;
use crate::monitor::{Monitor, Progress};
use crate::prune::marks::{Home, Marks};
use crate::prune::{PruneError, PruneOptions};
use crate::reach::{self, Needs, ReachError};
use crate::repo::{Repository, RepositoryError};
use crate::store::ReadError;

/// Packs that an error names, at most.
const PACKS_NAMED: usize = 8;

/// A pack that live segments list.
#[derive(Debug, Clone)]
pub(super) struct PackUse {
    /// What segments say of it.
    pub entry: PackEntry,
    /// Whether its object is there, with its length.
    pub stored: bool,
    /// Whether a check found it damaged, and none has found it intact since.
    pub in_doubt: bool,
    /// Only segments list it that appenders added and nobody has vetted: it stays as it is.
    pub is_appended: bool,
    /// Needed blobs.
    pub blobs_needed: u64,
    /// About how many of its bytes they take.
    pub bytes_needed: u64,
}

impl PackUse {
    fn home(&self) -> Home {
        match (self.stored, self.in_doubt) {
            (false, _) => Home::Absent,
            (true, true) => Home::InDoubt,
            (true, false) => Home::Stored,
        }
    }
}

/// The state of the repository at a commit.
pub(super) struct Survey {
    /// The last commit it takes in.
    pub base: u64,
    /// Live snapshots.
    pub snapshots: BTreeSet<SnapshotId>,
    /// The trees of snapshots: first of those that no appender added, then of the others.
    roots: [Vec<BlobId>; 2],
    /// Live segments, by number, and the marks of their entries.
    pub marks: Marks,
    /// Packs of each segment, by number: their index in `packs`.
    pub tables: Vec<Vec<usize>>,
    /// All packs that live segments list.
    pub packs: Vec<PackUse>,
    /// How many of the segments, the first ones, are others than those that appenders added.
    pub known_segments: usize,
    /// Stored packs that no commit names, with their lengths.
    pub stray: Vec<(PackId, u64)>,
    /// Stored segments that no commit names, with their lengths.
    pub stray_segments: Vec<(SegmentId, u64)>,
}

impl Survey {
    /// Looks at everything but what is needed. Objects are listed before the log is read on: what was committed in
    /// between is then known as such and not taken for a stray.
    pub fn take(repository: &Repository, options: &PruneOptions) -> Result<Self, PruneError> {
        let backend = &**repository.backend();
        let mut stored_packs = BTreeMap::new();
        backend.list(Folder::Packs, None, &mut |info| {
            stored_packs
                .extend(info.key.pack_id().filter(|_| info.key.is_well_formed()).map(|id| (id, info.size)));
            ControlFlow::Continue(())
        })?;
        let mut stray_segments = Vec::new();
        backend.list(Folder::Index, None, &mut |info| {
            let id = info.key.segment_id().filter(|_| info.key.is_well_formed());
            stray_segments.extend(id.map(|id| (id, info.size)));
            ControlFlow::Continue(())
        })?;
        repository.refresh()?;
        let fold = repository.fold();
        stray_segments.retain(|(id, _)| !fold.has_segment(id));
        let (mut snapshots, mut roots) = (BTreeSet::new(), [Vec::new(), Vec::new()]);
        for entry in fold.snapshots() {
            let record = snapshot_record(repository.keys(), entry.snapshot, &entry.record);
            let record = record.map_err(RepositoryError::from)?;
            snapshots.insert(entry.snapshot);
            roots[usize::from(entry.appender.is_some())].push(record.tree);
        }
        let mut segments: Vec<Arc<Segment>> = repository.index().segments().to_vec();
        segments.retain(|segment| fold.has_segment(&segment.id()));
        // The largest one first: what lies in two places stays where much is.
        segments.sort_by_key(|segment| (std::cmp::Reverse(segment.layout().entries), segment.id()));
        // Those that appenders added come last: they may say what they like, what another one lists stays where that says.
        refuse_broken(repository)?;
        let known_segments = segments.len();
        segments.extend(repository.index().appended().iter().cloned());
        let (packs, tables) = tables(&segments, known_segments)?;
        let mut known: BTreeSet<PackId> = packs.iter().map(|pack| pack.entry.id).collect();
        let mut packs = packs;
        let in_doubt = repository.packs_in_doubt()?;
        for pack in &mut packs {
            // What appenders say comes last, and is not verified: were their packs preferred, it would be believed.
            pack.in_doubt = !pack.is_appended && in_doubt.contains(&pack.entry.id);
            // No segment should list a condemned pack; were one to do so all the same, nothing would be at home there.
            let is_condemned = fold.condemned_since(&pack.entry.id).is_some();
            pack.stored = match stored_packs.get(&pack.entry.id) {
                _ if is_condemned => false,
                Some(size) => *size == pack.entry.size,
                // Stored after the list was made, perhaps. It may be the only sound copy: it is not to go because nobody could look.
                None => {
                    backend::size_if_readable(backend, &ObjectKey::pack(&pack.entry.id))?
                        == Some(pack.entry.size)
                }
            };
        }
        known.extend(fold.condemned().map(|(pack, _)| *pack));
        let stray = stored_packs.into_iter().filter(|(pack, _)| !known.contains(pack)).collect();
        let homes = tables.iter().map(|table| table.iter().map(|at| packs[*at].home()).collect()).collect();
        let marks = Marks::new((segments, known_segments), homes, options.memory, options.spill.clone());
        let base = fold.seq();
        Ok(Self { base, snapshots, roots, marks, tables, packs, known_segments, stray, stray_segments })
    }

    /// Takes strays that appenders have made for what somebody is about to list. What cannot be read is nobody's.
    pub fn spare_strays_for_recipients(&mut self, repository: &Repository) {
        self.stray.retain(|(pack, _)| {
            let mut header = [0; HEADER_LEN];
            let read = repository.backend().read_range(&ObjectKey::pack(pack), 0, &mut header);
            let kinds = [ObjectKind::DataPack, ObjectKind::MetadataPack];
            let is_for_recipient =
                |kind| Header::decode(&header, kind).is_ok_and(|header| header.is_for_recipient());
            read.is_err() || !kinds.into_iter().any(is_for_recipient)
        });
    }

    /// Packs that are listed and not there, in words; nothing where there are none.
    fn absent_packs(&self) -> String {
        let absent = self.packs.iter().filter(|pack| !pack.stored).map(|pack| pack.entry.id.to_string());
        let mut absent: Vec<String> = absent.take(PACKS_NAMED + 1).collect();
        if absent.is_empty() {
            return String::new();
        }
        if absent.len() > PACKS_NAMED {
            absent[PACKS_NAMED] = "…".into();
        }
        format!(" (the index lists packs that are not there: {})", absent.join(", "))
    }

    /// Marks all that live snapshots need, and sums up what that is of each pack.
    pub fn mark(
        &mut self,
        repository: &Repository,
        options: &PruneOptions,
        monitor: &dyn Monitor,
    ) -> Result<(), PruneError> {
        for snapshot in &self.snapshots {
            // Records that came alone are in the log only.
            if repository.index().known(snapshot.blob())?.is_some() {
                self.marks.need(snapshot.blob()).map_err(ReachError::from)?;
            }
        }
        let mut met = Met::of(repository.index(), self.marks.segments().to_vec());
        let threads = budget::followers(options.threads, options.memory);
        let [others, appended] = std::mem::take(&mut self.roots);
        for (roots, is_appended) in [(others, false), (appended, true)] {
            let marks = &mut self.marks;
            let mut marking = Marking { marks, met, monitor, blobs: 0 };
            reach::follow(repository.reader(), roots, &mut marking, threads).map_err(|error| {
                if matches!(error, ReachError::Cancelled) { PruneError::Cancelled } else { error.into() }
            })?;
            met = marking.met;
            self.marks.finish(monitor).map_err(|error| match error {
                PruneError::Missing { first, count, .. } => {
                    PruneError::Missing { first, count, packs: self.absent_packs() }
                }
                error => error,
            })?;
            // What appenders added was vetted before, unless nothing is to change: what is left of it says what is not so.
            if !is_appended
                && !options.dry_run
                && let Some(blob) = self.marks.first_needed_from(self.known_segments)?
            {
                let snapshot = who_needs(repository, &blob, threads)?;
                let snapshot =
                    snapshot.map_or_else(|| "a snapshot".to_owned(), |id| format!("snapshot {id}"));
                return Err(PruneError::OnlyAppended { snapshot, blob });
            }
        }
        for (number, segment) in self.marks.segments().iter().enumerate() {
            for (position, entry) in segment.entries().enumerate() {
                let entry = entry?;
                if self.marks.is_needed(number, position)
                    && let Some(pack) = self.tables[number].get(entry.pack as usize)
                {
                    self.packs[*pack].blobs_needed += 1;
                    let pack = &mut self.packs[*pack];
                    pack.bytes_needed = pack.bytes_needed.saturating_add(entry.stored_len());
                }
            }
        }
        Ok(())
    }
}

/// The first snapshot that no appender added and that needs `blob`, if there is one.
fn who_needs(
    repository: &Repository,
    blob: &BlobId,
    threads: usize,
) -> Result<Option<SnapshotId>, PruneError> {
    let fold = repository.fold();
    let mut search = Search { repository, blob, met: HashSet::new(), is_found: false };
    for entry in fold.snapshots().filter(|entry| entry.appender.is_none()) {
        let record = snapshot_record(repository.keys(), entry.snapshot, &entry.record);
        let record = record.map_err(RepositoryError::from)?;
        search.is_found = entry.snapshot.blob() == blob;
        reach::follow(repository.reader(), [record.tree], &mut search, threads)?;
        if search.is_found {
            return Ok(Some(entry.snapshot));
        }
    }
    Ok(None)
}

/// The walk that looks for one blob.
struct Search<'a> {
    repository: &'a Repository,
    blob: &'a BlobId,
    met: HashSet<BlobId>,
    is_found: bool,
}

impl Needs for Search<'_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        self.is_found |= id == self.blob;
        if self.is_found || !self.met.insert(*id) {
            return Ok(None);
        }
        Ok(self.repository.index().get(id).map_err(ReadError::Index)?)
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.is_found |= chunk.id == *self.blob;
        Ok(())
    }
}

/// Makes sure that the segments of appenders can be read: packs that they list would pass for strays.
pub(super) fn refuse_broken(repository: &Repository) -> Result<(), PruneError> {
    match repository.distrusted_segments().into_iter().next() {
        Some(problem) => Err(PruneError::AppendedSegment { problem }),
        None => Ok(()),
    }
}

type Tables = (Vec<PackUse>, Vec<Vec<usize>>);

fn tables(segments: &[Arc<Segment>], known_segments: usize) -> Result<Tables, PruneError> {
    let mut numbers: BTreeMap<PackId, usize> = BTreeMap::new();
    let mut packs: Vec<PackUse> = Vec::new();
    let mut tables = Vec::with_capacity(segments.len());
    for (at, segment) in segments.iter().enumerate() {
        let mut table = Vec::new();
        for entry in segment.packs() {
            let entry = entry?;
            let number = *numbers.entry(entry.id).or_insert(packs.len());
            if number == packs.len() {
                let is_appended = at >= known_segments;
                let (stored, in_doubt, blobs_needed, bytes_needed) = (false, false, 0, 0);
                packs.push(PackUse { entry, stored, in_doubt, is_appended, blobs_needed, bytes_needed });
            }
            table.push(number);
        }
        tables.push(table);
    }
    Ok((packs, tables))
}

/// The walk over all snapshots.
struct Marking<'a> {
    marks: &'a mut Marks,
    /// Trees met.
    met: Met,
    monitor: &'a dyn Monitor,
    blobs: u64,
}

impl Marking<'_> {
    fn need(&mut self, id: &BlobId) -> Result<(), ReachError> {
        Ok(self.marks.need(id)?)
    }
}

impl Needs for Marking<'_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        match self.met.meet(id).map_err(ReadError::Index)? {
            Meeting::Again => Ok(None),
            Meeting::First(location) => {
                self.need(id)?;
                Ok(Some(location))
            }
            // There is nothing to be marked, nor to be read.
            Meeting::Nowhere => {
                let kind = crate::crypto::keys::BlobKind::Tree;
                Err(ReachError::Read(ReadError::Missing { id: *id, kind }))
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.blobs += 1;
        if self.blobs.is_multiple_of(1 << 16) {
            self.monitor.progress(&Progress::default());
        }
        self.need(&chunk.id)
    }

    fn is_cancelled(&self) -> bool {
        self.monitor.is_cancelled()
    }
}
