//! `diff`: how one snapshot differs from another.

use std::ffi::OsString;
use std::ops::ControlFlow;

use serde_json::{Value, json};
use strongroom::browse::{self, BrowseError, Found};
use strongroom::diff::{self, Change, Count, Difference, Totals};
use strongroom::format::snapshot::Snapshot;
use strongroom::format::tree::{Node, NodeKind};
use strongroom::ids::SnapshotId;
use strongroom::repo::Repository;

use crate::commands::ls::normal;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{insert_bytes, object};
use crate::{records, units};

const AFTER_HELP: &str = "\
Each line begins with + (only the second has it), - (only the first has it), M (other content),
T (another type) or, with --metadata, U (other mode, owner, time, attributes or flags). The content
of files is compared by the chunks it consists of; only trees are read, and no directory that is
the same in both.

Examples:
  strongroom -r /backup/repo diff 3fa81c22 latest
  strongroom -r /backup/repo diff 3fa81c22 latest /etc --metadata
  strongroom -r /backup/repo diff 3fa81c22 latest --stat";

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What was: an id or its first digits, or `latest`
    #[arg(value_name = "SNAPSHOT")]
    before: String,
    /// What became of it: the same
    #[arg(value_name = "SNAPSHOT")]
    after: String,
    /// Compare only what is at this path
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Show also what differs in nothing but metadata
    #[arg(long)]
    metadata: bool,
    /// Show no entries, only how many there are and their bytes
    #[arg(long)]
    stat: bool,
}

/// Compares.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open_for_snapshots()?;
    let (before, after) = (repository.find_snapshot(&args.before)?, repository.find_snapshot(&args.after)?);
    for (id, snapshot) in [&before, &after] {
        if snapshot.partial {
            let what = "is partial: the backup was not finished, things are missing in it";
            context.output.note(&format!("snapshot {} {what}", id.short()));
        }
    }
    let path = normal(args.path.as_ref().map_or(b"", |path| path.as_encoded_bytes()));
    let places = places(&repository, &path, &before.1, &after.1)?;
    let mut shown = Ok(());
    let mut visit = |difference: Difference<'_>| {
        if !args.stat && (args.metadata || difference.change != Change::Metadata) {
            shown = show(&difference, context);
        }
        if shown.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let (one, other) = (places.0.as_ref(), places.1.as_ref());
    let totals = diff::run(repository.reader(), &path, one, other, &mut visit)?;
    shown?;
    if context.output.json() {
        summary(&totals, &before.0, &after.0, context)?;
    } else {
        text(&totals, args, context);
    }
    Ok(Exit::Ok)
}

/// What the path names in each snapshot, of which one at least has to have it.
fn places(
    repository: &Repository,
    path: &[u8],
    before: &Snapshot,
    after: &Snapshot,
) -> Result<(Option<Found>, Option<Found>), Failure> {
    let find = |snapshot: &Snapshot| browse::find(repository.reader(), &snapshot.tree, path);
    let found = |result| match result {
        Ok(found) => Ok(Some(found)),
        Err(BrowseError::NoPath { .. } | BrowseError::NotDirectory { .. }) => Ok(None),
        Err(error) => Err(Failure::from(error)),
    };
    match (found(find(before))?, find(after)) {
        // Neither has it: the second says what is missing.
        (None, Err(error)) => Err(error.into()),
        (before, after) => Ok((before, found(after)?)),
    }
}

fn modifier(change: Change) -> &'static str {
    match change {
        Change::Added => "+",
        Change::Removed => "-",
        Change::Content => "M",
        Change::Metadata => "U",
        Change::Type => "T",
    }
}

fn show(difference: &Difference<'_>, context: &Context) -> Result<(), Failure> {
    let modifier = modifier(difference.change);
    if context.output.json() {
        let node = |node: Option<&Node>| node.map(records::node);
        let mut line = object(json!({"type": "change", "modifier": modifier}));
        insert_bytes(&mut line, "path", difference.path);
        line.insert("before".into(), json!(node(difference.before)));
        line.insert("after".into(), json!(node(difference.after)));
        return context.output.object(line);
    }
    let mut line = format!("{modifier}  ").into_bytes();
    line.extend(context.output.name(difference.path));
    let node = difference.after.or(difference.before);
    if node.is_some_and(|node| matches!(node.kind, NodeKind::Directory { .. })) {
        line.push(b'/');
    }
    context.output.line(line)
}

fn summary(
    totals: &Totals,
    before: &SnapshotId,
    after: &SnapshotId,
    context: &Context,
) -> Result<(), Failure> {
    let count = |count: &Count| -> Value {
        json!({"files": count.files, "dirs": count.directories, "others": count.others, "bytes": count.bytes})
    };
    context.output.object(object(json!({
        "type": "summary",
        "source_snapshot": before,
        "target_snapshot": after,
        "added": count(&totals.added),
        "removed": count(&totals.removed),
        "changed_before": count(&totals.changed_before),
        "changed_after": count(&totals.changed_after),
        "metadata_changed": totals.metadata,
        "types_changed": totals.types,
    })))
}

fn text(totals: &Totals, args: &Args, context: &Context) {
    let out = &context.output;
    let count = |count: &Count| {
        let (files, others) = (units::count(count.files, "file"), units::count(count.others, "other"));
        let dirs = units::count(count.directories, "directory");
        format!("{files}, {dirs}, {others}, {}", units::size(count.bytes))
    };
    if !args.stat && *totals != Totals::default() {
        out.text("");
    }
    out.text(format!("Added:     {}", count(&totals.added)));
    out.text(format!("Removed:   {}", count(&totals.removed)));
    let (files, others) = (totals.changed_after.files, totals.changed_after.others);
    out.text(format!(
        "Changed:   {}, {}, {} before and {} after",
        units::count(files, "file"),
        units::count(others, "other"),
        units::size(totals.changed_before.bytes),
        units::size(totals.changed_after.bytes)
    ));
    out.text(format!("Metadata:  {} of which nothing else changed", units::count(totals.metadata, "entry")));
    if totals.types > 0 {
        out.text(format!("Types:     {} of another type", units::count(totals.types, "entry")));
    }
}
