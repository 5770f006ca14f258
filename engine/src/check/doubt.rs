//! The part of the check that a repair of packs begins with: which packs are not what the index says of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::context::Context;
use crate::check::ledger::Verified;
use crate::check::segments::Segments;
use crate::check::{ATTEMPTS, CheckOptions, CheckReport, Damage, packs, read, segments};
use crate::format::segment::PackEntry;
use crate::ids::PackId;
use crate::monitor::Monitor;
use crate::repo::{Repository, RepositoryError};

/// What is wrong with a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Nothing that was found.
    None,
    /// It is not there.
    Missing,
    /// It is there, but is not or does not give what it should: what was found first.
    Damaged(String),
}

/// All packs of the index.
#[derive(Debug)]
pub(crate) struct PacksInDoubt {
    /// What segments say of each, and what is wrong with it.
    pub packs: BTreeMap<PackId, (PackEntry, Doubt)>,
    /// The index is damaged or contradicts the packs: by it they cannot be judged.
    pub index_damage: Option<Damage>,
    /// Not all was looked at.
    pub cancelled: bool,
}

/// Looks at all packs that live segments list, and reads those in whole that the options choose, that are named, or that
/// something is wrong with.
///
/// # Errors
/// [`RepositoryError`] where the storage cannot list its objects, or others removed packs all the time.
pub(crate) fn packs_in_doubt(
    repository: &Repository,
    options: &CheckOptions,
    named: &BTreeSet<PackId>,
    monitor: &dyn Monitor,
) -> Result<PacksInDoubt, RepositoryError> {
    for _ in 0..ATTEMPTS {
        let context = Context::new(repository, options, monitor);
        let segments = look(&context, named)?;
        if !context.was_overtaken() {
            return Ok(in_doubt(context, &segments));
        }
        repository.refresh()?;
    }
    Err(RepositoryError::Conflict)
}

fn look(context: &Context<'_>, named: &BTreeSet<PackId>) -> Result<Segments, RepositoryError> {
    let fold = context.repository.fold();
    context.go_by(&fold);
    let mut segments = segments::check(context, &fold)?;
    let verified = Verified::load(context, &fold);
    if !context.is_over() {
        packs::check(context, &fold, &mut segments)?;
        verified.mark_suspects(&mut segments.packs);
    }
    for pack in segments.packs.iter_mut().filter(|pack| named.contains(&pack.entry.id)) {
        pack.is_suspect = true;
    }
    if !context.is_over() {
        read::check(context, &segments, &verified);
    }
    Ok(segments)
}

fn in_doubt(context: Context<'_>, segments: &Segments) -> PacksInDoubt {
    let cancelled = context.was_cancelled();
    let damaged = std::mem::take(&mut context.bad().damaged);
    let doubt = |entry: PackEntry, is_there: bool| match damaged.get(&entry.id) {
        _ if !is_there => (entry.id, (entry, Doubt::Missing)),
        Some(problem) => (entry.id, (entry, Doubt::Damaged(problem.clone()))),
        None => (entry.id, (entry, Doubt::None)),
    };
    let packs = segments.packs.iter().map(|pack| doubt(pack.entry, pack.stored.is_some())).collect();
    let is_index = |finding: &Damage| {
        finding.is_damage && matches!(finding.code, "segment-damaged" | "segment-missing" | "index-wrong")
    };
    let report = context.finish(CheckReport::default());
    let index_damage = report.findings.into_iter().find(is_index);
    PacksInDoubt { packs, index_damage, cancelled }
}
