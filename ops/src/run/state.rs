//! What a host remembers of its runs: who is at work, what is to be cleaned up after a kill, and how runs ended.
//!
//! In the state folder of a plan: `DOMAIN.lock`, held by whoever runs the domain, together with files that copies of the plan
//! lock, too; `DOMAIN.journal`, there as long as a
//! run has, or has left, something to clean up; `DOMAIN.stage`, its temporary files; `attempts.jsonl`, a line for each attempt.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::values::{Argv, Name};
use crate::run::lock::{Lock, Taken};
use crate::run::plans::{Other, Shared};

const ATTEMPTS: &str = "attempts.jsonl";
/// How often a domain that another process has is looked at before that is taken to be at work on it.
const LOOKS: u32 = 25;
/// Time between two such looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is well.
    Ok,
    /// It was not begun, because something before it failed.
    Skipped,
    /// It was not begun, because another run is at work on it or on something before it.
    Deferred,
    /// There are snapshots, and something is worse than it should be.
    Partial,
    /// It was killed.
    Interrupted,
    /// There is a repository without a new snapshot.
    Failed,
}

impl Outcome {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Deferred => "deferred",
            Self::Partial => "partial",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }

    /// Whether what was to get there has not.
    pub const fn is_missing(self) -> bool {
        matches!(self, Self::Failed | Self::Skipped | Self::Deferred)
    }
}

/// One attempt to back a domain up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The domain.
    pub domain: Name,
    /// When it began.
    pub began: Timestamp,
    /// When it ended; unknown if it was killed.
    pub ended: Option<Timestamp>,
    /// How.
    pub outcome: Outcome,
    /// Why, if it is not well.
    pub message: Option<String>,
    /// Since when another run has been at work on it, if it was not begun for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_work_since: Option<Timestamp>,
    /// How it ended for each repository.
    #[serde(default)]
    pub repositories: BTreeMap<Name, RepoAttempt>,
}

/// The part of an attempt that concerns one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoAttempt {
    /// How it ended.
    pub outcome: Outcome,
    /// The snapshot that was made.
    pub snapshot: Option<String>,
    /// Why, if it is not well.
    pub message: Option<String>,
}

/// What is to be done if a run does not get to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// When the run began.
    pub began: Timestamp,
    /// Removes the file system snapshot, if one may be there.
    pub snapshot_end: Option<Argv>,
    /// Where that is.
    pub snapshot_path: Option<String>,
    /// Hooks that are always run.
    pub finally: Vec<Argv>,
    /// What the commands of the run are known by.
    #[serde(default)]
    pub mark: String,
    /// What earlier runs could not do.
    #[serde(default)]
    pub left: Vec<Chore>,
}

/// Something to do at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chore {
    /// What it is.
    pub task: Task,
    /// The command.
    pub argv: Argv,
    /// Where the file system snapshot is.
    pub path: Option<String>,
}

/// What there is to do at the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The file system snapshot is removed.
    SnapshotEnd,
    /// A hook that is always run.
    Finally,
}

impl Attempt {
    /// A snapshot that was begun then or later makes up for it, whoever made it.
    pub fn made_up_since(&self) -> Timestamp {
        self.at_work_since.unwrap_or(self.began)
    }
}

impl RepoAttempt {
    /// Whether it made a complete snapshot. Earlier versions noted partial ones of runs that were cancelled, too.
    pub fn is_made(&self) -> bool {
        self.snapshot.is_some() && matches!(self.outcome, Outcome::Ok | Outcome::Partial)
    }
}

impl Journal {
    /// Most chores of earlier runs that are kept: some may never succeed.
    pub const LEFT_MAX: usize = 32;

    /// Of a run that has nothing to do at its end yet.
    pub fn new(began: Timestamp, mark: &str) -> Self {
        let (finally, left) = (Vec::new(), Vec::new());
        Self { began, snapshot_end: None, snapshot_path: None, finally, mark: mark.to_owned(), left }
    }

    /// Everything there is to do, each thing once.
    pub fn chores(&self) -> Vec<Chore> {
        let finally = self.finally.iter().map(|argv| (Task::Finally, argv, None));
        let end = self.snapshot_end.iter().map(|argv| (Task::SnapshotEnd, argv, self.snapshot_path.clone()));
        let own = end.chain(finally).map(|(task, argv, path)| Chore { task, argv: argv.clone(), path });
        let mut all: Vec<Chore> = Vec::new();
        for chore in self.left.iter().cloned().chain(own) {
            if !all.contains(&chore) {
                all.push(chore);
            }
        }
        all
    }

