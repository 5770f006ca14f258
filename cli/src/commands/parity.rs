//! `parity`: adding parity to a repository, dropping it, and how much there is.

use std::time::Duration;

use serde_json::{Value, json};
use strongroom::format::parity::Overhead;
use strongroom::parity::{self, AddOptions, AddReport, Status};

use crate::commands::snapshots::aligned;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::{object, visible};
use crate::{signals, units};

const AFTER_HELP: &str = "\
Parity makes good a few damaged sectors of each object, wherever they are: `repair packs` and
`repair objects` use it. It is no second copy: what is gone as a whole does not come back.

Example:
  strongroom -r /backup/repo parity add --overhead 3%
  strongroom -r /backup/repo parity status";

const ADD_HELP: &str = "\
Every object is compared with its id or with the log before parity is made of it. Backups and
prunes may go on meanwhile, and keep up parity of what they store from then on. Can be interrupted
and run again: what is there is not made again.

Exit codes: 0 everything has parity, 4 some objects are damaged or cannot be read, and got none.

Example:
  strongroom -r /backup/repo parity add --overhead 5%";

/// Arguments of `parity`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    what: What,
}

/// What to do with parity.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Keep parity from now on, and make what is missing
    #[command(after_help = ADD_HELP)]
    Add(AddArgs),
    /// Delete all parity, and keep none from now on
    #[command(after_help = "Example:\n  strongroom -r /backup/repo parity drop")]
    Drop,
    /// Show how much parity there is
    #[command(after_help = "Example:\n  strongroom -r /backup/repo parity status --json")]
    Status,
}

/// Arguments of `parity add`.
#[derive(Debug, clap::Args)]
struct AddArgs {
    /// How much, as a share of each object: 0.1% to 100% [default: as before, else 3%]
    #[arg(long, value_name = "PERCENT", value_parser = units::parse_overhead)]
    overhead: Option<Overhead>,
}

/// Adds, drops or counts.
pub fn run(args: &Args, context: &Context) -> Outcome {
    match &args.what {
        What::Add(args) => add(args, context),
        What::Drop => drop_all(context),
        What::Status => status(context),
    }
}

fn add(args: &AddArgs, context: &Context) -> Outcome {
    let repository = context.open()?;
    let default = AddOptions::default();
    let options = AddOptions {
        overhead: args.overhead,
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
    };
    let monitor = CliMonitor::new(&context.output, "objects", signals::cancel_flag()?);
    let report = parity::add(&repository, &options, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if context.output.json() {
        added_json(&report, elapsed, context);
    } else {
        added_text(&report, elapsed, context)?;
    }
    Ok(if report.damaged.is_empty() { Exit::Ok } else { Exit::Damage })
}

fn added_json(report: &AddReport, elapsed: Duration, context: &Context) {
    for message in &report.damaged {
        context.output.message(object(json!({"type": "error", "code": "not-covered", "message": message})));
    }
    context.output.message(object(json!({
        "type": "summary",
        "tenths_of_percent": report.overhead.tenths(),
        "objects_covered": report.added,
        "objects_covered_before": report.present,
        "objects_too_long": report.uncoverable,
        "objects_damaged": report.damaged.len(),
        "bytes_written": report.added_bytes,
        "total_duration": elapsed.as_secs_f64(),
    })));
}

fn added_text(report: &AddReport, elapsed: Duration, context: &Context) -> Result<(), Failure> {
    let out = &context.output;
    for message in &report.damaged {
        out.line(format!("damage: {}", visible(message.as_bytes())))?;
    }
    out.text(format!(
        "Parity:  {} of each object; {} covered, {} had it before, {} written in {}",
        report.overhead,
        units::count(report.added, "object"),
        report.present,
        units::size(report.added_bytes),
        units::clock(elapsed)
    ));
    if report.uncoverable > 0 {
        out.text(format!("Too long: {}, which can be rebuilt", units::count(report.uncoverable, "segment")));
    }
    if !report.damaged.is_empty() {
        out.line("Damaged objects got no parity: it would keep the damage")?;
        out.text(
            "Next:    `strongroom check --read-data`, and what it says; then `strongroom parity add` again",
        );
    }
    Ok(())
}

fn drop_all(context: &Context) -> Outcome {
    let repository = context.open()?;
    let monitor = CliMonitor::new(&context.output, "sidecars", signals::cancel_flag()?);
    let report = parity::drop_all(&repository, &monitor);
    monitor.finish();
    let report = report?;
    if context.output.json() {
        let summary =
            json!({"type": "summary", "sidecars_removed": report.sidecars, "bytes_removed": report.bytes});
        context.output.message(object(summary));
    } else {
        let bytes = units::size(report.bytes);
        context
            .output
            .text(format!("Dropped: parity of {}, {bytes}", units::count(report.sidecars, "object")));
    }
    Ok(Exit::Ok)
}

fn status(context: &Context) -> Outcome {
    let repository = context.open()?;
    let status = parity::status(&repository)?;
    if context.output.json() {
        context.output.object(object(status_json(&status)))?;
    } else {
        for line in status_text(&status) {
            context.output.line(line)?;
        }
    }
    Ok(Exit::Ok)
}

fn status_json(status: &Status) -> Value {
    let coverage: Vec<_> = status
        .coverage
        .iter()
        .map(|one| {
            json!({
                "folder": one.folder.name(),
                "covered": one.covered,
                "uncovered": one.uncovered,
                "too_long": one.too_long,
                "sidecar_bytes": one.bytes,
            })
        })
        .collect();
    json!({
        "type": "summary",
        "tenths_of_percent": status.overhead.map(Overhead::tenths),
        "coverage": coverage,
        "other_sidecars": status.others,
        "other_sidecar_bytes": status.others_bytes,
    })
}

fn status_text(status: &Status) -> Vec<String> {
    let wanted = status.overhead.map_or_else(|| "none".to_owned(), |overhead| overhead.to_string());
    let mut rows = vec![["Wanted:".to_owned(), wanted]];
    for one in &status.coverage {
        let total = one.covered + one.uncovered + one.too_long;
        let mut covered = format!("{} of {total} covered, {}", one.covered, units::size(one.bytes));
        if one.too_long > 0 {
            covered.push_str(&format!("; {} too long", one.too_long));
        }
        rows.push([format!("{}:", one.folder.name()), covered]);
    }
    if status.others > 0 {
        let bytes = units::size(status.others_bytes);
        rows.push([
            "Others:".to_owned(),
            format!("{} of what is not in force, {bytes}", units::count(status.others, "sidecar")),
        ]);
    }
    aligned(&rows, &[])
}
