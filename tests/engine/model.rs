//! The model: random trees under random edits are backed up night after night, and every night's snapshot is restored
//! and compared with a plain copy made by `cp -a`.
//!
//! Each run follows from its seed. `STRONGROOM_MODEL_SEED=17` replays one, `STRONGROOM_MODEL_RUNS=500` runs that many.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use strongroom::backend::MemoryBackend;
use strongroom::backup::{self, BackupOptions, BackupSource, ParentChoice};
use strongroom::check::{self, CheckOptions, ReadData};
use strongroom::crypto::{KdfParams, Password, SeededEntropy};
use strongroom::format::tree::Timestamp;
use strongroom::monitor::{Monitor, Problem};
use strongroom::repo::{Environment, InitOptions, Repository};
use strongroom::restore::{self, RestoreOptions};
use strongroom::source::FilterOptions;

/// Runs by default.
const RUNS: u64 = 6;
const NIGHTS: usize = 4;

/// Nothing may go wrong.
struct Strict;

impl Monitor for Strict {
    fn problem(&self, problem: &Problem) {
        let path = String::from_utf8_lossy(problem.path.as_deref().unwrap_or_default()).into_owned();
        assert!(!problem.is_error, "{path}: {}", problem.message);
    }
}

/// Numbers that follow from a seed.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    /// Less than `bound`.
    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % bound as u64).expect("less than a usize")
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> Option<&'t T> {
        if from.is_empty() { None } else { Some(&from[self.below(from.len())]) }
    }

    /// Content of all sorts: nothing, a little, noise, repetition, and now and then more than a block.
    fn content(&mut self) -> Vec<u8> {
        let len = match self.below(10) {
            0 => 0,
            1..6 => self.below(3_000),
            6..9 => self.below(200_000),
            _ => self.below(3_000_000),
        };
        let mut bytes = vec![0; len];
        match self.below(3) {
            0 => self.0.fill(&mut bytes),
            1 => bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 97 % 251) as u8),
            _ => {
                let share = len / 2;
                self.0.fill(&mut bytes[share..]);
            }
        }
        if self.below(8) == 0 {
            let head = b"SQLite format 3\0";
            bytes.splice(0..head.len().min(len), head.iter().copied());
        }
        bytes
    }
}

/// Everything below a directory, itself left out, in order.
fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(root).expect("a directory").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let is_dir = path.is_dir() && !path.is_symlink();
        found.push(path.clone());
        if is_dir {
            found.extend(walk(&path));
        }
    }
    found
}

fn of_kind(root: &Path, is: fn(&fs::Metadata) -> bool) -> Vec<PathBuf> {
    walk(root).into_iter().filter(|path| is(&fs::symlink_metadata(path).expect("there"))).collect()
}

/// One random change of the tree.
fn edit(root: &Path, dice: &mut Dice) {
    let files = of_kind(root, fs::Metadata::is_file);
    let mut folders = of_kind(root, fs::Metadata::is_dir);
    folders.push(root.to_owned());
    let folder = dice.pick(&folders).expect("the root at least").clone();
    let new =
        folder.join(format!("{}-{}", ["a", "Z", "ü", "with space", "-rf"][dice.below(5)], dice.below(1_000)));
    if fs::symlink_metadata(&new).is_ok() {
        return;
    }
    match (dice.below(13), dice.pick(&files)) {
        (0..3, _) => fs::write(new, dice.content()).expect("a file"),
        (3, _) => fs::create_dir(new).expect("a folder"),
        (4, _) => symlink(format!("../{}", dice.below(100)), new).expect("a link"),
        (5, Some(file)) => fs::hard_link(file, new).expect("a second name"),
        (6, Some(file)) => fs::rename(file, new).expect("renamed"),
        (7, Some(file)) => fs::remove_file(file).expect("removed"),
        (8, Some(file)) => {
            // Some bytes in the middle: the size stays.
            let file = File::options().write(true).open(file).expect("a file");
            let len = file.metadata().expect("open").len();
            let at = dice.below(usize::try_from(len).expect("small") + 1) as u64;
            file.write_all_at(
                &dice.content()[..].iter().copied().take(((len - at) as usize).min(50)).collect::<Vec<_>>(),
                at,
            )
            .expect("written");
        }
        (9, Some(file)) => {
            // Longer by a hole and an end, or shorter.
            let file = File::options().write(true).open(file).expect("a file");
            let len = file.metadata().expect("open").len();
            if dice.below(2) == 0 {
                file.write_all_at(b"the end", len + dice.below(300_000) as u64).expect("written");
            } else {
                file.set_len(dice.below(usize::try_from(len).expect("small") + 1) as u64).expect("cut");
            }
        }
        (10, Some(file)) => {
            fs::set_permissions(file, Permissions::from_mode([0o600, 0o644, 0o755, 0o400][dice.below(4)]))
                .expect("a mode");
        }
        (11, Some(file)) => {
            let time = SystemTime::UNIX_EPOCH
                + Duration::new(dice.below(4_000_000_000) as u64, dice.below(1_000_000_000) as u32);
            // Opened for reading: the mode may forbid more.
            File::open(file).expect("a file").set_modified(time).expect("a time");
        }
        (12, _) if folder != root => {
            // A directory moves with all that is in it, or goes.
            if dice.below(3) == 0 {
                fs::remove_dir_all(&folder).expect("removed");
            } else {
                fs::rename(&folder, root.join(format!("moved-{}", dice.below(1_000_000)))).expect("moved");
            }
        }
        _ => {}
    }
}

