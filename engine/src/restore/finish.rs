//! The end of a window: further names of files, and the metadata of directories in which all is done.

use super::context::Context;
use super::parallel::in_parallel;
use super::tally::{self, add};
use super::window::{DoneDirectory, Link};
use crate::monitor::EntryAction;
use crate::target::{EntryKind, Obstacle, TargetRoot};

/// Directories that a thread takes at a time.
const BATCH: usize = 32;

/// Gives files their further names.
pub(super) fn links(context: &Context<'_>, root: &TargetRoot, links: &[Link]) {
    for link in links {
        if is_broken(context, link) {
            continue;
        }
        let obstacle = if link.replaces { Obstacle::Replace } else { Obstacle::Refuse };
        match root.hard_link(&link.first, &link.path, obstacle) {
            Ok(made) => count_link(context, link, made),
            Err(error) => context.fail(&link.path, &error),
        }
    }
}

/// Counts further names as [`links`] would make them.
pub(super) fn count_links(context: &Context<'_>, links: &[Link]) {
    for link in links {
        if is_broken(context, link) {
            continue;
        }
        let is_linked = link.replaces
            && context
                .readable()
                .is_some_and(|root| root.is_same_inode(&link.first, &link.path).unwrap_or(false));
        count_link(context, link, !is_linked);
    }
}

/// Whether the file is not whole, which is told: then it gets no further name, and what has that name stays.
fn is_broken(context: &Context<'_>, link: &Link) -> bool {
    let is_broken = link.state.is_broken();
    if is_broken {
        let why =
            format!("not restored: it is one file with “{}”, which could not be restored whole", link.first);
        context.tally.fail(tally::INCOMPLETE, link.path.as_bytes(), why);
        add(&context.tally.counts.files_incomplete, 1);
        context.tally.advance(1, 0);
    }
    is_broken
}

fn count_link(context: &Context<'_>, link: &Link, made: bool) {
    let counts = &context.tally.counts;
    if let Some(size) = link.size {
        add(if made { &counts.files_written } else { &counts.files_unchanged }, 1);
        context.tally.advance(1, size);
    }
    let action = if made { EntryAction::Restored } else { EntryAction::Skipped };
    context.tally.entry(link.path.as_bytes(), action);
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
