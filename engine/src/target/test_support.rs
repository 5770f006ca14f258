//! A target, something precious beside it, and a way to see whether that was touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::error::TargetError;
use super::name::RelativePath;
use super::resolve::Resolution;
use super::root::TargetRoot;
use crate::testing::cannot;

pub(super) const RESOLUTIONS: [Resolution; 2] = [Resolution::Kernel, Resolution::Components];

/// `target/`, and next to it `outside/` with a file, a directory and a link, in one temporary directory.
pub(super) struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    pub(super) fn new() -> Self {
        let sandbox = Self { directory: tempfile::tempdir().unwrap() };
        let outside = sandbox.outside();
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::write(outside.join("victim"), "precious").unwrap();
        fs::write(outside.join("sub/deep"), "precious too").unwrap();
        fs::set_permissions(outside.join("victim"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("victim", outside.join("link")).unwrap();
        fs::create_dir(sandbox.target()).unwrap();
        sandbox
    }

    pub(super) fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub(super) fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    /// The path `path` in the target, for the enemy's and the test's own use.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.target().join(path)
    }

    /// Opens the target without a cache, so that every operation walks.
    pub(super) fn open(&self, resolution: Resolution) -> TargetRoot {
        TargetRoot::open_as(&self.target(), resolution, false).unwrap()
    }

    pub(super) fn open_cached(&self, resolution: Resolution) -> TargetRoot {
        TargetRoot::open_as(&self.target(), resolution, true).unwrap()
    }

    /// Everything about `outside/` that an operation on the target must not change. Link counts and ctimes are
    /// not among it: the enemy's hard links change them.
    pub(super) fn outside_fingerprint(&self) -> BTreeMap<PathBuf, String> {
        fingerprint(&self.outside())
    }
}

/// Content and metadata of all entries of a tree.
pub(crate) fn fingerprint(tree: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![tree.to_path_buf()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if stat.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if stat.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let shown = format!(
            "{:o} {}:{} {}.{} {:?} {:?}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            xattrs(&path),
            String::from_utf8_lossy(&content)
        );
        found.insert(path, shown);
    }
    found
}

/// Extended attributes of `path` itself, as `name=value`.
pub(super) fn xattrs(path: &Path) -> Vec<String> {
    let mut list = [0_u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = [0_u8; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            format!("{}={}", String::from_utf8_lossy(name), value[..length].escape_ascii())
        })
        .collect()
}

pub(super) fn path(text: &str) -> RelativePath {
    RelativePath::parse(text.as_bytes()).unwrap()
}

/// A result in two or three words.
pub(super) fn outcome<T>(result: &Result<T, TargetError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(TargetError::Io { source, .. }) => format!("{:?}", source.kind()),
        Err(TargetError::ParentNotDirectory { .. }) => "parent".to_owned(),
        Err(TargetError::InTheWay { found, .. }) => format!("in the way: {found}"),
        Err(TargetError::Shared { links, .. }) => format!("shared by {links}"),
        Err(TargetError::DeviceNumber { .. }) => "device number".to_owned(),
        Err(TargetError::IsRoot { .. }) => "root".to_owned(),
        Err(TargetError::Open { .. }) => "open".to_owned(),
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs the test `name` of this binary once more as a user without any privilege. Gives true in that run, and
/// in the outer one after the inner has passed, or cannot be had, false.
pub(crate) fn as_nobody(name: &str) -> bool {
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let run = std::process::Command::new(program).args(["--exact", name]).uid(65_534).gid(65_534).output();
    match run {
        Err(error) => cannot("run as nobody", &error),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "as nobody: {text}");
        }
    }
    false
}
