//! `stats`: how much is protected, what it takes, and who takes it.

mod usage;

use std::ffi::OsString;

use serde_json::json;
use strongroom::stats::{self, KindStats, Stats};

use crate::commands::ls::split_snapshot;
use crate::commands::snapshots::aligned;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::{Object, object};
use crate::{signals, units};

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Logical: all files of the snapshots, each as often as it occurs. Unique: distinct blobs before \
                        compression. Stored: the packs.\n\nWith --by, \"alone\" is what would become free without \
                        that snapshot, host or directory alone. What several share is free only without all of \
                        them.\n\nExamples:\n  strongroom -r /backup/repo stats --snapshot latest\n  \
                        strongroom -r /backup/repo stats --by path --snapshot latest:/srv --depth 2\n  \
                        strongroom -r /backup/repo stats --free 200GiB"
)]
pub struct Args {
    /// Count what this snapshot reaches; can be given several times. With --by path, the one to look into, with an optional
    /// path in it [default: latest]
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Vec<OsString>,
    /// Who takes how much of the space
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Option<By>,
    /// With --by path, how many directories deep [default: 1]
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u32).range(1..=64))]
    depth: Option<u32>,
    /// Which snapshots to forget to free this much: the oldest ones that together give it, but none that is held or the last
    /// complete one of its host and paths
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, conflicts_with_all = ["by", "snapshot", "depth"])]
    free: Option<u64>,
}

/// Whose space is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// That of each snapshot
    Snapshot,
    /// That of each host's snapshots
    Host,
    /// That of the directories of one snapshot
    Path,
}

/// Counts.
pub fn run(args: &Args, context: &Context) -> Outcome {
    if args.depth.is_some() && args.by != Some(By::Path) {
        return Err(Failure::usage("usage", "--depth goes with --by path"));
    }
    if matches!(args.by, Some(By::Snapshot | By::Host)) && !args.snapshot.is_empty() {
        return Err(Failure::usage(
            "usage",
            "--snapshot does not go with --by snapshot or host: they tell of all",
        ));
    }
    let repository = context.open_for_snapshots()?;
    match (args.by, args.free) {
        (_, Some(wanted)) => return usage::free(&repository, wanted, context),
        (Some(By::Snapshot), _) => return usage::by_snapshot(&repository, context),
        (Some(By::Host), _) => return usage::by_host(&repository, context),
        (Some(By::Path), _) => {
            return usage::by_path(&repository, &args.snapshot, args.depth.unwrap_or(1), context);
        }
        (None, None) => {}
    }
    let mut chosen = Vec::new();
    for argument in &args.snapshot {
        let (name, path) = split_snapshot(argument)?;
        if !path.is_empty() {
            return Err(Failure::usage("usage", "a path in a snapshot goes with --by path only"));
        }
        chosen.push(repository.find_snapshot(&name)?.0);
    }
    let monitor = CliMonitor::new(&context.output, "files", signals::cancel_flag()?);
    let stats = stats::run(&repository, &chosen, &monitor);
    monitor.finish();
    let stats = stats?;
    let whole = chosen.is_empty();
    if context.output.json() {
        context.output.object(record(&stats, whole))?;
    } else {
        for line in text(&stats, whole) {
            context.output.line(line)?;
        }
    }
    Ok(Exit::Ok)
}

fn record(stats: &Stats, whole: bool) -> Object {
    let kind = |kind: &KindStats| {
        let mut record = object(json!({"blobs": kind.blobs, "uncompressed_size": kind.unique_bytes}));
        if whole {
            record.extend(object(json!({"packs": kind.packs, "stored_size": kind.stored_bytes})));
        }
        record
    };
    let mut line = object(json!({
        "type": "summary",
        "snapshots_count": stats.snapshots,
        "total_file_count": stats.files,
        "total_dir_count": stats.directories,
        "total_restore_size": stats.logical_bytes,
        "total_uncompressed_size": stats.unique_bytes(),
        "total_blob_count": stats.data.blobs + stats.metadata.blobs,
        "deduplication_ratio": stats.deduplication_ratio(),
        "data": kind(&stats.data),
        "metadata": kind(&stats.metadata),
    }));
    if whole {
        line.extend(object(json!({
            "total_size": stats.stored_bytes(),
            "compression_ratio": stats.compression_ratio(),
            "segments": stats.segments,
            "segment_bytes": stats.segment_bytes,
            "commits": stats.commits,
        })));
    }
    line
}

fn text(stats: &Stats, whole: bool) -> Vec<String> {
    let row = |what: &str, value: String| [what.to_owned(), value];
    let blobs = |what: &str, kind: &KindStats| {
        row(what, format!("{} in {}", units::size(kind.unique_bytes), units::count(kind.blobs, "blob")))
    };
    let packs = |what: &str, kind: &KindStats| {
        row(what, format!("{} in {}", units::size(kind.stored_bytes), units::count(kind.packs, "pack")))
    };
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
    let mut rows = vec![
        row("Snapshots:", stats.snapshots.to_string()),
        row(
            "Logical:",
            format!("{} in {}", units::size(stats.logical_bytes), units::count(stats.files, "file")),
        ),
        blobs("Unique data:", &stats.data),
        blobs("Unique metadata:", &stats.metadata),
    ];
    if whole {
        let index =
            format!("{} in {}", units::size(stats.segment_bytes), units::count(stats.segments, "segment"));
        rows.extend([packs("Stored data:", &stats.data), packs("Stored metadata:", &stats.metadata)]);
        rows.push(row("Index:", index));
    }
    rows.push(row("Deduplication:", ratio(stats.deduplication_ratio())));
    if whole {
        rows.push(row("Compression:", ratio(stats.compression_ratio())));
    }
    aligned(&rows, &[])
}
