//! `forget`: which snapshots are no longer wanted.

use std::collections::BTreeMap;

use serde_json::json;
use strongroom::forget::policy::{GroupBy, Period, Policy, Reach, Reason, Rule, Span};
use strongroom::forget::{self, ForgetOptions, ForgetReport, Group, Guards, Verdict, Wish};
use strongroom::ids::SnapshotId;
use strongroom::repo::Repository;
use strongroom_ops::drill::kept::Restored;

use crate::commands::reserve::tell_spent;
use crate::commands::select::{NONE_CHOSEN, Select, split_tags};
use crate::commands::snapshots::aligned;
use crate::context::Context;
use crate::evidence;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, refused_group};
use crate::output::{object, visible};
use crate::units::{self, LocalCalendar};

const AFTER_HELP: &str = "\
A snapshot stays if any rule keeps it; of each period the last snapshot in it is kept. --keep-last
goes by the order of commits and needs no clock. --keep-within counts back from the newest
snapshot of the group, not from today. Partial snapshots go when a later complete one took their
place.

Rules that go by times are not asked about a group whose times run backwards, lie in the future or
leap ahead by far more than is usual: all of it stays, and the other groups are dealt with.

Forgetting frees no space: `strongroom prune` does. What is forgotten is gone for good.

Exit codes: 0 done; 3 done, but for groups whose times cannot be trusted; 1 nothing was forgotten.

Examples:
  strongroom -r /backup/repo forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --explain -n
  strongroom -r /backup/repo forget --keep-within 30d --keep-tag yearly
  strongroom -r /backup/repo forget 3fa81c22 --reason 'backed up the wrong disk'";

/// Arguments of `forget`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Snapshots to forget: ids or their first digits
    #[arg(value_name = "ID", conflicts_with = "rules")]
    ids: Vec<String>,
    /// Which snapshots stay.
    #[command(flatten)]
    keep: Keep,
    /// Which snapshots are looked at.
    #[command(flatten)]
    select: Select,
    /// What makes snapshots one series: host, paths, tags, or nothing
    #[arg(long, value_name = "LIST", default_value = "host,paths", value_parser = parse_group_by)]
    group_by: GroupBy,
    /// Say what would be forgotten, do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Show every snapshot with the reason why it stays or goes
    #[arg(long)]
    explain: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Forget even all snapshots of a group
    #[arg(long)]
    allow_empty: bool,
    /// Forget even the newest complete snapshot of a group by rules that keep older ones
    #[arg(long)]
    allow_newest: bool,
    /// Forget more than 50 snapshots even if they are more than half of all
    #[arg(long)]
    allow_mass: bool,
    /// Go by the times of snapshots although they run backwards, lie in the future or leap ahead
    #[arg(long)]
    trust_times: bool,
}

/// Rules.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Rules")]
#[group(id = "rules", multiple = true)]
struct Keep {
    /// Keep the last N snapshots, or `unlimited`
    #[arg(short = 'l', long, value_name = "N", value_parser = parse_count)]
    keep_last: Option<Reach>,
    /// Keep the last snapshot of each of the last N hours that have one
    #[arg(short = 'H', long, value_name = "N", value_parser = parse_count)]
    keep_hourly: Option<Reach>,
    /// The same with days
    #[arg(short = 'd', long, value_name = "N", value_parser = parse_count)]
    keep_daily: Option<Reach>,
    /// The same with weeks, which begin on Monday
    #[arg(short = 'w', long, value_name = "N", value_parser = parse_count)]
    keep_weekly: Option<Reach>,
    /// The same with months
    #[arg(short = 'm', long, value_name = "N", value_parser = parse_count)]
    keep_monthly: Option<Reach>,
    /// The same with years
    #[arg(short = 'y', long, value_name = "N", value_parser = parse_count)]
    keep_yearly: Option<Reach>,
    /// Keep all snapshots within this time before the newest, as in 2y5m7d3h
    #[arg(long, value_name = "TIME")]
    keep_within: Option<Span>,
    /// Keep the last one of each hour within this time
    #[arg(long, value_name = "TIME")]
    keep_within_hourly: Option<Span>,
    /// The same with days
    #[arg(long, value_name = "TIME")]
    keep_within_daily: Option<Span>,
    /// The same with weeks
    #[arg(long, value_name = "TIME")]
    keep_within_weekly: Option<Span>,
    /// The same with months
    #[arg(long, value_name = "TIME")]
    keep_within_monthly: Option<Span>,
    /// The same with years
    #[arg(long, value_name = "TIME")]
    keep_within_yearly: Option<Span>,
    /// Keep snapshots that have all of these tags
    #[arg(long, value_name = "TAG[,TAG]")]
    keep_tag: Vec<String>,
    /// Keep these snapshots
    #[arg(long, value_name = "ID")]
    keep_id: Vec<String>,
    /// Keep of each domain of a plan the last snapshot that a drill restored, as the log of this repository tells
    #[arg(long)]
    keep_drilled: bool,
}

