//! What may have been lost since a parent snapshot was made. An unchanged file is then taken over only if its chunks are still to
//! be had; else it is read again, and stored.
//!
//! Nobody asks for each chunk as long as no commit since the parent says that something may be lost, and no check has found
//! a pack damaged.

use std::collections::HashSet;

use crate::backend::ObjectKey;
use crate::backup::session::Session;
use crate::crypto::keys::BlobKind;
use crate::format::chunk_list::{self, ChunkList};
use crate::format::commit::{Change, Commit};
use crate::format::note::{LOG_LOSS_NOTE, REBUILD_NOTE};
use crate::format::record::{self, RECORD_OBJECT_LEN_MAX};
use crate::format::tree::{Node, NodeKind};
use crate::ids::{BlobId, PackId};
use crate::repo::Repository;

/// Commits that are read in search of losses; where there are more, they are taken for granted.
const COMMITS_MAX: u64 = 4096;

/// Whether a commit after number `commit` may have taken blobs out of the index that snapshots need.
pub(super) fn since(repository: &Repository, commit: u64) -> bool {
    let last = repository.fold().seq();
    last.saturating_sub(commit) > COMMITS_MAX || (commit + 1..=last).any(|seq| may_lose(repository, seq))
}

fn may_lose(repository: &Repository, seq: u64) -> bool {
    let Ok(object) = repository.backend().read(&ObjectKey::log(seq), RECORD_OBJECT_LEN_MAX) else {
        return true;
    };
    // What is no commit changes nothing.
    let Ok((commit, _)) = Commit::open(object, seq, repository.keys(), &repository.id()) else {
        return false;
    };
    let mut condemned: HashSet<PackId> = HashSet::new();
    for change in &commit.changes {
        match change {
            Change::PacksCondemned { packs } => condemned.extend(packs),
            // A prune does this in two commits: to packs that nobody needs.
            Change::PacksRemoved { packs } if packs.iter().any(|pack| condemned.contains(pack)) => {
                return true;
            }
            Change::Note { kind, .. } if kind == REBUILD_NOTE || kind == LOG_LOSS_NOTE => return true,
            _ => {}
        }
    }
    false
}

/// Looks up what files rest on.
#[derive(Clone, Copy)]
pub(super) struct Holdings<'r> {
    session: &'r Session<'r>,
}

impl<'r> Holdings<'r> {
    pub fn of(session: &'r Session<'r>) -> Self {
        Self { session }
    }

    /// Whether all that a node's content rests on is there, as far as the index and earlier checks tell.
    pub fn have(self, node: &Node) -> bool {
        match &node.kind {
            NodeKind::File(content) => self.have_table(content.depth, &content.chunks),
            _ => true,
        }
    }

    fn have_table(self, depth: u8, table: &[u8]) -> bool {
        if depth == 0 {
            let is_there = |id: &BlobId| self.session.is_in_sound_pack(id).unwrap_or(false);
            return chunk_list::chunks(table)
                .is_ok_and(|mut chunks| chunks.all(|chunk| chunk.is_ok_and(|chunk| is_there(&chunk.id))));
        }
        chunk_list::lists(table)
            .is_ok_and(|mut lists| lists.all(|list| list.is_ok_and(|list| self.have_list(depth, &list.id))))
    }

    fn have_list(self, depth: u8, id: &BlobId) -> bool {
        let Ok(bytes) = self.session.repository.reader().read(BlobKind::Tree, id) else { return false };
        let list: Result<ChunkList, _> = record::decode(&bytes);
        list.is_ok_and(|list| list.depth < depth && self.have_table(list.depth, &list.chunks))
    }
}
