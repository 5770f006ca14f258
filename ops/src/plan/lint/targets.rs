//! Targets that a plan sets and cannot meet, and exceptions from them.

use std::collections::BTreeSet;

use super::{Lint, Severity};
use crate::plan::types::{Control, Domain, Drill, Repo, Tier};
use crate::plan::values::{Lapse, Name};
use crate::words;

impl Lint<'_> {
    /// A target that is missed, unless an exception allows it.
    fn violation(&mut self, control: Control, code: &'static str, domain: &Domain, message: String) {
        if self.plan.exception(control, &domain.name, self.today).is_none() {
            self.add(Severity::Violation, code, &format!("domain.{}", domain.name), message);
        }
    }

    /// Whether a domain can meet its own targets.
    pub(super) fn targets(&mut self, domain: &Domain) {
        let objectives = self.plan.objectives(domain);
        let name = &domain.name;
        let repos = self.plan.repositories(domain);
        if repos.is_empty() {
            // That was said already.
            return;
        }
        let copies = repos.iter().collect::<BTreeSet<_>>().len();
        if copies < objectives.copies as usize {
            let message = format!(
                "the domain {name} wants {}, and goes to {copies}",
                words::count(objectives.copies, "copy")
            );
            self.violation(Control::Copies, "too-few-copies", domain, message);
        }
        self.sites(domain, &repos, objectives.sites);
        if objectives.copies > 1 && objectives.sites < 2 {
            self.one_site(domain, &repos);
        }
        if domain.consistency() < objectives.min_consistency {
            let message = format!(
                "the domain {name} wants {:?} consistency, and its plan gives {:?}",
                objectives.min_consistency,
                domain.consistency()
            );
            self.violation(Control::Consistency, "too-little-consistency", domain, message.to_lowercase());
        }
        if let Some(rpo) = objectives.rpo {
            let limit = rpo.as_secs() + objectives.rpo_grace.as_secs();
            match &domain.schedule {
                None => {
                    let message =
                        format!("the domain {name} has an RPO of {rpo}, and no schedule to meet it");
                    self.add(Severity::Warning, "no-schedule", &format!("domain.{name}"), message).hint =
                        Some("add a schedule, or see to it that something else runs it".into());
                }
                Some(schedule) => match schedule.longest_gap() {
                    Some(gap) if gap <= limit => {}
                    gap => {
                        let often = gap.map_or("once at most".into(), |gap| {
                            format!("up to {} apart", Lapse::seconds(gap))
                        });
                        let message = format!(
                            "the domain {name} has an RPO of {rpo} (grace {}), and runs {often} ({schedule})",
                            objectives.rpo_grace
                        );
                        self.violation(Control::Rpo, "rpo-cannot-be-met", domain, message);
                    }
                },
            }
        }
        self.rehearsals(domain, objectives.drill_every);
        self.measurements(domain, objectives.rto);
        let restores = |drill: &Drill| drill.tier != Tier::Metadata && drill.domains.contains(name);
        if objectives.retain.is_some_and(|retain| retain.keep_last_drilled)
            && !self.plan.drills.iter().any(restores)
        {
            let message =
                format!("the domain {name} keeps what a drill has restored, and no drill restores it");
            self.add(Severity::Warning, "nothing-drilled", &format!("domain.{name}"), message).hint =
                Some("add a drill of the tier full or sample, or take keep_last_drilled out".into());
        }
    }

    /// One that does not say where it is may be where another one is.
    fn sites(&mut self, domain: &Domain, repos: &[&Name], wanted: u32) {
        if wanted < 2 {
            return;
        }
        let site = |repo: &Name| self.plan.repos.get(repo).and_then(|repo| repo.site.as_deref());
        let nowhere: BTreeSet<_> =
            repos.iter().filter(|repo| site(repo).is_none()).map(|repo| repo.as_str()).collect();
        let sites = repos.iter().filter_map(|repo| site(repo)).collect::<BTreeSet<_>>().len();
        if sites >= wanted as usize {
            return;
        }
        let unknown = match nowhere.len() {
            0 => String::new(),
            _ => {
                let names: Vec<_> = nowhere.into_iter().collect();
                format!(" (no `site` is given for {})", names.join(", "))
            }
        };
        let message = format!(
            "the domain {} wants copies at {wanted} sites, and goes to {sites} that are known{unknown}",
            domain.name
        );
        self.violation(Control::Sites, "too-few-sites", domain, message);
    }

    /// What is at another site is of no use where the password was lost with the host.
    pub(super) fn key_copies(&mut self, name: &Name, repo: &Repo) {
        if repo.key_copies.as_ref().is_some_and(|said| !said.trim().is_empty()) {
            return;
        }
        let plan = self.plan;
        let needs =
            |domain: &&Domain| plan.objectives(domain).sites > 1 && plan.repositories(domain).contains(&name);
        if let Some(domain) = plan.domains.iter().find(needs) {
            let message = format!(
                "the domain {} is to outlive its site, and nothing says where copies of the password of the repository {name} are kept",
                domain.name
            );
            let key = format!("repo.{name}.key_copies");
            self.add(Severity::Warning, "no-key-copies", &key, message).hint = Some(
                "keep one away from this host, and say where with key_copies = \"PLACE\": never the password itself".into(),
            );
        }
    }

    /// What destroys a place destroys all copies there.
    fn one_site(&mut self, domain: &Domain, repos: &[&Name]) {
        let sites: BTreeSet<_> = repos
            .iter()
            .map(|name| self.plan.repos.get(*name).and_then(|repo| repo.site.as_deref()))
            .collect();
        let [Some(site)] = sites.into_iter().collect::<Vec<_>>()[..] else { return };
        let message =
            format!("all copies of the domain {} are at the site {site}, and are lost together", domain.name);
        self.add(Severity::Warning, "one-site", &format!("domain.{}", domain.name), message).hint =
            Some("add a repository at another site, and `sites = 2` to the targets".into());
    }

    /// Only what has a schedule comes about by itself, and only what restores something is a rehearsal.
    fn rehearsals(&mut self, domain: &Domain, drill_every: Option<Lapse>) {
        let Some(every) = drill_every else { return };
        let name = &domain.name;
        let drills: Vec<_> = self.plan.drills.iter().filter(|drill| drill.domains.contains(name)).collect();
        let restoring = drills.iter().filter(|drill| drill.tier != Tier::Metadata);
        let schedules: Vec<_> = restoring.clone().filter_map(|drill| drill.schedule.as_ref()).collect();
        let gap = schedules.iter().filter_map(|schedule| schedule.longest_gap()).min();
        let what = match (drills.len(), restoring.count(), schedules.len(), gap) {
            (0, ..) => "is in none".to_owned(),
            (_, 0, ..) => "its drills are of the tier metadata, which restores nothing".to_owned(),
            (_, _, 0, _) => "no drill that restores it has a schedule".to_owned(),
            (_, _, _, Some(gap)) if gap <= every.as_secs() => return,
            (_, _, _, Some(gap)) => format!("its drills are up to {} apart", Lapse::seconds(gap)),
            (_, _, _, None) => "its drills run once at most".to_owned(),
        };
        let message = format!("the domain {name} wants a drill every {every}, and {what}");
        self.violation(Control::Drill, "drill-missing", domain, message);
    }

    /// What is to be in files that are not there is protected by nothing.
    pub(super) fn includes(&mut self) {
        for pattern in &self.plan.idle_includes {
            let message = format!("the pattern {pattern:?} of include names no file");
            self.add(Severity::Warning, "idle-include", "include", message).hint = Some(
                "where files were there, as on a mount that is missing, their domains are not protected now"
                    .into(),
            );
        }
    }

    /// How long a restore takes is known when all was restored once.
    fn measurements(&mut self, domain: &Domain, rto: Option<Lapse>) {
        let Some(rto) = rto else { return };
        let name = &domain.name;
        let measures = |drill: &Drill| drill.tier == Tier::Full && drill.domains.contains(name);
        if self.plan.drills.iter().any(measures)
            || self.plan.exception(Control::Rto, name, self.today).is_some()
        {
            return;
        }
        let message = format!(
            "the domain {name} has to be back within {rto}, and no drill measures how long that takes"
        );
        self.add(Severity::Warning, "rto-not-measured", &format!("domain.{name}"), message).hint =
            Some("add a drill of the tier full".into());
    }

    pub(super) fn exceptions(&mut self) {
        for exception in &self.plan.exceptions {
            let key = format!("exception.{}", exception.id);
            for (field, value) in [("reason", &exception.reason), ("approved_by", &exception.approved_by)] {
                if value.trim().is_empty() {
                    let message = format!("the exception {} has an empty {field}", exception.id);
                    self.error("empty-exception", &format!("{key}.{field}"), message);
                }
            }
            if exception.expires < self.today {
                let message = format!("the exception {} expired on {}", exception.id, exception.expires);
                self.add(Severity::Violation, "exception-expired", &key, message).hint = Some(format!(
                    "meet the target ({}), or have the exception approved anew",
                    exception.control.name()
                ));
            }
        }
    }
}
