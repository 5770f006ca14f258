//! What the processes of a simulation do.
//!
//! Each is a row of commands, every one of which opens the repository anew. A command may fail for one of these reasons
//! only: something went wrong on purpose for this very process, or others took away what it rested on, and it says so.
//! It is then given again, as its user would.

use std::sync::{Arc, Mutex, MutexGuard};

use strongroom::backup::{BackupError, BackupReport};
use strongroom::browse::{self, Found};
use strongroom::crypto::keys::BlobKind;
use strongroom::forget::ForgetError;
use strongroom::format::chunk_list;
use strongroom::format::snapshot::Snapshot;
use strongroom::format::tree::{Node, NodeKind};
use strongroom::ids::SnapshotId;
use strongroom::prune::PruneError;
use strongroom::repo::{Environment, Repository, RepositoryError};
use strongroom::vet::VetError;

use super::audit;
use super::command::Command;
use super::schedule::Schedule;
use super::storage::Wire;
use super::told::Told;
use super::world::{self, Who};

/// How often a command is given.
const TRIES: u32 = 20;

/// One of several processes.
pub struct Process {
    pub number: usize,
    pub seed: u64,
    /// How wrong its clock is, in seconds.
    pub skew: i64,
    /// Others have append-only passwords, and may say what is not so.
    pub with_appenders: bool,
    pub commands: Vec<Command>,
    pub wire: Wire,
    pub schedule: Arc<Schedule>,
    pub told: Arc<Mutex<Told>>,
}

/// Why a command did not do what it should.
pub enum Failed {
    /// Others were in the way; it says so.
    Conflict(String),
    /// It should not have.
    Unexpected(String),
}

impl Process {
    /// Does all commands.
    ///
    /// # Errors
    /// What must not happen.
    pub fn run(&self) -> Result<(), String> {
        for command in &self.commands {
            self.give(*command)?;
        }
        Ok(())
    }

    fn give(&self, command: Command) -> Result<(), String> {
        let mut last = String::new();
        for attempt in 0..TRIES {
            if self.schedule.is_dead(self.number) {
                return Ok(());
            }
            let before = self.schedule.mishaps(self.number);
            let result = self
                .open(attempt, command.who())
                .and_then(|repository| self.execute(command, attempt, &repository));
            last = match result {
                Ok(()) => return Ok(()),
                Err(Failed::Conflict(error) | Failed::Unexpected(error))
                    if self.schedule.mishaps(self.number) > before =>
                {
                    error
                }
                Err(Failed::Conflict(error)) => error,
                Err(Failed::Unexpected(error)) => return Err(format!("{command:?}: {error}")),
            };
        }
        Err(format!("{command:?} does not get through: {last}"))
    }

    fn open(&self, attempt: u32, who: Who) -> Result<Repository, Failed> {
        world::open(Arc::new(self.wire.clone()), self.environment(attempt), who)
            .map_err(|error| Failed::Unexpected(format!("open: {error}")))
    }

    /// Its surroundings now. No two processes get the same random numbers.
    pub fn environment(&self, attempt: u32) -> Environment {
        let turns = self.schedule.turns().len() as u64;
        world::environment(self.seed ^ (turns << 32), self.number, self.skew + i64::from(attempt))
    }

