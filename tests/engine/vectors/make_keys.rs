//! Vectors of keys, ids, headers, messages, config and keyslots.

use serde_json::{Value, json};
use strongroom::crypto::keys::{BlobKind, SecretKey};
use strongroom::crypto::recipient::PACK_CONTEXT;
use strongroom::crypto::{
    AppendKeys, KdfParams, MessageContext, ObjectCipher, Password, Purpose, RootSecret,
};
use strongroom::format::commit::WriterKey;
use strongroom::format::config::Config;
use strongroom::format::header::{Header, MODE_ROOT, ObjectKind};
use strongroom::format::keyslot::{Keyslot, Secrets, WRAP_CONTEXT};
use strongroom::ids::RepositoryId;

use super::support::{Context, REPOSITORY, ROOT, Vector, bad, flipped, good, hex, object_inputs};

pub const PURPOSES: [(&str, Purpose); 11] = [
    ("data-id", Purpose::DataId),
    ("tree-id", Purpose::TreeId),
    ("snapshot-id", Purpose::SnapshotId),
    ("chunker", Purpose::Chunker),
    ("data", Purpose::Data),
    ("metadata", Purpose::Metadata),
    ("index", Purpose::Index),
    ("log", Purpose::Log),
    ("state", Purpose::State),
    ("data-recipient", Purpose::DataRecipient),
    ("metadata-recipient", Purpose::MetadataRecipient),
];

/// The fields of an append-only keyslot that hold keys of purposes.
const SHARED: [(&str, Purpose); 6] = [
    ("data_id", Purpose::DataId),
    ("tree_id", Purpose::TreeId),
    ("snapshot_id", Purpose::SnapshotId),
    ("chunker", Purpose::Chunker),
    ("index", Purpose::Index),
    ("log", Purpose::Log),
];

pub const KINDS: [(&str, BlobKind); 3] =
    [("data", BlobKind::Data), ("tree", BlobKind::Tree), ("snapshot", BlobKind::Snapshot)];

/// The key itself, derived here because the engine does not show its keys.
pub fn purpose_key(root: &[u8], purpose: Purpose, epoch: u32) -> [u8; 32] {
    blake3::derive_key(purpose.context(), &[root, &epoch.to_le_bytes()].concat())
}

/// X25519 of a recipient's secret and a public key, by the crate itself.
pub fn agree(purpose: Purpose, public: [u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(purpose_key(&ROOT, purpose, 0), public)
}

pub fn public(purpose: Purpose) -> [u8; 32] {
    agree(purpose, x25519_dalek::X25519_BASEPOINT_BYTES)
}

/// The keys in an append-only keyslot of the vectors' repository, as its record names them.
pub fn append_keys() -> Value {
    let shared = SHARED.map(|(name, purpose)| (name.to_owned(), hex(purpose_key(&ROOT, purpose, 0)).into()));
    let recipients =
        [("data_recipient", Purpose::DataRecipient), ("metadata_recipient", Purpose::MetadataRecipient)];
    let recipients = recipients.map(|(name, purpose)| (name.to_owned(), hex(public(purpose)).into()));
    Value::Object(shared.into_iter().chain(recipients).collect())
}

pub fn all() -> Vec<Vector> {
    [keys(), headers(), configs(), keyslots(), append_keyslots(), recipients()]
        .into_iter()
        .flatten()
        .collect()
}

fn keys() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for (name, purpose) in PURPOSES {
        for epoch in [0, 1] {
            let description = format!("key of purpose {name} in epoch {epoch}");
            let inputs = json!({"root": hex(ROOT), "context": purpose.context(), "epoch": epoch});
            let expected = json!({"key": hex(purpose_key(&ROOT, purpose, epoch))});
            vectors.push(good(&format!("key-{name}-epoch{epoch}"), "key", &description, inputs, expected));
        }
    }
    let context = Context::new(1);
    for (name, kind) in KINDS {
        for (text, plaintext) in [("empty", &b""[..]), ("text", b"the same bytes")] {
            let id = context.keys.blob_id(kind, plaintext);
            let inputs = json!({"root": hex(ROOT), "blob_kind": name, "plaintext": hex(plaintext)});
            let description = format!("id of a {name} blob ({text})");
            let expected = json!({"id": id.to_string()});
            vectors.push(good(&format!("blob-id-{name}-{text}"), "blob-id", &description, inputs, expected));
        }
    }
    for (i, kind) in [
        ObjectKind::Log,
        ObjectKind::State,
        ObjectKind::DataPack,
        ObjectKind::MetadataPack,
        ObjectKind::Segment,
        ObjectKind::Ledger,
    ]
    .into_iter()
    .enumerate()
    {
        let (header, _) = Header::create(kind, &Context::new(20 + i as u64).sealer());
        let key = purpose_key(&ROOT, kind.purpose().expect("kinds that are sealed"), 0);
        let mut output = [0; 96];
        blake3::Hasher::new_keyed(&key)
            .update(&REPOSITORY)
            .update(&header.prefix())
            .finalize_xof()
            .fill(&mut output);
        let inputs =
            json!({"root": hex(ROOT), "repository": hex(REPOSITORY), "prefix": hex(header.prefix())});
        let expected = json!({"key": hex(&output[..32]), "commitment": hex(&output[32..64]), "padding_seed": hex(&output[64..])});
        let name = format!("object-key-kind{}", kind as u8);
        vectors.push(good(
            &name,
            "object-key",
            "key, commitment and padding seed of an object",
            inputs,
            expected,
        ));
    }
    vectors
}

