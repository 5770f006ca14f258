//! What the engine's errors mean for whoever ran a command.

use std::io;

use serde_json::json;
use strongroom::backend::BackendError;
use strongroom::backup::BackupError;
use strongroom::browse::BrowseError;
use strongroom::budget;
use strongroom::check::ReadingsError;
use strongroom::copy::CopyError;
use strongroom::crypto::KdfError;
use strongroom::forget::{ForgetError, GroupKey, TimesError};
use strongroom::format::config::ConfigError;
use strongroom::index::{IndexError, MergeError};
use strongroom::log::{FoldError, HeadError, LogError, LostCommit, PublishError};
use strongroom::parity::CoverError;
use strongroom::prune::PruneError;
use strongroom::reach::ReachError;
use strongroom::rebuild::RebuildError;
use strongroom::repair::RepairError;
use strongroom::repo::RepositoryError;
use strongroom::reserve::ReserveError;
use strongroom::restore::RestoreError;
use strongroom::source::{FilesFromError, FilterError};
use strongroom::spill::SpillError;
use strongroom::stats::StatsError;
use strongroom::store::{ReadError, StoreError};
use strongroom::usage::UsageError;
use strongroom::vet::VetError;

use super::Failure;
use crate::exit::Exit;
use crate::output::{object, visible};
use crate::units::local_time;

/// What has an id in one repository has another one in a copy of it.
const NO_SNAPSHOT_HINT: &str = "`strongroom snapshots` lists what there is; `latest` names the newest. A copy has an id of its own in each repository: the \
                                same snapshot is the one of the same time, and `snapshots --json` tells under `origin` of which it is a copy";
const SNAPSHOTS_HINT: &str = "`strongroom snapshots` lists what there is; `latest` names the newest";

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        let message = error.to_string();
        match error {
            RepositoryError::Absent { .. } => absent(message),
            RepositoryError::NoConfig { .. } => Self::damage("config-missing", message).hint(
                "`strongroom repair objects`, if there is parity; else copy the file `config` back from a copy of the repository. Do not \
                 make a new one over it",
            ),
            RepositoryError::Exists { .. } => Self::new("repository-exists", message)
                .hint("`strongroom check` tells whether it is in order; or choose another place for a new one"),
            RepositoryError::Unfinished { .. } => Self::new("init-unfinished", message).exit(Exit::NoRepository).hint(
                "`strongroom init` with the same password and all options that are wanted goes on with it. Nothing is stored yet, so the \
                 folder can also be removed",
            ),
            RepositoryError::NotEmpty { location, .. } => Self::new("folder-not-empty", message)
                .hint(format!("name a folder of its own, such as {location}/strongroom: missing folders are made")),
            RepositoryError::Config { source, .. } => config(&source, message),
            RepositoryError::WrongPassword { .. } => Self::new("wrong-password", message)
                .exit(Exit::WrongPassword)
                .hint(
                    "try again, or use the password of another keyslot; there is no way around it. Where it is certain to be right, compare the \
                     folder `keys` and the file `config` with those of a copy of the repository: a keyslot may be missing, and all are bound to the id in `config`",
                ),
            RepositoryError::DamagedConfig { .. } => Self::damage("config-damaged", message)
                .hint("`strongroom repair objects`, with the same password, makes it good by its parity"),
            RepositoryError::KeyslotMemory { needed, .. } => {
                Self::usage("kdf-memory", message).hint(memory_for(needed))
            }
            RepositoryError::RemovedKeyslot(_) => {
                Self::new("keyslot-removed", message).exit(Exit::WrongPassword)
            }
            RepositoryError::NoKeyslot { .. } => Self::damage("no-keyslot", message).hint(
                "copy the folder `keys` back from a copy of the repository: without one keyslot nothing can be opened, not even parity",
            ),
            RepositoryError::NoLog { .. } => Self::damage("no-log", message)
                .hint("copy the folder `log` back from a copy of the repository"),
            RepositoryError::AppendOnly(_) => Self::new("append-only", message).hint(
                "use the password of a keyslot that is not append-only: `strongroom key list` tells them apart",
            ),
            RepositoryError::EmptyPassword => Self::new("empty-password", message),
            RepositoryError::ForeignConfig => Self::damage("config-foreign", message),
            RepositoryError::Merge(MergeError::Store(error)) => with_message(error.into(), message),
            RepositoryError::Merge(MergeError::Source(error)) => with_message(error.into(), message),
            RepositoryError::OnlyReadable { .. } => Self::damage("log-damaged", message)
                .hint("restore what you need, then back up into a new repository"),
            RepositoryError::LostEntry { seq } => Self::damage("log-rolled-back", message).hint(format!(
                "`strongroom repair objects` puts it back; where parity does not give it, `strongroom repair log --accept-loss {seq}` goes on without it"
            )),
            RepositoryError::AlteredEntry { .. } => {
                Self::damage("log-damaged", message).hint("`strongroom repair objects` puts it right")
            }
            RepositoryError::LostCommit { lost, .. } => {
                Self::damage("log-damaged", message).hint(after_loss(&lost))
            }
            RepositoryError::Conflict => Self::new("conflict", message),
            RepositoryError::LastKeyslot(_) => {
                Self::new("last-keyslot", message).hint("`strongroom key add` makes another one first")
            }
            RepositoryError::UnknownKeyslot(_) => Self::new("unknown-keyslot", message),
            RepositoryError::NoSnapshot(_) => Self::new("no-snapshot", message).hint(NO_SNAPSHOT_HINT),
            RepositoryError::AmbiguousSnapshot { .. } => {
                Self::new("ambiguous-snapshot", message).hint(SNAPSHOTS_HINT)
            }
            RepositoryError::Kdf(error) => error.into(),
            RepositoryError::Backend(error) => error.into(),
            RepositoryError::Log(error) => error.into(),
            RepositoryError::Fold(error) => error.into(),
            RepositoryError::Index(error) => error.into(),
            RepositoryError::Spill(error) => error.into(),
            RepositoryError::Publish(PublishError::Backend { source, .. }) => {
                with_message(source.into(), message)
            }
            RepositoryError::Publish(PublishError::Lost(_)) => Self::new("conflict", message),
            RepositoryError::Publish(PublishError::TooLarge { .. }) => Self::new("commit-too-large", message),
        }
    }
}

