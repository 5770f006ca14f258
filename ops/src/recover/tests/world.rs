//! Everything that recoveries work on: a folder, and what is played.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Zoned;
use tempfile::TempDir;

use super::played::{Commands, Killed, Machine, PlayedDisk, PlayedSource, RESTORED_MODE, SECRET, Ticks};
use crate::plan::Plan;
use crate::plan::load::tests_support::plan;
use crate::recover::preview::{Measurements, Refusal};
use crate::recover::{BESIDE, Preview, Recoverer, RecoveryRecord, Wish};
use crate::run::state::State;
use crate::testing::{NOW, snapshot};

/// A domain with everything: a directory with an excluded part, a file, something that is not there, a database, a stream.
pub const PLAN: &str = "[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir', 'DIR/data/single', 'DIR/data/far/absent']\n\
    exclude = ['cache']\nsqlite = ['DIR/data/base.db']\n\
    recover = { stop = [['stop']], start = [['start']], health = [['healthy']], ready = { http = 'http://x/' } }\n\
    [[domain.stream]]\nname = 'dump'\ncommand = ['true']\nrestore = ['load', '${target}']\n\
    recover = { create = ['create', '${target}'], swap = ['swap', '${target}', '${old}'], undo = ['undo', '${target}', '${old}'], \
    swapped = ['swapped', '${old}'], drop = ['drop', '${target}'] }\n";

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

/// What a command said may be a secret: whatever happened, it is kept nowhere.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let notes = self.source.notes.borrow();
        let noted = notes.iter().map(|note| serde_json::to_string(note).expect("JSON"));
        let files = fs::read_dir(self.path("state")).into_iter().flatten();
        let files = files.filter_map(|entry| fs::read_to_string(entry.expect("an entry").path()).ok());
        for text in noted.chain(files) {
            assert!(!text.contains(SECRET), "{text}");
        }
    }
}

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
        let machine = Machine {
            databases: [("live".into(), "in use".into())].into(),
            running: true,
            ..Machine::default()
        };
        let world = Self {
            source: PlayedSource {
                snapshots: [("a".into(), domains)].into(),
                down: None,
                forgetful: None,
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

    /// How long each load was given.
    pub fn limits(&self) -> Vec<Duration> {
        self.commands.machine().limits.clone()
    }

    pub fn databases(&self) -> BTreeMap<String, String> {
        self.commands.machine().databases.clone()
    }

    /// Puts back what was in use, as `undo` does.
    pub fn undo(&self, target: &str, old: &str) {
        self.commands.play(&["undo", target, old]).expect("done");
    }

    /// Has a command fail from now on, or not any more.
    pub fn fail(&self, command: Option<&'static str>) {
        self.commands.machine().failing = command.into_iter().collect();
    }

    /// Whether a file with this content is kept somewhere.
    pub fn has_beside(&self, content: &str) -> bool {
        let mut open = vec![(self.folder.path().to_owned(), false)];
        while let Some((folder, is_beside)) = open.pop() {
            for entry in fs::read_dir(&folder).expect("listed") {
                let path = entry.expect("an entry").path();
                let is_beside = is_beside || path.display().to_string().contains(BESIDE);
                if path.is_dir() {
                    open.push((path, is_beside));
                } else if is_beside && fs::read_to_string(&path).is_ok_and(|found| found == content) {
                    return true;
                }
            }
        }
        false
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
        for path in ["data/dir", "data/far/absent"] {
            assert_eq!(tree[path].0 & 0o7777, RESTORED_MODE, "{path}");
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
                    assert!(found == old || found == new, "moment {moment}: {path} is {found}");
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
