//! `snapshots`: the live snapshots in the order they were made.

use std::num::NonZero;

use serde_json::{Value, json};
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;
use strongroom::log::Fold;

use crate::commands::select::{NONE_CHOSEN, Select};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{visible, with_schema};
use crate::{records, units};

/// Paths of a snapshot in the table.
const PATHS_SHOWN: usize = 8;

const AFTER_HELP: &str = "\
Exit code 3: a commit is lost, and with it maybe a snapshot. See `repair lost-snapshots`.

Examples:
  strongroom -r /backup/repo snapshots --host web1 --tag nightly --last 7
  strongroom -r /backup/repo snapshots --json | jq -r '.[-1].id'";

/// Arguments of `snapshots`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Which snapshots are listed.
    #[command(flatten)]
    select: Select,
    /// List only the last N of them
    #[arg(long, value_name = "N")]
    last: Option<NonZero<usize>>,
}

/// Lists the snapshots: a table, or one JSON array.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open_to_add()?;
    let ((mut snapshots, unread), fold) = (repository.readable_snapshots(), repository.fold());
    context.tell_unread(&unread);
    let has_any = !snapshots.is_empty() || !unread.is_empty();
    let selection = args.select.selection();
    snapshots.retain(|(_, snapshot)| selection.chooses(snapshot));
    if let Some(last) = args.last {
        snapshots.drain(..snapshots.len().saturating_sub(last.get()));
    }
    let hold = |id: &SnapshotId| fold.snapshot(id).and_then(|entry| entry.hold.as_deref());
    if context.output.json() {
        let list = snapshots.iter().map(|(id, snapshot)| {
            let mut record = records::snapshot(id, snapshot);
            record.extend(hold(id).map(|reason| ("hold".to_owned(), Value::from(reason))));
            let appender = snapshot.appender(fold.snapshot(id).and_then(|entry| entry.appender));
            record.extend(appender.map(|writer| ("appender".to_owned(), json!(writer))));
            with_schema(record)
        });
        context.output.line(Value::Array(list.collect()).to_string())?;
    } else if snapshots.is_empty() && has_any {
        context.output.note(NONE_CHOSEN);
    } else if snapshots.is_empty() {
        context.output.note("the repository holds no snapshots yet");
    } else {
        table(&snapshots, &fold, context)?;
    }
    // That was told when it was opened: one may be missing from the list.
    Ok(if repository.lost_commits().is_empty() { Exit::Ok } else { Exit::Partial })
}

fn table(snapshots: &[(SnapshotId, Snapshot)], fold: &Fold, context: &Context) -> Result<(), Failure> {
    let mut rows = vec![["ID", "Time", "Host", "Tags", "Size", "Paths"].map(str::to_owned)];
    for (id, snapshot) in snapshots {
        let paths: Vec<_> = snapshot.paths.iter().map(|path| visible(path)).collect();
        let mut tags: Vec<_> = snapshot.tags.iter().map(|tag| visible(tag.as_bytes())).collect();
        if snapshot.partial {
            tags.push("(partial)".into());
        }
        if snapshot.appender(fold.snapshot(id).and_then(|entry| entry.appender)).is_some() {
            tags.push("(append-only)".into());
        }
        if fold.snapshot(id).is_some_and(|entry| entry.hold.is_some()) {
            tags.push("(held)".into());
        }
        rows.push([
            id.short(),
            units::local_time(snapshot.time),
            visible(snapshot.hostname.as_bytes()),
            tags.join(","),
            units::size(snapshot.summary.bytes),
            some(&paths),
        ]);
    }
    for line in aligned(&rows, &[4]) {
        context.output.line(line)?;
    }
    context.output.note(&units::count(snapshots.len() as u64, "snapshot"));
    Ok(())
}

/// The first of many paths, and how many there are besides: lists of files may have thousands.
fn some(paths: &[String]) -> String {
    match paths.len().saturating_sub(PATHS_SHOWN) {
        0 | 1 => paths.join(", "),
        more => format!("{} and {more} more", paths[..PATHS_SHOWN].join(", ")),
    }
}

/// Rows as lines with their columns below each other, those of `right` with their ends.
pub fn aligned<const N: usize>(rows: &[[String; N]], right: &[usize]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    // Not by a format's width, which has 16 bits.
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            let room = " ".repeat(width - cell.chars().count());
            if right.contains(&column) { room + cell } else { cell.to_owned() + &room }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "1"], ["löng", "100"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows, &[1]), ["a       1", "löng  100"]);
    }
}
