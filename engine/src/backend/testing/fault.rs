//! A backend whose operations fail when told to: before or after they have taken effect, once or for good.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{
    Backend, BackendError, Created, Folder, ObjectInfo, ObjectKey, ObjectReader, Staged, forward_backend,
};
use super::Operation;

/// When a failing operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing has happened.
    Before,
    /// It has taken effect, but the caller is told otherwise: an ambiguous outcome, such as a lost answer.
    After,
    /// Of bytes that were to be written, some are.
    Halfway,
}

/// Which operations a fault counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matching {
    Any,
    Mutations,
    Reads,
    Looks,
    /// What takes room.
    Writes,
    /// What makes something durable.
    Flushes,
    Only(Operation),
}

/// The error of an operation that fails.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Kind(io::ErrorKind),
    /// Of the system, by its number.
    System(i32),
    /// It is there, but was not flushed.
    Flush,
}

impl Failure {
    fn error(self, operation: Operation, on: On<'_>) -> BackendError {
        let source = match self {
            Self::Kind(kind) => io::Error::new(kind, "injected fault"),
            Self::System(number) => io::Error::from_raw_os_error(number),
            Self::Flush => io::Error::from_raw_os_error(super::super::EIO),
        };
        match (self, on) {
            (Self::Flush, On::Key(key)) if operation != Operation::Flush => {
                BackendError::NotDurable { key: key.clone(), what: "its folder".to_owned(), source }
            }
            _ => BackendError::io(operation.verb(), on, source),
        }
    }
}

/// The error number of a disk without room.
const ENOSPC: i32 = 28;

/// What an operation is on.
#[derive(Clone, Copy)]
enum On<'a> {
    Key(&'a ObjectKey),
    Folder(Folder),
    /// An object that has no name yet.
    New,
}

impl On<'_> {
    fn folder(self) -> Option<Folder> {
        match self {
            Self::Key(key) => key.folder(),
            Self::Folder(folder) => Some(folder),
            Self::New => None,
        }
    }
}

impl std::fmt::Display for On<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key(key) => key.as_str(),
            Self::Folder(folder) => folder.name(),
            Self::New => "a new object",
        })
    }
}

/// One failure to come. Made by [`Fault::nth`] and its like, then refined.
#[derive(Debug, Clone)]
pub struct Fault {
    matching: Matching,
    folder: Option<Folder>,
    key: Option<ObjectKey>,
    /// Operations to let through before failing.
    skip: u64,
    failure: Failure,
    moment: Moment,
    /// Whether every later call of any kind fails too.
    stops: bool,
    /// Whether every later call that matches fails too.
    lasts: bool,
}

impl Fault {
    /// Fails the `n`-th operation from now, counted from 1, with an error of `kind`.
    pub fn nth(n: u64, kind: io::ErrorKind) -> Self {
        Self::new(Matching::Any, n, kind)
    }

    /// Fails the `n`-th `operation` from now, counted from 1.
    pub fn nth_of(operation: Operation, n: u64, kind: io::ErrorKind) -> Self {
        Self::new(Matching::Only(operation), n, kind)
    }

    /// Fails the `n`-th create or delete from now, counted from 1.
    pub fn nth_mutation(n: u64, kind: io::ErrorKind) -> Self {
        Self::new(Matching::Mutations, n, kind)
    }

    /// A disk cannot read this object any more.
    pub fn unreadable(key: &ObjectKey) -> Self {
        let fault = Self::new(Matching::Reads, 1, io::ErrorKind::Other).lasting();
        Self { key: Some(key.clone()), failure: Failure::System(super::super::EIO), ..fault }
    }

    /// A disk cannot find out any more where the bytes of this object lie.
    pub fn unopenable(key: &ObjectKey) -> Self {
        Self { matching: Matching::Looks, ..Self::unreadable(key) }
    }

    /// The disk fails at the `n`-th operation from now, counted from 1: nothing was done.
    pub fn broken(n: u64) -> Self {
        Self::new(Matching::Any, n, io::ErrorKind::Other).with(Failure::System(super::super::EIO))
    }

    /// There is no more room from the `n`-th operation on that takes any.
    pub fn full(n: u64) -> Self {
        Self::new(Matching::Writes, n, io::ErrorKind::StorageFull).with(Failure::System(ENOSPC)).lasting()
    }

