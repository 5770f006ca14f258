//! Which snapshots of a domain stay.

use strongroom::forget::policy::{GroupBy, Period, Policy, Reach, Rule};
use strongroom::forget::{ForgetOptions, Guards, Selection, Wish};

use crate::plan::types::Retain;
use crate::plan::values::Name;

/// What to ask of the engine; nothing where no rule keeps anything, since that would forget all.
pub fn options(retain: &Retain, domain: &Name, host: &str) -> Option<ForgetOptions> {
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
        wish: Wish::Policy(Policy { rules, tags: Vec::new(), ids: Vec::new() }),
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