/// What matters of a tree: by path, kind, mode, time, content, link text and the other names of the same file.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let row = |path: &PathBuf| {
        let meta = fs::symlink_metadata(path).expect("there");
        let relative = path.strip_prefix(root).expect("below").to_owned();
        let (kind, content) = if meta.is_dir() {
            ("dir", String::new())
        } else if meta.is_symlink() {
            ("link", fs::read_link(path).expect("a link").display().to_string())
        } else {
            ("file", blake3::hash(&fs::read(path).expect("a file")).to_string())
        };
        let same = match meta.nlink() {
            2.. if !meta.is_dir() => {
                first.entry(meta.ino()).or_insert_with(|| relative.clone()).display().to_string()
            }
            _ => String::new(),
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        let text = format!(
            "{kind} {mode:o} {}.{:09} {} {content} {same}",
            meta.mtime(),
            meta.mtime_nsec(),
            meta.len()
        );
        // The size of a directory is the file system's affair.
        let text = if meta.is_dir() {
            format!("{kind} {mode:o} {}.{:09}", meta.mtime(), meta.mtime_nsec())
        } else {
            text
        };
        (relative, text)
    };
    walk(root).iter().map(row).collect()
}

fn new_repository(seed: u64) -> Repository {
    let environment = Environment {
        entropy: Arc::new(SeededEntropy::new(seed)),
        now: Arc::new(Timestamp::default),
        uptime: Arc::new(Duration::default),
        host: "host".into(),
        user: "user".into(),
        program: "strongroom test".into(),
    };
    let kdf = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: KdfParams::PASSES_MIN, lanes: 1 };
    let options = InitOptions { kdf, ..InitOptions::default() };
    let password = Password::new(b"password".to_vec());
    Repository::init(Arc::new(MemoryBackend::new()), &password, &options, environment).expect("a repository")
}

fn run(seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().canonicalize().expect("there").join(name);
    let (source, mut dice) = (path("source"), Dice::new(seed));
    fs::create_dir(&source).expect("a folder");
    let repository = new_repository(seed);
    let mut nights = Vec::new();
    for night in 0..NIGHTS {
        for _ in 0..[40, 1, 15, 25][night % 4] {
            edit(&source, &mut dice);
        }
        let parent = if dice.below(5) == 0 { ParentChoice::None } else { ParentChoice::Automatic };
        let options = BackupOptions { parent, threads: 1 + dice.below(3), ..BackupOptions::default() };
        let what = BackupSource::Paths { paths: vec![source.clone()], filter: FilterOptions::default() };
        let report = backup::run(&repository, what, &options, &Strict).expect("backed up");
        assert!(report.is_complete(), "seed {seed}, night {night}: {report:?}");
        let copy = path(&format!("copy{night}"));
        let copied = Command::new("cp").arg("-a").arg(&source).arg(&copy).status().expect("cp is there");
        assert!(copied.success());
        nights.push((report.snapshot.expect("a snapshot"), copy));
    }
    // Every night into a directory of its own, and the nights after one another into one, in place.
    let in_place = path("in-place");
    for (night, (id, copy)) in nights.iter().enumerate() {
        let (_, snapshot) = repository.find_snapshot(&id.to_string()).expect("there");
        let fresh = path(&format!("restored{night}"));
        for (target, delete) in [(&fresh, false), (&in_place, true)] {
            let options = RestoreOptions { delete, threads: 1 + dice.below(3), ..RestoreOptions::default() };
            let what = source.to_str().expect("text").as_bytes();
            let report =
                restore::run(&repository, &snapshot, what, target, &options, &Strict).expect("restored");
            assert_eq!(report.errors, 0, "seed {seed}, night {night}");
            let (restored, original) = (describe(target), describe(copy));
            for path in restored.keys().chain(original.keys()) {
                assert_eq!(
                    restored.get(path),
                    original.get(path),
                    "seed {seed}, night {night}: {}",
                    path.display()
                );
            }
        }
    }
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check::run(&repository, &options, &Strict).expect("checked");
    assert!(!report.is_damaged(), "seed {seed}: {:?}", report.findings);
}

#[test]
fn random_trees_come_back_as_they_were_every_night() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("STRONGROOM_MODEL_SEED") {
        Some(seed) => run(seed),
        None => (0..number("STRONGROOM_MODEL_RUNS").unwrap_or(RUNS)).for_each(run),
    }
}
