//! Vectors of commits and states.

use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use strongroom::crypto::keys::SecretKey;
use strongroom::format::commit::{self, Change, Commit, SIGNATURE_CONTEXT, SegmentInfo, WriterKey};
use strongroom::format::header::ObjectKind;
use strongroom::format::record;
use strongroom::format::state::{CondemnedPack, KeyslotEntry, SnapshotEntry, State};
use strongroom::format::tree::Timestamp;
use strongroom::ids::{BlobId, CommitHash, KeyslotId, PackId, SegmentId, SnapshotId, WriterId};

use super::make_trees::{blob, buf};
use super::support::{Context, REPOSITORY, Vector, bad, flipped, good, hex, object_inputs, record_json};

const WRITER_SEED: [u8; 32] = [0x33; 32];

fn id(n: u8) -> [u8; 32] {
    *BlobId::from_bytes([n; 32]).as_bytes()
}

fn segment_info() -> SegmentInfo {
    SegmentInfo { segment: SegmentId::from_bytes(id(5)), blobs: 1_000_000, packs: 70_000, bytes: 1 << 33 }
}

pub fn state() -> State {
    State {
        seq: 300,
        head: CommitHash::from_bytes(id(1)),
        config: CommitHash::from_bytes(id(2)),
        keyslots: vec![KeyslotEntry {
            keyslot: KeyslotId::from_bytes(id(3)),
            writer: WriterId::from_bytes(id(4)),
            label: "first".into(),
            added: 1,
        }],
        snapshots: vec![SnapshotEntry {
            snapshot: SnapshotId::new(blob(6)),
            added: 2,
            record: buf(b"a record"),
            hold: Some("audit".into()),
        }],
        segments: vec![segment_info()],
        condemned: vec![CondemnedPack { pack: PackId::from_bytes(id(7)), condemned: 299 }],
    }
}

fn changes() -> Vec<Change> {
    let (keyslot, writer) = (KeyslotId::from_bytes(id(1)), WriterId::from_bytes(id(2)));
    let packs = || vec![PackId::from_bytes(id(3)), PackId::from_bytes(id(4))];
    vec![
        Change::KeyslotAdded { keyslot, writer, label: "näme".into() },
        Change::KeyslotRemoved { keyslot, writer },
        Change::SnapshotAdded { snapshot: SnapshotId::new(blob(5)), record: buf(b"a record") },
        Change::SnapshotForgotten { snapshot: SnapshotId::new(blob(5)), reason: "keep-daily".into() },
        Change::SnapshotHeld { snapshot: SnapshotId::new(blob(5)), reason: "audit".into() },
        Change::SnapshotReleased { snapshot: SnapshotId::new(blob(5)), reason: "audit done".into() },
        Change::SegmentsReplaced { added: vec![segment_info()], removed: vec![SegmentId::from_bytes(id(6))] },
        Change::SegmentsReplaced { added: vec![], removed: vec![] },
        Change::SegmentsDropped { segments: vec![SegmentId::from_bytes(id(6))] },
        Change::PacksCondemned { packs: packs() },
        Change::PacksRescued { packs: packs() },
        Change::PacksRemoved { packs: vec![] },
        Change::Note { kind: "drill".into(), record: buf(b"a record of that kind") },
    ]
}

fn example() -> Commit {
    Commit {
        seq: 7,
        previous: CommitHash::from_bytes(id(9)),
        time: Timestamp { seconds: 1_764_000_000, nanos: 5 },
        host: "host".into(),
        user: "anna".into(),
        program: "strongroom vectors".into(),
        changes: changes(),
    }
}

/// The wrapping record with whatever is put in it.
#[derive(Serialize)]
struct Signed {
    body: ByteBuf,
    writer: WriterId,
    signature: ByteBuf,
}

fn sealed(seed: u64, body: &[u8], writer: WriterId, signature: &[u8]) -> Vec<u8> {
    let signed = Signed { body: buf(body), writer, signature: buf(signature) };
    record::seal_object(ObjectKind::Log, &signed, &Context::new(seed).sealer()).expect("short")
}

