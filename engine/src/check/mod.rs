//! Check: is everything there, and is it what it should be?
//!
//! - `log`: config, commit log, states and keyslots
//! - `segments`: index segments, and what they say of each pack
//! - `packs`: packs against segments, by their directories
//! - `reach`: everything that live snapshots need is in the index
//! - `homes`: whether chunks are, all of them looked up at once
//! - `read`: packs read in whole, every byte and every blob
//! - `parity`: whether parity is whole, and makes good what is damaged
//! - `doubt`: packs with something wrong, for whoever repairs them
//! - `ledger`: which packs were verified when, before this check and by it
//! - `known`: what the ledger knows, without a check
//! - `hits`: which files of which snapshots damage hits
//! - `newer`: what was committed meanwhile, and let be deleted what was still to be looked at
//!
//! Nothing is taken from what the repository has open: every object is read again from the storage. Memory is
//! proportional to the packs, to the parts of large directories and files, and with a bit each to the blobs.

mod context;
#[cfg(test)]
mod damage_tests;
mod doubt;
#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
pub(crate) mod fixture;
mod hits;
mod homes;
mod known;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod log;
mod newer;
mod options;
mod packs;
mod parity;
mod reach;
mod read;
mod segments;
#[cfg(test)]
mod tests;
pub(crate) mod trees;

pub(crate) use doubt::{Doubt, Judged, packs_in_doubt};
pub use known::{Readings, ReadingsError, readings};
pub use options::{CheckOptions, CheckReport, Damage, HitFile, ReadData};

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::backend::ObjectKey;
use crate::log::Fold;
use crate::monitor::Monitor;
use crate::repo::{Repository, RepositoryError};
use crate::reserve;
use crate::store::BlobReader;

use context::Context;
use ledger::Verified;

use crate::format::ledger::Method;

/// How often a check begins that is overtaken by others who prune or merge segments.
const ATTEMPTS: u32 = 10;

/// Checks a repository. Findings are in the report and counted in the monitor's progress; items are packs: each
/// one whose directory is compared, and once more each one that is read.
///
/// Packs whose directory or length is wrong are read in whole whatever the options say, to name what they lost.
///
/// Prunes may run meanwhile. Where one removed what was still to be looked at, the check starts over with what has taken its
/// place; packs that were read in whole are not read again.
///
/// # Errors
/// [`RepositoryError`] where the check could not be made: the storage cannot list its objects, or there is no room for what the
/// work takes. What it finds is in the report.
pub fn run(
    repository: &Repository,
    options: &CheckOptions,
    monitor: &dyn Monitor,
) -> Result<CheckReport, RepositoryError> {
    let context = Context::new(repository, options, monitor);
    let mut attempts = 1;
    loop {
        let report = attempt(&context)?;
        if !context.was_overtaken() || attempts == ATTEMPTS {
            return Ok(context.finish(report));
        }
        context.start_over();
        attempts += 1;
    }
}

/// Checks what the log says now. Says nothing of use if it is overtaken.
fn attempt(context: &Context<'_>) -> Result<CheckReport, RepositoryError> {
    let repository = context.repository;
    let log::Checked { fold, objects } = log::check(context)?;
    if repository.is_salvaged() && !context.found_damage() {
        context.damage(
            "log-damaged",
            &"log",
            "the repository can be opened only as far as its log can be read",
        );
    }
    // An altered entry can be brought back from a copy only as long as nothing is committed on top of it.
    let is_log_sound = !context.found_damage();
    let mut segments = segments::check(context, &fold)?;
    // With a part of the index, everything else would seem to be missing.
    let orphans = if context.is_over() { 0 } else { packs::check(context, &fold, &mut segments)? };
    let mut verified = Verified::load(context, &fold);
    if !context.is_over() {
        let present = segments.packs.iter().filter(|pack| pack.stored.is_some());
        verified.add(Method::Listed, present.map(|pack| (pack.entry.id, !pack.is_suspect)));
        verified.mark_suspects(&mut segments.packs);
        verified.note_strangers(context, &fold, &segments.packs);
    }
    let reader = BlobReader::new(
        Arc::clone(context.backend()),
        Arc::clone(repository.keys()),
        repository.id(),
        Arc::<crate::index::Index>::clone(&segments.index),
    );
    let mut read = std::collections::HashSet::new();
    if !context.is_over() {
        reach::check(context, &fold, &reader, &segments)?;
        for (method, packs) in read::check(context, &segments, &verified) {
            read.extend(packs.iter().map(|(pack, _)| *pack));
            verified.add(method, packs);
        }
    }
    parity::check(context, &fold, &segments, &read, objects)?;
    check_reserve(context, &fold);
    let (hit_files, more_hit_files) = hits::find(context, &fold, &reader);
    let (packs_never_read, oldest_read) = verified.oldest(&segments.packs);
    let mut ledger_error = None;
    if context.options.record
        && is_log_sound
        && !context.was_overtaken()
        && let Err(error) = verified.write(repository, &segments.packs)
    {
        ledger_error = Some(error.to_string());
    }
    Ok(CheckReport {
        packs_never_read,
        oldest_read,
        ledger_error,
        hit_files,
        more_hit_files,
        commits: fold.seq(),
        snapshots: fold.snapshots().count() as u64,
        unread_snapshots: context.unread_snapshots.load(Ordering::Relaxed),
        segments: fold.segments().count() as u64,
        packs: segments.packs.len() as u64,
        packs_read: context.packs_read.load(Ordering::Relaxed),
        bytes_read: context.bytes_read.load(Ordering::Relaxed),
        blobs_verified: context.blobs_verified.load(Ordering::Relaxed),
        orphan_packs: orphans,
        cancelled: context.was_cancelled(),
        overtaken: context.was_overtaken(),
        ..CheckReport::default()
    })
}

/// Notes that more or less room is kept free than should be. Nothing rests on it.
fn check_reserve(context: &Context<'_>, fold: &Fold) {
    let found = reserve::status(context.repository).map(|found| found.stored);
    let (code, message) = match (fold.reserve(), found) {
        (None, Ok(None) | Err(_)) => return,
        (None, Ok(stored)) => (
            "reserve-unwanted",
            format!(
                "no room is to be kept free, but it takes {} bytes: the next prune deletes it",
                stored.unwrap_or(0)
            ),
        ),
        (Some(wanted), Ok(Some(stored))) if stored > wanted => (
            "reserve-long",
            format!(
                "{wanted} bytes were to be kept free, but it takes {stored}: the next prune makes it shorter"
            ),
        ),
        (Some(wanted), Ok(Some(stored))) if stored == wanted => {
            let needed = reserve::needed(context.repository).unwrap_or(0);
            if needed <= stored {
                return;
            }
            let message = format!(
                "it has {stored} bytes, and where the storage is full, a prune may have to write {needed}: the next prune \
                 makes it longer if there is room"
            );
            ("reserve-short", message)
        }
        (Some(wanted), found) => {
            let (code, found) = match found {
                Ok(Some(stored)) => ("reserve-short", format!("it has {stored}")),
                Ok(None) => ("reserve-missing", "it is not there".to_owned()),
                Err(error) => ("reserve-missing", format!("it cannot be looked up: {error}")),
            };
            let message = format!(
                "{wanted} bytes were to be kept free, but {found}: the next prune makes it whole if there is room"
            );
            (code, message)
        }
    };
    context.note(code, &ObjectKey::reserve(), message);
}
