//! Snapshots: who backed up what, when, and the tree it became.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::format::provenance::Provenance;
use crate::format::tree::Timestamp;
use crate::ids::{BlobId, RepositoryId, SnapshotId, WriterId};

/// A snapshot record. It is stored twice: as a blob, which gives it its id, and in the commit that adds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// When the backup began, or the time given for it.
    pub time: Timestamp,
    /// Host the data is from.
    pub hostname: String,
    /// User who ran the backup.
    pub username: String,
    /// What was asked to be backed up, as absolute paths or stream names, in the order given.
    pub paths: Vec<ByteBuf>,
    /// The tree that begins at the root directory: paths lead through it component by component.
    pub tree: BlobId,
    /// Labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The snapshot this one was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// The backup was not finished: everything in the tree is whole, but things are missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Made by a repair from a snapshot of which something was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
    /// The snapshot of another repository that it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What the plan says of it that ordered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Exclude rules in force, as given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// Program and version.
    pub program: String,
    /// What the backup did.
    pub summary: SnapshotSummary,
}

/// What a repaired snapshot says of the one it stands for: what was lost is not in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repaired {
    /// The snapshot that something was lost of.
    pub original: SnapshotId,
    /// The commit that added it: the repaired one takes its place in the order of snapshots.
    pub added: u64,
    /// Files and directories that could not be had: each directory counts once, whatever was in it.
    pub lost: u64,
    /// The appender whose word the original was, if it was one's: it is believed no more for having been repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appender: Option<WriterId>,
}

/// Where a copy is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The repository that the data was backed up to.
    pub repository: RepositoryId,
    /// The snapshot there.
    pub snapshot: SnapshotId,
    /// The commit there by which it is ordered: copies from one repository keep their order, whenever each was made.
    pub added: u64,
    /// The appender that added it there, if one did: what it says is believed no more for having been copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appender: Option<WriterId>,
}

impl Snapshot {
    /// The tag of repaired snapshots, for those who choose by tags.
    pub const REPAIRED_TAG: &str = "repaired";

    /// The appender whose word it is, given the one that added it here: that of the original, if it is a copy or was repaired.
    pub fn appender(&self, added_by: Option<WriterId>) -> Option<WriterId> {
        let of_original = self.origin.and_then(|origin| origin.appender);
        added_by.or(of_original).or(self.repaired.and_then(|repaired| repaired.appender))
    }

    /// What snapshots are ordered by, given the commit that added each: by that commit, but for repaired ones, which
    /// stand just behind their original. An old one is not the latest for having been repaired.
    pub fn position(&self, added: u64) -> (u64, u64) {
        (self.repaired.map_or(added, |repaired| repaired.added.min(added)), added)
    }
}

/// What snapshots of one repository are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    place: u64,
    within: u64,
    added: u64,
}

/// Positions of all snapshots of a repository, each given with the commit that added it: as [`Snapshot::position`] says, but
/// a copy made late stands before the copies of what came after it where it is from.
pub fn positions(snapshots: &[(&Snapshot, u64)]) -> Vec<Position> {
    let mut positions: Vec<Position> = snapshots
        .iter()
        .map(|(snapshot, added)| {
            let (place, added) = snapshot.position(*added);
            Position { place, within: snapshot.origin.map_or(u64::MAX, |origin| origin.added), added }
        })
        .collect();
    let mut copies: Vec<(RepositoryId, u64, usize)> = snapshots
        .iter()
        .enumerate()
        .filter_map(|(at, (snapshot, _))| snapshot.origin.map(|origin| (origin.repository, origin.added, at)))
        .collect();
    copies.sort_unstable_by_key(|(repository, added, at)| (*repository, std::cmp::Reverse(*added), *at));
    for later_first in copies.windows(2) {
        let [(repository, _, later), (same, _, earlier)] = *later_first else { continue };
        if repository == same {
            positions[earlier].place = positions[earlier].place.min(positions[later].place);
        }
    }
    positions
}

/// Counts of a backup, kept in its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSummary {
    /// Files in the snapshot.
    pub files: u64,
    /// Directories in the snapshot.
    pub directories: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files that were new.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files taken over from the parent without reading.
    pub files_unmodified: u64,
    /// Bytes of data and tree blobs that were new to the repository, before compression.
    pub bytes_added: u64,
    /// Bytes the repository grew by in packs.
    pub bytes_stored: u64,
    /// Files that changed while they were read.
    pub unstable: u64,
    /// Entries that could not be read and are missing.
    pub errors: u64,
    /// Nanoseconds from start to the end of reading.
    pub duration_ns: u64,
}
