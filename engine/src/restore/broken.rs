//! Files that could not be restored whole: what there is of them does not stay under their name, so that nobody takes it
//! for what the snapshot has.

use std::fs::File;
use std::sync::atomic::Ordering::Relaxed;

use super::context::Context;
use super::existing::Fate;
use super::tally::{self, add, explain};
use super::window::Job;
use crate::monitor::EntryAction;
use crate::target::{RelativePath, TargetError, TargetRoot};

/// Ends a file that is not whole, once: what this restore put under its name gets another one, or is removed if there is nothing in
/// it, and it is told where it is. With `file` metadata is applied.
pub(super) fn set_aside(context: &Context<'_>, root: &TargetRoot, job: &Job, file: Option<&File>) {
    if !job.state.end() {
        return;
    }
    add(&context.tally.counts.files_incomplete, 1);
    context.tally.advance(1, 0);
    let changed = job.state.changed.load(Relaxed);
    let why = match job.fate {
        Fate::Create | Fate::Replace if !changed => return,
        Fate::InPlace { .. } | Fate::Keep | Fate::Shared | Fate::Leave if !changed => {
            "not restored: what is there was left as it was".to_owned()
        }
        // What was read back and differs is somebody's.
        Fate::Create | Fate::Replace | Fate::Shared
            if !job.state.had.load(Relaxed) && !job.state.differs.load(Relaxed) =>
        {
            match root.remove(job.place()) {
                Ok(()) => "not restored: there is nothing of it".to_owned(),
                Err(error) => stays(job.place(), &error),
            }
        }
        _ => match take_away(context, root, job, file) {
            Ok(aside) => {
                context.tally.entry(job.path.as_bytes(), EntryAction::Restored);
                format!("not restored: what there is of it is in “{aside}”; {}", gaps(job))
            }
            Err(error) => stays(&job.path, &error),
        },
    };
    context.tally.problem(tally::INCOMPLETE, job.path.as_bytes(), why);
}

fn stays(path: &RelativePath, error: &TargetError) -> String {
    format!("“{path}” is not what the snapshot has, and could not be taken away: {}", explain(error))
}

/// What stands where bytes are missing.
fn gaps(job: &Job) -> &'static str {
    match job.fate {
        Fate::InPlace { .. } | Fate::Resume { .. } => "where bytes are missing it has what was there before",
        _ => "where bytes are missing it has zeros",
    }
}

fn take_away(
    context: &Context<'_>,
    root: &TargetRoot,
    job: &Job,
    file: Option<&File>,
) -> Result<RelativePath, TargetError> {
    if let Some(file) = file {
        let errors = context.metadata_of_incomplete.apply_to_incomplete(file, &job.path, &job.metadata);
        context.tell_metadata(&job.path, &errors);
    }
    match job.state.aside() {
        Some(aside) => Ok(aside.clone()),
        None => root.set_aside(&job.path, &|name| context.snapshot_has(name)),
    }
}
