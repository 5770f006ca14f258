//! What of the memory that an operation is given goes where. Pure arithmetic: what is allotted is never more than there is, and where
//! there is little of it for many threads, fewer work, and on shorter blocks.
//!
//! Counted is what circulates, however large the source or the repository is. What grows with them is told in `benches/index`.

use crate::format::block::{DATA_BLOCK_LEN, METADATA_BLOCK_LEN};
use crate::format::segment::PAGE_LEN;

const MIB: u64 = 1 << 20;

/// The least memory an operation can be told to live in, in bytes. Trying a password takes 64 MiB, for so Argon2id is made by `init`
/// unless told otherwise, and beside it the program has to find room; the work comes after that and fits into the same.
pub const LEAST: u64 = with_password(64 * MIB);

/// The program as it is while a password is tried: before any work.
const BESIDE_PASSWORD: u64 = 16 * MIB;

/// The least memory in which a password can be tried that takes `needed` bytes.
pub const fn with_password(needed: u64) -> u64 {
    needed + BESIDE_PASSWORD
}

/// Bytes that trying a password may take.
pub const fn password(memory: u64) -> u64 {
    memory.saturating_sub(BESIDE_PASSWORD)
}

/// Memory that operations live in unless they are told otherwise.
pub const USUAL: u64 = 160 * MIB;

/// Code, stacks, and what walks hold of directories and trees, [`SCANNED_AHEAD`] among it.
const PROGRAM: u64 = 20 * MIB;

/// What a backup scans before its walk comes there, names and nodes of parent snapshots. More would be of no use: whoever scans has only
/// to stay ahead, and sixteen thousand entries of the usual kind are no more than this.
pub const SCANNED_AHEAD: u64 = 5 * MIB;

/// Memory that the first shares of what is of use only where there is much come from: what is beyond this.
const AMPLE: u64 = 64 * MIB;

/// Opened pages of the index, at most: 4096 leaves of 4 KiB, all that an index of some 250,000 entries has, and as many of the pages that
/// lead to them, enough for some 7.5 million entries. Smaller indexes take less.
const CACHE_MAX: u64 = 32 * MIB;

/// Fewer pages than this are of no use.
const CACHED_PAGES_MIN: u64 = 256;

/// Blobs that are stored and not committed, at most.
const UNCOMMITTED_MAX: u64 = 256 << 10;
const UNCOMMITTED_MIN: u64 = 1 << 10;
/// What such a blob takes: its id in a set, and an entry in the directory of its pack.
const UNCOMMITTED_LEN: u64 = 112;

/// What an operation reads large files into.
pub const BUFFER_LEN: usize = 4 << 20;

/// A worker's blocks: the open one, its seal and its content read back, and two that are sealed and on their way.
const BLOCKS: u64 = 5;
/// What else a worker takes: contexts of zstd, a small file.
const WORKER: u64 = 3 * MIB;
/// Sealed blocks of metadata on their way, for each worker.
const SEALED_TREES: u64 = 2;
/// Blocks of metadata of whoever writes trees.
const OPEN_TREES: u64 = 3;
/// Blocks are not made shorter than this for the sake of one more worker.
const BLOCK_LEN_MIN: u64 = MIB / 2;
/// And not at all shorter than this.
const BLOCK_LEN_LEAST: u64 = MIB / 4;

/// What a thread of a restore takes, of which two write: each a read, a block, what is written past the cache, and a chunk read back.
const RESTORER: u64 = 2 * 12 * MIB;

/// What a thread that verifies packs takes: a piece of a pack with the block before it, and the block.
const VERIFIER: u64 = 12 * MIB;

/// Share of the memory that gathered ids take: one in so many bytes.
const GATHERED_SHARE: u64 = 8;

/// For so many bytes beyond [`AMPLE`] another thread looks at directories ahead of a backup's walk. What it decodes of a snapshot's tree
/// goes again, but what was free once stays with the thread.
const SCANNER: u64 = 10 * MIB;
/// One that walks, and one ahead of it.
const SCANNERS_MIN: usize = 2;

