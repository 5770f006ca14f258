//! Which snapshots of a domain stay.

use strongroom::forget::policy::{GroupBy, Period, Policy, Reach, Rule};
use strongroom::forget::{ForgetOptions, Guards, Selection, Wish};
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::kept::Restored;
use crate::plan::types::{Domain, Retain};
use crate::plan::values::Name;
use crate::run::Runner;
use crate::run::vault::VaultError;

impl Runner<'_> {
    /// What to ask of a repository's engine; nothing where the domain's snapshots all stay.
    ///
    /// # Errors
    /// [`VaultError`]: what drills have restored, and is to stay, is not known.
    pub(super) fn retention(
        &self,
        domain: &Domain,
        repo: &Name,
    ) -> Result<Option<ForgetOptions>, VaultError> {
        let Some(retain) = self.plan.objectives(domain).retain else { return Ok(None) };
        let Some(mut options) = options(&retain, &domain.name, &self.host) else { return Ok(None) };
        if let Wish::Policy(policy) = &mut options.wish
            && retain.keep_last_drilled
        {
            policy.drilled = self.drilled(domain, repo)?;
        }
        Ok(Some(options))
    }

    /// The domain's snapshots in a repository that stay because a drill has restored them, wherever it did.
    fn drilled(&self, domain: &Domain, repo: &Name) -> Result<Vec<SnapshotId>, VaultError> {
        let mut restored = Restored::default();
        for place in self.plan.repositories(domain) {
            restored.add(&self.vault.drills(place)?, &self.vault.snapshots(place)?);
        }
        let own = self.vault.snapshots(repo)?;
        let is_of_domain = |(_, snapshot): &&(SnapshotId, Snapshot)| {
            let from = snapshot.provenance.as_ref();
            snapshot.hostname == self.host && from.is_some_and(|from| from.domain == domain.name.as_str())
        };
        Ok(restored.last(&own.iter().filter(is_of_domain).collect::<Vec<_>>()))
    }
}

/// What to ask of the engine; nothing where no rule keeps anything, since that would forget all.
fn options(retain: &Retain, domain: &Name, host: &str) -> Option<ForgetOptions> {
    let rules = [
        (Period::Each, retain.last),
        (Period::Each, retain.min_keep),
        (Period::Hour, retain.hourly),
        (Period::Day, retain.daily),
        (Period::Week, retain.weekly),
        (Period::Month, retain.monthly),
        (Period::Year, retain.yearly),
    ];
    let rules: Vec<_> = rules
        .into_iter()
        .filter_map(|(period, count)| {
            Some(Rule { period, reach: Reach::Count(count.filter(|count| *count > 0)?) })
        })
        .collect();
    if rules.is_empty() {
        return None;
    }
    Some(ForgetOptions {
        wish: Wish::Policy(Policy { rules, ..Policy::default() }),
        selection: Selection {
            hosts: vec![host.to_owned()],
            domains: vec![domain.to_string()],
            ..Selection::default()
        },
        // One series, also where its paths have changed.
        group_by: GroupBy { host: true, paths: false, tags: false },
        guards: Guards::default(),
        dry_run: false,
        reason: format!("retention of the domain {domain}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_the_engines_and_none_is_none() {
        let name: Name = "shop".parse().expect("a name");
        let retain = Retain { daily: Some(7), min_keep: Some(2), hourly: Some(0), ..Retain::default() };
        let options = options(&retain, &name, "box").expect("rules");
        let Wish::Policy(policy) = options.wish else { panic!("a policy") };
        let texts: Vec<_> = policy.rules.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["keep-last 2", "keep-daily 7"]);
        assert_eq!(options.selection.domains, ["shop"]);
        assert!(super::options(&Retain::default(), &name, "box").is_none());
    }
}
