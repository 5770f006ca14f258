//! What there is when a simulation begins, what is backed up, and the commonest commands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use strongroom::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use strongroom::backup::{self, BackupError, BackupOptions, BackupReport, BackupSource};
use strongroom::check::{self, CheckOptions, CheckReport, ReadData};
use strongroom::crypto::keys::BlobKind;
use strongroom::crypto::{Password, SeededEntropy};
use strongroom::forget::policy::GroupBy;
use strongroom::forget::{self, ForgetError, ForgetOptions, Guards, Selection, Wish};
use strongroom::format::commit::Change;
use strongroom::format::pack::{Directory, DirectoryBlob, DirectoryBlock};
use strongroom::format::segment::{IndexEntry, PackEntry};
use strongroom::format::snapshot::Snapshot;
use strongroom::format::tree::Timestamp;
use strongroom::ids::{PackId, SnapshotId};
use strongroom::monitor::{Monitor, Problem, Silent};
use strongroom::parity::{self, AddOptions};
use strongroom::prune::{self, Limit, PruneError, PruneOptions, PruneReport};
use strongroom::repo::{Environment, Repository, RepositoryError};
use strongroom::restore::{self, RestoreOptions};
use strongroom::source::FilterOptions;
use strongroom::testing::{self, NoCalendar};

/// Backups of all seeds in this process that took over what nobody had listed.
pub static ADOPTIONS: AtomicU64 = AtomicU64::new(0);

/// Counts them.
struct Adoptions;

impl Monitor for Adoptions {
    fn problem(&self, problem: &Problem) {
        if problem.code == "packs-adopted" {
            ADOPTIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What can be backed up: streams that have parts in common, so that backups rely on each other's packs.
pub const CONTENTS: usize = 10;

/// What a stream holds.
pub fn content(number: usize) -> &'static [u8] {
    static CONTENT: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let part = |number: usize| noise(number as u64, 30_000);
        (0..CONTENTS).map(|at| [part(at), part(at / 2 + 100), part(at % 3 + 200)].concat()).collect()
    });
    &CONTENT[number]
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    strongroom::crypto::Entropy::fill(&SeededEntropy::new(seed), &mut bytes);
    bytes
}

/// Directories that can be backed up.
pub const DIRECTORIES: usize = 4;

type Files = BTreeMap<String, Vec<u8>>;

/// A directory on a real disk, and what is in it.
fn directory(number: usize) -> (PathBuf, &'static Files) {
    static MADE: LazyLock<(tempfile::TempDir, Vec<Files>)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let all = (0..DIRECTORIES).map(|number| {
            let file = |at: usize| {
                let sub = ["", "a/", "b/", "b/c/"][at % 4];
                (
                    format!("{sub}f{at}"),
                    noise(300 + (at + number * at.is_multiple_of(3) as usize) as u64, 9_000),
                )
            };
            let files: Files = (0..6).map(file).collect();
            for (name, bytes) in &files {
                let path = folder.path().join(format!("d{number}")).join(name);
                fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
                fs::write(path, bytes).expect("a file");
            }
            files
        });
        let all = all.collect();
        (folder, all)
    });
    (MADE.0.path().join(format!("d{number}")), &MADE.1[number])
}

/// A process's surroundings. Its clock may be years off, and ticks once for each question.
pub fn environment(seed: u64, process: usize, skew: i64) -> Environment {
    let clock = AtomicI64::new(1_700_000_000 + skew);
    Environment {
        entropy: Arc::new(SeededEntropy::new(seed.wrapping_mul(1000) + process as u64)),
        now: Arc::new(move || Timestamp { seconds: clock.fetch_add(1, Ordering::Relaxed), nanos: 0 }),
        uptime: Arc::new(Duration::default),
        host: format!("host{process}"),
        user: "user".into(),
        program: "simulation".into(),
    }
}

/// Backs a stream up.
pub fn back_up(repository: &Repository, number: usize) -> Result<BackupReport, BackupError> {
    let source = BackupSource::Stream {
        name: format!("c{number}").into_bytes(),
        reader: Box::new(Cursor::new(content(number))),
        finish: Box::new(|| Ok(())),
    };
    // Every other one is too long to be read again.
    let kept = if number.is_multiple_of(2) { 0 } else { options().stream_kept };
    backup::run(repository, source, &BackupOptions { stream_kept: kept, ..options() }, &Adoptions)
}

/// Backs a directory up, with partial snapshots as often as they are possible.
pub fn back_up_directory(repository: &Repository, number: usize) -> Result<BackupReport, BackupError> {
    let paths = vec![directory(number).0];
    let source = BackupSource::Paths { paths, filter: FilterOptions::default() };
    backup::run(repository, source, &BackupOptions { partial_every: Duration::ZERO, ..options() }, &Adoptions)
}

fn options() -> BackupOptions {
    BackupOptions { threads: 1, level: 1, ..BackupOptions::default() }
}

