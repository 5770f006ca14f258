//! Parity sidecars: what makes good a damaged object, up to some of its shards. See `format-spec`, Parity.
//!
//! A sidecar is derived from the stored bytes of another object, so it needs no key and no seal: whatever is repaired by one
//! is accepted only if the whole object then verifies. Both ends say the same, so that damage to one of them costs nothing.

use serde::{Deserialize, Serialize};

use crate::format::header::{MAGIC, ObjectKind};
use crate::ids::ParityId;

/// Length of the head, which stands at both ends.
pub const HEAD_LEN: usize = 96;
/// Length of a shard's checksum in the table.
pub const CHECK_LEN: usize = 8;
/// Shards have multiples of this length: the code works on so many bytes at a time.
pub const SHARD_UNIT: u32 = 64;
/// Shards that a covered object has at most.
pub const ORIGINALS_MAX: u32 = 32_768;
/// Longest object that can be covered: longer ones, which only segments can be, are rebuilt from packs.
pub const COVERED_LEN_MAX: u64 = 1 << 30;
/// Longest sidecar.
pub const SIDECAR_LEN_MAX: u64 = COVERED_LEN_MAX + (2 << 20);
/// What disks lose at a time.
const SECTOR_LEN: u32 = 4096;
/// Shards of an object that is too short for one of them to be a sector.
const SHORT_SHARDS: u64 = 32;
/// Context of the names of sidecars whose objects have a number and no id.
const NAME_CONTEXT: &str = "strongroom v1 parity of a named object";

/// The sidecar's id of an object that is named by a number, by the text of its key: found without knowing its bytes.
pub fn id_of_named(key: &str) -> ParityId {
    ParityId::from_bytes(blake3::derive_key(NAME_CONTEXT, key.as_bytes()))
}

/// How much parity there is to be, as a share of what it covers: in tenths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Overhead(u32);

impl TryFrom<u32> for Overhead {
    type Error = OverheadError;

    fn try_from(tenths: u32) -> Result<Self, OverheadError> {
        Self::from_tenths(tenths).ok_or(OverheadError(tenths))
    }
}

impl From<Overhead> for u32 {
    fn from(overhead: Overhead) -> Self {
        overhead.0
    }
}

/// More parity than there can be, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parity of {0} tenths of a percent: expected 1 to {max}", max = Overhead::MAX_TENTHS)]
pub struct OverheadError(u32);

impl Overhead {
    /// The most there can be: a copy.
    pub const MAX_TENTHS: u32 = 1000;

    /// So many tenths of a percent; none for nothing and for more than all.
    pub const fn from_tenths(tenths: u32) -> Option<Self> {
        if tenths == 0 || tenths > Self::MAX_TENTHS { None } else { Some(Self(tenths)) }
    }

    /// In tenths of a percent.
    pub const fn tenths(self) -> u32 {
        self.0
    }
}

impl Default for Overhead {
    /// Three percent.
    fn default() -> Self {
        Self(30)
    }
}

impl std::fmt::Display for Overhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, tenth) => write!(f, "{whole}.{tenth}%"),
        }
    }
}

/// Why an object is no usable sidecar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParityError {
    /// Too short to hold a head.
    #[error("it has {found} bytes, less than its head of {HEAD_LEN}: it is truncated")]
    Truncated {
        /// Its length.
        found: usize,
    },
    /// Not an object of ours, or of another kind.
    #[error("it does not begin as a parity sidecar does")]
    Magic,
    /// Written by a later format version.
    #[error("it is of format version {0:?}, this program knows version 1: use a newer strongroom")]
    Version(char),
    /// Made in a way this version does not know.
    #[error("it uses a mode or flags that this version does not know")]
    Unknown,
    /// A head's bytes are not what they were.
    #[error("its head is damaged")]
    Head,
    /// Lengths or counts that cannot be.
    #[error("its head contradicts itself: {0}")]
    Shape(&'static str),
}

/// How an object is cut into shards, and how many more there are to make good lost ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    covered: u64,
    shard_len: u32,
    recovery: u32,
}

