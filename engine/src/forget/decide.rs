//! The pure part: snapshots and a policy in, verdicts with their reasons out.

use std::collections::{BTreeMap, BTreeSet};

use crate::forget::policy::{Calendar, GroupBy, Period, Policy, Reach, Reason, Rule};
use crate::forget::times::{self, TimesError};
use crate::forget::{ForgetError, Guards};
use crate::format::snapshot::Snapshot;
use crate::format::tree::Timestamp;
use crate::ids::{SnapshotId, WriterId};

/// A snapshot to decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: SnapshotId,
    /// Its record.
    pub snapshot: Snapshot,
    /// Why it must not be forgotten, if it is held.
    pub hold: Option<String>,
    /// The appender that added it, if one did.
    pub appender: Option<WriterId>,
}

/// Which snapshots are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// These.
    Named(Vec<SnapshotId>),
    /// Those that the policy does not keep.
    Policy(Policy),
}

/// What is decided about one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub candidate: Candidate,
    /// Whether it stays.
    pub keep: bool,
    /// Why: at least one reason.
    pub reasons: Vec<Reason>,
}

/// Snapshots that are thinned out together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What they have in common.
    pub key: GroupKey,
    /// Verdicts in the order in which the snapshots were committed.
    pub verdicts: Vec<Verdict>,
    /// The group gets no new snapshots any more: with this policy the rest of it stays for ever.
    pub is_stale: bool,
    /// Why the policy was not asked, and the whole group stays.
    pub refusal: Option<TimesError>,
}

/// What the snapshots of a group have in common; empty where that is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GroupKey {
    /// The host.
    pub host: Option<String>,
    /// The paths, sorted.
    pub paths: Option<BTreeSet<Vec<u8>>>,
    /// The tags, sorted.
    pub tags: Option<BTreeSet<String>>,
    /// The appender that added them, if one did, whatever is asked for: by what it says of itself alone it could crowd out
    /// snapshots of another host.
    pub appender: Option<WriterId>,
}

impl GroupKey {
    fn of(Candidate { snapshot, appender, .. }: &Candidate, by: GroupBy) -> Self {
        Self {
            appender: *appender,
            host: by.host.then(|| snapshot.hostname.clone()),
            paths: by.paths.then(|| snapshot.paths.iter().map(|path| path.to_vec()).collect()),
            tags: by.tags.then(|| snapshot.tags.iter().cloned().collect()),
        }
    }
}

