//! The 80-byte header that every object but `config` begins with. See `format-spec`, Object header.

use crate::crypto::{Entropy, KeySet, ObjectCipher, Purpose, SealError, random};
use crate::ids::RepositoryId;

/// The first bytes of every object, format version included.
pub const MAGIC: [u8; 8] = *b"SROOMv1\n";

/// Length of the header.
pub const HEADER_LEN: usize = 80;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// The config.
    Config = 1,
    /// A keyslot.
    Keyslot = 2,
    /// A commit.
    Log = 3,
    /// A fold of the log.
    State = 4,
    /// A pack of file content.
    DataPack = 5,
    /// A pack of trees, chunk lists and snapshot records.
    MetadataPack = 6,
    /// An index segment.
    Segment = 7,
    /// A verification ledger.
    Ledger = 8,
    /// A parity sidecar, which has another head: see [`crate::format::parity`].
    Parity = 9,
}

impl ObjectKind {
    fn from_byte(byte: u8) -> Option<Self> {
        let kinds = [
            Self::Config,
            Self::Keyslot,
            Self::Log,
            Self::State,
            Self::DataPack,
            Self::MetadataPack,
            Self::Segment,
            Self::Ledger,
            Self::Parity,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The purpose whose key seals objects of this kind; `None` for config, keyslots and parity.
    pub const fn purpose(self) -> Option<Purpose> {
        match self {
            Self::Config | Self::Keyslot | Self::Parity => None,
            Self::Log | Self::Ledger => Some(Purpose::Log),
            Self::State => Some(Purpose::State),
            Self::DataPack => Some(Purpose::Data),
            Self::MetadataPack => Some(Purpose::Metadata),
            Self::Segment => Some(Purpose::Index),
        }
    }
}

/// Why an object's header was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too short to hold a header.
    #[error("the object has {found} bytes, less than its header of {HEADER_LEN}: it is truncated")]
    Truncated {
        /// Its length.
        found: usize,
    },
    /// Not an object of ours.
    #[error("the object does not begin with Strongroom's magic bytes")]
    Magic,
    /// Written by a later format version.
    #[error("the object is of format version {0:?}, this program knows version 1: use a newer strongroom")]
    Version(char),
    /// Of another kind than the place it was found in calls for.
    #[error("the object's kind byte is {found}, expected {expected:?} ({})", *.expected as u8)]
    Kind {
        /// The kind byte found.
        found: u8,
        /// The kind expected.
        expected: ObjectKind,
    },
    /// Sealed in a way this version does not know.
    #[error(
        "the object uses key mode {mode}, flags {flags:#06x}, epoch {epoch}, which this version does not know"
    )]
    Unknown {
        /// Key mode byte.
        mode: u8,
        /// Flag bits.
        flags: u16,
        /// Key epoch.
        epoch: u32,
    },
    /// Sealed under another key.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// How the key of an object is come by.
pub const MODE_ROOT: u8 = 0;
/// Key mode of keyslots: Argon2id of a password.
pub const MODE_PASSWORD: u8 = 1;
/// Key mode of packs that an append-only keyslot's holder made: X25519 to the repository's public key.
pub const MODE_RECIPIENT: u8 = 2;
/// Flag of keyslots: append-only.
pub const FLAG_APPEND_ONLY: u16 = 1;

/// A header as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the object is.
    pub kind: ObjectKind,
    /// How its key is come by: 0 from the root secret, 1 from a password, 2 from the secret that it was sealed for.
    pub mode: u8,
    /// Zero but for keyslots that are append-only.
    pub flags: u16,
    /// Key epoch, zero until keys are rotated.
    pub epoch: u32,
    /// Random, new for every object; in mode 2 the public key that its key was agreed on with.
    pub salt: [u8; 32],
    /// Commitment to the object's key.
    pub commitment: [u8; 32],
}

