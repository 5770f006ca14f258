//! What a restore has done so far, and its reports to the monitor.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::RestoreReport;
use crate::index::IndexError;
use crate::monitor::{EntryAction, Monitor, Problem, Progress};
use crate::store::ReadError;

/// An entry could not be put in place, or its content not be written.
pub(super) const FAILED: &str = "restore-failed";
/// An entry is in place, but some of its metadata is not as recorded.
pub(super) const METADATA: &str = "metadata-failed";
/// A file is not as in the snapshot, and what there is of it does not stand under its name.
pub(super) const INCOMPLETE: &str = "restore-incomplete";
/// Content that the repository does not have.
pub(super) const MISSING: &str = "blob-missing";
/// Content or a directory that the repository has, damaged.
pub(super) const DAMAGED: &str = "blob-damaged";
/// Content or a directory that cannot be read now: nothing is known against it.
pub(super) const STORAGE: &str = "storage";
/// What was read back differs, or could not be read back.
pub(super) const VERIFY: &str = "verify-failed";
/// The repository lies where something should be put or removed.
pub(super) const REPOSITORY: &str = "repository-in-target";
/// Something that should go could not be removed.
pub(super) const DELETE: &str = "delete-failed";

/// Counters of a run, for all its threads.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) files: AtomicU64,
    pub(super) directories: AtomicU64,
    pub(super) others: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) files_written: AtomicU64,
    pub(super) files_unchanged: AtomicU64,
    pub(super) files_skipped: AtomicU64,
    pub(super) files_incomplete: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) deleted: AtomicU64,
    pub(super) verified: AtomicU64,
    errors: AtomicU64,
    items_done: AtomicU64,
    bytes_done: AtomicU64,
}

/// Counters and the one who hears of them.
pub(super) struct Tally<'a> {
    pub(super) counts: Counts,
    monitor: &'a dyn Monitor,
    /// Files and bytes in all, where they are known beforehand.
    totals: Option<(u64, u64)>,
    wants_entries: bool,
    /// Somebody asked whether to go on and was told not to: what they had in hand is not done.
    was_cancelled: AtomicBool,
    /// The path in the snapshot of what the target directory stands for; empty for its root.
    prefix: Vec<u8>,
}

/// Adds to a counter, which stays at its greatest value: three files that are holes may have more bytes than there are numbers.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    let sum = |count: u64| Some(count.saturating_add(amount));
    let _ = counter.fetch_update(Relaxed, Relaxed, sum);
}

/// An error with its causes, as one line.
pub(super) fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors already end with their cause.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The code of what cannot be read: a storage that fails is no damage.
pub(super) fn code_of(error: &ReadError) -> &'static str {
    match error {
        ReadError::Missing { .. } => MISSING,
        error if error.is_loss() => DAMAGED,
        _ => STORAGE,
    }
}

/// The code of an index that cannot be searched.
pub(super) fn code_of_index(error: &IndexError) -> &'static str {
    if error.is_loss() { DAMAGED } else { STORAGE }
}

impl<'a> Tally<'a> {
    pub(super) fn new(monitor: &'a dyn Monitor, prefix: Vec<u8>, totals: Option<(u64, u64)>) -> Self {
        Self {
            counts: Counts::default(),
            monitor,
            totals,
            wants_entries: monitor.wants_entries(),
            was_cancelled: AtomicBool::new(false),
            prefix,
        }
    }

    /// Whether to leave off. Who asks leaves something undone if so.
    pub(super) fn is_cancelled(&self) -> bool {
        let is_cancelled = self.monitor.is_cancelled();
        if is_cancelled {
            self.was_cancelled.store(true, Relaxed);
        }
        is_cancelled
    }

    /// The path in the snapshot of what the target directory stands for.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    fn shown(&self, relative: &[u8]) -> Vec<u8> {
        let mut path = self.prefix.clone();
        path.push(b'/');
        path.extend_from_slice(relative);
        path
    }

    /// Tells of a problem with an entry that has been counted.
    pub(super) fn problem(&self, code: &'static str, path: &[u8], message: String) {
        let path = Some(self.shown(path));
        self.monitor.problem(&Problem { code, path, message, is_error: true });
    }

    /// Tells of something worth knowing about an entry that is as it should be.
    pub(super) fn warn(&self, code: &'static str, path: &[u8], message: String) {
        let path = Some(self.shown(path));
        self.monitor.problem(&Problem { code, path, message, is_error: false });
    }

    /// Counts an entry that could not be restored wholly.
    pub(super) fn count_error(&self) {
        add(&self.counts.errors, 1);
    }

    /// Counts an entry as failed and says why.
    pub(super) fn fail(&self, code: &'static str, path: &[u8], message: String) {
        self.count_error();
        self.problem(code, path, message);
    }

    /// Tells what was done with an entry, if anybody wants to know.
    pub(super) fn entry(&self, path: &[u8], action: EntryAction) {
        if self.wants_entries {
            self.monitor.entry(&self.shown(path), action);
        }
    }

    /// Counts `items` entries and `bytes` of content as dealt with.
    pub(super) fn advance(&self, items: u64, bytes: u64) {
        add(&self.counts.items_done, items);
        add(&self.counts.bytes_done, bytes);
    }

    /// Shows how far it is.
    pub(super) fn show_progress(&self) {
        self.monitor.progress(&Progress {
            items: self.counts.items_done.load(Relaxed),
            items_total: self.totals.map(|(files, _)| files),
            bytes: self.counts.bytes_done.load(Relaxed),
            bytes_total: self.totals.map(|(_, bytes)| bytes),
            problems: self.counts.errors.load(Relaxed),
        });
    }

    /// The counters as they are.
    pub(super) fn report(&self) -> RestoreReport {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        RestoreReport {
            files: get(&self.counts.files),
            directories: get(&self.counts.directories),
            others: get(&self.counts.others),
            bytes: get(&self.counts.bytes),
            files_written: get(&self.counts.files_written),
            files_unchanged: get(&self.counts.files_unchanged),
            files_skipped: get(&self.counts.files_skipped),
            files_incomplete: get(&self.counts.files_incomplete),
            bytes_written: get(&self.counts.bytes_written),
            deleted: get(&self.counts.deleted),
            verified: get(&self.counts.verified),
            errors: get(&self.counts.errors),
            cancelled: self.was_cancelled.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::backend::BackendError;
    use crate::crypto::keys::BlobKind;
    use crate::ids::{BlobId, PackId};

    #[test]
    fn only_what_is_lost_has_the_code_of_damage() {
        let failing = |number| {
            let source = io::Error::from_raw_os_error(number);
            let source = BackendError::Io { action: "read", what: "a pack".into(), source };
            ReadError::Backend { pack: PackId::from_bytes([1; 32]), source }
        };
        assert_eq!(code_of(&failing(rustix::io::Errno::STALE.raw_os_error())), STORAGE);
        assert_eq!(code_of(&failing(rustix::io::Errno::ACCESS.raw_os_error())), STORAGE);
        assert_eq!(
            code_of(&failing(rustix::io::Errno::IO.raw_os_error())),
            DAMAGED,
            "the medium has lost it"
        );
        let missing = ReadError::Missing { id: BlobId::from_bytes([2; 32]), kind: BlobKind::Data };
        assert_eq!(code_of(&missing), MISSING);
    }
}
