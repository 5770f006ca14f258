//! What has to be true in the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use strongroom::backend::{Folder, MemoryBackend};
use strongroom::check::CheckReport;
use strongroom::format::commit::Change;
use strongroom::ids::{PackId, SnapshotId};
use strongroom::log;
use strongroom::parity;
use strongroom::repo::Repository;

use super::events;
use super::told::Told;
use super::world::{self, Who, back_up, check, prune, restore};
use super::{copies, passwords, upkeep};

/// Opens the repository as one who comes later: years after all clocks that were right, and before those that were not, so that
/// nobody is waited for who did not come to an end.
fn opener(storage: &MemoryBackend) -> impl FnMut() -> Result<Repository, String> {
    const LATER: i64 = 3 * 31_536_000;
    let (storage, mut process) = (storage.clone(), 900);
    move || {
        process += 1;
        world::open(Arc::new(storage.clone()), world::environment(7, process, LATER), Who::Full)
            .map_err(|error| format!("open: {error}"))
    }
}

/// Makes sure that nothing is lost and nothing is left behind, and that whoever comes next can go on.
///
/// # Errors
/// What is wrong.
pub fn audit(storage: &MemoryBackend, told: &Told) -> Result<(), String> {
    let mut open = opener(storage);
    let repository = open()?;
    whole(&repository, told)?;
    forgotten_as_asked(&repository, told)?;
    passwords::audit(storage, &told.passwords)?;
    let id = back_up(&open()?, 5).map_err(|error| format!("the next backup: {error}"))?.snapshot;
    prune_twice(&mut open, "the next prune")?;
    let repository = open()?;
    whole(&repository, told)?;
    if repository.fold().snapshot(&id.expect("a snapshot")).is_none() {
        return Err("the next backup is not there".into());
    }
    tidy(&repository, storage)?;
    if repository.fold().appended().next().is_some() {
        // Lies are all that is left, and a repair drops them.
        upkeep::repair_packs(&open()?, true).map_err(|error| format!("the repair: {error}"))?;
        prune_twice(&mut open, "the prune after the repair")?;
        let repository = open()?;
        if let Some((segment, _)) = repository.fold().appended().next() {
            return Err(format!("a repair left {segment}, which is a lie"));
        }
        tidy(&repository, storage)?;
        whole(&repository, told)?;
    }
    if told.with_upkeep { kept_up(storage, told) } else { Ok(()) }
}

fn prune_twice(open: &mut dyn FnMut() -> Result<Repository, String>, what: &str) -> Result<(), String> {
    for _ in 0..2 {
        prune(&open()?, Duration::ZERO).map_err(|error| format!("{what}: {error}"))?;
    }
    Ok(())
}

/// Makes sure that repairs, copies and parity get through, too, and change nothing that anybody was told.
fn kept_up(storage: &MemoryBackend, told: &Told) -> Result<(), String> {
    let mut open = opener(storage);
    upkeep::repair_index(&open()?).map_err(|error| format!("the next repair of the index: {error}"))?;
    upkeep::repair_lost(&open()?).map_err(|error| format!("the next search for snapshots: {error}"))?;
    let report = upkeep::repair_snapshots(&open()?);
    let report = report.map_err(|error| format!("the next repair of snapshots: {error}"))?;
    if report.commit.is_some() {
        return Err(format!("a snapshot lacks something: {report:#?}"));
    }
    let copied = copies::audit(&mut open)?;
    let mut told = told.clone();
    // A copy has the name of the one before, which may have been forgotten.
    copied.iter().for_each(|id| told.is_made(*id));
    if open()?.fold().parity().is_some() {
        for is_again in [false, true] {
            let report = upkeep::add_parity(&open()?).map_err(|error| format!("the next parity: {error}"))?;
            if !report.damaged.is_empty() || is_again && report.added > 0 {
                return Err(format!("not all is covered: {report:#?}"));
            }
        }
    }
    prune_twice(&mut open, "the last prune")?;
    let repository = open()?;
    tidy(&repository, storage)?;
    whole(&repository, &told)?;
    match copied.iter().find(|id| repository.fold().snapshot(id).is_none()) {
        Some(id) => Err(format!("the copy {id} is gone")),
        None => Ok(()),
    }
}

