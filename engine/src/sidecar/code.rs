//! The code: recovery shards of an object, and lost shards of it again. Pure: bytes in, bytes out.
//!
//! The code works on each 64 bytes of all shards by themselves, so shards can be dealt with in columns. Parity of an object is
//! the sum of what groups of its shards add to it, so all that it takes is two groups: the sum, and the one that comes.

use reed_solomon_simd::engine::{DefaultEngine, Engine, ShardsRefMut};
use reed_solomon_simd::rate::{HighRateDecoder, RateDecoder};

use crate::format::parity::{self, CHECK_LEN, Head, SHARD_UNIT, Shape, Sidecar};

/// Memory for columns of shards, at most; more where 64 bytes of each shard already take more. It is enough for whole shards of
/// the longest object with usual parity, so that making parity reads every object once.
pub const WORK_LEN: usize = 64 << 20;

/// Memory for the columns of all shards of an object that is repaired.
const REPAIR_LEN: usize = 16 << 20;

/// Bytes that are read at a time while parity is made.
const PIECE_LEN: usize = 1 << 20;

const UNIT: usize = SHARD_UNIT as usize;

/// Columns of shards of this length, of which `rows` fit into `memory`.
fn columns(shard_len: usize, rows: usize, memory: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let widest = (memory / rows.max(1) / UNIT * UNIT).clamp(UNIT, shard_len);
    // About equal ones.
    let width = shard_len.div_ceil(shard_len.div_ceil(widest)).next_multiple_of(UNIT);
    (0..shard_len).step_by(width).map(move |start| start..(start + width).min(shard_len))
}

/// Fills a buffer from a position of an object.
pub type Fill<'r, E> = dyn FnMut(u64, &mut [u8]) -> Result<(), E> + 'r;

/// Fills a buffer from a position of an object, or says that it cannot.
pub type Try<'r> = dyn FnMut(u64, &mut [u8]) -> bool + 'r;

/// A sidecar that was made.
#[derive(Debug)]
pub struct Made {
    head: Head,
    checks: Vec<[u8; CHECK_LEN]>,
    recovery: Vec<[u8; UNIT]>,
}

impl Made {
    /// What it says of the object.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Length of its bytes.
    pub fn stored_len(&self) -> u64 {
        self.head.shape.sidecar_len() as u64
    }

    /// Hands its bytes over in order.
    ///
    /// # Errors
    /// What `write` fails with.
    pub fn write<E>(&self, write: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let head = self.head.encode();
        parity::parts(&head, &self.checks, self.recovery.as_flattened()).into_iter().try_for_each(write)
    }

    /// All its bytes: for those that are short.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Ok(()) = self.write(&mut |part| -> Result<(), std::convert::Infallible> {
            bytes.extend_from_slice(part);
            Ok(())
        });
        bytes
    }
}

/// Bytes that making a sidecar of this shape takes, where columns of shards take no more than `work` of them.
pub fn memory(shape: &Shape, work: usize) -> usize {
    let rows = rows(shape);
    let (whole, made) = (rows * shape.shard_len(), shape.recovery() * shape.shard_len());
    // What is made of whole shards lies where it was made.
    let columns = if whole <= work { whole } else { work.max(rows * UNIT) + made };
    columns + piece_len(shape) + (shape.originals() + shape.recovery()) * CHECK_LEN
}

/// Shards of the two groups that are worked on.
fn rows(shape: &Shape) -> usize {
    2 * shape.recovery().next_power_of_two()
}

/// Bytes that are read at a time: whole shards.
fn piece_len(shape: &Shape) -> usize {
    (PIECE_LEN / shape.shard_len()).max(1) * shape.shard_len()
}

/// Makes the sidecar of an object. `read` fills a buffer from a position of it; it is called for each byte in order, and once if
/// columns may take [`WORK_LEN`] bytes, unless the sidecar is longer than some 32 MiB; else once for each column.
///
/// # Errors
/// What `read` fails with.
pub fn encode<E>(shape: Shape, work: usize, read: &mut Fill<'_, E>) -> Result<Made, E> {
    let (originals, recovery, shard_len) = (shape.originals(), shape.recovery(), shape.shard_len());
    let group = rows(&shape) / 2;
    let mut checks = vec![[0; CHECK_LEN]; originals + recovery];
    let mut piece = vec![0; piece_len(&shape)];
    let mut hasher = blake3::Hasher::new();
    let engine = DefaultEngine::new();
    let columns = columns(shard_len, 2 * group, work);
    let (mut work, mut shards) = (Vec::new(), Vec::new());
    for column in columns {
        let units = column.len() / UNIT;
        work.resize(2 * group * units, [0; UNIT]);
        for first in (0..originals).step_by(group) {
            let end = (first + group).min(originals);
            let place = if first == 0 { 0 } else { group };
            let rows = &mut work[place * units..][..group * units];
            rows[(end - first) * units..].fill([0; UNIT]);
            for start in (first..end).step_by(piece.len() / shard_len) {
                let last = (start + piece.len() / shard_len).min(end) - 1;
                let (from, to) = (shape.bytes_of(start).start, shape.bytes_of(last).end);
                let filled = usize::try_from(to - from).expect("no longer than a piece");
                read(from, &mut piece[..filled])?;
                piece[filled..].fill(0);
                if column.start == 0 {
                    hasher.update(&piece[..filled]);
                }
                for (number, shard) in (start..=last).zip(piece.chunks_exact(shard_len)) {
                    if column.start == 0 {
                        checks[number] = parity::check_of(shard);
                    }
                    let row = &mut rows[(number - first) * units..][..units];
                    row.as_flattened_mut().copy_from_slice(&shard[column.clone()]);
                }
            }
            let mut rows = ShardsRefMut::new(2 * group, units, &mut work);
            engine.ifft(&mut rows, place, group, end - first, first + group);
            if first > 0 {
                let (sum, more) = work.split_at_mut(group * units);
                for (sum, more) in sum.as_flattened_mut().iter_mut().zip(more.as_flattened()) {
                    *sum ^= more;
                }
            }
        }
        engine.fft(&mut ShardsRefMut::new(2 * group, units, &mut work), 0, group, recovery, 0);
        work.truncate(recovery * units);
        if column.len() == shard_len {
            shards = std::mem::take(&mut work);
        } else {
            shards.resize(recovery * shard_len / UNIT, [0; UNIT]);
            let place = column.start / UNIT..column.end / UNIT;
            for (shard, row) in shards.chunks_exact_mut(shard_len / UNIT).zip(work.chunks_exact(units)) {
                shard[place.clone()].copy_from_slice(row);
            }
        }
    }
    for (check, shard) in checks[originals..].iter_mut().zip(shards.as_flattened().chunks_exact(shard_len)) {
        *check = parity::check_of(shard);
    }
    Ok(Made { head: Head { shape, object: hasher.finalize().into() }, checks, recovery: shards })
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
    for column in columns(shard_len, rows, REPAIR_LEN) {
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
