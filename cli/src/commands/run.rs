//! `run`: what a plan says, done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use jiff::Zoned;
use serde_json::json;
use strongroom::copy::Fate;
use strongroom_ops::notify::Item;
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::types::Domain;
use strongroom_ops::plan::values::Name;
use strongroom_ops::run::again::Attempts;
use strongroom_ops::run::anomaly::{Guard, Guards};
use strongroom_ops::run::lock::{Holder, Lock};
use strongroom_ops::run::select::{Choice, Chosen, Known, Newest, SelectError, dues, meant, select};
use strongroom_ops::run::state::State;
use strongroom_ops::run::turn::Turn;
use strongroom_ops::run::vault::Vault;
use strongroom_ops::run::{DomainReport, Outcome, Patience, RepoReport, Runner, refused};

use crate::commands::status;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::output::{Object, object, visible};
use crate::plan::{self, PlanArgs};
use crate::vault::Repositories;
use crate::{exceptions, notices, numbers, records, signals, units};

const AFTER_HELP: &str = "\
Domains are backed up in the order of their dependencies. What comes after a domain that failed goes
only to the repositories that this has got to; everything else is done. A domain with a schedule
that failed, also in one repository or when it was called by its name, is due again at the next
`run --due`. On Ctrl-C or SIGTERM no further domain is begun.

Of several `run --due` at one time one is at work and one waits for it, and then asks again what is
due; all others have nothing to add, and end with 0, or with 4 as below. --due also waits for a run
of a domain that was called by its name or with a copy of the plan, and says so. Without --due such
a domain is passed over, and so is what comes after it: each is on record, is due again unless it
gets a newer snapshot, and is told to nobody as a failure.

A plan with a mistake in it (exit code 2) is a failed attempt of each of the domains, on record, in
the metrics and told of like any other. Where it cannot even be read, these are the domains, the
metrics and those to tell of the last run that could begin on this host; before the first one,
nothing is known of them.

Exit codes: 0 all domains are in all their repositories; 3 they are, but something is missing or
unstable, or a hook or fact failed, or a domain was passed over that another run is at work on; 4 a
snapshot is far from those before (most files or bytes gone, or new content that may be encrypted):
it is kept, no other is forgotten, and each run ends with 4, also with --dry-run, where nothing is
due or where another run waits, until --acknowledge; 1 a domain failed or was not begun.

Examples:
  strongroom run --due --config /etc/strongroom/strongroom.toml
  strongroom run orders-db
  strongroom run --due --dry-run
  strongroom run --acknowledge orders-db";

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Domains to back up [default: all]
    #[arg(value_name = "DOMAIN")]
    domains: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
    /// Only what is due by its schedule, as the repositories tell, or since its last attempt failed
    #[arg(long)]
    due: bool,
    /// Only domains with one of these tags
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    tag: Vec<String>,
    /// Say what would be backed up, and why; run and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Back nothing up: say that somebody has looked at the snapshots of these domains that were unlike those before
    #[arg(long, requires = "domains", conflicts_with_all = ["due", "tag", "dry_run"])]
    acknowledge: bool,
}

