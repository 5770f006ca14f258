//! What is still to be read of trees that are followed: in memory that grows with how deep they are, not with how many.
//!
//! The latest come first, a batch at a time. If a part of a batch leads to much, that is read before the rest of the batch.

/// How much a batch may lead to before its rest has to wait.
const MUCH: usize = if cfg!(test) { 8 } else { 32 << 10 };

/// A stack of what is still to be read, `W`, and of what was looked up for that already, `L`.
pub struct Frontier<W, L> {
    pending: Vec<W>,
    /// Rests of batches, each with how much was pending below it.
    rests: Vec<(usize, Vec<L>)>,
    /// How much was pending when the present batch was taken.
    floor: usize,
}

/// What comes next.
pub enum Next<W, L> {
    /// Some to be looked up and read.
    Batch(Vec<W>),
    /// The rest of a batch.
    Rest(Vec<L>),
}

impl<W, L> Frontier<W, L> {
    /// Begins with these.
    pub fn new(pending: Vec<W>) -> Self {
        Self { pending, rests: Vec::new(), floor: 0 }
    }

    /// At most so many of the latest, or the rest of a batch if all that its beginning led to is done.
    pub fn next(&mut self, most: usize) -> Option<Next<W, L>> {
        let below = self.rests.last().map_or(0, |(below, _)| *below);
        let next = match self.pending.len() > below {
            true => {
                let from = self.pending.len().saturating_sub(most).max(below);
                Next::Batch(self.pending.split_off(from))
            }
            false => Next::Rest(self.rests.pop()?.1),
        };
        self.floor = self.pending.len();
        Some(next)
    }

    /// Adds what the present batch leads to.
    pub fn extend(&mut self, found: impl IntoIterator<Item = W>) {
        self.pending.extend(found);
    }

    /// Whether the present batch has led to so much that the rest of it has to wait.
    pub fn is_full(&self) -> bool {
        self.pending.len() - self.floor >= MUCH
    }

    /// Puts the rest of the present batch by, if there is any.
    pub fn put_by(&mut self, rest: Vec<L>) {
        if !rest.is_empty() {
            self.rests.push((self.floor, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each number below a million leads to ten others: all are met once, and few are in memory.
    #[test]
    fn all_is_met_once_and_little_waits() {
        let mut frontier = Frontier::new(vec![0_u32]);
        let (mut met, mut most) = (vec![false; 1_111_111], 0);
        while let Some(next) = frontier.next(16) {
            let located = match next {
                Next::Batch(batch) => batch,
                Next::Rest(rest) => rest,
            };
            let mut left = located.as_slice();
            while let Some((number, later)) = left.split_first()
                && !frontier.is_full()
            {
                assert!(!std::mem::replace(&mut met[*number as usize], true), "{number}");
                let below = (1..=10).map(|n| number * 10 + n);
                frontier.extend(below.filter(|number| (*number as usize) < met.len()));
                left = later;
            }
            frontier.put_by(left.to_vec());
            most = most.max(
                frontier.pending.len() + frontier.rests.iter().map(|(_, rest)| rest.len()).sum::<usize>(),
            );
        }
        assert!(met.iter().all(|met| *met));
        assert!(most < 300, "{most}");
    }
}
