//! Config and keyslots: what a repository is unlocked with, of which parity may give back what is damaged.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::crypto::{KdfError, Password};
use crate::format::config::{CONFIG_LEN_MAX, Config};
use crate::format::keyslot::{KEYSLOT_LEN, Keyslot, KeyslotError};
use crate::ids::{KeyslotId, RepositoryId};
use crate::repo::RepositoryError;
use crate::sidecar;

/// A config and its bytes.
type StoredConfig = (Config, Vec<u8>);

/// Reads the config and opens a keyslot of the repository that it names. Each keyslot is bound to the repository's id, and so says whether the
/// config is right, or its parity, which anybody may have made: a lenient one takes the one of the two with which the password opens something.
///
/// # Errors
/// [`RepositoryError::DamagedConfig`] where the password opens something with what parity gives of the config only, and it is not lenient.
pub(super) fn open_config_and_keyslot(
    backend: &dyn Backend,
    password: &Password,
    but: &HashSet<KeyslotId>,
    is_lenient: bool,
) -> Result<(StoredConfig, (KeyslotId, Keyslot)), RepositoryError> {
    let config = open_config(backend, is_lenient)?;
    let open = |config: &StoredConfig| open_keyslot(backend, password, &config.0.repository, but, is_lenient);
    let wrong = match open(&config) {
        Err(error @ RepositoryError::WrongPassword { .. }) => error,
        opened => return Ok((config, opened?)),
    };
    let Some(other) = other_config(backend, &config.0, is_lenient) else { return Err(wrong) };
    match open(&other) {
        Err(_) => Err(wrong),
        Ok(opened) if is_lenient => Ok((other, opened)),
        Ok(_) => Err(RepositoryError::DamagedConfig { location: backend.location() }),
    }
}

/// Reads the config; if it is lenient, takes it from its parity where it is damaged. Whether it is the right one then, the keyslot says,
/// which is bound to the repository's id, and the first commit.
fn open_config(backend: &dyn Backend, is_lenient: bool) -> Result<StoredConfig, RepositoryError> {
    if is_lenient
        && let Some(bytes) = mended(backend, &ObjectKey::config())
        && let Ok(config) = Config::decode(&bytes)
    {
        return Ok((config, bytes));
    }
    let bytes = match backend.read(&ObjectKey::config(), CONFIG_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Err(absent(backend)?),
        Err(error) => return Err(error.into()),
    };
    let config = Config::decode(&bytes)
        .map_err(|source| RepositoryError::Config { location: backend.location(), source })?;
    Ok((config, bytes))
}

/// A config with another id than this one: what parity gives, or, where that was taken, the one that is stored.
fn other_config(backend: &dyn Backend, config: &Config, is_lenient: bool) -> Option<StoredConfig> {
    let key = ObjectKey::config();
    let bytes = if is_lenient { backend.read(&key, CONFIG_LEN_MAX).ok() } else { mended(backend, &key) }?;
    let other = Config::decode(&bytes).ok()?;
    (other.repository != config.repository).then_some((other, bytes))
}

/// What parity gives of a config or keyslot that is damaged.
fn mended(backend: &dyn Backend, key: &ObjectKey) -> Option<Vec<u8>> {
    let mending = sidecar::mend(backend, key).ok().filter(|mending| !mending.is_intact())?;
    mending.bytes(CONFIG_LEN_MAX).ok()
}

/// Tries the password on every keyslot that does not take more memory than it may.
fn open_keyslot(
    backend: &dyn Backend,
    password: &Password,
    repository: &RepositoryId,
    but: &HashSet<KeyslotId>,
    is_lenient: bool,
) -> Result<(KeyslotId, Keyslot), RepositoryError> {
    let mut keys = Vec::new();
    backend.list(Folder::Keys, None, &mut |info| {
        keys.push(info.key);
        ControlFlow::Continue(())
    })?;
    let (mut tried, mut problems, mut too_large) = (0, Vec::new(), Vec::new());
    for key in keys {
        let Some(id) = key.keyslot_id().filter(|id| !but.contains(id)) else { continue };
        let object = match backend.read(&key, KEYSLOT_LEN as u64) {
            Ok(object) if Keyslot::id(&object) == id => Ok(object),
            Ok(_) => Err(format!("{key} is damaged: its bytes are not those of its id")),
            Err(error) => Err(error.to_string()),
        };
        let mend = || if is_lenient { mended(backend, &key) } else { None };
        let object = match object.or_else(|problem| mend().ok_or(problem)) {
            Ok(object) => object,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        match Keyslot::unwrap(&object, password, repository) {
            Ok(slot) => return Ok((id, slot)),
            Err(KeyslotError::WrongPassword) => tried += 1,
            Err(KeyslotError::Kdf(KdfError::Memory { needed, allowed })) => {
                too_large.push((needed, allowed, id));
            }
            Err(error) => problems.push(format!("{key}: {error}")),
        }
    }
    let location = backend.location();
    // The costliest: with the memory for that all can be tried.
    too_large.sort_unstable();
    if let Some((needed, allowed, keyslot)) = too_large.pop() {
        let others = others(tried, &too_large, problems);
        return Err(RepositoryError::KeyslotMemory { location, keyslot, needed, allowed, others });
    }
    if tried > 0 {
        let problems = match problems.as_slice() {
            [] => String::new(),
            problems => format!(", but it may be that of another: {}", problems.join("; ")),
        };
        return Err(RepositoryError::WrongPassword { location, keyslots: tried, problems });
    }
    if problems.is_empty() {
        problems.push("the folder keys is empty".into());
    }
    Err(RepositoryError::NoKeyslot { location, problems: problems.join("; ") })
}

/// What became of the password on all keyslots but one, to go on with a sentence.
fn others(tried: usize, too_large: &[(u32, u64, KeyslotId)], problems: Vec<String>) -> String {
    let tried = match tried {
        0 => None,
        1 => Some("it does not open the other one that was tried".to_owned()),
        tried => Some(format!("it opens none of the {tried} others that were tried")),
    };
    let costly = too_large.iter().map(|(needed, _, id)| format!("keyslot {id} takes {needed} KiB, too"));
    let told: Vec<_> = tried.into_iter().chain(costly).chain(problems).collect();
    if told.is_empty() { String::new() } else { format!("; {}", told.join("; ")) }
}

/// An object in one of these folders, if there is any.
pub(super) fn first_of(backend: &dyn Backend, folders: &[Folder]) -> Result<Option<ObjectKey>, BackendError> {
    let mut first = None;
    for folder in folders {
        backend.list(*folder, None, &mut |info| {
            first = Some(info.key);
            ControlFlow::Break(())
        })?;
        if first.is_some() {
            break;
        }
    }
    Ok(first)
}

/// Without a config there is no repository; what else there is tells whether there was one.
pub(super) fn absent(backend: &dyn Backend) -> Result<RepositoryError, BackendError> {
    // Keyslots are stored before the config: an init that ended in between leaves one.
    let location = backend.location();
    Ok(match first_of(backend, &[Folder::Log, Folder::Index, Folder::State, Folder::Packs])? {
        Some(found) => RepositoryError::NoConfig { location, found },
        None => RepositoryError::Absent { location },
    })
}
