//! Which packs and which blobs in them cannot be had.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::check::{self, CheckOptions, ReadData};
use crate::format::header::ObjectKind;
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId};
use crate::index::{Index, IndexError, Location};
use crate::monitor::Monitor;
use crate::repair::{PacksOptions, RepairError};
use crate::repo::Repository;

/// Missing packs that are not yet a sign of something else: see [`RepairError::Mass`].
const MASS_MIN: usize = 10;

/// A pack with something wrong.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    /// What segments say of it.
    pub entry: PackEntry,
    /// What is wrong.
    pub problem: String,
}

/// What is known to be lost of the packs that segments list.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Packs that are not there.
    pub missing: BTreeMap<PackId, PackEntry>,
    /// Those of them that only appenders list: the log has nothing to say of them once their segments are dropped.
    pub never_known: BTreeSet<PackId>,
    /// Packs that are there and not in order.
    pub suspects: BTreeMap<PackId, Suspect>,
    /// Blobs that a suspect does not give.
    pub bad: HashSet<(PackId, BlobId)>,
}

impl Damage {
    /// Looks at all packs: at their lengths and directories, and at all of their bytes where the options say so.
    pub fn find(
        repository: &Repository,
        options: &PacksOptions,
        monitor: &dyn Monitor,
    ) -> Result<Self, RepairError> {
        let read_data = if options.read_data { ReadData::All } else { ReadData::No };
        let check = CheckOptions {
            read_data,
            threads: options.threads,
            memory: options.memory,
            ..CheckOptions::default()
        };
        let named: BTreeSet<PackId> = options.packs.iter().copied().collect();
        let found = check::packs_in_doubt(repository, &check, &named, monitor)?;
        if found.cancelled {
            return Err(RepairError::Cancelled);
        }
        if let Some(finding) = found.index_damage {
            return Err(RepairError::IndexDamaged { object: finding.object, problem: finding.message });
        }
        if let Some(unknown) = named.iter().find(|pack| !found.packs.contains_key(pack)) {
            return Err(RepairError::UnknownPack(*unknown));
        }
        // An appender can list any number of packs that never were: they say nothing of what is there.
        let is_missing = |pack: &check::Judged| pack.doubt == check::Doubt::Missing;
        let known = || found.packs.values().filter(|pack| !pack.is_appended);
        let (total, missing) = (known().count(), known().filter(|pack| is_missing(pack)).count());
        let mut damage = Self::default();
        for (id, pack) in found.packs {
            match pack.doubt {
                check::Doubt::None => {}
                check::Doubt::Missing => {
                    damage.missing.insert(id, pack.entry);
                    if pack.is_appended {
                        damage.never_known.insert(id);
                    }
                }
                check::Doubt::Damaged(problem) => damage.suspect(pack.entry, problem),
            }
        }
        if missing > MASS_MIN && missing > total / 2 && !options.allow_mass {
            return Err(RepairError::Mass { missing, total });
        }
        Ok(damage)
    }

    /// Adds a pack to be salvaged.
    pub fn suspect(&mut self, entry: PackEntry, problem: String) {
        self.suspects.entry(entry.id).or_insert(Suspect { entry, problem });
    }

    /// Packs that the index goes on without. Whatever an appender lists that is not there goes with its segment: the log is not to
    /// name packs because an appender made them up.
    pub fn to_release(&self) -> BTreeSet<PackId> {
        let missing = self.missing.keys().filter(|pack| !self.never_known.contains(*pack));
        missing.chain(self.suspects.keys()).copied().collect()
    }

    /// Whether nothing is known to be wrong.
    pub fn is_none(&self) -> bool {
        self.missing.is_empty() && self.suspects.is_empty()
    }

    /// Whether the blob is where this place says, as far as is known.
    pub fn is_home(&self, location: &Location) -> bool {
        let pack = &location.pack.id;
        !self.missing.contains_key(pack)
            && (self.bad.is_empty() || !self.bad.contains(&(*pack, location.entry.id)))
    }

    /// A place of a blob that fits and gives it, as far as is known.
    pub fn home(
        &self,
        index: &Index,
        id: &BlobId,
        fits: &dyn Fn(&Location) -> bool,
    ) -> Result<Option<Location>, IndexError> {
        let is_good = |location: &Location| fits(location) && self.is_home(location);
        if let Some(known) = index.known_where(id, &is_good)? {
            return Ok(Some(known));
        }
        Ok(forgive(index.appended_only(id))?.unwrap_or_default().into_iter().find(is_good))
    }
}

/// What came of reading a segment that an appender added; none where that is its own fault. It must not end a repair: what it may
/// have said is looked for in packs that no other segment lists.
pub(super) fn forgive<T>(result: Result<T, IndexError>) -> Result<Option<T>, IndexError> {
    match result {
        Err(error) if error.is_loss() => Ok(None),
        result => result.map(Some),
    }
}

/// Whether a place is one for trees and records.
pub(super) fn is_metadata(location: &Location) -> bool {
    location.pack.header.kind == ObjectKind::MetadataPack
}
