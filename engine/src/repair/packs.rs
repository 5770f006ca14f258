//! Repairing packs: salvage, heal, and go on without what is damaged.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::backend::{self, Backend, Created, ObjectKey};
use crate::backup::{self, BackupOptions, RestsOn, Session};
use crate::check::{self, CheckOptions};
use crate::crypto::keys::BlobKind;
use crate::format::segment::PackEntry;
use crate::ids::{BlobId, PackId};
use crate::monitor::{Monitor, Silent};
use crate::repair::damage::{Damage, Suspect, forgive};
use crate::repair::heal::{Finder, Wanted};
use crate::repair::release::Release;
use crate::repair::salvage::{self, Counts};
use crate::repair::{
    ATTEMPTS, DamagedPack, Fate, LostBlob, PacksOptions, PacksReport, RepairError, Sources, search,
};
use crate::repo::{Repository, RepositoryError};
use crate::sidecar::{self, MendError};
use crate::store::{BlobWriter, StoreError};
use crate::vet::{self, Strictness};

/// Repairs packs. What is damaged is found, salvaged, looked for elsewhere, and taken out of the index; what is lost all the
/// same is in the report.
///
/// # Errors
/// [`RepairError`]. A pack that is lost is no error but part of the report.
pub fn run(
    repository: &Repository,
    options: &PacksOptions,
    sources: &Sources<'_>,
    monitor: &dyn Monitor,
) -> Result<PacksReport, RepairError> {
    if let Some(other) = sources.repository {
        check_other(repository, other)?;
    }
    for path in &sources.paths {
        // Before anything is given up for lost.
        let found = std::fs::symlink_metadata(path);
        found.map_err(|source| RepairError::Path { path: path.clone(), source })?;
    }
    repository.refresh()?;
    // What is not as it says stays apart until the rest is repaired.
    let unsound = match options.dry_run {
        true => Vec::new(),
        false => vet::run(repository, Strictness::WholeSegments, &Silent)?.damaged,
    };
    for _ in 0..ATTEMPTS {
        repository.refresh()?;
        let mut repair = Repair {
            repository,
            options,
            sources,
            monitor,
            base: repository.fold().seq(),
            unsound: &unsound,
            damage: Damage::default(),
            report: PacksReport { dry_run: options.dry_run, ..PacksReport::default() },
        };
        match repair.all() {
            Ok(()) => {
                if !options.dry_run {
                    vet::run(repository, Strictness::WhatIsTrue, monitor)?;
                }
                return repair.finish();
            }
            Err(error) if repair.was_pruned(&error)? => {}
            Err(error) => return Err(error),
        }
    }
    Err(RepairError::Overtaken)
}

/// Makes sure that blobs of the other repository can be this one's.
fn check_other(repository: &Repository, other: &Repository) -> Result<(), RepairError> {
    let location = other.location();
    if location == repository.location() {
        return Err(RepairError::Itself { location });
    }
    let probe = |repository: &Repository| repository.keys().blob_id(BlobKind::Data, b"the same secrets?");
    if probe(repository) != probe(other) {
        return Err(RepairError::Foreign { location });
    }
    Ok(())
}

/// Writers into the two kinds of packs.
pub(super) struct Writers {
    data: BlobWriter,
    trees: BlobWriter,
}

impl Writers {
    pub fn new(session: &Session<'_>) -> Self {
        Self { data: session.data_writer(), trees: session.tree_writer() }
    }

    /// Stores a blob whose id was verified.
    pub fn put(
        &mut self,
        kind: BlobKind,
        id: BlobId,
        bytes: &[u8],
        compress: bool,
    ) -> Result<(), StoreError> {
        let writer = if kind == BlobKind::Data { &mut self.data } else { &mut self.trees };
        writer.put(kind, id, bytes, compress)
    }
}

/// What is wrong with a missing pack.
const MISSING: &str = "it is not there";

