//! From which repository a drill restores, which snapshots, and whether it is due.

use jiff::{Timestamp, Zoned};
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::record::{DrillOutcome, DrillRecord};
use crate::plan::Plan;
use crate::plan::types::Drill;
use crate::plan::values::{Lapse, Name};
use crate::status::is_to_come;

/// The repository: the one that is named, the next one in turn, or the first; all of the drill's domains go there.
pub fn repository<'p>(
    plan: &'p Plan,
    drill: &Drill,
    named: Option<&str>,
    records: &[DrillRecord],
) -> Result<&'p Name, String> {
    let common = common(plan, drill);
    let first = *common.first().ok_or("no repository has all of its domains")?;
    match named.or(drill.from.as_deref()) {
        None => Ok(first),
        Some("rotate") => {
            let of_drill = |record: &&DrillRecord| record.drill == drill.name && record.repository.is_some();
            let last = records.iter().rev().find(of_drill).and_then(|record| record.repository.as_ref());
            let next = last.and_then(|last| common.iter().position(|repo| *repo == last)).map(|at| at + 1);
            Ok(next.map_or(first, |next| common[next % common.len()]))
        }
        Some(named) => common
            .into_iter()
            .find(|repo| repo.as_str() == named)
            .ok_or_else(|| format!("{named} is no repository that has all of its domains")),
    }
}

/// The repositories that all domains of a drill go to, each once.
pub fn common<'p>(plan: &'p Plan, drill: &Drill) -> Vec<&'p Name> {
    let domains: Vec<_> = drill.domains.iter().filter_map(|name| plan.domain(name.as_str())).collect();
    let has_all = |repo: &Name| domains.iter().all(|domain| plan.repositories(domain).contains(&repo));
    let mut found = Vec::new();
    for repo in domains.first().map(|domain| plan.repositories(domain)).into_iter().flatten() {
        if has_all(repo) && !found.contains(&repo) {
            found.push(repo);
        }
    }
    found
}

/// The snapshot of a domain that a drill restores. `random` gives a number below another.
pub fn snapshot<'s>(
    snapshots: &'s [(SnapshotId, Snapshot)],
    host: &str,
    domain: &Name,
    choice: &str,
    now: &Zoned,
    random: &dyn Fn(u64) -> u64,
) -> Result<&'s (SnapshotId, Snapshot), String> {
    let of_domain: Vec<_> = snapshots
        .iter()
        .filter(|(_, snapshot)| {
            let of = snapshot.provenance.as_ref().map(|from| from.domain.as_str());
            !snapshot.partial && snapshot.hostname == host && of == Some(domain.as_str())
        })
        .collect();
    let none = || format!("there is no snapshot of {domain}");
    if choice == "random" {
        let at = random(of_domain.len().max(1) as u64);
        return usize::try_from(at).ok().and_then(|at| of_domain.get(at)).copied().ok_or_else(none);
    }
    let Some(age) = choice.strip_prefix("before:") else { return of_domain.last().copied().ok_or_else(none) };
    let age: Lapse = age.parse()?;
    let limit = now.timestamp().as_second().saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    let is_older = |(_, snapshot): &&&(SnapshotId, Snapshot)| snapshot.time.seconds <= limit;
    let found = of_domain.iter().rev().find(is_older).copied();
    found.ok_or_else(|| format!("there is no snapshot of {domain} from before {age} ago"))
}

/// A drill that could not be verified waits so many times as long as it took before it is tried again: what never can be
/// verified takes no more than this share of a host.
const REST: f64 = 10.0;

/// Whether a drill is due by its schedule: since the last time on it, it was neither passed nor failed.
pub fn is_due(drill: &Drill, records: &[DrillRecord], now: &Zoned) -> bool {
    let Some(since) = drill.schedule.as_ref().and_then(|schedule| schedule.last_before(now)) else {
        return false;
    };
    let own = |record: &&DrillRecord| {
        // It would count for as long as a clock was wrong once.
        record.drill == drill.name && !record.self_test && !is_to_come(record.began, now)
    };
    let counts = |record: &&DrillRecord| match record.outcome {
        DrillOutcome::Pass | DrillOutcome::Fail => true,
        DrillOutcome::Unverified => {
            let took: f64 = record.phases.iter().map(|timed| timed.seconds).sum();
            now.timestamp().duration_since(record.began).as_secs_f64() < took * REST
        }
    };
    let last: Option<Timestamp> = records.iter().filter(own).filter(counts).map(|record| record.began).max();
    last.is_none_or(|last| last < since.timestamp())
}
