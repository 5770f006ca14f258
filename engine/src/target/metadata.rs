//! Owner, extended attributes, ACLs, mode, times and flags of restored entries, in the order that keeps them.
//!
//! 1. Owner, because changing it clears set-id bits and capabilities.
//! 2. Extended attributes, capabilities and ACLs among them, because a file that has become read-only may not
//!    take any more.
//! 3. Mode, after the ACL: changing the mode of a file with an ACL keeps both right, and nobody has more rights
//!    in between.
//! 4. Times, because all of the above is done.
//! 5. Flags, because an immutable file takes nothing more.
//!
//! A set-id bit is only given to a file that has the owner (or group) it was recorded with: a program that ran
//! as one user must not come back to run as another.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Gid, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::accounts::{Accounts, LocalAccounts, OwnerMap};
use super::error::TargetError;
use super::handle::{Handle, open_for_listing};
use super::incomplete;
use super::name::{RelativePath, printable};
use super::root::TargetRoot;
use super::stat::{EntryKind, TargetStat};
use super::xattrs::{self, ACCESS_ACL};
use crate::format::tree::{Metadata, Timestamp};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// The inode flags that a restore may set: secure removal, undelete, compressed, synchronous, immutable,
/// append-only, no dump, no access time, data journal, no tail merging, synchronous directory, top of
/// hierarchy, no copy-on-write, project inherited. Others describe how the file system stores the file.
const FLAGS: u32 = 0x2083_c0ff;

/// Which metadata to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataOptions {
    /// Owner and group; usually only root can.
    pub owner: bool,
    /// Take recorded numbers even where a name is recorded and known here.
    pub numeric_ids: bool,
    /// Inode flags such as immutable.
    pub flags: bool,
    /// Extended attributes, ACLs and capabilities.
    pub xattrs: bool,
    /// Modification time.
    pub times: bool,
    /// Permission, set-id and sticky bits.
    pub mode: bool,
}

/// Everything but flags; owners only if this process runs as root.
impl Default for MetadataOptions {
    fn default() -> Self {
        let owner = rustix::process::geteuid().is_root();
        Self { owner, numeric_ids: false, flags: false, xattrs: true, times: true, mode: true }
    }
}

/// A piece of metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataPart {
    /// What is there now, to compare with.
    Current,
    /// Owner and group.
    Owner,
    /// The list of extended attributes.
    Xattrs,
    /// The extended attribute of this name.
    Xattr(Vec<u8>),
    /// Permission bits.
    Mode,
    /// Modification time.
    Times,
    /// Inode flags.
    Flags,
}

impl std::fmt::Display for MetadataPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Current => f.write_str("current metadata"),
            Self::Owner => f.write_str("owner and group"),
            Self::Xattrs => f.write_str("list of extended attributes"),
            Self::Xattr(name) => write!(f, "extended attribute “{}”", printable(name)),
            Self::Mode => f.write_str("mode"),
            Self::Times => f.write_str("modification time"),
            Self::Flags => f.write_str("flags"),
        }
    }
}

/// A piece of metadata that is not as recorded. The others were applied all the same.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The operating system refused.
    #[error("cannot restore the {what}")]
    Io {
        /// Which piece.
        what: MetadataPart,
        /// Why.
        source: io::Error,
    },
    /// An owner or group number that means “leave it” to the kernel.
    #[error("cannot restore the owner {uid}:{gid}: 4294967295 is not a user or group")]
    NoSuchOwner {
        /// Recorded or mapped user.
        uid: u32,
        /// Recorded or mapped group.
        gid: u32,
    },
    /// A time whose part below a second is a second or more.
    #[error("cannot restore the modification time: {found} nanoseconds, at most 999999999 are possible")]
    Nanos {
        /// What was recorded.
        found: u32,
    },
    /// The entry is not there, not of the recorded kind, or shared with unknown names; nothing was applied.
    #[error(transparent)]
    Entry(#[from] TargetError),
}

impl MetadataError {
    fn io(what: MetadataPart, errno: Errno) -> Self {
        Self::Io { what, source: errno.into() }
    }
}

/// Permission bits to create a file or special file with, so that before its metadata is applied nobody can do
/// more than after, and mostly exactly the final ones, which saves a call.
///
/// The owner's bits are the final ones too: a file that has to be reopened by its path before it is complete
/// must be created with 0o600.
pub fn creation_mode(wanted: &Metadata) -> u32 {
    if !wanted.xattrs.is_empty() {
        return 0o600;
    }
    // Whoever is the owner, in the group or neither may change with the owner: give these what all have.
    let (user, group, other) = (wanted.mode >> 6 & 7, wanted.mode >> 3 & 7, wanted.mode & 7);
    let common = user & group & other;
    user << 6 | common << 3 | common
}

