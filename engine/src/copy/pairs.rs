//! Both names of what a snapshot and its copy hold, by walking them side by side.

use crate::backup::BackupError;
use crate::copy::renames::Renames;
use crate::copy::trees::{Chunks, Nodes};
use crate::copy::{CopyError, Stop};
use crate::format::tree::{FileContent, NodeKind};
use crate::ids::BlobId;
use crate::index::Gathered;
use crate::repo::RepositoryError;
use crate::store::BlobReader;

/// A directory on the way, of both sides.
struct Frame {
    source: Nodes,
    target: Nodes,
}

impl Frame {
    fn of((source, target): (BlobId, BlobId)) -> Self {
        Self { source: Nodes::new(source), target: Nodes::new(target) }
    }
}

/// Notes the target's names of all trees and chunks below a pair of trees, and what is to be relied on for that. False where they do
/// not say the same, or something cannot be read: what was noted of them does not count then.
pub(super) fn learn(
    source: &BlobReader,
    target: &BlobReader,
    pair: (BlobId, BlobId),
    renames: &mut Renames,
    relied_on: &mut Gathered,
) -> Result<bool, CopyError> {
    match walk(source, target, pair, renames, relied_on) {
        Ok(fits) => Ok(fits),
        Err(Stop::Lost(_)) => Ok(false),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn walk(
    source: &BlobReader,
    target: &BlobReader,
    pair: (BlobId, BlobId),
    renames: &mut Renames,
    relied_on: &mut Gathered,
) -> Result<bool, Stop> {
    renames.insert(&pair.0, &pair.1)?;
    let mut frames = vec![Frame::of(pair)];
    while let Some(frame) = frames.last_mut() {
        let (old, new) = match (frame.source.next(source)?, frame.target.next(target)?) {
            (None, None) => {
                frames.pop();
                continue;
            }
            (Some(old), Some(new)) => (old, new),
            _ => return Ok(false),
        };
        if old.name != new.name || old.metadata != new.metadata {
            return Ok(false);
        }
        match (&old.kind, &new.kind) {
            (NodeKind::Directory { tree: old }, NodeKind::Directory { tree: new }) => {
                if renames.get(old)?.is_none() {
                    renames.insert(old, new)?;
                    frames.push(Frame::of((*old, *new)));
                }
            }
            (NodeKind::File(old), NodeKind::File(new)) => {
                if !same_file(source, target, (old, new), renames, relied_on)? {
                    return Ok(false);
                }
            }
            (old, new) if old == new => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn same_file(
    source: &BlobReader,
    target: &BlobReader,
    (old, new): (&FileContent, &FileContent),
    renames: &mut Renames,
    relied_on: &mut Gathered,
) -> Result<bool, Stop> {
    let without_chunks =
        |content: &FileContent| FileContent { depth: 0, chunks: Vec::new().into(), ..content.clone() };
    if without_chunks(old) != without_chunks(new) {
        return Ok(false);
    }
    let (mut old, mut new) = (Chunks::of(old)?, Chunks::of(new)?);
    loop {
        match (old.next(source)?, new.next(target)?) {
            (None, None) => return Ok(true),
            (Some(old), Some(new)) if old.len == new.len => {
                if renames.get(&old.id)?.is_none() {
                    relied_on
                        .add(&new.id)
                        .map_err(|error| BackupError::from(RepositoryError::from(error)))?;
                    renames.insert(&old.id, &new.id)?;
                }
            }
            _ => return Ok(false),
        }
    }
}
