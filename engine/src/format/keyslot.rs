//! Keyslots: the root secret, or what an append-only writer may have of it, and a writer's signing key, wrapped by a
//! password.
//!
//! `header(kind 2, mode 1) ‖ le32 memory_kib ‖ le32 passes ‖ le32 lanes ‖ 4 zeros ‖ sealed record, padded with zeros
//! so that the object has 1024 bytes`. The header's salt is also Argon2id's. See `format-spec`, Keyslots.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::keys::SecretKey;
use crate::crypto::seal::fill_and_wipe;
use crate::crypto::{
    AppendKeys, Entropy, KdfError, KdfParams, KeySet, MessageContext, ObjectCipher, Password, RecipientKey,
    RootSecret, SealError, TAG_LEN, random,
};
use crate::format::header::{FLAG_APPEND_ONLY, HEADER_LEN, Header, HeaderError, MODE_PASSWORD, ObjectKind};
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

/// What an append-only keyslot protects.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct WrappedAppend {
    data_id: ByteArray32,
    tree_id: ByteArray32,
    snapshot_id: ByteArray32,
    chunker: ByteArray32,
    index: ByteArray32,
    log: ByteArray32,
    data_recipient: ByteArray32,
    metadata_recipient: ByteArray32,
    writer: ByteArray32,
    label: String,
}

/// The message to be sealed in place. It is written where there is room for all of it: a buffer that grows leaves copies of
/// the secrets behind.
fn message(wrapped: &impl Serialize) -> Vec<u8> {
    let mut message = Vec::with_capacity(PLAIN_LEN + TAG_LEN);
    message.extend_from_slice(&[0; 4]);
    record::encode_onto(wrapped, &mut message);
    let len = u32::try_from(message.len() - 4).expect("a few keys and a short label");
    message[..4].copy_from_slice(&len.to_le_bytes());
    message.resize(PLAIN_LEN, 0);
    message
}

#[derive(Serialize, Deserialize, Zeroize)]
#[serde(transparent)]
struct ByteArray32(#[serde(with = "serde_bytes")] [u8; 32]);

/// What a keyslot gives its holder.
#[derive(Debug)]
pub enum Secrets {
    /// The repository's root secret: everything.
    Root(RootSecret),
    /// What it takes to add, and nothing that reads contents.
    Append(Box<AppendKeys>),
}

impl Secrets {
    /// The keys to work with.
    pub fn keys(&self) -> KeySet {
        match self {
            Self::Root(root) => KeySet::derive(root),
            Self::Append(keys) => KeySet::append_only(keys.duplicate()),
        }
    }

    /// The same secrets again, for another keyslot or another handle.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Self::Root(root) => Self::Root(RootSecret::from_bytes(*root.expose())),
            Self::Append(keys) => Self::Append(Box::new(keys.duplicate())),
        }
    }
}

