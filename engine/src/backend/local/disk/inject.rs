//! Calls that change a repository on disk, and fail when a test wants it: before they have done anything, or in the middle of a write.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Create,
    /// One that fails has written half of the bytes.
    Append,
    Sync,
    MakeFolder,
    Name,
    Remove,
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One: the disk is broken.
    Broken,
    /// One that takes room, and all after it: the disk is full.
    Full,
}

#[derive(Debug)]
struct Fault {
    root: PathBuf,
    way: Way,
    /// Calls to let through.
    skip: u64,
    fired: u64,
}

/// Folders in which calls fail.
static FAULTS: Mutex<Vec<Fault>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<Fault>> {
    FAULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes calls below a folder fail until it is asked whether any did.
#[derive(Debug)]
pub struct Injected {
    root: PathBuf,
}

impl Injected {
    /// Fails the `n`-th call below `root`, counted from 1.
    pub fn begin(root: &Path, way: Way, n: u64) -> Self {
        let root = root.canonicalize().expect("a folder");
        let skip = n.checked_sub(1).expect("calls are counted from 1");
        lock().push(Fault { root: root.clone(), way, skip, fired: 0 });
        Self { root }
    }

    /// Ends it; how many calls have failed.
    pub fn end(self) -> u64 {
        let mut faults = lock();
        let at = faults.iter().position(|fault| fault.root == self.root).expect("it was begun");
        faults.swap_remove(at).fired
    }
}

/// Whether a call `at` a file or folder is to fail.
pub fn strike(at: &impl AsFd, call: Call) -> Option<Errno> {
    let mut faults = lock();
    if faults.is_empty() {
        return None;
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", at.as_fd().as_raw_fd())).ok()?;
    let fault = faults.iter_mut().find(|fault| path.starts_with(&fault.root))?;
    let takes_room = !matches!(call, Call::Sync | Call::Remove);
    if fault.way == Way::Full && !takes_room {
        return None;
    }
    if fault.skip > 0 {
        fault.skip -= 1;
        return None;
    }
    if fault.way == Way::Broken && fault.fired > 0 {
        return None;
    }
    fault.fired += 1;
    Some(if fault.way == Way::Full { Errno::NOSPC } else { Errno::IO })
}
