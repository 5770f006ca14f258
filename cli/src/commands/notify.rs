//! `notify`: whoever the plan names is told of what stands: missed recovery points, exceptions that expire soon.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Zoned;
use serde_json::json;

use crate::commands::status;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::notices;
use crate::output::{object, visible};
use crate::plan::{self, PlanArgs};
use crate::vault::Repositories;

const AFTER_HELP: &str = "\
`strongroom run` tells by itself how it went. This tells, without a run, of domains that miss their
RPO, of repositories that cannot be asked and of exceptions that expire within 14 days, so that a
host on which nothing is run any more is noticed when this is called from elsewhere. The same is
told once a day, of exceptions once a week. What is well again, and somebody could not be told of
before, is told, too.

Exit codes: 0, also where somebody could not be told (a warning says so); with --test 1 then.

Examples:
  strongroom notify --config /etc/strongroom/strongroom.toml
  strongroom notify --test";

/// Arguments of `notify`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    /// Send a test to all who are in the plan, and say how each took it
    #[arg(long)]
    test: bool,
}

/// Tells.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let plan = plan::runnable(&args.plan)?;
    if plan.notify.is_empty() {
        return Err(Failure::usage("no-notify", "the plan names nobody who is to be told").hint(
            "add a table [[notify]] with on = [\"failure\"] and webhook_env, heartbeat_env or command",
        ));
    }
    let state = plan::state(&plan, context)?;
    if !args.test {
        plan::refuse_head(&plan, context)?;
        let repositories = Repositories::new(context, &plan, Arc::new(AtomicBool::new(false)));
        let found = status::judge(&plan, &repositories, &state)?;
        repositories.remember_heads();
        notices::tell(&plan, &state, context, |notifier| {
            // What is well again and could not be told of yet.
            let mut warnings = notifier.changed(&[], &[]);
            warnings.extend(notifier.standing(&found.domains, &Zoned::now()));
            warnings
        });
        return Ok(Exit::Ok);
    }
    let results = notices::with_notifier(&plan, &state, |notifier| notifier.test());
    for (channel, result) in &results {
        if context.output.json() {
            context.output.object(object(json!({
                "type": "channel",
                "channel": channel,
                "delivered": result.is_ok(),
                "message": result.as_ref().err(),
            })))?;
        } else {
            let how = result
                .as_ref()
                .err()
                .map_or("delivered".to_owned(), |error| format!("NOT DELIVERED: {error}"));
            context.output.line(visible(format!("{channel}: {how}").as_bytes()))?;
        }
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    if failed > 0 {
        let message = format!("{failed} of {} could not be told", results.len());
        let failure = Failure::new("notify", message);
        // What else is wrong is said of each.
        if results.iter().all(|(_, result)| !matches!(result, Err(error) if error.contains("is not set"))) {
            return Err(failure);
        }
        return Err(failure
            .hint("the variables that hold the addresses have to be set where this runs, as in the unit of the timer"));
    }
    Ok(Exit::Ok)
}
