//! Runs with commands and repositories that are played: what is done, in which order, and what is told of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::Zoned;
use strongroom::backup::{BackupReport, PacksStored};
use strongroom::copy::{CopiedSnapshot, CopyReport, Fate};
use strongroom::forget::ForgetOptions;
use strongroom::format::provenance::{Consistency, Provenance};
use strongroom::format::snapshot::{Snapshot, SnapshotSummary};
use strongroom::ids::{BlobId, PlanHash, SnapshotId};
use tempfile::TempDir;

use super::process::{Ended, Order, ProcessError, Processes, Sink, Source};
use super::select::{Choice, Newest, SelectError, select};
use super::state::{Journal, Outcome, State};
use super::vault::{Job, Vault, VaultError};
use super::{DomainReport, Runner};
use crate::plan::Plan;
use crate::plan::load::tests_support::plan;
use crate::plan::types::Domain;
use crate::plan::values::{Argv, Name};

const NOW: &str = "2026-11-28T12:00:00[UTC]";

fn now() -> Zoned {
    NOW.parse().expect("a time")
}

/// Commands that only say that they were run: `fail …` fails, `print WORDS` prints, everything else is good.
#[derive(Default)]
struct Played {
    log: Arc<Mutex<Vec<String>>>,
}

impl Played {
    fn play(&self, order: &Order<'_>) -> Result<Vec<u8>, ProcessError> {
        let words = order.argv.words();
        let told = order.env.iter().filter(|(name, _)| name.contains("ERROR") || name.contains("PATH"));
        let told: String = told.map(|(_, value)| format!(" <{value}>")).collect();
        self.log.lock().expect("no panic").push(format!("{}{told}", words.join(" ")));
        match order.argv.program() {
            "fail" => Err(ProcessError::Failed {
                program: "fail".into(),
                status: "exit code 1".into(),
                output: String::new(),
            }),
            "moody" if !PathBuf::from(&words[1]).exists() => Err(ProcessError::Failed {
                program: "moody".into(),
                status: "exit code 1".into(),
                output: "hunter2".into(),
            }),
            "print" => Ok(format!("{}\n", words[1..].join(" ")).into_bytes()),
            _ => Ok(Vec::new()),
        }
    }
}

struct PlayedSource(io::Cursor<Vec<u8>>, Result<(), ProcessError>);

impl Read for PlayedSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Source for PlayedSource {
    fn finish(self: Box<Self>) -> Result<(), ProcessError> {
        self.1
    }
}

struct PlayedSink(Vec<u8>, Result<(), ProcessError>);

impl io::Write for PlayedSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for PlayedSink {
    fn finish(self: Box<Self>) -> Result<(), ProcessError> {
        self.1
    }
}

impl Processes for Played {
    fn run(&self, order: &Order<'_>) -> Result<Ended, ProcessError> {
        self.play(order).map(|stdout| Ended { stdout })
    }

    fn source(&self, order: &Order<'_>) -> Result<Box<dyn Source>, ProcessError> {
        let played = self.play(order);
        let bytes = played.clone().unwrap_or_else(|_| b"half a dump".to_vec());
        Ok(Box::new(PlayedSource(io::Cursor::new(bytes), played.map(|_| ()))))
    }

    fn sink(&self, order: &Order<'_>) -> Result<Box<dyn Sink>, ProcessError> {
        Ok(Box::new(PlayedSink(Vec::new(), self.play(order).map(|_| ()))))
    }
}

/// Repositories that read streams to their ends and count jobs; `down` ones fail.
#[derive(Default)]
struct PlayedVault {
    log: Arc<Mutex<Vec<String>>>,
    down: Vec<&'static str>,
    damaged: Vec<SnapshotId>,
    /// Repository, snapshot, domain.
    made: RefCell<Vec<(Name, SnapshotId, String)>>,
    summary: SnapshotSummary,
    jobs: RefCell<Vec<Seen>>,
}

impl PlayedVault {
    fn note(&self, what: String) {
        self.log.lock().expect("no panic").push(what);
    }
}

/// What a job was.
struct Seen {
    facts: Vec<(String, String)>,
    read_from: Vec<(PathBuf, Option<PathBuf>)>,
    contents: BTreeMap<PathBuf, Vec<u8>>,
}