impl Shape {
    /// The shape for an object of this length; none if it cannot be covered.
    pub fn choose(covered: u64, overhead: Overhead) -> Option<Self> {
        if covered == 0 || covered > COVERED_LEN_MAX {
            return None;
        }
        let sector = u64::from(SECTOR_LEN);
        let shard_len = if covered <= SHORT_SHARDS * sector {
            // Whole ones to a sector: a lost one hits no more of them.
            covered.div_ceil(SHORT_SHARDS).next_power_of_two().max(SHARD_UNIT.into())
        } else {
            covered.div_ceil(ORIGINALS_MAX.into()).next_multiple_of(sector)
        };
        let originals = covered.div_ceil(shard_len);
        let share = (originals * u64::from(overhead.tenths())).div_ceil(Overhead::MAX_TENTHS.into());
        let recovery = share.max(sector.div_ceil(shard_len)).min(originals);
        let narrow = |n: u64| u32::try_from(n).expect("a gibibyte in at most 2^15 shards");
        Some(Self { covered, shard_len: narrow(shard_len), recovery: narrow(recovery) })
    }

    /// A shape as stored.
    fn new(covered: u64, shard_len: u32, recovery: u32) -> Result<Self, ParityError> {
        let wrong = |what| Err(ParityError::Shape(what));
        if covered == 0 || covered > COVERED_LEN_MAX {
            return wrong("no object of that length can be covered");
        }
        let whole = covered.next_multiple_of(SHARD_UNIT.into());
        if shard_len == 0 || !shard_len.is_multiple_of(SHARD_UNIT) || u64::from(shard_len) > whole {
            return wrong("the length of its shards");
        }
        let originals = covered.div_ceil(shard_len.into());
        if originals > ORIGINALS_MAX.into() {
            return wrong("the object would have too many shards");
        }
        if recovery == 0 || u64::from(recovery) > originals {
            return wrong("the number of its shards");
        }
        Ok(Self { covered, shard_len, recovery })
    }

    /// Length of the covered object.
    pub const fn covered(&self) -> u64 {
        self.covered
    }

    /// Length of a shard in bytes.
    pub const fn shard_len(&self) -> usize {
        self.shard_len as usize
    }

    /// Shards of the covered object; the last one is filled up with zeros.
    pub const fn originals(&self) -> usize {
        // At most 2^15, as checked.
        self.covered.div_ceil(self.shard_len as u64) as usize
    }

    /// Shards of the sidecar: so many lost shards, of both together, can be made good.
    pub const fn recovery(&self) -> usize {
        self.recovery as usize
    }

    /// Bytes of the covered object that its shard `number` holds.
    pub fn bytes_of(&self, number: usize) -> std::ops::Range<u64> {
        let start = number as u64 * u64::from(self.shard_len);
        start.min(self.covered)..(start + u64::from(self.shard_len)).min(self.covered)
    }

    const fn table_len(&self) -> usize {
        (self.originals() + self.recovery()) * CHECK_LEN
    }

    /// Where the recovery shards begin.
    const fn shards_at(&self) -> usize {
        HEAD_LEN + self.table_len()
    }

    const fn shards_end(&self) -> usize {
        self.shards_at() + self.recovery() * self.shard_len()
    }

    /// Length of the sidecar.
    pub const fn sidecar_len(&self) -> usize {
        self.shards_end() + self.table_len() + HEAD_LEN
    }
}

/// What a sidecar says of the object it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How it is cut.
    pub shape: Shape,
    /// BLAKE3 of its bytes.
    pub object: [u8; 32],
}

