//! What a backup run stores into: packs, the ids it has stored, and the commits that make them count.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_bytes::ByteBuf;

use crate::backup::attempts::Attempts;
use crate::backup::options::{BackupError, BackupOptions, PacksStored};
use crate::backup::relied_on::{ReliedOn, is_stored};
use crate::backup::revalidate::{Claim, Homes, Settled};
use crate::backup::sign::Sign;
use crate::budget;
use crate::crypto::keys::BlobKind;
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::format::pack::Directory;
use crate::format::record;
use crate::format::segment::PackEntry;
use crate::format::snapshot::Snapshot;
use crate::ids::{BlobId, PackId, SnapshotId};
use crate::index::{IndexError, Location, Pending, Segment};
use crate::log::Fold;
use crate::repo::{Repository, RepositoryError};
use crate::store::{BlobWriter, PackStore, StoreError, StoreOptions};

/// The stores of one run of a backup or repair.
pub(crate) struct Session<'r> {
    pub repository: &'r Repository,
    data: PackStore,
    trees: PackStore,
    pending: Pending,
    dry_run: bool,
    /// What the run has done before; none of those that are tried once.
    attempts: Option<&'r Attempts>,
    /// The last commit known when the run began to rely on what is stored.
    base: u64,
    /// Segments that list all that the run may have deduplicated against.
    known: Mutex<Vec<Arc<Segment>>>,
    /// Threads that there is room for beside what it stores.
    workers: usize,
    /// Where goes what memory has no room for.
    spill: Option<PathBuf>,
    blobs_per_commit: u64,
    blobs_committed: AtomicU64,
    only: Option<Only<'r>>,
    /// What an appender's run rests on; none for all others.
    relied_on: Option<Mutex<ReliedOn>>,
    /// Packs that a check found damaged: what lies in no other one is stored again.
    in_doubt: BTreeSet<PackId>,
    /// Whether the index lists a pack that is in doubt or not there.
    has_met_unsound: AtomicBool,
    /// Such packs in which something lies that lies in no other one.
    unsound: Mutex<BTreeSet<PackId>>,
}

/// Blobs that are to be stored although the index lists them, and no others.
struct Only<'r> {
    wanted: &'r HashSet<BlobId>,
    claimed: Mutex<HashSet<BlobId>>,
}

impl<'r> Session<'r> {
    /// What one run stores into.
    ///
    /// # Errors
    /// [`RepositoryError`] where the ledger may be read the next time, which says what packs not to rely on.
    pub fn new(repository: &'r Repository, options: &BackupOptions) -> Result<Self, RepositoryError> {
        if !options.dry_run {
            // Before anything is stored that nothing will name.
            repository.require_sound_log()?;
        }
        let store_options = StoreOptions {
            verify: options.verify_blocks,
            dry_run: options.dry_run,
            ..StoreOptions::new(options.level, options.threads, options.memory)
        };
        Ok(Self {
            repository,
            data: repository.pack_store(ObjectKind::DataPack, &store_options),
            trees: repository.pack_store(ObjectKind::MetadataPack, &store_options),
            pending: Pending::default(),
            dry_run: options.dry_run,
            attempts: None,
            base: repository.fold().seq(),
            known: Mutex::new(repository.index().segments().to_vec()),
            workers: budget::Pipeline::new(options.threads, options.memory).workers,
            spill: options.spill.clone(),
            blobs_per_commit: options.blobs_per_commit.min(budget::uncommitted(options.memory)),
            blobs_committed: AtomicU64::new(0),
            only: None,
            relied_on: repository.is_append_only().then(Mutex::default),
            // An appender has no key for the ledger.
            in_doubt: if repository.is_append_only() {
                BTreeSet::new()
            } else {
                repository.packs_in_doubt()?
            },
            has_met_unsound: AtomicBool::new(false),
            unsound: Mutex::default(),
        })
    }

    /// The same, of a run that may be tried several times.
    pub fn of(self, attempts: &'r Attempts) -> Self {
        Self { attempts: Some(attempts), ..self }
    }

