//! `verify`: repositories of the plan, read again as often and as much as it says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use strongroom::check::{self, CheckOptions, CheckReport, ReadData};
use strongroom::monitor::{EntryAction, Monitor, Problem, Progress};
use strongroom_ops::notify::Item;
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::values::{Name, Share};
use strongroom_ops::run::vault::VaultError;
use strongroom_ops::verify::{Checked, Demand, Known, Verdict, Verification, Verifier, demands, due, verify};

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::{object, visible};
use crate::plan::{self, PlanArgs};
use crate::vault::Repositories;
use crate::{notices, numbers, signals, units};

const AFTER_HELP: &str = "\
Each repository of which a class of the plan demands it (verify = { every = \"7d\", read = \"10%\" }) is
checked, and that much of it is read and verified: what was read longest ago first. What was read
when is kept in the repository.

Exit codes: 0 no damage was found, or nothing is due; 1 what was verified could not be written down;
4 damage was found; 5 a repository could not be verified.

Examples:
  strongroom verify --due --config /etc/strongroom/strongroom.toml
  strongroom verify offsite --read 100%
  strongroom verify --due --budget 30m";

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Repositories to verify [default: all of which the plan demands it]
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
    /// Only what is due, as the repositories tell
    #[arg(long)]
    due: bool,
    /// Read this share, whatever the plan says
    #[arg(long, value_name = "SHARE")]
    read: Option<Share>,
    /// Read no longer than this, all repositories together, as 30m; what is left is due the next time
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    budget: Option<Duration>,
}

/// Verifies.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let plan = plan::runnable(&args.plan)?;
    plan::refuse_head(&plan, context)?;
    let started = Instant::now();
    let cancelled = signals::cancel_flag()?;
    let wanted = wanted(args, &plan)?;
    let state = plan::state(&plan, context)?;
    let unwritable = |error| Failure::io("cannot write to the state directory", &error);
    let Some(_lock) = state.verify_lock().map_err(unwritable)? else {
        let message = "another verification is at work";
        if args.due {
            context.output.text(message);
            return Ok(Exit::Ok);
        }
        return Err(Failure::new("busy", message).exit(Exit::Unverified));
    };
    let repositories = Repositories::new(context, &plan, Arc::clone(&cancelled));
    let unwritten = RefCell::default();
    let checks = Checks {
        context,
        repositories: &repositories,
        cancelled: &cancelled,
        budget: args.budget,
        started,
        unwritten: &unwritten,
    };
    // Where that cannot be read, the repositories tell alone what is due.
    let done_before = state.verifications().unwrap_or_default();
    let mut verdicts = Vec::new();
    let (mut failed, mut good) = (Vec::new(), Vec::new());
    let mut unrecorded = None;
    let mut is_used_up = false;
    for (repo, demand) in &wanted {
        if args.due {
            let known = checks.known(repo).map_err(|error| error.message);
            let last = done_before.iter().rev().find(|done| done.repository == *repo);
            if due(demand, &known, last.map(|last| last.verdict), Timestamp::now()).is_none() {
                continue;
            }
        }
        if cancelled.load(Ordering::Relaxed) {
            break;
        }
        is_used_up = args.budget.is_some_and(|budget| started.elapsed() >= budget);
        if is_used_up {
            context.output.warn(&format!(
                "{repo} and what comes after it is left for the next time: the budget is used up"
            ));
            break;
        }
        let unwritten_before = unwritten.borrow().len();
        let done = verify(&checks, repo, demand.read, &Timestamp::now);
        // What was found is told all the same, and the others are looked at.
        if let Err(error) = state.record_verification(&done) {
            context.output.warn(&format!("warning: {repo}: how it ended cannot be remembered: {error}"));
            unrecorded.get_or_insert(error);
        }
        tell(&done, context);
        let message = done.message.as_deref().unwrap_or_default();
        let item = Item::new(format!("verify {repo}"), &format!("{} {message}", done.verdict.name()));
        let is_written = unwritten.borrow().len() == unwritten_before;
        if done.verdict == Verdict::Ok && is_written {
            good.push(item);
        } else {
            failed.push(item);
        }
        verdicts.push(done.verdict);
    }
    repositories.remember_heads();
    notices::tell(&plan, &state, context, |notifier| notifier.changed(&failed, &good));
    numbers::write(&plan, &repositories, &state, context);
    let count = |verdict| verdicts.iter().filter(|found| **found == verdict).count();
    let (damaged, unverified) = (count(Verdict::Damaged), count(Verdict::Unverified));
    if context.output.json() {
        context.output.message(object(json!({
            "type": "summary",
            "repositories_ok": count(Verdict::Ok),
            "repositories_damaged": damaged,
            "repositories_unverified": unverified,
            "total_duration": started.elapsed().as_secs_f64(),
        })));
    } else if verdicts.is_empty() && !is_used_up {
        context.output.text("nothing is due");
    }
    if cancelled.load(Ordering::Relaxed) {
        let failure = Failure::new("cancelled", "cancelled; what was not looked at may be anything");
        return Err(failure.exit(if damaged > 0 { Exit::Damage } else { Exit::Unverified }));
    }
    let unwritten = unwritten.into_inner();
    if !unwritten.is_empty() {
        let message = format!("what was verified could not be written down in {}", unwritten.join(", "));
        let failure = Failure::new("ledger-not-written", message);
        return Err(match (damaged, unverified) {
            (0, 0) => failure.hint("the next verification reads the same packs again"),
            (0, _) => failure.exit(Exit::Unverified),
            _ => failure.exit(Exit::Damage),
        });
    }
    Ok(match (damaged, unverified, unrecorded) {
        (0, 0, Some(error)) => return Err(unwritable(error)),
        (0, 0, None) => Exit::Ok,
        (0, _, _) => Exit::Unverified,
        _ => Exit::Damage,
    })
}

