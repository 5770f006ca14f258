//! The change that takes packs out of the index for good: segments without them, and their removal in the same commit.
//!
//! They are removed at once and not only condemned, so that nobody can rescue them: a backup at work that relies on a blob
//! of theirs finds that out when it commits, and stores it again. Their objects stay for a later prune to delete.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backend::ObjectKey;
use crate::format::commit::Change;
use crate::ids::{PackId, SegmentId};
use crate::index::IndexError;
use crate::log::Fold;
use crate::repo::{NewSegment, Repository, RepositoryError};

/// Packs to be taken out of the index, and the segments that this makes.
pub(super) struct Release<'a> {
    repository: &'a Repository,
    packs: BTreeSet<PackId>,
    /// Segments to be replaced, and the one that takes their place, if anything is left of them.
    replaced: BTreeSet<SegmentId>,
    replacement: Option<NewSegment>,
    /// Replacements that others' commits made useless.
    useless: Vec<SegmentId>,
}

impl<'a> Release<'a> {
    pub fn new(repository: &'a Repository, packs: BTreeSet<PackId>) -> Self {
        Self { repository, packs, replaced: BTreeSet::new(), replacement: None, useless: Vec::new() }
    }

    /// The changes, given the log at that moment.
    pub fn changes(&mut self, fold: &Fold) -> Result<Vec<Change>, RepositoryError> {
        if self.packs.is_empty() {
            return Ok(Vec::new());
        }
        self.replace_segments(fold)?;
        let packs: Vec<PackId> = self.packs.iter().copied().collect();
        let mut changes = Vec::new();
        if !self.replaced.is_empty() {
            changes.push(Change::SegmentsReplaced {
                added: self.replacement.iter().map(|new| new.info).collect(),
                removed: self.replaced.iter().copied().collect(),
            });
        }
        changes.push(Change::PacksCondemned { packs: packs.clone() });
        changes.push(Change::PacksRemoved { packs });
        Ok(changes)
    }

    /// Makes the segment that takes the place of all live ones that list the packs.
    fn replace_segments(&mut self, fold: &Fold) -> Result<(), RepositoryError> {
        let mut affected = Vec::new();
        for segment in self.repository.index().segments().iter() {
            if fold.has_segment(&segment.id()) && self.lists_any(segment)? {
                affected.push(Arc::clone(segment));
            }
        }
        let ids: BTreeSet<SegmentId> = affected.iter().map(|segment| segment.id()).collect();
        if ids == self.replaced {
            return Ok(());
        }
        self.useless.extend(self.replacement.take().map(|new| new.info.segment));
        if !ids.is_empty() {
            let packs = &self.packs;
            self.replacement = self.repository.store_filtered(&affected, &|pack| !packs.contains(pack))?;
        }
        self.replaced = ids;
        Ok(())
    }

    fn lists_any(&self, segment: &crate::index::Segment) -> Result<bool, IndexError> {
        for pack in segment.packs() {
            if self.packs.contains(&pack?.id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes segments that the commit took out of the index, and those that were of no use.
    pub fn done(self) -> Result<(), RepositoryError> {
        for id in self.replaced.iter().chain(&self.useless) {
            self.repository.delete_object(&ObjectKey::segment(id))?;
        }
        Ok(())
    }
}
