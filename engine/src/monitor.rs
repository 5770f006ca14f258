//! What operations report while they run. The engine counts; the caller draws.

/// How far an operation is. Totals are absent while they are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files (or packs, for a check) dealt with.
    pub items: u64,
    /// All of them.
    pub items_total: Option<u64>,
    /// Bytes dealt with.
    pub bytes: u64,
    /// All of them.
    pub bytes_total: Option<u64>,
    /// Problems so far.
    pub problems: u64,
}

/// Something that went wrong without ending the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A stable name for programs, such as `unreadable` or `vanished`.
    pub code: &'static str,
    /// The file or object concerned.
    pub path: Option<Vec<u8>>,
    /// What happened, for people.
    pub message: String,
    /// Whether the result is worse for it; otherwise it is good to know.
    pub is_error: bool,
}

/// Code of a snapshot whose record cannot be read: everything else goes on without it.
pub const SNAPSHOT_UNREAD: &str = "snapshot-unread";

/// What was done with an entry, for those who want to see each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryAction {
    /// Not in the parent snapshot.
    New,
    /// Differs from the parent snapshot.
    Changed,
    /// As in the parent snapshot.
    Unmodified,
    /// Left out by a rule.
    Excluded,
    /// Written by a restore.
    Restored,
    /// Left alone by a restore.
    Skipped,
    /// Removed by a restore.
    Deleted,
}

/// Listens to an operation. All methods may be called from several threads.
pub trait Monitor: Send + Sync {
    /// Called often: implementations draw now and then.
    fn progress(&self, progress: &Progress) {
        let _ = progress;
    }

    /// Whether totals are worth counting where they are not known.
    fn wants_totals(&self) -> bool {
        false
    }

    /// Called for each problem.
    fn problem(&self, problem: &Problem) {
        let _ = problem;
    }

    /// Called for each entry, if [`Monitor::wants_entries`].
    fn entry(&self, path: &[u8], action: EntryAction) {
        let _ = (path, action);
    }

    /// Whether [`Monitor::entry`] is to be called at all.
    fn wants_entries(&self) -> bool {
        false
    }

    /// Whether the operation has to come to an orderly end soon.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Hears nothing and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {}
