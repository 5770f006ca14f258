//! Reading vectors back through the decoding side: what a vector is expected to give, or the class of its refusal.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use strongroom::chunk::grain::sizes;
use strongroom::crypto::keys::SecretKey;
use strongroom::crypto::recipient::PACK_CONTEXT;
use strongroom::crypto::{
    KdfError, KeySet, MessageContext, ObjectCipher, Password, Purpose, RootSecret, SealError, SeededEntropy,
};
use strongroom::format::block::BlockCodec;
use strongroom::format::chunk_list::{self, ChunkList};
use strongroom::format::commit::{self, Commit, CommitError, WriterKey};
use strongroom::format::config::{Config, ConfigError};
use strongroom::format::header::{Header, HeaderError, MODE_RECIPIENT, ObjectKind, Sealer};
use strongroom::format::keyslot::{Keyslot, KeyslotError};
use strongroom::format::ledger::{self, Ledger, LedgerError};
use strongroom::format::pack::{self, PackError};
use strongroom::format::padme::padme;
use strongroom::format::parity::{self, ParityError, Sidecar};
use strongroom::format::record::{self, RecordError};
use strongroom::format::segment::{self, Fanout, SegmentError};
use strongroom::format::snapshot::Snapshot;
use strongroom::format::state::State;
use strongroom::format::tree::Tree;
use strongroom::format::tree_rules::TreeRuleError;
use strongroom::ids::{BlobId, RepositoryId};
use strongroom::sidecar::code::{self, DecodeError};

use super::make_keys::{KINDS, PURPOSES, agree, append_keys, public, purpose_key};
use super::make_packs::{blobs_json, place_json};
use super::make_parity::{parsed_json, sidecar_of};
use super::make_trees::{GRAINS, RULES, cut_all, gear_bytes, pieces};
use super::support::{data, hex, record_json, unhex, unhex_array};

/// What reading gives: the expected value, or a failure class.
type Found = Result<Value, String>;

pub fn check(vector: &Value) -> Found {
    let inputs = &vector["inputs"];
    match vector["kind"].as_str().expect("a kind") {
        "key" => Ok(key(inputs)),
        "blob-id" => Ok(blob_id(inputs)),
        "object-key" => Ok(object_key(inputs, &vector["expected"])),
        "header" => header(inputs),
        "recipient" => recipient(inputs),
        "message" => message(inputs),
        "config" => config(inputs),
        "keyslot" => keyslot(inputs),
        "record" => record_object(inputs),
        "payload" => payload(inputs),
        "padme" => Ok(json!({"padded": padme(inputs["length"].as_u64().expect("a length"))})),
        "pack" => open_pack(inputs),
        "directory" => directory(inputs),
        "segment" => open_segment(inputs),
        "segment-lookup" => lookup(inputs),
        "tree" => plain::<Tree>(inputs),
        "chunk-list" => plain::<ChunkList>(inputs),
        "state" => plain::<State>(inputs),
        "snapshot" => snapshot(inputs),
        "chunk-table" => chunk_table(inputs),
        "commit" => open_commit(inputs),
        "ledger" => open_ledger(inputs),
        "parity-name" => {
            let key = inputs["key"].as_str().expect("a key");
            Ok(json!({"id": parity::id_of_named(key).to_string()}))
        }
        "parity-encode" => {
            let sidecar = sidecar_of(&data(&inputs["data"]), number(&inputs["overhead"]));
            Ok(json!({"sidecar": hex(sidecar)}))
        }
        "parity" => Sidecar::parse(&unhex(&inputs["sidecar"]))
            .map(|sidecar| parsed_json(&sidecar))
            .map_err(|error| parity_class(&error)),
        "parity-repair" => repair(inputs, &vector["expected"]),
        "gear" => Ok(json!({"gear": hex(gear_bytes())})),
        "cuts" => Ok(cuts(inputs)),
        "split" => {
            let rule = RULES.iter().find(|(name, _)| inputs["list"] == *name).expect("a list");
            let weights: Vec<_> = inputs["weights"].as_array().expect("weights").iter().map(number).collect();
            Ok(json!({"pieces": pieces(&rule.1, number(&inputs["items"]), &weights)}))
        }
        "tree-rules" => tree_rules(inputs),
        other => panic!("no such kind: {other}"),
    }
}

