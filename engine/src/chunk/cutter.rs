//! Cut points: FastCDC (Xia et al., 2020) over the secret gear table, with masks of our own.
//!
//! A position is tested on the 32 bytes that end with the byte at the position, fewer just after the minimum, where the
//! hash begins: both masks take the highest of the low 32 bits, so a gear hash of 32 bits decides exactly, and a hash is
//! tested by comparing it with a limit. Before the average size 2 more
//! bits have to be zero than the average asks for, behind it 2 fewer (normalised chunking, level 2).
//! Cut points are format: golden vectors hold them.
//!
//! The `fastcdc` crate says where the cuts are. Where the processor has vectors, a [`Scanner`] finds the positions
//! that meet the relaxed limit, block by block, and the cuts are taken from them in order; a block reaches beyond the cut that
//! is looked for, so that the next ones need no scan of their own. Where such positions are dense, as in long runs
//! of some bytes, the crate cuts: it needs a few steps there.

use crate::chunk::gear::GearTable;
use crate::chunk::grain::ChunkSizes;
use crate::chunk::scan::portable::{self, Bits};
use crate::chunk::scan::{Candidate, Found, Scanner, WINDOW};

/// A block with more candidates than this is left to the crate. Random data has two or three in a block of the finest grain.
const CANDIDATES_MAX: usize = 64;

/// What is left of a chunk behind its minimum has to be this long for vectors to be worth their while.
const SCAN_LEN_MIN: usize = 512;

/// Finds the next cut.
#[derive(Debug)]
pub struct Cutter<'a> {
    gear: &'a GearTable,
    sizes: ChunkSizes,
    bits: Bits,
    scanner: Scanner,
    block_len: usize,
}

impl<'a> Cutter<'a> {
    /// A cutter for chunks of these sizes, with the best scanner for this processor.
    pub fn new(gear: &'a GearTable, sizes: ChunkSizes) -> Self {
        Self::with_scanner(gear, sizes, Scanner::best())
    }

    /// A cutter with a scanner of choice. All cut alike.
    pub fn with_scanner(gear: &'a GearTable, sizes: ChunkSizes, scanner: Scanner) -> Self {
        let bits = sizes.average.ilog2();
        let bits = Bits { strict: bits + 2, relaxed: bits - 2 };
        // Longer blocks lose less on the windows before their lanes, shorter ones on what is skipped after a cut.
        Self { gear, sizes, bits, scanner, block_len: sizes.average }
    }

    /// Length of the chunk at the start of `data`, which is the rest of the file or at least
    /// [`ChunkSizes::max`] bytes of it. An empty rest has length 0.
    pub fn cut(&self, data: &[u8]) -> usize {
        let data = &data[..data.len().min(self.sizes.max)];
        self.cut_at(data, 0, &mut Scanned::default())
    }

    /// Cuts as much of `bytes` as can be decided: to its end if that is the end of the file, else as long as at least
    /// [`ChunkSizes::max`] bytes are left. Appends the lengths of the chunks and returns the sum of them.
    pub fn cut_all(&self, bytes: &[u8], at_end: bool, lens: &mut Vec<u32>) -> usize {
        let mut scanned = Scanned::default();
        let mut at = 0;
        while at < bytes.len() && (at_end || bytes.len() - at >= self.sizes.max) {
            let len = self.cut_at(bytes, at, &mut scanned);
            lens.push(u32::try_from(len).expect("chunks are shorter than 4 GiB"));
            at += len;
        }
        at
    }

    /// The sizes it cuts to.
    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// Length of the chunk that begins at `start`.
    fn cut_at(&self, bytes: &[u8], start: usize, scanned: &mut Scanned) -> usize {
        let data = &bytes[start..];
        let ChunkSizes { min, average, max } = self.sizes;
        if self.scanner == Scanner::PORTABLE || data.len() < min + SCAN_LEN_MIN {
            return portable::cut(self.gear, data, self.sizes, self.bits);
        }
        let len = data.len().min(max);
        // Both are rounded down to even lengths, as the crate's two-byte step has it.
        let (strict_end, end) = (average.min(len) & !1, len & !1);
        let is_cut =
            |at, hash| hash < limit(if at < strict_end { self.bits.strict } else { self.bits.relaxed });

        // Up to a window behind the minimum, the hash is of fewer bytes.
        let mut hash = 0;
        let head = min..end.min(min + WINDOW);
        for (at, byte) in head.clone().zip(&data[head]) {
            hash = portable::step(self.gear, hash, *byte);
            if is_cut(at, hash) {
                return at;
            }
        }
        scanned.skip_to(start + min + WINDOW);
        loop {
            while let Some(candidate) = scanned.next(start + end) {
                if is_cut(candidate.at - start, candidate.hash) {
                    return candidate.at - start;
                }
            }
            if scanned.to >= start + end {
                return len;
            }
            if !scanned.extend(self, bytes) {
                return portable::cut(self.gear, data, self.sizes, self.bits);
            }
        }
    }
}

