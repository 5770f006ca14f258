//! The code: recovery shards of an object, and lost shards of it again. Pure: bytes in, bytes out.
//!
//! The code works on each 64 bytes of all shards by themselves. So shards are dealt with in columns as wide as fits the
//! memory, and memory does not grow with the object but by its parity.

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use crate::format::parity::{self, Head, SHARD_UNIT, Shape, Sidecar};

/// Memory for the columns of all shards, at most: twice as much where 64 bytes of each already take more.
const WORK_LEN: usize = 16 << 20;

/// Bytes that are read at a time while parity is made.
const PIECE_LEN: usize = 1 << 20;

/// Widths of columns of shards of this length, of which `rows` fit the memory.
fn columns(shard_len: usize, rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let unit = SHARD_UNIT as usize;
    let widest = (WORK_LEN / rows.max(1) / unit * unit).clamp(unit, shard_len);
    // About equal ones.
    let width = shard_len.div_ceil(shard_len.div_ceil(widest)).next_multiple_of(unit);
    (0..shard_len).step_by(width).map(move |start| start..(start + width).min(shard_len))
}

/// Fills a buffer from a position of an object.
pub type Fill<'r, E> = dyn FnMut(u64, &mut [u8]) -> Result<(), E> + 'r;

/// Fills a buffer from a position of an object, or says that it cannot.
pub type Try<'r> = dyn FnMut(u64, &mut [u8]) -> bool + 'r;

/// Makes the sidecar of an object. `read` fills a buffer from a position of it; it is called for each byte in order, once or
/// several times.
///
/// # Errors
/// What `read` fails with.
pub fn encode<E>(shape: Shape, read: &mut Fill<'_, E>) -> Result<(Head, Vec<u8>), E> {
    let (originals, recovery, shard_len) = (shape.originals(), shape.recovery(), shape.shard_len());
    let mut checks = vec![[0; parity::CHECK_LEN]; originals + recovery];
    let mut shards = vec![0; recovery * shard_len];
    let mut piece = vec![0; (PIECE_LEN / shard_len).max(1) * shard_len];
    let per_piece = piece.len() / shard_len;
    let mut hasher = blake3::Hasher::new();
    // As many rows as the encoder has.
    let rows = originals.next_multiple_of(recovery.next_power_of_two());
    for column in columns(shard_len, rows) {
        let mut encoder = HighRateEncoder::new(originals, recovery, column.len(), DefaultEngine::new(), None)
            .expect("a shape fits the code");
        for first in (0..originals).step_by(per_piece) {
            let last = (first + per_piece).min(originals) - 1;
            let (start, end) = (shape.bytes_of(first).start, shape.bytes_of(last).end);
            let filled = usize::try_from(end - start).expect("no longer than a piece");
            read(start, &mut piece[..filled])?;
            piece[filled..].fill(0);
            if column.start == 0 {
                hasher.update(&piece[..filled]);
            }
            for (number, shard) in (first..=last).zip(piece.chunks_exact(shard_len)) {
                if column.start == 0 {
                    checks[number] = parity::check_of(shard);
                }
                encoder.add_original_shard(&shard[column.clone()]).expect("all shards are added once");
            }
        }
        let encoded = encoder.encode().expect("all shards were added");
        for (shard, part) in shards.chunks_exact_mut(shard_len).zip(encoded.recovery_iter()) {
            shard[column.clone()].copy_from_slice(part);
        }
    }
    for (check, shard) in checks[originals..].iter_mut().zip(shards.chunks_exact(shard_len)) {
        *check = parity::check_of(shard);
    }
    let head = Head { shape, object: hasher.finalize().into() };
    let sidecar = parity::assemble(&head, &checks, &shards);
    Ok((head, sidecar))
}

/// Why an object cannot be made whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More is damaged than parity can make good.
    #[error(
        "{damaged} of its {originals} shards of {shard_len} bytes are damaged, and what is left of its parity makes good {usable}"
    )]
    TooMuch {
        /// Shards of the object that are not what they were.
        damaged: usize,
        /// Shards that it has.
        originals: usize,
        /// Their length.
        shard_len: usize,
        /// Recovery shards that are undamaged.
        usable: usize,
    },
    /// The sidecar does not speak of this object, or something else is wrong with it.
    #[error("what its parity gives is not the object")]
    Wrong,
}

