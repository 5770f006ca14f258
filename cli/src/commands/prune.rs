//! `prune`: give back the space of what no snapshot needs any more.

use std::time::Duration;

use serde_json::json;
use strongroom::prune::{self, Limit, PruneOptions, PruneReport};

use crate::commands::reserve::tell_spent;
use crate::context::{self, Context};
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::monitor::CliMonitor;
use crate::output::object;
use crate::{signals, units};

const AFTER_HELP: &str = "\
A run condemns packs, and a later one deletes them: by default once they were condemned for 24
hours, so that readers at work finish in peace. With --grace 0s both happen in one run; what no
commit names, as a backup leaves it that was killed, still waits for the next one. Backups go on
meanwhile: what they need of condemned packs they rescue.

--dry-run tells what a run with the same options would do, to the byte: what is to be freed counts
packs, the index and parity, less what is written anew. Where packs would be rewritten in part, that
is an estimate, and called so.

Disk full: `prune --max-unused unlimited --grace 0s` writes no data, only the index anew; what
earlier runs condemned is deleted first. Where there is no room even for that, the reserve is used,
unless there is none (`reserve`). Where there is neither, --delete-first makes room of the parity
of packs, which `parity add` makes anew.

Examples:
  strongroom -r /backup/repo prune --dry-run
  strongroom -r /backup/repo prune --max-unused 10% --max-repack-size 20GiB";

/// Arguments of `prune`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// How much unneeded data may stay: a share (5%), an amount (10GiB), or `unlimited`
    #[arg(long, value_name = "LIMIT", default_value = "5%", value_parser = parse_limit)]
    max_unused: Limit,
    /// Write at most this much of packs anew; 0 deletes only wholly unneeded packs
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    max_repack_size: Option<u64>,
    /// Time between condemning and deleting packs
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = units::parse_duration)]
    grace: Duration,
    /// Delete condemned packs although a backup at work may need them: nothing that is stored is
    /// lost, but a backup of a stream may fail, and others begin anew
    #[arg(long)]
    no_wait: bool,
    /// If the disk is full and there is no other room, delete the parity of packs first
    #[arg(long)]
    delete_first: bool,
    /// Say what would be done, do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    let wrong = || "a share as 5%, an amount as 10GiB, or `unlimited`".to_owned();
    match text.strip_suffix('%') {
        _ if text == "unlimited" => Ok(Limit::Unlimited),
        Some(percent) => match percent.parse() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Limit::Percent(percent)),
            _ => Err(wrong()),
        },
        None => units::parse_size(text).map(Limit::Bytes).map_err(|_| wrong()),
    }
}

/// Prunes.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open()?;
    let default = PruneOptions::default();
    let options = PruneOptions {
        max_unused: args.max_unused,
        max_repack_size: args.max_repack_size,
        grace: args.grace,
        waits: !args.no_wait,
        delete_first: args.delete_first,
        dry_run: args.dry_run,
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
        spill: Some(context::temporary_place()),
        ..default
    };
    let monitor = CliMonitor::new(&context.output, "packs", signals::cancel_flag()?);
    let report = prune::run(&repository, &options, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if context.output.json() {
        json_line(&report, elapsed, context);
    } else {
        text(&report, elapsed, context);
    }
    tell_spent(&context.output, &report.reserve);
    Ok(if report.segments_untrue > 0 { Exit::Damage } else { Exit::Ok })
}

fn json_line(report: &PruneReport, elapsed: Duration, context: &Context) {
    context.output.message(object(json!({
        "type": "summary",
        "dry_run": report.dry_run,
        "snapshots": report.snapshots,
        "packs": report.packs,
        "packs_bytes": report.packs_bytes,
        "packs_unneeded": report.packs_dead,
        "packs_unneeded_bytes": report.packs_dead_bytes,
        "packs_repacked": report.packs_repacked,
        "packs_repacked_bytes": report.packs_repacked_bytes,
        "bytes_rewritten": report.bytes_rewritten,
        "packs_stray": report.packs_stray,
        "packs_stray_bytes": report.packs_stray_bytes,
        "segments_stray": report.segments_stray,
        "segments_vetted": report.segments_vetted,
        "segments_untrue": report.segments_untrue,
        "packs_condemned": report.packs_condemned,
        "packs_condemned_bytes": report.packs_condemned_bytes,
        "packs_removed": report.packs_removed,
        "packs_removed_bytes": report.packs_removed_bytes,
        "sidecars_removed": report.sidecars_removed,
        "sidecars_given_up": report.sidecars_given_up,
        "packs_waiting": report.packs_waiting,
        "packs_waiting_bytes": report.packs_waiting_bytes,
        "bytes_freed": report.bytes_freed(),
        "bytes_deleted": report.bytes_deleted,
        "bytes_written": report.bytes_written,
        "is_estimate": report.is_estimate,
        "segments_unvetted": report.segments_unvetted,
        "unused_bytes": report.unused_bytes,
        "reserve_given_back": report.reserve.given_back,
        "reserve_lacking": report.reserve.lacking,
        "total_duration": elapsed.as_secs_f64(),
    })));
}

