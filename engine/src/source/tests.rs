//! All of the source together: a tree with everything in it, walked by handles.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, XattrFlags, makedev, mkdirat, mknodat, openat};

use super::*;
use crate::format::tree::Metadata;
use crate::testing::cannot;

/// What the walk found at one path.
struct Found {
    stat: SourceStat,
    metadata: Metadata,
    target: Option<Vec<u8>>,
}

/// A directory on the way, with what is still to be looked at.
struct Level {
    dir: SourceDir,
    names: Names,
    next: usize,
    rules: DirFilter,
}

/// Walks `root` depth first, as an operation would do it: by a stack of its own.
fn walk(root: &Path, filter: &Filter) -> BTreeMap<PathBuf, Found> {
    let fail = |error: MetadataError| panic!("{error}");
    let (mut buffer, mut reader) = (ListBuffer::new(Spill::default()), MetadataReader::default());
    let (mut found, mut path, mut levels) = (BTreeMap::new(), root.to_owned(), Vec::new());
    let mut entering = Some(SourceDir::open_root(root).unwrap());
    let mut rules = filter.above_root(entering.as_ref().unwrap().stat_self().unwrap().device);
    loop {
        if let Some(mut dir) = entering.take() {
            let mut listing = dir.list(&mut buffer).unwrap();
            rules = filter.enter(&rules, &path, &dir, &listing, &mut |error| panic!("{error}"));
            let names = listing.next_window(usize::MAX).unwrap();
            levels.push(Level { dir, names, next: 0, rules: rules.clone() });
        }
        let Some(level) = levels.last_mut() else { return found };
        let Some(name) = level.names.get(level.next) else {
            levels.pop();
            path.pop();
            continue;
        };
        level.next += 1;
        rules = level.rules.clone();
        path.push(OsStr::from_bytes(name));
        let stat = level.dir.stat(name).unwrap();
        if filter.excluded(&rules, &path, stat.kind, stat.size).is_some() {
            path.pop();
            continue;
        }
        let mut target = None;
        let metadata = match stat.kind {
            SourceKind::File => reader.of_open(level.dir.open_file(name).unwrap(), &stat, &mut { fail }),
            SourceKind::Directory => {
                let dir = entering.insert(level.dir.open_dir(name).unwrap());
                reader.of_open(dir, &stat, &mut { fail })
            }
            kind => {
                target = (kind == SourceKind::Symlink).then(|| level.dir.read_link(name).unwrap());
                reader.of_name(&level.dir, name, &stat, &mut { fail })
            }
        };
        found.insert(path.strip_prefix(root).unwrap().to_owned(), Found { stat, metadata, target });
        if entering.is_none() {
            path.pop();
        }
    }
}

fn keep_all() -> Filter {
    Filter::new(FilterOptions::default()).unwrap()
}

