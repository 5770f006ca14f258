//! `repair`: what can be done once `check` has found damage, in the order in which it is to be done.

mod index;
mod log;
mod lost;
mod objects;
mod packs;
mod snapshots;

use crate::context::Context;
use crate::failure::Outcome;

const AFTER_HELP: &str = "\
In this order, each step only where `check` still finds something:
  0. repair objects    if there is parity: log entries, index segments and others get their bytes back
  1. repair index      if index segments are missing or damaged
  2. repair packs      if packs are missing or damaged: give all copies of the repository
                       (--from) and of the files (--from-source) that there are
  3. repair snapshots  if something is lost for good: snapshots without it, each loss named

  repair lost-snapshots  if an entry of the commit log was altered and there is no copy of it: the
                         snapshot that it added may still be there
  repair log             and then this, which puts on record that the loss is known

All of them can be interrupted and run again, and backups may go on meanwhile. No pack is deleted:
`prune` removes what is replaced, after its grace.

Example:
  strongroom -r /backup/repo check --read-data
  strongroom -r /backup/repo repair packs --read-data --from /copy/repo --dry-run";

/// Arguments of `repair`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What to repair.
    #[command(subcommand)]
    what: What,
}

/// What to repair.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Rebuild the index from the packs
    Index(index::Args),
    /// Find snapshots whose log entries are lost, and add them again
    LostSnapshots(lost::Args),
    /// Put on record that what an altered log entry said is lost
    Log(log::Args),
    /// Give log entries, index segments, keyslots and others their bytes back by their parity
    Objects(objects::Args),
    /// Salvage damaged packs, and get what they have lost from elsewhere
    Packs(packs::Args),
    /// Write snapshots without what is lost for good, naming it
    Snapshots(snapshots::Args),
}

/// Repairs.
pub fn run(args: &Args, context: &Context) -> Outcome {
    match &args.what {
        What::Index(args) => index::run(args, context),
        What::LostSnapshots(args) => lost::run(args, context),
        What::Log(args) => log::run(args, context),
        What::Objects(args) => objects::run(args, context),
        What::Packs(args) => packs::run(args, context),
        What::Snapshots(args) => snapshots::run(args, context),
    }
}