    /// Adds what could not be done; the oldest is given up where that is too much.
    pub fn leave(&mut self, chores: Vec<Chore>) {
        for chore in chores {
            if !self.left.contains(&chore) {
                self.left.push(chore);
            }
        }
        self.left.drain(..self.left.len().saturating_sub(Self::LEFT_MAX));
    }
}

/// The state folder of a plan.
#[derive(Debug, Clone)]
pub struct State {
    pub(super) folder: PathBuf,
    /// Folders of other plans for the same host.
    pub(crate) others: Vec<Other>,
    /// What is locked together with a domain, by whichever plan it is run.
    pub(super) shared: Option<Shared>,
}

impl State {
    /// In this folder, which is made.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(folder: &Path) -> io::Result<Self> {
        // Copies of databases lie in it for a while.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self::at(folder))
    }

    /// In this folder, which is there.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), others: Vec::new(), shared: None }
    }

    /// A file of the plan as a whole.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, domain: &Name, kind: &str) -> PathBuf {
        self.folder.join(format!("{domain}.{kind}"))
    }

    /// Takes the domain for this process, and tells others since when.
    ///
    /// # Errors
    /// Where the lock cannot be made.
    pub fn take(&self, domain: &Name, since: Timestamp) -> io::Result<Taken> {
        let mut taken = self.take_all(domain)?;
        if let Taken::Mine(lock) = &mut taken {
            lock.say(since);
        }
        Ok(taken)
    }

    /// The same where nobody is waited for: whoever looks whether somebody is at work has it for a moment, and whoever has just
    /// taken it has not said so yet.
    ///
    /// # Errors
    /// Where the lock cannot be made.
    pub fn take_soon(&self, domain: &Name, since: Timestamp) -> io::Result<Taken> {
        let mut taken = self.take(domain, since)?;
        for _ in 0..LOOKS {
            if matches!(taken, Taken::Mine(_)) {
                break;
            }
            thread::sleep(LOOK_PAUSE);
            taken = self.take(domain, since)?;
        }
        Ok(taken)
    }

    /// The same for a moment; `None` if another one has it.
    ///
    /// # Errors
    /// Where the lock cannot be made.
    pub fn lock(&self, domain: &Name) -> io::Result<Option<Lock>> {
        Ok(self.take_all(domain)?.mine())
    }

    fn take_all(&self, domain: &Name) -> io::Result<Taken> {
        let mut lock = match Lock::take(&self.file(domain, "lock"))? {
            Taken::Mine(lock) => lock,
            held @ Taken::Held(_) => return Ok(held),
        };
        // All take them in the same order. What was taken is given back where one is not to be had.
        for path in self.shared.iter().flat_map(|shared| shared.files(domain)) {
            match Lock::take(&path)? {
                Taken::Mine(shared) => lock.join(shared),
                held @ Taken::Held(_) => return Ok(held),
            }
        }
        Ok(Taken::Mine(lock))
    }

    /// The same among those who use this folder: whether the one that wrote what is in it is at work still.
    ///
    /// # Errors
    /// Where the lock cannot be made.
    pub fn lock_own(&self, domain: &Name) -> io::Result<Option<Lock>> {
        Ok(Lock::take(&self.file(domain, "lock"))?.mine())
    }

    /// What a run that was killed has left to do.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn journal(&self, domain: &Name) -> io::Result<Option<Journal>> {
        match fs::read(self.file(domain, "journal")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes what is to be done if the run is killed. It is on disk when this returns.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn note(&self, domain: &Name, journal: &Journal) -> io::Result<()> {
        write_whole(&self.file(domain, "journal"), &serde_json::to_vec(journal)?)
    }

    /// Forgets the journal and removes temporary files.
    ///
    /// # Errors
    /// Where they cannot be removed.
    pub fn clear(&self, domain: &Name) -> io::Result<()> {
        self.clear_stage(domain)?;
        absent_is_well(fs::remove_file(self.file(domain, "journal")))
    }

    /// Removes temporary files.
    ///
    /// # Errors
    /// Where they cannot be removed.
    pub fn clear_stage(&self, domain: &Name) -> io::Result<()> {
        absent_is_well(fs::remove_dir_all(self.file(domain, "stage")))
    }

    /// An empty folder for temporary files of a run.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn stage(&self, domain: &Name) -> io::Result<PathBuf> {
        self.clear_stage(domain)?;
        let folder = self.file(domain, "stage");
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(folder)
    }

    /// Notes an attempt.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn record(&self, attempt: &Attempt) -> io::Result<()> {
        self.append(ATTEMPTS, attempt)
    }

    /// All attempts that are remembered, in the order they ended. A line that is not whole, as after a power cut, is passed
    /// over.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn attempts(&self) -> io::Result<Vec<Attempt>> {
        self.records(ATTEMPTS)
    }
}

