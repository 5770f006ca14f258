//! How much parity there is.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::backend::Folder;
use crate::format::parity::Overhead;
use crate::ids::ParityId;
use crate::parity::{CoverError, coverable};
use crate::repo::Repository;
use crate::sidecar;

/// Objects of one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// The folder.
    pub folder: Folder,
    /// Objects that have a sidecar.
    pub covered: u64,
    /// Objects that have none.
    pub uncovered: u64,
    /// Objects that cannot have any: segments longer than a gibibyte, which can be rebuilt.
    pub too_long: u64,
    /// Bytes of the sidecars.
    pub bytes: u64,
}

/// How much parity there is. Whether it is worth anything, a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How much is wanted, if any.
    pub overhead: Option<Overhead>,
    /// Packs, segments, commits, states, ledgers, keyslots: the config counts as one of these.
    pub coverage: Vec<Coverage>,
    /// Sidecars of anything else: a prune deletes those whose objects are gone.
    pub others: u64,
    /// Their bytes.
    pub others_bytes: u64,
}

/// Counts objects that have a sidecar and those that have none.
///
/// # Errors
/// [`CoverError`] where the repository cannot be listed or its log not be read.
pub fn status(repository: &Repository) -> Result<Status, CoverError> {
    let mut sidecars: HashMap<ParityId, u64> = HashMap::new();
    repository.backend().list(Folder::Parity, None, &mut |info| {
        let id = info.key.parity_id().filter(|_| info.key.is_well_formed());
        sidecars.extend(id.map(|id| (id, info.size)));
        ControlFlow::Continue(())
    })?;
    repository.refresh()?;
    let folders = [Folder::Packs, Folder::Index, Folder::Log, Folder::State, Folder::Ledger, Folder::Keys];
    let none = |folder| Coverage { folder, covered: 0, uncovered: 0, too_long: 0, bytes: 0 };
    let mut coverage = folders.map(none);
    // What cannot be read is for the check to report.
    for object in coverable(repository, &mut Vec::new())? {
        let id = sidecar::key_of(&object.key).and_then(|key| key.parity_id());
        let folder = object.key.folder().unwrap_or(Folder::Keys);
        let Some(of_folder) = coverage.iter_mut().find(|one| one.folder == folder) else { continue };
        match id.and_then(|id| sidecars.remove(&id)) {
            Some(bytes) => {
                of_folder.covered += 1;
                of_folder.bytes += bytes;
            }
            // The length is not known of all; who is asked about it has one.
            None if object.size > 0 && !sidecar::can_cover(&object.key, object.size) => {
                of_folder.too_long += 1;
            }
            None => of_folder.uncovered += 1,
        }
    }
    Ok(Status {
        overhead: repository.fold().parity(),
        coverage: coverage.to_vec(),
        others: sidecars.len() as u64,
        others_bytes: sidecars.values().sum(),
    })
}
