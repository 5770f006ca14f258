//! Snapshots that are not like those before them: most files gone, most bytes gone, or new content that nothing can compress, as
//! after somebody has encrypted it.
//!
//! Such a snapshot is kept like any other. But as long as nobody has looked at it, no older one of its domain is forgotten: they
//! may be all that is left. This host remembers why, and in all repositories the snapshots that were there before are held: so no other
//! host forgets them, nor this one after it has lost what it remembers.

use std::fs;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom::format::snapshot::{Snapshot, SnapshotSummary};
use strongroom::ids::SnapshotId;

use crate::plan::Plan;
use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::Runner;
use crate::run::report::DomainReport;
use crate::run::state::{State, write_whole};
use crate::run::vault::Vault;
use crate::status::timestamp;
use crate::words::count;

/// Snapshots that have to be there before anything can be unlike them.
const HISTORY_MIN: usize = 3;
/// Snapshots that are looked at, the newest.
const HISTORY_MAX: usize = 10;
/// Fewer files than this are no loss to speak of.
const FILES_MIN: u64 = 10;
/// Fewer bytes than this are no change to speak of.
const BYTES_MIN: u64 = 64 << 10;

/// What is known of the guard of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Why nothing is to be forgotten; nothing if that is allowed.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// When the snapshot was made that is unlike the others.
    pub since: Option<Timestamp>,
    /// What was before counts no more: somebody has looked at what was unlike it.
    pub baseline: Option<Timestamp>,
    /// How much was left of new bytes when they were stored, in hundredths, the last time that there were some: the snapshot
    /// that had them may have been forgotten.
    pub density: Option<u64>,
}

impl Guard {
    /// One that cannot be read: an earlier snapshot may have been unlike those before.
    pub fn unreadable(error: &io::Error) -> Self {
        Self {
            reasons: vec![format!("there may have been none, but that cannot be read: {error}")],
            ..Self::default()
        }
    }

    /// Why nothing of a domain is forgotten, and what to do about it; nothing where that is allowed.
    pub fn advice(&self, domain: &Name) -> Option<String> {
        (!self.reasons.is_empty()).then(|| {
            format!(
                "nothing is forgotten until `strongroom run --acknowledge {domain}`: an earlier snapshot was unlike those before: {}",
                self.reasons.join("; ")
            )
        })
    }
}

/// The word by which holds of guards begin.
const HELD: &str = "anomaly of";
/// What is between the reasons in a hold and what to do about it.
const UNTIL: &str = "; held until";

/// Why the snapshots are held that were there before one that is unlike them.
fn hold(domain: &Name, host: &str, since: Timestamp, reasons: &[String]) -> String {
    let reasons = reasons.join("; ");
    format!("{HELD} {domain} of {host} at {since}: {reasons}{UNTIL} `strongroom run --acknowledge {domain}`")
}

/// The guard that a hold tells of; none where it was made for another reason.
pub(super) fn of_hold(domain: &Name, host: &str, reason: &str) -> Option<Guard> {
    let rest = reason.strip_prefix(&format!("{HELD} {domain} of {host} at "))?;
    let (since, rest) = rest.split_once(": ")?;
    let reasons = rest.split_once(UNTIL).map_or(rest, |(reasons, _)| reasons);
    let since = Some(since.parse().ok()?);
    Some(Guard { reasons: vec![reasons.to_owned()], since, ..Guard::default() })
}

/// Guards of a plan's domains, as this host and the repositories have them.
pub struct Guards<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The host that snapshots say they are from.
    pub host: &'a str,
    /// The repositories.
    pub vault: &'a dyn Vault,
}

