//! Generated data of a few kinds, which chunkers, compressors and databases see every day.

use std::fmt;

/// What data looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Words of a small vocabulary, the frequent ones first, in lines.
    Text,
    /// Like a program: instructions with operands, tables of ascending addresses, padding, some strings.
    Binary,
    /// Pages of a PostgreSQL relation: rows of numbers, words and random keys, some free space.
    Pages,
    /// Nothing to compress: media, archives, what is encrypted.
    Random,
    /// Nothing at all.
    Zeros,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Pages => "pages",
            Self::Random => "random",
            Self::Zeros => "zeros",
        })
    }
}

impl Kind {
    /// `len` bytes; others for another seed.
    pub fn bytes(self, len: usize, seed: u64) -> Vec<u8> {
        let mut dice = Dice(seed);
        let words = Words::new();
        let mut bytes = Vec::with_capacity(len + 2 * PAGE_LEN);
        match self {
            Self::Zeros => bytes.resize(len, 0),
            Self::Random => {
                while bytes.len() < len {
                    bytes.extend(dice.next().to_le_bytes());
                }
            }
            Self::Text => {
                while bytes.len() < len {
                    words.line(&mut dice, &mut bytes);
                }
            }
            Self::Binary => {
                while bytes.len() < len {
                    section(&words, &mut dice, &mut bytes);
                }
            }
            Self::Pages => {
                while bytes.len() < len {
                    bytes.extend(page(&words, &mut dice));
                }
            }
        }
        bytes.truncate(len);
        bytes
    }
}

/// Repeatable numbers (`SplitMix64`).
pub struct Dice(pub u64);

impl Dice {
    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A number below `bound`, small ones being more frequent.
    fn skewed(&mut self, bound: usize) -> usize {
        let below = 1 + self.below(bound);
        self.below(below)
    }
}

/// A vocabulary, the same for all seeds.
struct Words(Vec<Vec<u8>>);

impl Words {
    fn new() -> Self {
        let mut dice = Dice(0);
        let mut word =
            || (0..2 + dice.below(9)).map(|_| b"etaoinshrdlucmfwypvbgkjqxz"[dice.skewed(26)]).collect();
        Self((0..4000).map(|_| word()).collect())
    }

    fn one(&self, dice: &mut Dice) -> &[u8] {
        &self.0[dice.skewed(self.0.len())]
    }

    fn line(&self, dice: &mut Dice, text: &mut Vec<u8>) {
        text.resize(text.len() + 4 * dice.skewed(5), b' ');
        for _ in 0..1 + dice.below(14) {
            text.extend_from_slice(self.one(dice));
            text.extend_from_slice([&b" "[..], b" ", b" ", b", ", b"(", b") ", b" = ", b"."][dice.below(8)]);
        }
        text.push(b'\n');
    }
}

/// A section of a program.
fn section(words: &Words, dice: &mut Dice, bytes: &mut Vec<u8>) {
    let end = bytes.len() + 512 + dice.below(8192);
    match dice.below(8) {
        0 => {
            let mut address = dice.next() & 0xff_ffff;
            while bytes.len() < end {
                bytes.extend_from_slice(&address.to_le_bytes());
                address += 16 * (1 + dice.skewed(64) as u64);
            }
        }
        1 => bytes.resize(bytes.len() + dice.below(1024), 0),
        2 => {
            while bytes.len() < end {
                bytes.extend_from_slice(words.one(dice));
                bytes.push(0);
            }
        }
        _ => {
            while bytes.len() < end {
                instruction(dice, bytes);
            }
        }
    }
}

/// One of a few hundred opcodes of one to four bytes, and an operand.
fn instruction(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let mut opcode = Dice(dice.skewed(400) as u64);
    let len = 1 + opcode.below(4);
    bytes.extend_from_slice(&opcode.next().to_le_bytes()[..len]);
    match dice.below(8) {
        0..=3 => {}
        4 | 5 => bytes.push(8 * dice.skewed(32) as u8),
        6 => bytes.extend_from_slice(&(dice.skewed(1 << 16) as u32).to_le_bytes()),
        _ => bytes.extend_from_slice(&(dice.next() as u32).to_le_bytes()[..3]),
    }
}

const PAGE_LEN: usize = 8192;

/// A page with its header, an array of row pointers, free space, and rows from its end on.
fn page(words: &Words, dice: &mut Dice) -> Vec<u8> {
    let mut page = vec![0; PAGE_LEN];
    page[..8].copy_from_slice(&(dice.next() >> 24).to_le_bytes());
    let (mut lower, mut upper) = (24, PAGE_LEN);
    let free = dice.skewed(1024);
    loop {
        let mut row = [(dice.skewed(1 << 20) as u64).to_le_bytes(), [0, 0, 6, 0, 2, 9, 24, 0]].concat();
        row.extend_from_slice(&dice.next().to_le_bytes());
        row.extend_from_slice(&1_700_000_000_000_u64.wrapping_add(dice.below(1 << 30) as u64).to_le_bytes());
        for _ in 0..3 + dice.below(8) {
            row.extend_from_slice(words.one(dice));
            row.push(b' ');
        }
        row.resize(row.len().next_multiple_of(8), 0);
        if lower + 4 + free + row.len() > upper {
            break;
        }
        upper -= row.len();
        page[upper..upper + row.len()].copy_from_slice(&row);
        let pointer = upper as u32 | 1 << 15 | (row.len() as u32) << 17;
        page[lower..lower + 4].copy_from_slice(&pointer.to_le_bytes());
        lower += 4;
    }
    for (at, number) in [(12, lower), (14, upper), (16, PAGE_LEN), (18, PAGE_LEN | 4)] {
        page[at..at + 2].copy_from_slice(&(number as u16).to_le_bytes());
    }
    page
}
