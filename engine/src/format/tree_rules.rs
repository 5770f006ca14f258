//! What a tree has to obey besides its encoding: possible names in ascending order, times, attributes, and files
//! whose chunks and holes make up their size. See `format-spec`, Trees.
//!
//! Pure and cheap: every tree that is read passes through here.

use std::slice;

use serde_bytes::ByteBuf;

use crate::format::chunk_list::{self, DEPTH_MAX, TableError};
use crate::format::tree::{
    FileContent, HOLES_MAX, Hole, Metadata, Node, NodeKind, Timestamp, Tree, TreePart, XATTRS_WEIGHT_MAX,
    Xattr,
};

/// Longest name of an entry in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// Parts of a split directory nest at most this deep.
pub const PART_DEPTH_MAX: usize = 8;

/// A tree that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeRuleError {
    /// A split directory without parts.
    #[error("it is split into no parts")]
    NoParts,
    /// Parts of parts of parts.
    #[error("its parts nest deeper than {PART_DEPTH_MAX}")]
    Depth,
    /// A part is not what the tree above says of it.
    #[error("the part from “{part}” on begins with “{first}” and has {entries} entries, expected {expected}")]
    Part {
        /// Name that the part has to begin with.
        part: String,
        /// Name that it begins with.
        first: String,
        /// Entries in it.
        entries: u64,
        /// Entries that the tree above says.
        expected: u64,
    },
    /// An entry, or the first name of a part, breaks a rule.
    #[error("entry “{entry}”: {rule}")]
    Entry {
        /// Its name.
        entry: String,
        /// The rule.
        rule: EntryRule,
    },
    /// A file's chunk table is none.
    #[error("entry “{entry}”: {source}")]
    Table {
        /// The file's name.
        entry: String,
        /// What is wrong with the table.
        source: TableError,
    },
}

/// The rule that an entry breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryRule {
    /// Names have 1 to 255 bytes without `/` and NUL, and are neither `.` nor `..`.
    #[error("its name is impossible")]
    Name,
    /// Names ascend strictly.
    #[error("its name does not come after the one before it")]
    Order,
    /// A part has entries.
    #[error("the part that begins with it has no entries")]
    EmptyPart,
    /// A second has fewer nanoseconds.
    #[error("a time has {0} nanoseconds, at most 999,999,999 are possible")]
    Nanos(u32),
    /// Permission, set-id and sticky bits are all there are.
    #[error("its mode is {0:#o}, at most 0o7777 is possible")]
    Mode(u32),
    /// The device number tells hard links apart and stands for nothing else.
    #[error("it has a device number but no number of links")]
    Device,
    /// Attribute names are not empty, hold no NUL and ascend strictly.
    #[error("the names of its extended attributes are impossible or do not ascend")]
    XattrNames,
    /// Extended attributes have a limit.
    #[error("its extended attributes weigh {0} bytes, at most {XATTRS_WEIGHT_MAX} are possible")]
    XattrsWeight(u64),
    /// A symbolic link points to something.
    #[error("its target is empty or has a NUL")]
    Target,
    /// Holes have a limit.
    #[error("it has {0} holes, at most {HOLES_MAX} are possible")]
    HoleCount(usize),
    /// Holes ascend, are not empty, do not touch and lie inside the file.
    #[error("its hole at {0} is empty, touches or overlaps another or leaves the file")]
    Hole(u64),
    /// A chunk lies between two holes.
    #[error("its chunk at {0} crosses a hole or the end of the file")]
    Chunk(u64),
    /// Chunks and holes together are the file.
    #[error("its chunks and holes make up {found} bytes, expected {size}")]
    Size {
        /// Bytes found.
        found: u64,
        /// The file's size.
        size: u64,
    },
}

impl EntryRule {
    fn of(self, name: &[u8]) -> TreeRuleError {
        TreeRuleError::Entry { entry: shown(name), rule: self }
    }
}

/// A name that can be printed: control characters and broken UTF-8 are escaped, and it is cut where it is long.
fn shown(name: &[u8]) -> String {
    let text = name.get(..NAME_LEN_MAX).unwrap_or(name);
    match std::str::from_utf8(text) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => text.escape_ascii().to_string(),
    }
}