#[test]
fn every_kind_of_entry_is_found_with_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let odd_names: [&[u8]; 4] = [b"\xff\xfe", b"line\nfeed", b" ", b"-rf"];
    for name in odd_names {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::create_dir_all(root.join("dir/empty")).unwrap();
    symlink(OsStr::from_bytes(b"nowhere\xff"), root.join("dir/link")).unwrap();
    symlink("..", root.join("dir/loop")).unwrap();
    let handle = SourceDir::open_root(root).unwrap();
    mknodat(&handle, "fifo", FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let _listener = UnixListener::bind(root.join("socket")).unwrap();
    fs::hard_link(root.join(" "), root.join("dir/linked")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 1 << 30).unwrap();

    let found = walk(root, &keep_all());
    let at = |name: &[u8]| &found[Path::new(OsStr::from_bytes(name))];
    assert_eq!(found.len(), odd_names.len() + 8);
    for name in odd_names {
        assert_eq!((at(name).stat.kind, at(name).stat.size), (SourceKind::File, name.len() as u64));
    }
    assert_eq!(at(b"dir/empty").stat.kind, SourceKind::Directory);
    assert_eq!(at(b"dir/link").target.as_deref(), Some(b"nowhere\xff".as_slice()));
    assert_eq!(at(b"dir/loop").target.as_deref(), Some(b"..".as_slice()));
    assert_eq!((at(b"fifo").stat.kind, at(b"socket").stat.kind), (SourceKind::Fifo, SourceKind::Socket));
    assert_eq!(at(b"dir/linked").metadata.links, Some(2));
    assert_eq!(at(b" ").metadata.inode, at(b"dir/linked").metadata.inode);
    assert_eq!(at(b" ").metadata.device, at(b"dir/linked").metadata.device);
    let stat = at(b"sparse").stat;
    let holes = sparse::holes(&handle.open_file(b"sparse").unwrap(), stat.size, stat.allocated, 100).unwrap();
    assert_eq!((stat.size, holes.len(), holes[0].offset), ((1 << 30) + 3, 1, 0));
    for Found { stat, metadata, .. } in found.values() {
        assert!(stat.looks_unchanged(metadata, stat.size));
    }
}

#[test]
fn devices_tell_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let handle = SourceDir::open_root(folder.path()).unwrap();
    for (name, kind) in [("char", FileType::CharacterDevice), ("block", FileType::BlockDevice)] {
        if let Err(error) = mknodat(&handle, name, kind, Mode::from_raw_mode(0o600), makedev(259, 70_000)) {
            return cannot("make devices", &error);
        }
    }
    let found = walk(folder.path(), &keep_all());
    for (name, kind) in [("char", SourceKind::CharDevice), ("block", SourceKind::BlockDevice)] {
        let stat = found[Path::new(name)].stat;
        assert_eq!((stat.kind, stat.rdev_major, stat.rdev_minor), (kind, 259, 70_000));
    }
}

#[test]
fn xattrs_are_found_on_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let path = folder.path().join("file");
    if let Err(error) = rustix::fs::setxattr(&path, "user.note", b"kept", XattrFlags::empty()) {
        return cannot("give a file an attribute", &error);
    }
    let found = walk(folder.path(), &keep_all());
    let xattrs = &found[Path::new("file")].metadata.xattrs;
    assert!(xattrs.iter().any(|xattr| xattr.name == b"user.note" && xattr.value == b"kept"));
}

#[test]
fn paths_longer_than_the_system_allows_are_walked() {
    let folder = tempfile::tempdir().unwrap();
    let name = "d".repeat(250);
    let mut dir = SourceDir::open_root(folder.path()).unwrap();
    for _ in 0..20 {
        mkdirat(&dir, name.as_str(), Mode::RWXU).unwrap();
        dir = dir.open_dir(name.as_bytes()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(&dir, "leaf", flags, Mode::RUSR).unwrap();
    symlink("x", folder.path().join("shallow")).unwrap();

    let found = walk(folder.path(), &keep_all());
    assert_eq!(found.len(), 22);
    let deepest = found.keys().max_by_key(|path| path.as_os_str().len()).unwrap();
    assert_eq!(deepest.as_os_str().len(), 20 * 251 + 4);
    assert!(fs::metadata(folder.path().join(deepest)).is_err(), "no path leads there");
}

#[test]
fn what_is_filtered_is_not_entered() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("src/target/debug")).unwrap();
    fs::create_dir_all(root.join("cache/deep")).unwrap();
    fs::write(root.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    fs::write(root.join("src/.gitignore"), "target/\n").unwrap();
    fs::write(root.join("src/main.rs"), "").unwrap();
    fs::write(root.join("src/main.rs.bak"), "").unwrap();
    let options = FilterOptions {
        exclude: vec!["*.bak".to_owned()],
        ignore_file_names: vec![".gitignore".to_owned()],
        exclude_caches: true,
        ..FilterOptions::default()
    };
    let found = walk(root, &Filter::new(options).unwrap());
    let paths: Vec<_> = found.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["cache", "cache/CACHEDIR.TAG", "src", "src/.gitignore", "src/main.rs"]);
}