/// Writes a file so that it is there whole or as it was.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

pub(crate) fn absent_is_well(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::lines::LEN_MAX;
    use crate::testing::name;

    fn attempt(number: i64) -> Attempt {
        Attempt {
            domain: name("shop"),
            began: Timestamp::from_second(number).expect("a time"),
            ended: None,
            outcome: Outcome::Failed,
            message: Some("no reason, but a long one ".repeat(20)),
            at_work_since: None,
            repositories: BTreeMap::new(),
        }
    }

    #[test]
    fn a_domain_has_one_run_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(&folder.path().join("a/b")).expect("made");
        let first = state.lock(&name("shop")).expect("a lock").expect("free");
        assert!(state.lock(&name("shop")).expect("a lock").is_none());
        assert!(state.lock(&name("other")).expect("a lock").is_some());
        drop(first);
        assert!(state.lock(&name("shop")).expect("a lock").is_some());
    }

    #[test]
    fn whoever_only_looks_whether_somebody_is_at_work_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        let look = state.lock_own(&name("shop")).expect("a lock").expect("free");
        let looks = thread::spawn(move || {
            thread::sleep(LOOK_PAUSE * 2);
            drop(look);
        });
        let taken = state.take_soon(&name("shop"), Timestamp::UNIX_EPOCH).expect("a lock");
        looks.join().expect("no panic");
        assert!(matches!(taken, Taken::Mine(_)), "{taken:?}");
    }

    #[test]
    fn a_journal_stays_until_it_is_cleared() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        let shop = name("shop");
        assert_eq!(state.journal(&shop).expect("readable"), None);
        let argv = Argv::try_from(vec!["true".to_owned()]).expect("a command");
        let journal = Journal {
            began: Timestamp::UNIX_EPOCH,
            snapshot_end: Some(argv.clone()),
            snapshot_path: None,
            finally: vec![argv],
            mark: "m".into(),
            left: Vec::new(),
        };
        state.note(&shop, &journal).expect("noted");
        fs::write(state.stage(&shop).expect("a folder").join("copy"), "x").expect("written");
        assert_eq!(state.journal(&shop).expect("readable"), Some(journal));
        state.clear(&shop).expect("cleared");
        state.clear(&shop).expect("nothing is there");
        assert_eq!(state.journal(&shop).expect("readable"), None);
        fs::write(folder.path().join("shop.journal"), "{").expect("written");
        assert!(state.journal(&shop).is_err(), "half a journal is no journal");
    }

    #[test]
    fn attempts_are_remembered_and_do_not_grow_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        assert_eq!(state.attempts().expect("readable"), []);
        for number in 0..3 {
            state.record(&attempt(number)).expect("recorded");
        }
        let file = state.path(ATTEMPTS);
        let mut text = fs::read_to_string(&file).expect("text");
        text.push_str("{\"domain\":\"sh");
        fs::write(&file, &text).expect("cut short");
        assert_eq!(state.attempts().expect("readable"), [attempt(0), attempt(1), attempt(2)]);
        // Its lock is of another name than that of the records.
        let _lock = state.lock(&name("attempts")).expect("a lock");
        state.record(&attempt(3)).expect("recorded");
        let found = state.attempts().expect("readable");
        assert_eq!(found, [attempt(0), attempt(1), attempt(2), attempt(3)], "half a line swallows no other");
        let line = text.lines().next().expect("a line").to_owned() + "\n";
        let count = LEN_MAX as usize / line.len() + 1;
        fs::write(&file, line.repeat(count)).expect("written");
        state.record(&attempt(7)).expect("recorded");
        let left = state.attempts().expect("readable");
        assert!(left.len() <= count / 2 + 2 && left.last() == Some(&attempt(7)), "{}", left.len());
    }
}
