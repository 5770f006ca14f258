//! What a plan file can say. Every table refuses keys it does not know.

use std::collections::BTreeMap;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::calendar::Schedule;
use crate::plan::values::{Argv, ByteSize, Lapse, Name, Share, Variable};

/// One file of a plan.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Strongroom plan")]
pub struct PlanFile {
    /// Version of the plan's language: 1. The main file has to give it.
    pub version: Option<u32>,
    /// The host that snapshots say they are from; without it the system's own name. Main file only.
    pub host_id: Option<String>,
    /// Further files, relative to this one; `*` stands for any part of a file's name. Main file only.
    #[serde(default)]
    pub include: Vec<String>,
    /// Repositories by name.
    #[serde(default)]
    pub repo: BTreeMap<Name, Repo>,
    /// Classes by name: how well their domains have to be protected.
    #[serde(default)]
    pub class: BTreeMap<Name, Class>,
    /// What is protected.
    #[serde(default)]
    pub domain: Vec<Domain>,
    /// Rehearsed restores.
    #[serde(default)]
    pub drill: Vec<Drill>,
    /// Where data may lie that a domain should cover.
    pub inventory: Option<Inventory>,
    /// Numbers for a monitoring system.
    pub metrics: Option<Metrics>,
    /// Who is told of what.
    #[serde(default)]
    pub notify: Vec<Notify>,
    /// Targets that may be missed for a while.
    #[serde(default)]
    pub exception: Vec<Exception>,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repo {
    /// Where it is, as for `strongroom -r`.
    pub url: String,
    /// The place that may be lost as a whole: copies at one site count as one.
    pub site: Option<String>,
    /// A command that prints the password.
    pub password_command: Option<Argv>,
    /// A file that holds the password.
    pub password_file: Option<String>,
    /// Where copies of the password are kept, away from this host: for the runbook, in words.
    pub key_copies: Option<String>,
}

/// How well a domain has to be protected.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Recovery point objective: the newest complete snapshot is never older.
    pub rpo: Option<Lapse>,
    /// How much later than that is an alarm, and not only a warning.
    pub rpo_grace: Option<Lapse>,
    /// Recovery time objective: a restore takes no longer.
    pub rto: Option<Lapse>,
    /// In how many repositories a snapshot has to be.
    pub copies: Option<u32>,
    /// At how many sites these have to be.
    pub sites: Option<u32>,
    /// What becomes of a file that changes each time it is read.
    pub on_change: Option<OnChange>,
    /// The least that a snapshot must be: see [`Consistency`].
    pub min_consistency: Option<Consistency>,
    /// How often how much of the repository is read and verified.
    pub verify: Option<Verify>,
    /// How often a restore is rehearsed.
    pub drill_every: Option<Lapse>,
    /// Which snapshots are kept.
    pub retain: Option<Retain>,
    /// Whether snapshots are compared with those before, and nothing is forgotten where they are far from them [default: true].
    pub anomaly_guard: Option<bool>,
}

/// What becomes of a file that changes each time it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// It is stored and marked as unstable, and the run ends with exit code 3.
    #[default]
    Warn,
    /// There is no snapshot.
    Fail,
    /// It is read again, twice, before it is stored as with `warn`. So it is with all others, too.
    Retry,
    /// Of a file that has only grown, as logs do, what was there when it was opened is stored; any other as with `warn`.
    Prefix,
}

/// How the parts of a snapshot belong together, from least to most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Files of different moments.
    #[default]
    Fuzzy,
    /// All files of one moment, as after a power cut.
    Crash,
    /// As the application itself hands it out.
    Application,
}

/// How often how much of a repository is read.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// How often.
    pub every: Lapse,
    /// How much each time.
    pub read: Share,
}