    /// The `n`-th piece of an object is written in part only, and there is no room for the rest.
    pub fn short(n: u64) -> Self {
        let fault = Self::new(Matching::Only(Operation::Stage), n, io::ErrorKind::StorageFull);
        Self { moment: Moment::Halfway, ..fault.with(Failure::System(ENOSPC)) }
    }

    /// What the `n`-th operation stores that makes something durable is there, and may be gone after a loss of power.
    pub fn unflushed(n: u64) -> Self {
        Self::new(Matching::Flushes, n, io::ErrorKind::Other).with(Failure::Flush).after_effect()
    }

    fn with(self, failure: Failure) -> Self {
        Self { failure, ..self }
    }

    fn new(matching: Matching, n: u64, kind: io::ErrorKind) -> Self {
        let skip = n.checked_sub(1).expect("operations are counted from 1");
        let (failure, moment) = (Failure::Kind(kind), Moment::Before);
        Self { matching, folder: None, key: None, skip, failure, moment, stops: false, lasts: false }
    }

    /// Counts and fails only operations on this folder.
    pub fn in_folder(self, folder: Folder) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// Fails after the operation has taken effect.
    pub fn after_effect(self) -> Self {
        Self { moment: Moment::After, ..self }
    }

    /// Fails every later operation of the same kind too, at the same moment.
    pub fn lasting(self) -> Self {
        Self { lasts: true, ..self }
    }

    /// Fails every later operation of any kind too, without effect: the process was killed at this one.
    pub fn stopping(self) -> Self {
        Self { stops: true, ..self }
    }

    fn matches(&self, operation: Operation, on: On<'_>) -> bool {
        let operation_matches = match self.matching {
            Matching::Any => true,
            Matching::Mutations => operation.is_mutation(),
            Matching::Reads => matches!(operation, Operation::Read | Operation::ReadRange),
            Matching::Looks => !operation.is_mutation(),
            Matching::Writes => {
                matches!(operation, Operation::Create | Operation::Replace | Operation::Stage)
            }
            Matching::Flushes => {
                matches!(operation, Operation::Create | Operation::Replace | Operation::Flush)
            }
            Matching::Only(only) => operation == only,
        };
        let is_key = |key: &ObjectKey| matches!(on, On::Key(on) if on == key);
        operation_matches
            && (self.folder.is_none() || self.folder == on.folder())
            && self.key.as_ref().is_none_or(is_key)
    }
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    stopped: Option<Failure>,
    fired: u64,
    /// What failed first, in words.
    first: Option<String>,
}

/// The failures a [`FaultBackend`] has still to produce. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// Adds a failure.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Takes back all failures, also one that stopped everything.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.stopped = None;
    }

    /// How many operations have failed on purpose: a test makes sure that its fault was reached.
    pub fn fired(&self) -> u64 {
        self.lock().fired
    }

    /// The operation that failed first, and what it was on.
    pub fn first(&self) -> Option<String> {
        self.lock().first.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation and says whether and how it is to fail.
    fn strike(&self, operation: Operation, on: On<'_>) -> Option<(Moment, Failure)> {
        let mut state = self.lock();
        let mut hit = state.stopped.map(|failure| (Moment::Before, failure));
        let mut stopped = state.stopped;
        state.faults.retain_mut(|fault| {
            if hit.is_some() || !fault.matches(operation, on) {
                return true;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                return true;
            }
            hit = Some((fault.moment, fault.failure));
            stopped = fault.stops.then_some(fault.failure);
            fault.lasts
        });
        state.stopped = stopped;
        if hit.is_some() {
            state.fired += 1;
            state.first.get_or_insert_with(|| format!("{} {on}", operation.verb()));
        }
        hit
    }

    /// Makes a call unless it is to fail, and fails it afterwards if it is to fail then.
    fn run<T>(
        &self,
        operation: Operation,
        on: On<'_>,
        call: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let Some((moment, failure)) = self.strike(operation, on) else { return call() };
        if moment == Moment::After {
            call()?;
        }
        // An operation that moves no bytes has no middle.
        Err(failure.error(operation, on))
    }

    /// Writes a piece of an object, or a part of it if it is to fail halfway.
    fn run_write(
        &self,
        bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let Some((moment, failure)) = self.strike(Operation::Stage, On::New) else { return write(bytes) };
        match moment {
            Moment::Before => {}
            Moment::After => write(bytes)?,
            Moment::Halfway => write(&bytes[..bytes.len() / 2])?,
        }
        Err(failure.error(Operation::Stage, On::New))
    }
}

