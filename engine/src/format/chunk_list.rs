//! Chunk tables: which chunks make up a file, as fixed-width entries, and their splitting into nested lists.
//!
//! A table of depth 0 has 36-byte entries `id ‖ le32 length`, one per chunk. A table of depth n has 40-byte
//! entries `id ‖ le64 bytes`, each naming a [`ChunkList`] blob whose table has depth n − 1.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::format::block::BLOB_LEN_MAX;
use crate::ids::BlobId;

/// Length of an entry of depth 0.
pub const CHUNK_ENTRY_LEN: usize = 36;
/// Length of an entry of a deeper table.
pub const LIST_ENTRY_LEN: usize = 40;
/// Tables nest at most this deep: more than 2^64 bytes of content.
pub const DEPTH_MAX: u8 = 8;

/// A chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The data blob.
    pub id: BlobId,
    /// Its length in bytes, at least 1.
    pub len: u32,
}

/// A part of a long chunk table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRef {
    /// The chunk-list blob, of kind tree.
    pub id: BlobId,
    /// Bytes of content below it.
    pub bytes: u64,
}

/// The blob that holds a part of a long chunk table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkList {
    /// Depth of the table.
    pub depth: u8,
    /// The table.
    pub chunks: ByteBuf,
}

/// A chunk table that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Its length is no multiple of its entries' length.
    #[error("a chunk table of {0} bytes does not consist of whole entries")]
    Length(usize),
    /// An entry that no writer makes.
    #[error("a chunk of {0} bytes: chunks have 1 to {BLOB_LEN_MAX}")]
    Chunk(u32),
    /// An empty list.
    #[error("a chunk list without content")]
    EmptyList,
    /// Nested too deep, or with another depth than its parent says.
    #[error("a chunk table of depth {found}, expected {expected}")]
    Depth {
        /// Depth found.
        found: u8,
        /// Depth expected.
        expected: u8,
    },
}

/// Appends a chunk to a table of depth 0.
pub fn push_chunk(table: &mut Vec<u8>, chunk: Chunk) {
    table.extend_from_slice(chunk.id.as_bytes());
    table.extend_from_slice(&chunk.len.to_le_bytes());
}

/// Appends a list to a table of depth 1 or more.
pub fn push_list(table: &mut Vec<u8>, list: ListRef) {
    table.extend_from_slice(list.id.as_bytes());
    table.extend_from_slice(&list.bytes.to_le_bytes());
}

/// The chunks of a table of depth 0.
///
/// # Errors
/// [`TableError`] for the whole table if its length is wrong, or at the entry that is.
pub fn chunks(table: &[u8]) -> Result<impl ExactSizeIterator<Item = Result<Chunk, TableError>>, TableError> {
    Ok(entries::<CHUNK_ENTRY_LEN>(table)?.map(|(id, rest)| {
        let len = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
        if len == 0 || len as usize > BLOB_LEN_MAX {
            Err(TableError::Chunk(len))
        } else {
            Ok(Chunk { id, len })
        }
    }))
}

/// The lists of a table of depth 1 or more.
///
/// # Errors
/// [`TableError`] for the whole table if its length is wrong, or at the entry that is.
pub fn lists(table: &[u8]) -> Result<impl ExactSizeIterator<Item = Result<ListRef, TableError>>, TableError> {
    Ok(entries::<LIST_ENTRY_LEN>(table)?.map(|(id, rest)| {
        let bytes = u64::from_le_bytes(rest.try_into().expect("an entry of 40 bytes less an id of 32"));
        if bytes == 0 { Err(TableError::EmptyList) } else { Ok(ListRef { id, bytes }) }
    }))
}

fn entries<const N: usize>(
    table: &[u8],
) -> Result<impl ExactSizeIterator<Item = (BlobId, &[u8])>, TableError> {
    if !table.len().is_multiple_of(N) {
        return Err(TableError::Length(table.len()));
    }
    Ok(table.chunks_exact(N).map(|entry| {
        let (id, rest) = entry.split_first_chunk::<32>().expect("entries are longer than an id");
        (BlobId::from_bytes(*id), rest)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_back_and_bad_ones_do_not() {
        let chunk = |n: u8| Chunk { id: BlobId::from_bytes([n; 32]), len: u32::from(n) };
        let mut table = Vec::new();
        push_chunk(&mut table, chunk(1));
        push_chunk(&mut table, chunk(2));
        let back: Result<Vec<_>, _> = chunks(&table).expect("whole entries").collect();
        assert_eq!(back, Ok(vec![chunk(1), chunk(2)]));
        assert!(chunks(&table[1..]).is_err());
        push_chunk(&mut table, Chunk { len: 0, ..chunk(3) });
        assert!(chunks(&table).expect("whole entries").any(|chunk| chunk == Err(TableError::Chunk(0))));
        let mut table = Vec::new();
        push_list(&mut table, ListRef { id: BlobId::from_bytes([1; 32]), bytes: 0 });
        assert_eq!(lists(&table).expect("whole").next(), Some(Err(TableError::EmptyList)));
    }
}
