//! `repair lost-snapshots`: snapshots whose log entries are lost, found again by their records.

use std::time::Duration;

use serde_json::json;
use strongroom::repair::lost::{self, LostOptions, LostReport};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::monitor::CliMonitor;
use crate::output::object;
use crate::{signals, units};

const AFTER_HELP: &str = "\
For when an entry of the commit log was altered or lost, and with it what it said of a snapshot. Each
snapshot's record is stored among the packs as well: this finds records of snapshots that the log does
not name and that were not forgotten, makes sure that all that they need is stored, and adds them
again, with the packs that the index has lost. Do this before `repair log --accept-loss`: from then on
`prune` may remove what no snapshot needs. A backup that was killed just before it was done is found,
too. Not found are snapshots in which nothing had changed: they have no record but the one in the log,
and the snapshot before them holds the same.

Exit codes: 0 all that were found are there again; 4 something that one of them needs is missing.

Examples:
  strongroom -r /backup/repo repair lost-snapshots --dry-run
  strongroom -r /backup/repo repair lost-snapshots";

/// Arguments of `repair lost-snapshots`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Only these: ids or their first digits
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Say what is found, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Finds lost snapshots.
pub fn run(args: &Args, context: &Context) -> Outcome {
    // Whoever remembers the entry as it was would refuse the log.
    let repository = context.work_on(context.open_for_log_repair()?);
    let default = LostOptions::default();
    let options = LostOptions {
        snapshots: args.snapshots.clone(),
        dry_run: args.dry_run,
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
    };
    let monitor = CliMonitor::new(&context.output, "packs", signals::cancel_flag()?);
    let report = lost::run(&repository, &options, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if let Some(latest) = report.behind {
        context.output.warn(&format!(
            "warning: snapshot {} was added after the loss, and stands before what was added now: `latest` is not the newest by its time",
            latest.short()
        ));
    }
    if context.output.json() {
        json_lines(&report, elapsed, context);
    } else {
        text(&report, elapsed, context);
    }
    Ok(if report.incomplete() > 0 { Exit::Damage } else { Exit::Ok })
}

fn json_lines(report: &LostReport, elapsed: Duration, context: &Context) {
    for found in &report.snapshots {
        context.output.message(object(json!({
            "type": "found",
            "snapshot_id": found.id,
            "time": units::rfc3339(found.snapshot.time),
            "hostname": found.snapshot.hostname,
            "partial": found.snapshot.partial,
            "lacks": found.lacks,
            "added": report.commit.is_some() && found.lacks.is_none(),
        })));
    }
    context.output.message(object(json!({
        "type": "summary",
        "dry_run": report.dry_run,
        "snapshots_found": report.snapshots.len(),
        "snapshots_incomplete": report.incomplete(),
        "snapshots_forgotten": report.forgotten,
        "packs": report.packs,
        "commit": report.commit,
        "total_duration": elapsed.as_secs_f64(),
    })));
}

fn text(report: &LostReport, elapsed: Duration, context: &Context) {
    let out = &context.output;
    for found in &report.snapshots {
        let end = match &found.lacks {
            Some(why) => format!("cannot be had again: {why}"),
            None if report.commit.is_some() => "added again".to_owned(),
            None => "can be added again".to_owned(),
        };
        out.text(format!(
            "snapshot {} of {}, {}{}: {end}",
            found.id.short(),
            units::local_time(found.snapshot.time),
            crate::output::visible(found.snapshot.hostname.as_bytes()),
            if found.snapshot.partial { ", partial" } else { "" },
        ));
    }
    out.text(format!(
        "Found:   {} in {}; {} that {} forgotten, which stays so",
        units::count(report.snapshots.len() as u64, "lost snapshot"),
        units::clock(elapsed),
        units::count(report.forgotten, "snapshot"),
        units::verb(report.forgotten, "was", "were"),
    ));
    if let Some(commit) = report.commit {
        out.text(format!("Commit {commit} adds them, and {}", units::count(report.packs, "pack")));
    }
}
