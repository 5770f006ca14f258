//! The commands, one to a file: what each takes, and how its result is shown.

pub mod backup;
pub mod cat;
pub mod check;
pub mod completions;
pub mod compliance;
pub mod config;
pub mod copy;
pub mod coverage;
pub mod diff;
pub mod drill;
pub mod find;
pub mod forget;
pub mod init;
pub mod key;
pub mod log;
pub mod ls;
pub mod man;
pub mod notify;
pub mod parity;
pub mod prune;
pub mod recover;
pub mod repair;
pub mod report;
pub mod reserve;
pub mod restore;
pub mod run;
pub mod runbook;
pub mod schedule;
pub mod select;
pub mod snapshot;
pub mod snapshots;
pub mod stats;
pub mod status;
pub mod verify;
pub mod version;

use crate::context::Context;
use crate::failure::Outcome;
use crate::plan::{self, PlanArgs};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a new repository
    Init(init::Args),
    /// Back files, a stream or the output of a command up
    Backup(Box<backup::Args>),
    /// List snapshots
    Snapshots(snapshots::Args),
    /// Hold a snapshot or release it
    Snapshot(snapshot::Args),
    /// Copy snapshots to another repository
    Copy(Box<copy::Args>),
    /// Forget snapshots that are no longer wanted
    Forget(Box<forget::Args>),
    /// Give back the space of what no snapshot needs any more
    Prune(prune::Args),
    /// Keep parity, so that small damage of the storage can be made good
    Parity(parity::Args),
    /// Keep room free, so that there is a way out when the storage is full
    Reserve(reserve::Args),
    /// Repair the index, packs or snapshots of a damaged repository
    Repair(Box<repair::Args>),
    /// List what is in a snapshot
    Ls(ls::Args),
    /// Show how two snapshots differ
    Diff(diff::Args),
    /// Find out where and when something was in snapshots
    Find(find::Args),
    /// Restore a snapshot or a part of it
    Restore(restore::Args),
    /// Check that everything is there and is what it should be
    Check(check::Args),
    /// Show an object of the repository as JSON
    Cat(cat::Args),
    /// Manage the passwords of the repository
    Key(key::Args),
    /// Count what is protected and what it takes to keep
    Stats(stats::Args),
    /// Show who changed what and when
    Log(log::Args),
    /// Back up what the plan says
    Run(run::Args),
    /// Rehearse restores as the plan says
    Drill(drill::Args),
    /// Restore domains of the plan so that it can be undone
    Recover(Box<recover::Args>),
    /// Show how well everything in the plan is protected now
    Status(status::Args),
    /// Read repositories again, as often and as much as the plan says
    Verify(verify::Args),
    /// Compare the targets of the plan with what there is
    #[command(after_help = compliance::AFTER_HELP)]
    Compliance(PlanArgs),
    /// Write a page that says how everything stands
    Report(report::Args),
    /// Tell whoever the plan names of what is overdue
    Notify(notify::Args),
    /// Write timers for the plan
    Schedule(schedule::Args),
    /// Write down what to do on the worst day
    #[command(after_help = runbook::AFTER_HELP)]
    Runbook(PlanArgs),
    /// Show what data there is that the plan covers, and what it does not
    #[command(after_help = coverage::AFTER_HELP)]
    Coverage(PlanArgs),
    /// Look a plan through: what has to be protected, and how well
    Config(config::Args),
    /// Show the version of the program
    Version(version::Args),
    /// Write a completion script for a shell
    Completions(completions::Args),
    /// Write the manual pages
    Man(man::Args),
}

impl Command {
    /// Whether what it writes with `--json` is one array.
    pub fn has_array(&self) -> bool {
        match self {
            Self::Snapshots(_) => true,
            Self::Key(args) => args.is_list(),
            _ => false,
        }
    }
}

/// Runs a command.
pub fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Backup(args) => backup::run(&args, context),
        Command::Snapshots(args) => snapshots::run(&args, context),
        Command::Snapshot(args) => snapshot::run(&args, context),
        Command::Copy(args) => copy::run(&args, context),
        Command::Forget(args) => forget::run(&args, context),
        Command::Prune(args) => prune::run(&args, context),
        Command::Parity(args) => parity::run(&args, context),
        Command::Reserve(args) => reserve::run(&args, context),
        Command::Repair(args) => repair::run(&args, context),
        Command::Ls(args) => ls::run(&args, context),
        Command::Diff(args) => diff::run(&args, context),
        Command::Find(args) => find::run(&args, context),
        Command::Restore(args) => restore::run(args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Cat(args) => cat::run(&args, context),
        Command::Key(args) => key::run(&args, context),
        Command::Stats(args) => stats::run(&args, context),
        Command::Log(args) => log::run(&args, context),
        Command::Run(args) => run::run(&args, context),
        Command::Drill(args) => drill::run(&args, context),
        Command::Recover(args) => recover::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Verify(args) => verify::run(&args, context),
        Command::Compliance(args) => compliance::run(&plan::runnable(&args)?, context),
        Command::Report(args) => report::run(&args, context),
        Command::Notify(args) => notify::run(&args, context),
        Command::Schedule(args) => schedule::run(&args, context),
        Command::Runbook(args) => runbook::run(&plan::runnable(&args)?, context),
        Command::Coverage(args) => coverage::run(&plan::runnable(&args)?, context),
        Command::Config(args) => config::run(&args, context),
        Command::Version(args) => version::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(&args, context),
    }
}
