//! Records: what decodes has to encode to bytes that decode to the same.

use std::fmt::Debug;

use ed25519_dalek::{Signer, SigningKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::{ByteBuf, Bytes};

use super::setup::{entropy, setup};
use crate::format::chunk_list::{self, ChunkList};
use crate::format::commit::{Commit, CommitError, SIGNATURE_CONTEXT};
use crate::format::config::Config;
use crate::format::header::ObjectKind;
use crate::format::ledger::Ledger;
use crate::format::record;
use crate::format::snapshot::Snapshot;
use crate::format::state::{CondemnedPack, KeyslotEntry, SnapshotEntry, State};
use crate::format::tree::{NodeKind, Tree};
use crate::ids::{BlobId, CommitHash, KeyslotId, PackId, SnapshotId, WriterId};
use crate::log::Fold;

/// Decodes `data`; a value has to come back from its own encoding, and equal values from equal bytes.
fn decoded<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = record::decode(data).ok()?;
    let bytes = record::encode(&value);
    let again: T = record::decode(&bytes).expect("what was just encoded decodes");
    assert_eq!(again, value);
    assert_eq!(record::encode(&again), bytes);
    Some(value)
}

/// `config`: magic bytes, a record and feature bits.
pub fn config(data: &[u8]) {
    if let Ok(config) = Config::decode(data) {
        let bytes = config.encode();
        assert_eq!(Config::decode(&bytes).expect("what was just encoded decodes"), config);
        assert_eq!(bytes[..8], data[..8]);
        assert_eq!(config.must_understand, 0, "no feature is known");
    }
}

/// Tree blobs, with the chunk tables in them.
pub fn tree(data: &[u8]) {
    let Some(Tree::Nodes(nodes)) = decoded(data) else {
        return;
    };
    for node in nodes {
        if let NodeKind::File(content) = node.kind {
            table(&content.chunks);
        }
    }
}

/// Chunk lists and chunk tables of both kinds.
pub fn chunk_list(data: &[u8]) {
    table(data);
    if let Some(list) = decoded::<ChunkList>(data) {
        table(&list.chunks);
    }
}

/// A table that is read without error is, entry by entry, what writing it gives.
fn table(table: &[u8]) {
    let mut again = Vec::new();
    if let Ok(chunks) = chunk_list::chunks(table)
        && chunks.map(|chunk| chunk.map(|chunk| chunk_list::push_chunk(&mut again, chunk))).all(|r| r.is_ok())
    {
        assert_eq!(again, table);
    }
    again.clear();
    if let Ok(lists) = chunk_list::lists(table)
        && lists.map(|list| list.map(|list| chunk_list::push_list(&mut again, list))).all(|r| r.is_ok())
    {
        assert_eq!(again, table);
    }
}

/// Snapshot records.
pub fn snapshot(data: &[u8]) {
    decoded::<Snapshot>(data);
}

/// States: a fold made of one gives a state that folds to the same.
pub fn state(data: &[u8]) {
    let setup = setup();
    let (keys, repository) = (&setup.keys, &setup.repository);
    let _ = record::open_object::<State>(ObjectKind::State, data.to_vec(), keys, repository);
    let Some(state) = decoded::<State>(data) else {
        return;
    };
    let fold = Fold::from_state(state);
    folds_back(&fold);
}

/// Verification ledgers: one that opens comes back, also when nothing is added to it.
pub fn ledger(data: &[u8]) {
    let setup = setup();
    let open = |object| Ledger::open(object, &setup.keys, &setup.repository);
    let _ = open(data.to_vec());
    if let Ok(ledger) = open(setup.record_object(ObjectKind::Ledger, data)) {
        let entropy = entropy();
        let object =
            ledger.after(&[], &|_| true).seal(&setup.sealer(&entropy)).expect("fuzz inputs are short");
        let again = open(object).expect("what was just sealed opens");
        assert_eq!(again, ledger);
    }
}

