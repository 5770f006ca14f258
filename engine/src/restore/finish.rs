//! The end of a window: further names of files, and the metadata of directories in which all is done.

use super::context::Context;
use super::parallel::in_parallel;
use super::window::{DoneDirectory, Link};
use crate::monitor::EntryAction;
use crate::target::{EntryKind, Obstacle, TargetRoot};

/// Directories that a thread takes at a time.
const BATCH: usize = 32;

/// Gives files their further names.
pub(super) fn links(context: &Context<'_>, root: &TargetRoot, links: &[Link]) {
    for link in links {
        let obstacle = if link.replaces { Obstacle::Replace } else { Obstacle::Refuse };
        match root.hard_link(&link.first, &link.path, obstacle) {
            Ok(()) => context.tally.entry(link.path.as_bytes(), EntryAction::Restored),
            Err(error) => context.fail(&link.path, &error),
        }
    }
}

/// Applies the metadata of directories, which come children before parents.
///
/// A directory that its owner may not enter shuts out whoever is not root, so such ones wait for all others.
pub(super) fn directories<W: Send>(
    context: &Context<'_>,
    root: &TargetRoot,
    workers: &mut [W],
    directories: &[DoneDirectory],
) {
    let apply = |directory: &DoneDirectory| {
        let DoneDirectory { path, metadata } = directory;
        let errors = context.metadata.apply_to_path(root, path, EntryKind::Directory, metadata);
        context.metadata_applied(path, &errors);
    };
    let stays_open = |directory: &&DoneDirectory| directory.metadata.mode & 0o700 == 0o700;
    in_parallel(workers, directories.len().div_ceil(BATCH), &|_, batch| {
        let batch = directories.iter().skip(batch * BATCH).take(BATCH);
        batch.filter(stays_open).for_each(apply);
    });
    directories.iter().filter(|directory| !stays_open(directory)).for_each(apply);
}