impl Head {
    /// The head's bytes.
    pub fn encode(&self) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = ObjectKind::Parity as u8;
        bytes[12..16].copy_from_slice(&self.shape.shard_len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.shape.covered.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.shape.recovery.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.object);
        let check = blake3::hash(&bytes[..64]);
        bytes[64..].copy_from_slice(check.as_bytes());
        bytes
    }

    /// Reads the head at the start of `bytes`.
    ///
    /// # Errors
    /// [`ParityError`] for anything but a head of this version that is as it was written.
    pub fn decode(bytes: &[u8]) -> Result<Self, ParityError> {
        let bytes: &[u8; HEAD_LEN] =
            bytes.first_chunk().ok_or(ParityError::Truncated { found: bytes.len() })?;
        if *blake3::hash(&bytes[..64]).as_bytes() != bytes[64..] {
            return Err(ParityError::Head);
        }
        // Whole, so that a flipped bit does not pass for a later version.
        if bytes[..8] != MAGIC {
            let ours = bytes[..6] == MAGIC[..6] && bytes[7] == MAGIC[7];
            return Err(if ours { ParityError::Version(char::from(bytes[6])) } else { ParityError::Magic });
        }
        if bytes[8] != ObjectKind::Parity as u8 {
            return Err(ParityError::Magic);
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[9..12] != [0; 3] || u32_at(28) != 0 {
            return Err(ParityError::Unknown);
        }
        let covered = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
        let shape = Shape::new(covered, u32_at(12), u32_at(24))?;
        let mut object = [0; 32];
        object.copy_from_slice(&bytes[32..64]);
        Ok(Self { shape, object })
    }
}

/// The checksum of a shard.
pub fn check_of(shard: &[u8]) -> [u8; CHECK_LEN] {
    *blake3::hash(shard).as_bytes().first_chunk().expect("a hash is longer")
}

/// The parts of a sidecar as it is stored, one after the other: `checks` are those of the object's shards and then of the recovery
/// shards, which `recovery` holds one after the other. `head` is its encoding.
pub fn parts<'a>(
    head: &'a [u8; HEAD_LEN],
    checks: &'a [[u8; CHECK_LEN]],
    recovery: &'a [u8],
) -> [&'a [u8]; 5] {
    let table = checks.as_flattened();
    [head, table, recovery, table, head]
}

/// A stored sidecar that can be used: one of its heads is whole.
#[derive(Debug, Clone, Copy)]
pub struct Sidecar<'a> {
    head: Head,
    /// From the first byte of the sidecar on; may end early.
    bytes: &'a [u8],
    is_sound: bool,
}

