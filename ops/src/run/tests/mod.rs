//! Runs with commands and repositories that are played: what is done, in which order, and what is told of it.

mod copies;
mod turns;

use super::again::Attempts;
use super::process::{Ended, Order, ProcessError, Processes, Sink, Source};
use super::select::{Choice, Chosen, Known, Newest, SelectError, select};
use super::state::{Journal, Outcome, State};
use super::vault::{CopyFailure, Forgotten, Job, Vault, VaultError};
use super::{DomainReport, Runner};
use crate::plan::Plan;
use crate::plan::load::tests_support::plan;
use crate::plan::types::Domain;
use crate::plan::values::{Argv, Name};
use crate::testing::{id, name, now, record};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use strongroom::backup::{BackupReport, PacksStored};
use strongroom::copy::{CopiedSnapshot, CopyReport, Fate};
use strongroom::forget::{ForgetOptions, Wish};
use strongroom::format::note::DrillNote;
use strongroom::format::snapshot::{Snapshot, SnapshotSummary};
use strongroom::ids::SnapshotId;
use strongroom::log::{Loss, LostCommit};
use tempfile::TempDir;

/// Commands that only say that they were run: `fail …` fails, `print WORDS` prints, `dump` and `moody` have an output, `cancel`
/// cancels the run, everything else is good.
#[derive(Default)]
struct Played {
    log: Arc<Mutex<Vec<String>>>,
    cancelled: Arc<AtomicBool>,
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
            "cancel" => {
                self.cancelled.store(true, Ordering::Relaxed);
                Ok(Vec::new())
            }
            "dump" | "moody" => Ok(b"dump".to_vec()),
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

    fn mark(&self) -> &str {
        "of this run"
    }
}

/// Repositories that read streams to their ends and count jobs; `down` ones fail.
#[derive(Default)]
struct PlayedVault {
    log: Arc<Mutex<Vec<String>>>,
    down: Vec<&'static str>,
    damaged: Vec<SnapshotId>,
    /// Those that snapshots cannot be read from any more.
    unreadable: Vec<&'static str>,
    /// A file that is removed when a copy fails.
    removed: Option<PathBuf>,
    drills: Vec<(Name, DrillNote)>,
    logs_down: bool,
    /// Each backup is cancelled when a part of it is stored.
    cut_short: bool,
    /// What each backup tells of the log.
    lost_commits: Vec<LostCommit>,
    /// Why some groups are not dealt with.
    refused: Vec<VaultError>,
    /// Repository, snapshot, domain.
    made: RefCell<Vec<(Name, SnapshotId, String)>>,
    summary: SnapshotSummary,
    /// What others than those of `summary` counted.
    summaries: BTreeMap<SnapshotId, SnapshotSummary>,
    /// When those were made that are not of just now.
    hours_ago: BTreeMap<SnapshotId, i64>,
    /// Snapshots that were there before.
    history: Vec<(&'static str, SnapshotId, Snapshot)>,
    jobs: RefCell<Vec<Seen>>,
    /// Snapshots that nobody may forget, and why.
    held: RefCell<BTreeMap<(Name, SnapshotId), String>>,
}

impl PlayedVault {
    fn note(&self, what: String) {
        self.log.lock().expect("no panic").push(what);
    }
}

/// What a job was.
struct Seen {
    growing: bool,
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

impl Vault for PlayedVault {
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        if self.down.contains(&repo.as_str()) {
            return Err(down("it is down"));
        }
        let made = self.made.borrow();
        let here = made.iter().filter(|(at, _, _)| at == repo);
        let summary = |id: &SnapshotId| self.summaries.get(id).unwrap_or(&self.summary).clone();
        let hours = |id: &SnapshotId| self.hours_ago.get(id).copied().unwrap_or(0);
        let record =
            |id: &SnapshotId, domain: &str| Snapshot { summary: summary(id), ..record(domain, hours(id)) };
        let before = self.history.iter().filter(|(at, _, _)| *at == repo.as_str());
        let before = before.map(|(_, id, snapshot)| (*id, snapshot.clone()));
        Ok(before.chain(here.map(|(_, id, domain)| (*id, record(id, domain)))).collect())
    }

