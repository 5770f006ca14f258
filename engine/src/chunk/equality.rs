//! All scanners cut alike: property tests against the `fastcdc` crate, and a longer campaign for those who change a
//! scanner:
//!
//! ```text
//! STRONGROOM_CASES=100000 cargo test --release -p strongroom --lib -- --ignored --nocapture equality
//! ```

use proptest::prelude::*;

use super::scan::{Candidate, Found, WINDOW, portable};
use super::{Cutter, GearTable, Scanner};
use crate::chunk::grain::{ChunkSizes, sizes};
use crate::crypto::{KeySet, RootSecret};
use crate::format::tree::Grain;
use crate::testing::cannot;

fn table(seed: u8) -> GearTable {
    GearTable::derive(&KeySet::derive(&RootSecret::from_bytes([seed; 32])))
}

/// Repeatable numbers (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// Content of the usual kinds, in pieces: noise, words, runs, repetitions, counters, records.
    fn content(&mut self, len: usize) -> Vec<u8> {
        let mut content = Vec::with_capacity(len);
        while content.len() < len {
            let most = if self.below(3) == 0 { len } else { 4096.min(len) };
            let piece = (1 + self.below(most)).min(len - content.len());
            let start = content.len();
            match self.below(7) {
                0 => content.extend((0..piece).map(|_| self.next() as u8)),
                1 => content.extend((0..piece).map(|_| b"etaoin shrdlu,.\n0123"[self.below(20)])),
                2 => content.resize(start + piece, 0),
                3 => content.resize(start + piece, self.next() as u8),
                4 => {
                    let period = 1 + self.below(100);
                    let pattern: Vec<u8> = (0..period).map(|_| self.next() as u8).collect();
                    content.extend(pattern.iter().cycle().take(piece));
                }
                5 => content.extend((0..piece as u32 / 4 + 1).flat_map(u32::to_le_bytes).take(piece)),
                _ => content.extend(
                    (0..piece).map(|i| if i % 24 < 16 { (i % 24) as u8 } else { self.next() as u8 % 4 }),
                ),
            }
        }
        content
    }

    /// Sizes of a grain, or others with cuts at every corner.
    fn sizes(&mut self) -> ChunkSizes {
        match self.below(8) {
            0 => sizes(Grain::Fine),
            1 => sizes(Grain::Page),
            2 => sizes(Grain::Medium),
            3 => sizes(Grain::Coarse),
            4 => ChunkSizes { min: 2, average: 8, max: 16 },
            5 => ChunkSizes { min: 64, average: 256, max: 1024 },
            6 => ChunkSizes { min: 1024, average: 4096, max: 6000 },
            _ => {
                let min = 2 + 2 * self.below(2000);
                let average = (min + 2 * self.below(4000)).max(16);
                ChunkSizes { min, average, max: average + 2 * self.below(20_000) }
            }
        }
    }

    /// Lengths around the corners of chunks and blocks, and any.
    fn len(&mut self, sizes: ChunkSizes) -> usize {
        let near = |dice: &mut Self, len: usize| (len + dice.below(80)).saturating_sub(40);
        let room = (3 * sizes.max).min(sizes.max + (600 << 10));
        match self.below(8) {
            0 => near(self, sizes.min),
            1 => near(self, sizes.average),
            2 => near(self, sizes.max),
            3 => {
                let lanes = [8, 16][self.below(2)];
                let stride = 64 * [1, 3, 9, 33][self.below(4)];
                near(self, sizes.min + WINDOW + lanes * stride)
            }
            4 => self.below(2048),
            _ => self.below(room),
        }
    }
}

/// Cut lengths of the crate, the oracle.
fn expected(gear: &GearTable, sizes: ChunkSizes, mut bytes: &[u8]) -> Vec<usize> {
    let cutter = Cutter::with_scanner(gear, sizes, Scanner::PORTABLE);
    let mut lens = Vec::new();
    while !bytes.is_empty() {
        lens.push(cutter.cut(bytes));
        bytes = &bytes[lens[lens.len() - 1]..];
    }
    lens
}

/// Cut lengths of a cutter that sees at most `capacity` bytes at once, as a reader with a buffer does.
fn buffered(cutter: &Cutter<'_>, bytes: &[u8], capacity: usize) -> Vec<usize> {
    let capacity = capacity.max(cutter.sizes().max);
    let (mut lens, mut at) = (Vec::new(), 0);
    loop {
        let end = bytes.len().min(at + capacity);
        let used = cutter.cut_all(&bytes[at..end], end == bytes.len(), &mut lens);
        at += used;
        if end == bytes.len() {
            assert_eq!(at, end, "at the end, everything is cut");
            return lens.iter().map(|len| *len as usize).collect();
        }
        assert!(end - at < cutter.sizes().max, "{} bytes left to cut", end - at);
    }
}

/// One case: the same cuts, whatever the scanner and the buffer.
fn compare(gear: &GearTable, sizes: ChunkSizes, bytes: &[u8], capacity: usize) {
    let expected = expected(gear, sizes, bytes);
    for scanner in Scanner::available() {
        let cutter = Cutter::with_scanner(gear, sizes, scanner);
        assert_eq!(buffered(&cutter, bytes, capacity), expected, "{scanner:?} {sizes:?} {capacity}");
        let mut rest = bytes;
        for len in &expected {
            assert_eq!(cutter.cut(rest), *len, "{scanner:?} {sizes:?}, {} left", rest.len());
            rest = &rest[*len..];
        }
    }
}

