//! Which names of a snapshot are one file.

use std::collections::HashMap;

use crate::format::tree::Metadata;
use crate::target::{EntryKind, RelativePath};

/// What is known of a file when a name of it comes along.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// It has no other name.
    Only,
    /// The first of several that is restored: it gets the content.
    First,
    /// Another name of the file that was first restored as this.
    Further(RelativePath),
    /// One of several, but there are too many files of several names to remember this one.
    Forgotten,
}

/// Files with several names of which some are still to come.
#[derive(Debug)]
pub(super) struct LinkTable {
    known: HashMap<Inode, (RelativePath, u64)>,
    bytes: usize,
    bytes_max: usize,
}

/// Device, inode, kind and size: names that differ in the latter are not one file, whatever a snapshot says.
type Inode = (u64, u64, EntryKind, u64);

/// What an entry costs beside its path.
const ENTRY_LEN: usize = 96;

impl LinkTable {
    /// Remembers files in `bytes_max` bytes, but no fewer than a thousand or so.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { known: HashMap::new(), bytes: 0, bytes_max: bytes_max.max(256 << 10) }
    }

    /// Looks up, and for the first of several names remembers, the name `path` of an entry of `kind`; `size` is
    /// that of a regular file.
    pub(super) fn name(
        &mut self,
        kind: EntryKind,
        size: u64,
        metadata: &Metadata,
        path: &RelativePath,
    ) -> Name {
        let (Some(links @ 2..), Some(device)) = (metadata.links, metadata.device) else { return Name::Only };
        let key = (device, metadata.inode, kind, size);
        if let Some((first, left)) = self.known.get_mut(&key) {
            let first = first.clone();
            *left -= 1;
            if *left == 0 {
                self.known.remove(&key);
                self.bytes -= ENTRY_LEN + first.as_bytes().len();
            }
            return Name::Further(first);
        }
        let bytes = self.bytes + ENTRY_LEN + path.as_bytes().len();
        if bytes > self.bytes_max {
            return Name::Forgotten;
        }
        self.bytes = bytes;
        self.known.insert(key, (path.clone(), links - 1));
        Name::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_inode_find_each_other_within_the_memory_given() {
        let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap();
        let file =
            |inode, links| Metadata { inode, links: Some(links), device: Some(7), ..Metadata::default() };
        let mut table = LinkTable::new(0);
        let mut name =
            |metadata: &Metadata, text: &str| table.name(EntryKind::File, 7, metadata, &path(text));
        assert_eq!(name(&Metadata::default(), "a"), Name::Only);
        assert_eq!(name(&file(1, 1), "b"), Name::Only);
        assert_eq!(name(&file(1, 3), "c"), Name::First);
        let limit = (3..100_000).find(|inode| name(&file(*inode, 2), "d") == Name::Forgotten);
        assert!((1_000..5_000).contains(&limit.unwrap()), "{limit:?}");
        assert_eq!(name(&file(1, 3), "e"), Name::Further(path("c")));
        assert_eq!(name(&file(1, 3), "f"), Name::Further(path("c")));
        assert_eq!(name(&file(1, 3), "g"), Name::First, "all names had been seen");
        assert_eq!(table.name(EntryKind::File, 8, &file(3, 2), &path("h")), Name::Forgotten, "another size");
        assert_eq!(table.name(EntryKind::File, 7, &file(3, 2), &path("i")), Name::Further(path("d")));
        assert_eq!(table.name(EntryKind::Fifo, 7, &file(4, 2), &path("j")), Name::First, "another kind");
    }
}
