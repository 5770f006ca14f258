//! Forget: which snapshots are no longer wanted, decided by a policy or by name, with a reason for each.
//!
//! - [`policy`]: what a policy can say
//! - [`decide`](decide()): the pure decision
//! - [`TimesError`]: why a group's times cannot be gone by
//! - [`hold`], [`release`]: snapshots that must not be forgotten
//!
//! Forgetting is one commit. It frees no space: what only forgotten snapshots need is for `prune` to give back.
//! The decision is made anew for each try to publish it, so it always fits the snapshots that there are.

mod decide;
pub mod policy;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod tests;
mod times;

pub(crate) use decide::last_of_groups;
pub use decide::{Candidate, Group, GroupKey, Verdict, Wish, decide};
pub use times::TimesError;

use crate::forget::policy::{Calendar, GroupBy, Reason};
use crate::format::commit::Change;
use crate::format::snapshot::Snapshot;
use crate::format::state::SnapshotEntry;
use crate::ids::SnapshotId;
use crate::log::{Fold, SnapshotRecords};
use crate::repo::{Repository, RepositoryError};
use crate::reserve::{self, Refill, Spent};

/// What has to be asked for twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guards {
    /// A group may be left without any snapshot.
    pub allow_empty: bool,
    /// A policy may leave a group without its newest complete snapshot.
    pub allow_newest: bool,
    /// More may go than [`Guards::MASS_COUNT`] snapshots that are more than half of all.
    pub allow_mass: bool,
    /// Go by recorded times although they run backwards or lie in the future.
    pub trust_times: bool,
}

impl Guards {
    /// So many snapshots may always go at once.
    pub const MASS_COUNT: usize = 50;

    /// Whether so many of all snapshots go at once only where that was asked for.
    pub fn is_mass(forgotten: usize, total: usize) -> bool {
        forgotten > Self::MASS_COUNT && forgotten > total / 2
    }
}

/// Which snapshots are looked at; the others stay, whatever else is said. Empty lists choose all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Of any of these hosts.
    pub hosts: Vec<String>,
    /// With all tags of any of these lists.
    pub tags: Vec<Vec<String>>,
    /// With all of these paths.
    pub paths: Vec<Vec<u8>>,
    /// Of any of these domains of a plan.
    pub domains: Vec<String>,
}

impl Selection {
    /// Whether the snapshot is one of those to look at.
    pub fn chooses(&self, snapshot: &Snapshot) -> bool {
        let has_all = |tags: &Vec<String>| tags.iter().all(|tag| snapshot.tags.contains(tag));
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.hostname))
            && (self.domains.is_empty()
                || snapshot.provenance.as_ref().is_some_and(|from| self.domains.contains(&from.domain)))
            && (self.tags.is_empty() || self.tags.iter().any(has_all))
            && self
                .paths
                .iter()
                .all(|path| snapshot.paths.iter().any(|own| own.as_slice() == path.as_slice()))
    }
}

/// What is to be forgotten, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetOptions {
    /// Which snapshots are to go.
    pub wish: Wish,
    /// Which are looked at at all.
    pub selection: Selection,
    /// What makes snapshots one series.
    pub group_by: GroupBy,
    /// What was asked for twice.
    pub guards: Guards,
    /// Decide, but change nothing.
    pub dry_run: bool,
    /// Why, in the user's words; may be empty.
    pub reason: String,
}

/// What was decided and done. A caller looks at [`ForgetReport::refused`], too: those groups stay, whatever was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetReport {
    /// The groups with all verdicts.
    pub groups: Vec<Group>,
    /// Snapshots that were named and went although their records cannot be read. They are in no group.
    pub unread: Vec<SnapshotId>,
    /// The commit; absent after a dry run or where nothing was to be forgotten.
    pub commit: Option<u64>,
    /// What became of the reserve.
    pub reserve: Spent,
}

impl ForgetReport {
    /// Snapshots that stay, and that go.
    pub fn counts(&self) -> (usize, usize) {
        let verdicts = || self.groups.iter().flat_map(|group| &group.verdicts);
        let kept = verdicts().filter(|verdict| verdict.keep).count();
        (kept, verdicts().count() - kept + self.unread.len())
    }

    /// Groups that stay whole because their times cannot be trusted.
    pub fn refused(&self) -> impl Iterator<Item = (&GroupKey, &TimesError)> {
        self.groups.iter().filter_map(|group| Some((&group.key, group.refusal.as_ref()?)))
    }

