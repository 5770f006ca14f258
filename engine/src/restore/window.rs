//! A window: a bounded part of a restore, planned by the walk and executed as a whole.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::existing::Fate;
use super::tally::Tally;
use crate::format::tree::{Hole, Metadata};
use crate::ids::BlobId;
use crate::target::RelativePath;

/// How much one window holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Chunks.
    pub(super) chunks: usize,
    /// Files, links and directories.
    pub(super) entries: usize,
    /// Bytes of their paths and metadata.
    pub(super) bytes: usize,
}

impl Limits {
    /// Of two windows that live in `memory`, the one that is planned and the one that is executed: there a chunk takes about 110
    /// bytes, an entry about 400.
    pub(super) fn for_memory(memory: u64) -> Self {
        let share = usize::try_from(memory / 4).unwrap_or(usize::MAX);
        Self {
            chunks: (share / 110).clamp(4096, 300_000),
            entries: (share / 400).clamp(512, 65_536),
            bytes: share.max(1 << 20),
        }
    }

    /// A part of them: the first windows are small, so that the disks do not wait for the first plan.
    pub(super) fn part(&self, windows_before: u32) -> Self {
        let shift = 4_u32.saturating_sub(windows_before);
        Self {
            chunks: (self.chunks >> shift).max(1),
            entries: (self.entries >> shift).max(1),
            bytes: self.bytes >> shift,
        }
    }
}

/// A chunk that has to get into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The data blob.
    pub(super) id: BlobId,
    /// Its length in bytes.
    pub(super) len: u32,
    /// Index of the file in the window.
    pub(super) job: u32,
    /// Offset of its first byte in the file.
    pub(super) at: u64,
}

/// A range of a file that the repository cannot give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// Offset in the file.
    pub(super) at: u64,
    /// Length in bytes.
    pub(super) len: u64,
    /// Code of the problem.
    pub(super) code: &'static str,
    /// What is wrong.
    pub(super) why: Arc<str>,
}

/// What became of a file so far. Shared by the windows that a long file stretches over.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// It failed and was reported: nothing more is done about it.
    dead: AtomicBool,
    failed: AtomicBool,
    /// Some of its content is missing.
    pub(super) incomplete: AtomicBool,
    /// Something was written to it.
    pub(super) changed: AtomicBool,
    /// It is there with several names, and all of it is as it should be.
    pub(super) same: AtomicBool,
    /// What was read back is not what it should be.
    pub(super) differs: AtomicBool,
    /// Something of its content was had.
    pub(super) had: AtomicBool,
    /// Where it is written or was left, if not under its name.
    aside: OnceLock<RelativePath>,
    /// What was written elsewhere has got its name.
    in_place: AtomicBool,
    /// It is not whole, and what there was to be done about it is done.
    ended: AtomicBool,
    missing: Mutex<Vec<Missing>>,
}

impl FileState {
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Whether the file is not, or will not be, under its name as the snapshot has it.
    pub(super) fn is_broken(&self) -> bool {
        self.is_dead() || self.incomplete.load(Relaxed) || self.differs.load(Relaxed)
    }

    /// Notes that the file is written, or was left, under another name than its own.
    pub(super) fn set_aside(&self, aside: RelativePath) {
        // Whoever comes second found the same.
        let _ = self.aside.set(aside);
    }

    /// Notes that what was written under another name has got its own.
    pub(super) fn put_in_place(&self) {
        self.in_place.store(true, Relaxed);
    }

    /// The other name under which the file is now.
    pub(super) fn aside(&self) -> Option<&RelativePath> {
        self.aside.get().filter(|_| !self.in_place.load(Relaxed))
    }

    /// Ends a file that is not whole, once; whether it was this call.
    pub(super) fn end(&self) -> bool {
        !self.ended.swap(true, Relaxed)
    }

    /// Gives the file up, once; whether it was this call.
    pub(super) fn kill(&self) -> bool {
        !self.dead.swap(true, Relaxed)
    }

    /// Counts the file as failed, once.
    pub(super) fn fail(&self, tally: &Tally<'_>) {
        if !self.failed.swap(true, Relaxed) {
            tally.count_error();
        }
    }

    /// Notes that a range cannot be had.
    pub(super) fn miss(&self, missing: Missing) {
        self.incomplete.store(true, Relaxed);
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).push(missing);
    }

    /// Takes the ranges noted so far, ascending, those that touch and have one reason joined.
    pub(super) fn take_missing(&self) -> Vec<Missing> {
        let mut all = std::mem::take(&mut *self.missing.lock().unwrap_or_else(PoisonError::into_inner));
        all.sort_by_key(|missing| missing.at);
        let mut joined: Vec<Missing> = Vec::new();
        for missing in all {
            match joined.last_mut() {
                Some(last) if last.at + last.len == missing.at && last.why == missing.why => {
                    last.len += missing.len;
                }
                _ => joined.push(missing),
            }
        }
        joined
    }
}

