//! Backups of real directories into memory, looked at through the snapshot.

mod broken_off;
mod entries;
mod growing;
mod streams;
mod unchanged;

use super::assemble::file_node;
use super::files::{Content, FileError, Stream, fill_from};
use super::*;
use crate::backend::testing::{Call, Fault, FaultBackend, Operation, RecordingBackend};
use crate::backend::{Backend, Folder, LocalBackend, MemoryBackend, ObjectKey};
use crate::browse;
use crate::format::chunk_list;
use crate::format::header::{Header, ObjectKind};
use crate::format::tree::{FileContent, Grain, Hole, Metadata, Node, NodeKind};
use crate::ids::SnapshotId;
use crate::monitor::{Problem, Silent};
use crate::source::Spill;
use crate::testing;
use rustix::fs::inotify;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A stream that nobody keeps.
struct ReadContent<R>(R);

impl<R: io::Read> Content for ReadContent<R> {
    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        fill_from(&mut self.0, buffer)
    }
}

fn repository() -> Repository {
    testing::init(Arc::new(MemoryBackend::new()), 1)
}

fn options() -> BackupOptions {
    BackupOptions { threads: 2, ..BackupOptions::default() }
}

fn paths(path: &Path) -> BackupSource {
    BackupSource::Paths { paths: vec![path.to_owned()], filter: FilterOptions::default() }
}

fn back_up(repository: &Repository, path: &Path) -> BackupReport {
    run(repository, paths(path), &options(), &Silent).unwrap()
}

/// Does `act` until nothing above `path` changed meanwhile: the directories on the way to a root are part of a snapshot, and other
/// tests make their folders in one of them.
fn undisturbed<T>(path: &Path, mut act: impl FnMut() -> T) -> T {
    use std::os::unix::fs::MetadataExt;
    let above = || -> Vec<_> {
        let state =
            |path: &Path| fs::metadata(path).map(|state| (state.ctime(), state.ctime_nsec())).unwrap();
        path.ancestors().skip(1).map(state).collect()
    };
    (0..100)
        .find_map(|_| {
            let before = above();
            let done = act();
            (above() == before).then_some(done)
        })
        .expect("the folders above are not always changed")
}

/// A folder in a place where hardly anybody else makes any, nor in the folders above it: in shared memory, if there is some.
fn aside() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| {
        let program = std::env::current_exe().unwrap();
        tempfile::tempdir_in(program.parent().unwrap()).unwrap()
    })
}

/// Which files are opened in some directories.
struct Opened(rustix::fd::OwnedFd);

impl Opened {
    /// In none yet.
    fn new() -> Self {
        use inotify::CreateFlags;
        Self(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap())
    }

    fn watch(&self, directory: &Path) {
        inotify::add_watch(&self.0, directory, inotify::WatchFlags::OPEN).unwrap();
    }