fn number<T: TryFrom<u64>>(value: &Value) -> T {
    T::try_from(value.as_u64().expect("a number")).ok().expect("in range")
}

fn keys(inputs: &Value) -> KeySet {
    KeySet::derive(&RootSecret::from_bytes(unhex_array(&inputs["root"])))
}

fn repository(inputs: &Value) -> RepositoryId {
    RepositoryId::from_bytes(unhex_array(&inputs["repository"]))
}

fn kind(inputs: &Value) -> ObjectKind {
    let kinds = [
        ObjectKind::Log,
        ObjectKind::State,
        ObjectKind::DataPack,
        ObjectKind::MetadataPack,
        ObjectKind::Segment,
        ObjectKind::Ledger,
    ];
    kinds.into_iter().find(|kind| inputs["kind"] == *kind as u8).expect("a sealed kind")
}

fn key(inputs: &Value) -> Value {
    let (_, purpose) =
        PURPOSES.into_iter().find(|(_, p)| inputs["context"] == p.context()).expect("a context");
    let (root, epoch) = (unhex_array(&inputs["root"]), number(&inputs["epoch"]));
    let expected = purpose_key(&root, purpose, epoch);
    // The engine shows no key; equal keys have equal signing keys.
    let derived = RootSecret::from_bytes(root).derive(purpose, epoch);
    assert_eq!(WriterKey::new(&derived).id(), WriterKey::new(&SecretKey::from_bytes(expected)).id());
    json!({"key": hex(expected)})
}

fn blob_id(inputs: &Value) -> Value {
    let (_, kind) = KINDS.into_iter().find(|(name, _)| inputs["blob_kind"] == *name).expect("a kind");
    json!({"id": keys(inputs).blob_id(kind, &unhex(&inputs["plaintext"])).to_string()})
}

fn object_key(inputs: &Value, expected: &Value) -> Value {
    let mut object = unhex(&inputs["prefix"]);
    object.extend(unhex(&expected["commitment"]));
    let kinds = [3, 4, 5, 6, 7, 8].map(|kind| self::kind(&json!({"kind": kind})));
    let kind = kinds.into_iter().find(|kind| object[8] == *kind as u8).expect("a kind");
    let header = Header::decode(&object, kind).expect("a header");
    let cipher = header.cipher(&keys(inputs), &repository(inputs)).expect("the commitment fits");
    let mut padding = [0; 100];
    cipher.fill_padding(&mut padding);
    let mut from_seed = [0; 100];
    blake3::Hasher::new_keyed(&unhex_array(&expected["padding_seed"])).finalize_xof().fill(&mut from_seed);
    assert_eq!(padding, from_seed);
    assert_eq!(first_block(&cipher), first_block_of(&unhex_array(&expected["key"])));
    expected.clone()
}

/// 64 zeros encrypted at position 80: the same under the same key.
fn first_block(cipher: &ObjectCipher) -> Vec<u8> {
    let mut message = vec![0; 64];
    cipher.seal_detached(MessageContext { position: 80, raw_len: 0 }, &mut message);
    message
}

fn first_block_of(key: &[u8; 32]) -> Vec<u8> {
    use chacha20poly1305::aead::{AeadInOut, KeyInit};
    let mut nonce = [0; 12];
    nonce[0] = 80;
    let mut message = vec![0; 64];
    let cipher = chacha20poly1305::ChaCha20Poly1305::new(key.into());
    cipher.encrypt_inout_detached(&nonce.into(), b"", message.as_mut_slice().into()).expect("short");
    message
}

fn header(inputs: &Value) -> Found {
    let header = Header::decode(&unhex(&inputs["object"]), kind(inputs)).map_err(|e| header_class(&e))?;
    header.cipher(&keys(inputs), &repository(inputs)).map_err(seal_class)?;
    Ok(json!({"salt": hex(header.salt)}))
}

fn message(inputs: &Value) -> Found {
    let header = Header::decode(&unhex(&inputs["object"]), kind(inputs)).map_err(|e| header_class(&e))?;
    let cipher = header.cipher(&keys(inputs), &repository(inputs)).map_err(seal_class)?;
    let mut sealed = unhex(&inputs["sealed"]);
    let context =
        MessageContext { position: number(&inputs["position"]), raw_len: number(&inputs["raw_length"]) };
    let plaintext = cipher.open(context, &mut sealed).map_err(seal_class)?;
    Ok(json!({"plaintext": hex(plaintext)}))
}

