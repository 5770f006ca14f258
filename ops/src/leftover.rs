//! What runs and drills that were killed have left, until the next one cleans it up.

use std::io;

use jiff::Timestamp;

use crate::drill::DrillRecord;
use crate::drill::place::Place;
use crate::plan::Plan;
use crate::plan::values::Name;
use crate::run::lock::Lock;
use crate::run::state::{Attempt, State};
use crate::status::{DomainStatus, Health};

/// Adds to the status of domains what was killed: by then nobody has recorded it, and what it left may be data that was restored, an
/// application, or the snapshot of a file system.
pub fn judge(plan: &Plan, state: &State, attempts: &[Attempt], found: &mut [DomainStatus]) {
    let mut tell = |domain: &Name, reason: &str| {
        for status in found.iter_mut().filter(|status| status.domain == *domain) {
            status.health = status.health.max(Health::Warning);
            status.reasons.push(reason.to_owned());
        }
    };
    for domain in &plan.domains {
        let name = &domain.name;
        let journal = match state.journal(name) {
            Ok(Some(journal)) => journal,
            Ok(None) => continue,
            Err(error) => {
                tell(name, &format!("what an earlier run has left to do cannot be read: {error}"));
                continue;
            }
        };
        // One that came to its end has recorded itself, also where it could not clean up.
        let has_ended =
            attempts.iter().any(|attempt| attempt.domain == *name && attempt.began == journal.began);
        if !has_ended && !is_at_work(&state.lock_own(name)) {
            let began = told(journal.began);
            let reason = format!(
                "the run that began {began} was killed: the next one (`strongroom run {name}`) ends what it has left at work and cleans up"
            );
            tell(name, &reason);
        }
    }
    let place = Place::new(state.folder());
    for drill in &plan.drills {
        let name = &drill.name;
        let journal = match place.journal(name) {
            Ok(Some(journal)) => journal,
            Ok(None) => continue,
            Err(error) => {
                let reason = format!("what the drill {name} has left cannot be read: {error}");
                drill.domains.iter().for_each(|domain| tell(domain, &reason));
                continue;
            }
        };
        if !is_at_work(&place.lock(name)) {
            let (began, scratch) = (told(journal.began), journal.scratch.display());
            let has_ended = |record: &DrillRecord| record.drill == *name && record.began == journal.began;
            if place.records().is_ok_and(|records| records.iter().any(has_ended)) {
                let reason = format!(
                    "the drill {name} that began {began} could not remove what it has left outside of {scratch}: the next one \
                     (`strongroom drill {name}`) tries again"
                );
                drill.domains.iter().for_each(|domain| tell(domain, &reason));
                continue;
            }
            let reason = format!(
                "the drill {name} from {} that began {began} was killed, so it could not be verified: what it restored is in {scratch} \
                 until the next one (`strongroom drill {name}`) ends what it has started and cleans up",
                journal.repository
            );
            drill.domains.iter().for_each(|domain| tell(domain, &reason));
        }
    }
}

/// Whoever is at work has it locked.
fn is_at_work(lock: &io::Result<Option<Lock>>) -> bool {
    matches!(lock, Ok(None))
}

fn told(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::place;
    use crate::plan::load::tests_support::plan;
    use crate::plan::types::Tier;
    use crate::run::state::{Journal, Outcome};
    use crate::status::status;
    use crate::testing::{name, now, snapshot};

    #[test]
    fn what_was_killed_is_told_of_unless_it_is_at_work_or_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        let plan = plan(
            "[[domain]]\nname = 'x'\npaths = ['/x']\n[[domain]]\nname = 'y'\npaths = ['/y']\n\
             [[drill]]\nname = 'd'\ndomains = ['y']\ntier = 'full'\n",
        );
        let (x, d) = (name("x"), name("d"));
        let attempt = |began| Attempt {
            domain: name("x"),
            began,
            ended: None,
            outcome: Outcome::Partial,
            message: None,
            at_work_since: None,
            repositories: std::collections::BTreeMap::new(),
        };
        let judged = |attempts: &[Attempt]| {
            let snapshots = [snapshot("x", 1), snapshot("y", 1)];
            let mut found = status(&plan, "box", &|_| Ok(&snapshots[..]), &[], &now());
            judge(&plan, &state, attempts, &mut found);
            found.into_iter().map(|one| (one.health, one.reasons.join("; "))).collect::<Vec<_>>()
        };
        let well = (Health::Ok, String::new());
        assert_eq!(judged(&[]), [well.clone(), well.clone()]);
        let began = now().timestamp();
        state.note(&x, &Journal::new(began, "mark")).expect("noted");
        let lock = state.lock(&x).expect("a lock").expect("free");
        assert_eq!(judged(&[])[0], well, "it is at work");
        drop(lock);
        assert_eq!(judged(&[attempt(began)])[0], well, "it has ended, and something is left to do");
        let [(health, reason), other] = &judged(&[attempt(Timestamp::UNIX_EPOCH)])[..] else { panic!("two") };
        assert_eq!((health, other), (&Health::Warning, &well));
        assert!(
            reason.contains("began 2026-11-28 12:00 UTC was killed") && reason.contains("strongroom run x"),
            "{reason}"
        );
        state.clear(&x).expect("cleared");

        let place = Place::new(state.folder());
        let scratch = folder.path().join("scratch/d");
        let journal = place::Journal {
            began,
            tier: Tier::Full,
            repository: name("a"),
            scratch: scratch.clone(),
            token: format!("leftover-{}", std::process::id()),
            cleanup: Vec::new(),
            env: Vec::new(),
        };
        place.begin(&d, &journal).expect("begun");
        let lock = place.lock(&d).expect("a lock").expect("free");
        assert_eq!(judged(&[])[1], well, "it is at work");
        drop(lock);
        let [first, (health, reason)] = &judged(&[])[..] else { panic!("two") };
        assert_eq!((first, health), (&well, &Health::Warning));
        let place_of_it = scratch.display().to_string();
        for said in [
            "the drill d from a",
            "was killed, so it could not be verified",
            &place_of_it,
            "strongroom drill d",
        ] {
            assert!(reason.contains(said), "{reason}");
        }
        let record = DrillRecord {
            drill: name("d"),
            tier: Tier::Full,
            repository: None,
            began,
            outcome: crate::drill::DrillOutcome::Unverified,
            reason: None,
            self_test: false,
            restored: Vec::new(),
            phases: Vec::new(),
            rto: None,
        };
        place.record(&record).expect("recorded");
        let [_, (health, reason)] = &judged(&[])[..] else { panic!("two") };
        assert_eq!(*health, Health::Warning);
        assert!(
            reason.contains("could not remove what it has left") && !reason.contains("was killed"),
            "{reason}"
        );
        place.clear(&d, &journal).expect("cleared");
        assert_eq!(judged(&[]), [well.clone(), well]);
        for file in ["x.journal", "drill.d.journal"] {
            std::fs::write(folder.path().join(file), "{").expect("written");
        }
        let unreadable = judged(&[]);
        let is_told = |(health, reason): &(Health, String)| {
            *health == Health::Warning && reason.contains("cannot be read")
        };
        assert!(unreadable.iter().all(is_told), "{unreadable:?}");
    }
}
