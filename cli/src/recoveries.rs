//! What recoveries ask of repositories, done by the engine.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use strongroom::browse::{self, BrowseError, Found};
use strongroom::format::note::RECOVERY_NOTE;
use strongroom::format::record;
use strongroom::format::snapshot::Snapshot;
use strongroom::format::tree::{FileContent, Node, NodeKind, Timestamp};
use strongroom::ids::{BlobId, SnapshotId};
use strongroom::restore::RestoreOptions;
use strongroom::store::BlobReader;
use strongroom::target::{MetadataOptions, MetadataWriter};
use strongroom_ops::drill::Problem;
use strongroom_ops::drill::{Compared, Restored};
use strongroom_ops::plan::values::Name;
use strongroom_ops::recover::{Held, RecoveryRecord, Source};
use strongroom_ops::run::vault::{Vault, VaultError};

use crate::drills::{compared, find, restore_parts, restored};
use crate::vault::{Repositories, failed};

/// Repositories as recoveries see them.
pub struct Recoveries<'a> {
    /// The repositories.
    pub repositories: &'a Repositories<'a>,
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Bytes of a file that are not in holes.
fn stored(content: &FileContent) -> u64 {
    let holes = content.holes.iter().fold(0_u64, |sum, hole| sum.saturating_add(hole.length));
    content.size.saturating_sub(holes)
}

fn of_tree(reader: &BlobReader, tree: &BlobId) -> Result<Held, VaultError> {
    let mut held = Held { is_directory: true, files: 0, bytes: 0 };
    browse::list(reader, tree, b"", true, &mut |_, node| {
        if let NodeKind::File(content) = &node.kind {
            held.files += 1;
            held.bytes = held.bytes.saturating_add(stored(content));
        }
        ControlFlow::Continue(())
    })
    .map_err(failed)?;
    Ok(held)
}

fn of_node(reader: &BlobReader, node: &Node) -> Result<Held, VaultError> {
    match &node.kind {
        NodeKind::Directory { tree } => of_tree(reader, tree),
        NodeKind::File(content) => Ok(Held { is_directory: false, files: 1, bytes: stored(content) }),
        _ => Ok(Held::default()),
    }
}

/// Steps in which file systems keep times, in nanoseconds: what was set is cut off to one of these.
const TIME_STEPS: [u32; 5] = [1, 100, 1_000, 1_000_000, 1_000_000_000];

/// Whether this is the time that a file system keeps where that one is set. What not all can keep, before 1901 or after 2038, is any.
fn is_time(wanted: Timestamp, (seconds, nanos): (i64, i64)) -> bool {
    let is_kept = i32::try_from(wanted.seconds).is_ok();
    let is_cut = |step: &u32| i64::from(wanted.nanos - wanted.nanos % step) == nanos;
    !is_kept || wanted.seconds == seconds && TIME_STEPS.iter().any(is_cut)
}

/// Whether something is what a snapshot has of it, but for the bytes of files: kind, where a link leads, which device, permissions,
/// time, and the owner if a restore sets it.
fn is_as(node: &Node, place: &Path, metadata: &MetadataWriter) -> bool {
    let Ok(found) = fs::symlink_metadata(place) else { return false };
    let owner = metadata.owner_of(&node.metadata);
    if !is_time(node.metadata.mtime, (found.mtime(), found.mtime_nsec()))
        || owner.is_some_and(|owner| owner != (found.uid(), found.gid()))
    {
        return false;
    }
    let kind = found.file_type();
    let is_device =
        |major, minor| (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev())) == (major, minor);
    let is_kind = match &node.kind {
        NodeKind::Symlink { target } => {
            let leads = fs::read_link(place);
            return leads.is_ok_and(|leads| leads.as_os_str().as_bytes() == target.as_slice());
        }
        NodeKind::File(_) => kind.is_file(),
        NodeKind::Directory { .. } => kind.is_dir(),
        NodeKind::CharDevice { major, minor } => kind.is_char_device() && is_device(*major, *minor),
        NodeKind::BlockDevice { major, minor } => kind.is_block_device() && is_device(*major, *minor),
        NodeKind::Fifo => kind.is_fifo(),
        NodeKind::Socket => kind.is_socket(),
    };
    // Where access lists cannot be set, the group gets what they leave it.
    let asked = if node.metadata.xattrs.is_empty() { 0o777 } else { 0o707 };
    is_kind && found.mode() & asked == node.metadata.mode & asked
}

