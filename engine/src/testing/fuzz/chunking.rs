//! Cut points, splitting and padding, each against a plain second implementation made from the specification.

use std::sync::OnceLock;

use super::input::Input;
use super::setup::setup;
use crate::chunk::grain::{ChunkSizes, sizes};
use crate::chunk::split::{CHUNK_RULE, SplitRule, Splitter, TREE_RULE};
use crate::chunk::{Cutter, GearTable, Scanner};
use crate::format::tree::Grain;

/// Cut points: every scanner of this processor cuts where the specification's pseudo-code does, however the data is
/// buffered.
pub fn chunker(data: &[u8]) {
    let mut input = Input::new(data);
    let sizes = match input.u8() % 8 {
        0 => sizes(Grain::Fine),
        1 => sizes(Grain::Medium),
        2 => sizes(Grain::Coarse),
        3 => ChunkSizes { min: 2, average: 8, max: 16 },
        4 => ChunkSizes { min: 16, average: 16, max: 16 },
        5 => ChunkSizes { min: 64, average: 256, max: 1024 },
        6 => ChunkSizes { min: 1024, average: 4096, max: 6000 },
        _ => ChunkSizes { min: 6, average: 100, max: 102 },
    };
    // Three of the longest chunks, but no more than the fuzzer can change in reasonable time.
    let len_max = (3 * sizes.max).clamp(4096, 2 * sizes.max + (256 << 10));
    let room = input.below(sizes.max.min(65_535) + 1);
    let content = content(&mut input, len_max);

    static GEAR: OnceLock<GearTable> = OnceLock::new();
    let gear = GEAR.get_or_init(|| GearTable::derive(&setup().keys));
    let expected = reference_cuts(&content, sizes);
    for scanner in Scanner::available() {
        let cutter = Cutter::with_scanner(gear, sizes, scanner);
        let mut rest = content.as_slice();
        for expected in &expected {
            let len = cutter.cut(rest);
            assert_eq!(len, *expected, "{scanner:?} at {}", content.len() - rest.len());
            assert!(len == rest.len() || (sizes.min..=sizes.max).contains(&len), "{len} of {}", rest.len());
            rest = &rest[len..];
        }
        assert_eq!(cutter.cut(&[]), 0);
        assert_eq!(streamed(&cutter, &content, sizes.max + room), expected, "{scanner:?}");
    }
}

/// All cuts of the content, by the reference.
fn reference_cuts(content: &[u8], sizes: ChunkSizes) -> Vec<usize> {
    let (mut lens, mut at) = (Vec::new(), 0);
    while at < content.len() {
        lens.push(reference_cut(&content[at..], sizes));
        at += lens[lens.len() - 1];
    }
    lens
}

/// Cuts as a reader does that keeps at most `capacity` bytes, at least the longest chunk.
fn streamed(cutter: &Cutter<'_>, content: &[u8], capacity: usize) -> Vec<usize> {
    let (mut lens, mut buffer, mut read) = (Vec::new(), Vec::new(), 0);
    loop {
        let filled = (capacity - buffer.len()).min(content.len() - read);
        buffer.extend_from_slice(&content[read..read + filled]);
        read += filled;
        let at_end = read == content.len();
        let used = cutter.cut_all(&buffer, at_end, &mut lens);
        buffer.drain(..used);
        if at_end && buffer.is_empty() {
            return lens.iter().map(|len| *len as usize).collect();
        }
    }
}

/// Content from a description: literal bytes, repetitions, zeros and noise.
fn content(input: &mut Input<'_>, len_max: usize) -> Vec<u8> {
    let mut content = Vec::new();
    while !input.is_empty() && content.len() < len_max {
        let (shape, count) = (input.u8(), usize::from(input.u16()));
        let room = len_max - content.len();
        match shape % 5 {
            0 => content.extend_from_slice(input.bytes(count.min(room))),
            1 => content.resize(content.len() + count.min(room), shape / 5),
            2 => {
                let pattern = input.bytes(usize::from(shape / 5) + 1);
                let pattern =
                    pattern.iter().copied().cycle().take(if pattern.is_empty() { 0 } else { count });
                content.extend(pattern.take(room));
            }
            3 => {
                let mut noise = vec![0; (count * 16).min(room)];
                blake3::Hasher::new().update(&[shape]).finalize_xof().fill(&mut noise);
                content.append(&mut noise);
            }
            _ => {
                let again = content.len().saturating_sub(count);
                let again = content[again..].to_vec();
                content.extend_from_slice(&again[..again.len().min(room)]);
            }
        }
    }
    content
}

