//! Verification: repositories are read, a part at a time and what was read longest ago first, as often as the plan says.
//!
//! What was read when is kept in the repositories themselves: a host that was built anew forgets nothing, and several hosts
//! add to each other.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::plan::types::Control;
use crate::plan::values::{Lapse, Name, Share};
use crate::run::lock::Lock;
use crate::run::process::without_output;
use crate::run::state::State;
use crate::run::vault::VaultError;
use crate::status::{Health, rough};
use crate::words::{count, verb};

const RECORDS: &str = "verifications.jsonl";

/// How much of a repository is to be read how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// How often.
    pub every: Lapse,
    /// How much each time.
    pub read: Share,
}

/// What the domains of a plan demand of each repository that they go to: of several the strictest.
pub fn demands(plan: &Plan) -> BTreeMap<Name, Demand> {
    let mut found: BTreeMap<Name, Demand> = BTreeMap::new();
    for domain in &plan.domains {
        let Some(verify) = plan.objectives(domain).verify else { continue };
        for repo in plan.repositories(domain) {
            let demand =
                found.entry(repo.clone()).or_insert(Demand { every: verify.every, read: verify.read });
            demand.every = demand.every.min(verify.every);
            demand.read = demand.read.max(verify.read);
        }
    }
    found
}

/// What is known of the packs of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Packs there are.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the largest.
    pub largest: u64,
    /// Packs that were never read.
    pub packs_never_read: u64,
    /// Packs that were found damaged, and not intact since.
    pub packs_in_doubt: u64,
    /// When that pack was read whose last reading is the longest ago.
    pub oldest_read: Option<Timestamp>,
    /// When any pack was last read.
    pub last_read: Option<Timestamp>,
    /// When each pack was last read that ever was, and its bytes.
    pub read: Vec<(Timestamp, u64)>,
    /// When the oldest snapshot was begun.
    pub since: Option<Timestamp>,
    /// When each snapshot was begun, and the bytes that the repository grew by.
    pub stored: Vec<(Timestamp, u64)>,
}

impl Known {
    /// Whether so much was read within the last `every`: by bytes, since a single pack is a reading, too. What was stored
    /// since then need not have been read yet.
    pub fn has_read(&self, share: Share, every: Lapse, now: Timestamp) -> bool {
        let since = |list: &[(Timestamp, u64)]| -> u128 {
            let recent = list.iter().filter(|(time, _)| age(*time, now) <= every);
            recent.map(|(_, bytes)| u128::from(*bytes)).sum()
        };
        let there = u128::from(self.bytes).saturating_sub(since(&self.stored));
        since(&self.read) * 100 >= there * u128::from(share.percent())
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// What is damaged: the first of it, for people.
    pub damage: Option<String>,
    /// Why it could not be told whether all is well.
    pub doubt: Option<String>,
    /// Packs read in whole.
    pub packs_read: u64,
    /// Bytes read of packs.
    pub bytes_read: u64,
}

/// Repositories that can be verified.
pub trait Verifier {
    /// What is known of the packs.
    ///
    /// # Errors
    /// [`VaultError`].
    fn known(&self, repo: &Name) -> Result<Known, VaultError>;

    /// Checks the repository, and reads at most so many bytes of packs, but one pack at least; all where there is no budget.
    ///
    /// # Errors
    /// [`VaultError`]: it could not be checked.
    fn check(&self, repo: &Name, budget: Option<u64>) -> Result<Checked, VaultError>;
}

/// How a verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No damage was found.
    Ok,
    /// Whether there is damage could not be found out.
    Unverified,
    /// Damage was found.
    Damaged,
}

impl Verdict {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unverified => "unverified",
            Self::Damaged => "damaged",
        }
    }
}

/// One verification of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// The repository.
    pub repository: Name,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How.
    pub verdict: Verdict,
    /// Why, if it is not well.
    pub message: Option<String>,
    /// Packs read in whole.
    pub packs_read: u64,
    /// Bytes read of packs.
    pub bytes_read: u64,
}

impl State {
    /// As long as it lives, nobody else on this host verifies; `None` if somebody does.
    ///
    /// # Errors
    /// Where the lock cannot be made.
    pub fn verify_lock(&self) -> io::Result<Option<Lock>> {
        Ok(Lock::take(&self.path("verify-at-work"))?.mine())
    }

    /// Notes a verification.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn record_verification(&self, done: &Verification) -> io::Result<()> {
        let message = done.message.as_deref().map(without_output);
        self.append(RECORDS, &Verification { message, ..done.clone() })
    }

    /// All verifications that are remembered, in the order they ended.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn verifications(&self) -> io::Result<Vec<Verification>> {
        self.records(RECORDS)
    }
}

/// Bytes to read at most, so that the share is reached with whole packs.
fn budget(read: Share, known: &Known) -> Option<u64> {
    let share = (u128::from(known.bytes) * u128::from(read.percent())).div_ceil(100);
    let most = share + u128::from(known.largest.saturating_sub(1));
    (read.percent() < 100).then(|| u64::try_from(most).unwrap_or(u64::MAX))
}

/// Verifies a repository. The record is the caller's to keep.
pub fn verify(
    verifier: &dyn Verifier,
    repo: &Name,
    read: Share,
    now: &dyn Fn() -> Timestamp,
) -> Verification {
    let began = now();
    // Of what is not known, one pack is read, and the check says what is wrong.
    let budget = verifier.known(repo).map_or(Some(0), |known| budget(read, &known));
    let checked = verifier.check(repo, budget);
    let (verdict, message, read) = match checked {
        Err(error) => (Verdict::Unverified, Some(error.message), (0, 0)),
        Ok(Checked { damage, doubt, packs_read, bytes_read }) => {
            let verdict = match (&damage, &doubt) {
                (Some(_), _) => Verdict::Damaged,
                (None, Some(_)) => Verdict::Unverified,
                (None, None) => Verdict::Ok,
            };
            (verdict, damage.or(doubt), (packs_read, bytes_read))
        }
    };
    let repository = repo.clone();
    Verification { repository, began, ended: now(), verdict, message, packs_read: read.0, bytes_read: read.1 }
}

