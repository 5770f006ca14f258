//! Padmé: object lengths rounded up so that they tell little about the content.

/// The padded length for `len` bytes: at most 12 % more, a few per cent for large objects.
///
/// Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs",
/// PETS 2019, algorithm 1.
pub const fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let exponent_bits = exponent.ilog2() + 1;
    let low_bits = exponent.saturating_sub(exponent_bits);
    let mask = (1u64 << low_bits) - 1;
    match len.checked_add(mask) {
        Some(sum) => sum & !mask,
        None => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_properties_hold() {
        for (len, padded) in [(0, 0), (1, 1), (8, 8), (9, 10), (100, 104), (1000, 1024), (1 << 25, 1 << 25)] {
            assert_eq!(padme(len), padded, "{len}");
        }
        for len in (2..200_000).chain((0..1000).map(|i| 33_554_432 + i * 7919)) {
            let padded = padme(len);
            assert!(padded >= len && (padded - len) * 100 <= len * 12, "{len} -> {padded}");
            assert_eq!(padme(padded), padded, "padding is idempotent");
        }
        assert_eq!(padme(u64::MAX), u64::MAX);
    }
}
