//! The names of one directory in order, however many: handed out in windows, and no more than some ten thousand of them in
//! memory at once.
//!
//! A directory lists its names in no order. As many as fit into memory are sorted there; of more, each so many are sorted
//! by themselves and written to a temporary file, and these runs are merged while the names are handed out.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use super::names::Names;
use crate::spill::merge::{self, Merge};
use crate::spill::unnamed::{RunFile, Section};

/// Names of a run, at most.
const RUN_LEN: usize = 32 << 10;
/// Bytes of memory that the names of a run take, at most.
const RUN_WEIGHT: usize = 2 << 20;
/// Bytes of a run that are read at once.
const READ_LEN: usize = 8 << 10;

/// How many names stay in memory, and where the others go.
#[derive(Debug, Clone)]
pub struct Spill {
    /// A directory for temporary files, which never have a name there. Without one, or where it takes none, names stay in memory.
    pub place: Option<PathBuf>,
    /// Names that are sorted at once, at most.
    pub run_len: usize,
}

impl Default for Spill {
    fn default() -> Self {
        Self { place: None, run_len: RUN_LEN }
    }
}

/// Names of a directory, ascending, each once. What was handed out is gone.
#[derive(Debug)]
pub struct Listing {
    len: usize,
    names: Remaining,
}

#[derive(Debug)]
enum Remaining {
    /// Those from this position on.
    InMemory(Names, usize),
    Merged(Merge<Run>),
}

impl Listing {
    /// The next names, at most so many; none at the end.
    ///
    /// # Errors
    /// Those of reading the temporary file.
    pub fn next_window(&mut self, max: usize) -> io::Result<Names> {
        match &mut self.names {
            Remaining::InMemory(names, 0) if names.len() <= max => Ok(std::mem::take(names)),
            Remaining::InMemory(names, position) => {
                let mut window = Names::default();
                for name in names.iter().skip(*position).take(max) {
                    window.push(name);
                }
                *position += window.len();
                Ok(window)
            }
            Remaining::Merged(names) => next_merged(names, max),
        }
    }

    /// Whether the directory has this name, asked before any was handed out. None where that is not known without
    /// asking the directory.
    pub fn contains(&self, name: &[u8]) -> Option<bool> {
        match &self.names {
            Remaining::InMemory(names, _) => Some(names.contains(name)),
            Remaining::Merged(_) => None,
        }
    }

    /// Number of names listed, some of them perhaps twice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory in use.
    pub fn weight(&self) -> usize {
        match &self.names {
            Remaining::InMemory(names, _) => names.weight(),
            Remaining::Merged(names) => names.runs_left() * READ_LEN,
        }
    }

    /// Names in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        match &self.names {
            Remaining::InMemory(names, _) => names.len(),
            Remaining::Merged(names) => names.runs().map(|run| 1 + run.held()).sum(),
        }
    }

    /// Whether nothing was listed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Sorts the names of a directory as they come.
pub(crate) struct Sorter<'a> {
    spill: &'a Spill,
    names: Names,
    len: usize,
    runs: Vec<Run>,
    file: Option<RunFile>,
}

impl<'a> Sorter<'a> {
    pub(crate) fn new(spill: &'a Spill) -> Self {
        Self { spill, names: Names::default(), len: 0, runs: Vec::new(), file: None }
    }

    pub(crate) fn push(&mut self, name: &[u8]) {
        if self.names.len() >= self.spill.run_len || self.names.weight() >= RUN_WEIGHT {
            self.end_run();
        }
        self.names.push(name);
        self.len += 1;
    }

    fn end_run(&mut self) {
        self.names.sort();
        if self.runs.is_empty() {
            self.file = self.spill.place.as_deref().and_then(|place| RunFile::new(place).ok());
        }
        let names = std::mem::take(&mut self.names);
        let written = self.file.as_mut().map(|file| write(file, &names));
        self.runs.push(match written {
            Some(Ok(run)) => run,
            // Rather more memory than a directory that is not backed up.
            Some(Err(_)) | None => Run::Kept { names, next: 0 },
        });
    }