fn parse_count(text: &str) -> Result<Reach, String> {
    match text {
        "unlimited" => Ok(Reach::Unlimited),
        _ => text.parse().map(Reach::Count).map_err(|_| "a whole number, or `unlimited`".into()),
    }
}

fn parse_group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, paths: false, tags: false };
    for name in text.split(',').map(str::trim) {
        match name {
            "host" => by.host = true,
            "paths" | "path" => by.paths = true,
            "tags" | "tag" => by.tags = true,
            "" | "nothing" => {}
            _ => return Err("a list of host, paths and tags, or `nothing`".into()),
        }
    }
    Ok(by)
}

impl Keep {
    fn rules(&self) -> Vec<Rule> {
        let within = |span: Option<Span>| span.map(Reach::Within);
        let rules = [
            (Period::Each, self.keep_last),
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
            (Period::Each, within(self.keep_within)),
            (Period::Hour, within(self.keep_within_hourly)),
            (Period::Day, within(self.keep_within_daily)),
            (Period::Week, within(self.keep_within_weekly)),
            (Period::Month, within(self.keep_within_monthly)),
            (Period::Year, within(self.keep_within_yearly)),
        ];
        rules.into_iter().filter_map(|(period, reach)| reach.map(|reach| Rule { period, reach })).collect()
    }
}

fn wish(args: &Args, repository: &Repository) -> Result<Wish, Failure> {
    let find = |names: &[String]| -> Result<Vec<_>, Failure> {
        names.iter().map(|name| repository.find_snapshot_id(name).map_err(Failure::from)).collect()
    };
    if !args.ids.is_empty() {
        return Ok(Wish::Named(find(&args.ids)?));
    }
    let (rules, tags) = (args.keep.rules(), split_tags(&args.keep.keep_tag));
    let drilled = if args.keep.keep_drilled { drilled(repository)? } else { Vec::new() };
    Ok(Wish::Policy(Policy { rules, tags, ids: find(&args.keep.keep_id)?, drilled }))
}

/// Of each domain of each host the last snapshots that a drill restored.
fn drilled(repository: &Repository) -> Result<Vec<SnapshotId>, Failure> {
    let (snapshots, _) = repository.readable_snapshots();
    let mut restored = Restored::default();
    // Of whatever host: what it says to one does not matter here.
    let notes: Vec<_> = evidence::noted(repository, "", None)?.drill_notes().cloned().collect();
    restored.add(&notes, &snapshots);
    let mut series: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in &snapshots {
        if let Some(from) = &one.1.provenance {
            series.entry((&one.1.hostname, &from.domain)).or_default().push(one);
        }
    }
    Ok(series.values().flat_map(|series| restored.last(series)).collect())
}

/// Forgets.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open_for_snapshots()?;
    let options = ForgetOptions {
        wish: wish(args, &repository)?,
        selection: args.select.selection(),
        group_by: args.group_by,
        guards: Guards {
            allow_empty: args.allow_empty,
            allow_newest: args.allow_newest,
            allow_mass: args.allow_mass,
            trust_times: args.trust_times,
        },
        dry_run: args.dry_run,
        reason: args.reason.clone(),
    };
    let report = forget::run(&repository, &options, &LocalCalendar::system())?;
    if args.select.is_selective() && report.groups.is_empty() {
        context.output.warn(&format!("warning: {NONE_CHOSEN}"));
    }
    if context.output.json() {
        verdict_lines(&report, context);
    } else {
        text(&report, args, context)?;
    }
    conclude(&report, args.dry_run, context)
}