fn sign(seed: [u8; 32], body: &[u8]) -> Vec<u8> {
    let message = [SIGNATURE_CONTEXT, &REPOSITORY, body].concat();
    SigningKey::from_bytes(&seed).sign(&message).to_bytes().to_vec()
}

fn inputs(object: &[u8], seq: u64) -> Value {
    let mut inputs = object_inputs(3, object);
    inputs["seq"] = seq.into();
    inputs
}

pub fn all() -> Vec<Vector> {
    let writer_key = WriterKey::new(&SecretKey::from_bytes(WRITER_SEED));
    let writer = writer_key.id();
    let commit = example();
    let object = commit.seal(&writer_key, &Context::new(60).sealer()).expect("short");
    let body = record::encode(&commit);
    let good_signature = sign(WRITER_SEED, &body);
    let empty = Commit { changes: vec![], seq: u64::MAX, ..example() };
    let empty_object = empty.seal(&writer_key, &Context::new(61).sealer()).expect("short");
    let expected = |object: &[u8], commit: &Commit| {
        json!({
            "hash": commit::hash(object).to_string(),
            "writer": writer.to_string(),
            "value": record_json(commit),
        })
    };
    let refused =
        |name: &str, what: &str, object: &[u8], class| bad(name, "commit", what, inputs(object, 7), class);
    let foreign =
        SigningKey::from_bytes(&WRITER_SEED).sign(&[SIGNATURE_CONTEXT, &[1; 16], &body].concat()).to_bytes();
    let mut unknown_change = body.clone();
    let at = body.windows(14).position(|w| w == b"packs_condemne").expect("a change");
    unknown_change[at] = b'q';
    let small_order = {
        // The neutral element as key and R, s = 0: verifies for any message where small orders are let through.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        sealed(69, &body, WriterId::from_bytes(neutral), &[&neutral[..], &[0; 32]].concat())
    };
    let mut vectors = vec![
        good(
            "commit-good",
            "commit",
            "a commit with every change",
            inputs(&object, 7),
            expected(&object, &commit),
        ),
        good(
            "commit-empty",
            "commit",
            "a commit without changes, the last number",
            inputs(&empty_object, u64::MAX),
            expected(&empty_object, &empty),
        ),
        bad("commit-wrong-sequence", "commit", "number 7 standing at 8", inputs(&object, 8), "sequence"),
        refused("commit-flipped", "a flipped bit", &flipped(&object, 200), "authentication"),
        refused(
            "commit-bad-signature",
            "a flipped bit of the signature",
            &sealed(62, &body, writer, &flipped(&good_signature, 1)),
            "signature",
        ),
        refused(
            "commit-bad-scalar",
            "a flipped bit of the signature's s",
            &sealed(63, &body, writer, &flipped(&good_signature, 40)),
            "signature",
        ),
        refused(
            "commit-other-writer",
            "signed by another writer than it names",
            &sealed(64, &body, writer, &sign([0x44; 32], &body)),
            "signature",
        ),
        refused(
            "commit-other-body",
            "the signature of another body",
            &sealed(65, &record::encode(&empty), writer, &good_signature),
            "signature",
        ),
        refused(
            "commit-short-signature",
            "a signature of 63 bytes",
            &sealed(66, &body, writer, &good_signature[..63]),
            "signature",
        ),
        refused(
            "commit-other-repository",
            "signed for another repository",
            &sealed(67, &body, writer, &foreign),
            "signature",
        ),
        refused(
            "commit-unknown-change",
            "a change version 1 does not know",
            &sealed(68, &unknown_change, writer, &sign(WRITER_SEED, &unknown_change)),
            "record",
        ),
        refused(
            "commit-small-order",
            "a key of small order, under which anything verifies",
            &small_order,
            "signature",
        ),
    ];
    let raw = record::encode(&state());
    vectors.push(good(
        "state-good",
        "state",
        "the record of a state",
        json!({"record": hex(&raw)}),
        json!({"value": record_json(&state())}),
    ));
    vectors.push(bad(
        "state-cut",
        "state",
        "cut short",
        json!({"record": hex(&raw[..raw.len() - 1])}),
        "record",
    ));
    vectors
}