fn headers() -> Vec<Vector> {
    let context = Context::new(2);
    let (header, cipher) = Header::create(ObjectKind::Log, &context.sealer());
    let bytes = header.encode().to_vec();
    let with = |at: usize, value: u8| {
        let mut altered = bytes.clone();
        altered[at] = value;
        altered
    };
    let inputs = |object: &[u8]| object_inputs(3, object);
    let other = RepositoryId::from_bytes([1; 16]);
    let foreign = {
        let sealer = strongroom::format::header::Sealer { repository: &other, ..context.sealer() };
        Header::create(ObjectKind::Log, &sealer).0.encode()
    };
    let key_of = |purpose, prefix: &[u8; 48]| {
        ObjectCipher::derive(
            &SecretKey::from_bytes(purpose_key(&ROOT, purpose, 0)),
            &context.repository,
            prefix,
        )
    };
    let mut mislabelled = header;
    mislabelled.commitment = *key_of(Purpose::Data, &header.prefix()).commitment();
    let mut vectors = vec![
        good(
            "header-good",
            "header",
            "a header whose commitment fits",
            inputs(&bytes),
            json!({"salt": hex(header.salt)}),
        ),
        bad("header-short", "header", "79 bytes", inputs(&bytes[..79]), "header"),
        bad("header-magic", "header", "foreign magic", inputs(&with(0, b'X')), "header"),
        bad("header-version-2", "header", "version digit 2", inputs(&with(6, b'2')), "version"),
        bad("header-other-kind", "header", "a state where a commit has to be", inputs(&with(8, 4)), "header"),
        bad("header-unknown-kind", "header", "kind 99", inputs(&with(8, 99)), "header"),
        bad("header-mode-2", "header", "key mode 2 is for packs", inputs(&with(9, 2)), "header"),
        bad("header-mode-password", "header", "key mode 1 is for keyslots", inputs(&with(9, 1)), "header"),
        bad("header-flags", "header", "an unknown flag", inputs(&with(10, 1)), "header"),
        bad("header-epoch-1", "header", "epoch 1", inputs(&with(12, 1)), "header"),
        bad(
            "header-salt-flipped",
            "header",
            "a flipped bit of the salt",
            inputs(&flipped(&bytes, 20)),
            "commitment",
        ),
        bad(
            "header-commitment-flipped",
            "header",
            "a flipped bit of the commitment",
            inputs(&flipped(&bytes, 79)),
            "commitment",
        ),
        bad(
            "header-other-key",
            "header",
            "committed to the key of another purpose",
            inputs(&mislabelled.encode()),
            "commitment",
        ),
        bad(
            "header-other-repository",
            "header",
            "sealed for another repository",
            inputs(&foreign),
            "commitment",
        ),
    ];
    let mut sealed = b"message".to_vec();
    cipher.seal(MessageContext { position: 80, raw_len: 1000 }, &mut sealed);
    let message = |sealed: &[u8], position: u64, raw_len: u64| {
        let mut inputs = object_inputs(3, &bytes);
        inputs["position"] = position.into();
        inputs["raw_length"] = raw_len.into();
        inputs["sealed"] = hex(sealed).into();
        inputs
    };
    vectors.extend([
        good(
            "message-good",
            "message",
            "a sealed message",
            message(&sealed, 80, 1000),
            json!({"plaintext": hex(b"message")}),
        ),
        bad(
            "message-flipped",
            "message",
            "a flipped bit",
            message(&flipped(&sealed, 3), 80, 1000),
            "authentication",
        ),
        bad(
            "message-flipped-tag",
            "message",
            "a flipped bit of the tag",
            message(&flipped(&sealed, 22), 80, 1000),
            "authentication",
        ),
        bad(
            "message-position",
            "message",
            "at another position",
            message(&sealed, 96, 1000),
            "authentication",
        ),
        bad(
            "message-raw-length",
            "message",
            "with another raw length",
            message(&sealed, 80, 1001),
            "authentication",
        ),
        bad(
            "message-short",
            "message",
            "shorter than a tag",
            message(&sealed[..15], 80, 1000),
            "authentication",
        ),
    ]);
    assert_eq!(header.mode, MODE_ROOT);
    vectors
}

