//! `check`: is everything there, and is it what it should be?

use std::time::Duration;

use serde_json::json;
use strongroom::check::{self, CheckOptions, CheckReport, Damage, ReadData};

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::{insert_bytes, object, visible};
use crate::{signals, units};

const AFTER_HELP: &str = "\
Exit code 4 means damage, 5 that the check could not be made, was cancelled, or could not keep up
with others who prune.

Examples:
  strongroom -r /backup/repo check
  strongroom -r /backup/repo check --read-data-subset 3/7
  strongroom -r /backup/repo check --budget 50GiB --max-age 30d";

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Read, decrypt, decompress and verify every byte
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// The same with some packs: a random share (10%) or amount (5GiB), or part N of M (3/7)
    #[arg(long, value_name = "SUBSET", value_parser = parse_subset)]
    read_data_subset: Option<ReadData>,
    /// Read at most this much, what was read longest ago first, but one pack at least
    #[arg(long, value_name = "SIZE", value_parser = parse_budget, conflicts_with_all = ["read_data", "read_data_subset"])]
    budget: Option<u64>,
    /// Leave out what was read less than this ago, as 30d; without --budget, read all the rest
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, conflicts_with_all = ["read_data", "read_data_subset"])]
    max_age: Option<Duration>,
    /// Compare the bytes of packs with their ids only, without decoding them: as fast as the storage is
    #[arg(long)]
    hashes_only: bool,
    /// Do not write down in the repository what was verified
    #[arg(long)]
    no_record: bool,
}

impl Args {
    fn read_data(&self) -> ReadData {
        match (self.read_data, self.read_data_subset, self.budget, self.max_age) {
            (true, ..) => ReadData::All,
            (_, Some(subset), ..) => subset,
            (_, _, None, None) => ReadData::No,
            (_, _, budget, max_age) => ReadData::Oldest { budget, max_age },
        }
    }
}

fn parse_budget(text: &str) -> Result<u64, String> {
    match units::parse_size(text)? {
        0 => Err("a budget is more than nothing".into()),
        bytes => Ok(bytes),
    }
}

fn parse_subset(text: &str) -> Result<ReadData, String> {
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.parse() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(ReadData::Percent(percent)),
            _ => Err("a share is more than 0% and at most 100%".into()),
        };
    }
    if let Some((n, m)) = text.split_once('/') {
        return match (n.parse(), m.parse()) {
            (Ok(n), Ok(m)) if 1 <= n && n <= m => Ok(ReadData::Part { n, m }),
            _ => Err("a part is written N/M, with N from 1 to M".into()),
        };
    }
    match units::parse_size(text) {
        Ok(0) | Err(_) => Err("a subset is a share as 10%, a part as 3/7, or an amount as 5GiB".into()),
        Ok(bytes) => Ok(ReadData::Bytes(bytes)),
    }
}

/// Checks.
pub fn run(args: &Args, context: &Context) -> Outcome {
    if args.hashes_only && args.read_data() == ReadData::No {
        let message = "--hashes-only says how packs are read; say which: --read-data, --read-data-subset, --budget or --max-age";
        return Err(Failure::usage("usage", message));
    }
    let (repository, unexpected) = context.open_for_check().map_err(unverified)?;
    let default = CheckOptions::default();
    let options = CheckOptions {
        read_data: args.read_data(),
        hashes_only: args.hashes_only,
        // Nothing is added to a history that may be the wrong one.
        record: !args.no_record && unexpected.is_none(),
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
        spill: Some(context::temporary_place()),
    };
    // Everything found is in the report; told twice it would look like two findings.
    let monitor = CliMonitor::new(&context.output, "packs", signals::cancel_flag()?).without_problems();
    let report = check::run(&repository, &options, &monitor);
    let elapsed = monitor.finish();
    let mut report = report.map_err(|error| unverified(error.into()))?;
    if let Some(failure) = &unexpected {
        report.findings.push(Damage {
            code: failure.code,
            object: "log".into(),
            message: failure.message.clone(),
            is_damage: true,
        });
    }
    if context.output.json() {
        json_lines(&report, elapsed, context);
    } else {
        text(&report, elapsed, context)?;
    }
    if let Some(failure) = unexpected {
        return Err(failure);
    }
    if report.is_damaged() {
        return Ok(Exit::Damage);
    }
    if report.overtaken {
        let message = "others removed packs faster than they could be looked at, time and again";
        let failure = Failure::new("overtaken", message).hint("run it again while nobody prunes");
        return Err(failure.exit(Exit::Unverified));
    }
    if report.unread_snapshots > 0 && !report.cancelled {
        let count = units::count(report.unread_snapshots, "snapshot");
        let message =
            format!("{count} of a newer version: what is needed for it is not known, and was not checked");
        let failure = Failure::new("newer-version", message).hint("use a newer version of this program");
        return Err(failure.exit(Exit::Unverified));
    }
    if report.cancelled {
        let failure = Failure::new("cancelled", "cancelled; what was not looked at may be anything");
        return Err(failure.exit(Exit::Unverified));
    }
    Ok(Exit::Ok)
}

