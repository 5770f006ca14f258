//! `repair snapshots`: snapshots without what is lost for good.

use std::time::Duration;

use serde_json::json;
use strongroom::repair::{LostEntry, LostKind, SnapshotsOptions, SnapshotsReport, snapshots};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::{insert_bytes, object};
use crate::{signals, units};

const AFTER_HELP: &str = "\
Run `repair packs` first, with every copy there is: what is left out here does not come back.

A repaired snapshot has everything of its original but the files and directories that are lost.
Each of them is named here and in the log; the snapshot itself says how many there are, carries the
tag `repaired`, and stands where its original stood, so that `latest` and policies find it there. A
file is left out as a whole: no part of it is ever replaced by something else. The next backup reads
again what was left out, once the originals are forgotten (--forget). Held snapshots are never
forgotten.

Exit codes: 0 nothing is lost; 3 repaired and the originals forgotten: things are missing, and
named; 4 snapshots are still there that lead to something lost.

Examples:
  strongroom -r /backup/repo repair snapshots --dry-run
  strongroom -r /backup/repo repair snapshots --forget";

/// Arguments of `repair snapshots`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Only these: ids or their first digits, or `latest`
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Forget the originals in the same step
    #[arg(long)]
    forget: bool,
    /// Say what is lost, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Repairs snapshots.
pub fn run(args: &Args, context: &Context) -> Outcome {
    // Where all are repaired, those whose records cannot be read are told by the repair.
    let repository = if args.snapshots.is_empty() { context.open() } else { context.open_for_snapshots() }?;
    let named: Result<Vec<_>, _> =
        args.snapshots.iter().map(|name| repository.find_snapshot(name).map(|(id, _)| id)).collect();
    let default = SnapshotsOptions::default();
    let options = SnapshotsOptions {
        snapshots: named?,
        forget: args.forget,
        dry_run: args.dry_run,
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
    };
    let monitor = CliMonitor::new(&context.output, "directories", signals::cancel_flag()?);
    let report = snapshots::run(&repository, &options, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if context.output.json() {
        json_lines(&report, elapsed, context);
    } else {
        text(&report, elapsed, context)?;
    }
    Ok(match (report.snapshots.is_empty(), report.left()) {
        (true, _) => Exit::Ok,
        (false, 0) => Exit::Partial,
        (false, _) => Exit::Damage,
    })
}

fn kind(entry: &LostEntry) -> &'static str {
    match entry.kind {
        LostKind::File => "file",
        LostKind::Directory => "directory",
        LostKind::Entries(_) => "entries",
    }
}

fn json_lines(report: &SnapshotsReport, elapsed: Duration, context: &Context) {
    for hit in &report.snapshots {
        for entry in &hit.lost {
            let mut line = object(json!({
                "type": "error",
                "code": "entry-lost",
                "message": "it is lost and left out",
                "snapshot_id": hit.original,
                "kind": kind(entry),
            }));
            insert_bytes(&mut line, "path", &entry.path);
            if let LostKind::Entries(count) = entry.kind {
                line.insert("entries".into(), json!(count));
            }
            context.output.message(line);
        }
        context.output.message(object(json!({
            "type": "repaired",
            "original": hit.original,
            "snapshot_id": hit.repaired,
            "entries_lost": hit.lost_count,
            "all_lost": hit.is_lost,
            "forgotten": hit.forgotten,
            "hold": hit.hold,
        })));
    }
    context.output.message(object(json!({
        "type": "summary",
        "dry_run": report.dry_run,
        "snapshots_checked": report.checked,
        "snapshots_damaged": report.snapshots.len(),
        "snapshots_repaired": report.snapshots.iter().filter(|hit| hit.repaired.is_some()).count(),
        "snapshots_left": report.left(),
        "commit": report.commit,
        "total_duration": elapsed.as_secs_f64(),
    })));
}

fn text(report: &SnapshotsReport, elapsed: Duration, context: &Context) -> Result<(), Failure> {
    let out = &context.output;
    for hit in &report.snapshots {
        let original = hit.original.short();
        for entry in &hit.lost {
            let what = match entry.kind {
                LostKind::File => "file".to_owned(),
                LostKind::Directory => "directory".to_owned(),
                LostKind::Entries(count) => format!("{} from", units::count(count, "entry")),
            };
            let mut line = format!("lost: {original} {what} ").into_bytes();
            line.extend(out.name(&entry.path));
            out.line(line)?;
        }
        let listed = hit.lost.len() as u64;
        if hit.lost_count > listed {
            out.line(format!("lost: {original} and {} more", hit.lost_count - listed))?;
        }
        let mut line = match hit.repaired {
            Some(repaired) => format!("snapshot {original} repaired as {}", repaired.short()),
            None if hit.is_lost => format!("snapshot {original}: nothing of it is left"),
            None => {
                let (number, are) =
                    (units::count(hit.lost_count, "entry"), units::verb(hit.lost_count, "is", "are"));
                format!("snapshot {original}: {number} {are} lost")
            }
        };
        if hit.forgotten {
            line.push_str(", and forgotten");
        } else if let Some(reason) = &hit.hold {
            line.push_str(&format!(", and held: {}", crate::output::visible(reason.as_bytes())));
        }
        out.line(line)?;
    }
    out.text(format!("Checked: {} in {}", units::count(report.checked, "snapshot"), units::clock(elapsed)));
    if report.snapshots.is_empty() {
        out.text("Nothing is lost");
    } else if report.dry_run {
        out.text(
            "Next:    repair packs --from and --from-source, if there is a copy; else without --dry-run",
        );
    } else if report.snapshots.iter().any(|hit| !hit.forgotten && hit.hold.is_none()) {
        out.text("Next:    --forget forgets the originals that are left, unless they are held");
    } else if report.left() > 0 {
        out.text("Next:    `strongroom snapshot release ID` of the originals that are held, once they may go; then --forget");
    }
    Ok(())
}
