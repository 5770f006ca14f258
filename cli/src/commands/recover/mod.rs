//! `recover`: restores that can be undone.

mod show;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use jiff::Zoned;
use serde_json::json;
use strongroom_ops::drill::probe;
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::types::Domain;
use strongroom_ops::plan::values::Name;
use strongroom_ops::recover::preview::Refusal;
use strongroom_ops::recover::{
    Cause, Recoverer, RecoveryOutcome, RecoveryRecord, Step, SystemDisk, Wish, refuse_mistakes,
};
use strongroom_ops::run::state::State;

use crate::context::Context;
use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::object;
use crate::plan::{self, PlanArgs};
use crate::recoveries::Recoveries;
use crate::vault::Repositories;
use crate::{notices, numbers, signals};

const AFTER_HELP: &str = "\
For each domain, in the order of their dependencies: it is restored beside what is there and
compared with the repository, streams are loaded under another name, services are stopped,
everything is swapped, services are started and asked. What was there before is kept until
--commit. A failure puts the domain back and stops what comes after it; other domains go on. A
journal on disk survives a kill at any moment: --resume goes on, --rollback puts back what was
there.

Look at it first: --plan changes nothing.

Exit codes: 0 done, or with --plan: it could be done; 1 failed, and all is as it was; 3 done,
and something is left to do; 4 the backup is damaged, or a fact is not as it was when the
snapshot was made (see --allow-drift).

Examples:
  strongroom recover orders-db media --plan --config /etc/strongroom/strongroom.toml
  strongroom recover orders-db media --snapshot before:2d --from offsite
  strongroom recover --rollback
  strongroom recover --commit";

/// Arguments of `recover`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Domains to recover; with --resume, --rollback and --commit: of the last recovery all, if none is named
    #[arg(value_name = "DOMAIN")]
    domains: Vec<String>,
    #[command(flatten)]
    plan_args: PlanArgs,
    /// Say what would be done, how long it takes as far as that was measured, and what stands in the way; change nothing
    #[arg(long, group = "what")]
    plan: bool,
    /// From this repository of the plan [default: the one with the newest complete snapshot]
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Which snapshot: `latest`, `before:7d`, or an id or its first digits [default: latest]
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Recover although this fact is not as it was when the snapshot was made
    #[arg(long, value_name = "FACT", value_delimiter = ',')]
    allow_drift: Vec<String>,
    /// Go on with a recovery that was killed
    #[arg(long, group = "what", conflicts_with_all = CHOICE)]
    resume: bool,
    /// Put back what was there before the last recovery; what was restored is kept until --commit
    #[arg(long, group = "what", conflicts_with_all = CHOICE)]
    rollback: bool,
    /// Remove what is kept: the recovery, or its rollback, cannot be undone any more
    #[arg(long, group = "what", conflicts_with_all = CHOICE)]
    commit: bool,
}

const CHOICE: [&str; 3] = ["from", "snapshot", "allow_drift"];

/// Recovers.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let plan = plan::runnable(&args.plan_args)?;
    plan::refuse_head(&plan, context)?;
    let state = plan::state(&plan, context)?;
    let cancelled = signals::cancel_flag()?;
    let repositories = Repositories::new(context, &plan, Arc::clone(&cancelled));
    let source = Recoveries { repositories: &repositories };
    let began = Instant::now();
    let recoverer = Recoverer {
        plan: &plan,
        host: plan::host(&plan),
        processes: Arc::new(plan::processes(&plan, Arc::clone(&cancelled))),
        source: &source,
        state: &state,
        disk: &SystemDisk,
        get: &probe::get,
        pause: &std::thread::sleep,
        now: &Zoned::now,
        uptime: &|| began.elapsed(),
        is_cancelled: &|| cancelled.load(Ordering::Relaxed),
        tell: &|domain: &Name, step: Step| context.output.note(&format!("{domain}: {}", step.name())),
    };
    let outcome = work(args, context, &plan, &state, &recoverer, &repositories);
    repositories.remember_heads();
    let records = match outcome? {
        Done::Looked(exit) => return Ok(exit),
        Done::Worked(records) => records,
    };
    for record in &records {
        show::record(record, context);
    }
    notices::tell(&plan, &state, context, |notifier| notifier.recoveries_ended(&records));
    numbers::write(&plan, &repositories, &state, context);
    if context.output.json() {
        let count = |outcome| records.iter().filter(|record| record.outcome == outcome).count();
        context.output.message(object(json!({
            "type": "summary",
            "recovery": records.first().map(|record| &record.recovery),
            "domains_recovered": count(RecoveryOutcome::Recovered),
            "domains_partial": count(RecoveryOutcome::Partial),
            "domains_failed": count(RecoveryOutcome::Failed),
            "domains_skipped": count(RecoveryOutcome::Skipped),
            "domains_unfinished": count(RecoveryOutcome::Unfinished),
            "domains_rolled_back": count(RecoveryOutcome::RolledBack),
            "domains_committed": count(RecoveryOutcome::Committed),
            "total_duration": began.elapsed().as_secs_f64(),
        })));
    }
    end(&records)
}

enum Done {
    Looked(Exit),
    Worked(Vec<RecoveryRecord>),
}

