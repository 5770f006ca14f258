//! Damage up to the capacity is made good; one shard more is a clean error.

use reed_solomon_simd::rate::{HighRateEncoder, RateEncoder};

use super::*;
use crate::format::parity::{CHECK_LEN, HEAD_LEN, Overhead};

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0.rotate_right(29) % end as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// So many different numbers.
    fn choose(&mut self, count: usize, end: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..end).collect();
        for at in 0..count {
            let other = at + self.below(end - at);
            all.swap(at, other);
        }
        all.truncate(count);
        all
    }
}

fn reader(object: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), ()> {
    move |at, buffer| {
        buffer.copy_from_slice(&object[at as usize..][..buffer.len()]);
        Ok(())
    }
}

/// Whether it is read once or many times, and in how many columns.
#[test]
fn parity_is_the_same_in_little_memory() {
    let mut random = Random(7);
    for (len, tenths) in [(1, 30), (5_000, 300), (150_000, 30), (700_000, 1000), (3_000_000, 7)] {
        let object = random.bytes(len);
        let shape =
            Shape::choose(len as u64, Overhead::from_tenths(tenths).expect("in range")).expect("fits");
        let whole = encode(shape, WORK_LEN, &mut reader(&object)).expect("read").to_vec();
        let group = shape.recovery().next_power_of_two();
        for memory in [0, 2 * group * 192, 2 * group * (shape.shard_len() - 64)] {
            let parts = encode(shape, memory, &mut reader(&object)).expect("read").to_vec();
            assert!(parts == whole, "{len} bytes, {tenths}, {memory}");
        }
    }
}

#[test]
fn making_parity_reads_an_object_once() {
    let shape = Shape::choose(24 << 20, Overhead::default()).expect("fits");
    let mut read = 0;
    encode(shape, WORK_LEN, &mut |at, buffer| {
        assert_eq!(at, read);
        read += buffer.len() as u64;
        Ok::<(), ()>(())
    })
    .expect("nothing fails");
    assert_eq!(read, 24 << 20);
}

#[test]
fn what_making_parity_takes_is_known_before() {
    let shape =
        |len, tenths| Shape::choose(len, Overhead::from_tenths(tenths).expect("in range")).expect("fits");
    // Whole shards: two groups of them.
    let pack = shape(16 << 20, 30);
    assert!(memory(&pack, WORK_LEN) < 5 << 20, "{}", memory(&pack, WORK_LEN));
    // The columns of the longest object with usual parity are no more than they may be, and in less memory it takes less.
    let longest = shape(1 << 30, 30);
    assert!((64 << 20..100 << 20).contains(&memory(&longest, WORK_LEN)), "{}", memory(&longest, WORK_LEN));
    assert_eq!(memory(&longest, 8 << 20) - memory(&longest, 4 << 20), 4 << 20);
    assert!(memory(&shape(1 << 30, 1000), WORK_LEN) > 1 << 30, "its sidecar alone");
}

fn make(object: &[u8], tenths: u32) -> (Shape, Vec<u8>) {
    let overhead = Overhead::from_tenths(tenths).expect("in range");
    let shape = Shape::choose(object.len() as u64, overhead).expect("can be covered");
    let made = encode(shape, WORK_LEN, &mut reader(object)).expect("memory can be read");
    let sidecar = made.to_vec();
    assert_eq!(made.head().object, *blake3::hash(object).as_bytes());
    assert_eq!(sidecar.len(), shape.sidecar_len());
    assert!(Sidecar::parse(&sidecar).expect("just made").is_sound());
    (shape, sidecar)
}

fn repair(object: &[u8], sidecar: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let parsed = Sidecar::parse(sidecar).map_err(|_| DecodeError::Wrong)?;
    let mut read = |at: u64, buffer: &mut [u8]| {
        let bytes = object.get(at as usize..).and_then(|rest| rest.get(..buffer.len()));
        bytes.map(|bytes| buffer.copy_from_slice(bytes)).is_some()
    };
    let decoded = decode(&parsed, &mut read)?;
    let mut whole = Vec::new();
    let hash = decoded.write(&mut read, &mut |bytes| {
        whole.extend_from_slice(bytes);
        Ok::<(), DecodeError>(())
    })?;
    if hash == parsed.head().object { Ok(whole) } else { Err(DecodeError::Wrong) }
}

/// Alters a byte of a shard.
fn hit(bytes: &mut [u8], shape: &Shape, number: usize, random: &mut Random) {
    let range = shape.bytes_of(number);
    let at = range.start as usize + random.below((range.end - range.start) as usize);
    bytes[at] ^= 1 + random.below(255) as u8;
}

