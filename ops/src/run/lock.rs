//! Locks that say who holds them. A process that dies gives them back; what it has written into them counts for nothing then.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// As long as it lives, nobody else has what it is for.
#[derive(Debug)]
pub struct Lock {
    files: Vec<File>,
}

/// Who has it, as far as that is known: a lock that was taken just now says nothing yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The number of the process, as it sees itself.
    pub process: Option<u32>,
    /// When it began.
    pub since: Option<Timestamp>,
}

/// What came of taking a lock.
#[derive(Debug)]
pub enum Taken {
    /// It is this process's.
    Mine(Lock),
    /// Another one has it.
    Held(Holder),
}

impl Lock {
    /// Takes the lock in a file, which is made.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(crate) fn take(path: &Path) -> io::Result<Taken> {
        let options = File::options().create(true).truncate(false).write(true).mode(0o600).clone();
        let file = options.open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Taken::Mine(Self { files: vec![file] })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Taken::Held(Holder::of(path))),
            Err(error) => Err(error.into()),
        }
    }

    /// Holds another one with it.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.files.append(&mut other.files);
    }

    /// Tells others who holds it. That it cannot be written keeps nobody from work.
    pub(crate) fn say(&mut self, since: Timestamp) {
        let holder = Holder { process: Some(std::process::id()), since: Some(since) };
        let said = serde_json::to_vec(&holder).unwrap_or_default();
        for file in &mut self.files {
            let _ = file.set_len(0).and_then(|()| file.write_all(&said));
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = file.set_len(0);
            // Not by closing it: a process that another thread is just about to start has it open, too, for a moment.
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

impl Holder {
    fn of(path: &Path) -> Self {
        fs::read(path).ok().and_then(|said| serde_json::from_slice(&said).ok()).unwrap_or_default()
    }
}

impl Taken {
    /// The lock, if it is this process's.
    pub fn mine(self) -> Option<Lock> {
        match self {
            Self::Mine(lock) => Some(lock),
            Self::Held(_) => None,
        }
    }
}

/// As it goes on after what it is about: ` since 2026-11-28 02:15 UTC (process 4711)`.
impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(since) = self.since {
            write!(out, " since {}", since.strftime("%Y-%m-%d %H:%M UTC"))?;
        }
        if let Some(process) = self.process {
            write!(out, " (process {process})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_a_lock_taken_is_told_by_whom() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let take = || Lock::take(&path).expect("a lock");
        let Taken::Mine(mut lock) = take() else { panic!("nobody has it") };
        let Taken::Held(unknown) = take() else { panic!("it is taken") };
        assert_eq!((unknown, unknown.to_string()), (Holder::default(), String::new()));
        lock.say("2026-11-28T02:15:30Z".parse().expect("a time"));
        let Taken::Held(holder) = take() else { panic!("it is taken") };
        assert_eq!(
            holder.to_string(),
            format!(" since 2026-11-28 02:15 UTC (process {})", std::process::id())
        );
        let open_elsewhere = lock.files[0].try_clone().expect("as a process has it that is being started");
        drop(lock);
        assert_eq!(fs::read(&path).expect("a file"), b"", "the next one is not taken for this one");
        assert!(take().mine().is_some());
        drop(open_elsewhere);
    }
}
