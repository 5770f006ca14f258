//! Memory is asked for once and used again: what a job allocates grows with packs and windows, not with chunks.
//!
//! A program of its own, since whatever else runs in a process is counted, too. Counts of allocations say the same on every machine,
//! where times do not.

use std::alloc::System;
use std::io::Cursor;
use std::sync::Arc;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use strongroom::backend::MemoryBackend;
use strongroom::backup::{self, BackupOptions, BackupSource, GrainRule, ParentChoice};
use strongroom::check::{self, CheckOptions, ReadData};
use strongroom::crypto::{Entropy, SeededEntropy};
use strongroom::format::tree::Grain;
use strongroom::monitor::Silent;
use strongroom::repo::Repository;
use strongroom::{stats, testing};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes of the two streams that are compared, and of a page, which is a chunk.
const SHORT: usize = 16 << 20;
const LONG: usize = 48 << 20;
const PAGE: usize = 16 << 10;

/// One allocation for so many chunks is more than those for their blocks and packs.
const CHUNKS: usize = 8;

/// Pages that are all different, of which half compress.
fn pages(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededEntropy::new(1).fill(&mut bytes);
    for page in bytes.chunks_mut(2 * PAGE) {
        page[PAGE / 16..PAGE].fill(b'-');
    }
    bytes
}

fn back_up(repository: &Repository, bytes: &[u8]) {
    let source = BackupSource::Stream {
        name: b"stream".to_vec(),
        reader: Box::new(Cursor::new(bytes.to_vec())),
        finish: Box::new(|| Ok(())),
    };
    let grains = vec![GrainRule { pattern: "stream".into(), grain: Grain::Page }];
    let options =
        BackupOptions { grains, parent: ParentChoice::None, threads: 1, ..BackupOptions::default() };
    backup::run(repository, source, &options, &Silent).expect("a backup");
}

fn check(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    let report = check::run(repository, &options, &Silent).expect("a check");
    assert!(!report.is_damaged(), "{report:?}");
}

/// How often memory is asked for by a first backup, by one that finds everything there, and by a check, of a stream of so many bytes.
fn counts(len: usize) -> [usize; 3] {
    let bytes = pages(len);
    let repository = testing::init(Arc::new(MemoryBackend::new()), 1);
    let jobs: [&dyn Fn(); 3] =
        [&|| back_up(&repository, &bytes), &|| back_up(&repository, &bytes), &|| check(&repository)];
    let counts = jobs.map(|job| {
        let region = Region::new(ALLOCATOR);
        job();
        let change = region.change();
        change.allocations + change.reallocations
    });
    let stored = stats::run(&repository, &[], &Silent).expect("counted").data.blobs;
    assert_eq!(stored, (len / PAGE) as u64, "each page is a chunk");
    counts
}

#[test]
fn nothing_is_allocated_for_a_chunk() {
    let (short, long) = (counts(SHORT), counts(LONG));
    let chunks = (LONG - SHORT) / PAGE;
    for ((what, short), long) in
        ["a first backup", "a backup of what is there", "a check"].iter().zip(short).zip(long)
    {
        let more = long.saturating_sub(short);
        println!("{what}: {short} allocations, {more} more for {chunks} chunks more");
        assert!(more * CHUNKS < chunks, "{what} allocates {more} times more for {chunks} chunks more");
    }
}
