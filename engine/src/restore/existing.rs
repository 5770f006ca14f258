//! What becomes of an entry whose name is, or is not, taken in the target.

use super::Overwrite;
use crate::format::tree::Metadata;
use crate::target::{EntryKind, TargetStat};

/// How an entry comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is nothing of that name: create it.
    Create,
    /// Something is there: put the entry in its place.
    Replace,
    /// A file is there: compare, and rewrite what differs.
    InPlace {
        /// Its length in bytes.
        size: u64,
    },
    /// There is nothing of that name, but an earlier restore left this many bytes of it under another: compare, rewrite what
    /// differs, and give it its name.
    Resume {
        /// Their number.
        size: u64,
    },
    /// A file of this length with several names, no more than were recorded, is there: compare, and put the file in its place if
    /// anything differs. Another name may lie outside the target, so it is not written to.
    Shared,
    /// A file is there whose content is taken as equal: apply metadata only.
    Keep,
    /// What is there stays as it is.
    Leave,
}

/// Decides about an entry: `size` is that of a regular file, `None` for other kinds.
pub(super) fn decide(
    overwrite: Overwrite,
    size: Option<u64>,
    metadata: &Metadata,
    found: Option<&TargetStat>,
) -> Fate {
    let Some(found) = found else { return Fate::Create };
    if is_left(overwrite, Some(metadata), found) {
        return Fate::Leave;
    }
    if size.is_none() || found.kind != EntryKind::File {
        return Fate::Replace;
    }
    let names = metadata.links.unwrap_or(1);
    if overwrite == Overwrite::IfChanged
        && size == Some(found.size)
        && found.mtime == metadata.mtime
        && found.links <= names
    {
        return Fate::Keep;
    }
    match found.links {
        1 => Fate::InPlace { size: found.size },
        links if links <= names && size == Some(found.size) => Fate::Shared,
        // Another name may lie outside the target: then it gets an inode of its own.
        _ => Fate::Replace,
    }
}

/// Whether what is there is left alone, whatever the snapshot has for its place.
pub(super) fn is_left(overwrite: Overwrite, metadata: Option<&Metadata>, found: &TargetStat) -> bool {
    match overwrite {
        Overwrite::Always | Overwrite::IfChanged => false,
        Overwrite::IfNewer => metadata.is_none_or(|metadata| found.mtime >= metadata.mtime),
        Overwrite::Never => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::Timestamp;

    fn stat(kind: EntryKind, size: u64, seconds: i64, links: u64) -> TargetStat {
        let mtime = Timestamp { seconds, nanos: 5 };
        let (inode, device, mode, uid, gid, special) = (1, 1, 0o644, 0, 0, (0, 0));
        TargetStat { kind, size, mtime, inode, device, mode, uid, gid, links, special }
    }

    #[test]
    fn every_mode_meets_every_obstacle() {
        use EntryKind::{Directory, File, Symlink};
        use Overwrite::{Always, IfChanged, IfNewer, Never};
        let wanted = Metadata { mtime: Timestamp { seconds: 10, nanos: 5 }, ..Metadata::default() };
        let rows = [
            (Always, File, 7, 10, 1, Fate::InPlace { size: 7 }),
            (Always, File, 7, 10, 2, Fate::Replace),
            (Always, Symlink, 7, 10, 1, Fate::Replace),
            (Always, Directory, 7, 10, 9, Fate::Replace),
            (IfChanged, File, 7, 10, 1, Fate::Keep),
            (IfChanged, File, 7, 10, 2, Fate::Replace),
            (IfChanged, File, 8, 10, 1, Fate::InPlace { size: 8 }),
            (IfChanged, File, 7, 11, 1, Fate::InPlace { size: 7 }),
            (IfNewer, File, 7, 10, 1, Fate::Leave),
            (IfNewer, File, 7, 11, 1, Fate::Leave),
            (IfNewer, File, 7, 9, 1, Fate::InPlace { size: 7 }),
            (IfNewer, Symlink, 7, 9, 1, Fate::Replace),
            (IfNewer, Directory, 7, 11, 1, Fate::Leave),
            (IfNewer, Directory, 7, 9, 1, Fate::Replace),
            (Never, File, 7, 9, 1, Fate::Leave),
            (Never, Directory, 7, 9, 1, Fate::Leave),
        ];
        for (overwrite, kind, size, seconds, links, fate) in rows {
            let found = stat(kind, size, seconds, links);
            let decided = decide(overwrite, Some(7), &wanted, Some(&found));
            assert_eq!(decided, fate, "{overwrite:?} {found:?}");
        }
        for overwrite in [Always, IfChanged, IfNewer, Never] {
            assert_eq!(decide(overwrite, Some(7), &wanted, None), Fate::Create);
        }
        let linked = Metadata { links: Some(2), ..wanted.clone() };
        let decided = |overwrite, size, seconds, links| {
            decide(overwrite, Some(7), &linked, Some(&stat(File, size, seconds, links)))
        };
        assert_eq!(decided(Always, 7, 10, 2), Fate::Shared);
        assert_eq!(decided(Always, 8, 10, 2), Fate::Replace);
        assert_eq!(decided(Always, 7, 10, 3), Fate::Replace, "one name more than recorded");
        assert_eq!(decided(Always, 7, 10, 1), Fate::InPlace { size: 7 });
        assert_eq!(decided(IfChanged, 7, 10, 2), Fate::Keep);
        assert_eq!(decided(IfChanged, 7, 11, 2), Fate::Shared);
        assert_eq!(decide(Always, None, &wanted, Some(&stat(File, 7, 10, 1))), Fate::Replace);
    }
}
