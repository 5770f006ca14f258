//! Oracles of the fuzz targets: one function per parser, which panics where the parser breaks a promise.
//!
//! The targets in `fuzz/` are glue around these; `cargo test` replays the committed corpora through them. Each takes
//! any bytes and, besides "no panic", checks what has to hold of what the parser accepts: most of all that it
//! encodes to the same bytes, or to bytes that decode to the same value. Parsers behind a seal are reached by sealing
//! the fuzzer's bytes with known keys, those of the test vectors, so that the vectors' objects are good seeds.

mod chunking;
mod input;
mod objects;
mod packs;
mod parity;
mod records;
mod segments;
mod setup;
mod texts;

pub use self::parity::parity;
pub use chunking::{chunker, padme, split};
pub use objects::{header, keyslot, sealed_record};
pub use packs::{block, pack, pack_blocks};
pub use records::{chunk_list, commit, config, ledger, snapshot, state, tree};
pub use segments::{segment, segment_pages};
pub use texts::{exclude, files_from, object_key};

/// A target's name and its oracle.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. A test holds the files in `fuzz/` to this list.
pub const TARGETS: [Target; 22] = [
    ("block", block),
    ("chunk_list", chunk_list),
    ("chunker", chunker),
    ("commit", commit),
    ("config", config),
    ("exclude", exclude),
    ("files_from", files_from),
    ("header", header),
    ("keyslot", keyslot),
    ("ledger", ledger),
    ("object_key", object_key),
    ("pack", pack),
    ("pack_blocks", pack_blocks),
    ("padme", padme),
    ("parity", parity),
    ("sealed_record", sealed_record),
    ("segment", segment),
    ("segment_pages", segment_pages),
    ("snapshot", snapshot),
    ("split", split),
    ("state", state),
    ("tree", tree),
];
