//! `status`: how well everything in the plan is protected now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Zoned;
use serde_json::{Value, json};
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;
use strongroom_ops::drill::{history, overdue};
use strongroom_ops::leftover;
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::values::{Lapse, Name};
use strongroom_ops::recover;
use strongroom_ops::run::anomaly::{Guard, Guards};
use strongroom_ops::run::state::State;
use strongroom_ops::run::vault::Vault;
use strongroom_ops::status::{CopyStatus, DomainStatus, Health, rough, status};
use strongroom_ops::verify::{self, Demand, RepoStatus};

use crate::commands::snapshots::aligned;
use crate::context::Context;
use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::numbers;
use crate::output::{object, visible};
use crate::plan::{self, PlanArgs};
use crate::units;
use crate::vault::Repositories;

const AFTER_HELP: &str = "\
What counts is what is in the repositories: a job that never ran has no snapshot, and its domain is
critical. The record of attempts on this host adds what failed since. Drills are judged by what
logs of the repositories say, wherever they were run, and in each repository by itself; a domain
that none has passed of within its `drill_every` has a warning, and is critical after twice that. A
run or drill that was killed is told of until the next one has cleaned up. Of repositories whose
verification a class demands, it is told when they were read, and how much never was.

Exit codes: 0 all is well, 3 there are warnings, 4 a target is missed, 5 a repository cannot be
asked. With --nagios as monitoring plugins end: 0 ok, 1 warning, 2 critical, 3 unknown, also where
it cannot find out, as with a plan that cannot be read: then the line says why. With --nagios and
--openmetrics nothing else is on standard output, so neither goes together with --json.

Examples:
  strongroom status --config /etc/strongroom/strongroom.toml
  strongroom status --nagios
  strongroom status --openmetrics";

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    /// One line for a monitoring plugin, and its exit codes
    #[arg(long, conflicts_with = "openmetrics")]
    nagios: bool,
    /// Numbers in the OpenMetrics text format
    #[arg(long)]
    openmetrics: bool,
}

impl Args {
    /// Each of the formats has standard output for itself, warnings in JSON included. That `--json` may stand before the command is
    /// nothing that clap's conflicts can tell.
    fn one_format(&self, context: &Context) -> Result<(), Failure> {
        let other = match (self.nagios, self.openmetrics) {
            (true, _) => "--nagios",
            (_, true) => "--openmetrics",
            _ => return Ok(()),
        };
        if !context.output.json() {
            return Ok(());
        }
        let message = format!("--json cannot be used with {other}: standard output has room for one format");
        Err(Failure::usage("usage", message).hint("leave one of them out"))
    }
}

/// Shows the status.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let (found, numbers) = match args.one_format(context).and_then(|()| find_out(args, context)) {
        Ok(found) => found,
        Err(failure) if args.nagios => return unknown(&failure, context),
        Err(failure) => return Err(failure),
    };
    let worst = found.worst();
    if args.nagios {
        context.output.line(nagios(&found, worst))?;
        return Ok(match worst {
            Health::Ok => Exit::Ok,
            Health::Warning => Exit::Failed,
            Health::Critical => Exit::Usage,
            Health::Unknown => Exit::Partial,
        });
    }
    if let Some(numbers) = numbers {
        context.output.line(numbers.trim_end())?;
    } else if context.output.json() {
        json_lines(&found, worst, context)?;
    } else {
        text(&found, context)?;
    }
    Ok(match worst {
        Health::Ok => Exit::Ok,
        Health::Warning => Exit::Partial,
        Health::Critical => Exit::Damage,
        Health::Unknown => Exit::Unverified,
    })
}

/// How it stands, and the numbers of it if they are wanted.
fn find_out(args: &Args, context: &Context) -> Result<(Overview, Option<String>), Failure> {
    let plan = plan::runnable(&args.plan)?;
    plan::refuse_head(&plan, context)?;
    plan::warn_of_includes(&plan, context);
    let state = plan::state(&plan, context)?;
    let repositories = Repositories::new(context, &plan, Arc::new(AtomicBool::new(false)));
    let found = judge(&plan, &repositories, &state)?;
    let numbers =
        args.openmetrics.then(|| numbers::render(&found, &plan, &repositories, &state)).transpose()?;
    repositories.remember_heads();
    Ok((found, numbers))
}

