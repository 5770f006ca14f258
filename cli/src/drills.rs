//! What drills ask of repositories, done by the engine.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use strongroom::browse;
use strongroom::format::note::DRILL_NOTE;
use strongroom::format::record;
use strongroom::format::snapshot::Snapshot;
use strongroom::format::tree::NodeKind;
use strongroom::ids::SnapshotId;
use strongroom::monitor::{Monitor, Problem as Report};
use strongroom::repo::Repository;
use strongroom::restore::{self, RestoreOptions, RestoreReport};
use strongroom_ops::drill::{Compared, DrillRecord, Part, Problem, Restored, Source};
use strongroom_ops::plan::values::Name;
use strongroom_ops::run::vault::{Vault, VaultError};

use crate::units;
use crate::vault::{Repositories, failed};

/// Codes of problems that are the repository's fault.
const DAMAGE: [&str; 3] = ["blob-missing", "blob-damaged", "verify-failed"];

/// Repositories as drills see them.
pub struct Drills<'a> {
    /// The repositories.
    pub repositories: &'a Repositories<'a>,
    /// A number below another, which is not 0.
    pub random: &'a dyn Fn(u64) -> u64,
}

/// Keeps the first problem.
struct Listener {
    first: Mutex<Option<Problem>>,
    cancelled: Arc<AtomicBool>,
}

