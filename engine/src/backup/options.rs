//! What a backup is asked to do and what it tells afterwards.

use std::path::PathBuf;
use std::time::Duration;

use crate::backup::grains::GrainRule;
use crate::budget;
use crate::format::provenance::Provenance;
use crate::format::snapshot::SnapshotSummary;
use crate::format::tree::Timestamp;
use crate::ids::SnapshotId;
use crate::log::{FoldError, LogError, LostCommit};
use crate::repo::RepositoryError;
use crate::source::FilterError;
use crate::store::{ReadError, StoreError};

/// Which snapshot to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParentChoice {
    /// The last complete one of the same host and paths, and partial ones after it.
    #[default]
    Automatic,
    /// This one.
    Snapshot(SnapshotId),
    /// None: every file is read.
    None,
}

/// What the snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotLabels {
    /// Host; the environment's if empty.
    pub host: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Time; the present if absent.
    pub time: Option<Timestamp>,
    /// What a plan says of it.
    pub provenance: Option<Provenance>,
}

/// Limits and habits of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOptions {
    /// What to compare with.
    pub parent: ParentChoice,
    /// Labels of the snapshot.
    pub labels: SnapshotLabels,
    /// Read and count everything, write nothing.
    pub dry_run: bool,
    /// Make no snapshot if its tree is the parent's.
    pub skip_if_unchanged: bool,
    /// Decode and compare each block before it is written.
    pub verify_blocks: bool,
    /// zstd level.
    pub level: i32,
    /// Time between partial snapshots.
    pub partial_every: Duration,
    /// Exclude rules as given, for the record.
    pub excludes: Vec<String>,
    /// How files are cut that match a pattern; the last rule that matches decides.
    pub grains: Vec<GrainRule>,
    /// Files that do nothing but grow while they are read are stored as they were when they were opened, and are not unstable.
    pub growing: bool,
    /// Threads that hash, compress and seal; fewer where there is no memory for so many.
    pub threads: usize,
    /// Memory to live in, in bytes.
    pub memory: u64,
    /// A directory for temporary files, which get no name there: names of very large directories wait in them. Without one,
    /// or where it takes no file, they stay in memory.
    pub spill: Option<PathBuf>,
    /// Blobs stored before they are committed, whatever the time: until then each takes memory, and where there is little of it, they
    /// are fewer.
    pub blobs_per_commit: u64,
    /// Bytes of all streams that are kept in memory, and some more, so that they can be read again.
    pub stream_kept: usize,
}

impl BackupOptions {
    /// The least memory a backup can live in.
    pub const MEMORY_MIN: u64 = budget::LEAST;
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            parent: ParentChoice::Automatic,
            labels: SnapshotLabels::default(),
            dry_run: false,
            skip_if_unchanged: false,
            verify_blocks: true,
            level: 3,
            partial_every: Duration::from_secs(180),
            excludes: Vec::new(),
            grains: Vec::new(),
            growing: false,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: budget::USUAL,
            spill: None,
            blobs_per_commit: 256 << 10,
            stream_kept: 8 << 20,
        }
    }
}

/// A file or directory to back up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceRoot {
    /// Its path, in the snapshot as well; a relative one is taken from the current directory.
    pub path: PathBuf,
    /// Where it is read instead: a directory of a file system snapshot, or a copy of a file by the same name.
    pub read_from: Option<PathBuf>,
}

impl SourceRoot {
    /// One that is read where it is.
    pub fn at(path: PathBuf) -> Self {
        Self { path, read_from: None }
    }

    /// Where it is read.
    pub fn place(&self) -> &std::path::Path {
        self.read_from.as_deref().unwrap_or(&self.path)
    }
}