impl std::fmt::Display for GroupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.host.as_ref().map(|host| format!("host {host}")));
        parts.extend(self.paths.as_ref().map(|paths| {
            let paths: Vec<_> = paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
            format!("paths {}", paths.join(", "))
        }));
        parts.extend(
            self.tags.as_ref().map(|tags| {
                format!("tags {}", tags.iter().map(String::as_str).collect::<Vec<_>>().join(","))
            }),
        );
        parts.extend(self.appender.map(|writer| format!("added by append-only writer {}", writer.short())));
        f.write_str(if parts.is_empty() { "all snapshots" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

/// Groups whose newest snapshot is older than this get no new ones, as far as anybody can tell: 30 days.
const STALE_SECONDS: i64 = 30 * 86_400;

/// Decides about `candidates`, which come in the order in which they were committed. `now` is used for two things only:
/// to refuse times that lie in the future, and to warn of groups that have become stale. A group whose times cannot be trusted
/// stays whole, and no other one is the worse for it.
///
/// # Errors
/// [`ForgetError`] where a guard forbids what is asked for.
pub fn decide(
    candidates: Vec<Candidate>,
    wish: &Wish,
    by: GroupBy,
    guards: &Guards,
    calendar: &dyn Calendar,
    now: Timestamp,
) -> Result<Vec<Group>, ForgetError> {
    match wish {
        Wish::Named(ids) if ids.is_empty() => return Err(ForgetError::NothingAsked),
        Wish::Policy(policy) if policy.is_empty() => return Err(ForgetError::NothingAsked),
        _ => {}
    }
    let total = candidates.len();
    let mut groups: BTreeMap<GroupKey, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        groups.entry(GroupKey::of(&candidate, by)).or_default().push(candidate);
    }
    let mut decided = Vec::with_capacity(groups.len());
    for (key, members) in groups {
        let newest = members.iter().map(|member| member.snapshot.time).max();
        let is_old = newest.is_some_and(|time| time.seconds < now.seconds.saturating_sub(STALE_SECONDS));
        let refusal = match wish {
            Wish::Policy(policy) if policy.reads_times() && !guards.trust_times => {
                times::check(&members, now).err()
            }
            _ => None,
        };
        let (verdicts, refusal) = match wish {
            Wish::Named(ids) => (named(members, ids)?, None),
            Wish::Policy(_) if refusal.is_some() => (kept_whole(members), refusal),
            Wish::Policy(policy) => {
                let verdicts = by_policy(members, policy, calendar);
                match times::check_gap(&verdicts, policy, calendar) {
                    Err(jump) if !guards.trust_times => (
                        kept_whole(verdicts.into_iter().map(|verdict| verdict.candidate).collect()),
                        Some(jump),
                    ),
                    _ => (verdicts, None),
                }
            }
        };
        let is_stale = matches!(wish, Wish::Policy(_))
            && refusal.is_none()
            && is_old
            && verdicts.iter().all(|verdict| verdict.keep);
        decided.push(Group { key, verdicts, is_stale, refusal });
    }
    check_guards(&decided, total, guards)?;
    if let Wish::Policy(policy) = wish
        && !guards.allow_newest
    {
        keep_newest(&decided, policy)?;
    }
    Ok(decided)
}

fn named(members: Vec<Candidate>, ids: &[SnapshotId]) -> Result<Vec<Verdict>, ForgetError> {
    let verdict = |candidate: Candidate| {
        let is_named = ids.contains(&candidate.id);
        match &candidate.hold {
            Some(reason) if is_named => {
                Err(ForgetError::Held { snapshot: candidate.id, reason: reason.clone() })
            }
            _ => {
                let reason = if is_named { Reason::Named } else { Reason::NotNamed };
                Ok(Verdict { candidate, keep: !is_named, reasons: vec![reason] })
            }
        }
    };
    members.into_iter().map(verdict).collect()
}

/// None of a group goes whose times cannot be trusted.
fn kept_whole(members: Vec<Candidate>) -> Vec<Verdict> {
    let kept = |candidate| Verdict { candidate, keep: true, reasons: vec![Reason::TimesNotTrusted] };
    members.into_iter().map(kept).collect()
}

fn by_policy(members: Vec<Candidate>, policy: &Policy, calendar: &dyn Calendar) -> Vec<Verdict> {
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); members.len()];
    for rule in &policy.rules {
        for (at, nth) in kept_by(rule, &members, calendar) {
            reasons[at].push(Reason::Rule { rule: *rule, nth });
        }
    }
    let unfinished = unfinished(&members);
    let verdict = |(at, (candidate, mut reasons)): (usize, (Candidate, Vec<Reason>))| {
        let snapshot = &candidate.snapshot;
        let tagged = |tags: &&Vec<String>| tags.iter().all(|tag| snapshot.tags.contains(tag));
        reasons.extend(policy.tags.iter().filter(tagged).map(|tags| Reason::Tagged(tags.clone())));
        reasons.extend(policy.ids.contains(&candidate.id).then_some(Reason::KeptById));
        reasons.extend(policy.drilled.contains(&candidate.id).then_some(Reason::Drilled));
        reasons.extend(candidate.hold.clone().map(Reason::Held));
        reasons.extend(unfinished.contains(&at).then_some(Reason::Unfinished));
        let keep = !reasons.is_empty();
        if !keep {
            reasons.push(if snapshot.partial { Reason::Superseded } else { Reason::NoRule });
        }
        Verdict { candidate, keep, reasons }
    };
    members.into_iter().zip(reasons).enumerate().map(verdict).collect()
}

/// Partial snapshots that the next backup goes on from: those after which none of their host and paths is complete. A
/// later one need not hold what they hold: its run may have been interrupted sooner.
fn unfinished(members: &[Candidate]) -> BTreeSet<usize> {
    let (mut complete, mut unfinished) = (BTreeSet::new(), BTreeSet::new());
    for (at, Candidate { snapshot, .. }) in members.iter().enumerate().rev() {
        let source = (&snapshot.hostname, &snapshot.paths);
        if !snapshot.partial {
            complete.insert(source);
        } else if !complete.contains(&source) {
            unfinished.insert(at);
        }
    }
    unfinished
}