    /// Names in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.names.len() + self.runs.iter().map(Run::held).sum::<usize>()
    }

    pub(crate) fn finish(mut self) -> io::Result<Listing> {
        if self.runs.is_empty() {
            self.names.sort();
            return Ok(Listing { len: self.len, names: Remaining::InMemory(self.names, 0) });
        }
        self.end_run();
        let names = Merge::new(self.runs, Vec::new)?;
        Ok(Listing { len: self.len, names: Remaining::Merged(names) })
    }
}

fn next_merged(names: &mut Merge<Run>, max: usize) -> io::Result<Names> {
    let mut window = Names::default();
    while let Some(name) = names.peek() {
        let is_new = window.len().checked_sub(1).and_then(|last| window.get(last)) != Some(name);
        if is_new && window.len() == max {
            break;
        }
        if is_new {
            window.push(name);
        }
        names.step()?;
    }
    Ok(window)
}

/// Names that were sorted together, those that are still to come.
#[derive(Debug)]
enum Run {
    Kept { names: Names, next: usize },
    Written(BufReader<Section>),
}

impl Run {
    /// Names in memory.
    #[cfg(test)]
    fn held(&self) -> usize {
        match self {
            Self::Kept { names, .. } => names.len(),
            Self::Written(_) => 0,
        }
    }
}

impl merge::Run for Run {
    type Item = Vec<u8>;

    fn next_into(&mut self, name: &mut Vec<u8>) -> io::Result<bool> {
        name.clear();
        match self {
            Self::Kept { names, next } => {
                let Some(found) = names.get(*next) else { return Ok(false) };
                name.extend_from_slice(found);
                *next += 1;
            }
            Self::Written(reader) => {
                if reader.fill_buf()?.is_empty() {
                    return Ok(false);
                }
                let mut length = [0; 2];
                reader.read_exact(&mut length)?;
                name.resize(usize::from(u16::from_le_bytes(length)), 0);
                reader.read_exact(name)?;
            }
        }
        Ok(true)
    }
}

/// Writes sorted names as a run.
fn write(file: &mut RunFile, names: &Names) -> io::Result<Run> {
    let mut bytes = Vec::with_capacity(names.weight());
    for name in names.iter() {
        let length = u16::try_from(name.len()).expect("it came out of a slot of that width");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(name);
    }
    Ok(Run::Written(BufReader::with_capacity(READ_LEN, file.write(&bytes)?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listing(names: &[Vec<u8>], spill: &Spill) -> Listing {
        let mut sorter = Sorter::new(spill);
        names.iter().for_each(|name| sorter.push(name));
        sorter.finish().unwrap()
    }

    fn all(mut listing: Listing, window: usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        loop {
            let names = listing.next_window(window).unwrap();
            if names.is_empty() {
                assert!(listing.next_window(window).unwrap().is_empty(), "it stays at the end");
                return found;
            }
            assert!(names.len() <= window);
            found.extend(names.iter().map(<[u8]>::to_vec));
        }
    }

    proptest! {
        /// Wherever the names are, in runs of any length and windows of any length.
        #[test]
        fn all_names_come_in_order_and_once(
            names in prop::collection::vec(prop::collection::vec(97..100_u8, 1..6), 0..200),
            run_len in 1..64_usize,
            window in 1..64_usize,
        ) {
            let expected: Vec<_> = names.iter().cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
            let folder = tempfile::tempdir().unwrap();
            for place in [Some(folder.path().to_owned()), Some("/no/such/place".into()), None] {
                let spill = Spill { place, run_len };
                prop_assert_eq!(&all(listing(&names, &spill), window), &expected);
                prop_assert_eq!(listing(&names, &spill).len(), names.len());
            }
            prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn long_names_and_odd_bytes_survive_the_file() {
        let names: Vec<Vec<u8>> = (0..=255_u8).map(|n| vec![n; 1 + usize::from(n) * 4]).collect();
        let spill = Spill { place: Some(std::env::temp_dir()), run_len: 7 };
        let listed = listing(&names, &spill);
        assert_eq!(listed.contains(b"x"), None, "nobody knows without asking");
        assert!(all(listed, 10) == names);
    }

    #[test]
    fn a_run_ends_with_its_weight_as_well() {
        let names: Vec<Vec<u8>> = (0..9000_u32).map(|n| format!("{n:0255}").into_bytes()).collect();
        let listed = listing(&names, &Spill::default());
        assert!(matches!(&listed.names, Remaining::Merged(names) if names.runs().count() == 2));
        assert!(all(listed, 1000) == names);
    }
}