/// What is to be verified, and how much of it.
fn wanted(args: &Args, plan: &Plan) -> Result<BTreeMap<Name, Demand>, Failure> {
    let demanded = demands(plan);
    let named = |repo: &Name| {
        args.repositories.is_empty() || args.repositories.iter().any(|name| name == repo.as_str())
    };
    if let Some(name) =
        args.repositories.iter().find(|name| !plan.repos.keys().any(|repo| repo.as_str() == **name))
    {
        let names: Vec<_> = plan.repos.keys().map(Name::as_str).collect();
        return Err(Failure::usage("usage", format!("the plan has no repository {name:?}"))
            .hint(format!("it has: {}", names.join(", "))));
    }
    let mut wanted = BTreeMap::new();
    for repo in plan.repos.keys().filter(|repo| named(repo)) {
        let demand = match (demanded.get(repo), args.read) {
            (Some(demand), read) => Demand { read: read.unwrap_or(demand.read), ..*demand },
            // Asked for by name, or with a share for all.
            (None, Some(read)) => {
                Demand { every: "1s".parse().map_err(|error| Failure::new("internal", error))?, read }
            }
            (None, None) if args.repositories.is_empty() => continue,
            (None, None) => {
                let message = format!("no domain of the plan demands that {repo} is verified");
                return Err(
                    Failure::usage("no-demand", message).hint("say how much to read, as with --read 10%")
                );
            }
        };
        wanted.insert(repo.clone(), demand);
    }
    if wanted.is_empty() {
        return Err(Failure::usage("no-demand", "no class or domain of the plan demands verification")
            .hint("add verify = { every = \"7d\", read = \"10%\" } to a class, or give --read 10%"));
    }
    Ok(wanted)
}

/// Checks of repositories, for people who watch.
struct Checks<'a> {
    context: &'a Context,
    repositories: &'a Repositories<'a>,
    cancelled: &'a Arc<AtomicBool>,
    budget: Option<Duration>,
    started: Instant,
    /// Where what was verified could not be written down, and why.
    unwritten: &'a RefCell<Vec<String>>,
}