impl Header {
    /// The header up to and with the salt: what the object's key is derived from.
    pub fn prefix(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.kind as u8;
        bytes[9] = self.mode;
        bytes[10..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..].copy_from_slice(&self.salt);
        bytes
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..48].copy_from_slice(&self.prefix());
        bytes[48..].copy_from_slice(&self.commitment);
        bytes
    }

    /// Reads the header at the start of `object`, which has to be of kind `expected`.
    ///
    /// # Errors
    /// Whatever makes it another thing than an object of that kind and of this version.
    pub fn decode(object: &[u8], expected: ObjectKind) -> Result<Self, HeaderError> {
        let bytes: &[u8; HEADER_LEN] =
            object.first_chunk().ok_or(HeaderError::Truncated { found: object.len() })?;
        if bytes[..8] != MAGIC {
            let ours = bytes[..6] == MAGIC[..6] && bytes[7] == MAGIC[7];
            return Err(if ours { HeaderError::Version(char::from(bytes[6])) } else { HeaderError::Magic });
        }
        let kind = ObjectKind::from_byte(bytes[8]);
        if kind != Some(expected) {
            return Err(HeaderError::Kind { found: bytes[8], expected });
        }
        let mode = bytes[9];
        let flags = u16::from_le_bytes([bytes[10], bytes[11]]);
        let epoch = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let is_known = match expected {
            ObjectKind::Keyslot => mode == MODE_PASSWORD && flags & !FLAG_APPEND_ONLY == 0,
            ObjectKind::DataPack | ObjectKind::MetadataPack => {
                matches!(mode, MODE_ROOT | MODE_RECIPIENT) && flags == 0
            }
            _ => mode == MODE_ROOT && flags == 0,
        };
        if !is_known || epoch != 0 {
            return Err(HeaderError::Unknown { mode, flags, epoch });
        }
        let mut salt = [0; 32];
        salt.copy_from_slice(&bytes[16..48]);
        let mut commitment = [0; 32];
        commitment.copy_from_slice(&bytes[48..]);
        Ok(Self { kind: expected, mode, flags, epoch, salt, commitment })
    }

    /// A header with a fresh salt for a new object of `kind` and its cipher: sealed under the root secret, or, where a pack
    /// is made with an append-only keyslot, for the root secret's holders.
    pub fn create(kind: ObjectKind, sealer: &Sealer<'_>) -> (Self, ObjectCipher) {
        let purpose = kind.purpose().expect("callers seal only kinds that have a purpose");
        let (mode, salt, agreed) = match (sealer.keys.sealing(purpose), sealer.keys.recipient(purpose)) {
            (None, Some(recipient)) => {
                let (ephemeral, key) = recipient.seal(sealer.entropy);
                (MODE_RECIPIENT, ephemeral, Some(key))
            }
            _ => (MODE_ROOT, random(sealer.entropy), None),
        };
        let mut header = Self { kind, mode, flags: 0, epoch: 0, salt, commitment: [0; 32] };
        let key = agreed.as_ref().or(sealer.keys.sealing(purpose));
        let key = key.expect("whoever has no key for states makes none");
        let cipher = ObjectCipher::derive(key, sealer.repository, &header.prefix());
        header.commitment = *cipher.commitment();
        (header, cipher)
    }

    /// Whether the object was made with an append-only keyslot: by somebody who does not have the root secret.
    pub fn is_for_recipient(&self) -> bool {
        self.mode == MODE_RECIPIENT
    }

    /// The cipher of this object.
    ///
    /// # Errors
    /// [`SealError::Commitment`] where the object was sealed under another key or for another repository,
    /// [`SealError::NoKey`] where the keyslot in use does not open such objects.
    pub fn cipher(&self, keys: &KeySet, repository: &RepositoryId) -> Result<ObjectCipher, SealError> {
        let purpose = self.kind.purpose().ok_or(SealError::NoKey)?;
        let agreed = match self.mode {
            MODE_RECIPIENT => Some(keys.recipient_secret(purpose).ok_or(SealError::NoKey)?.open(&self.salt)?),
            _ => None,
        };
        let key = agreed.as_ref().or(keys.sealing(purpose)).ok_or(SealError::NoKey)?;
        let cipher = ObjectCipher::derive(key, repository, &self.prefix());
        cipher.check_commitment(&self.commitment)?;
        Ok(cipher)
    }
}

