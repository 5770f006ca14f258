//! Passwords that are added, removed and changed, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strongroom::backend::MemoryBackend;
use strongroom::crypto::Password;
use strongroom::ids::KeyslotId;
use strongroom::repo::{Repository, RepositoryError};
use strongroom::testing::CHEAP;

use super::process::{Failed, Process};
use super::world::{self, Who};

/// What processes have been told of passwords. Each has a name of its own, and at any time one process at most does away with it.
#[derive(Debug, Clone, Default)]
pub struct Passwords {
    count: u64,
    /// Those that open the repository: somebody was told so, and nobody has begun to do away with them.
    opening: BTreeMap<String, KeyslotId>,
    /// Those of which nobody knows whether they were done away with, as long as nobody tries again.
    doubtful: BTreeMap<String, KeyslotId>,
    /// Those that somebody was told are removed.
    removed: BTreeSet<String>,
}

impl Passwords {
    /// A new one.
    fn name(&mut self) -> String {
        self.count += 1;
        format!("password {}", self.count)
    }

    /// One that opens the repository, for a process to do away with.
    fn take(&mut self, which: u64) -> Option<(String, KeyslotId)> {
        let at = which as usize % self.opening.len().max(1);
        let name = self.opening.keys().nth(at)?.clone();
        self.opening.remove_entry(&name)
    }
}

fn password(name: &str) -> Password {
    Password::new(name.as_bytes().to_vec())
}

impl Process {
    pub fn add_password(&self, repository: &Repository) -> Result<(), Failed> {
        let name = self.told().passwords.name();
        let id = repository
            .add_keyslot(&password(&name), "simulated", CHEAP)
            .map_err(|error| Failed::Unexpected(error.to_string()))?;
        self.told().passwords.opening.insert(name, id);
        Ok(())
    }

    /// One to do away with, which is added first where there is none; none where somebody else has come first.
    fn take_password(
        &self,
        repository: &Repository,
        which: u64,
    ) -> Result<Option<(String, KeyslotId)>, Failed> {
        if self.told().passwords.opening.is_empty() {
            self.add_password(repository)?;
        }
        Ok(self.told().passwords.take(which))
    }

    pub fn remove_password(&self, repository: &Repository, which: u64) -> Result<(), Failed> {
        // Who does not know whether one was removed tries again.
        let doubtful = self.told().passwords.doubtful.pop_first();
        let is_again = doubtful.is_some();
        let taken = if is_again { doubtful } else { self.take_password(repository, which)? };
        let Some((name, id)) = taken else { return Ok(()) };
        match repository.remove_keyslot(&id.to_string()) {
            Ok(_) => {}
            Err(RepositoryError::UnknownKeyslot(_)) if is_again => {}
            Err(error) => {
                self.told().passwords.doubtful.insert(name, id);
                return Err(Failed::Unexpected(error.to_string()));
            }
        }
        self.told().passwords.removed.insert(name);
        Ok(())
    }

    pub fn change_password(&self, repository: &Repository, attempt: u32, which: u64) -> Result<(), Failed> {
        let Some((old, id)) = self.take_password(repository, which)? else { return Ok(()) };
        let new = self.told().passwords.name();
        let (wire, environment) = (Arc::new(self.wire.clone()), self.environment(attempt));
        let changed = Repository::open(wire, &password(&old), environment)
            .and_then(|repository| repository.change_password(&password(&new), CHEAP));
        let passwords = &mut self.told().passwords;
        match changed {
            Ok(id) => {
                passwords.removed.insert(old);
                passwords.opening.insert(new, id);
                Ok(())
            }
            Err(error) => {
                passwords.doubtful.insert(old, id);
                Err(Failed::Unexpected(error.to_string()))
            }
        }
    }
}

/// Makes sure that passwords open the repository which are said to, and no others, and that those of which nobody knows can be done away with.
pub fn audit(storage: &MemoryBackend, passwords: &Passwords) -> Result<(), String> {
    let open = |name: &str, process| {
        Repository::open(Arc::new(storage.clone()), &password(name), world::environment(8, process, 0))
    };
    for (process, name) in (950..).zip(passwords.opening.keys()) {
        let repository = open(name, process).map_err(|error| format!("{name} does not open: {error}"))?;
        if repository.is_append_only() {
            return Err(format!("{name} opens less than it should"));
        }
    }
    let is_shut_out = |name: &str, process| match open(name, process) {
        Ok(_) => Err(format!("{name} was removed and opens")),
        Err(RepositoryError::WrongPassword { .. } | RepositoryError::RemovedKeyslot(_)) => Ok(()),
        Err(error) => Err(format!("{name} was removed: {error}")),
    };
    for (process, name) in (970..).zip(&passwords.removed) {
        is_shut_out(name, process)?;
    }
    // Who was killed behind the commit has left a keyslot, and its parity. The next try finishes that.
    for (process, (name, id)) in (990..).zip(&passwords.doubtful) {
        let repository = world::open(Arc::new(storage.clone()), world::environment(8, process, 0), Who::Full)
            .map_err(|error| format!("open: {error}"))?;
        match repository.remove_keyslot(&id.to_string()) {
            Ok(_) | Err(RepositoryError::UnknownKeyslot(_)) => is_shut_out(name, process)?,
            Err(error) => return Err(format!("{name} cannot be removed: {error}")),
        }
    }
    Ok(())
}
