//! Parity sidecars: any bytes are read or refused, and honest ones make good what they can.

use super::input::Input;
use crate::format::parity::{CHECK_LEN, HEAD_LEN, Head, Overhead, Shape, Sidecar};
use crate::sidecar::code::{self, DecodeError};

/// Longest object that is covered here.
const OBJECT_LEN_MAX: usize = 20_000;

/// Sidecars: the input as it is, with a head that says it is whole, and as a description of damage.
pub fn parity(data: &[u8]) {
    read_any(data);
    if data.len() >= HEAD_LEN {
        let mut resealed = data.to_vec();
        resealed[..8].copy_from_slice(b"SROOMv1\n");
        let check = blake3::hash(&resealed[..64]);
        resealed[64..HEAD_LEN].copy_from_slice(check.as_bytes());
        read_any(&resealed);
    }
    damaged(&mut Input::new(data));
}

/// Whatever a sidecar says, it is refused, or what it gives comes of whole shards.
fn read_any(bytes: &[u8]) {
    let Ok(sidecar) = Sidecar::parse(bytes) else { return };
    let head = *sidecar.head();
    assert_eq!(Head::decode(&head.encode()), Ok(head));
    let shape = head.shape;
    let there = (0..shape.recovery()).filter(|number| sidecar.recovery_shard(*number).is_some()).count();
    assert!(there * shape.shard_len() <= bytes.len());
    assert!(!sidecar.is_sound() || (bytes.len() == shape.sidecar_len() && there == shape.recovery()));
    let whole = repair(&sidecar, &[]);
    assert!(whole.is_err() || there >= shape.originals());
}

fn repair(sidecar: &Sidecar<'_>, object: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut read = |at: u64, buffer: &mut [u8]| {
        let rest = usize::try_from(at).ok().and_then(|at| object.get(at..));
        let bytes = rest.and_then(|rest| rest.get(..buffer.len()));
        bytes.map(|bytes| buffer.copy_from_slice(bytes)).is_some()
    };
    let decoded = code::decode(sidecar, &mut read)?;
    let mut whole = Vec::new();
    let hash = decoded.write(&mut read, &mut |bytes| {
        whole.extend_from_slice(bytes);
        Ok::<(), DecodeError>(())
    })?;
    if hash == sidecar.head().object { Ok(whole) } else { Err(DecodeError::Wrong) }
}

/// An object and its sidecar with some bytes changed: what comes back is the object, and does if little enough was hit.
fn damaged(input: &mut Input<'_>) {
    let overhead = Overhead::from_tenths(1 + u32::from(input.u16()) % 1000).expect("in range");
    let mut object = vec![0; 1 + input.below(OBJECT_LEN_MAX)];
    blake3::Hasher::new().update(&input.array::<4>()).finalize_xof().fill(&mut object);
    let shape = Shape::choose(object.len() as u64, overhead).expect("not empty");
    let read = &mut |at: u64, buffer: &mut [u8]| {
        let start = usize::try_from(at).expect("short");
        buffer.copy_from_slice(&object[start..start + buffer.len()]);
        Ok::<(), ()>(())
    };
    let mut sidecar = code::encode(shape, code::WORK_LEN, read).expect("memory can be read").to_vec();
    let mut hit = object.clone();
    let (mut shards, mut recovery, mut ends) = (Vec::new(), Vec::new(), 0);
    let shards_at = HEAD_LEN + CHECK_LEN * (shape.originals() + shape.recovery());
    while !input.is_empty() {
        let (at, change) = (usize::from(input.u16()) * 2 + usize::from(input.u8() & 1), 1 + input.u8() % 255);
        if change.is_multiple_of(2) {
            let at = at % hit.len();
            hit[at] ^= change;
            shards.push(at / shape.shard_len());
        } else {
            let at = at % sidecar.len();
            sidecar[at] ^= change;
            let of_shards = at.checked_sub(shards_at).map(|at| at / shape.shard_len());
            match of_shards.filter(|number| *number < shape.recovery()) {
                Some(number) => recovery.push(number),
                None => ends |= if at < shards_at { 1 } else { 2 },
            }
        }
    }
    let count = |numbers: &mut Vec<usize>| {
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    };
    let lost = count(&mut shards) + count(&mut recovery);
    match Sidecar::parse(&sidecar).map(|sidecar| repair(&sidecar, &hit)) {
        Ok(Ok(whole)) => assert!(whole == object),
        // A byte may have been changed back.
        Ok(Err(_)) => assert!(lost > shape.recovery() || ends == 3),
        Err(_) => assert_eq!(ends, 3),
    }
}
