//! Blocks: 4 MiB compressed at the levels that are worth their time, and decompressed, by contexts that live on.
//! Bytes are those before compression; the factor behind a level is what it gains.

use std::fmt;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use strongroom::format::block::{BlockCodec, DATA_BLOCK_LEN};

use crate::support::data::Kind;

/// A block and how it is compressed.
struct Case {
    kind: Kind,
    level: i32,
    raw: Vec<u8>,
    payload: Vec<u8>,
}

impl Case {
    fn new(kind: Kind, level: i32) -> Self {
        let raw = kind.bytes(DATA_BLOCK_LEN, 1);
        let mut payload = Vec::new();
        BlockCodec::new().compress(&raw, level, &mut payload);
        Self { kind, level, raw, payload }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let factor = self.raw.len() as f64 / self.payload.len() as f64;
        write!(f, "{} {} ({factor:.2})", self.kind, self.level)
    }
}

fn cases() -> Vec<Case> {
    let kinds = [Kind::Text, Kind::Binary, Kind::Pages, Kind::Random];
    kinds.into_iter().flat_map(|kind| (1..=3).map(move |level| Case::new(kind, level))).collect()
}

#[divan::bench(args = cases())]
fn compress(bencher: Bencher<'_, '_>, case: &Case) {
    let (mut codec, mut payload) = (BlockCodec::new(), Vec::new());
    bencher
        .counter(BytesCount::of_slice(&case.raw))
        .bench_local(|| codec.compress(black_box(&case.raw), case.level, &mut payload));
}

#[divan::bench(args = cases())]
fn decompress(bencher: Bencher<'_, '_>, case: &Case) {
    let (mut codec, mut raw) = (BlockCodec::new(), Vec::new());
    bencher.counter(BytesCount::of_slice(&case.raw)).bench_local(|| {
        codec.decompress(black_box(&case.payload), case.raw.len(), &mut raw).expect("just compressed");
    });
    assert!(raw.is_empty() || raw == case.raw, "{case} came back as something else");
}