fn is_name(name: &[u8]) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// Whether all of these are names and ascend strictly.
fn check_names<'a>(names: impl Iterator<Item = &'a ByteBuf>) -> Result<(), TreeRuleError> {
    let mut last: &[u8] = b"";
    for name in names {
        if !is_name(name) {
            return Err(EntryRule::Name.of(name));
        }
        if last >= name.as_slice() {
            return Err(EntryRule::Order.of(name));
        }
        last = name;
    }
    Ok(())
}

impl Tree {
    /// Whether the tree obeys all rules that can be seen without reading another blob.
    ///
    /// # Errors
    /// [`TreeRuleError`] for the first rule that is broken.
    pub fn validate(&self) -> Result<(), TreeRuleError> {
        match self {
            Self::Nodes(nodes) => {
                check_names(nodes.iter().map(|node| &node.name))?;
                nodes.iter().try_for_each(Node::validate)
            }
            Self::Parts(parts) if parts.is_empty() => Err(TreeRuleError::NoParts),
            Self::Parts(parts) => {
                check_names(parts.iter().map(|part| &part.first))?;
                match parts.iter().find(|part| part.entries == 0) {
                    Some(part) => Err(EntryRule::EmptyPart.of(&part.first)),
                    None => Ok(()),
                }
            }
        }
    }

    /// Name of the first entry, here or below; none in an empty directory.
    pub fn first(&self) -> Option<&ByteBuf> {
        match self {
            Self::Nodes(nodes) => nodes.first().map(|node| &node.name),
            Self::Parts(parts) => parts.first().map(|part| &part.first),
        }
    }

    /// Number of entries, here and, as it says, below.
    pub fn entries(&self) -> u64 {
        match self {
            Self::Nodes(nodes) => nodes.len() as u64,
            Self::Parts(parts) => parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.entries)),
        }
    }
}

impl TreePart {
    /// Whether `tree` is what this part says it is.
    ///
    /// # Errors
    /// [`TreeRuleError::Part`].
    pub fn check(&self, tree: &Tree) -> Result<(), TreeRuleError> {
        if tree.first() == Some(&self.first) && tree.entries() == self.entries {
            return Ok(());
        }
        Err(TreeRuleError::Part {
            part: shown(&self.first),
            first: shown(tree.first().map_or(b"", |first| first)),
            entries: tree.entries(),
            expected: self.entries,
        })
    }
}

impl Node {
    /// Whether the entry obeys all rules that can be seen without reading another blob.
    ///
    /// # Errors
    /// [`TreeRuleError`] for the first rule that is broken.
    pub fn validate(&self) -> Result<(), TreeRuleError> {
        let broken = |rule: EntryRule| rule.of(&self.name);
        if !is_name(&self.name) {
            return Err(broken(EntryRule::Name));
        }
        self.metadata.validate().map_err(broken)?;
        match &self.kind {
            NodeKind::Symlink { target } if target.is_empty() || target.contains(&0) => {
                Err(broken(EntryRule::Target))
            }
            NodeKind::File(content) => content.validate().map_err(|error| match error {
                ContentError::Rule(rule) => broken(rule),
                ContentError::Table(source) => TreeRuleError::Table { entry: shown(&self.name), source },
            }),
            _ => Ok(()),
        }
    }
}

impl Metadata {
    fn validate(&self) -> Result<(), EntryRule> {
        let times = [Some(self.mtime), Some(self.ctime), self.btime];
        if let Some(time) = times.into_iter().flatten().find(|time| !time.is_valid()) {
            return Err(EntryRule::Nanos(time.nanos));
        }
        if self.mode > 0o7777 {
            return Err(EntryRule::Mode(self.mode));
        }
        if self.device.is_some() && self.links.is_none() {
            return Err(EntryRule::Device);
        }
        let mut last: &[u8] = b"";
        for xattr in &self.xattrs {
            // The empty name does not come after anything.
            if last >= xattr.name.as_slice() || xattr.name.contains(&0) {
                return Err(EntryRule::XattrNames);
            }
            last = &xattr.name;
        }
        match self.xattrs.iter().map(Xattr::weight).sum() {
            0..=XATTRS_WEIGHT_MAX => Ok(()),
            weight => Err(EntryRule::XattrsWeight(weight)),
        }
    }
}

