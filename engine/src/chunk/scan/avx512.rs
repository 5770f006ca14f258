//! AVX-512 with VBMI: sixteen lanes, the whole table in registers.
//!
//! Sixteen bytes of each lane are loaded and transposed, so that a vector has four bytes of each lane, step by step. The table is kept as
//! four planes, one for each byte of its numbers: 256 entries of one byte are four registers, and a lookup of 64
//! bytes is two permutations and a blend by the highest bit. Interleaving what the four planes gave makes the numbers
//! for four steps.

#![allow(unsafe_code, reason = "vectors are loaded from arrays by address")]

use std::arch::x86_64::{
    __m128i, __m512i, __mmask64, _mm_loadu_si128, _mm512_add_epi32, _mm512_castsi128_si512,
    _mm512_cmplt_epu32_mask, _mm512_inserti32x4, _mm512_loadu_si512, _mm512_mask_blend_epi8,
    _mm512_min_epu32, _mm512_movepi8_mask, _mm512_permutex2var_epi8, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_storeu_si512, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8,
    _mm512_unpacklo_epi16,
};

use super::{Found, STRIDES, WINDOW};
use crate::chunk::gear::{GearTable, Planes};

/// Positions hashed at once.
pub(super) const LANES: usize = 16;

/// Bytes of each lane that are loaded at once.
const LOAD: usize = 16;
/// Bytes of each lane between two tests.
const STEPS: usize = 4;

/// Finds the candidates of `block`: a window and then [`LANES`] lanes of `stride` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn lanes<const STRIDE: usize>(gear: &GearTable, block: &[u8], limit: u32, found: &mut Found<'_>) {
    const { assert!(STRIDE.is_multiple_of(LOAD) && WINDOW.is_multiple_of(LOAD)) }
    assert_eq!(block.len(), WINDOW + LANES * STRIDE);
    let table = Table::load(&gear.planes);
    let limits = _mm512_set1_epi32(limit.cast_signed());
    let mut hash = _mm512_setzero_si512();
    let mut at = 0;
    while at < WINDOW + STRIDE {
        for (i, bytes) in columns::<STRIDE>(block, at).into_iter().enumerate() {
            let [a, b, c, d] = table.lookup(bytes).map(|numbers| {
                hash = _mm512_add_epi32(_mm512_add_epi32(hash, hash), numbers);
                hash
            });
            let lowest = _mm512_min_epu32(_mm512_min_epu32(a, b), _mm512_min_epu32(c, d));
            // Hashes of fewer bytes than a window do not count.
            if _mm512_cmplt_epu32_mask(lowest, limits) != 0 && at >= WINDOW {
                let hashes = [numbers(a), numbers(b), numbers(c), numbers(d)];
                found.push_below(limit, &hashes, at - WINDOW + i * STEPS, STRIDE);
                if found.overflowed {
                    return;
                }
            }
        }
        at += LOAD;
    }
}

/// The gear table in sixteen registers.
struct Table([[__m512i; 4]; 4]);

impl Table {
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    #[inline]
    fn load(planes: &Planes) -> Self {
        Self(planes.0.each_ref().map(|plane| {
            let (quarters, _) = plane.as_chunks::<64>();
            // SAFETY: each quarter is an array of 64 bytes, and the load asks for no alignment.
            [0, 1, 2, 3].map(|i: usize| unsafe { _mm512_loadu_si512(quarters[i].as_ptr().cast()) })
        }))
    }

    /// The numbers for four bytes of each lane, as [`columns`] has them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    #[inline]
    fn lookup(&self, bytes: __m512i) -> [__m512i; STEPS] {
        let upper = _mm512_movepi8_mask(bytes);
        let [a, b, c, d] = self.0.each_ref().map(|plane| look_up_plane(plane, bytes, upper));
        let low = [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)];
        let high = [_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)];
        [
            _mm512_unpacklo_epi16(low[0], high[0]),
            _mm512_unpackhi_epi16(low[0], high[0]),
            _mm512_unpacklo_epi16(low[1], high[1]),
            _mm512_unpackhi_epi16(low[1], high[1]),
        ]
    }
}

/// One byte of the numbers of 64 bytes, `upper` of which are 128 and more.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
fn look_up_plane(plane: &[__m512i; 4], bytes: __m512i, upper: __mmask64) -> __m512i {
    _mm512_mask_blend_epi8(
        upper,
        _mm512_permutex2var_epi8(plane[0], bytes, plane[1]),
        _mm512_permutex2var_epi8(plane[2], bytes, plane[3]),
    )
}

/// Sixteen bytes from `at` on of each lane, transposed: the vectors follow each other in time, and in each of the four parts of
/// a vector, which are of four lanes each, the lanes' first bytes come first, then their second ones, and so on.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
fn columns<const STRIDE: usize>(block: &[u8], at: usize) -> [__m512i; LOAD / STEPS] {
    let row = |first: usize| {
        let vector = _mm512_castsi128_si512(load(block, at + first * STRIDE));
        let vector = _mm512_inserti32x4::<1>(vector, load(block, at + (first + 4) * STRIDE));
        let vector = _mm512_inserti32x4::<2>(vector, load(block, at + (first + 8) * STRIDE));
        _mm512_inserti32x4::<3>(vector, load(block, at + (first + 12) * STRIDE))
    };
    let rows = [row(0), row(1), row(2), row(3)];
    let even = [_mm512_unpacklo_epi8(rows[0], rows[2]), _mm512_unpackhi_epi8(rows[0], rows[2])];
    let odd = [_mm512_unpacklo_epi8(rows[1], rows[3]), _mm512_unpackhi_epi8(rows[1], rows[3])];
    [
        _mm512_unpacklo_epi8(even[0], odd[0]),
        _mm512_unpackhi_epi8(even[0], odd[0]),
        _mm512_unpacklo_epi8(even[1], odd[1]),
        _mm512_unpackhi_epi8(even[1], odd[1]),
    ]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(block: &[u8], at: usize) -> __m128i {
    let bytes = &block[at..at + LOAD];
    // SAFETY: the slice is 16 bytes long, and the load asks for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The numbers of a vector.
#[target_feature(enable = "avx512f")]
fn numbers(vector: __m512i) -> [u32; LANES] {
    let mut numbers = [0; LANES];
    // SAFETY: the array is as long as the vector, 64 bytes, and the store asks for no alignment.
    unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast(), vector) };
    numbers
}
