//! Which names of a snapshot are one file.

use std::collections::HashMap;

use crate::format::tree::Metadata;
use crate::target::RelativePath;

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
    known: HashMap<(u64, u64), (RelativePath, u64)>,
    bytes: usize,
    bytes_max: usize,
}

/// What an entry costs beside its path.
const ENTRY_LEN: usize = 80;

impl LinkTable {
    /// Remembers files in `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { known: HashMap::new(), bytes: 0, bytes_max }
    }

    /// Looks up, and for the first of several names remembers, the name `path`.
    pub(super) fn name(&mut self, metadata: &Metadata, path: &RelativePath) -> Name {
        let (Some(links @ 2..), Some(device)) = (metadata.links, metadata.device) else { return Name::Only };
        let key = (device, metadata.inode);
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
        let mut table = LinkTable::new(2 * ENTRY_LEN);
        assert_eq!(table.name(&Metadata::default(), &path("a")), Name::Only);
        assert_eq!(table.name(&file(1, 1), &path("b")), Name::Only);
        assert_eq!(table.name(&file(1, 3), &path("c")), Name::First);
        assert_eq!(table.name(&file(2, 2), &path("d")), Name::Forgotten);
        assert_eq!(table.name(&file(1, 3), &path("e")), Name::Further(path("c")));
        assert_eq!(table.name(&file(1, 3), &path("f")), Name::Further(path("c")));
        assert_eq!(table.bytes, 0);
        assert_eq!(table.name(&file(1, 3), &path("g")), Name::First, "all names had been seen");
    }
}