/// Runs the plan.
pub fn run(args: &Args, context: &Context) -> failure::Outcome {
    let choice = Choice { names: args.domains.clone(), tags: args.tag.clone(), due: args.due };
    let plan = runnable(args, &choice, context)?;
    plan::refuse_head(&plan, context)?;
    plan::warn_of_includes(&plan, context);
    if args.acknowledge {
        return acknowledge(&args.domains, &plan, context);
    }
    let started = Instant::now();
    let cancelled = signals::cancel_flag()?;
    let repositories = Repositories::new(context, &plan, Arc::clone(&cancelled));
    let host = plan::host(&plan);
    let guards = Guards { plan: &plan, host: &host, vault: &repositories };
    let newest = |repo: &Name, domain: &Domain| newest(&repositories, &host, repo, domain);
    let known = |state: Option<&State>| attempts(&plan, state, context);
    let select = |attempts: &Attempts| {
        let known = Known { newest: &newest, attempts };
        select(&plan, &choice, &known, &Zoned::now()).map_err(|error| not_selected(&error, &plan))
    };
    if args.dry_run {
        let state = plan::known_state(&plan, context)?;
        let chosen = select(&known(state.as_ref()))?;
        let open = open_anomalies(&guards, &choice, state.as_ref())?;
        would_run(&chosen, &open, context)?;
        return end(&plan, &[], 0, &open);
    }
    let state = plan::state(&plan, context)?;
    plan::keep(&plan, &state, context);
    let is_cancelled = || cancelled.load(Ordering::Relaxed);
    // What is due is asked when nobody else is at work on it any more.
    let _turn = match args.due.then(|| wait_for_turn(&state, &is_cancelled, context)).transpose()? {
        Some(None) => {
            let open = open_anomalies(&guards, &choice, Some(&state))?;
            another_waits(&open, context);
            return end(&plan, &[], 0, &open);
        }
        Some(Some(turn)) => Some(turn),
        None => None,
    };
    let chosen = select(&known(Some(&state)))?;
    let due_still = |domain: &Domain| {
        plan.repositories(domain).into_iter().for_each(|repo| repositories.look_again(repo));
        let attempts = known(Some(&state));
        let known = Known { newest: &newest, attempts: &attempts };
        let dues = dues(&plan, domain, &known, &Zoned::now());
        dues.into_iter().map(|(repo, _)| repo.clone()).collect()
    };
    let waits = |domain: &Name, holder: &Holder| {
        context.output.note(&format!("{domain}: another run is at work on it{holder}: waiting for its end"));
    };
    let runner = Runner {
        plan: &plan,
        host: host.clone(),
        processes: Arc::new(plan::processes(&plan, Arc::clone(&cancelled))),
        vault: &repositories,
        state: &state,
        now: &Zoned::now,
        is_cancelled: &is_cancelled,
        patience: args.due.then_some(Patience { tell: &waits, due_still: &due_still }),
    };
    let domains: Vec<_> = chosen.iter().map(|chosen| chosen.domain.name.as_str()).collect();
    notices::tell(&plan, &state, context, |notifier| notifier.run_begins(&domains));
    let reports = runner.run_all(&chosen, &mut |report| tell(report, context));
    exceptions::note(&plan, &repositories, &state, context);
    repositories.remember_heads();
    repositories.tell_parity_troubles();
    notices::tell(&plan, &state, context, |notifier| notifier.run_ended(&reports));
    tell_of_status(&plan, &repositories, &state, context);
    let count = |outcome| reports.iter().filter(|report| report.outcome == outcome).count();
    let (ok, partial) = (count(Outcome::Ok), count(Outcome::Partial));
    let (failed, skipped) = (count(Outcome::Failed), count(Outcome::Skipped));
    let deferred = count(Outcome::Deferred);
    let open = open_anomalies(&guards, &choice, Some(&state))?;
    tell_of_anomalies(&open, &reports, context);
    if context.output.json() {
        context.output.message(object(json!({
            "type": "summary",
            "domains_ok": ok,
            "domains_partial": partial,
            "domains_failed": failed,
            "domains_skipped": skipped,
            "domains_deferred": deferred,
            "anomalies": reports.iter().filter(|report| !report.anomalies.is_empty()).count(),
            "anomalies_open": open.len(),
            "total_duration": started.elapsed().as_secs_f64(),
        })));
    } else if reports.is_empty() {
        context.output.text("nothing is due");
    } else {
        let deferred = if deferred > 0 { format!(", {deferred} deferred") } else { String::new() };
        context
            .output
            .text(format!("{ok} ok, {partial} partial, {failed} failed, {skipped} skipped{deferred}"));
    }
    end(&plan, &reports, partial, &open)
}

