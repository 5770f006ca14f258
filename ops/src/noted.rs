//! What the logs of repositories say of drills, recoveries and exceptions, and that together with what a host remembers.
//!
//! The host that ran a drill may be lost, or another one: logs are what all have in common. A host remembers more of what it did itself
//! (numbers, warnings, drills that got to no repository), so its own record takes the place of a note about the same.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::{fs, io};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom::format::commit::{Change, Commit};
use strongroom::format::note::{
    DRILL_NOTE, DrillNote, EXCEPTIONS_NOTE, ExceptionsNote, NotedException, RECOVERY_NOTE, RecoveryNote,
};
use strongroom::format::record;
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::{CommitHash, SnapshotId};

use crate::drill::{DrillRecord, Restoration};
use crate::plan::Plan;
use crate::plan::types::Tier;
use crate::plan::values::Name;
use crate::recover::RecoveryRecord;
use crate::run::state::{State, write_whole};

const EXCEPTIONS: &str = "exceptions.json";

/// What the log of one repository says to a host. A record that nobody understands says nothing.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noted {
    host: String,
    machine: String,
    snapshots: BTreeMap<SnapshotId, Of>,
    drills: Vec<(DrillNote, bool)>,
    recoveries: Vec<RecoveryNote>,
    exceptions: Option<ExceptionsNote>,
}

/// How far a log was read, and what it says until then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// The last entry that was read.
    pub seq: u64,
    /// Its hash.
    pub head: CommitHash,
    /// What the log says.
    pub noted: Noted,
}

impl Remembered {
    /// What is remembered in a file, if it is there, can be read and is of this host: else the log says it all again.
    pub fn load(path: &Path, host: &str, machine: &str) -> Option<Self> {
        let found: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (found.noted.host == host && found.noted.machine == machine).then_some(found)
    }

    /// Keeps it in a file, in a folder that is made where it is not there.
    ///
    /// # Errors
    /// Where that cannot be.
    pub fn keep(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        write_whole(path, &serde_json::to_vec(self)?)
    }
}

/// Of what a snapshot was that is there, or was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Of {
    domain: Name,
    files: u64,
    bytes: u64,
}

impl Noted {
    /// Nothing yet. Snapshots say that they are from `host`, commits that are made here are from `machine`.
    pub fn new(host: &str, machine: &str) -> Self {
        Self { host: host.to_owned(), machine: machine.to_owned(), ..Self::default() }
    }

    /// Adds what a commit says; in the order of the log.
    pub fn add(&mut self, commit: &Commit) {
        for change in &commit.changes {
            match change {
                Change::SnapshotAdded { snapshot, record } => {
                    let Ok(found) = record::decode::<Snapshot>(record) else { continue };
                    let domain: Option<Name> = found.provenance.and_then(|from| from.domain.parse().ok());
                    if let Some(domain) = domain.filter(|_| found.hostname == self.host) {
                        let (files, bytes) = (found.summary.files, found.summary.bytes);
                        self.snapshots.insert(*snapshot, Of { domain, files, bytes });
                    }
                }
                Change::Note { kind, record } if kind == DRILL_NOTE => {
                    let is_made_here = commit.host == self.machine;
                    self.drills.extend(record::decode(record).map(|note| (note, is_made_here)));
                }
                Change::Note { kind, record } if kind == RECOVERY_NOTE => {
                    self.recoveries.extend(record::decode::<RecoveryNote>(record));
                }
                Change::Note { kind, record } if kind == EXCEPTIONS_NOTE => {
                    let note = record::decode::<ExceptionsNote>(record).ok();
                    self.exceptions = note.filter(|note| note.host == self.host).or(self.exceptions.take());
                }
                _ => {}
            }
        }
    }

    /// All notes of drills, of whatever host.
    pub fn drill_notes(&self) -> impl Iterator<Item = &DrillNote> {
        self.drills.iter().map(|(note, _)| note)
    }

    /// Drills that restored snapshots of the host, wherever they were run. One that got to no snapshot counts where it was run on this
    /// machine: several hosts may have a drill of that name in one repository.
    pub fn drills(&self, repo: &Name) -> Vec<DrillRecord> {
        let of_note = |(note, is_made_here): &(DrillNote, bool)| {
            let is_whole = note.tier == Tier::Full.name();
            let restoration = |id: &SnapshotId| {
                let of = self.snapshots.get(id)?;
                let (files, bytes) = if is_whole { (of.files, of.bytes) } else { (0, 0) };
                Some(Restoration { domain: of.domain.clone(), snapshot: *id, files, bytes })
            };
            let restored: Vec<_> = note.snapshots.iter().filter_map(restoration).collect();
            let is_ours = if note.snapshots.is_empty() { *is_made_here } else { !restored.is_empty() };
            DrillRecord::of_note(note, repo, restored).filter(|_| is_ours)
        };
        self.drills.iter().filter_map(of_note).collect()
    }

