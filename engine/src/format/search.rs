//! How matches are searched for at level 3. zstd's own way for it, two tables, is the best for texts and programs; pages of databases, logs
//! and repetitive data are compressed as well by one table, in two thirds of the time, but by which length of match differs.
//! So a sample of the content is tried, now and then, and what comes after it is taken to be alike until it compresses differently.

/// A way to search for matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// Long and short matches in a table each.
    Double,
    /// One table of matches that have at least this length, in bytes.
    Single(u32),
}

/// What is tried.
pub(super) const SEARCHES: [Search; 3] = [Search::Double, Search::Single(7), Search::Single(5)];

/// How much of a block is tried. Shorter blocks are not.
pub(super) const SAMPLE_LEN: usize = 512 << 10;

/// A sample may be longer by one part in so many if it takes less time.
const TOLERANCE: usize = 40;

/// Blocks after a trial in which another is not worth it.
const REST_MIN: u32 = 6;
/// Blocks after which there is another trial at the latest: as many again each time that nothing changes, up to this.
const REST_MAX: u32 = 48;

/// Decides how blocks that follow each other are searched.
#[derive(Debug)]
pub(super) struct Chooser {
    search: Search,
    /// Blocks since the last trial.
    since: u32,
    /// Blocks until the next.
    rest: u32,
    /// The length of what blocks of this kind are compressed to, in 1024ths.
    share: usize,
}

impl Default for Chooser {
    fn default() -> Self {
        Self { search: Search::Double, since: 0, rest: 0, share: 0 }
    }
}

impl Chooser {
    /// How to search in the next block; `try_out` says how long a sample of it gets.
    pub fn choose(&mut self, mut try_out: impl FnMut(Search) -> usize) -> Search {
        if self.since < self.rest {
            return self.search;
        }
        let lens = SEARCHES.map(|search| (try_out(search), search));
        let (double, _) = lens[0];
        let (single, shorter) = if lens[2].0 < lens[1].0 { lens[2] } else { lens[1] };
        let best = if single <= double + double / TOLERANCE { shorter } else { Search::Double };
        let is_steady = best == self.search && self.rest > 0;
        self.rest = if is_steady { (self.rest * 2).min(REST_MAX) } else { REST_MIN };
        (self.search, self.since, self.share) = (best, 0, 0);
        best
    }

    /// What a block of `raw` bytes was compressed to.
    pub fn note(&mut self, raw: usize, stored: usize) {
        self.since += 1;
        let share = stored * 1024 / raw.max(1);
        if self.share == 0 {
            self.share = share.max(1);
        } else if self.since >= REST_MIN && share.abs_diff(self.share) > self.share / 3 {
            self.rest = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides on a block whose sample gets these lengths, in the order of [`SEARCHES`]; `None` where nothing was tried.
    fn choose(chooser: &mut Chooser, lens: [usize; 3]) -> Option<Search> {
        let mut tried = 0;
        let chosen = chooser.choose(|search| {
            tried += 1;
            lens[SEARCHES.iter().position(|one| *one == search).expect("one of them")]
        });
        assert!(tried == 0 || tried == SEARCHES.len());
        (tried > 0).then_some(chosen)
    }

    #[test]
    fn one_table_is_taken_where_it_costs_next_to_nothing() {
        let first = |lens| choose(&mut Chooser::default(), lens);
        assert_eq!(first([1000, 1025, 1100]), Some(Search::Single(7)));
        assert_eq!(first([1000, 1026, 1100]), Some(Search::Double));
        assert_eq!(first([1000, 1030, 900]), Some(Search::Single(5)));
        assert_eq!(first([0, 0, 0]), Some(Search::Single(7)));
    }

    #[test]
    fn trials_get_rarer_while_nothing_changes() {
        let mut chooser = Chooser::default();
        let mut trials = Vec::new();
        for block in 0..200 {
            if choose(&mut chooser, [1000, 900, 950]).is_some() {
                trials.push(block);
            }
            chooser.note(4096, 1024);
        }
        assert_eq!(trials, [0, 6, 18, 42, 90, 138, 186]);
    }

    #[test]
    fn other_content_is_tried_soon() {
        let mut chooser = Chooser::default();
        for _ in 0..42 {
            choose(&mut chooser, [1000, 900, 950]);
            chooser.note(4096, 1024);
        }
        chooser.note(4096, 1300);
        assert_eq!(choose(&mut chooser, [1000, 900, 950]), Some(Search::Single(7)), "by the count");
        for _ in 0..7 {
            chooser.note(4096, 1300);
            assert_eq!(choose(&mut chooser, [1000, 1100, 1100]), None, "a little else is nothing else");
        }
        chooser.note(4096, 3000);
        assert_eq!(choose(&mut chooser, [1000, 1100, 1100]), Some(Search::Double));
    }
}
