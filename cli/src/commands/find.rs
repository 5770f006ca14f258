//! `find`: where and when something was in snapshots.

use std::ops::ControlFlow;

use serde_json::json;
use strongroom::find::{self, EntryKind, Match, Wanted};
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::{BlobId, SnapshotId};

use crate::commands::select::{NONE_CHOSEN, Select};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{insert_bytes, object};
use crate::units;

const AFTER_HELP: &str = "\
Patterns are those of --exclude: `*.csv` is matched with names, a pattern with a slash with whole
paths, from the root if it begins with one. Each line is one version of an entry: its size, its
time, the first and the last snapshot that has it, how many have it, and its path.

Examples:
  strongroom -r /backup/repo find 'orders*.csv' --path /srv/shop
  strongroom -r /backup/repo find --ignore-case --type f '/home/*/mail/**'";

/// Arguments of `find`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What to look for: entries that match any of these
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<String>,
    /// Look only in this snapshot: an id or its first digits, or `latest`
    #[arg(short, long, value_name = "ID", conflicts_with = "selection")]
    snapshot: Vec<String>,
    /// Take upper and lower case for the same
    #[arg(short, long)]
    ignore_case: bool,
    /// Only entries of this type
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kinds: Vec<KindArg>,
    /// Where to look.
    #[command(flatten)]
    select: Select,
}

/// Type of an entry.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KindArg {
    /// Files
    F,
    /// Directories
    D,
    /// Symbolic links
    L,
}

impl From<KindArg> for EntryKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::F => Self::File,
            KindArg::D => Self::Directory,
            KindArg::L => Self::Symlink,
        }
    }
}

/// Finds.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let kinds = args.kinds.iter().map(|kind| EntryKind::from(*kind)).collect();
    let wanted = Wanted::new(&args.patterns, args.ignore_case, kinds)?;
    let repository = context.open_for_snapshots()?;
    let named: Vec<SnapshotId> = args
        .snapshot
        .iter()
        .map(|name| Ok(repository.find_snapshot(name)?.0))
        .collect::<Result<_, Failure>>()?;
    let selection = args.select.selection();
    let mut snapshots: Vec<(SnapshotId, Snapshot)> = repository.readable_snapshots().0;
    snapshots.retain(|(id, snapshot)| match named.is_empty() {
        true => selection.chooses(snapshot),
        false => named.contains(id),
    });
    let ids: Vec<SnapshotId> = snapshots.iter().map(|(id, _)| *id).collect();
    let roots: Vec<BlobId> = snapshots.iter().map(|(_, snapshot)| snapshot.tree).collect();
    let (mut matches, mut shown) = (0_u64, Ok(()));
    find::run(repository.reader(), &roots, &wanted, &mut |found| {
        matches += 1;
        shown = show(&found, &ids, context);
        if shown.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    shown?;
    if context.output.json() {
        let summary = json!({"type": "summary", "matches": matches, "snapshots_searched": ids.len()});
        context.output.object(object(summary))?;
    } else if ids.is_empty() && args.select.is_selective() {
        context.output.note(NONE_CHOSEN);
    } else {
        let searched = units::count(ids.len() as u64, "snapshot");
        let found =
            if matches == 0 { "nothing that matches".into() } else { units::count(matches, "version") };
        context.output.note(&format!("{found} in {searched}"));
    }
    Ok(Exit::Ok)
}

fn show(found: &Match<'_>, ids: &[SnapshotId], context: &Context) -> Result<(), Failure> {
    let (first, last) = (&ids[found.first], &ids[found.last]);
    if context.output.json() {
        let kind = match found.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "dir",
            EntryKind::Symlink => "symlink",
            EntryKind::Other => "other",
        };
        let mut line = object(json!({"type": "match"}));
        insert_bytes(&mut line, "path", found.path);
        line.extend(object(json!({
            "entry_type": kind,
            "size": found.size,
            "mtime": units::rfc3339(found.mtime),
            "first_snapshot": first,
            "last_snapshot": last,
            "snapshots_count": found.snapshots,
        })));
        return context.output.object(line);
    }
    let head = format!(
        "{:>12}  {}  {}  {}  {:>4}  ",
        found.size,
        units::local_time(found.mtime),
        first.short(),
        last.short(),
        found.snapshots
    );
    let mut line = head.into_bytes();
    line.extend(context.output.name(found.path));
    if found.kind == EntryKind::Directory {
        line.push(b'/');
    }
    context.output.line(line)
}
