//! What to forget for more room.

use crate::forget::policy::GroupBy;
use crate::forget::{self, Guards};
use crate::monitor::Monitor;
use crate::repo::Repository;
use crate::usage::{SnapshotUsage, UsageError, held, of_candidates};

/// Snapshots that can be forgotten to have more room.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The snapshots, the oldest ones of those that can go, in the order of commits. For [`Usage::last`](super::Usage::last), those that stay count as
    /// the latest ones.
    pub snapshots: Vec<SnapshotUsage>,
    /// Bytes that they give together.
    pub freed: u64,
    /// Whether forgetting as many at once has to be asked for, see [`Guards::allow_mass`].
    pub is_mass: bool,
}

/// What to forget for so many bytes: all that can go where they do not give as many. Held ones stay, and the last one of the
/// repository, and of each host and its paths the last complete one: [`forget`] takes none of these unless it is asked twice.
///
/// # Errors
/// As [`of_snapshots`](super::of_snapshots).
pub fn to_free(
    repository: &Repository,
    wanted: u64,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Proposal, UsageError> {
    let candidates = forget::candidates(repository)?;
    let mut staying = forget::last_of_groups(&candidates, GroupBy::default());
    staying.extend(held(&candidates));
    staying.extend(candidates.last().map(|last| last.id));
    let mut snapshots = of_candidates(repository, candidates, &staying, threads, monitor)?;
    let total = snapshots.len();
    snapshots.retain(|one| !staying.contains(&one.id));
    let mut freed = 0;
    let is_taken = |one: &&SnapshotUsage| {
        let is_wanted = freed < wanted;
        freed += if is_wanted { one.usage.last } else { 0 };
        is_wanted
    };
    let count = snapshots.iter().take_while(is_taken).count();
    snapshots.truncate(count);
    Ok(Proposal { snapshots, freed, is_mass: Guards::is_mass(count, total) })
}