/// Hashes below it have their `bits` highest bits zero.
const fn limit(bits: u32) -> u32 {
    1 << (32 - bits)
}

/// The candidates of the latest block that was scanned.
struct Scanned {
    candidates: [Candidate; CANDIDATES_MAX],
    /// Those not yet taken.
    left: std::ops::Range<usize>,
    /// All candidates before this offset are in the list or were in it.
    to: usize,
}

impl Default for Scanned {
    fn default() -> Self {
        Self { candidates: [Candidate::default(); CANDIDATES_MAX], left: 0..0, to: 0 }
    }
}

impl Scanned {
    /// Drops the candidates before an offset.
    fn skip_to(&mut self, offset: usize) {
        while self.left.start < self.left.end && self.candidates[self.left.start].at < offset {
            self.left.start += 1;
        }
        self.to = self.to.max(offset);
    }

    /// Takes the next candidate, if it is before `end`.
    fn next(&mut self, end: usize) -> Option<Candidate> {
        let candidate = *self.candidates[self.left.clone()].first()?;
        (candidate.at < end).then(|| {
            self.left.start += 1;
            candidate
        })
    }

    /// Scans one more block. False if it has too many candidates: then it does not count as scanned.
    fn extend(&mut self, cutter: &Cutter<'_>, bytes: &[u8]) -> bool {
        debug_assert!(self.left.is_empty(), "a block is scanned when the one before it is used up");
        let mut found = Found::new(&mut self.candidates);
        let limit = limit(cutter.bits.relaxed);
        let end = cutter.scanner.scan(cutter.gear, bytes, self.to, cutter.block_len, limit, &mut found);
        self.left = 0..end.map_or(0, |_| found.as_slice().len());
        self.to = end.unwrap_or(self.to);
        end.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::grain::sizes;
    use crate::crypto::{KeySet, RootSecret};
    use crate::format::tree::Grain;

    fn table() -> GearTable {
        GearTable::derive(&KeySet::derive(&RootSecret::from_bytes([7; 32])))
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(cutter: &Cutter<'_>, mut data: &[u8]) -> Vec<usize> {
        let mut lens = Vec::new();
        while !data.is_empty() {
            let len = cutter.cut(data);
            lens.push(len);
            data = &data[len..];
        }
        lens
    }

    #[test]
    fn chunks_cover_the_data_within_their_bounds() {
        let (table, data) = (table(), noise(24 << 20));
        for grain in [Grain::Fine, Grain::Medium, Grain::Coarse] {
            let sizes = sizes(grain);
            let lens = cuts(&Cutter::new(&table, sizes), &data);
            assert_eq!(lens.iter().sum::<usize>(), data.len());
            assert!(lens[..lens.len() - 1].iter().all(|len| (sizes.min..=sizes.max).contains(len)));
            let average = data.len() / lens.len();
            assert!(
                average > sizes.average * 3 / 4 && average < sizes.average * 3 / 2,
                "{grain:?} {average}"
            );
        }
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_around_it() {
        let (table, data) = (table(), noise(4 << 20));
        let cutter = Cutter::new(&table, sizes(Grain::Fine));
        let mut edited = data.clone();
        edited.splice(1_000_000..1_000_000, *b"inserted");
        let chunks = |data: &[u8]| {
            let mut at = 0;
            cuts(&cutter, data)
                .into_iter()
                .map(|len| {
                    at += len;
                    data[at - len..at].to_vec()
                })
                .collect::<std::collections::HashSet<_>>()
        };
        let (before, after) = (chunks(&data), chunks(&edited));
        let moved = before.difference(&after).count();
        assert!(moved <= 4, "{moved} of {} chunks changed", before.len());
    }

    #[test]
    fn what_the_buffer_holds_beyond_the_maximum_does_not_matter() {
        let (table, data) = (table(), noise(1 << 20));
        let sizes = sizes(Grain::Medium);
        let cutter = Cutter::new(&table, sizes);
        assert_eq!(cutter.cut(&data), cutter.cut(&data[..sizes.max]));
        assert_eq!(cutter.cut(b""), 0);
    }

    #[test]
    fn another_secret_cuts_elsewhere() {
        let other = GearTable::derive(&KeySet::derive(&RootSecret::from_bytes([8; 32])));
        let (table, data) = (table(), noise(2 << 20));
        let sizes = sizes(Grain::Fine);
        assert_ne!(cuts(&Cutter::new(&table, sizes), &data), cuts(&Cutter::new(&other, sizes), &data));
    }
}