/// Applies recorded metadata; one for a whole restore, used from all its threads.
pub struct MetadataWriter {
    options: MetadataOptions,
    owners: OwnerMap,
    is_root: bool,
}

impl MetadataWriter {
    /// Maps owners to the accounts of this machine.
    pub fn new(options: MetadataOptions) -> Self {
        Self::with_accounts(options, Box::new(LocalAccounts))
    }

    /// Maps owners to `accounts`.
    pub fn with_accounts(options: MetadataOptions, accounts: Box<dyn Accounts>) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        Self { options, owners: OwnerMap::new(accounts), is_root }
    }

    /// Applies `wanted` to a file that was created or opened by [`TargetRoot`] and whose content is complete.
    pub fn apply_to_file(&self, file: &File, wanted: &Metadata) -> Vec<MetadataError> {
        self.apply(Handle::Open(file.as_fd()), EntryKind::File, wanted, false)
    }

    /// Applies `wanted` to a file that is not all of `path`, and marks it as such.
    pub fn apply_to_incomplete(
        &self,
        file: &File,
        path: &RelativePath,
        wanted: &Metadata,
    ) -> Vec<MetadataError> {
        incomplete::set_mark(Handle::Open(file.as_fd()), path);
        self.apply(Handle::Open(file.as_fd()), EntryKind::File, wanted, true)
    }

    /// Applies `wanted` to the entry `path`, if it is of kind `kind`; of a directory when all below it is done.
    ///
    /// What has more names than `wanted` says is left alone ([`TargetError::Shared`]): the others may lie
    /// outside the target.
    pub fn apply_to_path(
        &self,
        root: &TargetRoot,
        path: &RelativePath,
        kind: EntryKind,
        wanted: &Metadata,
    ) -> Vec<MetadataError> {
        const APPLY: &str = "restore the metadata of";
        let entry = match root.open_entry(APPLY, path) {
            Ok(Some(entry)) => entry,
            Ok(None) => return vec![TargetError::io(APPLY, path, Errno::NOENT).into()],
            Err(error) => return vec![error.into()],
        };
        let checked = entry
            .expect_kind(APPLY, path, kind)
            .and_then(|()| entry.expect_links(APPLY, path, wanted.links.unwrap_or(1)));
        if let Err(error) = checked {
            return vec![error.into()];
        }
        // A directory that may be read is opened for it, so that its mode and flags need no detour.
        match (kind == EntryKind::Directory).then(|| open_for_listing(entry.fd.as_fd())) {
            Some(Ok(directory)) => self.apply(Handle::Open(directory.as_fd()), kind, wanted, false),
            _ => self.apply(entry.handle(), kind, wanted, false),
        }
    }

    /// With `marked` the mark of what is not whole stays.
    fn apply(
        &self,
        inode: Handle<'_>,
        kind: EntryKind,
        wanted: &Metadata,
        marked: bool,
    ) -> Vec<MetadataError> {
        let mut errors = Vec::new();
        let mut now = match inode.stat() {
            Ok(stat) => Now::new(&stat, kind),
            Err(errno) => return vec![MetadataError::io(MetadataPart::Current, errno)],
        };
        let owner = self.mapped_owner(wanted);
        if self.options.owner {
            now.set_owner(inode, owner, &mut errors);
        }
        let acl = if self.options.xattrs {
            self.unlock(inode, &mut now, wanted);
            xattrs::apply(inode, &wanted.xattrs, marked, &mut errors)
        } else {
            xattrs::Outcome { acl_changed: false, acl_set: false }
        };
        if kind != EntryKind::Symlink {
            let mode =
                if self.options.mode { now.allowed_mode(wanted, owner, acl.acl_set) } else { now.original };
            now.set_mode(inode, mode, acl.acl_changed, &mut errors);
        }
        if self.options.times {
            now.set_times(inode, wanted.mtime, &mut errors);
        }
        if self.options.flags && matches!(kind, EntryKind::File | EntryKind::Directory) {
            set_flags(inode, wanted.flags, &mut errors);
        }
        errors
    }

    /// The owner that an entry is given; none where owners are left as they are.
    pub fn owner_of(&self, wanted: &Metadata) -> Option<(u32, u32)> {
        self.options.owner.then(|| self.mapped_owner(wanted))
    }

    fn mapped_owner(&self, wanted: &Metadata) -> (u32, u32) {
        if self.options.numeric_ids {
            return (wanted.uid, wanted.gid);
        }
        (self.owners.user(&wanted.user, wanted.uid), self.owners.group(&wanted.group, wanted.gid))
    }

    /// Without privilege, user attributes need write permission by the mode, even on an open file.
    fn unlock(&self, inode: Handle<'_>, now: &mut Now, wanted: &Metadata) {
        let needed = !self.is_root && !wanted.xattrs.is_empty() && now.kind != EntryKind::Symlink;
        if needed && now.mode & 0o200 == 0 && inode.set_mode(now.mode | 0o200).is_ok() {
            now.mode |= 0o200;
        }
    }
}

