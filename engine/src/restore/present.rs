//! What a directory of the target holds, gone through beside the entries of the snapshot. As in a backup, no more than some
//! ten thousand names are in memory at once, however many there are.

use std::io;
use std::ops::ControlFlow;

use crate::source::listing::Sorter;
use crate::source::{Listing, Names, Spill};
use crate::target::{self, RelativePath, TargetError, TargetRoot};

/// Names that are handed out at once, at most.
const WINDOW_LEN: usize = 1024;

/// All names of a directory of the target, and whether there is one among them for a file that is not whole.
pub(super) type Listed = (Listing, bool);

/// Lists the directory `path` of the target.
pub(super) fn list(root: &TargetRoot, path: &RelativePath, spill: &Spill) -> Result<Listed, TargetError> {
    let mut names = Sorter::new(spill);
    let mut has_incomplete = false;
    root.for_each_name(path, &mut |name| {
        has_incomplete |= target::whole_name(name).is_some();
        names.push(name);
        ControlFlow::Continue(())
    })?;
    let listing = names.finish().map_err(|source| unreadable(path, source))?;
    Ok((listing, has_incomplete))
}

/// The next names of the directory `path`; none at the end.
pub(super) fn next_window(
    listing: &mut Listing,
    path: &RelativePath,
    spill: &Spill,
) -> Result<Names, TargetError> {
    listing.next_window(window_len(spill)).map_err(|source| unreadable(path, source))
}

fn window_len(spill: &Spill) -> usize {
    WINDOW_LEN.min(spill.run_len)
}

/// The names of a directory cannot be read back from where they were put.
pub(super) fn unreadable(path: &RelativePath, source: io::Error) -> TargetError {
    TargetError::Io { operation: "read again the names in the directory", path: path.clone(), source }
}

/// Names of a directory of the target, ascending, of which some were passed.
pub(super) struct Present<'a> {
    /// Those behind the window.
    listing: Listing,
    /// Those that come next, of which so many were passed.
    window: Names,
    passed: usize,
    window_len: usize,
    /// Those passed that the snapshot does not have, where they are to go.
    surplus: Option<Sorter<'a>>,
    has_incomplete: bool,
}

impl<'a> Present<'a> {
    /// Of all names in a directory; of those that the snapshot does not have, none are kept unless that `deletes` them.
    pub(super) fn new((listing, has_incomplete): Listed, spill: &'a Spill, deletes: bool) -> Self {
        let surplus = deletes.then(|| Sorter::new(spill));
        Self {
            listing,
            window: Names::default(),
            passed: 0,
            window_len: window_len(spill),
            surplus,
            has_incomplete,
        }
    }

    /// Whether there is a name for a file that is not whole.
    pub(super) fn has_incomplete(&self) -> bool {
        self.has_incomplete
    }

    /// Steps to `name`; whether it is there. What is passed over is surplus.
    pub(super) fn step_to(&mut self, name: &[u8]) -> io::Result<bool> {
        loop {
            if self.passed == self.window.len() {
                (self.window, self.passed) = (self.listing.next_window(self.window_len)?, 0);
            }
            match self.window.get(self.passed) {
                Some(found) if found < name => {
                    if let Some(surplus) = &mut self.surplus {
                        surplus.push(found);
                    }
                    self.passed += 1;
                }
                Some(found) if found == name => {
                    self.passed += 1;
                    return Ok(true);
                }
                _ => return Ok(false),
            }
        }
    }

    /// What the snapshot does not have: what was passed over, and what was not come to. None unless it is to go.
    pub(super) fn into_surplus(self) -> io::Result<Option<[Listing; 2]>> {
        let Some(mut surplus) = self.surplus else { return Ok(None) };
        self.window.iter().skip(self.passed).for_each(|name| surplus.push(name));
        Ok(Some([surplus.finish()?, self.listing]))
    }

    /// Names in memory.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.listing.held() + self.window.len() + self.surplus.as_ref().map_or(0, Sorter::held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listing(names: impl Iterator<Item = String>, spill: &Spill) -> Listing {
        let mut sorter = Sorter::new(spill);
        names.for_each(|name| sorter.push(name.as_bytes()));
        sorter.finish().unwrap()
    }

    fn all(listings: [Listing; 2], spill: &Spill) -> Vec<String> {
        let mut found = Vec::new();
        for mut listing in listings {
            loop {
                let window = next_window(&mut listing, &RelativePath::root(), spill).unwrap();
                if window.is_empty() {
                    break;
                }
                found.extend(window.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()));
            }
        }
        found
    }

    fn spill(run_len: usize) -> Spill {
        Spill { place: Some(std::env::temp_dir()), run_len }
    }

    #[test]
    fn a_directory_of_any_length_is_not_held_whole() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..2000 {
            std::fs::write(folder.path().join(format!("{number:04}")), "").unwrap();
        }
        let root = TargetRoot::open(folder.path(), false).unwrap();
        let spill = spill(50);
        // A run of what is surplus, a window, and one name of each of 40 runs.
        let most = 50 + 50 + 40;
        for deletes in [false, true] {
            let listing = list(&root, &RelativePath::root(), &spill).unwrap();
            let mut present = Present::new(listing, &spill, deletes);
            for number in (3..1800).step_by(7) {
                assert!(present.step_to(format!("{number:04}").as_bytes()).unwrap(), "{number}");
                assert!(!present.step_to(format!("{number:04}x").as_bytes()).unwrap(), "{number}");
                assert!(present.held() <= most, "{} names at {number}", present.held());
            }
            let Some(surplus) = present.into_surplus().unwrap() else {
                assert!(!deletes);
                continue;
            };
            assert!(surplus.iter().map(Listing::held).sum::<usize>() <= most);
            let expected = (0..2000).filter(|number| *number >= 1800 || number % 7 != 3);
            assert!(all(surplus, &spill).into_iter().eq(expected.map(|number| format!("{number:04}"))));
        }
    }

    proptest! {
        /// Whatever both have, and wherever the names are.
        #[test]
        fn every_name_is_found_or_surplus(
            there in prop::collection::btree_set("[a-c]{1,4}", 0..60),
            wanted in prop::collection::btree_set("[a-c]{1,4}", 0..60),
            run_len in 1..64_usize,
        ) {
            let spill = spill(run_len);
            let mut present = Present::new((listing(there.iter().cloned(), &spill), false), &spill, true);
            for name in &wanted {
                prop_assert_eq!(present.step_to(name.as_bytes()).unwrap(), there.contains(name));
            }
            let surplus = present.into_surplus().unwrap().unwrap();
            prop_assert!(all(surplus, &spill).iter().eq(there.difference(&wanted)));
        }
    }
}
