//! The part of the check that a repair of packs begins with: which packs are not what the index says of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::context::Context;
use crate::check::ledger::Verified;
use crate::check::segments::{KnownPack, Segments};
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

/// A pack of the index.
#[derive(Debug)]
pub(crate) struct Judged {
    /// What segments say of it.
    pub entry: PackEntry,
    /// What is wrong with it.
    pub doubt: Doubt,
    /// Nobody lists it but appenders.
    pub is_appended: bool,
}

/// All packs of the index.
#[derive(Debug)]
pub(crate) struct PacksInDoubt {
    /// Each of them.
    pub packs: BTreeMap<PackId, Judged>,
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
    let doubt = |pack: &KnownPack| match damaged.get(&pack.entry.id) {
        _ if pack.stored.is_none() => Doubt::Missing,
        Some(problem) => Doubt::Damaged(problem.clone()),
        None => Doubt::None,
    };
    let judge = |pack: &KnownPack| {
        let judged = Judged { entry: pack.entry, doubt: doubt(pack), is_appended: pack.is_appended() };
        (pack.entry.id, judged)
    };
    let packs = segments.packs.iter().map(judge).collect();
    let is_index = |finding: &Damage| {
        finding.is_damage && matches!(finding.code, "segment-damaged" | "segment-missing" | "index-wrong")
    };
    let report = context.finish(CheckReport::default());
    let index_damage = report.findings.into_iter().find(is_index);
    PacksInDoubt { packs, index_damage, cancelled }
}