/// A check that could not be made says nothing about the repository.
fn unverified(failure: Failure) -> Failure {
    if failure.exit == Exit::Failed { failure.exit(Exit::Unverified) } else { failure }
}

fn json_lines(report: &CheckReport, elapsed: Duration, context: &Context) {
    for finding in &report.findings {
        context.output.message(object(json!({
            "type": if finding.is_damage { "error" } else { "warning" },
            "code": finding.code,
            "object": finding.object,
            "message": finding.message,
        })));
    }
    for hit in &report.hit_files {
        let message = "cannot be restored in whole";
        let mut line = object(
            json!({"type": "error", "code": "file-hit", "message": message, "snapshot_id": hit.snapshot}),
        );
        insert_bytes(&mut line, "path", &hit.path);
        context.output.message(line);
    }
    if let Some(error) = &report.ledger_error {
        context
            .output
            .message(object(json!({"type": "warning", "code": "ledger-not-written", "message": error})));
    }
    context.output.message(object(json!({
        "type": "summary",
        "num_errors": report.findings.iter().filter(|finding| finding.is_damage).count(),
        "num_warnings": report.findings.iter().filter(|finding| !finding.is_damage).count(),
        "more_findings": report.more_findings,
        "snapshots_not_understood": report.unread_snapshots,
        "hit_files": report.hit_files.len(),
        "more_hit_files": report.more_hit_files,
        "commits": report.commits,
        "snapshots": report.snapshots,
        "segments": report.segments,
        "packs": report.packs,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
        "blobs_verified": report.blobs_verified,
        "packs_never_read": report.packs_never_read,
        "oldest_read": report.oldest_read.map(|(pack, time)| json!({"pack": pack, "time": units::rfc3339(time)})),
        "orphan_packs": report.orphan_packs,
        "cancelled": report.cancelled,
        "overtaken": report.overtaken,
        "total_duration": elapsed.as_secs_f64(),
    })));
}

fn text(report: &CheckReport, elapsed: Duration, context: &Context) -> Result<(), Failure> {
    let out = &context.output;
    for finding in &report.findings {
        let kind = if finding.is_damage { "damage" } else { "note" };
        if finding.is_damage || !out.quiet() {
            let of = if finding.object.is_empty() { String::new() } else { format!("{}: ", finding.object) };
            out.line(format!("{kind}: {of}{}", visible(finding.message.as_bytes())))?;
        }
    }
    if report.more_findings > 0 {
        out.line(format!("and {}", units::count(report.more_findings, "more finding")))?;
    }
    for hit in &report.hit_files {
        let mut line = format!("hit: {} ", hit.snapshot.short()).into_bytes();
        line.extend(out.name(&hit.path));
        out.line(line)?;
    }
    if report.more_hit_files {
        out.line(format!("hit: more than these {}", units::count(report.hit_files.len(), "file")))?;
    }
    out.text(format!(
        "Checked: {}, {}, {}, {} in {}",
        units::count(report.commits, "commit"),
        units::count(report.snapshots, "snapshot"),
        units::count(report.segments, "segment"),
        units::count(report.packs, "pack"),
        units::clock(elapsed)
    ));
    if report.packs_read > 0 {
        let bytes = units::size(report.bytes_read);
        out.text(format!(
            "Read:    {}, {bytes}, {} verified",
            units::count(report.packs_read, "pack"),
            units::count(report.blobs_verified, "blob")
        ));
    }
    if report.packs_never_read > 0 {
        out.text(format!(
            "Never read: {} of {}",
            units::count(report.packs_never_read, "pack"),
            report.packs
        ));
    }
    if let Some((pack, time)) = report.oldest_read {
        out.text(format!("Oldest:  pack {} was last read {}", pack.short(), units::local_time(time)));
    }
    if let Some(error) = &report.ledger_error {
        out.line(format!(
            "warning: what was verified could not be written down: {}",
            visible(error.as_bytes())
        ))?;
    }
    if report.orphan_packs > 0 {
        out.text(format!(
            "Orphans: {} of interrupted or running backups",
            units::count(report.orphan_packs, "pack")
        ));
    }
    if report.is_damaged() {
        out.line("The repository is damaged: what is not listed as hit can be restored")?;
        let is_damage = |finding: &&Damage| finding.is_damage;
        let mut codes = report.findings.iter().filter(is_damage).map(|finding| finding.code);
        out.text(match codes.all(|code| code == "log-rolled-back") {
            true => "Next:    bring the newer log back from a copy of the repository; `strongroom repair objects` does where there is parity of it",
            false => "Next:    `strongroom repair --help` says what to do, in which order",
        });
    } else if !report.cancelled && !report.overtaken {
        out.text("No damage was found");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets() {
        assert_eq!(parse_subset("10%"), Ok(ReadData::Percent(10.0)));
        assert_eq!(parse_subset("3/7"), Ok(ReadData::Part { n: 3, m: 7 }));
        assert_eq!(parse_subset("5GiB"), Ok(ReadData::Bytes(5 << 30)));
        for bad in ["", "0%", "101%", "NaN%", "0/7", "8/7", "1/0", "x", "0", "1/2/3"] {
            assert!(parse_subset(bad).is_err(), "{bad}");
        }
    }
}