fn configs() -> Vec<Vector> {
    let config = |must_understand| Config {
        repository: RepositoryId::from_bytes(REPOSITORY),
        must_understand,
        created_by: "strongroom vectors".into(),
    };
    let object = config(0).encode();
    let inputs = |object: &[u8]| json!({"object": hex(object)});
    let mut later = object.clone();
    later[6] = b'2';
    let expected = json!({
        "repository": hex(REPOSITORY),
        "must_understand": 0,
        "created_by": "strongroom vectors",
        "hash": Config::hash(&object).to_string(),
    });
    let extra = [&object[..], &[0xc0]].concat();
    // The same map with one more field: fixmap of 4.
    let extended = |mut object: Vec<u8>| {
        object[8] = 0x84;
        object.extend_from_slice(b"\xa3new\x01");
        object
    };
    vec![
        good("config-good", "config", "a config", inputs(&object), expected),
        bad("config-version-2", "config", "version digit 2", inputs(&later), "version"),
        bad(
            "config-unknown-feature",
            "config",
            "must-understand bit 5",
            inputs(&config(1 << 5).encode()),
            "features",
        ),
        bad("config-magic", "config", "not Strongroom's", inputs(b"[core]\n\tbare = true\n"), "header"),
        bad("config-cut", "config", "cut short", inputs(&object[..object.len() - 1]), "record"),
        bad("config-trailing", "config", "a byte too many", inputs(&extra), "record"),
        bad(
            "config-unknown-field",
            "config",
            "a field that version 1 does not have",
            inputs(&extended(object.clone())),
            "version",
        ),
        bad(
            "config-unknown-field-and-feature",
            "config",
            "a later version's config, as its bits say",
            inputs(&extended(config(1 << 5).encode())),
            "features",
        ),
    ]
}

/// A keyslot at the floor of Argon2id with another message, sealed as its writer would.
fn resealed(object: &[u8], password: &str, params: KdfParams, change: &dyn Fn(&mut Vec<u8>)) -> Vec<u8> {
    let header = Header::decode(object, ObjectKind::Keyslot).expect("a keyslot");
    let stretched = params.derive(&Password::new(password.into()), &header.salt).expect("in bounds");
    let key = blake3::derive_key(WRAP_CONTEXT, &[&stretched[..], &object[80..96]].concat());
    let repository = RepositoryId::from_bytes(REPOSITORY);
    let cipher = ObjectCipher::derive(&SecretKey::from_bytes(key), &repository, &header.prefix());
    let context = MessageContext { position: 96, raw_len: 912 };
    let mut message = cipher.open(context, &mut object[96..].to_vec()).expect("as wrapped").to_vec();
    change(&mut message);
    cipher.seal(context, &mut message);
    [&object[..96], &message].concat()
}

