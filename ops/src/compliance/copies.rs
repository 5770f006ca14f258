//! What repositories have of a domain, as far as anybody can rely on it.

use std::collections::BTreeSet;

use jiff::{Timestamp, Zoned};
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::compliance::Evidence;
use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::status::{is_to_come, timestamp};
use crate::words::count;

/// What a repository has of a domain: the newest snapshot that lacks nothing, and how many complete ones there are.
pub(super) enum Copy<'e> {
    Some { id: SnapshotId, newest: &'e Snapshot, time: Timestamp, count: usize },
    None { count: usize },
    Unknown,
}

impl Copy<'_> {
    /// Whether both are of one repository, under two names: a snapshot that was copied has another id there.
    pub fn is_that_of(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Some { id, .. }, Self::Some { id: other, .. }) if id == other)
    }
}

/// Why a snapshot is none to rely on, if it is none.
fn flaw(snapshot: &Snapshot, now: &Zoned) -> Option<String> {
    let errors = snapshot.summary.errors;
    let is_ahead = timestamp(snapshot).is_none_or(|time| is_to_come(time, now));
    match (errors, is_ahead) {
        (0, false) => None,
        (0, true) => Some("says that it was made in the future".into()),
        _ => Some(format!("lacks {} that could not be read", count(errors, "entry"))),
    }
}

/// What each repository of a domain has, and why some of it counts for less than it seems to.
pub(super) fn of<'j, 'f>(
    plan: &'j Plan,
    evidence: &Evidence<'_, 'f>,
    domain: &'j Domain,
) -> (Vec<(&'j Name, Copy<'f>)>, Vec<String>) {
    let mut flaws = Vec::new();
    let mut copy = |repo: &Name| {
        let Ok(snapshots) = (evidence.snapshots)(repo) else { return Copy::Unknown };
        let own = complete(snapshots, evidence.host, &domain.name);
        let count = own.clone().count();
        if let Some(flaw) = own.clone().next_back().and_then(|(_, newest)| flaw(newest, evidence.now)) {
            flaws.push(format!("the newest in {repo} {flaw}"));
        }
        let mut whole = own.rev().filter(|(_, snapshot)| flaw(snapshot, evidence.now).is_none());
        match whole.next().and_then(|(id, newest)| Some((*id, newest, timestamp(newest)?))) {
            Some((id, newest, time)) => Copy::Some { id, newest, time, count },
            None => Copy::None { count },
        }
    };
    let repos: BTreeSet<_> = plan.repositories(domain).into_iter().collect();
    let copies: Vec<_> = repos.into_iter().map(|repo| (repo, copy(repo))).collect();
    let twins = copies.iter().enumerate().filter_map(|(at, (repo, copy))| {
        let (other, _) = copies[..at].iter().find(|(_, other)| copy.is_that_of(other))?;
        Some(format!("{other} and {repo} are one repository"))
    });
    flaws.extend(twins);
    (copies, flaws)
}

/// Complete snapshots of a domain, in their order.
fn complete<'s, 'k>(
    snapshots: &'s [(SnapshotId, Snapshot)],
    host: &'k str,
    domain: &'k Name,
) -> impl DoubleEndedIterator<Item = &'s (SnapshotId, Snapshot)> + Clone {
    snapshots.iter().filter(move |(_, snapshot)| {
        let from = snapshot.provenance.as_ref();
        !snapshot.partial
            && snapshot.hostname == host
            && from.is_some_and(|from| from.domain == domain.as_str())
    })
}