impl From<SpillError> for Failure {
    fn from(error: SpillError) -> Self {
        Self::new("io", error).hint(
            "TMPDIR says where temporary files go; a check or prune takes some 20 bytes there for each blob that a directory lists",
        )
    }
}

/// There is no repository where one was looked for.
pub fn absent(message: String) -> Failure {
    Failure::new("no-repository", message)
        .exit(Exit::NoRepository)
        .hint("check -r or STRONGROOM_REPOSITORY, or make a repository there with `strongroom init`")
}

/// What to do about a lost commit.
pub fn after_loss(lost: &LostCommit) -> String {
    let seq = lost.seq;
    format!(
        "if no commit follows it, `strongroom repair objects` puts it right where there is parity, or copy the file log/{seq:020} back from a \
         copy of the repository. `strongroom repair lost-snapshots` finds a snapshot that it added, if its packs are there. To go on without it: `strongroom repair log --accept-loss {seq}`"
    )
}

/// How a head is known that the log does not pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From an earlier run.
    Remembered,
    /// By `--expect-head`.
    Given,
}

/// The repository's log is not the one that was seen before.
pub fn unexpected_head(error: HeadError, origin: Origin) -> Failure {
    let message = error.to_string();
    let hint = match origin {
        Origin::Remembered => {
            "the storage was set back, or another copy is in its place: find out which, and bring the newer one back. To go \
             on with this one: `strongroom log head --accept`; to look at it only: --no-state"
        }
        Origin::Given => {
            "the storage was set back, or another copy is in its place: find out which before you rely on it"
        }
    };
    match error {
        HeadError::Older { .. } => Failure::damage("log-rolled-back", message).hint(hint),
        HeadError::Other { .. } => Failure::damage("log-other-history", message).hint(hint),
        HeadError::Log(error) => error.into(),
    }
}