fn down(message: &str) -> VaultError {
    VaultError { code: "storage".into(), message: message.into() }
}

fn of_source(message: &str) -> VaultError {
    VaultError { code: "stream".into(), message: message.into() }
}

fn id(number: u8) -> SnapshotId {
    SnapshotId::new(BlobId::from_bytes([number; 32]))
}

/// A complete snapshot of a domain.
fn snapshot(domain: &str) -> Snapshot {
    Snapshot {
        time: strongroom::format::tree::Timestamp::default(),
        hostname: "box".into(),
        username: String::new(),
        paths: Vec::new(),
        tree: BlobId::from_bytes([0; 32]),
        tags: Vec::new(),
        parent: None,
        partial: false,
        repaired: None,
        origin: None,
        provenance: Some(Provenance {
            domain: domain.into(),
            consistency: Consistency::Fuzzy,
            plan: PlanHash::from_bytes([0; 32]),
            plan_files: Vec::new(),
            facts: Vec::new(),
        }),
        excludes: Vec::new(),
        program: String::new(),
        summary: SnapshotSummary::default(),
    }
}

impl Vault for PlayedVault {
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        if self.down.contains(&repo.as_str()) {
            return Err(down("it is down"));
        }
        let made = self.made.borrow();
        let here = made.iter().filter(|(at, _, _)| at == repo);
        Ok(here.map(|(_, id, domain)| (*id, snapshot(domain))).collect())
    }

    fn kept(&self, _: &Name, _: &ForgetOptions) -> Result<Vec<SnapshotId>, VaultError> {
        Ok(vec![id(2)])
    }

    fn copy(&self, from: &Name, to: &Name, ids: &[SnapshotId]) -> Result<CopyReport, VaultError> {
        self.note(format!("copy {} from {from} to {to}", ids.len()));
        if self.down.contains(&to.as_str()) {
            return Err(down("it is down"));
        }
        let copy = |source: &SnapshotId| {
            let is_damaged = self.damaged.contains(source);
            let damaged = Fate::Damaged { reason: "a pack is gone".into() };
            CopiedSnapshot {
                source: *source,
                target: (!is_damaged).then_some(*source),
                time: strongroom::format::tree::Timestamp::default(),
                hostname: "box".into(),
                fate: if is_damaged { damaged } else { Fate::Copied },
            }
        };
        let snapshots: Vec<_> = ids.iter().map(copy).collect();
        let mut made = self.made.borrow_mut();
        for id in snapshots.iter().filter_map(|copy| copy.target) {
            let domain = made.iter().find(|(at, other, _)| at == from && *other == id);
            let domain = domain.map(|(_, _, domain)| domain.clone()).expect("it is there");
            made.push((to.clone(), id, domain));
        }
        Ok(CopyReport { snapshots, ..CopyReport::default() })
    }

    fn back_up(&self, repo: &Name, job: Job) -> Result<BackupReport, VaultError> {
        self.note(format!("back up into {repo}"));
        if self.down.contains(&repo.as_str()) {
            return Err(down("it is down"));
        }
        for mut stream in job.streams {
            io::copy(&mut stream.reader, &mut io::sink()).map_err(|error| of_source(&error.to_string()))?;
            (stream.finish)().map_err(|error| of_source(&error))?;
        }
        (job.accept)(&self.summary).map_err(|error| of_source(&error))?;
        let place = |root: &strongroom::backup::SourceRoot| root.place().to_owned();
        let files = job.roots.iter().map(place).filter(|path| path.is_file());
        self.jobs.borrow_mut().push(Seen {
            facts: job.provenance.facts.iter().map(|fact| (fact.name.clone(), fact.value.clone())).collect(),
            contents: files.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect(),
            read_from: job.roots.into_iter().map(|root| (root.path, root.read_from)).collect(),
        });
        self.made.borrow_mut().push((repo.clone(), id(7), job.provenance.domain));
        Ok(BackupReport {
            snapshot: Some(id(7)),
            parent: None,
            summary: self.summary.clone(),
            stored: PacksStored::default(),
            cancelled: false,
        })
    }

    fn forget(&self, repo: &Name, options: &ForgetOptions) -> Result<usize, VaultError> {
        self.note(format!("forget in {repo}: {}", options.selection.domains.join(",")));
        Ok(3)
    }
}

