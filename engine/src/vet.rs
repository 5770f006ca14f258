//! Vetting: segments that appenders added become part of the index like all others, once all that they say was read and
//! found to be so.
//!
//! An append-only keyslot has the keys of ids and of the index, so its holder can list a blob that is not there, or in the
//! place of another, or a part of what a pack holds. Nobody stores less and nobody deletes anything because of such a segment.
//! Here each pack that one lists is read in whole, by somebody who holds the root secret, and the id of each blob computed;
//! packs of which all is so are put into a segment of their own, and one commit replaces the other by it. Packs that are not
//! an appender's, and those that another segment lists, are none of its business.

use std::collections::HashSet;
use std::sync::Arc;

use crate::backend::ObjectKey;
use crate::format::commit::Change;
use crate::format::pack::{BlockSpan, Directory, PackError};
use crate::format::segment::{IndexEntry, PackEntry};
use crate::ids::{PackId, SegmentId};
use crate::index::{self, IndexError, Segment};
use crate::monitor::{Monitor, Problem, Progress};
use crate::repo::{NewSegment, Repository, RepositoryError};
use crate::store::{self, DecodeScratch, ReadError, read_directory};

/// Entries of a segment that is vetted, at most. A backup commits after a quarter of a million.
const ENTRIES_MAX: u64 = 2 << 20;

/// Entries that are gathered at a time, unless a single pack has more: 56 bytes each, and as much again for what the packs say
/// themselves. The segment is read once for so many, and as many segments take its place.
const ENTRIES_AT_ONCE: u64 = if cfg!(test) { 4 } else { 64 << 10 };

/// Entries of one pack, at most: twice what a backup gathers before it commits.
const ENTRIES_OF_PACK_MAX: u32 = 512 << 10;

/// Packs that it lists, at most: some 20 MB of memory. What a backup commits at once lies in far fewer.
const PACKS_MAX: u32 = 128 << 10;

/// What becomes of a segment that says something that is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// It stays apart, as a whole: what it lists may be wanted by a repair.
    WholeSegments,
    /// Packs of which all is so become part of the index, and the rest is dropped.
    WhatIsTrue,
}

/// What became of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vetted {
    /// Segments that became part of the index.
    pub segments: u64,
    /// Things that are not as a segment says.
    pub untrue: u64,
    /// Packs that no other segment lists and that are not in order themselves, with what is wrong: a repair may save something
    /// of them.
    pub damaged: Vec<(PackEntry, String)>,
}

/// Vetting failed for another reason than what a segment says.
#[derive(Debug, thiserror::Error)]
pub enum VetError {
    /// The storage failed while packs were read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The operation was cancelled.
    #[error("cancelled; what appenders added stays apart")]
    Cancelled,
}

/// Vets all segments that appenders added. What is not as a segment says is told to the monitor.
///
/// # Errors
/// [`VetError`]: segments vetted before that are part of the index.
pub fn run(
    repository: &Repository,
    strictness: Strictness,
    monitor: &dyn Monitor,
) -> Result<Vetted, VetError> {
    run_but(repository, strictness, &HashSet::new(), monitor)
}

