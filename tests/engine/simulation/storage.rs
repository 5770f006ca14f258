//! The storage as one process sees it: every operation takes a turn.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use strongroom::backend::testing::Operation;
use strongroom::backend::{
    Backend, BackendError, Created, Folder, MemoryBackend, ObjectInfo, ObjectKey, ObjectReader, Staged,
};

use super::schedule::{Delayed, Fate, Schedule};

/// A process's way to the storage that all share.
#[derive(Clone)]
pub struct Wire {
    storage: MemoryBackend,
    schedule: Arc<Schedule>,
    process: usize,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire of process {}", self.process)
    }
}

fn failed(what: impl fmt::Display) -> BackendError {
    let source = io::Error::new(io::ErrorKind::TimedOut, "simulated");
    BackendError::Io { action: "reach", what: what.to_string(), source }
}

impl Wire {
    /// The way of one process.
    pub fn new(storage: &MemoryBackend, schedule: &Arc<Schedule>, process: usize) -> Self {
        Self { storage: storage.clone(), schedule: Arc::clone(schedule), process }
    }

    /// Takes a turn for an operation that changes nothing.
    fn look<T>(
        &self,
        operation: Operation,
        key: Option<&ObjectKey>,
        act: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        match self.schedule.enter(self.process, operation, key) {
            Fate::Done => act(),
            _ => Err(failed(key.map_or("a folder", |key| key.as_str()))),
        }
    }

    /// Takes a turn for an operation that changes something.
    fn change<T>(
        &self,
        operation: Operation,
        key: &ObjectKey,
        act: impl FnOnce() -> Result<T, BackendError>,
        delayed: impl FnOnce() -> Delayed,
    ) -> Result<T, BackendError> {
        match self.schedule.enter(self.process, operation, Some(key)) {
            Fate::Done => return act(),
            Fate::AnswerLost | Fate::CrashedAfter => drop(act()),
            Fate::Late => self.schedule.delay(delayed()),
            Fate::Failed | Fate::CrashedBefore | Fate::Dead => {}
        }
        Err(failed(key))
    }
}

impl Backend for Wire {
    fn location(&self) -> String {
        "simulation".to_owned()
    }

    /// Others come in between: a list is no picture of one moment.
    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        self.look(Operation::List, None, || Ok(()))?;
        let mut count = 0;
        let mut result = Ok(());
        self.storage.list(folder, from, &mut |info| {
            count += 1;
            if count == 3 {
                result = self.look(Operation::List, Some(&info.key), || Ok(()));
            }
            if result.is_ok() { visit(info) } else { ControlFlow::Break(()) }
        })?;
        result
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError> {
        self.look(Operation::Stat, Some(key), || self.storage.stat(key))
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        self.look(Operation::Read, Some(key), || self.storage.read(key, limit))
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        self.look(Operation::ReadRange, Some(key), || self.storage.read_range(key, offset, buffer))
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        let delayed = || Delayed::Create(key.clone(), bytes.to_vec());
        self.change(Operation::Create, key, || self.storage.create(key, bytes), delayed)
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError> {
        let delayed = || Delayed::Replace(key.clone(), bytes.to_vec());
        self.change(Operation::Replace, key, || self.storage.replace(key, bytes), delayed)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        let delayed = || Delayed::Delete(key.clone());
        self.change(Operation::Delete, key, || self.storage.delete(key), delayed)
    }

    /// Somebody may seem to have died at any time: whoever hears of it takes over packs that nobody has listed yet, those of a writer at
    /// work, too.
    fn clean(&self) -> Result<u64, BackendError> {
        self.look(Operation::List, None, || Ok(u64::from(self.schedule.seems_left_behind())))
    }

    /// What was opened does not change: reading it takes no turn, whoever of a process's threads does it.
    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        self.look(Operation::Open, Some(key), || self.storage.open(key, limit))
    }

    /// Nobody sees an object before it is published: writing to it takes no turn.
    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        Ok(Box::new(Unpublished { wire: self, bytes: Vec::new() }))
    }
}

struct Unpublished<'w> {
    wire: &'w Wire,
    bytes: Vec<u8>,
}

impl Staged for Unpublished<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn publish(self: Box<Self>, key: &ObjectKey) -> Result<Created, BackendError> {
        self.wire.create(key, &self.bytes)
    }

    fn replace(self: Box<Self>, key: &ObjectKey) -> Result<(), BackendError> {
        self.wire.replace(key, &self.bytes)
    }
}
