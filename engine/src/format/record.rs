//! Structured records: MessagePack maps with field names, in declaration order, so that equal values have
//! equal bytes; and the sealed objects that hold one record each (commits, states).
//!
//! A record object is `header ‖ sealed(le32 raw_len ‖ le32 stored_len ‖ payload ‖ zeros)`, padded so that the
//! object's length follows Padmé. See `format-spec`, Records.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::crypto::{KeySet, MessageContext, SealError, TAG_LEN};
use crate::format::block::{BlockCodec, CodecError};
use crate::format::header::{HEADER_LEN, Header, HeaderError, ObjectKind, Sealer};
use crate::format::padme::padme;
use crate::ids::RepositoryId;

/// Longest record before compression that is read or written: 64 MiB.
pub const RECORD_LEN_MAX: usize = 64 << 20;

/// Longest stored record object that is read: a record that did not compress, with framing and padding.
pub const RECORD_OBJECT_LEN_MAX: u64 = 72 << 20;

/// Nesting in a record. Our own types nest a handful of levels; a hostile record may not use up the stack.
const DEPTH_MAX: usize = 64;

/// Stored bytes are not the record they should be.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not MessagePack of this type.
    #[error("the record is not well-formed: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// Bytes follow the record.
    #[error("{extra} bytes follow the record")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Lengths that contradict each other or the limits.
    #[error("the record's framing is wrong: {0}")]
    Framing(&'static str),
    /// A record beyond the limit.
    #[error("the record has {found} bytes, at most {RECORD_LEN_MAX} are possible")]
    TooLong {
        /// Its length before compression.
        found: usize,
    },
    /// The object's header was refused.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The object does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The payload does not decompress.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Encodes a record.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    encode_onto(record, &mut bytes);
    bytes
}

/// Encodes a record behind what is in `bytes`.
pub fn encode_onto<T: Serialize>(record: &T, bytes: &mut Vec<u8>) {
    rmp_serde::encode::write_named(bytes, record)
        .expect("records are maps, sequences, numbers and strings: all encodable");
}

/// Decodes a record that fills `bytes` exactly.
///
/// # Errors
/// [`RecordError::Decode`] or [`RecordError::Trailing`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    // Reading from a slice is twice as fast, but does not tell where it ended.
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(DEPTH_MAX);
    if let Ok(record) = T::deserialize(&mut decoder)
        && matches!(u8::deserialize(&mut decoder), Err(rmp_serde::decode::Error::InvalidMarkerRead(_)))
    {
        return Ok(record);
    }
    decode_counted(bytes)
}

/// As [`decode`]: the slow way, which knows what is wrong.
fn decode_counted<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let mut decoder = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    decoder.set_max_depth(DEPTH_MAX);
    let record = T::deserialize(&mut decoder)?;
    let used = usize::try_from(decoder.position()).unwrap_or(usize::MAX);
    match bytes.len().saturating_sub(used) {
        0 => Ok(record),
        extra => Err(RecordError::Trailing { extra }),
    }
}

/// Seals a record as an object of `kind`.
///
/// # Errors
/// [`RecordError::TooLong`]: nobody would open it.
pub fn seal_object<T: Serialize>(
    kind: ObjectKind,
    record: &T,
    sealer: &Sealer<'_>,
) -> Result<Vec<u8>, RecordError> {
    let raw = encode(record);
    if raw.len() > RECORD_LEN_MAX {
        return Err(RecordError::TooLong { found: raw.len() });
    }
    let mut codec = BlockCodec::new();
    let mut payload = Vec::new();
    codec.compress(&raw, 3, &mut payload);
    let unpadded = HEADER_LEN + 8 + payload.len() + TAG_LEN;
    let padded = usize::try_from(padme(unpadded as u64)).expect("the length of a vector, padded by a tenth");
    let (header, cipher) = Header::create(kind, sealer);
    let mut message = Vec::with_capacity(padded - HEADER_LEN);
    message.extend_from_slice(&len32(raw.len()));
    message.extend_from_slice(&len32(payload.len()));
    message.extend_from_slice(&payload);
    message.resize(padded - HEADER_LEN - TAG_LEN, 0);
    let context = MessageContext { position: HEADER_LEN as u64, raw_len: message.len() as u64 };
    cipher.seal(context, &mut message);
    let mut object = header.encode().to_vec();
    object.append(&mut message);
    Ok(object)
}