impl Monitor for Listener {
    fn problem(&self, problem: &Report) {
        if !problem.is_error {
            return;
        }
        let path = problem
            .path
            .as_deref()
            .map_or(String::new(), |path| format!("{}: ", String::from_utf8_lossy(path)));
        let found = Problem {
            is_damage: DAMAGE.contains(&problem.code),
            message: format!("{path}{}", problem.message),
        };
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        // Damage says more than a full disk.
        if first.as_ref().is_none_or(|first| found.is_damage && !first.is_damage) {
            *first = Some(found);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Drills<'_> {
    fn restore_parts(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        part: &Part,
        target: &Path,
        dry_run: bool,
    ) -> Result<(Vec<RestoreReport>, Option<Problem>), VaultError> {
        let parts = match part {
            Part::All => vec![(b"/".to_vec(), target.to_owned())],
            Part::Files(paths) => {
                let numbered = paths.iter().enumerate();
                numbered.map(|(number, path)| (path.clone(), target.join(number.to_string()))).collect()
            }
        };
        restore_parts(
            self.repositories,
            repo,
            snapshot,
            &parts,
            &RestoreOptions { dry_run, ..Default::default() },
        )
    }
}

/// A snapshot of a repository of the plan.
pub fn find(
    repositories: &Repositories<'_>,
    repo: &Name,
    snapshot: &SnapshotId,
) -> Result<(Arc<Repository>, Snapshot), VaultError> {
    let repository = repositories.open(repo)?;
    let (_, found) = repository.find_snapshot(&snapshot.to_string()).map_err(failed)?;
    Ok((repository, found))
}

/// Restores parts of a snapshot, each into a directory; says what each did, and what went wrong first.
pub fn restore_parts(
    repositories: &Repositories<'_>,
    repo: &Name,
    snapshot: &SnapshotId,
    parts: &[(Vec<u8>, PathBuf)],
    options: &RestoreOptions,
) -> Result<(Vec<RestoreReport>, Option<Problem>), VaultError> {
    let (repository, found) = find(repositories, repo, snapshot)?;
    let context = repositories.context;
    let options = RestoreOptions {
        threads: context.threads(options.threads),
        memory: context.memory(options.memory),
        spill: crate::context::spill(),
        ..options.clone()
    };
    let listener = Listener { first: Mutex::default(), cancelled: Arc::clone(&repositories.cancelled) };
    let run = |(path, target): &(Vec<u8>, PathBuf)| {
        let report = restore::run(&repository, &found, path, target, &options, &listener);
        report.map_err(failed).and_then(|report| match report.cancelled {
            true => Err(VaultError { code: "cancelled".into(), message: "it was cancelled".into() }),
            false => Ok(report),
        })
    };
    let reports = parts.iter().map(run).collect::<Result<_, _>>()?;
    Ok((reports, listener.first.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// What was restored in all.
pub fn restored(reports: &[RestoreReport], mut problem: Option<Problem>) -> Restored {
    let errors: u64 = reports.iter().map(|report| report.errors).sum();
    if errors > 0 && problem.is_none() {
        let message = format!("{} could not be restored", units::count(errors, "entry"));
        problem = Some(Problem { is_damage: false, message });
    }
    let files = reports.iter().map(|report| report.files).sum();
    let bytes = reports.iter().map(|report| report.bytes).sum();
    Restored { files, bytes, problem }
}

/// What a restore over it would write is what differs.
pub fn compared(reports: &[RestoreReport]) -> Compared {
    let same = reports.iter().map(|report| report.files_unchanged).sum();
    let different = reports.iter().map(|report| report.files - report.files_unchanged).sum();
    Compared { same, different }
}

impl Source for Drills<'_> {
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        Vault::snapshots(self.repositories, repo)
    }

    fn walk(&self, repo: &Name, snapshot: &SnapshotId) -> Result<Restored, VaultError> {
        let (repository, found) = find(self.repositories, repo, snapshot)?;
        let mut restored = Restored::default();
        browse::list(repository.reader(), &found.tree, b"", true, &mut |_, node| {
            if let NodeKind::File(content) = &node.kind {
                restored.files += 1;
                restored.bytes = restored.bytes.saturating_add(content.size);
            }
            ControlFlow::Continue(())
        })
        .map_err(failed)?;
        Ok(restored)
    }

    fn sample(&self, repo: &Name, snapshot: &SnapshotId, count: usize) -> Result<Vec<Vec<u8>>, VaultError> {
        let (repository, found) = find(self.repositories, repo, snapshot)?;
        // Of all files each is as likely as any other to be one of them, and no more than these are in memory.
        let (mut chosen, mut seen) = (Vec::new(), 0u64);
        browse::list(repository.reader(), &found.tree, b"", true, &mut |path, node| {
            if matches!(node.kind, NodeKind::File(_)) {
                seen += 1;
                if chosen.len() < count {
                    chosen.push(path.to_vec());
                } else if let Ok(at) = usize::try_from((self.random)(seen))
                    && let Some(place) = chosen.get_mut(at)
                {
                    *place = path.to_vec();
                }
            }
            ControlFlow::Continue(())
        })
        .map_err(failed)?;
        Ok(chosen)
    }

    fn restore(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        part: &Part,
        target: &Path,
    ) -> Result<Restored, VaultError> {
        let (reports, problem) = self.restore_parts(repo, snapshot, part, target, false)?;
        Ok(restored(&reports, problem))
    }

    fn compare(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        part: &Part,
        target: &Path,
    ) -> Result<Compared, VaultError> {
        let (reports, problem) = self.restore_parts(repo, snapshot, part, target, true)?;
        if let Some(Problem { is_damage, message }) = problem {
            // What could not be read is the same as nothing.
            let code = if is_damage { "blob-damaged" } else { "storage" };
            return Err(VaultError { code: code.into(), message });
        }
        Ok(compared(&reports))
    }

    fn note(&self, repo: &Name, record: &DrillRecord) -> Result<(), VaultError> {
        self.repositories.note(repo, DRILL_NOTE, &record::encode(&record.note()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_damage_fails_a_drill() {
        let text = include_str!("failure/engine.rs");
        let codes: Vec<_> =
            text.split("damage(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(codes.len() > 20, "{codes:?}");
        for code in codes {
            assert!(VaultError { code: code.into(), message: String::new() }.is_damage(), "{code}");
        }
    }
}
