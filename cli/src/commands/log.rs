//! `log`: the commit log as an audit trail.

use serde_json::json;
use strongroom::crypto::KeySet;
use strongroom::format::commit::{Change, Commit};
use strongroom::format::config::Config;
use strongroom::format::note::{
    AT_WORK_NOTE, AtWorkNote, DRILL_NOTE, DrillNote, EXCEPTIONS_NOTE, ExceptionsNote, LOG_LOSS_NOTE,
    LogLossNote, NotedException, REBUILD_NOTE, RECOVERY_NOTE, REPAIR_NOTE, RecoveryNote, RepairNote,
};
use strongroom::format::parity::Overhead;
use strongroom::format::record;
use strongroom::log::{LogEntry, VoidEntry, read_all, snapshot_record};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{object, visible};
use crate::{records, units};

/// Arguments of `log`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  strongroom -r /backup/repo log --verify",
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    /// Only verify the chain and the signatures from the first entry to the last, and show the head
    #[arg(long)]
    verify: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the last entry as a short line to keep elsewhere, for --expect-head
    Head(HeadArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = HEAD_HELP)]
struct HeadArgs {
    /// Remember it from now on, although something else is remembered: after the repository was set back
    /// on purpose
    #[arg(long)]
    accept: bool,
}

const HEAD_HELP: &str = "\
A log that lost its end is a log, too: only who has seen more of it can tell. Each run compares it
with what an earlier run has seen. What is kept elsewhere, on paper or on another machine, tells
also those who have not seen anything yet.

Example:
  strongroom -r /backup/repo log head > head
  strongroom -r /backup/repo check --expect-head \"$(cat head)\"";

/// Shows or verifies the log. Both read all of it, so damage is found either way.
pub fn run(args: &Args, context: &Context) -> Outcome {
    if let Some(Verb::Head(args)) = &args.verb {
        return head(args, context);
    }
    let repository = context.open_for_log().map_err(unverified)?;
    let (mut commits, mut voids, mut shown) = (0u64, 0u64, Ok(()));
    let config = Config::hash(repository.config_bytes());
    let fold = read_all(&**repository.backend(), repository.keys(), &repository.id(), config, &mut |entry| {
        if shown.is_err() {
            return;
        }
        match entry {
            Ok(entry) => {
                commits += 1;
                if !args.verify {
                    shown = show(&entry, repository.keys(), context);
                }
            }
            Err(void) => {
                voids += 1;
                shown = show_void(&void, context);
            }
        }
    });
    let fold = fold.map_err(|error| {
        // What was found out while the repository was opened, where it is not shown because it was not come to.
        if voids == 0 {
            context.tell_void(&repository);
        }
        unverified(error.into())
    })?;
    shown?;
    if context.output.json() && args.verify {
        context.output.object(object(json!({
            "type": "summary",
            "commits": commits,
            "void_entries": voids,
            "seq": fold.seq(),
            "head": fold.head(),
        })))?;
    } else if args.verify {
        context.output.line(format!(
            "{} {} in order, {} {} void",
            units::count(commits, "commit"),
            units::verb(commits, "is", "are"),
            units::count(voids, "entry"),
            units::verb(voids, "is", "are")
        ))?;
        context.output.line(format!("head: {} {}", fold.seq(), fold.head()))?;
    }
    let is_whole = fold.lost_commits().next().is_none() && repository.lost_commits().is_empty();
    Ok(if is_whole || !args.verify { Exit::Ok } else { Exit::Damage })
}

/// Shows the last entry, and accepts it if that is wanted.
fn head(args: &HeadArgs, context: &Context) -> Outcome {
    let repository = match args.accept {
        true => context.work_on(context.open_unknown().map_err(unverified)?),
        false => context.open_to_add().map_err(unverified)?,
    };
    let none = || Failure::damage("log-damaged", "no entry of the commit log counts");
    let head = repository.head().ok_or_else(none)?;
    if args.accept {
        if context.heads().is_none() {
            let message = "there is no state directory to remember anything in";
            return Err(Failure::usage("usage", message).hint("see --state-dir"));
        }
        context.accept_head()?;
    }
    if context.output.json() {
        let line = json!({"type": "summary", "seq": head.seq, "head": head.hash, "line": head.to_string()});
        context.output.object(object(line))?;
    } else {
        context.output.line(head.to_string())?;
    }
    Ok(Exit::Ok)
}

