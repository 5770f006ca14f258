//! Sealing and opening: ChaCha20-Poly1305 in place, from compressed blocks of small files to whole ones.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use strongroom::crypto::{MessageContext, ObjectCipher};
use strongroom::format::header::ObjectKind;
use strongroom::format::pack;

use crate::support::data::Kind;
use crate::support::repository::in_memory;

const CONTEXT: MessageContext = MessageContext { position: 4096, raw_len: 1 << 20 };

/// The cipher of some pack.
fn cipher() -> ObjectCipher {
    pack::start(ObjectKind::DataPack, &in_memory().sealer()).1
}

#[divan::bench(args = [64, 256, 1024])]
fn seal_kib(bencher: Bencher<'_, '_>, kib: usize) {
    let cipher = cipher();
    let mut message = Kind::Random.bytes(kib << 10, 1);
    bencher
        .counter(BytesCount::of_slice(&message))
        .bench_local(|| cipher.seal_detached(CONTEXT, black_box(&mut message)));
}

#[divan::bench(args = [64, 256, 1024])]
fn open_kib(bencher: Bencher<'_, '_>, kib: usize) {
    let cipher = cipher();
    let mut sealed = Kind::Random.bytes(kib << 10, 1);
    cipher.seal(CONTEXT, &mut sealed);
    bencher
        .counter(BytesCount::new(kib << 10))
        .with_inputs(|| sealed.clone())
        .bench_local_refs(|sealed| cipher.open(CONTEXT, black_box(sealed)).expect("just sealed").len());
}
