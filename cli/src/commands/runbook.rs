//! `runbook`: what to do on the worst day.

use jiff::Zoned;
use serde_json::json;
use strongroom_ops::drill::place::Place;
use strongroom_ops::plan::Plan;
use strongroom_ops::runbook::runbook;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::object;
use crate::plan;

/// What stands below the help.
pub const AFTER_HELP: &str = "\
The order of recovery, the exact commands, who is to be called, and where passwords are: never the
passwords themselves. Keep it where it can be read when this host cannot.

Example:
  strongroom runbook --config /etc/strongroom/strongroom.toml > runbook.md";

/// Writes the runbook.
pub fn run(plan: &Plan, context: &Context) -> Outcome {
    // Without a state directory nothing is remembered of drills: the runbook is written all the same.
    let drills = match plan::state(plan, context) {
        Ok(state) => Place::new(state.folder())
            .records()
            .map_err(|error| Failure::io("cannot read how drills ended", &error))?,
        Err(_) => Vec::new(),
    };
    let text = runbook(plan, &plan::host(plan), &Zoned::now().date().to_string(), &drills)
        .map_err(|cycle| Failure::usage("plan", cycle))?;
    match context.output.json() {
        true => context.output.object(object(json!({"type": "runbook", "text": text})))?,
        false => context.output.line(text.trim_end())?,
    }
    Ok(Exit::Ok)
}