/// The plan, if it can be run.
fn runnable(args: &Args, choice: &Choice, context: &Context) -> Result<Plan, Failure> {
    let (plan, failure) = match args.plan.load() {
        Ok(plan) => match plan::refuse_errors(&plan) {
            Ok(()) => return Ok(plan),
            Err(failure) => (Some(plan), failure),
        },
        Err(failure) => (None, failure),
    };
    if !args.acknowledge
        && !args.dry_run
        && let Some(plan) = plan.or_else(|| plan::last(&args.plan, context))
    {
        record_refusal(&plan, choice, &failure, context);
    }
    Err(failure)
}

/// A run that a mistake in the plan keeps from its beginning is on record, in the metrics and told of, as any that fails.
fn record_refusal(plan: &Plan, choice: &Choice, failure: &Failure, context: &Context) {
    let state = match plan::state(plan, context) {
        Ok(state) => state,
        Err(error) => {
            return context.output.warn(&format!("warning: the run is not on record: {}", error.message));
        }
    };
    let reports = refused(plan, choice, &state, &failure.message, jiff::Timestamp::now());
    for report in &reports {
        for warning in &report.warnings {
            context.output.warn(&format!("warning: {}: {warning}", report.domain));
        }
    }
    notices::tell(plan, &state, context, |notifier| notifier.run_ended(&reports));
    let repositories = Repositories::new(context, plan, Arc::default());
    tell_of_status(plan, &repositories, &state, context);
    repositories.remember_heads();
}

/// How attempts ended on this host. Where that cannot be read, what is due by its schedule is run all the same.
fn attempts(plan: &Plan, state: Option<&State>, context: &Context) -> Attempts {
    let attempts = state.map(|state| Attempts::of(plan, state)).transpose();
    let known = attempts.unwrap_or_else(|error| {
        let what = "which attempts failed cannot be read, and only what is due by its schedule is run";
        context.output.warn(&format!("warning: {what}: {error}"));
        None
    });
    known.unwrap_or_default()
}

/// The lock of the one run that is at work on what is due; `None` where another run waits for it already.
fn wait_for_turn(
    state: &State,
    is_cancelled: &dyn Fn() -> bool,
    context: &Context,
) -> Result<Option<Lock>, Failure> {
    let mut tell = |holder: &Holder| {
        context.output.note(&format!("another run is at work on what is due{holder}: waiting for its end"));
    };
    let turn = state.turn(&jiff::Timestamp::now, is_cancelled, &mut tell);
    match turn.map_err(|error| Failure::io("cannot write to the state directory", &error))? {
        Turn::Mine(lock) => Ok(Some(lock)),
        Turn::Cancelled => Err(Failure::new("cancelled", "cancelled while another run was at work")),
        Turn::AnotherWaits => Ok(None),
    }
}

/// One run is at work on what is due, and another waits for its turn.
fn another_waits(open: &[(&Name, Guard)], context: &Context) {
    tell_of_anomalies(open, &[], context);
    if context.output.json() {
        let summary = json!({"type": "summary", "domains_ok": 0, "domains_partial": 0, "domains_failed": 0,
            "domains_skipped": 0, "domains_deferred": 0, "anomalies_open": open.len(), "another_waits": true});
        context.output.message(object(summary));
    }
    context
        .output
        .text("one run is at work on what is due and another waits for it: there is nothing to add");
}

/// Writes the metrics of the plan and tells of what is overdue, whatever the outcome. That this cannot be done is no failure of
/// the run.
fn tell_of_status(plan: &Plan, repositories: &Repositories<'_>, state: &State, context: &Context) {
    if plan.metrics.is_none() && plan.notify.is_empty() {
        return;
    }
    let written = status::judge(plan, repositories, state).and_then(|found| {
        notices::tell(plan, state, context, |notifier| notifier.standing(&found.domains, &Zoned::now()));
        numbers::write_what_was_found(&found, plan, repositories, state)
    });
    numbers::warn(written, context);
}

