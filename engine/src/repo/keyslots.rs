//! Passwords: keyslots are added and removed by commits.

use std::collections::BTreeSet;

use crate::backend::{self, ObjectKey};
use crate::crypto::keys::SecretKey;
use crate::crypto::{AppendKeys, KdfParams, Password, random};
use crate::format::commit::{Change, WriterKey};
use crate::format::keyslot::{Keyslot, Secrets};
use crate::format::state::KeyslotEntry;
use crate::ids::KeyslotId;
use crate::log::{self, Fold};
use crate::repo::{Repository, RepositoryError};
use crate::sidecar;

/// A keyslot in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// What the log says of it.
    pub entry: KeyslotEntry,
    /// Whether it is the one this repository was opened with.
    pub current: bool,
}

impl Repository {
    /// Keyslots in force, oldest first.
    pub fn keyslots(&self) -> Vec<KeyInfo> {
        let fold = self.fold();
        let mut keyslots: Vec<_> = fold
            .keyslots()
            .map(|entry| KeyInfo { entry: entry.clone(), current: entry.keyslot == self.keyslot })
            .collect();
        keyslots.sort_by_key(|info| (info.entry.added, info.entry.keyslot));
        keyslots
    }

    /// Adds a keyslot for another password, with a signing key of its own.
    ///
    /// # Errors
    /// [`RepositoryError`] where the password is empty or the storage fails.
    pub fn add_keyslot(
        &self,
        password: &Password,
        label: &str,
        kdf: KdfParams,
    ) -> Result<KeyslotId, RepositoryError> {
        self.require_full("add a keyslot")?;
        let (id, change) = self.store_keyslot(password, label, kdf, self.secrets.duplicate())?;
        self.commit(&mut |_| Ok(vec![change.clone()]))?;
        self.cover_keys(&id);
        Ok(id)
    }

    /// Adds an append-only keyslot: its holder can back up, and neither read what is stored nor change or take away anything.
    ///
    /// # Errors
    /// [`RepositoryError`] where the password is empty, this keyslot is append-only itself, or the storage fails.
    pub fn add_append_only_keyslot(
        &self,
        password: &Password,
        label: &str,
        kdf: KdfParams,
    ) -> Result<KeyslotId, RepositoryError> {
        let Secrets::Root(root) = &self.secrets else {
            return Err(RepositoryError::AppendOnly("add a keyslot"));
        };
        let secrets = Secrets::Append(Box::new(AppendKeys::derive(root)));
        let (id, change) = self.store_keyslot(password, label, kdf, secrets)?;
        self.commit(&mut |_| Ok(vec![change.clone()]))?;
        self.cover_keys(&id);
        Ok(id)
    }

    /// Replaces the keyslot the repository was opened with by one for a new password, in one commit.
    ///
    /// # Errors
    /// [`RepositoryError`] where the password is empty or the storage fails.
    pub fn change_password(&self, password: &Password, kdf: KdfParams) -> Result<KeyslotId, RepositoryError> {
        self.require_full("change its password: whoever has another one can")?;
        let old = self.fold().keyslot(&self.keyslot).cloned();
        let old = old.ok_or(RepositoryError::RemovedKeyslot(self.keyslot))?;
        let (id, added) = self.store_keyslot(password, &old.label, kdf, self.secrets.duplicate())?;
        let removed = Change::KeyslotRemoved { keyslot: old.keyslot, writer: old.writer };
        self.commit(&mut |fold| match fold.keyslot(&old.keyslot) {
            Some(_) => Ok(vec![added.clone(), removed.clone()]),
            None => Err(RepositoryError::RemovedKeyslot(old.keyslot)),
        })?;
        self.cover_keys(&id);
        self.delete_keyslot(&old.keyslot)?;
        Ok(id)
    }

    fn store_keyslot(
        &self,
        password: &Password,
        label: &str,
        kdf: KdfParams,
        secrets: Secrets,
    ) -> Result<(KeyslotId, Change), RepositoryError> {
        if password.is_empty() {
            return Err(RepositoryError::EmptyPassword);
        }
        let entropy = &*self.environment.entropy;
        let slot =
            Keyslot { secrets, writer_seed: SecretKey::from_bytes(random(entropy)), label: label.to_owned() };
        let object = slot.wrap(password, kdf, &self.id, entropy)?;
        let keyslot = Keyslot::id(&object);
        self.backend.create(&ObjectKey::keyslot(&keyslot), &object)?;
        let (writer, label) = (WriterKey::new(&slot.writer_seed).id(), label.to_owned());
        let change = match &slot.secrets {
            Secrets::Root(_) => Change::KeyslotAdded { keyslot, writer, label },
            Secrets::Append(_) => Change::AppenderAdded { keyslot, writer, label },
        };
        Ok((keyslot, change))
    }

    /// Removes the keyslot whose id begins with `prefix`. A removal that was broken off once the log said so is finished.
    ///
    /// # Errors
    /// [`RepositoryError::UnknownKeyslot`] where none or several match, [`RepositoryError::LastKeyslot`], or a
    /// failure of the storage.
    pub fn remove_keyslot(&self, prefix: &str) -> Result<KeyslotId, RepositoryError> {
        self.require_full("remove a keyslot")?;
        let mut entry = the_one_keyslot(&self.fold(), prefix);
        if entry.is_none() {
            // Others may have added it since the log was read.
            self.refresh()?;
            entry = the_one_keyslot(&self.fold(), prefix);
        }
        let Some(entry) = entry else { return self.finish_removal(prefix) };
        self.commit(&mut |fold| {
            if fold.keyslot(&entry.keyslot).is_none() {
                return Err(RepositoryError::UnknownKeyslot(prefix.to_owned()));
            }
            if fold.keyslots().all(|other| other.append_only || other.keyslot == entry.keyslot) {
                return Err(RepositoryError::LastKeyslot(entry.keyslot));
            }
            Ok(vec![Change::KeyslotRemoved { keyslot: entry.keyslot, writer: entry.writer }])
        })?;
        self.delete_keyslot(&entry.keyslot)?;
        Ok(entry.keyslot)
    }