/// Which snapshots are kept: one of each of the last so many periods that have any.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retain {
    /// The last so many.
    pub last: Option<u64>,
    /// Hours.
    pub hourly: Option<u64>,
    /// Days.
    pub daily: Option<u64>,
    /// Weeks.
    pub weekly: Option<u64>,
    /// Months.
    pub monthly: Option<u64>,
    /// Years.
    pub yearly: Option<u64>,
    /// Never fewer than this many.
    pub min_keep: Option<u64>,
    /// The last one that a drill restored stays.
    #[serde(default)]
    pub keep_last_drilled: bool,
}

/// One thing to protect: what belongs together, is backed up at one time and restored as one.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Its name.
    pub name: Name,
    /// Its class.
    pub class: Option<Name>,
    /// Targets that differ from the class's.
    pub objectives: Option<Class>,
    /// Who is responsible: a role or team.
    pub owner: Option<String>,
    /// Whom to call, in this order.
    #[serde(default)]
    pub contacts: Vec<String>,
    /// When it is backed up, as systemd writes calendar events.
    pub schedule: Option<Schedule>,
    /// Into which repositories; without it into all.
    pub to: Option<Vec<Name>>,
    /// Domains that have to come before this one.
    #[serde(default)]
    pub after: Vec<Name>,
    /// Labels of its snapshots, and of the domain for `run --tag`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Files and directories.
    #[serde(default)]
    pub paths: Vec<String>,
    /// What to leave out of `paths`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Leave out what is mounted below `paths`.
    #[serde(default)]
    pub one_file_system: bool,
    /// SQLite databases, copied through SQLite itself.
    #[serde(default)]
    pub sqlite: Vec<String>,
    /// Outputs of commands.
    #[serde(default)]
    pub stream: Vec<Stream>,
    /// A file system snapshot that `paths` are read from.
    pub snapshot: Option<SnapshotHooks>,
    /// Commands around the backup.
    pub hooks: Option<Hooks>,
    /// Commands whose outputs are stored with the snapshot: versions, revisions.
    #[serde(default)]
    pub facts: BTreeMap<Name, Argv>,
    /// What hooks make of the files in `paths`, where nothing else tells.
    pub consistency: Option<Consistency>,
    /// What belongs to a recovery beside putting the data back.
    pub recover: Option<Recover>,
}

/// The output of a command, stored as a file.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Name of the file in the snapshot.
    pub name: String,
    /// What it is: a word for people.
    pub kind: Option<String>,
    /// The command. It has to end with exit code 0.
    pub command: Argv,
    /// Files and directories that the stream stands for, such as the data directory of the server that is dumped: `coverage` takes
    /// them for protected.
    #[serde(default)]
    pub data: Vec<String>,
    /// A command that is given the same bytes and has to end with exit code 0.
    pub tee_check: Option<Argv>,
    /// The least number of bytes that can be right.
    pub min_bytes: Option<ByteSize>,
    /// What the last bytes have to hold.
    pub expect_tail: Option<String>,
    /// How long the command may take [default: 6h].
    pub timeout: Option<Lapse>,
    /// The command that is given the bytes in a restore; `${target}` is where to: drills and recoveries run none that does not name it.
    pub restore: Option<Argv>,
    /// How long `restore` may take [default: in a recovery as long as it needs, in a drill 6h].
    pub restore_timeout: Option<Lapse>,
    /// How what was restored takes the place of what is in use.
    pub recover: Option<StreamRecover>,
}

/// How a restored stream takes the place of what is in use. In its commands `${target}` is the name it was restored under, `${old}` that
/// name with `_old` behind it, `${id}` the recovery.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamRecover {
    /// The name that it is restored under [default: `strongroom_ID_N`].
    pub target: Option<String>,
    /// Makes `${target}`, before `restore`.
    pub create: Option<Argv>,
    /// Puts `${target}` in the place of what is in use, which is `${old}` from then on.
    pub swap: Option<Argv>,
    /// Prints 1 where that is done, and 0 where it is not.
    pub swapped: Option<Argv>,
    /// Puts `${old}` back; what was in use is `${target}` again.
    pub undo: Option<Argv>,
    /// Removes what has the name `${target}`: what was restored and is not wanted, and in the end what was in use before.
    pub drop: Option<Argv>,
}