/// What a rule keeps of a group, by index, each with the number of its period. Partial snapshots do not count.
fn kept_by(rule: &Rule, members: &[Candidate], calendar: &dyn Calendar) -> Vec<(usize, u64)> {
    let time = |at: &usize| members[*at].snapshot.time;
    let mut order: Vec<usize> = (0..members.len()).filter(|at| !members[*at].snapshot.partial).collect();
    if rule.reads_times() {
        order.sort_by_key(|at| (time(at), *at));
    }
    order.reverse();
    let Some(newest) = order.first().map(time) else { return Vec::new() };
    let limit = match rule.reach {
        Reach::Count(count) => count,
        Reach::Unlimited | Reach::Within(_) => u64::MAX,
    };
    let from = match &rule.reach {
        Reach::Within(span) => Some(calendar.before(newest, span)),
        _ => None,
    };
    let (mut kept, mut nth, mut last) = (Vec::new(), 0, None);
    for at in order {
        if from.is_some_and(|from| time(&at) < from) {
            break;
        }
        if rule.period != Period::Each {
            let key = calendar.civil(time(&at)).key(rule.period);
            if last.replace(key) == Some(key) {
                continue;
            }
        }
        if nth == limit {
            break;
        }
        nth += 1;
        kept.push((at, nth));
    }
    kept
}

fn check_guards(groups: &[Group], total: usize, guards: &Guards) -> Result<(), ForgetError> {
    let goes = |verdict: &&Verdict| !verdict.keep;
    let forgotten: usize = groups.iter().map(|group| group.verdicts.iter().filter(goes).count()).sum();
    if !guards.allow_empty {
        for group in groups.iter().filter(|group| group.verdicts.iter().any(|verdict| !verdict.keep)) {
            // What is left has to be of use: a partial snapshot is not, where there was a complete one.
            let had_complete = group.verdicts.iter().any(|verdict| !verdict.candidate.snapshot.partial);
            let is_of_use = |verdict: &Verdict| !(had_complete && verdict.candidate.snapshot.partial);
            if !group.verdicts.iter().any(|verdict| verdict.keep && is_of_use(verdict)) {
                let (group, count) = (group.key.to_string(), group.verdicts.len());
                return Err(ForgetError::EmptiesGroup { group, count });
            }
        }
    }
    if !guards.allow_mass && Guards::is_mass(forgotten, total) {
        return Err(ForgetError::Mass { forgotten, total });
    }
    Ok(())
}

/// A policy that keeps older snapshots than the newest complete one hardly is what was meant. Of a group of which nothing is left that
/// was asked already, and who names a snapshot means it.
fn keep_newest(groups: &[Group], policy: &Policy) -> Result<(), ForgetError> {
    for group in groups {
        let complete = group.verdicts.iter().filter(|verdict| !verdict.candidate.snapshot.partial);
        // What was made last is the newest where no rule asks a clock.
        let newest = complete.clone().enumerate().max_by_key(|(at, verdict)| {
            (policy.reads_times().then_some(verdict.candidate.snapshot.time), *at)
        });
        if let Some((_, newest)) = newest.filter(|(_, newest)| !newest.keep)
            && complete.clone().any(|verdict| verdict.keep)
        {
            return Err(ForgetError::Newest { snapshot: newest.candidate.id, group: group.key.to_string() });
        }
    }
    Ok(())
}

/// What is not forgotten unless a group may be left without any snapshot: of each group the last complete one, or the last one where
/// none is complete.
pub(crate) fn last_of_groups(candidates: &[Candidate], by: GroupBy) -> BTreeSet<SnapshotId> {
    let mut last: BTreeMap<GroupKey, &Candidate> = BTreeMap::new();
    for candidate in candidates {
        let last = last.entry(GroupKey::of(candidate, by)).or_insert(candidate);
        if last.snapshot.partial || !candidate.snapshot.partial {
            *last = candidate;
        }
    }
    last.into_values().map(|candidate| candidate.id).collect()
}