impl Timestamp {
    /// Whether the nanoseconds are fewer than a second.
    pub fn is_valid(&self) -> bool {
        self.nanos < 1_000_000_000
    }
}

enum ContentError {
    Rule(EntryRule),
    Table(TableError),
}

impl From<EntryRule> for ContentError {
    fn from(rule: EntryRule) -> Self {
        Self::Rule(rule)
    }
}

impl From<TableError> for ContentError {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

impl FileContent {
    fn validate(&self) -> Result<(), ContentError> {
        check_holes(&self.holes, self.size)?;
        if self.depth > DEPTH_MAX {
            return Err(TableError::Depth { found: self.depth, expected: DEPTH_MAX }.into());
        }
        if self.depth == 0 {
            let mut places = ChunkPlaces::new(self);
            for chunk in chunk_list::chunks(&self.chunks)? {
                places.place(chunk?.len)?;
            }
            return Ok(places.finish()?);
        }
        let mut found: u64 = self.holes.iter().map(|hole| hole.length).sum();
        for list in chunk_list::lists(&self.chunks)? {
            found = found.saturating_add(list?.bytes);
        }
        // Nothing of 2^64 − 1 bytes exists, so a sum that does not fit is no file's size.
        if found == self.size && found < u64::MAX {
            return Ok(());
        }
        Err(EntryRule::Size { found, size: self.size }.into())
    }
}

/// Whether holes ascend without touching and lie in a file of `size` bytes. Their sum then fits, too.
fn check_holes(holes: &[Hole], size: u64) -> Result<(), EntryRule> {
    if holes.len() > HOLES_MAX {
        return Err(EntryRule::HoleCount(holes.len()));
    }
    let mut last_end = None;
    for hole in holes {
        let end = hole.offset.checked_add(hole.length).filter(|end| hole.length > 0 && *end <= size);
        if end.is_none() || last_end.is_some_and(|last| hole.offset <= last) {
            return Err(EntryRule::Hole(hole.offset));
        }
        last_end = end;
    }
    Ok(())
}

/// Gives the chunks of a file, in order, their offsets, and finds those that cross a hole or the end. The file's
/// holes have to be in order, as [`Node::validate`] says.
#[derive(Debug)]
pub struct ChunkPlaces<'a> {
    holes: slice::Iter<'a, Hole>,
    next: Option<&'a Hole>,
    at: u64,
    size: u64,
}

impl<'a> ChunkPlaces<'a> {
    /// Before the first chunk.
    pub fn new(content: &'a FileContent) -> Self {
        let mut holes = content.holes.iter();
        let next = holes.next();
        Self { holes, next, at: 0, size: content.size }
    }

    fn skip_hole(&mut self) {
        if let Some(hole) = self.next
            && hole.offset == self.at
        {
            self.at += hole.length;
            self.next = self.holes.next();
        }
    }

    /// Offset in the file of the next chunk, which has `len` bytes.
    ///
    /// # Errors
    /// [`EntryRule::Chunk`] where the chunk does not fit before the next hole or the end.
    pub fn place(&mut self, len: u32) -> Result<u64, EntryRule> {
        self.skip_hole();
        let end = self.next.map_or(self.size, |hole| hole.offset);
        let start = self.at;
        match start.checked_add(u64::from(len)) {
            Some(at) if at <= end => {
                self.at = at;
                Ok(start)
            }
            _ => Err(EntryRule::Chunk(start)),
        }
    }