fn config(inputs: &Value) -> Found {
    let object = unhex(&inputs["object"]);
    let config = Config::decode(&object).map_err(|error| match error {
        ConfigError::Magic => "header".to_owned(),
        ConfigError::Version(_) | ConfigError::Newer(_) => "version".to_owned(),
        ConfigError::Record(error) => record_class(&error),
        ConfigError::Features(_) => "features".to_owned(),
    })?;
    let mut value = record_json(&config);
    value["hash"] = Config::hash(&object).to_string().into();
    Ok(value)
}

fn keyslot(inputs: &Value) -> Found {
    let object = unhex(&inputs["object"]);
    let slot = Keyslot::unwrap(&object, &Password::new(unhex(&inputs["password"])), &repository(inputs));
    let slot = slot.map_err(|error| match error {
        KeyslotError::Header(error) => header_class(&error),
        KeyslotError::Length { .. } => "length".to_owned(),
        KeyslotError::Kdf(KdfError::OutOfBounds { .. }) => "kdf-bounds".to_owned(),
        KeyslotError::Kdf(error @ (KdfError::Failed(_) | KdfError::Memory { .. })) => panic!("{error}"),
        KeyslotError::WrongPassword => "wrong-password".to_owned(),
        KeyslotError::Seal(error) => seal_class(error),
        KeyslotError::Record(error) => record_class(&error),
    })?;
    // Neither secret is shown: the root is told by a blob id, the seed by its public key.
    let id = |keys: &KeySet| keys.blob_id(strongroom::crypto::keys::BlobKind::Data, b"");
    let root = super::support::ROOT;
    let keys = slot.secrets.keys();
    assert_eq!(id(&keys), id(&KeySet::derive(&RootSecret::from_bytes(root))));
    let (writer, seed) = (WriterKey::new(&slot.writer_seed).id(), [0x55; 32]);
    assert_eq!(writer, WriterKey::new(&SecretKey::from_bytes(seed)).id());
    let mut found = json!({
        "id": Keyslot::id(&object).to_string(),
        "writer_seed": hex(seed),
        "writer": writer.to_string(),
        "label": slot.label,
    });
    if keys.is_append_only() {
        assert_eq!(opens_for_root(&keys), [true; 4]);
        found["keys"] = append_keys();
    } else {
        found["root"] = hex(root).into();
    }
    Ok(found)
}

/// Whether the root secret opens what an append-only keyslot's keys seal: so they are the right ones.
fn opens_for_root(keys: &KeySet) -> [bool; 4] {
    let root = KeySet::derive(&RootSecret::from_bytes(super::support::ROOT));
    let repository = RepositoryId::from_bytes(super::support::REPOSITORY);
    let entropy = SeededEntropy::new(1);
    let sealer = Sealer { keys, repository: &repository, entropy: &entropy };
    [ObjectKind::DataPack, ObjectKind::MetadataPack, ObjectKind::Segment, ObjectKind::Log]
        .map(|kind| Header::create(kind, &sealer).0.cipher(&root, &repository).is_ok())
}

/// The engine shows no key: it is told by the commitment that it gives.
fn recipient(inputs: &Value) -> Found {
    let ephemeral: [u8; 32] = unhex_array(&inputs["ephemeral"]);
    let purpose = match inputs["kind"].as_u64() {
        Some(5) => Purpose::DataRecipient,
        _ => Purpose::MetadataRecipient,
    };
    let public = public(purpose);
    let shared = agree(purpose, ephemeral);
    let key = blake3::derive_key(PACK_CONTEXT, &[shared, ephemeral, public].concat());
    let repository = RepositoryId::from_bytes(super::support::REPOSITORY);
    let mut header = Header {
        kind: kind(inputs),
        mode: MODE_RECIPIENT,
        flags: 0,
        epoch: 0,
        salt: ephemeral,
        commitment: [0; 32],
    };
    header.commitment =
        *ObjectCipher::derive(&SecretKey::from_bytes(key), &repository, &header.prefix()).commitment();
    header.cipher(&keys(inputs), &repository).map_err(seal_class)?;
    Ok(json!({"public": hex(public), "key": hex(key)}))
}

fn record_object(inputs: &Value) -> Found {
    let object = unhex(&inputs["object"]);
    let state: State = record::open_object(kind(inputs), object, &keys(inputs), &repository(inputs))
        .map_err(|error| record_class(&error))?;
    Ok(json!({"record": hex(record::encode(&state))}))
}

