//! What live snapshots need and has no home. Trees that are lost are fetched from elsewhere at once, where they can be had, so
//! that what is below them is looked at, too.

use std::collections::BTreeSet;

use crate::backup::Session;
use crate::budget;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::Chunk;
use crate::format::header::ObjectKind;
use crate::ids::{BlobId, PackId};
use crate::index::{Location, Met};
use crate::log::snapshot_record;
use crate::monitor::{Monitor, Progress};
use crate::reach::{self, Needs, ReachError};
use crate::repair::damage::{Damage, is_metadata};
use crate::repair::heal::{Finder, Wanted};
use crate::repair::packs::Writers;
use crate::repair::{PacksOptions, RepairError, is_lost};
use crate::repo::{Repository, RepositoryError};
use crate::store::ReadError;

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Blobs that are needed and not to be had here.
    pub wanted: Wanted,
    /// Packs that turned out not to give what they should: to be salvaged before the search is made again.
    pub suspects: BTreeSet<PackId>,
    /// Records of snapshots that were written anew from the log.
    pub from_log: u64,
}

/// Follows all live snapshots.
pub(super) fn run<'r>(
    repository: &'r Repository,
    session: &Session<'r>,
    writers: &mut Writers,
    finder: &mut Finder<'_>,
    damage: &Damage,
    options: &PacksOptions,
    monitor: &dyn Monitor,
) -> Result<Found, RepairError> {
    let fold = repository.fold();
    let mut search = Search {
        repository,
        session,
        writers,
        finder,
        damage,
        monitor,
        // Apart from the index, to which others may add meanwhile.
        met: Met::of(repository.index(), repository.index().segments().to_vec()),
        blobs: 0,
        failure: None,
        found: Found::default(),
    };
    let mut roots = Vec::new();
    for entry in fold.snapshots() {
        search.record(*entry.snapshot.blob(), &entry.record)?;
        // A record that cannot be read leads nowhere: the check names it.
        roots.extend(
            snapshot_record(repository.keys(), entry.snapshot, &entry.record).map(|snapshot| snapshot.tree),
        );
    }
    let threads = budget::followers(options.threads, options.memory);
    let result = reach::follow(repository.reader(), roots, &mut search, threads);
    if let Some(failure) = search.failure {
        return Err(failure);
    }
    match result {
        Ok(()) => Ok(search.found),
        Err(ReachError::Cancelled) => Err(RepairError::Cancelled),
        Err(error) => Err(error.into()),
    }
}

struct Search<'a, 'r, 'f> {
    repository: &'r Repository,
    session: &'a Session<'r>,
    writers: &'a mut Writers,
    finder: &'a mut Finder<'f>,
    damage: &'a Damage,
    monitor: &'a dyn Monitor,
    /// Trees that were come to.
    met: Met,
    blobs: u64,
    /// Why the walk was ended, where that is no error of its own.
    failure: Option<RepairError>,
    found: Found,
}

impl Search<'_, '_, '_> {
    /// Makes sure of a snapshot's record, which the log has as well.
    fn record(&mut self, id: BlobId, record: &[u8]) -> Result<(), RepairError> {
        match self.repository.reader().read(BlobKind::Snapshot, &id) {
            // One that came alone is in the log only.
            Ok(_) | Err(ReadError::Missing { .. }) => return Ok(()),
            Err(error) if is_lost(&error) => self.suspect(&error),
            Err(ReadError::Index(error)) => return Err(RepositoryError::from(error).into()),
            Err(error) => return Err(RepairError::Read(error)),
        }
        if self.repository.keys().blob_id(BlobKind::Snapshot, record) != id {
            self.found.wanted.insert(id, BlobKind::Snapshot);
        } else if self.session.claim_anyway(&id) {
            self.writers.put(BlobKind::Snapshot, id, record, true)?;
            self.found.from_log += 1;
        }
        Ok(())
    }

    fn suspect(&mut self, error: &ReadError) {
        if let ReadError::Pack { pack, .. } | ReadError::Backend { pack, .. } = error
            && !self.damage.missing.contains_key(pack)
            && !self.damage.suspects.contains_key(pack)
        {
            self.found.suspects.insert(*pack);
        }
    }

    fn home(&self, id: &BlobId, fits: &dyn Fn(&Location) -> bool) -> Result<Option<Location>, ReachError> {
        self.damage.home(self.repository.index(), id, fits).map_err(|error| ReadError::Index(error).into())
    }

    /// A tree that is lost here, from elsewhere.
    fn fetch(&mut self, id: &BlobId) -> Result<Option<Vec<u8>>, RepairError> {
        let counted = (self.finder.from_unlisted, self.finder.from_other);
        let bytes = self.finder.tree(id)?;
        if let Some(bytes) = &bytes {
            if self.session.claim_anyway(id) {
                self.writers.put(BlobKind::Tree, *id, bytes, true)?;
            } else {
                // An earlier search has fetched it.
                (self.finder.from_unlisted, self.finder.from_other) = counted;
            }
        }
        Ok(bytes)
    }
}

impl Needs for Search<'_, '_, '_> {
    fn tree(&mut self, id: &BlobId) -> Result<Option<Location>, ReachError> {
        if !self.met.is_new(id).map_err(ReadError::Index)? {
            return Ok(None);
        }
        let home = self.home(id, &is_metadata)?;
        home.map(Some).ok_or(ReachError::Read(ReadError::Missing { id: *id, kind: BlobKind::Tree }))
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), ReachError> {
        self.blobs += 1;
        if self.blobs.is_multiple_of(1 << 16) {
            self.monitor.progress(&Progress::default());
        }
        let is_home =
            |at: &Location| at.entry.len == chunk.len && at.pack.header.kind == ObjectKind::DataPack;
        if self.home(&chunk.id, &is_home)?.is_none() {
            self.found.wanted.insert(chunk.id, BlobKind::Data);
        }
        Ok(())
    }

    fn unreadable(&mut self, id: &BlobId, error: ReachError) -> Result<Option<Vec<u8>>, ReachError> {
        match &error {
            ReachError::Read(read) if is_lost(read) => self.suspect(read),
            // Its bytes are those of its id: whoever wrote it wrote nonsense, and no copy is better.
            ReachError::Record { .. } | ReachError::Table { .. } => return Ok(None),
            _ => return Err(error),
        }
        match self.fetch(id) {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                self.found.wanted.insert(*id, BlobKind::Tree);
                Ok(None)
            }
            Err(failure) => {
                self.failure = Some(failure);
                Err(ReachError::Cancelled)
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.monitor.is_cancelled()
    }
}
