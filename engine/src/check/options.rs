//! What a check is asked to do and what it tells afterwards.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::tree::Timestamp;
use crate::ids::{PackId, SnapshotId};

/// Which packs are read in whole.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ReadData {
    /// None: structure only.
    #[default]
    No,
    /// All.
    All,
    /// This share of the packs, chosen at random: 0 to 100, rounded up to whole packs.
    Percent(f64),
    /// Part `n` of `m`, both counted from 1: `m` runs cover everything. The part follows from the pack's id.
    Part {
        /// Which part.
        n: u32,
        /// Of how many.
        m: u32,
    },
    /// Packs chosen at random up to this many bytes.
    Bytes(u64),
    /// Packs in the order in which they were last read, those that never were first.
    Oldest {
        /// Bytes to read at most, but one pack at least; everything where there is no budget.
        budget: Option<u64>,
        /// Leave out what was read less than this before.
        max_age: Option<Duration>,
    },
}

/// How a check goes about it.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckOptions {
    /// Which packs to read.
    pub read_data: ReadData,
    /// Compare the bytes of these packs with their ids only: as fast as the storage gives them. A pack that fails is
    /// read in whole all the same.
    pub hashes_only: bool,
    /// Keep in the repository's verification ledger what was verified.
    pub record: bool,
    /// Threads that read and decode.
    pub threads: usize,
    /// Memory to live in, in bytes.
    pub memory: u64,
    /// A directory for a temporary file, which gets no name there: 20 bytes for each time that a tree lists a chunk, of more
    /// chunks than fit into memory. Without one they are in memory all the same.
    pub spill: Option<PathBuf>,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            read_data: ReadData::No,
            hashes_only: false,
            record: false,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: crate::budget::USUAL,
            spill: None,
        }
    }
}

/// Something wrong with the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// A stable name for programs: `config-damaged`, `log-damaged`, `log-lost`, `log-gap`, `log-not-understood`, `log-rolled-back`, `log-void`,
    /// `ledger-damaged`, `state-damaged`, `keyslot-damaged`, `keyslot-missing`, `keyslot-unlisted`, `segment-damaged`,
    /// `segment-missing`, `segment-unlisted`, `index-wrong`, `appended-untrue` (an index segment of an append-only keyslot), `pack-damaged`, `pack-missing`, `snapshot-damaged`, `snapshot-not-understood`,
    /// `tree-damaged`, `blob-missing`, `foreign-object`; of parity `parity-damaged`, `parity-missing`, and of damaged objects
    /// `repairable` and `not-repairable`; of the reserve `reserve-missing`, `reserve-short`, `reserve-long` and `reserve-unwanted`.
    pub code: &'static str,
    /// The object concerned, as its key; empty where it is none.
    pub object: String,
    /// What is wrong.
    pub message: String,
    /// Whether data is lost or in doubt; otherwise it is noise worth knowing.
    pub is_damage: bool,
}

/// A file that damage hits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HitFile {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path in it.
    pub path: Vec<u8>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// What is wrong, at most [`CheckReport::FINDINGS_MAX`]: damage first, else in the order of the checks.
    pub findings: Vec<Damage>,
    /// Findings beyond those listed.
    pub more_findings: u64,
    /// Files and directories that cannot be restored in whole, at most [`CheckReport::HIT_FILES_MAX`].
    pub hit_files: Vec<HitFile>,
    /// More were hit than are listed.
    pub more_hit_files: bool,
    /// Commits in the log.
    pub commits: u64,
    /// Live snapshots.
    pub snapshots: u64,
    /// Those of them that a newer version made: what they need is not known, so nothing is said of it.
    pub unread_snapshots: u64,
    /// Live segments.
    pub segments: u64,
    /// Packs that segments list.
    pub packs: u64,
    /// Packs read in whole.
    pub packs_read: u64,
    /// Bytes read of packs.
    pub bytes_read: u64,
    /// Blobs whose ids were verified.
    pub blobs_verified: u64,
    /// Packs that have never been read in whole, as far as the verification ledger knows after this check.
    pub packs_never_read: u64,
    /// The pack whose last reading is the longest ago, and when that was.
    pub oldest_read: Option<(PackId, Timestamp)>,
    /// Why the verification ledger could not be written.
    pub ledger_error: Option<String>,
    /// Packs that no segment lists: left by interrupted or running backups.
    pub orphan_packs: u64,
    /// The operation was cancelled: what was not looked at may be anything.
    pub cancelled: bool,
    /// Others removed packs or segments faster than they could be looked at, time and again: what was not looked at may be
    /// anything.
    pub overtaken: bool,
}

impl CheckReport {
    /// Findings listed at most.
    pub const FINDINGS_MAX: usize = 10_000;

    /// Files listed at most.
    pub const HIT_FILES_MAX: usize = 10_000;

    /// Whether data is lost or in doubt.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.is_damage)
    }
}
