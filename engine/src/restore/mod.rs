//! Restore: from a snapshot to a directory.
//!
//! The walk goes through the snapshot in one thread, makes directories and special files, and plans files
//! into windows of bounded size. While it plans the next one, a window is executed: what is
//! in the target already is compared, the rest located, read in pack order, each block
//! decoded once and scattered to all files that need it; then hard links are made and the directories
//! finished. So memory is bounded whatever the snapshot holds.
//!
//! One entry that fails never stops the rest: it is reported and counted. Bytes that cannot be had and verified
//! are reported range by range, and what there is of such a file does not stay under its name (`broken`): a file that stands under
//! its name when its restore has ended is as in the snapshot, or was left as it was. What takes the place of something is
//! written beside it and gets the name when it is whole; only files of one name are changed in place.

mod broken;
mod compare;
mod content;
mod context;
mod cursor;
mod delete;
mod entries;
mod execute;
mod existing;
mod files;
mod finish;
mod inside;
mod links;
mod locate;
mod options;
mod parallel;
mod present;
mod scatter;
mod select;
mod tally;
mod walk;
mod window;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

pub use options::{Overwrite, RestoreError, RestoreOptions, RestoreReport};

use std::path::Path;

use context::{Context, Target};
use execute::Executor;
use inside::Inside;
use select::Selector;
use tally::Tally;
use walk::{Stopped, Walk};
use window::{Limits, Window};

use crate::browse::{self, BrowseError, Found};
use crate::budget::Restorers;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Metadata, Node, NodeKind};
use crate::ids::BlobId;
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::target::{RelativePath, TargetError, TargetRoot};

/// Restores the contents of `path` in `snapshot` (empty: everything) into `target`, which is made if it is missing.
/// If `path` is no directory, it is restored itself, under its name.
///
/// The target directory gets the metadata of the directory at `path` if it was missing or empty before.
///
/// # Errors
/// [`RestoreError`] where it cannot begin. Single entries that fail are reported and counted.
pub fn run(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    target: &Path,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreReport, RestoreError> {
    let selector = Selector::new(options)?;
    let (prefix, source) = find(repository, snapshot, path)?;
    let inside = Inside::find(repository, target)?;
    let (target, is_fresh) = open_target(target, options)?;
    let is_all = selector.takes_all()
        && matches!(source, Source::Directory(..))
        && (prefix.is_empty() || snapshot.paths.iter().all(|path| is_at_or_below(path, &prefix)));
    let totals = is_all.then_some((snapshot.summary.files, snapshot.summary.bytes));
    let tree = match &source {
        Source::Directory(tree, _) => Some(*tree),
        Source::Entry(_) => None,
    };
    let tally = Tally::new(monitor, prefix, totals);
    let context = Context::new(repository, options, (target, inside), tree, tally);
    let shares = Restorers::new(options.threads, options.memory);
    repository.index().keep_pages(shares.cached_pages);
    let limits = Limits::for_memory(shares.windows);
    std::thread::scope(|scope| {
        // No window waits in the channel: one is executed, one is planned.
        let (sender, windows) = crossbeam_channel::bounded::<Window>(0);
        let walk = Walk::new(&context, &selector, (limits, shares.links), sender);
        let walker = scope.spawn(move || match source {
            Source::Directory(tree, metadata) => walk.directory(tree, metadata.filter(|_| is_fresh)),
            Source::Entry(node) => walk.single(node),
        });
        let mut executor = Executor::new(&context, shares.threads);
        // A cancelled walk ends by itself.
        for window in windows {
            executor.window(&window);
        }
        match walker.join() {
            // Whoever stopped has noted why.
            Ok(Ok(()) | Err(Stopped)) => {}
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    if options.sync
        && let Some(root) = context.writable()
        && let Err(error) = root.sync()
    {
        context.fail(&RelativePath::root(), &error);
    }
    context.tally.show_progress();
    Ok(context.tally.report())
}

/// Whether an absolute path is `directory` or leads to something in it.
fn is_at_or_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// What is to be restored.
enum Source {
    /// The contents of a directory, whose own metadata is known unless it is the snapshot's root.
    Directory(BlobId, Option<Metadata>),
    /// One entry.
    Entry(Node),
}

/// Finds what is to be restored, and the path in the snapshot of the directory that becomes the target.
fn find(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
) -> Result<(Vec<u8>, Source), RestoreError> {
    let reader = repository.reader();
    let found = browse::find(reader, &snapshot.tree, path).map_err(|error| match error {
        BrowseError::NoPath { path: missing } => RestoreError::NoPath {
            path: String::from_utf8_lossy(path).into_owned(),
            missing: String::from_utf8_lossy(&missing).into_owned(),
        },
        error => RestoreError::Browse(error),
    })?;
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let mut prefix: Vec<u8> = names.flat_map(|name| [b"/", name].concat()).collect();
    let source = match found {
        Found::Root(tree) => Source::Directory(tree, None),
        Found::Node(Node { kind: NodeKind::Directory { tree }, metadata, .. }) => {
            Source::Directory(tree, Some(metadata))
        }
        Found::Node(node) => {
            prefix.truncate(prefix.len() - node.name.len() - 1);
            Source::Entry(node)
        }
    };
    if let Source::Directory(tree, _) = &source {
        // Without it there is nothing to begin with.
        browse::load_unchecked(reader, tree).map_err(RestoreError::Browse)?;
    }
    Ok((prefix, source))
}

/// Opens the target, and tells whether it was missing or empty. A dry run does not make it.
fn open_target(path: &Path, options: &RestoreOptions) -> Result<(Target, bool), RestoreError> {
    let failed = |error: TargetError| {
        let source = match error {
            TargetError::Open { source, .. } | TargetError::Io { source, .. } => source,
            error => std::io::Error::other(error),
        };
        RestoreError::Target { target: path.display().to_string(), source }
    };
    if options.dry_run && matches!(path.try_exists(), Ok(false)) {
        return Ok((Target::Absent, true));
    }
    let root = TargetRoot::open(path, !options.dry_run).map_err(failed)?;
    let is_empty = root.is_empty(&RelativePath::root()).map_err(failed)?;
    Ok((Target::Open(Box::new(root)), is_empty))
}