impl Guards<'_> {
    /// Holds of a domain's guards in a repository.
    fn holds(&self, domain: &Domain, repo: &Name) -> Vec<(SnapshotId, String, Guard)> {
        let held = self.vault.held(repo).unwrap_or_default().into_iter();
        held.filter_map(|(id, reason)| {
            let guard = of_hold(&domain.name, self.host, &reason)?;
            Some((id, reason, guard))
        })
        .collect()
    }

    /// The guard that is known: what this host does not remember, the repositories may tell. One that cannot be asked says nothing.
    pub fn known(&self, domain: &Domain, own: Guard) -> Guard {
        if !own.reasons.is_empty() {
            return own;
        }
        let repos = self.plan.repositories(domain).into_iter();
        let told = repos.flat_map(|repo| self.holds(domain, repo)).map(|(_, _, guard)| guard);
        let is_new = |guard: &Guard| own.baseline.is_none_or(|baseline| guard.since > Some(baseline));
        match told.filter(is_new).max_by_key(|guard| guard.since) {
            Some(Guard { reasons, since, .. }) => Guard { reasons, since, ..own },
            None => own,
        }
    }

    /// Holds what was there before the snapshot that nobody has looked at. Returns what could not be done.
    fn hold(&self, domain: &Domain, guard: &Guard) -> Vec<String> {
        let Some(since) = guard.since else { return Vec::new() };
        let reason = hold(&domain.name, self.host, since, &guard.reasons);
        let mut failed = Vec::new();
        for repo in self.plan.repositories(domain) {
            let (Ok(snapshots), Ok(held)) = (self.vault.snapshots(repo), self.vault.held(repo)) else {
                continue;
            };
            let is_before = |snapshot: &Snapshot| {
                snapshot.hostname == self.host
                    && snapshot.provenance.as_ref().is_some_and(|from| from.domain == domain.name.as_str())
                    && timestamp(snapshot).is_some_and(|time| time < since)
            };
            let before = snapshots.iter().filter(|(_, snapshot)| is_before(snapshot)).map(|(id, _)| *id);
            let free: Vec<_> = before.filter(|id| held.iter().all(|(other, _)| other != id)).collect();
            if free.is_empty() {
                continue;
            }
            match self.vault.hold(repo, &free, &reason) {
                Ok(()) => {}
                // Whoever cannot hold anything cannot forget anything either.
                Err(error) if error.code == "append-only" => {}
                Err(error) => failed.push(format!("{repo}: the snapshots before it cannot be held: {error}")),
            }
        }
        failed
    }

    /// Ends holds of guards that somebody has looked at, those until `last`, or all. Returns what could not be done.
    pub fn release(&self, domain: &Domain, last: Option<Timestamp>) -> Vec<String> {
        let mut failed = Vec::new();
        for repo in self.plan.repositories(domain) {
            if let (None, Err(error)) = (last, self.vault.held(repo)) {
                failed.push(format!(
                    "{repo}: whether snapshots are held cannot be found out, and the next run releases them: {error}"
                ));
            }
            let holds = self.holds(domain, repo).into_iter();
            let over = holds.filter(|(_, _, guard)| last.is_none_or(|last| guard.since <= Some(last)));
            let over: Vec<_> = over.map(|(id, reason, _)| (id, reason)).collect();
            if over.is_empty() {
                continue;
            }
            match self.vault.release(repo, &over, &format!("acknowledged: {}", domain.name)) {
                Ok(()) => {}
                Err(error) if error.code == "append-only" => {}
                Err(error) => failed.push(format!(
                    "{repo}: the snapshots that were held cannot be released, and the next run tries again: {error}"
                )),
            }
        }
        failed
    }
}

impl State {
    /// The guard of a domain.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn guard(&self, domain: &Name) -> io::Result<Guard> {
        match fs::read(self.path(&format!("{domain}.guard"))) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Guard::default()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn keep_guard(&self, domain: &Name, guard: &Guard) -> io::Result<()> {
        write_whole(&self.path(&format!("{domain}.guard")), &serde_json::to_vec(guard)?)
    }

    /// Remembers what is known beside what this host has remembered so far. What cannot be read is left as it is.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn adopt(&self, domain: &Name, known: impl FnOnce(Guard) -> Guard) -> io::Result<()> {
        let Ok(own) = self.guard(domain) else { return Ok(()) };
        let known = known(own.clone());
        if known == own { Ok(()) } else { self.keep_guard(domain, &known) }
    }

    /// Takes note that somebody has looked at what was unlike the snapshots before; returns what it was. None where a run of the
    /// domain is at work: what that finds is not what anybody has looked at.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn acknowledge(&self, domain: &Name) -> io::Result<Option<Acknowledged>> {
        let Some(_lock) = self.lock(domain)? else { return Ok(None) };
        let guard = match self.guard(domain) {
            Ok(guard) => guard,
            Err(error) => {
                // All earlier snapshots count again: at worst somebody has to look once more.
                self.keep_guard(domain, &Guard::default())?;
                let lost = format!(
                    "what it was could not be read ({error}) and is lost: why nothing was forgotten and since when, and which \
                     snapshots count no more: new ones are compared with all that are there"
                );
                return Ok(Some(Acknowledged { reasons: Vec::new(), lost: Some(lost) }));
            }
        };
        if !guard.reasons.is_empty() {
            let baseline = guard.since.or(guard.baseline);
            // What could be compressed before need not be from now on.
            self.keep_guard(domain, &Guard { baseline, ..Guard::default() })?;
        }
        Ok(Some(Acknowledged { reasons: guard.reasons, lost: None }))
    }
}

