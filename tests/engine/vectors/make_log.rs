//! Vectors of commits and states.

use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use strongroom::crypto::keys::SecretKey;
use strongroom::format::commit::{self, Change, Commit, SIGNATURE_CONTEXT, SegmentInfo, WriterKey};
use strongroom::format::header::ObjectKind;
use strongroom::format::parity::Overhead;
use strongroom::format::record;
use strongroom::format::state::{
    AppendedSegment, CondemnedPack, KeyslotEntry, LostEntry, SnapshotEntry, State,
};
use strongroom::format::tree::Timestamp;
use strongroom::ids::{BlobId, CommitHash, KeyslotId, LedgerId, PackId, SegmentId, SnapshotId, WriterId};

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
            append_only: true,
        }],
        snapshots: vec![SnapshotEntry {
            snapshot: SnapshotId::new(blob(6)),
            added: 2,
            record: buf(b"a record"),
            hold: Some("audit".into()),
            appender: Some(WriterId::from_bytes(id(9))),
        }],
        segments: vec![segment_info()],
        appended: vec![AppendedSegment {
            segment: SegmentId::from_bytes(id(5)),
            writer: WriterId::from_bytes(id(9)),
        }],
        condemned: vec![CondemnedPack { pack: PackId::from_bytes(id(7)), condemned: 299 }],
        ledger: Some(LedgerId::from_bytes(id(8))),
        parity: Overhead::from_tenths(30),
        reserve: None,
        lost: Vec::new(),
    }
}

fn changes() -> Vec<Change> {
    let (keyslot, writer) = (KeyslotId::from_bytes(id(1)), WriterId::from_bytes(id(2)));
    let packs = || vec![PackId::from_bytes(id(3)), PackId::from_bytes(id(4))];
    let ledger = LedgerId::from_bytes(id(8));
    vec![
        Change::KeyslotAdded { keyslot, writer, label: "näme".into() },
        Change::AppenderAdded { keyslot, writer, label: "web".into() },
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
        Change::LedgerReplaced { ledger, previous: None },
        Change::LedgerReplaced { ledger, previous: Some(LedgerId::from_bytes(id(7))) },
        Change::ParitySet { overhead: 30 },
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
    let kept_free = Commit {
        changes: vec![Change::ReserveSet { bytes: 64 << 20 }, Change::ReserveSet { bytes: 0 }],
        ..example()
    };
    let object = kept_free.seal(&writer_key, &Context::new(93).sealer()).expect("short");
    vectors.push(good(
        "commit-reserve",
        "commit",
        "a commit that wants room kept free, and then none",
        inputs(&object, 7),
        expected(&object, &kept_free),
    ));
    let with_reserve = State { reserve: Some(64 << 20), ..state() };
    vectors.push(good(
        "state-reserve",
        "state",
        "the record of a state with room that is to be kept free",
        json!({"record": hex(record::encode(&with_reserve))}),
        json!({"value": record_json(&with_reserve)}),
    ));
    let with_loss =
        State { lost: vec![LostEntry { seq: 7, hash: CommitHash::from_bytes(id(1)) }], ..state() };
    vectors.push(good(
        "state-lost",
        "state",
        "the record of a state of a log in which an entry was a commit once",
        json!({"record": hex(record::encode(&with_loss))}),
        json!({"value": record_json(&with_loss)}),
    ));
    vectors.push(bad(
        "state-cut",
        "state",
        "cut short",
        json!({"record": hex(&raw[..raw.len() - 1])}),
        "record",
    ));
    vectors.extend(ledgers());
    vectors
}

/// A ledger's record with whatever is put in it.
#[derive(Serialize)]
struct Verified {
    verified: Vec<Group>,
}

#[derive(Serialize)]
struct Group {
    time: Timestamp,
    method: &'static str,
    intact: bool,
    packs: ByteBuf,
}

fn group(seconds: i64, method: &'static str, intact: bool, packs: &[u8]) -> Group {
    Group { time: Timestamp { seconds, nanos: 0 }, method, intact, packs: buf(packs) }
}

fn ledgers() -> Vec<Vector> {
    let object = |seed, verified| {
        let record = Verified { verified };
        record::seal_object(ObjectKind::Ledger, &record, &Context::new(seed).sealer()).expect("short")
    };
    let two = [id(1), id(2)].concat();
    let of = |pack, seconds, method: &str, intact| json!({"pack": hex(id(pack)), "time": {"seconds": seconds, "nanos": 0}, "method": method, "intact": intact});
    let good_object = object(
        70,
        vec![
            group(10, "hashed", true, &id(3)),
            group(10, "read", false, &id(2)),
            group(10, "read", true, &id(1)),
            group(20, "listed", true, &two),
        ],
    );
    let entries = [
        of(1, 20, "listed", true),
        of(1, 10, "read", true),
        of(2, 20, "listed", true),
        of(2, 10, "read", false),
        of(3, 10, "hashed", true),
    ];
    let mut vectors = vec![good(
        "ledger-good",
        "ledger",
        "three packs, two of them verified in two ways",
        object_inputs(8, &good_object),
        json!({"id": hex(blake3::hash(&good_object).as_bytes()), "entries": entries}),
    )];
    let reversed = [id(2), id(1)].concat();
    let one = id(1);
    for (seed, name, what, verified) in [
        (
            71,
            "ledger-groups-descend",
            "groups out of order",
            vec![group(2, "read", true, &one), group(1, "read", true, &id(2))],
        ),
        (72, "ledger-packs-cut", "an id of 31 bytes", vec![group(1, "read", true, &one[..31])]),
        (73, "ledger-packs-descend", "ids out of order", vec![group(1, "read", true, &reversed)]),
        (74, "ledger-no-packs", "a group without packs", vec![group(1, "read", true, &[])]),
        (
            75,
            "ledger-pack-twice",
            "a pack read twice",
            vec![group(1, "read", true, &one), group(2, "read", true, &one)],
        ),
        (
            76,
            "ledger-unknown-method",
            "a method that version 1 does not know",
            vec![group(1, "smelt", true, &one)],
        ),
    ] {
        vectors.push(bad(name, "ledger", what, object_inputs(8, &object(seed, verified)), "record"));
    }
    vectors
}
