//! A backend that keeps a record of every call, for tests that say what an operation may cost.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{Backend, BackendError, Created, Folder, ObjectInfo, ObjectKey, ObjectReader, Staged};
use super::Operation;

/// One call of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which one.
    pub operation: Operation,
    /// The folder listed, or the one the object lies in; `None` for the config object.
    pub folder: Option<Folder>,
    /// The object; of a list the key it starts from.
    pub key: Option<ObjectKey>,
    /// First byte of a range; 0 for everything else.
    pub offset: u64,
    /// Bytes asked for (ranges), returned (whole reads) or handed over (creates, published objects included); of a
    /// list the number of objects visited; 0 for everything else.
    pub length: u64,
    /// Whether it succeeded.
    pub succeeded: bool,
}

impl Call {
    /// Whether it read bytes of an object.
    pub fn is_read(&self) -> bool {
        matches!(self.operation, Operation::Read | Operation::ReadRange)
    }
}

/// The calls a [`RecordingBackend`] has seen, in the order they returned. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Recording(Arc<Mutex<Vec<Call>>>);

impl Recording {
    /// All calls since the last [`Recording::take`].
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// All calls since the last `take`, which begins a new record.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock())
    }

    /// How many calls of `operation` there were.
    pub fn count(&self, operation: Operation) -> u64 {
        self.sum(|call| u64::from(call.operation == operation))
    }

    /// How many calls of `operation` there were on objects of `folder`.
    pub fn count_in(&self, operation: Operation, folder: Folder) -> u64 {
        self.sum(|call| u64::from(call.operation == operation && call.folder == Some(folder)))
    }

    /// How many calls read bytes of objects of `folder`, whole or in part.
    pub fn reads_in(&self, folder: Folder) -> u64 {
        self.sum(|call| u64::from(call.is_read() && call.folder == Some(folder)))
    }

    /// How many bytes of objects of `folder` were read.
    pub fn bytes_read_in(&self, folder: Folder) -> u64 {
        self.sum(|call| if call.is_read() && call.folder == Some(folder) { call.length } else { 0 })
    }

    /// How many bytes were handed over to be created in `folder`.
    pub fn bytes_created_in(&self, folder: Folder) -> u64 {
        let created = |call: &Call| call.operation == Operation::Create && call.folder == Some(folder);
        self.sum(|call| if created(call) { call.length } else { 0 })
    }

    /// Records a call on an object; `length` takes it from what the call returned.
    fn record<T>(
        &self,
        operation: Operation,
        key: &ObjectKey,
        offset: u64,
        result: Result<T, BackendError>,
        length: impl FnOnce(Option<&T>) -> usize,
    ) -> Result<T, BackendError> {
        self.lock().push(Call {
            operation,
            folder: key.folder(),
            key: Some(key.clone()),
            offset,
            length: length(result.as_ref().ok()) as u64,
            succeeded: result.is_ok(),
        });
        result
    }

    fn sum(&self, value: impl Fn(&Call) -> u64) -> u64 {
        self.lock().iter().map(value).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes everything on to another backend and records it.
#[derive(Debug)]
pub struct RecordingBackend<B> {
    inner: B,
    recording: Recording,
}

impl<B: Backend> RecordingBackend<B> {
    /// Around `inner`, with an empty record.
    pub fn new(inner: B) -> Self {
        Self { inner, recording: Recording::default() }
    }

    /// The record, which goes on being written.
    pub fn recording(&self) -> Recording {
        self.recording.clone()
    }
}

impl<B: Backend> Backend for RecordingBackend<B> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        let mut length = 0;
        let result = self.inner.list(folder, from, &mut |info| {
            length += 1;
            visit(info)
        });
        self.recording.lock().push(Call {
            operation: Operation::List,
            folder: Some(folder),
            key: from.cloned(),
            offset: 0,
            length,
            succeeded: result.is_ok(),
        });
        result
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectInfo, BackendError> {
        self.recording.record(Operation::Stat, key, 0, self.inner.stat(key), |_| 0)
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        self.recording
            .record(Operation::Read, key, 0, self.inner.read(key, limit), |read| read.map_or(0, Vec::len))
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let result = self.inner.read_range(key, offset, buffer);
        self.recording.record(Operation::ReadRange, key, offset, result, |_| buffer.len())
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        self.recording.record(Operation::Create, key, 0, self.inner.create(key, bytes), |_| bytes.len())
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError> {
        self.recording.record(Operation::Replace, key, 0, self.inner.replace(key, bytes), |_| bytes.len())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.recording.record(Operation::Delete, key, 0, self.inner.delete(key), |_| 0)
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        let inner = self.recording.record(Operation::Open, key, 0, self.inner.open(key, limit), |_| 0)?;
        Ok(Box::new(RecordingReader { inner, key: key.clone(), recording: self.recording() }))
    }

    // Only a published object is a call that counts: a create, of all its bytes.
    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        Ok(Box::new(RecordingStaged { inner: self.inner.begin()?, length: 0, recording: &self.recording }))
    }
}