fn len32(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("records of at most 64 MiB, and payloads are no longer").to_le_bytes()
}

/// Opens an object of `kind` that holds one record.
///
/// # Errors
/// [`RecordError`]: not such an object, altered, or not such a record.
pub fn open_object<T: DeserializeOwned>(
    kind: ObjectKind,
    mut object: Vec<u8>,
    keys: &KeySet,
    repository: &RepositoryId,
) -> Result<T, RecordError> {
    let header = Header::decode(&object, kind)?;
    let cipher = header.cipher(keys, repository)?;
    let raw_len = object.len().checked_sub(HEADER_LEN + TAG_LEN).ok_or(SealError::Authentication)? as u64;
    let context = MessageContext { position: HEADER_LEN as u64, raw_len };
    let message = cipher.open(context, &mut object[HEADER_LEN..])?;
    let (lengths, rest) = message.split_first_chunk::<8>().ok_or(RecordError::Framing("no lengths"))?;
    let [a, b, c, d, e, f, g, h] = *lengths;
    let raw_len = u32::from_le_bytes([a, b, c, d]) as usize;
    let stored_len = u32::from_le_bytes([e, f, g, h]) as usize;
    if raw_len > RECORD_LEN_MAX {
        return Err(RecordError::TooLong { found: raw_len });
    }
    let payload = rest.get(..stored_len).ok_or(RecordError::Framing("the payload is cut short"))?;
    if rest[stored_len..].iter().any(|byte| *byte != 0) {
        return Err(RecordError::Framing("the padding is not zero"));
    }
    let mut raw = Vec::new();
    BlockCodec::new().decompress(payload, raw_len, &mut raw)?;
    decode(&raw)
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::crypto::{RootSecret, SeededEntropy};

    #[test]
    fn both_ways_of_decoding_agree_on_every_end() {
        let record = vec![ByteBuf::from(vec![7; 300]), ByteBuf::from(b"x")];
        let bytes = encode(&record);
        let both = |bytes: &[u8]| {
            let (fast, slow) = (decode::<Vec<ByteBuf>>(bytes), decode_counted::<Vec<ByteBuf>>(bytes));
            assert_eq!(format!("{fast:?}"), format!("{slow:?}"), "{} bytes", bytes.len());
            fast
        };
        assert_eq!(both(&bytes).expect("just encoded"), record);
        for len in 0..bytes.len() {
            both(&bytes[..len]).expect_err("cut short");
        }
        // All first bytes of values, those that need more after them included.
        for extra in 0..=u8::MAX {
            let longer = [&bytes[..], &[extra]].concat();
            assert!(matches!(both(&longer), Err(RecordError::Trailing { extra: 1 })), "{extra}");
        }
        assert!(matches!(both(&[&bytes[..], &bytes].concat()), Err(RecordError::Trailing { .. })));
    }

    #[test]
    fn what_nobody_would_open_is_not_sealed() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let repository = RepositoryId::from_bytes([9; 16]);
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer { keys: &keys, repository: &repository, entropy: &entropy };
        // Five bytes of length before the content.
        let longest = ByteBuf::from(vec![0; RECORD_LEN_MAX - 5]);
        let object = seal_object(ObjectKind::State, &longest, &sealer).expect("just short enough");
        let back: ByteBuf = open_object(ObjectKind::State, object, &keys, &repository).expect("just sealed");
        assert!(back == longest);
        let longer = ByteBuf::from(vec![0; RECORD_LEN_MAX - 4]);
        let refused = seal_object(ObjectKind::State, &longer, &sealer);
        assert!(matches!(refused, Err(RecordError::TooLong { found }) if found == RECORD_LEN_MAX + 1));
    }
}
