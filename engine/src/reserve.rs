//! The reserve: an object that keeps room free on the storage, so that forgetting and pruning can be written down when nothing else
//! can.
//!
//! How long it is to be is a policy in the log. Its bytes are random, so that no file system can store them as fewer, and nobody reads
//! them: without it a repository lacks nothing. [`forget`](crate::forget) and [`prune`](crate::prune) delete it when the storage is full, do their work in
//! the room that this makes, and make it again; a backup never touches it.

use crate::backend::{self, BackendError, ObjectKey};
use crate::crypto::random;
use crate::format::commit::{Change, RESERVE_LEN_MAX};
use crate::repo::{Repository, RepositoryError};

/// The shortest reserve that can be asked for: a prune has at least an index segment and some commits to write.
pub const LEN_MIN: u64 = 1 << 20;

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

impl Status {
    /// How many bytes are not kept free that should be.
    pub fn lacking(&self) -> u64 {
        self.wanted.unwrap_or(0).saturating_sub(self.stored.unwrap_or(0))
    }
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

/// Length of the object; none where there is none.
fn stored(repository: &Repository) -> Result<Option<u64>, BackendError> {
    match repository.backend().stat(&ObjectKey::reserve()) {
        Ok(info) => Ok(Some(info.size)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps so many bytes free from now on, whatever was kept before.
///
/// # Errors
/// [`ReserveError`]. Where there is no room for all of it, as much as there is room for is kept free, and the wish stands.
pub fn set(repository: &Repository, bytes: u64) -> Result<Status, ReserveError> {
    check_len(bytes)?;
    wish(repository, bytes)?;
    fill(repository, bytes)?;
    let after = status(repository)?;
    match after.lacking() {
        0 => Ok(after),
        _ => Err(ReserveError::NoRoom { wanted: bytes, stored: after.stored.unwrap_or(0) }),
    }
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
    let lacking = status(repository).map_or(0, |status| status.lacking());
    (result, Spent { given_back, lacking })
}

/// Does something that may find the storage full. Then what dead writers left behind is removed, and it is done once more; if it is
/// full still, the reserve is given back, and it is done once more and told how many bytes that made room for, at least 1. Returns
/// also how many bytes were given back.
fn in_room<T, E: std::error::Error + 'static>(
    repository: &Repository,
    deed: &mut dyn FnMut(u64) -> Result<T, E>,
) -> (Result<T, E>, u64) {
    let is_full = |result: &Result<T, E>| result.as_ref().is_err_and(|error| backend::is_out_of_room(error));
    let mut result = deed(0);
    if is_full(&result) && clean_up(repository) {
        result = deed(0);
    }
    match is_full(&result).then(|| give_back(repository)).flatten() {
        Some(given_back) => (deed(given_back.max(1)), given_back),
        None => (result, 0),
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
        (Some(wanted), _) => fill(repository, wanted),
        (None, Some(_)) => repository.backend().delete(&ObjectKey::reserve()),
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
        let fits = |room: u64| len.saturating_add(len / SPARE_SHARE) <= room;
        let (free, old_len) = (backend.free_room(), old.unwrap_or(0));
        if len > old_len && free.is_some_and(|free| !fits(free.saturating_add(old_len))) {
            continue;
        }
        if !free.is_some_and(fits) {
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