/// The domains that are meant and of which nothing is forgotten, since nobody has looked at a snapshot unlike those before.
fn open_anomalies<'p>(
    guards: &Guards<'p>,
    choice: &Choice,
    state: Option<&State>,
) -> Result<Vec<(&'p Name, Guard)>, Failure> {
    let plan = guards.plan;
    let guard = |domain: &'p Domain| {
        let own = state.map_or_else(|| Ok(Guard::default()), |state| state.guard(&domain.name));
        // What cannot be read may be such a one.
        let own = own.unwrap_or_else(|error| Guard::unreadable(&error));
        (&domain.name, guards.known(domain, own))
    };
    let meant = meant(plan, choice).map_err(|error| not_selected(&error, plan))?;
    let guards = meant.into_iter().map(guard);
    Ok(guards.filter(|(_, guard)| !guard.reasons.is_empty()).collect())
}

fn tell_of_anomalies(open: &[(&Name, Guard)], reports: &[DomainReport], context: &Context) {
    for (domain, guard) in open {
        if context.output.json() {
            context.output.message(object(json!({
                "type": "anomaly",
                "domain": domain,
                "since": guard.since.map(|since| format!("{since:.9}")),
                "reasons": guard.reasons,
            })));
        } else if let Some(advice) = guard.advice(domain)
            // Those that were run have said so.
            && reports.iter().all(|report| report.domain != **domain || !report.is_guarded)
        {
            context.output.alert(&format!("warning: {domain}: {advice}"));
        }
    }
}

fn end(plan: &Plan, reports: &[DomainReport], partial: usize, open: &[(&Name, Guard)]) -> failure::Outcome {
    let is_deferred = |report: &&DomainReport| report.outcome == Outcome::Deferred;
    let bad = reports.iter().filter(|report| !report.is_everywhere() && !is_deferred(report));
    let bad: Vec<_> = bad.map(|report| report.domain.as_str()).collect();
    if !bad.is_empty() {
        let message = format!("not backed up as the plan says: {}", bad.join(", "));
        return Err(Failure::new("run", message).hint(again(plan, &bad)));
    }
    let mut unlike: Vec<_> = open.iter().map(|(domain, _)| domain.as_str()).collect();
    // Where it could not be written down, the run knows it still.
    let found = reports.iter().filter(|report| report.is_guarded).map(|report| report.domain.as_str());
    unlike.extend(found.filter(|name| open.iter().all(|(domain, _)| domain.as_str() != *name)));
    if !unlike.is_empty() {
        let names = unlike.join(" ");
        let message = format!(
            "unlike the snapshots before, and nothing is forgotten until somebody has looked: {names}"
        );
        let hint = format!(
            "compare them with `strongroom ls`; if all is well: `strongroom run --acknowledge {names}`"
        );
        return Err(Failure::new("anomaly", message).exit(Exit::Damage).hint(hint));
    }
    let deferred: Vec<_> = reports.iter().filter(is_deferred).map(|report| report.domain.as_str()).collect();
    if !deferred.is_empty() {
        let message = format!("not run, since another run is at work: {}", deferred.join(", "));
        return Err(Failure::new("deferred", message).exit(Exit::Partial).hint(again(plan, &deferred)));
    }
    Ok(if partial > 0 { Exit::Partial } else { Exit::Ok })
}

/// What becomes of domains that were not backed up.
fn again(plan: &Plan, names: &[&str]) -> String {
    let has_schedule = |name: &&str| plan.domain(name).is_some_and(|domain| domain.schedule.is_some());
    let (due, others): (Vec<&str>, Vec<&str>) = names.iter().copied().partition(has_schedule);
    let due = (!due.is_empty())
        .then(|| "what is missing is due again at the next `strongroom run --due`".to_owned());
    let others = (!others.is_empty()).then(|| {
        let names = others.join(" ");
        format!("without a schedule nothing is due by itself: `strongroom run {names}` tries again")
    });
    due.into_iter().chain(others).collect::<Vec<String>>().join("; ")
}

