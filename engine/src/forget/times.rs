//! Whether the times of a group's snapshots can be gone by.

use std::collections::BTreeMap;

use crate::forget::policy::{Calendar, Policy, Reach};
use crate::forget::{Candidate, Verdict};
use crate::format::tree::Timestamp;
use crate::ids::{RepositoryId, SnapshotId};

/// Clocks of two hosts may differ by this much without a word: one hour.
const FUTURE_SECONDS: i64 = 3600;

/// A gap so many times longer than those before it tells rather of a clock that was ahead than of a host that was off.
const UNUSUAL: i128 = 10;

/// So many gaps are looked at to know what is usual: two backups in a row are soon made by hand.
const USUAL: usize = 3;

/// Rules that go by these times would keep the wrong snapshots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimesError {
    /// A clock was set back between two backups.
    #[error(
        "the times of snapshots run backwards: {later} was committed after {earlier}, but says that it was made earlier"
    )]
    Backwards {
        /// The one committed first.
        earlier: SnapshotId,
        /// Its time.
        earlier_time: Timestamp,
        /// The one committed after it.
        later: SnapshotId,
        /// Its time.
        later_time: Timestamp,
    },
    /// A snapshot of tomorrow.
    #[error("snapshot {snapshot} says that it was made in the future")]
    Future {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Its time.
        time: Timestamp,
        /// The time here.
        now: Timestamp,
    },
    /// So much time is said to lie between two snapshots that rules which count back from the newest one reach none of those before.
    #[error(
        "snapshot {later} says that it was made so long after {earlier} that the rules reach nothing before it, and far longer after it \
         than is usual: a clock may have been ahead"
    )]
    Jump {
        /// The last one before the gap.
        earlier: SnapshotId,
        /// Its time.
        earlier_time: Timestamp,
        /// The first one behind it.
        later: SnapshotId,
        /// Its time.
        later_time: Timestamp,
    },
}

impl TimesError {
    /// The snapshot by which it was noticed.
    pub fn snapshot(&self) -> SnapshotId {
        match self {
            Self::Backwards { later, .. } | Self::Jump { later, .. } => *later,
            Self::Future { snapshot, .. } => *snapshot,
        }
    }
}

/// Times that run against the order of commits were told by a clock that jumped. A copy keeps the time and the order of the
/// repository that it is from, and may be made at any time: what is compared is of one origin.
pub(super) fn check(members: &[Candidate], now: Timestamp) -> Result<(), TimesError> {
    let mut latest_of: BTreeMap<Option<RepositoryId>, &Candidate> = BTreeMap::new();
    for member in members.iter().filter(|member| !member.snapshot.partial) {
        let time = member.snapshot.time;
        if time.seconds > now.seconds.saturating_add(FUTURE_SECONDS) {
            return Err(TimesError::Future { snapshot: member.id, time, now });
        }
        // Of two backups at once the one that began later may be committed first.
        let end =
            i128::from(time.seconds) + i128::from(member.snapshot.summary.duration_ns / 1_000_000_000) + 1;
        let origin = member.snapshot.origin.map(|origin| origin.repository);
        let latest = latest_of.entry(origin).or_insert(member);
        if i128::from(latest.snapshot.time.seconds) > end {
            return Err(TimesError::Backwards {
                earlier: latest.id,
                earlier_time: latest.snapshot.time,
                later: member.id,
                later_time: time,
            });
        }
        if latest.snapshot.time < time {
            *latest = member;
        }
    }
    Ok(())
}

/// Where a clock is ahead here as well, nothing lies in the future, and rules that count back from the newest snapshot take all that were
/// made before the clock jumped. What is left of such a jump is a gap: longer than these rules reach, with something before it that
/// would go, and unlike the gaps before it, since whoever backs up once a month and keeps a week is right to see older ones go.
pub(super) fn check_gap(
    verdicts: &[Verdict],
    policy: &Policy,
    calendar: &dyn Calendar,
) -> Result<(), TimesError> {
    let mut complete: Vec<&Verdict> =
        verdicts.iter().filter(|verdict| !verdict.candidate.snapshot.partial).collect();
    complete.sort_by_key(|verdict| verdict.candidate.snapshot.time);
    let time = |at: usize| complete[at].candidate.snapshot.time;
    let spans = || {
        policy.rules.iter().filter_map(|rule| match &rule.reach {
            Reach::Within(span) => Some(span),
            _ => None,
        })
    };
    let Some(newest) = complete.len().checked_sub(1).map(time) else { return Ok(()) };
    let Some(from) = spans().map(|span| calendar.before(newest, span)).min() else { return Ok(()) };
    let behind = complete.partition_point(|verdict| verdict.candidate.snapshot.time < from);
    if complete[..behind].iter().all(|verdict| verdict.keep) {
        return Ok(());
    }
    let (earlier_time, later_time) = (time(behind - 1), time(behind));
    let gap = |at: usize| i128::from(time(at).seconds) - i128::from(time(at - 1).seconds);
    let usual = (1..behind).rev().take(USUAL).map(gap).max().unwrap_or(0);
    let is_reached = spans().any(|span| calendar.before(later_time, span) <= earlier_time);
    if is_reached || gap(behind) <= usual * UNUSUAL {
        return Ok(());
    }
    let id = |at: usize| complete[at].candidate.id;
    Err(TimesError::Jump { earlier: id(behind - 1), earlier_time, later: id(behind), later_time })
}
