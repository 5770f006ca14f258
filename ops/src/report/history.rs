//! What was, day by day: whether each domain was fresh enough, and how it grew.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::state::{Attempt, RepoAttempt};
use crate::status::{Facts, timestamp};

/// Days of the calendar.
pub const DAYS: i32 = 42;

/// How a day was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    /// At its end the newest snapshot was as fresh as it has to be.
    Met,
    /// It was too old.
    Missed,
    /// Nothing is known of a time before it.
    Unknown,
}

/// The last days of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// The domain.
    pub domain: Name,
    /// Each day, the last one is today.
    pub days: Vec<(Date, Day)>,
}

/// Sizes of a domain's snapshots, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The domain.
    pub domain: Name,
    /// When, and how many bytes.
    pub sizes: Vec<(Timestamp, u64)>,
}

/// The calendars of all domains that have a recovery point objective. Snapshots that were forgotten are known by the record of
/// attempts on this host.
pub fn calendars(
    plan: &Plan,
    host: &str,
    facts: &Facts<'_>,
    attempts: &[Attempt],
    now: &Zoned,
) -> Vec<Calendar> {
    let calendar = |domain: &Domain| {
        let objectives = plan.objectives(domain);
        let limit = objectives.rpo?.as_secs() + objectives.rpo_grace.as_secs();
        let repos = plan.repositories(domain);
        let stored = repos.into_iter().filter_map(|repo| facts(repo).ok()).flatten();
        let stored = stored
            .filter(|(_, snapshot)| is_of(snapshot, host, &domain.name))
            .filter_map(|(_, one)| timestamp(one));
        let attempted = attempts.iter().filter(|attempt| {
            attempt.domain == domain.name && attempt.repositories.values().any(RepoAttempt::is_made)
        });
        let mut times: Vec<_> = stored.chain(attempted.map(|attempt| attempt.began)).collect();
        times.sort_unstable();
        let days = (0..DAYS).rev().filter_map(|back| {
            let date = now.date().checked_sub(back.days()).ok()?;
            let end = end_of(date, now)?;
            Some((date, day(&times, end, limit)))
        });
        Some(Calendar { domain: domain.name.clone(), days: days.collect() })
    };
    plan.domains.iter().filter_map(calendar).collect()
}

/// The end of a day, or the present if that is not yet.
fn end_of(date: Date, now: &Zoned) -> Option<Timestamp> {
    let zone: TimeZone = now.time_zone().clone();
    let next = date.checked_add(1.day()).ok()?.to_zoned(zone).ok()?;
    Some(next.timestamp().min(now.timestamp()))
}

fn day(times: &[Timestamp], end: Timestamp, limit: u64) -> Day {
    match times[..times.partition_point(|time| *time <= end)].last() {
        None => Day::Unknown,
        Some(newest) => {
            let age = u64::try_from(end.duration_since(*newest).as_secs()).unwrap_or(0);
            if age <= limit { Day::Met } else { Day::Missed }
        }
    }
}

/// How each domain grew, in the first repository that has it.
pub fn growth(plan: &Plan, host: &str, facts: &Facts<'_>) -> Vec<Growth> {
    let sizes = |snapshots: &[(SnapshotId, Snapshot)], domain: &Name| -> Vec<_> {
        let own = snapshots.iter().filter(|(_, snapshot)| is_of(snapshot, host, domain));
        own.filter_map(|(_, snapshot)| Some((timestamp(snapshot)?, snapshot.summary.bytes))).collect()
    };
    let growth = |domain: &Domain| {
        let repos = plan.repositories(domain).into_iter();
        let mut known = repos.filter_map(|repo| Some(sizes(facts(repo).ok()?, &domain.name)));
        let sizes = known.find(|sizes| !sizes.is_empty())?;
        Some(Growth { domain: domain.name.clone(), sizes })
    };
    plan.domains.iter().filter_map(growth).collect()
}

fn is_of(snapshot: &Snapshot, host: &str, domain: &Name) -> bool {
    let is_of_domain = snapshot.provenance.as_ref().is_some_and(|from| from.domain == domain.as_str());
    is_of_domain && !snapshot.partial && snapshot.hostname == host
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::load::tests_support::plan;
    use crate::run::state::Outcome;
    use crate::testing::{NOW, snapshot};

    #[test]
    fn what_was_cut_short_is_no_recovery_point() {
        let plan = plan("[class.c]\nrpo = '24h'\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n");
        let now: Zoned = NOW.parse().expect("a time");
        let today = |outcome| {
            let of_repo = RepoAttempt { outcome, snapshot: Some("s".into()), message: None };
            let attempt = Attempt {
                domain: plan.domains[0].name.clone(),
                began: now.timestamp(),
                ended: None,
                outcome,
                message: None,
                at_work_since: None,
                repositories: [(plan.repos.keys().next().expect("one").clone(), of_repo)].into(),
            };
            calendars(&plan, "box", &|_| Ok(&[]), &[attempt], &now)[0].days[41].1
        };
        assert_eq!(
            [Outcome::Ok, Outcome::Partial, Outcome::Failed].map(today),
            [Day::Met, Day::Met, Day::Unknown]
        );
    }

    #[test]
    fn days_are_judged_by_their_ends_and_what_was_before_is_not_known() {
        let plan = plan(
            "[class.c]\nrpo = '24h'\n[[domain]]\nname = 'x'\nclass = 'c'\npaths = ['/x']\n[[domain]]\nname = 'y'\npaths = ['/y']\n",
        );
        let now: Zoned = NOW.parse().expect("a time");
        // Of today's noon, and of the nights three and four days ago.
        let snapshots = [snapshot("x", 96), snapshot("x", 80), snapshot("x", 1)];
        let facts = |_: &Name| Ok(snapshots.as_slice());
        let found = calendars(&plan, "box", &facts, &[], &now);
        assert_eq!(found.len(), 1, "the other one has no RPO");
        let days: Vec<_> = found[0].days.iter().map(|(_, day)| *day).collect();
        assert_eq!(days.len(), 42);
        assert_eq!(days[36..], [Day::Unknown, Day::Met, Day::Met, Day::Missed, Day::Missed, Day::Met]);
        assert_eq!(found[0].days[41].0, now.date());
        let grown = growth(&plan, "box", &facts);
        assert_eq!((grown.len(), grown[0].sizes.len()), (1, 3));
        let none = |_: &Name| Err("down".to_owned());
        assert_eq!(growth(&plan, "box", &none), []);
        assert!(
            calendars(&plan, "box", &none, &[], &now)[0].days.iter().all(|(_, day)| *day == Day::Unknown)
        );
    }
}