fn work(
    args: &Args,
    context: &Context,
    plan: &Plan,
    state: &State,
    recoverer: &Recoverer<'_>,
    repositories: &Repositories<'_>,
) -> Result<Done, Failure> {
    if args.resume || args.rollback || args.commit {
        let meant = plan.domains.iter().filter(|domain| {
            args.domains.is_empty() || args.domains.iter().any(|name| name == domain.name.as_str())
        });
        for domain in meant {
            refuse_mistakes(domain).map_err(|refusal| failure(&refusal))?;
        }
    }
    let worked = match (args.resume, args.rollback, args.commit) {
        (true, _, _) => recoverer.resume(&args.domains),
        (_, true, _) => recoverer.rollback(&args.domains),
        (_, _, true) => recoverer.commit(&args.domains),
        _ => {
            // Short enough for the name of a database.
            let id = format!("{:08x}", RandomState::new().build_hasher().finish() >> 32);
            let wish = wish(args, plan, recoverer)?;
            // Only who looks at it first is told how long it takes.
            let evidence = match args.plan {
                true => evidence(args, plan, state, repositories)?,
                false => Evidence::default(),
            };
            evidence.warn(context);
            let previews = recoverer.preview(&id, &wish, &evidence.measurements());
            let previews = previews.map_err(|refusal| failure(&refusal))?;
            if args.plan {
                return show::previews(&previews, plan, context).map(Done::Looked);
            }
            for preview in &previews {
                for refusal in preview.blockers.iter().skip(1) {
                    context.output.warn(&format!("also: {}", refusal.message));
                }
                if preview.blockers.is_empty() {
                    preview.notes.iter().for_each(|note| {
                        context.output.warn(&format!("warning: {}: {note}", preview.domain));
                    });
                }
            }
            recoverer.recover(&id, &previews)
        }
    };
    worked.map(Done::Worked).map_err(|refusal| failure(&refusal))
}

/// What is asked for, once it is known that nothing stands in its way on this host: repositories may take a while to be asked.
fn wish(args: &Args, plan: &Plan, recoverer: &Recoverer<'_>) -> Result<Wish, Failure> {
    for domain in named(args, plan) {
        recoverer.standing(&domain.name).map_err(|refusal| failure(&refusal))?;
    }
    Ok(Wish {
        names: args.domains.clone(),
        from: args.from.clone(),
        snapshot: args.snapshot.clone().unwrap_or_else(|| "latest".into()),
        allow_drift: args.allow_drift.clone(),
    })
}

fn named<'p>(args: &Args, plan: &'p Plan) -> impl Iterator<Item = &'p Domain> {
    plan.domains.iter().filter(move |domain| args.domains.iter().any(|name| name == domain.name.as_str()))
}

/// What the repositories that the domains go to, and this host, say of drills and recoveries.
fn evidence(
    args: &Args,
    plan: &Plan,
    state: &State,
    repositories: &Repositories<'_>,
) -> Result<Evidence, Failure> {
    let repos: BTreeSet<_> = named(args, plan).flat_map(|domain| plan.repositories(domain)).collect();
    Evidence::gather(repos.into_iter(), repositories, Some(state))
}

/// Why nothing was begun.
fn failure(refusal: &Refusal) -> Failure {
    let (code, exit) = match refusal.code.as_str() {
        "usage" => ("usage", Exit::Usage),
        "plan" => ("plan", Exit::Usage),
        "drift" => ("drift", Exit::Damage),
        "no-space" => ("no-space", Exit::Failed),
        "not-swappable" => ("not-swappable", Exit::Failed),
        "not-undoable" => ("not-undoable", Exit::Failed),
        "limit" => ("limit", Exit::Failed),
        "busy" => ("busy", Exit::Failed),
        "unfinished" => ("recovery-unfinished", Exit::Failed),
        "kept" => ("recovery-kept", Exit::Failed),
        "nested" => ("recovery-nested", Exit::Failed),
        "no-recovery" => ("no-recovery", Exit::Failed),
        "no-snapshot" => ("no-snapshot", Exit::Failed),
        "io" => ("io", Exit::Failed),
        "no-repository" => ("no-repository", Exit::NoRepository),
        "wrong-password" => ("wrong-password", Exit::WrongPassword),
        "log-damaged" => ("log-damaged", Exit::Damage),
        "config-damaged" => ("config-damaged", Exit::Damage),
        _ => ("recover", Exit::Failed),
    };
    let failure = Failure::new(code, &refusal.message).exit(exit);
    match &refusal.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn end(records: &[RecoveryRecord]) -> Outcome {
    let bad = |record: &&RecoveryRecord| {
        use RecoveryOutcome::{Failed, Skipped, Unfinished};
        matches!(record.outcome, Failed | Skipped | Unfinished)
    };
    let names: Vec<_> = records.iter().filter(bad).map(|record| record.domain.as_str()).collect();
    if !names.is_empty() {
        let is_damage = records.iter().any(|record| record.cause == Some(Cause::Damage));
        let is_unfinished = records.iter().any(|record| record.outcome == RecoveryOutcome::Unfinished);
        let message = format!("not recovered: {}", names.join(", "));
        let hint = match is_unfinished {
            true => {
                "put right what is named above, then `strongroom recover --resume`: it does what is left to do"
            }
            false => "what failed is as it was before; what was recovered is kept in its place",
        };
        let exit = if is_damage { Exit::Damage } else { Exit::Failed };
        return Err(Failure::new("recover", message).exit(exit).hint(hint));
    }
    let is_partial =
        records.iter().any(|record| record.outcome == RecoveryOutcome::Partial || !record.left.is_empty());
    Ok(if is_partial { Exit::Partial } else { Exit::Ok })
}