/// An opened keyslot.
pub struct Keyslot {
    /// What it gives.
    pub secrets: Secrets,
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
    let mut key = zeroize::Zeroizing::new([0; 32]);
    fill_and_wipe(hasher, key.as_mut());
    Ok(ObjectCipher::derive(&SecretKey::from_bytes(*key), repository, &header.prefix()))
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
        let flags = match &self.secrets {
            Secrets::Root(_) => 0,
            Secrets::Append(_) => FLAG_APPEND_ONLY,
        };
        let mut header = Header {
            kind: ObjectKind::Keyslot,
            mode: MODE_PASSWORD,
            flags,
            epoch: 0,
            salt: random(entropy),
            commitment: [0; 32],
        };
        let cipher = cipher(password, params, repository, &header)?;
        header.commitment = *cipher.commitment();
        let mut label = self.label.clone();
        label.truncate((0..=LABEL_LEN_MAX).rev().find(|at| label.is_char_boundary(*at)).unwrap_or(0));
        let mut message = self.message(label);
        cipher.seal(CONTEXT, &mut message);
        let mut object = header.encode().to_vec();
        object.extend_from_slice(&encode_params(params));
        object.extend_from_slice(&message);
        Ok(object)
    }

    fn message(&self, label: String) -> Vec<u8> {
        let secret = |key: &SecretKey| ByteArray32(*key.expose());
        let writer = secret(&self.writer_seed);
        match &self.secrets {
            Secrets::Root(root) => message(&Wrapped { root: ByteArray32(*root.expose()), writer, label }),
            Secrets::Append(keys) => message(&WrappedAppend {
                data_id: secret(&keys.ids[0]),
                tree_id: secret(&keys.ids[1]),
                snapshot_id: secret(&keys.ids[2]),
                chunker: secret(&keys.chunker),
                index: secret(&keys.index),
                log: secret(&keys.log),
                data_recipient: ByteArray32(*keys.data_recipient.as_bytes()),
                metadata_recipient: ByteArray32(*keys.metadata_recipient.as_bytes()),
                writer,
                label,
            }),
        }
    }

    /// What a guess of the password costs, as a keyslot object says.
    ///
    /// # Errors
    /// [`KeyslotError::Length`] or [`KeyslotError::Record`].
    pub fn params(object: &[u8]) -> Result<KdfParams, KeyslotError> {
        if object.len() != KEYSLOT_LEN {
            return Err(KeyslotError::Length { found: object.len() });
        }
        let number = |at: usize| {
            let bytes = &object[HEADER_LEN + at..HEADER_LEN + at + 4];
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        match number(12) {
            0 => Ok(KdfParams { memory_kib: number(0), passes: number(4), lanes: number(8) }),
            _ => Err(KeyslotError::Record(RecordError::Framing("reserved bytes are not zero"))),
        }
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
        let params = Self::params(object)?;
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
        let secret = |bytes: &ByteArray32| SecretKey::from_bytes(bytes.0);
        if header.flags & FLAG_APPEND_ONLY == 0 {
            let mut wrapped: Wrapped = record::decode(record)?;
            return Ok(Self {
                secrets: Secrets::Root(RootSecret::from_bytes(wrapped.root.0)),
                writer_seed: secret(&wrapped.writer),
                label: std::mem::take(&mut wrapped.label),
            });
        }
        let mut wrapped: WrappedAppend = record::decode(record)?;
        let keys = AppendKeys {
            ids: [secret(&wrapped.data_id), secret(&wrapped.tree_id), secret(&wrapped.snapshot_id)],
            chunker: secret(&wrapped.chunker),
            index: secret(&wrapped.index),
            log: secret(&wrapped.log),
            data_recipient: RecipientKey::from_bytes(wrapped.data_recipient.0),
            metadata_recipient: RecipientKey::from_bytes(wrapped.metadata_recipient.0),
        };
        Ok(Self {
            secrets: Secrets::Append(Box::new(keys)),
            writer_seed: secret(&wrapped.writer),
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
            secrets: Secrets::Root(RootSecret::from_bytes([1; 32])),
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
        let Secrets::Root(root) = &slot.secrets else { panic!("not append-only") };
        assert_eq!((root.expose(), slot.writer_seed.expose()), (&[1; 32], &[2; 32]));
        assert_eq!(slot.label, "é".repeat(100), "cut at a character");
        assert!(matches!(open(&object, b"pW", &repository), Err(KeyslotError::WrongPassword)));
        let other = RepositoryId::from_bytes([6; 16]);
        assert!(matches!(open(&object, b"pw", &other), Err(KeyslotError::WrongPassword)));
        assert!(matches!(open(&object[..1000], b"pw", &repository), Err(KeyslotError::Length { .. })));
    }

    #[test]
    fn the_longest_label_fits_the_memory_that_the_message_begins_with() {
        let key = || ByteArray32([255; 32]);
        let label = || "l".repeat(LABEL_LEN_MAX);
        let full = message(&Wrapped { root: key(), writer: key(), label: label() });
        let append = message(&WrappedAppend {
            data_id: key(),
            tree_id: key(),
            snapshot_id: key(),
            chunker: key(),
            index: key(),
            log: key(),
            data_recipient: key(),
            metadata_recipient: key(),
            writer: key(),
            label: label(),
        });
        for message in [full, append] {
            assert_eq!((message.len(), message.capacity()), (PLAIN_LEN, PLAIN_LEN + TAG_LEN));
        }
    }

    #[test]
    fn an_append_only_keyslot_says_so_and_holds_no_root_secret() {
        let repository = RepositoryId::from_bytes([5; 16]);
        let root = RootSecret::from_bytes([1; 32]);
        let slot = Keyslot {
            secrets: Secrets::Append(Box::new(AppendKeys::derive(&root))),
            writer_seed: SecretKey::from_bytes([2; 32]),
            label: "web".into(),
        };
        let password = Password::new(b"pw".to_vec());
        let object = slot.wrap(&password, CHEAP, &repository, &SeededEntropy::new(3)).expect("in bounds");
        assert_eq!((object.len(), object[10]), (KEYSLOT_LEN, 1));
        let opened = Keyslot::unwrap(&object, &password, &repository).expect("right password");
        assert_eq!((opened.writer_seed.expose(), opened.label.as_str()), (&[2; 32], "web"));
        let keys = opened.secrets.keys();
        assert!(keys.is_append_only());
        let id = |keys: &KeySet| keys.blob_id(crate::crypto::keys::BlobKind::Data, b"x");
        assert_eq!(id(&keys), id(&KeySet::derive(&root)));
        // The flag is part of what the key is derived from: no keyslot becomes one of the other sort.
        let mut altered = object;
        altered[10] = 0;
        let refused = Keyslot::unwrap(&altered, &password, &repository);
        assert!(matches!(refused, Err(KeyslotError::WrongPassword)));
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
