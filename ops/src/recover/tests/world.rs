//! What recoveries work on, played: a snapshot, services, databases with names, a file system that fails or ends everything at a moment.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Zoned;
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;
use tempfile::TempDir;

use crate::drill::machine::Problem;
use crate::drill::{Compared, Restored};
use crate::plan::Plan;
use crate::plan::load::tests_support::plan;
use crate::plan::values::Name;
use crate::recover::preview::{Measurements, Refusal};
use crate::recover::{BESIDE, Disk, Held, Preview, Recoverer, RecoveryRecord, Source, SystemDisk, Wish};
use crate::run::process::{Ended, Order, ProcessError, Processes, Sink, Source as Output};
use crate::run::state::State;
use crate::run::vault::VaultError;
use crate::status::tests_support::{NOW, snapshot};

/// A domain with everything: a directory with an excluded part, a file, something that is not there, a database, a stream.
pub const PLAN: &str = "[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir', 'DIR/data/single', 'DIR/data/far/absent']\n\
    exclude = ['cache']\nsqlite = ['DIR/data/base.db']\n\
    recover = { stop = [['stop']], start = [['start']], health = [['healthy']], ready = { http = 'http://x/' } }\n\
    [[domain.stream]]\nname = 'dump'\ncommand = ['true']\nrestore = ['load', '${target}']\n\
    recover = { create = ['create', '${target}'], swap = ['swap', '${target}', '${old}'], undo = ['undo', '${target}', '${old}'], \
    swapped = ['swapped', '${old}'], drop = ['drop', '${target}'] }\n";

/// Counts what is done, and has one of these moments fail, or end everything as a kill would.
#[derive(Default)]
pub struct Ticks {
    count: AtomicUsize,
    fail: AtomicUsize,
    kill: AtomicUsize,
    come: AtomicUsize,
}

/// What a kill throws.
struct Killed;

impl Ticks {
    fn tick(&self) -> io::Result<()> {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if now == self.kill.load(Ordering::Relaxed) {
            self.come.store(1, Ordering::Relaxed);
            // Without a word, as a kill is.
            resume_unwind(Box::new(Killed));
        }
        if now == self.fail.load(Ordering::Relaxed) {
            self.come.store(1, Ordering::Relaxed);
            return Err(io::Error::other("it fails"));
        }
        Ok(())
    }

    pub fn fail_at(&self, moment: usize) {
        self.count.store(0, Ordering::Relaxed);
        self.fail.store(moment, Ordering::Relaxed);
    }

    pub fn has_come(&self) -> bool {
        self.come.load(Ordering::Relaxed) > 0
    }
}

pub struct PlayedDisk {
    pub has_exchange: bool,
    pub free: u64,
    pub mounts: Vec<PathBuf>,
    ticks: Arc<Ticks>,
}

impl PlayedDisk {
    /// A kill may come before it and after it.
    fn act(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.ticks.tick()?;
        act()?;
        if self.ticks.kill.load(Ordering::Relaxed) > 0 { self.ticks.tick() } else { Ok(()) }
    }
}

impl Disk for PlayedDisk {
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        match self.has_exchange {
            true => self.act(|| SystemDisk.exchange(one, other)),
            false => Err(rustix::io::Errno::INVAL.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act(|| SystemDisk.rename(from, to))
    }

    fn sync(&self, directory: &Path) -> io::Result<()> {
        self.ticks.tick()?;
        assert!(directory.is_dir());
        Ok(())
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free)
    }

    fn mounts(&self) -> io::Result<Vec<PathBuf>> {
        Ok(self.mounts.clone())
    }
}

/// Databases by name, and whether what uses them runs.
#[derive(Default)]
struct Machine {
    databases: BTreeMap<String, String>,
    running: bool,
    log: Vec<String>,
}

#[derive(Clone)]
struct Commands {
    machine: Arc<Mutex<Machine>>,
    ticks: Arc<Ticks>,
}

fn failed(program: &str) -> ProcessError {
    ProcessError::Failed { program: program.into(), status: "exit code 1".into(), output: String::new() }
}

