//! Cut points: FastCDC (Xia et al., 2020) over the secret gear table, with masks of our own.
//!
//! A position is tested on the 32 bytes that end with the byte at the position, fewer just after the minimum, where the
//! hash begins: both masks take the highest of the low 32 bits, so a gear hash of 32 bits decides exactly, which is
//! what a vectorised scanner needs. Before the average size 2 more
//! bits have to be zero than the average asks for, behind it 2 fewer (normalised chunking, level 2).
//! Cut points are format: golden vectors hold them.

use crate::chunk::gear::GearTable;
use crate::chunk::grain::ChunkSizes;

/// Finds the next cut.
#[derive(Debug)]
pub struct Cutter<'a> {
    gear: &'a GearTable,
    sizes: ChunkSizes,
    strict: u64,
    relaxed: u64,
}

/// The `bits` highest of 32 bits.
const fn mask(bits: u32) -> u64 {
    (u32::MAX << (32 - bits)) as u64
}

impl<'a> Cutter<'a> {
    /// A cutter for chunks of these sizes.
    pub fn new(gear: &'a GearTable, sizes: ChunkSizes) -> Self {
        let bits = sizes.average.ilog2();
        Self { gear, sizes, strict: mask(bits + 2), relaxed: mask(bits - 2) }
    }

    /// Length of the chunk at the start of `data`, which is the rest of the file or at least
    /// [`ChunkSizes::max`] bytes of it. An empty rest has length 0.
    pub fn cut(&self, data: &[u8]) -> usize {
        let (_, len) = fastcdc::v2020::cut_gear(
            data,
            self.sizes.min,
            self.sizes.average,
            self.sizes.max,
            self.strict,
            self.relaxed,
            self.strict << 1,
            self.relaxed << 1,
            self.gear.gear.as_slice(),
            self.gear.gear_shifted.as_slice(),
        );
        len
    }

    /// The sizes it cuts to.
    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
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