    /// Deletes a keyslot that the log says is removed, and that is there all the same: a removal was broken off behind its commit.
    fn finish_removal(&self, prefix: &str) -> Result<KeyslotId, RepositoryError> {
        let (fold, mut removed) = (self.fold(), BTreeSet::new());
        let unknown = || RepositoryError::UnknownKeyslot(prefix.to_owned());
        let is_meant = |id: &KeyslotId| id.to_string().starts_with(prefix);
        if prefix.is_empty() || fold.keyslots().any(|entry| is_meant(&entry.keyslot)) {
            return Err(unknown());
        }
        let mut read = Fold::empty(fold.config());
        log::read_to(&*self.backend, &self.keys, &self.id, &mut read, fold.seq(), &mut |entry| {
            for change in entry.iter().flat_map(|entry| &entry.commit.changes) {
                if let Change::KeyslotRemoved { keyslot, .. } = change {
                    removed.extend(is_meant(keyslot).then_some(*keyslot));
                }
            }
        })?;
        let mut left = Vec::new();
        for id in removed {
            if self.is_left(&id)? {
                left.push(id);
            }
        }
        let [id] = left[..] else { return Err(unknown()) };
        self.delete_keyslot(&id)?;
        Ok(id)
    }

    /// Whether a keyslot is there, or its parity.
    fn is_left(&self, keyslot: &KeyslotId) -> Result<bool, RepositoryError> {
        let key = ObjectKey::keyslot(keyslot);
        let backend = &*self.backend;
        Ok(backend::size_of(backend, &key)?.is_some() || sidecar::is_there(backend, &key)?)
    }

    /// Its parity is as good as a copy, and goes first: nobody is told that a password is removed while that stays.
    fn delete_keyslot(&self, keyslot: &KeyslotId) -> Result<(), RepositoryError> {
        self.delete_parity_of(keyslot)?;
        Ok(self.backend.delete(&ObjectKey::keyslot(keyslot))?)
    }

    pub(super) fn delete_parity_of(&self, keyslot: &KeyslotId) -> Result<(), RepositoryError> {
        match sidecar::key_of(&ObjectKey::keyslot(keyslot)) {
            Some(sidecar) => Ok(self.backend.delete(&sidecar)?),
            None => Ok(()),
        }
    }
}

/// The keyslot in force whose id begins with `prefix`; none where several do.
fn the_one_keyslot(fold: &Fold, prefix: &str) -> Option<KeyslotEntry> {
    let mut matches = fold.keyslots().filter(|entry| entry.keyslot.to_string().starts_with(prefix));
    match (matches.next(), matches.next()) {
        (Some(entry), None) if !prefix.is_empty() => Some(entry.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;

    use super::*;
    use crate::backend::testing::{Fault, FaultBackend, Operation};
    use crate::backend::{Backend, MemoryBackend};
    use crate::monitor::Silent;
    use crate::parity::{self, AddOptions};
    use crate::testing::{self, CHEAP};

    /// Simulation, seed 15313: whoever had opened the repository before another password was added could not remove that.
    #[test]
    fn a_keyslot_that_somebody_else_added_since_can_be_removed() {
        let storage = MemoryBackend::new();
        let adder = testing::init(Arc::new(storage.clone()), 1);
        let remover = testing::open(Arc::new(storage), 2).expect("it opens");
        let added = adder.add_keyslot(&Password::new(b"other".to_vec()), "other", CHEAP).expect("added");
        assert_eq!(remover.remove_keyslot(&added.to_string()).expect("removed"), added);
        let again = remover.remove_keyslot(&added.to_string());
        assert!(matches!(again, Err(RepositoryError::UnknownKeyslot(_))), "{again:?}");
    }

    /// The log says that it is removed, and the password would still open what is there of it.
    #[test]
    fn a_removal_that_was_broken_off_can_be_finished() {
        let storage = MemoryBackend::new();
        drop(testing::init(Arc::new(storage.clone()), 1));
        let backend = FaultBackend::new(storage.clone());
        let faults = backend.faults();
        let repository = testing::open(Arc::new(backend), 2).expect("it opens");
        let options = AddOptions { threads: 1, ..AddOptions::default() };
        parity::add(&repository, &options, &Silent).expect("added");
        // Parity goes first.
        for deletes in [1, 2] {
            let added =
                repository.add_keyslot(&Password::new(b"other".to_vec()), "other", CHEAP).expect("added");
            let key = ObjectKey::keyslot(&added);
            faults.inject(Fault::nth_of(Operation::Delete, deletes, ErrorKind::TimedOut));
            repository.remove_keyslot(&added.to_string()).expect_err("it cannot be deleted");
            assert!(repository.fold().keyslot(&added).is_none() && storage.stat(&key).is_ok());
            assert_eq!(repository.remove_keyslot(&added.to_string()[..12]).expect("finished"), added);
            for key in [key.clone(), sidecar::key_of(&key).expect("it had one")] {
                assert!(storage.stat(&key).expect_err("gone").is_not_found(), "{key}");
            }
            let again = repository.remove_keyslot(&added.to_string());
            assert!(matches!(again, Err(RepositoryError::UnknownKeyslot(_))), "{again:?}");
        }
    }
}
