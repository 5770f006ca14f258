//! Whether a file system has room for so many bytes more.

use std::os::fd::OwnedFd;

use rustix::fs::{fstatfs, fstatvfs};

use super::publish::TemporaryFile;

/// Magic numbers of XFS and btrfs. Both free the room of a deleted file in the background and count it only then, but wait for it where
/// otherwise they would have to refuse; and both refuse to set room aside before they take any of it.
const FREE_LATER: [u64; 2] = [0x5846_5342, 0x9123_683e];

/// Whether so many bytes more can be stored in `folder`; none where the file system keeps no count. Where what it counts is too little
/// and may come late, `temporary` makes an empty file there, for which so much is set aside and given back.
pub(super) fn has_room(
    folder: &OwnedFd,
    bytes: u64,
    temporary: impl FnOnce() -> Option<TemporaryFile>,
) -> Option<bool> {
    let counted = fstatvfs(folder).ok().filter(|found| found.f_blocks > 0)?;
    if counted.f_bavail.saturating_mul(counted.f_frsize) >= bytes {
        return Some(true);
    }
    // Each field has another type on another platform.
    #[allow(clippy::unnecessary_cast)]
    let frees_later = fstatfs(folder).is_ok_and(|found| FREE_LATER.contains(&(found.f_type as u64)));
    Some(frees_later && temporary().is_some_and(|file| file.can_grow(bytes)))
}