    /// Whether there are groups, and all of them stay for that: nothing was decided.
    pub fn is_refused(&self) -> bool {
        !self.groups.is_empty() && self.refused().count() == self.groups.len()
    }
}

/// Nothing was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// Neither ids nor rules that keep anything.
    #[error("nothing says what to forget: name snapshots, or give rules that keep some")]
    NothingAsked,
    /// A held snapshot was named.
    #[error("snapshot {snapshot} is held: {reason}")]
    Held {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Why it is held.
        reason: String,
    },
    /// A group would lose all its snapshots.
    #[error("that would forget all {count} snapshots of a group ({group})")]
    EmptiesGroup {
        /// The group.
        group: String,
        /// How many snapshots it has.
        count: usize,
    },
    /// A policy would take the newest complete snapshot of a group, and leave older ones.
    #[error(
        "that would forget {snapshot}, the newest complete snapshot of a group ({group}), and keep older ones"
    )]
    Newest {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The group.
        group: String,
    },
    /// Too much at once.
    #[error("that would forget {forgotten} of {total} snapshots, more than half of them")]
    Mass {
        /// How many would go.
        forgotten: usize,
        /// Of how many.
        total: usize,
    },
    /// A snapshot was named that is not among those to look at.
    #[error("snapshot {snapshot} is named, but it is none of those that host, tag, domain and path choose")]
    NotChosen {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Decides what to forget, and forgets it in one commit. Where the storage has no room for that, the room that is kept in
/// [`reserve`] is used.
///
/// # Errors
/// [`ForgetError`]: nothing was forgotten.
pub fn run(
    repository: &Repository,
    options: &ForgetOptions,
    calendar: &dyn Calendar,
) -> Result<ForgetReport, ForgetError> {
    if options.dry_run {
        let (groups, unread) = decide_for(repository, &repository.fold(), options, calendar)?;
        return Ok(ForgetReport { groups, unread, commit: None, reserve: Spent::default() });
    }
    let (mut groups, mut unread) = (Vec::new(), Vec::new());
    let mut deed = |_| {
        repository.commit_or(&mut |fold| {
            (groups, unread) = decide_for(repository, fold, options, calendar)?;
            Ok::<_, ForgetError>(changes(&groups, &unread, options))
        })
    };
    let (commit, spent) = reserve::spend(repository, Refill::IfSpent, &mut deed);
    let commit = commit?;
    let report = ForgetReport { groups, unread, commit: None, reserve: spent };
    let has_gone = report.counts().1 > 0;
    Ok(ForgetReport { commit: has_gone.then_some(commit), ..report })
}

/// The verdicts, and snapshots that are named and go without one, since their records cannot be read. Others of that kind stay.
fn decide_for(
    repository: &Repository,
    fold: &Fold,
    options: &ForgetOptions,
    calendar: &dyn Calendar,
) -> Result<(Vec<Group>, Vec<SnapshotId>), ForgetError> {
    repository.require_all_commits(fold, "Nothing was forgotten")?;
    let SnapshotRecords { read, unread } = SnapshotRecords::of(fold, repository.keys());
    let mut candidates: Vec<_> = read.into_iter().map(candidate).collect();
    let mut going = Vec::new();
    if let Wish::Named(ids) = &options.wish {
        let is_left_out =
            |one: &&Candidate| ids.contains(&one.id) && !options.selection.chooses(&one.snapshot);
        if let Some(Candidate { id, .. }) = candidates.iter().find(is_left_out) {
            return Err(ForgetError::NotChosen { snapshot: *id });
        }
        let unread = unread.into_iter().map(|(entry, _)| entry);
        for entry in unread.filter(|entry| ids.contains(&entry.snapshot)) {
            let snapshot = entry.snapshot;
            match entry.hold.clone() {
                Some(reason) => return Err(ForgetError::Held { snapshot, reason }),
                None => going.push(snapshot),
            }
        }
    }
    candidates.retain(|candidate| options.selection.chooses(&candidate.snapshot));
    let now = (repository.environment().now)();
    let groups = decide(candidates, &options.wish, options.group_by, &options.guards, calendar, now)?;
    Ok((groups, going))
}

/// All live snapshots, in the order of [`Repository::snapshots`].
///
/// # Errors
/// Where the record of one cannot be read.
pub(crate) fn candidates(repository: &Repository) -> Result<Vec<Candidate>, RepositoryError> {
    let fold = repository.fold();
    let SnapshotRecords { read, unread } = SnapshotRecords::of(&fold, repository.keys());
    match unread.into_iter().next() {
        Some((_, error)) => Err(error.into()),
        None => Ok(read.into_iter().map(candidate).collect()),
    }
}

fn candidate((entry, snapshot): (&SnapshotEntry, Snapshot)) -> Candidate {
    let (hold, appender) = (entry.hold.clone(), snapshot.appender(entry.appender));
    Candidate { id: entry.snapshot, snapshot, hold, appender }
}

/// The changes that forget what goes, each with its reason for the audit trail.
fn changes(groups: &[Group], unread: &[SnapshotId], options: &ForgetOptions) -> Vec<Change> {
    let how = match &options.wish {
        Wish::Named(_) => String::new(),
        Wish::Policy(policy) => format!(" ({policy}; grouped by {})", options.group_by),
    };
    let why = if options.reason.is_empty() { String::new() } else { format!(": {}", options.reason) };
    let unread = unread.iter().map(|snapshot| {
        let reason = format!("{}, and its record cannot be read{why}", Reason::Named);
        Change::SnapshotForgotten { snapshot: *snapshot, reason }
    });
    let verdicts = groups.iter().flat_map(|group| &group.verdicts);
    let decided = verdicts.filter(|verdict| !verdict.keep).map(|verdict| {
        let reasons: Vec<_> = verdict.reasons.iter().map(ToString::to_string).collect();
        let reason = format!("{}{how}{why}", reasons.join(", "));
        Change::SnapshotForgotten { snapshot: verdict.candidate.id, reason }
    });
    decided.chain(unread).collect()
}

/// Holds a snapshot: nobody can forget it until it is released. Returns the commit.
///
/// # Errors
/// [`RepositoryError::NoSnapshot`] where it was forgotten meanwhile, or a failure of the storage.
pub fn hold(repository: &Repository, snapshot: SnapshotId, reason: &str) -> Result<u64, RepositoryError> {
    repository.commit(&mut |fold| match fold.snapshot(&snapshot) {
        Some(_) => Ok(vec![Change::SnapshotHeld { snapshot, reason: reason.to_owned() }]),
        None => Err(RepositoryError::NoSnapshot(snapshot.to_string())),
    })
}

/// Holds several snapshots for one reason, in one commit. Those that are held already, or are not there any more, are passed over.
///
/// # Errors
/// A failure of the storage.
pub fn hold_all(
    repository: &Repository,
    snapshots: &[SnapshotId],
    reason: &str,
) -> Result<(), RepositoryError> {
    repository.commit(&mut |fold| {
        let free = |id: &&SnapshotId| fold.snapshot(id).is_some_and(|entry| entry.hold.is_none());
        let held = |id: &SnapshotId| Change::SnapshotHeld { snapshot: *id, reason: reason.to_owned() };
        Ok(snapshots.iter().filter(free).map(held).collect())
    })?;
    Ok(())
}

/// Releases several snapshots for one reason, in one commit, each if it is held for the reason named beside it: somebody may hold it for
/// another one by now.
///
/// # Errors
/// A failure of the storage.
pub fn release_all(
    repository: &Repository,
    held: &[(SnapshotId, String)],
    reason: &str,
) -> Result<(), RepositoryError> {
    repository.commit(&mut |fold| {
        let is_so = |(id, why): &&(SnapshotId, String)| {
            fold.snapshot(id).is_some_and(|entry| entry.hold.as_ref() == Some(why))
        };
        let released = |(id, _): &(SnapshotId, String)| Change::SnapshotReleased {
            snapshot: *id,
            reason: reason.to_owned(),
        };
        Ok(held.iter().filter(is_so).map(released).collect())
    })?;
    Ok(())
}

/// Releases a held snapshot. Returns the commit, or none where it was not held.
///
/// # Errors
/// [`RepositoryError::NoSnapshot`] where it is not there, or a failure of the storage.
pub fn release(
    repository: &Repository,
    snapshot: SnapshotId,
    reason: &str,
) -> Result<Option<u64>, RepositoryError> {
    let mut was_held = false;
    let commit = repository.commit(&mut |fold| {
        let entry = fold.snapshot(&snapshot).ok_or(RepositoryError::NoSnapshot(snapshot.to_string()))?;
        was_held = entry.hold.is_some();
        Ok(match was_held {
            true => vec![Change::SnapshotReleased { snapshot, reason: reason.to_owned() }],
            false => Vec::new(),
        })
    })?;
    Ok(was_held.then_some(commit))
}
