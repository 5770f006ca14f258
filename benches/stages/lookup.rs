//! Lookups in the index: a million blobs in one large segment and four small ones, in memory and with the pages that
//! are used cached. `index` has the same at scale. Items are lookups.

use std::sync::LazyLock;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use strongroom::repo::Repository;

use crate::support::blobs;
use crate::support::repository::in_memory;

const BLOBS: u64 = 1_000_000;
/// Lookups that are timed as one.
const BATCH: u64 = 1000;

static REPOSITORY: LazyLock<Repository> = LazyLock::new(|| {
    let repository = in_memory();
    let small = BLOBS / 100;
    blobs::list(&repository, 0..BLOBS - 4 * small);
    for number in 1..=4 {
        blobs::list(&repository, BLOBS - number * small..BLOBS - (number - 1) * small);
    }
    repository
});

/// Asks for blobs in no order; those from `first` on.
fn look_up(bencher: Bencher<'_, '_>, first: u64, is_right: &dyn Fn(u64) -> bool) {
    let mut batch = 0;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        batch += 1;
        for number in batch * BATCH..(batch + 1) * BATCH {
            assert!(is_right(black_box(first + (number * 0x9e37_79b9) % BLOBS)));
        }
    });
}

/// Blobs that are stored already.
#[divan::bench]
fn contains_there(bencher: Bencher<'_, '_>) {
    look_up(bencher, 0, &|n| REPOSITORY.index().contains(&blobs::blob(n)).expect("a sound index"));
}

/// Blobs that have to be stored.
#[divan::bench]
fn contains_not_there(bencher: Bencher<'_, '_>) {
    look_up(bencher, BLOBS, &|n| !REPOSITORY.index().contains(&blobs::blob(n)).expect("a sound index"));
}

/// Blobs that are to be restored.
#[divan::bench]
fn get_there(bencher: Bencher<'_, '_>) {
    look_up(bencher, 0, &|n| REPOSITORY.index().get(&blobs::blob(n)).expect("a sound index").is_some());
}
