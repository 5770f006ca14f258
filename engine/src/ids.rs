//! Ids: 32-byte names of blobs and objects, each kind a type of its own so that one cannot stand for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A string is not an id: it has the wrong length or a character that is not a lower-case hex digit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an id: expected {expected} lower-case hex digits")]
pub struct ParseIdError {
    found: String,
    expected: usize,
}

/// Writes `bytes` as lower-case hex.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let fail = || ParseIdError { found: text.chars().take(80).collect(), expected: 2 * N };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(fail());
    }
    let value = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(fail()),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(bytes)
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length of the id in bytes.
            pub const LEN: usize = $len;

            /// Makes an id of raw bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight hex digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        // Hex for people (JSON), bytes for records (MessagePack).
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    let bytes = <serde_bytes::ByteArray<$len>>::deserialize(deserializer)?;
                    Ok(Self(bytes.into_array()))
                }
            }
        }
    };
}

id_type!(
    /// Keyed BLAKE3 of a blob's kind and plaintext: what deduplication compares (see `format-spec`, Blobs).
    BlobId,
    32
);

/// The first half of a blob's id: ordered as ids are, and as good as unique.
pub type HalfId = [u8; 16];

impl BlobId {
    /// Its first half.
    pub fn half(&self) -> HalfId {
        *self.as_bytes().first_chunk().expect("ids have 32 bytes")
    }
}

id_type!(
    /// BLAKE3 of a pack object's stored bytes, checkable without any key.
    PackId,
    32
);
id_type!(
    /// BLAKE3 of an index segment object's stored bytes.
    SegmentId,
    32
);
id_type!(
    /// BLAKE3 of a verification ledger object's stored bytes.
    LedgerId,
    32
);
id_type!(
    /// Names a parity sidecar: the id of the object it covers, or what follows from that object's key.
    ParityId,
    32
);
id_type!(
    /// BLAKE3 of a keyslot object's stored bytes.
    KeyslotId,
    32
);
id_type!(
    /// BLAKE3 of a stored log object (or, before the first commit, of the config object).
    CommitHash,
    32
);
id_type!(
    /// A repository's random 16-byte id, bound into everything sealed for it.
    RepositoryId,
    16
);
id_type!(
    /// An Ed25519 public key: who signed a commit.
    WriterId,
    32
);
id_type!(
    /// Names a plan, which may be of several files: BLAKE3 of their contents in order, each behind its length in
    /// eight bytes, little end first.
    PlanHash,
    32
);

/// A snapshot's id is the blob id of its record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(BlobId);

impl SnapshotId {
    /// The snapshot stored as the blob `id`.
    pub const fn new(id: BlobId) -> Self {
        Self(id)
    }

    /// The blob that holds the snapshot's record.
    pub const fn blob(&self) -> &BlobId {
        &self.0
    }

    /// The first eight hex digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let id = RepositoryId::from_bytes([0xa5; 16]);
        assert_eq!(id.to_string(), "a5".repeat(16));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("A5".repeat(16).parse::<RepositoryId>().is_err(), "upper case is another spelling");
        assert!("a5".parse::<RepositoryId>().is_err(), "too short");
        assert!("é".repeat(16).parse::<RepositoryId>().is_err(), "not hex at all");
    }
}