/// A snapshot of just now.
fn fresh() -> Newest {
    Newest::At(now().timestamp())
}

struct Stage {
    folder: TempDir,
    plan: Plan,
    vault: PlayedVault,
    cancelled: bool,
}

impl Stage {
    fn new(domains: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let domains = domains.replace("DIR", folder.path().to_str().expect("text"));
        let plan = plan(&format!("[repo.b]\nurl = '/b'\n{domains}"));
        Self { folder, plan, vault: PlayedVault::default(), cancelled: false }
    }

    fn state(&self) -> State {
        State::new(&self.folder.path().join("state")).expect("made")
    }

    /// Runs everything, after which there is nothing to clean up.
    fn run(&self) -> Vec<DomainReport> {
        let reports = self.run_once();
        let left = std::fs::read_dir(self.folder.path().join("state")).expect("a folder");
        for entry in left {
            let name = entry.expect("an entry").file_name().into_string().expect("text");
            assert!(!name.ends_with(".stage") && !name.ends_with(".journal"), "{name} was left behind");
        }
        reports
    }

    fn run_once(&self) -> Vec<DomainReport> {
        self.run_chosen(&Choice::default(), &|_, _| Newest::None)
    }

    /// Runs what is due where the repositories say this of the newest snapshots.
    fn run_into(&self, newest: &dyn Fn(&Name, &Domain) -> Newest) -> Vec<DomainReport> {
        self.run_chosen(&Choice { due: true, ..Choice::default() }, newest)
    }

    fn run_chosen(&self, choice: &Choice, newest: &dyn Fn(&Name, &Domain) -> Newest) -> Vec<DomainReport> {
        let state = self.state();
        let processes = Played { log: Arc::clone(&self.vault.log) };
        let runner = Runner {
            plan: &self.plan,
            host: "box".into(),
            processes: Arc::new(processes),
            vault: &self.vault,
            state: &state,
            now: &now,
            is_cancelled: &|| self.cancelled,
            due_still: None,
        };
        let chosen = select(&self.plan, choice, newest, &now()).expect("domains");
        let mut told = 0;
        let reports = runner.run_all(&chosen, &mut |_| told += 1);
        assert_eq!(told, reports.len());
        reports
    }

    /// What was done, in its order.
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.vault.log.lock().expect("no panic"))
    }
}

const HOOKS: &str = "hooks = { before = [['before']], after = [['after']], failed = [['failed']], finally = [['finally'], ['last']] }\n";

#[test]
fn everything_has_its_turn() {
    let stage = Stage::new(&format!(
        "[[domain]]\nname = 'x'\n{HOOKS}paths = ['DIR']\nsnapshot = {{ begin = ['print', 'STRONGROOM_SNAPSHOT_PATH=/'], \
         end = ['unsnap'] }}\nobjectives = {{ retain = {{ daily = 3 }} }}\nfacts = {{ v = ['print', '15.9 '] }}\n\
         stream = [{{ name = 's', command = ['print', 'dump'], tee_check = ['tee'], min_bytes = '5', expect_tail = 'ump' }}]\n"
    ));
    let reports = stage.run();
    assert_eq!((reports[0].outcome, &reports[0].message), (Outcome::Ok, &None), "{reports:?}");
    assert_eq!(reports[0].repositories[0].forgotten, 3);
    let expected = [
        ["before", "print 15.9 ", "print STRONGROOM_SNAPSHOT_PATH=/", "back up into a", "tee", "print dump"]
            .as_slice(),
        &["unsnap </>", "copy 1 from a to b", "forget in a: x", "forget in b: x", "after", "finally", "last"],
    ];
    assert_eq!(stage.log(), expected.concat());
    let jobs = stage.vault.jobs.borrow();
    assert_eq!(jobs[0].facts, [("v".to_owned(), "15.9".to_owned())]);
    let below_root = PathBuf::from("/").join(stage.folder.path().strip_prefix("/").expect("absolute"));
    assert_eq!(jobs[0].read_from[0].1, Some(below_root));
    let text = stage.plan.sources[0].text.as_bytes();
    assert!(jobs[0].contents.values().any(|content| content == text), "the plan is in the snapshot");
    let attempts = stage.state().attempts().expect("readable");
    assert_eq!((attempts.len(), attempts[0].outcome), (1, Outcome::Ok));
}

