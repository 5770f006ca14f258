//! `copy`: snapshots into another repository.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use strongroom::copy::{self, Choice, CopiedSnapshot, CopyOptions, CopyReport, Fate};
use strongroom::repo::Repository;

use crate::commands::select::{NONE_CHOSEN, Select};
use crate::commands::snapshots::aligned;
use crate::context::{self, Context};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::{object, visible};
use crate::{signals, units};

const AFTER_HELP: &str = "\
Every blob is verified, and sealed anew under the keys of the other repository, which has to be
there. Snapshots that are there already are left alone; partial ones are copied only by id. Without
a password of its own the other repository is opened with the one of this.

Exit codes: 0 all is there, 3 a snapshot was forgotten meanwhile, 4 something of a snapshot is
damaged: that one was not copied, all others were.

Examples:
  strongroom -r /backup/repo copy --to /mnt/offsite/repo --to-password-file offsite.password
  strongroom -r /backup/repo copy --to /mnt/offsite/repo latest --host web1 --dry-run";

/// Arguments of `copy`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Snapshots to copy: ids or their first digits, `latest`, or `all`, which is the default
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// The repository that gets them
    #[arg(long, value_name = "REPO")]
    to: OsString,
    /// Read the password of that repository from this file
    #[arg(long, value_name = "FILE", conflicts_with = "to_password_command")]
    to_password_file: Option<PathBuf>,
    /// Run this through the shell and take its output as the password of that repository
    #[arg(long, value_name = "COMMAND")]
    to_password_command: Option<OsString>,
    /// Which snapshots are looked at.
    #[command(flatten)]
    select: Select,
    /// Say what would be copied, do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn choice(args: &Args, source: &Repository) -> Result<Choice, Failure> {
    let names: Vec<&str> = args.snapshots.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] | ["all"] => Ok(Choice::All),
        ["latest"] => Ok(Choice::Latest),
        names => {
            if names.contains(&"all") {
                return Err(Failure::usage("usage", "`all` stands alone: it leaves nothing to be named"));
            }
            if args.select.is_selective() {
                let message = "snapshots are named, and options select some: which are meant?";
                return Err(Failure::usage("usage", message)
                    .hint("give either names or --host, --tag, --domain and --path"));
            }
            let ids = names.iter().map(|name| Ok(source.find_snapshot(name)?.0));
            Ok(Choice::Named(ids.collect::<Result<_, Failure>>()?))
        }
    }
}

fn named_none(choice: &Choice) -> bool {
    !matches!(choice, Choice::Named(_))
}

/// Copies.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let source = context.open_for_snapshots()?;
    let choice = choice(args, &source)?;
    // Of what is lost nobody knows whether it was chosen.
    let may_lack = named_none(&choice) && !source.lost_commits().is_empty();
    let named = if let Choice::Named(ids) = &choice { ids.len() } else { 0 };
    let target = context
        .open_target(&args.to, args.to_password_file.as_deref(), args.to_password_command.as_ref())
        .map_err(|failure| failure.of_second("--to", &args.to))?;
    let default = CopyOptions::default();
    let options = CopyOptions {
        choice,
        selection: args.select.selection(),
        dry_run: args.dry_run,
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
        spill: Some(context::temporary_place()),
        ..default
    };
    let monitor = CliMonitor::new(&context.output, "chunks", signals::cancel_flag()?);
    let report = copy::run(&source, &target, &options, &monitor);
    let elapsed = monitor.finish();
    context.remember_head_of(&target);
    context.tell_parity_troubles_of(&target);
    let report = report?;
    if args.select.is_selective() && report.snapshots.is_empty() {
        context.output.warn(&format!("warning: {NONE_CHOSEN}"));
    }
    if context.output.json() {
        json_lines(&report, elapsed, context);
    } else {
        text(&report, elapsed, context)?;
    }
    Ok(match report.damaged() {
        // One that was forgotten since it was named is not in the report.
        0 if may_lack || report.snapshots.len() < named => Exit::Partial,
        0 if report.is_complete() || args.dry_run && report.unread == 0 => Exit::Ok,
        0 => Exit::Partial,
        _ => Exit::Damage,
    })
}

fn outcome(fate: &Fate) -> &'static str {
    match fate {
        Fate::Copied => "copied",
        Fate::Present => "present",
        Fate::Planned => "planned",
        Fate::Damaged { .. } => "damaged",
        Fate::Forgotten => "forgotten",
    }
}

fn count(report: &CopyReport, name: &str) -> u64 {
    report.count(|fate| outcome(fate) == name) as u64
}

fn json_lines(report: &CopyReport, elapsed: Duration, context: &Context) {
    for snapshot in &report.snapshots {
        let mut line = object(json!({
            "type": "copy",
            "snapshot_id": snapshot.source,
            "copy_id": snapshot.target,
            "time": units::rfc3339(snapshot.time),
            "hostname": snapshot.hostname,
            "outcome": outcome(&snapshot.fate),
        }));
        if let Fate::Damaged { reason } = &snapshot.fate {
            line.insert("message".into(), json!(reason));
        }
        context.output.message(line);
    }
    context.output.message(object(json!({
        "type": "summary",
        "dry_run": report.dry_run,
        "snapshots_copied": count(report, "copied"),
        "snapshots_present": count(report, "present"),
        "snapshots_planned": count(report, "planned"),
        "snapshots_damaged": count(report, "damaged"),
        "snapshots_forgotten": count(report, "forgotten"),
        "snapshots_not_understood": report.unread,
        "chunks_read": report.chunks_read,
        "bytes_read": report.bytes_read,
        "data_added": report.bytes_added,
        "data_added_packed": report.bytes_stored,
        "total_duration": elapsed.as_secs_f64(),
    })));
}

fn text(report: &CopyReport, elapsed: Duration, context: &Context) -> Result<(), Failure> {
    let out = &context.output;
    let rows: Vec<_> =
        report.snapshots.iter().filter(|snapshot| snapshot.fate != Fate::Present).map(row).collect();
    aligned(&rows, &[]).into_iter().try_for_each(|line| out.line(line))?;
    let present = count(report, "present");
    if report.dry_run {
        let planned = units::count(count(report, "planned"), "snapshot");
        out.text(format!("Would copy {planned}; {present} there already"));
        return Ok(());
    }
    out.text(format!(
        "Copied {}, {present} there already; read {}, stored {}, in {}",
        units::count(count(report, "copied"), "snapshot"),
        units::size(report.bytes_read),
        units::size(report.bytes_stored),
        units::clock(elapsed)
    ));
    if count(report, "copied") > 0 {
        out.note("A copy has an id of its own, as told above: by that it is known in the other repository");
    }
    if report.damaged() > 0 {
        out.note(
            "`strongroom check --read-data` says what is damaged, `strongroom repair packs` what can be done",
        );
    }
    Ok(())
}

fn row(snapshot: &CopiedSnapshot) -> [String; 5] {
    [
        outcome(&snapshot.fate).to_owned(),
        snapshot.source.short(),
        units::local_time(snapshot.time),
        visible(snapshot.hostname.as_bytes()),
        snapshot.target.map_or(String::new(), |id| format!("as {}", id.short())),
    ]
}