/// `cut` of the specification, one byte after the other.
fn reference_cut(data: &[u8], sizes: ChunkSizes) -> usize {
    static GEAR: OnceLock<Vec<u32>> = OnceLock::new();
    let gear = GEAR.get_or_init(|| {
        let mut bytes = [0; 1024];
        blake3::Hasher::new_keyed(setup().keys.chunker().expose())
            .update(b"gear")
            .finalize_xof()
            .fill(&mut bytes);
        bytes.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number)).collect()
    });
    let bits = sizes.average.ilog2();
    let strict = !(u32::MAX >> (bits + 2));
    let relaxed = !(u32::MAX >> (bits - 2));
    let n = data.len().min(sizes.max);
    if n <= sizes.min {
        return n;
    }
    let center = sizes.average.min(n);
    let mut hash = 0u32;
    for i in sizes.min..n / 2 * 2 {
        hash = hash.wrapping_mul(2).wrapping_add(gear[usize::from(data[i])]);
        let mask = if i < center / 2 * 2 { strict } else { relaxed };
        if hash & mask == 0 {
            return i;
        }
    }
    n
}

/// Splitting of lists: pieces cover the list within their bounds, end where the specification says, and a longer list
/// begins with the same pieces.
pub fn split(data: &[u8]) {
    let mut input = Input::new(data);
    let rule = match input.u8() % 5 {
        0 => TREE_RULE,
        1 => CHUNK_RULE,
        2 => SplitRule { whole_max: 8, min: 2, one_in: 4, max: 16 },
        3 => SplitRule { whole_max: 0, min: 1, one_in: 1, max: 3 },
        _ => SplitRule { whole_max: 16, min: 4, one_in: 8, max: 4 },
    };
    let keys = items(&mut input);
    let lens = pieces(&rule, &keys);
    assert_eq!(lens.iter().sum::<usize>(), keys.len());
    assert_eq!(lens, reference_pieces(&rule, &keys));
    if lens.len() > 1 {
        assert!(lens[..lens.len() - 1].iter().all(|len| (rule.min.min(rule.max)..=rule.max).contains(len)));
        let shorter = pieces(&rule, &keys[..keys.len() - 1]);
        let same = lens.iter().zip(&shorter).take_while(|(a, b)| a == b).count();
        assert!(shorter.len() == 1 || same + 1 >= lens.len(), "only the last piece may change");
    }
}

/// The engine's pieces of items with these keys.
fn pieces(rule: &SplitRule, keys: &[Vec<u8>]) -> Vec<usize> {
    Splitter::new(&setup().keys).pieces(rule, keys.iter().map(|key| (key.as_slice(), 0)))
}

/// Up to some thousand keys: short ones from the input, then numbered ones.
fn items(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let (numbered, seed) = (input.below(5000), input.u8());
    let mut keys = Vec::new();
    while !input.is_empty() {
        let len = usize::from(input.u8() % 40);
        keys.push(input.bytes(len).to_vec());
    }
    keys.extend((0..numbered as u32).map(|n| [&[seed][..], &n.to_be_bytes()].concat()));
    keys
}

/// The pieces as the specification describes them.
fn reference_pieces(rule: &SplitRule, keys: &[Vec<u8>]) -> Vec<usize> {
    if keys.len() <= rule.whole_max {
        return vec![keys.len()];
    }
    let chunker = setup().keys.chunker().expose();
    let mut pieces = vec![0];
    for key in keys {
        let last = pieces.last_mut().expect("never empty");
        *last += 1;
        let hash = blake3::keyed_hash(chunker, &[b"split", key.as_slice()].concat());
        let number = Input::new(hash.as_bytes()).u32();
        if *last >= rule.max || *last >= rule.min && number.is_multiple_of(rule.one_in) {
            pieces.push(0);
        }
    }
    if pieces.len() > 1 && pieces.last() == Some(&0) {
        pieces.pop();
    }
    pieces
}

/// Padding: the specification's formula, never shorter, at most 12 % longer, idempotent and monotonous.
pub fn padme(data: &[u8]) {
    let len = u64::from_le_bytes(Input::new(data).array());
    // Small numbers are as interesting as large ones.
    for len in [len, len >> 32, len >> 48, u64::from(len as u16)] {
        let padded = crate::format::padme::padme(len);
        assert_eq!(padded, reference_padme(len));
        assert!(padded >= len);
        assert!(u128::from(padded - len) * 100 <= u128::from(len) * 12, "{len} -> {padded}");
        assert_eq!(crate::format::padme::padme(padded), padded);
        assert!(crate::format::padme::padme(len.saturating_add(1)) >= padded);
    }
}

/// Padmé in wide numbers, by division instead of masks.
fn reference_padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let log2 = |n: u32| u32::BITS - 1 - n.leading_zeros();
    let e = u64::BITS - 1 - len.leading_zeros();
    let s = log2(e.max(1)) + 1;
    let unit = 1u128 << e.saturating_sub(s);
    u64::try_from(u128::from(len).div_ceil(unit) * unit).unwrap_or(len)
}
