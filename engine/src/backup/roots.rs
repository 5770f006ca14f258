//! What was asked to be backed up, as a tree of names that begins at the root directory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::backup::options::{BackupError, SourceRoot};

/// A directory on the way to a root, or a root.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RootTree {
    /// Asked for as a whole; nothing below it counts then.
    pub is_root: bool,
    /// Where a root is read, if not where it is.
    pub read_from: Option<PathBuf>,
    /// The stream that is read here: its number.
    pub stream: Option<usize>,
    /// What is below, in name order.
    pub children: BTreeMap<Vec<u8>, RootTree>,
}

impl RootTree {
    /// The tree of some absolute paths.
    pub fn new(paths: &[PathBuf]) -> Self {
        let mut tree = Self::default();
        for path in paths {
            tree.insert(path).is_root = true;
        }
        tree.prune();
        tree
    }

    /// The tree of some roots with absolute paths, and of streams with these names.
    ///
    /// # Errors
    /// [`BackupError::RootInRoot`] where something would not be read from where it is to be, [`BackupError::NameTaken`].
    pub fn of(roots: &[SourceRoot], streams: &[Vec<u8>]) -> Result<Self, BackupError> {
        let mut tree = Self::default();
        let by_path: HashMap<&Path, &SourceRoot> =
            roots.iter().map(|root| (root.path.as_path(), root)).collect();
        for root in roots {
            let mut outer = root.path.ancestors().filter_map(|path| by_path.get(path));
            if let Some(outer) = outer.find(|outer| root.is_contradicted_by(outer)) {
                let (inner, outer) = (root.path.clone(), outer.path.clone());
                return Err(BackupError::RootInRoot { inner, outer });
            }
            let at = tree.insert(&root.path);
            at.is_root = true;
            at.read_from.clone_from(&root.read_from);
        }
        tree.prune();
        for (number, name) in streams.iter().enumerate() {
            if tree.is_root || tree.children.contains_key(name) {
                return Err(BackupError::NameTaken { name: String::from_utf8_lossy(name).into_owned() });
            }
            tree.children.insert(name.clone(), Self { stream: Some(number), ..Self::default() });
        }
        Ok(tree)
    }

    fn insert(&mut self, path: &Path) -> &mut Self {
        path.components().fold(self, |at, component| match component {
            Component::Normal(name) => at.children.entry(name.as_bytes().to_vec()).or_default(),
            _ => at,
        })
    }

    /// Roots inside roots are part of them already.
    fn prune(&mut self) {
        if self.is_root {
            self.children.clear();
        }
        self.children.values_mut().for_each(Self::prune);
    }
}

impl SourceRoot {
    /// Whether `outer` holds this root, and is read from where this one is not.
    fn is_contradicted_by(&self, outer: &Self) -> bool {
        match self.path.strip_prefix(&outer.path) {
            Ok(rest) if rest.as_os_str().is_empty() => self.place() != outer.place(),
            Ok(rest) => self.place() != outer.place().join(rest),
            Err(_) => false,
        }
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
    fn what_is_read_elsewhere_and_streams_have_places_of_their_own() {
        let root = |path: &str, from: Option<&str>| SourceRoot {
            path: path.into(),
            read_from: from.map(PathBuf::from),
        };
        let tree =
            RootTree::of(&[root("/a/b", Some("/snap/b")), root("/c", None)], &[b"dump".to_vec()]).unwrap();
        assert_eq!(
            tree.children[b"a".as_slice()].children[b"b".as_slice()].read_from,
            Some("/snap/b".into())
        );
        assert_eq!(tree.children[b"dump".as_slice()].stream, Some(0));
        for names in [&[b"a".to_vec()][..], &[b"x".to_vec(), b"x".to_vec()]] {
            let taken = RootTree::of(&[root("/a/b", None)], names);
            assert!(matches!(taken, Err(BackupError::NameTaken { .. })), "{names:?}");
        }
        assert!(RootTree::of(&[root("/", None)], &[b"x".to_vec()]).is_err());
        let inside = [root("/a", Some("/snap/a")), root("/a/b", Some("/snap/a/b"))];
        assert!(RootTree::of(&inside, &[]).is_ok(), "the outer one reads it from there");
        for inner in [root("/a/b", None), root("/a/b", Some("/else/b")), root("/a", None)] {
            let wrong = RootTree::of(&[root("/a", Some("/snap/a")), inner.clone()], &[]);
            assert!(matches!(wrong, Err(BackupError::RootInRoot { .. })), "{inner:?}");
        }
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
