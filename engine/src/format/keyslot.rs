//! Keyslots: the root secret and a writer's signing key, wrapped by a password.
//!
//! `header(kind 2, mode 1) ‖ le32 memory_kib ‖ le32 passes ‖ le32 lanes ‖ 4 zeros ‖ sealed record, padded with zeros
//! so that the object has 1024 bytes`. The header's salt is also Argon2id's. See `format-spec`, Keyslots.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::keys::SecretKey;
use crate::crypto::{
    Entropy, KdfError, KdfParams, MessageContext, ObjectCipher, Password, RootSecret, SealError, TAG_LEN,
    random,
};
use crate::format::header::{HEADER_LEN, Header, HeaderError, MODE_PASSWORD, ObjectKind};
use crate::format::record::{self, RecordError};
use crate::ids::{KeyslotId, RepositoryId};

/// Every keyslot object has this length.
pub const KEYSLOT_LEN: usize = 1024;

const PARAMS_LEN: usize = 16;
const MESSAGE_AT: usize = HEADER_LEN + PARAMS_LEN;
const PLAIN_LEN: usize = KEYSLOT_LEN - MESSAGE_AT - TAG_LEN;
/// BLAKE3 context of the key that wraps.
pub const WRAP_CONTEXT: &str = "strongroom v1 2026-11-22 keyslot";
/// Longest label.
pub const LABEL_LEN_MAX: usize = 200;

/// What a keyslot protects.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    root: ByteArray32,
    writer: ByteArray32,
    label: String,
}

impl Wrapped {
    /// The message to be sealed in place. It is written where there is room for all of it: a buffer that grows leaves copies of
    /// the secrets behind.
    fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(PLAIN_LEN + TAG_LEN);
        message.extend_from_slice(&[0; 4]);
        record::encode_onto(self, &mut message);
        let len = u32::try_from(message.len() - 4).expect("two keys and a short label");
        message[..4].copy_from_slice(&len.to_le_bytes());
        message.resize(PLAIN_LEN, 0);
        message
    }
}

#[derive(Serialize, Deserialize, Zeroize)]
#[serde(transparent)]
struct ByteArray32(#[serde(with = "serde_bytes")] [u8; 32]);

/// An opened keyslot.
pub struct Keyslot {
    /// The repository's root secret.
    pub root: RootSecret,
    /// Seed of this keyslot's Ed25519 signing key.
    pub writer_seed: SecretKey,
    /// What the owner called it.
    pub label: String,
}

impl std::fmt::Debug for Keyslot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyslot({:?})", self.label)
    }
}

