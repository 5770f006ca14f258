//! The commit that lets condemned packs be deleted, and the deletion.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::backend::ObjectKey;
use crate::footprint;
use crate::format::commit::Change;
use crate::format::tree::Timestamp;
use crate::ids::PackId;
use crate::log::{self, Fold};
use crate::prune::at_work::AtWork;
use crate::prune::{PruneError, PruneOptions, PruneReport};
use crate::repo::{Repository, RepositoryError};

/// Condemned packs whose grace is over, and that no run at work may need, with the commit that condemned each. Grace goes by clocks, and
/// is no part of what keeps data safe: with a wrong clock packs go too early or too late for the comfort of readers.
pub(super) fn due(
    repository: &Repository,
    options: &PruneOptions,
    at_work: &mut AtWork,
    is_wanted: &dyn Fn(&PackId) -> bool,
) -> Result<BTreeMap<PackId, u64>, PruneError> {
    let mut due = over(repository, options.grace, at_work, is_wanted)?;
    due.retain(|_, seq| awaited(repository, options, at_work, *seq) == 0);
    Ok(due)
}

/// How many condemned packs whose grace is over stay because of runs at work, and of how many of these at most.
pub(super) fn awaiting(
    repository: &Repository,
    options: &PruneOptions,
    at_work: &mut AtWork,
) -> Result<(usize, usize), PruneError> {
    let over = over(repository, options.grace, at_work, &|_| true)?;
    let runs = over.values().map(|seq| awaited(repository, options, at_work, *seq)).filter(|runs| *runs > 0);
    Ok((runs.clone().count(), runs.max().unwrap_or(0)))
}

/// For how many runs at work packs stay that commit `seq` condemns.
pub(super) fn awaited(repository: &Repository, options: &PruneOptions, at_work: &AtWork, seq: u64) -> usize {
    if options.waits { at_work.since_before(seq, (repository.environment().now)()) } else { 0 }
}

/// Condemned packs whose grace is over. The log is read on to where the repository has it.
fn over(
    repository: &Repository,
    grace: Duration,
    at_work: &mut AtWork,
    is_wanted: &dyn Fn(&PackId) -> bool,
) -> Result<BTreeMap<PackId, u64>, PruneError> {
    let fold = repository.fold();
    at_work.read_on(repository, fold.seq())?;
    let now = (repository.environment().now)();
    let mut over: BTreeMap<u64, bool> = BTreeMap::new();
    let mut due = BTreeMap::new();
    for (pack, seq) in fold.condemned().filter(|(pack, _)| is_wanted(pack)) {
        let is_over = match over.get(&seq) {
            Some(is_over) => *is_over,
            None => {
                let is_over = grace.is_zero() || is_over(repository, seq, grace, now)?;
                over.insert(seq, is_over);
                is_over
            }
        };
        if is_over {
            due.insert(*pack, seq);
        }
    }
    Ok(due)
}

fn is_over(repository: &Repository, seq: u64, grace: Duration, now: Timestamp) -> Result<bool, PruneError> {
    let (backend, keys) = (&**repository.backend(), repository.keys());
    let condemned = log::commit_time(backend, keys, &repository.id(), seq)
        .map_err(|error| PruneError::Repository(error.into()))?;
    let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    Ok(condemned.is_some_and(|time| time.seconds.saturating_add(grace) <= now.seconds))
}

/// What the index lists, appenders aside. No condemned pack should be among it; were one to be all the same, it is not to be lost for
/// that.
fn listed(repository: &Repository) -> Result<HashSet<PackId>, RepositoryError> {
    let mut listed = HashSet::new();
    for segment in repository.index().segments().iter() {
        for pack in segment.packs() {
            listed.insert(pack?.id);
        }
    }
    Ok(listed)
}

/// Removes packs that are still condemned by the same commit, and deletes their objects once that is published. In a dry run, only
/// counts them.
pub(super) fn run(
    repository: &Repository,
    due: &BTreeMap<PackId, u64>,
    dry_run: bool,
    report: &mut PruneReport,
) -> Result<(), PruneError> {
    if due.is_empty() {
        return Ok(());
    }
    let mut removed: Vec<PackId> = Vec::new();
    let mut choose = |fold: &Fold| -> Result<Vec<Change>, RepositoryError> {
        repository.require_all_commits(fold, "No pack was removed")?;
        let listed = listed(repository)?;
        // Rescued and condemned again: another grace has begun.
        let is_due = |(id, seq): &(&PackId, &u64)| fold.condemned_since(id) == Some(**seq);
        removed = due.iter().filter(is_due).map(|(id, _)| *id).filter(|id| !listed.contains(id)).collect();
        let change = Change::PacksRemoved { packs: removed.clone() };
        Ok(if removed.is_empty() { Vec::new() } else { vec![change] })
    };
    if dry_run {
        choose(&repository.fold())?;
    } else {
        repository.commit(&mut choose)?;
    }
    for pack in &removed {
        let key = ObjectKey::pack(pack);
        // Only to tell how much was freed; one that is gone already frees nothing.
        report.packs_removed_bytes += repository.backend().stat(&key).map_or(0, |info| info.size);
        report.bytes_deleted += match dry_run {
            true => footprint::of(repository, &key),
            false => footprint::delete(repository, &key)?,
        };
    }
    report.packs_removed += removed.len() as u64;
    Ok(())
}
