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
        let total = found.packs.len();
        let mut damage = Self::default();
        for (pack, (entry, doubt)) in found.packs {
            match doubt {
                check::Doubt::None => {}
                check::Doubt::Missing => drop(damage.missing.insert(pack, entry)),
                check::Doubt::Damaged(problem) => damage.suspect(entry, problem),
            }
        }
        let missing = damage.missing.len();
        if missing > MASS_MIN && missing > total / 2 && !options.allow_mass {
            return Err(RepairError::Mass { missing, total });
        }
        Ok(damage)
    }

    /// Adds a pack to be salvaged.
    pub fn suspect(&mut self, entry: PackEntry, problem: String) {
        self.suspects.entry(entry.id).or_insert(Suspect { entry, problem });
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
        match index.get(id)? {
            None => Ok(None),
            Some(location) if fits(&location) && self.is_home(&location) => Ok(Some(location)),
            Some(_) => {
                let all = index.get_all(id)?;
                Ok(all.into_iter().find(|location| fits(location) && self.is_home(location)))
            }
        }
    }
}

/// Whether a place is one for trees and records.
pub(super) fn is_metadata(location: &Location) -> bool {
    location.pack.header.kind == ObjectKind::MetadataPack
}
