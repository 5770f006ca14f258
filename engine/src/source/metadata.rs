//! Capture of a node's full metadata: what `stat` tells, names of the owners, extended attributes, inode flags.
//!
//! Asked for new and changed entries only: an unchanged one costs its `stat` and nothing else.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::buffer::spare_capacity;
use rustix::fs::{fgetxattr, flistxattr, ioctl_getflags, lgetxattr, llistxattr};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use super::dir::SourceDir;
use super::stat::{SourceKind, SourceStat};
use crate::format::tree::{INCOMPLETE_MARK, Metadata, XATTRS_WEIGHT_MAX, Xattr};

/// The inode flags that are kept: those a user or administrator can set, by any file system's rules.
///
/// In the order of the bits: secure deletion, undelete, compress, synchronous, immutable, append only, no dump,
/// no access time (0xff); no compression (0x400); journalled data (0x4000); no tail merging, synchronous
/// directory, top of hierarchy (0x3_8000); no copy-on-write (0x80_0000); direct access (0x200_0000);
/// inherited project, case folding (0x6000_0000). Left out is what the file system alone decides: extents,
/// hash trees, inline data, huge and encrypted files, verity.
pub const SETTABLE_FLAGS: u32 = 0xff | 0x400 | 0x4000 | 0x3_8000 | 0x80_0000 | 0x200_0000 | 0x6000_0000;

/// Enough for the attributes that almost all files have; larger ones are asked for again.
const USUAL_BYTES: usize = 1024;

/// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`: no list of names and no value is longer.
const XATTR_BYTES_MAX: usize = 65_536;

/// A part of an entry's metadata that could not be read and is missing from what was returned.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The names of the extended attributes.
    #[error("cannot list extended attributes: {source}")]
    ListXattrs {
        /// Why.
        source: io::Error,
    },
    /// The value of one extended attribute.
    #[error("cannot read extended attribute {}: {source}", name.escape_ascii())]
    ReadXattr {
        /// The attribute's full name.
        name: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// More extended attributes than an entry of a tree may have.
    #[error("the extended attributes take {weight} bytes, more than {XATTRS_WEIGHT_MAX}: none were stored")]
    XattrsTooLarge {
        /// What they take.
        weight: u64,
    },
    /// The inode flags.
    #[error("cannot read inode flags: {source}")]
    Flags {
        /// Why.
        source: io::Error,
    },
}

/// Reads metadata; remembers the names of users and groups. One for each thread.
#[derive(Debug, Default)]
pub struct MetadataReader {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
    list: Vec<u8>,
    value: Vec<u8>,
}

impl MetadataReader {
    /// The metadata of an open regular file or directory with the state `stat`. What cannot be read is left out
    /// and told to `problem`: the entry is worth storing all the same.
    pub fn of_open(
        &mut self,
        file: impl AsFd,
        stat: &SourceStat,
        problem: &mut dyn FnMut(MetadataError),
    ) -> Metadata {
        let file = file.as_fd();
        let mut metadata = self.of_stat(stat);
        metadata.xattrs = self.xattrs(&Node::Open(file), problem);
        if matches!(stat.kind, SourceKind::File | SourceKind::Directory) {
            metadata.flags = flags(file, problem);
        }
        metadata
    }

    /// The metadata of the symbolic link, device, pipe or socket `name` in `dir`, none of which is opened.
    ///
    /// Its attributes are reached over `/proc`; where that is not mounted, `problem` is told.
    pub fn of_name(
        &mut self,
        dir: &SourceDir,
        name: &[u8],
        stat: &SourceStat,
        problem: &mut dyn FnMut(MetadataError),
    ) -> Metadata {
        let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        let mut metadata = self.of_stat(stat);
        metadata.xattrs = self.xattrs(&Node::Path(path), problem);
        metadata
    }

