//! The config: the one object in the clear, read first. It names the repository and what a reader has to
//! understand. The first commit is chained to its bytes, so it cannot be exchanged unnoticed.

use serde::{Deserialize, Serialize};

use crate::format::header::MAGIC;
use crate::format::record::{self, RecordError};
use crate::ids::{CommitHash, RepositoryId};

/// Longest config that is read.
pub const CONFIG_LEN_MAX: u64 = 64 << 10;

/// Feature bits this version understands: none are defined yet.
pub const KNOWN_FEATURES: u64 = 0;

/// What `config` holds after the magic bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The repository's random id.
    pub repository: RepositoryId,
    /// Feature bits a reader or writer must understand to touch the repository at all.
    pub must_understand: u64,
    /// Program and version that made the repository, for people.
    pub created_by: String,
}

/// As much of a newer version's config as has to stay where it is.
#[derive(Deserialize)]
struct Features {
    must_understand: u64,
}

/// A config with more fields than this version's.
#[derive(Deserialize)]
#[expect(dead_code, reason = "that the fields are there is all")]
struct Extended {
    repository: RepositoryId,
    must_understand: u64,
    created_by: String,
}

/// The config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a config.
    #[error("the config does not begin with Strongroom's magic bytes: this is not a Strongroom repository")]
    Magic,
    /// Of a later format version.
    #[error(
        "the repository is of format version {0:?}, this program knows version 1: use a newer strongroom"
    )]
    Version(char),
    /// Damaged.
    #[error("the config is damaged: {0}")]
    Record(#[from] RecordError),
    /// Whole, with fields that this version does not have.
    #[error("the config was written by a newer version: {0}. Use a newer strongroom")]
    Newer(RecordError),
    /// Needs features this version lacks.
    #[error("the repository needs features {0:#x}, which this version does not know: use a newer strongroom")]
    Features(u64),
}

impl Config {
    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&record::encode(self));
        bytes
    }

    /// Reads the object.
    ///
    /// # Errors
    /// [`ConfigError`] for anything this version cannot work with.
    pub fn decode(bytes: &[u8]) -> Result<Self, ConfigError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(ConfigError::Magic)?;
        if *magic != MAGIC {
            let ours = magic[..6] == MAGIC[..6] && magic[7] == MAGIC[7];
            return Err(if ours { ConfigError::Version(char::from(magic[6])) } else { ConfigError::Magic });
        }
        // The bits come first: with one that is not known, the other fields may mean anything.
        if let Ok(Features { must_understand }) = record::decode(rest)
            && must_understand & !KNOWN_FEATURES != 0
        {
            return Err(ConfigError::Features(must_understand & !KNOWN_FEATURES));
        }
        record::decode(rest).map_err(|error| match record::decode::<Extended>(rest) {
            Ok(_) => ConfigError::Newer(error),
            Err(_) => ConfigError::Record(error),
        })
    }

    /// What the first commit names as its predecessor.
    pub fn hash(bytes: &[u8]) -> CommitHash {
        CommitHash::from_bytes(blake3::hash(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            repository: RepositoryId::from_bytes([3; 16]),
            must_understand: 0,
            created_by: "strongroom 0.1.0".into(),
        }
    }

    #[test]
    fn it_comes_back_and_refuses_what_it_does_not_know() {
        let bytes = config().encode();
        assert_eq!(Config::decode(&bytes).expect("just made"), config());
        let features = Config { must_understand: 0x10, ..config() }.encode();
        assert!(matches!(Config::decode(&features), Err(ConfigError::Features(0x10))));
        // The same maps with one more field.
        let extended = |bytes: &[u8]| {
            assert_eq!(bytes[8], 0x83, "three fields");
            [&bytes[..8], &[0x84], &bytes[9..], b"\xa3new\x01"].concat()
        };
        assert!(matches!(Config::decode(&extended(&features)), Err(ConfigError::Features(0x10))));
        assert!(matches!(Config::decode(&extended(&bytes)), Err(ConfigError::Newer(_))));
        let trailing = [&bytes[..], &[0]].concat();
        assert!(matches!(Config::decode(&trailing), Err(ConfigError::Record(_))));
        let mut later = bytes.clone();
        later[6] = b'3';
        assert!(matches!(Config::decode(&later), Err(ConfigError::Version('3'))));
        assert!(matches!(Config::decode(b"[core]\n\tbare = true"), Err(ConfigError::Magic)));
        for len in 0..bytes.len() {
            assert!(Config::decode(&bytes[..len]).is_err(), "cut to {len}");
        }
    }
}