/// Forgets a snapshot by its id.
pub fn forget(repository: &Repository, snapshot: SnapshotId) -> Result<(), ForgetError> {
    let options = ForgetOptions {
        wish: Wish::Named(vec![snapshot]),
        selection: Selection::default(),
        group_by: GroupBy::default(),
        guards: Guards { allow_empty: true, allow_newest: true, allow_mass: true, trust_times: true },
        dry_run: false,
        reason: "simulated".into(),
    };
    forget::run(repository, &options, &NoCalendar).map(|_| ())
}

/// Prunes all that is not needed.
pub fn prune(repository: &Repository, grace: Duration) -> Result<PruneReport, PruneError> {
    let options =
        PruneOptions { grace, max_unused: Limit::Bytes(0), threads: 1, level: 1, ..PruneOptions::default() };
    prune::run(repository, &options, &Silent)
}

/// Checks, and reads everything and takes note of that if it is wanted.
pub fn check(repository: &Repository, is_deep: bool) -> Result<CheckReport, RepositoryError> {
    let read_data = if is_deep { ReadData::All } else { ReadData::No };
    let options =
        CheckOptions { read_data, record: is_deep, threads: 1, memory: 16 << 20, ..CheckOptions::default() };
    check::run(repository, &options, &Silent)
}

/// Restores a snapshot and compares what came of it with what was backed up.
pub fn restore(repository: &Repository, snapshot: &Snapshot) -> Result<(), String> {
    let path = String::from_utf8_lossy(&snapshot.paths[0]).into_owned();
    let expected: Files = match number_of(&path, "c") {
        Some(number) => BTreeMap::from([(format!("c{number}"), content(number).to_vec())]),
        None => directory(number_of(&path, "d").expect("all are called something")).1.clone(),
    };
    let root = if path.rfind('/') == Some(0) { "" } else { &path };
    let target = tempfile::tempdir().expect("a folder");
    let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
    let report = restore::run(repository, snapshot, root.as_bytes(), target.path(), &options, &Silent)
        .map_err(|error| error.to_string())?;
    if report.errors > 0 {
        return Err(format!("{} errors", report.errors));
    }
    let mut found = 0;
    for (name, bytes) in &expected {
        match fs::read(target.path().join(name)) {
            Ok(restored) if restored == *bytes => found += 1,
            // Not all is in a partial snapshot.
            Err(_) if snapshot.partial => {}
            other => {
                panic!("{path}: {name} restores to something else: {:?}", other.map(|bytes| bytes.len()))
            }
        }
    }
    if found == 0 { Err("nothing was restored".into()) } else { Ok(()) }
}

/// The number in a name that ends with `letter` and a number.
pub fn number_of(path: &str, letter: &str) -> Option<usize> {
    path.rsplit('/').next()?.strip_prefix(letter)?.parse().ok()
}

/// Whose password a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Somebody who may do everything.
    Full,
    /// A host that may only add, and is honest.
    Appender,
    /// One with another such password, who is not.
    Liar,
}

/// A repository to begin with.
pub struct Beginning {
    pub name: &'static str,
    /// Others than full writers have passwords, too.
    pub has_appenders: bool,
    /// Only for those who hold snapshots, or look for lost ones.
    pub is_for_upkeep: bool,
    /// Snapshots that are held.
    pub held: Vec<SnapshotId>,
    storage: MemoryBackend,
}

impl Beginning {
    /// A storage of its own for a simulation.
    pub fn storage(&self) -> MemoryBackend {
        self.storage.snapshot()
    }

    /// How many entries its log has.
    pub fn commits(&self) -> u64 {
        let is_commit = |(key, _): &(ObjectKey, _)| key.folder() == Some(Folder::Log);
        self.storage.objects().iter().filter(|object| is_commit(object)).count() as u64
    }
}

/// Repositories, opened with each of the passwords there are.
struct Hands {
    full: Repository,
    appender: Repository,
    liar: Repository,
}

/// Makes two append-only passwords, and opens the repository with them.
fn admit(storage: &MemoryBackend, repository: &Repository) -> [Repository; 2] {
    [4, 5].map(|process| {
        let password = Password::new(format!("appender {process}").into_bytes());
        repository.add_append_only_keyslot(&password, "appender", testing::CHEAP).expect("added");
        Repository::open(Arc::new(storage.clone()), &password, environment(0, process, 0)).expect("it opens")
    })
}