#[test]
fn hooks_at_the_end_are_run_whatever_fails() {
    let hooks = |before: &str| HOOKS.replace("'before'", before);
    let path = "paths = ['DIR']\n";
    for (domain, done, message) in [
        (hooks("'fail'") + path, &["fail"][..], "a hook before it: fail failed: exit code 1"),
        (
            hooks("'ok'") + "sqlite = ['/no/such.db']\n",
            &["ok"],
            "the SQLite database /no/such.db cannot be read",
        ),
        (
            hooks("'ok'") + path + "snapshot = { begin = ['fail'], end = ['unsnap'] }\n",
            &["ok", "fail", "unsnap"],
            "there is no file system snapshot: fail failed",
        ),
        (
            hooks("'ok'") + path + "snapshot = { begin = ['print', 'nothing'], end = ['unsnap'] }\n",
            &["ok", "print nothing", "unsnap"],
            "there is no file system snapshot: print did not print",
        ),
        (
            hooks("'ok'") + "to = ['a']\nstream = [{ name = 's', command = ['fail'] }]\n",
            &["ok", "back up into a", "fail"],
            "a: fail failed: exit code 1",
        ),
    ] {
        let stage = Stage::new(&format!("[[domain]]\nname = 'x'\n{domain}"));
        let reports = stage.run();
        assert_eq!(reports[0].outcome, Outcome::Failed, "{domain}");
        let found = reports[0].message.clone().unwrap_or_default();
        assert!(found.starts_with(message), "{domain}\n{found}");
        let log = stage.log();
        assert_eq!(log[..done.len()], *done, "{domain}");
        let failed = format!("failed <{found}>");
        assert_eq!(log[done.len()..], [failed.as_str(), "finally", "last"], "{domain}");
        assert_eq!(stage.state().attempts().expect("readable")[0].message, Some(found));
    }
}

#[test]
fn a_stream_that_is_not_what_it_should_be_is_no_stream() {
    for (stream, reason) in [
        ("command = ['print', 'abc'], min_bytes = '1KiB'", "it has 4 bytes, and min_bytes is 1KiB"),
        ("command = ['print', 'abc'], expect_tail = 'complete'", "it does not end with \"complete\""),
        ("command = ['print', 'abc'], tee_check = ['fail']", "tee_check: fail failed"),
        ("command = ['fail']", "fail failed"),
    ] {
        let stage = Stage::new(&format!(
            "[[domain]]\nname = 'x'\nto = ['a']\nstream = [{{ name = 's', {stream} }}]\n"
        ));
        let report = stage.run().remove(0);
        let message = report.message.unwrap_or_default();
        assert!(
            report.outcome == Outcome::Failed && message.starts_with(&format!("a: {reason}")),
            "{message}"
        );
        assert!(stage.vault.jobs.borrow().is_empty());
    }
}

#[test]
fn a_warning_skips_no_copy_and_no_repository_holds_up_another() {
    let domain = "[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = { retain = { last = 1 } }\n";
    let mut stage = Stage::new(domain);
    stage.vault.summary = SnapshotSummary { unstable: 2, ..SnapshotSummary::default() };
    let report = stage.run().remove(0);
    assert_eq!((report.outcome, report.repositories.len()), (Outcome::Partial, 2));
    assert_eq!(stage.log(), ["back up into a", "copy 1 from a to b"], "nothing is forgotten");

    let mut stage = Stage::new(domain);
    stage.vault.down = vec!["a"];
    let report = stage.run().remove(0);
    let outcomes: Vec<_> = report.repositories.iter().map(|repo| repo.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Ok]);
    assert_eq!((report.outcome, report.message.as_deref()), (Outcome::Failed, Some("a: it is down")));
    assert_eq!(stage.log(), ["back up into a", "back up into b"]);

    let mut stage = Stage::new(
        &(String::from("[class.c]\non_change = 'fail'\n") + &domain.replace("paths", "class = 'c'\npaths")),
    );
    stage.vault.summary = SnapshotSummary { unstable: 2, ..SnapshotSummary::default() };
    let report = stage.run().remove(0);
    assert!(report.message.is_some_and(|message| message.contains("2 files changed")));

    let mut stage = Stage::new(domain);
    stage.cancelled = true;
    assert_eq!(stage.run()[0].outcome, Outcome::Failed);
    assert_eq!(stage.log(), [] as [&str; 0]);
}

