//! AVX2: eight lanes. The table is read by scalar loads that are inserted into vectors: the gather instruction took
//! more than twice as long where it was measured (Zen 3), and is slow on processors with the microcode against Downfall.
//!
//! There is no unsafe code here; calling [`block`] is what needs care.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm_insert_epi32, _mm256_add_epi32, _mm256_cmpeq_epi32,
    _mm256_extract_epi32, _mm256_min_epu32, _mm256_movemask_epi8, _mm256_set_m128i, _mm256_set1_epi32,
    _mm256_setzero_si256,
};

use super::{Found, STRIDES, WINDOW};
use crate::chunk::gear::GearTable;

/// Positions hashed at once.
pub(super) const LANES: usize = 8;

/// Bytes of each lane between two tests.
const STEPS: usize = 4;

/// Finds the candidates of `block`: a window and then [`LANES`] lanes of `stride` bytes.
#[target_feature(enable = "avx2")]
pub(super) fn block(gear: &GearTable, block: &[u8], stride: usize, limit: u32, found: &mut Found<'_>) {
    // With a stride known to the compiler, the lanes' addresses need no registers.
    const { assert!(STRIDES.len() == 4) }
    match stride {
        stride if stride == STRIDES[0] => lanes::<{ STRIDES[0] }>(gear, block, limit, found),
        stride if stride == STRIDES[1] => lanes::<{ STRIDES[1] }>(gear, block, limit, found),
        stride if stride == STRIDES[2] => lanes::<{ STRIDES[2] }>(gear, block, limit, found),
        _ => lanes::<{ STRIDES[3] }>(gear, block, limit, found),
    }
}

#[target_feature(enable = "avx2")]
fn lanes<const STRIDE: usize>(gear: &GearTable, block: &[u8], limit: u32, found: &mut Found<'_>) {
    assert_eq!(block.len(), WINDOW + LANES * STRIDE);
    let table = &*gear.narrow;
    // The largest hash of a candidate.
    let highest = _mm256_set1_epi32((limit - 1).cast_signed());
    let mut hash = _mm256_setzero_si256();
    let mut at = 0;
    while at < WINDOW + STRIDE {
        let first = steps::<STRIDE>(table, block, at, hash);
        let second = steps::<STRIDE>(table, block, at + 2, first[1]);
        hash = second[1];
        let lowest =
            _mm256_min_epu32(_mm256_min_epu32(first[0], first[1]), _mm256_min_epu32(second[0], second[1]));
        let is_candidate = _mm256_cmpeq_epi32(_mm256_min_epu32(lowest, highest), lowest);
        // Hashes of fewer bytes than a window do not count.
        if _mm256_movemask_epi8(is_candidate) != 0 && at >= WINDOW {
            let hashes = [first[0], first[1], second[0], second[1]].map(|vector| numbers(vector));
            found.push_below(limit, &hashes, at - WINDOW, STRIDE);
            if found.overflowed {
                return;
            }
        }
        at += STEPS;
    }
}

/// Hashes after two more bytes: those at `at` and `at + 1` of each lane.
#[target_feature(enable = "avx2")]
#[inline]
fn steps<const STRIDE: usize>(table: &[u32; 256], block: &[u8], at: usize, hash: __m256i) -> [__m256i; 2] {
    let (low, low_next) = entries::<STRIDE>(table, block, at);
    let (high, high_next) = entries::<STRIDE>(table, block, at + LANES / 2 * STRIDE);
    let hash = _mm256_add_epi32(_mm256_add_epi32(hash, hash), _mm256_set_m128i(high, low));
    let next = _mm256_add_epi32(_mm256_add_epi32(hash, hash), _mm256_set_m128i(high_next, low_next));
    [hash, next]
}

/// The table's entries for the bytes at `at` and `at + 1` of four lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn entries<const STRIDE: usize>(table: &[u32; 256], block: &[u8], at: usize) -> (__m128i, __m128i) {
    let pair = |lane: usize| {
        let at = at + lane * STRIDE;
        let [first, second] = [block[at], block[at + 1]].map(|byte| table[usize::from(byte)].cast_signed());
        (first, second)
    };
    let (first, second) = pair(0);
    let (mut entries, mut next) = (_mm_cvtsi32_si128(first), _mm_cvtsi32_si128(second));
    let (first, second) = pair(1);
    (entries, next) = (_mm_insert_epi32::<1>(entries, first), _mm_insert_epi32::<1>(next, second));
    let (first, second) = pair(2);
    (entries, next) = (_mm_insert_epi32::<2>(entries, first), _mm_insert_epi32::<2>(next, second));
    let (first, second) = pair(3);
    (_mm_insert_epi32::<3>(entries, first), _mm_insert_epi32::<3>(next, second))
}

/// The numbers of a vector.
#[target_feature(enable = "avx2")]
fn numbers(vector: __m256i) -> [u32; LANES] {
    [
        _mm256_extract_epi32::<0>(vector),
        _mm256_extract_epi32::<1>(vector),
        _mm256_extract_epi32::<2>(vector),
        _mm256_extract_epi32::<3>(vector),
        _mm256_extract_epi32::<4>(vector),
        _mm256_extract_epi32::<5>(vector),
        _mm256_extract_epi32::<6>(vector),
        _mm256_extract_epi32::<7>(vector),
    ]
    .map(i32::cast_unsigned)
}