/// One case: the candidates that a scanner finds are those of the plain loop.
fn compare_candidates(gear: &GearTable, bytes: &[u8], from: usize, block_len: usize, limit: u32) {
    let mut room = vec![Candidate::default(); bytes.len()];
    let mut expected = Found::new(&mut room);
    portable::candidates(gear, &bytes[from - WINDOW..], limit, from, &mut expected);
    for scanner in Scanner::available() {
        let (mut at, mut list) = (from, Vec::new());
        while at < bytes.len() {
            let mut room = vec![Candidate::default(); bytes.len()];
            let mut found = Found::new(&mut room);
            let end = scanner.scan(gear, bytes, at, block_len, limit, &mut found).expect("enough room");
            assert!(end > at && end <= bytes.len(), "{scanner:?} went from {at} to {end}");
            list.extend_from_slice(found.as_slice());
            at = end;
        }
        assert!(list == expected.as_slice(), "{scanner:?} from {from} of {}", bytes.len());
    }
}

fn case(tables: &[GearTable], seed: u64) {
    let mut dice = Dice(seed);
    let gear = &tables[dice.below(tables.len())];
    let sizes = dice.sizes();
    let len = dice.len(sizes);
    let bytes = dice.content(len);
    compare(gear, sizes, &bytes, dice.below(2 * sizes.max));
    if len > WINDOW {
        let bytes = &bytes[..len.min(100_000)];
        let from = WINDOW + dice.below(bytes.len() - WINDOW);
        let (block_len, limit) = (1 + dice.below(1 << 17), 1 << (12 + dice.below(20)));
        compare_candidates(gear, bytes, from, block_len, limit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_scanners_cut_like_the_crate(seed: u64) {
        case(&[table(7)], seed);
    }

    #[test]
    fn all_scanners_cut_any_bytes_like_the_crate(
        bytes in proptest::collection::vec(any::<u8>(), 0..20_000),
        tail in 0..200_usize,
        capacity in 0..10_000_usize,
    ) {
        let bytes = [bytes.as_slice(), &vec![bytes.first().copied().unwrap_or(0); tail]].concat();
        let sizes = ChunkSizes { min: 512, average: 1024, max: 4096 };
        compare(&table(8), sizes, &bytes, capacity);
    }
}

/// Says which scanner is compared by no test here.
fn tell_missing() {
    let compared: Vec<&str> = Scanner::available().into_iter().map(Scanner::name).collect();
    assert!(compared.contains(&Scanner::PORTABLE.name()), "{compared:?}");
    if cfg!(target_arch = "x86_64") && !compared.contains(&"avx512") {
        cannot("compare the AVX-512 scanner", &"this processor has no AVX-512 with VBMI");
    }
    if cfg!(target_arch = "x86_64") && !compared.contains(&"avx2") {
        cannot("compare the AVX2 scanner", &"this processor has no AVX2");
    }
}

#[test]
fn lengths_around_every_corner_are_cut_alike() {
    tell_missing();
    let (gear, bytes) = (table(9), Dice(1).content(400 << 10));
    for grain in [Grain::Fine, Grain::Medium] {
        let sizes = sizes(grain);
        let blocks = [8, 16].map(|lanes| [1, 3, 9, 33].map(|lines| sizes.min + WINDOW + lanes * lines * 64));
        for corner in [sizes.min, sizes.average, sizes.max].into_iter().chain(blocks.into_iter().flatten()) {
            for len in corner - 3..corner + 4 {
                compare(&gear, sizes, &bytes[len % 64..][..len], sizes.max);
            }
        }
    }
}

#[test]
fn runs_of_every_byte_are_cut_alike() {
    // Among 256 bytes and 40 tables, some are candidates all along a run: there the crate takes over.
    let sizes = sizes(Grain::Fine);
    let mut dense = 0;
    for gear in (0..40).map(table) {
        for byte in 0..=255 {
            let mut run = [byte; 8192];
            run[5000] ^= 1;
            let hash = (0..WINDOW).fold(0, |hash, _| portable::step(&gear, hash, byte));
            if hash < 1 << 20 || byte % 32 == 0 {
                compare(&gear, sizes, &run, sizes.max);
                dense += u32::from(hash < 1 << 20);
            }
        }
    }
    assert!(dense > 0, "one in 4096 runs is dense");
}

#[test]
#[ignore = "a campaign for those who change a scanner: minutes"]
fn campaign() {
    let cases = std::env::var("STRONGROOM_CASES").map_or(20_000, |cases| cases.parse().expect("a number"));
    let tables: Vec<GearTable> = (0..16).map(table).collect();
    for seed in 0..cases {
        case(&tables, seed);
    }
    let scanners: Vec<_> = Scanner::available().into_iter().map(Scanner::name).collect();
    println!("{cases} cases, all equal: {}", scanners.join(", "));
}