#[test]
fn a_copy_that_failed_is_made_up_without_reading_anything_again() {
    let domain = format!("[[domain]]\nname = 'x'\nschedule = '*-*-* 02:00'\npaths = ['DIR']\n{HOOKS}");
    let mut stage = Stage::new(&domain);
    stage.vault.down = vec!["b"];
    let report = stage.run().remove(0);
    assert_eq!(report.message.as_deref(), Some("b: cannot be copied from a: it is down"));
    let outcomes: Vec<_> = report.repositories.iter().map(|repo| repo.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Failed]);
    let failed = "failed <b: cannot be copied from a: it is down>";
    assert_eq!(stage.log(), ["before", "back up into a", "copy 1 from a to b", failed, "finally", "last"]);
    let attempt = stage.state().attempts().expect("readable").remove(0);
    assert_eq!(attempt.repositories.values().map(|repo| repo.outcome).collect::<Vec<_>>(), outcomes);

    stage.vault.down.clear();
    let b: Name = "b".parse().expect("a name");
    let run = |stage: &Stage| stage.run_into(&|repo, _| if *repo == b { Newest::None } else { fresh() });
    let report = run(&stage).remove(0);
    assert_eq!((report.outcome, report.repositories.len()), (Outcome::Ok, 1), "{report:?}");
    assert_eq!(report.repositories[0].snapshot(), Some(id(7)));
    assert_eq!(stage.log(), ["copy 1 from a to b"]);

    // What cannot be copied is read from its source.
    stage.vault.damaged = vec![id(7)];
    let report = run(&stage).remove(0);
    assert_eq!(report.outcome, Outcome::Ok, "{report:?}");
    let expected = ["copy 1 from a to b", "before", "back up into b", "after", "finally", "last"];
    assert_eq!(stage.log(), expected);
}

#[test]
fn older_snapshots_are_copied_as_retention_keeps_them() {
    let mut stage =
        Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\nobjectives = { retain = { last = 2 } }\n");
    let a: Name = "a".parse().expect("a name");
    stage.vault.made.borrow_mut().extend([1, 2, 3].map(|number| (a.clone(), id(number), "x".to_owned())));
    stage.vault.damaged = vec![id(2)];
    let report = stage.run().remove(0);
    assert_eq!(stage.log(), ["back up into a", "copy 2 from a to b"]);
    let copied = &report.repositories[1];
    assert_eq!((report.outcome, copied.outcome), (Outcome::Partial, Outcome::Partial));
    assert_eq!(copied.message.as_deref(), Some("an older snapshot cannot be copied from a: a pack is gone"));
    assert_eq!(copied.snapshot(), Some(id(7)));
    stage.vault.damaged = vec![id(7)];
    let report = stage.run().remove(0);
    let message = "b: cannot be copied from a: a pack is gone";
    assert_eq!((report.outcome, report.message.as_deref()), (Outcome::Failed, Some(message)));
}

#[test]
fn a_source_that_fails_is_not_read_again_for_another_repository() {
    let stage = Stage::new("[[domain]]\nname = 'x'\nstream = [{ name = 's', command = ['fail'] }]\n");
    let report = stage.run().remove(0);
    assert_eq!(stage.log(), ["back up into a", "fail"]);
    let outcomes: Vec<_> = report.repositories.iter().map(|repo| repo.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Failed]);
    assert_eq!(report.message.as_deref(), Some("a: fail failed: exit code 1"));
}