/// A log that could not be read is neither in order nor damaged.
fn unverified(failure: Failure) -> Failure {
    if failure.exit == Exit::Failed { failure.exit(Exit::Unverified) } else { failure }
}

fn show(entry: &LogEntry, keys: &KeySet, context: &Context) -> Result<(), Failure> {
    if context.output.json() {
        return context.output.object(records::log_entry(entry, keys));
    }
    let Commit { seq, time, host, user, changes, .. } = &entry.commit;
    let who = visible(format!("{user}@{host}").as_bytes());
    let writer = entry.writer.short();
    context.output.line(format!("{seq:>6}  {}  {who}  key {writer}", units::local_time(*time)))?;
    changes.iter().try_for_each(|change| context.output.line(format!("        {}", describe(change, keys))))
}

fn show_void(void: &VoidEntry, context: &Context) -> Result<(), Failure> {
    let message = format!("log entry {} does not count: {}", void.seq, void.reason);
    if context.output.json() {
        let line = json!({"type": "warning", "code": "log-void", "seq": void.seq, "message": message});
        return context.output.object(object(line));
    }
    context.output.line(format!("{:>6}  void: {}", void.seq, visible(void.reason.as_bytes())))
}

fn describe(change: &Change, keys: &KeySet) -> String {
    match change {
        Change::KeyslotAdded { keyslot, label, .. } | Change::AppenderAdded { keyslot, label, .. } => {
            let label =
                if label.is_empty() { String::new() } else { format!(" ({})", visible(label.as_bytes())) };
            let sort = if matches!(change, Change::AppenderAdded { .. }) { "append-only " } else { "" };
            format!("{sort}keyslot {} added{label}", keyslot.short())
        }
        Change::KeyslotRemoved { keyslot, .. } => format!("keyslot {} removed", keyslot.short()),
        Change::SnapshotAdded { snapshot, record } => match snapshot_record(keys, *snapshot, record) {
            Ok(record) => {
                let paths: Vec<_> = record.paths.iter().map(|path| visible(path)).collect();
                let partial = if record.partial { "partial " } else { "" };
                format!("{partial}snapshot {} of {} added", snapshot.short(), paths.join(", "))
            }
            Err(_) => format!("snapshot {} added, with an unreadable record", snapshot.short()),
        },
        Change::SnapshotForgotten { snapshot, reason } => {
            format!("snapshot {} forgotten: {}", snapshot.short(), visible(reason.as_bytes()))
        }
        Change::SnapshotHeld { snapshot, reason } => {
            format!("snapshot {} held: {}", snapshot.short(), visible(reason.as_bytes()))
        }
        Change::SnapshotReleased { snapshot, reason } => {
            format!("snapshot {} released: {}", snapshot.short(), visible(reason.as_bytes()))
        }
        Change::SegmentsDropped { segments } => {
            format!("index: {} dropped", units::count(segments.len(), "stray segment"))
        }
        Change::SegmentsReplaced { added, removed } => {
            format!("index: {} added, {} removed", units::count(added.len(), "segment"), removed.len())
        }
        Change::PacksCondemned { packs } => format!("{} condemned", units::count(packs.len(), "pack")),
        Change::PacksRescued { packs } => format!("{} rescued", units::count(packs.len(), "pack")),
        Change::PacksRemoved { packs } => format!("{} removed", units::count(packs.len(), "pack")),
        Change::LedgerReplaced { ledger, .. } => {
            format!("verification ledger {} took the place of the one before", ledger.short())
        }
        Change::ParitySet { overhead } => match Overhead::from_tenths(*overhead) {
            Some(overhead) => format!("parity of {overhead} wanted"),
            None => "parity no longer wanted".to_owned(),
        },
        Change::ReserveSet { bytes: 0 } => "no room kept free any longer".to_owned(),
        Change::ReserveSet { bytes } => format!("{} to be kept free", units::size(*bytes)),
        Change::Note { kind, record } if kind == REPAIR_NOTE => match record::decode::<RepairNote>(record) {
            Ok(note) => {
                let lost: Vec<_> = note.lost.iter().map(|path| visible(path)).collect();
                let more = if note.more > 0 { format!(" and {} more", note.more) } else { String::new() };
                let (snapshot, original) = (note.snapshot.short(), note.original.short());
                format!("snapshot {snapshot} is {original} without {}{more}", lost.join(", "))
            }
            Err(_) => "note of a repair, with an unreadable record".to_owned(),
        },
        Change::Note { kind, record } if kind == LOG_LOSS_NOTE => match record::decode::<LogLossNote>(record)
        {
            Ok(note) => format!("what log entry {} said is lost", note.seq),
            Err(_) => "note of a lost log entry, with an unreadable record".to_owned(),
        },
        Change::Note { kind, record } if kind == DRILL_NOTE => match record::decode::<DrillNote>(record) {
            Ok(note) => {
                let name = visible(note.drill.as_bytes());
                let (tier, outcome) = (visible(note.tier.as_bytes()), visible(note.outcome.as_bytes()));
                let reason = match note.reason.as_str() {
                    "" => String::new(),
                    reason => format!(": {}", visible(reason.as_bytes())),
                };
                // It fails where all is well.
                let kind = if note.self_test { ", self-test" } else { "" };
                format!("drill {name} ({tier}{kind}): {outcome}{reason}")
            }
            Err(_) => "note of a drill, with an unreadable record".to_owned(),
        },
        Change::Note { kind, record } if kind == RECOVERY_NOTE => {
            match record::decode::<RecoveryNote>(record) {
                Ok(note) => {
                    let (domain, outcome) =
                        (visible(note.domain.as_bytes()), visible(note.outcome.as_bytes()));
                    let reason = match note.reason.as_str() {
                        "" => String::new(),
                        reason => format!(": {}", visible(reason.as_bytes())),
                    };
                    format!("recovery of {domain} from {}: {outcome}{reason}", note.snapshot.short())
                }
                Err(_) => "note of a recovery, with an unreadable record".to_owned(),
            }
        }
        Change::Note { kind, record } if kind == EXCEPTIONS_NOTE => {
            match record::decode::<ExceptionsNote>(record) {
                Ok(note) => exceptions(&note),
                Err(_) => "note of exceptions, with an unreadable record".to_owned(),
            }
        }
        Change::Note { kind, record } if kind == AT_WORK_NOTE => match record::decode::<AtWorkNote>(record) {
            Ok(AtWorkNote { began: 0, ended: false }) => "a backup is at work".to_owned(),
            Ok(AtWorkNote { began, ended: false }) => format!("the backup of entry {began} is still at work"),
            Ok(AtWorkNote { began, ended: true }) => format!("the backup of entry {began} has ended"),
            Err(_) => "note of a backup at work, with an unreadable record".to_owned(),
        },
        Change::Note { kind, .. } if kind == REBUILD_NOTE => "index rebuilt from the packs".to_owned(),
        Change::Note { kind, record } => {
            format!("note of kind {} ({})", visible(kind.as_bytes()), units::count(record.len(), "byte"))
        }
    }
}

/// Who agreed to what, and until when.
fn exceptions(note: &ExceptionsNote) -> String {
    let host = visible(note.host.as_bytes());
    let told = note.exceptions.iter().map(|exception| {
        let NotedException { id, control, domain, reason, approved_by, expires } = exception;
        let line =
            format!("{id}: {control} of {domain} until {expires}, approved by {approved_by}: {reason}");
        visible(line.as_bytes())
    });
    match told.collect::<Vec<_>>() {
        told if told.is_empty() => format!("no exceptions of {host} any more"),
        told => format!("exceptions of {host}: {}", told.join("; ")),
    }
}
