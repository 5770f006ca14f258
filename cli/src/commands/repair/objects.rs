//! `repair objects`: log entries, states, index segments and others get their bytes back by their parity.

use serde_json::json;
use strongroom::repair::objects;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::monitor::CliMonitor;
use crate::output::{object, visible};
use crate::{signals, units};

const AFTER_HELP: &str = "\
For a repository with parity (`parity add`). Damaged or missing log entries, states, index
segments, verification ledgers, keyslots and the config are made good as far as their parity goes;
those of them that are no longer than a sector as a whole. The repository need not open otherwise.
Nothing is believed: what comes back has the hash of its name, or is signed and fits the entries
beside it. What cannot be made good is named, and the rest is. Packs are for `repair packs`, which
uses parity, too. While this runs nobody else should write.

Exit codes: 0 nothing of these is damaged any more, 4 something is, or the log does not contain what
was seen of it before.

Example:
  strongroom -r /backup/repo repair objects --dry-run";

/// Arguments of `repair objects`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Look at everything, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Repairs objects.
pub fn run(args: &Args, context: &Context) -> Outcome {
    // That it is not what was seen before may be just what is to be repaired.
    let (repository, unexpected) = context.open_for_check()?;
    let monitor = CliMonitor::new(&context.output, "objects", signals::cancel_flag()?);
    let report = objects::run(&repository, args.dry_run, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if context.output.json() {
        for hit in &report.objects {
            let mended = hit.problem.is_none();
            context.output.message(object(json!({
                "type": "object",
                "object": hit.object,
                "mended": mended,
                "problem": hit.problem,
            })));
        }
        context.output.message(object(json!({
            "type": "summary",
            "dry_run": report.dry_run,
            "objects_checked": report.checked,
            "objects_damaged": report.objects.len(),
            "objects_left": report.left(),
            "total_duration": elapsed.as_secs_f64(),
        })));
    } else {
        let out = &context.output;
        for hit in &report.objects {
            out.line(match &hit.problem {
                None if report.dry_run => format!("can be mended: {}", hit.object),
                None => format!("mended: {}", hit.object),
                Some(problem) => format!("damaged: {}: {}", hit.object, visible(problem.as_bytes())),
            })?;
        }
        out.text(format!(
            "Checked: {} in {}, {} damaged",
            units::count(report.checked, "object"),
            units::clock(elapsed),
            report.objects.len()
        ));
        if report.left() > 0 {
            out.text("Next:    `strongroom repair --help` says what else there is, in which order");
        }
    }
    if report.left() > 0 || report.dry_run && !report.objects.is_empty() {
        return Ok(Exit::Damage);
    }
    match unexpected {
        // It was not there to be repaired.
        Some(failure) if report.objects.is_empty() => Err(failure),
        None if !repository.is_salvaged() => Ok(Exit::Ok),
        // Commits may be missing still, of which there was no parity.
        _ => context.compare_head_anew(&repository).map(|()| Exit::Ok),
    }
}
