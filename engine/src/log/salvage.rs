//! Reading a damaged log as far as it goes: for whoever wants data back, not for whoever wants to go on with it.
//!
//! Entries are signed one by one, so each that opens is what a writer wrote. What the chain is for, that none is missing
//! and none was put in another's place, cannot be had of a damaged one.

use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::crypto::KeySet;
use crate::format::commit::{self, Change, Commit};
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::ids::RepositoryId;
use crate::log::{Fold, capability};

/// Folds in, of all entries behind `fold` that are there, those that open and are signed by somebody who may write, and of
/// their changes those that fit. Behind an entry that is lost, which may have admitted them, everybody may add; only those who are known
/// to be full writers forget or remove. `visit` gets each commit, and what is wrong with an entry of which number.
///
/// # Errors
/// [`BackendError`] where the log cannot be listed.
pub fn salvage(
    backend: &dyn Backend,
    keys: &KeySet,
    repository: &RepositoryId,
    fold: &mut Fold,
    visit: &mut dyn FnMut(Result<Commit, (u64, String)>),
) -> Result<(), BackendError> {
    let mut there = Vec::new();
    backend.list(Folder::Log, Some(&ObjectKey::log(fold.seq() + 1)), &mut |info| {
        there.extend(info.key.sequence());
        ControlFlow::Continue(())
    })?;
    let mut is_lost = false;
    for seq in there {
        is_lost |= seq > fold.seq() + 1;
        for missing in (fold.seq() + 1..seq).take(MISSING_NAMED_MAX) {
            visit(Err((missing, "it is missing".to_owned())));
        }
        let object = match backend.read(&ObjectKey::log(seq), RECORD_OBJECT_LEN_MAX) {
            Ok(object) => object,
            Err(error) => {
                is_lost = true;
                visit(Err((seq, error.to_string())));
                continue;
            }
        };
        let hash = commit::hash(&object);
        match Commit::open(object, seq, keys, repository) {
            Ok((mut commit, writer)) if is_lost || fold.seq() == 0 || fold.may_write(&writer) => {
                if commit.previous != fold.head() {
                    visit(Err((seq, format!("it follows {}, which is not what is there", commit.previous))));
                }
                if !fold.is_full(&commit, writer) {
                    commit.changes.iter_mut().for_each(only_add);
                    commit.changes.retain(capability::may_append);
                }
                fold.apply_what_fits(&commit, writer, hash);
                visit(Ok(commit));
            }
            Ok((_, writer)) => {
                fold.skip(seq, hash);
                visit(Err((seq, format!("its writer {writer} may not write"))));
            }
            Err(error) => {
                is_lost = true;
                fold.skip(seq, hash);
                visit(Err((seq, error.to_string())));
            }
        }
    }
    Ok(())
}

/// Leaves of a change to the index what it adds: whoever merged segments did so, too.
fn only_add(change: &mut Change) {
    if let Change::SegmentsReplaced { removed, .. } = change {
        removed.clear();
    }
}

/// Missing entries in a row that are told one by one.
const MISSING_NAMED_MAX: usize = 100;