/// What a thread that follows trees takes: a block of metadata, sealed and decoded, and what zstd needs for that.
const FOLLOWER: u64 = 3 * MIB;
/// Trees that are followed in one go, and what they lead to.
const FOLLOWED: u64 = 16 * MIB;

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Bytes of opened index pages.
fn cache(memory: u64) -> u64 {
    (memory.saturating_sub(AMPLE) / 3).clamp(CACHED_PAGES_MIN * PAGE_LEN as u64, CACHE_MAX)
}

/// How many opened pages of the index are kept.
pub fn cached_pages(memory: u64) -> usize {
    count(cache(memory) / PAGE_LEN as u64)
}

/// How many blobs may be stored that no commit names yet.
pub fn uncommitted(memory: u64) -> u64 {
    let share = memory.saturating_sub(AMPLE) * 3 / 10 / UNCOMMITTED_LEN;
    share.clamp(UNCOMMITTED_MIN, UNCOMMITTED_MAX)
}

/// Those who read, compress and seal: a backup, a copy, a prune that writes anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pipeline {
    /// Threads that hash, compress and seal.
    pub workers: usize,
    /// Buffers of [`BUFFER_LEN`] to read into.
    pub buffers: usize,
    /// Bytes after which a block of file content is closed.
    pub block_len: usize,
}

impl Pipeline {
    /// What `threads` threads that are given `memory` bytes come to.
    pub fn new(threads: usize, memory: u64) -> Self {
        let room = memory.saturating_sub(PROGRAM + cache(memory) + uncommitted(memory) * UNCOMMITTED_LEN);
        let fits = |pipeline: Self| {
            let left = room.checked_sub(pipeline.fixed())?;
            let len = left / (BLOCKS * pipeline.workers as u64);
            let block_len = count(len.min(DATA_BLOCK_LEN as u64));
            (len >= BLOCK_LEN_MIN).then_some(Self { block_len, ..pipeline })
        };
        for workers in (1..=threads.max(1)).rev() {
            // One each to work on and one to wait, and two to read into; else nothing waits.
            for buffers in [2 * workers + 2, workers + 2] {
                let pipeline = Self { workers, buffers, block_len: 0 };
                if let Some(pipeline) = fits(pipeline) {
                    return pipeline;
                }
            }
        }
        Self { workers: 1, buffers: 3, block_len: count(BLOCK_LEN_LEAST) }
    }

    /// Bytes that do not depend on the length of blocks.
    fn fixed(&self) -> u64 {
        let (workers, buffers) = (self.workers as u64, self.buffers as u64);
        let trees = (OPEN_TREES + SEALED_TREES * workers) * METADATA_BLOCK_LEN as u64;
        buffers * BUFFER_LEN as u64 + trees + workers * WORKER
    }
}

/// Those who restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restorers {
    /// Threads that decode. Twice as many take turns where writing waits for the disk.
    pub threads: usize,
    /// Opened pages of the index: looked up in the order of ids, each is opened once.
    pub cached_pages: usize,
    /// Bytes for two windows, the one that is planned and the one that is executed.
    pub windows: u64,
    /// Bytes for names of files that have several.
    pub links: u64,
}

impl Restorers {
    /// What `threads` threads that are given `memory` bytes come to.
    pub fn new(threads: usize, memory: u64) -> Self {
        let cached_pages = cached_pages(memory) / 2;
        let room = memory.saturating_sub(PROGRAM + (cached_pages * PAGE_LEN) as u64);
        let threads = count(room / 2 / RESTORER).clamp(1, threads.max(1));
        let left = room.saturating_sub(threads as u64 * RESTORER);
        Self { threads, cached_pages, windows: left / 5 * 4, links: left / 5 }
    }
}

