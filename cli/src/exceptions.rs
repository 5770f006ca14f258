//! Exceptions from targets, noted in the logs of repositories when they are others than before: who agreed to what, and until when, is on
//! record also after it was taken out of the plan.

use strongroom::format::note::EXCEPTIONS_NOTE;
use strongroom::format::record;
use strongroom_ops::noted;
use strongroom_ops::plan::Plan;
use strongroom_ops::run::state::State;

use crate::context::Context;
use crate::plan;
use crate::vault::Repositories;

/// Notes them in all repositories that are open. Where that cannot be done it is no failure of the run: the next one tries again.
pub fn note(plan: &Plan, repositories: &Repositories<'_>, state: &State, context: &Context) {
    let wanted = noted::exceptions(plan, &plan::host(plan));
    // What was noted is remembered, since to find it in a log takes reading all of that.
    let mut remembered = state.noted_exceptions();
    let mut has_changed = false;
    // Nobody may leave notes with an append-only password.
    for (name, repository) in repositories.opened().filter(|(_, repository)| !repository.is_append_only()) {
        let id = repository.id().to_string();
        if remembered.get(&id) == Some(&wanted) {
            continue;
        }
        let note = repositories.noted(&name).map(|noted| noted.outdated(plan));
        let done = note.and_then(|note| match note {
            Some(note) => repositories.note(&name, EXCEPTIONS_NOTE, &record::encode(&note)),
            None => Ok(()),
        });
        match done {
            Ok(()) => {
                remembered.insert(id, wanted.clone());
                has_changed = true;
            }
            Err(error) => context.output.warn(&format!(
                "warning: {name}: the exceptions of the plan cannot be noted in its log: {error}"
            )),
        }
    }
    if has_changed && let Err(error) = state.remember_exceptions(&remembered) {
        context.output.warn(&format!("warning: what was noted of exceptions cannot be remembered: {error}"));
    }
}
