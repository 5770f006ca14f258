//! The chunker: all cuts of a buffer of 4 MiB, as a backup finds them, by each scanner of this processor, for each
//! grain and kind of data. `portable` is the `fastcdc` crate.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use strongroom::chunk::grain::sizes;
use strongroom::chunk::{Cutter, GearTable, Scanner};
use strongroom::crypto::{KeySet, RootSecret};
use strongroom::format::tree::Grain;

use crate::support::data::Kind;

/// What a backup reads at once.
const BUFFER_LEN: usize = 4 << 20;

/// A scanner and what it scans.
struct Case {
    scanner: Scanner,
    kind: Kind,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.scanner.name())
    }
}

fn cases() -> Vec<Case> {
    let scanners = Scanner::available();
    let of_kind = |kind| scanners.iter().map(move |scanner| Case { scanner: *scanner, kind });
    [Kind::Text, Kind::Binary, Kind::Random, Kind::Zeros].into_iter().flat_map(of_kind).collect()
}

/// Cuts pieces of a buffer, one after the other.
fn cut(bencher: Bencher<'_, '_>, case: &Case, grain: Grain, piece_len: usize) {
    let gear = GearTable::derive(&KeySet::derive(&RootSecret::from_bytes([7; 32])));
    let bytes = case.kind.bytes(BUFFER_LEN, 1);
    let mut lens = Vec::with_capacity(BUFFER_LEN / 2048);
    bencher.counter(BytesCount::new(BUFFER_LEN)).bench_local(|| {
        lens.clear();
        for piece in black_box(&bytes).chunks(piece_len) {
            Cutter::with_scanner(&gear, sizes(grain), case.scanner).cut_all(piece, true, &mut lens);
        }
    });
}

#[divan::bench(args = cases())]
fn fine_16_kib(bencher: Bencher<'_, '_>, case: &Case) {
    cut(bencher, case, Grain::Fine, BUFFER_LEN);
}

#[divan::bench(args = cases())]
fn medium_64_kib(bencher: Bencher<'_, '_>, case: &Case) {
    cut(bencher, case, Grain::Medium, BUFFER_LEN);
}

#[divan::bench(args = cases())]
fn coarse_1_mib(bencher: Bencher<'_, '_>, case: &Case) {
    cut(bencher, case, Grain::Coarse, BUFFER_LEN);
}

/// Files of 100 KiB, cut one by one.
#[divan::bench(args = cases())]
fn files_of_100_kib(bencher: Bencher<'_, '_>, case: &Case) {
    cut(bencher, case, Grain::Medium, 100 << 10);
}

/// Files of 20 KiB, cut one by one: little more than the shortest chunk.
#[divan::bench(args = cases())]
fn files_of_20_kib(bencher: Bencher<'_, '_>, case: &Case) {
    cut(bencher, case, Grain::Medium, 20 << 10);
}