/// Lets old snapshots be forgotten again.
fn acknowledge(domains: &[String], plan: &Plan, context: &Context) -> failure::Outcome {
    if let Some(unknown) = domains.iter().find(|name| plan.domain(name).is_none()) {
        return Err(not_selected(&SelectError::Unknown(unknown.clone()), plan));
    }
    let state = plan::state(plan, context)?;
    let repositories = Repositories::new(context, plan, Arc::default());
    let host = plan::host(plan);
    let guards = Guards { plan, host: &host, vault: &repositories };
    let unwritable = |error| Failure::io("cannot write to the state directory", &error);
    let attempts = state.attempts().map_err(unwritable)?;
    let mut well = Vec::new();
    for domain in plan.domains.iter().filter(|domain| domains.iter().any(|name| name == domain.name.as_str()))
    {
        // What this host does not remember, it learns from the repositories.
        state.adopt(&domain.name, |own| guards.known(domain, own)).map_err(unwritable)?;
        let Some(acknowledged) = state.acknowledge(&domain.name).map_err(unwritable)? else {
            let message =
                format!("a run of the domain {} is at work: nothing was acknowledged of it", domain.name);
            return Err(Failure::new("busy", message).hint("look at what it has made when it has ended"));
        };
        for failed in guards.release(domain, None) {
            context.output.warn(&format!("warning: {}: {failed}", domain.name));
        }
        let mut own = attempts.iter().rev().filter(|attempt| attempt.domain == domain.name);
        let last = own.find(|attempt| attempt.outcome != Outcome::Deferred);
        if acknowledged.is_something()
            && last.is_some_and(|last| matches!(last.outcome, Outcome::Ok | Outcome::Partial))
        {
            well.push(Item::new(domain.name.as_str(), "acknowledged"));
        }
        if context.output.json() {
            context.output.object(object(json!({
                "type": "acknowledged",
                "domain": domain.name,
                "anomalies": acknowledged.reasons,
                "lost": acknowledged.lost,
            })))?;
        } else if acknowledged.is_something() {
            let said = acknowledged.lost.unwrap_or_else(|| acknowledged.reasons.join("; "));
            context.output.text(visible(format!("{}: acknowledged: {said}", domain.name).as_bytes()));
        } else {
            context.output.text(format!("{}: there was nothing to acknowledge", domain.name));
        }
    }
    repositories.remember_heads();
    notices::tell(plan, &state, context, |notifier| notifier.changed(&[], &well));
    Ok(Exit::Ok)
}

fn not_selected(error: &SelectError, plan: &Plan) -> Failure {
    let failure = Failure::usage("usage", error);
    let names: Vec<_> = plan.domains.iter().map(|domain| domain.name.as_str()).collect();
    match error {
        SelectError::Unknown(_) => failure.hint(format!("it has: {}", names.join(", "))),
        SelectError::UnknownTag(_) | SelectError::NoneTagged(_) | SelectError::Cycle(_) => {
            failure.hint("`strongroom config show` shows what the plan says")
        }
    }
}

/// The newest complete snapshot of a domain.
fn newest(repositories: &Repositories<'_>, host: &str, repo: &Name, domain: &Domain) -> Newest {
    let Ok(snapshots) = repositories.snapshots(repo) else { return Newest::Unknown };
    strongroom_ops::status::newest(&snapshots, host, &domain.name).map_or(Newest::None, |(_, snapshot)| {
        let time =
            jiff::Timestamp::new(snapshot.time.seconds, i32::try_from(snapshot.time.nanos).unwrap_or(0));
        // A time that no calendar holds is not known to be recent.
        time.map_or(Newest::None, Newest::At)
    })
}

