//! Vectors of parity sidecars: names, what is made of an object, what is made good, and what is refused.

use serde_json::{Value, json};
use strongroom::format::parity::{Head, Overhead, Shape, Sidecar, id_of_named};
use strongroom::sidecar::code;

use super::support::{Vector, bad, data, flipped, good, hex};

/// The sidecar of an object in memory.
pub fn sidecar_of(object: &[u8], tenths: u32) -> Vec<u8> {
    let overhead = Overhead::from_tenths(tenths).expect("in range");
    let shape = Shape::choose(object.len() as u64, overhead).expect("it can be covered");
    let mut read = |at: u64, buffer: &mut [u8]| {
        let start = usize::try_from(at).expect("short");
        buffer.copy_from_slice(&object[start..start + buffer.len()]);
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(made) = code::encode(shape, code::WORK_LEN, &mut read);
    made.to_vec()
}

pub fn parsed_json(sidecar: &Sidecar<'_>) -> Value {
    let Head { shape, object } = sidecar.head();
    let usable: Vec<_> =
        (0..shape.recovery()).filter(|number| sidecar.recovery_shard(*number).is_some()).collect();
    json!({
        "covered": shape.covered(),
        "shard_length": shape.shard_len(),
        "originals": shape.originals(),
        "recovery": shape.recovery(),
        "object": hex(object),
        "usable": usable,
    })
}

fn described(length: usize) -> Value {
    json!({"generator": "blake3-xof", "input": "covered by parity", "length": length})
}

/// The sidecar with other bytes in both heads, which say that they are whole.
fn resealed(sidecar: &[u8], change: &dyn Fn(&mut [u8])) -> Vec<u8> {
    let mut sidecar = sidecar.to_vec();
    let last = sidecar.len() - 96;
    for at in [0, last] {
        let head = &mut sidecar[at..at + 96];
        change(head);
        let check = blake3::hash(&head[..64]);
        head[64..].copy_from_slice(check.as_bytes());
    }
    sidecar
}

pub fn all() -> Vec<Vector> {
    [names(), made(), parsed(), repaired()].into_iter().flatten().collect()
}

fn names() -> Vec<Vector> {
    let of = |name: &str, key: &str| {
        let expected = json!({"id": id_of_named(key).to_string()});
        good(name, "parity-name", "the sidecar of an object with a number", json!({"key": key}), expected)
    };
    vec![
        of("parity-name-log", "log/00000000000000000007"),
        of("parity-name-state", "state/00000000000000000032"),
    ]
}

fn made() -> Vec<Vector> {
    let of = |name: &str, what: &str, length: usize, tenths: u32| {
        let description = described(length);
        let expected = json!({"sidecar": hex(sidecar_of(&data(&description), tenths))});
        good(name, "parity-encode", what, json!({"data": description, "overhead": tenths}), expected)
    };
    vec![
        of("parity-encode-byte", "one byte, in one shard", 1, 30),
        of("parity-encode-short", "two shards, the last one with zeros at its end", 100, 30),
        of("parity-encode-sector", "no longer than a sector: as much parity", 4000, 1),
        of("parity-encode-groups", "several groups of shards", 20_000, 30),
        of("parity-encode-partial-group", "a last group that is not full", 9_000, 400),
    ]
}

fn parsed() -> Vec<Vector> {
    let object = data(&described(4000));
    let sidecar = sidecar_of(&object, 30);
    let inputs = |sidecar: &[u8]| json!({"sidecar": hex(sidecar)});
    let ok = |name: &str, what: &str, sidecar: &[u8]| {
        let found = parsed_json(&Sidecar::parse(sidecar).expect("a head is whole"));
        good(name, "parity", what, inputs(sidecar), found)
    };
    let refused = |name: &str, what: &str, sidecar: &[u8], class: &str| {
        bad(name, "parity", what, inputs(sidecar), class)
    };
    let last = sidecar.len() - 96;
    let mut other_ends = flipped(&sidecar, 20);
    other_ends[last + 40] ^= 1;
    // The first table's entry of the first recovery shard, and then the second table's, too.
    let shards = 4000_usize.div_ceil(128);
    let one_table = flipped(&sidecar, 96 + 8 * shards);
    let two_tables = flipped(&one_table, last - 8 * shards);
    vec![
        ok("parity-good", "whole", &sidecar),
        ok("parity-first-head", "damage in the first head", &flipped(&sidecar, 20)),
        ok(
            "parity-cut",
            "only the first head, its table and three shards",
            &sidecar[..96 + 16 * shards + 3 * 128],
        ),
        ok("parity-one-table", "damage in one table", &one_table),
        ok("parity-two-tables", "damage in both tables at the same place", &two_tables),
        ok("parity-shard", "a damaged recovery shard", &flipped(&sidecar, 96 + 16 * shards + 130)),
        refused("parity-short", "95 bytes", &sidecar[..95], "header"),
        refused("parity-both-heads", "damage in both heads", &other_ends, "parity"),
        refused(
            "parity-version-2",
            "a later version",
            &resealed(&sidecar, &|head| head[6] = b'2'),
            "version",
        ),
        refused("parity-magic", "another magic", &resealed(&sidecar, &|head| head[0] = b'X'), "header"),
        refused("parity-other-kind", "another kind", &resealed(&sidecar, &|head| head[8] = 5), "header"),
        refused("parity-flags", "an unknown flag", &resealed(&sidecar, &|head| head[10] = 1), "header"),
        refused(
            "parity-nothing",
            "an empty object",
            &resealed(&sidecar, &|head| head[16..24].fill(0)),
            "parity",
        ),
        refused(
            "parity-odd-shards",
            "shards of 100 bytes",
            &resealed(&sidecar, &|head| head[12] = 100),
            "parity",
        ),
        refused(
            "parity-long-shards",
            "shards longer than the object",
            &resealed(&sidecar, &|head| head[13] = 32),
            "parity",
        ),
        refused(
            "parity-no-recovery",
            "no recovery shards",
            &resealed(&sidecar, &|head| head[24] = 0),
            "parity",
        ),
        refused(
            "parity-more-recovery",
            "more recovery shards than others",
            &resealed(&sidecar, &|head| head[24] = 33),
            "parity",
        ),
    ]
}

fn repaired() -> Vec<Vector> {
    let object = data(&described(9000));
    let sidecar = sidecar_of(&object, 30);
    let Head { shape, .. } = *Sidecar::parse(&sidecar).expect("just made").head();
    let inputs = |object: &[u8], sidecar: &[u8]| json!({"object": hex(object), "sidecar": hex(sidecar)});
    let mut scattered = object.clone();
    for shard in (0..shape.originals()).step_by(2).take(shape.recovery() - 1) {
        scattered[shard * shape.shard_len()] ^= 0x80;
    }
    let tail = &object[..(shape.originals() - (shape.recovery() - 1)) * shape.shard_len()];
    let first_shard = 96 + 8 * (shape.originals() + shape.recovery());
    let hit = flipped(&flipped(&sidecar, 3), first_shard);
    let ok = |name: &str, what: &str, object: &[u8], sidecar: &[u8]| {
        let expected = json!({"data": described(9000)});
        good(name, "parity-repair", what, inputs(object, sidecar), expected)
    };
    vec![
        ok("parity-repair-scattered", "scattered shards, a head and a recovery shard", &scattered, &hit),
        ok("parity-repair-tail", "a cut tail", tail, &hit),
        bad(
            "parity-repair-too-much",
            "parity-repair",
            "one shard more than can be made good",
            inputs(&tail[..tail.len() - shape.shard_len()], &hit),
            "parity",
        ),
        bad(
            "parity-repair-other-object",
            "parity-repair",
            "parity of an object with the same shards and another hash",
            inputs(&object, &resealed(&sidecar, &|head| head[40] ^= 1)),
            "parity",
        ),
    ]
}