/// What sealing a new object takes.
#[derive(Clone, Copy)]
pub struct Sealer<'a> {
    /// The repository's keys.
    pub keys: &'a KeySet,
    /// The repository.
    pub repository: &'a RepositoryId,
    /// Where salts come from.
    pub entropy: &'a dyn Entropy,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{RootSecret, SeededEntropy};

    fn made() -> (KeySet, RepositoryId, Header) {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let repository = RepositoryId::from_bytes([9; 16]);
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer { keys: &keys, repository: &repository, entropy: &entropy };
        let (header, _) = Header::create(ObjectKind::Log, &sealer);
        (keys, repository, header)
    }

    #[test]
    fn a_header_comes_back_and_fits_only_its_kind_and_repository() {
        let (keys, repository, header) = made();
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes, ObjectKind::Log), Ok(header));
        assert!(header.cipher(&keys, &repository).is_ok());
        assert!(matches!(Header::decode(&bytes, ObjectKind::State), Err(HeaderError::Kind { found: 3, .. })));
        let other = RepositoryId::from_bytes([8; 16]);
        assert_eq!(header.cipher(&keys, &other).err(), Some(SealError::Commitment));
    }

    /// Keys of an append-only keyslot of the same repository as those of [`made`].
    fn append_only() -> KeySet {
        KeySet::append_only(crate::crypto::AppendKeys::derive(&RootSecret::from_bytes([7; 32])))
    }

    #[test]
    fn every_altered_bit_is_noticed() {
        let (keys, repository, header) = made();
        let few = append_only();
        let sealer = Sealer { keys: &few, repository: &repository, entropy: &SeededEntropy::new(2) };
        let (pack, _) = Header::create(ObjectKind::DataPack, &sealer);
        // The highest bit of an X25519 public key is ignored by the agreement, not by what follows it.
        for (header, kind) in [(header, ObjectKind::Log), (pack, ObjectKind::DataPack)] {
            for bit in 0..HEADER_LEN * 8 {
                let mut bytes = header.encode();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let refused = match Header::decode(&bytes, kind) {
                    Err(_) => true,
                    Ok(header) => header.cipher(&keys, &repository).is_err(),
                };
                assert!(refused, "{kind:?} bit {bit}");
            }
        }
    }

    #[test]
    fn packs_of_an_append_only_keyslot_open_with_the_root_secret_alone() {
        let (keys, repository, _) = made();
        let few = append_only();
        let sealer = Sealer { keys: &few, repository: &repository, entropy: &SeededEntropy::new(2) };
        for kind in [ObjectKind::DataPack, ObjectKind::MetadataPack] {
            let (header, cipher) = Header::create(kind, &sealer);
            assert!(header.is_for_recipient());
            let decoded = Header::decode(&header.encode(), kind).expect("a header");
            let opened = decoded.cipher(&keys, &repository).expect("the root secret opens it");
            assert_eq!(opened.commitment(), cipher.commitment());
            assert_eq!(header.cipher(&few, &repository).err(), Some(SealError::NoKey), "not its maker");
            let (own, _) = Header::create(kind, &Sealer { keys: &keys, ..sealer });
            assert!(!own.is_for_recipient());
            assert_eq!(own.cipher(&few, &repository).err(), Some(SealError::NoKey));
        }
        let (state, _) = Header::create(ObjectKind::State, &Sealer { keys: &keys, ..sealer });
        assert_eq!(state.cipher(&few, &repository).err(), Some(SealError::NoKey));
    }

    #[test]
    fn key_mode_and_flag_have_their_places_only() {
        let (_, _, header) = made();
        for (kind, mode, flags) in [
            (ObjectKind::Log, MODE_RECIPIENT, 0),
            (ObjectKind::Segment, MODE_RECIPIENT, 0),
            (ObjectKind::Keyslot, MODE_RECIPIENT, 0),
            (ObjectKind::Keyslot, MODE_PASSWORD, 2),
            (ObjectKind::DataPack, MODE_RECIPIENT, FLAG_APPEND_ONLY),
            (ObjectKind::Log, MODE_ROOT, FLAG_APPEND_ONLY),
        ] {
            let bytes = Header { kind, mode, flags, ..header }.encode();
            let refused = Header::decode(&bytes, kind);
            assert!(matches!(refused, Err(HeaderError::Unknown { .. })), "{kind:?} {mode} {flags}");
        }
    }

    #[test]
    fn a_later_version_is_told_apart_from_rubbish() {
        let (_, _, header) = made();
        let mut bytes = header.encode();
        bytes[6] = b'2';
        assert_eq!(Header::decode(&bytes, ObjectKind::Log), Err(HeaderError::Version('2')));
        assert_eq!(Header::decode(&[0; 80], ObjectKind::Log), Err(HeaderError::Magic));
        assert_eq!(Header::decode(&bytes[..79], ObjectKind::Log), Err(HeaderError::Truncated { found: 79 }));
    }
}