#[test]
fn what_comes_after_a_failure_is_skipped_and_the_rest_is_not() {
    let stage = Stage::new(
        "[[domain]]\nname = 'c'\nafter = ['b']\npaths = ['DIR']\n[[domain]]\nname = 'b'\nafter = ['a']\npaths = ['DIR']\n\
         [[domain]]\nname = 'a'\npaths = ['DIR']\nhooks = { before = [['fail']] }\n[[domain]]\nname = 'd'\npaths = ['DIR']\n",
    );
    let reports = stage.run();
    let found: Vec<_> = reports.iter().map(|report| (report.domain.as_str(), report.outcome)).collect();
    let expected =
        [("a", Outcome::Failed), ("b", Outcome::Skipped), ("c", Outcome::Skipped), ("d", Outcome::Ok)];
    assert_eq!(found, expected);
    assert_eq!(reports[1].message.as_deref(), Some("it comes after a, which failed"));
    assert_eq!(stage.state().attempts().expect("readable").len(), 4);
}

#[test]
fn what_a_killed_run_left_is_swept_first() {
    let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\nto = ['a']\n");
    let state = stage.state();
    let name: Name = "x".parse().expect("a name");
    let argv =
        |words: &[&str]| Argv::try_from(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let journal = Journal {
        began: now().timestamp(),
        snapshot_end: argv(&["unsnap"]).ok(),
        snapshot_path: Some("/snap/7".into()),
        finally: vec![argv(&["clean"]).expect("a command")],
        mark: String::new(),
        left: Vec::new(),
    };
    state.note(&name, &journal).expect("noted");
    std::fs::write(state.stage(&name).expect("made").join("copy"), "x").expect("written");
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
    assert_eq!(stage.log(), ["unsnap </snap/7>", "clean", "back up into a"]);
    let outcomes: Vec<_> =
        state.attempts().expect("readable").into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Interrupted, Outcome::Ok]);
}

#[test]
fn what_cannot_be_cleaned_up_is_tried_again_by_the_next_run() {
    let stage = Stage::new(
        "[[domain]]\nname = 'x'\nto = ['a']\npaths = ['DIR']\nhooks = { finally = [['moody', 'DIR/good'], ['last']] }\n\
         snapshot = { begin = ['print', 'STRONGROOM_SNAPSHOT_PATH=/'], end = ['moody', 'DIR/good'] }\n",
    );
    let state = stage.state();
    let good = stage.folder.path().join("good");
    let moody = format!("moody {}", good.display());
    let unsnap = format!("{moody} </>");
    let begin = "print STRONGROOM_SNAPSHOT_PATH=/";
    let work = [begin, "back up into a", &unsnap, &moody, "last"];
    let report = stage.run_once().remove(0);
    assert_eq!(report.outcome, Outcome::Partial);
    assert!(
        report.warnings[0].contains("the file system snapshot may be there still: moody failed"),
        "{report:?}"
    );
    assert!(report.warnings[1].starts_with("at the end: a hook failed: moody failed"), "{report:?}");
    assert_eq!(stage.log(), work);
    let name: Name = "x".parse().expect("a name");
    assert_eq!(state.journal(&name).expect("readable").expect("kept").left.len(), 2);
    // It fails once more, and is not there twice.
    stage.run_once();
    assert_eq!(stage.log(), [&[unsnap.as_str(), &moody][..], &work].concat());
    assert_eq!(state.journal(&name).expect("readable").expect("kept").left.len(), 2);
    std::fs::write(&good, "").expect("written");
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
    assert_eq!(stage.log(), [&[unsnap.as_str(), &moody][..], &work].concat());
    // All three got to their ends, and what a command said is in none of the records.
    let outcomes: Vec<_> =
        state.attempts().expect("readable").iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Partial, Outcome::Partial, Outcome::Ok]);
    let kept = std::fs::read_to_string(stage.folder.path().join("state/attempts.jsonl")).expect("text");
    assert!(kept.contains("moody failed: exit code 1") && !kept.contains("hunter2"), "{kept}");
}

