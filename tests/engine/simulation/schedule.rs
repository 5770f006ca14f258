//! Whose turn it is, and what goes wrong.
//!
//! Every process of a simulation is a thread, and at each operation on the storage it stops and waits for its turn. Turns
//! are given only when everybody waits, so at any time one process runs. Who it is, and whether the operation fails, is
//! late, or is the last thing the process does, follows from the seed.
//!
//! The engine's own threads within an operation are not scheduled: whichever of a process's threads comes to the storage
//! takes its process's turn. That is the same order each time as long as not two of them are there at once, and with one
//! thread per operation they are not (see the module above for the exception).

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strongroom::backend::testing::Operation;
use strongroom::backend::{Backend, MemoryBackend, ObjectKey};

use super::events;
use super::random::Random;

/// Longest real time that a process is waited for: far more than any operation takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// More turns than any seed takes: one that gets there goes round in circles.
const TURNS_MAX: u64 = 200_000;

/// In one backup of so many somebody seems to have died before.
const LEFT_BEHIND_EVERY: u64 = 3;

/// Of each kind of mishap there are fewer than so many.
const MISHAPS: u64 = 4;

/// Turns within which what is to go wrong does so.
const TURNS_WITH_MISHAPS: u64 = 400;

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It succeeds.
    Done,
    /// It has no effect, and the caller is told that it failed.
    Failed,
    /// It has taken effect, but the caller is told that it failed.
    AnswerLost,
    /// The caller is told that it failed; it takes effect some turns later.
    Late,
    /// The process ends before it.
    CrashedBefore,
    /// The process ends when it has taken effect.
    CrashedAfter,
    /// The process has ended already.
    Dead,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    process: usize,
    operation: Operation,
    key: Option<ObjectKey>,
    fate: Fate,
}

impl Turn {
    /// What became of it.
    pub fn fate(&self) -> Fate {
        self.fate
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.key.as_ref().map_or("", |key| key.as_str());
        let what = &what[..what.len().min(28)];
        write!(f, "process {}: {:?} {what}", self.process, self.operation)?;
        if self.fate == Fate::Done { Ok(()) } else { write!(f, " -> {:?}", self.fate) }
    }
}

/// An operation on its way that nobody waits for any more.
pub enum Delayed {
    Create(ObjectKey, Vec<u8>),
    Replace(ObjectKey, Vec<u8>),
    Delete(ObjectKey),
}

#[derive(Debug, Clone, Copy)]
enum Mishap {
    Crash,
    Fault,
}

#[derive(Debug, Default)]
struct Process {
    /// Its threads that wait for a turn.
    waiting: usize,
    has_turn: bool,
    is_dead: bool,
    is_done: bool,
    /// What went wrong for it so far.
    mishaps: u64,
}

struct State {
    random: Random,
    processes: Vec<Process>,
    running: Option<usize>,
    /// Who ran last, and for about how many turns one runs.
    last: Option<usize>,
    pace: u64,
    /// By turn, the next one last.
    to_come: Vec<(u64, Mishap)>,
    delayed: Vec<(u64, Delayed)>,
    turns: Vec<Turn>,
    stuck: bool,
}

/// The order of everything in one simulation.
pub struct Schedule {
    storage: MemoryBackend,
    state: Mutex<State>,
    turn: Vec<Condvar>,
}

