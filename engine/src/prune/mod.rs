//! Prune: give back the space of what no snapshot needs any more.
//!
//! - `at_work`: who is waited for before anything is removed
//! - `marks`: which blobs live snapshots need, one bit for each index entry
//! - `survey`: what there is: packs and segments, listed and stray, and how much of each pack is needed
//! - `plan`: what to do about it, as a value that can be shown
//! - `copy`: what is needed of mostly dead packs, written anew
//! - `condemn`: the commit that takes packs out of the index
//! - `discard`: what was written anew and is of no use
//! - `forecast`: what all this would come to, for a dry run
//! - `remove`: the commit, some time later, that lets them be deleted, and the deletion
//! - `sweep`: parity of what is gone
//!
//! Safety rests on the order of commits alone, see `format-spec`, Ordering rules: the marks hold for the log up to a
//! commit, and whatever came after it is looked at before anything is published. No backup is ever in the way, nor is any
//! held up. Clocks decide only how long condemned packs are kept out of politeness to slow readers.

mod at_work;
mod condemn;
mod copy;
mod discard;
#[cfg(test)]
mod doubt_tests;
mod forecast;
#[cfg(test)]
pub(crate) mod forecast_tests;
mod marks;
mod options;
mod plan;
#[cfg(test)]
mod race_tests;
mod remove;
#[cfg(test)]
mod stream_race_tests;
mod survey;
mod sweep;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

pub use options::{Limit, PruneError, PruneOptions, PruneReport};
pub use plan::Plan;
#[cfg(test)]
pub(crate) use sweep::run as sweep;

use std::collections::BTreeSet;

use crate::backend;
use crate::footprint;
use crate::ids::PackId;
use crate::monitor::{Monitor, Problem};
use crate::repo::Repository;
use crate::reserve::{self, Refill};
use crate::vet::{self, Strictness};

use at_work::AtWork;
use condemn::{Condemned, Outcome};
use copy::Copies;
use survey::Survey;

/// How often the plan is made anew because another prune came first.
const ATTEMPTS: u32 = 5;

/// Share of the reserve that packs which are written anew may take at most, where that is all the room there is: one in this many
/// bytes. The rest is for the index and the commits.
const RESERVE_SHARE: u64 = 2;

/// Prunes. Packs condemned long enough ago are removed first, so that their space can be used for what is written anew. Where the
/// storage is full all the same, this is done in the room that is kept in [`reserve`], and no more is written anew than fits in there.
/// What was written in vain does not stay, if there is room for the commits that say so.
///
/// # Errors
/// [`PruneError`]: nothing that any snapshot needs was touched.
pub fn run(
    repository: &Repository,
    options: &PruneOptions,
    monitor: &dyn Monitor,
) -> Result<PruneReport, PruneError> {
    repository.live_in(options.memory);
    let mut report = PruneReport { dry_run: options.dry_run, ..PruneReport::default() };
    let mut useless = BTreeSet::new();
    if options.dry_run {
        once(repository, options, monitor, &mut report, &mut useless)?;
        return Ok(report);
    }
    repository.require_sound_log()?;
    let mut deed = |room: u64| {
        let mut options = options.clone();
        if room > 0 {
            let limit = room.saturating_sub(reserve::needed(repository)?).min(room / RESERVE_SHARE);
            options.max_repack_size = Some(options.max_repack_size.map_or(limit, |size| size.min(limit)));
        }
        let result = once(repository, &options, monitor, &mut report, &mut useless);
        if result.as_ref().is_err_and(|error| backend::is_out_of_room(error)) {
            // Where there is no room even for this, it is tried again once there is.
            let _ = discard::run(repository, &mut useless);
        }
        result
    };
    let (mut result, mut spent) = reserve::spend(repository, Refill::Always, &mut deed);
    let is_full = result.as_ref().is_err_and(|error: &PruneError| backend::is_out_of_room(error));
    let mut given_up = sweep::Swept::default();
    if is_full && options.delete_first {
        given_up = sweep::of_packs(repository)?;
        (result, spent) = reserve::spend(repository, Refill::Always, &mut deed);
    }
    result?;
    report.bytes_deleted += given_up.bytes;
    Ok(PruneReport { reserve: spent, sidecars_given_up: given_up.sidecars, ..report })
}

