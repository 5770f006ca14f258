//! Where drills leave things: the scratch directory, the journal of what is to be cleaned up after a kill, and the record of
//! how drills ended.
//!
//! In the state folder of a plan: `drill.NAME.lock`, `drill.NAME.journal`, and `drills.jsonl`, a line for each drill. A scratch
//! directory has a file in it that says whose it is: nothing else is ever removed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::drill::record::DrillRecord;
use crate::plan::types::{Drill, Tier};
use crate::plan::values::Name;

/// The variable that tells the processes of a drill.
pub const TOKEN: &str = "STRONGROOM_DRILL_TOKEN";
/// The file that makes a directory a scratch directory.
const MARK: &str = ".strongroom-drill";
/// Length at which the older half of the records is dropped.
const RECORDS_LEN_MAX: u64 = 4 << 20;

/// What is to be cleaned up if a drill does not get to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// When it began.
    pub began: Timestamp,
    /// How much it restores.
    pub tier: Tier,
    /// From where.
    pub repository: Name,
    /// Where it restores to.
    pub scratch: PathBuf,
    /// What its processes have in their environment.
    pub token: String,
}

/// The state folder of a plan, as drills use it.
#[derive(Debug, Clone)]
pub struct Place {
    folder: PathBuf,
}

/// As long as it lives, nobody else runs the drill.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Place {
    /// In this folder, which is there.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn file(&self, drill: &Name, kind: &str) -> PathBuf {
        self.folder.join(format!("drill.{drill}.{kind}"))
    }

    /// The scratch directory of a drill.
    pub fn scratch(&self, drill: &Drill) -> PathBuf {
        let above = drill.scratch.as_ref().map_or_else(|| self.folder.join("scratch"), PathBuf::from);
        above.join(drill.name.as_str())
    }

    /// Takes the drill for this process; none if another one has it.
    ///
    /// # Errors
    /// Where the lock cannot be made.
    pub fn lock(&self, drill: &Name) -> io::Result<Option<Lock>> {
        let options = File::options().create(true).truncate(false).write(true).mode(0o600).clone();
        let file = options.open(self.file(drill, "lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes what is to be cleaned up, and makes an empty scratch directory.
    ///
    /// # Errors
    /// Where that cannot be, or the directory is there and is somebody else's.
    pub fn begin(&self, drill: &Name, journal: &Journal) -> io::Result<()> {
        let path = self.file(drill, "journal");
        let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(&self.folder)?;
        file.write_all(&serde_json::to_vec(journal)?)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        // Without a scratch directory there is nothing to clean up.
        make_scratch(&journal.scratch).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    /// What a drill that was killed has left.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn journal(&self, drill: &Name) -> io::Result<Option<Journal>> {
        match fs::read(self.file(drill, "journal")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends what is left of a drill's processes, removes its scratch directory, and forgets the journal.
    ///
    /// # Errors
    /// Where something cannot be removed: the journal stays.
    pub fn clear(&self, drill: &Name, journal: &Journal) -> io::Result<()> {
        end_processes(&journal.token);
        remove_scratch(&journal.scratch)?;
        fs::remove_file(self.file(drill, "journal"))
    }

    /// Notes how a drill ended.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn record(&self, record: &DrillRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let guard = File::create(self.folder.join("drills.lock"))?;
        flock(&guard, FlockOperation::LockExclusive)?;
        let path = self.folder.join("drills.jsonl");
        let mut file = File::options().create(true).append(true).mode(0o600).open(&path)?;
        file.write_all(&line)?;
        if file.metadata()?.len() > RECORDS_LEN_MAX {
            let all = self.records()?;
            let mut kept = tempfile::Builder::new().prefix(".new").tempfile_in(&self.folder)?;
            for record in &all[all.len() / 2..] {
                serde_json::to_writer(&mut kept, record)?;
                kept.write_all(b"\n")?;
            }
            kept.as_file().sync_all()?;
            kept.persist(&path)?;
        }
        Ok(())
    }

    /// All drills that are remembered, in the order they ended. A line that is not whole is passed over.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn records(&self) -> io::Result<Vec<DrillRecord>> {
        let file = match File::open(self.folder.join("drills.jsonl")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let lines = BufReader::new(file).split(b'\n').collect::<Result<Vec<_>, _>>()?;
        Ok(lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

fn make_scratch(scratch: &Path) -> io::Result<()> {
    remove_scratch(scratch)?;
    DirBuilder::new().recursive(true).mode(0o700).create(scratch)?;
    File::create(scratch.join(MARK)).map(|_| ())
}

/// Removes a scratch directory, which has its mark or is empty.
fn remove_scratch(scratch: &Path) -> io::Result<()> {
    let is_ours = match fs::symlink_metadata(scratch) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) => {
            found.is_dir() && (scratch.join(MARK).is_file() || fs::read_dir(scratch)?.next().is_none())
        }
    };
    if !is_ours {
        let message =
            format!("{} is there already, and was not made by a drill: it was left alone", scratch.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    // The mark goes last: what is left of a removal that was interrupted is known again.
    for entry in fs::read_dir(scratch)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false if entry.file_name() == MARK => {}
            false => fs::remove_file(entry.path())?,
        }
    }
    match fs::remove_file(scratch.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_dir(scratch)
}

/// Ends processes that have the token of a drill in their environment.
fn end_processes(token: &str) {
    let wanted = format!("{TOKEN}={token}");
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let is_of_drill = fs::read(process.path().join("environ")).is_ok_and(|environment| {
            environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
        });
        if let Some(pid) = Pid::from_raw(number).filter(|_| is_of_drill) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
