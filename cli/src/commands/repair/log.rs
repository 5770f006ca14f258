//! `repair log`: puts on record that what an altered log entry said is lost.

use serde_json::json;
use strongroom::repair;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::object;

const AFTER_HELP: &str = "\
An entry of the commit log that was altered does not count, and what it said is lost: a snapshot,
maybe, or that one was forgotten. Where there is a copy of the repository, copy the entry's file
back from it, before anything else is committed if it is the last one. Otherwise this says that
the loss is known, so that `check` reports it as a note and no longer as damage.

Where entries are lost from the end of the log, of which parity tells and which it does not give
back, nothing is committed in their place before the loss of the first of them is accepted.

Example:
  strongroom -r /backup/repo repair log --accept-loss 17";

/// Arguments of `repair log`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The entry's number
    #[arg(long, value_name = "NUMBER")]
    accept_loss: u64,
}

/// Accepts the loss of an entry.
pub fn run(args: &Args, context: &Context) -> Outcome {
    // Whoever remembers the entry as it was would refuse the log: the loss of just that is to be accepted.
    let repository = context.work_on(context.open_for_log_repair()?);
    let commit = repair::log::accept_loss(&repository, args.accept_loss)?;
    context.accept_head()?;
    if context.output.json() {
        let summary = json!({"type": "summary", "entry": args.accept_loss, "commit": commit});
        context.output.message(object(summary));
    } else {
        context
            .output
            .text(format!("Commit {commit} says that what log entry {} said is lost", args.accept_loss));
    }
    Ok(Exit::Ok)
}
