//! `drill`: restores, rehearsed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use jiff::Zoned;
use serde_json::{Value, json};
use strongroom_ops::drill::place::Place;
use strongroom_ops::drill::{DrillOutcome, DrillRecord, Driller, Wish, choose, probe};
use strongroom_ops::noted;
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::types::Drill;
use strongroom_ops::run::process::Processes;

use crate::context::Context;
use crate::drills::Drills;
use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{object, visible};
use crate::plan::{self, PlanArgs};
use crate::vault::Repositories;
use crate::{notices, numbers, signals};

const AFTER_HELP: &str = "\
Snapshots are restored into a scratch directory and compared with the repository; a drill of the
tier full then runs the steps of the plan: streams are loaded, applications started and asked. Each
phase is timed, and the record goes into the log of the repository. What a killed drill has left is
cleaned up by the next run of it. A drill of the tier full with a stream that nothing loads does not
pass: it could not be verified. Nothing of a drill is begun that would load a stream with a
`restore` which does not name ${target}. In commands ${scratch} is the scratch directory, in which
each domain has a folder of its name, and ${port} a free port.

Exit codes: 0 all passed; 4 one failed: its data, its application or its time is not as it has to
be; 5 one could not be verified, which says nothing about the data. A self-test passes by failing:
it ends with 4 where the byte was noticed that it had damaged, and with 5 whatever else is wrong.

Examples:
  strongroom drill --config /etc/strongroom/strongroom.toml
  strongroom drill shop-full --from offsite
  strongroom drill shop-full --self-test
  strongroom drill --due";

/// Arguments of `drill`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Drills to run [default: all]
    #[arg(value_name = "DRILL")]
    drills: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
    /// Only what is due by its schedule, as the logs of the repositories and this host tell
    #[arg(long)]
    due: bool,
    /// Restore from this repository of the plan
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Damage a byte of what was restored: the drill has to fail
    #[arg(long)]
    self_test: bool,
}

fn chosen<'p>(args: &Args, plan: &'p Plan) -> Result<Vec<&'p Drill>, Failure> {
    let names: Vec<_> = plan.drills.iter().map(|drill| drill.name.as_str()).collect();
    if let Some(unknown) = args.drills.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(Failure::usage("usage", format!("the plan has no drill {unknown:?}"))
            .hint(format!("it has: {}", names.join(", "))));
    }
    if names.is_empty() {
        return Err(Failure::usage("no-drill", "the plan has no drills")
            .hint("add a table [[drill]] with name, domains and tier"));
    }
    if let Some(from) =
        args.from.as_deref().filter(|from| !plan.repos.keys().any(|name| name.as_str() == *from))
    {
        let repos: Vec<_> = plan.repos.keys().map(|name| name.as_str()).collect();
        return Err(Failure::usage("usage", format!("the plan has no repository {from:?}"))
            .hint(format!("it has: {}", repos.join(", "))));
    }
    let is_wanted =
        |drill: &&Drill| args.drills.is_empty() || args.drills.iter().any(|name| name == drill.name.as_str());
    Ok(plan.drills.iter().filter(is_wanted).collect())
}

