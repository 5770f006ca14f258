//! Recoveries that were begun with a copy of the plan: their journals are in the state folder of that.

use std::io;
use std::path::{Path, PathBuf};

use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::recover::journal::Journal;
use crate::recover::machine::Recoverer;
use crate::recover::preview::Refusal;
use crate::recover::record::advice;
use crate::run::state::State;
use crate::status::{DomainStatus, Health};

/// A recovery that another plan's state folder has the journal of.
#[derive(Debug, Clone, PartialEq)]
pub struct Elsewhere {
    /// How far it is.
    pub journal: Journal,
    /// The plan that it was begun with; unknown of old folders.
    plan: Option<PathBuf>,
}

impl Elsewhere {
    /// What to do about it; nothing if it is at its end, and nothing is kept.
    pub fn advice(&self) -> Option<String> {
        let advice = advice(&self.journal)?;
        let with = match &self.plan {
            Some(plan) if plan.exists() => format!("--config {}", plan.display()),
            Some(plan) => format!("--config {} (put a copy of the plan there)", plan.display()),
            None => "--config and the path that the plan was used by then".into(),
        };
        Some(format!("{advice}, each with {with}: it was begun with that"))
    }
}

impl State {
    /// Recoveries of the same data that were begun with a copy of the plan.
    ///
    /// # Errors
    /// Where a journal is there and cannot be read.
    pub fn recoveries_elsewhere(&self, domain: &Domain) -> io::Result<Vec<Elsewhere>> {
        let mut found = Vec::new();
        for other in &self.others {
            let journal = Self::at(&other.folder).recovery(&domain.name)?;
            let journal = journal.filter(|journal| is_about(journal, domain));
            found.extend(journal.map(|journal| Elsewhere { journal, plan: other.plan.clone() }));
        }
        Ok(found)
    }
}

impl Recoverer<'_> {
    /// What is to be done about a recovery of a domain that was begun with a copy of the plan.
    ///
    /// # Errors
    /// [`Refusal`] where that cannot be read.
    pub(super) fn elsewhere(&self, domain: &Name) -> Result<Option<(String, Journal)>, Refusal> {
        let Some(domain) = self.plan.domain(domain.as_str()) else { return Ok(None) };
        let found = self.state.recoveries_elsewhere(domain).map_err(|error| self.unwritable(&error))?;
        Ok(found.into_iter().find_map(|other| Some((other.advice()?, other.journal))))
    }

    /// There is nothing here, but maybe where a copy of the plan has begun it.
    pub(super) fn nothing(&self, message: String, names: &[String]) -> Refusal {
        let domains = names.iter().filter_map(|name| self.plan.domain(name));
        let mut elsewhere = domains.filter_map(|domain| self.elsewhere(&domain.name).ok().flatten());
        match elsewhere.next() {
            Some((advice, _)) => Refusal::failed("no-recovery", message, advice),
            None => nothing(&message),
        }
    }
}

/// There is nothing here.
pub(super) fn nothing(message: &str) -> Refusal {
    let hint = "`strongroom status` tells of recoveries that are unfinished or of which something is kept"
        .to_owned();
    Refusal::failed("no-recovery", message.to_owned(), hint)
}

/// Whether a recovery touches the data of a domain: plans of other applications may have domains of the same name.
fn is_about(journal: &Journal, domain: &Domain) -> bool {
    let touches = |one: &Path, two: &Path| one.starts_with(two) || two.starts_with(one);
    let places = || journal.targets.iter().flat_map(|target| [&*target.named, &*target.place]);
    let mut own = domain.paths.iter().chain(&domain.sqlite).map(Path::new);
    let has_stream = |name: &str| domain.stream.iter().any(|stream| stream.name == name);
    own.any(|own| places().any(|place| touches(own, place)))
        || journal.loads.iter().any(|load| has_stream(&load.stream))
}

/// Adds to the status of domains what such recoveries say of them.
///
/// # Errors
/// Where a journal is there and cannot be read.
pub fn judge(plan: &Plan, found: &mut [DomainStatus], state: &State) -> io::Result<()> {
    for status in found {
        let Some(domain) = plan.domain(status.domain.as_str()) else { continue };
        for other in state.recoveries_elsewhere(domain)? {
            if other.journal.is_unfinished() {
                status.health = status.health.max(Health::Critical);
            }
            status.reasons.extend(other.advice());
        }
    }
    Ok(())
}
