//! The portable way: the `fastcdc` crate cuts, which is also what decides how the others have to cut; and the plain loop
//! that finds the candidates of what is too short for vectors, the twin of the vector scanners.

use super::{Found, WINDOW};
use crate::chunk::gear::GearTable;
use crate::chunk::grain::ChunkSizes;

/// The highest bits of the hash that are zero at a cut, before the average size and behind it.
#[derive(Debug, Clone, Copy)]
pub(in crate::chunk) struct Bits {
    /// Before.
    pub strict: u32,
    /// Behind.
    pub relaxed: u32,
}

/// The `bits` highest of 32 bits.
const fn mask(bits: u32) -> u64 {
    (u32::MAX << (32 - bits)) as u64
}

/// Length of the first chunk of `data`.
pub(in crate::chunk) fn cut(gear: &GearTable, data: &[u8], sizes: ChunkSizes, bits: Bits) -> usize {
    let (strict, relaxed) = (mask(bits.strict), mask(bits.relaxed));
    let (_, len) = fastcdc::v2020::cut_gear(
        data,
        sizes.min,
        sizes.average,
        sizes.max,
        strict,
        relaxed,
        strict << 1,
        relaxed << 1,
        gear.gear.as_slice(),
        gear.gear_shifted.as_slice(),
    );
    len
}

/// The hash after one more byte.
pub(in crate::chunk) fn step(gear: &GearTable, hash: u32, byte: u8) -> u32 {
    (hash << 1).wrapping_add(gear.narrow[usize::from(byte)])
}

/// Finds the positions behind the first window of `bytes` whose hash is below `limit`; the first of them is called `at`.
pub(in crate::chunk) fn candidates(
    gear: &GearTable,
    bytes: &[u8],
    limit: u32,
    at: usize,
    found: &mut Found<'_>,
) {
    let (before, bytes) = bytes.split_at(WINDOW);
    let mut hash = before.iter().fold(0, |hash, byte| step(gear, hash, *byte));
    for (i, byte) in bytes.iter().enumerate() {
        hash = step(gear, hash, *byte);
        if hash < limit {
            found.push(at + i, hash);
        }
    }
}