/// Names the groups that nothing was decided about, and tells how it went.
fn conclude(report: &ForgetReport, dry_run: bool, context: &Context) -> Outcome {
    let mut failures: Vec<_> = report.refused().map(|(group, error)| refused_group(group, error)).collect();
    // The last word is that of a failure where there is nothing else to tell.
    let last = if report.is_refused() { failures.pop() } else { None };
    failures.iter().for_each(|failure| context.output.part_failed(failure));
    if last.is_none() && context.output.json() {
        summary_line(report, dry_run, context);
    }
    tell_spent(&context.output, &report.reserve);
    match last {
        Some(failure) => Err(failure),
        None if failures.is_empty() => Ok(Exit::Ok),
        None => Ok(Exit::Partial),
    }
}

fn verdict_lines(report: &ForgetReport, context: &Context) {
    for group in &report.groups {
        if group.is_stale {
            let message = stale(group);
            context
                .output
                .message(object(json!({"type": "warning", "code": "stale-group", "message": message})));
        }
        for verdict in &group.verdicts {
            let reasons: Vec<_> = verdict.reasons.iter().map(ToString::to_string).collect();
            context.output.message(object(json!({
                "type": "verdict",
                "snapshot_id": verdict.candidate.id,
                "time": units::rfc3339(verdict.candidate.snapshot.time),
                "group": group.key.to_string(),
                "keep": verdict.keep,
                "reasons": reasons,
            })));
        }
    }
    for id in &report.unread {
        context.output.message(object(json!({
            "type": "verdict",
            "snapshot_id": id,
            "keep": false,
            "reasons": [Reason::Named.to_string()],
        })));
    }
}

fn summary_line(report: &ForgetReport, dry_run: bool, context: &Context) {
    let (kept, forgotten) = report.counts();
    let mut summary = object(json!({
        "type": "summary",
        "dry_run": dry_run,
        "groups": report.groups.len(),
        "groups_refused": report.refused().count(),
        "snapshots_kept": kept,
        "snapshots_forgotten": forgotten,
        "reserve_given_back": report.reserve.given_back,
        "reserve_lacking": report.reserve.lacking,
    }));
    if let Some(commit) = report.commit {
        summary.insert("commit".into(), json!(commit));
    }
    context.output.message(summary);
}

fn stale(group: &Group) -> String {
    let (number, key) = (group.verdicts.len(), visible(group.key.to_string().as_bytes()));
    let (count, stay) = (units::count(number, "snapshot"), units::verb(number, "stays", "stay"));
    format!("no new snapshots of {key} for 30 days: by these rules its {count} {stay} for ever")
}

fn text(report: &ForgetReport, args: &Args, context: &Context) -> Result<(), Failure> {
    let out = &context.output;
    for group in &report.groups {
        if args.explain || (args.dry_run && group.verdicts.iter().any(|verdict| !verdict.keep)) {
            out.line(format!("{}:", visible(group.key.to_string().as_bytes())))?;
            let shown = group.verdicts.iter().filter(|verdict| args.explain || !verdict.keep);
            let rows: Vec<_> = shown.map(row).collect();
            aligned(&rows, &[]).into_iter().try_for_each(|line| out.line(line))?;
        }
        if group.is_stale {
            out.note(&format!("warning: {}", stale(group)));
        }
    }
    for id in report.unread.iter().filter(|_| args.explain || args.dry_run) {
        out.line(format!("  forget  {}  {}; its record cannot be read", id.short(), Reason::Named))?;
    }
    if report.is_refused() {
        return Ok(());
    }
    let (kept, forgotten) = report.counts();
    let verb = if args.dry_run { "Would forget" } else { "Forgot" };
    out.text(format!("{verb} {}, keeping {kept}", units::count(forgotten as u64, "snapshot")));
    if report.commit.is_some() {
        out.note("`strongroom prune` frees the space that only they took");
    }
    Ok(())
}

fn row(verdict: &Verdict) -> [String; 4] {
    let reasons: Vec<_> =
        verdict.reasons.iter().map(|reason| visible(reason.to_string().as_bytes())).collect();
    [
        if verdict.keep { "  keep" } else { "  forget" }.to_owned(),
        verdict.candidate.id.short(),
        units::local_time(verdict.candidate.snapshot.time),
        reasons.join("; "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_counts() {
        assert_eq!(parse_group_by("tags, host"), Ok(GroupBy { host: true, paths: false, tags: true }));
        assert_eq!(parse_group_by("nothing"), parse_group_by(""));
        assert!(parse_group_by("hosts").is_err());
        assert_eq!(parse_count("3"), Ok(Reach::Count(3)));
        assert_eq!(parse_count("unlimited"), Ok(Reach::Unlimited));
        assert!(parse_count("-1").is_err() && parse_count("all").is_err());
    }
}
