//! Records of what was done, a line of JSON each, in files of the state folder that do not grow for ever.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::run::state::{State, write_whole};

/// Length at which the older half is dropped.
pub(super) const LEN_MAX: u64 = 4 << 20;

impl State {
    /// Waits until nobody else changes a file that several runs change; several may end at one time.
    ///
    /// # Errors
    /// Where the lock cannot be had.
    pub(crate) fn alone(&self) -> io::Result<File> {
        // No name of a domain's file.
        let guard = File::create(self.path("records-lock"))?;
        flock(&guard, FlockOperation::LockExclusive)?;
        Ok(guard)
    }

    /// Adds a record to a file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn append(&self, name: &str, record: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let _alone = self.alone()?;
        let path = self.path(name);
        let mut file = File::options().create(true).read(true).append(true).mode(0o600).open(&path)?;
        if !ends_with_line(&mut file)? {
            // Half a line, as after a power cut, is lost by itself, and not with what comes next.
            line.insert(0, b'\n');
        }
        file.write_all(&line)?;
        // What it was made from is removed next: a run's lock, a recovery's journal.
        file.sync_data()?;
        if file.metadata()?.len() > LEN_MAX {
            let mut all = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut all)?;
            let half = all.len() / 2;
            let from = all[half..].iter().position(|byte| *byte == b'\n').map_or(half, |end| half + end + 1);
            write_whole(&path, &all[from..])?;
        }
        Ok(())
    }

    /// All records of a file, in their order. A line that is not whole is passed over.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub(crate) fn records<T: DeserializeOwned>(&self, name: &str) -> io::Result<Vec<T>> {
        let bytes = match std::fs::read(self.path(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

/// Whether nothing, or a whole line, is at the end of a file.
fn ends_with_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
