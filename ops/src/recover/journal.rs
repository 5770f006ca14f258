//! How far a recovery is. A file per domain, replaced as a whole and on disk before each step that something would be left of.
//!
//! In the state folder of a plan: `DOMAIN.recover`. It stays as long as what was there before is kept.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom::ids::SnapshotId;

use crate::plan::Plan;
use crate::plan::values::Name;
use crate::recover::preview::Preview;
use crate::recover::stored;
use crate::recover::targets::Target;
use crate::run::state::{State, absent_is_well, write_whole};

/// Version of the file.
const VERSION: u32 = 1;

/// The steps of a recovery, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Nothing was begun.
    Waiting,
    /// Restoring beside what is there.
    Stage,
    /// Comparing with the repository.
    Verify,
    /// Loading streams under another name.
    Load,
    /// Stopping what uses the data.
    Stop,
    /// Putting what was restored in its place.
    Swap,
    /// Starting what uses the data.
    Start,
    /// Asking it.
    Health,
    /// All is in its place; what was there before is kept.
    Done,
    /// What was there before is in its place again; what was restored is kept.
    Undone,
    /// What is kept is being removed.
    Removing,
}

impl Step {
    pub(super) const ALL: [Self; 11] = [
        Self::Waiting,
        Self::Stage,
        Self::Verify,
        Self::Load,
        Self::Stop,
        Self::Swap,
        Self::Start,
        Self::Health,
        Self::Done,
        Self::Undone,
        Self::Removing,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Stage => "stage",
            Self::Verify => "verify",
            Self::Load => "load",
            Self::Stop => "stop",
            Self::Swap => "swap",
            Self::Start => "start",
            Self::Health => "health",
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Removing => "removing",
        }
    }
}

/// How long a step took, all attempts together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// The step.
    pub step: Step,
    /// Seconds.
    pub seconds: f64,
}

/// Whether something was begun, and done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Not begun.
    #[default]
    No,
    /// Begun: it is not known how far it is.
    Begun,
    /// There is something that was made for it.
    Made,
    /// Done.
    Done,
}

/// A stream that is loaded under another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The stream.
    pub stream: String,
    /// The name that it is restored under.
    pub target: String,
    /// The name that what was in use has afterwards.
    pub old: String,
    /// Whether it is restored.
    pub loaded: Progress,
    /// Whether it is in use.
    pub swapped: Progress,
}

impl Load {
    /// Whether there is something of its name that this recovery has made: a name that it did not think of, and that nothing was
    /// made under, may be another's.
    pub(super) fn is_ours(&self, id: &str, has_create: bool) -> bool {
        let is_thought_of = self.loaded >= Progress::Begun && self.target.contains(id);
        is_thought_of || has_create && self.loaded >= Progress::Made
    }
}

/// How far the recovery of a domain is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// Version of this file.
    version: u32,
    /// The recovery, of one or several domains.
    pub id: String,
    /// The domain's place in it.
    pub number: usize,
    /// All domains of it.
    pub with: Vec<Name>,
    /// The domain.
    pub domain: Name,
    /// From where.
    pub repository: Name,
    /// What.
    pub snapshot: SnapshotId,
    /// When the recovery began.
    pub began: Timestamp,
    /// What its commands are known by after a kill.
    pub mark: String,
    /// Where it is, or, on the way back, how far it got.
    pub step: Step,
    /// Why it is on its way back, if it is.
    pub back: Option<String>,
    /// Whether what was restored is kept when it is back.
    pub keeps: bool,
    /// Files and directories.
    pub targets: Vec<Target>,
    /// Streams.
    pub loads: Vec<Load>,
    /// Directories that were made above targets.
    #[serde(with = "stored::list")]
    pub made: Vec<PathBuf>,
    /// Where streams are put before they are loaded.
    #[serde(with = "stored")]
    pub scratch: PathBuf,
    /// How long steps took.
    pub timed: Vec<Timed>,
    /// Files that were restored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is left to do, for people.
    pub left: Vec<String>,
}

