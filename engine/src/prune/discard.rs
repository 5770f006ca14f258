//! What a prune wrote anew in vain, since the storage was full or another prune came first, is condemned and removed by two commits, as
//! every pack is, but without any time between: no segment ever listed it, so nobody reads it, and its writer is this run.
//!
//! It is never deleted without these commits: whoever comes across packs that nothing lists, such as a backup that takes over what a dead
//! writer left, may have made them part of the index. Then they stay.

use std::collections::{BTreeSet, HashSet};

use crate::format::commit::Change;
use crate::ids::PackId;
use crate::prune::survey::refuse_broken;
use crate::prune::{PruneError, PruneReport, remove};
use crate::repo::Repository;

/// Removes what nobody has taken over of these packs, which this process wrote, and takes all out of the set.
///
/// # Errors
/// [`PruneError`]: what is left of them is in the set still, and goes by another try or, as strays, by later prunes.
pub(super) fn run(repository: &Repository, useless: &mut BTreeSet<PackId>) -> Result<(), PruneError> {
    if useless.is_empty() {
        return Ok(());
    }
    repository.commit_or(&mut |fold| {
        refuse_broken(repository)?;
        let mut listed = HashSet::new();
        for segment in repository.index().everything() {
            for pack in segment.packs() {
                listed.insert(pack?.id);
            }
        }
        useless.retain(|pack| !listed.contains(pack) && !repository.is_pack_gone(pack));
        let packs: Vec<PackId> =
            useless.iter().filter(|pack| fold.condemned_since(pack).is_none()).copied().collect();
        Ok::<_, PruneError>(if packs.is_empty() {
            Vec::new()
        } else {
            vec![Change::PacksCondemned { packs }]
        })
    })?;
    let fold = repository.fold();
    let due = useless.iter().filter_map(|pack| Some((*pack, fold.condemned_since(pack)?))).collect();
    // They were not there before: to remove them frees nothing that could be told of.
    remove::run(repository, &due, false, &mut PruneReport::default())?;
    useless.clear();
    Ok(())
}