/// The same, but for segments that are to stay apart for now.
///
/// # Errors
/// As [`run`].
pub fn run_but(
    repository: &Repository,
    strictness: Strictness,
    left_apart: &HashSet<SegmentId>,
    monitor: &dyn Monitor,
) -> Result<Vetted, VetError> {
    let mut vetted = Vetted::default();
    let mut appended = repository.index().appended().to_vec();
    appended.retain(|segment| !left_apart.contains(&segment.id()));
    if appended.is_empty() {
        return Ok(vetted);
    }
    // Each commit below reads the log on.
    let last_prune = repository.last_prune();
    let fold = repository.fold();
    let mut gone = repository.removed_packs(&fold)?;
    gone.extend(fold.condemned().map(|(pack, _)| *pack));
    let mut known = HashSet::new();
    for segment in repository.index().segments().iter() {
        // One that cannot be read is for a repair: what it listed is vetted like all else.
        known.extend(segment.packs().map_while(Result::ok).map(|pack| pack.id));
    }
    for segment in &appended {
        let (buffer, scratch) = (Vec::new(), VerifyScratch::default());
        let (gone, known_now, damaged) = (&gone, &known, Vec::new());
        let mut vet =
            Vet { repository, segment, gone, known: known_now, monitor, untrue: 0, damaged, buffer, scratch };
        let mut found = HashSet::new();
        match vet.all(strictness) {
            Ok(Found { packs, segments }) => {
                vetted.segments += u64::from(vet.replace(&segments, last_prune)?);
                found = packs;
            }
            Err(Refusal::Untrue(reason)) => vet.tell(&reason),
            Err(Refusal::Failed(error)) => return Err(error),
        }
        vetted.untrue += vet.untrue;
        vetted.damaged.append(&mut vet.damaged);
        known.extend(found);
    }
    vetted.damaged.retain(|(pack, _)| !known.contains(&pack.id));
    // Several segments may describe one pack: what the pack itself bears out comes first.
    let is_anothers = |pack: &PackEntry| !store::is_described_by(&**repository.backend(), pack);
    vetted.damaged.sort_by_cached_key(|(pack, _)| (pack.id, is_anothers(pack)));
    vetted.damaged.dedup_by_key(|(pack, _)| pack.id);
    Ok(vetted)
}

/// What a thread keeps that verifies packs: room for a block, sealed and decoded. Room that is made anew for each pack is not the
/// same room again.
#[derive(Debug, Default)]
pub struct VerifyScratch {
    decode: DecodeScratch,
    raw: Vec<u8>,
}

/// Whether the bytes of a pack are those of its id, and all blobs in it what its directory says.
///
/// # Errors
/// [`ReadError`] where they are not, or the storage fails.
pub fn verify_pack(
    repository: &Repository,
    (entry, directory): (&PackEntry, &Directory),
    scratch: &mut VerifyScratch,
) -> Result<(), ReadError> {
    let (reader, pack) = (repository.reader(), entry.id);
    let VerifyScratch { decode, raw } = scratch;
    // All that it takes, at once: what grows moves, and leaves a gap behind.
    let longest = directory.blocks.iter().map(|block| block.span).filter(BlockSpan::is_sane);
    let (sealed_len, raw_len) =
        longest.fold((0, 0), |(sealed, raw), span| (sealed.max(span.sealed_len), raw.max(span.raw_len)));
    decode.reserve(sealed_len as usize);
    raw.clear();
    raw.reserve_exact(raw_len as usize);
    let is_intact = store::is_intact(&**repository.backend(), entry, raw);
    if !is_intact.map_err(|source| ReadError::Backend { pack, source })? {
        return Err(ReadError::Pack { pack, source: PackError::Bytes });
    }
    for block in &directory.blocks {
        reader.read_block(entry, &block.span, decode, raw)?;
        for blob in &block.blobs {
            reader.verified(entry.id, blob.kind, &blob.id, raw, blob.offset, blob.len)?;
        }
    }
    Ok(())
}

/// Why a segment is not vetted.
enum Refusal {
    /// Something is not as it says.
    Untrue(String),
    Failed(VetError),
}

impl From<VetError> for Refusal {
    fn from(error: VetError) -> Self {
        Self::Failed(error)
    }
}

impl From<ReadError> for Refusal {
    /// What is missing or does not verify is untrue; anything else may go well the next time.
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Backend { source, .. } if !source.is_not_found() && !source.is_damage() => {
                Self::Failed(error.into())
            }
            ReadError::Index(IndexError::Backend { .. }) => Self::Failed(error.into()),
            _ => Self::Untrue(error.to_string()),
        }
    }
}

impl From<IndexError> for Refusal {
    fn from(error: IndexError) -> Self {
        ReadError::from(error).into()
    }
}

struct Vet<'a> {
    repository: &'a Repository,
    segment: &'a Arc<Segment>,
    /// Packs that a commit has condemned or removed: they are part of no index.
    gone: &'a HashSet<PackId>,
    /// Packs that other segments list: nobody needs this one for them.
    known: &'a HashSet<PackId>,
    monitor: &'a dyn Monitor,
    /// Things that are not as the segment says.
    untrue: u64,
    /// See [`Vetted::damaged`].
    damaged: Vec<(PackEntry, String)>,
    buffer: Vec<u8>,
    scratch: VerifyScratch,
}

