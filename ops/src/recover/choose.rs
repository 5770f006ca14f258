//! Which domains are recovered, in which order, from which repository and snapshot.

use jiff::Zoned;
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::choose;
use crate::order::order;
use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::plan::values::{Lapse, Name};
use crate::recover::preview::{Refusal, Wish};
use crate::run::vault::VaultError;

/// The domains that are asked for, in the order of their dependencies.
///
/// # Errors
/// [`Refusal`] where one is not in the plan, or they wait for each other.
pub fn domains<'p>(plan: &'p Plan, names: &[String]) -> Result<Vec<&'p Domain>, Refusal> {
    let there_are = || plan.domains.iter().map(|domain| domain.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = names.iter().find(|name| plan.domain(name).is_none()) {
        let message = format!("the plan has no domain {unknown:?}");
        return Err(Refusal::usage(message, format!("it has: {}", there_are())));
    }
    if names.is_empty() {
        let message = "no domain was named: nothing is recovered that nobody asked for".to_owned();
        return Err(Refusal::usage(message, format!("name one or several of: {}", there_are())));
    }
    let ordered = order(&plan.domains).map_err(|cycle| {
        Refusal::usage(cycle.to_string(), "take one name out of one of the `after` lists".to_owned())
    })?;
    let is_named = |domain: &&Domain| names.iter().any(|name| name == domain.name.as_str());
    Ok(ordered.into_iter().map(|position| &plan.domains[position]).filter(is_named).collect())
}

/// Looks at a choice before anything is asked of a repository.
///
/// # Errors
/// [`Refusal`] where it cannot be meant.
pub fn check(plan: &Plan, domains: &[&Domain], wish: &Wish) -> Result<(), Refusal> {
    if let Some(from) = &wish.from {
        for domain in domains {
            let repos = plan.repositories(domain);
            if !repos.iter().any(|repo| repo.as_str() == from) {
                let message = match plan.repos.keys().any(|repo| repo.as_str() == from) {
                    true => format!("the domain {} does not go to the repository {from}", domain.name),
                    false => format!("the plan has no repository {from:?}"),
                };
                let names: Vec<_> = repos.iter().map(|repo| repo.as_str()).collect();
                return Err(Refusal::usage(message, format!("{} is in: {}", domain.name, names.join(", "))));
            }
        }
    }
    if let Some(age) = wish.snapshot.strip_prefix("before:") {
        age.parse::<Lapse>().map_err(|wrong| {
            Refusal::usage(format!("--snapshot {}: {wrong}", wish.snapshot), "as before:7d".to_owned())
        })?;
    } else if wish.snapshot != "latest" && domains.len() > 1 {
        let message =
            format!("--snapshot {} is of one domain, and {} are named", wish.snapshot, domains.len());
        return Err(Refusal::usage(
            message,
            "recover one domain at a time, or take latest or before:7d".to_owned(),
        ));
    }
    let has =
        |name: &String| domains.iter().any(|domain| domain.facts.keys().any(|fact| fact.as_str() == name));
    if let Some(unknown) = wish.allow_drift.iter().find(|name| !has(name)) {
        let facts: Vec<_> = domains.iter().flat_map(|domain| domain.facts.keys().map(Name::as_str)).collect();
        let there_are = if facts.is_empty() { "they have none".to_owned() } else { facts.join(", ") };
        return Err(Refusal::usage(
            format!("--allow-drift {unknown}: the domains named have no such fact"),
            format!("facts: {there_are}"),
        ));
    }
    Ok(())
}

/// What was found: the repository, the snapshot, and which repositories could not be asked.
pub struct Chosen {
    /// The repository.
    pub repository: Name,
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Repositories that could not be asked, and why.
    pub unasked: Vec<(Name, VaultError)>,
}

/// What a repository says of its snapshots.
pub type Ask<'a> = dyn Fn(&Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> + 'a;

/// The snapshot that is asked for, from the repository that has the newest such one; of equals, from the first.
///
/// # Errors
/// [`Refusal`] where there is none.
pub fn snapshot(
    plan: &Plan,
    host: &str,
    domain: &Domain,
    wish: &Wish,
    now: &Zoned,
    ask: &Ask<'_>,
) -> Result<Chosen, Refusal> {
    let mut best: Option<Chosen> = None;
    let (mut unasked, mut reasons) = (Vec::new(), Vec::new());
    for repo in plan.repositories(domain) {
        if wish.from.as_ref().is_some_and(|from| from != repo.as_str()) {
            continue;
        }
        let all = match ask(repo) {
            Ok(all) => all,
            Err(error) => {
                unasked.push((repo.clone(), error));
                continue;
            }
        };
        let found = match wish.is_id() {
            true => by_id(&all, domain, &wish.snapshot),
            false => choose::snapshot(&all, host, &domain.name, &wish.snapshot, now, &|_| 0),
        };
        match found {
            Ok((id, snapshot)) => {
                let is_newer = |best: &Chosen| {
                    let time = |snapshot: &Snapshot| (snapshot.time.seconds, snapshot.time.nanos);
                    time(snapshot) > time(&best.snapshot)
                };
                if best.as_ref().is_none_or(is_newer) {
                    let (repository, snapshot) = (repo.clone(), snapshot.clone());
                    best = Some(Chosen { repository, id: *id, snapshot, unasked: Vec::new() });
                }
            }
            Err(reason) => reasons.push(format!("{reason} in {repo}")),
        }
    }
    if let Some(best) = best {
        return Ok(Chosen { unasked, ..best });
    }
    if let Some((repo, error)) = unasked.first().filter(|_| reasons.is_empty()) {
        return Err(Refusal::of_vault(domain, repo, error));
    }
    reasons.extend(unasked.iter().map(|(repo, error)| format!("{repo} cannot be asked: {error}")));
    Err(Refusal::failed(
        "no-snapshot",
        format!("{}: {}", domain.name, reasons.join("; ")),
        "`strongroom status` and `strongroom -r REPO snapshots` show what there is; the same snapshot has another id in each repository".to_owned(),
    ))
}

/// The snapshot whose id begins so, which has to be a whole one of the domain.
fn by_id<'s>(
    all: &'s [(SnapshotId, Snapshot)],
    domain: &Domain,
    start: &str,
) -> Result<&'s (SnapshotId, Snapshot), String> {
    let found: Vec<_> = all.iter().filter(|(id, _)| id.to_string().starts_with(start)).collect();
    let one = match found[..] {
        [one] => one,
        [] => return Err(format!("there is no snapshot {start}")),
        _ => return Err(format!("{} snapshots have an id that begins with {start}", found.len())),
    };
    let of = one.1.provenance.as_ref().map(|from| from.domain.as_str());
    match of {
        Some(of) if of == domain.name.as_str() => {}
        Some(of) => return Err(format!("the snapshot {start} is of the domain {of}")),
        None => return Err(format!("the snapshot {start} is of no domain")),
    }
    if one.1.partial { Err(format!("the snapshot {start} is partial")) } else { Ok(one) }
}
