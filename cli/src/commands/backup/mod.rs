//! `backup`: from files, a stream or a command's output to a snapshot.

mod options;
mod stream;

pub use options::Args;

use serde_json::json;
use strongroom::backup::{self, BackupReport, BackupSource};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::object;
use crate::{records, signals, units};

/// Backs up.
pub fn run(args: &Args, context: &Context) -> Outcome {
    args.check()?;
    // Lists of paths may come from standard input: read before anything else happens.
    let paths = args.paths()?;
    let repository = context.open_to_add()?;
    let options = args.options(&repository, context)?;
    let cancelled = signals::cancel_flag()?;
    let source = match (&args.command, &args.stdin_filename) {
        (Some(name), _) => stream::of_command(name, &args.argv, &cancelled)?,
        (None, Some(name)) => stream::of_stdin(name, &cancelled)?,
        (None, None) => BackupSource::Paths { paths, filter: args.filter() },
    };
    let monitor = CliMonitor::new(&context.output, "files", cancelled);
    let report = backup::run(&repository, source, &options, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if context.output.json() {
        let mut line = object(json!({"type": "summary"}));
        line.extend(records::summary(&report.summary));
        line.insert("total_duration".into(), json!(elapsed.as_secs_f64()));
        line.insert("data_stored".into(), json!(report.stored.data));
        line.insert("metadata_stored".into(), json!(report.stored.metadata));
        line.extend(object(
            json!({"dry_run": options.dry_run, "partial": report.cancelled, "parent": report.parent}),
        ));
        if let Some(snapshot) = report.snapshot {
            line.insert("snapshot_id".into(), json!(snapshot));
        }
        context.output.message(line);
    } else {
        text(&report, options.dry_run, elapsed, context);
    }
    end(&report, context)
}

fn text(report: &BackupReport, dry_run: bool, elapsed: std::time::Duration, context: &Context) {
    let summary = &report.summary;
    let out = &context.output;
    out.text(format!(
        "Files:     {} new, {} changed, {} unmodified",
        summary.files_new, summary.files_changed, summary.files_unmodified
    ));
    out.text(format!(
        "Processed: {}, {}, {} in {}",
        units::count(summary.files, "file"),
        units::count(summary.directories, "directory"),
        units::size(summary.bytes),
        units::clock(elapsed)
    ));
    let would = if dry_run { "Would add:" } else { "Added:    " };
    out.text(format!(
        "{would} {}, stored as {}",
        units::size(summary.bytes_added),
        units::size(summary.bytes_stored)
    ));
    out.text(format!(
        "In packs:  {} of contents, {} of metadata",
        units::size(report.stored.data),
        units::size(report.stored.metadata)
    ));
    if summary.unstable > 0 {
        out.text(format!("Unstable:  {}", changed(summary.unstable)));
    }
    if summary.errors > 0 {
        out.text(format!("Missing:   {} could not be read", units::count(summary.errors, "entry")));
    }
    out.text(match report.snapshot {
        Some(id) if report.cancelled => format!("partial snapshot {id} saved"),
        Some(id) => format!("snapshot {id} saved"),
        None if dry_run => "dry run: nothing was written".into(),
        None if report.cancelled => "no snapshot was saved".into(),
        None => "nothing has changed: no snapshot was made".into(),
    });
}

fn changed(unstable: u64) -> String {
    let (files, they_were) = (units::count(unstable, "file"), units::verb(unstable, "it was", "they were"));
    format!("{files} changed while {they_were} read")
}

fn end(report: &BackupReport, context: &Context) -> Outcome {
    if report.cancelled {
        let message = match report.snapshot {
            Some(id) => format!("cancelled; what is done is in the partial snapshot {}", id.short()),
            None => "cancelled before anything was saved".into(),
        };
        return Err(Failure::new("cancelled", message).hint("the next backup goes on where this one ended"));
    }
    if !report.lost_commits.is_empty() {
        let seqs: Vec<_> = report.lost_commits.iter().map(|lost| lost.seq.to_string()).collect();
        let what = "and nothing is pruned or forgotten until that is dealt with";
        context.output.alert(&format!("warning: what log entry {} said is lost, {what}", seqs.join(", ")));
    } else if report.is_complete() {
        return Ok(Exit::Ok);
    }
    // What could not be read was told of as an error, entry by entry.
    if context.output.quiet() && !context.output.json() && report.summary.unstable > 0 {
        context.output.alert(&format!("warning: {}", changed(report.summary.unstable)));
    }
    Ok(Exit::Partial)
}
