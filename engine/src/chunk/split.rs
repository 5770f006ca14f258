//! Splitting of long lists by content: very large directories and very long chunk tables become small trees of
//! pieces, so that a small change rewrites a few pieces.
//!
//! A piece ends after an item whose key hashes below a threshold, never before `min` items and always at `max`, or
//! earlier where its items weigh too much: no blob may come near the longest. The last piece takes what is left.
//! The same rule splits every level.

use crate::crypto::KeySet;

/// Items of one kind of list and how they are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitRule {
    /// A list of at most this many items, of together at most [`PIECE_WEIGHT_MAX`], is not split.
    pub whole_max: usize,
    /// Pieces end at the earliest after this many items.
    pub min: usize,
    /// One in this many items ends a piece. A power of two.
    pub one_in: u32,
    /// Pieces end at the latest after this many items.
    pub max: usize,
}

/// A piece ends with the item by which it reaches this weight, roughly its bytes: 4 MiB, a quarter of the longest
/// blob. Weights are [`Node::weight`](crate::format::tree::Node::weight) and
/// [`PART_WEIGHT`](crate::format::tree::PART_WEIGHT); entries of chunk tables weigh nothing.
pub const PIECE_WEIGHT_MAX: u64 = 4 << 20;

/// Entries of a directory.
pub const TREE_RULE: SplitRule = SplitRule { whole_max: 2048, min: 256, one_in: 512, max: 2048 };

/// Entries of a chunk table of any depth. Nodes carry 64 entries at most: a directory of large files stays small.
pub const CHUNK_RULE: SplitRule = SplitRule { whole_max: 64, min: 256, one_in: 512, max: 2048 };

/// Decides where pieces end, with a key so that piece lengths tell nothing.
pub struct Splitter<'a> {
    keys: &'a KeySet,
}

impl std::fmt::Debug for Splitter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Splitter")
    }
}

impl<'a> Splitter<'a> {
    /// A splitter under the repository's chunker key.
    pub fn new(keys: &'a KeySet) -> Self {
        Self { keys }
    }

    /// Whether a piece may end after the item with this key: the first four bytes of
    /// `keyed_BLAKE3(chunker key, "split" ‖ key)`, little-endian, are a multiple of `one_in`.
    fn is_end(&self, rule: &SplitRule, key: &[u8]) -> bool {
        let mut hasher = blake3::Hasher::new_keyed(self.keys.chunker().expose());
        hasher.update(b"split").update(key);
        let hash = hasher.finalize();
        let [a, b, c, d, ..] = *hash.as_bytes();
        u32::from_le_bytes([a, b, c, d]).is_multiple_of(rule.one_in)
    }

    /// Whether a piece of `len` items and `weight` so far ends after its last item, which has this key.
    pub fn ends_after(&self, rule: &SplitRule, len: usize, weight: u64, key: &[u8]) -> bool {
        len >= rule.max || weight >= PIECE_WEIGHT_MAX || len >= rule.min && self.is_end(rule, key)
    }

    /// Lengths of the pieces that items with these keys and weights are split into; one piece if they are few and
    /// light.
    pub fn pieces<'k>(
        &self,
        rule: &SplitRule,
        items: impl ExactSizeIterator<Item = (&'k [u8], u64)> + Clone,
    ) -> Vec<usize> {
        let total = items.len();
        let is_light = || items.clone().map(|(_, weight)| weight).sum::<u64>() <= PIECE_WEIGHT_MAX;
        if total <= rule.whole_max && is_light() {
            return vec![total];
        }
        let mut pieces = Vec::with_capacity(total / rule.min + 1);
        let (mut len, mut weight) = (0, 0);
        for (key, item_weight) in items {
            len += 1;
            weight += item_weight;
            if self.ends_after(rule, len, weight, key) {
                pieces.push(len);
                (len, weight) = (0, 0);
            }
        }
        if len > 0 {
            pieces.push(len);
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootSecret;

    #[test]
    fn one_new_item_changes_few_pieces() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let splitter = Splitter::new(&keys);
        let mut items: Vec<[u8; 4]> = (0..50_000u32).map(u32::to_be_bytes).collect();
        let pieces = |items: &[[u8; 4]]| {
            let lens = splitter.pieces(&TREE_RULE, items.iter().map(|item| (item.as_slice(), 1)));
            assert_eq!(lens.iter().sum::<usize>(), items.len());
            assert!(lens[..lens.len() - 1].iter().all(|len| (TREE_RULE.min..=TREE_RULE.max).contains(len)));
            let mut at = 0;
            lens.iter()
                .map(|len| {
                    at += len;
                    items[at - len..at].to_vec()
                })
                .collect::<std::collections::HashSet<_>>()
        };
        let before = pieces(&items);
        assert!(before.len() > 30, "{}", before.len());
        items.remove(20_000);
        let after = pieces(&items);
        assert!(before.difference(&after).count() <= 4);
    }

    #[test]
    fn short_lists_stay_whole() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let splitter = Splitter::new(&keys);
        for len in [0, 1, TREE_RULE.whole_max] {
            assert_eq!(splitter.pieces(&TREE_RULE, vec![(&b"x"[..], 256); len].into_iter()), vec![len]);
        }
    }

    #[test]
    fn heavy_items_end_a_piece_however_few_they_are() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let pieces = |weights: &[u64]| {
            let items: Vec<_> = weights.iter().map(|weight| (&b"x"[..], *weight)).collect();
            Splitter::new(&keys).pieces(&TREE_RULE, items.into_iter())
        };
        let half = PIECE_WEIGHT_MAX / 2;
        assert_eq!(pieces(&[half, half]), [2], "just the limit");
        assert_eq!(pieces(&[half, half - 1, 2, 1]), [3, 1], "the item that reaches the limit is the last");
        assert_eq!(pieces(&[half, half, 1, half, half - 1]), [2, 3]);
        assert_eq!(pieces(&[3 * half, 1, 3 * half]), [1, 2]);
    }
}
