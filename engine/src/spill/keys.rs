//! Keys of one length, sorted as they come, however many there are.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use crate::spill::SpillError;
use crate::spill::merge::{Merge, Run};
use crate::spill::unnamed::{RunFile, Section};

/// Bytes of a run that are read at once: of many runs fewer, so that they take no more than the keys did before.
const READ_LEN_MAX: usize = 256 << 10;
const READ_LEN_MIN: usize = 4 << 10;

/// Sorts keys of `N` bytes. Those that do not fit into its memory wait in a temporary file.
#[derive(Debug)]
pub(crate) struct KeySorter<const N: usize> {
    place: Option<PathBuf>,
    /// Keys in memory, at most.
    limit: usize,
    keys: Vec<[u8; N]>,
    /// Those in the file.
    runs: Vec<Section>,
    file: Option<RunFile>,
}

impl<const N: usize> KeySorter<N> {
    /// One that takes about `memory` bytes; the others go into a file in the directory `place`, which gets no name there and is
    /// made when it is needed. Without a place all keys are in memory, whatever they take.
    pub fn new(place: Option<PathBuf>, memory: u64) -> Self {
        let fitting = usize::try_from(memory / N as u64).unwrap_or(usize::MAX).max(1);
        let limit = if place.is_some() { fitting } else { usize::MAX };
        Self { place, limit, keys: Vec::new(), runs: Vec::new(), file: None }
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`SpillError`] where keys cannot be written to the file. Those that were added before are lost then.
    pub fn push(&mut self, key: [u8; N]) -> Result<(), SpillError> {
        if self.keys.len() >= self.limit {
            self.sort();
            // Where they are the same again and again, there is room now.
            if self.keys.len() > self.limit / 2 {
                self.end_run()?;
            }
        }
        self.keys.push(key);
        Ok(())
    }

    fn sort(&mut self) {
        self.keys.sort_unstable();
        self.keys.dedup();
    }

    /// Writes the keys in memory, which are sorted.
    fn end_run(&mut self) -> Result<(), SpillError> {
        let place = self.place.as_ref().expect("without a place there is no limit");
        let write = |file: &mut Option<RunFile>| {
            let file = match file {
                Some(file) => file,
                None => file.insert(RunFile::new(place)?),
            };
            file.write(self.keys.as_flattened())
        };
        let run = write(&mut self.file).map_err(|problem| SpillError { place: place.clone(), problem })?;
        self.runs.push(run);
        self.keys.clear();
        Ok(())
    }

    /// All keys that were added since the last time, ascending and each once.
    ///
    /// # Errors
    /// [`SpillError`] where the file cannot be written or read.
    pub fn finish(&mut self) -> Result<Sorted<N>, SpillError> {
        self.sort();
        let place = match &self.place {
            Some(place) if !self.runs.is_empty() => place.clone(),
            _ => return Ok(Sorted::Held(std::mem::take(&mut self.keys).into_iter())),
        };
        self.end_run()?;
        (self.keys, self.file) = (Vec::new(), None);
        let read_len = (self.limit * N / self.runs.len()).clamp(READ_LEN_MIN, READ_LEN_MAX);
        let runs = self.runs.drain(..).map(|run| KeyRun(BufReader::with_capacity(read_len, run)));
        match Merge::new(runs, || [0; N]) {
            Ok(keys) => Ok(Sorted::Merged { keys, last: None, place }),
            Err(problem) => Err(SpillError { place, problem }),
        }
    }
}

/// Keys of a temporary file.
#[derive(Debug)]
pub(crate) struct KeyRun<const N: usize>(BufReader<Section>);

impl<const N: usize> Run for KeyRun<N> {
    type Item = [u8; N];

    fn next_into(&mut self, key: &mut [u8; N]) -> io::Result<bool> {
        if self.0.fill_buf()?.is_empty() {
            return Ok(false);
        }
        self.0.read_exact(key)?;
        Ok(true)
    }
}

/// Keys in ascending order, each once. After an error there is no order any more.
#[derive(Debug)]
pub(crate) enum Sorted<const N: usize> {
    /// All are in memory.
    Held(std::vec::IntoIter<[u8; N]>),
    /// They are in a file in the directory `place`.
    Merged { keys: Merge<KeyRun<N>>, last: Option<[u8; N]>, place: PathBuf },
}

impl<const N: usize> Iterator for Sorted<N> {
    type Item = Result<[u8; N], SpillError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (keys, last, place) = match self {
            Self::Held(keys) => return keys.next().map(Ok),
            Self::Merged { keys, last, place } => (keys, last, place),
        };
        loop {
            let key = *keys.peek()?;
            if let Err(problem) = keys.step() {
                return Some(Err(SpillError { place: place.clone(), problem }));
            }
            if last.replace(key) != Some(key) {
                return Some(Ok(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::backend;

    fn all<const N: usize>(sorted: Sorted<N>) -> Vec<[u8; N]> {
        sorted.map(|key| key.expect("readable")).collect()
    }

    proptest! {
        /// However little fits into memory, with a file or without.
        #[test]
        fn all_keys_come_in_order_and_once(
            keys in prop::collection::vec(prop::array::uniform3(0..6_u8), 0..300),
            limit in 1..64_u64,
        ) {
            let expected: Vec<_> = keys.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            let folder = tempfile::tempdir().unwrap();
            for place in [None, Some(folder.path().to_owned())] {
                let mut sorter = KeySorter::new(place, limit * 3);
                // It can be used again.
                for _ in 0..2 {
                    for key in &keys {
                        sorter.push(*key).unwrap();
                        prop_assert!(sorter.place.is_none() || sorter.keys.len() as u64 <= limit);
                    }
                    prop_assert_eq!(&all(sorter.finish().unwrap()), &expected);
                }
            }
            prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_fits_makes_no_file_nor_does_the_same_again_and_again() {
        let mut sorter = KeySorter::new(Some("/no/such/place".into()), 100 * 8);
        for number in 0..10_000_u64 {
            sorter.push((number % 50).to_be_bytes()).unwrap();
        }
        let sorted = sorter.finish().unwrap();
        assert!(matches!(sorted, Sorted::Held(_)));
        assert!(all(sorted).into_iter().eq((0..50_u64).map(u64::to_be_bytes)));
    }

    #[test]
    fn storage_that_takes_no_file_is_named_and_is_not_the_repository() {
        let mut sorter = KeySorter::new(Some("/no/such/place".into()), 100 * 8);
        let pushed: Result<(), SpillError> =
            (0..101_u64).try_for_each(|number| sorter.push(number.to_be_bytes()));
        let error = pushed.unwrap_err();
        assert!(error.to_string().contains("in \"/no/such/place\": No such file"), "{error}");
        let full = SpillError { problem: io::ErrorKind::StorageFull.into(), ..error };
        assert!(!backend::is_out_of_room(&full), "no room in the repository is to be given back for it");
    }
}