#[test]
fn what_is_due_waits_for_another_run_and_asks_again() {
    for (still, expected, done) in
        [(&[][..], Some("another run has done it meanwhile"), &[][..]), (&["b"], None, &["back up into b"])]
    {
        let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
        let state = stage.state();
        let lock = state.lock(&"x".parse().expect("a name")).expect("a lock");
        let processes = Played { log: Arc::clone(&stage.vault.log) };
        let asked = RefCell::new(0);
        let due_still = |_: &_| {
            *asked.borrow_mut() += 1;
            still.iter().map(|name| name.parse().expect("a name")).collect()
        };
        let runner = Runner {
            plan: &stage.plan,
            host: "box".into(),
            processes: Arc::new(processes),
            vault: &stage.vault,
            state: &state,
            now: &now,
            is_cancelled: &|| false,
            due_still: Some(&due_still),
        };
        let other = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            drop(lock);
        });
        let domain = &stage.plan.domains[0];
        let report = runner.run(domain, &stage.plan.repositories(domain));
        other.join().expect("no panic");
        assert_eq!((report.outcome, report.message.as_deref()), (Outcome::Ok, expected));
        assert_eq!((stage.log(), *asked.borrow()), (done.iter().map(|line| (*line).to_owned()).collect(), 1));
        assert_eq!(state.attempts().expect("readable").len(), done.len());
    }
}

#[test]
fn a_plan_is_in_the_snapshot_also_where_its_place_is_left_out() {
    let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
    let mut plan = stage.plan.clone();
    let folder = stage.folder.path().join("conf");
    plan.sources[0].path = folder.join("plan.toml");
    plan.domains[0].exclude = vec!["conf".into()];
    let filter = super::stage::filter(&plan.domains[0], &plan.sources).expect("patterns");
    let place = folder.display();
    let kept = ".strongroom-recover-*".to_owned();
    let expected =
        ["conf".into(), kept, format!("!{place}"), format!("{place}/*"), format!("!{place}/plan.toml")];
    assert_eq!(filter.exclude, expected);
}

#[test]
fn two_runs_of_one_domain_do_not_meet() {
    let stage = Stage::new("[[domain]]\nname = 'x'\npaths = ['DIR']\n");
    let lock = stage.state().lock(&"x".parse().expect("a name")).expect("a lock");
    let report = stage.run().remove(0);
    assert_eq!(report.message.as_deref(), Some("another run of the domain x is at work"));
    drop(lock);
    assert_eq!(stage.run()[0].outcome, Outcome::Ok);
}

#[test]
fn what_is_due_is_told_by_the_repositories() {
    let plan = plan(
        "[repo.b]\nurl = '/b'\n[[domain]]\nname = 'x'\npaths = ['/x']\nschedule = '*-*-* 02:00'\ntags = ['db']\n\
         [[domain]]\nname = 'event'\npaths = ['/y']\n",
    );
    let at = |text: &str| Newest::At(text.parse().expect("a time"));
    let due = |a: Newest, b: Newest| {
        let newest = |repo: &Name, _: &_| if repo.as_str() == "a" { a } else { b };
        let choice = Choice { due: true, ..Choice::default() };
        let chosen = select(&plan, &choice, &newest, &now()).expect("no mistake");
        chosen.into_iter().map(|chosen| (chosen.targets.len(), chosen.why)).collect::<Vec<_>>()
    };
    let fresh = at("2026-11-28T02:00:01Z");
    assert_eq!(due(fresh, fresh), []);
    assert_eq!(due(at("2026-11-28T01:59:59Z"), fresh), [(1, "due since 2026-11-28 02:00".to_owned())]);
    assert_eq!(due(Newest::None, Newest::None), [(2, "there is no snapshot yet".to_owned())]);
    assert_eq!(due(fresh, Newest::Unknown), [(1, "the repository cannot be asked".to_owned())]);
    assert!(due(at("2026-11-28T12:00:01Z"), fresh)[0].1.contains("in the future"));

    let chosen = |names: &[&str], tags: &[&str]| {
        let text = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let choice = Choice { names: text(names), tags: text(tags), due: false };
        select(&plan, &choice, &|_, _| Newest::None, &now())
            .map(|chosen| chosen.iter().map(|chosen| chosen.domain.name.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(chosen(&[], &[]).expect("all"), ["x", "event"]);
    assert_eq!(chosen(&["event"], &[]).expect("one"), ["event"]);
    assert_eq!(chosen(&[], &["db"]).expect("one"), ["x"]);
    assert_eq!(chosen(&["y"], &[]), Err(SelectError::Unknown("y".into())));
    assert_eq!(chosen(&[], &["x"]), Err(SelectError::UnknownTag("x".into())));
}