/// Entries of what was restored that are not what the snapshot has. Files that are not there are counted by who compares their bytes.
fn misfits(
    repositories: &Repositories<'_>,
    repo: &Name,
    snapshot: &SnapshotId,
    path: &Path,
    into: &Path,
) -> Result<u64, VaultError> {
    let (repository, found) = find(repositories, repo, snapshot)?;
    let reader = repository.reader();
    let metadata = MetadataWriter::new(MetadataOptions::default());
    let mut count = 0;
    let mut compare = |node: &Node, place: &Path| {
        let is_counted = matches!(node.kind, NodeKind::File(_)) && fs::symlink_metadata(place).is_err();
        count += u64::from(!is_counted && !is_as(node, place, &metadata));
    };
    let top = browse::find(reader, &found.tree, &bytes(path)).map_err(failed)?;
    if let Found::Node(node) = &top {
        let is_directory = matches!(node.kind, NodeKind::Directory { .. });
        let own = into.join(OsStr::from_bytes(&node.name));
        compare(node, if is_directory { into } else { &own });
    }
    if let Some(tree) = top.tree() {
        browse::list(reader, &tree, b"", true, &mut |below, node| {
            let below = below.strip_prefix(b"/").unwrap_or(below);
            compare(node, &into.join(OsStr::from_bytes(below)));
            ControlFlow::Continue(())
        })
        .map_err(failed)?;
    }
    Ok(count)
}

