//! The gear table: 256 secret numbers that decide where files are cut.

use crate::crypto::KeySet;
use crate::crypto::seal::fill_and_wipe;

/// A repository's gear table: 256 numbers of 32 bits, derived from the chunker key. Wiped when dropped.
pub struct GearTable {
    /// As the scanner takes them: widened to 64 bits.
    pub(super) gear: Box<[u64; 256]>,
    /// The same, shifted left by one, for the scanner's two-byte step.
    pub(super) gear_shifted: Box<[u64; 256]>,
    /// The same in 32 bits, for scanners that look up one number at a time.
    pub(super) narrow: Box<[u32; 256]>,
    /// The same byte by byte, for scanners that look up many at once.
    pub(super) planes: Box<Planes>,
}

/// Plane `i` has byte `i` of each number, the lowest first. Aligned to cache lines.
#[repr(align(64))]
pub(super) struct Planes(pub [[u8; 256]; 4]);

impl GearTable {
    /// Derives the table: `keyed_BLAKE3(chunker key, "gear")` extended to 1024 bytes, read as 256 little-endian
    /// 32-bit numbers.
    pub fn derive(keys: &KeySet) -> Self {
        let mut bytes = zeroize::Zeroizing::new([0; 1024]);
        let mut hasher = blake3::Hasher::new_keyed(keys.chunker().expose());
        hasher.update(b"gear");
        fill_and_wipe(hasher, bytes.as_mut());
        let mut table = Self {
            gear: Box::new([0; 256]),
            gear_shifted: Box::new([0; 256]),
            narrow: Box::new([0; 256]),
            planes: Box::new(Planes([[0; 256]; 4])),
        };
        let (numbers, _) = bytes.as_chunks::<4>();
        for (i, number) in numbers.iter().enumerate() {
            for (plane, byte) in table.planes.0.iter_mut().zip(number) {
                plane[i] = *byte;
            }
            let number = u32::from_le_bytes(*number);
            table.narrow[i] = number;
            table.gear[i] = u64::from(number);
            table.gear_shifted[i] = u64::from(number) << 1;
        }
        table
    }
}

impl Drop for GearTable {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.gear.zeroize();
        self.gear_shifted.zeroize();
        self.narrow.zeroize();
        self.planes.0.zeroize();
    }
}

impl std::fmt::Debug for GearTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GearTable(secret)")
    }
}