impl StreamRecover {
    /// The name that it is restored under, if somebody else may have it: it is the same each time, and nothing is made under it first.
    pub fn taken_target(&self) -> Option<&str> {
        self.target.as_deref().filter(|target| !target.contains("${id}") && self.create.is_none())
    }
}

/// What belongs to the recovery of a domain beside putting its data back.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// Commands that stop what uses the data, before anything is swapped.
    #[serde(default)]
    pub stop: Vec<Argv>,
    /// Commands that start it again.
    #[serde(default)]
    pub start: Vec<Argv>,
    /// How it is known to be ready.
    pub ready: Option<Ready>,
    /// Commands that have to end with exit code 0 after that.
    #[serde(default)]
    pub health: Vec<Argv>,
    /// How long each command may take, those of streams but for `restore` (`restore_timeout`) as well [default: 10m].
    pub timeout: Option<Lapse>,
    /// A directory that streams are put into before they are loaded [default: the state directory].
    pub scratch: Option<String>,
    /// What becomes of files that are there and that `exclude` leaves out.
    pub excluded: Option<Excluded>,
}

/// What becomes of files in the way of a recovery that no snapshot has, because the plan leaves them out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Excluded {
    /// They are moved into what was restored.
    #[default]
    Carry,
    /// They stay with what was there before.
    Leave,
}

/// Commands that make a file system snapshot, and remove it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotHooks {
    /// Makes it and prints `STRONGROOM_SNAPSHOT_PATH=DIR`.
    pub begin: Argv,
    /// Removes it; run on every way out.
    pub end: Argv,
    /// The directory that DIR is a snapshot of [default: `/`].
    pub root: Option<String>,
    /// How long each may take [default: 2m].
    pub timeout: Option<Lapse>,
}

/// Commands around the backup of a domain.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before anything is read: the first that fails ends the run.
    #[serde(default)]
    pub before: Vec<Argv>,
    /// After a snapshot was made everywhere.
    #[serde(default)]
    pub after: Vec<Argv>,
    /// After a failure.
    #[serde(default)]
    pub failed: Vec<Argv>,
    /// At the end, whatever happened; all of them are run.
    #[serde(default)]
    pub finally: Vec<Argv>,
    /// How long each may take [default: 10m].
    pub timeout: Option<Lapse>,
}

/// A rehearsed restore.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// Its name.
    pub name: Name,
    /// What is restored.
    pub domains: Vec<Name>,
    /// How much of it.
    pub tier: Tier,
    /// From which repository; `rotate` takes them in turn.
    pub from: Option<String>,
    /// Which snapshot: `latest`, `random`, or `before:7d`.
    pub snapshot: Option<String>,
    /// When.
    pub schedule: Option<Schedule>,
    /// A directory to restore into.
    pub scratch: Option<String>,
    /// Environment of its commands.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What is done, in this order.
    #[serde(default)]
    pub step: Vec<DrillStep>,
    /// Commands that remove what the steps have left outside of the scratch directory, such as a database that was loaded: run after the
    /// steps, however they ended, and after a kill by the next run of the drill. All of them are run.
    #[serde(default)]
    pub cleanup: Vec<Argv>,
}

/// How much of a snapshot a drill restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Names and metadata.
    Metadata,
    /// Some of the files.
    Sample,
    /// Everything.
    Full,
}

/// One step of a drill: exactly one of `prepare`, `restore`, `run` and `start`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillStep {
    /// A command that makes room for what is restored. If it does not end with exit code 0, nothing is known of the data.
    pub prepare: Option<Argv>,
    /// Restores this domain.
    pub restore: Option<Name>,
    /// Where to, as `${target}` of the command `restore`: never the name of what is in use [default: `drill`].
    pub target: Option<String>,
    /// A command that has to end with exit code 0.
    pub run: Option<Argv>,
    /// What its output has to be: `< N`, `<= N`, `> N`, `>= N`, `== N`, `!= N`, or a text.
    pub expect: Option<String>,
    /// A command that keeps running.
    pub start: Option<Argv>,
    /// How it is known to be ready.
    pub ready: Option<Ready>,
    /// How long each command of the step may take, and an application that it starts may run [default: `restore_timeout` of a stream that is
    /// restored, 24h for an application, 6h otherwise].
    pub timeout: Option<Lapse>,
}

