//! A backend that loses power: what survives is what its guarantees promise, and no more.
//!
//! The live state is what callers see. The durable state differs from it in two things only, and a test
//! goes through both possibilities of each ([`Outcome::ALL`]): the operation that was cut off may have
//! reached the disk or not, and deleted objects may come back, for no guarantee says that a delete is
//! durable. All else that returned survives, since `create` promises that.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{
    Backend, BackendError, Buffered, Created, Folder, MemoryBackend, ObjectInfo, ObjectKey, ObjectReader,
    Staged,
};
use super::Operation;

/// Whether the operation that was cut off took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    /// It did not.
    Lost,
    /// It did, although nobody was told.
    Done,
}

/// Whether deletes that returned are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletes {
    /// All are.
    Durable,
    /// None is: every deleted object is back.
    Undone,
}

/// One way in which a loss of power can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Of the operation that was cut off.
    pub in_flight: InFlight,
    /// Of earlier deletes.
    pub deletes: Deletes,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self { in_flight: InFlight::Lost, deletes: Deletes::Durable },
        Self { in_flight: InFlight::Lost, deletes: Deletes::Undone },
        Self { in_flight: InFlight::Done, deletes: Deletes::Durable },
        Self { in_flight: InFlight::Done, deletes: Deletes::Undone },
    ];
}

#[derive(Debug)]
enum CutOff {
    Create(ObjectKey, Arc<[u8]>),
    Replace(ObjectKey, Arc<[u8]>),
    Delete(ObjectKey),
}

#[derive(Debug, Default)]
struct State {
    /// Mutating operations so far, the one that was cut off included.
    mutations: u64,
    /// The mutating operation to cut off, by its number.
    stop_at: Option<u64>,
    cut_off: Option<CutOff>,
    /// What was deleted and not created again.
    deleted: BTreeMap<ObjectKey, Arc<[u8]>>,
}

/// Objects in memory that are cut off from power at a chosen operation.
#[derive(Debug)]
pub struct CrashBackend {
    live: MemoryBackend,
    state: Arc<Mutex<State>>,
}

impl CrashBackend {
    /// Begins with `storage`, all of which is durable, and works on it.
    pub fn new(storage: MemoryBackend) -> Self {
        Self { live: storage, state: Arc::default() }
    }

    /// Cuts off the `n`-th create or delete from now, counted from 1: it fails, and so does every call
    /// after it.
    pub fn stop_at(&self, n: u64) {
        let mut state = self.lock();
        state.stop_at = Some(state.mutations + n);
    }

    /// How many creates and deletes there were: a test runs once without a crash to learn how many places
    /// there are to stop at.
    pub fn mutations(&self) -> u64 {
        self.lock().mutations
    }

    /// Whether an operation has been cut off.
    pub fn is_stopped(&self) -> bool {
        self.lock().cut_off.is_some()
    }

    /// What is there when power returns. It shares nothing with this backend, so all outcomes can be had.
    pub fn crash(&self, outcome: Outcome) -> MemoryBackend {
        let state = self.lock();
        let survivors = self.live.snapshot();
        match (&state.cut_off, outcome.in_flight, outcome.deletes) {
            // As for every create: if an object is there already, it stays.
            (Some(CutOff::Create(key, bytes)), InFlight::Done, _) if survivors.stat(key).is_err() => {
                survivors.plant(key, bytes);
            }
            (Some(CutOff::Replace(key, bytes)), InFlight::Done, _) => survivors.plant(key, bytes),
            (Some(CutOff::Delete(key)), InFlight::Done, Deletes::Durable) => {
                survivors.delete(key).expect("memory does not fail");
            }
            _ => {}
        }
        if outcome.deletes == Deletes::Undone {
            for (key, bytes) in &state.deleted {
                // It may have been created again by the operation that was cut off: then either may be there.
                if survivors.stat(key).is_err() {
                    survivors.plant(key, bytes);
                }
            }
        }
        survivors
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Fails if power is gone.
    fn powered(&self, operation: Operation, what: &str) -> Result<MutexGuard<'_, State>, BackendError> {
        powered(&self.state, operation, what)
    }

    /// Counts a mutating operation; fails if power is gone or goes with this one.
    fn mutate(
        &self,
        operation: Operation,
        key: &ObjectKey,
        cut_off: impl FnOnce() -> CutOff,
    ) -> Result<MutexGuard<'_, State>, BackendError> {
        let mut state = self.powered(operation, key.as_str())?;
        state.mutations += 1;
        if state.stop_at == Some(state.mutations) {
            state.cut_off = Some(cut_off());
            return Err(no_power(operation, key.as_str()));
        }
        Ok(state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn powered<'s>(
    state: &'s Mutex<State>,
    operation: Operation,
    what: &str,
) -> Result<MutexGuard<'s, State>, BackendError> {
    let state = lock(state);
    if state.cut_off.is_some() { Err(no_power(operation, what)) } else { Ok(state) }
}

fn no_power(operation: Operation, what: &str) -> BackendError {
    BackendError::io(operation.verb(), what, io::Error::new(io::ErrorKind::BrokenPipe, "power is gone"))
}

impl Backend for CrashBackend {
    fn location(&self) -> String {
        self.live.location()
    }

