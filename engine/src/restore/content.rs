//! The content of a file as its node tells it: checked before anything is written, then chunk by chunk with the
//! place of each.

use serde_bytes::ByteBuf;

use super::tally;
use crate::format::chunk_list::{
    self, CHUNK_ENTRY_LEN, Chunk, ChunkList, DEPTH_MAX, LIST_ENTRY_LEN, ListRef, TableError,
};
use crate::format::tree::{FileContent, HOLES_MAX, Hole};
use crate::ids::BlobId;

/// A node's content contradicts itself, or a part of its chunk table cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentError {
    /// No file can be this long.
    #[error("the snapshot says it has {0} bytes: no file has more than {max}", max = i64::MAX)]
    Size(u64),
    /// A hole that cannot be where it is.
    #[error("hole {number} of the file ({offset}+{length}) {problem}")]
    Hole { number: usize, offset: u64, length: u64, problem: &'static str },
    /// The chunk table is not one.
    #[error("the file's chunk table is damaged: {0}")]
    Table(#[from] TableError),
    /// Chunks and holes do not make up the file.
    #[error("the file's chunks have {found} bytes in all, but its size less its holes is {expected}")]
    Length { expected: u64, found: u64 },
    /// A part of the table holds more or less than its parent says.
    #[error("a part of the file's chunk table has {found} bytes of content, expected {expected}")]
    Part { expected: u64, found: u64 },
    /// A chunk that does not end before the next hole.
    #[error("the file's chunk at {at} has {len} bytes: it crosses the hole at {hole}")]
    Crosses { at: u64, len: u32, hole: u64 },
    /// More holes than any file has.
    #[error("the file has {0} holes, at most {HOLES_MAX} are possible")]
    HoleCount(usize),
    /// A part of the table cannot be read.
    #[error("chunk list {id} of the file cannot be read: {why}")]
    List { id: BlobId, code: &'static str, why: String },
}

impl ContentError {
    /// The code of a problem with a file's chunk table.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::List { code, .. } => code,
            _ => tally::DAMAGED,
        }
    }
}

/// Reads a part of a chunk table, or says with which code it cannot, and why.
pub(super) type LoadList<'a> = dyn FnMut(&BlobId) -> Result<ChunkList, (&'static str, String)> + 'a;

/// Checks size, holes and the top of the chunk table, and where chunks are in it also their places; gives the bytes
/// that are not in holes.
pub(super) fn check(content: &FileContent) -> Result<u64, ContentError> {
    if i64::try_from(content.size).is_err() {
        return Err(ContentError::Size(content.size));
    }
    if content.holes.len() > HOLES_MAX {
        return Err(ContentError::HoleCount(content.holes.len()));
    }
    let (mut end, mut in_holes) = (None, 0);
    for (number, hole) in content.holes.iter().enumerate() {
        let Hole { offset, length } = *hole;
        let wrong = |problem| ContentError::Hole { number, offset, length, problem };
        if length == 0 {
            return Err(wrong("is empty"));
        }
        if end.is_some_and(|end| offset <= end) {
            return Err(wrong("begins before or at the end of the one before it"));
        }
        let hole_end = offset.checked_add(length).filter(|end| *end <= content.size);
        end = Some(hole_end.ok_or_else(|| wrong("reaches beyond the file"))?);
        in_holes += length;
    }
    if content.depth > DEPTH_MAX {
        return Err(TableError::Depth { found: content.depth, expected: DEPTH_MAX }.into());
    }
    let expected = content.size - in_holes;
    let found = table_bytes(&content.chunks, content.depth)?;
    if found != expected {
        return Err(ContentError::Length { expected, found });
    }
    if content.depth == 0 && !content.holes.is_empty() {
        let mut placer = Placer::new(content.holes.as_slice());
        for chunk in chunk_list::chunks(&content.chunks)? {
            placer.place(chunk?.len)?;
        }
    }
    Ok(found)
}

/// Bytes of content that a table stands for.
fn table_bytes(table: &[u8], depth: u8) -> Result<u64, TableError> {
    let mut total = 0_u64;
    if depth == 0 {
        for chunk in chunk_list::chunks(table)? {
            total = total.saturating_add(chunk?.len.into());
        }
    } else {
        for list in chunk_list::lists(table)? {
            total = total.saturating_add(list?.bytes);
        }
    }
    Ok(total)
}

/// Goes through the chunks of a file, holding one table of each depth at a time.
pub(super) struct Chunks {
    levels: Vec<Level>,
}

struct Level {
    table: ByteBuf,
    depth: u8,
    next: usize,
    /// Bytes of content the rest of the table has to have.
    left: u64,
    bytes: u64,
}

