//! `repair index`: the index rebuilt from the directories of all packs.

use serde_json::json;
use strongroom::budget;
use strongroom::rebuild::{self, RebuildOptions};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::monitor::CliMonitor;
use crate::output::object;
use crate::{signals, units};

const AFTER_HELP: &str = "\
Reads the directory of every pack, not its content. What the old index says of packs whose
directories are damaged is kept, as far as it can be read. Exit code 4: some directories are
damaged, `repair packs` comes next.

Example:
  strongroom -r /backup/repo repair index --dry-run";

/// Arguments of `repair index`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Read everything, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Rebuilds.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open_for_repair()?;
    let blobs = budget::uncommitted(context.memory(budget::USUAL));
    let blobs_per_segment = usize::try_from(blobs).unwrap_or(usize::MAX);
    let options = RebuildOptions { dry_run: args.dry_run, blobs_per_segment };
    let broken = repository.broken_segments();
    let monitor = CliMonitor::new(&context.output, "packs", signals::cancel_flag()?);
    let report = rebuild::run(&repository, &options, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if context.output.json() {
        context.output.message(object(json!({
            "type": "summary",
            "dry_run": args.dry_run,
            "segments_broken": broken.len(),
            "packs": report.packs,
            "packs_damaged": report.damaged.len(),
            "packs_condemned": report.condemned,
            "packs_removed": report.removed,
            "blobs": report.blobs,
            "blobs_kept": report.blobs_kept,
            "segments": report.segments,
            "total_duration": elapsed.as_secs_f64(),
        })));
    } else {
        let out = &context.output;
        for segment in &broken {
            out.text(format!("Lost:    {segment}"));
        }
        let verb = if args.dry_run { "Would rebuild:" } else { "Rebuilt:" };
        out.text(format!(
            "{verb} the index of {} with {} in {}",
            units::count(report.packs, "pack"),
            units::count(report.blobs, "blob"),
            units::clock(elapsed)
        ));
        if !report.damaged.is_empty() {
            out.line(format!(
                "Damaged: {}, of which {} of the old index {} kept; next: strongroom repair packs",
                units::count(report.damaged.len(), "pack"),
                units::count(report.blobs_kept, "entry"),
                units::verb(report.blobs_kept, "is", "are")
            ))?;
        }
    }
    Ok(if report.damaged.is_empty() { Exit::Ok } else { Exit::Damage })
}