/// Bytes for those who make parity, who look nothing up.
pub fn parity(memory: u64) -> u64 {
    memory.saturating_sub(PROGRAM)
}

/// Bytes for ids that are gathered, to be looked up all at once; more of them go into a temporary file. Whoever
/// gathers has not yet begun with what takes most, to verify packs or to write them.
pub fn gathered(memory: u64) -> u64 {
    memory / GATHERED_SHARE
}

/// How many threads copy: where a backup has buffers to read into, each has a block of the source, sealed and decoded, which is as long as that
/// was made, however short those are that are written.
pub fn copiers(threads: usize, memory: u64) -> usize {
    let Pipeline { workers, buffers, .. } = Pipeline::new(threads, memory);
    (buffers * BUFFER_LEN / (2 * DATA_BLOCK_LEN)).clamp(1, workers)
}

/// How many threads verify packs, beside an index whose opened pages take `cache` bytes.
pub fn verifiers(threads: usize, memory: u64, cache: u64) -> usize {
    count(memory.saturating_sub(PROGRAM + cache) / VERIFIER).clamp(1, threads.max(1))
}

/// How many threads read packs that nobody lists, beside the blobs that are gathered of them: as many as [`uncommitted`] says.
pub fn adopters(threads: usize, memory: u64) -> usize {
    verifiers(threads, memory, cache(memory) + uncommitted(memory) * UNCOMMITTED_LEN)
}

/// How many threads look at directories in a backup, the one that walks among them.
pub fn scanners(threads: usize, memory: u64) -> usize {
    count(memory.saturating_sub(AMPLE) / SCANNER).max(SCANNERS_MIN).min(threads.max(1))
}