fn keyslots() -> Vec<Vector> {
    let repository = RepositoryId::from_bytes(REPOSITORY);
    let cheap = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };
    let make = |seed, params| {
        let slot = Keyslot {
            secrets: Secrets::Root(RootSecret::from_bytes(ROOT)),
            writer_seed: SecretKey::from_bytes([0x55; 32]),
            label: "näme".into(),
        };
        let entropy = strongroom::crypto::SeededEntropy::new(seed);
        slot.wrap(&Password::new(b"correct horse".to_vec()), params, &repository, &entropy)
            .expect("in bounds")
    };
    let object = make(3, cheap);
    let inputs = |object: &[u8], password: &str| json!({"object": hex(object), "repository": hex(REPOSITORY), "password": hex(password)});
    let expected = |object: &[u8]| {
        json!({
            "id": Keyslot::id(object).to_string(),
            "root": hex(ROOT),
            "writer_seed": hex([0x55; 32]),
            "writer": WriterKey::new(&SecretKey::from_bytes([0x55; 32])).id().to_string(),
            "label": "näme",
        })
    };
    let with = |at: usize, value: u32| {
        let mut altered = object.clone();
        altered[at..at + 4].copy_from_slice(&value.to_le_bytes());
        altered
    };
    let right = "correct horse";
    let default = make(4, KdfParams::default());
    let lanes = make(5, KdfParams { lanes: 4, ..cheap });
    let mut other = inputs(&object, right);
    other["repository"] = hex([1; 16]).into();
    vec![
        good(
            "keyslot-good",
            "keyslot",
            "a keyslot at the floor of Argon2id",
            inputs(&object, right),
            expected(&object),
        ),
        good(
            "keyslot-default",
            "keyslot",
            "a keyslot with 64 MiB and 3 passes",
            inputs(&default, right),
            expected(&default),
        ),
        good("keyslot-lanes", "keyslot", "a keyslot with 4 lanes", inputs(&lanes, right), expected(&lanes)),
        bad(
            "keyslot-wrong-password",
            "keyslot",
            "another password",
            inputs(&object, "Correct horse"),
            "wrong-password",
        ),
        bad("keyslot-other-repository", "keyslot", "another repository's", other, "wrong-password"),
        bad("keyslot-memory-below-floor", "keyslot", "8 KiB", inputs(&with(80, 8), right), "kdf-bounds"),
        bad("keyslot-memory-above-cap", "keyslot", "4 TiB", inputs(&with(80, u32::MAX), right), "kdf-bounds"),
        bad("keyslot-passes-below-floor", "keyslot", "one pass", inputs(&with(84, 1), right), "kdf-bounds"),
        bad("keyslot-lanes-above-cap", "keyslot", "17 lanes", inputs(&with(88, 17), right), "kdf-bounds"),
        bad(
            "keyslot-params-changed",
            "keyslot",
            "3 passes instead of 2: bound into the key",
            inputs(&with(84, 3), right),
            "wrong-password",
        ),
        bad("keyslot-reserved", "keyslot", "reserved bytes not zero", inputs(&with(92, 1), right), "record"),
        bad(
            "keyslot-flipped",
            "keyslot",
            "a flipped bit of the sealed message",
            inputs(&flipped(&object, 500), right),
            "authentication",
        ),
        bad(
            "keyslot-padding",
            "keyslot",
            "padding that is not zero",
            inputs(&resealed(&object, right, cheap, &|message| message[911] = 1), right),
            "padding",
        ),
        bad(
            "keyslot-record-beyond",
            "keyslot",
            "a record longer than the message",
            inputs(&resealed(&object, right, cheap, &|message| message[1] = 4), right),
            "record",
        ),
        bad("keyslot-cut", "keyslot", "1023 bytes", inputs(&object[..1023], right), "length"),
        bad(
            "keyslot-mode-2",
            "keyslot",
            "key mode 2 is reserved",
            inputs(
                &{
                    let mut o = object.clone();
                    o[9] = 2;
                    o
                },
                right,
            ),
            "header",
        ),
    ]
}

