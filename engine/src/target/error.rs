//! What can go wrong with an entry of a target.

use std::io;

use rustix::io::Errno;

use super::name::RelativePath;
use super::stat::EntryKind;

/// A failed operation on an entry of a target. Nothing outside the target was touched.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The operating system refused.
    #[error("cannot {operation} “{path}”")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which entry.
        path: RelativePath,
        /// Why it failed.
        source: io::Error,
    },
    /// A directory on the way to the entry is a symbolic link or no directory at all; links are never followed.
    #[error(
        "cannot {operation} “{path}”: a directory on the way to it is a symbolic link or not a directory"
    )]
    ParentNotDirectory {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which entry.
        path: RelativePath,
        /// What resolving the parent directory gave.
        source: io::Error,
    },
    /// The name is taken by something that this operation must not use or replace.
    #[error("cannot {operation} “{path}”: there is a {found} in its place")]
    InTheWay {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which entry.
        path: RelativePath,
        /// What is there.
        found: EntryKind,
    },
    /// The file has more names than expected, some perhaps outside the target, and so is not changed in
    /// place: remove this name and create the file anew.
    #[error("cannot {operation} “{path}”: it has {links} names (hard links), at most {expected} expected")]
    Shared {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which entry.
        path: RelativePath,
        /// Number of names it has.
        links: u64,
        /// Number of names it may have.
        expected: u64,
    },
    /// A device number that the kernel would cut down to that of another device.
    #[error("cannot create the device “{path}”: its number {major}:{minor} is beyond 4095:1048575")]
    DeviceNumber {
        /// The entry.
        path: RelativePath,
        /// Major number asked for.
        major: u32,
        /// Minor number asked for.
        minor: u32,
    },
    /// The target directory itself, where only an entry below it makes sense.
    #[error("cannot {operation} the target directory itself")]
    IsRoot {
        /// What was tried, as a verb.
        operation: &'static str,
    },
    /// The directory that the user named as target cannot be opened.
    #[error("cannot open the target directory “{path}”")]
    Open {
        /// As the user gave it.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl TargetError {
    /// An operating system error of `operation` on `path`.
    pub(super) fn io(operation: &'static str, path: &RelativePath, errno: Errno) -> Self {
        Self::Io { operation, path: path.clone(), source: errno.into() }
    }

    /// Whether the operating system refused for lack of privilege, as it does for devices when not root.
    pub fn is_not_permitted(&self) -> bool {
        self.is(Errno::PERM) || self.is(Errno::ACCESS)
    }

    /// Whether this is [`TargetError::Io`] with `errno`.
    pub(super) fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(errno.raw_os_error()))
    }
}