/// A stream that becomes a file.
pub struct StreamSource {
    /// Name of the file, in the root directory of the snapshot.
    pub name: Vec<u8>,
    /// Its content. It is read once, when those of names before it are done.
    pub reader: Box<dyn std::io::Read + Send>,
    /// Called at the end of the stream: an error means that there must be no snapshot.
    pub finish: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

/// The last word on a snapshot, given its counts: an error means that there must be none.
pub type Accept = Box<dyn Fn(&SnapshotSummary) -> Result<(), String> + Send>;

/// What a backup reads.
pub enum BackupSource {
    /// Files, directories and streams that belong together.
    Parts {
        /// Files and directories.
        roots: Vec<SourceRoot>,
        /// What to leave out of them.
        filter: crate::source::FilterOptions,
        /// Files below these that are read from elsewhere, each under its own name, whatever is left out. One that the walk does not come
        /// to is an error of the run.
        instead: Vec<SourceRoot>,
        /// Streams.
        streams: Vec<StreamSource>,
        /// Asked when everything is read. Partial snapshots of files are made before, if it takes long.
        accept: Accept,
    },
    /// Files and directories by path.
    Paths {
        /// The roots; relative ones are taken from the current directory.
        paths: Vec<PathBuf>,
        /// What to leave out.
        filter: crate::source::FilterOptions,
    },
    /// One file read from a stream.
    Stream {
        /// Name of the file in the snapshot.
        name: Vec<u8>,
        /// Its content.
        reader: Box<dyn std::io::Read + Send>,
        /// Called at the end of the stream: an error means that there must be no snapshot.
        finish: Box<dyn FnOnce() -> Result<(), String> + Send>,
    },
}

impl std::fmt::Debug for BackupSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Parts { roots, streams, .. } => {
                let names = streams.iter().map(|stream| String::from_utf8_lossy(&stream.name));
                write!(f, "Parts({roots:?}, {:?})", names.collect::<Vec<_>>())
            }
            Self::Paths { paths, .. } => write!(f, "Paths({paths:?})"),
            Self::Stream { name, .. } => write!(f, "Stream({})", String::from_utf8_lossy(name)),
        }
    }
}

/// Bytes of packs, with all that belongs to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacksStored {
    /// Those with contents of files.
    pub data: u64,
    /// Those with trees, chunk lists and snapshot records.
    pub metadata: u64,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// The snapshot; absent after a dry run or where nothing had changed.
    pub snapshot: Option<SnapshotId>,
    /// The snapshot it was compared with.
    pub parent: Option<SnapshotId>,
    /// Counts.
    pub summary: SnapshotSummary,
    /// Bytes of the packs that the run stored, or would have.
    pub stored: PacksStored,
    /// The operation was cancelled: the snapshot, if any, is a partial one.
    pub cancelled: bool,
    /// What [`Repository::lost_commits`](crate::repo::Repository::lost_commits) told in the end. The snapshot lacks nothing for that.
    pub lost_commits: Vec<LostCommit>,
}

impl BackupReport {
    /// Whether everything that was asked for is in the snapshot, unchanged while it was read.
    pub fn is_complete(&self) -> bool {
        !self.cancelled && self.summary.errors == 0 && self.summary.unstable == 0
    }
}

/// A backup made no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A root cannot be opened at all.
    #[error("cannot back up {}: {source}", path.display())]
    Source {
        /// The root.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A root is the repository, or lies in it: what is stored there would grow what is to be stored.
    #[error("cannot back up {}: it is in the repository itself", path.display())]
    RepositoryItself {
        /// The root.
        path: PathBuf,
    },
    /// No root was given.
    #[error("nothing to back up: no path was given")]
    NoPaths,
    /// A stream has the name that a root has, or begins with.
    #[error("there is no place for the stream {name}: a path that is backed up is in it")]
    NameTaken {
        /// The stream.
        name: String,
    },
    /// A root lies in another one, and is to be read from elsewhere than that says.
    #[error("cannot back up {} from another place: it is part of {}", inner.display(), outer.display())]
    RootInRoot {
        /// The root that is part of the other.
        inner: PathBuf,
        /// The other.
        outer: PathBuf,
    },
    /// A snapshot that an appender added was named as the parent.
    #[error(
        "snapshot {0} was added with an append-only password: what it says of files is not relied on, and it cannot be a parent"
    )]
    AppendedParent(SnapshotId),
    /// The caller would not have the snapshot.
    #[error("{reason}; no snapshot was made")]
    Refused {
        /// Why.
        reason: String,
    },
    /// Options that cannot work.
    #[error("{what} is {found}, but has to be at least {min}")]
    Limit {
        /// Which option.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The least that works.
        min: u64,
    },
    /// A filter rule cannot be used.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The stream broke, or the command behind it failed.
    #[error("{name}: {reason}; no snapshot was made")]
    Stream {
        /// Name of the stream.
        name: String,
        /// What happened.
        reason: String,
    },
    /// The repository cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The parent snapshot cannot be read.
    #[error("cannot read the parent snapshot: {0}")]
    Read(#[from] ReadError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The index failed a worker.
    #[error(transparent)]
    Index(std::sync::Arc<crate::index::IndexError>),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A snapshot record cannot be read.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A worker thread ended unexpectedly: a bug.
    #[error("a worker thread panicked: this is a bug, nothing was committed")]
    Worker,
}
