//! What is due again, whatever its schedule says: the last attempt has not got there.
//!
//! Nothing waits longer after a second failure: a timer that calls `run --due` every few minutes tries as often.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;

use crate::plan::Plan;
use crate::plan::values::Name;
use crate::run::state::{Attempt, Outcome, State};

/// The attempts of this host, and the runs that were killed and that nobody has recorded yet.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    /// In the order they ended.
    ended: Vec<Attempt>,
    /// When they began.
    killed: BTreeMap<Name, Timestamp>,
}

/// A last attempt that has not got into a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// A snapshot that was begun then or later makes up for it, whoever made it.
    pub since: Timestamp,
    /// What became of it, for people.
    pub why: String,
}

impl Attempts {
    /// Those that the state folder of a plan knows of.
    ///
    /// # Errors
    /// Where the record of attempts is there and cannot be read.
    pub fn of(plan: &Plan, state: &State) -> io::Result<Self> {
        let ended = state.attempts()?;
        let mut killed = BTreeMap::new();
        for domain in &plan.domains {
            // One that cannot be read is told of by the run itself, and by `status`.
            let Ok(Some(journal)) = state.journal(&domain.name) else { continue };
            let is_recorded = ended.iter().any(|one| one.domain == domain.name && one.began == journal.began);
            // Whoever is at work on the domain has it locked.
            if !is_recorded && !matches!(state.lock_own(&domain.name), Ok(None)) {
                killed.insert(domain.name.clone(), journal.began);
            }
        }
        Ok(Self { ended, killed })
    }

    /// The last attempt to back a domain up into a repository, if it has not got there.
    pub fn missed(&self, domain: &Name, repo: &Name) -> Option<Missed> {
        if let Some(began) = self.killed.get(domain) {
            return Some(Missed { since: *began, why: "the last attempt was killed".into() });
        }
        let mut own = self.ended.iter().rev().filter(|attempt| attempt.domain == *domain);
        let last = own.find(|attempt| concerns(attempt, repo))?;
        let of_repo = last.repositories.get(repo);
        let (outcome, message) = match of_repo {
            Some(of_repo) => (of_repo.outcome, of_repo.message.as_ref()),
            None => (last.outcome, None),
        };
        let became = match outcome {
            Outcome::Ok | Outcome::Partial => return None,
            Outcome::Failed => "failed",
            Outcome::Skipped => "was skipped",
            Outcome::Deferred => "was deferred",
            Outcome::Interrupted => "was killed",
        };
        let message = message.or(last.message.as_ref()).map_or(String::new(), |why| format!(": {why}"));
        Some(Missed { since: last.made_up_since(), why: format!("the last attempt {became}{message}") })
    }
}

/// Whether an attempt was for a repository: one that says nothing of any was for all of them.
fn concerns(attempt: &Attempt, repo: &Name) -> bool {
    attempt.repositories.is_empty() || attempt.repositories.contains_key(repo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::load::tests_support::plan;
    use crate::run::state::{Journal, RepoAttempt};
    use crate::testing::name;

    fn attempt(number: i64, outcome: Outcome, repos: &[(&str, Outcome)]) -> Attempt {
        let of_repo = |outcome: Outcome| RepoAttempt {
            outcome,
            snapshot: None,
            message: (outcome == Outcome::Failed).then(|| "it is down".to_owned()),
        };
        Attempt {
            domain: name("x"),
            began: Timestamp::from_second(number).expect("a time"),
            ended: None,
            outcome,
            message: (outcome != Outcome::Ok).then(|| "a hook failed".to_owned()),
            at_work_since: None,
            repositories: repos.iter().map(|(repo, outcome)| (name(repo), of_repo(*outcome))).collect(),
        }
    }

    #[test]
    fn the_last_attempt_at_a_repository_counts_whatever_others_are_for() {
        use Outcome::{Failed, Interrupted, Ok, Partial, Skipped};
        let found = |ended: &[Attempt]| {
            let attempts = Attempts { ended: ended.to_vec(), killed: BTreeMap::new() };
            ["a", "b"].map(|repo| {
                let missed = attempts.missed(&name("x"), &name(repo));
                missed.map(|missed| (missed.since.as_second(), missed.why))
            })
        };
        let missed = |number: i64, why: &str| Some((number, format!("the last attempt {why}")));
        assert_eq!(found(&[]), [None, None]);
        let mixed = attempt(1, Failed, &[("a", Ok), ("b", Failed)]);
        let down = missed(1, "failed: it is down");
        assert_eq!(found(std::slice::from_ref(&mixed)), [None, down.clone()]);
        // What is for one repository says nothing of the other.
        assert_eq!(found(&[mixed.clone(), attempt(2, Ok, &[("a", Ok)])]), [None, down]);
        assert_eq!(found(&[mixed, attempt(2, Partial, &[("b", Partial)])]), [None, None]);
        let all = missed(3, "failed: a hook failed");
        assert_eq!(found(&[attempt(3, Failed, &[])]), [all.clone(), all]);
        assert_eq!(
            found(&[attempt(3, Skipped, &[("b", Skipped)])]),
            [None, missed(3, "was skipped: a hook failed")]
        );
        assert_eq!(found(&[attempt(3, Interrupted, &[])])[0], missed(3, "was killed: a hook failed"));
        let mut other = attempt(3, Failed, &[]);
        other.domain = name("y");
        assert_eq!(found(&[other]), [None, None]);
    }

    #[test]
    fn a_run_that_was_killed_is_due_again_unless_it_is_recorded_or_at_work() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        let plan = plan("[[domain]]\nname = 'x'\npaths = ['/x']\n");
        let missed = || Attempts::of(&plan, &state).expect("readable").missed(&name("x"), &name("a"));
        let killed = attempt(1, Outcome::Partial, &[("a", Outcome::Partial)]);
        state.note(&name("x"), &Journal::new(killed.began, "")).expect("noted");
        let lock = state.lock(&name("x")).expect("a lock").expect("free");
        assert_eq!(missed(), None, "it is at work");
        drop(lock);
        assert_eq!(missed(), Some(Missed { since: killed.began, why: "the last attempt was killed".into() }));
        state.record(&killed).expect("recorded");
        assert_eq!(missed(), None, "it came to its end, and has left something to do");
    }
}
