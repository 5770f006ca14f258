//! Reading a source again for what the repository has lost of it: everything is read and cut as a backup would, but only
//! wanted blobs are stored, and no snapshot is made.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::backup::assemble::Assembler;
use crate::backup::grains::{GrainRule, GrainRules};
use crate::backup::instead::Instead;
use crate::backup::options::{BackupError, BackupOptions};
use crate::backup::parents::Parents;
use crate::backup::pipeline::Pipeline;
use crate::backup::roots::RootTree;
use crate::backup::scan::ScanLimits;
use crate::backup::session::Session;
use crate::backup::{WalkRun, absolute_paths, check_limits, is_within, repository_directory};
use crate::format::snapshot::SnapshotSummary;
use crate::format::tree::Grain;
use crate::ids::BlobId;
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::source::{Filter, FilterOptions};

/// How files are cut, one pass after the other: as their content suggests, then in every other way, since a file keeps
/// the grain it had when it was first seen.
const GRAINS: [Option<Grain>; 5] =
    [None, Some(Grain::Medium), Some(Grain::Page), Some(Grain::Fine), Some(Grain::Coarse)];

/// Reads `paths` and stores the wanted blobs that they hold, in as many passes as it takes to find all or to have tried
/// everything. Returns those that were found; with [`BackupOptions::dry_run`] none of them is stored.
///
/// # Errors
/// [`BackupError`]: what earlier passes have found may be stored and committed.
pub(crate) fn reinsert(
    repository: &Repository,
    paths: &[PathBuf],
    wanted: &HashSet<BlobId>,
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> Result<HashSet<BlobId>, BackupError> {
    check_limits(options)?;
    let paths = absolute_paths(paths)?;
    let forbidden = repository_directory(repository);
    if let Some(path) = paths.iter().find(|path| is_within(path, &forbidden)) {
        return Err(BackupError::RepositoryItself { path: path.clone() });
    }
    let limits = ScanLimits::new(options.spill.clone());
    let mut found: HashSet<BlobId> = HashSet::new();
    for grain in GRAINS {
        let left: HashSet<BlobId> = wanted.difference(&found).copied().collect();
        if left.is_empty() || monitor.is_cancelled() {
            break;
        }
        let rule = |grain| GrainRule { pattern: "*".into(), grain };
        let grains = GrainRules::new(&grain.map(rule).into_iter().collect::<Vec<_>>())?;
        let session = Session::only(repository, options, &left)?;
        let filter = Filter::new(FilterOptions::default())?;
        let mut assembler = Assembler::new(session.tree_writer());
        let run = WalkRun {
            session: &session,
            filter: &filter,
            instead: Instead::default(),
            grains: &grains,
            limits: &limits,
            forbidden: forbidden.clone(),
            streams: &mut [],
            time: (repository.environment().now)(),
            options,
            monitor,
        };
        let mut summary = SnapshotSummary::default();
        let tree = RootTree::new(&paths);
        let mut save = |pipeline: &mut Pipeline<'_, '_>, _| session.commit_blobs(pipeline.assembler.writer());
        run.walk(&tree, &Parents::default(), &mut assembler, &mut summary, &mut save)?;
        session.commit_blobs(assembler.writer())?;
        drop(assembler);
        found.extend(session.into_claimed());
    }
    Ok(found)
}