fn payload(inputs: &Value) -> Found {
    let mut raw = Vec::new();
    BlockCodec::new()
        .decompress(&unhex(&inputs["payload"]), number(&inputs["raw_length"]), &mut raw)
        .map_err(|_| "codec".to_owned())?;
    Ok(json!({"raw": hex(raw)}))
}

fn open_pack(inputs: &Value) -> Found {
    let object = unhex(&inputs["object"]);
    let keys = keys(inputs);
    let (cipher, directory) =
        pack::open(&object, kind(inputs), &keys, &repository(inputs)).map_err(pack_class)?;
    let (mut codec, mut raw) = (BlockCodec::new(), Vec::new());
    for block in &directory.blocks {
        let range = block.span.position as usize..usize::try_from(block.span.end()).expect("in memory");
        pack::open_block(&cipher, &block.span, &mut object[range].to_vec(), &mut codec, &mut raw)
            .map_err(pack_class)?;
        for blob in &block.blobs {
            let bytes = &raw[blob.offset as usize..(blob.offset + blob.len) as usize];
            if keys.blob_id(blob.kind, bytes) != blob.id {
                return Err("blob-id".to_owned());
            }
        }
    }
    Ok(json!({"id": pack::id(&object).to_string(), "blobs": blobs_json(&directory)}))
}

fn directory(inputs: &Value) -> Found {
    let bytes = unhex(&inputs["directory"]);
    let directory =
        pack::Directory::decode(&bytes, kind(inputs), number(&inputs["blocks_end"])).map_err(pack_class)?;
    assert_eq!(directory.encode(), bytes);
    Ok(json!({"blobs": blobs_json(&directory)}))
}

/// An opened segment: its entries in order and its packs.
struct Opened {
    entries: Vec<segment::IndexEntry>,
    packs: Vec<segment::PackEntry>,
}

fn read_segment(inputs: &Value, object: &[u8]) -> Result<Opened, String> {
    let header = Header::decode(object, ObjectKind::Segment).map_err(|e| header_class(&e))?;
    let cipher = header.cipher(&keys(inputs), &repository(inputs)).map_err(seal_class)?;
    let layout = segment::read_layout(object, &cipher).map_err(segment_class)?;
    let mut buffer = [0; segment::PAGE_LEN];
    let mut opened = Opened { entries: Vec::new(), packs: Vec::new() };
    for i in 0..layout.entries {
        let page = layout.leaf(i / segment::LEAF_ENTRIES as u64);
        let leaf = segment::open_page(object, &cipher, page, &mut buffer).map_err(segment_class)?;
        let entry = segment::leaf_entry(leaf, (i % segment::LEAF_ENTRIES as u64) as usize);
        if !entry.is_sane(&layout) {
            return Err("segment".to_owned());
        }
        opened.entries.push(entry);
    }
    let groups = opened.entries.chunks(segment::FANOUT_LEAVES * segment::LEAF_ENTRIES);
    for (group, entries) in (0..).zip(groups) {
        let fanout = segment::open_page(object, &cipher, layout.fanout(group), &mut buffer);
        let mut expected = Fanout::default();
        entries.iter().for_each(|entry| expected.push(&entry.id));
        assert_eq!(fanout.map_err(segment_class)?, expected.page());
        let root = layout.first_root() + group / segment::ROOT_ENTRIES as u64;
        let root = segment::open_page(object, &cipher, root, &mut buffer).map_err(segment_class)?;
        let slot = group as usize % segment::ROOT_ENTRIES;
        assert_eq!(segment::first_prefix(root, slot), segment::prefix(&entries[0].id));
    }
    for i in 0..u64::from(layout.packs) {
        let page = layout.first_pack() + i / segment::PACK_ENTRIES as u64;
        let packs = segment::open_page(object, &cipher, page, &mut buffer).map_err(segment_class)?;
        let pack = segment::pack_entry(packs, (i % segment::PACK_ENTRIES as u64) as usize);
        opened.packs.push(pack.map_err(segment_class)?);
    }
    Ok(opened)
}