/// A keyslot cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyslotError {
    /// Not a keyslot of this version.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Wrong length.
    #[error("the keyslot has {found} bytes, expected {KEYSLOT_LEN}: it is damaged")]
    Length {
        /// Its length.
        found: usize,
    },
    /// Parameters outside the bounds.
    #[error(transparent)]
    Kdf(#[from] KdfError),
    /// The password is not this keyslot's.
    #[error("the password does not open this keyslot")]
    WrongPassword,
    /// The password is right, the contents are not.
    #[error("the keyslot is damaged: {0}")]
    Seal(SealError),
    /// The password is right, the record is not one.
    #[error("the keyslot is damaged: {0}")]
    Record(#[from] RecordError),
}

fn cipher(
    password: &Password,
    params: KdfParams,
    repository: &RepositoryId,
    header: &Header,
) -> Result<ObjectCipher, KdfError> {
    let derived = params.derive(password, &header.salt)?;
    let mut hasher = blake3::Hasher::new_derive_key(WRAP_CONTEXT);
    hasher.update(derived.as_ref()).update(&encode_params(params));
    let key = SecretKey::from_bytes(hasher.finalize().into());
    Ok(ObjectCipher::derive(&key, repository, &header.prefix()))
}

fn encode_params(params: KdfParams) -> [u8; PARAMS_LEN] {
    let mut bytes = [0; PARAMS_LEN];
    bytes[..4].copy_from_slice(&params.memory_kib.to_le_bytes());
    bytes[4..8].copy_from_slice(&params.passes.to_le_bytes());
    bytes[8..12].copy_from_slice(&params.lanes.to_le_bytes());
    bytes
}

impl Keyslot {
    /// Id of a keyslot object.
    pub fn id(object: &[u8]) -> KeyslotId {
        KeyslotId::from_bytes(blake3::hash(object).into())
    }

    /// Wraps the contents under a password. The label is cut to [`LABEL_LEN_MAX`] bytes.
    ///
    /// # Errors
    /// [`KdfError`] where the parameters are out of bounds.
    pub fn wrap(
        &self,
        password: &Password,
        params: KdfParams,
        repository: &RepositoryId,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, KdfError> {
        let mut header = Header {
            kind: ObjectKind::Keyslot,
            mode: MODE_PASSWORD,
            flags: 0,
            epoch: 0,
            salt: random(entropy),
            commitment: [0; 32],
        };
        let cipher = cipher(password, params, repository, &header)?;
        header.commitment = *cipher.commitment();
        let mut label = self.label.clone();
        label.truncate((0..=LABEL_LEN_MAX).rev().find(|at| label.is_char_boundary(*at)).unwrap_or(0));
        let wrapped = Wrapped {
            root: ByteArray32(*self.root.expose()),
            writer: ByteArray32(*self.writer_seed.expose()),
            label,
        };
        let mut message = wrapped.message();
        cipher.seal(CONTEXT, &mut message);
        let mut object = header.encode().to_vec();
        object.extend_from_slice(&encode_params(params));
        object.extend_from_slice(&message);
        Ok(object)
    }

    /// Opens a keyslot object with a password.
    ///
    /// # Errors
    /// [`KeyslotError::WrongPassword`], or what is wrong with the object.
    pub fn unwrap(
        object: &[u8],
        password: &Password,
        repository: &RepositoryId,
    ) -> Result<Self, KeyslotError> {
        let header = Header::decode(object, ObjectKind::Keyslot)?;
        if object.len() != KEYSLOT_LEN {
            return Err(KeyslotError::Length { found: object.len() });
        }
        let number = |at: usize| {
            let bytes = &object[HEADER_LEN + at..HEADER_LEN + at + 4];
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        let params = KdfParams { memory_kib: number(0), passes: number(4), lanes: number(8) };
        if number(12) != 0 {
            return Err(KeyslotError::Record(RecordError::Framing("reserved bytes are not zero")));
        }
        let cipher = cipher(password, params, repository, &header)?;
        cipher.check_commitment(&header.commitment).map_err(|_| KeyslotError::WrongPassword)?;
        let mut message = zeroize::Zeroizing::new(object[MESSAGE_AT..].to_vec());
        let plain = cipher.open(CONTEXT, &mut message).map_err(KeyslotError::Seal)?;
        let (len, rest) = plain.split_first_chunk::<4>().ok_or(RecordError::Framing("no length"))?;
        let (record, padding) = rest
            .split_at_checked(u32::from_le_bytes(*len) as usize)
            .ok_or(RecordError::Framing("the record is cut short"))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(KeyslotError::Record(RecordError::Framing("the padding is not zero")));
        }
        let mut wrapped: Wrapped = record::decode(record)?;
        Ok(Self {
            root: RootSecret::from_bytes(wrapped.root.0),
            writer_seed: SecretKey::from_bytes(wrapped.writer.0),
            label: std::mem::take(&mut wrapped.label),
        })
    }
}

const CONTEXT: MessageContext = MessageContext { position: MESSAGE_AT as u64, raw_len: PLAIN_LEN as u64 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SeededEntropy;

    const CHEAP: KdfParams = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };

    fn wrapped() -> (Vec<u8>, RepositoryId) {
        let repository = RepositoryId::from_bytes([5; 16]);
        let slot = Keyslot {
            root: RootSecret::from_bytes([1; 32]),
            writer_seed: SecretKey::from_bytes([2; 32]),
            label: "é".repeat(150),
        };
        let entropy = SeededEntropy::new(3);
        let object =
            slot.wrap(&Password::new(b"pw".to_vec()), CHEAP, &repository, &entropy).expect("in bounds");
        (object, repository)
    }

    #[test]
    fn only_the_password_opens_it_and_only_for_its_repository() {
        let (object, repository) = wrapped();
        assert_eq!(object.len(), KEYSLOT_LEN);
        let open = |object: &[u8], pw: &[u8], repository| {
            Keyslot::unwrap(object, &Password::new(pw.to_vec()), repository)
        };
        let slot = open(&object, b"pw", &repository).expect("right password");
        assert_eq!((slot.root.expose(), slot.writer_seed.expose()), (&[1; 32], &[2; 32]));
        assert_eq!(slot.label, "é".repeat(100), "cut at a character");
        assert!(matches!(open(&object, b"pW", &repository), Err(KeyslotError::WrongPassword)));
        let other = RepositoryId::from_bytes([6; 16]);
        assert!(matches!(open(&object, b"pw", &other), Err(KeyslotError::WrongPassword)));
        assert!(matches!(open(&object[..1000], b"pw", &repository), Err(KeyslotError::Length { .. })));
    }

    #[test]
    fn the_longest_label_fits_the_memory_that_the_message_begins_with() {
        let key = || ByteArray32([255; 32]);
        let wrapped = Wrapped { root: key(), writer: key(), label: "l".repeat(LABEL_LEN_MAX) };
        let message = wrapped.message();
        assert_eq!((message.len(), message.capacity()), (PLAIN_LEN, PLAIN_LEN + TAG_LEN));
    }

    #[test]
    fn altered_bytes_are_refused() {
        let (object, repository) = wrapped();
        // One bit of every part; each attempt costs an Argon2id run.
        for at in [9, 12, 20, 50, 79, 80, 92, 96, 300, 1023] {
            let mut altered = object.clone();
            altered[at] ^= 1;
            let result = Keyslot::unwrap(&altered, &Password::new(b"pw".to_vec()), &repository);
            assert!(result.is_err(), "byte {at}");
        }
    }
}