/// Passes everything on to another backend, except what its [`Faults`] fail.
#[derive(Debug)]
pub struct FaultBackend<B> {
    inner: B,
    faults: Faults,
}

impl<B: Backend> FaultBackend<B> {
    /// Around `inner`, with no faults yet.
    pub fn new(inner: B) -> Self {
        Self { inner, faults: Faults::default() }
    }

    /// The handle to inject faults with.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    fn run<'b, T>(
        &'b self,
        operation: Operation,
        on: On<'_>,
        call: impl FnOnce(&'b B) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.faults.run(operation, on, || call(&self.inner))
    }

    fn run_on<'b, T>(
        &'b self,
        operation: Operation,
        key: &ObjectKey,
        call: impl FnOnce(&'b B) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.run(operation, On::Key(key), call)
    }
}

impl<B: Backend> Backend for FaultBackend<B> {
    forward_backend!(this => this.inner; location sign clean has_room);

    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        self.run(Operation::List, On::Folder(folder), |inner| inner.list(folder, from, visit))
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError> {
        self.run_on(Operation::Stat, key, |inner| inner.stat(key))
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        self.run_on(Operation::Read, key, |inner| inner.read(key, limit))
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        self.run_on(Operation::ReadRange, key, |inner| inner.read_range(key, offset, buffer))
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        self.run_on(Operation::Create, key, |inner| inner.create(key, bytes))
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError> {
        self.run_on(Operation::Replace, key, |inner| inner.replace(key, bytes))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.run_on(Operation::Delete, key, |inner| inner.delete(key))
    }

    fn flush(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.run_on(Operation::Flush, key, |inner| inner.flush(key))
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        let inner = self.run_on(Operation::Open, key, |inner| inner.open(key, limit))?;
        Ok(Box::new(FaultReader { inner, key: key.clone(), faults: self.faults() }))
    }

    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        let inner = self.run(Operation::Stage, On::New, Backend::begin)?;
        Ok(Box::new(FaultStaged { inner, faults: &self.faults }))
    }
}

#[derive(Debug)]
struct FaultReader {
    inner: Box<dyn ObjectReader>,
    key: ObjectKey,
    faults: Faults,
}

impl ObjectReader for FaultReader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let read = || self.inner.read_at(offset, buffer);
        self.faults.run(Operation::ReadRange, On::Key(&self.key), read)
    }
}

struct FaultStaged<'b> {
    inner: Box<dyn Staged + 'b>,
    faults: &'b Faults,
}

