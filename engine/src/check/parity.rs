//! The part of the check that looks at parity: whether there is enough of it for what is damaged, and whether it is whole itself.
//! Nothing rests on parity, so what is wrong with it is worth knowing and no damage.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::check::ReadData;
use crate::check::context::Context;
use crate::check::log::Hashed;
use crate::check::segments::Segments;
use crate::ids::{PackId, ParityId};
use crate::log::Fold;
use crate::sidecar::{self, MendError};

/// Damaged objects that are tried at most: each is read in whole.
const TRIED_MAX: usize = 1000;

/// Looks at parity. `read` are the packs that were read by this check, `others` objects that it has looked at and found sound.
pub(super) fn check(
    context: &Context<'_>,
    fold: &Fold,
    segments: &Segments,
    read: &HashSet<PackId>,
    others: Vec<Hashed>,
) -> Result<(), BackendError> {
    let mut sidecars: HashSet<ParityId> = HashSet::new();
    let listed = context.list(Folder::Parity, &mut |key, _| sidecars.extend(key.parity_id()));
    if let Err(error) = listed {
        context.note("parity-damaged", &Folder::Parity.name(), error.to_string());
        try_damaged(context);
        return Ok(());
    }
    if sidecars.is_empty() && fold.parity().is_none() {
        return Ok(());
    }
    let has_sidecar = |key: &ObjectKey| {
        sidecar::key_of(key).and_then(|key| key.parity_id()).is_some_and(|id| sidecars.contains(&id))
    };
    if fold.parity().is_some() {
        let missing = missing(&stored(context, fold, segments)?, &has_sidecar);
        if missing > 0 {
            let what =
                if missing == 1 { "1 object has".to_owned() } else { format!("{missing} objects have") };
            context.note("parity-missing", &"parity", format!("{what} no parity; `parity add` makes it"));
        }
    }
    let mut objects: Vec<Hashed> = segments
        .packs
        .iter()
        .filter(|pack| read.contains(&pack.entry.id))
        .map(|pack| (ObjectKey::pack(&pack.entry.id), *pack.entry.id.as_bytes()))
        .collect();
    if context.options.read_data != ReadData::No {
        objects.push((ObjectKey::config(), *fold.config().as_bytes()));
        objects.extend(others);
        objects.extend(fold.ledger().map(|id| (ObjectKey::ledger(&id), *id.as_bytes())));
        objects.extend(
            fold.segments().map(|info| (ObjectKey::segment(&info.segment), *info.segment.as_bytes())),
        );
    }
    objects.retain(|(key, _)| has_sidecar(key));
    context.spread(&objects, || (), |(), (key, hash), _: &mut Vec<()>| examine(context, key, hash));
    try_damaged(context);
    Ok(())
}

/// What should have parity, with lengths as far as they are known.
fn stored(
    context: &Context<'_>,
    fold: &Fold,
    segments: &Segments,
) -> Result<Vec<(ObjectKey, u64)>, BackendError> {
    let packs = segments.packs.iter().filter(|pack| pack.stored.is_some());
    let mut all: Vec<_> = packs.map(|pack| (ObjectKey::pack(&pack.entry.id), pack.entry.size)).collect();
    all.extend(fold.segments().map(|info| (ObjectKey::segment(&info.segment), info.bytes)));
    all.extend(fold.ledger().map(|id| (ObjectKey::ledger(&id), 1)));
    all.push((ObjectKey::config(), 1));
    all.extend(fold.keyslots().map(|entry| (ObjectKey::keyslot(&entry.keyslot), 1)));
    for folder in [Folder::Log, Folder::State] {
        context.backend().list(folder, None, &mut |info| {
            // The last ones may be just being covered.
            let is_old = info.key.sequence().is_some_and(|seq| seq > 0 && seq < fold.seq());
            all.extend(is_old.then_some((info.key, info.size)));
            ControlFlow::Continue(())
        })?;
    }
    Ok(all)
}

/// How many of these have no parity that could have some: segments of more than a gibibyte have none.
fn missing(objects: &[(ObjectKey, u64)], has_sidecar: &dyn Fn(&ObjectKey) -> bool) -> usize {
    let is_missing = |(key, size): &(ObjectKey, u64)| sidecar::can_cover(key, *size) && !has_sidecar(key);
    objects.iter().filter(|object| is_missing(object)).count()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SegmentId;

    #[test]
    fn what_is_too_long_for_parity_lacks_none() {
        let segment = |n| ObjectKey::segment(&SegmentId::from_bytes([n; 32]));
        let objects = vec![(segment(1), 1 << 30), (segment(2), (1 << 30) + 1), (ObjectKey::log(1), 300)];
        assert_eq!(missing(&objects, &|_| false), 2);
        assert_eq!(missing(&objects, &|key| *key == ObjectKey::log(1)), 1);
    }
}