impl Chunks {
    /// Begins with a file's table of `depth` that [`check`] found to have `bytes` of content.
    pub(super) fn new(table: ByteBuf, depth: u8, bytes: u64) -> Self {
        Self { levels: vec![Level { table, depth, next: 0, left: bytes, bytes }] }
    }

    /// The next chunk, reading parts of the table with `load`. After an error there is nothing more to be had.
    pub(super) fn next(&mut self, load: &mut LoadList<'_>) -> Option<Result<Chunk, ContentError>> {
        let next = self.step(load).transpose();
        if matches!(next, Some(Err(_))) {
            self.levels.clear();
        }
        next
    }

    fn step(&mut self, load: &mut LoadList<'_>) -> Result<Option<Chunk>, ContentError> {
        while let Some(level) = self.levels.last_mut() {
            let width = if level.depth == 0 { CHUNK_ENTRY_LEN } else { LIST_ENTRY_LEN };
            let Some(entry) = level.table.get(level.next..level.next + width) else {
                let done = self.levels.pop();
                if let Some(Level { left, bytes, .. }) = done.filter(|level| level.left > 0) {
                    return Err(ContentError::Part { expected: bytes, found: bytes - left });
                }
                continue;
            };
            let next =
                if level.depth == 0 { chunk(entry).map(Next::Chunk) } else { list(entry).map(Next::List) };
            level.next += width;
            match next? {
                Next::Chunk(chunk) => {
                    level.take(chunk.len.into())?;
                    return Ok(Some(chunk));
                }
                Next::List(list) => {
                    level.take(list.bytes)?;
                    let below = Level::load(list, level.depth - 1, load)?;
                    self.levels.push(below);
                }
            }
        }
        Ok(None)
    }
}

/// An entry of a table.
enum Next {
    Chunk(Chunk),
    List(ListRef),
}

fn chunk(entry: &[u8]) -> Result<Chunk, TableError> {
    chunk_list::chunks(entry)?.next().unwrap_or(Err(TableError::Length(0)))
}

fn list(entry: &[u8]) -> Result<ListRef, TableError> {
    chunk_list::lists(entry)?.next().unwrap_or(Err(TableError::Length(0)))
}

impl Level {
    /// Reads the part of a table that `list` names.
    fn load(list: ListRef, depth: u8, load: &mut LoadList<'_>) -> Result<Self, ContentError> {
        let ListRef { id, bytes } = list;
        let loaded = load(&id).map_err(|(code, why)| ContentError::List { id, code, why })?;
        if loaded.depth != depth {
            return Err(TableError::Depth { found: loaded.depth, expected: depth }.into());
        }
        let found = table_bytes(&loaded.chunks, depth)?;
        if found != bytes {
            return Err(ContentError::Part { expected: bytes, found });
        }
        Ok(Self { table: loaded.chunks, depth, next: 0, left: bytes, bytes })
    }

    fn take(&mut self, bytes: u64) -> Result<(), ContentError> {
        let too_many = ContentError::Part { expected: self.bytes, found: self.bytes.saturating_add(bytes) };
        self.left = self.left.checked_sub(bytes).ok_or(too_many)?;
        Ok(())
    }
}

/// Finds the place of each chunk in a file with holes.
pub(super) struct Placer<H> {
    holes: H,
    next_hole: usize,
    at: u64,
}

impl<H: AsRef<[Hole]>> Placer<H> {
    /// Begins at the first byte of a file whose holes passed [`check`].
    pub(super) fn new(holes: H) -> Self {
        Self { holes, next_hole: 0, at: 0 }
    }

    /// Offset in the file of the first byte of the next chunk, which has `len` bytes.
    ///
    /// # Errors
    /// [`ContentError::Crosses`] where it does not fit before the next hole.
    pub(super) fn place(&mut self, len: u32) -> Result<u64, ContentError> {
        let holes = self.holes.as_ref();
        if let Some(hole) = holes.get(self.next_hole).filter(|hole| hole.offset == self.at) {
            self.at += hole.length;
            self.next_hole += 1;
        }
        let (at, end) = (self.at, self.at.saturating_add(len.into()));
        if let Some(hole) = holes.get(self.next_hole).filter(|hole| hole.offset < end) {
            return Err(ContentError::Crosses { at, len, hole: hole.offset });
        }
        self.at = end;
        Ok(at)
    }

