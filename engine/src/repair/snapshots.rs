//! Repairing snapshots: of each that leads to something lost, one without it, which says so.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_bytes::ByteBuf;

use crate::backend::{Backend, Folder};
use crate::backup::{BackupError, BackupOptions, RestsOn, Session};
use crate::crypto::keys::BlobKind;
use crate::format::commit::Change;
use crate::format::note::{REPAIR_NOTE, RepairNote};
use crate::format::record;
use crate::format::snapshot::{Repaired, Snapshot, SnapshotSummary};
use crate::ids::{BlobId, PackId, SnapshotId};
use crate::log::{Fold, snapshot_record};
use crate::monitor::{Monitor, Problem, SNAPSHOT_UNREAD};
use crate::repair::rewrite::{Rewriter, Rewritten};
use crate::repair::{ATTEMPTS, RepairError, RepairedSnapshot, SnapshotsOptions, SnapshotsReport};
use crate::repo::{Repository, RepositoryError};

/// Bytes of paths that the note of one snapshot holds, and those of all together: a commit has a limit.
const NOTE_LEN_MAX: usize = 64 << 10;
const NOTES_LEN_MAX: usize = 8 << 20;

/// Repairs snapshots. What is lost is named in the report, in the commit, and counted in the repaired snapshot itself.
///
/// # Errors
/// [`RepairError`]: no snapshot was added or forgotten.
pub fn run(
    repository: &Repository,
    options: &SnapshotsOptions,
    monitor: &dyn Monitor,
) -> Result<SnapshotsReport, RepairError> {
    for _ in 0..ATTEMPTS {
        repository.refresh()?;
        let base = repository.fold().seq();
        match attempt(repository, options, monitor) {
            Err(RepairError::Source(BackupError::Repository(RepositoryError::Conflict))) => {}
            Err(error @ (RepairError::Read(_) | RepairError::Source(BackupError::Read(_)))) => {
                repository.refresh()?;
                if repository.last_prune() <= base {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
    Err(RepairError::Overtaken)
}

/// A snapshot to be committed in place of another.
struct Candidate {
    hit: RepairedSnapshot,
    record: Option<Vec<u8>>,
    tree: Option<BlobId>,
}

fn attempt(
    repository: &Repository,
    options: &SnapshotsOptions,
    monitor: &dyn Monitor,
) -> Result<SnapshotsReport, RepairError> {
    let SnapshotsOptions { dry_run, threads, memory, .. } = *options;
    let session_options = BackupOptions { dry_run, threads, memory, ..BackupOptions::default() };
    let session = Session::new(repository, &session_options)?;
    let mut rewriter = Rewriter::new(&session, stored_packs(repository)?, monitor);
    let fold = repository.fold();
    let mut report = SnapshotsReport { dry_run, ..SnapshotsReport::default() };
    let mut candidates = Vec::new();
    let mut entries: Vec<_> = fold.snapshots().collect();
    entries.sort_by_key(|entry| (entry.added, entry.snapshot));
    for entry in entries {
        if !options.snapshots.is_empty() && !options.snapshots.contains(&entry.snapshot) {
            continue;
        }
        let original = match snapshot_record(repository.keys(), entry.snapshot, &entry.record) {
            Ok(original) => original,
            // Nothing can be said of it, and the others are repaired without.
            Err(error) if options.snapshots.is_empty() => {
                let (path, message) = (None, error.to_string());
                monitor.problem(&Problem { code: SNAPSHOT_UNREAD, path, message, is_error: false });
                continue;
            }
            Err(error) => return Err(RepositoryError::from(error).into()),
        };
        report.checked += 1;
        let mut rewritten = rewriter.run(original.tree)?;
        if rewritten.lost_count > 0 {
            // A disk that fails once may give it the next time: what is to be given up for lost is asked for twice.
            rewritten = rewriter.run(original.tree)?;
        }
        if rewritten.lost_count > 0 {
            let (added, _) = original.position(entry.added);
            let appender = original.appender(entry.appender);
            let repaired = (
                original,
                Repaired { original: entry.snapshot, added, lost: rewritten.lost_count, appender },
            );
            candidates.push(candidate(repository, repaired, rewritten, entry.hold.clone()));
        }
    }
    for candidate in &mut candidates {
        let Some(record) = &candidate.record else { continue };
        let id = session.put(&mut rewriter.writer, BlobKind::Snapshot, record)?;
        candidate.hit.repaired = Some(SnapshotId::new(id)).filter(|_| !dry_run);
    }
    if !dry_run && !candidates.is_empty() {
        report.commit = commit(&session, &mut rewriter, &fold, &mut candidates, options.forget)?;
    }
    report.snapshots = candidates.into_iter().map(|candidate| candidate.hit).collect();
    Ok(report)
}

fn stored_packs(repository: &Repository) -> Result<BTreeMap<PackId, u64>, RepairError> {
    let mut stored = BTreeMap::new();
    repository.backend().list(Folder::Packs, None, &mut |info| {
        stored.extend(info.key.pack_id().map(|id| (id, info.size)));
        ControlFlow::Continue(())
    })?;
    Ok(stored)
}

fn candidate(
    repository: &Repository,
    (original, repaired): (Snapshot, Repaired),
    rewritten: Rewritten,
    hold: Option<String>,
) -> Candidate {
    let lost_count = rewritten.lost_count;
    let record = rewritten.tree.map(|tree| {
        let mut repaired = Snapshot {
            tree,
            repaired: Some(repaired),
            // It is not what it was copied from: that can be copied again.
            origin: None,
            program: repository.environment().program.clone(),
            summary: SnapshotSummary {
                files: rewritten.totals.files,
                directories: rewritten.totals.directories,
                bytes: rewritten.totals.bytes,
                errors: original.summary.errors.saturating_add(lost_count),
                unstable: original.summary.unstable,
                ..SnapshotSummary::default()
            },
            ..original
        };
        if !repaired.tags.iter().any(|tag| tag == Snapshot::REPAIRED_TAG) {
            repaired.tags.push(Snapshot::REPAIRED_TAG.into());
        }
        record::encode(&repaired)
    });
    let hit = RepairedSnapshot {
        original: repaired.original,
        repaired: None,
        lost: rewritten.lost,
        lost_count,
        is_lost: rewritten.tree.is_none(),
        forgotten: false,
        hold,
    };
    Candidate { hit, record, tree: rewritten.tree }
}

/// Commits all of them at once. What was forgotten meanwhile needs no repair, and what is lost by the index that it was `judged` by may
/// be found by a later one, or be there again.
fn commit(
    session: &Session<'_>,
    rewriter: &mut Rewriter<'_, '_>,
    judged: &Fold,
    candidates: &mut [Candidate],
    forget: bool,
) -> Result<Option<u64>, RepairError> {
    let roots: Vec<BlobId> = candidates.iter().filter_map(|candidate| candidate.tree).collect();
    let records: Vec<BlobId> =
        candidates.iter().filter_map(|candidate| candidate.hit.repaired.map(|id| *id.blob())).collect();
    let rests_on = RestsOn { roots: &roots, records: &records };
    let mut is_any = false;
    let Rewriter { writer, losses, .. } = rewriter;
    session.commit_with(writer, rests_on, &mut |fold| {
        let is_other = !fold.segments().eq(judged.segments()) || !fold.condemned().eq(judged.condemned());
        if is_other || losses.is_any_back(session.repository)? {
            return Err(RepositoryError::Conflict);
        }
        let mut room = NOTES_LEN_MAX;
        let mut changes = Vec::new();
        for candidate in candidates.iter_mut() {
            changes.append(&mut changes_of(candidate, fold, forget, &mut room));
        }
        is_any = !changes.is_empty();
        Ok(changes)
    })?;
    Ok(is_any.then(|| session.repository.fold().seq()))
}

fn changes_of(candidate: &mut Candidate, fold: &Fold, forget: bool, room: &mut usize) -> Vec<Change> {
    let Candidate { hit, record, .. } = candidate;
    let mut changes = Vec::new();
    let original = fold.snapshot(&hit.original);
    hit.hold = original.and_then(|entry| entry.hold.clone());
    hit.forgotten = original.is_none();
    if original.is_none() {
        return changes;
    }
    if let (Some(id), Some(record)) = (hit.repaired, record)
        && fold.snapshot(&id).is_none()
    {
        changes.push(Change::SnapshotAdded { snapshot: id, record: ByteBuf::from(record.clone()) });
        let note = record::encode(&note(hit, id, room));
        changes.push(Change::Note { kind: REPAIR_NOTE.into(), record: ByteBuf::from(note) });
    }
    if forget && hit.hold.is_none() {
        let reason = match hit.repaired {
            Some(id) => {
                format!("repaired as snapshot {}: {} lost entries left out", id.short(), hit.lost_count)
            }
            None => "nothing of it could be read".to_owned(),
        };
        changes.push(Change::SnapshotForgotten { snapshot: hit.original, reason });
        hit.forgotten = true;
    }
    changes
}

/// What the log keeps of a repair: the names of what is lost, as far as there is room for them.
fn note(hit: &RepairedSnapshot, id: SnapshotId, room: &mut usize) -> RepairNote {
    let mut left = NOTE_LEN_MAX.min(*room);
    let mut lost = Vec::new();
    for entry in &hit.lost {
        let Some(rest) = left.checked_sub(entry.path.len() + 8) else { break };
        left = rest;
        *room -= entry.path.len() + 8;
        lost.push(ByteBuf::from(entry.path.clone()));
    }
    let more = hit.lost_count - lost.len() as u64;
    RepairNote { snapshot: id, original: hit.original, lost, more }
}
