//! The chunk table of a file as it grows: long ones are split into chunk lists on the way, so that a table in
//! memory stays short however large the file.

use serde_bytes::ByteBuf;

use crate::chunk::split::{CHUNK_RULE, Splitter};
use crate::format::chunk_list::{CHUNK_ENTRY_LEN, ChunkList, DEPTH_MAX, LIST_ENTRY_LEN, ListRef, push_list};
use crate::format::record;
use crate::ids::BlobId;

/// One level of a table that is being built.
#[derive(Debug, Default)]
struct Level {
    table: Vec<u8>,
    /// Bytes of content in `table`.
    bytes: u64,
    /// Whether the level has outgrown a single table.
    is_split: bool,
    /// Entries already known not to end a piece.
    scanned: usize,
    /// Bytes of content in the scanned entries.
    scanned_bytes: u64,
}

/// A table that is being built.
#[derive(Debug, Default)]
pub(crate) struct ChunkTable {
    levels: Vec<Level>,
}

const fn entry_len(depth: usize) -> usize {
    if depth == 0 { CHUNK_ENTRY_LEN } else { LIST_ENTRY_LEN }
}

fn entry_bytes(depth: usize, entry: &[u8]) -> u64 {
    let mut number = [0; 8];
    let stored = &entry[32..entry_len(depth)];
    number[..stored.len()].copy_from_slice(stored);
    u64::from_le_bytes(number)
}

impl ChunkTable {
    /// Appends whole entries of depth 0. Complete chunk lists are handed to `store`.
    pub fn append<E>(
        &mut self,
        entries: &[u8],
        splitter: &Splitter<'_>,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        self.append_at(0, entries, splitter, store)
    }