fn folds_back(fold: &Fold) {
    let state = fold.to_state();
    assert_eq!(Fold::from_state(state.clone()), *fold);
    assert_eq!(decoded::<State>(&record::encode(&state)).expect("a state of a fold"), state);
}

/// What a sealed commit holds, as `format::commit` has it to itself.
#[derive(Serialize)]
struct SignedCommit<'a> {
    body: &'a Bytes,
    writer: WriterId,
    signature: &'a Bytes,
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[0x55; 32])
}

/// Signs and seals any bytes as the body of a commit.
fn signed(body: &[u8]) -> Vec<u8> {
    let setup = setup();
    let signer = signer();
    let signature = signer.sign(&[SIGNATURE_CONTEXT, setup.repository.as_bytes(), body].concat()).to_bytes();
    let commit = SignedCommit {
        body: Bytes::new(body),
        writer: WriterId::from_bytes(signer.verifying_key().to_bytes()),
        signature: Bytes::new(&signature),
    };
    setup.record_object(ObjectKind::Log, &record::encode(&commit))
}

/// Commits: the input as an object, as the signed record in one, as the body that is signed, and folded in.
pub fn commit(data: &[u8]) {
    let setup = setup();
    let open = |object: Vec<u8>, seq| Commit::open(object, seq, &setup.keys, &setup.repository);
    let _ = open(data.to_vec(), 7);
    let _ = open(setup.record_object(ObjectKind::Log, data), 7);
    let Some(commit) = decoded::<Commit>(data) else {
        return;
    };
    let object = signed(data);
    let (opened, writer) = open(object.clone(), commit.seq).expect("sealed, signed and in its place");
    assert_eq!(opened, commit);
    assert_eq!(writer.as_bytes(), &signer().verifying_key().to_bytes());
    let elsewhere = open(object, commit.seq ^ 1);
    assert!(matches!(elsewhere, Err(CommitError::Sequence { .. })), "{elsewhere:?}");
    fold(&commit, writer);
}

/// A commit either fits, and the fold comes back from its state, or it changes nothing.
fn fold(commit: &Commit, writer: WriterId) {
    let before = Fold::from_state(busy_state(writer));
    let mut after = before.clone();
    match after.apply(commit, writer, CommitHash::from_bytes([8; 32])) {
        Ok(()) => {
            assert_eq!(after.seq(), commit.seq);
            folds_back(&after);
        }
        Err(_) => assert_eq!(after, before),
    }
}

/// A state that holds some of what the vectors' commits add and take away.
fn busy_state(writer: WriterId) -> State {
    let blob = |n| BlobId::from_bytes([n; 32]);
    State {
        appended: Vec::new(),
        ledger: None,
        parity: None,
        reserve: None,
        lost: Vec::new(),
        seq: 6,
        head: CommitHash::from_bytes([9; 32]),
        config: CommitHash::from_bytes([9; 32]),
        keyslots: vec![KeyslotEntry {
            keyslot: KeyslotId::from_bytes([7; 32]),
            writer,
            label: String::new(),
            added: 1,
            append_only: false,
        }],
        snapshots: vec![SnapshotEntry {
            hold: None,
            appender: None,
            snapshot: SnapshotId::new(blob(5)),
            added: 2,
            record: ByteBuf::from(vec![0x80]),
        }],
        segments: Vec::new(),
        condemned: vec![CondemnedPack { pack: PackId::from_bytes([3; 32]), condemned: 3 }],
    }
}

/// Seals a record the way the engine does and opens it again.
pub(super) fn seals_and_opens<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Vec<u8> {
    let setup = setup();
    let object = record::seal_object(ObjectKind::State, value, &setup.sealer(&entropy()))
        .expect("fuzzed records are far below the limit");
    let opened: T = record::open_object(ObjectKind::State, object.clone(), &setup.keys, &setup.repository)
        .expect("what was just sealed opens");
    assert_eq!(opened, *value);
    object
}
