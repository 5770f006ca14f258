//! Runs that are not begun, because the plan cannot be run as it is: they are on record all the same.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::run::report::DomainReport;
use crate::run::select::Choice;
use crate::run::state::{Attempt, Outcome, State};

/// Records the attempts of all domains that the run was for, as far as that can be told.
pub fn refused(
    plan: &Plan,
    choice: &Choice,
    state: &State,
    reason: &str,
    now: Timestamp,
) -> Vec<DomainReport> {
    let is_meant = |domain: &&Domain| {
        let is_named =
            choice.names.is_empty() || choice.names.iter().any(|name| name == domain.name.as_str());
        let is_tagged = choice.tags.is_empty() || choice.tags.iter().any(|tag| domain.tags.contains(tag));
        is_named && is_tagged && (!choice.due || domain.schedule.is_some())
    };
    let record = |domain: &Domain| {
        let mut report = DomainReport::new(&domain.name);
        report.fail(format!("the plan cannot be run: {reason}"));
        let attempt = Attempt {
            domain: domain.name.clone(),
            began: now,
            ended: Some(now),
            outcome: Outcome::Failed,
            message: report.message.clone(),
            at_work_since: None,
            repositories: BTreeMap::new(),
        };
        if let Err(error) = state.record(&attempt) {
            report.warn(format!("the attempt cannot be recorded: {error}"));
        }
        report
    };
    plan.domains.iter().filter(is_meant).map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::load::tests_support::plan;

    #[test]
    fn every_domain_that_was_meant_has_a_failed_attempt() {
        let plan = plan(
            "[[domain]]\nname = 'a'\npaths = ['/a']\nschedule = 'daily'\nto = ['no']\ntags = ['t']\n[[domain]]\nname = 'b'\n\
             paths = ['/b']\n[[domain]]\nname = 'c'\npaths = ['/c']\nschedule = 'daily'\n",
        );
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        let meant = |names: &[&str], tags: &[&str], due| {
            let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let choice = Choice { names: texts(names), tags: texts(tags), due };
            let reports = refused(&plan, &choice, &state, "no such repository", Timestamp::UNIX_EPOCH);
            reports.iter().map(|report| report.domain.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(meant(&[], &[], true), ["a", "c"]);
        assert_eq!(meant(&["b"], &[], false), ["b"]);
        assert_eq!(meant(&[], &["t"], false), ["a"]);
        assert_eq!(meant(&["unknown"], &[], false), [] as [&str; 0]);
        let attempts = state.attempts().expect("readable");
        assert_eq!(attempts.len(), 4);
        assert!(attempts.iter().all(|attempt| {
            attempt.outcome == Outcome::Failed
                && attempt.message.as_deref() == Some("the plan cannot be run: no such repository")
        }));
    }
}
