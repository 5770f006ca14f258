//! Fixed work for counting instructions: the kernels that most of a backup's time goes into, each once, on the same data every
//! time. `benches/counts/compare` runs them under callgrind and holds the counts against its figures.

use std::hint::black_box;

use serde_bytes::ByteBuf;
use strongroom::chunk::grain::sizes;
use strongroom::chunk::{Cutter, GearTable, Scanner};
use strongroom::crypto::MessageContext;
use strongroom::crypto::keys::BlobKind;
use strongroom::format::block::BlockCodec;
use strongroom::format::chunk_list::{self, Chunk};
use strongroom::format::header::ObjectKind;
use strongroom::format::tree::{FileContent, Grain, Metadata, Node, NodeKind, Timestamp, Tree};
use strongroom::format::{pack, record};

use crate::support::blobs;
use crate::support::data::Kind;
use crate::support::repository::{in_memory, keys};

/// A kernel prepares its work and hands it to [`measured`].
type Kernel = fn();

const KERNELS: [(&str, Kernel); 13] = [
    ("chunk_crate", || chunk("portable", Kind::Text)),
    ("chunk_avx2_text", || chunk("avx2", Kind::Text)),
    ("chunk_avx2_zeros", || chunk("avx2", Kind::Zeros)),
    ("hash_64_kib", || hash(64 << 10)),
    ("hash_4_kib", || hash(4 << 10)),
    ("compress_text_3", || compress(Kind::Text, 3)),
    ("compress_random_3", || compress(Kind::Random, 3)),
    ("decompress_text", decompress),
    ("seal", seal),
    ("open", open),
    ("tree_encode", tree_encode),
    ("tree_decode", tree_decode),
    ("lookup", lookup),
];

/// Runs the kernel called `wanted`; whether there is one that this processor can run.
pub fn run(wanted: &str) -> bool {
    let found = KERNELS.iter().find(|(name, _)| *name == wanted && is_possible(name));
    found.map(|(_, kernel)| kernel()).is_some()
}

/// The names of all kernels that this processor can run.
pub fn names() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|(name, _)| *name).filter(|name| is_possible(name))
}

/// Whether this processor has the instructions.
fn is_possible(kernel: &str) -> bool {
    let has_avx2 = Scanner::available().iter().any(|scanner| scanner.name() == "avx2");
    has_avx2 || !kernel.contains("avx2")
}

/// What is counted. Callgrind knows it by its name, `stages::counts::measured`.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

fn chunk(scanner: &str, kind: Kind) {
    let gear = GearTable::derive(&keys());
    let scanner = Scanner::available().into_iter().find(|found| found.name() == scanner);
    let cutter = Cutter::with_scanner(&gear, sizes(Grain::Medium), scanner.expect("a possible scanner"));
    let bytes = kind.bytes(4 << 20, 1);
    let mut lens = Vec::with_capacity(1024);
    measured(&mut || {
        cutter.cut_all(black_box(&bytes), true, &mut lens);
    });
    assert_eq!(lens.iter().map(|len| *len as usize).sum::<usize>(), bytes.len());
}

fn hash(len: usize) {
    let keys = keys();
    let chunk = Kind::Text.bytes(len, 1);
    measured(&mut || {
        for _ in 0..(1 << 20) / len {
            black_box(keys.blob_id(BlobKind::Data, black_box(&chunk)));
        }
    });
}

fn compress(kind: Kind, level: i32) {
    let (mut codec, mut payload) = (BlockCodec::new(), Vec::new());
    let raw = kind.bytes(1 << 20, 1);
    // A context's tables are made when it is first used.
    codec.compress(&raw, level, &mut payload);
    measured(&mut || codec.compress(black_box(&raw), level, &mut payload));
}

fn decompress() {
    let (mut codec, mut payload, mut back) = (BlockCodec::new(), Vec::new(), Vec::new());
    let raw = Kind::Text.bytes(1 << 20, 1);
    codec.compress(&raw, 3, &mut payload);
    codec.decompress(&payload, raw.len(), &mut back).expect("just compressed");
    measured(&mut || codec.decompress(black_box(&payload), raw.len(), &mut back).expect("just compressed"));
    assert!(raw == back);
}

const CONTEXT: MessageContext = MessageContext { position: 4096, raw_len: 1 << 20 };

fn seal() {
    let (_, cipher) = pack::start(ObjectKind::DataPack, &in_memory().sealer());
    let mut message = Kind::Random.bytes(1 << 20, 1);
    measured(&mut || {
        black_box(cipher.seal_detached(CONTEXT, black_box(&mut message)));
    });
}

fn open() {
    let (_, cipher) = pack::start(ObjectKind::DataPack, &in_memory().sealer());
    let mut sealed = Kind::Random.bytes(1 << 20, 1);
    cipher.seal(CONTEXT, &mut sealed);
    measured(&mut || {
        black_box(cipher.open(CONTEXT, black_box(&mut sealed)).expect("just sealed").len());
    });
}

/// A directory of a thousand files with one chunk each.
fn tree() -> Tree {
    let time = |n: u64| Timestamp { seconds: 1_700_000_000 + n as i64, nanos: 123_456_789 };
    let node = |n: u64| {
        let metadata = Metadata {
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            user: "user".into(),
            group: "user".into(),
            mtime: time(n),
            ctime: time(n + 1),
            btime: Some(time(n)),
            inode: 1_000_000 + n,
            ..Metadata::default()
        };
        let mut chunks = Vec::new();
        chunk_list::push_chunk(&mut chunks, Chunk { id: blobs::blob(n), len: 4096 });
        let content = FileContent { size: 4096, chunks: ByteBuf::from(chunks), ..FileContent::default() };
        Node { name: ByteBuf::from(format!("file-{n:06}.txt")), metadata, kind: NodeKind::File(content) }
    };
    Tree::Nodes((0..1000).map(node).collect())
}

fn tree_encode() {
    let tree = tree();
    measured(&mut || {
        black_box(record::encode(black_box(&tree)));
    });
}

fn tree_decode() {
    let bytes = record::encode(&tree());
    measured(&mut || {
        let tree: Tree = record::decode(black_box(&bytes)).expect("just encoded");
        tree.validate().expect("a sound tree");
        black_box(tree);
    });
}

/// Lookups of blobs that are there and of as many that are not.
fn lookup() {
    const BLOBS: u64 = 50_000;
    let repository = in_memory();
    blobs::list(&repository, 0..BLOBS * 4 / 5);
    blobs::list(&repository, BLOBS * 4 / 5..BLOBS);
    measured(&mut || {
        for n in 0..2000 {
            let number = (n * 0x9e37_79b9) % BLOBS;
            assert!(repository.index().contains(&blobs::blob(number)).expect("a sound index"));
            assert!(!repository.index().contains(&blobs::blob(BLOBS + number)).expect("a sound index"));
        }
    });
}