impl Commands {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn play(&self, words: &[&str]) -> Option<Vec<u8>> {
        let mut machine = self.machine();
        let Machine { databases, running, .. } = &mut *machine;
        let mut renamed = |from: &str, to: &str| {
            assert!(!databases.contains_key(to), "{to} is taken");
            let found = databases.remove(from)?;
            databases.insert(to.into(), found)
        };
        match *words {
            ["fail"] => return None,
            ["print", word] => return Some(word.into()),
            ["stop"] => *running = false,
            ["start"] => *running = true,
            ["healthy"] if !*running => return None,
            ["create", name] => {
                if databases.contains_key(name) {
                    return None;
                }
                databases.insert(name.into(), String::new());
            }
            ["drop", name] => drop(databases.remove(name)?),
            ["swap", target, old] => {
                renamed("live", old);
                renamed(target, "live");
            }
            ["undo", target, old] => {
                renamed("live", target);
                renamed(old, "live");
            }
            ["swapped", old] => return Some(u8::from(databases.contains_key(old)).to_string().into()),
            _ => {}
        }
        Some(Vec::new())
    }
}

impl Processes for Commands {
    fn run(&self, order: &Order<'_>) -> Result<Ended, ProcessError> {
        let words: Vec<_> = order.argv.words().iter().map(String::as_str).collect();
        self.machine().log.push(words.join(" "));
        self.ticks.tick().map_err(|_| failed(words[0]))?;
        let stdout = self.play(&words).ok_or_else(|| failed(words[0]))?;
        if self.ticks.kill.load(Ordering::Relaxed) > 0 {
            self.ticks.tick().map_err(|_| failed(words[0]))?;
        }
        Ok(Ended { stdout })
    }

    fn source(&self, _: &Order<'_>) -> Result<Box<dyn Output>, ProcessError> {
        unreachable!("a recovery reads no output")
    }

    fn sink(&self, order: &Order<'_>) -> Result<Box<dyn Sink>, ProcessError> {
        let words = order.argv.words().to_vec();
        self.machine().log.push(words.join(" "));
        self.ticks.tick().map_err(|_| failed(&words[0]))?;
        Ok(Box::new(Loading { commands: self.clone(), name: words[1].clone(), bytes: Vec::new() }))
    }
}

struct Loading {
    commands: Commands,
    name: String,
    bytes: Vec<u8>,
}

impl Write for Loading {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Loading {
    fn finish(self: Box<Self>) -> Result<(), ProcessError> {
        self.commands.ticks.tick().map_err(|_| failed("load"))?;
        let text = String::from_utf8(self.bytes).expect("text");
        self.commands.machine().databases.insert(self.name, text);
        Ok(())
    }
}

/// One snapshot, in all repositories, with files by path.
pub struct PlayedSource {
    pub snapshots: BTreeMap<String, Vec<(SnapshotId, Snapshot)>>,
    pub down: Option<String>,
    pub is_damaged: bool,
    pub notes: RefCell<Vec<RecoveryRecord>>,
    files: BTreeMap<PathBuf, &'static str>,
    ticks: Arc<Ticks>,
}

impl PlayedSource {
    fn below<'s>(&'s self, path: &'s Path) -> impl Iterator<Item = (&'s Path, &'static str)> {
        self.files.iter().filter_map(move |(file, content)| Some((file.strip_prefix(path).ok()?, *content)))
    }

    fn held(&self, path: &Path) -> Option<Held> {
        let found: Vec<_> = self.below(path).collect();
        let bytes = found.iter().map(|(_, content)| content.len() as u64).sum();
        let is_directory = found.first().is_some_and(|(below, _)| !below.as_os_str().is_empty());
        (!found.is_empty()).then_some(Held { is_directory, files: found.len() as u64, bytes })
    }

    fn place(path: &Path, below: &Path, into: &Path) -> PathBuf {
        match below.as_os_str().is_empty() {
            true => into.join(path.file_name().expect("a name")),
            false => into.join(below),
        }
    }
}