impl Schedule {
    /// For so many processes on this storage.
    pub fn new(seed: u64, processes: usize, storage: MemoryBackend) -> Self {
        let mut random = Random::new(seed, 1);
        let pace = random.pick(&[1, 2, 8, 32]);
        let mut to_come = Vec::new();
        for mishap in [Mishap::Crash, Mishap::Fault] {
            for _ in 0..random.below(MISHAPS) {
                to_come.push((random.below(TURNS_WITH_MISHAPS), mishap));
            }
        }
        to_come.sort_by_key(|(turn, _)| std::cmp::Reverse(*turn));
        let state = State {
            random,
            processes: (0..processes).map(|_| Process::default()).collect(),
            running: None,
            last: None,
            pace,
            to_come,
            delayed: Vec::new(),
            turns: Vec::new(),
            stuck: false,
        };
        let turn = (0..processes).map(|_| Condvar::new()).collect();
        Self { storage, state: Mutex::new(state), turn }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the process's turn and says what is to become of its operation.
    pub fn enter(&self, process: usize, operation: Operation, key: Option<&ObjectKey>) -> Fate {
        let mut state = self.lock();
        if state.running == Some(process) {
            state.running = None;
        }
        state.processes[process].waiting += 1;
        self.give_turn(&mut state);
        loop {
            let own = &mut state.processes[process];
            if own.is_dead {
                own.waiting -= 1;
                return Fate::Dead;
            }
            if own.has_turn {
                own.has_turn = false;
                own.waiting -= 1;
                break;
            }
            let (next, timeout) =
                self.turn[process].wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() || state.turns.len() as u64 > TURNS_MAX {
                self.give_up(&mut state);
            }
        }
        let fate = state.fate(process, operation);
        state.turns.push(Turn { process, operation, key: key.cloned(), fate });
        if matches!(fate, Fate::CrashedBefore | Fate::CrashedAfter) {
            state.processes[process].is_dead = true;
            self.turn[process].notify_all();
        }
        fate
    }

    /// The process has come to its end.
    pub fn leave(&self, process: usize) {
        let mut state = self.lock();
        state.processes[process].is_done = true;
        if state.running == Some(process) {
            state.running = None;
        }
        self.give_turn(&mut state);
    }

    /// Lets an operation take effect some turns from now.
    pub fn delay(&self, delayed: Delayed) {
        let mut state = self.lock();
        let due = state.turns.len() as u64 + 1 + state.random.below(80);
        state.delayed.push((due, delayed));
    }

    /// Lets everything take effect that is still on its way.
    pub fn settle(&self) {
        let mut state = self.lock();
        self.land(&mut state, u64::MAX);
    }

    /// Whether whoever has the turn is to find something that looks as if its writer had died.
    pub fn seems_left_behind(&self) -> bool {
        self.lock().random.below(LEFT_BEHIND_EVERY) == 0
    }

    /// Whether the process has ended for good.
    pub fn is_dead(&self, process: usize) -> bool {
        self.lock().processes[process].is_dead
    }

    /// What went wrong for the process so far.
    pub fn mishaps(&self, process: usize) -> u64 {
        self.lock().processes[process].mishaps
    }

    /// Whether somebody was waited for in vain.
    pub fn is_stuck(&self) -> bool {
        self.lock().stuck
    }

    /// All turns so far.
    pub fn turns(&self) -> Vec<Turn> {
        self.lock().turns.clone()
    }

    /// Gives somebody the turn, if everybody waits.
    fn give_turn(&self, state: &mut State) {
        let live = |process: &&Process| !process.is_done && !process.is_dead;
        if state.running.is_some() || state.processes.iter().filter(live).any(|process| process.waiting == 0)
        {
            return;
        }
        let waiting: Vec<usize> = (0..state.processes.len())
            .filter(|at| !state.processes[*at].is_done && !state.processes[*at].is_dead)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let now = state.turns.len() as u64;
        self.land(state, now);
        // Whoever has run goes on for a while: that others do much between two steps of one is what errors need.
        let stays = state.last.filter(|last| waiting.contains(last) && state.random.below(state.pace) > 0);
        let next = stays.unwrap_or_else(|| state.random.pick(&waiting));
        state.running = Some(next);
        state.last = Some(next);
        state.processes[next].has_turn = true;
        self.turn[next].notify_all();
    }

    fn land(&self, state: &mut State, now: u64) {
        let (due, later) = std::mem::take(&mut state.delayed).into_iter().partition(|(due, _)| *due <= now);
        state.delayed = later;
        let due: Vec<(u64, Delayed)> = due;
        for (_, delayed) in due {
            events::saw("late and in effect");
            match delayed {
                Delayed::Create(key, bytes) => {
                    self.storage.create(&key, &bytes).expect("memory takes everything");
                }
                Delayed::Replace(key, bytes) => {
                    self.storage.replace(&key, &bytes).expect("memory holds everything");
                }
                Delayed::Delete(key) => self.storage.delete(&key).expect("memory deletes everything"),
            }
        }
    }

    /// Ends all processes, so that the test can tell what happened.
    fn give_up(&self, state: &mut State) {
        state.stuck = true;
        for (process, turn) in state.processes.iter_mut().zip(&self.turn) {
            process.is_dead = true;
            turn.notify_all();
        }
    }
}

impl State {
    /// What becomes of the operation whose turn it is.
    fn fate(&mut self, process: usize, operation: Operation) -> Fate {
        let now = self.turns.len() as u64;
        let Some((_, mishap)) = self.to_come.pop_if(|(turn, _)| *turn <= now) else { return Fate::Done };
        self.processes[process].mishaps += 1;
        match (mishap, operation.is_mutation()) {
            (Mishap::Crash, true) => self.random.pick(&[Fate::CrashedBefore, Fate::CrashedAfter]),
            (Mishap::Crash, false) => Fate::CrashedBefore,
            (Mishap::Fault, true) => self.random.pick(&[Fate::Failed, Fate::AnswerLost, Fate::Late]),
            (Mishap::Fault, false) => Fate::Failed,
        }
    }
}
