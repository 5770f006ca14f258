//! Which domains a run is for, in which order, into which repositories, and why.

use jiff::{Timestamp, Zoned};

use crate::order::{Cycle, order};
use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::again::{Attempts, Missed};

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Domains by name; none means all.
    pub names: Vec<String>,
    /// Only domains with one of these tags, if there are any.
    pub tags: Vec<String>,
    /// Only what is due.
    pub due: bool,
}

/// What is known of the newest snapshot of a domain in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// Its time.
    At(Timestamp),
    /// There is none.
    None,
    /// The repository cannot be asked.
    Unknown,
}

/// What dueness is judged by.
pub struct Known<'k> {
    /// What repositories say of the newest snapshot of a domain.
    pub newest: &'k dyn Fn(&Name, &Domain) -> Newest,
    /// How attempts ended on this host.
    pub attempts: &'k Attempts,
}

/// A domain to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen<'p> {
    /// The domain.
    pub domain: &'p Domain,
    /// The repositories to back it up into.
    pub targets: Vec<&'p Name>,
    /// Why, for people.
    pub why: String,
}

/// What was asked for cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No such domain.
    #[error("the plan has no domain {0:?}")]
    Unknown(String),
    /// No domain has such a tag.
    #[error("no domain of the plan has the tag {0:?}")]
    UnknownTag(String),
    /// What was named has none of the tags.
    #[error("none of the domains that were named has one of the tags {}", .0.join(", "))]
    NoneTagged(Vec<String>),
    /// Domains wait for each other.
    #[error(transparent)]
    Cycle(#[from] Cycle),
}

/// The domains that are meant, due or not, in the order of their dependencies.
///
/// # Errors
/// [`SelectError`].
pub fn meant<'p>(plan: &'p Plan, choice: &Choice) -> Result<Vec<&'p Domain>, SelectError> {
    if let Some(name) = choice.names.iter().find(|name| plan.domain(name).is_none()) {
        return Err(SelectError::Unknown(name.clone()));
    }
    let has_tag = |tag: &String| plan.domains.iter().any(|domain| domain.tags.contains(tag));
    if let Some(tag) = choice.tags.iter().find(|tag| !has_tag(tag)) {
        return Err(SelectError::UnknownTag(tag.clone()));
    }
    let mut meant: Vec<&Domain> = order(&plan.domains)?.iter().map(|at| &plan.domains[*at]).collect();
    meant.retain(|domain| {
        let is_named =
            choice.names.is_empty() || choice.names.iter().any(|name| name == domain.name.as_str());
        is_named && (choice.tags.is_empty() || choice.tags.iter().any(|tag| domain.tags.contains(tag)))
    });
    // Each name and each tag is known, and together they mean nothing: that is no run in which nothing was due.
    if meant.is_empty() && !choice.names.is_empty() {
        return Err(SelectError::NoneTagged(choice.tags.clone()));
    }
    Ok(meant)
}

/// The domains to run, in the order of their dependencies.
///
/// # Errors
/// [`SelectError`].
pub fn select<'p>(
    plan: &'p Plan,
    choice: &Choice,
    known: &Known<'_>,
    now: &Zoned,
) -> Result<Vec<Chosen<'p>>, SelectError> {
    let mut chosen = Vec::new();
    for domain in meant(plan, choice)? {
        let repos = plan.repositories(domain);
        if !choice.due {
            chosen.push(Chosen { domain, targets: repos, why: "asked for".into() });
            continue;
        }
        let mut dues = dues(plan, domain, known, now);
        if !dues.is_empty() {
            let targets = dues.iter().map(|(repo, _)| *repo).collect();
            chosen.push(Chosen { domain, targets, why: dues.swap_remove(0).1 });
        }
    }
    Ok(chosen)
}

/// The repositories that a domain has to be backed up into now, each with the reason.
pub fn dues<'p>(
    plan: &'p Plan,
    domain: &'p Domain,
    known: &Known<'_>,
    now: &Zoned,
) -> Vec<(&'p Name, String)> {
    let repos = plan.repositories(domain).into_iter();
    let due = |repo: &Name| {
        due(domain, (known.newest)(repo, domain), known.attempts.missed(&domain.name, repo), now)
    };
    repos.filter_map(|repo| Some((repo, due(repo)?))).collect()
}

/// Why a domain has to be backed up into a repository now, if it has to; `missed` is the last attempt if it has not got there. Without a
/// schedule it never has to by itself: whoever calls for it knows when its hooks may run.
pub fn due(domain: &Domain, newest: Newest, missed: Option<Missed>, now: &Zoned) -> Option<String> {
    let schedule = domain.schedule.as_ref()?;
    let since = schedule.last_before(now);
    match (newest, since) {
        (Newest::Unknown, _) => Some("the repository cannot be asked".into()),
        (Newest::None, _) => Some("there is no snapshot yet".into()),
        (Newest::At(time), _) if time > now.timestamp() => {
            Some(format!("the newest snapshot says that it was made in the future, at {time}"))
        }
        (Newest::At(time), Some(since)) if time < since.timestamp() => {
            Some(format!("due since {}", since.strftime("%Y-%m-%d %H:%M")))
        }
        (Newest::At(time), _) => missed.filter(|missed| time < missed.since).map(|missed| missed.why),
    }
}