/// A plugin that cannot find out says so in its way.
fn unknown(failure: &Failure, context: &Context) -> Outcome {
    context.output.line(format!("STRONGROOM UNKNOWN - {}", one_line(&failure.message)))?;
    Ok(Exit::Partial)
}

/// The snapshots of all repositories of a plan, as far as they can be asked.
pub struct Known(BTreeMap<Name, Result<Vec<(SnapshotId, Snapshot)>, String>>);

impl Known {
    /// Asks all of them.
    pub fn of(plan: &Plan, repositories: &Repositories<'_>) -> Self {
        let ask = |name: &Name| repositories.snapshots(name).map_err(|error| error.message);
        Self(plan.repos.keys().map(|name| (name.clone(), ask(name))).collect())
    }

    /// The snapshots of a repository, or why they are not known.
    pub fn snapshots(&self, name: &Name) -> Result<&[(SnapshotId, Snapshot)], String> {
        match self.0.get(name) {
            Some(Ok(snapshots)) => Ok(snapshots),
            Some(Err(error)) => Err(error.clone()),
            None => Err("it is not in the plan".to_owned()),
        }
    }
}

/// The status of everything.
pub struct Overview {
    /// Of the domains.
    pub domains: Vec<DomainStatus>,
    /// Of the verification of repositories.
    pub repositories: Vec<RepoStatus>,
    /// What is known of drills and recoveries.
    pub evidence: Evidence,
}

impl Overview {
    /// How well the worst of it is.
    pub fn worst(&self) -> Health {
        let of_domains = self.domains.iter().map(|domain| domain.health);
        let all = of_domains.chain(self.repositories.iter().map(|repo| repo.health));
        all.max().unwrap_or(Health::Critical)
    }
}

/// The status by what repositories and the records of this host say.
pub fn judge(plan: &Plan, repositories: &Repositories<'_>, state: &State) -> Result<Overview, Failure> {
    let all = Known::of(plan, repositories);
    let facts = |name: &Name| all.snapshots(name);
    let unreadable = |error| Failure::io("cannot read the record of attempts", &error);
    let attempts = state.attempts().map_err(unreadable)?;
    let verifications = state.verifications().map_err(unreadable)?;
    let known = |name: &Name| repositories.known(name).map_err(|error| error.message);
    let now = Zoned::now();
    let mut domains = status(plan, &plan::host(plan), &facts, &attempts, &now);
    let evidence = Evidence::gather(plan.repos.keys(), repositories, Some(state))?;
    history::judge(plan, &mut domains, &evidence.drills, now.date());
    let rehearsed = overdue::Known {
        host: &plan::host(plan),
        snapshots: &facts,
        attempts: &attempts,
        drills: &evidence.drills,
        unasked: &evidence.unasked(),
        now: &now,
    };
    overdue::judge(plan, &mut domains, &rehearsed);
    evidence.measurements().tell(plan, &mut domains);
    leftover::judge(plan, state, &attempts, &mut domains);
    tell_of_guards(plan, repositories, state, &mut domains);
    for copy in domains.iter_mut().flat_map(|domain| &mut domain.copies) {
        let unread = evidence.unasked.iter().find(|(repo, _)| *repo == copy.repo);
        // Of one that cannot be asked at all it is said already.
        if let Some((_, error)) = unread.filter(|_| all.snapshots(&copy.repo).is_ok()) {
            copy.add(
                Health::Unknown,
                format!("what its log says of drills and recoveries is not known: {error}"),
            );
        }
    }
    for domain in &mut domains {
        let of_copies = domain.copies.iter().map(|copy| copy.health).max();
        domain.health = domain.health.max(of_copies.unwrap_or(Health::Critical));
    }
    let unreadable = |error| Failure::io("cannot read how far recoveries are", &error);
    let recoveries = state.recoveries(plan).map_err(unreadable)?;
    // Whoever is at work on a domain has it locked.
    let is_at_work = |domain: &Name| matches!(state.lock_own(domain), Ok(None));
    recover::record::judge(&mut domains, &recoveries, &is_at_work);
    recover::elsewhere::judge(plan, &mut domains, state).map_err(unreadable)?;
    let unplanned = state.unplanned_recoveries(plan).map_err(unreadable)?;
    domains.extend(recover::record::unplanned(&unplanned, &is_at_work));
    let verified = verify::status(plan, &known, &verifications, &now);
    Ok(Overview { domains, repositories: verified, evidence })
}

