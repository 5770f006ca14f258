//! Headers, record objects and keyslots: what stands between stored bytes and the records in them.

use serde_bytes::ByteBuf;

use super::input::Input;
use super::records::seals_and_opens;
use super::setup::setup;
use crate::crypto::{KdfError, Password};
use crate::format::block::BlockCodec;
use crate::format::header::{HEADER_LEN, Header, MODE_PASSWORD, ObjectKind};
use crate::format::keyslot::{KEYSLOT_LEN, Keyslot, KeyslotError};
use crate::format::padme;
use crate::format::record;

/// All but parity: what stands in front of that is no header of this form.
const KINDS: [ObjectKind; 8] = [
    ObjectKind::Config,
    ObjectKind::Keyslot,
    ObjectKind::Log,
    ObjectKind::State,
    ObjectKind::DataPack,
    ObjectKind::MetadataPack,
    ObjectKind::Segment,
    ObjectKind::Ledger,
];

/// Headers: bytes are a header of one kind at most, and an accepted header is those bytes.
pub fn header(data: &[u8]) {
    let setup = setup();
    let mut accepted = 0;
    for kind in KINDS {
        let Ok(header) = Header::decode(data, kind) else {
            continue;
        };
        accepted += 1;
        assert_eq!(header.encode(), data[..HEADER_LEN]);
        assert_eq!(header.kind, kind);
        if kind.purpose().is_some()
            && let Ok(cipher) = header.cipher(&setup.keys, &setup.repository)
        {
            assert_eq!(*cipher.commitment(), header.commitment);
        }
    }
    assert!(accepted <= 1, "{accepted} kinds");
}

/// Record objects: the input as an object, as the sealed message, as the payload and as the record in one.
pub fn sealed_record(data: &[u8]) {
    let setup = setup();
    let open = |object: Vec<u8>| {
        record::open_object::<ByteBuf>(ObjectKind::State, object, &setup.keys, &setup.repository)
    };
    let _ = open(data.to_vec());
    if open(setup.object(ObjectKind::State, data)).is_ok() {
        framing(data);
    }
    payload(data, &open);
    let well_formed = record::decode::<ByteBuf>(data).is_ok();
    assert_eq!(open(setup.record_object(ObjectKind::State, data)).is_ok(), well_formed);

    let object = seals_and_opens(&ByteBuf::from(data));
    assert_eq!(padme::padme(object.len() as u64), object.len() as u64);
    let mut altered = object;
    let at = data.iter().fold(data.len(), |sum, byte| sum * 31 % 65_521 + usize::from(*byte)) % altered.len();
    altered[at] ^= 1 << (data.len() % 8);
    assert!(open(altered).is_err(), "byte {at}");
}

/// What the specification asks of the message of a record object that opens.
fn framing(message: &[u8]) {
    let mut input = Input::new(message);
    let (raw_len, stored_len) = (input.u32() as usize, input.u32() as usize);
    assert!(raw_len <= 64 << 20 && stored_len <= raw_len);
    assert_eq!(input.bytes(stored_len).len(), stored_len);
    assert!(input.rest().iter().all(|byte| *byte == 0), "padding is zeros");
}

/// A message with the raw length of its first four bytes and the rest as payload: the codec has the last word.
fn payload(data: &[u8], open: &dyn Fn(Vec<u8>) -> Result<ByteBuf, record::RecordError>) {
    let mut input = Input::new(data);
    let raw_len = input.u32() % (1 << 20);
    let payload = input.rest();
    let stored_len = u32::try_from(payload.len()).expect("fuzz inputs are short");
    let message = [&raw_len.to_le_bytes(), &stored_len.to_le_bytes(), payload].concat();
    let opened = open(setup().object(ObjectKind::State, &message));
    let mut raw = Vec::new();
    let expected = BlockCodec::new().decompress(payload, raw_len as usize, &mut raw).is_ok()
        && record::decode::<ByteBuf>(&raw).is_ok();
    assert_eq!(opened.is_ok(), expected);
}

/// Keyslots up to the password: what is out of bounds is refused before Argon2id gets to work.
///
/// Parameters in bounds are not tried, because each attempt takes a tenth of a second and more.
pub fn keyslot(data: &[u8]) {
    let mut input = Input::new(data);
    let header = Header {
        kind: ObjectKind::Keyslot,
        mode: MODE_PASSWORD,
        flags: 0,
        epoch: 0,
        salt: [7; 32],
        commitment: [9; 32],
    };
    let mut object = header.encode().to_vec();
    object.extend_from_slice(&input.array::<16>());
    object.extend_from_slice(input.rest());
    unwrap_cheaply(&object);
    object.resize(KEYSLOT_LEN, 0);
    unwrap_cheaply(&object);
    unwrap_cheaply(data);
}

fn unwrap_cheaply(object: &[u8]) {
    let unwrapped = || Keyslot::unwrap(object, &Password::new(b"test".to_vec()), &setup().repository);
    if Header::decode(object, ObjectKind::Keyslot).is_err() {
        assert!(matches!(unwrapped(), Err(KeyslotError::Header(_))));
        return;
    }
    if object.len() != KEYSLOT_LEN {
        assert!(matches!(unwrapped(), Err(KeyslotError::Length { found }) if found == object.len()));
        return;
    }
    let mut params = Input::new(&object[HEADER_LEN..]);
    let (memory_kib, passes, lanes) = (params.u32(), params.u32(), params.u32());
    if params.u32() != 0 {
        assert!(matches!(unwrapped(), Err(KeyslotError::Record(_))));
    } else if !(19_456..=1_048_576).contains(&memory_kib)
        || !(2..=64).contains(&passes)
        || !(1..=16).contains(&lanes)
    {
        assert!(matches!(unwrapped(), Err(KeyslotError::Kdf(KdfError::OutOfBounds { .. }))));
    }
}
