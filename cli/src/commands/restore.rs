//! `restore`: from a snapshot to a directory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use strongroom::restore::{self, Overwrite, RestoreOptions, RestoreReport};
use strongroom::target::{INCOMPLETE_SUFFIX, MetadataOptions};

use crate::commands::ls::split_snapshot;
use crate::context::{self, Context};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::object;
use crate::{signals, units};

const AFTER_HELP: &str = "\
With :PATH, the contents of PATH land in the target directory; without it, all that is below the
root of the snapshot. A target directory that exists and is not empty keeps its own mode, owner and
times; a new or empty one gets those of PATH. Exit code 3: single files could not be restored wholly; each is reported.
None of those stands under its name: what there is of it is in NAME.strongroom-incomplete, and a file that was there before
and is not touched yet stays. The same command goes on with it once the rest can be had.

Examples:
  strongroom -r /backup/repo restore latest --target /restored
  strongroom -r /backup/repo restore latest:/etc --target /etc --delete --dry-run";

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An id or its first digits, or `latest`, with an optional path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
    /// The directory to restore into
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,
    /// Restore only what matches
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out what matches
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// What to do with files that exist
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = OverwriteArg::Always)]
    overwrite: OverwriteArg,
    /// Remove what the snapshot does not have
    #[arg(long)]
    delete: bool,
    /// Say what would be done, do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read everything back from the target and compare; with --sync
    #[arg(long)]
    verify: bool,
    /// Wait until everything is on disk, and report what failed to get there
    #[arg(long)]
    sync: bool,
    /// Which metadata to restore.
    #[command(flatten)]
    metadata: MetadataArgs,
}

/// What to do with files that exist.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OverwriteArg {
    /// Compare content and rewrite what differs
    Always,
    /// The same, but files of equal size and time are taken as equal
    IfChanged,
    /// Only if the snapshot's file is newer
    IfNewer,
    /// Leave them alone
    Never,
}

/// Which metadata to restore.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Metadata")]
struct MetadataArgs {
    /// Do not restore owner and group (only root can)
    #[arg(long)]
    no_owner: bool,
    /// Take recorded numbers of owners even where their names are known here
    #[arg(long)]
    numeric_ids: bool,
    /// Restore inode flags such as immutable
    #[arg(long)]
    flags: bool,
    /// Do not restore extended attributes and ACLs
    #[arg(long)]
    no_xattrs: bool,
    /// Do not restore modification times
    #[arg(long)]
    no_times: bool,
    /// Do not restore permissions
    #[arg(long)]
    no_mode: bool,
}

impl MetadataArgs {
    fn options(&self) -> MetadataOptions {
        let default = MetadataOptions::default();
        MetadataOptions {
            owner: default.owner && !self.no_owner,
            numeric_ids: self.numeric_ids,
            flags: self.flags,
            xattrs: !self.no_xattrs,
            times: !self.no_times,
            mode: !self.no_mode,
        }
    }
}

/// Restores.
pub fn run(args: Args, context: &Context) -> Outcome {
    let (name, path) = split_snapshot(&args.snapshot)?;
    let repository = context.open_for_snapshots()?;
    let (id, snapshot) = repository.find_snapshot(&name)?;
    let default = RestoreOptions::default();
    let options = RestoreOptions {
        include: args.include,
        exclude: args.exclude,
        overwrite: match args.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::IfNewer => Overwrite::IfNewer,
            OverwriteArg::Never => Overwrite::Never,
        },
        delete: args.delete,
        dry_run: args.dry_run,
        verify: args.verify,
        sync: args.sync || args.verify,
        metadata: args.metadata.options(),
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
        spill: context::spill(),
    };
    if snapshot.partial {
        context.output.note(&format!(
            "snapshot {} is partial: the backup was not finished, things are missing",
            id.short()
        ));
    }
    let monitor = CliMonitor::new(&context.output, "files", signals::cancel_flag()?);
    let report = restore::run(&repository, &snapshot, &path, &args.target, &options, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if context.output.json() {
        context.output.message(object(json!({
            "type": "summary",
            "snapshot_id": id,
            "dry_run": options.dry_run,
            "total_files": report.files,
            "total_dirs": report.directories,
            "total_others": report.others,
            "total_bytes": report.bytes,
            "files_restored": report.files_written,
            "files_unchanged": report.files_unchanged,
            "files_skipped": report.files_skipped,
            "files_incomplete": report.files_incomplete,
            "bytes_restored": report.bytes_written,
            "files_deleted": report.deleted,
            "files_verified": report.verified,
            "error_count": report.errors,
            "total_duration": elapsed.as_secs_f64(),
        })));
    } else {
        text(&report, &options, elapsed, context);
    }
    if !options.include.is_empty()
        && report.files + report.directories + report.others == 0
        && !report.cancelled
    {
        return Err(Failure::new(
            "no-match",
            "nothing in the snapshot matches --include; nothing was restored",
        )
        .hint("patterns are matched against paths as `strongroom ls --recursive` shows them"));
    }
    end(&report)
}

fn text(report: &RestoreReport, options: &RestoreOptions, elapsed: Duration, context: &Context) {
    let out = &context.output;
    out.text(format!(
        "Selected:  {}, {}, {}, {}",
        units::count(report.files, "file"),
        units::count(report.directories, "directory"),
        units::count(report.others, "other"),
        units::size(report.bytes)
    ));
    let written = if options.dry_run { "Would write:" } else { "Written:  " };
    out.text(format!(
        "{written} {}, {} in {}; {} {} as {} should be{}",
        units::count(report.files_written, "file"),
        units::size(report.bytes_written),
        units::clock(elapsed),
        units::count(report.files_unchanged, "file"),
        units::verb(report.files_unchanged, "was", "were"),
        units::verb(report.files_unchanged, "it", "they"),
        if report.files_skipped > 0 {
            format!(
                ", {} {} left alone",
                report.files_skipped,
                units::verb(report.files_skipped, "was", "were")
            )
        } else {
            String::new()
        }
    ));
    if options.delete {
        out.text(format!(
            "{}   {}",
            if options.dry_run { "Would delete:" } else { "Deleted:" },
            units::count(report.deleted, "entry")
        ));
    }
    if options.verify {
        out.text(format!("Verified:  {} read back and found equal", units::count(report.verified, "file")));
    }
    if report.files_incomplete > 0 {
        out.text(format!(
            "Not whole: {}: none of them is under its name; what was had is in *{INCOMPLETE_SUFFIX}",
            units::count(report.files_incomplete, "file")
        ));
    }
    if report.errors > 0 {
        out.text(format!("Errors:    {} could not be restored wholly", units::count(report.errors, "entry")));
    }
}

fn end(report: &RestoreReport) -> Outcome {
    if report.cancelled {
        return Err(Failure::new("cancelled", "cancelled; the target is incomplete")
            .hint("the same command goes on: what is there already is only compared"));
    }
    Ok(if report.errors > 0 { Exit::Partial } else { Exit::Ok })
}
