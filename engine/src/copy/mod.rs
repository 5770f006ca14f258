//! Copy: snapshots of one repository into another one, which has a password, keys and ids of its own.
//!
//! - `choice`: which snapshots are meant, and which of them are there already
//! - `renames`: what blobs of the source are called in the target, in a file
//! - `pairs`: the same, learnt from a snapshot that was copied before
//! - `content`: chunks, read in pack order, verified, named and sealed anew
//! - `trees`: trees with the new names, from the leaves up
//!
//! A blob's id depends on its repository's keys, so a chunk has to be read to know what it is called in the target. What is
//! in a snapshot copied before need not be: both its trees say the same of the same entries, and walking them side by side
//! tells both names of each chunk.
//!
//! Chunks stay as they are cut. The source's cut points follow from its keys: files that are backed up to the target
//! directly are cut elsewhere, and share no chunks with copies of the same files but for the shortest.
//!
//! What is stored is committed now and then, and is found again when a copy that was killed is repeated. A snapshot is
//! committed when everything below it is stored, as a backup is: where others pruned the target meanwhile, all that it rests on
//! is looked up first. Where others prune the source, the log is read on and blobs are read from where they are then.

mod choice;
mod content;
mod options;
mod pairs;
mod renames;
#[cfg(test)]
mod tests;
mod trees;

pub use options::{Choice, CopiedSnapshot, CopyError, CopyOptions, CopyReport, Fate};

use crate::backup::{BackupError, BackupOptions, Session};
use crate::budget;
use crate::format::snapshot::{Origin, Repaired, Snapshot};
use crate::ids::{BlobId, PackId, SnapshotId};
use crate::index::Gathered;
use crate::monitor::{Monitor, Problem};
use crate::reach::{self, ReachError};
use crate::repo::{Repository, RepositoryError};
use crate::reserve;

use choice::{Chosen, Known};
use content::Copier;
use renames::Renames;

/// How often a copy begins anew because others removed what it rests on.
const RETRIES: u32 = 3;

/// Why one snapshot cannot be copied, or the whole operation cannot go on.
enum Stop {
    /// Something of the snapshot is lost or damaged: others may be whole.
    Lost(String),
    /// Nothing can be copied.
    Failed(CopyError),
}

impl<E: Into<CopyError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Copies snapshots from `source` to `target`, oldest first. Those that are there already are left alone.
///
/// # Errors
/// [`CopyError`] where it cannot go on: snapshots copied by then are there. Of a snapshot that cannot be copied in whole nothing
/// is committed, and the report says so.
pub fn run(
    source: &Repository,
    target: &Repository,
    options: &CopyOptions,
    monitor: &dyn Monitor,
) -> Result<CopyReport, CopyError> {
    if source.id() == target.id() {
        return Err(CopyError::SameRepository { from: source.location(), to: target.location() });
    }
    options.check()?;
    source.require_full("read what is to be copied")?;
    target.require_full("take copies of another repository's snapshots").map_err(BackupError::Repository)?;
    for repository in [source, target] {
        repository.index().keep_pages(budget::cached_pages(options.memory) / 2);
    }
    let mut report = CopyReport { dry_run: options.dry_run, ..CopyReport::default() };
    for _ in 0..RETRIES {
        let base = target.fold().seq();
        match attempt(source, target, options, monitor, &mut report) {
            Err(CopyError::Target(BackupError::Repository(RepositoryError::Conflict))) => {
                target.refresh().map_err(BackupError::Repository)?;
            }
            // What could not be read may be what another prune has removed.
            Err(error @ CopyError::Target(BackupError::Read(_))) => {
                target.refresh().map_err(BackupError::Repository)?;
                if target.last_loss() <= base {
                    return Err(error);
                }
            }
            result => return result.map(|()| report),
        }
    }
    attempt(source, target, options, monitor, &mut report).map(|()| report)
}

fn attempt(
    source: &Repository,
    target: &Repository,
    options: &CopyOptions,
    monitor: &dyn Monitor,
    report: &mut CopyReport,
) -> Result<(), CopyError> {
    let chosen = choice::choose(source, options, monitor)?;
    if !matches!(options.choice, Choice::Named(_)) {
        report.unread = source.readable_snapshots().1.len() as u64;
    }
    let mut known = Known::of(source, target)?;
    if options.dry_run {
        report.snapshots = chosen.iter().map(|snapshot| known.verdict(snapshot, Fate::Planned)).collect();
        return Ok(());
    }
    let mut fates = Vec::with_capacity(chosen.len());
    if chosen.iter().all(|snapshot| known.copy_of(snapshot).is_some()) {
        fates.extend(chosen.iter().map(|snapshot| known.verdict(snapshot, Fate::Present)));
        report.take(fates);
        return Ok(());
    }
    let backup_options = BackupOptions {
        level: options.level,
        threads: options.threads,
        memory: options.memory,
        blobs_per_commit: options.blobs_per_commit,
        ..BackupOptions::default()
    };
    let session = Session::new(target, &backup_options)?;
    let renames = learn(source, &session, &chosen, &known, options)?;
    let mut copier = Copier::new(source, &session, renames, options, monitor);
    for snapshot in &chosen {
        if known.copy_of(snapshot).is_some() {
            fates.push(known.verdict(snapshot, Fate::Present));
            continue;
        }
        let verdict = match copy(source, &mut copier, snapshot, &known) {
            Ok(id) => {
                known.add(snapshot, id);
                known.verdict(snapshot, Fate::Copied)
            }
            Err(Stop::Lost(reason)) => {
                known.verdict(snapshot, not_copied(source, snapshot, reason, monitor)?)
            }
            Err(Stop::Failed(error)) => {
                // What was stored is found again if it is part of the index.
                if matches!(error, CopyError::Cancelled) {
                    copier.commit_blobs()?;
                }
                copier.count(report);
                report.take(fates);
                return Err(error);
            }
        };
        fates.push(verdict);
    }
    copier.commit_blobs()?;
    copier.count(report);
    report.take(fates);
    if let Err(error) = target.merge_segments() {
        let message = format!("the snapshots are copied, but segments of the index were not merged: {error}");
        monitor.problem(&Problem { code: "index-not-merged", path: None, message, is_error: false });
    }
    // Nothing rests on it: a check tells where it is too short.
    let _ = reserve::keep_up(target);
    Ok(())
}