    fn sign(&self) -> Option<&'r Sign> {
        self.attempts.map(|attempts| &attempts.sign)
    }

    /// Whether the run has to say in the log that it is at work, or to say so again.
    pub fn is_sign_due(&self) -> bool {
        !self.dry_run && self.sign().is_some_and(|sign| sign.is_due(self.repository))
    }

    /// Says in the log that the run is at work. Nobody may be looking for blobs meanwhile.
    pub fn give_sign(&self) -> Result<(), RepositoryError> {
        // What others have added since is not to be forgotten when the log is read on.
        self.known_segments();
        self.sign().map_or(Ok(()), |sign| sign.give(self.repository, self.base))
    }

    /// A session that stores these blobs and no others, whatever the index says.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn only(
        repository: &'r Repository,
        options: &BackupOptions,
        wanted: &'r HashSet<BlobId>,
    ) -> Result<Self, RepositoryError> {
        let only = Some(Only { wanted, claimed: Mutex::default() });
        Ok(Self { only, ..Self::new(repository, options)? })
    }

    /// The wanted blobs that were stored, of a session that stores no others.
    pub fn into_claimed(self) -> HashSet<BlobId> {
        let only = self.only.map(|only| only.claimed.into_inner().unwrap_or_else(PoisonError::into_inner));
        only.unwrap_or_default()
    }

    pub fn data_writer(&self) -> BlobWriter {
        self.data.writer()
    }

    pub fn tree_writer(&self) -> BlobWriter {
        self.trees.writer()
    }

    /// Whether the caller has to store the blob: true once for each blob that is not in the repository.
    pub fn claim(&self, id: &BlobId) -> Result<bool, IndexError> {
        if let Some(only) = &self.only {
            // Asked for each chunk of the source: the lock is for what is found.
            return Ok(only.wanted.contains(id)
                && only.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(*id));
        }
        if self.pending.contains(id) || self.is_stored(id)? {
            return Ok(false);
        }
        Ok(self.pending.claim(id))
    }

    fn is_stored(&self, id: &BlobId) -> Result<bool, IndexError> {
        let index = self.repository.index();
        let Some(relied_on) = &self.relied_on else { return self.is_in_sound_pack(id) };
        // A segment of its own may list what was taken out of the index since, or what is not there.
        let (repository, fold) = (self.repository, self.repository.fold());
        let is_part = |at: &Location| {
            repository.is_pack_in_force(&fold, &at.pack.id)
                && self.attempts.is_none_or(|attempts| attempts.may_rely_on(&at.pack.id))
                && lock(relied_on).is_there(repository, &at.pack)
        };
        let found = index.known_entry(id, &is_part)?;
        if let Some((segment, position, _)) = &found {
            lock(relied_on).take(segment, *position);
        }
        Ok(found.is_some())
    }

    /// Whether the index lists the blob in a pack that is there, with the length that it should have, and not in doubt.
    pub fn is_in_sound_pack(&self, id: &BlobId) -> Result<bool, IndexError> {
        let index = self.repository.index();
        let is_found = index.contains_stored(id, &|pack| {
            let is_sound = !self.in_doubt.contains(&pack.id) && is_stored(self.repository, pack);
            self.has_met_unsound.fetch_or(!is_sound, Ordering::Relaxed);
            is_sound
        })?;
        if !is_found && self.has_met_unsound.load(Ordering::Relaxed) {
            index.known_where(id, &|at| {
                lock(&self.unsound).insert(at.pack.id);
                false
            })?;
        }
        Ok(is_found)
    }

    /// Packs that a check found damaged when the run began.
    pub fn in_doubt(&self) -> &BTreeSet<PackId> {
        &self.in_doubt
    }

    /// Packs in which lies what had to be stored again, as far as the log was read; of each, whether that is because it is in
    /// doubt, and not because it is not there.
    pub fn unsound_packs(&self) -> Vec<(PackId, bool)> {
        let fold = self.repository.fold();
        let unsound = lock(&self.unsound).clone();
        let in_force = unsound.into_iter().filter(|pack| self.repository.is_pack_in_force(&fold, pack));
        in_force.map(|pack| (pack, self.in_doubt.contains(&pack))).collect()
    }

    /// The same for a blob that has to be stored although the index lists it: true once.
    pub fn claim_anyway(&self, id: &BlobId) -> bool {
        self.pending.claim(id)
    }

    /// Stores a tree, chunk list or snapshot record unless it is there.
    pub fn put(&self, writer: &mut BlobWriter, kind: BlobKind, bytes: &[u8]) -> Result<BlobId, BackupError> {
        let id = self.repository.keys().blob_id(kind, bytes);
        if self.claim(&id).map_err(RepositoryError::from)? {
            writer.put(kind, id, bytes, true)?;
        }
        Ok(id)
    }

    /// Bytes of blobs stored, before compression.
    pub fn bytes_added(&self) -> u64 {
        let counters = [self.data.counters(), self.trees.counters()];
        counters.iter().map(|counters| counters.raw_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of sealed blocks.
    pub fn bytes_stored(&self) -> u64 {
        let counters = [self.data.counters(), self.trees.counters()];
        counters.iter().map(|counters| counters.sealed_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of packs finished. What is in an open one is not among them until the next commit.
    pub fn packs_stored(&self) -> PacksStored {
        let stored = |store: &PackStore| store.counters().stored_bytes.load(Ordering::Relaxed);
        PacksStored { data: stored(&self.data), metadata: stored(&self.trees) }
    }

    /// Whether so many blobs are in no segment that they have to be committed.
    pub fn is_commit_due(&self) -> bool {
        self.blobs_uncommitted() >= self.blobs_per_commit
    }

    /// Blobs stored that no segment lists yet.
    fn blobs_uncommitted(&self) -> u64 {
        let counters = [self.data.counters(), self.trees.counters()];
        let blobs: u64 = counters.iter().map(|counters| counters.blobs.load(Ordering::Relaxed)).sum();
        blobs - self.blobs_committed.load(Ordering::Relaxed)
    }

    /// Makes everything stored so far durable and commits it, with a snapshot of it. All writers have to be
    /// flushed. Snapshots in `superseded` are forgotten in the same commit.
    pub fn commit(
        &self,
        tree_writer: &mut BlobWriter,
        snapshot: &Snapshot,
        superseded: &[SnapshotId],
    ) -> Result<SnapshotId, BackupError> {
        let record = record::encode(snapshot);
        // The record is in the commit. As a blob it serves whoever has lost the log: where nothing else is stored, a pack and
        // a segment for its sake alone would cost more than all the rest of the backup.
        let is_alone = tree_writer.is_empty() && self.blobs_uncommitted() == 0;
        let id = match is_alone {
            true => self.repository.keys().blob_id(BlobKind::Snapshot, &record),
            false => self.put(tree_writer, BlobKind::Snapshot, &record)?,
        };
        let records = if is_alone { &[][..] } else { &[id] };
        let rests_on = RestsOn { roots: &[snapshot.tree], records };
        let id = SnapshotId::new(id);
        let ending = self.sign().filter(|_| !snapshot.partial);
        let added = Change::SnapshotAdded { snapshot: id, record: ByteBuf::from(record) };
        self.commit_with(tree_writer, rests_on, &mut |fold| {
            let mut changes = vec![added.clone()];
            for old in superseded {
                // A held one stays, superseded or not.
                if *old != id && fold.snapshot(old).is_some_and(|entry| entry.hold.is_none()) {
                    let reason = format!("superseded by snapshot {}", id.short());
                    changes.push(Change::SnapshotForgotten { snapshot: *old, reason });
                }
            }
            changes.extend(ending.and_then(|sign| sign.farewell(self.repository)));
            Ok(changes)
        })?;
        if let Some(sign) = ending {
            sign.ended();
        }
        Ok(id)
    }

    /// Makes everything stored so far durable and part of the index, without a snapshot. In a dry run it is forgotten: it
    /// would be counted again if it came again.
    pub fn commit_blobs(&self, tree_writer: &mut BlobWriter) -> Result<(), BackupError> {
        self.commit_with(tree_writer, RestsOn::default(), &mut |_| Ok(Vec::new()))
    }

    /// Makes everything stored so far durable and part of the index, in one commit with the changes that `decide` wants. All
    /// writers but `tree_writer` have to be flushed.
    pub fn commit_with(
        &self,
        tree_writer: &mut BlobWriter,
        rests_on: RestsOn<'_>,
        decide: &mut dyn FnMut(&Fold) -> Result<Vec<Change>, RepositoryError>,
    ) -> Result<(), BackupError> {
        tree_writer.flush()?;
        let uncommitted = self.blobs_uncommitted();
        // Content before the trees that point to it: after a crash there is no tree without its chunks.
        let mut packs = self.data.finish()?;
        packs.append(&mut self.trees.finish()?);
        if !self.dry_run {
            self.publish(&packs, rests_on, decide)?;
        }
        let stored = packs.iter().flat_map(|(_, directory)| &directory.blocks).flat_map(|block| &block.blobs);
        self.pending.release(stored.map(|blob| &blob.id));
        self.blobs_committed.fetch_add(uncommitted, Ordering::Relaxed);
        Ok(())
    }

    /// Commits packs that are durable.
    fn publish(
        &self,
        packs: &[(PackEntry, Directory)],
        rests_on: RestsOn<'_>,
        decide: &mut dyn FnMut(&Fold) -> Result<Vec<Change>, RepositoryError>,
    ) -> Result<(), BackupError> {
        let known = self.known_segments();
        let segment = if packs.is_empty() { None } else { Some(self.repository.store_segment(packs)?) };
        let (repository, threads) = (self.repository, self.workers);
        let (segment, spill) = (segment.as_ref(), self.spill.as_deref());
        let claim = Claim { repository, packs, segment, known: &known, threads, spill };
        if let Some(relied_on) = &self.relied_on {
            return self.append(&claim, &mut lock(relied_on), decide);
        }
        let mut settled = Settled::default();
        let result = repository.commit(&mut |fold| {
            let homes = match repository.last_loss() > self.base {
                false => Homes::of(segment),
                true => settled.homes(&claim, fold, rests_on.roots, rests_on.records)?,
            };
            let mut changes = homes.changes();
            changes.extend(decide(fold)?);
            Ok(changes)
        });
        match result {
            Err(RepositoryError::Conflict) => {
                // What was stored is kept: the next try finds it there.
                let mut settled = Settled::default();
                repository.commit(&mut |fold| Ok(settled.homes(&claim, fold, &[], &[])?.changes()))?;
                Err(RepositoryError::Conflict.into())
            }
            result => {
                result?;
                Ok(())
            }
        }
    }

    /// Commits packs that are durable, as an appender: it takes nothing away and rescues nothing. Where something that it
    /// rests on has no place in the index any more, the backup begins anew and stores that again.
    fn append(
        &self,
        claim: &Claim<'_>,
        relied_on: &mut ReliedOn,
        decide: &mut dyn FnMut(&Fold) -> Result<Vec<Change>, RepositoryError>,
    ) -> Result<(), BackupError> {
        let repository = self.repository;
        let result = repository.commit(&mut |fold| {
            // Whether somebody pruned since is no matter: what it relies on, its own key may have listed after that. And a segment of
            // its own may have been vetted and dropped, which is no prune.
            if !claim.are_own_in_force(fold) || !relied_on.is_left(repository, fold)? {
                return Err(RepositoryError::Conflict);
            }
            let mut changes = claim.left(fold)?.changes();
            changes.extend(decide(fold)?);
            Ok(changes)
        });
        if matches!(result, Err(RepositoryError::Conflict)) {
            // What was stored is kept: the next try finds it there.
            repository.commit(&mut |fold| Ok(claim.left(fold)?.changes()))?;
        }
        let stored = || claim.packs.iter().map(|(pack, _)| pack.id);
        if let Some(attempts) = self.attempts {
            let fold = repository.fold();
            attempts.have_stored(stored().filter(|pack| repository.is_pack_in_force(&fold, pack)));
        }
        result?;
        if let Some(segment) = claim.segment {
            relied_on.take_all(&segment.segment(), stored());
        }
        Ok(())
    }

    /// All segments that list what the run has relied on. As long as nobody pruned or lost something, those that are live now list all that
    /// earlier ones did.
    fn known_segments(&self) -> Vec<Arc<Segment>> {
        let mut known = self.lock_known();
        let live = self.repository.index().segments();
        if self.repository.last_loss() <= self.base {
            known.clear();
        }
        for segment in live.iter() {
            if !known.iter().any(|other| other.id() == segment.id()) {
                known.push(Arc::clone(segment));
            }
        }
        known.clone()
    }

    fn lock_known(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        lock(&self.known)
    }
}

/// What is kept here changes in single calls: a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a commit rests on besides the packs just stored.
#[derive(Clone, Copy, Default)]
pub(crate) struct RestsOn<'a> {
    /// Trees, with everything below them.
    pub roots: &'a [BlobId],
    /// Records of snapshots.
    pub records: &'a [BlobId],
}

impl From<IndexError> for BackupError {
    fn from(error: IndexError) -> Self {
        Self::Repository(error.into())
    }
}

/// The first failure of a worker or store ends the run.
#[derive(Debug, Clone)]
pub(super) enum WorkerError {
    Store(StoreError),
    Index(Arc<IndexError>),
    Panicked,
}

impl From<WorkerError> for BackupError {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Store(error) => Self::Store(error),
            WorkerError::Index(error) => Self::Index(error),
            WorkerError::Panicked => Self::Worker,
        }
    }
}