fn config(error: &ConfigError, message: String) -> Failure {
    match error {
        ConfigError::Magic => Failure::new("not-a-repository", message).exit(Exit::NoRepository),
        ConfigError::Version(_) | ConfigError::Features(_) | ConfigError::Newer(_) => {
            Failure::new("newer-version", message).hint("nothing was changed")
        }
        ConfigError::Record(_) => Failure::damage("config-damaged", message).hint(
            "`strongroom repair objects`, if there is parity; else copy the file `config` back from a copy of the repository",
        ),
    }
}

fn with_message(failure: Failure, message: String) -> Failure {
    Failure { message, ..failure }
}

impl From<CoverError> for Failure {
    fn from(error: CoverError) -> Self {
        match error {
            CoverError::Repository(error) => error.into(),
            CoverError::Cancelled => Self::new("cancelled", error),
        }
    }
}

impl From<ReserveError> for Failure {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::Length { .. } => Self::usage("reserve-size", error),
            ReserveError::NoRoom { .. } => Self::new("reserve-no-room", error)
                .hint("make room on the storage, or ask for a smaller one: `strongroom reserve set SIZE`"),
            ReserveError::Repository(error) => error.into(),
        }
    }
}

/// What to do where trying a password takes so many KiB.
fn memory_for(needed: u32) -> String {
    let least = budget::with_password(u64::from(needed) << 10);
    format!("give `--memory {}MiB` or more, or leave it out", least.div_ceil(1 << 20))
}

impl From<KdfError> for Failure {
    fn from(error: KdfError) -> Self {
        match error {
            KdfError::OutOfBounds { .. } => Self::usage("kdf-bounds", error),
            KdfError::Memory { needed, .. } => Self::usage("kdf-memory", error).hint(memory_for(needed)),
            KdfError::Failed(_) => Self::new("kdf-failed", error),
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let message = error.to_string();
        match error {
            BackendError::NotFound { .. } => Self::damage("object-missing", message),
            BackendError::NotDurable { .. } => Self::new("not-durable", message)
                .hint("the disk reports errors: look at the system's log, then check the repository before you go on"),
            BackendError::OutOfRange { .. } => Self::damage("object-truncated", message),
            BackendError::TooLarge { .. } => Self::damage("object-too-large", message),
            BackendError::Unsuitable { .. } => {
                Self::new("storage-unsuitable", message).hint("choose a folder on another file system")
            }
            BackendError::Io { source, .. } => {
                let failure = Self::new("storage", message);
                match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure
                        .hint("make room on the storage; what is stored already is used by the next run"),
                    io::ErrorKind::ReadOnlyFilesystem => failure.hint("the file system is mounted read-only"),
                    io::ErrorKind::PermissionDenied => {
                        failure.hint("run as a user who may use the repository's folder")
                    }
                    _ => failure,
                }
            }
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Backend(error) => error.into(),
            LogError::NotUnderstood { .. } => {
                Self::new("newer-version", error).hint("nothing was changed")
            }
            LogError::Chain { .. } | LogError::Gap { .. } => Self::damage("log-damaged", error)
                .hint("the storage lost or altered commits: copy them back from a copy of the repository, or read what is there with --ignore-log-damage; docs/trouble.md says how"),
        }
    }
}

impl From<FoldError> for Failure {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::NewerSnapshot { .. } => Self::new("newer-version", error).hint(
                "use a newer version of this program for it; `strongroom forget` with its id takes it away; everything but a prune goes on \
                 without it",
            ),
            FoldError::OtherSnapshot(_) => Self::damage("snapshot-damaged", error)
                .hint("`strongroom check` says what else is wrong; `strongroom forget` with its id takes it away"),
            _ => Self::damage("log-damaged", error),
        }
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        let message = error.to_string();
        match error {
            IndexError::Backend { source, .. } => with_message(source.into(), message),
            IndexError::Segment { .. } => Self::damage("index-damaged", message),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::Missing { .. } => Self::damage("blob-missing", message),
            ReadError::Index(error) => error.into(),
            ReadError::Backend { source, .. } => with_message(source.into(), message),
            ReadError::Pack { .. } => Self::damage("pack-damaged", message),
        }
    }
}