/// What somebody has looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Why nothing was forgotten; nothing if that was allowed, or is not known.
    pub reasons: Vec<String>,
    /// What is not known any more, where it could not be read.
    pub lost: Option<String>,
}

impl Acknowledged {
    /// Whether there was something to acknowledge.
    pub const fn is_something(&self) -> bool {
        !self.reasons.is_empty() || self.lost.is_some()
    }
}

impl Runner<'_> {
    /// Compares new snapshots with those before them; where one is unlike them, or nobody has looked at an earlier one that was,
    /// nothing is forgotten.
    pub(super) fn watch(&self, domain: &Domain, began: Timestamp, report: &mut DomainReport) {
        let guards = Guards { plan: self.plan, host: &self.host, vault: self.vault };
        let guard = match self.state.guard(&domain.name) {
            Ok(own) => self.remembered(domain, own, &guards, report),
            Err(error) => {
                // It may be such a one.
                report.is_guarded = true;
                return report.warn(Guard::unreadable(&error).advice(&domain.name).unwrap_or_default());
            }
        };
        let found = match self.plan.objectives(domain).anomaly_guard {
            true => self.anomalies(domain, &guard, report),
            false => Vec::new(),
        };
        let summaries = report.repositories.iter().filter_map(|repo| Some(&repo.report.as_ref()?.summary));
        let density = summaries.filter_map(density).min().filter(|_| found.is_empty());
        report.is_guarded |= !guard.reasons.is_empty();
        if !found.is_empty() {
            self.freeze(domain, &guard, began, found, report);
        } else if let Some(advice) = guard.advice(&domain.name) {
            report.warn(advice);
            // One that could not be asked before, and copies that came later.
            guards.hold(domain, &guard).iter().for_each(|failed| report.warn(failed));
        } else if density.is_some() && density != guard.density {
            let guard = Guard { density, ..guard };
            if let Err(error) = self.state.keep_guard(&domain.name, &guard) {
                report.warn(format!("cannot write to the state directory: {error}"));
            }
        }
    }

    /// What this host remembers, with what the repositories tell of a guard that it does not know of.
    fn remembered(
        &self,
        domain: &Domain,
        own: Guard,
        guards: &Guards<'_>,
        report: &mut DomainReport,
    ) -> Guard {
        let known = guards.known(domain, own);
        if let Err(error) = self.state.adopt(&domain.name, |_| known.clone()) {
            report.warn(format!("cannot write to the state directory: {error}"));
        }
        if let (true, Some(baseline)) = (known.reasons.is_empty(), known.baseline) {
            // In a repository that could not be asked when somebody had looked.
            guards.release(domain, Some(baseline)).iter().for_each(|failed| report.warn(failed));
        }
        known
    }

    /// The same with what a run has made that was killed before it got to this. Nobody else would ever look at it.
    pub(super) fn watch_killed(&self, domain: &Domain, began: Timestamp, report: &mut DomainReport) {
        // A guard that cannot be read is told of by this run itself.
        let Ok(guard) = self.state.guard(&domain.name) else { return };
        if !self.plan.objectives(domain).anomaly_guard {
            return;
        }
        let is_recent = |snapshot: &Snapshot| timestamp(snapshot).is_some_and(|time| time >= began);
        let found = self.plan.repositories(domain).into_iter().find_map(|repo| {
            let snapshots = self.vault.snapshots(repo).ok()?;
            let own: Vec<_> = snapshots.iter().filter(|(_, one)| self.is_of(domain, &guard, one)).collect();
            let new = own.iter().enumerate().filter(|(_, (_, snapshot))| is_recent(snapshot));
            let mut found = new.map(|(at, (_, snapshot))| {
                let before = own[..at].iter().map(|(_, before)| &before.summary).collect();
                unlike_before(repo, before, &guard, &snapshot.summary)
            });
            found.find(|found| !found.is_empty())
        });
        if let Some(found) = found {
            self.freeze(domain, &guard, began, found, report);
        }
    }

    /// Lets nothing be forgotten until somebody has looked at a snapshot that was made then.
    fn freeze(
        &self,
        domain: &Domain,
        guard: &Guard,
        since: Timestamp,
        found: Vec<String>,
        report: &mut DomainReport,
    ) {
        let guard = Guard { reasons: found.clone(), since: Some(since), ..*guard };
        if let Err(error) = self.state.keep_guard(&domain.name, &guard) {
            report.warn(format!("cannot write to the state directory: {error}"));
        }
        report.warn(format!("unlike the snapshots before: {}", found.join("; ")));
        let guards = Guards { plan: self.plan, host: &self.host, vault: self.vault };
        guards.hold(domain, &guard).iter().for_each(|failed| report.warn(failed));
        report.is_guarded = true;
        report.anomalies.extend(found);
    }

    fn anomalies(&self, domain: &Domain, guard: &Guard, report: &DomainReport) -> Vec<String> {
        for repo in &report.repositories {
            let (Some(made), Some(done)) = (repo.snapshot(), &repo.report) else { continue };
            let Ok(own) = self.vault.snapshots(&repo.repo) else { continue };
            let time = own.iter().find(|(id, _)| *id == made).map(|(_, snapshot)| snapshot.time);
            let counted = |snapshots: Vec<(SnapshotId, Snapshot)>, is_own: bool| -> Vec<SnapshotSummary> {
                // A copy of the new one has another id, and its time.
                let is_new = |id: &SnapshotId, one: &Snapshot| match is_own {
                    true => *id == made,
                    false => Some(one.time) == time,
                };
                let before = snapshots
                    .into_iter()
                    .filter(|(id, one)| !is_new(id, one) && self.is_of(domain, guard, one));
                before.map(|(_, snapshot)| snapshot.summary).collect()
            };
            let mut history = counted(own, true);
            // A repository that was made anew knows nothing yet.
            let others = self.plan.repositories(domain).into_iter().filter(|other| **other != repo.repo);
            for other in others {
                if history.len() >= HISTORY_MIN {
                    break;
                }
                let Ok(theirs) = self.vault.snapshots(other) else { continue };
                let theirs = counted(theirs, false);
                if theirs.len() > history.len() {
                    history = theirs;
                }
            }
            let found = unlike_before(&repo.repo, history.iter().collect(), guard, &done.summary);
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// Whether it is a complete snapshot of a domain, and counts.
    fn is_of(&self, domain: &Domain, guard: &Guard, snapshot: &Snapshot) -> bool {
        let from = snapshot.provenance.as_ref();
        !snapshot.partial
            && snapshot.hostname == self.host
            && from.is_some_and(|from| from.domain == domain.name.as_str())
            && guard.baseline.is_none_or(|baseline| timestamp(snapshot).is_some_and(|time| time >= baseline))
    }
}

/// The same in a repository, of which only the newest are looked at.
fn unlike_before(
    repo: &Name,
    mut history: Vec<&SnapshotSummary>,
    guard: &Guard,
    new: &SnapshotSummary,
) -> Vec<String> {
    history.drain(..history.len().saturating_sub(HISTORY_MAX));
    let found = unlike(&history, guard.density, new);
    found.into_iter().map(|reason| format!("{repo}: {reason}")).collect()
}

/// What of a snapshot is far from all that was before, which is in its order. `dense` is how much was left of new bytes once.
fn unlike(history: &[&SnapshotSummary], dense: Option<u64>, new: &SnapshotSummary) -> Vec<String> {
    let Some(last) = history.last().filter(|_| history.len() >= HISTORY_MIN) else { return Vec::new() };
    let mut found = Vec::new();
    let usual_files = median(history.iter().map(|summary| summary.files));
    if new.files < usual_files / 2 && usual_files - new.files >= FILES_MIN {
        found.push(format!("{}, where there usually are {usual_files}", count(new.files, "file")));
    }
    let usual_bytes = median(history.iter().map(|summary| summary.bytes));
    if new.bytes < usual_bytes / 2 && usual_bytes - new.bytes >= BYTES_MIN {
        found.push(format!("{}, where there usually are {usual_bytes}", count(new.bytes, "byte")));
    }
    let deleted = deleted(last, new);
    let most = history.windows(2).map(|pair| self::deleted(pair[0], pair[1])).max().unwrap_or(0);
    if deleted >= FILES_MIN && deleted > last.files / 4 && deleted > 3 * most {
        found.push(format!("{deleted} of {} files are gone, and never more than {most} before", last.files));
    }
    let usual = history.iter().filter_map(|summary| density(summary)).chain(dense).min();
    if let (Some(density), Some(usual)) = (density(new), usual)
        && new.bytes_added > new.bytes / 5
        && density >= 95
        && usual <= 80
    {
        found.push(format!(
            "{} new bytes that cannot be compressed ({density}% is left of them, where {usual}% was): they may be encrypted",
            new.bytes_added
        ));
    }
    found
}

/// Files that are in one snapshot and not in the next.
fn deleted(before: &SnapshotSummary, after: &SnapshotSummary) -> u64 {
    (before.files + after.files_new).saturating_sub(after.files)
}

/// How much is left of new bytes when they are stored, in hundredths; of few bytes nothing can be said.
fn density(summary: &SnapshotSummary) -> Option<u64> {
    let percent = u128::from(summary.bytes_stored) * 100 / u128::from(summary.bytes_added.max(1));
    (summary.bytes_added >= BYTES_MIN).then(|| u64::try_from(percent).unwrap_or(u64::MAX))
}

fn median(numbers: impl Iterator<Item = u64>) -> u64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(files: u64, new: u64, bytes: u64, (added, stored): (u64, u64)) -> SnapshotSummary {
        SnapshotSummary {
            files,
            files_new: new,
            bytes,
            bytes_added: added,
            bytes_stored: stored,
            ..SnapshotSummary::default()
        }
    }

    /// What is found of the last one after the others.
    fn found(all: &[SnapshotSummary]) -> Vec<&'static str> {
        let (new, before) = all.split_last().expect("some");
        let words = unlike(&before.iter().collect::<Vec<_>>(), None, new);
        let known = ["files, where", "bytes, where", "files are gone", "encrypted"];
        words.iter().map(|word| *known.iter().find(|known| word.contains(**known)).expect("known")).collect()
    }

    const MB: u64 = 1 << 20;

    #[test]
    fn what_is_far_from_all_before_is_found_and_what_is_usual_is_not() {
        let first = || summary(1000, 1000, 100 * MB, (100 * MB, 50 * MB));
        let day = || summary(1002, 5, 101 * MB, (MB, MB / 2));
        let usual = [first(), day(), day(), day()];
        let after = |new: SnapshotSummary| found(&[&usual[..], &[new]].concat());
        assert_eq!(after(day()), [] as [&str; 0]);
        assert_eq!(after(summary(600, 5, 70 * MB, (MB, MB / 2))), ["files are gone"]);
        assert_eq!(
            after(summary(100, 0, 10 * MB, (0, 0))),
            ["files, where", "bytes, where", "files are gone"]
        );
        // Everything is there, under other names and encrypted.
        assert_eq!(
            after(summary(1002, 1002, 101 * MB, (101 * MB, 101 * MB))),
            ["files are gone", "encrypted"]
        );
        assert_eq!(
            after(summary(1002, 0, 101 * MB, (101 * MB, 101 * MB))),
            ["encrypted"],
            "under their own names"
        );
        assert_eq!(
            after(summary(2000, 998, 200 * MB, (99 * MB, 60 * MB))),
            [] as [&str; 0],
            "more is no loss"
        );
        assert_eq!(after(summary(1002, 10, 110 * MB, (9 * MB, 9 * MB))), [] as [&str; 0], "some photographs");

        assert_eq!(
            found(&[first(), day(), summary(1, 0, 1, (0, 0))]),
            [] as [&str; 0],
            "too little is known"
        );
        let dense = summary(1000, 1000, 100 * MB, (100 * MB, 100 * MB));
        let media = [dense.clone(), day(), day()].map(|mut one| {
            one.bytes_stored = one.bytes_added;
            one
        });
        let dense = SnapshotSummary { files_new: 0, ..dense };
        assert_eq!(
            found(&[&media[..], &[dense]].concat()),
            ["files are gone"; 0],
            "it never could be compressed"
        );
        let all =
            [day(), day(), day()].map(|one| SnapshotSummary { bytes_added: 100, bytes_stored: 90, ..one });
        let encrypted = summary(1002, 0, 101 * MB, (101 * MB, 101 * MB));
        let known = |dense| unlike(&all.iter().collect::<Vec<_>>(), dense, &encrypted).len();
        assert_eq!(
            [known(None), known(Some(50)), known(Some(99))],
            [0, 1, 0],
            "what was forgotten is remembered"
        );
        let tiny = || summary(3, 1, 100, (100, 90));
        assert_eq!(
            found(&[tiny(), tiny(), tiny(), summary(1, 0, 10, (10, 10))]),
            [] as [&str; 0],
            "too little"
        );
        // Queues are emptied each time.
        let queue = || summary(100, 100, MB, (MB, MB / 2));
        assert_eq!(found(&[queue(), queue(), queue(), summary(90, 90, MB, (MB, MB / 2))]), [] as [&str; 0]);
    }
}