impl Verifier for Checks<'_> {
    fn known(&self, repo: &Name) -> Result<Known, VaultError> {
        self.repositories.known(repo)
    }

    fn check(&self, repo: &Name, budget: Option<u64>) -> Result<Checked, VaultError> {
        let repository = match self.repositories.open(repo) {
            Ok(repository) => repository,
            Err(error) if self.repositories.is_damaged(repo) => {
                return Ok(Checked { damage: Some(error.message), ..Checked::default() });
            }
            Err(error) => return Err(error),
        };
        let default = CheckOptions::default();
        let options = CheckOptions {
            read_data: ReadData::Oldest { budget, max_age: None },
            record: true,
            threads: self.context.threads(default.threads),
            memory: self.context.memory(default.memory),
            spill: Some(context::temporary_place()),
            ..default
        };
        let inner =
            CliMonitor::new(&self.context.output, "packs", Arc::clone(self.cancelled)).without_problems();
        let monitor = Until { inner, deadline: self.budget.map(|budget| self.started + budget) };
        let report = check::run(&repository, &options, &monitor);
        monitor.inner.finish();
        let report = report.map_err(|error| Repositories::error(error.into()))?;
        if let Some(error) = &report.ledger_error {
            self.context
                .output
                .warn(&format!("warning: {repo}: what was verified could not be written down: {error}"));
            self.unwritten.borrow_mut().push(repo.to_string());
        }
        Ok(checked(&report, monitor.inner.is_cancelled()))
    }
}

fn checked(report: &CheckReport, by_signal: bool) -> Checked {
    let mut damages = report.findings.iter().filter(|finding| finding.is_damage);
    let damage = damages.next().map(|first| {
        let of = if first.object.is_empty() { String::new() } else { format!("{}: ", first.object) };
        let more = match damages.count() as u64 + report.more_findings {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        format!("{of}{}{more}", first.message)
    });
    let is_cut_short = report.cancelled && (by_signal || (report.packs_read == 0 && report.packs > 0));
    let doubt = match report.overtaken {
        true => Some("others removed packs faster than they could be looked at, time and again".to_owned()),
        false if is_cut_short => Some("it was cut short before anything was read".to_owned()),
        false => (report.unread_snapshots > 0).then(|| {
            let unread = report.unread_snapshots;
            let (number, are) = (units::count(unread, "snapshot"), units::verb(unread, "is", "are"));
            format!("{number} {are} of a newer version: what that takes is not known")
        }),
    };
    Checked { damage, doubt, packs_read: report.packs_read, bytes_read: report.bytes_read }
}

/// A monitor that ends an operation when its time is up.
struct Until<'a> {
    inner: CliMonitor<'a>,
    deadline: Option<Instant>,
}

impl Monitor for Until<'_> {
    fn progress(&self, progress: &Progress) {
        self.inner.progress(progress);
    }

    fn wants_totals(&self) -> bool {
        self.inner.wants_totals()
    }

    fn problem(&self, problem: &Problem) {
        self.inner.problem(problem);
    }

    fn entry(&self, path: &[u8], action: EntryAction) {
        self.inner.entry(path, action);
    }

    fn wants_entries(&self) -> bool {
        self.inner.wants_entries()
    }

    fn is_cancelled(&self) -> bool {
        self.inner.is_cancelled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

fn tell(done: &Verification, context: &Context) {
    if context.output.json() {
        return context.output.message(object(json!({
            "type": "verification",
            "repository": done.repository,
            "verdict": done.verdict.name(),
            "message": done.message,
            "packs_read": done.packs_read,
            "bytes_read": done.bytes_read,
        })));
    }
    let why = done.message.as_ref().map_or(String::new(), |message| format!(": {message}"));
    let read = format!("{} of {} read", units::count(done.packs_read, "pack"), units::size(done.bytes_read));
    let line = visible(format!("{}: {}, {read}{why}", done.repository, done.verdict.name()).as_bytes());
    match done.verdict {
        Verdict::Ok => context.output.text(line),
        _ => context.output.alert(&line),
    }
    if done.verdict == Verdict::Damaged {
        context.output.note("hint: `strongroom check` on this repository names everything that is damaged and the files it hits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_whose_time_is_up_says_nothing_bad_unless_it_has_read_nothing() {
        let report =
            |packs_read| CheckReport { cancelled: true, packs: 3, packs_read, ..CheckReport::default() };
        let ended = checked(&report(1), false);
        assert_eq!(
            (ended.packs_read, ended.damage, ended.doubt),
            (1, None, None),
            "the rest is for the next time"
        );
        let cut_short = Some("it was cut short before anything was read".to_owned());
        assert_eq!(checked(&report(0), false).doubt, cut_short);
        assert_eq!(checked(&report(1), true).doubt, cut_short, "somebody has ended it");
        let empty = CheckReport { packs: 0, ..report(0) };
        assert_eq!(checked(&empty, false).doubt, None, "there was nothing to read");
    }
}