    /// Whether chunks and holes reached the end of the file.
    ///
    /// # Errors
    /// [`EntryRule::Size`].
    pub fn finish(mut self) -> Result<(), EntryRule> {
        self.skip_hole();
        if self.at == self.size && self.next.is_none() {
            return Ok(());
        }
        Err(EntryRule::Size { found: self.at, size: self.size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::chunk_list::{Chunk, push_chunk};
    use crate::ids::BlobId;

    fn node(name: &[u8], kind: NodeKind) -> Node {
        Node { name: ByteBuf::from(name), kind, metadata: Metadata::default() }
    }

    fn content(size: u64, chunks: &[u32], holes: &[(u64, u64)]) -> FileContent {
        let mut table = Vec::new();
        for len in chunks {
            push_chunk(&mut table, Chunk { id: BlobId::from_bytes([1; 32]), len: *len });
        }
        let holes = holes.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect();
        FileContent { size, chunks: table.into(), holes, ..FileContent::default() }
    }

    fn broken(content: FileContent) -> Option<EntryRule> {
        match node(b"f", NodeKind::File(content)).validate() {
            Ok(()) => None,
            Err(TreeRuleError::Entry { entry, rule }) => {
                assert_eq!(entry, "f");
                Some(rule)
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn chunks_lie_between_holes() {
        assert_eq!(broken(content(0, &[], &[])), None);
        assert_eq!(broken(content(10, &[], &[(0, 10)])), None);
        assert_eq!(broken(content(20, &[3, 2, 5], &[(5, 5), (15, 5)])), None);
        assert_eq!(broken(content(20, &[5, 5], &[(0, 5), (10, 5)])), None);
        assert_eq!(broken(content(20, &[4, 6], &[(5, 5), (15, 5)])), Some(EntryRule::Chunk(4)));
        assert_eq!(broken(content(20, &[5, 6], &[(5, 5), (15, 5)])), Some(EntryRule::Chunk(10)));
        assert_eq!(broken(content(20, &[5, 4], &[(5, 5)])), Some(EntryRule::Size { found: 14, size: 20 }));
        assert_eq!(
            broken(content(20, &[5], &[(5, 5), (15, 5)])),
            Some(EntryRule::Size { found: 10, size: 20 })
        );
        assert_eq!(broken(content(4, &[5], &[])), Some(EntryRule::Chunk(0)));
    }

    #[test]
    fn a_node_has_its_limits() {
        let sparse = |count: u64| {
            let holes: Vec<_> = (0..count).map(|n| (2 * n + 1, 1)).collect();
            broken(content(2 * count, &vec![1; holes.len()], &holes))
        };
        assert_eq!(sparse(HOLES_MAX as u64), None);
        assert_eq!(sparse(HOLES_MAX as u64 + 1), Some(EntryRule::HoleCount(HOLES_MAX + 1)));

        let mut fifo = node(b"x", NodeKind::Fifo);
        let value = vec![0; XATTRS_WEIGHT_MAX as usize - 32 - 6];
        fifo.metadata.xattrs = vec![Xattr { name: ByteBuf::from(b"user.a"), value: value.into() }];
        assert_eq!(fifo.validate(), Ok(()));
        fifo.metadata.xattrs[0].value.push(0);
        let weight = EntryRule::XattrsWeight(XATTRS_WEIGHT_MAX + 1);
        assert_eq!(fifo.validate(), Err(TreeRuleError::Entry { entry: "x".into(), rule: weight }));
    }

    #[test]
    fn the_error_names_the_entry_printably() {
        let tree = Tree::Nodes(vec![node(b"b", NodeKind::Fifo), node(b"a\x1b\xff", NodeKind::Fifo)]);
        let error = tree.validate().expect_err("out of order");
        assert_eq!(error, TreeRuleError::Entry { entry: r"a\x1b\xff".into(), rule: EntryRule::Order });
    }

    #[test]
    fn a_part_is_what_the_tree_above_says() {
        let tree = Tree::Nodes(vec![node(b"a", NodeKind::Fifo), node(b"b", NodeKind::Fifo)]);
        let part = |first: &[u8], entries| TreePart {
            first: ByteBuf::from(first),
            entries,
            tree: BlobId::from_bytes([1; 32]),
        };
        assert_eq!(part(b"a", 2).check(&tree), Ok(()));
        assert_eq!(part(b"a", 2).check(&Tree::Parts(vec![part(b"a", 1), part(b"c", 1)])), Ok(()));
        for (first, entries) in [(b"a", 1), (b"b", 2)] {
            assert!(part(first, entries).check(&tree).is_err());
        }
        assert!(part(b"a", 0).check(&Tree::Nodes(Vec::new())).is_err());
    }
}
