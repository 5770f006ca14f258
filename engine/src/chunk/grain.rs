//! Grain: how finely a file is cut, chosen by what it holds.
//!
//! | grain  | min, average, max     | for                                                          |
//! |--------|-----------------------|--------------------------------------------------------------|
//! | page   | 16 KiB, at fixed places | databases that keep their pages where they are: SQLite, PostgreSQL, InnoDB |
//! | fine   | 4, 16, 64 KiB         | by order only: other files with small changes all over        |
//! | medium | 16, 64, 256 KiB       | everything else                                              |
//! | coarse | 256 KiB, 1 MiB, 2 MiB | large incompressible files: media, archives, packages        |
//!
//! The grain is chosen when a file is first seen and then kept in its node: another choice tomorrow would cut
//! everything anew. What it costs: about 36 bytes of chunk list and 56 bytes of index per chunk. A file whose content
//! changes its nature keeps its grain as long as its path is in the parent snapshot. Small files, up to 256 KiB, are read in
//! batches and cut medium whatever they hold.

use crate::format::tree::Grain;

/// Chunk sizes in bytes; all even, as the scanner needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk but the last of a file is shorter.
    pub min: usize,
    /// The size cuts are normalised to.
    pub average: usize,
    /// No chunk is longer.
    pub max: usize,
}

/// The longest chunk of any grain.
pub const CHUNK_LEN_MAX: usize = 2 << 20;

/// Sizes of a grain.
pub const fn sizes(grain: Grain) -> ChunkSizes {
    match grain {
        Grain::Page => ChunkSizes { min: 16 << 10, average: 16 << 10, max: 16 << 10 },
        Grain::Fine => ChunkSizes { min: 4 << 10, average: 16 << 10, max: 64 << 10 },
        Grain::Medium => ChunkSizes { min: 16 << 10, average: 64 << 10, max: 256 << 10 },
        Grain::Coarse => ChunkSizes { min: 256 << 10, average: 1 << 20, max: CHUNK_LEN_MAX },
    }
}

/// From this size on an incompressible file is cut coarsely.
pub const COARSE_LEN_MIN: u64 = 4 << 20;

/// Chooses the grain of a file never seen before.
///
/// `head` is the beginning of the file (64 KiB or all of it), `size` its length, and `incompressible` what the
/// caller's compressor says of the head.
pub fn choose(head: &[u8], size: u64, incompressible: bool) -> Grain {
    if is_database(head) {
        Grain::Page
    } else if incompressible && size >= COARSE_LEN_MIN {
        Grain::Coarse
    } else {
        Grain::Medium
    }
}

/// Whether the file begins like a database's: SQLite, a PostgreSQL relation, an InnoDB tablespace.
pub fn is_database(head: &[u8]) -> bool {
    head.starts_with(b"SQLite format 3\0") || is_postgresql(head) || is_innodb(head)
}

/// PostgreSQL pages: at offset 18 the page size, 8192, plus layout version 4; at 12 and 14 the bounds of the
/// free space (`PageHeaderData` in PostgreSQL's `bufpage.h`).
fn is_postgresql(head: &[u8]) -> bool {
    const PAGE: usize = 8192;
    let page_is_valid = |page: &[u8]| {
        let number = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
        let (lower, upper, special) = (number(12), number(14), number(16));
        number(18) == PAGE | 4 && (24..=upper).contains(&lower) && upper <= special && special <= PAGE
    };
    // The first page may be all zeros; one valid page among the first few and no invalid one will do.
    let mut pages =
        head.chunks_exact(PAGE).take(8).filter(|page| page.iter().any(|byte| *byte != 0)).peekable();
    pages.peek().is_some() && pages.all(page_is_valid)
}

/// InnoDB pages of 16 KiB: each carries its own number at offset 4 and the tablespace's id at 34
/// (`FIL_PAGE_OFFSET`, `FIL_PAGE_SPACE_ID`); page 0 is of type 8, the space header.
fn is_innodb(head: &[u8]) -> bool {
    const PAGE: usize = 16 << 10;
    let pages = || head.chunks_exact(PAGE).take(4);
    let number =
        |page: &[u8], at: usize| u32::from_be_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    let mut numbered = pages().zip(0..).filter(|(page, _)| page.iter().any(|byte| *byte != 0));
    pages().count() >= 2
        && pages().next().is_some_and(|first| first[24..26] == [0, 8])
        && numbered.all(|(page, i)| number(page, 4) == i && number(page, 34) == number(head, 34))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_told_by_their_pages() {
        let mut sqlite = b"SQLite format 3\0".to_vec();
        sqlite.resize(4096, 0);
        assert_eq!(choose(&sqlite, 1 << 30, false), Grain::Page);

        let mut page = vec![0; 8192];
        page[12..20].copy_from_slice(&[40, 0, 0, 0x10, 0, 0x20, 4, 0x20]);
        let relation = [vec![0; 8192], page.clone(), page.clone()].concat();
        assert_eq!(choose(&relation, 1 << 30, false), Grain::Page);
        page[18] = 0;
        assert_eq!(choose(&[relation, page].concat(), 1 << 30, false), Grain::Medium, "one page is none");

        let mut innodb = vec![0; 32 << 10];
        innodb[24..26].copy_from_slice(&[0, 8]);
        innodb[34..38].copy_from_slice(&[0, 0, 0, 9]);
        innodb[(16 << 10) + 4..(16 << 10) + 8].copy_from_slice(&[0, 0, 0, 1]);
        innodb[(16 << 10) + 34..(16 << 10) + 38].copy_from_slice(&[0, 0, 0, 9]);
        assert_eq!(choose(&innodb, 1 << 30, false), Grain::Page);
    }

    #[test]
    fn only_large_incompressible_files_are_cut_coarsely() {
        assert_eq!(choose(&[0; 65536], 1 << 30, false), Grain::Medium);
        assert_eq!(choose(b"", 0, false), Grain::Medium);
        assert_eq!(choose(&[1; 65536], 1 << 30, true), Grain::Coarse);
        assert_eq!(choose(&[1; 65536], 1 << 20, true), Grain::Medium);
    }
}