    /// Recoveries of snapshots of the host.
    pub fn recoveries(&self, repo: &Name) -> Vec<RecoveryRecord> {
        let of_note = |note: &RecoveryNote| {
            let of = self.snapshots.get(&note.snapshot)?;
            RecoveryRecord::of_note(note, repo, of.files, of.bytes)
        };
        self.recoveries.iter().filter_map(of_note).collect()
    }

    /// The note of exceptions that is to be added, where what the plan says is not what was noted last.
    pub fn outdated(&self, plan: &Plan) -> Option<ExceptionsNote> {
        let wanted = exceptions(plan, &self.host);
        let noted = self.exceptions.as_ref().map_or(&[][..], |note| &note.exceptions);
        (wanted.exceptions != noted).then_some(wanted)
    }
}

/// The exceptions of a plan as a log keeps them: in an order of their own, so that moving them about in the plan is no news.
pub fn exceptions(plan: &Plan, host: &str) -> ExceptionsNote {
    let of_plan = plan.exceptions.iter().map(|exception| NotedException {
        id: exception.id.clone(),
        control: exception.control.name().into(),
        domain: exception.domain.to_string(),
        reason: exception.reason.clone(),
        approved_by: exception.approved_by.clone(),
        expires: exception.expires.to_string(),
    });
    let mut exceptions: Vec<_> = of_plan.collect();
    exceptions.sort_by(|one, other| one.id.cmp(&other.id));
    ExceptionsNote { host: host.to_owned(), exceptions }
}