fn text(report: &PruneReport, elapsed: Duration, context: &Context) {
    let out = &context.output;
    let size = units::size;
    out.text(format!(
        "Needed:    by {}; {}, {}, in the index",
        units::count(report.snapshots, "snapshot"),
        units::count(report.packs, "pack"),
        size(report.packs_bytes)
    ));
    out.text(format!(
        "Unneeded:  {}, {}",
        units::count(report.packs_dead, "pack"),
        size(report.packs_dead_bytes)
    ));
    if report.segments_vetted > 0 {
        out.text(format!(
            "Vetted:    {} that append-only passwords had added",
            units::count(report.segments_vetted, "index segment")
        ));
    }
    if report.segments_untrue > 0 {
        // It is why the command ends with 4.
        out.alert(&format!(
            "warning: {} that append-only passwords had added, with something untrue, left alone; `strongroom repair packs` makes \
             the best of it",
            units::count(report.segments_untrue, "index segment")
        ));
    }
    if report.sidecars_given_up > 0 {
        out.alert(&format!(
            "warning: the parity of {} was deleted to make room; `strongroom parity add` makes it anew where there is some",
            units::count(report.sidecars_given_up, "pack")
        ));
    }
    if report.packs_repacked > 0 {
        let (about, verb) = if report.dry_run { ("about ", "to be rewritten") } else { ("", "rewritten") };
        out.text(format!(
            "In part:   {}, {}, {verb} as {about}{}",
            units::count(report.packs_repacked, "pack"),
            size(report.packs_repacked_bytes),
            size(report.bytes_rewritten)
        ));
    }
    if report.packs_stray > 0 || report.segments_stray > 0 {
        out.text(format!(
            "Stray:     {}, {}, and {} of interrupted or running backups",
            units::count(report.packs_stray, "pack"),
            size(report.packs_stray_bytes),
            units::count(report.segments_stray, "index segment")
        ));
    }
    let removed = if report.dry_run { "Would delete now:" } else { "Deleted:  " };
    out.text(format!(
        "{removed} {}, {}, in {}",
        units::count(report.packs_removed, "pack"),
        size(report.packs_removed_bytes),
        units::clock(elapsed)
    ));
    if report.dry_run && report.packs_condemned > 0 {
        out.text(format!(
            "Would condemn: {}, {}",
            units::count(report.packs_condemned, "pack"),
            size(report.packs_condemned_bytes)
        ));
    }
    if report.packs_waiting > 0 {
        out.text(format!(
            "Condemned: {}, {} with parity, to be deleted by a later run",
            units::count(report.packs_waiting, "pack"),
            size(report.packs_waiting_bytes)
        ));
    }
    out.text(freed(report));
    if report.segments_unvetted > 0 {
        out.text(format!(
            "Not counted: what comes of {} that append-only passwords added, and that a prune reads first",
            units::count(report.segments_unvetted, "index segment")
        ));
    }
    out.text(format!("Left:      about {} that no snapshot needs", size(report.unused_bytes)));
}

/// What the storage has more room by, in a line.
fn freed(report: &PruneReport) -> String {
    let bytes = report.bytes_freed();
    let about = if report.is_estimate { "about " } else { "" };
    let size = units::size(bytes.unsigned_abs());
    match (report.dry_run, bytes >= 0) {
        (true, true) => format!("To be freed: {about}{size}, with index and parity"),
        (false, true) => format!("Freed:     {size}, with index and parity"),
        (true, false) => format!("To be taken: {about}{size}, until a later run deletes what is condemned"),
        (false, false) => format!("Taken:     {size}, until a later run deletes what is condemned"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(parse_limit("7.5%"), Ok(Limit::Percent(7.5)));
        assert_eq!(parse_limit("0"), Ok(Limit::Bytes(0)));
        assert_eq!(parse_limit("10GiB"), Ok(Limit::Bytes(10 << 30)));
        assert_eq!(parse_limit("unlimited"), Ok(Limit::Unlimited));
        for bad in ["", "%", "101%", "-1%", "NaN%", "much"] {
            assert!(parse_limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_freed_is_told_in_a_line() {
        let told = |dry_run, is_estimate, bytes_deleted, bytes_written| {
            freed(&PruneReport {
                dry_run,
                is_estimate,
                bytes_deleted,
                bytes_written,
                ..PruneReport::default()
            })
        };
        assert_eq!(told(false, false, 2048, 1024), "Freed:     1.00 KiB, with index and parity");
        assert_eq!(told(true, true, 2048, 0), "To be freed: about 2.00 KiB, with index and parity");
        assert!(told(true, false, 0, 1024).starts_with("To be taken: 1.00 KiB, until"));
        assert!(told(false, false, 0, 1024).starts_with("Taken:     1.00 KiB, until"));
    }
}