#[derive(Debug)]
struct RecordingReader {
    inner: Box<dyn ObjectReader>,
    key: ObjectKey,
    recording: Recording,
}

impl ObjectReader for RecordingReader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let result = self.inner.read_at(offset, buffer);
        self.recording.record(Operation::ReadRange, &self.key, offset, result, |_| buffer.len())
    }
}

struct RecordingStaged<'b> {
    inner: Box<dyn Staged + 'b>,
    length: usize,
    recording: &'b Recording,
}

impl Staged for RecordingStaged<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.length += bytes.len();
        self.inner.write(bytes)
    }

    fn publish(self: Box<Self>, key: &ObjectKey) -> Result<Created, BackendError> {
        let Self { inner, length, recording } = *self;
        recording.record(Operation::Create, key, 0, inner.publish(key), |_| length)
    }

    fn replace(self: Box<Self>, key: &ObjectKey) -> Result<(), BackendError> {
        let Self { inner, length, recording } = *self;
        recording.record(Operation::Replace, key, 0, inner.replace(key), |_| length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::MemoryBackend;
    use super::super::conformance;
    use super::*;

    #[test]
    fn conforms() {
        conformance::check(|| Box::new(RecordingBackend::new(MemoryBackend::new())));
    }

    #[test]
    fn every_call_is_recorded_with_what_it_touched() {
        let backend = RecordingBackend::new(MemoryBackend::new());
        let recording = backend.recording();
        let key = ObjectKey::in_folder(Folder::Packs, &"ab".repeat(32));
        backend.create(&key, b"a pack").expect("created");
        backend.read_range(&key, 2, &mut [0; 3]).expect("read");
        backend.open(&key, 9).expect("opened").read_at(1, &mut [0; 5]).expect("read");
        let mut staged = backend.begin().expect("begun");
        (0..3).for_each(|_| staged.write(b"part").expect("written"));
        assert_eq!(staged.publish(&key).expect("no failure"), Created::Exists);
        backend.read(&ObjectKey::config(), 9).expect_err("absent");
        backend.list(Folder::Packs, Some(&key), &mut |_| ControlFlow::Continue(())).expect("listed");

        let call = |operation, offset, length| Call {
            operation,
            folder: Some(Folder::Packs),
            key: Some(key.clone()),
            offset,
            length,
            succeeded: true,
        };
        let read_config = Call {
            folder: None,
            key: Some(ObjectKey::config()),
            succeeded: false,
            ..call(Operation::Read, 0, 0)
        };
        let expected = [
            call(Operation::Create, 0, 6),
            call(Operation::ReadRange, 2, 3),
            call(Operation::Open, 0, 0),
            call(Operation::ReadRange, 1, 5),
            call(Operation::Create, 0, 12),
            read_config,
            call(Operation::List, 0, 1),
        ];
        assert_eq!(recording.calls(), expected);
        assert_eq!(
            (recording.count(Operation::Read), recording.count_in(Operation::Read, Folder::Packs)),
            (1, 0)
        );
        assert_eq!((recording.reads_in(Folder::Packs), recording.bytes_read_in(Folder::Packs)), (2, 8));
        assert_eq!(recording.bytes_created_in(Folder::Packs), 18);
        assert_eq!(recording.take(), expected);
        assert!(recording.calls().is_empty());
    }
}