/// How an application that was started is known to be ready.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// An address that answers with 200: `http://HOST:PORT/PATH`.
    pub http: Option<String>,
    /// Or a command that ends with exit code 0.
    pub command: Option<Argv>,
    /// How long it may take.
    pub timeout: Option<Lapse>,
}

/// Where data may lie.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Directories that `coverage` looks through.
    pub roots: Vec<String>,
    /// What in them is no data, or is not to be protected.
    #[serde(default)]
    pub ignore: Vec<Ignored>,
}

/// A file or directory that no domain is to have.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ignored {
    /// Where it is.
    pub path: String,
    /// Why it need not be protected.
    pub reason: String,
}

/// Numbers for a monitoring system.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// A file in the OpenMetrics text format, written after every run, verification, drill and recovery.
    pub textfile: String,
}

/// Who is told of what: addresses stand in the environment, because they often are secrets.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// Of what.
    pub on: Vec<Event>,
    /// Name of the environment variable with an address that is sent JSON.
    pub webhook_env: Option<Variable>,
    /// Name of the environment variable with an address that is only called.
    pub heartbeat_env: Option<Variable>,
    /// A command that is given JSON.
    pub command: Option<Argv>,
}

/// What somebody can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A run began.
    Start,
    /// A run ended well.
    Success,
    /// A run failed.
    Failure,
    /// A run made snapshots, and lacked something: files that could not be read, facts, what a hook was to do.
    Partial,
    /// The first good run after one of these.
    Recovered,
    /// A drill ended.
    Drill,
    /// A domain was recovered, put back, or could not be.
    Recovery,
    /// A recovery point objective is missed.
    Rpo,
    /// An exception is about to expire.
    ExceptionExpiring,
}

impl Event {
    /// As a plan has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Partial => "partial",
            Self::Recovered => "recovered",
            Self::Drill => "drill",
            Self::Recovery => "recovery",
            Self::Rpo => "rpo",
            Self::ExceptionExpiring => "exception-expiring",
        }
    }
}

/// A target that may be missed for a while.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// How it is referred to.
    pub id: String,
    /// Which target.
    pub control: Control,
    /// Of which domain.
    pub domain: Name,
    /// Why.
    pub reason: String,
    /// Who agreed.
    pub approved_by: String,
    /// The last day on which it holds.
    #[serde(deserialize_with = "date")]
    #[schemars(with = "String", extend("format" = "date"))]
    pub expires: Date,
}

/// A target that can be missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Age of the newest snapshot.
    Rpo,
    /// Time of a restore.
    Rto,
    /// Number of copies.
    Copies,
    /// Number of sites.
    Sites,
    /// How parts of a snapshot belong together.
    Consistency,
    /// Rehearsed restores.
    Drill,
    /// Verification.
    Verify,
    /// How many snapshots there are at least.
    Retention,
}

impl Control {
    /// As a plan has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rpo => "rpo",
            Self::Rto => "rto",
            Self::Copies => "copies",
            Self::Sites => "sites",
            Self::Consistency => "consistency",
            Self::Drill => "drill",
            Self::Verify => "verify",
            Self::Retention => "retention",
        }
    }
}

fn date<'de, D: Deserializer<'de>>(from: D) -> Result<Date, D::Error> {
    let found = toml::value::Datetime::deserialize(from)?;
    let wrong =
        || serde::de::Error::custom(format!("{found} is no day: write it as 2027-01-31, without quotes"));
    match found.time {
        None => found.to_string().parse().map_err(|_| wrong()),
        Some(_) => Err(wrong()),
    }
}