impl From<BrowseError> for Failure {
    fn from(error: BrowseError) -> Self {
        match error {
            BrowseError::Read(error) => error.into(),
            BrowseError::Tree { .. } | BrowseError::Rules { .. } => Self::damage("tree-damaged", error),
            BrowseError::NoPath { .. } | BrowseError::NotDirectory { .. } => Self::new("no-path", error)
                .hint(
                    "`strongroom ls SNAPSHOT` shows what is there; paths begin at the root, as in latest:/etc. `latest` is the newest of all hosts and \
                     paths: `strongroom snapshots --host NAME` lists those of one",
                ),
        }
    }
}

impl From<FilterError> for Failure {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Pattern { .. } | FilterError::FileName { .. } => Self::usage("bad-pattern", error),
            FilterError::File { .. } => Self::new("io", error),
        }
    }
}

impl From<FilesFromError> for Failure {
    fn from(error: FilesFromError) -> Self {
        Self::usage("bad-list", error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Backend(error) => match &*error {
                BackendError::Io { action, what, source } => {
                    let source = io::Error::from(source.kind());
                    with_message(BackendError::Io { action, what: what.clone(), source }.into(), message)
                }
                _ => Self::new("storage", message),
            },
            StoreError::TooLong(_) | StoreError::Panicked => Self::new("internal", message),
            StoreError::Verification => Self::new("verification", message)
                .hint("nothing wrong was stored; test this machine's memory"),
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let message = error.to_string();
        match error {
            BackupError::Source { .. } | BackupError::RepositoryItself { .. } => Self::new("source", message),
            BackupError::NameTaken { .. } | BackupError::RootInRoot { .. } => Self::usage("usage", message),
            BackupError::AppendedParent(_) => Self::new("appended-parent", message)
                .hint("name another snapshot with --parent, or none: the last one that fits is found"),
            BackupError::Refused { .. } => Self::new("refused", message),
            BackupError::NoPaths => Self::usage("usage", message),
            BackupError::Limit { .. } => Self::usage("limit", message),
            BackupError::Filter(error) => error.into(),
            BackupError::Stream { .. } => Self::new("stream", message),
            BackupError::Store(error) => error.into(),
            BackupError::Read(error) => Self::from(error).hint(
                "`strongroom check` names what is damaged; --force backs up without the parent snapshot",
            ),
            BackupError::Repository(error) => error.into(),
            BackupError::Log(error) => error.into(),
            BackupError::Fold(error) => error.into(),
            BackupError::Index(error) => match &*error {
                IndexError::Segment { .. } => Self::damage("index-damaged", message),
                IndexError::Backend { source, .. } if source.is_not_found() => {
                    Self::damage("object-missing", message)
                }
                IndexError::Backend { .. } => Self::new("storage", message),
            },
            BackupError::Worker => Self::new("internal", message),
        }
    }
}

impl From<ForgetError> for Failure {
    fn from(error: ForgetError) -> Self {
        let message = error.to_string();
        match error {
            ForgetError::NothingAsked => Self::usage("usage", message),
            ForgetError::Held { snapshot, .. } => Self::new("snapshot-held", message)
                .hint(format!("`strongroom snapshot release {} --reason …` first", snapshot.short())),
            ForgetError::EmptiesGroup { .. } => Self::new("empties-group", message)
                .hint("nothing was forgotten; --allow-empty if that is meant"),
            ForgetError::Newest { .. } => Self::new("forgets-newest", message)
                .hint("nothing was forgotten; add --keep-last 1, or --allow-newest if that is meant"),
            ForgetError::Mass { .. } => Self::new("mass-forget", message).hint(
                "nothing was forgotten; look at --dry-run --explain, then --allow-mass if that is meant",
            ),
            ForgetError::NotChosen { .. } => Self::new("snapshot-not-chosen", message)
                .hint("nothing was forgotten; leave --host, --tag, --domain and --path out, or name others"),
            ForgetError::Repository(error) => error.into(),
        }
    }
}

/// What it means that a policy was not asked about a group of snapshots.
pub fn refused_group(group: &GroupKey, error: &TimesError) -> Failure {
    let (code, why) = match error {
        TimesError::Backwards { earlier_time, later_time, .. } => {
            let (earlier, later) = (local_time(*earlier_time), local_time(*later_time));
            ("times-backwards", format!("they say {earlier} and {later}: a clock was wrong"))
        }
        TimesError::Future { snapshot, time, now } => {
            let (time, now, id) = (local_time(*time), local_time(*now), snapshot.short());
            let why = format!(
                "it says {time}, here it is {now}: one clock is wrong. `strongroom forget {id}` takes it away"
            );
            ("times-future", why)
        }
        TimesError::Jump { earlier_time, later_time, .. } => {
            let (earlier, later) = (local_time(*earlier_time), local_time(*later_time));
            let why = format!(
                "they say {earlier} and {later}: if a clock was wrong, put it right and forget by its id what it made; if nothing was backed up \
                 in between, go by these times once"
            );
            ("times-jump", why)
        }
    };
    let message = format!("{error}: all of its group stays ({})", visible(group.to_string().as_bytes()));
    let mut failure = Failure::new(code, message).hint(format!(
        "{why}; --keep-last and ids need no clock; --trust-times goes by these times, with --host and --path for one group alone"
    ));
    let details = object(json!({"group": group.to_string(), "snapshot_id": error.snapshot()}));
    failure.details = Some(Box::new(details));
    failure
}

impl From<PruneError> for Failure {
    fn from(error: PruneError) -> Self {
        const CHECK: &str =
            "`strongroom check` names what is lost; a backup of the same files may bring it back";
        let message = error.to_string();
        match error {
            PruneError::Missing { .. } => Self::damage("blob-missing", message).hint(CHECK),
            PruneError::Reach(ReachError::Read(error)) | PruneError::Read(error) => {
                let failure = with_message(error.into(), message);
                if failure.exit == Exit::Damage { failure.hint(CHECK) } else { failure }
            }
            PruneError::Reach(ReachError::Record { .. } | ReachError::Table { .. }) => {
                Self::damage("tree-damaged", message).hint(CHECK)
            }
            PruneError::Reach(ReachError::Spill(error)) => with_message(error.into(), message),
            PruneError::Reach(ReachError::Cancelled) | PruneError::Cancelled => {
                Self::new("cancelled", message)
            }
            PruneError::ForgedState => Self::damage("state-damaged", message)
                .hint("`strongroom log --verify` compares the log with all states; who could have forged one, `key list` tells"),
            PruneError::AppendedSegment { .. } => Self::damage("index-damaged", message)
                .hint("`strongroom repair index` makes the index anew from the packs"),
            PruneError::OnlyAppended { .. } => Self::damage("blob-missing", message)
                .hint("run `strongroom repair packs`: it looks for what is missing elsewhere"),
            PruneError::Vet(error) => error.into(),
            PruneError::Overtaken => Self::new("conflict", message),
            PruneError::Store(error) => error.into(),
            PruneError::Repository(error) => error.into(),
        }
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let message = error.to_string();
        match error {
            CopyError::SameRepository { .. } => {
                Self::usage("usage", message).hint("--to names the repository that is to get the snapshots")
            }
            CopyError::Read(error) => with_message(error.into(), message),
            // What names no snapshot is no matter of the repository.
            CopyError::Source(error @ RepositoryError::NoSnapshot(_)) => error.into(),
            CopyError::Source(error) => with_message(error.into(), message),
            CopyError::Target(error) => with_message(error.into(), message),
            CopyError::Renames(_) => Self::new("io", message)
                .hint("TMPDIR says where temporary files go; they need some 100 bytes a blob"),
            CopyError::Worker => Self::new("internal", message),
            CopyError::Cancelled => Self::new("cancelled", message)
                .hint("what was copied is found there when the command is run again"),
        }
    }
}

impl From<RebuildError> for Failure {
    fn from(error: RebuildError) -> Self {
        let message = error.to_string();
        match error {
            RebuildError::Repository(error) => error.into(),
            RebuildError::Vet(error) => error.into(),
            RebuildError::Pack { source, .. } => {
                with_message(source.into(), message).hint("the old index is in force; run the command again")
            }
            RebuildError::Cancelled => Self::new("cancelled", message),
        }
    }
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        let message = error.to_string();
        match error {
            RepairError::IndexDamaged { .. } => {
                Self::damage("index-damaged", message).hint("`strongroom repair index` first")
            }
            RepairError::Vet(error) => error.into(),
            RepairError::NoEntry { .. } => Self::new("no-entry", message),
            RepairError::SoundEntry(_) => Self::new("log-entry-sound", message)
                .hint("`strongroom check` names the entries that are not"),
            RepairError::UnknownPack(_) => {
                Self::new("unknown-pack", message).hint("`strongroom check` names damaged packs by their ids")
            }
            RepairError::Mass { .. } => Self::damage("mass-missing", message).hint(
                "mount or copy what is missing; --allow-mass goes on without it if it is gone for good",
            ),
            RepairError::Foreign { .. } => Self::new("foreign-repository", message)
                .hint(
                    "blobs can only be taken from a copy of the repository itself. From one that `strongroom copy` made, snapshots can be had back: `strongroom repair \
                     packs`, then `strongroom repair snapshots --forget`, then `strongroom -r OTHER copy --to THIS`",
                ),
            RepairError::Path { .. } => Self::new("source", message),
            RepairError::Itself { .. } => Self::usage("usage", message),
            RepairError::Read(error) | RepairError::Reach(ReachError::Read(error)) => {
                with_message(error.into(), message)
            }
            RepairError::Reach(ReachError::Cancelled) | RepairError::Cancelled => {
                Self::new("cancelled", message)
            }
            RepairError::Reach(_) => Self::damage("tree-damaged", message),
            RepairError::Overtaken => Self::new("conflict", message),
            RepairError::Store(error) => error.into(),
            RepairError::Source(error) => error.into(),
            RepairError::Repository(error) => error.into(),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::TargetInRepository { .. } => Self::new("target-in-repository", error)
                .hint("choose a target elsewhere; nothing was changed"),
            RestoreError::Target { .. } => Self::new("target", message),
            RestoreError::NoPath { .. } => Self::new("no-path", message).hint(
                "`strongroom ls SNAPSHOT` shows what is there; paths begin at the root, as in latest:/etc",
            ),
            RestoreError::Filter(error) => error.into(),
            RestoreError::Browse(error) => error.into(),
            RestoreError::Repository(error) => error.into(),
        }
    }
}

