//! Whose turn it is to run what is due. Timers may start several such runs in one minute, or the next while one is at work:
//! one is at work, one waits, and all others have nothing to add.

use std::io;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use crate::run::lock::{Holder, Lock, Taken};
use crate::run::state::State;

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
    /// Waits until no other run is at work on what is due. If there is one, `tell` is called with what is known of it.
    ///
    /// # Errors
    /// Where a lock cannot be made.
    pub fn turn(
        &self,
        now: &dyn Fn() -> Timestamp,
        is_cancelled: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(&Holder),
    ) -> io::Result<Turn> {
        // No names of domains: those of their files all have an end.
        let (at_work, waiting) = (self.path("due-at-work"), self.path("due-waiting"));
        let take = || {
            let mut taken = Lock::take(&at_work)?;
            if let Taken::Mine(lock) = &mut taken {
                lock.say(now());
            }
            io::Result::Ok(taken)
        };
        let holder = match take()? {
            Taken::Mine(lock) => return Ok(Turn::Mine(lock)),
            Taken::Held(holder) => holder,
        };
        let Some(_place) = Lock::take(&waiting)?.mine() else { return Ok(Turn::AnotherWaits) };
        tell(&holder);
        loop {
            if is_cancelled() {
                return Ok(Turn::Cancelled);
            }
            if let Taken::Mine(lock) = take()? {
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
        let now = || Timestamp::UNIX_EPOCH;
        let Turn::Mine(first) = state.turn(&now, &go_on, &mut |_| panic!("it waits")).expect("a lock") else {
            panic!("nobody else is there");
        };
        let cancelled = state.turn(&now, &|| true, &mut |_| {}).expect("a lock");
        assert!(matches!(cancelled, Turn::Cancelled));
        let (told, waits) = mpsc::channel();
        let waiter = {
            let state = state.clone();
            thread::spawn(move || {
                state.turn(&now, &|| false, &mut |holder| told.send(*holder).expect("heard"))
            })
        };
        let holder = Holder { process: Some(std::process::id()), since: Some(now()) };
        assert_eq!(waits.recv().expect("told"), holder);
        assert!(matches!(state.turn(&now, &go_on, &mut |_| {}).expect("a lock"), Turn::AnotherWaits));
        drop(first);
        let second = waiter.join().expect("no panic").expect("a lock");
        assert!(matches!(second, Turn::Mine(_)));
        drop(second);
        assert!(matches!(state.turn(&now, &go_on, &mut |_| {}).expect("a lock"), Turn::Mine(_)));
    }
}
