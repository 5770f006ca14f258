//! Removing from the target what the snapshot does not have.

use super::context::Context;
use super::inside::Relation;
use super::present;
use super::select::{Selector, Verdict};
use super::tally::{self, add, explain};
use crate::monitor::EntryAction;
use crate::source::Listing;
use crate::target::{EntryKind, RelativePath, TargetError, TargetRoot};

/// Removes from the directory `path` what is listed, which the snapshot does not have. What the patterns leave out
/// stays, and with it the directories above it. Each entry removed from `path` counts as one.
pub(super) fn remove_surplus(
    context: &Context<'_>,
    selector: &Selector,
    path: &RelativePath,
    mut surplus: Listing,
    inside: bool,
) {
    let fail = |path: &RelativePath, error: &TargetError| {
        context.tally.fail(tally::DELETE, path.as_bytes(), explain(error));
    };
    loop {
        let names = match present::next_window(&mut surplus, path, &context.options.spill) {
            Ok(names) if names.is_empty() => return,
            Ok(names) => names,
            Err(error) => return fail(path, &error),
        };
        for name in names.iter() {
            let Ok(entry) = path.join(name) else { continue };
            match remove(context, selector, &entry, inside) {
                Ok(true) => {
                    add(&context.tally.counts.deleted, 1);
                    context.tally.entry(entry.as_bytes(), EntryAction::Deleted);
                }
                Ok(false) => {}
                Err(error) => fail(&entry, &error),
            }
        }
    }
}

/// Removes one entry as far as the patterns allow; whether it is (or, in a dry run, would be) gone.
fn remove(
    context: &Context<'_>,
    selector: &Selector,
    entry: &RelativePath,
    inside: bool,
) -> Result<bool, TargetError> {
    let Some(root) = context.readable() else { return Ok(false) };
    let Some(found) = root.stat(entry)? else { return Ok(false) };
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
        if !remove_contents(context, selector, root, entry, verdict)? {
            return Ok(false);
        }
    }
    if let Some(root) = context.writable() {
        root.remove_tree(entry)?;
    }
    Ok(true)
}

/// Removes what is in the directory `path`, on which the patterns have that verdict; whether it may go then itself.
fn remove_contents(
    context: &Context<'_>,
    selector: &Selector,
    root: &TargetRoot,
    path: &RelativePath,
    verdict: Verdict,
) -> Result<bool, TargetError> {
    let mut all_gone = verdict == Verdict::Take;
    let spill = &context.options.spill;
    let mut listing = present::list(root, path, spill)?;
    loop {
        let names = present::next_window(&mut listing, path, spill)?;
        if names.is_empty() {
            return Ok(all_gone);
        }
        for name in names.iter() {
            let Ok(below) = path.join(name) else { continue };
            all_gone &= remove(context, selector, &below, verdict == Verdict::Take)?;
        }
    }
}