    /// Offset in the file of what comes next.
    pub(super) fn position(&self) -> u64 {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn id(n: u8) -> BlobId {
        BlobId::from_bytes([n; 32])
    }

    fn table(lens: &[u32]) -> ByteBuf {
        let mut table = Vec::new();
        for (n, len) in (1..).zip(lens) {
            chunk_list::push_chunk(&mut table, Chunk { id: id(n), len: *len });
        }
        ByteBuf::from(table)
    }

    fn hole(offset: u64, length: u64) -> Hole {
        Hole { offset, length }
    }

    fn all(content: FileContent, lists: &HashMap<BlobId, ChunkList>) -> Result<Vec<u32>, ContentError> {
        let bytes = check(&content)?;
        let mut chunks = Chunks::new(content.chunks, content.depth, bytes);
        let mut lens = Vec::new();
        while let Some(chunk) =
            chunks.next(&mut |id| lists.get(id).cloned().ok_or((tally::MISSING, "none".to_owned())))
        {
            lens.push(chunk?.len);
        }
        Ok(lens)
    }

    #[test]
    fn chunks_find_their_places_between_holes() {
        let holes = [hole(0, 10), hole(15, 5), hole(40, 60)];
        let mut placer = Placer::new(&holes[..]);
        let places: Vec<u64> = [3, 2, 20].into_iter().map(|len| placer.place(len).unwrap()).collect();
        assert_eq!(places, [10, 13, 20]);
        let mut placer = Placer::new(&holes[..]);
        assert!(matches!(placer.place(6), Err(ContentError::Crosses { at: 10, len: 6, hole: 15 })));
        assert_eq!(placer.place(5).unwrap(), 10, "up to the hole");
        assert!(matches!(placer.place(21), Err(ContentError::Crosses { at: 20, len: 21, hole: 40 })));
        let content = |size, lens: &[u32], holes: &[Hole]| FileContent {
            size,
            chunks: table(lens),
            holes: holes.to_vec(),
            ..FileContent::default()
        };
        assert_eq!(check(&content(100, &[5, 20], &holes)).unwrap(), 25);
        let crossing = check(&content(100, &[6, 19], &holes)).unwrap_err();
        assert!(matches!(crossing, ContentError::Crosses { .. }), "{crossing}");
    }

    #[test]
    fn nested_tables_are_walked_in_order() {
        let mut lists = HashMap::new();
        lists.insert(id(100), ChunkList { depth: 0, chunks: table(&[5, 6]) });
        lists.insert(id(101), ChunkList { depth: 0, chunks: table(&[7]) });
        let mut top = Vec::new();
        chunk_list::push_list(&mut top, ListRef { id: id(100), bytes: 11 });
        chunk_list::push_list(&mut top, ListRef { id: id(101), bytes: 7 });
        let content =
            FileContent { size: 18, depth: 1, chunks: ByteBuf::from(top), ..FileContent::default() };
        assert_eq!(all(content.clone(), &lists).unwrap(), [5, 6, 7]);
        lists.insert(id(101), ChunkList { depth: 0, chunks: table(&[8]) });
        let found = all(content.clone(), &lists).unwrap_err();
        assert!(matches!(found, ContentError::Part { expected: 7, found: 8 }), "{found}");
        lists.insert(id(101), ChunkList { depth: 1, chunks: table(&[7]) });
        let found = all(content.clone(), &lists).unwrap_err();
        assert!(matches!(found, ContentError::Table(TableError::Depth { found: 1, expected: 0 })), "{found}");
        lists.remove(&id(101));
        assert!(matches!(all(content.clone(), &lists), Err(ContentError::List { .. })));
    }

    #[test]
    fn contradictions_are_refused() {
        let good = FileContent { size: 30, chunks: table(&[10]), ..FileContent::default() };
        let with = |holes: Vec<Hole>| FileContent { holes, ..good.clone() };
        assert!(check(&with(vec![hole(0, 5), hole(15, 15)])).is_ok());
        let bad = [
            with(vec![]),
            with(vec![hole(0, 5), hole(10, 15)]),
            with(vec![hole(0, 0), hole(5, 20)]),
            with(vec![hole(0, 5), hole(5, 15)]),
            with(vec![hole(10, 15), hole(0, 5)]),
            with(vec![hole(10, 21)]),
            with(vec![hole(u64::MAX, 2)]),
            with(vec![hole(5, u64::MAX)]),
            FileContent { size: 1 << 63, ..good.clone() },
            FileContent { depth: DEPTH_MAX + 1, ..good.clone() },
            FileContent { chunks: ByteBuf::from(vec![0; 35]), ..good.clone() },
        ];
        for content in bad {
            assert!(check(&content).is_err(), "{content:?}");
        }
    }
}
