//! `schedule`: timers for the plan, printed or written, never installed.

use std::path::{Path, PathBuf};

use serde_json::json;
use strongroom_ops::metrics;
use strongroom_ops::units::{Call, Unit, cron, drill_schedules, schedules, systemd};
use strongroom_ops::verify::demands;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::object;
use crate::plan::{self, PlanArgs};

const AFTER_HELP: &str = "\
Example:
  strongroom schedule print --systemd --output /etc/systemd/system
  systemctl enable --now strongroom-run.timer";

/// Arguments of `schedule`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What to do with the schedules.
    #[command(subcommand)]
    verb: Verb,
}

/// What to do with the schedules.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write timers that call `strongroom run --due` when something may be due
    Print(PrintArgs),
}

const PRINT_HELP: &str = "\
One service runs all domains that are due, so that they keep their order. What is due is told by the
repositories: a timer that comes too often does no harm. Verification and drills have a service and
a timer each, where the plan wants them. A --state-dir that is given here, or in the environment, is
the timers' as well.

The services read variables from /etc/strongroom/environment, if it is there: NAME=VALUE, a line
each, such as the addresses of those who are told (webhook_env, heartbeat_env). Let only root read
it. In a crontab, set them above the lines. These are for a crontab of a user, to which they are
added; files in /etc/cron.d have another format.

Examples:
  strongroom schedule print --systemd --output /etc/systemd/system
  (crontab -l; strongroom schedule print --cron) | crontab -";

#[derive(Debug, clap::Args)]
#[command(after_help = PRINT_HELP)]
struct PrintArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Services and timers for systemd
    #[arg(long, required_unless_present = "cron", conflicts_with = "cron")]
    systemd: bool,
    /// Lines for a crontab
    #[arg(long)]
    cron: bool,
    /// Write the units into this folder [default: print them]
    #[arg(long, value_name = "DIR", conflicts_with = "cron")]
    output: Option<PathBuf>,
    /// The program that the timers call [default: this one]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

/// Writes the timers.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let Verb::Print(args) = &args.verb;
    let plan = plan::runnable(&args.plan)?;
    if schedules(&plan).is_empty() && drill_schedules(&plan).is_empty() && demands(&plan).is_empty() {
        let message = "no domain and no drill of the plan has a schedule, and no class demands verification";
        return Err(Failure::usage("no-schedule", message).hint(
            "add one, such as schedule = \"*-*-* 02:15\", to the domains and drills that are to run by themselves",
        ));
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()
            .map_err(|error| Failure::io("cannot find this program; name it with --program", &error))?,
    };
    let state_dir = context.global.state_dir.as_ref().map(std::path::absolute).transpose();
    let state_dir = state_dir.map_err(|error| Failure::io("cannot use the state directory", &error))?;
    let call = Call { plan: &plan, program: &program, state_dir: state_dir.as_deref() };
    if args.cron {
        let text = cron(&call);
        match context.output.json() {
            true => context.output.object(object(json!({"type": "crontab", "text": text})))?,
            false => context.output.line(text.trim_end())?,
        }
        return Ok(Exit::Ok);
    }
    for unit in systemd(&call) {
        put(&unit, args.output.as_deref(), context)?;
    }
    Ok(Exit::Ok)
}

fn put(unit: &Unit, folder: Option<&Path>, context: &Context) -> Result<(), Failure> {
    let path = folder.map(|folder| folder.join(unit.name));
    if let Some(path) = &path {
        metrics::write(path, &unit.text)
            .map_err(|error| Failure::io(format_args!("cannot write {}", path.display()), &error))?;
    }
    if context.output.json() {
        let path = path.map(|path| path.display().to_string());
        return context.output.object(object(json!({
            "type": "unit", "name": unit.name, "path": path, "text": unit.text
        })));
    }
    match path {
        Some(path) => context.output.text(path.display().to_string()),
        None => context.output.line(format!("# {}\n{}", unit.name, unit.text))?,
    }
    Ok(())
}