/// Prunes as far as there is room. Packs that turn out to have been written in vain are added to those that are `useless`.
fn once(
    repository: &Repository,
    options: &PruneOptions,
    monitor: &dyn Monitor,
    report: &mut PruneReport,
    useless: &mut BTreeSet<PackId>,
) -> Result<(), PruneError> {
    repository.refresh()?;
    let mut at_work = match AtWork::verify(repository) {
        Err(PruneError::ForgedState) if !options.dry_run => {
            // All that states do is to spare reading. Others would begin with it, and publish what follows from it.
            repository.delete_states()?;
            return Err(PruneError::ForgedState);
        }
        verified => verified?,
    };
    // What lost commits need would be taken for unneeded.
    repository.require_all_commits(&repository.fold(), "Nothing was pruned")?;
    if !options.dry_run && !repository.index().appended().is_empty() {
        let before = footprint::of_segments(repository);
        let unfinished = at_work.unfinished((repository.environment().now)());
        let vetted = vet::run_but(repository, Strictness::WholeSegments, &unfinished, monitor)?;
        report.take_segments(&before, &footprint::of_segments(repository));
        (report.segments_vetted, report.segments_untrue) =
            (report.segments_vetted + vetted.segments, vetted.untrue);
    }
    let due = remove::due(repository, options, &mut at_work, &|_| true)?;
    remove::run(repository, &due, options.dry_run, report)?;
    for _ in 0..ATTEMPTS {
        discard::run(repository, useless)?;
        let base = repository.fold().seq();
        match attempt(repository, options, &mut at_work, monitor, report, useless) {
            Ok(Some(condemned)) => {
                if options.grace.is_zero() {
                    // Strays may belong to a writer at work: they wait for another run.
                    let is_wanted = |pack: &PackId| condemned.was_listed(pack);
                    let due = remove::due(repository, options, &mut at_work, &is_wanted)?;
                    remove::run(repository, &due, false, report)?;
                }
                tell_awaited(repository, options, &mut at_work, monitor)?;
                match sweep::run(repository) {
                    Ok(swept) => {
                        report.sidecars_removed = swept.sidecars;
                        report.bytes_deleted += swept.bytes;
                    }
                    Err(error) => repository.note_parity_trouble(format!(
                        "parity of what is gone could not be looked for: {error}; a later prune deletes it"
                    )),
                }
                report.take_waiting(repository, repository.fold().condemned().map(|(pack, _)| *pack));
                return Ok(());
            }
            Ok(None) if options.dry_run => return Ok(()),
            Ok(None) => repository.refresh()?,
            // What could not be read may be what another prune has removed.
            Err(error @ (PruneError::Read(_) | PruneError::Reach(_) | PruneError::Missing { .. })) => {
                repository.refresh()?;
                if repository.last_prune() <= base {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(PruneError::Overtaken)
}

/// Plans and condemns. None where there is nothing to do it with: in a dry run, or because another prune came first.
fn attempt(
    repository: &Repository,
    options: &PruneOptions,
    at_work: &mut AtWork,
    monitor: &dyn Monitor,
    report: &mut PruneReport,
    useless: &mut BTreeSet<PackId>,
) -> Result<Option<Condemned>, PruneError> {
    let mut survey = Survey::take(repository, options)?;
    at_work.read_on(repository, survey.base)?;
    if at_work.has_appender((repository.environment().now)()) {
        survey.spare_strays_for_recipients(repository);
    }
    survey.mark(repository, options, monitor)?;
    let plan = plan::make(&survey, options);
    report.take_plan(&plan);
    if options.dry_run {
        forecast::tell(repository, &survey, &plan, options, at_work, report)?;
        return Ok(None);
    }
    let mut copies = Copies::default();
    let written = copies.write(repository, &survey, &plan, options, monitor, report);
    match written.and_then(|()| condemn::run(repository, &survey, &plan, &copies, options, report)) {
        Ok(Outcome::Done(condemned)) => {
            report.take_condemned(&condemned);
            Ok(Some(condemned))
        }
        outcome => {
            useless.append(&mut copies.written);
            outcome.map(|_| None)
        }
    }
}

/// Tells of packs that would have been removed if nobody was waited for.
fn tell_awaited(
    repository: &Repository,
    options: &PruneOptions,
    at_work: &mut AtWork,
    monitor: &dyn Monitor,
) -> Result<(), PruneError> {
    let (packs, runs) = remove::awaiting(repository, options, at_work)?;
    if packs > 0 {
        let message = format!(
            "{packs} condemned packs stay for now: {runs} backups at work may still need something in them and cannot read their source \
             again. A later prune removes them, after a day in any case; one with `--no-wait` at once, but then such a backup may fail"
        );
        monitor.problem(&Problem { code: "backup-at-work", path: None, message, is_error: false });
    }
    Ok(())
}
