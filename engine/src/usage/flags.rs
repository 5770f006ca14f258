//! Bits of entries that are cleared again and again, at a cost that grows with those that are set and not with all that there are.

use crate::index::Bits;

/// Words of which it is kept in mind that a bit is set: 8 MiB.
const WORDS_MAX: usize = if cfg!(test) { 16 } else { 512 << 10 };

/// Bits of the entries of some segments, by number.
pub(super) struct ShortFlags {
    bits: Bits,
    /// The words that are not zero, by segment and number, as long as they are few.
    words: Vec<(usize, usize)>,
}

impl ShortFlags {
    /// Of the same entries, of which none may be set.
    pub fn new(bits: Bits) -> Self {
        Self { bits, words: Vec::new() }
    }

    /// Sets a bit; true where it was not set.
    pub fn set(&mut self, (segment, bit): (usize, usize)) -> bool {
        let place = (segment, bit / 64);
        let word = self.bits.word(place);
        let before = *word;
        *word |= 1 << (bit % 64);
        let after = *word;
        // One more than are kept says that there are more.
        if before == 0 && self.words.len() <= WORDS_MAX {
            self.words.push(place);
        }
        after != before
    }

    /// Clears all of them.
    pub fn clear(&mut self) {
        if self.words.len() > WORDS_MAX {
            self.bits.clear();
        } else {
            self.words.iter().for_each(|place| *self.bits.word(*place) = 0);
        }
        self.words.clear();
    }
}
