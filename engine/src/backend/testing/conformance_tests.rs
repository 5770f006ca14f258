//! The suite itself is tested: backends that break one guarantee each must not pass.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::super::super::{Buffered, MemoryBackend, forward_backend};
use super::super::{FaultBackend, RecordingBackend};
use super::*;

#[derive(Debug, Clone, Copy)]
enum Flaw {
    Replaces,
    ClaimsNew,
    ListsBackwards,
    ListsFromAfter,
    IgnoresBreak,
    ListsOthers,
    FillsPartly,
    IgnoresLimit,
    DeleteFailsIfAbsent,
    PublishesInParts,
    ChecksThenCreates,
    StagesInTheOpen,
    PublishReplaces,
    PublishLosesTheLastPart,
    ReplacesNothing,
}

#[derive(Debug)]
struct Flawed(MemoryBackend, Flaw);

impl Backend for Flawed {
    forward_backend!(this => this.0; location stat);

    fn list(
        &self,
        folder: Folder,
        from: Option<&ObjectKey>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        let mut found = list(&self.0, folder, from);
        match self.1 {
            Flaw::ListsBackwards => found.reverse(),
            Flaw::ListsFromAfter => found.retain(|info| Some(&info.key) != from),
            Flaw::ListsOthers => found.extend(list(&self.0, Folder::Keys, None)),
            _ => {}
        }
        for info in found {
            if visit(info).is_break() && !matches!(self.1, Flaw::IgnoresBreak) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, BackendError> {
        let limit = if matches!(self.1, Flaw::IgnoresLimit) { NO_LIMIT } else { limit };
        self.0.read(key, limit)
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        match self.0.read_range(key, offset, buffer) {
            Err(BackendError::OutOfRange { .. }) if matches!(self.1, Flaw::FillsPartly) => Ok(()),
            result => result,
        }
    }

    fn create(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Created, BackendError> {
        match self.1 {
            Flaw::Replaces if self.0.stat(key).is_ok() => self.0.plant(key, bytes),
            Flaw::ClaimsNew => return self.0.create(key, bytes).map(|_| Created::New),
            Flaw::PublishesInParts => {
                let created = self.0.create(key, &bytes[..bytes.len() / 2])?;
                thread::sleep(Duration::from_millis(20));
                if created == Created::New {
                    self.0.plant(key, bytes);
                }
                return Ok(created);
            }
            Flaw::ChecksThenCreates if key.is_well_formed() => {
                let exists = self.0.stat(key).is_ok();
                thread::sleep(Duration::from_millis(5));
                if exists {
                    return Ok(Created::Exists);
                }
                self.0.plant(key, bytes);
                return Ok(Created::New);
            }
            _ => {}
        }
        self.0.create(key, bytes)
    }

    fn replace(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), BackendError> {
        if matches!(self.1, Flaw::ReplacesNothing) {
            return self.0.create(key, bytes).map(drop);
        }
        self.0.replace(key, bytes)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        if matches!(self.1, Flaw::DeleteFailsIfAbsent) {
            self.0.stat(key)?;
        }
        self.0.delete(key)
    }

    fn open(&self, key: &ObjectKey, limit: u64) -> Result<Box<dyn ObjectReader>, BackendError> {
        self.0.open(key, if matches!(self.1, Flaw::IgnoresLimit) { NO_LIMIT } else { limit })
    }

    fn begin(&self) -> Result<Box<dyn Staged + '_>, BackendError> {
        Ok(match self.1 {
            Flaw::StagesInTheOpen | Flaw::PublishReplaces | Flaw::PublishLosesTheLastPart => {
                Box::new(FlawedStaged { backend: self, parts: Vec::new() })
            }
            _ => Box::new(Buffered::new(self)),
        })
    }
}

struct FlawedStaged<'b> {
    backend: &'b Flawed,
    parts: Vec<Vec<u8>>,
}

impl Staged for FlawedStaged<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        if matches!(self.backend.1, Flaw::StagesInTheOpen) {
            self.backend.0.plant(&ObjectKey::log(u64::MAX), bytes);
        }
        self.parts.push(bytes.to_vec());
        Ok(())
    }

    fn publish(mut self: Box<Self>, key: &ObjectKey) -> Result<Created, BackendError> {
        let storage = &self.backend.0;
        match self.backend.1 {
            Flaw::PublishReplaces if storage.stat(key).is_ok() => storage.delete(key)?,
            Flaw::PublishLosesTheLastPart => drop(self.parts.pop()),
            Flaw::StagesInTheOpen => storage.delete(&ObjectKey::log(u64::MAX))?,
            _ => {}
        }
        storage.create(key, &self.parts.concat())
    }

    fn replace(self: Box<Self>, key: &ObjectKey) -> Result<(), BackendError> {
        self.backend.0.replace(key, &self.parts.concat())
    }
}

#[test]
fn flawed_backends_do_not_pass() {
    for flaw in [
        Flaw::Replaces,
        Flaw::ClaimsNew,
        Flaw::ListsBackwards,
        Flaw::ListsFromAfter,
        Flaw::IgnoresBreak,
        Flaw::ListsOthers,
        Flaw::FillsPartly,
        Flaw::IgnoresLimit,
        Flaw::DeleteFailsIfAbsent,
        Flaw::PublishesInParts,
        Flaw::ChecksThenCreates,
        Flaw::StagesInTheOpen,
        Flaw::PublishReplaces,
        Flaw::PublishLosesTheLastPart,
        Flaw::ReplacesNothing,
    ] {
        let suite = AssertUnwindSafe(|| check(|| Box::new(Flawed(MemoryBackend::new(), flaw))));
        assert!(catch_unwind(suite).is_err(), "{flaw:?} passed");
    }
}

#[test]
fn pointers_to_backends_conform() {
    let make = || Box::new(RecordingBackend::new(Arc::new(FaultBackend::new(MemoryBackend::new()))));
    check(|| Box::new(Box::new(make() as Box<dyn Backend>)));
}
