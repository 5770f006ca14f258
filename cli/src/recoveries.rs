//! What recoveries ask of repositories, done by the engine.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use strongroom::browse::{self, BrowseError, Found};
use strongroom::format::commit::Change;
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

impl Source for Recoveries<'_> {
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        Vault::snapshots(self.repositories, repo)
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
            None => Ok(compared(&reports)),
            // What could not be read is the same as nothing.
            Some(Problem { is_damage, message }) => {
                let code = if is_damage { "blob-damaged" } else { "storage" };
                Err(VaultError { code: code.into(), message })
            }
        }
    }

    fn note(&self, repo: &Name, record: &RecoveryRecord) -> Result<(), VaultError> {
        let repository = self.repositories.open(repo)?;
        let note = Change::Note { kind: RECOVERY_NOTE.into(), record: record::encode(&record.note()).into() };
        repository.commit(&mut |_| Ok(vec![note.clone()])).map_err(failed)?;
        Ok(())
    }
}