impl Source for PlayedSource {
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        match self.down.as_deref() == Some(repo.as_str()) {
            true => Err(VaultError { code: "storage".into(), message: "it is down".into() }),
            false => Ok(self.snapshots.get(repo.as_str()).cloned().unwrap_or_default()),
        }
    }

    fn look(&self, _: &Name, _: &SnapshotId, path: &Path) -> Result<Option<Held>, VaultError> {
        Ok(self.held(path))
    }

    fn entries(&self, _: &Name, _: &SnapshotId, path: &Path) -> Result<Vec<(OsString, Held)>, VaultError> {
        let mut names: Vec<_> = self.below(path).filter_map(|(below, _)| below.iter().next()).collect();
        names.dedup();
        Ok(names
            .into_iter()
            .map(|name| (name.to_owned(), self.held(&path.join(name)).expect("there")))
            .collect())
    }

    fn stage(&self, _: &Name, _: &SnapshotId, path: &Path, into: &Path) -> Result<Restored, VaultError> {
        let down = |error: io::Error| VaultError { code: "storage".into(), message: error.to_string() };
        let mut restored = Restored::default();
        for (below, content) in self.below(path) {
            self.ticks.tick().map_err(down)?;
            let place = Self::place(path, below, into);
            fs::create_dir_all(place.parent().expect("a folder")).expect("made");
            fs::write(place, content).expect("written");
            restored.files += 1;
            restored.bytes += content.len() as u64;
        }
        if self.is_damaged && path.ends_with("dump") {
            restored.problem = Some(Problem { is_damage: true, message: "dump: a blob is damaged".into() });
        }
        Ok(restored)
    }

    fn compare(&self, _: &Name, _: &SnapshotId, path: &Path, into: &Path) -> Result<Compared, VaultError> {
        let mut compared = Compared::default();
        for (below, content) in self.below(path) {
            match fs::read_to_string(Self::place(path, below, into)).is_ok_and(|found| found == content) {
                true => compared.same += 1,
                false => compared.different += 1,
            }
        }
        Ok(compared)
    }

    fn note(&self, _: &Name, record: &RecoveryRecord) -> Result<(), VaultError> {
        self.notes.borrow_mut().push(record.clone());
        Ok(())
    }
}

/// Everything that there is.
pub struct World {
    folder: TempDir,
    pub plan: Plan,
    pub source: PlayedSource,
    pub disk: PlayedDisk,
    pub ticks: Arc<Ticks>,
    commands: Commands,
    began: Instant,
}

/// Mode and content of a file, or where a link leads.
type Entry = (u32, String);