/// Runs drills.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let plan = plan::runnable(&args.plan)?;
    plan::refuse_head(&plan, context)?;
    let state = plan::state(&plan, context)?;
    let place = Place::new(state.folder());
    let mut drills = chosen(args, &plan)?;
    let cancelled = signals::cancel_flag()?;
    let repositories = Repositories::new(context, &plan, Arc::clone(&cancelled));
    // Where it is not asked when or from where drills were run last, no other repository has to be there.
    let takes_turns = |drill: &&Drill| args.from.is_none() && drill.from.as_deref() == Some("rotate");
    let evidence = match args.due || drills.iter().any(takes_turns) {
        true => Evidence::gather(plan.repos.keys(), &repositories, Some(&state))?,
        false => Evidence::default(),
    };
    evidence.warn(context);
    if args.due {
        let now = Zoned::now();
        drills.retain(|drill| choose::is_due(drill, &evidence.drills, &now));
    }
    let random = |below: u64| RandomState::new().build_hasher().finish() % below;
    let source = Drills { repositories: &repositories, random: &random };
    let began = Instant::now();
    let driller = Driller {
        plan: &plan,
        host: plan::host(&plan),
        processes: Arc::new(plan::processes(&plan, Arc::clone(&cancelled))),
        services: &|stop| Arc::new(plan::processes(&plan, stop)) as Arc<dyn Processes>,
        source: &source,
        place: &place,
        records: &|| Ok(noted::drills(place.records()?, vec![evidence.drills.clone()])),
        get: &probe::get,
        free_port: &probe::free_port,
        pause: &std::thread::sleep,
        now: &Zoned::now,
        uptime: &|| began.elapsed(),
        random: &random,
        is_cancelled: &|| cancelled.load(Ordering::Relaxed),
    };
    let wish = Wish { self_test: args.self_test, from: args.from.clone() };
    let (mut records, mut busy) = (Vec::new(), Vec::new());
    let wanted = drills.len();
    for drill in drills {
        if cancelled.load(Ordering::Relaxed) {
            break;
        }
        match driller.run(drill, &wish) {
            Some(record) => {
                tell(&record, context);
                records.push(record);
            }
            None => busy.push(drill.name.as_str()),
        }
    }
    repositories.remember_heads();
    notices::tell(&plan, &state, context, |notifier| notifier.drills_ended(&records));
    numbers::write(&plan, &repositories, &state, context);
    let count = |outcome| records.iter().filter(|record| record.outcome == outcome).count();
    let (pass, fail) = (count(DrillOutcome::Pass), count(DrillOutcome::Fail));
    let unverified = count(DrillOutcome::Unverified);
    if context.output.json() {
        context.output.message(object(json!({
            "type": "summary",
            "drills_passed": pass,
            "drills_failed": fail,
            "drills_unverified": unverified,
            "self_test": args.self_test,
            "total_duration": began.elapsed().as_secs_f64(),
        })));
    } else if records.is_empty() && busy.is_empty() {
        context.output.text("nothing is due");
    } else {
        context.output.text(format!("{pass} passed, {fail} failed, {unverified} could not be verified"));
    }
    if records.len() + busy.len() < wanted {
        let failure = Failure::new("cancelled", "cancelled; what was not begun says nothing");
        return Err(failure.exit(if fail > 0 { Exit::Damage } else { Exit::Unverified }));
    }
    if let [first, ..] = busy[..] {
        let message = format!("another run of the drill {first} is at work");
        // What is due is being done.
        if !args.due && fail == 0 {
            return Err(Failure::new("busy", message).exit(Exit::Unverified));
        }
        context.output.warn(&message);
    }
    Ok(match (fail, unverified) {
        (0, 0) => Exit::Ok,
        (0, _) => Exit::Unverified,
        _ => Exit::Damage,
    })
}

/// Tells of a drill that is done.
fn tell(record: &DrillRecord, context: &Context) {
    if context.output.json() {
        let phases: Vec<Value> = record
            .phases
            .iter()
            .map(|timed| json!({"phase": timed.phase.name(), "seconds": timed.seconds}))
            .collect();
        context.output.message(object(json!({
            "type": "drill",
            "drill": record.drill,
            "tier": record.tier.name(),
            "repository": record.repository,
            "began": format!("{:.9}", record.began),
            "outcome": record.outcome.name(),
            "message": record.reason,
            "self_test": record.self_test,
            "restored": record.restored,
            "phases": phases,
            "seconds": record.seconds(),
            "rto": record.rto,
        })));
        return;
    }
    let said = match record.outcome {
        DrillOutcome::Pass => "passed",
        DrillOutcome::Fail => "FAILED",
        DrillOutcome::Unverified => "COULD NOT BE VERIFIED",
    };
    let from = record.repository.as_ref().map_or(String::new(), |repo| format!(" from {repo}"));
    let reason = record.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    let kind = if record.self_test { ", self-test" } else { "" };
    let line = format!("{} ({}{from}{kind}): {said}{reason}", record.drill, record.tier.name());
    let line = visible(line.as_bytes());
    match record.outcome {
        DrillOutcome::Pass => context.output.text(line),
        _ => context.output.alert(&line),
    }
    let phases: Vec<_> =
        record.phases.iter().map(|timed| format!("{} {:.2} s", timed.phase.name(), timed.seconds)).collect();
    if !phases.is_empty() {
        context.output.text(format!("  {}", phases.join(", ")));
    }
    if record.is_measured() && record.outcome == DrillOutcome::Pass {
        let rto = record.rto.map_or(String::new(), |rto| format!(", and has to be done in {rto} s"));
        context.output.text(format!("  a recovery takes {:.1} s{rto}", record.seconds()));
    }
}