impl<'a> Sidecar<'a> {
    /// Reads a stored sidecar, of which anything but one head may be damaged or gone.
    ///
    /// # Errors
    /// [`ParityError`] where neither head can be used, with what is wrong with the first.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParityError> {
        let last = bytes.len().checked_sub(HEAD_LEN).map(|at| Head::decode(&bytes[at..]));
        let (head, from) = match (Head::decode(bytes), last) {
            (Ok(head), _) => (head, 0),
            (Err(error), Some(Ok(head))) => match bytes.len().checked_sub(head.shape.sidecar_len()) {
                Some(from) => (head, from),
                None => return Err(error),
            },
            (Err(error), _) => return Err(error),
        };
        let mut sidecar = Self { head, bytes: &bytes[from..], is_sound: false };
        sidecar.is_sound = from == 0 && sidecar.is_whole();
        Ok(sidecar)
    }

    /// Whether each byte is what it was, as far as a sidecar can tell by itself.
    fn is_whole(&self) -> bool {
        let (shape, bytes) = (&self.head.shape, self.bytes);
        bytes.len() == shape.sidecar_len()
            && bytes.starts_with(&self.head.encode())
            && bytes.ends_with(&self.head.encode())
            && bytes[HEAD_LEN..shape.shards_at()] == bytes[shape.shards_end()..][..shape.table_len()]
            && (0..shape.recovery()).all(|number| self.recovery_shard(number).is_some())
    }

    /// What it says of the covered object.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whether nothing of it is damaged.
    pub fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Whether this is the covered object's shard `number`, filled up with zeros: by either table.
    pub fn is_original(&self, number: usize, shard: &[u8]) -> bool {
        number < self.head.shape.originals() && self.is_listed(number, shard)
    }

    fn is_listed(&self, place: usize, shard: &[u8]) -> bool {
        let shape = &self.head.shape;
        let check = check_of(shard);
        [HEAD_LEN, shape.shards_end()].into_iter().any(|table| {
            let at = table + place * CHECK_LEN;
            self.bytes.get(at..at + CHECK_LEN) == Some(&check)
        })
    }

    /// Recovery shard `number`, if it is there and undamaged.
    pub fn recovery_shard(&self, number: usize) -> Option<&'a [u8]> {
        let shape = &self.head.shape;
        if number >= shape.recovery() {
            return None;
        }
        let at = shape.shards_at() + number * shape.shard_len();
        let shard = self.bytes.get(at..at + shape.shard_len())?;
        self.is_listed(shape.originals() + number, shard).then_some(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(covered: u64, tenths: u32) -> Shape {
        Shape::choose(covered, Overhead::from_tenths(tenths).expect("in range")).expect("can be covered")
    }

    #[test]
    fn shapes_cover_a_sector_at_least_and_fit_the_code() {
        for covered in [1, 63, 64, 65, 4096, 4097, 100_000, 131_072, 131_073, 32 << 20, 256 << 20, 1 << 30] {
            for tenths in [1, 30, 100, 1000] {
                let shape = shape(covered, tenths);
                let (originals, recovery) = (shape.originals(), shape.recovery());
                assert_eq!(Shape::new(covered, shape.shard_len, shape.recovery), Ok(shape));
                assert!(originals + recovery.next_power_of_two() <= 65_536, "{shape:?}");
                assert!(recovery * shape.shard_len() >= covered.min(4096) as usize, "{shape:?}");
                assert!(recovery * 1000 >= originals * tenths as usize, "{shape:?}");
                assert_eq!(shape.bytes_of(originals - 1).end, covered);
                assert!(shape.sidecar_len() as u64 <= SIDECAR_LEN_MAX);
            }
        }
        assert_eq!(Shape::choose(0, Overhead::default()), None);
        assert_eq!(Shape::choose(COVERED_LEN_MAX + 1, Overhead::default()), None);
        let pack = shape(32 << 20, 30);
        assert_eq!((pack.shard_len(), pack.originals(), pack.recovery()), (4096, 8192, 246));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let wrong = [
            (0, 64, 1),
            (COVERED_LEN_MAX + 1, 1 << 20, 1),
            (1000, 0, 1),
            (1000, 100, 1),
            (1000, 1088, 1),
            (1000, 64, 0),
            (1000, 64, 17),
            (64 * 32_768 + 1, 64, 1),
        ];
        for (covered, shard_len, recovery) in wrong {
            assert!(Shape::new(covered, shard_len, recovery).is_err(), "{covered} {shard_len} {recovery}");
        }
    }

    #[test]
    fn every_altered_bit_of_a_head_is_noticed() {
        let head = Head { shape: shape(5000, 30), object: [7; 32] };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        for bit in 0..HEAD_LEN * 8 {
            let mut bytes = head.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&bytes), Err(ParityError::Head), "bit {bit}");
        }
        assert_eq!(Head::decode(&[0; 95]), Err(ParityError::Truncated { found: 95 }));
        let resealed = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = head.encode();
            change(&mut bytes);
            let check = blake3::hash(&bytes[..64]);
            bytes[64..].copy_from_slice(check.as_bytes());
            Head::decode(&bytes)
        };
        assert_eq!(resealed(&|bytes| bytes[6] = b'2'), Err(ParityError::Version('2')));
        assert_eq!(resealed(&|bytes| bytes[0] = b'X'), Err(ParityError::Magic));
        assert_eq!(resealed(&|bytes| bytes[8] = 5), Err(ParityError::Magic));
        for at in [9, 10, 11, 28, 31] {
            assert_eq!(resealed(&|bytes| bytes[at] = 1), Err(ParityError::Unknown));
        }
        assert!(matches!(resealed(&|bytes| bytes[24] = 0), Err(ParityError::Shape(_))));
    }
}
