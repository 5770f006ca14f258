//! Blocks: runs of whole blobs compressed together. The codec follows from the lengths: a payload as long as
//! the raw block *is* the raw block; a shorter one is a single zstd frame (RFC 8878) of exactly that block.

use zstd::zstd_safe;
use zstd_safe::{CCtx, CParameter, DCtx, ResetDirective, Strategy};

use crate::format::search::{self, Chooser, Search};

/// Longest blob: 16 MiB.
pub const BLOB_LEN_MAX: usize = 16 << 20;

/// Longest raw block.
pub const BLOCK_LEN_MAX: usize = BLOB_LEN_MAX;

/// A block of file content is closed before it would grow beyond this: 4 MiB. Against 1 MiB, repositories are 2 to
/// 4 % smaller at the same speed; what is read of a block is read with all of it, so longer ones cost more than they gain.
pub const DATA_BLOCK_LEN: usize = 4 << 20;

/// A block of metadata is closed before it would grow beyond this: 1 MiB. Single trees are read more often than single
/// chunks.
pub const METADATA_BLOCK_LEN: usize = 1 << 20;

/// The level at which [`Search`] is chosen by the content, and tables are larger. Others are as zstd has them.
const CHOOSING_LEVEL: i32 = 3;

/// Logarithm of the entries in the table of long matches, instead of 17: blocks of databases and logs get 3 to 4 % smaller and
/// take 6 % more time.
const LONG_HASH_LOG: u32 = 18;

/// A payload that does not decompress to what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A compressed payload cannot be longer than what it stands for.
    #[error("the payload has {stored} bytes, more than the {raw} it stands for")]
    TooLong {
        /// Payload length.
        stored: usize,
        /// Raw length.
        raw: usize,
    },
    /// zstd refused the frame.
    #[error("the zstd frame is damaged: {0}")]
    Frame(&'static str),
    /// The frame holds another number of bytes.
    #[error("the payload decompresses to {found} bytes, expected {expected}")]
    Length {
        /// Bytes the frame gave.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
}

/// Compression contexts, kept for as long as their thread works: a fresh one per block costs up to 30 %. Each is made
/// when it is first needed: who reads one record needs neither a compressor nor, if it is short, a decompressor.
pub struct BlockCodec {
    compressor: Option<CCtx<'static>>,
    decompressor: Option<DCtx<'static>>,
    /// What the compressor is set to.
    set: Option<(i32, Search)>,
    chooser: Chooser,
}

impl Default for BlockCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for BlockCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockCodec({:?})", self.set)
    }
}

impl BlockCodec {
    /// Fresh contexts.
    pub fn new() -> Self {
        Self { compressor: None, decompressor: None, set: None, chooser: Chooser::default() }
    }

    /// Fills `out` with the payload of `raw` at zstd `level`: the frame if that is shorter, else `raw` itself. Blocks that
    /// follow each other are taken to be alike.
    pub fn compress(&mut self, raw: &[u8], level: i32, out: &mut Vec<u8>) {
        let mut search = Search::Double;
        if level == CHOOSING_LEVEL && raw.len() >= 2 * search::SAMPLE_LEN {
            // Not the beginning, which is where a file says what it is.
            let sample = &raw[raw.len() / 2..][..search::SAMPLE_LEN];
            let mut chooser = std::mem::take(&mut self.chooser);
            search = chooser.choose(|search| self.frame(sample, level, search, out).unwrap_or(sample.len()));
            self.chooser = chooser;
        }
        match self.frame(raw, level, search, out) {
            Some(len) if len < raw.len() => self.chooser.note(raw.len(), len),
            _ => {
                out.clear();
                out.extend_from_slice(raw);
                self.chooser.note(raw.len(), raw.len());
            }
        }
    }

    /// Fills `out` with a frame of `raw` and returns its length, if zstd can.
    fn frame(&mut self, raw: &[u8], level: i32, search: Search, out: &mut Vec<u8>) -> Option<usize> {
        let compressor = self.compressor.get_or_insert_with(CCtx::create);
        if self.set != Some((level, search)) {
            compressor.reset(ResetDirective::Parameters).expect("no frame is begun");
            let mut set = |parameter| {
                compressor
                    .set_parameter(parameter)
                    .expect("zstd clamps levels, and has these tables and lengths");
            };
            set(CParameter::CompressionLevel(level));
            if level == CHOOSING_LEVEL {
                set(CParameter::HashLog(LONG_HASH_LOG));
            }
            if let Search::Single(min_len) = search {
                set(CParameter::Strategy(Strategy::ZSTD_fast));
                set(CParameter::MinMatch(min_len));
            }
            self.set = Some((level, search));
        }
        out.clear();
        out.reserve(zstd_safe::compress_bound(raw.len()));
        compressor.compress2(out, raw).ok()
    }

