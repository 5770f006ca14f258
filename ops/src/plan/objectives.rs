//! What a domain has to meet: its own targets, else its class's, else none.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::civil::Date;

use crate::plan::load::Plan;
use crate::plan::types::{Class, Consistency, Control, Domain, Exception, OnChange, Repo, Retain, Verify};
use crate::plan::values::{Lapse, Name};

/// The targets in force for a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Objectives {
    /// Oldest that the newest complete snapshot may be.
    pub rpo: Option<Lapse>,
    /// How much more than that is an alarm.
    pub rpo_grace: Lapse,
    /// Longest that a restore may take.
    pub rto: Option<Lapse>,
    /// Repositories that must have a snapshot.
    pub copies: u32,
    /// Sites that these must be at.
    pub sites: u32,
    /// What becomes of a file that changes each time it is read.
    pub on_change: OnChange,
    /// The least consistency.
    pub min_consistency: Consistency,
    /// How much is verified how often.
    pub verify: Option<Verify>,
    /// How often a restore is rehearsed.
    pub drill_every: Option<Lapse>,
    /// Which snapshots are kept; without it all.
    pub retain: Option<Retain>,
    /// Whether snapshots are compared with those before.
    pub anomaly_guard: bool,
}

impl Objectives {
    /// `own` before `class`.
    pub fn of(own: Option<&Class>, class: Option<&Class>) -> Self {
        fn first<T: Clone>(
            own: Option<&Class>,
            class: Option<&Class>,
            field: impl Fn(&Class) -> &Option<T>,
        ) -> Option<T> {
            own.and_then(|own| field(own).clone()).or_else(|| class.and_then(|class| field(class).clone()))
        }
        Self {
            rpo: first(own, class, |class| &class.rpo),
            rpo_grace: first(own, class, |class| &class.rpo_grace).unwrap_or(Lapse::seconds(0)),
            rto: first(own, class, |class| &class.rto),
            copies: first(own, class, |class| &class.copies).unwrap_or(1),
            sites: first(own, class, |class| &class.sites).unwrap_or(1),
            on_change: first(own, class, |class| &class.on_change).unwrap_or_default(),
            min_consistency: first(own, class, |class| &class.min_consistency).unwrap_or_default(),
            verify: first(own, class, |class| &class.verify),
            drill_every: first(own, class, |class| &class.drill_every),
            retain: first(own, class, |class| &class.retain),
            anomaly_guard: first(own, class, |class| &class.anomaly_guard).unwrap_or(true),
        }
    }
}

impl Plan {
    /// The targets of a domain.
    pub fn objectives(&self, domain: &Domain) -> Objectives {
        let class = domain.class.as_ref().and_then(|class| self.classes.get(class));
        Objectives::of(domain.objectives.as_ref(), class)
    }

    /// The exception that allows a domain to miss a target on a day, if there is one.
    pub fn exception(&self, control: Control, domain: &Name, day: Date) -> Option<&Exception> {
        self.exceptions.iter().find(|exception| {
            exception.control == control && exception.domain == *domain && exception.expires >= day
        })
    }

    /// At how many sites repositories are. One without a `site` may be at that of another one.
    pub fn sites<'n>(&self, repos: impl IntoIterator<Item = &'n Name>) -> usize {
        let sites: Vec<_> = repos
            .into_iter()
            .map(|name| self.repos.get(name).and_then(|repo| repo.site.as_deref()))
            .collect();
        let named: BTreeSet<&str> = sites.iter().flatten().copied().collect();
        named.len().max(usize::from(!sites.is_empty()))
    }

    /// The repositories that a domain goes to, as far as there are such.
    pub fn repositories<'p>(&'p self, domain: &'p Domain) -> Vec<&'p Name> {
        match &domain.to {
            Some(names) => names.iter().filter(|name| self.repos.contains_key(*name)).collect(),
            None => self.repos.keys().collect(),
        }
    }
}

impl Repo {
    /// The directory that it is, where it is one of this host.
    pub fn local(&self) -> Option<&Path> {
        let url = self.url.as_str();
        let named = url.strip_prefix("file:").or_else(|| url.strip_prefix("local:"));
        let has_scheme = || url.split('/').next().is_some_and(|first| first.contains(':'));
        named.or_else(|| (!has_scheme()).then_some(url)).map(Path::new)
    }
}

impl Domain {
    /// How the parts of its snapshots belong together, as far as the plan tells.
    pub fn consistency(&self) -> Consistency {
        if self.paths.is_empty() {
            return Consistency::Application;
        }
        let of_hooks = self.consistency.unwrap_or_default();
        match self.snapshot {
            Some(_) => of_hooks.max(Consistency::Crash),
            None => of_hooks,
        }
    }
}
