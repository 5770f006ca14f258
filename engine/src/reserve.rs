//! The reserve: an object that keeps room free on the storage, so that forgetting and pruning can be written down when nothing else
//! can.
//!
//! How long it is to be is a policy in the log. Its bytes are random, so that no file system can store them as fewer, and nobody reads
//! them: without it a repository lacks nothing. [`forget`](crate::forget) and [`prune`](crate::prune) delete it when the storage is full, do their work in
//! the room that this makes, and make it again; a backup never uses that room.
//!
//! No pack can be deleted before an index without it is stored, and most of the index may be one segment: a prune [needs](needed)
//! about as much room as the index takes. So whoever makes the index longer, or has just made room, also makes the reserve longer where
//! the index comes near it (`keep_up`).

use std::ops::ControlFlow;

use crate::backend::{self, BackendError, Folder, ObjectKey};
use crate::crypto::random;
use crate::footprint;
use crate::format::commit::{Change, RESERVE_LEN_MAX};
use crate::format::record::RECORD_OBJECT_LEN_MAX;
use crate::repo::{Repository, RepositoryError};

/// The shortest reserve that can be asked for: a prune has at least an index segment and some commits to write.
pub const LEN_MIN: u64 = 1 << 20;

/// The length to ask for where nobody says another one: enough for an index of some 60,000 blobs, and it grows with the index.
pub const LEN_USUAL: u64 = 4 << 20;

/// How many times the length that is needed one has that outgrew the one before.
const GROWTH: u64 = 2;

/// Share of what is needed that a reserve has to be longer than that: one in so many bytes. Until it is made longer, the index can grow.
const HEADROOM_SHARE: u64 = 4;

/// Share of its length that has to be free beside a reserve for it to be made: one in so many bytes. Others want to store something,
/// too.
const SPARE_SHARE: u64 = 8;

/// Bytes that are written at a time.
const PIECE_LEN: usize = 1 << 20;

/// The reserve as it is wanted, and as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Bytes that are to be kept free; none where nobody asked for any.
    pub wanted: Option<u64>,
    /// Length of the object; none where there is none.
    pub stored: Option<u64>,
}

/// What became of the reserve while something else was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Bytes that were given back because the storage had no more room; 0 where it had.
    pub given_back: u64,
    /// Bytes that are not kept free in the end although they should be.
    pub lacking: u64,
}

/// When a reserve that is not whole is made whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refill {
    /// Where it was given back.
    IfSpent,
    /// Whatever the reason is that it is not: room was made just now.
    Always,
}

/// The reserve is not as it was to be.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Nobody could make use of so little, or have so much.
    #[error(
        "a reserve of {bytes} bytes is out of bounds: expected from {LEN_MIN} (1 MiB) to {RESERVE_LEN_MAX} (1 TiB); nothing was changed"
    )]
    Length {
        /// What was asked for.
        bytes: u64,
    },
    /// The storage has no room for it.
    #[error(
        "the storage has no room for a reserve of {wanted} bytes, {stored} are kept free: the next prune makes it whole if there is room by then"
    )]
    NoRoom {
        /// Bytes that were asked for.
        wanted: u64,
        /// Bytes that are kept free.
        stored: u64,
    },
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl From<BackendError> for ReserveError {
    fn from(error: BackendError) -> Self {
        Self::Repository(error.into())
    }
}

/// Whether a reserve can have this length.
///
/// # Errors
/// [`ReserveError::Length`] where it cannot.
pub fn check_len(bytes: u64) -> Result<(), ReserveError> {
    if (LEN_MIN..=RESERVE_LEN_MAX).contains(&bytes) { Ok(()) } else { Err(ReserveError::Length { bytes }) }
}

/// The reserve as it is wanted and as it is.
///
/// # Errors
/// [`RepositoryError`] where the storage fails.
pub fn status(repository: &Repository) -> Result<Status, RepositoryError> {
    Ok(Status { wanted: repository.fold().reserve(), stored: stored(repository)? })
}

/// How many bytes a prune may have to write before it can delete any pack, if it writes none anew: the index with its parity, and a
/// state of the log. What appenders added to the index is not in it.
///
/// # Errors
/// [`BackendError`] where the storage cannot list the states.
pub fn needed(repository: &Repository) -> Result<u64, BackendError> {
    let fold = repository.fold();
    // Appenders may say of theirs what they like: nobody is to fill the storage because of it.
    let known = fold.segments().filter(|segment| fold.appended_by(&segment.segment).is_none());
    let index =
        known.fold(0u64, |sum, segment| sum.saturating_add(footprint::of_new(repository, segment.bytes)));
    let mut state = 0;
    repository.backend().list(Folder::State, None, &mut |info| {
        state = info.size.min(RECORD_OBJECT_LEN_MAX).max(state);
        ControlFlow::Continue(())
    })?;
    Ok(index.saturating_add(state))
}