/// Why a repository has to be verified now, if it has to; `last` is how that ended last on this host.
pub fn due(
    demand: &Demand,
    known: &Result<Known, String>,
    last: Option<Verdict>,
    now: Timestamp,
) -> Option<String> {
    let known = match known {
        Ok(known) => known,
        Err(_) => return Some("the repository cannot be asked".into()),
    };
    if known.packs_in_doubt > 0 {
        let (packs, are) = (count(known.packs_in_doubt, "pack"), verb(known.packs_in_doubt, "is", "are"));
        return Some(format!("{packs} {are} in doubt"));
    }
    if let Some(last) = last.filter(|last| *last != Verdict::Ok) {
        return Some(format!("the last verification is {}", last.name()));
    }
    match known.last_read {
        _ if known.packs == 0 => None,
        None => Some("nothing of it was read yet".into()),
        Some(last) => {
            let age = age(last, now);
            if age >= demand.every {
                return Some(format!("last read {} ago, and it is to be every {}", rough(age), demand.every));
            }
            (!known.has_read(demand.read, demand.every, now)).then(|| too_little(demand.read, demand.every))
        }
    }
}

/// What is said where there was a reading, and not of as much as is wanted.
pub(crate) fn too_little(read: Share, every: Lapse) -> String {
    format!("less than {read} of it was read within {every}")
}

fn age(time: Timestamp, now: Timestamp) -> Lapse {
    Lapse::seconds(u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0))
}

/// How well a repository is verified.
#[derive(Debug, Clone, PartialEq)]
pub struct RepoStatus {
    /// The repository.
    pub repo: Name,
    /// What the plan demands.
    pub demand: Demand,
    /// How well that is met.
    pub health: Health,
    /// Why, if it is not.
    pub reasons: Vec<String>,
    /// What is known of its packs.
    pub known: Option<Known>,
    /// The last verification on this host.
    pub last: Option<Verification>,
}

/// How well each repository is verified of which the plan demands it, by name.
pub fn status(
    plan: &Plan,
    known: &dyn Fn(&Name) -> Result<Known, String>,
    verifications: &[Verification],
    now: &Zoned,
) -> Vec<RepoStatus> {
    let judge = |(repo, demand): (Name, Demand)| {
        let known = known(&repo);
        let last = verifications.iter().rev().find(|done| done.repository == repo).cloned();
        let mut found = RepoStatus {
            repo,
            demand,
            health: Health::Ok,
            reasons: Vec::new(),
            known: known.clone().ok(),
            last,
        };
        found.judge(known, is_excused(plan, &found.repo, now), now.timestamp());
        found
    };
    demands(plan).into_iter().map(judge).collect()
}

/// Whether all domains that demand it have an exception.
fn is_excused(plan: &Plan, repo: &Name, now: &Zoned) -> bool {
    let mut demanding = plan.domains.iter().filter(|domain| {
        plan.objectives(domain).verify.is_some() && plan.repositories(domain).contains(&repo)
    });
    demanding.all(|domain| plan.exception(Control::Verify, &domain.name, now.date()).is_some())
}

/// How many packs were found damaged.
pub(crate) fn in_doubt(packs: u64) -> String {
    format!("{} {} found damaged", count(packs, "pack"), verb(packs, "was", "were"))
}

impl RepoStatus {
    fn judge(&mut self, known: Result<Known, String>, is_excused: bool, now: Timestamp) {
        let known = match known {
            Ok(known) => known,
            Err(error) => {
                return self.add(Health::Unknown, format!("the repository cannot be asked: {error}"));
            }
        };
        if known.packs_in_doubt > 0 {
            let message = in_doubt(known.packs_in_doubt);
            self.add(Health::Critical, format!("{message}, and not intact since"));
        }
        if let Some(last) = self.last.clone().filter(|last| last.verdict != Verdict::Ok) {
            let why = last.message.as_ref().map_or(String::new(), |message| format!(": {message}"));
            let health = if last.verdict == Verdict::Damaged { Health::Critical } else { Health::Warning };
            self.add(health, format!("the last verification is {}{why}", last.verdict.name()));
        }
        let Demand { every, read } = self.demand;
        // What is new need not have been read yet.
        let (what, since) = match (known.last_read, known.since) {
            _ if known.packs == 0 => return,
            (Some(last), _) => ("last verified", last),
            (None, Some(since)) => ("nothing was verified since the oldest snapshot,", since),
            (None, None) => return,
        };
        let (age, twice) = (age(since, now), Lapse::seconds(every.as_secs().saturating_mul(2)));
        let has_read = |within| known.last_read.is_none() || known.has_read(read, within, now);
        let health = match age {
            age if age > twice || !has_read(twice) => Health::Critical,
            age if age > every || !has_read(every) => Health::Warning,
            _ => return,
        };
        let message = match age > every {
            true => format!("{what} {} ago, and it is to be every {every}", rough(age)),
            false => too_little(read, every),
        };
        self.add(if is_excused { health.min(Health::Warning) } else { health }, message);
    }

    fn add(&mut self, health: Health, reason: String) {
        self.health = self.health.max(health);
        self.reasons.push(reason);
    }
}