    // The lock is not held while `visit` runs, so that it may use the backend.
    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        drop(self.powered(Operation::List, folder.name())?);
        self.live.list(folder, from, visit)
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError> {
        let _powered = self.powered(Operation::Stat, key.as_str())?;
        self.live.stat(key)
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        let _powered = self.powered(Operation::Read, key.as_str())?;
        self.live.read(key, limit)
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let _powered = self.powered(Operation::ReadRange, key.as_str())?;
        self.live.read_range(key, offset, buffer)
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        if !key.is_well_formed() {
            return Err(BackendError::malformed(key));
        }
        let mut state = self.mutate(Operation::Create, key, || CutOff::Create(key.clone(), bytes.into()))?;
        let created = self.live.create(key, bytes)?;
        state.deleted.remove(key);
        Ok(created)
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError> {
        if !key.is_well_formed() {
            return Err(BackendError::malformed(key));
        }
        let mut state =
            self.mutate(Operation::Replace, key, || CutOff::Replace(key.clone(), bytes.into()))?;
        self.live.replace(key, bytes)?;
        state.deleted.remove(key);
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        let mut state = self.mutate(Operation::Delete, key, || CutOff::Delete(key.clone()))?;
        if let Ok(bytes) = self.live.read(key, u64::MAX) {
            state.deleted.insert(key.clone(), bytes.into());
        }
        self.live.delete(key)
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        let _powered = self.powered(Operation::Open, key.as_str())?;
        let (inner, state) = (self.live.open(key, limit)?, Arc::clone(&self.state));
        Ok(Box::new(CrashReader { inner, key: key.clone(), state }))
    }

    // Parts of an object are lost with the power: nothing of them is to be seen in any outcome.
    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        drop(self.powered(Operation::Stage, "a new object")?);
        Ok(Box::new(Buffered::new(self)))
    }
}

/// An open object, as long as there is power.
#[derive(Debug)]
struct CrashReader {
    inner: Box<dyn ObjectReader>,
    key: ObjectKey,
    state: Arc<Mutex<State>>,
}

impl ObjectReader for CrashReader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let _powered = powered(&self.state, Operation::ReadRange, self.key.as_str())?;
        self.inner.read_at(offset, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    fn key(n: u64) -> ObjectKey {
        ObjectKey::log(n)
    }

    /// Sequence numbers of what survives in each outcome, in the order of [`Outcome::ALL`].
    fn survivors(backend: &CrashBackend) -> [Vec<u64>; 4] {
        Outcome::ALL.map(|outcome| {
            let objects = backend.crash(outcome).objects();
            objects.iter().map(|(key, _)| key.sequence().expect("a log key")).collect()
        })
    }

    #[test]
    fn conforms_while_there_is_power() {
        conformance::check(|| Box::new(CrashBackend::new(MemoryBackend::new())));
    }

    #[test]
    fn a_create_cut_off_may_be_there_or_not() {
        let backend = CrashBackend::new(MemoryBackend::new());
        backend.stop_at(2);
        backend.create(&key(1), b"1").expect("before the crash");
        let open = backend.open(&key(1), 9).expect("opened before the crash");
        let mut staged = backend.begin().expect("begun before the crash");
        staged.write(b"2").expect("written before the crash");
        staged.publish(&key(2)).expect_err("cut off");
        backend.read(&key(1), 9).expect_err("no power");
        open.read_at(0, &mut [0]).expect_err("no power");
        assert!(backend.begin().is_err(), "no power");
        backend.create(&key(3), b"3").expect_err("no power");
        assert!(backend.is_stopped());
        assert_eq!(backend.mutations(), 2);
        assert_eq!(survivors(&backend), [vec![1], vec![1], vec![1, 2], vec![1, 2]]);
    }

    #[test]
    fn deleted_objects_may_come_back() {
        let backend = CrashBackend::new(MemoryBackend::new());
        for n in 1..=3 {
            backend.create(&key(n), b"x").expect("created");
        }
        backend.stop_at(2);
        backend.delete(&key(1)).expect("deleted");
        backend.delete(&key(2)).expect_err("cut off");
        assert_eq!(survivors(&backend), [vec![2, 3], vec![1, 2, 3], vec![3], vec![1, 2, 3]]);
    }

    #[test]
    fn a_replaced_object_is_one_or_the_other() {
        let backend = CrashBackend::new(MemoryBackend::new());
        backend.create(&key(1), b"old").expect("created");
        backend.replace(&key(1), b"new").expect("replaced");
        backend.stop_at(1);
        backend.replace(&key(1), b"newer").expect_err("cut off");
        let found = Outcome::ALL.map(|outcome| backend.crash(outcome).read(&key(1), 9).expect("there"));
        assert_eq!(found, [&b"new"[..], b"new", b"newer", b"newer"].map(<[u8]>::to_vec));
    }

    #[test]
    fn a_cut_off_create_replaces_nothing_and_a_second_one_is_final() {
        let backend = CrashBackend::new(MemoryBackend::new());
        backend.create(&key(1), b"old").expect("created");
        backend.delete(&key(1)).expect("deleted");
        backend.create(&key(1), b"new").expect("created again");
        backend.stop_at(1);
        backend.create(&key(1), b"other").expect_err("cut off");
        for outcome in Outcome::ALL {
            assert_eq!(backend.crash(outcome).read(&key(1), 9).expect("there"), b"new", "{outcome:?}");
        }
    }
}