/// Makes sure that two prunes have left nothing behind but what only appenders list.
fn tidy(repository: &Repository, storage: &MemoryBackend) -> Result<(), String> {
    let objects = storage.objects();
    let stored = |folder| objects.iter().filter(move |(key, _)| key.folder() == Some(folder));
    let mut listed = BTreeSet::new();
    for segment in repository.index().everything() {
        listed.extend(segment.packs().map(|pack| pack.expect("readable").id));
    }
    let parity = parity::status(repository).map_err(|error| format!("parity: {error}"))?;
    if parity.others > 0 {
        return Err(format!("two prunes left parity of what is gone: {parity:?}"));
    }
    let unwanted = if parity.overhead.is_none() { stored(Folder::Parity).count() } else { 0 };
    if unwanted > 0 {
        return Err(format!("two prunes left {unwanted} sidecars, and no parity is wanted"));
    }
    let (segments, indexes) = (repository.fold().segments().count(), stored(Folder::Index).count());
    let is_stray = |pack: &PackId| !listed.contains(pack);
    let strays = stored(Folder::Packs).filter_map(|(key, _)| key.pack_id()).filter(is_stray).count();
    if strays > 0 || indexes != segments {
        return Err(format!("two prunes left {strays} packs, and {indexes} segments of {segments}"));
    }
    Ok(())
}

/// Whether a check found something wrong that nobody made up.
pub fn is_worse_than_lies(report: &CheckReport) -> bool {
    report.is_damaged()
        && report.findings.iter().any(|found| found.is_damage && found.code != "appended-untrue")
}

/// Makes sure that the repository is in order and gives back what was backed up.
fn whole(repository: &Repository, told: &Told) -> Result<(), String> {
    let report = check(repository, true).map_err(|error| format!("the check: {error}"))?;
    if is_worse_than_lies(&report)
        || report.overtaken
        || report.findings.iter().any(|found| found.code == "log-void")
    {
        return Err(format!("the check finds {:#?}", report.findings));
    }
    let live = repository.snapshots().map_err(|error| error.to_string())?;
    let is_live = |id: &SnapshotId| live.iter().any(|(live, _)| live == id);
    // What a policy takes nobody knows beforehand; the log says whether it was one.
    let is_lost = |id: &&SnapshotId| !is_live(id) && !told.policies;
    if let Some(lost) = told.made.difference(&told.forgotten).find(is_lost) {
        return Err(format!("snapshot {lost} was made, was not forgotten, and is gone"));
    }
    let fold = repository.fold();
    let is_held = |id: &SnapshotId| fold.snapshot(id).is_some_and(|entry| entry.hold.is_some());
    if let Some(id) = told.holds.certain().iter().find(|id| !is_held(id)) {
        return Err(format!("snapshot {id} was held, was not released, and is held no more"));
    }
    // Somebody who had begun before may have copied it once more, and ended before hearing of it.
    let is_back = |id: &SnapshotId| live.iter().any(|(live, record)| live == id && record.origin.is_none());
    if let Some(id) = told.gone.iter().find(|id| is_back(id)) {
        let added = fold.snapshot(id).map_or(0, |entry| entry.added);
        return Err(format!("snapshot {id} was forgotten and is there, added by entry {added}"));
    }
    for (id, snapshot) in &live {
        restore(repository, snapshot).map_err(|error| format!("restore of {id}: {error}"))?;
    }
    Ok(())
}

/// Makes sure that the log names no reason to forget a snapshot but that somebody wanted it, and that what is gone is named there.
fn forgotten_as_asked(repository: &Repository, told: &Told) -> Result<(), String> {
    let (mut gone, mut unasked) = (BTreeSet::new(), Vec::new());
    let (backend, keys) = (&**repository.backend(), repository.keys());
    let config = repository.fold().config();
    log::read_all(backend, keys, &repository.id(), config, &mut |entry| {
        let Ok(entry) = entry else { return };
        for change in entry.commit.changes {
            if entry.commit.seq > told.begun_at {
                events::saw_change(&change);
            }
            let Change::SnapshotForgotten { snapshot, reason } = change else { continue };
            gone.insert(snapshot);
            let is_asked = told.forgotten.contains(&snapshot)
                || told.policies && reason.contains("grouped by")
                // A partial one, of which all is in a complete one.
                || reason.starts_with("superseded by");
            if !is_asked && entry.commit.seq > told.begun_at {
                unasked.push(format!("snapshot {snapshot}: {reason}"));
            }
        }
    })
    .map_err(|error| format!("the log: {error}"))?;
    if !unasked.is_empty() {
        return Err(format!("forgotten although nobody wanted it: {unasked:#?}"));
    }
    if let Some(id) = told.gone.iter().find(|id| !gone.contains(id)) {
        return Err(format!(
            "somebody was told that snapshot {id} is forgotten, and the log does not say so"
        ));
    }
    match told.made.iter().find(|id| repository.fold().snapshot(id).is_none() && !gone.contains(id)) {
        Some(id) => Err(format!("snapshot {id} was made, and the log does not say that it was forgotten")),
        None => Ok(()),
    }
}
