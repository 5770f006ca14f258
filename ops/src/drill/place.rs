//! Where drills leave things: the scratch directory, the journal of what is to be cleaned up after a kill, and the record of
//! how drills ended.
//!
//! In the state folder of a plan, beside what domains have there: `drill.NAME.lock`, `drill.NAME.journal`, and `drills.jsonl`, a line for each drill.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::drill::record::DrillRecord;
use crate::drill::scratch;
use crate::plan::types::{Drill, Tier};
use crate::plan::values::{Argv, Name};
use crate::run::lock::Lock;
use crate::run::marks;
use crate::run::state::{State, write_whole};

/// The variable that tells the processes of a drill.
pub const TOKEN: &str = "STRONGROOM_DRILL_TOKEN";
/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);
const RECORDS: &str = "drills.jsonl";

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
    /// Commands that remove what its steps have left elsewhere; none as long as no step was begun.
    #[serde(default)]
    pub cleanup: Vec<Argv>,
    /// What these have in their environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
}

/// The state folder of a plan, as drills use it.
#[derive(Debug, Clone)]
pub struct Place {
    state: State,
}

impl Place {
    /// In this folder, which is there.
    pub fn new(folder: &Path) -> Self {
        Self { state: State::at(folder) }
    }

    fn file(&self, drill: &Name, kind: &str) -> PathBuf {
        self.state.path(&format!("drill.{drill}.{kind}"))
    }

    /// The scratch directory of a drill.
    pub fn scratch(&self, drill: &Drill) -> PathBuf {
        let above = drill.scratch.as_ref().map_or_else(|| self.state.path("scratch"), PathBuf::from);
        above.join(drill.name.as_str())
    }

    /// Takes the drill for this process; none if another one has it.
    ///
    /// # Errors
    /// Where the lock cannot be made.
    pub fn lock(&self, drill: &Name) -> io::Result<Option<Lock>> {
        Ok(Lock::take(&self.file(drill, "lock"))?.mine())
    }

    /// Notes what is to be cleaned up, and makes an empty scratch directory.
    ///
    /// # Errors
    /// Where that cannot be, or the directory is there and is somebody else's.
    pub fn begin(&self, drill: &Name, journal: &Journal) -> io::Result<()> {
        self.note(drill, journal)?;
        // Without a scratch directory there is nothing to clean up.
        scratch::make(&journal.scratch, &journal.token).inspect_err(|_| {
            let _ = fs::remove_file(self.file(drill, "journal"));
        })
    }

    /// Notes anew what is to be cleaned up.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn note(&self, drill: &Name, journal: &Journal) -> io::Result<()> {
        write_whole(&self.file(drill, "journal"), &serde_json::to_vec(journal)?)
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

    /// Ends what is left of a drill's processes, removes its scratch directory, and forgets the journal. A scratch directory that
    /// another drill has made meanwhile is left alone.
    ///
    /// # Errors
    /// Where something cannot be removed: the journal stays.
    pub fn clear(&self, drill: &Name, journal: &Journal) -> io::Result<()> {
        end_processes(&journal.token);
        scratch::remove(&journal.scratch, &journal.token)?;
        fs::remove_file(self.file(drill, "journal"))
    }

    /// Removes the scratch directory alone.
    ///
    /// # Errors
    /// Where something of it cannot be removed.
    pub fn remove_scratch(&self, journal: &Journal) -> io::Result<()> {
        scratch::remove(&journal.scratch, &journal.token)
    }

    /// Notes how a drill ended.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn record(&self, record: &DrillRecord) -> io::Result<()> {
        self.state.append(RECORDS, record)
    }

    /// All drills that are remembered, in the order they ended. A line that is not whole is passed over.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn records(&self) -> io::Result<Vec<DrillRecord>> {
        self.state.records(RECORDS)
    }
}

/// Ends processes that have the token of a drill in their environment, and waits until they are gone: what they are about to write
/// would be in the way of a removal.
pub(super) fn end_processes(token: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = marks::having(&format!("{TOKEN}={token}"));
        for pid in &left {
            let _ = kill_process(*pid, Signal::KILL);
        }
        if left.is_empty() || Instant::now() >= until {
            return;
        }
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::record::DrillOutcome;
    use crate::testing::name;

    #[test]
    fn records_meet_no_domain_and_half_of_one_costs_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (place, state) = (Place::new(folder.path()), State::at(folder.path()));
        let record = |reason: &str| DrillRecord {
            drill: name("d"),
            tier: Tier::Full,
            repository: None,
            began: Timestamp::UNIX_EPOCH,
            outcome: DrillOutcome::Fail,
            reason: Some(reason.into()),
            self_test: false,
            restored: Vec::new(),
            phases: Vec::new(),
            rto: None,
        };
        // A domain may be called so, and may be at work for hours.
        let lock = state.lock(&name("drills")).expect("a lock").expect("free");
        let (done, heard) = std::sync::mpsc::channel();
        let (there, first) = (place.clone(), record("one"));
        thread::spawn(move || done.send(there.record(&first)).expect("heard"));
        let recorded = heard.recv_timeout(Duration::from_secs(20)).expect("nobody is waited for");
        recorded.expect("written");
        drop(lock);
        let file = folder.path().join(RECORDS);
        let whole = fs::read_to_string(&file).expect("text");
        fs::write(&file, format!("{whole}{}", &whole[..20])).expect("cut short");
        place.record(&record("two")).expect("written");
        let reasons: Vec<_> =
            place.records().expect("readable").into_iter().filter_map(|record| record.reason).collect();
        assert_eq!(reasons, ["one", "two"]);
    }
}
