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
use strongroom::format::tree::{FileContent, Node, NodeKind};
use strongroom::ids::{BlobId, SnapshotId};
use strongroom::restore::RestoreOptions;
use strongroom::store::BlobReader;
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

/// Whether something is what a snapshot has of it, but for the bytes of files: kind, where a link leads, which device, permissions.
fn is_as(node: &Node, place: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(place) else { return false };
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
    let mut count = 0;
    let mut compare = |node: &Node, place: &Path| {
        let is_counted = matches!(node.kind, NodeKind::File(_)) && fs::symlink_metadata(place).is_err();
        count += u64::from(!is_counted && !is_as(node, place));
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

    fn node(kind: NodeKind, mode: u32) -> Node {
        Node { name: b"x".to_vec().into(), kind, metadata: Metadata { mode, ..Metadata::default() } }
    }

    #[test]
    fn links_directories_and_permissions_are_compared_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("x");
        let link =
            |target: &str| node(NodeKind::Symlink { target: target.as_bytes().to_vec().into() }, 0o777);
        let directory = |mode| node(NodeKind::Directory { tree: BlobId::from_bytes([0; 32]) }, mode);
        assert!(!is_as(&directory(0o755), &place), "it is not there");
        symlink("there", &place).expect("a link");
        assert!(is_as(&link("there"), &place));
        assert!(!is_as(&link("elsewhere"), &place));
        assert!(!is_as(&directory(0o777), &place), "a link is no directory");
        fs::remove_file(&place).expect("removed");
        fs::create_dir(&place).expect("made");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).expect("set");
        assert!(is_as(&directory(0o700), &place));
        assert!(!is_as(&directory(0o755), &place));
        assert!(!is_as(&link("there"), &place));
        assert!(!is_as(&node(NodeKind::Fifo, 0o700), &place));
    }
}
