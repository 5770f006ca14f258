//! What the snapshot says of the world it was made in, and how that is now.

use std::sync::Arc;

use strongroom::format::snapshot::Snapshot;

use crate::plan::types::Domain;
use crate::run::facts::facts;
use crate::run::process::{Processes, without_output};

/// A fact, then and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its name.
    pub name: String,
    /// What the snapshot says; none if it does not.
    pub then: Option<String>,
    /// What its command says now, or why it does not; none if the plan has no such command any more.
    pub now: Option<Result<String, String>>,
    /// Whether a difference was allowed.
    pub is_allowed: bool,
}

impl Fact {
    /// Whether it is known to be different, or not known to be the same. What the snapshot does not say is no difference.
    pub fn has_drifted(&self) -> bool {
        match (&self.then, &self.now) {
            (Some(then), Some(Ok(now))) => then != now,
            (Some(_), Some(Err(_))) => true,
            _ => false,
        }
    }
}

/// All facts of a domain, by name.
pub(super) fn compare(
    domain: &Domain,
    snapshot: &Snapshot,
    env: &[(String, String)],
    processes: &Arc<dyn Processes>,
    allowed: &[String],
) -> Vec<Fact> {
    let recorded = snapshot.provenance.as_ref().map_or(&[][..], |provenance| &provenance.facts);
    let is_allowed = |name: &str| allowed.iter().any(|one| one == name);
    let mut found: Vec<Fact> = facts(domain, env, &**processes)
        .into_iter()
        .map(|(name, now)| Fact {
            name: name.to_string(),
            then: recorded.iter().find(|fact| fact.name == name.as_str()).map(|fact| fact.value.clone()),
            now: Some(now.map_err(|error| without_output(&error))),
            is_allowed: is_allowed(name.as_str()),
        })
        .collect();
    for fact in recorded {
        if !found.iter().any(|one| one.name == fact.name) {
            let (name, then) = (fact.name.clone(), Some(fact.value.clone()));
            found.push(Fact { is_allowed: is_allowed(&name), name, then, now: None });
        }
    }
    found
}