    fn append_at<E>(
        &mut self,
        depth: usize,
        entries: &[u8],
        splitter: &Splitter<'_>,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        if self.levels.len() == depth {
            self.levels.push(Level::default());
        }
        let len = entry_len(depth);
        let level = &mut self.levels[depth];
        level.table.extend_from_slice(entries);
        level.bytes += entries.chunks_exact(len).map(|entry| entry_bytes(depth, entry)).sum::<u64>();
        level.is_split |= level.table.len() / len > CHUNK_RULE.whole_max;
        if !level.is_split {
            return Ok(());
        }
        while let Some(list) = self.next_piece(depth, splitter) {
            self.store_list(depth, list, splitter, store)?;
        }
        Ok(())
    }

    /// Takes a complete piece off the front of a split level.
    fn next_piece(&mut self, depth: usize, splitter: &Splitter<'_>) -> Option<(Vec<u8>, u64)> {
        let len = entry_len(depth);
        let level = &mut self.levels[depth];
        while level.scanned < level.table.len() / len {
            let entry = &level.table[level.scanned * len..][..len];
            level.scanned += 1;
            level.scanned_bytes += entry_bytes(depth, entry);
            if splitter.ends_after(&CHUNK_RULE, level.scanned, 0, &entry[..32]) {
                let rest = level.table.split_off(level.scanned * len);
                let piece = std::mem::replace(&mut level.table, rest);
                let bytes = std::mem::take(&mut level.scanned_bytes);
                level.bytes -= bytes;
                level.scanned = 0;
                return Some((piece, bytes));
            }
        }
        None
    }

    fn store_list<E>(
        &mut self,
        depth: usize,
        (table, bytes): (Vec<u8>, u64),
        splitter: &Splitter<'_>,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        let list = ChunkList {
            depth: u8::try_from(depth).expect("depths stay below DEPTH_MAX"),
            chunks: ByteBuf::from(table),
        };
        let id = store(&record::encode(&list))?;
        let mut entry = Vec::with_capacity(LIST_ENTRY_LEN);
        push_list(&mut entry, ListRef { id, bytes });
        self.append_at(depth + 1, &entry, splitter, store)
    }

    /// Ends the table: its depth and the entries that go into the node.
    pub fn finish<E>(
        mut self,
        splitter: &Splitter<'_>,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(u8, Vec<u8>), E> {
        let mut depth = 0;
        while let Some(level) = self.levels.get_mut(depth) {
            if !level.is_split {
                debug_assert!(depth <= usize::from(DEPTH_MAX));
                let table = std::mem::take(&mut level.table);
                return Ok((u8::try_from(depth).expect("depths stay below DEPTH_MAX"), table));
            }
            let rest = (std::mem::take(&mut level.table), level.bytes);
            if !rest.0.is_empty() {
                self.store_list(depth, rest, splitter, store)?;
            }
            depth += 1;
        }
        Ok((0, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;
    use crate::crypto::keys::BlobKind;
    use crate::crypto::{KeySet, RootSecret};
    use crate::format::chunk_list::{Chunk, chunks, lists, push_chunk};

    fn entries(range: std::ops::Range<u32>) -> Vec<u8> {
        let mut table = Vec::new();
        for n in range {
            let id = BlobId::from_bytes(blake3::hash(&n.to_le_bytes()).into());
            push_chunk(&mut table, Chunk { id, len: n % 100 + 1 });
        }
        table
    }

    fn build(table: &[u8], step: usize) -> (u8, Vec<u8>, HashMap<BlobId, Vec<u8>>) {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let splitter = Splitter::new(&keys);
        let mut stored = HashMap::new();
        let mut store = |bytes: &[u8]| {
            let id = keys.blob_id(BlobKind::Tree, bytes);
            stored.insert(id, bytes.to_vec());
            Ok::<_, Infallible>(id)
        };
        let mut built = ChunkTable::default();
        for part in table.chunks(step * CHUNK_ENTRY_LEN) {
            built.append(part, &splitter, &mut store).unwrap();
        }
        let (depth, top) = built.finish(&splitter, &mut store).unwrap();
        (depth, top, stored)
    }

    fn expand(depth: u8, table: &[u8], stored: &HashMap<BlobId, Vec<u8>>, out: &mut Vec<u8>) -> u64 {
        if depth == 0 {
            out.extend_from_slice(table);
            return chunks(table).unwrap().map(|chunk| u64::from(chunk.unwrap().len)).sum();
        }
        let mut sum = 0;
        for list in lists(table).unwrap() {
            let list = list.unwrap();
            let child: ChunkList = record::decode(&stored[&list.id]).unwrap();
            assert_eq!(child.depth, depth - 1);
            assert_eq!(expand(child.depth, &child.chunks, stored, out), list.bytes);
            sum += list.bytes;
        }
        sum
    }

    #[test]
    fn short_tables_stay_whole() {
        for count in [0, 1, 64] {
            let table = entries(0..count);
            assert_eq!(build(&table, 7), (0, table, HashMap::new()));
        }
    }

    #[test]
    fn a_table_that_is_a_little_too_long_becomes_one_list() {
        let table = entries(0..65);
        let (depth, top, stored) = build(&table, 7);
        assert_eq!((depth, top.len(), stored.len()), (1, LIST_ENTRY_LEN, 1));
        let mut back = Vec::new();
        expand(depth, &top, &stored, &mut back);
        assert!(back == table);
    }

    #[test]
    fn long_tables_come_back_however_they_arrived() {
        let table = entries(0..100_000);
        let whole = build(&table, 100_000);
        assert_eq!(build(&table, 333), whole, "the split does not depend on the steps");
        let (depth, top, stored) = whole;
        assert_eq!(depth, 2, "100,000 chunks are more than 64 lists");
        let mut back = Vec::new();
        expand(depth, &top, &stored, &mut back);
        assert!(back == table);
    }

    #[test]
    fn a_change_in_the_middle_rewrites_few_lists() {
        let before = build(&entries(0..100_000), 1000);
        let changed = [entries(0..50_000), entries(1_000_000..1_000_003), entries(50_001..100_000)].concat();
        let after = build(&changed, 1000);
        let new = after.2.keys().filter(|id| !before.2.contains_key(*id)).count();
        assert!(new <= 6, "{new} of {}", after.2.len());
    }
}
