//! `runbook`: what to do on the worst day.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Zoned;
use serde_json::json;
use strongroom_ops::plan::Plan;
use strongroom_ops::runbook::runbook;

use crate::context::Context;
use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::object;
use crate::plan;
use crate::vault::Repositories;

/// What stands below the help.
pub const AFTER_HELP: &str = "\
The order of recovery, the exact commands, who is to be called, and where passwords are: never the
passwords themselves. Keep it where it can be read when this host cannot. How long it takes is told
as drills and recoveries have measured it, by the logs of the repositories; it is written also where
these cannot be asked.

Example:
  strongroom runbook --config /etc/strongroom/strongroom.toml > runbook.md";

/// Writes the runbook.
pub fn run(plan: &Plan, context: &Context) -> Outcome {
    // What nobody can be asked for is not in it: the runbook is written all the same.
    let state = plan::state(plan, context).ok();
    let repositories = Repositories::new(context, plan, Arc::new(AtomicBool::new(false)));
    let evidence = Evidence::gather(plan.repos.keys(), &repositories, state.as_ref())?;
    evidence.warn(context);
    repositories.remember_heads();
    let written = Zoned::now().date().to_string();
    let text = runbook(plan, &plan::host(plan), &written, &evidence.measurements())
        .map_err(|cycle| Failure::usage("plan", cycle))?;
    match context.output.json() {
        true => context.output.object(object(json!({"type": "runbook", "text": text})))?,
        false => context.output.line(text.trim_end())?,
    }
    Ok(Exit::Ok)
}