/// How many bytes are not kept free that should be: as many as are wanted, and where any are, as a prune [needs](needed).
///
/// # Errors
/// [`BackendError`] where the storage fails.
pub fn lacking(repository: &Repository) -> Result<u64, BackendError> {
    let Some(wanted) = repository.fold().reserve() else { return Ok(0) };
    Ok(wanted.max(needed(repository)?).saturating_sub(stored(repository)?.unwrap_or(0)))
}

/// Length of the object; none where there is none.
fn stored(repository: &Repository) -> Result<Option<u64>, BackendError> {
    backend::size_of(&**repository.backend(), &ObjectKey::reserve())
}

/// Keeps so many bytes free from now on, whatever was kept before; more, where a prune [needs](needed) more.
///
/// # Errors
/// [`ReserveError`]. Where there is no room for all of it, as much as there is room for is kept free, and the wish stands.
pub fn set(repository: &Repository, bytes: u64) -> Result<Status, ReserveError> {
    check_len(bytes)?;
    let wanted = outgrown(bytes, needed(repository)?).unwrap_or(bytes);
    wish(repository, wanted)?;
    fill(repository, wanted)?;
    let after = status(repository)?;
    match after.stored.unwrap_or(0) {
        stored if stored < wanted => Err(ReserveError::NoRoom { wanted, stored }),
        _ => Ok(after),
    }
}

/// How long a reserve is to be instead of `wanted` where that is too near to what is needed.
fn outgrown(wanted: u64, needed: u64) -> Option<u64> {
    let is_outgrown = wanted < needed.saturating_add(needed / HEADROOM_SHARE);
    is_outgrown
        .then(|| needed.saturating_mul(GROWTH).clamp(LEN_MIN, RESERVE_LEN_MAX))
        .filter(|longer| *longer > wanted)
}

/// Wants and makes a longer reserve where one is wanted and the index has outgrown it, if there is room for that beside the one that is
/// there. Where there is not, a check tells of it.
///
/// # Errors
/// [`ReserveError`] where the repository fails; nothing rests on it.
pub(crate) fn keep_up(repository: &Repository) -> Result<(), ReserveError> {
    let Some(wanted) = repository.fold().reserve().filter(|_| !repository.is_append_only()) else {
        return Ok(());
    };
    let Some(longer) = outgrown(wanted, needed(repository)?) else { return Ok(()) };
    if !repository.backend().has_room(with_spare(longer)).unwrap_or(false) {
        return Ok(());
    }
    let mut is_news = false;
    repository.commit(&mut |fold| {
        // Others may want none any more, or have made it longer already.
        is_news = fold.reserve().is_some_and(|wanted| wanted < longer);
        Ok(is_news.then_some(Change::ReserveSet { bytes: longer }).into_iter().collect())
    })?;
    if is_news {
        make(repository, longer)?;
    }
    Ok(())
}

/// The room that there has to be for a reserve of this length.
fn with_spare(len: u64) -> u64 {
    len.saturating_add(len / SPARE_SHARE)
}

/// Gives the room back for good. Returns how it was before.
///
/// # Errors
/// [`ReserveError`].
pub fn drop_it(repository: &Repository) -> Result<Status, ReserveError> {
    let before = status(repository)?;
    wish(repository, 0)?;
    repository.backend().delete(&ObjectKey::reserve())?;
    Ok(before)
}

/// Says in the log how much is to be kept free. A full storage has no room even for that: what is kept free is spent on it, and made
/// anew by the caller, or not.
fn wish(repository: &Repository, bytes: u64) -> Result<(), ReserveError> {
    repository.require_full("change what room is kept free")?;
    let wanted = (bytes > 0).then_some(bytes);
    let mut commit = |_| {
        repository.commit(&mut |fold| {
            let is_news = fold.reserve() != wanted;
            Ok(is_news.then_some(Change::ReserveSet { bytes }).into_iter().collect())
        })
    };
    in_room(repository, &mut commit).0?;
    Ok(())
}

/// Does something that may find the storage full, as [`in_room`]. Afterwards the reserve is made as it should be.
pub(crate) fn spend<T, E: std::error::Error + 'static>(
    repository: &Repository,
    refill: Refill,
    deed: &mut dyn FnMut(u64) -> Result<T, E>,
) -> (Result<T, E>, Spent) {
    let (result, given_back) = in_room(repository, deed);
    if given_back > 0 || refill == Refill::Always && result.is_ok() {
        put_right(repository);
    }
    let lacking = lacking(repository).unwrap_or(0);
    (result, Spent { given_back, lacking })
}