struct Repair<'a> {
    repository: &'a Repository,
    options: &'a PacksOptions,
    sources: &'a Sources<'a>,
    monitor: &'a dyn Monitor,
    /// The last commit that the repair rests on.
    base: u64,
    /// Packs of appenders that vetting found damaged, which reads more than a check does.
    unsound: &'a [(PackEntry, String)],
    damage: Damage,
    report: PacksReport,
}

impl Repair<'_> {
    fn all(&mut self) -> Result<(), RepairError> {
        self.damage = Damage::find(self.repository, self.options, self.monitor)?;
        for (entry, problem) in self.unsound {
            // Those that are not there any more, or were taken out of the index meanwhile, give nothing.
            let is_part = !self.repository.is_pack_gone(&entry.id);
            if is_part && !self.damage.missing.contains_key(&entry.id) {
                self.damage.suspect(*entry, problem.clone());
            }
        }
        let mut finder = Finder::new(self.repository, self.sources.repository, self.monitor);
        self.mend()?;
        if self.options.dry_run && self.damage.is_none() && !self.report.packs.is_empty() {
            // All of it would be whole, and reading it now tells nothing.
            return Ok(());
        }
        self.copy_whole(&finder)?;
        let mut released = false;
        loop {
            let mut wanted = self.round(&mut finder, !released)?;
            released = true;
            let has_tree = self.read_sources(&mut wanted)?;
            self.set_lost(&wanted);
            // What was below a tree that is there again was not looked at.
            if !has_tree || self.options.dry_run {
                break;
            }
        }
        self.report.healed.from_unlisted_packs = finder.from_unlisted;
        self.report.healed.from_repository = finder.from_other;
        Ok(())
    }

    fn session_options(&self) -> BackupOptions {
        let PacksOptions { level, threads, memory, dry_run, .. } = *self.options;
        BackupOptions { level, threads, memory, dry_run, ..BackupOptions::default() }
    }

    /// Gives packs their bytes back that have enough parity.
    fn mend(&mut self) -> Result<(), RepairError> {
        let backend = &**self.repository.backend();
        let suspects = self.damage.suspects.values().map(|suspect| (suspect.entry, suspect.problem.clone()));
        let missing = self.damage.missing.values().map(|entry| (*entry, MISSING.to_owned()));
        let damaged: Vec<_> = suspects.chain(missing).collect();
        for (entry, problem) in damaged {
            if self.monitor.is_cancelled() {
                return Err(RepairError::Cancelled);
            }
            let key = ObjectKey::pack(&entry.id);
            // Whatever parity cannot do, the other ways may.
            let Some(mending) = sidecar::mend_if_possible(backend, &key)? else { continue };
            let mended = match self.options.dry_run {
                _ if mending.is_intact() => Err(MendError::Changed),
                true => mending.test(),
                false => mending.replace(backend, &key),
            };
            match mended {
                Ok(()) => {}
                Err(MendError::Backend(error)) => return Err(error.into()),
                Err(MendError::Changed) => {
                    // Somebody has put it back, which no commit says: what it gives by now is not lost.
                    if self.damage.missing.remove(&entry.id).is_some() {
                        self.damage.suspect(entry, problem);
                    }
                    continue;
                }
                Err(_) => continue,
            }
            self.damage.missing.remove(&entry.id);
            self.damage.suspects.remove(&entry.id);
            self.report.packs.push(DamagedPack {
                pack: entry.id,
                problem,
                blobs: entry.blobs.into(),
                unreadable: 0,
                fate: Fate::Mended,
            });
        }
        Ok(())
    }

    /// Puts missing packs back that a copy of the repository has.
    fn copy_whole(&mut self, finder: &Finder<'_>) -> Result<(), RepairError> {
        for (id, entry) in self.damage.missing.clone() {
            if self.monitor.is_cancelled() {
                return Err(RepairError::Cancelled);
            }
            let Some(bytes) = finder.whole_pack(&entry) else { continue };
            if !self.options.dry_run {
                let key = ObjectKey::pack(&id);
                match self.repository.backend().create(&key, &bytes) {
                    Ok(Created::New | Created::Exists) => {}
                    Err(error) => return Err(error.into()),
                }
                if let Some(cover) = self.repository.cover() {
                    cover.object(&**self.repository.backend(), &key);
                }
            }
            self.report.bytes_written += bytes.len() as u64;
            if !self.options.dry_run {
                // In a dry run its blobs are looked for one by one: they are still not there.
                self.damage.missing.remove(&id);
            }
            self.report.packs.push(DamagedPack {
                pack: id,
                problem: MISSING.into(),
                blobs: entry.blobs.into(),
                unreadable: entry.blobs.into(),
                fate: Fate::Copied,
            });
        }
        Ok(())
    }

    /// Salvages, looks for what is lost, and commits both. Returns what is still lost.
    fn round(&mut self, finder: &mut Finder<'_>, release: bool) -> Result<Wanted, RepairError> {
        let session = Session::new(self.repository, &self.session_options())?;
        let mut writers = Writers::new(&session);
        let mut counts = BTreeMap::new();
        let mut found = loop {
            let new: Vec<Suspect> = self
                .damage
                .suspects
                .iter()
                .filter(|(pack, _)| release && !counts.contains_key(*pack))
                .map(|(_, suspect)| suspect.clone())
                .collect();
            let (repository, monitor) = (self.repository, self.monitor);
            let salvaged = salvage::run(repository, &session, &mut writers, &new, &mut self.damage, monitor)?;
            self.damage.suspects.retain(|pack, _| salvaged.get(pack).is_none_or(|counts| !counts.is_sound));
            counts.extend(salvaged);
            let options = self.options;
            let found =
                search::run(repository, &session, &mut writers, finder, &self.damage, options, monitor)?;
            self.report.healed.from_log += found.from_log;
            // Each pack is salvaged once: what it does not give then, it does not give.
            let new = found.suspects.iter().copied().filter(|pack| !counts.contains_key(pack)).collect();
            if !release || !self.add_suspects(&new)? {
                break found;
            }
        };
        finder.find(&mut found.wanted, &mut |kind, id, bytes| {
            if session.claim_anyway(&id) {
                writers.put(kind, id, bytes, true)?;
            }
            Ok(())
        })?;
        if release {
            self.tell_packs(&counts);
        }
        self.commit(&session, &mut writers, release)?;
        Ok(found.wanted)
    }

    /// Adds packs that turned out to be damaged while trees were read. True where there are new ones.
    fn add_suspects(&mut self, packs: &BTreeSet<PackId>) -> Result<bool, RepairError> {
        if packs.is_empty() {
            return Ok(false);
        }
        let mut entries: BTreeMap<PackId, PackEntry> = BTreeMap::new();
        let index = self.repository.index();
        for segment in index.segments().iter() {
            for pack in segment.packs() {
                let pack = pack?;
                if packs.contains(&pack.id) {
                    entries.entry(pack.id).or_insert(pack);
                }
            }
        }
        // What appenders say of a pack comes last, and counts where nobody else says anything.
        for segment in index.appended().iter() {
            for pack in segment.packs() {
                let Some(pack) = forgive(pack)? else { break };
                if packs.contains(&pack.id) {
                    entries.entry(pack.id).or_insert(pack);
                }
            }
        }
        for entry in entries.values() {
            self.damage.suspect(*entry, "trees in it cannot be read".into());
        }
        Ok(!entries.is_empty())
    }

    fn tell_packs(&mut self, counts: &BTreeMap<PackId, Counts>) {
        let copied: BTreeSet<PackId> = self.report.packs.iter().map(|pack| pack.pack).collect();
        for entry in self.damage.missing.values().filter(|entry| !copied.contains(&entry.id)) {
            self.report.packs.push(DamagedPack {
                pack: entry.id,
                problem: MISSING.into(),
                blobs: entry.blobs.into(),
                unreadable: entry.blobs.into(),
                fate: Fate::Dropped,
            });
        }
        for (pack, suspect) in &self.damage.suspects {
            let counts = counts.get(pack).copied().unwrap_or_default();
            self.report.salvaged += counts.written;
            self.report.packs.push(DamagedPack {
                pack: *pack,
                problem: suspect.problem.clone(),
                blobs: counts.blobs,
                unreadable: counts.unreadable,
                fate: Fate::Dropped,
            });
        }
        let known: BTreeSet<PackId> = self.report.packs.iter().map(|pack| pack.pack).collect();
        let sound = |pack: &PackId| DamagedPack {
            pack: *pack,
            problem: String::new(),
            blobs: 0,
            unreadable: 0,
            fate: Fate::Sound,
        };
        self.report.packs.extend(self.options.packs.iter().filter(|pack| !known.contains(*pack)).map(sound));
        self.report.packs.sort_by_key(|pack| pack.pack);
    }

    fn commit(
        &mut self,
        session: &Session<'_>,
        writers: &mut Writers,
        release: bool,
    ) -> Result<(), RepairError> {
        writers.data.flush()?;
        let packs = match release && !self.damage.is_none() {
            true => self.damage.to_release(),
            false => BTreeSet::new(),
        };
        let absent: Vec<PackId> =
            packs.iter().filter(|pack| self.damage.missing.contains_key(pack)).copied().collect();
        let mut change = Release::new(self.repository, packs);
        let (repository, base) = (self.repository, self.base);
        session.commit_with(&mut writers.trees, RestsOn::default(), &mut |fold| {
            // What was judged may have been moved or removed.
            if repository.last_prune() > base {
                return Err(RepositoryError::Conflict);
            }
            let changes = change.changes(fold)?;
            // Nor does the log say that somebody has put a pack back. As late as can be.
            for pack in &absent {
                if backend::size_of(&**repository.backend(), &ObjectKey::pack(pack))?.is_some() {
                    return Err(RepositoryError::Conflict);
                }
            }
            Ok(changes)
        })?;
        change.done()?;
        // This commit removed packs itself: what comes after it rests on it.
        self.base = repository.fold().seq();
        self.report.bytes_written += session.bytes_stored();
        if release && !self.options.dry_run {
            self.damage = Damage::default();
        }
        Ok(())
    }

    /// Looks for what is lost in the files that it was once read from. True where a tree was found.
    fn read_sources(&mut self, wanted: &mut Wanted) -> Result<bool, RepairError> {
        if wanted.is_empty() || self.sources.paths.is_empty() {
            return Ok(false);
        }
        let ids: HashSet<BlobId> = wanted.keys().copied().collect();
        let options = self.session_options();
        let found = backup::reinsert(self.repository, &self.sources.paths, &ids, &options, self.monitor)?;
        if self.monitor.is_cancelled() {
            return Err(RepairError::Cancelled);
        }
        self.base = self.repository.fold().seq();
        self.report.healed.from_paths += found.len() as u64;
        let mut has_tree = false;
        for id in &found {
            has_tree |= wanted.remove(id) == Some(BlobKind::Tree);
        }
        Ok(has_tree)
    }

    fn set_lost(&mut self, wanted: &Wanted) {
        self.report.lost_count = wanted.len() as u64;
        self.report.lost = wanted.iter().map(|(id, kind)| LostBlob::new(*id, *kind)).collect();
        self.report.lost.sort_unstable();
        self.report.lost.truncate(PacksReport::LOST_MAX);
    }

    /// Whether the repair failed because somebody pruned meanwhile.
    fn was_pruned(&self, error: &RepairError) -> Result<bool, RepairError> {
        match error {
            RepairError::Repository(RepositoryError::Conflict)
            | RepairError::Source(backup::BackupError::Repository(RepositoryError::Conflict)) => Ok(true),
            RepairError::Read(_) | RepairError::Reach(_) => {
                self.repository.refresh()?;
                Ok(self.repository.last_prune() > self.base)
            }
            _ => Ok(false),
        }
    }

    fn finish(mut self) -> Result<PacksReport, RepairError> {
        if !self.options.dry_run {
            let check = CheckOptions {
                threads: self.options.threads,
                memory: self.options.memory,
                spill: self.options.spill.clone(),
                ..CheckOptions::default()
            };
            self.report.after = Some(check::run(self.repository, &check, self.monitor)?);
        }
        Ok(self.report)
    }
}