    /// Fills `out` with the `raw_len` bytes that `payload` stands for. Allocates `raw_len` bytes at most.
    ///
    /// # Errors
    /// [`CodecError`] where the payload stands for something else.
    pub fn decompress(
        &mut self,
        payload: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        out.clear();
        if payload.len() >= raw_len {
            if payload.len() > raw_len {
                return Err(CodecError::TooLong { stored: payload.len(), raw: raw_len });
            }
            out.extend_from_slice(payload);
            return Ok(());
        }
        // One frame and nothing after it: zstd would otherwise decode concatenated and skippable frames too.
        let frame_len = zstd_safe::find_frame_compressed_size(payload)
            .map_err(|code| CodecError::Frame(zstd_safe::get_error_name(code)))?;
        if frame_len != payload.len() {
            return Err(CodecError::Frame("bytes follow the frame"));
        }
        out.reserve(raw_len);
        let found = self
            .decompressor
            .get_or_insert_with(DCtx::create)
            .decompress(out, payload)
            .map_err(|code| CodecError::Frame(zstd_safe::get_error_name(code)))?;
        if found != raw_len {
            return Err(CodecError::Length { found, expected: raw_len });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(raw: &[u8], level: i32) -> Vec<u8> {
        let mut codec = BlockCodec::new();
        let (mut payload, mut back) = (Vec::new(), Vec::new());
        codec.compress(raw, level, &mut payload);
        codec.decompress(&payload, raw.len(), &mut back).expect("what was just compressed");
        assert_eq!(back, raw);
        payload
    }

    #[test]
    fn blocks_come_back_at_every_level() {
        let text = b"the same words again and again, ".repeat(500);
        for level in [-5, 1, 3, 19] {
            assert!(round(&text, level).len() < text.len() / 10);
        }
        assert!(round(b"", 3).is_empty());
        assert_eq!(round(b"short", 3), b"short", "what does not shrink is stored as it is");
    }

    #[test]
    fn long_blocks_come_back_however_they_are_searched() {
        let mut codec = BlockCodec::new();
        let lines: String = (0..60_000u32)
            .map(|n| format!("{n} GET /item/{} 200\n", n.wrapping_mul(2_654_435_761) % 977))
            .collect();
        let noise: Vec<u8> = lines
            .bytes()
            .scan(1u32, |state, _| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some((*state >> 24) as u8)
            })
            .collect();
        for raw in [lines.as_bytes(), &noise, &vec![0; 2 << 20]] {
            let (mut payload, mut back) = (Vec::new(), Vec::new());
            for search in search::SEARCHES {
                let len = codec.frame(raw, CHOOSING_LEVEL, search, &mut payload).expect("zstd can");
                if len < raw.len() {
                    codec.decompress(&payload, raw.len(), &mut back).expect("what was just compressed");
                    assert_eq!(back, raw, "{search:?}");
                }
            }
            codec.compress(raw, CHOOSING_LEVEL, &mut payload);
            codec.decompress(&payload, raw.len(), &mut back).expect("what was just compressed");
            assert_eq!(back, raw);
        }
    }

    #[test]
    fn a_payload_of_another_length_is_refused() {
        let text = b"the same words again and again, ".repeat(500);
        let payload = round(&text, 3);
        let mut codec = BlockCodec::new();
        let mut out = Vec::new();
        for wrong in [text.len() - 1, text.len() + 1, text.len() * 4] {
            assert!(codec.decompress(&payload, wrong, &mut out).is_err(), "{wrong}");
        }
        assert!(matches!(codec.decompress(&payload, 3, &mut out), Err(CodecError::TooLong { .. })));
        let mut doubled = payload.clone();
        doubled.extend_from_slice(&payload);
        assert!(codec.decompress(&doubled, text.len(), &mut out).is_err(), "two frames");
        for len in 0..payload.len() {
            assert!(codec.decompress(&payload[..len], text.len(), &mut out).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_bomb_allocates_no_more_than_it_says() {
        let payload = round(&vec![0; 8 << 20], 3);
        let mut out = Vec::new();
        assert!(BlockCodec::new().decompress(&payload, 4096, &mut out).is_err());
        assert!(out.capacity() <= 64 << 10, "{}", out.capacity());
    }
}
