//! A snapshot, services, databases with names, and a file system that fails or ends everything at a moment: all played.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;

use crate::drill::Problem;
use crate::drill::{Compared, Restored};
use crate::plan::values::Name;
use crate::recover::{Disk, Held, RecoveryRecord, Source, SystemDisk};
use crate::run::process::{Ended, Order, ProcessError, Processes, Sink, Source as Output};
use crate::run::vault::VaultError;

/// The mode that directories at the top of what is restored have in the snapshot.
pub const RESTORED_MODE: u32 = 0o711;

/// Counts what is done, and has one of these moments fail, or end everything as a kill would.
#[derive(Default)]
pub struct Ticks {
    pub count: AtomicUsize,
    pub fail: AtomicUsize,
    pub kill: AtomicUsize,
    pub come: AtomicUsize,
}

/// What a kill throws.
pub struct Killed;

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
    pub ticks: Arc<Ticks>,
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
pub struct Machine {
    pub databases: BTreeMap<String, String>,
    pub running: bool,
    pub log: Vec<String>,
    /// How long each load was given.
    pub limits: Vec<Duration>,
    /// Commands that fail whenever they are run.
    pub failing: Vec<&'static str>,
}

#[derive(Clone)]
pub struct Commands {
    pub machine: Arc<Mutex<Machine>>,
    pub ticks: Arc<Ticks>,
}

/// What every command says that fails.
pub const SECRET: &str = "user=shop password=hunter2";

fn failed(program: &str) -> ProcessError {
    ProcessError::Failed { program: program.into(), status: "exit code 1".into(), output: SECRET.into() }
}

impl Commands {
    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn play(&self, words: &[&str]) -> Option<Vec<u8>> {
        let mut machine = self.machine();
        if machine.failing.iter().any(|failing| *failing == words[0]) {
            return None;
        }
        let Machine { databases, running, .. } = &mut *machine;
        let mut renamed = |from: &str, to: &str| {
            assert!(!databases.contains_key(to), "{to} is taken");
            let found = databases.remove(from)?;
            databases.insert(to.into(), found)
        };
        match *words {
            ["fail"] => return None,
            ["replace", path] => {
                fs::remove_file(path).ok()?;
                // It may get the inode number of the other one, and not its time.
                std::thread::sleep(Duration::from_millis(10));
                fs::write(path, "replaced").ok()?;
            }
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
        self.machine().limits.push(order.timeout);
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
        if self.commands.machine().failing.contains(&"load") {
            return Err(failed("load"));
        }
        let text = String::from_utf8(self.bytes).expect("text");
        self.commands.machine().databases.insert(self.name, text);
        Ok(())
    }
}

/// One snapshot, in all repositories, with files by path.
pub struct PlayedSource {
    pub snapshots: BTreeMap<String, Vec<(SnapshotId, Snapshot)>>,
    pub down: Option<String>,
    /// A repository whose log has lost something behind all snapshots.
    pub forgetful: Option<String>,
    pub is_damaged: bool,
    pub notes: RefCell<Vec<RecoveryRecord>>,
    pub files: BTreeMap<PathBuf, &'static str>,
    pub ticks: Arc<Ticks>,
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

    fn require_latest(&self, repo: &Name, _: &SnapshotId) -> Result<(), VaultError> {
        match self.forgetful.as_deref() == Some(repo.as_str()) {
            true => Err(VaultError { code: "log-damaged".into(), message: "a commit is lost".into() }),
            false => Ok(()),
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
        let is_fresh = fs::read_dir(into).map_or(true, |mut entries| entries.next().is_none());
        for (below, content) in self.below(path) {
            self.ticks.tick().map_err(down)?;
            let place = Self::place(path, below, into);
            fs::create_dir_all(place.parent().expect("a folder")).expect("made");
            fs::write(place, content).expect("written");
            restored.files += 1;
            restored.bytes += content.len() as u64;
        }
        // As the engine does: what was not empty has a mode already.
        if is_fresh && self.held(path).is_some_and(|held| held.is_directory) {
            fs::set_permissions(into, fs::Permissions::from_mode(RESTORED_MODE)).map_err(down)?;
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