/// The shards of an object that were lost.
#[derive(Debug)]
pub struct Decoded {
    shape: Shape,
    /// By number.
    restored: Vec<(usize, Vec<u8>)>,
}

impl Decoded {
    /// Shards that were lost.
    pub fn damaged(&self) -> usize {
        self.restored.len()
    }
}

/// Makes the lost shards of an object again. `read` fills a buffer from a position of the object, or says that it cannot.
///
/// # Errors
/// [`DecodeError::TooMuch`]. What comes back is to be compared with what is known of the object: see [`Decoded::write`].
pub fn decode(sidecar: &Sidecar<'_>, read: &mut Try<'_>) -> Result<Decoded, DecodeError> {
    let shape = sidecar.head().shape;
    let (originals, recovery, shard_len) = (shape.originals(), shape.recovery(), shape.shard_len());
    let usable: Vec<(usize, &[u8])> =
        (0..recovery).filter_map(|number| Some((number, sidecar.recovery_shard(number)?))).collect();
    // No writer makes such: memory for a shard is not taken on the word of a head alone.
    if usable.is_empty() && shard_len > PIECE_LEN {
        return Err(DecodeError::TooMuch { damaged: originals, originals, shard_len, usable: 0 });
    }
    let mut shard = vec![0; shard_len];
    let mut fill = |number: usize, shard: &mut [u8]| {
        let bytes = shape.bytes_of(number);
        let len = usize::try_from(bytes.end - bytes.start).expect("no longer than a shard");
        shard[len..].fill(0);
        read(bytes.start, &mut shard[..len])
    };
    let lost: Vec<usize> = (0..originals)
        .filter(|number| !(fill(*number, &mut shard) && sidecar.is_original(*number, &shard)))
        .collect();
    if lost.len() > usable.len() {
        let (damaged, usable) = (lost.len(), usable.len());
        return Err(DecodeError::TooMuch { damaged, originals, shard_len, usable });
    }
    let mut restored: Vec<_> = lost.iter().map(|number| (*number, vec![0; shard_len])).collect();
    if lost.is_empty() {
        return Ok(Decoded { shape, restored });
    }
    // As many rows as the decoder has.
    let rows = (recovery.next_power_of_two() + originals).next_power_of_two();
    for column in columns(shard_len, rows) {
        let mut decoder = HighRateDecoder::new(originals, recovery, column.len(), DefaultEngine::new(), None)
            .expect("a shape fits the code");
        for number in (0..originals).filter(|number| lost.binary_search(number).is_err()) {
            // It could be read before. What has changed since is found out in the end.
            let _unread = fill(number, &mut shard);
            decoder.add_original_shard(number, &shard[column.clone()]).expect("each is added once");
        }
        for (number, shard) in usable.iter().take(lost.len()) {
            decoder.add_recovery_shard(*number, &shard[column.clone()]).expect("each is added once");
        }
        let decoded = decoder.decode().expect("there are enough shards");
        for (number, shard) in &mut restored {
            let part = decoded.restored_original(*number).expect("it was not added");
            shard[column.clone()].copy_from_slice(part);
        }
    }
    Ok(Decoded { shape, restored })
}

impl Decoded {
    /// Hands all bytes of the object over in order, restored ones in their places, and returns their hash.
    ///
    /// # Errors
    /// [`DecodeError::Wrong`] where the rest cannot be read any more, or what `write` fails with.
    pub fn write<E: From<DecodeError>>(
        &self,
        read: &mut Try<'_>,
        write: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<[u8; 32], E> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; self.shape.shard_len()];
        for number in 0..self.shape.originals() {
            let bytes = self.shape.bytes_of(number);
            let len = usize::try_from(bytes.end - bytes.start).expect("no longer than a shard");
            let shard = match self.restored.binary_search_by_key(&number, |(number, _)| *number) {
                Ok(at) => &self.restored[at].1[..len],
                Err(_) if read(bytes.start, &mut buffer[..len]) => &buffer[..len],
                Err(_) => return Err(DecodeError::Wrong.into()),
            };
            hasher.update(shard);
            write(shard)?;
        }
        Ok(hasher.finalize().into())
    }
}

#[cfg(test)]
#[path = "code_tests.rs"]
mod tests;