/// Does something that may find the storage full. Then what dead writers left behind is removed, and it is done once more; if it is
/// full still, the reserve is given back, and it is done once more and told how many bytes that made room for, at least 1. Returns
/// also how many bytes were given back. Where there is no reserve and none is wanted, states of the log go instead, which can be
/// made again.
fn in_room<T, E: std::error::Error + 'static>(
    repository: &Repository,
    deed: &mut dyn FnMut(u64) -> Result<T, E>,
) -> (Result<T, E>, u64) {
    let is_full = |result: &Result<T, E>| result.as_ref().is_err_and(|error| backend::is_out_of_room(error));
    let mut result = deed(0);
    if is_full(&result) && clean_up(repository) {
        result = deed(0);
    }
    if !is_full(&result) {
        return (result, 0);
    }
    if let Some(given_back) = give_back(repository) {
        return (deed(given_back.max(1)), given_back);
    }
    let states = if repository.is_append_only() { Ok(0) } else { repository.delete_states() };
    match states.unwrap_or(0) {
        0 => (result, 0),
        bytes => (deed(bytes), 0),
    }
}

/// Removes what writers that died left behind, such as a part of a reserve, and says whether there was any.
fn clean_up(repository: &Repository) -> bool {
    let backend = repository.backend();
    // Whoever cannot clean up finds no more room by it.
    if repository.is_append_only() || !backend.clean().is_ok_and(|left_behind| left_behind > 0) {
        return false;
    }
    // By this the next backup still sees that a writer died, and takes over what that had stored.
    drop(backend.sign());
    true
}

/// Deletes the reserve, and returns how long it was; 0 where there is none and one is wanted, for then somebody else may have made
/// room by it just now. None where there is none to be had. Whoever may only add may not do that.
fn give_back(repository: &Repository) -> Option<u64> {
    if repository.is_append_only() {
        return None;
    }
    let Status { wanted, stored } = status(repository).ok()?;
    let Some(bytes) = stored else { return wanted.map(|_| 0) };
    repository.backend().delete(&ObjectKey::reserve()).ok().map(|()| bytes)
}

/// Makes the reserve as long as it should be, and deletes one that is not wanted any more. Nothing fails for that: a check tells of it.
fn put_right(repository: &Repository) {
    if repository.is_append_only() {
        return;
    }
    // It is looked up before the log is read on: whoever made it had said before that it is wanted.
    let Ok(before) = stored(repository) else { return };
    if repository.refresh().is_err() {
        return;
    }
    // What it lacks in the end is asked for by the caller.
    let _ = match (repository.fold().reserve(), before) {
        (Some(wanted), _) => fill(repository, wanted).map_err(Into::into).and_then(|()| keep_up(repository)),
        (None, Some(_)) => repository.backend().delete(&ObjectKey::reserve()).map_err(Into::into),
        (None, None) => Ok(()),
    };
}

/// Makes a reserve of this length or, where there is no room for that, of a half, a quarter, and so on. The least of it may be what the
/// next commit needs.
fn fill(repository: &Repository, wanted: u64) -> Result<(), BackendError> {
    make_longest(repository, wanted)?;
    if stored(repository)?.is_none_or(|stored| stored < wanted) && clean_up(repository) {
        make_longest(repository, wanted)?;
    }
    Ok(())
}

/// Makes the longest reserve that fits. One that is there stays unless it is longer than wanted or a longer one fits, and goes before
/// that is written only where its room is needed.
fn make_longest(repository: &Repository, wanted: u64) -> Result<(), BackendError> {
    let backend = repository.backend();
    let mut old = stored(repository)?;
    let shortest = LEN_MIN.min(wanted);
    for len in std::iter::successors(Some(wanted), |len| Some(len / 2)).take_while(|len| *len >= shortest) {
        if old.is_some_and(|old| (len..=wanted).contains(&old)) {
            return Ok(());
        }
        // What cannot fit is not even begun: others would find the storage full meanwhile.
        let (room, old_len) = (with_spare(len), old.unwrap_or(0));
        if len > old_len && backend.has_room(room.saturating_sub(old_len)) == Some(false) {
            continue;
        }
        if old.is_some() && backend.has_room(room) != Some(true) {
            backend.delete(&ObjectKey::reserve())?;
        }
        match make(repository, len) {
            Err(error) if backend::is_out_of_room(&error) => old = stored(repository)?,
            result => return result,
        }
    }
    Ok(())
}

/// Writes a reserve of this length and puts it in the place of the one that is there.
fn make(repository: &Repository, bytes: u64) -> Result<(), BackendError> {
    let seed: [u8; 32] = random(&*repository.environment().entropy);
    let mut noise = blake3::Hasher::new_keyed(&seed).finalize_xof();
    let mut staged = repository.backend().begin()?;
    let mut piece = vec![0; PIECE_LEN];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
        noise.fill(&mut piece[..len]);
        staged.write(&piece[..len])?;
        left -= len as u64;
    }
    repository.backend().delete(&ObjectKey::reserve())?;
    staged.publish(&ObjectKey::reserve()).map(drop)
}

#[cfg(test)]
#[path = "reserve_tests.rs"]
mod tests;