    /// What processes have been told.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("whole")
    }

    fn execute(&self, command: Command, attempt: u32, repository: &Repository) -> Result<(), Failed> {
        match command {
            Command::BackUp(number) | Command::Append(number) => {
                self.made(world::back_up(repository, number))
            }
            Command::BackUpDirectory(number) | Command::AppendDirectory(number) => {
                self.made(world::back_up_directory(repository, number))
            }
            // Whatever it reads may go meanwhile.
            Command::Lie => world::lie(repository).map_err(|error| Failed::Conflict(error.to_string())),
            Command::Forget(which) => self.forget(repository, which),
            Command::Prune(grace) => match world::prune(repository, grace) {
                Ok(_) => Ok(()),
                Err(
                    error @ (PruneError::Overtaken
                    | PruneError::Vet(VetError::Repository(RepositoryError::Conflict))),
                ) => Err(Failed::Conflict(error.to_string())),
                Err(error) => Err(Failed::Unexpected(error.to_string())),
            },
            Command::Check { is_deep } => {
                let report = world::check(repository, is_deep)
                    .map_err(|error| Failed::Unexpected(error.to_string()))?;
                if report.overtaken {
                    return Err(Failed::Conflict("overtaken".into()));
                }
                if let Some(error) = report.ledger_error {
                    return Err(Failed::Unexpected(format!("the ledger: {error}")));
                }
                if audit::is_worse_than_lies(&report) {
                    return Err(Failed::Unexpected(format!("{:#?}", report.findings)));
                }
                Ok(())
            }
            Command::Read => self.read_all(repository, &read),
            Command::Restore => self.read_all(repository, &world::restore),
            Command::ForgetByPolicy => self.forget_by_policy(repository),
            Command::Hold(which) => self.hold(repository, which),
            Command::Release(which) => self.release(repository, which),
            Command::AddParity => self.add_parity(repository),
            Command::DropParity => self.drop_parity(repository),
            Command::RepairIndex => self.repair_index(repository),
            Command::RepairPacks { is_thorough } => self.repair_packs(repository, is_thorough),
            Command::RepairLost => self.repair_lost(repository),
            Command::RepairSnapshots => self.repair_snapshots(repository),
            Command::CopyIn(which) => self.copy_in(repository, which),
            Command::CopyOut => self.copy_out(repository),
            Command::AddPassword => self.add_password(repository),
            Command::RemovePassword(which) => self.remove_password(repository, which),
            Command::ChangePassword(which) => self.change_password(repository, attempt, which),
        }
    }

    fn made(&self, result: Result<BackupReport, BackupError>) -> Result<(), Failed> {
        match result {
            Ok(report) => match report.snapshot {
                Some(id) => {
                    self.told().is_made(id);
                    Ok(())
                }
                None => Err(Failed::Unexpected(format!("no snapshot was made: {report:?}"))),
            },
            Err(error @ BackupError::Repository(RepositoryError::Conflict)) => {
                Err(Failed::Conflict(error.to_string()))
            }
            Err(error) => Err(Failed::Unexpected(error.to_string())),
        }
    }

    fn forget(&self, repository: &Repository, which: u64) -> Result<(), Failed> {
        let snapshots = snapshots(repository)?;
        let Some((id, _)) = snapshots.get(which as usize % snapshots.len().max(1)) else { return Ok(()) };
        let (held, begun) = {
            let mut told = self.told();
            told.forgotten.insert(*id);
            (told.holds.state(id), told.begin_to_forget())
        };
        let result = world::forget(repository, *id);
        let mut told = self.told();
        match result {
            Ok(()) if held.0 && told.holds.state(id) == held => {
                Err(Failed::Unexpected(format!("{id} is held, and was forgotten")))
            }
            Ok(()) => {
                told.is_forgotten(*id, begun);
                Ok(())
            }
            // As it should be.
            Err(ForgetError::Held { .. }) if told.holds.may_hold(id) => Ok(()),
            Err(error) => Err(Failed::Unexpected(error.to_string())),
        }
    }

    /// Reads all snapshots. One that cannot be read has to be one that was forgotten meanwhile.
    fn read_all(
        &self,
        repository: &Repository,
        read: &dyn Fn(&Repository, &Snapshot) -> Result<(), String>,
    ) -> Result<(), Failed> {
        for (id, snapshot) in snapshots(repository)? {
            if let Err(error) = read(repository, &snapshot) {
                let unexpected = |error: String| Failed::Unexpected(format!("snapshot {id}: {error}"));
                repository.refresh().map_err(|error| unexpected(error.to_string()))?;
                if repository.fold().snapshot(&id).is_some() {
                    return Err(unexpected(error));
                }
            }
        }
        Ok(())
    }
}

pub fn snapshots(repository: &Repository) -> Result<Vec<(SnapshotId, Snapshot)>, Failed> {
    repository.snapshots().map_err(|error| Failed::Unexpected(error.to_string()))
}

/// Reads the file of a snapshot chunk by chunk. A reader that finds something gone reads the log on and looks again.
pub fn read(repository: &Repository, snapshot: &Snapshot) -> Result<(), String> {
    let path = String::from_utf8_lossy(&snapshot.paths[0]).into_owned();
    let number = world::number_of(&path, "c").expect("only streams are read like this");
    let mut last = String::new();
    for _ in 0..TRIES {
        match read_once(repository, snapshot, &path) {
            Ok(bytes) if bytes == world::content(number) => return Ok(()),
            Ok(_) => panic!("{path} reads as something else"),
            Err(error) => last = error,
        }
        let before = repository.fold().seq();
        repository.refresh().map_err(|error| error.to_string())?;
        if repository.fold().seq() == before {
            break;
        }
    }
    Err(last)
}

fn read_once(repository: &Repository, snapshot: &Snapshot, path: &str) -> Result<Vec<u8>, String> {
    let reader = repository.reader();
    let found = browse::find(reader, &snapshot.tree, path.as_bytes()).map_err(|error| error.to_string())?;
    let Found::Node(Node { kind: NodeKind::File(content), .. }) = found else { panic!("{path} is no file") };
    let mut bytes = Vec::new();
    for chunk in chunk_list::chunks(&content.chunks).expect("a table") {
        let id = chunk.expect("a chunk").id;
        bytes.extend(reader.read(BlobKind::Data, &id).map_err(|error| error.to_string())?);
    }
    Ok(bytes)
}