    fn drills(&self, repo: &Name) -> Result<Vec<DrillNote>, VaultError> {
        match self.logs_down {
            true => Err(down("its log cannot be read")),
            false => {
                Ok(self.drills.iter().filter(|(at, _)| at == repo).map(|(_, note)| note.clone()).collect())
            }
        }
    }

    fn held(&self, repo: &Name) -> Result<Vec<(SnapshotId, String)>, VaultError> {
        let held = self.held.borrow();
        let here = held.iter().filter(|((at, _), _)| at == repo);
        Ok(here.map(|((_, id), reason)| (*id, reason.clone())).collect())
    }

    fn hold(&self, repo: &Name, snapshots: &[SnapshotId], reason: &str) -> Result<(), VaultError> {
        if self.down.contains(&repo.as_str()) {
            return Err(down("it is down"));
        }
        let mut held = self.held.borrow_mut();
        for id in snapshots {
            held.entry((repo.clone(), *id)).or_insert_with(|| reason.to_owned());
        }
        Ok(())
    }

    fn release(&self, repo: &Name, held: &[(SnapshotId, String)], _: &str) -> Result<(), VaultError> {
        let is_so = |id: &SnapshotId, why: &String| held.contains(&(*id, why.clone()));
        self.held.borrow_mut().retain(|(at, id), why| at != repo || !is_so(id, why));
        Ok(())
    }

    fn kept(&self, _: &Name, _: &ForgetOptions) -> Result<Vec<SnapshotId>, VaultError> {
        Ok(vec![id(2)])
    }

    fn copy(&self, from: &Name, to: &Name, ids: &[SnapshotId]) -> Result<CopyReport, CopyFailure> {
        let failed = |is_of_target| CopyFailure { is_of_target, error: down("it is down") };
        self.note(format!("copy {} from {from} to {to}", ids.len()));
        if self.unreadable.contains(&from.as_str()) {
            self.removed.iter().for_each(|file| std::fs::remove_file(file).expect("removed"));
            return Err(failed(false));
        }
        if self.down.contains(&to.as_str()) {
            return Err(failed(true));
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
            growing: job.growing,
            facts: job.provenance.facts.iter().map(|fact| (fact.name.clone(), fact.value.clone())).collect(),
            contents: files.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect(),
            read_from: job.roots.into_iter().map(|root| (root.path, root.read_from)).collect(),
        });
        if !self.cut_short {
            self.made.borrow_mut().push((repo.clone(), id(7), job.provenance.domain));
        }
        Ok(BackupReport {
            snapshot: Some(id(7)),
            parent: None,
            summary: self.summary.clone(),
            stored: PacksStored::default(),
            cancelled: self.cut_short,
            lost_commits: self.lost_commits.clone(),
        })
    }

    fn forget(&self, repo: &Name, options: &ForgetOptions) -> Result<Forgotten, VaultError> {
        let Wish::Policy(policy) = &options.wish else { panic!("a policy") };
        let but: Vec<_> = policy.drilled.iter().map(|id| format!(" but {}", id.short())).collect();
        self.note(format!("forget in {repo}: {}{}", options.selection.domains.join(","), but.concat()));
        Ok(Forgotten { snapshots: 3, refused: self.refused.clone() })
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
    cancelled: Arc<AtomicBool>,
    /// Starts commands that are not played.
    real: Option<Arc<dyn Processes>>,
}

impl Stage {
    fn new(domains: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let domains = domains.replace("DIR", folder.path().to_str().expect("text"));
        let plan = plan(&format!("[repo.b]\nurl = '/b'\n{domains}"));
        Self { folder, plan, vault: PlayedVault::default(), cancelled: Arc::default(), real: None }
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
        let (log, cancelled) = (Arc::clone(&self.vault.log), Arc::clone(&self.cancelled));
        let processes = self.real.clone().unwrap_or_else(|| Arc::new(Played { log, cancelled }));
        let runner = Runner {
            plan: &self.plan,
            host: "box".into(),
            processes,
            vault: &self.vault,
            state: &state,
            now: &now,
            is_cancelled: &|| self.cancelled.load(Ordering::Relaxed),
            patience: None,
        };
        let known = Known { newest, attempts: &Attempts::default() };
        let chosen = select(&self.plan, choice, &known, &now()).expect("domains");
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