impl Source for Recoveries<'_> {
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        Vault::snapshots(self.repositories, repo)
    }

    fn require_latest(&self, repo: &Name, snapshot: &SnapshotId) -> Result<(), VaultError> {
        self.repositories.open(repo)?.require_latest(Some(snapshot)).map_err(failed)
    }

    fn look(&self, repo: &Name, snapshot: &SnapshotId, path: &Path) -> Result<Option<Held>, VaultError> {
        let (repository, found) = find(self.repositories, repo, snapshot)?;
        let reader = repository.reader();
        match browse::find(reader, &found.tree, &bytes(path)) {
            Ok(Found::Root(tree)) => of_tree(reader, &tree).map(Some),
            Ok(Found::Node(node)) => of_node(reader, &node).map(Some),
            Err(BrowseError::NoPath { .. } | BrowseError::NotDirectory { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn entries(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        path: &Path,
    ) -> Result<Vec<(OsString, Held)>, VaultError> {
        let (repository, found) = find(self.repositories, repo, snapshot)?;
        let reader = repository.reader();
        let Some(tree) = browse::find(reader, &found.tree, &bytes(path)).map_err(failed)?.tree() else {
            return Ok(Vec::new());
        };
        let mut nodes = Vec::new();
        browse::nodes(reader, &tree, &mut |node| {
            nodes.push(node);
            ControlFlow::Continue(())
        })
        .map_err(failed)?;
        let entry = |node: &Node| Ok((OsString::from_vec(node.name.to_vec()), of_node(reader, node)?));
        nodes.iter().map(entry).collect()
    }

    fn stage(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        path: &Path,
        into: &Path,
    ) -> Result<Restored, VaultError> {
        let options = RestoreOptions { sync: true, ..RestoreOptions::default() };
        let parts = [(bytes(path), into.to_owned())];
        let (reports, problem) = restore_parts(self.repositories, repo, snapshot, &parts, &options)?;
        Ok(restored(&reports, problem))
    }

    fn compare(
        &self,
        repo: &Name,
        snapshot: &SnapshotId,
        path: &Path,
        into: &Path,
    ) -> Result<Compared, VaultError> {
        let options = RestoreOptions { dry_run: true, ..RestoreOptions::default() };
        let parts = [(bytes(path), into.to_owned())];
        let (reports, problem) = restore_parts(self.repositories, repo, snapshot, &parts, &options)?;
        match problem {
            None => {
                let Compared { same, different } = compared(&reports);
                let others = misfits(self.repositories, repo, snapshot, path, into)?;
                Ok(Compared { same, different: different + others })
            }
            // What could not be read is the same as nothing.
            Some(Problem { is_damage, message }) => {
                let code = if is_damage { "blob-damaged" } else { "storage" };
                Err(VaultError { code: code.into(), message })
            }
        }
    }

    fn note(&self, repo: &Name, record: &RecoveryRecord) -> Result<(), VaultError> {
        self.repositories.note(repo, RECOVERY_NOTE, &record::encode(&record.note()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use strongroom::format::tree::Metadata;

    use super::*;

    const TIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanos: 123_456_789 };

    /// An entry of whoever runs the tests.
    fn node(kind: NodeKind, mode: u32) -> Node {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let metadata = Metadata { mode, uid, gid, mtime: TIME, ..Metadata::default() };
        Node { name: b"x".to_vec().into(), kind, metadata }
    }

    fn set_time(place: &Path) {
        let time = rustix::fs::Timespec { tv_sec: TIME.seconds, tv_nsec: TIME.nanos.into() };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, place, &times, flags).expect("set");
    }

    #[test]
    fn links_directories_and_permissions_are_compared_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("x");
        let writer = MetadataWriter::new(MetadataOptions { owner: false, ..MetadataOptions::default() });
        let is_as = |node: &Node| is_as(node, &place, &writer);
        let link =
            |target: &str| node(NodeKind::Symlink { target: target.as_bytes().to_vec().into() }, 0o777);
        let directory = |mode| node(NodeKind::Directory { tree: BlobId::from_bytes([0; 32]) }, mode);
        assert!(!is_as(&directory(0o755)), "it is not there");
        symlink("there", &place).expect("a link");
        set_time(&place);
        assert!(is_as(&link("there")));
        assert!(!is_as(&link("elsewhere")));
        assert!(!is_as(&directory(0o777)), "a link is no directory");
        fs::remove_file(&place).expect("removed");
        fs::create_dir(&place).expect("made");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).expect("set");
        set_time(&place);
        assert!(is_as(&directory(0o700)));
        assert!(!is_as(&directory(0o755)));
        assert!(!is_as(&link("there")));
        assert!(!is_as(&node(NodeKind::Fifo, 0o700)));
    }

    #[test]
    fn times_and_owners_are_compared_as_far_as_they_are_restored() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("x");
        let writer = |owner| MetadataWriter::new(MetadataOptions { owner, ..MetadataOptions::default() });
        let directory = || node(NodeKind::Directory { tree: BlobId::from_bytes([0; 32]) }, 0o700);
        fs::create_dir(&place).expect("made");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).expect("set");
        assert!(!is_as(&directory(), &place, &writer(true)), "it is of today");
        set_time(&place);
        assert!(is_as(&directory(), &place, &writer(true)));
        let mut others = directory();
        others.metadata.uid += 1;
        assert!(!is_as(&others, &place, &writer(true)));
        assert!(is_as(&others, &place, &writer(false)), "nobody asked for owners");
        others.metadata.uid -= 1;
        others.metadata.gid += 1;
        assert!(!is_as(&others, &place, &writer(true)));
    }

    #[test]
    fn a_time_is_the_same_if_the_file_system_cannot_keep_more_of_it() {
        for nanos in [123_456_789, 123_456_700, 123_456_000, 123_000_000, 0] {
            assert!(is_time(TIME, (TIME.seconds, nanos)), "{nanos}");
        }
        for nanos in [123_456_788, 123_457_000, 100_000_000, 1] {
            assert!(!is_time(TIME, (TIME.seconds, nanos)), "{nanos}");
        }
        assert!(!is_time(TIME, (TIME.seconds + 1, 0)));
        // Some file systems end in 2038.
        assert!(is_time(Timestamp { seconds: 1 << 31, nanos: 5 }, ((1 << 31) - 1, 0)));
    }
}
