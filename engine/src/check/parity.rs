//! The part of the check that looks at parity: whether there is enough of it for what is damaged, and whether it is whole itself.
//! Nothing rests on parity, so what is wrong with it is worth knowing and no damage.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::check::ReadData;
use crate::check::context::Context;
use crate::check::segments::Segments;
use crate::ids::{PackId, ParityId};
use crate::log::Fold;
use crate::sidecar::{self, MendError};

/// Damaged objects that are tried at most: each is read in whole.
const TRIED_MAX: usize = 1000;

/// Looks at parity. `read` are the packs that were read by this check.
pub(super) fn check(
    context: &Context<'_>,
    fold: &Fold,
    segments: &Segments,
    read: &HashSet<PackId>,
) -> Result<(), BackendError> {
    let mut sidecars: HashSet<ParityId> = HashSet::new();
    context.list(Folder::Parity, &mut |key, _| sidecars.extend(key.parity_id()))?;
    if sidecars.is_empty() && fold.parity().is_none() {
        return Ok(());
    }
    let has_sidecar = |key: &ObjectKey| {
        sidecar::key_of(key).and_then(|key| key.parity_id()).is_some_and(|id| sidecars.contains(&id))
    };
    if fold.parity().is_some() {
        count_missing(context, fold, segments, &has_sidecar)?;
    }
    let mut objects: Vec<(ObjectKey, [u8; 32])> = segments
        .packs
        .iter()
        .filter(|pack| read.contains(&pack.entry.id))
        .map(|pack| (ObjectKey::pack(&pack.entry.id), *pack.entry.id.as_bytes()))
        .collect();
    if context.options.read_data != ReadData::No {
        objects.extend(
            fold.segments().map(|info| (ObjectKey::segment(&info.segment), *info.segment.as_bytes())),
        );
    }
    objects.retain(|(key, _)| has_sidecar(key));
    context.spread(&objects, || (), |(), (key, hash), _: &mut Vec<()>| examine(context, key, hash));
    try_damaged(context);
    Ok(())
}

/// Says how many objects have no parity although it is wanted.
fn count_missing(
    context: &Context<'_>,
    fold: &Fold,
    segments: &Segments,
    has_sidecar: &dyn Fn(&ObjectKey) -> bool,
) -> Result<(), BackendError> {
    let packs = segments.packs.iter().filter(|pack| pack.stored.is_some());
    let packs = packs.map(|pack| ObjectKey::pack(&pack.entry.id));
    let of_index = fold.segments().map(|info| ObjectKey::segment(&info.segment));
    let mut missing = packs.chain(of_index).filter(|key| !has_sidecar(key)).count();
    context.backend().list(Folder::Log, None, &mut |info| {
        // The last ones may be just being covered.
        let is_old = info.key.sequence().is_some_and(|seq| seq > 0 && seq < fold.seq());
        missing += usize::from(is_old && !has_sidecar(&info.key));
        ControlFlow::Continue(())
    })?;
    if missing > 0 {
        let what = if missing == 1 { "1 object has".to_owned() } else { format!("{missing} objects have") };
        context.note("parity-missing", &"parity", format!("{what} no parity; `parity add` makes it"));
    }
    Ok(())
}

fn examine(context: &Context<'_>, key: &ObjectKey, hash: &[u8; 32]) {
    let problem = match sidecar::examine(&**context.backend(), key, hash) {
        Ok(Some(Some(problem))) => problem,
        Ok(_) => return,
        Err(error) => error.to_string(),
    };
    if let Some(sidecar) = sidecar::key_of(key) {
        let message = format!("the parity of {key} is damaged: {problem}; `parity add` makes it again");
        context.note("parity-damaged", &sidecar, message);
    }
}

/// Says of each damaged object that has parity whether it can be made good.
fn try_damaged(context: &Context<'_>) {
    let keys: BTreeSet<ObjectKey> = context.damaged_objects().into_iter().take(TRIED_MAX).collect();
    for key in keys {
        if context.is_over() {
            return;
        }
        let tried = sidecar::mend(&**context.backend(), &key).and_then(|mending| {
            mending.test()?;
            Ok(mending)
        });
        match tried {
            // What is wrong with it is not in its bytes.
            Ok(mending) if mending.is_intact() => {}
            Ok(_) => {
                let command = match key.folder() {
                    Some(Folder::Packs) => "repair packs",
                    _ => "repair objects",
                };
                context.note("repairable", &key, format!("parity makes it good: `{command}` does that"));
            }
            Err(MendError::None) => {}
            Err(error) => context.note("not-repairable", &key, error.to_string()),
        }
    }
}
