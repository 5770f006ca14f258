//! The chunker: all cuts of a buffer of 4 MiB, as a backup finds them, by each scanner of this processor, for each
//! grain and kind of data. `portable` is the `fastcdc` crate.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use strongroom::chunk::grain::sizes;
use strongroom::chunk::{Cutter, GearTable, Scanner};
use strongroom::crypto::{KeySet, RootSecret};
use strongroom::format::tree::Grain;

fn main() {
    divan::main();
}

/// What a backup reads at once.
const BUFFER_LEN: usize = 4 << 20;

/// Data of one kind.
fn buffer(kind: &str) -> Vec<u8> {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    match kind {
        "zeros" => vec![0; BUFFER_LEN],
        "random" => (0..BUFFER_LEN).map(|_| random() as u8).collect(),
        // Words of a small vocabulary, the frequent ones first, in lines.
        "text" => {
            let words: Vec<Vec<u8>> = (0..2000)
                .map(|_| {
                    (0..2 + random() % 9).map(|_| b"etaoinshrdlucmfwypvbgkjqxz"[random() % 26]).collect()
                })
                .collect();
            let mut text = Vec::with_capacity(BUFFER_LEN + 16);
            while text.len() < BUFFER_LEN {
                text.extend_from_slice(&words[random() % (1 + random() % words.len())]);
                text.push(if random() % 12 == 0 { b'\n' } else { b' ' });
            }
            text.truncate(BUFFER_LEN);
            text
        }
        _ => unreachable!("no such kind"),
    }
}

/// A scanner and what it scans.
struct Case {
    scanner: Scanner,
    kind: &'static str,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.scanner.name())
    }
}

fn cases() -> Vec<Case> {
    let scanners = Scanner::available();
    let of_kind = |kind| scanners.iter().map(move |scanner| Case { scanner: *scanner, kind });
    ["text", "random", "zeros"].into_iter().flat_map(of_kind).collect()
}

/// Cuts pieces of a buffer, one after the other.
fn cut(bencher: Bencher<'_, '_>, case: &Case, grain: Grain, piece_len: usize) {
    let gear = GearTable::derive(&KeySet::derive(&RootSecret::from_bytes([7; 32])));
    let bytes = buffer(case.kind);
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
