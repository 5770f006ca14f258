//! How much there is to back up: counted beside the backup, for those who want to see the time left.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::backup::roots::{self, RootTree};
use crate::source::{DirFilter, Filter, ListBuffer, Listing, Names, SourceDir, SourceKind, Spill};

/// Files and bytes that were counted, once they are.
#[derive(Debug, Default)]
pub(super) struct Measured {
    files: AtomicU64,
    bytes: AtomicU64,
    done: AtomicBool,
    stop: AtomicBool,
}

impl Measured {
    /// Files and bytes; `None` as long as they are being counted.
    pub fn totals(&self) -> Option<(u64, u64)> {
        // The counts were stored before `done`.
        let done = self.done.load(Ordering::Acquire);
        done.then(|| (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed)))
    }

    /// Nobody needs them any more.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Counts what is below the roots and not left out. What cannot be read counts nothing: the backup itself
    /// reports it.
    pub fn count(&self, tree: &RootTree, filter: &Filter, spill: Spill) {
        let mut counter = Counter { measured: self, filter, list: ListBuffer::new(spill) };
        if counter.way(tree, Path::new("/")).is_some() {
            self.done.store(true, Ordering::Release);
        }
    }
}

/// Names of a directory that are looked at in one go.
const WINDOW_LEN: usize = 1024;

struct Counter<'a> {
    measured: &'a Measured,
    filter: &'a Filter,
    list: ListBuffer,
}

/// A directory that is being counted.
struct Level {
    dir: SourceDir,
    path: PathBuf,
    listing: Listing,
    names: Names,
    next: usize,
    filter: DirFilter,
}

impl Counter<'_> {
    /// Counts the roots below `path`; `None` if it was stopped.
    fn way(&mut self, tree: &RootTree, path: &Path) -> Option<()> {
        if tree.is_root {
            return self.root(tree.read_from.as_deref().unwrap_or(path), path);
        }
        tree.children.iter().try_for_each(|(name, child)| self.way(child, &roots::join(path, name)))
    }

    /// Counts what is in `place`, as if it were in `path`.
    fn root(&mut self, place: &Path, path: &Path) -> Option<()> {
        let Ok(dir) = SourceDir::open_root(place) else {
            if let Ok(meta) = std::fs::symlink_metadata(place)
                && meta.is_file()
            {
                self.add(meta.len());
            }
            return Some(());
        };
        let Ok(stat) = dir.stat_self() else { return Some(()) };
        let above = self.filter.above_root(stat.device);
        let mut stack: Vec<_> = self.enter(dir, path.to_owned(), &above).into_iter().collect();
        while let Some(level) = stack.last_mut() {
            if self.measured.stop.load(Ordering::Relaxed) {
                return None;
            }
            let Some(name) = level.names.get(level.next) else {
                level.names = level.listing.next_window(WINDOW_LEN).unwrap_or_default();
                level.next = 0;
                if level.names.is_empty() {
                    stack.pop();
                }
                continue;
            };
            level.next += 1;
            let Ok(stat) = level.dir.stat(name) else { continue };
            if !matches!(stat.kind, SourceKind::File | SourceKind::Directory) {
                continue;
            }
            let path = roots::join(&level.path, name);
            if self.filter.excluded(&level.filter, &path, stat.kind, stat.size).is_some() {
                continue;
            }
            if stat.kind == SourceKind::File {
                self.add(stat.size);
            } else if self.filter.not_entered(&level.filter, &stat).is_none()
                && let Ok(below) = level.dir.open_dir(name)
            {
                let below = self.enter(below, path, &level.filter);
                stack.extend(below);
            }
        }
        Some(())
    }

    fn enter(&mut self, mut dir: SourceDir, path: PathBuf, parent: &DirFilter) -> Option<Level> {
        let listing = dir.list(&mut self.list).ok()?;
        let filter = self.filter.enter(parent, &path, &dir, &listing, &mut |_| {});
        Some(Level { dir, path, listing, names: Names::default(), next: 0, filter })
    }

    fn add(&self, bytes: u64) {
        self.measured.files.fetch_add(1, Ordering::Relaxed);
        self.measured.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::source::FilterOptions;

    #[test]
    fn what_is_backed_up_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, len) in [("a/1", 10), ("a/2.o", 100), ("a/b/3", 1000), ("c", 5), ("d/4", 7)] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("below")).expect("folders");
            fs::write(path, vec![0; len]).expect("a file");
        }
        std::os::unix::fs::symlink("c", folder.path().join("a/link")).expect("a link");
        let filter = FilterOptions { exclude: vec!["*.o".into()], ..FilterOptions::default() };
        let filter = Filter::new(filter).expect("valid");
        let paths = ["a", "c", "missing"].map(|name| folder.path().join(name));
        let tree = RootTree::new(&paths);
        let measured = Measured::default();
        assert_eq!(measured.totals(), None);
        measured.count(&tree, &filter, Spill::default());
        assert_eq!(measured.totals(), Some((3, 1015)));
        let stopped = Measured::default();
        stopped.stop();
        stopped.count(&tree, &filter, Spill::default());
        assert_eq!(stopped.totals(), None);
    }
}
