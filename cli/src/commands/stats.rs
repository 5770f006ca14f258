//! `stats`: how much is protected and what it takes.

use serde_json::json;
use strongroom::stats::{self, KindStats, Stats};

use crate::commands::snapshots::aligned;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::monitor::CliMonitor;
use crate::output::{Object, object};
use crate::{signals, units};

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Logical: all files of the snapshots, each as often as it occurs. Unique: distinct blobs before \
                        compression. Stored: the packs.\n\nExample:\n  strongroom -r /backup/repo stats --snapshot latest"
)]
pub struct Args {
    /// Count what this snapshot reaches; can be given several times
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Vec<String>,
}

/// Counts.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open()?;
    let mut chosen = Vec::new();
    for name in &args.snapshot {
        chosen.push(repository.find_snapshot(name)?.0);
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
        row(what, format!("{} in {} blobs", units::size(kind.unique_bytes), kind.blobs))
    };
    let packs = |what: &str, kind: &KindStats| {
        row(what, format!("{} in {} packs", units::size(kind.stored_bytes), kind.packs))
    };
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
    let mut rows = vec![
        row("Snapshots:", stats.snapshots.to_string()),
        row("Logical:", format!("{} in {} files", units::size(stats.logical_bytes), stats.files)),
        blobs("Unique data:", &stats.data),
        blobs("Unique metadata:", &stats.metadata),
    ];
    if whole {
        let index = format!("{} in {} segments", units::size(stats.segment_bytes), stats.segments);
        rows.extend([packs("Stored data:", &stats.data), packs("Stored metadata:", &stats.metadata)]);
        rows.push(row("Index:", index));
    }
    rows.push(row("Deduplication:", ratio(stats.deduplication_ratio())));
    if whole {
        rows.push(row("Compression:", ratio(stats.compression_ratio())));
    }
    aligned(&rows, &[])
}
