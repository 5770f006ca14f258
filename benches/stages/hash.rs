//! Ids of blobs: keyed BLAKE3 of one chunk at a time, as workers compute them, from the smallest files to coarse chunks.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use strongroom::crypto::keys::BlobKind;

use crate::support::data::Kind;
use crate::support::repository::keys;

#[divan::bench(args = [4, 16, 64, 1024])]
fn kib(bencher: Bencher<'_, '_>, kib: usize) {
    let keys = keys();
    let chunk = Kind::Text.bytes(kib << 10, 1);
    bencher
        .counter(BytesCount::of_slice(&chunk))
        .bench_local(|| keys.blob_id(BlobKind::Data, black_box(&chunk)));
}