impl From<VetError> for Failure {
    fn from(error: VetError) -> Self {
        match error {
            VetError::Read(error) => error.into(),
            VetError::Repository(error) => error.into(),
            VetError::Cancelled => Self::new("cancelled", error),
        }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        match error {
            UsageError::Reach(ReachError::Read(error)) => error.into(),
            UsageError::Reach(ReachError::Cancelled) | UsageError::Cancelled => Self::new("cancelled", error),
            UsageError::Reach(_) => Self::damage("tree-damaged", error),
            UsageError::Browse(error) => error.into(),
            UsageError::Index(error) => error.into(),
            UsageError::Repository(error) => error.into(),
        }
    }
}

impl From<ReadingsError> for Failure {
    fn from(error: ReadingsError) -> Self {
        match error {
            ReadingsError::Ledger(_) => Self::damage("ledger-damaged", error),
            ReadingsError::Index(error) => error.into(),
            ReadingsError::Repository(error) => error.into(),
        }
    }
}

impl From<StatsError> for Failure {
    fn from(error: StatsError) -> Self {
        match error {
            StatsError::Browse(error) => error.into(),
            StatsError::Index(error) => error.into(),
            StatsError::Repository(error) => error.into(),
            StatsError::ChunkList { .. } => Self::damage("tree-damaged", error),
            StatsError::Cancelled => Self::new("cancelled", error),
        }
    }
}