    /// What the state `stat` alone tells: all but attributes and flags.
    pub fn of_stat(&mut self, stat: &SourceStat) -> Metadata {
        let is_hard_linked = stat.links > 1 && stat.kind != SourceKind::Directory;
        Metadata {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            user: self.users.entry(stat.uid).or_insert_with(|| user_name(stat.uid)).clone(),
            group: self.groups.entry(stat.gid).or_insert_with(|| group_name(stat.gid)).clone(),
            mtime: stat.mtime,
            ctime: stat.ctime,
            btime: stat.btime,
            inode: stat.inode,
            links: is_hard_linked.then_some(stat.links),
            device: is_hard_linked.then_some(stat.device),
            flags: 0,
            xattrs: Vec::new(),
        }
    }

    /// All extended attributes, ascending by name.
    fn xattrs(&mut self, node: &Node<'_>, problem: &mut dyn FnMut(MetadataError)) -> Vec<Xattr> {
        match filled(&mut self.list, |list| node.list(list)) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::NOSYS) => return Vec::new(),
            Err(error) => {
                problem(MetadataError::ListXattrs { source: error.into() });
                return Vec::new();
            }
        }
        let mut xattrs = Vec::new();
        let mut weight = 0;
        let names = self.list.split(|&byte| byte == 0);
        for name in names.filter(|name| !name.is_empty() && *name != INCOMPLETE_MARK) {
            match filled(&mut self.value, |value| node.get(name, value)) {
                Ok(()) => {
                    let value = ByteBuf::from(self.value.as_slice());
                    let xattr = Xattr { name: ByteBuf::from(name), value };
                    weight += xattr.weight();
                    push_within(&mut xattrs, weight, xattr);
                }
                // Removed since it was listed, or listed by a file system that keeps no such attributes.
                Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => problem(MetadataError::ReadXattr { name: name.to_vec(), source: error.into() }),
            }
        }
        if weight > XATTRS_WEIGHT_MAX {
            problem(MetadataError::XattrsTooLarge { weight });
        }
        xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        xattrs.dedup_by(|a, b| a.name == b.name);
        xattrs
    }
}

/// Adds an attribute by which all come to `weight`, or drops all: what is too much is not held in memory.
fn push_within(xattrs: &mut Vec<Xattr>, weight: u64, xattr: Xattr) {
    if weight > XATTRS_WEIGHT_MAX {
        xattrs.clear();
    } else {
        xattrs.push(xattr);
    }
}

/// How an entry's extended attributes are reached.
enum Node<'a> {
    Open(BorrowedFd<'a>),
    Path(Vec<u8>),
}

impl Node<'_> {
    fn list(&self, list: &mut Vec<u8>) -> rustix::io::Result<usize> {
        match self {
            Self::Open(file) => flistxattr(file, spare_capacity(list)),
            Self::Path(path) => llistxattr(path.as_slice(), spare_capacity(list)),
        }
    }

    fn get(&self, name: &[u8], value: &mut Vec<u8>) -> rustix::io::Result<usize> {
        match self {
            Self::Open(file) => fgetxattr(file, name, spare_capacity(value)),
            Self::Path(path) => lgetxattr(path.as_slice(), name, spare_capacity(value)),
        }
    }
}

/// Lets `read` fill `buffer`, again with all the room there can be need of where the usual is too little. The
/// kernel allocates what it is offered, so the usual is small.
fn filled(
    buffer: &mut Vec<u8>,
    mut read: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>,
) -> rustix::io::Result<()> {
    if buffer.capacity() != USUAL_BYTES {
        *buffer = Vec::with_capacity(USUAL_BYTES);
    }
    buffer.clear();
    match read(buffer) {
        Err(Errno::RANGE) => {
            *buffer = Vec::with_capacity(XATTR_BYTES_MAX);
            read(buffer).map(drop)
        }
        outcome => outcome.map(drop),
    }
}

