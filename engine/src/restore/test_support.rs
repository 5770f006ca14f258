//! Repositories and snapshots built by hand, honest and otherwise.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde_bytes::ByteBuf;

use super::{RestoreError, RestoreOptions, RestoreReport, run};
use crate::backend::{Backend, MemoryBackend};
use crate::crypto::keys::BlobKind;
use crate::crypto::{KdfParams, Password, SeededEntropy};
use crate::format::chunk_list::{self, Chunk, ChunkList, ListRef};
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::format::record;
use crate::format::snapshot::{Snapshot, SnapshotSummary};
use crate::format::tree::{FileContent, Hole, Metadata, Node, NodeKind, Timestamp, Tree};
use crate::ids::BlobId;
use crate::monitor::{EntryAction, Monitor, Problem};
use crate::repo::{Environment, InitOptions, Repository};
use crate::store::{BlobWriter, PackStore, StoreOptions};

/// A repository in the making.
pub(super) struct Builder {
    pub(super) backend: MemoryBackend,
    repository: Repository,
    data: (PackStore, BlobWriter),
    trees: (PackStore, BlobWriter),
    stored: HashSet<(BlobKind, BlobId)>,
}

/// A repository with a snapshot, and a directory for targets.
pub(super) struct Fixture {
    pub(super) backend: MemoryBackend,
    pub(super) repository: Repository,
    pub(super) snapshot: Snapshot,
    folder: tempfile::TempDir,
}

/// Remembers what it is told.
#[derive(Default)]
pub(super) struct Listener {
    pub(super) problems: Mutex<Vec<Problem>>,
    pub(super) entries: Mutex<Vec<(String, EntryAction)>>,
    /// Cancel when this has been asked so many times before.
    pub(super) cancels_after: Option<usize>,
    pub(super) asked: AtomicUsize,
}

impl Monitor for Listener {
    fn problem(&self, problem: &Problem) {
        self.problems.lock().unwrap().push(problem.clone());
    }

    fn entry(&self, path: &[u8], action: EntryAction) {
        self.entries.lock().unwrap().push((String::from_utf8_lossy(path).into_owned(), action));
    }

    fn wants_entries(&self) -> bool {
        true
    }

    fn is_cancelled(&self) -> bool {
        let asked = self.asked.fetch_add(1, Relaxed);
        self.cancels_after.is_some_and(|after| asked >= after)
    }
}

impl Listener {
    /// Problems as `code path: message`.
    pub(super) fn told(&self) -> Vec<String> {
        let problems = self.problems.lock().unwrap();
        let path = |problem: &Problem| {
            String::from_utf8_lossy(problem.path.as_deref().unwrap_or_default()).into_owned()
        };
        problems.iter().map(|p| format!("{} {}: {}", p.code, path(p), p.message)).collect()
    }
}

/// The time that all entries have that say nothing else.
pub(super) const TIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanos: 123_456_789 };

/// Metadata of an entry owned by whoever runs the test.
pub(super) fn metadata(mode: u32) -> Metadata {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Metadata { mode, uid, gid, mtime: TIME, inode: 1, ..Metadata::default() }
}

/// An entry.
pub(super) fn node(name: &str, kind: NodeKind) -> Node {
    let mode = if matches!(kind, NodeKind::Directory { .. }) { 0o755 } else { 0o644 };
    Node { name: ByteBuf::from(name.as_bytes()), kind, metadata: metadata(mode) }
}