impl World {
    pub fn new(text: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let root = folder.path().to_str().expect("text");
        let plan = plan(&format!("[repo.b]\nurl = '/b'\n{}", text.replace("DIR", root)));
        let domains: Vec<_> = plan.domains.iter().map(|domain| snapshot(domain.name.as_str(), 1)).collect();
        let files = [
            ("data/dir/a", "restored a"),
            ("data/dir/sub/own.tmp", "restored own"),
            ("data/single", "restored single"),
            ("data/far/absent/x", "restored x"),
            ("data/absent", "restored absent"),
            ("data/base.db", "restored base"),
        ];
        let files = files.map(|(path, content)| (folder.path().join(path), content));
        let ticks = Arc::new(Ticks::default());
        let machine =
            Machine { databases: [("live".into(), "in use".into())].into(), running: true, log: Vec::new() };
        let world = Self {
            source: PlayedSource {
                snapshots: [("a".into(), domains)].into(),
                down: None,
                is_damaged: false,
                notes: RefCell::default(),
                files: files.into_iter().chain([("/dump".into(), "restored dump")]).collect(),
                ticks: Arc::clone(&ticks),
            },
            disk: PlayedDisk {
                has_exchange: true,
                free: 1 << 30,
                mounts: Vec::new(),
                ticks: Arc::clone(&ticks),
            },
            commands: Commands { machine: Arc::new(Mutex::new(machine)), ticks: Arc::clone(&ticks) },
            began: Instant::now(),
            folder,
            plan,
            ticks,
        };
        for (path, content) in [
            ("data/dir/a", "old a"),
            ("data/dir/b", "old b"),
            ("data/dir/cache/c", "old cache"),
            ("data/single", "old single"),
            ("data/base.db", "old base"),
            ("data/base.db-wal", "old changes"),
        ] {
            world.write(path, content);
        }
        fs::set_permissions(world.path("data/single"), fs::Permissions::from_mode(0o640)).expect("set");
        world
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn write(&self, relative: &str, content: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub fn state(&self) -> State {
        State::new(&self.path("state")).expect("made")
    }

    pub fn recoverer(&self) -> Recoverer<'_> {
        Recoverer {
            plan: &self.plan,
            host: "box".into(),
            processes: Arc::new(self.commands.clone()),
            source: &self.source,
            state: Box::leak(Box::new(self.state())),
            disk: &self.disk,
            get: &|_| Ok(200),
            pause: &|_| {},
            now: Box::leak(Box::new(|| NOW.parse::<Zoned>().expect("a time"))),
            uptime: Box::leak(Box::new({
                let began = self.began;
                move || began.elapsed() + Duration::from_millis(1)
            })),
            is_cancelled: &|| false,
            tell: &|_, _| {},
        }
    }

    pub fn wish(&self, names: &[&str]) -> Wish {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Wish { names, from: None, snapshot: "latest".into(), allow_drift: Vec::new() }
    }

    pub fn preview_of(&self, wish: &Wish) -> Result<Vec<Preview>, Refusal> {
        self.recoverer().preview("1", wish, &Measurements { drills: &[], recoveries: &[] })
    }

    pub fn preview(&self, names: &[&str]) -> Result<Vec<Preview>, Refusal> {
        self.preview_of(&self.wish(names))
    }

    pub fn recover(&self, names: &[&str]) -> Result<Vec<RecoveryRecord>, Refusal> {
        let previews = self.preview(names)?;
        self.recoverer().recover("1", &previews)
    }

    /// Does something that is killed at a moment; false if it comes to its end before that.
    pub fn killed_at(&self, moment: usize, act: impl Fn(&Self)) -> bool {
        self.ticks.count.store(0, Ordering::Relaxed);
        self.ticks.kill.store(moment, Ordering::Relaxed);
        let result = catch_unwind(AssertUnwindSafe(|| act(self)));
        self.ticks.kill.store(0, Ordering::Relaxed);
        match result {
            Ok(()) => false,
            Err(thrown) if thrown.is::<Killed>() => true,
            Err(other) => resume_unwind(other),
        }
    }

    /// Everything but the state folder, and what recoveries keep.
    pub fn tree(&self) -> BTreeMap<String, Entry> {
        let (mut found, mut open) = (BTreeMap::new(), vec![self.folder.path().to_owned()]);
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).expect("listed") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(self.folder.path()).expect("below").display().to_string();
                let meta = fs::symlink_metadata(&path).expect("there");
                if name == "state" || name.contains(BESIDE) {
                    continue;
                }
                let content = if meta.is_dir() {
                    open.push(path);
                    String::new()
                } else if meta.is_symlink() {
                    fs::read_link(&path).expect("a link").display().to_string()
                } else {
                    fs::read_to_string(&path).expect("text")
                };
                found.insert(name, (meta.permissions().mode(), content));
            }
        }
        found
    }

    pub fn load(&self, name: &str, content: &str) {
        self.commands.machine().databases.insert(name.into(), content.into());
    }

    pub fn databases(&self) -> BTreeMap<String, String> {
        self.commands.machine().databases.clone()
    }

    pub fn is_running(&self) -> bool {
        self.commands.machine().running
    }

    pub fn log(&self) -> Vec<String> {
        self.commands.machine().log.clone()
    }

    #[track_caller]
    pub fn assert_nothing_beside(&self) {
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).expect("listed") {
                let path = entry.expect("an entry").path();
                assert!(!path.display().to_string().contains(BESIDE), "{} is there still", path.display());
                if path.is_dir() && !path.is_symlink() {
                    open.push(path);
                }
            }
        }
    }

    /// What [`PLAN`] says is as the snapshot has it, with what no snapshot has.
    #[track_caller]
    pub fn assert_restored(&self) {
        let tree = self.tree();
        for (path, content) in [
            ("data/dir/a", "restored a"),
            ("data/dir/cache/c", "old cache"),
            ("data/single", "restored single"),
            ("data/far/absent/x", "restored x"),
            ("data/base.db", "restored base"),
        ] {
            assert_eq!(tree.get(path).map(|(_, found)| found.as_str()), Some(content), "{path} of {tree:?}");
        }
        for gone in ["data/dir/b", "data/base.db-wal"] {
            assert!(!tree.contains_key(gone), "{gone} is there still");
        }
        assert_eq!(self.databases()["live"], "restored dump");
    }

    /// Each target is as it was or as it is to be; where two names cannot be exchanged, for a moment not there.
    #[track_caller]
    pub fn assert_old_or_new(&self, has_exchange: bool, moment: usize) {
        let tree = self.tree();
        for (path, old, new) in [
            ("data/dir/a", "old a", "restored a"),
            ("data/single", "old single", "restored single"),
            ("data/base.db", "old base", "restored base"),
        ] {
            match tree.get(path) {
                Some((_, found)) => {
                    assert!(found == old || found == new, "moment {moment}: {path} is {found}")
                }
                None => assert!(!has_exchange, "moment {moment}: {path} is not there"),
            }
        }
        // The log of the old database would be taken for changes to the restored one.
        let is_new = tree.get("data/base.db").is_some_and(|(_, found)| found == "restored base");
        let log = tree.get("data/base.db-wal").map(|(_, found)| found.as_str());
        assert!(!(is_new && log == Some("old changes")), "moment {moment}: a mixture");
    }
}
