//! Splitting of long lists by content: very large directories and very long chunk tables become small trees of
//! pieces, so that a small change rewrites a few pieces.
//!
//! A piece ends after an item whose key hashes below a threshold, never before `min` items and always at `max`;
//! the last piece takes what is left. The same rule splits every level.

use crate::crypto::KeySet;

/// Items of one kind of list and how they are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitRule {
    /// A list of at most this many items is not split.
    pub whole_max: usize,
    /// Pieces end at the earliest after this many items.
    pub min: usize,
    /// One in this many items ends a piece. A power of two.
    pub one_in: u32,
    /// Pieces end at the latest after this many items.
    pub max: usize,
}

/// Entries of a directory.
pub const TREE_RULE: SplitRule = SplitRule { whole_max: 2048, min: 256, one_in: 512, max: 2048 };

/// Entries of a chunk table of any depth.
pub const CHUNK_RULE: SplitRule = SplitRule { whole_max: 2048, min: 256, one_in: 512, max: 2048 };

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

    /// Whether a piece of `len` items so far ends after the item with this key.
    pub fn ends_after(&self, rule: &SplitRule, len: usize, key: &[u8]) -> bool {
        len >= rule.max || len >= rule.min && self.is_end(rule, key)
    }

    /// Lengths of the pieces that items with these keys are split into; one piece if there are few.
    pub fn pieces<'k>(&self, rule: &SplitRule, keys: impl ExactSizeIterator<Item = &'k [u8]>) -> Vec<usize> {
        let total = keys.len();
        if total <= rule.whole_max {
            return vec![total];
        }
        let mut pieces = Vec::with_capacity(total / rule.min + 1);
        let mut len = 0;
        for key in keys {
            len += 1;
            if self.ends_after(rule, len, key) {
                pieces.push(len);
                len = 0;
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
            let lens = splitter.pieces(&TREE_RULE, items.iter().map(<[u8; 4]>::as_slice));
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
            assert_eq!(splitter.pieces(&TREE_RULE, vec![&b"x"[..]; len].into_iter()), vec![len]);
        }
    }
}
