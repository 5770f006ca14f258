//! Vetting: segments that appenders added become part of the index like all others, once all that they say was read and
//! found to be so.
//!
//! An append-only keyslot has the keys of ids and of the index, so its holder can list a blob that is not there, or in the
//! place of another, or a part of what a pack holds. Nobody stores less and nobody deletes anything because of such a segment.
//! Here each pack that one lists is read in whole, by somebody who holds the root secret, and the id of each blob computed;
//! packs of which all is so are put into a segment of their own, and one commit replaces the other by it. Packs that are not
//! an appender's, and those that another segment lists, are none of its business.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::backend::ObjectKey;
use crate::format::commit::Change;
use crate::format::pack::{BlockSpan, Directory, PackError};
use crate::format::segment::{IndexEntry, PackEntry};
use crate::ids::{PackId, SegmentId};
use crate::index::{self, IndexError, Segment};
use crate::monitor::{Monitor, Problem, Progress};
use crate::repo::{Repository, RepositoryError};
use crate::store::{self, DecodeScratch, ReadError, read_directory};

/// Entries of a segment that is vetted, at most: they are gathered in memory, 56 bytes each. A backup commits after a
/// quarter of a million.
const ENTRIES_MAX: u64 = 2 << 20;

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
        let mut found = Vec::new();
        match vet.all(strictness) {
            Ok(packs) => {
                vetted.segments += u64::from(vet.replace(&packs, last_prune)?);
                found.extend(packs.iter().map(|(pack, _)| pack.id));
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

impl Vet<'_> {
    /// The packs of which all is as the segment says.
    fn all(&mut self, strictness: Strictness) -> Result<Vec<(PackEntry, Directory)>, Refusal> {
        if self.segment.layout().entries > ENTRIES_MAX {
            return Err(Refusal::Untrue(format!("it has more than {ENTRIES_MAX} entries")));
        }
        if self.segment.layout().packs > PACKS_MAX {
            return Err(Refusal::Untrue(format!("it lists more than {PACKS_MAX} packs")));
        }
        let packs = self.segment.packs().collect::<Result<Vec<_>, _>>()?;
        let mut entries: BTreeMap<u32, Vec<IndexEntry>> = BTreeMap::new();
        for entry in self.segment.entries() {
            let entry = entry?;
            if entry.pack as usize >= packs.len() {
                return Err(Refusal::Untrue("an entry names no pack".to_owned()));
            }
            entries.entry(entry.pack).or_default().push(entry);
        }
        let mut found: Vec<(PackEntry, Directory)> = Vec::new();
        for (number, pack) in (0u32..).zip(packs) {
            if self.monitor.is_cancelled() {
                return Err(Refusal::Failed(VetError::Cancelled));
            }
            // What others say of it is believed, and all that there is to say.
            if self.known.contains(&pack.id) || found.iter().any(|(found, _)| found.id == pack.id) {
                continue;
            }
            let listed = entries.remove(&number).unwrap_or_default();
            match self.pack(&pack, listed, number, strictness) {
                Ok(whole) => found.push(whole),
                Err(Refusal::Untrue(reason)) if strictness == Strictness::WhatIsTrue => self.tell(&reason),
                Err(refusal) => return Err(refusal),
            }
            let items = found.len() as u64;
            self.monitor.progress(&Progress { items, ..Progress::default() });
        }
        Ok(found)
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
    /// [`RepositoryError::Conflict`] where packs were condemned or removed since `last_prune`.
    fn replace(&self, packs: &[(PackEntry, Directory)], last_prune: u64) -> Result<bool, RepositoryError> {
        let (repository, old) = (self.repository, self.segment.id());
        let new = if packs.is_empty() { None } else { Some(repository.store_segment(packs)?) };
        let mut is_ours = false;
        repository.commit(&mut |fold| {
            is_ours = fold.appended_by(&old).is_some();
            // They may be gone, or the segment that nobody names yet have been dropped.
            if is_ours && repository.last_prune() != last_prune {
                return Err(RepositoryError::Conflict);
            }
            let added = new.iter().map(|new| new.info).collect();
            let change = Change::SegmentsReplaced { added, removed: vec![old] };
            Ok(if is_ours { vec![change] } else { Vec::new() })
        })?;
        let dead = if is_ours { Some(old) } else { new.map(|new| new.info.segment) };
        if let Some(segment) = dead {
            repository.delete_object(&ObjectKey::segment(&segment))?;
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
