//! `repair lost-snapshots`: snapshots whose log entries are lost, found again by their records.

use std::time::Duration;

use serde_json::json;
use strongroom::log::Head;
use strongroom::repair::lost::{self, LostOptions, LostReport};
use strongroom::repo::Repository;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::monitor::CliMonitor;
use crate::output::object;
use crate::{signals, units};

const AFTER_HELP: &str = "\
For when an entry of the commit log was altered or lost, and with it what it said of a snapshot.
Each snapshot's record is stored among the packs as well: this finds records of snapshots that the
log does not name and that were not forgotten, and makes sure that all that they need is stored.
Those that must have been lost and are the newest are added again, with the packs that the index has
lost. Do this before `repair log --accept-loss`: from then on `prune` may remove what no snapshot
needs.

A record alone does not prove that its snapshot was ever in the log: runs that were killed or began
anew leave records, too. What is added stands behind all other snapshots, and may be `latest`. So
these are only shown, with the reason, and added if they are named by their ids:
- all, where the log shows no loss that is not on record, nor lacks what this client remembers of it
- all, where a password was removed or changed that is not append-only: records are not signed, and
  whoever knows it can have made one
- those that are not newer than all snapshots of the same host and paths that are there

Not found are snapshots in which nothing had changed: they have no record but the one in the log,
and the snapshot before them holds the same.

Exit codes: 0 all that was to be added is there again; 4 something that it needs is missing.

Examples:
  strongroom -r /backup/repo repair lost-snapshots --dry-run
  strongroom -r /backup/repo repair lost-snapshots
  strongroom -r /backup/repo repair lost-snapshots 3fa85f64";

/// Arguments of `repair lost-snapshots`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Only these, and these whatever their times: ids or their first digits
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
        seen: seen(&repository, context),
        dry_run: args.dry_run,
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
    };
    let monitor = CliMonitor::new(&context.output, "packs", signals::cancel_flag()?);
    let report = lost::run(&repository, &options, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if let Some(newer) = report.behind {
        let is_added = if report.dry_run { "would be" } else { "was" };
        context.output.warn(&format!(
            "warning: snapshot {} is newer by its time, and stands before what {is_added} added now: `latest` is not the newest then",
            newer.short()
        ));
    }
    if context.output.json() {
        json_lines(&report, elapsed, context);
    } else {
        text(&report, elapsed, context);
    }
    Ok(if report.incomplete() > 0 { Exit::Damage } else { Exit::Ok })
}

/// Entries of the log that were given, or are remembered.
fn seen(repository: &Repository, context: &Context) -> Vec<Head> {
    let remembered = context.heads().and_then(|heads| heads.remembered(&repository.id()).ok().flatten());
    context.global.expect_head.into_iter().chain(remembered).collect()
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
            "withheld": found.withheld.map(|why| why.to_string()),
            "added": report.commit.is_some() && found.is_added(),
        })));
    }
    context.output.message(object(json!({
        "type": "summary",
        "dry_run": report.dry_run,
        "snapshots_found": report.snapshots.len(),
        "snapshots_incomplete": report.incomplete(),
        "snapshots_withheld": report.withheld(),
        "snapshots_forgotten": report.forgotten,
        "packs": report.packs,
        "commit": report.commit,
        "newer": report.behind,
        "total_duration": elapsed.as_secs_f64(),
    })));
}

fn text(report: &LostReport, elapsed: Duration, context: &Context) {
    let out = &context.output;
    for found in &report.snapshots {
        let end = match (&found.lacks, found.withheld) {
            (Some(why), _) => format!("cannot be had again: {why}"),
            (None, Some(why)) => format!("only added if its id is given: {why}"),
            (None, None) if report.commit.is_some() => "added again".to_owned(),
            (None, None) => "can be added again".to_owned(),
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
        "Found:   {} that the log does not name in {}; {} that {} forgotten, which stays so",
        units::count(report.snapshots.len() as u64, "snapshot"),
        units::clock(elapsed),
        units::count(report.forgotten, "snapshot"),
        units::verb(report.forgotten, "was", "were"),
    ));
    if let Some(commit) = report.commit {
        let added = report.snapshots.iter().filter(|found| found.is_added()).count() as u64;
        out.text(format!(
            "Commit {commit} adds {}, and {}",
            units::count(added, "snapshot"),
            units::count(report.packs, "pack")
        ));
    }
}