/// Bytes that do not compress and differ by `seed`.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Builder {
    pub(super) fn new() -> Self {
        Self::with_packs_of(1 << 20)
    }

    /// With packs closed after `pack_len_target` bytes.
    pub(super) fn with_packs_of(pack_len_target: usize) -> Self {
        let backend = MemoryBackend::new();
        let environment = Environment {
            entropy: Arc::new(SeededEntropy::new(1)),
            now: Arc::new(|| TIME),
            uptime: Arc::new(std::time::Duration::default),
            host: "host".to_owned(),
            user: "user".to_owned(),
            program: "test".to_owned(),
        };
        let kdf =
            KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: KdfParams::PASSES_MIN, lanes: 1 };
        let options = InitOptions { kdf, ..InitOptions::default() };
        let password = Password::new(b"password".to_vec());
        let shared: Arc<dyn Backend> = Arc::new(backend.clone());
        let repository = Repository::init(Arc::clone(&shared), &password, &options, environment).unwrap();
        let store = |kind| {
            let options = StoreOptions {
                verify: false,
                block_len: 1 << 20,
                pack_len: pack_len_target,
                ..StoreOptions::new(1, 1, 160 << 20)
            };
            let store = repository.pack_store(kind, &options);
            let writer = store.writer();
            (store, writer)
        };
        let (data, trees) = (store(ObjectKind::DataPack), store(ObjectKind::MetadataPack));
        Self { backend, repository, data, trees, stored: HashSet::new() }
    }

    /// Stores a data blob.
    pub(super) fn chunk(&mut self, bytes: &[u8]) -> Chunk {
        let id = self.repository.keys().blob_id(BlobKind::Data, bytes);
        if self.stored.insert((BlobKind::Data, id)) {
            self.data.1.put(BlobKind::Data, id, bytes, true).unwrap();
        }
        Chunk { id, len: u32::try_from(bytes.len()).unwrap() }
    }

    /// Stores a blob of kind tree.
    pub(super) fn tree_blob(&mut self, bytes: &[u8]) -> BlobId {
        let id = self.repository.keys().blob_id(BlobKind::Tree, bytes);
        if self.stored.insert((BlobKind::Tree, id)) {
            self.trees.1.put(BlobKind::Tree, id, bytes, true).unwrap();
        }
        id
    }

    /// Stores a tree, whatever the order of its entries.
    pub(super) fn tree(&mut self, nodes: Vec<Node>) -> BlobId {
        self.tree_blob(&record::encode(&Tree::Nodes(nodes)))
    }

    /// Stores a part of a chunk table.
    pub(super) fn list(&mut self, depth: u8, table: Vec<u8>, bytes: u64) -> ListRef {
        let list = ChunkList { depth, chunks: ByteBuf::from(table) };
        ListRef { id: self.tree_blob(&record::encode(&list)), bytes }
    }

    /// The content of a file without holes, cut into chunks of at most `chunk_len` bytes.
    pub(super) fn content(&mut self, bytes: &[u8], chunk_len: usize) -> FileContent {
        let mut table = Vec::new();
        for part in bytes.chunks(chunk_len) {
            chunk_list::push_chunk(&mut table, self.chunk(part));
        }
        FileContent { size: bytes.len() as u64, chunks: ByteBuf::from(table), ..FileContent::default() }
    }

    /// A file.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8], chunk_len: usize) -> Node {
        let content = self.content(bytes, chunk_len);
        node(name, NodeKind::File(content))
    }

    /// A file of which `holes` read as zeros and `bytes` fill the rest, cut at holes and every 1000 bytes.
    pub(super) fn sparse(&mut self, name: &str, size: u64, holes: &[(u64, u64)], bytes: &[u8]) -> Node {
        let (mut table, mut at, mut rest) = (Vec::new(), 0, bytes);
        for (offset, length) in holes.iter().copied().chain([(u64::MAX, 0)]) {
            let room = usize::try_from(offset - at).unwrap_or(usize::MAX);
            let (part, after) = rest.split_at(room.min(rest.len()));
            part.chunks(1000).for_each(|chunk| chunk_list::push_chunk(&mut table, self.chunk(chunk)));
            (at, rest) = (offset + length, after);
        }
        let holes = holes.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect();
        let chunks = ByteBuf::from(table);
        node(name, NodeKind::File(FileContent { size, chunks, holes, ..FileContent::default() }))
    }

    /// A directory.
    pub(super) fn directory(&mut self, name: &str, nodes: Vec<Node>) -> Node {
        let tree = self.tree(nodes);
        node(name, NodeKind::Directory { tree })
    }

    /// Commits everything, with a snapshot of the root directory `nodes`.
    pub(super) fn finish(mut self, nodes: Vec<Node>) -> Fixture {
        let tree = self.tree(nodes);
        self.finish_tree(tree)
    }

    /// As [`Builder::finish`], with the root's tree.
    pub(super) fn finish_tree(mut self, tree: BlobId) -> Fixture {
        let mut packs = Vec::new();
        for (store, writer) in [&mut self.data, &mut self.trees] {
            writer.flush().unwrap();
            packs.extend(store.finish().unwrap());
        }
        let segment = self.repository.store_segment(&packs).unwrap();
        let change = Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() };
        self.repository.commit(&mut |_| Ok(vec![change.clone()])).unwrap();
        let snapshot = Snapshot {
            time: TIME,
            hostname: "host".to_owned(),
            username: "user".to_owned(),
            paths: Vec::new(),
            tree,
            tags: Vec::new(),
            parent: None,
            partial: false,
            repaired: None,
            origin: None,
            provenance: None,
            excludes: Vec::new(),
            program: "test".to_owned(),
            summary: SnapshotSummary::default(),
        };
        let folder = tempfile::tempdir().unwrap();
        Fixture { backend: self.backend, repository: self.repository, snapshot, folder }
    }
}

impl Fixture {
    /// A path beside or in the target, which is `target`.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(super) fn target(&self) -> PathBuf {
        self.at("target")
    }

    /// Restores `path` into the target.
    pub(super) fn try_restore(
        &self,
        path: &str,
        options: &RestoreOptions,
        listener: &Listener,
    ) -> Result<RestoreReport, RestoreError> {
        run(&self.repository, &self.snapshot, path.as_bytes(), &self.target(), options, listener)
    }

    /// Restores everything; gives the report and the problems.
    pub(super) fn restore(&self, options: &RestoreOptions) -> (RestoreReport, Vec<String>) {
        let listener = Listener::default();
        let report = self.try_restore("", options, &listener).unwrap();
        (report, listener.told())
    }

    /// Restores everything without a problem.
    pub(super) fn restore_well(&self, options: &RestoreOptions) -> RestoreReport {
        let (report, problems) = self.restore(options);
        assert_eq!(problems, [""; 0]);
        assert_eq!(report.errors, 0);
        report
    }

    /// Packs of data in the backend.
    pub(super) fn data_packs(&self) -> Vec<crate::backend::ObjectKey> {
        let objects = self.backend.objects();
        let is_data =
            |bytes: &[u8]| crate::format::header::Header::decode(bytes, ObjectKind::DataPack).is_ok();
        objects.into_iter().filter(|(_, bytes)| is_data(bytes)).map(|(key, _)| key).collect()
    }
}

/// Names of everything below `folder`, sorted, directories with a slash at the end.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in std::fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.symlink_metadata().unwrap().is_dir() {
                found.push(format!("{name}/"));
                pending.push(path);
            } else {
                found.push(name);
            }
        }
    }
    found.sort_unstable();
    found
}
