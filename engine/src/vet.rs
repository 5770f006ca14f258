//! Vetting: segments that appenders added become part of the index like all others, once all that they say was read and
//! found to be so.
//!
//! An append-only keyslot has the keys of ids and of the index, so its holder can list a blob that is not there, or in the
//! place of another. Nobody stores less and nobody deletes anything because of such a segment. Here each blob that one lists
//! is read and its id computed, by somebody who holds the root secret; what was found is put into a segment of its own, and
//! one commit replaces the other by it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::backend::ObjectKey;
use crate::crypto::keys::BlobKind;
use crate::format::commit::Change;
use crate::format::header::{HEADER_LEN, ObjectKind};
use crate::format::pack::{Directory, DirectoryBlob, DirectoryBlock};
use crate::format::segment::{IndexEntry, PackEntry};
use crate::ids::PackId;
use crate::index::{IndexError, Segment};
use crate::monitor::{Monitor, Problem, Progress};
use crate::repo::{Repository, RepositoryError};
use crate::store::{BlobReader, DecodeScratch, ReadError};

/// Entries of a segment that is vetted, at most: they are gathered in memory, 56 bytes each. A backup commits after a
/// quarter of a million.
const ENTRIES_MAX: u64 = 2 << 20;

/// What becomes of a segment that says something that is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// It stays apart, as a whole: what it lists may be wanted by a repair.
    WholeSegments,
    /// What is so becomes part of the index, and the rest is dropped: it cannot be read anyway.
    WhatIsTrue,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vetted {
    /// Segments that became part of the index.
    pub segments: u64,
    /// Things that are not as a segment says.
    pub untrue: u64,
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
    let mut vetted = Vetted::default();
    let appended = repository.index().appended();
    if appended.is_empty() {
        return Ok(vetted);
    }
    // Each commit below reads the log on.
    let last_prune = repository.last_prune();
    let fold = repository.fold();
    let mut gone = repository.removed_packs(&fold)?;
    gone.extend(fold.condemned().map(|(pack, _)| *pack));
    for segment in appended.iter() {
        let (scratch, raw) = (DecodeScratch::default(), Vec::new());
        let mut vet = Vet { repository, segment, gone: &gone, monitor, untrue: 0, scratch, raw };
        match vet.all(strictness) {
            Ok(packs) => vetted.segments += u64::from(vet.replace(&packs, last_prune)?),
            Err(Refusal::Untrue(reason)) => vet.tell(&reason),
            Err(Refusal::Failed(error)) => return Err(error),
        }
        vetted.untrue += vet.untrue;
    }
    Ok(vetted)
}

/// Whether all blobs of a pack are what its directory says.
///
/// # Errors
/// [`ReadError`] where they are not, or the storage fails.
pub fn verify_pack(
    reader: &BlobReader,
    (entry, directory): (&PackEntry, &Directory),
) -> Result<(), ReadError> {
    let (mut scratch, mut raw) = (DecodeScratch::default(), Vec::new());
    for block in &directory.blocks {
        reader.read_block(entry, &block.span, &mut scratch, &mut raw)?;
        for blob in &block.blobs {
            reader.verified(entry.id, blob.kind, &blob.id, &raw, blob.offset, blob.len)?;
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
    monitor: &'a dyn Monitor,
    /// Things that are not as the segment says.
    untrue: u64,
    scratch: DecodeScratch,
    raw: Vec<u8>,
}

impl Vet<'_> {
    /// What is so of all that the segment says.
    fn all(&mut self, strictness: Strictness) -> Result<Vec<(PackEntry, Directory)>, Refusal> {
        if self.segment.layout().entries > ENTRIES_MAX {
            return Err(Refusal::Untrue(format!("it has more than {ENTRIES_MAX} entries")));
        }
        let packs = self.segment.packs().collect::<Result<Vec<_>, _>>()?;
        let mut entries: BTreeMap<u32, Vec<IndexEntry>> = BTreeMap::new();
        for entry in self.segment.entries() {
            let entry = entry?;
            entries.entry(entry.pack).or_default().push(entry);
        }
        let mut found = Vec::new();
        for (number, mut entries) in entries {
            if self.monitor.is_cancelled() {
                return Err(Refusal::Failed(VetError::Cancelled));
            }
            entries.sort_unstable_by_key(|entry| (entry.block.position, entry.offset, entry.id));
            let pack = packs.get(number as usize);
            let pack = *pack.ok_or_else(|| Refusal::Untrue("an entry names no pack".to_owned()))?;
            match self.pack(&pack, &entries, strictness) {
                Ok(directory) => found.push((pack, directory)),
                Err(Refusal::Untrue(reason)) if strictness == Strictness::WhatIsTrue => self.tell(&reason),
                Err(refusal) => return Err(refusal),
            }
            let items = found.len() as u64;
            self.monitor.progress(&Progress { items, ..Progress::default() });
        }
        Ok(found)
    }

    /// What is so of what it says of a pack.
    fn pack(
        &mut self,
        pack: &PackEntry,
        entries: &[IndexEntry],
        strictness: Strictness,
    ) -> Result<Directory, Refusal> {
        if self.gone.contains(&pack.id) {
            return Err(Refusal::Untrue(format!("pack {} is not part of the repository any more", pack.id)));
        }
        let (backend, key) = (&**self.repository.backend(), ObjectKey::pack(&pack.id));
        let unreadable = |source| ReadError::Backend { pack: pack.id, source };
        let size = backend.stat(&key).map_err(unreadable)?.size;
        let mut header = [0; HEADER_LEN];
        backend.read_range(&key, 0, &mut header).map_err(unreadable)?;
        if size != pack.size || header != pack.header.encode() {
            return Err(Refusal::Untrue(format!("pack {} is another than it says", pack.id)));
        }
        let mut directory = Directory::default();
        for block in entries.chunk_by(|a, b| a.block == b.block) {
            match self.block(pack, block) {
                Ok(block) => directory.blocks.push(block),
                Err(Refusal::Untrue(reason)) if strictness == Strictness::WhatIsTrue => self.tell(&reason),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(directory)
    }

    fn block(&mut self, pack: &PackEntry, entries: &[IndexEntry]) -> Result<DirectoryBlock, Refusal> {
        let reader = self.repository.reader();
        let span = entries[0].block;
        reader.read_block(pack, &span, &mut self.scratch, &mut self.raw)?;
        let mut blobs = Vec::with_capacity(entries.len());
        for IndexEntry { id, offset, len, .. } in entries {
            let verify = |kind| {
                reader.verified(pack.id, kind, id, &self.raw, *offset, *len)?;
                Ok::<_, ReadError>(DirectoryBlob { id: *id, kind, offset: *offset, len: *len })
            };
            let blob = match pack.header.kind {
                ObjectKind::DataPack => verify(BlobKind::Data)?,
                _ => verify(BlobKind::Tree).or_else(|_| verify(BlobKind::Snapshot))?,
            };
            blobs.push(blob);
        }
        Ok(DirectoryBlock { span, blobs })
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