/// How many threads follow trees, beside two indexes: that of the repository, and the one that tells what was met.
pub fn followers(threads: usize, memory: u64) -> usize {
    let room = memory.saturating_sub(PROGRAM + 2 * cache(memory) + FOLLOWED);
    count(room / FOLLOWER).clamp(1, threads.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the least memory to 4 GiB, in uneven steps.
    fn memories() -> impl Iterator<Item = u64> {
        (0..).map(|step| LEAST + step * 7_654_321).take_while(|memory| *memory <= 4 << 30).chain([4 << 30])
    }

    #[test]
    fn what_is_allotted_is_never_more_than_there_is() {
        for memory in memories() {
            let beside = PROGRAM + cache(memory) + uncommitted(memory) * UNCOMMITTED_LEN;
            for threads in 1..=64 {
                let pipeline = Pipeline::new(threads, memory);
                let blocks = BLOCKS * (pipeline.workers * pipeline.block_len) as u64;
                let sum = beside + pipeline.fixed() + blocks;
                assert!(sum <= memory, "{threads} threads, {memory}: {pipeline:?} takes {sum}");
                assert!(
                    (1..=threads).contains(&pipeline.workers) && pipeline.buffers >= pipeline.workers + 2
                );
                assert!(
                    pipeline.block_len as u64 >= BLOCK_LEN_MIN,
                    "{threads} threads, {memory}: {pipeline:?}"
                );
                let restore = Restorers::new(threads, memory);
                let pages = (restore.cached_pages * PAGE_LEN) as u64;
                let workers = restore.threads as u64 * RESTORER;
                let sum = PROGRAM + pages + restore.windows + restore.links + workers;
                assert!(sum <= memory, "{threads} threads, {memory}: {restore:?} takes {sum}");
                assert!((1..=threads).contains(&restore.threads));
                let verify = verifiers(threads, memory, memory / 8);
                assert!(PROGRAM + memory / 8 + verify as u64 * VERIFIER <= memory && verify <= threads);
                let adopt = adopters(threads, memory);
                assert!(beside + adopt as u64 * VERIFIER <= memory && adopt <= threads);
                let follow = followers(threads, memory);
                let sum = PROGRAM + 2 * cache(memory) + FOLLOWED + follow as u64 * FOLLOWER;
                assert!(sum <= memory && follow <= threads, "{threads} threads, {memory}: {follow} follow");
            }
        }
    }

    #[test]
    fn the_usual_password_can_be_tried_in_the_least_memory() {
        let usual = u64::from(crate::crypto::KdfParams::default().memory_kib) << 10;
        assert_eq!(password(LEAST), usual);
        assert_eq!((with_password(usual), password(with_password(1 << 30))), (LEAST, 1 << 30));
        assert_eq!(password(1), 0);
    }

    #[test]
    fn more_memory_never_means_fewer_workers() {
        for threads in 1..=64 {
            let workers = |memory| {
                let (pipeline, restore) = (Pipeline::new(threads, memory), Restorers::new(threads, memory));
                let others = [verifiers(threads, memory, memory / 8), adopters(threads, memory)];
                [
                    pipeline.workers,
                    restore.threads,
                    others[0],
                    others[1],
                    followers(threads, memory),
                    scanners(threads, memory),
                ]
            };
            let all: Vec<_> = memories().map(workers).collect();
            for pair in all.windows(2) {
                assert!(pair[0].iter().zip(pair[1]).all(|(less, more)| *less <= more), "{threads}: {pair:?}");
            }
            assert_eq!(all.last(), Some(&[threads; 6]), "4 GiB are enough for all");
        }
    }

    #[test]
    fn two_threads_have_all_they_can_use_of_the_usual_memory() {
        let pipeline = Pipeline::new(2, USUAL);
        assert_eq!(pipeline, Pipeline { workers: 2, buffers: 6, block_len: DATA_BLOCK_LEN });
        assert_eq!((cached_pages(USUAL), uncommitted(USUAL)), (8192, 256 << 10));
        assert_eq!(Restorers::new(2, USUAL).threads, 2);
        assert_eq!((verifiers(2, USUAL, USUAL / 8), adopters(2, USUAL), followers(2, USUAL)), (2, 2, 2));
        assert_eq!((scanners(2, USUAL), scanners(2, LEAST)), (2, 2));
        assert_eq!(Pipeline::new(2, LEAST).workers, 2, "and work both with the least");
    }

    /// As `docs/backing-up.md` says.
    #[test]
    fn many_threads_in_the_usual_memory_have_shorter_blocks_and_in_more_of_it_whole_ones() {
        let hundredths = |threads| {
            let Pipeline { workers, block_len, .. } = Pipeline::new(threads, USUAL);
            (workers, block_len * 100 / MIB as usize)
        };
        let usual = [1, 2, 3, 4, 5, 6, 64].map(hundredths);
        assert_eq!(usual, [(1, 400), (2, 400), (3, 200), (4, 84), (5, 95), (6, 50), (6, 50)]);
        for threads in 1..=64 {
            let Pipeline { workers, block_len, .. } =
                Pipeline::new(threads, (100 + 33 * threads as u64) * MIB);
            assert_eq!((workers, block_len), (threads, DATA_BLOCK_LEN));
        }
        let twelve = Pipeline::new(12, 512 * MIB);
        assert_eq!((twelve.workers, twelve.block_len), (12, DATA_BLOCK_LEN));
    }

    #[test]
    fn the_same_comes_of_the_workers_that_there_are() {
        for memory in memories().step_by(5) {
            for threads in 1..=64 {
                let pipeline = Pipeline::new(threads, memory);
                assert_eq!(Pipeline::new(pipeline.workers, memory), pipeline, "{threads}, {memory}");
            }
        }
        let next_to_none = Pipeline::new(8, 1);
        assert_eq!((next_to_none.workers, next_to_none.buffers), (1, 3));
        assert_eq!((Restorers::new(8, 1).threads, verifiers(8, 1, 0)), (1, 1));
        assert_eq!((adopters(8, 1), followers(8, 1), scanners(8, 1), scanners(1, 1)), (1, 1, 2, 1));
    }
}