/// One way to lose as much as can be lost, and one shard more: the object and its sidecar with the first, then with both.
fn damage(object: &[u8], sidecar: &[u8], shape: &Shape, random: &mut Random) -> [(Vec<u8>, Vec<u8>); 2] {
    let (originals, recovery) = (shape.originals(), shape.recovery());
    let (mut object, mut sidecar) = (object.to_vec(), sidecar.to_vec());
    let shards_at = HEAD_LEN + (originals + recovery) * CHECK_LEN;
    // Some of the recovery shards go as well: at most all but one.
    let lost_recovery = random.below(recovery);
    let capacity = recovery - lost_recovery;
    for number in random.choose(lost_recovery, recovery) {
        let at = shards_at + number * shape.shard_len() + random.below(shape.shard_len());
        sidecar[at] ^= 1;
    }
    // One end of the sidecar costs nothing, whatever happens to it.
    let end = shards_at.min(1 + random.below(shards_at));
    match random.below(4) {
        0 => sidecar[..end].fill(0xff),
        1 => {
            let len = sidecar.len();
            sidecar[len - end..].fill(0);
        }
        2 => sidecar.truncate(sidecar.len() - end),
        _ => {}
    }
    let mut more = object.clone();
    match random.below(3) {
        // A burst.
        0 => {
            let start = random.below(originals - capacity + 1);
            for number in start..start + capacity {
                hit(&mut object, shape, number, random);
            }
            more.clone_from(&object);
            let next = if start > 0 { start - 1 } else { start + capacity };
            if next < originals {
                hit(&mut more, shape, next, random);
            }
        }
        // Scattered sectors.
        1 => {
            let numbers = random.choose((capacity + 1).min(originals), originals);
            for number in &numbers[..capacity] {
                hit(&mut object, shape, *number, random);
            }
            more.clone_from(&object);
            if let Some(next) = numbers.get(capacity) {
                hit(&mut more, shape, *next, random);
            }
        }
        // A cut tail, sometimes in the middle of a shard.
        _ => {
            let cut = |lost: usize, random: &mut Random| {
                let first = shape.bytes_of(originals - lost);
                first.start as usize + random.below((first.end - first.start) as usize)
            };
            object.truncate(cut(capacity, random));
            more.truncate(if capacity < originals { cut(capacity + 1, random) } else { 0 });
        }
    }
    [(object, sidecar.clone()), (more, sidecar)]
}

/// `STRONGROOM_PARITY_CASES=2000` runs as many.
#[test]
fn all_damage_up_to_the_capacity_is_made_good_and_one_shard_more_is_an_error() {
    let cases = std::env::var("STRONGROOM_PARITY_CASES").ok().and_then(|cases| cases.parse().ok());
    for seed in 0..cases.unwrap_or(300) {
        let mut random = Random(seed);
        let longest = [200, 5_000, 150_000, 1_000_000][random.below(4)];
        let len = 1 + random.below(longest);
        let object = random.bytes(len);
        let (shape, sidecar) = make(&object, [1, 30, 100, 500, 1000][random.below(5)]);
        let [(hit, left), (more, left_of_more)] = damage(&object, &sidecar, &shape, &mut random);
        assert!(repair(&hit, &left).is_ok_and(|whole| whole == object), "seed {seed}: {shape:?}");
        match repair(&more, &left_of_more) {
            Err(DecodeError::TooMuch { damaged, usable, .. }) => {
                assert_eq!(damaged, usable + 1, "seed {seed}");
            }
            // Everything of it can be made good, and nothing more could be hit.
            Ok(whole) => assert!(whole == object && shape.originals() == shape.recovery(), "seed {seed}"),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

#[test]
fn an_object_of_a_sector_is_had_again_without_any_of_it() {
    for len in [1, 64, 1000, 4096] {
        let object = Random(len as u64).bytes(len);
        let (_, sidecar) = make(&object, 1);
        assert_eq!(repair(&[], &sidecar).expect("a copy"), object);
    }
    let object = Random(1).bytes(10_000);
    let (_, sidecar) = make(&object, 1);
    assert!(matches!(repair(&[], &sidecar), Err(DecodeError::TooMuch { .. })));
}

#[test]
fn columns_give_what_whole_shards_give() {
    let object = Random(5).bytes(300_000);
    let (shape, sidecar) = make(&object, 30);
    let mut encoder = HighRateEncoder::new(
        shape.originals(),
        shape.recovery(),
        shape.shard_len(),
        DefaultEngine::new(),
        None,
    )
    .expect("it fits");
    let mut padded = object.clone();
    padded.resize(shape.originals() * shape.shard_len(), 0);
    for shard in padded.chunks_exact(shape.shard_len()) {
        encoder.add_original_shard(shard).expect("once");
    }
    let parsed = Sidecar::parse(&sidecar).expect("sound");
    for (number, shard) in encoder.encode().expect("all").recovery_iter().enumerate() {
        assert_eq!(parsed.recovery_shard(number), Some(shard));
    }
    let widths: Vec<_> = columns(4096, 16_384, 16 << 20).collect();
    assert_eq!(widths, [0..1024, 1024..2048, 2048..3072, 3072..4096]);
    for (shard_len, rows) in [(64, 1 << 20), (4096, 100)] {
        let only: Vec<_> = columns(shard_len, rows, 16 << 20).collect();
        assert!(only.len() == 1 && only[0] == (0..shard_len), "{only:?}");
    }
}

/// Of a pack as long as they are made, in several columns.
#[test]
fn a_whole_pack_loses_a_megabyte_and_gets_it_back() {
    let mut object = vec![0; 32 << 20];
    blake3::Hasher::new().update(b"a pack").finalize_xof().fill(&mut object);
    let (shape, sidecar) = make(&object, 30);
    let mut damaged = object.clone();
    damaged[5 << 20..(5 << 20) + shape.recovery() * 4096].fill(0);
    assert!(repair(&damaged, &sidecar).is_ok_and(|whole| whole == object));
    damaged[0] ^= 1;
    assert!(matches!(
        repair(&damaged, &sidecar),
        Err(DecodeError::TooMuch { damaged: 247, usable: 246, .. })
    ));
}

#[test]
fn parity_of_another_object_gives_nothing() {
    let (one, other) = (Random(1).bytes(200_000), Random(2).bytes(200_000));
    let (_, sidecar) = make(&one, 30);
    assert!(matches!(repair(&other, &sidecar), Err(DecodeError::TooMuch { .. })));
}