/// Adds what the repositories tell of snapshots unlike those before that this host does not remember.
fn tell_of_guards(plan: &Plan, repositories: &Repositories<'_>, state: &State, domains: &mut [DomainStatus]) {
    let host = plan::host(plan);
    let guards = Guards { plan, host: &host, vault: repositories };
    for status in domains {
        let Some(domain) = plan.domain(status.domain.as_str()) else { continue };
        let own = state.guard(&domain.name).unwrap_or_else(|error| Guard::unreadable(&error));
        let Some(advice) = guards.known(domain, own).advice(&domain.name) else { continue };
        // The last attempt may have said so.
        if status.reasons.iter().all(|reason| !reason.contains("run --acknowledge")) {
            status.health = status.health.max(Health::Warning);
            status.reasons.push(advice);
        }
    }
}

fn age(copy: &CopyStatus, now: jiff::Timestamp) -> Option<Lapse> {
    let age = now.duration_since(copy.newest.as_ref()?.time).as_secs();
    Some(Lapse::seconds(u64::try_from(age).unwrap_or(0)))
}

fn text(found: &Overview, context: &Context) -> Result<(), Failure> {
    let now = jiff::Timestamp::now();
    let mut rows =
        vec![["Domain", "Class", "Repository", "Health", "Age", "RPO", "Snapshot"].map(str::to_owned)];
    for domain in &found.domains {
        for copy in &domain.copies {
            rows.push([
                domain.domain.to_string(),
                domain.class.as_ref().map_or("-".into(), ToString::to_string),
                copy.repo.to_string(),
                copy.health.name().to_owned(),
                age(copy, now).map_or("-".into(), rough),
                domain.rpo.map_or("-".into(), |rpo| rpo.to_string()),
                copy.newest.as_ref().map_or("-".into(), |newest| newest.id.short()),
            ]);
        }
    }
    for line in aligned(&rows, &[]) {
        context.output.line(line)?;
    }
    for domain in &found.domains {
        for reason in &domain.reasons {
            context.output.line(visible(format!("{}: {reason}", domain.domain).as_bytes()))?;
        }
        for copy in &domain.copies {
            for reason in &copy.reasons {
                context
                    .output
                    .line(visible(format!("{} in {}: {reason}", domain.domain, copy.repo).as_bytes()))?;
            }
        }
    }
    for repo in &found.repositories {
        context.output.line(verification(repo, now))?;
        for reason in &repo.reasons {
            context.output.line(visible(format!("verify {}: {reason}", repo.repo).as_bytes()))?;
        }
    }
    Ok(())
}

fn verification(repo: &RepoStatus, now: jiff::Timestamp) -> String {
    let ago = |time: Option<jiff::Timestamp>| {
        let secs = time.map(|time| u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0));
        secs.map_or("never".into(), |secs| format!("{} ago", rough(Lapse::seconds(secs))))
    };
    let known = repo.known.as_ref().map_or(String::new(), |known| {
        let oldest = if known.packs_never_read > 0 {
            let (packs, were) =
                (units::count(known.packs, "pack"), units::verb(known.packs_never_read, "was", "were"));
            format!("{} of {packs} {were} never read", known.packs_never_read)
        } else {
            format!("the oldest of {} was read {}", units::count(known.packs, "pack"), ago(known.oldest_read))
        };
        format!(", last {}; {oldest}", ago(known.last_read))
    });
    let Demand { every, read } = repo.demand;
    format!("verify {}: {}, {read} every {every}{known}", repo.repo, repo.health.name())
}

