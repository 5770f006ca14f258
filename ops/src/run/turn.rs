//! Whose turn it is to run what is due. Timers may start several such runs in one minute, or the next while one is at work:
//! one is at work, one waits, and all others have nothing to add.

use std::io;
use std::thread;
use std::time::Duration;

use crate::run::state::{Lock, State};

/// Time between two looks at a lock.
pub(super) const STEP: Duration = Duration::from_millis(100);

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn {
    /// This run's, as long as the lock lives.
    Mine(Lock),
    /// Another run waits for its turn already, and will ask what is due then.
    AnotherWaits,
    /// The run was cancelled while it waited.
    Cancelled,
}

impl State {
    /// Waits until no other run is at work on what is due. `tell` is called if there is one.
    ///
    /// # Errors
    /// Where a lock cannot be made.
    pub fn turn(&self, is_cancelled: &dyn Fn() -> bool, tell: &mut dyn FnMut()) -> io::Result<Turn> {
        // No names of domains: those of their files all have an end.
        let (at_work, waiting) = (self.path("due-at-work"), self.path("due-waiting"));
        if let Some(lock) = Self::lock_file(&at_work)? {
            return Ok(Turn::Mine(lock));
        }
        let Some(_place) = Self::lock_file(&waiting)? else { return Ok(Turn::AnotherWaits) };
        tell();
        loop {
            if is_cancelled() {
                return Ok(Turn::Cancelled);
            }
            if let Some(lock) = Self::lock_file(&at_work)? {
                return Ok(Turn::Mine(lock));
            }
            thread::sleep(STEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_is_at_work_one_waits_and_the_others_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        let go_on = || false;
        let Turn::Mine(first) = state.turn(&go_on, &mut || panic!("it waits")).expect("a lock") else {
            panic!("nobody else is there");
        };
        let cancelled = state.turn(&|| true, &mut || {}).expect("a lock");
        assert!(matches!(cancelled, Turn::Cancelled));
        let (told, waits) = mpsc::channel();
        let waiter = {
            let state = state.clone();
            thread::spawn(move || state.turn(&|| false, &mut || told.send(()).expect("heard")))
        };
        waits.recv().expect("told");
        assert!(matches!(state.turn(&go_on, &mut || {}).expect("a lock"), Turn::AnotherWaits));
        drop(first);
        let second = waiter.join().expect("no panic").expect("a lock");
        assert!(matches!(second, Turn::Mine(_)));
        drop(second);
        assert!(matches!(state.turn(&go_on, &mut || {}).expect("a lock"), Turn::Mine(_)));
    }
}
