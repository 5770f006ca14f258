//! What all parts of a running restore share.

use super::inside::{Inside, Relation};
use super::tally::{self, Tally};
use super::{RestoreOptions, tally::explain};
use crate::browse::{self, BrowseError, Found};
use crate::ids::BlobId;
use crate::monitor::EntryAction;
use crate::repo::Repository;
use crate::store::BlobReader;
use crate::target::{MetadataError, MetadataOptions, MetadataWriter, RelativePath, TargetError, TargetRoot};

/// The target as it is before a restore begins.
pub(super) enum Target {
    /// It is there, empty or not.
    Open(Box<TargetRoot>),
    /// It is not there, and a dry run does not make it.
    Absent,
}

/// Everything that planning and execution need.
pub(super) struct Context<'a> {
    pub(super) repository: &'a Repository,
    pub(super) options: &'a RestoreOptions,
    pub(super) target: Target,
    pub(super) tally: Tally<'a>,
    /// Applies what is asked for.
    pub(super) metadata: MetadataWriter,
    /// The same for files that are not whole: without times, so as not to look like those in the snapshot, without flags, so that
    /// they can be renamed and removed, and without owners, so that nobody else's file is gone on with.
    pub(super) metadata_of_incomplete: MetadataWriter,
    /// Where in the target the repository lies.
    pub(super) inside: Inside,
    /// What is restored, if it is a directory.
    tree: Option<BlobId>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        options: &'a RestoreOptions,
        (target, inside): (Target, Inside),
        tree: Option<BlobId>,
        tally: Tally<'a>,
    ) -> Self {
        let of_incomplete = MetadataOptions { times: false, flags: false, owner: false, ..options.metadata };
        Self {
            repository,
            options,
            target,
            inside,
            tree,
            tally,
            metadata: MetadataWriter::new(options.metadata),
            metadata_of_incomplete: MetadataWriter::new(of_incomplete),
        }
    }

    pub(super) fn reader(&self) -> &BlobReader {
        self.repository.reader()
    }

    /// The target, if this run writes to it.
    pub(super) fn writable(&self) -> Option<&TargetRoot> {
        match &self.target {
            Target::Open(root) if !self.options.dry_run => Some(root),
            _ => None,
        }
    }

    /// The target, if it exists.
    pub(super) fn readable(&self) -> Option<&TargetRoot> {
        match &self.target {
            Target::Open(root) => Some(root),
            Target::Absent => None,
        }
    }

    /// Whether the snapshot is known to have something for this place: read from its trees, so not to be asked of every file.
    pub(super) fn snapshot_has(&self, path: &RelativePath) -> bool {
        self.find(path).is_some_and(|found| found.is_ok())
    }

    /// The same, where a tree that cannot be read may have it.
    pub(super) fn snapshot_may_have(&self, path: &RelativePath) -> bool {
        self.find(path).is_some_and(|found| !matches!(found, Err(BrowseError::NoPath { .. })))
    }

    fn find(&self, path: &RelativePath) -> Option<Result<Found, BrowseError>> {
        Some(browse::find(self.reader(), self.tree.as_ref()?, path.as_bytes()))
    }

    /// Counts and reports an entry that could not be put in place.
    pub(super) fn fail(&self, path: &RelativePath, error: &TargetError) {
        self.tally.fail(tally::FAILED, path.as_bytes(), explain(error));
    }

    /// Reports metadata that could not be applied; counts one entry, if there is any. Gives whether all is well.
    pub(super) fn metadata_applied(&self, path: &RelativePath, errors: &[MetadataError]) -> bool {
        if errors.is_empty() {
            return true;
        }
        self.tally.count_error();
        self.tell_metadata(path, errors);
        false
    }

    /// Reports metadata that could not be applied to an entry that is counted elsewhere.
    pub(super) fn tell_metadata(&self, path: &RelativePath, errors: &[MetadataError]) {
        for error in errors {
            self.tally.problem(tally::METADATA, path.as_bytes(), explain(error));
        }
    }

    /// Clears the way for an entry that is no directory, where one is in its place: only if deletion was asked
    /// for. Otherwise creating the entry will fail and say so.
    pub(super) fn clear_directory(&self, path: &RelativePath) -> Result<(), TargetError> {
        // What holds the repository stays, so that creating the entry fails.
        if !self.options.delete || self.inside.relation(path) != Relation::Apart {
            return Ok(());
        }
        if let Some(root) = self.writable() {
            root.remove_tree(path)?;
        }
        tally::add(&self.tally.counts.deleted, 1);
        self.tally.entry(path.as_bytes(), EntryAction::Deleted);
        Ok(())
    }
}