fn append_keyslots() -> Vec<Vector> {
    let repository = RepositoryId::from_bytes(REPOSITORY);
    let cheap = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };
    let make = |secrets| {
        let slot = Keyslot { secrets, writer_seed: SecretKey::from_bytes([0x55; 32]), label: "näme".into() };
        let entropy = strongroom::crypto::SeededEntropy::new(6);
        slot.wrap(&Password::new(b"correct horse".to_vec()), cheap, &repository, &entropy).expect("in bounds")
    };
    let root = RootSecret::from_bytes(ROOT);
    let object = make(Secrets::Append(Box::new(AppendKeys::derive(&root))));
    let inputs = |object: &[u8]| json!({"object": hex(object), "repository": hex(REPOSITORY), "password": hex("correct horse")});
    let full = {
        let object = make(Secrets::Root(root));
        let header = Header::decode(&object, ObjectKind::Keyslot).expect("a keyslot");
        let message = opened(&object, &header, cheap);
        sealed_with(&Header { flags: 1, ..header }, &message, cheap)
    };
    vec![
        good(
            "keyslot-append-only",
            "keyslot",
            "a keyslot whose holder may only add",
            inputs(&object),
            json!({
                "id": Keyslot::id(&object).to_string(),
                "keys": append_keys(),
                "writer_seed": hex([0x55; 32]),
                "writer": WriterKey::new(&SecretKey::from_bytes([0x55; 32])).id().to_string(),
                "label": "näme",
            }),
        ),
        bad(
            "keyslot-append-only-flag-cleared",
            "keyslot",
            "the flag is bound into the key",
            inputs(&{
                let mut altered = object.clone();
                altered[10] = 0;
                altered
            }),
            "wrong-password",
        ),
        bad(
            "keyslot-append-only-with-root",
            "keyslot",
            "the record of a full keyslot under the flag",
            inputs(&full),
            "record",
        ),
        bad(
            "keyslot-flag-2",
            "keyslot",
            "an unknown flag",
            inputs(&{
                let mut altered = object;
                altered[10] = 2;
                altered
            }),
            "header",
        ),
    ]
}

fn wrapping(header: &Header, params: KdfParams) -> ObjectCipher {
    let stretched =
        params.derive(&Password::new(b"correct horse".to_vec()), &header.salt).expect("in bounds");
    let numbers = [params.memory_kib, params.passes, params.lanes, 0].map(u32::to_le_bytes).concat();
    let key = blake3::derive_key(WRAP_CONTEXT, &[&stretched[..], &numbers].concat());
    ObjectCipher::derive(&SecretKey::from_bytes(key), &RepositoryId::from_bytes(REPOSITORY), &header.prefix())
}

const WRAPPED: MessageContext = MessageContext { position: 96, raw_len: 912 };

fn opened(object: &[u8], header: &Header, params: KdfParams) -> Vec<u8> {
    wrapping(header, params).open(WRAPPED, &mut object[96..].to_vec()).expect("as wrapped").to_vec()
}

/// A keyslot object with another header and this message, sealed as its writer would.
fn sealed_with(header: &Header, message: &[u8], params: KdfParams) -> Vec<u8> {
    let cipher = wrapping(header, params);
    let header = Header { commitment: *cipher.commitment(), ..*header };
    let numbers = [params.memory_kib, params.passes, params.lanes, 0].map(u32::to_le_bytes).concat();
    let mut sealed = message.to_vec();
    cipher.seal(WRAPPED, &mut sealed);
    [&header.encode()[..], &numbers, &sealed].concat()
}

/// What takes the place of the purpose's key in packs that appenders made.
fn recipients() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for (name, kind, purpose) in [
        ("data", ObjectKind::DataPack, Purpose::DataRecipient),
        ("metadata", ObjectKind::MetadataPack, Purpose::MetadataRecipient),
    ] {
        let ephemeral = x25519_dalek::x25519([kind as u8; 32], x25519_dalek::X25519_BASEPOINT_BYTES);
        let shared = agree(purpose, ephemeral);
        let key = blake3::derive_key(PACK_CONTEXT, &[shared, ephemeral, public(purpose)].concat());
        let inputs = json!({"root": hex(ROOT), "kind": kind as u8, "ephemeral": hex(ephemeral)});
        let expected = json!({"public": hex(public(purpose)), "key": hex(key)});
        let description = format!("key of a pack that was sealed for the {name} recipient");
        vectors.push(good(&format!("recipient-{name}"), "recipient", &description, inputs, expected));
    }
    for (name, point) in [("zero", 0), ("one", 1)] {
        let mut ephemeral = [0; 32];
        ephemeral[0] = point;
        let inputs = json!({"root": hex(ROOT), "kind": 5, "ephemeral": hex(ephemeral)});
        let name = format!("recipient-small-order-{name}");
        vectors.push(bad(&name, "recipient", "a point of small order", inputs, "commitment"));
    }
    vectors
}
