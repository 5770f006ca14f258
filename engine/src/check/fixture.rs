//! Small repositories built by hand, for tests of the check.

use std::sync::Arc;

use serde_bytes::ByteBuf;

use crate::backend::{Backend, MemoryBackend, ObjectKey};
use crate::check::{CheckOptions, CheckReport, ReadData, run};
use crate::crypto::keys::BlobKind;
use crate::crypto::{KdfParams, Password, SeededEntropy};
use crate::format::chunk_list::{Chunk, ChunkList, ListRef, push_chunk, push_list};
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::format::pack::Directory;
use crate::format::record;
use crate::format::segment::PackEntry;
use crate::format::snapshot::{Snapshot, SnapshotSummary};
use crate::format::tree::{FileContent, Hole, Metadata, Node, NodeKind, Timestamp, Tree, TreePart};
use crate::ids::{BlobId, SnapshotId};
use crate::monitor::Silent;
use crate::repo::{Environment, InitOptions, Repository, RepositoryError};
use crate::store::{BlobWriter, PackStore, StoreOptions};

pub(super) const KDF: KdfParams = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };

pub(super) fn environment(seed: u64) -> Environment {
    Environment {
        entropy: Arc::new(SeededEntropy::new(seed)),
        now: Arc::new(|| Timestamp { seconds: 1_000_000, nanos: 0 }),
        uptime: Arc::new(std::time::Duration::default),
        host: "host".into(),
        user: "user".into(),
        program: "strongroom test".into(),
    }
}

pub(super) fn password() -> Password {
    Password::new(b"password".to_vec())
}

/// An empty repository.
pub(super) fn init(backend: Arc<dyn Backend>, seed: u64) -> Repository {
    let options = InitOptions { kdf: KDF, label: "first".into(), parity: None, reserve: None };
    Repository::init(backend, &password(), &options, environment(seed)).expect("a new repository")
}

pub(super) fn open(backend: &MemoryBackend) -> Result<Repository, RepositoryError> {
    Repository::open(Arc::new(backend.clone()), &password(), environment(99))
}

/// A check that reads everything, on one thread.
pub(super) fn check_all(repository: &Repository) -> CheckReport {
    let options =
        CheckOptions { read_data: ReadData::All, threads: 1, memory: 1 << 20, ..CheckOptions::default() };
    run(repository, &options, &Silent).expect("the check can be made")
}

/// Stores blobs and commits them.
pub(super) struct Builder<'a> {
    repository: &'a Repository,
    stores: [PackStore; 2],
    writers: [BlobWriter; 2],
    snapshots: Vec<Change>,
}

impl<'a> Builder<'a> {
    pub fn new(repository: &'a Repository) -> Self {
        let options = StoreOptions { verify: false, ..StoreOptions::new(3, 1, 160 << 20) };
        let stores = [ObjectKind::DataPack, ObjectKind::MetadataPack]
            .map(|kind| repository.pack_store(kind, &options));
        let writers = [stores[0].writer(), stores[1].writer()];
        Self { repository, stores, writers, snapshots: Vec::new() }
    }

    pub fn put(&mut self, kind: BlobKind, bytes: &[u8]) -> BlobId {
        let id = self.repository.keys().blob_id(kind, bytes);
        self.put_as(kind, id, bytes);
        id
    }

    /// Stores bytes under an id that need not be theirs.
    pub fn put_as(&mut self, kind: BlobKind, id: BlobId, bytes: &[u8]) {
        let writer = &mut self.writers[usize::from(kind != BlobKind::Data)];
        writer.put(kind, id, bytes, true).expect("stored");
    }

    pub fn chunk(&mut self, bytes: &[u8]) -> Chunk {
        Chunk { id: self.put(BlobKind::Data, bytes), len: bytes.len() as u32 }
    }

    /// Ends the open block of data, so that the next chunk begins another.
    pub fn next_block(&mut self) {
        self.writers[0].flush().expect("stored");
    }

    pub fn tree(&mut self, tree: &Tree) -> BlobId {
        self.put(BlobKind::Tree, &record::encode(tree))
    }

    pub fn directory(&mut self, nodes: Vec<Node>) -> BlobId {
        self.tree(&Tree::Nodes(nodes))
    }

    pub fn list(&mut self, depth: u8, chunks: Vec<u8>, bytes: u64) -> ListRef {
        let list = ChunkList { depth, chunks: ByteBuf::from(chunks) };
        ListRef { id: self.put(BlobKind::Tree, &record::encode(&list)), bytes }
    }

    pub fn snapshot(&mut self, tree: BlobId) -> SnapshotId {
        let record = record::encode(&snapshot(tree));
        let id = SnapshotId::new(self.put(BlobKind::Snapshot, &record));
        self.snapshots.push(Change::SnapshotAdded { snapshot: id, record: ByteBuf::from(record) });
        id
    }

    /// Names a snapshot in the commit without storing its record.
    pub fn snapshot_without_blob(&mut self, tree: BlobId) -> SnapshotId {
        let record = record::encode(&snapshot(tree));
        let id = SnapshotId::new(self.repository.keys().blob_id(BlobKind::Snapshot, &record));
        self.snapshots.push(Change::SnapshotAdded { snapshot: id, record: ByteBuf::from(record) });
        id
    }

    pub fn commit(self) -> Vec<(PackEntry, Directory)> {
        self.commit_as(|_| {})
    }

