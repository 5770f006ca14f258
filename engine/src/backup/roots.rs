//! What was asked to be backed up, as a tree of names that begins at the root directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A directory on the way to a root, or a root.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RootTree {
    /// Asked for as a whole; nothing below it counts then.
    pub is_root: bool,
    /// What is below, in name order.
    pub children: BTreeMap<Vec<u8>, RootTree>,
}

impl RootTree {
    /// The tree of some absolute paths.
    pub fn new(paths: &[PathBuf]) -> Self {
        let mut tree = Self::default();
        for path in paths {
            let mut at = &mut tree;
            for component in path.components() {
                if let Component::Normal(name) = component {
                    at = at.children.entry(name.as_bytes().to_vec()).or_default();
                }
            }
            at.is_root = true;
        }
        tree.prune();
        tree
    }

    /// Roots inside roots are part of them already.
    fn prune(&mut self) {
        if self.is_root {
            self.children.clear();
        }
        self.children.values_mut().for_each(Self::prune);
    }
}

/// Makes a path absolute, without `.` and `..`. The links in what comes before a `..` are resolved, as the system
/// would; all others stay as they are.
///
/// # Errors
/// Those of resolving, and where there is no current directory.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                result = result.canonicalize()?;
                result.pop();
            }
            Component::Normal(name) => result.push(name),
            Component::RootDir | Component::Prefix(_) => result.push(Path::new("/")),
            Component::CurDir => {}
        }
    }
    Ok(result)
}

/// A path extended by one name.
pub(super) fn join(path: &Path, name: &[u8]) -> PathBuf {
    path.join(OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_inside_roots_vanish_and_shared_parents_are_shared() {
        let tree = RootTree::new(&["/a/b".into(), "/a/c".into(), "/a/b/d".into()]);
        let a = &tree.children[b"a".as_slice()];
        assert_eq!(a.children.keys().collect::<Vec<_>>(), [b"b", b"c"]);
        assert!(a.children[b"b".as_slice()].is_root && a.children[b"b".as_slice()].children.is_empty());
        assert!(!a.is_root);
        assert!(RootTree::new(&["/".into()]).is_root);
    }

    #[test]
    fn dots_are_resolved() {
        assert_eq!(absolute(Path::new("/usr/./lib/../bin")).unwrap(), {
            let mut lib = Path::new("/usr/lib").canonicalize().unwrap();
            lib.pop();
            lib.join("bin")
        });
        assert!(absolute(Path::new("x")).unwrap().is_absolute());
    }
}
