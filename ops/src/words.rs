//! Numbers with what they count, as people write them.

use std::fmt::Display;

/// `1 snapshot`, `2 snapshots`, `0 entries`.
pub fn count<N: Display + Copy + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    if number == N::from(1) {
        return format!("{number} {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{number} {stem}ies"),
        _ => format!("{number} {noun}s"),
    }
}

/// The form of a verb that goes with the number: `1 file was`, `2 files were`.
pub fn verb<N: Copy + PartialEq + From<u8>>(
    number: N,
    of_one: &'static str,
    of_many: &'static str,
) -> &'static str {
    if number == N::from(1) { of_one } else { of_many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_all_others_are_many() {
        assert_eq!([0, 1, 2].map(|number| count(number, "pack")), ["0 packs", "1 pack", "2 packs"]);
        assert_eq!([1_u64, 3].map(|number| count(number, "entry")), ["1 entry", "3 entries"]);
        assert_eq!(count(2_usize, "day"), "2 days");
        assert_eq!([0, 1, 2].map(|number| verb(number, "was", "were")), ["were", "was", "were"]);
    }
}