impl Journal {
    /// Of a recovery that has not begun.
    pub(super) fn new(
        id: &str,
        number: usize,
        preview: &Preview,
        mark: &str,
        began: Timestamp,
        with: &[Name],
    ) -> Self {
        Self {
            version: VERSION,
            id: id.to_owned(),
            number,
            with: with.to_vec(),
            domain: preview.domain.clone(),
            repository: preview.repository.clone(),
            snapshot: preview.snapshot,
            began,
            mark: mark.to_owned(),
            step: Step::Waiting,
            back: None,
            keeps: false,
            targets: preview.targets.iter().map(|found| found.target.clone()).collect(),
            loads: preview.loads(),
            made: Vec::new(),
            scratch: preview.scratch.clone(),
            timed: Vec::new(),
            files: 0,
            bytes: 0,
            left: preview.left.clone(),
        }
    }

    /// Whether it is neither done nor undone.
    pub fn is_unfinished(&self) -> bool {
        self.back.is_some() || !matches!(self.step, Step::Done | Step::Undone | Step::Removing)
    }

    /// Whether there is nothing but something to remove.
    pub fn is_leftover(&self) -> bool {
        self.back.is_none() && matches!(self.step, Step::Undone | Step::Removing)
    }

    /// Whether anything may be in the place of what was there.
    pub(super) fn has_swapped(&self) -> bool {
        self.targets.iter().any(|target| target.identity.is_some())
            || self.loads.iter().any(|load| load.swapped != Progress::No)
    }

    pub(super) fn took(&mut self, step: Step, seconds: f64) {
        match self.timed.iter_mut().find(|timed| timed.step == step) {
            Some(timed) => timed.seconds += seconds,
            None => self.timed.push(Timed { step, seconds }),
        }
    }
}

impl State {
    /// How far the recovery of a domain is; none if there was none, or nothing of it is kept.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn recovery(&self, domain: &Name) -> io::Result<Option<Journal>> {
        let bytes = match fs::read(self.path(&format!("{domain}.recover"))) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let journal: Journal = serde_json::from_slice(&bytes)?;
        match journal.version {
            VERSION => Ok(Some(journal)),
            other => {
                let message = format!(
                    "the journal of the recovery of {domain} has version {other}, this program knows {VERSION}"
                );
                Err(io::Error::new(ErrorKind::InvalidData, message))
            }
        }
    }

    /// Those of all domains of a plan, in the order they were begun.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn recoveries(&self, plan: &Plan) -> io::Result<Vec<Journal>> {
        let all = plan.domains.iter().filter_map(|domain| self.recovery(&domain.name).transpose());
        let mut all = all.collect::<io::Result<Vec<_>>>()?;
        all.sort_by(|one, other| {
            (one.began, &one.id, one.number).cmp(&(other.began, &other.id, other.number))
        });
        Ok(all)
    }

    /// Those of domains that a plan does not have, or not any more.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn unplanned_recoveries(&self, plan: &Plan) -> io::Result<Vec<Journal>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder())? {
            let name = entry?.file_name();
            let domain = name.to_str().and_then(|name| name.strip_suffix(".recover")?.parse::<Name>().ok());
            let Some(domain) = domain.filter(|domain| plan.domain(domain.as_str()).is_none()) else {
                continue;
            };
            found.extend(self.recovery(&domain)?);
        }
        found.sort_by(|one, other| one.domain.cmp(&other.domain));
        Ok(found)
    }

    /// Notes how far a recovery is. It is on disk when this returns.
    pub(super) fn note_recovery(&self, journal: &Journal) -> io::Result<()> {
        write_whole(&self.path(&format!("{}.recover", journal.domain)), &serde_json::to_vec(journal)?)
    }

    /// Forgets a recovery.
    pub(super) fn forget_recovery(&self, domain: &Name) -> io::Result<()> {
        absent_is_well(fs::remove_file(self.path(&format!("{domain}.recover"))))?;
        fs::File::open(self.folder())?.sync_all()
    }
}
