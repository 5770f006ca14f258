//! Which segments to merge: few enough for lookups, seldom enough for writing.
//!
//! Every commit adds a segment, usually a small one beside those of years. Only four or more segments of similar size
//! are merged: going up from the smallest of them, each next one has at most twice the entries of those before it
//! together. So an entry that is rewritten ends up in a segment at least one and a half times as large, which happens a
//! number of times logarithmic in the index; and what stays apart at least doubles with each segment or grows sevenfold
//! with three, so there are logarithmically many. The largest one is touched when half as much has gathered beside it.

use std::ops::Range;

/// Segments that are worth a merge.
const FAN_IN: usize = 4;

/// Entries below which segments count as equally small: rewriting these costs a few hundred KiB.
const SMALL: u64 = 4096;

/// Which of the segments, whose entries are given in ascending order, are to be merged into one; none if the range is
/// empty.
pub fn choose(entries: &[u64]) -> Range<usize> {
    let runs = (0..entries.len()).map(|start| start..start + similar(&entries[start..]));
    runs.into_iter().find(|run| run.len() >= FAN_IN).unwrap_or_default()
}

/// How many segments from the first on are similar.
fn similar(entries: &[u64]) -> usize {
    let mut sum = 0u64;
    let fits = |entries: &u64| {
        let entries = (*entries).max(SMALL);
        let fits = sum == 0 || entries <= sum.saturating_mul(2);
        sum = sum.saturating_add(entries);
        fits
    };
    entries.iter().copied().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Adds segments one by one, merging as told; returns the live ones and how many entries were written in all.
    fn grow(sizes: impl IntoIterator<Item = u64>) -> (Vec<u64>, u64, usize) {
        let (mut live, mut written, mut most) = (Vec::new(), 0, 0);
        for size in sizes {
            live.push(size);
            live.sort_unstable();
            most = most.max(live.len());
            let chosen = choose(&live);
            if !chosen.is_empty() {
                let merged = live.drain(chosen).sum();
                written += merged;
                live.push(merged);
                live.sort_unstable();
            }
        }
        (live, written, most)
    }

    fn log2(number: u64) -> u64 {
        u64::from(number.max(2).ilog2())
    }

    #[test]
    fn few_or_unlike_segments_are_left_alone() {
        assert_eq!(choose(&[]), 0..0);
        assert_eq!(choose(&[1, 1, 1]), 0..0);
        assert_eq!(choose(&[1, 1, 1, 100_000_000]), 0..0, "a night's commits do not touch the years");
        assert_eq!(choose(&[1, 1, 1, 1, 100_000_000]), 0..4);
        assert_eq!(choose(&[10_000, 40_000, 160_000, 640_000, 2_560_000]), 0..0);
        assert_eq!(choose(&[10_000, 20_000, 60_000, 180_000, 10_000_000]), 0..4);
        assert_eq!(choose(&[1, 100_000, 100_000, 100_000, 100_000, 10_000_000]), 1..5);
    }

    #[test]
    fn years_of_nights_on_a_hundred_million_blobs_rewrite_them_never() {
        let nights = std::iter::once(100_000_000).chain(std::iter::repeat_n(3000, 3650));
        let (live, written, most) = grow(nights);
        assert!(live.contains(&100_000_000));
        // Ten years of nights: some 11 million entries, each rewritten a few times.
        assert!(written < 3000 * 3650 * 8, "{written}");
        assert!(most <= 14, "{most}");
    }

    #[test]
    fn an_initial_backup_in_equal_parts_stays_logarithmic() {
        let (live, written, most) = grow(std::iter::repeat_n(262_144, 400));
        let total = 262_144 * 400;
        assert_eq!(live.iter().sum::<u64>(), total);
        assert!(written <= total * 5, "{}", written as f64 / total as f64);
        assert!(most <= 10, "{most}");
    }

    proptest! {
        #[test]
        fn whatever_comes_both_numbers_stay_logarithmic(
            sizes in prop::collection::vec(prop_oneof![1u64..100, 1u64..100_000, 1u64..3_000_000], 1..400),
        ) {
            let total: u64 = sizes.iter().sum();
            let commits = sizes.len() as u64;
            let (live, written, most) = grow(sizes);
            prop_assert_eq!(live.iter().sum::<u64>(), total);
            // Small ones count as SMALL until they have become that large.
            let bound = (total + commits * SMALL) * 2 * log2(total / SMALL + 2);
            prop_assert!(written <= bound, "{written} of {total}");
            prop_assert!(most as u64 <= 4 + 2 * log2(total / SMALL + 2), "{most} of {total}");
        }
    }
}