impl State {
    /// The exceptions that this host has noted last, by repository. What cannot be read is found again in the logs.
    pub fn noted_exceptions(&self) -> BTreeMap<String, ExceptionsNote> {
        let bytes = fs::read(self.path(EXCEPTIONS)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Remembers them.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn remember_exceptions(&self, noted: &BTreeMap<String, ExceptionsNote>) -> io::Result<()> {
        write_whole(&self.path(EXCEPTIONS), &serde_json::to_vec(noted)?)
    }
}

/// Drills that a host remembers and those that logs tell of, each once.
pub fn drills(local: Vec<DrillRecord>, logs: Vec<Vec<DrillRecord>>) -> Vec<DrillRecord> {
    together(local, logs, |record| (record.drill.clone(), record.began), |record| record.began)
}

/// Recoveries that a host remembers and those that logs tell of, each once.
pub fn recoveries(local: Vec<RecoveryRecord>, logs: Vec<Vec<RecoveryRecord>>) -> Vec<RecoveryRecord> {
    let key =
        |record: &RecoveryRecord| (record.recovery.clone(), record.domain.clone(), record.outcome.name());
    together(local, logs, key, |record| record.began)
}

/// Several records as one, by the times of what is in them. What follows something in its own record follows it still: a clock that was
/// wrong once puts nothing behind what came later in the same log.
fn together<T: Clone, K: Ord>(
    local: Vec<T>,
    logs: Vec<Vec<T>>,
    key: impl Fn(&T) -> K,
    began: impl Fn(&T) -> Timestamp,
) -> Vec<T> {
    let mut places: BTreeMap<K, VecDeque<usize>> = BTreeMap::new();
    for (at, record) in local.iter().enumerate() {
        places.entry(key(record)).or_default().push_back(at);
    }
    let mut left: Vec<Option<T>> = local.into_iter().map(Some).collect();
    let mut own = |record: T| {
        let at = places.get_mut(&key(&record)).and_then(VecDeque::pop_front);
        at.and_then(|at| left[at].take()).unwrap_or(record)
    };
    let mut all: Vec<VecDeque<T>> =
        logs.into_iter().map(|log| log.into_iter().map(&mut own).collect()).collect();
    all.push(left.into_iter().flatten().collect());
    let mut sorted = Vec::new();
    loop {
        let heads = all.iter_mut().filter(|record| !record.is_empty());
        let Some(next) = heads.min_by_key(|record| record.front().map(&began)) else { return sorted };
        sorted.extend(next.pop_front());
    }
}

#[cfg(test)]
mod tests {
    use strongroom::format::note::DrillPhase;
    use strongroom::format::tree::Timestamp as Stamp;
    use strongroom::ids::CommitHash;

    use super::*;
    use crate::drill::{DrillOutcome, Phase, Timed, history};
    use crate::plan::load::tests_support::plan;
    use crate::recover::preview::Measurements;
    use crate::recover::{RecoveryOutcome, Step};
    use crate::testing::{id, name};

    fn commit(machine: &str, changes: Vec<Change>) -> Commit {
        Commit {
            seq: 1,
            previous: CommitHash::from_bytes([0; 32]),
            time: Stamp::default(),
            host: machine.into(),
            user: "root".into(),
            program: "test".into(),
            changes,
        }
    }

    fn snapshot(number: u8, host: &str, domain: &str) -> Change {
        let mut found = crate::testing::record(domain, 1);
        found.hostname = host.into();
        (found.summary.files, found.summary.bytes) = (3, 300);
        Change::SnapshotAdded { snapshot: id(number), record: record::encode(&found).into() }
    }

    fn noted(kind: &str, bytes: Vec<u8>) -> Change {
        Change::Note { kind: kind.into(), record: bytes.into() }
    }

    fn drill_note(outcome: &str, seconds: i64, snapshots: &[u8]) -> DrillNote {
        DrillNote {
            drill: "d".into(),
            tier: "full".into(),
            outcome: outcome.into(),
            reason: if outcome == "pass" { String::new() } else { "why".into() },
            self_test: false,
            began: Stamp { seconds, nanos: 5 },
            snapshots: snapshots.iter().map(|number| id(*number)).collect(),
            phases: vec![DrillPhase { phase: "fetch".into(), duration_ns: 1_500_000_000 }],
        }
    }

    fn of_drill(note: &DrillNote) -> Change {
        noted(DRILL_NOTE, record::encode(note))
    }

    fn recovery(outcome: &str, snapshot: u8) -> Change {
        let note = RecoveryNote {
            recovery: "r".into(),
            domain: "x".into(),
            outcome: outcome.into(),
            reason: String::new(),
            began: Stamp { seconds: 9, nanos: 0 },
            snapshot: id(snapshot),
            phases: vec![DrillPhase { phase: "stage".into(), duration_ns: 2_000_000_000 }],
        };
        noted(RECOVERY_NOTE, record::encode(&note))
    }

    fn log(commits: &[Commit]) -> Noted {
        let mut noted = Noted::new("box", "machine");
        commits.iter().for_each(|commit| noted.add(commit));
        noted
    }

    #[test]
    fn what_a_log_says_of_a_host_is_known_without_any_record_of_it() {
        let odd = DrillNote { tier: "huge".into(), ..drill_note("pass", 3, &[1]) };
        let phases = vec![DrillPhase { phase: "dance".into(), duration_ns: 1 }];
        let unknown_phase = DrillNote { phases, ..drill_note("pass", 4, &[1]) };
        let noted = log(&[
            commit("machine", vec![snapshot(1, "box", "x"), snapshot(2, "other", "x")]),
            commit(
                "elsewhere",
                vec![of_drill(&drill_note("fail", 1, &[1])), of_drill(&drill_note("pass", 2, &[2]))],
            ),
            commit(
                "elsewhere",
                vec![of_drill(&odd), of_drill(&unknown_phase), noted(DRILL_NOTE, b"\xc1".to_vec())],
            ),
            // It came to no snapshot: whose drill it was, only where it was run tells.
            commit("elsewhere", vec![of_drill(&drill_note("unverified", 5, &[]))]),
            commit("machine", vec![of_drill(&drill_note("unverified", 6, &[]))]),
            commit(
                "elsewhere",
                vec![recovery("recovered", 1), recovery("recovered", 2), recovery("tried", 1)],
            ),
        ]);
        let drills = noted.drills(&name("a"));
        let told = |drill: &DrillRecord| (drill.outcome, drill.began.as_second());
        let expected = [(DrillOutcome::Fail, 1), (DrillOutcome::Unverified, 6)];
        assert_eq!(drills.iter().map(told).collect::<Vec<_>>(), expected);
        let first = &drills[0];
        assert_eq!(
            (&first.repository, first.reason.as_deref(), first.seconds()),
            (&Some(name("a")), Some("why"), 1.5)
        );
        assert_eq!(first.phases, [Timed { phase: Phase::Fetch, seconds: 1.5 }]);
        let restored = Restoration { domain: name("x"), snapshot: id(1), files: 3, bytes: 300 };
        assert_eq!(first.restored, [restored]);
        assert_eq!(noted.drill_notes().count(), 6, "retention goes by all that can be read");
        let recoveries = noted.recoveries(&name("a"));
        let [recovery] = &recoveries[..] else { panic!("{recoveries:?}") };
        assert_eq!(
            (recovery.outcome, recovery.seconds(), recovery.bytes),
            (RecoveryOutcome::Recovered, 2.0, 300)
        );
        assert_eq!(recovery.steps[0].step, Step::Stage);
        let plan = plan(
            "[[domain]]\nname = 'x'\npaths = ['/x']\n[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\n",
        );
        assert_eq!(history::failed(&plan, &name("x"), &drills), [first]);
        let measured = Measurements { drills: &drills, recoveries: &recoveries };
        assert_eq!(measured.of(&plan, &name("x")).map(|measured| measured.seconds), Some(2.0));
    }

    #[test]
    fn a_drill_that_is_in_a_log_and_remembered_counts_once_and_in_its_order() {
        let noted = log(&[
            commit("machine", vec![snapshot(1, "box", "x")]),
            // The clock was wrong once: what was noted after it came after it.
            commit(
                "machine",
                vec![of_drill(&drill_note("pass", 999, &[1])), of_drill(&drill_note("fail", 20, &[1]))],
            ),
        ]);
        let second = log(&[
            commit("machine", vec![snapshot(1, "box", "x")]),
            commit(
                "machine",
                vec![of_drill(&drill_note("pass", 10, &[1])), of_drill(&drill_note("pass", 30, &[1]))],
            ),
        ]);
        let logs = || vec![noted.drills(&name("a")), second.drills(&name("b"))];
        let local = |note: &DrillNote, repository: Option<Name>| {
            let record = DrillRecord::of_note(note, &name("a"), Vec::new()).expect("understood");
            DrillRecord { repository, rto: Some(60), ..record }
        };
        let remembered = vec![
            local(&drill_note("pass", 10, &[1]), Some(name("b"))),
            local(&drill_note("unverified", 15, &[]), None),
        ];
        let told = |record: &DrillRecord| {
            let repo = record.repository.as_ref().map_or("-".to_owned(), ToString::to_string);
            format!("{repo}{}", record.began.as_second())
        };
        let all = drills(remembered.clone(), logs());
        assert_eq!(all.iter().map(told).collect::<Vec<_>>(), ["b10", "-15", "b30", "a999", "a20"]);
        assert_eq!(all.iter().filter(|record| record.rto == Some(60)).count(), 2, "the host's own say more");
        assert_eq!(drills(Vec::new(), logs()).len(), 4);
        assert_eq!(drills(remembered.clone(), Vec::new()), remembered);
        // Taken together a second time nothing is there twice.
        assert_eq!(drills(remembered, vec![all.clone()]), all);
    }

    #[test]
    fn exceptions_are_noted_when_they_are_others_than_before() {
        let text = |id: &str, reason: &str| {
            format!(
                "[[exception]]\nid = '{id}'\ncontrol = 'copies'\ndomain = 'x'\nreason = '{reason}'\napproved_by = 'a'\nexpires = 2027-01-31\n"
            )
        };
        let with = |exceptions: &str| plan(&format!("[[domain]]\nname = 'x'\npaths = ['/x']\n{exceptions}"));
        let none = with("");
        let one = with(&text("E", "r"));
        let mut log = log(&[]);
        assert_eq!(log.outdated(&none), None, "there were none, and there are none");
        let note = log.outdated(&one).expect("one more");
        let expected = NotedException {
            id: "E".into(),
            control: "copies".into(),
            domain: "x".into(),
            reason: "r".into(),
            approved_by: "a".into(),
            expires: "2027-01-31".into(),
        };
        assert_eq!(note, ExceptionsNote { host: "box".into(), exceptions: vec![expected] });
        log.add(&commit("machine", vec![noted(EXCEPTIONS_NOTE, record::encode(&note))]));
        assert_eq!(log.outdated(&one), None);
        assert!(log.outdated(&with(&text("E", "another"))).is_some());
        assert_eq!(log.outdated(&none).map(|note| note.exceptions), Some(Vec::new()), "it was taken out");
        let other = ExceptionsNote { host: "other".into(), exceptions: Vec::new() };
        log.add(&commit("other", vec![noted(EXCEPTIONS_NOTE, record::encode(&other))]));
        assert_eq!(log.outdated(&one), None, "another host has its own");
        let (first, second) = (text("E", "r"), text("F", "r"));
        let (forth, back) = (with(&format!("{first}{second}")), with(&format!("{second}{first}")));
        assert_eq!(exceptions(&forth, "box"), exceptions(&back, "box"), "their order says nothing");

        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        assert_eq!(state.noted_exceptions(), BTreeMap::new());
        let all = BTreeMap::from([("id".to_owned(), note)]);
        state.remember_exceptions(&all).expect("written");
        assert_eq!(state.noted_exceptions(), all);
        fs::write(state.path(EXCEPTIONS), "{").expect("written");
        assert_eq!(state.noted_exceptions(), BTreeMap::new(), "the log is read again");
    }

    #[test]
    fn what_is_remembered_is_of_one_host_on_one_machine() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("noted/repository.json");
        let head = CommitHash::from_bytes([1; 32]);
        let known = Remembered { seq: 7, head, noted: Noted::new("box", "machine") };
        known.keep(&path).expect("kept");
        assert_eq!(Remembered::load(&path, "box", "machine"), Some(known));
        assert_eq!(Remembered::load(&path, "other", "machine"), None);
        assert_eq!(Remembered::load(&path, "box", "elsewhere"), None);
    }
}