/// The inode flags of a regular file or directory; 0 where the file system has none. `statx` shows some of them
/// only (not, say, the one against copy-on-write), so it cannot save this call.
fn flags(file: BorrowedFd<'_>, problem: &mut dyn FnMut(MetadataError)) -> u32 {
    match ioctl_getflags(file) {
        Ok(flags) => flags.bits() & SETTABLE_FLAGS,
        Err(Errno::NOTTY | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => 0,
        Err(error) => {
            problem(MetadataError::Flags { source: error.into() });
            0
        }
    }
}

/// The user's name; empty where there is none or the system's directory of users cannot be asked: the number
/// is kept in any case.
fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name).unwrap_or_default()
}

/// The group's name, as [`user_name`].
fn group_name(gid: u32) -> String {
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{IFlags, XattrFlags, fsetxattr, ioctl_setflags};

    use super::*;
    use crate::testing::cannot;

    #[expect(clippy::needless_pass_by_value, reason = "the shape of a callback")]
    fn no_problem(error: MetadataError) {
        panic!("{error}");
    }

    fn read(path: &Path) -> Metadata {
        let file = File::open(path).unwrap();
        let stat = SourceStat::of_file(&file).unwrap();
        MetadataReader::default().of_open(&file, &stat, &mut no_problem)
    }

    /// Sets an attribute; false, loudly, where the file system has none.
    fn set_xattr(file: &File, name: &str, value: &[u8]) -> bool {
        match fsetxattr(file, name, value, XattrFlags::empty()) {
            Ok(()) => true,
            Err(error @ Errno::NOTSUP) => {
                cannot(&format!("set {name}"), &error);
                false
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }

    fn user_xattrs(metadata: &Metadata) -> Vec<(&[u8], &[u8])> {
        let all = metadata.xattrs.iter().map(|xattr| (xattr.name.as_slice(), xattr.value.as_slice()));
        all.filter(|(name, _)| name.starts_with(b"user.")).collect()
    }

    #[test]
    fn stat_fields_and_owner_names_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "x").unwrap();
        let stat = SourceStat::of_file(File::open(&path).unwrap()).unwrap();
        let metadata = read(&path);
        assert_eq!((metadata.mode, metadata.uid, metadata.gid), (stat.mode, stat.uid, stat.gid));
        assert!(stat.looks_unchanged(&metadata, 1));
        assert_eq!(metadata.user, user_name(stat.uid));
        assert_eq!((metadata.links, metadata.device), (None, None));
    }

    #[test]
    fn names_are_those_of_the_system_and_empty_for_unknown_owners() {
        assert_eq!((user_name(0).as_str(), group_name(0).as_str()), ("root", "root"));
        assert_eq!((user_name(3_999_999_999).as_str(), group_name(3_999_999_999).as_str()), ("", ""));
    }

    #[test]
    fn too_many_attributes_are_dropped_as_a_whole() {
        let xattr = || Xattr { name: ByteBuf::from(b"user.a"), value: ByteBuf::from(vec![0; 1000]) };
        let (mut xattrs, mut weight) = (Vec::new(), 0);
        while weight + xattr().weight() <= XATTRS_WEIGHT_MAX {
            weight += xattr().weight();
            push_within(&mut xattrs, weight, xattr());
        }
        assert_eq!(xattrs.iter().map(Xattr::weight).sum::<u64>(), weight);
        push_within(&mut xattrs, weight + xattr().weight(), xattr());
        assert!(xattrs.is_empty());
    }

    #[test]
    fn only_hard_links_tell_links_and_device() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, "").unwrap();
        fs::hard_link(&one, &two).unwrap();
        fs::create_dir(folder.path().join("dir")).unwrap();
        let stat = SourceStat::of_file(File::open(&one).unwrap()).unwrap();
        assert_eq!((read(&one).links, read(&two).device), (Some(2), Some(stat.device)));
        assert_eq!((read(folder.path()).links, read(folder.path()).device), (None, None), "a directory");
    }

    #[test]
    fn xattrs_of_files_and_directories_come_sorted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        if !set_xattr(&file, "user.b", b"2") {
            return;
        }
        set_xattr(&file, "user.a", b"\0binary\xff");
        set_xattr(&file, "user.c", b"");
        let metadata = read(&path);
        let expected: [(&[u8], &[u8]); 3] =
            [(b"user.a", b"\0binary\xff"), (b"user.b", b"2"), (b"user.c", b"")];
        assert_eq!(user_xattrs(&metadata), expected);
        set_xattr(&File::open(folder.path()).unwrap(), "user.dir", b"d");
        assert_eq!(user_xattrs(&read(folder.path())), [(b"user.dir".as_slice(), b"d".as_slice())]);
    }

    #[test]
    fn long_values_and_lists_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        // Small enough together for one block of the common file systems.
        if !set_xattr(&file, "user.long", &[7; USUAL_BYTES + 500]) {
            return;
        }
        let names: Vec<_> = (0..8).map(|number| format!("user.{number}{}", "n".repeat(180))).collect();
        for name in &names {
            set_xattr(&file, name, b"v");
        }
        set_xattr(&file, "user.short", b"s");
        let metadata = read(&path);
        let found = user_xattrs(&metadata);
        assert_eq!(found.len(), 10);
        assert_eq!(found[0].0, names[0].as_bytes());
        assert_eq!(found[8], (b"user.long".as_slice(), [7; USUAL_BYTES + 500].as_slice()));
        assert_eq!(found[9], (b"user.short".as_slice(), b"s".as_slice()));
    }

    #[test]
    fn xattrs_of_a_symlink_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("file")).unwrap();
        set_xattr(&file, "user.of-the-target", b"x");
        symlink("file", folder.path().join("link")).unwrap();
        let link = folder.path().join("link");
        let dir = SourceDir::open_root(folder.path()).unwrap();
        let own = match rustix::fs::lsetxattr(&link, "trusted.own", b"y", XattrFlags::empty()) {
            Ok(()) => true,
            Err(error) => {
                cannot("give a link an attribute", &error);
                false
            }
        };
        let stat = dir.stat(b"link").unwrap();
        let metadata = MetadataReader::default().of_name(&dir, b"link", &stat, &mut no_problem);
        assert_eq!(user_xattrs(&metadata), []);
        assert_eq!(metadata.xattrs.iter().any(|xattr| xattr.name == b"trusted.own"), own);
        assert!(stat.looks_unchanged(&metadata, 0));
    }

    #[test]
    fn a_vanished_entry_is_a_problem_not_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        symlink("x", folder.path().join("link")).unwrap();
        let dir = SourceDir::open_root(folder.path()).unwrap();
        let stat = dir.stat(b"link").unwrap();
        fs::remove_file(folder.path().join("link")).unwrap();
        let mut problems = Vec::new();
        let metadata = MetadataReader::default()
            .of_name(&dir, b"link", &stat, &mut |error| problems.push(error.to_string()));
        assert_eq!(metadata.inode, stat.inode);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("cannot list extended attributes: No such file"), "{problems:?}");
    }

    #[test]
    fn settable_flags_are_kept_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        let before = match ioctl_getflags(&file) {
            Ok(flags) => flags,
            Err(error) => return cannot("read inode flags", &error),
        };
        let wanted = IFlags::NODUMP | IFlags::NOATIME;
        if let Err(error) = ioctl_setflags(&file, before | wanted) {
            return cannot("set inode flags", &error);
        }
        assert_eq!(read(&path).flags, (before.bits() | wanted.bits()) & SETTABLE_FLAGS);
        assert_eq!(read(&path).flags & wanted.bits(), wanted.bits());
        assert_eq!(SETTABLE_FLAGS & 0x0008_0000, 0, "extents are the file system's affair");
    }
}
