//! Whether the times of a group's snapshots can be gone by.

use std::collections::BTreeMap;

use crate::forget::Candidate;
use crate::format::tree::Timestamp;
use crate::ids::{RepositoryId, SnapshotId};

/// Clocks of two hosts may differ by this much without a word: one hour.
const FUTURE_SECONDS: i64 = 3600;

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
}

impl TimesError {
    /// The snapshot by which it was noticed.
    pub fn snapshot(&self) -> SnapshotId {
        match self {
            Self::Backwards { later, .. } => *later,
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