impl Staged for FaultStaged<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.faults.run_write(bytes, |bytes| self.inner.write(bytes))
    }

    fn publish(self: Box<Self>, key: &ObjectKey) -> Result<Created, BackendError> {
        self.faults.run(Operation::Create, On::Key(key), || self.inner.publish(key))
    }

    fn replace(self: Box<Self>, key: &ObjectKey) -> Result<(), BackendError> {
        self.faults.run(Operation::Replace, On::Key(key), || self.inner.replace(key))
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::super::MemoryBackend;
    use super::super::conformance;
    use super::*;

    fn make() -> (MemoryBackend, FaultBackend<MemoryBackend>, Faults) {
        let storage = MemoryBackend::new();
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        (storage, backend, faults)
    }

    fn kind<T: std::fmt::Debug>(result: Result<T, BackendError>) -> ErrorKind {
        match result.expect_err("a fault") {
            BackendError::Io { source, .. } => source.kind(),
            other => panic!("not an injected fault: {other}"),
        }
    }

    #[test]
    fn conforms_without_faults() {
        conformance::check(|| Box::new(FaultBackend::new(MemoryBackend::new())));
    }

    #[test]
    fn the_nth_operation_fails_once() {
        let (storage, backend, faults) = make();
        faults.inject(Fault::nth_of(Operation::Create, 2, ErrorKind::StorageFull));
        let key = ObjectKey::log;
        backend.create(&key(1), b"1").expect("the first");
        backend.stat(&key(1)).expect("not counted");
        assert_eq!(kind(backend.create(&key(2), b"2")), ErrorKind::StorageFull);
        assert!(storage.stat(&key(2)).expect_err("without effect").is_not_found());
        backend.create(&key(2), b"2").expect("the third");
        assert_eq!(faults.fired(), 1);
    }

    #[test]
    fn a_create_can_fail_after_it_took_effect() {
        let (storage, backend, faults) = make();
        faults.inject(Fault::nth_mutation(1, ErrorKind::TimedOut).after_effect());
        assert_eq!(kind(backend.create(&ObjectKey::log(1), b"1")), ErrorKind::TimedOut);
        assert_eq!(storage.read(&ObjectKey::log(1), 9).expect("stored all the same"), b"1");
    }

    #[test]
    fn disks_fail_in_ways_of_their_own() {
        let (storage, backend, faults) = make();
        let key = ObjectKey::log;
        faults.inject(Fault::broken(2));
        backend.create(&key(1), b"1").expect("the first");
        assert!(backend.read(&key(1), 9).expect_err("the second").is_loss());
        faults.inject(Fault::full(2));
        backend.create(&key(2), b"2").expect("there is room for it");
        for _ in 0..2 {
            assert_eq!(kind(backend.create(&key(3), b"3")), ErrorKind::StorageFull);
        }
        assert_eq!(kind(backend.begin().map(drop)), ErrorKind::StorageFull);
        backend.delete(&key(2)).expect("that takes no room");
        faults.clear();
        // Beginning it is the first write.
        faults.inject(Fault::short(2));
        let mut staged = backend.begin().expect("begun");
        assert_eq!(kind(staged.write(b"12345678")), ErrorKind::StorageFull);
        staged.publish(&key(4)).expect("whoever goes on in spite of that");
        assert_eq!(storage.read(&key(4), 9).expect("has an object cut short"), b"1234");
        faults.inject(Fault::unflushed(1));
        assert!(backend.create(&key(5), b"5").expect_err("not flushed").is_not_durable());
        assert_eq!(storage.read(&key(5), 9).expect("there all the same"), b"5");
        faults.inject(Fault::unflushed(1));
        backend.read(&key(5), 9).expect("flushes nothing");
        assert!(matches!(backend.flush(&key(5)), Err(BackendError::Io { .. })));
        assert_eq!(faults.fired(), 7);
    }

    #[test]
    fn every_step_of_a_staged_object_can_fail() {
        let (storage, backend, faults) = make();
        let stage = || -> Result<Created, BackendError> {
            let mut staged = backend.begin()?;
            staged.write(b"1")?;
            staged.publish(&ObjectKey::log(1))
        };
        for n in 1..=3 {
            faults.inject(Fault::nth(n, ErrorKind::StorageFull));
            assert_eq!(kind(stage()), ErrorKind::StorageFull);
            assert!(storage.objects().is_empty(), "step {n} left something");
        }
        faults.inject(Fault::nth_mutation(1, ErrorKind::TimedOut).after_effect());
        assert_eq!(kind(stage()), ErrorKind::TimedOut);
        assert_eq!(stage().expect("no faults left"), Created::Exists);
        faults.inject(Fault::nth_of(Operation::ReadRange, 1, ErrorKind::Other).in_folder(Folder::Log));
        let open = backend.open(&ObjectKey::log(1), 9).expect("opening is another operation");
        assert_eq!(kind(open.read_at(0, &mut [0])), ErrorKind::Other);
        assert_eq!(faults.fired(), 5);
    }

    #[test]
    fn faults_can_last_stop_everything_and_keep_to_a_folder() {
        let (_, backend, faults) = make();
        faults.inject(Fault::nth_of(Operation::Read, 1, ErrorKind::Other).in_folder(Folder::State).lasting());
        for _ in 0..3 {
            assert!(backend.read(&ObjectKey::log(1), 9).expect_err("absent").is_not_found());
            assert_eq!(kind(backend.read(&ObjectKey::state(1), 9)), ErrorKind::Other);
        }
        backend.create(&ObjectKey::log(1), b"1").expect("created");
        backend.create(&ObjectKey::log(2), b"2").expect("created");
        faults.inject(Fault::unreadable(&ObjectKey::log(1)));
        for _ in 0..2 {
            assert!(backend.read(&ObjectKey::log(1), 9).expect_err("a fault").is_loss());
        }
        backend.read(&ObjectKey::log(2), 9).expect("another one");
        faults.inject(Fault::nth_mutation(1, ErrorKind::BrokenPipe).stopping());
        backend.stat(&ObjectKey::config()).expect_err("absent");
        assert_eq!(kind(backend.delete(&ObjectKey::log(1))), ErrorKind::BrokenPipe);
        assert_eq!(kind(backend.stat(&ObjectKey::config())), ErrorKind::BrokenPipe);
        faults.clear();
        backend.delete(&ObjectKey::log(1)).expect("no faults left");
    }
}