/// What the inode has at the moment.
struct Now {
    kind: EntryKind,
    uid: u32,
    gid: u32,
    /// Permission bits now.
    mode: u32,
    /// Permission bits before anything was done.
    original: u32,
    /// Time of the last modification.
    mtime: Timestamp,
    /// The owner was changed, and with it perhaps the set-id bits.
    owner_changed: bool,
}

impl Now {
    fn new(stat: &Stat, kind: EntryKind) -> Self {
        let mode = stat.st_mode & 0o7777;
        let mtime = TargetStat::new(stat).mtime;
        Self { kind, uid: stat.st_uid, gid: stat.st_gid, mode, original: mode, mtime, owner_changed: false }
    }

    fn set_owner(&mut self, inode: Handle<'_>, (uid, gid): (u32, u32), errors: &mut Vec<MetadataError>) {
        if (uid, gid) == (self.uid, self.gid) {
            return;
        }
        if uid == u32::MAX || gid == u32::MAX {
            errors.push(MetadataError::NoSuchOwner { uid, gid });
            return;
        }
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        match inode.set_owner(Some(user), Some(group)) {
            Ok(()) => (self.uid, self.gid, self.owner_changed) = (uid, gid, true),
            Err(errno) => {
                errors.push(MetadataError::io(MetadataPart::Owner, errno));
                // Without privilege one may still give a file to a group one is in.
                if inode.set_owner(None, Some(group)).is_ok() {
                    (self.gid, self.owner_changed) = (gid, true);
                }
            }
        }
    }

    /// The recorded bits, less those that would give rights to others than they were recorded for.
    fn allowed_mode(&self, wanted: &Metadata, (uid, gid): (u32, u32), acl_set: bool) -> u32 {
        let mut mode = wanted.mode & 0o7777;
        if self.uid != uid {
            mode &= !SET_UID;
        }
        if self.gid != gid && self.kind != EntryKind::Directory {
            mode &= !SET_GID;
        }
        // With an ACL the group bits are the mask of all its entries; without it they are the group's own.
        let acl = wanted.xattrs.iter().find(|xattr| **xattr.name == *ACCESS_ACL);
        if let (false, Some(acl)) = (acl_set, acl) {
            mode &= !0o070 | xattrs::owning_group_bits(&acl.value) << 3;
        }
        mode
    }

    fn set_mode(&self, inode: Handle<'_>, mode: u32, acl_changed: bool, errors: &mut Vec<MetadataError>) {
        let cleared = self.owner_changed && mode & (SET_UID | SET_GID) != 0;
        if mode == self.mode && !cleared && !acl_changed {
            return;
        }
        if let Err(errno) = inode.set_mode(mode) {
            errors.push(MetadataError::io(MetadataPart::Mode, errno));
        }
    }

    /// Setting the time that is there would make the next backup take the entry for changed.
    fn set_times(&self, inode: Handle<'_>, mtime: Timestamp, errors: &mut Vec<MetadataError>) {
        if mtime == self.mtime {
            return;
        }
        if mtime.nanos > 999_999_999 {
            errors.push(MetadataError::Nanos { found: mtime.nanos });
            return;
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
        };
        if let Err(errno) = inode.set_times(&times) {
            errors.push(MetadataError::io(MetadataPart::Times, errno));
        }
    }
}

fn set_flags(inode: Handle<'_>, wanted: u32, errors: &mut Vec<MetadataError>) {
    match inode.set_flags(wanted, FLAGS) {
        // A file system without flags has nothing to restore them to.
        Err(Errno::NOTTY | Errno::OPNOTSUPP) if wanted & FLAGS == 0 => {}
        Err(errno) => errors.push(MetadataError::io(MetadataPart::Flags, errno)),
        Ok(()) => {}
    }
}
