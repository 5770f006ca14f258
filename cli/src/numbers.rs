//! The metrics of a plan, written anew after everything that changes what they say.

use std::path::Path;

use strongroom_ops::metrics::{self, Numbers};
use strongroom_ops::plan::Plan;
use strongroom_ops::run::state::State;

use crate::commands::compliance;
use crate::commands::status::{self, Overview};
use crate::context::Context;
use crate::failure::Failure;
use crate::vault::Repositories;

/// The metrics as text.
pub fn render(
    found: &Overview,
    plan: &Plan,
    repositories: &Repositories<'_>,
    state: &State,
) -> Result<String, Failure> {
    let compliance = compliance::judge(plan, repositories, state, &found.evidence)?;
    Ok(metrics::render(&Numbers {
        plan,
        domains: &found.domains,
        repositories: &found.repositories,
        drills: &found.evidence.drills,
        compliance: &compliance,
    }))
}

/// Writes the metrics, if the plan wants some. That this cannot be done is no failure of what was done before.
pub fn write(plan: &Plan, repositories: &Repositories<'_>, state: &State, context: &Context) {
    if plan.metrics.is_some() {
        let written = status::judge(plan, repositories, state)
            .and_then(|found| write_what_was_found(&found, plan, repositories, state));
        warn(written, context);
    }
}

/// Writes what was found, if the plan wants it.
pub fn write_what_was_found(
    found: &Overview,
    plan: &Plan,
    repositories: &Repositories<'_>,
    state: &State,
) -> Result<(), Failure> {
    let Some(wanted) = &plan.metrics else { return Ok(()) };
    let path = Path::new(&wanted.textfile);
    metrics::write(path, &render(found, plan, repositories, state)?)
        .map_err(|error| Failure::io(format_args!("cannot write {}", path.display()), &error))
}

/// Says that it could not be done.
pub fn warn(written: Result<(), Failure>, context: &Context) {
    if let Err(failure) = written {
        context.output.warn(&format!("warning: metrics and notices: {}", failure.message));
    }
}