fn open_segment(inputs: &Value) -> Found {
    let object = unhex(&inputs["object"]);
    let Opened { entries, packs } = read_segment(inputs, &object)?;
    let entries: Value =
        entries.iter().map(|e| json!({"id": e.id.to_string(), "place": place_json(e, &packs)})).collect();
    let packs: Value = packs
        .iter()
        .map(|p| {
            json!({
                "id": p.id.to_string(), "kind": p.header.kind as u8, "size": p.size, "blobs": p.blobs,
                "salt": hex(p.header.salt), "commitment": hex(p.header.commitment),
            })
        })
        .collect();
    Ok(json!({"id": segment::id(&object).to_string(), "entries": entries, "packs": packs}))
}

fn lookup(inputs: &Value) -> Found {
    let id = BlobId::from_bytes(unhex_array(&inputs["id"]));
    let Opened { entries, packs } = read_segment(inputs, &unhex(&inputs["object"]))?;
    let found = || entries.iter().filter(|e| e.id == id);
    if found().any(|e| e.block.end() > packs[e.pack as usize].size) {
        return Err("segment".to_owned());
    }
    let places: Value = found().map(|e| place_json(e, &packs)).collect();
    Ok(json!({"places": places}))
}

fn plain<T: DeserializeOwned + Serialize>(inputs: &Value) -> Found {
    let bytes = unhex(&inputs["record"]);
    let value: T = record::decode(&bytes).map_err(|error| record_class(&error))?;
    assert_eq!(record::encode(&value), bytes, "equal values have equal bytes");
    Ok(json!({"value": record_json(&value)}))
}

fn tree_rules(inputs: &Value) -> Found {
    let tree: Tree =
        record::decode(&unhex(&inputs["record"])).expect("well-formed, and wrong in what it says");
    assert_eq!(record::encode(&tree), unhex(&inputs["record"]));
    match tree.validate() {
        Ok(()) => Ok(record_json(&tree)),
        Err(TreeRuleError::Table { .. }) => Err("table".to_owned()),
        Err(_) => Err("record".to_owned()),
    }
}

fn snapshot(inputs: &Value) -> Found {
    let mut found = plain::<Snapshot>(inputs)?;
    let id = keys(inputs).blob_id(strongroom::crypto::keys::BlobKind::Snapshot, &unhex(&inputs["record"]));
    found["id"] = id.to_string().into();
    Ok(found)
}

fn chunk_table(inputs: &Value) -> Found {
    let table = unhex(&inputs["table"]);
    let class = |_| "table".to_owned();
    let entries: Result<Value, String> = if inputs["depth"] == 0 {
        let chunks = chunk_list::chunks(&table).map_err(class)?;
        chunks.map(|c| c.map(|c| json!({"id": c.id.to_string(), "length": c.len})).map_err(class)).collect()
    } else {
        let lists = chunk_list::lists(&table).map_err(class)?;
        lists.map(|l| l.map(|l| json!({"id": l.id.to_string(), "bytes": l.bytes})).map_err(class)).collect()
    };
    Ok(json!({"entries": entries?}))
}

fn open_commit(inputs: &Value) -> Found {
    let object = unhex(&inputs["object"]);
    let hash = commit::hash(&object);
    let (commit, writer) = Commit::open(object, number(&inputs["seq"]), &keys(inputs), &repository(inputs))
        .map_err(|error| match error {
        CommitError::Record(error) | CommitError::Body { source: error, .. } => record_class(&error),
        CommitError::Signature(_) => "signature".to_owned(),
        CommitError::Sequence { .. } => "sequence".to_owned(),
    })?;
    Ok(json!({"hash": hash.to_string(), "writer": writer.to_string(), "value": record_json(&commit)}))
}

fn open_ledger(inputs: &Value) -> Found {
    let object = unhex(&inputs["object"]);
    let id = ledger::id(&object);
    let ledger = Ledger::open(object, &keys(inputs), &repository(inputs)).map_err(|error| match error {
        LedgerError::Record(error) => record_class(&error),
        LedgerError::Malformed(_) => "record".to_owned(),
    })?;
    let entries = ledger.entries().iter().map(|entry| {
        json!({"pack": entry.pack, "time": entry.time, "method": entry.method, "intact": entry.is_intact})
    });
    Ok(json!({"id": id, "entries": entries.collect::<Vec<_>>()}))
}