fn json_lines(found: &Overview, worst: Health, context: &Context) -> Result<(), Failure> {
    let now = jiff::Timestamp::now();
    for domain in &found.domains {
        let copies: Vec<Value> = domain
            .copies
            .iter()
            .map(|copy| {
                let newest = copy.newest.as_ref();
                json!({
                    "repository": copy.repo,
                    "health": copy.health.name(),
                    "reasons": copy.reasons,
                    "snapshot_id": newest.map(|newest| newest.id),
                    "time": newest.map(|newest| format!("{:.9}", newest.time)),
                    "age": age(copy, now).map(Lapse::as_secs),
                    "files": newest.map(|newest| newest.files),
                    "bytes": newest.map(|newest| newest.bytes),
                })
            })
            .collect();
        context.output.object(object(json!({
            "type": "domain",
            "domain": domain.domain,
            "class": domain.class,
            "owner": domain.owner,
            "health": domain.health.name(),
            "reasons": domain.reasons,
            "rpo": domain.rpo.map(Lapse::as_secs),
            "repositories": copies,
            "next": domain.next.map(|next| format!("{next:.9}")),
            "recovery_seconds": domain.recovery_seconds,
            "drill": domain.drill.as_ref().map(|drill| json!({
                "drill": drill.drill,
                "repository": drill.repository,
                "tier": drill.tier.name(),
                "began": format!("{:.9}", drill.began),
                "outcome": drill.outcome.name(),
                "message": drill.reason,
                "seconds": drill.seconds(),
            })),
            "attempt": domain.attempt.as_ref().map(|attempt| json!({
                "began": format!("{:.9}", attempt.began),
                "ended": attempt.ended.map(|ended| format!("{ended:.9}")),
                "outcome": attempt.outcome.name(),
                "message": attempt.message,
            })),
        })))?;
    }
    for repo in &found.repositories {
        let time = |time: Option<jiff::Timestamp>| time.map(|time| format!("{time:.9}"));
        context.output.object(object(json!({
            "type": "verification",
            "repository": repo.repo,
            "health": repo.health.name(),
            "reasons": repo.reasons,
            "every": repo.demand.every.as_secs(),
            "read_percent": repo.demand.read.percent(),
            "packs": repo.known.as_ref().map(|known| known.packs),
            "packs_never_read": repo.known.as_ref().map(|known| known.packs_never_read),
            "packs_in_doubt": repo.known.as_ref().map(|known| known.packs_in_doubt),
            "last_read": time(repo.known.as_ref().and_then(|known| known.last_read)),
            "oldest_read": time(repo.known.as_ref().and_then(|known| known.oldest_read)),
            "last_verdict": repo.last.as_ref().map(|last| last.verdict.name()),
        })))?;
    }
    let domains = found.domains.len();
    context.output.object(object(json!({"type": "summary", "health": worst.name(), "domains": domains})))
}

/// The line of a monitoring plugin: state, what is wrong, and the ages as numbers.
fn nagios(found: &Overview, worst: Health) -> String {
    let now = jiff::Timestamp::now();
    let mut bad: Vec<_> = found
        .domains
        .iter()
        .filter(|domain| domain.health != Health::Ok)
        .map(|domain| {
            let of_copies = domain.copies.iter().flat_map(|copy| &copy.reasons);
            let first = domain.reasons.iter().chain(of_copies).next().map_or("", String::as_str);
            format!("{} {}: {}", domain.domain, domain.health.name(), one_line(first))
        })
        .collect();
    let repositories = found.repositories.iter().filter(|repo| repo.health != Health::Ok);
    bad.extend(repositories.map(|repo| {
        let first = repo.reasons.first().map_or("", String::as_str);
        format!("verify {} {}: {}", repo.repo, repo.health.name(), one_line(first))
    }));
    let said = match bad.is_empty() {
        true => {
            let number = found.domains.len();
            let are = units::verb(number, "is as it has", "are as they have");
            format!("{} {are} to be", units::count(number, "domain"))
        }
        false => bad.join("; "),
    };
    let ages = found.domains.iter().flat_map(|domain| {
        domain.copies.iter().filter_map(move |copy| {
            let warn = domain.rpo.map_or(String::new(), |rpo| rpo.as_secs().to_string());
            Some(format!("'{}@{}'={}s;{warn}", domain.domain, copy.repo, age(copy, now)?.as_secs()))
        })
    });
    format!("STRONGROOM {} - {said}|{}", worst.name().to_uppercase(), ages.collect::<Vec<_>>().join(" "))
}

/// Text that cannot end the line, or begin the numbers.
fn one_line(text: &str) -> String {
    visible(text.as_bytes()).replace('|', "/")
}