/// What a segment says that is so.
#[derive(Default)]
struct Found {
    packs: HashSet<PackId>,
    /// Segments of them, stored but not committed.
    segments: Vec<NewSegment>,
}

impl Vet<'_> {
    /// The packs of which all is as the segment says.
    fn all(&mut self, strictness: Strictness) -> Result<Found, Refusal> {
        if self.segment.layout().entries > ENTRIES_MAX {
            return Err(Refusal::Untrue(format!("it has more than {ENTRIES_MAX} entries")));
        }
        if self.segment.layout().packs > PACKS_MAX {
            return Err(Refusal::Untrue(format!("it lists more than {PACKS_MAX} packs")));
        }
        let packs = self.segment.packs().collect::<Result<Vec<_>, _>>()?;
        let mut entries_of = vec![0u32; packs.len()];
        for entry in self.segment.entries() {
            let Some(entries) = entries_of.get_mut(entry?.pack as usize) else {
                return Err(Refusal::Untrue("an entry names no pack".to_owned()));
            };
            *entries += 1;
        }
        let mut found = Found::default();
        let mut from = 0;
        while from < packs.len() {
            let to = from + at_once(&entries_of[from..]);
            if let Err(refusal) = self.some(&packs[from..to], from, strictness, &mut found) {
                self.drop_new(&found.segments).map_err(VetError::from)?;
                return Err(refusal);
            }
            from = to;
        }
        Ok(found)
    }

    /// Of some packs, of which the first has number `from`, adds to `found` those of which all is as the segment says.
    fn some(
        &mut self,
        packs: &[PackEntry],
        from: usize,
        strictness: Strictness,
        found: &mut Found,
    ) -> Result<(), Refusal> {
        let mut listed = vec![Vec::new(); packs.len()];
        for entry in self.segment.entries() {
            let entry = entry?;
            let number = (entry.pack as usize).checked_sub(from);
            if let Some(of_pack) = number.and_then(|number| listed.get_mut(number)) {
                of_pack.push(entry);
            }
        }
        let mut whole = Vec::new();
        for ((number, pack), listed) in (from..).zip(packs).zip(listed) {
            if self.monitor.is_cancelled() {
                return Err(Refusal::Failed(VetError::Cancelled));
            }
            // What others say of it is believed, and all that there is to say.
            if self.known.contains(&pack.id) || found.packs.contains(&pack.id) {
                continue;
            }
            let number = u32::try_from(number).expect("checked to be below a limit");
            match self.pack(pack, listed, number, strictness) {
                Ok(pack) => {
                    found.packs.insert(pack.0.id);
                    whole.push(pack);
                }
                Err(Refusal::Untrue(reason)) if strictness == Strictness::WhatIsTrue => self.tell(&reason),
                Err(refusal) => return Err(refusal),
            }
            let items = found.packs.len() as u64;
            self.monitor.progress(&Progress { items, ..Progress::default() });
        }
        if !whole.is_empty() {
            let segment = self.repository.store_segment(&whole);
            found.segments.push(segment.map_err(|error| Refusal::Failed(error.into()))?);
        }
        Ok(())
    }

    /// Takes away segments that nobody commits.
    fn drop_new(&self, segments: &[NewSegment]) -> Result<(), RepositoryError> {
        for segment in segments {
            self.repository.delete_object(&ObjectKey::segment(&segment.info.segment))?;
        }
        Ok(())
    }

    /// A pack with all that it holds, if that is what the segment says of it. Where what is true is wanted, the pack has the
    /// last word on what it holds.
    fn pack(
        &mut self,
        pack: &PackEntry,
        mut listed: Vec<IndexEntry>,
        number: u32,
        strictness: Strictness,
    ) -> Result<(PackEntry, Directory), Refusal> {
        let untrue = |problem: &str| Refusal::Untrue(format!("pack {} {problem}", pack.id));
        if self.gone.contains(&pack.id) {
            return Err(untrue("is not part of the repository any more"));
        }
        // Nobody who may only add has made it, and whoever did lists it, or does not count it as stored.
        if !pack.header.is_for_recipient() {
            return Err(untrue("was not made with an append-only keyslot"));
        }
        if pack.blobs.max(u32::try_from(listed.len()).unwrap_or(u32::MAX)) > ENTRIES_OF_PACK_MAX {
            return Err(untrue(&format!("is said to hold more than {ENTRIES_OF_PACK_MAX} blobs")));
        }
        let backend = &**self.repository.backend();
        let unreadable = |source| ReadError::Backend { pack: pack.id, source };
        let size = backend.stat(&ObjectKey::pack(&pack.id)).map_err(unreadable)?.size;
        let (found, directory) = self.read(pack, size).inspect_err(|refusal| {
            if let Refusal::Untrue(reason) = refusal {
                self.damaged.push((*pack, reason.clone()));
            }
        })?;
        if !found.header.is_for_recipient() || (found.header, found.size) != (pack.header, pack.size) {
            return Err(untrue("is another than it says"));
        }
        let mut held: Vec<IndexEntry> = index::directory_entries(number, &directory).collect();
        held.sort_unstable();
        listed.sort_unstable();
        if found.blobs != pack.blobs || held != listed {
            let refusal = untrue("does not hold just what it lists");
            match (strictness, refusal) {
                (Strictness::WhatIsTrue, Refusal::Untrue(reason)) => self.tell(&reason),
                (_, refusal) => return Err(refusal),
            }
        }
        Ok((found, directory))
    }

    /// Reads a pack in whole: each byte and each blob is what its id says.
    fn read(&mut self, pack: &PackEntry, size: u64) -> Result<(PackEntry, Directory), Refusal> {
        let (repository, backend) = (self.repository, &**self.repository.backend());
        let (keys, id) = (repository.keys(), repository.id());
        let (found, directory) = read_directory(backend, keys, &id, (pack.id, size), &mut self.buffer)?;
        verify_pack(repository, (&found, &directory), &mut self.scratch)?;
        Ok((found, directory))
    }

    /// Puts what was found in the place of the segment. False where somebody else did.
    ///
    /// # Errors
    /// [`RepositoryError::Conflict`] where packs were condemned or removed since `last_prune`, or new segments dropped.
    fn replace(&self, new: &[NewSegment], last_prune: u64) -> Result<bool, RepositoryError> {
        let (repository, old) = (self.repository, self.segment.id());
        let mut is_ours = false;
        repository.commit(&mut |fold| {
            is_ours = fold.appended_by(&old).is_some();
            // They may be gone, or a segment that nobody names yet have been dropped.
            let is_gone = |new: &NewSegment| repository.is_segment_gone(&new.info.segment);
            if is_ours && (repository.last_prune() != last_prune || new.iter().any(is_gone)) {
                return Err(RepositoryError::Conflict);
            }
            let added = new.iter().map(|new| new.info).collect();
            let change = Change::SegmentsReplaced { added, removed: vec![old] };
            Ok(if is_ours { vec![change] } else { Vec::new() })
        })?;
        match is_ours {
            true => repository.delete_object(&ObjectKey::segment(&old))?,
            false => self.drop_new(new)?,
        }
        Ok(is_ours)
    }

    fn tell(&mut self, reason: &str) {
        self.untrue += 1;
        self.monitor.problem(&Problem {
            code: "appended-untrue",
            path: Some(ObjectKey::segment(&self.segment.id()).as_str().into()),
            message: format!("an append-only keyslot added it, and it is not as it says: {reason}"),
            is_error: true,
        });
    }
}

/// How many of these packs, of so many entries each, are vetted at a time.
fn at_once(entries_of: &[u32]) -> usize {
    let mut entries = 0;
    let fits = |of_pack: &&u32| {
        entries += u64::from(**of_pack);
        entries <= ENTRIES_AT_ONCE
    };
    entries_of.iter().take_while(fits).count().max(1)
}
