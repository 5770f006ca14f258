//! Ascending runs made one.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;

/// Items in ascending order.
pub(crate) trait Run {
    /// What it consists of.
    type Item: Ord + std::fmt::Debug;

    /// Puts the next item into `item`; false at the end.
    ///
    /// # Errors
    /// Those of reading it.
    fn next_into(&mut self, item: &mut Self::Item) -> io::Result<bool>;
}

/// The items of several runs in ascending order; equal ones of several runs come one after the other.
#[derive(Debug)]
pub(crate) struct Merge<R: Run> {
    heads: BinaryHeap<Head<R>>,
}

impl<R: Run> Merge<R> {
    /// Of these runs. `item` makes room for one item.
    ///
    /// # Errors
    /// Those of reading a run.
    pub fn new(runs: impl IntoIterator<Item = R>, item: impl Fn() -> R::Item) -> io::Result<Self> {
        let mut heads = BinaryHeap::new();
        for run in runs {
            let mut head = Head { item: item(), run: Box::new(run) };
            if head.step()? {
                heads.push(head);
            }
        }
        Ok(Self { heads })
    }

    /// The next item; none at the end.
    pub fn peek(&self) -> Option<&R::Item> {
        self.heads.peek().map(|head| &head.item)
    }

    /// Goes on to the one after it.
    ///
    /// # Errors
    /// Those of reading a run.
    pub fn step(&mut self) -> io::Result<()> {
        if let Some(mut head) = self.heads.peek_mut()
            && !head.step()?
        {
            PeekMut::pop(head);
        }
        // Otherwise the head went to its new place when it was dropped.
        Ok(())
    }

    /// How many runs have not ended.
    pub fn runs_left(&self) -> usize {
        self.heads.len()
    }

    /// Runs that have not ended.
    #[cfg(test)]
    pub fn runs(&self) -> impl Iterator<Item = &R> {
        self.heads.iter().map(|head| &*head.run)
    }
}

/// The next item of a run. The greatest head is that of the least item.
#[derive(Debug)]
struct Head<R: Run> {
    item: R::Item,
    /// Boxed, since heads are moved about all the time.
    run: Box<R>,
}

impl<R: Run> Head<R> {
    /// Goes on to the next item; false at the end.
    fn step(&mut self) -> io::Result<bool> {
        self.run.next_into(&mut self.item)
    }
}

impl<R: Run> Ord for Head<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.item.cmp(&self.item)
    }
}

impl<R: Run> PartialOrd for Head<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R: Run> PartialEq for Head<R> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<R: Run> Eq for Head<R> {}
