//! What all vectors share: hex, JSON, the keys and repository they are made with.

use serde::Serialize;
use serde_json::{Value, json};
use strongroom::crypto::{AppendKeys, KeySet, RootSecret, SeededEntropy};
use strongroom::format::header::Sealer;
use strongroom::ids::RepositoryId;

/// One fact.
pub struct Vector {
    /// File name without extension.
    pub name: String,
    /// The file's content.
    pub value: Value,
}

/// The root secret of the vectors.
pub const ROOT: [u8; 32] = *b"the root secret of the vectors!!";
/// The repository of the vectors.
pub const REPOSITORY: [u8; 16] = *b"repository-of-it";

pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().expect("a hex string").as_bytes();
    let digit = |c: u8| char::from(c).to_digit(16).expect("a hex digit") as u8;
    digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub fn unhex_array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().expect("hex of the right length")
}

pub fn good(name: &str, kind: &str, description: &str, inputs: Value, expected: Value) -> Vector {
    let mut vector = bare(name, kind, description, inputs);
    vector.value["expected"] = expected;
    vector
}

pub fn bad(name: &str, kind: &str, description: &str, inputs: Value, class: &str) -> Vector {
    let mut vector = bare(name, kind, description, inputs);
    vector.value["error"] = class.into();
    vector
}

fn bare(name: &str, kind: &str, description: &str, inputs: Value) -> Vector {
    let mut value = json!({"kind": kind, "description": description});
    value["inputs"] = inputs;
    Vector { name: name.to_owned(), value }
}

/// What seals the vectors' objects.
pub struct Context {
    pub keys: KeySet,
    pub repository: RepositoryId,
    pub entropy: SeededEntropy,
}

impl Context {
    pub fn new(seed: u64) -> Self {
        Self {
            keys: KeySet::derive(&RootSecret::from_bytes(ROOT)),
            repository: RepositoryId::from_bytes(REPOSITORY),
            entropy: SeededEntropy::new(seed),
        }
    }

    /// With the keys of an append-only keyslot.
    pub fn append_only(seed: u64) -> Self {
        let keys = KeySet::append_only(AppendKeys::derive(&RootSecret::from_bytes(ROOT)));
        Self { keys, ..Self::new(seed) }
    }

    pub fn sealer(&self) -> Sealer<'_> {
        Sealer { keys: &self.keys, repository: &self.repository, entropy: &self.entropy }
    }
}

/// Inputs of a vector about a sealed object.
pub fn object_inputs(kind: u8, object: &[u8]) -> Value {
    json!({"root": hex(ROOT), "repository": hex(REPOSITORY), "kind": kind, "object": hex(object)})
}

/// A record as the vectors show it: ids and byte strings are hex strings.
pub fn record_json<T: Serialize>(record: &T) -> Value {
    hexify(serde_json::to_value(record).expect("records are JSON too"))
}

fn hexify(value: Value) -> Value {
    const BYTES: [&str; 6] = ["name", "target", "chunks", "value", "first", "record"];
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| {
                let value = match value {
                    Value::Array(bytes) if BYTES.contains(&key.as_str()) => bytes_json(&bytes),
                    Value::Array(paths) if key == "paths" || key == "plan_files" => {
                        paths.iter().map(|path| bytes_json(path.as_array().expect("bytes"))).collect()
                    }
                    other => hexify(other),
                };
                (key, value)
            })
            .collect(),
        Value::Array(values) => values.into_iter().map(hexify).collect(),
        other => other,
    }
}

fn bytes_json(numbers: &[Value]) -> Value {
    let bytes: Vec<u8> =
        numbers.iter().map(|n| u8::try_from(n.as_u64().expect("a number")).expect("a byte")).collect();
    hex(bytes).into()
}

/// Data of the cut vectors, from its description.
pub fn data(description: &Value) -> Vec<u8> {
    let len = usize::try_from(description["length"].as_u64().expect("a length")).expect("fits");
    let mut bytes = Vec::with_capacity(len);
    match description["generator"].as_str().expect("a generator") {
        "zeros" => {}
        "lines" => {
            for n in 0.. {
                if bytes.len() >= len {
                    break;
                }
                bytes.extend_from_slice(format!("{n}\n").as_bytes());
            }
        }
        "blake3-xof" => {
            bytes.resize(len, 0);
            let input = description["input"].as_str().expect("an input");
            blake3::Hasher::new().update(input.as_bytes()).finalize_xof().fill(&mut bytes);
        }
        other => panic!("unknown generator {other}"),
    }
    bytes.resize(len, 0);
    bytes
}

/// `object` with one bit flipped.
pub fn flipped(object: &[u8], at: usize) -> Vec<u8> {
    let mut altered = object.to_vec();
    altered[at] ^= 1;
    altered
}
