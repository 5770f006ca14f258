//! Copies to and from another repository, which has keys of its own.

use std::sync::{Arc, LazyLock};

use strongroom::backend::MemoryBackend;
use strongroom::backup::BackupError;
use strongroom::copy::{self, Choice, CopyError, CopyOptions, CopyReport, Fate};
use strongroom::ids::SnapshotId;
use strongroom::monitor::Silent;
use strongroom::repo::{Repository, RepositoryError};
use strongroom::testing;

use super::process::{Failed, Process, read};
use super::world;

/// The other repository: opened, empty, and with snapshots. Nothing goes wrong there, and nobody else is at work.
struct Other {
    hand: Repository,
    empty: MemoryBackend,
    full: MemoryBackend,
    snapshots: Vec<SnapshotId>,
}

static OTHER: LazyLock<Other> = LazyLock::new(|| {
    let storage = MemoryBackend::new().called("the other repository");
    let hand = testing::init(Arc::new(storage.clone()), 77);
    let empty = storage.snapshot();
    // Some of which is backed up to the simulated repository, too.
    let made = [1, 4, 8].map(|number| world::back_up(&hand, number).expect("backed up").snapshot);
    let snapshots = made.map(|id| id.expect("a snapshot")).to_vec();
    Other { hand, empty, full: storage.snapshot(), snapshots }
});

impl Other {
    fn open(&self, storage: &MemoryBackend, process: usize) -> Repository {
        let environment = world::environment(9, process, 0);
        self.hand.open_again(Arc::new(storage.snapshot()), environment).expect("nothing goes wrong there")
    }
}

fn options(choice: Choice) -> CopyOptions {
    CopyOptions { choice, threads: 1, level: 1, ..CopyOptions::default() }
}

fn copy_in(target: &Repository, process: usize, which: Option<u64>) -> Result<CopyReport, CopyError> {
    let choice = match which {
        Some(which) => Choice::Named(vec![OTHER.snapshots[which as usize % OTHER.snapshots.len()]]),
        None => Choice::All,
    };
    copy::run(&OTHER.open(&OTHER.full, process), target, &options(choice), &Silent)
}

impl Process {
    pub fn copy_in(&self, repository: &Repository, which: Option<u64>) -> Result<(), Failed> {
        let report = match copy_in(repository, self.number, which) {
            Ok(report) => report,
            Err(error @ CopyError::Target(BackupError::Repository(RepositoryError::Conflict))) => {
                return Err(Failed::Conflict(error.to_string()));
            }
            Err(error) => return Err(Failed::Unexpected(error.to_string())),
        };
        if !report.is_complete() {
            return Err(Failed::Unexpected(format!("not all was copied: {report:#?}")));
        }
        let mut told = self.told();
        report.snapshots.iter().filter_map(|copied| copied.target).for_each(|id| told.is_made(id));
        Ok(())
    }

    /// What is copied elsewhere has to be whole there, whatever others do here meanwhile.
    pub fn copy_out(&self, repository: &Repository) -> Result<(), Failed> {
        let target = OTHER.open(&OTHER.empty, self.number);
        let report = copy::run(repository, &target, &options(Choice::All), &Silent)
            .map_err(|error| Failed::Unexpected(error.to_string()))?;
        for copied in &report.snapshots {
            match (&copied.fate, copied.target) {
                (Fate::Copied, Some(_)) | (Fate::Forgotten, None) => {}
                _ => return Err(Failed::Unexpected(format!("{copied:?}"))),
            }
        }
        let made = target.snapshots().map_err(|error| Failed::Unexpected(error.to_string()))?;
        if made.len() != report.count(|fate| *fate == Fate::Copied) {
            return Err(Failed::Unexpected(format!("there are {} copies: {report:#?}", made.len())));
        }
        for (id, snapshot) in made {
            let is_stream = world::number_of(&String::from_utf8_lossy(&snapshot.paths[0]), "c").is_some();
            let same = if is_stream { read(&target, &snapshot) } else { world::restore(&target, &snapshot) };
            same.map_err(|error| Failed::Unexpected(format!("the copy {id}: {error}")))?;
        }
        Ok(())
    }
}

/// Makes sure that all can be copied, and that what is there is not copied again.
pub fn audit(open: &mut dyn FnMut() -> Result<Repository, String>) -> Result<Vec<SnapshotId>, String> {
    let first = copy_in(&open()?, 980, None).map_err(|error| format!("the next copy: {error}"))?;
    if !first.is_complete() {
        return Err(format!("the next copy: {first:#?}"));
    }
    let repository = open()?;
    let before = repository.fold().seq();
    let second = copy_in(&repository, 981, None).map_err(|error| format!("the copy after it: {error}"))?;
    let is_still = second.chunks_read == 0 && second.bytes_stored == 0 && repository.fold().seq() == before;
    if !is_still || second.snapshots.iter().any(|copied| copied.fate != Fate::Present) {
        return Err(format!("the same is copied again: {second:#?}"));
    }
    Ok(first.snapshots.iter().filter_map(|copied| copied.target).collect())
}