fn would_run(chosen: &[Chosen<'_>], open: &[(&Name, Guard)], context: &Context) -> Result<(), Failure> {
    for Chosen { domain, targets, why } in chosen {
        let targets: Vec<_> = targets.iter().map(|repo| repo.as_str()).collect();
        if context.output.json() {
            context.output.object(object(json!({
                "type": "domain",
                "domain": domain.name,
                "outcome": "dry-run",
                "repositories": targets,
                "message": why,
            })))?;
        } else {
            context.output.line(format!(
                "would back up {} into {}: {why}",
                domain.name,
                targets.join(", ")
            ))?;
        }
    }
    tell_of_anomalies(open, &[], context);
    if context.output.json() {
        let (domains, open) = (chosen.len(), open.len());
        let summary = json!({"type": "summary", "dry_run": true, "domains": domains, "anomalies_open": open});
        context.output.object(object(summary))?;
    } else if chosen.is_empty() {
        context.output.text("nothing is due");
    }
    Ok(())
}

/// Tells of a domain that is done.
fn tell(report: &DomainReport, context: &Context) {
    if context.output.json() {
        return context.output.message(object(json!({
            "type": "domain",
            "domain": report.domain,
            "outcome": report.outcome.name(),
            "message": report.message,
            "waits_for": report.waits_for(),
            "warnings": report.warnings,
            "anomalies": report.anomalies,
            "repositories": report.repositories.iter().map(record).collect::<Vec<_>>(),
        })));
    }
    let reason = report.message.as_ref().map_or(String::new(), |message| format!(": {message}"));
    let line = visible(format!("{}: {}{reason}", report.domain, report.outcome.name()).as_bytes());
    match report.outcome {
        Outcome::Ok | Outcome::Partial => context.output.text(line),
        _ => context.output.alert(&line),
    }
    // Each of them is why the run ends with 3, if with nothing worse.
    for warning in &report.warnings {
        context.output.alert(&format!("warning: {}: {warning}", report.domain));
    }
    for repo in &report.repositories {
        if let (Some(snapshot), Some(done)) = (repo.snapshot(), &repo.report) {
            let summary = &done.summary;
            let forgotten = match repo.forgotten {
                0 => String::new(),
                count => format!(", {} forgotten", units::count(count, "older one")),
            };
            context.output.text(format!(
                "  {}: snapshot {} of {}, {}; {} added{forgotten}",
                repo.repo,
                snapshot.short(),
                units::count(summary.files, "file"),
                units::size(summary.bytes),
                units::size(summary.bytes_added),
            ));
        }
        if let Some((snapshot, copied)) = repo.snapshot().zip(repo.copied.as_ref()) {
            let count = copied.report.count(|fate| *fate == Fate::Copied);
            context.output.text(format!(
                "  {}: snapshot {} copied from {}, {} in all; {} stored",
                repo.repo,
                snapshot.short(),
                copied.from,
                count,
                units::size(copied.report.bytes_stored),
            ));
        }
        if let Some(message) = repo.message.as_ref().filter(|_| repo.outcome == Outcome::Partial) {
            context.output.alert(&format!("warning: {}: {}: {message}", report.domain, repo.repo));
        }
    }
}

fn record(repo: &RepoReport) -> Object {
    let mut record = object(json!({
        "repository": repo.repo,
        "outcome": repo.outcome.name(),
        "snapshot_id": repo.snapshot(),
        "message": repo.message,
        "snapshots_forgotten": repo.forgotten,
    }));
    if let Some(copied) = &repo.copied {
        record.extend(object(json!({
            "copied_from": copied.from,
            "snapshots_copied": copied.report.count(|fate| *fate == Fate::Copied),
            "data_added": copied.report.bytes_added,
            "data_added_packed": copied.report.bytes_stored,
        })));
    }
    if let Some(report) = &repo.report {
        record.extend(records::summary(&report.summary));
    }
    record
}