/// What snapshots copied before tell. One that does not fit tells nothing.
fn learn(
    source: &Repository,
    session: &Session<'_>,
    chosen: &[Chosen],
    known: &Known,
    options: &CopyOptions,
) -> Result<Renames, CopyError> {
    let target = session.repository;
    let of_pairs = |pairs: &[(BlobId, BlobId)]| -> Result<Result<Renames, usize>, CopyError> {
        let mut renames = Renames::new(options.spill.as_deref())?;
        let mut relied_on = Gathered::new(options.spill.clone());
        for (at, pair) in pairs.iter().enumerate() {
            if !pairs::learn(source.reader(), target.reader(), *pair, &mut renames, &mut relied_on)? {
                return Ok(Err(at));
            }
        }
        Ok(if are_there(session, relied_on).map_err(BackupError::from)? {
            Ok(renames)
        } else {
            Err(pairs.len())
        })
    };
    let mut pairs = choice::pairs(source, target, chosen, known)?;
    loop {
        match of_pairs(&pairs)? {
            Ok(renames) => return Ok(renames),
            Err(at) if at < pairs.len() => _ = pairs.remove(at),
            // Some of them lack something. Which ones, each of them tells by itself.
            Err(_) => {
                let mut fit = Vec::new();
                for pair in &pairs {
                    fit.extend(of_pairs(&[*pair])?.is_ok().then_some(*pair));
                }
                // Where all of them fit now, others have changed the index meanwhile: without them it takes longer, and is right.
                pairs = if fit.len() < pairs.len() { fit } else { Vec::new() };
            }
        }
    }
}

/// Whether the target's index lists all of these chunks, in packs that no check found damaged.
fn are_there(session: &Session<'_>, chunks: Gathered) -> Result<bool, RepositoryError> {
    let index = session.repository.index();
    let is_home = |pack: &PackId| !session.in_doubt().contains(pack);
    let mut are_there = true;
    chunks.sift(&index.segments(), &is_home, &mut |id| {
        are_there &= index.known_where(id, &|at| is_home(&at.pack.id))?.is_some();
        Ok::<_, RepositoryError>(())
    })?;
    Ok(are_there)
}

/// Copies one snapshot and commits it.
fn copy(
    source: &Repository,
    copier: &mut Copier<'_, '_>,
    chosen: &Chosen,
    known: &Known,
) -> Result<SnapshotId, Stop> {
    let root = chosen.snapshot.tree;
    let threads = copier.threads();
    let followed = reach::follow(source.reader(), [root], copier, threads);
    copier.settle(followed)?;
    let tree = trees::rewrite(source.reader(), copier, root)?;
    Ok(copier.commit(&record(chosen, tree, known))?)
}

/// What the target says of a snapshot: what the source says, in its own names.
fn record(chosen: &Chosen, tree: BlobId, known: &Known) -> Snapshot {
    let snapshot = chosen.snapshot.clone();
    let (repository, original) = chosen.identity;
    let (added, appender) = (chosen.added, chosen.appender);
    let origin = Origin { repository, snapshot: original, added, appender };
    Snapshot {
        tree,
        parent: snapshot.parent.and_then(|parent| known.copy_of_id(&parent)),
        // That commit is one of another log.
        repaired: snapshot.repaired.map(|repaired| Repaired { added: u64::MAX, ..repaired }),
        origin: (repository != known.target() || appender.is_some()).then_some(origin),
        ..snapshot
    }
}

/// Why a snapshot that lacks something was not copied.
fn not_copied(
    source: &Repository,
    chosen: &Chosen,
    reason: String,
    monitor: &dyn Monitor,
) -> Result<Fate, CopyError> {
    source.refresh()?;
    if source.fold().snapshot(&chosen.id).is_none() {
        let message = format!("snapshot {} was forgotten while it was copied", chosen.id.short());
        monitor.problem(&Problem { code: "snapshot-forgotten", path: None, message, is_error: true });
        return Ok(Fate::Forgotten);
    }
    let message = format!("snapshot {} cannot be copied: {reason}", chosen.id.short());
    monitor.problem(&Problem { code: "snapshot-damaged", path: None, message, is_error: true });
    Ok(Fate::Damaged { reason })
}

/// A walk that ended: what its own callbacks failed with is told by these.
fn is_cancelled(error: &ReachError) -> bool {
    matches!(error, ReachError::Cancelled)
}
