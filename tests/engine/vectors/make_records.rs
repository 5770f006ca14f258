//! Vectors of record objects, payloads and padding.

use serde_json::{Value, json};
use strongroom::crypto::MessageContext;
use strongroom::format::block::BlockCodec;
use strongroom::format::header::{Header, ObjectKind};
use strongroom::format::padme::padme;
use strongroom::format::record;
use strongroom::format::state::State;

use super::support::{Context, Vector, bad, flipped, good, hex, object_inputs};

pub fn all() -> Vec<Vector> {
    [records(), payloads(), padmes()].into_iter().flatten().collect()
}

/// A record object of kind 4 with this message (framing, payload, padding).
fn record_object(seed: u64, mut message: Vec<u8>) -> Vec<u8> {
    let (header, cipher) = Header::create(ObjectKind::State, &Context::new(seed).sealer());
    let raw_len = message.len() as u64;
    cipher.seal(MessageContext { position: 80, raw_len }, &mut message);
    [header.encode().to_vec(), message].concat()
}

fn framed(raw_len: usize, payload: &[u8], padding: &[u8]) -> Vec<u8> {
    let len = |len: usize| u32::try_from(len).expect("short").to_le_bytes();
    [&len(raw_len), &len(payload.len()), payload, padding].concat()
}

fn records() -> Vec<Vector> {
    let state = State { appended: Vec::new(), ledger: None, parity: None, ..super::make_log::state() };
    let context = Context::new(6);
    let object = record::seal_object(ObjectKind::State, &state, &context.sealer()).expect("short");
    let raw = record::encode(&state);
    let mut compressed = Vec::new();
    BlockCodec::new().compress(&raw, 3, &mut compressed);
    let expected = json!({"record": hex(&raw)});
    let inputs = |object: &[u8]| object_inputs(4, object);
    let unpadded = record_object(7, framed(raw.len(), &raw, &[]));
    let mut unknown = raw.clone();
    assert_eq!(unknown[0], 0x87, "a state has seven fields");
    unknown[0] = 0x88;
    unknown.extend_from_slice(b"\xa3new\x01");
    let mut lost = raw.clone();
    lost[0] = 0x86;
    let trailing = [&raw[..], &[0]].concat();
    let bad_of = |name: &str, what: &str, seed, message, class| {
        bad(name, "record", what, inputs(&record_object(seed, message)), class)
    };
    vec![
        good("record-good", "record", "a state, compressed and padded", inputs(&object), expected.clone()),
        good("record-raw", "record", "the same state, stored raw and unpadded", inputs(&unpadded), expected),
        bad("record-flipped", "record", "a flipped bit", inputs(&flipped(&object, 100)), "authentication"),
        bad("record-cut", "record", "cut short", inputs(&object[..object.len() - 1]), "authentication"),
        bad(
            "record-no-message",
            "record",
            "a header and nothing else",
            inputs(&object[..80]),
            "authentication",
        ),
        bad_of(
            "record-padding",
            "padding that is not zero",
            8,
            framed(raw.len(), &raw, &[0, 0, 1]),
            "padding",
        ),
        bad_of("record-no-framing", "a message of 7 bytes", 9, vec![0; 7], "record"),
        bad_of(
            "record-payload-beyond",
            "a payload longer than the message",
            10,
            {
                let mut message = framed(raw.len(), &raw, &[]);
                message.pop();
                message
            },
            "record",
        ),
        bad_of(
            "record-too-long",
            "a record of 64 MiB and 1 byte, as it says",
            11,
            framed((64 << 20) + 1, b"x", &[]),
            "record",
        ),
        bad_of(
            "record-payload-too-long",
            "a payload longer than the record",
            12,
            framed(raw.len() - 1, &raw, &[]),
            "codec",
        ),
        bad_of(
            "record-frame-short",
            "a frame of fewer bytes than it says",
            13,
            framed(raw.len() + 1, &compressed, &[]),
            "codec",
        ),
        bad_of(
            "record-unknown-field",
            "an unknown field",
            14,
            framed(unknown.len(), &unknown, &[]),
            "record",
        ),
        bad_of("record-missing-field", "a missing field", 15, framed(raw.len(), &lost, &[]), "record"),
        bad_of(
            "record-trailing",
            "a byte after the record",
            16,
            framed(trailing.len(), &trailing, &[]),
            "record",
        ),
    ]
}

fn payloads() -> Vec<Vector> {
    let text = b"the same words again and again, ".repeat(40);
    let mut frame = Vec::new();
    BlockCodec::new().compress(&text, 3, &mut frame);
    let inputs = |payload: &[u8], raw_len: usize| json!({"payload": hex(payload), "raw_length": raw_len});
    let raw = |bytes: &[u8]| json!({"raw": hex(bytes)});
    let skippable = [&frame[..], b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx"].concat();
    let bad_of = |name: &str, what: &str, payload: &[u8], raw_len| {
        bad(name, "payload", what, inputs(payload, raw_len), "codec")
    };
    vec![
        good("payload-raw", "payload", "as long as the raw length: raw", inputs(b"short", 5), raw(b"short")),
        good(
            "payload-raw-magic",
            "payload",
            "raw even if it begins like a frame",
            inputs(&frame, frame.len()),
            raw(&frame),
        ),
        good("payload-empty", "payload", "nothing stands for nothing", inputs(b"", 0), raw(b"")),
        good("payload-zstd", "payload", "shorter: one zstd frame", inputs(&frame, text.len()), raw(&text)),
        bad_of("payload-too-long", "longer than the raw length", b"short", 4),
        bad_of("payload-raw-length-less", "raw length one too small", &frame, text.len() - 1),
        bad_of("payload-raw-length-more", "raw length one too large", &frame, text.len() + 1),
        bad_of("payload-cut", "a frame cut short", &frame[..frame.len() - 1], text.len()),
        bad_of("payload-two-frames", "two frames", &frame.repeat(2), text.len() * 2),
        bad_of("payload-skippable", "a skippable frame after the frame", &skippable, text.len()),
        bad_of("payload-no-frame", "not a frame", b"short", 6),
        bad_of("payload-nothing", "nothing stands for something", b"", 1),
    ]
}

fn padmes() -> Vec<Vector> {
    let lens = [
        0,
        1,
        2,
        3,
        7,
        8,
        9,
        15,
        16,
        17,
        100,
        1000,
        4097,
        65_537,
        1 << 20,
        1_234_567,
        33_554_433,
        268_435_455,
        u64::MAX,
    ];
    lens.into_iter()
        .map(|len| {
            let expected: Value = json!({"padded": padme(len)});
            good(&format!("padme-{len}"), "padme", "padded length", json!({"length": len}), expected)
        })
        .collect()
}
