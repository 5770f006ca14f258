//! Removing from the target what the snapshot does not have.

use super::context::Context;
use super::inside::Relation;
use super::present;
use super::select::{Selector, Verdict};
use super::tally::{self, add, explain};
use crate::browse;
use crate::ids::BlobId;
use crate::monitor::EntryAction;
use crate::source::Listing;
use crate::target::{self, EntryKind, RelativePath, TargetError};

/// Removes from the directory `path` what is listed, which the snapshot does not have, and tells of it. What the patterns leave out
/// stays, and with it the directories above it. A directory that goes in one piece counts as one entry; of one that the patterns make
/// it go through, each entry counts. What an earlier restore left of a file that `tree`, what the snapshot has of the directory, has stays:
/// it goes with that file's restore. Whether nothing of what is listed is left.
pub(super) fn remove_surplus(
    context: &Context<'_>,
    selector: &Selector,
    (path, tree): (&RelativePath, Option<&BlobId>),
    mut surplus: Listing,
    inside: bool,
) -> bool {
    let fail = |path: &RelativePath, error: &TargetError| {
        context.tally.fail(tally::DELETE, path.as_bytes(), explain(error));
    };
    let mut all_gone = true;
    loop {
        let names = match present::next_window(&mut surplus, path, &context.options.spill) {
            Ok(names) if names.is_empty() => return all_gone,
            Ok(names) => names,
            Err(error) => {
                fail(path, &error);
                return false;
            }
        };
        for name in names.iter() {
            let is_gone =
                path.join(name).is_ok_and(|entry| match remove(context, selector, (&entry, tree), inside) {
                    Ok(is_gone) => is_gone,
                    Err(error) => {
                        fail(&entry, &error);
                        false
                    }
                });
            all_gone &= is_gone;
        }
    }
}

/// Removes one entry as far as the patterns allow, and tells of it; whether it is (or, in a dry run, would be) gone.
fn remove(
    context: &Context<'_>,
    selector: &Selector,
    (entry, tree): (&RelativePath, Option<&BlobId>),
    inside: bool,
) -> Result<bool, TargetError> {
    let Some(root) = context.readable() else { return Ok(false) };
    let Some(found) = root.stat(entry)? else { return Ok(false) };
    if let Some(whole) = entry.name().and_then(target::whole_name)
        && let Some(tree) = tree
        && (whole.is_empty() || !matches!(browse::lookup(context.reader(), tree, whole), Ok(None)))
        && root.is_rest(entry)?
    {
        return Ok(false);
    }
    let is_directory = found.kind == EntryKind::Directory;
    let mut shown = context.tally.prefix().to_vec();
    shown.push(b'/');
    shown.extend_from_slice(entry.as_bytes());
    let verdict = selector.verdict(&shown, is_directory, inside);
    if verdict == Verdict::Skip {
        return Ok(false);
    }
    let relation = context.inside.relation(entry);
    if relation == Relation::Repository {
        context.tally.warn(
            tally::REPOSITORY,
            entry.as_bytes(),
            "this is the repository itself: it stays".to_owned(),
        );
        return Ok(false);
    }
    if is_directory && (relation == Relation::Above || !selector.takes_all()) {
        // Deeper than any stack should go, nothing is removed: better too much left than too much gone.
        if entry.as_bytes().iter().filter(|byte| **byte == b'/').count() > 512 {
            return Ok(false);
        }
        let (contents, _) = present::list(root, entry, &context.options.spill)?;
        let taken = verdict == Verdict::Take;
        if !remove_surplus(context, selector, (entry, None), contents, taken) || !taken {
            return Ok(false);
        }
    }
    if let Some(root) = context.writable() {
        root.remove_tree(entry)?;
    }
    add(&context.tally.counts.deleted, 1);
    context.tally.entry(entry.as_bytes(), EntryAction::Deleted);
    Ok(true)
}