fn cuts(inputs: &Value) -> Value {
    let (_, grain) = GRAINS.into_iter().find(|(name, _)| inputs["grain"] == *name).expect("a grain");
    let data = data(&inputs["data"]);
    let lens = cut_all(grain, &data);
    let mut at = 0;
    for len in &lens {
        assert_eq!(*len, scalar_cut(&data[at..], sizes(grain)), "the specification's pseudo-code at {at}");
        at += len;
    }
    json!({"lengths": lens})
}

/// The pseudo-code of the specification.
fn scalar_cut(data: &[u8], sizes: strongroom::chunk::grain::ChunkSizes) -> usize {
    let gear = gear_bytes();
    let gear = |byte: u8| u32::from_le_bytes(gear[byte as usize * 4..][..4].try_into().expect("four bytes"));
    let bits = sizes.average.ilog2();
    let (strict, relaxed) = (u32::MAX << (32 - bits - 2), u32::MAX << (32 - bits + 2));
    if data.len() <= sizes.min {
        return data.len();
    }
    let end = data.len().min(sizes.max);
    let center = sizes.average.min(end);
    let mut hash = 0u32;
    for (i, byte) in data.iter().enumerate().take(end & !1).skip(sizes.min) {
        hash = hash.wrapping_mul(2).wrapping_add(gear(*byte));
        let mask = if i < center & !1 { strict } else { relaxed };
        if hash & mask == 0 {
            return i;
        }
    }
    end
}

fn seal_class(error: SealError) -> String {
    match error {
        SealError::Commitment => "commitment".to_owned(),
        SealError::Authentication => "authentication".to_owned(),
        SealError::NoKey => panic!("vectors are read with the root secret"),
    }
}

fn header_class(error: &HeaderError) -> String {
    match error {
        HeaderError::Version(_) => "version".to_owned(),
        HeaderError::Seal(error) => seal_class(*error),
        _ => "header".to_owned(),
    }
}

fn record_class(error: &RecordError) -> String {
    match error {
        RecordError::Framing(what) if what.contains("padding") => "padding".to_owned(),
        RecordError::Decode(_)
        | RecordError::Trailing { .. }
        | RecordError::TooLong { .. }
        | RecordError::Framing(_) => "record".to_owned(),
        RecordError::Header(error) => header_class(error),
        RecordError::Seal(error) => seal_class(*error),
        RecordError::Codec(_) => "codec".to_owned(),
    }
}

fn pack_class(error: PackError) -> String {
    match error {
        PackError::Header(error) => header_class(&error),
        PackError::Seal(error) => seal_class(error),
        PackError::Codec(_) => "codec".to_owned(),
        PackError::Length(_) => "length".to_owned(),
        PackError::Directory(_) | PackError::Span(_) => "directory".to_owned(),
        PackError::BlobId { .. } | PackError::Bytes => "blob-id".to_owned(),
    }
}

fn segment_class(error: SegmentError) -> String {
    match error {
        SegmentError::Header(error) => header_class(&error),
        SegmentError::Page { source, .. } => seal_class(source),
        SegmentError::Structure(_) => "segment".to_owned(),
    }
}

fn repair(inputs: &Value, expected: &Value) -> Found {
    let (object, sidecar) = (unhex(&inputs["object"]), unhex(&inputs["sidecar"]));
    let sidecar = Sidecar::parse(&sidecar).map_err(|error| parity_class(&error))?;
    let mut read = |at: u64, buffer: &mut [u8]| {
        let rest = usize::try_from(at).ok().and_then(|at| object.get(at..));
        let bytes = rest.and_then(|rest| rest.get(..buffer.len()));
        bytes.map(|bytes| buffer.copy_from_slice(bytes)).is_some()
    };
    let decoded = code::decode(&sidecar, &mut read).map_err(|_| "parity".to_owned())?;
    let mut whole = Vec::new();
    let hash = decoded
        .write(&mut read, &mut |bytes| {
            whole.extend_from_slice(bytes);
            Ok::<(), DecodeError>(())
        })
        .map_err(|_| "parity".to_owned())?;
    if hash != sidecar.head().object {
        return Err("parity".to_owned());
    }
    assert_eq!(whole, data(&expected["data"]));
    Ok(expected.clone())
}

fn parity_class(error: &ParityError) -> String {
    let class = match error {
        ParityError::Truncated { .. } | ParityError::Magic | ParityError::Unknown => "header",
        ParityError::Version(_) => "version",
        ParityError::Head | ParityError::Shape(_) => "parity",
    };
    class.to_owned()
}