static MADE: LazyLock<(Hands, Vec<Beginning>)> = LazyLock::new(|| {
    let storage = MemoryBackend::new();
    let first = testing::init(Arc::new(storage.clone()), 0);
    let mut beginnings = Vec::new();
    let mut add = |name, storage: &MemoryBackend, has_appenders| {
        let storage = storage.snapshot();
        beginnings.push(Beginning { name, has_appenders, is_for_upkeep: false, held: Vec::new(), storage });
    };
    let open = |storage: &MemoryBackend, process: usize| {
        first.open_again(Arc::new(storage.clone()), environment(0, process, 0)).expect("it opens")
    };
    add("empty", &storage, false);

    // What a forgotten snapshot leaves behind is there to be relied on.
    let repository = open(&storage, 1);
    let old = back_up(&repository, 0).expect("backed up").snapshot.expect("a snapshot");
    back_up(&repository, 1).expect("backed up");
    forget(&repository, old).expect("forgotten");
    add("one forgotten", &storage, false);
    let one_forgotten = storage.snapshot();
    prune(&repository, Duration::from_secs(3600)).expect("pruned");
    add("one condemned", &storage, false);

    let storage = one_forgotten.snapshot();
    parity::add(&open(&storage, 3), &AddOptions { threads: 1, ..AddOptions::default() }, &Silent)
        .expect("added");
    add("one forgotten, with parity", &storage, false);

    let storage = one_forgotten.snapshot();
    let [appender, liar] = admit(&storage, &open(&storage, 6));
    add("one forgotten, with appenders", &storage, true);
    back_up(&appender, 3).expect("backed up");
    lie(&liar).expect("added");
    add("appenders were at work", &storage, true);

    let storage = one_forgotten.snapshot();
    let repository = open(&storage, 7);
    let held_for_long = back_up(&repository, 4).expect("backed up").snapshot.expect("a snapshot");
    forget::hold(&repository, held_for_long, "wanted").expect("held");
    let one_held = storage.snapshot();

    // Whoever backed this up ended when all was stored.
    let storage = one_forgotten.snapshot();
    let repository = open(&storage, 8);
    let before = repository.fold().seq();
    back_up(&repository, 6).expect("backed up");
    (before + 1..=repository.fold().seq()).rev().for_each(|seq| {
        storage.delete(&ObjectKey::log(seq)).expect("deleted");
    });
    let not_committed = storage.snapshot();

    // The next backup merges segments and writes a state, and an old state goes.
    let storage = one_forgotten;
    let repository = open(&storage, 2);
    back_up(&repository, 2).expect("backed up");
    let held = repository.snapshots().expect("readable")[0].0;
    while repository.fold().seq() < 94 {
        forget::hold(&repository, held, "to be counted").expect("held");
        forget::release(&repository, held, "counted").expect("released");
    }
    add("many commits", &storage, false);
    let for_upkeep =
        |name, held, storage| Beginning { name, has_appenders: false, is_for_upkeep: true, held, storage };
    beginnings.push(for_upkeep("one held", vec![held_for_long], one_held));
    beginnings.push(for_upkeep("one not committed", Vec::new(), not_committed));
    (Hands { full: first, appender, liar }, beginnings)
});

/// Repositories to begin with.
pub fn beginnings() -> &'static [Beginning] {
    &MADE.1
}

/// Opens a repository as a new process does.
pub fn open(
    backend: Arc<dyn Backend>,
    environment: Environment,
    who: Who,
) -> Result<Repository, RepositoryError> {
    let hands = &MADE.0;
    let hand = match who {
        Who::Full => &hands.full,
        Who::Appender => &hands.appender,
        Who::Liar => &hands.liar,
    };
    hand.open_again(backend, environment)
}

/// Says that everything is where something else is, and some of it in a pack that never was.
pub fn lie(repository: &Repository) -> Result<(), RepositoryError> {
    let (mut packs, mut entries) = (Vec::new(), Vec::new());
    for segment in repository.index().segments().iter() {
        let known = packs.len();
        for pack in segment.packs() {
            packs.push(pack?);
        }
        for entry in segment.entries() {
            let entry = entry?;
            entries.push((known + entry.pack as usize, entry));
        }
    }
    let Some(first) = packs.first().copied() else { return Ok(()) };
    packs.push(PackEntry { id: PackId::from_bytes(first.id.as_bytes().map(|byte| !byte)), ..first });
    let listed: Vec<(PackEntry, Directory)> = (0..packs.len())
        .filter_map(|at| {
            let span = entries.iter().find(|(pack, _)| *pack == at).or(entries.first())?.1.block;
            let mut seen = BTreeSet::new();
            let elsewhere = entries.iter().filter(|(pack, entry)| *pack != at && seen.insert(entry.id));
            let blob = |(_, entry): &(usize, IndexEntry)| DirectoryBlob {
                id: entry.id,
                kind: BlobKind::Data,
                offset: 0,
                len: entry.len,
            };
            let blobs: Vec<DirectoryBlob> = elsewhere.map(blob).collect();
            let count = u32::try_from(blobs.len()).expect("few");
            let directory = Directory { blocks: vec![DirectoryBlock { span, blobs }] };
            (count > 0).then_some((PackEntry { blobs: count, ..packs[at] }, directory))
        })
        .collect();
    let segment = repository.store_segment(&listed)?;
    let added = Change::SegmentsReplaced { added: vec![segment.info], removed: Vec::new() };
    // One that a prune took for a stray meanwhile would stop all prunes after it, until somebody makes the index anew.
    let is_dropped = || repository.is_segment_gone(&segment.info.segment);
    repository.commit(&mut |_| Ok(if is_dropped() { Vec::new() } else { vec![added.clone()] })).map(drop)
}