/// A file, or the part of a long one that is in this window.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) path: RelativePath,
    pub(super) metadata: Arc<Metadata>,
    /// Length in bytes, holes included.
    pub(super) size: u64,
    pub(super) holes: Arc<[Hole]>,
    pub(super) fate: Fate,
    /// Its chunks, as indices of the window's.
    pub(super) wanted: Range<u32>,
    /// This window has its beginning.
    pub(super) first: bool,
    /// This window has its end.
    pub(super) last: bool,
    /// An earlier restore left something of it under the name for that.
    pub(super) left_over: bool,
    pub(super) state: Arc<FileState>,
}

impl Job {
    /// Where the file is now, or will be once it is begun.
    pub(super) fn place(&self) -> &RelativePath {
        self.state.aside().unwrap_or(&self.path)
    }
}

/// A further name of a file.
#[derive(Debug)]
pub(super) struct Link {
    /// The name that exists.
    pub(super) first: RelativePath,
    /// The name to be made.
    pub(super) path: RelativePath,
    /// Something may be there that has to go.
    pub(super) replaces: bool,
    /// Length of the file in bytes; `None` where it is of another kind.
    pub(super) size: Option<u64>,
    /// What becomes of the file.
    pub(super) state: Arc<FileState>,
}

/// A directory with everything in it, waiting for its metadata.
#[derive(Debug)]
pub(super) struct DoneDirectory {
    pub(super) path: RelativePath,
    pub(super) metadata: Metadata,
}

/// What is executed as a whole.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) jobs: Vec<Job>,
    pub(super) wanted: Vec<Wanted>,
    pub(super) links: Vec<Link>,
    /// Children before parents; all their files are in this window or in earlier ones.
    pub(super) directories: Vec<DoneDirectory>,
    bytes: usize,
}

impl Window {
    /// Counts the memory of a file's holes.
    pub(super) fn weigh_holes(&mut self, holes: &[Hole]) {
        self.bytes += size_of_val(holes);
    }

    /// Counts memory that is behind pointers.
    pub(super) fn weigh(&mut self, path: &RelativePath, metadata: &Metadata) {
        let xattrs = metadata.xattrs.iter().map(|xattr| 48 + xattr.name.len() + xattr.value.len());
        let names = metadata.user.len() + metadata.group.len();
        self.bytes += 200 + path.as_bytes().len() + names + xattrs.sum::<usize>();
    }

    /// Whether no more entries fit.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.jobs.len() + self.links.len() + self.directories.len() >= limits.entries
            || self.wanted.len() >= limits.chunks
            || self.bytes >= limits.bytes
    }

    /// Whether no more chunks fit.
    pub(super) fn is_full_of_chunks(&self, limits: &Limits) -> bool {
        self.wanted.len() >= limits.chunks
    }

    /// Index of the next chunk.
    pub(super) fn next_wanted(&self) -> u32 {
        u32::try_from(self.wanted.len()).expect("windows have at most 300,000 chunks")
    }

    /// Index of the next file.
    pub(super) fn next_job(&self) -> u32 {
        u32::try_from(self.jobs.len()).expect("windows have at most 65,536 files")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_ranges_are_sorted_and_joined() {
        let state = FileState::default();
        let miss = |at, len, why: &str| state.miss(Missing { at, len, code: "x", why: why.into() });
        miss(30, 10, "a");
        miss(0, 10, "a");
        miss(10, 20, "a");
        miss(40, 1, "b");
        miss(50, 1, "b");
        let found: Vec<_> =
            state.take_missing().into_iter().map(|missing| (missing.at, missing.len)).collect();
        assert_eq!(found, [(0, 40), (40, 1), (50, 1)]);
        assert!(state.take_missing().is_empty());
    }

    #[test]
    fn limits_follow_memory_within_bounds() {
        let usual = Limits::for_memory(60 << 20);
        assert!((100_000..=300_000).contains(&usual.chunks), "{usual:?}");
        assert_eq!(Limits::for_memory(0).chunks, 4096);
        assert_eq!(Limits::for_memory(u64::MAX).chunks, 300_000);
        assert!(usual.part(0).chunks < usual.part(1).chunks);
        assert_eq!(usual.part(9), usual);
    }
}
