//! Which names of a snapshot are one file.

use std::collections::HashMap;

use serde::Serialize;

use crate::format::record;
use crate::format::tree::Metadata;
use crate::target::RelativePath;

/// What is known of a file when a name of it comes along.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name<S> {
    /// It has no other name.
    Only,
    /// The first of several that is restored: it gets the content.
    First,
    /// Another name of the file that was first restored as this, and what was remembered with it.
    Further(RelativePath, S),
    /// One of several, but there are too many files of several names to remember this one.
    Forgotten,
}

/// Files with several names of which some are still to come.
#[derive(Debug)]
pub(super) struct LinkTable<S> {
    known: HashMap<Inode, (RelativePath, u64, S)>,
    bytes: usize,
    bytes_max: usize,
}

/// Device, inode and a hash of what the file is: names that differ in the latter are not one file, whatever numbers a
/// snapshot gives them.
type Inode = (u64, u64, [u8; 32]);

/// What an entry costs beside its path, with the state of a file that it keeps.
const ENTRY_LEN: usize = 240;

fn inode(device: u64, content: &impl Serialize, metadata: &Metadata) -> Inode {
    let content = record::encode(&(content, metadata.mtime));
    (device, metadata.inode, blake3::hash(&content).into())
}

impl<S: Clone> LinkTable<S> {
    /// Remembers files in `bytes_max` bytes, but no fewer than a thousand or so.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { known: HashMap::new(), bytes: 0, bytes_max: bytes_max.max(256 << 10) }
    }

    /// Looks up, and for the first of several names remembers, the name `path` of an entry with this content: a file's, or
    /// what else it is. With the first, `state` is remembered.
    pub(super) fn name(
        &mut self,
        content: &impl Serialize,
        metadata: &Metadata,
        path: &RelativePath,
        state: &S,
    ) -> Name<S> {
        let (Some(links @ 2..), Some(device)) = (metadata.links, metadata.device) else { return Name::Only };
        let key = inode(device, content, metadata);
        if let Some((first, left, state)) = self.known.get_mut(&key) {
            let (first, state) = (first.clone(), state.clone());
            *left -= 1;
            if *left == 0 {
                self.known.remove(&key);
                self.bytes -= ENTRY_LEN + first.as_bytes().len();
            }
            return Name::Further(first, state);
        }
        let bytes = self.bytes + ENTRY_LEN + path.as_bytes().len();
        if bytes > self.bytes_max {
            return Name::Forgotten;
        }
        self.bytes = bytes;
        self.known.insert(key, (path.clone(), links - 1, state.clone()));
        Name::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::chunk_list::{Chunk, push_chunk};
    use crate::format::tree::{FileContent, NodeKind, Timestamp};
    use crate::ids::BlobId;

    fn content(id: u8, len: u32) -> FileContent {
        let mut chunks = Vec::new();
        push_chunk(&mut chunks, Chunk { id: BlobId::from_bytes([id; 32]), len });
        FileContent { size: len.into(), chunks: chunks.into(), ..FileContent::default() }
    }

    #[test]
    fn names_of_one_inode_find_each_other_within_the_memory_given() {
        let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap();
        let file =
            |inode, links| Metadata { inode, links: Some(links), device: Some(7), ..Metadata::default() };
        let mut table = LinkTable::new(0);
        let one = content(1, 7);
        let mut name = |metadata: &Metadata, text: &str| table.name(&one, metadata, &path(text), &7);
        assert_eq!(name(&Metadata::default(), "a"), Name::Only);
        assert_eq!(name(&file(1, 1), "b"), Name::Only);
        assert_eq!(name(&file(1, 3), "c"), Name::First);
        let limit = (3..100_000).find(|inode| name(&file(*inode, 2), "d") == Name::Forgotten);
        assert!((1_000..5_000).contains(&limit.unwrap()), "{limit:?}");
        assert_eq!(name(&file(1, 3), "e"), Name::Further(path("c"), 7));
        assert_eq!(name(&file(1, 3), "f"), Name::Further(path("c"), 7));
        assert_eq!(name(&file(1, 3), "g"), Name::First, "all names had been seen");
        assert_eq!(table.name(&content(1, 8), &file(3, 2), &path("h"), &8), Name::Forgotten, "another size");
        assert_eq!(table.name(&content(2, 7), &file(3, 2), &path("h"), &8), Name::Forgotten, "other content");
        let mtime = Timestamp { seconds: 1, nanos: 0 };
        let touched = Metadata { mtime, ..file(3, 2) };
        assert_eq!(table.name(&one, &touched, &path("h"), &8), Name::Forgotten, "another time");
        assert_eq!(table.name(&one, &file(3, 2), &path("i"), &8), Name::Further(path("d"), 7));
        assert_eq!(table.name(&NodeKind::Fifo, &file(4, 2), &path("j"), &8), Name::First, "another kind");
    }
}