    /// Commits after changing what the segment will say.
    pub fn commit_as(
        mut self,
        change: impl FnOnce(&mut Vec<(PackEntry, Directory)>),
    ) -> Vec<(PackEntry, Directory)> {
        let mut packs = Vec::new();
        for (writer, store) in self.writers.iter_mut().zip(&self.stores) {
            writer.flush().expect("stored");
            packs.extend(store.finish().expect("stored"));
        }
        let stored = packs.clone();
        change(&mut packs);
        let segment = self.repository.store_segment(&packs).expect("stored");
        let mut changes = vec![Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() }];
        changes.append(&mut self.snapshots);
        self.repository.commit(&mut |_| Ok(changes.clone())).expect("committed");
        stored
    }
}

fn snapshot(tree: BlobId) -> Snapshot {
    Snapshot {
        time: Timestamp::default(),
        hostname: "host".into(),
        username: "user".into(),
        paths: vec![ByteBuf::from("/data")],
        tree,
        tags: Vec::new(),
        parent: None,
        partial: false,
        repaired: None,
        origin: None,
        provenance: None,
        excludes: Vec::new(),
        program: "strongroom test".into(),
        summary: SnapshotSummary::default(),
    }
}

pub(super) fn node(name: &str, kind: NodeKind) -> Node {
    Node { name: ByteBuf::from(name), kind, metadata: Metadata { mode: 0o644, ..Metadata::default() } }
}

pub(super) fn directory(name: &str, tree: BlobId) -> Node {
    node(name, NodeKind::Directory { tree })
}

pub(super) fn file(name: &str, chunks: &[Chunk]) -> Node {
    let mut table = Vec::new();
    chunks.iter().for_each(|chunk| push_chunk(&mut table, *chunk));
    let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    node(name, NodeKind::File(FileContent { size, chunks: ByteBuf::from(table), ..FileContent::default() }))
}

/// Bytes that do not compress to nothing.
pub(super) fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A repository with everything that one can have.
pub(super) struct Sample {
    pub backend: MemoryBackend,
    pub repository: Repository,
    pub snapshots: [SnapshotId; 2],
    /// Packs in the order data, metadata, of both backups.
    pub packs: Vec<(PackEntry, Directory)>,
}

impl Sample {
    /// Keys of all objects of a folder.
    pub fn keys(&self, folder: &str) -> Vec<ObjectKey> {
        let objects = self.backend.objects().into_iter().map(|(key, _)| key);
        objects.filter(|key| key.as_str().starts_with(folder)).collect()
    }

    /// Key of pack `at` of [`Sample::packs`].
    pub fn pack(&self, at: usize) -> ObjectKey {
        ObjectKey::pack(&self.packs[at].0.id)
    }
}

/// Four commits, two keyslots, two states, two backups of a pack of each kind. The trees have a split directory,
/// a nested chunk list and holes; the second backup shares all but one file with the first.
pub(super) fn sample() -> Sample {
    sample_of(1)
}

/// The like of [`sample`], with other secrets.
pub(super) fn sample_of(seed: u64) -> Sample {
    let backend = MemoryBackend::new();
    let repository = init(Arc::new(backend.clone()), seed);
    repository.add_keyslot(&Password::new(b"other".to_vec()), "second", KDF).expect("added");
    store_state(&repository);
    let mut first = Builder::new(&repository);
    let (one, two) = (first.chunk(&bytes(1, 300)), first.chunk(&bytes(2, 200)));
    first.next_block();
    let three = first.chunk(&bytes(3, 100));
    let link = node("link", NodeKind::Symlink { target: ByteBuf::from("a") });
    let docs = first.directory(vec![file("a", &[one, two]), file("b", &[three]), link]);
    let many = split_directory(&mut first, three);
    let large = nested_file(&mut first, "large", &[one, two]);
    let root = vec![directory("docs", docs), large, directory("many", many)];
    let root_tree = first.directory(root.clone());
    let first_snapshot = first.snapshot(root_tree);
    let mut packs = first.commit();
    let mut second = Builder::new(&repository);
    let four = second.chunk(&bytes(4, 150));
    let mut root = root;
    root.push(file("new", &[four, one]));
    let root_tree = second.directory(root);
    let second_snapshot = second.snapshot(root_tree);
    packs.extend(second.commit());
    store_state(&repository);
    Sample { backend, repository, snapshots: [first_snapshot, second_snapshot], packs }
}

fn split_directory(builder: &mut Builder<'_>, chunk: Chunk) -> BlobId {
    let parts = [["m1", "m2"], ["m3", "m4"]].map(|names| {
        let tree = builder.directory(names.iter().map(|name| file(name, &[chunk])).collect());
        TreePart { first: ByteBuf::from(names[0]), entries: 2, tree }
    });
    builder.tree(&Tree::Parts(parts.to_vec()))
}

fn nested_file(builder: &mut Builder<'_>, name: &str, chunks: &[Chunk]) -> Node {
    let (mut table, mut bytes) = (Vec::new(), 0);
    for chunk in chunks {
        let mut leaf = Vec::new();
        push_chunk(&mut leaf, *chunk);
        push_list(&mut table, builder.list(0, leaf, u64::from(chunk.len)));
        bytes += u64::from(chunk.len);
    }
    let holes = vec![Hole { offset: 10, length: 1000 }, Hole { offset: 1200, length: 1 }];
    let size = bytes + 1001;
    let chunks = ByteBuf::from(table);
    node(name, NodeKind::File(FileContent { size, depth: 1, chunks, holes, ..FileContent::default() }))
}

/// Stores a state of all that was committed so far.
pub(crate) fn store_state(repository: &Repository) {
    let fold = repository.fold();
    let object = record::seal_object(ObjectKind::State, &fold.to_state(), &repository.sealer()).unwrap();
    repository.backend().create(&ObjectKey::state(fold.seq()), &object).expect("stored");
}