    /// The names of files opened since this was asked last.
    fn files(&self) -> Vec<String> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut files = Vec::new();
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(inotify::ReadFlags::ISDIR) => {}
                Ok(event) => files.extend(event.file_name().map(|name| name.to_string_lossy().into_owned())),
                Err(rustix::io::Errno::AGAIN) => return files,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Packs that hold data.
fn data_packs(storage: &MemoryBackend) -> Vec<ObjectKey> {
    let is_data = |bytes: &[u8]| Header::decode(bytes, ObjectKind::DataPack).is_ok();
    storage.objects().into_iter().filter(|(_, bytes)| is_data(bytes)).map(|(key, _)| key).collect()
}

/// The folders of the objects that were created.
fn created(calls: &[Call]) -> Vec<Folder> {
    calls.iter().filter(|call| call.operation == Operation::Create).filter_map(|call| call.folder).collect()
}

/// All entries below `path` in a snapshot, by path relative to it.
fn entries(repository: &Repository, snapshot: SnapshotId, path: &Path) -> BTreeMap<String, Node> {
    let (_, snapshot) = repository.find_snapshot(&snapshot.to_string()).unwrap();
    let found = browse::find(repository.reader(), &snapshot.tree, path.as_os_str().as_bytes()).unwrap();
    let mut entries = BTreeMap::new();
    browse::list(repository.reader(), &found.tree().unwrap(), b"", true, &mut |path, node| {
        entries.insert(String::from_utf8_lossy(&path[1..]).into_owned(), node.clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    entries
}

/// The content of a file as its chunks and holes give it.
fn content(repository: &Repository, node: &Node) -> Vec<u8> {
    use crate::crypto::keys::BlobKind;
    let NodeKind::File(file) = &node.kind else { panic!("not a file: {node:?}") };
    let mut tables = vec![(file.depth, file.chunks.to_vec())];
    let mut data = Vec::new();
    while let Some((depth, table)) = tables.pop() {
        if depth == 0 {
            for chunk in chunk_list::chunks(&table).unwrap() {
                let chunk = chunk.unwrap();
                let bytes = repository.reader().read(BlobKind::Data, &chunk.id).unwrap();
                assert_eq!(bytes.len(), chunk.len as usize);
                data.extend(bytes);
            }
            continue;
        }
        let lists: Vec<_> = chunk_list::lists(&table).unwrap().map(Result::unwrap).collect();
        for list in lists.into_iter().rev() {
            let bytes = repository.reader().read(BlobKind::Tree, &list.id).unwrap();
            let list: chunk_list::ChunkList = crate::format::record::decode(&bytes).unwrap();
            tables.push((list.depth, list.chunks.to_vec()));
        }
    }
    for hole in &file.holes {
        let at = hole.offset as usize;
        data.splice(at..at, std::iter::repeat_n(0, hole.length as usize));
    }
    assert_eq!(data.len() as u64, file.size);
    data
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

/// Cancels after a number of entries.
struct CancelAfter {
    entries: AtomicU64,
    cancelled: AtomicBool,
}

impl Monitor for CancelAfter {
    fn entry(&self, _: &[u8], _: crate::monitor::EntryAction) {
        if self.entries.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
    fn wants_entries(&self) -> bool {
        true
    }
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Collect(std::sync::Mutex<Vec<Problem>>);

impl Monitor for Collect {
    fn problem(&self, problem: &Problem) {
        self.0.lock().unwrap().push(problem.clone());
    }
}

/// A tree of many directories with files of all sorts of lengths, some equal.
fn varied(root: &Path) {
    for n in 0..400u32 {
        let place = root.join(format!("a{}/b{}/c{}", n % 3, n % 7, n % 11));
        fs::create_dir_all(&place).unwrap();
        let len = [0, 1, 900, 20_000, 90_000, 300_000][n as usize % 6];
        fs::write(place.join(format!("f{n}")), noise((n % 100) as u8, len)).unwrap();
    }
    fs::write(root.join("large"), noise(200, 11 << 20)).unwrap();
    symlink("large", root.join("link")).unwrap();
}

/// Limits of a run that looks at so many entries at once and sorts so many names at once.
fn limits(window_len: usize, run_len: usize) -> ScanLimits {
    ScanLimits { window_len, spill: Spill { place: Some(std::env::temp_dir()), run_len } }
}

/// One directory with so many files, and other entries between them.
fn large(root: &Path, files: usize) {
    for n in 0..files {
        fs::write(root.join(format!("f{n:05}")), if n % 7 == 0 { n.to_string() } else { String::new() })
            .unwrap();
    }
    for n in 0..40 {
        fs::create_dir(root.join(format!("f{n:03}50-dir"))).unwrap();
        fs::write(root.join(format!("f{n:03}50-dir/file")), n.to_string()).unwrap();
        symlink("nowhere", root.join(format!("f{n:03}70-link"))).unwrap();
    }
    fs::write(root.join("f00333-large"), noise(1, 5 << 20)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("f00444-pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    for n in 0..10 {
        fs::hard_link(root.join("f00007"), root.join(format!("f0{n}111-name"))).unwrap();
    }
}
