//! Running the binary and looking at what it says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub use strongroom::testing::cannot;

/// The password of every repository made here.
pub const PASSWORD: &str = "correct horse";

/// The cheapest key derivation that is accepted: the tests derive many keys.
pub const CHEAP: [&str; 4] = ["--kdf-memory", "19MiB", "--kdf-passes", "2"];

/// The command with nothing of the caller's environment that could change what it does.
pub fn strongroom() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"STRONGROOM_") {
            command.env_remove(name);
        }
    }
    command.env("TZ", "UTC").env("STRONGROOM_NO_STATE", "1").stdin(Stdio::null());
    command
}

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        Self::from(&command.output().expect("the binary was built"))
    }

    pub fn from(output: &Output) -> Self {
        Self {
            code: output.status.code().expect("ended by itself, not by a signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Makes sure of the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The lines of output, each a JSON object with a schema number.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let line = |line: &str| -> Value {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(value["schema"], 1, "{line}");
            value
        };
        self.stdout.lines().map(line).collect()
    }

    /// The last line, which has to be of this type.
    #[track_caller]
    pub fn last(&self, kind: &str) -> Value {
        let last = self.lines().pop().unwrap_or_else(|| panic!("no output: {self:#?}"));
        assert_eq!(last["type"], kind, "{self:#?}");
        last
    }

    /// The message that ends a failed run.
    #[track_caller]
    pub fn message(&self) -> &str {
        let line = self.stderr.lines().find_map(|line| line.strip_prefix("strongroom: "));
        line.unwrap_or_else(|| panic!("no error message: {self:#?}"))
    }
}

/// A folder with room for a repository, sources and targets.
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    /// An empty folder.
    pub fn empty() -> Self {
        Self { dir: TempDir::new().expect("a temporary folder") }
    }

    /// A folder with a new repository.
    pub fn new() -> Self {
        let bench = Self::empty();
        bench.run(["init"].into_iter().chain(CHEAP)).expect(0);
        bench
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn repository(&self) -> PathBuf {
        self.path("repo")
    }

    /// The command with repository and password; the arguments are still to come.
    pub fn command(&self) -> Command {
        let mut command = strongroom();
        command
            .current_dir(self.dir.path())
            .env("STRONGROOM_PASSWORD", PASSWORD)
            .env("STRONGROOM_REPOSITORY", self.repository())
            .env_remove("STRONGROOM_NO_STATE")
            .env("STRONGROOM_STATE_DIR", self.path("state"));
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command().args(args))
    }

    /// Runs the command under `strace`, all of its threads, with these options.
    pub fn traced(&self, options: &[&OsStr], args: &[&str]) -> Run {
        let command = self.command();
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq"]).args(options).arg("--").arg(command.get_program()).args(args);
        traced.stdin(Stdio::null()).current_dir(self.path(""));
        // The test runner's: the loader looks through all of its directories, and counts of calls would depend on them.
        traced.env_remove("LD_LIBRARY_PATH");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => traced.env(name, value),
                None => traced.env_remove(name),
            };
        }
        Run::of(&mut traced)
    }

    /// Writes a file and the folders above it.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("below the bench")).expect("folders");
        fs::write(&path, content).expect("a file");
        path
    }

    /// A small source with files in two folders.
    pub fn source(&self) -> PathBuf {
        self.write("src/a.txt", "alpha");
        self.write("src/sub/b.txt", "beta".repeat(1000));
        self.write("src/sub/c.o", "object");
        self.path("src")
    }

    /// Objects in a folder of the repository, as paths.
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.repository().join(folder), &mut found);
        found.sort();
        found
    }

    /// Bytes of all packs.
    pub fn packs_bytes(&self) -> u64 {
        self.objects("packs").iter().map(|path| fs::metadata(path).expect("a pack").len()).sum()
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

/// Bytes that do not compress and differ by `seed`.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.rotate_right(29).to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Makes sure that two directories of plain files and folders hold the same.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let (left, right) = (contents(one), contents(other));
    assert!(left.keys().eq(right.keys()), "{:?} and {:?}", left.keys(), right.keys());
    for (name, content) in left {
        assert!(right[&name] == content, "{} differs", name.display());
    }
}

/// Files below a folder by relative path.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = Vec::new();
    collect(folder, &mut found);
    let relative = |path: &Path| path.strip_prefix(folder).expect("below").to_owned();
    found.iter().map(|path| (relative(path), fs::read(path).expect("a file"))).collect()
}

/// Overwrites a stored object, which is read-only.
pub fn overwrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).expect("an object");
    fs::write(path, bytes).expect("an object");
}
